//! Snapshots from other replicas: built up in a store beside the live one, and put in its place when raft says so.
//!
//! A leader offers a snapshot, and this side says where its chunks shall begin: at the start, or where the staged store is
//! that a broken link or a restart left behind. When nothing comes it says so again. A new leader offers one of its own,
//! but what is on its way from a replica that lives goes on, as long as the leader's log goes on from there.
//!
//! Invariants:
//! - raft sees a snapshot's message only when the staged store holds the whole of that very snapshot, durably.
//! - A new staged store is begun, or one of an earlier run opened or removed, only when the log no longer names an
//!   installation to be finished.
//! - What is of no use any more gives its disk space back: at the latest `snapshot_resume_within` after the last word from
//!   the sender.

use std::time::Duration;

use mesh_base::io::{Completion, FileId, IoOp, IoPort, IoToken, Lane};
use mesh_base::{CheckpointNo, Instant, LogIndex, Now, ReplicaIdentity};
use mesh_engine::{SnapshotSource, Store};
use raft::eraftpb::{Snapshot, SnapshotMetadata};

use super::error::ShardError;
use super::installing::Installing;
use super::output::Output;
use super::replica::Replica;
use super::snapshot::{Ack, AckStatus, Chunk, Offer, Place};
use super::staging::{Staging, StagingNews};

/// A sender that said nothing for so many times the patience may be gone: another may take its place.
const SILENCE_MAX: u32 = 8;
/// Most doublings of the time before another attempt after those that failed.
const FAILURES_MAX: u32 = 6;
/// Most doublings of the time between two questions to a silent sender.
const DOUBLINGS_MAX: u32 = 2;

/// The receiving end.
pub(super) struct Receiving {
    pub(super) port: IoPort,
    pub(super) phase: Phase,
    /// Attempts that failed in a row, and the time before which no other is made: for want of space each would fill the
    /// disk again, and take it from the other shards of the node.
    failures: u32,
    not_before: Instant,
}

pub(super) enum Phase {
    /// An earlier run may have left a staged store behind, which is kept until that time.
    Leftover(Option<Instant>),
    /// There is no staged store.
    Idle,
    Transfer(Box<Transfer>),
    /// The staged store's file is being removed.
    Removing(IoToken),
    Installing(Box<Installing>),
}

/// A snapshot being received.
pub(super) struct Transfer {
    staging: Staging,
    /// What raft knows of it; without a configuration until its sender was heard.
    snapshot: Snapshot,
    last_heard: Instant,
    last_asked: Instant,
    /// Questions since a chunk came.
    questions: u32,
}

impl Receiving {
    pub(super) const fn new() -> Self {
        // The numbers of this lane's tokens may repeat those of the start: all of those have come back.
        let phase = Phase::Leftover(None);
        Self { port: IoPort::new(Lane::Replica), phase, failures: 0, not_before: Instant::ZERO }
    }

    /// Whether a snapshot is being received or installed.
    pub(super) const fn is_busy(&self) -> bool {
        match &self.phase {
            Phase::Leftover(_) | Phase::Idle | Phase::Removing(_) => false,
            Phase::Transfer(transfer) => !transfer.staging.has_failed(),
            Phase::Installing(_) => true,
        }
    }

    /// Chunks that were received and not taken in yet.
    pub(super) fn queued(&self) -> usize {
        match &self.phase {
            Phase::Transfer(transfer) => transfer.staging.queued(),
            _ => 0,
        }
    }

    /// Fetches that the loading of a received store's records waits for.
    pub(super) fn loading_fetches(&self) -> usize {
        match &self.phase {
            Phase::Installing(installing) => installing.fetches_waiting(),
            _ => 0,
        }
    }

    /// Whether one takes the live store's place: nothing is applied or read until it has.
    pub(super) const fn is_installing(&self) -> bool {
        matches!(self.phase, Phase::Installing(_))
    }

    /// Whether the staged store holds this snapshot, whole and durable.
    pub(super) fn holds(&self, meta: &SnapshotMetadata) -> bool {
        let Phase::Transfer(transfer) = &self.phase else { return false };
        let held = transfer.snapshot.get_metadata();
        transfer.staging.is_whole() && (held.index, held.term) == (meta.index, meta.term)
    }
}

impl Transfer {
    fn new(now: Now, staging: Staging, snapshot: Snapshot) -> Box<Self> {
        let (last_heard, last_asked) = (now.monotonic, now.monotonic);
        Box::new(Self { staging, snapshot, last_heard, last_asked, questions: 0 })
    }

    /// The whole store and its checkpoint.
    pub(super) fn into_store(self) -> Option<(Store, CheckpointNo)> {
        self.staging.into_store()
    }

    /// Whether it is of use to a leader whose log begins behind an entry: its sender may live, or is not needed.
    fn serves(&self, now: Now, least: LogIndex, patience: Duration) -> bool {
        let is_silent = now.monotonic.since(self.last_heard) >= patience * SILENCE_MAX;
        let needs_nothing = self.staging.is_whole() || self.staging.expected() == Some(&Place::End);
        let is_there = needs_nothing || !is_silent;
        is_there && !self.staging.has_failed() && self.staging.source().applied >= least
    }

