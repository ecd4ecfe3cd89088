//! The log of a replica, looked at: each segment by itself, and all of it as a recovery would.

use mesh_base::ReplicaIdentity;
use mesh_base::io::{FileId, IoError, IoQueue};
use mesh_base::limits::SECTOR_BYTES;
use mesh_base::prng::Prng;
use mesh_raftlog::inspect::{self, SegmentSurvey};
use mesh_raftlog::{LogError, Recovered, RecoveredLog, Recovery};

use super::store::Install;
use super::{Progress, ReplicaDirectory};
use crate::shard::ShardOptions;

/// A segment's file.
pub(crate) struct SegmentFile {
    pub(crate) file: FileId,
    /// Its length in bytes.
    pub(crate) bytes: u64,
    pub(crate) survey: SegmentSurvey,
}

/// Looks at every segment, oldest first.
///
/// # Errors
/// The directory or a file cannot be read.
pub(crate) fn segments(
    replica: &ReplicaDirectory,
    progress: &mut Progress<'_>,
) -> Result<Vec<SegmentFile>, IoError> {
    let files = list(replica)?;
    let mut surveys = Vec::new();
    for (number, (file, length)) in files.iter().enumerate() {
        progress.tell(number as u64, files.len() as u64);
        let next = files.get(number + 1).map(|(next, _)| *next).filter(|next| follows(*file, *next));
        surveys.push(look(replica, *file, *length, next)?);
    }
    Ok(surveys)
}

/// Whether the log, as far as its newest segment can be read, decided that a received snapshot is to be the live store.
///
/// # Errors
/// The directory or the file cannot be read.
pub(crate) fn install(replica: &ReplicaDirectory) -> Result<Install, IoError> {
    let Some((file, length)) = list(replica)?.pop() else { return Ok(Install::None) };
    Ok(look(replica, file, length, None)?.install())
}

impl SegmentFile {
    /// Whether a received snapshot is to be the live store, at the end of this segment.
    pub(crate) const fn install(&self) -> Install {
        if self.survey.install.is_some() { Install::Decided } else { Install::None }
    }
}

/// The segments' files and their lengths in bytes, oldest first.
fn list(replica: &ReplicaDirectory) -> Result<Vec<(FileId, u64)>, IoError> {
    let files = replica.files.list()?;
    Ok(files.into_iter().filter(|(file, _)| matches!(file, FileId::Segment(_))).collect())
}

/// Looks at one segment, and at the first sector of the next one.
fn look(
    replica: &ReplicaDirectory,
    file: FileId,
    length: u64,
    next: Option<FileId>,
) -> Result<SegmentFile, IoError> {
    let bytes = replica.files.read(file, 0, usize::try_from(length).unwrap_or(usize::MAX))?;
    let successor = next.map(|next| replica.files.read(next, 0, SECTOR_BYTES)).transpose()?;
    let revision_of = ShardOptions::default().log.revision_of;
    let survey = inspect::segment(&bytes, successor.as_deref(), revision_of);
    Ok(SegmentFile { file, bytes: length, survey })
}

/// Whether a segment is the one right behind another.
fn follows(file: FileId, next: FileId) -> bool {
    match (file, next) {
        (FileId::Segment(file), FileId::Segment(next)) => file.next() == next,
        _ => false,
    }
}

/// What a start would find: recovers the log without a change to the files.
///
/// # Errors
/// What would keep the replica from starting.
pub(crate) fn recover(
    replica: &ReplicaDirectory,
    identity: ReplicaIdentity,
) -> Result<Option<Box<RecoveredLog>>, LogError> {
    let mut io = IoQueue::new();
    let options = ShardOptions::default().log;
    // Nothing that is drawn here is ever written.
    let mut recovery = Recovery::start(identity, options, Prng::new(1), &mut io);
    loop {
        let submissions: Vec<_> = io.drain().collect();
        for submission in submissions {
            match recovery.complete(replica.files.perform(submission), &mut io)? {
                None => {}
                Some(Recovered::Empty) => return Ok(None),
                Some(Recovered::Log(log)) => return Ok(Some(log)),
            }
        }
    }
}
