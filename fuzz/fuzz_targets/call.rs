//! Values of records of both topics, as user-state makes a call of them.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate_user_state::fuzz::call(data));
