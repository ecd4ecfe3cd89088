//! Writes take effect once, or the error says what is known.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod fake;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fake::{Act, Fake};
use mesh_client::{Cluster, Error};
use mesh_wire::{Error as Wire, Kind};

const SHORT: Duration = Duration::from_millis(400);

async fn connect(fake: &Fake) -> Cluster {
    Cluster::connect(fake.endpoints()).await.unwrap()
}

/// Misbehaves once, at the first request of a kind.
fn first(kind: Kind, act: Act) -> impl FnMut(&fake::Asked) -> Act + Send {
    let mut act = Some(act);
    move |asked| if asked.kind == kind { act.take().unwrap_or(Act::Serve) } else { Act::Serve }
}

#[tokio::test]
async fn what_is_written_is_read_and_what_is_deleted_is_gone() {
    let fake = Fake::start(3, 4).await;
    let cluster = connect(&fake).await;
    for key in ["a", "b", "c", "{t}1", "{t}2"] {
        let written = cluster.put(key, format!("value of {key}")).await.unwrap();
        let item = cluster.get(key).await.unwrap().unwrap();
        assert_eq!(item.value, format!("value of {key}"));
        assert_eq!(
            (item.revision, item.create_revision, item.version),
            (written.revision, written.revision, 1)
        );
    }
    assert_eq!(cluster.get("none").await.unwrap(), None);
    assert_eq!(cluster.delete("a").await.unwrap().deleted, 1);
    assert_eq!(cluster.delete("a").await.unwrap().deleted, 0);
    assert_eq!(cluster.get("a").await.unwrap(), None);
}

#[tokio::test]
async fn an_empty_value_is_a_value() {
    let fake = Fake::start(1, 1).await;
    let cluster = connect(&fake).await;
    cluster.put("k", "").await.unwrap();
    assert!(cluster.get("k").await.unwrap().unwrap().value.is_empty());
}

#[tokio::test]
async fn a_large_value_goes_through_whole() {
    let fake = Fake::start(1, 1).await;
    let cluster = connect(&fake).await;
    let value = vec![7; 8 * 1024 * 1024];
    let (large, small) = tokio::join!(cluster.put("large", &value), cluster.put("small", "s"));
    assert!(large.is_ok() && small.is_ok());
    assert_eq!(cluster.get("large").await.unwrap().unwrap().value, value);
}

#[tokio::test]
async fn what_is_too_large_or_empty_is_refused_before_it_is_sent() {
    let fake = Fake::start(1, 1).await;
    let cluster = connect(&fake).await;
    let before = fake.world().requests;
    let too_large = |limit, actual| move |error: &Error| matches!(error, Error::TooLarge { limit: l, actual: a, .. } if (*l, *a) == (limit, actual));
    assert_eq!(cluster.put("", "v").await.unwrap_err(), Error::EmptyKey);
    assert_eq!(cluster.get("").await.unwrap_err(), Error::EmptyKey);
    assert!(too_large(2048, 2049)(&cluster.put([0; 2049], "v").await.unwrap_err()));
    assert!(too_large(8 << 20, (8 << 20) + 1)(&cluster.put("k", vec![0; (8 << 20) + 1]).await.unwrap_err()));
    assert!(fake.world().requests <= before + 1, "the topology alone is asked for");
}

