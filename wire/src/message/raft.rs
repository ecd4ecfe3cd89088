//! Messages of raft, as they cross the network. This crate does not know what they mean: a message's type and an entry's
//! type are numbers, and whoever steps a group with a message looks at it first.

use std::fmt;

use flatbuffers::{Vector, WIPOffset};
use mesh_base::limits::{ENTRY_BYTES_MAX, FRAME_PAYLOAD_BYTES_MAX, FRAME_TABLES_MAX, NODES_MAX};
use mesh_base::{LogIndex, ReplicaId, Revision, ShardId, Term};

use super::{MESSAGE_OVERHEAD_BYTES, Message, check_replicas, check_shard};
use crate::builder::{Builder, Of, Root};
use crate::generated::mesh::wire as fb;
use crate::wire_error::{at_most, ensure};
use crate::{List, WireError};

/// Tables that a message takes besides its entries: itself and those of its snapshot.
const TABLES_PER_MESSAGE: usize = 4;
/// More than an entry takes besides its bytes.
const ENTRY_BYTES: usize = 64;

const _: () = {
    // Whatever the hint of a raft frame has beyond its payload is less than the payload's limit.
    assert!(ENTRY_BYTES * FRAME_TABLES_MAX < FRAME_PAYLOAD_BYTES_MAX);
    assert!(MESSAGE_OVERHEAD_BYTES <= ENTRY_BYTES * TABLES_PER_MESSAGE);
};

/// An entry of a log.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct RaftEntry<'a> {
    /// Where in the log it is.
    pub index: LogIndex,
    /// The term that it was proposed in.
    pub term: Term,
    /// What it is, as raft numbers it.
    pub entry_type: u8,
    /// What it says.
    pub data: &'a [u8],
    /// What its proposer put beside it.
    pub context: &'a [u8],
}

impl fmt::Debug for RaftEntry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, term, entry_type, data, context } = self;
        write!(f, "{index:?} {term:?} type {entry_type}, {} + {} bytes", data.len(), context.len())
    }
}

impl<'a> RaftEntry<'a> {
    pub(crate) fn view(wire: fb::RaftEntry<'a>) -> Self {
        Self {
            index: LogIndex(wire.index()),
            term: Term(wire.term()),
            entry_type: wire.entry_type(),
            data: wire.data().map(|data| data.bytes()).unwrap_or_default(),
            context: wire.context().map(|context| context.bytes()).unwrap_or_default(),
        }
    }

    fn check(&self) -> Result<(), WireError> {
        at_most("bytes of an entry", self.data.len() + self.context.len(), ENTRY_BYTES_MAX)
    }

    fn build(&self, to: &mut Builder) -> WIPOffset<fb::RaftEntry<'static>> {
        let data = to.bytes_if_any(self.data);
        let context = to.bytes_if_any(self.context);
        let args = fb::RaftEntryArgs {
            index: self.index.0,
            term: self.term.0,
            entry_type: self.entry_type,
            data,
            context,
        };
        fb::RaftEntry::create(&mut to.flat, &args)
    }
}

/// Who is in a group.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ConfState<'a> {
    /// Who votes.
    pub voters: List<'a, ReplicaId>,
    /// Who does not.
    pub learners: List<'a, ReplicaId>,
    /// Who voted before a change that is not over.
    pub voters_outgoing: List<'a, ReplicaId>,
    /// Who will not vote any more when the change is over.
    pub learners_next: List<'a, ReplicaId>,
    /// Whether the leader ends the change by itself.
    pub auto_leave: bool,
}

fn build_ids(ids: List<'_, ReplicaId>, to: &mut Builder) -> Option<Of<u64>> {
    (!ids.is_empty()).then(|| to.flat_list(ids.iter().map(|id| id.0)))
}

fn view_ids<'a>(ids: Option<Vector<'a, u64>>) -> List<'a, ReplicaId> {
    List::optional(ids)
}

impl<'a> ConfState<'a> {
    fn view(wire: fb::ConfState<'a>) -> Self {
        Self {
            voters: view_ids(wire.voters()),
            learners: view_ids(wire.learners()),
            voters_outgoing: view_ids(wire.voters_outgoing()),
            learners_next: view_ids(wire.learners_next()),
            auto_leave: wire.auto_leave(),
        }
    }

