//! Snapshots from the leader: built up in a store beside the live one, and put in its place when raft says so.
//!
//! Invariants:
//! - raft sees a snapshot's message only when the staged store holds the whole of that very snapshot, durably.
//! - The log's record of the installation is durable before the staged store takes the live one's name; from then on a
//!   restart finishes it.
//! - The live store has no operation in flight when its file is replaced.
//! - A new staged store is begun only when the log no longer names an installation to be finished.

use std::collections::VecDeque;

use bytes::Bytes;
use mesh_base::flaw::{self, Flaw};
use mesh_base::io::{Completion, FileId, IoOp, IoPort, IoQueue, IoToken, Lane};
use mesh_base::limits::SNAPSHOT_CHUNKS_IN_FLIGHT_MAX;
use mesh_base::{BatchSeq, CheckpointNo, Instant, LogIndex, Now, ReplicaId, ReplicaIdentity, Revision, Term};
use mesh_engine::{CheckpointMeta, FetchId, Lookup, Opening, Store, StoreEvent, StoreOptions};
use mesh_raftlog::{CheckpointMark, SnapshotBase};
use mesh_wire::{Error, SnapshotAck, SnapshotStatus, TransferId};
use raft::eraftpb::{Snapshot, SnapshotMetadata};

use super::error::ShardError;
use super::output::{News, Output, PeerMessage, PeerSend};
use super::replica::{Parked, Replica};
use super::startup::{Loading, Progress};
use super::state::State;
use super::upkeep::Tidying;
use crate::core::LinkClass;

/// A part of a snapshot.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) from: ReplicaId,
    pub(super) to: ReplicaId,
    pub(super) transfer: TransferId,
    pub(super) number: u32,
    pub(super) last: bool,
    pub(super) snapshot: Snapshot,
    pub(super) bytes: Bytes,
}

/// The receiving end.
pub(super) struct Receiving {
    identity: ReplicaIdentity,
    port: IoPort,
    phase: Phase,
}

enum Phase {
    Idle,
    Transfer(Box<Transfer>),
    Installing(Box<Installing>),
}

/// A snapshot being received.
struct Transfer {
    id: TransferId,
    from: ReplicaId,
    snapshot: Snapshot,
    /// The number of the next chunk to take in.
    next: u32,
    queue: VecDeque<(Bytes, Last)>,
    step: Step,
    last_heard: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Last {
    Yes,
    No,
}

enum Step {
    Creating(Opening),
    Ingesting {
        store: Store,
        fetches: Vec<FetchId>,
        pause: Pause,
    },
    Complete {
        store: Store,
        checkpoint: CheckpointNo,
    },
    /// It was given up; its store's operations come to their end.
    GivenUp {
        store: Store,
    },
    Gone,
}

/// Why no chunk is taken in at present.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pause {
    No,
    Fetching(FetchId),
    Saving(Last),
}

/// A received snapshot taking the live store's place.
struct Installing {
    base: SnapshotBase,
    step: InstallStep,
}

enum InstallStep {
    /// The log's record, and the live store's last operations.
    Deciding {
        batch: BatchSeq,
        staged: Box<Store>,
    },
    Renaming {
        token: IoToken,
        staged: Box<Store>,
    },
    NameDurable {
        token: IoToken,
        staged: Box<Store>,
    },
    Loading(Box<Loading>),
    Over,
}

impl Receiving {
    pub(super) const fn new(identity: ReplicaIdentity) -> Self {
        // The numbers of this lane's tokens may repeat those of the start: all of those have come back.
        Self { identity, port: IoPort::new(Lane::Replica), phase: Phase::Idle }
    }

    /// Whether a snapshot is being received or installed.
    pub(super) const fn is_busy(&self) -> bool {
        !matches!(self.phase, Phase::Idle)
    }

