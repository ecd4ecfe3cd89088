//! Rebuilds what the log held, batch by batch, and checks on the way that every record fits what came before.

use bytes::Bytes;
use mesh_base::io::FileId;
use mesh_base::{LogIndex, Revision};
use raft::eraftpb::Entry;

use crate::base::{EntryPosition, INDEX_MAX};
use crate::contents::{Contents, Locations, Place, Run};
use crate::error::LogError;
use crate::footer::BatchFacts;
use crate::format::record::{Record, RecordError, Records};
use crate::format::segment::SegmentHeader;

/// The log as far as it was read.
#[derive(Debug)]
pub(crate) struct Replay {
    contents: Contents,
}

impl Replay {
    /// Begins with a segment, and with what is known of the places of entries in older ones.
    pub(crate) fn start(header: &SegmentHeader, locations: Locations) -> Self {
        Self { contents: Contents::new(header.base, &header.terms, locations) }
    }

    /// The log so far.
    pub(crate) const fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Puts the places of entries in older segments before those of this segment's.
    pub(crate) fn follow_places(&mut self, older: Locations) {
        self.contents.follow_places(older);
    }

    /// Puts what older segments left, up to the beginning of this one, before what this one left.
    pub(crate) fn follow(&mut self, older: Self) {
        self.contents.follow(older.contents);
    }

    /// Goes on in a segment. Its base record holds from there on.
    pub(crate) fn enter(&mut self, header: &SegmentHeader) -> Result<(), LogError> {
        let corrupt = |what| LogError::Corrupt { file: FileId::Segment(header.segment), offset: 0, what };
        if self.contents.base.last != header.base.last {
            return Err(corrupt("the segment begins at another entry"));
        }
        if is_of_another_term(&self.contents, &header.base.truncated) {
            return Err(corrupt("the log starts at another term than that of the entry there"));
        }
        self.contents.base = header.base;
        Ok(())
    }

    /// Takes a batch; answers what it adds to its segment.
    pub(crate) fn batch(
        &mut self,
        payload: Bytes,
        place: Place,
        revision_of: fn(&Entry) -> Revision,
    ) -> Result<BatchFacts, LogError> {
        let corrupt =
            |what| LogError::Corrupt { file: FileId::Segment(place.segment), offset: place.offset, what };
        let mut records = Records::new(payload);
        let mut facts = BatchFacts::default();
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
                Record::Entry(entry) => facts.note_entry(LogIndex(entry.index), revision_of(entry)),
                Record::Install(base) => {
                    facts.note_restart(base.position());
                    self.contents.locations.clear();
                }
                Record::HardState(_) | Record::Checkpoint(_) | Record::Truncation { .. } => {}
            }
            self.record(record).map_err(corrupt)?;
        }
        if let Some((first, last)) = facts.entries {
            self.contents.locations.record(Run { first, last, place });
        }
        Ok(facts)
    }

    fn record(&mut self, record: Record) -> Result<(), &'static str> {
        let contents = &mut self.contents;
        contradiction(contents, &record).map_or(Ok(()), Err)?;
        match record {
            Record::Entry(entry) => contents.append(entry),
            Record::HardState(ballot) => contents.set_ballot(ballot),
            Record::Install(base) => contents.restart(base),
            Record::Checkpoint(mark) => contents.note_checkpoint(mark),
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

/// What forbids a record after what came before it. Damage is caught by checksums: what is caught here was written so.
fn contradiction(contents: &Contents, record: &Record) -> Option<&'static str> {
    let base = &contents.base;
    let (start, last) = (base.truncated.index, base.last.index);
    let objections: &[(bool, &'static str)] = match record {
        Record::Entry(entry) => {
            let index = LogIndex(entry.index);
            let is_kept = index <= base.checkpoint.applied;
            return contents.objection(index).or(is_kept.then_some("an entry that a checkpoint contains"));
        }
        Record::HardState(_) => return None,
        Record::Install(at) => &[
            (at.index < start, "a snapshot from before the start of the log"),
            (at.index > INDEX_MAX, "a snapshot behind the end of any log"),
        ],
        Record::Checkpoint(mark) => &[
            (mark.applied > last, "a checkpoint of entries that are not there"),
            (mark.applied < base.checkpoint.applied, "a checkpoint older than the one before"),
        ],
        Record::Truncation { to, .. } => &[
            (to.index > last, "a start behind the end of the log"),
            (to.index < start, "a start before the start of the log"),
            (is_of_another_term(contents, to), "a start of another term than its entry"),
        ],
    };
    objections.iter().find_map(|(is_so, what)| is_so.then_some(*what))
}

/// Whether a position has another term than the entry there. That of an entry before the first read is not known.
fn is_of_another_term(contents: &Contents, at: &EntryPosition) -> bool {
    let last = contents.base.last;
    let is_known = at.index > contents.terms.before().index;
    is_known && contents.terms.term(at.index) != Some(at.term) || at.index == last.index && *at != last
}
