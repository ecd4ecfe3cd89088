//! The payload of a log entry: refused, or read in full.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_engine_fuzz::entries(data));
