//! What an open reads, and what it leaves to those who ask for it.

use mesh_base::LogIndex;
use mesh_base::io::{FileId, IoOp};
use mesh_base::limits::LOG_HEADER_TERM_RUNS_MAX;
use raft::{Error, GetEntriesContext, Storage, StorageError};

use super::disk::{Crash, Disk};
use super::harness::*;
use crate::{LogError, LogOptions, Recovered, Recovery};

fn keeping_all() -> LogOptions {
    LogOptions { retained_bytes: u64::MAX, ..small() }
}

fn term(index: u64) -> u64 {
    2 + index / 10 * 2
}

fn expected(index: u64) -> raft::eraftpb::Entry {
    entry(index, term(index), 2000)
}

/// A closed log of so many entries, of which a checkpoint contains all but a few. Each tenth replaced some of a leader that
/// did not last.
fn closed(count: u64, unsaved: u64) -> Disk {
    let mut node = Node::create(keeping_all(), 1);
    for index in 1..=count {
        let term = term(index);
        if index % 10 == 0 {
            node.append(entries(index..index + 3, term - 1, 900), Some(&hard_state(term - 1, 1, index - 1)));
        }
        node.append(vec![expected(index)], Some(&hard_state(term, 1, index)));
    }
    node.checkpoint(1, count - unsaved);
    close(&mut node);
    node.disk
}

fn close(node: &mut Node) {
    node.log.close(&mut node.io);
    while node.log.is_closing() {
        assert!(node.step().unwrap().is_some(), "a closing comes to its end");
    }
    node.settle();
}

fn newest(disk: &Disk) -> FileId {
    *disk.segments().last().unwrap()
}

fn length_of(disk: &Disk, file: FileId) -> usize {
    disk.listing().into_iter().find(|(other, _)| *other == file).unwrap().1
}

/// The bytes of segments that a recovery reads behind their headers, and how many headers.
fn bytes_read(mut disk: Disk, options: LogOptions) -> (u64, usize) {
    let mut io = mesh_base::io::IoQueue::new();
    let prng = mesh_base::prng::Prng::new(1);
    let mut recovery = Recovery::start(identity(), options, prng, &mut io);
    let (mut bytes, mut headers) = (0, 0);
    loop {
        for submission in io.drain() {
            if let IoOp::Read { offset, length, .. } = submission.op {
                bytes += if offset > 0 { length as u64 } else { 0 };
                headers += usize::from(offset == 0);
            }
            disk.submit_one(submission);
        }
        let completion = disk.complete_any().unwrap();
        if let Some(Recovered::Log(_)) = recovery.complete(completion, &mut io).unwrap() {
            return (bytes, headers);
        }
    }
}

#[test]
fn a_closed_log_is_opened_without_reading_more_than_headers_however_long_it_is() {
    for count in [10, 100, 400] {
        let disk = closed(count, 0);
        assert_eq!(length_of(&disk, newest(&disk)), 4096);
        let segments = disk.segments().len();
        assert_eq!(bytes_read(disk.clone(), keeping_all()), (0, segments));
        let (mut node, facts) = Node::recover(disk, keeping_all());
        assert_eq!((facts.batches, facts.bytes, facts.torn), (0, 0, None));
        for index in 1..=count {
            assert_eq!(Storage::term(&node.log, index), Ok(term(index)), "{index}");
        }
        assert_eq!(node.log.first_index(), LogIndex(1));
        assert_eq!(node.read(1, count + 1), (1..=count).map(expected).collect::<Vec<_>>());
        for low in 1..=count {
            assert_eq!(node.read(low, low + 1), [expected(low)]);
        }
    }
}

#[test]
fn what_no_checkpoint_contains_is_read_and_nothing_before_its_segment() {
    let disk = closed(200, 20);
    let segments = disk.segments();
    let (mut node, facts) = Node::recover(disk, keeping_all());
    let at = segments.iter().position(|file| *file == FileId::Segment(facts.walked_from)).unwrap();
    assert!((1..segments.len() - 1).contains(&at) && facts.batches > 0);
    let in_memory = node.log.entries(181, 201, None, GetEntriesContext::empty(false)).unwrap();
    assert_eq!(in_memory, (181..201).map(expected).collect::<Vec<_>>());
    assert_eq!(node.read(1, 201), (1..201).map(expected).collect::<Vec<_>>());
}

