//! Snapshots to replicas that the log cannot bring up: the cells of a pinned checkpoint, in chunks, then raft's message.
//!
//! Invariants:
//! - The checkpoint that is sent is pinned, and the log is kept from its index on, while it is sent.
//! - raft is told how each snapshot it asked for ended. Its own message leaves only when the receiver has the whole.
//! - The receiver is part of the configuration that the snapshot carries; raft would drop it silently otherwise.

use std::collections::VecDeque;

use bytes::Bytes;
use mesh_base::flaw::{self, Flaw};
use mesh_base::limits::{SNAPSHOT_CHUNK_BYTES, SNAPSHOT_CHUNKS_IN_FLIGHT_MAX};
use mesh_base::{Instant, LogIndex, Now, ReplicaId};
use mesh_engine::{CellKey, KeyRange, Lookup, PinId};
use mesh_raftlog::HoldId;
use mesh_wire::{
    ConfState as WireConf, PeerMessage as WirePeer, SnapshotAck, SnapshotChunk, SnapshotMeta, SnapshotStatus,
    TransferId,
};
use raft::eraftpb::{Message, Snapshot};
use raft::{ProgressState, SnapshotStatus as RaftStatus};

use super::configuration;
use super::error::ShardError;
use super::output::{Output, PeerMessage, PeerSend};
use super::replica::{Parked, Replica};
use crate::core::LinkClass;

/// Repetitions of a chunk without an answer after which the sending is given up.
const REPETITIONS_MAX: u32 = 8;

/// A snapshot on its way to one replica.
#[derive(Debug)]
pub(super) struct Sending {
    /// raft's own message, for the end.
    message: Message,
    transfer: TransferId,
    pin: Option<PinId>,
    hold: HoldId,
    /// Where the next chunk begins; `None` when the last was made.
    rest: Rest,
    next_number: u32,
    unacknowledged: VecDeque<(u32, Bytes)>,
    last_heard: Instant,
    repetitions: u32,
    /// What the receiver was last known to have.
    matched: u64,
    stage: Stage,
}

#[derive(Debug)]
enum Rest {
    From(Option<CellKey>),
    Nothing,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Chunks,
    /// The next chunk's pages are being read.
    Reading,
    /// The receiver has everything; the log is kept until it has caught up.
    Delivered,
}

impl Sending {
    /// Chunks that are sent and not acknowledged.
    pub(super) fn unacknowledged(&self) -> usize {
        self.unacknowledged.len()
    }
}

impl Replica {
    /// raft wants a snapshot sent. It gets the newest checkpoint, which is no older than the one it knows of.
    pub(super) fn begin_sending(&mut self, now: Now, mut message: Message) -> Result<(), ShardError> {
        let to = ReplicaId(message.to);
        self.end_sending(to);
        if !configuration::contains(&self.checkpointing.durable_conf, to) {
            self.checkpointing.want();
            if !flaw::is_planted(Flaw::ForgetFailedSnapshot) {
                self.raw.report_snapshot(to.0, RaftStatus::Failure);
            }
            return Ok(());
        }
        message.set_snapshot(self.durable_snapshot());
        let index = LogIndex(message.get_snapshot().get_metadata().index);
        let pin = self.state.store.pin();
        let hold = self.log().hold(index);
        let sending = Sending {
            transfer: TransferId(now.monotonic.0),
            message,
            pin: Some(pin),
            hold,
            rest: Rest::From(None),
            next_number: 0,
            unacknowledged: VecDeque::new(),
            last_heard: now.monotonic,
            repetitions: 0,
            matched: 0,
            stage: Stage::Chunks,
        };
        tracing::info!(shard = %self.identity.shard, %to, %index, "sends a snapshot");
        self.sending.insert(to, sending);
        Ok(())
    }

    /// The newest durable checkpoint as raft knows snapshots.
    fn durable_snapshot(&self) -> Snapshot {
        let meta = self.state.store.checkpoint();
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.index = meta.applied.0;
        metadata.term = meta.term.0;
        metadata.set_conf_state(self.checkpointing.durable_conf.clone());
        snapshot
    }

