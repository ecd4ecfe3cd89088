//! Options of a run as text: `nodes=3,crashes=off,hostile=1200ms` says how a run differs from what its seed draws.
//!
//! Invariants:
//! - Every option that a seed draws has a line in `TABLE`, and nothing else has to be done for a new one. So any two sets of
//!   options differ by overrides, and those, applied to the one, give the other.
//! - What is printed is read back as the same.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::latency::Latency;
use crate::net::Delivery;
use crate::options::{self, Options, Popularity};

use Simpler::{Fewer, FewerOdd, Nothing, Shorter, To};

/// Every option: its name, how it is made simpler, where it is. Made simpler in this order: what makes a run short comes
/// first, since every later attempt takes as long as the run.
const TABLE: &[Entry] = &[
    entry("hostile", Shorter, |it| &mut it.hostile_for),
    entry("nodes", FewerOdd, |it| &mut it.size.nodes),
    entry("shards", Fewer, |it| &mut it.size.shards),
    entry("clients", Fewer, |it| &mut it.size.clients),
    entry("keys", Fewer, |it| &mut it.size.keys),
    entry("value-bytes", To("16"), |it| &mut it.size.value_bytes_max),
    entry("think", Nothing, |it| &mut it.size.think),
    entry("large-values", To("0"), |it| &mut it.load.large_per_mille),
    entry("lists", To("0"), |it| &mut it.load.lists_per_mille),
    entry("batches", To("0"), |it| &mut it.load.batches_per_mille),
    entry("batch-keys", Fewer, |it| &mut it.load.batch_keys_max),
    entry("transactions", To("0"), |it| &mut it.load.transactions_per_mille),
    entry("increments", To("0"), |it| &mut it.load.increments_per_mille),
    entry("twice", To("0"), |it| &mut it.load.twice_per_mille),
    entry("leaving", To("0"), |it| &mut it.load.leaving_per_mille),
    entry("popularity", To("uniform"), |it| &mut it.load.popularity),
    entry("crashes", To("off"), |it| &mut it.faults.crash_every),
    entry("partitions", To("off"), |it| &mut it.faults.partition_every),
    entry("slow-disks", To("off"), |it| &mut it.faults.slow_disk_every),
    entry("full-disks", To("off"), |it| &mut it.faults.full_disk_every),
    entry("clock-jumps", To("off"), |it| &mut it.faults.clock_jump_every),
    entry("wipes", To("off"), |it| &mut it.faults.wipe_every),
    entry("bad-disk", To("off"), |it| &mut it.faults.rot_every),
    entry("pauses", To("off"), |it| &mut it.faults.pause_every),
    entry("rolls", To("off"), |it| &mut it.faults.roll_every),
    entry("flaps", To("off"), |it| &mut it.faults.flap_every),
    entry("slow-links", To("off"), |it| &mut it.faults.slow_link_every),
    entry("disk-errors", To("0"), |it| &mut it.disk.device_errors_per_million),
    entry("clock-skew", To("0ms"), |it| &mut it.clock.skew_max),
    entry("clock-drift", To("0"), |it| &mut it.clock.drift_ppm_max),
    entry("power", To("0"), |it| &mut it.faults.power_per_mille),
    entry("orderly", To("0"), |it| &mut it.faults.orderly_per_mille),
    entry("everyone", To("0"), |it| &mut it.faults.everyone_per_mille),
    entry("left-out", To("0"), |it| &mut it.faults.left_out_per_mille),
    entry("ambushes", To("0"), |it| &mut it.faults.ambush_per_mille),
    entry("relapses", To("0"), |it| &mut it.faults.relapse_per_mille),
    entry("down-for", Nothing, |it| &mut it.faults.down_for),
    entry("partition-for", Nothing, |it| &mut it.faults.partition_for),
    entry("pause-for", Nothing, |it| &mut it.faults.pause_for),
    entry("peers-delivery", To("stream"), |it| &mut it.peers.delivery),
    entry("peers-loss", To("0"), |it| &mut it.peers.loss_per_mille),
    entry("peers-duplicates", To("0"), |it| &mut it.peers.duplicate_per_mille),
    entry("peers-reordering", To("0"), |it| &mut it.peers.reorder_per_mille),
    entry("peers-latency", To("50us..250us"), |it| &mut it.peers.latency),
    entry("peers-bandwidth", Nothing, |it| &mut it.peers.bytes_per_second),
    entry("clients-delivery", To("stream"), |it| &mut it.clients.delivery),
    entry("clients-loss", To("0"), |it| &mut it.clients.loss_per_mille),
    entry("clients-duplicates", To("0"), |it| &mut it.clients.duplicate_per_mille),
    entry("clients-reordering", To("0"), |it| &mut it.clients.reorder_per_mille),
    entry("clients-latency", To("50us..250us"), |it| &mut it.clients.latency),
    entry("clients-bandwidth", Nothing, |it| &mut it.clients.bytes_per_second),
    entry("disk-read", To("60us..120us"), |it| &mut it.disk.read),
    entry("disk-write", To("15us..90us"), |it| &mut it.disk.write),
    entry("disk-sync", To("50us..500us"), |it| &mut it.disk.sync),
    entry("disk-metadata", To("10us..200us"), |it| &mut it.disk.metadata),
    entry("disk-bandwidth", Nothing, |it| &mut it.disk.bytes_per_second),
    entry("disk-capacity", Nothing, |it| &mut it.disk.capacity_bytes),
    entry("snapshot-rate", To("33554432"), |it| &mut it.snapshot_bytes_per_second),
    entry("alive-within", Nothing, |it| &mut it.alive_within),
];

