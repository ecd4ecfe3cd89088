//! The program as it starts a system, compares it, and leaves nothing behind.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn bench(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-bench"));
    command.args(["compare", "--keys", "2000", "--server-cores", "0", "--generator-cores", "0"]);
    command.arg("--dir").arg(dir).stdin(Stdio::null());
    command
}

/// Systems whose programs are installed on most machines that have any.
fn systems() -> Option<&'static str> {
    let is_there = |program| {
        let output = Command::new(program).arg("--version").output();
        output.is_ok_and(|output| output.status.success())
    };
    match (is_there("redis-server"), is_there("memcached")) {
        (true, true) => Some("redis,redis-aof,memcached"),
        (true, false) => Some("redis,redis-aof"),
        (false, true) => Some("memcached"),
        (false, false) => None,
    }
}

/// The servers that a process has started.
fn children(of: &Child) -> Vec<Pid> {
    let list = fs::read_to_string(format!("/proc/{0}/task/{0}/children", of.id())).unwrap_or_default();
    list.split_ascii_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

fn until(what: &str, done: impl Fn() -> bool) {
    let since = Instant::now();
    while !done() {
        assert!(since.elapsed() < Duration::from_secs(20), "not {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn is_alive(pid: Pid) -> bool {
    // One that has ended and that nobody waited for is not.
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[test]
fn systems_are_started_compared_read_back_and_ended() {
    let Some(systems) = systems() else {
        return println!("skipped: neither redis-server nor memcached is installed");
    };
    let dir = tempfile::tempdir().unwrap();
    let output = bench(dir.path())
        .args(["--systems", systems, "--workload", "mixed", "--rounds", "2", "--seconds", "1"])
        .args(["--warm-up", "0", "--connections", "4", "--json"])
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{words}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["worthless"], serde_json::json!([]));
    for side in report["systems"].as_array().unwrap() {
        assert_eq!(side["rounds"].as_array().unwrap().len(), 2);
        assert!(side["medians"]["rate"].as_f64().unwrap() > 100.0, "{side}");
        assert!(side["medians"]["server_us"].as_f64().unwrap() > 0.0, "{side}");
        assert_eq!(
            (&side["findings"]["held"], &side["findings"]["lost"]),
            (&4000.into(), &0.into()),
            "{side}"
        );
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left");
}

#[test]
fn systems_are_compared_in_an_open_loop_at_half_of_what_each_reaches() {
    let Some(systems) = systems() else {
        return println!("skipped: neither redis-server nor memcached is installed");
    };
    let dir = tempfile::tempdir().unwrap();
    let output = bench(dir.path())
        .args(["--systems", systems, "--workload", "mixed", "--rounds", "1", "--seconds", "1"])
        .args(["--warm-up", "0", "--connections", "8", "--in-flight", "4", "--rate", "50%", "--json"])
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{words}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let load = report["load"].as_str().unwrap();
    assert!(
        load.contains("an open loop at 50% of what each reaches in a closed loop (poisson); 1 rounds"),
        "{load}"
    );
    for side in report["systems"].as_array().unwrap() {
        let figure = |name: &str| side["rounds"][0][name].as_f64().unwrap();
        let (offered, answered) = (figure("offered_per_second"), figure("requests_per_second"));
        assert!(offered > 50.0, "{side}");
        // All that was begun is answered; a machine that is busy with something else begins less.
        let begun = offered * (1.0 - figure("overdue"));
        assert!((0.7..1.3).contains(&(answered / begun)), "{side}");
    }
}

#[test]
fn nothing_is_left_of_a_comparison_that_is_interrupted_or_killed() {
    let Some(systems) = systems() else {
        return println!("skipped: neither redis-server nor memcached is installed");
    };
    for signal in [Signal::INT, Signal::KILL] {
        let dir = tempfile::tempdir().unwrap();
        let mut program = bench(dir.path())
            .args(["--systems", systems, "--seconds", "30"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        until("a server started", || !children(&program).is_empty());
        let servers = children(&program);
        kill_process(Pid::from_child(&program), signal).unwrap();
        program.wait().unwrap();
        until("the servers ended", || !servers.iter().any(|&pid| is_alive(pid)));
        let left = fs::read_dir(dir.path()).unwrap().count();
        assert!(signal == Signal::KILL || left == 0, "the directory is gone");
    }
}

#[test]
fn what_is_no_program_is_refused_before_anything_starts() {
    let dir = tempfile::tempdir().unwrap();
    let output = bench(dir.path()).args(["--peer-bin", "etcd=/no/such/file"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such/file"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn the_echo_answers_gets_and_puts_with_any_number_in_flight() {
    let dir = tempfile::tempdir().unwrap();
    for (workload, in_flight) in [("get", "1"), ("put", "1"), ("mixed", "16")] {
        let output = bench(dir.path())
            .args(["--systems", "echo", "--workload", workload, "--rounds", "1", "--seconds", "1"])
            .args(["--warm-up", "0", "--connections", "4", "--in-flight", in_flight, "--json"])
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{workload}: {words}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let side = &report["systems"][0];
        assert!(side["medians"]["rate"].as_f64().unwrap() > 100.0, "{side}");
        assert_eq!(side["rounds"][0]["retried"], serde_json::json!({}), "{side}");
    }
}
