//! What a log in use promises.

use mesh_base::LogIndex;
use mesh_base::io::{Completion, IoOp};
use raft::Storage;

use super::disk::Crash;
use super::harness::*;
use crate::{LogError, LogOptions};

/// Completes the oldest or newest batch write by hand.
fn complete_newest_write(node: &mut Node) -> crate::LogEvents {
    let completion: Completion = node.disk.complete_newest("write").unwrap();
    let events = node.log.complete(completion, &mut node.io).unwrap();
    node.disk.submit(&mut node.io);
    events
}

#[test]
fn an_append_is_one_write_and_is_readable_at_once() {
    let mut node = Node::create(small(), 1);
    node.settle();
    let seq = node.log.append(entries(1..4, 1, 300), Some(&hard_state(1, 2, 0))).unwrap();
    assert_eq!(node.log.entries(1, 4, None, raft::GetEntriesContext::empty(false)).unwrap().len(), 3);
    assert!(!node.durable().covers(seq));
    node.pump();
    let writes = node.disk.in_flight();
    assert!(matches!(writes[..], [IoOp::Write { data, .. }] if data.len() == 4096), "{writes:?}");
    node.settle();
    assert!(node.durable().covers(seq));
}

#[test]
fn appends_made_while_the_disk_is_busy_share_the_next_write() {
    let mut node = Node::create(LogOptions { writes_in_flight_max: 1, ..small() }, 1);
    node.settle();
    let first = node.log.append(entries(1..2, 1, 10), None).unwrap();
    node.pump();
    let shared: Vec<_> =
        (2..7).map(|index| node.log.append(entries(index..index + 1, 1, 10), None).unwrap()).collect();
    assert!(shared.iter().all(|seq| *seq == first.next()));
    node.pump();
    assert_eq!(node.disk.in_flight().len(), 1);
    node.settle();
    assert!(node.durable().covers(first.next()));
}

#[test]
fn a_write_that_overtakes_is_not_acknowledged_before_its_predecessor() {
    let mut node = Node::create(small(), 1);
    node.settle();
    let first = node.log.append(entries(1..2, 1, 10), None).unwrap();
    node.pump();
    let second = node.log.append(entries(2..3, 1, 10), None).unwrap();
    node.pump();
    assert!(complete_newest_write(&mut node).durable.is_none());
    assert!(!node.durable().covers(first));
    let events = complete_newest_write(&mut node);
    assert!(events.durable.unwrap().covers(second));
}

#[test]
fn a_long_append_takes_several_batches_and_its_last_one_is_answered() {
    let mut node = Node::create(small(), 1);
    node.settle();
    let before = node.durable().seq();
    let seq = node.log.append(entries(1..9, 1, 3000), Some(&hard_state(1, 1, 0))).unwrap();
    assert_eq!(seq.get() - before.get(), 4);
    node.settle();
    assert!(node.durable().covers(seq));
    let (node, _) = node.restart(Crash::Power, small());
    assert_eq!(node.log.last_index(), LogIndex(8));
}

#[test]
fn a_conflict_replaces_entries_and_their_terms() {
    let mut node = Node::create(small(), 1);
    node.append(entries(1..10, 1, 100), Some(&hard_state(1, 1, 3)));
    node.append(entries(5..7, 2, 200), Some(&hard_state(2, 1, 3)));
    let expected = [entries(1..5, 1, 100), entries(5..7, 2, 200)].concat();
    assert_eq!(node.read(1, 7), expected);
    assert_eq!(Storage::term(&node.log, 5).unwrap(), 2);
    assert!(Storage::term(&node.log, 7).is_err());
    let (mut node, _) = node.restart(Crash::Power, small());
    assert_eq!(node.log.last_index(), LogIndex(6));
    assert_eq!(node.read(1, 7), expected);
}

#[test]
fn the_log_goes_from_segment_to_segment_and_all_of_it_comes_back() {
    let mut node = Node::create(small(), 1);
    for index in 1..101 {
        node.append(entries(index..=index, 1, 3000), None);
    }
    assert!(node.log.segments().1.get() > 5);
    let (mut node, facts) = node.restart(Crash::Power, small());
    assert_eq!((facts.torn, facts.batches, facts.bytes), (None, 100, 100 * 4096));
    assert_eq!(node.read(1, 101), entries(1..101, 1, 3000));
}

