//! Authentication headers, one a line.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate_voicecall::fuzz::headers(data));
