//! Data of four times the memory.

use std::time::{Duration, Instant};

use mesh_base::io::FileId;
use mesh_engine::StoreOptions;

use super::super::bare::{as_f64, random_reads};
use super::super::data::{Data, KEY_BYTES, VALUE_BYTES};
use super::super::flags::{EngineFlags, PeerName, RowName};
use super::super::peers;
use super::super::place::Place;
use super::super::replica::{Replica, ReplicaOptions};
use super::super::resident::options_of;
use super::super::system::{InFlight, Run};
use crate::progress::show;
use crate::table::{Bound, Rounds, Row, Unit};

/// How often the memory goes into the data.
const TIMES: usize = 4;
const IN_FLIGHT: usize = 16;
/// Reads between two looks at the clock: many for each in flight, so that the last ones do not count.
const GETS: usize = 8192;
const LOAD_BATCH: usize = 10_000;
const DEVICE: &str = "the device's random reads";

/// Random get with 16 in flight from data of four times the cache, all reads past the page cache.
///
/// # Errors
/// A system's.
pub(in super::super) fn larger(flags: &EngineFlags) -> Run<Option<Row>> {
    if !flags.wants(RowName::Larger) {
        return Ok(None);
    }
    let place = Place::new(&flags.dir)?;
    let cache = flags.keys() as usize * (KEY_BYTES + VALUE_BYTES) / TIMES;
    let page_bytes = flags.page_bytes.first().copied().unwrap_or(StoreOptions::default().page_bytes);
    let store = StoreOptions { frame_bytes_max: cache, ..options_of(page_bytes) };
    let options = ReplicaOptions::with_cache("Mesh", store);
    let directory = place.directory("mesh")?;
    let mut systems: Vec<Box<dyn InFlight>> = vec![Box::new(Replica::create(&directory, &options)?)];
    if flags.wants_peer(PeerName::RocksDb) {
        systems.extend(peers::open_direct(place.path(), cache)?);
    }
    let mut data = Data::new(flags.keys(), flags.seed);
    let keys = data.load_order();
    for system in &mut systems {
        show(&format!("loading {}", system.name()));
        for keys in keys.chunks(LOAD_BATCH) {
            system.put(&data.puts(keys))?;
        }
        show(&format!("{} is left alone", system.name()));
        system.quiet(flags.quiet())?;
        system.tidy()?;
    }
    let work = "random get from data of four times the memory, 16 in flight";
    let mut rounds = Rounds::new(work, Unit::OperationsPerSecond);
    let file = directory.join(FileId::Store.name());
    for round in 0..flags.rounds() {
        show(&format!("{work}: round {} of {}", round + 1, flags.rounds()));
        let seed = flags.seed + round as u64;
        rounds.add(DEVICE, random_reads(&file, page_bytes, IN_FLIGHT, flags.slice(), seed)?);
        for system in &mut systems {
            let (mut operations, mut time) = (0, Duration::ZERO);
            while time < flags.slice() {
                let keys = data.keys(GETS);
                let start = Instant::now();
                system.gets_in_flight(&keys, IN_FLIGHT)?;
                time += start.elapsed();
                operations += GETS as u64;
            }
            rounds.add(system.name(), as_f64(operations) / time.as_secs_f64());
        }
    }
    rounds.note(format!(
        "Cache of {} MiB; the device reads {page_bytes} bytes at a time from Mesh's own file",
        cache >> 20
    ));
    Ok(Some(rounds.row().bar(&["RocksDB"], Bound::AtLeast(1.2)).bar(&[DEVICE], Bound::AtLeast(0.7))))
}
