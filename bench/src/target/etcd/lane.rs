//! One connection of gRPC: each operation in flight is a stream of HTTP/2.
//!
//! Invariants:
//! - No more is sent than the server's windows have room for; what there is no room for waits here, in order.
//! - Bytes that were looked at are not looked at again, though they stay in front until an answer is whole.
//! - The server never waits for this side's windows: they are as large as can be, and made so again in time.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::frame::{
    ACK, CONNECTION, END_HEADERS, END_STREAM, Frame, Kind, PAYLOAD_BYTES_MAX, Setting, StreamId,
    WINDOW_BYTES, append_ack, append_head, append_window,
};
use super::{hpack, message};
use crate::keyspace::Keyspace;
use crate::op::{Op, OpKind};
use crate::target::{Admission, Answer, Broken, Decoded, Found, Lane, Tag, Then};

/// How long a server that cannot do it now is left alone.
const PAUSE: Duration = Duration::from_millis(10);
/// The connection's window is made large again when so much of it is used.
const WINDOW_STEP: u32 = 1 << 24;
/// No stream has a higher number.
const STREAM_ID_MAX: u32 = (1 << 31) - 1;
/// The error of a stream that the server ended without a status.
const RESET: &str = "StreamReset";
/// The error of an answer that is not HTTP's 200.
const NOT_OK: &str = "HttpError";

/// Where requests are sent.
#[derive(Clone, Debug)]
pub(super) struct Methods {
    range: Vec<u8>,
    put: Vec<u8>,
    txn: Vec<u8>,
}

impl Methods {
    pub(super) fn at(authority: &str) -> Self {
        let block = |method| hpack::request(authority, &format!("/etcdserverpb.KV/{method}"));
        Self { range: block("Range"), put: block("Put"), txn: block("Txn") }
    }

    const fn of(&self, kind: OpKind, keys: usize) -> &Vec<u8> {
        match (kind, keys) {
            (OpKind::Read, 1) => &self.range,
            (OpKind::Write, 1) => &self.put,
            _ => &self.txn,
        }
    }
}

/// An operation in flight.
#[derive(Debug)]
struct Stream {
    tag: Tag,
    kind: OpKind,
    keys: usize,
    body: Vec<u8>,
}

