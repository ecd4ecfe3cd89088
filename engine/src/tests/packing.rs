//! Walks that pack and move: what they cost, how much of it at a time, and what they leave alone.

use mesh_base::PageNo;
use mesh_base::limits::EXTENT_BYTES_MAX;

use super::disk::Crash;
use super::driver::{Rig, put, small};
use crate::store::file_bytes;
use crate::tree::PackPlan;
use crate::*;

fn key(number: usize) -> Vec<u8> {
    format!("key-{number:05}").into_bytes()
}

/// A plan of a walk that moves what lies behind a page, without an end to what a call may do.
fn moving(before: PageNo) -> PackPlan {
    PackPlan { density: Density::AsIs, before: Some(before), pages_max: usize::MAX, bytes_max: usize::MAX }
}

/// A walk to its end, or to where it is stuck.
fn walk(rig: &mut Rig, plan: &PackPlan) -> PackProgress {
    let mut next = PackPoint::first();
    loop {
        let progress = rig.until_ready(|store| store.pack(&next, plan)).unwrap().unwrap();
        match &progress.next {
            Some(point) if !progress.is_stuck => next = point.clone(),
            _ => return progress,
        }
    }
}

/// Pages before one that may be handed out.
fn available_before(rig: &mut Rig, page: PageNo) -> u64 {
    let StoreStatistics { file_pages, available_pages, .. } = rig.store().statistics();
    available_pages + rig.store().pages_behind(page).needed - (file_pages - page.get())
}

/// Everything leaves the memory.
fn reopen(rig: &mut Rig) {
    let newest = rig.store().checkpoint().checkpoint;
    rig.crash(Crash::KeepAll);
    rig.open(newest).unwrap().unwrap();
}

/// Bytes that a walk misses at once.
fn missed_bytes(misses: &Misses, page_bytes: usize) -> usize {
    misses.wants.iter().map(|want| file_bytes(&want.pointer, want.expected, page_bytes)).sum()
}

#[test]
fn a_walk_over_a_cold_tree_leaves_what_is_used_in_memory() {
    let frames = 200;
    let options = StoreOptions { frame_bytes_max: frames * 4096, ..small() };
    let mut rig = Rig::with_store(1, options);
    for number in 0..10_000 {
        rig.put(&key(number), 1, &[1; 400]).unwrap();
        if number % 500 == 0 {
            rig.checkpoint(1).unwrap();
        }
    }
    rig.checkpoint(1).unwrap();
    reopen(&mut rig);
    // Every second leaf of a part of the tree, again and again.
    let hot: Vec<Vec<u8>> = (3000..4400).step_by(14).map(key).collect();
    for _ in 0..5 {
        hot.iter().for_each(|key| assert!(rig.get(key, 1).is_some()));
    }
    let reads = rig.disk.reads;
    hot.iter().for_each(|key| assert!(rig.get(key, 1).is_some()));
    assert_eq!(rig.disk.reads, reads, "the hot pages do not fit");
    let plan = PackPlan { density: Density::Dense, before: None, pages_max: 64, bytes_max: usize::MAX };
    assert_eq!(walk(&mut rig, &plan).next, None);
    assert_eq!(rig.store().dirtied_bytes(), 0, "there was something to pack");
    assert!(rig.disk.reads - reads > 3 * frames, "the walk is too short");
    let reads = rig.disk.reads;
    hot.iter().for_each(|key| assert!(rig.get(key, 1).is_some()));
    let missed = rig.disk.reads - reads;
    assert!(missed * 10 <= hot.len(), "{missed} of {} hot pages are gone", hot.len());
}

#[test]
fn a_page_moves_only_if_its_ancestors_have_lower_places_too() {
    for places in 0..5 {
        let mut rig = Rig::with_store(2, small());
        for number in 0..3000 {
            rig.put(&key(number), 1, &[1; 400]).unwrap();
            if number % 300 == 0 {
                rig.checkpoint(1).unwrap();
            }
        }
        rig.checkpoint(1).unwrap();
        assert_eq!(rig.store().statistics().height, 2);
        let file_pages = rig.store().statistics().file_pages;
        let mut pages = (16..file_pages).map(PageNo);
        let before = pages.find(|page| available_before(&mut rig, *page) == places).unwrap();
        let (behind, dirtied) = (rig.store().pages_behind(before), rig.store().dirtied_bytes());
        let progress = walk(&mut rig, &moving(before));
        assert!(progress.is_stuck, "{places} places are enough");
        let after = rig.store().pages_behind(before);
        assert_eq!(after.needed, behind.needed, "with {places} places a page moved to the back");
        assert_eq!(rig.store().statistics().file_pages, file_pages);
        // The first needs a place for the pages above it.
        let moved = places.saturating_sub(2);
        assert_eq!(rig.store().dirtied_bytes() - dirtied, if moved > 0 { places * 4096 } else { 0 });
        assert!(after.movable <= behind.movable - moved);
        rig.checkpoint(2).unwrap();
        rig.assert_sound();
    }
}

