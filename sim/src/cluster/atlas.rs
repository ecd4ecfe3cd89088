//! Damage to what is stored, struck only where the cluster can still recover.
//!
//! One node of a run, the victim, has a bad disk: bits rot, sectors become garbage, writes are lost or go astray. All its
//! replicas may find out, at any time, and then an operator empties the node and replaces it. So:
//! - only a run of three nodes or more has a victim, and while it has one no other node's directory is wiped;
//! - it is struck only while no node is being replaced;
//! - of a log, only segments are struck that have a successor: of the newest, the batches that no later one proves
//!   durable cannot be told from a torn tail, on any disk that keeps one copy of them.
//!
//! Deliberately absent: damage to the identity (it has copies of its own, and scenarios), and to a store that a snapshot
//! is being received into.

use mesh_base::io::FileId;
use mesh_server::core::DirectoryKey;

use super::{Event, World};
use crate::disk::{ArmedFault, Crash, Damage};

impl World {
    /// Draws the victim, in a run whose options have one.
    pub(super) fn appoint_victim(&mut self) {
        if self.nodes.len() >= 3 && self.options.faults.rot_every.is_some() {
            self.victim = Some(self.prng.index(self.nodes.len()));
            self.plan(self.options.faults.rot_every, Event::Rot);
        }
    }

    /// Something stored on the victim's disk is damaged.
    pub(super) fn rot(&mut self) {
        let Some(victim) = self.victim.filter(|_| self.is_hostile) else { return };
        if self.nodes.iter().all(|node| node.lost.is_none()) {
            self.strike(victim);
            // What is in memory is not read: a restart looks.
            if self.prng.chance_per_mille(200) {
                self.end(victim, Crash::Process);
            }
        }
        self.plan(self.options.faults.rot_every, Event::Rot);
    }

    fn strike(&mut self, number: usize) {
        let Some(node) = self.nodes.get_mut(number) else { return };
        let owners: Vec<DirectoryKey> =
            node.disk.owners().filter(|owner| matches!(owner, DirectoryKey::Replica { .. })).collect();
        let Some(&owner) = self.prng.choose(&owners) else { return };
        let files = node.disk.files(owner);
        let newest = files.iter().filter_map(|(file, _)| segment(*file)).max();
        let may_be_struck = |file: FileId| match file {
            FileId::Segment(_) => segment(file) < newest,
            file => file == FileId::Store,
        };
        let files: Vec<FileId> =
            files.into_iter().map(|(file, _)| file).filter(|it| may_be_struck(*it)).collect();
        let Some(&file) = self.prng.choose(&files) else { return };
        if file == FileId::Store && self.prng.chance_per_mille(400) {
            let faults = [ArmedFault::LoseWrite, ArmedFault::MisdirectWrite];
            let fault = self.prng.choose(&faults).copied().unwrap_or(ArmedFault::LoseWrite);
            node.disk.arm(owner, file, fault);
        } else {
            let kinds = [Damage::FlipBit, Damage::ZeroSector, Damage::ScrambleSector];
            let damage = self.prng.choose(&kinds).copied().unwrap_or(Damage::FlipBit);
            node.disk.corrupt_somewhere(owner, file, damage);
        }
    }

    /// A replica of the victim found what was done to it: an operator empties the node, to have it replaced.
    pub(super) fn found_damage(&mut self, number: usize) {
        let process = self.nodes.get(number).and_then(|node| node.process.as_ref());
        let replica = process.and_then(|process| process.statuses().next()).map(|status| status.replica);
        if let Some(replica) = replica {
            self.lose(number, replica);
        } else {
            self.end(number, Crash::Process);
        }
    }
}

fn segment(file: FileId) -> Option<u64> {
    match file {
        FileId::Segment(no) => Some(no.0),
        _ => None,
    }
}
