//! The keys and values of a run, laid out before anything is measured, so that making an operation costs a few draws and no
//! memory.
//!
//! Invariants:
//! - A key belongs to one partition for the whole run, as the system under load says: see
//!   [`crate::target::Target::partition_of`].
//! - A seed repeats keys, values and popularity.

use std::sync::atomic::{AtomicUsize, Ordering};

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
}

/// All keys and values of a run.
#[derive(Debug)]
pub(crate) struct Keyspace {
    keys: Vec<u8>,
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
        let mut keys = Vec::with_capacity(KEY_BYTES * spec.keys as usize);
        let mut of_partition = vec![Vec::new(); partitions];
        for number in 0..spec.keys {
            let key = key_bytes(number);
            keys.extend_from_slice(&key);
            if let Some(of_partition) = of_partition.get_mut(partition_of(&key).0) {
                of_partition.push(KeyNo(number));
            }
        }
        if let Some(empty) = of_partition.iter().position(Vec::is_empty) {
            return Err(PartitionId(empty));
        }
        let partitions = of_partition.into_iter().map(|mut keys| {
            prng.shuffle(&mut keys);
            let zipfian = (spec.distribution != Distribution::Uniform).then(|| Zipfian::new(keys.len()));
            Partition { keys, zipfian, written: AtomicUsize::new(0) }
        });
        let partitions = partitions.collect();
        let mut values = vec![0; VALUE_VARIETY + spec.value_bytes];
        prng.fill(&mut values);
        Ok(Self { keys, partitions, values, value_bytes: spec.value_bytes, distribution: spec.distribution })
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

    /// A partition's keys, the most popular first.
    pub(crate) fn keys_of(&self, partition: PartitionId) -> &[KeyNo] {
        &self.partition(partition).keys
    }

    /// How many keys there are.
    pub(crate) fn keys(&self) -> u32 {
        u32::try_from(self.keys.len() / KEY_BYTES).unwrap_or(u32::MAX)
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
        let rank = match (&self.zipfian, distribution, kind) {
            (None, ..) => prng.index(count),
            (Some(zipfian), Distribution::Uniform | Distribution::Zipfian, _) => zipfian.draw(prng),
            (Some(_), Distribution::Latest, OpKind::Write) => {
                self.written.fetch_add(1, Ordering::Relaxed) % count
            }
            (Some(zipfian), Distribution::Latest, OpKind::Read) => {
                let last = self.written.load(Ordering::Relaxed) % count + count - 1;
                (last - zipfian.draw(prng)) % count
            }
        };
        self.keys[rank]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_numbered_in_their_bytes() {
        let spec = KeyspaceSpec { keys: 1000, value_bytes: 1, distribution: Distribution::Uniform, seed: 1 };
        let keyspace = Keyspace::new(spec, 1, |_| PartitionId(0)).unwrap();
        assert_eq!(keyspace.key(KeyNo(0)), b"bench:0000000000");
        assert_eq!(keyspace.key(KeyNo(987)), b"bench:0000000987");
        assert_eq!(key_bytes(u32::MAX), *b"bench:4294967295");
    }

    #[test]
    fn a_partition_without_keys_is_named() {
        let spec = KeyspaceSpec { keys: 3, value_bytes: 1, distribution: Distribution::Uniform, seed: 1 };
        let refused = Keyspace::new(spec, 5, |key| PartitionId(usize::from(key[KEY_BYTES - 1] - b'0')));
        assert_eq!(refused.err(), Some(PartitionId(3)));
    }
}
