//! The reading of a log: the headers of all segments, the newest segment, then as many of those before it as are needed.
//!
//! The newest segment comes first because it has the newest note of a checkpoint: what that contains need not be read.

use mesh_base::io::{FileId, IoError, IoPort, IoQueue, IoToken, IoValue};
use mesh_base::limits::SECTOR_BYTES;
use mesh_base::{ReplicaIdentity, SegmentNo};

use super::files::SegmentFile;
use super::headers::{HeaderReads, Plan, Reads};
use super::replay::Replay;
use super::walk::{SegmentEnd, SegmentWalk};
use super::{Found, bytes_of};
use crate::contents::{Contents, Locations};
use crate::error::LogError;
use crate::format::segment::SegmentHeader;
use crate::options::LogOptions;
use crate::purge::Sealed;

/// The reading under way.
#[derive(Debug)]
pub(super) struct Reading {
    segments: Vec<SegmentFile>,
    identity: ReplicaIdentity,
    options: LogOptions,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Headers(HeaderReads),
    Newest(Box<NewestWalk>),
    Older(Box<Older>),
    Over,
}

/// The walk through the newest segment.
#[derive(Debug)]
struct NewestWalk {
    headers: Vec<Result<SegmentHeader, LogError>>,
    header: SegmentHeader,
    walk: SegmentWalk,
    replay: Replay,
}

/// The newest segment, of which everything is known.
#[derive(Debug)]
pub(super) struct Newest {
    pub(super) header: SegmentHeader,
    pub(super) file: SegmentFile,
    pub(super) walk: SegmentWalk,
    pub(super) end: SegmentEnd,
}

/// The walk through the segments before the newest that are needed too.
#[derive(Debug)]
struct Older {
    newest: Newest,
    /// What the newest segment left.
    replay: Replay,
    plan: Plan,
    /// The segment that is walked, and what those so far left.
    walking: Option<(SegmentWalk, Replay)>,
    /// Its place among those that are walked.
    at: usize,
    found: Found,
}

/// The log as it was read.
#[derive(Debug)]
pub(super) struct ReadLog {
    pub(super) contents: Contents,
    pub(super) newest: Newest,
    /// The segments before it that the log keeps.
    pub(super) sealed: Vec<Sealed>,
    /// Those that cannot be read.
    pub(super) unreadable: Vec<SegmentNo>,
    pub(super) found: Found,
}

/// How far the reading is.
#[derive(Debug)]
pub(super) enum Outcome {
    Reading,
    /// There is no log.
    Empty,
    Log(Box<ReadLog>),
}

impl Reading {
    /// Begins to read a log of these segments.
    pub(super) const fn start(
        segments: Vec<SegmentFile>,
        identity: ReplicaIdentity,
        options: LogOptions,
    ) -> Self {
        Self { segments, identity, options, stage: Stage::Headers(HeaderReads::new()) }
    }

    /// Takes the end of a read.
    pub(super) fn complete(
        &mut self,
        token: IoToken,
        result: Result<IoValue, IoError>,
    ) -> Result<(), LogError> {
        match &mut self.stage {
            Stage::Headers(reads) => reads.complete(token, result, &self.segments, &self.identity),
            Stage::Newest(newest) => newest.walk.complete(token, bytes_of(result?)),
            Stage::Older(older) => {
                if let Some((walk, _)) = &mut older.walking {
                    walk.complete(token, bytes_of(result?));
                }
            }
            Stage::Over => {}
        }
        Ok(())
    }

    /// Goes on as far as the bytes that were read allow.
    pub(super) fn advance(&mut self, port: &mut IoPort, io: &mut IoQueue) -> Result<Outcome, LogError> {
        loop {
            let next = match std::mem::replace(&mut self.stage, Stage::Over) {
                Stage::Headers(mut reads) => {
                    if reads.advance(&self.segments, port, io) == Reads::InFlight {
                        self.stage = Stage::Headers(reads);
                        return Ok(Outcome::Reading);
                    }
                    self.walk_newest(reads.finish())?
                }
                Stage::Newest(mut newest) => match newest.walk.advance(&mut newest.replay, port, io)? {
                    Some(end) => Stage::Older(Box::new(self.plan(*newest, end)?)),
                    None => {
                        self.stage = Stage::Newest(newest);
                        return Ok(Outcome::Reading);
                    }
                },
                Stage::Older(mut older) => {
                    let Some((walk, replay)) = &mut older.walking else {
                        return Ok(Outcome::Log(Box::new(older.finish(&self.segments)?)));
                    };
                    let Some(end) = walk.advance(replay, port, io)? else {
                        self.stage = Stage::Older(older);
                        return Ok(Outcome::Reading);
                    };
                    older.go_on(&end, &self.segments, &self.options)?;
                    Stage::Older(older)
                }
                Stage::Over => return Ok(Outcome::Empty),
            };
            self.stage = next;
        }
    }

