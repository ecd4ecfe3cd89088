//! Whether transactions were done only while what they had read was as they had read it: of each that was, no key of its read
//! set was written after the revision that this was read at and before the transaction's own.
//!
//! Not checked: writes of which nobody learnt the revision; deletes of several keys at once, of which it is not known which were there; that a transaction which was refused had to be
//! ([`atomicity`](crate::atomicity) judges what transactions wrote and found).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use mesh_base::Revision;

use crate::history::{Action, BatchId, History, OpId, Operation, Outcome};
use crate::violation::{Anomaly, Violation};

/// What a transaction had read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadSet {
    /// The revision at which.
    pub since: Revision,
    /// The keys, those of its ranges among them.
    pub keys: Vec<Bytes>,
}

/// Checks every transaction that had read something.
///
/// # Errors
/// The first violation found, in the order of transactions.
pub fn check(history: &History) -> Result<(), Box<Violation>> {
    let mut writes: BTreeMap<&Bytes, BTreeMap<Revision, &Operation>> = BTreeMap::new();
    // Of keys that were deleted together, not all need have been there.
    let together = history.batches().iter().filter(|batch| batch.operations.len() > 1);
    let together: BTreeSet<OpId> = together.flat_map(|batch| batch.operations.iter().copied()).collect();
    for (id, operation) in history.iter() {
        let is_write = match operation.action {
            Action::Put(_) => true,
            Action::Delete => !together.contains(&id),
            Action::Get => false,
        };
        if let (true, Outcome::Written(revision)) = (is_write, operation.outcome()) {
            writes.entry(&operation.key).or_default().insert(revision, operation);
        }
    }
    history.read_sets().try_for_each(|(batch, reads)| check_one(history, &writes, *batch, reads))
}

fn check_one(
    history: &History,
    writes: &BTreeMap<&Bytes, BTreeMap<Revision, &Operation>>,
    batch: BatchId,
    reads: &ReadSet,
) -> Result<(), Box<Violation>> {
    let done = history.of_batch(batch).iter().map(|id| history.get(*id));
    let done = done.filter_map(|operation| match (operation.action, operation.outcome()) {
        (Action::Get, _) => None,
        (_, Outcome::Written(revision)) => Some((revision, operation)),
        _ => None,
    });
    let Some((at, witness)) = done.min_by_key(|(revision, _)| *revision) else { return Ok(()) };
    for key in &reads.keys {
        let after = reads.since.0.saturating_add(1);
        let between = writes.get(key).and_then(|writes| writes.range(Revision(after)..at).next());
        if let Some((written, write)) = between {
            let anomaly = Anomaly::ReadSetChanged { since: reads.since, written: *written, done: at };
            return Err(Violation::new(anomaly, [*write, witness]));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use mesh_base::Instant;

    use super::*;
    use crate::history::{ClientNo, Stamp};

    fn history(other: u64) -> History {
        let mut history = History::new();
        let key = |name: &'static str| Bytes::from_static(name.as_bytes());
        let put = |stamp| Action::Put(Stamp(stamp));
        let batch = history.invoke_batch(Instant(1), ClientNo(1), [(key("a"), put(1))]);
        history.note_reads(batch, ReadSet { since: Revision(10), keys: vec![key("a"), key("b")] });
        let write = history.invoke(Instant(2), ClientNo(2), key("b"), put(2));
        history.respond(Instant(3), write, Outcome::Written(Revision(other)));
        history.respond_all(Instant(4), batch, Outcome::Written(Revision(20)), None);
        history
    }

    #[test]
    fn a_write_between_the_reads_and_the_transaction_is_found() {
        assert_eq!(check(&history(10)), Ok(()));
        assert_eq!(check(&history(21)), Ok(()));
        let found = check(&history(15)).unwrap_err().anomaly;
        let (since, written, done) = (Revision(10), Revision(15), Revision(20));
        assert_eq!(found, Anomaly::ReadSetChanged { since, written, done });
    }
}
