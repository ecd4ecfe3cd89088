//! A server of one core without a host: requests in, answers out, its files in memory. For what is counted in instructions.
//!
//! It is the whole pure server: frames are decoded and checked, commands evaluated and replicated (to itself), entries appended
//! and applied, answers encoded. What is not there is sockets, the disk and the kernel.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mesh_base::io::{Completion, FileId, IoError, IoErrorKind, IoOp, IoValue, Submission};
use mesh_base::limits::TICK;
use mesh_base::prng::Prng;
use mesh_base::{CoreId, Instant, Now, SessionId, SessionSeq, ShardId, WallMillis};
use mesh_engine::MemoryAhead;
use mesh_server::core::{
    ConnId, Core, CoreEffect, CoreEvent, CoreOptions, DirectoryKey, NodeName, PanicPolicy,
};
use mesh_server::node::NodeConfig;
use mesh_server::shard::ShardOptions;
use mesh_wire::{
    Envelope, Frame, FrameDecoder, FrameWriter, Get, OpenSession, Put, Request, RequestId, Response,
    WriteContext,
};

/// Memory of the server: nothing of what is counted leaves it.
const MEMORY_BYTES: u64 = 2 << 30;
/// Turns that a server may take to answer.
const TURNS_MAX: usize = 10_000;
/// A year of this project's clock.
const WALL: WallMillis = WallMillis(1_800_000_000_000);

/// See the module.
pub(super) struct ResidentServer {
    core: Core,
    events: Vec<CoreEvent>,
    effects: Vec<CoreEffect>,
    files: Files,
    answers: Vec<Bytes>,
    now: Instant,
    writer: FrameWriter,
    request: u64,
    session: SessionId,
    written: SessionSeq,
}

impl ResidentServer {
    /// A server whose shard has these keys, each with this value.
    ///
    /// # Errors
    /// What it answers instead of what it should.
    pub(super) fn load(keys: &[[u8; 16]], value: &[u8]) -> Result<Self, String> {
        let config = NodeConfig {
            name: NodeName::from("a"),
            listen: "127.0.0.1:0".into(),
            advertise: "127.0.0.1:7700".into(),
            peers: Vec::new(),
            data: std::path::PathBuf::new(),
            cpus: vec![0],
            shards: Some(1),
            memory_bytes: MEMORY_BYTES,
            snapshot_bytes_per_second: 1,
        };
        let options = CoreOptions {
            config: Arc::new(config),
            shard: Some(Arc::new(ShardOptions::for_memory(MEMORY_BYTES))),
            memory: MemoryAhead::default(),
            panics: PanicPolicy::Propagate,
        };
        let mut this = Self {
            core: Core::new(options, CoreId(0), Prng::new(1)),
            events: Vec::new(),
            effects: Vec::new(),
            files: Files::default(),
            answers: Vec::new(),
            now: Instant(0),
            writer: FrameWriter::new(),
            request: 0,
            session: SessionId::default(),
            written: SessionSeq(0),
        };
        this.core.start(this.now(), &mut this.effects);
        this.open_session()?;
        for keys in keys.chunks(16) {
            this.put(keys, value)?;
        }
        Ok(this)
    }

    /// Reads keys, each by a request of its own, all of them in one turn.
    ///
    /// # Errors
    /// An answer that has no value.
    pub(super) fn get(&mut self, keys: &[[u8; 16]]) -> Result<(), String> {
        for key in keys {
            self.ask(&Request::Get(Get { key, ..Get::default() }))?;
        }
        self.settle(keys.len(), |response| matches!(response, Response::Get(get) if get.item.is_some()))
    }

    /// Writes keys, each by a request of its own, all of them in one turn.
    ///
    /// # Errors
    /// An answer that is none to a write.
    pub(super) fn put(&mut self, keys: &[[u8; 16]], value: &[u8]) -> Result<(), String> {
        let acknowledged_below = SessionSeq(self.written.0 + 1);
        for key in keys {
            self.written = SessionSeq(self.written.0 + 1);
            let ctx = WriteContext {
                session: self.session,
                seq: self.written,
                acknowledged_below,
                ..WriteContext::default()
            };
            self.ask(&Request::Put(Put { ctx, key, value, ..Put::default() }))?;
        }
        self.settle(keys.len(), |response| matches!(response, Response::Written(_)))
    }

    /// Opens a session as soon as the server takes requests.
    fn open_session(&mut self) -> Result<(), String> {
        for _ in 0..TURNS_MAX {
            self.ask(&Request::OpenSession(OpenSession { nonce: 1 }))?;
            while self.answers.is_empty() {
                self.turn();
            }
            let answers = std::mem::take(&mut self.answers);
            for answer in &answers {
                if let Ok(Response::SessionOpened(opened)) = frame_of(answer)?.response() {
                    self.session = opened.session;
                    return Ok(());
                }
            }
            self.turn();
        }
        Err("the server never opened a session".into())
    }

