//! The checkers checked: with a deliberate bug planted, the swarm must fail, and soon.
//!
//! A checker that finds nothing may be blind, and faults that break nothing may miss the moment that matters. Each
//! [`Flaw`] turns one decision of the product round, one that keeps a promise. A *hunt* runs seeds with it from a starting
//! point on until one fails.
//!
//! Invariants:
//! - A failure counts only if the flaw has struck in that run and the same seed passes without it.
//! - A hunt is a function of its flaw and its starting point, whatever the number of threads.
//!
//! Not shown: that a checker is exact, or that what is caught here would be caught in another disguise.

mod command;
mod table;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mesh_base::flaw::{self, Flaw};
use mesh_base::prng::Prng;

pub use self::command::{Arguments, execute};
use crate::driver::{Failure, Outcome, Run, generalised, run_seed};
use crate::options::Options;
use crate::report::Report;
use crate::swarm::Swarm;
use crate::trace::Trace;

/// How a hunt is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Plan {
    /// The first seed of the first starting point.
    start: u64,
    /// Starting points.
    hunts: u64,
    /// Seeds from each of them, at most.
    seeds_max: u64,
    /// Seeds at a time.
    jobs: usize,
}

/// Starting points are so many seeds apart.
const STRIDE: u64 = 1000;

/// How one hunt ended.
#[derive(Clone, PartialEq, Eq, Debug)]
enum End {
    /// A run failed.
    Caught {
        /// Its seed.
        seed: u64,
        /// What failed.
        by: String,
    },
    /// None did.
    Missed {
        /// Runs in which the flaw struck.
        struck: u64,
    },
    /// A run failed, and the flaw is not to blame: it fails without it, or the flaw did not strike.
    FailsAnyway {
        /// Its seed.
        seed: u64,
        /// What failed.
        by: String,
    },
}

/// The hunts of one flaw.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Measured {
    flaw: Flaw,
    /// Each with the number of seeds it took.
    hunts: Vec<(u64, End)>,
    took: Duration,
}

impl Measured {
    fn is_caught(&self) -> bool {
        self.hunts.iter().all(|(_, end)| matches!(end, End::Caught { .. }))
    }

    /// The seeds that half of the hunts, and all of them, needed.
    fn seeds(&self) -> (u64, u64) {
        let mut seeds: Vec<u64> = self.hunts.iter().map(|(seeds, _)| *seeds).collect();
        seeds.sort_unstable();
        let median = seeds.get(seeds.len() / 2).copied().unwrap_or_default();
        (median, seeds.last().copied().unwrap_or_default())
    }

    /// What caught it, each once, the most frequent first.
    fn caught_by(&self) -> Vec<&str> {
        let mut kinds: Vec<(usize, &str)> = Vec::new();
        for (_, end) in &self.hunts {
            let End::Caught { by, .. } = end else { continue };
            match kinds.iter_mut().find(|(_, kind)| kind == by) {
                Some((count, _)) => *count += 1,
                None => kinds.push((1, by)),
            }
        }
        kinds.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
        kinds.into_iter().map(|(_, kind)| kind).collect()
    }
}

/// A system with a flaw in it.
struct Flawed<'a> {
    run: &'a dyn Run,
    flaw: Flaw,
    /// Runs in which it struck.
    struck: AtomicU64,
}

impl Run for Flawed<'_> {
    fn run(
        &self,
        options: &Options,
        root: Prng,
        trace: &mut Trace<'_>,
        report: &mut Report,
    ) -> Result<(), Failure> {
        /// A run that panics was struck as well.
        struct Count<'a>(&'a AtomicU64);
        impl Drop for Count<'_> {
            fn drop(&mut self) {
                self.0.fetch_add(u64::from(flaw::strikes() > 0), Ordering::Relaxed);
            }
        }
        let _count = Count(&self.struck);
        flaw::with(self.flaw, || self.run.run(options, root, trace, report))
    }
}

fn measure(run: &dyn Run, flaw: Flaw, plan: &Plan) -> Measured {
    let begun = Instant::now();
    let starts = (0..plan.hunts).map(|hunt| plan.start + hunt * STRIDE);
    let hunts = starts.map(|start| hunt(run, flaw, start, plan)).collect();
    Measured { flaw, hunts, took: begun.elapsed() }
}

