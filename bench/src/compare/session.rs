//! A system from its start to its end: filled, put under loads, read back.
//!
//! Invariant: all loads of a session are recorded in one ledger, and what is read back at the end is held against it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::collector::Outcome;
use crate::cpu::Spent;
use crate::error::BenchError;
use crate::fleet::client::Client;
use crate::fleet::systems::{Running, Site, SystemName};
use crate::generator::Plan;
use crate::ledger::{Findings, Ledger, Ledgered};
use crate::load::LoadFlags;
use crate::pace::{OVERDUE_MAX, Pace};
use crate::progress::{Progress, show};
use crate::rate::{MOST_SECONDS, MOST_WARM_UP};
use crate::report::micros;
use crate::report::text::rate;
use crate::workload::Mix;

/// What one load showed.
#[derive(Clone, Default, Debug, serde::Serialize)]
pub(crate) struct Slice {
    /// Keys in a second.
    pub(crate) rate: f64,
    /// Requests answered in a second, but for those that follow a read of the same key.
    pub(crate) requests_per_second: f64,
    /// Requests in a second that were due; `None` in a closed loop.
    pub(crate) offered_per_second: Option<f64>,
    /// What part of them was never begun.
    pub(crate) overdue: f64,
    /// Of requests, in microseconds, in an open loop from when they were due.
    pub(crate) p50: f64,
    /// 0.99
    pub(crate) p99: f64,
    /// 0.999
    pub(crate) p99_9: f64,
    /// The same of the first 60 seconds.
    pub(crate) p99_9_of_first_minute: f64,
    /// Processor time of the system for each key, in microseconds.
    pub(crate) server_us: f64,
    /// Processor time of the generator for each key, in microseconds.
    pub(crate) generator_us: f64,
    /// What part of its processors the generator used.
    pub(crate) generator_busy: f64,
    /// Processors that everything else on this host kept busy.
    pub(crate) others_cores: f64,
    /// Requests that met an error and were sent again, by its name.
    pub(crate) retried: BTreeMap<&'static str, u64>,
    /// What went wrong, in words.
    pub(crate) wrong: Vec<String>,
}

/// How long a load is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Lengths {
    /// Seconds before what is measured.
    pub(crate) warm_up: u32,
    /// Seconds that are measured.
    pub(crate) seconds: u32,
}

/// See the module. The system is ended when this is dropped.
pub(crate) struct Session {
    running: Running,
    client: Box<dyn Client>,
    ledger: Arc<Ledger>,
    plan: Plan,
}

impl Lengths {
    /// Of the load that shows the most that a system reaches.
    pub(crate) const MOST: Self = Self { warm_up: MOST_WARM_UP, seconds: MOST_SECONDS };
}

impl Session {
    /// Starts a system and fills it with the keys of a load.
    ///
    /// # Errors
    /// [`BenchError`]
    pub(crate) fn begin(
        name: SystemName,
        site: &Site<'_>,
        work: &LoadFlags,
        generator: &[usize],
    ) -> Result<Self, BenchError> {
        show(&format!("{}: starting", name.name()));
        let mut running = Running::start(name, site)?;
        let client = running.client()?;
        let ledger = Arc::new(Ledger::new(work.keys));
        let plan = Plan {
            cores: generator.to_vec(),
            connections: usize::from(work.connections),
            in_flight: work.in_flight,
            batch: work.batch,
            pace: Pace::Closed,
            mix: Mix::Random(work.shares()),
            keyspace: Arc::new(client.lay_out(work)?),
            ledger: Ledgered::Records(Arc::clone(&ledger)),
            warm_up: 0,
            seconds: None,
            seed: work.seed,
        };
        show(&format!("{}: filling in the keys", name.name()));
        client.fill(&plan).map_err(|error| running.explain(&error))?;
        Ok(Self { running, client, ledger, plan })
    }

    /// Puts a load on it, of the keys that it was filled with.
    ///
    /// # Errors
    /// [`BenchError`]
    pub(crate) fn load(
        &mut self,
        work: &LoadFlags,
        pace: Pace,
        lengths: Lengths,
    ) -> Result<Slice, BenchError> {
        let plan = Plan {
            connections: usize::from(work.connections),
            in_flight: work.in_flight,
            batch: work.batch,
            pace,
            mix: Mix::Random(work.shares()),
            warm_up: lengths.warm_up,
            seconds: Some(lengths.seconds),
            ..self.plan.clone()
        };
        let servers = self.running.servers();
        let mut progress = Progress::new(&servers, lengths.seconds);
        let outcome = self.client.run(&plan, &mut progress).map_err(|error| self.running.explain(&error))?;
        Ok(Slice::of(&outcome, progress.spent.as_ref(), &plan))
    }

