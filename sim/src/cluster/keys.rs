//! The keys of a run: registers, which everyone writes, a list and a counter of each client, which nobody else does, and counters
//! that are only ever incremented.
//!
//! The keys of one client share a tag, and so a shard. All keys begin alike, registers come first: so ranges of them can
//! be asked for apart.

use bytes::Bytes;
use mesh_base::ShardId;
use mesh_base::prng::Prng;
use mesh_server::router::SlotMap;

use crate::options::{Options, Popularity};

/// Counters of a run that has some.
const COUNTERS: usize = 3;

/// The weight of the most liked key, where likings differ.
const WEIGHT_MAX: u64 = 1 << 20;

/// The keys of a run.
pub(super) struct Keyspace {
    slots: SlotMap,
    registers: Vec<Bytes>,
    /// The registers of each shard.
    by_shard: Vec<Vec<Bytes>>,
    /// How much each register and all before it are liked.
    liked: Vec<u64>,
    /// By client.
    owned: Vec<Owned>,
    /// Which all share.
    counters: Vec<Bytes>,
    /// From where to where all keys are; nothing for no bound.
    bounds: (Bytes, Bytes),
}

/// The keys of one client.
#[derive(Clone, Debug)]
pub(super) struct Owned {
    pub(super) list: Bytes,
    pub(super) counter: Bytes,
}

/// Which keys a range spans.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Scope {
    All,
    Registers,
    /// Those of one client.
    Owned(usize),
}

impl Keyspace {
    pub(super) fn new(options: &Options) -> Self {
        let slots = SlotMap::even(options.size.shards);
        let registers: Vec<Bytes> =
            (0..options.size.keys).map(|number| Bytes::from(format!("key-{number:03}"))).collect();
        let of_shard =
            |shard| registers.iter().filter(|key| slots.shard_of_key(key) == shard).cloned().collect();
        let by_shard = (0..options.size.shards).map(|shard| of_shard(ShardId(shard))).collect();
        let count = registers.len() as u64;
        let weight = |rank: u64| match options.load.popularity {
            Popularity::Zipfian => WEIGHT_MAX / (rank + 1),
            Popularity::One if rank == 0 => (count - 1).max(1),
            Popularity::Uniform | Popularity::One => 1,
        };
        let sum = |sum: &mut u64, rank| {
            *sum += weight(rank);
            Some(*sum)
        };
        let liked = (0..count).scan(0, sum).collect();
        let owners = if options.load.lists_per_mille > 0 { options.size.clients } else { 0 };
        let owned = (0..owners).map(|client| Owned {
            list: Bytes::from(format!("key-{{c{client:02}}}-list")),
            counter: Bytes::from(format!("key-{{c{client:02}}}-count")),
        });
        let counters = if options.load.increments_per_mille > 0 { COUNTERS } else { 0 };
        let counters = (0..counters).map(|number| Bytes::from(format!("tally-{number}")));
        let mut keys = Self {
            owned: owned.collect(),
            counters: counters.collect(),
            slots,
            registers,
            by_shard,
            liked,
            bounds: (Bytes::new(), Bytes::new()),
        };
        if !keys.counters.is_empty() {
            keys.keep_apart();
        }
        keys
    }

    /// There are other keys that clients do not know of: they keep to their own.
    pub(super) fn keep_apart(&mut self) {
        self.bounds = (Bytes::from_static(b"key-"), Bytes::from_static(b"key."));
    }

    pub(super) fn shard_of(&self, key: &[u8]) -> ShardId {
        self.slots.shard_of_key(key)
    }

    pub(super) fn registers(&self) -> &[Bytes] {
        &self.registers
    }

    /// Whether the key is a client's own, a list or a counter.
    pub(super) fn is_list(&self, key: &[u8]) -> bool {
        self.owned.iter().any(|owned| owned.list == key || owned.counter == key)
    }

    /// The keys of a client, if clients have some.
    pub(super) fn owned(&self, client: usize) -> Option<&Owned> {
        self.owned.get(client)
    }

    /// A register, as it is liked.
    pub(super) fn choose(&self, prng: &mut Prng) -> Bytes {
        let all = self.liked.last().copied().unwrap_or(1);
        let drawn = prng.range(0..all);
        let rank = self.liked.partition_point(|liked| *liked <= drawn);
        self.registers.get(rank).cloned().unwrap_or_default()
    }

    /// A register as it is liked, and others of its shard: `count` in all, as far as there are so many.
    pub(super) fn choose_several(&self, count: usize, prng: &mut Prng) -> Vec<Bytes> {
        let first = self.choose(prng);
        let of_shard = self.by_shard.get(usize::from(self.shard_of(&first).0));
        let mut others: Vec<Bytes> =
            of_shard.into_iter().flatten().filter(|key| **key != first).cloned().collect();
        prng.shuffle(&mut others);
        others.truncate(count.saturating_sub(1));
        others.insert(prng.index(others.len() + 1), first);
        others
    }

