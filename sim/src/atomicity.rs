//! Whether each shard is one object: every request of it, of one key or of several, takes effect at one instant, and the
//! revisions tell the order of these instants.
//!
//! A write has a revision, an answer to a read says of which revision it is, and a shard gives revisions out in order. So
//! the order need not be searched for: the revisions are taken for it, and it is checked that it is one. That costs
//! `O(n log n)` for all keys of a shard together, where the search of any order is exponential, and it proves more: that
//! revisions are what they are said to be.
//!
//! Checked, for each shard:
//! - all writes of a batch have one revision, be it known from the batch's answer or from a get that saw one of them;
//! - what began after a revision was known is not before it: a write has a greater one, an answer is not of a smaller one;
//! - an answer of a revision shows, of every key, the newest write that is not above it: so nobody sees a part of a
//!   batch, neither in one answer nor in one answer after another.
//!
//! Of a transaction, the writes are at its revision and the reads right before it: nothing can come in between.
//!
//! "Known" is: answered, to whomever, by a write or a read of any key of the shard.
//!
//! A write whose outcome is unknown and that nobody saw is left out, but for deletes: each may account, once, for an
//! absence on each of its keys, at any revision above all that was known when it began.
//!
//! Not checked: that the keys of one unknown delete vanish together; how many values a delete says it removed, but for
//! none at all; the order of shards among each other ([`cuts`](crate::cuts)); anything of answers without a revision.

use std::collections::BTreeMap;

use bytes::Bytes;
use mesh_base::{Revision, ShardId};

use crate::history::{Action, History, OpId, Operation, Outcome, Stamp};
use crate::violation::{Anomaly, Violation};

/// Checks every shard.
///
/// # Errors
/// The first violation found, in the order of shards.
pub fn check(history: &History, shard_of: impl Fn(&Bytes) -> ShardId) -> Result<(), Box<Violation>> {
    let written = revisions_of_writes(history)?;
    let mut shards: BTreeMap<ShardId, Vec<(&Bytes, Vec<Entry<'_>>)>> = BTreeMap::new();
    for (key, ids) in history.ids_by_key() {
        let entry = |id: &OpId| Entry::new(history.get(*id), written.get(id).copied());
        shards.entry(shard_of(key)).or_default().push((key, ids.iter().map(entry).collect()));
    }
    for keys in shards.values_mut() {
        check_order(keys)?;
        keys.iter().try_for_each(|(_, entries)| check_key(entries))?;
    }
    Ok(())
}

/// An operation, with its place among the revisions of its shard.
struct Entry<'a> {
    operation: &'a Operation,
    at: Option<Place>,
    /// The newest revision of the shard that was known when it began.
    known: Revision,
}

#[derive(Clone, Copy)]
enum Place {
    /// It wrote at a revision that is its own.
    Written(Revision),
    /// It saw the state at a revision.
    Seen(Revision),
}

impl Place {
    const fn revision(self) -> Revision {
        match self {
            Self::Written(revision) | Self::Seen(revision) => revision,
        }
    }
}

impl<'a> Entry<'a> {
    fn new(operation: &'a Operation, written: Option<Revision>) -> Self {
        let of = operation.response.and_then(|response| response.of);
        let at = match operation.outcome() {
            // A delete that finds nothing takes a revision all the same.
            Outcome::NothingRemoved => of.map(Place::Written),
            Outcome::Found(..) | Outcome::Absent => of.map(Place::Seen),
            Outcome::NotApplied => None,
            Outcome::Written(_) | Outcome::Unknown => written.map(Place::Written),
        };
        Self { operation, at, known: Revision::ZERO }
    }

    fn is_unknown_delete(&self) -> bool {
        self.operation.action == Action::Delete && self.operation.outcome() == Outcome::Unknown
    }
}

/// The revisions of the writes of which anybody learnt: from their answers, from gets that saw them, and from the rest of
/// their batch.
fn revisions_of_writes(history: &History) -> Result<BTreeMap<OpId, Revision>, Box<Violation>> {
    let mut puts: BTreeMap<Stamp, OpId> = BTreeMap::new();
    let mut found: BTreeMap<Stamp, Revision> = BTreeMap::new();
    let mut written: BTreeMap<OpId, Revision> = BTreeMap::new();
    for (id, operation) in history.iter() {
        if let Action::Put(stamp) = operation.action {
            puts.insert(stamp, id);
        }
        match operation.outcome() {
            Outcome::Written(revision) => _ = written.insert(id, revision),
            Outcome::Found(stamp, revision) => _ = found.entry(stamp).or_insert(revision),
            _ => {}
        }
    }
    for (stamp, revision) in found {
        if let Some(put) = puts.get(&stamp) {
            written.entry(*put).or_insert(revision);
        }
    }
    for batch in history.batches() {
        let counts = |id: &&OpId| {
            let operation = history.get(**id);
            operation.action != Action::Get && operation.outcome() != Outcome::NotApplied
        };
        let operations: Vec<OpId> = batch.operations.iter().filter(counts).copied().collect();
        let known = operations.iter().filter_map(|id| Some((*id, *written.get(id)?)));
        let known: Vec<(OpId, Revision)> = known.collect();
        let Some(&(first, revision)) = known.first() else { continue };
        if let Some((other, another)) = known.iter().find(|(_, other)| *other != revision) {
            let proof = [history.get(first), history.get(*other)];
            return Err(Violation::new(Anomaly::TornBatch(revision, *another), proof));
        }
        written.extend(operations.into_iter().map(|id| (id, revision)));
    }
    Ok(written)
}