    fn check(&self) -> Result<(), WireError> {
        [self.voters, self.learners, self.voters_outgoing, self.learners_next].iter().try_for_each(|ids| {
            at_most("members of a group", ids.len(), NODES_MAX)?;
            ensure!(ids.iter().all(|id| id.0 != 0), "a member's replica");
            Ok(())
        })
    }

    fn build(&self, to: &mut Builder) -> WIPOffset<fb::ConfState<'static>> {
        let args = fb::ConfStateArgs {
            voters: build_ids(self.voters, to),
            learners: build_ids(self.learners, to),
            voters_outgoing: build_ids(self.voters_outgoing, to),
            learners_next: build_ids(self.learners_next, to),
            auto_leave: self.auto_leave,
        };
        fb::ConfState::create(&mut to.flat, &args)
    }
}

/// What a snapshot contains.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SnapshotMeta<'a> {
    /// The last entry that was applied to it.
    pub index: LogIndex,
    /// That entry's term.
    pub term: Term,
    /// The group's members at that entry.
    pub conf: ConfState<'a>,
}

impl<'a> SnapshotMeta<'a> {
    pub(crate) fn view(wire: fb::SnapshotMeta<'a>) -> Self {
        Self { index: LogIndex(wire.index()), term: Term(wire.term()), conf: ConfState::view(wire.conf()) }
    }

    pub(crate) fn check(&self) -> Result<(), WireError> {
        self.conf.check()
    }

    pub(crate) fn build(&self, to: &mut Builder) -> WIPOffset<fb::SnapshotMeta<'static>> {
        let conf = self.conf.build(to);
        let args = fb::SnapshotMetaArgs { index: self.index.0, term: self.term.0, conf: Some(conf) };
        fb::SnapshotMeta::create(&mut to.flat, &args)
    }
}

/// A snapshot as raft knows it: its keys are sent apart.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct RaftSnapshot<'a> {
    /// What it contains.
    pub meta: SnapshotMeta<'a>,
    /// What its sender put beside it.
    pub data: &'a [u8],
}

impl fmt::Debug for RaftSnapshot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} and {} bytes", self.meta, self.data.len())
    }
}

impl<'a> RaftSnapshot<'a> {
    fn view(wire: fb::RaftSnapshot<'a>) -> Self {
        Self {
            meta: SnapshotMeta::view(wire.meta()),
            data: wire.data().map(|data| data.bytes()).unwrap_or_default(),
        }
    }

    fn build(&self, to: &mut Builder) -> WIPOffset<fb::RaftSnapshot<'static>> {
        let meta = self.meta.build(to);
        let data = to.bytes_if_any(self.data);
        fb::RaftSnapshot::create(&mut to.flat, &fb::RaftSnapshotArgs { meta: Some(meta), data })
    }
}

/// A message of one group's raft.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RaftMessage<'a> {
    /// The group's shard.
    pub shard: ShardId,
    /// The replica that sends it. Never 0.
    pub from: ReplicaId,
    /// The replica that it is for. Never 0.
    pub to: ReplicaId,
    /// What it is, as raft numbers it.
    pub msg_type: u8,
    /// The sender's term.
    pub term: Term,
    /// The term of the entry at `index`, or the candidate's last.
    pub log_term: Term,
    /// The entry before the message's entries, or what else the type makes of it.
    pub index: LogIndex,
    /// What the sender knows to be committed.
    pub commit: LogIndex,
    /// The term of the entry at `commit`.
    pub commit_term: Term,
    /// Whether this refuses what was asked.
    pub reject: bool,
    /// Where the refusing replica's log may agree with the leader's.
    pub reject_hint: LogIndex,
    /// The least index that a snapshot which is asked for must contain.
    pub request_snapshot: LogIndex,
    /// The candidate's priority.
    pub priority: i64,
    /// What the sender put beside it.
    pub context: &'a [u8],
    /// The entries.
    pub entries: List<'a, RaftEntry<'a>>,
    /// The snapshot.
    pub snapshot: Option<RaftSnapshot<'a>>,
}

