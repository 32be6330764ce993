//! The real disk.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, FlockOperation};

use super::{Access, DirLock, Disk, DiskFile, Listed};

/// Name of the file that carries a directory's lock. It stays when the lock is released: removing
/// it would let two processes lock two different files.
const LOCK_NAME: &str = "lock";

/// Zeros written at a time where the file system cannot reserve.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// The file system of the machine: directories 0700, files 0600.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            Some(_) => Path::new("."),
            // The root.
            None => return Ok(()),
        };
        let exists = path.exists();
        if !exists {
            self.create_dir(parent)?;
        }
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        // A level is durable only once the level above it is synced. One that exists may have been
        // made by a process that was killed before that.
        match self.sync_dir(parent) {
            // Somebody else may have made it; and a disk that fails must not stop a start.
            Err(_) if exists => Ok(()),
            synced => synced,
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>> {
        let mut listed = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let meta = match entry.metadata() {
                Ok(meta) => meta,
                // Removed between the listing and the look.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let is_dir = meta.is_dir();
            listed.push(Listed { name, is_dir, len: if is_dir { 0 } else { meta.len() } });
        }
        listed.sort();
        Ok(listed)
    }

    fn create(&self, path: &Path, size: u64) -> io::Result<Arc<dyn DiskFile>> {
        let file =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        let file = RealFile(file);
        if let Err(error) = file.allocate(size) {
            // What cannot be reserved is of no use; should this fail too, the next start sees an
            // empty file and treats it as one.
            let _ = std::fs::remove_file(path);
            return Err(error);
        }
        Ok(Arc::new(file))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let write = access == Access::ReadWrite;
        let file = OpenOptions::new().read(true).write(write).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn lock_dir(&self, dir: &Path) -> io::Result<Box<dyn DirLock>> {
        let path = dir.join(LOCK_NAME);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        // The holder's process number, for a person who looks; nothing reads it, so a full disk
        // must not stop the start.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Box::new(RealLock(file)))
    }

    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        let volume = rustix::fs::statvfs(dir)?;
        Ok(volume.f_bavail.saturating_mul(volume.f_frsize))
    }
}

#[derive(Debug)]
struct RealLock(File);

impl DirLock for RealLock {}

impl Drop for RealLock {
    fn drop(&mut self) {
        // Closing it would not do while a process that is just being started has a copy of it.
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < into.len() {
            match self.0.read_at(&mut into[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        let len = self.len()?;
        if size <= len {
            return Ok(());
        }
        let reserved = rustix::io::retry_on_intr(|| {
            rustix::fs::fallocate(&self.0, FallocateFlags::empty(), len, size - len)
        });
        match reserved {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                fill_with_zeros(&self.0, len, size)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn set_len(&self, size: u64) -> io::Result<()> {
        self.0.set_len(size)
    }
}

/// Reserves by writing, where the file system knows no other way.
fn fill_with_zeros(file: &File, from: u64, to: u64) -> io::Result<()> {
    let mut offset = from;
    while offset < to {
        let piece = (to - offset).min(ZEROS.len() as u64);
        file.write_all_at(&ZEROS[..piece as usize], offset)?;
        offset += piece;
    }
    Ok(())
}
