//! Whether the operations on each key, put, delete and get, are linearizable: whether each can be given one instant
//! within its interval so that every get finds what the last write before it left.
//!
//! A key is a register, and every put of it writes a stamp of its own, so a get says which put it saw. That makes the
//! question easy where the search of Wing and Gong (1993) is exponential: the test of Gibbons and Korach ("Testing
//! shared memories", SIAM J. Comput. 26, 1997) takes `O(n log n)`, is exact, and its counterexamples are a
//! handful of operations. It is extended here by deletes, which leave no stamp behind:
//!
//! 1. A put and the gets that saw it are a *cluster*. Let `f` be the first response and `s` the last invocation in it.
//!    If `f < s`, the value must have been in effect from `f` to `s`: a *zone*, in which nothing else may take effect.
//!    Otherwise all of the cluster's operations contain the interval `s..f`, and it can take effect at any one instant of
//!    it, all at once: a *flash*.
//! 2. Zones must not overlap. A flash, a delete, or a get that found nothing must not lie wholly within a zone; what
//!    reaches into a zone must happen before it. For the rest a zone is one instant at which a value appears.
//! 3. What is left is a question of deadlines, answered by a sweep through time. A flash is best left until a delete,
//!    which wipes it out, or until its own deadline. A delete is best left until its own
//!    deadline, or until a get that found nothing cannot wait any longer; then the one with the earliest deadline is
//!    used, since the others can still do whatever it could. (Each of these choices can replace any other in a given
//!    order of effects without breaking it, so if the sweep fails there is no order.)
//!
//! An unknown put that nobody saw is left out: taking effect can only have made things worse. One that was seen took
//! effect before the first response that shows it. An unknown delete has no deadline. What was answered "not applied"
//! must not be seen.
//!
//! Not checked here: that revisions agree with this order ([`revisions`](crate::revisions)); that several keys were seen
//! or written at one instant ([`cuts`](crate::cuts), [`atomicity`](crate::atomicity)); that a delete which reports a
//! removal found a value to remove; operations whose effect depends on what they find ([`search`](crate::search)).

mod sweep;

use std::collections::BTreeMap;

use bytes::Bytes;

use self::sweep::{Claim, ClaimKind, Zone};
use crate::history::{Action, History, Operation, Outcome, Position, Stamp};
use crate::violation::{Anomaly, Violation};

/// Checks every key.
///
/// # Errors
/// The first violation found, in the order of keys.
pub fn check(history: &History) -> Result<(), Box<Violation>> {
    history.keys().try_for_each(|(_, operations)| check_operations(&operations))
}

/// Checks one key.
///
/// # Errors
/// The first violation found.
pub fn check_key(history: &History, key: &Bytes) -> Result<(), Box<Violation>> {
    check_operations(&history.of_key(key))
}

/// A put, and the gets that saw it.
#[derive(Clone, Copy, Debug)]
struct Cluster<'a> {
    stamp: Stamp,
    put: &'a Operation,
    /// The operation with the first response.
    first: &'a Operation,
    /// The operation with the last invocation.
    last: &'a Operation,
}

impl Cluster<'_> {
    fn is_zone(&self) -> bool {
        self.first.over() < self.last.invoked
    }
}

fn check_operations(operations: &[&Operation]) -> Result<(), Box<Violation>> {
    let clusters = clusters(operations)?;
    let (zones, flashes): (Vec<Cluster<'_>>, Vec<Cluster<'_>>) =
        clusters.into_iter().partition(Cluster::is_zone);
    let zones = disjoint(zones)?;
    let mut claims = Vec::new();
    for flash in &flashes {
        let (from, to) = (flash.last.invoked, flash.first.over());
        let kind = ClaimKind::Flash { stamp: flash.stamp, put: flash.put };
        if let Err(zone) = deadline(&zones, from, to).map(|to| claims.push(Claim::new(kind, from, to))) {
            let anomaly = Anomaly::OverwriteLost { kept: zone.stamp, lost: flash.stamp };
            return Err(Violation::new(
                anomaly,
                [flash.put, flash.first, flash.last, zone.first, zone.last, zone.put],
            ));
        }
    }
    for operation in operations {
        let Some(kind) = claim_of(operation) else { continue };
        let (from, to) = (operation.invoked, operation.over());
        if let Err(zone) = deadline(&zones, from, to).map(|to| claims.push(Claim::new(kind, from, to))) {
            let anomaly = match kind {
                ClaimKind::Delete(_) => Anomaly::DeleteLost(zone.stamp),
                _ => Anomaly::AbsentWhileInEffect(zone.stamp),
            };
            return Err(Violation::new(anomaly, [*operation, zone.first, zone.last, zone.put]));
        }
    }
    let zones: Vec<Zone<'_>> =
        zones.iter().map(|it| Zone { start: it.first.over(), stamp: it.stamp, put: it.put }).collect();
    sweep::sweep(&zones, &claims)
}

