//! Requests and bytes that a node refuses: told why, and nobody else is disturbed.

use std::time::{Duration, Instant};

use mesh_base::limits::{
    FRAME_PAYLOAD_BYTES_MAX, HELLO_PAYLOAD_BYTES_MAX, HELLO_TIMEOUT, KEY_BYTES_MAX, VALUE_BYTES_MAX,
};
use mesh_base::prng::Prng;
use mesh_base::slot::slot_of;
use mesh_client::{Cluster as Client, Error, ShardId};
use mesh_wire::{
    Delete, Error as Wire, Get, GetBatch, HEADER_BYTES, KeyValue, Put, PutBatch, Request, Response,
};

use crate::cluster::{Cluster, Plan, block_on, resident_bytes};
use crate::load::{Ended, Load, check};
use crate::raw::{LENGTH_AT, Raw, error, hello, resized, sealed, value, write_context};

const MIB: u64 = 1024 * 1024;

#[test]
fn what_is_too_large_or_empty_is_refused_with_its_limit_and_nothing_is_lost() {
    let cluster = Cluster::start(Plan::ONE);
    block_on(async {
        let client = cluster.client().await;
        client.put("before", "it").await.unwrap();
        refused_by_the_command_line(&cluster);
        refused_by_the_library(&client).await;
        refused_by_the_node(&cluster, client.topology().shard_of(b"before"));
        assert_eq!(client.get("before").await.unwrap().unwrap().value, "it");
        assert_eq!(client.range(mesh_client::Range::all()).collect().await.unwrap().len(), 1);
    });
}

fn refused_by_the_command_line(cluster: &Cluster) {
    let long_key = "k".repeat(KEY_BYTES_MAX + 1);
    let large = vec![0xa5; VALUE_BYTES_MAX + 1];
    for (arguments, stdin, words) in [
        (&["put", "before"][..], &large[..], &["8388608"][..]),
        (&["put", &long_key, "v"], b"", &["2049", "2048"]),
        (&["get", &long_key], b"", &["2049", "2048"]),
        (&["del", &long_key], b"", &["2049", "2048"]),
        (&["put", "", "v"], b"", &["at least one byte"]),
        (&["get", ""], b"", &["at least one byte"]),
        (&["del", ""], b"", &["at least one byte"]),
    ] {
        let refused = cluster.ask(arguments, stdin);
        assert_eq!((refused.code, refused.stdout.len()), (2, 0), "{}: {}", arguments[0], refused.stderr);
        for word in words {
            assert!(refused.stderr.contains(word), "{}: {}", arguments[0], refused.stderr);
        }
        assert_eq!(cluster.mesh(&["get", "before"]), "it");
    }
}

async fn refused_by_the_library(client: &Client) {
    let (long_key, large) = (vec![b'k'; KEY_BYTES_MAX + 1], vec![0xa5; VALUE_BYTES_MAX + 1]);
    let limits = |error: Error| match error {
        Error::TooLarge { limit, actual, .. } => (limit, actual),
        other => panic!("{other}"),
    };
    let (key_limits, value_limits) = ((2048, 2049), (8_388_608, 8_388_609));
    assert_eq!(limits(client.put("before", &large).await.unwrap_err()), value_limits);
    assert_eq!(limits(client.put_many([("before", &large)]).await.unwrap_err()), value_limits);
    assert_eq!(limits(client.put(&long_key, "v").await.unwrap_err()), key_limits);
    assert_eq!(limits(client.put_many([(&long_key, "v")]).await.unwrap_err()), key_limits);
    assert_eq!(limits(client.get(&long_key).await.unwrap_err()), key_limits);
    assert_eq!(limits(client.get_many([&long_key]).await.unwrap_err()), key_limits);
    assert_eq!(limits(client.delete(&long_key).await.unwrap_err()), key_limits);
    assert_eq!(client.put("", "v").await.unwrap_err(), Error::EmptyKey);
    assert_eq!(client.put_many([("before", "other"), ("", "v")]).await.unwrap_err(), Error::EmptyKey);
    assert_eq!(client.get("").await.unwrap_err(), Error::EmptyKey);
    assert_eq!(client.delete("").await.unwrap_err(), Error::EmptyKey);
    assert_eq!(client.get("before").await.unwrap().unwrap().value, "it");
}

