//! Free TCP ports.

use std::collections::HashSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{LazyLock, Mutex, PoisonError};

/// Below what Linux gives to outgoing connections (32768 and up), so that nobody takes a stopped
/// server's port by chance before it is restarted.
const FIRST: u16 = 15_000;
const LAST: u16 = 32_000;

static GIVEN: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);

/// A TCP port of 127.0.0.1 that nobody listens on, different at each call. Another process may
/// still take it before you do: be ready to try again.
///
/// # Panics
///
/// When 1000 ports in a row are taken.
pub fn free_port() -> u16 {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..1000 {
        let port = FIRST + random() % (LAST - FIRST);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() && given.insert(port) {
            return port;
        }
    }
    panic!("no free port between {FIRST} and {LAST}: see what listens with `ss -ltn`");
}

/// Chance enough to keep parallel test binaries apart; the standard library seeds it.
fn random() -> u16 {
    use std::hash::{BuildHasher, RandomState};
    (RandomState::new().hash_one(0) & 0xffff) as u16
}
