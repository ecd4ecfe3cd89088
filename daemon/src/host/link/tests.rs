//! A node that comes, goes, and comes back with other cores, as seen by those who send to it.

use std::cell::RefCell;
use std::future::Future;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use glommio::LocalExecutorBuilder;
use glommio::timer::Timer;
use mesh_base::prng::Prng;
use mesh_base::{CoreId, NodeId, ShardId};
use mesh_wire::{Envelope, Frame, FrameWriter, HelloAnswer, Kind, Request, Response};

use super::Links;
use crate::core::{CoreEvent, HelloOutcome, LinkClass, NodeName, PeerPlacement};
use crate::host::inbox::Inbox;
use crate::host::server::Greeter;
use crate::host::sockets::Sockets;
use crate::host::tests::{Client, get, hello};

/// Greets like a node, and is told by its test where the other's shards are.
struct Greets {
    cores: RefCell<Vec<CoreId>>,
}

impl Greeter for Greets {
    fn hello(&self, _frame: &Frame) -> HelloOutcome {
        panic!("no one connects to this side")
    }

    fn greet(&self, _class: LinkClass, shard: ShardId) -> Bytes {
        hello("a", mesh_wire::Role::Client, Some(shard))
    }

    fn greeted(&self, from: &NodeName, answer: &Frame) -> Result<PeerPlacement, String> {
        assert_eq!(from.as_str(), "b");
        match answer.response() {
            Ok(Response::Hello(_)) => Ok(PeerPlacement { cores: self.cores.borrow().clone() }),
            _ => Err("refused".into()),
        }
    }
}

/// What the other side saw: of each connection the shard of its hello, then the keys that came.
type Seen = Arc<Mutex<Vec<(ShardId, Vec<String>)>>>;

/// A node that takes in connections, each until it has seen so many frames, and then closes it.
fn other_side(listener: TcpListener, frames_each: usize) -> Seen {
    let seen = Seen::default();
    let all = Arc::clone(&seen);
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let all = Arc::clone(&all);
            thread::spawn(move || serve(Client::of(stream), &all, frames_each));
        }
    });
    seen
}

fn serve(mut from: Client, all: &Seen, frames_each: usize) {
    let Some(first) = from.frame() else { return };
    let Ok(Request::Hello(said)) = first.request() else { panic!("no hello") };
    let place = {
        let mut all = all.lock().unwrap();
        all.push((said.wanted_shard.unwrap(), Vec::new()));
        all.len() - 1
    };
    let answer = HelloAnswer {
        version: 1,
        cluster: None,
        node: NodeId(2),
        node_name: "b",
        auth: None,
        topology: None,
    };
    let answer = FrameWriter::new().frame(&Envelope::default(), &Response::Hello(answer)).unwrap();
    from.send(&answer);
    // Something of its own accord.
    let _ = from.stream.write_all(&get(1, "unasked"));
    for _ in 0..frames_each {
        let Some(frame) = from.frame() else { return };
        let Ok(Request::Get(get)) = frame.request() else { panic!("no get") };
        all.lock().unwrap()[place].1.push(String::from_utf8(get.key.to_vec()).unwrap());
    }
}

fn links(cores: &[u16]) -> (Rc<Links>, Rc<Inbox>, Rc<Greets>) {
    let inbox = Rc::new(Inbox::new());
    let greets = Rc::new(Greets { cores: RefCell::new(cores.iter().copied().map(CoreId).collect()) });
    let greeter: Rc<dyn Greeter> = Rc::<Greets>::clone(&greets);
    let sockets = Sockets::new().unwrap();
    sockets.attend();
    let links = Links::new(Rc::clone(&inbox), greeter, sockets, Prng::new(1));
    (links, inbox, greets)
}