#[test]
fn a_checkpoint_that_is_noted_in_the_newest_segment_counts() {
    let mut node = Node::create(keeping_all(), 1);
    for index in 1..=200 {
        node.append(vec![expected(index)], Some(&hard_state(term(index), 1, index)));
    }
    for (no, applied) in [(1, 20), (2, 110), (3, 200)] {
        node.checkpoint(no, applied);
        let mut disk = node.disk.clone();
        disk.crash(Crash::Power);
        let (mut again, facts) = Node::recover(disk, keeping_all());
        let newest = again.log.segments().1.get() - 1;
        let share = newest * applied / 200;
        let walked_from = facts.walked_from.get();
        assert!((share.saturating_sub(1)..=share + 1).contains(&walked_from), "{walked_from} of {newest}");
        assert_eq!(facts.least_checkpoint, mark(no, applied));
        let unsaved = again.log.entries(applied + 1, 201, None, GetEntriesContext::empty(false)).unwrap();
        assert_eq!(unsaved, (applied + 1..201).map(expected).collect::<Vec<_>>());
        assert_eq!(again.read(1, 201), (1..201).map(expected).collect::<Vec<_>>());
        for index in 1..=200 {
            assert_eq!(Storage::term(&again.log, index), Ok(term(index)));
        }
    }
}

#[test]
fn a_closed_log_that_is_used_again_is_as_durable_as_any() {
    let (mut node, _) = Node::recover(closed(40, 0), keeping_all());
    close(&mut node);
    let files = node.disk.segments().len();
    // Nothing was written since it was opened: the closing segment took the fresh one's place.
    close(&mut node);
    assert_eq!((node.disk.segments().len(), length_of(&node.disk, newest(&node.disk))), (files, 4096));
    node.append(entries(41..60, 12, 2000), Some(&hard_state(12, 1, 40)));
    node.checkpoint(2, 40);
    let (mut node, facts) = node.restart(Crash::Power, small());
    assert_eq!((facts.hard_state, node.log.last_index()), (hard_state(12, 1, 40), LogIndex(59)));
    assert_eq!(node.read(41, 60), entries(41..60, 12, 2000));
    node.settle();
    assert!(node.log.first_index() > LogIndex(1), "old segments go again");
}

#[test]
fn a_log_cannot_be_closed_on_a_full_disk_and_nothing_is_lost() {
    let mut node = Node::create(small(), 1);
    node.append(entries(1..10, 1, 100), None);
    node.disk.full = true;
    close(&mut node);
    node.append(Vec::new(), Some(&hard_state(3, 1, 0)));
    node.disk.full = false;
    let (node, facts) = node.restart(Crash::Power, small());
    assert_eq!((node.log.last_index(), facts.hard_state), (LogIndex(9), hard_state(3, 1, 0)));
}

#[test]
fn closings_and_openings_in_a_row_do_not_pile_up_files() {
    let mut disk = closed(100, 0);
    let files = disk.segments().len();
    for _ in 0..10 {
        let (mut node, facts) = Node::recover(disk, keeping_all());
        assert_eq!((facts.batches, node.log.last_index()), (0, LogIndex(100)));
        node.settle();
        close(&mut node);
        disk = node.disk;
        disk.crash(Crash::Power);
        assert_eq!(disk.segments().len(), files);
        assert!(disk.listing().len() <= files + 1, "{:?}", disk.listing());
    }
}

#[test]
fn a_closing_that_crashes_anywhere_leaves_the_log_as_it_was() {
    for at_start in [false, true] {
        for steps in 0..12 {
            for (seed, crash) in (0..20).flat_map(|seed| [(seed, Crash::Power), (seed, Crash::Process)]) {
                let mut node = Node::create(small(), seed);
                node.append(entries(1..30, 1, 2000), Some(&hard_state(1, 1, 20)));
                if at_start {
                    node = node.restart(Crash::Process, small()).0;
                }
                node.log.close(&mut node.io);
                for _ in 0..steps {
                    node.step().unwrap();
                }
                let (mut node, facts) = node.restart(crash, small());
                assert_eq!((facts.hard_state, facts.torn), (hard_state(1, 1, 20), None));
                assert_eq!(node.read(1, 30), entries(1..30, 1, 2000));
            }
        }
    }
}

