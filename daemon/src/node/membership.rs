//! How a node comes to belong to a cluster, and what it then knows of the others. Pure; runs on core 0 of every node.
//!
//! **Birth** is one unanimous act. Every node is given all names. The one whose name sorts first coordinates: when it has
//! heard from all of them, recently, that none belongs to a cluster and all were given the same names, it draws a cluster
//! id and proposes. Each node writes its promise, then accepts. When all have accepted, the coordinator writes that the
//! cluster exists and says so; a node that promised believes it of any born node.
//!
//! Invariants:
//! - A node acts on a state only when it is durable.
//! - A cluster exists only if every named node durably promised it. A node that belongs to a cluster promises nothing.
//! - An empty node that meets a cluster which knows its name stays out: its data was lost, and with it what its replicas
//!   had promised. It comes back under a new id, when an operator replaced it.
//!
//! Deliberately absent: changing the set of names of a running cluster.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mesh_base::flaw::{self, Flaw};
use mesh_base::io::{Completion, IoQueue};
use mesh_base::limits::SPACE_PATIENCE;
use mesh_base::prng::Prng;
use mesh_base::{ClusterId, CoreId, Instant, NodeId};

use super::config::NodeConfig;
use super::directory::{Directory, Standing};
use super::identity::{Born, Files, IdentityError, IdentityFile, IdentityState};
use super::message::{NodeMessage, NodeReport, Stage};
use super::reach::{Reach, Source};
use crate::core::{CreatePlan, NodeName, Notice, Origin};

const PROBE_PERIOD: Duration = Duration::from_millis(100);
const PROBE_PERIOD_BORN: Duration = Duration::from_secs(1);
/// A report older than this says nothing about the present.
const REPORT_FRESH: Duration = Duration::from_secs(1);

/// What membership asks of the core.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MembershipEffect {
    /// Send a message.
    Send {
        /// The node.
        to: NodeName,
        /// The message.
        message: NodeMessage,
    },
    /// Reach the other nodes at these addresses.
    Dial(Vec<(NodeName, String)>),
    /// All cores: make the replicas' files, then report.
    Create(Arc<CreatePlan>),
    /// All cores: the cluster is this; open the replicas, if they are not open.
    Open(Arc<Directory>, NodeId),
    /// All cores: the membership changed.
    Changed(Arc<Directory>),
    /// A replaced node asks for its id: shard 0's leader answers, others ignore it.
    Admit {
        /// The node.
        name: NodeName,
        /// Its address.
        address: String,
        /// Its attempt.
        attempt: u64,
    },
    /// A node is reached at another address than the directory says: shard 0's leader changes it, others ignore it.
    Moved {
        /// The node.
        name: NodeName,
        /// Its address.
        address: String,
    },
    /// Tell the operator.
    Notice(Notice),
}

/// The membership of one node.
#[derive(Debug)]
pub struct Membership {
    config: Arc<NodeConfig>,
    prng: Prng,
    file: IdentityFile,
    /// What is durable.
    state: IdentityState,
    loaded: Loaded,
    /// What is to be written as soon as the file is idle.
    wanted: Option<IdentityState>,
    reports: BTreeMap<NodeName, (Instant, NodeReport)>,
    accepted: BTreeMap<NodeName, ClusterId>,
    cores_created: Vec<CoreId>,
    reach: Reach,
    next_probe: Instant,
    /// There was no space to write what is wanted: not before that time again.
    full_until: Option<Instant>,
    waiting_for: String,
    io: IoQueue,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Loaded {
    No,
    Yes,
}

/// How a state was entered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Entry {
    /// It was on the disk at the start.
    Found,
    /// From one that is not settled.
    Unsettled,
    /// From one that is.
    Settled,
}

impl Membership {
    /// Begins: the identity is read first.
    #[must_use]
    pub fn new(config: Arc<NodeConfig>, prng: Prng) -> Self {
        let mut io = IoQueue::new();
        let file = IdentityFile::open(config.name.clone(), &mut io);
        Self {
            config,
            prng,
            file,
            state: IdentityState::Empty,
            loaded: Loaded::No,
            wanted: None,
            reports: BTreeMap::new(),
            accepted: BTreeMap::new(),
            cores_created: Vec::new(),
            reach: Reach::default(),
            next_probe: Instant::ZERO,
            full_until: None,
            waiting_for: String::new(),
            io,
        }
    }

