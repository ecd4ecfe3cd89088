//! What clients asked and were answered, in the order in which it happened: the evidence that the checkers judge.
//!
//! Invariants:
//! - Every invocation and every response has a position of its own. Operation A was over before B began exactly if A's
//!   response is before B's invocation; anything else is concurrent.
//! - Every put carries a stamp that no other put of the history carries, so a read tells which put it saw.
//! - An operation without a response, or with the outcome [`Outcome::Unknown`], may have taken effect, may still do so,
//!   or never will.
//!
//! - The operations of a batch, and the gets of all keys that a range spans, share invocation and response.
//!
//! Deliberately absent: operations whose effect depends on what they find, such as conditional puts:
//! [`search`](crate::search) judges those. Bytes: a value is its stamp and, where it is a list, what the list shows.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use mesh_base::{Instant, Revision};

use crate::counters::{CountId, Counted, Counters};
use crate::lists::{Append, Contents};
use crate::unchanged::ReadSet;

/// A point in the order of all invocations and responses of a history.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Position(pub u64);

impl Position {
    /// After everything: where an outcome that never became known has its response.
    pub const NEVER: Self = Self(u64::MAX);
}

/// An operation of a history.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OpId(usize);

/// A batch of a history: a request of several keys, or a range.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BatchId(usize);

/// Who asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClientNo(pub u64);

/// The mark of one put, which its value carries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Stamp(pub u64);

/// What was asked of one key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Write the value with this stamp.
    Put(Stamp),
    /// Remove the value.
    Delete,
    /// Read the value.
    Get,
}

/// What was answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// A put or delete took effect, once, at this revision.
    Written(Revision),
    /// A delete found nothing to remove.
    NothingRemoved,
    /// A get found the value with this stamp, written at this revision.
    Found(Stamp, Revision),
    /// A get found no value.
    Absent,
    /// No answer, or one that says that the effect is unknown.
    Unknown,
    /// The operation certainly had no effect and never will.
    NotApplied,
}

/// The end of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Response {
    /// When, in the order of the history.
    pub position: Position,
    /// When, in true time.
    pub at: Instant,
    /// How it went.
    pub outcome: Outcome,
    /// The revision that the answer is of, if it says so: nothing of its shard at or below it is missing.
    pub of: Option<Revision>,
}

/// One operation of one client on one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operation {
    /// Who asked.
    pub client: ClientNo,
    /// Of which key.
    pub key: Bytes,
    /// What.
    pub action: Action,
    /// When, in the order of the history.
    pub invoked: Position,
    /// When, in true time.
    pub invoked_at: Instant,
    /// The answer, if there was one.
    pub response: Option<Response>,
}

/// A batch: its operations share invocation and response.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// All puts, all deletes or all gets. Of a range, one get for each key of the run that it spans.
    pub operations: Vec<OpId>,
}

/// What a transaction did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transacted {
    /// At which revision.
    pub revision: Revision,
    /// Whether its puts were part of it.
    pub puts: Puts,
}

/// Whether the puts of a transaction were done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Puts {
    /// They were.
    Done,
    /// A condition did not hold.
    Left,
}

/// All operations of a run.
#[derive(Clone, Default, Debug)]
pub struct History {
    operations: Vec<Operation>,
    keys: BTreeMap<Bytes, Vec<OpId>>,
    batches: Vec<Batch>,
    stamps: BTreeSet<Stamp>,
    appends: BTreeMap<OpId, Append>,
    contents: BTreeMap<OpId, Contents>,
    read_sets: BTreeMap<BatchId, ReadSet>,
    counters: Counters,
    next: u64,
}

impl Operation {
    /// The outcome; unknown while there is none.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.response.map_or(Outcome::Unknown, |response| response.outcome)
    }

    /// The position by which the operation has taken effect, if it does: that of its response, or
    /// [`Position::NEVER`] where the outcome is unknown.
    #[must_use]
    pub fn over(&self) -> Position {
        match self.response {
            Some(response) if response.outcome != Outcome::Unknown => response.position,
            _ => Position::NEVER,
        }
    }
}

