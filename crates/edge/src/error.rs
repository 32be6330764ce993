//! Why an edge does not start, or has ended.

use tollgate_runtime::SettingsError;
use tollgate_runtime::listener::ListenError;
use tollgate_spool::SpoolError;
use tollgate_stream::StreamError;

/// The edge cannot start, or has failed.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// The settings contradict each other.
    #[error("settings are refused:\n  {0}")]
    Inconsistent(String),
    /// The settings cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The port cannot be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The spool cannot be used.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The stream refuses to be set up.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The certificate cannot be used.
    #[error("cannot serve https: {0}")]
    Tls(String),
    /// The HTTP server failed.
    #[error("http server failed: {0}")]
    Server(#[from] std::io::Error),
    /// A part of the edge ended by a panic.
    #[error("a part of the edge failed: {0}")]
    Part(#[from] tokio::task::JoinError),
    /// A part of the edge ended although nobody told it to.
    #[error("the edge's {0} has ended by itself; see the log for the reason")]
    Ended(&'static str),
}
