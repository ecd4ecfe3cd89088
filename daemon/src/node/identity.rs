//! The identity file: who this node is, kept in its own directory.
//!
//! Two copies of [`SLOT_BYTES`] each; a change writes first the one and then the other, never the newest, and counts only
//! when both are durable: a crash leaves the old state or the new one, and the damage of one copy never brings back an
//! older state than the last that counted. What is read at the start is written again, over the other copy, before it
//! counts: what a write that failed left behind can be read and may yet be lost. A copy: magic u32, format u16, least reader u16, sequence
//! u64, payload length u32, CRC-32 u32 of all but this field, payload.
//!
//! Invariants:
//! - A state is acted on (told to a peer, files created for it) only after it is durable.
//! - A node that is born stays born: no state follows [`IdentityState::Born`] but Born of the same node.

use bytes::Bytes;
use mesh_base::bytesio::{Reader, Writer};
use mesh_base::checksum::crc32;
use mesh_base::io::{
    Completion, FileId, IoError, IoErrorKind, IoOp, IoPort, IoQueue, IoToken, IoValue, Lane,
};
use mesh_base::limits::{NODE_NAME_BYTES_MAX, SECTOR_BYTES};
use mesh_base::{ClusterId, NodeId};

use super::directory::Directory;
use crate::core::{NodeName, Origin};

/// Bytes of one copy: room for the directory of the largest cluster.
pub const SLOT_BYTES: usize = 16 * SECTOR_BYTES;
const MAGIC: u32 = 0x4448_534d;
const FORMAT_VERSION: u16 = 1;
const HEADER_BYTES: usize = 24;

/// What a node knows of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IdentityState {
    /// Nothing: it was never part of a cluster, or its directory was wiped.
    Empty,
    /// It promised to be born into this cluster and no other while all the named nodes agree.
    Forming {
        /// The cluster to be.
        cluster: ClusterId,
    },
    /// It asked, or is about to ask, for its id in a cluster that replaced it.
    Joining {
        /// Names this attempt; an id is told to one attempt only.
        attempt: u64,
    },
    /// It belongs to a cluster.
    Born(Box<Born>),
}

impl IdentityState {
    /// Whether it is that of a node with all its replicas, which only the cluster's changes change from now on.
    pub(super) fn is_settled(&self) -> bool {
        matches!(self, Self::Born(born) if born.files == Files::Complete)
    }
}

/// A node that belongs to a cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Born {
    /// Its id.
    pub node: NodeId,
    /// Where its replicas' first state comes from.
    pub origin: Origin,
    /// Whether the files of all its replicas exist. Before that no replica takes part in anything.
    pub files: Files,
    /// The cluster as last known.
    pub directory: Directory,
}

/// Whether a node's replicas have their files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Files {
    /// Some may; what is there was never used and is made anew.
    Incomplete,
    /// All do; one that is missing was lost.
    Complete,
}

/// Why an identity cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IdentityError {
    /// Another node's directory.
    #[error(
        "the data directory belongs to node `{found}`, not to `{expected}`: give --data another directory"
    )]
    OtherNode {
        /// The name in the file.
        found: NodeName,
        /// The name configured.
        expected: NodeName,
    },
    /// A newer format.
    #[error(
        "the data directory was written by a newer Mesh (identity format {found}, this one reads up to {supported}): upgrade"
    )]
    Newer {
        /// The least format that can read it.
        found: u16,
        /// The newest this program knows.
        supported: u16,
    },
    /// Neither copy is whole.
    #[error(
        "node/identity is damaged (no valid copy at offset 0 or {SLOT_BYTES}): restore the directory, or remove it and run `mesh node replace {0}`"
    )]
    Damaged(NodeName),
    /// There is no space for the file. Nothing was changed; the state can be written again.
    #[error("there is no space for the identity file")]
    NoSpace {
        /// What was to be written.
        state: Box<IdentityState>,
    },
    /// The disk failed.
    #[error("the identity file cannot be read or written: {0}")]
    Io(#[from] IoError),
}

