//! What comes to a client's mind: what it asks for next, as its options have it.

use bytes::Bytes;
use mesh_base::{Instant, ShardId};

use super::client::{Client, Patience, Shared, Step};
use super::keys::Scope;
use super::lists::{Appending, Lists};
use super::values::{self, VALUE_BYTES_MIN};
use super::work::{Kind, Pages, RangeOf, Recorded, Work};
use crate::history::{Action, History, OpId, Stamp};
use crate::options::LARGE_VALUE_BYTES_MAX;

/// A large value has as many bytes as this at least.
const LARGE_VALUE_BYTES_MIN: usize = 64 * 1024;
/// How often a large value can be twice as long as the shortest.
const LARGE_DOUBLINGS: usize = 6;

const _: () = assert!((LARGE_VALUE_BYTES_MIN << (LARGE_DOUBLINGS - 1)) / 2 * 3 <= LARGE_VALUE_BYTES_MAX);

/// What a client is told to do; of several keys, in one request.
pub(crate) enum Errand {
    /// Write keys and texts.
    Put(Vec<(Bytes, Bytes)>),
    /// Write a key and a text if the key does not exist.
    Create(Bytes, Bytes),
    /// Remove a value.
    Delete(Bytes),
    /// Read keys.
    Get(Vec<Bytes>),
}

impl Client {
    /// Begins the next operation.
    pub(super) fn begin(&mut self, now: Instant, shared: &Shared, history: &mut History) -> Step {
        let load = &shared.options.load;
        if self.prng.chance_per_mille(load.lists_per_mille)
            && let Some(work) = self.choose_of_lists(now, shared, history)
        {
            return self.start(now, work, Patience::UntilKnown, shared);
        }
        let work = if self.prng.chance_per_mille(load.increments_per_mille) {
            self.choose_increment(shared, history)
        } else if self.prng.chance_per_mille(load.transactions_per_mille) {
            self.choose_transaction(now, shared, history)
        } else if self.prng.chance_per_mille(load.batches_per_mille) {
            self.choose_batch(now, shared, history)
        } else {
            self.choose_single(now, shared, history)
        };
        self.start(now, work, Patience::Bounded, shared)
    }

    /// Begins an operation of the caller's choice, at a node of the caller's choice if there is one.
    pub(super) fn run_errand(
        &mut self,
        now: Instant,
        errand: Errand,
        at: Option<usize>,
        shared: &Shared,
        history: &mut History,
    ) -> (Vec<OpId>, Step) {
        let work = match errand {
            Errand::Put(texts) => {
                let put = |(key, text): (Bytes, Bytes)| {
                    let stamp = self.next_stamp();
                    (key, stamp, values::saying(stamp, &text))
                };
                let items = texts.into_iter().map(put).collect();
                self.put(items, now, shared, history)
            }
            Errand::Create(key, text) => {
                let stamp = self.next_stamp();
                let value = values::saying(stamp, &text);
                self.create(key, stamp, value, now, shared, history)
            }
            Errand::Delete(key) => self.delete(vec![key], now, shared, history),
            Errand::Get(keys) => match <[Bytes; 1]>::try_from(keys) {
                Ok([key]) => self.get(key, now, shared, history),
                Err(keys) => self.get_batch(keys, now, shared, history),
            },
        };
        if let Some(node) = at {
            self.go_to(work.shard, node);
        }
        let operations = work.recorded.operations(history);
        (operations, self.start(now, work, Patience::Bounded, shared))
    }

    fn choose_single(&mut self, now: Instant, shared: &Shared, history: &mut History) -> Work {
        let key = shared.keys.choose(&mut self.prng);
        match self.prng.range(0..100) {
            0..45 => {
                let (stamp, bytes) = (self.next_stamp(), self.draw_length(shared));
                self.put(vec![(key, stamp, values::of_length(stamp, bytes))], now, shared, history)
            }
            45..55 => self.delete(vec![key], now, shared, history),
            55..90 => self.get(key, now, shared, history),
            _ => {
                let shard = shared.keys.choose_shard(&mut self.prng);
                let scope = if self.prng.chance_per_mille(500) { Scope::All } else { Scope::Registers };
                let limit = self.draw_limit();
                self.range(shard, scope, limit, now, shared, history)
            }
        }
    }

    fn choose_batch(&mut self, now: Instant, shared: &Shared, history: &mut History) -> Work {
        let count = 1 + self.prng.index(shared.options.load.batch_keys_max);
        let mut keys = shared.keys.choose_several(count, &mut self.prng);
        match self.prng.range(0..100) {
            0..45 => {
                if self.prng.chance_per_mille(100) {
                    // A key may come twice in a batch.
                    keys.extend(self.prng.choose(&keys).cloned());
                }
                // All values of a batch together are no longer than one.
                let bytes_max = shared.options.size.value_bytes_max / keys.len();
                let put = |key| {
                    let stamp = self.next_stamp();
                    let bytes = self.draw_bytes(bytes_max);
                    (key, stamp, values::of_length(stamp, bytes))
                };
                let items = keys.into_iter().map(put).collect();
                self.put_batch(items, now, shared, history)
            }
            45..55 => self.delete(keys, now, shared, history),
            _ => self.get_batch(keys, now, shared, history),
        }
    }

