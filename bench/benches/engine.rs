//! Micro-benchmarks of the page store and the log: `cargo bench -p mesh-bench`. Everything is in memory; nothing waits for a
//! device. What they are good for is comparing two builds on a quiet machine.

#![allow(clippy::expect_used, reason = "a benchmark that fails has nothing to say")]

#[path = "../src/engine/resident.rs"]
mod resident;

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use mesh_base::prng::Prng;

use self::resident::{ResidentLog, ResidentStore};

const KEYS: u64 = 100_000;
const VALUE: [u8; 256] = [7; 256];
const PAGES: [usize; 3] = [4096, 8192, 16384];
/// Operations between two checkpoints of an apply: each then copies some of its pages, as between two of the server's.
const BATCHES_OF_A_CHECKPOINT: usize = 1000;

fn main() {
    divan::main();
}

fn key(number: u64) -> [u8; 16] {
    let mut key = *b"bench:0000000000";
    key.iter_mut().zip(format!("bench:{number:010}").bytes()).for_each(|(to, from)| *to = from);
    key
}

/// A store with every key, loaded in random order, and the generator of further draws.
fn loaded(page_bytes: usize) -> (ResidentStore, Prng) {
    let mut prng = Prng::new(1);
    let mut keys: Vec<_> = (0..KEYS).map(key).collect();
    prng.shuffle(&mut keys);
    (ResidentStore::load(page_bytes, &keys, &VALUE).expect("a store in memory"), prng)
}

#[divan::bench(args = PAGES)]
fn get(bencher: Bencher<'_, '_>, page_bytes: usize) {
    let (store, mut prng) = loaded(page_bytes);
    bencher
        .with_inputs(|| key(prng.range(0..KEYS)))
        .bench_local_values(|key| store.get(&key).expect("a lookup").expect("a key that is there"));
}

#[divan::bench(args = PAGES)]
fn range_of_100(bencher: Bencher<'_, '_>, page_bytes: usize) {
    let (store, mut prng) = loaded(page_bytes);
    bencher
        .counter(ItemsCount::new(100_usize))
        .with_inputs(|| key(prng.range(0..KEYS - 100)))
        .bench_local_values(|start| store.range(&start, 100).expect("a range"));
}

#[divan::bench(args = [1, 64], consts = [4096, 8192, 16384])]
fn apply<const PAGE_BYTES: usize>(bencher: Bencher<'_, '_>, batch: usize) {
    let (mut store, mut prng) = loaded(PAGE_BYTES);
    let mut applied = 0;
    bencher.counter(ItemsCount::new(batch)).bench_local(|| {
        let keys: Vec<_> = (0..batch).map(|_| key(prng.range(0..KEYS))).collect();
        let entry = store.entry(&keys, &VALUE);
        store.apply(&entry).expect("an apply");
        applied += 1;
        if applied % BATCHES_OF_A_CHECKPOINT == 0 {
            store.checkpoint().expect("a checkpoint");
        }
    });
}

#[divan::bench(args = [1, 64])]
fn encode_entry(bencher: Bencher<'_, '_>, batch: usize) {
    let mut store = ResidentStore::load(8192, &[], &VALUE).expect("a store in memory");
    let keys: Vec<_> = (0..batch as u64).map(key).collect();
    bencher.counter(ItemsCount::new(batch)).bench_local(|| store.entry(black_box(&keys), &VALUE));
}

#[divan::bench(args = [400, 4000, 64_000])]
fn log_append(bencher: Bencher<'_, '_>, bytes: usize) {
    let mut log = ResidentLog::new().expect("a log in memory");
    let data = bytes::Bytes::from(vec![7; bytes]);
    bencher.counter(BytesCount::new(bytes)).bench_local(|| log.append(data.clone()).expect("an append"));
}

#[divan::bench(args = PAGES)]
fn checksum_of_a_page(bencher: Bencher<'_, '_>, bytes: usize) {
    let page = vec![7; bytes];
    bencher.counter(BytesCount::new(bytes)).bench_local(|| mesh_base::checksum::xxh3(black_box(&page)));
}

#[divan::bench(args = [4096, 65_536])]
fn checksum_of_a_batch(bencher: Bencher<'_, '_>, bytes: usize) {
    let batch = vec![7; bytes];
    bencher.counter(BytesCount::new(bytes)).bench_local(|| mesh_base::checksum::crc32(&[black_box(&batch)]));
}
