//! The core's own ring of the kernel's, for reads, writes and syncs: the one place of this crate that hands memory to the kernel.
//!
//! The executor's files would do, but whoever waits for one of theirs has the executor go round: half a dozen system calls, while
//! the write that everyone waits for is not even begun. Here what a turn asked for is begun with one call at its end, and what has
//! ended is found in shared memory. A core that sleeps is woken through its `epoll`, like by a socket.
//!
//! Invariants:
//! - What the kernel may read or write (memory, descriptor) is owned by the ring from the beginning to the end of an operation, and
//!   is not touched in between.
//! - An operation ends once, with all of its bytes or an error; a read also at the end of the file.
//! - A ring waits for everything that is under way before it goes.

#![allow(unsafe_code, reason = "an operation names memory by its address: the audited place of this crate")]

use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::rc::Rc;

use io_uring::{IoUring, opcode, squeue, types};
use mesh_base::aligned::Aligned;
use mesh_base::limits::{CORE_RING_ENTRIES, LOG_OPS_IN_FLIGHT_MAX, SECTOR_BYTES, STORE_OPS_IN_FLIGHT_MAX};
use rustix::io::Errno;

use super::files::OpenFile;
use crate::host::sockets::{Sockets, Watched};

// The kernel gives a ring room for twice as many ends as beginnings.
const _: () = assert!(LOG_OPS_IN_FLIGHT_MAX + 2 * STORE_OPS_IN_FLIGHT_MAX <= 2 * CORE_RING_ENTRIES);

/// What is asked for.
#[derive(Debug)]
pub(super) enum Request {
    /// Writes the memory.
    Write { offset: u64, memory: Aligned },
    /// Fills the memory, or as much of it as there is.
    Read { offset: u64, memory: Aligned },
    /// Makes what was written durable.
    Sync,
}

/// An operation that has ended.
#[derive(Debug)]
pub(super) struct Ended<T> {
    pub(super) owner: T,
    /// With its memory; of a read as long as what was read.
    pub(super) result: io::Result<Request>,
}

struct Job<T> {
    owner: T,
    request: Request,
    file: Rc<OpenFile>,
    /// Bytes that were read or written so far.
    done: usize,
}

/// See the module.
pub(super) struct Ring<T> {
    /// Gone before what watches it.
    ring: IoUring,
    jobs: Vec<Option<Job<T>>>,
    free: Vec<usize>,
    under_way: usize,
    /// Entered, and the kernel not told.
    unsubmitted: usize,
    watched: Rc<Watched>,
}

/// How an operation goes on after the kernel has done a part of it.
enum Progress {
    Done,
    More,
}

