//! The end of a log's use in order: it goes on in a segment that has no room.
//!
//! That segment's file is its header, one sector, which says where the log stands. So the next recovery finds nothing to
//! walk but what no checkpoint contains, no torn tail to look behind, and no file worth keeping under the name that its
//! fresh segment takes. A log that is used again all the same goes on in a segment with room.
//!
//! Invariant: a closing segment follows or replaces another by the same steps as any.
//!
//! Deliberately absent: any need of it. A log that was not closed loses nothing but time.

use mesh_base::io::{IoError, IoQueue, IoToken};
use mesh_base::limits::SECTOR_BYTES;

use super::Log;
use crate::error::LogError;
use crate::spare::{Preparation, Prepared, Spare};

/// How far a log is that is to be closed.
#[derive(Debug)]
pub(super) enum Closing {
    No,
    /// The file of one sector is on its way.
    Preparing(Preparation),
    /// It is there, and waits for all that is to be written.
    Prepared(Spare),
    /// It becomes a segment.
    Switching,
    /// It is one, and nothing was added since; or there is no space for it.
    Closed,
}

impl Log {
    /// Closes the log, for a stop in order: opening it again is quick then. To be called when everything is durable that
    /// is to be; what is added later is as durable as ever, and the log is then not closed.
    pub fn close(&mut self, io: &mut IoQueue) {
        if self.poison.is_none() && !self.ends() {
            let mut preparation = Preparation::new(self.spares.number(), SECTOR_BYTES as u64, 0);
            preparation.submit(&mut self.port, io);
            self.closing = Closing::Preparing(preparation);
        }
    }

    /// Whether the log is still being closed. For want of space it may come to its end without that.
    #[must_use]
    pub const fn is_closing(&self) -> bool {
        matches!(self.closing, Closing::Preparing(_) | Closing::Prepared(_) | Closing::Switching)
    }

    /// Whether the log has had its last batch, as far as it knows: nothing is begun that would take another.
    pub(super) fn ends(&mut self) -> bool {
        if matches!(self.closing, Closing::Closed) && !self.forming.is_empty() {
            // It is used again all the same.
            self.closing = Closing::No;
        }
        !matches!(self.closing, Closing::No)
    }

    /// Whether the operation is of the closing segment's file.
    pub(super) fn closes(&self, token: IoToken) -> bool {
        matches!(&self.closing, Closing::Preparing(preparation) if preparation.owns(token))
    }

    pub(super) fn complete_closing(
        &mut self,
        result: Result<(), IoError>,
        io: &mut IoQueue,
    ) -> Result<(), LogError> {
        if let Closing::Preparing(preparation) = &mut self.closing {
            match preparation.complete(result, &mut self.port, io)? {
                Prepared::Working => {}
                Prepared::Ready(spare) => self.closing = Closing::Prepared(spare),
                Prepared::NoSpace => self.closing = Closing::Closed,
            }
        }
        Ok(())
    }

    /// Makes the file the log's next segment, once nothing waits to be written; or its newest, if nothing was written to
    /// that.
    pub(super) fn advance_closing(&mut self, io: &mut IoQueue) {
        let Closing::Prepared(spare) = self.closing else { return };
        if self.switch.is_some() || !self.forming.is_empty() {
            return;
        }
        let replaces = self.writer.is_at_start();
        let standing = if replaces { self.writer.standing_instead() } else { self.writer.standing() };
        let newest = self.writer.active().segment;
        let segment = if replaces { newest } else { newest.next() };
        self.closing = Closing::Switching;
        self.switch = Some(self.switch_to(spare, segment, standing, io));
    }
}
