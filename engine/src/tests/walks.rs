//! Walks: every cell, wherever its page is.

use bytes::Bytes;

use super::driver::{Rig, small};
use crate::*;

#[test]
fn a_walk_sees_every_cell_in_memory_or_not_and_brings_none_in() {
    let mut rig = Rig::with_store(1, small());
    let mut expected = Vec::new();
    for number in 0_u32..600 {
        let key = format!("key-{:06}", number * 7919 % 600).into_bytes();
        let value = vec![number as u8; if number % 50 == 0 { 20_000 } else { 200 }];
        rig.put(&key, 1, &value).unwrap();
        expected.push((1, key, 1, Some(value)));
        if number % 40 == 39 {
            rig.checkpoint(u64::from(number)).unwrap();
        }
    }
    // Some of it dirty, and in a checkpoint that is being written.
    rig.delete(b"key-000003", 2).unwrap();
    rig.begin_checkpoint(1000);
    rig.put(b"key-000001", 3, b"newer").unwrap();
    expected.push((1, b"key-000003".to_vec(), 2, None));
    expected.push((1, b"key-000001".to_vec(), 3, Some(b"newer".to_vec())));
    expected.sort_by_key(|(_, key, revision, _)| (key.clone(), u64::MAX - revision));

    let resident = rig.store().statistics().resident_bytes;
    assert_eq!(rig.walked(), expected);
    assert_eq!(rig.store().statistics().resident_bytes, resident);
    rig.finish_checkpoint().unwrap();
    assert_eq!(rig.walked(), expected);
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
