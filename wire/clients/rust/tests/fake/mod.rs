//! A cluster of a few lines inside the test's process: it speaks the protocol over real sockets, keeps sessions as a shard
//! does, and misbehaves as a test tells it to.

#![allow(dead_code, reason = "each test uses a part of it")]

mod world;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mesh_base::{CoreId, NodeId, ShardId};
use mesh_wire::{
    Envelope, Error, Frame, FrameDecoder, FrameWriter, HelloAnswer, Kind, NodeEntry, NodeState, Request,
    RequestId, Response, Role,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

pub(crate) use self::world::World;

/// What a test sees of a request.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// The node that was asked, from 0.
    pub(crate) node: usize,
    /// The connection, counted over the whole cluster.
    pub(crate) connection: usize,
    /// The core that serves the connection.
    pub(crate) core: u16,
    pub(crate) kind: Kind,
    pub(crate) shard: Option<ShardId>,
    /// Session and number of a write.
    pub(crate) write: Option<(u64, u64)>,
    pub(crate) deadline_ms: u32,
    /// What an opening of a session is known by.
    pub(crate) nonce: Option<u64>,
    /// How many requests were asked before this one, over the whole cluster.
    pub(crate) number: usize,
}

/// What a node does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// What it should.
    Serve,
    /// What it should, and the answer comes later.
    ServeLate(Duration),
    /// It says this instead.
    Say(Error),
    /// It says this instead, later.
    SayLate(Duration, Error),
    /// It does it, and says this.
    ServeAndSay(Error),
    /// It does it, and the answer comes together with the word that the connection is about to be closed.
    ServeAndPart,
    /// It does it, and the connection is cut before the answer.
    ServeAndCut,
    /// The connection is cut.
    Cut,
    /// It never answers.
    Swallow,
    /// It never answers, but does it.
    ServeAndSwallow,
}

type Script = Box<dyn FnMut(&Asked) -> Act + Send>;

/// A cluster.
pub(crate) struct Fake {
    world: Arc<Mutex<World>>,
    script: Arc<Mutex<Script>>,
    nodes: Vec<Option<AbortHandle>>,
}

impl Fake {
    /// A cluster of nodes with two cores each, whose first node leads all shards.
    pub(crate) async fn start(nodes: usize, shards: u16) -> Self {
        let mut listeners = Vec::new();
        for _ in 0..nodes {
            listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        let addresses = listeners.iter().map(|listener| listener.local_addr().unwrap().to_string()).collect();
        let world = Arc::new(Mutex::new(World::new(addresses, shards)));
        let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(Box::new(|_| Act::Serve)));
        let mut fake = Self { world, script, nodes: Vec::new() };
        for (node, listener) in listeners.into_iter().enumerate() {
            let task = fake.run(node, listener);
            fake.nodes.push(Some(task));
        }
        fake
    }

