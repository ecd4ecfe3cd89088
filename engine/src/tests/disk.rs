//! A disk in memory that does all that the I/O seam allows: completes in any order, and at a crash keeps any subset of
//! the 512-byte sectors, and of the truncations, that were not synced. What a chosen crash leaves is in [`fates`].

pub(crate) mod fates;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use mesh_base::io::{Completion, FileId, IoError, IoErrorKind, IoOp, IoQueue, IoValue, Submission};
use mesh_base::prng::Prng;

const SECTOR: usize = 512;

#[derive(Clone, Default)]
struct File {
    /// What survives a crash for certain.
    durable: Vec<u8>,
    /// What reads see.
    visible: Vec<u8>,
    /// Changes since the last sync, with the moment they completed.
    unsynced: Vec<(u64, Change)>,
}

#[derive(Clone)]
enum Change {
    Write(usize, Bytes),
    Truncate(usize),
}

impl Change {
    fn make(&self, image: &mut Vec<u8>) {
        match self {
            Self::Write(offset, data) => put(image, *offset, data),
            Self::Truncate(length) => image.truncate(*length),
        }
    }
}

/// What a crash does to what was not synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Crash {
    /// All of it is lost.
    LoseAll,
    /// All of it that was submitted got there.
    KeepAll,
    /// Each sector for itself.
    Tear,
    /// Writes to the superblock are lost, all others got there.
    LoseSuperblock,
    /// Only the process died: what was written is still there to read, but a later loss of power may take it.
    Kill,
}

impl File {
    /// Does what is about the file's bytes, at this moment.
    fn execute(&mut self, now: u64, submitted: u64, op: &IoOp) -> IoValue {
        match op {
            IoOp::Read { offset, length, .. } => {
                let start = (*offset as usize).min(self.visible.len());
                let end = (start + length).min(self.visible.len());
                return IoValue::Read(Bytes::copy_from_slice(&self.visible[start..end]));
            }
            IoOp::Write { offset, data, .. } => {
                let offset = *offset as usize;
                put(&mut self.visible, offset, data);
                self.unsynced.retain(|(at, change)| {
                    let is_same = matches!(change, Change::Write(same, _) if *same == offset);
                    *at != BEYOND_SAVING || !is_same
                });
                self.unsynced.push((now, Change::Write(offset, data.clone())));
            }
            IoOp::Truncate { length, .. } => {
                self.visible.truncate(*length as usize);
                self.unsynced.push((now, Change::Truncate(*length as usize)));
            }
            IoOp::Allocate { offset, length, .. } => {
                let end = (offset + length) as usize;
                self.visible.resize(self.visible.len().max(end), 0);
            }
            _ => {
                // Only what completed before the sync was submitted.
                for (at, change) in std::mem::take(&mut self.unsynced) {
                    if at < submitted {
                        change.make(&mut self.durable);
                    } else {
                        self.unsynced.push((at, change));
                    }
                }
                self.durable.resize(self.durable.len().max(self.visible.len()), 0);
            }
        }
        IoValue::Done
    }
}

