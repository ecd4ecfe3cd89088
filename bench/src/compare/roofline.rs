//! `mesh-bench roofline`: what work takes at least, and what Mesh makes of it. The loads are those of `bars`.
//!
//! Of one durable put: an echo's round trip, and an append that the device has before it is answered. Of the device: appends
//! and random reads, by a ring of their own on the servers' first processor.
//!
//! Deliberately absent: a model. Whatever is here was measured in the same run, on the same processors and file system.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use mesh_base::limits::SECTOR_BYTES;

use super::bars;
use super::flags::{PaceFlags, RooflineFlags};
use crate::engine::bare::{Appender, LOG, random_reads};
use crate::error::{BenchError, Exit};
use crate::fleet::systems::Site;
use crate::machine::pin;
use crate::progress::show;
use crate::table::{Rounds, Row, Unit};

/// The least that a put takes, in a table.
pub(super) const NAME: &str = "an echo and an append";
/// An append, in a table.
const APPEND: &str = "an append";
const DEVICE: &str = "the device";
/// What is appended at a time, and read.
const BYTES: usize = SECTOR_BYTES;
/// Appends and reads in flight, in rows.
const DEPTHS: [usize; 2] = [1, 16];

/// Measures, and reports to stdout.
///
/// # Errors
/// [`BenchError`] if there is no report.
pub(crate) fn run(flags: &RooflineFlags) -> Result<Exit, BenchError> {
    flags.fleet.check()?;
    bars::against_roofline(flags)
}

/// What one put takes at least if an echo's round trip takes so long: figures of a round, in microseconds.
///
/// # Errors
/// The device's.
pub(super) fn one_put(
    site: &Site<'_>,
    pace: PaceFlags,
    echo: Option<f64>,
) -> Result<Vec<(&'static str, f64)>, BenchError> {
    let Some(echo) = echo else { return Ok(Vec::new()) };
    show("the device: appends");
    let append = on_the_device(site, |directory| {
        let times = Appender::new(directory)?.times(BYTES, 1, slice(pace))?;
        Ok(micros(times.value_at_quantile(0.5)))
    })?;
    Ok(vec![(APPEND, append), (NAME, echo + append)])
}

/// The rows of the device alone.
///
/// # Errors
/// Its own.
pub(super) fn device(site: &Site<'_>, pace: PaceFlags) -> Result<Vec<Row>, BenchError> {
    on_the_device(site, |directory| {
        let (mut appender, log) = (Appender::new(directory)?, directory.join(LOG));
        let mut rows = Vec::new();
        for depth in DEPTHS {
            let rounds =
                |what: &str, unit| Rounds::new(format!("{what} of {BYTES} B, {depth} in flight"), unit);
            let mut times = rounds("append with O_DSYNC: p50", Unit::Microseconds);
            let mut appends = rounds("append with O_DSYNC", Unit::OperationsPerSecond);
            let mut reads = rounds("random read past the page cache", Unit::OperationsPerSecond);
            reads.note("From the file that was appended to");
            for round in 0..pace.rounds() {
                show(&format!("the device: {depth} in flight, round {}", round + 1));
                let begun = Instant::now();
                let of_round = appender.times(BYTES, depth, slice(pace))?;
                let took = begun.elapsed();
                times.add(DEVICE, micros(of_round.value_at_quantile(0.5)));
                appends.add(DEVICE, as_f64(of_round.len()) / took.as_secs_f64());
                reads.add(DEVICE, random_reads(&log, BYTES, depth, slice(pace), round as u64)?);
            }
            rows.extend([times.row(), appends.row(), reads.row()]);
        }
        Ok(rows)
    })
}

/// Does something in a directory of its own, on the processor that a server would have.
fn on_the_device<T: Send>(
    site: &Site<'_>,
    work: impl FnOnce(&Path) -> Result<T, BenchError> + Send,
) -> Result<T, BenchError> {
    let (directory, cpu) = (site.room.fresh("device"), site.cores.first().copied().unwrap_or_default());
    fs::create_dir(&directory).map_err(BenchError::host("--dir"))?;
    let pinned = || {
        pin(cpu).map_err(|error| BenchError::core(cpu, &error))?;
        work(&directory)
    };
    // Not this thread, which may not be pinned: those that it starts would be as well.
    let done = thread::scope(|scope| scope.spawn(pinned).join());
    let _ = fs::remove_dir_all(&directory);
    done.unwrap_or_else(|_| Err(BenchError::core(cpu, &"its thread ended")))
}

fn slice(pace: PaceFlags) -> Duration {
    Duration::from_secs(pace.seconds.into())
}

fn micros(nanoseconds: u64) -> f64 {
    as_f64(nanoseconds) / 1000.0
}

#[allow(clippy::cast_precision_loss, reason = "counts and times of a run are far below 2^53")]
const fn as_f64(count: u64) -> f64 {
    count as f64
}
