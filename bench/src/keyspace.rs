//! The keys and values of a run, laid out before anything is measured, so that making an operation costs a few draws and no
//! memory.
//!
//! Invariants:
//! - A key belongs to one partition for the whole run, as the system under load says: see
//!   [`crate::target::Target::partition_of`].
//! - A seed repeats keys, values and popularity.
//! - A key that is to be inserted is chosen only after its insert was acknowledged. Zipf's law is about the keys that were there before.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use mesh_base::prng::Prng;

use crate::distribution::{Distribution, Zipfian};
use crate::op::{KeyNo, OpKind, ValueAt};
use crate::target::PartitionId;

/// Most keys that a run may have.
pub(crate) const KEYS_MAX: u32 = 100_000_000;
/// Bytes of a key.
pub(crate) const KEY_BYTES: usize = 16;
/// Values begin anywhere in so many random bytes, so that they differ and do not compress.
pub(crate) const VALUE_VARIETY: usize = 64 * 1024;

/// The keys of one partition, the most popular first.
#[derive(Debug)]
struct Partition {
    keys: Vec<KeyNo>,
    zipfian: Option<Zipfian>,
    /// Writes that were begun in turn, see [`Distribution::Latest`].
    written: AtomicUsize,
    inserts: Inserts,
}

/// Keys that are not there before the run, in the order in which they are inserted.
#[derive(Default, Debug)]
struct Inserts {
    keys: Vec<KeyNo>,
    /// How many inserts were begun; from the last key they go on with the first.
    begun: AtomicUsize,
    /// Whether a key's first insert was acknowledged,
    is_there: Vec<AtomicBool>,
    /// and that of all below.
    all_there: AtomicUsize,
}

impl Inserts {
    fn acknowledged(&self, index: usize) {
        if let Some(is_there) = self.is_there.get(index) {
            is_there.store(true, Ordering::Release);
        }
        let mut below = self.all_there.load(Ordering::Acquire);
        while self.is_there.get(below).is_some_and(|next| next.load(Ordering::Acquire)) {
            let moved =
                self.all_there.compare_exchange(below, below + 1, Ordering::AcqRel, Ordering::Acquire);
            below = moved.map_or_else(|other| other, |before| before + 1);
        }
    }
}

/// All keys and values of a run.
#[derive(Debug)]
pub(crate) struct Keyspace {
    keys: Vec<u8>,
    /// Keys that are there before the run.
    count: u32,
    /// Of every other key, which of its partition's it is.
    insert_index: Vec<u32>,
    partitions: Vec<Partition>,
    values: Vec<u8>,
    value_bytes: usize,
    distribution: Distribution,
}

/// What a keyspace is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyspaceSpec {
    /// How many keys.
    pub(crate) keys: u32,
    /// How many keys there are room for to be inserted.
    pub(crate) inserts: u32,
    /// Bytes of a value.
    pub(crate) value_bytes: usize,
    /// How keys are chosen.
    pub(crate) distribution: Distribution,
    /// What popularity and values are drawn with.
    pub(crate) seed: u64,
}

impl Keyspace {
    /// Lays out keys and values.
    ///
    /// # Errors
    /// The first partition that gets no key.
    pub(crate) fn new(
        spec: KeyspaceSpec,
        partitions: usize,
        partition_of: impl Fn(&[u8]) -> PartitionId,
    ) -> Result<Self, PartitionId> {
        assert!(partitions > 0 && (1..=KEYS_MAX).contains(&spec.keys));
        let mut prng = Prng::new(spec.seed);
        let all = spec.keys.saturating_add(spec.inserts);
        let mut keys = Vec::with_capacity(KEY_BYTES * all as usize);
        let mut of_partition = vec![Vec::new(); partitions];
        let mut inserts = vec![Vec::new(); partitions];
        let mut insert_index = Vec::with_capacity(spec.inserts as usize);
        for number in 0..all {
            let key = key_bytes(number);
            keys.extend_from_slice(&key);
            let of_all = if number < spec.keys { &mut of_partition } else { &mut inserts };
            let Some(of_partition) = of_all.get_mut(partition_of(&key).0) else { continue };
            if number >= spec.keys {
                insert_index.push(u32::try_from(of_partition.len()).unwrap_or(u32::MAX));
            }
            of_partition.push(KeyNo(number));
        }
        if let Some(empty) = of_partition.iter().position(Vec::is_empty) {
            return Err(PartitionId(empty));
        }
        let partitions = of_partition.into_iter().zip(inserts).map(|(mut keys, inserts)| {
            prng.shuffle(&mut keys);
            let zipfian = (spec.distribution != Distribution::Uniform).then(|| Zipfian::new(keys.len()));
            let is_there = inserts.iter().map(|_| AtomicBool::new(false)).collect();
            let inserts = Inserts { keys: inserts, is_there, ..Inserts::default() };
            Partition { keys, zipfian, written: AtomicUsize::new(0), inserts }
        });
        let partitions = partitions.collect();
        let mut values = vec![0; VALUE_VARIETY + spec.value_bytes];
        prng.fill(&mut values);
        Ok(Self {
            keys,
            count: spec.keys,
            insert_index,
            partitions,
            values,
            value_bytes: spec.value_bytes,
            distribution: spec.distribution,
        })
    }

