//! `mesh-server verify`: whether the files of a node that does not run are intact, and exactly what is not.
//!
//! For each replica the whole page store is walked, every segment of the log is read, and the log is recovered as a start
//! would, without a change to any file. Then the two are held against each other.

mod document;

use mesh_base::io::{FileId, IoErrorKind};
use mesh_base::{CheckpointNo, ClusterId, LogIndex, ReplicaIdentity};
use mesh_engine::inspect::FoundCopy;
use mesh_engine::{StorePart, VerifyReport};
use mesh_raftlog::{LogError, RecoveredLog};

use self::document::{
    Damage, Document, KeysDocument, LogDocument, RecoveredDocument, ReplicaDocument, StoreDocument, state,
};
use super::args::VerifyFlags;
use super::error::{CliError, Exit};
use super::offline::log::{self, SegmentFile};
use super::offline::store::{Install, StoreFile};
use super::offline::{DataDirectory, Progress, ReplicaDirectory, Standing};
use super::output::{Format, Output};
use crate::core::DirectoryKey;

/// `mesh-server verify`
pub(super) fn verify(flags: &VerifyFlags, output: &mut Output) -> Result<Exit, CliError> {
    let directory = DataDirectory::open(&flags.data)?;
    let document = document(&directory, output);
    match output.format() {
        Format::Text => document.print(output)?,
        Format::Json => output.document(&document)?,
    }
    output.flush()?;
    Ok(if document.intact { Exit::Done } else { Exit::Damaged })
}

fn document(directory: &DataDirectory, output: &mut Output) -> Document {
    let mut damage = Vec::new();
    if let Some(what) = directory.identity_problem() {
        damage.push(Damage::of("node/identity", "identity", what));
    }
    for (shard, node) in directory.missing() {
        let replica = DirectoryKey::Replica { shard, replica: node.0.into() };
        damage.push(Damage::of(replica.to_string(), "replica", "its directory is missing"));
    }
    let cluster = directory.born().map(|born| born.directory.cluster());
    let checks = directory.replicas.iter().map(|replica| Check::of(replica, cluster, output).finish());
    let replicas: Vec<_> = checks.collect();
    let counts = |replica: &&ReplicaDocument| replica.state == state(Standing::InUse);
    let intact = damage.is_empty() && replicas.iter().filter(counts).all(|replica| replica.intact);
    let (node, cluster) = (directory.node_name(), cluster.map(|cluster| cluster.to_string()));
    Document { node, cluster, intact, damage, replicas }
}

/// The check of one replica.
struct Check<'a> {
    replica: &'a ReplicaDirectory,
    /// Whose files they must be; the cluster as the node's identity has it, or else as the files have it.
    cluster: Option<ClusterId>,
    store: Option<StoreDocument>,
    log: Option<LogDocument>,
    damage: Vec<Damage>,
    damage_not_listed: u64,
    notes: Vec<String>,
}

impl<'a> Check<'a> {
    fn of(replica: &'a ReplicaDirectory, cluster: Option<ClusterId>, output: &mut Output) -> Self {
        let mut check = Self {
            replica,
            cluster,
            store: None,
            log: None,
            damage: Vec::new(),
            damage_not_listed: 0,
            notes: Vec::new(),
        };
        let recovered = check.check_log(output);
        check.check_store(recovered.as_deref(), output);
        check
    }

    fn finish(self) -> ReplicaDocument {
        ReplicaDocument {
            shard: self.replica.shard.get(),
            replica: self.replica.replica.get(),
            directory: self.replica.name.clone(),
            state: state(self.replica.standing),
            intact: self.damage.is_empty(),
            store: self.store,
            log: self.log,
            damage: self.damage,
            damage_not_listed: self.damage_not_listed,
            notes: self.notes,
        }
    }

    fn path(&self, file: FileId) -> String {
        format!("{}/{file}", self.replica.name)
    }

    fn found(&mut self, file: FileId, part: &str, what: impl Into<String>) {
        self.damage.push(Damage::of(self.path(file), part, what));
    }

