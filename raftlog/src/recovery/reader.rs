//! Reads a file from front to back, a few chunks ahead of what is looked at.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use mesh_base::io::{FileId, IoOp, IoPort, IoQueue, IoToken};
use mesh_base::limits::{LOG_READS_IN_FLIGHT_MAX, SECTOR_BYTES};

/// A chunk that was asked for.
#[derive(Debug)]
struct Chunk {
    token: IoToken,
    bytes: Option<Bytes>,
}

/// Where the reading of one file is.
#[derive(Debug)]
pub(crate) struct FileReader {
    file: FileId,
    /// Where the file ends, in bytes.
    end: u64,
    /// Up to here reads were submitted.
    asked_to: u64,
    chunk_bytes: usize,
    chunks: VecDeque<Chunk>,
    /// Bytes read and not yet taken, from `position` on.
    window: BytesMut,
    position: u64,
}

impl FileReader {
    /// A reader of a file of `end` bytes from `position` on.
    pub(crate) fn new(file: FileId, position: u64, end: u64, chunk_bytes: usize) -> Self {
        Self {
            file,
            end,
            asked_to: position,
            chunk_bytes,
            chunks: VecDeque::new(),
            window: BytesMut::new(),
            position,
        }
    }

    /// Where the next byte of the window is, in bytes of the file.
    pub(crate) const fn position(&self) -> u64 {
        self.position
    }

    /// The bytes at the position that were read already.
    pub(crate) fn window(&self) -> &[u8] {
        &self.window
    }

    /// Whether the window reaches the end of the file.
    pub(crate) fn is_at_end(&self) -> bool {
        self.position + self.window.len() as u64 >= self.end
    }

    /// Whether a read is in flight.
    pub(crate) fn is_reading(&self) -> bool {
        self.chunks.iter().any(|chunk| chunk.bytes.is_none())
    }

    /// Submits reads until the window will hold `need` bytes, and some ahead of that.
    pub(crate) fn read_ahead(&mut self, need: usize, port: &mut IoPort, io: &mut IoQueue) {
        let goal = self.end.min(self.position + (need + self.chunk_bytes) as u64);
        while self.asked_to < goal && self.chunks.len() < LOG_READS_IN_FLIGHT_MAX {
            let rest = usize::try_from(self.end - self.asked_to).unwrap_or(usize::MAX);
            let length = self.chunk_bytes.min(rest.next_multiple_of(SECTOR_BYTES));
            let token = port.submit(io, IoOp::Read { file: self.file, offset: self.asked_to, length });
            self.chunks.push_back(Chunk { token, bytes: None });
            self.asked_to += length as u64;
        }
    }

    /// Takes what a read brought, if it is one of these; answers whether it was.
    pub(crate) fn complete(&mut self, token: IoToken, bytes: Bytes) -> bool {
        let Some(chunk) = self.chunks.iter_mut().find(|chunk| chunk.token == token) else { return false };
        chunk.bytes = Some(bytes);
        while let Some(bytes) = self.chunks.pop_front_if(|chunk| chunk.bytes.is_some()).and_then(|c| c.bytes)
        {
            self.take_chunk(&bytes);
        }
        true
    }

    fn take_chunk(&mut self, bytes: &Bytes) {
        if self.is_at_end() {
            return;
        }
        let expected = self.chunk_bytes as u64;
        let here = self.position + self.window.len() as u64;
        if (bytes.len() as u64) < expected.min(self.end - here) {
            // The file is shorter than its listing said.
            self.end = here + bytes.len() as u64;
        }
        self.window.extend_from_slice(bytes);
    }

    /// Takes bytes off the front of the window.
    pub(crate) fn skip(&mut self, bytes: usize) {
        let bytes = bytes.min(self.window.len());
        self.position += bytes as u64;
        self.window.advance(bytes);
    }
}