/// Frames that keep to the protocol but for one length, all over one connection that stays usable.
fn refused_by_the_node(cluster: &Cluster, shard: ShardId) {
    let mut raw = Raw::greeted(&cluster.endpoint(0));
    let session = raw.session(shard);
    // A key of the shard, as long as a key may be; one more byte, or none, is the change.
    let slot = slot_of(b"before");
    let tagged = (0..).map(|number| format!("{{{number}}}")).find(|tag| slot_of(tag.as_bytes()) == slot);
    let mut key = tagged.unwrap().into_bytes();
    key.resize(KEY_BYTES_MAX, b'k');
    let mut large = vec![0; VALUE_BYTES_MAX];
    Prng::new(2).fill(&mut large);
    let small = b"a value of its own".as_slice();
    let keys = [key.as_slice()];
    let items = [KeyValue { key: &key, value: small }];
    let ctx = |seq| write_context(session, seq);
    let requests = |seq| {
        [
            Request::Put(Put { ctx: ctx(seq), key: &key, value: small, ..Put::default() }),
            Request::PutBatch(PutBatch { ctx: ctx(seq), items: (&items).into() }),
            Request::Delete(Delete { ctx: ctx(seq), keys: (&keys).into() }),
            Request::Get(Get { key: &key, ..Get::default() }),
            Request::GetBatch(GetBatch { keys: (&keys).into(), ..GetBatch::default() }),
        ]
    };
    let get = Request::Get(Get { key: b"before", ..Get::default() });
    for number in 0..requests(1).len() {
        let request = &requests(number as u64 + 1)[number];
        let refused = raw.ask(shard, request, |frame| resized(frame, &key, KEY_BYTES_MAX + 1));
        let Wire::TooLarge { limit, actual, what } = error(&refused) else { panic!("{refused:?}") };
        assert_eq!((what.as_ref(), limit, actual), ("key bytes", 2048, 2049));
        let refused = raw.ask(shard, request, |frame| resized(frame, &key, 0));
        assert_eq!(error(&refused), Wire::EmptyKey);
        assert_eq!(value(&raw.ask(shard, &get, |frame| frame)).unwrap(), "it");
    }
    let put = Put { ctx: ctx(10), key: &key, value: &large, ..Put::default() };
    let refused = raw.ask(shard, &Request::Put(put), |frame| resized(frame, &large, VALUE_BYTES_MAX + 1));
    let Wire::TooLarge { limit, actual, what } = error(&refused) else { panic!("{refused:?}") };
    assert_eq!((what.as_ref(), limit, actual), ("value bytes", 8_388_608, 8_388_609));
    // What keeps to the limits is written, over the same connection.
    let written = raw.ask(shard, &Request::Put(Put { ctx: ctx(11), ..put }), |frame| frame);
    assert!(matches!(written.response(), Ok(Response::Written(_))), "{written:?}");
    let own = Request::Get(Get { key: &key, ..Get::default() });
    assert!(value(&raw.ask(shard, &own, |frame| frame)).unwrap() == large);
    let delete = Request::Delete(Delete { ctx: ctx(12), keys: (&keys).into() });
    assert!(matches!(raw.ask(shard, &delete, |frame| frame).response(), Ok(Response::Deleted(_))));
    assert_eq!(value(&raw.ask(shard, &get, |frame| frame)).unwrap(), "it");
}

#[test]
fn what_is_no_frame_is_told_so_and_closed_and_neither_disturbs_nor_costs_anything() {
    let cluster = Cluster::start(Plan::ONE);
    block_on(async {
        let client = cluster.client().await;
        client.put("before", "it").await.unwrap();
        let endpoint = cluster.endpoint(0);
        // Once, so that what is needed for it at all is there; then nothing more may stay.
        misbehave(&endpoint, 5);
        let before = resident_bytes(cluster.pid(0));
        let silent = fall_silent(&endpoint, 100);
        misbehave(&endpoint, 100);
        silent.into_iter().for_each(assert_closed_after_the_patience);
        let kept = resident_bytes(cluster.pid(0)).saturating_sub(before);
        eprintln!("after 1000 connections that misbehaved, {} KiB more are resident", kept / 1024);
        assert!(kept < 8 * MIB, "{} KiB are kept", kept / 1024);

        let load = Load::start(&client, 16, Duration::from_secs(5));
        let misbehaving = tokio::task::spawn_blocking(move || misbehave(&endpoint, 50));
        misbehaving.await.unwrap();
        let written = load.stop().await;
        for written in &written {
            assert!(written.writes.iter().all(|ended| *ended == Ended::Acknowledged));
            assert!(written.slowest < Duration::from_secs(2), "a write took {:?}", written.slowest);
        }
        assert!(check(&client, &written).await > 500);
        assert_eq!(client.get("before").await.unwrap().unwrap().value, "it");
    });
}

/// Opens `rounds` connections of each kind that misbehaves, and sees what it is told.
fn misbehave(endpoint: &str, rounds: usize) {
    let hello = hello();
    for round in 0..rounds {
        talk_without_hello(endpoint, &hello, round);
        talk_after_hello(endpoint, &hello);
    }
}

/// Opens connections that stop in the middle of their first frame.
fn fall_silent(endpoint: &str, count: usize) -> Vec<(Raw, Instant)> {
    let hello = hello();
    let silent = (0..count).map(|_| {
        let mut raw = Raw::connect(endpoint);
        raw.send(&hello[..hello.len() / 2]);
        (raw, Instant::now())
    });
    silent.collect()
}

