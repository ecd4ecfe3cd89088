//! Reads, writes and syncs of open files, on their way through the ring.
//!
//! Invariant: what is given ends once. A bounded number of each crew's is under way; the rest waits, in the order given.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use bytes::Bytes;
use mesh_base::aligned::Aligned;
use mesh_base::io::{FileId, IoError, IoOp, IoToken, IoValue};
use mesh_base::limits::{DISK_BUFFERS_KEPT_MAX, SECTOR_BYTES};

use super::Crew;
use super::files::OpenFile;
use super::operation::error_of;
use super::ring::{Request, Ring};
use crate::core::DirectoryKey;
use crate::host::sockets::{Sockets, Watched};

/// Bytes that are copied before others get their turn.
pub(super) const COPY_BYTES: usize = 256 * 1024;

/// Whose a transfer is, and what it is.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) directory: DirectoryKey,
    pub(super) token: IoToken,
    pub(super) crew: Crew,
    verb: &'static str,
    file: Option<FileId>,
}

impl Owner {
    pub(super) const fn new(directory: DirectoryKey, token: IoToken, crew: Crew, op: &IoOp) -> Self {
        Self { directory, token, crew, verb: op.verb(), file: op.file() }
    }
}

/// A request of an open file.
pub(super) struct Transfer {
    pub(super) file: Rc<OpenFile>,
    pub(super) request: Request,
}

/// Those of one crew.
#[derive(Default)]
struct Line {
    under_way: Cell<usize>,
    waiting: RefCell<VecDeque<(Owner, Transfer)>>,
}

/// See the module.
pub(super) struct Transfers {
    ring: RefCell<Ring<Owner>>,
    lines: [Line; Crew::COUNT],
    /// Memory of writes that have ended, for the next.
    buffers: RefCell<Vec<Aligned>>,
}

impl Transfers {
    /// # Errors
    /// The kernel's, where it has no rings or forbids them.
    pub(super) fn new(sockets: &Rc<Sockets>) -> io::Result<Self> {
        let ring = RefCell::new(Ring::new(sockets)?);
        Ok(Self { ring, lines: Default::default(), buffers: RefCell::default() })
    }

    /// What tells that something may have ended.
    pub(super) fn watched(&self) -> Rc<Watched> {
        self.ring.borrow().watched()
    }

    /// Begins a transfer, or has it wait for others of its crew. To be flushed.
    pub(super) fn give(&self, owner: Owner, transfer: Transfer) {
        let line = self.line(owner.crew);
        if line.under_way.get() >= owner.crew.operations_max() {
            line.waiting.borrow_mut().push_back((owner, transfer));
            return;
        }
        line.under_way.set(line.under_way.get() + 1);
        working(self.ring.borrow_mut().enter(transfer.file, transfer.request, owner));
    }

    /// Hands what was given to the kernel.
    pub(super) fn flush(&self) {
        working(self.ring.borrow_mut().flush());
    }

    /// A transfer that has ended, if one has.
    pub(super) fn ended(&self) -> Option<(Owner, Result<IoValue, IoError>)> {
        let ended = working(self.ring.borrow_mut().ended())?;
        let line = self.line(ended.owner.crew);
        line.under_way.set(line.under_way.get() - 1);
        let next = line.waiting.borrow_mut().pop_front();
        if let Some((owner, transfer)) = next {
            self.give(owner, transfer);
            self.flush();
        }
        let Owner { verb, file, .. } = ended.owner;
        let result = match ended.result {
            Ok(Request::Read { memory, .. }) => Ok(IoValue::Read(Bytes::from_owner(memory))),
            Ok(Request::Write { memory, .. }) => {
                self.keep(memory);
                Ok(IoValue::Done)
            }
            Ok(Request::Sync) => Ok(IoValue::Done),
            Err(error) => Err(error_of(&error, verb, file)),
        };
        Some((ended.owner, result))
    }

    /// How many of a crew's are under way.
    pub(super) const fn under_way(&self, crew: Crew) -> usize {
        self.line(crew).under_way.get()
    }

    /// Memory for a write of so many bytes, which are anything.
    pub(super) fn memory(&self, length: usize) -> Aligned {
        assert!(length.is_multiple_of(SECTOR_BYTES), "direct I/O is of whole sectors");
        let mut buffers = self.buffers.borrow_mut();
        let fits = |buffer: &Aligned| (length..=4 * length).contains(&buffer.capacity());
        let found = buffers.iter().position(fits).map(|at| buffers.swap_remove(at));
        found.and_then(|buffer| buffer.resized(length)).unwrap_or_else(|| Aligned::zeroed(length))
    }

    fn keep(&self, memory: Aligned) {
        let mut buffers = self.buffers.borrow_mut();
        if buffers.len() < DISK_BUFFERS_KEPT_MAX && memory.capacity() <= 2 * COPY_BYTES {
            buffers.push(memory);
        }
    }

    #[allow(clippy::indexing_slicing, reason = "a line for each crew")]
    const fn line(&self, crew: Crew) -> &Line {
        &self.lines[crew as usize]
    }
}

/// A core whose ring fails cannot know what becomes of its writes.
#[allow(clippy::expect_used, reason = "a node with a dead core does not go on")]
fn working<T>(result: io::Result<T>) -> T {
    result.expect("the core's ring works")
}
