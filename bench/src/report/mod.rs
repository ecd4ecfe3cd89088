//! What a run has shown, in the form that all renderings share. Times are in microseconds.
//!
//! Invariant: a figure that is not worth anything says so: see [`Report::worthless`].

pub(crate) mod json;
pub(crate) mod markdown;
pub(crate) mod text;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::cli::RunFlags;
use crate::collector::{Outcome, Point};
use crate::cpu::{CpuTime, Spent};
use crate::machine::Machine;
use crate::pace::{OVERDUE_MAX, Pace};
use crate::tally::{Class, ErrorCount, Latencies, Tally};

/// The generator is the bottleneck when its cores are busier than this.
const BUSY_MAX: f64 = 0.9;
/// A run with a greater part of failed operations is worthless.
const FAILED_MAX: f64 = 0.01;
/// More than so many processors' time taken by others is worth a word.
const OTHERS_MAX: f64 = 0.2;
/// A system keeps up, too, if what it has not begun is so many times what chance explains: the root of the number that was due.
const OVERDUE_CHANCE: f64 = 3.0;
/// Waits grow if those of the last third of a run are so many times those of the first.
const GROWTH_MIN: f64 = 1.2;
/// Steps of a latency curve for each halving of what is left above.
const CURVE_STEPS: u32 = 4;

/// What is known beside what was counted.
pub(crate) struct Facts {
    /// The system's name.
    pub(crate) target: &'static str,
    /// How many partitions its keys have.
    pub(crate) partitions: usize,
    /// On what it was measured.
    pub(crate) machine: Machine,
    /// Since the beginning of 1970 in UTC.
    pub(crate) started_at: Duration,
    /// The command line.
    pub(crate) command: Vec<String>,
    /// What processors did during the measurement.
    pub(crate) spent: Option<Spent>,
    /// When operations began.
    pub(crate) pace: Pace,
    /// Requests in a second in a closed loop, if that was measured first.
    pub(crate) most: Option<f64>,
    /// Inserts that there was no room for.
    pub(crate) inserts_again: u64,
}

/// See the module.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// The version of this program.
    pub(crate) version: &'static str,
    /// Its command line.
    pub(crate) command: Vec<String>,
    /// When it was started, in seconds since the beginning of 1970 in UTC.
    pub(crate) started_at: u64,
    /// The system.
    pub(crate) target: &'static str,
    /// On what it was measured.
    pub(crate) machine: Machine,
    /// What was done.
    pub(crate) load: Load,
    /// How much of it.
    pub(crate) throughput: Throughput,
    /// How long each took, by what it did.
    pub(crate) latency_us: BTreeMap<&'static str, Latency>,
    /// The same of all requests together.
    pub(crate) all_us: Latency,
    /// The same from the sending on, where operations were due at times of their own.
    pub(crate) service_us: BTreeMap<&'static str, Latency>,
    /// What it cost the system's processes that run on this host.
    pub(crate) servers: Vec<ServerCost>,
    /// What it cost this program.
    pub(crate) generator: GeneratorCost,
    /// Processors that everything else on this host kept busy.
    pub(crate) others_cores: Option<f64>,
    /// Processors that the hypervisor took away.
    pub(crate) stolen_cores: Option<f64>,
    /// Errors by their name.
    pub(crate) errors: BTreeMap<&'static str, ErrorCount>,
    /// Keys that reads did not find.
    pub(crate) missing: u64,
    /// Keys that had a value of another length.
    pub(crate) wrong: u64,
    /// Requests that were never answered.
    pub(crate) unanswered: u64,
    /// Requests in a second that were begun by themselves, not after a read of the same key, and answered.
    pub(crate) reached_per_second: f64,
    /// What shows that the system was not able to do what was asked of it, if anything does.
    pub(crate) saturation: Option<Saturation>,
    /// Inserts that wrote keys that were there, because there was no room for more.
    pub(crate) inserts_again: u64,
    /// Second by second.
    pub(crate) series: Vec<SeriesPoint>,
    /// What should be known before the figures are used.
    pub(crate) warnings: Vec<String>,
    /// Why the figures are worthless, if they are.
    pub(crate) worthless: Vec<String>,
}

