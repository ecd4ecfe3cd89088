//! Writes between evaluation and their answer: what is being gathered into the next entry, and what was proposed.
//!
//! Invariants:
//! - A write is answered "done" only when the very entry (index and term) that carries it is committed, if its answer needs no
//!   more than that, or applied.
//! - A write is answered "not applied" only if its entry was never proposed, or if another entry was applied at its index.
//!   In every other case its end is unknown, and the session will tell.
//! - One request is in flight once, until it is applied: a second copy waits for the first.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use mesh_base::flaw::{self, Flaw};
use mesh_base::table::Table;
use mesh_base::{Instant, LogIndex, Revision, SessionId, Term};
use smallvec::SmallVec;

use super::sessions::{Outcome, WriteId};
use super::transacting::found_by;
use super::transaction::{KeySpan, Transaction};
use crate::core::Responder;

/// Who waits for a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waiter {
    /// Where the answer goes.
    pub responder: Responder,
    /// When the client stops waiting.
    pub deadline: Instant,
}

/// What an answer says once the write is committed or applied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Keys were written.
    Written,
    /// Keys were deleted.
    Deleted,
    /// A transaction was done, or refused.
    Transacted(Arc<Transaction>),
    /// A session was opened.
    SessionOpened(SessionId),
    /// A node was given a new id.
    NodeReplaced(mesh_base::NodeId),
    /// The membership changed, on the shard's own account.
    Admitted,
    /// Nobody asked: the shard's own business.
    Nothing,
}

impl Answer {
    /// Whether the answer can be given as soon as the write is committed. Reads that come after it wait for the apply; but a
    /// session that is opened is used by writes, and a new id asked for, and those look at what is applied.
    fn is_known_at_commit(&self, outcome: Outcome) -> bool {
        match self {
            Self::Written | Self::Deleted => true,
            // What it found is read from what is applied.
            Self::Transacted(transaction) => found_by(transaction, outcome).is_none(),
            Self::SessionOpened(_) | Self::NodeReplaced(_) | Self::Admitted | Self::Nothing => false,
        }
    }
}

/// By what a copy of a request is known.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RequestKey {
    /// A write, by its session and its number in it.
    Write(WriteId),
    /// The opening of a session, by the number that its client chose.
    Opening {
        /// The number.
        nonce: u64,
    },
}

/// A write that was evaluated.
#[derive(Clone, Debug)]
pub struct EvaluatedWrite {
    /// By what copies of it are known, if there may be any.
    pub key: Option<RequestKey>,
    /// What it did.
    pub outcome: Outcome,
    /// What to answer.
    pub answer: Answer,
    /// The keys it writes, for the overlay.
    pub keys: SmallVec<[Bytes; 1]>,
    /// Who waits for it.
    pub waiters: SmallVec<[Waiter; 1]>,
}

/// An entry that was proposed.
#[derive(Debug)]
struct Proposal {
    number: GroupNo,
    index: LogIndex,
    term: Term,
    bytes: usize,
    writes: Vec<EvaluatedWrite>,
}

impl Proposal {
    /// Whether the entry at `index` with `term` is the one that was proposed.
    fn is_entry(&self, index: LogIndex, term: Term) -> bool {
        self.index == index && (self.term == term || flaw::is_planted(Flaw::AnswerByIndexAlone))
    }
}

/// The number of a group of writes that are proposed together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct GroupNo(u64);

/// All writes in flight at a leader, or left over from when the replica led.
#[derive(Debug)]
pub struct Proposals {
    /// In the order of their indexes, and of their numbers, which have no gaps.
    queue: VecDeque<Proposal>,
    /// The next entry's writes.
    gathering: Vec<EvaluatedWrite>,
    /// Their number.
    next: GroupNo,
    /// In which group each write in flight is.
    in_flight: Table<RequestKey, GroupNo>,
    bytes: usize,
    waiters: usize,
    /// Sessions being opened.
    openings: usize,
}