    /// File operations to submit, in the node's own directory.
    pub const fn io(&mut self) -> &mut IoQueue {
        &mut self.io
    }

    /// The node's id and cluster, once it is born.
    #[must_use]
    pub fn born(&self) -> Option<&Born> {
        match &self.state {
            IdentityState::Born(born) => Some(born),
            _ => None,
        }
    }

    /// A file operation ended.
    pub fn complete(&mut self, now: Instant, completion: Completion, out: &mut Vec<MembershipEffect>) {
        match self.file.complete(completion, &mut self.io) {
            Ok(None) => {}
            Ok(Some(state)) => {
                let former = std::mem::replace(&mut self.state, state);
                let entry = match std::mem::replace(&mut self.loaded, Loaded::Yes) {
                    Loaded::No => Entry::Found,
                    Loaded::Yes if former.is_settled() => Entry::Settled,
                    Loaded::Yes => Entry::Unsettled,
                };
                self.entered(entry, now, out);
            }
            Err(IdentityError::NoSpace { state }) => {
                self.wanted.get_or_insert(*state);
                self.full_until = Some(now + SPACE_PATIENCE);
                let data = self.config.data.display();
                self.wait_for(format!("the disk of {data} is full: free some space"), out);
            }
            Err(error) => out.push(MembershipEffect::Notice(fatal(&error))),
        }
        self.write_wanted();
    }

    /// How many of the other nodes answer.
    #[must_use]
    pub fn peers_answering(&self, now: Instant) -> usize {
        self.reach.answering(now)
    }

    /// At another node's address there is one of another cluster.
    pub fn met_stranger(&mut self, name: &NodeName, cluster: ClusterId) {
        self.reach.met_stranger(name, cluster);
    }

    /// A tick's period passed.
    pub fn tick(&mut self, now: Instant, out: &mut Vec<MembershipEffect>) {
        if self.loaded == Loaded::No || now < self.next_probe {
            return;
        }
        let born = self.born().is_some();
        self.next_probe = now + if born { PROBE_PERIOD_BORN } else { PROBE_PERIOD };
        if self.full_until.is_some_and(|until| until <= now) {
            self.full_until = None;
        }
        for to in self.others() {
            out.push(MembershipEffect::Send { to, message: NodeMessage::Probe(self.report()) });
        }
        self.look_around(now, out);
        self.advance(now, out);
    }

    /// Looks elsewhere for nodes that do not answer, and tells of those that are of another cluster.
    fn look_around(&mut self, now: Instant, out: &mut Vec<MembershipEffect>) {
        let others = self.others();
        let IdentityState::Born(born) = &self.state else { return };
        if self.reach.look_elsewhere(now, others.iter()) {
            out.push(MembershipEffect::Dial(self.addresses(&born.directory)));
        }
        let news = self.reach.news_of_strangers();
        let Some((_, theirs)) = news.first() else { return };
        let (ours, data) = (born.directory.cluster(), self.config.data.display());
        if self.reach.is_alone_among_strangers(others.iter()) {
            let nodes: Vec<_> = others.iter().map(NodeName::as_str).collect();
            let reason = format!(
                "the data directory {data} belongs to cluster {ours}, and the node(s) {} to cluster {theirs}: give --data \
                 another directory, or --peers the nodes of the directory's own cluster",
                nodes.join(", ")
            );
            out.push(MembershipEffect::Notice(Notice::Fatal { reason }));
            return;
        }
        for (name, theirs) in news {
            let reason = format!(
                "node `{name}` belongs to cluster {theirs}, and this node's data directory {data} to cluster {ours}: \
                 one of them has the wrong directory or the wrong peers"
            );
            out.push(MembershipEffect::Notice(Notice::Waiting { reason }));
        }
    }

