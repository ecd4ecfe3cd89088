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

    /// Removes the bits from `length` on.
    pub(crate) fn truncate(&mut self, length: u64) {
        assert!(length <= self.length, "{length} bits of {}", self.length);
        self.clear_run(length, self.length - length);
        self.length = length;
        self.words.truncate(word_of(length + WORD_BITS - 1));
        self.group_ones.truncate(self.words.len().div_ceil(GROUP_WORDS));
    }

    pub(crate) fn set(&mut self, bit: u64) {
        self.set_run(bit, 1);
    }

    /// Sets a run of bits.
    pub(crate) fn set_run(&mut self, from: u64, count: u64) {
        assert!(from + count <= self.length, "pages {from} + {count} of {}", self.length);
        for (at, mask) in parts(from, count) {
            let new = (mask & !self.words[at]).count_ones();
            self.words[at] |= mask;
            self.group_ones[at / GROUP_WORDS] += new;
            self.ones += u64::from(new);
        }
    }

    /// Clears a run of bits.
    pub(crate) fn clear_run(&mut self, from: u64, count: u64) {
        assert!(from + count <= self.length, "pages {from} + {count} of {}", self.length);
        for (at, mask) in parts(from, count) {
            let gone = (mask & self.words[at]).count_ones();
            self.words[at] &= !mask;
            self.group_ones[at / GROUP_WORDS] -= gone;
            self.ones -= u64::from(gone);
        }
    }

    /// How many bits of a run are set.
    pub(crate) fn ones_in_run(&self, from: u64, count: u64) -> u64 {
        assert!(from + count <= self.length, "pages {from} + {count} of {}", self.length);
        parts(from, count).map(|(at, mask)| u64::from((self.words[at] & mask).count_ones())).sum()
    }

    /// The first set bit from `from` on, before `to`.
    pub(crate) fn first_one(&self, from: u64, to: u64) -> Option<u64> {
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

    /// The first run of `count` set bits that begins in a part.
    pub(crate) fn first_run(&self, from: u64, to: u64, count: u64) -> Option<u64> {
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

    /// The end of the last set bit.
    pub(crate) fn end(&self) -> u64 {
        let last = self.words.iter().rposition(|word| *word != 0);
        last.map_or(0, |at| (at as u64 + 1) * WORD_BITS - u64::from(self.words[at].leading_zeros()))
    }

    /// How many bits at the end are set without a gap, counted up to `limit`.
    pub(crate) fn ones_at_end(&self, limit: u64) -> u64 {
        let mut end = self.length;
        while end > 0 && self.length - end < limit {
            let first = (end - 1) / WORD_BITS * WORD_BITS;
            let word = self.words[word_of(first)] << (WORD_BITS - (end - first));
            let ones = u64::from(word.leading_ones());
            end -= ones;
            if end > first {
                break;
            }
        }
        (self.length - end).min(limit)
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

    /// Sets the bits that another bitmap has; it becomes as long as that, if it is shorter.
    pub(crate) fn unite(&mut self, other: &Self) {
        self.grow(other.length.saturating_sub(self.length));
        for (group, words) in other.words.chunks(GROUP_WORDS).enumerate() {
            if other.group_ones[group] == 0 {
                continue;
            }
            let mut new = 0;
            for (mine, word) in self.words[group * GROUP_WORDS..].iter_mut().zip(words) {
                new += (word & !*mine).count_ones();
                *mine |= word;
            }
            self.group_ones[group] += new;
            self.ones += u64::from(new);
        }
    }

    /// The bits that are set in both of two bitmaps.
    pub(crate) fn common(&self, other: &Self) -> impl Iterator<Item = u64> {
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

/// The words that a run of bits lies in, each with the bits of the run in it.
fn parts(from: u64, count: u64) -> impl Iterator<Item = (usize, u64)> {
    let to = from + count;
    let words = from / WORD_BITS..to.div_ceil(WORD_BITS);
    words.filter(move |_| count > 0).map(move |word| {
        let first = word * WORD_BITS;
        let low = from.saturating_sub(first);
        let high = (to - first).min(WORD_BITS);
        (word_of(first), u64::MAX << low & u64::MAX >> (WORD_BITS - high))
    })
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
                if is_set { bitmap.set(bit) } else { bitmap.clear_run(bit, 1) }
            }
            let (from, count) = (u64::from(from) % 9000, u64::from(count % 90) + 1);
            let expected = (from..9000).find(|bit| bitmap.get(*bit));
            let run_at = |bit: &u64| bit + count <= 9000 && (*bit..bit + count).all(|bit| bitmap.get(bit));
            let run = bitmap.next_run(from, count, 1 << 20);
            bitmap.first_one(from, 9000) == expected
                && run.is_some() == (0..9000).any(|bit| run_at(&bit))
                && run.is_none_or(|bit| run_at(&bit))
                && bitmap.ones() == (0..9000).filter(|bit| bitmap.get(*bit)).count() as u64
        }

        fn runs_are_their_bits(runs: Vec<(u16, u8, bool)>, cut: u16) -> bool {
            let mut bitmap = Bitmap::default();
            bitmap.grow(9000);
            let mut bits = vec![false; 9000];
            for (from, count, is_set) in runs {
                let (from, count) = (usize::from(from) % 8700, usize::from(count));
                let run = (from as u64, count as u64);
                if is_set { bitmap.set_run(run.0, run.1) } else { bitmap.clear_run(run.0, run.1) }
                bits[from..from + count].fill(is_set);
                let ones = bits[from..from + count + 40].iter().filter(|bit| **bit).count();
                assert_eq!(bitmap.ones_in_run(run.0, run.1 + 40), ones as u64);
            }
            let length = usize::from(cut) % 9001;
            bits.truncate(length);
            bitmap.truncate(length as u64);
            let at_end = bits.iter().rev().take_while(|bit| **bit).count() as u64;
            assert_eq!(bitmap.ones_at_end(u64::MAX), at_end);
            assert_eq!(bitmap.ones_at_end(3), at_end.min(3));
            // What was cut off is clear when it comes back.
            bitmap.grow(500);
            bits.resize(length + 500, false);
            bitmap.ones() == bits.iter().filter(|bit| **bit).count() as u64
                && bitmap.end() == bits.iter().rposition(|bit| *bit).map_or(0, |bit| bit as u64 + 1)
                && bits.iter().enumerate().all(|(bit, is_set)| bitmap.get(bit as u64) == *is_set)
                && bitmap.first_one(0, bitmap.len()) == bits.iter().position(|bit| *bit).map(|bit| bit as u64)
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
            let mut all = Bitmap::default();
            all.unite(&bitmap);
            all.unite(&inverted);
            assert!(all.inverted().ones() == 0 && (0..5000).all(|bit| all.get(bit)));
            copy.read_bytes(0, &bytes) && copy.differences(&bitmap).next().is_none()
                && bitmap.common(&inverted).next().is_none()
                && bitmap.differences(&inverted).eq(0..5000)
                && copy.ones() == bitmap.ones()
                && inverted.ones() == 5000 - bitmap.ones()
                && (0..5000).all(|bit| inverted.get(bit) != bitmap.get(bit))
                && inverted.first_one(0, 5000) == (0..5000).find(|bit| !bitmap.get(*bit))
                && (0..5000).all(|bit| copy.get(bit) == bitmap.get(bit))
        }
    }
}
