//! Many writers while connections are cut, leaders move and nodes die: each write takes effect as often as its outcome
//! says.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod fake;

use std::time::Duration;

use fake::{Act, Asked, Fake};
use mesh_base::prng::Prng;
use mesh_client::{Cluster, Error};
use mesh_wire::{Error as Wire, Kind};

const WRITERS: usize = 40;
const WRITES: usize = 25;

/// What goes wrong with requests.
fn mischief(prng: &mut Prng, asked: &Asked) -> Act {
    if !matches!(asked.kind, Kind::Put | Kind::OpenSession | Kind::TopologyRequest) {
        return Act::Serve;
    }
    match prng.range(0..400) {
        0..3 => Act::Cut,
        3..6 => Act::ServeAndCut,
        6..16 => Act::Say(Wire::Overloaded { retry_after_ms: 5 }),
        16..20 => Act::Say(Wire::NotReady { why: "because".into() }),
        20..24 => Act::ServeAndSay(Wire::Unknown),
        24..28 => Act::ServeAndSay(Wire::Damaged { what: "a page".into() }),
        28..60 => Act::ServeLate(Duration::from_millis(prng.range(1..30))),
        60..62 => Act::ServeAndSwallow,
        62..64 => Act::Swallow,
        _ => Act::Serve,
    }
}

async fn write_under_chaos(seed: u64) {
    let mut prng = Prng::new(seed);
    let mut fake = Fake::start(3, 4).await;
    let cluster =
        Cluster::builder().deadline(Duration::from_millis(1500)).connect(fake.endpoints()).await.unwrap();
    let mut dice = prng.fork();
    fake.script(move |asked| mischief(&mut dice, asked));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let cluster = cluster.clone();
            tokio::spawn(async move {
                let mut outcomes = Vec::new();
                for number in 0..WRITES {
                    let key = format!("{writer}/{number}");
                    let outcome = cluster.put(&key, "v").await;
                    outcomes.push((key, outcome));
                }
                outcomes
            })
        })
        .collect();
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(prng.range(20..80))).await;
        let (node, leader) = (prng.index(3), prng.index(3));
        fake.kill(node);
        fake.world().lead_all(None);
        tokio::time::sleep(Duration::from_millis(prng.range(5..40))).await;
        fake.restart(node).await;
        fake.world().lead_all(Some(leader));
    }
    let mut done = 0;
    for writer in writers {
        for (key, outcome) in writer.await.unwrap() {
            let applied = fake.world().applied(&key);
            match outcome {
                Ok(_) => assert_eq!(applied, 1, "seed {seed}: {key} was answered"),
                Err(Error::Unknown { .. }) => assert!(applied <= 1, "seed {seed}: {key} is unknown"),
                Err(error) => assert_eq!(applied, 0, "seed {seed}: {key}: {error}"),
            }
            done += usize::from(applied == 1);
        }
    }
    assert!(done > WRITERS * WRITES / 2, "seed {seed}: only {done} writes were done");
}

#[tokio::test]
async fn each_write_takes_effect_as_often_as_its_outcome_says() {
    for seed in 0..3 {
        write_under_chaos(seed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_write_takes_effect_as_often_as_its_outcome_says_on_several_threads() {
    for seed in 10..13 {
        write_under_chaos(seed).await;
    }
}
