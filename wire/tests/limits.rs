//! Each limit, from both sides: what keeps to it is written and read, what does not is neither.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod sample;

use bytes::BytesMut;
use mesh_base::limits::{
    BATCH_BYTES_MAX, BATCH_OPS_MAX, DIRECTORY_BYTES_MAX, FRAME_PAYLOAD_BYTES_MAX, HELLO_PAYLOAD_BYTES_MAX,
    KEY_BYTES_MAX, NODE_NAME_BYTES_MAX, NODES_MAX, RANGE_ITEMS_MAX, SNAPSHOT_POSITION_BYTES_MAX,
    TRANSACTION_RANGES_MAX, VALUE_BYTES_MAX,
};
use mesh_base::{
    CheckpointNo, ClusterId, LogIndex, NodeId, ReplicaId, Revision, SessionId, SessionSeq, ShardId,
};
use mesh_wire::{
    Action, BirthAccept, BirthDecided, BirthMember, BirthPropose, Condition, ConfState, Delete, Directory,
    Envelope, Error, Expect, FrameDecoder, FrameError, FrameWriter, Get, GetBatch, GetBatchAnswer, Hello,
    Item, JoinAnswer, KeyRange, KeyValue, Kind, NodeProbe, Operation, PeerMessage, ProbeState, Put, PutBatch,
    Raft, RaftEntry, RaftMessage, Range, RangeAnswer, RangeItem, Request, Response, Role, SnapshotAck,
    SnapshotChunk, SnapshotMeta, SnapshotStatus, Transact, WireError, WriteContext, negotiate,
};
use sample::in_session;

/// Writes a message and reads it again.
fn send_request(request: &Request<'_>) -> Result<(), WireError> {
    let mut writer = FrameWriter::new();
    let mut out = b"before".to_vec();
    let bytes = match writer.append(&Envelope::default(), request, &mut out) {
        Ok(()) => out.split_off(6),
        Err(error) => {
            assert_eq!(out, b"before", "nothing was appended");
            assert_eq!(writer.frame(&Envelope::default(), request), Err(error));
            return Err(error);
        }
    };
    let frame = FrameDecoder::new().decode(&mut BytesMut::from(&bytes[..])).unwrap().unwrap();
    assert_eq!(frame.request().as_ref(), Ok(request));
    Ok(())
}

fn send_response(response: &Response<'_>) -> Result<(), WireError> {
    let bytes = FrameWriter::new().frame(&Envelope::default(), response)?;
    let frame = FrameDecoder::new().peek(&bytes).unwrap().unwrap();
    assert_eq!(frame.response().as_ref(), Ok(response));
    Ok(())
}

fn send_peer(peer: &PeerMessage<'_>) -> Result<(), WireError> {
    let bytes = FrameWriter::new().frame(&Envelope::default(), peer)?;
    let frame = FrameDecoder::new().peek(&bytes).unwrap().unwrap();
    assert_eq!(frame.peer().as_ref(), Ok(peer));
    Ok(())
}

fn too_large(result: Result<(), WireError>) -> &'static str {
    match result {
        Err(WireError::TooLarge { what, limit, actual }) => {
            assert!(actual > limit);
            what
        }
        other => panic!("expected TooLarge, got {other:?}"),
    }
}

fn malformed(result: Result<(), WireError>) -> &'static str {
    match result {
        Err(WireError::Malformed { what }) => what,
        other => panic!("expected Malformed, got {other:?}"),
    }
}

#[test]
fn a_key_has_a_byte_and_at_most_its_limit() {
    let key = [b'k'; KEY_BYTES_MAX + 1];
    let get = |key| Request::Get(Get { key, ..Get::default() });
    assert_eq!(send_request(&get(&key[..KEY_BYTES_MAX])), Ok(()));
    assert_eq!(too_large(send_request(&get(&key))), "key bytes");
    assert_eq!(send_request(&get(b"")), Err(WireError::EmptyKey));
    let keys: [&[u8]; 2] = [b"a", b""];
    let batch = Request::GetBatch(GetBatch { keys: (&keys).into(), ..GetBatch::default() });
    assert_eq!(send_request(&batch), Err(WireError::EmptyKey));
    assert_eq!(Error::from(WireError::EmptyKey), Error::EmptyKey);
}

