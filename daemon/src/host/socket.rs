//! A TCP socket of one core: reads and writes that never wait, and waiting for when they pay.
//!
//! Invariants:
//! - Each direction is awaited by one task at a time.
//! - Between two reads of a socket its task waits for it to be readable, even if there is more already: so the core comes to
//!   everything else, and a fast sender cannot keep it to itself.

use std::io::{self, ErrorKind, Read};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use mesh_base::limits::CONNECTION_DEAD_AFTER;
use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, TcpKeepalive, Type};

use super::outbox::{Flushed, Outbox};
use super::sockets::{Sockets, Watched};

/// A quiet connection is asked whether it lives after this long,
const KEEPALIVE_AFTER: Duration = Duration::from_secs(10);
/// and again this often.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);

/// What a read brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Received {
    /// Some of what there is, or nothing after all.
    Bytes,
    /// The other side has closed.
    End,
}

/// See the module.
pub(super) struct Socket {
    stream: TcpStream,
    watched: Watched,
}

impl Socket {
    /// Takes a connected stream over into this core.
    ///
    /// # Errors
    /// The stream is of no use any more.
    pub(super) fn new(stream: TcpStream, sockets: &Rc<Sockets>) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let watched = sockets.watch_over(&stream)?;
        Ok(Self { stream, watched })
    }

    /// Gives the stream back, for another core.
    pub(super) fn into_stream(self) -> TcpStream {
        self.watched.forget(&self.stream);
        self.stream
    }

    /// Reads a part of what is there, to the end of the buffer; only after [`Socket::readable`].
    ///
    /// # Errors
    /// The connection is of no use any more.
    pub(super) fn read(&self, buffer: &mut BytesMut) -> io::Result<Received> {
        let mut scratch = self.watched.scratch();
        loop {
            return match (&self.stream).read(&mut scratch) {
                Ok(0) => Ok(Received::End),
                Ok(count) => {
                    buffer.extend_from_slice(scratch.get(..count).unwrap_or_default());
                    self.watched.has_read(count);
                    Ok(Received::Bytes)
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.watched.has_read(0);
                    Ok(Received::Bytes)
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
        }
    }

    /// Writes what the socket takes.
    ///
    /// # Errors
    /// The connection is of no use any more.
    pub(super) fn send(&self, outbox: &mut Outbox) -> io::Result<Flushed> {
        // Room that there is from here on is told by another edge.
        self.watched.output().clear();
        outbox.flush(&mut &self.stream, &mut self.watched.scratch())
    }

    /// Completes when there is something to read, or the connection is gone.
    pub(super) async fn readable(&self) {
        self.watched.input().ready().await;
    }

    /// Completes when there is room to write after a write was blocked, or the connection is gone.
    pub(super) async fn writable(&self) {
        self.watched.output().ready().await;
    }

    /// Says that nothing more will be sent; what was sent still arrives.
    pub(super) fn finish(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Ends the connection for both sides; whoever waits for it is woken.
    pub(super) fn hang_up(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// Sets what every connection needs: answers leave at once, and a dead other end is noticed.
///
/// # Errors
/// The stream is of no use any more.
pub(super) fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY).with_retries(2);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(CONNECTION_DEAD_AFTER))
}

/// Makes a connection.
///
/// # Errors
/// The other side cannot be reached.
pub(super) async fn connect(address: SocketAddr, sockets: &Rc<Sockets>) -> io::Result<Socket> {
    let raw = RawSocket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    raw.set_nonblocking(true)?;
    let started = raw.connect(&address.into());
    let socket = Socket::new(raw.into(), sockets)?;
    match started {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
            socket.writable().await;
            if let Some(refused) = socket.stream.take_error()? {
                return Err(refused);
            }
        }
        Err(error) => return Err(error),
    }
    tune(&socket.stream)?;
    Ok(socket)
}
