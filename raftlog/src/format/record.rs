//! The records that make the payload of a batch.
//!
//! A record is kind, flags, length, body. One of an unknown kind is skipped if its flags allow it and is refused
//! otherwise, so that later versions can add kinds of both sorts.

use bytes::Bytes;
use mesh_base::bytesio::{Reader, Writer};
use mesh_base::{CheckpointNo, LogIndex, SegmentNo, Term};
use raft::eraftpb::{Entry, EntryType};

use crate::base::{Ballot, CheckpointMark, EntryPosition, SnapshotBase};

/// Bytes before a record's body: kind, flags, two reserved, length.
pub(crate) const RECORD_HEADER_BYTES: usize = 8;
const ENTRY_FIELDS_BYTES: usize = 24;

const KIND_ENTRY: u8 = 1;
const KIND_HARD_STATE: u8 = 2;
const KIND_INSTALL: u8 = 3;
const KIND_CHECKPOINT: u8 = 4;
const KIND_TRUNCATION: u8 = 5;

const FLAG_MAY_IGNORE: u8 = 1;

/// A record.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Record {
    /// An entry; it replaces those of its index and above.
    Entry(Entry),
    HardState(Ballot),
    /// The log starts anew at a received snapshot.
    Install(SnapshotBase),
    /// A checkpoint of the page store is durable.
    Checkpoint(CheckpointMark),
    /// The log starts after this entry, in this segment; what is before is on its way to reuse.
    Truncation {
        to: EntryPosition,
        first_segment: SegmentNo,
    },
}

/// Why records cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RecordError {
    /// They do not follow the format.
    Malformed,
    /// A kind that this version does not know and that may not be ignored.
    UnknownKind(u8),
}

/// Bytes of an entry's record.
pub(crate) fn entry_record_bytes(entry: &Entry) -> usize {
    RECORD_HEADER_BYTES + ENTRY_FIELDS_BYTES + entry.context.len() + entry.data.len()
}

/// Bytes of a record that is not an entry, at most.
pub(crate) const SMALL_RECORD_BYTES_MAX: usize = RECORD_HEADER_BYTES + 24;

/// Appends an entry.
pub(crate) fn put_entry(to: &mut Vec<u8>, entry: &Entry) {
    put_header(to, KIND_ENTRY, entry_record_bytes(entry) - RECORD_HEADER_BYTES);
    to.put_u64(entry.index);
    to.put_u64(entry.term);
    to.put_u8(type_byte(entry.entry_type));
    to.put_bytes(&[0; 3]);
    to.put_u32(length(entry.context.len()));
    to.put_bytes(&entry.context);
    to.put_bytes(&entry.data);
}

/// Appends any record.
pub(crate) fn put(to: &mut Vec<u8>, record: &Record) {
    match record {
        Record::Entry(entry) => put_entry(to, entry),
        Record::HardState(ballot) => {
            put_numbers(to, KIND_HARD_STATE, &[ballot.term.0, ballot.vote, ballot.commit.0]);
        }
        Record::Install(base) => {
            put_numbers(to, KIND_INSTALL, &[base.index.0, base.term.0, base.checkpoint.0]);
        }
        Record::Checkpoint(mark) => put_numbers(to, KIND_CHECKPOINT, &[mark.no.0, mark.applied.0]),
        Record::Truncation { to: at, first_segment } => {
            put_numbers(to, KIND_TRUNCATION, &[at.index.0, at.term.0, first_segment.0]);
        }
    }
}

fn put_numbers(to: &mut Vec<u8>, kind: u8, numbers: &[u64]) {
    assert!(RECORD_HEADER_BYTES + 8 * numbers.len() <= SMALL_RECORD_BYTES_MAX);
    put_header(to, kind, 8 * numbers.len());
    numbers.iter().for_each(|number| to.put_u64(*number));
}

fn put_header(to: &mut Vec<u8>, kind: u8, body_bytes: usize) {
    to.put_u8(kind);
    to.put_u8(0);
    to.put_u16(0);
    to.put_u32(length(body_bytes));
}

fn length(bytes: usize) -> u32 {
    let length = u32::try_from(bytes).unwrap_or(u32::MAX);
    assert!(length < u32::MAX, "a record fits a segment");
    length
}

const fn type_byte(kind: EntryType) -> u8 {
    match kind {
        EntryType::EntryNormal => 0,
        EntryType::EntryConfChange => 1,
        EntryType::EntryConfChangeV2 => 2,
    }
}

/// Reads the records of a payload in order. Entries share the payload's memory.
pub(crate) struct Records {
    payload: Bytes,
}

impl Records {
    pub(crate) const fn new(payload: Bytes) -> Self {
        Self { payload }
    }

    /// The next record that this version knows, or `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Record>, RecordError> {
        while !self.payload.is_empty() {
            let mut fields = Reader::new(&self.payload);
            let (kind, flags, length) = head(&mut fields).ok_or(RecordError::Malformed)?;
            if fields.rest().len() < length {
                return Err(RecordError::Malformed);
            }
            let body = self.payload.split_to(RECORD_HEADER_BYTES + length).split_off(RECORD_HEADER_BYTES);
            match known(kind, &body) {
                Ok(record) => return record.map(Some).ok_or(RecordError::Malformed),
                Err(Unknown) if flags & FLAG_MAY_IGNORE == 0 => return Err(RecordError::UnknownKind(kind)),
                Err(Unknown) => {}
            }
        }
        Ok(None)
    }
}

