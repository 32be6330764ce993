//! A small file system for a spool that can be filled to the last byte.
//!
//! It is mounted in a mount namespace that only its keeper is in, and used through
//! `/proc/<keeper>/root`: so it needs no place on the machine, and the kernel removes it when the
//! keeper ends, which it does when this process does, however that ends.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use tollgate_testkit::{Server, dies_with_us};

/// Room for a spool of 12 MiB and its extras.
const SIZE: &str = "size=16m";
const KEEP: &str = r#"mount -t tmpfs -o "$2" none "$1" && echo mounted && exec sleep infinity"#;
const PATIENCE: Duration = Duration::from_secs(10);
const BALLAST: &str = "ballast";

/// A mounted file system; gone on drop.
pub struct Tmpfs {
    _keeper: Server,
    path: PathBuf,
}

impl Tmpfs {
    /// Mounts one over `at`, for its keeper alone. Fails where user namespaces are not permitted.
    pub fn mount(at: &Path, log: &Path) -> Result<Self> {
        let mut command = Command::new("unshare");
        command
            .args(["--user", "--map-root-user", "--mount", "--propagation", "private", "--"])
            // Inside: the change of user would clear the signal.
            .args(dies_with_us(Path::new("sh"))?)
            .args(["-c", KEEP, "sh"])
            .arg(at)
            .arg(SIZE);
        let mut keeper = Server::start(command, log)?;
        keeper.await_ready("mount", PATIENCE, |keeper| keeper.output().contains("mounted"))?;
        let root = PathBuf::from(format!("/proc/{}/root", keeper.id()));
        let path = root.join(at.strip_prefix("/").context("the mount point is not absolute")?);
        File::create(path.join("probe")).context("the mount cannot be used from outside")?;
        fs::remove_file(path.join("probe"))?;
        Ok(Self { _keeper: keeper, path })
    }

    /// Where it is for everybody else.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes all the room that is left.
    pub fn fill(&self) -> Result<()> {
        let mut file = File::create(self.path.join(BALLAST))?;
        let bytes = vec![0x5a; 64 * 1024];
        let mut piece = bytes.as_slice();
        loop {
            match file.write(piece) {
                Ok(_) => {}
                Err(_) if piece.len() > 1 => piece = &piece[..piece.len() / 2],
                Err(_) => return Ok(()),
            }
        }
    }

    /// Gives it back.
    pub fn free(&self) -> Result<()> {
        match fs::remove_file(self.path.join(BALLAST)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tollgate_testkit::TestDir;

    use super::*;

    #[test]
    fn a_full_file_system_takes_no_byte_and_a_freed_one_does() {
        let (dir, logs) = (TestDir::new("tmpfs").unwrap(), TestDir::new("tmpfs").unwrap());
        let log = logs.path().join("log");
        // Where it is not permitted, a run says so and leaves the fault out.
        let Ok(tmpfs) = Tmpfs::mount(dir.path(), &log) else { return };
        tmpfs.fill().unwrap();
        assert!(fs::write(tmpfs.path().join("one"), [1]).is_err());
        tmpfs.free().unwrap();
        fs::write(tmpfs.path().join("one"), [1]).unwrap();
        assert!(!dir.path().join("one").exists(), "it is mounted for everybody");
    }
}
