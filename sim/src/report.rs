//! What a run came to, in figures that add up: of one run, or of all runs of a night.
//!
//! Invariant: reporting changes nothing; no run reads its report.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::time::Duration;

use crate::disk::{Crash, DiskStatistics};
use crate::history::{History, Outcome};
use crate::net::{Direction, NetStatistics};

/// The figures of a run, or of several.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Report {
    /// Runs, failed ones included.
    pub runs: u64,
    /// True time that passed in them. Of a run that panicked it is not known, and counts as none.
    pub simulated: Duration,
    /// Steps that they took.
    pub events: u64,
    /// Operations of clients, by what became of them. A range counts as a get of each of its keys.
    pub operations: Counts<Ending>,
    /// What was done to the cluster.
    pub faults: Counts<Fault>,
}

/// How many of each of a fixed list of kinds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counts<K>(BTreeMap<K, u64>);

/// A fixed list of kinds.
pub trait Kind: Copy + Ord + 'static {
    /// All of them, in the order in which they are shown.
    const ALL: &'static [Self];

    /// What it is called, in words joined by hyphens.
    fn name(self) -> &'static str;
}

macro_rules! kinds {
    ($(#[$about:meta])* $list:ident { $($kind:ident = $name:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum $list { $(#[doc = $name] $kind,)* }

        impl Kind for $list {
            const ALL: &'static [Self] = &[$(Self::$kind,)*];

            fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }
        }
    };
}

kinds! {
    /// What became of an operation.
    Ending {
        Written = "written",
        NothingRemoved = "nothing-removed",
        Found = "found",
        Absent = "absent",
        NotApplied = "not-applied",
        Unknown = "unknown",
        Unanswered = "unanswered",
    }
}

kinds! {
    /// What is done to a cluster. A line here is all that a new kind of fault needs to be counted and shown.
    Fault {
        ProcessCrash = "process-crashes",
        PowerLoss = "power-losses",
        OrderlyStop = "orderly-stops",
        Ambush = "crashes-at-their-moment",
        EveryoneAtOnce = "everyone-at-once",
        RollingRestart = "rolling-restarts",
        Pause = "paused-processes",
        Wipe = "wiped-directories",
        Partition = "partitions",
        OneWayPartition = "one-way-partitions",
        FrameLost = "frames-lost",
        FrameBlocked = "frames-blocked",
        FrameBroken = "frames-lost-with-their-connection",
        FrameDuplicated = "frames-duplicated",
        FrameReordered = "frames-reordered",
        ConnectionReset = "connections-reset",
        FlappingLink = "flapping-links",
        SlowLink = "slow-links",
        ClockJump = "clock-jumps",
        SlowDisk = "slow-disks",
        FullDisk = "full-disks",
        NoSpace = "operations-refused-for-space",
        DeviceError = "device-errors",
        OperationSwallowed = "disk-operations-cut-short",
        WriteDropped = "writes-dropped",
        WriteTorn = "writes-torn",
        NameDropped = "file-names-dropped",
        WriteLost = "writes-lost",
        WriteMisdirected = "writes-misdirected",
        StoredDamage = "stored-bytes-damaged",
        LeftOut = "nodes-left-out-in-the-end",
    }
}

impl Fault {
    /// The crash as a fault.
    #[must_use]
    pub const fn of_crash(crash: Crash) -> Self {
        match crash {
            Crash::Process => Self::ProcessCrash,
            Crash::Power => Self::PowerLoss,
        }
    }

    /// The partition as a fault.
    #[must_use]
    pub const fn of_partition(direction: Direction) -> Self {
        match direction {
            Direction::Both => Self::Partition,
            Direction::OneWay => Self::OneWayPartition,
        }
    }
}

impl<K: Kind> Counts<K> {
    /// One more of a kind.
    pub fn count(&mut self, kind: K) {
        self.add(kind, 1);
    }

    /// Some more of a kind.
    pub fn add(&mut self, kind: K, more: u64) {
        *self.0.entry(kind).or_default() += more;
    }

    /// How many of a kind.
    #[must_use]
    pub fn get(&self, kind: K) -> u64 {
        self.0.get(&kind).copied().unwrap_or(0)
    }

