//! Requests into frames and answers out of them.
//!
//! Deliberately absent from requests: deadlines, traces and the newest revision seen, all of which the protocol leaves to
//! the client. What is measured is the least that an operation is.

use std::time::Duration;

use mesh_base::limits::CLIENT_RETRY_PAUSE_MIN;
use mesh_base::prng::Prng;
use mesh_base::{NodeId, Revision, SessionId, SessionSeq, ShardId, SlotEpoch};
use mesh_wire::{
    Envelope, Error, FrameDecoder, FrameWriter, Get, GetBatch, Item, KeyValue, List, Put, PutBatch, Range,
    RangeAnswer, Request, RequestId, Response, WriteContext,
};

use super::session::Session;
use crate::keyspace::Keyspace;
use crate::op::{Op, OpKind, Page};
use crate::target::{Admission, Answer, Broken, Decoded, Found, Lane, LaneSpec, Rest, Tag, Then, Writes};

/// See the module.
pub(crate) struct MeshLane {
    shard: ShardId,
    /// Where the connection goes.
    node: NodeId,
    epoch: SlotEpoch,
    writes: Writes,
    value_bytes: usize,
    prng: Prng,
    /// By which the shard knows an opening of a session that is sent again.
    nonce: u64,
    session: Option<Session>,
    /// The numbers of the writes in the slots.
    numbers: Vec<Option<Number>>,
    /// Where the ranges in the slots have come to.
    places: Vec<Place>,
    writer: FrameWriter,
    decoder: FrameDecoder,
}

/// How far a range was read.
#[derive(Clone, Default)]
struct Place {
    /// The last key of the last page.
    after: Vec<u8>,
    /// The revision of the first one.
    at: Revision,
}

/// A write's number, and the session that it is one of.
#[derive(Clone, Copy)]
struct Number {
    session: SessionId,
    seq: SessionSeq,
}

impl MeshLane {
    pub(super) fn new(spec: LaneSpec, shard: ShardId) -> Self {
        let LaneSpec { writes, in_flight, value_bytes, mut prng, .. } = spec;
        Self {
            shard,
            node: NodeId(0),
            epoch: SlotEpoch(0),
            writes,
            value_bytes,
            nonce: prng.next_u64(),
            prng,
            session: None,
            numbers: vec![None; usize::from(in_flight)],
            places: vec![Place::default(); usize::from(in_flight)],
            writer: FrameWriter::new(),
            decoder: FrameDecoder::new(),
        }
    }

    /// For a server that looks at no more than headers: its requests are of shard 0 and of a session that nobody opened.
    pub(crate) fn without_cluster(spec: LaneSpec) -> Self {
        let mut lane = Self::new(spec, ShardId(0));
        lane.session_opened(SessionId(Revision(1)));
        lane
    }

    pub(super) const fn shard(&self) -> ShardId {
        self.shard
    }

    pub(super) const fn node(&self) -> NodeId {
        self.node
    }

    /// The connection goes to a node, which was told to know this slot map.
    pub(super) const fn connected(&mut self, node: NodeId, epoch: SlotEpoch) {
        (self.node, self.epoch) = (node, epoch);
    }

    /// The nonce of the session that has to be opened before the lane can be used.
    pub(super) fn session_to_open(&self) -> Option<u64> {
        (self.writes == Writes::Some && self.session.is_none()).then_some(self.nonce)
    }

    pub(super) fn session_opened(&mut self, id: SessionId) {
        self.session = Some(Session::new(id));
        self.nonce = self.prng.next_u64();
    }

    #[allow(clippy::indexing_slicing, reason = "a tag's slot is one of the lane's")]
    fn number(&mut self, tag: Tag) -> &mut Option<Number> {
        &mut self.numbers[tag.slot()]
    }

