//! The header of a segment: its base record, one sector that says whose the log is, where it stood when the segment
//! began, and which batches of older segments are dead.
//!
//! It also holds what is known of the segment before without reading it, and the terms of the log's entries: so a recovery
//! need not walk what no checkpoint asks for.
//!
//! Invariant: a file bears a segment's name only after its header was durable and after every batch up to the cut was
//! durable. So a segment without a valid header is damage, and so is a batch missing below the cut.

use mesh_base::bytesio::{Reader, Writer};
use mesh_base::checksum::{ChecksumAlgorithm, crc32};
use mesh_base::limits::{LOG_FOOTER_POINTS_MAX, LOG_HEADER_TERM_RUNS_MAX, SECTOR_BYTES};
use mesh_base::{
    BatchSeq, CheckpointNo, ClusterId, LogIndex, ReplicaId, ReplicaIdentity, Revision, SegmentNo, ShardId,
    Term,
};

use super::{CODEC_NONE, Encoding, FORMAT_VERSION, KEY_NONE, READER_VERSION_MIN, TAG_BYTES};
use crate::base::{Ballot, Base, CheckpointMark, EntryPosition, SnapshotBase};
use crate::contents::TermRuns;
use crate::footer::{Footer, Point, Points, RevisionRange};

const MAGIC: [u8; 8] = *b"MESHLOG\0";
/// Where the checksum is: after magic and two versions.
const CRC_AT: usize = 12;
/// Bytes of the fields; the rest of the sector is zero.
const FIELDS_BYTES: usize = 3064;
/// Bytes of a point of the footer: entry, sector.
const POINT_BYTES: usize = 8 + 4;
/// Bytes of a run of terms: first entry, term.
const TERM_RUN_BYTES: usize = 8 + 8;

const _: () = {
    let start = 8 + 2 + 2 + 4;
    let identity = 16 + 2 + 1 + 1 + 4 + 8;
    let segment = 8 + 8 + 8 + 4 + 4;
    let base = 3 * 8 + 2 * 8 + 2 * 8 + 8 + 2 * 8 + 8 + 3 * 8;
    let footer = 4 * 8 + LOG_FOOTER_POINTS_MAX * POINT_BYTES;
    let (terms, counts) = (LOG_HEADER_TERM_RUNS_MAX * TERM_RUN_BYTES, 4 + 4);
    assert!(start + identity + segment + base + TAG_BYTES + counts + footer + terms == FIELDS_BYTES);
    assert!(FIELDS_BYTES <= SECTOR_BYTES);
};

/// The batch after which a segment begins. Batches of older segments behind it are dead.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Cut {
    pub(crate) seq: BatchSeq,
    pub(crate) crc: u32,
}

/// What the first sector of a segment says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SegmentHeader {
    pub(crate) encoding: Encoding,
    pub(crate) identity: ReplicaIdentity,
    pub(crate) segment: SegmentNo,
    /// Tells this use of the file from every other: its batches carry it.
    pub(crate) salt: u64,
    pub(crate) cut: Cut,
    /// What the segment before holds.
    pub(crate) footer: Footer,
    /// The log as of the cut.
    pub(crate) base: Base,
    /// The terms of its entries, as far back as there is room.
    pub(crate) terms: TermRuns,
}

/// The log as of a batch: what a segment that begins after it says.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub(crate) cut: Cut,
    /// What the segment before holds.
    pub(crate) footer: Footer,
    pub(crate) base: Base,
    pub(crate) terms: TermRuns,
}

impl SegmentHeader {
    /// The header of a segment that begins now.
    pub(crate) fn new(identity: ReplicaIdentity, segment: SegmentNo, salt: u64, standing: Standing) -> Self {
        let Standing { cut, footer, base, terms } = standing;
        assert!(terms.0.len() <= LOG_HEADER_TERM_RUNS_MAX && terms.fit(base.truncated, base.last));
        let encoding = Encoding {
            reader_version_min: READER_VERSION_MIN,
            checksum: ChecksumAlgorithm::Crc32 as u8,
            codec: CODEC_NONE,
            key: KEY_NONE,
        };
        Self { encoding, identity, segment, salt, cut, footer, base, terms }
    }