    fn walk_newest(&self, headers: Vec<Result<SegmentHeader, LogError>>) -> Result<Stage, LogError> {
        let header = headers.last().cloned().transpose()?;
        let Some((header, (_, bytes))) = header.zip(self.segments.last()) else { return Ok(Stage::Over) };
        let walk = SegmentWalk::new(&header, None, *bytes, &self.options);
        let replay = Replay::start(&header, Locations::new());
        Ok(Stage::Newest(Box::new(NewestWalk { headers, header, walk, replay })))
    }

    /// Decides what else is to be walked.
    fn plan(&self, newest: NewestWalk, end: SegmentEnd) -> Result<Older, LogError> {
        let NewestWalk { headers, header, walk, replay } = newest;
        let plan = Plan::of(headers, &self.segments, replay.contents())?;
        let found = Found {
            torn: end.torn,
            damage: plan.lost.as_ref().map(|lost| lost.error.clone()),
            walked_from: plan.walked.first().map(|first| first.segment).unwrap_or_default(),
            batches: end.batches,
            bytes: end.offset - SECTOR_BYTES as u64,
        };
        let file = self.segments.last().copied().unwrap_or_default();
        let newest = Newest { header, file, walk, end };
        let mut older = Older { newest, replay, plan, walking: None, at: 0, found };
        let locations = std::mem::replace(&mut older.plan.locations, Locations::new());
        match older.plan.walked.as_slice() {
            [start, _, ..] => {
                let replay = Replay::start(start, locations);
                older.walking = older.walk(&self.segments, &self.options).map(|walk| (walk, replay));
            }
            _ => older.replay.follow_places(locations),
        }
        Ok(older)
    }
}

impl Older {
    /// The walk through the segment that is next.
    fn walk(&self, segments: &[SegmentFile], options: &LogOptions) -> Option<SegmentWalk> {
        let (header, next) = self.plan.walked.get(self.at).zip(self.plan.walked.get(self.at + 1))?;
        let (_, bytes) = segments.get(self.plan.from + self.at)?;
        Some(SegmentWalk::new(header, Some(next), *bytes, options))
    }

    /// Takes the end of a segment and goes on to the next; where that is the newest, what it left follows what was before.
    fn go_on(
        &mut self,
        end: &SegmentEnd,
        segments: &[SegmentFile],
        options: &LogOptions,
    ) -> Result<(), LogError> {
        self.found.batches += end.batches;
        self.found.bytes += end.offset - SECTOR_BYTES as u64;
        let file = segments.get(self.plan.from + self.at);
        let sealed = self.plan.walked.get(self.at).zip(file);
        self.plan.sealed.extend(sealed.map(|(header, file)| sealed_of(header, *file, end.offset)));
        self.at += 1;
        let Some((_, mut replay)) = self.walking.take() else { return Ok(()) };
        if let Some(next) = self.plan.walked.get(self.at) {
            replay.enter(next)?;
        }
        match self.walk(segments, options) {
            Some(walk) => self.walking = Some((walk, replay)),
            None => self.replay.follow(replay),
        }
        Ok(())
    }

    /// The log, if no segment of it is missing.
    fn finish(self, segments: &[SegmentFile]) -> Result<ReadLog, LogError> {
        let Self { newest, replay, plan, found, .. } = self;
        let oldest = segments.first().map(|(segment, _)| *segment).unwrap_or_default();
        let before = SegmentNo(oldest.get().saturating_sub(1));
        let (file, what) = (FileId::Segment(before), "the segment is missing");
        let missing = LogError::Corrupt { file, offset: 0, what };
        let mut contents = replay.finish().ok_or(missing.clone())?;
        if contents.base.first_segment < oldest {
            return Err(missing);
        }
        let mut unreadable = Vec::new();
        if let Some(lost) = &plan.lost {
            lost.leave(&mut contents);
            let all = segments.iter().map(|(segment, _)| *segment);
            unreadable.extend(all.take_while(|segment| *segment < lost.first_segment));
        }
        Ok(ReadLog { contents, newest, sealed: plan.sealed, unreadable, found })
    }
}

/// A segment whose end is known.
pub(super) const fn sealed_of(header: &SegmentHeader, file: SegmentFile, end: u64) -> Sealed {
    let (segment, capacity) = file;
    Sealed { segment, salt: header.salt, after: header.base.last.index, capacity, written_to: end }
}
