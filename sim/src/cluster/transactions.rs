//! What clients do on conditions: transactions on the keys of a shard, and increments.
//!
//! A client remembers of each key the last that it saw, and what it read last, and builds upon that: so conditions hold often, and
//! often not.

use std::collections::BTreeMap;

use bytes::Bytes;
use mesh_base::{Instant, Revision, ShardId};
use mesh_wire::{Condition, Expect, Item, KeyRange, Operation, Transact, Transacted, WriteContext};

use super::client::{Client, Shared};
use super::keys::Scope;
use super::values;
use super::work::{Kind, Recorded, Work};
use crate::history::{self, Action, History, Outcome, Puts, Stamp};
use crate::unchanged::ReadSet;

/// Keys of a transaction.
const KEYS_MAX: usize = 3;

/// What a client remembers of a shard's keys.
#[derive(Default, Debug)]
pub(super) struct Memory {
    keys: BTreeMap<Bytes, Seen>,
    reads: BTreeMap<ShardId, Reads>,
}

/// A key as it was seen last; all zero if it was not there.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Seen {
    pub(super) revision: Revision,
    pub(super) version: u64,
}

/// What was read of a shard last, all at one revision.
#[derive(Clone, Debug)]
pub(super) struct Reads {
    pub(super) of: Revision,
    pub(super) what: WhatRead,
}

#[derive(Clone, Debug)]
pub(super) enum WhatRead {
    Keys(Vec<Bytes>),
    /// From where to where, and which keys there are in it.
    Range(Bytes, Bytes, Vec<Bytes>),
}

impl Memory {
    /// A key was seen, or seen not to be there.
    pub(super) fn saw(&mut self, key: &Bytes, seen: Seen) {
        self.keys.insert(key.clone(), seen);
    }

    /// Something was read.
    pub(super) fn read(&mut self, shard: ShardId, reads: Reads) {
        self.reads.insert(shard, reads);
    }
}

/// A transaction.
#[derive(Debug)]
pub(super) struct Transaction {
    conditions: Vec<(Bytes, Asked)>,
    operations: Vec<(Bytes, Done)>,
    otherwise: Otherwise,
    reads: Option<Reads>,
}

/// What is asked of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asked {
    Exists,
    Absent,
    Revision(Revision),
    Version(u64),
}

#[derive(Debug)]
enum Done {
    Put { value: Bytes, previous: bool },
    Get,
}

/// What is done if a condition does not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Otherwise {
    Nothing,
    /// The keys of the conditions are read.
    Reads,
}

