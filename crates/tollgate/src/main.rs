//! The one binary: composes, and nothing else.
fn main() {}
