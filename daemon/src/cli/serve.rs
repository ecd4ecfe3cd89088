//! Running nodes in this process until they are told to stop.
//!
//! Invariants:
//! - All nodes take what they need before any of them runs, so that a wrong flag stops the whole with nothing begun.
//! - The first signal stops the nodes in order; the second ends the process at once.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::args::NodeFlags;
use super::config::node_config;
use super::error::{CliError, Exit};
use super::output::{Format, Output};
use crate::core::{Core, CoreOptions, NodeName, Notice, PanicPolicy};
use crate::host::{Claim, HostError, NodeHandle, Stopper, memory_ahead};
use crate::node::NodeConfig;

/// As good as no time limit.
const FOREVER: Duration = Duration::from_secs(3600);
/// Who has heard nothing for so long is told what may be missing.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// What happens while nodes run.
enum Event {
    /// A node has something to say.
    Notice(NodeName, Notice),
    /// A node has ended.
    Ended(NodeName, Result<(), HostError>),
    /// The process was sent a signal.
    Signal,
}

/// Nodes that run in this process.
pub(super) struct Running {
    events: Receiver<Event>,
    nodes: Vec<Node>,
}

struct Node {
    stopper: Stopper,
    thread: JoinHandle<()>,
}

/// `mesh --node ...`: serves one node.
pub(super) fn serve(flags: &NodeFlags, output: &mut Output) -> Result<Exit, CliError> {
    let config = node_config(flags)?;
    let about = format!(
        "node {} listens on {} (advertised as {}), {} core(s), data in {}",
        config.name,
        config.listen,
        config.advertise,
        config.cpus.len(),
        config.data.display()
    );
    let running = Running::start(vec![config])?;
    output.note(about);
    running.until_stopped(Duration::ZERO, output, |_| {})
}

impl Running {
    /// Starts nodes, all of them or none.
    pub(super) fn start(configs: Vec<NodeConfig>) -> Result<Self, CliError> {
        let signals = Signals::new([SIGINT, SIGTERM]).map_err(CliError::io("signals"))?;
        let claims = configs.iter().map(Claim::new).collect::<Result<Vec<_>, _>>()?;
        let (sender, events) = channel();
        let mut nodes: Vec<Node> = Vec::new();
        for (config, claim) in configs.into_iter().zip(claims) {
            match run(config, claim, sender.clone()) {
                Ok(node) => nodes.push(node),
                Err(error) => {
                    nodes.iter().for_each(|node| node.stopper.stop());
                    nodes.into_iter().for_each(|node| drop(node.thread.join()));
                    return Err(error);
                }
            }
        }
        watch_signals(signals, sender)?;
        Ok(Self { events, nodes })
    }

    /// Tells what the nodes have to say until all of them have ended. That they wait for each other is told when that
    /// takes longer than `patience`; `ready` is called once, when the cluster can be used.
    pub(super) fn until_stopped(
        self,
        patience: Duration,
        output: &mut Output,
        ready: impl Fn(&mut Output),
    ) -> Result<Exit, CliError> {
        let (stoppers, now) = (self.nodes.iter().map(|node| node.stopper.clone()).collect(), Instant::now());
        let mut vigil = Vigil {
            stoppers,
            running: self.nodes.len(),
            impatient_at: now + patience,
            held_back: Vec::new(),
            silent_until: Some(now + patience.max(SILENCE_MAX)),
            stage: Stage::Starting,
            failed: None,
        };
        while vigil.running > 0 {
            let event = match self.events.recv_timeout(vigil.next_look()) {
                Ok(event) => event,
                Err(RecvTimeoutError::Timeout) => {
                    vigil.look(output);
                    continue;
                }
                // The watcher of signals holds a sender as long as the process lives.
                Err(RecvTimeoutError::Disconnected) => break,
            };
            match event {
                Event::Notice(node, notice) => vigil.noticed(node, notice, output, &ready),
                Event::Ended(node, ended) => vigil.ended(&node, ended),
                Event::Signal => vigil.signalled(output),
            }
        }
        self.nodes.into_iter().for_each(|node| drop(node.thread.join()));
        vigil.failed.map_or(Ok(Exit::Done), Err)
    }
}