impl<'a> RaftMessage<'a> {
    pub(crate) fn view(wire: fb::RaftMessage<'a>) -> Self {
        Self {
            shard: ShardId(wire.shard()),
            from: ReplicaId(wire.from()),
            to: ReplicaId(wire.to()),
            msg_type: wire.msg_type(),
            term: Term(wire.term()),
            log_term: Term(wire.log_term()),
            index: LogIndex(wire.index()),
            commit: LogIndex(wire.commit()),
            commit_term: Term(wire.commit_term()),
            reject: wire.reject(),
            reject_hint: LogIndex(wire.reject_hint()),
            request_snapshot: LogIndex(wire.request_snapshot()),
            priority: wire.priority(),
            context: wire.context().map(|context| context.bytes()).unwrap_or_default(),
            entries: List::optional(wire.entries()),
            snapshot: wire.snapshot().map(RaftSnapshot::view),
        }
    }

    /// As many bytes as the message takes in a frame, or somewhat more; never fewer. By it a sender splits the messages
    /// of a turn into frames.
    #[must_use]
    pub fn size_hint(&self) -> usize {
        let entries = self.entries.iter().map(|entry| entry.data.len() + entry.context.len() + ENTRY_BYTES);
        let snapshot =
            self.snapshot.map_or(0, |snapshot| snapshot.data.len() + conf_hint(&snapshot.meta.conf));
        MESSAGE_OVERHEAD_BYTES + self.context.len() + entries.sum::<usize>() + snapshot
    }

    fn check(&self) -> Result<(), WireError> {
        check_shard(self.shard)?;
        check_replicas(self.from, self.to)?;
        self.entries.iter().try_for_each(|entry| entry.check())?;
        self.snapshot.map_or(Ok(()), |snapshot| snapshot.meta.check())
    }

    fn build(&self, to: &mut Builder) -> WIPOffset<fb::RaftMessage<'static>> {
        let context = to.bytes_if_any(self.context);
        let entries =
            (!self.entries.is_empty()).then(|| to.list(self.entries.iter(), |to, entry| entry.build(to)));
        let snapshot = self.snapshot.map(|snapshot| snapshot.build(to));
        let args = fb::RaftMessageArgs {
            shard: self.shard.0,
            from: self.from.0,
            to: self.to.0,
            msg_type: self.msg_type,
            term: self.term.0,
            log_term: self.log_term.0,
            index: self.index.0,
            commit: self.commit.0,
            commit_term: self.commit_term.0,
            reject: self.reject,
            reject_hint: self.reject_hint.0,
            request_snapshot: self.request_snapshot.0,
            priority: self.priority,
            context,
            entries,
            snapshot,
        };
        fb::RaftMessage::create(&mut to.flat, &args)
    }
}

pub(crate) fn conf_hint(conf: &ConfState<'_>) -> usize {
    let members =
        conf.voters.len() + conf.learners.len() + conf.voters_outgoing.len() + conf.learners_next.len();
    MESSAGE_OVERHEAD_BYTES + 8 * members
}

/// What all groups of one node have to say to another node in one turn.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Raft<'a> {
    /// The newest revision that the sender has assigned or heard of.
    pub newest_revision: Revision,
    /// The messages; those of one group in their order.
    pub messages: List<'a, RaftMessage<'a>>,
}

impl<'a> Message<'a> for Raft<'a> {
    type Table = fb::Raft<'a>;

    fn view(table: Self::Table) -> Result<Self, WireError> {
        Ok(Self { newest_revision: Revision(table.newest_revision()), messages: table.messages().into() })
    }

    fn check(&self) -> Result<(), WireError> {
        let tables = self.messages.iter().map(|message| TABLES_PER_MESSAGE + message.entries.len());
        at_most("tables of a raft frame", 1 + tables.sum::<usize>(), FRAME_TABLES_MAX)?;
        self.messages.iter().try_for_each(|message| message.check())
    }

    fn build(&self, to: &mut Builder) -> Root {
        let messages = to.list(self.messages.iter(), |to, message| message.build(to));
        let args = fb::RaftArgs { newest_revision: self.newest_revision.0, messages: Some(messages) };
        fb::Raft::create(&mut to.flat, &args).into()
    }

    fn size_hint(&self) -> usize {
        MESSAGE_OVERHEAD_BYTES + self.messages.iter().map(|message| message.size_hint()).sum::<usize>()
    }
}
