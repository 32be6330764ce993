//! The value of a record of topic `cdrs`, as billing reads it.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate_billing::fuzz::cdr(data));
