//! A store on the test disk, with the misses answered: what an owner does, in a few verbs.

use bytes::Bytes;
use mesh_base::io::{FileId, IoOp, IoPort, IoQueue, Lane};
use mesh_base::{
    CheckpointNo, ClusterId, LogIndex, Namespace, ReplicaId, ReplicaIdentity, Revision, ShardId, Term,
};

use super::disk::{Crash, Disk};
use crate::*;

pub(crate) const IDENTITY: ReplicaIdentity =
    ReplicaIdentity { cluster: ClusterId([5; 16]), shard: ShardId(1), replica: ReplicaId(42) };

/// The snapshot that staged stores are made from.
pub(crate) const SOURCE: SnapshotSource = SnapshotSource {
    replica: ReplicaId(7),
    checkpoint: CheckpointNo(5),
    applied: LogIndex(399),
    term: Term(1),
};

pub(crate) const USER: Namespace = Namespace::USER;

/// Small pages, and memory for sixteen of them.
pub(crate) fn small() -> StoreOptions {
    StoreOptions {
        page_bytes: 4096,
        key_bytes_max: 600,
        frame_bytes_max: 16 * 4096,
        checkpoint_bytes_in_flight_max: 8 * 4096,
        grow_bytes: 16 * 4096,
        ..StoreOptions::default()
    }
}

/// The disk was turned off.
#[derive(Debug)]
pub(crate) struct TurnedOff;

pub(crate) type Run<T> = Result<T, TurnedOff>;

/// What a scan visits: key, revision, value.
pub(crate) type Item = (Vec<u8>, u64, Vec<u8>);

/// A cell that a walk visits: namespace, key, revision, value; no value of a deletion.
pub(crate) type WalkedItem = (u32, Vec<u8>, u64, Option<Vec<u8>>);

pub(crate) struct Rig {
    pub(crate) disk: Disk,
    pub(crate) io: IoQueue,
    pub(crate) options: StoreOptions,
    pub(crate) file: FileId,
    pub(crate) store: Option<Store>,
    pub(crate) done: Vec<CheckpointNo>,
    pub(crate) no_space: usize,
    pub(crate) verified: Option<VerifyReport>,
    /// The disk is turned off when it has done this many operations.
    pub(crate) turn_off_at: Option<usize>,
    fetched: Vec<FetchId>,
}

impl Rig {
    pub(crate) fn new(seed: u64, options: StoreOptions) -> Self {
        Self {
            disk: Disk::new(seed),
            io: IoQueue::new(),
            options,
            file: FileId::Store,
            store: None,
            done: Vec::new(),
            no_space: 0,
            verified: None,
            turn_off_at: None,
            fetched: Vec::new(),
        }
    }

    /// A rig with a new, empty store.
    pub(crate) fn with_store(seed: u64, options: StoreOptions) -> Self {
        let mut rig = Self::new(seed, options);
        rig.create().unwrap();
        rig
    }

    pub(crate) fn store(&mut self) -> &mut Store {
        self.store.as_mut().unwrap()
    }

    fn is_off(&self) -> bool {
        self.turn_off_at.is_some_and(|at| self.disk.completed >= at)
    }

    pub(crate) fn create(&mut self) -> Run<()> {
        let opening = Opening::create(self.file, IDENTITY, self.options.clone(), &mut self.io);
        self.finish(opening).map(|opened| self.store = Some(opened.unwrap().store))
    }

    pub(crate) fn open(&mut self, least: CheckpointNo) -> Run<Result<Vec<OpenWarning>, StoreError>> {
        let opening = Opening::open(self.file, IDENTITY, self.options.clone(), least, &mut self.io);
        self.finish(opening).map(|opened| {
            opened.map(|opened| {
                self.store = Some(opened.store);
                opened.warnings
            })
        })
    }

    pub(crate) fn finish(&mut self, mut opening: Opening) -> Run<Result<Opened, StoreError>> {
        loop {
            if self.is_off() {
                return Err(TurnedOff);
            }
            self.disk.submit(&mut self.io);
            let completion = self.disk.complete_one().expect("an opening has something in flight");
            match opening.complete(completion, &mut self.io) {
                Ok(None) => {}
                Ok(Some(opened)) => return Ok(Ok(opened)),
                Err(error) => {
                    while self.disk.complete_one().is_some() {}
                    return Ok(Err(error));
                }
            }
        }
    }

