//! Linearizable reads: served under the leader's lease, or batched into ReadIndex rounds and released when the leader has applied
//! what the round proved.
//!
//! Invariants:
//! - A read is served from a state that includes everything committed when a quorum, asked after the read arrived, confirmed
//!   this leader, or when it came under a lease. No read joins a round that was sent before it came.
//! - raft may drop a round without a word; a round without an answer is sent again under a new number.
//!
//! Without a lease a read costs one round trip to a quorum, shared by all reads of the turn; each such round extends the lease.

use std::collections::VecDeque;
use std::time::Duration;

use mesh_base::bytesio::{Reader, Writer};
use mesh_base::flaw::{self, Flaw};
use mesh_base::{Instant, LogIndex, ReplicaId};

/// Rounds under way at a time: enough that reads arriving during one do not wait for its end.
pub(super) const ROUNDS_MAX: usize = 4;
/// A round without an answer for this long is sent again.
const ROUND_PATIENCE: Duration = Duration::from_millis(60);

/// Reads of type `R` on their way to being served.
#[derive(Debug)]
pub struct Reads<R> {
    replica: ReplicaId,
    next_round: u64,
    /// Came since the last round was sent.
    queued: Vec<R>,
    rounds: VecDeque<Round<R>>,
    /// Proven, waiting for the apply; in the order of their indexes.
    proven: VecDeque<(LogIndex, VecDeque<R>)>,
}

#[derive(Debug)]
struct Round<R> {
    number: u64,
    sent: Instant,
    reads: Vec<R>,
}

impl<R> Reads<R> {
    /// No reads yet.
    #[must_use]
    pub const fn new(replica: ReplicaId) -> Self {
        Self { replica, next_round: 1, queued: Vec::new(), rounds: VecDeque::new(), proven: VecDeque::new() }
    }

    /// A read arrived.
    pub fn push(&mut self, read: R) {
        self.queued.push(read);
    }

    /// Reads on their way.
    #[must_use]
    pub fn len(&self) -> usize {
        let rounds: usize = self.rounds.iter().map(|round| round.reads.len()).sum();
        let proven: usize = self.proven.iter().map(|(_, reads)| reads.len()).sum();
        self.queued.len() + rounds + proven
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queued.is_empty() && self.rounds.is_empty() && self.proven.is_empty()
    }

    /// Rounds under way.
    #[must_use]
    pub fn rounds(&self) -> usize {
        self.rounds.len()
    }

    /// The context of a round to send now, if there are reads for one.
    pub fn begin_round(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.queued.is_empty() || self.rounds.len() >= ROUNDS_MAX {
            return None;
        }
        let reads = std::mem::take(&mut self.queued);
        Some(self.send(now, reads))
    }

    /// A read that came under a lease: it may be served once `index`, the last entry committed, is applied.
    pub fn push_proven(&mut self, index: LogIndex, read: R) {
        match self.proven.back_mut() {
            Some((last, reads)) if *last == index => reads.push_back(read),
            _ => self.proven.push_back((index, [read].into())),
        }
    }

    /// The context of a round that is sent for the sake of a lease alone. None while another is under way: that one does as well.
    pub fn begin_renewal(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.rounds.is_empty().then(|| self.send(now, Vec::new()))
    }

    /// The context of a round to send again in place of those whose answers are overdue. Their reads move to it.
    pub fn retry_rounds(&mut self, now: Instant) -> Option<Vec<u8>> {
        let overdue = |round: &Round<R>| now.since(round.sent) >= ROUND_PATIENCE;
        if !self.rounds.front().is_some_and(overdue) {
            return None;
        }
        let mut reads = Vec::new();
        while let Some(round) = self.rounds.pop_front_if(|round| overdue(round)) {
            reads.extend(round.reads);
        }
        Some(self.send(now, reads))
    }

    fn send(&mut self, now: Instant, reads: Vec<R>) -> Vec<u8> {
        let number = self.next_round;
        self.next_round += 1;
        self.rounds.push_back(Round { number, sent: now, reads });
        let mut context = Vec::with_capacity(16);
        context.put_u64(self.replica.0);
        context.put_u64(number);
        context
    }

    /// raft answered a round: its reads, and those of earlier rounds, may be served once `index` is applied. Answers when the round
    /// was sent, if it was waited for.
    pub fn prove(&mut self, context: &[u8], index: LogIndex) -> Option<Instant> {
        let mut from = Reader::new(context);
        let (replica, number) = (from.u64()?, from.u64()?);
        if replica != self.replica.0 {
            return None;
        }
        let mut reads = VecDeque::new();
        let mut sent = None;
        // An earlier round was sent earlier: what this one proves holds for its reads all the more.
        while let Some(round) = self.rounds.pop_front_if(|round| round.number <= number) {
            sent = Some(round.sent);
            reads.extend(round.reads);
        }
        if !reads.is_empty() {
            self.proven.push_back((index, reads));
        }
        sent
    }

