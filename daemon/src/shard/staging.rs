//! The staged store: what of a snapshot has arrived, beside the live store, until it is whole.
//!
//! Chunks wait in a queue, and are taken in one at a time, when the core says so. What has come is saved while more comes, in
//! step with it. That survives a restart, and the store says itself which snapshot it is of and how far it is.
//!
//! Invariants:
//! - It holds cells of one snapshot: of two, even of one index, those that lie in one part of the key order and those in
//!   another were never there together.
//! - It is whole only when its last checkpoint, with the snapshot's index, is durable.
//! - Bytes that are found damaged in it, and a disk without space, end it, and not the replica. A damaged chunk is as one that
//!   was lost.
//! - What is not saved of it takes at most half of its memory, and a chunk.

use std::collections::VecDeque;

use bytes::Bytes;
use mesh_base::flaw::{self, Flaw};
use mesh_base::io::{Completion, FileId, IoError, IoErrorKind, IoQueue};
use mesh_base::limits::SNAPSHOT_CHUNKS_IN_FLIGHT_MAX;
use mesh_base::{CheckpointNo, Instant, LogIndex, ReplicaIdentity, Revision};
use mesh_engine::{
    CheckpointMeta, CheckpointPace, FetchId, IngestProgress, Lookup, Opening, SnapshotChunk, SnapshotSource,
    Store, StoreError, StoreEvent, StoreOptions, Unsaved,
};

use super::error::ShardError;
use super::options::ShardOptions;
use super::output::Output;
use super::snapshot::Place;

/// What became of a staged store since its owner asked last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum StagingNews {
    /// Chunks can come.
    Ready,
    /// One was taken in.
    Loaded,
    /// It is whole.
    Whole,
    /// It came to nothing.
    Failed,
}

/// A staged store.
pub(super) struct Staging {
    identity: ReplicaIdentity,
    source: SnapshotSource,
    step: Step,
    /// Chunks that follow each other, and the first follows what was taken in.
    queue: VecDeque<Bytes>,
    /// Where the next one for the queue begins.
    expected: Place,
    /// When a checkpoint was begun last. The first is due with the first chunk: from then on a restart finds it.
    saved_at: Instant,
    news: VecDeque<StagingNews>,
}

enum Step {
    /// What an earlier run left behind is opened, for this snapshot, or else one that covers this index.
    Opening {
        opening: Opening,
        least: LogIndex,
        options: StoreOptions,
    },
    /// It could not be opened; its last operations come to their end, then an empty one is begun.
    Clearing {
        opening: Opening,
        options: StoreOptions,
    },
    Creating(Opening),
    /// How far it is, is being found out.
    Resuming {
        store: Store,
        fetches: Vec<FetchId>,
    },
    Ingesting {
        store: Store,
        fetches: Vec<FetchId>,
        pause: Pause,
    },
    Whole {
        store: Store,
        checkpoint: CheckpointNo,
    },
    /// It is of no use; its last operations come to their end.
    Failed(Option<Leavings>),
}

enum Leavings {
    Opening(Opening),
    Store(Box<Store>),
}

/// Why no chunk is taken in at present.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pause {
    No,
    Fetching(FetchId),
    /// All of them were, and are being saved for good.
    Ending,
}

impl Staging {
    /// Begins an empty one.
    pub(super) fn create(
        identity: ReplicaIdentity,
        options: &ShardOptions,
        source: SnapshotSource,
        io: &mut IoQueue,
    ) -> Self {
        let opening = Opening::create(FileId::StagedStore, identity, store_options(options), io);
        Self::new(identity, source, Step::Creating(opening))
    }

    /// Opens what an earlier run left behind. If that is of another snapshot, of a replica that may still have it, which
    /// covers at least the index `least`, it is gone on with; else an empty one is begun, for `source`.
    pub(super) fn open(
        identity: ReplicaIdentity,
        options: &ShardOptions,
        source: SnapshotSource,
        least: LogIndex,
        io: &mut IoQueue,
    ) -> Self {
        let options = store_options(options);
        let opening = Opening::open(FileId::StagedStore, identity, options.clone(), CheckpointNo(0), io);
        Self::new(identity, source, Step::Opening { opening, least, options })
    }

    fn new(identity: ReplicaIdentity, source: SnapshotSource, step: Step) -> Self {
        let (queue, news) = (VecDeque::new(), VecDeque::new());
        Self { identity, source, step, queue, expected: Place::start(), saved_at: Instant::ZERO, news }
    }

