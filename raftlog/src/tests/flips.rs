//! Every single byte of a small log flipped, one at a time: each flip is detected, by an error that names the file and the
//! place, or harmless, or in the newest batch, of which nothing says that it was durable. None leads to a wrong answer.

use std::collections::BTreeMap;

use mesh_base::io::FileId;
use raft::{GetEntriesContext, Storage};

use super::disk::{Crash, Disk};
use super::harness::*;
use crate::format::batch::{BATCH_HEADER_BYTES, BatchHeader};
use crate::{LogError, LogOptions, Recovered};

const LAST: u64 = 8;
const ENTRY_BYTES: usize = 3500;
/// What a byte is changed by: one bit that moves along, then all of them.
const PATTERNS: [fn(usize) -> u8; 2] = [|offset| 1 << (offset % 8), |_| 0xff];

fn options() -> LogOptions {
    LogOptions { segment_bytes: 32 * 1024, writes_in_flight_max: 1, zero_ahead_bytes: 4096, ..small() }
}

/// A full segment and the beginning of the next; a batch per entry, each of a sector.
fn written() -> Disk {
    let mut node = Node::create(options(), 1);
    for index in 1..=LAST {
        node.append(entries(index..=index, 1, ENTRY_BYTES), Some(&hard_state(1, 2, index - 1)));
    }
    assert_eq!(node.log.segments().1.get(), 2);
    node.disk.crash(Crash::Process);
    node.disk
}

/// What a recovery makes of it.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Corrupt { file: FileId, offset: usize },
    Entries { last: u64 },
}

fn outcome(disk: Disk) -> Outcome {
    match recover(disk, options()).0 {
        Err(LogError::Corrupt { file, offset, .. }) => {
            Outcome::Corrupt { file, offset: usize::try_from(offset).unwrap() }
        }
        Err(error) => panic!("{error}"),
        Ok(Recovered::Empty) => panic!("the log is gone"),
        Ok(Recovered::Log(recovered)) => {
            let last = recovered.log.last_index().get();
            let read = recovered.log.entries(1, last + 1, None, GetEntriesContext::empty(false)).unwrap();
            assert_eq!(read, entries(1..=last, 1, ENTRY_BYTES));
            assert_eq!(recovered.hard_state, hard_state(1, 2, last - 1));
            Outcome::Entries { last }
        }
    }
}

/// What a byte belongs to.
fn kind_of(segment: &[u8], at: usize) -> &'static str {
    let sector = at / 4096 * 4096;
    match BatchHeader::decode(&segment[sector..]) {
        _ if sector == 0 => "segment headers",
        None => "behind the log",
        Some(_) if at < sector + BATCH_HEADER_BYTES => "batch headers",
        Some(header) if at < sector + BATCH_HEADER_BYTES + header.payload_bytes as usize => "records",
        Some(_) => "padding",
    }
}

#[test]
fn every_flipped_byte_is_detected_or_harmless() {
    let disk = written();
    assert_eq!(outcome(disk.clone()), Outcome::Entries { last: LAST });
    let newest = *disk.segments().last().unwrap();
    let end_of = |segment: &[u8]| segment.chunks(4096).position(|sector| sector[0] == 0).unwrap() * 4096;
    // Bytes, detected, harmless, taken for the traces of a crash.
    let mut tallies: BTreeMap<&str, [usize; 4]> = BTreeMap::new();
    for file in disk.segments() {
        let segment = disk.clone().bytes(file).clone();
        let is_newest_batch =
            |at: usize| file == newest && (end_of(&segment) - 4096..end_of(&segment)).contains(&at);
        for at in 0..segment.len() {
            let kind = kind_of(&segment, at);
            let tally = tallies.entry(kind).or_default();
            tally[0] += 1;
            for pattern in PATTERNS {
                let mut damaged = disk.clone();
                damaged.bytes(file)[at] ^= pattern(at);
                match outcome(damaged) {
                    Outcome::Corrupt { file: named, offset } => {
                        assert_eq!((named, offset), (file, at / 4096 * 4096), "byte {at} of {file}");
                        tally[1] += 1;
                    }
                    Outcome::Entries { last: LAST } => {
                        assert!(matches!(kind, "padding" | "behind the log"), "byte {at} of {file}: {kind}");
                        tally[2] += 1;
                    }
                    Outcome::Entries { last } => {
                        assert!(last + 1 == LAST && is_newest_batch(at), "byte {at} of {file}");
                        tally[3] += 1;
                    }
                }
            }
        }
    }
    println!("{:<18}{:>8}{:>10}{:>10}{:>10}", "flipped twice", "bytes", "detected", "harmless", "torn");
    for (kind, [bytes, detected, harmless, torn]) in &tallies {
        println!("{kind:<18}{bytes:>8}{detected:>10}{harmless:>10}{torn:>10}");
        assert_eq!(*harmless > 0, matches!(*kind, "padding" | "behind the log"));
    }
    assert_eq!(tallies.len(), 5, "a kind of bytes is missing");
}