#[tokio::test]
async fn the_leader_is_followed_when_it_moves() {
    let fake = Fake::start(3, 2).await;
    let cluster = connect(&fake).await;
    cluster.put("k", "1").await.unwrap();
    fake.world().lead_all(Some(2));
    let begun = Instant::now();
    cluster.put("k", "2").await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(200), "a hint is followed at once");
    assert_eq!(cluster.get("k").await.unwrap().unwrap().value, "2");
    assert_eq!(fake.world().applied("k"), 2);
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_applied_once() {
    let fake = Fake::start(3, 1).await;
    let cluster = connect(&fake).await;
    for act in [Act::ServeAndCut, Act::Cut] {
        fake.script(first(Kind::Put, act));
        cluster.put("k", "v").await.unwrap();
    }
    assert_eq!(fake.world().applied("k"), 2);
    assert_eq!(fake.world().sessions(), 1, "a write is sent again in its session");
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_with_its_leader_is_applied_once() {
    let mut fake = Fake::start(3, 1).await;
    let cluster = connect(&fake).await;
    cluster.put("k", "0").await.unwrap();
    fake.script(first(Kind::Put, Act::ServeAndSwallow));
    let put = tokio::spawn({
        let cluster = cluster.clone();
        async move { cluster.put("k", "1").await }
    });
    tokio::time::sleep(Duration::from_millis(30)).await;
    fake.kill(0);
    tokio::time::sleep(Duration::from_millis(150)).await;
    fake.world().lead_all(Some(1));
    let elected = Instant::now();
    put.await.unwrap().unwrap();
    assert!(elected.elapsed() < Duration::from_millis(150), "the new leader is found soon");
    assert_eq!(fake.world().applied("k"), 2);
}

#[tokio::test]
async fn a_leader_that_hangs_is_left_when_another_leads() {
    let fake = Fake::start(3, 1).await;
    let cluster = connect(&fake).await;
    cluster.put("k", "0").await.unwrap();
    fake.script(|asked| if asked.node == 0 { Act::Swallow } else { Act::Serve });
    fake.world().lead_all(Some(1));
    let begun = Instant::now();
    cluster.put("k", "1").await.unwrap();
    cluster.get("k").await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!(fake.world().applied("k"), 2);
}

#[tokio::test]
async fn a_connection_that_does_not_answer_at_all_is_replaced() {
    let fake = Fake::start(1, 1).await;
    let cluster = connect(&fake).await;
    cluster.put("k", "0").await.unwrap();
    let hung = fake.world().connections;
    fake.script(move |asked| if asked.connection <= hung { Act::Swallow } else { Act::Serve });
    cluster.put("k", "1").await.unwrap();
    assert_eq!(fake.world().applied("k"), 2);
}

#[tokio::test]
async fn an_overloaded_cluster_is_left_alone_for_as_long_as_it_asks() {
    let fake = Fake::start(1, 1).await;
    let cluster = connect(&fake).await;
    fake.script(first(Kind::Put, Act::Say(Wire::Overloaded { retry_after_ms: 120 })));
    let begun = Instant::now();
    cluster.put("k", "v").await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(120));
    fake.script(|_| Act::Say(Wire::Overloaded { retry_after_ms: 5000 }));
    let begun = Instant::now();
    let refused = cluster.put("k", "v").deadline(SHORT).await.unwrap_err();
    assert_eq!(refused, Error::Overloaded { retry_after: Duration::from_secs(5) });
    assert!(begun.elapsed() < SHORT, "it makes no sense to wait");
}

#[tokio::test]
async fn a_write_that_is_never_answered_is_unknown() {
    let fake = Fake::start(1, 1).await;
    let cluster = connect(&fake).await;
    cluster.put("k", "0").await.unwrap();
    fake.script(|asked| if asked.kind == Kind::Put { Act::ServeAndSwallow } else { Act::Serve });
    let unknown = cluster.put("k", "1").deadline(SHORT).await.unwrap_err();
    assert_eq!(unknown, Error::Unknown { last: None });
    // Its outcome is not awaited any more, and the session goes on.
    fake.script(|_| Act::Serve);
    cluster.put("k", "2").await.unwrap();
    assert_eq!(fake.world().sessions(), 1);
}

#[tokio::test]
async fn a_write_that_was_cut_off_and_finds_no_leader_again_is_unknown() {
    let fake = Fake::start(3, 1).await;
    let cluster = connect(&fake).await;
    cluster.put("k", "0").await.unwrap();
    let world = fake.endpoints().len();
    let mut left = 1;
    fake.script(move |asked| match asked.kind {
        Kind::Put if left == 1 => {
            left = 0;
            Act::Cut
        }
        Kind::Put => Act::Say(Wire::NotLeader { shard: mesh_client::ShardId(0), leader: None }),
        _ => Act::Serve,
    });
    let unknown = cluster.put("k", "1").deadline(SHORT).await.unwrap_err();
    assert!(
        matches!(&unknown, Error::Unknown { last: Some(last) } if matches!(**last, Error::NoQuorum { .. })),
        "{unknown}, {world}"
    );
}

#[tokio::test]
async fn a_write_that_finds_no_leader_was_certainly_not_applied() {
    let fake = Fake::start(3, 2).await;
    let cluster = connect(&fake).await;
    fake.world().lead_all(None);
    let begun = Instant::now();
    let error = cluster.put("k", "v").deadline(SHORT).await.unwrap_err();
    assert!(matches!(error, Error::NoQuorum { .. }), "{error}");
    assert!(begun.elapsed() >= SHORT && begun.elapsed() < SHORT * 2);
    fake.script(|asked| if asked.shard.is_some() { Act::Say(Wire::NoQuorum) } else { Act::Serve });
    let error = cluster.get("k").deadline(SHORT).await.unwrap_err();
    assert!(matches!(error, Error::NoQuorum { .. }), "{error}");
}

