//! Taking the listening address: one socket per core, and no one else's.
//!
//! The kernel deals connections out over sockets that share an address (`SO_REUSEPORT`), but it would let any other
//! process of the same user share it too. So the first socket is bound and listens without that option, which fails if
//! anyone listens there; only then does it accept others beside it, which this process makes at once. Another process
//! that goes the same way fails at its first socket.
//!
//! The sockets of a process that was killed stay for some milliseconds after it is gone, until the kernel has wound up
//! its rings. An address in use is therefore tried again for a moment before it is believed.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::error::HostError;

/// Connections that wait to be accepted, per core.
const BACKLOG: i32 = 1024;

/// How long an address that is in use is tried again,
const IN_USE_TIMEOUT: Duration = Duration::from_secs(1);
/// and how often.
const IN_USE_PAUSE: Duration = Duration::from_millis(5);

/// A node's listening sockets.
#[derive(Debug)]
pub(super) struct Listeners {
    /// One per core.
    pub(super) sockets: Vec<TcpListener>,
    /// What they are bound to, with the port that the system chose if the operator left it to it.
    pub(super) address: SocketAddr,
}

impl Listeners {
    /// Where the node is reached from this host.
    pub(super) fn local_address(&self) -> SocketAddr {
        let ip = match self.address.ip() {
            // An unspecified IPv6 socket takes IPv4 connections as well.
            ip if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            ip => ip,
        };
        SocketAddr::new(ip, self.address.port())
    }
}

/// Listens on `host:port`, or on every address of the host for `:port`, with one socket for each core.
///
/// # Errors
/// [`HostError::AddressInUse`], [`HostError::Listen`].
pub(super) fn listen(address: &str, cores: usize) -> Result<Listeners, HostError> {
    listen_within(IN_USE_TIMEOUT, address, cores)
}

fn listen_within(patience: Duration, address: &str, cores: usize) -> Result<Listeners, HostError> {
    assert!(cores > 0);
    let failed = |source: io::Error| match source.kind() {
        ErrorKind::AddrInUse => HostError::AddressInUse { address: address.to_owned() },
        _ => HostError::Listen { address: address.to_owned(), source },
    };
    let mut refused = None;
    for candidate in candidates(address).map_err(failed)? {
        match patiently(patience, || listen_on(candidate, cores)) {
            Ok(listeners) => return Ok(listeners),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    Err(failed(refused.unwrap_or_else(|| ErrorKind::NotFound.into())))
}

fn candidates(address: &str) -> io::Result<Vec<SocketAddr>> {
    match address.strip_prefix(':') {
        Some(port) => {
            let port =
                port.parse().map_err(|_| io::Error::new(ErrorKind::InvalidInput, "not a port number"))?;
            // A host without IPv6 has no such address; a port that is in use is so for both.
            Ok(vec![(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()])
        }
        None => Ok(address.to_socket_addrs()?.collect()),
    }
}

fn patiently<T>(mut left: Duration, mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match attempt() {
            Err(error) if error.kind() == ErrorKind::AddrInUse && !left.is_zero() => {
                thread::sleep(IN_USE_PAUSE);
                left = left.saturating_sub(IN_USE_PAUSE);
            }
            result => return result,
        }
    }
}

fn listen_on(address: SocketAddr, cores: usize) -> io::Result<Listeners> {
    let first = socket(address)?;
    first.bind(&address.into())?;
    first.listen(BACKLOG)?;
    first.set_reuse_port(true)?;
    let bound = first.local_addr()?.as_socket().ok_or(ErrorKind::AddrNotAvailable)?;
    let mut sockets = vec![TcpListener::from(first)];
    while sockets.len() < cores {
        let further = socket(bound)?;
        further.set_reuse_port(true)?;
        further.bind(&bound.into())?;
        further.listen(BACKLOG)?;
        sockets.push(further.into());
    }
    Ok(Listeners { sockets, address: bound })
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // Connections of a predecessor that are still being wound up do not count as "in use".
    socket.set_reuse_address(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn a_port_that_is_in_use_is_refused_whatever_options_its_owner_set() {
        let first = listen("127.0.0.1:0", 2).unwrap();
        let address = first.address.to_string();
        let refused = listen_within(Duration::ZERO, &address, 2).unwrap_err();
        assert!(matches!(refused, HostError::AddressInUse { .. }), "{refused}");
        assert!(refused.to_string().contains(&address) && refused.to_string().contains("--listen"));
        // On every address of the host, the port is in use as well.
        let everywhere = format!(":{}", first.address.port());
        let refused = listen_within(Duration::ZERO, &everywhere, 1).unwrap_err();
        assert!(matches!(refused, HostError::AddressInUse { .. }), "{refused}");
        drop(first);
        listen(&address, 1).unwrap();
    }

    #[test]
    fn the_kernel_deals_connections_out_over_the_cores() {
        let listeners = listen("127.0.0.1:0", 2).unwrap();
        let streams: Vec<_> = (0..64).map(|_| TcpStream::connect(listeners.address).unwrap()).collect();
        thread::sleep(Duration::from_millis(20));
        let accepted: Vec<usize> = listeners
            .sockets
            .iter()
            .map(|socket| std::iter::from_fn(|| socket.accept().ok()).count())
            .collect();
        assert_eq!(accepted.iter().sum::<usize>(), streams.len());
        assert!(accepted.iter().all(|&count| count > 0), "{accepted:?}");
    }

    #[test]
    fn a_node_can_start_again_at_once_after_serving_connections() {
        let listeners = listen("127.0.0.1:0", 1).unwrap();
        let address = listeners.address;
        let mut client = TcpStream::connect(address).unwrap();
        thread::sleep(Duration::from_millis(5));
        let (server, _) = listeners.sockets[0].accept().unwrap();
        // The side that closes first keeps the connection in its books for a minute.
        drop(server);
        drop(listeners);
        let _ = client.write(b"x");
        drop(client);
        listen(&address.to_string(), 2).unwrap();
    }

    #[test]
    fn an_address_that_is_in_use_for_a_moment_only_is_waited_for() {
        let first = listen("127.0.0.1:0", 1).unwrap();
        let address = first.address.to_string();
        let holder = thread::spawn(move || {
            thread::sleep(Duration::from_millis(30));
            drop(first);
        });
        listen(&address, 1).unwrap();
        holder.join().unwrap();
    }

    #[test]
    fn every_address_of_the_host_is_reached_and_named_as_the_local_one() {
        let listeners = listen(":0", 1).unwrap();
        assert!(listeners.address.ip().is_unspecified());
        assert!(listeners.local_address().ip().is_loopback());
        TcpStream::connect(listeners.local_address()).unwrap();
    }

    #[test]
    fn an_address_that_makes_no_sense_names_the_flag() {
        for address in [":http", "127.0.0.1", "no-such-host.invalid:1", "192.0.2.1:1"] {
            let refused = listen(address, 1).unwrap_err().to_string();
            assert!(refused.contains("--listen") && refused.contains(address), "{refused}");
        }
    }
}