    /// Another node's message.
    pub fn receive(
        &mut self,
        now: Instant,
        from: &NodeName,
        message: NodeMessage,
        out: &mut Vec<MembershipEffect>,
    ) {
        if self.loaded == Loaded::No {
            return;
        }
        match message {
            NodeMessage::Probe(report) => {
                let message = NodeMessage::Answer(self.report());
                out.push(MembershipEffect::Send { to: from.clone(), message });
                self.heard(now, from, report, out);
            }
            NodeMessage::Answer(report) => self.heard(now, from, report, out),
            NodeMessage::Directory(directory) => self.learned(&Arc::new(directory), out),
            NodeMessage::Propose { cluster, members, shards } => {
                self.proposed(from, cluster, &members, shards, out);
            }
            NodeMessage::Accept { cluster } => {
                self.accepted.insert(from.clone(), cluster);
                self.advance(now, out);
            }
            NodeMessage::Decided { directory } => self.decided(directory, out),
            NodeMessage::Join { address, attempt } => {
                if self.born().is_some() {
                    out.push(MembershipEffect::Admit { name: from.clone(), address, attempt });
                }
            }
            NodeMessage::Joined { attempt, node, directory } => self.joined(attempt, node, directory),
        }
        self.write_wanted();
    }

    /// A core has made the files of its replicas.
    pub fn created(&mut self, core: CoreId) {
        if !self.cores_created.contains(&core) {
            self.cores_created.push(core);
        }
        let all = self.cores_created.len() == self.config.placement().cores().count();
        if let (true, IdentityState::Born(born)) = (all, &self.state)
            && born.files == Files::Incomplete
        {
            let born = Born { files: Files::Complete, ..born.as_ref().clone() };
            self.want(IdentityState::Born(Box::new(born)));
        }
    }

    /// Shard 0 of this node, or another node, has this membership.
    pub fn learned(&mut self, directory: &Arc<Directory>, out: &mut Vec<MembershipEffect>) {
        let IdentityState::Born(born) = &self.state else { return };
        if directory.cluster() != born.directory.cluster() {
            return;
        }
        let known = match &self.wanted {
            Some(IdentityState::Born(wanted)) => wanted.directory.version(),
            _ => born.directory.version(),
        };
        if directory.version() <= known {
            return;
        }
        match directory.by_name(&self.config.name) {
            Some(entry) if entry.node == born.node => {}
            _ => {
                let reason = format!(
                    "node `{name}` was replaced while it was away, and its old data takes no further part: stop it, \
                     remove {data}, and start it again to join under its new id",
                    name = self.config.name,
                    data = self.config.data.display()
                );
                out.push(MembershipEffect::Notice(Notice::Fatal { reason }));
                return;
            }
        }
        out.push(MembershipEffect::Changed(Arc::clone(directory)));
        let files = match &self.wanted {
            Some(IdentityState::Born(wanted)) => wanted.files,
            _ => born.files,
        };
        let next = Born { directory: directory.as_ref().clone(), files, ..born.as_ref().clone() };
        out.push(MembershipEffect::Dial(self.addresses(&next.directory)));
        self.want(IdentityState::Born(Box::new(next)));
    }

    /// A state became durable, or was found to be.
    fn entered(&mut self, entry: Entry, now: Instant, out: &mut Vec<MembershipEffect>) {
        match &self.state {
            IdentityState::Empty => out.push(MembershipEffect::Dial(self.config.peers.clone())),
            IdentityState::Forming { cluster } => {
                let cluster = *cluster;
                if entry == Entry::Found {
                    out.push(MembershipEffect::Dial(self.config.peers.clone()));
                }
                self.accept(cluster, out);
            }
            IdentityState::Joining { .. } => {
                if entry == Entry::Found {
                    out.push(MembershipEffect::Dial(self.config.peers.clone()));
                }
            }
            IdentityState::Born(born) => {
                let directory = Arc::new(born.directory.clone());
                let addresses = self.addresses(&directory);
                match born.files {
                    Files::Incomplete if self.cores_created.is_empty() => {
                        let plan = CreatePlan { directory, node: born.node, origin: born.origin };
                        out.push(MembershipEffect::Create(Arc::new(plan)));
                    }
                    Files::Incomplete => {}
                    Files::Complete => {
                        out.push(MembershipEffect::Open(directory, born.node));
                        if entry == Entry::Unsettled {
                            // Connections made before said nothing of the cluster: they are made again.
                            out.push(MembershipEffect::Dial(Vec::new()));
                        }
                    }
                }
                out.push(MembershipEffect::Dial(addresses));
            }
        }
        self.advance(now, out);
    }

