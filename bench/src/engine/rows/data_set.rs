//! The rows that share one data set: loaded once into every system, in random order, and then read and written.

use std::time::{Duration, Instant};

use mesh_engine::StoreOptions;

use super::super::bare::{Appender, as_f64};
use super::super::data::Data;
use super::super::flags::{EngineFlags, PeerName, RowName};
use super::super::peers;
use super::super::place::Place;
use super::super::replica::{Replica, ReplicaOptions};
use super::super::resident::options_of;
use super::super::system::{Run, System};
use crate::progress::show;
use crate::table::{Bound, Rounds, Row, Unit};

/// Memory for the cache of each system: the whole data set, several times over.
const CACHE_BYTES_MIN: usize = 1 << 30;
/// Keys of a batch while the data set is loaded.
const LOAD_BATCH: usize = 10_000;
/// Reads between two looks at the clock.
const GETS: usize = 1024;
/// Ranges between two looks at the clock, and keys of each.
const RANGES: usize = 32;
const RANGE_KEYS: u16 = 100;

/// How long the threads of a system may go on after its slice before the next one's begins, and how often it is asked.
const IDLE_WITHIN: Duration = Duration::from_secs(20);
const IDLE_PERIOD: Duration = Duration::from_millis(20);

const PEERS: [PeerName; 4] = [PeerName::Lmdb, PeerName::RocksDb, PeerName::Redb, PeerName::Fjall];

/// Measures those of the rows that are wanted.
///
/// # Errors
/// A system's.
pub(in super::super) fn data_set(flags: &EngineFlags) -> Run<Vec<Row>> {
    let wanted = [RowName::Size, RowName::Get, RowName::Range, RowName::Put64, RowName::Put1];
    if !wanted.iter().any(|row| flags.wants(*row)) {
        return Ok(Vec::new());
    }
    let place = Place::new(&flags.dir)?;
    let mut bench =
        DataSet { flags, data: Data::new(flags.keys(), flags.seed), systems: systems(flags, &place)? };
    bench.load()?;
    let mut rows = Vec::new();
    if flags.wants(RowName::Size) {
        rows.push(bench.size()?);
    }
    for system in &mut bench.systems {
        show(&format!("tidying {}, and reading all of it once", system.name()));
        system.tidy()?;
        system.ranges(&bench.data.starts(1, flags.keys()), flags.keys() as usize)?;
    }
    if flags.wants(RowName::Get) {
        rows.push(bench.get()?);
    }
    if flags.wants(RowName::Range) {
        rows.push(bench.range()?);
    }
    if flags.wants(RowName::Put64) {
        rows.push(bench.put_64()?);
    }
    if flags.wants(RowName::Put1) {
        rows.push(bench.put_1(&place)?);
    }
    Ok(rows)
}

fn systems(flags: &EngineFlags, place: &Place) -> Run<Vec<Box<dyn System>>> {
    let cache = CACHE_BYTES_MIN.max(flags.keys() as usize * 1024);
    let mut systems: Vec<Box<dyn System>> = Vec::new();
    for (at, page_bytes) in flags.page_bytes.iter().enumerate() {
        let name = if at == 0 { "Mesh" } else { name_of(*page_bytes) };
        let store = StoreOptions { frame_bytes_max: cache, ..options_of(*page_bytes) };
        let options = ReplicaOptions::with_cache(name, store);
        systems.push(Box::new(Replica::create(&place.directory(&format!("mesh-{page_bytes}"))?, &options)?));
    }
    for peer in PEERS.into_iter().filter(|peer| flags.wants_peer(*peer)) {
        systems.extend(peers::open(peer, place.path(), cache)?);
    }
    Ok(systems)
}

const fn name_of(page_bytes: usize) -> &'static str {
    match page_bytes {
        4096 => "Mesh, 4 KiB pages",
        8192 => "Mesh, 8 KiB pages",
        _ => "Mesh, 16 KiB pages",
    }
}

/// The systems and what is in them.
struct DataSet<'a> {
    flags: &'a EngineFlags,
    data: Data,
    systems: Vec<Box<dyn System>>,
}

