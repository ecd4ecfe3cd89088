//! A server that answers every frame with as many bytes as Mesh would, and does nothing else: what the executor and the kernel allow at
//! most.
//!
//! Requests are Mesh's, byte for byte; of an answer only the header is looked at. Nothing is kept, so nothing can be read back.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use mesh_base::Revision;
use mesh_wire::{Envelope, FrameWriter, GetAnswer, HEADER_BYTES, Item, MAGIC, Response, Written};

use super::dial::dial;
use super::mesh::MeshLane;
use super::{Admission, Answer, Broken, Decoded, Found, Lane, LaneSpec, OpenError, PartitionId, Tag, Target};
use crate::keyspace::Keyspace;
use crate::op::{Op, OpKind};
use crate::socket::Socket;

/// See the module.
#[derive(Debug)]
pub(crate) struct Echo {
    address: SocketAddr,
}

impl Echo {
    /// The server at an address.
    pub(crate) const fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    /// A connection.
    ///
    /// # Errors
    /// [`OpenError::Later`]
    pub(crate) fn reach(&self) -> Result<TcpStream, OpenError> {
        dial(self.address)
    }
}

/// Bytes of the frames with which Mesh answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct AnswerBytes {
    /// A get that finds its key.
    pub(crate) get: usize,
    /// A put.
    pub(crate) put: usize,
}

impl AnswerBytes {
    /// With values of so many bytes.
    pub(crate) fn of(value_bytes: usize) -> Self {
        let value = vec![0; value_bytes];
        // Fields that are 0 would be left out.
        let revision = Revision(1);
        let item = Item { value: &value, revision, create_revision: revision, version: 1, ..Item::default() };
        let get = Response::Get(GetAnswer { item: Some(item), revision });
        Self { get: frame_bytes(&get), put: frame_bytes(&Response::Written(Written { revision })) }
    }
}

fn frame_bytes(response: &Response<'_>) -> usize {
    let mut frame = Vec::new();
    // A value that is too long for a frame was refused on the command line.
    let _ = FrameWriter::new().append(&Envelope::default(), response, &mut frame);
    frame.len()
}

/// One connection.
pub(crate) struct EchoLane {
    requests: MeshLane,
    /// What was asked, by slot.
    asked: Vec<(OpKind, usize)>,
}

impl Target for Echo {
    type Lane = EchoLane;

    fn name(&self) -> &'static str {
        "echo"
    }

    fn partitions(&self) -> usize {
        1
    }

    fn partition_of(&self, _key: &[u8]) -> PartitionId {
        PartitionId(0)
    }

    fn servers(&self) -> Vec<SocketAddr> {
        vec![self.address]
    }

    fn lane(&self, spec: LaneSpec) -> EchoLane {
        let asked = vec![(OpKind::Read, 0); usize::from(spec.in_flight)];
        EchoLane { requests: MeshLane::without_cluster(spec), asked }
    }

    fn open(&self, _lane: &mut EchoLane, _attempt: u32) -> Result<Socket, OpenError> {
        Socket::new(self.reach()?).map_err(OpenError::later)
    }

    fn survey(self: &Arc<Self>) {}

    fn has_moved(&self, _lane: &EchoLane) -> bool {
        false
    }
}

impl Lane for EchoLane {
    fn admit(&mut self, tag: Tag, kind: OpKind) -> Admission {
        self.requests.admit(tag, kind)
    }

    fn encode(&mut self, tag: Tag, op: &Op, keyspace: &Keyspace, out: &mut Vec<u8>) {
        if let Some(asked) = self.asked.get_mut(tag.slot()) {
            *asked = (op.kind, op.keys.len());
        }
        self.requests.encode(tag, op, keyspace, out);
    }

    fn decode(&mut self, received: &[u8]) -> Result<Option<Decoded>, Broken> {
        let Some(header) = received.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let &[magic, _, _, _, a, b, c, d, ..] = header;
        if magic != MAGIC {
            return Err(Broken("no frame".into()));
        }
        let length = HEADER_BYTES + u32::from_le_bytes([a, b, c, d]) as usize;
        if received.len() < length {
            return Ok(None);
        }
        let id = header.get(16..24).and_then(|id| id.first_chunk()).copied().unwrap_or_default();
        let tag = Tag::from_number(u64::from_le_bytes(id));
        let answer = match self.asked.get(tag.slot()) {
            Some((OpKind::Read, keys)) => Answer::Read(Found { right: *keys, ..Found::default() }),
            _ => Answer::Written,
        };
        Ok(Some(Decoded { length, tag, answer }))
    }

    fn values(&self, _answer: &[u8], _each: &mut dyn FnMut(Option<&[u8]>)) {}

    fn say(&mut self, _out: &mut Vec<u8>) {}

    fn settle(&mut self, tag: Tag, kind: OpKind) {
        self.requests.settle(tag, kind);
    }
}

#[cfg(test)]
mod tests {
    use mesh_wire::{FrameDecoder, RequestId};

    use super::*;
    use mesh_base::prng::Prng;

    use crate::target::Writes;
    use crate::target::trial::{keyspace, read, write};

    #[test]
    fn requests_are_those_of_mesh_and_answers_are_counted_by_their_header() {
        let echo = Echo::new("127.0.0.1:1".parse().unwrap());
        let mut lane = echo.lane(LaneSpec {
            partition: PartitionId(0),
            writes: Writes::Some,
            in_flight: 2,
            value_bytes: 5,
            prng: Prng::new(1),
        });
        for (slot, op) in [(0, read(&[1])), (1, write(&[1]))] {
            let (tag, mut out) = (Tag::first(slot), Vec::new());
            assert_eq!(lane.admit(tag, op.kind), Admission::Granted);
            lane.encode(tag, &op, &keyspace(), &mut out);
            let frame = FrameDecoder::new().peek(&out).unwrap().unwrap();
            assert_eq!(frame.header.envelope.request, RequestId(tag.number()));
            // The request itself is as good an answer as any.
            assert_eq!(lane.decode(&out[..out.len() - 1]), Ok(None));
            let decoded = lane.decode(&out).unwrap().unwrap();
            assert_eq!((decoded.tag, decoded.length), (tag, out.len()));
            assert_eq!(decoded.answer == Answer::Written, op.kind == OpKind::Write);
            lane.settle(tag, op.kind);
        }
        let bytes = AnswerBytes::of(256);
        assert!(bytes.get > 256 + HEADER_BYTES && bytes.put > HEADER_BYTES && bytes.put < 256);
    }
}
