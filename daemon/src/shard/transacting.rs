//! Evaluation of transactions at the leader: whether they are done, which branch of them, and what that writes.
//!
//! Invariants:
//! - Everything is judged by one state: what is applied, under everything that was proposed before.
//! - That a transaction was refused is an outcome as any other, in the log: all sendings of it are answered alike.
//! - What a transaction found is not kept. It is read from the versions at its revision, by the first answer as by any later one.

use std::sync::Arc;

use bytes::Bytes;
use mesh_base::flaw::{self, Flaw};
use mesh_base::{Namespace, Now, Revision};
use mesh_engine::effect::Effect;
use mesh_engine::{Attributes, Lookup, Misses, RangeChange, StoreError, Want};
use mesh_wire::Error;
use smallvec::SmallVec;

use super::command::{PutItem, Read, Write};
use super::error::ShardError;
use super::output::Output;
use super::overlay::KeyState;
use super::proposals::{Answer, Waiter};
use super::reading::PendingRead;
use super::replica::Replica;
use super::sessions::Outcome;
use super::transaction::{Action, Branch, Condition, Expect, Operation, Transaction};
use super::writing::Evaluation;

/// What a key is before a transaction.
#[derive(Clone, Debug)]
struct Fact {
    state: Option<KeyState>,
    /// When it was last written or deleted; zero if nothing is known of that.
    changed: Revision,
    /// Its value, where that was asked for.
    value: Bytes,
}

/// Looks keys up, and gathers what is missing.
#[derive(Default)]
pub(super) struct Looking {
    misses: Option<Misses>,
}

impl Looking {
    /// Something is missing.
    pub(super) fn add(&mut self, misses: Misses) {
        match &mut self.misses {
            Some(all) => all.merge(&misses),
            None => self.misses = Some(misses),
        }
    }

    /// What was found, if nothing was missing.
    pub(super) fn end<T>(self, found: T) -> Lookup<T> {
        self.misses.map_or(Lookup::Ready(found), Lookup::Miss)
    }
}

/// What becomes of a transaction.
enum Verdict {
    /// A branch of it is done.
    Do(Branch),
    /// It is refused, and that is kept as its outcome.
    Refuse(Outcome),
    /// It is refused, as it would be at any later time.
    Fail(Error),
}

/// What came of a transaction.
struct Done {
    outcome: Outcome,
    /// The keys that it writes.
    keys: SmallVec<[Bytes; 1]>,
}

impl Done {
    /// It is refused.
    fn nothing(outcome: Outcome) -> Self {
        Self { outcome, keys: SmallVec::new() }
    }
}

impl Replica {
    /// Evaluates a transaction and gathers what it does for the next entry.
    pub(super) fn gather_transaction(
        &mut self,
        now: Now,
        waiter: Waiter,
        write: &Write,
        transaction: &Arc<Transaction>,
        out: &mut Output,
    ) -> Result<Evaluation, ShardError> {
        let verdict = match self.judge(transaction)? {
            Lookup::Ready(verdict) => verdict,
            Lookup::Miss(misses) => return Ok(Evaluation::Miss(misses)),
        };
        let Done { outcome, keys } = match verdict {
            Verdict::Do(branch) => match self.perform(now, transaction, branch)? {
                Lookup::Ready(done) => done,
                Lookup::Miss(misses) => return Ok(Evaluation::Miss(misses)),
            },
            Verdict::Refuse(outcome) => Done::nothing(outcome),
            Verdict::Fail(error) => {
                out.fail(waiter.responder, &error);
                return Ok(Evaluation::Gathered);
            }
        };
        self.gather_outcome(write, outcome, Answer::Transacted(Arc::clone(transaction)), keys, waiter);
        Ok(Evaluation::Gathered)
    }

