//! What the fuzz targets do with their bytes, apart from the harness: a test of the crate runs them with drawn bytes too.
//!
//! Input is a list of edits of something genuine, since no mutation finds a checksum: which part, where in it, what with.
//! Then the checksums are made right. Only FORMAT.md is relied on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a target fails so"
)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::missing_panics_doc,
    reason = "sizes are small, and so is the text"
)]

use std::sync::OnceLock;

use bytes::Bytes;
use mesh_base::checksum::{crc32, xxh3};
use mesh_base::io::{FileId, IoQueue};
use mesh_base::memory::MemoryDirectory;
use mesh_base::prng::Prng;
use mesh_base::{
    CheckpointNo, ClusterId, LogIndex, ReplicaId, ReplicaIdentity, Revision, SegmentNo, ShardId,
};
use mesh_raftlog::{
    CheckpointMark, Creation, FirstState, Log, LogError, LogOptions, Recovered, RecoveredLog, Recovery,
};
use raft::eraftpb::{Entry, HardState};
use raft::{GetEntriesContext, Storage};

const SECTOR: usize = 4096;
const BATCH_HEADER: usize = 80;
/// The segments of the genuine log.
const FILES: [FileId; 2] = [FileId::Segment(SegmentNo(1)), FileId::Segment(SegmentNo(2))];
/// Turns after which something is taken to hang.
const TURNS_MAX: usize = 100_000;

fn identity() -> ReplicaIdentity {
    ReplicaIdentity { cluster: ClusterId([7; 16]), shard: ShardId(3), replica: ReplicaId(11) }
}

fn options() -> LogOptions {
    LogOptions {
        segment_bytes: 32 * 1024,
        zero_ahead_bytes: 0,
        writes_in_flight_max: 2,
        batch_bytes_soft_max: 4 * 1024,
        retained_bytes: 1 << 20,
        spare_segments_max: 1,
        read_bytes: 8 * 1024,
        fetch_bytes_max: 16 * 1024,
        fetched_bytes_max: 64 * 1024,
        revision_of: |entry| Revision(entry.index % 1000),
    }
}

fn recover(directory: &mut MemoryDirectory) -> Result<Option<Box<RecoveredLog>>, LogError> {
    let mut io = IoQueue::new();
    let mut recovery = Recovery::start(identity(), options(), Prng::new(1), &mut io);
    for _ in 0..TURNS_MAX {
        let submissions: Vec<_> = io.drain().collect();
        for submission in submissions {
            match recovery.complete(directory.perform(submission), &mut io)? {
                None => {}
                Some(Recovered::Empty) => return Ok(None),
                Some(Recovered::Log(log)) => return Ok(Some(log)),
            }
        }
    }
    panic!("a recovery hangs");
}

/// Does all that is to be done.
fn settle(log: &mut Log, directory: &mut MemoryDirectory) -> Result<(), LogError> {
    let mut io = IoQueue::new();
    for _ in 0..TURNS_MAX {
        log.pump(&mut io);
        let submissions: Vec<_> = io.drain().collect();
        if submissions.is_empty() {
            return Ok(());
        }
        for submission in submissions {
            log.complete(directory.perform(submission), &mut io)?;
        }
    }
    panic!("the log hangs");
}

fn entry(index: u64, term: u64, bytes: usize) -> Entry {
    Entry { index, term, data: Bytes::from(vec![index as u8; bytes]), ..Entry::default() }
}

fn genuine() -> &'static MemoryDirectory {
    static GENUINE: OnceLock<MemoryDirectory> = OnceLock::new();
    GENUINE.get_or_init(|| {
        let (mut directory, mut io) = (MemoryDirectory::new(1 << 20), IoQueue::new());
        let first = FirstState::default();
        let mut creation = Creation::start(identity(), options(), &first, Prng::new(1), &mut io);
        let mut log = loop {
            let submission = io.drain().next().expect("a creation is never idle");
            if let Some(log) = creation.complete(directory.perform(submission), &mut io).unwrap() {
                break log;
            }
        };
        for index in 1..=9 {
            let state = HardState { term: 1, vote: 2, commit: index - 1, ..HardState::default() };
            log.append(vec![entry(index, 1, 300 * index as usize)], Some(&state)).unwrap();
            if index == 6 {
                log.note_checkpoint(CheckpointMark { no: CheckpointNo(4), applied: LogIndex(3) }).unwrap();
            }
            settle(&mut log, &mut directory).unwrap();
        }
        assert_eq!(log.segments().1, SegmentNo(2));
        directory
    })
}

/// Where the batches of a segment begin.
fn batches(segment: &[u8]) -> Vec<usize> {
    let is_batch = |at: &usize| segment[*at..].starts_with(b"MLB\xb1");
    (SECTOR..segment.len()).step_by(SECTOR).filter(is_batch).collect()
}

