//! Brings back the log of a replica after a stop of any kind.
//!
//! The steps: make the directory durable as it is seen, list it, read the header of every segment, walk the batches,
//! decide where the log ends, write the newest batches again, and begin a fresh segment whose header says where the log
//! ended. Only when that is durable is the log handed out. A crash at any step leaves a log that recovers to the same.
//!
//! Invariants:
//! - What was acknowledged is there, or the recovery fails and names the file and the byte.
//! - What was cut once is dead for ever: the fresh segment's header says where the older ones end.
//! - What is taken into the log is durable before the log relies on it. What can be read may not be: a process that was
//!   killed, or whose write failed, leaves bytes behind that a loss of power takes away, whatever sync comes after.
//! - No file that was part of the log is removed here, and none is written but with the bytes that are there.

mod reader;
mod replay;
mod walk;

use bytes::Bytes;
use mesh_base::io::{Completion, FileId, IoError, IoOp, IoPort, IoQueue, IoToken, IoValue, Lane};
use mesh_base::limits::SECTOR_BYTES;
use mesh_base::prng::Prng;
use mesh_base::{ReplicaIdentity, SegmentNo};
use raft::eraftpb::HardState;

use crate::base::{CheckpointMark, SnapshotBase};
use crate::begin::{Beginning, Begun, Leftovers, WhenFull};
use crate::contents::Contents;
use crate::error::LogError;
use crate::format::segment::{Cut, SegmentHeader};
use crate::format::{Encoding, FORMAT_VERSION, Foreign};
use crate::log::{Log, Parts};
use crate::options::LogOptions;
use crate::purge::{Discarded, Purge, Sealed};
use crate::switch::draw_salt;
use replay::Replay;
use walk::SegmentWalk;

/// Where a crash tore the log. What was there was never acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TornTail {
    /// The newest segment at the time.
    pub file: FileId,
    /// Where the log ends in it, in bytes.
    pub offset: u64,
    /// Batches whose traces were found behind the end.
    pub batches_dropped: u64,
}

/// What a recovery found.
#[derive(Debug)]
pub enum Recovered {
    /// There is no log. Whether that is a birth or a loss is for the owner to know.
    Empty,
    /// There is one.
    Log(Box<RecoveredLog>),
}

/// A log that was recovered.
#[derive(Debug)]
pub struct RecoveredLog {
    /// The log, ready for use.
    pub log: Log,
    /// The hard state, its commit index brought within the log.
    pub hard_state: HardState,
    /// The tail that was cut, if a crash tore it.
    pub torn: Option<TornTail>,
    /// The least checkpoint that must exist in the page store.
    pub least_checkpoint: CheckpointMark,
    /// A snapshot that was installed and after which no checkpoint was noted. If the staged page store is still there
    /// it must take its place now; if not, it has.
    pub install: Option<SnapshotBase>,
    /// Batches that were read.
    pub batches: u64,
    /// Bytes of them on disk.
    pub bytes: u64,
}

/// The files of a directory that matter here.
#[derive(Debug)]
pub(crate) struct Files {
    /// The segments that follow each other without a gap up to the newest, with their lengths in bytes.
    segments: Vec<(SegmentNo, u64)>,
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

    /// The removal of what is of no use.
    pub(crate) fn purge(self) -> Purge {
        Purge::of(self.discarded)
    }
}

/// The reading of the log.
#[derive(Debug)]
struct Reading {
    files: Files,
    headers: Vec<SegmentHeader>,
    /// Which of the segments is walked.
    at: usize,
    walk: SegmentWalk,
    replay: Replay,
    sealed: Vec<Sealed>,
    batches: u64,
    bytes: u64,
}

impl Reading {
    /// The segment that is walked, now that its end is known.
    fn sealed_at(&self, end: &walk::SegmentEnd) -> Option<Sealed> {
        let (header, (_, capacity)) = self.headers.get(self.at).zip(self.files.segments.get(self.at))?;
        let (segment, salt) = (header.segment, header.salt);
        Some(Sealed { segment, salt, capacity: *capacity, written_to: end.offset })
    }
}

/// The log as it was read, waiting for its fresh segment.
#[derive(Debug)]
struct Read {
    purge: Purge,
    contents: Contents,
    cut: Cut,
    sealed: Vec<Sealed>,
    torn: Option<TornTail>,
    batches: u64,
    bytes: u64,
}

#[derive(Debug)]
enum Step {
    SyncingDirectory(IoToken),
    Listing(IoToken),
    ReadingHeaders(IoToken, Files, Vec<SegmentHeader>),
    Walking(Box<Reading>),
    Rewriting(Vec<IoToken>, Box<Reading>, walk::SegmentEnd),
    Beginning(Box<Read>, Box<Beginning>),
    Over,
}

/// A recovery under way.
#[derive(Debug)]
pub struct Recovery {
    identity: ReplicaIdentity,
    options: LogOptions,
    prng: Prng,
    port: IoPort,
    step: Step,
}

