//! One node of a scenario: what can be done to it, and what can be waited for.

use std::time::Duration;

use mesh_base::ShardId;
use mesh_base::io::FileId;
use mesh_server::core::{DirectoryKey, Notice};
use mesh_server::shard::ShardStatus;
use mesh_server::shard::status::{Condition, Role};

use super::damage::Place;
use super::stage::Stage;
use super::when::{When, when};
use crate::disk::{ArmedFault, Crash, Damage, DirectoryCopy};

/// Entries that any replica may lack for a moment while others write.
const FEW_ENTRIES: u64 = 64;

/// Names a node, and what may be so with it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct NodeNo(pub(crate) usize);

impl NodeNo {
    /// It leads the first shard.
    #[must_use]
    pub fn leads(self) -> When {
        self.reports("leads", |status| status.role == Role::Leader)
    }

    /// It follows another in the first shard.
    #[must_use]
    pub fn follows(self) -> When {
        self.reports("follows", |status| status.role == Role::Follower && status.leader.is_some())
    }

    /// It stands for election in the first shard, or finds out whether it could win.
    #[must_use]
    pub fn campaigns(self) -> When {
        self.reports("campaigns", |status| matches!(status.role, Role::Candidate | Role::PreCandidate))
    }

    /// Its replicas take part, all of them.
    #[must_use]
    pub fn serves(self) -> When {
        when(format!("{self:?} serves"), move |it| {
            let statuses = it.script.statuses(self.0);
            statuses.len() == usize::from(it.script.shard_count())
                && statuses.iter().all(|status| status.condition == Condition::Serving)
        })
    }

    /// Its replica of the first shard votes.
    #[must_use]
    pub fn votes(self) -> When {
        self.reports("votes", |status| status.voters.contains(&status.replica))
    }

    /// Its replicas have this id.
    #[must_use]
    pub fn has_id(self, id: u64) -> When {
        self.reports(&format!("has the id {id}"), move |status| status.replica.0 == id)
    }

    /// Its replica of the first shard receives without a vote.
    #[must_use]
    pub fn learns(self) -> When {
        self.reports("learns", |status| status.role == Role::Learner)
    }

    /// Its replica of the first shard receives a snapshot, or takes it in.
    #[must_use]
    pub fn receives_a_snapshot(self) -> When {
        self.reports("receives a snapshot", |status| status.condition == Condition::ReceivingSnapshot)
    }

    /// Its replica of the first shard has something of a snapshot on its disk, beside its store.
    #[must_use]
    pub fn keeps_a_staged_store(self) -> When {
        when(format!("{self:?} keeps a staged store"), move |it| {
            let directory = it.script.directory_of(self.0, ShardId(0));
            let files = it.script.disk(self.0).zip(directory).map(|(disk, at)| disk.files(at));
            files.unwrap_or_default().iter().any(|(file, _)| *file == FileId::StagedStore)
        })
    }

    /// Its replica of the first shard takes in a snapshot: its log begins after it, its store is still the old one.
    #[must_use]
    pub fn takes_in_a_snapshot(self) -> When {
        self.reports("takes in a snapshot", |status| status.first_index > status.applied.next())
    }

    /// Its replicas take part, and that of the first shard has applied all but the last few entries that any other knows to
    /// be committed.
    #[must_use]
    pub fn has_caught_up(self) -> When {
        let near = when(format!("{self:?} has caught up"), move |it| {
            let others = (0..it.script.node_count()).filter_map(|node| it.status(Self(node)));
            let committed = others.map(|status| status.commit).max().unwrap_or_default();
            it.status(self).is_some_and(|status| status.applied.0 + FEW_ENTRIES >= committed.0)
        });
        near.and(self.serves())
    }

    /// Its replica of the first shard takes no writes for want of space.
    #[must_use]
    pub fn is_read_only(self) -> When {
        self.reports("is read-only", |status| status.condition == Condition::ReadOnly)
    }

    /// It belongs to a cluster.
    #[must_use]
    pub fn is_born(self) -> When {
        when(format!("{self:?} is born"), move |it| it.script.cluster_of(self.0).is_some())
    }