    /// Offers raft the newest checkpoint, or takes one if raft wants a newer.
    pub(super) fn offer_snapshot(&mut self) {
        let Some((index, to)) = self.log().take_snapshot_request() else { return };
        let applied = self.state.store.checkpoint().applied;
        let known = configuration::contains(&self.checkpointing.durable_conf, to);
        if applied >= index && applied >= self.raw.store().first_index().prev() && known {
            let snapshot = self.durable_snapshot();
            self.log().offer_snapshot(snapshot);
        } else {
            self.checkpointing.want();
        }
    }

    /// Goes on with every sending.
    pub(super) fn send_snapshots(&mut self, now: Now, out: &mut Output) -> Result<(), ShardError> {
        self.offer_snapshot();
        let receivers: Vec<_> = self.sending.keys().copied().collect();
        for to in receivers {
            self.continue_sending(to, out)?;
            self.watch_sending(now, to, out);
        }
        Ok(())
    }

    /// Makes chunks as long as the window has room.
    fn continue_sending(&mut self, to: ReplicaId, out: &mut Output) -> Result<(), ShardError> {
        while let Some(sending) = self.sending.get_mut(&to) {
            let (Stage::Chunks, Some(pin), Rest::From(from)) = (sending.stage, sending.pin, &sending.rest)
            else {
                break;
            };
            if sending.unacknowledged.len() >= SNAPSHOT_CHUNKS_IN_FLIGHT_MAX {
                break;
            }
            match self.state.store.scan_cells(
                pin,
                KeyRange::starting_at(from.as_ref()),
                SNAPSHOT_CHUNK_BYTES,
            )? {
                Lookup::Miss(misses) => {
                    sending.stage = Stage::Reading;
                    self.park(&misses, Parked::Send(to), out);
                    break;
                }
                Lookup::Ready(chunk) => {
                    sending.rest = chunk.next.clone().map_or(Rest::Nothing, |next| Rest::From(Some(next)));
                    let number = sending.next_number;
                    sending.next_number += 1;
                    let frame = chunk_frame(self.identity, sending, &chunk, number, out);
                    sending.unacknowledged.push_back((number, frame.clone()));
                    send_chunk(to, frame, out);
                }
            }
        }
        Ok(())
    }

    /// The pages of the next chunk came.
    pub(super) fn resume_sending(&mut self, to: ReplicaId, out: &mut Output) -> Result<(), ShardError> {
        if let Some(sending) = self.sending.get_mut(&to)
            && sending.stage == Stage::Reading
        {
            sending.stage = Stage::Chunks;
        }
        self.continue_sending(to, out)
    }

    /// Repeats what is not acknowledged in time; gives up at last; ends what has done its work.
    fn watch_sending(&mut self, now: Now, to: ReplicaId, out: &mut Output) {
        let Some(sending) = self.sending.get_mut(&to) else { return };
        let silent = now.monotonic.since(sending.last_heard);
        if sending.stage == Stage::Delivered {
            let matched = self.raw.raft.prs().get(to.0).map_or(u64::MAX, |progress| progress.matched);
            if matched > sending.matched {
                sending.matched = matched;
                sending.last_heard = now.monotonic;
            }
            let awaits = self.raw.raft.prs().get(to.0).is_some_and(|it| it.state == ProgressState::Snapshot);
            if awaits {
                // The message, or the answer to it, was lost.
                if silent >= self.options.snapshot_patience {
                    self.raw.report_snapshot(to.0, RaftStatus::Finish);
                }
                return;
            }
            // The log is kept until the receiver has caught up, or has long made no progress.
            if self.is_caught_up(to) || silent >= self.options.snapshot_patience * 10 {
                self.end_sending(to);
            }
            return;
        }
        if silent < self.options.snapshot_patience || sending.stage == Stage::Reading {
            return;
        }
        sending.last_heard = now.monotonic;
        sending.repetitions += 1;
        if sending.repetitions > REPETITIONS_MAX {
            tracing::warn!(shard = %self.identity.shard, %to, "a snapshot's receiver does not answer");
            self.end_sending(to);
            self.raw.report_snapshot(to.0, RaftStatus::Failure);
            return;
        }
        let frames: Vec<_> = sending.unacknowledged.iter().map(|(_, frame)| frame.clone()).collect();
        for frame in frames {
            send_chunk(to, frame, out);
        }
    }

