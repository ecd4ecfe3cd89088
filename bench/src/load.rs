//! The load as it stands on the command line: what is done, to which keys, over how many connections. It is the same whatever
//! system it is put on.

use clap::{Args, ValueEnum};
use mesh_base::limits::{
    BATCH_BYTES_MAX, BATCH_OPS_MAX, RANGE_ITEMS_MAX, SESSION_WINDOW_MAX, VALUE_BYTES_MAX,
};

use crate::distribution::Distribution;
use crate::error::BenchError;
use crate::keyspace::{KEY_BYTES, KEYS_MAX};
use crate::workload::{Items, Shares};

/// The heading of these flags.
pub(crate) const LOAD: &str = "The load";
/// What a range wants unless told, and the most that YCSB's scans want.
const RANGE_ITEMS: usize = 100;

/// See the module.
#[derive(Args, Clone, Debug)]
pub(crate) struct LoadFlags {
    /// What is done.
    #[arg(long, value_name = "WHAT", default_value = "get", help_heading = LOAD)]
    pub(crate) workload: Workload,
    /// Percent of a mixed workload that reads [default: 50]
    #[arg(
        long,
        value_name = "PERCENT",
        value_parser = clap::value_parser!(u32).range(0..=100),
        help_heading = LOAD
    )]
    pub(crate) reads: Option<u32>,
    /// How many keys there are, of 16 bytes each.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 100_000,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(KEYS_MAX)),
        help_heading = LOAD
    )]
    pub(crate) keys: u32,
    /// Bytes of a value.
    #[arg(long, value_name = "N", default_value_t = 256, help_heading = LOAD)]
    pub(crate) value_bytes: usize,
    /// How keys are chosen [default: that of the YCSB workload, else uniform]
    #[arg(long, value_name = "HOW", help_heading = LOAD)]
    pub(crate) distribution: Option<Distribution>,
    /// How many connections.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 50,
        value_parser = clap::value_parser!(u16).range(1..),
        help_heading = LOAD
    )]
    pub(crate) connections: u16,
    /// Requests in flight on each.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=SESSION_WINDOW_MAX as i64),
        help_heading = LOAD
    )]
    pub(crate) in_flight: u16,
    /// Keys of a request: more than one is a batched get or put.
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = LOAD)]
    pub(crate) batch: usize,
    /// Keys that a range reads; of ycsb-e, at most [default: 100]
    #[arg(long, value_name = "N", help_heading = LOAD)]
    pub(crate) range_items: Option<usize>,
    /// Repeats the choices of keys and values.
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = LOAD)]
    pub(crate) seed: u64,
}

/// What is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Workload {
    /// Writes keys.
    Put,
    /// Reads keys.
    Get,
    /// Does both.
    Mixed,
    /// Reads keys in order, from one that is chosen on.
    Range,
    /// Half reads, half writes, zipfian.
    YcsbA,
    /// 95% reads, 5% writes, zipfian.
    YcsbB,
    /// Reads, zipfian.
    YcsbC,
    /// 95% reads of what was inserted last, 5% inserts.
    YcsbD,
    /// 95% ranges of up to 100 keys, 5% inserts, zipfian.
    YcsbE,
    /// Half reads, half reads of a key that is then written, zipfian.
    YcsbF,
}

impl Workload {
    /// As on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Mixed => "mixed",
            Self::Range => "range",
            Self::YcsbA => "ycsb-a",
            Self::YcsbB => "ycsb-b",
            Self::YcsbC => "ycsb-c",
            Self::YcsbD => "ycsb-d",
            Self::YcsbE => "ycsb-e",
            Self::YcsbF => "ycsb-f",
        }
    }
}

impl LoadFlags {
    /// A load with what the command line has where nothing is said; values and keys are as in the bars.
    pub(crate) const fn new(workload: Workload, connections: u16, in_flight: u16) -> Self {
        Self {
            workload,
            reads: None,
            keys: 100_000,
            value_bytes: 256,
            distribution: None,
            connections,
            in_flight,
            batch: 1,
            range_items: None,
            seed: 1,
        }
    }

