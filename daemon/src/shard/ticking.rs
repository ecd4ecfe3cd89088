//! What a replica does as time passes: elections and heartbeats through raft, deadlines, and a leader's duties.

use mesh_base::flaw::{self, Flaw};
use mesh_base::{Instant, LogIndex, Now, ReplicaId};
use mesh_raftlog::Space;
use mesh_wire::Error;

use super::configuration::next_change;
use super::error::ShardError;
use super::output::{News, Output};
use super::replica::{Parked, Replica};

/// How far behind a learner may be to become a voter, and a voter to become leader, in entries.
const CAUGHT_UP_ENTRIES: u64 = 64;

/// A stop under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stopping {
    /// Leadership is being handed over until then.
    HandingOver(Instant),
    /// The last checkpoint is being written, with every entry up to here. Nothing new is taken from other replicas from
    /// here on.
    Saving { through: LogIndex },
    /// The log is being closed, so that the next start is quick. Nothing is added to it any more.
    Closing,
}

impl Replica {
    /// A tick's period passed.
    pub(super) fn tick(&mut self, now: Now, out: &mut Output) -> Result<(), ShardError> {
        self.tick_raft(now, out)?;
        self.expire(now, out);
        if self.leading.is_some() {
            if let Some(context) = self.reads.retry_rounds(now.monotonic) {
                self.raw.read_index(context);
            }
            if let Some(context) = self.lease_renewal(now) {
                self.raw.read_index(context);
            }
            self.tell_commit();
            self.lead(now)?;
        }
        if self.raw.store().space() == Space::Full && !flaw::is_planted(Flaw::StayOutOfSpace) {
            self.log().retry_space(&mut out.io);
        }
        self.retry_checkpoint_space(now, out)?;
        self.tidy(out)?;
        self.watch_receiving(now, out);
        if self.proposals.is_empty() {
            self.log().idle(&mut out.io);
        }
        Ok(())
    }

    /// Lets those go who wait no longer.
    fn expire(&mut self, now: Now, out: &mut Output) {
        let at = now.monotonic;
        let waiters = self.proposals.expire(at);
        let error = match waiters.is_empty() {
            false if flaw::is_planted(Flaw::DenyExpiredWrite) => Error::DeadlineExceeded,
            _ => Error::Unknown,
        };
        out.fail_all(waiters, &error);
        let late: Vec<_> = self.waiting.extract_if(.., |write| write.waiter.deadline <= at).collect();
        for write in late {
            self.give_up_write(&write, out);
        }
        let reads = self.reads.take_if(|read| read.waiter.deadline <= at);
        reads.into_iter().for_each(|read| read.fail(&Error::NoQuorum, out));
        let is_late = |parked: &Parked| match parked {
            Parked::Write(write) => write.waiter.deadline <= at,
            Parked::Read(read) => read.waiter.deadline <= at,
            Parked::Apply | Parked::SaveRecords | Parked::Upkeep | Parked::Send(_) => false,
        };
        for parked in self.unpark_if(is_late) {
            match parked {
                Parked::Write(write) => self.give_up_write(&write, out),
                Parked::Read(read) => read.fail(&Error::DeadlineExceeded, out),
                Parked::Apply | Parked::SaveRecords | Parked::Upkeep | Parked::Send(_) => {}
            }
        }
    }

    /// A leader's duties.
    fn lead(&mut self, now: Now) -> Result<(), ShardError> {
        if !self.may_evaluate() || self.stopping.is_some() {
            return Ok(());
        }
        self.change_configuration()?;
        self.give_way(now);
        self.evict_sessions(self.options.sessions_max);
        self.move_horizon(now);
        Ok(())
    }

    /// Moves the group one step towards the replicas that the membership names.
    fn change_configuration(&mut self) -> Result<(), ShardError> {
        if self.raw.raft.has_pending_conf() {
            return Ok(());
        }
        let wanted: Vec<_> = self.directory.replicas(self.identity.shard).collect();
        let change = next_change(&self.state.conf, &wanted, |replica| self.is_caught_up(replica));
        if let Some(change) = change {
            tracing::info!(shard = %self.identity.shard, ?change, "changes the group");
            match self.raw.propose_conf_change(change.encode(), change.to_raft()) {
                Ok(()) | Err(raft::Error::ProposalDropped) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    pub(super) fn is_caught_up(&self, replica: ReplicaId) -> bool {
        let last = self.raw.raft.raft_log.last_index();
        // Whatever raft's state for it: after a snapshot it stays "probed" until there is something to send.
        let progress = self.raw.raft.prs().get(replica.0);
        progress.is_some_and(|it| it.recent_active && it.matched + CAUGHT_UP_ENTRIES >= last)
    }

    /// Hands leadership to the replica that should have it, when that one has long been able to.
    fn give_way(&mut self, now: Now) {
        let shard = self.identity.shard;
        let Some(leading) = &mut self.leading else { return };
        if now.monotonic.since(leading.since) < self.options.preferred_leader_after {
            return;
        }
        let Some(preferred) = self.directory.preferred_leader(shard).map(|entry| entry.replica(shard)) else {
            return;
        };
        // Whether it is done or not, the next attempt has time.
        leading.since = now.monotonic;
        let votes = self.state.conf.voters.contains(&preferred.0);
        if preferred != self.identity.replica && votes && self.is_caught_up(preferred) {
            self.raw.transfer_leader(preferred.0);
        }
    }

    /// What was overwritten before the history begins may be dropped.
    fn move_horizon(&mut self, now: Now) {
        let horizon = self.history.horizon(self.state.newest, now.monotonic, &self.options.history);
        if horizon > self.state.store.horizon() {
            self.raise_horizon(horizon);
        }
    }

    /// Begins to stop, or goes on with it.
    pub(super) fn stop(&mut self, now: Now, out: &mut Output) {
        match self.stopping {
            None => {
                self.hand_over();
                self.stopping = Some(Stopping::HandingOver(now.monotonic + self.options.hand_over_patience));
            }
            Some(Stopping::HandingOver(until)) => {
                if self.leading.is_none() || self.state.conf.voters.len() < 2 || now.monotonic >= until {
                    self.checkpointing.want();
                    self.stopping = Some(Stopping::Saving { through: self.state.applied.index });
                }
            }
            Some(Stopping::Saving { through }) => {
                let noted = self.raw.store().least_checkpoint().applied;
                // A checkpoint that finds no space would not end.
                let saved = noted >= through && !self.checkpointing.is_busy();
                let over = saved || self.checkpointing.is_out_of_space();
                if over && self.raw.store().is_all_durable() {
                    self.log().close(&mut out.io);
                    self.stopping = Some(Stopping::Closing);
                }
            }
            Some(Stopping::Closing) => {
                if !self.raw.store().is_closing() {
                    out.news.push(News::Stopped);
                }
            }
        }
    }

    /// Hands leadership to the follower that has most of the log.
    fn hand_over(&mut self) {
        if self.leading.is_none() {
            return;
        }
        let voters = self.state.conf.voters.iter().filter(|&&id| id != self.identity.replica.0);
        let best = voters
            .filter_map(|&id| {
                let progress = self.raw.raft.prs().get(id)?;
                progress.recent_active.then_some((progress.matched, id))
            })
            .max();
        if let Some((_, to)) = best {
            self.raw.transfer_leader(to);
        }
    }
}
