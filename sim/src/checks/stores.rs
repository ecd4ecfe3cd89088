//! Whether the file of a page store is sound as the disk has it, as after a crash: it opens, and the checkpoint that
//! recovery would begin with verifies, page by page.
//!
//! The store is opened on an image of the file, in which nothing takes time, so nothing of the run changes.
//!
//! Not checked: that the checkpoint is the right one (recovery refuses one older than its log demands, and the replicas'
//! states are compared); files that a fault has damaged, whose replica has to say so itself; a staged store.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;

use bytes::Bytes;
use mesh_base::io::{Completion, FileId, IoOp, IoQueue, IoValue, Submission};
use mesh_base::limits::SECTOR_BYTES;
use mesh_base::{CheckpointNo, ReplicaIdentity};
use mesh_engine::{Opening, Store, StoreError, StoreEvent, StoreOptions, VerifyReport};

use crate::disk::SimDisk;

/// The store's file as the disk has it, and what was written over it since.
struct Image<'a, O> {
    disk: &'a SimDisk<O>,
    owner: O,
    /// Sectors by their number.
    written: BTreeMap<u64, Bytes>,
    queue: VecDeque<Submission>,
}

/// Opens and verifies the page store in the directory of `owner`.
///
/// # Errors
/// What is wrong with it.
pub fn check<O: Copy + Ord + Debug>(
    disk: &SimDisk<O>,
    owner: O,
    identity: ReplicaIdentity,
    options: &StoreOptions,
) -> Result<(), String> {
    let mut image = Image { disk, owner, written: BTreeMap::new(), queue: VecDeque::new() };
    let report = image.verify(identity, options).map_err(|error| error.to_string())?;
    match report.problems.first() {
        None => Ok(()),
        Some(problem) => {
            let (count, checkpoint) = (report.problem_count, report.checkpoint);
            Err(format!("{count} problems in checkpoint {checkpoint}, the first: {problem:?}"))
        }
    }
}

