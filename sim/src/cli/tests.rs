use mesh_base::Instant as TrueTime;
use mesh_base::prng::Prng;

use super::*;
use crate::driver;
use crate::options::Options;
use crate::report::{Fault, Report};

/// Does not come to life at one seed, with two clients or more.
struct FailsAt(u64);

impl Run for FailsAt {
    fn run(
        &self,
        options: &Options,
        _root: Prng,
        trace: &mut Trace<'_>,
        report: &mut Report,
    ) -> Result<(), driver::Failure> {
        report.simulated = Duration::from_secs(30);
        report.faults.add(Fault::ClockJump, 1000);
        (1..100).for_each(|number| trace.step(TrueTime(1), format_args!("step {number}")));
        if options.seed == self.0 && options.size.clients > 1 {
            Err(driver::Failure::Liveness(format!("stuck {}", options.size.clients)))
        } else {
            Ok(())
        }
    }
}

fn arguments(line: &[&str]) -> Result<Arguments, clap::Error> {
    Arguments::try_parse_from([&["mesh-sim"], line].concat())
}

fn simulate(line: &[&str]) -> (u8, String) {
    let mut output = Vec::new();
    let code = execute(&FailsAt(12), &arguments(line).unwrap(), &mut output).unwrap();
    (code, String::from_utf8(output).unwrap())
}

