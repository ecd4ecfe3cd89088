//! The page store of one replica, as its owner sees it: reads, writes, fetches, checkpoints, pins.
//!
//! Invariants:
//! - The raft log is the only write-ahead log. What was written since the newest durable checkpoint is in memory alone,
//!   and comes back by replaying the log from that checkpoint's applied index.
//! - Nothing waits. An operation that misses pages says so and has changed nothing; I/O is submitted by
//!   [`Store::fetch`] and [`Store::pump`] alone and comes back through [`Store::complete`].
//! - After a failure of the disk the store is poisoned and acknowledges nothing more.
//! - A sealed store submits nothing: the name of its file may be another's by then.
//!
//! Deliberately absent: pacing of checkpoints, bounds on dirty bytes, what entries mean. Those are the owner's.

mod checkpoint;
mod fetch;
mod opening;
mod pins;
mod shrink;
mod snapshot;
mod verify;
mod walk;

use std::collections::{BTreeMap, VecDeque};

use mesh_base::buffers::Buffers;
use mesh_base::flaw::{self, Flaw};
use mesh_base::io::{Completion, FileId, IoOp, IoPort, IoQueue, Lane};
use mesh_base::{CheckpointNo, LogIndex, Namespace, ReplicaIdentity, Revision};

use self::checkpoint::{CheckpointIo, Running};
use self::fetch::Fetches;
use self::pins::Pins;
use self::shrink::Shrinking;
use self::snapshot::Ingest;
use self::verify::Pinned;
use crate::error::StoreError;
use crate::key::KeyRef;
use crate::options::StoreOptions;
use crate::read::{KeyAt, Lookup, Misses, ScanOutcome, ScanRequest, Version, Want};
use crate::superblock::{SnapshotSource, Superblock};
use crate::tree::{
    ChangeQuery, PackPlan, PackPoint, PackProgress, RangeChange, SweepPoint, SweepProgress, Tree,
};
use crate::write::CellWrite;

pub use self::checkpoint::{CheckpointInfo, CheckpointMeta, CheckpointProgress};
pub use self::fetch::FetchId;
pub(crate) use self::fetch::file_bytes;
pub use self::opening::{OpenWarning, Opened, Opening};
pub use self::pins::PinId;
#[cfg(test)]
pub(crate) use self::snapshot::check_chunk;
pub use self::snapshot::{IngestProgress, KeyRange, SnapshotChunk};
pub use self::verify::{AffectedKeys, StorePart, VerifyProblem, VerifyReport};
pub(crate) use self::verify::{Span, Verify};
pub use self::walk::WalkedCell;

/// Checkpoints whose newest revision is known, so that a search for changes passes over what they wrote.
const SEALED_REVISIONS_MAX: usize = 4;

/// Something that happened since the owner asked last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreEvent {
    /// All pages of a fetch are there, and stay until it is released.
    Fetched(FetchId),
    /// A checkpoint is durable.
    CheckpointDone {
        /// Which.
        checkpoint: CheckpointNo,
        /// The log up to this index is in it.
        applied: LogIndex,
    },
    /// A checkpoint found no space on the disk, or in the format, which ends at terabytes. It waits, with nothing on the disk
    /// harmed, for [`Store::retry_space`].
    CheckpointNoSpace {
        /// Which.
        checkpoint: CheckpointNo,
    },
    /// A verification came to its end.
    Verified(Box<VerifyReport>),
}

/// Figures of a store.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct StoreStatistics {
    /// Cells in the tree: versions, tombstones, system records.
    pub cells: u64,
    /// Live keys, the system's aside. Exact but for keys whose versions fill more than a page.
    pub keys: u64,
    /// Pages of the file.
    pub file_pages: u64,
    /// Pages in use by the present tree and its values.
    pub used_pages: u64,
    /// Pages that may be handed out.
    pub available_pages: u64,
    /// Leaves of the present tree.
    pub leaves: u64,
    /// Its pages above the leaves.
    pub interiors: u64,
    /// Bytes of the leaves' cells and their slots: how full they are.
    pub leaf_bytes: u64,
    /// Pages above the leaves on each way.
    pub height: u8,
    /// Bytes of pages that no durable checkpoint holds.
    pub dirty_bytes: usize,
    /// Bytes of pages in memory.
    pub resident_bytes: usize,
}