impl Transaction {
    /// The request for it.
    pub(super) fn request<T>(&self, ctx: WriteContext<'_>, then: impl FnOnce(Transact<'_>) -> T) -> T {
        let conditions: Vec<_> = self.conditions.iter().map(|(key, asked)| asked.of(key)).collect();
        let operations: Vec<_> = self
            .operations
            .iter()
            .map(|(key, done)| {
                let action = match done {
                    Done::Put { value, previous } => {
                        mesh_wire::Action::Put { value, lease: 0, type_tag: 0, previous: *previous }
                    }
                    Done::Get => mesh_wire::Action::Get,
                };
                Operation { key, action }
            })
            .collect();
        let otherwise: Vec<_> = self
            .conditions
            .iter()
            .map(|(key, _)| Operation { key, action: mesh_wire::Action::Get })
            .collect();
        let mut reads: Vec<&[u8]> = Vec::new();
        let mut ranges = Vec::new();
        match self.reads.as_ref().map(|reads| &reads.what) {
            Some(WhatRead::Keys(keys)) => reads.extend(keys.iter().map(|key| &**key)),
            Some(WhatRead::Range(from, to, _)) => ranges.push(KeyRange { from, to }),
            None => {}
        }
        then(Transact {
            ctx,
            conditions: (&conditions).into(),
            reads_at: self.reads.as_ref().map_or(Revision::ZERO, |reads| reads.of),
            reads: (&reads).into(),
            ranges: (&ranges).into(),
            operations: (&operations).into(),
            otherwise: (self.otherwise == Otherwise::Reads).then(|| (&otherwise).into()),
        })
    }

    /// What an answer says the keys were, of which it says anything.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn take(
        &self,
        answer: &Transacted<'_>,
        memory: &mut Memory,
    ) -> Result<(history::Transacted, BTreeMap<Bytes, Outcome>), String> {
        let puts = match answer.branch {
            mesh_wire::Branch::Operations => Puts::Done,
            mesh_wire::Branch::Otherwise => Puts::Left,
        };
        let asked: Vec<(&Bytes, bool)> = match puts {
            Puts::Done => self.operations.iter().map(|(key, done)| (key, done.finds())).collect(),
            Puts::Left => self.conditions.iter().map(|(key, _)| (key, true)).collect(),
        };
        let mut found = BTreeMap::new();
        let mut before = BTreeMap::new();
        for ((key, _), item) in asked.into_iter().zip(answer.results.iter()).filter(|((_, finds), _)| *finds)
        {
            let outcome = match item {
                None => Outcome::Absent,
                Some(item) => {
                    let stamp = values::read(item.value).map(|(stamp, _)| stamp);
                    let stamp = stamp.ok_or_else(|| "a value is not as it was written".to_owned())?;
                    Outcome::Found(stamp, item.revision)
                }
            };
            found.insert(key.clone(), outcome);
            before.insert(key.clone(), seen(item.as_ref()));
        }
        self.check(puts, &before)?;
        for (key, seen) in before {
            memory.saw(&key, seen);
        }
        if puts == Puts::Done {
            for (key, _) in self.operations.iter().filter(|(_, done)| matches!(done, Done::Put { .. })) {
                let known = memory.keys.get(key).map_or(0, |seen| seen.version);
                memory.saw(key, Seen { revision: answer.revision, version: known + 1 });
            }
        }
        Ok((history::Transacted { revision: answer.revision, puts }, found))
    }

    /// Whether the branch is the one that the conditions ask for, as far as what was found tells.
    fn check(&self, puts: Puts, before: &BTreeMap<Bytes, Seen>) -> Result<(), String> {
        let conditions = &self.conditions;
        let judged = conditions.iter().map(|(key, asked)| before.get(key).map(|seen| asked.holds(*seen)));
        let judged: Vec<Option<bool>> = judged.collect();
        match puts {
            Puts::Done if judged.contains(&Some(false)) => {
                Err(format!("a transaction was done against its conditions: {conditions:?}, {before:?}"))
            }
            Puts::Left if judged.iter().all(|it| *it == Some(true)) => Err(format!(
                "a transaction was not done, though its conditions hold: {conditions:?}, {before:?}"
            )),
            _ => Ok(()),
        }
    }

    /// What it had read, if anything.
    pub(super) fn read_set(&self) -> Option<ReadSet> {
        let reads = self.reads.as_ref()?;
        let keys = match &reads.what {
            WhatRead::Keys(keys) | WhatRead::Range(_, _, keys) => keys.clone(),
        };
        Some(ReadSet { since: reads.of, keys })
    }

    /// Whether a refusal because of a key's revision makes sense.
    pub(super) fn may_conflict(&self, key: &[u8], revision: Revision) -> bool {
        let is_broken = |(of, asked): &(Bytes, Asked)| {
            *of == key
                && match asked {
                    Asked::Revision(expected) => *expected != revision,
                    Asked::Absent => revision != Revision::ZERO,
                    Asked::Exists => revision == Revision::ZERO,
                    Asked::Version(_) => true,
                }
        };
        self.conditions.iter().any(is_broken) || self.reads.as_ref().is_some_and(|it| revision > it.of)
    }
}

impl Done {
    const fn finds(&self) -> bool {
        matches!(self, Self::Get | Self::Put { previous: true, .. })
    }
}

impl Asked {
    const fn of(self, key: &[u8]) -> Condition<'_> {
        let expect = match self {
            Self::Exists => Expect::Exists,
            Self::Absent => Expect::Absent,
            Self::Revision(revision) => Expect::Revision(revision),
            Self::Version(version) => Expect::Version(version),
        };
        Condition { key, expect }
    }

    fn holds(self, seen: Seen) -> bool {
        match self {
            Self::Exists => seen.revision != Revision::ZERO,
            Self::Absent => seen.revision == Revision::ZERO,
            Self::Revision(revision) => seen.revision == revision,
            Self::Version(version) => seen.version == version,
        }
    }
}

/// What an item says of its key.
pub(super) fn seen(item: Option<&Item<'_>>) -> Seen {
    item.map_or(Seen::default(), |item| Seen { revision: item.revision, version: item.version })
}

