//! Starts that are refused: told why, and nothing that runs or lies there is harmed.

use std::fs;
use std::time::Duration;

use mesh_base::{ClusterId, ReplicaId, Term};
use mesh_client::{Cluster as Client, Error, ShardId};
use mesh_wire::{Envelope, PeerMessage, Raft, RaftMessage};
use raft::eraftpb::MessageType;

use crate::cluster::{Cluster, Plan, block_on, outcome};
use crate::files::{Change, make_identity_newer, make_segment_newer, make_superblock_newer, segments};
use crate::raw::{Raw, frame, hello_of_node};

/// Ends with a node's own exit code.
const NODE_FAILED: i32 = 5;

#[test]
fn a_wrong_flag_an_address_in_use_and_a_directory_in_use_are_named() {
    let cluster = Cluster::start(Plan::ONE);
    assert_eq!(cluster.ask(&["put", "before", "it"], b"").code, 0);
    let (used, elsewhere) = (cluster.data(0), cluster.data(1));
    let (endpoint, pid) = (cluster.endpoint(0), cluster.pid(0));

    let mut wrong = cluster.server("b", "127.0.0.1:0", &elsewhere);
    wrong.arg("--frobnicate");
    let wrong = outcome(wrong, b"");
    assert_eq!(wrong.code, 2);
    assert!(wrong.stderr.contains("--frobnicate"), "{}", wrong.stderr);
    assert!(!elsewhere.exists(), "nothing was begun");

    let same_address = outcome(cluster.server("b", &endpoint, &elsewhere), b"");
    assert_eq!(same_address.code, NODE_FAILED);
    assert!(same_address.stderr.contains(&endpoint), "{}", same_address.stderr);
    assert!(same_address.stderr.contains("in use"), "{}", same_address.stderr);

    for name in ["a", "b"] {
        let same_data = outcome(cluster.server(name, "127.0.0.1:0", &used), b"");
        assert_eq!(same_data.code, NODE_FAILED);
        let holder = format!("{} is in use by process {pid} (node a)", used.display());
        assert!(same_data.stderr.contains(&holder), "{}", same_data.stderr);
    }
    assert_eq!(cluster.mesh(&["get", "before"]), "it");
}

#[test]
fn the_data_of_another_node_is_refused_by_both_names_and_stays_as_it_is() {
    let mut cluster = Cluster::start(Plan::THREE);
    assert_eq!(cluster.ask(&["put", "before", "it"], b"").code, 0);
    cluster.kill(1);
    cluster.kill(2);
    // Node b with what belongs to c.
    let (ours, theirs, aside) = (cluster.data(1), cluster.data(2), cluster.data(25));
    fs::rename(&ours, &aside).unwrap();
    fs::rename(&theirs, &ours).unwrap();
    cluster.run(1);
    let (status, said) = cluster.ended(1);
    assert_eq!(status.code(), Some(NODE_FAILED), "{said}");
    assert_says(error_line(&said), &["`b`", "`c`", "--data"]);
    fs::rename(&ours, &theirs).unwrap();
    fs::rename(&aside, &ours).unwrap();
    cluster.run_all();
    assert_eq!(cluster.mesh(&["get", "before"]), "it");
}

#[test]
fn the_data_of_another_cluster_is_refused_by_both_names_and_stays_as_it_is() {
    let mut first = Cluster::start(Plan::THREE);
    let mut second = first.beside(Plan::THREE);
    second.run_all();
    block_on(async {
        let (mut clients, mut ids) = (Vec::new(), Vec::new());
        for cluster in [&first, &second] {
            let client = cluster.client().await;
            client.put("whose", cluster.endpoint(0)).await.unwrap();
            ids.push(client.topology().cluster().to_string());
            clients.push(client);
        }
        second.stop_all();
        first.kill(2);
        // Node c of the first with what belongs to c of the second.
        let (ours, theirs, aside) = (first.data(2), second.data(2), first.data(25));
        fs::rename(&ours, &aside).unwrap();
        fs::rename(&theirs, &ours).unwrap();
        first.run(2);
        clients[0].put("meanwhile", "served").await.unwrap();
        let (status, said) = first.ended(2);
        assert_ne!(status.code(), Some(0), "{said}");
        assert_says(error_line(&said), &[&ids[0], &ids[1], &ours.display().to_string()]);
        fs::rename(&ours, &theirs).unwrap();
        fs::rename(&aside, &ours).unwrap();
        first.run_all();
        second.run_all();
        for cluster in [&first, &second] {
            let item = cluster.client().await.get("whose").await.unwrap().unwrap();
            assert_eq!(item.value, cluster.endpoint(0));
        }
        assert_eq!(first.client().await.get("meanwhile").await.unwrap().unwrap().value, "served");
        assert_eq!(second.client().await.get("meanwhile").await.unwrap(), None);
    });
}