impl History {
    /// A history in which nothing has happened.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A client asks at true time `at`.
    ///
    /// # Panics
    /// When a put's stamp was used before: a bug of the caller.
    pub fn invoke(&mut self, at: Instant, client: ClientNo, key: Bytes, action: Action) -> OpId {
        let invoked = self.next_position();
        self.record(Operation { client, key, action, invoked, invoked_at: at, response: None })
    }

    /// A client is answered, or gives up (with [`Outcome::Unknown`]).
    ///
    /// # Panics
    /// When the operation was answered before, or the outcome is not one of its action: bugs of the caller.
    pub fn respond(&mut self, at: Instant, id: OpId, outcome: Outcome) {
        let position = self.next_position();
        self.answer(id, Response { position, at, outcome, of: None });
    }

    /// A client is answered, with the revision that the answer is of.
    ///
    /// # Panics
    /// As [`Self::respond`].
    pub fn respond_of(&mut self, at: Instant, id: OpId, outcome: Outcome, of: Revision) {
        let position = self.next_position();
        self.answer(id, Response { position, at, outcome, of: Some(of) });
    }

    /// A client asks the same of several keys at once. Of a key that is put twice only the later value counts: the
    /// earlier one is a put that is not applied, whatever becomes of the batch.
    pub fn invoke_batch(
        &mut self,
        at: Instant,
        client: ClientNo,
        asked: impl IntoIterator<Item = (Bytes, Action)>,
    ) -> BatchId {
        let invoked = self.next_position();
        let mut operations = Vec::new();
        for (key, action) in asked {
            operations.push(self.record(Operation {
                client,
                key,
                action,
                invoked,
                invoked_at: at,
                response: None,
            }));
        }
        self.batches.push(Batch { operations });
        BatchId(self.batches.len() - 1)
    }

    /// A batch of gets is answered with the keys that were found; the rest of its keys were absent.
    ///
    /// # Panics
    /// When a key was found that was not asked for. The harness rules that out before: a store that answers such a key is
    /// at fault in a way no checker has to judge.
    pub fn respond_found(
        &mut self,
        at: Instant,
        id: BatchId,
        of: Revision,
        found: &[(Bytes, Stamp, Revision)],
    ) {
        let position = self.next_position();
        let found: BTreeMap<&Bytes, Outcome> =
            found.iter().map(|(key, stamp, revision)| (key, Outcome::Found(*stamp, *revision))).collect();
        let mut matched = 0;
        for get in self.of_batch(id).to_vec() {
            let outcome = found.get(&self.get(get).key).copied();
            matched += usize::from(outcome.is_some());
            let outcome = outcome.unwrap_or(Outcome::Absent);
            self.answer(get, Response { position, at, outcome, of: Some(of) });
        }
        assert_eq!(matched, found.len(), "found a key that was not asked for");
    }

    /// A transaction, a batch of puts and gets, is answered. Its puts have its revision, if it did them; its gets found what was there
    /// right before that, those which it answered.
    ///
    /// # Panics
    /// As [`Self::respond`].
    pub fn respond_transaction(
        &mut self,
        at: Instant,
        id: BatchId,
        done: Transacted,
        found: &BTreeMap<Bytes, Outcome>,
    ) {
        let position = self.next_position();
        let before = Revision(done.revision.0.saturating_sub(1));
        for operation in self.of_batch(id).to_vec() {
            let Operation { key, action, .. } = self.get(operation);
            let (outcome, of) = match (action, done.puts) {
                (Action::Get, _) => (found.get(key).copied().unwrap_or(Outcome::Unknown), Some(before)),
                (_, Puts::Done) => (Outcome::Written(done.revision), None),
                (_, Puts::Left) => (Outcome::NotApplied, None),
            };
            self.answer(operation, Response { position, at, outcome, of });
        }
    }

    /// A transaction had read something before it.
    pub fn note_reads(&mut self, batch: BatchId, reads: ReadSet) {
        self.read_sets.insert(batch, reads);
    }

    /// What transactions had read before.
    pub fn read_sets(&self) -> impl Iterator<Item = (&BatchId, &ReadSet)> {
        self.read_sets.iter()
    }

    /// A client asks for an increment of a counter.
    pub fn begin_count(&mut self, key: Bytes) -> CountId {
        let invoked = self.next_position();
        self.counters.begin(key, invoked)
    }