/// A request's message, or what is left of it, that there was no room for.
#[derive(Debug)]
struct Waiting {
    stream: StreamId,
    message: Vec<u8>,
    sent: usize,
    window: i64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct EtcdLane {
    value_bytes: usize,
    methods: Methods,
    /// Nodes that the connection may go to, the last first.
    pub(super) goes_to: Option<std::net::SocketAddr>,
    next: u32,
    streams: BTreeMap<StreamId, Stream>,
    /// Bodies to use again.
    spare: Vec<Vec<u8>>,
    /// The read that was answered last.
    last: (Vec<u8>, usize),
    waiting: VecDeque<Waiting>,
    /// Bytes that may be sent on the connection, and on a stream that begins.
    window: i64,
    stream_window: i64,
    /// Bytes that came since the window was made large.
    used: u32,
    /// Bytes at the front of what was received that were looked at.
    looked_at: usize,
    /// The trailers of a success.
    success: Vec<u8>,
    /// What has to be said.
    owed: Vec<u8>,
    scratch: Vec<u8>,
}

impl EtcdLane {
    pub(super) fn new(value_bytes: usize) -> Self {
        Self {
            value_bytes,
            methods: Methods::at(""),
            goes_to: None,
            next: 1,
            streams: BTreeMap::new(),
            spare: Vec::new(),
            last: (Vec::new(), 0),
            waiting: VecDeque::new(),
            window: WINDOW_BYTES,
            stream_window: WINDOW_BYTES,
            used: 0,
            looked_at: 0,
            success: Vec::new(),
            owed: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// The connection that comes is a new one, to a server at an address.
    pub(super) fn connected(&mut self, to: std::net::SocketAddr) {
        *self = Self {
            methods: Methods::at(&to.to_string()),
            goes_to: Some(to),
            spare: std::mem::take(&mut self.spare),
            ..Self::new(self.value_bytes)
        };
    }

    /// Sends what there is room for of a message.
    fn send(&mut self, mut waiting: Waiting, out: &mut Vec<u8>) {
        loop {
            let rest = waiting.message.get(waiting.sent..).unwrap_or_default();
            let room = self.window.min(waiting.window).max(0);
            let size = rest.len().min(PAYLOAD_BYTES_MAX).min(usize::try_from(room).unwrap_or_default());
            let is_last = size == rest.len();
            if size == 0 && !is_last {
                return self.waiting.push_front(waiting);
            }
            append_head(Kind::Data, if is_last { END_STREAM } else { 0 }, waiting.stream, size, out);
            out.extend_from_slice(rest.get(..size).unwrap_or_default());
            waiting.sent += size;
            let spent = i64::try_from(size).unwrap_or_default();
            (self.window, waiting.window) = (self.window - spent, waiting.window - spent);
            if is_last {
                return self.spare.push(waiting.message);
            }
        }
    }

    /// Takes in a frame; the stream that it ends, with what became of its operation.
    fn take(&mut self, frame: &Frame<'_>) -> Result<Option<(StreamId, Answer)>, String> {
        match frame.kind {
            Kind::Data => {
                self.used += u32::try_from(frame.length).unwrap_or(u32::MAX);
                if self.used >= WINDOW_STEP {
                    append_window(std::mem::take(&mut self.used), &mut self.owed);
                }
                if let Some(stream) = self.streams.get_mut(&frame.stream) {
                    stream.body.extend_from_slice(frame.payload);
                }
                Ok(frame.has(END_STREAM).then_some((frame.stream, setback(RESET, PAUSE))))
            }
            Kind::Headers if !frame.has(END_HEADERS) => Err("headers in several frames".into()),
            Kind::Headers if frame.has(END_STREAM) => Ok(Some((frame.stream, self.ended(frame)?))),
            Kind::Headers | Kind::Other => Ok(None),
            Kind::Continuation => Err("headers in several frames".into()),
            Kind::ResetStream => Ok(Some((frame.stream, setback(RESET, PAUSE)))),
            Kind::GoAway => Err(format!("it goes away ({})", frame.payload.escape_ascii())),
            Kind::Settings if frame.has(ACK) => Ok(None),
            Kind::Settings => {
                self.settings(frame);
                append_ack(Kind::Settings, &[], &mut self.owed);
                Ok(None)
            }
            Kind::Ping => {
                if !frame.has(ACK) {
                    append_ack(Kind::Ping, frame.payload, &mut self.owed);
                }
                Ok(None)
            }
            Kind::WindowUpdate => {
                self.widen(frame.stream, i64::from(frame.number()));
                Ok(None)
            }
        }
    }

    pub(super) fn settings(&mut self, frame: &Frame<'_>) {
        if let Some(window) = frame.setting(Setting::InitialWindowSize) {
            let more = i64::from(window) - self.stream_window;
            self.stream_window = i64::from(window);
            self.waiting.iter_mut().for_each(|waiting| waiting.window += more);
        }
    }

    pub(super) fn widen(&mut self, stream: StreamId, more: i64) {
        if stream == CONNECTION {
            self.window += more;
        } else if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.stream == stream) {
            waiting.window += more;
        }
    }

    /// What the trailers of a stream say.
    fn ended(&mut self, frame: &Frame<'_>) -> Result<Answer, String> {
        if !self.success.is_empty() && frame.payload == self.success {
            return self.succeeded(frame.stream);
        }
        let said = hpack::read(frame.payload)?;
        match said.status {
            Some(0) if said.is_ok.is_none() => {
                self.success = frame.payload.to_vec();
                self.succeeded(frame.stream)
            }
            Some(status) => Ok(of_status(status)),
            None => Ok(setback(NOT_OK, PAUSE)),
        }
    }

    fn succeeded(&self, id: StreamId) -> Result<Answer, String> {
        let Some(stream) = self.streams.get(&id) else { return Ok(Answer::Written) };
        let message = message::in_body(&stream.body)?;
        match stream.kind {
            OpKind::Write => Ok(Answer::Written),
            OpKind::Read | OpKind::Scan => {
                let mut found = Found::default();
                message::values(message, stream.keys, &mut |value| found.count(value, self.value_bytes))?;
                Ok(Answer::Read(found))
            }
        }
    }
}

const fn setback(name: &'static str, after: Duration) -> Answer {
    Answer::Setback { name, then: Then::Again { after } }
}

/// What to do about a status of gRPC.
const fn of_status(status: u32) -> Answer {
    match status {
        4 => setback("DeadlineExceeded", PAUSE),
        8 => setback("ResourceExhausted", PAUSE),
        10 => setback("Aborted", PAUSE),
        14 => setback("Unavailable", PAUSE),
        3 => Answer::Setback { name: "InvalidArgument", then: Then::GiveUp },
        9 => Answer::Setback { name: "FailedPrecondition", then: Then::GiveUp },
        _ => Answer::Setback { name: "GrpcError", then: Then::GiveUp },
    }
}

impl Lane for EtcdLane {
    fn admit(&mut self, _tag: Tag, _kind: OpKind) -> Admission {
        if self.next < STREAM_ID_MAX { Admission::Granted } else { Admission::NotYet }
    }

