//! How much of the device's bandwidth the log has.

use std::time::{Duration, Instant};

use bytes::Bytes;
use mesh_base::io::IoQueue;
use mesh_base::prng::Prng;
use mesh_base::{CheckpointNo, ClusterId, LogIndex, ReplicaId, ReplicaIdentity, ShardId};
use mesh_raftlog::{CheckpointMark, Creation, FirstState, Log, LogOptions};
use raft::eraftpb::{Entry, HardState};

use super::super::bare::{Appender, as_f64};
use super::super::files::Disk;
use super::super::flags::{EngineFlags, RowName};
use super::super::place::Place;
use super::super::system::{Run, failed};
use crate::progress::show;
use crate::table::{Bound, Rounds, Row, Unit};

const NAME: &str = "Mesh's log";
const BARE: &str = "bare O_DSYNC appends";
const BATCH_BYTES: usize = 64 * 1024;
/// Batch header, record header, and the fields of an entry's record.
const OVERHEAD_BYTES: usize = 80 + 8 + 24;
/// Entries that a checkpoint lets go: those of a segment, so that segments are recycled as in a log that has run for long.
const ENTRIES_KEPT: u64 = 1000;

/// Appends of 64 KiB, as many in flight as the log has.
///
/// # Errors
/// A system's.
pub(in super::super) fn log(flags: &EngineFlags) -> Run<Option<Row>> {
    if !flags.wants(RowName::Log) {
        return Ok(None);
    }
    let place = Place::new(&flags.dir)?;
    let options =
        LogOptions { batch_bytes_soft_max: BATCH_BYTES, retained_bytes: 0, ..LogOptions::default() };
    let depth = options.writes_in_flight_max;
    let mut log = LogAlone::new(&place, options)?;
    let mut bare = Appender::new(&place.directory("bare")?)?;
    show("filling the log's first segments");
    while log.log.segments().1.get() < 4 && !flags.quick {
        log.append_for(Duration::from_millis(100), depth)?;
    }
    let mut rounds = Rounds::new("log appends of 64 KiB", Unit::BytesPerSecond);
    for round in 0..flags.rounds() {
        show(&format!("log appends: round {} of {}", round + 1, flags.rounds()));
        rounds.add(NAME, log.append_for(flags.slice(), depth)?);
        rounds.add(BARE, bare.deep(BATCH_BYTES, depth, flags.slice())?);
    }
    rounds.note(format!("{depth} writes in flight, into space written before: recycled segments"));
    Ok(Some(rounds.row().bar(&[BARE], Bound::AtLeast(0.9))))
}

/// A log that no page store goes with; checkpoints are noted as if there were one.
struct LogAlone {
    disk: Disk,
    io: IoQueue,
    log: Log,
    last: u64,
    checkpoint: u64,
    data: Bytes,
}

impl LogAlone {
    fn new(place: &Place, options: LogOptions) -> Run<Self> {
        let mut disk = Disk::new(&place.directory("log")?).map_err(failed(NAME))?;
        let mut io = IoQueue::new();
        let identity =
            ReplicaIdentity { cluster: ClusterId([1; 16]), shard: ShardId(0), replica: ReplicaId(1) };
        let first =
            FirstState { hard_state: HardState { term: 1, ..HardState::default() }, ..FirstState::default() };
        let mut creation = Creation::start(identity, options, &first, Prng::new(1), &mut io);
        let log = loop {
            disk.submit(&mut io);
            let completion = disk.wait().map_err(failed(NAME))?;
            let completion = completion.ok_or_else(|| failed(NAME)("nothing is in flight"))?;
            if let Some(log) = creation.complete(completion, &mut io).map_err(failed(NAME))? {
                break log;
            }
        };
        let mut data = vec![0; BATCH_BYTES - OVERHEAD_BYTES];
        Prng::new(1).fill(&mut data);
        Ok(Self { disk, io, log, last: 0, checkpoint: 0, data: data.into() })
    }

    /// Appends for a time, with enough waiting that the log is never idle; answers bytes in a second.
    fn append_for(&mut self, time: Duration, depth: usize) -> Run<f64> {
        let start = Instant::now();
        let (first, mut durable) = (self.last, self.log.durable_last().index.0);
        loop {
            while start.elapsed() < time && self.last - durable < 2 * depth as u64 {
                self.last += 1;
                let data = self.data.clone();
                let entry = Entry { index: self.last, term: 1, data, ..Entry::default() };
                self.log.append(vec![entry], None).map_err(failed(NAME))?;
            }
            if durable == self.last {
                break;
            }
            self.log.pump(&mut self.io);
            self.disk.submit(&mut self.io);
            let completion = self.disk.wait().map_err(failed(NAME))?;
            let completion = completion.ok_or_else(|| failed(NAME)("nothing is in flight"))?;
            self.log.complete(completion, &mut self.io).map_err(failed(NAME))?;
            durable = self.log.durable_last().index.0;
            self.note_checkpoint(durable)?;
        }
        Ok(as_f64((self.last - first) * BATCH_BYTES as u64) / start.elapsed().as_secs_f64())
    }

    fn note_checkpoint(&mut self, durable: u64) -> Run<()> {
        let applied = self.log.least_checkpoint().applied.0;
        if durable - applied >= ENTRIES_KEPT {
            self.checkpoint += 1;
            let mark = CheckpointMark { no: CheckpointNo(self.checkpoint), applied: LogIndex(durable) };
            self.log.note_checkpoint(mark).map_err(failed(NAME))?;
        }
        Ok(())
    }
}