/// What an operation other than a put, or a get that found something, asks of the order of effects.
fn claim_of(operation: &Operation) -> Option<ClaimKind<'_>> {
    match (operation.action, operation.outcome()) {
        (Action::Delete, Outcome::Written(_) | Outcome::Unknown) => Some(ClaimKind::Delete(operation)),
        // A delete that found nothing is a get that found nothing.
        (Action::Delete, Outcome::NothingRemoved) | (Action::Get, Outcome::Absent) => {
            Some(ClaimKind::Absence(operation))
        }
        _ => None,
    }
}

fn clusters<'a>(operations: &[&'a Operation]) -> Result<Vec<Cluster<'a>>, Box<Violation>> {
    let mut clusters = BTreeMap::new();
    for &operation in operations {
        if let Action::Put(stamp) = operation.action {
            clusters.insert(stamp, Cluster { stamp, put: operation, first: operation, last: operation });
        }
    }
    for &operation in operations {
        let Outcome::Found(stamp, _) = operation.outcome() else { continue };
        let Some(cluster) = clusters.get_mut(&stamp) else {
            return Err(Violation::new(Anomaly::NeverWritten(stamp), [operation]));
        };
        if cluster.put.outcome() == Outcome::NotApplied {
            return Err(Violation::new(Anomaly::NotAppliedAndYetFound(stamp), [cluster.put, operation]));
        }
        if operation.over() < cluster.put.invoked {
            return Err(Violation::new(Anomaly::FoundBeforeWritten(stamp), [cluster.put, operation]));
        }
        if operation.over() < cluster.first.over() {
            cluster.first = operation;
        }
        if operation.invoked > cluster.last.invoked {
            cluster.last = operation;
        }
    }
    let has_effect = |cluster: &Cluster<'_>| {
        cluster.put.outcome() != Outcome::NotApplied && cluster.first.over() != Position::NEVER
    };
    Ok(clusters.into_values().filter(has_effect).collect())
}

/// The zones in their order, none of which begins before the one before it ends.
fn disjoint(mut zones: Vec<Cluster<'_>>) -> Result<Vec<Cluster<'_>>, Box<Violation>> {
    zones.sort_by_key(|zone| zone.first.over());
    for (one, next) in zones.iter().zip(zones.iter().skip(1)) {
        if one.last.invoked > next.first.over() {
            let proof = [one.put, one.first, one.last, next.put, next.first, next.last];
            return Err(Violation::new(Anomaly::TwoInEffect(one.stamp, next.stamp), proof));
        }
    }
    Ok(zones)
}

/// By when what has the interval must have taken effect: the interval's end, or the start of the zone around it. If it
/// lies wholly within a zone, that zone. (Where it begins within a zone there is nothing to cut: nothing happens there.)
fn deadline<'z, 'a>(
    zones: &'z [Cluster<'a>],
    from: Position,
    to: Position,
) -> Result<Position, &'z Cluster<'a>> {
    let begun = zones.partition_point(|zone| zone.first.over() < to);
    let around = begun.checked_sub(1).and_then(|last| zones.get(last)).filter(|zone| to < zone.last.invoked);
    match around {
        Some(zone) if zone.first.over() < from => Err(zone),
        Some(zone) => Ok(zone.first.over()),
        None => Ok(to),
    }
}

#[cfg(test)]
mod tests;
