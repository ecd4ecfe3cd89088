//! The files of a stopped node, checked and looked at: what is damaged is named, what is intact is counted, and nothing is
//! changed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use mesh_base::checksum::xxh3;
use mesh_client::{Bytes, Cluster as Client, ShardId};
use serde_json::Value;

use crate::cluster::{Cluster, Outcome, Plan, block_on};
use crate::files::{Change, Kind, batches, identities, pages, segments, superblocks};

/// The shard that is damaged.
const DAMAGED: ShardId = ShardId(1);
const SMALL: usize = 3000;
const LARGE: usize = 4;

fn small(number: usize) -> String {
    format!("small {number:05}")
}

/// The value of a key, which is nowhere else.
fn value(number: usize, bytes: usize) -> Bytes {
    let mut value = format!("<value {number:05}>").into_bytes();
    value.resize(bytes, b'.');
    value.into()
}

async fn fill(client: &Client) {
    let smalls = (0..SMALL).map(|number| (small(number), value(number, 200)));
    let larges = (0..LARGE).map(|number| (format!("large {number:05}"), value(90_000 + number, 100_000)));
    let content: BTreeMap<String, Bytes> = smalls.chain(larges).collect();
    client.put_many(&content).await.unwrap();
}

/// A stopped single node with keys in two shards, and a small and a large one in the middle of the shard to be damaged.
struct Stopped {
    cluster: Cluster,
    small: usize,
    large: usize,
}

impl Stopped {
    fn new() -> Self {
        let mut cluster = Cluster::start(Plan::ONE);
        let (small, large) = block_on(async {
            let client = cluster.client().await;
            fill(&client).await;
            let topology = client.topology();
            let in_shard = |key: &str| topology.shard_of(key.as_bytes()) == DAMAGED;
            let smalls: Vec<_> = (0..SMALL).filter(|number| in_shard(&small(*number))).collect();
            let large = (0..LARGE).find(|number| in_shard(&format!("large {number:05}")));
            (smalls[smalls.len() / 2], large.unwrap())
        });
        cluster.stop_all();
        Self { cluster, small, large }
    }

    fn ask(&self, command: &str, flags: &[&str]) -> Outcome {
        let data = self.cluster.data(0);
        let arguments = [&[command, "--data", data.to_str().unwrap()], flags].concat();
        self.cluster.ask(&arguments, b"")
    }

    fn text(&self, command: &str, flags: &[&str], code: i32) -> String {
        let outcome = self.ask(command, flags);
        let said = String::from_utf8(outcome.stdout).unwrap();
        assert_eq!(outcome.code, code, "{said}{}", outcome.stderr);
        said
    }

    fn json(&self, command: &str, code: i32) -> Vec<Value> {
        let said = self.text(command, &["--json"], code);
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn store(&self) -> PathBuf {
        self.cluster.replica(0, DAMAGED).join("store")
    }
}

/// A digest of every file.
fn digests(directory: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(digests(&path));
        } else {
            found.insert(path.clone(), xxh3(&fs::read(&path).unwrap()));
        }
    }
    found
}

/// The damage that a verification names in a replica, as JSON.
fn damage(verified: &Value, shard: ShardId) -> &Vec<Value> {
    let replicas = verified["replicas"].as_array().unwrap();
    let replica = replicas.iter().find(|replica| replica["shard"] == shard.0).unwrap();
    replica["damage"].as_array().unwrap()
}

