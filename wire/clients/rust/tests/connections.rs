//! Connecting, and how requests share connections.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod fake;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fake::{Act, Fake};
use futures_util::future::join_all;
use mesh_client::{Cluster, Error, NodeId, NodeState, ReplicaRole, ReplicaState, ShardId};
use mesh_wire::{Error as Wire, Kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn one_endpoint_that_answers_is_enough() {
    let fake = Fake::start(3, 2).await;
    let endpoints = ["127.0.0.1:1".to_owned(), fake.endpoints()[2].clone()];
    let cluster = Cluster::connect(endpoints).await.unwrap();
    let topology = cluster.topology();
    let names: Vec<_> = topology.nodes().iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert!(topology.nodes().iter().all(|node| node.state == NodeState::Voter));
    assert_eq!(topology.leadership(ShardId(1)).leader, Some(NodeId(1)));
    assert_eq!(topology.cluster(), fake.world().cluster);
    cluster.put("k", "v").await.unwrap();
}

#[tokio::test]
async fn a_node_that_comes_up_late_is_waited_for() {
    let mut fake = Fake::start(1, 1).await;
    fake.kill(0);
    let endpoints = fake.endpoints();
    let late = async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        fake.restart(0).await;
    };
    let (cluster, ()) = tokio::join!(Cluster::connect(endpoints), late);
    cluster.unwrap();
}

#[tokio::test]
async fn endpoints_that_do_not_answer_are_told_with_the_reason() {
    let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = http.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = http.accept().await.unwrap();
            let _ = stream.read(&mut [0; 100]).await;
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let begun = Instant::now();
    let builder = Cluster::builder().connect_deadline(SHORT);
    let error = builder.connect([address.clone(), silent.to_string()]).await.unwrap_err();
    let Error::Unreachable { tried } = &error else { panic!("{error}") };
    assert_eq!(tried[0].endpoint, address);
    assert!(error.to_string().contains("Connection refused"), "{error}");
    assert!(begun.elapsed() < SHORT * 2);
    assert_eq!(Cluster::connect([""; 0]).await.unwrap_err(), Error::NoEndpoints);
    assert!(matches!(Cluster::connect(["a:b"]).await.unwrap_err(), Error::BadEndpoint { .. }));
}

#[tokio::test]
async fn a_node_without_a_cluster_is_not_ready_and_tells_its_status() {
    let fake = Fake::start(1, 1).await;
    fake.world().is_born = false;
    let error = Cluster::builder().connect_deadline(SHORT).connect(fake.endpoints()).await.unwrap_err();
    assert!(matches!(&error, Error::NotReady { why } if why.contains("`a`")), "{error}");
    let status = Cluster::status_at(&fake.endpoints()[0], SHORT).await.unwrap();
    assert_eq!((status.name.as_str(), status.node, status.cluster), ("a", None, None));
}

