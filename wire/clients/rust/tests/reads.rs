//! Reads: batches, and ranges over all shards in order.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod fake;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fake::{Act, Fake};
use futures_util::StreamExt;
use mesh_base::prng::Prng;
use mesh_client::{Cluster, Cursor, CursorFlaw, Entry, Error, Range, ShardId, SlotEpoch};
use mesh_wire::{Error as Wire, Kind};

const SHORT: Duration = Duration::from_millis(300);

async fn connect(fake: &Fake) -> Cluster {
    Cluster::connect(fake.endpoints()).await.unwrap()
}

/// A cluster with keys `k000` to `k299`.
async fn filled(shards: u16) -> (Fake, Cluster) {
    let fake = Fake::start(2, shards).await;
    for number in 0..300 {
        fake.world().set(&key(number), &format!("v{number}"));
    }
    let cluster = connect(&fake).await;
    (fake, cluster)
}

fn key(number: usize) -> String {
    format!("k{number:03}")
}

fn keys(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(|entry| String::from_utf8(entry.key.to_vec()).unwrap()).collect()
}

#[tokio::test]
async fn a_range_is_in_order_over_all_shards_whatever_the_size_of_its_pages() {
    let (_fake, cluster) = filled(5).await;
    let all: Vec<_> = (0..300).map(key).collect();
    let reversed: Vec<_> = all.iter().rev().cloned().collect();
    for page_items in [1, 7, 1000] {
        let range = Range::all().page_items(page_items);
        assert_eq!(keys(&cluster.range(range.clone()).collect().await.unwrap()), all);
        assert_eq!(keys(&cluster.range(range.reverse()).collect().await.unwrap()), reversed);
    }
    let entry = cluster.range(Range::starting_at("k123")).next().await.unwrap().unwrap();
    assert_eq!((entry.item.value.as_ref(), entry.item.version), (&b"v123"[..], 1));
}

#[tokio::test]
async fn a_range_has_the_keys_within_its_bounds_up_to_its_limit() {
    let (_fake, cluster) = filled(3).await;
    let read = async |range: Range| keys(&cluster.range(range.page_items(4)).collect().await.unwrap());
    let numbers = |range: std::ops::Range<usize>| range.map(key).collect::<Vec<_>>();
    assert_eq!(read(Range::between("k010", "k020")).await, numbers(10..20));
    assert_eq!(read(Range::prefix("k02")).await, numbers(20..30));
    assert_eq!(read(Range::starting_at("k290").limit(5)).await, numbers(290..295));
    assert_eq!(read(Range::prefix("k1").reverse().limit(2)).await, ["k199", "k198"]);
    assert_eq!(read(Range::prefix("x")).await, [""; 0]);
    assert_eq!(read(Range::between("k5", "k4")).await, [""; 0]);
    assert_eq!(read(Range::all().limit(0)).await, [""; 0]);
    let only_keys = cluster.range(Range::prefix("k00").keys_only()).collect().await.unwrap();
    assert!(only_keys.len() == 10 && only_keys.iter().all(|entry| entry.item.value.is_empty()));
}

#[tokio::test]
async fn a_range_within_one_tag_asks_one_shard() {
    let fake = Fake::start(1, 8).await;
    (0..20).for_each(|number| fake.world().set(&format!("{{user}}/{number:02}"), "v"));
    let cluster = connect(&fake).await;
    assert_eq!(cluster.range(Range::prefix("{user}/")).collect().await.unwrap().len(), 20);
    assert_eq!(fake.world().shards.iter().filter(|shard| !shard.read_at.is_empty()).count(), 1);
}

#[tokio::test]
async fn each_shard_is_read_at_one_revision_while_writes_go_on() {
    let (fake, cluster) = filled(3).await;
    let mut items = cluster.range(Range::all().page_items(10));
    let mut found = Vec::new();
    while let Some(entry) = items.next().await {
        found.push(entry.unwrap());
        // Behind and ahead of where the reading is.
        fake.world().set(&format!("k{:03}x", found.len()), "new");
        fake.world().set(&key(299), "changed");
        if found.len() == 1 {
            fake.world().set("k0000", "new");
        }
    }
    assert_eq!(keys(&found), (0..300).map(key).collect::<Vec<_>>());
    assert_eq!(found[299].item.value, "v299");
    let world = fake.world();
    assert!(world.shards.iter().all(|shard| BTreeSet::from_iter(&shard.read_at).len() == 1));
}

