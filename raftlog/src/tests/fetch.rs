//! Entries that left the memory, terms, size limits, snapshots.

use mesh_base::io::IoOp;
use mesh_base::{CheckpointNo, LogIndex, ReplicaId, Term};
use raft::eraftpb::Snapshot;
use raft::{Error, GetEntriesContext, Storage, StorageError};

use super::disk::Crash;
use super::harness::*;
use crate::{LogError, LogOptions, SnapshotBase};

fn keeping_all() -> LogOptions {
    LogOptions { retained_bytes: u64::MAX, ..small() }
}

/// 80 entries in many segments, of which a checkpoint contains 60.
fn with_checkpoint() -> Node {
    let mut node = Node::create(keeping_all(), 1);
    for index in 1..81 {
        node.append(
            entries(index..=index, 1 + index / 10, 2000),
            Some(&hard_state(1 + index / 10, 1, index)),
        );
    }
    node.checkpoint(1, 60);
    node
}

fn expected(index: u64) -> raft::eraftpb::Entry {
    entry(index, 1 + index / 10, 2000)
}

#[test]
fn entries_behind_the_checkpoint_are_there_at_once_and_older_ones_are_fetched() {
    let mut node = with_checkpoint();
    let now = GetEntriesContext::empty(false);
    assert_eq!(node.log.entries(61, 81, None, now).unwrap().len(), 20);
    let refused = node.log.entries(60, 81, None, GetEntriesContext::empty(false));
    assert_eq!(refused, Err(Error::Store(StorageError::Unavailable)));
    assert_eq!(node.read(1, 81), (1..81).map(expected).collect::<Vec<_>>());
    let (mut node, _) = node.restart(Crash::Power, keeping_all());
    assert_eq!(node.read(1, 81), (1..81).map(expected).collect::<Vec<_>>());
}

#[test]
fn who_asked_is_told_when_the_entries_are_there() {
    let mut node = with_checkpoint();
    for _ in 0..3 {
        let asked = node.log.entries(5, 20, 4000, GetEntriesContext::empty(true));
        assert_eq!(asked, Err(Error::Store(StorageError::LogTemporarilyUnavailable)));
    }
    let mut told = 0;
    while let Some(events) = node.step().unwrap() {
        told += events.fetched.len();
    }
    assert_eq!(told, 3);
    let entries = node.log.entries(5, 20, 4100, GetEntriesContext::empty(true)).unwrap();
    assert_eq!(entries, (5..7).map(expected).collect::<Vec<_>>());
}

#[test]
fn what_was_fetched_and_never_used_stays_within_its_bound() {
    let mut node = with_checkpoint();
    for low in 1..60 {
        let _ = node.log.entries(low, 61, None, GetEntriesContext::empty(true));
    }
    let before = node.log.memory_bytes();
    node.settle();
    assert!(node.log.memory_bytes() <= before + keeping_all().fetched_bytes_max);
}

#[test]
fn the_size_limit_is_rafts_and_the_first_entry_always_comes() {
    let mut node = with_checkpoint();
    for (limit, count) in [(Some(0), 1), (Some(1), 1), (Some(4030), 2), (Some(u64::MAX), 20), (None, 20)] {
        let mut all = (61..81).map(expected).collect::<Vec<_>>();
        raft::util::limit_size(&mut all, limit);
        let entries = node.log.entries(61, 81, limit, GetEntriesContext::empty(false)).unwrap();
        assert_eq!((entries.len(), &entries), (count, &all), "{limit:?}");
    }
    assert!(node.log.entries(81, 81, None, GetEntriesContext::empty(false)).unwrap().is_empty());
    assert_eq!(node.read(60, 62).len(), 2);
}

#[test]
fn a_term_is_never_missing_from_the_one_before_the_first_to_the_last() {
    let mut node = Node::create(small(), 1);
    for index in 1..81 {
        node.append(
            entries(index..=index, 1 + index / 10, 2000),
            Some(&hard_state(1 + index / 10, 1, index)),
        );
    }
    node.checkpoint(1, 60);
    let check = |node: &Node| {
        let first = node.log.first_index().get();
        assert!(first > 20, "old segments went");
        for index in first - 1..81 {
            assert_eq!(Storage::term(&node.log, index), Ok(1 + index / 10), "{index}");
        }
        assert_eq!(Storage::term(&node.log, first - 2), Err(Error::Store(StorageError::Compacted)));
        let before = node.log.entries(first - 1, 70, None, GetEntriesContext::empty(true));
        assert_eq!(before, Err(Error::Store(StorageError::Compacted)));
    };
    check(&node);
    let (node, _) = node.restart(Crash::Power, small());
    check(&node);
}

