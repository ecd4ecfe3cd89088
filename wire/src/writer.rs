//! Messages into frames.
//!
//! Invariants:
//! - What is written keeps to the limits: every receiver of this version accepts it.
//! - A message that cannot be written leaves what it was to be appended to as it was.
//! - Between messages only a little memory is kept, however large one was.

use bytes::Bytes;
use mesh_base::checksum::crc32;
use mesh_base::limits::FRAME_PAYLOAD_BYTES_MAX;

use crate::builder::Builder;
use crate::form::Forms;
use crate::header::{Envelope, HEADER_BYTES, RawHeader};
use crate::views::{Outgoing, Response};
use crate::wire_error::at_most;
use crate::{Kind, WireError};

/// Messages that may be larger are built in memory of their own, which becomes the frame.
const SCRATCH_BYTES: usize = 64 * 1024;

/// Writes frames. It keeps its scratch memory, so that writing a small message allocates nothing but its frame.
pub struct FrameWriter {
    scratch: Builder,
    forms: Forms,
}

impl FrameWriter {
    /// A writer with little memory yet.
    #[must_use]
    pub fn new() -> Self {
        Self { scratch: Builder::with_capacity(1024), forms: Forms::default() }
    }

    /// Appends the frame of a [`crate::Request`], [`crate::Response`] or [`crate::PeerMessage`].
    ///
    /// # Errors
    /// [`WireError`] if the message does not keep to the limits; nothing was appended then.
    pub fn append(
        &mut self,
        envelope: &Envelope,
        message: &impl Outgoing,
        out: &mut Vec<u8>,
    ) -> Result<(), WireError> {
        message.check()?;
        match message.size_hint() {
            large if large > SCRATCH_BYTES => out.extend_from_slice(&build_large(envelope, message, large)?),
            _ => {
                let (header, payload) = self.build_small(envelope, message)?;
                out.reserve(header.len() + payload.len());
                out.extend_from_slice(&header);
                out.extend_from_slice(payload);
            }
        }
        Ok(())
    }

    /// The frame of a [`crate::Request`], [`crate::Response`] or [`crate::PeerMessage`]. A large value is copied into it
    /// once.
    ///
    /// # Errors
    /// [`WireError`] if the message does not keep to the limits.
    pub fn frame(&mut self, envelope: &Envelope, message: &impl Outgoing) -> Result<Bytes, WireError> {
        message.check()?;
        match message.size_hint() {
            large if large > SCRATCH_BYTES => build_large(envelope, message, large),
            _ => {
                let (header, payload) = self.build_small(envelope, message)?;
                let mut frame = Vec::with_capacity(header.len() + payload.len());
                frame.extend_from_slice(&header);
                frame.extend_from_slice(payload);
                Ok(frame.into())
            }
        }
    }

    /// The same as [`FrameWriter::frame`] of an answer, and faster for those to reads and writes of a key.
    ///
    /// # Errors
    /// [`WireError`] if the answer does not keep to the limits.
    pub fn answer(&mut self, envelope: &Envelope, answer: &Response<'_>) -> Result<Bytes, WireError> {
        answer.check()?;
        let Some(mut frame) = self.forms.fill(answer, &mut self.scratch) else {
            return self.frame(envelope, answer);
        };
        #[allow(clippy::cast_possible_truncation, reason = "a value that is filled in is short")]
        let mut header = RawHeader::new(answer.kind(), envelope, (frame.len() - HEADER_BYTES) as u32);
        if let Some(place) = frame.first_chunk_mut() {
            *place = header.to_bytes();
        }
        header.checksum = crc32(&[&frame]);
        if let Some(place) = frame.first_chunk_mut() {
            *place = header.to_bytes();
        }
        Ok(frame.into())
    }

    fn build_small(
        &mut self,
        envelope: &Envelope,
        message: &impl Outgoing,
    ) -> Result<([u8; HEADER_BYTES], &[u8]), WireError> {
        self.scratch.reset();
        let root = message.build(&mut self.scratch);
        let payload = self.scratch.finish(root);
        Ok((header(message.kind(), envelope, payload)?, payload))
    }
}

impl Default for FrameWriter {
    fn default() -> Self {
        Self::new()
    }
}

/// Builds a frame in one piece of memory. FlatBuffers grow downwards, so the header fits in front.
fn build_large(envelope: &Envelope, message: &impl Outgoing, size_hint: usize) -> Result<Bytes, WireError> {
    // Before the memory is taken. What a hint has beyond the payload is less than the payload's limit.
    at_most("payload bytes", size_hint, 2 * FRAME_PAYLOAD_BYTES_MAX)?;
    let mut builder = Builder::with_capacity(HEADER_BYTES + size_hint);
    let root = message.build(&mut builder);
    let header = header(message.kind(), envelope, builder.finish(root))?;
    let (mut memory, payload_at) = builder.into_memory();
    debug_assert!(payload_at >= HEADER_BYTES, "the hint of {} was too small", message.kind());
    if let Some(start) = payload_at.checked_sub(HEADER_BYTES) {
        memory.iter_mut().skip(start).zip(header).for_each(|(to, from)| *to = from);
        return Ok(Bytes::from(memory).slice(start..));
    }
    memory.splice(..payload_at, header);
    Ok(memory.into())
}

fn header(kind: Kind, envelope: &Envelope, payload: &[u8]) -> Result<[u8; HEADER_BYTES], WireError> {
    at_most("payload bytes", payload.len(), FRAME_PAYLOAD_BYTES_MAX)?;
    #[allow(clippy::cast_possible_truncation, reason = "compared with the limit above")]
    let mut header = RawHeader::new(kind, envelope, payload.len() as u32);
    header.checksum = header.checksum_with(payload);
    Ok(header.to_bytes())
}
