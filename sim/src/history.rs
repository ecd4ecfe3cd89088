//! What clients asked and were answered, in the order in which it happened: the evidence that the checkers judge.
//!
//! Invariants:
//! - Every invocation and every response has a position of its own. Operation A was over before B began exactly if A's
//!   response is before B's invocation; anything else is concurrent.
//! - Every put carries a stamp that no other put of the history carries, so a read tells which put it saw.
//! - An operation without a response, or with the outcome [`Outcome::Unknown`], may have taken effect, may still do so,
//!   or never will.
//!
//! Deliberately absent: batches (each operation of a batch is recorded by itself, over the batch's interval), and
//! operations whose effect depends on what they find, such as conditional puts: [`search`](crate::search) judges those.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use mesh_base::{Instant, Revision};

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

/// A range read of a history: the gets of all keys that the range spans, answered at once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RangeId(usize);

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

/// A range read: its gets share invocation and response.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RangeRead {
    /// One get for each key of the run that the range spans.
    pub gets: Vec<OpId>,
}

/// All operations of a run.
#[derive(Clone, Default, Debug)]
pub struct History {
    operations: Vec<Operation>,
    keys: BTreeMap<Bytes, Vec<OpId>>,
    ranges: Vec<RangeRead>,
    stamps: BTreeSet<Stamp>,
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
        self.answer(id, Response { position, at, outcome });
    }

    /// A client asks for a range. `keys` are all keys of the run that lie inside it, whether they have values or not.
    pub fn invoke_range(&mut self, at: Instant, client: ClientNo, keys: &[Bytes]) -> RangeId {
        let invoked = self.next_position();
        let get = |key: &Bytes| Operation {
            client,
            key: key.clone(),
            action: Action::Get,
            invoked,
            invoked_at: at,
            response: None,
        };
        let gets = keys.iter().map(|key| self.record(get(key))).collect();
        self.ranges.push(RangeRead { gets });
        RangeId(self.ranges.len() - 1)
    }

    /// A range is answered with the keys that were found; the rest of its keys were absent.
    ///
    /// # Panics
    /// When a key was found that the range was not asked for. The harness rules that out before: a store that answers
    /// such a key is at fault in a way no checker has to judge.
    pub fn respond_range(&mut self, at: Instant, id: RangeId, found: &[(Bytes, Stamp, Revision)]) {
        let position = self.next_position();
        let found: BTreeMap<&Bytes, Outcome> =
            found.iter().map(|(key, stamp, revision)| (key, Outcome::Found(*stamp, *revision))).collect();
        let mut matched = 0;
        for get in self.gets(id) {
            let outcome = found.get(&self.get(get).key).copied();
            matched += usize::from(outcome.is_some());
            self.answer(get, Response { position, at, outcome: outcome.unwrap_or(Outcome::Absent) });
        }
        assert_eq!(matched, found.len(), "found a key outside of the range");
    }

    /// A range read failed, or its client gave up.
    pub fn abandon_range(&mut self, at: Instant, id: RangeId) {
        let position = self.next_position();
        for get in self.gets(id) {
            self.answer(get, Response { position, at, outcome: Outcome::Unknown });
        }
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

    /// The operations of one key in the order of their invocation.
    #[must_use]
    pub fn of_key(&self, key: &Bytes) -> Vec<&Operation> {
        self.keys.get(key).map(|ids| ids.iter().map(|id| self.get(*id)).collect()).unwrap_or_default()
    }

    /// The range reads.
    #[must_use]
    pub fn ranges(&self) -> &[RangeRead] {
        &self.ranges
    }

    /// Whether nothing was asked.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    fn gets(&self, id: RangeId) -> Vec<OpId> {
        self.ranges.get(id.0).map(|range| range.gets.clone()).unwrap_or_default()
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
        let range = history.invoke_range(Instant(1), CLIENT, &[key("a"), key("b")]);
        history.respond_range(Instant(2), range, &[(key("b"), Stamp(7), Revision(3))]);
        let outcomes: Vec<_> = history.operations().iter().map(Operation::outcome).collect();
        assert_eq!(outcomes, [Outcome::Absent, Outcome::Found(Stamp(7), Revision(3))]);
        let intervals: BTreeSet<_> = history.operations().iter().map(|it| (it.invoked, it.over())).collect();
        assert_eq!(intervals.len(), 1);
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