    /// Lets turns pass until so many requests are answered as they should be.
    fn settle(&mut self, count: usize, is_right: impl Fn(&Response<'_>) -> bool) -> Result<(), String> {
        for _ in 0..TURNS_MAX {
            if self.answers.len() >= count {
                break;
            }
            self.turn();
        }
        let answers = std::mem::take(&mut self.answers);
        if answers.len() != count {
            return Err(format!("{} answers to {count} requests", answers.len()));
        }
        for answer in &answers {
            let frame = frame_of(answer)?;
            match frame.response() {
                Ok(response) if is_right(&response) => {}
                other => return Err(format!("{other:?}")),
            }
        }
        Ok(())
    }

    fn ask(&mut self, request: &Request<'_>) -> Result<(), String> {
        self.request += 1;
        let request_id = RequestId(self.request);
        let envelope = Envelope { request: request_id, shard: Some(ShardId(0)), ..Envelope::default() };
        let frame = self.writer.frame(&envelope, request).map_err(|error| error.to_string())?;
        let frame = frame_of(&frame)?;
        self.events.push(CoreEvent::Request { conn: ConnId(1), frame });
        Ok(())
    }

    /// One turn, in which every file operation of the last one ends and a tick passes if there is nothing else.
    fn turn(&mut self) {
        if self.events.is_empty() {
            self.now = self.now + TICK;
            self.events.push(CoreEvent::Tick);
        }
        self.now = self.now + Duration::from_micros(10);
        let now = self.now();
        self.core.step(now, &mut self.events, &mut self.effects);
        for effect in self.effects.drain(..) {
            match effect {
                CoreEffect::Io { directory, submission } => {
                    let completion = self.files.perform(directory, submission);
                    self.events.push(CoreEvent::Io { directory, completion });
                }
                CoreEffect::Reply { frame, .. } => self.answers.push(frame),
                _ => {}
            }
        }
    }

    fn now(&self) -> Now {
        Now { monotonic: self.now, wall: WallMillis(WALL.0 + self.now.0 / 1_000_000) }
    }
}

fn frame_of(bytes: &[u8]) -> Result<Frame, String> {
    let mut buffer = BytesMut::from(bytes);
    let frame = FrameDecoder::new().decode(&mut buffer).map_err(|error| error.to_string())?;
    frame.ok_or_else(|| "half a frame".into())
}

/// Files in memory.
#[derive(Default)]
struct Files(BTreeMap<(DirectoryKey, FileId), Vec<u8>>);

impl Files {
    fn perform(&mut self, directory: DirectoryKey, Submission { token, op }: Submission) -> Completion {
        Completion { token, result: self.value_of(directory, &op) }
    }

    fn value_of(&mut self, directory: DirectoryKey, op: &IoOp) -> Result<IoValue, IoError> {
        let missing = || IoError {
            kind: IoErrorKind::NotFound,
            verb: op.verb(),
            file: op.file(),
            detail: "not made".into(),
        };
        match op {
            IoOp::List => {
                let files = self.0.iter().filter(|((of, _), _)| *of == directory);
                Ok(IoValue::Listing(files.map(|((_, file), bytes)| (*file, bytes.len() as u64)).collect()))
            }
            IoOp::Create { file } => {
                self.0.insert((directory, *file), Vec::new());
                Ok(IoValue::Done)
            }
            IoOp::Remove { file } => {
                self.0.remove(&(directory, *file));
                Ok(IoValue::Done)
            }
            IoOp::Rename { from, to } => {
                let bytes = self.0.remove(&(directory, *from)).ok_or_else(missing)?;
                self.0.insert((directory, *to), bytes);
                Ok(IoValue::Done)
            }
            IoOp::Sync { .. } | IoOp::SyncDirectory => Ok(IoValue::Done),
            IoOp::Allocate { file, offset, length } => {
                let bytes = self.0.get_mut(&(directory, *file)).ok_or_else(missing)?;
                let end = place(offset + length);
                bytes.resize(bytes.len().max(end), 0);
                Ok(IoValue::Done)
            }
            IoOp::Truncate { file, length } => {
                self.0.get_mut(&(directory, *file)).ok_or_else(missing)?.truncate(place(*length));
                Ok(IoValue::Done)
            }
            IoOp::Write { file, offset, data } => {
                let bytes = self.0.get_mut(&(directory, *file)).ok_or_else(missing)?;
                let (start, end) = (place(*offset), place(*offset) + data.len());
                bytes.resize(bytes.len().max(end), 0);
                if let Some(there) = bytes.get_mut(start..end) {
                    there.copy_from_slice(data);
                }
                Ok(IoValue::Done)
            }
            IoOp::Read { file, offset, length } => {
                let bytes = self.0.get(&(directory, *file)).ok_or_else(missing)?;
                let start = place(*offset).min(bytes.len());
                let end = (start + length).min(bytes.len());
                Ok(IoValue::Read(Bytes::copy_from_slice(bytes.get(start..end).unwrap_or_default())))
            }
        }
    }
}

fn place(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}
