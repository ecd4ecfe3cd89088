//! The headers of all segments, read many at a time: they tell which segments have to be walked besides the newest, and all
//! there is to know of the others.
//!
//! The walk begins at the newest segment after whose beginning everything was appended that the newest checkpoint lacks,
//! and from which on the terms of all entries are known. What is in older segments is committed and in the page store; it
//! is kept for those who ask for it, and its damage is theirs to meet.
//!
//! Invariants:
//! - From the segment at which the walk begins, every header is intact.
//! - Where an older header is damaged the log begins behind its segment: what was before cannot be read any more.

use mesh_base::flaw::{self, Flaw};
use mesh_base::io::{FileId, IoError, IoOp, IoPort, IoQueue, IoToken, IoValue};
use mesh_base::limits::{LOG_HEADER_READS_IN_FLIGHT_MAX, SECTOR_BYTES};
use mesh_base::{LogIndex, ReplicaIdentity, SegmentNo};

use super::files::SegmentFile;
use super::{bytes_of, foreign};
use crate::base::{EntryPosition, INDEX_MAX};
use crate::contents::{Contents, Locations};
use crate::error::LogError;
use crate::format::segment::SegmentHeader;
use crate::purge::Sealed;

/// The reads of headers.
#[derive(Debug)]
pub(super) struct HeaderReads {
    in_flight: Vec<(IoToken, usize)>,
    asked: usize,
    found: Vec<Result<SegmentHeader, LogError>>,
}

impl HeaderReads {
    pub(super) const fn new() -> Self {
        Self { in_flight: Vec::new(), asked: 0, found: Vec::new() }
    }

    /// Submits reads, as many as may be in flight. Answers whether all headers are read.
    pub(super) fn advance(&mut self, segments: &[SegmentFile], port: &mut IoPort, io: &mut IoQueue) -> Reads {
        while self.in_flight.len() < LOG_HEADER_READS_IN_FLIGHT_MAX
            && let Some((segment, _)) = segments.get(self.asked)
        {
            let file = FileId::Segment(*segment);
            let read = IoOp::Read { file, offset: 0, length: SECTOR_BYTES };
            self.in_flight.push((port.submit(io, read), self.asked));
            // Until it is read.
            self.found.push(Err(LogError::Corrupt {
                file,
                offset: 0,
                what: "the segment's header is missing",
            }));
            self.asked += 1;
        }
        if self.in_flight.is_empty() { Reads::Done } else { Reads::InFlight }
    }

    /// Takes the end of a read.
    pub(super) fn complete(
        &mut self,
        token: IoToken,
        result: Result<IoValue, IoError>,
        segments: &[SegmentFile],
        identity: &ReplicaIdentity,
    ) {
        let at = self.in_flight.iter().position(|(read, _)| *read == token);
        let at = at.map(|at| self.in_flight.swap_remove(at).1);
        assert!(at.is_some(), "a completion of what was never submitted");
        let Some((at, (segment, _))) = at.and_then(|at| Some((at, segments.get(at)?))) else { return };
        let header = result
            .map_err(LogError::from)
            .and_then(|value| check_header(*segment, &bytes_of(value), identity));
        if let Some(found) = self.found.get_mut(at) {
            *found = header;
        }
    }

    /// What was read, in the order of the segments.
    pub(super) fn finish(self) -> Vec<Result<SegmentHeader, LogError>> {
        self.found
    }
}

/// How far the reads are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reads {
    InFlight,
    Done,
}

/// What is to be walked before the newest segment, and what is known of the segments before that.
#[derive(Debug)]
pub(super) struct Plan {
    /// How many segments come before the walk.
    pub(super) from: usize,
    /// The headers of those that are walked, the newest included.
    pub(super) walked: Vec<SegmentHeader>,
    /// The segments before that can be read.
    pub(super) sealed: Vec<Sealed>,
    /// Where their entries are.
    pub(super) locations: Locations,
    pub(super) lost: Option<Lost>,
}

