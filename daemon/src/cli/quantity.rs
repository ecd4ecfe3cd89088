//! Sizes, times and lists of processors as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

/// Bytes of memory, written as `512MiB` or `4GiB`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct MemorySize(pub(super) u64);

const UNITS: [(&str, u64); 6] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1), ("", 1)];

impl FromStr for MemorySize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let factor = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim()));
        let bytes = factor.zip(number.parse::<u64>().ok());
        let bytes = bytes.and_then(|((_, factor), number)| number.checked_mul(*factor));
        bytes.map(Self).ok_or_else(|| {
            format!("`{text}` is not a size: write a whole number and KiB, MiB, GiB or TiB, as 4GiB")
        })
    }
}

impl fmt::Display for MemorySize {
    /// In the largest unit that gives one or more of it, with one decimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, factor)| self.0 >= *factor) {
            Some((name, factor)) if *factor > 1 => {
                let tenths = u128::from(self.0) * 10 / u128::from(*factor);
                f.pad(&format!("{}.{} {name}", tenths / 10, tenths % 10))
            }
            _ => f.pad(&format!("{} B", self.0)),
        }
    }
}

/// Processors, written as `0-3,6`: in order, each once, at least one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct CpuList(pub(super) Vec<usize>);

/// More processors than any machine has.
const CPUS_MAX: usize = 4096;

impl FromStr for CpuList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a list of processors: write numbers and ranges, as 0-3,6");
        let mut cpus = Vec::new();
        for part in text.trim().split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| text.trim().parse().ok().filter(|&number: &usize| number < CPUS_MAX);
            let (first, last) = number(first).zip(number(last)).ok_or_else(wrong)?;
            if first > last {
                return Err(wrong());
            }
            cpus.extend(first..=last);
        }
        let given = cpus.len();
        cpus.sort_unstable();
        cpus.dedup();
        if cpus.len() < given {
            return Err(format!("`{text}` names a processor twice: each core needs one of its own"));
        }
        Ok(Self(cpus))
    }
}

impl<'de> Deserialize<'de> for MemorySize {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for CpuList {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// A time, written as `5s`, `300ms` or `2m`; more than none, at most a day.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "ms" => Some(1),
        "s" => Some(1000),
        "m" => Some(60_000),
        _ => None,
    };
    let ms = factor.zip(number.parse::<u64>().ok()).and_then(|(factor, number)| number.checked_mul(factor));
    ms.filter(|ms| (1..=24 * 3600 * 1000).contains(ms)).map(Duration::from_millis).ok_or_else(|| {
        format!("`{text}` is not a time: write a whole number and ms, s or m, as 5s; at most a day")
    })
}

/// A time as people read it: its two largest units.
pub(super) fn readable(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];
    let largest = units.iter().position(|(_, of)| seconds >= *of).unwrap_or(units.len() - 1);
    let mut rest = seconds;
    let mut words = Vec::new();
    for (name, of) in units.iter().skip(largest).take(2) {
        words.push(format!("{}{name}", rest / of));
        rest %= of;
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in
            [("4GiB", 4 << 30), ("512MiB", 512 << 20), ("1kib", 1024), ("7", 7), ("10 MiB", 10 << 20)]
        {
            assert_eq!(text.parse(), Ok(MemorySize(bytes)), "{text}");
        }
        for text in ["", "GiB", "4GB", "-1GiB", "1.5GiB", "99999999999TiB", "4 G"] {
            assert!(text.parse::<MemorySize>().unwrap_err().contains("as 4GiB"), "{text}");
        }
    }

    #[test]
    fn sizes_are_told_in_their_largest_unit() {
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1 << 20, "1.0 MiB"), (3 << 29, "1.5 GiB")]
        {
            assert_eq!(MemorySize(bytes).to_string(), text);
        }
    }

    #[test]
    fn processors_are_numbers_and_ranges() {
        assert_eq!("0-3,6".parse(), Ok(CpuList(vec![0, 1, 2, 3, 6])));
        assert_eq!("5".parse(), Ok(CpuList(vec![5])));
        for text in ["", "a", "3-1", "1,,2", "0-99999", "1-"] {
            assert!(text.parse::<CpuList>().unwrap_err().contains("as 0-3,6"), "{text}");
        }
        assert!("1,0-2".parse::<CpuList>().unwrap_err().contains("twice"));
    }

    #[test]
    fn times_have_a_unit_and_are_more_than_none() {
        assert_eq!(parse_duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_duration("300ms"), Ok(Duration::from_millis(300)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        for text in ["5", "s", "0s", "1h", "-1s", "9999m"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_told_in_their_two_largest_units() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (61, "1m 1s"), (3600, "1h 0m"), (90_061, "1d 1h")] {
            assert_eq!(readable(Duration::from_secs(seconds)), text);
        }
    }
}