    /// The staged store turned out to be of another snapshot, or one is sent of which only the name was known.
    fn settle_snapshot(&mut self) {
        let source = self.staging.source();
        let held = self.snapshot.get_metadata();
        if (held.index, held.term) != (source.applied.0, source.term.0) {
            let mut metadata = SnapshotMetadata::default();
            (metadata.index, metadata.term) = (source.applied.0, source.term.0);
            self.snapshot.set_metadata(metadata);
        }
    }

    fn knows_configuration(&self) -> bool {
        !self.snapshot.get_metadata().get_conf_state().voters.is_empty()
    }

    fn acknowledge(&self, identity: ReplicaIdentity, status: AckStatus, out: &mut Output) {
        acknowledge(identity, self.staging.source(), status, out);
    }

    /// Says where the next chunk shall begin, if chunks can come.
    fn ask(&mut self, now: Now, identity: ReplicaIdentity, out: &mut Output) {
        if let Some(place) = self.staging.expected().cloned() {
            self.last_asked = now.monotonic;
            let status = match place {
                Place::End => AckStatus::Ok(self.staging.taken_in().unwrap_or(Place::End)),
                Place::Before(_) => AckStatus::Resume(place),
            };
            self.acknowledge(identity, status, out);
        }
    }
}

fn acknowledge(identity: ReplicaIdentity, source: SnapshotSource, status: AckStatus, out: &mut Output) {
    let SnapshotSource { replica: to, checkpoint, applied: index, .. } = source;
    Ack { from: identity.replica, to, checkpoint, index, status }.send(identity.shard, out);
}

impl Replica {
    /// A leader has a snapshot for this replica.
    pub(super) fn on_offer(&mut self, now: Now, offer: Offer, out: &mut Output) {
        if offer.to != self.identity.replica || self.receiving.is_installing() || self.is_restoring() {
            return;
        }
        if offer.source.applied.0 <= self.raw.raft.raft_log.committed {
            // There is nothing to receive: raft's own message settles the rest.
            acknowledge(self.identity, offer.source, AckStatus::Done(offer.snapshot), out);
            return;
        }
        let (identity, patience) = (self.identity, self.options.snapshot_patience);
        let io = &mut out.io;
        match &mut self.receiving.phase {
            Phase::Transfer(transfer) if transfer.staging.source() == offer.source => {
                transfer.last_heard = now.monotonic;
                transfer.snapshot = offer.snapshot;
                if transfer.staging.is_whole() {
                    let held = transfer.snapshot.clone();
                    transfer.acknowledge(identity, AckStatus::Done(held), out);
                } else {
                    transfer.ask(now, identity, out);
                }
            }
            Phase::Transfer(transfer) => {
                let held = transfer.staging.source();
                let is_other = held.replica != offer.source.replica || transfer.staging.is_whole();
                let is_older =
                    (offer.source.applied, offer.source.checkpoint) < (held.applied, held.checkpoint);
                if !is_other && is_older {
                    // It was long on its way: what a replica offers only gets newer.
                    return;
                }
                if is_other && transfer.serves(now, offer.least, patience) {
                    let held = transfer.snapshot.clone();
                    let is_whole = transfer.staging.is_whole() && transfer.knows_configuration();
                    let status = if is_whole { AckStatus::Done(held) } else { AckStatus::Elsewhere(held) };
                    acknowledge(identity, offer.source, status, out);
                } else {
                    // The next offer finds it gone.
                    transfer.staging.give_up();
                }
            }
            _ if self.raw.store().install_is_pending() || now.monotonic < self.receiving.not_before => {}
            Phase::Leftover(_) => {
                let staging = Staging::open(identity, &self.options, offer.source, offer.least, io);
                self.receiving.phase = Phase::Transfer(Transfer::new(now, staging, offer.snapshot));
            }
            Phase::Idle => {
                let staging = Staging::create(identity, &self.options, offer.source, io);
                self.receiving.phase = Phase::Transfer(Transfer::new(now, staging, offer.snapshot));
            }
            Phase::Removing(_) | Phase::Installing(_) => {}
        }
    }

    /// A chunk arrived.
    pub(super) fn on_chunk(&mut self, now: Now, chunk: Chunk, out: &mut Output) {
        if chunk.to != self.identity.replica || self.receiving.is_installing() || self.is_restoring() {
            return;
        }
        if chunk.source.applied.0 <= self.raw.raft.raft_log.committed {
            acknowledge(self.identity, chunk.source, AckStatus::Done(chunk.snapshot), out);
            return;
        }
        let identity = self.identity;
        match &mut self.receiving.phase {
            Phase::Transfer(transfer) if transfer.staging.source() == chunk.source => {
                transfer.last_heard = now.monotonic;
                transfer.snapshot = chunk.snapshot;
                if transfer.staging.enqueue(chunk.bytes) {
                    transfer.questions = 0;
                } else if let Some(place) = transfer.staging.taken_in() {
                    // It came before, or something before it did not.
                    transfer.acknowledge(identity, AckStatus::Ok(place), out);
                }
            }
            Phase::Transfer(transfer) if !transfer.staging.has_failed() => {
                // Of a sender that does not know that another took its place.
                let held = transfer.snapshot.clone();
                acknowledge(identity, chunk.source, AckStatus::Elsewhere(held), out);
            }
            Phase::Leftover(_) if !self.raw.store().install_is_pending() => {
                // This replica has restarted meanwhile.
                let least = chunk.source.applied;
                let staging = Staging::open(identity, &self.options, chunk.source, least, &mut out.io);
                self.receiving.phase = Phase::Transfer(Transfer::new(now, staging, chunk.snapshot));
            }
            Phase::Idle => acknowledge(identity, chunk.source, AckStatus::Failed, out),
            _ => {}
        }
    }

