//! The files of one replica: does what the page store and the log submit, as the server's host does.
//!
//! Reads and writes go past the page cache, through a copy into aligned memory, and the log's through `O_DSYNC`. What takes
//! long (reads, writes, syncs, taking space) is in flight in the ring; making, renaming and removing a file is done at once, by
//! the one thread there is.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;
use mesh_base::io::{
    Completion, FileId, IoError, IoErrorKind, IoOp, IoQueue, IoToken, IoValue, Submission, WriteDurability,
};

use super::ring::{Done, Request, Ring};
use super::{Durability, Presence, open_direct};
use mesh_base::aligned::Aligned;

/// Buffers kept for later operations.
const BUFFERS_KEPT: usize = 64;

/// What was written into files that are durable on a sync: the page store's.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Written {
    pub(crate) bytes: u64,
    pub(crate) writes: u64,
    pub(crate) syncs: u64,
}

impl Written {
    /// What was written after a moment.
    pub(crate) const fn since(self, before: Self) -> Self {
        Self {
            bytes: self.bytes - before.bytes,
            writes: self.writes - before.writes,
            syncs: self.syncs - before.syncs,
        }
    }
}

struct Owner {
    token: IoToken,
    verb: &'static str,
    file: Option<FileId>,
}

/// One replica's directory.
pub(crate) struct Disk {
    directory: PathBuf,
    directory_file: Rc<File>,
    ring: Ring<Owner>,
    files: BTreeMap<FileId, Rc<File>>,
    buffers: Vec<Aligned>,
    done: VecDeque<Completion>,
    written: Written,
}