/// A sweep through the order of the history: what is known at each response, and what it must be at each invocation.
fn check_order(keys: &mut [(&Bytes, Vec<Entry<'_>>)]) -> Result<(), Box<Violation>> {
    let mut entries: Vec<&mut Entry<'_>> = keys.iter_mut().flat_map(|(_, entries)| entries).collect();
    let mut moments = Vec::with_capacity(2 * entries.len());
    for (index, entry) in entries.iter().enumerate() {
        if entry.at.is_some() || entry.is_unknown_delete() {
            moments.extend([(entry.operation.invoked, index), (entry.operation.over(), index)]);
        }
    }
    moments.sort_unstable();
    let mut newest: Option<(Revision, &Operation)> = None;
    for (position, index) in moments {
        let Some(entry) = entries.get_mut(index) else { continue };
        let operation = entry.operation;
        if position != operation.invoked {
            let revision = entry.at.map_or(Revision::ZERO, Place::revision);
            if newest.is_none_or(|(known, _)| known < revision) {
                newest = Some((revision, operation));
            }
            continue;
        }
        let Some((known, witness)) = newest else { continue };
        entry.known = known;
        let anomaly = match entry.at {
            Some(Place::Written(written)) if written <= known => Anomaly::RevisionNotAbove { written, known },
            Some(Place::Seen(of)) if of < known => Anomaly::AnswerWentBack { of, known },
            _ => continue,
        };
        return Err(Violation::new(anomaly, [witness, operation]));
    }
    Ok(())
}

/// What a key holds, from one revision to the next.
#[derive(Default)]
struct Holds<'a> {
    stamp: Option<Stamp>,
    /// The write that it is from, with its revision.
    since: Option<(Revision, &'a Operation)>,
}

/// A sweep through the revisions of one key.
fn check_key(entries: &[Entry<'_>]) -> Result<(), Box<Violation>> {
    let mut order: Vec<(Revision, bool, usize)> = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        if let Some(place) = entry.at {
            // An answer shows the writes at its own revision.
            order.push((place.revision(), matches!(place, Place::Seen(_)), index));
        }
    }
    order.sort_unstable();
    let mut unknown: Vec<Revision> = entries
        .iter()
        .filter(|entry| entry.is_unknown_delete() && entry.at.is_none())
        .map(|it| it.known)
        .collect();
    // The one that began the latest is the last.
    unknown.sort_unstable_by(|a, b| b.cmp(a));
    let mut holds = Holds::default();
    for (of, _, index) in order {
        let Some(Entry { operation, .. }) = entries.get(index) else { continue };
        match (operation.action, operation.outcome()) {
            (Action::Get, Outcome::Found(stamp, written)) if holds.stamp != Some(stamp) => {
                let anomaly = match holds.since {
                    _ if written > of => Anomaly::AnswerAhead { of, stamp, written },
                    Some((newer, _)) => Anomaly::AnswerMissed { of, written: newer },
                    // The stamp is nobody's: linearizability says so.
                    None => continue,
                };
                return Err(Violation::new(anomaly, holds.since.iter().map(|it| it.1).chain([*operation])));
            }
            (Action::Get, Outcome::Absent) | (Action::Delete, Outcome::NothingRemoved)
                if holds.stamp.is_some() =>
            {
                // Any one does that was begun before this revision was reached.
                let Some(delete) = unknown.iter().position(|known| *known < of) else {
                    let written = holds.since.map_or(of, |(revision, _)| revision);
                    let proof = holds.since.iter().map(|it| it.1).chain([*operation]);
                    return Err(Violation::new(Anomaly::AnswerMissed { of, written }, proof));
                };
                unknown.remove(delete);
                holds.stamp = None;
            }
            (Action::Put(stamp), _) => holds = Holds { stamp: Some(stamp), since: Some((of, *operation)) },
            (Action::Delete, Outcome::Written(_) | Outcome::Unknown) => {
                holds = Holds { stamp: None, since: Some((of, *operation)) };
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
