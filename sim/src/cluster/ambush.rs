//! Crashes that wait for their moment: a node is struck while one of its writes or syncs is in flight, or just after it
//! took part in an election.
//!
//! A crash at any time finds a node idle, mostly: its disk works for microseconds out of milliseconds. What a crash can
//! break is broken in just those, between one step of a protocol and the next.

use std::time::Duration;

use mesh_base::io::{FileId, IoOp};

use super::{Event, World};
use crate::disk::Crash;
use crate::latency::draw_between;
use crate::report::Fault;

/// Operations of its kind that an ambush lets pass at most: enough for each step of a checkpoint to be the one.
const PASS_MAX: usize = 6;
/// The crash comes within so many times what the moment lasts: in it, or just after.
const REACH: u32 = 2;

/// Of a thousand nodes that were struck, those that a supervisor starts again at once, before anyone has missed them.
const SUPERVISED_PER_MILLE: u64 = 500;
/// How long that takes at most.
const SUPERVISOR: Duration = Duration::from_millis(10);

/// What lies in wait for a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ambush {
    kind: Crash,
    waits_for: Moment,
    /// Operations that it lets pass.
    pass: usize,
}

/// When a crash breaks most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Moment {
    /// The log is written.
    Log,
    /// A page store is written or synced.
    Store,
    /// Names of files change, or the node's identity is written.
    Names,
    /// A term began.
    Election,
}

impl Moment {
    /// The moment that an operation is, if it saves anything.
    pub(super) const fn of(op: &IoOp) -> Option<Self> {
        match op {
            IoOp::Write { file, .. } | IoOp::Truncate { file, .. } | IoOp::Sync { file } => {
                Some(match file {
                    FileId::Segment(_) | FileId::SpareSegment(_) => Self::Log,
                    FileId::Store | FileId::StagedStore => Self::Store,
                    FileId::Identity => Self::Names,
                })
            }
            IoOp::Create { .. } | IoOp::Rename { .. } | IoOp::Remove { .. } | IoOp::SyncDirectory => {
                Some(Self::Names)
            }
            IoOp::Read { .. } | IoOp::List | IoOp::Allocate { .. } => None,
        }
    }
}

impl World {
    /// Lets a crash wait for its moment.
    pub(super) fn lie_in_wait(&mut self, number: usize, kind: Crash) {
        let moments = [Moment::Log, Moment::Store, Moment::Names, Moment::Election];
        let waits_for = self.prng.choose(&moments).copied().unwrap_or(Moment::Log);
        let pass = match waits_for {
            Moment::Election => 0,
            Moment::Log | Moment::Store | Moment::Names => self.prng.index(PASS_MAX),
        };
        if let Some(node) = self.nodes.get_mut(number) {
            node.ambush = Some(Ambush { kind, waits_for, pass });
        }
    }

    /// A moment of a node that lasts so long: perhaps the one that was waited for.
    pub(super) fn pass_ambush(&mut self, number: usize, moment: Option<Moment>, lasting: Duration) {
        let Some(node) = self.nodes.get_mut(number) else { return };
        let (Some(ambush), Some(process)) = (&mut node.ambush, &node.process) else { return };
        if moment != Some(ambush.waits_for) {
            return;
        }
        if ambush.pass > 0 {
            ambush.pass -= 1;
            return;
        }
        let (kind, incarnation) = (ambush.kind, process.incarnation);
        node.ambush = None;
        let wait = draw_between(&mut self.prng, Duration::ZERO, lasting * REACH);
        self.heap.schedule(wait, Event::Struck { node: number, incarnation, kind });
    }

    /// The crash that waited.
    pub(super) fn spring_ambush(&mut self, number: usize, incarnation: u64, kind: Crash) {
        let process = self.nodes.get(number).and_then(|node| node.process.as_ref());
        if self.is_hostile && process.is_some_and(|process| process.incarnation == incarnation) {
            self.injected.count(Fault::Ambush);
            self.injected.count(Fault::of_crash(kind));
            self.end(number, kind);
            if self.prng.chance_per_mille(SUPERVISED_PER_MILLE) {
                let down = draw_between(&mut self.prng, Duration::ZERO, SUPERVISOR);
                self.heap.schedule(down, Event::Restart(number));
            }
        }
    }
}