    /// One completion, and what follows from it.
    pub(crate) fn turn(&mut self) -> Run<Result<(), StoreError>> {
        if self.is_off() {
            return Err(TurnedOff);
        }
        self.disk.submit(&mut self.io);
        let store = self.store.as_mut().unwrap();
        if let Some(completion) = self.disk.complete_one()
            && let Err(error) = store.complete(completion, &mut self.io)
        {
            return Ok(Err(error));
        }
        if let Err(error) = store.pump(&mut self.io) {
            return Ok(Err(error));
        }
        while let Some(event) = store.next_event() {
            match event {
                StoreEvent::Fetched(id) => self.fetched.push(id),
                StoreEvent::CheckpointDone { checkpoint, .. } => self.done.push(checkpoint),
                StoreEvent::CheckpointNoSpace { .. } => self.no_space += 1,
                StoreEvent::Verified(report) => self.verified = Some(*report),
            }
        }
        self.disk.submit(&mut self.io);
        Ok(Ok(()))
    }

    /// A turn, if there is anything to do.
    pub(crate) fn turn_if_busy(&mut self) -> Run<()> {
        self.store.as_mut().unwrap().pump(&mut self.io).unwrap();
        self.disk.submit(&mut self.io);
        if self.disk.next().is_some() {
            self.turn()?.unwrap();
        }
        Ok(())
    }

    /// Lets so many ticks of the owner's clock pass, with nothing to do but upkeep.
    pub(crate) fn rest(&mut self, upkeep: &mut Upkeep, ticks: usize) -> Run<()> {
        for _ in 0..ticks {
            upkeep.tick(self.store(), 0);
            self.until_ready(|store| upkeep.step(store))?.unwrap();
            let is_due = upkeep.wants_checkpoint(self.store()) || self.store().dirty_bytes() >= 64 * 4096;
            if is_due && self.store().running_checkpoint().is_none() {
                let applied = self.store().checkpoint().applied.get();
                self.begin_checkpoint(applied);
            }
            for _ in 0..20 {
                self.turn()?.unwrap();
            }
        }
        Ok(())
    }

    /// Repeats an operation, fetching what it misses, until it is done.
    pub(crate) fn until_ready<T>(
        &mut self,
        mut operation: impl FnMut(&mut Store) -> Result<Lookup<T>, StoreError>,
    ) -> Run<Result<T, StoreError>> {
        let mut fetches = Vec::new();
        let mut rounds = 0;
        let answer = loop {
            rounds += 1;
            assert!(rounds < 100, "an operation does not get to its end");
            match operation(self.store()) {
                Ok(Lookup::Ready(answer)) => break Ok(answer),
                Ok(Lookup::Miss(misses)) => match self.fetch(&misses)? {
                    Ok(id) => fetches.push(id),
                    Err(error) => break Err(error),
                },
                Err(error) => break Err(error),
            }
        };
        fetches.into_iter().for_each(|id| self.store().release(id));
        Ok(answer)
    }

    fn fetch(&mut self, misses: &Misses) -> Run<Result<FetchId, StoreError>> {
        assert!(!misses.is_empty());
        let id = self.store.as_mut().unwrap().fetch(misses, &mut self.io);
        while !self.fetched.contains(&id) {
            if let Err(error) = self.turn()? {
                return Ok(Err(error));
            }
        }
        self.fetched.retain(|fetched| *fetched != id);
        Ok(Ok(id))
    }