#[test]
fn the_largest_key_and_value_fit_a_frame() {
    let (key, value) = (vec![1; KEY_BYTES_MAX], vec![2; VALUE_BYTES_MAX + 1]);
    let principal = [3; mesh_base::limits::PRINCIPAL_BYTES_MAX];
    let ctx = WriteContext { principal: Some(&principal), ..in_session() };
    let put = |value| Request::Put(Put { ctx, key: &key, value, ..Put::default() });
    assert_eq!(send_request(&put(&value[..VALUE_BYTES_MAX])), Ok(()));
    assert_eq!(too_large(send_request(&put(&value))), "value bytes");
    let item = Item { value: &value[..VALUE_BYTES_MAX], revision: Revision(1), ..Item::default() };
    let items = [RangeItem { key: &key, item }];
    let answer = RangeAnswer { items: (&items).into(), more: true, revision: Revision(1) };
    assert_eq!(send_response(&Response::Range(answer)), Ok(()));
}

#[test]
fn a_batch_has_an_operation_and_at_most_its_limits() {
    let keys = vec![&b"k"[..]; BATCH_OPS_MAX + 1];
    let delete =
        |keys: &'static [&'static [u8]]| Request::Delete(Delete { ctx: in_session(), keys: keys.into() });
    let keys: &'static [&'static [u8]] = keys.leak();
    assert_eq!(send_request(&delete(&keys[..BATCH_OPS_MAX])), Ok(()));
    assert_eq!(too_large(send_request(&delete(keys))), "keys of a batch");
    assert_eq!(malformed(send_request(&delete(&[]))), "an empty batch");

    let value = vec![0; BATCH_BYTES_MAX];
    let items = [KeyValue { key: b"k", value: &value[1..] }, KeyValue { key: b"l", value: b"" }];
    let put = |items: &[KeyValue<'_>]| {
        send_request(&Request::PutBatch(PutBatch { ctx: in_session(), items: items.into() }))
    };
    assert_eq!(put(&items[..1]), Ok(()));
    assert_eq!(too_large(put(&items)), "bytes of a batch");
    assert_eq!(malformed(put(&[])), "an empty batch");
}

/// A transaction of these operations, on conditions.
fn transact(conditions: &[Condition<'_>], operations: &[Operation<'_>]) -> Result<(), WireError> {
    send_request(&Request::Transact(Transact {
        ctx: in_session(),
        conditions: conditions.into(),
        operations: operations.into(),
        ..Transact::default()
    }))
}

const fn put_of<'a>(key: &'static [u8], value: &'a [u8]) -> Operation<'a> {
    Operation { key, action: Action::Put { value, lease: 0, type_tag: 0, previous: true } }
}

#[test]
fn a_transaction_keeps_to_its_limits() {
    let get = Operation { key: b"k", action: Action::Get };
    let absent = Condition { key: b"k", expect: Expect::Absent };
    let (gets, conditions) = (vec![get; BATCH_OPS_MAX - 1], [absent, absent]);
    assert_eq!(transact(&conditions[..1], &gets), Ok(()));
    assert_eq!(too_large(transact(&conditions, &gets)), "keys of a transaction");
    assert_eq!(malformed(transact(&[], &[])), "an empty transaction");
    assert_eq!(transact(&[], &[Operation { key: b"", action: Action::Get }]), Err(WireError::EmptyKey));
    let range = KeyRange { from: b"a", to: b"" };
    let ranges = vec![range; TRANSACTION_RANGES_MAX + 1];
    let reading = |ranges: &[KeyRange<'_>]| {
        let ctx = in_session();
        send_request(&Request::Transact(Transact { ctx, ranges: ranges.into(), ..Transact::default() }))
    };
    assert_eq!(reading(&ranges[1..]), Ok(()));
    assert_eq!(too_large(reading(&ranges)), "ranges of a transaction");
}

#[test]
fn one_operation_may_put_the_largest_value_and_several_no_more_than_a_batch() {
    let (large, half) = (vec![0; VALUE_BYTES_MAX + 1], vec![0; BATCH_BYTES_MAX / 2]);
    let absent = [Condition { key: b"k", expect: Expect::Absent }];
    assert_eq!(transact(&absent, &[put_of(b"k", &large[1..])]), Ok(()));
    assert_eq!(too_large(transact(&absent, &[put_of(b"k", &large)])), "value bytes");
    let halves = [put_of(b"k", &half), put_of(b"l", &half)];
    assert_eq!(too_large(transact(&[], &halves)), "bytes of a transaction");
    assert_eq!(transact(&[], &halves[..1]), Ok(()));
    let holds = [Condition { key: b"k", expect: Expect::Value(&large[1..]) }];
    assert_eq!(too_large(transact(&holds, &halves[..1])), "bytes of a transaction");
}

