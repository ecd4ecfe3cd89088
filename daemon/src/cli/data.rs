//! Commands on keys.

use std::future::Future;
use std::io::{self, IsTerminal, Read};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use mesh_base::limits::VALUE_BYTES_MAX;
use mesh_client::{Cluster, Items, Put as ClientPut, Range, Revision};
use serde::Serialize;

use super::args::{ClientFlags, Condition, Del, Get, Incr, Put, RangeFlags};
use super::error::{CliError, Exit};
use super::json::{Encoding, ItemDocument, Text, revision, text};
use super::key::{Key, readable};
use super::output::{Format, Output};

/// The least time for a request after connecting took most of it.
const REQUEST_TIME_MIN: Duration = Duration::from_millis(100);

/// Runs what waits.
pub(super) fn wait<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(CliError::io("the runtime could not be started"))?.block_on(work)
}

/// Connects. Returns what is left of the time as well.
pub(super) async fn connect(flags: &ClientFlags) -> Result<(Cluster, Duration), CliError> {
    let begun = Instant::now();
    let cluster = connect_within(flags.timeout, flags).await?;
    let left = flags.timeout.saturating_sub(begun.elapsed()).max(REQUEST_TIME_MIN);
    Ok((cluster, left))
}

/// Connects, and gives up earlier than the user said.
pub(super) async fn connect_within(patience: Duration, flags: &ClientFlags) -> Result<Cluster, CliError> {
    let builder = Cluster::builder().name("mesh").connect_deadline(patience).deadline(flags.timeout);
    Ok(builder.connect(&flags.endpoints).await?)
}

#[derive(Serialize)]
struct WrittenDocument {
    key: Text,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_encoding: Option<Encoding>,
    #[serde(serialize_with = "revision")]
    revision: Revision,
}

/// `mesh put`
pub(super) fn put(flags: &ClientFlags, put: &Put, output: &mut Output) -> Result<Exit, CliError> {
    let value = match &put.value {
        Some(value) if value != "-" => value.as_bytes().to_vec(),
        _ => read_value(output)?,
    };
    let key = put.key.as_bytes();
    if put.previous {
        return put_previous(flags, put, &value, output);
    }
    let written = wait(async {
        let (cluster, left) = connect(flags).await?;
        Ok(conditional_put(&cluster, put, &value).deadline(left).await?)
    })?;
    match output.format() {
        Format::Text => output.note(format_args!("written at revision {}", written.revision)),
        Format::Json => {
            let (key, key_encoding) = text(key);
            output.document(&WrittenDocument { key, key_encoding, revision: written.revision })?;
        }
    }
    output.flush()?;
    Ok(Exit::Done)
}

/// A put with the conditions of the command line.
fn conditional_put<'c>(
    cluster: &'c Cluster,
    put: &'c Put,
    value: &'c [u8],
) -> ClientPut<'c, &'c [u8], &'c [u8]> {
    let asked = cluster.put(put.key.as_bytes(), value);
    match put.conditions.asked() {
        _ if put.if_absent => asked.if_absent(),
        Some(Condition::Exists) => asked.if_exists(),
        Some(Condition::Revision(revision)) => asked.if_revision(revision),
        Some(Condition::Version(version)) => asked.if_version(version),
        None => asked,
    }
}

#[derive(Serialize)]
struct SwappedDocument {
    key: Text,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_encoding: Option<Encoding>,
    #[serde(serialize_with = "revision")]
    revision: Revision,
    previous: Option<ItemDocument>,
}

/// `mesh put --previous`
fn put_previous(flags: &ClientFlags, put: &Put, value: &[u8], output: &mut Output) -> Result<Exit, CliError> {
    let key = put.key.as_bytes();
    let swapped = wait(async {
        let (cluster, left) = connect(flags).await?;
        Ok(conditional_put(&cluster, put, value).deadline(left).previous().await?)
    })?;
    let before = swapped.previous.as_ref();
    match (output.format(), before) {
        (Format::Text, Some(item)) => output.bytes(&item.value)?,
        (Format::Text, None) => output.note("the key did not exist"),
        (Format::Json, before) => {
            let previous = before.map(|item| ItemDocument::new(key, item, Some(&item.value)));
            let (key, key_encoding) = text(key);
            let revision = swapped.revision;
            output.document(&SwappedDocument { key, key_encoding, revision, previous })?;
        }
    }
    output.flush()?;
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct CountDocument {
    key: Text,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_encoding: Option<Encoding>,
    #[serde(serialize_with = "revision")]
    revision: Revision,
    value: i64,
}

/// `mesh incr`
pub(super) fn increment(flags: &ClientFlags, incr: &Incr, output: &mut Output) -> Result<Exit, CliError> {
    let key = incr.key.as_bytes();
    let done = wait(async {
        let (cluster, left) = connect(flags).await?;
        Ok(cluster.increment(key, incr.delta).deadline(left).await?)
    })?;
    match output.format() {
        Format::Text => output.line(done.value)?,
        Format::Json => {
            let (key, key_encoding) = text(key);
            let document = CountDocument { key, key_encoding, revision: done.revision, value: done.value };
            output.document(&document)?;
        }
    }
    output.flush()?;
    Ok(Exit::Done)
}

/// Reads a value from stdin, no more of it than a value may have.
fn read_value(output: &mut Output) -> Result<Vec<u8>, CliError> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        output.hint("reading the value from the terminal; Ctrl-D ends it");
    }
    let mut value = Vec::new();
    let mut limited = stdin.lock().take(VALUE_BYTES_MAX as u64 + 1);
    limited.read_to_end(&mut value).map_err(CliError::io("stdin"))?;
    if value.len() > VALUE_BYTES_MAX {
        let why = format!(
            "the value on stdin is larger than {VALUE_BYTES_MAX} bytes, the most that a value has: split it"
        );
        return Err(CliError::Usage(why));
    }
    Ok(value)
}

