//! Making a connection: the socket, the hello and its answer.

use std::fmt;
use std::io;
use std::time::Duration;

use bytes::BytesMut;
use mesh_base::limits::{DIAL_TIMEOUT, NODE_ADDRESS_BYTES_MAX, SOCKET_READ_BYTES};
use mesh_base::{ClusterId, CoreId, NodeId, ShardId};
use mesh_wire::{
    Envelope, Foreign, FrameDecoder, FrameError, FrameWriter, PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN,
    Request, RequestId, Response, Role,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use crate::{Error, Result, Topology};

/// The port of a node whose address names none.
const PORT: u16 = 7700;

/// What this side says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Hello<'a> {
    pub(crate) name: &'a str,
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) wanted_shard: ShardId,
}

/// A connection whose hello was answered.
#[derive(Debug)]
pub(crate) struct Greeted {
    pub(super) reads: OwnedReadHalf,
    pub(super) writes: OwnedWriteHalf,
    pub(super) left_over: BytesMut,
    /// The address that was dialled.
    pub(crate) endpoint: String,
    /// The node; 0 before its cluster's birth.
    pub(crate) node: NodeId,
    /// The node's name.
    pub(crate) name: String,
    /// The cluster; none before its birth.
    pub(crate) topology: Option<Topology>,
    /// Which of the node's cores owns which shard, by the shard's number.
    pub(crate) cores: Vec<CoreId>,
}

/// Why there is no connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum DialError {
    /// Nobody answers there, or not a node; this may change.
    Failed(String),
    /// The node refuses, and will go on to.
    Refused(Error),
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(why) => f.write_str(why),
            Self::Refused(error) => fmt::Display::fmt(error, f),
        }
    }
}

/// An address with a port, from one as users write it: `host:port`, `host`, `:port` for this host, `[::1]:port`.
///
/// # Errors
/// [`Error::BadEndpoint`]
pub(crate) fn with_port(endpoint: &str) -> Result<String> {
    let bad = |why| Error::BadEndpoint { endpoint: endpoint.to_owned(), why };
    let endpoint = endpoint.trim();
    if endpoint.is_empty() || endpoint.len() > NODE_ADDRESS_BYTES_MAX {
        return Err(bad("it is empty or too long"));
    }
    if endpoint.contains(|c: char| c.is_whitespace() || matches!(c, '/' | '@' | ',')) {
        return Err(bad("it has characters that no address has"));
    }
    let is_bare_v6 = endpoint.parse::<std::net::Ipv6Addr>().is_ok();
    let (host, port) = match endpoint.rsplit_once(':') {
        _ if is_bare_v6 => return Ok(format!("[{endpoint}]:{PORT}")),
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port),
        Some(_) if endpoint.ends_with(']') => return Ok(format!("{endpoint}:{PORT}")),
        Some(_) => return Err(bad("it has several colons")),
        None => return Ok(format!("{endpoint}:{PORT}")),
    };
    match port.parse::<u16>() {
        Ok(0) | Err(_) => Err(bad("its port is not a number from 1 to 65535")),
        Ok(port) => Ok(format!("{}:{port}", if host.is_empty() { "127.0.0.1" } else { host })),
    }
}

/// Makes a connection to an address with a port.
pub(crate) async fn dial(endpoint: &str, hello: &Hello<'_>) -> Result<Greeted, DialError> {
    let stream = in_time("to connect", DIAL_TIMEOUT, TcpStream::connect(endpoint)).await?;
    stream.set_nodelay(true).map_err(failed)?;
    in_time("to answer the hello", DIAL_TIMEOUT, greet(endpoint, stream, hello)).await?
}

async fn in_time<T>(
    to_do: &str,
    limit: Duration,
    work: impl Future<Output = io::Result<T>>,
) -> Result<T, DialError> {
    match timeout(limit, work).await {
        Ok(done) => done.map_err(failed),
        Err(_) => Err(DialError::Failed(format!("it took more than {} s {to_do}", limit.as_secs()))),
    }
}

#[allow(clippy::needless_pass_by_value, reason = "passed to map_err by name")]
fn failed(error: io::Error) -> DialError {
    DialError::Failed(error.to_string())
}

