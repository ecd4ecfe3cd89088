//! A store whose tree pages and extents have bytes changed, every checksum above them made right.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_engine_fuzz::pages(data));