/// Reads and writes the identity file.
#[derive(Debug)]
pub struct IdentityFile {
    name: NodeName,
    port: IoPort,
    sequence: u64,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Reading(IoToken),
    Creating { token: IoToken, state: IdentityState },
    NamingDurable { token: IoToken, state: IdentityState },
    Idle { exists: FileExists },
    Writing { token: IoToken, state: IdentityState, left: CopiesLeft },
}

/// What is to be written after a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum CopiesLeft {
    One,
    None,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum FileExists {
    Yes,
    /// Or its name may not be durable.
    No,
}

impl IdentityFile {
    /// Begins to read the identity of the node named `name`.
    pub fn open(name: NodeName, io: &mut IoQueue) -> Self {
        let mut port = IoPort::new(Lane::Node);
        let token = port.submit(io, IoOp::Read { file: FileId::Identity, offset: 0, length: 2 * SLOT_BYTES });
        Self { name, port, sequence: 0, step: Step::Reading(token) }
    }

    /// Begins to write a state. One at a time.
    ///
    /// # Panics
    /// When another write or the first read is still under way: a bug of the caller.
    pub fn write(&mut self, state: IdentityState, io: &mut IoQueue) {
        let Step::Idle { exists } = self.step else { panic_busy() };
        self.step = match exists {
            FileExists::No => {
                Step::Creating { token: self.port.submit(io, IoOp::Create { file: FileId::Identity }), state }
            }
            FileExists::Yes => self.writing(state, CopiesLeft::One, io),
        };
    }

    /// Whether a write may begin.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        matches!(self.step, Step::Idle { .. })
    }

    /// Writes the copy that is not the newest.
    fn writing(&mut self, state: IdentityState, left: CopiesLeft, io: &mut IoQueue) -> Step {
        self.sequence += 1;
        let slot = encode_slot(&self.name, self.sequence, &state);
        let (offset, data) = if self.sequence == 1 {
            // The whole file, so that no later write needs space.
            (0, Bytes::from([vec![0; SLOT_BYTES], slot.to_vec()].concat()))
        } else {
            ((self.sequence % 2) * SLOT_BYTES as u64, slot)
        };
        let token = self.port.submit(io, IoOp::Write { file: FileId::Identity, offset, data });
        Step::Writing { token, state, left }
    }

    /// Takes the end of an operation. Returns the state that is durable now, after the first read and after each write.
    ///
    /// # Errors
    /// [`IdentityError`]; the node cannot go on.
    pub fn complete(
        &mut self,
        completion: Completion,
        io: &mut IoQueue,
    ) -> Result<Option<IdentityState>, IdentityError> {
        match std::mem::replace(&mut self.step, Step::Idle { exists: FileExists::Yes }) {
            Step::Reading(token) => {
                assert_eq!(token, completion.token);
                self.loaded(completion.result, io)
            }
            Step::Creating { token, state } => {
                assert_eq!(token, completion.token);
                match completion.result {
                    Err(error) if error.kind == IoErrorKind::NoSpace => {
                        self.step = Step::Idle { exists: FileExists::No };
                        return Err(IdentityError::NoSpace { state: Box::new(state) });
                    }
                    Err(error) if error.kind != IoErrorKind::Exists => return Err(error.into()),
                    _ => {}
                }
                self.step = Step::NamingDurable { token: self.port.submit(io, IoOp::SyncDirectory), state };
                Ok(None)
            }
            Step::NamingDurable { token, state } => {
                assert_eq!(token, completion.token);
                completion.result?;
                self.step = self.writing(state, CopiesLeft::One, io);
                Ok(None)
            }
            Step::Writing { token, state, left } => {
                assert_eq!(token, completion.token);
                match completion.result {
                    Err(error) if error.kind == IoErrorKind::NoSpace => {
                        // The next attempt writes the same copy.
                        self.sequence -= 1;
                        Err(IdentityError::NoSpace { state: Box::new(state) })
                    }
                    Err(error) => Err(error.into()),
                    Ok(_) if left == CopiesLeft::One => {
                        self.step = self.writing(state, CopiesLeft::None, io);
                        Ok(None)
                    }
                    Ok(_) => Ok(Some(state)),
                }
            }
            Step::Idle { .. } => Ok(None),
        }
    }

    fn loaded(
        &mut self,
        read: Result<IoValue, IoError>,
        io: &mut IoQueue,
    ) -> Result<Option<IdentityState>, IdentityError> {
        let bytes = match read {
            Ok(IoValue::Read(bytes)) => bytes,
            Ok(_) => Bytes::new(),
            Err(error) if error.kind == IoErrorKind::NotFound => {
                self.step = Step::Idle { exists: FileExists::No };
                return Ok(Some(IdentityState::Empty));
            }
            Err(error) => return Err(error.into()),
        };
        let mut newest: Option<(u64, &[u8])> = None;
        for slot in bytes.chunks(SLOT_BYTES) {
            match decode_slot(slot) {
                Some((sequence, Ok(payload))) if newest.is_none_or(|(other, _)| sequence > other) => {
                    newest = Some((sequence, payload));
                }
                Some((_, Err(found))) => {
                    return Err(IdentityError::Newer { found, supported: FORMAT_VERSION });
                }
                _ => {}
            }
        }
        let Some((sequence, payload)) = newest else {
            // The first write goes to the second copy; while the first is untouched only that write can have been
            // torn, and nothing was ever promised on it. A born node has written both.
            let first_written = bytes.iter().take(SLOT_BYTES).any(|&byte| byte != 0);
            if first_written {
                return Err(IdentityError::Damaged(self.name.clone()));
            }
            // Whoever made the file may not have come to sync its name.
            self.step = Step::Idle { exists: FileExists::No };
            return Ok(Some(IdentityState::Empty));
        };
        self.sequence = sequence;
        let (found, state) =
            decode_payload(payload).ok_or_else(|| IdentityError::Damaged(self.name.clone()))?;
        if found != self.name {
            return Err(IdentityError::OtherNode { found, expected: self.name.clone() });
        }
        self.step = self.writing(state, CopiesLeft::None, io);
        Ok(None)
    }
}

