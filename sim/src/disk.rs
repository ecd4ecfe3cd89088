//! The simulated disk of one node: what the I/O seam allows a disk to do, and no less.
//!
//! Every directory has an owner; its files are those of [`FileId`]. [`SimDisk::submit`] takes an operation and says how
//! long it takes; the harness calls [`SimDisk::complete`] when that time has passed, and only then the operation has
//! its effect. A crash may come in between.
//!
//! Invariants:
//! - What the seam calls durable survives every crash, byte by byte: a completed write to a file that is durable on
//!   completion; a completed write that a completed [`IoOp::Sync`] covers; a name that a completed
//!   [`IoOp::SyncDirectory`] covers. "Covers" means: completed before the sync was submitted.
//! - Everything else is drawn at a crash: each write not durable is kept, dropped or torn between any two
//!   [`TEAR_BYTES`], each by itself; a truncation is kept or dropped, and then what it cut off is there again; so is the part of
//!   an allocation that was refused, and what gave it back; each change of a name is kept or dropped, never a later one of a file
//!   without the earlier ones.
//! - A read sees every write that completed before it was submitted. Of a write in flight it sees old or new, drawn for
//!   each [`TEAR_BYTES`].
//! - [`Crash::Process`] keeps what was completed *visible* and does not make it *durable*: whoever recovers from it and
//!   relies on it without a sync loses it at the next loss of power.
//! - A failed sync saves nothing, and no later sync saves what it failed to save.
//!
//! Checked, as bugs of the caller (panics): unaligned operations, a token used twice, two writes in flight over the
//! same bytes, or one behind the new end of a file that is shortened (their outcome would be anyone's guess).
//!
//! Deliberately absent: queues inside the device (each operation's latency is drawn by itself), garbage in a torn sector
//! (a sector of [`TEAR_BYTES`] is written whole or not at all), writes of a killed process that land after its restart.

mod crash;
mod file;
mod in_flight;
mod names;
mod options;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use mesh_base::io::{Completion, FileId, IoError, IoErrorKind, IoOp, IoValue, Submission, WriteDurability};
use mesh_base::limits::SECTOR_BYTES;
use mesh_base::prng::Prng;

use self::file::{ChangeNo, File};
use self::in_flight::{InFlight, Operations};
use self::names::{InodeNo, NameChange, Names};
pub use self::options::{ArmedFault, Crash, Damage, DiskOptions, DiskStatistics};

/// The unit that a crash keeps or drops: the atomic write of the worst common device.
pub const TEAR_BYTES: usize = 512;

/// Names one operation under way, for ever: a crash leaves numbers that no operation has any more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DiskOpNo(u64);

/// An operation that was submitted: call [`SimDisk::complete`] with `op` after `delay`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scheduled {
    /// Which.
    pub op: DiskOpNo,
    /// How long it takes.
    pub delay: Duration,
}

/// The disk of one node, with directories owned by `O`.
#[derive(Clone, Debug)]
pub struct SimDisk<O> {
    options: DiskOptions,
    prng: Prng,
    directories: BTreeMap<O, Directory>,
    in_flight: Operations<O>,
    next_op: u64,
    slowdown: u32,
    armed: Vec<(O, FileId, ArmedFault)>,
    /// The directories in which a fault changed what is stored.
    damaged: BTreeSet<O>,
    statistics: DiskStatistics,
}

#[derive(Clone, Default, Debug)]
struct Directory {
    names: Names,
    files: BTreeMap<InodeNo, File>,
}

/// Whether what was taken of the space for a file is given back when there is not enough.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum GiveBack {
    Yes,
    No,
}

/// A copy of a directory, as an operator keeps one.
#[derive(Clone, Debug)]
pub struct DirectoryCopy {
    directory: Directory,
    is_damaged: bool,
}

impl<O: Copy + Ord + fmt::Debug> SimDisk<O> {
    /// An empty disk.
    #[must_use]
    pub fn new(options: DiskOptions, prng: Prng) -> Self {
        Self {
            options,
            prng,
            directories: BTreeMap::new(),
            in_flight: Operations::new(),
            next_op: 1,
            slowdown: 1,
            armed: Vec::new(),
            damaged: BTreeSet::new(),
            statistics: DiskStatistics::default(),
        }
    }