#[tokio::test]
async fn many_writes_that_wait_for_one_session_learn_the_same() {
    let fake = Fake::start(3, 1).await;
    let cluster = connect(&fake).await;
    fake.world().lead_all(None);
    let puts = (0..50).map(|number| cluster.put(format!("k{number}"), "v").deadline(SHORT));
    for done in futures_util::future::join_all(puts.map(IntoFuture::into_future)).await {
        assert!(matches!(done, Err(Error::NoQuorum { .. })), "{done:?}");
    }
}

#[tokio::test]
async fn a_cluster_that_is_gone_is_unreachable_and_every_address_is_told() {
    let mut fake = Fake::start(2, 1).await;
    let cluster = connect(&fake).await;
    cluster.get("k").await.unwrap();
    (0..2).for_each(|node| fake.kill(node));
    tokio::time::sleep(Duration::from_millis(20)).await;
    let error = cluster.put("k", "v").deadline(SHORT).await.unwrap_err();
    let Error::Unreachable { tried } = &error else { panic!("{error}") };
    assert_eq!(tried.len(), 2, "{error}");
    fake.restart(0).await;
    cluster.put("k", "v").await.unwrap();
}

#[tokio::test]
async fn a_node_that_is_restarted_is_used_again() {
    let mut fake = Fake::start(1, 1).await;
    let cluster = connect(&fake).await;
    cluster.put("k", "1").await.unwrap();
    fake.kill(0);
    let put = cluster.put("k", "2").into_future();
    let restart = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        fake.restart(0).await;
    };
    let (done, ()) = tokio::join!(put, restart);
    done.unwrap();
    assert_eq!(fake.world().applied("k"), 2);
}

#[tokio::test]
async fn a_write_that_cannot_have_been_applied_gets_a_new_session() {
    let fake = Fake::start(1, 1).await;
    let cluster = connect(&fake).await;
    fake.script(first(Kind::Put, Act::Say(Wire::UnknownSession)));
    cluster.put("k", "v").await.unwrap();
    assert_eq!(fake.world().applied("k"), 1);
    assert_eq!(fake.world().sessions(), 2);
}

#[tokio::test]
async fn a_write_that_may_have_been_applied_keeps_its_session_whatever_a_node_says() {
    let fake = Fake::start(1, 1).await;
    let cluster = connect(&fake).await;
    let mut acts = vec![Act::Say(Wire::UnknownSession), Act::Say(Wire::UnknownSession), Act::ServeAndCut];
    fake.script(
        move |asked| if asked.kind == Kind::Put { acts.pop().unwrap_or(Act::Serve) } else { Act::Serve },
    );
    cluster.put("k", "v").await.unwrap();
    assert_eq!(fake.world().applied("k"), 1);
    assert_eq!(fake.world().sessions(), 1);
}

#[tokio::test]
async fn a_forgotten_session_makes_a_write_unknown_and_the_next_begins_another() {
    let fake = Fake::start(1, 1).await;
    let cluster = connect(&fake).await;
    cluster.put("k", "1").await.unwrap();
    fake.world().evict_sessions();
    let begun = Instant::now();
    let unknown = cluster.put("k", "2").await.unwrap_err();
    assert_eq!(unknown, Error::Unknown { last: None });
    assert!(begun.elapsed() < Duration::from_millis(500), "waiting would not help");
    cluster.put("k", "3").await.unwrap();
    assert_eq!(fake.world().applied("k"), 2);
}

#[tokio::test]
async fn an_outcome_that_is_unknown_for_a_moment_is_found_out() {
    let fake = Fake::start(1, 1).await;
    let cluster = connect(&fake).await;
    for error in [Wire::Unknown, Wire::Damaged { what: "page 7".into() }] {
        fake.script(first(Kind::Put, Act::ServeAndSay(error)));
        cluster.put("k", "v").await.unwrap();
    }
    assert_eq!(fake.world().applied("k"), 2);
}

#[tokio::test]
async fn a_write_that_the_server_failed_at_is_unknown() {
    let fake = Fake::start(1, 1).await;
    let cluster = connect(&fake).await;
    fake.script(first(Kind::Put, Act::Say(Wire::Internal { what: "a bug".into() })));
    let error = cluster.put("k", "v").await.unwrap_err();
    assert!(
        matches!(&error, Error::Unknown { last: Some(last) } if **last == Error::Server { what: "a bug".into() })
    );
}

