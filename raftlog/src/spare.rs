//! Space taken before it is needed: a spare file is created, given its blocks and zeroed at its start, so that the
//! switch to the next segment finds it ready.

use bytes::Bytes;
use mesh_base::io::{FileId, IoError, IoErrorKind, IoOp, IoPort, IoQueue, IoToken};
use mesh_base::limits::SECTOR_BYTES;

use crate::options::LogOptions;
use crate::writer::zeros;

/// A file that can become a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Spare {
    pub(crate) no: u64,
    /// Bytes of the file.
    pub(crate) capacity: u64,
    /// Up to here the file was written before.
    pub(crate) zeroed_to: u64,
}

impl Spare {
    pub(crate) const fn file(&self) -> FileId {
        FileId::SpareSegment(self.no)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Create,
    Allocate,
    SyncDirectory,
    Zero,
}

/// What became of a preparation's step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Prepared {
    /// The next step is under way.
    Working,
    /// The spare can be used.
    Ready(Spare),
    /// The disk is full. The step can be tried again.
    NoSpace,
}

/// A spare on its way.
#[derive(Debug)]
pub(crate) struct Preparation {
    spare: Spare,
    zero_to: u64,
    step: Step,
    /// The operation in flight; none while the disk is full.
    token: Option<IoToken>,
    zeros: Bytes,
}

impl Preparation {
    /// A preparation of a file of `capacity` bytes, zeroed up to `zero_to`, that waits for [`Preparation::submit`].
    pub(crate) const fn new(no: u64, capacity: u64, zero_to: u64) -> Self {
        let spare = Spare { no, capacity, zeroed_to: 0 };
        Self { spare, zero_to, step: Step::Create, token: None, zeros: Bytes::new() }
    }

    /// A preparation like that of [`Preparation::new`], of a file that exists.
    pub(crate) const fn of_existing(no: u64, capacity: u64, zero_to: u64) -> Self {
        let mut preparation = Self::new(no, capacity, zero_to);
        preparation.step = Step::Allocate;
        preparation
    }

    /// Makes do with a smaller file.
    pub(crate) fn shrink_to(&mut self, capacity: u64) {
        assert!(self.is_waiting() && self.spare.zeroed_to == 0);
        self.spare.capacity = capacity.min(self.spare.capacity);
        self.zero_to = self.zero_to.min(capacity);
    }

    /// The file's size in bytes.
    pub(crate) const fn capacity(&self) -> u64 {
        self.spare.capacity
    }

    /// Whether the operation is this preparation's.
    pub(crate) fn owns(&self, token: IoToken) -> bool {
        self.token == Some(token)
    }

    /// Whether it waits for space.
    pub(crate) const fn is_waiting(&self) -> bool {
        self.token.is_none()
    }

    /// Starts the step that is next, if none is in flight.
    pub(crate) fn submit(&mut self, port: &mut IoPort, io: &mut IoQueue) {
        if self.token.is_some() {
            return;
        }
        let file = self.spare.file();
        let op = match self.step {
            Step::Create => IoOp::Create { file },
            Step::Allocate => IoOp::Allocate { file, offset: 0, length: self.spare.capacity },
            Step::SyncDirectory => IoOp::SyncDirectory,
            Step::Zero => {
                let data = zeros(&mut self.zeros, self.zero_to - self.spare.zeroed_to);
                IoOp::Write { file, offset: self.spare.zeroed_to, data }
            }
        };
        self.token = Some(port.submit(io, op));
    }

