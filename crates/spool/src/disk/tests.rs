use std::io;
use std::path::{Path, PathBuf};

use super::{
    Access, Disk, FaultPlan, FaultyDisk, Injected, Listed, Loss, Operation, RealDisk, read_up_to,
};

/// What both disks must do alike.
fn behaves_like_a_disk(disk: &dyn Disk, root: &Path) {
    let dir = root.join("a/b");
    disk.create_dir(&dir).unwrap();
    disk.create_dir(&dir).unwrap();
    let path = dir.join("file");
    let file = disk.create(&path, 100).unwrap();
    assert_eq!(file.len().unwrap(), 100);
    assert!(!file.is_empty().unwrap());
    assert!(disk.create(&path, 0).is_err(), "a taken name is refused");
    file.write_at(98, b"tail").unwrap();
    assert_eq!(file.len().unwrap(), 102);
    let mut four = [9; 4];
    assert_eq!(file.read_at(100, &mut four).unwrap(), 2);
    assert_eq!(&four, b"il\x09\x09");
    assert_eq!(file.read_at(1000, &mut four).unwrap(), 0);
    file.allocate(50).unwrap();
    assert_eq!(file.len().unwrap(), 102, "reserving never shrinks");
    file.allocate(200).unwrap();
    assert_eq!(file.len().unwrap(), 200);
    file.set_len(99).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(&dir).unwrap();
    let mut expected = vec![0; 99];
    expected[98] = b't';
    assert_eq!(read_up_to(&*disk.open(&path, Access::Read).unwrap(), 0, 1000).unwrap(), expected);
    assert!(disk.open(&path, Access::Read).unwrap().write_at(0, b"x").is_err());

    disk.rename(&path, &dir.join("other")).unwrap();
    let listed = disk.list(&dir).unwrap();
    assert_eq!(listed, [Listed { name: "other".into(), is_dir: false, len: 99 }]);
    let upper = disk.list(&root.join("a")).unwrap();
    assert_eq!(upper, [Listed { name: "b".into(), is_dir: true, len: 0 }]);
    disk.remove(&dir.join("other")).unwrap();
    assert_eq!(
        disk.open(&dir.join("other"), Access::Read).unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
    assert_eq!(disk.list(&root.join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);

    let lock = disk.lock_dir(&dir).unwrap();
    assert_eq!(disk.lock_dir(&dir).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    drop(lock);
    let _again = disk.lock_dir(&dir).unwrap();
    assert!(disk.free_space(&dir).unwrap() > 0);
}

#[test]
fn the_real_and_the_faulty_disk_behave_alike_while_nothing_fails() {
    let temp = tempfile::tempdir().unwrap();
    behaves_like_a_disk(&RealDisk, temp.path());
    behaves_like_a_disk(&FaultyDisk::new(1), Path::new("/spool"));
}

#[test]
fn the_real_disk_makes_private_directories_and_files() {
    use std::os::unix::fs::PermissionsExt as _;
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("x/y");
    RealDisk.create_dir(&dir).unwrap();
    RealDisk.create(&dir.join("f"), 10).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    assert_eq!(mode(&temp.path().join("x")), 0o700);
    assert_eq!(mode(&dir.join("f")), 0o600);
}

fn faulty() -> (FaultyDisk, PathBuf) {
    let disk = FaultyDisk::new(7);
    disk.create_dir(Path::new("/d")).unwrap();
    (disk, PathBuf::from("/d/f"))
}

#[test]
fn a_power_cut_loses_what_was_not_synced_and_nothing_else() {
    let (disk, path) = faulty();
    let file = disk.create(&path, 4).unwrap();
    file.write_at(0, b"kept").unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    file.write_at(0, b"lost").unwrap();
    assert_eq!(disk.contents(&path).unwrap(), b"lost");
    disk.create(Path::new("/d/unsynced"), 1).unwrap();
    disk.power_cut(Loss::Everything);
    assert_eq!(disk.contents(&path).unwrap(), b"kept");
    assert_eq!(disk.paths(), [path]);
    assert!(file.write_at(0, b"dead").is_err(), "a handle does not survive");
}

#[test]
fn a_random_power_cut_tears_writes_at_sectors() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let disk = FaultyDisk::new(seed);
        disk.create_dir(Path::new("/d")).unwrap();
        let file = disk.create(Path::new("/d/f"), 1024).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        file.write_at(0, &[1; 1024]).unwrap();
        disk.power_cut(Loss::Random);
        let bytes = disk.contents(Path::new("/d/f")).unwrap();
        assert!(bytes[..512].iter().all(|byte| *byte == bytes[0]));
        assert!(bytes[512..].iter().all(|byte| *byte == bytes[512]));
        seen.insert((bytes[0], bytes[512]));
    }
    assert_eq!(seen.len(), 4, "every mixture occurs: {seen:?}");
}

#[test]
fn a_sync_that_failed_is_not_made_good_by_a_later_one() {
    let mut lost = 0;
    for seed in 0..50 {
        let disk = FaultyDisk::new(seed);
        disk.create_dir(Path::new("/d")).unwrap();
        let file = disk.create(Path::new("/d/f"), 4).unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        file.sync_data().unwrap();
        file.write_at(0, b"data").unwrap();
        disk.arm(FaultPlan::once(Operation::Sync, 0, Injected::Eio));
        file.sync_data().unwrap_err();
        file.sync_data().unwrap();
        disk.power_cut(Loss::Everything);
        lost += u32::from(disk.contents(Path::new("/d/f")).unwrap() != b"data");
    }
    assert!(lost > 10, "{lost}");
}

#[test]
fn faults_hit_the_operation_and_the_file_they_are_armed_for() {
    let (disk, path) = faulty();
    let file = disk.create(&path, 0).unwrap();
    let other = disk.create(Path::new("/d/other"), 0).unwrap();
    disk.arm(FaultPlan::once(Operation::Write, 1, Injected::Enospc).on("/d/f"));
    other.write_at(0, b"1").unwrap();
    other.write_at(0, b"2").unwrap();
    file.write_at(0, b"1").unwrap();
    let error = file.write_at(0, b"2").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    file.write_at(0, b"3").unwrap();
    assert_eq!(disk.count(Operation::Write), 5);

    disk.set_capacity(10);
    assert_eq!(disk.create(Path::new("/d/g"), 20).unwrap_err().kind(), io::ErrorKind::StorageFull);
    disk.set_capacity(1000);
    disk.die_after(1);
    file.write_at(0, b"4").unwrap();
    file.write_at(0, b"5").unwrap_err();
    disk.list(Path::new("/d")).unwrap_err();
    disk.kill();
    assert!(disk.list(Path::new("/d")).is_ok());
}

#[test]
fn bits_flip_durably_and_a_fork_has_its_own_future() {
    let (disk, path) = faulty();
    disk.put(&path, vec![0, 0]);
    let fork = disk.fork();
    assert!(disk.flip(&path, 1, 0x81));
    assert!(!disk.flip(&path, 2, 1));
    disk.power_cut(Loss::Everything);
    assert_eq!(disk.contents(&path).unwrap(), [0, 0x81]);
    assert_eq!(fork.contents(&path).unwrap(), [0, 0]);
}
