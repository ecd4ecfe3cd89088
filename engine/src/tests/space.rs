//! Space: thin pages are packed, the file gives back what it does not need, and a crash at any moment harms nothing.

use std::collections::BTreeMap;

use mesh_base::CheckpointNo;
use mesh_base::io::FileId;
use mesh_base::prng::Prng;

use super::disk::Crash;
use super::driver::{Rig, Run, USER, put, small};
use crate::*;

type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

/// Pages of a small store's file.
fn file_pages(rig: &Rig) -> usize {
    rig.disk.bytes(FileId::Store).len() / 4096
}

fn key(number: usize) -> Vec<u8> {
    format!("key-{number:05}").into_bytes()
}

fn value(number: usize, round: usize) -> Vec<u8> {
    vec![(number * 7 + round) as u8; if number.is_multiple_of(97) { 20_000 } else { 100 }]
}

/// Keys in random order, in a few checkpoints.
fn load(rig: &mut Rig, keys: usize) -> Run<Contents> {
    let mut contents = Contents::new();
    let mut numbers: Vec<usize> = (0..keys).collect();
    Prng::new(1).shuffle(&mut numbers);
    for (revision, number) in (1..).zip(numbers) {
        rig.put(&key(number), revision, &value(number, 0))?;
        contents.insert(key(number), value(number, 0));
        if revision.is_multiple_of(300) {
            rig.checkpoint(revision)?;
        }
    }
    rig.checkpoint(keys as u64)?;
    Ok(contents)
}

fn check(rig: &mut Rig, contents: &Contents) {
    let found = rig.scan(&super::driver::all(ScanDirection::Forward, u64::MAX)).unwrap();
    let found: Contents = found.into_iter().map(|(key, _, value)| (key, value)).collect();
    assert!(found == *contents, "{} of {} keys", found.len(), contents.len());
    rig.assert_sound();
}

/// How full leaves are, of a thousand parts.
fn fill(rig: &mut Rig) -> u64 {
    let figures = rig.store().statistics();
    figures.leaf_bytes * 1000 / (figures.leaves * (4096 - 64))
}

#[test]
fn a_file_larger_than_the_format_can_describe_finds_no_space_and_is_left_as_it_was() {
    let mut rig = Rig::with_store(1, small());
    let contents = load(&mut rig, 300).unwrap();
    let no = rig.checkpoint(300).unwrap();
    rig.crash(Crash::LoseAll);
    rig.options.grow_bytes = 3 << 40;
    rig.open(no).unwrap().unwrap();
    for number in 0..1000 {
        rig.put(&key(number), 1000, &[1; 1000]).unwrap();
    }
    rig.begin_checkpoint(1000);
    for attempts in 1..3 {
        while rig.no_space < attempts {
            rig.turn().unwrap().unwrap();
        }
        rig.store.as_mut().unwrap().retry_space(&mut rig.io).unwrap();
    }
    assert_eq!(rig.get(&key(7), 1000), Some(vec![1; 1000]));
    rig.crash(Crash::LoseAll);
    rig.options = small();
    rig.open(no).unwrap().unwrap();
    check(&mut rig, &contents);
}

#[test]
fn a_random_load_that_rests_has_full_leaves_and_a_file_without_free_space() {
    let mut rig = Rig::with_store(1, small());
    let contents = load(&mut rig, 3000).unwrap();
    let (fill_before, pages_before) = (fill(&mut rig), file_pages(&rig));
    rig.rest(&mut Upkeep::default(), 3000).unwrap();
    let used = rig.store().statistics().used_pages as usize;
    assert!(fill_before < 800 && fill(&mut rig) >= 850, "{fill_before}, then {}", fill(&mut rig));
    assert!(file_pages(&rig) < pages_before, "{} of {pages_before} pages", file_pages(&rig));
    assert!(file_pages(&rig) <= used + 2 * (16 + used / 32) + 2, "{} pages, {used} in use", file_pages(&rig));
    check(&mut rig, &contents);
    // It is left alone then.
    let written = rig.disk.bytes_written;
    rig.rest(&mut Upkeep::default(), 3000).unwrap();
    assert_eq!(rig.disk.bytes_written, written);
}

#[test]
fn deleting_everything_gives_the_space_back() {
    let mut rig = Rig::with_store(2, small());
    let contents = load(&mut rig, 3000).unwrap();
    for (revision, key) in (5000..).zip(contents.keys()) {
        rig.delete(key, revision).unwrap();
        if revision.is_multiple_of(300) {
            rig.checkpoint(revision).unwrap();
        }
    }
    rig.store().set_horizon(mesh_base::Revision(9000));
    rig.rest(&mut Upkeep::default(), 3000).unwrap();
    let figures = rig.store().statistics();
    assert_eq!((figures.cells, figures.leaves, figures.interiors), (0, 1, 0));
    assert!(file_pages(&rig) <= 3 * 16, "{} pages", file_pages(&rig));
    rig.assert_sound();
}

