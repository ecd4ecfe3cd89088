//! What was acknowledged survives.

use std::time::Duration;

use mesh_client::{Cluster as Client, ShardId};

use crate::cluster::{Cluster, Plan, block_on};
use crate::load::{Ended, Load, check};

const WRITERS: usize = 64;
/// More than an election and a restart take.
const DEADLINE: Duration = Duration::from_secs(20);

async fn leader(cluster: &Cluster, client: &Client, shard: ShardId) -> usize {
    loop {
        let topology = client.topology();
        if let Some(node) = topology.leadership(shard).leader {
            let address = &topology.node(node).unwrap().address;
            return cluster.endpoints().iter().position(|endpoint| endpoint == address).unwrap();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn leaders_killed_one_after_the_other_under_load_lose_nothing_and_refuse_nothing() {
    let mut cluster = Cluster::start(Plan::THREE);
    block_on(async {
        let client = cluster.client().await;
        let load = Load::start(&client, WRITERS, DEADLINE);
        for shard in 0..3 {
            tokio::time::sleep(Duration::from_millis(800)).await;
            let victim = leader(&cluster, &client, ShardId(shard)).await;
            cluster.kill(victim);
            tokio::time::sleep(Duration::from_millis(1200)).await;
            cluster.run(victim);
            cluster.await_output(victim, "cluster ready");
        }
        let written = load.stop().await;
        for written in &written {
            assert!(written.writes.iter().all(|ended| *ended == Ended::Acknowledged));
        }
        let acknowledged = check(&client, &written).await;
        assert!(acknowledged > 1000, "{acknowledged} writes are few");
        // And on disk: what remains when everyone was killed.
        cluster.kill_all();
        cluster.run_all();
        assert_eq!(check(&cluster.client().await, &written).await, acknowledged);
    });
}

#[test]
fn all_nodes_killed_at_once_under_load_lose_nothing() {
    let mut cluster = Cluster::start(Plan::THREE);
    block_on(async {
        let client = cluster.client().await;
        let mut rounds = Vec::new();
        for round in 0..3 {
            let load = Load::start_at(&client, round * WRITERS, WRITERS, DEADLINE);
            tokio::time::sleep(Duration::from_millis(1000)).await;
            cluster.kill_all();
            cluster.run_all();
            tokio::time::sleep(Duration::from_millis(300)).await;
            rounds.extend(load.stop().await);
            let acknowledged = check(&client, &rounds).await;
            assert!(acknowledged > 500 * (round + 1), "{acknowledged} writes are few");
        }
    });
}

#[test]
fn another_number_of_cores_finds_the_same_data() {
    let mut cluster = Cluster::new(Plan { shards: 4, ..Plan::THREE });
    block_on(async {
        let mut rounds = Vec::new();
        for (round, cores) in ["0", "0-1", "1", "0,1"].into_iter().enumerate() {
            cluster.set_cores(cores);
            cluster.run_all();
            let client = cluster.client().await;
            check(&client, &rounds).await;
            let load = Load::start_at(&client, round * WRITERS, WRITERS, DEADLINE);
            tokio::time::sleep(Duration::from_millis(700)).await;
            rounds.extend(load.stop().await);
            check(&client, &rounds).await;
            if round % 2 == 0 {
                cluster.stop_all();
            } else {
                cluster.kill_all();
            }
        }
    });
}

#[test]
fn a_single_node_killed_under_load_loses_nothing() {
    let mut cluster = Cluster::start(Plan::ONE);
    block_on(async {
        let client = cluster.client().await;
        let load = Load::start(&client, WRITERS, DEADLINE);
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            cluster.kill(0);
            cluster.run(0);
            cluster.await_output(0, "cluster ready");
        }
        let written = load.stop().await;
        let acknowledged = check(&client, &written).await;
        assert!(acknowledged > 1000, "{acknowledged} writes are few");
    });
}