    fn run(&self, node: usize, listener: TcpListener) -> AbortHandle {
        let (world, script) = (Arc::clone(&self.world), Arc::clone(&self.script));
        tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                connections.spawn(serve(node, stream, Arc::clone(&world), Arc::clone(&script)));
            }
        })
        .abort_handle()
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.world().addresses.clone()
    }

    /// From now on requests are dealt with so.
    pub(crate) fn script(&self, script: impl FnMut(&Asked) -> Act + Send + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    /// Ends a node and its connections.
    pub(crate) fn kill(&mut self, node: usize) {
        self.nodes[node].take().unwrap().abort();
    }

    /// Starts a node again that was killed.
    pub(crate) async fn restart(&mut self, node: usize) {
        let address = self.world().addresses[node].clone();
        let listener = loop {
            // The killed node's socket may live a moment longer.
            match TcpListener::bind(&address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        self.nodes[node] = Some(self.run(node, listener));
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.nodes.iter().flatten().for_each(AbortHandle::abort);
    }
}

/// Serves one connection.
async fn serve(node: usize, mut stream: TcpStream, world: Arc<Mutex<World>>, script: Arc<Mutex<Script>>) {
    stream.set_nodelay(true).unwrap();
    let mut buffer = BytesMut::new();
    let decoder = FrameDecoder::new();
    let Some(hello) = read_frame(&mut stream, decoder, &mut buffer).await else { return };
    let (connection, core) = {
        let mut world = world.lock().unwrap();
        world.connections += 1;
        let core = match hello.request() {
            Ok(Request::Hello(hello)) => {
                assert!(hello.role == Role::Client && !hello.name.is_empty());
                world.core_of(node, hello.wanted_shard.unwrap_or_default())
            }
            other => panic!("the first frame is a hello, not {other:?}"),
        };
        (world.connections, core)
    };
    let delay = world.lock().unwrap().hello_delay;
    // Nothing comes meanwhile but the end.
    if tokio::time::timeout(delay, stream.peek(&mut [0])).await.is_ok() {
        return;
    }
    let answer = greet(node, &world.lock().unwrap(), hello.header.envelope.request);
    if stream.write_all(&answer).await.is_err() {
        return;
    }
    let (mut reads, mut writes) = stream.into_split();
    let (answers, mut to_send) = mpsc::unbounded_channel::<Bytes>();
    let writer = tokio::spawn(async move {
        while let Some(frame) = to_send.recv().await {
            if writes.write_all(&frame).await.is_err() {
                return;
            }
        }
    });
    let _end_writer = AbortOnDrop(writer.abort_handle());
    loop {
        while let Some(frame) = decoder.decode(&mut buffer).unwrap() {
            let asked = asked(node, connection, core, &frame, &mut world.lock().unwrap());
            let act = (script.lock().unwrap())(&asked);
            if !perform(&asked, act, &frame, &world, &answers) {
                return;
            }
        }
        if !matches!(reads.read_buf(&mut buffer).await, Ok(1..)) {
            return;
        }
    }
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Does what the script says; `false` to cut the connection.
fn perform(
    asked: &Asked,
    act: Act,
    frame: &Frame,
    world: &Mutex<World>,
    answers: &mpsc::UnboundedSender<Bytes>,
) -> bool {
    let serve = || world.lock().unwrap().serve(asked, frame);
    let say = |error: Error| {
        let epoch = world.lock().unwrap().epoch;
        let envelope = Envelope { request: frame.header.envelope.request, shard: asked.shard, epoch };
        FrameWriter::new().frame(&envelope, &Response::Error(error)).unwrap()
    };
    let answer = match act {
        Act::Serve => serve(),
        Act::ServeLate(delay) => {
            send_late(answers, serve(), delay);
            return true;
        }
        Act::Say(error) => say(error),
        Act::SayLate(delay, error) => {
            send_late(answers, say(error), delay);
            return true;
        }
        Act::ServeAndPart => {
            let farewell = Response::Error(Error::ShuttingDown);
            let farewell = FrameWriter::new().frame(&Envelope::default(), &farewell).unwrap();
            [serve(), farewell].concat().into()
        }
        Act::ServeAndSay(error) => {
            serve();
            say(error)
        }
        Act::ServeAndCut => {
            serve();
            return false;
        }
        Act::Cut => return false,
        Act::Swallow => return true,
        Act::ServeAndSwallow => {
            serve();
            return true;
        }
    };
    answers.send(answer).is_ok()
}

fn send_late(answers: &mpsc::UnboundedSender<Bytes>, answer: Bytes, delay: Duration) {
    let answers = answers.clone();
    tokio::spawn(async move {
        tokio::time::sleep(delay).await;
        answers.send(answer)
    });
}

fn asked(node: usize, connection: usize, core: CoreId, frame: &Frame, world: &mut World) -> Asked {
    world.requests += 1;
    let request = frame.request().unwrap();
    let (write, deadline_ms) = match &request {
        Request::Put(put) => (Some(put.ctx), put.ctx.deadline_ms),
        Request::PutBatch(batch) => (Some(batch.ctx), batch.ctx.deadline_ms),
        Request::Delete(delete) => (Some(delete.ctx), delete.ctx.deadline_ms),
        Request::Get(get) => (None, get.ctx.deadline_ms),
        Request::GetBatch(batch) => (None, batch.ctx.deadline_ms),
        Request::Range(range) => (None, range.ctx.deadline_ms),
        _ => (None, 0),
    };
    let nonce = match &request {
        Request::OpenSession(open) => Some(open.nonce),
        _ => None,
    };
    Asked {
        node,
        connection,
        core: core.0,
        kind: frame.header.kind,
        shard: frame.header.envelope.shard,
        write: write.map(|ctx| (ctx.session.get(), ctx.seq.0)),
        deadline_ms,
        nonce,
        number: world.requests,
    }
}

async fn read_frame(stream: &mut TcpStream, decoder: FrameDecoder, buffer: &mut BytesMut) -> Option<Frame> {
    loop {
        if let Some(frame) = decoder.decode(buffer).unwrap() {
            return Some(frame);
        }
        if !matches!(stream.read_buf(buffer).await, Ok(1..)) {
            return None;
        }
    }
}

fn greet(node: usize, world: &World, request: RequestId) -> Bytes {
    let envelope = Envelope { request, shard: None, epoch: world.epoch };
    let name = world.name(node);
    let entries: Vec<_> = (0..world.addresses.len())
        .map(|number| NodeEntry {
            id: world.id(number),
            name: world.names[number].as_str(),
            address: &world.addresses[number],
            state: NodeState::Voter,
        })
        .collect();
    let (slots, places) = (world.slots(), world.places(node));
    let answer = HelloAnswer {
        version: 1,
        cluster: world.is_born.then_some(world.cluster),
        node: if world.is_born { world.id(node) } else { NodeId(0) },
        node_name: &name,
        auth: None,
        topology: world.is_born.then(|| world.topology(&slots, &places, &entries)),
    };
    FrameWriter::new().frame(&envelope, &Response::Hello(answer)).unwrap()
}
