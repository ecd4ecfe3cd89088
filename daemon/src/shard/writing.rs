//! Evaluation: from what a client asks to what is to be written, at the leader, before it is proposed.
//!
//! Invariants:
//! - What is evaluated sees everything proposed before it: the applied state under the overlay.
//! - Everything gathered into one entry is proposed in the turn it was evaluated in, or given up together.
//! - A write whose session knows it is answered from the session and not evaluated again.

use std::sync::Arc;

use bytes::Bytes;
use mesh_base::flaw::{self, Flaw};
use mesh_base::limits::{ENTRY_BYTES_MAX, ENTRY_BYTES_SOFT_MAX, SESSION_WINDOW_MAX, UNCOMMITTED_BYTES_MAX};
use mesh_base::{LogIndex, Namespace, Now, Revision, SessionSeq, Term};
use mesh_engine::effect::{Effect, EntryHead, Outcome as EntryOutcome};
use mesh_engine::{GROUP_KEYS, KeyAt, Lookup, Misses, Want};
use mesh_raftlog::Space;
use mesh_wire::{
    Deleted, Error, List, NodeState, ReplaceAnswer, Response, SessionOpened, Transacted, Written,
};
use smallvec::{SmallVec, smallvec};

use super::command::{Change, Command, PutItem, Request, Write};
use super::error::ShardError;
use super::output::{News, Output};
use super::overlay::KeyState;
use super::proposals::{Answer, EvaluatedWrite, RequestKey, Waiter};
use super::reading::PendingRead;
use super::replica::{Parked, Replica};
use super::sessions::{Admission, Outcome};
use super::state::{DIRECTORY_KEY, session_at};
use super::transacting::{Looking, branch_of, found_by, on_wire};
use crate::core::NodeName;
use crate::node::directory::{DirectoryError, Standing};

/// A request to change something, on its way to evaluation.
#[derive(Debug)]
pub(super) struct PendingWrite {
    pub(super) waiter: Waiter,
    pub(super) command: WriteCommand,
}

impl PendingWrite {
    /// The key of a write to one.
    fn one_key(&self) -> Option<&[u8]> {
        let WriteCommand::Write(write) = &self.command else { return None };
        match &write.change {
            Change::Put(items) => items.first().filter(|_| items.len() == 1).map(|item| item.key.as_ref()),
            Change::Delete(keys) => keys.first().filter(|_| keys.len() == 1).map(AsRef::as_ref),
            Change::Transact(_) => None,
        }
    }
}

/// What a key is in the store.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen(Option<KeyState>);

impl Seen {
    fn of(found: KeyAt<'_>) -> Self {
        Self(found.live().as_ref().map(KeyState::of))
    }
}

#[derive(Debug)]
pub(super) enum WriteCommand {
    Write(Write),
    OpenSession { nonce: u64 },
    ReplaceNode { name: NodeName, nonce: u64 },
}

/// What became of an attempt to evaluate.
pub(super) enum Evaluation {
    /// It is gathered for the next entry.
    Gathered,
    /// Pages are missing and nothing happened.
    Miss(Misses),
}

impl Replica {
    /// Hands a request of a leader to its half.
    pub(super) fn dispatch(&mut self, now: Now, request: Request) {
        let waiter = Waiter { responder: request.responder, deadline: request.deadline };
        let command = match request.command {
            Command::Read(read) => {
                let read = PendingRead::new(waiter, read);
                if self.may_read_at_once(now) {
                    self.reads.push_proven(self.commit(), read);
                } else {
                    self.reads.push(read);
                }
                return;
            }
            Command::Write(write) => WriteCommand::Write(write),
            Command::OpenSession { nonce } => WriteCommand::OpenSession { nonce },
            Command::ReplaceNode { name, nonce } => WriteCommand::ReplaceNode { name, nonce },
        };
        self.waiting.push(PendingWrite { waiter, command });
    }