/// Reads all there is; where that meets damage, from behind it on. Answers the first that could be read.
fn read_what_is_left(node: &mut Node, last: u64) -> u64 {
    loop {
        let first = node.log.first_index().get();
        let mut low = first;
        while low <= last {
            match node.log.entries(low, last + 1, None, GetEntriesContext::empty(true)) {
                Ok(entries) => {
                    entries.iter().for_each(|entry| assert_eq!(*entry, expected(entry.index)));
                    low += entries.len() as u64;
                }
                Err(Error::Store(StorageError::LogTemporarilyUnavailable)) => {
                    while node.step().unwrap().expect("a fetch is never forgotten").fetched.is_empty() {}
                }
                Err(Error::Store(StorageError::Compacted)) => break,
                Err(error) => panic!("{error}"),
            }
        }
        if low > last {
            return first;
        }
    }
}

#[test]
fn damage_of_what_is_merely_kept_harms_neither_the_open_nor_what_is_behind_it() {
    let disk = closed(120, 15);
    let (_, facts) = Node::recover(disk.clone(), keeping_all());
    let (mut met, mut told, mut harmless) = (0, 0, 0);
    for file in disk.segments() {
        let kept = file < FileId::Segment(facts.walked_from);
        for at in (0..length_of(&disk, file)).step_by(4096) {
            let mut damaged = disk.clone();
            damaged.bytes(file)[at + 100] ^= 1;
            let (result, after) = recover(damaged, keeping_all());
            let recovered = match result {
                Ok(Recovered::Log(recovered)) => recovered,
                Err(LogError::Corrupt { file: named, offset, .. }) => {
                    assert!(!kept && named == file && offset == at as u64, "{named} {offset}");
                    continue;
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(recovered.damage.is_some(), kept && at == 0, "{file} {at}");
            assert_eq!(
                (recovered.hard_state, recovered.least_checkpoint),
                (facts.hard_state.clone(), mark(1, 105))
            );
            let mut node = Node { disk: after, log: recovered.log, io: mesh_base::io::IoQueue::new() };
            for index in node.log.first_index().get()..=120 {
                assert_eq!(Storage::term(&node.log, index), Ok(term(index)));
            }
            let first = read_what_is_left(&mut node, 120);
            assert!(first <= 106);
            match (first > 1, at) {
                (true, 0) => told += 1,
                (true, _) => met += 1,
                (false, _) => harmless += 1,
            }
            assert_eq!(node.log.damages(), u64::from(first > 1), "{file} {at}");
            // It is forgotten for good.
            let (mut node, facts) = node.restart(Crash::Power, keeping_all());
            assert_eq!((facts.damage, node.log.first_index().get()), (None, first), "{file} {at}");
            assert_eq!(read_what_is_left(&mut node, 120), first);
        }
    }
    assert!(told > 3 && met > 50 && harmless > 10, "{told} {met} {harmless}");
}

#[test]
fn a_log_of_more_terms_than_a_header_lists_misses_none() {
    let count = 3 * LOG_HEADER_TERM_RUNS_MAX as u64;
    let mut node = Node::create(keeping_all(), 1);
    for index in 1..=count {
        node.append(entries(index..=index, index, 1500), Some(&hard_state(index, 1, index)));
    }
    node.checkpoint(1, count);
    close(&mut node);
    let (mut node, facts) = node.restart(Crash::Power, keeping_all());
    // The newest header that lists all terms so far is that of a segment before which there are as many as it has room for.
    let segments = node.log.segments().1.get();
    let share = segments * LOG_HEADER_TERM_RUNS_MAX as u64 / count;
    assert!((share..=share + 1).contains(&facts.walked_from.get()), "{} of {segments}", facts.walked_from);
    for index in 1..=count {
        assert_eq!(Storage::term(&node.log, index), Ok(index));
    }
    // What is let go need not be listed.
    node.settle();
    let (mut node, _) = node.restart(Crash::Power, LogOptions { retained_bytes: 256 * 1024, ..small() });
    node.settle();
    let first = node.log.first_index().get();
    assert!(count - first < LOG_HEADER_TERM_RUNS_MAX as u64);
    close(&mut node);
    let (node, facts) = node.restart(Crash::Power, small());
    assert_eq!(facts.batches, 0);
    for index in first - 1..=count {
        assert_eq!(Storage::term(&node.log, index), Ok(index));
    }
}
