//! The first frame of a connection.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use mesh_base::CoreId;
use mesh_base::limits::HELLO_TIMEOUT;
use mesh_wire::{Frame, FrameDecoder, FrameError};

use super::connection::Connection;
use super::{Port, Role, Start};
use crate::core::HelloOutcome;
use crate::host::patience::within;
use crate::host::socket::Received;
use crate::host::words;

/// What came of it.
pub(super) enum Heard {
    /// The connection goes on, on a core.
    Welcome {
        /// With this.
        start: Start,
        /// There.
        to: CoreId,
    },
    /// It is to be ended, with these words.
    Refused(Bytes),
    /// There is no one to say anything to.
    Nothing,
}

/// Waits for the hello and asks the pure server what to make of it.
pub(super) async fn hear(port: &Port, connection: &Rc<Connection>) -> Heard {
    let mut buffer = BytesMut::new();
    let frame = match within(HELLO_TIMEOUT, first_frame(connection, &mut buffer)).await {
        Some(Ok(Some(frame))) => frame,
        Some(Err(foul)) => return Heard::Refused(words::to_foul(&foul)),
        // It hung up, or never went on with what it began.
        Some(Ok(None)) | None if buffer.is_empty() => return Heard::Nothing,
        Some(Ok(None)) | None => return Heard::Refused(words::to_unfinished()),
    };
    let own = port.own;
    let known = |core: &CoreId| usize::from(core.0) < port.mesh.cores();
    match port.greeter.hello(&frame) {
        HelloOutcome::Client { answer, hand_to } => Heard::Welcome {
            start: Start { role: Role::Client, answer, buffer },
            to: hand_to.filter(known).unwrap_or(own),
        },
        HelloOutcome::Peer { peer, answer, hand_to } => Heard::Welcome {
            start: Start { role: Role::Peer(peer), answer, buffer },
            to: hand_to.filter(known).unwrap_or(own),
        },
        HelloOutcome::Refuse { answer } => Heard::Refused(answer),
    }
}

/// The first frame; `None` if the other side closes before it is whole.
async fn first_frame(
    connection: &Rc<Connection>,
    buffer: &mut BytesMut,
) -> Result<Option<Frame>, FrameError> {
    let decoder = FrameDecoder::before_hello();
    loop {
        if let Some(frame) = decoder.decode(buffer)? {
            return Ok(Some(frame));
        }
        connection.socket().readable().await;
        match connection.socket().read(buffer) {
            Ok(Received::Bytes) => {}
            Ok(Received::End) | Err(_) => return Ok(None),
        }
    }
}