    /// The file of its first shard's page store has at most so many bytes.
    #[must_use]
    pub fn stores_in_at_most(self, bytes: u64) -> When {
        when(format!("{self:?} stores in at most {bytes} bytes"), move |it| {
            let directory = it.script.directory_of(self.0, ShardId(0));
            let files = it.script.disk(self.0).zip(directory).map(|(disk, directory)| disk.files(directory));
            let store = files.iter().flatten().find(|(file, _)| *file == FileId::Store);
            store.is_some_and(|(_, length)| *length <= bytes)
        })
    }

    /// Its process runs no more.
    #[must_use]
    pub fn is_down(self) -> When {
        when(format!("{self:?} is down"), move |it| !it.script.is_up(self.0))
    }

    /// It is back, in every shard, after it was replaced.
    #[must_use]
    pub fn is_back(self) -> When {
        let back = when(format!("{self:?} is back"), move |it| !it.script.is_being_replaced(self.0));
        back.and(self.serves())
    }

    /// It has told its operator something with these words.
    #[must_use]
    pub fn says(self, words: &str) -> When {
        let words = words.to_owned();
        when(format!("{self:?} says \"{words}\""), move |it| {
            it.told_by(self).iter().any(|notice| match notice {
                Notice::Waiting { reason } | Notice::Damaged { reason, .. } | Notice::Fatal { reason } => {
                    reason.contains(&words)
                }
                Notice::ClusterReady { .. } => false,
            })
        })
    }

    /// One of its replicas takes no further part, or the node itself.
    #[must_use]
    pub fn is_out(self) -> When {
        when(format!("{self:?} is out"), move |it| {
            it.told_by(self).iter().any(|it| matches!(it, Notice::Damaged { .. } | Notice::Fatal { .. }))
        })
    }

    /// The report of its replica of the first shard is as wanted.
    #[must_use]
    pub fn reports(self, what: &str, as_wanted: impl Fn(&ShardStatus) -> bool + 'static) -> When {
        when(format!("{self:?} {what}"), move |it| it.status(self).is_some_and(|status| as_wanted(&status)))
    }
}

/// A node, to do something to.
#[derive(Debug)]
pub struct Node<'s, 'a> {
    pub(super) stage: &'s mut Stage<'a>,
    pub(super) node: NodeNo,
}

impl<'s, 'a> Node<'s, 'a> {
    /// Its process ends, or its machine's power. It stays down.
    pub fn crash(self, crash: Crash) {
        self.stage.script.crash(self.node.0, crash);
    }

    /// Its process starts, if it does not run.
    pub fn start(self) {
        self.stage.script.start(self.node.0);
    }

    /// Its process is killed and started again.
    pub fn restart(self) {
        self.stage.script.crash(self.node.0, Crash::Process);
        self.stage.script.start(self.node.0);
    }

    /// Its process is told to stop, and stops in order.
    pub fn stop(self) {
        self.stage.script.stop(self.node.0);
    }

    /// Its process stands still. What comes for it waits.
    pub fn pause(self) {
        self.stage.script.pause(self.node.0);
    }

    /// Its process goes on, and finds all that came meanwhile.
    pub fn resume(self) {
        self.stage.script.resume(self.node.0);
    }

    /// Its disk.
    #[must_use]
    pub const fn disk(self) -> Disk<'s, 'a> {
        Disk { stage: self.stage, node: self.node }
    }
}

/// The disk of a node.
#[derive(Debug)]
pub struct Disk<'s, 'a> {
    stage: &'s mut Stage<'a>,
    node: NodeNo,
}

impl Disk<'_, '_> {
    /// It has no more space than what is in use.
    pub fn fill(self) {
        self.leave(0);
    }

    /// It has so many bytes left.
    pub fn leave(self, bytes: u64) {
        if let Some(disk) = self.stage.script.disk_mut(self.node.0) {
            disk.set_capacity_bytes(disk.used_bytes() + bytes);
        }
    }

    /// It takes so many times as long as usual.
    pub fn slow(self, factor: u32) {
        if let Some(disk) = self.stage.script.disk_mut(self.node.0) {
            disk.set_slowdown(factor);
        }
    }

