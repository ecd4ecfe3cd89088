use super::*;
use crate::determinism::run_twice;
use crate::driver::{Case, Outcome, run_seed};
use crate::latency::Latency;
use crate::options;

/// The first of the seeds at which the flaw is found, and how.
fn found(flaw: Flaw, seeds: u64) -> Option<(u64, Outcome)> {
    let run = QuorumRegister::with(flaw);
    (1..=seeds).map(|seed| (seed, run_seed(&run, seed, &mut Trace::off()))).find(|(_, it)| !it.is_passed())
}

fn is_found_not_safe(flaw: Flaw, seeds: u64) {
    let (seed, outcome) = found(flaw, seeds).unwrap_or_else(|| panic!("{flaw:?} was not found"));
    assert!(matches!(outcome, Outcome::Failed(Failure::Safety(_))), "seed {seed}: {outcome}");
}

#[test]
fn a_sound_register_passes() {
    assert_eq!(found(Flaw::None, 100), None);
}

#[test]
fn a_run_is_a_function_of_its_seed() {
    for seed in 1..20 {
        assert_eq!(run_twice(&QuorumRegister::with(Flaw::None), &Case::of(seed)).outcome, Outcome::Passed);
    }
}

#[test]
fn a_node_that_does_not_sync_is_found() {
    is_found_not_safe(Flaw::NoSync, 300);
}

#[test]
fn a_node_that_does_not_sync_its_directory_is_found() {
    is_found_not_safe(Flaw::NoDirectorySync, 300);
}

/// What is read after a crash is lost again only if the power goes before the next sync: a lonely node with slow syncs
/// that crashes all the time makes that common.
#[test]
fn a_node_that_trusts_what_a_killed_process_left_is_found() {
    let passes = |flaw, seed| {
        let (mut options, root) = options::draw(seed);
        options.size.nodes = 1;
        options.disk.sync = Latency::between(Duration::from_millis(1), Duration::from_millis(20));
        options.faults.crash_every = Some(Duration::from_millis(40));
        options.faults.power_per_mille = 500;
        options.faults.down_for = Some(Latency::fixed(Duration::from_millis(1)));
        options.hostile_for = Duration::from_secs(10);
        QuorumRegister::with(flaw).run(&options, root, &mut Trace::off(), &mut Report::default()).is_ok()
    };
    assert!((1..50).all(|seed| passes(Flaw::None, seed)));
    assert!((1..50).any(|seed| !passes(Flaw::TrustsWhatItReads, seed)));
}

#[test]
fn a_read_that_does_not_write_back_is_found() {
    is_found_not_safe(Flaw::NoWriteBack, 300);
}

#[test]
fn a_client_that_retries_as_new_is_found() {
    is_found_not_safe(Flaw::RetriesAsNew, 300);
}

#[test]
fn a_client_that_guesses_versions_is_found() {
    is_found_not_safe(Flaw::GuessesVersion, 300);
}
