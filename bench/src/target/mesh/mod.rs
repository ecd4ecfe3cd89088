//! Mesh as the system under load, by its own protocol.
//!
//! A connection goes to the core of the shard's leader, as a client library's does. When that is no longer the leader, or
//! gone, nodes are asked in turn until one of them leads.

mod lane;
mod session;
mod view;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::BytesMut;
use mesh_base::limits::SOCKET_READ_BYTES;
use mesh_base::{NodeId, ShardId};
use mesh_wire::{
    Envelope, Error, Frame, FrameDecoder, FrameWriter, Hello, HelloAnswer, OpenSession, PROTOCOL_VERSION_MAX,
    PROTOCOL_VERSION_MIN, Request, RequestId, Response, Role,
};

pub(crate) use self::lane::MeshLane;
use self::view::View;
use super::{LaneSpec, OpenError, PartitionId, Standing, Target};
use crate::socket::Socket;

/// How long a node may take to be reached, and to answer what it is asked before operations begin.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// The port of a node whose address names none.
const PORT: u16 = 7700;

/// A cluster.
pub(crate) struct Mesh {
    view: Mutex<View>,
}

impl Mesh {
    /// The cluster that nodes at these addresses belong to: asks them once until one of them tells.
    ///
    /// # Errors
    /// What each of them said.
    pub(crate) fn discover(endpoints: Vec<String>) -> Result<Self, OpenError> {
        let mesh = Self { view: Mutex::new(View::new(endpoints)) };
        let endpoints = mesh.view().endpoints().to_vec();
        let mut tried = Vec::new();
        for endpoint in &endpoints {
            match mesh.dial(endpoint, None) {
                Ok(_) if mesh.view().shards() > 0 => return Ok(mesh),
                Ok(_) => tried.push(format!("{endpoint}: it belongs to no cluster yet")),
                Err(OpenError::Refused(why)) => return Err(OpenError::Refused(why)),
                Err(OpenError::Later(why)) => tried.push(why),
            }
        }
        Err(OpenError::Later(tried.join("; ")))
    }

    /// How far a node has come in its shards, all together.
    ///
    /// # Errors
    /// It does not answer, or knows no leader of a shard.
    pub(crate) fn standing(address: SocketAddr) -> Result<Standing, OpenError> {
        let later = |why: &dyn std::fmt::Display| OpenError::Later(format!("{address}: {why}"));
        let endpoint = address.to_string();
        let mesh = Self { view: Mutex::new(View::new(vec![endpoint.clone()])) };
        let (mut call, _) = mesh.dial(&endpoint, None)?;
        let answer = call.ask(None, &Request::Status).map_err(|why| later(&why))?;
        let Ok(Response::Status(status)) = answer.response() else { return Err(later(&"no status")) };
        let mut standing = Standing::default();
        for replica in status.replicas {
            if replica.leader.is_none() {
                return Err(later(&"a shard has no leader"));
            }
            standing.committed += replica.commit.0;
            standing.applied += replica.applied.0;
        }
        Ok(standing)
    }

    /// Where the node is that leads all shards, if one does.
    pub(crate) fn leader_of_all(&self) -> Option<String> {
        let view = self.view();
        let shards = u16::try_from(view.shards()).unwrap_or(u16::MAX);
        let mut leaders = (0..shards).map(|shard| view.leader(ShardId(shard)).map(|(_, at)| at.to_owned()));
        let first = leaders.next()??;
        leaders.all(|leader| leader.as_ref() == Some(&first)).then_some(first)
    }

    fn view(&self) -> MutexGuard<'_, View> {
        // Nothing that is done under the lock can leave it half done.
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a connection and hears what the node knows of the cluster.
    fn dial(&self, endpoint: &str, shard: Option<ShardId>) -> Result<(Call, NodeId), OpenError> {
        let later = |why: &dyn std::fmt::Display| OpenError::Later(format!("{endpoint}: {why}"));
        let address = self.view().resolve(endpoint).map_err(|error| later(&error))?;
        let mut call = Call::connect(address).map_err(|error| later(&error))?;
        let hello = Request::Hello(Hello {
            role: Role::Client,
            version_min: PROTOCOL_VERSION_MIN,
            version_max: PROTOCOL_VERSION_MAX,
            cluster: None,
            auth: None,
            wanted_shard: shard,
            name: "mesh-bench",
        });
        let answer = call.ask(None, &hello).map_err(|why| later(&why))?;
        match answer.response() {
            Ok(Response::Hello(HelloAnswer { auth: Some(_), .. })) => Err(OpenError::Refused(format!(
                "{endpoint}: it asks for credentials, and there are none to give"
            ))),
            Ok(Response::Hello(answer)) => {
                if let Some(topology) = answer.topology {
                    self.view().hear(&topology);
                }
                Ok((call, answer.node))
            }
            Ok(Response::Error(error)) => Err(refusal(endpoint, &error)),
            Ok(other) => Err(later(&format!("it answered the hello with {}", other.kind()))),
            Err(error) => Err(later(&error)),
        }
    }

    /// Makes ready what operations need.
    fn prepare(&self, lane: &mut MeshLane, call: &mut Call, node: NodeId) -> Result<(), OpenError> {
        lane.connected(node, self.view().epoch());
        let Some(nonce) = lane.session_to_open() else { return Ok(()) };
        let shard = lane.shard();
        let later =
            |why: &dyn std::fmt::Display| OpenError::Later(format!("no session in shard {shard}: {why}"));
        let request = Request::OpenSession(OpenSession { nonce });
        let answer = call.ask(Some(shard), &request).map_err(|why| later(&why))?;
        match answer.response() {
            Ok(Response::SessionOpened(opened)) => {
                lane.session_opened(opened.session);
                Ok(())
            }
            Ok(Response::Error(error)) => Err(refusal("a session", &error)),
            Ok(other) => Err(later(&other.kind())),
            Err(error) => Err(later(&error)),
        }
    }
}