/// One option.
pub(crate) struct Entry {
    name: &'static str,
    simpler: Simpler,
    place: fn(&mut Options) -> &mut dyn Setting,
}

/// How an option is made simpler.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Simpler {
    /// It is not.
    Nothing,
    /// By this value.
    To(&'static str),
    /// A count by a smaller one, at least 1.
    Fewer,
    /// A count by a smaller odd one.
    FewerOdd,
    /// A duration by a shorter one.
    Shorter,
}

const fn entry(name: &'static str, simpler: Simpler, place: fn(&mut Options) -> &mut dyn Setting) -> Entry {
    Entry { name, simpler, place }
}

/// How a run differs from what its seed draws.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Overrides {
    /// By position in the table; the values as the options print them.
    values: BTreeMap<usize, String>,
}

/// Why a text is not that of overrides.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OverridesError {
    /// It has a part that is no assignment.
    #[error("\"{0}\" is not of the form option=value")]
    NoAssignment(String),
    /// No option has the name.
    #[error("there is no option \"{name}\"; there are {}", names().collect::<Vec<_>>().join(", "))]
    UnknownOption {
        /// The name.
        name: String,
    },
    /// The option does not take the value.
    #[error("the option \"{name}\" takes {expected}, not \"{value}\"")]
    Value {
        /// The option.
        name: &'static str,
        /// What it takes.
        expected: &'static str,
        /// What it was given.
        value: String,
    },
}

/// The names of all options.
pub fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|entry| entry.name)
}

/// All options with their values, by name.
pub fn values(options: &Options) -> impl Iterator<Item = (&'static str, String)> {
    let mut options = options.clone();
    TABLE.iter().map(move |entry| (entry.name, (entry.place)(&mut options).text()))
}

/// All options, in the order in which they are to be made simpler.
pub(crate) fn entries() -> impl Iterator<Item = &'static Entry> {
    TABLE.iter()
}

impl Overrides {
    /// No difference.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// What makes `to` of `from`.
    #[must_use]
    pub fn between(from: &Options, to: &Options) -> Self {
        let changed = values(from).zip(values(to)).enumerate().filter(|(_, (from, to))| from != to);
        Self { values: changed.map(|(position, (_, (_, value)))| (position, value)).collect() }
    }

    /// Whether there is no difference.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Changes options accordingly.
    pub fn apply(&self, options: &mut Options) {
        for (entry, value) in self.entries() {
            let read = entry.set(options, value);
            assert!(read.is_ok(), "a value that was read once is read again: {}={value}", entry.name);
        }
    }

    fn entries(&self) -> impl Iterator<Item = (&'static Entry, &str)> {
        let entry = |position: &usize| TABLE.get(*position);
        self.values.iter().filter_map(move |(position, value)| Some((entry(position)?, value.as_str())))
    }
}

impl fmt::Display for Overrides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (entry, value)) in self.entries().enumerate() {
            write!(f, "{}{}={value}", if index == 0 { "" } else { "," }, entry.name)?;
        }
        Ok(())
    }
}

impl FromStr for Overrides {
    type Err = OverridesError;

    fn from_str(text: &str) -> Result<Self, OverridesError> {
        let mut scratch = options::draw(0).0;
        let mut values = BTreeMap::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let Some((name, value)) = part.split_once('=') else {
                return Err(OverridesError::NoAssignment(part.to_owned()));
            };
            let unknown = || OverridesError::UnknownOption { name: name.to_owned() };
            let position = TABLE.iter().position(|entry| entry.name == name).ok_or_else(unknown)?;
            let entry = TABLE.get(position).ok_or_else(unknown)?;
            entry.set(&mut scratch, value)?;
            values.insert(position, (entry.place)(&mut scratch).text());
        }
        Ok(Self { values })
    }
}

