//! Rebuilds what the log held, batch by batch, and checks on the way that every record fits what came before.

use bytes::Bytes;
use mesh_base::io::FileId;
use mesh_base::{LogIndex, Revision};
use raft::eraftpb::Entry;

use crate::base::EntryPosition;
use crate::contents::{Contents, Place, Run};
use crate::error::LogError;
use crate::footer::RevisionRange;
use crate::format::record::{Record, RecordError, Records};
use crate::format::segment::SegmentHeader;

/// The log as far as it was read.
#[derive(Debug)]
pub(crate) struct Replay {
    contents: Contents,
}

impl Replay {
    /// Begins with the oldest segment there is.
    pub(crate) const fn start(header: &SegmentHeader) -> Self {
        Self { contents: Contents::new(header.base) }
    }

    /// Goes on in a segment. Its base record holds from there on.
    pub(crate) fn enter(&mut self, header: &SegmentHeader) -> Result<(), LogError> {
        let base = &mut self.contents.base;
        if base.last != header.base.last {
            let file = FileId::Segment(header.segment);
            return Err(LogError::Corrupt { file, offset: 0, what: "the segment begins at another entry" });
        }
        *base = header.base;
        Ok(())
    }

    /// Takes a batch; answers the revisions that its entries assign.
    pub(crate) fn batch(
        &mut self,
        payload: Bytes,
        place: Place,
        revision_of: fn(&Entry) -> Revision,
    ) -> Result<Option<RevisionRange>, LogError> {
        let corrupt =
            |what| LogError::Corrupt { file: FileId::Segment(place.segment), offset: place.offset, what };
        let mut records = Records::new(payload);
        let mut entries: Option<(LogIndex, LogIndex)> = None;
        let mut revisions = None;
        loop {
            let record = records.next().map_err(|error| match error {
                RecordError::Malformed => corrupt("a record that does not follow the format"),
                RecordError::UnknownKind(kind) => LogError::Unsupported {
                    file: FileId::Segment(place.segment),
                    offset: place.offset,
                    what: "record kind",
                    value: u64::from(kind),
                },
            })?;
            let Some(record) = record else { break };
            match &record {
                Record::Entry(entry) => {
                    let index = LogIndex(entry.index);
                    RevisionRange::widen(&mut revisions, revision_of(entry));
                    entries = Some((entries.map_or(index, |(first, _)| first.min(index)), index));
                }
                Record::Install(_) => {
                    entries = None;
                    self.contents.locations.clear();
                }
                Record::HardState(_) | Record::Checkpoint(_) | Record::Truncation { .. } => {}
            }
            self.record(record).map_err(corrupt)?;
        }
        if let Some((first, last)) = entries {
            self.contents.locations.record(Run { first, last, place });
        }
        Ok(revisions)
    }

    fn record(&mut self, record: Record) -> Result<(), &'static str> {
        let contents = &mut self.contents;
        match record {
            Record::Entry(entry) => {
                contents.objection(LogIndex(entry.index)).map_or(Ok(()), Err)?;
                contents.append(entry);
            }
            Record::HardState(ballot) => contents.set_ballot(ballot),
            Record::Install(base) => contents.restart(base),
            Record::Checkpoint(mark) if mark.applied > contents.base.last.index => {
                return Err("a checkpoint of entries that are not there");
            }
            Record::Checkpoint(mark) => contents.note_checkpoint(mark),
            Record::Truncation { to, .. } if to.index > contents.base.last.index => {
                return Err("a start behind the end of the log");
            }
            Record::Truncation { to, first_segment } => contents.truncate(to, first_segment),
        }
        Ok(())
    }

    /// The log, with the commit index brought within it, if all entries behind its start were read.
    pub(crate) fn finish(mut self) -> Option<Contents> {
        let base = &mut self.contents.base;
        base.ballot.commit = base.commit_within_log();
        let truncated: EntryPosition = base.truncated;
        let whole = self.contents.terms.before().index <= truncated.index;
        if whole {
            self.contents.terms.trim_to(truncated);
            self.contents.locations.trim_to(truncated.index);
            self.contents.tail.trim_to(self.contents.base.checkpoint.applied.max(truncated.index));
        }
        whole.then_some(self.contents)
    }
}