    fn encode(&mut self, tag: Tag, op: &Op, keyspace: &Keyspace, out: &mut Vec<u8>) {
        let (stream, keys) = (StreamId(self.next), op.keys.len());
        self.next = self.next.saturating_add(2);
        let body = self.spare.pop().map(emptied).unwrap_or_default();
        self.streams.insert(stream, Stream { tag, kind: op.kind, keys, body });
        let mut message = self.spare.pop().map(emptied).unwrap_or_default();
        message::append_request(op, keyspace, &mut self.scratch, &mut message);
        let block = self.methods.of(op.kind, keys);
        append_head(Kind::Headers, END_HEADERS, stream, block.len(), out);
        out.extend_from_slice(block);
        let waiting = Waiting { stream, message, sent: 0, window: self.stream_window };
        if self.waiting.is_empty() {
            self.send(waiting, out);
        } else {
            self.waiting.push_back(waiting);
        }
    }

    fn decode(&mut self, received: &[u8]) -> Result<Option<Decoded>, Broken> {
        loop {
            let rest = received.get(self.looked_at..).unwrap_or_default();
            let Some(frame) = Frame::peek(rest).map_err(Broken)? else { return Ok(None) };
            self.looked_at += frame.length;
            let Some((id, answer)) = self.take(&frame).map_err(Broken)? else { continue };
            let Some(stream) = self.streams.remove(&id) else { continue };
            self.waiting.retain(|waiting| waiting.stream != id);
            if stream.kind == OpKind::Read {
                let body = std::mem::replace(&mut self.last, (stream.body, stream.keys)).0;
                self.spare.push(body);
            } else {
                self.spare.push(stream.body);
            }
            let length = std::mem::take(&mut self.looked_at);
            return Ok(Some(Decoded { length, tag: stream.tag, answer }));
        }
    }

    fn values(&self, _answer: &[u8], each: &mut dyn FnMut(Option<&[u8]>)) {
        let (body, keys) = &self.last;
        if let Ok(message) = message::in_body(body) {
            // It was read before.
            let _ = message::values(message, *keys, each);
        }
    }

    fn say(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.owed);
        while let Some(waiting) = self.waiting.pop_front() {
            let before = self.waiting.len();
            self.send(waiting, out);
            if self.waiting.len() > before {
                return;
            }
        }
    }

