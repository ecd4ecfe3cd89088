//! A node: the newest record of each key, durably.
//!
//! Invariants:
//! - What a node answers is durable: a record is in `records` only once it is.
//! - A record lies in the first sector of its block, so a crash keeps all of it or nothing.

use std::collections::VecDeque;

use bytes::Bytes;
use mesh_base::bytesio::{Reader, Writer};
use mesh_base::io::{Completion, FileId, IoErrorKind, IoOp, IoPort, IoQueue, IoValue, Lane};
use mesh_base::limits::SECTOR_BYTES;

use super::message::Message;
use super::{Flaw, KEYS_MAX, Record, Records};

const FILE: FileId = FileId::Store;

#[derive(Debug)]
pub(super) struct Node {
    flaw: Flaw,
    port: IoPort,
    phase: Phase,
    records: Records,
    /// Stores that wait for the one on its way to the disk.
    waiting: VecDeque<Store>,
}

#[derive(Clone, Copy, Debug)]
struct Store {
    client: usize,
    round: u64,
    key: u64,
    record: Record,
}

/// What the node waits for.
#[derive(Clone, Copy, Debug)]
enum Phase {
    Creating,
    SyncingFile,
    SyncingDirectory,
    Reading,
    Idle,
    Writing(Store),
    Syncing(Store),
}

type Answers = Vec<(usize, Message)>;

impl Node {
    /// A node begins with the file it finds, or an empty one.
    pub(super) fn start(flaw: Flaw, io: &mut IoQueue) -> Self {
        let mut port = IoPort::new(Lane::Store);
        port.submit(io, IoOp::Create { file: FILE });
        Self { flaw, port, phase: Phase::Creating, records: Records::new(), waiting: VecDeque::new() }
    }

    pub(super) fn receive(&mut self, client: usize, message: Message, io: &mut IoQueue) -> Answers {
        match (self.phase, message) {
            (Phase::Creating | Phase::SyncingFile | Phase::SyncingDirectory | Phase::Reading, _) => vec![],
            (_, Message::Query { round, key }) => {
                let record = self.records.get(&key).copied().unwrap_or_default();
                vec![(client, Message::Newest { round, record })]
            }
            (_, Message::Store { round, key, record }) => {
                self.waiting.push_back(Store { client, round, key, record });
                if matches!(self.phase, Phase::Idle) { self.store_next(io) } else { vec![] }
            }
            (_, Message::Newest { .. } | Message::Stored { .. }) => unreachable!("an answer to a node"),
        }
    }

    /// The caller ends the node after a completion that is a failure.
    pub(super) fn complete(&mut self, completion: &Completion, io: &mut IoQueue) -> Answers {
        let next = match (self.phase, &completion.result) {
            (Phase::Creating, Err(error)) if error.kind == IoErrorKind::Exists => self.begin_sync(),
            (Phase::Creating, Ok(_)) => self.begin_sync(),
            (_, Err(_)) => return vec![],
            (Phase::SyncingFile, Ok(_)) if self.flaw == Flaw::NoDirectorySync => self.begin_read(),
            (Phase::SyncingFile, Ok(_)) => (Phase::SyncingDirectory, IoOp::SyncDirectory),
            (Phase::SyncingDirectory, Ok(_)) => self.begin_read(),
            (Phase::Reading, Ok(value)) => {
                self.load(value);
                return self.store_next(io);
            }
            (Phase::Writing(store), Ok(_)) if self.flaw == Flaw::NoSync => return self.stored(store, io),
            (Phase::Writing(store), Ok(_)) => (Phase::Syncing(store), IoOp::Sync { file: FILE }),
            (Phase::Syncing(store), Ok(_)) => return self.stored(store, io),
            (Phase::Idle, Ok(_)) => unreachable!("a completion of nothing"),
        };
        self.phase = next.0;
        self.port.submit(io, next.1);
        vec![]
    }

    /// What a killed process left is read by this one and not durable yet.
    fn begin_sync(&self) -> (Phase, IoOp) {
        if self.flaw == Flaw::TrustsWhatItReads {
            return (Phase::SyncingDirectory, IoOp::SyncDirectory);
        }
        (Phase::SyncingFile, IoOp::Sync { file: FILE })
    }

    fn begin_read(&self) -> (Phase, IoOp) {
        (Phase::Reading, IoOp::Read { file: FILE, offset: 0, length: KEYS_MAX * SECTOR_BYTES })
    }

    fn load(&mut self, value: &IoValue) {
        let IoValue::Read(bytes) = value else { unreachable!("a read brings bytes") };
        for (key, block) in (0..).zip(bytes.chunks(SECTOR_BYTES)) {
            if let Some(record) = Record::read(&mut Reader::new(block)) {
                self.records.insert(key, record);
            }
        }
    }

    fn stored(&mut self, store: Store, io: &mut IoQueue) -> Answers {
        self.records.insert(store.key, store.record);
        let mut answers = vec![(store.client, Message::Stored { round: store.round })];
        answers.extend(self.store_next(io));
        answers
    }

    /// Answers the stores that have nothing new, up to the first that has.
    fn store_next(&mut self, io: &mut IoQueue) -> Answers {
        let mut answers = vec![];
        self.phase = Phase::Idle;
        while let Some(store) = self.waiting.pop_front() {
            if self.records.get(&store.key).is_some_and(|known| known.version >= store.record.version) {
                answers.push((store.client, Message::Stored { round: store.round }));
                continue;
            }
            let mut block = Vec::with_capacity(SECTOR_BYTES);
            store.record.write(&mut block);
            block.pad_to(SECTOR_BYTES);
            let offset = store.key * SECTOR_BYTES as u64;
            self.port.submit(io, IoOp::Write { file: FILE, offset, data: Bytes::from(block) });
            self.phase = Phase::Writing(store);
            break;
        }
        answers
    }
}