#[derive(Clone)]
pub(crate) struct Disk {
    files: BTreeMap<u64, File>,
    last_inode: u64,
    names: BTreeMap<FileId, u64>,
    durable_names: BTreeMap<FileId, u64>,
    in_flight: Vec<(u64, Submission)>,
    /// The operation that was chosen to be done next, by the moment of its submission.
    chosen: Option<u64>,
    clock: u64,
    pub(crate) capacity: u64,
    /// Reads stay in flight while this is set.
    pub(crate) hold_reads: bool,
    /// The next operation with this name fails.
    pub(crate) fail: Option<(&'static str, IoErrorKind)>,
    pub(crate) completed: usize,
    pub(crate) reads: usize,
    /// Where reads were, in bytes.
    pub(crate) read_at: BTreeSet<(usize, usize)>,
    pub(crate) writes: usize,
    pub(crate) bytes_written: usize,
    pub(crate) prng: Prng,
}

impl Disk {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            files: BTreeMap::new(),
            last_inode: 0,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            in_flight: Vec::new(),
            chosen: None,
            clock: 0,
            capacity: u64::MAX,
            hold_reads: false,
            fail: None,
            completed: 0,
            reads: 0,
            read_at: BTreeSet::new(),
            writes: 0,
            bytes_written: 0,
            prng: Prng::new(seed),
        }
    }

    pub(crate) fn submit(&mut self, io: &mut IoQueue) {
        for submission in io.drain() {
            self.clock += 1;
            self.in_flight.push((self.clock, submission));
        }
    }

    pub(crate) fn bytes_in_flight(&self) -> usize {
        let writes = self.in_flight.iter().map(|(_, submission)| match &submission.op {
            IoOp::Write { data, .. } => data.len(),
            _ => 0,
        });
        writes.sum()
    }

    /// The operation that is done next: any of those in flight.
    pub(crate) fn next(&mut self) -> Option<&IoOp> {
        let index = self.choose()?;
        Some(&self.in_flight[index].1.op)
    }

    fn choose(&mut self) -> Option<usize> {
        if let Some(chosen) = self.chosen {
            return self.in_flight.iter().position(|(submitted, _)| *submitted == chosen);
        }
        let is_held = |op: &IoOp| self.hold_reads && matches!(op, IoOp::Read { .. });
        let ready = self.in_flight.iter().enumerate().filter(|(_, (_, submission))| !is_held(&submission.op));
        let ready: Vec<usize> = ready.map(|(index, _)| index).collect();
        let index = *self.prng.choose(&ready)?;
        self.chosen = Some(self.in_flight[index].0);
        Some(index)
    }

    /// Does one of the operations in flight, any.
    pub(crate) fn complete_one(&mut self) -> Option<Completion> {
        let index = self.choose()?;
        self.chosen = None;
        let (submitted, Submission { token, op }) = self.in_flight.swap_remove(index);
        self.clock += 1;
        self.completed += 1;
        if let Some((_, kind)) = self.fail.take_if(|(verb, _)| *verb == op.verb()) {
            let error = IoError { kind, verb: op.verb(), file: op.file(), detail: "test".into() };
            if let IoOp::Sync { file } = &op
                && let Some(file) = self.file(*file)
            {
                file.unsynced.retain(|(_, change)| matches!(change, Change::Write(..)));
                file.unsynced.iter_mut().for_each(|(at, _)| *at = BEYOND_SAVING);
            }
            return Some(Completion { token, result: Err(error) });
        }
        Some(Completion { token, result: self.execute(submitted, &op) })
    }

    fn execute(&mut self, submitted: u64, op: &IoOp) -> Result<IoValue, IoError> {
        let error =
            |kind, op: &IoOp| IoError { kind, verb: op.verb(), file: op.file(), detail: "test".into() };
        match op {
            IoOp::List => {
                let length = |inode| self.files[inode].visible.len() as u64;
                let listing = self.names.iter().map(|(file, inode)| (*file, length(inode)));
                Ok(IoValue::Listing(listing.collect()))
            }
            IoOp::SyncDirectory => {
                self.durable_names.clone_from(&self.names);
                Ok(IoValue::Done)
            }
            IoOp::Create { file } if self.names.contains_key(file) => Err(error(IoErrorKind::Exists, op)),
            IoOp::Create { file } => {
                self.last_inode += 1;
                self.files.insert(self.last_inode, File::default());
                self.names.insert(*file, self.last_inode);
                Ok(IoValue::Done)
            }
            IoOp::Remove { file } => {
                self.names.remove(file);
                Ok(IoValue::Done)
            }
            IoOp::Rename { from, to } => {
                let moved = self.names.remove(from).unwrap();
                self.names.insert(*to, moved);
                Ok(IoValue::Done)
            }
            IoOp::Allocate { offset, length, .. } if offset + length > self.capacity => {
                Err(error(IoErrorKind::NoSpace, op))
            }
            IoOp::Read { file, .. }
            | IoOp::Write { file, .. }
            | IoOp::Sync { file }
            | IoOp::Allocate { file, .. }
            | IoOp::Truncate { file, .. } => {
                let clock = self.clock;
                let file = self.file(*file).ok_or(error(IoErrorKind::NotFound, op))?;
                let value = file.execute(clock, submitted, op);
                match (op, &value) {
                    (IoOp::Read { offset, .. }, IoValue::Read(bytes)) => {
                        self.reads += 1;
                        let start = *offset as usize;
                        self.read_at.insert((start, start + bytes.len()));
                    }
                    (IoOp::Write { data, .. }, _) => {
                        self.writes += 1;
                        self.bytes_written += data.len();
                    }
                    _ => {}
                }
                Ok(value)
            }
        }
    }

    pub(crate) fn crash(&mut self, crash: Crash) {
        if crash == Crash::Kill {
            return self.kill();
        }
        let clock = self.clock;
        self.chosen = None;
        for (_, submission) in std::mem::take(&mut self.in_flight) {
            let change = match &submission.op {
                IoOp::Write { offset, data, .. } => Change::Write(*offset as usize, data.clone()),
                IoOp::Truncate { length, .. } => Change::Truncate(*length as usize),
                _ => continue,
            };
            if let Some(file) = submission.op.file().and_then(|file| self.file(file)) {
                file.unsynced.push((clock, change));
            }
        }
        self.names.clone_from(&self.durable_names);
        for file in self.files.values_mut() {
            for (_, change) in std::mem::take(&mut file.unsynced) {
                let Change::Write(offset, data) = change else {
                    if crash != Crash::LoseAll && (crash != Crash::Tear || self.prng.chance_per_mille(500)) {
                        change.make(&mut file.durable);
                    }
                    continue;
                };
                for (index, sector) in data.chunks(SECTOR).enumerate() {
                    let keep = match crash {
                        Crash::LoseAll => false,
                        Crash::LoseSuperblock => offset >= crate::superblock::REGION_BYTES,
                        Crash::KeepAll | Crash::Kill => true,
                        Crash::Tear => self.prng.chance_per_mille(500),
                    };
                    if keep {
                        put(&mut file.durable, offset + index * SECTOR, sector);
                    }
                }
            }
            file.visible.clone_from(&file.durable);
        }
    }

    fn kill(&mut self) {
        self.chosen = None;
        for (submitted, submission) in std::mem::take(&mut self.in_flight) {
            let is_sync = matches!(submission.op, IoOp::Sync { .. });
            if !is_sync && self.prng.chance_per_mille(500) {
                let _ = self.execute(submitted, &submission.op);
            }
        }
    }

    fn file(&mut self, file: FileId) -> Option<&mut File> {
        self.names.get(&file).and_then(|inode| self.files.get_mut(inode))
    }

    pub(crate) fn bytes(&self, file: FileId) -> &[u8] {
        &self.files[&self.names[&file]].visible
    }

    /// Damages a byte, in what is read and in what is durable.
    pub(crate) fn flip(&mut self, file: FileId, offset: usize, mask: u8) {
        let file = self.file(file).unwrap();
        file.visible[offset] ^= mask;
        if let Some(byte) = file.durable.get_mut(offset) {
            *byte ^= mask;
        }
    }

    /// Puts bytes of an earlier moment back, as a lost write leaves them.
    pub(crate) fn overwrite(&mut self, file: FileId, offset: usize, bytes: &[u8]) {
        let file = self.file(file).unwrap();
        put(&mut file.visible, offset, bytes);
        put(&mut file.durable, offset, bytes);
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }
}

/// The time of a write that a sync failed to make durable, and that no later one does.
const BEYOND_SAVING: u64 = u64::MAX;

fn put(image: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    image.resize(image.len().max(end), 0);
    image[offset..end].copy_from_slice(data);
}