    pub(crate) fn write(&mut self, writes: &[CellWrite<'_>]) -> Run<()> {
        self.until_ready(|store| store.write(writes)).map(Result::unwrap)
    }

    pub(crate) fn put(&mut self, key: &[u8], revision: u64, value: &[u8]) -> Run<()> {
        self.write(&[put(key, revision, value)])
    }

    pub(crate) fn delete(&mut self, key: &[u8], revision: u64) -> Run<()> {
        self.write(&[CellWrite {
            namespace: USER,
            key,
            revision: Revision(revision),
            change: Change::Delete,
        }])
    }

    /// The value of a live key.
    pub(crate) fn try_get(
        &mut self,
        namespace: Namespace,
        key: &[u8],
        at: u64,
    ) -> Run<Result<Option<Vec<u8>>, StoreError>> {
        self.until_ready(|store| {
            let read = store.get(namespace, key, Revision(at), Want::Value)?;
            Ok(read.map(|read| read.live().map(|version| version.value.to_vec())))
        })
    }

    /// Looks keys up together, each at its revision, until no page is missing.
    pub(crate) fn get_group(&mut self, keys: &[(Vec<u8>, u64)]) -> Run<Vec<Option<Vec<u8>>>> {
        let keys: Vec<_> = keys.iter().map(|(key, at)| (key.as_slice(), Revision(*at))).collect();
        let values = self.until_ready(|store| {
            let mut missing: Option<Misses> = None;
            let mut values = Vec::new();
            for found in store.get_group(USER, &keys, Want::Value)? {
                match found {
                    Lookup::Ready(found) => values.push(found.live().map(|version| version.value.to_vec())),
                    Lookup::Miss(misses) => match &mut missing {
                        Some(all) => all.merge(&misses),
                        None => missing = Some(misses),
                    },
                }
            }
            Ok(missing.map_or(Lookup::Ready(values), Lookup::Miss))
        })?;
        Ok(values.unwrap())
    }

    pub(crate) fn get(&mut self, key: &[u8], at: u64) -> Option<Vec<u8>> {
        self.try_get(USER, key, at).unwrap().unwrap()
    }

    /// All of a range, page by page.
    pub(crate) fn scan(&mut self, request: &ScanRequest<'_>) -> Run<Vec<Item>> {
        let mut items = Vec::new();
        let mut rest = ScanRest { start: request.start.to_vec(), end: request.end.map(<[u8]>::to_vec) };
        let mut fetches = Vec::new();
        loop {
            let request = rest.request(request);
            let outcome = self.store().scan(&request, |key, version| {
                items.push((key.to_vec(), version.revision.get(), version.value.to_vec()));
            });
            let next = match outcome.unwrap().end {
                ScanEnd::Complete => break,
                ScanEnd::Limit { rest } => rest,
                ScanEnd::Miss { rest: next, misses } => {
                    if next != rest {
                        // It got on: what it has passed is not needed any more.
                        fetches.drain(..).for_each(|id| self.store().release(id));
                    }
                    fetches.push(self.fetch(&misses)?.unwrap());
                    next
                }
            };
            rest = next;
            assert!(fetches.len() < 50, "a scan does not get on");
        }
        fetches.into_iter().for_each(|id| self.store().release(id));
        Ok(items)
    }

    pub(crate) fn begin_checkpoint(&mut self, applied: u64) -> CheckpointNo {
        let meta = CheckpointMeta { applied: LogIndex(applied), term: Term(1), revision: Revision::ZERO };
        self.store().begin_checkpoint(&meta)
    }

    pub(crate) fn finish_checkpoint(&mut self) -> Run<()> {
        while self.store().running_checkpoint().is_some() {
            self.turn()?.unwrap();
        }
        Ok(())
    }

    pub(crate) fn checkpoint(&mut self, applied: u64) -> Run<CheckpointNo> {
        let no = self.begin_checkpoint(applied);
        self.finish_checkpoint()?;
        Ok(no)
    }

    pub(crate) fn verify(&mut self) -> Run<VerifyReport> {
        self.store().begin_verify().unwrap();
        self.verified = None;
        while self.verified.is_none() {
            self.turn()?.unwrap();
        }
        Ok(self.verified.take().unwrap())
    }

    #[track_caller]
    pub(crate) fn assert_sound(&mut self) {
        let report = self.verify().unwrap();
        assert!(report.is_sound(), "{:#?}", report.problems);
    }

    pub(crate) fn crash(&mut self, crash: Crash) {
        self.store = None;
        self.io = IoQueue::new();
        self.disk.crash(crash);
        self.fetched.clear();
        self.turn_off_at = None;
    }

    /// Every cell of the present tree, in memory or not.
    pub(crate) fn walked(&self) -> Vec<WalkedItem> {
        let read = |offset: u64, length: usize| {
            let bytes = self.disk.bytes(self.file).get(offset as usize..offset as usize + length)?;
            Some(Bytes::copy_from_slice(bytes))
        };
        let mut cells = Vec::new();
        let walked = self.store.as_ref().unwrap().walk(&read, &mut |cell| {
            let KeyRef { namespace, key, revision } = cell.key;
            let value = cell.value.as_ref().map(|value| value.to_vec());
            cells.push((namespace.get(), key.to_vec(), revision.get(), value));
        });
        walked.unwrap();
        cells
    }

    /// Has an operation of the store's owner done.
    pub(crate) fn perform(&mut self, op: IoOp) -> Run<()> {
        IoPort::new(Lane::Replica).submit(&mut self.io, op);
        if self.is_off() {
            return Err(TurnedOff);
        }
        self.disk.submit(&mut self.io);
        let completion = self.disk.complete_one().unwrap();
        assert_eq!(completion.token.lane, Lane::Replica, "nothing else is in flight");
        completion.result.unwrap();
        Ok(())
    }

    /// Waits until nothing is in flight.
    pub(crate) fn settle(&mut self) {
        while !self.disk.is_idle() || self.store().is_busy() {
            self.turn().unwrap().unwrap();
        }
    }
}

pub(crate) fn put<'a>(key: &'a [u8], revision: u64, value: &'a [u8]) -> CellWrite<'a> {
    let attributes = Attributes::created(Revision(revision));
    CellWrite {
        namespace: USER,
        key,
        revision: Revision(revision),
        change: Change::Put { attributes, value },
    }
}

pub(crate) fn all(direction: ScanDirection, at: u64) -> ScanRequest<'static> {
    ScanRequest {
        namespace: USER,
        start: &[],
        end: None,
        direction,
        at: Revision(at),
        want: Want::Value,
        items_max: usize::MAX,
        bytes_max: usize::MAX,
    }
}
