//! What goes on with fewer nodes, and how a lost one comes back.

use std::time::{Duration, Instant};

use mesh_client::{Cluster as Client, Error, ReplicaRole, ReplicaState};

use crate::cluster::{Cluster, Plan, block_on, name};
use crate::load::{Ended, Load, check};

#[test]
fn with_one_node_dead_reads_and_writes_go_on() {
    let mut cluster = Cluster::start(Plan::THREE);
    for victim in 0..3 {
        block_on(async {
            let client = cluster.client().await;
            cluster.kill(victim);
            let load = Load::start_at(&client, victim * 100, 16, Duration::from_secs(5));
            tokio::time::sleep(Duration::from_secs(2)).await;
            let written = load.stop().await;
            for written in &written {
                assert!(written.writes.iter().all(|ended| *ended == Ended::Acknowledged), "{written:?}");
            }
            assert!(check(&client, &written).await > 200);
        });
        cluster.run_all();
    }
}

#[test]
fn with_two_nodes_dead_writes_end_in_time_and_tell_the_truth() {
    let mut cluster = Cluster::start(Plan::THREE);
    block_on(async {
        let client = cluster.client().await;
        let (deadline, slack) = (Duration::from_secs(1), Duration::from_millis(300));
        let load = Load::start(&client, 32, deadline);
        tokio::time::sleep(Duration::from_millis(500)).await;
        cluster.kill(0);
        cluster.kill(1);
        tokio::time::sleep(Duration::from_secs(4)).await;
        let since = Instant::now();
        let read = client.get("writer-000/00000000").deadline(deadline).await;
        assert!(matches!(read, Err(Error::NoQuorum { .. })), "{read:?}");
        assert!(since.elapsed() < deadline + slack, "{:?}", since.elapsed());
        let written = load.stop().await;
        let mut refused = 0;
        for written in &written {
            assert!(written.slowest < deadline + slack, "{:?}", written.slowest);
            assert_ne!(written.writes.last(), Some(&Ended::Acknowledged));
            for ended in &written.writes {
                if let Ended::Refused(error) = ended {
                    assert!(matches!(error, Error::NoQuorum { .. }), "{error:?}");
                    refused += 1;
                }
            }
        }
        assert!(refused > 32, "{refused}");
        cluster.run_all();
        check(&cluster.client().await, &written).await;
    });
}

#[test]
fn a_wiped_node_says_so_and_comes_back_when_it_is_replaced() {
    let mut cluster = Cluster::start(Plan::THREE);
    block_on(async {
        let client = cluster.client().await;
        let load = Load::start(&client, 16, Duration::from_secs(20));
        tokio::time::sleep(Duration::from_secs(1)).await;
        cluster.kill(2);
        cluster.wipe(2);
        cluster.run(2);
        cluster.await_output(2, "mesh node replace c");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!votes(&client, 2).await, "it voted itself back in:\n{}", cluster.said(2));
        cluster.mesh(&["node", "replace", "c"]);
        await_vote(&client, 2).await;
        let written = load.stop().await;
        for written in &written {
            assert!(written.writes.iter().all(|ended| *ended == Ended::Acknowledged));
        }
        // What it was given is whole: it is one of two that are left.
        cluster.kill(0);
        let acknowledged = check(&client, &written).await;
        assert!(acknowledged > 500, "{acknowledged} writes are few");
        cluster.kill_all();
        cluster.run(1);
        cluster.run(2);
        cluster.await_output(2, "cluster ready");
        check(&cluster.client().await, &written).await;
    });
}

/// Whether a node's replicas serve and vote, under ids that the others know.
pub(crate) async fn votes(client: &Client, node: usize) -> bool {
    let reports = client.status().await;
    let Some(report) = reports.iter().find(|report| report.node.name == name(node)) else { return false };
    let Ok(status) = &report.status else { return false };
    let (shards, own) = (client.topology().shards().len(), &status.replicas);
    own.len() == shards
        && own.iter().all(|replica| {
            replica.state == ReplicaState::Serving
                && replica.role != ReplicaRole::Learner
                && replica.voters.len() == 3
                && replica.voters.iter().any(|voter| voter.replica == replica.replica)
        })
}

pub(crate) async fn await_vote(client: &Client, node: usize) {
    let since = Instant::now();
    while !votes(client, node).await {
        assert!(since.elapsed() < Duration::from_secs(60), "{:#?}", client.status().await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
