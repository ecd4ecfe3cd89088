//! The hot path allocates nothing but frames.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

use mesh_base::{ReplicaId, Revision, SessionId, SessionSeq};
use mesh_wire::{
    Envelope, Error, FrameDecoder, FrameRef, FrameWriter, Get, GetAnswer, Item, PeerMessage, Put, Raft,
    RaftEntry, RaftMessage, Request, Response, TraceId, WriteContext, Written,
};

fn allocations(run: impl FnMut()) -> u64 {
    allocation_counter::measure(run).count_total
}

fn get(key: &[u8]) -> Request<'_> {
    Request::Get(Get { key, ..Get::default() })
}

fn put<'a>(key: &'a [u8], value: &'a [u8]) -> Request<'a> {
    let ctx = WriteContext {
        session: SessionId(Revision(7)),
        seq: SessionSeq(2),
        acknowledged_below: SessionSeq(1),
        deadline_ms: 1000,
        trace: Some(TraceId([5; 16])),
        ..WriteContext::default()
    };
    Request::Put(Put { ctx, key, value, ..Put::default() })
}

fn peek(bytes: &[u8]) -> FrameRef<'_> {
    FrameDecoder::new().peek(bytes).unwrap().unwrap()
}

#[test]
fn a_get_and_its_answer_are_written_without_allocation() {
    let mut writer = FrameWriter::new();
    let mut out = Vec::with_capacity(64 * 1024);
    let value = [7; 256];
    let item = Item { value: &value, revision: Revision(9), ..Item::default() };
    let answer = Response::Get(GetAnswer { item: Some(item), revision: Revision(9) });
    let mut write = || {
        out.clear();
        for _ in 0..16 {
            writer.append(&Envelope::default(), &get(b"key"), &mut out).unwrap();
            writer.append(&Envelope::default(), &answer, &mut out).unwrap();
            writer.append(&Envelope::default(), &put(b"key", &value), &mut out).unwrap();
            let written = Response::Written(Written { revision: Revision(9) });
            writer.append(&Envelope::default(), &written, &mut out).unwrap();
        }
    };
    write();
    assert_eq!(allocations(write), 0);
}

#[test]
fn refusing_a_request_under_overload_allocates_nothing() {
    let mut writer = FrameWriter::new();
    let mut out = Vec::with_capacity(4096);
    let mut write = || {
        out.clear();
        let overloaded = Response::Error(Error::Overloaded { retry_after_ms: 20 });
        writer.append(&Envelope::default(), &overloaded, &mut out).unwrap();
    };
    write();
    assert_eq!(allocations(write), 0);
}

#[test]
fn requests_and_answers_are_read_without_allocation() {
    let mut writer = FrameWriter::new();
    let value = [7; 256];
    let get = writer.frame(&Envelope::default(), &get(b"key")).unwrap();
    let put = writer.frame(&Envelope::default(), &put(b"key", &value)).unwrap();
    let item = Item { value: &value, revision: Revision(9), ..Item::default() };
    let answer = Response::Get(GetAnswer { item: Some(item), revision: Revision(9) });
    let answer = writer.frame(&Envelope::default(), &answer).unwrap();
    let read = || {
        assert!(matches!(peek(&get).request(), Ok(Request::Get(get)) if get.key == b"key"));
        assert!(matches!(peek(&put).request(), Ok(Request::Put(put)) if put.value == value));
        assert!(matches!(peek(&answer).response(), Ok(Response::Get(_))));
    };
    assert_eq!(allocations(read), 0);
}

#[test]
fn raft_messages_are_read_without_allocation() {
    let entries = [RaftEntry { data: b"an entry", ..RaftEntry::default() }; 8];
    let message = RaftMessage {
        from: ReplicaId(1),
        to: ReplicaId(2),
        entries: (&entries).into(),
        ..RaftMessage::default()
    };
    let messages = [message; 4];
    let raft = PeerMessage::Raft(Raft { messages: (&messages).into(), ..Raft::default() });
    let frame = FrameWriter::new().frame(&Envelope::default(), &raft).unwrap();
    let mut bytes = 0;
    let read = || {
        let Ok(PeerMessage::Raft(raft)) = peek(&frame).peer() else { panic!("another message") };
        for message in raft.messages {
            bytes += message.entries.iter().map(|entry| entry.data.len()).sum::<usize>();
        }
    };
    assert_eq!(allocations(read), 0);
    assert_eq!(bytes, 4 * 8 * 8);
}

#[test]
fn a_frame_of_its_own_is_one_allocation_and_bytes_hold_of_it() {
    let mut writer = FrameWriter::new();
    let mut write = || drop(writer.frame(&Envelope::default(), &put(b"key", &[7; 256])).unwrap());
    write();
    assert!(allocations(write) <= 2);
}

#[test]
fn a_large_value_takes_memory_once() {
    let value = vec![7; 4 << 20];
    let mut writer = FrameWriter::new();
    let used = allocation_counter::measure(|| {
        drop(writer.frame(&Envelope::default(), &put(b"key", &value)).unwrap());
    });
    assert!(used.bytes_max < (4 << 20) + 4096, "{used:?}");
    assert!(used.bytes_current == 0, "nothing of it is kept: {used:?}");
}
