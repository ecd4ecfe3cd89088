//! Requests and answers of memcached's meta commands.
//!
//! `mg key v` is answered by `VA 3`, the value and an end of line, or by `EN` if there is none; `ms key 3` with the value behind it by
//! `HD`. `SERVER_ERROR why` and `CLIENT_ERROR why` answer what could not be done.

use std::collections::VecDeque;

use crate::keyspace::Keyspace;
use crate::op::{Op, OpKind};
use crate::target::line::{END, append, block, line, number};
use crate::target::{Admission, Answer, Broken, Decoded, Found, Lane, Tag, Then};

/// What was sent and not answered.
#[derive(Clone, Copy, Debug)]
struct Sent {
    tag: Tag,
    kind: OpKind,
    /// Answers that belong to it.
    keys: usize,
}

/// See the module.
pub(crate) struct MemcachedLane {
    value_bytes: usize,
    /// The oldest first.
    in_flight: VecDeque<Sent>,
    /// Keys of the read that was answered last.
    last_keys: usize,
}

impl MemcachedLane {
    pub(super) const fn new(value_bytes: usize) -> Self {
        Self { value_bytes, in_flight: VecDeque::new(), last_keys: 0 }
    }

    /// Nothing is in flight on the connection that comes.
    pub(super) fn connected(&mut self) {
        self.in_flight.clear();
    }
}

/// What stands at the front.
enum Reply<'a> {
    Value(Option<&'a [u8]>),
    Stored,
    Error(&'static str),
}

/// A reply, and what is behind it.
type Cut<'a> = Option<(Reply<'a>, &'a [u8])>;

fn reply(bytes: &[u8]) -> Result<Cut<'_>, String> {
    let Some((head, rest)) = line(bytes)? else { return Ok(None) };
    let mut words = head.split(|byte| *byte == b' ');
    let reply = match words.next().unwrap_or_default() {
        b"VA" => {
            let length = number(words.next().unwrap_or_default())?;
            return Ok(block(rest, length)?.map(|(value, rest)| (Reply::Value(Some(value)), rest)));
        }
        b"EN" => Reply::Value(None),
        b"HD" => Reply::Stored,
        b"NS" => Reply::Error("NotStored"),
        b"SERVER_ERROR" => Reply::Error("ServerError"),
        // The value of a refused `ms` would be taken for commands.
        _ => return Err(format!("it answered `{}`", head.escape_ascii())),
    };
    Ok(Some((reply, rest)))
}

/// As many replies as an operation has keys: what they come to, and what is behind them.
fn answer<'a>(
    received: &'a [u8],
    kind: OpKind,
    keys: usize,
    each: &mut dyn FnMut(Option<&[u8]>),
) -> Result<Option<(Answer, &'a [u8])>, String> {
    let (mut rest, mut error) = (received, None);
    for _ in 0..keys {
        let Some((reply, behind)) = reply(rest)? else { return Ok(None) };
        rest = behind;
        match (reply, kind) {
            (Reply::Value(value), OpKind::Read) => each(value),
            (Reply::Stored, OpKind::Write) => {}
            (Reply::Error(name), _) => error = Some(name),
            _ => return Err("an answer to something else".into()),
        }
    }
    let done = if kind == OpKind::Read { Answer::Read(Found::default()) } else { Answer::Written };
    let answer = error.map_or(done, |name| Answer::Setback { name, then: Then::GiveUp });
    Ok(Some((answer, rest)))
}

impl Lane for MemcachedLane {
    fn admit(&mut self, _tag: Tag, _kind: OpKind) -> Admission {
        Admission::Granted
    }

    fn encode(&mut self, tag: Tag, op: &Op, keyspace: &Keyspace, out: &mut Vec<u8>) {
        match op.kind {
            OpKind::Read | OpKind::Scan => {
                for &key in &op.keys {
                    out.extend_from_slice(b"mg ");
                    out.extend_from_slice(keyspace.key(key));
                    out.extend_from_slice(b" v\r\n");
                }
            }
            OpKind::Write => {
                for (key, at) in op.writes() {
                    let value = keyspace.value(at);
                    out.extend_from_slice(b"ms ");
                    out.extend_from_slice(keyspace.key(key));
                    out.push(b' ');
                    append(value.len(), out);
                    out.extend_from_slice(END);
                    out.extend_from_slice(value);
                    out.extend_from_slice(END);
                }
            }
        }
        self.in_flight.push_back(Sent { tag, kind: op.kind, keys: op.keys.len() });
    }