    fn found_at(&mut self, file: FileId, offset: u64, part: &str, what: impl Into<String>) {
        let damage = Damage::of(self.path(file), part, what);
        self.damage.push(Damage { offset: Some(offset), ..damage });
    }

    /// The log: each segment by itself, then all of it as a start would find it.
    fn check_log(&mut self, output: &mut Output) -> Option<Box<RecoveredLog>> {
        let mut progress = Progress::of(output, format!("{}: log", self.replica.name));
        let segments = match log::segments(self.replica, &mut progress) {
            Ok(segments) => segments,
            Err(error) => {
                self.damage.push(Damage::of(self.replica.name.clone(), "log", error.to_string()));
                return None;
            }
        };
        if segments.is_empty() {
            let what = "its files are gone, and with them what this replica promised";
            self.damage.push(Damage::of(self.replica.name.clone(), "log", what));
            return None;
        }
        segments.iter().for_each(|segment| self.check_segment(segment));
        let recovered = self.recover(&segments);
        if let Some(torn) = recovered.as_ref().and_then(|recovered| recovered.torn) {
            let (file, offset) = (self.path(torn.file), torn.offset);
            self.notes.push(format!(
                "{file} ends at byte {offset} in the traces of a crash: what was there was never acknowledged"
            ));
        }
        self.log = Some(LogDocument {
            segments: segments.len(),
            batches: segments.iter().map(|segment| segment.survey.batches).sum(),
            entries: segments.iter().map(|segment| segment.survey.entries).sum(),
            recovered: recovered.as_deref().map(|recovered| RecoveredDocument {
                first_index: recovered.log.first_index().get(),
                last_index: recovered.log.last_index().get(),
                term: recovered.hard_state.term,
                commit: recovered.hard_state.commit,
                least_checkpoint: recovered.least_checkpoint.no.get(),
            }),
        });
        recovered
    }

    fn check_segment(&mut self, segment: &SegmentFile) {
        for damage in &segment.survey.damage {
            let batches = match damage.batches {
                0 | 1 => String::new(),
                batches => format!(" ({batches} batches)"),
            };
            let entries = damage.entries.map(|(first, last)| (first.get(), last.get()));
            let found = Damage::of(self.path(segment.file), "log", format!("{}{batches}", damage.what));
            self.damage.push(Damage { offset: Some(damage.offset), entries, ..found });
        }
    }

    fn recover(&mut self, segments: &[SegmentFile]) -> Option<Box<RecoveredLog>> {
        let of_files = segments.iter().find_map(|segment| Some(segment.survey.header.as_ref()?.identity));
        let cluster = self.cluster.or(of_files.map(|identity| identity.cluster))?;
        let identity = ReplicaIdentity { cluster, shard: self.replica.shard, replica: self.replica.replica };
        match log::recover(self.replica, identity) {
            Ok(recovered) => recovered,
            // What the segments showed already is told, and in more words.
            Err(LogError::Corrupt { file, offset, what }) => {
                let path = self.path(file);
                let is_told =
                    self.damage.iter().any(|damage| damage.file == path && damage.offset == Some(offset));
                if !is_told {
                    self.found_at(file, offset, "log", what);
                }
                None
            }
            Err(error) => {
                self.damage.push(Damage::of(self.replica.name.clone(), "log", error.to_string()));
                None
            }
        }
    }

    /// The page store: its superblock, its whole tree, and whether it fits the log.
    fn check_store(&mut self, recovered: Option<&RecoveredLog>, output: &mut Output) {
        let decided = recovered.is_some_and(|recovered| recovered.install.is_some());
        let install = if decided { Install::Decided } else { Install::None };
        let store = match StoreFile::of(self.replica, install) {
            Ok(store) => store,
            Err(error) if error.kind == IoErrorKind::NotFound => {
                return self.found(FileId::Store, "store", "the file is missing");
            }
            Err(error) => return self.found(FileId::Store, "store", error.to_string()),
        };
        let mut progress = Progress::of(output, format!("{}: store", self.replica.name));
        let report = store.verify(&mut progress);
        drop(progress);
        let least = recovered.map(|recovered| {
            recovered.install.map_or(recovered.least_checkpoint.no, |install| install.checkpoint)
        });
        self.check_copies(&store, least.unwrap_or_default());
        let (Some(image), Some(report)) = (store.image(), report) else {
            return self.found_at(
                store.file,
                0,
                "superblock copy",
                "no copy is whole: the store cannot be read",
            );
        };
        self.check_identity(&store, image.identity());
        let checkpoint = image.checkpoint();
        self.take(&store, &report, checkpoint.applied, checkpoint.cells);
        if let Some(recovered) = recovered {
            self.check_fit(store.file, checkpoint.applied, recovered);
        }
    }