/// What is known of the nodes while they run.
struct Vigil {
    stoppers: Vec<Stopper>,
    running: usize,
    impatient_at: Instant,
    /// What nodes wait for, as long as there is patience.
    held_back: Vec<(NodeName, Notice)>,
    /// Until when nothing need be said; `None` when something was.
    silent_until: Option<Instant>,
    stage: Stage,
    failed: Option<CliError>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Starting,
    Ready,
    Stopping,
}

impl Vigil {
    /// When to look whether something is to be said.
    fn next_look(&self) -> Duration {
        let held_back = (!self.held_back.is_empty()).then_some(self.impatient_at);
        let next = held_back.into_iter().chain(self.silent_until).min();
        next.map_or(FOREVER, |at| at.saturating_duration_since(Instant::now()))
    }

    /// Tells what has been held back, or what may be missing when no one says so; unless it is over.
    fn look(&mut self, output: &mut Output) {
        let now = Instant::now();
        let held_back =
            if now >= self.impatient_at { std::mem::take(&mut self.held_back) } else { Vec::new() };
        if self.stage != Stage::Starting {
            self.silent_until = None;
            return;
        }
        if !held_back.is_empty() {
            self.silent_until = None;
            held_back.iter().for_each(|(node, notice)| tell(node, notice, output));
        }
        if self.silent_until.take_if(|until| now >= *until).is_some() {
            output.note(
                "not ready yet: not every shard has a leader; it gets one when more than half of the cluster's nodes run \
                 and reach each other (--log info tells whom they do not reach)",
            );
        }
    }

    fn noticed(&mut self, node: NodeName, notice: Notice, output: &mut Output, ready: &impl Fn(&mut Output)) {
        match &notice {
            // Each node says so; the first is believed.
            Notice::ClusterReady { .. } if self.stage != Stage::Starting => {}
            Notice::ClusterReady { .. } => {
                self.stage = Stage::Ready;
                tell(&node, &notice, output);
                ready(output);
            }
            Notice::Waiting { .. } if Instant::now() < self.impatient_at => {
                self.held_back.retain(|(other, _)| *other != node);
                self.held_back.push((node, notice));
            }
            Notice::Waiting { .. } | Notice::Damaged { .. } => {
                self.silent_until = None;
                tell(&node, &notice, output);
            }
            Notice::Fatal { reason } => {
                // People read it as the error that the process ends with.
                if output.format() == Format::Json {
                    tell(&node, &notice, output);
                }
                self.fail(CliError::Fatal { node: node.to_string(), reason: reason.clone() });
            }
        }
    }

    fn ended(&mut self, node: &NodeName, ended: Result<(), HostError>) {
        self.running -= 1;
        match ended {
            Err(error) => self.fail(error.into()),
            Ok(()) if self.stage == Stage::Stopping => {}
            Ok(()) => {
                let reason = "it ended without being asked to".into();
                self.fail(CliError::Fatal { node: node.to_string(), reason });
            }
        }
    }

    fn signalled(&mut self, output: &mut Output) {
        if self.stage == Stage::Stopping {
            std::process::exit(Exit::NodeFailed.code().into());
        }
        output.note("stopping; a second signal ends the process at once");
        self.stop();
    }

    /// The first failure is what the process ends with; the other nodes stop in order.
    fn fail(&mut self, error: CliError) {
        self.failed.get_or_insert(error);
        self.stop();
    }

    fn stop(&mut self) {
        self.stage = Stage::Stopping;
        self.stoppers.iter().for_each(Stopper::stop);
    }
}

