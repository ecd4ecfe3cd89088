//! A disk in memory that does all the I/O seam allows: operations complete in any order, a crash keeps any part of
//! those in flight, names are durable only after the directory was made so. What a chosen crash leaves is in [`fates`].

pub(super) mod fates;

use std::collections::BTreeMap;

use bytes::Bytes;
use mesh_base::io::{Completion, FileId, IoError, IoErrorKind, IoOp, IoQueue, IoToken, IoValue, Submission};
use mesh_base::prng::Prng;

/// What a write may be torn at, in bytes.
const TEAR_BYTES: usize = 512;

/// What ends with a crash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Crash {
    /// The process: what was seen is seen again, though it may not be durable yet.
    Process,
    /// The power: only what is durable is left, and parts of what was on its way.
    Power,
}

#[derive(Clone, Debug, Default)]
struct File {
    bytes: Vec<u8>,
    /// Up to here the length is durable.
    written_to: usize,
    /// What can be read and is not durable.
    volatile: Vec<Volatile>,
}

/// What a write left on the way to the disk.
#[derive(Clone, Debug)]
struct Volatile {
    at: usize,
    /// What was there before.
    before: Vec<u8>,
    hope: Hope,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hope {
    /// It was in flight when its process ended: a sync makes it durable.
    Sync,
    /// It failed: only another write does.
    Rewrite,
}

#[derive(Clone, Copy, Debug)]
enum NameOp {
    Create(FileId, u64),
    Rename(FileId, FileId),
    Remove(FileId),
}

#[derive(Clone, Debug)]
struct Pending {
    token: IoToken,
    op: IoOp,
    /// The file as it was found when the operation was submitted.
    inode: Option<u64>,
    /// What a directory sync makes durable: name operations up to here.
    names_to: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Disk {
    prng: Prng,
    files: BTreeMap<u64, File>,
    last_inode: u64,
    names: BTreeMap<FileId, u64>,
    durable_names: BTreeMap<FileId, u64>,
    /// Name operations that are done and not durable, numbered.
    journal: Vec<(u64, NameOp)>,
    last_name_op: u64,
    pending: Vec<Pending>,
    /// The operation that was chosen to be completed next.
    chosen: Option<IoToken>,
    /// Whether allocation fails.
    pub(super) full: bool,
    /// The verb of the operation that fails next.
    pub(super) fail_next: Option<&'static str>,
    /// Operations submitted so far.
    pub(super) submitted: u64,
}

impl Disk {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            prng: Prng::new(seed),
            files: BTreeMap::new(),
            last_inode: 0,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            journal: Vec::new(),
            last_name_op: 0,
            pending: Vec::new(),
            chosen: None,
            full: false,
            fail_next: None,
            submitted: 0,
        }
    }

    pub(super) fn submit(&mut self, io: &mut IoQueue) {
        io.drain().for_each(|submission| self.submit_one(submission));
    }

    pub(super) fn submit_one(&mut self, Submission { token, op }: Submission) {
        let inode = op.file().and_then(|file| self.names.get(&file).copied());
        self.check(&op, inode);
        self.submitted += 1;
        self.pending.push(Pending { token, op, inode, names_to: self.last_name_op });
    }

    /// No operation may meet the bytes of a write in flight, and writes stay within the space taken.
    fn check(&self, op: &IoOp, inode: Option<u64>) {
        let Some((start, end)) = range(op) else { return };
        for other in self.pending.iter().filter(|other| other.inode == inode) {
            let writes = |op: &IoOp| matches!(op, IoOp::Write { .. });
            if let Some((from, to)) = range(&other.op).filter(|_| writes(op) || writes(&other.op)) {
                assert!(end <= from || to <= start, "{op:?} meets {:?}", other.op);
            }
        }
        if let (IoOp::Write { .. }, Some(inode)) = (op, inode) {
            assert!(end <= self.files[&inode].bytes.len(), "a write beyond the space taken");
        }
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.pending.is_empty()
    }

    /// The operation that is completed next: any of those in flight.
    pub(super) fn next(&mut self) -> Option<&IoOp> {
        let at = self.choose()?;
        Some(&self.pending[at].op)
    }

    fn choose(&mut self) -> Option<usize> {
        if let Some(chosen) = self.chosen {
            return self.pending.iter().position(|pending| pending.token == chosen);
        }
        let at = (!self.pending.is_empty()).then(|| self.prng.index(self.pending.len()))?;
        self.chosen = Some(self.pending[at].token);
        Some(at)
    }