    /// What the write in a slot carries.
    ///
    /// One whose session is gone gets a number in the new one: nothing of the old session was applied, as the shard
    /// said. The new session is the lane's own and has room for as many as there are slots.
    #[allow(clippy::expect_used, reason = "a lane that writes is opened with a session, and with room in it")]
    fn write_context(&mut self, tag: Tag) -> WriteContext<'static> {
        let session = self.session.as_mut().expect("a session was opened");
        let known = self.numbers.get(tag.slot()).copied().flatten();
        let number = match known.filter(|number| number.session == session.id()) {
            Some(number) => number,
            None => Number { session: session.id(), seq: session.begin().expect("room for every slot") },
        };
        let acknowledged_below = session.acknowledged_below();
        *self.number(tag) = Some(number);
        WriteContext {
            session: number.session,
            seq: number.seq,
            acknowledged_below,
            ..WriteContext::default()
        }
    }

    fn found(&self, items: impl Iterator<Item = Option<usize>>) -> Answer {
        let mut found = Found::default();
        for length in items {
            match length {
                Some(length) if length == self.value_bytes => found.right += 1,
                Some(_) => found.wrong += 1,
                None => found.missing += 1,
            }
        }
        Answer::Read(found)
    }

    fn scanned(&mut self, tag: Tag, range: &RangeAnswer<'_>) -> Answer {
        let (mut found, mut last) = (Found::default(), None);
        for item in range.items {
            found.count(Some(item.item.value), self.value_bytes);
            last = Some(item.key);
        }
        if let (Some(key), true, Some(place)) = (last, range.more, self.places.get_mut(tag.slot())) {
            place.after.clear();
            place.after.extend_from_slice(key);
            place.at = range.revision;
        }
        Answer::Scanned { found, rest: if range.more { Rest::Some } else { Rest::None } }
    }

    fn setback(&mut self, error: &Error) -> Answer {
        let then = match error {
            Error::NotLeader { .. } | Error::WrongEpoch { .. } | Error::ShuttingDown => Then::Reopen,
            Error::UnknownSession => {
                self.session = None;
                Then::Reopen
            }
            Error::Overloaded { retry_after_ms } => {
                Then::Again { after: Duration::from_millis(u64::from(*retry_after_ms)) }
            }
            error if error.is_retryable() => Then::Again { after: CLIENT_RETRY_PAUSE_MIN },
            _ => Then::GiveUp,
        };
        Answer::Setback { name: error.name(), then }
    }
}

impl Lane for MeshLane {
    fn admit(&mut self, tag: Tag, kind: OpKind) -> Admission {
        if kind != OpKind::Write {
            return Admission::Granted;
        }
        // Without a session the connection is about to be made anew, and the number comes with it.
        let number = match &mut self.session {
            None => return Admission::NotYet,
            Some(session) => session.begin().map(|seq| Number { session: session.id(), seq }),
        };
        *self.number(tag) = number;
        if number.is_some() { Admission::Granted } else { Admission::NotYet }
    }

    #[allow(clippy::expect_used, reason = "keys, values and batches were held against the limits beforehand")]
    fn encode(&mut self, tag: Tag, op: &Op, keyspace: &Keyspace, out: &mut Vec<u8>) {
        let envelope =
            Envelope { request: RequestId(tag.number()), shard: Some(self.shard), epoch: self.epoch };
        let written = match (op.kind, op.keys.as_slice()) {
            (OpKind::Read, &[key]) => {
                let get = Request::Get(Get { key: keyspace.key(key), ..Get::default() });
                self.writer.append(&envelope, &get, out)
            }
            (OpKind::Read, keys) => {
                let keys: Vec<_> = keys.iter().map(|&key| keyspace.key(key)).collect();
                let get = Request::GetBatch(GetBatch { keys: List::from(&keys), ..GetBatch::default() });
                self.writer.append(&envelope, &get, out)
            }
            (OpKind::Scan, keys) => {
                let from = keys.first().map_or(&[][..], |&key| keyspace.key(key));
                let place = self.places.get(tag.slot()).filter(|_| op.page == Page::Next);
                let range = Request::Range(Range {
                    from,
                    after: place.map(|place| place.after.as_slice()),
                    at: place.map(|place| place.at).unwrap_or_default(),
                    limit: u32::try_from(op.items).unwrap_or(u32::MAX),
                    ..Range::default()
                });
                self.writer.append(&envelope, &range, out)
            }
            (OpKind::Write, _) => {
                let ctx = self.write_context(tag);
                let mut items = op
                    .writes()
                    .map(|(key, at)| KeyValue { key: keyspace.key(key), value: keyspace.value(at) });
                match (items.next(), items.next()) {
                    (Some(KeyValue { key, value }), None) => {
                        let put = Request::Put(Put { ctx, key, value, ..Put::default() });
                        self.writer.append(&envelope, &put, out)
                    }
                    (first, second) => {
                        let items: Vec<_> = first.into_iter().chain(second).chain(items).collect();
                        let put = Request::PutBatch(PutBatch { ctx, items: List::from(&items) });
                        self.writer.append(&envelope, &put, out)
                    }
                }
            }
        };
        written.expect("a request within the limits");
    }