    /// The snapshot.
    pub(super) const fn source(&self) -> SnapshotSource {
        self.source
    }

    /// Whether it is whole and durable.
    pub(super) const fn is_whole(&self) -> bool {
        matches!(self.step, Step::Whole { .. })
    }

    /// Whether it came to nothing.
    pub(super) const fn has_failed(&self) -> bool {
        matches!(self.step, Step::Failed(_))
    }

    /// Whether it came to nothing and nothing of it is under way: its file can be removed.
    pub(super) fn is_over(&self) -> bool {
        match &self.step {
            Step::Failed(None) => true,
            Step::Failed(Some(Leavings::Opening(opening))) => opening.is_quiet(),
            Step::Failed(Some(Leavings::Store(store))) => store.is_quiet(),
            _ => false,
        }
    }

    /// Up to where chunks have come, if they can come.
    pub(super) const fn expected(&self) -> Option<&Place> {
        match self.step {
            Step::Ingesting { .. } => Some(&self.expected),
            _ => None,
        }
    }

    /// Up to where they were taken in, if they can come.
    pub(super) fn taken_in(&self) -> Option<Place> {
        match &self.step {
            Step::Ingesting { store, .. } => Some(Place::of(store.ingested_to())),
            _ => None,
        }
    }

    /// Whether it waits for chunks and for nothing else.
    pub(super) fn is_hungry(&self) -> bool {
        let waits = matches!(self.step, Step::Ingesting { pause: Pause::No, .. });
        waits && self.queue.is_empty() && self.expected != Place::End
    }

    /// Chunks that were not taken in yet.
    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// The whole store and its checkpoint.
    pub(super) fn into_store(self) -> Option<(Store, CheckpointNo)> {
        match self.step {
            Step::Whole { store, checkpoint } => Some((store, checkpoint)),
            _ => None,
        }
    }

    /// What became of it.
    pub(super) fn next_news(&mut self) -> Option<StagingNews> {
        self.news.pop_front()
    }

    /// Takes a chunk of the snapshot into the queue, if it is the next one and there is room. `false` if not.
    pub(super) fn enqueue(&mut self, chunk: Bytes) -> bool {
        if self.expected().is_none() || self.queue.len() >= SNAPSHOT_CHUNKS_IN_FLIGHT_MAX {
            return false;
        }
        let Some((from, next)) = SnapshotChunk::covered(&chunk) else { return false };
        if Place::Before(from) != self.expected {
            return false;
        }
        self.queue.push_back(chunk);
        self.expected = Place::of(next.as_ref());
        true
    }

    /// Lets go of what has arrived. It is over when its last operations are.
    pub(super) fn give_up(&mut self) {
        self.queue.clear();
        let leavings = match std::mem::replace(&mut self.step, Step::Failed(None)) {
            Step::Opening { opening, .. } | Step::Clearing { opening, .. } | Step::Creating(opening) => {
                Some(Leavings::Opening(opening))
            }
            Step::Resuming { store, .. } | Step::Ingesting { store, .. } | Step::Whole { store, .. } => {
                Some(Leavings::Store(Box::new(store)))
            }
            Step::Failed(leavings) => leavings,
        };
        self.step = Step::Failed(leavings);
    }

    /// Takes the next chunk of the queue in, if it may, and goes on with what runs in the background.
    pub(super) fn load(
        &mut self,
        now: Instant,
        options: &ShardOptions,
        out: &mut Output,
    ) -> Result<(), ShardError> {
        let pace = pace(options);
        let mut result = Ok(());
        if self.may_load(&pace) && out.loading.take() {
            result = self.load_next(out);
        }
        let result = result.and_then(|()| self.save(now, &pace, &mut out.io));
        self.end_at(result)?;
        self.take_events(&mut out.io)?;
        if self.may_load(&pace) {
            out.loading.want();
        }
        Ok(())
    }

    /// Whether there is a chunk to be taken in, and room for it beside what is being saved.
    fn may_load(&self, pace: &CheckpointPace) -> bool {
        let Step::Ingesting { store, pause: Pause::No, .. } = &self.step else { return false };
        let has_room = store.checkpoint_progress().is_none_or(|running| running.fresh_bytes < pace.at_bytes);
        has_room && !self.queue.is_empty()
    }