    /// Decides by the read set and the conditions.
    fn judge(&mut self, transaction: &Transaction) -> Result<Lookup<Verdict>, ShardError> {
        let mut looking = Looking::default();
        let mut broken = None;
        for (at, condition) in transaction.conditions.iter().enumerate() {
            let want = match condition.expect {
                Expect::Value(_) => Want::Value,
                _ => Want::Head,
            };
            if let Some(fact) = self.fact(&condition.key, want, &mut looking)?
                && broken.is_none()
                && !holds(condition, &fact)
            {
                broken = Some((at, fact));
            }
        }
        let conflict = match self.changed_read(transaction, &mut looking)? {
            Ok(conflict) => conflict,
            Err(error) => return Ok(looking.end(Verdict::Fail(error))),
        };
        let verdict = match (conflict, broken) {
            (Some((at, changed)), _) => refusal(transaction.conditions.len() + at, changed),
            (None, None) => Verdict::Do(Branch::Operations),
            (None, Some(_)) if transaction.otherwise.is_some() => Verdict::Do(Branch::Otherwise),
            (None, Some((at, fact))) => {
                refusal(at, fact.state.map_or(Revision::ZERO, |state| state.revision))
            }
        };
        Ok(looking.end(verdict))
    }

    /// The first key or range of the read set that was changed since it was read: which of them, and when.
    fn changed_read(
        &mut self,
        transaction: &Transaction,
        looking: &mut Looking,
    ) -> Result<Result<Option<(usize, Revision)>, Error>, ShardError> {
        let since = transaction.reads_at;
        if transaction.reads.is_empty() && transaction.ranges.is_empty() {
            return Ok(Ok(None));
        }
        if since > self.newest {
            let what = "reads_at is a revision that this shard has not come to".into();
            return Ok(Err(Error::Malformed { what }));
        }
        let oldest = self.state.store.horizon();
        if since < oldest {
            return Ok(Err(Error::Compacted { oldest }));
        }
        let mut conflict = None;
        for (at, key) in transaction.reads.iter().enumerate() {
            if let Some(fact) = self.fact(key, Want::Head, looking)?
                && fact.changed > since
            {
                conflict = conflict.or(Some((at, fact.changed)));
            }
        }
        for (at, range) in transaction.ranges.iter().enumerate() {
            if flaw::is_planted(Flaw::SkipRangeCheck) {
                break;
            }
            let place = transaction.reads.len() + at;
            if let Some((_, revision)) = self.proposals.written_in(range) {
                conflict = conflict.or(Some((place, revision)));
                continue;
            }
            match self.state.store.change_after(Namespace::USER, &range.from, range.end(), since) {
                Ok(Lookup::Ready(RangeChange::Nothing)) => {}
                Ok(Lookup::Ready(RangeChange::Key(_, revision))) => {
                    conflict = conflict.or(Some((place, revision)));
                }
                Ok(Lookup::Ready(RangeChange::TooMuch)) => {
                    let what = "a range in which so much was written that changes cannot be told".into();
                    return Ok(Err(Error::Malformed { what }));
                }
                Ok(Lookup::Miss(misses)) => looking.add(misses),
                Err(StoreError::Compacted { oldest }) => return Ok(Err(Error::Compacted { oldest })),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Ok(conflict))
    }

    /// Gathers the effects of a branch.
    fn perform(
        &mut self,
        now: Now,
        transaction: &Transaction,
        branch: Branch,
    ) -> Result<Lookup<Done>, ShardError> {
        let operations = transaction.branch(branch);
        let mut looking = Looking::default();
        let mut facts = Vec::with_capacity(operations.len());
        for operation in operations {
            let want = match operation.action {
                Action::Increment { .. } => Want::Value,
                _ => Want::Head,
            };
            facts.push(match operation.action {
                Action::Get => None,
                _ => self.fact(&operation.key, want, &mut looking)?,
            });
        }
        if let Some(misses) = looking.misses {
            return Ok(Lookup::Miss(misses));
        }
        let mut sums = Vec::with_capacity(operations.len());
        for (at, (operation, fact)) in operations.iter().zip(&facts).enumerate() {
            let sum = sum_of(operation, fact.as_ref());
            let Ok(sum) = sum else {
                let before = if branch == Branch::Otherwise { transaction.operations.len() } else { 0 };
                let revision = fact.as_ref().map_or(Revision::ZERO, |fact| fact.changed);
                let code = u16::from(WRONG_TYPE.code());
                let count = u32::try_from(before + at).unwrap_or(u32::MAX);
                return Ok(Lookup::Ready(Done::nothing(Outcome { revision, count, code })));
            };
            sums.push(sum);
        }
        let revision = self.next_revision(now);
        let mut keys = SmallVec::new();
        for ((operation, fact), sum) in operations.iter().zip(facts).zip(sums) {
            let before = fact.and_then(|fact| fact.state);
            let key = operation.key.clone();
            let item = match (&operation.action, sum) {
                (Action::Put { value, type_tag, .. }, _) => {
                    Some(PutItem { key, value: value.clone(), type_tag: *type_tag })
                }
                (_, Some(value)) => Some(PutItem { key, value, type_tag: 0 }),
                (Action::Delete { .. }, None) if before.is_some() => None,
                (_, None) => continue,
            };
            match item {
                Some(item) => self.gather_put(&item, revision, before, revision),
                None => self.gather_delete(&operation.key, revision),
            }
            keys.push(operation.key.clone());
        }
        let outcome = Outcome { revision, count: number_of(branch), code: 0 };
        Ok(Lookup::Ready(Done { outcome, keys }))
    }

    /// Gathers a version of a key that is stored at a revision, its own.
    pub(super) fn gather_put(
        &mut self,
        item: &PutItem,
        revision: Revision,
        before: Option<KeyState>,
        stored: Revision,
    ) {
        let PutItem { key, value, type_tag } = item;
        let create_revision = before.map_or(revision, |state| state.create_revision);
        let version = before.map_or(1, |state| state.version + 1);
        let mut attributes = Attributes::created(create_revision);
        attributes.version = version;
        attributes.type_tag = *type_tag;
        self.builder.push(&Effect::Put {
            namespace: Namespace::USER,
            key,
            revision: stored,
            attributes,
            value,
        });
        let state = KeyState { revision, create_revision, version };
        self.overlay.push(key.clone(), revision, Some(state), value.clone());
    }

    /// Gathers the deletion of a key that exists.
    pub(super) fn gather_delete(&mut self, key: &Bytes, revision: Revision) {
        self.builder.push(&Effect::Delete { namespace: Namespace::USER, key, revision });
        self.overlay.push(key.clone(), revision, None, Bytes::new());
    }

    /// What a key is, as of everything proposed so far; nothing if pages are missing.
    fn fact(&self, key: &[u8], want: Want, looking: &mut Looking) -> Result<Option<Fact>, ShardError> {
        if let Some(pending) = self.overlay.newest(key)
            && !flaw::is_planted(Flaw::ConditionIgnoresPending)
        {
            let (state, changed, value) = (pending.state, pending.revision, pending.value.clone());
            return Ok(Some(Fact { state, changed, value }));
        }
        let found = match self.state.store.get(Namespace::USER, key, Revision::MAX, want)? {
            Lookup::Ready(found) => found,
            Lookup::Miss(misses) => {
                looking.add(misses);
                return Ok(None);
            }
        };
        let changed = found.revision().unwrap_or(Revision::ZERO);
        let version = found.live();
        let value = match (want, &version) {
            (Want::Value, Some(version)) => version.value.to_vec().into(),
            _ => Bytes::new(),
        };
        Ok(Some(Fact { state: version.as_ref().map(KeyState::of), changed, value }))
    }

    /// Reads what a transaction found, for those who wait for it.
    pub(super) fn read_results(
        &mut self,
        transaction: &Arc<Transaction>,
        branch: Branch,
        revision: Revision,
        waiters: &[Waiter],
    ) {
        for waiter in waiters {
            let read = Read::Transacted { transaction: Arc::clone(transaction), branch, revision };
            self.reads.push_proven(self.state.applied.index, PendingRead::new(*waiter, read));
        }
    }
}

/// The branch of a transaction that was done, if it found something that is to be told.
pub(super) fn found_by(transaction: &Transaction, outcome: Outcome) -> Option<Branch> {
    branch_of(transaction, outcome).ok().filter(|branch| transaction.finds(*branch))
}

/// A branch, in the words of the protocol.
pub(super) const fn on_wire(branch: Branch) -> mesh_wire::Branch {
    match branch {
        Branch::Operations => mesh_wire::Branch::Operations,
        Branch::Otherwise => mesh_wire::Branch::Otherwise,
    }
}

/// Names the code; what goes with it follows from the transaction.
const WRONG_TYPE: Error = Error::WrongType { key: Bytes::new(), what: std::borrow::Cow::Borrowed("") };
const CONFLICT: Error = Error::Conflict { key: Bytes::new(), revision: Revision::ZERO };

/// The number of a branch in an outcome.
const fn number_of(branch: Branch) -> u32 {
    match branch {
        Branch::Operations => 1,
        Branch::Otherwise => 2,
    }
}

/// The branch that was done, or why none was.
pub(super) fn branch_of(transaction: &Transaction, outcome: Outcome) -> Result<Branch, Error> {
    let at = usize::try_from(outcome.count).unwrap_or(usize::MAX);
    match outcome.code {
        0 if outcome.count == number_of(Branch::Otherwise) => Ok(Branch::Otherwise),
        0 => Ok(Branch::Operations),
        code if code == u16::from(WRONG_TYPE.code()) => {
            let key = transaction.all_operations().nth(at).map(|operation| operation.key.clone());
            let what = "no decimal number of 64 bits, or too great for what was to be added".into();
            Err(Error::WrongType { key: key.unwrap_or_default(), what })
        }
        _ => {
            let conditions = transaction.conditions.iter().map(|condition| &condition.key);
            let ranges = transaction.ranges.iter().map(|range| &range.from);
            let key = conditions.chain(&transaction.reads).chain(ranges).nth(at).cloned();
            Err(Error::Conflict { key: key.unwrap_or_default(), revision: outcome.revision })
        }
    }
}

fn refusal(at: usize, revision: Revision) -> Verdict {
    let (count, code) = (u32::try_from(at).unwrap_or(u32::MAX), u16::from(CONFLICT.code()));
    Verdict::Refuse(Outcome { revision, count, code })
}

fn holds(condition: &Condition, fact: &Fact) -> bool {
    match (&condition.expect, fact.state) {
        (Expect::Absent, state) => state.is_none(),
        (_, None) => false,
        (Expect::Exists, Some(_)) => true,
        (Expect::Revision(revision), Some(state)) => state.revision == *revision,
        (Expect::Version(version), Some(state)) => state.version == *version,
        (Expect::Value(value), Some(_)) => fact.value == *value,
    }
}

/// What an increment writes; nothing for other operations.
fn sum_of(operation: &Operation, fact: Option<&Fact>) -> Result<Option<Bytes>, NotANumber> {
    let Action::Increment { delta } = operation.action else { return Ok(None) };
    let before = match fact.filter(|fact| fact.state.is_some()) {
        Some(fact) => number(&fact.value).ok_or(NotANumber)?,
        None => 0,
    };
    let sum = before.checked_add(delta).ok_or(NotANumber)?;
    Ok(Some(sum.to_string().into()))
}

/// The value does not count, or the sum would not.
struct NotANumber;

/// The number that a value is: decimal digits, behind a sign if it is negative.
fn number(value: &[u8]) -> Option<i64> {
    let is_plain = !value.starts_with(b"+");
    std::str::from_utf8(value).ok().filter(|_| is_plain)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_decimal_and_nothing_else_is_one() {
        assert_eq!((number(b"0"), number(b"-17"), number(b"007")), (Some(0), Some(-17), Some(7)));
        assert_eq!(number(b"9223372036854775807"), Some(i64::MAX));
        for other in ["", "+1", " 1", "1 ", "1.0", "0x1", "9223372036854775808", "-"] {
            assert_eq!(number(other.as_bytes()), None, "{other:?}");
        }
    }
}