    /// An increment is over.
    pub fn end_count(&mut self, id: CountId, how: Counted) {
        let at = self.next_position();
        self.counters.end(id, at, how);
    }

    /// The counters.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// A batch of writes is answered, or a batch failed, or its client gave up.
    ///
    /// # Panics
    /// As [`Self::respond`].
    pub fn respond_all(&mut self, at: Instant, id: BatchId, outcome: Outcome, of: Option<Revision>) {
        let position = self.next_position();
        let mut keys = BTreeSet::new();
        // From the last on: of a key that comes twice the last counts.
        for operation in self.of_batch(id).to_vec().into_iter().rev() {
            let Operation { key, action, .. } = self.get(operation);
            let counts = *action == Action::Get || keys.insert(key.clone());
            let outcome = if counts { outcome } else { Outcome::NotApplied };
            self.answer(operation, Response { position, at, outcome, of });
        }
    }

    /// A put appends to a list.
    pub fn note_append(&mut self, put: OpId, append: Append) {
        self.appends.insert(put, append);
    }

    /// What a get found is a list that shows this.
    pub fn note_contents(&mut self, get: OpId, contents: Contents) {
        self.contents.insert(get, contents);
    }

    /// One operation.
    #[must_use]
    #[allow(
        clippy::indexing_slicing,
        reason = "an id is only made for an operation, and none is ever removed"
    )]
    pub fn get(&self, id: OpId) -> &Operation {
        &self.operations[id.0]
    }

    /// All operations, in the order of their invocation.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The keys, each with its operations in the order of their invocation.
    pub fn keys(&self) -> impl Iterator<Item = (&Bytes, Vec<&Operation>)> {
        self.keys.iter().map(|(key, ids)| (key, ids.iter().map(|id| self.get(*id)).collect()))
    }

    /// All operations with their ids, in the order of their invocation.
    pub fn iter(&self) -> impl Iterator<Item = (OpId, &Operation)> {
        self.operations.iter().enumerate().map(|(index, operation)| (OpId(index), operation))
    }

    /// The keys, each with the ids of its operations in the order of their invocation.
    pub fn ids_by_key(&self) -> impl Iterator<Item = (&Bytes, &[OpId])> {
        self.keys.iter().map(|(key, ids)| (key, ids.as_slice()))
    }

    /// The operations of one key in the order of their invocation.
    #[must_use]
    pub fn of_key(&self, key: &Bytes) -> Vec<&Operation> {
        self.keys.get(key).map(|ids| ids.iter().map(|id| self.get(*id)).collect()).unwrap_or_default()
    }

    /// The batches and ranges, in the order of their invocation.
    #[must_use]
    pub fn batches(&self) -> &[Batch] {
        &self.batches
    }

    /// The operations of a batch, in the order in which they were asked for.
    #[must_use]
    pub fn of_batch(&self, id: BatchId) -> &[OpId] {
        self.batches.get(id.0).map_or(&[], |batch| &batch.operations)
    }

    /// What a put appends, if it is one to a list.
    #[must_use]
    pub fn append_of(&self, put: OpId) -> Option<&Append> {
        self.appends.get(&put)
    }

    /// What the list shows that a get found, if it found one.
    #[must_use]
    pub fn contents_of(&self, get: OpId) -> Option<&Contents> {
        self.contents.get(&get)
    }

    /// The lists: keys that something was appended to, each with its operations in the order of their invocation.
    pub fn lists(&self) -> impl Iterator<Item = (&Bytes, &[OpId])> {
        let keys: BTreeSet<&Bytes> = self.appends.keys().map(|put| &self.get(*put).key).collect();
        keys.into_iter().filter_map(|key| Some((key, self.keys.get(key)?.as_slice())))
    }

    /// Whether nothing was asked.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    fn record(&mut self, operation: Operation) -> OpId {
        if let Action::Put(stamp) = operation.action {
            assert!(self.stamps.insert(stamp), "{stamp:?} used twice");
        }
        let id = OpId(self.operations.len());
        self.keys.entry(operation.key.clone()).or_default().push(id);
        self.operations.push(operation);
        id
    }

    #[allow(
        clippy::indexing_slicing,
        reason = "an id is only made for an operation, and none is ever removed"
    )]
    fn answer(&mut self, id: OpId, response: Response) {
        let operation = &mut self.operations[id.0];
        assert!(operation.response.is_none(), "answered twice: {operation:?}");
        let fits = match response.outcome {
            Outcome::Unknown | Outcome::NotApplied => true,
            Outcome::Written(_) => operation.action != Action::Get,
            Outcome::NothingRemoved => operation.action == Action::Delete,
            Outcome::Found(..) | Outcome::Absent => operation.action == Action::Get,
        };
        assert!(fits, "{:?} answered with {:?}", operation.action, response.outcome);
        operation.response = Some(response);
    }

    const fn next_position(&mut self) -> Position {
        let position = Position(self.next);
        self.next += 1;
        position
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(stamp) => write!(f, "put {stamp}"),
            Self::Delete => f.write_str("delete"),
            Self::Get => f.write_str("get"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Written(revision) => write!(f, "written at {revision}"),
            Self::NothingRemoved => f.write_str("nothing to remove"),
            Self::Found(stamp, revision) => write!(f, "found {stamp} of {revision}"),
            Self::Absent => f.write_str("found nothing"),
            Self::Unknown => f.write_str("unknown"),
            Self::NotApplied => f.write_str("not applied"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: ClientNo = ClientNo(1);

    fn key(name: &'static str) -> Bytes {
        Bytes::from_static(name.as_bytes())
    }

    #[test]
    fn an_operation_without_an_answer_is_never_over() {
        let mut history = History::new();
        let put = history.invoke(Instant(1), CLIENT, key("a"), Action::Put(Stamp(1)));
        assert_eq!(history.get(put).over(), Position::NEVER);
        history.respond(Instant(2), put, Outcome::Unknown);
        assert_eq!(history.get(put).over(), Position::NEVER);
        let get = history.invoke(Instant(3), CLIENT, key("a"), Action::Get);
        history.respond(Instant(4), get, Outcome::Absent);
        assert_eq!(history.get(get).over(), Position(3));
    }

    #[test]
    fn a_range_is_one_get_for_each_of_its_keys_over_one_interval() {
        let mut history = History::new();
        let gets = ["a", "b"].map(|name| (key(name), Action::Get));
        let range = history.invoke_batch(Instant(1), CLIENT, gets);
        history.respond_found(Instant(2), range, Revision(9), &[(key("b"), Stamp(7), Revision(3))]);
        let outcomes: Vec<_> = history.operations().iter().map(Operation::outcome).collect();
        assert_eq!(outcomes, [Outcome::Absent, Outcome::Found(Stamp(7), Revision(3))]);
        let intervals: BTreeSet<_> = history.operations().iter().map(|it| (it.invoked, it.over())).collect();
        assert_eq!(intervals.len(), 1);
    }

    #[test]
    fn of_a_key_that_a_batch_puts_twice_the_earlier_value_is_not_applied() {
        let mut history = History::new();
        let puts = [("a", 1), ("b", 2), ("a", 3)].map(|(name, stamp)| (key(name), Action::Put(Stamp(stamp))));
        let batch = history.invoke_batch(Instant(1), CLIENT, puts);
        history.respond_all(Instant(2), batch, Outcome::Written(Revision(9)), None);
        let outcomes: Vec<_> = history.operations().iter().map(Operation::outcome).collect();
        let written = Outcome::Written(Revision(9));
        assert_eq!(outcomes, [Outcome::NotApplied, written, written]);
    }

    #[test]
    #[should_panic(expected = "used twice")]
    fn a_stamp_marks_one_put() {
        let mut history = History::new();
        history.invoke(Instant(1), CLIENT, key("a"), Action::Put(Stamp(1)));
        history.invoke(Instant(1), CLIENT, key("b"), Action::Put(Stamp(1)));
    }

    #[test]
    #[should_panic(expected = "answered with")]
    fn an_outcome_fits_its_action() {
        let mut history = History::new();
        let get = history.invoke(Instant(1), CLIENT, key("a"), Action::Get);
        history.respond(Instant(1), get, Outcome::Written(Revision(1)));
    }
}