impl<T> Ring<T> {
    /// Watched by the sockets' `epoll`.
    ///
    /// # Errors
    /// The kernel's, where it has no rings or forbids them.
    pub(super) fn new(sockets: &Rc<Sockets>) -> io::Result<Self> {
        let entries = u32::try_from(CORE_RING_ENTRIES).unwrap_or(u32::MAX);
        // What ends is noted at the core's next system call, without an interrupt of what it does. Older kernels cannot.
        let ring = match IoUring::builder().setup_coop_taskrun().build(entries) {
            Err(error) if error.kind() == ErrorKind::InvalidInput => IoUring::builder().build(entries)?,
            built => built?,
        };
        // SAFETY: the descriptor is the ring's, which is open.
        let descriptor = unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) };
        let watched = Rc::new(sockets.watch_over(&descriptor)?);
        Ok(Self { ring, jobs: Vec::new(), free: Vec::new(), under_way: 0, unsubmitted: 0, watched })
    }

    /// What tells that something may have ended.
    pub(super) fn watched(&self) -> Rc<Watched> {
        Rc::clone(&self.watched)
    }

    /// Enters an operation; the kernel hears of it with [`Ring::flush`].
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn enter(&mut self, file: Rc<OpenFile>, request: Request, owner: T) -> io::Result<()> {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.jobs.push(None);
            self.jobs.len() - 1
        });
        if let Some(place) = self.jobs.get_mut(slot) {
            *place = Some(Job { owner, request, file, done: 0 });
        }
        self.under_way += 1;
        self.push(slot)
    }

    /// Has the kernel begin what was entered.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.unsubmitted > 0 { self.call(0) } else { Ok(()) }
    }

    /// An operation that has ended, if one has.
    ///
    /// # Errors
    /// The kernel's, of the ring itself.
    pub(super) fn ended(&mut self) -> io::Result<Option<Ended<T>>> {
        loop {
            let Some(entry) = self.ring.completion().next() else { return Ok(None) };
            let slot = usize::try_from(entry.user_data()).unwrap_or(usize::MAX);
            let result =
                usize::try_from(entry.result()).map_err(|_| Errno::from_raw_os_error(-entry.result()));
            let progress = match (result, self.jobs.get_mut(slot).and_then(Option::as_mut)) {
                (Err(Errno::INTR | Errno::AGAIN), Some(_)) => Ok(Progress::More),
                (Err(errno), _) => Err(errno.into()),
                (Ok(count), Some(job)) => job.advance(count),
                (Ok(_), None) => continue,
            };
            if let Ok(Progress::More) = progress {
                self.push(slot)?;
                self.flush()?;
                continue;
            }
            let Some(job) = self.jobs.get_mut(slot).and_then(Option::take) else { continue };
            self.free.push(slot);
            self.under_way -= 1;
            return Ok(Some(Ended { owner: job.owner, result: progress.map(|_| job.request) }));
        }
    }

    fn push(&mut self, slot: usize) -> io::Result<()> {
        while self.ring.submission().is_full() {
            self.call(0)?;
        }
        let job = self.jobs.get_mut(slot).and_then(Option::as_mut);
        let Some(entry) = job.and_then(|job| job.entry().ok()) else {
            return Err(io::Error::other("an operation without an open file"));
        };
        // SAFETY: the entry names the descriptor and the memory of the job, which is in its slot until the end with its number
        // was taken; memory that a job owns does not move when the job does.
        let pushed = unsafe { self.ring.submission().push(&entry.user_data(slot as u64)) };
        assert!(pushed.is_ok(), "there is room in the queue");
        self.unsubmitted += 1;
        Ok(())
    }

    fn call(&mut self, wait_for: usize) -> io::Result<()> {
        match self.ring.submit_and_wait(wait_for) {
            Ok(taken) => self.unsubmitted = self.unsubmitted.saturating_sub(taken),
            // It is asked again before anyone waits.
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ResourceBusy) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

impl<T> Job<T> {
    /// The kernel's form of what is left to do.
    fn entry(&mut self) -> io::Result<squeue::Entry> {
        let file = types::Fd(self.file.get()?.as_raw_fd());
        let done = self.done;
        let left = |whole: usize| u32::try_from(whole - done).unwrap_or(u32::MAX);
        Ok(match &mut self.request {
            Request::Write { offset, memory } => {
                let rest = memory.bytes().get(done..).unwrap_or_default();
                opcode::Write::new(file, rest.as_ptr(), left(memory.len()))
                    .offset(*offset + done as u64)
                    .build()
            }
            Request::Read { offset, memory } => {
                let length = left(memory.len());
                let rest = memory.bytes_mut().get_mut(done..).unwrap_or_default();
                opcode::Read::new(file, rest.as_mut_ptr(), length).offset(*offset + done as u64).build()
            }
            Request::Sync => opcode::Fsync::new(file).flags(types::FsyncFlags::DATASYNC).build(),
        })
    }

    /// The kernel did so many bytes more.
    fn advance(&mut self, count: usize) -> io::Result<Progress> {
        match &mut self.request {
            Request::Sync => Ok(Progress::Done),
            Request::Write { memory, .. } => {
                // Direct I/O goes on at a sector's start.
                let whole = count - count % SECTOR_BYTES;
                if whole == 0 {
                    return Err(io::Error::new(ErrorKind::WriteZero, "the device takes no more"));
                }
                self.done += whole;
                assert!(self.done <= memory.len(), "more was written than was given");
                Ok(if self.done == memory.len() { Progress::Done } else { Progress::More })
            }
            Request::Read { memory, .. } => {
                self.done += count;
                assert!(self.done <= memory.len(), "more was read than there is memory for");
                // A file ends at a sector's end, or within one.
                if self.done < memory.len() && count > 0 && count.is_multiple_of(SECTOR_BYTES) {
                    return Ok(Progress::More);
                }
                memory.shorten(self.done);
                Ok(Progress::Done)
            }
        }
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        while self.under_way > 0 {
            let waited = match self.ended() {
                Ok(Some(_)) => Ok(()),
                Ok(None) => self.call(1),
                Err(error) => Err(error),
            };
            if waited.is_err() {
                // The kernel may still write into what is under way: better to lose that memory.
                std::mem::forget(std::mem::take(&mut self.jobs));
                return;
            }
        }
    }
}