    /// The next read that may be served when `applied` is applied.
    pub fn next_ready(&mut self, applied: LogIndex) -> Option<R> {
        while let Some((index, reads)) = self.proven.front_mut() {
            if *index > applied && !flaw::is_planted(Flaw::ReadBeforeApplied) {
                return None;
            }
            if let Some(read) = reads.pop_front() {
                return Some(read);
            }
            self.proven.pop_front();
        }
        None
    }

    /// Whether there is a read that may be served when `applied` is applied.
    #[must_use]
    pub fn has_ready(&self, applied: LogIndex) -> bool {
        self.proven.iter().take_while(|(index, _)| *index <= applied).any(|(_, reads)| !reads.is_empty())
    }

    /// A read that may be served at any time waits for the next turn.
    pub fn postpone(&mut self, read: R) {
        match self.proven.front_mut() {
            Some((LogIndex(0), reads)) => reads.push_back(read),
            _ => self.proven.push_front((LogIndex(0), [read].into())),
        }
    }

    /// Takes out all reads that `leaves` picks.
    pub fn take_if(&mut self, leaves: impl Fn(&R) -> bool) -> Vec<R> {
        let mut taken = Vec::new();
        for (_, reads) in &mut self.proven {
            let (leaving, staying) = std::mem::take(reads).into_iter().partition(|read| leaves(read));
            *reads = staying;
            taken.extend::<VecDeque<R>>(leaving);
        }
        let rounds = self.rounds.iter_mut().map(|round| &mut round.reads);
        for reads in rounds.chain([&mut self.queued]) {
            taken.extend(reads.extract_if(.., |read| leaves(read)));
        }
        taken
    }

    /// Takes out all reads: the replica does not lead any more.
    pub fn take_all(&mut self) -> Vec<R> {
        let taken = self.take_if(|_| true);
        self.rounds.clear();
        self.proven.clear();
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant(0);

    fn reads() -> Reads<u32> {
        Reads::new(ReplicaId(7))
    }

    impl Reads<u32> {
        fn take_ready(&mut self, applied: LogIndex) -> Vec<u32> {
            std::iter::from_fn(|| self.next_ready(applied)).collect()
        }
    }

    #[test]
    fn a_read_does_not_join_a_round_sent_before_it() {
        let mut reads = reads();
        reads.push(1);
        let first = reads.begin_round(START).unwrap();
        reads.push(2);
        reads.prove(&first, LogIndex(5));
        assert!(reads.take_ready(LogIndex(4)).is_empty());
        assert_eq!(reads.take_ready(LogIndex(5)), [1]);
        let second = reads.begin_round(START).unwrap();
        reads.prove(&second, LogIndex(5));
        assert_eq!(reads.take_ready(LogIndex(5)), [2]);
    }

    #[test]
    fn a_later_round_proves_the_earlier_ones() {
        let mut reads = reads();
        reads.push(1);
        reads.begin_round(START).unwrap();
        reads.push(2);
        let second = reads.begin_round(START).unwrap();
        reads.prove(&second, LogIndex(1));
        assert_eq!(reads.take_ready(LogIndex(1)), [1, 2]);
    }

    #[test]
    fn a_round_that_raft_dropped_is_sent_again() {
        let mut reads = reads();
        reads.push(1);
        let lost = reads.begin_round(START).unwrap();
        assert_eq!(reads.retry_rounds(START), None);
        let again = reads.retry_rounds(START + ROUND_PATIENCE).unwrap();
        assert_ne!(lost, again);
        reads.prove(&lost, LogIndex(1));
        assert!(reads.take_ready(LogIndex(1)).is_empty());
        reads.prove(&again, LogIndex(1));
        assert_eq!(reads.take_ready(LogIndex(1)), [1]);
    }

    #[test]
    fn a_read_under_a_lease_waits_for_what_was_committed_when_it_came() {
        let mut reads = reads();
        reads.push_proven(LogIndex(4), 1);
        reads.push_proven(LogIndex(4), 2);
        reads.push_proven(LogIndex(5), 3);
        assert!(reads.take_ready(LogIndex(3)).is_empty());
        assert_eq!(reads.take_ready(LogIndex(4)), [1, 2]);
        assert_eq!(reads.take_ready(LogIndex(5)), [3]);
    }

    #[test]
    fn a_round_tells_when_it_was_sent_once() {
        let mut reads = reads();
        let round = reads.begin_renewal(START).unwrap();
        assert_eq!(reads.begin_renewal(START + ROUND_PATIENCE / 2), None);
        assert_eq!(reads.prove(&round, LogIndex(1)), Some(START));
        assert_eq!(reads.prove(&round, LogIndex(1)), None);
    }

    #[test]
    fn a_round_of_another_replica_proves_nothing() {
        let mut reads = reads();
        reads.push(1);
        reads.begin_round(START).unwrap();
        let mut other = Reads::new(ReplicaId(8));
        other.push(1);
        reads.prove(&other.begin_round(START).unwrap(), LogIndex(1));
        assert!(reads.take_ready(LogIndex(9)).is_empty());
    }
}