    /// Chunks that were received and not taken in yet.
    pub(super) fn queued(&self) -> usize {
        match &self.phase {
            Phase::Transfer(transfer) => transfer.queue.len(),
            Phase::Idle | Phase::Installing(_) => 0,
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
        matches!(transfer.step, Step::Complete { .. }) && (held.index, held.term) == (meta.index, meta.term)
    }

    fn begin(&mut self, now: Now, chunk: &Chunk, options: StoreOptions, io: &mut IoQueue) {
        let opening = Opening::create(FileId::StagedStore, self.identity, options, io);
        self.phase = Phase::Transfer(Box::new(Transfer {
            id: chunk.transfer,
            from: chunk.from,
            snapshot: chunk.snapshot.clone(),
            next: 0,
            queue: VecDeque::new(),
            step: Step::Creating(opening),
            last_heard: now.monotonic,
        }));
    }
}

impl Transfer {
    /// Lets go of what was received so far. `true` when nothing of it is under way any more.
    fn give_up(&mut self) -> bool {
        self.queue.clear();
        self.step = match std::mem::replace(&mut self.step, Step::Gone) {
            Step::Ingesting { store, .. } | Step::Complete { store, .. } | Step::GivenUp { store }
                if !store.is_quiet() =>
            {
                Step::GivenUp { store }
            }
            Step::Ingesting { .. } | Step::Complete { .. } | Step::GivenUp { .. } | Step::Gone => Step::Gone,
            // This ends soon by itself.
            step @ Step::Creating(_) => step,
        };
        matches!(self.step, Step::Gone)
    }

    fn ack(&self, identity: ReplicaIdentity, status: SnapshotStatus, out: &mut Output) {
        let ack = SnapshotAck {
            shard: identity.shard,
            from: identity.replica,
            to: self.from,
            transfer: self.id,
            next: self.next,
            status,
        };
        send_ack(ack, out);
    }
}

fn send_ack(ack: SnapshotAck, out: &mut Output) {
    let message = PeerMessage::Ack(ack);
    out.peers.push(PeerSend { to: ack.to, class: LinkClass::Control, message });
}

impl Replica {
    /// A chunk arrived.
    pub(super) fn on_chunk(&mut self, now: Now, chunk: Chunk, out: &mut Output) -> Result<(), ShardError> {
        if chunk.to != self.identity.replica || self.receiving.is_installing() || self.is_restoring() {
            return Ok(());
        }
        let meta = chunk.snapshot.get_metadata();
        let answer = |next, status| SnapshotAck {
            shard: self.identity.shard,
            from: self.identity.replica,
            to: chunk.from,
            transfer: chunk.transfer,
            next,
            status,
        };
        if meta.index <= self.raw.raft.raft_log.committed || self.receiving.holds(meta) {
            // There is nothing left to receive: raft's own message settles the rest.
            send_ack(answer(chunk.number + 1, SnapshotStatus::Done), out);
            return Ok(());
        }
        let options = self.staged_options();
        match &mut self.receiving.phase {
            Phase::Transfer(transfer) if transfer.id == chunk.transfer && transfer.from == chunk.from => {}
            Phase::Transfer(transfer) if chunk.number == 0 => {
                // Another sending has begun. The old one is let go; the first chunk will be sent again.
                if transfer.give_up() {
                    self.receiving.begin(now, &chunk, options, &mut out.io);
                }
            }
            Phase::Idle if chunk.number == 0 && !self.raw.store().install_is_pending() => {
                self.receiving.begin(now, &chunk, options, &mut out.io);
            }
            Phase::Idle | Phase::Transfer(_) | Phase::Installing(_) => {
                send_ack(answer(0, SnapshotStatus::Failed), out);
                return Ok(());
            }
        }
        self.take_chunk(now, chunk, out)
    }

    /// Whether raft has taken in a snapshot in this turn: the staged store that holds it must stay.
    fn is_restoring(&self) -> bool {
        self.raw.snap().is_some_and(|snapshot| !snapshot.is_empty())
    }

