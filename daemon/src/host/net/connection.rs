//! One inbound connection: its reader is a task of its own, its writer is the core's turn.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::TcpStream;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use glommio::sync::StaticPermit;
use mesh_base::Instant;
use mesh_base::limits::{
    CONNECTION_BYTES_IN_FLIGHT_MAX, CONNECTION_STALL_MAX, LARGE_ANSWER_BYTES, SOCKET_READ_BYTES,
};
use mesh_wire::{Error, Frame, FrameDecoder, FrameError, HEADER_BYTES};

use super::flight::Flight;
use super::hello::{self, Heard};
use super::tally::Share;
use super::{Flush, Port, Role, Start};
use crate::core::{ConnId, CoreEvent};
use crate::host::bell::Bell;
use crate::host::clock;
use crate::host::inbox::Sender;
use crate::host::outbox::{Flushed, Outbox};
use crate::host::patience::within;
use crate::host::socket::{Received, Socket};
use crate::host::words;

/// How long the last words to a connection may take.
const PARTING_TIMEOUT: Duration = Duration::from_secs(1);
/// What is read and thrown away while they arrive.
const PARTING_BYTES_MAX: usize = 1024 * 1024;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// It asks and is answered.
    Open,
    /// It gets its last words.
    Parting,
    /// Nothing reaches it any more.
    Gone,
}

/// Who writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Writer {
    /// The turn.
    Turn,
    /// A task of the connection's, because the socket took no more.
    Task,
}

/// See the module.
pub(super) struct Connection {
    id: ConnId,
    socket: Socket,
    /// Known after the hello.
    role: OnceCell<Role>,
    state: Cell<State>,
    flight: RefCell<Flight>,
    outbox: RefCell<Outbox>,
    /// The outbox's bytes, among those of all connections of the core.
    unsent: Share,
    writer: Cell<Writer>,
    /// Whether the turn has answers here that it will flush.
    flush_due: Cell<bool>,
    /// Whether the reader waits for [`Connection::drained`].
    reader_waits: Cell<bool>,
    /// Rung when there may be room for further requests.
    drained: Bell,
}

impl Connection {
    pub(super) fn new(id: ConnId, socket: Socket, unsent: Share) -> Self {
        Self {
            id,
            socket,
            role: OnceCell::new(),
            state: Cell::new(State::Open),
            flight: RefCell::new(Flight::new()),
            outbox: RefCell::default(),
            unsent,
            writer: Cell::new(Writer::Turn),
            flush_due: Cell::new(false),
            reader_waits: Cell::new(false),
            drained: Bell::default(),
        }
    }

    pub(super) const fn id(&self) -> ConnId {
        self.id
    }

    pub(super) fn role(&self) -> Option<&Role> {
        self.role.get()
    }

    pub(super) const fn socket(&self) -> &Socket {
        &self.socket
    }

    pub(super) fn into_stream(self) -> TcpStream {
        self.socket.into_stream()
    }

    fn sender(&self) -> Sender {
        match self.role() {
            Some(Role::Peer(_)) => Sender::Peer,
            _ => Sender::Client,
        }
    }

    /// Queues the answer to a request.
    pub(super) fn reply(&self, frame: Bytes) -> Flush {
        if self.state.get() != State::Open {
            return Flush::Unneeded;
        }
        let request = words::request_of(&frame);
        self.flight.borrow_mut().end(request, frame.len());
        // Whoever asks for more than it takes, or comes when others do, asks again. Only reads have large answers.
        let is_too_much = frame.len() > LARGE_ANSWER_BYTES
            && (self.outbox.borrow().bytes() >= CONNECTION_BYTES_IN_FLIGHT_MAX || self.unsent.is_too_much());
        let busy = Error::Overloaded { retry_after_ms: 100 };
        self.queue(if is_too_much { words::refusal(request, &busy) } else { frame });
        if self.reader_waits.get() {
            self.drained.ring();
        }
        // The task, if there is one, writes whatever it finds.
        if self.writer.get() == Writer::Task || self.flush_due.replace(true) {
            Flush::Unneeded
        } else {
            Flush::Due
        }
    }