/// Whom a completion is for.
enum Purpose {
    Fetch,
    Checkpoint(CheckpointIo),
    Shrink,
    Verify,
}

/// The page store of one replica.
pub struct Store {
    file: FileId,
    identity: ReplicaIdentity,
    port: IoPort,
    tree: Tree,
    durable: Superblock,
    /// The newest revisions of the last durable checkpoints, the oldest first.
    sealed_revisions: VecDeque<(CheckpointNo, Revision)>,
    /// Pages for which the file has space taken.
    taken_pages: u64,
    shrinking: Shrinking,
    in_flight: BTreeMap<u64, Purpose>,
    /// Whether another is to take its place.
    is_sealed: bool,
    fetches: Fetches,
    running: Option<Box<Running>>,
    /// What checkpoints write from.
    buffers: Buffers,
    pins: Pins,
    verify: Option<Box<Pinned>>,
    ingest: Ingest,
    /// The snapshot that it is made from, until it takes the live store's place.
    source: Option<SnapshotSource>,
    events: VecDeque<StoreEvent>,
    poison: Option<Box<StoreError>>,
}

impl Store {
    /// What a key is at a revision. Records of the system namespace have one version, and no horizon.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] below the horizon; [`StoreError::Poisoned`].
    pub fn get(
        &self,
        namespace: Namespace,
        key: &[u8],
        at: Revision,
        want: Want,
    ) -> Result<Lookup<KeyAt<'_>>, StoreError> {
        self.check_readable(namespace, at)?;
        Ok(self.tree.view().get(namespace, key, at, want))
    }

    /// What each of a number of keys, at most [`crate::GROUP_KEYS`], is at its own revision. They are looked up together, so that waits
    /// for main memory go on side by side.
    ///
    /// # Errors
    /// As of [`Store::get`], for all of them.
    ///
    /// # Panics
    /// When there are more keys: a bug of the caller.
    pub fn get_group(
        &self,
        namespace: Namespace,
        keys: &[(&[u8], Revision)],
        want: Want,
    ) -> Result<Vec<Lookup<KeyAt<'_>>>, StoreError> {
        let oldest = keys.iter().map(|(_, at)| *at).min().unwrap_or(Revision::MAX);
        self.check_readable(namespace, oldest)?;
        let targets: Vec<_> =
            keys.iter().map(|&(key, revision)| KeyRef { namespace, key, revision }).collect();
        Ok(self.tree.view().get_group(&targets, want))
    }

    /// Makes lookups of many keys, which are to follow, faster: what they need of main memory is asked for together. Changes nothing.
    pub fn warm<'k>(&self, namespace: Namespace, keys: impl Iterator<Item = &'k [u8]>) {
        self.tree.view().warm(keys.map(|key| KeyRef::newest(namespace, key)));
    }

    /// Visits the live keys of a range as they are at a revision, in the order of the scan's direction.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] below the horizon; [`StoreError::Poisoned`].
    pub fn scan(
        &self,
        request: &ScanRequest<'_>,
        mut visit: impl FnMut(&[u8], &Version<'_>),
    ) -> Result<ScanOutcome, StoreError> {
        self.check_readable(request.namespace, request.at)?;
        Ok(self.tree.view().scan(request, &mut visit))
    }

    /// Whether a key of a range (up to `end`, or to the end of the namespace) was written or deleted after a revision. Ranges
    /// that were not changed for long cost little, however large they are.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] below the horizon: deletions after that revision may be forgotten; [`StoreError::Poisoned`].
    pub fn change_after(
        &self,
        namespace: Namespace,
        start: &[u8],
        end: Option<&[u8]>,
        since: Revision,
    ) -> Result<Lookup<RangeChange<'_>>, StoreError> {
        self.check_readable(namespace, since)?;
        let sealed = self.sealed_revisions.iter().rev().find(|(_, revision)| *revision <= since);
        let unchanged = sealed.map_or(CheckpointNo(0), |(checkpoint, _)| *checkpoint);
        Ok(self.tree.view().change(&ChangeQuery { namespace, start, end, since, unchanged }))
    }

    /// Does all of the writes, or none if pages are missing. Writing a version again replaces it, so a log may be
    /// replayed over what it wrote before.
    ///
    /// Versions that no read at or above the horizon can see are dropped from leaves that become full.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`], with nothing changed; [`StoreError::Poisoned`].
    pub fn write(&mut self, writes: &[CellWrite<'_>]) -> Result<Lookup<()>, StoreError> {
        self.check_usable()?;
        let written = self.tree.write(writes);
        self.tree.frames.evict();
        written
    }

    /// The pages that these writes would miss, to be fetched ahead of them.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`]; [`StoreError::Poisoned`].
    pub fn missing_for(&self, writes: &[CellWrite<'_>]) -> Result<Misses, StoreError> {
        self.check_usable()?;
        self.tree.look_for(writes)
    }

    /// Raises the horizon: reads below it are refused, and what only they could see may be dropped. Lowering it does
    /// nothing.
    pub fn set_horizon(&mut self, horizon: Revision) {
        self.tree.horizon = self.tree.horizon.max(horizon);
    }

    /// The oldest revision that can be read.
    #[must_use]
    pub const fn horizon(&self) -> Revision {
        self.tree.horizon
    }

    /// The newest revision that was written, or that a checkpoint was told of.
    #[must_use]
    pub const fn newest_revision(&self) -> Revision {
        self.tree.revision
    }

    /// Drops garbage in up to `leaves_max` leaves from `from` on (from the start if there is none): the part of it
    /// that no write comes by.
    ///
    /// # Errors
    /// [`StoreError::Poisoned`].
    pub fn sweep(
        &mut self,
        from: Option<&SweepPoint>,
        leaves_max: usize,
    ) -> Result<Lookup<SweepProgress>, StoreError> {
        self.check_usable()?;
        let first = SweepPoint::first();
        let swept = self.tree.sweep(from.unwrap_or(&first), leaves_max);
        self.tree.frames.evict();
        Ok(swept)
    }

    /// Goes on with a walk that packs thin pages into fewer, and moves pages to the front of the file.
    pub(crate) fn pack(
        &mut self,
        from: &PackPoint,
        plan: &PackPlan,
    ) -> Result<Lookup<PackProgress>, StoreError> {
        self.check_usable()?;
        let packed = self.tree.pack(from, plan);
        self.tree.frames.evict();
        Ok(packed)
    }

    /// Takes the completion of an operation that this store submitted.
    ///
    /// # Errors
    /// [`StoreError::Io`] and [`StoreError::Corrupt`], which poison the store; [`StoreError::Poisoned`]. None of a store that is
    /// sealed.
    pub fn complete(&mut self, completion: Completion, io: &mut IoQueue) -> Result<(), StoreError> {
        let number = completion.token.number;
        assert_eq!(completion.token.lane, self.port_lane(), "completion of another lane");
        let purpose = self.in_flight.remove(&number);
        if self.is_sealed {
            if let Err(error) = completion.result {
                tracing::warn!(file = %self.file, %error, "the last operations of a page store that is replaced");
            }
            return Ok(());
        }
        self.check_usable()?;
        let handled = match purpose {
            Some(Purpose::Fetch) => self.complete_fetch(number, completion.result),
            Some(Purpose::Checkpoint(step)) => self.complete_checkpoint(step, completion.result, io),
            Some(Purpose::Shrink) => {
                completion.result.map(|_| self.complete_shrink()).map_err(StoreError::from)
            }
            Some(Purpose::Verify) => {
                self.complete_verify(number, completion.result);
                Ok(())
            }
            // Submitted by what opened the store; nothing waits for it any more.
            None => Ok(()),
        };
        handled.inspect_err(|error| {
            tracing::error!(file = %self.file, %error, "page store failed");
            self.poison = Some(Box::new(error.clone()));
        })?;
        self.shrink_file(io);
        Ok(())
    }

    /// Goes on with what runs in the background: a checkpoint, a verification. To be called once per turn while
    /// [`Store::is_busy`].
    ///
    /// # Errors
    /// [`StoreError::Poisoned`].
    pub fn pump(&mut self, io: &mut IoQueue) -> Result<(), StoreError> {
        self.check_usable()?;
        self.pump_checkpoint(io);
        self.pump_verify(io);
        Ok(())
    }

    /// Whether a checkpoint or a verification runs.
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        self.running.is_some() || self.verify.is_some()
    }

    /// Another store is to take this one's place, under its name. From now on this one submits nothing; what is in flight comes to
    /// its end, which concerns nobody any more.
    pub const fn seal(&mut self) {
        self.is_sealed = true;
    }

    /// Whether no operation of the store is in flight: its file may be given another name, or be removed.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// The next event, in the order they happened.
    pub fn next_event(&mut self) -> Option<StoreEvent> {
        self.events.pop_front()
    }

    /// The store was received as [`FileId::StagedStore`] and its owner has given it the live store's name. From now on it has
    /// the memory of a live one: so many bytes of pages, as in [`crate::StoreOptions::frame_bytes_max`].
    ///
    /// # Panics
    /// When operations are in flight under the old name: a bug of the caller.
    pub fn promote(&mut self, frame_bytes_max: usize) {
        assert_eq!(self.file, FileId::StagedStore, "promoted already");
        assert!(self.in_flight.is_empty(), "operations in flight under the old name");
        self.file = FileId::Store;
        self.source = None;
        self.port = IoPort::new(Lane::Store);
        self.tree.options.frame_bytes_max = frame_bytes_max;
        self.tree.frames.set_bytes_max(frame_bytes_max);
    }

    /// Which file this is.
    #[must_use]
    pub const fn file(&self) -> FileId {
        self.file
    }

    /// Whose store this is.
    #[must_use]
    pub const fn identity(&self) -> &ReplicaIdentity {
        &self.identity
    }

    /// Bytes of pages that no durable checkpoint holds.
    #[must_use]
    pub const fn dirty_bytes(&self) -> usize {
        self.tree.frames.dirty_bytes()
    }

    /// Bytes that were ever made dirty.
    pub(crate) const fn dirtied_bytes(&self) -> u64 {
        self.tree.frames.dirtied_bytes()
    }

    /// Bytes of pages in memory, dirty ones included.
    #[must_use]
    pub const fn resident_bytes(&self) -> usize {
        self.tree.frames.resident_bytes()
    }

    /// The sizes of the store.
    pub(crate) const fn options(&self) -> &StoreOptions {
        &self.tree.options
    }

    /// The store's figures.
    #[must_use]
    pub const fn statistics(&self) -> StoreStatistics {
        StoreStatistics {
            cells: self.tree.cells,
            keys: self.tree.keys,
            file_pages: self.tree.allocator.file_pages(),
            used_pages: self.tree.allocator.used_pages(),
            available_pages: self.tree.allocator.available_pages(),
            leaves: self.tree.shape.leaves,
            interiors: self.tree.shape.interiors,
            leaf_bytes: self.tree.shape.leaf_bytes,
            height: self.tree.root.level,
            dirty_bytes: self.tree.frames.dirty_bytes(),
            resident_bytes: self.tree.frames.resident_bytes(),
        }
    }

    /// Submits an operation; its number.
    fn submit(&mut self, op: IoOp, purpose: Purpose, io: &mut IoQueue) -> u64 {
        assert!(!self.is_sealed, "{}: {} for a store that is about to be replaced", self.file, op.verb());
        let number = self.port.submit(io, op).number;
        self.in_flight.insert(number, purpose);
        number
    }

    /// Remembers what the newest durable checkpoint holds.
    fn note_sealed(&mut self) {
        if self.sealed_revisions.len() == SEALED_REVISIONS_MAX {
            self.sealed_revisions.pop_front();
        }
        self.sealed_revisions.push_back((self.durable.checkpoint, self.durable.revision));
    }

    const fn port_lane(&self) -> Lane {
        lane_of(self.file)
    }

    fn check_usable(&self) -> Result<(), StoreError> {
        match &self.poison {
            None => Ok(()),
            Some(first) => Err(StoreError::Poisoned { first: first.clone() }),
        }
    }

    fn check_readable(&self, namespace: Namespace, at: Revision) -> Result<(), StoreError> {
        self.check_usable()?;
        let oldest = self.tree.horizon;
        if at < oldest && namespace != Namespace::SYSTEM && !flaw::is_planted(Flaw::ReadBelowHorizon) {
            return Err(StoreError::Compacted { oldest });
        }
        Ok(())
    }
}

/// The lane of a store's file.
const fn lane_of(file: FileId) -> Lane {
    match file {
        FileId::StagedStore => Lane::StagedStore,
        _ => Lane::Store,
    }
}