fn refusal(by: &str, error: &Error) -> OpenError {
    let why = format!("{by}: {error}");
    if error.is_retryable() { OpenError::Later(why) } else { OpenError::Refused(why) }
}

impl Target for Mesh {
    type Lane = MeshLane;

    fn name(&self) -> &'static str {
        "mesh"
    }

    fn partitions(&self) -> usize {
        self.view().shards()
    }

    fn partition_of(&self, key: &[u8]) -> PartitionId {
        self.view().partition_of(key)
    }

    fn servers(&self) -> Vec<SocketAddr> {
        self.view().servers()
    }

    fn lane(&self, spec: LaneSpec) -> MeshLane {
        let shard = ShardId(u16::try_from(spec.partition.0).unwrap_or(u16::MAX));
        MeshLane::new(spec, shard)
    }

    fn open(&self, lane: &mut MeshLane, attempt: u32) -> Result<Socket, OpenError> {
        let shard = lane.shard();
        let mut endpoint = self.view().candidate(shard, attempt);
        // A node that does not lead knows mostly who does.
        for _ in 0..2 {
            let (mut call, node) = self.dial(&endpoint, Some(shard))?;
            let leader = self.view().leader(shard).map(|(leader, address)| (leader, address.to_owned()));
            match leader {
                Some((leader, _)) if leader == node => {
                    self.prepare(lane, &mut call, node)?;
                    return Socket::new(call.stream).map_err(|error| OpenError::Later(error.to_string()));
                }
                Some((_, address)) => endpoint = address,
                None => {
                    return Err(OpenError::Later(format!("no node leads shard {shard}, says {endpoint}")));
                }
            }
        }
        Err(OpenError::Later(format!("nodes disagree who leads shard {shard}")))
    }

    fn survey(self: &Arc<Self>) {
        for address in self.view().addresses() {
            let mesh = Arc::clone(self);
            // What a node says is heard when it is dialled; one that says nothing is why there is a survey.
            let ask = move || drop(mesh.dial(&address, None));
            let _ = thread::Builder::new().name("survey".into()).spawn(ask);
        }
    }

    fn has_moved(&self, lane: &MeshLane) -> bool {
        self.view().leader(lane.shard()).is_some_and(|(leader, _)| leader != lane.node())
    }
}

/// A connection before operations begin: one question at a time.
struct Call {
    stream: TcpStream,
    writer: FrameWriter,
}

impl Call {
    fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, ANSWER_MAX)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.set_write_timeout(Some(ANSWER_MAX))?;
        Ok(Self { stream, writer: FrameWriter::new() })
    }

    /// Asks, and takes the answer, which is all that may come.
    fn ask(&mut self, shard: Option<ShardId>, request: &Request<'_>) -> Result<Frame, String> {
        let envelope = Envelope { request: RequestId(1), shard, ..Envelope::default() };
        let frame = self.writer.frame(&envelope, request).map_err(|error| error.to_string())?;
        self.stream.write_all(&frame).map_err(in_words)?;
        let (decoder, mut buffer) = (FrameDecoder::new(), BytesMut::new());
        let mut piece = vec![0; SOCKET_READ_BYTES];
        loop {
            if let Some(frame) = decoder.decode(&mut buffer).map_err(|error| error.to_string())? {
                return if buffer.is_empty() {
                    Ok(frame)
                } else {
                    Err("it says more than it was asked".into())
                };
            }
            match self.stream.read(&mut piece).map_err(in_words)? {
                0 => return Err("it closed the connection without a word".into()),
                count => buffer.extend_from_slice(piece.get(..count).unwrap_or_default()),
            }
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "passed to map_err by name")]
fn in_words(error: io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "it takes too long to answer".into(),
        _ => error.to_string(),
    }
}

/// An address with a port, from one as people write it: `host:port`, `host`, `:port` for this host, `[::1]:port`.
///
/// # Errors
/// What is wrong with it, and how it should look.
pub(crate) fn with_port(endpoint: &str) -> Result<String, String> {
    let wrong =
        || format!("`{endpoint}` is not an address: write HOST:PORT, HOST or :PORT, as 127.0.0.1:7700");
    let plain = !endpoint.is_empty() && !endpoint.contains(|c: char| c.is_whitespace() || "/@,".contains(c));
    if !plain {
        return Err(wrong());
    }
    if endpoint.parse::<std::net::Ipv6Addr>().is_ok() {
        return Ok(format!("[{endpoint}]:{PORT}"));
    }
    match endpoint.rsplit_once(':') {
        None => Ok(format!("{endpoint}:{PORT}")),
        Some(_) if endpoint.ends_with(']') => Ok(format!("{endpoint}:{PORT}")),
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => match port.parse::<u16>() {
            Ok(0) | Err(_) => Err(wrong()),
            Ok(port) => Ok(format!("{}:{port}", if host.is_empty() { "127.0.0.1" } else { host })),
        },
        Some(_) => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, address) in [
            ("host", "host:7700"),
            ("host:1", "host:1"),
            (":7701", "127.0.0.1:7701"),
            ("::1", "[::1]:7700"),
            ("[::1]", "[::1]:7700"),
            ("[::1]:9", "[::1]:9"),
        ] {
            assert_eq!(with_port(text), Ok(address.into()), "{text}");
        }
        for text in ["", "a b", "host:0", "host:x", "a:1,b:2", "1:2:3:4", "http://host"] {
            assert!(with_port(text).unwrap_err().contains("HOST:PORT"), "{text}");
        }
    }
}
