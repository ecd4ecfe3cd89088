//! A bit per page, with the number of ones per group of words so that searches skip what is empty.
#![allow(
    clippy::indexing_slicing,
    reason = "indexes come from page numbers below the length, which is asserted"
)]

const WORD_BITS: u64 = 64;
const GROUP_WORDS: usize = 64;
const GROUP_BITS: u64 = WORD_BITS * GROUP_WORDS as u64;

#[derive(Default)]
pub(crate) struct Bitmap {
    words: Vec<u64>,
    group_ones: Vec<u32>,
    length: u64,
    ones: u64,
}

#[allow(clippy::cast_possible_truncation, reason = "a page number divided by 64 is an index into memory")]
const fn word_of(bit: u64) -> usize {
    (bit / WORD_BITS) as usize
}

impl Bitmap {
    /// Bits, set or not.
    pub(crate) const fn len(&self) -> u64 {
        self.length
    }

    /// Bits that are set.
    pub(crate) const fn ones(&self) -> u64 {
        self.ones
    }

    /// Adds bits that are not set.
    pub(crate) fn grow(&mut self, bits: u64) {
        self.length += bits;
        self.words.resize(word_of(self.length + WORD_BITS - 1), 0);
        self.group_ones.resize(self.words.len().div_ceil(GROUP_WORDS), 0);
    }

    pub(crate) fn get(&self, bit: u64) -> bool {
        assert!(bit < self.length, "page {bit} of {}", self.length);
        self.words[word_of(bit)] >> (bit % WORD_BITS) & 1 == 1
    }

    pub(crate) fn set(&mut self, bit: u64) {
        if !self.get(bit) {
            self.words[word_of(bit)] |= 1 << (bit % WORD_BITS);
            self.group_ones[word_of(bit) / GROUP_WORDS] += 1;
            self.ones += 1;
        }
    }

    pub(crate) fn clear(&mut self, bit: u64) {
        if self.get(bit) {
            self.words[word_of(bit)] &= !(1 << (bit % WORD_BITS));
            self.group_ones[word_of(bit) / GROUP_WORDS] -= 1;
            self.ones -= 1;
        }
    }

    /// The first set bit from `from` on, and from the start again.
    pub(crate) fn next_one(&self, from: u64) -> Option<u64> {
        self.first_one(from, self.length).or_else(|| self.first_one(0, from.min(self.length)))
    }

    fn first_one(&self, from: u64, to: u64) -> Option<u64> {
        let mut bit = from;
        while bit < to {
            if bit.is_multiple_of(GROUP_BITS) && self.group_ones[word_of(bit) / GROUP_WORDS] == 0 {
                bit += GROUP_BITS;
                continue;
            }
            let word = self.words[word_of(bit)] >> (bit % WORD_BITS);
            if word != 0 {
                let found = bit + u64::from(word.trailing_zeros());
                return (found < to).then_some(found);
            }
            bit = (bit / WORD_BITS + 1) * WORD_BITS;
        }
        None
    }

    /// The first run of `count` set bits at or after `from`, and from the start again, looking at no more than about
    /// `budget` bits.
    pub(crate) fn next_run(&self, from: u64, count: u64, budget: u64) -> Option<u64> {
        let end = from.saturating_add(budget).min(self.length);
        let wrapped =
            budget.saturating_sub(end.saturating_sub(from)).min(from.saturating_add(count)).min(self.length);
        self.first_run(from, end, count).or_else(|| self.first_run(0, wrapped, count))
    }

    fn first_run(&self, from: u64, to: u64, count: u64) -> Option<u64> {
        let mut start = self.first_one(from, to)?;
        loop {
            let end = self.first_zero(start, start.saturating_add(count));
            if end - start >= count {
                return Some(start);
            }
            start = self.first_one(end, to)?;
        }
    }

    /// The first clear bit from `from` on, or `to`, or the end.
    fn first_zero(&self, from: u64, to: u64) -> u64 {
        let to = to.min(self.length);
        let mut bit = from;
        while bit < to {
            let word = !self.words[word_of(bit)] >> (bit % WORD_BITS);
            if word != 0 {
                return (bit + u64::from(word.trailing_zeros())).min(to);
            }
            bit = (bit / WORD_BITS + 1) * WORD_BITS;
        }
        to
    }

    /// How many bits at the end are set without a gap, counted up to `limit`.
    pub(crate) fn ones_at_end(&self, limit: u64) -> u64 {
        let mut count = 0;
        while count < limit.min(self.length) && self.get(self.length - 1 - count) {
            count += 1;
        }
        count
    }

    /// The bits from `from` on as bytes, lowest bit first; beyond the end they are clear.
    pub(crate) fn write_bytes(&self, from: u64, out: &mut [u8]) {
        debug_assert!(from.is_multiple_of(WORD_BITS) && out.len().is_multiple_of(8));
        for (index, chunk) in out.chunks_mut(8).enumerate() {
            let word = self.words.get(word_of(from) + index).copied().unwrap_or(0);
            chunk.copy_from_slice(&word.to_le_bytes());
        }
    }

