//! Whether opening takes longer where there is more.

use mesh_engine::StoreOptions;

use super::super::data::{Data, KEY_BYTES, VALUE_BYTES};
use super::super::flags::{EngineFlags, RowName};
use super::super::place::Place;
use super::super::replica::{OpenTime, Replica, ReplicaOptions};
use super::super::resident::options_of;
use super::super::system::{Run, System};
use crate::progress::show;
use crate::table::{Bound, Rounds, Row, Unit};

const LITTLE: &str = "with 16 MiB";
const MUCH: &str = "Mesh with 1 GiB";
const LITTLE_BYTES: usize = 16 << 20;
const MUCH_BYTES: usize = 1 << 30;
/// What is much in a smoke test.
const QUICK_BYTES: usize = 32 << 20;
const LOAD_BATCH: usize = 10_000;
/// Opened so many times as there are rounds, times this: one is short.
const TIMES: usize = 4;

/// Opens a replica after a clean stop: the log is recovered, the page store opened.
///
/// # Errors
/// A system's.
pub(in super::super) fn open(flags: &EngineFlags) -> Run<Option<Row>> {
    if !flags.wants(RowName::Open) {
        return Ok(None);
    }
    let place = Place::new(&flags.dir)?;
    let page_bytes = flags.page_bytes.first().copied().unwrap_or(StoreOptions::default().page_bytes);
    let store = options_of(page_bytes);
    let options = ReplicaOptions::with_cache("Mesh", store);
    let much = if flags.quick { QUICK_BYTES } else { MUCH_BYTES };
    let mut directories = Vec::new();
    for (name, bytes) in [(LITTLE, LITTLE_BYTES), (MUCH, much)] {
        let directory = place.directory(name)?;
        show(&format!("loading Mesh {name}"));
        let keys = u32::try_from(bytes / (KEY_BYTES + VALUE_BYTES)).unwrap_or(u32::MAX);
        let mut data = Data::new(keys, flags.seed);
        let mut replica = Replica::create(&directory, &options)?;
        for keys in data.all_in_order().chunks(LOAD_BATCH) {
            replica.put(&data.puts(keys))?;
        }
        replica.stop()?;
        directories.push((name, directory, OpenTime::default()));
    }
    let mut rounds = Rounds::new("open after a clean stop", Unit::Microseconds);
    for _ in 0..flags.rounds() * TIMES {
        for (name, directory, last) in &mut directories {
            let (replica, time) = Replica::open(directory, &options)?;
            replica.close()?;
            rounds.add(name, (time.log + time.store).as_secs_f64() * 1e6);
            *last = time;
        }
    }
    for (name, _, OpenTime { log, store }) in &directories {
        rounds.note(format!("{name}, last: {log:.0?} for the log and {store:.0?} for the page store"));
    }
    Ok(Some(rounds.row().bar(&[LITTLE], Bound::AtMost(1.2))))
}