    /// What a client does with its own list and counter, or those of another; nothing, if it has lost its own.
    fn choose_of_lists(&mut self, now: Instant, shared: &Shared, history: &mut History) -> Option<Work> {
        let choice = self.prng.range(0..100);
        if choice < 50 {
            let begun = self.append(shared)?;
            return Some(self.put_lists(&begun, now, shared, history));
        }
        let owner = self.prng.index(shared.options.size.clients);
        let owned = shared.keys.owned(owner)?.clone();
        Some(match choice {
            50..60 => self.get(owned.list, now, shared, history),
            60..70 => self.get(owned.counter, now, shared, history),
            70..85 => self.get_batch(vec![owned.counter, owned.list], now, shared, history),
            _ => {
                let (shard, limit) = (shared.keys.shard_of(&owned.list), self.draw_limit());
                self.range(shard, Scope::Owned(owner), limit, now, shared, history)
            }
        })
    }

    fn append(&mut self, shared: &Shared) -> Option<Vec<Appending>> {
        let number = self.number();
        let owned = shared.keys.owned(self.place)?;
        let begun = self.lists.get_or_insert_with(|| Lists::new(owned)).append(number, &mut self.prng);
        (!begun.is_empty()).then_some(begun)
    }

    fn put_lists(
        &mut self,
        begun: &[Appending],
        now: Instant,
        shared: &Shared,
        history: &mut History,
    ) -> Work {
        let put = |appending: &Appending| {
            let stamp = self.next_stamp();
            (appending.key.clone(), stamp, appending.value(stamp))
        };
        let items = begun.iter().map(put).collect();
        let work = self.put(items, now, shared, history);
        let operations = work.recorded.operations(history);
        for (op, appending) in operations.into_iter().zip(begun) {
            history.note_append(op, appending.append);
        }
        work
    }

    fn draw_limit(&mut self) -> u32 {
        u32::try_from(1 + self.prng.index(5)).unwrap_or(1)
    }

    fn draw_length(&mut self, shared: &Shared) -> usize {
        if self.prng.chance_per_mille(shared.options.load.large_per_mille) {
            let least = LARGE_VALUE_BYTES_MIN << self.prng.index(LARGE_DOUBLINGS);
            return least + self.prng.index(least / 2);
        }
        self.draw_bytes(shared.options.size.value_bytes_max)
    }

    /// The length of a value that is not large.
    pub(super) fn draw_bytes(&mut self, bytes_max: usize) -> usize {
        let longer = bytes_max.max(VALUE_BYTES_MIN) - VALUE_BYTES_MIN;
        VALUE_BYTES_MIN + self.prng.index(longer + 1)
    }

    // --- requests

    fn put(
        &mut self,
        items: Vec<(Bytes, Stamp, Bytes)>,
        now: Instant,
        shared: &Shared,
        history: &mut History,
    ) -> Work {
        match items.as_slice() {
            [(key, stamp, _)] => {
                let op = history.invoke(now, self.number(), key.clone(), Action::Put(*stamp));
                let shard = shared.keys.shard_of(key);
                let items = items.into_iter().map(|(key, _, value)| (key, value)).collect();
                Work { shard, recorded: Recorded::One(op), kind: Kind::Put(items) }
            }
            _ => self.put_batch(items, now, shared, history),
        }
    }

    fn put_batch(
        &mut self,
        items: Vec<(Bytes, Stamp, Bytes)>,
        now: Instant,
        shared: &Shared,
        history: &mut History,
    ) -> Work {
        let asked = items.iter().map(|(key, stamp, _)| (key.clone(), Action::Put(*stamp)));
        let recorded = Recorded::Batch(history.invoke_batch(now, self.number(), asked));
        let shard = items.first().map_or(ShardId(0), |(key, ..)| shared.keys.shard_of(key));
        let items = items.into_iter().map(|(key, _, value)| (key, value)).collect();
        Work { shard, recorded, kind: Kind::Put(items) }
    }

    fn delete(&self, keys: Vec<Bytes>, now: Instant, shared: &Shared, history: &mut History) -> Work {
        let asked = keys.iter().map(|key| (key.clone(), Action::Delete));
        let recorded = Recorded::Batch(history.invoke_batch(now, self.number(), asked));
        let shard = keys.first().map_or(ShardId(0), |key| shared.keys.shard_of(key));
        Work { shard, recorded, kind: Kind::Delete(keys) }
    }

    pub(super) fn get(&self, key: Bytes, now: Instant, shared: &Shared, history: &mut History) -> Work {
        let recorded = Recorded::One(history.invoke(now, self.number(), key.clone(), Action::Get));
        let shard = shared.keys.shard_of(&key);
        Work { shard, recorded, kind: Kind::Get(vec![key], Pages::default()) }
    }

    fn get_batch(&self, keys: Vec<Bytes>, now: Instant, shared: &Shared, history: &mut History) -> Work {
        let asked = keys.iter().map(|key| (key.clone(), Action::Get));
        let recorded = Recorded::Batch(history.invoke_batch(now, self.number(), asked));
        let shard = keys.first().map_or(ShardId(0), |key| shared.keys.shard_of(key));
        Work { shard, recorded, kind: Kind::Get(keys, Pages::default()) }
    }

    pub(super) fn range(
        &mut self,
        shard: ShardId,
        scope: Scope,
        limit: u32,
        now: Instant,
        shared: &Shared,
        history: &mut History,
    ) -> Work {
        let asked = shared.keys.of_range(scope, shard).into_iter().map(|key| (key, Action::Get));
        let recorded = Recorded::Batch(history.invoke_batch(now, self.number(), asked));
        let (from, to) = shared.keys.bounds(scope);
        let reverse = self.prng.chance_per_mille(500);
        Work {
            shard,
            recorded,
            kind: Kind::Range(RangeOf { from, to, reverse, limit, scope }, Pages::default()),
        }
    }
}