impl Proposals {
    /// Nothing in flight. The seed is for the hash of what requests are known by, which clients choose.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            queue: VecDeque::new(),
            gathering: Vec::new(),
            next: GroupNo(0),
            in_flight: Table::new(seed),
            bytes: 0,
            waiters: 0,
            openings: 0,
        }
    }

    /// Adds a write to the next entry.
    pub fn gather(&mut self, write: EvaluatedWrite) {
        if let Some(key) = write.key {
            let before = self.in_flight.insert(key, self.next);
            assert_eq!(before, None, "{key:?} is in flight already");
        }
        self.waiters += write.waiters.len();
        self.openings += write.opens_session();
        self.gathering.push(write);
    }

    /// Lets another copy of a write that is in flight wait for it. `false` if it is not in flight.
    pub fn join(&mut self, key: RequestKey, waiter: Waiter) -> bool {
        let writes = match self.in_flight.get(&key) {
            None => return false,
            Some(number) if *number == self.next => &mut self.gathering,
            Some(number) => {
                let at = self.queue.binary_search_by_key(&number.0, |proposal| proposal.number.0);
                match at.ok().and_then(|at| self.queue.get_mut(at)) {
                    Some(proposal) => &mut proposal.writes,
                    None => return false,
                }
            }
        };
        match writes.iter_mut().find(|write| write.key == Some(key)) {
            Some(write) => {
                write.waiters.push(waiter);
                self.waiters += 1;
                true
            }
            None => false,
        }
    }

    /// Whether a write is gathered or proposed, and not decided.
    #[must_use]
    pub fn is_in_flight(&self, key: RequestKey) -> bool {
        self.in_flight.contains_key(&key)
    }

    /// Whether anything is gathered for the next entry.
    #[must_use]
    pub fn has_gathered(&self) -> bool {
        !self.gathering.is_empty()
    }

    /// The gathered writes went into the log at `index`, in an entry of `bytes` bytes.
    pub fn proposed(&mut self, index: LogIndex, term: Term, bytes: usize) {
        assert!(self.queue.back().is_none_or(|last| last.index < index), "proposals are in the log's order");
        let writes = std::mem::take(&mut self.gathering);
        self.bytes += bytes;
        self.queue.push_back(Proposal { number: self.next, index, term, bytes, writes });
        self.next = GroupNo(self.next.0 + 1);
    }

    /// The gathered writes will not be proposed: they certainly were not applied.
    pub fn give_up_gathered(&mut self) -> Vec<EvaluatedWrite> {
        let writes = std::mem::take(&mut self.gathering);
        self.forget(&writes);
        writes
    }

    /// The entry at `index` with `term` is committed: nothing can undo its writes any more, and those who wait for one whose
    /// answer needs no more than that are told. They wait no longer; copies that come before the apply do.
    pub fn committed(&mut self, index: LogIndex, term: Term, mut tell: impl FnMut(&EvaluatedWrite)) {
        let at = self.queue.binary_search_by_key(&index, |proposal| proposal.index);
        let proposal = at.ok().and_then(|at| self.queue.get_mut(at));
        let Some(proposal) = proposal.filter(|proposal| proposal.is_entry(index, term)) else { return };
        for write in proposal.writes.iter_mut().filter(|write| write.answer.is_known_at_commit(write.outcome))
        {
            tell(write);
            self.waiters -= write.waiters.len();
            write.waiters.clear();
        }
    }

    /// The entry at `index` with `term` was applied. Returns the writes that are now decided: those it carried, those
    /// whose place in the log it took, and those proposed in an earlier term for a place behind it. For behind a committed
    /// entry no log that can ever lead has an entry of an earlier term.
    pub fn applied(&mut self, index: LogIndex, term: Term) -> Decided {
        let mut decided = Decided::default();
        while let Some(proposal) = self.pop_if(|front| front.index <= index || front.term < term) {
            let to = if proposal.is_entry(index, term) { &mut decided.done } else { &mut decided.lost };
            to.extend(proposal.writes);
        }
        decided
    }

    /// The log now begins after a snapshot at `index`: how the entries up to there ended is not known here.
    pub fn overtaken(&mut self, index: LogIndex) -> Vec<EvaluatedWrite> {
        let mut overtaken = Vec::new();
        while let Some(proposal) = self.pop_if(|front| front.index <= index) {
            overtaken.extend(proposal.writes);
        }
        overtaken
    }

    /// Takes out all waiters: nothing will be decided here any more.
    pub fn abandon(&mut self) -> Vec<Waiter> {
        let queue = std::mem::take(&mut self.queue);
        let gathering = std::mem::take(&mut self.gathering);
        self.in_flight.clear();
        (self.bytes, self.waiters, self.openings) = (0, 0, 0);
        let proposed = queue.into_iter().flat_map(|proposal| proposal.writes);
        proposed.chain(gathering).flat_map(|write| write.waiters).collect()
    }

    /// Takes out the waiters whose deadline has passed.
    pub fn expire(&mut self, now: Instant) -> Vec<Waiter> {
        let mut expired = Vec::new();
        let writes =
            self.queue.iter_mut().flat_map(|proposal| &mut proposal.writes).chain(&mut self.gathering);
        for write in writes {
            let is_late = |waiter: &Waiter| waiter.deadline <= now;
            expired.extend(write.waiters.iter().copied().filter(is_late));
            write.waiters.retain(|waiter| !is_late(waiter));
        }
        self.waiters -= expired.len();
        expired
    }

    /// Bytes of entries proposed and not yet applied.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Requests that wait for a write, copies of one write included.
    #[must_use]
    pub const fn waiters(&self) -> usize {
        self.waiters
    }

    /// Openings of sessions in flight.
    #[must_use]
    pub const fn openings(&self) -> usize {
        self.openings
    }

    /// Keys that the writes in flight write, each as often as it is written.
    #[must_use]
    pub fn keys(&self) -> usize {
        let proposed = self.queue.iter().flat_map(|proposal| &proposal.writes);
        proposed.chain(&self.gathering).map(|write| write.keys.len()).sum()
    }

    /// A key in a range that a write in flight writes, and its revision.
    #[must_use]
    pub fn written_in(&self, range: &KeySpan) -> Option<(&Bytes, Revision)> {
        let proposed = self.queue.iter().flat_map(|proposal| &proposal.writes);
        proposed.chain(&self.gathering).find_map(|write| {
            let key = write.keys.iter().find(|key| range.contains(key))?;
            Some((key, write.revision()))
        })
    }

    /// Whether nothing is in flight.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.gathering.is_empty()
    }

    /// Takes out the oldest proposal, if it is such a one.
    fn pop_if(&mut self, is_such: impl Fn(&Proposal) -> bool) -> Option<Proposal> {
        let proposal = self.queue.pop_front_if(|front| is_such(front))?;
        self.bytes -= proposal.bytes;
        self.forget(&proposal.writes);
        Some(proposal)
    }

    fn forget(&mut self, writes: &[EvaluatedWrite]) {
        self.waiters -= writes.iter().map(|write| write.waiters.len()).sum::<usize>();
        self.openings -= writes.iter().map(EvaluatedWrite::opens_session).sum::<usize>();
        for key in writes.iter().filter_map(|write| write.key) {
            self.in_flight.remove(&key);
        }
    }
}