impl<O: Copy + Ord + Debug> Image<'_, O> {
    fn verify(
        &mut self,
        identity: ReplicaIdentity,
        options: &StoreOptions,
    ) -> Result<VerifyReport, StoreError> {
        let mut io = IoQueue::new();
        let mut store = self.open(identity, options, &mut io)?;
        store.begin_verify()?;
        loop {
            store.pump(&mut io)?;
            if let Some(StoreEvent::Verified(report)) = store.next_event() {
                return Ok(*report);
            }
            let completion = self.next(&mut io);
            store.complete(completion, &mut io)?;
        }
    }

    fn open(
        &mut self,
        identity: ReplicaIdentity,
        options: &StoreOptions,
        io: &mut IoQueue,
    ) -> Result<Store, StoreError> {
        let mut opening = Opening::open(FileId::Store, identity, options.clone(), CheckpointNo(0), io);
        loop {
            let completion = self.next(io);
            if let Some(opened) = opening.complete(completion, io)? {
                return Ok(opened.store);
            }
        }
    }

    /// Does the next operation.
    fn next(&mut self, io: &mut IoQueue) -> Completion {
        self.queue.extend(io.drain());
        let Some(Submission { token, op }) = self.queue.pop_front() else {
            unreachable!("a store that is not done has something to do")
        };
        let value = match op {
            IoOp::Read { offset, length, .. } => IoValue::Read(self.read(offset, length)),
            IoOp::Write { offset, data, .. } => {
                self.write(offset, &data);
                IoValue::Done
            }
            _ => IoValue::Done,
        };
        Completion { token, result: Ok(value) }
    }

    fn read(&self, offset: u64, length: usize) -> Bytes {
        let mut bytes = self.disk.bytes(self.owner, FileId::Store, offset, length).unwrap_or_default();
        let first = offset / SECTOR_BYTES as u64;
        for (number, to) in (first..).zip(bytes.chunks_exact_mut(SECTOR_BYTES)) {
            if let Some(sector) = self.written.get(&number) {
                to.copy_from_slice(sector);
            }
        }
        bytes.into()
    }

    fn write(&mut self, offset: u64, data: &Bytes) {
        let first = offset / SECTOR_BYTES as u64;
        let starts = (0..data.len()).step_by(SECTOR_BYTES);
        for (number, start) in (first..).zip(starts) {
            self.written.insert(number, data.slice(start..start + SECTOR_BYTES));
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh_base::prng::Prng;
    use mesh_base::{ClusterId, LogIndex, Namespace, ReplicaId, Revision, ShardId, Term};
    use mesh_engine::{Attributes, CellWrite, Change, CheckpointMeta, Lookup};

    use super::*;
    use crate::disk::{Damage, DiskOptions};

    const OWNER: u8 = 1;
    const IDENTITY: ReplicaIdentity =
        ReplicaIdentity { cluster: ClusterId([5; 16]), shard: ShardId(1), replica: ReplicaId(42) };

    fn options() -> StoreOptions {
        StoreOptions {
            page_bytes: 4096,
            key_bytes_max: 256,
            grow_bytes: 64 * 1024,
            ..StoreOptions::default()
        }
    }

    /// Does what is submitted until nothing is left.
    fn settle(disk: &mut SimDisk<u8>, io: &mut IoQueue, mut complete: impl FnMut(Completion, &mut IoQueue)) {
        loop {
            let submissions: Vec<_> = io.drain().collect();
            if submissions.is_empty() {
                return;
            }
            let scheduled: Vec<_> =
                submissions.into_iter().map(|submission| disk.submit(OWNER, submission)).collect();
            for operation in scheduled {
                let (_, completion) = disk.complete(operation.op).unwrap();
                complete(completion, io);
            }
        }
    }

    /// A disk with a store of a thousand keys.
    fn stored() -> SimDisk<u8> {
        let mut disk = SimDisk::new(DiskOptions::HEALTHY, Prng::new(7));
        let mut io = IoQueue::new();
        let mut opening = Opening::create(FileId::Store, IDENTITY, options(), &mut io);
        let mut store = None;
        settle(&mut disk, &mut io, |completion, io| {
            if let Some(opened) = opening.complete(completion, io).unwrap() {
                store = Some(opened.store);
            }
        });
        let mut store = store.unwrap();
        for number in 0..1000_u64 {
            let key = format!("key-{number}");
            let revision = Revision(number + 1);
            let change = Change::Put { attributes: Attributes::created(revision), value: &[7; 100] };
            let write = CellWrite { namespace: Namespace::USER, key: key.as_bytes(), revision, change };
            assert!(matches!(store.write(&[write]).unwrap(), Lookup::Ready(())));
        }
        let meta = CheckpointMeta { applied: LogIndex(9), term: Term(1), revision: Revision(1000) };
        store.begin_checkpoint(&meta);
        store.pump(&mut io).unwrap();
        settle(&mut disk, &mut io, |completion, io| {
            store.complete(completion, io).unwrap();
            store.pump(io).unwrap();
        });
        disk
    }

    #[test]
    fn a_store_as_it_was_written_is_sound_and_looking_at_it_writes_nothing() {
        let disk = stored();
        let before = disk.contents(OWNER, FileId::Store);
        assert_eq!(check(&disk, OWNER, IDENTITY, &options()), Ok(()));
        assert_eq!(disk.contents(OWNER, FileId::Store), before);
    }

    #[test]
    fn a_damaged_page_is_named() {
        let mut disk = stored();
        let length = disk.files(OWNER)[0].1;
        let is_leaf = |page: &u64| {
            let bytes = disk.bytes(OWNER, FileId::Store, page * 4096, 4096).unwrap();
            bytes.windows(100).any(|value| value == [7; 100])
        };
        let leaf = (0..length / 4096).find(is_leaf).unwrap();
        assert!(disk.corrupt(OWNER, FileId::Store, leaf * 4096 + 2000, Damage::FlipBit));
        assert!(disk.is_damaged(OWNER));
        let found = check(&disk, OWNER, IDENTITY, &options()).unwrap_err();
        assert!(found.contains("checksum differs"), "{found}");
    }

    #[test]
    fn a_store_that_is_not_there_is_not_sound() {
        let disk = SimDisk::new(DiskOptions::HEALTHY, Prng::new(7));
        assert!(check(&disk, OWNER, IDENTITY, &options()).is_err());
    }
}
