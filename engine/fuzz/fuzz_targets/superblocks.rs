//! A store whose superblock copies, bitmaps and index pages have bytes changed, every checksum made right.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_engine_fuzz::superblocks(data));
