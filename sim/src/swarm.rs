//! Runs many seeds, on several threads, for a number of seeds or for a time.
//!
//! Invariants:
//! - Threads only share out seeds: what a run does does not depend on how many there are.
//! - Every seed is run once, in ascending order of their beginnings.
//!
//! The clock that is read here says when to begin no further seed, and nothing else.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Instant;

use crate::determinism::run_twice;
use crate::driver::{Case, Ended, Run, run_case};
use crate::overrides::Overrides;
use crate::report::Report;
use crate::trace::Trace;

/// How often a seed is run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Repeat {
    /// Once.
    Once,
    /// Twice, and the runs are compared step by step.
    Twice,
}

/// What a failure is to the seeds after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AfterFailure {
    /// They are not begun. Those that have begun still end.
    Stop,
    /// Nothing.
    GoOn,
}

/// Seeds to run.
#[derive(Clone, Debug)]
pub struct Swarm {
    /// Which.
    pub seeds: Range<u64>,
    /// How every run differs from what its seed draws.
    pub with: Overrides,
    /// How often each.
    pub repeat: Repeat,
    /// How many at a time.
    pub jobs: usize,
    /// When to begin no more of them.
    pub until: Option<Instant>,
    /// What to do then.
    pub after_failure: AfterFailure,
}

/// What came of the seeds so far.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Tally {
    /// Seeds without a failure.
    pub passed: u64,
    /// Seeds with one.
    pub failed: BTreeMap<u64, Ended>,
    /// The figures of all.
    pub report: Report,
}

impl Swarm {
    /// Some seeds, one at a time, until one fails.
    #[must_use]
    pub fn new(seeds: Range<u64>) -> Self {
        Self {
            seeds,
            with: Overrides::none(),
            repeat: Repeat::Once,
            jobs: 1,
            until: None,
            after_failure: AfterFailure::Stop,
        }
    }

    /// Runs them. Shows each to `each` when it has ended, with the tally up to it.
    pub fn run(&self, run: &dyn Run, mut each: impl FnMut(&Case, &Ended, &Tally)) -> Tally {
        let next = AtomicU64::new(self.seeds.start);
        let stop = AtomicBool::new(false);
        let (sender, receiver) = mpsc::channel();
        let mut tally = Tally::default();
        thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                let (sender, next, stop) = (sender.clone(), &next, &stop);
                scope.spawn(move || self.work(run, next, stop, &sender));
            }
            drop(sender);
            for (case, ended) in receiver {
                tally.add(&case, &ended);
                each(&case, &ended, &tally);
            }
        });
        tally
    }

    /// One of the threads.
    fn work(&self, run: &dyn Run, next: &AtomicU64, stop: &AtomicBool, sender: &Sender<(Case, Ended)>) {
        while !stop.load(Ordering::Relaxed) && self.until.is_none_or(|until| Instant::now() < until) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= self.seeds.end {
                break;
            }
            let case = Case { seed, with: self.with.clone() };
            let ended = match self.repeat {
                Repeat::Once => run_case(run, &case, &mut Trace::off()),
                Repeat::Twice => run_twice(run, &case),
            };
            if !ended.outcome.is_passed() && self.after_failure == AfterFailure::Stop {
                stop.store(true, Ordering::Relaxed);
            }
            // The receiver outlives the threads.
            let _received = sender.send((case, ended));
        }
    }
}

impl Tally {
    fn add(&mut self, case: &Case, ended: &Ended) {
        self.report += &ended.report;
        if ended.outcome.is_passed() {
            self.passed += 1;
        } else {
            self.failed.insert(case.seed, ended.clone());
        }
    }

    /// The exit code that says how it went: that of the failure with the lowest seed.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        self.failed.values().next().map_or(0, |ended| ended.outcome.exit_code())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mesh_base::prng::Prng;

    use super::*;
    use crate::driver::{Failure, Outcome};
    use crate::options::Options;

    /// Fails at every tenth seed.
    struct Tenth;

    impl Run for Tenth {
        fn run(
            &self,
            options: &Options,
            _root: Prng,
            _trace: &mut Trace<'_>,
            report: &mut Report,
        ) -> Result<(), Failure> {
            report.simulated = Duration::from_secs(1);
            match options.seed % 10 {
                0 => Err(Failure::Liveness(format!("{} nodes", options.size.nodes))),
                _ => Ok(()),
            }
        }
    }

    #[test]
    fn all_seeds_are_run_once_by_any_number_of_threads() {
        for jobs in [1, 4] {
            let swarm = Swarm { jobs, after_failure: AfterFailure::GoOn, ..Swarm::new(100..200) };
            let mut shown = 0;
            let tally = swarm.run(&Tenth, |_, _, tally| shown = tally.report.runs);
            assert_eq!((tally.passed, tally.failed.len(), tally.exit_code()), (90, 10, 3));
            assert_eq!((shown, tally.report.simulated), (100, Duration::from_secs(100)));
        }
    }

    #[test]
    fn the_first_failure_ends_the_runs() {
        let tally = Swarm::new(1..1000).run(&Tenth, |_, _, _| {});
        assert_eq!((tally.passed, tally.failed.keys().copied().collect::<Vec<_>>()), (9, vec![10]));
    }

    #[test]
    fn no_seed_is_begun_when_the_time_is_over() {
        let swarm = Swarm { until: Some(Instant::now()), ..Swarm::new(1..1000) };
        assert_eq!(swarm.run(&Tenth, |_, _, _| {}), Tally::default());
    }

    #[test]
    fn every_seed_is_run_with_the_overrides() {
        let swarm = Swarm { with: "nodes=7".parse().unwrap(), ..Swarm::new(10..11) };
        let failed = swarm.run(&Tenth, |_, _, _| {}).failed;
        assert_eq!(failed[&10].outcome, Outcome::Failed(Failure::Liveness("7 nodes".into())));
    }
}
