//! `mesh-server inspect`: what is in the files of a node that does not run, without a judgement.
//!
//! It goes on behind damage: what cannot be read is said, and the rest is told. What was asked for by name, a page or a key,
//! and cannot be told for damage, is an error.

mod document;
mod lines;

use mesh_base::PageNo;

use self::document::{
    CellDocument, CopyDocument, ImageDocument, PageDocument, ReplicaDocument, SegmentDocument, StoreDocument,
    VersionsDocument,
};
use super::args::InspectFlags;
use super::error::{CliError, Exit};
use super::key::Key;
use super::offline::log::SegmentFile;
use super::offline::store::{Install, StoreFile};
use super::offline::{DataDirectory, Progress, ReplicaDirectory, log};
use super::output::{Format, Output};

/// `mesh-server inspect`
pub(super) fn inspect(flags: &InspectFlags, output: &mut Output) -> Result<Exit, CliError> {
    let directory = DataDirectory::open(&flags.data)?;
    let chosen = |replica: &&ReplicaDirectory| flags.shard.is_none_or(|shard| replica.shard.get() == shard);
    let replicas: Vec<_> = directory.replicas.iter().filter(chosen).collect();
    if replicas.is_empty() {
        return Err(CliError::Usage(match flags.shard {
            Some(shard) => format!("--shard {shard}: the node has no replica of it"),
            None => format!("--data {}: the node has no replicas", directory.path.display()),
        }));
    }
    let exit = match (&flags.key, flags.page) {
        (Some(key), _) => versions(&replicas, key, output)?,
        (None, Some(number)) => page(&replicas, PageNo(number), output)?,
        (None, None) => everything(&replicas, output)?,
    };
    output.flush()?;
    Ok(exit)
}

fn everything(replicas: &[&ReplicaDirectory], output: &mut Output) -> Result<Exit, CliError> {
    for (number, replica) in replicas.iter().enumerate() {
        let document = replica_document(replica, output);
        match output.format() {
            Format::Json => output.document(&document)?,
            Format::Text => {
                if number > 0 {
                    output.line("")?;
                }
                lines::replica(&document, output)?;
            }
        }
    }
    Ok(Exit::Done)
}

fn replica_document(replica: &ReplicaDirectory, output: &mut Output) -> ReplicaDocument {
    let mut errors = Vec::new();
    let mut progress = Progress::of(output, format!("{}: log", replica.name));
    let segments = log::segments(replica, &mut progress).unwrap_or_else(|error| {
        errors.push(error.to_string());
        Vec::new()
    });
    drop(progress);
    let install = segments.last().map_or(Install::None, SegmentFile::install);
    let store = StoreFile::of(replica, install).map_err(|error| errors.push(error.to_string())).ok();
    let store = store.map(|store| {
        let mut progress = Progress::of(output, format!("{}: store", replica.name));
        let report = store.verify(&mut progress);
        StoreDocument {
            file: store.file.to_string(),
            bytes: store.bytes,
            copies: store.copies.iter().map(CopyDocument::of).collect(),
            newest: store
                .image()
                .zip(report.as_ref())
                .map(|(image, report)| ImageDocument::of(image, report)),
        }
    });
    ReplicaDocument {
        shard: replica.shard.get(),
        replica: replica.replica.get(),
        directory: replica.name.clone(),
        store,
        log: segments.iter().map(SegmentDocument::of).collect(),
        errors,
    }
}

/// A page of one replica.
fn page(replicas: &[&ReplicaDirectory], page: PageNo, output: &mut Output) -> Result<Exit, CliError> {
    let [replica] = replicas else {
        let shards: Vec<_> = replicas.iter().map(|replica| replica.shard.to_string()).collect();
        let why = format!("--page: of which shard? give --shard, one of {}", shards.join(", "));
        return Err(CliError::Usage(why));
    };
    let store = store_of(replica)?;
    let (Some(image), Some(survey)) = (store.image(), store.page(page)) else {
        return Err(unreadable(replica, "no superblock copy is whole, so the size of a page is not known"));
    };
    let pages = store.bytes / image.page_bytes() as u64;
    if page.get() >= pages {
        let why = format!("--page {page}: {}/{} has {pages} pages, from 0 on", replica.name, store.file);
        return Err(CliError::Usage(why));
    }
    let survey = survey.map_err(|error| unreadable(replica, error))?;
    let document = PageDocument::of(replica, image, page, survey);
    match output.format() {
        Format::Json => output.document(&document)?,
        Format::Text => lines::page(&document, output)?,
    }
    Ok(Exit::Done)
}

/// The versions of a key, wherever there are some.
fn versions(replicas: &[&ReplicaDirectory], key: &Key, output: &mut Output) -> Result<Exit, CliError> {
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for replica in replicas {
        match versions_of(replica, key) {
            Ok(document) => found.push(document),
            Err(error) => errors.push(error),
        }
    }
    found.retain(|document| !document.versions.is_empty());
    for document in &found {
        match output.format() {
            Format::Json => output.document(document)?,
            Format::Text => lines::versions(document, output)?,
        }
    }
    // A key is in one shard, so an error of another one is only noted.
    let error = if found.is_empty() { errors.pop() } else { None };
    errors.iter().for_each(|error| output.note(error));
    match error {
        Some(error) => Err(error),
        None if found.is_empty() => {
            let key = super::key::readable(key.as_bytes());
            output.note(format_args!("`{key}` is in no checkpoint; what was written since is in the logs"));
            Ok(Exit::NotFound)
        }
        None => Ok(Exit::Done),
    }
}

fn versions_of(replica: &ReplicaDirectory, key: &Key) -> Result<VersionsDocument, CliError> {
    let store = store_of(replica)?;
    let Some(versions) = store.versions(key.as_bytes()) else {
        return Err(unreadable(replica, "no superblock copy is whole"));
    };
    let versions = versions.map_err(|error| unreadable(replica, error))?;
    Ok(VersionsDocument {
        shard: replica.shard.get(),
        replica: replica.replica.get(),
        checkpoint: store.checkpoint().get(),
        versions: versions.into_iter().map(CellDocument::of).collect(),
    })
}

/// The store that a start would open.
fn store_of(replica: &ReplicaDirectory) -> Result<StoreFile<'_>, CliError> {
    // A log that cannot be read decides nothing.
    let install = log::install(replica).unwrap_or(Install::None);
    StoreFile::of(replica, install).map_err(|error| unreadable(replica, error))
}

fn unreadable(replica: &ReplicaDirectory, why: impl std::fmt::Display) -> CliError {
    CliError::Unreadable { file: replica.name.clone(), why: why.to_string() }
}