    /// A counter that all share.
    pub(super) fn choose_counter(&self, prng: &mut Prng) -> Bytes {
        prng.choose(&self.counters).cloned().unwrap_or_default()
    }

    /// A shard.
    pub(super) fn choose_shard(&self, prng: &mut Prng) -> ShardId {
        ShardId(u16::try_from(prng.index(self.by_shard.len())).unwrap_or(0))
    }

    /// The keys that a range of a shard spans.
    pub(super) fn of_range(&self, scope: Scope, shard: ShardId) -> Vec<Bytes> {
        let registers = self.by_shard.get(usize::from(shard.0)).into_iter().flatten();
        let owned = |client: &Owned| [client.list.clone(), client.counter.clone()];
        let lists = |owners: &[Owned]| -> Vec<Bytes> {
            owners.iter().flat_map(owned).filter(|key| self.shard_of(key) == shard).collect()
        };
        match scope {
            Scope::All => registers.cloned().chain(lists(&self.owned)).collect(),
            Scope::Registers => registers.cloned().collect(),
            Scope::Owned(client) => lists(self.owned.get(client..=client).unwrap_or_default()),
        }
    }

    /// From where to where a range goes; nothing for no bound.
    pub(super) fn bounds(&self, scope: Scope) -> (Bytes, Bytes) {
        match scope {
            Scope::All => self.bounds.clone(),
            Scope::Registers => (self.bounds.0.clone(), Bytes::from_static(b"key-{")),
            Scope::Owned(client) => {
                let tag = format!("key-{{c{client:02}}}");
                (Bytes::from(format!("{tag}-")), Bytes::from(format!("{tag}.")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options;

    fn keyspace(keys: usize, shards: u16, popularity: Popularity) -> Keyspace {
        let mut options = options::draw(1).0;
        (options.size.keys, options.size.shards, options.size.clients) = (keys, shards, 3);
        (options.load.popularity, options.load.lists_per_mille) = (popularity, 100);
        Keyspace::new(&options)
    }

    /// Of 10,000 choices, those of each register.
    fn choices(popularity: Popularity) -> Vec<usize> {
        let (keys, mut prng) = (keyspace(10, 1, popularity), Prng::new(1));
        let mut counts = vec![0; 10];
        for _ in 0..10_000 {
            let key = keys.choose(&mut prng);
            counts[keys.registers().iter().position(|it| *it == key).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn registers_are_chosen_as_they_are_liked() {
        assert!(choices(Popularity::Uniform).iter().all(|count| (800..1200).contains(count)));
        let zipfian = choices(Popularity::Zipfian);
        assert!((3200..3700).contains(&zipfian[0]) && (1500..1900).contains(&zipfian[1]), "{zipfian:?}");
        assert!(zipfian[9] > 250);
        let one = choices(Popularity::One);
        assert!((4700..5300).contains(&one[0]) && one[1..].iter().all(|count| *count > 400), "{one:?}");
    }

    #[test]
    fn several_registers_are_different_ones_of_one_shard() {
        let (keys, mut prng) = (keyspace(20, 3, Popularity::Uniform), Prng::new(1));
        for count in 1..30 {
            let several = keys.choose_several(count, &mut prng);
            let shard = keys.shard_of(&several[0]);
            assert!(several.iter().all(|key| keys.shard_of(key) == shard));
            assert_eq!(several.len(), count.min(keys.of_range(Scope::Registers, shard).len()));
            assert!(several.iter().all(|key| several.iter().filter(|it| *it == key).count() == 1));
        }
        assert_eq!(keyspace(1, 1, Popularity::One).choose_several(5, &mut prng).len(), 1);
    }

    #[test]
    fn a_range_spans_the_keys_between_its_bounds() {
        let keys = keyspace(20, 2, Popularity::Uniform);
        let all: Vec<Bytes> = [0, 1].iter().flat_map(|it| keys.of_range(Scope::All, ShardId(*it))).collect();
        assert_eq!(all.len(), 20 + 2 * 3);
        for scope in [Scope::All, Scope::Registers, Scope::Owned(0), Scope::Owned(2)] {
            let (from, to) = keys.bounds(scope);
            let within = |key: &&Bytes| **key >= from && (to.is_empty() || **key < to);
            for shard in [0, 1].map(ShardId) {
                let expected: Vec<&Bytes> =
                    all.iter().filter(within).filter(|key| keys.shard_of(key) == shard).collect();
                assert_eq!(keys.of_range(scope, shard).iter().collect::<Vec<_>>(), expected, "{scope:?}");
            }
        }
    }

    #[test]
    fn the_keys_of_a_client_are_of_one_shard() {
        let keys = keyspace(1, 3, Popularity::Uniform);
        for client in 0..3 {
            let owned = keys.owned(client).unwrap();
            assert_eq!(keys.shard_of(&owned.list), keys.shard_of(&owned.counter));
            assert!(keys.is_list(&owned.list) && keys.is_list(&owned.counter));
        }
        assert!(!keys.is_list(b"key-000"));
    }
}
