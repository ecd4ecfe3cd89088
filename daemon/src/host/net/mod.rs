//! Connections that others make to this node.
//!
//! A connection begins with a hello, on whichever core the kernel gave it to; if it asks for a shard of another core it
//! is handed over, with the bytes that were read already. From then on everything one read brought is decoded and put
//! into the inbox at once, and everything a turn answers goes out with one write.
//!
//! Invariants:
//! - A connection is read only while what it asked, what it was answered, and what waits for the core's turn are all
//!   below their limits: memory is bounded whatever the other side does.
//! - Bytes that are no frames are answered in words that the other side understands, as far as can be, and the
//!   connection is closed.
//! - Once [`CoreEvent::Disconnected`] was sent for a connection, no request of it follows.
//!
//! Deliberately absent: what frames mean. Hello aside, that is the pure server's.

mod connection;
mod flight;
mod hello;
mod table;
mod tally;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use glommio::sync::Semaphore;
use glommio::timer::Timer;
use mesh_base::CoreId;
use mesh_base::limits::{
    CONNECTIONS_PER_CORE_MAX, CORE_ANSWER_BYTES_MAX, CORE_PARTIAL_BYTES_MAX, FRAME_TIMEOUT,
};
use mesh_wire::{Error, RequestId};

use self::connection::Connection;
use self::table::Table;
use self::tally::Tally;
use super::bell::step_aside;
use super::inbox::Inbox;
use super::mesh::{MeshPort, Parcel};
use super::server::Greeter;
use super::socket::{Socket, tune};
use super::sockets::Sockets;
use super::words;
use crate::core::{ConnId, CoreEvent, PeerNode};

/// The pause after the system could not accept a connection (too many open files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections accepted in a row before others get their turn.
const ACCEPTS_IN_A_ROW: usize = 64;

/// Connections beyond the clients: other nodes, and those that have not said hello.
const NEWCOMERS_MAX: usize = 256;

/// Who is at the other end.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Role {
    /// A client.
    Client,
    /// Another node.
    Peer(PeerNode),
}

/// A connection on its way from one core to another.
pub(super) struct HandedOver {
    stream: TcpStream,
    start: Start,
}

/// What a connection begins with once its hello was accepted.
struct Start {
    role: Role,
    /// The answer to its hello, not sent yet.
    answer: Bytes,
    /// What was read beyond the hello.
    buffer: BytesMut,
}

/// Whether a connection is to be flushed at the end of the turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Flush {
    /// It got its first answer of the turn.
    Due,
    /// It is flushed anyway, or gone.
    Unneeded,
}

/// What a core takes from those that connect.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Clients at a time.
    pub(super) clients_max: usize,
    /// How long a frame may take to arrive once it has begun.
    pub(super) frame_timeout: Duration,
}

impl Bounds {
    /// The usual ones, for so many clients.
    pub(super) fn for_clients(clients_max: usize) -> Self {
        let clients_max = clients_max.clamp(1, CONNECTIONS_PER_CORE_MAX - NEWCOMERS_MAX);
        Self { clients_max, frame_timeout: FRAME_TIMEOUT }
    }
}

/// The inbound connections of one core.
pub(super) struct Port {
    own: CoreId,
    inbox: Rc<Inbox>,
    mesh: Rc<MeshPort>,
    greeter: Rc<dyn Greeter>,
    table: RefCell<Table>,
    /// Clients.
    clients: Cell<usize>,
    bounds: Bounds,
    /// What waits to be sent.
    answers: Rc<Tally>,
    /// What large frames that have arrived in part may take together.
    partial: Rc<Semaphore>,
    sockets: Rc<Sockets>,
}

impl Port {
    pub(super) fn new(
        own: CoreId,
        inbox: Rc<Inbox>,
        mesh: Rc<MeshPort>,
        greeter: Rc<dyn Greeter>,
        sockets: Rc<Sockets>,
        bounds: Bounds,
    ) -> Rc<Self> {
        Rc::new(Self {
            own,
            inbox,
            mesh,
            greeter,
            table: RefCell::default(),
            clients: Cell::new(0),
            bounds,
            answers: Tally::new(CORE_ANSWER_BYTES_MAX),
            partial: Rc::new(Semaphore::new(CORE_PARTIAL_BYTES_MAX as u64)),
            sockets,
        })
    }

