//! Bits that flipped on a disk: found, named by file and place, never served, and nobody else's concern.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh_base::prng::Prng;
use mesh_client::{Bytes, Cluster as Client, Error, ReplicaState, ShardId};

use crate::cluster::{Cluster, Plan, block_on};
use crate::files::{Change, Kind, batches, identities, pages, segments, superblocks};

/// The shard that is damaged, and the one that is not.
const DAMAGED: ShardId = ShardId(1);
const WHOLE: ShardId = ShardId(0);
/// Enough for a tree of two levels in each shard.
const SMALL: usize = 4000;
/// Values in extents.
const LARGE: usize = 8;

/// For reads that are not expected to succeed.
const SHORT: Duration = Duration::from_millis(300);

type Content = BTreeMap<String, Bytes>;

fn content() -> Content {
    let mut prng = Prng::new(3);
    let mut value = |length: usize| {
        let mut bytes = vec![0; length];
        prng.fill(&mut bytes);
        Bytes::from(bytes)
    };
    let small = (0..SMALL).map(|number| (format!("small {number:05}"), 200));
    let large = (0..LARGE).map(|number| (format!("large {number:05}"), 100_000));
    small.chain(large).map(|(key, length)| (key, value(length))).collect()
}

async fn write(client: &Client, content: &Content) {
    client.put_many(content).await.unwrap();
}

async fn compare(client: &Client, content: &Content) {
    let found = client.get_many(content.keys()).await.unwrap();
    for (item, (key, value)) in found.into_iter().zip(content) {
        assert!(item.unwrap_or_else(|| panic!("{key} is lost")).value == *value, "{key} is something else");
    }
}

/// A key of a shard in the middle of those that begin so, and its value.
fn victim<'c>(client: &Client, content: &'c Content, shard: ShardId, prefix: &str) -> (&'c str, &'c Bytes) {
    let topology = client.topology();
    let is_in = |key: &str| key.starts_with(prefix) && topology.shard_of(key.as_bytes()) == shard;
    let of_shard: Vec<_> = content.iter().filter(|(key, _)| is_in(key)).collect();
    let (key, value) = of_shard[of_shard.len() / 2];
    (key, value)
}

/// Asserts of a single node that the damage at one of these places of a file was told, that the damaged shard serves
/// nothing that is not so, and that the other one serves on.
async fn assert_found(cluster: &mut Cluster, file: &str, offsets: &[u64], content: &Content) {
    let client = cluster.client().await;
    for (key, value) in
        [victim(&client, content, DAMAGED, "small"), victim(&client, content, DAMAGED, "large")]
    {
        // It may be on a page that is whole.
        if let Ok(item) = client.get(key).deadline(SHORT).await {
            assert!(item.unwrap().value == *value, "{key} is something else");
        }
    }
    cluster.await_output(0, "shard 1: damaged: ");
    let said = cluster.said(0);
    let line = said.lines().find(|line| line.contains("shard 1: damaged: ")).unwrap();
    let status = cluster.mesh(&["status"]);
    let row = status.lines().find(|line| line.contains("damaged: ")).expect("the status tells");
    for told in [line, row] {
        let is_named = |offset: &u64| told.contains(&format!(" at byte {offset}: "));
        assert!(
            told.contains(file) && offsets.iter().any(is_named),
            "not {file} at any of {offsets:?}: {told}"
        );
    }
    // From now on there is nothing to be had of this shard, and everything of the other.
    let (key, _) = victim(&client, content, DAMAGED, "small");
    let read = client.get(key).deadline(SHORT).await;
    assert!(matches!(read, Err(Error::Damaged { .. })), "{read:?}");
    let (key, value) = victim(&client, content, WHOLE, "small");
    assert_eq!(client.get(key).await.unwrap().unwrap().value, *value);
    client.put(key, value).await.unwrap();
}

#[test]
fn a_flipped_bit_in_a_page_of_any_kind_is_found_when_it_is_read_and_never_served() {
    let (content, mut cluster) = (content(), Cluster::start(Plan::ONE));
    block_on(async {
        let client = cluster.client().await;
        write(&client, &content).await;
        let (_, small) = victim(&client, &content, DAMAGED, "small");
        let (_, large) = victim(&client, &content, DAMAGED, "large");
        cluster.stop_all();
        let store = cluster.replica(0, DAMAGED).join("store");
        let nothing = Bytes::new();
        for (kind, holds) in [
            (Kind::Leaf, small),
            (Kind::Interior, &nothing),
            (Kind::Extent, &large.slice(..64)),
            (Kind::Bitmap, &nothing),
            (Kind::BitmapIndex, &nothing),
        ] {
            // Which of the pages of a kind is the newest is the store's to know: each of them.
            let pages = pages(&store, kind, holds);
            assert!(!pages.is_empty(), "{kind:?}");
            let flipped: Vec<_> = pages.iter().map(|page| Change::flip(&store, page + 100)).collect();
            cluster.run(0);
            let offsets: Vec<_> = pages.iter().map(|&page| page as u64).collect();
            assert_found(&mut cluster, "store", &offsets, &content).await;
            cluster.stop_all();
            flipped.into_iter().for_each(Change::undo);
            cluster.run_all();
            compare(&cluster.client().await, &content).await;
            cluster.stop_all();
        }
    });
}

