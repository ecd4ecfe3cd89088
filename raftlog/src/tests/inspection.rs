//! What tools are told of a log's segments, whole and damaged.

use mesh_base::limits::SECTOR_BYTES;
use mesh_base::{CheckpointNo, LogIndex, Term};

use super::disk::{Crash, Disk};
use super::harness::*;
use crate::inspect::{self, SegmentSurvey, Tail};
use crate::{LogError, LogOptions, SnapshotBase};

/// A log of three segments; a batch per entry, each of a sector.
fn written() -> Disk {
    let mut node = Node::create(LogOptions { writes_in_flight_max: 1, ..small() }, 1);
    for index in 1..31 {
        node.append(entries(index..=index, 1, 1500), Some(&hard_state(1, 2, index - 1)));
    }
    node.disk.crash(Crash::Process);
    node.disk
}

fn survey(disk: &mut Disk, number: u64) -> SegmentSurvey {
    let next = disk.segments().contains(&segment(number + 1));
    let successor = next.then(|| disk.bytes(segment(number + 1))[..SECTOR_BYTES].to_vec());
    inspect::segment(disk.bytes(segment(number)), successor.as_deref(), small().revision_of)
}

#[test]
fn segments_tell_what_a_recovery_finds() {
    let mut disk = written();
    let surveys: Vec<_> = (1..=3).map(|number| survey(&mut disk, number)).collect();
    let (_, facts) = Node::recover(disk, small());
    assert_eq!(surveys.iter().map(|survey| survey.batches + survey.markers).sum::<u64>(), facts.batches);
    assert_eq!(surveys.iter().map(|survey| survey.entries).sum::<u64>(), 30);
    assert!(surveys.iter().all(|survey| survey.damage.is_empty()));
    assert_eq!(
        surveys.iter().map(|survey| survey.tail).collect::<Vec<_>>(),
        [Tail::Continued, Tail::Continued, Tail::Clean]
    );
    let (first, last) = surveys[1].range.unwrap();
    assert_eq!(first.index, surveys[0].range.unwrap().1.index.next());
    assert_eq!(surveys[1].header.as_ref().unwrap().last.index, first.index.prev());
    let revisions = surveys[1].revisions.unwrap();
    assert_eq!(
        (revisions.least.get(), revisions.greatest.get()),
        (first.index.get() * 10, last.index.get() * 10)
    );
    assert_eq!(surveys[2].hard_state.as_ref().unwrap(), &facts.hard_state);
}

#[test]
fn damage_is_told_where_a_recovery_finds_it_and_what_is_behind_it_is_read() {
    let disk = written();
    for number in 1..=3 {
        let whole = survey(&mut disk.clone(), number);
        let end = usize::try_from(whole.end).unwrap();
        for at in (0..end).step_by(SECTOR_BYTES) {
            let mut damaged = disk.clone();
            damaged.bytes(segment(number))[at + 90] ^= 1;
            let found = survey(&mut damaged, number);
            let error = recover(damaged, small()).0;
            if number == 3 && at + SECTOR_BYTES == end {
                // Nothing testifies for the newest batch.
                assert_eq!((found.tail, found.damage), (Tail::Torn, Vec::new()));
                continue;
            }
            let Err(LogError::Corrupt { file, offset, .. }) = error else { panic!("{error:?}") };
            assert_eq!((file, offset), (segment(number), at as u64));
            assert_eq!(found.damage.len(), 1, "sector {at} of {number}: {:?}", found.damage);
            assert_eq!(found.damage[0].offset, offset);
            let lost = u64::from(at > 0);
            assert_eq!((found.damage[0].batches, found.entries), (lost, whole.entries - lost));
            if let Some((first, last)) = found.damage[0].entries {
                assert_eq!(first, last, "one entry each");
                assert!(first.get() >= whole.range.unwrap().0.index.get());
            }
        }
    }
}

#[test]
fn lost_entries_are_told_from_what_is_before_and_behind() {
    let mut disk = written();
    let first = survey(&mut disk, 2).range.unwrap().0.index;
    disk.bytes(segment(2))[3 * SECTOR_BYTES..6 * SECTOR_BYTES].fill(0);
    let found = survey(&mut disk, 2);
    assert_eq!(found.damage[0].offset, 3 * SECTOR_BYTES as u64);
    assert_eq!(found.damage[0].batches, 3);
    let lost = (LogIndex(first.get() + 2), LogIndex(first.get() + 4));
    assert_eq!(found.damage[0].entries, Some(lost));
}

#[test]
fn bytes_that_are_no_segment_are_told_to_be_damaged() {
    for bytes in [Vec::new(), vec![0; 100], vec![0xa5; 64 * 1024]] {
        let found = inspect::segment(&bytes, None, small().revision_of);
        assert_eq!((found.header, found.batches), (None, 0));
        assert_eq!(found.damage[0].offset, 0);
    }
}

#[test]
fn a_snapshot_waits_for_its_store_until_a_checkpoint_settles_it() {
    let mut node = Node::create(small(), 1);
    node.append(entries(1..10, 1, 100), Some(&hard_state(1, 2, 9)));
    let base = SnapshotBase { index: LogIndex(500), term: Term(20), checkpoint: CheckpointNo(3) };
    node.log.install(base).unwrap();
    node.append(entries(501..504, 21, 100), Some(&hard_state(21, 1, 500)));
    let newest = |node: &mut Node| {
        let mut disk = node.disk.clone();
        disk.crash(Crash::Process);
        let number = disk.segments().len() as u64;
        let newest = (1..=number + 10).rev().find(|number| disk.segments().contains(&segment(*number)));
        survey(&mut disk, newest.unwrap())
    };
    assert_eq!(newest(&mut node).install, Some(base));
    node.checkpoint(4, 502);
    node.settle();
    assert_eq!(newest(&mut node).install, None);
}
