//! The memory that a node was given is what it takes, however much it stores.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use mesh_base::prng::Prng;
use mesh_client::Cluster as Client;

use crate::cluster::{Cluster, Plan, block_on, peak_resident_bytes};

const MIB: usize = 1024 * 1024;
const LOADED_BYTES: usize = 4096 * MIB;
const MEMORY_BYTES: usize = 512 * MIB;
/// What a process takes beside what it was told to take at most: its code, its stacks, its allocator's slack.
const BESIDE_BYTES: usize = 64 * MIB;
/// Writes under way at a time.
const WRITERS: usize = 64;
/// Keys that are read afterwards.
const SAMPLE: usize = 2000;

const PLAN: Plan = Plan { memory: "512MiB", ..Plan::ONE };

fn key(number: usize) -> String {
    format!("{number:08}")
}

/// Bytes that tell whose they are.
fn value(number: usize, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    Prng::new(number as u64).fill(&mut bytes);
    bytes
}

/// Writes keys, each with a value of the length that `length` gives for its number, until all that is to be loaded is.
/// Answers how many.
async fn load(client: &Client, length: fn(usize) -> usize) -> usize {
    let (next, loaded) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let writers = (0..WRITERS).map(|_| {
        let (client, next, loaded) = (client.clone(), Arc::clone(&next), Arc::clone(&loaded));
        tokio::spawn(async move {
            while loaded.load(Ordering::Relaxed) < LOADED_BYTES {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let length = length(number);
                client.put(key(number), value(number, length)).await.unwrap();
                loaded.fetch_add(length, Ordering::Relaxed);
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    next.load(Ordering::Relaxed)
}

/// Loads a node, and asserts that its memory holds and that what was loaded is there.
fn stays_within_its_memory(what: &str, length: fn(usize) -> usize) {
    let cluster = Cluster::start(PLAN);
    block_on(async {
        let client = cluster.client().await;
        let begun = Instant::now();
        let keys = load(&client, length).await;
        let (loading, loaded) = (begun.elapsed(), peak_resident_bytes(cluster.pid(0)));
        let begun = Instant::now();
        for at in 0..SAMPLE {
            let number = at * keys / SAMPLE;
            let item = client.get(key(number)).await.unwrap();
            let item = item.unwrap_or_else(|| panic!("{} is lost", key(number)));
            assert!(item.value == value(number, length(number)), "{} is something else", key(number));
        }
        let peak = peak_resident_bytes(cluster.pid(0));
        let mib = |bytes: u64| bytes / MIB as u64;
        eprintln!(
            "{what}: {keys} keys, {} MiB in {loading:?}; at most {} MiB resident, {} MiB after {SAMPLE} reads in {:?}",
            LOADED_BYTES / MIB,
            mib(loaded),
            mib(peak),
            begun.elapsed(),
        );
        let allowed = (MEMORY_BYTES + BESIDE_BYTES) as u64;
        assert!(peak <= allowed, "{what}: {} MiB are more than {} MiB", mib(peak), mib(allowed));
    });
}

#[test]
fn a_node_stays_within_its_memory_while_eight_times_as_much_is_loaded() {
    stays_within_its_memory("values of 16 KiB", |_| 16 * 1024);
}

#[test]
fn a_node_stays_within_its_memory_whatever_the_sizes_of_values() {
    // From none to a mebibyte, each power of two as often as every other.
    stays_within_its_memory("values of up to 1 MiB", |number| {
        let mut prng = Prng::new(!(number as u64));
        let most = 1 << prng.index(21);
        prng.index(most + 1)
    });
}
