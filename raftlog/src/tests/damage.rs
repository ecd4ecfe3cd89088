//! Every byte and every sector of a small log damaged, one at a time.

use mesh_base::io::FileId;
use mesh_base::{LogIndex, Revision};
use raft::{GetEntriesContext, Storage};

use super::disk::{Crash, Disk};
use super::harness::*;
use crate::footer::{Footer, Points};
use crate::format::segment::SegmentHeader;
use crate::{LogError, LogOptions, Recovered, RevisionRange, inspect};

/// What damage did.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Corrupt {
        file: FileId,
        offset: u64,
    },
    /// The tail was cut; this is the last entry left.
    Torn {
        last: u64,
    },
    /// Everything is there.
    Whole,
}

fn outcome(disk: Disk, last: u64) -> Outcome {
    match recover(disk, small()).0 {
        Err(LogError::Corrupt { file, offset, .. }) => Outcome::Corrupt { file, offset },
        Err(error) => panic!("{error}"),
        Ok(Recovered::Empty) => panic!("the log is gone"),
        Ok(Recovered::Log(recovered)) => {
            let log = &recovered.log;
            let kept = log.last_index().get();
            let entries = log.entries(1, kept + 1, None, GetEntriesContext::empty(false)).unwrap();
            assert_eq!(entries, super::harness::entries(1..=kept, 1, 1500));
            if kept == last { Outcome::Whole } else { Outcome::Torn { last: kept } }
        }
    }
}

/// A log of two segments and the first batches of a third; a batch per entry, each of a sector.
fn written() -> Disk {
    let mut node = Node::create(LogOptions { writes_in_flight_max: 1, ..small() }, 1);
    for index in 1..31 {
        node.append(entries(index..=index, 1, 1500), None);
    }
    assert_eq!(node.log.segments().1.get(), 3);
    node.disk.crash(Crash::Process);
    node.disk
}

/// Where a segment's batches end: the first sector of zeros.
fn end_of(disk: &mut Disk, file: FileId) -> usize {
    let bytes = disk.bytes(file);
    bytes.chunks(4096).position(|sector| sector.iter().all(|byte| *byte == 0)).unwrap() * 4096
}

#[test]
fn damage_to_what_a_later_batch_proves_durable_is_never_cut() {
    let mut disk = written();
    let file = segment(3);
    let proven = usize::try_from(inspect::proven_bytes(disk.bytes(file)).unwrap()).unwrap();
    assert_eq!(proven, end_of(&mut disk, file) - 4096, "all but the newest batch");
    for at in (4096..proven).step_by(4096) {
        let mut damaged = disk.clone();
        damaged.bytes(file)[at..at + 512].fill(0);
        assert_eq!(outcome(damaged, 30), Outcome::Corrupt { file, offset: at as u64 });
    }
    disk.bytes(file)[..512].fill(0);
    assert_eq!(inspect::proven_bytes(disk.bytes(file)), None);
}

#[test]
fn a_lost_sector_is_found_where_it_is() {
    let disk = written();
    for file in disk.segments() {
        let end = end_of(&mut disk.clone(), file);
        for at in (0..end).step_by(4096) {
            for garbage in [0, 0xa5] {
                let mut damaged = disk.clone();
                damaged.bytes(file)[at..at + 4096].fill(garbage);
                let newest = file == segment(3) && at + 4096 == end;
                let expected = if newest {
                    Outcome::Torn { last: 29 }
                } else {
                    Outcome::Corrupt { file, offset: at as u64 }
                };
                assert_eq!(outcome(damaged, 30), expected, "sector {at} of {file}");
            }
        }
    }
}