    fn take_chunk(&mut self, now: Now, chunk: Chunk, out: &mut Output) -> Result<(), ShardError> {
        let identity = self.identity;
        let Phase::Transfer(transfer) = &mut self.receiving.phase else { return Ok(()) };
        if transfer.id != chunk.transfer {
            return Ok(());
        }
        transfer.last_heard = now.monotonic;
        let queued = u32::try_from(transfer.queue.len()).unwrap_or(u32::MAX);
        // The last chunk counts as received only when all is saved, which may take long: until then the sender repeats
        // it, and hears each time that this side lives.
        let is_saving = matches!(transfer.step, Step::Ingesting { pause: Pause::Saving(Last::Yes), .. });
        if chunk.number < transfer.next + queued || is_saving {
            transfer.ack(identity, SnapshotStatus::Ok, out);
        } else if chunk.number == transfer.next + queued
            && transfer.queue.len() < SNAPSHOT_CHUNKS_IN_FLIGHT_MAX
        {
            transfer.queue.push_back((chunk.bytes, if chunk.last { Last::Yes } else { Last::No }));
        }
        self.ingest(out)
    }

    /// Takes queued chunks into the staged store.
    fn ingest(&mut self, out: &mut Output) -> Result<(), ShardError> {
        let identity = self.identity;
        let unsaved_max = self.options.checkpoint.at_bytes;
        let Phase::Transfer(transfer) = &mut self.receiving.phase else { return Ok(()) };
        let transfer = transfer.as_mut();
        while let Step::Ingesting { store, fetches, pause: pause @ Pause::No } = &mut transfer.step {
            let Some((bytes, last)) = transfer.queue.pop_front() else { break };
            match store.ingest(&bytes) {
                Ok(Lookup::Miss(misses)) => {
                    transfer.queue.push_front((bytes, last));
                    let fetch = store.fetch(&misses, &mut out.io);
                    fetches.push(fetch);
                    *pause = Pause::Fetching(fetch);
                }
                Ok(Lookup::Ready(_)) => {
                    for fetch in fetches.drain(..) {
                        store.release(fetch);
                    }
                    if last == Last::No {
                        transfer.next += 1;
                    }
                    if last == Last::Yes || store.dirty_bytes() as u64 >= unsaved_max {
                        let meta = transfer.snapshot.get_metadata();
                        let applied = if last == Last::Yes { meta.index } else { 0 };
                        store.begin_checkpoint(&CheckpointMeta {
                            applied: LogIndex(applied),
                            term: Term(meta.term),
                            revision: Revision::ZERO,
                        });
                        *pause = Pause::Saving(last);
                    }
                    if last == Last::No {
                        transfer.ack(identity, SnapshotStatus::Ok, out);
                    }
                }
                Err(error) => {
                    tracing::warn!(shard = %identity.shard, %error, "a snapshot cannot be received");
                    transfer.ack(identity, SnapshotStatus::Failed, out);
                    transfer.give_up();
                    return Ok(());
                }
            }
        }
        if let Step::Ingesting { store, .. } = &mut transfer.step {
            store.pump(&mut out.io)?;
        }
        Ok(())
    }

    /// What the staged store has to tell.
    fn take_staged_events(&mut self, out: &mut Output) {
        let identity = self.identity;
        let Phase::Transfer(transfer) = &mut self.receiving.phase else { return };
        let transfer = transfer.as_mut();
        let Step::Ingesting { store, pause, .. } = &mut transfer.step else { return };
        let (mut saved, mut full) = (None, false);
        while let Some(event) = store.next_event() {
            match (event, *pause) {
                (StoreEvent::Fetched(fetch), Pause::Fetching(wanted)) if fetch == wanted => {
                    *pause = Pause::No;
                }
                (StoreEvent::CheckpointDone { checkpoint, .. }, Pause::Saving(last)) => {
                    *pause = Pause::No;
                    saved = (last == Last::Yes).then_some(checkpoint);
                }
                (StoreEvent::CheckpointNoSpace { .. }, _) => full = true,
                _ => {}
            }
        }
        if full {
            transfer.ack(identity, SnapshotStatus::Failed, out);
            transfer.give_up();
        } else if let Some(checkpoint) = saved
            && let Step::Ingesting { store, .. } = std::mem::replace(&mut transfer.step, Step::Gone)
        {
            transfer.next += 1;
            transfer.ack(identity, SnapshotStatus::Done, out);
            transfer.step = Step::Complete { store, checkpoint };
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
            Phase::Idle => Ok(()),
            Phase::Transfer(_) => self.transfer_completion(completion, out),
            Phase::Installing(_) => self.install_completion(now, completion, out),
        }
    }

