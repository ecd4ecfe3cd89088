//! Asks the processor for memory that is read soon, so that waits for main memory go on side by side.
//!
//! A load that nothing waits for does not do the same: a processor looks only some hundred instructions ahead of the oldest load
//! that is not there yet. Lookups of random keys in a tree that no cache holds took a third longer that way.

#![allow(unsafe_code, reason = "the instruction takes an address: the audited place of this crate")]

/// Bytes of a processor's cache line, on the machines that matter.
pub(crate) const CACHE_LINE_BYTES: usize = 64;

/// Asks for each cache line of these bytes. It changes nothing that a program can see but time.
pub(crate) fn prefetch(bytes: &[u8]) {
    bytes.iter().step_by(CACHE_LINE_BYTES).chain(bytes.last()).for_each(prefetch_line);
}

#[cfg(target_arch = "x86_64")]
fn prefetch_line(byte: &u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: the instruction is part of the architecture's baseline, reads nothing into a register, and never faults.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(byte).cast()) }
}

#[cfg(target_arch = "aarch64")]
fn prefetch_line(byte: &u8) {
    // SAFETY: the instruction is part of the architecture's baseline, reads nothing into a register, and never faults.
    unsafe {
        std::arch::asm!(
            "prfm pldl1keep, [{address}]",
            address = in(reg) std::ptr::from_ref(byte),
            options(nostack, preserves_flags, readonly)
        );
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const fn prefetch_line(_: &u8) {}
