//! Messages at random, all fields of all kinds, within the limits.
//!
//! Lists and texts are leaked: a message borrows, and a test ends soon.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "random bits")]

use bytes::Bytes;
use mesh_base::limits::SNAPSHOT_POSITION_BYTES_MAX;
use mesh_base::prng::Prng;
use mesh_base::slot::SLOTS;
use mesh_base::{
    CheckpointNo, ClusterId, CoreId, LogIndex, NodeId, ReplicaId, Revision, SessionId, SessionSeq, ShardId,
    SlotEpoch, SlotNo, Term,
};
use mesh_wire::*;

/// What can be in a frame.
#[derive(Clone, PartialEq, Debug)]
pub enum Any {
    Request(Request<'static>),
    Response(Response<'static>),
    Peer(PeerMessage<'static>),
}

impl Any {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Request(message) => message.kind(),
            Self::Response(message) => message.kind(),
            Self::Peer(message) => message.kind(),
        }
    }

    pub fn size_hint(&self) -> usize {
        match self {
            Self::Request(message) => message.size_hint(),
            Self::Response(message) => message.size_hint(),
            Self::Peer(message) => message.size_hint(),
        }
    }

    pub fn frame(&self, writer: &mut FrameWriter, envelope: &Envelope) -> Result<Bytes, WireError> {
        match self {
            Self::Request(message) => writer.frame(envelope, message),
            Self::Response(message) => writer.frame(envelope, message),
            Self::Peer(message) => writer.frame(envelope, message),
        }
    }

    pub fn append(
        &self,
        writer: &mut FrameWriter,
        envelope: &Envelope,
        out: &mut Vec<u8>,
    ) -> Result<(), WireError> {
        match self {
            Self::Request(message) => writer.append(envelope, message, out),
            Self::Response(message) => writer.append(envelope, message, out),
            Self::Peer(message) => writer.append(envelope, message, out),
        }
    }

    /// Whether the frame is this message.
    pub fn is(&self, frame: &Frame) -> bool {
        match self {
            Self::Request(message) => frame.request().as_ref() == Ok(message),
            Self::Response(message) => frame.response().as_ref() == Ok(message),
            Self::Peer(message) => frame.peer().as_ref() == Ok(message),
        }
    }
}

/// What the first write of a session carries.
pub fn in_session() -> WriteContext<'static> {
    WriteContext {
        session: SessionId(Revision(7)),
        seq: SessionSeq(1),
        acknowledged_below: SessionSeq(1),
        ..WriteContext::default()
    }
}

/// Draws messages.
pub struct Sample {
    prng: Prng,
}

impl Sample {
    pub fn new(seed: u64) -> Self {
        Self { prng: Prng::new(seed) }
    }

    pub fn envelope(&mut self) -> Envelope {
        Envelope {
            request: RequestId(self.number()),
            shard: self.maybe(Self::shard),
            epoch: SlotEpoch(self.number()),
        }
    }

    /// A message of the kind.
    pub fn message(&mut self, kind: Kind) -> Any {
        match kind.class() {
            KindClass::Request => Any::Request(self.request(kind)),
            KindClass::Response => Any::Response(self.response(kind)),
            KindClass::Peer => Any::Peer(self.peer(kind)),
        }
    }

    pub fn index(&mut self, count: usize) -> usize {
        self.prng.index(count)
    }

    /// Numbers near the ends of their range, and any.
    fn number(&mut self) -> u64 {
        match self.prng.index(4) {
            0 => 0,
            1 => self.prng.range(0..300),
            2 => u64::MAX - self.prng.range(0..3),
            _ => self.prng.next_u64(),
        }
    }

    fn number32(&mut self) -> u32 {
        self.number() as u32
    }

    fn flag(&mut self) -> bool {
        self.prng.chance_per_mille(500)
    }

    fn maybe<T>(&mut self, draw: impl Fn(&mut Self) -> T) -> Option<T> {
        self.flag().then(|| draw(self))
    }

