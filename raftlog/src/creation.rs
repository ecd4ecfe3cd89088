//! Makes the log of a new replica: its first segment.

use std::collections::VecDeque;

use mesh_base::io::{Completion, IoOp, IoPort, IoQueue, IoToken, IoValue, Lane};
use mesh_base::prng::Prng;
use mesh_base::{ReplicaIdentity, SegmentNo};
use raft::eraftpb::HardState;

use crate::base::{Ballot, Base, CheckpointMark, EntryPosition};
use crate::begin::{Beginning, Begun, WhenFull};
use crate::contents::{Contents, Locations, TermRuns};
use crate::error::LogError;
use crate::footer::Footer;
use crate::format::segment::{Cut, SegmentHeader, Standing};
use crate::log::{Log, Parts};
use crate::options::LogOptions;
use crate::purge::Purge;
use crate::recovery::Files;
use crate::switch::draw_salt;

/// What a new log starts from.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct FirstState {
    /// The entry before the log's first; 0 and 0 for a replica that starts from nothing.
    pub truncated: EntryPosition,
    /// The hard state. Its commit index is brought within the log.
    pub hard_state: HardState,
    /// The checkpoint of the page store that the log goes on from.
    pub checkpoint: CheckpointMark,
}

#[derive(Debug)]
enum Step {
    SyncingDirectory(IoToken),
    Listing(IoToken),
    Beginning(Purge, Box<Beginning>),
    Over,
}

/// A creation under way. Cut short by a crash it leaves no log, or the whole of it.
#[derive(Debug)]
pub struct Creation {
    identity: ReplicaIdentity,
    options: LogOptions,
    prng: Prng,
    port: IoPort,
    base: Base,
    step: Step,
}

impl Creation {
    /// Begins to make a log. The generator is the log's from then on.
    ///
    /// # Panics
    /// When the options contradict each other: a bug of the caller.
    pub fn start(
        identity: ReplicaIdentity,
        options: LogOptions,
        first: &FirstState,
        prng: Prng,
        io: &mut IoQueue,
    ) -> Self {
        options.assert_consistent();
        let mut port = IoPort::new(Lane::Log);
        let mut base = Base {
            ballot: Ballot::from(&first.hard_state),
            truncated: first.truncated,
            last: first.truncated,
            first_segment: SegmentNo(1),
            checkpoint: first.checkpoint,
            install: None,
        };
        base.ballot.commit = base.commit_within_log();
        assert!(base.is_consistent());
        let step = Step::SyncingDirectory(port.submit(io, IoOp::SyncDirectory));
        Self { identity, options, prng, port, base, step }
    }

    /// Takes the completion of an operation that this creation submitted; answers the log when it exists.
    ///
    /// # Errors
    /// [`LogError::AlreadyExists`] if there is a log, [`LogError::NoSpace`], [`LogError::Io`]; the creation is over
    /// then. [`LogError::Poisoned`] after its end.
    ///
    /// # Panics
    /// When the operation is not this creation's: a bug of the caller.
    pub fn complete(&mut self, completion: Completion, io: &mut IoQueue) -> Result<Option<Log>, LogError> {
        let Completion { token, result } = completion;
        match std::mem::replace(&mut self.step, Step::Over) {
            Step::SyncingDirectory(expected) => {
                assert_eq!(expected, token, "a completion of what was never submitted");
                result?;
                self.step = Step::Listing(self.port.submit(io, IoOp::List));
                Ok(None)
            }
            Step::Listing(expected) => {
                assert_eq!(expected, token, "a completion of what was never submitted");
                let value = result?;
                let listing = if let IoValue::Listing(files) = value { files } else { Vec::new() };
                self.begin(Files::of(&listing, &self.options), io)?;
                Ok(None)
            }
            Step::Beginning(purge, beginning) => {
                match beginning.complete(token, result.map(drop), &mut self.port, io)? {
                    Begun::NotYet(beginning) => {
                        self.step = Step::Beginning(purge, beginning);
                        Ok(None)
                    }
                    Begun::Done(active, spares) => Ok(Some(Log::assemble(Parts {
                        identity: self.identity,
                        options: self.options.clone(),
                        prng: self.prng.clone(),
                        port: std::mem::replace(&mut self.port, IoPort::new(Lane::Log)),
                        contents: Contents::new(self.base, &TermRuns::default(), Locations::new()),
                        active,
                        cut: Cut::default(),
                        footer_before: Footer::default(),
                        sealed: VecDeque::new(),
                        spares,
                        purge,
                        damages: 0,
                    }))),
                }
            }
            Step::Over => Err(LogError::Poisoned { cause: "the creation is over".into() }),
        }
    }

    fn begin(&mut self, files: Files, io: &mut IoQueue) -> Result<(), LogError> {
        if let Some(file) = files.newest() {
            return Err(LogError::AlreadyExists { file });
        }
        let segment = self.base.first_segment;
        let salt = draw_salt(&mut self.prng, segment, 0);
        let (cut, footer, terms) = (Cut::default(), Footer::default(), TermRuns::default());
        let standing = Standing { cut, footer, base: self.base, terms };
        let header = SegmentHeader::new(self.identity, segment, salt, standing);
        let beginning =
            Beginning::start(header, files.leftovers(), WhenFull::Fail, &self.options, &mut self.port, io);
        self.step = Step::Beginning(files.purge(), beginning);
        Ok(())
    }
}
