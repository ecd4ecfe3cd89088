//! Brings back the log of a replica after a stop of any kind.
//!
//! The steps: make the directory durable as it is seen, list it, read the header of every segment, walk the newest one and
//! of the others those that hold what no checkpoint does, decide where the log ends, write the newest batches again, and
//! begin a fresh segment whose header says where the log ended. Only when that is durable is the log handed out. A crash at
//! any step leaves a log that recovers to the same.
//!
//! Invariants:
//! - What was acknowledged is there, or the recovery fails and names the file and the byte.
//! - What was cut once is dead for ever: the fresh segment's header says where the older ones end.
//! - What is taken into the log is durable before the log relies on it. What can be read may not be: a process that was
//!   killed, or whose write failed, leaves bytes behind that a loss of power takes away, whatever sync comes after.
//! - No file that was part of the log is removed here, and none is written but with the bytes that are there.

mod files;
mod headers;
mod reader;
mod reading;
mod replay;
mod walk;

use bytes::Bytes;
use mesh_base::io::{Completion, FileId, IoError, IoOp, IoPort, IoQueue, IoToken, IoValue, Lane};
use mesh_base::limits::LOG_HEADER_TERM_RUNS_MAX;
use mesh_base::prng::Prng;
use mesh_base::{ReplicaIdentity, SegmentNo};
use raft::eraftpb::HardState;

use crate::base::{CheckpointMark, SnapshotBase};
use crate::begin::{Beginning, Begun, WhenFull};
use crate::contents::Contents;
use crate::error::LogError;
use crate::footer::Footer;
use crate::format::segment::{Cut, SegmentHeader, Standing};
use crate::format::{Encoding, FORMAT_VERSION, Foreign};
use crate::log::{Log, Parts};
use crate::options::LogOptions;
use crate::purge::{Purge, Sealed};
use crate::switch::draw_salt;
pub(crate) use files::Files;
use reading::{Newest, Outcome, ReadLog, Reading, sealed_of};

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
    /// Damage of what is kept though a checkpoint contains it. The log begins behind it.
    pub damage: Option<LogError>,
    /// The first segment that was read in whole: what is in older ones is in the page store too.
    pub walked_from: SegmentNo,
    /// Batches that were read.
    pub batches: u64,
    /// Bytes of them on disk.
    pub bytes: u64,
}

/// The log as it was read, waiting for its fresh segment.
#[derive(Debug)]
struct Read {
    purge: Purge,
    contents: Contents,
    cut: Cut,
    footer_before: Footer,
    sealed: Vec<Sealed>,
    found: Found,
}

/// What there is to tell of a recovery.
#[derive(Debug)]
struct Found {
    torn: Option<TornTail>,
    damage: Option<LogError>,
    walked_from: SegmentNo,
    batches: u64,
    bytes: u64,
}