#[test]
fn an_entry_that_fits_no_segment_is_refused_and_changes_nothing() {
    let mut node = Node::create(small(), 1);
    let error = node.log.append(entries(1..2, 1, 60_000), Some(&hard_state(9, 9, 0))).unwrap_err();
    assert!(matches!(error, LogError::EntryTooLarge { index: LogIndex(1), .. }), "{error}");
    assert_eq!((node.log.hard_state().term, node.log.last_index()), (0, LogIndex(0)));
    node.append(entries(1..2, 1, 50_000), None);
    assert_eq!(node.log.last_index(), LogIndex(1));
}

#[test]
fn after_a_failed_write_nothing_is_acknowledged_and_nothing_submitted() {
    let mut node = Node::create(small(), 1);
    node.settle();
    let seq = node.log.append(entries(1..2, 1, 10), None).unwrap();
    node.disk.fail_next = Some("write");
    node.pump();
    assert!(matches!(node.step(), Err(LogError::Io(_))));
    let poisoned = |result: Result<_, LogError>| matches!(result, Err(LogError::Poisoned { .. }));
    assert!(poisoned(node.log.append(entries(2..3, 1, 10), None)));
    assert!(poisoned(node.log.note_checkpoint(mark(1, 0))));
    node.pump();
    node.log.idle(&mut node.io);
    node.log.retry_space(&mut node.io);
    assert!(node.io.is_empty() && !node.durable().covers(seq));
    let (node, _) = node.restart(Crash::Power, small());
    assert!(node.log.last_index() <= LogIndex(1));
}

#[test]
fn an_idle_log_writes_one_marker_and_no_more() {
    let mut node = Node::create(small(), 1);
    node.settle();
    let submitted = node.disk.submitted;
    node.idle();
    assert_eq!(node.disk.submitted, submitted, "the header testifies for what is before it");
    let seq = node.append(entries(1..2, 1, 10), None);
    node.idle();
    assert_eq!(node.durable().seq(), seq.next());
    node.idle();
    assert_eq!(node.durable().seq(), seq.next());
    let (_, facts) = node.restart(Crash::Power, small());
    assert_eq!((facts.torn, facts.batches), (None, 2));
}

#[test]
fn zeros_are_ahead_of_the_append_position() {
    let mut node = Node::create(small(), 1);
    node.settle();
    for round in 1..30 {
        node.append(entries(round..=round, 1, 2000), None);
        let writes = node.disk.in_flight();
        assert!(writes.is_empty(), "{writes:?}");
    }
    assert!(node.log.segments().1.get() > 1);
}

#[test]
fn the_commit_index_counts_when_it_is_durable() {
    let mut node = Node::create(small(), 1);
    node.append(entries(1..6, 1, 10), Some(&hard_state(1, 1, 2)));
    assert_eq!(node.log.durable_commit(), LogIndex(2));
    node.log.append(Vec::new(), Some(&hard_state(1, 1, 5))).unwrap();
    assert_eq!((node.log.hard_state().commit, node.log.durable_commit()), (5, LogIndex(2)));
    node.settle();
    assert_eq!(node.log.durable_commit(), LogIndex(5));
}

#[test]
fn a_commit_index_is_not_durable_before_the_entries_it_commits() {
    let options = LogOptions { writes_in_flight_max: 1, ..small() };
    let mut node = Node::create(options.clone(), 1);
    node.append(entries(1..9, 1, 10), Some(&hard_state(1, 1, 2)));
    // Another leader's entries replace some and are committed at once; they take several batches.
    node.log.append(entries(3..9, 2, 2500), Some(&hard_state(2, 0, 8))).unwrap();
    node.pump();
    node.step().unwrap();
    let last = node.log.durable_last().index.get();
    assert!((3..8).contains(&last));
    assert_eq!(node.log.durable_commit(), LogIndex(2));
    for crash in [Crash::Process, Crash::Power] {
        let mut disk = node.disk.clone();
        disk.crash(crash);
        let (_, facts) = Node::recover(disk, options.clone());
        assert!(facts.hard_state == hard_state(2, 0, 2) || facts.hard_state == hard_state(2, 0, 8));
    }
}

#[test]
fn a_vote_is_durable_no_later_than_the_entries_of_its_term() {
    for seed in 0..100 {
        let mut node = Node::create(small(), seed);
        node.append(entries(1..3, 1, 10), Some(&hard_state(1, 1, 2)));
        node.log.append(entries(3..20, 2, 2500), Some(&hard_state(2, 5, 10))).unwrap();
        for _ in 0..seed % 8 {
            node.step().unwrap();
        }
        let (node, facts) = node.restart(Crash::Power, small());
        let last_term = node.log.term_of(node.log.last_index()).unwrap();
        assert!(facts.hard_state.term >= last_term.get());
    }
}