fn run<T>(future: impl Future<Output = T> + 'static) -> T {
    LocalExecutorBuilder::default().io_memory(0).make().unwrap().run(future)
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn b() -> NodeName {
    NodeName::from("b")
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..5000 {
        if is_so() {
            return;
        }
        Timer::new(Duration::from_millis(2)).await;
    }
    panic!("not in time: {what}");
}

fn keys_of(seen: &Seen, shard: u16) -> Vec<String> {
    let seen = seen.lock().unwrap();
    seen.iter().filter(|(of, _)| of.0 == shard).flat_map(|(_, keys)| keys.clone()).collect()
}

#[test]
fn frames_go_to_the_core_of_their_shard_in_order() {
    let (listener, address) = listener();
    let seen = other_side(listener, usize::MAX);
    run(async move {
        let (links, inbox, _) = links(&[0, 1]);
        links.dial(vec![(b(), address.to_string())]);
        let sent: Vec<_> = (0..200).map(|number| format!("{number}")).collect();
        for (number, key) in sent.iter().enumerate() {
            for shard in [0, 1] {
                links.send(&b(), LinkClass::Bulk, ShardId(shard), get(1, key));
            }
            if number % 50 == 0 {
                Timer::new(Duration::from_millis(1)).await;
            }
        }
        until("all arrive", || keys_of(&seen, 0) == sent && keys_of(&seen, 1) == sent).await;
        assert_eq!(links.dropped.get(), 0);
        // Three connections: the one that asked, and one per core.
        assert_eq!(seen.lock().unwrap().len(), 3);
        // What the other side sends comes in as that node's.
        let mut events = Vec::new();
        inbox.take(&mut events);
        let is_unasked = |event: &CoreEvent| matches!(event, CoreEvent::Peer { from, frame } if from.name == b() && frame.header.kind == Kind::Get);
        assert!(!events.is_empty() && events.iter().all(is_unasked));
    });
}

#[test]
fn a_broken_connection_is_made_again() {
    let (listener, address) = listener();
    let seen = other_side(listener, 10);
    run(async move {
        let (links, _inbox, _) = links(&[0]);
        links.dial(vec![(b(), address.to_string())]);
        for number in 0..2000 {
            links.send(&b(), LinkClass::Control, ShardId(0), get(1, &number.to_string()));
            Timer::new(Duration::from_millis(1)).await;
            if seen.lock().unwrap().iter().filter(|(_, keys)| keys.len() == 10).count() >= 3 {
                return;
            }
        }
        panic!("{seen:?}");
    });
}

#[test]
fn a_node_that_is_not_there_costs_nothing_but_what_is_sent_to_it() {
    let (listener, address) = listener();
    drop(listener);
    run(async move {
        let (links, _inbox, _) = links(&[0]);
        links.dial(vec![(b(), address.to_string())]);
        for _ in 0..10 {
            links.send(&b(), LinkClass::Bulk, ShardId(0), get(1, "lost"));
        }
        let dropped = Rc::clone(&links);
        until("they are dropped", move || dropped.dropped.get() == 10).await;
        let seen = other_side(TcpListener::bind(address).unwrap(), usize::MAX);
        for _ in 0..1000 {
            links.send(&b(), LinkClass::Bulk, ShardId(0), get(1, "found"));
            Timer::new(Duration::from_millis(5)).await;
            if keys_of(&seen, 0).iter().any(|key| key == "found") {
                return;
            }
        }
        panic!("it is not found once it is there");
    });
}

#[test]
fn a_node_that_came_back_with_other_cores_is_reached_there() {
    let (listener, address) = listener();
    let seen = other_side(listener, 5);
    run(async move {
        let (links, _inbox, greets) = links(&[0, 1]);
        links.dial(vec![(b(), address.to_string())]);
        for round in 0..2000 {
            if round == 20 {
                *greets.cores.borrow_mut() = vec![CoreId(1), CoreId(0)];
            }
            for shard in [0, 1] {
                links.send(&b(), LinkClass::Control, ShardId(shard), get(1, &round.to_string()));
            }
            Timer::new(Duration::from_millis(1)).await;
            let moved = links.peers.borrow().get(&b()).is_some_and(|peer| {
                let placement = peer.placement.as_ref().map(|learned| learned.placement.core_of(ShardId(0)));
                placement == Some(CoreId(1)) && peer.lines.len() == 2
            });
            if moved {
                return;
            }
        }
        panic!("{:?}", seen.lock().unwrap().len());
    });
}

#[test]
fn a_node_that_left_the_cluster_is_not_dialled_any_more() {
    let (listener, address) = listener();
    let seen = other_side(listener, usize::MAX);
    run(async move {
        let (links, _inbox, _) = links(&[0]);
        links.dial(vec![(b(), address.to_string())]);
        links.send(&b(), LinkClass::Bulk, ShardId(0), get(1, "one"));
        let watched = Arc::clone(&seen);
        until("it arrives", move || keys_of(&watched, 0) == ["one"]).await;
        let before = seen.lock().unwrap().len();
        links.dial(vec![(NodeName::from("c"), address.to_string())]);
        links.send(&b(), LinkClass::Bulk, ShardId(0), get(1, "two"));
        Timer::new(Duration::from_millis(50)).await;
        assert_eq!((links.dropped.get(), seen.lock().unwrap().len()), (1, before));
    });
}

#[test]
fn a_node_without_shards_is_asked_again() {
    let (listener, address) = listener();
    let seen = other_side(listener, usize::MAX);
    run(async move {
        let (links, _inbox, greets) = links(&[]);
        links.dial(vec![(b(), address.to_string())]);
        links.send(&b(), LinkClass::Control, ShardId(1), get(1, "before"));
        let watched = Arc::clone(&seen);
        until("it arrives at the first core", move || keys_of(&watched, 1) == ["before"]).await;
        *greets.cores.borrow_mut() = vec![CoreId(0), CoreId(1)];
        Timer::new(super::ASK_AGAIN_AFTER + Duration::from_millis(10)).await;
        links.send(&b(), LinkClass::Control, ShardId(1), get(1, "after"));
        until("its core is known", move || {
            links.peers.borrow()[&b()].lines.keys().any(|(_, core)| *core == Some(CoreId(1)))
        })
        .await;
        until("it arrives", move || keys_of(&seen, 1).ends_with(&["after".to_owned()])).await;
    });
}