    fn transfer_completion(&mut self, completion: Completion, out: &mut Output) -> Result<(), ShardError> {
        let Receiving { phase, .. } = &mut self.receiving;
        let Phase::Transfer(transfer) = phase else { return Ok(()) };
        let transfer = transfer.as_mut();
        transfer.step = match std::mem::replace(&mut transfer.step, Step::Gone) {
            Step::Creating(mut opening) => match opening.complete(completion, &mut out.io) {
                Ok(Some(opened)) => {
                    Step::Ingesting { store: opened.store, fetches: Vec::new(), pause: Pause::No }
                }
                Ok(None) => Step::Creating(opening),
                Err(error) => {
                    let error = ShardError::from(error);
                    if !error.is_no_space() {
                        return Err(error);
                    }
                    // The sender tries again, when there may be space.
                    transfer.ack(self.identity, SnapshotStatus::Failed, out);
                    Step::Gone
                }
            },
            Step::Ingesting { mut store, fetches, pause } => {
                store.complete(completion, &mut out.io)?;
                store.pump(&mut out.io)?;
                Step::Ingesting { store, fetches, pause }
            }
            Step::GivenUp { mut store } => {
                // Its failure, too, ends only what was received.
                let _ = store.complete(completion, &mut out.io);
                if store.is_quiet() { Step::Gone } else { Step::GivenUp { store } }
            }
            step @ (Step::Complete { .. } | Step::Gone) => step,
        };
        self.take_staged_events(out);
        self.ingest(out)?;
        // A fetch of pages that were there is announced at once.
        self.take_staged_events(out);
        self.ingest(out)?;
        if matches!(&self.receiving.phase, Phase::Transfer(transfer) if matches!(transfer.step, Step::Gone)) {
            self.receiving.phase = Phase::Idle;
        }
        Ok(())
    }

    fn staged_options(&self) -> StoreOptions {
        StoreOptions { frame_bytes_max: self.options.store.frame_bytes_max / 4, ..self.options.store.clone() }
    }

    /// Lets go of a snapshot whose sender is gone, or that the log has overtaken.
    pub(super) fn watch_receiving(&mut self, now: Now) {
        if self.is_restoring() {
            return;
        }
        let committed = self.raw.raft.raft_log.committed;
        let patience = self.options.snapshot_patience * 10;
        let Phase::Transfer(transfer) = &mut self.receiving.phase else { return };
        let overtaken = transfer.snapshot.get_metadata().index <= committed;
        let silent = now.monotonic.since(transfer.last_heard) >= patience;
        if (overtaken || silent) && transfer.give_up() {
            self.receiving.phase = Phase::Idle;
        }
    }

    /// raft accepted the snapshot that the staged store holds: the log notes it first.
    pub(super) fn begin_install(&mut self, meta: &SnapshotMetadata) -> Result<(), ShardError> {
        let phase = std::mem::replace(&mut self.receiving.phase, Phase::Idle);
        let Phase::Transfer(transfer) = phase else {
            return Err(ShardError::NoStagedStore { index: meta.index });
        };
        let Step::Complete { store, checkpoint } = transfer.step else {
            return Err(ShardError::NoStagedStore { index: meta.index });
        };
        let base = SnapshotBase { index: LogIndex(meta.index), term: Term(meta.term), checkpoint };
        let batch = self.log().install(base)?;
        let step = InstallStep::Deciding { batch, staged: Box::new(store) };
        self.receiving.phase = Phase::Installing(Box::new(Installing { base, step }));
        self.end_all_sendings();
        Ok(())
    }

