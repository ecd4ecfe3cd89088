//! The keys before and after a load: laid out, filled in, gone through once.
//!
//! Invariant: a sweep that returns has done every key of its plan, or says why not.

use std::sync::Arc;
use std::time::Instant;

use crate::collector::Outcome;
use crate::error::BenchError;
use crate::generator::{self, Plan};
use crate::keyspace::{KEY_BYTES, Keyspace, KeyspaceSpec};
use crate::load::LoadFlags;
use crate::op::OpKind;
use crate::pace::Pace;
use crate::progress::{note, show};
use crate::report::text;
use crate::target::{PartitionId, Target};
use crate::workload::Mix;

/// Of each partition, so many keys are looked at to see whether all are there.
const PROBES: usize = 1024;
/// Bytes of one request, about.
const BATCH_BYTES: usize = 32 * 1024;
/// Keys of such a request, at most.
const BATCH_MAX: usize = 64;
/// Connections at most, unless there are more partitions.
const CONNECTIONS_MAX: usize = 16;

/// Whether keys are written that may be there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refill {
    /// All of them.
    Always,
    /// None, if a look at some finds them all.
    IfMissing,
}

/// Lays out the keys of a load over the partitions of a system.
///
/// # Errors
/// [`BenchError::Usage`] if a partition gets none.
pub(crate) fn lay_out(flags: &LoadFlags, target: &impl Target) -> Result<Keyspace, BenchError> {
    let spec = KeyspaceSpec {
        keys: flags.keys,
        inserts: flags.inserts(),
        value_bytes: flags.value_bytes,
        distribution: flags.distribution(),
        seed: flags.seed,
    };
    let partitions = target.partitions();
    Keyspace::new(spec, partitions, |key| target.partition_of(key)).map_err(|PartitionId(empty)| {
        BenchError::Usage(format!(
            "--keys {}: partition {empty} of {partitions} gets no key; use more keys",
            flags.keys
        ))
    })
}

/// Sees to it that all keys are there, in batches over a few connections.
///
/// # Errors
/// [`BenchError`] if some are not.
pub(crate) fn fill<T: Target>(target: &Arc<T>, plan: &Plan, refill: Refill) -> Result<(), BenchError> {
    let partitions = target.partitions();
    if refill == Refill::IfMissing {
        show("looking whether the keys are there");
        let most = (0..partitions).map(|partition| plan.keyspace.keys_of(PartitionId(partition)).len()).max();
        let step = most.unwrap_or(0).div_ceil(PROBES);
        let found = sweep(target, &Plan { mix: Mix::sweep(OpKind::Read, step, partitions), ..plan.clone() })?;
        if found.total.missing + found.total.wrong == 0 {
            return Ok(());
        }
    }
    show("filling in the keys");
    let begun = Instant::now();
    let written = sweep(target, &Plan { mix: Mix::sweep(OpKind::Write, 1, partitions), ..plan.clone() })?;
    let keys = plan.keyspace.keys();
    if written.total.keys != u64::from(keys) {
        return Err(BenchError::Load { why: format!("{} of {} were written", written.total.keys, keys) });
    }
    note(&format!(
        "filled in {} keys in {:.1} s",
        text::count(written.total.keys),
        begun.elapsed().as_secs_f64()
    ));
    Ok(())
}

/// Goes once through the keys of a plan's mix, in batches over a few connections, without an end in time.
///
/// # Errors
/// [`BenchError`] if anything was not done.
pub(crate) fn sweep<T: Target>(target: &Arc<T>, plan: &Plan) -> Result<Outcome, BenchError> {
    let fits = BATCH_BYTES / (plan.keyspace.value_bytes() + KEY_BYTES);
    let plan = Plan {
        connections: plan.connections.min(CONNECTIONS_MAX).max(target.partitions()),
        in_flight: 2,
        pace: Pace::Closed,
        batch: fits.clamp(1, BATCH_MAX),
        warm_up: 0,
        seconds: None,
        ..plan.clone()
    };
    let outcome = generator::run(target, &plan, &mut ())?;
    let total = &outcome.total;
    if total.failed() == 0 && total.unanswered == 0 {
        return Ok(outcome);
    }
    let why = format!(
        "{} requests failed {:?}, {} were never answered",
        total.failed(),
        total.errors,
        total.unanswered
    );
    Err(BenchError::Load { why })
}
