//! From the address of a node, as an operator writes it, to socket addresses.
//!
//! `host:port` is looked up as it stands. A name without a port is a host that listens on [`PORT`] or else a node that
//! runs on this host and is found in the [`Registry`]. Every dial asks again: addresses move.
//!
//! Lookups block, for many seconds if a name server is gone, so they are made by a few threads of the process that do
//! nothing else. Deliberately absent: a cache; the system has one.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Poll, Waker};

use super::registry::Registry;

/// The port of a node whose address names none.
pub const PORT: u16 = 7700;
/// Threads that look names up.
const THREADS: usize = 4;

/// The socket addresses of a node's address, in the order to try them.
///
/// # Errors
/// The name is not known, or the system's resolver failed.
pub(super) async fn resolve(address: &str) -> io::Result<Vec<SocketAddr>> {
    if let Some(literal) = literal(address) {
        return Ok(vec![literal]);
    }
    let answer = Arc::new(Mutex::new(Answer::default()));
    let question = Question { address: address.to_owned(), answer: Arc::clone(&answer) };
    if resolvers().send(question).is_err() {
        return Err(io::Error::other("the resolver's threads are gone"));
    }
    poll_fn(|cx| {
        let mut answer = answer.lock().unwrap_or_else(PoisonError::into_inner);
        match answer.found.take() {
            Some(found) => Poll::Ready(found),
            None => {
                answer.asker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    })
    .await
}

/// An address that needs no lookup.
fn literal(address: &str) -> Option<SocketAddr> {
    let with_port = address.parse().ok();
    with_port.or_else(|| address.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, PORT)))
}

/// Looks an address up; blocks.
fn look_up(address: &str, registry: Option<&Registry>) -> io::Result<Vec<SocketAddr>> {
    let port_given = address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if port_given {
        return Ok(address.to_socket_addrs()?.collect());
    }
    let by_host = (address, PORT).to_socket_addrs();
    let by_name = registry.and_then(|registry| registry.lookup(address));
    let by_name = by_name.and_then(|address| address.to_socket_addrs().ok());
    match (by_host, by_name) {
        (Err(unknown), None) => Err(unknown),
        (by_host, by_name) => {
            Ok(by_host.into_iter().flatten().chain(by_name.into_iter().flatten()).collect())
        }
    }
}

#[derive(Default)]
struct Answer {
    found: Option<io::Result<Vec<SocketAddr>>>,
    asker: Option<Waker>,
}

struct Question {
    address: String,
    answer: Arc<Mutex<Answer>>,
}

fn resolvers() -> &'static Sender<Question> {
    static RESOLVERS: OnceLock<Sender<Question>> = OnceLock::new();
    RESOLVERS.get_or_init(|| {
        let (asks, asked) = channel();
        let asked = Arc::new(Mutex::new(asked));
        for number in 0..THREADS {
            let asked = Arc::clone(&asked);
            let thread = std::thread::Builder::new().name(format!("mesh-resolve-{number}"));
            if let Err(error) = thread.spawn(move || answer_all(&asked)) {
                tracing::warn!(%error, "a resolver thread could not be started");
            }
        }
        asks
    })
}

fn answer_all(asked: &Mutex<Receiver<Question>>) {
    loop {
        let question = asked.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Question { address, answer }) = question else { return };
        let found = look_up(&address, Registry::of_user().ok().as_ref());
        let asker = {
            let mut answer = answer.lock().unwrap_or_else(PoisonError::into_inner);
            answer.found = Some(found);
            answer.asker.take()
        };
        if let Some(asker) = asker {
            asker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::core::NodeName;

    #[test]
    fn a_literal_address_is_not_looked_up_and_gets_the_port_it_lacks() {
        for (text, address) in [
            ("10.1.2.3:80", "10.1.2.3:80"),
            ("10.1.2.3", "10.1.2.3:7700"),
            ("[::1]:80", "[::1]:80"),
            ("::1", "[::1]:7700"),
        ] {
            assert_eq!(literal(text), Some(address.parse().unwrap()), "{text}");
        }
        assert_eq!(literal("localhost"), None);
        assert_eq!(literal("localhost:80"), None);
    }

    #[test]
    fn a_bare_name_is_a_host_first_and_then_a_node_of_this_host() {
        let directory = tempfile::tempdir().unwrap();
        let registry = Registry::at(directory.path().join("mesh")).unwrap();
        let _entry = registry.announce(&NodeName::from("localhost"), "127.0.0.1:9", Path::new("/d")).unwrap();
        let found = look_up("localhost", Some(&registry)).unwrap();
        assert_eq!(found.first().unwrap().port(), PORT);
        assert_eq!(found.last().unwrap().port(), 9);
        assert_eq!(look_up("localhost:11", Some(&registry)).unwrap().first().unwrap().port(), 11);
    }

    #[test]
    fn a_name_that_only_a_running_node_has_is_found_there() {
        let directory = tempfile::tempdir().unwrap();
        let registry = Registry::at(directory.path().join("mesh")).unwrap();
        let name = "no-such-host.invalid";
        let entry = registry.announce(&NodeName::from(name), "127.0.0.1:9", Path::new("/d")).unwrap();
        assert_eq!(look_up(name, Some(&registry)).unwrap(), ["127.0.0.1:9".parse::<SocketAddr>().unwrap()]);
        drop(entry);
        assert!(look_up(name, Some(&registry)).is_err());
    }

    #[test]
    fn the_asker_is_woken_on_its_own_executor() {
        let executor = glommio::LocalExecutorBuilder::default().io_memory(0).make().unwrap();
        let found = executor.run(resolve("localhost:80")).unwrap();
        assert!(found.iter().all(|address| address.port() == 80) && !found.is_empty());
    }
}
