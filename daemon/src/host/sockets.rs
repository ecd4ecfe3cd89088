//! What the sockets of a core have in common: one `epoll` that tells which of them are ready, and the memory that reads land in.
//!
//! An `io_uring` poll is armed for each wait anew, and the kernel interrupts the core's processor for each that completes. Here
//! a socket is registered once; a busy core asks for all that became ready with one call between two turns. An idle one dozes in
//! the same call, and wakes at once: going to sleep in the executor, and waking there, takes a dozen. Where something is under way
//! that only the reactor can bring, it sleeps there and has the reactor watch the `epoll`.
//!
//! Invariants:
//! - Readiness is told at its edges: what is ready stays marked so until a read or a write has found the end of it.
//! - A socket whose read may have left something is marked again only after every task that was ready has run: a fast sender
//!   cannot keep the core to itself.

use std::cell::{Cell, RefCell, RefMut};
use std::future::poll_fn;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::task::{Poll, Waker};

use glommio::io::PollableFd;
use mesh_base::limits::SOCKET_READ_BYTES;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use super::bell::{Bell, step_aside};

/// Sockets that one look reports at most; the others come with the next.
const READY_MAX: usize = 256;
/// A look does not wait.
const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
/// A core dozes until its next beat at the latest, which is sooner.
const DOZE_MAX: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Something that a socket's task may wait for.
#[derive(Default)]
pub(super) struct Edge {
    is_ready: Cell<bool>,
    waits: Cell<Option<Waker>>,
}

impl Edge {
    /// It is ready no more: the next edge tells when it is.
    pub(super) fn clear(&self) {
        self.is_ready.set(false);
    }

    /// Completes when it is ready; to be awaited by one task at a time.
    pub(super) async fn ready(&self) {
        poll_fn(|cx| {
            if self.is_ready.get() {
                return Poll::Ready(());
            }
            self.waits.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    fn mark(&self) {
        self.is_ready.set(true);
        if let Some(waker) = self.waits.take() {
            waker.wake();
        }
    }
}

/// What is known of one socket.
#[derive(Default)]
struct Readiness {
    input: Edge,
    output: Edge,
    /// No more will come, after what is there.
    has_ended: Cell<bool>,
}

/// A socket's part in those of its core. To be dropped after the socket is closed.
pub(super) struct Watched {
    sockets: Rc<Sockets>,
    place: usize,
    readiness: Rc<Readiness>,
}

/// See the module.
pub(super) struct Sockets {
    epoll: PollableFd<OwnedFd>,
    events: RefCell<Vec<Event>>,
    places: RefCell<Places>,
    /// Where there may be more than was read.
    unread: RefCell<Vec<Rc<Readiness>>>,
    /// Rung when something is unread.
    bell: Bell,
    /// Where every read of the core lands first, and small frames are put together: a connection that is quiet holds no such
    /// memory.
    scratch: RefCell<Vec<u8>>,
}

/// Whether a look brought word of anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Word {
    Some,
    None,
}

#[derive(Default)]
struct Places {
    sockets: Vec<Option<Rc<Readiness>>>,
    free: Vec<usize>,
}

impl Places {
    fn take(&mut self) -> (usize, Rc<Readiness>) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.sockets.push(None);
            self.sockets.len() - 1
        });
        let readiness = Rc::<Readiness>::default();
        if let Some(socket) = self.sockets.get_mut(place) {
            *socket = Some(Rc::clone(&readiness));
        }
        (place, readiness)
    }

    fn give_back(&mut self, place: usize) {
        let given = self.sockets.get_mut(place).and_then(Option::take);
        assert!(given.is_some(), "a place is given back once");
        self.free.push(place);
    }
}

impl Sockets {
    /// None yet; inside of the core's executor.
    ///
    /// # Errors
    /// No descriptors are left.
    pub(super) fn new() -> io::Result<Rc<Self>> {
        let empty = Event { flags: EventFlags::empty(), data: EventData::new_u64(0) };
        Ok(Rc::new(Self {
            epoll: PollableFd::new(epoll::create(CreateFlags::CLOEXEC)?)?,
            events: RefCell::new(vec![empty; READY_MAX]),
            places: RefCell::default(),
            unread: RefCell::default(),
            bell: Bell::default(),
            scratch: RefCell::new(vec![0; SOCKET_READ_BYTES]),
        }))
    }

