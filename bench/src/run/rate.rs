//! How many operations are to be begun in a second: as a number, or as a part of the most that there is, which is measured first.

use std::str::FromStr;

use clap::Args;

use crate::cli::RATE;
use crate::error::BenchError;
use crate::pace::{ArrivalKind, Pace};

/// Rates of a sweep, at most.
const SWEEP_MAX: usize = 100;
/// Percent between the rates of a sweep that names the first and the last one.
const SWEEP_STEP: f64 = 10.0;

/// When operations begin.
#[derive(Args, Clone, Debug)]
pub(crate) struct RateFlags {
    /// Begin so many requests in a second, answered or not (an open loop), or so many percent of the most that is reached by beginning
    /// one whenever another is answered, which is measured first.
    #[arg(long, value_name = "N or N%", help_heading = RATE)]
    pub(crate) rate: Option<Rate>,
    /// Go through several rates, one after the other: a list, or percents from one to another in steps of ten.
    #[arg(long, value_name = "N,... or N%..N%", conflicts_with = "rate", help_heading = RATE)]
    pub(crate) sweep_rates: Option<Sweep>,
    /// How requests follow each other [default: poisson]
    #[arg(long, value_name = "HOW", help_heading = RATE)]
    pub(crate) arrivals: Option<ArrivalKind>,
}

impl RateFlags {
    /// What the flags say together that none says alone.
    ///
    /// # Errors
    /// [`BenchError::Usage`]
    pub(crate) fn check(&self) -> Result<(), BenchError> {
        if self.arrivals.is_some() && self.rate.is_none() && self.sweep_rates.is_none() {
            return Err(BenchError::Usage("--arrivals goes with --rate or --sweep-rates only".into()));
        }
        Ok(())
    }

    /// Whether the most that there is has to be measured.
    pub(crate) fn needs_most(&self) -> bool {
        let is_part = |rate: &Rate| matches!(rate, Rate::Percent(_));
        self.rate.as_ref().is_some_and(is_part)
            || self.sweep_rates.as_ref().is_some_and(|sweep| sweep.0.iter().any(is_part))
    }

    /// A pace at a rate.
    pub(crate) fn pace(&self, rate: Rate, most: f64) -> Pace {
        let arrivals = self.arrivals.unwrap_or(ArrivalKind::Poisson);
        Pace::Open { rate: rate.per_second(most), arrivals }
    }
}

/// A rate.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Rate {
    /// Requests in a second.
    PerSecond(f64),
    /// Of the most that there is.
    Percent(f64),
}

impl Rate {
    /// Requests in a second.
    fn per_second(self, most: f64) -> f64 {
        match self {
            Self::PerSecond(rate) => rate,
            Self::Percent(percent) => (most * percent / 100.0).max(1.0),
        }
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is no rate: write requests in a second, as 20000, or percents, as 50%");
        let positive =
            |number: &str| number.trim().parse().ok().filter(|&number| (0.01..=1e9).contains(&number));
        match text.strip_suffix('%') {
            Some(percent) => positive(percent).map(Self::Percent).ok_or_else(wrong),
            None => positive(text).map(Self::PerSecond).ok_or_else(wrong),
        }
    }
}

/// Some rates.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Sweep(pub(crate) Vec<Rate>);

impl FromStr for Sweep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("`{text}` names no rates: write 10%..90%, or a list, as 1000,5000,20000 or 50%,80%,95%")
        };
        let rates: Vec<_> = match text.split_once("..") {
            Some((first, last)) => {
                let (Rate::Percent(first), Rate::Percent(last)) = (first.parse()?, last.parse()?) else {
                    return Err(wrong());
                };
                let steps = std::iter::successors(Some(first), |percent| Some(percent + SWEEP_STEP));
                steps
                    .take_while(|&percent| percent <= last + 1e-6)
                    .take(SWEEP_MAX + 1)
                    .map(Rate::Percent)
                    .collect()
            }
            None => text.split(',').map(str::parse).collect::<Result<_, _>>()?,
        };
        if rates.is_empty() || rates.len() > SWEEP_MAX { Err(wrong()) } else { Ok(Self(rates)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_numbers_or_percents() {
        assert_eq!("20000".parse(), Ok(Rate::PerSecond(20_000.0)));
        assert_eq!("50%".parse(), Ok(Rate::Percent(50.0)));
        for wrong in ["", "x", "-5", "0", "%", "inf", "NaN"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
        assert!((Rate::Percent(50.0).per_second(3000.0) - 1500.0).abs() < 1e-9);
    }

    #[test]
    fn a_sweep_is_a_list_or_steps() {
        let percents = |each: &[f64]| Sweep(each.iter().map(|&percent| Rate::Percent(percent)).collect());
        assert_eq!("10%..40%".parse(), Ok(percents(&[10.0, 20.0, 30.0, 40.0])));
        assert_eq!("50%,95%".parse(), Ok(percents(&[50.0, 95.0])));
        assert_eq!("1000,50%".parse(), Ok(Sweep(vec![Rate::PerSecond(1000.0), Rate::Percent(50.0)])));
        for wrong in ["90%..10%", "10..20", "", "1%..2000%"] {
            assert!(wrong.parse::<Sweep>().is_err(), "{wrong}");
        }
    }
}