impl Recovery {
    /// Begins to recover the log of a replica from its directory. The generator is the log's from then on.
    ///
    /// # Panics
    /// When the options contradict each other: a bug of the caller.
    pub fn start(identity: ReplicaIdentity, options: LogOptions, prng: Prng, io: &mut IoQueue) -> Self {
        options.assert_consistent();
        let mut port = IoPort::new(Lane::Log);
        // What is seen may be less durable than it looks, after a crash of the process alone.
        let step = Step::SyncingDirectory(port.submit(io, IoOp::SyncDirectory));
        Self { identity, options, prng, port, step }
    }

    /// Takes the completion of an operation that this recovery submitted; answers what was recovered at its end.
    ///
    /// # Errors
    /// Whatever keeps the log from being used; the recovery is over then. [`LogError::Poisoned`] after its end.
    ///
    /// # Panics
    /// When the operation is not this recovery's: a bug of the caller.
    pub fn complete(
        &mut self,
        completion: Completion,
        io: &mut IoQueue,
    ) -> Result<Option<Recovered>, LogError> {
        let Completion { token, result } = completion;
        match std::mem::replace(&mut self.step, Step::Over) {
            Step::SyncingDirectory(expected) => {
                finished(expected, token, result)?;
                self.step = Step::Listing(self.port.submit(io, IoOp::List));
                Ok(None)
            }
            Step::Listing(expected) => {
                let value = finished(expected, token, result)?;
                let listing = if let IoValue::Listing(files) = value { files } else { Vec::new() };
                let files = Files::of(&listing, &self.options);
                self.read_header(files, Vec::new(), io)
            }
            Step::ReadingHeaders(expected, files, headers) => {
                let sector = bytes_of(finished(expected, token, result)?);
                self.take_header(files, headers, &sector, io)
            }
            Step::Walking(mut reading) => {
                reading.walk.complete(token, bytes_of(result?));
                self.walk(reading, io)
            }
            Step::Rewriting(mut writes, reading, end) => {
                result?;
                let before = writes.len();
                writes.retain(|write| *write != token);
                assert_eq!(writes.len() + 1, before, "a completion of what was never submitted");
                self.begin_when_rewritten(writes, reading, end, io)
            }
            Step::Beginning(read, beginning) => {
                match beginning.complete(token, result.map(drop), &mut self.port, io)? {
                    Begun::NotYet(beginning) => {
                        self.step = Step::Beginning(read, beginning);
                        Ok(None)
                    }
                    Begun::Done(active, spares) => {
                        let Read { purge, contents, cut, sealed, torn, batches, bytes } = *read;
                        let parts = Parts {
                            identity: self.identity,
                            options: self.options.clone(),
                            prng: self.prng.clone(),
                            port: std::mem::replace(&mut self.port, IoPort::new(Lane::Log)),
                            contents,
                            active,
                            cut,
                            sealed: sealed.into(),
                            spares,
                            purge,
                        };
                        Ok(Some(Recovered::Log(Box::new(recovered(parts, torn, batches, bytes)))))
                    }
                }
            }
            Step::Over => Err(LogError::Poisoned { cause: "the recovery is over".into() }),
        }
    }

    /// Reads the next segment's header, or begins to walk when all are read.
    fn read_header(
        &mut self,
        files: Files,
        headers: Vec<SegmentHeader>,
        io: &mut IoQueue,
    ) -> Result<Option<Recovered>, LogError> {
        if let Some((segment, _)) = files.segments.get(headers.len()) {
            let read = IoOp::Read { file: FileId::Segment(*segment), offset: 0, length: SECTOR_BYTES };
            self.step = Step::ReadingHeaders(self.port.submit(io, read), files, headers);
            return Ok(None);
        }
        let Some((walk, replay)) = headers
            .first()
            .and_then(|oldest| Some((walk_of(&files, &headers, 0, &self.options)?, Replay::start(oldest))))
        else {
            return Ok(Some(Recovered::Empty));
        };
        let reading =
            Reading { files, headers, at: 0, walk, replay, sealed: Vec::new(), batches: 0, bytes: 0 };
        self.walk(Box::new(reading), io)
    }

    fn take_header(
        &mut self,
        files: Files,
        mut headers: Vec<SegmentHeader>,
        sector: &Bytes,
        io: &mut IoQueue,
    ) -> Result<Option<Recovered>, LogError> {
        if let Some((segment, _)) = files.segments.get(headers.len()) {
            headers.push(check_header(*segment, sector, &self.identity)?);
        }
        self.read_header(files, headers, io)
    }

    /// Walks as far as what was read allows; goes from segment to segment, and on to the fresh one behind the last.
    fn walk(&mut self, mut reading: Box<Reading>, io: &mut IoQueue) -> Result<Option<Recovered>, LogError> {
        while let Some(end) = reading.walk.advance(&mut reading.replay, &mut self.port, io)? {
            reading.batches += end.batches;
            reading.bytes += end.offset - SECTOR_BYTES as u64;
            let Some(walk) = walk_of(&reading.files, &reading.headers, reading.at + 1, &self.options) else {
                let writes = reading.walk.rewrite_unproven(&mut self.port, io);
                return self.begin_when_rewritten(writes, reading, end, io);
            };
            let sealed = reading.sealed_at(&end);
            reading.sealed.extend(sealed);
            reading.at += 1;
            reading.walk = walk;
            if let Some(next) = reading.headers.get(reading.at) {
                reading.replay.enter(next)?;
            }
        }
        self.step = Step::Walking(reading);
        Ok(None)
    }

