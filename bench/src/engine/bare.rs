//! What the device does without a store on top: the roofs of the table, measured through the same ring.

use std::fs::File;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mesh_base::limits::SECTOR_BYTES;
use mesh_base::prng::Prng;

use super::files::{Aligned, Durability, Presence, Request, Ring, Written, open_direct};
use super::system::{Run, failed};

const NAME: &str = "the bare device";
/// The file that is appended to.
pub(crate) const LOG: &str = "bare.log";
/// Bytes of the file that is appended to; the appends go round and round in it.
const LOG_BYTES: u64 = 64 << 20;
/// Bytes of the file that the writer beside an appender writes into.
const PAGES_BYTES: u64 = 256 << 20;
/// Bytes of one write of zeros.
const FILL_BYTES: usize = 1 << 20;
/// Bytes that the writer beside an appender has in flight: as many as a checkpoint.
const WRITER_BYTES_IN_FLIGHT: u64 = mesh_base::limits::CHECKPOINT_BYTES_IN_FLIGHT_MAX as u64;

/// Appends with `O_DSYNC` into space that was written before, as a log does.
pub(crate) struct Appender {
    ring: Ring<Owner>,
    log: Rc<File>,
    at: u64,
}

enum Owner {
    Append(Instant),
    Page(u64),
    Sync,
}

impl Appender {
    /// Makes its file in a directory.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn new(directory: &Path) -> Run<Self> {
        let make = || -> io::Result<Self> {
            let log = filled(&directory.join(LOG), LOG_BYTES, Durability::OnCompletion)?;
            Ok(Self { ring: Ring::new()?, log: Rc::new(log), at: 0 })
        };
        make().map_err(failed(NAME))
    }

    /// One append after the other for a time; answers how many there were in a second.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn one_by_one(&mut self, bytes: usize, time: Duration) -> Run<f64> {
        self.deep(bytes, 1, time).map(|rate| rate / as_f64(bytes as u64))
    }

    /// Appends with so many in flight; answers bytes in a second.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn deep(&mut self, bytes: usize, depth: usize, time: Duration) -> Run<f64> {
        let start = Instant::now();
        let times = self.times(bytes, depth, time)?;
        Ok(as_f64(times.len() * bytes as u64) / start.elapsed().as_secs_f64())
    }

    /// Appends with so many in flight; answers how long each took, in nanoseconds.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn times(&mut self, bytes: usize, depth: usize, time: Duration) -> Run<Histogram<u64>> {
        let (mut times, start) = (histogram(), Instant::now());
        while self.ring.in_flight() < depth {
            self.append(Aligned::zeroed(sectors(bytes)))?;
        }
        while let Some(ended) = self.ring.wait().map_err(failed(NAME))? {
            ended.result.map_err(failed(NAME))?;
            if let (Owner::Append(begun), Request::Write { buffer, .. }) = (ended.owner, ended.request) {
                times.saturating_record(nanoseconds(begun.elapsed()));
                if start.elapsed() < time {
                    self.append(buffer)?;
                }
            }
        }
        Ok(times)
    }

    fn append(&mut self, buffer: Aligned) -> Run<()> {
        let bytes = buffer.len() as u64;
        if self.at + bytes > LOG_BYTES {
            self.at = 0;
        }
        let request = Request::Write { offset: self.at, buffer };
        self.at += bytes;
        self.ring.submit(&self.log, request, Owner::Append(Instant::now())).map_err(failed(NAME))
    }
}

/// Appends while pages are written beside it, as a store's checkpoints are.
pub(super) struct BusyAppender {
    appender: Appender,
    pages: Rc<File>,
    prng: Prng,
}

impl BusyAppender {
    /// Makes its files in a directory.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn new(directory: &Path) -> Run<Self> {
        let pages = filled(&directory.join("bare.pages"), PAGES_BYTES, Durability::OnSync);
        let pages = Rc::new(pages.map_err(failed(NAME))?);
        Ok(Self { appender: Appender::new(directory)?, pages, prng: Prng::new(1) })
    }

    /// Appends sectors one by one while pages are written beside it: as many bytes in a second, in as many writes and syncs, as
    /// a store wrote. Answers how long the appends took, in nanoseconds.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn beside(&mut self, load: Written, time: Duration) -> Run<Histogram<u64>> {
        let mut writer = PageWriter::new(load, time);
        let mut times = histogram();
        let start = Instant::now();
        self.appender.append(Aligned::zeroed(SECTOR_BYTES))?;
        loop {
            if start.elapsed() < time {
                self.write_pages(&mut writer, start.elapsed())?;
            }
            let Some(ended) = self.appender.ring.wait().map_err(failed(NAME))? else { return Ok(times) };
            ended.result.map_err(failed(NAME))?;
            match (ended.owner, ended.request) {
                (Owner::Append(begun), Request::Write { buffer, .. }) => {
                    times.saturating_record(nanoseconds(begun.elapsed()));
                    if start.elapsed() < time {
                        self.appender.append(buffer)?;
                    }
                }
                (Owner::Page(bytes), _) => writer.in_flight -= bytes,
                (Owner::Append(_) | Owner::Sync, _) => writer.is_syncing = false,
            }
        }
    }

    fn write_pages(&mut self, writer: &mut PageWriter, elapsed: Duration) -> Run<()> {
        let ring = &mut self.appender.ring;
        while let Some(bytes) = writer.next(elapsed) {
            let buffer = Aligned::zeroed(bytes);
            let places = (PAGES_BYTES - bytes as u64) / SECTOR_BYTES as u64;
            let offset = self.prng.range(0..places) * SECTOR_BYTES as u64;
            let request = Request::Write { offset, buffer };
            ring.submit(&self.pages, request, Owner::Page(bytes as u64)).map_err(failed(NAME))?;
        }
        if writer.sync_is_due() {
            ring.submit(&self.pages, Request::Sync, Owner::Sync).map_err(failed(NAME))?;
        }
        Ok(())
    }
}

