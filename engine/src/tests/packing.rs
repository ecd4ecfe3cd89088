//! Walks that pack and move: what they cost, how much of it at a time, and what they leave alone.

use mesh_base::PageNo;

use super::disk::Crash;
use super::driver::{Rig, small};
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
