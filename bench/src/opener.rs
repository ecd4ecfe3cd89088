//! Making connections beside the load: whoever waits for a node must not keep answers from being taken.
//!
//! Invariant: a lane is either with its connection or here.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use mesh_base::limits::CLIENT_TOPOLOGY_PAUSE;
use mesh_base::prng::Prng;

use crate::socket::Socket;
use crate::target::{OpenError, Target};

/// Threads that make connections for one core, at most.
const THREADS_MAX: usize = 32;
/// The pause after the first attempt that failed; it doubles with each.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// The pause between attempts, at most: that of a client library that looks for a leader, so that what is measured is the system's.
const PAUSE_MAX: Duration = CLIENT_TOPOLOGY_PAUSE;

/// A lane that wants a connection.
struct Job<L> {
    number: usize,
    lane: L,
    until: Instant,
    prng: Prng,
}

/// A lane that was tried to connect.
pub(crate) struct Opened<L> {
    /// As it was given.
    pub(crate) number: usize,
    /// The lane.
    pub(crate) lane: L,
    /// Its connection.
    pub(crate) socket: Result<Socket, OpenError>,
}

/// See the module.
pub(crate) struct Opener<T: Target> {
    target: Arc<T>,
    jobs: Sender<Job<T::Lane>>,
    waiting: Arc<Mutex<Receiver<Job<T::Lane>>>>,
    done: Receiver<Opened<T::Lane>>,
    done_to: Sender<Opened<T::Lane>>,
    is_over: Arc<AtomicBool>,
    threads: usize,
    under_way: usize,
    prng: Prng,
}

impl<T: Target> Opener<T> {
    /// With no threads yet.
    pub(crate) fn new(target: &Arc<T>, prng: Prng) -> Self {
        let (jobs, waiting) = channel();
        let (done_to, done) = channel();
        Self {
            target: Arc::clone(target),
            jobs,
            waiting: Arc::new(Mutex::new(waiting)),
            done,
            done_to,
            is_over: Arc::default(),
            threads: 0,
            under_way: 0,
            prng,
        }
    }

    /// Connects a lane, trying again until a moment.
    pub(crate) fn open(&mut self, number: usize, lane: T::Lane, until: Instant) {
        let prng = self.prng.fork();
        // The other end is here.
        let _ = self.jobs.send(Job { number, lane, until, prng });
        self.under_way += 1;
        if self.threads < self.under_way.min(THREADS_MAX) {
            let work = self.worker();
            // Without another thread those that there are have more to do.
            self.threads += usize::from(thread::Builder::new().name("open".into()).spawn(work).is_ok());
        }
    }

    /// Lanes that were given and not taken back.
    pub(crate) const fn under_way(&self) -> usize {
        self.under_way
    }

    /// A lane that was tried, if there is one.
    pub(crate) fn take(&mut self) -> Option<Opened<T::Lane>> {
        let opened = self.done.try_recv().ok()?;
        self.under_way -= 1;
        Some(opened)
    }

    /// A lane that was tried, as soon as there is one; `None` if none is under way.
    pub(crate) fn wait(&mut self) -> Option<Opened<T::Lane>> {
        if self.under_way == 0 || self.threads == 0 {
            return None;
        }
        let opened = self.done.recv().ok()?;
        self.under_way -= 1;
        Some(opened)
    }

    fn worker(&self) -> impl FnOnce() + Send + use<T> {
        let (target, waiting) = (Arc::clone(&self.target), Arc::clone(&self.waiting));
        let (done, is_over) = (self.done_to.clone(), Arc::clone(&self.is_over));
        move || loop {
            let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(Job { number, mut lane, until, mut prng }) = next else { return };
            let socket = try_until(&*target, &mut lane, until, &is_over, &mut prng);
            if done.send(Opened { number, lane, socket }).is_err() {
                return;
            }
        }
    }
}

impl<T: Target> Drop for Opener<T> {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

fn try_until<T: Target>(
    target: &T,
    lane: &mut T::Lane,
    until: Instant,
    is_over: &AtomicBool,
    prng: &mut Prng,
) -> Result<Socket, OpenError> {
    let mut pause = PAUSE_MIN;
    let mut attempt = 0;
    loop {
        let error = match target.open(lane, attempt) {
            Ok(socket) => return Ok(socket),
            Err(error) => error,
        };
        let is_late = is_over.load(Ordering::Relaxed) || Instant::now() + pause >= until;
        if is_late || matches!(error, OpenError::Refused(_)) {
            return Err(error);
        }
        // Lanes that are lost together should not come back together.
        let per_mille = u32::try_from(prng.range(500..1000)).unwrap_or(1000);
        thread::sleep(pause * per_mille / 1000);
        pause = (2 * pause).min(PAUSE_MAX);
        attempt += 1;
    }
}
