//! Whether each range, and each batch of gets, saw one instant: if it saw a write, it saw, on its other keys, every write
//! that was over before that one began, or a newer one.
//!
//! This is the anomaly that reading shard by shard without a fence shows. It is a necessary condition, cheap enough for
//! every range of a run, and asks nothing of revisions but that they order the writes of each key.
//!
//! Not checked: instants that no pair of writes tells apart, and order that goes through other clients' reads or through a
//! third key ([`atomicity`](crate::atomicity) does, for the keys of one shard); absence on a key that anyone ever tried to
//! delete (an absence does not say which delete it saw); each key by itself ([`linearizability`](crate::linearizability)).

use std::collections::BTreeMap;

use bytes::Bytes;
use mesh_base::Revision;

use crate::history::{Action, History, Operation, Outcome, Position};
use crate::violation::{Anomaly, Violation};

/// Checks every batch.
///
/// # Errors
/// The first violation found, in the order of the batches.
pub fn check(history: &History) -> Result<(), Box<Violation>> {
    let keys: BTreeMap<&Bytes, Writes<'_>> =
        history.keys().map(|(key, operations)| (key, Writes::new(&operations))).collect();
    for batch in history.batches() {
        let gets: Vec<&Operation> = batch.operations.iter().map(|id| history.get(*id)).collect();
        check_batch(&keys, &gets)?;
    }
    Ok(())
}

/// The writes of one key whose revisions are known.
struct Writes<'a> {
    /// By revision, with the first to be over among this and all newer ones.
    by_revision: Vec<(Revision, &'a Operation, &'a Operation)>,
    has_deletes: bool,
}

impl<'a> Writes<'a> {
    fn new(operations: &[&'a Operation]) -> Self {
        let revision = |operation: &'a Operation| match operation.outcome() {
            Outcome::Written(revision) => Some((revision, operation, operation)),
            _ => None,
        };
        let mut by_revision: Vec<_> = operations.iter().filter_map(|operation| revision(operation)).collect();
        by_revision.sort_by_key(|(revision, ..)| *revision);
        let mut first: Option<&Operation> = None;
        for (_, write, first_newer) in by_revision.iter_mut().rev() {
            let earlier = first.filter(|it| it.over() < write.over()).unwrap_or(write);
            *first_newer = earlier;
            first = Some(earlier);
        }
        let has_deletes = operations.iter().any(|operation| operation.action == Action::Delete);
        Self { by_revision, has_deletes }
    }

    /// Of the writes that the get missed because they are newer than what it saw, the one that was over first.
    fn first_missed(&self, get: &Operation) -> Option<&'a Operation> {
        let seen = match get.outcome() {
            Outcome::Found(_, revision) => revision,
            Outcome::Absent if !self.has_deletes => Revision::ZERO,
            _ => return None,
        };
        let position = self.by_revision.partition_point(|(revision, ..)| *revision <= seen);
        self.by_revision.get(position).map(|(.., first)| *first)
    }

    /// The write that the get saw, if its revision is known from its own answer.
    fn seen(&self, get: &Operation) -> Option<&'a Operation> {
        let Outcome::Found(_, seen) = get.outcome() else { return None };
        let position = self.by_revision.partition_point(|(revision, ..)| *revision < seen);
        self.by_revision.get(position).filter(|(revision, ..)| *revision == seen).map(|(_, write, _)| *write)
    }
}