#[test]
fn a_hold_keeps_what_is_behind_it() {
    let mut node = Node::create(small(), 1);
    for index in 1..81 {
        node.append(entries(index..=index, 1, 2000), Some(&hard_state(1, 1, index)));
    }
    let hold = node.log.hold(LogIndex(30));
    node.checkpoint(1, 60);
    assert!((10..=31).contains(&node.log.first_index().get()));
    assert_eq!(node.read(31, 81), entries(31..81, 1, 2000));
    node.log.release(hold);
    node.settle();
    assert!((45..=61).contains(&node.log.first_index().get()));
}

/// Asks for entries and goes on until the log is told of damage, or fails.
fn meet_damage(node: &mut Node, low: u64, high: u64) -> Result<LogError, LogError> {
    let _ = node.log.entries(low, high, None, GetEntriesContext::empty(true));
    loop {
        let events = node.step()?.expect("the damage is met");
        if let Some(damage) = events.damage {
            assert!(!events.fetched.is_empty(), "who asked is told");
            return Ok(damage);
        }
    }
}

#[test]
fn damage_of_old_entries_is_never_served_and_harms_only_who_needs_them() {
    for after_a_restart in [false, true] {
        let mut node = with_checkpoint();
        if after_a_restart {
            node = node.restart(Crash::Power, keeping_all()).0;
        }
        let file = node.disk.segments()[1];
        node.disk.bytes(file)[3 * 4096 + 200] ^= 1;
        let damage = meet_damage(&mut node, 15, 50).unwrap();
        assert!(matches!(damage, LogError::Corrupt { file: found, offset: 12288, .. } if found == file));
        assert_eq!(node.log.damages(), 1);
        let first = node.log.first_index().get();
        assert!((16..40).contains(&first), "{first}");
        let refused = node.log.entries(15, 50, None, GetEntriesContext::empty(true));
        assert_eq!(refused, Err(Error::Store(StorageError::Compacted)));
        assert!(Storage::term(&node.log, first - 1).is_ok());
        assert_eq!(node.read(first, 81), (first..81).map(expected).collect::<Vec<_>>());
        node.append(entries(81..82, 9, 100), Some(&hard_state(9, 1, 80)));
        let (mut node, facts) = node.restart(Crash::Power, keeping_all());
        assert_eq!((facts.damage, node.log.first_index().get()), (None, first));
        assert_eq!(node.read(first, 81), (first..81).map(expected).collect::<Vec<_>>());
    }
}

#[test]
fn damage_of_old_entries_that_a_recovery_would_read_ends_the_use_of_the_log() {
    let mut node = Node::create(keeping_all(), 1);
    for index in 1..5 {
        node.append(entries(index..=index, 1, 2000), Some(&hard_state(1, 1, index)));
    }
    node.checkpoint(1, 4);
    let file = node.disk.segments()[0];
    node.disk.bytes(file)[2 * 4096 + 200] ^= 1;
    let error = meet_damage(&mut node, 1, 5).unwrap_err();
    assert!(matches!(error, LogError::Corrupt { file: found, offset: 8192, .. } if found == file));
    assert!(matches!(node.log.append(Vec::new(), None), Err(LogError::Poisoned { .. })));
}

#[test]
fn old_entries_that_cannot_be_read_are_lost_and_no_others() {
    let mut node = with_checkpoint();
    node.settle();
    let _ = node.log.entries(5, 50, None, GetEntriesContext::empty(true));
    node.disk.fail_next = Some("read");
    let damage = meet_damage(&mut node, 5, 50).unwrap();
    assert!(matches!(damage, LogError::Io(_)));
    let first = node.log.first_index().get();
    assert_eq!(node.read(first, 81), (first..81).map(expected).collect::<Vec<_>>());
}