#[test]
fn an_intact_node_is_counted_and_left_as_it_is() {
    let stopped = Stopped::new();
    let before = digests(&stopped.cluster.data(0));
    let verified = &stopped.json("verify", 0)[0];
    assert_eq!((&verified["intact"], &verified["node"]), (&Value::Bool(true), &Value::from("a")));
    let count = |of: &str, what: &str| -> u64 {
        let replicas = verified["replicas"].as_array().unwrap();
        replicas.iter().map(|replica| replica[of][what].as_u64().unwrap()).sum()
    };
    assert_eq!(count("store", "keys"), (SMALL + LARGE) as u64);
    assert_eq!(count("store", "cells"), count("store", "cells_written"));
    assert!(count("log", "entries") > 0 && count("store", "extents") == LARGE as u64);
    for shard in [ShardId(0), DAMAGED] {
        assert!(damage(verified, shard).is_empty());
    }
    let said = stopped.text("verify", &[], 0);
    assert!(said.contains("node a of cluster ") && said.ends_with("\nintact\n"), "{said}");

    // A key, the page it is in, and the whole.
    let (key, text) = (small(stopped.small), String::from_utf8(value(stopped.small, 20).to_vec()).unwrap());
    let versions = stopped.text("inspect", &["--key", &key], 0);
    assert!(versions.contains(&format!("shard {DAMAGED}, ")) && versions.contains(&text), "{versions}");
    assert_eq!(stopped.ask("inspect", &["--key", "nothing"]).code, 1);
    let leaves = pages(&stopped.store(), Kind::Leaf, &value(stopped.small, 200));
    let page = (leaves[0] / 8192).to_string();
    let dump = stopped.text("inspect", &["--shard", "1", "--page", &page], 0);
    assert!(dump.contains(": leaf\n") && dump.contains(&key) && dump.contains(&text), "{dump}");
    let inspected = stopped.json("inspect", 0);
    assert_eq!(inspected.len(), 2);
    assert_eq!(inspected[1]["store"]["copies"].as_array().unwrap().len(), 4);
    assert!(
        inspected[1]["log"].as_array().unwrap().iter().any(|segment| segment["entries"].as_u64() > Some(0))
    );
    let said = stopped.text("inspect", &[], 0);
    for word in ["COPY AT", "root at page", "horizon", "SEGMENT", "must exist"] {
        assert!(said.contains(word), "no `{word}`: {said}");
    }
    assert_eq!(digests(&stopped.cluster.data(0)), before, "nothing is changed");
}

#[test]
fn a_damaged_byte_is_named_with_its_file_place_and_keys() {
    let stopped = Stopped::new();
    let store = stopped.store();
    let (small_value, large_value) = (value(stopped.small, 200), value(90_000 + stopped.large, 64));
    let newest = superblocks(&store)[0];
    for (kind, part, holds) in [
        (Kind::Leaf, "leaf", &small_value),
        (Kind::Interior, "interior page", &Bytes::new()),
        (Kind::Extent, "extent", &large_value),
        (Kind::Bitmap, "bitmap", &Bytes::new()),
        (Kind::BitmapIndex, "index page", &Bytes::new()),
    ] {
        // Those that no checkpoint refers to any more are nobody's.
        let places = pages(&store, kind, holds);
        let flipped: Vec<_> = places.iter().map(|place| Change::flip(&store, place + 100)).collect();
        let verified = &stopped.json("verify", 6)[0];
        assert!(damage(verified, ShardId(0)).is_empty());
        let found = damage(verified, DAMAGED);
        assert!(!found.is_empty(), "{kind:?}");
        for damage in found {
            let offset = usize::try_from(damage["offset"].as_u64().unwrap()).unwrap();
            assert!(damage["file"].as_str().unwrap().ends_with("/store"), "{damage}");
            assert_eq!(
                (&damage["part"], damage["page"].as_u64()),
                (&part.into(), Some(offset as u64 / 8192))
            );
            assert!(places.contains(&offset), "{damage}");
        }
        if kind == Kind::Leaf {
            let (from, to) = (found[0]["keys"]["from"].as_str(), found[0]["keys"]["to"].as_str());
            let key = small(stopped.small);
            assert!(from.is_none_or(|from| from <= key.as_str()) && to.is_none_or(|to| key.as_str() < to));
        }
        if kind == Kind::Extent {
            assert_eq!(found[0]["keys"]["key"], format!("large {:05}", stopped.large));
        }
        let said = stopped.text("verify", &[], 6);
        let offset = found[0]["offset"].as_u64().unwrap();
        assert!(
            said.contains(&format!("/store at byte {offset} (page {}): {part}: ", offset / 8192)),
            "{said}"
        );
        assert!(said.ends_with("\ndamaged\n"));
        stopped.text("inspect", &[], 0);
        flipped.into_iter().for_each(Change::undo);
    }
    // The newest superblock copy: the log knows that there was one.
    let flipped = Change::flip(&store, newest + 60);
    let verified = &stopped.json("verify", 6)[0];
    let found = &damage(verified, DAMAGED)[0];
    assert_eq!((&found["part"], found["offset"].as_u64()), (&"superblock copy".into(), Some(newest as u64)));
    flipped.undo();
    // One that is not needed.
    let flipped = Change::flip(&store, superblocks(&store)[2] + 60);
    let said = stopped.text("verify", &[], 0);
    assert!(said.contains("it is not needed"), "{said}");
    flipped.undo();
    stopped.text("verify", &[], 0);
}

