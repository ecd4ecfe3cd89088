//! Frames that wait to be sent. Small ones are gathered in one piece of memory, large ones are kept as they are.
//!
//! The order of requests on a connection means nothing, so large frames may go after small ones that came later.

use std::collections::VecDeque;
use std::io;

use bytes::{Buf, Bytes};
use tokio::io::AsyncWriteExt;

/// Memory for small frames that is kept between writes.
const KEPT_BYTES: usize = 256 * 1024;

/// Frames that wait to be sent.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    small: Vec<u8>,
    large: VecDeque<Bytes>,
}

impl Outbox {
    /// Where small frames are appended.
    pub(super) const fn small(&mut self) -> &mut Vec<u8> {
        &mut self.small
    }

    /// Appends a large frame.
    pub(super) fn push(&mut self, frame: Bytes) {
        self.large.push_back(frame);
    }

    /// Whether there is nothing to send.
    pub(super) fn is_empty(&self) -> bool {
        self.small.is_empty() && self.large.is_empty()
    }

    /// Sends all, and is empty then: with one write, if the socket takes it.
    pub(super) async fn write_to(&mut self, socket: &mut (impl AsyncWriteExt + Unpin)) -> io::Result<()> {
        if self.large.is_empty() {
            socket.write_all(&self.small).await?;
        } else {
            let mut all = Pieces { small: &self.small, large: std::mem::take(&mut self.large) };
            socket.write_all_buf(&mut all).await?;
        }
        self.small.clear();
        self.small.shrink_to(KEPT_BYTES);
        Ok(())
    }
}

/// All that is to be sent, as one buffer of many pieces.
struct Pieces<'a> {
    small: &'a [u8],
    large: VecDeque<Bytes>,
}

impl Buf for Pieces<'_> {
    fn remaining(&self) -> usize {
        self.small.len() + self.large.iter().map(Bytes::len).sum::<usize>()
    }

    fn chunk(&self) -> &[u8] {
        match self.large.front() {
            Some(front) if self.small.is_empty() => front,
            _ => self.small,
        }
    }

    fn chunks_vectored<'s>(&'s self, slices: &mut [io::IoSlice<'s>]) -> usize {
        let small = Some(self.small).filter(|small| !small.is_empty());
        let pieces = small.into_iter().chain(self.large.iter().map(Bytes::as_ref));
        slices.iter_mut().zip(pieces).map(|(slice, piece)| *slice = io::IoSlice::new(piece)).count()
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.remaining(), "more was sent than there is");
        let of_small = count.min(self.small.len());
        self.small.advance(of_small);
        count -= of_small;
        while let Some(front) = self.large.front_mut() {
            let of_front = count.min(front.len());
            front.advance(of_front);
            count -= of_front;
            if !front.is_empty() {
                break;
            }
            self.large.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    quickcheck! {
        fn pieces_are_sent_whole_and_in_order_however_little_the_socket_takes(
            small: Vec<u8>,
            large: Vec<Vec<u8>>,
            steps: Vec<u8>
        ) -> bool {
            let large: VecDeque<_> = large.into_iter().filter(|piece| !piece.is_empty()).map(Bytes::from).collect();
            let mut expected = small.clone();
            large.iter().for_each(|piece| expected.extend_from_slice(piece));
            let mut pieces = Pieces { small: &small, large };
            let mut sent = Vec::new();
            let mut steps = steps.iter().map(|&step| usize::from(step).max(1)).chain(std::iter::repeat(7));
            while pieces.has_remaining() {
                let mut slices = [io::IoSlice::new(&[]); 3];
                let count = pieces.chunks_vectored(&mut slices);
                let offered: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect();
                let step = steps.next().unwrap().min(offered.len());
                sent.extend_from_slice(&offered[..step]);
                pieces.advance(step);
            }
            sent == expected
        }
    }
}