    /// Every kind and how many of it, also those of which there are none: what never happens is worth knowing.
    pub fn iter(&self) -> impl Iterator<Item = (K, u64)> + '_ {
        K::ALL.iter().map(|&kind| (kind, self.get(kind)))
    }

    /// How many in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Kind> AddAssign<&Self> for Counts<K> {
    fn add_assign(&mut self, other: &Self) {
        other.0.iter().for_each(|(&kind, &more)| self.add(kind, more));
    }
}

impl AddAssign<&Self> for Report {
    fn add_assign(&mut self, other: &Self) {
        self.runs += other.runs;
        self.simulated += other.simulated;
        self.events += other.events;
        self.operations += &other.operations;
        self.faults += &other.faults;
    }
}

impl Report {
    /// Counts what clients were answered.
    pub fn add_history(&mut self, history: &History) {
        for operation in history.operations() {
            self.operations.count(match operation.response.map(|response| response.outcome) {
                Some(Outcome::Written(_)) => Ending::Written,
                Some(Outcome::NothingRemoved) => Ending::NothingRemoved,
                Some(Outcome::Found(..)) => Ending::Found,
                Some(Outcome::Absent) => Ending::Absent,
                Some(Outcome::NotApplied) => Ending::NotApplied,
                Some(Outcome::Unknown) => Ending::Unknown,
                None => Ending::Unanswered,
            });
        }
    }

    /// Counts what a network did to frames.
    pub fn add_network(&mut self, network: &NetStatistics) {
        let faults = [
            (Fault::FrameLost, network.lost),
            (Fault::FrameBlocked, network.blocked),
            (Fault::FrameBroken, network.broken),
            (Fault::FrameDuplicated, network.duplicated),
            (Fault::FrameReordered, network.reordered),
            (Fault::ConnectionReset, network.resets),
        ];
        faults.into_iter().for_each(|(fault, count)| self.faults.add(fault, count));
    }

    /// Counts what a disk did to operations and to what is stored.
    pub fn add_disk(&mut self, disk: &DiskStatistics) {
        let faults = [
            (Fault::NoSpace, disk.no_space),
            (Fault::DeviceError, disk.device_errors),
            (Fault::OperationSwallowed, disk.swallowed),
            (Fault::WriteDropped, disk.dropped),
            (Fault::WriteTorn, disk.torn),
            (Fault::NameDropped, disk.names_dropped),
            (Fault::WriteLost, disk.writes_lost),
            (Fault::WriteMisdirected, disk.writes_misdirected),
            (Fault::StoredDamage, disk.damaged),
        ];
        faults.into_iter().for_each(|(fault, count)| self.faults.add(fault, count));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::drawing;

    #[test]
    fn reports_add_up() {
        let mut night = Report::default();
        for seconds in [2, 3] {
            let mut run = Report { runs: 1, simulated: Duration::from_secs(seconds), ..Report::default() };
            run.events = 10;
            run.faults.count(Fault::Wipe);
            run.add_network(&NetStatistics { lost: seconds, ..NetStatistics::default() });
            run.add_disk(&DiskStatistics { torn: 7, ..DiskStatistics::default() });
            night += &run;
        }
        assert_eq!((night.runs, night.simulated, night.events), (2, Duration::from_secs(5), 20));
        let faults = [Fault::Wipe, Fault::FrameLost, Fault::WriteTorn, Fault::ClockJump];
        assert_eq!(faults.map(|fault| night.faults.get(fault)), [2, 5, 14, 0]);
        assert_eq!(night.faults.total(), 21);
    }

    #[test]
    fn operations_are_counted_by_what_became_of_them() {
        let mut report = Report::default();
        report.add_history(&drawing::history(
            "put 1     |--|
             put 2 ?      |---->
             get 1         |--|
             get -   |--|",
        ));
        let some = report.operations.iter().filter(|(_, count)| *count > 0).collect::<Vec<_>>();
        let kinds = [Ending::Written, Ending::Found, Ending::Absent, Ending::Unknown];
        assert_eq!(some, kinds.map(|kind| (kind, 1)));
    }

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        let names: BTreeSet<&str> = Fault::ALL.iter().map(|fault| fault.name()).collect();
        assert_eq!(names.len(), Fault::ALL.len());
        assert!(names.iter().all(|name| name.chars().all(|it| it.is_ascii_lowercase() || it == '-')));
    }
}
