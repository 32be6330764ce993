//! What can go wrong, and what the caller does about it.

use std::io;
use std::path::Path;

/// A call to the spool failed.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Another process has the directory open.
    #[error(
        "spool directory {dir} is in use by another process; give each edge its own, or stop the other one"
    )]
    Locked {
        /// Which directory.
        dir: String,
    },
    /// Written by a newer version: it would be misread, so it is not touched.
    #[error(
        "spool file {file} has format {found}, this version knows formats up to {known}; start the newer version, or drain the spool with it first"
    )]
    NewerFormat {
        /// Which file.
        file: String,
        /// Its format.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// Looked into, but no spool has ever been there.
    #[error(
        "this is no spool directory: it holds neither a segment nor a position; is its volume mounted, and is it the edge's spool.dir?{}",
        .inside.as_ref().map_or_else(String::new, |inside| format!(" {inside} is one"))
    )]
    NotASpool {
        /// A spool directory inside it.
        inside: Option<String>,
    },
    /// A file that looks like a segment and is none.
    #[error("spool directory holds {file}, which no version of the spool has named; move it away")]
    ForeignFile {
        /// Which file.
        file: String,
    },
    /// The settings contradict each other.
    #[error("spool settings: {0}")]
    Settings(String),
    /// Opened for reading only.
    #[error("spool directory was opened for reading only; confirm nothing, or open it for writing")]
    ReadOnly,
    /// The bound of the dead letters is reached.
    #[error(
        "dead letters hold their bound of {max_bytes} bytes; remove those that are dealt with, or raise dead_letters_max_bytes"
    )]
    DeadLettersFull {
        /// The bound.
        max_bytes: u64,
    },
    /// The disk failed.
    #[error("spool cannot {action}: {source}")]
    Io {
        /// What was tried, and on which file.
        action: String,
        /// What the operating system says.
        source: io::Error,
    },
}

impl SpoolError {
    /// Whether trying again can help without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Io { .. })
    }
}

/// Gives an I/O error its context.
pub(crate) trait During<T> {
    /// Names what was tried, as in "spool cannot ...".
    fn during(self, action: &str) -> Result<T, SpoolError>;

    /// Names the file too: what was tried ends with its path.
    fn during_at(self, action: &str, path: &Path) -> Result<T, SpoolError>;
}

impl<T> During<T> for io::Result<T> {
    fn during(self, action: &str) -> Result<T, SpoolError> {
        self.map_err(|source| SpoolError::Io { action: action.into(), source })
    }

    fn during_at(self, action: &str, path: &Path) -> Result<T, SpoolError> {
        self.map_err(|source| SpoolError::Io {
            action: format!("{action} {}", path.display()),
            source,
        })
    }
}

/// A request was not stored. Whatever the reason, the sender has to come again: 503, except
/// [`AppendError::TooLarge`], which no repetition mends: 413.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Requests come faster than the disk takes them.
    #[error("overloaded, try again")]
    Overloaded,
    /// The spool's bound is reached: nothing leaves it.
    #[error("spool is full, try again later")]
    Full,
    /// The write or the sync failed, or the disk is known to fail.
    #[error("storage failed, try again")]
    Failed,
    /// The spool is being closed.
    #[error("shutting down, try again")]
    Closing,
    /// One request larger than a segment.
    #[error("request is larger than the spool can hold")]
    TooLarge,
}

impl AppendError {
    /// The reason as a metric label.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Overloaded => "overloaded",
            Self::Full => "full",
            Self::Failed => "failed",
            Self::Closing => "closing",
            Self::TooLarge => "too_large",
        }
    }
}