#[test]
fn what_a_later_version_may_ask_for_is_refused() {
    let condition = [Condition { key: b"k", expect: Expect::Other(9) }];
    assert_eq!(malformed(transact(&condition, &[])), "a condition's kind");
    let operation = [Operation { key: b"k", action: Action::Other(9) }];
    assert_eq!(malformed(transact(&[], &operation)), "an operation's kind");
    for expect in [Expect::Revision(Revision(0)), Expect::Version(0)] {
        malformed(transact(&[Condition { key: b"k", expect }], &[]));
    }
}

#[test]
fn the_longest_batch_of_the_longest_keys_fits_a_frame() {
    let key = vec![1; KEY_BYTES_MAX];
    let keys = vec![&key[..]; BATCH_OPS_MAX];
    assert_eq!(
        send_request(&Request::GetBatch(GetBatch { keys: (&keys).into(), ..GetBatch::default() })),
        Ok(())
    );
}

#[test]
fn an_answer_that_no_frame_holds_is_refused_before_memory_is_taken_for_it() {
    let value = vec![0; VALUE_BYTES_MAX];
    let item = Some(Item { value: &value, revision: Revision(1), ..Item::default() });
    for count in [2, BATCH_OPS_MAX] {
        let items = vec![item; count];
        let answer = GetBatchAnswer { items: (&items).into(), revision: Revision(1) };
        let used = allocation_counter::measure(|| {
            let mut writer = FrameWriter::new();
            let frame = writer.frame(&Envelope::default(), &Response::GetBatch(answer));
            assert_eq!(too_large(frame.map(|_| ())), "payload bytes");
        });
        assert!(used.bytes_max < 8 * FRAME_PAYLOAD_BYTES_MAX as u64, "{used:?}");
    }
}

#[test]
fn the_longest_range_is_written_and_read() {
    let item = RangeItem { key: b"k", item: Item { revision: Revision(1), ..Item::default() } };
    let mut items = vec![item; RANGE_ITEMS_MAX];
    let answer = RangeAnswer { items: (&items).into(), ..RangeAnswer::default() };
    assert_eq!(send_response(&Response::Range(answer)), Ok(()));
    items.push(item);
    let answer = RangeAnswer { items: (&items).into(), ..RangeAnswer::default() };
    assert_eq!(too_large(send_response(&Response::Range(answer))), "items of a range");
}

#[test]
fn a_bound_may_be_the_least_above_the_longest_key() {
    let bound = [1; KEY_BYTES_MAX + 2];
    let range = |to| Request::Range(Range { to, ..Range::default() });
    assert_eq!(send_request(&range(&bound[..=KEY_BYTES_MAX])), Ok(()));
    assert_eq!(too_large(send_request(&range(&bound))), "bytes of a bound");
}

#[test]
fn every_write_has_a_session_and_a_number_in_it() {
    let send = |session, seq, acknowledged_below| {
        let ctx = WriteContext {
            session: SessionId(Revision(session)),
            seq: SessionSeq(seq),
            acknowledged_below: SessionSeq(acknowledged_below),
            ..WriteContext::default()
        };
        send_request(&Request::Put(Put { ctx, key: b"k", ..Put::default() }))
    };
    assert_eq!(send(7, 5, 5), Ok(()));
    assert_eq!(send(7, 5, 1), Ok(()));
    assert_eq!(malformed(send(0, 0, 0)), "session");
    assert_eq!(malformed(send(0, 5, 5)), "session");
    assert_eq!(malformed(send(7, 0, 0)), "sequence number");
    assert_eq!(malformed(send(7, 5, 0)), "acknowledged_below");
    assert_eq!(malformed(send(7, 5, 6)), "acknowledged_below");

    let ctx = WriteContext::default();
    let items = [KeyValue { key: b"k", value: b"v" }];
    let batch = Request::PutBatch(PutBatch { ctx, items: (&items).into() });
    assert_eq!(malformed(send_request(&batch)), "session");
    let keys: [&[u8]; 1] = [b"k"];
    assert_eq!(malformed(send_request(&Request::Delete(Delete { ctx, keys: (&keys).into() }))), "session");
}

#[test]
fn before_the_hello_only_short_frames_are_taken() {
    let value = vec![0; HELLO_PAYLOAD_BYTES_MAX];
    let put = Request::Put(Put { ctx: in_session(), key: b"k", value: &value, ..Put::default() });
    let bytes = FrameWriter::new().frame(&Envelope::default(), &put).unwrap();
    let error = FrameDecoder::before_hello().peek(&bytes).unwrap_err();
    assert!(matches!(error, FrameError::TooLong { limit: HELLO_PAYLOAD_BYTES_MAX, .. }));
    assert!(FrameDecoder::new().peek(&bytes).unwrap().is_some());
}

