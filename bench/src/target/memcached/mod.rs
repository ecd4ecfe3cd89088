//! memcached as the system under load, by its meta commands.
//!
//! One process with all keys. Answers come in the order of the requests; a batch is as many commands as it has keys, sent together,
//! which is how its client libraries do it.
//!
//! Deliberately absent: its binary protocol (deprecated), UDP, authentication.

mod lane;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

pub(crate) use self::lane::MemcachedLane;
use super::dial::dial;
use super::{LaneSpec, OpenError, PartitionId, Target};
use crate::socket::Socket;

/// See the module.
#[derive(Debug)]
pub(crate) struct Memcached {
    address: SocketAddr,
}

impl Memcached {
    /// The server at an address.
    pub(crate) const fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    /// A connection to a server that answers.
    ///
    /// # Errors
    /// [`OpenError::Later`]
    pub(crate) fn reach(&self) -> Result<TcpStream, OpenError> {
        let mut stream = dial(self.address)?;
        let mut answer = [0; 4];
        stream.write_all(b"mn\r\n").map_err(OpenError::later)?;
        stream.read_exact(&mut answer).map_err(OpenError::later)?;
        if &answer == b"MN\r\n" {
            Ok(stream)
        } else {
            Err(OpenError::Refused("it has no meta commands: memcached 1.6 or later is needed".into()))
        }
    }
}

impl Target for Memcached {
    type Lane = MemcachedLane;

    fn name(&self) -> &'static str {
        "memcached"
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

    fn lane(&self, spec: LaneSpec) -> MemcachedLane {
        MemcachedLane::new(spec.value_bytes)
    }

    fn open(&self, lane: &mut MemcachedLane, _attempt: u32) -> Result<Socket, OpenError> {
        let stream = self.reach()?;
        lane.connected();
        Socket::new(stream).map_err(OpenError::later)
    }

    fn survey(self: &Arc<Self>) {}

    fn has_moved(&self, _lane: &MemcachedLane) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::trial;

    #[test]
    fn a_real_memcached_keeps_what_it_acknowledged() {
        let arguments = ["-U", "0", "-u", "root", "-l", "127.0.0.1", "-p"];
        trial::against(&["memcached"], &arguments, Memcached::new, trial::works);
    }
}