/// What an identity file holds, for tools that look at a node which does not run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IdentitySurvey {
    /// The two copies, in the order of their places.
    pub copies: [FoundIdentity; 2],
    /// Of the newest whole one: the node's name and what it knew of itself.
    pub newest: Option<(NodeName, IdentityState)>,
}

/// What was found where a copy belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FoundIdentity {
    /// Nothing was ever written there.
    Empty,
    /// Bytes that are no identity.
    Damaged,
    /// One that a newer format is needed to read.
    Newer {
        /// The least format that reads it.
        format: u16,
    },
    /// A whole one.
    Whole {
        /// Its number: the higher is the newer.
        sequence: u64,
    },
}

/// Looks at the bytes of an identity file.
#[must_use]
pub fn survey(bytes: &[u8]) -> IdentitySurvey {
    let mut newest: Option<(u64, (NodeName, IdentityState))> = None;
    let copies = [0, SLOT_BYTES].map(|at| {
        let slot = bytes.get(at..).unwrap_or_default();
        let slot = slot.get(..SLOT_BYTES).unwrap_or(slot);
        if slot.iter().all(|byte| *byte == 0) {
            return FoundIdentity::Empty;
        }
        match decode_slot(slot).map(|(sequence, payload)| (sequence, payload.map(decode_payload))) {
            Some((sequence, Ok(Some(found)))) => {
                if newest.as_ref().is_none_or(|(other, _)| sequence > *other) {
                    newest = Some((sequence, found));
                }
                FoundIdentity::Whole { sequence }
            }
            Some((_, Err(format))) => FoundIdentity::Newer { format },
            Some((_, Ok(None))) | None => FoundIdentity::Damaged,
        }
    });
    IdentitySurvey { copies, newest: newest.map(|(_, found)| found) }
}

