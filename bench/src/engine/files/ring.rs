//! `io_uring` as this crate needs it: the one place that hands memory to the kernel.
//!
//! Invariants:
//! - What the kernel may read or write (buffer, descriptor) is owned by the ring from the submission to the completion, and is
//!   not touched in between.
//! - A ring waits for everything in flight before it goes.
//!
//! Deliberately absent: retries of short writes; whoever submits compares the count.

#![allow(unsafe_code, reason = "a submission names memory by its address: the audited place of this crate")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;

use io_uring::{IoUring, opcode, squeue, types};

use mesh_base::aligned::Aligned;

/// Operations in flight at a time, at most; more wait in the submitter's hands.
const ENTRIES: u32 = 256;

/// What the kernel is asked for.
#[derive(Debug)]
pub(crate) enum Request {
    /// Writes the buffer.
    Write { offset: u64, buffer: Aligned },
    /// Fills the buffer.
    Read { offset: u64, buffer: Aligned },
    /// Makes what was written durable.
    Sync,
    /// The same for a directory's names.
    SyncDirectory,
    /// Takes space.
    Allocate { offset: u64, length: u64 },
}

/// An operation that has ended.
#[derive(Debug)]
pub(crate) struct Done<T> {
    /// Whose it is.
    pub(crate) owner: T,
    /// What was asked for, with its buffer.
    pub(crate) request: Request,
    /// Bytes read or written.
    pub(crate) result: io::Result<usize>,
}

struct Job<T> {
    owner: T,
    request: Request,
    file: Rc<File>,
}

/// Operations in flight, each with something of its owner.
pub(crate) struct Ring<T> {
    ring: IoUring,
    jobs: Vec<Option<Job<T>>>,
    free: Vec<usize>,
    in_flight: usize,
    /// Entered into the queue, and the kernel not told.
    unsubmitted: usize,
}

impl<T> Ring<T> {
    /// # Errors
    /// The kernel's, where it has no rings or forbids them.
    pub(crate) fn new() -> io::Result<Self> {
        let ring = IoUring::builder().build(ENTRIES)?;
        Ok(Self { ring, jobs: Vec::new(), free: Vec::new(), in_flight: 0, unsubmitted: 0 })
    }

    /// Operations that have not ended.
    pub(crate) const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Enters an operation; the kernel hears of it when the ring next waits or polls.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn submit(&mut self, file: &Rc<File>, request: Request, owner: T) -> io::Result<()> {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.jobs.push(None);
            self.jobs.len() - 1
        });
        let Some(place) = self.jobs.get_mut(slot) else { return Err(io::Error::other("no such slot")) };
        let job = place.insert(Job { owner, request, file: Rc::clone(file) });
        let entry = entry_of(job).user_data(slot as u64);
        while self.ring.submission().is_full() {
            self.enter(0)?;
        }
        // SAFETY: the entry names the descriptor and the memory of the job, which is in its slot until the completion with
        // its number was taken; memory that a job owns does not move when the job does.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        assert!(pushed.is_ok(), "there is room in the queue");
        self.in_flight += 1;
        self.unsubmitted += 1;
        Ok(())
    }

    /// Has the kernel begin what was entered.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if self.unsubmitted > 0 {
            self.enter(0)?;
        }
        Ok(())
    }

    /// The next operation that ended, if one has.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn poll(&mut self) -> io::Result<Option<Done<T>>> {
        self.flush()?;
        Ok(self.done())
    }

    /// The next operation that ends; nothing if none is in flight.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn wait(&mut self) -> io::Result<Option<Done<T>>> {
        if self.unsubmitted > 0 && !self.ring.completion().is_empty() {
            self.enter(0)?;
        }
        loop {
            if let Some(done) = self.done() {
                return Ok(Some(done));
            }
            if self.in_flight == 0 {
                return Ok(None);
            }
            self.enter(1)?;
        }
    }

    fn enter(&mut self, wait_for: usize) -> io::Result<()> {
        match self.ring.submit_and_wait(wait_for) {
            Ok(taken) => self.unsubmitted = self.unsubmitted.saturating_sub(taken),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// An operation that is known to have ended, without asking the kernel.
    fn done(&mut self) -> Option<Done<T>> {
        let ended = self.ring.completion().next()?;
        let slot = usize::try_from(ended.user_data()).ok()?;
        let Job { owner, request, file: _ } = self.jobs.get_mut(slot)?.take()?;
        self.free.push(slot);
        self.in_flight -= 1;
        let result =
            usize::try_from(ended.result()).map_err(|_| io::Error::from_raw_os_error(-ended.result()));
        Some(Done { owner, request, result })
    }
}

/// The kernel's form of a job that lies in its slot.
fn entry_of<T>(job: &mut Job<T>) -> squeue::Entry {
    let file = types::Fd(job.file.as_raw_fd());
    match &mut job.request {
        Request::Write { offset, buffer } => {
            let length = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
            opcode::Write::new(file, buffer.bytes().as_ptr(), length).offset(*offset).build()
        }
        Request::Read { offset, buffer } => {
            let length = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
            opcode::Read::new(file, buffer.bytes_mut().as_mut_ptr(), length).offset(*offset).build()
        }
        Request::Sync => opcode::Fsync::new(file).flags(types::FsyncFlags::DATASYNC).build(),
        Request::SyncDirectory => opcode::Fsync::new(file).build(),
        Request::Allocate { offset, length } => opcode::Fallocate::new(file, *length).offset(*offset).build(),
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        while self.in_flight > 0 {
            if self.wait().is_err() {
                // The kernel may still write into what is in flight: better to lose that memory.
                std::mem::forget(std::mem::take(&mut self.jobs));
                return;
            }
        }
    }
}
