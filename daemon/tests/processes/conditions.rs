//! Writes that depend on what their key holds, by the command line and by the library.

use mesh_client::{Error, Revision};

use crate::cluster::{Cluster, Plan, block_on};

#[test]
fn conditions_and_what_was_there_before_by_the_command_line() {
    let cluster = Cluster::start(Plan::ONE);
    let code = |arguments: &[&str]| cluster.ask(arguments, b"").code;
    assert_eq!(code(&["put", "k", "1", "--if-exists"]), 7);
    assert_eq!(code(&["put", "k", "1", "--if-absent"]), 0);
    let refused = cluster.ask(&["put", "k", "2", "--if-absent"], b"");
    assert_eq!((refused.code, refused.stdout.as_slice()), (7, &b""[..]));
    assert!(refused.stderr.contains("condition") && refused.stderr.contains('k'), "{}", refused.stderr);
    let item: serde_json::Value = serde_json::from_str(&cluster.mesh(&["get", "k", "--json"])).unwrap();
    let revision = item["revision"].as_str().unwrap();
    assert_eq!(cluster.mesh(&["put", "k", "2", "--if-revision", revision, "--previous"]), "1");
    assert_eq!(code(&["put", "k", "3", "--if-revision", revision]), 7);
    assert_eq!(code(&["put", "k", "3", "--if-version", "2"]), 0);
    assert_eq!(cluster.mesh(&["get", "k", "--rev", revision]), "1");
    assert_eq!(code(&["del", "k", "--if-revision", revision]), 7);
    assert_eq!(code(&["del", "k", "other", "--if-exists"]), 2, "a condition is on one key");
    assert_eq!(code(&["del", "k", "--if-version", "3"]), 0);
    assert_eq!(code(&["get", "k"]), 1);
    let swapped = cluster.mesh(&["put", "k", "4", "--previous", "--json"]);
    let swapped: serde_json::Value = serde_json::from_str(&swapped).unwrap();
    assert!(swapped["previous"].is_null() && swapped["revision"].is_string(), "{swapped}");
    assert_eq!(code(&["put", "k", "5", "--if-absent", "--if-exists"]), 2, "one condition at a time");
}

#[test]
fn counting_by_the_command_line() {
    let cluster = Cluster::start(Plan::ONE);
    assert_eq!(cluster.mesh(&["incr", "n"]).trim(), "1");
    assert_eq!(cluster.mesh(&["incr", "n", "-5"]).trim(), "-4");
    assert_eq!(cluster.mesh(&["get", "n"]), "-4");
    cluster.mesh(&["put", "n", "many"]);
    let refused = cluster.ask(&["incr", "n"], b"");
    assert_eq!(refused.code, 3, "{}", refused.stderr);
    assert!(refused.stderr.contains("no decimal number"), "{}", refused.stderr);
    cluster.mesh(&["put", "n", "9223372036854775807"]);
    assert_eq!(cluster.ask(&["incr", "n"], b"").code, 3);
    assert_eq!(cluster.mesh(&["get", "n"]), "9223372036854775807");
}

#[test]
fn conditional_writes_by_the_library_even_of_the_largest_value() {
    let cluster = Cluster::start(Plan::ONE);
    block_on(async {
        let client = cluster.client().await;
        let large = vec![7; 8 * 1024 * 1024];
        let first = client.put("k", &large).if_absent().await.unwrap();
        match client.put("k", "other").if_absent().await {
            Err(Error::Conflict { key, revision }) => {
                assert_eq!((&key[..], revision), (&b"k"[..], first.revision));
            }
            other => panic!("{other:?}"),
        }
        let second = client.put("k", "small").if_revision(first.revision).previous().await.unwrap();
        assert_eq!(second.previous.unwrap().value, large);
        assert!(second.revision > first.revision);
        let refused = client.delete("k").if_revision(first.revision).await;
        assert!(matches!(refused, Err(Error::Conflict { .. })), "{refused:?}");
        let deleted = client.delete("k").if_version(2).previous().await.unwrap();
        assert_eq!(deleted.previous.unwrap().value, "small");
        assert!(client.delete("k").previous().await.unwrap().previous.is_none());
        client.put("k", "again").if_revision(Revision(0)).await.unwrap();
    });
}

#[test]
fn increments_of_many_clients_at_once_all_count() {
    let cluster = Cluster::start(Plan::THREE);
    block_on(async {
        let client = cluster.client().await;
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..32 {
            let client = client.clone();
            tasks.spawn(async move {
                for _ in 0..50 {
                    client.increment("n", 1).await.unwrap();
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
        assert_eq!(client.increment("n", 0).await.unwrap().value, 32 * 50);
    });
}