    fn decode(&mut self, received: &[u8]) -> Result<Option<Decoded>, Broken> {
        let broken = |what: &dyn std::fmt::Display| Broken(what.to_string());
        let Some(frame) = self.decoder.peek(received).map_err(|error| broken(&error))? else {
            return Ok(None);
        };
        let length_of = |item: Item<'_>| item.value.len();
        let answer = match frame.response().map_err(|error| broken(&error))? {
            Response::Get(get) => self.found(std::iter::once(get.item.map(length_of))),
            Response::GetBatch(get) => self.found(get.items.iter().map(|item| item.map(length_of))),
            Response::Written(_) => Answer::Written,
            Response::Range(range) => {
                let tag = Tag::from_number(frame.header.envelope.request.0);
                self.scanned(tag, &range)
            }
            Response::Error(error) if frame.header.envelope.request == RequestId(0) => {
                return Err(broken(&error));
            }
            Response::Error(error) => self.setback(&error),
            other => return Err(Broken(format!("{} answers nothing that was asked", other.kind()))),
        };
        let tag = Tag::from_number(frame.header.envelope.request.0);
        Ok(Some(Decoded { length: frame.length(), tag, answer }))
    }

    fn values(&self, answer: &[u8], each: &mut dyn FnMut(Option<&[u8]>)) {
        let Ok(Some(frame)) = self.decoder.peek(answer) else { return };
        match frame.response() {
            Ok(Response::Get(get)) => each(get.item.map(|item| item.value)),
            Ok(Response::GetBatch(get)) => {
                get.items.iter().for_each(|item| each(item.map(|item| item.value)));
            }
            _ => {}
        }
    }

    fn say(&mut self, _out: &mut Vec<u8>) {}

