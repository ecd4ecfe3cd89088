//! One connection to one core of one node: requests go out as they come, answers come in any order.
//!
//! Two tasks serve it. The writer sends all that was queued since its last write with one write; the reader hands each
//! answer to whoever waits for it. No task is made for a request.
//!
//! Invariants:
//! - A request that was queued is answered, or its waiter is told that the connection was lost: never neither.
//! - What is in flight is bounded, in number and in bytes. A request that its caller gave up keeps its room until the
//!   node has answered it, since it takes up room there as well.
//! - A connection that broke the protocol is not used again.
//!
//! Deliberately absent: what requests mean, and trying again.

mod dial;
mod outbox;
mod slots;

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use mesh_base::limits::{CLIENT_REQUEST_UNIT_BYTES, SOCKET_READ_BYTES};
use mesh_base::{CoreId, NodeId, ShardId, SlotEpoch};
use mesh_wire::{
    Envelope, Frame, FrameDecoder, FrameWriter, HEADER_BYTES, Request, RequestId, Response, WireError,
};
use tokio::io::AsyncReadExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, Semaphore, SemaphorePermit, oneshot};
use tokio::task::AbortHandle;

pub(crate) use self::dial::{DialError, Greeted, Hello, dial, with_port};
use self::outbox::Outbox;
use self::slots::{Slots, Waiter};
use crate::sync::lock;

/// Answers up to this size are copied out of the buffer they were read into, so that it is used again at once.
const COPY_BYTES_MAX: usize = 16 * 1024;
/// Requests larger than this are encoded on their own, without holding up those of others.
const ALONE_BYTES_MIN: usize = 16 * 1024;

/// Why a request has no answer: the connection is no more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Lost {
    pub(crate) why: Arc<str>,
}

/// Why a request was not sent.
#[derive(Debug)]
pub(crate) enum NotSent {
    /// The connection is no more.
    Lost(Lost),
    /// The request does not keep to the limits.
    Invalid(WireError),
}

/// A connection to a core of a node.
pub(crate) struct Connection {
    shared: Arc<Shared>,
    node: NodeId,
    core: CoreId,
    endpoint: String,
    reader: AbortHandle,
    writer: AbortHandle,
}

struct Shared {
    state: Mutex<State>,
    /// There is something to write.
    queued: Notify,
    room: Semaphore,
    room_units: u32,
    is_open: AtomicBool,
    is_probed: AtomicBool,
}

struct State {
    lost: Option<Lost>,
    writer: FrameWriter,
    outbox: Outbox,
    writer_waits: bool,
    slots: Slots,
}

/// Room for one request.
pub(crate) struct Room<'c> {
    permit: Option<SemaphorePermit<'c>>,
}

impl Room<'_> {
    /// For a question whether the connection lives, which must not wait behind what it is about.
    pub(crate) const FOR_PROBE: Self = Self { permit: None };
}

