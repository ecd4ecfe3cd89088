//! Damage to what is stored, struck only where the cluster can still recover.
//!
//! One node of a run, the victim, has a bad disk: bits rot, sectors become garbage, writes are lost or go astray. All its
//! replicas may find out, at any time, and then an operator empties the node and replaces it. So:
//! - only a run of three nodes or more has a victim, and while it has one no other node's directory is wiped;
//! - it is struck only while no node is being replaced;
//! - of a log's newest segment, only batches are struck that a later one proves durable, and only while the replica
//!   serves, when all that can be read is: the others cannot be told from a torn tail, on any disk that keeps one copy of
//!   them.
//!
//! A replica of the victim has to find the damage itself. That its log misses entries which the leader knows of it, is
//! found too late: it has voted since.
//!
//! Deliberately absent: damage to the identity (it has copies of its own, and scenarios), and to a store that a snapshot
//! is being received into.

use mesh_base::io::FileId;
use mesh_base::limits::SECTOR_BYTES;
use mesh_raftlog::inspect::proven_bytes;
use mesh_server::core::DirectoryKey;
use mesh_server::shard::status::Condition;

use super::process::Process;
use super::{Event, Node, World};
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
        let files = node.disk.files(owner).into_iter().map(|(file, _)| file);
        let files: Vec<FileId> =
            files.filter(|file| matches!(file, FileId::Segment(_) | FileId::Store)).collect();
        let newest = files.iter().copied().filter(|file| *file != FileId::Store).max();
        let Some(&file) = self.prng.choose(&files) else { return };
        if file == FileId::Store && self.prng.chance_per_mille(400) {
            let faults = [ArmedFault::LoseWrite, ArmedFault::MisdirectWrite];
            let fault = self.prng.choose(&faults).copied().unwrap_or(ArmedFault::LoseWrite);
            node.disk.arm(owner, file, fault);
            return;
        }
        let kinds = [Damage::FlipBit, Damage::ZeroSector, Damage::ScrambleSector, Damage::LoseSector];
        let damage = self.prng.choose(&kinds).copied().unwrap_or(Damage::FlipBit);
        if Some(file) != newest {
            node.disk.corrupt_somewhere(owner, file, damage);
        } else if node.serves(owner)
            && let Some(proven) = node.disk.contents(owner, file).and_then(|bytes| proven_bytes(&bytes))
            && proven > SECTOR_BYTES as u64
        {
            let offset = self.prng.range(SECTOR_BYTES as u64..proven);
            node.disk.corrupt(owner, file, offset, damage);
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

impl Node {
    /// Whether its replica of a directory has recovered and takes part.
    fn serves(&self, owner: DirectoryKey) -> bool {
        let DirectoryKey::Replica { shard, replica } = owner else { return false };
        let mut statuses = self.process.iter().flat_map(Process::statuses);
        statuses.any(|status| {
            (status.shard, status.replica, status.condition) == (shard, replica, Condition::Serving)
        })
    }
}
