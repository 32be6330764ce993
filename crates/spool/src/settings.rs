//! Settings of the spool.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::frame::HEADER_LEN;
use crate::segment::HEADER_BLOCK;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

/// Where and how an edge keeps what it has answered 200.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Directory of the spool, one for each edge; created with mode 0700. Default `data/spool`.
    pub dir: PathBuf,
    /// Bound of all segments together, in bytes, rounded down to whole segments. At the bound
    /// requests are answered 503. Default 10 GiB.
    pub max_bytes: u64,
    /// Size of one segment file, in bytes, reserved when it is created; a request must fit into
    /// one. 16 KiB to 1 GiB. Default 64 MiB.
    pub segment_bytes: u64,
    /// Bound of the stored requests that are kept in memory until they are published, in bytes;
    /// what exceeds it is read from disk again. Default 64 MiB.
    pub tail_bytes: u64,
    /// Bound of the requests that wait for their sync, in bytes; beyond it requests are answered
    /// 503, and CDRs from 80 % of it on. Default 32 MiB.
    pub queue_bytes: u64,
    /// Bound of what is written and synced at once, in bytes. Default 8 MiB.
    pub group_bytes: u64,
    /// Time from one sync to the next under load, in milliseconds: a longer one makes larger
    /// groups, less work and later answers. A disk that takes longer than this is never kept
    /// waiting, nor is a lone request. Default 2.
    pub commit_interval_ms: u64,
    /// How often the reader's position is written, in milliseconds; after a crash what was
    /// confirmed since is published again under the same ids. Default 100.
    pub position_interval_ms: u64,
    /// How often a disk that fails is tried again, in milliseconds. Default 1000.
    pub probe_interval_ms: u64,
    /// Bound of the bytes of damaged records that are kept for a person to look at.
    /// Default 256 MiB.
    pub damaged_max_bytes: u64,
    /// Bound of the records that Kafka refused for good, in bytes. At the bound publishing waits.
    /// Default 256 MiB.
    pub dead_letters_max_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("data/spool"),
            max_bytes: 10 * GIB,
            segment_bytes: 64 * MIB,
            tail_bytes: 64 * MIB,
            queue_bytes: 32 * MIB,
            group_bytes: 8 * MIB,
            commit_interval_ms: 2,
            position_interval_ms: 100,
            probe_interval_ms: 1000,
            damaged_max_bytes: 256 * MIB,
            dead_letters_max_bytes: 256 * MIB,
        }
    }
}

impl Settings {
    /// Says which settings contradict each other or cannot work.
    pub fn validate(&self) -> Result<(), String> {
        if self.dir.as_os_str().is_empty() {
            return Err("dir must name a directory".into());
        }
        if !(16 * KIB..=GIB).contains(&self.segment_bytes) {
            return Err("segment_bytes must be between 16 KiB and 1 GiB".into());
        }
        if self.max_bytes < self.segment_bytes.saturating_mul(4) {
            return Err("max_bytes must be at least four times segment_bytes".into());
        }
        if self.group_bytes < 4 * KIB || self.group_bytes > self.segment_bytes.max(4 * KIB) {
            return Err("group_bytes must be at least 4 KiB and at most segment_bytes".into());
        }
        if self.queue_bytes < 64 * KIB {
            return Err("queue_bytes must be at least 64 KiB".into());
        }
        if self.commit_interval_ms > 1000 {
            return Err("commit_interval_ms must be at most 1000: senders wait for it".into());
        }
        if !(1..=60_000).contains(&self.position_interval_ms) {
            return Err("position_interval_ms must be between 1 and 60000".into());
        }
        if !(1..=60_000).contains(&self.probe_interval_ms) {
            return Err("probe_interval_ms must be between 1 and 60000".into());
        }
        Ok(())
    }

    /// What all segments together may take, in bytes: as many whole ones as fit into `max_bytes`.
    pub(crate) fn bound_bytes(&self) -> u64 {
        self.max_bytes / self.segment_bytes * self.segment_bytes
    }

    /// The largest encoded request that fits into a segment, in bytes. Encoding adds less than
    /// 100 bytes to the lengths of the fields.
    pub fn max_record_bytes(&self) -> u64 {
        // A segment keeps room for a mark at its end.
        self.segment_bytes.saturating_sub(HEADER_BLOCK + 2 * HEADER_LEN as u64)
    }
}