fn assert_closed_after_the_patience((mut raw, since): (Raw, Instant)) {
    assert_malformed_and_closed(&mut raw);
    let waited = since.elapsed();
    assert!(waited >= HELLO_TIMEOUT - Duration::from_millis(100), "{waited:?}");
}

fn talk_without_hello(endpoint: &str, hello: &[u8], round: usize) {
    let client_hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    for (words, told) in [
        (&b"GET /metrics HTTP/1.1\r\nHost: mesh\r\n\r\n"[..], &b"HTTP/1.1 400 "[..]),
        (client_hello, b"\x15\x03\x01"),
    ] {
        let mut raw = Raw::connect(endpoint);
        raw.send(words);
        let rest = raw.rest();
        assert!(rest.starts_with(told), "{} got {}", words.escape_ascii(), rest.escape_ascii());
    }
    let mut garbage = vec![0; 100_000];
    Prng::new(round as u64).fill(&mut garbage);
    // Nothing that is known by its first byte.
    garbage[0] = 0;
    let mut raw = Raw::connect(endpoint);
    raw.send(&garbage);
    assert_malformed_and_closed(&mut raw);
    let mut raw = Raw::connect(endpoint);
    raw.send(&hello[..hello.len() / 2]);
    raw.finish();
    assert_malformed_and_closed(&mut raw);
    let mut raw = Raw::connect(endpoint);
    raw.send(&damaged(hello));
    assert_malformed_and_closed(&mut raw);
    let mut raw = Raw::connect(endpoint);
    raw.send(&of_length(hello, HELLO_PAYLOAD_BYTES_MAX + 1));
    assert_too_large_and_closed(&mut raw, HELLO_PAYLOAD_BYTES_MAX);
}

fn talk_after_hello(endpoint: &str, hello: &[u8]) {
    let mut raw = Raw::greeted(endpoint);
    raw.send(&damaged(hello));
    assert_malformed_and_closed(&mut raw);
    let mut raw = Raw::greeted(endpoint);
    raw.send(&of_length(hello, FRAME_PAYLOAD_BYTES_MAX + 1));
    assert_too_large_and_closed(&mut raw, FRAME_PAYLOAD_BYTES_MAX);
    // Half a frame that is as long as any may be, and no more of it.
    let mut raw = Raw::greeted(endpoint);
    raw.send(&of_length(hello, FRAME_PAYLOAD_BYTES_MAX));
    raw.finish();
    if let Some(frame) = raw.frame() {
        assert!(matches!(error(&frame), Wire::Malformed { .. }), "{frame:?}");
        assert!(raw.frame().is_none(), "it is closed");
    }
}

#[test]
fn frames_that_are_promised_and_do_not_come_take_no_memory() {
    let cluster = Cluster::start(Plan::ONE);
    let endpoint = cluster.endpoint(0);
    let promise = of_length(&hello(), FRAME_PAYLOAD_BYTES_MAX);
    drop(Raw::greeted(&endpoint));
    let before = resident_bytes(cluster.pid(0));
    let promises: Vec<_> = (0..200)
        .map(|_| {
            let mut raw = Raw::greeted(&endpoint);
            raw.send(&promise);
            raw
        })
        .collect();
    // Everyone else is served meanwhile.
    assert_eq!(cluster.ask(&["put", "k", "v"], b"").code, 0);
    let taken = resident_bytes(cluster.pid(0)).saturating_sub(before);
    eprintln!("200 connections that promise 1650 MiB take {} KiB", taken / 1024);
    assert!(taken < 32 * MIB, "{} KiB are taken", taken / 1024);
    drop(promises);
    assert_eq!(cluster.mesh(&["get", "k"]), "v");
}

fn assert_malformed_and_closed(raw: &mut Raw) {
    let frame = raw.frame().expect("an error comes before the end");
    assert!(matches!(error(&frame), Wire::Malformed { .. }), "{frame:?}");
    assert!(raw.frame().is_none(), "it is closed");
}

fn assert_too_large_and_closed(raw: &mut Raw, most: usize) {
    let frame = raw.frame().expect("an error comes before the end");
    let Wire::TooLarge { limit, actual, .. } = error(&frame) else { panic!("{frame:?}") };
    assert_eq!((limit, actual), (most as u64, most as u64 + 1));
    assert!(raw.frame().is_none(), "it is closed");
}

/// The frame with one bit of its payload flipped.
fn damaged(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[HEADER_BYTES + 3] ^= 1;
    frame
}

/// The frame with a header that promises another length.
fn of_length(frame: &[u8], length: usize) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[LENGTH_AT..LENGTH_AT + 4].copy_from_slice(&u32::try_from(length).unwrap().to_le_bytes());
    sealed(frame)
}
