//! Looks for a smaller run that fails in the same way: fewer nodes and clients, fewer faults, a shorter hostile phase.
//!
//! One option after the other is made simpler, as long as the run still fails with the same [kind](Outcome::kind) of
//! failure, until nothing can be made simpler any more or the bounds are reached (a greedy descent, as in Zeller and
//! Hildebrandt, "Simplifying and isolating failure-inducing input", 2002). A seed draws something else once an option has
//! changed, so a simpler run that passes proves nothing; there may be a smaller failure that is not found.
//!
//! The clock that is read here bounds the search, and nothing else.

use std::time::{Duration, Instant};

use crate::driver::{Case, Ended, Outcome, Run, run_case};
use crate::options::{self, Options};
use crate::overrides::{self, Overrides};
use crate::trace::Trace;

/// How long is looked for a smaller run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Runs at most.
    pub runs: u32,
    /// No run is begun after this time.
    pub time: Duration,
}

/// A smaller run that fails in the same way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shrunk {
    /// The run.
    pub case: Case,
    /// How it ended.
    pub ended: Ended,
    /// Runs that it took to find it.
    pub runs: u32,
}

/// Looks for a smaller run that fails as `case` did. Shows each attempt's number to `each`.
pub fn shrink(
    run: &dyn Run,
    case: &Case,
    failed: &Outcome,
    bounds: Bounds,
    mut each: impl FnMut(u32),
) -> Option<Shrunk> {
    let begun = Instant::now();
    let drawn = options::draw(case.seed).0;
    let kind = failed.kind();
    let mut runs = 0;
    let mut best: Option<(Options, Ended)> = None;
    let mut attempt = |options: &Options| {
        if runs >= bounds.runs || begun.elapsed() >= bounds.time {
            return None;
        }
        runs += 1;
        each(runs);
        let case = Case { seed: case.seed, with: Overrides::between(&drawn, options) };
        let ended = run_case(run, &case, &mut Trace::off());
        (ended.outcome.kind() == kind).then_some(ended)
    };
    let mut options = case.options();
    loop {
        let before = options.clone();
        for entry in overrides::entries() {
            let smaller = |options: &Options, attempt: &mut dyn FnMut(&Options) -> Option<Ended>| {
                entry.simpler(options).into_iter().find_map(|it| attempt(&it).map(|ended| (it, ended)))
            };
            while let Some((found, ended)) = smaller(&options, &mut attempt) {
                options.clone_from(&found);
                best = Some((found, ended));
            }
        }
        if options == before {
            break;
        }
    }
    let (options, ended) = best?;
    let case = Case { seed: case.seed, with: Overrides::between(&drawn, &options) };
    Some(Shrunk { case, ended, runs })
}

#[cfg(test)]
mod tests {
    use mesh_base::prng::Prng;

    use super::*;
    use crate::driver::Failure;
    use crate::rehearsal::{Flaw, QuorumRegister};
    use crate::report::Report;

    const BOUNDS: Bounds = Bounds { runs: 300, time: Duration::from_secs(30) };

    /// Needs three nodes, a crash and a second of hostility to fail, and fails otherwise with more than eight keys.
    struct Needy;

    impl Run for Needy {
        fn run(
            &self,
            options: &Options,
            _root: Prng,
            _trace: &mut Trace<'_>,
            _report: &mut Report,
        ) -> Result<(), Failure> {
            let lasts = options.hostile_for >= Duration::from_secs(1);
            if options.size.clients > 1 && options.size.keys == 1 {
                Err(Failure::Liveness("another failure".into()))
            } else if options.size.nodes >= 3 && options.faults.crash_every.is_some() && lasts {
                Err(Failure::Safety(format!("lost {}", options.size.keys)))
            } else {
                Ok(())
            }
        }
    }

    #[test]
    fn what_a_failure_does_not_need_is_taken_away() {
        let case = Case { seed: 1, with: "nodes=5,clients=4,keys=20,crashes=1s".parse().unwrap() };
        let failed = run_case(&Needy, &case, &mut Trace::off()).outcome;
        let shrunk = shrink(&Needy, &case, &failed, BOUNDS, |_| {}).unwrap();
        let options = shrunk.case.options();
        assert_eq!((options.size.nodes, options.size.clients, options.size.keys), (3, 1, 1));
        assert!(options.hostile_for < Duration::from_millis(1200), "{:?}", options.hostile_for);
        assert!(options.faults.crash_every.is_some() && options.faults.partition_every.is_none());
        assert!(shrunk.runs < 150, "{} runs", shrunk.runs);
    }

    #[test]
    fn the_bounds_are_kept() {
        let case = Case { seed: 1, with: "nodes=5,crashes=1s,hostile=20s".parse().unwrap() };
        let failed = run_case(&Needy, &case, &mut Trace::off()).outcome;
        let mut attempts = 0;
        let bounds = Bounds { runs: 7, ..BOUNDS };
        let shrunk = shrink(&Needy, &case, &failed, bounds, |runs| attempts = runs).unwrap();
        assert_eq!((shrunk.runs, attempts), (7, 7));
        assert_eq!(shrink(&Needy, &case, &failed, Bounds { time: Duration::ZERO, ..BOUNDS }, |_| {}), None);
    }

    #[test]
    fn a_flawed_register_fails_in_a_smaller_run_in_the_same_way_and_again_when_it_is_replayed() {
        let run = QuorumRegister::with(Flaw::GuessesVersion);
        let failing = |seed: &u64| !run_case(&run, &Case::of(*seed), &mut Trace::off()).outcome.is_passed();
        let case = Case::of((1..300).find(failing).unwrap());
        let failed = run_case(&run, &case, &mut Trace::off());
        let shrunk = shrink(&run, &case, &failed.outcome, BOUNDS, |_| {}).unwrap();
        assert_eq!(shrunk.ended.outcome.kind(), failed.outcome.kind());
        assert!(shrunk.ended.report.events * 4 < failed.report.events, "{:?}", shrunk.ended.report);
        let typed = Case { seed: case.seed, with: shrunk.case.with.to_string().parse().unwrap() };
        assert_eq!(run_case(&run, &typed, &mut Trace::off()), shrunk.ended);
    }
}
