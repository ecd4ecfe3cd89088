//! One outbound connection: dialled, greeted, written, and again.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use glommio::timer::Timer;
use mesh_base::limits::{DIAL_PAUSE_MAX, DIAL_PAUSE_MIN, DIAL_TIMEOUT, SOCKET_READ_BYTES};
use mesh_base::{CoreId, ShardId};
use mesh_wire::{Frame, FrameDecoder, FrameError};

use super::Links;
use super::queue::{Letter, Queue};
use crate::core::{CoreEvent, LinkClass, NodeName, PeerNode, PeerPlacement};
use crate::host::bell::{Bell, step_aside};
use crate::host::inbox::Sender;
use crate::host::outbox::{Flushed, Outbox};
use crate::host::patience::within;
use crate::host::resolve::resolve;
use crate::host::socket::{Received, Socket, connect};

/// Bytes that are taken off the queue at a time.
const WRITE_BYTES: usize = 1024 * 1024;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// It is made, and made again, as long as there is something to send.
    InUse,
    /// Its task ends.
    Cut,
}

/// See the module.
pub(super) struct Line {
    peer: NodeName,
    class: LinkClass,
    core: Option<CoreId>,
    queue: RefCell<Queue>,
    state: Cell<State>,
    /// The connection, while there is one.
    socket: RefCell<Option<Rc<Socket>>>,
    /// Rung when there is something to send, or the connection broke, or the line was cut.
    bell: Bell,
}

impl Line {
    pub(super) fn new(peer: NodeName, class: LinkClass, core: Option<CoreId>) -> Self {
        Self {
            peer,
            class,
            core,
            queue: RefCell::new(Queue::new(class)),
            state: Cell::new(State::InUse),
            socket: RefCell::default(),
            bell: Bell::default(),
        }
    }

    /// Adds a frame; returns how many were dropped for it.
    pub(super) fn push(&self, letter: Letter) -> u64 {
        let dropped = self.queue.borrow_mut().push(letter);
        self.bell.ring();
        dropped
    }

    /// Ends the line; returns what was not sent.
    pub(super) fn cut(&self) -> VecDeque<Letter> {
        self.state.set(State::Cut);
        self.hang_up();
        self.queue.borrow_mut().take()
    }

    fn hang_up(&self) {
        if let Some(socket) = self.socket.borrow_mut().take() {
            socket.hang_up();
        }
        self.bell.ring();
    }

    fn is_cut(&self) -> bool {
        self.state.get() == State::Cut
    }

    fn is_connected(&self) -> bool {
        self.socket.borrow().is_some()
    }
}

/// The life of a line.
pub(super) async fn run(links: Rc<Links>, line: Rc<Line>) {
    let mut pause = DIAL_PAUSE_MIN;
    let mut last_failure = String::new();
    while !line.is_cut() {
        let next = line.queue.borrow().next_shard();
        let Some(shard) = next else {
            line.bell.heard().await;
            continue;
        };
        match dial(&links, &line, shard).await {
            Ok((socket, buffer)) => {
                pause = DIAL_PAUSE_MIN;
                last_failure.clear();
                if !line.is_cut() {
                    carry(&links, &line, socket, buffer).await;
                }
            }
            Err(failure) => {
                // What waited is out of date by the time it could be sent.
                let lost = line.queue.borrow_mut().take().len();
                links.count_dropped(lost as u64);
                if failure != last_failure {
                    let dropped = links.dropped.get();
                    tracing::info!(node = %line.peer, class = ?line.class, dropped, "not reached: {failure}");
                    last_failure = failure;
                }
                let half = u64::try_from(pause.as_millis() / 2).unwrap_or(u64::MAX);
                let jitter = links.prng.borrow_mut().range(0..half + 1);
                Timer::new(pause / 2 + std::time::Duration::from_millis(jitter)).await;
                pause = (pause * 2).min(DIAL_PAUSE_MAX);
            }
        }
    }
}

/// Makes the connection and exchanges hellos. Returns it with what was read beyond the answer.
async fn dial(links: &Rc<Links>, line: &Line, shard: ShardId) -> Result<(Socket, BytesMut), String> {
    let address = links.address(&line.peer).ok_or("it is no longer in the cluster")?;
    let (socket, placement, buffer) =
        reach(links, line, shard, &address).await.map_err(|why| format!("{address}: {why}"))?;
    // This cuts the line, if it is not the right one for the shard.
    let right = line.core == Some(placement.core_of(shard));
    links.learn(&line.peer, placement);
    if !right && !line.is_cut() {
        return Err(format!("{address}: its cores own other shards than they did"));
    }
    Ok((socket, buffer))
}

