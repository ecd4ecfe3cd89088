//! raft's messages on the wire, and what is let through to raft.
//!
//! Invariants:
//! - Only messages that one replica may send another are accepted: no proposal, no transfer of leadership, nothing local.
//! - A message is for this replica's incarnation and no other.
//! - Entries of a message follow each other.

use bytes::Bytes;
use mesh_base::ReplicaId;
use mesh_wire::{ConfState as WireConf, RaftEntry, RaftMessage, RaftSnapshot, SnapshotMeta};
use protobuf::ProtobufEnum;
use raft::eraftpb::{Entry, EntryType, Message, MessageType, Snapshot, SnapshotMetadata};

use super::configuration::conf_state;

/// Whether one replica may send another a message of this type.
const fn is_between_replicas(kind: MessageType) -> bool {
    use MessageType as M;
    matches!(
        kind,
        M::MsgAppend
            | M::MsgAppendResponse
            | M::MsgRequestVote
            | M::MsgRequestVoteResponse
            | M::MsgSnapshot
            | M::MsgHeartbeat
            | M::MsgHeartbeatResponse
            | M::MsgTimeoutNow
            | M::MsgRequestPreVote
            | M::MsgRequestPreVoteResponse
    )
}

/// The lists that a message on the wire borrows.
#[derive(Default)]
pub struct WireParts<'a> {
    entries: Vec<RaftEntry<'a>>,
    voters: Vec<ReplicaId>,
    learners: Vec<ReplicaId>,
}

impl<'a> WireParts<'a> {
    /// Gathers the lists of a message.
    #[must_use]
    pub fn of(message: &'a Message) -> Self {
        let entries = message.entries.iter().map(|entry| RaftEntry {
            index: entry.index.into(),
            term: entry.term.into(),
            entry_type: number(entry.entry_type.value()),
            data: &entry.data,
            context: &entry.context,
        });
        let conf = message.get_snapshot().get_metadata().get_conf_state();
        Self {
            entries: entries.collect(),
            voters: conf.voters.iter().map(|&id| ReplicaId(id)).collect(),
            learners: conf.learners.iter().map(|&id| ReplicaId(id)).collect(),
        }
    }

    /// The message as the wire has it.
    #[must_use]
    pub fn message(&'a self, shard: mesh_base::ShardId, message: &'a Message) -> RaftMessage<'a> {
        let snapshot = (!message.get_snapshot().is_empty()).then(|| {
            let snapshot = message.get_snapshot();
            let meta = snapshot.get_metadata();
            RaftSnapshot { meta: self.meta(meta), data: &snapshot.data }
        });
        RaftMessage {
            shard,
            from: ReplicaId(message.from),
            to: ReplicaId(message.to),
            msg_type: number(message.msg_type.value()),
            term: message.term.into(),
            log_term: message.log_term.into(),
            index: message.index.into(),
            commit: message.commit.into(),
            commit_term: message.commit_term.into(),
            reject: message.reject,
            reject_hint: message.reject_hint.into(),
            request_snapshot: message.request_snapshot.into(),
            priority: message.priority,
            context: &message.context,
            entries: (&self.entries).into(),
            snapshot,
        }
    }

    fn meta(&'a self, meta: &SnapshotMetadata) -> SnapshotMeta<'a> {
        let conf = WireConf {
            voters: (&self.voters).into(),
            learners: (&self.learners).into(),
            ..WireConf::default()
        };
        SnapshotMeta { index: meta.index.into(), term: meta.term.into(), conf }
    }
}

fn number(value: i32) -> u8 {
    u8::try_from(value).unwrap_or(u8::MAX)
}

