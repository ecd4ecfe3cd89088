//! Frames out of a stream of bytes.
//!
//! Invariants:
//! - The length of a payload is compared with the limit before a byte is reserved for it.
//! - A frame's payload is handed on only when its checksum is right.
//! - The decoder holds no bytes: what was read and not yet taken stays in the caller's buffer.
//!
//! Deliberately absent: sockets, time-outs, and what the payload means.

use bytes::{Buf, Bytes, BytesMut};
use mesh_base::limits::{FRAME_PAYLOAD_BYTES_MAX, HELLO_PAYLOAD_BYTES_MAX};

use crate::foreign::Foreign;
use crate::header::{FRAME_VERSION, HEADER_BYTES, Header, MAGIC, RawHeader, RequestId};
use crate::{Error, Kind, PeerMessage, Request, Response, WireError};

/// The most that [`FrameDecoder::reserve`] adds to a buffer that holds less than it.
const RESERVE_BYTES: usize = 64 * 1024;

/// Why bytes are not a frame. All but [`FrameError::UnknownKind`] end the connection: where the next frame would begin
/// is not known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// The first byte is not a frame's.
    #[error("not a Mesh frame{}", looks_like.hint())]
    NotMesh {
        /// What the bytes look like instead.
        looks_like: Foreign,
    },
    /// The frame has a layout of another version.
    #[error("frame version {version} is not known, only {FRAME_VERSION} is")]
    Version {
        /// The version that the frame names.
        version: u8,
    },
    /// The payload is longer than it may be.
    #[error("the payload has {length} bytes, more than {limit}")]
    TooLong {
        /// Bytes of the payload.
        length: u32,
        /// Bytes that it may have.
        limit: usize,
    },
    /// A field that must be 0 in this version is not.
    #[error("the header's {field} is not 0")]
    Reserved {
        /// The field.
        field: &'static str,
    },
    /// The frame was damaged on its way, or by its sender.
    #[error("the frame's checksum is wrong: says {says:08x}, is {is:08x}")]
    Checksum {
        /// What the header says.
        says: u32,
        /// What it should say.
        is: u32,
    },
    /// The frame is whole, and its kind is none that this version knows. It was taken off the buffer: the connection
    /// can go on.
    #[error("kind {kind} is not known")]
    UnknownKind {
        /// The kind's number.
        kind: u8,
        /// The request, so that it can be answered.
        request: RequestId,
    },
}

impl FrameError {
    /// What to answer, in a frame, before the connection is closed; `None` for a peer that does not speak frames.
    #[must_use]
    pub fn answer(&self) -> Option<Error> {
        Some(match *self {
            Self::NotMesh { .. } => return None,
            Self::Version { .. } => Error::Unsupported {
                version_min: crate::PROTOCOL_VERSION_MIN,
                version_max: crate::PROTOCOL_VERSION_MAX,
            },
            Self::TooLong { length, limit } => {
                Error::TooLarge { what: "payload".into(), limit: limit as u64, actual: length.into() }
            }
            Self::Reserved { field } => Error::Malformed { what: format!("{field} is not 0").into() },
            Self::Checksum { .. } => Error::Malformed { what: "checksum".into() },
            Self::UnknownKind { kind, .. } => {
                Error::Malformed { what: format!("unknown kind {kind}").into() }
            }
        })
    }
}

/// A whole frame, its checksum verified. The payload shares the memory that it was read into: a key or value that is to
/// be kept for long is better copied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// The header.
    pub header: Header,
    /// The FlatBuffer that [`Header::kind`] names.
    pub payload: Bytes,
}

/// A whole frame that is still in the buffer it was read into, its checksum verified.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameRef<'a> {
    /// The header.
    pub header: Header,
    /// The FlatBuffer that [`Header::kind`] names.
    pub payload: &'a [u8],
}

impl FrameRef<'_> {
    /// Bytes of the whole frame: what to take off the buffer when it was dealt with.
    #[must_use]
    pub const fn length(&self) -> usize {
        HEADER_BYTES + self.payload.len()
    }
}

macro_rules! views {
    ($lifetime:lifetime, [$($receiver:tt)+], $self:ident, $payload:expr) => {
        /// The frame as a request.
        ///
        /// # Errors
        /// [`WireError`] if it is not a valid one.
        pub fn request($($receiver)+) -> Result<Request<$lifetime>, WireError> {
            Request::decode($self.header.kind, $payload)
        }

        /// The frame as an answer.
        ///
        /// # Errors
        /// [`WireError`] if it is not a valid one.
        pub fn response($($receiver)+) -> Result<Response<$lifetime>, WireError> {
            Response::decode($self.header.kind, $payload)
        }

        /// The frame as a message between nodes.
        ///
        /// # Errors
        /// [`WireError`] if it is not a valid one.
        pub fn peer($($receiver)+) -> Result<PeerMessage<$lifetime>, WireError> {
            PeerMessage::decode($self.header.kind, $payload)
        }
    };
}

