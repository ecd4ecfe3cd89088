//! A disk in memory that does all that the I/O seam allows: completes in any order, and at a crash keeps any subset of
//! the 512-byte sectors that were not synced.

use std::collections::BTreeMap;

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
    /// Writes since the last sync, with the moment they completed.
    unsynced: Vec<(u64, usize, Bytes)>,
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

pub(crate) struct Disk {
    files: BTreeMap<FileId, File>,
    durable_names: Vec<FileId>,
    in_flight: Vec<(u64, Submission)>,
    clock: u64,
    pub(crate) capacity: u64,
    /// Reads stay in flight while this is set.
    pub(crate) hold_reads: bool,
    /// The next operation with this name fails.
    pub(crate) fail: Option<(&'static str, IoErrorKind)>,
    pub(crate) completed: usize,
    pub(crate) reads: usize,
    pub(crate) writes: usize,
    pub(crate) bytes_written: usize,
    pub(crate) prng: Prng,
}

impl Disk {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            files: BTreeMap::new(),
            durable_names: Vec::new(),
            in_flight: Vec::new(),
            clock: 0,
            capacity: u64::MAX,
            hold_reads: false,
            fail: None,
            completed: 0,
            reads: 0,
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

    /// Does one of the operations in flight, any.
    pub(crate) fn complete_one(&mut self) -> Option<Completion> {
        let is_held = |op: &IoOp| self.hold_reads && matches!(op, IoOp::Read { .. });
        let ready = self.in_flight.iter().enumerate().filter(|(_, (_, submission))| !is_held(&submission.op));
        let ready: Vec<usize> = ready.map(|(index, _)| index).collect();
        let index = *self.prng.choose(&ready)?;
        let (submitted, Submission { token, op }) = self.in_flight.swap_remove(index);
        self.clock += 1;
        self.completed += 1;
        if let Some((_, kind)) = self.fail.take_if(|(verb, _)| *verb == op.verb()) {
            let error = IoError { kind, verb: op.verb(), file: op.file(), detail: "test".into() };
            if let (IoOp::Sync { .. }, Some(file)) =
                (&op, op.file().and_then(|file| self.files.get_mut(&file)))
            {
                file.unsynced.iter_mut().for_each(|(at, ..)| *at = BEYOND_SAVING);
            }
            return Some(Completion { token, result: Err(error) });
        }
        Some(Completion { token, result: self.execute(submitted, op) })
    }

    fn execute(&mut self, submitted: u64, op: IoOp) -> Result<IoValue, IoError> {
        let error =
            |kind, op: &IoOp| IoError { kind, verb: op.verb(), file: op.file(), detail: "test".into() };
        let file = op.file();
        match &op {
            IoOp::List => Ok(IoValue::Listing(
                self.files.iter().map(|(id, file)| (*id, file.visible.len() as u64)).collect(),
            )),
            IoOp::SyncDirectory => {
                self.durable_names = self.files.keys().copied().collect();
                Ok(IoValue::Done)
            }
            IoOp::Create { file } if self.files.contains_key(file) => Err(error(IoErrorKind::Exists, &op)),
            IoOp::Create { file } => {
                self.files.insert(*file, File::default());
                Ok(IoValue::Done)
            }
            IoOp::Remove { file } => {
                self.files.remove(file);
                Ok(IoValue::Done)
            }
            IoOp::Rename { from, to } => {
                let moved = self.files.remove(from).unwrap();
                self.files.insert(*to, moved);
                Ok(IoValue::Done)
            }
            IoOp::Allocate { offset, length, .. } if offset + length > self.capacity => {
                Err(error(IoErrorKind::NoSpace, &op))
            }
            IoOp::Read { .. } | IoOp::Write { .. } | IoOp::Sync { .. } | IoOp::Allocate { .. } => {
                let file = file.and_then(|file| self.files.get_mut(&file));
                let Some(file) = file else { return Err(error(IoErrorKind::NotFound, &op)) };
                match op {
                    IoOp::Read { offset, length, .. } => {
                        self.reads += 1;
                        let start = (offset as usize).min(file.visible.len());
                        let end = (start + length).min(file.visible.len());
                        Ok(IoValue::Read(Bytes::copy_from_slice(&file.visible[start..end])))
                    }
                    IoOp::Write { offset, data, .. } => {
                        self.writes += 1;
                        self.bytes_written += data.len();
                        put(&mut file.visible, offset as usize, &data);
                        file.unsynced
                            .retain(|(at, same, _)| (*at, *same) != (BEYOND_SAVING, offset as usize));
                        file.unsynced.push((self.clock, offset as usize, data));
                        Ok(IoValue::Done)
                    }
                    IoOp::Allocate { offset, length, .. } => {
                        let end = (offset + length) as usize;
                        file.visible.resize(file.visible.len().max(end), 0);
                        Ok(IoValue::Done)
                    }
                    _ => {
                        // Only what completed before the sync was submitted.
                        for (at, offset, data) in std::mem::take(&mut file.unsynced) {
                            if at < submitted {
                                put(&mut file.durable, offset, &data);
                            } else {
                                file.unsynced.push((at, offset, data));
                            }
                        }
                        file.durable.resize(file.durable.len().max(file.visible.len()), 0);
                        Ok(IoValue::Done)
                    }
                }
            }
        }
    }

    pub(crate) fn crash(&mut self, crash: Crash) {
        if crash == Crash::Kill {
            return self.kill();
        }
        for (_, submission) in std::mem::take(&mut self.in_flight) {
            if let IoOp::Write { file, offset, data } = submission.op
                && let Some(file) = self.files.get_mut(&file)
            {
                file.unsynced.push((self.clock, offset as usize, data));
            }
        }
        let names = self.durable_names.clone();
        self.files.retain(|file, _| names.contains(file));
        for file in self.files.values_mut() {
            for (_, offset, data) in std::mem::take(&mut file.unsynced) {
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
        for (submitted, submission) in std::mem::take(&mut self.in_flight) {
            let is_sync = matches!(submission.op, IoOp::Sync { .. });
            if !is_sync && self.prng.chance_per_mille(500) {
                let _ = self.execute(submitted, submission.op);
            }
        }
    }

    pub(crate) fn bytes(&self, file: FileId) -> &[u8] {
        &self.files[&file].visible
    }

    /// Damages a byte, in what is read and in what is durable.
    pub(crate) fn flip(&mut self, file: FileId, offset: usize, mask: u8) {
        let file = self.files.get_mut(&file).unwrap();
        file.visible[offset] ^= mask;
        if let Some(byte) = file.durable.get_mut(offset) {
            *byte ^= mask;
        }
    }

    /// Puts bytes of an earlier moment back, as a lost write leaves them.
    pub(crate) fn overwrite(&mut self, file: FileId, offset: usize, bytes: &[u8]) {
        let file = self.files.get_mut(&file).unwrap();
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