    /// Evaluates the writes that wait for it, if that is possible.
    pub(super) fn evaluate_waiting(&mut self, now: Now, out: &mut Output) -> Result<(), ShardError> {
        if self.waiting.is_empty() || !self.may_evaluate() {
            return Ok(());
        }
        let mut writes = std::mem::take(&mut self.waiting).into_iter();
        loop {
            let group: Vec<_> = writes.by_ref().take(GROUP_KEYS).collect();
            if group.is_empty() {
                return Ok(());
            }
            let seen = self.look_up(&group)?;
            for (write, seen) in group.into_iter().zip(seen) {
                self.evaluate(now, write, seen, out)?;
            }
        }
    }

    /// What the keys of writes are in the store, as far as pages in memory tell: looked up together, so that waits for main
    /// memory go on side by side. Only of writes to one key.
    fn look_up(&self, writes: &[PendingWrite]) -> Result<Vec<Option<Seen>>, ShardError> {
        let keys: Vec<_> =
            writes.iter().filter_map(PendingWrite::one_key).map(|key| (key, Revision::MAX)).collect();
        let mut found = self.state.store.get_group(Namespace::USER, &keys, Want::Head)?.into_iter();
        let seen = |write: &PendingWrite| write.one_key().and_then(|_| found.next()?.ready()).map(Seen::of);
        Ok(writes.iter().map(seen).collect())
    }

    /// Evaluates a write, or keeps it until that is possible. Its key may have been seen in the store as that is now.
    pub(super) fn evaluate(
        &mut self,
        now: Now,
        write: PendingWrite,
        seen: Option<Seen>,
        out: &mut Output,
    ) -> Result<(), ShardError> {
        if self.leading.is_none() {
            let error = self.not_leader(now);
            out.fail(write.waiter.responder, &error);
            return Ok(());
        }
        if !self.may_evaluate() {
            self.waiting.push(write);
            return Ok(());
        }
        // A copy of what was taken is answered as such, whatever keeps new ones out.
        let is_new = match &write.command {
            WriteCommand::Write(command) => self.admit(write.waiter, command, out),
            WriteCommand::OpenSession { nonce } => self.admit_opening(write.waiter, *nonce, out),
            WriteCommand::ReplaceNode { .. } => true,
        };
        if !is_new {
            return Ok(());
        }
        if let Some(error) = self.refusal().or_else(|| self.refusal_of(&write.command)) {
            out.fail(write.waiter.responder, &error);
            return Ok(());
        }
        match &write.command {
            WriteCommand::Write(command) => {
                if self.builder.byte_size() + command.change.bytes() > ENTRY_BYTES_SOFT_MAX {
                    self.propose_gathered(out)?;
                }
                match self.gather_write(now, write.waiter, command, seen, out)? {
                    Evaluation::Gathered => {}
                    Evaluation::Miss(misses) => {
                        self.park(&misses, Parked::Write(write), out);
                        return Ok(());
                    }
                }
            }
            WriteCommand::OpenSession { nonce } => self.gather_session(now, write.waiter, *nonce),
            WriteCommand::ReplaceNode { name, nonce } => {
                self.gather_replacement(write.waiter, name, *nonce, out);
            }
        }
        if self.builder.byte_size() >= ENTRY_BYTES_SOFT_MAX {
            self.propose_gathered(out)?;
        }
        Ok(())
    }

    /// A copy of a write that was never evaluated here waits no longer. Another copy may have been.
    pub(super) fn give_up_write(&mut self, write: &PendingWrite, out: &mut Output) {
        let sessions = &self.state.sessions;
        let was_taken = match &write.command {
            WriteCommand::Write(Write { id, acknowledged_below, .. }) => {
                self.proposals.is_in_flight(RequestKey::Write(*id))
                    || sessions.admit(*id, *acknowledged_below) != Admission::New
            }
            WriteCommand::OpenSession { nonce } => {
                self.proposals.is_in_flight(RequestKey::Opening { nonce: *nonce })
                    || sessions.opened_by(*nonce).is_some()
            }
            WriteCommand::ReplaceNode { .. } => false,
        };
        let error = if was_taken { Error::Unknown } else { Error::DeadlineExceeded };
        out.fail(write.waiter.responder, &error);
    }

