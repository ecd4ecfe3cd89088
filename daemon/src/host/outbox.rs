//! Frames on their way into a socket: many of them with one write.
//!
//! Small frames are copied together first, which costs less than handing the kernel a list of them.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};

use bytes::{Buf, Bytes};

/// Frames up to this length are copied together.
const SMALL_BYTES: usize = 4096;

/// How far a write came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Flushed {
    /// Everything is out.
    All,
    /// The socket takes no more for now.
    Blocked,
}

/// A queue of frames, the first of them perhaps written in part.
#[derive(Default, Debug)]
pub(super) struct Outbox {
    frames: VecDeque<Bytes>,
    bytes: usize,
}

impl Outbox {
    /// Adds a frame.
    pub(super) fn push(&mut self, frame: Bytes) {
        if !frame.is_empty() {
            self.bytes += frame.len();
            self.frames.push_back(frame);
        }
    }

    /// Bytes that are not written yet.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether everything was written.
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Forgets what was not written.
    pub(super) fn clear(&mut self) {
        self.frames.clear();
        self.bytes = 0;
    }

    /// Writes until nothing is left or the socket takes no more. The scratch memory is for copying frames together.
    ///
    /// # Errors
    /// The connection is of no use any more.
    pub(super) fn flush(&mut self, to: &mut impl Write, scratch: &mut [u8]) -> io::Result<Flushed> {
        while !self.frames.is_empty() {
            match self.write(to, scratch) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.advance(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Flushed::Blocked),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Flushed::All)
    }

    fn write(&self, to: &mut impl Write, scratch: &mut [u8]) -> io::Result<usize> {
        let mut together = 0;
        let mut count = 0;
        for frame in self.frames.iter().take_while(|frame| frame.len() <= SMALL_BYTES) {
            let Some(place) = scratch.get_mut(together..together + frame.len()) else { break };
            place.copy_from_slice(frame);
            together += frame.len();
            count += 1;
        }
        match (self.frames.front(), scratch.get(..together)) {
            (_, Some(together)) if count > 1 => to.write(together),
            (first, _) => first.map_or(Ok(0), |first| to.write(first)),
        }
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.bytes, "more was written than there is");
        self.bytes -= count;
        while let Some(frame) = self.frames.front_mut() {
            if count < frame.len() {
                frame.advance(count);
                return;
            }
            count -= frame.len();
            self.frames.pop_front();
        }
        assert_eq!(count, 0);
    }
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    /// Takes a few bytes at a time, and refuses every other write.
    struct Reluctant {
        taken: Vec<u8>,
        at_a_time: usize,
        refuse: bool,
    }

    impl Write for Reluctant {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.refuse = !self.refuse;
            if self.refuse {
                return Err(ErrorKind::WouldBlock.into());
            }
            let count = bytes.len().min(self.at_a_time);
            self.taken.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    quickcheck! {
        fn frames_come_out_whole_and_in_order_however_little_the_socket_takes(frames: Vec<Vec<u8>>, at_a_time: u8) -> bool {
            let mut outbox = Outbox::default();
            let mut socket = Reluctant { taken: Vec::new(), at_a_time: usize::from(at_a_time) + 1, refuse: false };
            frames.iter().for_each(|frame| outbox.push(frame.clone().into()));
            let expected = frames.concat();
            assert_eq!(outbox.bytes(), expected.len());
            while outbox.flush(&mut socket, &mut [0; 64]).unwrap() == Flushed::Blocked {
                assert_eq!(outbox.bytes(), expected.len() - socket.taken.len());
            }
            outbox.is_empty() && outbox.bytes() == 0 && socket.taken == expected
        }
    }
}
