//! What can keep this service from its work.

/// The service cannot start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings contradict each other.
    #[error("settings of user-state cannot be used: {0}")]
    Settings(String),
    /// The key could be guessed.
    #[error("pseudonym_key_file holds less than 16 bytes; write a longer random key")]
    PseudonymKeyTooShort,
    /// The consumer has ended, and trying again cannot mend it.
    #[error("consumer of user-state cannot go on: {0}")]
    Consumer(String),
}