/// A message from the wire as raft's own, if it is one that `replica` may be sent. Byte strings share the frame's memory.
///
/// # Errors
/// What is wrong with it; the message is dropped.
pub fn accept(wire: &RaftMessage<'_>, payload: &Bytes, replica: ReplicaId) -> Result<Message, &'static str> {
    let kind = MessageType::from_i32(i32::from(wire.msg_type)).filter(|&kind| is_between_replicas(kind));
    let Some(kind) = kind else { return Err("its type is not one that replicas send each other") };
    if wire.to != replica {
        return Err("it is for another incarnation of this replica");
    }
    let own = |bytes: &[u8]| if bytes.is_empty() { Bytes::new() } else { payload.slice_ref(bytes) };
    let mut entries = Vec::with_capacity(wire.entries.len());
    for (next, entry) in (wire.index.0 + 1..).zip(wire.entries.iter()) {
        if entry.index.0 != next || entry.term > wire.term {
            return Err("its entries do not follow each other");
        }
        let entry_type =
            EntryType::from_i32(i32::from(entry.entry_type)).ok_or("an entry's type is unknown")?;
        let own_entry = Entry {
            entry_type,
            index: entry.index.0,
            term: entry.term.0,
            data: own(entry.data),
            context: own(entry.context),
            ..Entry::default()
        };
        entries.push(own_entry);
    }
    let mut message = Message::default();
    message.set_msg_type(kind);
    message.from = wire.from.0;
    message.to = wire.to.0;
    message.term = wire.term.0;
    message.log_term = wire.log_term.0;
    message.index = wire.index.0;
    message.commit = wire.commit.0;
    message.commit_term = wire.commit_term.0;
    message.reject = wire.reject;
    message.reject_hint = wire.reject_hint.0;
    message.request_snapshot = wire.request_snapshot.0;
    message.priority = wire.priority;
    message.context = own(wire.context);
    message.set_entries(entries.into());
    if let Some(snapshot) = &wire.snapshot {
        message.set_snapshot(own_snapshot(&snapshot.meta));
    }
    if kind == MessageType::MsgSnapshot && wire.snapshot.is_none() {
        return Err("it is a snapshot without one");
    }
    Ok(message)
}

/// A snapshot as raft knows it. Its cells travel apart.
#[must_use]
pub fn own_snapshot(meta: &SnapshotMeta<'_>) -> Snapshot {
    let ids = |list: mesh_wire::List<'_, ReplicaId>| list.iter().map(|id| id.0).collect();
    let mut snapshot = Snapshot::default();
    let metadata = snapshot.mut_metadata();
    metadata.index = meta.index.0;
    metadata.term = meta.term.0;
    metadata.set_conf_state(conf_state(ids(meta.conf.voters), ids(meta.conf.learners)));
    snapshot
}

#[cfg(test)]
mod tests {
    use mesh_base::ShardId;
    use mesh_wire::{Envelope, FrameWriter, PeerMessage, Raft};

    use super::*;

    fn through_the_wire(message: &Message, replica: u64) -> Result<Message, &'static str> {
        let parts = WireParts::of(message);
        let wire = [parts.message(ShardId(3), message)];
        let raft = PeerMessage::Raft(Raft { messages: (&wire).into(), ..Raft::default() });
        let frame = FrameWriter::new().frame(&Envelope::default(), &raft).unwrap();
        let payload = frame.slice(32..);
        let PeerMessage::Raft(raft) = PeerMessage::decode(mesh_wire::Kind::Raft, &payload).unwrap() else {
            panic!("not raft")
        };
        accept(&raft.messages.get(0).unwrap(), &payload, ReplicaId(replica))
    }

    fn append() -> Message {
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgAppend);
        (message.from, message.to, message.term, message.index, message.commit) = (1, 2, 5, 10, 9);
        let entries = [11, 12].map(|index| {
            let mut entry = Entry::default();
            (entry.index, entry.term) = (index, 5);
            entry.data = Bytes::from(vec![7; 100]);
            entry.context = Bytes::from_static(b"context");
            entry
        });
        message.set_entries(entries.to_vec().into());
        message
    }

    #[test]
    fn a_message_arrives_as_it_was_sent() {
        assert_eq!(through_the_wire(&append(), 2), Ok(append()));
        let mut snapshot = Message::default();
        snapshot.set_msg_type(MessageType::MsgSnapshot);
        (snapshot.from, snapshot.to, snapshot.term) = (1, 2, 5);
        let metadata = snapshot.mut_snapshot().mut_metadata();
        (metadata.index, metadata.term) = (40, 4);
        metadata.set_conf_state(conf_state(vec![1, 2], vec![3]));
        assert_eq!(through_the_wire(&snapshot, 2), Ok(snapshot));
    }

    #[test]
    fn what_no_replica_may_send_is_refused() {
        for kind in [MessageType::MsgPropose, MessageType::MsgTransferLeader, MessageType::MsgHup] {
            let mut message = append();
            message.set_msg_type(kind);
            assert!(through_the_wire(&message, 2).is_err(), "{kind:?}");
        }
        assert!(through_the_wire(&append(), 3).is_err());
        let mut gap = append();
        gap.mut_entries()[1].index = 13;
        assert!(through_the_wire(&gap, 2).is_err());
    }
}