#[tokio::test]
async fn a_full_disk_is_told_at_once_unless_the_write_may_be_applied() {
    let fake = Fake::start(1, 1).await;
    let cluster = connect(&fake).await;
    fake.script(first(Kind::Put, Act::Say(Wire::NoSpace)));
    assert_eq!(cluster.put("k", "v").await.unwrap_err(), Error::NoSpace);
    let mut acts = vec![Act::Say(Wire::NoSpace), Act::ServeAndCut];
    fake.script(
        move |asked| if asked.kind == Kind::Put { acts.pop().unwrap_or(Act::Serve) } else { Act::Serve },
    );
    cluster.put("k", "v").await.unwrap();
    assert_eq!(fake.world().applied("k"), 1);
}

#[tokio::test]
async fn a_slow_write_does_not_push_the_others_out_of_the_window() {
    let fake = Fake::start(1, 1).await;
    let cluster = connect(&fake).await;
    fake.script(first(Kind::Put, Act::ServeLate(Duration::from_millis(300))));
    // The fake checks that the window is kept.
    let puts = (0..3000).map(|number| cluster.put(format!("k{number}"), "v").into_future());
    for done in futures_util::future::join_all(puts).await {
        done.unwrap();
    }
    let world = fake.world();
    assert!((0..3000).all(|number| world.applied(&format!("k{number}")) == 1));
    assert_eq!(world.sessions(), 1);
}

#[tokio::test]
async fn a_call_that_is_dropped_holds_nothing_up() {
    let fake = Fake::start(1, 1).await;
    let cluster = connect(&fake).await;
    cluster.put("k", "0").await.unwrap();
    let seen = Arc::new(AtomicUsize::new(0));
    let puts = Arc::clone(&seen);
    fake.script(move |asked| match asked.kind {
        Kind::Put if puts.fetch_add(1, Ordering::Relaxed) < 10 => Act::Swallow,
        _ => Act::Serve,
    });
    for _ in 0..10 {
        let dropped =
            tokio::time::timeout(Duration::from_millis(5), cluster.put("k", "x").into_future()).await;
        assert!(dropped.is_err());
    }
    for number in 0..2000 {
        cluster.put(format!("k{number}"), "v").await.unwrap();
    }
}

#[tokio::test]
async fn a_node_is_told_how_long_its_answer_is_of_use() {
    let fake = Fake::start(1, 1).await;
    let cluster = connect(&fake).await;
    let told = Arc::new(AtomicUsize::new(0));
    let tell = Arc::clone(&told);
    fake.script(move |asked| {
        if asked.kind == Kind::Get {
            tell.store(asked.deadline_ms as usize, Ordering::Relaxed);
        }
        Act::Serve
    });
    cluster.get("k").deadline(Duration::from_secs(2)).await.unwrap();
    assert!((1600..=1800).contains(&told.load(Ordering::Relaxed)), "{told:?}");
}

#[tokio::test]
async fn after_close_calls_end() {
    let fake = Fake::start(1, 1).await;
    let cluster = connect(&fake).await;
    cluster.put("k", "v").await.unwrap();
    fake.script(|asked| if asked.kind == Kind::Put { Act::Swallow } else { Act::Serve });
    let under_way = cluster.put("k", "v").into_future();
    let close = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        cluster.close();
    };
    let (under_way, ()) = tokio::join!(under_way, close);
    assert_eq!(under_way.unwrap_err(), Error::Unknown { last: Some(Box::new(Error::Closed)) });
    assert_eq!(cluster.get("k").await.unwrap_err(), Error::Closed);
    assert_eq!(cluster.put("k", "v").await.unwrap_err(), Error::Closed);
}

#[tokio::test]
async fn a_session_is_opened_though_every_write_gives_up_before() {
    let fake = Fake::start(1, 1).await;
    let cluster = connect(&fake).await;
    fake.script(|asked| match asked.kind {
        Kind::OpenSession => Act::ServeLate(Duration::from_millis(600)),
        _ => Act::Serve,
    });
    let begun = Instant::now();
    while let Err(error) = cluster.put("k", "v").deadline(Duration::from_millis(100)).await {
        assert!(begun.elapsed() < Duration::from_secs(3), "it is never opened: {error}");
    }
    let world = fake.world();
    assert_eq!((world.applied("k"), world.sessions()), (1, 1));
}