#[allow(clippy::panic, reason = "two writes of the identity at once is a bug, and would lose one of them")]
fn panic_busy() -> ! {
    panic!("the identity file is busy")
}

fn encode_slot(name: &NodeName, sequence: u64, state: &IdentityState) -> Bytes {
    let payload = encode_payload(name, state);
    assert!(HEADER_BYTES + payload.len() <= SLOT_BYTES, "the directory outgrew the identity file");
    let mut slot = Vec::with_capacity(SLOT_BYTES);
    slot.put_u32(MAGIC);
    slot.put_u16(FORMAT_VERSION);
    slot.put_u16(FORMAT_VERSION);
    slot.put_u64(sequence);
    slot.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
    slot.put_u32(crc32(&[&slot, &payload]));
    slot.put_bytes(&payload);
    slot.pad_to(SLOT_BYTES);
    slot.into()
}

/// The sequence of a whole copy with its payload, or with the least format that reads it if that is too new.
fn decode_slot(slot: &[u8]) -> Option<(u64, Result<&[u8], u16>)> {
    let mut from = Reader::new(slot);
    if from.u32()? != MAGIC {
        return None;
    }
    let (_format, least_reader) = (from.u16()?, from.u16()?);
    let sequence = from.u64()?;
    let length = usize::try_from(from.u32()?).ok()?;
    let sum = from.u32()?;
    let payload = from.bytes(length)?;
    let header = slot.get(..HEADER_BYTES - 4)?;
    // Before the versions: damage is not a newer format.
    if crc32(&[header, payload]) != sum {
        return None;
    }
    Some((sequence, if least_reader > FORMAT_VERSION { Err(least_reader) } else { Ok(payload) }))
}

fn encode_payload(name: &NodeName, state: &IdentityState) -> Vec<u8> {
    let mut to = Vec::new();
    to.put_u16(u16::try_from(name.as_str().len()).unwrap_or(u16::MAX));
    to.put_bytes(name.as_str().as_bytes());
    match state {
        IdentityState::Empty => to.put_u8(0),
        IdentityState::Forming { cluster } => {
            to.put_u8(1);
            to.put_bytes(&cluster.0);
        }
        IdentityState::Joining { attempt } => {
            to.put_u8(2);
            to.put_u64(*attempt);
        }
        IdentityState::Born(born) => {
            to.put_u8(3);
            to.put_u64(born.node.0);
            to.put_u8(match born.origin {
                Origin::Birth => 0,
                Origin::Join => 1,
            });
            to.put_u8(match born.files {
                Files::Incomplete => 0,
                Files::Complete => 1,
            });
            to.put_bytes(&born.directory.encode());
        }
    }
    to
}

fn decode_payload(payload: &[u8]) -> Option<(NodeName, IdentityState)> {
    let mut from = Reader::new(payload);
    let length = usize::from(from.u16()?);
    if length > NODE_NAME_BYTES_MAX {
        return None;
    }
    let name = NodeName::from(std::str::from_utf8(from.bytes(length)?).ok()?);
    let state = match from.u8()? {
        0 => IdentityState::Empty,
        1 => IdentityState::Forming { cluster: ClusterId(from.array()?) },
        2 => IdentityState::Joining { attempt: from.u64()? },
        3 => {
            let node = NodeId(from.u64()?);
            let origin = if from.u8()? == 0 { Origin::Birth } else { Origin::Join };
            let files = if from.u8()? == 0 { Files::Incomplete } else { Files::Complete };
            let directory = Directory::decode(from.rest())?;
            IdentityState::Born(Box::new(Born { node, origin, files, directory }))
        }
        _ => return None,
    };
    Some((name, state))
}

#[cfg(test)]
mod tests {
    use mesh_base::io::Submission;

    use super::*;

    fn a() -> NodeName {
        NodeName::from("a")
    }

