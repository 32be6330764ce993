//! The bytes of a segment file.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate_spool::fuzz::frames(data));