    /// It is as large and as fast as ever. What was damaged stays so.
    pub fn repair(self) {
        self.stage.script.repair_disk(self.node.0);
    }

    /// A copy of the directory of the first shard's replica, taken while the node is down.
    #[must_use]
    pub fn copy(self) -> Option<DirectoryCopy> {
        let directory = self.stage.script.directory_of(self.node.0, ShardId(0))?;
        self.stage.script.disk(self.node.0)?.copy_of(directory)
    }

    /// The copy takes the place of that directory.
    pub fn put_back(self, copy: DirectoryCopy) {
        let directory = self.stage.script.directory_of(self.node.0, ShardId(0));
        if let Some((disk, directory)) = self.stage.script.disk_mut(self.node.0).zip(directory) {
            disk.put_back(directory, copy);
        }
    }

    /// The bytes of the first shard's page store.
    #[must_use]
    pub fn store(self) -> Option<Vec<u8>> {
        let directory = self.stage.script.directory_of(self.node.0, ShardId(0))?;
        self.stage.script.disk(self.node.0)?.contents(directory, FileId::Store)
    }

    /// The medium damages a place.
    ///
    /// # Panics
    /// When there is no such place.
    #[track_caller]
    pub fn corrupt(self, place: Place, damage: Damage) {
        let Self { stage, node } = self;
        stage.script.forgive(node.0);
        let Some((directory, file, offset)) = place.find(&stage.script, node.0) else {
            stage.fail(&format!("{node:?} has no {place:?} on its disk"))
        };
        if let Some(disk) = stage.script.disk_mut(node.0) {
            assert!(disk.corrupt(directory, file, offset, damage), "{file} is shorter than {offset}");
        }
    }

    /// The next operation of the fault's kind on the first shard's page store goes wrong.
    pub fn fail_store(self, fault: ArmedFault) {
        let directory = self.stage.script.directory_of(self.node.0, ShardId(0));
        self.arm(directory, FileId::Store, fault);
    }

    /// The next operation of the fault's kind on the newest segment of the first shard's log goes wrong.
    pub fn fail_log(self, fault: ArmedFault) {
        let directory = self.stage.script.directory_of(self.node.0, ShardId(0));
        let disk = self.stage.script.disk(self.node.0);
        let files = disk.zip(directory).map(|(disk, directory)| disk.files(directory)).unwrap_or_default();
        let segments = files.iter().filter(|(file, _)| matches!(file, FileId::Segment(_)));
        if let Some(&(newest, _)) = segments.max() {
            self.arm(directory, newest, fault);
        }
    }

    /// The next operation of the fault's kind on the node's identity goes wrong.
    pub fn fail_identity(self, fault: ArmedFault) {
        self.arm(Some(DirectoryKey::Node), FileId::Identity, fault);
    }

    fn arm(self, directory: Option<DirectoryKey>, file: FileId, fault: ArmedFault) {
        self.stage.script.forgive(self.node.0);
        if let (Some(directory), Some(disk)) = (directory, self.stage.script.disk_mut(self.node.0)) {
            disk.arm(directory, file, fault);
        }
    }
}

/// The clocks of a node.
#[derive(Debug)]
pub struct Clock<'s, 'a> {
    pub(super) stage: &'s mut Stage<'a>,
    pub(super) node: NodeNo,
}

impl Clock<'_, '_> {
    /// The wall clock goes forward at once.
    pub fn jump_forward(self, by: Duration) {
        self.jump(i64::try_from(by.as_millis()).unwrap_or(i64::MAX));
    }

    /// The wall clock goes back at once.
    pub fn jump_back(self, by: Duration) {
        self.jump(-i64::try_from(by.as_millis()).unwrap_or(i64::MAX));
    }

    /// Both clocks are fast, or slow below zero, by so many parts in a million.
    pub fn drift(self, ppm: i64) {
        let now = self.stage.now();
        if let Some(clock) = self.stage.script.clock(self.node.0) {
            clock.set_drift(now, ppm);
        }
    }

    fn jump(self, jump_ms: i64) {
        let now = self.stage.now();
        if let Some(clock) = self.stage.script.clock(self.node.0) {
            clock.jump_wall(now, jump_ms);
        }
    }
}