impl Client {
    /// A transaction on some keys of a shard.
    pub(super) fn choose_transaction(
        &mut self,
        now: Instant,
        shared: &Shared,
        history: &mut History,
    ) -> Work {
        let count = 1 + self.prng.index(KEYS_MAX);
        let keys = shared.keys.choose_several(count, &mut self.prng);
        let shard = keys.first().map_or(ShardId(0), |key| shared.keys.shard_of(key));
        let conditions = self.choose_conditions(&keys);
        let bytes_max = shared.options.size.value_bytes_max / KEYS_MAX;
        let mut asked: Vec<(Bytes, Action)> = Vec::new();
        let mut operations = Vec::new();
        for key in keys {
            let is_put = self.prng.chance_per_mille(750);
            let previous = self.prng.chance_per_mille(700);
            if !is_put || previous {
                asked.push((key.clone(), Action::Get));
            }
            let done = if is_put {
                let stamp = self.next_stamp();
                asked.push((key.clone(), Action::Put(stamp)));
                let value = values::of_length(stamp, self.draw_bytes(bytes_max));
                Done::Put { value, previous }
            } else {
                Done::Get
            };
            operations.push((key, done));
        }
        for (key, _) in &conditions {
            if !asked.iter().any(|(known, action)| known == key && *action == Action::Get) {
                asked.push((key.clone(), Action::Get));
            }
        }
        let otherwise = if self.prng.chance_per_mille(500) { Otherwise::Reads } else { Otherwise::Nothing };
        let is_building = self.prng.chance_per_mille(400);
        let reads = self.memory.reads.get(&shard).filter(|_| is_building).cloned();
        let transaction = Transaction { conditions, operations, otherwise, reads };
        let batch = history.invoke_batch(now, self.number(), asked);
        if let Some(reads) = transaction.read_set() {
            history.note_reads(batch, reads);
        }
        Work { shard, recorded: Recorded::Batch(batch), kind: Kind::Transact(Box::new(transaction)) }
    }

    /// A put of a key that must not exist.
    pub(super) fn create(
        &self,
        key: Bytes,
        stamp: Stamp,
        value: Bytes,
        now: Instant,
        shared: &Shared,
        history: &mut History,
    ) -> Work {
        let shard = shared.keys.shard_of(&key);
        let batch = history.invoke_batch(now, self.number(), [(key.clone(), Action::Put(stamp))]);
        let transaction = Transaction {
            conditions: vec![(key.clone(), Asked::Absent)],
            operations: vec![(key, Done::Put { value, previous: false })],
            otherwise: Otherwise::Nothing,
            reads: None,
        };
        Work { shard, recorded: Recorded::Batch(batch), kind: Kind::Transact(Box::new(transaction)) }
    }

    fn choose_conditions(&mut self, keys: &[Bytes]) -> Vec<(Bytes, Asked)> {
        let mut conditions = Vec::new();
        for key in keys {
            let seen = self.memory.keys.get(key).copied().unwrap_or_default();
            let asked = match self.prng.range(0..10) {
                0 => Asked::Exists,
                1 if seen.version > 3 => Asked::Absent,
                2 if seen.version > 0 => Asked::Version(seen.version),
                // Of those that were never seen it is likely that they do not exist.
                1..4 if seen.revision == Revision::ZERO => Asked::Absent,
                2..7 if seen.revision > Revision::ZERO => Asked::Revision(seen.revision),
                _ => continue,
            };
            conditions.push((key.clone(), asked));
        }
        conditions
    }

    /// An increment of one of the counters that all share.
    pub(super) fn choose_increment(&mut self, shared: &Shared, history: &mut History) -> Work {
        let key = shared.keys.choose_counter(&mut self.prng);
        let (shard, count) = (shared.keys.shard_of(&key), history.begin_count(key.clone()));
        Work { shard, recorded: Recorded::Count(count), kind: Kind::Increment(key) }
    }
}

/// The keys that a range of a scope spans, with its bounds.
pub(super) fn range_read(shared: &Shared, scope: Scope, shard: ShardId) -> WhatRead {
    let (from, to) = shared.keys.bounds(scope);
    WhatRead::Range(from, to, shared.keys.of_range(scope, shard))
}