#[tokio::test]
async fn every_node_tells_its_status_and_those_that_do_not_are_told() {
    let mut fake = Fake::start(3, 2).await;
    let cluster = Cluster::builder().deadline(SHORT).connect(fake.endpoints()).await.unwrap();
    fake.world().damaged.push(1);
    fake.kill(2);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let reports = cluster.status().await;
    let [a, b, c] = <[_; 3]>::try_from(reports).unwrap();
    let (a, b) = (a.status.unwrap(), b.status.unwrap());
    assert_eq!((a.name.as_str(), a.replicas.len(), a.uptime), ("a", 2, Duration::from_millis(90_061_000)));
    assert!(a.replicas.iter().all(|replica| replica.role == ReplicaRole::Leader));
    assert_eq!(
        (b.replicas[0].state, b.replicas[0].detail.as_str()),
        (ReplicaState::Damaged, "page 7 of store: checksum")
    );
    assert_eq!(c.node.name, "c");
    assert!(matches!(c.status, Err(Error::Unreachable { .. })));
    assert_eq!(cluster.status_of("b").await.unwrap().name, "b");
    assert_eq!(cluster.status_of(&fake.endpoints()[1]).await.unwrap().name, "b");
    assert!(matches!(cluster.status_of("z").await, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn a_node_is_replaced_by_the_leader_of_the_first_shard() {
    let fake = Fake::start(3, 2).await;
    fake.world().lead(0, Some(2));
    let cluster = Cluster::connect(fake.endpoints()).await.unwrap();
    let replaced = cluster.replace_node("c").await.unwrap();
    assert_eq!((replaced.node, replaced.state), (NodeId(9), NodeState::Joining));
    assert!(matches!(cluster.replace_node("z").await, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn there_is_one_connection_to_each_core_that_is_needed() {
    let fake = Fake::start(3, 8).await;
    let cluster = Cluster::connect(fake.endpoints()).await.unwrap();
    let used: Arc<Mutex<BTreeSet<(usize, u16, usize)>>> = Arc::default();
    let uses = Arc::clone(&used);
    // The fake itself checks that each request comes in at the core of its shard.
    fake.script(move |asked| {
        if asked.shard.is_some() {
            uses.lock().unwrap().insert((asked.node, asked.core, asked.connection));
        }
        Act::Serve
    });
    join_all((0..500).map(|number| cluster.put(format!("k{number}"), "v").into_future())).await;
    let used = used.lock().unwrap();
    assert_eq!(used.len(), 2, "{used:?}");
    assert!(used.iter().all(|(node, ..)| *node == 0));
}

#[tokio::test]
async fn several_connections_to_a_core_share_the_work() {
    let fake = Fake::start(1, 1).await;
    let cluster = Cluster::builder().connections_per_core(3).connect(fake.endpoints()).await.unwrap();
    let used: Arc<Mutex<BTreeMap<usize, usize>>> = Arc::default();
    let uses = Arc::clone(&used);
    fake.script(move |asked| {
        if asked.kind == Kind::Get {
            *uses.lock().unwrap().entry(asked.connection).or_default() += 1;
        }
        Act::Serve
    });
    for _ in 0..300 {
        cluster.get("k").await.unwrap();
    }
    assert_eq!(used.lock().unwrap().values().copied().collect::<Vec<_>>(), [100, 100, 100]);
}

#[tokio::test]
async fn answers_come_in_any_order() {
    let fake = Fake::start(1, 1).await;
    let cluster = Cluster::connect(fake.endpoints()).await.unwrap();
    cluster.put("k", "v").await.unwrap();
    let mut gets = 0;
    fake.script(move |asked| {
        gets += u64::from(asked.kind == Kind::Get);
        Act::ServeLate(Duration::from_millis(200_u64.saturating_sub(gets)))
    });
    let begun = Instant::now();
    let found = join_all((0..200).map(|number| {
        let key = if number % 2 == 0 { "k" } else { "none" };
        cluster.get(key).into_future()
    }))
    .await;
    assert!(
        found.into_iter().enumerate().all(|(number, found)| found.unwrap().is_some() == (number % 2 == 0))
    );
    assert!(begun.elapsed() < Duration::from_secs(1), "they wait side by side");
}

#[tokio::test]
async fn what_is_in_flight_is_bounded_and_the_rest_waits() {
    let fake = Fake::start(1, 1).await;
    let cluster = Cluster::builder().in_flight_max(8).connect(fake.endpoints()).await.unwrap();
    cluster.get("k").await.unwrap();
    let asked = Arc::new(Mutex::new(0));
    let count = Arc::clone(&asked);
    fake.script(move |request| {
        *count.lock().unwrap() += usize::from(request.kind == Kind::Get);
        Act::ServeLate(Duration::from_millis(50))
    });
    let gets = join_all((0..20).map(|_| cluster.get("k").into_future()));
    let look = async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert_eq!(*asked.lock().unwrap(), 8);
    };
    let (done, ()) = tokio::join!(gets, look);
    assert!(done.iter().all(Result::is_ok));
    fake.script(|_| Act::Swallow);
    let gets = (0..20).map(|_| cluster.get("k").deadline(SHORT).into_future());
    assert!(join_all(gets).await.iter().all(|done| matches!(done, Err(Error::DeadlineExceeded { .. }))));
}

#[tokio::test]
async fn a_hello_that_takes_long_is_waited_for() {
    let fake = Fake::start(3, 2).await;
    fake.world().hello_delay = Duration::from_millis(600);
    let cluster = Cluster::connect(fake.endpoints()).await.unwrap();
    // Both cores, so that connections are made that nobody had to begin with.
    for key in ["a", "b", "c", "d"] {
        cluster.put(key, "v").await.unwrap();
    }
    assert!(fake.world().shards.iter().all(|shard| !shard.keys.is_empty()), "every shard was written to");
}

#[tokio::test]
async fn a_connection_is_made_though_every_call_gives_up_before() {
    let mut fake = Fake::start(1, 1).await;
    let cluster = Cluster::connect(fake.endpoints()).await.unwrap();
    fake.world().hello_delay = Duration::from_millis(600);
    fake.kill(0);
    fake.restart(0).await;
    let before = fake.world().connections;
    let begun = Instant::now();
    while cluster.get("k").deadline(Duration::from_millis(100)).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(3), "it is never made");
    }
    assert_eq!(fake.world().connections - before, 1, "one after the other");
}

#[tokio::test]
async fn a_call_does_not_wait_for_one_that_is_not_polled() {
    let mut fake = Fake::start(1, 1).await;
    let cluster = Cluster::connect(fake.endpoints()).await.unwrap();
    fake.world().hello_delay = Duration::from_millis(50);
    fake.kill(0);
    fake.restart(0).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let mut first = std::pin::pin!(cluster.put("a", "v").into_future());
    assert!(tokio::time::timeout(Duration::from_millis(10), &mut first).await.is_err());
    cluster.put("b", "v").deadline(Duration::from_secs(1)).await.unwrap();
    first.await.unwrap();
}

#[tokio::test]
async fn answers_that_come_with_a_farewell_are_heard() {
    let fake = Fake::start(1, 1).await;
    let cluster = Cluster::connect(fake.endpoints()).await.unwrap();
    let puts = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&puts);
    fake.script(move |asked| match asked.kind {
        Kind::Put if count.fetch_add(1, Ordering::Relaxed) == 0 => Act::ServeAndPart,
        _ => Act::Serve,
    });
    cluster.put("k", "1").await.unwrap();
    assert_eq!(puts.load(Ordering::Relaxed), 1, "the write was answered");
    cluster.put("k", "2").await.unwrap();
}

#[tokio::test]
async fn a_replacement_whose_outcome_is_lost_is_asked_for_again_and_unknown_in_the_end() {
    let fake = Fake::start(3, 1).await;
    let cluster = Cluster::builder().deadline(SHORT).connect(fake.endpoints()).await.unwrap();
    let mut acts = vec![Act::ServeAndSay(Wire::Unknown), Act::Say(Wire::Unknown), Act::ServeAndCut];
    fake.script(move |asked| match asked.kind {
        Kind::ReplaceNode => acts.pop().unwrap_or(Act::Serve),
        _ => Act::Serve,
    });
    assert_eq!(cluster.replace_node("c").await.unwrap().node, NodeId(9));
    for act in [Act::ServeAndCut, Act::Say(Wire::Unknown), Act::ServeAndSwallow] {
        fake.script(move |asked| if asked.kind == Kind::ReplaceNode { act.clone() } else { Act::Serve });
        let error = cluster.replace_node("c").await.unwrap_err();
        assert!(matches!(error, Error::Unknown { .. }), "{error}");
    }
}

#[tokio::test]
async fn what_is_under_way_ends_with_the_last_handle() {
    let mut fake = Fake::start(2, 1).await;
    let cluster = Cluster::connect(fake.endpoints()).await.unwrap();
    // An opening of a session that pauses, the making of a connection, and a page that waits for it.
    fake.script(|asked| match asked.kind {
        Kind::OpenSession => Act::Say(Wire::Overloaded { retry_after_ms: 10_000 }),
        _ => Act::Serve,
    });
    let error = cluster.put("k", "v").deadline(SHORT).await.unwrap_err();
    assert_eq!(error, Error::Overloaded { retry_after: Duration::from_secs(10) });
    fake.world().hello_delay = Duration::from_secs(10);
    fake.kill(0);
    fake.restart(0).await;
    let mut items = cluster.range(mesh_client::Range::all());
    assert!(tokio::time::timeout(Duration::from_millis(50), items.next()).await.is_err());
    drop(cluster);
    let tasks = tokio::runtime::Handle::current().metrics();
    assert!(tasks.num_alive_tasks() > 6, "a range holds the handle as well");
    drop(items);
    tokio::time::sleep(Duration::from_millis(100)).await;
    // What is left are the tasks of the fake: its listeners.
    assert_eq!(tasks.num_alive_tasks(), 2);
}

#[tokio::test]
async fn all_ends_with_the_last_handle() {
    let fake = Fake::start(1, 1).await;
    let cluster = Cluster::connect(fake.endpoints()).await.unwrap();
    let other = cluster.clone();
    drop(cluster);
    other.put("k", "v").await.unwrap();
    drop(other);
    tokio::time::sleep(Duration::from_millis(50)).await;
    // What is left are the tasks of the fake: its listener.
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert!(tasks <= 1, "{tasks} tasks live on");
}