    /// Completes one operation in flight, any of them.
    pub(super) fn complete_any(&mut self) -> Option<Completion> {
        let at = self.choose()?;
        self.chosen = None;
        Some(self.complete(at))
    }

    /// Completes the newest operation in flight with this verb.
    pub(super) fn complete_newest(&mut self, verb: &str) -> Option<Completion> {
        let at = self.pending.iter().rposition(|pending| pending.op.verb() == verb)?;
        Some(self.complete(at))
    }

    fn complete(&mut self, at: usize) -> Completion {
        let pending = self.pending.remove(at);
        let token = pending.token;
        if self.fail_next == Some(pending.op.verb()) {
            self.fail_next = None;
            self.tear(&pending, Crash::Process, Hope::Rewrite);
            return Completion { token, result: Err(error(&pending.op, IoErrorKind::Device)) };
        }
        Completion { token, result: self.perform(&pending) }
    }

    fn perform(&mut self, pending: &Pending) -> Result<IoValue, IoError> {
        let op = &pending.op;
        let file = pending.inode.and_then(|inode| self.files.get_mut(&inode));
        let missing = || error(op, IoErrorKind::NotFound);
        match op {
            IoOp::List => {
                let lengths =
                    self.names.iter().map(|(file, inode)| (*file, self.files[inode].bytes.len() as u64));
                return Ok(IoValue::Listing(lengths.collect()));
            }
            IoOp::Create { file } => {
                if self.names.contains_key(file) {
                    return Err(error(op, IoErrorKind::Exists));
                }
                self.create(*file);
            }
            IoOp::Allocate { offset, length, .. } => {
                let (file, end) = (file.ok_or_else(missing)?, position(offset + length));
                if self.full && end > file.bytes.len() {
                    return Err(error(op, IoErrorKind::NoSpace));
                }
                file.bytes.resize(end.max(file.bytes.len()), 0);
            }
            IoOp::Truncate { .. } => panic!("a log does not shorten its files"),
            IoOp::Write { offset, data, .. } => {
                let (file, start) = (file.ok_or_else(missing)?, position(*offset));
                let end = start + data.len();
                file.bytes[start..end].copy_from_slice(data);
                file.written_to = file.written_to.max(end);
                file.volatile.retain(|it| it.at + it.before.len() <= start || end <= it.at);
            }
            IoOp::Read { offset, length, .. } => {
                let file = file.ok_or_else(missing)?;
                let start = (position(*offset)).min(file.bytes.len());
                let end = (start + length).min(file.bytes.len());
                return Ok(IoValue::Read(Bytes::copy_from_slice(&file.bytes[start..end])));
            }
            IoOp::Sync { .. } => {
                let file = file.ok_or_else(missing)?;
                file.written_to = file.bytes.len();
                file.volatile.retain(|it| it.hope == Hope::Rewrite);
            }
            IoOp::Rename { from, to } => {
                self.names.get(from).ok_or_else(missing)?;
                self.name(NameOp::Rename(*from, *to));
            }
            IoOp::Remove { file } => self.name(NameOp::Remove(*file)),
            IoOp::SyncDirectory => self.sync_names(pending.names_to),
        }
        Ok(IoValue::Done)
    }

    fn create(&mut self, file: FileId) {
        self.last_inode += 1;
        self.files.insert(self.last_inode, File::default());
        self.name(NameOp::Create(file, self.last_inode));
    }

    fn name(&mut self, op: NameOp) {
        self.last_name_op += 1;
        apply(&mut self.names, op);
        self.journal.push((self.last_name_op, op));
    }

    fn sync_names(&mut self, to: u64) {
        let durable_names = &mut self.durable_names;
        self.journal.retain(|(no, op)| {
            if *no <= to {
                apply(durable_names, *op);
            }
            *no > to
        });
    }

    /// Ends everything in flight, each operation done, undone or torn.
    pub(super) fn crash(&mut self, crash: Crash) {
        self.chosen = None;
        let mut pending = std::mem::take(&mut self.pending);
        self.prng.shuffle(&mut pending);
        for pending in pending {
            self.tear(&pending, crash, Hope::Sync);
        }
        self.fail_next = None;
        if crash == Crash::Power {
            self.lose_names();
            for file in self.files.values_mut() {
                for Volatile { at, before, .. } in std::mem::take(&mut file.volatile) {
                    if self.prng.chance_per_mille(500) {
                        file.bytes[at..at + before.len()].copy_from_slice(&before);
                    }
                }
                if self.prng.chance_per_mille(500) {
                    file.bytes.truncate(file.written_to);
                }
                file.written_to = file.bytes.len();
            }
        }
    }

