//! etcd's requests and answers: protobuf in the five bytes with which gRPC begins a message.
//!
//! Of `etcdserverpb`: `RangeRequest{1 key}`, `PutRequest{1 key, 2 value}`, `TxnRequest{2 success: RequestOp{1 range, 2 put}}`,
//! `RangeResponse{2 kvs}`, `KeyValue{5 value}`, `TxnResponse{2 succeeded, 3 responses: ResponseOp{1 range, 2 put}}`,
//! `StatusResponse{1 header: ResponseHeader{2 member_id}, 4 leader, 5 raftIndex, 7 raftAppliedIndex}`.
//!
//! Fields that are not asked for keep their defaults; so a range is linearizable.

use crate::keyspace::Keyspace;
use crate::op::{Op, OpKind};
use crate::target::Standing;

/// Whether a message is compressed (never), and its length.
pub(super) const PREFIX_BYTES: usize = 5;
const VARINT: u8 = 0;
const BYTES: u8 = 2;

/// A field's number and its content.
enum Content<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Appends the message that an operation sends, with its prefix.
pub(super) fn append_request(op: &Op, keyspace: &Keyspace, scratch: &mut Vec<u8>, out: &mut Vec<u8>) {
    let begin = out.len();
    out.extend_from_slice(&[0; PREFIX_BYTES]);
    match (op.kind, op.keys.as_slice()) {
        (OpKind::Read, &[key]) => append_bytes(1, keyspace.key(key), out),
        (OpKind::Read | OpKind::Scan, keys) => {
            keys.iter().for_each(|&key| {
                append_in_txn(1, scratch, out, |range| append_bytes(1, keyspace.key(key), range));
            });
        }
        (OpKind::Write, _) => {
            for (index, (key, at)) in op.writes().enumerate() {
                let put = |put: &mut Vec<u8>| {
                    append_bytes(1, keyspace.key(key), put);
                    append_bytes(2, keyspace.value(at), put);
                };
                if op.keys.len() == 1 {
                    put(out);
                } else if !op.keys.iter().skip(index + 1).any(|&later| later == key) {
                    // A transaction may put a key once; the last of a batch is what stays.
                    append_in_txn(2, scratch, out, put);
                }
            }
        }
    }
    let length = u32::try_from(out.len() - begin - PREFIX_BYTES).unwrap_or(u32::MAX);
    if let Some(field) = out.get_mut(begin + 1..begin + PREFIX_BYTES) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

/// An operation of a transaction whose conditions (there are none) hold.
fn append_in_txn(field: u64, scratch: &mut Vec<u8>, out: &mut Vec<u8>, message: impl FnOnce(&mut Vec<u8>)) {
    scratch.clear();
    message(scratch);
    let inner = 1 + varint_bytes(scratch.len()) + scratch.len();
    append_varint(2 << 3 | u64::from(BYTES), out);
    append_varint(inner as u64, out);
    append_bytes(field, scratch, out);
}

fn append_bytes(field: u64, bytes: &[u8], out: &mut Vec<u8>) {
    append_varint(field << 3 | u64::from(BYTES), out);
    append_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn append_varint(number: u64, out: &mut Vec<u8>) {
    let mut rest = number;
    while rest >= 0x80 {
        out.push(u8::try_from(rest & 0x7f).unwrap_or_default() | 0x80);
        rest >>= 7;
    }
    out.push(u8::try_from(rest).unwrap_or_default());
}

const fn varint_bytes(number: usize) -> usize {
    (usize::BITS - (number | 1).leading_zeros()).div_ceil(7) as usize
}

/// The message of an answer's body, without its prefix.
///
/// # Errors
/// The body is not one message.
pub(super) fn in_body(body: &[u8]) -> Result<&[u8], String> {
    match body.split_first_chunk() {
        Some((&[0, a, b, c, d], message)) if u32::from_be_bytes([a, b, c, d]) as usize == message.len() => {
            Ok(message)
        }
        _ => Err(format!("a body of {} bytes that is not one message", body.len())),
    }
}

/// Shows the values of an answer to a read, in the order of its keys.
///
/// # Errors
/// It is no such answer.
pub(super) fn values(message: &[u8], keys: usize, each: &mut dyn FnMut(Option<&[u8]>)) -> Result<(), String> {
    if keys == 1 {
        return range(message, each);
    }
    fields(message, &mut |field, content| match (field, content) {
        (3, Content::Bytes(response)) => fields(response, &mut |field, content| match (field, content) {
            (1, Content::Bytes(found)) => range(found, each),
            _ => Ok(()),
        }),
        _ => Ok(()),
    })
}

/// A range of one key: its value if it is there.
fn range(message: &[u8], each: &mut dyn FnMut(Option<&[u8]>)) -> Result<(), String> {
    let mut kv = None;
    fields(message, &mut |field, content| {
        if let (2, Content::Bytes(found)) = (field, content) {
            kv = Some(found);
        }
        Ok(())
    })?;
    let Some(kv) = kv else {
        each(None);
        return Ok(());
    };
    // One that is empty is left out.
    let mut value: &[u8] = &[];
    fields(kv, &mut |field, content| {
        if let (5, Content::Bytes(found)) = (field, content) {
            value = found;
        }
        Ok(())
    })?;
    each(Some(value));
    Ok(())
}

/// A member by the number that it was given.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct MemberId(pub(super) u64);

/// What a member says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Status {
    pub(super) member: MemberId,
    /// Whom it follows, if anyone.
    pub(super) leader: Option<MemberId>,
    /// How far its log has come.
    pub(super) standing: Standing,
}

impl Status {
    /// # Errors
    /// It is no such answer.
    pub(super) fn read(message: &[u8]) -> Result<Self, String> {
        let (mut member, mut leader, mut standing) = (0, 0, Standing::default());
        fields(message, &mut |field, content| match (field, content) {
            (1, Content::Bytes(header)) => fields(header, &mut |field, content| {
                if let (2, Content::Number(number)) = (field, content) {
                    member = number;
                }
                Ok(())
            }),
            (number, Content::Number(value)) => {
                match number {
                    4 => leader = value,
                    5 => standing.committed = value,
                    7 => standing.applied = value,
                    _ => {}
                }
                Ok(())
            }
            _ => Ok(()),
        })?;
        Ok(Self { member: MemberId(member), leader: (leader != 0).then_some(MemberId(leader)), standing })
    }
}

/// Shows the fields of a message.
fn fields<'a>(
    message: &'a [u8],
    each: &mut dyn FnMut(u64, Content<'a>) -> Result<(), String>,
) -> Result<(), String> {
    let mut rest = message;
    while !rest.is_empty() {
        let (key, behind) = varint(rest)?;
        let content;
        (content, rest) = match u8::try_from(key & 7).unwrap_or_default() {
            VARINT => varint(behind).map(|(number, rest)| (Content::Number(number), rest))?,
            BYTES => {
                let (length, behind) = varint(behind)?;
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                let (bytes, rest) = behind.split_at_checked(length).ok_or("a field that is cut off")?;
                (Content::Bytes(bytes), rest)
            }
            other => return Err(format!("a field of type {other}")),
        };
        each(key >> 3, content)?;
    }
    Ok(())
}

fn varint(bytes: &[u8]) -> Result<(u64, &[u8]), String> {
    let mut number = 0;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        number |= u64::from(byte & 0x7f) << (7 * index).min(63);
        if byte & 0x80 == 0 {
            return Ok((number, bytes.get(index + 1..).unwrap_or_default()));
        }
    }
    Err("a number that is cut off".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::trial::{keyspace, read, write};

    fn sent(op: &Op) -> Vec<u8> {
        let mut out = Vec::new();
        append_request(op, &keyspace(), &mut Vec::new(), &mut out);
        assert_eq!(in_body(&out).unwrap().len(), out.len() - PREFIX_BYTES);
        out.split_off(PREFIX_BYTES)
    }

    #[test]
    fn requests_are_the_messages_of_the_interface() {
        assert_eq!(sent(&read(&[7])), [&[0x0a, 16][..], b"bench:0000000007"].concat());
        let put = sent(&write(&[7]));
        assert_eq!(put[..20], [&[0x0a, 16][..], b"bench:0000000007", &[0x12, 5]].concat());
        assert_eq!(put.len(), 25);
        let range = [&[0x12, 20, 0x0a, 18, 0x0a, 16][..], b"bench:0000000001"].concat();
        assert!(sent(&read(&[1, 2])).starts_with(&range));
        let puts = sent(&write(&[1, 2, 1]));
        assert_eq!(puts.len(), 2 * 29, "a key is put once");
    }

    #[test]
    fn values_are_found_in_answers() {
        // A header, then a KeyValue with key, revisions and value.
        let found = [0x0a, 2, 0x10, 9, 0x12, 9, 0x0a, 1, b'k', 0x10, 4, 0x2a, 2, b'v', b'!', 0x20, 1];
        let mut seen = Vec::new();
        let mut see = |value: Option<&[u8]>| seen.push(value.map(<[u8]>::to_vec));
        values(&found, 1, &mut see).unwrap();
        values(&[0x0a, 2, 0x10, 9], 1, &mut see).unwrap();
        let mut txn = vec![0x10, 1];
        for range in [&found[..], &[]] {
            let inner = u8::try_from(range.len()).unwrap();
            txn.extend_from_slice(&[0x1a, inner + 2, 0x0a, inner]);
            txn.extend_from_slice(range);
        }
        values(&txn, 2, &mut see).unwrap();
        let value = Some(b"v!".to_vec());
        assert_eq!(seen, [value.clone(), None, value, None]);
        assert!(values(&found[..10], 1, &mut |_| {}).is_err());
    }

    #[test]
    fn a_status_names_the_member_and_its_leader() {
        let status = Status::read(&[0x0a, 3, 0x10, 0xac, 0x02, 0x20, 7, 0x28, 9, 0x38, 8]).unwrap();
        let standing = Standing { committed: 9, applied: 8 };
        assert_eq!(status, Status { member: MemberId(300), leader: Some(MemberId(7)), standing });
        assert_eq!(Status::read(&[]).unwrap().leader, None);
    }

    #[test]
    fn lengths_of_numbers_are_those_of_their_bytes() {
        for number in [0, 1, 127, 128, 16_383, 16_384, 8_388_608] {
            let mut out = Vec::new();
            append_varint(number as u64, &mut out);
            assert_eq!((out.len(), varint(&out)), (varint_bytes(number), Ok((number as u64, &[][..]))));
        }
    }
}
