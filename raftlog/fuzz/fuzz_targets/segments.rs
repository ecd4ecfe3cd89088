//! A log whose segment headers, footers and batches have bytes changed, every checksum made right.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_raftlog_fuzz::segments(data));
