//! How other threads wake a core: a counter of the kernel's among the core's sockets.
//!
//! The executor's own wakers reach a core only while it sleeps in the executor; this one also while it dozes (see
//! [`super::sockets`]).

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Wake, Waker};

use rustix::event::{EventfdFlags, eventfd};

use super::sockets::{Sockets, Watched};

/// The end that others have.
struct Rope(OwnedFd);

impl Wake for Rope {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // A counter that is full rings already.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

/// See the module.
pub(super) struct Doorbell {
    rope: Arc<Rope>,
    watched: Watched,
}

impl Doorbell {
    /// # Errors
    /// No descriptors are left.
    pub(super) fn new(sockets: &Rc<Sockets>) -> io::Result<Self> {
        let counter = eventfd(0, EventfdFlags::NONBLOCK.union(EventfdFlags::CLOEXEC))?;
        let watched = sockets.watch_over(&counter)?;
        Ok(Self { rope: Arc::new(Rope(counter)), watched })
    }

    /// Wakes the core, from any thread.
    pub(super) fn waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.rope))
    }

    /// Completes when it was rung since the last time.
    pub(super) async fn rung(&self) {
        self.watched.input().ready().await;
        self.watched.input().clear();
        // The next ring is an edge only if the counter has been read.
        let _ = rustix::io::read(&self.rope.0, &mut [0; size_of::<u64>()]);
    }
}