    /// Moves on as far as what is known allows.
    fn advance(&mut self, now: Instant, out: &mut Vec<MembershipEffect>) {
        match &self.state {
            IdentityState::Born(_) => {}
            IdentityState::Joining { attempt } => {
                let (address, attempt) = (self.config.advertise.clone(), *attempt);
                for to in self.others() {
                    let message = NodeMessage::Join { address: address.clone(), attempt };
                    out.push(MembershipEffect::Send { to, message });
                }
            }
            IdentityState::Empty | IdentityState::Forming { .. } => self.advance_birth(now, out),
        }
        self.write_wanted();
    }

    fn advance_birth(&mut self, now: Instant, out: &mut Vec<MembershipEffect>) {
        if let Some(cluster) = self.cluster_that_knows_us() {
            self.stay_out(cluster, out);
            return;
        }
        if let Some(reason) = self.obstacle(now) {
            self.wait_for(reason, out);
            return;
        }
        if self.coordinator() != self.config.name {
            return;
        }
        match &self.state {
            // One cluster, however often this point is reached while its id is being written.
            IdentityState::Empty if self.file.is_idle() => {
                let mut id = [0; 16];
                self.prng.fill(&mut id);
                self.want(IdentityState::Forming { cluster: ClusterId(id) });
            }
            IdentityState::Forming { cluster } => {
                let cluster = *cluster;
                self.propose(cluster, out);
            }
            _ => {}
        }
    }

    /// Asks those who have not promised yet; when all have, the cluster exists.
    fn propose(&mut self, cluster: ClusterId, out: &mut Vec<MembershipEffect>) {
        let shards = self.shards_agreed();
        let members = self.members();
        let missing: Vec<_> =
            self.others().into_iter().filter(|name| self.accepted.get(name) != Some(&cluster)).collect();
        if missing.is_empty() {
            let directory = Directory::at_birth(cluster, shards, &members);
            self.be_born(directory, Origin::Birth);
            return;
        }
        for to in missing {
            let message = NodeMessage::Propose { cluster, members: members.clone(), shards };
            out.push(MembershipEffect::Send { to, message });
        }
    }

    /// The coordinator proposes a cluster.
    fn proposed(
        &mut self,
        from: &NodeName,
        cluster: ClusterId,
        members: &[(NodeName, String)],
        shards: u16,
        out: &mut Vec<MembershipEffect>,
    ) {
        let names: Vec<_> = members.iter().map(|(name, _)| name.clone()).collect();
        let unwanted = self.config.shards.is_some_and(|mine| mine != shards);
        if *from != self.coordinator() || names != self.names() || unwanted {
            return;
        }
        match &self.state {
            IdentityState::Forming { cluster: promised } if *promised == cluster => self.accept(cluster, out),
            IdentityState::Empty | IdentityState::Forming { .. } => {
                self.want(IdentityState::Forming { cluster });
            }
            IdentityState::Joining { .. } | IdentityState::Born(_) => {}
        }
    }

    fn accept(&self, cluster: ClusterId, out: &mut Vec<MembershipEffect>) {
        let to = self.coordinator();
        if to != self.config.name {
            out.push(MembershipEffect::Send { to, message: NodeMessage::Accept { cluster } });
        }
    }

    /// A born node says that the cluster exists. Whoever was replaced before hearing of it is not the incarnation that was
    /// born: the id under that name is another's, and this node comes back as any lost one does.
    fn decided(&mut self, directory: Directory, out: &mut Vec<MembershipEffect>) {
        if !matches!(&self.state, IdentityState::Forming { cluster } if *cluster == directory.cluster()) {
            return;
        }
        match directory.by_name(&self.config.name).map(|entry| entry.standing) {
            Some(Standing::Member) => self.be_born(directory, Origin::Birth),
            _ => self.stay_out(directory.cluster(), out),
        }
    }

    fn joined(&mut self, attempt: u64, node: NodeId, directory: Directory) {
        let ours = matches!(&self.state, IdentityState::Joining { attempt: mine } if *mine == attempt);
        if ours && directory.by_id(node).is_some_and(|entry| entry.name == self.config.name) {
            let born = Born { node, origin: Origin::Join, files: Files::Incomplete, directory };
            self.want(IdentityState::Born(Box::new(born)));
        }
    }