#[test]
fn damage_to_a_log_is_named_though_the_node_would_not_open_it() {
    let mut stopped = Stopped::new();
    stopped.cluster.run_all();
    block_on(async {
        let client = stopped.cluster.client().await;
        for number in 0..300 {
            client.put(&small(number), value(number, 200)).await.unwrap();
        }
    });
    stopped.cluster.kill(0);
    let segment = segments(&stopped.cluster.replica(0, DAMAGED)).pop().unwrap();
    let name = segment.file_name().unwrap().to_str().unwrap().to_owned();
    let places = batches(&segment);
    let batch = places[places.len() / 2];
    let flipped = Change::flip(&segment, batch + 120);
    let found = &damage(&stopped.json("verify", 6)[0], DAMAGED)[0].clone();
    assert!(found["file"].as_str().unwrap().ends_with(&name), "{found}");
    assert_eq!(found["offset"].as_u64(), Some(batch as u64));
    assert!(found["entries"][0].as_u64() <= found["entries"][1].as_u64(), "{found}");
    let inspected = &stopped.json("inspect", 0)[1];
    let last = inspected["log"].as_array().unwrap().last().unwrap();
    assert_eq!(last["damaged_at"][0].as_u64(), Some(batch as u64));
    assert!(last["end"].as_u64().unwrap() > batch as u64, "what is behind is read too");
    flipped.undo();

    let header = Change::flip(&segment, 20);
    let found = &damage(&stopped.json("verify", 6)[0], DAMAGED)[0].clone();
    assert_eq!(
        (found["offset"].as_u64(), &found["what"]),
        (Some(0), &"the segment's header is damaged".into())
    );
    header.undo();
    stopped.text("verify", &[], 0);

    let identity = stopped.cluster.data(0).join("node/identity");
    let both = identities(&identity).into_iter().map(|copy| Change::flip(&identity, copy + 40));
    let both: Vec<_> = both.collect();
    let said = stopped.text("verify", &[], 6);
    assert!(said.contains("node/identity: identity: no valid copy at byte 0 or 65536"), "{said}");
    both.into_iter().for_each(Change::undo);
    fs::remove_dir_all(stopped.cluster.replica(0, DAMAGED)).unwrap();
    let said = stopped.text("verify", &[], 6);
    assert!(said.contains("its directory is missing"), "{said}");
}

#[test]
fn a_node_that_runs_and_what_is_no_node_are_refused() {
    let mut stopped = Stopped::new();
    stopped.cluster.run_all();
    for command in ["verify", "inspect"] {
        let refused = stopped.ask(command, &[]);
        assert_eq!((refused.code, refused.stdout.len()), (5, 0));
        assert!(refused.stderr.contains("is in use by process "), "{}", refused.stderr);
        let empty = tempfile::tempdir().unwrap();
        let refused = stopped.cluster.ask(&[command, "--data", empty.path().to_str().unwrap()], b"");
        assert_eq!(refused.code, 2);
        assert!(refused.stderr.contains("not the data directory of a node"), "{}", refused.stderr);
    }
    stopped.cluster.stop_all();
    let refused = stopped.ask("inspect", &["--page", "16"]);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("--shard"), "{}", refused.stderr);
    assert_eq!(stopped.ask("inspect", &["--shard", "9"]).code, 2);
}
