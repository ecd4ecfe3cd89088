//! The sweep through time that gives every claim its instant, or shows that one cannot have any.
//!
//! Claims are what zones leave to decide: values that appear and vanish unseen, deletes, and gets that found nothing.
//! See the parent for why the choices here are the best ones.
//!
//! Invariant: while the key has no value, no get that found nothing is waiting; it was given its instant at once.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Operation, Position, Stamp};
use crate::violation::{Anomaly, Violation};

/// A value that is in effect from an instant on. Everything else is outside of its time already.
#[derive(Clone, Copy, Debug)]
pub(super) struct Zone<'a> {
    pub(super) start: Position,
    pub(super) stamp: Stamp,
    pub(super) put: &'a Operation,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum ClaimKind<'a> {
    /// A value that may appear at any one instant.
    Flash { stamp: Stamp, put: &'a Operation },
    /// A delete, which must have an instant unless it has no deadline.
    Delete(&'a Operation),
    /// A get that found nothing.
    Absence(&'a Operation),
}

/// Something that needs an instant between two positions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim<'a> {
    kind: ClaimKind<'a>,
    from: Position,
    to: Position,
}

impl<'a> Claim<'a> {
    pub(super) const fn new(kind: ClaimKind<'a>, from: Position, to: Position) -> Self {
        Self { kind, from, to }
    }
}

/// What happens at one position, in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Moment {
    /// Deadlines: a value appears first, a delete may still remove it, a get that found nothing profits.
    FlashDue(usize),
    DeleteDue(usize),
    AbsenceDue(usize),
    ZoneStarts(usize),
    /// A claim may be given its instant from here on.
    Begins(usize),
}

/// Gives every claim its instant.
pub(super) fn sweep(zones: &[Zone<'_>], claims: &[Claim<'_>]) -> Result<(), Box<Violation>> {
    let mut moments = Vec::with_capacity(zones.len() + 2 * claims.len());
    moments.extend(zones.iter().enumerate().map(|(index, zone)| (zone.start, Moment::ZoneStarts(index))));
    for (index, claim) in claims.iter().enumerate() {
        assert!(claim.from <= claim.to, "a claim without any instant: {claim:?}");
        moments.push((claim.from, Moment::Begins(index)));
        if claim.to != Position::NEVER {
            let due = match claim.kind {
                ClaimKind::Flash { .. } => Moment::FlashDue(index),
                ClaimKind::Delete(_) => Moment::DeleteDue(index),
                ClaimKind::Absence(_) => Moment::AbsenceDue(index),
            };
            moments.push((claim.to, due));
        }
    }
    moments.sort_unstable();
    let mut sweep = Sweep::default();
    for (_, moment) in moments {
        match moment {
            Moment::ZoneStarts(index) => {
                if let Some(zone) = zones.get(index) {
                    sweep.value = Some((zone.stamp, zone.put));
                }
            }
            Moment::Begins(index) => {
                if let Some(claim) = claims.get(index) {
                    sweep.begin(index, claim);
                }
            }
            Moment::FlashDue(index) => {
                if let Some(flash) = sweep.flashes.remove(&index) {
                    sweep.value = Some(flash);
                }
            }
            Moment::DeleteDue(index) => sweep.delete_due(index),
            Moment::AbsenceDue(index) => sweep.absence_due(index)?,
        }
    }
    Ok(())
}

#[derive(Default, Debug)]
struct Sweep<'a> {
    /// The value of the key, if it has one.
    value: Option<(Stamp, &'a Operation)>,
    /// The delete that took effect last.
    last_delete: Option<&'a Operation>,
    /// Values that may still flash. It makes no difference while the key has a value anyway.
    flashes: BTreeMap<usize, (Stamp, &'a Operation)>,
    /// By deadline.
    deletes: BTreeSet<(Position, usize)>,
    deletes_by_index: BTreeMap<usize, (Position, &'a Operation)>,
    absences: BTreeMap<usize, &'a Operation>,
}

impl<'a> Sweep<'a> {
    fn begin(&mut self, index: usize, claim: &Claim<'a>) {
        match claim.kind {
            ClaimKind::Flash { stamp, put } => {
                self.flashes.insert(index, (stamp, put));
            }
            ClaimKind::Delete(delete) => {
                self.deletes.insert((claim.to, index));
                self.deletes_by_index.insert(index, (claim.to, delete));
            }
            ClaimKind::Absence(get) if self.value.is_some() => {
                self.absences.insert(index, get);
            }
            ClaimKind::Absence(_) => {}
        }
    }

    fn delete_due(&mut self, index: usize) {
        if let Some((deadline, delete)) = self.deletes_by_index.remove(&index) {
            self.deletes.remove(&(deadline, index));
            self.take_effect(delete);
        }
    }

    fn absence_due(&mut self, index: usize) -> Result<(), Box<Violation>> {
        let Some(get) = self.absences.get(&index).copied() else { return Ok(()) };
        let next = self.deletes.pop_first().and_then(|(_, delete)| self.deletes_by_index.remove(&delete));
        if let Some((_, delete)) = next {
            self.take_effect(delete);
            return Ok(());
        }
        let (stamp, put) =
            self.value.unwrap_or_else(|| unreachable!("nothing waits for absence without a value"));
        let proof = [Some(put), self.last_delete, Some(get)];
        Err(Violation::new(Anomaly::AbsentWithoutDelete(stamp), proof.into_iter().flatten()))
    }

    /// A delete takes effect. All that may flash does so right before it; all gets that wait for absence get it.
    fn take_effect(&mut self, delete: &'a Operation) {
        self.flashes.clear();
        self.absences.clear();
        self.value = None;
        self.last_delete = Some(delete);
    }
}