    fn be_born(&mut self, directory: Directory, origin: Origin) {
        if let Some(entry) = directory.by_name(&self.config.name) {
            let born = Born { node: entry.node, origin, files: Files::Incomplete, directory };
            self.want(IdentityState::Born(Box::new(born)));
        }
    }

    fn heard(&mut self, now: Instant, from: &NodeName, report: NodeReport, out: &mut Vec<MembershipEffect>) {
        let ours = self.born().map(|born| born.directory.cluster());
        match (report.stage, ours) {
            (Stage::Born { cluster, .. }, Some(ours)) if cluster != ours => {
                self.reach.met_stranger(from, cluster);
            }
            _ => self.reach.heard(now, from),
        }
        if let (Some(born), stage) = (self.born(), report.stage) {
            self.heard_while_born(born, from, &report, stage, out);
        }
        self.reports.insert(from.clone(), (now, report));
        if self.born().is_none() {
            self.advance(now, out);
        }
    }

    fn heard_while_born(
        &self,
        born: &Born,
        from: &NodeName,
        report: &NodeReport,
        stage: Stage,
        out: &mut Vec<MembershipEffect>,
    ) {
        let directory = &born.directory;
        let mut send = |message| out.push(MembershipEffect::Send { to: from.clone(), message });
        match stage {
            Stage::Forming(cluster) if cluster == directory.cluster() => {
                send(NodeMessage::Decided { directory: directory.clone() });
            }
            Stage::Born { cluster, version, .. }
                if cluster == directory.cluster() && version < directory.version() =>
            {
                send(NodeMessage::Directory(directory.clone()));
            }
            Stage::Born { cluster, node, .. } if cluster == directory.cluster() => {
                let known = directory.by_id(node);
                if known.is_some_and(|entry| entry.name == *from && entry.address != report.address) {
                    let address = report.address.clone();
                    out.push(MembershipEffect::Moved { name: from.clone(), address });
                }
            }
            _ => {}
        }
    }

    /// A cluster that exists and counts this node's name among its own, unless we promised to be born into that very one.
    fn cluster_that_knows_us(&self) -> Option<ClusterId> {
        let promised = match &self.state {
            IdentityState::Forming { cluster } => Some(*cluster),
            _ => None,
        };
        self.reports.values().find_map(|(_, report)| match report.stage {
            Stage::Born { cluster, .. } if Some(cluster) != promised => Some(cluster),
            _ => None,
        })
    }

    fn stay_out(&mut self, cluster: ClusterId, out: &mut Vec<MembershipEffect>) {
        let name = &self.config.name;
        let reason = format!(
            "the data directory of node `{name}` is empty, but cluster {cluster} exists already. If it knew this node, \
             its data was lost and it must not vote: run `mesh node replace {name}` to let it back in under a new id. \
             Waiting for that"
        );
        self.wait_for(reason, out);
        // One attempt, however often this is found out while it is being written: an id is told to one attempt only.
        if self.file.is_idle() {
            if flaw::is_planted(Flaw::RejoinUnderOldId) {
                return self.want(IdentityState::Forming { cluster });
            }
            let attempt = self.prng.next_u64();
            self.want(IdentityState::Joining { attempt });
        }
    }

    /// Why the cluster cannot be born yet.
    fn obstacle(&self, now: Instant) -> Option<String> {
        let fresh = |name: &NodeName| {
            let (at, report) = self.reports.get(name)?;
            (now.since(*at) <= REPORT_FRESH).then_some(report)
        };
        let silent: Vec<_> = self
            .others()
            .into_iter()
            .filter(|name| fresh(name).is_none())
            .map(|name| name.to_string())
            .collect();
        if !silent.is_empty() {
            return Some(format!("waiting for node(s) {} to form the cluster", silent.join(", ")));
        }
        for name in self.others() {
            let report = fresh(&name)?;
            if report.members != self.names() {
                let theirs: Vec<_> = report.members.iter().map(NodeName::as_str).collect();
                let ours: Vec<_> = self.config.peers.iter().map(|(name, _)| name.as_str()).collect();
                return Some(format!(
                    "node `{name}` was told of other nodes ({}) than `{}` was (itself and {}): give every node all the \
                     others in --peers",
                    theirs.join(", "),
                    self.config.name,
                    ours.join(", ")
                ));
            }
            if let Some(mine) = self.config.shards
                && report.shards != 0
                && report.shards != mine
            {
                return Some(format!(
                    "node `{name}` wants {} shards and `{}` wants {mine}: give all nodes the same --shards",
                    report.shards, self.config.name
                ));
            }
        }
        None
    }