impl Plan {
    /// What is to be done when the newest segment was walked, and left this.
    pub(super) fn of(
        mut headers: Vec<Result<SegmentHeader, LogError>>,
        segments: &[SegmentFile],
        newest: &Contents,
    ) -> Result<Self, LogError> {
        let mut from = headers.len().saturating_sub(1);
        let mut is_enough = newest.has_all_unsaved() && newest.has_all_terms();
        while !is_enough && from > 0 && !flaw::is_planted(Flaw::TrustNewestSegment) {
            from -= 1;
            let header = headers.get(from).cloned().transpose()?;
            is_enough = header.is_some_and(|header| is_start(&header, newest));
        }
        let walked: Vec<SegmentHeader> = headers.split_off(from).into_iter().collect::<Result<_, _>>()?;
        let (mut usable, mut damage, mut first) = (Vec::new(), None, 0);
        for (at, header) in headers.into_iter().enumerate() {
            match header {
                Ok(header) => usable.push(header),
                Err(error @ (LogError::Corrupt { .. } | LogError::Io(_))) => {
                    (first, damage) = (at + 1, Some(error));
                    usable.clear();
                }
                Err(error) => return Err(error),
            }
        }
        let lasts = usable.iter().chain(walked.first()).map(|header| header.base.last.index);
        // What no checkpoint contains is in what is walked.
        let through = lasts.chain([newest.base.checkpoint.applied]).min();
        let first_segment = usable.first().or(walked.first()).map(|header| header.segment);
        let lost = damage.zip(through).zip(first_segment);
        let lost = lost.map(|((error, through), first_segment)| Lost { through, first_segment, error });
        let files = segments.get(first..from).unwrap_or_default();
        let (sealed, locations) = kept(&usable, walked.first(), files)?;
        Ok(Self { from, walked, sealed, locations, lost })
    }
}

/// Old entries that cannot be read any more.
#[derive(Debug)]
pub(super) struct Lost {
    /// The last of them.
    through: LogIndex,
    /// The first segment that can be read.
    pub(super) first_segment: SegmentNo,
    pub(super) error: LogError,
}

impl Lost {
    /// Lets the log begin behind them.
    pub(super) fn leave(&self, contents: &mut Contents) {
        let base = contents.base;
        assert!(self.through <= base.checkpoint.applied, "the page store has it all");
        let term = contents.terms.term(self.through).unwrap_or_default();
        let at = EntryPosition { index: self.through, term };
        let to = if self.through > base.truncated.index { at } else { base.truncated };
        contents.truncate(to, self.first_segment.max(base.first_segment));
    }
}

/// Whether nothing has to be walked that is older than a segment.
fn is_start(header: &SegmentHeader, newest: &Contents) -> bool {
    let lists_terms = header.terms.before(header.base.last.index) <= newest.base.truncated.index;
    header.base.last.index <= newest.base.checkpoint.applied && (newest.has_all_terms() || lists_terms)
}

/// The segments before the one at which the walk starts, and where their entries are.
fn kept(
    headers: &[SegmentHeader],
    start: Option<&SegmentHeader>,
    files: &[SegmentFile],
) -> Result<(Vec<Sealed>, Locations), LogError> {
    let (mut sealed, mut locations) = (Vec::new(), Locations::new());
    let successors = headers.iter().skip(1).chain(start);
    for ((header, next), (_, capacity)) in headers.iter().zip(successors).zip(files) {
        let last = next.base.last.index;
        // What was before a snapshot that was installed, or is let go, has no part in what follows.
        locations.trim_to(next.base.truncated.index);
        for run in next.footer.runs(header.segment, last) {
            let follows = locations.last().is_none_or(|before| run.first <= before.next());
            if !follows || run.first > run.last || run.place.bytes == 0 {
                let (file, what) = (FileId::Segment(next.segment), "the footer contradicts the base record");
                return Err(LogError::Corrupt { file, offset: 0, what });
            }
            locations.record(run);
        }
        locations.cut_from(last.next());
        sealed.push(Sealed {
            segment: header.segment,
            salt: header.salt,
            after: header.base.last.index,
            capacity: *capacity,
            written_to: next.footer.end.max(SECTOR_BYTES as u64),
        });
    }
    Ok((sealed, locations))
}

/// The header of a segment, if it is intact and this replica's.
fn check_header(
    segment: SegmentNo,
    sector: &[u8],
    identity: &ReplicaIdentity,
) -> Result<SegmentHeader, LogError> {
    let file = FileId::Segment(segment);
    let corrupt = |what| LogError::Corrupt { file, offset: 0, what };
    let header = SegmentHeader::decode(sector).ok_or(corrupt("the segment's header is damaged"))?;
    foreign(header.encoding, file, 0)?;
    let (expected, found) = (identity, header.identity);
    if expected.cluster != found.cluster {
        return Err(LogError::WrongCluster { file, expected: expected.cluster, found: found.cluster });
    }
    if expected.shard != found.shard {
        return Err(LogError::WrongShard { file, expected: expected.shard, found: found.shard });
    }
    if expected.replica != found.replica {
        return Err(LogError::WrongReplica { file, expected: expected.replica, found: found.replica });
    }
    if header.segment != segment {
        return Err(corrupt("the header is another segment's"));
    }
    let fits = header.terms.fit(header.base.truncated, header.base.last);
    if !header.base.is_consistent() || !fits || header.cut.seq.get() > INDEX_MAX.get() {
        return Err(corrupt("the base record contradicts itself"));
    }
    Ok(header)
}