impl Entry {
    /// The options with this one made simpler, the simplest first; none when it is as simple as it gets.
    pub(crate) fn simpler(&self, options: &Options) -> Vec<Options> {
        let mut options = options.clone();
        let present = (self.place)(&mut options).text();
        let changed = |value: String| {
            let mut changed = options.clone();
            self.set(&mut changed, &value).is_ok().then_some(changed)
        };
        self.simpler_than(&present).into_iter().filter_map(changed).collect()
    }

    fn simpler_than(&self, present: &str) -> Vec<String> {
        let count: u64 = present.parse().unwrap_or(0);
        match self.simpler {
            Nothing => vec![],
            To(value) if value == present => vec![],
            To(value) => vec![value.to_owned()],
            Fewer => {
                let mut fewer: Vec<u64> = vec![1, count / 2, count.saturating_sub(1)];
                fewer.retain(|&fewer| 1 <= fewer && fewer < count);
                fewer.dedup();
                fewer.iter().map(u64::to_string).collect()
            }
            FewerOdd => (1..count).step_by(2).map(|fewer| fewer.to_string()).collect(),
            Shorter => {
                let whole = read_duration(present).map_or(0, |duration| duration.as_millis());
                let mut shorter: Vec<u128> = [1, 2, 4, 6, 7].map(|eighths| whole * eighths / 8).into();
                shorter.retain(|&shorter| 0 < shorter && shorter < whole);
                shorter.dedup();
                shorter.iter().map(|ms| format!("{ms}ms")).collect()
            }
        }
    }

    fn set(&self, options: &mut Options, value: &str) -> Result<(), OverridesError> {
        let is_count = matches!(self.simpler, Fewer | FewerOdd);
        let setting = (self.place)(options);
        let refused = |expected| OverridesError::Value { name: self.name, expected, value: value.to_owned() };
        match setting.read(value) {
            Some(()) if is_count && setting.text() == "0" => Err(refused("a count from 1 on")),
            Some(()) => Ok(()),
            None => Err(refused(setting.expected())),
        }
    }
}

/// A type of options: how its values are printed and read.
trait Setting {
    fn text(&self) -> String;

    /// Takes the value of a text; `None` if it is not one, and nothing changes.
    fn read(&mut self, text: &str) -> Option<()>;

    /// What texts there are.
    fn expected(&self) -> &'static str;
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Setting for $number {
            fn text(&self) -> String {
                self.to_string()
            }

            fn read(&mut self, text: &str) -> Option<()> {
                *self = text.parse().ok()?;
                Some(())
            }

            fn expected(&self) -> &'static str {
                "a number"
            }
        }
    )*};
}

numbers!(usize, u16, u32, u64);

impl Setting for Duration {
    fn text(&self) -> String {
        let nanos = self.as_nanos();
        let unit = UNITS.iter().find(|(_, unit)| nanos > 0 && nanos.is_multiple_of(*unit));
        unit.map_or_else(|| "0ms".to_owned(), |(name, unit)| format!("{}{name}", nanos / unit))
    }

    fn read(&mut self, text: &str) -> Option<()> {
        *self = read_duration(text)?;
        Some(())
    }

    fn expected(&self) -> &'static str {
        "a duration (such as 250us, 1200ms or 3s)"
    }
}

impl Setting for Latency {
    /// `least..most`, and where there is a tail, how many of a thousand are in it and the longest.
    fn text(&self) -> String {
        let Self { least, most, tail_per_mille, tail } = self;
        let usual = format!("{}..{}", least.text(), most.text());
        let is_plain = *tail_per_mille == 0 && tail == most;
        if is_plain { usual } else { format!("{usual}/{tail_per_mille}/{}", tail.text()) }
    }

    fn read(&mut self, text: &str) -> Option<()> {
        let (usual, tail) = text.split_once('/').map_or((text, None), |(usual, tail)| (usual, Some(tail)));
        let (least, most) = usual.split_once("..")?;
        let usual = Self::between(read_duration(least)?, read_duration(most)?);
        *self = match tail {
            None => usual,
            Some(tail) => {
                let (per_mille, longest) = tail.split_once('/')?;
                usual.with_tail(per_mille.parse().ok()?, read_duration(longest)?)
            }
        };
        Some(())
    }

    fn expected(&self) -> &'static str {
        "least..most or least..most/in a thousand/longest (such as 50us..5ms or 50us..5ms/20/300ms)"
    }
}

impl Setting for Delivery {
    fn text(&self) -> String {
        match self {
            Self::Datagram => "datagram".to_owned(),
            Self::Stream => "stream".to_owned(),
        }
    }

