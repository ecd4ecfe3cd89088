//! A million keys, read in order in every way there is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use mesh_base::prng::Prng;
use mesh_client::{Bytes, Cluster as Client, Cursor, Entry, Range};

use crate::cluster::{Cluster, Plan, block_on};

const KEYS: usize = 1_000_000;
const VALUE_BYTES: usize = 256;
/// Keys of one batch, over all shards,
const BATCH: usize = 1000;
/// and how many batches are under way at a time.
const IN_FLIGHT: usize = 8;
/// Items that one client reads before another goes on with its cursor.
const PART: u64 = 40_000;

/// Keys are in the order of their numbers.
fn key(number: usize) -> String {
    format!("{number:07}")
}

fn value(number: usize) -> [u8; VALUE_BYTES] {
    let mut bytes = [0; VALUE_BYTES];
    Prng::new(number as u64).fill(&mut bytes);
    bytes
}

async fn load(client: &Client) {
    let next = Arc::new(AtomicUsize::new(0));
    let loaders = (0..IN_FLIGHT).map(|_| {
        let (client, next) = (client.clone(), Arc::clone(&next));
        tokio::spawn(async move {
            loop {
                let first = next.fetch_add(BATCH, Ordering::Relaxed);
                if first >= KEYS {
                    return;
                }
                let items = (first..first + BATCH).map(|number| (key(number), value(number)));
                client.put_many(items).await.unwrap();
            }
        })
    });
    for loader in loaders.collect::<Vec<_>>() {
        loader.await.unwrap();
    }
}

/// The reading of a range, part by part.
struct Reading {
    range: Range,
    stage: Stage,
}

enum Stage {
    New,
    /// It was left off here; the cursor as it is kept between two programs.
    LeftOff(String),
    End,
}

impl Reading {
    const fn new(range: Range) -> Self {
        Self { range, stage: Stage::New }
    }

    /// Reads the next part by a client of its own; nothing at the end.
    async fn part(&mut self, cluster: &Cluster) -> Vec<Entry> {
        let mut range = self.range.clone().limit(PART);
        match &self.stage {
            Stage::New => {}
            Stage::LeftOff(text) => range = range.resume(text.parse::<Cursor>().unwrap()),
            Stage::End => return Vec::new(),
        }
        let mut items = cluster.client().await.range(range);
        let mut entries = Vec::new();
        while let Some(entry) = items.next().await {
            entries.push(entry.unwrap());
        }
        self.stage = items.cursor().map_or(Stage::End, |cursor| Stage::LeftOff(cursor.to_string()));
        entries
    }

    /// Reads to the end; `expected` are the numbers of the keys that must come, and nothing else.
    async fn whole(mut self, cluster: &Cluster, mut expected: impl Iterator<Item = usize>, check: Check) {
        loop {
            let entries = self.part(cluster).await;
            if entries.is_empty() {
                break;
            }
            compare(&entries, &mut expected, check);
        }
        assert_eq!(expected.next(), None, "it ends too early");
    }
}

#[derive(Clone, Copy)]
enum Check {
    Items,
    KeysAlone,
}

fn compare(entries: &[Entry], expected: &mut impl Iterator<Item = usize>, check: Check) {
    for entry in entries {
        let number = expected.next().unwrap_or_else(|| panic!("{:?} is too many", entry.key));
        assert_eq!(entry.key, key(number), "a key is missing, doubled or out of order");
        let value = match check {
            Check::Items => Bytes::copy_from_slice(&value(number)),
            Check::KeysAlone => Bytes::new(),
        };
        assert_eq!(entry.item.value, value, "{:?}", entry.key);
    }
}

#[test]
fn a_million_keys_are_read_in_order_by_cursor_not_one_missing_or_doubled() {
    let mut cluster = Cluster::start(Plan::THREE);
    block_on(async {
        let begun = Instant::now();
        load(&cluster.client().await).await;
        eprintln!("loaded {KEYS} keys of {VALUE_BYTES} bytes in {:?}", begun.elapsed());

        // In order, while the nodes are killed one after the other.
        let begun = Instant::now();
        let (mut reading, mut expected) = (Reading::new(Range::all()), 0..KEYS);
        let mut parts = 0;
        loop {
            match parts {
                5 => cluster.kill(0),
                8 => cluster.run(0),
                12 => {
                    cluster.await_output(0, "cluster ready");
                    cluster.kill(1);
                    cluster.run(1);
                }
                _ => {}
            }
            let entries = reading.part(&cluster).await;
            if entries.is_empty() {
                break;
            }
            compare(&entries, &mut expected, Check::Items);
            parts += 1;
        }
        assert_eq!((expected.next(), parts), (None, 25));
        eprintln!("read in order in {:?}", begun.elapsed());

        let begun = Instant::now();
        let backwards = Reading::new(Range::all().reverse());
        backwards.whole(&cluster, (0..KEYS).rev(), Check::Items).await;
        eprintln!("read backwards in {:?}", begun.elapsed());

        let begun = Instant::now();
        let keys = Reading::new(Range::all().keys_only().page_items(10_000));
        keys.whole(&cluster, 0..KEYS, Check::KeysAlone).await;
        Reading::new(Range::prefix("01")).whole(&cluster, 100_000..200_000, Check::Items).await;
        Reading::new(Range::prefix("0123")).whole(&cluster, 123_000..124_000, Check::Items).await;
        let middle = Range::between(key(499_999), key(500_001)).reverse();
        Reading::new(middle).whole(&cluster, [500_000, 499_999].into_iter(), Check::Items).await;
        eprintln!("read keys alone, and prefixes, in {:?}", begun.elapsed());
    });
}