    /// Whether raft has taken in a snapshot in this turn: the staged store that holds it must stay.
    fn is_restoring(&self) -> bool {
        self.raw.snap().is_some_and(|snapshot| !snapshot.is_empty())
    }

    /// Goes on with what is being received.
    pub(super) fn continue_receiving(&mut self, now: Now, out: &mut Output) -> Result<(), ShardError> {
        if let Phase::Transfer(transfer) = &mut self.receiving.phase {
            transfer.staging.load(now.monotonic, &self.options, out)?;
            self.tell_of_staging(now, out);
        }
        Ok(())
    }

    /// Tells the sender what became of the staged store.
    fn tell_of_staging(&mut self, now: Now, out: &mut Output) {
        let (identity, patience) = (self.identity, self.options.snapshot_patience);
        let Phase::Transfer(transfer) = &mut self.receiving.phase else { return };
        transfer.settle_snapshot();
        while let Some(news) = transfer.staging.next_news() {
            match news {
                StagingNews::Ready => transfer.ask(now, identity, out),
                StagingNews::Loaded => {
                    if let Some(place) = transfer.staging.taken_in() {
                        transfer.acknowledge(identity, AckStatus::Ok(place), out);
                    }
                }
                StagingNews::Whole if transfer.knows_configuration() => {
                    self.receiving.failures = 0;
                    let held = transfer.snapshot.clone();
                    transfer.acknowledge(identity, AckStatus::Done(held), out);
                }
                StagingNews::Whole => {}
                StagingNews::Failed => {
                    transfer.acknowledge(identity, AckStatus::Failed, out);
                    let pause = patience * (1 << self.receiving.failures.min(FAILURES_MAX));
                    self.receiving.failures += 1;
                    self.receiving.not_before = now.monotonic + pause;
                }
            }
        }
        if transfer.staging.is_over() {
            let op = IoOp::Remove { file: FileId::StagedStore };
            self.receiving.phase = Phase::Removing(self.receiving.port.submit(&mut out.io, op));
        }
    }

    /// An operation of the staged store, or between it and the live one, ended.
    pub(super) fn on_staged_completion(
        &mut self,
        now: Now,
        completion: Completion,
        out: &mut Output,
    ) -> Result<(), ShardError> {
        match &mut self.receiving.phase {
            Phase::Transfer(transfer) => {
                transfer.staging.complete(completion, &mut out.io)?;
                self.tell_of_staging(now, out);
                Ok(())
            }
            Phase::Removing(token) if *token == completion.token => {
                completion.result?;
                self.receiving.phase = Phase::Idle;
                Ok(())
            }
            Phase::Installing(_) => self.install_completion(now, completion, out),
            Phase::Leftover(_) | Phase::Idle | Phase::Removing(_) => Ok(()),
        }
    }

    /// Asks a sender that is silent, and lets go of a snapshot whose sender is gone, or that the log has overtaken.
    pub(super) fn watch_receiving(&mut self, now: Now, out: &mut Output) {
        if self.is_restoring() {
            return;
        }
        let committed = self.raw.raft.raft_log.committed;
        let (patience, within) = (self.options.snapshot_patience, self.options.snapshot_resume_within);
        let identity = self.identity;
        match &mut self.receiving.phase {
            Phase::Transfer(transfer) => {
                let silence = now.monotonic.since(transfer.last_heard);
                if transfer.staging.source().applied.0 <= committed || silence >= within {
                    transfer.staging.give_up();
                }
                let due = patience * (1 << transfer.questions.min(DOUBLINGS_MAX));
                let asked = now.monotonic.since(transfer.last_asked);
                if transfer.staging.is_hungry() && silence.min(asked) >= due {
                    transfer.questions += 1;
                    transfer.ask(now, identity, out);
                }
                self.tell_of_staging(now, out);
            }
            Phase::Leftover(until) => {
                let until = *until.get_or_insert(now.monotonic + within);
                if now.monotonic >= until && !self.raw.store().install_is_pending() {
                    let op = IoOp::Remove { file: FileId::StagedStore };
                    self.receiving.phase = Phase::Removing(self.receiving.port.submit(&mut out.io, op));
                }
            }
            Phase::Idle | Phase::Removing(_) | Phase::Installing(_) => {}
        }
    }
}