#[tokio::test]
async fn pages_are_fetched_ahead_and_no_further() {
    let (fake, cluster) = filled(1).await;
    let pages = Arc::new(AtomicUsize::new(0));
    let asked = Arc::clone(&pages);
    fake.script(move |request| {
        asked.fetch_add(usize::from(request.kind == Kind::Range), Ordering::Relaxed);
        Act::Serve
    });
    let mut items = cluster.range(Range::all().page_items(20));
    for _ in 0..5 {
        items.next().await.unwrap().unwrap();
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(pages.load(Ordering::Relaxed), 1, "a page is fetched ahead when half of one is left");
    for _ in 5..15 {
        items.next().await.unwrap().unwrap();
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(pages.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_reading_goes_on_from_its_cursor_at_the_same_revisions() {
    let (fake, cluster) = filled(4).await;
    for range in [Range::all().page_items(7), Range::all().page_items(7).reverse()] {
        let (mut found, mut cursor): (Vec<Entry>, Option<Cursor>) = (Vec::new(), None);
        loop {
            let mut part = range.clone().limit(23);
            if let Some(cursor) = cursor {
                let text = cursor.to_string();
                part = part.resume(text.parse().unwrap());
            }
            let mut items = cluster.range(part);
            while let Some(entry) = items.next().await {
                found.push(entry.unwrap());
            }
            fake.world().set(&format!("k{:03}y", found.len()), "new");
            cursor = items.cursor();
            if cursor.is_none() {
                break;
            }
        }
        let mut expected: Vec<_> = (0..300).map(key).collect();
        let mut found = keys(&found);
        found.retain(|key| !key.ends_with('y'));
        if found[0] > found[1] {
            expected.reverse();
        }
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn what_was_written_after_the_first_page_is_not_in_the_resumed_ones() {
    let (fake, cluster) = filled(4).await;
    let mut items = cluster.range(Range::all().limit(10));
    while items.next().await.is_some() {}
    let cursor = items.cursor().unwrap();
    (0..300).for_each(|number| fake.world().set(&format!("{}z", key(number)), "new"));
    let rest = cluster.range(Range::all().resume(cursor)).collect().await.unwrap();
    assert_eq!(keys(&rest), (10..300).map(key).collect::<Vec<_>>());
}

#[tokio::test]
async fn there_is_no_cursor_before_the_first_item_and_after_the_last() {
    let (_fake, cluster) = filled(2).await;
    let mut items = cluster.range(Range::prefix("k00").limit(10));
    assert_eq!(items.cursor(), None);
    items.next().await.unwrap().unwrap();
    assert!(items.cursor().is_some());
    while items.next().await.is_some() {}
    assert_eq!(items.cursor(), None, "the limit is where the range ends");
    assert!(items.next().await.is_none());
}

#[tokio::test]
async fn a_cursor_of_another_cluster_or_order_is_refused() {
    let (_fake, cluster) = filled(2).await;
    let mut items = cluster.range(Range::all());
    items.next().await.unwrap().unwrap();
    let cursor = items.cursor().unwrap();
    let refused = cluster.range(Range::all().reverse().resume(cursor.clone())).next().await.unwrap();
    assert_eq!(refused.unwrap_err(), Error::Cursor { flaw: CursorFlaw::OtherOrder });
    let other = Fake::start(1, 1).await;
    other.world().cluster.0[0] ^= 1;
    let mut items = connect(&other).await.range(Range::all().resume(cursor));
    let refused = items.next().await.unwrap();
    assert_eq!(refused.unwrap_err(), Error::Cursor { flaw: CursorFlaw::OtherCluster });
    assert!(items.next().await.is_none());
}

#[tokio::test]
async fn a_range_follows_leaders_and_ends_with_the_error_that_stops_it() {
    let (fake, cluster) = filled(2).await;
    let mut items = cluster.range(Range::all().page_items(10));
    items.next().await.unwrap().unwrap();
    fake.world().lead_all(Some(1));
    let mut more = 1;
    for _ in 0..100 {
        items.next().await.unwrap().unwrap();
        more += 1;
    }
    let oldest = mesh_client::Revision(5);
    fake.script(
        move |asked| {
            if asked.kind == Kind::Range { Act::Say(Wire::Compacted { oldest }) } else { Act::Serve }
        },
    );
    let error = loop {
        match items.next().await.unwrap() {
            Ok(_) => more += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error, Error::Compacted { oldest });
    assert!(more < 300 && items.next().await.is_none());
    assert!(items.cursor().is_some(), "where it was left off is known");
}

#[tokio::test]
async fn when_slots_move_a_range_goes_on_with_the_new_shards() {
    let (fake, cluster) = filled(1).await;
    let mut items = cluster.range(Range::all().page_items(10));
    let mut found = Vec::new();
    for _ in 0..50 {
        found.push(items.next().await.unwrap().unwrap());
    }
    fake.world().split();
    while let Some(entry) = items.next().await {
        found.push(entry.unwrap());
    }
    assert_eq!(keys(&found), (0..300).map(key).collect::<Vec<_>>());
    assert_eq!(cluster.topology().epoch(), SlotEpoch(2));
    assert_eq!(cluster.topology().shards().count(), 2);
}

#[tokio::test]
async fn when_slots_move_single_keys_and_batches_follow() {
    let (fake, cluster) = filled(1).await;
    let all: Vec<_> = (0..300).map(key).collect();
    cluster.put("k001", "1").await.unwrap();
    fake.world().split();
    let written = cluster.put_many(all.iter().map(|key| (key, "new"))).await.unwrap();
    assert_eq!(written.len(), 300);
    fake.world().split();
    let found = cluster.get_many(&all).await.unwrap();
    assert!(found.iter().flatten().filter(|item| item.value == "new").count() == 300);
    fake.world().split();
    cluster.put("k299", "2").await.unwrap();
    assert_eq!(cluster.topology().shards().count(), 4);
    assert!((0..300).all(|number| fake.world().applied(&key(number)) <= 3));
}

#[tokio::test]
async fn a_batch_is_read_in_the_order_of_its_keys() {
    let (_fake, cluster) = filled(5).await;
    let mut asked: Vec<_> = (0..300).map(key).chain(["none".to_owned(), key(7)]).collect();
    Prng::new(1).shuffle(&mut asked);
    let found = cluster.get_many(&asked).await.unwrap();
    for (key, item) in asked.iter().zip(&found) {
        let expected = key.strip_prefix('k').map(|number| format!("v{}", number.parse::<usize>().unwrap()));
        assert_eq!(
            item.as_ref().map(|item| item.value.as_ref()),
            expected.as_ref().map(String::as_bytes),
            "{key}"
        );
    }
    assert_eq!(cluster.get_many([""; 0]).await.unwrap(), []);
    assert_eq!(cluster.get_many(["a", ""]).await.unwrap_err(), Error::EmptyKey);
}

#[tokio::test]
async fn a_batch_that_no_answer_holds_is_asked_for_in_parts() {
    let fake = Fake::start(1, 1).await;
    (0..9000).for_each(|number| fake.world().set(&format!("{number}"), &format!("{number}")));
    let cluster = connect(&fake).await;
    let found = cluster.get_many((0..9000).map(|number| number.to_string())).await.unwrap();
    assert!((0..9000).all(|number| found[number].as_ref().unwrap().value == number.to_string()));
}

#[tokio::test]
async fn a_batch_is_written_at_one_revision_in_each_shard() {
    let fake = Fake::start(2, 4).await;
    let cluster = connect(&fake).await;
    let all: Vec<_> = (0..300).map(key).collect();
    let written = cluster.put_many(all.iter().map(|key| (key, key))).await.unwrap();
    let revisions: BTreeSet<_> = written.iter().map(|written| written.revision).collect();
    assert_eq!(revisions.len(), 4);
    for (key, written) in all.iter().zip(&written) {
        assert_eq!(cluster.get(key).await.unwrap().unwrap().revision, written.revision);
    }
    let deleted = cluster.delete_many(all.iter().take(100).chain([&"none".to_owned()])).await.unwrap();
    assert_eq!(deleted.deleted, 100);
    assert!(deleted.revision > *revisions.last().unwrap());
    assert_eq!(cluster.range(Range::all()).collect().await.unwrap().len(), 200);
}

#[tokio::test]
async fn a_batch_with_something_too_large_is_not_sent_at_all() {
    let fake = Fake::start(1, 2).await;
    let cluster = connect(&fake).await;
    let too_many =
        cluster.put_many((0..4097).map(|number| (format!("{{t}}{number}"), "v"))).await.unwrap_err();
    assert!(matches!(too_many, Error::TooLarge { limit: 4096, actual: 4097, .. }), "{too_many}");
    let value = vec![0; 3 << 20];
    let too_large = cluster.put_many([("{t}1", &value), ("{t}2", &value)]).await.unwrap_err();
    assert!(matches!(too_large, Error::TooLarge { .. }), "{too_large}");
    assert_eq!(cluster.put_many([("a", "v"), ("", "v")]).await.unwrap_err(), Error::EmptyKey);
    assert_eq!(fake.world().applied("a"), 0);
    assert_eq!(fake.world().applied("{t}1"), 0);
    assert_eq!(cluster.put_many([("{t}1", &value), ("{t}9", &vec![])]).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_batch_that_was_written_in_part_says_which() {
    let fake = Fake::start(1, 2).await;
    let cluster = connect(&fake).await;
    fake.script(|asked| match (asked.kind, asked.shard) {
        (Kind::PutBatch, Some(ShardId(1))) => Act::Say(Wire::NoSpace),
        _ => Act::Serve,
    });
    let all: Vec<_> = (0..20).map(key).collect();
    let partial = cluster.put_many(all.iter().map(|key| (key, "v"))).await.unwrap_err();
    let Error::Partial { done, of: 20, error } = partial else { panic!("{partial}") };
    assert_eq!(*error, Error::NoSpace);
    for (place, key) in all.iter().enumerate() {
        assert_eq!(done.contains(&place), fake.world().applied(key) == 1, "{key}");
    }
    assert!((1..20).contains(&done.len()));
}

#[tokio::test]
async fn items_are_a_stream() {
    let (_fake, cluster) = filled(2).await;
    let lengths = StreamExt::map(cluster.range(Range::all()), |entry| entry.unwrap().key.len());
    assert_eq!(lengths.fold(0, async |sum, length| sum + length).await, 1200);
}

#[tokio::test]
async fn what_a_range_finds_can_be_deleted_while_it_goes_on() {
    let (mut fake, cluster) = filled(1).await;
    let mut items = cluster.range(Range::all().page_items(20));
    // The page after the next item is fetched ahead, over a connection that has to be made.
    for _ in 0..9 {
        items.next().await.unwrap().unwrap();
    }
    fake.world().hello_delay = Duration::from_millis(50);
    fake.kill(0);
    fake.restart(0).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let mut deleted = 0;
    while let Some(entry) = items.next().await {
        cluster.delete(entry.unwrap().key).deadline(Duration::from_secs(1)).await.unwrap();
        deleted += 1;
    }
    assert_eq!(deleted, 291);
}

#[tokio::test]
async fn a_page_is_fetched_ahead_without_room_being_held_for_it() {
    let fake = Fake::start(1, 1).await;
    (0..300).for_each(|number| fake.world().set(&key(number), "v"));
    let cluster = Cluster::builder().in_flight_max(1).connect(fake.endpoints()).await.unwrap();
    cluster.put("x", "v").await.unwrap();
    let mut items = cluster.range(Range::all().page_items(20));
    for _ in 0..9 {
        items.next().await.unwrap().unwrap();
    }
    // While the next page is asked for, all room is taken.
    fake.script(|asked| match asked.kind {
        Kind::Get => Act::ServeLate(Duration::from_millis(50)),
        _ => Act::Serve,
    });
    let get = tokio::spawn({
        let cluster = cluster.clone();
        async move { cluster.get("x").await }
    });
    tokio::time::sleep(Duration::from_millis(10)).await;
    items.next().await.unwrap().unwrap();
    cluster.delete("x").deadline(Duration::from_secs(1)).await.unwrap();
    get.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_hiccup_while_a_reader_is_busy_is_not_held_against_it() {
    let (fake, cluster) = filled(1).await;
    let mut items = cluster.range(Range::all().page_items(20)).deadline(SHORT);
    items.next().await.unwrap().unwrap();
    fake.script(|asked| if asked.kind == Kind::Range { Act::Say(Wire::NoQuorum) } else { Act::Serve });
    for _ in 1..20 {
        items.next().await.unwrap().unwrap();
    }
    // The time of the page that is fetched ahead runs out meanwhile.
    tokio::time::sleep(2 * SHORT).await;
    fake.script(|_| Act::Serve);
    let rest = items.collect().await.unwrap();
    assert_eq!(rest.len(), 280);
}

#[tokio::test]
async fn a_page_that_is_asked_for_has_all_its_time_though_it_was_fetched_ahead() {
    let (fake, cluster) = filled(1).await;
    let mut items = cluster.range(Range::all().page_items(20)).deadline(2 * SHORT);
    items.next().await.unwrap().unwrap();
    fake.script(|asked| if asked.kind == Kind::Range { Act::Say(Wire::NoQuorum) } else { Act::Serve });
    for _ in 1..20 {
        items.next().await.unwrap().unwrap();
    }
    tokio::time::sleep(SHORT * 3 / 2).await;
    let mend = async {
        tokio::time::sleep(SHORT * 2 / 3).await;
        fake.script(|_| Act::Serve);
    };
    let (next, ()) = tokio::join!(items.next(), mend);
    next.unwrap().unwrap();
}

#[tokio::test]
async fn a_range_whose_slots_never_settle_ends_by_its_deadline() {
    let (fake, cluster) = filled(2).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    fake.script(move |request| match request.kind {
        Kind::Range => {
            count.fetch_add(1, Ordering::Relaxed);
            Act::Say(Wire::WrongEpoch { epoch: SlotEpoch(7) })
        }
        _ => Act::Serve,
    });
    let mut items = cluster.range(Range::all()).deadline(SHORT);
    let next = tokio::time::timeout(4 * SHORT, items.next()).await.expect("it ends");
    let error = next.unwrap().unwrap_err();
    assert!(matches!(error, Error::NotReady { .. } | Error::DeadlineExceeded { .. }), "{error}");
    let asked = asked.load(Ordering::Relaxed);
    assert!(asked < 40, "it is asked {asked} times, with longer and longer pauses");
}
