//! The whole system in one process on a disk that fails, and on one that loses its power: a library
//! between the process and the kernel (`disk/faulty.c`) makes writes and syncs fail, and remembers
//! what was not synced.

mod common;
#[path = "common/dev.rs"]
mod dev;

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use common::{PATIENCE, Process, address, post, preloaded, succeed};
use dev::{Dev, Platform};
use tollgate_testkit::{TestDir, eventually};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// The errno of writes, and that of syncs.
type Failure = (i32, i32);
const WORKS: Failure = (0, 0);

/// The disk under a process whose data is below `dir`.
struct Disk {
    dir: TestDir,
    library: PathBuf,
    errno: PathBuf,
    undo: PathBuf,
    cut: PathBuf,
}

impl Disk {
    fn new(name: &str) -> Result<Self> {
        let dir = TestDir::new(name)?;
        let library = preloaded("disk/faulty.c", dir.path())?;
        let (errno, undo) = (dir.path().join("errno"), dir.path().join("undo"));
        fs::create_dir(&undo)?;
        let cut = dir.path().join("cut");
        Ok(Self { dir, library, errno, undo, cut })
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let text = |path: &Path| path.display().to_string();
        vec![
            ("LD_PRELOAD", text(&self.library)),
            ("FAULTY_DIR", text(&self.data())),
            ("FAULTY_ERRNO", text(&self.errno)),
            ("FAULTY_UNDO", text(&self.undo)),
            ("FAULTY_CUT", text(&self.cut)),
            // A disk that is back is noticed soon.
            ("TOLLGATE_SPOOL__PROBE_INTERVAL_MS", "100".to_owned()),
        ]
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// From now on writes and syncs end like this.
    fn set(&self, (writes, syncs): Failure) -> Result<()> {
        let next = self.errno.with_extension("next");
        fs::write(&next, format!("{writes} {syncs}"))?;
        Ok(fs::rename(next, &self.errno)?)
    }

    /// The process will die before its sync of a directory of this number; 0 for none.
    fn cut_at(&self, sync: u32) -> Result<()> {
        Ok(fs::write(&self.cut, sync.to_string())?)
    }

    /// What was written and not synced is as it was before, names in directories too. To be called
    /// when the process is dead. Returns how many writes and how many names are undone.
    fn lose_power(&self) -> Result<(usize, usize)> {
        // Names first: what was removed has its bytes again.
        let names = self.lose_names()?;
        let writes = self.lose_writes()?;
        for entry in fs::read_dir(&self.undo)? {
            fs::remove_file(entry?.path())?;
        }
        Ok((writes, names))
    }

    fn lose_names(&self) -> Result<usize> {
        let log = self.undo.join("names");
        let log = if log.exists() { fs::read_to_string(log)? } else { String::new() };
        let (mut synced, mut undone) = (HashSet::new(), 0);
        for line in log.lines().rev() {
            let words: Vec<&str> = line.split('\t').collect();
            match words[..] {
                ["synced", dir] => {
                    synced.insert(dir);
                }
                [what, dir, name, before, old_name] if !synced.contains(dir) => {
                    undo_name(what, Path::new(name), Path::new(before), Path::new(old_name))
                        .with_context(|| format!("cannot undo: {line}"))?;
                    undone += 1;
                }
                // The process was killed while it wrote it.
                _ => {}
            }
        }
        Ok(undone)
    }

    fn lose_writes(&self) -> Result<usize> {
        let mut files = HashMap::new();
        by_inode(&self.data(), &mut files).context("nothing is left")?;
        let mut undone = 0;
        for entry in fs::read_dir(&self.undo)? {
            let log = entry?;
            let Ok(inode) = log.file_name().to_string_lossy().parse::<u64>() else { continue };
            // A file that was removed since is gone, power or not.
            if let Some(path) = files.get(&inode) {
                let file = File::options().write(true).open(path)?;
                let kept = fs::read(log.path())?;
                for write in writes(&kept).into_iter().rev() {
                    file.write_all_at(write.replaced, write.offset)?;
                    file.set_len(write.file_length)?;
                    // Each start writes who holds the lock, which nobody syncs.
                    undone += usize::from(!path.ends_with("lock"));
                }
            }
        }
        Ok(undone)
    }
}

/// `before` is a link to what the name was of, if it was of a file.
fn undo_name(what: &str, name: &Path, before: &Path, old_name: &Path) -> Result<()> {
    match what {
        // It may have been killed before it did it.
        "renamed" if !old_name.exists() => fs::rename(name, old_name)?,
        "created" if name.is_dir() => fs::remove_dir_all(name)?,
        "created" if name.exists() => fs::remove_file(name)?,
        _ => {}
    }
    if before.exists() && !name.exists() {
        fs::hard_link(before, name)?;
    }
    Ok(())
}

struct Write<'a> {
    offset: u64,
    file_length: u64,
    replaced: &'a [u8],
}