    fn begin_when_rewritten(
        &mut self,
        writes: Vec<IoToken>,
        reading: Box<Reading>,
        end: walk::SegmentEnd,
        io: &mut IoQueue,
    ) -> Result<Option<Recovered>, LogError> {
        if writes.is_empty() {
            return self.begin(*reading, end, io);
        }
        self.step = Step::Rewriting(writes, reading, end);
        Ok(None)
    }

    /// Begins the fresh segment. The newest one keeps its name if nothing in it is part of the log, so that recoveries
    /// in a row do not pile up segments.
    fn begin(
        &mut self,
        reading: Reading,
        end: walk::SegmentEnd,
        io: &mut IoQueue,
    ) -> Result<Option<Recovered>, LogError> {
        let Some(newest) = reading.sealed_at(&end) else { return Ok(Some(Recovered::Empty)) };
        let Reading { files, headers, replay, mut sealed, batches, bytes, .. } = reading;
        let contents = whole(replay, &headers)?;
        // The newest segment's header, if it is replaced: what it says of the segment before stays true.
        let replaced = headers.last().filter(|_| end.batches == 0);
        let segment = if replaced.is_some() { newest.segment } else { newest.segment.next() };
        if replaced.is_none() {
            sealed.push(newest);
        }
        let footer = replaced.map_or(end.footer, |header| header.footer);
        let salt = draw_salt(&mut self.prng, segment, newest.salt);
        let header = SegmentHeader::new(self.identity, segment, salt, end.head, footer, contents.base);
        let beginning =
            Beginning::start(header, files.leftovers(), WhenFull::MakeDo, &self.options, &mut self.port, io);
        let (purge, torn) = (files.purge(), end.torn);
        let read = Read { purge, contents, cut: end.head, sealed, torn, batches, bytes };
        self.step = Step::Beginning(Box::new(read), beginning);
        Ok(None)
    }
}

/// The result of the one operation that was in flight.
fn finished(
    expected: IoToken,
    token: IoToken,
    result: Result<IoValue, IoError>,
) -> Result<IoValue, LogError> {
    assert_eq!(expected, token, "a completion of what was never submitted");
    Ok(result?)
}

fn bytes_of(value: IoValue) -> Bytes {
    if let IoValue::Read(bytes) = value { bytes } else { Bytes::new() }
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
    if !header.base.is_consistent() {
        return Err(corrupt("the base record contradicts itself"));
    }
    Ok(header)
}

/// The error of what this version cannot read.
fn foreign(encoding: Encoding, file: FileId, offset: u64) -> Result<(), LogError> {
    match encoding.foreign() {
        None => Ok(()),
        Some(Foreign::Newer { needs }) => {
            Err(LogError::NewerFormat { file, offset, needs, supported: FORMAT_VERSION })
        }
        Some(Foreign::Unknown { what, value }) => Err(LogError::Unsupported { file, offset, what, value }),
    }
}

/// The walk through a segment, if there is one of this place in the order.
fn walk_of(files: &Files, headers: &[SegmentHeader], at: usize, options: &LogOptions) -> Option<SegmentWalk> {
    let (_, file_bytes) = files.segments.get(at)?;
    Some(SegmentWalk::new(headers.get(at)?, headers.get(at + 1), *file_bytes, options))
}

/// The contents of the log, if no segment of it is missing.
fn whole(replay: Replay, headers: &[SegmentHeader]) -> Result<Contents, LogError> {
    let oldest = headers.first().map(|header| header.segment).unwrap_or_default();
    let missing = |segment: SegmentNo| LogError::Corrupt {
        file: FileId::Segment(segment),
        offset: 0,
        what: "the segment is missing",
    };
    let before = SegmentNo(oldest.get().saturating_sub(1));
    let contents = replay.finish().ok_or(missing(before))?;
    if contents.base.first_segment < oldest {
        return Err(missing(before));
    }
    Ok(contents)
}

fn recovered(parts: Parts, torn: Option<TornTail>, batches: u64, bytes: u64) -> RecoveredLog {
    let base = parts.contents.base;
    if let Some(torn) = &torn {
        tracing::warn!(file = %torn.file, offset = torn.offset, "a crash tore the tail of the log");
    }
    tracing::info!(batches, bytes, last_index = base.last.index.get(), "the log is recovered");
    RecoveredLog {
        hard_state: base.ballot.into(),
        torn,
        least_checkpoint: base.checkpoint,
        install: base.install,
        batches,
        bytes,
        log: Log::assemble(parts),
    }
}