#[test]
fn what_a_node_of_another_cluster_says_is_not_heard_however_early_it_connected() {
    let mut cluster = Cluster::new(Plan::THREE);
    // Node c does not belong to a cluster yet, and cannot tell that this one is not to be its own.
    cluster.run(2);
    cluster.await_output(2, "waiting for node");
    let mut stranger = Raw::connect(&cluster.endpoint(2));
    stranger.send(&hello_of_node("a", ClusterId([9; 16])));
    drop(stranger.frame());
    cluster.run_all();
    assert_eq!(cluster.ask(&["put", "before", "it"], b"").code, 0);
    // Replicas of all clusters have the same ids. A leader's word of a later term is taken by those who hear it.
    let term = Term(1_000_000);
    let heartbeat = |shard| RaftMessage {
        shard: ShardId(shard),
        from: ReplicaId(1),
        to: ReplicaId(3),
        msg_type: MessageType::MsgHeartbeat as u8,
        term,
        ..RaftMessage::default()
    };
    let messages: Vec<_> = (0..3).map(heartbeat).collect();
    let raft = PeerMessage::Raft(Raft { messages: (&messages).into(), ..Raft::default() });
    stranger.send(&frame(Envelope { shard: Some(ShardId(0)), ..Envelope::default() }, &raft));
    std::thread::sleep(Duration::from_millis(500));
    block_on(async {
        for replica in cluster.status(2).await.replicas {
            assert!(replica.term < term, "it follows the leader of another cluster: {replica:?}");
        }
    });
    assert_eq!(cluster.mesh(&["get", "before"]), "it");
}

fn assert_says(line: &str, words: &[&str]) {
    for word in words {
        assert!(line.contains(word), "it does not say {word}: {line}");
    }
}

/// What a node that ended said of the reason.
fn error_line(said: &str) -> &str {
    said.lines().find(|line| line.starts_with("error: ")).unwrap_or(said)
}

#[test]
fn a_newer_identity_ends_the_node_by_file_and_versions_and_stays_as_it_is() {
    let mut cluster = Cluster::start(Plan::ONE);
    assert_eq!(cluster.ask(&["put", "before", "it"], b"").code, 0);
    cluster.stop_all();
    let newer = make_identity_newer(&cluster.data(0).join("node/identity"));
    cluster.run(0);
    let (status, said) = cluster.ended(0);
    assert_eq!(status.code(), Some(NODE_FAILED), "{said}");
    assert_says(error_line(&said), &["identity", "newer", "format 2", "up to 1"]);
    newer.undo();
    cluster.run_all();
    assert_eq!(cluster.mesh(&["get", "before"]), "it");
}

#[test]
fn a_newer_log_or_store_is_refused_by_file_and_versions_and_the_other_shard_is_served() {
    let mut cluster = Cluster::start(Plan::ONE);
    block_on(async {
        let client = cluster.client().await;
        let keys = key_of_each_shard(&client);
        for key in &keys {
            client.put(key, "it").await.unwrap();
        }
        cluster.stop_all();
        let replica = cluster.replica(0, ShardId(1));
        let (segment, store) = (segments(&replica).pop().unwrap(), replica.join("store"));
        let segment_name = segment.file_name().unwrap().to_str().unwrap();
        type Make<'m> = &'m dyn Fn() -> Change;
        let cases: [(Make<'_>, [&str; 3]); 2] = [
            (&|| make_segment_newer(&segment), [segment_name, "version 2", "up to 1"]),
            (&|| make_superblock_newer(&store), ["store", "format 2", "reads 1"]),
        ];
        for (make, words) in cases {
            let newer = make();
            cluster.run(0);
            cluster.await_output(0, "shard 1: ");
            let said = cluster.said(0);
            let line = said.lines().find(|line| line.contains("shard 1: ")).unwrap();
            assert_says(line, &words);
            let client = cluster.client().await;
            assert_eq!(client.get(&keys[0]).await.unwrap().unwrap().value, "it");
            let read = client.get(&keys[1]).deadline(Duration::from_secs(1)).await;
            assert!(matches!(read, Err(Error::Damaged { .. } | Error::NoQuorum { .. })), "{read:?}");
            cluster.stop_all();
            newer.undo();
            cluster.run_all();
            for key in &keys {
                assert_eq!(cluster.mesh(&["get", key]), "it");
            }
            cluster.stop_all();
        }
    });
}

/// A key of each shard, in the order of the shards.
pub(crate) fn key_of_each_shard(client: &Client) -> Vec<String> {
    let topology = client.topology();
    let of =
        |shard| (0..).map(|at| format!("key {at}")).find(|key| topology.shard_of(key.as_bytes()) == shard);
    topology.shards().map(|shard| of(shard).unwrap()).collect()
}
