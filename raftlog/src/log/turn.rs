//! The turns of the log: what is submitted when, and what a completion brings about.
//!
//! Invariant: after a failure nothing more is submitted and nothing more is acknowledged.

use mesh_base::io::{Completion, FileId, IoError, IoOp, IoQueue, IoValue};
use mesh_base::{LogIndex, SegmentNo};

use super::closing::Closing;
use super::{Log, LogEvents};
use crate::base::EntryPosition;
use crate::contents::Run;
use crate::error::LogError;
use crate::fetch::{Damage, Finished, Reading};
use crate::format::record::Record;
use crate::format::segment::{SegmentHeader, Standing};
use crate::purge::{Discarded, Sealed};
use crate::spare::{Space, Spare};
use crate::switch::{Switch, draw_salt};
use crate::writer::{Active, Room};

impl Log {
    /// Submits what is due: batches, reads of old entries, zeros ahead, the next segment, the end of old ones. To be
    /// called at the end of every turn that changed the log.
    pub fn pump(&mut self, io: &mut IoQueue) {
        if self.poison.is_some() {
            return;
        }
        self.begin_purge();
        if self.purge.spares_expected(self.writer.head().seq) == 0 {
            self.spares.prepare(&mut self.port, io);
        }
        self.submit_batches(io);
        self.advance_closing(io);
        self.advance_switch(io);
        if self.switch.is_none() {
            self.writer.zero_ahead(&mut self.port, io);
        }
        let reads = self.fetches.get_mut();
        self.purge.advance(self.writer.durable().seq(), |file| reads.reads(file), &mut self.port, io);
        self.submit_fetches(io);
    }

    /// Takes the completion of an operation that this log submitted, and goes on.
    ///
    /// # Errors
    /// The failure that poisons the log: a failed operation, reads of old entries aside. After it
    /// [`LogError::Poisoned`].
    ///
    /// # Panics
    /// When the operation is not this log's: a bug of the caller.
    pub fn complete(&mut self, completion: Completion, io: &mut IoQueue) -> Result<LogEvents, LogError> {
        self.check_usable()?;
        let before = self.writer.durable();
        match self.dispatch(completion, io) {
            Ok(mut events) => {
                self.pump(io);
                let durable = self.writer.durable();
                events.durable = (durable > before).then_some(durable);
                Ok(events)
            }
            Err(error) => {
                tracing::error!(%error, "the log stops");
                self.poison = Some(error.to_string());
                Err(error)
            }
        }
    }

    /// Says that a turn brought nothing new. If all is durable, a marker then makes sure that later damage of the
    /// newest batches is not taken for the traces of a crash. Written once, however long the log stays idle.
    pub fn idle(&mut self, io: &mut IoQueue) {
        let busy = self.poison.is_some() || !self.forming.is_empty() || self.switch.is_some();
        if !busy && self.writer.needs_marker() && self.space() == Space::Ok {
            self.forming.begin(self.contents.base);
            self.pump(io);
        }
    }

    /// Tries again to get the space that was not there. To be called now and then while [`Log::space`] is
    /// [`Space::Full`].
    pub fn retry_space(&mut self, io: &mut IoQueue) {
        if self.poison.is_none() {
            self.spares.retry(&mut self.port, io);
            self.pump(io);
        }
    }

    fn dispatch(&mut self, completion: Completion, io: &mut IoQueue) -> Result<LogEvents, LogError> {
        let Completion { token, result } = completion;
        if self.spares.owns(token) {
            self.spares.complete(result.map(drop), &mut self.port, io)?;
            return Ok(LogEvents::default());
        }
        if self.closes(token) {
            self.complete_closing(result.map(drop), io)?;
            return Ok(LogEvents::default());
        }
        if let Some(reading) = self.fetches.get_mut().complete(token) {
            return self.finish_fetch(reading, result);
        }
        result?;
        if self.writer.complete(token, &mut self.forming.buffers) {
            return Ok(LogEvents::default());
        }
        if let Some(spares) = self.purge.complete(token, &mut self.port, io) {
            self.spares.add(spares);
            return Ok(LogEvents::default());
        }
        let switch = self.switch.as_mut().filter(|switch| switch.owns(token));
        assert!(switch.is_some(), "a completion of what was never submitted");
        if let Some(active) = switch.and_then(|switch| switch.complete(&mut self.port, io)) {
            self.go_on_in(active);
        }
        Ok(LogEvents::default())
    }

