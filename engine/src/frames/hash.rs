//! The hash of a page number: one multiplication. Page numbers are ours, so nobody can choose them to collide.

use std::hash::{BuildHasherDefault, Hasher};

/// Builds hashers of page numbers.
pub(crate) type PageHash = BuildHasherDefault<PageHasher>;

/// Fibonacci hashing (Knuth, TAOCP 6.4), with the high bits folded down because tables index with the low ones.
#[derive(Default)]
pub(crate) struct PageHasher(u64);

impl Hasher for PageHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        let product = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ (product >> 32);
    }
}
