//! A disk that is full, and has space again.

use mesh_base::LogIndex;

use super::disk::{Crash, Disk};
use super::harness::*;
use crate::{LogError, LogOptions, Space};

fn fill(node: &mut Node) -> u64 {
    let mut index = node.log.last_index().get();
    loop {
        let seq = node.log.append(entries(index + 1..index + 2, 1, 3000), None).unwrap();
        node.settle();
        if !node.log.durable().covers(seq) {
            return index;
        }
        index += 1;
    }
}

#[test]
fn a_full_disk_is_told_before_the_segment_is_full() {
    let mut node = Node::create(small(), 1);
    node.disk.full = true;
    node.settle();
    assert_eq!(node.log.space(), Space::Full);
    node.append(entries(1..2, 1, 3000), None);
    node.disk.full = false;
    node.log.retry_space(&mut node.io);
    node.settle();
    assert_eq!(node.log.space(), Space::Ok);
}

#[test]
fn votes_become_durable_on_a_full_disk() {
    let mut node = Node::create(small(), 1);
    node.disk.full = true;
    node.settle();
    // Entries up to where the reserve begins: 13 batches of a sector each.
    for index in 1..14 {
        node.append(entries(index..=index, 1, 3000), None);
    }
    for term in 2..4 {
        node.append(Vec::new(), Some(&hard_state(term, 5, 0)));
    }
    assert_eq!((node.log.space(), node.log.segments().1.get()), (Space::Full, 1));
    node.disk.full = false;
    let (node, facts) = node.restart(Crash::Power, small());
    assert_eq!((facts.hard_state, node.log.last_index()), (hard_state(3, 5, 0), LogIndex(13)));
}

#[test]
fn what_found_no_space_becomes_durable_when_there_is_some() {
    let mut node = Node::create(small(), 1);
    node.disk.full = true;
    let last = fill(&mut node);
    assert!(node.log.last_index().get() > last);
    node.log.retry_space(&mut node.io);
    node.settle();
    assert_eq!(node.log.durable_last().index, LogIndex(last));
    node.disk.full = false;
    node.log.retry_space(&mut node.io);
    node.settle();
    assert_eq!(node.log.durable_last().index, LogIndex(last + 1));
}

#[test]
fn a_full_disk_gets_the_segments_that_were_only_retained() {
    let options = LogOptions { retained_bytes: u64::MAX, ..small() };
    let mut node = Node::create(options, 1);
    for index in 1..40 {
        node.append(entries(index..=index, 1, 3000), Some(&hard_state(1, 1, index)));
    }
    node.settle();
    node.disk.full = true;
    while node.log.space() == Space::Ok {
        let next = node.log.last_index().get() + 1;
        node.append(entries(next..=next, 1, 3000), Some(&hard_state(1, 1, next)));
    }
    let (first, last) = (node.log.first_index(), node.log.last_index().get());
    node.checkpoint(1, last);
    assert!(node.log.first_index() > first);
    assert_eq!(node.log.space(), Space::Ok);
    for next in last + 1..last + 20 {
        node.append(entries(next..=next, 1, 3000), Some(&hard_state(1, 1, next)));
    }
}

#[test]
fn a_recovery_on_a_full_disk_makes_do_with_a_small_segment() {
    let mut node = Node::create(small(), 1);
    node.disk.full = true;
    fill(&mut node);
    // Room for a header and the reserve, not for a segment.
    let mut disk = node.disk;
    disk.crash(Crash::Process);
    for (file, _) in disk.listing() {
        if matches!(file, mesh_base::io::FileId::SpareSegment(_)) {
            disk.bytes(file).resize(16 * 1024, 0);
        }
    }
    let (mut node, _) = Node::recover(disk, small());
    assert_eq!(node.log.space(), Space::Full);
    node.append(Vec::new(), Some(&hard_state(7, 3, 0)));
    let last = node.log.last_index().get();
    let seq = node.log.append(entries(last + 1..last + 2, 7, 100), None).unwrap();
    node.settle();
    assert!(!node.log.durable().covers(seq));
    node.disk.full = false;
    node.log.retry_space(&mut node.io);
    node.settle();
    assert!(node.log.durable().covers(seq));
    let (node, facts) = node.restart(Crash::Power, small());
    assert_eq!((facts.hard_state.term, node.log.last_index()), (7, LogIndex(last + 1)));
}

#[test]
fn a_recovery_without_any_space_fails_and_can_be_repeated() {
    let mut node = Node::create(small(), 1);
    node.append(entries(1..5, 1, 100), None);
    let mut disk = node.disk;
    disk.crash(Crash::Process);
    for (file, _) in disk.listing() {
        if matches!(file, mesh_base::io::FileId::SpareSegment(_)) {
            disk.remove(file);
        }
    }
    disk.full = true;
    for _ in 0..5 {
        let (result, after) = recover(disk, small());
        assert!(matches!(result, Err(LogError::NoSpace { .. })));
        disk = after;
    }
    assert!(disk.listing().len() <= 2, "attempts leave one file: {:?}", disk.listing());
    disk.full = false;
    let (node, _) = Node::recover(disk, small());
    assert_eq!(node.log.last_index(), LogIndex(4));
}

#[test]
fn a_creation_without_space_leaves_no_log() {
    let mut disk = Disk::new(1);
    disk.full = true;
    let (error, mut disk) = *Node::create_on(disk, small()).err().unwrap();
    assert!(matches!(error, LogError::NoSpace { .. }));
    disk.full = false;
    let mut node = Node::create_on(disk, small()).unwrap_or_else(|failed| panic!("{}", failed.0));
    node.append(entries(1..2, 1, 10), None);
}

#[test]
fn purged_segments_are_reused_and_the_files_stay_few() {
    let mut node = Node::create(small(), 1);
    for index in 1..400 {
        node.append(entries(index..=index, 1, 3000), Some(&hard_state(1, 1, index)));
        if index % 20 == 0 {
            node.checkpoint(index, index);
        }
        assert!(node.disk.listing().len() <= 7, "{:?}", node.disk.listing());
    }
    assert!(node.log.segments().0.get() > 20);
    let (mut node, _) = node.restart(Crash::Power, small());
    let first = node.log.first_index().get();
    assert_eq!(node.read(first, 400), entries(first..400, 1, 3000));
}

#[test]
fn a_purge_whose_record_waits_for_the_next_segment_does_not_hold_it_up() {
    let mut node = Node::create(small(), 1);
    node.append(entries(1..=30, 1, 3000), Some(&hard_state(1, 1, 30)));
    // More than the rest of this segment and the spare hold; the truncation is recorded behind all of it.
    let last = node.log.append(entries(31..=90, 1, 3000), None).unwrap();
    node.log.note_checkpoint(mark(1, 30)).unwrap();
    node.settle();
    assert!(node.log.durable().covers(last));
    assert!(node.log.first_index() > LogIndex(1));
}
