//! A crash at every operation of a recovery, and then again.

use mesh_base::LogIndex;

use super::disk::{Crash, Disk};
use super::harness::*;
use crate::{LogOptions, Recovered};

/// A log whose tail a crash tore.
fn torn(seed: u64) -> (Disk, u64) {
    let mut node = Node::create(LogOptions { retained_bytes: 64 * 1024, ..small() }, seed);
    for index in 1..41 {
        node.append(entries(index..=index, 1, 2500), Some(&hard_state(1, 1, index - 1)));
        if index == 30 {
            node.checkpoint(1, 25);
        }
    }
    for index in 41..46 {
        node.log.append(entries(index..=index, 1, 2500), None).unwrap();
        node.pump();
    }
    node.disk.crash(Crash::Power);
    (node.disk, 40)
}

fn check(disk: Disk, acknowledged: u64) -> (Disk, u64) {
    let (mut node, facts) = Node::recover(disk, small());
    let last = node.log.last_index().get();
    assert!((acknowledged..46).contains(&last), "{last}");
    assert_eq!((facts.hard_state, facts.least_checkpoint), (hard_state(1, 1, 39), mark(1, 25)));
    let first = node.log.first_index().get();
    assert_eq!(node.read(first, last + 1), entries(first..=last, 1, 2500));
    node.append(entries(last + 1..last + 3, 2, 100), None);
    node.settle();
    node.disk.crash(Crash::Power);
    (node.disk, last + 2)
}

#[test]
fn a_recovery_that_crashes_anywhere_twice_finds_the_same_log() {
    for crash in [Crash::Power, Crash::Process] {
        let (disk, acknowledged) = torn(5);
        let (_, _, completions) = recover_for(disk.clone(), small(), u64::MAX);
        assert!(completions > 10);
        for first in 0..=completions {
            let (_, mut once, _) = recover_for(disk.clone(), small(), first);
            once.crash(crash);
            let (_, _, completions) = recover_for(once.clone(), small(), u64::MAX);
            for second in (0..=completions).rev().take(8) {
                let (_, mut twice, _) = recover_for(once.clone(), small(), second);
                twice.crash(crash);
                let (disk, last) = check(twice, acknowledged);
                let (node, _) = Node::recover(disk, small());
                assert_eq!(node.log.last_index(), LogIndex(last));
            }
        }
    }
}

#[test]
fn what_a_recovery_cut_is_cut_for_every_later_one() {
    for seed in 0..50 {
        let (disk, _) = torn(seed);
        let (node, _) = Node::recover(disk, small());
        let last = node.log.last_index();
        let mut disk = node.disk;
        for _ in 0..3 {
            disk.crash(Crash::Power);
            let (node, facts) = Node::recover(disk, small());
            assert_eq!((node.log.last_index(), facts.torn), (last, None));
            disk = node.disk;
        }
    }
}

#[test]
fn what_a_failed_write_left_is_lost_before_a_recovery_relies_on_it_or_never() {
    let mut seen = 0;
    for seed in 0..100 {
        let mut node = Node::create(small(), seed);
        node.append(entries(1..4, 1, 2500), None);
        node.log.append(entries(4..5, 1, 2500), None).unwrap();
        node.disk.fail_next = Some("write");
        assert!(node.step().is_err());
        node.disk.crash(Crash::Process);
        let (node, _) = Node::recover(node.disk, small());
        let last = node.log.last_index();
        seen += u64::from(last == LogIndex(4));
        let (node, facts) = node.restart(Crash::Power, small());
        assert_eq!((node.log.last_index(), facts.torn), (last, None), "seed {seed}");
    }
    assert!(seen > 10, "{seen}");
}

#[test]
fn a_creation_that_crashes_leaves_no_log_or_the_whole_of_it() {
    for seed in 0..200 {
        let mut disk = Disk::new(seed);
        let mut io = mesh_base::io::IoQueue::new();
        let first = crate::FirstState { hard_state: hard_state(4, 2, 0), ..Default::default() };
        let prng = mesh_base::prng::Prng::new(seed);
        let mut creation = crate::Creation::start(identity(), small(), &first, prng, &mut io);
        for _ in 0..seed % 9 {
            disk.submit(&mut io);
            if let Some(completion) = disk.complete_any() {
                creation.complete(completion, &mut io).unwrap();
            }
        }
        disk.submit(&mut io);
        disk.crash(if seed % 2 == 0 { Crash::Power } else { Crash::Process });
        match recover(disk, small()) {
            (Ok(Recovered::Empty), disk) => {
                Node::create_on(disk, small()).unwrap_or_else(|failed| panic!("{}", failed.0));
            }
            (Ok(Recovered::Log(recovered)), _) => assert_eq!(recovered.hard_state, hard_state(4, 2, 0)),
            (Err(error), _) => panic!("seed {seed}: {error}"),
        }
    }
}