    fn settle(&mut self, _tag: Tag, _kind: OpKind) {}
}

fn emptied(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.clear();
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::trial::{keyspace, read, write};

    fn lane() -> EtcdLane {
        let mut lane = EtcdLane::new(5);
        lane.connected("127.0.0.1:2379".parse().unwrap());
        lane
    }

    fn frame(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        append_head(kind, flags, StreamId(stream), payload.len(), &mut out);
        out.extend_from_slice(payload);
        out
    }

    /// `grpc-status` in plain letters.
    fn trailers(stream: u32, status: &str) -> Vec<u8> {
        let mut block = vec![0, 11];
        block.extend_from_slice(b"grpc-status");
        block.push(u8::try_from(status.len()).unwrap());
        block.extend_from_slice(status.as_bytes());
        frame(Kind::Headers, END_HEADERS | END_STREAM, stream, &block)
    }

    fn body(message: &[u8]) -> Vec<u8> {
        [&[0, 0, 0, 0, u8::try_from(message.len()).unwrap()][..], message].concat()
    }

    fn kinds(mut bytes: &[u8]) -> Vec<(Kind, u32)> {
        let mut kinds = Vec::new();
        while let Some(frame) = Frame::peek(bytes).unwrap() {
            kinds.push((frame.kind, frame.stream.0));
            bytes = &bytes[frame.length..];
        }
        assert!(bytes.is_empty());
        kinds
    }

    #[test]
    fn a_request_is_a_stream_and_streams_may_end_in_any_order_and_in_pieces() {
        let (mut lane, keyspace, mut out) = (lane(), keyspace(), Vec::new());
        let tags = [Tag::first(0), Tag::first(1)];
        lane.encode(tags[0], &write(&[1]), &keyspace, &mut out);
        lane.encode(tags[1], &read(&[2]), &keyspace, &mut out);
        let both = |stream| [(Kind::Headers, stream), (Kind::Data, stream)];
        assert_eq!(kinds(&out), [both(1), both(3)].concat());
        let kv = [0x12, 7, 0x2a, 5, b'r', b'i', b'g', b'h', b't'];
        let received = [
            frame(Kind::Headers, END_HEADERS, 3, &[0x20, 0x88]),
            frame(Kind::Data, 0, 3, &body(&kv)[..4]),
            frame(Kind::Headers, END_HEADERS, 1, &[0x88]),
            frame(Kind::Data, 0, 3, &body(&kv)[4..]),
            trailers(3, "0"),
            frame(Kind::Data, 0, 1, &body(&[])),
            trailers(1, "0"),
        ]
        .concat();
        let (mut decoded, mut rest, mut end) = (Vec::new(), 0, 0);
        while end < received.len() {
            end += 1;
            while let Some(next) = lane.decode(&received[rest..end]).unwrap() {
                rest += next.length;
                let mut values = Vec::new();
                lane.values(&[], &mut |value| values.push(value.unwrap().to_vec()));
                assert_eq!(values, [b"right"]);
                decoded.push((next.tag, next.answer));
            }
        }
        let found = Answer::Read(Found { right: 1, missing: 0, wrong: 0 });
        assert_eq!(decoded, [(tags[1], found), (tags[0], Answer::Written)]);
        assert_eq!(rest, received.len());
    }

    #[test]
    fn what_the_server_has_no_room_for_waits_until_it_has() {
        let (mut lane, keyspace, mut out) = (lane(), keyspace(), Vec::new());
        lane.window = 40;
        lane.encode(Tag::first(0), &write(&[1]), &keyspace, &mut out);
        lane.encode(Tag::first(1), &write(&[2]), &keyspace, &mut out);
        assert_eq!(kinds(&out), [(Kind::Headers, 1), (Kind::Data, 1), (Kind::Headers, 3), (Kind::Data, 3)]);
        assert_eq!((lane.window, lane.waiting.len()), (0, 1));
        out.clear();
        lane.encode(Tag::first(2), &write(&[3]), &keyspace, &mut out);
        lane.say(&mut out);
        assert_eq!(kinds(&out), [(Kind::Headers, 5)]);
        assert_eq!(lane.decode(&frame(Kind::WindowUpdate, 0, 0, &1000_u32.to_be_bytes())), Ok(None));
        out.clear();
        lane.say(&mut out);
        assert_eq!(kinds(&out), [(Kind::Data, 3), (Kind::Data, 5)]);
        assert!(lane.waiting.is_empty());
        let sent: usize = 3 * (message::PREFIX_BYTES + 25);
        assert_eq!(lane.window, 1040 - i64::try_from(sent).unwrap());
    }

    #[test]
    fn pings_and_settings_are_answered() {
        let (mut lane, mut out) = (lane(), Vec::new());
        let ping = frame(Kind::Ping, 0, 0, b"12345678");
        let settings = frame(Kind::Settings, 0, 0, &[0, 4, 0, 1, 0, 0]);
        assert_eq!(lane.decode(&[ping, settings].concat()), Ok(None));
        lane.say(&mut out);
        assert_eq!(kinds(&out), [(Kind::Ping, 0), (Kind::Settings, 0)]);
        assert_eq!(lane.stream_window, 65_536);
    }

    #[test]
    fn a_status_says_what_is_to_be_done_and_a_server_that_goes_ends_the_connection() {
        for (bytes, name, gives_up) in [
            (trailers(1, "14"), "Unavailable", false),
            (trailers(1, "3"), "InvalidArgument", true),
            (trailers(1, "77"), "GrpcError", true),
            (frame(Kind::ResetStream, 0, 1, &[0, 0, 0, 8]), RESET, false),
        ] {
            let mut lane = lane();
            lane.encode(Tag::first(0), &read(&[1]), &keyspace(), &mut Vec::new());
            let Answer::Setback { name: found, then } = lane.decode(&bytes).unwrap().unwrap().answer else {
                panic!("no setback");
            };
            assert_eq!((found, then == Then::GiveUp), (name, gives_up));
        }
        assert!(lane().decode(&frame(Kind::GoAway, 0, 0, &[0; 8])).is_err());
    }
}