#[test]
fn the_read_that_finds_damage_is_answered_with_its_file_and_place() {
    let (content, mut cluster) = (content(), Cluster::start(Plan::ONE));
    block_on(async {
        let client = cluster.client().await;
        write(&client, &content).await;
        let (key, value) = victim(&client, &content, DAMAGED, "small");
        cluster.stop_all();
        let store = cluster.replica(0, DAMAGED).join("store");
        let leaves = pages(&store, Kind::Leaf, value);
        leaves.iter().for_each(|leaf| drop(Change::flip(&store, leaf + 100)));
        cluster.run_all();
        let client = cluster.client().await;
        let read = client.get(key).deadline(Duration::from_secs(2)).await;
        let Err(Error::Damaged { what }) = &read else { panic!("{read:?}") };
        assert!(what.contains("store: damaged at byte "), "{what}");
        let is_named = |leaf: &usize| what.contains(&format!(" {leaf}: "));
        assert!(leaves.iter().any(is_named), "not one of {leaves:?}: {what}");
    });
}

#[test]
fn a_flipped_bit_in_a_superblock_copy_is_told_and_an_older_checkpoint_is_never_taken_for_the_newest() {
    let (content, mut cluster) = (content(), Cluster::start(Plan::ONE));
    block_on(async {
        write(&cluster.client().await, &content).await;
        let store = cluster.replica(0, DAMAGED).join("store");
        // Each start and stop is a checkpoint at least, so every copy gets its turn.
        for _ in 0..3 {
            let client = cluster.client().await;
            let (key, value) = victim(&client, &content, DAMAGED, "small");
            client.put(key, value).await.unwrap();
            cluster.stop_all();
            cluster.run_all();
        }
        for age in [3, 2, 1] {
            cluster.stop_all();
            let copy = superblocks(&store)[age];
            let _ = Change::flip(&store, copy + 60);
            cluster.run_all();
            let said = cluster.said(0);
            let told =
                |line: &str| line.contains("SuperblockCopy") && line.contains(&format!("offset: {copy},"));
            assert!(said.lines().any(told), "copy at {copy}: {said}");
            compare(&cluster.client().await, &content).await;
        }
        cluster.stop_all();
        let newest = superblocks(&store)[0];
        let flipped = Change::flip(&store, newest + 60);
        cluster.run(0);
        assert_found(&mut cluster, "store", &[newest as u64], &content).await;
        cluster.stop_all();
        flipped.undo();
        // Not the byte of before: a copy that no checkpoint has overwritten since would be whole again.
        let all: Vec<_> =
            superblocks(&store).into_iter().map(|copy| Change::flip(&store, copy + 61)).collect();
        cluster.run(0);
        assert_found(&mut cluster, "store", &[0], &content).await;
        cluster.stop_all();
        all.into_iter().for_each(Change::undo);
        cluster.run_all();
        compare(&cluster.client().await, &content).await;
    });
}

#[test]
fn a_flipped_bit_in_the_middle_of_a_log_is_found_and_not_taken_for_a_torn_tail() {
    let (content, mut cluster) = (content(), Cluster::start(Plan::ONE));
    block_on(async {
        let client = cluster.client().await;
        for (key, value) in content.iter().take(300) {
            client.put(key, value).await.unwrap();
        }
        write(&client, &content).await;
        for (key, value) in content.iter().take(50) {
            client.put(key, value).await.unwrap();
        }
        cluster.kill(0);
        let replica = cluster.replica(0, DAMAGED);
        for round in 0..2 {
            // First the newest segment; after a start and another kill it is a sealed one.
            let segment = &segments(&replica)[0];
            let batches = batches(segment);
            assert!(batches.len() > 50, "{}", batches.len());
            let batch = batches[batches.len() / 2];
            // In its payload, in its header, and the segment's own header.
            for (damaged, place) in [(batch, batch + 120), (batch, batch + 44), (0, 20)] {
                let flipped = Change::flip(segment, place);
                cluster.run(0);
                let name = segment.file_name().unwrap().to_str().unwrap();
                assert_found(&mut cluster, name, &[damaged as u64], &content).await;
                cluster.kill(0);
                flipped.undo();
            }
            cluster.run_all();
            let client = cluster.client().await;
            compare(&client, &content).await;
            let (key, value) = victim(&client, &content, DAMAGED, "small");
            client.put(key, value).await.unwrap();
            cluster.kill(0);
            assert!(segments(&replica).len() > round + 1, "there is a newer segment");
        }
        cluster.run_all();
        compare(&cluster.client().await, &content).await;
    });
}