impl<'a> Frame {
    views!('a, [&'a self], self, &self.payload);
}

impl<'a> FrameRef<'a> {
    views!('a, [&self], self, self.payload);
}

/// Finds frames at the front of a buffer.
#[derive(Clone, Copy, Debug)]
pub struct FrameDecoder {
    payload_bytes_max: usize,
}

impl FrameDecoder {
    /// A decoder for a connection whose hello was accepted.
    #[must_use]
    pub const fn new() -> Self {
        Self { payload_bytes_max: FRAME_PAYLOAD_BYTES_MAX }
    }

    /// A decoder for a connection whose first frame is awaited.
    #[must_use]
    pub const fn before_hello() -> Self {
        Self { payload_bytes_max: HELLO_PAYLOAD_BYTES_MAX }
    }

    /// Takes the frame at the front of the buffer off it, without copying; `None` if it is not whole yet.
    ///
    /// # Errors
    /// [`FrameError`]; only after [`FrameError::UnknownKind`] may the buffer be decoded further.
    pub fn decode(&self, buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let (length, found) = match self.peek(buffer) {
            Ok(None) => return Ok(None),
            Ok(Some(frame)) => (frame.length(), Ok(frame.header)),
            Err(error @ FrameError::UnknownKind { .. }) => (self.frame_length(buffer), Err(error)),
            Err(error) => return Err(error),
        };
        let mut frame = buffer.split_to(length).freeze();
        frame.advance(HEADER_BYTES);
        found.map(|header| Some(Frame { header, payload: frame }))
    }

    /// The frame at the front of the buffer, left where it is; `None` if it is not whole yet. When it was dealt with,
    /// take [`FrameRef::length`] bytes off the buffer.
    ///
    /// # Errors
    /// [`FrameError`]
    pub fn peek<'b>(&self, buffer: &'b [u8]) -> Result<Option<FrameRef<'b>>, FrameError> {
        let Some(raw) = self.raw(buffer)? else { return Ok(None) };
        let Some(payload) = buffer.get(HEADER_BYTES..HEADER_BYTES + raw.length as usize) else {
            return Ok(None);
        };
        let is = raw.checksum_with(payload);
        if is != raw.checksum {
            return Err(FrameError::Checksum { says: raw.checksum, is });
        }
        let Some(kind) = Kind::from_byte(raw.kind) else {
            return Err(FrameError::UnknownKind { kind: raw.kind, request: RequestId(raw.request) });
        };
        let header = Header { kind, length: raw.length, envelope: raw.envelope() };
        Ok(Some(FrameRef { header, payload }))
    }

    /// How many more bytes are useful before the next attempt to decode: those that complete the header, or the frame.
    /// 0 if there is a frame, or an error, to be had already.
    #[must_use]
    pub fn need(&self, buffer: &[u8]) -> usize {
        match self.raw(buffer) {
            Ok(None) => HEADER_BYTES.saturating_sub(buffer.len()),
            Ok(Some(raw)) => (HEADER_BYTES + raw.length as usize).saturating_sub(buffer.len()),
            Err(_) => 0,
        }
    }

    /// Makes room for bytes that are needed. The buffer at most doubles (above 64 KiB), so that a sender makes us hold
    /// memory only in proportion to what it sent, whatever length its header claims.
    pub fn reserve(&self, buffer: &mut BytesMut) {
        buffer.reserve(self.need(buffer).min(buffer.len().max(RESERVE_BYTES)));
    }

    /// The header at the front of the buffer, all but its checksum and kind looked at.
    fn raw(&self, buffer: &[u8]) -> Result<Option<RawHeader>, FrameError> {
        if buffer.first().is_some_and(|&byte| byte != MAGIC) {
            return Err(FrameError::NotMesh { looks_like: Foreign::guess(buffer) });
        }
        if let Some(&version) = buffer.get(1).filter(|&&version| version != FRAME_VERSION) {
            return Err(FrameError::Version { version });
        }
        let Some(raw) = RawHeader::read(buffer) else { return Ok(None) };
        debug_assert!(raw.magic == MAGIC && raw.version == FRAME_VERSION, "both were looked at");
        if raw.length as usize > self.payload_bytes_max {
            return Err(FrameError::TooLong { length: raw.length, limit: self.payload_bytes_max });
        }
        if raw.flags != 0 {
            return Err(FrameError::Reserved { field: "flags" });
        }
        if raw.reserved != 0 {
            return Err(FrameError::Reserved { field: "reserved field" });
        }
        Ok(Some(raw))
    }

    fn frame_length(&self, buffer: &[u8]) -> usize {
        buffer.len().min(RawHeader::read(buffer).map_or(0, |raw| HEADER_BYTES + raw.length as usize))
    }
}

impl Default for FrameDecoder {
    fn default() -> Self {
        Self::new()
    }
}
