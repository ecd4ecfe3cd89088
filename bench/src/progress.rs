//! What is told while a run goes on: one line, for people who look on.

use std::io::{self, IsTerminal, Write};

use crate::collector::{Observer, Point};
use crate::cpu::{Server, Since, Spent};
use crate::report::text::{count, micros};

/// Tells how a run goes, and takes the processor time of its measurement.
pub(crate) struct Progress<'a> {
    servers: &'a [Server],
    seconds: u32,
    since: Option<Since>,
    /// What was spent from the beginning of the measurement to its end.
    pub(crate) spent: Option<Spent>,
}

impl<'a> Progress<'a> {
    /// Of a run that measures so many seconds.
    pub(crate) const fn new(servers: &'a [Server], seconds: u32) -> Self {
        Self { servers, seconds, since: None, spent: None }
    }
}

impl Observer for Progress<'_> {
    fn measurement_begins(&mut self) {
        self.since = Some(Since::now(self.servers));
    }

    fn second(&mut self, point: &Point) {
        let when = match u64::try_from(point.number) {
            Ok(number) => format!("{:>4} of {} s", number + 1, self.seconds),
            Err(_) => "warming up".to_owned(),
        };
        let what = format!(
            "{when}  {:>9} op/s  p50 {} us  p99 {} us  max {} us  {} errors",
            count(point.keys),
            micros(point.p50),
            micros(point.p99),
            micros(point.max),
            count(point.errors),
        );
        show(&what);
    }

    fn measurement_ends(&mut self) {
        self.spent = self.since.take().map(|since| since.spent());
    }
}

/// Shows a line in place of the one before; only to people.
pub(crate) fn show(line: &str) {
    let mut stderr = io::stderr();
    if stderr.is_terminal() {
        let _ = write!(stderr, "\r\x1b[2K{line}");
        let _ = stderr.flush();
    }
}

/// Says something for good.
pub(crate) fn note(line: &str) {
    show("");
    let _ = writeln!(io::stderr(), "{line}");
}