    /// What the flags say together that none says alone.
    ///
    /// # Errors
    /// [`BenchError::Usage`]
    pub(crate) fn check(&self) -> Result<(), BenchError> {
        let wrong = |what: String| Err(BenchError::Usage(what));
        let shares = self.shares();
        if self.reads.is_some() && self.workload != Workload::Mixed {
            return wrong("--reads goes with --workload mixed only".into());
        }
        if self.range_items.is_some() && shares.scans == 0 {
            return wrong("--range-items goes with --workload range or ycsb-e only".into());
        }
        if !(1..=RANGE_ITEMS_MAX).contains(&self.range_items.unwrap_or(RANGE_ITEMS)) {
            return wrong(format!("--range-items: from 1 to {RANGE_ITEMS_MAX}"));
        }
        if self.batch > 1 && shares.scans + shares.modifies > 0 {
            return wrong(format!("--batch: {} has one key in a request", self.workload.name()));
        }
        if self.value_bytes > VALUE_BYTES_MAX {
            return wrong(format!("--value-bytes: a value has at most {VALUE_BYTES_MAX} bytes"));
        }
        if !(1..=BATCH_OPS_MAX).contains(&self.batch) {
            return wrong(format!("--batch: a request has from 1 to {BATCH_OPS_MAX} keys"));
        }
        if self.batch > 1 && self.batch * (self.value_bytes + KEY_BYTES) > BATCH_BYTES_MAX {
            let most = BATCH_BYTES_MAX / (self.value_bytes + KEY_BYTES);
            return wrong(format!(
                "--batch: with values of {} bytes at most {most} keys fit into one request",
                self.value_bytes
            ));
        }
        Ok(())
    }

    /// Which operations there are, and how many of each.
    pub(crate) fn shares(&self) -> Shares {
        let items = self.range_items.unwrap_or(RANGE_ITEMS);
        match self.workload {
            Workload::Put => Shares::reads(0),
            Workload::Get | Workload::YcsbC => Shares::reads(100),
            Workload::Mixed => Shares::reads(self.reads.unwrap_or(50)),
            Workload::Range => Shares { scans: 100, items: Items::Exactly(items), ..Shares::reads(0) },
            Workload::YcsbA => Shares::reads(50),
            Workload::YcsbB => Shares::reads(95),
            Workload::YcsbD => Shares { inserts: 5, ..Shares::reads(95) },
            Workload::YcsbE => {
                Shares { scans: 95, inserts: 5, items: Items::UpTo(items), ..Shares::reads(0) }
            }
            Workload::YcsbF => Shares { modifies: 50, ..Shares::reads(50) },
        }
    }

    /// How keys are chosen.
    pub(crate) fn distribution(&self) -> Distribution {
        let usual = match self.workload {
            Workload::Put | Workload::Get | Workload::Mixed | Workload::Range => Distribution::Uniform,
            Workload::YcsbD => Distribution::Latest,
            _ => Distribution::Zipfian,
        };
        self.distribution.unwrap_or(usual)
    }

    /// How many keys there is room for to be inserted: as many again.
    pub(crate) fn inserts(&self) -> u32 {
        if self.shares().inserts > 0 { self.keys.min(KEYS_MAX - self.keys) } else { 0 }
    }

    /// What is done, in a few words.
    pub(crate) fn words(&self) -> String {
        let mut what = self.workload.name().to_owned();
        if self.workload == Workload::Mixed {
            what += &format!(" ({}% reads)", self.shares().reads);
        }
        if self.batch > 1 {
            what += &format!(" of {} keys at a time", self.batch);
        }
        match self.shares() {
            Shares { scans: 1.., items: Items::Exactly(items), .. } => what + &format!(" of {items} keys"),
            Shares { scans: 1.., items: Items::UpTo(items), .. } => what + &format!(" of up to {items} keys"),
            _ => what,
        }
    }
}
