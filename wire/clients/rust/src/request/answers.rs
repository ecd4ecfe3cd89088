//! What an answer means for the request: it is done, or what to do about it.

use std::time::Duration;

use mesh_base::{ShardId, SlotEpoch};
use mesh_wire::{Error as Wire, Frame, Kind, Response};

use super::call::Mode;
use super::{Call, HOPS_MAX, Setback};
use crate::Error;
use crate::core::{Core, Target};

/// So many answers in a row that a write's outcome is not known mean that the shard has forgotten the session.
const UNKNOWN_ANSWERS_MAX: u32 = 2;

impl Core {
    /// What an answer means.
    pub(super) fn judge(
        &self,
        call: &mut Call<'_>,
        shard: ShardId,
        target: Target,
        epoch: SlotEpoch,
        frame: Frame,
    ) -> Result<Frame, Setback> {
        if frame.header.envelope.epoch > epoch {
            self.keeper.nudge();
        }
        if frame.header.kind != Kind::Error {
            return Ok(frame);
        }
        let error = match frame.response() {
            Ok(Response::Error(error)) => error,
            Ok(other) => return Err(Setback::Failed(super::unexpected(&other))),
            Err(broken) => {
                call.lose_track();
                return Err(Setback::Failed(broken.into()));
            }
        };
        Err(self.setback(call, shard, target, epoch, error))
    }

    fn setback(
        &self,
        call: &mut Call<'_>,
        shard: ShardId,
        target: Target,
        epoch: SlotEpoch,
        error: Wire,
    ) -> Setback {
        if !matches!(error, Wire::Unknown) {
            call.unknown_answers = 0;
        }
        // Of what this sending did; others of the same write may have done more.
        if !error.certainly_not_applied() {
            call.lose_track();
        }
        match &error {
            Wire::NotLeader { leader, .. } => {
                let leader = leader.as_ref().map(|at| at.node).filter(|node| *node != target.node);
                self.heard(call, shard, Error::of(error, shard, call.deadline.whole));
                if leader.is_some_and(|leader| self.hint(shard, target, leader)) && call.hops < HOPS_MAX {
                    call.hops += 1;
                    return Setback::Now;
                }
                Setback::Leader { shard, asked: Some(target) }
            }
            Wire::WrongEpoch { .. } | Wire::WrongShard { .. } => {
                self.heard(call, shard, Error::of(error, shard, call.deadline.whole));
                Setback::SlotMap { epoch }
            }
            Wire::Unknown => self.unknown(call, shard, target),
            Wire::UnknownSession => self.unknown_session(call, shard),
            Wire::NotReady { .. } | Wire::ShuttingDown | Wire::Damaged { .. } => {
                self.heard(call, shard, Error::of(error, shard, call.deadline.whole));
                Setback::Leader { shard, asked: Some(target) }
            }
            Wire::Overloaded { retry_after_ms } => {
                let at_least = Duration::from_millis((*retry_after_ms).into());
                self.heard(call, shard, Error::of(error, shard, call.deadline.whole));
                Setback::Busy { at_least }
            }
            // No deadline was sent with it: it is the node that had too little time.
            Wire::DeadlineExceeded if call.mode == Mode::Repeatable => {
                self.heard(call, shard, Error::of(error, shard, call.deadline.whole));
                Setback::Busy { at_least: Duration::ZERO }
            }
            Wire::Locked | Wire::NoQuorum | Wire::SessionWindow { .. } => {
                self.heard(call, shard, Error::of(error, shard, call.deadline.whole));
                Setback::Busy { at_least: Duration::ZERO }
            }
            // Of a write that may be applied already, its session tells as soon as there is space again.
            Wire::NoSpace if call.may_be_applied && call.mode == Mode::Write => {
                self.heard(call, shard, Error::NoSpace);
                Setback::Busy { at_least: Duration::ZERO }
            }
            Wire::NoSpace
            | Wire::Conflict { .. }
            | Wire::WrongType { .. }
            | Wire::Compacted { .. }
            | Wire::TooLarge { .. }
            | Wire::EmptyKey
            | Wire::DeadlineExceeded
            | Wire::Unauthenticated
            | Wire::PermissionDenied { .. }
            | Wire::Malformed { .. }
            | Wire::Unsupported { .. }
            | Wire::WrongCluster { .. }
            | Wire::NotFound { .. }
            | Wire::Internal { .. } => Setback::Failed(Error::of(error, shard, call.deadline.whole)),
        }
    }

    /// The node cannot say what became of the request, mostly because it has stopped leading. A write's session is asked
    /// once more; then it must have been forgotten. Any other request can be done again.
    fn unknown(&self, call: &mut Call<'_>, shard: ShardId, target: Target) -> Setback {
        if call.mode != Mode::Write {
            let why = "the node that was asked does not know what became of the request".into();
            self.heard(call, shard, Error::NotReady { why });
            return Setback::Leader { shard, asked: Some(target) };
        }
        call.unknown_answers += 1;
        if call.unknown_answers < UNKNOWN_ANSWERS_MAX {
            return Setback::Busy { at_least: Duration::ZERO };
        }
        self.retire_session(call, shard);
        Setback::Failed(Error::Unknown { last: None })
    }

    /// The answering node has never heard of the session. That may be because the node is behind, so a write that may have
    /// been applied elsewhere keeps its session; any other is sent in a new one.
    fn unknown_session(&self, call: &mut Call<'_>, shard: ShardId) -> Setback {
        self.retire_session(call, shard);
        let why = "the session is not known to the shard".into();
        self.heard(call, shard, Error::NotReady { why });
        if !call.may_be_applied {
            call.write = None;
        }
        if call.hops < HOPS_MAX && !call.may_be_applied {
            call.hops += 1;
            return Setback::Now;
        }
        Setback::Busy { at_least: Duration::ZERO }
    }

    /// Writes to come begin a new session.
    fn retire_session(&self, call: &Call<'_>, shard: ShardId) {
        if let Some(write) = &call.write {
            self.shard(shard).session.retire(write.session());
        }
    }
}
