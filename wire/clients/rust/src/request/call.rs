//! One call of the user: what is asked, how far it has come, and what may be said of it when time is up.
//!
//! Invariant: "not applied" is said of a write only if that is certain of every sending of it.

use std::time::Duration;

use mesh_base::ShardId;
use mesh_base::slot::slot_of;
use mesh_wire::{Outgoing, Request};
use tokio::time::Instant;

use crate::core::Core;
use crate::session::Write;
use crate::{Error, Topology};

/// What lies beyond the clock's end is as good as a year.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// When a call gives up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    pub(crate) began: Instant,
    pub(crate) at: Instant,
    pub(crate) whole: Duration,
}

impl Deadline {
    pub(crate) fn after(whole: Duration) -> Self {
        let began = Instant::now();
        Self { began, at: began + whole.min(YEAR), whole }
    }

    /// That of what goes on until it is done or ended.
    pub(crate) fn never() -> Self {
        Self::after(YEAR)
    }

    /// How long a node is given, in milliseconds: a little less than what is left, so that its answer is still in time.
    pub(crate) fn for_node(&self, now: Instant) -> u32 {
        const ON_THE_WAY_MAX: Duration = Duration::from_millis(200);
        let left = self.at.saturating_duration_since(now);
        let left = left - (left / 8).min(ON_THE_WAY_MAX);
        u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1)
    }
}

/// Which shard a request is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Aim<'a> {
    /// That of a key.
    Key(&'a [u8]),
    /// This one. When slots move a request for keys is handed back to be split anew.
    Shard(ShardId),
}

impl Aim<'_> {
    pub(super) fn shard(&self, topology: &Topology) -> ShardId {
        match self {
            Self::Key(key) => topology.shard_of_slot(slot_of(key)),
            Self::Shard(shard) => *shard,
        }
    }
}

/// Why a call failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// For good.
    Error(Error),
    /// The keys of the request are not of one shard any more: split it anew. Nothing was applied.
    Rerouted,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// What a request does, and so what it means to send it again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    /// It changes nothing.
    Read,
    /// It changes keys, once, by its session.
    Write,
    /// It changes something else: done again, it comes to the same.
    Repeatable,
}

/// One call of the user.
pub(crate) struct Call<'a> {
    pub(super) request: Request<'a>,
    pub(super) bytes: usize,
    pub(super) aim: Aim<'a>,
    pub(super) mode: Mode,
    pub(super) deadline: Deadline,
    /// The session and number of a write.
    pub(super) write: Option<Write>,
    /// A sending of what changes something ended without an answer that says what became of it.
    pub(super) may_be_applied: bool,
    pub(super) unknown_answers: u32,
    /// Pauses so far.
    pub(super) failures: u32,
    /// Connections that were lost.
    pub(super) losses: u32,
    /// New places that the request was sent to at once.
    pub(super) hops: u32,
    /// The last that was heard.
    pub(super) last: Option<Error>,
}

impl<'a> Call<'a> {
    pub(crate) fn new(request: Request<'a>, aim: Aim<'a>, deadline: Deadline) -> Self {
        let mode = match request {
            Request::Put(_) | Request::PutBatch(_) | Request::Delete(_) | Request::Transact(_) => Mode::Write,
            Request::OpenSession(_) | Request::ReplaceNode(_) => Mode::Repeatable,
            Request::Get(_)
            | Request::GetBatch(_)
            | Request::Range(_)
            | Request::Hello(_)
            | Request::Topology
            | Request::Status => Mode::Read,
        };
        Self {
            bytes: request.size_hint(),
            request,
            aim,
            mode,
            deadline,
            write: None,
            may_be_applied: false,
            unknown_answers: 0,
            failures: 0,
            losses: 0,
            hops: 0,
            last: None,
        }
    }

    /// The request was handed back so many times, to be split anew: its pauses are as long as if it had failed.
    pub(crate) const fn in_round(mut self, round: u32) -> Self {
        self.failures = round;
        self
    }

    /// Puts into the request what every sending has anew.
    pub(super) fn fill(&mut self, core: &Core, now: Instant) {
        let deadline_ms = self.deadline.for_node(now);
        let revision_seen = core.revision_seen();
        let read = mesh_wire::ReadContext { deadline_ms, revision_seen, ..Default::default() };
        match &mut self.request {
            Request::Get(get) => get.ctx = read,
            Request::GetBatch(batch) => batch.ctx = read,
            Request::Range(range) => range.ctx = read,
            Request::Put(put) => put.ctx = write_context(self.write.as_ref(), read),
            Request::PutBatch(batch) => batch.ctx = write_context(self.write.as_ref(), read),
            Request::Delete(delete) => delete.ctx = write_context(self.write.as_ref(), read),
            Request::Transact(transact) => transact.ctx = write_context(self.write.as_ref(), read),
            Request::Hello(_)
            | Request::OpenSession(_)
            | Request::ReplaceNode(_)
            | Request::Topology
            | Request::Status => {}
        }
    }

    /// What became of a sending will not be known from its answer.
    pub(super) fn lose_track(&mut self) {
        self.may_be_applied |= self.mode != Mode::Read;
    }

    /// The end of a call that failed for good.
    pub(super) fn give_up(&mut self, error: Error) -> Failure {
        Failure::Error(match error {
            Error::Unknown { last: None } => Error::Unknown { last: self.last.take().map(Box::new) },
            // The latter two are outcomes of the session: all sendings are answered so.
            Error::Unknown { .. } | Error::Conflict { .. } | Error::WrongType { .. } => error,
            Error::DeadlineExceeded { .. } if self.may_be_applied => Error::Unknown { last: None },
            error if self.may_be_applied => Error::Unknown { last: Some(Box::new(error)) },
            error => error,
        })
    }

    /// The end of a call whose time is up.
    pub(super) fn out_of_time(&mut self, core: &Core) -> Failure {
        let shard = self.aim.shard(&core.view.topology());
        let heard = self.last.take().or_else(|| core.shard(shard).trouble_since(self.deadline.began));
        let error = match heard {
            // A node that is cut off is no reason to say that the cluster is: others answer, and know no leader.
            Some(Error::Unreachable { tried }) if core.pool.is_connected() => {
                let why = tried.last().map(ToString::to_string).unwrap_or_default();
                Error::NoQuorum { shard, why }
            }
            Some(Error::Unreachable { tried }) => {
                let all = core.pool.failures();
                Error::Unreachable { tried: if all.is_empty() { tried } else { all } }
            }
            Some(error) => error,
            None => Error::DeadlineExceeded { deadline: self.deadline.whole },
        };
        self.give_up(error)
    }
}

fn write_context(
    write: Option<&Write>,
    read: mesh_wire::ReadContext<'static>,
) -> mesh_wire::WriteContext<'static> {
    let own = write.map(Write::context).unwrap_or_default();
    mesh_wire::WriteContext { deadline_ms: read.deadline_ms, revision_seen: read.revision_seen, ..own }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_given_a_little_less_time_than_there_is() {
        let deadline = Deadline::after(Duration::from_secs(5));
        let now = deadline.at - Duration::from_secs(5);
        assert_eq!(deadline.for_node(now), 4800);
        assert_eq!(deadline.for_node(deadline.at - Duration::from_millis(80)), 70);
        assert_eq!(deadline.for_node(deadline.at + Duration::from_millis(80)), 1);
    }
}
