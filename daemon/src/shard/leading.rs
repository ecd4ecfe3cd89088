//! The replica's part in its group: who leads, since when, and what follows from a change of that.
//!
//! Invariants:
//! - A change of role or term is acted on before anything else is done with raft: what was gathered in one term is never
//!   proposed in another, and nothing is evaluated on the strength of a leadership that is over.
//! - While a snapshot is being installed this replica does not campaign: raft's log begins behind what it has applied.

use mesh_base::flaw::{self, Flaw};
use mesh_base::{Instant, LogIndex, NodeId, Now, ReplicaId, Term};
use mesh_raftlog::Space;
use mesh_wire::{Error, LeaderAt};
use raft::eraftpb::{Message, MessageType};
use raft::{CAMPAIGN_TRANSFER, StateRole};

use super::error::ShardError;
use super::history::History;
use super::output::{News, Output};
use super::replica::{EarlyCampaign, Replica};
use super::ticking::Stopping;

/// What raft says of this replica's part in the group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Role {
    state: StateRole,
    leader: ReplicaId,
    term: Term,
}

impl Role {
    /// Before raft said anything.
    pub(super) const NONE: Self = Self { state: StateRole::Follower, leader: ReplicaId(0), term: Term(0) };
}

/// A leader's own facts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leading {
    pub(super) term: Term,
    pub(super) since: Instant,
    /// The first entry of the term: when it is applied, so is everything before the term.
    pub(super) first_entry: LogIndex,
}

impl Replica {
    /// Begins an election at once if no one else could win it, or if this replica is the one that should lead.
    pub(super) fn campaign_early(&mut self, now: Now, out: &mut Output) -> Result<(), ShardError> {
        let voters = &self.state.conf.voters;
        let is_alone = voters.len() == 1;
        if self.early_campaign == EarlyCampaign::Over || !is_alone && self.promise.binds(now.monotonic) {
            return Ok(());
        }
        self.early_campaign = EarlyCampaign::Over;
        let votes = voters.contains(&self.identity.replica.0);
        let has_leader = self.raw.raft.leader_id != raft::INVALID_ID;
        if votes && !has_leader && (is_alone || self.is_preferred_leader()) {
            self.raw.campaign()?;
            self.settle_role(now, out);
        }
        Ok(())
    }

    /// A message of raft's from another replica, checked by [`super::messages`].
    pub(super) fn on_raft_message(
        &mut self,
        now: Now,
        message: Message,
        out: &mut Output,
    ) -> Result<(), ShardError> {
        if matches!(self.stopping, Some(Stopping::Saving { .. } | Stopping::Closing)) {
            return Ok(());
        }
        if !self.may_hear(now, &message) {
            return Ok(());
        }
        let log = &self.raw.raft.raft_log;
        let last = log.last_index();
        if message.get_msg_type() == MessageType::MsgHeartbeat && message.commit > last {
            return Err(ShardError::LostEntries { known: message.commit, last });
        }
        if message.get_msg_type() == MessageType::MsgSnapshot {
            let meta = message.get_snapshot().get_metadata();
            if meta.index > log.committed && !self.receiving.holds(meta) {
                return Ok(());
            }
        }
        // What cannot be written or kept would only gather in memory. The leader sends it again.
        let brings_entries = !message.entries.is_empty();
        if brings_entries && (self.raw.store().space() == Space::Full || self.is_out_of_memory()) {
            return Ok(());
        }
        let may_campaign = !self.takes_in_snapshot() && self.stopping.is_none();
        if message.get_msg_type() == MessageType::MsgTimeoutNow && !may_campaign {
            return Ok(());
        }
        let is_round = message.get_msg_type() == MessageType::MsgHeartbeat && !message.context.is_empty();
        let (from, term) = (message.from, message.term);
        match self.raw.step(message) {
            // A message of a replica that has left, or that we do not know yet: as good as lost.
            Ok(()) | Err(raft::Error::StepPeerNotFound | raft::Error::StepLocalMsg) => {}
            Err(error) => return Err(error.into()),
        }
        if is_round && (self.raw.raft.leader_id, self.raw.raft.term) == (from, term) {
            self.promise.give(now.monotonic);
        }
        self.settle_role(now, out);
        Ok(())
    }

    /// Whether a message may reach raft: a request for a vote not while a promise binds, unless the leader that it was given to
    /// asked for the campaign.
    fn may_hear(&self, now: Now, message: &Message) -> bool {
        let kind = message.get_msg_type();
        let asks_for_vote = matches!(kind, MessageType::MsgRequestVote | MessageType::MsgRequestPreVote);
        let is_handed_over = message.context == CAMPAIGN_TRANSFER && message.term == self.raw.raft.term + 1;
        !asks_for_vote || is_handed_over || !self.promise.binds(now.monotonic)
    }

