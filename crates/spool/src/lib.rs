//! The durable log behind the 200.
