//! Bytes on their way into a socket, and out of one.

use std::io;

use crate::socket::Socket;

/// Memory that a buffer keeps when it is empty.
const KEPT_BYTES: usize = 1024 * 1024;

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
        self.bytes.shrink_to(KEPT_BYTES);
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

/// The beginning of an answer whose end has not come.
#[derive(Default, Debug)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
}

impl Inbox {
    /// Forgets what was received.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES);
    }

    /// All that was received and not taken, with what was received now. Nothing is copied where nothing was left over.
    pub(crate) fn receive<'a>(&'a mut self, piece: &'a [u8]) -> &'a [u8] {
        if self.bytes.is_empty() {
            return piece;
        }
        self.bytes.extend_from_slice(piece);
        &self.bytes
    }

    /// Keeps what [`Inbox::receive`] gave for this piece from an index on.
    pub(crate) fn keep_from(&mut self, taken: usize, piece: &[u8]) {
        if self.bytes.is_empty() {
            self.bytes.extend_from_slice(piece.get(taken..).unwrap_or_default());
        } else if taken == self.bytes.len() {
            self.clear();
        } else {
            self.bytes.drain(..taken);
        }
    }
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    quickcheck! {
        fn whatever_the_pieces_what_is_taken_is_what_came(pieces: Vec<Vec<u8>>, unit: u8) -> bool {
            let unit = usize::from(unit % 7) + 1;
            let (mut inbox, mut taken) = (Inbox::default(), Vec::new());
            for piece in &pieces {
                let all = inbox.receive(piece);
                let whole = all.len() / unit * unit;
                taken.extend_from_slice(&all[..whole]);
                inbox.keep_from(whole, piece);
            }
            taken.extend_from_slice(inbox.receive(&[]));
            taken == pieces.concat()
        }
    }
}