#[test]
fn keys_overwritten_a_million_times_take_what_their_horizon_needs() {
    for (keys, most) in [(1, 120), (1000, 450)] {
        let mut rig = Rig::with_store(3, small());
        let mut upkeep = Upkeep::default();
        let mut longest = 0;
        for batch in 0..1_000_000 / 50 {
            let first = batch * 50 + 1;
            let names: Vec<Vec<u8>> = (0..50).map(|at| key((batch * 50 + at) * 7 % keys)).collect();
            let writes: Vec<CellWrite<'_>> =
                (first as u64..).zip(&names).map(|(revision, name)| put(name, revision, &[7; 100])).collect();
            rig.write(&writes).unwrap();
            // A horizon that follows in steps, so that versions do come together.
            if batch % 20 == 0 {
                rig.store().set_horizon(mesh_base::Revision(first as u64));
                rig.rest(&mut upkeep, 1).unwrap();
            }
            longest = longest.max(file_pages(&rig));
        }
        assert!(longest <= most, "{keys} keys: {longest} pages");
        rig.store().set_horizon(mesh_base::Revision(1_000_000));
        rig.rest(&mut upkeep, 2000).unwrap();
        assert_eq!(rig.store().statistics().cells, keys as u64);
        rig.assert_sound();
    }
}

/// A store of which two thirds were deleted.
fn thin(rig: &mut Rig) -> Contents {
    let mut contents = load(rig, 700).unwrap();
    for (revision, number) in (1000..).zip((0..700).filter(|number| number % 3 > 0)) {
        rig.delete(&key(number), revision).unwrap();
        contents.remove(&key(number));
    }
    rig.checkpoint(1500).unwrap();
    rig.store().set_horizon(mesh_base::Revision(1500));
    contents
}

/// Everything that upkeep does, with writes beside it.
fn tidy_up(rig: &mut Rig, contents: &mut Contents) -> Run<()> {
    let mut upkeep = Upkeep::default();
    for round in 0..16 {
        rig.rest(&mut upkeep, 100)?;
        rig.put(b"meanwhile", 2000 + round, &[round as u8; 50])?;
        contents.insert(b"meanwhile".to_vec(), vec![round as u8; 50]);
        if rig.store().running_checkpoint().is_none() {
            rig.begin_checkpoint(2000 + round);
        }
    }
    Ok(())
}

#[test]
fn a_crash_at_every_io_of_packing_moving_and_shrinking_harms_nothing() {
    for crash in [Crash::Tear, Crash::LoseAll, Crash::KeepAll, Crash::Kill] {
        let mut at = 0;
        loop {
            let mut rig = Rig::with_store(1, small());
            rig.disk.prng = Prng::new(at as u64);
            let before = thin(&mut rig);
            rig.done = vec![rig.store().checkpoint().checkpoint];
            rig.turn_off_at = Some(rig.disk.completed + at);
            let end = tidy_up(&mut rig, &mut before.clone());
            let least: CheckpointNo = *rig.done.last().unwrap();
            rig.crash(crash);
            rig.open(least).unwrap().unwrap();
            let mut found = before;
            if let Some(meanwhile) = rig.get(b"meanwhile", u64::MAX) {
                found.insert(b"meanwhile".to_vec(), meanwhile);
            }
            check(&mut rig, &found);
            rig.rest(&mut Upkeep::default(), 50).unwrap();
            check(&mut rig, &found);
            if let Ok(()) = end {
                assert!(file_pages(&rig) < 100, "{} pages", file_pages(&rig));
                break;
            }
            at += 2;
        }
        assert!(at > 50, "only {at} operations");
    }
}

#[test]
fn a_pinned_checkpoint_keeps_its_pages_and_the_file_its_length() {
    let mut rig = Rig::with_store(4, small());
    load(&mut rig, 1000).unwrap();
    let pin = rig.store().pin();
    let pages = file_pages(&rig);
    let keys: Vec<Vec<u8>> = (0..1000).map(key).collect();
    for (revision, key) in (5000..).zip(&keys) {
        rig.delete(key, revision).unwrap();
    }
    rig.checkpoint(9000).unwrap();
    rig.store().set_horizon(mesh_base::Revision(9000));
    let mut upkeep = Upkeep::default();
    rig.rest(&mut upkeep, 1500).unwrap();
    let (mut cells, mut from) = (0, None);
    loop {
        let chunk = rig
            .until_ready(|store| store.scan_cells(pin, KeyRange::starting_at(from.as_ref()), 6000))
            .unwrap()
            .unwrap();
        cells += usize::from(chunk.bytes.len() > 100);
        from = chunk.next;
        if from.is_none() {
            break;
        }
    }
    assert!(cells > 20 && file_pages(&rig) >= pages / 2, "{cells} chunks, {} pages", file_pages(&rig));
    rig.store().unpin(pin);
    rig.rest(&mut upkeep, 3000).unwrap();
    assert!(file_pages(&rig) <= 3 * 16, "{} pages", file_pages(&rig));
    assert_eq!(rig.try_get(USER, &keys[0], u64::MAX).unwrap().unwrap(), None);
    rig.assert_sound();
}