    /// Takes an operation on the files of `owner`.
    ///
    /// # Panics
    /// On misuse: see the module.
    pub fn submit(&mut self, owner: O, submission: Submission) -> Scheduled {
        let Submission { token, op } = submission;
        assert_aligned(&op);
        let delay = self.latency(&op);
        let target = self.resolve(owner, &op);
        let directory = self.directories.entry(owner).or_default();
        let before = match (&op, target.and_then(|inode| directory.files.get(&inode))) {
            (IoOp::SyncDirectory, _) => directory.names.next_change(),
            (_, Some(file)) => file.next_change(),
            (_, None) => ChangeNo::default(),
        };
        let mut operation = InFlight { owner, token, op, target, before, early: None };
        let is_read = matches!(operation.op, IoOp::Read { .. } | IoOp::List);
        if is_read && self.prng.chance_per_mille(500) {
            operation.early = self.look(&operation).ok();
        }
        self.statistics.submitted += 1;
        let op = DiskOpNo(self.next_op);
        self.next_op += 1;
        self.in_flight.insert(op, operation);
        Scheduled { op, delay }
    }

    /// An operation's time has come: it happens now. `None` when a crash or a wipe swallowed it.
    pub fn complete(&mut self, op: DiskOpNo) -> Option<(O, Completion)> {
        let operation = self.in_flight.remove(op)?;
        self.statistics.completed += 1;
        let (owner, token) = (operation.owner, operation.token);
        let result = self.perform(operation);
        match result.as_ref().map_err(|error| error.kind) {
            Err(IoErrorKind::NoSpace) => self.statistics.no_space += 1,
            Err(IoErrorKind::Device) => self.statistics.device_errors += 1,
            _ => {}
        }
        Some((owner, Completion { token, result }))
    }

    /// An operation in flight, and whose files it is about. `None` when a crash or a wipe swallowed it.
    #[must_use]
    pub fn find(&self, op: DiskOpNo) -> Option<(O, &IoOp)> {
        self.in_flight.get(op).map(|operation| (operation.owner, &operation.op))
    }

    /// Operations in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Empties the disk, as when it is replaced. What is in flight never completes.
    pub fn wipe(&mut self) {
        self.in_flight = Operations::new();
        self.directories.clear();
        self.armed.clear();
        self.damaged.clear();
    }

    /// Empties one directory, durably. What is in flight there never completes.
    pub fn wipe_directory(&mut self, owner: O) {
        self.in_flight.forget(owner);
        self.directories.remove(&owner);
        self.damaged.remove(&owner);
        self.armed.retain(|(armed, ..)| *armed != owner);
    }

    /// A copy of a directory in which nothing is under way.
    #[must_use]
    pub fn copy_of(&self, owner: O) -> Option<DirectoryCopy> {
        let directory = self.directories.get(&owner)?.clone();
        Some(DirectoryCopy { directory, is_damaged: self.is_damaged(owner) })
    }

    /// Puts a copy in a directory's place.
    pub fn put_back(&mut self, owner: O, copy: DirectoryCopy) {
        self.wipe_directory(owner);
        self.directories.insert(owner, copy.directory);
        if copy.is_damaged {
            self.damaged.insert(owner);
        }
    }

    /// Damages a byte that is stored, or the sector around it. Returns whether there is such a byte.
    pub fn corrupt(&mut self, owner: O, file: FileId, offset: u64, damage: Damage) -> bool {
        let Some(directory) = self.directories.get_mut(&owner) else { return false };
        let Some(target) = directory.names.find(file).and_then(|inode| directory.files.get_mut(&inode))
        else {
            return false;
        };
        if offset >= target.length() {
            return false;
        }
        target.damage(offset, damage, &mut self.prng);
        self.damaged.insert(owner);
        self.statistics.damaged += 1;
        true
    }

    /// Damages a byte of a file that is not a hole, or the sector around it: a drawn one. Returns whether there is any.
    pub fn corrupt_somewhere(&mut self, owner: O, file: FileId, damage: Damage) -> bool {
        let offset = self.directories.get(&owner).and_then(|directory| {
            let file = directory.files.get(&directory.names.find(file)?)?;
            file.draw_stored(&mut self.prng)
        });
        offset.is_some_and(|offset| self.corrupt(owner, file, offset, damage))
    }

    /// Lets the next operation of the fault's kind on a file go wrong.
    pub fn arm(&mut self, owner: O, file: FileId, fault: ArmedFault) {
        self.armed.push((owner, file, fault));
    }

    /// Makes every operation submitted from now on take this many times as long; 1 is the usual speed.
    pub fn set_slowdown(&mut self, factor: u32) {
        self.slowdown = factor.max(1);
    }

