//! A log whose newest batch has any payload, properly sealed.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_raftlog_fuzz::records(data));
