//! The program as a shell sees it: what it prints where, and how it ends.

#![cfg(feature = "host")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

#[path = "../../wire/clients/rust/tests/fake/mod.rs"]
mod fake;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use fake::{Act, Fake};
use mesh_wire::{Error as Wire, Kind};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// The program, with nothing of this test's surroundings.
fn mesh(endpoints: &[String], arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mesh"));
    command.env_clear().env("MESH_ENDPOINTS", endpoints.join(",")).args(arguments);
    command
}

struct Ended {
    code: i32,
    stdout: String,
    stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ended {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap()
    }
}

fn run(fake: &Fake, arguments: &[&str]) -> Ended {
    mesh(&fake.endpoints(), arguments).output().unwrap().into()
}

fn run_with_stdin(fake: &Fake, arguments: &[&str], stdin: &[u8]) -> Ended {
    let mut command = mesh(&fake.endpoints(), arguments);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin).unwrap();
    child.wait_with_output().unwrap().into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_comes_back_byte_for_byte_and_notes_go_to_stderr() {
    let fake = Fake::start(3, 4).await;
    let put = run(&fake, &["put", "greeting", "hello"]);
    assert_eq!((put.code, put.stdout.as_str()), (0, ""));
    assert!(put.stderr.contains("revision"), "{}", put.stderr);
    let get = run(&fake, &["get", "greeting"]);
    assert_eq!((get.code, get.stdout.as_str(), get.stderr.as_str()), (0, "hello", ""));
    for arguments in [&["put", "file"][..], &["put", "file", "-"]] {
        assert_eq!(run_with_stdin(&fake, arguments, b"line\nline\n\0\xff").code, 0);
        let get = mesh(&fake.endpoints(), &["get", "file"]).output().unwrap();
        assert_eq!(get.stdout, b"line\nline\n\0\xff");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_exist_ends_with_1() {
    let fake = Fake::start(1, 2).await;
    let get = run(&fake, &["get", "none"]);
    assert_eq!((get.code, get.stdout.as_str()), (1, ""));
    assert!(get.stderr.contains("`none` does not exist"));
    run(&fake, &["put", "a", "1"]);
    let del = run(&fake, &["del", "a", "none"]);
    assert_eq!((del.code, del.stderr.as_str()), (0, "1 of 2 keys existed and are deleted\n"));
    assert_eq!(run(&fake, &["del", "a", "none"]).code, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_usage_ends_with_2_and_says_what_is_right() {
    let fake = Fake::start(1, 1).await;
    for (arguments, word) in [
        (&["get"][..], "<KEY>"),
        (&["frobnicate"], "frobnicate"),
        (&["get", "k", "--timeout", "5"], "as 5s"),
        (&["get", ""], "at least one byte"),
        (&["range", "a", "--prefix", "b"], "--prefix"),
        (&["range", "--cursor", "nonsense"], "cursor"),
        (&["--endpoints", "a:b", "get", "k"], "host:port"),
        (&["--node", "a", "get", "k"], "without a command"),
        (&["--listen", ":1"], "--node"),
        (&["get", r"a\n"], "backslash"),
        (&["get", "k", "--log", "loud"], "is not a level"),
        (&["--node", "a", "--memory", "1.5GiB"], "as 4GiB"),
        (&["--node", "a", "--snapshot-rate", "0"], "--snapshot-rate"),
        (&["dev", "--port", "65535"], "--port"),
        (&[], "Usage"),
    ] {
        let ended = run(&fake, arguments);
        assert_eq!(ended.code, 2, "{arguments:?}: {}", ended.stderr);
        assert!(
            ended.stderr.contains(word) || ended.stdout.contains(word),
            "{arguments:?}: {}",
            ended.stderr
        );
    }
    let server = Command::new(env!("CARGO_BIN_EXE_mesh-server")).output().unwrap();
    let server = Ended::from(server);
    assert_eq!(server.code, 2);
    assert!(server.stderr.contains("--node is missing"), "{}", server.stderr);
    let key = "k".repeat(3000);
    let too_long = run(&fake, &["put", &key, "v"]);
    assert_eq!(too_long.code, 2);
    assert!(too_long.stderr.contains("3000 is more than 2048"), "{}", too_long.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_is_as_large_as_a_value_may_be_and_no_larger() {
    let fake = Fake::start(1, 1).await;
    let mut value = vec![0xa5; 8 * 1024 * 1024];
    assert_eq!(run_with_stdin(&fake, &["put", "large"], &value).code, 0);
    let get = mesh(&fake.endpoints(), &["get", "large"]).output().unwrap();
    assert!(get.stdout == value);
    value.push(0);
    let refused = run_with_stdin(&fake, &["put", "large"], &value);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("larger than 8388608 bytes"), "{}", refused.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_any_bytes_is_typed_as_it_is_printed() {
    let fake = Fake::start(2, 3).await;
    let keys = [r"a\x00\xff", r"b\\c", "grün"];
    for key in keys {
        assert_eq!(run(&fake, &["put", key, "v"]).code, 0, "{key}");
    }
    let range = run(&fake, &["range", "--keys-only"]);
    assert_eq!(range.stdout.lines().collect::<Vec<_>>(), keys);
    for key in range.stdout.lines() {
        assert_eq!(run(&fake, &["get", key]).stdout, "v", "{key}");
        let prefix = run(&fake, &["range", "--keys-only", "--prefix", key]);
        assert_eq!(prefix.stdout.trim_end(), key);
    }
    let first = run(&fake, &["get", keys[0], "--json"]).json();
    assert_eq!((&first["key"], &first["key_encoding"]), (&json!("YQD/"), &json!("base64")));
    assert_eq!(run(&fake, &["range", r"b\x00", "c", "--keys-only"]).stdout, "b\\\\c\n");
    assert_eq!(run(&fake, &["del", keys[0], keys[1], keys[2]]).code, 0);
    assert_eq!(run(&fake, &["range"]).stdout, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_of_the_cluster_ends_with_3() {
    let fake = Fake::start(1, 1).await;
    fake.script(|asked| if asked.kind == Kind::Put { Act::Say(Wire::NoSpace) } else { Act::Serve });
    let full = run(&fake, &["put", "k", "v"]);
    assert_eq!(full.code, 3);
    assert!(full.stderr.starts_with("error: no disk space"), "{}", full.stderr);
    fake.world().lead_all(None);
    let no_leader = run(&fake, &["--timeout", "300ms", "get", "k"]);
    assert_eq!(no_leader.code, 3, "{}", no_leader.stderr);
    let told = run(&fake, &["put", "k", "v", "--json", "--timeout", "300ms"]);
    let error: Value = serde_json::from_str(&told.stderr).unwrap();
    assert_eq!((told.code, &error["error"]), (3, &json!("NoQuorum")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_cannot_be_reached_in_time_ends_with_4() {
    let nowhere = ["127.0.0.1:1".to_owned()];
    let gone: Ended = mesh(&nowhere, &["--timeout", "300ms", "get", "k"]).output().unwrap().into();
    assert_eq!(gone.code, 4);
    assert!(gone.stderr.contains("127.0.0.1:1") && gone.stderr.contains("refused"), "{}", gone.stderr);
    let fake = Fake::start(1, 1).await;
    fake.script(|_| Act::Swallow);
    let silent = run(&fake, &["--timeout", "300ms", "put", "k", "v"]);
    assert_eq!(silent.code, 4, "{}", silent.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_read_json() {
    let fake = Fake::start(2, 3).await;
    let put = run(&fake, &["put", "k", "grün", "--json"]).json();
    let revision = put["revision"].as_str().unwrap().to_owned();
    let get = run(&fake, &["get", "k", "--json"]).json();
    let expected = json!({
        "key": "k", "value": "grün", "revision": revision, "create_revision": revision, "version": 1
    });
    assert_eq!(get, expected);
    let none = run(&fake, &["get", "none", "--json"]);
    assert_eq!((none.code, none.json()), (1, json!({ "key": "none", "value": null })));
    run_with_stdin(&fake, &["put", "binary"], &[0xff, 0xfe]);
    let binary = run(&fake, &["get", "binary", "--json"]).json();
    assert_eq!((&binary["value"], &binary["value_encoding"]), (&json!("//4="), &json!("base64")));
    let del = run(&fake, &["del", "k", "none", "--json"]).json();
    assert_eq!(del["deleted"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_is_printed_in_order_and_goes_on_from_its_cursor() {
    let fake = Fake::start(2, 3).await;
    (0..30).for_each(|number| fake.world().set(&format!("k{number:02}"), &format!("v\t{number}")));
    let range = run(&fake, &["range", "k05", "k08"]);
    assert_eq!((range.code, range.stdout.as_str()), (0, "k05\tv\\x095\nk06\tv\\x096\nk07\tv\\x097\n"));
    assert_eq!(range.stderr, "");
    let keys = run(&fake, &["range", "--prefix", "k1", "--reverse", "--keys-only", "--limit", "2"]);
    assert_eq!(keys.stdout, "k19\nk18\n");
    assert!(keys.stderr.contains("--cursor"), "{}", keys.stderr);
    let first = run(&fake, &["range", "--limit", "10", "--json"]);
    let lines: Vec<Value> = first.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[0]["key"], &lines[9]["value"]), (11, &json!("k00"), &json!("v\t9")));
    let cursor = lines[10]["cursor"].as_str().unwrap();
    let rest = run(&fake, &["range", "--keys-only", "--cursor", cursor]);
    assert_eq!(rest.stdout.lines().count(), 20);
    assert!(rest.stdout.starts_with("k10\n"));
    let wrong = run(&fake, &["range", "--reverse", "--cursor", cursor]);
    assert_eq!(wrong.code, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_has_enough_ends_a_range_quietly() {
    let fake = Fake::start(1, 1).await;
    let value = "v".repeat(10_000);
    (0..200).for_each(|number| fake.world().set(&format!("{number}"), &value));
    let mut child =
        mesh(&fake.endpoints(), &["range"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ended: Ended = child.wait_with_output().unwrap().into();
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_shows_every_node_and_shard_and_what_is_wrong() {
    let mut fake = Fake::start(3, 2).await;
    fake.world().damaged.push(1);
    fake.kill(2);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let status = run(&fake, &["status"]);
    assert_eq!(status.code, 0, "{}", status.stderr);
    for word in
        ["3 nodes, 1 of them unreachable, 2 shards", "1d 1h", "leader", "damaged: page 7 of store: checksum"]
    {
        assert!(status.stdout.contains(word), "{word}: {}", status.stdout);
    }
    let c = status.stdout.lines().find(|line| line.starts_with("c ")).unwrap();
    assert!(c.contains("unreachable: "), "{c}");
    assert!(!status.stdout.contains('\u{1b}'), "colours are for terminals");
    let status = run(&fake, &["status", "--json"]).json();
    assert_eq!(status["nodes"][0]["replicas"][1]["role"], "leader");
    assert_eq!(status["nodes"][1]["replicas"][0]["detail"], "page 7 of store: checksum");
    assert_eq!((&status["nodes"][2]["name"], &status["nodes"][2]["reachable"]), (&json!("c"), &json!(false)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_of_a_node_without_a_cluster_says_so() {
    let fake = Fake::start(1, 1).await;
    fake.world().is_born = false;
    let begun = Instant::now();
    let status = run(&fake, &["status", "--timeout", "10s"]);
    assert_eq!(status.code, 0, "{}", status.stderr);
    assert!(begun.elapsed() < Duration::from_secs(5), "it does not wait for a cluster");
    assert!(status.stdout.contains("no cluster yet"), "{}", status.stdout);
    assert_eq!(run(&fake, &["get", "k", "--timeout", "300ms"]).code, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_replaced_by_its_name() {
    let fake = Fake::start(3, 2).await;
    let replaced = run(&fake, &["node", "replace", "c"]);
    assert_eq!(
        (replaced.code, replaced.stdout.as_str()),
        (0, "the place of node c is free: its id is now 9\n")
    );
    let unknown = run(&fake, &["node", "replace", "z", "--json"]);
    assert_eq!(unknown.code, 3);
    assert!(unknown.stderr.contains("NotFound"));
}

#[test]
fn help_version_and_completions_go_to_stdout() {
    for (arguments, word) in [
        (&["--help"][..], "Exit codes"),
        (&["-h"], "Examples"),
        (&["put", "--help"], "config.json"),
        (&["--version"], "mesh 0"),
        (&["completions", "bash"], "_mesh"),
        (&["completions", "fish"], "complete -c mesh"),
    ] {
        for program in [env!("CARGO_BIN_EXE_mesh"), env!("CARGO_BIN_EXE_mesh-server")] {
            let ended: Ended = Command::new(program).args(arguments).output().unwrap().into();
            assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{arguments:?}");
            assert!(ended.stdout.contains(word), "{arguments:?}: {}", ended.stdout);
        }
    }
}

/// `mesh dev`, and its end with the test.
struct Dev {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Dev {
    fn start(data: &Path, port: u16) -> Self {
        let data = data.to_str().unwrap();
        let mut command = mesh(&[], &["dev", "--data", data, "--port", &port.to_string()]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut dev = Self { child, stdout };
        let mut line = String::new();
        dev.stdout.read_line(&mut line).unwrap();
        if !line.starts_with("cluster ready: 3 shards, led: 0 by ") {
            panic!("{line}{}", dev.stop().stderr);
        }
        dev
    }

    fn signal(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    fn stop(mut self) -> Ended {
        self.signal();
        let mut stdout = String::new();
        self.stdout.read_to_string(&mut stdout).unwrap();
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        Ended { code: self.child.wait().unwrap().code().unwrap(), stdout, stderr }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // It has ended unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that is free, as are the two behind it.
fn three_free_ports() -> u16 {
    let is_free = |port: &u16| (0..3).all(|further| TcpListener::bind(("127.0.0.1", port + further)).is_ok());
    let first = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    (first.min(60_000)..=u16::MAX - 3).find(is_free).unwrap()
}

#[test]
fn a_development_cluster_keeps_its_data_and_its_ports_to_itself() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (data, port) = (directory.path().join("data"), three_free_ports());
    let endpoints = [format!("127.0.0.1:{port}")];
    let ask = |arguments: &[&str]| Ended::from(mesh(&endpoints, arguments).output().unwrap());
    let dev = Dev::start(&data, port);
    assert_eq!(ask(&["put", "greeting", "hello"]).code, 0);
    let status = ask(&["status"]);
    assert!(status.stdout.contains("3 nodes, 3 shards"), "{}", status.stdout);
    // Another on the same files, and one on the same ports.
    let (number, elsewhere) = (port.to_string(), directory.path().join("elsewhere"));
    let same_files = ask(&["dev", "--port", &number, "--data", data.to_str().unwrap()]);
    assert_eq!(same_files.code, 5);
    let holder = format!("in use by process {} (node a)", dev.child.id());
    assert!(same_files.stderr.contains(&holder), "{}", same_files.stderr);
    let same_ports = ask(&["dev", "--port", &number, "--data", elsewhere.to_str().unwrap()]);
    assert_eq!(same_ports.code, 5);
    assert!(same_ports.stderr.contains(&endpoints[0]), "{}", same_ports.stderr);
    let ended = dev.stop();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stderr.contains(&format!("mesh --endpoints {} get greeting", endpoints[0])));
    let again = Dev::start(&data, port);
    assert_eq!(ask(&["get", "greeting"]).stdout, "hello");
    assert_eq!(again.stop().code, 0);
    let gone = ask(&["get", "greeting", "--timeout", "200ms"]);
    assert_eq!(gone.code, 4, "{}", gone.stderr);
}