impl DataSet<'_> {
    fn load(&mut self) -> Run<()> {
        let keys = self.data.load_order();
        for system in &mut self.systems {
            let mut loaded = 0;
            for keys in keys.chunks(LOAD_BATCH) {
                system.put(&self.data.puts(keys))?;
                loaded += keys.len();
                show(&format!("loading {}: {loaded} of {} keys", system.name(), self.flags.keys()));
            }
        }
        Ok(())
    }

    fn size(&mut self) -> Run<Row> {
        let quiet = self.flags.quiet();
        let mut rounds = Rounds::new("disk space after a random load and a quiet time", Unit::Bytes);
        for system in &mut self.systems {
            show(&format!("{} is left alone for {:.0} s", system.name(), quiet.as_secs_f64()));
            system.quiet(quiet)?;
            rounds.add(system.name(), as_f64(system.disk_bytes()?));
        }
        rounds.note(format!(
            "Quiet for {:.0} s. Mesh: the page store; its log, kept for others to catch up from, is apart and bounded",
            quiet.as_secs_f64()
        ));
        Ok(rounds.row().bar(&["LMDB", "redb"], Bound::AtMost(0.9)))
    }

    fn get(&mut self) -> Run<Row> {
        let mut rounds = Rounds::new("random get, in memory, one thread", Unit::OperationsPerSecond);
        self.each_round(&mut rounds, |system, data| {
            let keys = data.keys(GETS);
            let start = Instant::now();
            system.gets(&keys)?;
            Ok((keys.len(), start.elapsed()))
        })?;
        let row = rounds.row().bar(&["LMDB"], Bound::AtLeast(1.0));
        Ok(row.bar(&["redb", "fjall", "RocksDB"], Bound::AtLeast(2.0)))
    }

    fn range(&mut self) -> Run<Row> {
        let work = "range of 100 keys from a random start";
        let mut rounds = Rounds::new(work, Unit::OperationsPerSecond);
        self.each_round(&mut rounds, |system, data| {
            let starts = data.starts(RANGES, RANGE_KEYS.into());
            let start = Instant::now();
            system.ranges(&starts, RANGE_KEYS.into())?;
            Ok((starts.len(), start.elapsed()))
        })?;
        Ok(rounds.row().bar(&["RocksDB", "redb"], Bound::AtLeast(1.5)))
    }

    fn put_64(&mut self) -> Run<Row> {
        let work = "durable random put, batches of 64 (keys)";
        let mut rounds = Rounds::new(work, Unit::OperationsPerSecond);
        self.each_round(&mut rounds, |system, data| put(system, data, 64))?;
        Ok(rounds.row().bar(&["RocksDB", "LMDB"], Bound::AtLeast(2.0)))
    }

    fn put_1(&mut self, place: &Place) -> Run<Row> {
        /// What a batch of one takes in the log.
        const APPEND_BYTES: usize = mesh_base::limits::SECTOR_BYTES;
        let mut bare = Appender::new(&place.directory("bare")?)?;
        let slice = self.flags.slice();
        let mut rounds = Rounds::new("durable random put, one by one", Unit::OperationsPerSecond);
        for round in 0..self.flags.rounds() {
            rounds.add("a bare O_DSYNC append", bare.one_by_one(APPEND_BYTES, slice)?);
            self.one_round(round, &mut rounds, |system, data| put(system, data, 1))?;
        }
        rounds.note("A rate of at least 0.77 times the bare append's is a time of at most 1.3 times");
        let row = rounds.row().bar(&["RocksDB"], Bound::AtLeast(1.2));
        Ok(row.bar(&["a bare O_DSYNC append"], Bound::AtLeast(1.0 / 1.3)))
    }

    fn each_round(
        &mut self,
        rounds: &mut Rounds,
        mut work: impl FnMut(&mut dyn System, &mut Data) -> Run<(usize, Duration)>,
    ) -> Run<()> {
        (0..self.flags.rounds()).try_for_each(|round| self.one_round(round, rounds, &mut work))
    }

    /// A slice of every system, another one first each time. What a system's own threads do after its slice is over before the
    /// next one's begins.
    fn one_round(
        &mut self,
        round: usize,
        rounds: &mut Rounds,
        mut work: impl FnMut(&mut dyn System, &mut Data) -> Run<(usize, Duration)>,
    ) -> Run<()> {
        let count = self.systems.len();
        for turn in 0..count {
            let Some(system) = self.systems.get_mut((round + turn) % count) else { continue };
            show(&format!(
                "{}: round {} of {}, {}",
                rounds.work(),
                round + 1,
                self.flags.rounds(),
                system.name()
            ));
            let (mut operations, mut time) = (0, Duration::ZERO);
            while time < self.flags.slice() {
                let (done, took) = work(system.as_mut(), &mut self.data)?;
                operations += done as u64;
                time += took;
            }
            rounds.add(system.name(), as_f64(operations) / time.as_secs_f64());
            until_idle(system.as_ref())?;
        }
        Ok(())
    }
}

fn until_idle(system: &dyn System) -> Run<()> {
    let since = Instant::now();
    while since.elapsed() < IDLE_WITHIN && system.is_busy()? {
        std::thread::sleep(IDLE_PERIOD);
    }
    Ok(())
}

fn put(system: &mut dyn System, data: &mut Data, batch: usize) -> Run<(usize, Duration)> {
    let keys = data.keys(batch);
    let puts = data.puts(&keys);
    let start = Instant::now();
    system.put(&puts)?;
    Ok((puts.len(), start.elapsed()))
}
