//! What can go wrong outside the consumer, sorted by who has to do something.

use tollgate_stream::StoreError;

/// A command or a question failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BillingError {
    /// A tariff that was given cannot be used; the text says where and why.
    #[error("tariff is not valid: {0}")]
    InvalidTariff(String),
    /// A tariff that was named is not registered.
    #[error("tariff {0} is not registered; register it first, then activate it")]
    UnknownTariff(String),
    /// A parameter of a question is missing or wrong.
    #[error("{what}")]
    InvalidQuery {
        /// Names the parameter and what is wrong with it.
        what: String,
        /// What to ask instead.
        hint: &'static str,
    },
    /// Settings that cannot work together, or with what the database holds.
    #[error("{0}")]
    Settings(String),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}
