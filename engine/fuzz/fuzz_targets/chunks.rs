//! A snapshot chunk with bytes changed and its checksum made right: refused, or taken in to a store that verifies.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_engine_fuzz::chunks(data));
