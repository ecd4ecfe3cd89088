//! Every size and every byte that keys and values may have.

use std::collections::BTreeMap;

use mesh_base::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use mesh_base::prng::Prng;
use mesh_client::{Bytes, Cluster as Client, LogIndex, Range, ShardId};

use crate::cluster::{Cluster, Plan, block_on};

const KEY_LENGTHS: [usize; 8] = [1, 2, 3, 255, 256, 257, KEY_BYTES_MAX - 1, KEY_BYTES_MAX];
const MIB: usize = 1024 * 1024;
/// The limits of a cell, of a page, of an extent and of a value are among them, and what is beside those.
const VALUE_LENGTHS: [usize; 22] = [
    0,
    1,
    100,
    2047,
    2048,
    2049,
    4095,
    4096,
    4097,
    8191,
    8192,
    65_535,
    65_536,
    65_537,
    MIB - 65,
    MIB - 64,
    MIB - 63,
    MIB,
    MIB + 1,
    3 * MIB + 17,
    VALUE_BYTES_MAX - 1,
    VALUE_BYTES_MAX,
];

/// Keys and values in the order of the keys.
type Content = BTreeMap<Bytes, Bytes>;

/// Keys of every length and every byte, with values of every length.
fn content() -> Content {
    let mut prng = Prng::new(7);
    let mut keys: Vec<Vec<u8>> = KEY_LENGTHS.iter().map(|&length| bytes(&mut prng, length)).collect();
    for byte in [0x00, 0xff] {
        keys.extend(KEY_LENGTHS.iter().map(|&length| vec![byte; length]));
    }
    keys.extend((0..=u8::MAX).map(|byte| vec![byte]));
    keys.extend((0..=u8::MAX).map(|byte| vec![b'k', byte, b'k']));
    keys.push((0..=u8::MAX).collect());
    // Prefixes of each other, up to the longest.
    let longest = bytes(&mut prng, KEY_BYTES_MAX);
    keys.extend((4..KEY_BYTES_MAX).step_by(73).map(|length| longest[..length].to_vec()));
    keys.push(longest);
    // What decides of a key's slot, whole and in part.
    for key in ["{", "}", "{}", "{}{a}", "{a}", "{a}b", "{a", "a}", "{{a}}", "}{a}"] {
        keys.push(key.into());
    }
    let mut content = Content::new();
    for key in keys {
        let length = prng.index(300);
        content.insert(key.into(), bytes(&mut prng, length).into());
    }
    for length in VALUE_LENGTHS {
        content.insert(format!("value of {length}").into(), bytes(&mut prng, length).into());
    }
    // The longest key with the largest value.
    content.insert(vec![0xa5; KEY_BYTES_MAX].into(), bytes(&mut prng, VALUE_BYTES_MAX).into());
    content
}

fn bytes(prng: &mut Prng, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    prng.fill(&mut bytes);
    bytes
}

/// Writes the small values in one batch, the others one by one.
async fn write(client: &Client, content: &Content) {
    let (small, large): (Vec<_>, Vec<_>) = content.iter().partition(|(_, value)| value.len() < 4096);
    client.put_many(small).await.unwrap();
    for (key, value) in large {
        client.put(key, value).await.unwrap();
    }
}

/// Asserts that every way to read gives what was written, and nothing else.
async fn compare(client: &Client, content: &Content) {
    for (key, value) in content {
        let item = client.get(key).await.unwrap();
        let item = item.unwrap_or_else(|| panic!("{} is lost", key.escape_ascii()));
        assert!(item.value == *value, "{} is something else", key.escape_ascii());
    }
    let together = client.get_many(content.keys()).await.unwrap();
    assert_eq!(together.len(), content.len());
    for (item, (key, value)) in together.into_iter().zip(content) {
        assert!(item.unwrap().value == *value, "{} is something else in a batch", key.escape_ascii());
    }
    let items = client.range(Range::all()).collect().await.unwrap();
    assert_eq!(items.len(), content.len());
    for (entry, (key, value)) in items.into_iter().zip(content) {
        assert_eq!(entry.key, key);
        assert!(entry.item.value == *value, "{} is something else in a range", key.escape_ascii());
    }
    let backwards = client.range(Range::all().reverse().keys_only()).collect().await.unwrap();
    assert!(backwards.iter().map(|entry| &entry.key).eq(content.keys().rev()));
    for (prefix, _) in content.iter().filter(|(key, _)| key.len() < 512) {
        let found = client.range(Range::prefix(prefix).keys_only()).collect().await.unwrap();
        let expected = content.keys().filter(|key| key.starts_with(prefix));
        assert!(found.iter().map(|entry| &entry.key).eq(expected), "prefix {}", prefix.escape_ascii());
    }
}

#[test]
fn every_size_and_every_byte_comes_back_through_stops_kills_and_a_snapshot() {
    let content = content();
    let mut cluster = Cluster::start(Plan::THREE);
    block_on(async {
        write(&cluster.client().await, &content).await;
        compare(&cluster.client().await, &content).await;
        cluster.stop_all();
        cluster.run_all();
        compare(&cluster.client().await, &content).await;
        cluster.kill_all();
        cluster.run_all();
        compare(&cluster.client().await, &content).await;

        cluster.kill(2);
        cluster.wipe(2);
        cluster.mesh(&["node", "replace", "c"]);
        cluster.run(2);
        cluster.await_vote(2).await;
        for replica in cluster.status(2).await.replicas {
            // A log that does not begin at the beginning: what was before it came as a snapshot.
            assert!(replica.first_index > LogIndex(2), "{replica:?}");
        }
        cluster.await_leadership(2, ShardId(2)).await;
        cluster.kill(0);
        cluster.await_leadership(2, ShardId(2)).await;
        compare(&cluster.client().await, &content).await;
        // And from its own disk.
        cluster.kill_all();
        cluster.run(1);
        cluster.run(2);
        cluster.await_leadership(2, ShardId(2)).await;
        compare(&cluster.client().await, &content).await;
    });
}