/// Spreads a load evenly over a time.
struct PageWriter {
    bytes_per_second: f64,
    bytes_of_a_write: usize,
    bytes_of_a_sync: u64,
    begun: u64,
    synced: u64,
    in_flight: u64,
    is_syncing: bool,
}

impl PageWriter {
    fn new(load: Written, time: Duration) -> Self {
        let of_a_write = load.bytes / load.writes.max(1);
        Self {
            bytes_per_second: as_f64(load.bytes) / time.as_secs_f64(),
            bytes_of_a_write: sectors(usize::try_from(of_a_write).unwrap_or_default()),
            bytes_of_a_sync: load.bytes / load.syncs.max(1),
            begun: 0,
            synced: 0,
            in_flight: 0,
            is_syncing: false,
        }
    }

    /// The bytes of the next write, if it is due.
    fn next(&mut self, elapsed: Duration) -> Option<usize> {
        let due = self.bytes_per_second * elapsed.as_secs_f64();
        let bytes = self.bytes_of_a_write as u64;
        if self.is_syncing || as_f64(self.begun) >= due || self.in_flight + bytes > WRITER_BYTES_IN_FLIGHT {
            return None;
        }
        self.begun += bytes;
        self.in_flight += bytes;
        Some(self.bytes_of_a_write)
    }

    /// Whether a sync begins now: when all of its writes have ended.
    fn sync_is_due(&mut self) -> bool {
        let due = self.begun > self.synced && self.begun - self.synced >= self.bytes_of_a_sync;
        if !due || self.is_syncing || self.in_flight > 0 {
            return false;
        }
        self.synced = self.begun;
        self.is_syncing = true;
        true
    }
}

/// Reads pages of a file at random with so many in flight; answers how many in a second.
///
/// # Errors
/// The system's.
pub(crate) fn random_reads(
    file: &Path,
    page_bytes: usize,
    in_flight: usize,
    time: Duration,
    seed: u64,
) -> Run<f64> {
    let work = || -> io::Result<f64> {
        let file = Rc::new(open_direct(file, Presence::Existing, Durability::OnSync)?);
        let pages = file.metadata()?.len() / page_bytes as u64;
        let mut prng = Prng::new(seed);
        let mut place = || prng.range(0..pages.max(1)) * page_bytes as u64;
        let mut ring = Ring::new()?;
        let start = Instant::now();
        for _ in 0..in_flight {
            ring.submit(&file, Request::Read { offset: place(), buffer: Aligned::zeroed(page_bytes) }, ())?;
        }
        let mut done = 0;
        while let Some(ended) = ring.wait()? {
            ended.result?;
            done += 1;
            if let Request::Read { buffer, .. } = ended.request
                && start.elapsed() < time
            {
                ring.submit(&file, Request::Read { offset: place(), buffer }, ())?;
            }
        }
        Ok(as_f64(done) / start.elapsed().as_secs_f64())
    };
    work().map_err(failed(NAME))
}

/// Latencies up to a minute, with three digits.
#[allow(clippy::expect_used, reason = "the bounds are right")]
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds of a histogram")
}

pub(super) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A new file full of zeros.
fn filled(path: &Path, bytes: u64, durability: Durability) -> io::Result<File> {
    let file = open_direct(path, Presence::New, Durability::OnSync)?;
    let shared = Rc::new(file);
    let mut ring = Ring::new()?;
    for offset in (0..bytes).step_by(FILL_BYTES) {
        ring.submit(&shared, Request::Write { offset, buffer: Aligned::zeroed(FILL_BYTES) }, ())?;
        if let Some(ended) = ring.wait()? {
            ended.result?;
        }
    }
    shared.sync_all()?;
    open_direct(path, Presence::Existing, durability)
}

/// Bytes to the end of the sector, one sector at least.
const fn sectors(bytes: usize) -> usize {
    let sectors = bytes.div_ceil(SECTOR_BYTES);
    if sectors == 0 { SECTOR_BYTES } else { sectors * SECTOR_BYTES }
}

#[allow(clippy::cast_precision_loss, reason = "for rates")]
pub(super) const fn as_f64(count: u64) -> f64 {
    count as f64
}
