//! The directory of one test process, and who removes it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

const PREFIX: &str = "tollgate-test-";

/// Reads until the test process is gone, however it went, then removes what it left: the System V
/// shared memory of killed postmasters (line 7 of their pid file names it) and the directory.
/// Servers are killed by the kernel at the same moment and may still write for an instant.
const WATCHER: &str = r#"
cat > /dev/null
for pidfile in "$1"/*/data/postmaster.pid; do
    [ -f "$pidfile" ] || continue
    sed -n 7p "$pidfile" | { read -r key id && ipcrm --shmem-id "$id"; }
done
tries=0
while ! rm -rf "$1" && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
"#;

struct RunDir {
    path: PathBuf,
    _lock: File,
    /// Its end closes when this process dies, which is what the watcher waits for.
    _watcher: ChildStdin,
}

/// A directory below the run directory, removed on drop. Its path is short enough for a unix
/// socket in it.
#[derive(Debug)]
pub struct TestDir {
    path: PathBuf,
}

impl TestDir {
    /// Makes a new directory whose name begins with `name`.
    pub fn new(name: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = run_dir()?.join(format!("{name}-{number}"));
        fs::create_dir(&path)?;
        Ok(Self { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        // What cannot be removed now goes with the run directory.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn run_dir() -> Result<&'static Path> {
    static RUN: OnceLock<Result<RunDir, String>> = OnceLock::new();
    RUN.get_or_init(|| create().map_err(|error| format!("{error:#}")))
        .as_ref()
        .map(|run| run.path.as_path())
        .map_err(|error| anyhow::anyhow!("{error}"))
}

fn create() -> Result<RunDir> {
    remove_stale();
    let path = std::env::temp_dir().join(format!("{PREFIX}{}", std::process::id()));
    if path.exists() {
        fs::remove_dir_all(&path).context("cannot remove the leftovers of an earlier test run")?;
    }
    fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
    // PostgreSQL's account has to pass through.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    let lock = File::create(path.join("lock"))?;
    lock.lock()?;
    let watcher = watch(&path)?;
    Ok(RunDir { path, _lock: lock, _watcher: watcher })
}

fn watch(path: &Path) -> Result<ChildStdin> {
    Command::new("sh")
        .args(["-c", WATCHER, "tollgate-test-watcher"])
        .arg(path)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Away from the terminal's interrupt, which is when it is needed most.
        .process_group(0)
        .spawn()
        .context("cannot run sh")?
        .stdin
        .context("watcher has no standard input")
}

/// Removes what dead runs left, for instance when the watcher was killed too. A run is dead when
/// nobody holds its lock and its process is gone.
fn remove_stale() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if is_dead_run(&path) {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

fn is_dead_run(path: &Path) -> bool {
    let pid = path
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.strip_prefix(PREFIX))
        .and_then(|pid| pid.parse::<u32>().ok());
    let Some(pid) = pid else { return false };
    if Path::new("/proc").join(pid.to_string()).exists() {
        return false;
    }
    match File::open(path.join("lock")) {
        Ok(lock) => lock.try_lock().is_ok(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}
