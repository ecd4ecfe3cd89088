//! Crashes at chosen moments.

use mesh_base::CheckpointNo;

use super::disk::Crash;
use super::driver::{IDENTITY, Rig, Run, TurnedOff, all, small};
use crate::*;

const CRASHES: [Crash; 5] = [Crash::Tear, Crash::LoseAll, Crash::KeepAll, Crash::LoseSuperblock, Crash::Kill];

fn key(number: u64) -> Vec<u8> {
    format!("key-{:04}", number * 37 % 200).into_bytes()
}

/// Writes and checkpoints; the state at checkpoint n is what the first `20 * (n - 1)` writes left.
fn script(rig: &mut Rig, started: &mut u64) -> Run<()> {
    for number in 0..120 {
        rig.put(&key(number), number + 1, &[number as u8; 900])?;
        if number % 20 == 19 {
            *started += 1;
            rig.begin_checkpoint(number + 1);
            // The next checkpoint's writes go on while this one is written.
            rig.put(b"meanwhile", number + 1, b"x")?;
            rig.delete(b"meanwhile", number + 2)?;
            rig.finish_checkpoint()?;
        }
    }
    Ok(())
}

#[test]
fn a_crash_at_every_io_leaves_the_last_durable_checkpoint_or_the_one_that_ran() {
    for crash in CRASHES {
        let mut at = 0;
        loop {
            let mut rig = Rig::with_store(at as u64, small());
            rig.done = vec![CheckpointNo(1)];
            rig.turn_off_at = Some(rig.disk.completed + at);
            let mut started = 1;
            let end = script(&mut rig, &mut started);
            let least = *rig.done.last().unwrap();
            rig.crash(crash);
            rig.open(least).unwrap().unwrap();
            let found = rig.store().checkpoint();
            assert!(
                found.checkpoint == least || found.checkpoint.get() == started,
                "{found:?} after {least}"
            );
            let writes = 20 * (found.checkpoint.get() - 1);
            assert_eq!(found.applied.get(), writes);
            rig.assert_sound();
            for number in 0..120 {
                let expected = (number < writes).then(|| vec![number as u8; 900]);
                assert_eq!(rig.get(&key(number), u64::MAX), expected, "{number}");
            }
            // And it goes on from there.
            rig.put(b"after", 1000, b"crash").unwrap();
            rig.checkpoint(0).unwrap();
            rig.assert_sound();
            if end.is_ok() {
                break;
            }
            at += if crash == Crash::Tear { 1 } else { 5 };
        }
        assert!(at > 80, "the script has only {at} operations");
    }
}

/// How a superblock came to be read and not durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum NotDurable {
    /// The process was killed before the sync.
    Unsynced,
    /// The sync failed. None after it saves what it failed to save.
    SyncFailed,
}

#[test]
fn a_superblock_that_can_be_read_and_is_not_durable_is_not_built_upon() {
    for why in [NotDurable::Unsynced, NotDurable::SyncFailed] {
        let mut rig = Rig::with_store(1, small());
        for number in 0..100 {
            rig.put(&key(number), number + 1, &[1; 900]).unwrap();
        }
        rig.checkpoint(1).unwrap();
        for number in 0..100 {
            rig.put(&key(number), number + 200, &[2; 900]).unwrap();
        }
        rig.store().set_horizon(mesh_base::Revision(400));
        let no = rig.begin_checkpoint(2);
        // Until the superblock was written, but not synced.
        let offset = superblock::copy_offset(no) as usize;
        let before = rig.disk.bytes(rig.file)[offset..offset + 4096].to_vec();
        while rig.disk.bytes(rig.file)[offset..offset + 4096] == before {
            rig.turn().unwrap().unwrap();
        }
        assert_eq!(rig.store().running_checkpoint(), Some(no));
        if why == NotDurable::SyncFailed {
            rig.disk.fail = Some(("sync", mesh_base::io::IoErrorKind::Device));
            while rig.turn().unwrap().is_ok() {}
        }
        rig.crash(Crash::Kill);
        rig.open(CheckpointNo(2)).unwrap().unwrap();
        assert_eq!(rig.store().checkpoint().checkpoint, no);
        // The next checkpoint reuses pages that only the one before that superblock needs.
        for number in 0..100 {
            rig.put(&key(number), number + 500, &[3; 900]).unwrap();
        }
        rig.begin_checkpoint(3);
        let written = rig.disk.bytes_written;
        while rig.disk.bytes_written < written + 30 * 4096 {
            rig.turn().unwrap().unwrap();
        }
        rig.crash(Crash::LoseSuperblock);
        rig.open(CheckpointNo(2)).unwrap().unwrap();
        rig.assert_sound();
    }
}

#[test]
fn a_crash_while_the_store_is_made_leaves_none_or_a_whole_one() {
    for crash in CRASHES {
        for at in 0.. {
            let mut rig = Rig::new(at as u64, small());
            rig.turn_off_at = Some(at);
            let made = rig.create();
            rig.crash(crash);
            match rig.open(CheckpointNo(0)).unwrap() {
                Ok(_) => rig.assert_sound(),
                Err(StoreError::Missing { .. } | StoreError::Corrupt { offset: 0, .. }) => {
                    assert!(made.is_err());
                }
                Err(error) => panic!("{error}"),
            }
            if made.is_ok() {
                break;
            }
        }
    }
}

#[test]
fn a_crash_while_opening_changes_nothing() {
    let mut rig = Rig::with_store(3, small());
    let mut started = 1;
    script(&mut rig, &mut started).unwrap();
    let expected = rig.scan(&all(ScanDirection::Forward, u64::MAX)).unwrap();
    rig.checkpoint(121).unwrap();
    for at in 0..20 {
        rig.crash(CRASHES[at % CRASHES.len()]);
        rig.turn_off_at = Some(rig.disk.completed + at);
        match rig.open(CheckpointNo(8)) {
            Err(TurnedOff) => {}
            Ok(opened) => {
                rig.turn_off_at = None;
                opened.unwrap();
                assert_eq!(rig.scan(&all(ScanDirection::Forward, u64::MAX)).unwrap(), expected);
            }
        }
    }
    assert!(rig.store.is_some());
}

/// The operations of the first checkpoint were not counted: who gave up a store that was being made began another beside it.
#[test]
fn an_opening_is_quiet_only_when_nothing_of_it_is_in_flight() {
    let mut rig = Rig::new(3, small());
    let mut opening = Opening::create(rig.file, IDENTITY, rig.options.clone(), &mut rig.io);
    loop {
        rig.disk.submit(&mut rig.io);
        assert!(!opening.is_quiet());
        let completion = rig.disk.complete_one().unwrap();
        if opening.complete(completion, &mut rig.io).unwrap().is_some() {
            break;
        }
    }
}