async fn greet(
    endpoint: &str,
    stream: TcpStream,
    hello: &Hello<'_>,
) -> io::Result<Result<Greeted, DialError>> {
    let (mut reads, mut writes) = stream.into_split();
    let request = Request::Hello(mesh_wire::Hello {
        role: Role::Client,
        version_min: PROTOCOL_VERSION_MIN,
        version_max: PROTOCOL_VERSION_MAX,
        cluster: hello.cluster,
        auth: None,
        wanted_shard: Some(hello.wanted_shard),
        name: hello.name,
    });
    let envelope = Envelope { request: RequestId(1), ..Envelope::default() };
    let frame = match FrameWriter::new().frame(&envelope, &request) {
        Ok(frame) => frame,
        Err(error) => return Ok(Err(DialError::Refused(error.into()))),
    };
    writes.write_all(&frame).await?;
    let mut buffer = BytesMut::with_capacity(SOCKET_READ_BYTES);
    let decoder = FrameDecoder::new();
    let frame = loop {
        match decoder.decode(&mut buffer) {
            Ok(Some(frame)) => break frame,
            Ok(None) => {}
            Err(error) => return Ok(Err(DialError::Failed(not_mesh(&error)))),
        }
        decoder.reserve(&mut buffer);
        if reads.read_buf(&mut buffer).await? == 0 {
            return Ok(Err(DialError::Failed("it closed the connection without a word".into())));
        }
    };
    let answer = match frame.response() {
        Ok(Response::Hello(answer)) => answer,
        Ok(Response::Error(error)) => return Ok(Err(refused(error))),
        Ok(other) => {
            return Ok(Err(DialError::Failed(format!("it answered the hello with {}", other.kind()))));
        }
        Err(error) => {
            return Ok(Err(DialError::Failed(format!("its answer to the hello is not valid: {error}"))));
        }
    };
    Ok(welcomed(&answer).map(|welcome| Greeted {
        reads,
        writes,
        left_over: buffer,
        endpoint: endpoint.to_owned(),
        node: answer.node,
        name: answer.node_name.to_owned(),
        topology: welcome.topology,
        cores: welcome.cores,
    }))
}

/// The part of an answer to a hello that has to be understood.
struct Welcome {
    topology: Option<Topology>,
    cores: Vec<CoreId>,
}

fn welcomed(answer: &mesh_wire::HelloAnswer<'_>) -> Result<Welcome, DialError> {
    if answer.auth.is_some() {
        return Err(DialError::Refused(Error::Unauthenticated));
    }
    if !(PROTOCOL_VERSION_MIN..=PROTOCOL_VERSION_MAX).contains(&answer.version) {
        let (version_min, version_max) = (answer.version, answer.version);
        return Err(DialError::Refused(Error::Unsupported { version_min, version_max }));
    }
    let (Some(cluster), Some(topology)) = (answer.cluster, answer.topology) else {
        return Ok(Welcome { topology: None, cores: Vec::new() });
    };
    let mut cores = vec![CoreId(0); usize::from(topology.shard_count)];
    for place in topology.shards {
        if let Some(core) = cores.get_mut(usize::from(place.shard.0)) {
            *core = place.core;
        }
    }
    let topology = Topology::read(cluster, &topology).map_err(DialError::Refused)?;
    Ok(Welcome { topology: Some(topology), cores })
}

fn refused(error: mesh_wire::Error) -> DialError {
    if error.is_retryable() {
        return DialError::Failed(error.to_string());
    }
    DialError::Refused(Error::of(error, ShardId(0), Duration::ZERO))
}

fn not_mesh(error: &FrameError) -> String {
    match error {
        FrameError::NotMesh { looks_like: Foreign::Http } => {
            "an HTTP server answers there, not a node".into()
        }
        FrameError::NotMesh { looks_like: Foreign::Tls } => "a TLS server answers there, not a node".into(),
        FrameError::NotMesh { looks_like: Foreign::Redis } => {
            "a Redis server answers there, not a node".into()
        }
        other => format!("something else than a node answers there: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_as_people_write_them() {
        for (written, meant) in [
            ("localhost:1", "localhost:1"),
            ("node-a", "node-a:7700"),
            (":7701", "127.0.0.1:7701"),
            ("10.0.0.1", "10.0.0.1:7700"),
            ("[::1]:7", "[::1]:7"),
            ("[::1]", "[::1]:7700"),
            ("::1", "[::1]:7700"),
            (" a:2 ", "a:2"),
        ] {
            assert_eq!(with_port(written).as_deref(), Ok(meant), "{written}");
        }
        for wrong in ["", "a:", "a:b", "a:0", "a:65536", "http://a:1", "a b", "a:1:2", "a,b"] {
            assert!(matches!(with_port(wrong), Err(Error::BadEndpoint { .. })), "{wrong}");
        }
    }
}