    /// Why no write is taken at present.
    fn refusal(&self) -> Option<Error> {
        if self.raw.store().space() == Space::Full || self.checkpointing.is_out_of_space() {
            Some(Error::NoSpace)
        } else if self.bytes_proposed() >= UNCOMMITTED_BYTES_MAX || self.is_out_of_memory() {
            Some(Error::Overloaded { retry_after_ms: 10 })
        } else if self.raw.raft.lead_transferee.is_some() {
            Some(Error::Overloaded { retry_after_ms: 20 })
        } else {
            None
        }
    }

    /// Why this write is not taken at present: a session, where too many are open and the eviction of some is under way.
    fn refusal_of(&self, command: &WriteCommand) -> Option<Error> {
        let sessions = self.state.sessions.len() + self.proposals.openings();
        let is_opening = matches!(command, WriteCommand::OpenSession { .. });
        let is_full = is_opening && sessions >= self.options.sessions_full();
        is_full.then_some(Error::Overloaded { retry_after_ms: 20 })
    }

    /// Whether a write is new. If it is not, it is answered, or waits for the copy that is in flight.
    fn admit(&mut self, waiter: Waiter, write: &Write, out: &mut Output) -> bool {
        let error = match self.state.sessions.admit(write.id, write.acknowledged_below) {
            Admission::New if self.proposals.join(RequestKey::Write(write.id), waiter) => return false,
            Admission::New => return true,
            Admission::Done(_) if flaw::is_planted(Flaw::RepeatRetriedWrite) => {
                return !self.proposals.join(RequestKey::Write(write.id), waiter);
            }
            Admission::Done(outcome) => {
                let answer = match &write.change {
                    Change::Put(_) => Answer::Written,
                    Change::Delete(_) => Answer::Deleted,
                    Change::Transact(transaction) => Answer::Transacted(Arc::clone(transaction)),
                };
                self.answer_done(&answer, outcome, &[waiter], out);
                return false;
            }
            Admission::Forgotten => {
                Error::Malformed { what: "the write's number is below acknowledged_below".into() }
            }
            Admission::WindowFull => {
                Error::SessionWindow { limit: u32::try_from(SESSION_WINDOW_MAX).unwrap_or(u32::MAX) }
            }
            Admission::NeverOpened => Error::UnknownSession,
            Admission::Evicted => Error::Unknown,
        };
        out.fail(waiter.responder, &error);
        false
    }

    /// Whether the opening of a session is new. If it is not, it is answered, or waits for the copy that is in flight.
    fn admit_opening(&mut self, waiter: Waiter, nonce: u64, out: &mut Output) -> bool {
        if let Some(session) = self.state.sessions.opened_by(nonce)
            && !flaw::is_planted(Flaw::OpenSessionTwice)
        {
            let outcome = Outcome { revision: session.0, count: 0, code: 0 };
            answer_write(&Answer::SessionOpened(session), outcome, &[waiter], out);
            return false;
        }
        !self.proposals.join(RequestKey::Opening { nonce }, waiter)
    }

    fn gather_write(
        &mut self,
        now: Now,
        waiter: Waiter,
        write: &Write,
        seen: Option<Seen>,
        out: &mut Output,
    ) -> Result<Evaluation, ShardError> {
        let (answer, revision, keys) = match &write.change {
            Change::Put(items) => {
                let states = match self.key_states(items.iter().map(|item| &item.key), seen)? {
                    Lookup::Ready(states) => states,
                    Lookup::Miss(misses) => return Ok(Evaluation::Miss(misses)),
                };
                let revision = self.next_revision(now);
                (Answer::Written, revision, self.gather_puts(now, revision, items, &states))
            }
            Change::Delete(keys) => {
                let states = match self.key_states(keys.iter(), seen)? {
                    Lookup::Ready(states) => states,
                    Lookup::Miss(misses) => return Ok(Evaluation::Miss(misses)),
                };
                let revision = self.next_revision(now);
                (Answer::Deleted, revision, self.gather_deletes(revision, keys, &states))
            }
            Change::Transact(transaction) => {
                return self.gather_transaction(now, waiter, write, transaction, out);
            }
        };
        let count = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        self.gather_outcome(write, Outcome { revision, count, code: 0 }, answer, keys, waiter);
        Ok(Evaluation::Gathered)
    }

