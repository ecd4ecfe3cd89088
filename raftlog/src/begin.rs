//! Makes the segment that a created or recovered log begins to append to.
//!
//! The log exists, or goes on, from the moment that segment's name is durable; a crash before leaves everything as it
//! was but for files that are not part of the log.

use mesh_base::io::{IoError, IoPort, IoQueue, IoToken};

use crate::error::LogError;
use crate::format::segment::SegmentHeader;
use crate::options::LogOptions;
use crate::spare::{Preparation, Prepared, Spares};
use crate::switch::Switch;
use crate::writer::Active;

/// What of the directory a new segment can be made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Leftovers {
    /// A spare file, of a segment's size or shorter. What is in it is of no interest.
    pub(crate) spare: Option<u64>,
    /// The first number that no spare file has.
    pub(crate) next_no: u64,
}

/// What to do when the disk has no room for a whole segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WhenFull {
    Fail,
    /// Make do with a small one, for votes.
    MakeDo,
}

#[derive(Debug)]
enum Step {
    Preparing(Preparation),
    Switching(Switch),
}

/// The segment on its way.
#[derive(Debug)]
pub(crate) struct Beginning {
    header: SegmentHeader,
    spares: Spares,
    small_bytes: u64,
    when_full: WhenFull,
    step: Step,
}

impl Beginning {
    /// Begins to make the segment of this header, out of the leftovers if they serve.
    pub(crate) fn start(
        header: SegmentHeader,
        leftovers: Leftovers,
        when_full: WhenFull,
        options: &LogOptions,
        port: &mut IoPort,
        io: &mut IoQueue,
    ) -> Box<Self> {
        let mut spares = Spares::new(leftovers.next_no, options);
        // Space is taken again even where it seems to be taken: after a crash a length alone does not say so.
        let mut preparation = match leftovers.spare {
            Some(no) => Preparation::of_existing(no, options.segment_bytes, 0),
            None => Preparation::new(spares.number(), options.segment_bytes, 0),
        };
        preparation.submit(port, io);
        let step = Step::Preparing(preparation);
        Box::new(Self { header, spares, small_bytes: options.small_segment_bytes(), when_full, step })
    }

    /// Takes the end of the operation in flight; answers the segment and the spares that are left when it can be
    /// written to.
    pub(crate) fn complete(
        mut self: Box<Self>,
        token: IoToken,
        result: Result<(), IoError>,
        port: &mut IoPort,
        io: &mut IoQueue,
    ) -> Result<Begun, LogError> {
        match &mut self.step {
            Step::Preparing(preparation) => {
                assert!(preparation.owns(token), "a completion of what was never submitted");
                match preparation.complete(result, port, io)? {
                    Prepared::Working => {}
                    Prepared::Ready(spare) => {
                        self.step = Step::Switching(Switch::start(spare, &self.header, port, io));
                    }
                    Prepared::NoSpace => self.make_do(port, io)?,
                }
            }
            Step::Switching(switch) => {
                assert!(switch.owns(token), "a completion of what was never submitted");
                result?;
                if let Some(active) = switch.complete(port, io) {
                    return Ok(Begun::Done(active, self.spares));
                }
                switch.advance(self.header.cut.seq, port, io);
            }
        }
        Ok(Begun::NotYet(self))
    }

    fn make_do(&mut self, port: &mut IoPort, io: &mut IoQueue) -> Result<(), LogError> {
        let Step::Preparing(preparation) = &mut self.step else { return Ok(()) };
        let bytes = preparation.capacity();
        if self.when_full == WhenFull::Fail || bytes <= self.small_bytes {
            return Err(LogError::NoSpace { bytes });
        }
        tracing::warn!(bytes, "no space for a log segment: making do with a small one");
        preparation.shrink_to(self.small_bytes);
        preparation.submit(port, io);
        self.spares.note_full();
        Ok(())
    }
}

/// How far the segment is.
#[derive(Debug)]
pub(crate) enum Begun {
    NotYet(Box<Beginning>),
    Done(Active, Spares),
}
