//! The one source of randomness: xoshiro256++ seeded by SplitMix64 (Blackman and Vigna, 2019).
//!
//! A run of the simulator is a function of its seed, so nothing below the host may draw from anything else.

#[cfg(feature = "audit")]
pub mod audit;

use std::ops::Range;

/// A seeded generator. Not for secrets.
#[derive(Clone, Debug)]
pub struct Prng {
    state: [u64; 4],
}

impl Prng {
    /// The generator of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut mix = seed;
        Self { state: std::array::from_fn(|_| split_mix(&mut mix)) }
    }

    /// A generator of its own for a part of the run, so that draws there do not shift draws here.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self::new(self.next_u64())
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let shifted = b << 17;
        let (c, d) = (c ^ a, d ^ b);
        let (b, a) = (b ^ c, a ^ d);
        self.state = [a, b, c ^ shifted, d.rotate_left(45)];
        #[cfg(feature = "audit")]
        audit::note(result);
        result
    }

    /// A number of the range, each equally likely (Lemire's multiplication, bias below 2^-32 for ranges below 2^32).
    ///
    /// # Panics
    /// When the range is empty: a bug of the caller.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the high half of a 128-bit product of 64-bit factors"
    )]
    pub fn range(&mut self, range: Range<u64>) -> u64 {
        assert!(range.start < range.end, "empty range");
        let span = u128::from(range.end - range.start);
        range.start + ((u128::from(self.next_u64()) * span) >> 64) as u64
    }

    /// An index below `count`.
    ///
    /// # Panics
    /// When `count` is 0: a bug of the caller.
    #[allow(clippy::cast_possible_truncation, reason = "below a usize")]
    pub fn index(&mut self, count: usize) -> usize {
        self.range(0..count as u64) as usize
    }

    /// True `per_mille` times in a thousand.
    pub fn chance_per_mille(&mut self, per_mille: u64) -> bool {
        self.range(0..1000) < per_mille
    }

    /// One of the items.
    pub fn choose<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        if items.is_empty() { None } else { items.get(self.index(items.len())) }
    }

    /// Fills the bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let random = self.next_u64().to_le_bytes();
            chunk.iter_mut().zip(random).for_each(|(to, from)| *to = from);
        }
    }

    /// Puts the items into a random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_numbers() {
        let (mut a, mut b) = (Prng::new(42), Prng::new(42));
        assert!((0..1000).all(|_| a.next_u64() == b.next_u64()));
        assert_ne!(Prng::new(1).next_u64(), Prng::new(2).next_u64());
    }

    #[test]
    fn draws_stay_in_their_range_and_reach_its_ends() {
        let mut prng = Prng::new(7);
        let mut seen = [false; 5];
        for _ in 0..1000 {
            seen[prng.index(5)] = true;
        }
        assert_eq!(seen, [true; 5]);
    }
}