/// What was done.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Load {
    /// As on the command line.
    pub(crate) workload: &'static str,
    /// The same with what belongs to it.
    pub(crate) words: String,
    /// Percent that read keys.
    pub(crate) reads_percent: u32,
    /// Percent that write keys that are not there.
    pub(crate) inserts_percent: u32,
    /// Percent that read keys in order.
    pub(crate) ranges_percent: u32,
    /// Percent that read a key and then write it.
    pub(crate) modifies_percent: u32,
    /// How many keys there are.
    pub(crate) keys: u32,
    /// Bytes of a value.
    pub(crate) value_bytes: usize,
    /// How keys were chosen.
    pub(crate) distribution: &'static str,
    /// How many connections.
    pub(crate) connections: u16,
    /// Requests in flight on each.
    pub(crate) in_flight: u16,
    /// Keys of a request.
    pub(crate) batch: usize,
    /// Parts of the keys that connections went to.
    pub(crate) partitions: usize,
    /// Requests in a second that were due; `None` in a closed loop.
    pub(crate) offered_per_second: Option<f64>,
    /// How they followed each other.
    pub(crate) arrivals: Option<&'static str>,
    /// Requests in a second in a closed loop, if that was measured first.
    pub(crate) closed_loop_per_second: Option<f64>,
    /// What choices were made with.
    pub(crate) seed: u64,
    /// Seconds that were measured.
    pub(crate) seconds: u32,
    /// Seconds before that.
    pub(crate) warm_up: u32,
}

/// Requests waited for others, more of them all the time.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(crate) struct Saturation {
    /// Requests that were due before the end and were never begun.
    pub(crate) overdue: u64,
    /// Of all that were due.
    pub(crate) part: f64,
}

impl Saturation {
    fn of(facts: &Facts, flags: &RunFlags, outcome: &Outcome) -> Option<Self> {
        let due = facts.pace.due(flags.seconds + flags.warm_up)?;
        let part = as_f64(outcome.total.overdue) / due;
        // What is late after a pause just before the end is no more than that: a backlog that grows makes all wait longer and longer.
        let third = outcome.series.len() / 3;
        let waits = |points: &[Point]| points.iter().map(|point| point.p50).max().unwrap_or_default();
        let early = waits(outcome.series.get(..third).unwrap_or_default());
        let late = waits(outcome.series.get(outcome.series.len() - third..).unwrap_or_default());
        let grows = third == 0 || as_f64(late) > GROWTH_MIN * as_f64(early);
        let is_more_than_chance = as_f64(outcome.total.overdue) > OVERDUE_CHANCE * due.sqrt();
        (part > OVERDUE_MAX && is_more_than_chance && grows)
            .then_some(Self { overdue: outcome.total.overdue, part })
    }
}

/// How much was done.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Throughput {
    /// Keys that were read or written.
    pub(crate) operations: u64,
    /// Requests that were answered.
    pub(crate) requests: u64,
    /// Keys that ranges brought.
    pub(crate) range_items: u64,
    /// Keys in a second; a range counts as one.
    pub(crate) operations_per_second: f64,
    /// Requests in a second.
    pub(crate) requests_per_second: f64,
    /// Keys that ranges brought, in a second.
    pub(crate) range_items_per_second: f64,
}

/// How long requests took.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Latency {
    /// How many.
    pub(crate) requests: u64,
    /// On average.
    pub(crate) mean: f64,
    /// At quantiles.
    pub(crate) p50: f64,
    /// 0.9
    pub(crate) p90: f64,
    /// 0.99
    pub(crate) p99: f64,
    /// 0.999
    pub(crate) p99_9: f64,
    /// 0.9999
    pub(crate) p99_99: f64,
    /// The longest.
    pub(crate) max: f64,
    /// Pairs of a quantile and the time at it, denser towards 1.
    pub(crate) curve: Vec<(f64, f64)>,
}

/// What a run cost a process of the system.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ServerCost {
    /// The process.
    pub(crate) pid: u32,
    /// Its command.
    pub(crate) command: String,
    /// Processors that it kept busy.
    pub(crate) cores: f64,
    /// Processor time for an operation, outside of the kernel.
    pub(crate) user_us_per_operation: f64,
    /// Processor time for an operation, inside of the kernel.
    pub(crate) system_us_per_operation: f64,
}

impl ServerCost {
    /// Processor time for an operation.
    pub(crate) fn us_per_operation(&self) -> f64 {
        self.user_us_per_operation + self.system_us_per_operation
    }
}