    /// Watches a socket, or a timer, until it is closed.
    ///
    /// # Errors
    /// The kernel watches no more of them.
    pub(super) fn watch_over(self: &Rc<Self>, file: &impl AsFd) -> io::Result<Watched> {
        let (place, readiness) = self.places.borrow_mut().take();
        let watched = Watched { sockets: Rc::clone(self), place, readiness };
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(self.epoll.get_ref(), file, EventData::new_u64(place as u64), flags)?;
        Ok(watched)
    }

    /// Marks what has become ready, and wakes the tasks that wait for it.
    pub(super) fn look(&self) -> Word {
        self.wait(&AT_ONCE)
    }

    /// The same, once something has become ready. The reactor does not look meanwhile.
    pub(super) fn doze(&self) {
        self.wait(&DOZE_MAX);
    }

    fn wait(&self, time: &Timespec) -> Word {
        let mut events = self.events.borrow_mut();
        // An interrupted wait has brought nothing.
        let count = epoll::wait(self.epoll.get_ref(), events.as_mut_slice(), Some(time)).unwrap_or(0);
        let places = self.places.borrow();
        for event in events.iter().take(count) {
            let place = usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
            if let Some(Some(readiness)) = places.sockets.get(place) {
                readiness.mark(event.flags);
            }
        }
        if count > 0 { Word::Some } else { Word::None }
    }

    /// Sees to it that readiness is told when the core does nothing else, for as long as its executor runs.
    pub(super) fn attend(self: &Rc<Self>) {
        glommio::spawn_local(Rc::clone(self).watch()).detach();
        glommio::spawn_local(Rc::clone(self).read_on()).detach();
    }

    async fn watch(self: Rc<Self>) {
        // An error comes from a reactor that ends.
        while self.epoll.readable().await.is_ok() {
            self.look();
        }
    }

    /// Marks what may have been left unread, each time after everyone else had a turn.
    async fn read_on(self: Rc<Self>) {
        loop {
            self.bell.heard().await;
            step_aside().await;
            for readiness in self.unread.take() {
                readiness.input.mark();
            }
        }
    }
}

impl Watched {
    /// There is something to read, or an end.
    pub(super) fn input(&self) -> &Edge {
        &self.readiness.input
    }

    /// There is room to write.
    pub(super) fn output(&self) -> &Edge {
        &self.readiness.output
    }

    /// A read brought so many bytes.
    pub(super) fn has_read(&self, count: usize) {
        self.input().clear();
        // What filled the memory may have left something; and no further edge tells of an end behind what was read.
        if count == SOCKET_READ_BYTES || self.readiness.has_ended.get() {
            self.sockets.unread.borrow_mut().push(Rc::clone(&self.readiness));
            self.sockets.bell.ring();
        }
    }

    /// Memory for a read or a write.
    pub(super) fn scratch(&self) -> RefMut<'_, Vec<u8>> {
        self.sockets.scratch.borrow_mut()
    }

    /// Ends it for a socket that stays open.
    pub(super) fn forget(self, stream: &TcpStream) {
        // What the kernel does not know is not watched either.
        let _ = epoll::delete(self.sockets.epoll.get_ref(), stream);
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.sockets.places.borrow_mut().give_back(self.place);
    }
}

impl Readiness {
    fn mark(&self, flags: EventFlags) {
        const ENDED: EventFlags = EventFlags::RDHUP.union(EventFlags::HUP).union(EventFlags::ERR);
        if flags.intersects(ENDED) {
            self.has_ended.set(true);
        }
        if flags.intersects(ENDED.union(EventFlags::IN)) {
            self.input.mark();
        }
        if flags.intersects(ENDED.union(EventFlags::OUT)) {
            self.output.mark();
        }
    }
}
