//! A session in one shard: what makes a write that is sent again take effect once.
//!
//! Invariants:
//! - A number is used for one write only.
//! - `acknowledged_below` is the lowest number whose outcome is still awaited: a write that may be sent again is never
//!   below it. A write counts as settled when its [`Write`] is dropped, for then nobody can send it again.
//! - No number is given out that would lie beyond the shard's window.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use mesh_base::limits::{CLIENT_SESSION_WRITES_MAX, SESSION_WINDOW_MAX};
use mesh_base::{SessionId, SessionSeq, ShardId};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use crate::sync::lock;

/// An open session.
#[derive(Debug)]
pub(crate) struct Session {
    id: SessionId,
    shard: ShardId,
    window: Mutex<Window>,
    /// Bounds how many writes are out; most of the time this alone keeps the numbers inside the window.
    writes: Semaphore,
    /// The window has moved.
    moved: Notify,
}

#[derive(Debug)]
struct Window {
    below: u64,
    /// Of the numbers from `below` on: whether each is settled. The first is not.
    settled: VecDeque<bool>,
}

impl Window {
    fn begin(&mut self) -> Option<u64> {
        if self.settled.len() >= SESSION_WINDOW_MAX {
            return None;
        }
        self.settled.push_back(false);
        Some(self.below + self.settled.len() as u64 - 1)
    }

    /// Whether the window has moved.
    fn settle(&mut self, seq: u64) -> bool {
        assert!(seq >= self.below, "a number is settled once");
        let at = usize::try_from(seq - self.below).unwrap_or(usize::MAX);
        if let Some(settled) = self.settled.get_mut(at) {
            *settled = true;
        }
        let before = self.below;
        while self.settled.pop_front_if(|settled| *settled).is_some() {
            self.below += 1;
        }
        self.below > before
    }
}

impl Session {
    pub(crate) fn new(id: SessionId, shard: ShardId) -> Self {
        Self {
            id,
            shard,
            window: Mutex::new(Window { below: 1, settled: VecDeque::new() }),
            writes: Semaphore::new(CLIENT_SESSION_WRITES_MAX),
            moved: Notify::new(),
        }
    }

    /// Takes a number for a write, if that is possible at once.
    pub(crate) fn try_begin(self: &Arc<Self>) -> Option<Write> {
        self.writes.try_acquire().ok()?.forget();
        let mut place = Place { session: Arc::clone(self), seq: None };
        place.seq = Some(lock(&self.window).begin()?);
        Some(Write(place))
    }

    /// Takes a number for a write; waits while there are too many. Nothing is taken if the wait is given up.
    pub(crate) async fn begin(self: &Arc<Self>) -> Write {
        // The semaphore is never closed.
        if let Ok(permit) = self.writes.acquire().await {
            SemaphorePermit::forget(permit);
        }
        let mut place = Place { session: Arc::clone(self), seq: None };
        loop {
            let moved = self.moved.notified();
            if let Some(seq) = lock(&self.window).begin() {
                place.seq = Some(seq);
                return Write(place);
            }
            moved.await;
        }
    }

    fn acknowledged_below(&self) -> SessionSeq {
        SessionSeq(lock(&self.window).below)
    }
}

/// A permit and, once it has one, a number.
#[derive(Debug)]
struct Place {
    session: Arc<Session>,
    seq: Option<u64>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(seq) = self.seq
            && lock(&self.session.window).settle(seq)
        {
            self.session.moved.notify_waiters();
        }
        self.session.writes.add_permits(1);
    }
}

/// A write of a session, from the taking of its number until its outcome is known or of no interest any more.
#[derive(Debug)]
pub(crate) struct Write(Place);

impl Write {
    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.0.session
    }

    pub(crate) fn shard(&self) -> ShardId {
        self.0.session.shard
    }

    /// What the write carries, but for what all requests do.
    pub(crate) fn context(&self) -> mesh_wire::WriteContext<'static> {
        let session = &self.0.session;
        let seq = SessionSeq(self.0.seq.unwrap_or_default());
        let acknowledged_below = session.acknowledged_below();
        assert!(acknowledged_below <= seq, "a write that is sent is not settled");
        mesh_wire::WriteContext { session: session.id, seq, acknowledged_below, ..Default::default() }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use mesh_base::Revision;
    use mesh_base::prng::Prng;
    use quickcheck::quickcheck;

    use super::*;

    fn session() -> Arc<Session> {
        Arc::new(Session::new(SessionId(Revision(7)), ShardId(0)))
    }

    fn begin_now(session: &Arc<Session>) -> Option<Write> {
        match pin!(session.begin()).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(write) => Some(write),
            Poll::Pending => {
                assert!(session.try_begin().is_none());
                None
            }
        }
    }

    fn seq(write: &Write) -> u64 {
        write.context().seq.0
    }

    #[test]
    fn outcomes_are_acknowledged_up_to_the_lowest_that_is_awaited() {
        let session = session();
        let writes: Vec<_> = (0..3).map(|_| begin_now(&session).unwrap()).collect();
        let [first, second, third] = <[Write; 3]>::try_from(writes).unwrap();
        drop(second);
        assert_eq!(third.context().acknowledged_below, SessionSeq(1));
        drop(first);
        assert_eq!(third.context().acknowledged_below, SessionSeq(3));
    }

    #[test]
    fn one_slow_write_does_not_take_the_numbers_beyond_the_window() {
        let session = session();
        let slow = begin_now(&session).unwrap();
        for _ in 1..SESSION_WINDOW_MAX {
            drop(begin_now(&session).unwrap());
        }
        assert!(begin_now(&session).is_none(), "the window is full");
        drop(slow);
        assert_eq!(seq(&begin_now(&session).unwrap()), SESSION_WINDOW_MAX as u64 + 1);
    }

    #[test]
    fn a_write_that_waits_for_the_window_and_is_given_up_takes_nothing() {
        let session = session();
        let held: Vec<_> = (0..CLIENT_SESSION_WRITES_MAX).map(|_| begin_now(&session).unwrap()).collect();
        assert!(begin_now(&session).is_none());
        drop(held);
        assert_eq!(session.writes.available_permits(), CLIENT_SESSION_WRITES_MAX);
        assert_eq!(seq(&begin_now(&session).unwrap()), CLIENT_SESSION_WRITES_MAX as u64 + 1);
    }

    quickcheck! {
        fn no_awaited_write_is_ever_acknowledged_and_none_leaves_the_window(seed: u64) -> bool {
            let mut prng = Prng::new(seed);
            let session = session();
            let mut held: Vec<Write> = Vec::new();
            for _ in 0..2000 {
                if prng.chance_per_mille(550) {
                    held.extend(begin_now(&session));
                } else if !held.is_empty() {
                    // Early ones are favoured to stay, so that the window fills up.
                    let at = prng.index(held.len()).max(prng.index(held.len()));
                    drop(held.swap_remove(at));
                }
                let below = session.acknowledged_below().0;
                let fits = |write: &Write| (below..below + SESSION_WINDOW_MAX as u64).contains(&seq(write));
                if !held.iter().all(fits) || held.iter().map(seq).min().is_some_and(|least| least != below) {
                    return false;
                }
            }
            true
        }
    }
}