/// What a run cost this program.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct GeneratorCost {
    /// The processors that made the load.
    pub(crate) cores: Vec<usize>,
    /// What part of their time it took.
    pub(crate) busy: f64,
    /// Processor time for an operation.
    pub(crate) us_per_operation: f64,
}

/// A second.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct SeriesPoint {
    /// Which.
    pub(crate) second: i64,
    /// Keys that were read or written.
    pub(crate) operations: u64,
    /// Errors, retried or not.
    pub(crate) errors: u64,
    /// Latencies of all requests.
    pub(crate) p50_us: f64,
    /// 0.99
    pub(crate) p99_us: f64,
    /// 0.999
    pub(crate) p99_9_us: f64,
    /// The longest.
    pub(crate) max_us: f64,
}

impl Report {
    /// Of what was counted.
    pub(crate) fn of(flags: &RunFlags, facts: &Facts, outcome: &Outcome) -> Self {
        let Facts { target, machine, started_at, command, spent, inserts_again, .. } = facts;
        let total = &outcome.total;
        let throughput = Throughput::of(outcome);
        let generator = GeneratorCost::of(flags, outcome);
        let (servers, others_cores, stolen_cores) = match spent {
            Some(spent) => {
                let wall = spent.wall.as_secs_f64();
                let servers = spent.servers.iter().map(|(_, time)| time.total()).sum::<Duration>();
                let ours = servers + outcome.cpu;
                let others = spent.machine.saturating_sub(ours).as_secs_f64() / wall;
                let costs = spent.servers.iter().map(|(server, time)| ServerCost {
                    pid: server.pid,
                    command: server.command.clone(),
                    cores: time.total().as_secs_f64() / wall,
                    ..ServerCost::of(*time, total.keys)
                });
                (costs.collect(), Some(others), Some(spent.stolen.as_secs_f64() / wall))
            }
            None => (Vec::new(), None, None),
        };
        let by_class = |times: for<'a> fn(&'a Tally, Class) -> Option<&'a Latencies>| {
            let each = Class::ALL.into_iter();
            each.filter_map(|class| Some((class.name(), Latency::of(times(total, class)?)))).collect()
        };
        let mut report = Self {
            version: env!("CARGO_PKG_VERSION"),
            command: command.clone(),
            started_at: started_at.as_secs(),
            target: *target,
            machine: machine.clone(),
            load: Load::of(flags, facts),
            throughput,
            latency_us: by_class(Tally::latency),
            all_us: Latency::of(&total.all_latencies()),
            service_us: by_class(Tally::service),
            servers,
            generator,
            others_cores,
            stolen_cores,
            errors: total.errors.clone(),
            missing: total.missing,
            wrong: total.wrong,
            unanswered: total.unanswered,
            reached_per_second: total.arrivals_per_second(outcome.measured),
            saturation: Saturation::of(facts, flags, outcome),
            inserts_again: *inserts_again,
            series: outcome.series.iter().map(SeriesPoint::of).collect(),
            warnings: Vec::new(),
            worthless: Vec::new(),
        };
        report.judge(total.failed());
        report
    }

    fn judge(&mut self, failed: u64) {
        let Self { throughput, generator, load, .. } = self;
        let mut warnings = Vec::new();
        if generator.busy > BUSY_MAX {
            warnings.push(format!(
                "the generator was the bottleneck: its cores were {:.0}% busy; give it more of them with --cores",
                100.0 * generator.busy
            ));
        }
        if let Some(others) = self.others_cores.filter(|others| *others > OTHERS_MAX) {
            warnings.push(format!("others kept {others:.1} of the machine's processors busy"));
        }
        if let Some(stolen) = self.stolen_cores.filter(|stolen| *stolen > OTHERS_MAX / 10.0) {
            warnings.push(format!("the hypervisor took {stolen:.2} processors away"));
        }
        if self.inserts_again > 0 {
            let again = text::count(self.inserts_again);
            warnings.push(format!("{again} inserts wrote keys that were there: too few --keys for this run"));
        }
        if usize::from(load.connections) < load.partitions {
            warnings.push(format!(
                "{} connections reach only as many of the {} partitions; use more with --connections",
                load.connections, load.partitions
            ));
        }
        if let Some(Saturation { part, .. }) = self.saturation {
            warnings.push(format!(
                "the system is saturated at {} requests/s: it reached {}, and {:.1}% of what was due was never begun; \
                 latencies say how long the run was",
                text::rate(load.offered_per_second.unwrap_or_default()),
                text::rate(self.reached_per_second),
                100.0 * part
            ));
        }
        let mut worthless = Vec::new();
        if throughput.requests == 0 {
            worthless.push("nothing was done".to_owned());
        }
        let part = as_f64(failed) / as_f64((throughput.requests + failed).max(1));
        if part > FAILED_MAX {
            worthless.push(format!("{:.1}% of the requests failed", 100.0 * part));
        }
        for (count, what) in [
            (self.missing, "keys were not found, and all were there before"),
            (self.wrong, "keys had values of a length that nobody wrote"),
            (self.unanswered, "requests were never answered"),
        ] {
            if count > 0 {
                worthless.push(format!("{} {what}", text::count(count)));
            }
        }
        (self.warnings, self.worthless) = (warnings, worthless);
    }
}