impl Disk {
    /// The files of a directory that is there.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn new(directory: &Path) -> io::Result<Self> {
        Ok(Self {
            directory: directory.to_path_buf(),
            directory_file: Rc::new(File::open(directory)?),
            ring: Ring::new()?,
            files: BTreeMap::new(),
            buffers: Vec::new(),
            done: VecDeque::new(),
            written: Written::default(),
        })
    }

    /// What was written so far.
    pub(crate) const fn written(&self) -> Written {
        self.written
    }

    /// Begins everything that was submitted.
    pub(crate) fn submit(&mut self, io: &mut IoQueue) {
        for Submission { token, op } in io.drain() {
            let (verb, file) = (op.verb(), op.file());
            match self.begin(token, op) {
                Ok(None) => {}
                Ok(Some(value)) => self.done.push_back(Completion { token, result: Ok(value) }),
                Err(error) => {
                    let result = Err(failure(&error, verb, file));
                    self.done.push_back(Completion { token, result });
                }
            }
        }
    }

    /// Has the kernel begin what was submitted.
    ///
    /// # Errors
    /// The ring's own.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.ring.flush()
    }

    /// Something that has completed, if anything has.
    ///
    /// # Errors
    /// The ring's own; an operation's are in its completion.
    pub(crate) fn poll(&mut self) -> io::Result<Option<Completion>> {
        if let Some(done) = self.done.pop_front() {
            return Ok(Some(done));
        }
        let done = self.ring.poll()?;
        Ok(done.map(|done| self.end(done)))
    }

    /// The next completion; nothing if nothing is in flight.
    ///
    /// # Errors
    /// As of [`Disk::poll`].
    pub(crate) fn wait(&mut self) -> io::Result<Option<Completion>> {
        if let Some(done) = self.done.pop_front() {
            return Ok(Some(done));
        }
        let done = self.ring.wait()?;
        Ok(done.map(|done| self.end(done)))
    }

    /// Begins an operation; its value if it is done already.
    fn begin(&mut self, token: IoToken, op: IoOp) -> io::Result<Option<IoValue>> {
        let owner = Owner { token, verb: op.verb(), file: op.file() };
        let (file, request) = match op {
            IoOp::List => return Ok(Some(IoValue::Listing(self.list()?))),
            IoOp::Create { file } => {
                let made = self.open(file, Presence::New)?;
                self.files.insert(file, Rc::new(made));
                return Ok(Some(IoValue::Done));
            }
            IoOp::Rename { from, to } => {
                self.files.remove(&from);
                self.files.remove(&to);
                fs::rename(self.path(from), self.path(to))?;
                return Ok(Some(IoValue::Done));
            }
            IoOp::Remove { file } => {
                self.files.remove(&file);
                return match fs::remove_file(self.path(file)) {
                    Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
                    _ => Ok(Some(IoValue::Done)),
                };
            }
            IoOp::SyncDirectory => (Rc::clone(&self.directory_file), Request::SyncDirectory),
            IoOp::Allocate { file, offset, length } => {
                (self.file(file)?, Request::Allocate { offset, length })
            }
            IoOp::Truncate { file, length } => {
                let file = self.file(file)?;
                if file.metadata()?.len() > length {
                    file.set_len(length)?;
                }
                return Ok(Some(IoValue::Done));
            }
            IoOp::Sync { file } => {
                self.written.syncs += 1;
                (self.file(file)?, Request::Sync)
            }
            IoOp::Read { file, offset, length } => {
                let buffer = self.buffer(length);
                (self.file(file)?, Request::Read { offset, buffer })
            }
            IoOp::Write { file, offset, data } => {
                let mut buffer = self.buffer(data.len());
                buffer.bytes_mut().copy_from_slice(&data);
                if file.durability() == WriteDurability::OnSync {
                    self.written.bytes += data.len() as u64;
                    self.written.writes += 1;
                }
                (self.file(file)?, Request::Write { offset, buffer })
            }
        };
        self.ring.submit(&file, request, owner)?;
        Ok(None)
    }

    fn end(&mut self, done: Done<Owner>) -> Completion {
        let Done { owner: Owner { token, verb, file }, request, result } = done;
        let result = result.and_then(|count| match request {
            Request::Write { buffer, .. } => {
                let length = buffer.len();
                self.keep(buffer);
                let whole = count == length;
                whole.then_some(IoValue::Done).ok_or_else(|| io::Error::other("a part was written"))
            }
            Request::Read { buffer, .. } => {
                let read = buffer.bytes().get(..count).map(Bytes::copy_from_slice).unwrap_or_default();
                self.keep(buffer);
                Ok(IoValue::Read(read))
            }
            Request::Sync | Request::SyncDirectory | Request::Allocate { .. } => Ok(IoValue::Done),
        });
        Completion { token, result: result.map_err(|error| failure(&error, verb, file)) }
    }

    fn keep(&mut self, buffer: Aligned) {
        if self.buffers.len() < BUFFERS_KEPT {
            self.buffers.push(buffer);
        }
    }

    fn buffer(&mut self, length: usize) -> Aligned {
        // One that is much larger is for a write that is.
        let fits = |buffer: &Aligned| (length..=length * 4).contains(&buffer.capacity());
        let kept = self.buffers.iter().rposition(fits).map(|at| self.buffers.swap_remove(at));
        kept.and_then(|buffer| buffer.resized(length)).unwrap_or_else(|| Aligned::zeroed(length))
    }

    fn file(&mut self, file: FileId) -> io::Result<Rc<File>> {
        if let Some(open) = self.files.get(&file) {
            return Ok(Rc::clone(open));
        }
        let open = Rc::new(self.open(file, Presence::Existing)?);
        self.files.insert(file, Rc::clone(&open));
        Ok(open)
    }

    fn open(&self, file: FileId, presence: Presence) -> io::Result<File> {
        let durability = match file.durability() {
            WriteDurability::OnCompletion => Durability::OnCompletion,
            WriteDurability::OnSync => Durability::OnSync,
        };
        open_direct(&self.path(file), presence, durability)
    }

    fn path(&self, file: FileId) -> PathBuf {
        self.directory.join(file.name())
    }

    fn list(&self) -> io::Result<Vec<(FileId, u64)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            if let Some(file) = entry.file_name().to_str().and_then(FileId::from_name) {
                found.push((file, entry.metadata()?.len()));
            }
        }
        found.sort_unstable();
        Ok(found)
    }
}

fn failure(error: &io::Error, verb: &'static str, file: Option<FileId>) -> IoError {
    let kind = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => IoErrorKind::NoSpace,
        ErrorKind::NotFound => IoErrorKind::NotFound,
        ErrorKind::AlreadyExists => IoErrorKind::Exists,
        _ => IoErrorKind::Device,
    };
    IoError { kind, verb, file, detail: error.to_string() }
}