impl Connection {
    /// Begins to use a connection whose hello was answered. Called inside a tokio runtime.
    pub(crate) fn start(greeted: Greeted, core: CoreId, in_flight_max: usize) -> Self {
        let room_units = u32::try_from(in_flight_max).unwrap_or(u32::MAX);
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                lost: None,
                writer: FrameWriter::new(),
                outbox: Outbox::default(),
                writer_waits: false,
                slots: Slots::default(),
            }),
            queued: Notify::new(),
            room: Semaphore::new(in_flight_max),
            room_units,
            is_open: AtomicBool::new(true),
            is_probed: AtomicBool::new(false),
        });
        let Greeted { reads, writes, left_over, node, endpoint, .. } = greeted;
        let reader = tokio::spawn(read(Arc::clone(&shared), reads, left_over)).abort_handle();
        let writer = tokio::spawn(write(Arc::clone(&shared), writes)).abort_handle();
        Self { shared, node, core, endpoint, reader, writer }
    }

    /// The node at the other end.
    pub(crate) const fn node(&self) -> NodeId {
        self.node
    }

    /// The node's core that serves it.
    pub(crate) const fn core(&self) -> CoreId {
        self.core
    }

    /// The address that it was made to.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Whether requests can be sent.
    pub(crate) fn is_open(&self) -> bool {
        self.shared.is_open.load(Ordering::Acquire)
    }

    /// Room for a request of about `bytes` bytes, if there is some.
    pub(crate) fn try_room(&self, bytes: usize) -> Option<Room<'_>> {
        let permit = self.shared.room.try_acquire_many(self.units(bytes)).ok()?;
        Some(Room { permit: Some(permit) })
    }

    /// Waits for room for a request of about `bytes` bytes.
    pub(crate) async fn room(&self, bytes: usize) -> Result<Room<'_>, Lost> {
        match self.shared.room.acquire_many(self.units(bytes)).await {
            Ok(permit) => Ok(Room { permit: Some(permit) }),
            Err(_) => Err(self.shared.lost()),
        }
    }

    fn units(&self, bytes: usize) -> u32 {
        let units = u32::try_from(1 + bytes / CLIENT_REQUEST_UNIT_BYTES).unwrap_or(u32::MAX);
        units.min(self.shared.room_units)
    }

    /// Marks the connection as being asked whether it lives. `false` if it is already.
    pub(crate) fn begin_probe(&self) -> bool {
        !self.shared.is_probed.swap(true, Ordering::Relaxed)
    }

    /// The question was answered.
    pub(crate) fn end_probe(&self) {
        self.shared.is_probed.store(false, Ordering::Relaxed);
    }

    /// Queues a request. From then on it may be done, whatever becomes of the answer.
    pub(crate) fn send(
        &self,
        room: Room<'_>,
        shard: Option<ShardId>,
        epoch: SlotEpoch,
        request: &Request<'_>,
        bytes: usize,
    ) -> Result<Answer, NotSent> {
        let (answer, waiting) = oneshot::channel();
        let units = room.permit.as_ref().map_or(0, SemaphorePermit::num_permits);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        let mut state = lock(&self.shared.state);
        if let Some(lost) = &state.lost {
            return Err(NotSent::Lost(lost.clone()));
        }
        let id = state.slots.insert(Waiter { answer, units });
        let envelope = Envelope { request: id, shard, epoch };
        let encoded = if bytes > ALONE_BYTES_MIN {
            drop(state);
            let frame = FrameWriter::new().frame(&envelope, request);
            state = lock(&self.shared.state);
            frame.map(|frame| state.outbox.push(frame))
        } else {
            let State { writer, outbox, .. } = &mut *state;
            writer.append(&envelope, request, outbox.small())
        };
        if let Err(error) = encoded {
            state.slots.remove(id);
            return Err(NotSent::Invalid(error));
        }
        // The room is given back when the answer has come.
        if let Some(permit) = room.permit {
            permit.forget();
        }
        if std::mem::take(&mut state.writer_waits) {
            self.shared.queued.notify_one();
        }
        drop(state);
        Ok(Answer { waiting, shared: Arc::clone(&self.shared) })
    }

    /// Gives the connection up. Whoever waits for an answer is told so.
    pub(crate) fn close(&self, why: &str) {
        self.shared.close(why);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.close("it is not needed any more");
        self.reader.abort();
        self.writer.abort();
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({:?} at {}, {:?})", self.node, self.endpoint, self.core)
    }
}

/// The answer to come of a request.
#[must_use]
pub(crate) struct Answer {
    waiting: oneshot::Receiver<Frame>,
    shared: Arc<Shared>,
}

impl Future for Answer {
    type Output = Result<Frame, Lost>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.waiting).poll(cx).map(|answer| answer.map_err(|_| self.shared.lost()))
    }
}

impl Shared {
    fn lost(&self) -> Lost {
        lock(&self.state).lost.clone().unwrap_or_else(|| Lost { why: "it was closed".into() })
    }

    fn close(&self, why: &str) {
        let waiters = {
            let mut state = lock(&self.state);
            if state.lost.is_some() {
                return;
            }
            state.lost = Some(Lost { why: why.into() });
            self.is_open.store(false, Ordering::Release);
            state.outbox = Outbox::default();
            state.slots.clear()
        };
        self.room.close();
        self.queued.notify_one();
        // Each waiter learns of it by its sender's end.
        drop(waiters);
    }