    fn born() -> IdentityState {
        let directory = Directory::at_birth(ClusterId([9; 16]), 2, &[(a(), "a:1".into())]);
        IdentityState::Born(Box::new(Born {
            node: NodeId(1),
            origin: Origin::Birth,
            files: Files::Complete,
            directory,
        }))
    }

    fn open_with(image: &[u8], name: NodeName) -> Result<IdentityState, IdentityError> {
        let mut io = IoQueue::new();
        let mut file = IdentityFile::open(name, &mut io);
        let token = io.drain().next().unwrap().token;
        let read = IoValue::Read(Bytes::copy_from_slice(image));
        let found = file.complete(Completion { token, result: Ok(read) }, &mut io)?;
        // What was found is written over the other copy.
        let Some(Submission { token, op: IoOp::Write { offset, data, .. } }) = io.drain().next() else {
            return Ok(found.unwrap());
        };
        let newest = image.chunks(SLOT_BYTES).filter_map(decode_slot).map(|(sequence, _)| sequence).max();
        let written = decode_slot(&data).unwrap();
        assert_eq!((written.0, offset), (newest.unwrap() + 1, (written.0 % 2) * SLOT_BYTES as u64));
        file.complete(Completion { token, result: Ok(IoValue::Done) }, &mut io).map(Option::unwrap)
    }

    #[test]
    fn every_state_is_read_back() {
        for state in [
            IdentityState::Empty,
            IdentityState::Forming { cluster: ClusterId([1; 16]) },
            IdentityState::Joining { attempt: 5 },
            born(),
        ] {
            let image = encode_slot(&a(), 2, &state);
            assert_eq!(open_with(&image, a()), Ok(state));
        }
    }

    #[test]
    fn the_newest_whole_copy_counts() {
        let old = encode_slot(&a(), 1, &IdentityState::Joining { attempt: 5 });
        let new = encode_slot(&a(), 2, &born());
        let mut image = [new, old].concat();
        assert_eq!(open_with(&image, a()), Ok(born()));
        image[100] ^= 1;
        assert_eq!(open_with(&image, a()), Ok(IdentityState::Joining { attempt: 5 }));
        image[SLOT_BYTES + 30] ^= 1;
        assert_eq!(open_with(&image, a()), Err(IdentityError::Damaged(a())));
    }

    #[test]
    fn a_survey_tells_each_copy_and_the_newest_whole_one() {
        let old = encode_slot(&a(), 1, &IdentityState::Joining { attempt: 5 });
        let new = encode_slot(&a(), 2, &born());
        let whole = |sequence| FoundIdentity::Whole { sequence };
        let mut image = [new, old].concat();
        let found = survey(&image);
        assert_eq!((found.copies, found.newest), ([whole(2), whole(1)], Some((a(), born()))));
        image[100] ^= 1;
        let found = survey(&image);
        assert_eq!(found.copies, [FoundIdentity::Damaged, whole(1)]);
        assert_eq!(found.newest, Some((a(), IdentityState::Joining { attempt: 5 })));
        assert_eq!(survey(&[]).copies, [FoundIdentity::Empty; 2]);
    }

    #[test]
    fn the_directory_of_another_node_or_of_a_newer_mesh_is_refused() {
        let image = encode_slot(&a(), 2, &born());
        let expected = NodeName::from("b");
        assert_eq!(
            open_with(&image, expected.clone()),
            Err(IdentityError::OtherNode { found: a(), expected })
        );
        let mut newer = image.to_vec();
        newer[6] = 9;
        // A flipped bit is damage,
        assert_eq!(open_with(&newer, a()), Err(IdentityError::Damaged(a())));
        // and a newer format has a checksum of its own.
        let length = usize::try_from(u32::from_le_bytes(newer[16..20].try_into().unwrap())).unwrap();
        let sum = crc32(&[&newer[..20], &newer[24..24 + length]]);
        newer[20..24].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(open_with(&newer, a()), Err(IdentityError::Newer { found: 9, supported: 1 }));
    }
}
