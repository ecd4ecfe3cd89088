//! One thing at a time.

use mesh_base::CheckpointNo;

use super::disk::Crash;
use super::driver::{Rig, all, small};
use crate::*;

fn key(number: u32) -> Vec<u8> {
    format!("key-{number:06}").into_bytes()
}

#[test]
fn what_was_checkpointed_is_there_after_a_crash_and_what_was_not_is_gone() {
    let mut rig = Rig::with_store(1, small());
    rig.put(b"a", 1, b"one").unwrap();
    rig.checkpoint(7).unwrap();
    rig.put(b"b", 2, b"two").unwrap();
    rig.crash(Crash::KeepAll);
    assert_eq!(rig.open(CheckpointNo(2)).unwrap(), Ok(vec![]));
    assert_eq!(rig.store().checkpoint().applied.get(), 7);
    assert_eq!(rig.get(b"a", 9), Some(b"one".to_vec()));
    assert_eq!(rig.get(b"b", 9), None);
    rig.assert_sound();
}

#[test]
fn data_ten_times_the_memory_is_a_normal_case() {
    let mut rig = Rig::with_store(2, small());
    let order: Vec<u32> = (0..2000).map(|number| number * 7919 % 2000).collect();
    for (index, number) in order.iter().enumerate() {
        rig.put(&key(*number), 1 + index as u64, &[*number as u8; 300]).unwrap();
        if index % 50 == 49 {
            rig.checkpoint(index as u64).unwrap();
        }
    }
    rig.checkpoint(5000).unwrap();
    let statistics = rig.store().statistics();
    assert!(statistics.used_pages * 4096 > 10 * 64 * 1024, "{statistics:?}");
    assert!(statistics.resident_bytes <= 64 * 1024, "{statistics:?}");
    assert_eq!((statistics.cells, statistics.keys), (2000, 2000));
    for number in 0..2000 {
        assert_eq!(rig.get(&key(number), 5000), Some(vec![number as u8; 300]), "{number}");
    }
    for direction in [ScanDirection::Forward, ScanDirection::Reverse] {
        let mut numbers: Vec<Vec<u8>> =
            rig.scan(&all(direction, 5000)).unwrap().into_iter().map(|item| item.0).collect();
        if direction == ScanDirection::Reverse {
            numbers.reverse();
        }
        assert_eq!(numbers, (0..2000).map(key).collect::<Vec<_>>());
    }
    rig.assert_sound();
}

#[test]
fn an_ascending_load_leaves_full_pages() {
    let mut rig = Rig::with_store(3, StoreOptions { frame_bytes_max: 1 << 24, ..small() });
    for number in 0..3000 {
        rig.put(&key(number), 1, &[1; 100]).unwrap();
    }
    rig.checkpoint(1).unwrap();
    let report = rig.verify().unwrap();
    assert!(report.is_sound(), "{:#?}", report.problems);
    let filled = report.leaf_bytes_used * 100 / (report.leaves * 4032);
    assert!(filled >= 95, "leaves are {filled}% full");
}

#[test]
fn values_of_every_size_come_back() {
    let mut rig = Rig::with_store(4, StoreOptions { frame_bytes_max: 1 << 20, ..small() });
    let sizes = [0, 1, 1023, 1024, 1025, 4032, 4033, 9000, 1 << 20, (1 << 20) - 64, (8 << 20) - 1, 8 << 20];
    let value = |size: usize| (0..size).map(|index| (index * 31 + size) as u8).collect::<Vec<u8>>();
    for (index, size) in sizes.iter().enumerate() {
        rig.put(&key(index as u32), 1, &value(*size)).unwrap();
    }
    rig.checkpoint(1).unwrap();
    rig.crash(Crash::LoseAll);
    rig.open(CheckpointNo(2)).unwrap().unwrap();
    for (index, size) in sizes.iter().enumerate() {
        assert_eq!(rig.get(&key(index as u32), 1), Some(value(*size)), "{size}");
    }
    rig.assert_sound();
    let used = rig.store().statistics().used_pages;
    for index in 0..sizes.len() {
        rig.put(&key(index as u32), 1, b"small now").unwrap();
    }
    rig.checkpoint(2).unwrap();
    rig.checkpoint(3).unwrap();
    assert!(rig.store().statistics().used_pages < used / 100);
    rig.assert_sound();
}

#[test]
fn keys_of_every_size_and_any_bytes_come_back() {
    let options = StoreOptions { page_bytes: 8192, key_bytes_max: 2048, ..small() };
    let mut rig = Rig::with_store(5, options);
    let keys: Vec<Vec<u8>> = (1..=128)
        .map(|number: usize| (0..number * 16).map(|index| (index * number * 37 / 5) as u8).collect())
        .chain([vec![0], vec![0, 0], vec![255], vec![255; 2048], vec![0; 2048]])
        .collect();
    for (index, key) in keys.iter().enumerate() {
        rig.put(key, 1 + index as u64, key).unwrap();
    }
    rig.checkpoint(1).unwrap();
    for key in &keys {
        assert_eq!(rig.get(key, 1000).as_ref(), Some(key));
    }
    rig.assert_sound();
}

#[test]
fn a_key_or_value_beyond_its_limit_is_refused_and_nothing_changes() {
    let mut rig = Rig::with_store(6, StoreOptions { value_bytes_max: 100, ..small() });
    let (long, big) = ([1; 601], [1; 101]);
    for write in [super::driver::put(&long, 1, b""), super::driver::put(b"k", 1, &big)] {
        let before = super::driver::put(b"before", 1, b"");
        let refused = rig.store().write(&[before, write]);
        assert!(matches!(refused, Err(StoreError::TooLarge { .. })));
        assert_eq!(rig.get(b"before", 9), None);
    }
}

#[test]
fn a_full_disk_delays_a_checkpoint_and_harms_nothing() {
    let mut rig = Rig::with_store(7, StoreOptions { frame_bytes_max: 1 << 20, ..small() });
    rig.disk.capacity = 100 * 4096;
    for number in 0..1000 {
        rig.put(&key(number), 1, &[7; 500]).unwrap();
    }
    rig.begin_checkpoint(1);
    while rig.no_space == 0 {
        rig.turn().unwrap().unwrap();
    }
    assert_eq!(rig.get(&key(500), 1), Some(vec![7; 500]));
    rig.disk.capacity = u64::MAX;
    let mut io = std::mem::take(&mut rig.io);
    rig.store().retry_space(&mut io).unwrap();
    rig.io = io;
    rig.finish_checkpoint().unwrap();
    rig.assert_sound();
}

#[test]
fn a_checkpoint_keeps_its_bytes_in_flight_bounded_and_writes_adjacent_pages_together() {
    let mut rig = Rig::with_store(8, StoreOptions { frame_bytes_max: 1 << 22, ..small() });
    for number in 0..4000 {
        rig.put(&key(number), 1, &[7; 200]).unwrap();
    }
    let writes = rig.disk.writes;
    rig.begin_checkpoint(1);
    while rig.store().running_checkpoint().is_some() {
        rig.turn().unwrap().unwrap();
        assert!(rig.disk.bytes_in_flight() <= 8 * 4096 + 256 * 1024);
    }
    let (writes, pages) = (rig.disk.writes - writes, rig.disk.bytes_written / 4096);
    assert!(writes * 8 < pages, "{writes} writes for {pages} pages");
}