#[derive(Serialize)]
struct MissingDocument {
    key: Text,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_encoding: Option<Encoding>,
    value: Option<Text>,
}

/// `mesh get`
pub(super) fn get(flags: &ClientFlags, get: &Get, output: &mut Output) -> Result<Exit, CliError> {
    let key = get.key.as_bytes();
    let found = wait(async {
        let (cluster, left) = connect(flags).await?;
        Ok(cluster.get(key).at(Revision(get.rev.unwrap_or(0))).deadline(left).await?)
    })?;
    let exit = match (found, output.format()) {
        (Some(item), Format::Text) => {
            output.bytes(&item.value)?;
            Exit::Done
        }
        (Some(item), Format::Json) => {
            output.document(&ItemDocument::new(key, &item, Some(&item.value)))?;
            Exit::Done
        }
        (None, Format::Text) => {
            output.note(format_args!("key `{}` does not exist", readable(key)));
            Exit::NotFound
        }
        (None, Format::Json) => {
            let (key, key_encoding) = text(key);
            output.document(&MissingDocument { key, key_encoding, value: None })?;
            Exit::NotFound
        }
    };
    output.flush()?;
    Ok(exit)
}

#[derive(Serialize)]
struct DeletedDocument {
    deleted: u64,
    #[serde(serialize_with = "revision")]
    revision: Revision,
}

/// `mesh del`
pub(super) fn delete(flags: &ClientFlags, del: &Del, output: &mut Output) -> Result<Exit, CliError> {
    let keys: Vec<_> = del.keys.iter().map(Key::as_bytes).collect();
    let condition = match (keys.as_slice(), del.conditions.asked()) {
        (_, None) => None,
        ([key], Some(condition)) => Some((*key, condition)),
        _ => {
            let why = "a condition is one on a single key: delete the others without it";
            return Err(CliError::Usage(why.into()));
        }
    };
    let deleted = wait(async {
        let (cluster, left) = connect(flags).await?;
        let Some((key, condition)) = condition else {
            return Ok(cluster.delete_many(keys).deadline(left).await?);
        };
        let asked = cluster.delete(key).deadline(left);
        Ok(match condition {
            Condition::Revision(revision) => asked.if_revision(revision).await?,
            Condition::Version(version) => asked.if_version(version).await?,
            Condition::Exists => asked.if_exists().await?,
        })
    })?;
    match output.format() {
        Format::Text => output.note(format_args!(
            "{} of {} keys existed and are deleted",
            deleted.deleted,
            del.keys.len()
        )),
        Format::Json => {
            output.document(&DeletedDocument { deleted: deleted.deleted, revision: deleted.revision })?;
        }
    }
    output.flush()?;
    Ok(if deleted.deleted == 0 { Exit::NotFound } else { Exit::Done })
}

#[derive(Serialize)]
struct CursorDocument {
    cursor: String,
}

/// `mesh range`
pub(super) fn range(flags: &ClientFlags, asked: &RangeFlags, output: &mut Output) -> Result<Exit, CliError> {
    let range = range_of(asked);
    wait(async {
        let (cluster, _) = connect(flags).await?;
        let mut items = cluster.range(range).deadline(flags.timeout);
        let printed = print_items(&mut items, asked, output).await;
        if let Err(error @ CliError::Io { .. }) = printed {
            return Err(error);
        }
        if let Some(cursor) = items.cursor() {
            match output.format() {
                Format::Text => output.note(format_args!("there may be more: go on with --cursor {cursor}")),
                Format::Json => output.document(&CursorDocument { cursor: cursor.to_string() })?,
            }
        }
        printed?;
        output.flush()?;
        Ok(Exit::Done)
    })
}

fn range_of(asked: &RangeFlags) -> Range {
    let bound = |bound: &Option<Key>| bound.as_ref().map(|key| key.as_bytes().to_vec()).unwrap_or_default();
    let mut range = match &asked.prefix {
        Some(prefix) => Range::prefix(prefix.as_bytes()),
        None => Range::between(bound(&asked.from), bound(&asked.to)),
    };
    if let Some(limit) = asked.limit {
        range = range.limit(limit);
    }
    if asked.keys_only {
        range = range.keys_only();
    }
    if asked.reverse {
        range = range.reverse();
    }
    match &asked.cursor {
        Some(cursor) => range.resume(cursor.clone()),
        None => range,
    }
}

async fn print_items(items: &mut Items, asked: &RangeFlags, output: &mut Output) -> Result<(), CliError> {
    while let Some(entry) = items.next().await {
        let entry = entry?;
        match output.format() {
            Format::Text if asked.keys_only => output.line(readable(&entry.key))?,
            Format::Text => {
                output.line(format_args!("{}\t{}", readable(&entry.key), readable(&entry.item.value)))?;
            }
            Format::Json => {
                let value = (!asked.keys_only).then_some(&entry.item.value);
                output.document(&ItemDocument::new(&entry.key, &entry.item, value))?;
            }
        }
    }
    Ok(())
}
