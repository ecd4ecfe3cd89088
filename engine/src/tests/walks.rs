//! Walks: every cell, wherever its page is.

use bytes::Bytes;

use super::driver::{Rig, small};
use crate::*;

/// What a walk of the rig's store comes by: key, revision, value.
fn walk(rig: &Rig) -> Vec<(Vec<u8>, u64, Option<Vec<u8>>)> {
    let read = |offset: u64, length: usize| {
        let bytes = rig.disk.bytes(rig.file).get(offset as usize..offset as usize + length)?;
        Some(Bytes::copy_from_slice(bytes))
    };
    let mut cells = Vec::new();
    let walked = rig.store.as_ref().unwrap().walk(&read, &mut |cell| {
        let value = cell.value.as_ref().map(|value| value.to_vec());
        cells.push((cell.key.key.to_vec(), cell.key.revision.get(), value));
    });
    walked.unwrap();
    cells
}

#[test]
fn a_walk_sees_every_cell_in_memory_or_not_and_brings_none_in() {
    let mut rig = Rig::with_store(1, small());
    let mut expected = Vec::new();
    for number in 0_u32..600 {
        let key = format!("key-{:06}", number * 7919 % 600).into_bytes();
        let value = vec![number as u8; if number % 50 == 0 { 20_000 } else { 200 }];
        rig.put(&key, 1, &value).unwrap();
        expected.push((key, 1, Some(value)));
        if number % 40 == 39 {
            rig.checkpoint(u64::from(number)).unwrap();
        }
    }
    // Some of it dirty, and in a checkpoint that is being written.
    rig.delete(b"key-000003", 2).unwrap();
    rig.begin_checkpoint(1000);
    rig.put(b"key-000001", 3, b"newer").unwrap();
    expected.push((b"key-000003".to_vec(), 2, None));
    expected.push((b"key-000001".to_vec(), 3, Some(b"newer".to_vec())));
    expected.sort_by_key(|(key, revision, _)| (key.clone(), u64::MAX - revision));

    let resident = rig.store().statistics().resident_bytes;
    assert_eq!(walk(&rig), expected);
    assert_eq!(rig.store().statistics().resident_bytes, resident);
    rig.finish_checkpoint().unwrap();
    assert_eq!(walk(&rig), expected);
}

#[test]
fn a_walk_names_a_page_that_is_not_what_the_tree_points_at() {
    let mut rig = Rig::with_store(2, small());
    for number in 0..600 {
        rig.put(format!("key-{number:06}").as_bytes(), 1, &[1; 200]).unwrap();
        if number % 40 == 39 {
            rig.checkpoint(number).unwrap();
        }
    }
    let zeros = |_: u64, length: usize| Some(Bytes::from(vec![0; length]));
    let walked = rig.store().walk(&zeros, &mut |_| {});
    assert!(matches!(walked, Err(StoreError::Corrupt { .. })), "{walked:?}");
}