fn check_batch(keys: &BTreeMap<&Bytes, Writes<'_>>, gets: &[&Operation]) -> Result<(), Box<Violation>> {
    let of = |get: &Operation| keys.get(&get.key);
    let missed = gets
        .iter()
        .filter_map(|get| Some((*get, of(get)?.first_missed(get)?)))
        .min_by_key(|(_, missed)| missed.over());
    let seen =
        gets.iter().filter_map(|get| Some((*get, of(get)?.seen(get)?))).max_by_key(|(_, seen)| seen.invoked);
    let (Some((miss, missed)), Some((hit, seen))) = (missed, seen) else { return Ok(()) };
    if missed.over() != Position::NEVER && missed.over() < seen.invoked {
        return Err(Violation::new(Anomaly::TornRange, [missed, seen, miss, hit]));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use mesh_base::Instant;

    use super::*;
    use crate::history::{ClientNo, Stamp};

    fn put(history: &mut History, key: &'static str, stamp: u64) {
        let key = Bytes::from_static(key.as_bytes());
        let id = history.invoke(Instant(stamp), ClientNo(1), key, Action::Put(Stamp(stamp)));
        history.respond(Instant(stamp), id, Outcome::Written(Revision(stamp)));
    }

    fn keys() -> [Bytes; 2] {
        [Bytes::from_static(b"a"), Bytes::from_static(b"b")]
    }

    fn gets() -> [(Bytes, Action); 2] {
        keys().map(|key| (key, Action::Get))
    }

    /// A range over `a` and `b`, beside which `a` and then `b` are put again.
    fn range_beside_writes(found: &[(usize, u64)]) -> Result<(), Box<Violation>> {
        let mut history = History::new();
        put(&mut history, "a", 1);
        put(&mut history, "b", 2);
        let range = history.invoke_batch(Instant(9), ClientNo(2), gets());
        put(&mut history, "a", 11);
        put(&mut history, "b", 12);
        let found: Vec<_> =
            found.iter().map(|&(key, stamp)| (keys()[key].clone(), Stamp(stamp), Revision(stamp))).collect();
        history.respond_found(Instant(20), range, Revision(20), &found);
        check(&history)
    }

    #[test]
    fn a_range_that_saw_a_later_write_and_missed_an_earlier_one_is_found() {
        let violation = range_beside_writes(&[(0, 1), (1, 12)]).unwrap_err();
        assert_eq!(violation.anomaly, Anomaly::TornRange);
        assert_eq!(violation.operations.len(), 4);
        assert!(violation.to_string().contains("get of \"a\""), "{violation}");
        let violation = range_beside_writes(&[(1, 12)]).unwrap_err();
        assert_eq!(violation.anomaly, Anomaly::TornRange, "a key that was never deleted cannot be absent");
    }

    #[test]
    fn a_range_may_see_any_one_instant() {
        for seen in [[(0, 1), (1, 2)], [(0, 11), (1, 2)], [(0, 11), (1, 12)]] {
            assert_eq!(range_beside_writes(&seen), Ok(()));
        }
    }

    #[test]
    fn of_several_writes_that_were_missed_the_first_to_be_over_counts() {
        let mut history = History::new();
        let [a, b] = keys();
        let invoke = |history: &mut History, key: &Bytes, stamp| {
            history.invoke(Instant(0), ClientNo(1), key.clone(), Action::Put(Stamp(stamp)))
        };
        let written = |history: &mut History, id, stamp| {
            history.respond(Instant(0), id, Outcome::Written(Revision(stamp)));
        };
        let range = history.invoke_batch(Instant(0), ClientNo(2), gets());
        // The older write is over later than the newer one, and than the write that was seen.
        let (older, newer) = (invoke(&mut history, &a, 1), invoke(&mut history, &a, 2));
        written(&mut history, newer, 2);
        let seen = invoke(&mut history, &b, 3);
        written(&mut history, seen, 3);
        written(&mut history, older, 1);
        history.respond_found(Instant(0), range, Revision(3), &[(b, Stamp(3), Revision(3))]);
        let violation = check(&history).unwrap_err();
        assert!(violation.operations.iter().any(|operation| operation.action == Action::Put(Stamp(2))));
    }

    #[test]
    fn a_range_that_was_abandoned_shows_nothing() {
        let mut history = History::new();
        put(&mut history, "a", 1);
        let range = history.invoke_batch(Instant(2), ClientNo(2), gets());
        history.respond_all(Instant(3), range, Outcome::Unknown, None);
        assert_eq!(check(&history), Ok(()));
    }
}