    /// Lets raft's time pass.
    pub(super) fn tick_raft(&mut self, now: Now, out: &mut Output) -> Result<(), ShardError> {
        // Who is about to leave does not try to lead.
        let is_leaving = self.stopping.is_some() && self.leading.is_none();
        if self.takes_in_snapshot() || is_leaving {
            return Ok(());
        }
        let raft = &self.raw.raft;
        let would_campaign = raft.state != StateRole::Leader
            && raft.election_elapsed + 1 >= raft.randomized_election_timeout();
        if !would_campaign || !self.promise.binds(now.monotonic) {
            self.raw.tick();
            self.settle_role(now, out);
        }
        self.campaign_early(now, out)
    }

    /// Whether this leader may read without asking a quorum: it is one by itself, or has a lease.
    pub(super) fn may_read_at_once(&mut self, now: Now) -> bool {
        self.may_evaluate()
            && (self.raw.raft.prs().is_singleton() || self.lease.covers(now.monotonic, self.term()))
    }

    /// The context of a round to send so that a lease that is in use does not run out.
    pub(super) fn lease_renewal(&mut self, now: Now) -> Option<Vec<u8>> {
        let is_due = self.may_evaluate() && self.lease.wants_renewal(now.monotonic, self.term());
        is_due.then(|| self.reads.begin_renewal(now.monotonic)).flatten()
    }

    fn term(&self) -> Term {
        Term(self.raw.raft.term)
    }

    /// Acts on a change of the replica's role or term. To be called after everything that may bring one about.
    pub(super) fn settle_role(&mut self, now: Now, out: &mut Output) {
        self.settle_election_timeout();
        let raft = &self.raw.raft;
        let role = Role { state: raft.state, leader: ReplicaId(raft.leader_id), term: Term(raft.term) };
        if role == self.role {
            return;
        }
        self.role = role;
        let (shard, term) = (self.identity.shard, role.term);
        let leads = role.state == StateRole::Leader;
        if self.leading.is_some_and(|leading| !leads || leading.term != term) {
            self.leading = None;
            tracing::info!(%shard, %term, "leads no more");
            self.stepped_down(now, out);
        }
        if leads && self.leading.is_none() {
            let first_entry = LogIndex(self.raw.raft.raft_log.last_index());
            self.leading = Some(Leading { term, since: now.monotonic, first_entry });
            tracing::info!(%shard, %term, "leads");
        }
        let leader = self.leader_node();
        self.leaderless_since = match leader {
            Some(_) => None,
            None => self.leaderless_since.or(Some(now.monotonic)),
        };
        out.news.push(News::Leader { leader, term: term.0 });
    }

    /// Requests that only a leader can finish are given back; what is in the log is decided there.
    fn stepped_down(&mut self, now: Now, out: &mut Output) {
        let error = self.not_leader(now);
        self.give_up_gathered(&error, out);
        if !self.proposals.is_empty() && flaw::is_planted(Flaw::DenyAtStepDown) {
            out.fail_all(self.proposals.expire(Instant(u64::MAX)), &error);
        }
        self.lease.end(now.monotonic);
        self.overlay.clear();
        self.history = History::default();
        self.directory_pending = false;
        self.evicting = LogIndex(0);
        self.forget_requests_for_snapshots();
        for read in self.reads.take_all() {
            read.fail(&error, out);
        }
        for write in std::mem::take(&mut self.waiting) {
            out.fail(write.waiter.responder, &error);
        }
        // Parked requests are answered when their pages come.
    }

    pub(super) fn is_preferred_leader(&self) -> bool {
        let shard = self.identity.shard;
        self.directory
            .preferred_leader(shard)
            .is_some_and(|entry| entry.replica(shard) == self.identity.replica)
    }

    /// Whether this replica leads and has applied everything that came before it.
    pub(super) fn may_evaluate(&self) -> bool {
        self.leading.is_some_and(|leading| {
            self.state.applied.index >= leading.first_entry || flaw::is_planted(Flaw::EvaluateEarly)
        })
    }

    /// The error for a request that only the leader may answer.
    pub(super) fn not_leader(&self, now: Now) -> Error {
        let shard = self.identity.shard;
        let leader = self.directory.by_replica(shard, ReplicaId(self.raw.raft.leader_id));
        let long_gone = self
            .leaderless_since
            .is_some_and(|since| now.monotonic.since(since) > self.options.leaderless_patience);
        match leader {
            Some(entry) if entry.replica(shard) != self.identity.replica => Error::NotLeader {
                shard,
                leader: Some(LeaderAt { node: entry.node, address: entry.address.clone() }),
            },
            None if long_gone => Error::NoQuorum,
            _ => Error::NotLeader { shard, leader: None },
        }
    }

    /// The node that leads, as far as this replica knows.
    pub(super) fn leader_node(&self) -> Option<NodeId> {
        let leader = ReplicaId(self.raw.raft.leader_id);
        self.directory.by_replica(self.identity.shard, leader).map(|entry| entry.node)
    }

    /// raft draws its election timeout from the thread's generator, and again at every reset. It is replaced, each time
    /// it differs, by one that depends on the replica's seed and the term alone, so that runs can be repeated.
    pub(super) fn settle_election_timeout(&mut self) {
        let timeout = self.options.election_timeout(self.election_seed, self.raw.raft.term);
        if self.raw.raft.randomized_election_timeout() != timeout {
            self.raw.raft.set_randomized_election_timeout(timeout);
        }
    }
}
