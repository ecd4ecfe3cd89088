//! Lets go of old segments: first the record that the log starts later is made durable, then the files get their new
//! names or are removed, then the directory is made durable, and only then may a file be written again.
//!
//! Deliberately absent: the decision which segments may go. The log makes it.

use mesh_base::io::{FileId, IoOp, IoPort, IoQueue, IoToken};
use mesh_base::{BatchSeq, LogIndex, SegmentNo};

use crate::spare::Spare;

/// A file that is no longer part of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Discarded {
    pub(crate) file: FileId,
    /// What it can be reused as; none if it is to be removed.
    pub(crate) reuse: Option<Spare>,
}

/// A segment that is complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sealed {
    pub(crate) segment: SegmentNo,
    pub(crate) salt: u64,
    /// The last entry when it began.
    pub(crate) after: LogIndex,
    /// Bytes of the file.
    pub(crate) capacity: u64,
    /// Up to here the file was written.
    pub(crate) written_to: u64,
}

#[derive(Debug)]
enum Step {
    Idle,
    /// The truncation is in a batch that is not durable yet.
    Recording(BatchSeq),
    Moving(Vec<IoToken>),
    Syncing(IoToken),
}

/// The purge under way, if any.
#[derive(Debug)]
pub(crate) struct Purge {
    step: Step,
    files: Vec<Discarded>,
}

impl Purge {
    /// Nothing under way but the files that a recovery found to be no longer part of the log.
    pub(crate) const fn of(files: Vec<Discarded>) -> Self {
        Self { step: Step::Idle, files }
    }

    /// Whether another purge can begin.
    pub(crate) const fn is_idle(&self) -> bool {
        matches!(self.step, Step::Idle) && self.files.is_empty()
    }

    /// Begins to let go of segments, whose truncation is recorded in a batch.
    pub(crate) fn begin(&mut self, recorded_in: BatchSeq, files: Vec<Discarded>) {
        assert!(self.is_idle() && !files.is_empty());
        self.step = Step::Recording(recorded_in);
        self.files = files;
    }

    /// Spares that will come of it for certain, when batches up to `submitted` are on their way. A truncation that is
    /// recorded in a later one promises nothing: that batch may itself wait for a spare.
    pub(crate) fn spares_expected(&self, submitted: BatchSeq) -> usize {
        if matches!(self.step, Step::Recording(seq) if seq > submitted) {
            return 0;
        }
        self.files.iter().filter(|file| file.reuse.is_some()).count()
    }

    /// Moves the files once the truncation is durable and nobody reads them any more.
    pub(crate) fn advance(
        &mut self,
        durable: BatchSeq,
        is_read: impl Fn(FileId) -> bool,
        port: &mut IoPort,
        io: &mut IoQueue,
    ) {
        let may_move = match self.step {
            Step::Idle => !self.files.is_empty(),
            Step::Recording(seq) => seq <= durable,
            Step::Moving(_) | Step::Syncing(_) => false,
        };
        if may_move && !self.files.iter().any(|discarded| is_read(discarded.file)) {
            let moves = self.files.iter().map(|discarded| {
                let op = match discarded.reuse {
                    Some(spare) => IoOp::Rename { from: discarded.file, to: spare.file() },
                    None => IoOp::Remove { file: discarded.file },
                };
                port.submit(io, op)
            });
            self.step = Step::Moving(moves.collect());
        }
    }

    /// Takes the completion of an operation, if it is this purge's; answers the spares when they can be used.
    pub(crate) fn complete(
        &mut self,
        token: IoToken,
        port: &mut IoPort,
        io: &mut IoQueue,
    ) -> Option<Vec<Spare>> {
        match &mut self.step {
            Step::Moving(tokens) if tokens.contains(&token) => {
                tokens.retain(|other| *other != token);
                if tokens.is_empty() {
                    self.step = Step::Syncing(port.submit(io, IoOp::SyncDirectory));
                }
                Some(Vec::new())
            }
            Step::Syncing(sync) if *sync == token => {
                self.step = Step::Idle;
                Some(std::mem::take(&mut self.files).into_iter().filter_map(|file| file.reuse).collect())
            }
            _ => None,
        }
    }
}