    /// Goes on in a segment that is durable: the next one, or one in the place of the active one.
    fn go_on_in(&mut self, active: Active) {
        self.switch = None;
        if matches!(self.closing, Closing::Switching) {
            self.closing = Closing::Closed;
        }
        let old = *self.writer.active();
        if old.segment != active.segment {
            self.sealed.push_back(Sealed {
                segment: old.segment,
                salt: old.salt,
                after: old.after,
                capacity: old.capacity,
                written_to: old.zeroed_to,
            });
        }
        self.writer.begin(active);
    }

    fn submit_batches(&mut self, io: &mut IoQueue) {
        while self.switch.is_none() && self.writer.has_capacity() {
            let Some(batch) = self.forming.front() else { return };
            match self.writer.room_for(batch) {
                Room::Here => {}
                Room::AfterZeros => return,
                Room::Reserve if self.spares.count() == 0 => {}
                Room::Reserve | Room::NextSegment => return self.begin_switch(io),
            }
            let Some(batch) = self.forming.pop() else { return };
            let submitted = self.writer.submit(batch, &mut self.port, io);
            if submitted.facts.restart.is_some() {
                self.contents.locations.clear();
            }
            if let Some((first, last)) = submitted.facts.entries {
                self.contents.locations.record(Run { first, last, place: submitted.place });
            }
        }
    }

    /// Begins to make the next segment, if there is a file for it.
    fn begin_switch(&mut self, io: &mut IoQueue) {
        assert!(self.switch.is_none());
        let Some(spare) = self.spares.take() else { return };
        let (segment, standing) = (self.writer.active().segment.next(), self.writer.standing());
        tracing::debug!(segment = segment.get(), "the log goes on in another segment");
        self.switch = Some(self.switch_to(spare, segment, standing, io));
    }

    /// Begins to make a file the segment of this number.
    pub(super) fn switch_to(
        &mut self,
        spare: Spare,
        segment: SegmentNo,
        standing: Standing,
        io: &mut IoQueue,
    ) -> Switch {
        let salt = draw_salt(&mut self.prng, segment, self.writer.active().salt);
        let header = SegmentHeader::new(self.identity, segment, salt, standing);
        Switch::start(spare, &header, &mut self.port, io)
    }

    fn advance_switch(&mut self, io: &mut IoQueue) {
        if let Some(switch) = self.switch.as_mut().filter(|_| self.writer.is_quiet()) {
            switch.advance(self.writer.durable().seq(), &mut self.port, io);
        }
    }

    /// Chooses the segments that may go, if any, and records that the log starts behind them.
    fn begin_purge(&mut self) {
        if self.ends() || !self.purge.is_idle() {
            return;
        }
        let leaving = self.segments_to_leave();
        let Some(newest) =
            leaving.checked_sub(1).and_then(|newest| self.sealed.get(newest)).map(|sealed| sealed.segment)
        else {
            return;
        };
        let base = &self.contents.base;
        let index = self.contents.locations.last_through(newest).unwrap_or(base.truncated.index);
        let at = EntryPosition { index, term: self.contents.terms.term(index).unwrap_or_default() };
        let to = if index > base.truncated.index { at } else { base.truncated };
        assert!(to.index <= base.checkpoint.applied.max(base.truncated.index), "the page store has it all");
        self.contents.truncate(to, newest.next());
        self.add(&Record::Truncation { to, first_segment: newest.next() });
        let mut room = self.options.spare_segments_max.saturating_sub(self.spares.count());
        let mut files = Vec::new();
        for sealed in self.sealed.drain(..leaving) {
            let reuse = (room > 0 && sealed.capacity == self.options.segment_bytes).then(|| {
                room -= 1;
                Spare { no: self.spares.number(), capacity: sealed.capacity, zeroed_to: sealed.written_to }
            });
            files.push(Discarded { file: FileId::Segment(sealed.segment), reuse });
        }
        tracing::debug!(segment = newest.get(), first_index = to.index.get() + 1, "old segments go");
        self.purge.begin(self.forming.newest(), files);
    }

    /// How many of the oldest segments are not needed any more: those without a live entry, and, beyond the bytes
    /// retained, those whose entries the page store has and nobody holds.
    fn segments_to_leave(&self) -> usize {
        let held = self.holds.values().copied().min().unwrap_or(LogIndex(u64::MAX));
        let bound = held.min(self.contents.base.checkpoint.applied);
        let retained = if self.space() == Space::Full { 0 } else { self.options.retained_bytes };
        let mut kept: u64 = self.sealed.iter().map(|sealed| sealed.capacity).sum();
        let mut leaving = 0;
        for sealed in &self.sealed {
            let leaves = match self.contents.locations.last_through(sealed.segment) {
                None => true,
                Some(last) => last <= bound && kept > retained,
            };
            if !leaves {
                break;
            }
            leaving += 1;
            kept -= sealed.capacity;
        }
        leaving
    }