    /// Moves what is queued to `batch`. `None` if the connection is no more, else how many requests are in flight.
    fn take_queued(&self, batch: &mut Outbox) -> Option<usize> {
        let mut state = lock(&self.state);
        if state.lost.is_some() {
            return None;
        }
        std::mem::swap(&mut state.outbox, batch);
        state.writer_waits = batch.is_empty();
        Some(state.slots.len())
    }

    /// Hands answers out, up to a frame that answers nothing: then the error says what that was.
    fn complete(&self, frames: &mut Vec<Frame>, found: &mut Vec<(Waiter, Frame)>) -> Result<(), String> {
        let (mut units, mut end) = (0, Ok(()));
        {
            let mut state = lock(&self.state);
            for frame in frames.drain(..) {
                match state.slots.remove(frame.header.envelope.request) {
                    Some(waiter) => found.push((waiter, frame)),
                    None => {
                        end = Err(farewell(&frame));
                        break;
                    }
                }
            }
        }
        for (waiter, frame) in found.drain(..) {
            units += waiter.units as usize;
            // Whoever waited may have given up.
            let _ = waiter.answer.send(frame);
        }
        self.room.add_permits(units);
        end
    }
}

/// What a frame says that answers no request: mostly why the node is about to close the connection.
fn farewell(frame: &Frame) -> String {
    match (frame.header.envelope.request, frame.response()) {
        (RequestId(0), Ok(Response::Error(error))) => format!("the node closed it: {error}"),
        (id, _) => format!("the node answered request {id}, which was not made"),
    }
}

async fn write(shared: Arc<Shared>, mut socket: OwnedWriteHalf) {
    let mut batch = Outbox::default();
    loop {
        let Some(in_flight) = shared.take_queued(&mut batch) else { return };
        if batch.is_empty() {
            shared.queued.notified().await;
            if in_flight > 0 {
                // Others are at work: what they are about to queue goes out with the same write.
                tokio::task::yield_now().await;
            }
            continue;
        }
        if let Err(error) = batch.write_to(&mut socket).await {
            shared.close(&format!("it broke while sending: {error}"));
            return;
        }
    }
}

async fn read(shared: Arc<Shared>, mut socket: OwnedReadHalf, mut buffer: BytesMut) {
    let decoder = FrameDecoder::new();
    let (mut frames, mut found) = (Vec::new(), Vec::new());
    let why = loop {
        let decoded = take_frames(decoder, &mut buffer, &mut frames);
        if let Err(why) = shared.complete(&mut frames, &mut found) {
            break why;
        }
        if let Err(why) = decoded {
            break why;
        }
        decoder.reserve(&mut buffer);
        if buffer.capacity() - buffer.len() < SOCKET_READ_BYTES / 4 {
            buffer.reserve(SOCKET_READ_BYTES);
        }
        match socket.read_buf(&mut buffer).await {
            Ok(0) => break "the node closed it".to_owned(),
            Ok(_) => {}
            Err(error) => break format!("it broke: {error}"),
        }
    };
    tracing::debug!(why, "a connection to a node ended");
    shared.close(&why);
}

/// Takes all whole frames off the buffer.
fn take_frames(decoder: FrameDecoder, buffer: &mut BytesMut, frames: &mut Vec<Frame>) -> Result<(), String> {
    loop {
        let (header, payload) = match decoder.peek(buffer) {
            Ok(None) => return Ok(()),
            Ok(Some(frame)) if frame.payload.len() > COPY_BYTES_MAX => (frame.header, None),
            Ok(Some(frame)) => (frame.header, Some(Bytes::copy_from_slice(frame.payload))),
            Err(error) => return Err(format!("the node broke the protocol: {error}")),
        };
        let whole = buffer.split_to(HEADER_BYTES + header.length as usize);
        let payload = payload.unwrap_or_else(|| whole.freeze().slice(HEADER_BYTES..));
        frames.push(Frame { header, payload });
    }
}