    fn settle(&mut self, tag: Tag, _kind: OpKind) {
        let number = self.number(tag).take();
        if let (Some(number), Some(session)) = (number, &mut self.session)
            && number.session == session.id()
        {
            session.settle(number.seq);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mesh_wire::{FrameRef, GetAnswer, GetBatchAnswer, Written};

    use super::*;
    use crate::distribution::Distribution;
    use crate::keyspace::KeyspaceSpec;
    use crate::target::PartitionId;
    use crate::workload::{Feed, Mix, Shares};

    fn lane(writes: Writes) -> MeshLane {
        let spec =
            LaneSpec { partition: PartitionId(0), writes, in_flight: 4, value_bytes: 5, prng: Prng::new(1) };
        MeshLane::new(spec, ShardId(3))
    }

    fn op(reads: u32, batch: usize) -> (Arc<Keyspace>, Op) {
        let spec = KeyspaceSpec {
            keys: 50,
            inserts: 0,
            value_bytes: 5,
            distribution: Distribution::Uniform,
            seed: 1,
        };
        let keyspace = Arc::new(Keyspace::new(spec, 1, |_| PartitionId(0)).unwrap());
        let mut op = Op::empty();
        Feed::new(&keyspace, PartitionId(0), Mix::Random(Shares::reads(reads)), batch, Prng::new(2))
            .next(&mut op);
        (keyspace, op)
    }

    fn session(number: u64) -> SessionId {
        SessionId(Revision(number))
    }

    /// Session and number of a put in a frame.
    fn put_in(bytes: &[u8]) -> (u64, u64) {
        let frame: FrameRef<'_> = FrameDecoder::new().peek(bytes).unwrap().unwrap();
        let Request::Put(put) = frame.request().unwrap() else { panic!("not a put") };
        (put.ctx.session.get(), put.ctx.seq.0)
    }

    fn answer(tag: Tag, response: &Response<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let envelope = Envelope { request: RequestId(tag.number()), ..Envelope::default() };
        FrameWriter::new().append(&envelope, response, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn requests_are_what_the_operation_says() {
        let mut lane = lane(Writes::Some);
        lane.session_opened(session(9));
        for (reads, batch) in [(100, 1), (100, 3), (0, 1), (0, 3)] {
            let (keyspace, op) = op(reads, batch);
            let tag = Tag::first(2);
            assert_eq!(lane.admit(tag, op.kind), Admission::Granted);
            let mut bytes = Vec::new();
            lane.encode(tag, &op, &keyspace, &mut bytes);
            let frame = FrameDecoder::new().peek(&bytes).unwrap().unwrap();
            assert_eq!(frame.header.envelope.shard, Some(ShardId(3)));
            let keys: Vec<_> = op.keys.iter().map(|&key| keyspace.key(key)).collect();
            match frame.request().unwrap() {
                Request::Get(get) => assert_eq!((reads, vec![get.key]), (100, keys)),
                Request::GetBatch(get) => {
                    assert_eq!((reads, get.keys.iter().collect::<Vec<_>>()), (100, keys));
                }
                Request::Put(put) => {
                    assert_eq!((reads, vec![put.key], put.value.len()), (0, keys, 5));
                }
                Request::PutBatch(put) => {
                    assert_eq!((reads, put.items.iter().map(|item| item.key).collect::<Vec<_>>()), (0, keys));
                }
                other => panic!("{other:?}"),
            }
            lane.settle(tag, op.kind);
        }
    }

    #[test]
    fn a_write_that_is_sent_again_keeps_its_number_until_its_session_is_gone() {
        let (keyspace, op) = op(0, 1);
        let mut lane = lane(Writes::Some);
        lane.session_opened(session(9));
        let tag = Tag::first(0);
        assert_eq!(lane.admit(tag, OpKind::Write), Admission::Granted);
        let mut sent = || {
            let mut bytes = Vec::new();
            lane.encode(tag, &op, &keyspace, &mut bytes);
            put_in(&bytes)
        };
        assert_eq!((sent(), sent()), ((9, 1), (9, 1)));
        let gone = answer(tag, &Response::Error(Error::UnknownSession));
        let setback = Answer::Setback { name: "UnknownSession", then: Then::Reopen };
        assert_eq!(lane.decode(&gone).unwrap().unwrap().answer, setback);
        assert!(lane.session_to_open().is_some());
        lane.session_opened(session(10));
        let mut bytes = Vec::new();
        lane.encode(tag, &op, &keyspace, &mut bytes);
        assert_eq!(put_in(&bytes), (10, 1));
    }

    #[test]
    fn a_lane_that_only_reads_needs_no_session() {
        assert_eq!(lane(Writes::None).session_to_open(), None);
        let lane = lane(Writes::Some);
        assert_eq!(lane.session_to_open(), lane.session_to_open(), "an opening that is sent again is known");
    }

    #[test]
    fn answers_are_counted_by_what_they_hold() {
        let item = |value| Some(Item { value, revision: Revision(1), ..Item::default() });
        let mut lane = lane(Writes::None);
        let tag = Tag::first(1);
        let bytes = answer(tag, &Response::Get(GetAnswer { item: item(b"right"), revision: Revision(1) }));
        assert_eq!(lane.decode(&bytes[..bytes.len() - 1]), Ok(None));
        let decoded = lane.decode(&bytes).unwrap().unwrap();
        assert_eq!((decoded.length, decoded.tag), (bytes.len(), tag));
        assert_eq!(decoded.answer, Answer::Read(Found { right: 1, missing: 0, wrong: 0 }));
        let items = [item(b"wrong!"), None, None, item(b"right")];
        let batch = GetBatchAnswer { items: List::from(&items), revision: Revision(1) };
        let bytes = answer(tag, &Response::GetBatch(batch));
        let decoded = lane.decode(&bytes).unwrap().unwrap();
        assert_eq!(decoded.answer, Answer::Read(Found { right: 1, missing: 2, wrong: 1 }));
        let mut seen = Vec::new();
        lane.values(&bytes, &mut |value| seen.push(value.map(<[u8]>::to_vec)));
        assert_eq!(seen, [Some(b"wrong!".to_vec()), None, None, Some(b"right".to_vec())]);
        let written = answer(tag, &Response::Written(Written::default()));
        assert_eq!(lane.decode(&written).unwrap().unwrap().answer, Answer::Written);
    }

    #[test]
    fn errors_say_what_is_to_be_done() {
        let mut lane = lane(Writes::None);
        let again = |ms| Then::Again { after: Duration::from_millis(ms) };
        for (error, then) in [
            (Error::NotLeader { shard: ShardId(3), leader: None }, Then::Reopen),
            (Error::ShuttingDown, Then::Reopen),
            (Error::Overloaded { retry_after_ms: 70 }, again(70)),
            (Error::Unknown, again(10)),
            (Error::NoSpace, Then::GiveUp),
            (Error::Malformed { what: "key".into() }, Then::GiveUp),
        ] {
            let bytes = answer(Tag::first(0), &Response::Error(error.clone()));
            let name = error.name();
            assert_eq!(lane.decode(&bytes).unwrap().unwrap().answer, Answer::Setback { name, then });
        }
        assert!(lane.decode(b"HTTP/1.1 400").is_err());
    }
}