    fn decode(&mut self, received: &[u8]) -> Result<Option<Decoded>, Broken> {
        if received.is_empty() {
            return Ok(None);
        }
        let Some(&Sent { tag, kind, keys }) = self.in_flight.front() else {
            return Err(Broken("an answer to nothing".into()));
        };
        let (mut found, value_bytes) = (Found::default(), self.value_bytes);
        let cut =
            answer(received, kind, keys, &mut |value| found.count(value, value_bytes)).map_err(Broken)?;
        let Some((answer, rest)) = cut else { return Ok(None) };
        self.in_flight.pop_front();
        self.last_keys = keys;
        let answer = if let Answer::Read(_) = answer { Answer::Read(found) } else { answer };
        Ok(Some(Decoded { length: received.len() - rest.len(), tag, answer }))
    }

    fn values(&self, received: &[u8], each: &mut dyn FnMut(Option<&[u8]>)) {
        // It was decoded before.
        let _ = answer(received, OpKind::Read, self.last_keys, each);
    }

    fn say(&mut self, _out: &mut Vec<u8>) {}

    fn settle(&mut self, _tag: Tag, _kind: OpKind) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::trial::{keyspace, read, write};

    fn sent(lane: &mut MemcachedLane, slot: u16, op: &Op) -> Vec<u8> {
        let mut out = Vec::new();
        lane.encode(Tag::first(slot), op, &keyspace(), &mut out);
        out
    }

    #[test]
    fn requests_are_meta_commands() {
        let mut lane = MemcachedLane::new(5);
        assert_eq!(sent(&mut lane, 0, &read(&[1, 2])), b"mg bench:0000000001 v\r\nmg bench:0000000002 v\r\n");
        let put = sent(&mut lane, 0, &write(&[1]));
        assert!(put.starts_with(b"ms bench:0000000001 5\r\n") && put.ends_with(b"\r\n"));
        assert_eq!(put.len(), 23 + 5 + 2);
    }

    #[test]
    fn answers_belong_to_requests_in_their_order() {
        let mut lane = MemcachedLane::new(5);
        for (slot, op) in (0..).zip([read(&[1, 2, 3]), write(&[1, 2]), write(&[3])]) {
            sent(&mut lane, slot, &op);
        }
        let bytes = b"VA 5\r\na\r\nb!\r\nEN\r\nVA 1 t0\r\nx\r\nHD\r\nHD\r\nSERVER_ERROR out of memory\r\n";
        let mut rest = &bytes[..];
        for cut in 0..25 {
            assert_eq!(lane.decode(&rest[..cut]), Ok(None), "{cut} bytes of it");
        }
        let expected = [
            Answer::Read(Found { right: 1, missing: 1, wrong: 1 }),
            Answer::Written,
            Answer::Setback { name: "ServerError", then: Then::GiveUp },
        ];
        for (slot, answer) in (0..).zip(expected) {
            let decoded = lane.decode(rest).unwrap().unwrap();
            assert_eq!((decoded.tag, decoded.answer), (Tag::first(slot), answer));
            rest = &rest[decoded.length..];
        }
        assert!(rest.is_empty());
        assert!(lane.decode(b"HD\r\n").is_err(), "nobody asked");
    }

    #[test]
    fn what_is_no_answer_ends_the_connection() {
        for bytes in [&b"ERROR\r\n"[..], b"HD\r\n", b"VA x\r\n", b"CLIENT_ERROR bad command line\r\n"] {
            let mut lane = MemcachedLane::new(5);
            sent(&mut lane, 0, &read(&[1]));
            assert!(lane.decode(bytes).is_err(), "{}", bytes.escape_ascii());
        }
    }
}