    /// Changes the size of the disk in bytes. What is stored stays, even if it is more.
    pub const fn set_capacity_bytes(&mut self, bytes: u64) {
        self.options.capacity_bytes = bytes;
    }

    /// Makes `per_million` of a million reads, writes and syncs fail from now on.
    pub const fn set_device_errors(&mut self, per_million: u64) {
        self.options.device_errors_per_million = per_million;
    }

    /// Bytes that the files take. A hole counts like data; a removed file does not.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.directories.values().flat_map(Directory::listing).map(|(_, length)| length).sum()
    }

    /// Who has a directory.
    pub fn owners(&self) -> impl Iterator<Item = O> + '_ {
        self.directories.keys().copied()
    }

    /// The files of a directory and their lengths in bytes, as a listing now would show them.
    #[must_use]
    pub fn files(&self, owner: O) -> Vec<(FileId, u64)> {
        self.directories.get(&owner).map(|directory| directory.listing().collect()).unwrap_or_default()
    }

    /// The bytes of a file, as a read now would show them were nothing in flight.
    #[must_use]
    pub fn contents(&self, owner: O, file: FileId) -> Option<Vec<u8>> {
        let directory = self.directories.get(&owner)?;
        let file = directory.files.get(&directory.names.find(file)?)?;
        Some(file.read(0..file.length()))
    }

    /// Some bytes of a file, as a read now would show them were nothing in flight: whole sectors, fewer at its end.
    #[must_use]
    pub fn bytes(&self, owner: O, file: FileId, offset: u64, length: usize) -> Option<Vec<u8>> {
        let directory = self.directories.get(&owner)?;
        let file = directory.files.get(&directory.names.find(file)?)?;
        let end = offset.saturating_add(length as u64).min(file.length());
        Some(file.read(offset.min(end)..end))
    }

    /// Whether bytes of a directory's files were damaged, written elsewhere, or never written, by a fault: what is
    /// stored there is not what was written.
    #[must_use]
    pub fn is_damaged(&self, owner: O) -> bool {
        self.damaged.contains(&owner)
    }

    /// What happened so far.
    #[must_use]
    pub const fn statistics(&self) -> &DiskStatistics {
        &self.statistics
    }

    fn latency(&mut self, op: &IoOp) -> Duration {
        let (latency, bytes) = match op {
            IoOp::Write { data, .. } => (&self.options.write, data.len()),
            IoOp::Read { length, .. } => (&self.options.read, *length),
            IoOp::Sync { .. } | IoOp::SyncDirectory => (&self.options.sync, 0),
            _ => (&self.options.metadata, 0),
        };
        let transfer = bytes as u128 * 1_000_000_000 / u128::from(self.options.bytes_per_second.max(1));
        let transfer = Duration::from_nanos(u64::try_from(transfer).unwrap_or(u64::MAX));
        latency.draw(&mut self.prng).saturating_add(transfer).saturating_mul(self.slowdown)
    }

    /// The file that an operation is about. While its name is being taken away, either of both is seen.
    fn resolve(&mut self, owner: O, op: &IoOp) -> Option<InodeNo> {
        let name = match op {
            IoOp::Create { .. } | IoOp::Rename { .. } | IoOp::Remove { .. } => return None,
            _ => op.file()?,
        };
        let inode = self.directories.get(&owner)?.names.find(name)?;
        let is_going = self.in_flight.takes_away(owner, name);
        let is_gone = is_going && self.prng.chance_per_mille(500);
        (!is_gone).then_some(inode)
    }

    fn perform(&mut self, operation: InFlight<O>) -> Result<IoValue, IoError> {
        let file = operation.op.file();
        let fault = file.and_then(|file| self.take_fault(operation.owner, file, &operation.op));
        match operation.op {
            IoOp::Read { .. } if fault.is_some() => Err(failure(&operation.op, IoErrorKind::Device)),
            IoOp::List | IoOp::Read { .. } => match operation.early {
                Some(value) => Ok(value),
                None => self.look(&operation),
            },
            IoOp::Create { .. } | IoOp::Rename { .. } | IoOp::Remove { .. } => self.change_name(&operation),
            IoOp::Write { .. } => self.write(&operation, fault),
            IoOp::Allocate { offset, length, .. } => {
                let end = offset + length;
                if let Err(error) = self.reserve(&operation, end) {
                    self.allocate_in_part(&operation, GiveBack::Yes);
                    return Err(error);
                }
                self.target(&operation)?.allocate(end);
                Ok(IoValue::Done)
            }
            IoOp::Truncate { length, .. } => {
                self.assert_no_write_behind(&operation, length);
                self.target(&operation)?.truncate(length);
                Ok(IoValue::Done)
            }
            IoOp::Sync { .. } if fault.is_some() => {
                let before = operation.before;
                self.target(&operation)?.fail_sync(before);
                Err(failure(&operation.op, IoErrorKind::Device))
            }
            IoOp::Sync { .. } => {
                let before = operation.before;
                self.target(&operation)?.sync(before);
                Ok(IoValue::Done)
            }
            IoOp::SyncDirectory => {
                self.directories.entry(operation.owner).or_default().names.sync(operation.before);
                self.collect(operation.owner);
                Ok(IoValue::Done)
            }
        }
    }

    /// What a read or listing shows now.
    fn look(&mut self, operation: &InFlight<O>) -> Result<IoValue, IoError> {
        let IoOp::Read { offset, length, .. } = operation.op else {
            return Ok(IoValue::Listing(self.files(operation.owner)));
        };
        let file = self.target(operation)?;
        let end = offset.saturating_add(length as u64).min(file.length());
        let range = offset.min(end)..end;
        if !file.is_readable(range.clone()) {
            return Err(failure(&operation.op, IoErrorKind::Device));
        }
        let mut bytes = file.read(range.clone());
        let Some(inode) = operation.target else { return Err(failure(&operation.op, IoErrorKind::NotFound)) };
        for write in self.in_flight.writes_over(operation.owner, inode, &range) {
            write.show_through(&mut bytes, range.clone(), &mut self.prng);
        }
        Ok(IoValue::Read(Bytes::from(bytes)))
    }

    fn write(&mut self, operation: &InFlight<O>, fault: Option<ArmedFault>) -> Result<IoValue, IoError> {
        let Some(mut write) = operation.as_write() else {
            return Err(failure(&operation.op, IoErrorKind::NotFound));
        };
        self.reserve(operation, write.range().end)?;
        let mut prng = self.prng.fork();
        if matches!(fault, Some(ArmedFault::LoseWrite | ArmedFault::MisdirectWrite)) {
            self.damaged.insert(operation.owner);
        }
        let file = self.target(operation)?;
        match fault {
            Some(ArmedFault::FailWrite) => {
                let fate = crash::Fate::draw(write.tears(), &mut prng);
                file.land_abandoned(&write, &fate);
                return Err(failure(&operation.op, IoErrorKind::Device));
            }
            Some(ArmedFault::LoseWrite) => return Ok(IoValue::Done),
            Some(ArmedFault::MisdirectWrite) => {
                let blocks = (file.length().saturating_sub(write.data.len() as u64)) / SECTOR_BYTES as u64;
                write.offset = prng.range(0..blocks + 1) * SECTOR_BYTES as u64;
            }
            _ => {}
        }
        match write.durability {
            WriteDurability::OnCompletion => file.write_durable(&write),
            WriteDurability::OnSync => file.write_cached(&write),
        }
        self.statistics.written_bytes += write.data.len() as u64;
        Ok(IoValue::Done)
    }

    fn change_name(&mut self, operation: &InFlight<O>) -> Result<IoValue, IoError> {
        let directory = self.directories.entry(operation.owner).or_default();
        match directory.change_of(&operation.op) {
            Ok(Some(change)) => directory.apply(change),
            Ok(None) => {}
            Err(kind) => return Err(failure(&operation.op, kind)),
        }
        Ok(IoValue::Done)
    }

    /// Refuses an operation that would grow the disk's files beyond its capacity.
    fn reserve(&mut self, operation: &InFlight<O>, end: u64) -> Result<(), IoError> {
        let growth = end.saturating_sub(self.target(operation)?.length());
        if growth > 0 && self.used_bytes() + growth > self.options.capacity_bytes {
            return Err(failure(&operation.op, IoErrorKind::NoSpace));
        }
        Ok(())
    }

    /// A file system without space may have taken some of it for a range before it says so. The host gives that back, unless
    /// its process ends in between.
    fn allocate_in_part(&mut self, operation: &InFlight<O>, give_back: GiveBack) {
        let room = self.options.capacity_bytes.saturating_sub(self.used_bytes());
        let part = self.prng.range(0..room / SECTOR_BYTES as u64 + 1) * SECTOR_BYTES as u64;
        let Ok(file) = self.target(operation) else { return };
        let before = file.length();
        file.allocate(before + part);
        if give_back == GiveBack::Yes {
            file.truncate(before);
            self.assert_no_write_behind(operation, before);
        }
    }

    /// What such a write would leave behind would be anyone's guess.
    fn assert_no_write_behind(&self, operation: &InFlight<O>, end: u64) {
        let Some(inode) = operation.target else { return };
        let behind = self.in_flight.writes_over(operation.owner, inode, &(end..u64::MAX));
        assert!(behind.is_empty(), "{:?}: truncated to {end} under a write", operation.owner);
    }

    fn target(&mut self, operation: &InFlight<O>) -> Result<&mut File, IoError> {
        let inode = operation.target;
        self.directories
            .get_mut(&operation.owner)
            .and_then(|directory| directory.files.get_mut(&inode?))
            .ok_or_else(|| failure(&operation.op, IoErrorKind::NotFound))
    }

    fn take_fault(&mut self, owner: O, file: FileId, op: &IoOp) -> Option<ArmedFault> {
        let usual = ArmedFault::failure_of(op)?;
        let armed = self.armed.iter().position(|&(armed_owner, armed_file, fault)| {
            armed_owner == owner && armed_file == file && fault.concerns(op)
        });
        if let Some(position) = armed {
            let fault = self.armed.remove(position).2;
            match fault {
                ArmedFault::LoseWrite => self.statistics.writes_lost += 1,
                ArmedFault::MisdirectWrite => self.statistics.writes_misdirected += 1,
                // Counted as failures when they complete.
                ArmedFault::FailRead | ArmedFault::FailWrite | ArmedFault::FailSync => {}
            }
            return Some(fault);
        }
        let rate = self.options.device_errors_per_million;
        (rate > 0 && self.prng.range(0..1_000_000) < rate).then_some(usual)
    }

    /// Forgets the files that no name leads to any more, now or after any crash.
    fn collect(&mut self, owner: O) {
        let Some(directory) = self.directories.get_mut(&owner) else { return };
        let Directory { names, files } = directory;
        let needed: BTreeSet<InodeNo> = names.reachable().chain(self.in_flight.targets(owner)).collect();
        files.retain(|inode, _| needed.contains(inode));
    }
}