    /// Goes on with an installation as far as what is durable allows.
    pub(super) fn continue_install(&mut self, now: Now, out: &mut Output) -> Result<(), ShardError> {
        let durable = self.raw.store().durable().seq();
        let quiet = self.state.store.is_quiet();
        let Receiving { port, phase, .. } = &mut self.receiving;
        let Phase::Installing(installing) = phase else { return Ok(()) };
        installing.step = match std::mem::replace(&mut installing.step, InstallStep::Over) {
            InstallStep::Deciding { batch, staged }
                if quiet && (batch <= durable || flaw::is_planted(Flaw::InstallBeforeDecided)) =>
            {
                let op = IoOp::Rename { from: FileId::StagedStore, to: FileId::Store };
                InstallStep::Renaming { token: port.submit(&mut out.io, op), staged }
            }
            InstallStep::Loading(mut loading) => {
                if loading.advance(&mut out.io)? == Progress::Done {
                    return self.installed(now, loading.into_state(), out);
                }
                InstallStep::Loading(loading)
            }
            step => step,
        };
        Ok(())
    }

    fn install_completion(
        &mut self,
        now: Now,
        completion: Completion,
        out: &mut Output,
    ) -> Result<(), ShardError> {
        let Receiving { port, phase, .. } = &mut self.receiving;
        let Phase::Installing(installing) = phase else { return Ok(()) };
        installing.step = match std::mem::replace(&mut installing.step, InstallStep::Over) {
            InstallStep::Renaming { token, staged } if token == completion.token => {
                completion.result?;
                InstallStep::NameDurable { token: port.submit(&mut out.io, IoOp::SyncDirectory), staged }
            }
            InstallStep::NameDurable { token, mut staged } if token == completion.token => {
                completion.result?;
                staged.promote();
                InstallStep::Loading(Box::new(Loading::new(None, State::new(*staged))))
            }
            step => step,
        };
        self.continue_install(now, out)
    }

    /// An operation of the live store ended, or of the one that takes its place.
    pub(super) fn on_store_completion(
        &mut self,
        now: Now,
        completion: Completion,
        out: &mut Output,
    ) -> Result<(), ShardError> {
        if let Phase::Installing(installing) = &mut self.receiving.phase {
            if let InstallStep::Loading(loading) = &mut installing.step {
                loading.store().complete(completion, &mut out.io)?;
            } else {
                // What the old store still had to read or write concerns nobody any more.
                self.state.store.complete(completion, &mut out.io)?;
            }
            return self.continue_install(now, out);
        }
        self.state.store.complete(completion, &mut out.io)?;
        self.take_store_events(now, out)
    }

    /// The received state is the replica's now.
    fn installed(&mut self, now: Now, state: State, out: &mut Output) -> Result<(), ShardError> {
        let Phase::Installing(installing) = std::mem::replace(&mut self.receiving.phase, Phase::Idle) else {
            return Ok(());
        };
        let base = installing.base;
        assert_eq!(state.applied.index, base.index, "the staged store holds the snapshot that was installed");
        tracing::info!(shard = %self.identity.shard, index = %base.index, "installed a snapshot");
        self.state = state;
        self.newest = self.newest.max(self.state.newest);
        self.committed.retain(|entry| entry.index > base.index.0);
        self.apply_is_parked = false;
        self.tidying = Tidying::default();
        let conf = self.state.conf.clone();
        self.log().set_conf_state(conf.clone());
        self.checkpointing.restart(conf);
        self.log().note_checkpoint(CheckpointMark { no: base.checkpoint, applied: base.index })?;
        let error = self.not_leader(now);
        for (parked, _) in std::mem::take(&mut self.parked).into_values() {
            match parked {
                Parked::Write(write) => out.fail(write.waiter.responder, &error),
                Parked::Read(read) => out.fail(read.waiter.responder, &error),
                Parked::Apply | Parked::SaveRecords | Parked::Upkeep | Parked::Send(_) => {}
            }
        }
        for write in self.proposals.overtaken(base.index) {
            out.fail_all(write.waiters, &Error::Unknown);
        }
        if let Some(directory) = &self.state.directory {
            out.news.push(News::Directory(std::sync::Arc::clone(directory)));
        }
        Ok(())
    }
}
