//! What the machine must have, where it is, and who we are on it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Finds a program on the search path, or says which package has it.
pub fn program(name: &str, package: &str) -> Result<PathBuf> {
    std::env::var_os("PATH")
        .iter()
        .flat_map(|path| std::env::split_paths(path).collect::<Vec<_>>())
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .with_context(|| format!("{name} is not installed: apt-get install {package}"))
}

/// Cargo's target directory, where downloads and templates are kept between runs.
pub fn target_dir() -> PathBuf {
    let tagged = |path: &Path| path.join("CACHEDIR.TAG").is_file();
    std::env::current_exe()
        .ok()
        .and_then(|exe| exe.ancestors().find(|dir| tagged(dir)).map(Path::to_owned))
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"))
}

/// Makes what `make` makes at `path`, once for all test binaries that run at the same time: it
/// is built beside, under a lock, and renamed when it is whole.
pub fn once(path: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let parent = path.parent().context("cache path has no parent")?;
    fs::create_dir_all(parent)?;
    let lock = File::create(path.with_added_extension("lock"))?;
    lock.lock().context("cannot lock the cache under target/")?;
    if path.exists() {
        return Ok(());
    }
    let unfinished = path.with_added_extension("unfinished");
    if unfinished.is_dir() {
        fs::remove_dir_all(&unfinished)?;
    } else if unfinished.exists() {
        fs::remove_file(&unfinished)?;
    }
    make(&unfinished)?;
    fs::rename(&unfinished, path)?;
    Ok(())
}

/// Runs a command to its end and returns what it printed; so does the error when it fails.
pub fn run(command: &mut Command) -> Result<String> {
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
    let what = words.join(OsStr::new(" ")).to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {what}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(
        output.status.success(),
        "{what} failed ({}):\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    Ok(text(&output.stdout))
}

/// An account of this machine.
#[derive(Debug, Clone)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

/// The account PostgreSQL is to run under: none of its own unless we are root, which it refuses.
pub fn unprivileged() -> Result<Option<Account>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let passwd = fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
    for wanted in ["postgres", "nobody"] {
        if let Some(account) = passwd.lines().find_map(|line| account(line, wanted)) {
            return Ok(Some(account));
        }
    }
    bail!("neither postgres nor nobody is an account here, and PostgreSQL refuses to run as root")
}

fn account(line: &str, wanted: &str) -> Option<Account> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| *name == wanted)?.to_owned();
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    Some(Account { name, uid, gid })
}

/// A command that runs under the account, or as ourselves when there is none.
pub fn command_as(account: Option<&Account>, program: impl AsRef<OsStr>) -> Command {
    let Some(account) = account else { return Command::new(program) };
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", &account.uid.to_string(), "--regid", &account.gid.to_string()])
        .args(["--clear-groups", "--"])
        .arg(program);
    command
}
