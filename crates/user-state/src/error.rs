//! What can keep this service from its work.

/// The service cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum UserStateError {
    /// The settings contradict each other.
    #[error("settings of user-state cannot be used: {0}")]
    Settings(String),
    /// The key could be guessed.
    #[error("pseudonym_key_file holds less than 16 bytes; write a longer random key")]
    PseudonymKeyTooShort,
}
