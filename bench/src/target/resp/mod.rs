//! A server of the Redis protocol (Redis, Valkey) as the system under load.
//!
//! One process with all keys; a connection is ready when the server has answered a `PING`, which it does not while it loads its
//! files. Answers come in the order of the requests.
//!
//! Deliberately absent: clusters of several processes, TLS and passwords.

mod lane;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

pub(crate) use self::lane::RespLane;
use super::dial::dial;
use super::{LaneSpec, OpenError, PartitionId, Target};
use crate::socket::Socket;

/// See the module.
#[derive(Debug)]
pub(crate) struct Resp {
    name: &'static str,
    address: SocketAddr,
}

impl Resp {
    /// The server of a product's name at an address.
    pub(crate) const fn new(name: &'static str, address: SocketAddr) -> Self {
        Self { name, address }
    }

    /// A connection to a server that serves.
    ///
    /// # Errors
    /// [`OpenError::Later`]
    pub(crate) fn reach(&self) -> Result<TcpStream, OpenError> {
        let mut stream = dial(self.address)?;
        let mut answer = [0; 7];
        stream.write_all(b"PING\r\n").map_err(OpenError::later)?;
        stream.read_exact(&mut answer).map_err(OpenError::later)?;
        if &answer == b"+PONG\r\n" {
            Ok(stream)
        } else {
            Err(OpenError::Later(format!("it answered PING with {}", answer.escape_ascii())))
        }
    }
}

impl Target for Resp {
    type Lane = RespLane;

    fn name(&self) -> &'static str {
        self.name
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

    fn lane(&self, spec: LaneSpec) -> RespLane {
        RespLane::new(spec.value_bytes)
    }

    fn open(&self, lane: &mut RespLane, _attempt: u32) -> Result<Socket, OpenError> {
        let stream = self.reach()?;
        lane.connected();
        Socket::new(stream).map_err(OpenError::later)
    }

    fn survey(self: &Arc<Self>) {}

    fn has_moved(&self, _lane: &RespLane) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::trial::{self, Trial};

    const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];
    const ARGUMENTS: [&str; 3] = ["--save", "", "--port"];

    fn target(address: SocketAddr) -> Resp {
        Resp::new("redis", address)
    }

    #[test]
    fn a_real_redis_keeps_what_it_acknowledged() {
        trial::against(&PROGRAMS, &ARGUMENTS, target, trial::works);
    }

    #[test]
    fn what_a_server_loses_or_changes_after_it_acknowledged_it_is_found() {
        trial::against(&PROGRAMS, &ARGUMENTS, target, |redis| {
            let trial = Trial::load(redis);
            let mut stream = redis.reach().unwrap();
            stream.write_all(b"DEL bench:0000000007\r\nSET bench:0000000008 other\r\n").unwrap();
            stream.read_exact(&mut [0; 9]).unwrap();
            let findings = trial.read_back();
            assert_eq!((findings.lost, findings.foreign, findings.held), (1, 1, 498), "{findings:?}");
            let mut named = findings.named;
            named.sort();
            assert_eq!(named, ["bench:0000000007", "bench:0000000008"]);
        });
    }
}