/// Connects to the first of the addresses that a node's may mean at which that very node answers: a name may lead to
/// several, and something else may listen at some of them.
async fn reach(
    links: &Rc<Links>,
    line: &Line,
    shard: ShardId,
    address: &str,
) -> Result<(Socket, PeerPlacement, BytesMut), String> {
    let found = within(DIAL_TIMEOUT, resolve(address)).await.ok_or("the name is not found in time")?;
    let mut failure = "the name has no address".to_owned();
    for candidate in found.map_err(|error| error.to_string())? {
        match introduce(links, line, shard, candidate).await {
            Ok(reached) => return Ok(reached),
            Err(why) => failure = why,
        }
    }
    Err(failure)
}

/// Connects and exchanges hellos.
async fn introduce(
    links: &Rc<Links>,
    line: &Line,
    shard: ShardId,
    candidate: SocketAddr,
) -> Result<(Socket, PeerPlacement, BytesMut), String> {
    let connected =
        within(DIAL_TIMEOUT, connect(candidate, &links.sockets)).await.ok_or("it did not answer")?;
    let socket = connected.map_err(|error| error.to_string())?;
    let greeting = links.greeter.greet(line.class, shard);
    let greeted = within(DIAL_TIMEOUT, greet(&socket, greeting)).await.ok_or("it did not answer")?;
    let (answer, buffer) = greeted?;
    let placement = links.greeter.greeted(&line.peer, &answer)?;
    Ok((socket, placement, buffer))
}

async fn greet(socket: &Socket, greeting: Bytes) -> Result<(Frame, BytesMut), String> {
    let mut outbox = Outbox::default();
    outbox.push(greeting);
    while socket.send(&mut outbox).map_err(|error| error.to_string())? == Flushed::Blocked {
        socket.writable().await;
    }
    let decoder = FrameDecoder::new();
    let mut buffer = BytesMut::new();
    loop {
        if let Some(frame) = decoder.decode(&mut buffer).map_err(|foul| foul.to_string())? {
            return Ok((frame, buffer));
        }
        socket.readable().await;
        let received = socket.read(&mut buffer).map_err(|error| error.to_string())?;
        if received == Received::End {
            return Err("it closed the connection".into());
        }
    }
}

/// Sends what comes until the connection breaks or the line is cut.
async fn carry(links: &Rc<Links>, line: &Rc<Line>, socket: Socket, buffer: BytesMut) {
    let socket = Rc::new(socket);
    *line.socket.borrow_mut() = Some(Rc::clone(&socket));
    glommio::spawn_local(take_in(Rc::clone(links), Rc::clone(line), Rc::clone(&socket), buffer)).detach();
    let mut outbox = Outbox::default();
    while line.is_connected() {
        while outbox.bytes() < WRITE_BYTES
            && let Some((_, frame)) = line.queue.borrow_mut().pop()
        {
            outbox.push(frame);
        }
        if outbox.is_empty() {
            line.bell.heard().await;
            continue;
        }
        match socket.send(&mut outbox) {
            Ok(Flushed::All) => step_aside().await,
            Ok(Flushed::Blocked) => socket.writable().await,
            Err(_) => break,
        }
    }
    line.hang_up();
}

/// Takes in what the other side sends, and notices when it is gone.
async fn take_in(links: Rc<Links>, line: Rc<Line>, socket: Rc<Socket>, mut buffer: BytesMut) {
    if let Err(foul) = read_frames(&links, &line, &socket, &mut buffer).await {
        tracing::warn!(node = %line.peer, "{foul}");
    }
    // The line may have another connection by now.
    let own = line.socket.borrow().as_ref().is_some_and(|current| Rc::ptr_eq(current, &socket));
    if own {
        line.hang_up();
    }
}

async fn read_frames(
    links: &Links,
    line: &Line,
    socket: &Socket,
    buffer: &mut BytesMut,
) -> Result<(), FrameError> {
    let decoder = FrameDecoder::new();
    loop {
        loop {
            match decoder.decode(buffer) {
                Ok(Some(frame)) => {
                    let from = PeerNode { name: line.peer.clone(), cluster: None };
                    links.inbox.push(CoreEvent::Peer { from, frame });
                }
                Ok(None) => break,
                Err(FrameError::UnknownKind { .. }) => {}
                Err(foul) => return Err(foul),
            }
        }
        if buffer.is_empty() && buffer.capacity() > SOCKET_READ_BYTES {
            *buffer = BytesMut::new();
        }
        links.inbox.room(Sender::Peer).await;
        socket.readable().await;
        match socket.read(buffer) {
            Ok(Received::Bytes) => {}
            Ok(Received::End) | Err(_) => return Ok(()),
        }
    }
}
