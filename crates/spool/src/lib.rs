//! The durable log behind the 200.

pub mod disk;
pub mod frame;
