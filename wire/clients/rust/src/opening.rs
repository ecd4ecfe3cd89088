//! The session that writes of a shard are sent in: opened when the first of them needs it.
//!
//! Invariants:
//! - One opening is under way at a time. It is a task of its own, so it goes on when the calls that wait for it give up.
//! - An opening is sent again under the same nonce until its outcome is known, so that one session comes of it.
//! - What becomes of an opening says nothing of the writes that wait for it, but why they were not sent.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mesh_base::ShardId;
use mesh_wire::{Frame, OpenSession, Request, Response};
use tokio::time::{Instant, sleep};

use crate::Error;
use crate::core::Core;
use crate::making::{Making, Outcome};
use crate::request::{Aim, Call, Deadline, Failure, unexpected};
use crate::session::Session;
use crate::sync::lock;

/// An opening that no call asked for this long rests until one does.
const UNWANTED_MAX: Duration = Duration::from_secs(30);

/// What came of an opening.
pub(crate) type Opened = Result<(), Error>;

/// A shard's session, or the place for it.
#[derive(Default)]
pub(crate) struct CurrentSession {
    state: Mutex<State>,
    /// How often an opening was asked for.
    asked: AtomicU64,
}

#[derive(Default)]
struct State {
    open: Option<Arc<Session>>,
    /// The last opening, and when it began.
    opening: Option<(Instant, Making<Opened>)>,
    /// Of an opening whose outcome is not known.
    nonce: Option<u64>,
}

/// How a session is come by.
pub(crate) enum Entrance {
    /// It is open by now.
    Open,
    /// It is being opened, since then.
    Opening { since: Instant, outcome: Outcome<Opened> },
}

impl CurrentSession {
    /// The session, if it is open.
    pub(crate) fn open(&self) -> Option<Arc<Session>> {
        lock(&self.state).open.clone()
    }

    /// Writes to come do not use a session any more.
    pub(crate) fn retire(&self, session: &Arc<Session>) {
        lock(&self.state).open.take_if(|open| Arc::ptr_eq(open, session));
    }

    /// Ends an opening that is under way.
    pub(crate) fn abandon(&self) {
        lock(&self.state).opening = None;
    }

    fn opened(&self, session: Session) {
        let mut state = lock(&self.state);
        (state.open, state.nonce) = (Some(Arc::new(session)), None);
    }

    /// Returns when nobody has asked for an opening in a long time.
    async fn is_unwanted(&self) {
        loop {
            let before = self.asked.load(Ordering::Relaxed);
            sleep(UNWANTED_MAX).await;
            if self.asked.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }
}

impl Core {
    /// The way to a session of a shard; begins to open one if there is none. Called inside a tokio runtime.
    pub(crate) fn session(self: &Arc<Self>, shard: ShardId) -> Entrance {
        let current = &self.shard(shard).session;
        let mut state = lock(&current.state);
        if state.open.is_some() {
            return Entrance::Open;
        }
        current.asked.fetch_add(1, Ordering::Relaxed);
        if let Some((since, opening)) = state.opening.as_ref().filter(|(_, opening)| opening.is_under_way()) {
            return Entrance::Opening { since: *since, outcome: opening.outcome() };
        }
        let nonce = *state.nonce.get_or_insert_with(|| self.dice.number());
        let (since, opening) = (Instant::now(), Making::begin(open(Arc::clone(self), shard, nonce)));
        let outcome = opening.outcome();
        state.opening = Some((since, opening));
        Entrance::Opening { since, outcome }
    }
}

/// Opens a session, however long that takes; gives up when nobody wants it any more.
async fn open(core: Arc<Core>, shard: ShardId, nonce: u64) -> Option<Opened> {
    let current = &core.shard(shard).session;
    let request = Request::OpenSession(OpenSession { nonce });
    let mut call = Call::new(request, Aim::Shard(shard), Deadline::never());
    let answered = tokio::select! {
        answered = core.perform(&mut call) => answered,
        () = current.is_unwanted() => return None,
    };
    let opened = answered.map_err(why_not_opened).and_then(|frame| read(&frame, shard));
    Some(opened.map(|session| current.opened(session)))
}

fn read(frame: &Frame, shard: ShardId) -> Result<Session, Error> {
    match frame.response()? {
        Response::SessionOpened(opened) => Ok(Session::new(opened.session, shard)),
        other => Err(unexpected(&other)),
    }
}

/// Whether a session was opened after all makes no difference to those who wanted to use it.
fn why_not_opened(failure: Failure) -> Error {
    match failure {
        Failure::Error(Error::Unknown { last: Some(last) }) => *last,
        Failure::Error(Error::Unknown { last: None }) => {
            Error::NotReady { why: "whether a session was opened is not known".into() }
        }
        Failure::Error(error) => error,
        Failure::Rerouted => Error::NotReady { why: "slots are moving".into() },
    }
}
