//! The program against a node in this process.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use mesh_base::limits::SNAPSHOT_BYTES_PER_SECOND;
use mesh_engine::MemoryAhead;
use mesh_server::core::{Core, CoreOptions, NodeName, Notice, PanicPolicy};
use mesh_server::host::{Claim, NodeHandle};
use mesh_server::node::NodeConfig;
use serde_json::Value;
use tempfile::TempDir;

/// A cluster of one node, stopped when it is dropped.
struct Node {
    handle: Option<NodeHandle>,
    _data: TempDir,
}

impl Node {
    fn start(shards: u16) -> Self {
        // Beside the tests' program: `/tmp` may be in memory, without direct I/O.
        let program = std::env::current_exe().unwrap();
        let data = tempfile::tempdir_in(program.parent().unwrap()).unwrap();
        let config = NodeConfig {
            name: NodeName::from(format!("bench-{}", std::process::id()).as_str()),
            listen: "127.0.0.1:0".into(),
            advertise: "127.0.0.1:0".into(),
            peers: Vec::new(),
            data: data.path().to_path_buf(),
            cpus: vec![0],
            shards: Some(shards),
            memory_bytes: u64::from(shards) * (96 << 20),
            snapshot_bytes_per_second: SNAPSHOT_BYTES_PER_SECOND,
        };
        let claim = Claim::new(&config).unwrap();
        let advertise = claim.local_address().to_string();
        let config = Arc::new(NodeConfig { advertise, ..config });
        let memory = MemoryAhead::default();
        let options = CoreOptions { config, shard: None, memory, panics: PanicPolicy::Contain };
        let handle = claim.run(move |core, prng| Core::new(options.clone(), core, prng)).unwrap();
        assert!(handle.notices().iter().any(|notice| matches!(notice, Notice::ClusterReady { .. })));
        Self { handle: Some(handle), _data: data }
    }

    fn endpoint(&self) -> String {
        self.handle.as_ref().unwrap().address().to_string()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let handle = self.handle.take().unwrap();
        handle.stop();
        let joined = handle.join();
        if !std::thread::panicking() {
            joined.unwrap();
        }
    }
}

fn bench(arguments: &[&str]) -> Output {
    Command::new(Path::new(env!("CARGO_BIN_EXE_mesh-bench"))).arg("run").args(arguments).output().unwrap()
}

/// What a run of a second reports.
fn run(endpoint: &str, arguments: &[&str]) -> Value {
    let common = ["--endpoints", endpoint, "--seconds", "1", "--warm-up", "0", "--keys", "2000", "--json"];
    let output = bench(&[&common, arguments].concat());
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{words}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["errors"], serde_json::json!({}), "{words}");
    assert_eq!(report["worthless"], serde_json::json!([]));
    report
}

fn number(report: &Value, path: &str) -> f64 {
    report.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path} is not in {report}"))
}

#[test]
fn a_run_fills_in_the_keys_and_reports_what_it_did() {
    let node = Node::start(2);
    let mixed = run(&node.endpoint(), &["--workload", "mixed", "--connections", "5", "--in-flight", "4"]);
    let (reads, writes) =
        (number(&mixed, "/latency_us/reads/requests"), number(&mixed, "/latency_us/writes/requests"));
    assert!(reads > 10.0 && writes > 10.0, "{mixed}");
    assert!((number(&mixed, "/throughput/operations") - reads - writes).abs() < 0.5, "{mixed}");
    assert!(number(&mixed, "/latency_us/writes/p99") >= number(&mixed, "/latency_us/writes/p50"));
    // The node runs in this process, which is found by its port.
    assert!((number(&mixed, "/servers/0/pid") - f64::from(std::process::id())).abs() < 0.5, "{mixed}");
    assert_eq!(mixed["load"]["partitions"], 2);

    let batched = run(&node.endpoint(), &["--batch", "50", "--connections", "3", "--distribution", "latest"]);
    let (keys, requests) =
        (number(&batched, "/throughput/operations"), number(&batched, "/throughput/requests"));
    assert!(requests > 1.0 && (keys - 50.0 * requests).abs() < 0.5, "{batched}");
}

#[test]
fn who_cannot_be_reached_is_told_with_what_to_do() {
    let output = bench(&["--endpoints", "127.0.0.1:1", "--seconds", "1"]);
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{words}");
    assert!(words.contains("127.0.0.1:1: ") && words.contains("--endpoints"), "{words}");
    assert!(output.stdout.is_empty());
}

#[test]
fn a_wrong_command_line_is_refused() {
    for arguments in [&["--reads", "5"][..], &["--cores", "x"], &["--in-flight", "0"]] {
        let output = bench(arguments);
        assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
