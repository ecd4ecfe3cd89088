//! Keys and values that are measured with: 16 bytes and 256 bytes, whatever the system.

use mesh_base::prng::Prng;

/// Bytes of a key.
pub(super) const KEY_BYTES: usize = 16;
/// Bytes of a value.
pub(super) const VALUE_BYTES: usize = 256;
/// Values begin anywhere in so many random bytes, so that they differ and do not compress.
const VARIETY_BYTES: usize = 64 * 1024;

/// A key: a name and a number in decimal, as people write them.
pub(super) type Key = [u8; KEY_BYTES];

/// One key and its value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Put<'a> {
    pub(super) key: Key,
    pub(super) value: &'a [u8],
}

/// So many keys, drawn at random, and values for them. A seed repeats the draws.
#[derive(Clone, Debug)]
pub(super) struct Data {
    keys: u32,
    prng: Prng,
    values: Vec<u8>,
}

impl Data {
    pub(super) fn new(keys: u32, seed: u64) -> Self {
        let mut prng = Prng::new(seed);
        let mut values = vec![0; VARIETY_BYTES + VALUE_BYTES];
        prng.fill(&mut values);
        Self { keys, prng, values }
    }

    /// Every key once, in random order.
    pub(super) fn load_order(&mut self) -> Vec<Key> {
        let mut numbers: Vec<u32> = (0..self.keys).collect();
        self.prng.shuffle(&mut numbers);
        numbers.into_iter().map(key).collect()
    }

    /// Every key once, in order.
    pub(super) fn all_in_order(&self) -> Vec<Key> {
        (0..self.keys).map(key).collect()
    }

    /// Random keys, each time others.
    pub(super) fn keys(&mut self, count: usize) -> Vec<Key> {
        (0..count).map(|_| self.number(self.keys)).map(key).collect()
    }

    /// Random keys that have at least so many behind them.
    pub(super) fn starts(&mut self, count: usize, behind: u32) -> Vec<Key> {
        let last = self.keys.saturating_sub(behind).max(1);
        (0..count).map(|_| self.number(last)).map(key).collect()
    }

    /// A value that differs from most others.
    #[allow(
        clippy::indexing_slicing,
        reason = "a value begins within the variety and ends within the buffer"
    )]
    pub(super) fn value(&mut self) -> &[u8] {
        let at = self.prng.index(VARIETY_BYTES);
        &self.values[at..][..VALUE_BYTES]
    }

    /// These keys with values.
    #[allow(
        clippy::indexing_slicing,
        reason = "a value begins within the variety and ends within the buffer"
    )]
    pub(super) fn puts(&mut self, keys: &[Key]) -> Vec<Put<'_>> {
        let starts: Vec<usize> = keys.iter().map(|_| self.prng.index(VARIETY_BYTES)).collect();
        let values = &self.values;
        let puts = keys.iter().zip(starts);
        puts.map(|(key, at)| Put { key: *key, value: &values[at..][..VALUE_BYTES] }).collect()
    }

    fn number(&mut self, below: u32) -> u32 {
        u32::try_from(self.prng.range(0..u64::from(below))).unwrap_or_default()
    }
}

fn key(number: u32) -> Key {
    let mut key = *b"bench:0000000000";
    let mut rest = number;
    for digit in key.iter_mut().rev() {
        if rest == 0 {
            break;
        }
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_loaded_once_and_only_those_are_drawn() {
        let mut data = Data::new(1000, 1);
        let mut loaded = data.load_order();
        assert!(!loaded.is_sorted());
        loaded.sort_unstable();
        loaded.dedup();
        assert_eq!((loaded.len(), &loaded[999]), (1000, b"bench:0000000999"));
        assert!(data.keys(5000).iter().all(|key| loaded.binary_search(key).is_ok()));
        assert!(data.starts(5000, 100).iter().all(|key| *key < key_of(900)));
    }

    fn key_of(number: u32) -> Key {
        key(number)
    }
}