    fn load_next(&mut self, out: &mut Output) -> Result<(), StoreError> {
        let Step::Ingesting { store, fetches, pause } = &mut self.step else { return Ok(()) };
        let Some(chunk) = self.queue.front() else { return Ok(()) };
        match store.ingest(chunk) {
            Ok(Lookup::Miss(misses)) => {
                let fetch = store.fetch(&misses, &mut out.io);
                fetches.push(fetch);
                *pause = Pause::Fetching(fetch);
            }
            Ok(Lookup::Ready(progress)) => {
                out.loading.spend(chunk.len());
                self.queue.pop_front();
                fetches.drain(..).for_each(|fetch| store.release(fetch));
                match progress {
                    IngestProgress::More => self.news.push_back(StagingNews::Loaded),
                    IngestProgress::Complete => *pause = Pause::Ending,
                }
            }
            Err(error @ StoreError::MalformedChunk { .. }) => {
                tracing::warn!(shard = %self.identity.shard, %error, "a part of a snapshot is asked for again");
                self.queue.clear();
                self.expected = Place::of(store.ingested_to());
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Saves what was taken in: in step with what comes, and when that was all, for good and without restraint.
    fn save(&mut self, now: Instant, pace: &CheckpointPace, io: &mut IoQueue) -> Result<(), StoreError> {
        let Step::Ingesting { store, pause, .. } = &mut self.step else { return Ok(()) };
        let (is_all, age) = (*pause == Pause::Ending, now.since(self.saved_at));
        if let Some(running) = store.checkpoint_progress() {
            let since = Unsaved { bytes: running.fresh_bytes, log_bytes: 0, age };
            let due = pace.due_bytes(running.total_bytes, &since);
            store.set_checkpoint_due(if is_all { running.total_bytes } else { due });
        } else {
            let unsaved = Unsaved { bytes: store.dirty_bytes() as u64, log_bytes: 0, age };
            if is_all || (unsaved.bytes > 0 && pace.is_due(&unsaved)) {
                let applied = if is_all { self.source.applied } else { LogIndex(0) };
                let term = self.source.term;
                store.begin_checkpoint(&CheckpointMeta { applied, term, revision: Revision::ZERO });
                self.saved_at = now;
            }
        }
        store.pump(io)
    }

    /// Takes the completion of an operation of its own.
    pub(super) fn complete(&mut self, completion: Completion, io: &mut IoQueue) -> Result<(), ShardError> {
        let result = match &mut self.step {
            Step::Opening { opening, .. } => match opening.complete(completion, io) {
                Ok(Some(opened)) => {
                    self.opened(opened.store, io);
                    Ok(())
                }
                Ok(None) => Ok(()),
                Err(error @ StoreError::Io(_)) => Err(error),
                Err(error) => {
                    tracing::debug!(shard = %self.identity.shard, %error, "nothing of a snapshot is left");
                    self.clear(io);
                    Ok(())
                }
            },
            Step::Clearing { opening, .. } => {
                let cleared = opening.complete(completion, io);
                self.clear(io);
                cleared.map(drop)
            }
            Step::Creating(opening) => match opening.complete(completion, io) {
                Ok(Some(opened)) => {
                    self.created(opened.store);
                    Ok(())
                }
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            },
            Step::Resuming { store, .. } | Step::Ingesting { store, .. } | Step::Whole { store, .. } => {
                store.complete(completion, io).and_then(|()| store.pump(io))
            }
            Step::Failed(leavings) => {
                // Its failure, too, ends only what was received.
                match leavings {
                    Some(Leavings::Opening(opening)) => drop(opening.complete(completion, io)),
                    Some(Leavings::Store(store)) => drop(store.complete(completion, io)),
                    None => {}
                }
                Ok(())
            }
        };
        self.end_at(result)?;
        self.take_events(io)
    }

    fn created(&mut self, mut store: Store) {
        store.begin_ingest(self.source);
        self.step = Step::Ingesting { store, fetches: Vec::new(), pause: Pause::No };
        self.news.push_back(StagingNews::Ready);
    }

    /// Begins an empty one when nothing of what could not be opened is under way any more.
    fn clear(&mut self, io: &mut IoQueue) {
        self.step = match std::mem::replace(&mut self.step, Step::Failed(None)) {
            Step::Opening { opening, options, .. } | Step::Clearing { opening, options } => {
                if opening.is_quiet() {
                    Step::Creating(Opening::create(FileId::StagedStore, self.identity, options, io))
                } else {
                    Step::Clearing { opening, options }
                }
            }
            step => step,
        };
    }

    /// What an earlier run left behind is there: it is gone on with, or of no use.
    fn opened(&mut self, store: Store, io: &mut IoQueue) {
        let Step::Opening { least, .. } = &self.step else { return };
        let saved = store.checkpoint();
        let is_whole = saved.applied != LogIndex(0);
        match store.source() {
            Some(held) if held == self.source => {}
            Some(held) if held.replica != self.source.replica && held.applied >= *least && !is_whole => {
                self.source = held;
            }
            Some(_) if !is_whole && flaw::is_planted(Flaw::MixSnapshots) => {}
            _ => {
                // The one that is opened has nothing under way.
                self.clear(io);
                return;
            }
        }
        if is_whole {
            self.step = Step::Whole { store, checkpoint: saved.checkpoint };
            self.news.push_back(StagingNews::Whole);
        } else {
            self.step = Step::Resuming { store, fetches: Vec::new() };
        }
    }

    /// Acts on what the store has to tell, until that is nothing more: a fetch of pages that are there is told at once.
    fn take_events(&mut self, io: &mut IoQueue) -> Result<(), ShardError> {
        let result = self.resume(io);
        self.end_at(result)?;
        let Step::Ingesting { store, pause, .. } = &mut self.step else { return Ok(()) };
        let mut whole = None;
        while let Some(event) = store.next_event() {
            match (event, *pause) {
                (StoreEvent::Fetched(fetch), Pause::Fetching(wanted)) if fetch == wanted => {
                    *pause = Pause::No;
                }
                // One that ends after the last chunk may have begun before it.
                (StoreEvent::CheckpointDone { checkpoint, applied }, _) if applied != LogIndex(0) => {
                    whole = Some(checkpoint);
                }
                (StoreEvent::CheckpointNoSpace { .. }, _) => return self.end_at(Err(no_space().into())),
                _ => {}
            }
        }
        if let Some(checkpoint) = whole
            && let Step::Ingesting { store, .. } = std::mem::replace(&mut self.step, Step::Failed(None))
        {
            self.step = Step::Whole { store, checkpoint };
            self.news.push_back(StagingNews::Whole);
        }
        Ok(())
    }

    /// Finds out how far a store is that was opened again.
    fn resume(&mut self, io: &mut IoQueue) -> Result<(), StoreError> {
        while let Step::Resuming { store, fetches } = &mut self.step {
            // One is under way until the store tells of it.
            if !fetches.is_empty() && store.next_event().is_none() {
                return Ok(());
            }
            if let Lookup::Miss(misses) = store.resume_ingest()? {
                fetches.push(store.fetch(&misses, io));
                continue;
            }
            fetches.drain(..).for_each(|fetch| store.release(fetch));
            self.expected = Place::of(store.ingested_to());
            if let Step::Resuming { store, fetches } = std::mem::replace(&mut self.step, Step::Failed(None)) {
                self.step = Step::Ingesting { store, fetches, pause: Pause::No };
                self.news.push_back(StagingNews::Ready);
            }
        }
        Ok(())
    }

    /// An error ends it; that of a disk which fails, the replica.
    fn end_at(&mut self, result: Result<(), StoreError>) -> Result<(), ShardError> {
        let Err(error) = result else { return Ok(()) };
        match error {
            StoreError::Io(IoError { kind: IoErrorKind::NoSpace, .. }) => {}
            StoreError::Io(_) => return Err(error.into()),
            _ => {}
        }
        tracing::warn!(shard = %self.identity.shard, %error, "a snapshot cannot be received");
        self.give_up();
        self.news.push_back(StagingNews::Failed);
        Ok(())
    }
}

/// The sizes of a staged store: it has a part of the live one's memory.
fn store_options(options: &ShardOptions) -> StoreOptions {
    StoreOptions { frame_bytes_max: options.store.frame_bytes_max / 4, ..options.store.clone() }
}

/// When it is saved, and how fast: a quarter of its memory may be unsaved before, and another comes meanwhile.
fn pace(options: &ShardOptions) -> CheckpointPace {
    let memory = store_options(options).frame_bytes_max as u64;
    CheckpointPace { at_bytes: options.checkpoint.at_bytes.min(memory / 4), ..options.checkpoint }
}

fn no_space() -> IoError {
    IoError {
        kind: IoErrorKind::NoSpace,
        verb: "allocate",
        file: Some(FileId::StagedStore),
        detail: "no space for what was received of a snapshot".into(),
    }
}