    /// Sets the bits that are set in `bytes`, from `from` on. False if one is beyond the end.
    pub(crate) fn read_bytes(&mut self, from: u64, bytes: &[u8]) -> bool {
        debug_assert!(from.is_multiple_of(WORD_BITS) && bytes.len().is_multiple_of(8));
        for (index, chunk) in bytes.as_chunks().0.iter().enumerate() {
            let bits = u64::from_le_bytes(*chunk);
            if bits == 0 {
                continue;
            }
            let at = word_of(from) + index;
            if at as u64 * WORD_BITS + u64::from(bits.ilog2()) >= self.length {
                return false;
            }
            let new = bits & !self.words[at];
            self.words[at] |= bits;
            self.group_ones[at / GROUP_WORDS] += new.count_ones();
            self.ones += u64::from(new.count_ones());
        }
        true
    }

    /// The bits that are set in only one of two bitmaps of the same length.
    pub(crate) fn differences(&self, other: &Self) -> impl Iterator<Item = u64> {
        assert_eq!(self.length, other.length);
        let words = self.words.iter().zip(&other.words).enumerate();
        words.flat_map(|(at, (a, b))| ones_of(a ^ b).map(move |bit| at as u64 * WORD_BITS + bit))
    }

    /// The bits that are set in both of two bitmaps of the same length.
    pub(crate) fn common(&self, other: &Self) -> impl Iterator<Item = u64> {
        assert_eq!(self.length, other.length);
        let words = self.words.iter().zip(&other.words).enumerate();
        words.flat_map(|(at, (a, b))| ones_of(a & b).map(move |bit| at as u64 * WORD_BITS + bit))
    }

    /// A bitmap of the same length with the other bits set.
    pub(crate) fn inverted(&self) -> Self {
        let mut inverted = Self::default();
        inverted.grow(self.length);
        for (at, word) in self.words.iter().enumerate() {
            let last = self.length - at as u64 * WORD_BITS;
            let mask = if last < WORD_BITS { (1 << last) - 1 } else { u64::MAX };
            let bits = !word & mask;
            inverted.words[at] = bits;
            inverted.group_ones[at / GROUP_WORDS] += bits.count_ones();
            inverted.ones += u64::from(bits.count_ones());
        }
        inverted
    }
}

/// The set bits of a word.
fn ones_of(mut word: u64) -> impl Iterator<Item = u64> {
    std::iter::from_fn(move || {
        let bit = (word != 0).then(|| u64::from(word.trailing_zeros()))?;
        word &= word - 1;
        Some(bit)
    })
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    quickcheck! {
        fn searches_find_what_a_walk_over_the_bits_finds(bits: Vec<(u16, bool)>, from: u16, count: u8) -> bool {
            let mut bitmap = Bitmap::default();
            bitmap.grow(9000);
            (0..9000).filter(|bit| bit % 4096 < 300).for_each(|bit| bitmap.set(bit));
            for (bit, is_set) in bits {
                let bit = u64::from(bit) % 9000;
                if is_set { bitmap.set(bit) } else { bitmap.clear(bit) }
            }
            let (from, count) = (u64::from(from) % 9000, u64::from(count % 90) + 1);
            let expected = (from..9000).chain(0..from).find(|bit| bitmap.get(*bit));
            let run_at = |bit: &u64| bit + count <= 9000 && (*bit..bit + count).all(|bit| bitmap.get(bit));
            let run = bitmap.next_run(from, count, 1 << 20);
            bitmap.next_one(from) == expected
                && run.is_some() == (0..9000).any(|bit| run_at(&bit))
                && run.is_none_or(|bit| run_at(&bit))
                && bitmap.ones() == (0..9000).filter(|bit| bitmap.get(*bit)).count() as u64
        }

        fn bits_survive_their_bytes(set: Vec<u16>) -> bool {
            let mut bitmap = Bitmap::default();
            bitmap.grow(5000);
            set.iter().for_each(|bit| bitmap.set(u64::from(*bit) % 5000));
            (300..900).for_each(|bit| bitmap.set(bit));
            let mut bytes = vec![0; 632];
            bitmap.write_bytes(0, &mut bytes);
            let mut copy = Bitmap::default();
            copy.grow(5000);
            let inverted = bitmap.inverted();
            copy.read_bytes(0, &bytes) && copy.differences(&bitmap).next().is_none()
                && bitmap.common(&inverted).next().is_none()
                && bitmap.differences(&inverted).eq(0..5000)
                && copy.ones() == bitmap.ones()
                && inverted.ones() == 5000 - bitmap.ones()
                && (0..5000).all(|bit| inverted.get(bit) != bitmap.get(bit))
                && inverted.next_one(0) == (0..5000).find(|bit| !bitmap.get(*bit))
                && (0..5000).all(|bit| copy.get(bit) == bitmap.get(bit))
        }
    }
}
