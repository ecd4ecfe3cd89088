//! Requests and answers of the Redis protocol, version 2.
//!
//! A request is an array of bulk strings (`*2\r\n$3\r\nGET\r\n$1\r\nk\r\n`). An answer is a simple string (`+OK`), an error
//! (`-ERR why`), a bulk string (`$1\r\nv\r\n`, or `$-1\r\n` for none) or an array of these (`*2\r\n...`).

use std::collections::VecDeque;
use std::time::Duration;

use crate::keyspace::Keyspace;
use crate::op::{Op, OpKind};
use crate::target::line::{END, append, block, line, number};
use crate::target::{Admission, Answer, Broken, Decoded, Found, Lane, Tag, Then};

/// How long a server that is busy with itself is left alone.
const BUSY_PAUSE: Duration = Duration::from_millis(10);
/// Errors by their first word; those that pass are first.
const ERRORS: [(&str, Then); 9] = [
    ("LOADING", Then::Again { after: BUSY_PAUSE }),
    ("BUSY", Then::Again { after: BUSY_PAUSE }),
    ("TRYAGAIN", Then::Again { after: BUSY_PAUSE }),
    ("MISCONF", Then::GiveUp),
    ("OOM", Then::GiveUp),
    ("READONLY", Then::GiveUp),
    ("NOAUTH", Then::GiveUp),
    ("WRONGTYPE", Then::GiveUp),
    ("ERR", Then::GiveUp),
];
/// The name of all others.
const OTHER_ERROR: &str = "RedisError";

/// See the module.
pub(crate) struct RespLane {
    value_bytes: usize,
    /// What was sent and not answered, the oldest first.
    in_flight: VecDeque<(Tag, OpKind)>,
}

impl RespLane {
    pub(super) const fn new(value_bytes: usize) -> Self {
        Self { value_bytes, in_flight: VecDeque::new() }
    }

    /// Nothing is in flight on the connection that comes.
    pub(super) fn connected(&mut self) {
        self.in_flight.clear();
    }
}

/// What stands at the front.
enum Reply<'a> {
    Simple(&'a [u8]),
    Error(&'a [u8]),
    Bulk(Option<&'a [u8]>),
    Array(usize),
}

/// A reply, and what is behind it.
type Cut<'a> = Option<(Reply<'a>, &'a [u8])>;

fn reply(bytes: &[u8]) -> Result<Cut<'_>, String> {
    let Some((head, rest)) = line(bytes)? else { return Ok(None) };
    let reply = match head.split_first() {
        Some((b'+', words)) => Reply::Simple(words),
        Some((b'-', words)) => Reply::Error(words),
        Some((b'$', b"-1")) => Reply::Bulk(None),
        Some((b'$', length)) => {
            return Ok(block(rest, number(length)?)?.map(|(value, rest)| (Reply::Bulk(Some(value)), rest)));
        }
        Some((b'*', count)) => Reply::Array(number(count)?),
        _ => return Err(format!("an answer that begins `{}`", head.escape_ascii())),
    };
    Ok(Some((reply, rest)))
}

/// Shows so many bulk strings; what is behind them.
fn bulks<'a>(
    mut rest: &'a [u8],
    count: usize,
    each: &mut dyn FnMut(Option<&[u8]>),
) -> Result<Option<&'a [u8]>, String> {
    for _ in 0..count {
        match reply(rest)? {
            None => return Ok(None),
            Some((Reply::Bulk(value), behind)) => {
                each(value);
                rest = behind;
            }
            Some(_) => return Err("an array of other things than values".into()),
        }
    }
    Ok(Some(rest))
}