#[tokio::test]
async fn a_session_that_may_be_opened_is_asked_for_again_as_the_same() {
    let fake = Fake::start(3, 1).await;
    let cluster = connect(&fake).await;
    let nonces: Arc<Mutex<Vec<u64>>> = Arc::default();
    let seen = Arc::clone(&nonces);
    // The last comes first.
    let mut acts = vec![
        Act::Say(Wire::Overloaded { retry_after_ms: 5 }),
        Act::ServeAndSay(Wire::Damaged { what: "page 7".into() }),
        Act::ServeAndCut,
        Act::Say(Wire::WrongEpoch { epoch: mesh_client::SlotEpoch(1) }),
        Act::ServeAndSay(Wire::Unknown),
        Act::Say(Wire::Unknown),
        Act::Say(Wire::Unknown),
    ];
    fake.script(move |asked| {
        seen.lock().unwrap().extend(asked.nonce);
        if asked.kind == Kind::OpenSession { acts.pop().unwrap_or(Act::Serve) } else { Act::Serve }
    });
    cluster.put("k", "v").await.unwrap();
    let world = fake.world();
    assert_eq!((world.applied("k"), world.sessions()), (1, 1));
    let nonces = nonces.lock().unwrap();
    assert!(nonces.len() == 8 && nonces.iter().all(|nonce| *nonce == nonces[0]), "{nonces:?}");
}

#[tokio::test]
async fn a_write_that_was_never_sent_is_not_unknown() {
    let fake = Fake::start(1, 1).await;
    let cluster = connect(&fake).await;
    for act in [Act::Say(Wire::Unknown), Act::ServeAndCut, Act::Swallow] {
        fake.script(move |asked| if asked.kind == Kind::OpenSession { act.clone() } else { Act::Serve });
        let begun = Instant::now();
        let error = cluster.put("k", "v").deadline(SHORT).await.unwrap_err();
        assert!(!matches!(error, Error::Unknown { .. }), "{error}");
        assert!(begun.elapsed() >= SHORT, "it goes on trying");
    }
}

#[tokio::test]
async fn a_write_is_told_why_its_session_cannot_be_opened() {
    let fake = Fake::start(1, 1).await;
    let cluster = connect(&fake).await;
    fake.script(|asked| match asked.kind {
        Kind::OpenSession => Act::Say(Wire::Internal { what: "a bug".into() }),
        _ => Act::Serve,
    });
    assert_eq!(cluster.put("k", "v").await.unwrap_err(), Error::Server { what: "a bug".into() });
    // Whether the opening was applied makes no difference to the write.
    let mut acts = vec![Act::Say(Wire::NoSpace), Act::ServeAndCut];
    fake.script(move |asked| match asked.kind {
        Kind::OpenSession => acts.pop().unwrap_or(Act::Serve),
        _ => Act::Serve,
    });
    assert_eq!(cluster.put("k", "v").await.unwrap_err(), Error::NoSpace);
}

#[tokio::test]
async fn a_late_word_about_the_leader_does_not_hide_the_one_that_is_known() {
    let mut fake = Fake::start(3, 1).await;
    let cluster = connect(&fake).await;
    cluster.put("k", "0").await.unwrap();
    fake.kill(2);
    let dead = fake.world().leader_at(2);
    fake.script(move |asked| match (asked.node, asked.kind) {
        (0, Kind::Put) => Act::SayLate(
            Duration::from_millis(200),
            Wire::NotLeader { shard: mesh_client::ShardId(0), leader: Some(dead.clone()) },
        ),
        (0, Kind::Get) => Act::Say(Wire::NotLeader { shard: mesh_client::ShardId(0), leader: None }),
        _ => Act::Serve,
    });
    fake.world().lead_all(Some(1));
    let put = cluster.put("k", "1").deadline(Duration::from_secs(2));
    let get = cluster.get("k");
    let (put, get) = tokio::join!(put.into_future(), get.into_future());
    get.unwrap();
    put.unwrap();
    cluster.get("k").deadline(SHORT).await.unwrap();
}

#[tokio::test]
async fn a_leader_that_was_named_and_cannot_be_reached_is_asked_for_again() {
    let mut fake = Fake::start(3, 1).await;
    let cluster = connect(&fake).await;
    cluster.put("k", "0").await.unwrap();
    fake.kill(2);
    let dead = fake.world().leader_at(2);
    let not_leader = Wire::NotLeader { shard: mesh_client::ShardId(0), leader: Some(dead) };
    fake.script(first(Kind::Put, Act::Say(not_leader)));
    // The term of the one that leads after all is the one that is known.
    cluster.put("k", "1").deadline(Duration::from_secs(1)).await.unwrap();
    assert_eq!(fake.world().applied("k"), 2);
}

#[tokio::test]
async fn an_opening_that_is_never_answered_is_sent_again() {
    let fake = Fake::start(1, 1).await;
    let cluster = connect(&fake).await;
    fake.script(first(Kind::OpenSession, Act::Swallow));
    cluster.put("k", "v").deadline(Duration::from_secs(8)).await.unwrap();
}
