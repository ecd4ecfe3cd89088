//! The first answer of a system: one operation, tried until it is done.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use mesh_base::prng::Prng;

use crate::error::BenchError;
use crate::keyspace::Keyspace;
use crate::op::{KeyNo, Op, OpKind, ValueAt};
use crate::socket::{Poller, Received, Socket};
use crate::target::{Answer, Lane, LaneSpec, PartitionId, Tag, Target, Writes};

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two attempts.
const PAUSE: Duration = Duration::from_micros(500);
/// Bytes of a read.
const READ_BYTES: usize = 64 * 1024;

/// Has the first key read or written; returns when that is answered.
///
/// # Errors
/// It is not, for too long.
pub(super) fn answer<T: Target>(
    target: &Arc<T>,
    kind: OpKind,
    keyspace: &Keyspace,
) -> Result<(), BenchError> {
    let since = Instant::now();
    let mut lane = target.lane(LaneSpec {
        partition: PartitionId(0),
        writes: if kind == OpKind::Write { Writes::Some } else { Writes::None },
        in_flight: 1,
        value_bytes: keyspace.value_bytes(),
        prng: Prng::new(u64::from(std::process::id())),
    });
    let op = Op { kind, keys: vec![KeyNo(0)], values: vec![ValueAt(0)], ..Op::empty() };
    let (mut tag, mut attempt) = (Tag::first(0), 0);
    loop {
        let tried = match target.open(&mut lane, attempt) {
            Ok(socket) => ask(&socket, &mut lane, tag, &op, keyspace, since),
            Err(why) => Err(why.to_string()),
        };
        match tried {
            Ok(Answer::Read(_) | Answer::Scanned { .. } | Answer::Written) => return Ok(()),
            Ok(Answer::Setback { name, .. }) if since.elapsed() > PATIENCE => {
                return Err(BenchError::Unreachable { why: name.to_owned() });
            }
            Err(why) if since.elapsed() > PATIENCE => return Err(BenchError::Unreachable { why }),
            Ok(Answer::Setback { .. }) | Err(_) => thread::sleep(PAUSE),
        }
        lane.settle(tag, kind);
        (tag, attempt) = (tag.next(), attempt + 1);
    }
}

/// Asks over a connection, and waits for what is said.
fn ask<L: Lane>(
    socket: &Socket,
    lane: &mut L,
    tag: Tag,
    op: &Op,
    keyspace: &Keyspace,
    since: Instant,
) -> Result<Answer, String> {
    let words = |error: std::io::Error| error.to_string();
    let (mut poller, mut ready) = (Poller::new().map_err(words)?, Vec::new());
    poller.add(socket, 0).map_err(words)?;
    let (mut out, mut received, mut piece) = (Vec::new(), Vec::new(), vec![0; READ_BYTES]);
    lane.admit(tag, op.kind);
    lane.encode(tag, op, keyspace, &mut out);
    let (mut sent, mut taken) = (0, 0);
    while since.elapsed() < PATIENCE {
        lane.say(&mut out);
        sent += socket.send(out.get(sent..).unwrap_or_default()).map_err(words)?;
        poller.wait(Duration::from_millis(100), &mut ready);
        match socket.receive(&mut piece).map_err(words)? {
            Received::End => return Err("it closed the connection".into()),
            Received::Bytes(count) => received.extend_from_slice(piece.get(..count).unwrap_or_default()),
        }
        while let Some(decoded) =
            lane.decode(received.get(taken..).unwrap_or_default()).map_err(|broken| broken.0)?
        {
            if decoded.tag == tag {
                return Ok(decoded.answer);
            }
            taken += decoded.length;
        }
    }
    Err("it does not answer".into())
}