    fn wait_for(&mut self, reason: String, out: &mut Vec<MembershipEffect>) {
        if self.waiting_for != reason {
            self.waiting_for.clone_from(&reason);
            out.push(MembershipEffect::Notice(Notice::Waiting { reason }));
        }
    }

    /// The shards asked for by any node; by default one per core of the coordinator.
    fn shards_agreed(&self) -> u16 {
        let asked = self.reports.values().map(|(_, report)| report.shards).find(|&shards| shards != 0);
        let default = || self.config.placement().cores().count().try_into().unwrap_or(1);
        self.config.shards.or(asked).unwrap_or_else(default)
    }

    fn report(&self) -> NodeReport {
        let stage = match &self.state {
            IdentityState::Empty => Stage::Empty,
            IdentityState::Forming { cluster } => Stage::Forming(*cluster),
            IdentityState::Joining { .. } => Stage::Joining,
            IdentityState::Born(born) => Stage::Born {
                cluster: born.directory.cluster(),
                node: born.node,
                version: born.directory.version(),
            },
        };
        NodeReport {
            address: self.config.advertise.clone(),
            members: self.names(),
            shards: self.config.shards.unwrap_or(0),
            stage,
        }
    }

    /// All names, sorted, this node's among them.
    fn names(&self) -> Vec<NodeName> {
        self.members().into_iter().map(|(name, _)| name).collect()
    }

    /// All nodes given at start with their addresses, sorted by name. A node knows its own address best.
    fn members(&self) -> Vec<(NodeName, String)> {
        let told = |name: &NodeName, given: &String| {
            self.reports.get(name).map_or_else(|| given.clone(), |(_, report)| report.address.clone())
        };
        let mut members: Vec<_> =
            self.config.peers.iter().map(|(name, given)| (name.clone(), told(name, given))).collect();
        members.push((self.config.name.clone(), self.config.advertise.clone()));
        members.sort();
        members
    }

    /// Who to talk to: the cluster's nodes once there is a cluster, and before that those given at start.
    fn others(&self) -> Vec<NodeName> {
        match self.born() {
            Some(born) => self.addresses(&born.directory).into_iter().map(|(name, _)| name).collect(),
            None => self.config.peers.iter().map(|(name, _)| name.clone()).collect(),
        }
    }

    fn addresses(&self, directory: &Directory) -> Vec<(NodeName, String)> {
        let others = directory.nodes().iter().filter(|entry| entry.name != self.config.name);
        others
            .map(|entry| {
                let given = self.config.peers.iter().find(|(name, _)| *name == entry.name);
                // A node that was replaced may come back anywhere; the operator's word is then the newest.
                let is_new = entry.standing == Standing::Expected;
                let address = match given {
                    Some((_, given)) if is_new || self.reach.source(&entry.name) == Source::Operator => given,
                    _ => &entry.address,
                };
                let address = address.clone();
                (entry.name.clone(), address)
            })
            .collect()
    }

    fn coordinator(&self) -> NodeName {
        self.names().into_iter().next().unwrap_or_else(|| self.config.name.clone())
    }

    fn want(&mut self, state: IdentityState) {
        self.wanted = Some(state);
        self.write_wanted();
    }

    fn write_wanted(&mut self) {
        if !self.file.is_idle() || self.full_until.is_some() {
            return;
        }
        let Some(state) = self.wanted.take() else { return };
        let unborn = self.born().is_some() && !matches!(state, IdentityState::Born(_));
        if state != self.state && !unborn {
            self.file.write(state, &mut self.io);
        }
    }
}

fn fatal(error: &IdentityError) -> Notice {
    Notice::Fatal { reason: error.to_string() }
}