struct Unknown;

fn head(fields: &mut Reader<'_>) -> Option<(u8, u8, usize)> {
    let (kind, flags, _reserved) = (fields.u8()?, fields.u8()?, fields.u16()?);
    Some((kind, flags, fields.u32()? as usize))
}

/// The record of a known kind; `None` inside if its body does not follow the format.
fn known(kind: u8, body: &Bytes) -> Result<Option<Record>, Unknown> {
    let mut fields = Reader::new(body);
    let record = match kind {
        KIND_ENTRY => return Ok(entry(body)),
        KIND_HARD_STATE => numbers(&mut fields).map(|[term, vote, commit]| {
            Record::HardState(Ballot { term: Term(term), vote, commit: LogIndex(commit) })
        }),
        KIND_INSTALL => numbers(&mut fields).map(|[index, term, checkpoint]| {
            Record::Install(SnapshotBase {
                index: LogIndex(index),
                term: Term(term),
                checkpoint: CheckpointNo(checkpoint),
            })
        }),
        KIND_CHECKPOINT => numbers(&mut fields).map(|[no, applied]| {
            Record::Checkpoint(CheckpointMark { no: CheckpointNo(no), applied: LogIndex(applied) })
        }),
        KIND_TRUNCATION => numbers(&mut fields).map(|[index, term, segment]| Record::Truncation {
            to: EntryPosition { index: LogIndex(index), term: Term(term) },
            first_segment: SegmentNo(segment),
        }),
        _ => return Err(Unknown),
    };
    Ok(record.filter(|_| fields.is_empty()))
}

fn numbers<const N: usize>(fields: &mut Reader<'_>) -> Option<[u64; N]> {
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = fields.u64()?;
    }
    Some(numbers)
}

fn entry(body: &Bytes) -> Option<Record> {
    let mut fields = Reader::new(body);
    let (index, term) = (fields.u64()?, fields.u64()?);
    let entry_type = match fields.u8()? {
        0 => EntryType::EntryNormal,
        1 => EntryType::EntryConfChange,
        2 => EntryType::EntryConfChangeV2,
        _ => return None,
    };
    let _reserved = fields.array::<3>()?;
    let context_bytes = fields.u32()? as usize;
    let context = body.slice_ref(fields.bytes(context_bytes)?);
    let data = body.slice_ref(fields.rest());
    Some(Record::Entry(Entry { entry_type, term, index, data, context, ..Entry::default() }))
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    fn all(payload: Vec<u8>) -> Result<Vec<Record>, RecordError> {
        let mut records = Records::new(payload.into());
        let mut read = Vec::new();
        while let Some(record) = records.next()? {
            read.push(record);
        }
        Ok(read)
    }

    quickcheck! {
        fn records_are_read_as_they_were_put(numbers: (u64, u64, u64), data: Vec<u8>, context: Vec<u8>) -> bool {
            let (a, b, c) = numbers;
            let entry = Entry {
                entry_type: EntryType::EntryConfChangeV2,
                index: a,
                term: b,
                data: data.into(),
                context: context.into(),
                ..Entry::default()
            };
            let records = vec![
                Record::HardState(Ballot { term: Term(a), vote: b, commit: LogIndex(c) }),
                Record::Entry(entry),
                Record::Install(SnapshotBase { index: LogIndex(a), term: Term(b), checkpoint: CheckpointNo(c) }),
                Record::Checkpoint(CheckpointMark { no: CheckpointNo(a), applied: LogIndex(b) }),
                Record::Truncation {
                    to: EntryPosition { index: LogIndex(a), term: Term(b) },
                    first_segment: SegmentNo(c),
                },
            ];
            let mut payload = Vec::new();
            records.iter().for_each(|record| put(&mut payload, record));
            all(payload) == Ok(records)
        }

        fn any_bytes_are_records_or_an_error(bytes: Vec<u8>) -> bool {
            let _ = all(bytes);
            true
        }
    }

    #[test]
    fn an_unknown_record_is_skipped_only_if_it_allows_that() {
        let known = Record::Checkpoint(CheckpointMark::default());
        let mut payload = vec![200, FLAG_MAY_IGNORE, 0, 0, 3, 0, 0, 0, 1, 2, 3];
        put(&mut payload, &known);
        assert_eq!(all(payload.clone()), Ok(vec![known]));
        payload[1] = 0;
        assert_eq!(all(payload), Err(RecordError::UnknownKind(200)));
    }

    #[test]
    fn a_record_longer_than_its_payload_is_malformed() {
        let mut payload = Vec::new();
        put(&mut payload, &Record::Checkpoint(CheckpointMark::default()));
        payload.truncate(payload.len() - 1);
        assert_eq!(all(payload), Err(RecordError::Malformed));
    }
}