    /// Accepts connections for as long as it is polled.
    pub(super) async fn accept(self: Rc<Self>, listener: TcpListener) {
        if let Err(error) = self.accept_from(listener).await {
            tracing::error!(core = self.own.0, %error, "no further connections are accepted");
        }
    }

    async fn accept_from(self: &Rc<Self>, listener: TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let watched = self.sockets.watch_over(&listener)?;
        loop {
            watched.input().ready().await;
            for _ in 0..ACCEPTS_IN_A_ROW {
                match listener.accept() {
                    Ok((stream, _)) => self.welcome(stream),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        watched.input().clear();
                        break;
                    }
                    // The other side was gone before it was accepted.
                    Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                    Err(error) => {
                        tracing::warn!(core = self.own.0, %error, "a connection could not be accepted");
                        Timer::new(ACCEPT_PAUSE).await;
                    }
                }
            }
            step_aside().await;
        }
    }

    /// Begins with a connection that said nothing yet.
    fn welcome(self: &Rc<Self>, stream: TcpStream) {
        if self.is_crowded() {
            // A new socket's buffer takes this without waiting; nothing is spent on a connection too many.
            let busy = words::refusal(RequestId::default(), &Error::Overloaded { retry_after_ms: 1000 });
            let _ = stream.set_nonblocking(true).and_then(|()| (&stream).write(&busy));
            return;
        }
        // One that fails here is gone already.
        if let Ok(socket) = tune(&stream).and_then(|()| Socket::new(stream, &self.sockets)) {
            let connection = self.table.borrow_mut().insert(socket, &self.answers);
            glommio::spawn_local(connection::run(Rc::clone(self), connection)).detach();
        }
    }

    /// Goes on with a connection that another core accepted.
    pub(super) fn take_over(self: &Rc<Self>, handed: HandedOver) {
        let HandedOver { stream, start } = handed;
        if self.is_crowded() {
            return;
        }
        if let Ok(socket) = Socket::new(stream, &self.sockets) {
            let connection = self.table.borrow_mut().insert(socket, &self.answers);
            glommio::spawn_local(connection::go_on(Rc::clone(self), connection, start)).detach();
        }
    }

    /// Adds an answer to those that [`Port::flush`] sends.
    pub(super) fn reply(&self, conn: ConnId, frame: Bytes) -> Flush {
        self.table.borrow().get(conn).map_or(Flush::Unneeded, |connection| connection.reply(frame))
    }

    /// Sends the answers of the turn on one connection.
    pub(super) fn flush(&self, conn: ConnId) {
        let connection = self.table.borrow().get(conn).cloned();
        if let Some(connection) = connection {
            connection.flush();
        }
    }

    /// Ends every connection.
    pub(super) fn close(&self) {
        self.table.borrow().iter().for_each(|connection| connection.hang_up());
    }

    /// Connections that are open, those included that have not said hello.
    pub(super) fn open(&self) -> usize {
        self.table.borrow().len()
    }

    /// Gives a connection to another core.
    fn hand_over(&self, to: CoreId, connection: Rc<Connection>, start: Start) {
        self.table.borrow_mut().remove(connection.id());
        let stream = Rc::into_inner(connection).map(Connection::into_stream);
        assert!(stream.is_some(), "only its task and the table hold a connection that was not answered yet");
        if let Some(stream) = stream {
            self.mesh.send(to, Parcel::Connection(Box::new(HandedOver { stream, start })));
            self.mesh.flush();
        }
    }

    /// Whether there is no room for another connection, whoever it is.
    fn is_crowded(&self) -> bool {
        self.open() >= self.bounds.clients_max + NEWCOMERS_MAX
    }

    /// Whether there is room for another client; takes it if there is.
    fn admit_client(&self) -> bool {
        let clients = self.clients.get();
        let admitted = clients < self.bounds.clients_max;
        self.clients.set(clients + usize::from(admitted));
        admitted
    }

    /// Forgets a connection that is gone.
    fn remove(&self, connection: &Connection) {
        let removed = self.table.borrow_mut().remove(connection.id());
        if removed.is_some() && connection.role() == Some(&Role::Client) {
            self.clients.set(self.clients.get() - 1);
            self.inbox.push(CoreEvent::Disconnected { conn: connection.id() });
        }
    }
}
