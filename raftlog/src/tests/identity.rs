//! Files that are another's, newer, missing, or not part of the log.

use mesh_base::checksum::crc32;
use mesh_base::io::{FileId, IoQueue};
use mesh_base::prng::Prng;
use mesh_base::{ClusterId, LogIndex, ReplicaId, ShardId};

use super::disk::{Crash, Disk};
use super::harness::*;
use crate::{LogError, Recovered, Recovery};

fn full_disk() -> Disk {
    let mut node = Node::create(small(), 1);
    for index in 1..61 {
        node.append(entries(index..=index, 1, 3000), None);
    }
    node.disk.crash(Crash::Process);
    node.disk
}

fn error_of(disk: Disk) -> LogError {
    recover(disk, small()).0.expect_err("the recovery fails")
}

/// Changes bytes of a segment's header and makes its checksum right again.
fn forge(disk: &mut Disk, file: FileId, at: usize, bytes: &[u8]) {
    let content = disk.bytes(file);
    content[at..at + bytes.len()].copy_from_slice(bytes);
    content[12..16].fill(0);
    let crc = crc32(&[&content[..4096]]);
    content[12..16].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn an_empty_directory_has_no_log() {
    assert!(matches!(recover(Disk::new(1), small()).0, Ok(Recovered::Empty)));
}

#[test]
fn a_log_is_not_created_over_another() {
    let node = Node::create(small(), 1);
    let (error, _) = *Node::create_on(node.disk, small()).err().unwrap();
    assert_eq!(error, LogError::AlreadyExists { file: segment(1) });
}

#[test]
fn another_identity_is_named_with_both_values() {
    let disk = full_disk();
    let mut other = identity();
    let run = |identity| {
        let (mut disk, mut io) = (disk.clone(), IoQueue::new());
        let mut recovery = Recovery::start(identity, small(), Prng::new(1), &mut io);
        loop {
            disk.submit(&mut io);
            let completion = disk.complete_any().unwrap();
            if let Err(error) = recovery.complete(completion, &mut io) {
                return error;
            }
        }
    };
    let file = *disk.segments().last().unwrap();
    other.cluster = ClusterId([8; 16]);
    let (expected, found) = (other.cluster, identity().cluster);
    assert_eq!(run(other), LogError::WrongCluster { file, expected, found });
    other = identity();
    other.shard = ShardId(4);
    assert_eq!(run(other), LogError::WrongShard { file, expected: ShardId(4), found: ShardId(3) });
    other = identity();
    other.replica = ReplicaId(12);
    assert_eq!(run(other), LogError::WrongReplica { file, expected: ReplicaId(12), found: ReplicaId(11) });
}

#[test]
fn a_newer_format_is_not_taken_for_damage() {
    let mut disk = full_disk();
    let file = disk.segments()[0];
    forge(&mut disk, file, 10, &2_u16.to_le_bytes());
    assert_eq!(error_of(disk), LogError::NewerFormat { file, offset: 0, needs: 2, supported: 1 });
}

#[test]
fn an_unknown_codec_is_not_taken_for_damage() {
    let mut disk = full_disk();
    let file = disk.segments()[0];
    forge(&mut disk, file, 35, &[9]);
    assert_eq!(error_of(disk), LogError::Unsupported { file, offset: 0, what: "codec", value: 9 });
}

#[test]
fn a_missing_segment_is_corruption_that_names_it() {
    let segments = full_disk().segments();
    assert!(segments.len() > 3);
    for gone in segments.iter().copied().rev().skip(1) {
        let mut disk = full_disk();
        disk.remove(gone);
        let error = error_of(disk);
        assert!(matches!(error, LogError::Corrupt { file, .. } if file == gone), "without {gone}: {error}");
    }
}

#[test]
fn a_segment_under_another_name_is_corruption() {
    let mut disk = full_disk();
    let segments = disk.segments();
    let bytes = disk.bytes(segments[1]).clone();
    *disk.bytes(segments[2]) = bytes;
    assert!(matches!(error_of(disk), LogError::Corrupt { file, offset: 0, .. } if file == segments[2]));
}

#[test]
fn a_segment_that_follows_another_log_is_corruption() {
    let disk = full_disk();
    let (before, file) = (disk.segments()[1], disk.segments()[2]);
    let forged = [(72, "the checksum of the batch before", before), (128, "the last entry before", file)];
    for (at, what, named) in forged {
        let mut disk = disk.clone();
        let byte = disk.bytes(file)[at] ^ 1;
        forge(&mut disk, file, at, &[byte]);
        let error = error_of(disk);
        assert!(matches!(error, LogError::Corrupt { file, .. } if file == named), "{what}: {error}");
    }
}

#[test]
fn files_that_are_no_use_are_removed() {
    let mut disk = full_disk();
    for no in 50..60 {
        disk.add(FileId::SpareSegment(no), if no % 2 == 0 { 64 * 1024 } else { 4096 });
    }
    let (mut node, _) = Node::recover(disk, small());
    node.settle();
    let spares =
        node.disk.listing().iter().filter(|(file, _)| matches!(file, FileId::SpareSegment(_))).count();
    assert!(spares <= 1, "{:?}", node.disk.listing());
}

#[test]
fn recoveries_in_a_row_do_not_pile_up_files() {
    let mut disk = full_disk();
    let mut listing = None;
    for _ in 0..10 {
        let (mut node, facts) = Node::recover(disk, small());
        assert_eq!((facts.torn, node.log.last_index()), (None, LogIndex(60)));
        node.settle();
        disk = node.disk;
        disk.crash(Crash::Power);
        let files = disk.listing().len();
        assert!(listing.is_none_or(|before| files <= before), "{:?}", disk.listing());
        listing = Some(files);
    }
}

#[test]
fn salts_differ_though_the_generator_starts_over() {
    let mut disk = full_disk();
    let mut salts = Vec::new();
    for _ in 0..5 {
        let (node, _) = Node::recover(disk, small());
        disk = node.disk;
        let newest = *disk.segments().last().unwrap();
        salts.push(disk.bytes(newest)[56..64].to_vec());
    }
    salts.sort();
    salts.dedup();
    assert_eq!(salts.len(), 5);
}
