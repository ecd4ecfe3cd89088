//! What checkpoints do to the slowest puts.

use std::time::Instant;

use mesh_engine::StoreOptions;

use super::super::bare::{BusyAppender, as_f64, histogram, nanoseconds};
use super::super::data::Data;
use super::super::files::Written;
use super::super::flags::{EngineFlags, RowName};
use super::super::place::Place;
use super::super::replica::{Replica, ReplicaOptions};
use super::super::resident::options_of;
use super::super::system::{Run, System};
use crate::progress::show;
use crate::table::{Bound, Rounds, Row, Unit};

/// Memory for pages: all of the data.
const CACHE_BYTES: usize = 1 << 30;
/// Changed pages at which a checkpoint begins: so many that several begin in a round. Each is written over four fifths of the
/// time to the next, so one runs most of the time.
const CHECKPOINT_AT_BYTES: u64 = 32 << 20;
const LOAD_BATCH: usize = 10_000;
const QUANTILE: f64 = 0.999;
const BARE: &str = "a bare appender beside a bare writer";

/// p99.9 of puts, one by one, while a checkpoint runs all the time; beside an appender and a writer of as many bytes.
///
/// # Errors
/// A system's.
pub(in super::super) fn pauses(flags: &EngineFlags) -> Run<Option<Row>> {
    if !flags.wants(RowName::Pauses) {
        return Ok(None);
    }
    let place = Place::new(&flags.dir)?;
    let mut data = Data::new(flags.keys(), flags.seed);
    let page_bytes = flags.page_bytes.first().copied().unwrap_or(StoreOptions::default().page_bytes);
    let store = StoreOptions { frame_bytes_max: CACHE_BYTES, ..options_of(page_bytes) };
    let mut options = ReplicaOptions::with_cache("Mesh", store);
    options.pace.at_bytes = CHECKPOINT_AT_BYTES;
    let mut replica = Replica::create(&place.directory("mesh")?, &options)?;
    show("loading Mesh");
    for keys in data.load_order().chunks(LOAD_BATCH) {
        replica.put(&data.puts(keys))?;
    }
    // What the load left to be written is not what is measured.
    replica.tidy()?;
    let mut bare = BusyAppender::new(&place.directory("bare")?)?;
    let mut rounds = Rounds::new("p99.9 of puts while checkpoints run", Unit::Microseconds);
    let (mut load, mut checkpoints, mut medians) = (Written::default(), 0, [0.0; 2]);
    for round in 0..flags.rounds() {
        show(&format!("p99.9 of puts: round {} of {}", round + 1, flags.rounds()));
        // Nobody drove the checkpoint that was running when the last round ended, and it is late by now: with the next it begins.
        let ended = replica.checkpoints();
        while round > 0 && replica.checkpoints() == ended {
            put(&mut replica, &mut data)?;
        }
        let (before, checkpoints_before) = (replica.written(), replica.checkpoints());
        let (mut times, start) = (histogram(), Instant::now());
        while start.elapsed() < flags.slice() {
            times.saturating_record(put(&mut replica, &mut data)?);
        }
        load = replica.written().since(before);
        checkpoints = replica.checkpoints() - checkpoints_before;
        let beside = bare.beside(load, start.elapsed())?;
        let micros = |nanoseconds: u64| as_f64(nanoseconds) / 1000.0;
        rounds.add("Mesh", micros(times.value_at_quantile(QUANTILE)));
        rounds.add(BARE, micros(beside.value_at_quantile(QUANTILE)));
        medians = [&times, &beside].map(|times| micros(times.value_at_quantile(0.5)));
    }
    let [own, other] = medians;
    rounds.note(format!(
        "Last round: {checkpoints} checkpoints ended and wrote {} KiB in {} writes with {} syncs, and so did the bare writer; medians {own:.0} us and {other:.0} us",
        load.bytes >> 10,
        load.writes,
        load.syncs
    ));
    Ok(Some(rounds.row().bar(&[BARE], Bound::AtMost(1.5))))
}

/// A put of a random key; how long it took, in nanoseconds.
fn put(replica: &mut Replica, data: &mut Data) -> Run<u64> {
    let keys = data.keys(1);
    let puts = data.puts(&keys);
    let begun = Instant::now();
    replica.put(&puts)?;
    Ok(nanoseconds(begun.elapsed()))
}
