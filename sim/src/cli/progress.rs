//! How far it has come: one line, for people who look on.

use std::io::{self, IsTerminal, Write};
use std::ops::Range;
use std::time::{Duration, Instant};

use super::text::clock;
use crate::swarm::Tally;

/// How often the line is written anew.
const EVERY: Duration = Duration::from_millis(200);

/// The line, on a terminal; nothing elsewhere.
pub(super) struct Progress {
    begun: Instant,
    written: Option<Instant>,
    of: String,
}

impl Progress {
    /// Of seeds that are run, all of them or as many as there is time for.
    pub(super) fn of_seeds(seeds: Range<u64>, time: Option<Duration>) -> Self {
        let count = seeds.end.saturating_sub(seeds.start);
        let of = match time {
            Some(time) => format!("for {}", clock(time)),
            None => format!("of {count}"),
        };
        Self { begun: Instant::now(), written: None, of }
    }

    /// Of the search for a smaller run.
    pub(super) fn of_shrinking() -> Self {
        Self { begun: Instant::now(), written: None, of: "looking for a smaller run".to_owned() }
    }

    pub(super) fn show_tally(&mut self, tally: &Tally) {
        let simulated = clock(tally.report.simulated);
        let (runs, failed) = (tally.report.runs, tally.failed.len());
        let line = format!("{runs} seeds {}, {failed} failed, {simulated} simulated", self.of);
        self.show(&line);
    }

    pub(super) fn show_attempt(&mut self, runs: u32) {
        let line = format!("{}: {runs} runs", self.of);
        self.show(&line);
    }

    fn show(&mut self, line: &str) {
        let is_due = self.written.is_none_or(|written| written.elapsed() >= EVERY);
        if is_due && io::stderr().is_terminal() {
            self.written = Some(Instant::now());
            write(&format!("\r\x1b[2K{line}, {}", clock(self.begun.elapsed())));
        }
    }

    /// Takes the line away.
    pub(super) fn clear(&mut self) {
        if self.written.take().is_some() {
            write("\r\x1b[2K");
        }
    }
}

/// A terminal that went away misses nothing.
fn write(text: &str) {
    let mut stderr = io::stderr();
    let _written = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}