    /// Takes the end of the step in flight and starts the next.
    pub(crate) fn complete(
        &mut self,
        result: Result<(), IoError>,
        port: &mut IoPort,
        io: &mut IoQueue,
    ) -> Result<Prepared, IoError> {
        self.token = None;
        let takes_space = matches!(self.step, Step::Create | Step::Allocate);
        match result {
            Err(error) if takes_space && error.kind == IoErrorKind::NoSpace => return Ok(Prepared::NoSpace),
            result => result?,
        }
        self.step = match self.step {
            Step::Create => Step::Allocate,
            Step::Allocate if self.zero_to == 0 => Step::Zero,
            Step::Allocate => Step::SyncDirectory,
            Step::SyncDirectory => Step::Zero,
            Step::Zero => {
                self.spare.zeroed_to = self.zero_to.min(self.spare.zeroed_to + self.zeros.len() as u64);
                Step::Zero
            }
        };
        if self.step == Step::Zero && self.spare.zeroed_to >= self.zero_to {
            return Ok(Prepared::Ready(self.spare));
        }
        self.submit(port, io);
        Ok(Prepared::Working)
    }
}

/// Whether the log has space for its next segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Space {
    /// It has, or is about to learn whether it has.
    Ok,
    /// The disk is full: entries are to be refused. Votes still become durable.
    Full,
}

/// The spares of a log: those that are ready, and the one on its way.
#[derive(Debug)]
pub(crate) struct Spares {
    ready: Vec<Spare>,
    preparation: Option<Preparation>,
    next_no: u64,
    segment_bytes: u64,
    /// How far a new file is zeroed before it counts as ready.
    zero_to: u64,
}

impl Spares {
    /// No spares; `next_no` is the first number no file has.
    pub(crate) fn new(next_no: u64, options: &LogOptions) -> Self {
        let segment_bytes = options.segment_bytes;
        let zero_to = segment_bytes.min(options.zero_ahead_bytes.max(SECTOR_BYTES as u64));
        Self { ready: Vec::new(), preparation: None, next_no, segment_bytes, zero_to }
    }

    /// Notes that the disk was full just now.
    pub(crate) fn note_full(&mut self) {
        self.preparation = Some(Preparation::new(self.number(), self.segment_bytes, self.zero_to));
    }

    /// A number that no file of this log has.
    pub(crate) const fn number(&mut self) -> u64 {
        let number = self.next_no;
        self.next_no += 1;
        number
    }

    pub(crate) const fn count(&self) -> usize {
        self.ready.len()
    }

    /// Whether there is space for the next segment.
    pub(crate) fn space(&self) -> Space {
        let waiting = self.preparation.as_ref().is_some_and(Preparation::is_waiting);
        if self.ready.is_empty() && waiting { Space::Full } else { Space::Ok }
    }

    /// Takes a spare.
    pub(crate) fn take(&mut self) -> Option<Spare> {
        self.ready.pop()
    }

    /// Adds files that came out of use.
    pub(crate) fn add(&mut self, spares: Vec<Spare>) {
        self.ready.extend(spares);
    }

    /// Begins to prepare a spare if there is none and none is on its way.
    pub(crate) fn prepare(&mut self, port: &mut IoPort, io: &mut IoQueue) {
        if self.ready.is_empty() && self.preparation.is_none() {
            let preparation = Preparation::new(self.number(), self.segment_bytes, self.zero_to);
            self.preparation.insert(preparation).submit(port, io);
        }
    }

    /// Tries again what failed for lack of space.
    pub(crate) fn retry(&mut self, port: &mut IoPort, io: &mut IoQueue) {
        if let Some(preparation) = &mut self.preparation {
            preparation.submit(port, io);
        }
    }

    /// Whether the operation is of the spare on its way.
    pub(crate) fn owns(&self, token: IoToken) -> bool {
        self.preparation.as_ref().is_some_and(|preparation| preparation.owns(token))
    }

    /// Takes the end of an operation of the spare on its way.
    pub(crate) fn complete(
        &mut self,
        result: Result<(), IoError>,
        port: &mut IoPort,
        io: &mut IoQueue,
    ) -> Result<(), IoError> {
        let Some(preparation) = &mut self.preparation else { return Ok(()) };
        match preparation.complete(result, port, io)? {
            Prepared::Working => {}
            Prepared::Ready(spare) => {
                self.ready.push(spare);
                self.preparation = None;
            }
            Prepared::NoSpace => {
                tracing::warn!(bytes = self.segment_bytes, "no space for the next log segment");
            }
        }
        Ok(())
    }
}
