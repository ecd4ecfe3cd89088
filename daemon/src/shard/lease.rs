//! The leader's lease: for how long it may serve reads without asking anyone, and the promises of voters that it rests on.
//!
//! Invariants:
//! - A replica that acknowledges a round of its leader *promises*: for [`LEASE_PROMISE`] by its own boot-time clock it votes for nobody,
//!   whatever the term, and does not campaign. A restarted replica, which does not know what it promised, promises for as long
//!   from its start; one that never saw an election has nothing to keep.
//! - A lease lasts [`LEASE`] from when a round was *sent* that a quorum acknowledged: each voter's promise began later, and lasts
//!   longer by more than clocks drift apart in that time. Any quorum that elects has a member of that one, so nobody else leads
//!   before the lease is over.
//! - A promise does not bind when the leader itself asked another replica to take over: it gives up its lease for the rest of
//!   its term before it does. The campaign of that replica says so, and is for the very next term.
//! - Whatever may change who leads or who votes ends the lease: a step down, a change of the configuration. Rounds sent before
//!   that prove leadership for their reads, and extend nothing.
//!
//! The idea is that of Gray and Cheriton ("Leases", SOSP 1989), with raft's voters as those who grant it.
//!
//! Deliberately absent: the wall clock, and what the time between two ticks or messages is to anyone else.

use std::time::Duration;

use mesh_base::flaw::{self, Flaw};
use mesh_base::limits::{LEASE, LEASE_PROMISE, TICK};
use mesh_base::{Instant, Term};

/// With less than this left, the lease is renewed: soon, so that a round that is lost does no harm.
const RENEWED_WITHIN: Duration = LEASE.saturating_sub(TICK.saturating_mul(2));
/// A lease that nobody read under for so long is left to run out.
const IDLE_AFTER: Duration = Duration::from_secs(1);

/// What a voter promised.
#[derive(Clone, Copy, Debug)]
pub(super) struct Promise {
    until: Instant,
}

impl Promise {
    /// Nothing was ever promised.
    pub(super) const NONE: Self = Self { until: Instant::ZERO };

    /// Whatever was promised before a restart.
    pub(super) fn at_start(now: Instant) -> Self {
        Self { until: now + LEASE_PROMISE }
    }

    /// A round of the leader is acknowledged.
    pub(super) fn give(&mut self, now: Instant) {
        self.until = self.until.max(now + LEASE_PROMISE);
    }

    /// Whether it binds.
    pub(super) fn binds(&self, now: Instant) -> bool {
        now < self.until && !flaw::is_planted(Flaw::BreakPromise)
    }
}

/// What a leader may rely on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    until: Instant,
    /// Rounds sent before this extend nothing.
    since: Instant,
    /// The term in which another replica was asked to take over: for its rest there is no lease.
    given_up: Term,
    /// When it was last read under, or would have been.
    used: Instant,
}

impl Lease {
    /// No lease.
    pub(super) const NONE: Self =
        Self { until: Instant::ZERO, since: Instant::ZERO, given_up: Term(0), used: Instant::ZERO };

    /// Whether a leader of this term may read without asking anyone. Notes that it wants to.
    pub(super) fn covers(&mut self, now: Instant, term: Term) -> bool {
        self.used = now;
        now < self.until && !self.is_given_up(term)
    }

    /// A quorum acknowledged a round that was sent at that time.
    pub(super) fn extend(&mut self, sent: Instant) {
        if sent >= self.since {
            self.until = self.until.max(sent + LEASE);
        }
    }

    /// Who votes or who leads may have changed.
    pub(super) const fn end(&mut self, now: Instant) {
        self.until = Instant::ZERO;
        self.since = Instant(now.0.saturating_add(1));
    }

    /// Another replica is asked to take over.
    pub(super) fn give_up(&mut self, term: Term) {
        self.given_up = term;
    }

    /// Whether a round is to be sent for the sake of the lease: it is in use and about to run out.
    pub(super) fn wants_renewal(&self, now: Instant, term: Term) -> bool {
        let is_used = now.since(self.used) < IDLE_AFTER && self.used != Instant::ZERO;
        is_used && self.until < now + RENEWED_WITHIN && !self.is_given_up(term)
    }

    fn is_given_up(&self, term: Term) -> bool {
        self.given_up == term && !flaw::is_planted(Flaw::LeaseThroughTransfer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant(1_000_000_000);
    const TERM: Term = Term(3);

    fn lease_of(sent: Instant) -> Lease {
        let mut lease = Lease::NONE;
        lease.extend(sent);
        lease
    }

    #[test]
    fn a_lease_ends_before_the_promises_it_rests_on_however_clocks_drift() {
        let mut lease = lease_of(START);
        let mut promise = Promise::NONE;
        // The voter hears of the round as soon as it is sent, and its clock is as fast as the leader's is slow.
        promise.give(START);
        assert!(promise.binds(START + LEASE.mul_f64(1.0 + 2.0 * 0.009)));
        assert!(lease.covers(START + LEASE / 2, TERM) && !lease.covers(START + LEASE, TERM));
    }

    #[test]
    fn rounds_sent_before_a_lease_was_ended_do_not_extend_it() {
        let mut lease = lease_of(START);
        lease.end(START + TICK);
        assert!(!lease.covers(START + TICK, TERM));
        lease.extend(START + TICK);
        assert!(!lease.covers(START + TICK, TERM));
        lease.extend(START + 2 * TICK);
        assert!(lease.covers(START + 2 * TICK, TERM));
    }

    #[test]
    fn who_asked_another_to_take_over_has_no_lease_for_the_rest_of_the_term() {
        let mut lease = lease_of(START);
        lease.give_up(TERM);
        lease.extend(START + TICK);
        assert!(!lease.covers(START + TICK, TERM) && lease.covers(START + TICK, TERM.next()));
    }

    #[test]
    fn a_lease_is_renewed_while_it_is_used() {
        let mut lease = lease_of(START);
        assert!(!lease.wants_renewal(START + LEASE, TERM), "nobody reads");
        assert!(lease.covers(START, TERM));
        assert!(!lease.wants_renewal(START, TERM), "it has just begun");
        assert!(lease.wants_renewal(START + 3 * TICK, TERM));
        assert!(!lease.wants_renewal(START + IDLE_AFTER, TERM));
    }

    #[test]
    fn a_later_promise_does_not_shorten_an_earlier_one() {
        let mut promise = Promise::at_start(START);
        promise.give(START + TICK);
        assert!(promise.binds(START + LEASE_PROMISE));
        promise.give(START);
        assert!(promise.binds(START + LEASE_PROMISE));
    }
}