/// How writes ended.
#[derive(Default, Debug)]
pub struct Decided {
    /// Applied.
    pub done: Vec<EvaluatedWrite>,
    /// Certainly not applied: another entry has their place.
    pub lost: Vec<EvaluatedWrite>,
}

impl EvaluatedWrite {
    /// The revision it would have, or has, written at.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.outcome.revision
    }

    /// How many sessions it opens.
    fn opens_session(&self) -> usize {
        usize::from(matches!(self.answer, Answer::SessionOpened(_)))
    }
}

#[cfg(test)]
mod tests {
    use mesh_base::{CoreId, SessionSeq};
    use smallvec::smallvec;

    use super::*;
    use crate::core::ConnId;

    fn waiter(request: u64) -> Waiter {
        let responder = Responder { core: CoreId(0), conn: ConnId(1), request };
        Waiter { responder, deadline: Instant(request) }
    }

    fn key(seq: u64) -> RequestKey {
        RequestKey::Write(WriteId { session: SessionId(Revision(1)), seq: SessionSeq(seq) })
    }

    fn write(seq: u64) -> EvaluatedWrite {
        EvaluatedWrite {
            key: Some(key(seq)),
            outcome: Outcome { revision: Revision(seq), count: 1, code: 0 },
            answer: Answer::Written,
            keys: smallvec![],
            waiters: smallvec![waiter(seq)],
        }
    }