#[test]
fn a_segment_that_is_not_what_its_footer_says_is_corrupt() {
    let mut disk = written();
    let header = |disk: &mut Disk, file| SegmentHeader::decode(&disk.bytes(file)[..4096]).unwrap();
    assert_eq!(header(&mut disk, segment(1)).footer, Footer::default());
    let entries_before = header(&mut disk, segment(2)).base.last.index.get();
    let through =
        |least, greatest| RevisionRange { least: Revision(least * 10), greatest: Revision(greatest * 10) };
    assert_eq!(header(&mut disk, segment(2)).footer.revisions, Some(through(1, entries_before)));
    let last = header(&mut disk, segment(3)).base.last.index.get();
    let right = header(&mut disk, segment(3));
    assert_eq!(right.footer.revisions, Some(through(entries_before + 1, last)));
    let end = end_of(&mut disk, segment(2)) as u64;
    for footer in [
        Footer { digest: right.footer.digest ^ 1, ..right.footer.clone() },
        Footer { end: end - 4096, ..right.footer.clone() },
        Footer { points: Points::default(), ..right.footer.clone() },
        Footer { revisions: Some(through(entries_before + 1, last + 1)), ..right.footer.clone() },
        Footer { revisions: None, ..right.footer.clone() },
    ] {
        let mut other = disk.clone();
        let forged = SegmentHeader { footer, ..right.clone() };
        other.bytes(segment(3))[..4096].copy_from_slice(&forged.encode());
        assert_eq!(outcome(other, 30), Outcome::Corrupt { file: segment(2), offset: end });
    }
}

#[test]
fn after_a_marker_damage_of_the_newest_batches_is_corruption_too() {
    let mut node = Node::create(small(), 1);
    for index in 1..4 {
        node.append(entries(index..=index, 1, 1500), None);
    }
    node.idle();
    node.disk.crash(Crash::Power);
    let marker = end_of(&mut node.disk, segment(1)) - 4096;
    for at in (4096..marker).step_by(4096) {
        let mut damaged = node.disk.clone();
        damaged.bytes(segment(1))[at + 100] ^= 1;
        assert_eq!(outcome(damaged, 3), Outcome::Corrupt { file: segment(1), offset: at as u64 });
    }
    let mut damaged = node.disk.clone();
    damaged.bytes(segment(1))[marker + 20] ^= 1;
    assert_eq!(outcome(damaged, 3), Outcome::Whole, "a marker itself holds nothing");
}

#[test]
fn many_lost_sectors_in_a_row_are_found_by_what_is_behind_them() {
    let mut disk = written();
    let end = end_of(&mut disk, segment(2));
    disk.bytes(segment(2))[8192..end].fill(0);
    assert_eq!(outcome(disk, 30), Outcome::Corrupt { file: segment(2), offset: 8192 });
    let mut node = Node::create(small(), 1);
    for index in 1..11 {
        node.append(entries(index..=index, 1, 1500), None);
    }
    node.disk.crash(Crash::Process);
    node.disk.bytes(segment(1))[8192..10 * 4096].fill(0);
    assert_eq!(outcome(node.disk, 10), Outcome::Corrupt { file: segment(1), offset: 8192 });
}

#[test]
fn what_was_cut_stays_dead_though_it_comes_to_light_later() {
    let mut node = Node::create(small(), 1);
    node.append(entries(1..4, 1, 1500), None);
    let offset = end_of(&mut node.disk, segment(1));
    // A write that was in flight at the crash reaches the disk only after the recovery.
    node.log.append(entries(4..5, 1, 1500), None).unwrap();
    node.pump();
    let mut late = node.disk.clone();
    late.complete_newest("write").unwrap();
    let bytes = late.bytes(segment(1))[offset..offset + 4096].to_vec();
    node.disk = {
        let mut disk = node.disk;
        disk.crash(Crash::Power);
        disk.bytes(segment(1))[offset..offset + 4096].fill(0);
        disk
    };
    let (mut node, _) = Node::recover(node.disk, small());
    node.disk.bytes(segment(1))[offset..offset + 4096].copy_from_slice(&bytes);
    node.append(entries(4..5, 2, 10), Some(&hard_state(2, 1, 0)));
    let (mut node, _) = node.restart(Crash::Power, small());
    assert_eq!(node.read(4, 5), entries(4..5, 2, 10));
    assert_eq!(node.log.last_index(), LogIndex(4));
}

#[test]
fn a_recycled_segment_never_shows_its_old_batches() {
    let mut node = Node::create(small(), 1);
    for index in 1..200 {
        node.append(entries(index..=index, 1, 3000), Some(&hard_state(1, 1, index)));
        if index % 10 == 0 {
            node.checkpoint(index, index);
        }
        if index % 7 == 0 {
            let facts;
            (node, facts) = node.restart(Crash::Power, small());
            assert_eq!((facts.torn, node.log.last_index()), (None, LogIndex(index)));
        }
    }
}
