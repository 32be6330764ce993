//! A request body, as received.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate_voicecall::fuzz::body(data));
