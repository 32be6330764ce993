//! The attacks, and how large they are.

use std::sync::Arc;
use std::time::Duration;

use crate::attack::Attack;

const MIB: u64 = 1 << 20;

/// How large it all is.
pub struct Scale {
    pub memory_bytes: u64,
    pub shared_bytes: u64,
    pub idle: usize,
    pub slow: usize,
    pub large: usize,
    pub bodies: usize,
    /// Honest notifications that must be answered 200 during each attack, one after the other.
    pub honest: usize,
    /// Between two of them.
    pub pause: Duration,
}

impl Scale {
    /// As `ATTACKS` says: `full`, or small.
    pub fn of_environment() -> Self {
        let is_full = std::env::var("ATTACKS").is_ok_and(|scale| scale == "full");
        if is_full { Self::full() } else { Self::small() }
    }

    pub fn small() -> Self {
        let (memory_bytes, shared_bytes) = (256 * MIB, 32 * MIB);
        Self {
            memory_bytes,
            shared_bytes,
            idle: 700,
            slow: 400,
            large: 250,
            bodies: 8,
            honest: 10,
            pause: Duration::from_millis(100),
        }
    }

    fn full() -> Self {
        // Admits 22,000 connections, more than a process here may have files open.
        let (memory_bytes, shared_bytes) = (6 * 1024 * MIB, 64 * MIB);
        Self {
            memory_bytes,
            shared_bytes,
            idle: 10_000,
            slow: 25_000,
            large: 1_000,
            bodies: 400,
            honest: 60,
            pause: Duration::from_millis(500),
        }
    }

    pub fn attacks(&self) -> Vec<(&'static str, usize, Attack)> {
        let nested = "[".repeat(500_000) + &"]".repeat(500_000);
        let body = |text: String| Attack::Body(Arc::new(text));
        let fee = |item: &str| format!(r#"{{"eventType":"fee","feeLst":[{item}]}}"#);
        let long = "x".repeat(1_000_000);
        let item = format!(r#"{{"sessionId":"{long}","appKey":"app"}}"#);
        let status = format!(r#"{{"eventType":"answer","statusInfo":{{"userData":"{long}"}}}}"#);
        vec![
            ("idle connections", self.idle, Attack::Idle),
            ("slow heads", self.slow, Attack::SlowHead),
            ("slow bodies of 1 MiB", self.slow, Attack::SlowBody),
            ("bodies of 1 GiB", self.large, Attack::Huge),
            ("endless chunks of 64 KiB", self.large, Attack::Chunks(65536)),
            ("endless chunks of one byte", self.large, Attack::Chunks(1)),
            ("nested 500,000 deep", self.bodies, body(nested.clone())),
            (
                "a record nested 500,000 deep",
                self.bodies,
                body(fee(&format!(r#"{{"a":{nested}}}"#))),
            ),
            ("a session of 1 MB", self.bodies, body(fee(&item))),
            ("userData of 1 MB", self.bodies, body(status)),
            (
                "349,000 empty items",
                self.bodies,
                body(fee(&format!("{}{{}}", "{},".repeat(348_999)))),
            ),
        ]
    }
}