#[test]
fn a_conflict_behind_the_checkpoint_does_not_disturb_a_fetch_before_it() {
    let mut node = Node::create(keeping_all(), 1);
    // One batch holds entries that the checkpoint contains and entries that it does not.
    node.append(entries(1..5, 1, 100), Some(&hard_state(1, 1, 2)));
    node.checkpoint(1, 2);
    let _ = node.log.entries(1, 5, None, GetEntriesContext::empty(true));
    node.pump();
    node.log.append(entries(3..4, 2, 100), Some(&hard_state(2, 1, 2))).unwrap();
    let mut told = 0;
    while let Some(events) = node.step().unwrap() {
        told += events.fetched.len();
    }
    assert_eq!(told, 1);
    let fetched = node.log.entries(1, 4, None, GetEntriesContext::empty(true)).unwrap();
    assert_eq!(fetched, entries(1..3, 1, 100));
}

#[test]
fn a_segment_is_not_let_go_while_it_is_read() {
    let mut node = with_checkpoint();
    let oldest = node.disk.segments()[0];
    node.settle();
    let _ = node.log.entries(1, 61, None, GetEntriesContext::empty(true));
    node.pump();
    assert!(node.disk.in_flight().iter().any(|op| matches!(op, IoOp::Read { file, .. } if *file == oldest)));
    node.log
        .install(SnapshotBase { index: LogIndex(200), term: Term(50), checkpoint: CheckpointNo(1) })
        .unwrap();
    loop {
        node.pump();
        let moves = |op: &&IoOp| matches!(op, IoOp::Rename { from, .. } if *from == oldest);
        assert!(node.disk.in_flight().iter().all(|op| !moves(op)));
        let Some(completion) = node.disk.complete_newest("write") else { break };
        node.log.complete(completion, &mut node.io).unwrap();
    }
    node.settle();
    assert!(!node.disk.segments().contains(&oldest));
    assert!(node.log.entries(201, 201, None, GetEntriesContext::empty(false)).unwrap().is_empty());
}

#[test]
fn a_log_starts_anew_at_a_snapshot() {
    let mut node = with_checkpoint();
    let base = SnapshotBase { index: LogIndex(500), term: Term(20), checkpoint: CheckpointNo(3) };
    let _ = node.log.entries(5, 20, None, GetEntriesContext::empty(true));
    node.log.install(base).unwrap();
    node.append(entries(501..504, 21, 100), Some(&hard_state(21, 1, 500)));
    let check = |node: &mut Node| {
        assert_eq!((node.log.first_index(), node.log.last_index()), (LogIndex(501), LogIndex(503)));
        assert_eq!(Storage::term(&node.log, 500), Ok(20));
        assert_eq!(node.read(501, 504), entries(501..504, 21, 100));
    };
    check(&mut node);
    assert_eq!(node.log.segments().0, node.log.segments().1, "the old segments went");
    let (mut node, facts) = node.restart(Crash::Power, keeping_all());
    check(&mut node);
    assert_eq!((facts.install, facts.least_checkpoint), (Some(base), mark(3, 500)));
    assert_eq!(facts.hard_state, hard_state(21, 1, 500));
    node.checkpoint(4, 502);
    let (_, facts) = node.restart(Crash::Power, keeping_all());
    assert_eq!((facts.install, facts.least_checkpoint), (None, mark(4, 502)));
}

#[test]
fn a_snapshot_whose_hard_state_was_torn_away_counts_as_committed() {
    let mut node = with_checkpoint();
    let base = SnapshotBase { index: LogIndex(500), term: Term(9), checkpoint: CheckpointNo(3) };
    node.log.install(base).unwrap();
    node.settle();
    let (_, facts) = node.restart(Crash::Power, keeping_all());
    assert_eq!(facts.hard_state.commit, 500);
}

#[test]
fn a_snapshot_is_given_if_it_is_new_enough_and_asked_for_otherwise() {
    let mut node = with_checkpoint();
    let unavailable = Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
    assert_eq!(node.log.snapshot(0, 5), unavailable);
    assert_eq!(node.log.take_snapshot_request(), Some((LogIndex(0), ReplicaId(5))));
    assert_eq!(node.log.take_snapshot_request(), None);
    let mut snapshot = Snapshot::default();
    snapshot.mut_metadata().index = 60;
    node.log.offer_snapshot(snapshot.clone());
    assert_eq!(node.log.snapshot(60, 5), Ok(snapshot));
    assert_eq!(node.log.snapshot(61, 6), unavailable);
    assert_eq!(node.log.take_snapshot_request(), Some((LogIndex(61), ReplicaId(6))));
}