    fn some<T>(&mut self, at_least: usize, below: usize, draw: impl Fn(&mut Self) -> T) -> &'static [T] {
        let count = at_least + self.prng.index(below - at_least);
        (0..count).map(|_| draw(self)).collect::<Vec<T>>().leak()
    }

    pub fn bytes(&mut self, at_least: usize, below: usize) -> &'static [u8] {
        let mut bytes = vec![0; at_least + self.prng.index(below - at_least)];
        self.prng.fill(&mut bytes);
        bytes.leak()
    }

    fn any_bytes(&mut self) -> &'static [u8] {
        self.bytes(0, 300)
    }

    pub fn key(&mut self) -> &'static [u8] {
        self.bytes(1, 40)
    }

    fn bound(&mut self) -> &'static [u8] {
        self.bytes(0, 40)
    }

    fn text(&mut self) -> &'static str {
        self.prng.choose(&["", "a", "a disk failed", "häuser", "日本", "\0 and \n"]).unwrap()
    }

    fn name(&mut self) -> &'static str {
        self.prng.choose(&["a", "node-1", "häuser", "日本", "x y", "n"]).unwrap()
    }

    fn address(&mut self) -> &'static str {
        self.prng.choose(&["", "10.0.0.1:7700", "[::1]:7700", "db-1.example.org:7700"]).unwrap()
    }

    fn names(&mut self) -> &'static [&'static str] {
        let mut names: Vec<&'static str> = self.some(0, 6, Self::name).to_vec();
        names.sort_unstable();
        names.dedup();
        names.leak()
    }

    fn id16(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.prng.fill(&mut bytes);
        bytes
    }

    fn cluster(&mut self) -> ClusterId {
        ClusterId(self.id16())
    }

    fn trace(&mut self) -> TraceId {
        TraceId(self.id16())
    }

    fn shard(&mut self) -> ShardId {
        ShardId(self.prng.range(0..1024) as u16)
    }

    fn node(&mut self) -> NodeId {
        NodeId(self.prng.range(1..u64::MAX))
    }

    fn replica(&mut self) -> ReplicaId {
        ReplicaId(self.prng.range(1..u64::MAX))
    }

    fn revision(&mut self) -> Revision {
        Revision(self.number())
    }

    fn log_index(&mut self) -> LogIndex {
        LogIndex(self.number())
    }

    fn term(&mut self) -> Term {
        Term(self.number())
    }

    fn node_state(&mut self) -> NodeState {
        use NodeState::{Joining, Learner, Leaving, Other, Voter};
        *self.prng.choose(&[Joining, Learner, Voter, Leaving, Other(0), Other(200)]).unwrap()
    }

    fn read_context(&mut self) -> ReadContext<'static> {
        if self.flag() {
            return ReadContext::default();
        }
        ReadContext {
            deadline_ms: self.number32(),
            revision_seen: self.revision(),
            trace: self.maybe(Self::trace),
            principal: self.maybe(Self::any_bytes),
        }
    }

    fn write_context(&mut self) -> WriteContext<'static> {
        let seq = self.prng.range(1..1000);
        WriteContext {
            session: SessionId(Revision(self.prng.range(1..u64::MAX))),
            seq: SessionSeq(seq),
            acknowledged_below: SessionSeq(self.prng.range(1..seq + 1)),
            deadline_ms: self.number32(),
            revision_seen: self.revision(),
            trace: self.maybe(Self::trace),
            principal: self.maybe(Self::any_bytes),
        }
    }

    fn transact(&mut self) -> Transact<'static> {
        let has_reads = self.flag();
        let reads: &[&[u8]] = if has_reads { self.some(1, 5, Self::key) } else { &[] };
        let ranges: &[KeyRange<'_>] = match has_reads {
            true => self.some(0, 3, |s| KeyRange { from: s.bound(), to: s.bound() }),
            false => &[],
        };
        Transact {
            ctx: self.write_context(),
            conditions: self.some(0, 5, Self::condition).into(),
            reads_at: Revision(if has_reads { self.prng.range(1..u64::MAX) } else { 0 }),
            reads: reads.into(),
            ranges: ranges.into(),
            operations: self.some(1, 6, Self::operation).into(),
            otherwise: self.maybe(|s| s.some(0, 4, Self::operation).into()),
        }
    }

    fn condition(&mut self) -> Condition<'static> {
        let expect = match self.prng.index(5) {
            0 => Expect::Exists,
            1 => Expect::Absent,
            2 => Expect::Revision(Revision(self.prng.range(1..u64::MAX))),
            3 => Expect::Version(self.prng.range(1..u64::MAX)),
            _ => Expect::Value(self.any_bytes()),
        };
        Condition { key: self.key(), expect }
    }

    fn operation(&mut self) -> Operation<'static> {
        let action = match self.prng.index(4) {
            0 => Action::Put {
                value: self.any_bytes(),
                lease: self.number(),
                type_tag: self.number() as u8,
                previous: self.flag(),
            },
            1 => Action::Delete { previous: self.flag() },
            2 => Action::Increment { delta: self.number() as i64 },
            _ => Action::Get,
        };
        Operation { key: self.key(), action }
    }

    fn hello(&mut self) -> Hello<'static> {
        let link = if self.flag() { LinkClass::Control } else { LinkClass::Bulk };
        let role = if self.flag() { Role::Client } else { Role::Peer { node: NodeId(self.number()), link } };
        Hello {
            role,
            version_min: 1 + self.prng.range(0..3) as u16,
            version_max: 3 + self.prng.range(0..9) as u16,
            cluster: self.maybe(Self::cluster),
            auth: self.maybe(|s| Auth { mechanism: s.name(), data: s.any_bytes() }),
            wanted_shard: self.maybe(Self::shard),
            name: self.name(),
        }
    }

    fn request(&mut self, kind: Kind) -> Request<'static> {
        match kind {
            Kind::Hello => Request::Hello(self.hello()),
            Kind::TopologyRequest => Request::Topology,
            Kind::OpenSession => Request::OpenSession(OpenSession { nonce: self.number() }),
            Kind::StatusRequest => Request::Status,
            Kind::ReplaceNode => {
                Request::ReplaceNode(ReplaceNode { name: self.name(), nonce: self.number() })
            }
            Kind::Get => Request::Get(self.get()),
            Kind::GetBatch => Request::GetBatch(GetBatch {
                ctx: self.read_context(),
                keys: self.some(1, 9, Self::key).into(),
                at: self.revision(),
            }),
            Kind::Put => Request::Put(self.put()),
            Kind::PutBatch => Request::PutBatch(PutBatch {
                ctx: self.write_context(),
                items: self.some(1, 9, |s| KeyValue { key: s.key(), value: s.any_bytes() }).into(),
            }),
            Kind::Delete => {
                Request::Delete(Delete { ctx: self.write_context(), keys: self.some(1, 9, Self::key).into() })
            }
            Kind::Transact => Request::Transact(self.transact()),
            Kind::Range => Request::Range(Range {
                ctx: self.read_context(),
                from: self.bound(),
                to: self.bound(),
                after: self.maybe(Self::bound),
                limit: self.number32(),
                bytes: self.number32(),
                keys_only: self.flag(),
                reverse: self.flag(),
                at: self.revision(),
            }),
            other => unreachable!("{other} is not a request"),
        }
    }

    pub fn get(&mut self) -> Get<'static> {
        Get { ctx: self.read_context(), key: self.key(), at: self.revision() }
    }

    pub fn put(&mut self) -> Put<'static> {
        Put {
            ctx: self.write_context(),
            key: self.key(),
            value: self.any_bytes(),
            lease: self.number(),
            type_tag: self.number() as u8,
        }
    }

    fn item(&mut self) -> Item<'static> {
        Item {
            value: self.any_bytes(),
            revision: Revision(self.prng.range(1..u64::MAX)),
            create_revision: self.revision(),
            version: self.number(),
            lease: self.number(),
            type_tag: self.number() as u8,
        }
    }

    fn topology(&mut self) -> Topology<'static> {
        let mut bounds: Vec<u16> =
            (0..self.prng.index(8)).map(|_| self.prng.range(0..SLOTS.into()) as u16).collect();
        bounds.sort_unstable();
        bounds.dedup();
        let ranges = bounds.windows(2).map(|pair| SlotRange {
            first: SlotNo(pair[0]),
            last: SlotNo(pair[1] - 1),
            shard: ShardId(pair[0] % 1024),
        });
        Topology {
            epoch: SlotEpoch(self.number()),
            shard_count: self.prng.range(0..1025) as u16,
            slots: (&*ranges.collect::<Vec<_>>().leak()).into(),
            shards: self
                .some(0, 9, |s| ShardPlace {
                    shard: s.shard(),
                    leader: s.maybe(Self::node),
                    term: s.term(),
                    core: CoreId(s.number() as u16),
                })
                .into(),
            nodes: self.nodes(),
        }
    }

    fn nodes(&mut self) -> List<'static, NodeEntry<'static>> {
        self.some(0, 9, |s| NodeEntry {
            id: NodeId(s.number()),
            name: s.name(),
            address: s.address(),
            state: s.node_state(),
        })
        .into()
    }

    fn members(&mut self) -> List<'static, Member> {
        self.some(0, 6, |s| Member { replica: s.replica(), node: s.node() }).into()
    }

    fn replica_status(&mut self) -> ReplicaStatus<'static> {
        use ReplicaRole::{Candidate, Follower, Leader, Learner, PreCandidate, Witness};
        use ReplicaState::{Damaged, ReadOnly, ReceivingSnapshot, Recovering, Serving, Stopped};
        let roles = [Follower, PreCandidate, Candidate, Leader, Learner, Witness, ReplicaRole::Other(77)];
        let states =
            [Recovering, Serving, ReceivingSnapshot, ReadOnly, Damaged, Stopped, ReplicaState::Other(99)];
        ReplicaStatus {
            shard: self.shard(),
            core: CoreId(self.number() as u16),
            replica: self.replica(),
            role: *self.prng.choose(&roles).unwrap(),
            term: self.term(),
            leader: self.maybe(Self::node),
            commit: self.log_index(),
            applied: self.log_index(),
            first_index: self.log_index(),
            last_index: self.log_index(),
            checkpoint: CheckpointNo(self.number()),
            checkpoint_applied: self.log_index(),
            store_bytes: self.number(),
            keys: self.number(),
            log_bytes: self.number(),
            resident_bytes: self.number(),
            dirty_bytes: self.number(),
            sessions: self.number32(),
            state: *self.prng.choose(&states).unwrap(),
            detail: self.text(),
            voters: self.members(),
            learners: self.members(),
        }
    }

    fn status(&mut self) -> StatusAnswer<'static> {
        StatusAnswer {
            node: NodeId(self.number()),
            name: self.name(),
            address: self.address(),
            software: self.text(),
            cluster: self.maybe(Self::cluster),
            uptime_ms: self.number(),
            cores: self.number() as u16,
            memory_budget_bytes: self.number(),
            memory_used_bytes: self.number(),
            peers_reachable: self.number32(),
            replicas: self.some(0, 5, Self::replica_status).into(),
        }
    }

    fn response(&mut self, kind: Kind) -> Response<'static> {
        match kind {
            Kind::HelloAnswer => Response::Hello(HelloAnswer {
                version: self.number() as u16,
                cluster: self.maybe(Self::cluster),
                node: NodeId(self.number()),
                node_name: self.name(),
                auth: self.maybe(Self::any_bytes),
                topology: self.maybe(Self::topology),
            }),
            Kind::Topology => Response::Topology(self.topology()),
            Kind::SessionOpened => {
                Response::SessionOpened(SessionOpened { session: SessionId(self.revision()) })
            }
            Kind::StatusAnswer => Response::Status(self.status()),
            Kind::ReplaceAnswer => Response::Replace(ReplaceAnswer {
                node: self.node(),
                replica: self.replica(),
                state: self.node_state(),
            }),
            Kind::GetAnswer => {
                Response::Get(GetAnswer { item: self.maybe(Self::item), revision: self.revision() })
            }
            Kind::GetBatchAnswer => Response::GetBatch(GetBatchAnswer {
                items: self.some(0, 9, |s| s.maybe(Self::item)).into(),
                revision: self.revision(),
            }),
            Kind::Written => Response::Written(Written { revision: self.revision() }),
            Kind::Deleted => {
                Response::Deleted(Deleted { revision: self.revision(), deleted: self.number32() })
            }
            Kind::RangeAnswer => Response::Range(RangeAnswer {
                items: self.some(0, 9, |s| RangeItem { key: s.key(), item: s.item() }).into(),
                more: self.flag(),
                revision: self.revision(),
            }),
            Kind::Transacted => Response::Transacted(Transacted {
                revision: self.revision(),
                branch: if self.flag() { Branch::Operations } else { Branch::Otherwise },
                results: self.some(0, 9, |s| s.maybe(Self::item)).into(),
                forgotten: self.flag(),
            }),
            Kind::Error => {
                let errors = self.errors();
                Response::Error(self.prng.choose(&errors).unwrap().clone())
            }
            other => unreachable!("{other} is not an answer"),
        }
    }

    /// One of each error.
    pub fn errors(&mut self) -> Vec<Error> {
        let leader = self.maybe(|s| LeaderAt { node: s.node(), address: s.address().into() });
        vec![
            Error::NotLeader { shard: self.shard(), leader },
            Error::WrongEpoch { epoch: SlotEpoch(self.number()) },
            Error::WrongShard { shard: self.shard() },
            Error::Overloaded { retry_after_ms: self.number32() },
            Error::Conflict { key: Bytes::from_static(self.key()), revision: self.revision() },
            Error::Locked,
            Error::Compacted { oldest: self.revision() },
            Error::TooLarge { what: self.text().into(), limit: self.number(), actual: self.number() },
            Error::EmptyKey,
            Error::NoSpace,
            Error::NoQuorum,
            Error::Unknown,
            Error::UnknownSession,
            Error::SessionWindow { limit: self.number32() },
            Error::DeadlineExceeded,
            Error::Unauthenticated,
            Error::PermissionDenied { key: Bytes::from_static(self.any_bytes()) },
            Error::Malformed { what: self.text().into() },
            Error::Unsupported { version_min: self.number() as u16, version_max: self.number() as u16 },
            Error::NotReady { why: self.text().into() },
            Error::ShuttingDown,
            Error::WrongCluster { theirs: self.cluster(), ours: self.cluster() },
            Error::Damaged { what: self.text().into() },
            Error::NotFound { what: self.text().into() },
            Error::Internal { what: self.text().into() },
            Error::WrongType { key: Bytes::from_static(self.key()), what: self.text().into() },
        ]
    }

    fn replicas(&mut self) -> List<'static, ReplicaId> {
        self.some(0, 6, Self::replica).into()
    }

    fn snapshot_meta(&mut self) -> SnapshotMeta<'static> {
        SnapshotMeta {
            index: self.log_index(),
            term: self.term(),
            conf: ConfState {
                voters: self.replicas(),
                learners: self.replicas(),
                voters_outgoing: self.replicas(),
                learners_next: self.replicas(),
                auto_leave: self.flag(),
            },
        }
    }

    fn entry(&mut self) -> RaftEntry<'static> {
        RaftEntry {
            index: self.log_index(),
            term: self.term(),
            entry_type: self.number() as u8,
            data: self.any_bytes(),
            context: self.bytes(0, 4),
        }
    }

    fn raft_message(&mut self) -> RaftMessage<'static> {
        RaftMessage {
            shard: self.shard(),
            from: self.replica(),
            to: self.replica(),
            msg_type: self.number() as u8,
            term: self.term(),
            log_term: self.term(),
            index: self.log_index(),
            commit: self.log_index(),
            commit_term: self.term(),
            reject: self.flag(),
            reject_hint: self.log_index(),
            request_snapshot: self.log_index(),
            priority: self.number() as i64,
            context: self.bytes(0, 20),
            entries: self.some(0, 9, Self::entry).into(),
            snapshot: self.maybe(|s| RaftSnapshot { meta: s.snapshot_meta(), data: s.any_bytes() }),
        }
    }

    fn probe(&mut self) -> NodeProbe<'static> {
        use ProbeState::{Born, Empty, Forming, Joining};
        let state = *self.prng.choose(&[Empty, Forming, Joining, Born]).unwrap();
        let (node, version) = if state == Born { (self.node(), self.number()) } else { (NodeId(0), 0) };
        NodeProbe {
            address: self.address(),
            members: self.names().into(),
            shard_count: self.prng.range(0..1025) as u16,
            state,
            cluster: matches!(state, Forming | Born).then(|| self.cluster()),
            node,
            version,
        }
    }

    fn birth_propose(&mut self) -> BirthPropose<'static> {
        let mut names = self.names();
        if names.is_empty() {
            names = &["a"];
        }
        let members = names.iter().map(|name| BirthMember { name, address: self.address() });
        BirthPropose {
            members: (&*members.collect::<Vec<_>>().leak()).into(),
            cluster: self.cluster(),
            shard_count: self.prng.range(1..1025) as u16,
        }
    }

    fn checkpoint(&mut self) -> CheckpointNo {
        CheckpointNo(self.number().max(1))
    }

    fn snapshot_status(&mut self) -> SnapshotStatus<'static> {
        let position = self.flag().then(|| self.bytes(1, SNAPSHOT_POSITION_BYTES_MAX));
        match self.prng.index(5) {
            0 => SnapshotStatus::Ok(position),
            1 => SnapshotStatus::Resume(position),
            2 => SnapshotStatus::Failed,
            3 => SnapshotStatus::Done(self.snapshot_meta()),
            _ => SnapshotStatus::Elsewhere(self.snapshot_meta()),
        }
    }

    fn directory(&mut self) -> &'static [u8] {
        self.bytes(1, 300)
    }

    fn peer(&mut self, kind: Kind) -> PeerMessage<'static> {
        match kind {
            Kind::Raft => PeerMessage::Raft(Raft {
                newest_revision: self.revision(),
                messages: self.some(0, 6, Self::raft_message).into(),
            }),
            Kind::SnapshotChunk => PeerMessage::SnapshotChunk(SnapshotChunk {
                shard: self.shard(),
                from: self.replica(),
                to: self.replica(),
                checkpoint: self.checkpoint(),
                meta: self.snapshot_meta(),
                bytes: self.any_bytes(),
            }),
            Kind::SnapshotAck => PeerMessage::SnapshotAck(SnapshotAck {
                shard: self.shard(),
                from: self.replica(),
                to: self.replica(),
                checkpoint: self.checkpoint(),
                index: LogIndex(self.number()),
                status: self.snapshot_status(),
            }),
            Kind::SnapshotOffer => PeerMessage::SnapshotOffer(SnapshotOffer {
                shard: self.shard(),
                from: self.replica(),
                to: self.replica(),
                checkpoint: self.checkpoint(),
                least: LogIndex(self.number()),
                meta: self.snapshot_meta(),
            }),
            Kind::NodeProbe => PeerMessage::Probe(self.probe()),
            Kind::NodeProbeAnswer => PeerMessage::ProbeAnswer(self.probe()),
            Kind::BirthPropose => PeerMessage::BirthPropose(self.birth_propose()),
            Kind::BirthAccept => PeerMessage::BirthAccept(BirthAccept { cluster: self.cluster() }),
            Kind::BirthDecided => PeerMessage::BirthDecided(BirthDecided { directory: self.directory() }),
            Kind::JoinRequest => {
                PeerMessage::JoinRequest(JoinRequest { address: self.address(), attempt: self.number() })
            }
            Kind::JoinAnswer => PeerMessage::JoinAnswer(JoinAnswer {
                attempt: self.number(),
                node: self.node(),
                directory: self.directory(),
            }),
            Kind::Directory => PeerMessage::Directory(Directory { bytes: self.directory() }),
            Kind::Ping => PeerMessage::Ping(Ping { stamp: self.number() }),
            Kind::Pong => PeerMessage::Pong(Ping { stamp: self.number() }),
            other => unreachable!("{other} is not a peer's message"),
        }
    }
}