    /// Gathers how a write ends, beside the effects that were gathered for it.
    pub(super) fn gather_outcome(
        &mut self,
        write: &Write,
        outcome: Outcome,
        answer: Answer,
        keys: SmallVec<[Bytes; 1]>,
        waiter: Waiter,
    ) {
        self.builder.push_outcome(&EntryOutcome {
            session: write.id.session,
            seq: write.id.seq,
            acknowledged_below: write.acknowledged_below.max(SessionSeq(1)),
            code: outcome.code,
            revision: outcome.revision,
            count: outcome.count,
        });
        self.proposals.gather(EvaluatedWrite {
            key: Some(RequestKey::Write(write.id)),
            outcome,
            answer,
            keys,
            waiters: smallvec![waiter],
        });
    }

    /// The states of keys as of everything proposed so far. An only key may have been seen.
    fn key_states<'k>(
        &mut self,
        keys: impl Iterator<Item = &'k Bytes>,
        seen: Option<Seen>,
    ) -> Result<Lookup<SmallVec<[Option<KeyState>; 1]>>, ShardError> {
        let mut states = SmallVec::new();
        let mut looking = Looking::default();
        for key in keys {
            if let Some(pending) = self.overlay.newest(key) {
                states.push(pending.state);
                continue;
            }
            if let Some(Seen(state)) = seen {
                states.push(state);
                continue;
            }
            match self.state.store.get(Namespace::USER, key, Revision::MAX, Want::Head)? {
                Lookup::Ready(read) => states.push(Seen::of(read).0),
                Lookup::Miss(misses) => looking.add(misses),
            }
        }
        Ok(looking.end(states))
    }

    fn gather_puts(
        &mut self,
        now: Now,
        revision: Revision,
        items: &[PutItem],
        states: &[Option<KeyState>],
    ) -> SmallVec<[Bytes; 1]> {
        for (at, (item, before)) in items.iter().zip(states).enumerate() {
            let is_split = at > 0 && flaw::is_planted(Flaw::SplitBatch);
            let stored = if is_split { self.next_revision(now) } else { revision };
            self.gather_put(item, revision, *before, stored);
        }
        items.iter().map(|item| item.key.clone()).collect()
    }

    /// Keys that do not exist are left alone. Returns those that do.
    fn gather_deletes(
        &mut self,
        revision: Revision,
        keys: &[Bytes],
        states: &[Option<KeyState>],
    ) -> SmallVec<[Bytes; 1]> {
        let existing =
            keys.iter().zip(states).filter(|(_, state)| state.is_some()).map(|(key, _)| key.clone());
        let existing: SmallVec<[Bytes; 1]> = existing.collect();
        for key in &existing {
            self.gather_delete(key, revision);
        }
        existing
    }

    fn gather_session(&mut self, now: Now, waiter: Waiter, nonce: u64) {
        let revision = self.next_revision(now);
        let session = session_at(revision);
        self.builder.push(&Effect::SessionOpen { session, nonce });
        self.proposals.gather(EvaluatedWrite {
            key: (nonce != 0).then_some(RequestKey::Opening { nonce }),
            outcome: Outcome { revision, count: 0, code: 0 },
            answer: Answer::SessionOpened(session),
            keys: smallvec![],
            waiters: smallvec![waiter],
        });
    }

    /// Gives a node a new id, if it has not one that is waiting to be fetched, or was given one by this very request.
    fn gather_replacement(&mut self, waiter: Waiter, name: &NodeName, nonce: u64, out: &mut Output) {
        let Some(current) = self.state.directory.clone() else {
            let what = "only shard 0 changes the membership".into();
            out.fail(waiter.responder, &Error::Malformed { what });
            return;
        };
        if self.directory_pending {
            out.fail(waiter.responder, &Error::Overloaded { retry_after_ms: 50 });
            return;
        }
        if let Some(entry) = current.by_name(name)
            && (entry.standing == Standing::Expected || nonce != 0 && entry.replacement == nonce)
        {
            let outcome = Outcome { revision: self.state.newest, count: 0, code: 0 };
            answer_write(&Answer::NodeReplaced(entry.node), outcome, &[waiter], out);
            return;
        }
        match current.replaced(name, nonce) {
            Ok(next) => {
                let node = next.by_name(name).map(|entry| entry.node).unwrap_or_default();
                self.gather_directory(&next.encode(), Answer::NodeReplaced(node), smallvec![waiter]);
            }
            Err(DirectoryError::NoSuchNode(_) | DirectoryError::AlreadyJoined(_)) => {
                let what = format!("node named `{name}` in this cluster").into();
                out.fail(waiter.responder, &Error::NotFound { what });
            }
        }
    }

    /// A node that was replaced asks for its id, or one that moved tells its address: the leader of shard 0 sees to it.
    pub(super) fn on_admission(
        &mut self,
        name: &NodeName,
        address: &str,
        attempt: Option<u64>,
        out: &mut Output,
    ) -> Result<(), ShardError> {
        let Some(current) = self.state.directory.clone() else { return Ok(()) };
        if !self.may_evaluate() || self.directory_pending || self.refusal().is_some() {
            return Ok(());
        }
        let next = match attempt {
            Some(attempt) => current.joined(name, address, attempt),
            None => current.moved(name, address),
        };
        match next {
            Ok(next) if next.version() > current.version() => {
                self.gather_directory(&next.encode(), Answer::Admitted, smallvec![]);
                self.propose_gathered(out)
            }
            Ok(_) => {
                if let Some(attempt) = attempt {
                    let name = name.clone();
                    out.news.push(News::Joined { directory: current, name, attempt });
                }
                Ok(())
            }
            Err(error) => {
                tracing::warn!(%error, "a node was not admitted");
                Ok(())
            }
        }
    }

    fn gather_directory(&mut self, record: &[u8], answer: Answer, waiters: SmallVec<[Waiter; 1]>) {
        self.directory_pending = true;
        self.builder.push(&Effect::System { key: DIRECTORY_KEY, value: Some(record) });
        self.gather_own(self.newest, answer, waiters);
    }

    /// Gathers an effect that belongs to no session.
    pub(super) fn gather_own(&mut self, revision: Revision, answer: Answer, waiters: SmallVec<[Waiter; 1]>) {
        let outcome = Outcome { revision, count: 0, code: 0 };
        self.proposals.gather(EvaluatedWrite { key: None, outcome, answer, keys: smallvec![], waiters });
    }

    /// A revision above all that were ever assigned in this shard, and not behind the clock.
    pub(super) fn next_revision(&mut self, now: Now) -> Revision {
        let is_behind = self.newest.unix_ms() > now.wall.0;
        let last = match is_behind && flaw::is_planted(Flaw::RevisionByClock) {
            true => Revision::ZERO,
            false => self.newest,
        };
        self.newest = last.after(now.wall.0, self.identity.shard);
        self.evaluated_at = now.wall;
        self.newest
    }

    /// Proposes what was gathered as one entry.
    pub(super) fn propose_gathered(&mut self, out: &mut Output) -> Result<(), ShardError> {
        if !self.proposals.has_gathered() {
            return Ok(());
        }
        let Some(leading) = self.leading else {
            self.give_up_gathered(&Error::NotLeader { shard: self.identity.shard, leader: None }, out);
            return Ok(());
        };
        assert!(self.raw.raft.term == leading.term.0, "gathered in one term, proposed in another");
        let payload =
            self.builder.finish(EntryHead { revision_high: self.newest, wall_ms: self.evaluated_at.0 });
        let bytes = payload.len();
        assert!(bytes <= ENTRY_BYTES_MAX, "an entry of {bytes} bytes fits no frame");
        match self.raw.propose(Vec::new(), payload.into()) {
            Ok(()) => {
                let index = LogIndex(self.raw.raft.raft_log.last_index());
                self.proposals.proposed(index, Term(leading.term.0), bytes);
                self.history.wrote(bytes);
                Ok(())
            }
            Err(raft::Error::ProposalDropped) => {
                self.give_up_gathered(&Error::Overloaded { retry_after_ms: 20 }, out);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Answers what was gathered and not proposed: it certainly will not be applied.
    pub(super) fn give_up_gathered(&mut self, error: &Error, out: &mut Output) {
        self.builder.clear();
        for write in self.proposals.give_up_gathered() {
            for key in &write.keys {
                self.overlay.dropped(key, write.revision());
            }
            self.directory_pending &= !matches!(write.answer, Answer::NodeReplaced(_) | Answer::Admitted);
            out.fail_all(write.waiters, error);
        }
    }

    /// An entry is committed: its writes are done for all who only want to know that.
    pub(super) fn answer_committed(&mut self, index: LogIndex, term: Term, out: &mut Output) {
        let tell = |write: &EvaluatedWrite| answer_write(&write.answer, write.outcome, &write.waiters, out);
        self.proposals.committed(index, term, tell);
    }

    /// An entry was applied: its writes are done, and those whose place it took are lost.
    pub(super) fn answer_applied(&mut self, now: Now, index: LogIndex, term: Term, out: &mut Output) {
        let decided = self.proposals.applied(index, term);
        for write in decided.done {
            for key in &write.keys {
                self.overlay.applied(key, write.revision());
            }
            self.answer_done(&write.answer, write.outcome, &write.waiters, out);
        }
        if !decided.lost.is_empty() {
            let error = self.not_leader(now);
            for write in decided.lost {
                out.fail_all(write.waiters, &error);
            }
        }
    }

    /// Tells everyone who waits for a write that is applied how it ended: at once, or as soon as what it found is read.
    fn answer_done(&mut self, answer: &Answer, outcome: Outcome, waiters: &[Waiter], out: &mut Output) {
        match answer {
            Answer::Transacted(transaction) if let Some(branch) = found_by(transaction, outcome) => {
                self.read_results(transaction, branch, outcome.revision, waiters);
            }
            answer => answer_write(answer, outcome, waiters, out),
        }
    }

    /// Sessions above the bound are evicted, the longest idle first.
    pub(super) fn evict_sessions(&mut self, sessions_max: usize) {
        let count = self.state.sessions.len();
        let is_evicting = self.state.applied.index < self.evicting;
        if count <= sessions_max || is_evicting || !self.may_evaluate() || self.proposals.has_gathered() {
            return;
        }
        // Some more than needed, so that this is not done at every opening.
        let idlest = self.state.sessions.idlest(count - sessions_max + sessions_max / 16);
        let Some(&evicted_up_to) = idlest.iter().max() else { return };
        let sessions = mesh_engine::effect::SessionIds::new(&idlest);
        self.builder.push(&Effect::SessionEvict { sessions, evicted_up_to });
        self.evicting = LogIndex(self.raw.raft.raft_log.last_index()).next();
        self.gather_own(self.newest, Answer::Nothing, smallvec![]);
    }

    /// Moves the horizon up to `revision`.
    pub(super) fn raise_horizon(&mut self, revision: Revision) {
        if self.may_evaluate() && revision > self.state.store.horizon() {
            self.builder.push(&Effect::Horizon { revision });
            self.gather_own(self.newest, Answer::Nothing, smallvec![]);
        }
    }
}

/// Tells everyone who waits for a write how it ended, but for what a transaction found.
fn answer_write(answer: &Answer, outcome: Outcome, waiters: &[Waiter], out: &mut Output) {
    for waiter in waiters {
        let responder = waiter.responder;
        let response = match answer {
            Answer::Written => Response::Written(Written { revision: outcome.revision }),
            Answer::Deleted => {
                Response::Deleted(Deleted { revision: outcome.revision, deleted: outcome.count })
            }
            Answer::SessionOpened(session) => Response::SessionOpened(SessionOpened { session: *session }),
            Answer::NodeReplaced(node) => {
                let (replica, state) = (mesh_base::ReplicaId(node.0), NodeState::Joining);
                Response::Replace(ReplaceAnswer { node: *node, replica, state })
            }
            Answer::Transacted(transaction) => match branch_of(transaction, outcome) {
                Ok(branch) => Response::Transacted(Transacted {
                    revision: outcome.revision,
                    branch: on_wire(branch),
                    results: List::EMPTY,
                    forgotten: false,
                }),
                Err(error) => {
                    out.fail(responder, &error);
                    continue;
                }
            },
            Answer::Admitted | Answer::Nothing => continue,
        };
        out.answer(responder, &response);
    }
}