/// Flips a bit in one copy of a node's identity, the newest or the one before it, at each of several places; the node must
/// be what it was.
fn damage_identities(age: usize) {
    let mut cluster = Cluster::start(Plan::ONE);
    assert_eq!(cluster.ask(&["put", "before", "it"], b"").code, 0);
    let identity = cluster.data(0).join("node/identity");
    // The magic, the versions, the number, the checksum, the payload.
    for place in [0, 4, 7, 10, 21, 40] {
        cluster.stop_all();
        let copy = identities(&identity)[age];
        let flipped = Change::flip(&identity, copy + place);
        cluster.run(0);
        cluster.await_output(0, "cluster ready");
        assert_eq!(cluster.mesh(&["get", "before"]), "it", "byte {place} was damaged");
        cluster.stop_all();
        flipped.undo();
        cluster.run_all();
    }
}

#[test]
fn a_flipped_bit_in_the_newest_copy_of_the_identity_harms_nothing() {
    damage_identities(0);
}

#[test]
fn a_flipped_bit_in_the_older_copy_of_the_identity_harms_nothing() {
    damage_identities(1);
}

#[test]
fn damage_to_both_copies_of_the_identity_is_told_by_file_and_places() {
    let mut cluster = Cluster::start(Plan::ONE);
    assert_eq!(cluster.ask(&["put", "before", "it"], b"").code, 0);
    cluster.stop_all();
    let identity = cluster.data(0).join("node/identity");
    let both: Vec<_> =
        identities(&identity).into_iter().map(|copy| Change::flip(&identity, copy + 40)).collect();
    cluster.run(0);
    let (status, said) = cluster.ended(0);
    assert_ne!(status.code(), Some(0));
    let told = "node/identity is damaged (no valid copy at offset 0 or 65536)";
    assert!(said.contains(told), "{said}");
    both.into_iter().for_each(Change::undo);
    cluster.run_all();
    assert_eq!(cluster.mesh(&["get", "before"]), "it");
}

#[test]
fn a_damaged_replica_is_out_and_the_other_nodes_serve_everything() {
    let (content, mut cluster) = (content(), Cluster::start(Plan::THREE));
    block_on(async {
        let client = cluster.client().await;
        for (key, value) in content.iter().take(200) {
            client.put(key, value).await.unwrap();
        }
        write(&client, &content).await;

        // The log of b.
        cluster.kill(1);
        let segment = segments(&cluster.replica(1, WHOLE)).pop().unwrap();
        let batches = batches(&segment);
        let batch = batches[batches.len() / 2];
        let _ = Change::flip(&segment, batch + 120);
        cluster.run(1);
        cluster.await_output(1, &format!(" at byte {batch}: "));
        compare(&client, &content).await;
        write(&client, &content).await;
        assert_only_damaged(&cluster, 1, WHOLE).await;
        cluster.kill(1);
        cluster.wipe(1);
        cluster.mesh(&["node", "replace", "b"]);
        cluster.run(1);
        cluster.await_vote(1).await;

        // The pages of c, which leads the shard as soon as it can: whatever it reads there is read from another node in the end.
        let (shard, client) = (ShardId(2), cluster.client().await);
        let (key, value) = victim(&client, &content, shard, "small");
        cluster.stop_all();
        let store = cluster.replica(2, shard).join("store");
        let leaves = pages(&store, Kind::Leaf, value);
        assert!(!leaves.is_empty());
        leaves.iter().for_each(|leaf| drop(Change::flip(&store, leaf + 100)));
        // It may meet the damage before it leads: upkeep reads its pages too.
        (0..3).for_each(|node| cluster.run(node));
        [0, 1].iter().for_each(|node| cluster.await_output(*node, "cluster ready"));
        let client = cluster.client().await;
        assert_eq!(client.get(key).await.unwrap().unwrap().value, *value);
        cluster.await_output(2, "shard 2: damaged: ");
        let said = cluster.said(2);
        assert!(leaves.iter().any(|leaf| said.contains(&format!("damaged at byte {leaf}: "))), "{said}");
        compare(&client, &content).await;
        write(&client, &content).await;
        compare(&client, &content).await;
        assert_only_damaged(&cluster, 2, shard).await;
    });
}

/// Asserts that of all replicas only the one is damaged, when all have read their files.
async fn assert_only_damaged(cluster: &Cluster, node: usize, shard: ShardId) {
    for other in 0..3 {
        let mut status = cluster.status(other).await;
        while status.replicas.iter().any(|replica| replica.state == ReplicaState::Recovering) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            status = cluster.status(other).await;
        }
        for replica in status.replicas {
            let is_damaged = (other, replica.shard) == (node, shard);
            let expected = if is_damaged { ReplicaState::Damaged } else { ReplicaState::Serving };
            assert_eq!(replica.state, expected, "{replica:?}");
        }
    }
}