/// Starts one node, and a thread that listens to it.
fn run(config: NodeConfig, claim: Claim, events: Sender<Event>) -> Result<Node, CliError> {
    let name = config.name.clone();
    let memory = memory_ahead(&name);
    let options = CoreOptions { config: Arc::new(config), shard: None, memory, panics: PanicPolicy::Contain };
    let handle = claim.run(move |core, prng| Core::new(options.clone(), core, prng))?;
    let stopper = handle.stopper();
    let thread = thread::Builder::new().name(format!("mesh-{name}-notices"));
    let thread = thread.spawn(move || listen(&name, handle, &events)).map_err(CliError::io("a thread"))?;
    Ok(Node { stopper, thread })
}

fn listen(name: &NodeName, handle: NodeHandle, events: &Sender<Event>) {
    for notice in handle.notices() {
        // Nobody listens any more only when the process is ending.
        let _ = events.send(Event::Notice(name.clone(), notice));
    }
    let _ = events.send(Event::Ended(name.clone(), handle.join()));
}

fn watch_signals(mut signals: Signals, events: Sender<Event>) -> Result<(), CliError> {
    let watch = move || {
        for _ in signals.forever() {
            if events.send(Event::Signal).is_err() {
                // The nodes are gone already.
                std::process::exit(Exit::NodeFailed.code().into());
            }
        }
    };
    thread::Builder::new().name("mesh-signals".into()).spawn(watch).map_err(CliError::io("a thread"))?;
    Ok(())
}

/// A notice for programs.
#[derive(Serialize)]
struct NoticeDocument<'a> {
    node: &'a str,
    notice: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shard: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leaders: Option<Vec<LeaderDocument<'a>>>,
}

#[derive(Serialize)]
struct LeaderDocument<'a> {
    shard: u16,
    node: &'a str,
}

/// Tells a notice. A node goes on when nobody listens, so what cannot be written is let go.
fn tell(node: &NodeName, notice: &Notice, output: &mut Output) {
    let told = match (output.format(), notice) {
        (Format::Json, notice) => output.document(&NoticeDocument::of(node, notice)),
        (Format::Text, Notice::ClusterReady { leaders }) => {
            let leaders: Vec<_> =
                leaders.iter().map(|(shard, leader)| format!("{shard} by {leader}")).collect();
            let plural = if leaders.len() == 1 { "" } else { "s" };
            output.line(format_args!(
                "cluster ready: {} shard{plural}, led: {}",
                leaders.len(),
                leaders.join(", ")
            ))
        }
        (Format::Text, Notice::Waiting { reason }) => {
            output.note(format_args!("node {node} waits: {reason}"));
            Ok(())
        }
        (Format::Text, Notice::Damaged { shard, reason }) => {
            output.note(format_args!("node {node}, shard {shard}: damaged: {reason}"));
            Ok(())
        }
        (Format::Text, Notice::Fatal { reason }) => {
            output.note(format_args!("node {node} cannot go on: {reason}"));
            Ok(())
        }
    };
    let _ = told.and_then(|()| output.flush());
}

impl<'a> NoticeDocument<'a> {
    fn of(node: &'a NodeName, notice: &'a Notice) -> Self {
        let none = Self { node: node.as_str(), notice: "", reason: None, shard: None, leaders: None };
        match notice {
            Notice::ClusterReady { leaders } => {
                let leaders = leaders
                    .iter()
                    .map(|(shard, leader)| LeaderDocument { shard: shard.0, node: leader.as_str() });
                Self { notice: "cluster_ready", leaders: Some(leaders.collect()), ..none }
            }
            Notice::Waiting { reason } => Self { notice: "waiting", reason: Some(reason), ..none },
            Notice::Damaged { shard, reason } => {
                Self { notice: "damaged", reason: Some(reason), shard: Some(shard.0), ..none }
            }
            Notice::Fatal { reason } => Self { notice: "fatal", reason: Some(reason), ..none },
        }
    }
}
