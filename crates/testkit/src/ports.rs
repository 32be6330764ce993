//! Ports for servers.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixListener;
use std::sync::{Mutex, PoisonError};

/// Below what the kernel takes for outgoing connections, so that no client sits on a stopped
/// server's port by chance before it is restarted.
const FIRST: u16 = 15_000;
const LAST: u16 = 32_000;
/// Ports that are kept for those who asked for them: more than one system needs, few enough for the
/// files that a process may have open.
const KEPT: usize = 450;

static GIVEN: Mutex<VecDeque<(u16, Option<UnixListener>)>> = Mutex::new(VecDeque::new());

/// A TCP port of 127.0.0.1 that nobody listens on, and that neither this process nor another one
/// that asks here is given as long as this one lives, or asks for so many others. Who does not
/// ask may still take it before you do: be ready to try again.
///
/// # Panics
///
/// When 1000 ports in a row are taken.
pub fn free_port() -> u16 {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..1000 {
        let port = FIRST + random() % (LAST - FIRST);
        if given.iter().any(|(taken, _)| *taken == port) {
            continue;
        }
        let Ok(reservation) = reserve(port) else { continue };
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            given.push_back((port, reservation));
            if given.len() > KEPT {
                given.pop_front();
            }
            return port;
        }
    }
    panic!("no free port between {FIRST} and {LAST}: see what listens with `ss -ltn`");
}

/// Keeps other processes from being given this port, by a socket in the abstract namespace, which
/// goes with its process. Fails when one of them has it.
#[cfg(target_os = "linux")]
fn reserve(port: u16) -> io::Result<Option<UnixListener>> {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::SocketAddr;

    let name = SocketAddr::from_abstract_name(format!("tollgate-test-port-{port}"))?;
    UnixListener::bind_addr(&name).map(Some)
}

#[cfg(not(target_os = "linux"))]
fn reserve(_: u16) -> io::Result<Option<UnixListener>> {
    Ok(None)
}

/// Chance enough to keep parallel test binaries apart; the standard library seeds it.
fn random() -> u16 {
    use std::hash::{BuildHasher, RandomState};
    (RandomState::new().hash_one(0) & 0xffff) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ_are_reserved_and_never_run_out() {
        let ports: Vec<u16> = (0..KEPT).map(|_| free_port()).collect();
        let mut sorted = ports.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), KEPT);
        if cfg!(target_os = "linux") {
            // As another process would be.
            assert!(ports.iter().all(|port| reserve(*port).is_err()));
        }
        // About as often as two hundred schedules of chaos ask.
        for _ in 0..usize::from(LAST - FIRST) {
            free_port();
        }
    }
}