/// Runs seeds until one fails. Answers how many it took.
fn hunt(run: &dyn Run, flaw: Flaw, start: u64, plan: &Plan) -> (u64, End) {
    let flawed = Flawed { run, flaw, struck: AtomicU64::new(0) };
    let seeds = start..start.saturating_add(plan.seeds_max);
    let swarm = Swarm { jobs: plan.jobs, ..Swarm::new(seeds) };
    let tally = swarm.run(&flawed, |_, _, _| {});
    // Every seed below the lowest that failed has ended: it is the first to fail.
    let Some((seed, ended)) = tally.failed.into_iter().next() else {
        return (plan.seeds_max, End::Missed { struck: flawed.struck.into_inner() });
    };
    let by = kind_of(&ended.outcome);
    let again = Flawed { run, flaw, struck: AtomicU64::new(0) };
    run_seed(&again, seed, &mut Trace::off());
    let is_to_blame = again.struck.into_inner() > 0 && run_seed(run, seed, &mut Trace::off()).is_passed();
    let end = if is_to_blame { End::Caught { seed, by } } else { End::FailsAnyway { seed, by } };
    (seed - start + 1, end)
}

/// What failed, in words that are the same for every seed.
fn kind_of(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Failed(Failure::Liveness(_)) => "liveness".to_owned(),
        Outcome::Failed(Failure::Safety(text)) => {
            let kind = generalised(text.lines().next().unwrap_or_default());
            // Stamps are written with the sign that stands for a number.
            kind.strip_prefix("key \"\": ").unwrap_or(&kind).replace("##", "#")
        }
        // Where it was, and in the next line why.
        Outcome::Panicked(text) => {
            format!("assertion: {}", generalised(text.lines().nth(1).unwrap_or(text)))
        }
        Outcome::Passed | Outcome::Diverged(_) => outcome.kind(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails at seeds that are a multiple of ten if a flaw is planted, and at 55 in any case.
    pub(super) struct Bitten;

    impl Run for Bitten {
        fn run(
            &self,
            options: &Options,
            _root: Prng,
            _trace: &mut Trace<'_>,
            _report: &mut Report,
        ) -> Result<(), Failure> {
            match options.seed {
                55 => Err(Failure::Liveness("stuck".into())),
                seed if seed.is_multiple_of(10) && flaw::is_planted(Flaw::ForgetVote) => {
                    Err(Failure::Safety(format!("key \"a\": lost {seed} at {seed}s\n  client 1")))
                }
                _ => Ok(()),
            }
        }
    }

    fn plan(start: u64, jobs: usize) -> Plan {
        Plan { start, hunts: 2, seeds_max: 12, jobs }
    }

    #[test]
    fn a_hunt_ends_at_the_first_seed_that_fails_whatever_the_number_of_threads() {
        for jobs in [1, 3] {
            let measured = measure(&Bitten, Flaw::ForgetVote, &plan(4, jobs));
            let caught = |seed| End::Caught { seed, by: "lost # at #s".to_owned() };
            assert_eq!(measured.hunts, [(7, caught(10)), (7, caught(1010))]);
            assert!(measured.is_caught());
            assert_eq!((measured.seeds(), measured.caught_by()), ((7, 7), vec!["lost # at #s"]));
        }
    }

    #[test]
    fn a_flaw_that_is_not_caught_is_told_with_the_runs_in_which_it_struck() {
        let (seeds, end) = hunt(&Bitten, Flaw::ReadWithoutQuorum, 1, &plan(1, 1));
        assert_eq!((seeds, end), (12, End::Missed { struck: 0 }));
    }

    #[test]
    fn a_failure_that_the_flaw_is_not_to_blame_for_is_no_catch() {
        let (_, end) = hunt(&Bitten, Flaw::ForgetVote, 51, &plan(51, 1));
        assert_eq!(end, End::FailsAnyway { seed: 55, by: "liveness".into() });
    }

    #[test]
    fn failures_of_one_kind_read_the_same() {
        let panicked =
            |number| Outcome::Panicked(format!("panicked at src/x.rs:1:2:\npage {number} freed twice"));
        assert_eq!(kind_of(&panicked(7)), "assertion: page # freed twice");
        assert_eq!(kind_of(&panicked(7)), kind_of(&panicked(1234)));
    }
}
