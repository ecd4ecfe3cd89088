//! How many operations are to be begun in a second: as a number, or as a part of the most that there is, which is measured first.

use std::str::FromStr;

use clap::Args;

use crate::cli::RATE;
use crate::pace::{ArrivalKind, Pace};
use crate::report::text;

/// Seconds for which the most that there is is measured, and those before.
pub(crate) const MOST_SECONDS: u32 = 3;
pub(crate) const MOST_WARM_UP: u32 = 1;
/// The rates that a command may have, of which one may be given.
pub(crate) const RATES: &str = "rates";

/// When operations begin.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct RateFlags {
    /// Begin so many requests in a second, answered or not (an open loop), or so many percent of the most that is reached by beginning
    /// one whenever another is answered, which is measured first.
    #[arg(long, value_name = "N or N%", group = RATES, help_heading = RATE)]
    pub(crate) rate: Option<Rate>,
    /// How requests follow each other [default: poisson]
    #[arg(long, value_name = "HOW", requires = RATES, help_heading = RATE)]
    pub(crate) arrivals: Option<ArrivalKind>,
}

impl RateFlags {
    /// Whether the most that there is has to be measured.
    pub(crate) fn needs_most(self) -> bool {
        self.rate.is_some_and(Rate::needs_most)
    }

    /// When operations begin where the most that there is is so many requests in a second.
    pub(crate) fn pace(self, most: f64) -> Pace {
        self.rate.map_or(Pace::Closed, |rate| rate.pace(self.arrivals(), most))
    }

    /// How requests follow each other in an open loop.
    pub(crate) fn arrivals(self) -> ArrivalKind {
        self.arrivals.unwrap_or(ArrivalKind::Poisson)
    }

    /// The open loop that several systems are put under, in words; `None` if it is a closed one.
    pub(crate) fn words(self) -> Option<String> {
        let rate = match self.rate? {
            Rate::PerSecond(rate) => format!("{} requests/s", text::rate(rate)),
            Rate::Percent(percent) => format!("{percent}% of what each reaches in a closed loop"),
        };
        Some(format!("an open loop at {rate} ({})", self.arrivals().name()))
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
    /// Whether it is a part of the most that there is.
    pub(crate) const fn needs_most(self) -> bool {
        matches!(self, Self::Percent(_))
    }

    /// An open loop at this rate where the most that there is is so many requests in a second.
    pub(crate) fn pace(self, arrivals: ArrivalKind, most: f64) -> Pace {
        Pace::Open { rate: self.per_second(most), arrivals }
    }

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
    fn a_pace_is_closed_without_a_rate_and_says_what_it_is_with_one() {
        let flags = |rate, arrivals| RateFlags { rate, arrivals };
        let closed = flags(None, None);
        assert_eq!((closed.pace(3000.0), closed.words(), closed.needs_most()), (Pace::Closed, None, false));
        let half = flags(Some(Rate::Percent(50.0)), None);
        assert_eq!(half.pace(3000.0), Pace::Open { rate: 1500.0, arrivals: ArrivalKind::Poisson });
        assert!(half.needs_most());
        assert_eq!(
            half.words().unwrap(),
            "an open loop at 50% of what each reaches in a closed loop (poisson)"
        );
        let fixed = flags(Some(Rate::PerSecond(20_000.0)), Some(ArrivalKind::Uniform));
        assert_eq!(fixed.pace(0.0), Pace::Open { rate: 20_000.0, arrivals: ArrivalKind::Uniform });
        assert_eq!(fixed.words().unwrap(), "an open loop at 20,000 requests/s (uniform)");
    }
}