    /// A damaged copy harms nothing unless it is the newest.
    fn check_copies(&mut self, store: &StoreFile<'_>, least: CheckpointNo) {
        let (newest, none) = (store.checkpoint(), CheckpointNo(0));
        let place = |checkpoint: CheckpointNo| checkpoint.get() % store.copies.len() as u64;
        for (index, copy) in (0..).zip(&store.copies) {
            let is_lost = newest != none && newest < least && place(least) == index;
            match &copy.found {
                FoundCopy::Newer { version } => {
                    let what = format!("written by a newer Mesh (format {version})");
                    self.found_at(store.file, copy.offset, "superblock copy", what);
                }
                _ if is_lost => {
                    let what = format!(
                        "checkpoint {least} was durable and is lost, {newest} is the newest there is"
                    );
                    self.found_at(store.file, copy.offset, "superblock copy", what);
                }
                FoundCopy::Damaged(what) if newest != none => self.notes.push(format!(
                    "{} at byte {}: {what}; it is not needed, a newer copy is whole",
                    self.path(store.file),
                    copy.offset
                )),
                FoundCopy::Empty | FoundCopy::Damaged(_) | FoundCopy::Whole(_) => {}
            }
        }
    }

    fn check_identity(&mut self, store: &StoreFile<'_>, found: &ReplicaIdentity) {
        let (shard, replica) = (self.replica.shard, self.replica.replica);
        let cluster = self.cluster.unwrap_or(found.cluster);
        if *found != (ReplicaIdentity { cluster, shard, replica }) {
            let ReplicaIdentity { cluster, shard, replica } = found;
            let what = format!("belongs to replica {replica} of shard {shard} of cluster {cluster}");
            self.found(store.file, "superblock copy", what);
        }
    }

    fn take(&mut self, store: &StoreFile<'_>, report: &VerifyReport, applied: LogIndex, cells: u64) {
        for problem in &report.problems {
            let damage = Damage::of(self.path(store.file), &problem.part.to_string(), problem.what.clone());
            let page = (problem.part != StorePart::Superblock).then_some(problem.page.get());
            let keys = problem.keys.as_ref().map(KeysDocument::of);
            self.damage.push(Damage { offset: Some(problem.offset), page, keys, ..damage });
        }
        self.damage_not_listed += report.problem_count - report.problems.len() as u64;
        self.store = Some(StoreDocument {
            file: self.path(store.file),
            checkpoint: report.checkpoint.get(),
            applied: applied.get(),
            pages: report.file_pages,
            pages_in_use: report.used_pages,
            pages_unreached: report.unreached_pages,
            leaves: report.leaves,
            interior_pages: report.interiors,
            extents: report.extents,
            cells: report.cells,
            cells_written: cells,
            keys: report.keys,
        });
    }

    /// The log goes on where the store ends.
    fn check_fit(&mut self, file: FileId, applied: LogIndex, recovered: &RecoveredLog) {
        let truncated = recovered.log.first_index().prev();
        let last = recovered.log.last_index();
        if applied < truncated {
            let what = format!(
                "holds entry {applied}, and the log begins after {truncated}: those between are missing"
            );
            self.found(file, "store", what);
        }
        if applied > last {
            let what =
                format!("ends at entry {last}, and the store holds {applied}: newer segments are lost");
            self.damage.push(Damage::of(self.replica.name.clone(), "log", what));
        }
    }
}