/// The answer at the front, its values shown one by one, and what is behind it.
fn answer<'a>(
    received: &'a [u8],
    kind: OpKind,
    each: &mut dyn FnMut(Option<&[u8]>),
) -> Result<Option<(Answer, &'a [u8])>, String> {
    let Some((reply, rest)) = reply(received)? else { return Ok(None) };
    match (reply, kind) {
        (Reply::Error(words), _) => Ok(Some((setback(words), rest))),
        (Reply::Simple(b"OK"), OpKind::Write) => Ok(Some((Answer::Written, rest))),
        (Reply::Bulk(value), OpKind::Read) => {
            each(value);
            Ok(Some((Answer::Read(Found::default()), rest)))
        }
        (Reply::Array(count), OpKind::Read) => {
            Ok(bulks(rest, count, each)?.map(|rest| (Answer::Read(Found::default()), rest)))
        }
        _ => Err("an answer to something else".into()),
    }
}

fn setback(words: &[u8]) -> Answer {
    let first = words.split(|byte| *byte == b' ').next().unwrap_or_default();
    let known = ERRORS.iter().find(|(name, _)| name.as_bytes() == first);
    let (name, then) = known.copied().unwrap_or((OTHER_ERROR, Then::GiveUp));
    Answer::Setback { name, then }
}

fn append_bulk(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'$');
    append(bytes.len(), out);
    out.extend_from_slice(END);
    out.extend_from_slice(bytes);
    out.extend_from_slice(END);
}

fn append_command(name: &[u8], arguments: usize, out: &mut Vec<u8>) {
    out.push(b'*');
    append(arguments + 1, out);
    out.extend_from_slice(END);
    append_bulk(name, out);
}

impl Lane for RespLane {
    fn admit(&mut self, _tag: Tag, _kind: OpKind) -> Admission {
        Admission::Granted
    }

    fn encode(&mut self, tag: Tag, op: &Op, keyspace: &Keyspace, out: &mut Vec<u8>) {
        let keys = op.keys.len();
        match op.kind {
            OpKind::Read | OpKind::Scan => {
                append_command(if keys == 1 { b"GET" } else { b"MGET" }, keys, out);
                op.keys.iter().for_each(|&key| append_bulk(keyspace.key(key), out));
            }
            OpKind::Write => {
                append_command(if keys == 1 { b"SET" } else { b"MSET" }, 2 * keys, out);
                for (key, at) in op.writes() {
                    append_bulk(keyspace.key(key), out);
                    append_bulk(keyspace.value(at), out);
                }
            }
        }
        self.in_flight.push_back((tag, op.kind));
    }

    fn decode(&mut self, received: &[u8]) -> Result<Option<Decoded>, Broken> {
        if received.is_empty() {
            return Ok(None);
        }
        let Some(&(tag, kind)) = self.in_flight.front() else {
            return Err(Broken("an answer to nothing".into()));
        };
        let (mut found, value_bytes) = (Found::default(), self.value_bytes);
        let cut = answer(received, kind, &mut |value| found.count(value, value_bytes)).map_err(Broken)?;
        let Some((answer, rest)) = cut else { return Ok(None) };
        self.in_flight.pop_front();
        let answer = if let Answer::Read(_) = answer { Answer::Read(found) } else { answer };
        Ok(Some(Decoded { length: received.len() - rest.len(), tag, answer }))
    }

    fn values(&self, received: &[u8], each: &mut dyn FnMut(Option<&[u8]>)) {
        // It was decoded before.
        let _ = answer(received, OpKind::Read, each);
    }

    fn say(&mut self, _out: &mut Vec<u8>) {}

    fn settle(&mut self, _tag: Tag, _kind: OpKind) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::trial::{keyspace, read, write};

