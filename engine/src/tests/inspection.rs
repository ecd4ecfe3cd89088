//! What tools are told of a store's file, whole and damaged.

use bytes::Bytes;
use mesh_base::CheckpointNo;
use mesh_base::io::{FileId, IoError};

use super::driver::{Rig, small};
use crate::inspect::{self, CellHolds, FoundCopy, StoreImage};
use crate::superblock::{COPY_BYTES, Copy};
use crate::*;

const FILE: FileId = FileId::Store;

fn filled() -> Rig {
    let mut rig = Rig::with_store(1, small());
    for round in 1..=3_u64 {
        for number in 0..200_u64 {
            let size = if number % 50 == 0 { 9000 } else { 300 };
            let key = format!("key-{number:03}");
            rig.put(key.as_bytes(), round * 1000 + number, &vec![round as u8; size]).unwrap();
        }
        rig.checkpoint(round).unwrap();
    }
    rig
}

fn reader(image: &[u8]) -> impl FnMut(u64, usize) -> Result<Bytes, IoError> + '_ {
    |offset, length| {
        let start = (offset as usize).min(image.len());
        Ok(Bytes::copy_from_slice(&image[start..(start + length).min(image.len())]))
    }
}

fn newest(image: &[u8]) -> StoreImage {
    let copies = inspect::copies(&mut reader(image)).unwrap();
    inspect::newest(&copies).unwrap().clone()
}

fn verify(image: &[u8]) -> VerifyReport {
    newest(image).verify(&mut reader(image), &mut |_, _| {})
}

#[test]
fn a_file_tells_what_its_store_would() {
    let mut rig = filled();
    let expected = rig.verify().unwrap();
    let image = rig.disk.bytes(FILE).to_vec();
    let copies = inspect::copies(&mut reader(&image)).unwrap();
    assert!(copies.iter().all(|copy| matches!(copy.found, FoundCopy::Whole(_))));
    let found = newest(&image);
    assert_eq!(found.checkpoint(), rig.store().checkpoint());
    let report = verify(&image);
    assert_eq!(report, expected);
    assert_eq!((report.keys, report.cells, report.unreached_pages), (200, 600, 0));
    assert!(report.is_sound() && report.allocator_pages == 2 && found.height() > 0);

    let versions = found.versions(b"key-007", &mut reader(&image)).unwrap();
    let revisions: Vec<u64> = versions.iter().map(|cell| cell.key.revision.get()).collect();
    assert_eq!(revisions, [3007, 2007, 1007]);
    assert!(matches!(&versions[0].holds, CellHolds::Value { value, .. } if value[..] == [3; 300]));
    let large = found.versions(b"key-050", &mut reader(&image)).unwrap();
    assert!(matches!(&large[0].holds, CellHolds::Large { bytes: 9000, extents, .. } if extents.len() == 1));
    assert_eq!(found.versions(b"key-00", &mut reader(&image)).unwrap(), []);
}

#[test]
fn a_page_is_told_cell_by_cell_and_every_place_says_what_it_is() {
    let mut rig = filled();
    rig.settle();
    let image = rig.disk.bytes(FILE).to_vec();
    let found = newest(&image);
    let root = found.page(found.root().page, &mut reader(&image)).unwrap();
    assert_eq!((root.part, root.problem), (StorePart::Interior, None));
    assert_eq!((root.page, root.checksum), (found.root().page, found.root().checksum));
    let CellHolds::Child(child) = root.cells[1].holds else { panic!("{root:?}") };
    let below = found.page(child.page, &mut reader(&image)).unwrap();
    assert_eq!((below.checksum, below.checkpoint), (child.checksum, child.checkpoint));
    let mut parts = std::collections::BTreeSet::new();
    for page in 0..found.checkpoint().file_pages + 2 {
        let page = found.page(mesh_base::PageNo(page), &mut reader(&image)).unwrap();
        assert!(page.problem.is_some() || page.part != StorePart::Page);
        parts.insert(page.part);
    }
    assert_eq!(parts.len(), 6, "{parts:?}");
}

#[test]
fn damage_is_told_with_the_keys_it_touches_and_what_is_behind_it_is_counted() {
    let rig = filled();
    let image = rig.disk.bytes(FILE).to_vec();
    let sound = verify(&image);
    let root = newest(&image).root().page;
    let root = newest(&image).page(root, &mut reader(&image)).unwrap();
    // The leaf of a large value.
    let at = root.cells.iter().rposition(|cell| cell.key.key[..] <= b"key-050"[..]).unwrap();
    let CellHolds::Child(child) = root.cells[at].holds else { panic!("{root:?}") };
    let mut damaged = image.clone();
    damaged[child.page.get() as usize * 4096 + 100] ^= 1;
    let report = verify(&damaged);
    assert_eq!(report.problem_count, 1, "{:?}", report.problems);
    let problem = &report.problems[0];
    assert_eq!(
        (problem.page, problem.offset, problem.part),
        (child.page, child.page.get() * 4096, StorePart::Leaf)
    );
    let Some(AffectedKeys::Range { from, to }) = &problem.keys else { panic!("{problem:?}") };
    assert_eq!((from, to.as_ref()), (&root.cells[at].key, root.cells.get(at + 1).map(|cell| &cell.key)));
    assert_eq!(report.used_pages, sound.used_pages);
    assert!(report.cells < sound.cells && report.unreached_pages >= 3, "{report:?}");

    // A key under it cannot be told; all others can.
    let found = newest(&damaged);
    let named = found.versions(b"key-050", &mut reader(&damaged));
    assert!(matches!(named, Err(StoreError::Corrupt { offset, .. }) if offset == problem.offset));
    assert_eq!(found.versions(b"key-000", &mut reader(&damaged)).unwrap().len(), 3);
}

#[test]
fn a_damaged_copy_is_told_and_the_newest_whole_one_taken() {
    let rig = filled();
    let mut image = rig.disk.bytes(FILE).to_vec();
    let newest_copy = superblock::copy_offset(CheckpointNo(4)) as usize;
    image[newest_copy + 80] ^= 1;
    let copies = inspect::copies(&mut reader(&image)).unwrap();
    let damaged: Vec<u64> = copies
        .iter()
        .filter(|copy| matches!(copy.found, FoundCopy::Damaged(_)))
        .map(|copy| copy.offset)
        .collect();
    assert_eq!(damaged, [newest_copy as u64]);
    assert_eq!(newest(&image).checkpoint().checkpoint, CheckpointNo(3));
    (0..4).for_each(|copy| image[copy * 16_384 + 90] ^= 2);
    assert_eq!(inspect::newest(&inspect::copies(&mut reader(&image)).unwrap()), None);
}

#[test]
fn a_checkpoint_that_no_store_comes_to_is_damage_whatever_its_checksum() {
    let rig = filled();
    let mut image = rig.disk.bytes(FILE).to_vec();
    let Copy::Valid(mut copy) = Copy::read(&image[..COPY_BYTES], 0) else { panic!("a copy") };
    for (checkpoint, is_taken) in [(1 << 63, true), (u64::MAX - 3, false)] {
        copy.checkpoint = CheckpointNo(checkpoint);
        image[..COPY_BYTES].copy_from_slice(&copy.encode());
        let copies = inspect::copies(&mut reader(&image)).unwrap();
        assert_eq!(matches!(copies[0].found, FoundCopy::Whole(_)), is_taken);
    }
}
