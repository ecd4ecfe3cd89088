//! Reports of made-up runs.

use clap::Parser;

use super::*;
use crate::cli::{Cli, Command};
use crate::cpu::Server;
use crate::stats::{Recorder, Schedule};
use crate::tally::{Tally, Times};
use crate::target::Found;

fn flags(line: &str) -> RunFlags {
    let line = format!("mesh-bench run --seconds 2 {line}");
    match Cli::try_parse_from(line.split_whitespace()).unwrap().command {
        Command::Run(flags) => flags,
        _ => panic!("another command"),
    }
}

fn machine() -> Machine {
    Machine {
        cpu: "A CPU".into(),
        processors: 2,
        memory_bytes: 1 << 34,
        kernel: "6.1.0".into(),
        architecture: "x86_64",
        load_average: 0.5,
    }
}

/// So many reads of 100 us, and a write of 3 ms for every ten of them, in two seconds.
fn tally(reads: u64) -> Tally {
    let (to, seconds) = std::sync::mpsc::channel();
    let start = std::time::Instant::now();
    let mut recorder = Recorder::new(Schedule { start, measure: start, seconds: Some(2) }, to);
    for read in 0..reads {
        recorder.done(Class::Reads, 1, Times::closed(Duration::from_micros(100)));
        if read % 10 == 0 {
            recorder.done(Class::Writes, 1, Times::closed(Duration::from_millis(3)));
        }
    }
    recorder.finish(start, 0, 0);
    seconds.recv().unwrap().tally
}

fn report_of(line: &str, total: Tally, cpu: Duration) -> Report {
    let time = CpuTime { user: Duration::from_millis(1200), system: Duration::from_millis(300) };
    let spent = Spent {
        wall: Duration::from_secs(2),
        servers: vec![(Server { pid: 77, command: "mesh-server".into() }, time)],
        machine: Duration::from_millis(1500) + cpu,
        stolen: Duration::ZERO,
    };
    let facts = Facts {
        target: "mesh",
        partitions: 3,
        machine: machine(),
        started_at: Duration::from_secs(1_800_000_000),
        command: vec!["mesh-bench".into(), "run".into()],
        spent: Some(spent),
        pace: Pace::Closed,
        most: None,
        inserts_again: 0,
    };
    let series = vec![Point::of(0, &total)];
    let (measured, first_minute) = (Duration::from_secs(2), total.clone());
    let outcome = Outcome { measured, total, first_minute, series, cpu };
    Report::of(&flags(line), &facts, &outcome)
}

fn report() -> Report {
    report_of("--workload mixed --reads 90", tally(100_000), Duration::from_secs(1))
}

#[test]
fn figures_are_those_of_what_was_counted() {
    let report = report();
    assert_eq!(report.throughput.operations, 110_000);
    assert!((report.throughput.operations_per_second - 55_000.0).abs() < 1e-6);
    let reads = &report.latency_us["reads"];
    assert!((99.9..100.2).contains(&reads.p50) && (99.9..100.2).contains(&reads.max), "{reads:?}");
    assert!(report.latency_us["writes"].p50 > 2990.0);
    assert!((report.servers[0].us_per_operation() - 1.5e6 / 110_000.0).abs() < 1e-6);
    assert!((report.servers[0].cores - 0.75).abs() < 1e-9);
    assert!((report.generator.busy - 0.5).abs() < 1e-9);
    assert!(report.others_cores.unwrap() < 1e-9);
    assert_eq!((report.warnings, report.worthless), (vec![], vec![]));
    assert_eq!(report.series[0].operations, 110_000);
}

#[test]
fn a_latency_curve_rises_to_the_maximum() {
    let report = report();
    for latency in report.latency_us.values() {
        assert!(latency.curve.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1), "{:?}", latency.curve);
        let (quantile, time) = *latency.curve.last().unwrap();
        assert!((quantile - 1.0).abs() < 1e-9 && (time - latency.max).abs() < 1e-9);
    }
}

#[test]
fn text_has_a_line_for_everything_that_matters() {
    let text = text::render(&report());
    for words in [
        "mesh: mixed (90% reads), 100,000 keys, 256 B values, uniform; 50 connections x 1 in flight; 2 s after 2 s",
        "throughput     55,000 op/s",
        "p99.99",
        "server         13.64 us/op (10.91 user + 2.73 system), 0.75 processors: mesh-server, process 77",
        "generator      9.09 us/op, 50% of processor",
        "A CPU, 2 processors, 16.0 GiB, Linux 6.1.0, load average 0.5",
    ] {
        assert!(text.contains(words), "`{words}` is not in:\n{text}");
    }
}

#[test]
fn markdown_is_a_table_whose_rows_have_as_many_cells_as_its_head() {
    let page = markdown::render(&report());
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with('|')).collect();
    assert_eq!(rows.len(), 4, "{page}");
    assert!(rows.iter().all(|row| row.matches('|').count() == rows[0].matches('|').count()), "{page}");
    assert!(rows[2].starts_with("| reads | 50,000 |") && rows[3].starts_with("| writes | 5,000 |"), "{page}");
}

#[test]
fn json_has_everything_that_is_needed_to_repeat_and_to_plot_the_run() {
    let document: serde_json::Value = serde_json::from_str(&json::render(&report()).unwrap()).unwrap();
    for path in [
        "/version",
        "/command/0",
        "/started_at",
        "/machine/cpu",
        "/machine/kernel",
        "/load/seed",
        "/load/distribution",
        "/throughput/requests_per_second",
        "/latency_us/reads/p99_99",
        "/latency_us/writes/curve/0/1",
        "/servers/0/system_us_per_operation",
        "/generator/busy",
        "/series/0/p99_us",
        "/series/0/p99_9_us",
        "/errors",
    ] {
        assert!(document.pointer(path).is_some(), "{path} is missing: {document}");
    }
}

#[test]
fn a_generator_that_was_the_bottleneck_says_so() {
    let report = report_of("", tally(100), Duration::from_millis(1900));
    assert!(report.warnings[0].contains("95% busy"), "{:?}", report.warnings);
    assert!(report.worthless.is_empty());
}

#[test]
fn too_few_connections_for_all_partitions_are_told() {
    let report = report_of("--connections 2", tally(100), Duration::ZERO);
    assert!(report.warnings[0].contains("2 connections"), "{:?}", report.warnings);
}

#[test]
fn figures_beside_failures_lost_keys_or_silence_are_worthless() {
    let judge = |change: &dyn Fn(&mut Tally)| {
        let mut total = tally(1000);
        change(&mut total);
        report_of("", total, Duration::ZERO).worthless
    };
    let failed = |failed| {
        judge(&move |total| {
            total.errors.insert("NoSpace", ErrorCount { retried: 0, failed });
        })
    };
    assert_eq!((failed(10).len(), failed(12).len()), (0, 1));
    assert!(
        judge(&|total| total.missing = Found { missing: 1, ..Found::default() }.missing as u64)[0]
            .contains("not found")
    );
    assert!(judge(&|total| total.wrong = 1)[0].contains("length"));
    assert!(judge(&|total| total.unanswered = 1)[0].contains("never answered"));
    assert!(judge(&|total| *total = Tally::new())[0].contains("nothing was done"));
}

#[test]
fn numbers_are_written_for_eyes() {
    assert_eq!([0, 999, 1000, 1_234_567].map(text::count), ["0", "999", "1,000", "1,234,567"]);
    assert_eq!([0.04, 99.94, 100.4, 12_345.6].map(text::micros_f64), ["0.0", "99.9", "100", "12,346"]);
}