impl Directory {
    fn listing(&self) -> impl Iterator<Item = (FileId, u64)> + '_ {
        self.names.iter().map(|(name, inode)| (name, self.files.get(&inode).map_or(0, File::length)))
    }

    /// What an operation would do to the names as they are, if it would do anything.
    fn change_of(&self, op: &IoOp) -> Result<Option<NameChange>, IoErrorKind> {
        let find = |file: FileId| self.names.find(file);
        match *op {
            IoOp::Create { file } if find(file).is_some() => Err(IoErrorKind::Exists),
            IoOp::Create { file } => Ok(Some(NameChange::Create { file, inode: self.names.next_inode() })),
            IoOp::Rename { from, to } => {
                let inode = find(from).ok_or(IoErrorKind::NotFound)?;
                Ok((from != to).then_some(NameChange::Rename { from, to, inode }))
            }
            IoOp::Remove { file } => Ok(find(file).map(|inode| NameChange::Remove { file, inode })),
            _ => Ok(None),
        }
    }

    fn apply(&mut self, change: NameChange) {
        if let NameChange::Create { inode, .. } = change {
            let previous = self.files.insert(inode, File::default());
            assert!(previous.is_none(), "{inode:?} used twice");
        }
        self.names.apply(change);
    }
}

fn failure(op: &IoOp, kind: IoErrorKind) -> IoError {
    let detail = match kind {
        IoErrorKind::NoSpace => "no space left on the simulated device",
        IoErrorKind::NotFound => "no such file on the simulated device",
        IoErrorKind::Exists => "the file exists on the simulated device",
        IoErrorKind::Device => "the simulated device failed",
    };
    IoError { kind, verb: op.verb(), file: op.file(), detail: detail.to_owned() }
}

fn assert_aligned(op: &IoOp) {
    let unit = SECTOR_BYTES as u64;
    let (offset, length) = match op {
        IoOp::Allocate { offset, length, .. } => (*offset, (*length).max(unit)),
        IoOp::Truncate { length, .. } => (*length, unit),
        IoOp::Write { offset, data, .. } => (*offset, data.len() as u64),
        IoOp::Read { offset, length, .. } => (*offset, *length as u64),
        _ => return,
    };
    assert!(
        offset.is_multiple_of(unit) && length.is_multiple_of(unit) && length > 0,
        "unaligned {}",
        op.verb()
    );
}

#[cfg(test)]
mod tests;