    /// A receiver tells how far it is.
    pub(super) fn on_ack(&mut self, now: Now, ack: &SnapshotAck, out: &mut Output) -> Result<(), ShardError> {
        let to = ack.from;
        let Some(sending) = self.sending.get_mut(&to) else { return Ok(()) };
        if sending.transfer != ack.transfer || ack.to != self.identity.replica {
            return Ok(());
        }
        sending.last_heard = now.monotonic;
        sending.repetitions = 0;
        match ack.status {
            SnapshotStatus::Ok => {
                while sending.unacknowledged.pop_front_if(|(number, _)| *number < ack.next).is_some() {}
                self.continue_sending(to, out)
            }
            SnapshotStatus::Done if sending.stage != Stage::Delivered => {
                sending.stage = Stage::Delivered;
                sending.unacknowledged.clear();
                let (message, pin) = (sending.message.clone(), sending.pin.take());
                out.raft(message);
                if let Some(pin) = pin {
                    self.state.store.unpin(pin);
                }
                // raft hears that it is taken in from the receiver itself; what it sends before that is refused.
                Ok(())
            }
            SnapshotStatus::Done => Ok(()),
            SnapshotStatus::Failed => {
                self.end_sending(to);
                self.raw.report_snapshot(to.0, RaftStatus::Failure);
                Ok(())
            }
        }
    }

    /// Lets go of everything that a sending holds. The pages that it waits for are not those of the next one.
    pub(super) fn end_sending(&mut self, to: ReplicaId) {
        if let Some(sending) = self.sending.remove(&to) {
            self.unpark_if(|parked| matches!(parked, Parked::Send(receiver) if *receiver == to));
            if let Some(pin) = sending.pin {
                self.state.store.unpin(pin);
            }
            self.log().release(sending.hold);
        }
    }

    /// This replica leads no more: what it sends is of no use.
    pub(super) fn end_all_sendings(&mut self) {
        let receivers: Vec<_> = self.sending.keys().copied().collect();
        for to in receivers {
            self.end_sending(to);
        }
    }
}

fn send_chunk(to: ReplicaId, frame: Bytes, out: &mut Output) {
    out.peers.push(PeerSend { to, class: LinkClass::Bulk, message: PeerMessage::Chunk(frame) });
}

fn chunk_frame(
    identity: mesh_base::ReplicaIdentity,
    sending: &Sending,
    chunk: &mesh_engine::SnapshotChunk,
    number: u32,
    out: &mut Output,
) -> Bytes {
    let meta = sending.message.get_snapshot().get_metadata();
    let ids = |ids: &[u64]| ids.iter().map(|&id| ReplicaId(id)).collect::<Vec<_>>();
    let (voters, learners) = (ids(&meta.get_conf_state().voters), ids(&meta.get_conf_state().learners));
    let message = SnapshotChunk {
        shard: identity.shard,
        from: identity.replica,
        to: ReplicaId(sending.message.to),
        transfer: sending.transfer,
        number,
        last: chunk.next.is_none(),
        meta: SnapshotMeta {
            index: meta.index.into(),
            term: meta.term.into(),
            conf: WireConf { voters: (&voters).into(), learners: (&learners).into(), ..WireConf::default() },
        },
        bytes: &chunk.bytes,
    };
    out.frame(&WirePeer::SnapshotChunk(message)).unwrap_or_default()
}
