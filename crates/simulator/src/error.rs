//! What keeps a simulation from running.

use std::path::{Path, PathBuf};

/// The simulation cannot run, or cannot be verified.
#[derive(Debug, thiserror::Error)]
pub enum SimulatorError {
    /// Options that cannot be used together, or values out of range.
    #[error("{0}")]
    Options(String),
    /// A file cannot be read or written.
    #[error("cannot {action} {path} ({reason}); check the path and its permissions")]
    File {
        /// What was tried.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why not.
        reason: std::io::ErrorKind,
    },
    /// The journal is not one of this simulator's.
    #[error("{path} is not a journal of this simulator: {reason}")]
    Journal {
        /// Which file.
        path: PathBuf,
        /// Why not; never quotes the file.
        reason: String,
    },
}

impl SimulatorError {
    pub(crate) fn file(action: &'static str, path: &Path, error: &std::io::Error) -> Self {
        Self::File { action, path: path.to_owned(), reason: error.kind() }
    }
}
