//! A client without the library's checks: frames that no library would send, and bytes that are none.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

use bytes::{Bytes, BytesMut};
use mesh_base::checksum::crc32;
use mesh_base::{ClusterId, NodeId, SessionId, SessionSeq, ShardId};
use mesh_wire::{
    Envelope, Error, Frame, FrameDecoder, FrameWriter, HEADER_BYTES, Hello, LinkClass, OpenSession, Outgoing,
    PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN, Request, RequestId, Response, Role, WriteContext,
};

use crate::cluster::PATIENCE;

/// Where a frame's header has its payload's length,
pub(crate) const LENGTH_AT: usize = 4;
/// and its checksum.
const CHECKSUM_AT: usize = 8;

/// A connection.
pub(crate) struct Raw {
    stream: TcpStream,
    received: BytesMut,
    requests: u64,
}

impl Raw {
    /// A connection that said nothing yet.
    pub(crate) fn connect(endpoint: &str) -> Self {
        let stream = TcpStream::connect(endpoint).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, received: BytesMut::new(), requests: 0 }
    }

    /// A connection whose hello was accepted.
    pub(crate) fn greeted(endpoint: &str) -> Self {
        let mut raw = Self::connect(endpoint);
        raw.send(&hello());
        assert!(matches!(raw.frame().unwrap().response(), Ok(Response::Hello(_))));
        raw
    }

    /// Sends bytes, as many as the other side takes.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        // A node that has seen enough closes; what it says about it is read all the same.
        let _ = self.stream.write_all(bytes);
    }

    /// Says that nothing more will be sent.
    pub(crate) fn finish(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// The next frame; nothing when the connection is closed.
    pub(crate) fn frame(&mut self) -> Option<Frame> {
        let mut bytes = [0; 4096];
        loop {
            if let Some(frame) = FrameDecoder::new().decode(&mut self.received).unwrap() {
                return Some(frame);
            }
            let count = self.read(&mut bytes);
            self.received.extend_from_slice(&bytes[..count]);
            if count == 0 {
                assert!(self.received.is_empty(), "it was closed within a frame");
                return None;
            }
        }
    }

    /// Everything until the connection is closed.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = self.received.split().to_vec();
        let mut bytes = [0; 4096];
        loop {
            match self.read(&mut bytes) {
                0 => return rest,
                count => rest.extend_from_slice(&bytes[..count]),
            }
        }
    }

    fn read(&mut self, bytes: &mut [u8]) -> usize {
        match self.stream.read(bytes) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
            Err(error) => panic!("it is not closed: {error}"),
        }
    }

    /// Sends a request that `change` was made to, and takes its answer.
    pub(crate) fn ask(
        &mut self,
        shard: ShardId,
        request: &Request<'_>,
        change: impl Fn(Vec<u8>) -> Vec<u8>,
    ) -> Frame {
        self.requests += 1;
        let id = RequestId(self.requests);
        let frame = frame(Envelope { request: id, shard: Some(shard), ..Envelope::default() }, request);
        self.send(&change(frame));
        let answer = self.frame().expect("it is not closed");
        assert_eq!(answer.header.envelope.request, id);
        answer
    }

    /// Opens a session.
    pub(crate) fn session(&mut self, shard: ShardId) -> SessionId {
        let opened = self.ask(shard, &Request::OpenSession(OpenSession { nonce: 0 }), |frame| frame);
        match opened.response() {
            Ok(Response::SessionOpened(opened)) => opened.session,
            other => panic!("no session: {other:?}"),
        }
    }
}

/// What the `seq`th write of a session carries.
pub(crate) fn write_context(session: SessionId, seq: u64) -> WriteContext<'static> {
    let seq = SessionSeq(seq);
    WriteContext { session, seq, acknowledged_below: seq, ..WriteContext::default() }
}

/// A client's hello.
pub(crate) fn hello() -> Vec<u8> {
    hello_of("raw", Role::Client, None)
}

/// The hello of a node of a cluster.
pub(crate) fn hello_of_node(name: &str, cluster: ClusterId) -> Vec<u8> {
    hello_of(name, Role::Peer { node: NodeId(1), link: LinkClass::Control }, Some(cluster))
}

fn hello_of(name: &str, role: Role, cluster: Option<ClusterId>) -> Vec<u8> {
    let (version_min, version_max) = (PROTOCOL_VERSION_MIN, PROTOCOL_VERSION_MAX);
    let hello = Hello { role, version_min, version_max, cluster, auth: None, wanted_shard: None, name };
    frame(Envelope { request: RequestId(9), ..Envelope::default() }, &Request::Hello(hello))
}

/// The frame of a message.
pub(crate) fn frame(envelope: Envelope, message: &impl Outgoing) -> Vec<u8> {
    FrameWriter::new().frame(&envelope, message).unwrap().to_vec()
}

/// The frame with another length of the byte vector that holds `content`. Behind a vector lies a zero byte, so one more is
/// still within the payload.
pub(crate) fn resized(mut frame: Vec<u8>, content: &[u8], length: usize) -> Vec<u8> {
    let words = content.len().min(16);
    let payload = &frame[HEADER_BYTES..];
    let begins = |at: &usize| payload[*at..].starts_with(&content[..words]);
    let at = (4..payload.len() - words).find(begins).expect("it is in the frame") + HEADER_BYTES;
    let stored = &mut frame[at - 4..at];
    assert_eq!(stored, u32::try_from(content.len()).unwrap().to_le_bytes());
    stored.copy_from_slice(&u32::try_from(length).unwrap().to_le_bytes());
    sealed(frame)
}

/// The frame with its checksum made right.
pub(crate) fn sealed(mut frame: Vec<u8>) -> Vec<u8> {
    frame[CHECKSUM_AT..CHECKSUM_AT + 4].fill(0);
    let checksum = crc32(&[&frame]);
    frame[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&checksum.to_le_bytes());
    frame
}

/// The error that a frame is.
pub(crate) fn error(frame: &Frame) -> Error {
    match frame.response() {
        Ok(Response::Error(error)) => error,
        other => panic!("not an error: {other:?}"),
    }
}

/// The value that a frame answers a get with.
pub(crate) fn value(frame: &Frame) -> Option<Bytes> {
    match frame.response() {
        Ok(Response::Get(answer)) => answer.item.map(|item| Bytes::copy_from_slice(item.value)),
        other => panic!("no answer to a get: {other:?}"),
    }
}