impl Load {
    fn of(flags: &RunFlags, facts: &Facts) -> Self {
        let shares = flags.work.shares();
        let (offered, arrivals) = match facts.pace {
            Pace::Closed => (None, None),
            Pace::Open { rate, arrivals } => (Some(rate), Some(arrivals.name())),
        };
        Self {
            workload: flags.work.workload.name(),
            words: flags.work.words(),
            reads_percent: shares.reads,
            inserts_percent: shares.inserts,
            ranges_percent: shares.scans,
            modifies_percent: shares.modifies,
            keys: flags.work.keys,
            value_bytes: flags.work.value_bytes,
            distribution: flags.work.distribution().name(),
            connections: flags.work.connections,
            in_flight: flags.work.in_flight,
            batch: flags.work.batch,
            partitions: facts.partitions,
            offered_per_second: offered,
            arrivals,
            closed_loop_per_second: facts.most,
            seed: flags.work.seed,
            seconds: flags.seconds,
            warm_up: flags.warm_up,
        }
    }
}

impl Throughput {
    fn of(outcome: &Outcome) -> Self {
        let (seconds, total) = (outcome.measured.as_secs_f64(), &outcome.total);
        Self {
            operations: total.keys,
            requests: total.requests(),
            range_items: total.items,
            operations_per_second: as_f64(total.keys) / seconds,
            requests_per_second: as_f64(total.requests()) / seconds,
            range_items_per_second: as_f64(total.items) / seconds,
        }
    }
}

impl Latency {
    fn of(latencies: &Latencies) -> Self {
        let at = |quantile| micros(latencies.value_at_quantile(quantile));
        let curve = latencies.iter_quantiles(CURVE_STEPS);
        Self {
            requests: latencies.len(),
            mean: latencies.mean() / 1000.0,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            p99_99: at(0.9999),
            max: micros(latencies.max()),
            curve: curve
                .map(|step| (step.quantile_iterated_to(), micros(step.value_iterated_to())))
                .collect(),
        }
    }
}

impl ServerCost {
    fn of(time: CpuTime, operations: u64) -> Self {
        let each = |time: Duration| time.as_secs_f64() * 1e6 / as_f64(operations.max(1));
        Self {
            pid: 0,
            command: String::new(),
            cores: 0.0,
            user_us_per_operation: each(time.user),
            system_us_per_operation: each(time.system),
        }
    }
}

impl GeneratorCost {
    fn of(flags: &RunFlags, outcome: &Outcome) -> Self {
        let (cores, cpu) = (flags.cores(), outcome.cpu.as_secs_f64());
        Self {
            busy: cpu / outcome.measured.as_secs_f64() / as_f64(cores.len() as u64),
            us_per_operation: cpu * 1e6 / as_f64(outcome.total.keys.max(1)),
            cores,
        }
    }
}

impl SeriesPoint {
    fn of(point: &Point) -> Self {
        Self {
            second: point.number,
            operations: point.keys,
            errors: point.errors,
            p50_us: micros(point.p50),
            p99_us: micros(point.p99),
            p99_9_us: micros(point.p99_9),
            max_us: micros(point.max),
        }
    }
}

pub(crate) fn micros(nanoseconds: u64) -> f64 {
    as_f64(nanoseconds) / 1000.0
}

#[allow(clippy::cast_precision_loss, reason = "for people and plots")]
const fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