fn hello(name: &str, versions: (u16, u16)) -> Hello<'_> {
    Hello {
        role: Role::Client,
        version_min: versions.0,
        version_max: versions.1,
        cluster: None,
        auth: None,
        wanted_shard: None,
        name,
    }
}

#[test]
fn a_hello_names_its_sender_and_a_range_of_versions() {
    let long = "n".repeat(NODE_NAME_BYTES_MAX + 1);
    let send = |name, versions| send_request(&Request::Hello(hello(name, versions)));
    assert_eq!(send(&long[1..], (1, 1)), Ok(()));
    assert_eq!(too_large(send(&long, (1, 1))), "name bytes");
    assert_eq!(malformed(send("", (1, 1))), "an empty name");
    assert_eq!(malformed(send("a", (2, 1))), "versions");
    assert_eq!(malformed(send("a", (0, 1))), "versions");
}

#[test]
fn the_newest_version_that_both_speak_is_chosen() {
    assert_eq!(negotiate(&hello("a", (1, 1))), Ok(1));
    assert_eq!(negotiate(&hello("a", (1, 9))), Ok(1));
    let unsupported = Error::Unsupported { version_min: 1, version_max: 1 };
    assert_eq!(negotiate(&hello("a", (2, 9))), Err(unsupported));
}

#[test]
fn peers_name_real_shards_and_replicas() {
    let sound = RaftMessage { from: ReplicaId(1), to: ReplicaId(2), ..RaftMessage::default() };
    let send = |message: RaftMessage<'_>| {
        let messages = [message];
        send_peer(&PeerMessage::Raft(Raft { messages: (&messages).into(), ..Raft::default() }))
    };
    assert_eq!(send(sound), Ok(()));
    assert_eq!(malformed(send(RaftMessage { shard: ShardId(1024), ..sound })), "shard");
    assert_eq!(malformed(send(RaftMessage { from: ReplicaId(0), ..sound })), "sending replica");
    assert_eq!(malformed(send(RaftMessage { to: ReplicaId(0), ..sound })), "receiving replica");

    let voters = vec![ReplicaId(1); NODES_MAX + 1];
    let chunk = |voters: &[ReplicaId]| {
        let conf = ConfState { voters: voters.into(), ..ConfState::default() };
        send_peer(&PeerMessage::SnapshotChunk(SnapshotChunk {
            shard: ShardId(0),
            from: ReplicaId(1),
            to: ReplicaId(2),
            checkpoint: CheckpointNo(1),
            meta: SnapshotMeta { conf, ..SnapshotMeta::default() },
            bytes: b"",
        }))
    };
    assert_eq!(chunk(&voters[1..]), Ok(()));
    assert_eq!(too_large(chunk(&voters)), "members of a group");
    assert_eq!(malformed(chunk(&[ReplicaId(0)])), "a member's replica");
}

#[test]
fn a_snapshots_position_is_a_key_and_its_checkpoint_has_a_number() {
    let ack = |checkpoint, status| {
        send_peer(&PeerMessage::SnapshotAck(SnapshotAck {
            shard: ShardId(0),
            from: ReplicaId(1),
            to: ReplicaId(2),
            checkpoint: CheckpointNo(checkpoint),
            index: LogIndex(7),
            status,
        }))
    };
    let position = vec![7; SNAPSHOT_POSITION_BYTES_MAX + 1];
    let resume = |position| ack(1, SnapshotStatus::Resume(Some(position)));
    assert_eq!(resume(&position[1..]), Ok(()));
    assert_eq!(too_large(resume(&position)), "bytes of a snapshot's position");
    assert_eq!(malformed(resume(b"")), "a snapshot's position");
    assert_eq!(malformed(ack(0, SnapshotStatus::Ok(None))), "a snapshot's checkpoint");
}

const CLUSTER: ClusterId = ClusterId([7; 16]);