    /// A key's bytes.
    #[allow(clippy::indexing_slicing, reason = "every number of a key was laid out")]
    pub(crate) fn key(&self, key: KeyNo) -> &[u8] {
        &self.keys[key.0 as usize * KEY_BYTES..][..KEY_BYTES]
    }

    /// The value that begins at a place.
    #[allow(
        clippy::indexing_slicing,
        reason = "a value begins within the variety and ends within the buffer"
    )]
    pub(crate) fn value(&self, at: ValueAt) -> &[u8] {
        &self.values[at.0 % VALUE_VARIETY..][..self.value_bytes]
    }

    /// Where so many values begin that differ from each other and from those of most other operations.
    pub(crate) fn values(prng: &mut Prng, count: usize) -> impl Iterator<Item = ValueAt> + use<> {
        let first = prng.index(VALUE_VARIETY);
        (0..count).map(move |index| ValueAt(first + 61 * index))
    }

    /// One of a partition's keys.
    pub(crate) fn choose(&self, partition: PartitionId, kind: OpKind, prng: &mut Prng) -> KeyNo {
        self.partition(partition).choose(self.distribution, kind, prng)
    }

    /// A partition's key that is to be inserted next; an existing one if the partition has no room for inserts.
    pub(crate) fn insert(&self, partition: PartitionId, prng: &mut Prng) -> KeyNo {
        let inserts = &self.partition(partition).inserts;
        if inserts.keys.is_empty() {
            return self.choose(partition, OpKind::Write, prng);
        }
        let index = inserts.begun.fetch_add(1, Ordering::Relaxed) % inserts.keys.len();
        inserts.keys.get(index).copied().unwrap_or(KeyNo(0))
    }

    /// A key of a partition was written: if it was not there before, it is now.
    pub(crate) fn written(&self, partition: PartitionId, key: KeyNo) {
        let among_inserts = key.0.checked_sub(self.count).and_then(|at| self.insert_index.get(at as usize));
        if let Some(&index) = among_inserts {
            self.partition(partition).inserts.acknowledged(index as usize);
        }
    }

    /// Inserts that were begun beyond the keys that there was room for: they wrote keys that were there.
    pub(crate) fn inserts_again(&self) -> u64 {
        let each = self.partitions.iter().map(|partition| {
            let begun = partition.inserts.begun.load(Ordering::Relaxed);
            begun.saturating_sub(partition.inserts.keys.len()) as u64
        });
        each.sum()
    }

    /// A partition's keys, the most popular first.
    pub(crate) fn keys_of(&self, partition: PartitionId) -> &[KeyNo] {
        &self.partition(partition).keys
    }

    /// How many keys there are before anything is inserted.
    pub(crate) const fn keys(&self) -> u32 {
        self.count
    }

    /// Bytes of every value.
    pub(crate) const fn value_bytes(&self) -> usize {
        self.value_bytes
    }

    #[allow(clippy::indexing_slicing, reason = "partitions are numbered by whoever made the keyspace")]
    fn partition(&self, partition: PartitionId) -> &Partition {
        &self.partitions[partition.0]
    }
}

fn key_bytes(number: u32) -> [u8; KEY_BYTES] {
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

impl Partition {
    #[allow(
        clippy::indexing_slicing,
        reason = "every draw is below the number of keys, of which there are some"
    )]
    fn choose(&self, distribution: Distribution, kind: OpKind, prng: &mut Prng) -> KeyNo {
        let count = self.keys.len();
        let inserted = self.inserts.all_there.load(Ordering::Acquire);
        let rank = match (&self.zipfian, distribution, kind) {
            (None, ..) => prng.index(count + inserted),
            (Some(zipfian), Distribution::Uniform | Distribution::Zipfian, _) => zipfian.draw(prng),
            // What was inserted is newer than what was there.
            (Some(zipfian), Distribution::Latest, _) if !self.inserts.keys.is_empty() => {
                count + inserted - 1 - zipfian.draw(prng)
            }
            (Some(_), Distribution::Latest, OpKind::Write) => {
                self.written.fetch_add(1, Ordering::Relaxed) % count
            }
            (Some(zipfian), Distribution::Latest, OpKind::Read | OpKind::Scan) => {
                let last = self.written.load(Ordering::Relaxed) % count + count - 1;
                (last - zipfian.draw(prng)) % count
            }
        };
        if rank < count { self.keys[rank] } else { self.inserts.keys[rank - count] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_numbered_in_their_bytes() {
        let spec = KeyspaceSpec {
            keys: 1000,
            inserts: 0,
            value_bytes: 1,
            distribution: Distribution::Uniform,
            seed: 1,
        };
        let keyspace = Keyspace::new(spec, 1, |_| PartitionId(0)).unwrap();
        assert_eq!(keyspace.key(KeyNo(0)), b"bench:0000000000");
        assert_eq!(keyspace.key(KeyNo(987)), b"bench:0000000987");
        assert_eq!(key_bytes(u32::MAX), *b"bench:4294967295");
    }

    #[test]
    fn a_partition_without_keys_is_named() {
        let spec = KeyspaceSpec {
            keys: 3,
            inserts: 0,
            value_bytes: 1,
            distribution: Distribution::Uniform,
            seed: 1,
        };
        let refused = Keyspace::new(spec, 5, |key| PartitionId(usize::from(key[KEY_BYTES - 1] - b'0')));
        assert_eq!(refused.err(), Some(PartitionId(3)));
    }
}
