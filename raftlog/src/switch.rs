//! Makes a spare file a segment: header, name, directory, each durable before the next begins.
//!
//! Invariant: the file takes the segment's name only when its header is durable and every batch up to the header's cut
//! is durable. So whatever a crash leaves under a segment's name is whole.

use bytes::Bytes;
use mesh_base::io::{FileId, IoOp, IoPort, IoQueue, IoToken};
use mesh_base::limits::SECTOR_BYTES;
use mesh_base::prng::Prng;
use mesh_base::{BatchSeq, SegmentNo};

use crate::format::segment::SegmentHeader;
use crate::spare::Spare;
use crate::writer::Active;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Header,
    /// The header is durable; batches before the cut are not yet.
    Waiting,
    Rename,
    SyncDirectory,
}

/// A segment on its way.
#[derive(Debug)]
pub(crate) struct Switch {
    active: Active,
    spare: Spare,
    cut: BatchSeq,
    step: Step,
    token: Option<IoToken>,
}

impl Switch {
    /// Begins to make the spare the segment of this header.
    pub(crate) fn start(spare: Spare, header: &SegmentHeader, port: &mut IoPort, io: &mut IoQueue) -> Self {
        let data = Bytes::from(header.encode());
        let offset = data.len() as u64;
        assert_eq!(offset, SECTOR_BYTES as u64);
        let token = port.submit(io, IoOp::Write { file: spare.file(), offset: 0, data });
        let active = Active {
            segment: header.segment,
            salt: header.salt,
            after: header.base.last.index,
            offset,
            capacity: spare.capacity,
            zeroed_to: spare.zeroed_to.max(offset),
        };
        Self { active, spare, cut: header.cut.seq, step: Step::Header, token: Some(token) }
    }

    /// Whether the operation is this switch's.
    pub(crate) fn owns(&self, token: IoToken) -> bool {
        self.token == Some(token)
    }

    /// Takes the completion of the operation in flight; answers the segment when it can be written to.
    pub(crate) fn complete(&mut self, port: &mut IoPort, io: &mut IoQueue) -> Option<Active> {
        self.token = None;
        match self.step {
            Step::Header => self.step = Step::Waiting,
            Step::Rename => {
                self.step = Step::SyncDirectory;
                self.token = Some(port.submit(io, IoOp::SyncDirectory));
            }
            Step::SyncDirectory => return Some(self.active),
            Step::Waiting => {}
        }
        None
    }

    /// Gives the file its name, once its header and all before the cut are durable. `durable` is what is durable of a
    /// segment before it in which nothing is in flight.
    pub(crate) fn advance(&mut self, durable: BatchSeq, port: &mut IoPort, io: &mut IoQueue) {
        assert!(durable <= self.cut, "nothing follows the cut yet");
        if self.step == Step::Waiting && durable == self.cut {
            let (from, to) = (self.spare.file(), FileId::Segment(self.active.segment));
            self.step = Step::Rename;
            self.token = Some(port.submit(io, IoOp::Rename { from, to }));
        }
    }
}

/// A salt that no use of any file of this log had before: a draw, mixed with the segment's number and with the salt of
/// the segment before, so that not even a generator that starts over repeats one.
pub(crate) fn draw_salt(prng: &mut Prng, segment: SegmentNo, previous: u64) -> u64 {
    let numbered = Prng::new(prng.next_u64() ^ segment.get()).next_u64();
    Prng::new(numbered ^ previous.rotate_left(1)).next_u64()
}