#[test]
fn large_values_move_a_mebibyte_at_a_time() {
    const MIB: usize = 1024 * 1024;
    for small_keys in [0, 2000] {
        let options = StoreOptions { frame_bytes_max: 4 * MIB, ..StoreOptions::default() };
        let page_bytes = options.page_bytes;
        let mut rig = Rig::with_store(3, options);
        let value = |number: usize| vec![number as u8; (number % 8 + 1) * MIB - number];
        for number in 0..small_keys {
            rig.put(&format!("a-{number:05}").into_bytes(), 1, &[1; 400]).unwrap();
        }
        for number in 0..24 {
            rig.put(&key(number), 1, &value(number)).unwrap();
            rig.checkpoint(1).unwrap();
        }
        for number in 0..12 {
            rig.write(&[CellWrite { change: Change::Remove, ..put(&key(number), 1, &[]) }]).unwrap();
        }
        rig.checkpoint(2).unwrap();
        rig.checkpoint(2).unwrap();
        let used = rig.store().statistics().used_pages;
        let before = PageNo(used + used / 8);
        let to_move = rig.store().pages_behind(before).movable;
        assert!(to_move as usize * page_bytes > 20 * MIB, "{to_move} pages to move");
        let step_bytes_max = EXTENT_BYTES_MAX + 4 * page_bytes;
        let plan = PackPlan { bytes_max: 1, ..moving(before) };
        reopen(&mut rig);
        let mut next = Some(PackPoint::first());
        while let Some(from) = next {
            let dirtied = rig.store().dirtied_bytes();
            let look = |store: &mut Store| {
                let found = store.pack(&from, &plan)?;
                if let Lookup::Miss(misses) = &found {
                    let bytes = missed_bytes(misses, page_bytes);
                    assert!(bytes <= EXTENT_BYTES_MAX, "{bytes} bytes are wanted at once");
                }
                Ok(found)
            };
            next = rig.until_ready(look).unwrap().unwrap().next;
            let store = rig.store();
            let dirtied = (store.dirtied_bytes() - dirtied) as usize;
            assert!(dirtied <= step_bytes_max, "{dirtied} bytes in one call");
            let clean = store.resident_bytes() - store.dirty_bytes();
            assert!(clean <= 5 * MIB, "{clean} bytes are in memory");
            if store.dirty_bytes() > 8 * MIB {
                rig.checkpoint(2).unwrap();
            }
        }
        rig.checkpoint(2).unwrap();
        // Also the one that lay across the place where the file is to end.
        assert_eq!(rig.store().pages_behind(before).movable, 0);
        for number in 0..24 {
            let expected = (number >= 12).then(|| value(number));
            assert!(rig.get(&key(number), 1) == expected, "value {number}");
        }
        rig.assert_sound();
    }
}

/// A store with values of one page each in its front, every second of which was deleted, and behind them a page, from which
/// on values of three pages lie, for none of which there is a lower place.
fn without_runs(rig: &mut Rig) -> PageNo {
    for number in 0..200 {
        rig.put(&key(number), 1, &[1; 3000]).unwrap();
    }
    rig.checkpoint(1).unwrap();
    let before = rig.store().statistics().file_pages;
    // What is free before is used up, so that the others lie behind.
    let mut filled = 200;
    while available_before(rig, PageNo(before)) > 0 {
        rig.put(&key(filled), 1, &[1; 3000]).unwrap();
        filled += 1;
    }
    for number in 0..40 {
        rig.put(&format!("large-{number:05}").into_bytes(), 1, &[2; 10_000]).unwrap();
    }
    rig.checkpoint(1).unwrap();
    for number in (0..200).step_by(2) {
        rig.write(&[CellWrite { change: Change::Remove, ..put(&key(number), 1, &[]) }]).unwrap();
    }
    rig.checkpoint(1).unwrap();
    rig.checkpoint(1).unwrap();
    PageNo(before)
}

#[test]
fn a_leaf_whose_large_values_have_no_lower_place_is_left_alone() {
    let mut rig = Rig::with_store(4, small());
    let before = without_runs(&mut rig);
    // The pages of the tree move, and a value at a time to where the one before it was.
    let moves_nothing = |rig: &mut Rig| {
        let dirtied = rig.store().dirtied_bytes();
        assert_eq!(walk(rig, &moving(before)).next, None);
        rig.checkpoint(1).unwrap();
        rig.store().dirtied_bytes() == dirtied
    };
    assert!((0..60).any(|_| moves_nothing(&mut rig)), "walks write without an end");
    assert!(rig.store().pages_behind(before).movable > 30 * 3);
    assert!(available_before(&mut rig, before) > 10, "single pages are free");
    reopen(&mut rig);
    rig.disk.read_at.clear();
    assert_eq!(walk(&mut rig, &moving(before)).next, None);
    assert_eq!(rig.store().dirtied_bytes(), 0);
    let reads = &rig.disk.read_at;
    assert!(reads.iter().all(|(from, to)| to - from == 4096), "values are read that cannot move: {reads:?}");
    // Where nothing at all is free, there is no point in going on.
    for number in 0.. {
        if available_before(&mut rig, before) == 0 {
            break;
        }
        rig.put(&format!("z-{number:05}").into_bytes(), 1, &[3; 3000]).unwrap();
    }
    let dirtied = rig.store().dirtied_bytes();
    assert!(walk(&mut rig, &moving(before)).is_stuck);
    assert_eq!(rig.store().dirtied_bytes(), dirtied);
}
