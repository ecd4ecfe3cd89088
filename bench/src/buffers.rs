//! Bytes on their way into a socket, and out of one.
//!
//! Memory that a connection needed once it needs again: buffers grow to what is in flight, and do not shrink.

use std::io;

use crate::socket::{Received, Socket};

/// A read has room for so many bytes at least.
const ROOM_BYTES: usize = 256 * 1024;

/// Requests that are not written yet.
#[derive(Default, Debug)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    written: usize,
}

impl Outbox {
    /// Where requests are appended.
    pub(crate) const fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Whether everything is written.
    pub(crate) const fn is_empty(&self) -> bool {
        self.written == self.bytes.len()
    }

    /// Forgets what is not written.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.written = 0;
    }

    /// Writes until everything is out or the socket takes no more.
    ///
    /// # Errors
    /// The connection is of no use any more.
    pub(crate) fn flush(&mut self, socket: &Socket) -> io::Result<()> {
        while let Some(rest) = self.bytes.get(self.written..).filter(|rest| !rest.is_empty()) {
            match socket.send(rest)? {
                0 => return Ok(()),
                count => self.written += count,
            }
        }
        self.clear();
        Ok(())
    }
}

/// The beginning of what was received and whose end has not come. What comes next is read behind it, without a copy.
#[derive(Default, Debug)]
pub(crate) struct Inbox {
    /// Only the front of it is in use: the rest was used before, or is zeros.
    bytes: Vec<u8>,
    filled: usize,
    /// Bytes of the last read, if they are in the scratch memory.
    in_scratch: usize,
}

impl Inbox {
    /// Forgets what was received.
    pub(crate) const fn clear(&mut self) {
        (self.filled, self.in_scratch) = (0, 0);
    }

    /// Reads once, into the scratch memory if nothing was left over. All that was received and not taken; `None` at the end.
    ///
    /// # Errors
    /// The reader's.
    pub(crate) fn receive<'a>(
        &'a mut self,
        scratch: &'a mut [u8],
        read: impl FnOnce(&mut [u8]) -> io::Result<Received>,
    ) -> io::Result<Option<&'a [u8]>> {
        if self.filled == 0 {
            let Received::Bytes(count) = read(scratch)? else { return Ok(None) };
            self.in_scratch = count;
            return Ok(scratch.get(..count));
        }
        if self.bytes.len() < self.filled + ROOM_BYTES {
            self.bytes.resize((2 * self.bytes.len()).max(self.filled + ROOM_BYTES), 0);
        }
        let Received::Bytes(count) = read(self.bytes.get_mut(self.filled..).unwrap_or_default())? else {
            return Ok(None);
        };
        self.filled += count;
        Ok(self.bytes.get(..self.filled))
    }

    /// Keeps what [`Inbox::receive`] gave from an index on.
    pub(crate) fn keep_from(&mut self, taken: usize, scratch: &[u8]) {
        if self.filled > 0 {
            self.bytes.copy_within(taken..self.filled, 0);
            self.filled -= taken;
            return;
        }
        let left = scratch.get(taken..self.in_scratch).unwrap_or_default();
        if self.bytes.len() < left.len() {
            self.bytes.resize(left.len(), 0);
        }
        if let Some(front) = self.bytes.get_mut(..left.len()) {
            front.copy_from_slice(left);
        }
        (self.filled, self.in_scratch) = (left.len(), 0);
    }
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    quickcheck! {
        fn whatever_the_pieces_what_is_taken_is_what_came(pieces: Vec<Vec<u8>>, unit: u8) -> bool {
            let pieces: Vec<Vec<u8>> = pieces.into_iter().map(|piece| piece.into_iter().take(300).collect()).collect();
            let unit = usize::from(unit % 7) + 1;
            let (mut inbox, mut taken, mut scratch) = (Inbox::default(), Vec::new(), [0; 300]);
            for piece in &pieces {
                let read = |into: &mut [u8]| {
                    into[..piece.len()].copy_from_slice(piece);
                    Ok(Received::Bytes(piece.len()))
                };
                let all = inbox.receive(&mut scratch, read).unwrap().unwrap();
                let whole = all.len() / unit * unit;
                taken.extend_from_slice(&all[..whole]);
                inbox.keep_from(whole, &scratch);
            }
            let nothing = |_: &mut [u8]| Ok(Received::Bytes(0));
            taken.extend_from_slice(inbox.receive(&mut scratch, nothing).unwrap().unwrap());
            taken == pieces.concat()
        }
    }
}