    fn read(&mut self, text: &str) -> Option<()> {
        *self = match text {
            "datagram" => Self::Datagram,
            "stream" => Self::Stream,
            _ => return None,
        };
        Some(())
    }

    fn expected(&self) -> &'static str {
        "datagram or stream"
    }
}

impl Setting for Popularity {
    fn text(&self) -> String {
        self.to_string()
    }

    fn read(&mut self, text: &str) -> Option<()> {
        let all = [Self::Uniform, Self::Zipfian, Self::One];
        *self = all.into_iter().find(|it| it.to_string() == text)?;
        Some(())
    }

    fn expected(&self) -> &'static str {
        "uniform, zipfian or one"
    }
}

/// What may be off altogether.
trait Switchable: Setting {
    const EXPECTED: &'static str;

    /// To be overwritten.
    fn any() -> Self;
}

impl Switchable for Duration {
    const EXPECTED: &'static str = "off or a duration (such as 500ms)";

    fn any() -> Self {
        Self::ZERO
    }
}

impl Switchable for Latency {
    const EXPECTED: &'static str = "off or least..most (such as 1ms..2s)";

    fn any() -> Self {
        Self::fixed(Duration::ZERO)
    }
}

impl<T: Switchable> Setting for Option<T> {
    fn text(&self) -> String {
        self.as_ref().map_or_else(|| "off".to_owned(), Setting::text)
    }

    fn read(&mut self, text: &str) -> Option<()> {
        let mut value = T::any();
        *self = match text {
            "off" => None,
            _ => value.read(text).map(|()| Some(value))?,
        };
        Some(())
    }

    fn expected(&self) -> &'static str {
        T::EXPECTED
    }
}

const UNITS: [(&str, u128); 4] = [("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1000), ("ns", 1)];

fn read_duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|it: char| !it.is_ascii_digit())?);
    let (_, nanos) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let nanos = number.parse::<u128>().ok()?.checked_mul(*nanos)?;
    Some(Duration::from_nanos(u64::try_from(nanos).ok()?))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use quickcheck::quickcheck;

    use super::*;

    quickcheck! {
        fn any_options_become_any_others_by_overrides_that_are_printed_and_read(from: u16, to: u16) -> bool {
            let (from, mut to) = (options::draw(u64::from(from)).0, options::draw(u64::from(to)).0);
            to.seed = from.seed;
            let overrides: Overrides = Overrides::between(&from, &to).to_string().parse().unwrap();
            let mut changed = from;
            overrides.apply(&mut changed);
            changed == to && overrides == overrides.to_string().parse().unwrap()
        }

        fn making_an_option_simpler_comes_to_an_end(seed: u16) -> bool {
            let mut options = options::draw(u64::from(seed)).0;
            let mut steps = 0;
            for entry in entries() {
                while let Some(simpler) = entry.simpler(&options).pop() {
                    assert_ne!(simpler, options, "{}", entry.name);
                    options = simpler;
                    steps += 1;
                }
            }
            steps < 2000 && options.size.nodes == 1 && options.faults.crash_every.is_none()
        }
    }

    #[test]
    fn overrides_are_read_as_they_are_typed() {
        let overrides: Overrides =
            " crashes=off, nodes=3,hostile=1200ms,peers-latency=50us..5ms/20/300ms".parse().unwrap();
        let mut options = options::draw(1).0;
        overrides.apply(&mut options);
        assert_eq!((options.size.nodes, options.faults.crash_every), (3, None));
        assert_eq!(options.hostile_for, Duration::from_millis(1200));
        assert_eq!(options.peers.latency.tail, Duration::from_millis(300));
        let text = "hostile=1200ms,nodes=3,crashes=off,peers-latency=50us..5ms/20/300ms";
        assert_eq!(overrides.to_string(), text);
        assert!("".parse::<Overrides>().unwrap().is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_what_could() {
        let refused = |text: &str| text.parse::<Overrides>().unwrap_err().to_string();
        assert_eq!(refused("nodes"), "\"nodes\" is not of the form option=value");
        assert_eq!(refused("nodes=0"), "the option \"nodes\" takes a count from 1 on, not \"0\"");
        assert_eq!(
            refused("hostile=12"),
            "the option \"hostile\" takes a duration (such as 250us, 1200ms or 3s), not \"12\""
        );
        assert!(refused("node=3").starts_with("there is no option \"node\"; there are hostile, nodes, "));
        for value in
            ["crashes=5", "crashes=x", "peers-delivery=tcp", "popularity=two", "down-for=1ms", "shards=70000"]
        {
            assert!(refused(value).contains(" takes "), "{value}");
        }
    }

    #[test]
    fn every_option_has_a_name_of_its_own() {
        assert_eq!(names().collect::<BTreeSet<_>>().len(), names().count());
    }
}