    fn sent(lane: &mut RespLane, tag: Tag, op: &Op) -> String {
        let mut out = Vec::new();
        lane.encode(tag, op, &keyspace(), &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn requests_are_arrays_of_bulk_strings() {
        let mut lane = RespLane::new(5);
        let tag = Tag::first(0);
        assert_eq!(sent(&mut lane, tag, &read(&[7])), "*2\r\n$3\r\nGET\r\n$16\r\nbench:0000000007\r\n");
        assert_eq!(
            sent(&mut lane, tag, &read(&[1, 2])),
            "*3\r\n$4\r\nMGET\r\n$16\r\nbench:0000000001\r\n$16\r\nbench:0000000002\r\n"
        );
        let mut out = Vec::new();
        lane.encode(tag, &write(&[7]), &keyspace(), &mut out);
        let head = b"*3\r\n$3\r\nSET\r\n$16\r\nbench:0000000007\r\n$5\r\n";
        assert_eq!(out[..head.len()], head[..]);
        assert_eq!(out.len(), head.len() + 5 + 2);
        let mut out = Vec::new();
        lane.encode(tag, &write(&[1, 2]), &keyspace(), &mut out);
        assert!(out.starts_with(b"*5\r\n$4\r\nMSET\r\n$16\r\nbench:0000000001\r\n$5\r\n"));
    }

    #[test]
    fn answers_belong_to_requests_in_their_order() {
        let mut lane = RespLane::new(5);
        let tags: Vec<_> = (0..4).map(Tag::first).collect();
        for (tag, op) in tags.iter().zip([read(&[1]), write(&[2]), read(&[1, 2, 3]), read(&[4])]) {
            sent(&mut lane, *tag, &op);
        }
        let bytes = b"$5\r\na\r\nb!\r\n+OK\r\n*3\r\n$5\r\nright\r\n$-1\r\n$4\r\nlong\r\n$-1\r\n";
        let found = |right, missing, wrong| Answer::Read(Found { right, missing, wrong });
        let expected = [found(1, 0, 0), Answer::Written, found(1, 1, 1), found(0, 1, 0)];
        let mut rest = &bytes[..];
        for (tag, answer) in tags.into_iter().zip(expected) {
            let decoded = lane.decode(rest).unwrap().unwrap();
            assert_eq!((decoded.tag, decoded.answer), (tag, answer));
            for cut in 0..decoded.length {
                let mut lane = RespLane::new(5);
                let kind = if answer == Answer::Written { OpKind::Write } else { OpKind::Read };
                lane.in_flight.push_back((tag, kind));
                assert_eq!(lane.decode(&rest[..cut]), Ok(None), "{cut} bytes of it");
            }
            rest = &rest[decoded.length..];
        }
        assert!(rest.is_empty() && lane.in_flight.is_empty());
        assert!(lane.decode(b"+OK\r\n").is_err(), "nobody asked");
    }

    #[test]
    fn errors_say_what_is_to_be_done_and_nonsense_ends_the_connection() {
        for (bytes, name, gives_up) in [
            (&b"-LOADING Redis is loading\r\n"[..], "LOADING", false),
            (b"-OOM command not allowed\r\n", "OOM", true),
            (b"-ERR unknown command\r\n", "ERR", true),
            (b"-WHATEVER\r\n", OTHER_ERROR, true),
        ] {
            let mut lane = RespLane::new(5);
            sent(&mut lane, Tag::first(0), &read(&[1]));
            let Answer::Setback { name: found, then } = lane.decode(bytes).unwrap().unwrap().answer else {
                panic!("no setback");
            };
            assert_eq!((found, then == Then::GiveUp), (name, gives_up));
        }
        for bytes in [&b"+OK\r\n"[..], b"HTTP/1.1 400\r\n", b"$x\r\n", b"*1\r\n+OK\r\n", b"$1\r\nab\r\n"] {
            let mut lane = RespLane::new(5);
            sent(&mut lane, Tag::first(0), &read(&[1]));
            assert!(lane.decode(bytes).is_err(), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn the_values_of_a_read_are_shown_in_order() {
        let mut seen = Vec::new();
        let lane = RespLane::new(5);
        lane.values(b"*2\r\n$1\r\na\r\n$-1\r\n", &mut |value| seen.push(value.map(<[u8]>::to_vec)));
        assert_eq!(seen, [Some(b"a".to_vec()), None]);
    }
}