    /// The sector.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut before = Vec::with_capacity(SECTOR_BYTES);
        before.put_bytes(&MAGIC);
        before.put_u16(FORMAT_VERSION);
        before.put_u16(self.encoding.reader_version_min);
        assert_eq!(before.len(), CRC_AT);
        let mut after = Vec::with_capacity(SECTOR_BYTES);
        self.put_place(&mut after);
        put_base(&mut after, &self.base);
        after.put_bytes(&[0; TAG_BYTES]);
        put_footer(&mut after, &self.footer, self.terms.0.len());
        put_terms(&mut after, &self.terms);
        assert_eq!(CRC_AT + 4 + after.len(), FIELDS_BYTES);
        after.pad_to(SECTOR_BYTES - CRC_AT - 4);
        let crc = crc32(&[&before, &[0; 4], &after]);
        before.put_u32(crc);
        before.put_bytes(&after);
        assert_eq!(before.len(), SECTOR_BYTES);
        before
    }

    fn put_place(&self, to: &mut Vec<u8>) {
        to.put_bytes(&self.identity.cluster.0);
        to.put_u16(self.identity.shard.0);
        to.put_u8(self.encoding.checksum);
        to.put_u8(self.encoding.codec);
        to.put_u32(self.encoding.key);
        to.put_u64(self.identity.replica.0);
        to.put_u64(self.segment.0);
        to.put_u64(self.salt);
        to.put_u64(self.cut.seq.0);
        to.put_u32(self.cut.crc);
        to.put_u32(0);
    }

    /// The header that a sector holds, if it holds an intact one.
    pub(crate) fn decode(sector: &[u8]) -> Option<Self> {
        let sector = sector.first_chunk::<SECTOR_BYTES>()?;
        let mut fields = Reader::new(sector);
        if fields.array()? != MAGIC {
            return None;
        }
        let (_version, reader_version_min, crc) = (fields.u16()?, fields.u16()?, fields.u32()?);
        if crc != crc32(&[sector.get(..CRC_AT)?, &[0; 4], fields.rest()]) {
            return None;
        }
        let (cluster, shard) = (ClusterId(fields.array()?), ShardId(fields.u16()?));
        let (checksum, codec, key) = (fields.u8()?, fields.u8()?, fields.u32()?);
        let replica = ReplicaId(fields.u64()?);
        let (segment, salt) = (SegmentNo(fields.u64()?), fields.u64()?);
        let cut = Cut { seq: BatchSeq(fields.u64()?), crc: fields.u32()? };
        let _reserved = fields.u32()?;
        let base = base(&mut fields)?;
        let _tag = fields.bytes(TAG_BYTES)?;
        let (footer, term_runs) = footer(&mut fields)?;
        Some(Self {
            encoding: Encoding { reader_version_min, checksum, codec, key },
            identity: ReplicaIdentity { cluster, shard, replica },
            segment,
            salt,
            cut,
            footer,
            base,
            terms: terms(&mut fields, term_runs)?,
        })
    }
}

/// The footer, and between it and its points their number and that of the term runs that follow them.
fn put_footer(to: &mut Vec<u8>, footer: &Footer, term_runs: usize) {
    let none = RevisionRange { least: Revision::ZERO, greatest: Revision::ZERO };
    let range = footer.revisions.unwrap_or(none);
    to.put_u64(range.least.0);
    to.put_u64(range.greatest.0);
    to.put_u64(footer.digest);
    to.put_u64(footer.end);
    let points = footer.points.as_slice();
    to.put_u32(count(points.len(), LOG_FOOTER_POINTS_MAX));
    to.put_u32(count(term_runs, LOG_HEADER_TERM_RUNS_MAX));
    let end = to.len() + LOG_FOOTER_POINTS_MAX * POINT_BYTES;
    for point in points {
        to.put_u64(point.first.0);
        to.put_u32(point.sector);
    }
    to.pad_to(end);
}

fn footer(fields: &mut Reader<'_>) -> Option<(Footer, usize)> {
    let range = RevisionRange { least: Revision(fields.u64()?), greatest: Revision(fields.u64()?) };
    let revisions = (range.greatest > Revision::ZERO).then_some(range);
    let (digest, end) = (fields.u64()?, fields.u64()?);
    let (points, term_runs) = (fields.u32()? as usize, fields.u32()? as usize);
    let mut slots = Reader::new(fields.bytes(LOG_FOOTER_POINTS_MAX * POINT_BYTES)?);
    let points = (0..points).map(|_| Some(Point { first: LogIndex(slots.u64()?), sector: slots.u32()? }));
    let points = Points::of(points.collect::<Option<_>>()?)?;
    Some((Footer { revisions, digest, end, points }, term_runs))
}

fn put_terms(to: &mut Vec<u8>, terms: &TermRuns) {
    let end = to.len() + LOG_HEADER_TERM_RUNS_MAX * TERM_RUN_BYTES;
    for (first, term) in &terms.0 {
        to.put_u64(first.0);
        to.put_u64(term.0);
    }
    to.pad_to(end);
}