    fn tear(&mut self, pending: &Pending, crash: Crash, hope: Hope) {
        match &pending.op {
            IoOp::Write { offset, data, .. } => {
                let Some(file) = pending.inode.and_then(|inode| self.files.get_mut(&inode)) else { return };
                let keep_per_mille = [0, 1000, 500, 900][self.prng.index(4)];
                for (at, sector) in data.chunks(TEAR_BYTES).enumerate() {
                    if self.prng.chance_per_mille(keep_per_mille) {
                        let start = position(*offset) + at * TEAR_BYTES;
                        let room = &mut file.bytes[start..start + sector.len()];
                        if crash == Crash::Process {
                            file.volatile.push(Volatile { at: start, before: room.to_vec(), hope });
                        } else {
                            file.written_to = file.written_to.max(start + sector.len());
                        }
                        room.copy_from_slice(sector);
                    }
                }
            }
            IoOp::SyncDirectory | IoOp::Sync { .. } | IoOp::List | IoOp::Read { .. } => {}
            _ if hope == Hope::Rewrite => {}
            _ if self.prng.chance_per_mille(500) => {
                let _ = self.perform(pending);
            }
            _ => {}
        }
    }

    /// Keeps some of the name operations that are not durable: none whose file an earlier lost one was about.
    fn lose_names(&mut self) {
        let keep_per_mille = [0, 1000, 500][self.prng.index(3)];
        let mut lost: Vec<FileId> = Vec::new();
        for (_, op) in std::mem::take(&mut self.journal) {
            let about = match op {
                NameOp::Create(file, _) | NameOp::Remove(file) => vec![file],
                NameOp::Rename(from, to) => vec![from, to],
            };
            if self.prng.chance_per_mille(keep_per_mille) && !about.iter().any(|file| lost.contains(file)) {
                apply(&mut self.durable_names, op);
            } else {
                lost.extend(about);
            }
        }
        self.names = self.durable_names.clone();
    }

    /// The files and their lengths.
    pub(super) fn listing(&self) -> Vec<(FileId, usize)> {
        self.names.iter().map(|(file, inode)| (*file, self.files[inode].bytes.len())).collect()
    }

    pub(super) fn segments(&self) -> Vec<FileId> {
        let segments = self.names.keys().filter(|file| matches!(file, FileId::Segment(_)));
        segments.copied().collect()
    }

    pub(super) fn bytes(&mut self, file: FileId) -> &mut Vec<u8> {
        &mut self.files.get_mut(&self.names[&file]).unwrap().bytes
    }

    pub(super) fn add(&mut self, file: FileId, length: usize) {
        self.last_inode += 1;
        let bytes = vec![0xee; length];
        self.files.insert(self.last_inode, File { bytes, written_to: length, volatile: Vec::new() });
        self.names.insert(file, self.last_inode);
        self.durable_names.insert(file, self.last_inode);
    }

    pub(super) fn remove(&mut self, file: FileId) {
        self.names.remove(&file);
        self.durable_names.remove(&file);
    }

    /// What is in flight, in the order of submission.
    pub(super) fn in_flight(&self) -> Vec<&IoOp> {
        self.pending.iter().map(|pending| &pending.op).collect()
    }
}

fn position(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

fn range(op: &IoOp) -> Option<(usize, usize)> {
    match op {
        IoOp::Write { offset, data, .. } => Some((position(*offset), position(*offset) + data.len())),
        IoOp::Read { offset, length, .. } => Some((position(*offset), position(*offset) + length)),
        _ => None,
    }
}

fn error(op: &IoOp, kind: IoErrorKind) -> IoError {
    IoError { kind, verb: op.verb(), file: op.file(), detail: format!("{kind:?}") }
}

fn apply(names: &mut BTreeMap<FileId, u64>, op: NameOp) {
    match op {
        NameOp::Create(file, inode) => {
            names.insert(file, inode);
        }
        NameOp::Rename(from, to) => {
            if let Some(inode) = names.remove(&from) {
                names.insert(to, inode);
            }
        }
        NameOp::Remove(file) => {
            names.remove(&file);
        }
    }
}