    fn proposed(seqs: &[u64]) -> Proposals {
        let mut proposals = Proposals::new(1);
        for &seq in seqs {
            proposals.gather(write(seq));
            proposals.proposed(LogIndex(seq), Term(1), 10);
        }
        proposals
    }

    #[test]
    fn a_write_is_done_only_by_the_entry_that_carries_it() {
        let mut proposals = proposed(&[1, 2, 3]);
        let first = proposals.applied(LogIndex(1), Term(1));
        assert_eq!((first.done.len(), first.lost.len()), (1, 0));
        let second = proposals.applied(LogIndex(2), Term(2));
        assert_eq!((second.done.len(), second.lost.len()), (0, 2));
        assert_eq!(proposals.bytes(), 0);
    }

    #[test]
    fn a_write_is_answered_at_commit_and_a_copy_that_comes_later_at_apply() {
        let mut proposals = proposed(&[1, 2]);
        let mut told = Vec::new();
        proposals.committed(LogIndex(1), Term(2), |write| told.extend(write.waiters.clone()));
        assert!(told.is_empty(), "the entry of another term says nothing of the write");
        proposals.committed(LogIndex(1), Term(1), |write| told.extend(write.waiters.clone()));
        assert_eq!((told, proposals.waiters()), (vec![waiter(1)], 1));
        assert!(proposals.join(key(1), waiter(11)));
        assert_eq!(proposals.applied(LogIndex(1), Term(1)).done[0].waiters[..], [waiter(11)]);
        assert_eq!(proposals.waiters(), 1);
    }

    #[test]
    fn a_session_is_answered_when_it_can_be_used() {
        let mut proposals = Proposals::new(1);
        let session = SessionId(Revision(1));
        proposals.gather(EvaluatedWrite { answer: Answer::SessionOpened(session), ..write(1) });
        proposals.proposed(LogIndex(1), Term(1), 10);
        proposals.committed(LogIndex(1), Term(1), |write| panic!("{write:?} is answered early"));
        assert_eq!(proposals.applied(LogIndex(1), Term(1)).done[0].waiters[..], [waiter(1)]);
    }

    #[test]
    fn a_leader_elected_again_with_a_shorter_log_begins_where_its_log_ends() {
        let mut proposals = proposed(&[5, 6, 7]);
        // Another leader's log ended at 4; our own first entry of the new term is at 5.
        assert_eq!(proposals.applied(LogIndex(5), Term(3)).lost.len(), 3);
        proposals.gather(write(8));
        proposals.proposed(LogIndex(6), Term(3), 10);
        assert_eq!(proposals.applied(LogIndex(6), Term(3)).done.len(), 1);
    }

    #[test]
    fn a_copy_waits_for_the_write_in_flight() {
        let mut proposals = proposed(&[1]);
        proposals.gather(write(2));
        assert!(proposals.join(key(1), waiter(11)) && proposals.join(key(2), waiter(12)));
        assert!(!proposals.join(key(3), waiter(13)));
        assert_eq!(proposals.applied(LogIndex(1), Term(1)).done[0].waiters.len(), 2);
        assert!(!proposals.join(key(1), waiter(14)));
    }

    #[test]
    fn every_request_that_waits_counts_until_it_is_answered() {
        let mut proposals = proposed(&[1, 2]);
        proposals.gather(write(3));
        for deadline in 11..20 {
            proposals.join(key(1), waiter(deadline));
        }
        assert_eq!(proposals.waiters(), 12);
        proposals.expire(Instant(12));
        assert_eq!(proposals.waiters(), 7);
        proposals.applied(LogIndex(1), Term(1));
        assert_eq!(proposals.waiters(), 0);
        proposals.gather(write(4));
        proposals.give_up_gathered();
        assert_eq!(proposals.waiters(), 0);
    }

    #[test]
    fn waiters_leave_at_their_deadline_and_the_write_goes_on() {
        let mut proposals = proposed(&[1, 2]);
        assert_eq!(proposals.expire(Instant(1)), vec![waiter(1)]);
        assert_eq!(proposals.applied(LogIndex(2), Term(1)).done.len(), 1);
    }
}