#[test]
fn a_probe_names_a_cluster_and_an_id_if_and_only_if_its_state_has_them() {
    let send = |state, cluster, node, version| {
        let members: &[&str] = &["a", "b"];
        let probe = NodeProbe {
            address: "a:7700",
            members: members.into(),
            shard_count: 0,
            state,
            cluster,
            node: NodeId(node),
            version,
        };
        let sent = send_peer(&PeerMessage::Probe(probe));
        assert_eq!(send_peer(&PeerMessage::ProbeAnswer(probe)), sent, "the answer keeps the same rules");
        sent
    };
    for state in [ProbeState::Empty, ProbeState::Joining] {
        assert_eq!(send(state, None, 0, 0), Ok(()));
        assert_eq!(malformed(send(state, Some(CLUSTER), 0, 0)), "cluster");
        assert_eq!(malformed(send(state, None, 1, 0)), "node");
        assert_eq!(malformed(send(state, None, 0, 1)), "version");
    }
    assert_eq!(send(ProbeState::Forming, Some(CLUSTER), 0, 0), Ok(()));
    assert_eq!(malformed(send(ProbeState::Forming, None, 0, 0)), "cluster");
    assert_eq!(malformed(send(ProbeState::Forming, Some(CLUSTER), 1, 0)), "node");
    assert_eq!(send(ProbeState::Born, Some(CLUSTER), 1, 1), Ok(()));
    assert_eq!(malformed(send(ProbeState::Born, None, 1, 1)), "cluster");
    assert_eq!(malformed(send(ProbeState::Born, Some(ClusterId::NONE), 1, 1)), "cluster");
    assert_eq!(malformed(send(ProbeState::Born, Some(CLUSTER), 0, 1)), "node");
}

#[test]
fn a_birth_has_a_cluster_a_shard_and_nodes_in_order() {
    let send = |cluster, names: &[&str], shard_count| {
        let members: Vec<_> = names.iter().map(|name| BirthMember { name, address: "n:7700" }).collect();
        send_peer(&PeerMessage::BirthPropose(BirthPropose {
            cluster,
            members: (&members).into(),
            shard_count,
        }))
    };
    assert_eq!(send(CLUSTER, &["a"], 1), Ok(()));
    assert_eq!(send(CLUSTER, &["a", "b", "c"], 1024), Ok(()));
    assert_eq!(malformed(send(ClusterId::NONE, &["a"], 1)), "cluster");
    assert_eq!(malformed(send(CLUSTER, &[], 1)), "members");
    assert_eq!(malformed(send(CLUSTER, &["b", "a"], 1)), "order of members");
    assert_eq!(malformed(send(CLUSTER, &["a", "a"], 1)), "order of members");
    assert_eq!(malformed(send(CLUSTER, &["a"], 0)), "shards");
    assert_eq!(too_large(send(CLUSTER, &["a"], 1025)), "shards");
    let accept = |cluster| send_peer(&PeerMessage::BirthAccept(BirthAccept { cluster }));
    assert_eq!(accept(CLUSTER), Ok(()));
    assert_eq!(malformed(accept(ClusterId::NONE)), "cluster");
}

#[test]
fn a_directory_is_something_and_at_most_its_limit_wherever_it_is_sent() {
    fn senders(directory: &[u8]) -> [PeerMessage<'_>; 3] {
        [
            PeerMessage::BirthDecided(BirthDecided { directory }),
            PeerMessage::JoinAnswer(JoinAnswer { attempt: 0, node: NodeId(1), directory }),
            PeerMessage::Directory(Directory { bytes: directory }),
        ]
    }
    let record = vec![1; DIRECTORY_BYTES_MAX + 1];
    assert!(senders(&record[1..]).iter().all(|message| send_peer(message) == Ok(())));
    for message in senders(&record) {
        assert_eq!(too_large(send_peer(&message)), "bytes of the directory");
    }
    for message in senders(b"") {
        assert_eq!(malformed(send_peer(&message)), "an empty directory");
    }
}

#[test]
fn whoever_joins_is_told_an_id() {
    let answer = JoinAnswer { attempt: 0, node: NodeId(0), directory: b"record" };
    assert_eq!(malformed(send_peer(&PeerMessage::JoinAnswer(answer))), "node");
}

#[test]
fn as_many_entries_as_tables_fit_are_written_and_read() {
    let send = |count: usize| {
        let entries = vec![RaftEntry { data: b"d", ..RaftEntry::default() }; count];
        let message = RaftMessage {
            from: ReplicaId(1),
            to: ReplicaId(2),
            entries: (&entries).into(),
            ..RaftMessage::default()
        };
        let messages = [message];
        send_peer(&PeerMessage::Raft(Raft { messages: (&messages).into(), ..Raft::default() }))
    };
    let most = mesh_base::limits::FRAME_TABLES_MAX - 5;
    assert_eq!(send(most), Ok(()));
    assert_eq!(too_large(send(most + 1)), "tables of a raft frame");
}

#[test]
fn a_frame_of_another_class_is_out_of_place() {
    let bytes = FrameWriter::new().frame(&Envelope::default(), &Request::Status).unwrap();
    let frame = FrameDecoder::new().peek(&bytes).unwrap().unwrap();
    let error = WireError::UnexpectedKind { kind: Kind::StatusRequest };
    assert_eq!(frame.response(), Err(error));
    assert_eq!(frame.peer(), Err(error));
}