fn number(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

fn payload_end(segment: &[u8], batch: usize) -> usize {
    (batch + BATCH_HEADER).saturating_add(number(segment, batch + 44)).min(segment.len())
}

/// Whether what ties the batches and segments together is made right too, or each checksum alone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Chain {
    Kept,
    AsItIs,
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// Makes the checksums of headers and batches right.
fn reseal(directory: &mut MemoryDirectory, chain: Chain) {
    let (mut previous, mut digest) = ([0; 4], 0_u64);
    for (number, file) in FILES.into_iter().enumerate() {
        let mut segment = directory.bytes(file).unwrap().to_vec();
        if chain == Chain::Kept && number > 0 {
            put(&mut segment, 72, &previous);
            put(&mut segment, 224, &digest.to_le_bytes());
        }
        put(&mut segment, 12, &[0; 4]);
        let crc = crc32(&[&segment[..SECTOR]]);
        put(&mut segment, 12, &crc.to_le_bytes());
        digest = 0;
        for batch in batches(&segment) {
            if chain == Chain::Kept && (number > 0 || batch > SECTOR) {
                put(&mut segment, batch + 40, &previous);
            }
            put(&mut segment, batch + 8, &[0; 8]);
            let crc = crc32(&[&segment[batch..batch + BATCH_HEADER]]);
            put(&mut segment, batch + 8, &crc.to_le_bytes());
            let end = payload_end(&segment, batch);
            previous = crc32(&[&segment[batch..end]]).to_le_bytes();
            put(&mut segment, batch + 12, &previous);
            let chained = [digest.to_le_bytes(), xxh3(&segment[batch..end]).to_le_bytes()].concat();
            digest = xxh3(&chained);
        }
        directory.put(file, segment);
    }
}

/// Recovers what is there: refused, or a log that can be read, goes on, and is recovered again.
fn read(mut directory: MemoryDirectory) {
    let Ok(Some(mut recovered)) = recover(&mut directory) else { return };
    let log = &mut recovered.log;
    let (first, last) = (log.first_index(), log.last_index());
    if read_entries(log, &mut directory, first, last).is_err() {
        return;
    }
    // Raft would not go on from the last indexes and terms there can be.
    let (term, state) = (recovered.hard_state.term, recovered.hard_state.clone());
    let at = log.term_of(last).map_or(term, |at| at.get().max(term));
    if last.get() > 1 << 60 || at > 1 << 60 {
        return;
    }
    let state = HardState { term: at + 1, vote: 0, ..state };
    log.append(vec![entry(last.get() + 1, at + 1, 100)], Some(&state)).unwrap();
    settle(log, &mut directory).unwrap();
    let again = recover(&mut directory).unwrap().expect("the log is gone");
    assert_eq!(again.log.last_index(), last.next());
    assert_eq!((again.hard_state.term, again.hard_state.vote), (at + 1, 0));
}

/// Reads all entries, those that have to be fetched too.
fn read_entries(
    log: &mut Log,
    directory: &mut MemoryDirectory,
    first: LogIndex,
    last: LogIndex,
) -> Result<(), LogError> {
    let mut next = first.get();
    for _ in 0..TURNS_MAX {
        if next > last.get() {
            return Ok(());
        }
        match log.entries(next, last.get() + 1, None, GetEntriesContext::empty(true)) {
            Ok(entries) => {
                assert!(entries.iter().zip(next..).all(|(entry, index)| entry.index == index));
                next += entries.len() as u64;
            }
            Err(_) => settle(log, directory)?,
        }
    }
    panic!("entries {next}..={} cannot be had", last.get());
}

/// Applies edits (part, offset in two bytes, count, bytes) to the parts of a file.
fn edit(directory: &mut MemoryDirectory, places: &[(FileId, usize, usize)], mut data: &[u8]) {
    while let Some(([part, low, high, count], rest)) = data.split_first_chunk() {
        let (file, start, bytes) = places[usize::from(*part) % places.len()];
        let offset = start + usize::from(u16::from_le_bytes([*low, *high])) % bytes;
        let count = (usize::from(*count) % 32 + 1).min(rest.len()).min(start + bytes - offset);
        let mut image = directory.bytes(file).unwrap().to_vec();
        put(&mut image, offset, &rest[..count]);
        directory.put(file, image);
        data = &rest[count..];
    }
}

/// A log whose segment headers, footers and batches have bytes changed, every checksum made right.
pub fn segments(data: &[u8]) {
    for chain in [Chain::Kept, Chain::AsItIs] {
        let mut directory = genuine().clone();
        edit(&mut directory, places(), data);
        reseal(&mut directory, chain);
        read(directory);
    }
}

/// The parts that are edited, headers more often than what follows them.
fn places() -> &'static [(FileId, usize, usize)] {
    static PLACES: OnceLock<Vec<(FileId, usize, usize)>> = OnceLock::new();
    PLACES.get_or_init(|| {
        let directory = genuine();
        let mut places = Vec::new();
        for file in FILES {
            let segment = directory.bytes(file).unwrap();
            // Magic, versions and the fields; the fields behind the identity.
            places.extend([(file, 0, 232), (file, 48, 184)]);
            for batch in batches(segment) {
                places.extend([(file, batch, BATCH_HEADER), (file, batch + BATCH_HEADER, 60)]);
                places.push((file, batch, payload_end(segment, batch) - batch));
            }
        }
        places
    })
}

/// A log whose newest batch has any payload, properly sealed.
pub fn records(data: &[u8]) {
    let mut directory = genuine().clone();
    let [_, newest] = FILES;
    let mut segment = directory.bytes(newest).unwrap().to_vec();
    let batch = *batches(&segment).last().unwrap();
    let payload = &data[..data.len().min(segment.len() - batch - BATCH_HEADER)];
    put(&mut segment, batch + 44, &(payload.len() as u32).to_le_bytes());
    put(&mut segment, batch + BATCH_HEADER, payload);
    directory.put(newest, segment);
    reseal(&mut directory, Chain::Kept);
    read(directory);
}