/// As `struct undo` has them; a record that the process was killed in is of a write that never
/// began.
fn writes(mut kept: &[u8]) -> Vec<Write<'_>> {
    let mut writes = Vec::new();
    while let Some((head, rest)) = kept.split_first_chunk::<24>() {
        let number = |at: usize| u64::from_ne_bytes(head[at..at + 8].try_into().expect("8 bytes"));
        let Some((replaced, rest)) = rest.split_at_checked(number(8) as usize) else { break };
        writes.push(Write { offset: number(0), file_length: number(16), replaced });
        kept = rest;
    }
    writes
}

fn by_inode(dir: &Path, files: &mut HashMap<u64, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            by_inode(&entry.path(), files)?;
        } else {
            files.insert(entry.metadata()?.ino(), entry.path());
        }
    }
    Ok(())
}

/// What an edge answers to a notification of ours, among those of the platform.
async fn answer(edge: &str) -> Result<u16> {
    let body = r#"{"eventType":"answer","statusInfo":{"sessionId":"s","timestamp":"2026-11-23 07:00:00"}}"#;
    post(&format!("{edge}/status"), body).await
}

async fn answers(edge: &str, expected: u16) {
    eventually(PATIENCE, async || match answer(edge).await {
        Ok(answer) if answer == expected => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

/// From the moment at which the disk fails nothing is answered 200.
async fn refuses(edge: &str, disk: &Disk, failure: Failure) -> Result<()> {
    disk.set(failure)?;
    for _ in 0..5 {
        let answer = answer(edge).await?;
        ensure!(answer == 503, "errno of writes and syncs {failure:?}: answered {answer}");
    }
    Ok(())
}

/// Both consumers write again, on the connections that have seen the disk fail.
async fn consumers_go_on(dev: &Dev, platform: &Platform) -> Result<()> {
    for group in ["tollgate-billing", "user-state"] {
        let applied = async || {
            let page = dev.process.metrics().await?;
            let of_group = format!("tollgate_consumer_records_applied_total{{group=\"{group}\"");
            let lines = page.lines().filter(|line| line.starts_with(&of_group));
            anyhow::Ok(
                lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>(),
            )
        };
        let before = applied().await?;
        eventually(PATIENCE, async || {
            let applied = applied().await? > before;
            ensure!(applied || platform.is_done(), "{group} applies nothing");
            Ok(())
        })
        .await;
    }
    Ok(())
}

/// I1, I3: what cannot be stored is answered 503, and what was answered 200 is billed once, whatever
/// the disk says to a write or a sync, and if the process is killed meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_costs_nothing_that_was_acknowledged() -> Result<()> {
    let disk = Disk::new("failing-disk")?;
    let mut dev = Dev::start(disk.dir.path(), &[], &disk.environment()).await?;
    // Enough for both consumers after each failure.
    let load = ["--seed", "23", "--calls", "800", "--rate", "40"];
    let platform = Platform::start(&dev, disk.dir.path(), &load);
    let failures = [(ENOSPC, 0), (0, EIO), (EIO, EIO), (0, ENOSPC)];
    for (round, failure) in (1..).zip(failures) {
        platform.acknowledged(&dev, f64::from(round) * 100.0).await?;
        refuses(&dev.edge, &disk, failure).await?;
        disk.set(WORKS)?;
        answers(&dev.edge, 200).await;
        consumers_go_on(&dev, &platform).await?;
    }
    platform.acknowledged(&dev, 500.0).await?;
    refuses(&dev.edge, &disk, (ENOSPC, EIO)).await?;
    dev.process.kill();
    disk.set(WORKS)?;
    dev.process.restart().await?;
    platform.verify(&dev).await?;
    dev.process.stop().await
}

/// I1: on a disk that fails an edge starts, answers 503 to everybody, keeps what it has, and goes on
/// by itself when the disk is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_starts_on_a_disk_that_fails_refuses_until_it_works() -> Result<()> {
    let disk = Disk::new("failing-start")?;
    let (listen, spool) = (address(), disk.data().display().to_string());
    let mut environment = disk.environment();
    environment.extend([
        // Nobody: all that is acknowledged stays in the spool.
        ("TOLLGATE_KAFKA__BROKERS", address().to_string()),
        ("TOLLGATE_EDGE__LISTEN", listen.to_string()),
        ("TOLLGATE_SPOOL__DIR", spool.clone()),
    ]);
    let url = format!("http://{listen}");
    let mut edge = Process::start("edge", disk.dir.path(), &["edge"], &environment).await?;
    for failure in [(ENOSPC, ENOSPC), (0, EIO), (EIO, 0)] {
        ensure!(answer(&url).await? == 200);
        refuses(&url, &disk, failure).await?;
        edge.kill();
        edge.restart_unready()?;
        answers(&url, 503).await;
        refuses(&url, &disk, failure).await?;
        disk.set(WORKS)?;
        edge.ready().await?;
    }
    edge.stop().await?;
    let report = succeed(&["spool", "verify", "--dir", &spool], &[])?;
    let report: serde_json::Value = serde_json::from_str(&report)?;
    let kept = report["inspection"]["unconfirmed"].as_u64();
    // What was written before its sync failed may be there, too.
    ensure!(kept.is_some_and(|kept| kept >= 3), "{report}");
    Ok(())
}

/// I1, I3: a power cut loses what was written and not synced, and names whose directory was not;
/// nothing of that was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_costs_nothing_that_was_acknowledged() -> Result<()> {
    let disk = Disk::new("power-cut")?;
    let mut dev = Dev::start(disk.dir.path(), &[], &disk.environment()).await?;
    let load = ["--seed", "29", "--calls", "400", "--rate", "40"];
    let platform = Platform::start(&dev, disk.dir.path(), &load);
    let mut undone = 0;
    for count in [100.0, 150.0, 200.0] {
        platform.acknowledged(&dev, count).await?;
        dev.process.kill();
        undone += disk.lose_power()?.0;
        dev.process.restart().await?;
    }
    ensure!(undone > 0, "no write was lost");
    dev.process.kill();
    undone = 0;
    // Each start has these.
    for sync in 1..=4 {
        disk.cut_at(sync)?;
        dev.process.restart_unready()?;
        dev.process.failed().await?;
        undone += disk.lose_power()?.1;
    }
    ensure!(undone > 0, "no name was lost");
    disk.cut_at(0)?;
    dev.process.restart().await?;
    platform.verify(&dev).await?;
    dev.process.stop().await
}

/// I1: a database's directory outlives a power cut as soon as something is written to it.
#[tokio::test]
async fn a_power_cut_leaves_a_new_database_where_it_was_made() -> Result<()> {
    let disk = Disk::new("new-database")?;
    let dir = disk.data().join("made").join("by us");
    let file = dir.join("billing.sqlite");
    let mut environment = disk.environment();
    environment.extend([
        ("TOLLGATE_KAFKA__BROKERS", address().to_string()),
        ("TOLLGATE_DATABASE__URL", format!("sqlite:{}", file.display())),
    ]);
    let mut billing = Process::new("billing", disk.dir.path(), &["billing"], &environment);
    billing.restart_unready()?;
    eventually(PATIENCE, async || match dir.join("billing.sqlite-wal").metadata() {
        Ok(log) if log.len() > 0 => Ok(()),
        other => Err(format!("{other:?}:\n{}", billing.output())),
    })
    .await;
    billing.kill();
    disk.lose_power()?;
    ensure!(file.exists(), "{} is gone", file.display());
    Ok(())
}