    fn submit_fetches(&mut self, io: &mut IoQueue) {
        while let Some(wanted) = self.fetches.get_mut().next() {
            let runs = self.runs_to_read(wanted.low);
            let (Some(first), Some(last)) = (runs.first().copied(), runs.last()) else {
                // Let go meanwhile: raft finds out when it asks again, and sends a snapshot.
                continue;
            };
            let Some(salt) = self.salt_of(first.place.segment) else { continue };
            let length = last.place.offset + last.place.bytes - first.place.offset;
            let (file, length) =
                (FileId::Segment(first.place.segment), usize::try_from(length).unwrap_or(usize::MAX));
            let token = self.port.submit(io, IoOp::Read { file, offset: first.place.offset, length });
            self.fetches.get_mut().started(Reading::new(
                token,
                wanted,
                runs,
                self.contents.tail.first(),
                salt,
            ));
        }
    }

    /// The runs to read for entries from `low` on: at adjacent places, out of memory, of a bounded size.
    fn runs_to_read(&self, low: LogIndex) -> Vec<Run> {
        let in_memory = self.contents.tail.first();
        let most = self.options.fetch_bytes_max as u64;
        let mut runs: Vec<Run> = Vec::new();
        for run in self.contents.locations.from(low).take_while(|run| run.first < in_memory) {
            if let (Some(first), Some(last)) = (runs.first(), runs.last()) {
                let adjacent = last.place.segment == run.place.segment
                    && last.place.offset + last.place.bytes == run.place.offset;
                if !adjacent || run.place.offset + run.place.bytes - first.place.offset > most {
                    break;
                }
            }
            runs.push(run);
        }
        runs
    }

    fn salt_of(&self, segment: SegmentNo) -> Option<u64> {
        let active = self.writer.active();
        if segment == active.segment {
            return Some(active.salt);
        }
        let at = self.sealed.binary_search_by_key(&segment, |sealed| sealed.segment).ok()?;
        self.sealed.get(at).map(|sealed| sealed.salt)
    }

    /// Takes entries that were read. Damage, or a place that cannot be read, is fatal where a recovery would read it too.
    /// Elsewhere it harms nobody but those who need what was there.
    fn finish_fetch(
        &mut self,
        reading: Reading,
        result: Result<IoValue, IoError>,
    ) -> Result<LogEvents, LogError> {
        let Finished { entries, contexts, damage } = reading.finish(result, &self.contents.terms);
        let mut events = LogEvents { fetched: contexts, ..LogEvents::default() };
        match damage {
            None => {
                let first_index = self.first_index();
                let kept = entries.into_iter().filter(|entry| entry.index >= first_index.0).collect();
                self.fetches.get_mut().keep(kept);
            }
            Some(Damage { error, segment, .. }) if !self.is_merely_kept(segment) => return Err(error),
            // Otherwise it is left behind already.
            Some(Damage { error, through, .. }) if through > self.contents.base.truncated.index => {
                tracing::error!(%error, through = through.get(), "old entries of the log are lost");
                self.damages += 1;
                self.begin_behind(through);
                events.damage = Some(error);
            }
            Some(_) => {}
        }
        Ok(events)
    }

    /// Whether a recovery has nothing to look for in a segment: after the beginning of a later one everything was appended
    /// that the newest checkpoint lacks.
    pub(crate) fn is_merely_kept(&self, segment: SegmentNo) -> bool {
        let applied = self.writer.durable_base().checkpoint.applied;
        let active = self.writer.active();
        let later = self.sealed.iter().filter(|sealed| sealed.segment > segment).map(|sealed| sealed.after);
        let newest = (active.segment > segment).then_some(active.after);
        later.chain(newest).any(|after| after <= applied)
    }

    /// Lets the log begin behind an entry that a checkpoint contains. The segments before go as they always do.
    fn begin_behind(&mut self, index: LogIndex) {
        let base = self.contents.base;
        assert!(
            base.truncated.index < index && index <= base.checkpoint.applied,
            "the page store has it all"
        );
        let to = EntryPosition { index, term: self.contents.terms.term(index).unwrap_or_default() };
        self.contents.truncate(to, base.first_segment);
        self.add(&Record::Truncation { to, first_segment: base.first_segment });
    }
}