#[derive(Debug)]
enum Step {
    SyncingDirectory(IoToken),
    Listing(IoToken),
    Reading(Files, Box<Reading>),
    Rewriting(Vec<IoToken>, Files, Box<ReadLog>),
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
                let reading = Reading::start(files.segments.clone(), self.identity, self.options.clone());
                self.read(files, Box::new(reading), io)
            }
            Step::Reading(files, mut reading) => {
                reading.complete(token, result)?;
                self.read(files, reading, io)
            }
            Step::Rewriting(mut writes, files, log) => {
                result?;
                let before = writes.len();
                writes.retain(|write| *write != token);
                assert_eq!(writes.len() + 1, before, "a completion of what was never submitted");
                self.begin_when_rewritten(writes, files, log, io);
                Ok(None)
            }
            Step::Beginning(read, beginning) => {
                match beginning.complete(token, result.map(drop), &mut self.port, io)? {
                    Begun::NotYet(beginning) => {
                        self.step = Step::Beginning(read, beginning);
                        Ok(None)
                    }
                    Begun::Done(active, spares) => {
                        let Read { purge, contents, cut, footer_before, sealed, found } = *read;
                        let parts = Parts {
                            identity: self.identity,
                            options: self.options.clone(),
                            prng: self.prng.clone(),
                            port: std::mem::replace(&mut self.port, IoPort::new(Lane::Log)),
                            contents,
                            active,
                            cut,
                            footer_before,
                            sealed: sealed.into(),
                            spares,
                            purge,
                            damages: u64::from(found.damage.is_some()),
                        };
                        Ok(Some(Recovered::Log(Box::new(recovered(parts, found)))))
                    }
                }
            }
            Step::Over => Err(LogError::Poisoned { cause: "the recovery is over".into() }),
        }
    }

    /// Reads as far as what was read allows, and goes on to the writing when all is read.
    fn read(
        &mut self,
        files: Files,
        mut reading: Box<Reading>,
        io: &mut IoQueue,
    ) -> Result<Option<Recovered>, LogError> {
        match reading.advance(&mut self.port, io)? {
            Outcome::Reading => self.step = Step::Reading(files, reading),
            Outcome::Empty => return Ok(Some(Recovered::Empty)),
            Outcome::Log(mut log) => {
                let writes = log.newest.walk.rewrite_unproven(&mut self.port, io);
                self.begin_when_rewritten(writes, files, log, io);
            }
        }
        Ok(None)
    }

    fn begin_when_rewritten(
        &mut self,
        writes: Vec<IoToken>,
        files: Files,
        log: Box<ReadLog>,
        io: &mut IoQueue,
    ) {
        if writes.is_empty() {
            self.begin(files, *log, io);
        } else {
            self.step = Step::Rewriting(writes, files, log);
        }
    }

    /// Begins the fresh segment. The newest one keeps its name if nothing in it is part of the log, so that recoveries
    /// in a row do not pile up segments.
    fn begin(&mut self, mut files: Files, log: ReadLog, io: &mut IoQueue) {
        let ReadLog { contents, newest, mut sealed, unreadable, found } = log;
        let Newest { header: newest, file, end, .. } = newest;
        let replaces = end.batches == 0;
        let segment = if replaces { newest.segment } else { newest.segment.next() };
        if !replaces {
            sealed.push(sealed_of(&newest, file, end.offset));
        }
        // What a replaced segment says of the one before stays true.
        let footer_before = if replaces { newest.footer } else { end.footer };
        let (cut, footer, base) = (end.head, footer_before.clone(), contents.base);
        let standing = Standing { cut, footer, base, terms: contents.terms.newest(LOG_HEADER_TERM_RUNS_MAX) };
        let salt = draw_salt(&mut self.prng, segment, newest.salt);
        let header = SegmentHeader::new(self.identity, segment, salt, standing);
        let beginning =
            Beginning::start(header, files.leftovers(), WhenFull::MakeDo, &self.options, &mut self.port, io);
        files.discard(unreadable.into_iter());
        let read = Read { purge: files.purge(), contents, cut, footer_before, sealed, found };
        self.step = Step::Beginning(Box::new(read), beginning);
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

fn recovered(parts: Parts, found: Found) -> RecoveredLog {
    let base = parts.contents.base;
    let Found { torn, damage, walked_from, batches, bytes } = found;
    if let Some(torn) = &torn {
        tracing::warn!(file = %torn.file, offset = torn.offset, "a crash tore the tail of the log");
    }
    if let Some(error) = &damage {
        tracing::error!(%error, first_index = base.truncated.index.get() + 1, "old entries of the log are lost");
    }
    tracing::info!(batches, bytes, last_index = base.last.index.get(), "the log is recovered");
    RecoveredLog {
        hard_state: base.ballot.into(),
        torn,
        least_checkpoint: base.checkpoint,
        install: base.install,
        damage,
        walked_from,
        batches,
        bytes,
        log: Log::assemble(parts),
    }
}
