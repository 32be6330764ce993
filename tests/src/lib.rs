//! Whole-system tests: see the `*.rs` files beside this folder.
