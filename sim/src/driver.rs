//! Runs seeds, on several threads, and says how each ended.
//!
//! Invariants:
//! - What a run does depends on its seed alone: nothing is shared between runs, and threads only share out seeds.
//! - A panic ends its run, not the driver.
//!
//! Deliberately absent: a bound on the time of a run. A harness bounds its steps.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::{fmt, thread};

use mesh_base::prng::Prng;

use crate::options::{self, Options};
use crate::trace::{Divergence, Trace};
use crate::violation::Violation;

/// What is simulated.
pub trait Run: Sync {
    /// Simulates one seed: everything that is drawn is drawn from `options` and `root`.
    ///
    /// # Errors
    /// What the run proved wrong.
    fn run(&self, options: &Options, root: Prng, trace: &mut Trace<'_>) -> Result<(), Failure>;
}

/// What a run proved wrong.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Failure {
    /// A promise was broken.
    #[error("not safe: {0}")]
    Safety(String),
    /// Nothing was broken, and yet it did not come to life again.
    #[error("not live: {0}")]
    Liveness(String),
}

impl From<Box<Violation>> for Failure {
    fn from(violation: Box<Violation>) -> Self {
        Self::Safety(violation.to_string())
    }
}

/// How the run of a seed ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Well.
    Passed,
    /// With a failure.
    Failed(Failure),
    /// With a panic: its message, and where it was.
    Panicked(String),
    /// A second run of the seed did something else.
    Diverged(Divergence),
}

impl Outcome {
    /// Whether nothing was found.
    #[must_use]
    pub fn is_passed(&self) -> bool {
        *self == Self::Passed
    }

    /// The exit code that says so: 0 passed, 1 not safe, 3 not live, 4 a panic, 5 not a function of its seed.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Passed => 0,
            Self::Failed(Failure::Safety(_)) => 1,
            Self::Failed(Failure::Liveness(_)) => 3,
            Self::Panicked(_) => 4,
            Self::Diverged(_) => 5,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("passed"),
            Self::Failed(failure) => failure.fmt(f),
            Self::Panicked(what) => write!(f, "panicked: {what}"),
            Self::Diverged(divergence) => write!(f, "not a function of its seed: {divergence}"),
        }
    }
}

/// How often a seed is run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Repeat {
    /// Once.
    Once,
    /// Twice, and the runs are compared step by step.
    Twice,
}

/// Runs one seed.
pub fn run_seed(run: &dyn Run, seed: u64, trace: &mut Trace<'_>) -> Outcome {
    let (options, root) = options::draw(seed);
    let caught = panic::catch_unwind(AssertUnwindSafe(|| run.run(&options, root, trace)));
    match caught {
        Ok(Ok(())) => Outcome::Passed,
        Ok(Err(failure)) => Outcome::Failed(failure),
        Err(payload) => Outcome::Panicked(panic_message(payload.as_ref())),
    }
}

/// Runs one seed twice. What was found in the first run comes before a difference.
pub fn run_seed_twice(run: &dyn Run, seed: u64) -> Outcome {
    let mut first = Trace::recording();
    let outcome = run_seed(run, seed, &mut first);
    if !outcome.is_passed() {
        return outcome;
    }
    let mut second = Trace::comparing(first);
    let again = run_seed(run, seed, &mut second);
    second.divergence().map_or(again, Outcome::Diverged)
}

/// Runs seeds in `jobs` threads until one fails; those that have begun then still end. Returns how many passed, and
/// the failures by seed.
pub fn run_seeds(
    run: &dyn Run,
    seeds: Range<u64>,
    jobs: usize,
    repeat: Repeat,
) -> (u64, BTreeMap<u64, Outcome>) {
    let next = AtomicU64::new(seeds.start);
    let stop = AtomicBool::new(false);
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let (sender, next, stop) = (sender.clone(), &next, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    let outcome = match repeat {
                        Repeat::Once => run_seed(run, seed, &mut Trace::off()),
                        Repeat::Twice => run_seed_twice(run, seed),
                    };
                    stop.fetch_or(!outcome.is_passed(), Ordering::Relaxed);
                    // The receiver outlives the threads.
                    let _received = sender.send((seed, outcome));
                }
            });
        }
    });
    drop(sender);
    let mut passed = 0;
    let mut failed = BTreeMap::new();
    for (seed, outcome) in receiver {
        if outcome.is_passed() {
            passed += 1;
        } else {
            failed.insert(seed, outcome);
        }
    }
    (passed, failed)
}

thread_local! {
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Lets panics be kept for [`Outcome::Panicked`], with their place and, if `RUST_BACKTRACE` asks for one, a backtrace,
/// rather than printed among the output of other threads. For the whole process.
pub fn keep_panics_silent() {
    panic::set_hook(Box::new(|info| {
        let backtrace = std::backtrace::Backtrace::capture();
        let text = match backtrace.status() {
            std::backtrace::BacktraceStatus::Captured => format!("{info}\n{backtrace}"),
            _ => info.to_string(),
        };
        LAST_PANIC.with(|last| last.replace(Some(text)));
    }));
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    let kept = LAST_PANIC.with(RefCell::take);
    let text = || payload.downcast_ref::<&str>().map(|&text| text.to_owned());
    let string = || payload.downcast_ref::<String>().cloned();
    kept.or_else(text).or_else(string).unwrap_or_else(|| "without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use mesh_base::Instant;

    use super::*;

    /// Fails in all the ways there are, by seed.
    struct Seeded;

    impl Run for Seeded {
        fn run(&self, options: &Options, _root: Prng, _trace: &mut Trace<'_>) -> Result<(), Failure> {
            match options.seed {
                10 => Err(Failure::Safety("lost".into())),
                20 => Err(Failure::Liveness("stuck".into())),
                30 => panic!("seed {}", options.seed),
                _ => Ok(()),
            }
        }
    }

    #[test]
    fn every_way_to_end_has_its_exit_code() {
        let code = |seed| run_seed(&Seeded, seed, &mut Trace::off()).exit_code();
        assert_eq!([1, 10, 20, 30].map(code), [0, 1, 3, 4]);
        let panicked = run_seed(&Seeded, 30, &mut Trace::off());
        assert!(panicked.to_string().contains("seed 30"), "{panicked}");
    }

    #[test]
    fn all_seeds_are_run_once_by_any_number_of_threads() {
        for jobs in [1, 4] {
            assert_eq!(run_seeds(&Seeded, 100..200, jobs, Repeat::Once), (100, BTreeMap::new()));
        }
    }

    #[test]
    fn the_first_failure_ends_the_runs() {
        let (passed, failed) = run_seeds(&Seeded, 0..1000, 1, Repeat::Once);
        assert_eq!(passed, 10);
        assert_eq!(failed, [(10, Outcome::Failed(Failure::Safety("lost".into())))].into());
    }

    /// Does something else each time.
    struct Forgetful(AtomicUsize);

    impl Run for Forgetful {
        fn run(&self, _options: &Options, _root: Prng, trace: &mut Trace<'_>) -> Result<(), Failure> {
            let call = self.0.fetch_add(1, Ordering::Relaxed);
            trace.step(Instant(1), format_args!("the same"));
            trace.step(Instant(2), format_args!("call {call}"));
            Ok(())
        }
    }

    #[test]
    fn a_run_that_is_not_a_function_of_its_seed_is_found_at_its_first_different_step() {
        let outcome = run_seed_twice(&Forgetful(AtomicUsize::new(0)), 1);
        assert!(matches!(&outcome, Outcome::Diverged(divergence) if divergence.step == 1), "{outcome}");
        assert_eq!(outcome.exit_code(), 5);
    }
}
