//! The authentication headers of a push: read, verified, made (P 2.2).
//!
//! ```text
//!  Authorization + X-AKSK | X-WSSE ──parse──▶ Token ──formulas P2 P1 P3 P4 P5──▶ Authenticity
//! ```
//!
//! Verification never refuses anything: it says what was found, and the edge decides.

mod digest;
mod fresh;
mod headers;

pub use digest::{Formula, SignedHeaders, Spelling, sign, verify};
pub use fresh::created_is_fresh;
pub use headers::{Headers, username};
