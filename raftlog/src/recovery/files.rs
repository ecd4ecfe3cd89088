//! A directory's files, sorted out: the segments of the log, and what a fresh one can be made of.

use mesh_base::SegmentNo;
use mesh_base::io::FileId;

use crate::begin::Leftovers;
use crate::options::LogOptions;
use crate::purge::{Discarded, Purge};

/// A segment's file: its number and length in bytes.
pub(super) type SegmentFile = (SegmentNo, u64);

/// The files of a directory that matter here.
#[derive(Debug)]
pub(crate) struct Files {
    /// The segments that follow each other without a gap up to the newest, with their lengths in bytes.
    pub(super) segments: Vec<SegmentFile>,
    leftovers: Leftovers,
    /// Files to be removed.
    discarded: Vec<Discarded>,
}

impl Files {
    /// Sorts a directory's files out.
    pub(crate) fn of(listing: &[(FileId, u64)], options: &LogOptions) -> Self {
        let mut segments: Vec<(SegmentNo, u64)> = Vec::new();
        let mut spares = Vec::new();
        let mut useless = Vec::new();
        for &(file, bytes) in listing {
            match file {
                FileId::Segment(segment) => {
                    if segments.last().is_some_and(|(before, _)| before.next() != segment) {
                        // What is before a gap was let go, or the walk will miss it.
                        useless.extend(segments.drain(..).map(|(gone, _)| FileId::Segment(gone)));
                    }
                    segments.push((segment, bytes));
                }
                FileId::SpareSegment(no) => spares.push((bytes, no)),
                FileId::Identity | FileId::Store | FileId::StagedStore => {}
            }
        }
        let usable = spares.iter().filter(|(bytes, _)| *bytes <= options.segment_bytes).max();
        let spare = usable.map(|(_, no)| *no);
        let next_no = spares.iter().map(|(_, no)| no + 1).max().unwrap_or(1);
        useless.extend(
            spares.iter().filter(|(_, no)| Some(*no) != spare).map(|(_, no)| FileId::SpareSegment(*no)),
        );
        let discarded = useless.into_iter().map(|file| Discarded { file, reuse: None }).collect();
        Self { segments, leftovers: Leftovers { spare, next_no }, discarded }
    }

    /// The newest segment.
    pub(crate) fn newest(&self) -> Option<FileId> {
        self.segments.last().map(|(segment, _)| FileId::Segment(*segment))
    }

    /// The files that a new segment can be made of.
    pub(crate) const fn leftovers(&self) -> Leftovers {
        self.leftovers
    }

    /// Adds segments that are of no use.
    pub(super) fn discard(&mut self, segments: impl Iterator<Item = SegmentNo>) {
        let files = segments.map(FileId::Segment);
        self.discarded.extend(files.map(|file| Discarded { file, reuse: None }));
    }

    /// The removal of what is of no use.
    pub(crate) fn purge(self) -> Purge {
        Purge::of(self.discarded)
    }
}