    /// Writes what is queued, as far as the socket takes it.
    pub(super) fn flush(self: &Rc<Self>) {
        self.flush_due.set(false);
        if self.writer.get() == Writer::Turn && self.write() == Flushed::Blocked {
            self.writer.set(Writer::Task);
            glommio::spawn_local(write_on(Rc::clone(self))).detach();
        }
    }

    /// Hands a frame to the core.
    fn ask(&self, port: &Port, frame: Frame) {
        match self.role() {
            Some(Role::Peer(peer)) => port.inbox.push(CoreEvent::Peer { from: peer.clone(), frame }),
            _ => {
                let bytes = HEADER_BYTES + frame.payload.len();
                self.flight.borrow_mut().begin(frame.header.envelope.request, bytes);
                port.inbox.push(CoreEvent::Request { conn: self.id, frame });
            }
        }
    }

    /// Answers something that does not get as far as the core.
    fn refuse(self: &Rc<Self>, answer: Bytes) {
        self.queue(answer);
        self.flush();
    }

    fn queue(&self, frame: Bytes) {
        self.outbox.borrow_mut().push(frame);
        self.count();
    }

    /// Keeps the core's count right after the outbox changed.
    fn count(&self) {
        self.unsent.set(self.outbox.borrow().bytes());
    }

    fn write(&self) -> Flushed {
        let sent = self.socket.send(&mut self.outbox.borrow_mut());
        self.count();
        if self.reader_waits.get() {
            self.drained.ring();
        }
        sent.unwrap_or_else(|_| {
            self.hang_up();
            Flushed::All
        })
    }

    /// Ends the connection; its reader notices, and forgets it.
    pub(super) fn hang_up(&self) {
        self.state.set(State::Gone);
        self.outbox.borrow_mut().clear();
        self.count();
        self.socket.hang_up();
        self.drained.ring();
    }

    fn is_full(&self) -> bool {
        self.state.get() == State::Open && self.flight.borrow().is_full(self.outbox.borrow().bytes())
    }

    /// Completes when further requests may be taken in.
    async fn room(&self) {
        self.reader_waits.set(true);
        while self.is_full() {
            self.drained.heard().await;
        }
        self.reader_waits.set(false);
    }

    /// Sends last words and ends the connection in a way that lets them arrive: a socket that is closed with bytes
    /// unread takes back what it sent.
    async fn part(self: &Rc<Self>, words: Bytes) {
        self.state.set(State::Parting);
        self.queue(words);
        self.flush();
        self.reader_waits.set(true);
        let _ = within(PARTING_TIMEOUT, async {
            while !self.outbox.borrow().is_empty() {
                self.drained.heard().await;
            }
            self.socket.finish();
            discard(&self.socket).await;
        })
        .await;
    }
}

/// Writes what the turn could not.
async fn write_on(connection: Rc<Connection>) {
    loop {
        if within(CONNECTION_STALL_MAX, connection.socket.writable()).await.is_none() {
            // It takes nothing of what it asked for, and keeps memory from others.
            connection.hang_up();
        }
        if connection.state.get() == State::Gone || connection.write() == Flushed::All {
            connection.writer.set(Writer::Turn);
            return;
        }
    }
}

async fn discard(socket: &Socket) {
    let mut thrown = BytesMut::new();
    let mut total = 0;
    while total < PARTING_BYTES_MAX {
        thrown.clear();
        socket.readable().await;
        match socket.read(&mut thrown) {
            Ok(Received::Bytes) => total += thrown.len(),
            Ok(Received::End) | Err(_) => return,
        }
    }
}

/// The life of a connection that this core accepted.
pub(super) async fn run(port: Rc<Port>, connection: Rc<Connection>) {
    match hello::hear(&port, &connection).await {
        Heard::Welcome { start, to } if to == port.own => go_on(port, connection, start).await,
        Heard::Welcome { start, to } => port.hand_over(to, connection, start),
        Heard::Refused(words) => {
            connection.part(words).await;
            end(&port, &connection);
        }
        Heard::Nothing => end(&port, &connection),
    }
}

fn end(port: &Port, connection: &Connection) {
    connection.hang_up();
    port.remove(connection);
}