fn documents(line: &[&str]) -> (u8, Vec<serde_json::Value>) {
    let (code, output) = simulate(line);
    (code, output.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

#[test]
fn a_failure_of_a_swarm_is_told_with_its_end_and_the_commands_that_replay_it_and_a_smaller_one() {
    let line = ["--start", "5", "--runs", "50", "--jobs", "2", "--with", "clients=8,nodes=1"];
    let (code, output) = simulate(&line);
    assert_eq!(code, 3);
    assert!(output.starts_with("seed          12\nsize          1 nodes"), "its options: {output}");
    assert!(
        output.contains(&format!(
            "seed 12 not live: stuck 8\nreplay with: mesh-sim {}\n\nit fails in a smaller run too",
            Case { seed: 12, with: "nodes=1,clients=8".parse().unwrap() }
        )),
        "{output}"
    );
    let smaller = output.split_once("smaller run").unwrap().1;
    assert!(smaller.contains("seed 12 not live: stuck 2\nits last steps"), "{output}");
    assert!(!smaller.contains(" step 59\n") && smaller.contains("0.000000s step 60\n"), "{output}");
    assert!(smaller.contains(" step 99\nreplay with: mesh-sim --seed 12 --with hostile="), "{output}");
    assert!(smaller.contains(" failed, from seed 5 with nodes=1,clients=8: "), "{output}");
}

#[test]
fn the_command_that_is_printed_for_a_smaller_run_fails_in_the_same_way() {
    let (_, output) = simulate(&["--seed", "12", "--with", "clients=4"]);
    let command = output.trim_end().rsplit_once("replay with: mesh-sim ").unwrap().1;
    let (code, replayed) = simulate(&command.split(' ').chain(["--no-shrink"]).collect::<Vec<_>>());
    assert_eq!(code, 3);
    assert!(replayed.contains("not live: stuck 2\n") && !replayed.contains("smaller"), "{replayed}");
}

#[test]
fn seeds_that_pass_are_counted() {
    let (code, output) = simulate(&["--start", "20", "--runs", "10", "--check-determinism"]);
    let figures = "5m00s simulated, 990 events, 0 operations, 10,000 faults";
    let (counted, speed) = output.rsplit_once(", ").unwrap();
    assert_eq!((code, counted), (0, &*format!("10 passed, 0 failed, from seed 20: {figures}")));
    assert!(speed.ends_with(" simulated seconds in each second of a core\n"), "{speed}");
}

#[test]
fn one_seed_is_told_with_its_options_and_traced_on_request() {
    let (code, output) = simulate(&["--seed", "7"]);
    assert_eq!(code, 0);
    assert!(output.starts_with("seed          7\n"), "{output}");
    assert!(output.ends_with("seed 7 passed: 30.0s simulated, 99 events, 0 operations, 1,000 faults\n"));
    assert!(simulate(&["--seed", "7", "--trace"]).1.contains("\n0.000000s step 1\n0.000000s step 2\n"));
}

#[test]
fn a_soak_goes_on_after_a_failure_and_tells_all_figures() {
    let (code, output) = simulate(&["soak", "--minutes", "0.01", "--start", "11", "--with", "clients=3"]);
    assert_eq!(code, 3);
    let failure = "seed 12 not live: stuck 3\nreplay with: mesh-sim --seed 12 --with clients=3\n";
    assert!(output.starts_with(&format!("seeds from 11 on, 1 at a time\n{failure}")), "{output}");
    let list = "  seed 12 not live: stuck 3\n    replay with: mesh-sim --seed 12 --with clients=3\n";
    assert!(output.ends_with(&format!("failures     1\n{list}")), "{output}");
    assert!(output.contains("  process crashes                                  0\n"), "{output}");
}

#[test]
fn every_document_for_programs_says_what_it_is() {
    let (code, documents) = documents(&["--start", "11", "--runs", "5", "--json", "--with", "clients=2"]);
    assert_eq!(code, 3);
    let [begun, failure, summary] = &documents[..] else { panic!("{documents:?}") };
    assert_eq!((&begun["event"], &begun["start"]), (&"begun".into(), &11.into()));
    assert_eq!(failure["event"], "failure");
    assert_eq!((&failure["seed"], &failure["outcome"]), (&12.into(), &"not live".into()));
    assert_eq!(failure["message"], "not live: stuck 2");
    assert_eq!(failure["replay"], "mesh-sim --seed 12 --with clients=2");
    assert_eq!(failure["options"]["clients"], "2");
    assert_eq!(failure["last_steps"].as_array().unwrap().len(), 40);
    assert_eq!(failure["shrunk"]["options"]["nodes"], "1");
    assert_eq!((&summary["event"], &summary["passed"]), (&"summary".into(), &1.into()));
    assert_eq!(summary["report"]["faults"]["clock-jumps"], 2000);
    assert_eq!(summary["failures"][0]["exit_code"], 3);
}

#[test]
fn a_seed_and_a_soak_have_documents_too() {
    let (_, passed) = documents(&["--seed", "7", "--json"]);
    assert_eq!((&passed[0]["event"], &passed[0]["exit_code"]), (&"passed".into(), &0.into()));
    let (_, soaked) = documents(&["soak", "--minutes", "0.005", "--json"]);
    assert_eq!((&soaked[0]["event"], &soaked[1]["event"]), (&"begun".into(), &"summary".into()));
    assert!(soaked[1]["report"]["simulated_seconds"].as_f64().unwrap() >= 30.0);
}

#[test]
fn fresh_seeds_differ_and_are_told() {
    let (_, first) = documents(&["--start", "random", "--runs", "1", "--json"]);
    let (_, second) = documents(&["--start", "random", "--runs", "1", "--json"]);
    assert_ne!(first[0]["start"], second[0]["start"]);
    let (_, output) = simulate(&["--start", "random", "--runs", "1"]);
    assert!(output.starts_with("seeds from ") && output.contains(" on, 1 at a time\n1 passed"), "{output}");
}

#[test]
fn time_bounds_a_swarm() {
    let (code, output) = simulate(&["--start", "100", "--minutes", "0.005"]);
    assert_eq!(code, 0);
    assert!(output.contains(" passed, 0 failed, from seed 100: "), "{output}");
}

#[test]
fn arguments_that_contradict_each_other_are_refused() {
    let lines: [&[&str]; 11] = [
        &["--trace"],
        &["--trace-file", "trace.txt"],
        &["--seed", "1", "--runs", "2"],
        &["--seed", "1", "--trace", "--check-determinism"],
        &["--jobs", "0"],
        &["--seed", "x"],
        &["--start", "never"],
        &["--minutes", "0"],
        &["--with", "nodes=none"],
        &["soak"],
        &["--seed", "1", "soak", "--minutes", "1"],
    ];
    for line in lines {
        assert_eq!(arguments(line).unwrap_err().exit_code(), 2, "{line:?}");
    }
    let error = arguments(&["--with", "node=3"]).unwrap_err().to_string();
    assert!(error.contains("there is no option \"node\"; there are hostile, nodes"), "{error}");
}
