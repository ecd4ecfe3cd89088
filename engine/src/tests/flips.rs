//! Every single byte of a small store flipped, one at a time: each flip is detected, by an error that names the file and
//! the place, or harmless. None leads to a wrong answer, a panic or a hang.
//!
//! The store has pages of every kind. Bytes that nothing reads, neither opening nor reading nor verifying, are flipped all
//! at once.

use std::collections::BTreeMap;

use bytes::Bytes;
use mesh_base::CheckpointNo;
use mesh_base::io::FileId;

use super::disk::Crash;
use super::driver::{Rig, small};
use crate::superblock::{REGION_BYTES, copy_offset};
use crate::*;

const FILE: FileId = FileId::Store;
const NEWEST: CheckpointNo = CheckpointNo(6);
/// What a byte is changed by: one bit that moves along, then all of them.
const PATTERNS: [fn(usize) -> u8; 2] = [|offset| 1 << (offset % 8), |_| 0xff];

/// Two levels, a large value, every copy of the superblock used.
fn filled() -> Rig {
    let mut rig = Rig::with_store(1, small());
    for round in 1..NEWEST.get() {
        for number in 0..8_u64 {
            let bytes = if number == 3 { 5000 } else { 700 };
            let key = format!("key-{number}");
            rig.put(key.as_bytes(), round * 100 + number, &vec![round as u8; bytes]).unwrap();
        }
        rig.store().set_horizon(mesh_base::Revision(round * 100));
        rig.checkpoint(round).unwrap();
    }
    rig.crash(Crash::LoseAll);
    rig
}

/// What can be seen of a store.
#[derive(PartialEq, Eq, Debug)]
struct Seen {
    /// All of its cells.
    chunks: Vec<Bytes>,
    /// Where opening warned of a superblock copy.
    damaged_copies: Vec<u64>,
}

/// Opens the store, verifies it and reads all of it; what is wrong, by both.
fn look(rig: &mut Rig) -> Result<Seen, StoreError> {
    let warnings = rig.open(NEWEST).unwrap()?;
    let damaged_copies = warnings.iter().map(|OpenWarning::SuperblockCopy { offset, .. }| *offset).collect();
    let report = rig.verify().unwrap();
    let pin = rig.store().pin();
    let mut chunks: Vec<Bytes> = Vec::new();
    let mut from = None;
    loop {
        let chunk = match rig
            .until_ready(|store| store.scan_cells(pin, KeyRange::starting_at(from.as_ref()), 100_000))
            .unwrap()
        {
            Ok(chunk) => chunk,
            Err(error) => {
                let StoreError::Corrupt { offset, .. } = error else { panic!("{error}") };
                assert!(report.problems.iter().any(|problem| problem.offset == offset), "{report:?}");
                return Err(error);
            }
        };
        chunks.push(chunk.bytes);
        from = chunk.next;
        if from.is_none() {
            break;
        }
    }
    assert!(report.is_sound(), "read without an error, and verified as damaged: {report:?}");
    Ok(Seen { chunks, damaged_copies })
}

/// What a part of the file is.
fn kind_of(bytes: &[u8], start: usize) -> &'static str {
    if start == copy_offset(NEWEST) as usize {
        return "superblock, newest copy";
    }
    if start < REGION_BYTES {
        return "superblock, older copies";
    }
    match bytes[start] {
        1 => "leaves",
        2 => "interior pages",
        3 => "bitmaps",
        4 => "index pages",
        5 => "extents",
        kind => panic!("page of kind {kind}"),
    }
}

#[derive(Default)]
struct Tally {
    bytes: usize,
    detected: usize,
    harmless: usize,
}

/// What became of a flipped byte in a part of the file that begins at `start`.
fn flip(rig: &mut Rig, at: usize, mask: u8, start: usize, expected: &Seen, tally: &mut Tally) {
    rig.crash(Crash::LoseAll);
    rig.disk.flip(FILE, at, mask);
    match look(rig) {
        Err(StoreError::Corrupt { file, offset, .. }) => {
            assert_eq!((file, offset as usize), (FILE, start), "byte {at}");
            tally.detected += 1;
        }
        Err(error) => panic!("byte {at}: {error}"),
        Ok(Seen { chunks, damaged_copies }) => {
            assert_eq!((chunks, damaged_copies), (expected.chunks.clone(), vec![start as u64]), "byte {at}");
            tally.harmless += 1;
        }
    }
    rig.crash(Crash::LoseAll);
    rig.disk.flip(FILE, at, mask);
}

#[test]
fn every_flipped_byte_is_detected_or_harmless() {
    let mut rig = filled();
    rig.disk.read_at.clear();
    let expected = look(&mut rig).unwrap();
    let parts: Vec<(usize, usize)> = rig.disk.read_at.iter().copied().collect();
    assert!(parts.windows(2).all(|pair| pair[0].1 <= pair[1].0), "parts that overlap: {parts:?}");
    let image = rig.disk.bytes(FILE).to_vec();

    let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
    for (start, end) in &parts {
        let tally = tallies.entry(kind_of(&image, *start)).or_default();
        tally.bytes += end - start;
        for pattern in PATTERNS {
            (*start..*end).for_each(|at| flip(&mut rig, at, pattern(at), *start, &expected, tally));
        }
    }

    // All that nobody reads, at once.
    rig.crash(Crash::LoseAll);
    let unread = (0..image.len()).filter(|at| !parts.iter().any(|(start, end)| (start..end).contains(&at)));
    let unread: Vec<usize> = unread.collect();
    unread.iter().for_each(|at| rig.disk.flip(FILE, *at, 0xff));
    assert_eq!(look(&mut rig).unwrap(), expected);
    let harmless = unread.len() * PATTERNS.len();
    tallies.insert("read by nobody", Tally { bytes: unread.len(), detected: 0, harmless });

    println!("{:<26}{:>8}{:>10}{:>10}", "flipped twice", "bytes", "detected", "harmless");
    for (kind, Tally { bytes, detected, harmless }) in &tallies {
        println!("{kind:<26}{bytes:>8}{detected:>10}{harmless:>10}");
        let harmful = !matches!(*kind, "superblock, older copies" | "read by nobody");
        assert_eq!(if harmful { *harmless } else { *detected }, 0, "{kind}");
    }
    assert_eq!(tallies.len(), 8, "a kind of page is missing");
}