/// The life of a connection after its hello.
pub(super) async fn go_on(port: Rc<Port>, connection: Rc<Connection>, start: Start) {
    let Start { role, answer, buffer } = start;
    if role == Role::Client && !port.admit_client() {
        let busy = Error::Overloaded { retry_after_ms: 1000 };
        connection.part(words::refusal(words::request_of(&answer), &busy)).await;
        end(&port, &connection);
        return;
    }
    let known = connection.role.set(role);
    assert!(known.is_ok(), "a connection says hello once");
    connection.queue(answer);
    connection.flush();
    if let Some(words) = read_on(&port, &connection, buffer).await {
        connection.part(words).await;
    }
    end(&port, &connection);
}

/// Takes in frames until the connection ends; returns what to say if it is this side that ends it.
async fn read_on(port: &Port, connection: &Rc<Connection>, mut buffer: BytesMut) -> Option<Bytes> {
    let decoder = FrameDecoder::new();
    let mut begun = Begun::default();
    loop {
        match take_in(port, connection, decoder, &mut buffer) {
            Ok(Taken::Nothing) => {}
            // What is left is the beginning of another frame.
            Ok(Taken::Frames) => begun = Begun::default(),
            Err(foul) => return Some(words::to_foul(&foul)),
        }
        connection.room().await;
        port.inbox.room(connection.sender()).await;
        if connection.state.get() != State::Open {
            return None;
        }
        // Frames that there was no room for come before further bytes.
        let need = decoder.need(&buffer);
        if need == 0 {
            continue;
        }
        if buffer.is_empty() {
            connection.socket.readable().await;
        } else if within(begun.time_left(port), begun.goes_on(port, connection, need)).await.is_none() {
            return Some(words::to_unfinished());
        }
        match connection.socket.read(&mut buffer) {
            Ok(Received::Bytes) => {}
            Ok(Received::End) | Err(_) => return None,
        }
    }
}

/// The frame that has arrived in part.
#[derive(Default)]
struct Begun {
    since: Option<Instant>,
    /// Its share of what large frames may take together.
    share: Option<StaticPermit>,
}

impl Begun {
    /// How long the rest may take.
    fn time_left(&mut self, port: &Port) -> Duration {
        let now = clock::now().monotonic;
        port.bounds.frame_timeout.saturating_sub(now.since(*self.since.get_or_insert(now)))
    }

    /// Completes when there is memory for the frame and more of it has come. What small frames and other nodes send is
    /// bounded by their number.
    async fn goes_on(&mut self, port: &Port, connection: &Connection, need: usize) {
        let is_large = need > SOCKET_READ_BYTES && connection.sender() == Sender::Client;
        if is_large && self.share.is_none() {
            // The semaphore is never closed.
            self.share = port.partial.acquire_static_permit(need as u64).await.ok();
        }
        connection.socket.readable().await;
    }
}

/// What was found in a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Taken {
    Frames,
    Nothing,
}

/// Moves the frames of the buffer into the inbox, as far as the connection's limits allow.
fn take_in(
    port: &Port,
    connection: &Rc<Connection>,
    decoder: FrameDecoder,
    buffer: &mut BytesMut,
) -> Result<Taken, FrameError> {
    let (mut taken, mut largest) = (Taken::Nothing, 0);
    while !connection.is_full() {
        match decoder.decode(buffer) {
            Ok(None) => break,
            Ok(Some(frame)) => {
                taken = Taken::Frames;
                largest = largest.max(frame.payload.len());
                connection.ask(port, frame);
            }
            Err(unknown @ FrameError::UnknownKind { request, .. })
                if connection.role() == Some(&Role::Client) =>
            {
                connection.refuse(words::to_unknown(request, &unknown));
            }
            // A newer node says something that this one does not know: it need not.
            Err(FrameError::UnknownKind { .. }) => {}
            Err(foul) => return Err(foul),
        }
    }
    if !buffer.is_empty() {
        decoder.reserve(buffer);
    } else if largest > SOCKET_READ_BYTES {
        // The rest of a buffer would keep the whole of it alive.
        *buffer = BytesMut::new();
    }
    Ok(taken)
}
