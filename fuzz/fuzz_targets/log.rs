//! The bytes of a segment of the embedded log, and of a group in it.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    tollgate_stream::fuzz::segment(data);
    tollgate_stream::fuzz::group(data);
});