fn terms(fields: &mut Reader<'_>, runs: usize) -> Option<TermRuns> {
    let mut slots = Reader::new(fields.bytes(LOG_HEADER_TERM_RUNS_MAX * TERM_RUN_BYTES)?);
    let runs = (0..runs).map(|_| Some((LogIndex(slots.u64()?), Term(slots.u64()?))));
    Some(TermRuns(runs.collect::<Option<_>>()?))
}

fn count(number: usize, most: usize) -> u32 {
    assert!(number <= most, "as many as there is room for");
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn put_base(to: &mut Vec<u8>, base: &Base) {
    let position = |to: &mut Vec<u8>, at: EntryPosition| {
        to.put_u64(at.index.0);
        to.put_u64(at.term.0);
    };
    to.put_u64(base.ballot.term.0);
    to.put_u64(base.ballot.vote);
    to.put_u64(base.ballot.commit.0);
    position(to, base.truncated);
    position(to, base.last);
    to.put_u64(base.first_segment.0);
    to.put_u64(base.checkpoint.no.0);
    to.put_u64(base.checkpoint.applied.0);
    to.put_u64(u64::from(base.install.is_some()));
    let install = base.install.unwrap_or_default();
    position(to, install.position());
    to.put_u64(install.checkpoint.0);
}

fn base(fields: &mut Reader<'_>) -> Option<Base> {
    let position = |fields: &mut Reader<'_>| {
        Some(EntryPosition { index: LogIndex(fields.u64()?), term: Term(fields.u64()?) })
    };
    let ballot = Ballot { term: Term(fields.u64()?), vote: fields.u64()?, commit: LogIndex(fields.u64()?) };
    let (truncated, last) = (position(fields)?, position(fields)?);
    let first_segment = SegmentNo(fields.u64()?);
    let checkpoint = CheckpointMark { no: CheckpointNo(fields.u64()?), applied: LogIndex(fields.u64()?) };
    let installing = fields.u64()? != 0;
    let at = position(fields)?;
    let install = SnapshotBase { index: at.index, term: at.term, checkpoint: CheckpointNo(fields.u64()?) };
    let install = installing.then_some(install);
    Some(Base { ballot, truncated, last, first_segment, checkpoint, install })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        let identity =
            ReplicaIdentity { cluster: ClusterId([3; 16]), shard: ShardId(4), replica: ReplicaId(5) };
        let at = |index, term| EntryPosition { index: LogIndex(index), term: Term(term) };
        let base = Base {
            ballot: Ballot { term: Term(9), vote: 2, commit: LogIndex(40) },
            truncated: at(10, 3),
            last: at(50, 8),
            first_segment: SegmentNo(6),
            checkpoint: CheckpointMark { no: CheckpointNo(2), applied: LogIndex(33) },
            install: Some(SnapshotBase { index: LogIndex(10), term: Term(3), checkpoint: CheckpointNo(1) }),
        };
        let revisions = Some(RevisionRange { least: Revision(70), greatest: Revision(90) });
        let points = (0..LOG_FOOTER_POINTS_MAX as u64).zip(1..);
        let points = points.map(|(first, sector)| Point { first: LogIndex(30 + first), sector });
        let points = Points::of(points.collect()).unwrap();
        let footer = Footer { revisions, digest: 77, end: 12_288, points };
        let terms = TermRuns(vec![(LogIndex(11), Term(3)), (LogIndex(20), Term(8))]);
        let standing = Standing { cut: Cut { seq: BatchSeq(123), crc: 456 }, footer, base, terms };
        SegmentHeader::new(identity, SegmentNo(7), 99, standing)
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let sector = header().encode();
        assert_eq!(SegmentHeader::decode(&sector), Some(header()));
        assert_eq!(header().encoding.foreign(), None);
        let mut without = header();
        without.base.install = None;
        without.footer = Footer::default();
        without.terms = TermRuns(vec![(LogIndex(50), Term(8))]);
        assert_eq!(SegmentHeader::decode(&without.encode()), Some(without));
        let mut full = header();
        full.terms =
            TermRuns((1..=LOG_HEADER_TERM_RUNS_MAX as u64).map(|n| (LogIndex(n), Term(n))).collect());
        assert_eq!(SegmentHeader::decode(&full.encode()), Some(full));
    }

    #[test]
    fn every_flipped_bit_of_the_sector_is_noticed() {
        let sector = header().encode();
        for at in 0..SECTOR_BYTES {
            let mut damaged = sector.clone();
            damaged[at] ^= 1 << (at % 8);
            assert_eq!(SegmentHeader::decode(&damaged), None, "byte {at}");
        }
        assert_eq!(SegmentHeader::decode(&sector[..SECTOR_BYTES - 1]), None);
    }
}
