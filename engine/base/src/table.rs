//! A hash table that can only be looked into.
//!
//! Invariants:
//! - Nothing can go through its entries, so their order in memory shows nowhere: what is built on it stays a function of its
//!   inputs.
//! - Its hash has a seed, so who chooses keys cannot choose ones that collide without knowing the node's seed.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, Hash, Hasher};

/// A map without an order.
#[derive(Clone, Debug)]
pub struct Table<K, V> {
    entries: HashMap<K, V, Seeded>,
}

impl<K: Eq + Hash, V> Table<K, V> {
    /// An empty table.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { entries: HashMap::with_hasher(Seeded(seed)) }
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of a key.
    #[must_use]
    pub fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.entries.get(key)
    }

    /// The value of a key, to be changed.
    pub fn get_mut<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.entries.get_mut(key)
    }

    /// Whether a key has a value.
    #[must_use]
    pub fn contains_key<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.entries.contains_key(key)
    }

    /// The place of a key.
    pub fn entry(&mut self, key: K) -> Entry<'_, K, V> {
        self.entries.entry(key)
    }

    /// Gives a key a value, and answers the one it had.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.entries.insert(key, value)
    }

    /// Takes a key out, and answers the value it had.
    pub fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.entries.remove(key)
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

/// Builds the hashers of a table.
#[derive(Clone, Copy, Debug)]
struct Seeded(u64);

impl BuildHasher for Seeded {
    type Hasher = SeededHasher;

    fn build_hasher(&self) -> SeededHasher {
        SeededHasher(self.0)
    }
}

/// XXH3 for bytes, and for numbers the two halves of a product, folded; what was hashed before is the seed of what comes next.
struct SeededHasher(u64);

impl SeededHasher {
    #[allow(clippy::cast_possible_truncation, reason = "both halves are taken")]
    const fn mix(&mut self, number: u64) {
        let product = (self.0 ^ number) as u128 * 0x9e37_79b9_7f4a_7c15;
        self.0 = (product as u64) ^ ((product >> 64) as u64);
    }
}

impl Hasher for SeededHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxhash_rust::xxh3::xxh3_64_with_seed(bytes, self.0);
    }

    fn write_u64(&mut self, number: u64) {
        self.mix(number);
    }

    fn write_usize(&mut self, number: usize) {
        self.mix(number as u64);
    }

    fn write_isize(&mut self, number: isize) {
        self.mix(number.cast_unsigned() as u64);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use quickcheck::quickcheck;

    use super::*;

    quickcheck! {
        fn it_is_a_map(seed: u64, steps: Vec<(Vec<u8>, Option<u64>)>) -> bool {
            let (mut table, mut model) = (Table::new(seed), BTreeMap::new());
            steps.into_iter().all(|(key, value)| {
                let same = match value {
                    Some(value) => table.insert(key.clone(), value) == model.insert(key.clone(), value),
                    None => table.remove(key.as_slice()) == model.remove(key.as_slice()),
                };
                same && table.len() == model.len() && table.get(key.as_slice()) == model.get(key.as_slice())
            })
        }
    }

    #[test]
    fn numbers_in_a_row_spread_over_the_low_and_the_high_bits() {
        let hash = |number: u64| Seeded(7).hash_one((3_u64, number));
        let mut low = [0_u32; 64];
        let mut high = [0_u32; 64];
        for number in 0..64 * 64 {
            low[usize::try_from(hash(number) % 64).unwrap()] += 1;
            high[usize::try_from(hash(number) >> 58).unwrap()] += 1;
        }
        assert!(low.iter().chain(&high).all(|count| (24..128).contains(count)), "{low:?} {high:?}");
    }
}
