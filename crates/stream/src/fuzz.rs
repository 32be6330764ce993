//! Entry points for fuzzing: plain functions over bytes, which must neither panic nor hang.

pub use crate::embedded::fuzz::{group, segment};