    /// Reads back everything and ends the system. `None` of a system that keeps nothing.
    ///
    /// # Errors
    /// [`BenchError`]
    pub(crate) fn end(self) -> Result<Option<Findings>, BenchError> {
        if !self.running.name.keeps() {
            return Ok(None);
        }
        show(&format!("{}: reading back", self.running.name.name()));
        let findings = self.client.audit(&self.plan, &self.ledger);
        findings.map(Some).map_err(|error| self.running.explain(&error))
    }
}

/// The generator is the bottleneck when its processors are busier than this.
pub(crate) const BUSY_MAX: f64 = 0.9;

/// More than so many processors' time taken by others is worth a word.
pub(crate) const OTHERS_MAX: f64 = 0.2;

impl Slice {
    /// What should be known before its figures are used.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.generator_busy > BUSY_MAX {
            warnings.push(format!(
                "the generator was the bottleneck: its processors were {:.0}% busy; give it more with --generator-cores",
                100.0 * self.generator_busy
            ));
        }
        if let Some(offered) = self.offered_per_second.filter(|_| self.overdue > OVERDUE_MAX) {
            warnings.push(format!(
                "it did not keep up with {} requests/s: it answered {}, and {:.1}% of what was due was never begun",
                rate(offered),
                rate(self.requests_per_second),
                100.0 * self.overdue
            ));
        }
        if self.others_cores > OTHERS_MAX {
            warnings.push(format!("others kept {:.1} of the machine's processors busy", self.others_cores));
        }
        warnings.extend(self.retried_in_words());
        warnings
    }

    /// Requests that were sent again, a line for each reason.
    pub(crate) fn retried_in_words(&self) -> impl Iterator<Item = String> + '_ {
        self.retried.iter().map(|(name, count)| format!("{count} requests met {name} and were sent again"))
    }

    fn of(outcome: &Outcome, spent: Option<&Spent>, plan: &Plan) -> Self {
        let server: Duration =
            spent.map(|spent| spent.servers.iter().map(|(_, time)| time.total()).sum()).unwrap_or_default();
        let others = spent.map(|spent| {
            spent.machine.saturating_sub(server + outcome.cpu).as_secs_f64() / spent.wall.as_secs_f64()
        });
        let (total, seconds) = (&outcome.total, outcome.measured.as_secs_f64());
        let (latency, first_minute) = (total.all_latencies(), outcome.first_minute.all_latencies());
        let at = |quantile| micros(latency.value_at_quantile(quantile));
        let due = plan.pace.due(plan.warm_up + plan.seconds.unwrap_or_default());
        let (keys, generator) = (as_f64(total.keys.max(1)), outcome.cpu.as_secs_f64());
        let mut wrong = Vec::new();
        for (count, what) in [
            (total.failed(), "requests failed"),
            (total.unanswered, "requests were never answered"),
            (total.missing, "keys were not found, and all were there before"),
            (total.wrong, "keys had values of a length that nobody wrote"),
        ] {
            if count > 0 {
                wrong.push(format!("{count} {what}"));
            }
        }
        Self {
            rate: as_f64(total.keys) / seconds,
            requests_per_second: total.arrivals_per_second(outcome.measured),
            offered_per_second: plan.pace.rate(),
            overdue: due.map_or(0.0, |due| as_f64(total.overdue) / due),
            p50: at(0.5),
            p99: at(0.99),
            p99_9: at(0.999),
            p99_9_of_first_minute: micros(first_minute.value_at_quantile(0.999)),
            server_us: server.as_secs_f64() * 1e6 / keys,
            generator_us: generator * 1e6 / keys,
            generator_busy: generator / seconds / as_f64(plan.cores.len() as u64),
            others_cores: others.unwrap_or_default(),
            retried: total
                .errors
                .iter()
                .filter(|(_, count)| count.retried > 0)
                .map(|(name, count)| (*name, count.retried))
                .collect(),
            wrong,
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "counts of a run are far below 2^53")]
const fn as_f64(count: u64) -> f64 {
    count as f64
}
