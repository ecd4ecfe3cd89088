//! What a verification tells, for people and for programs.

use mesh_base::{Namespace, Revision};
use mesh_engine::{AffectedKeys, CellKey};
use serde::Serialize;

use super::super::error::CliError;
use super::super::json::{self, Encoding, Text, text};
use super::super::key::readable;
use super::super::offline::Standing;
use super::super::output::Output;
use super::super::terminal::Style;

/// Something damaged.
#[derive(Serialize, Debug)]
pub(super) struct Damage {
    /// The file, from the data directory on.
    pub(super) file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) page: Option<u64>,
    /// What is there.
    pub(super) part: String,
    pub(super) what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) keys: Option<KeysDocument>,
    /// The first and the last entry that are lost with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) entries: Option<(u64, u64)>,
}

impl Damage {
    /// Something wrong with a file as a whole.
    pub(super) fn of(file: impl Into<String>, part: &str, what: impl Into<String>) -> Self {
        let (file, part, what) = (file.into(), part.to_owned(), what.into());
        Self { file, offset: None, page: None, part, what, keys: None, entries: None }
    }

    fn line(&self) -> String {
        let mut line = self.file.clone();
        if let Some(offset) = self.offset {
            line.push_str(&format!(" at byte {offset}"));
        }
        if let Some(page) = self.page {
            line.push_str(&format!(" (page {page})"));
        }
        line.push_str(&format!(": {}: {}", self.part, self.what));
        if let Some(keys) = &self.keys {
            line.push_str(&format!("; touches {}", keys.words));
        }
        match self.entries {
            Some((first, last)) if first == last => {
                line.push_str(&format!("; entry {first} is lost with it"));
            }
            Some((first, last)) => line.push_str(&format!("; entries {first} to {last} are lost with it")),
            None => {}
        }
        line
    }
}

/// Keys that damage touches.
#[derive(Serialize, Debug)]
pub(super) struct KeysDocument {
    #[serde(flatten)]
    keys: KeysOf,
    /// Whether records of the replica itself are among them.
    own_records: bool,
    #[serde(skip)]
    words: String,
}

#[derive(Serialize, Debug)]
#[serde(untagged)]
enum KeysOf {
    /// One version of one key.
    Version {
        key: Text,
        #[serde(skip_serializing_if = "Option::is_none")]
        key_encoding: Option<Encoding>,
        #[serde(serialize_with = "json::revision")]
        revision: Revision,
    },
    /// Those from one up to, and without, another. Absent ends are the first and the last key.
    Range {
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<Text>,
        #[serde(skip_serializing_if = "Option::is_none")]
        from_encoding: Option<Encoding>,
        #[serde(skip_serializing_if = "Option::is_none")]
        to: Option<Text>,
        #[serde(skip_serializing_if = "Option::is_none")]
        to_encoding: Option<Encoding>,
    },
}

impl KeysDocument {
    pub(super) fn of(keys: &AffectedKeys) -> Self {
        let own_records = match keys {
            AffectedKeys::Version(key) | AffectedKeys::Range { from: key, .. } => is_own(key),
        };
        Self { keys: KeysOf::of(keys), own_records, words: words(keys) }
    }
}

impl KeysOf {
    fn of(keys: &AffectedKeys) -> Self {
        match keys {
            AffectedKeys::Version(key) => {
                let (text, key_encoding) = text(&key.key);
                Self::Version { key: text, key_encoding, revision: key.revision }
            }
            AffectedKeys::Range { from, to } => {
                let of_clients = |key: &&CellKey| !is_own(key) && !key.key.is_empty();
                let end = |key: Option<&CellKey>| key.filter(of_clients).map(|key| text(&key.key)).unzip();
                let ((from, from_encoding), (to, to_encoding)) = (end(Some(from)), end(to.as_ref()));
                let (from_encoding, to_encoding) = (from_encoding.flatten(), to_encoding.flatten());
                Self::Range { from, from_encoding, to, to_encoding }
            }
        }
    }
}

fn is_own(key: &CellKey) -> bool {
    key.namespace == Namespace::SYSTEM
}

fn words(keys: &AffectedKeys) -> String {
    let name = |key: &CellKey| format!("`{}`", readable(&key.key));
    match keys {
        AffectedKeys::Version(key) if is_own(key) => "a record of the replica's own".into(),
        AffectedKeys::Version(key) => format!("key {} at revision {}", name(key), key.revision),
        AffectedKeys::Range { from, to: Some(to) } if is_own(to) => {
            format!("records of the replica's own, from {} up to {}", name(from), name(to))
        }
        AffectedKeys::Range { from, to: Some(to) } if !is_own(from) && from.key == to.key => {
            format!("versions of key {}", name(from))
        }
        AffectedKeys::Range { from, to } => {
            let begin = match from {
                from if is_own(from) => "the replica's own records, and keys from the first".to_owned(),
                from if from.key.is_empty() => "keys from the first".to_owned(),
                from => format!("keys from {}", name(from)),
            };
            match to {
                Some(to) => format!("{begin} up to {}", name(to)),
                None => format!("{begin} to the last"),
            }
        }
    }
}

/// What is intact of a page store.
#[derive(Serialize, Debug)]
pub(super) struct StoreDocument {
    pub(super) file: String,
    pub(super) checkpoint: u64,
    pub(super) applied: u64,
    pub(super) pages: u64,
    pub(super) pages_in_use: u64,
    /// Pages that cannot be reached for the damage.
    pub(super) pages_unreached: u64,
    pub(super) leaves: u64,
    pub(super) interior_pages: u64,
    pub(super) extents: u64,
    /// Cells that can be read, and how many there were.
    pub(super) cells: u64,
    pub(super) cells_written: u64,
    /// Keys that can be read.
    pub(super) keys: u64,
}

/// What is intact of a log.
#[derive(Serialize, Debug)]
pub(super) struct LogDocument {
    pub(super) segments: usize,
    pub(super) batches: u64,
    pub(super) entries: u64,
    /// As a start would find it; absent if damage would keep it from starting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) recovered: Option<RecoveredDocument>,
}

#[derive(Serialize, Debug)]
pub(super) struct RecoveredDocument {
    pub(super) first_index: u64,
    pub(super) last_index: u64,
    pub(super) term: u64,
    pub(super) commit: u64,
    pub(super) least_checkpoint: u64,
}

/// One replica.
#[derive(Serialize, Debug)]
pub(super) struct ReplicaDocument {
    pub(super) shard: u16,
    pub(super) replica: u64,
    pub(super) directory: String,
    pub(super) state: &'static str,
    pub(super) intact: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) store: Option<StoreDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) log: Option<LogDocument>,
    pub(super) damage: Vec<Damage>,
    /// Damage beyond what is listed.
    pub(super) damage_not_listed: u64,
    pub(super) notes: Vec<String>,
}

/// All of a node.
#[derive(Serialize, Debug)]
pub(super) struct Document {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cluster: Option<String>,
    pub(super) intact: bool,
    /// What is damaged or missing outside of the replicas' directories.
    pub(super) damage: Vec<Damage>,
    pub(super) replicas: Vec<ReplicaDocument>,
}

/// A standing, in a word.
pub(super) const fn state(standing: Standing) -> &'static str {
    match standing {
        Standing::InUse => "in use",
        Standing::LeftOver => "left over",
        Standing::InTheMaking => "in the making",
    }
}

impl Document {
    pub(super) fn print(&self, output: &mut Output) -> Result<(), CliError> {
        let name = self.node.as_deref().unwrap_or("of unknown name");
        match &self.cluster {
            Some(cluster) => output.line(format_args!("node {name} of cluster {cluster}"))?,
            None => output.line(format_args!("node {name}"))?,
        }
        self.damage.iter().try_for_each(|damage| print_damage(damage, output))?;
        self.replicas.iter().try_for_each(|replica| replica.print(output))?;
        output.line("")?;
        let colours = output.colours();
        if self.intact {
            return output.line(colours.paint(Style::Good, "intact"));
        }
        output.line(colours.paint(Style::Bad, "damaged"))?;
        output.note(
            "Nothing was changed. A node of three or more is brought back by the others: move its data directory\n\
             away and run `mesh node replace NAME`. A single node is brought back by a copy or a backup of the directory.",
        );
        Ok(())
    }
}

impl ReplicaDocument {
    fn print(&self, output: &mut Output) -> Result<(), CliError> {
        output.line("")?;
        let state = if self.state == state(Standing::InUse) { "" } else { self.state };
        let state = if state.is_empty() { String::new() } else { format!(", {state}") };
        output.line(format_args!(
            "shard {}, replica {} ({}{state})",
            self.shard, self.replica, self.directory
        ))?;
        if let Some(store) = &self.store {
            store.print(output)?;
        }
        if let Some(log) = &self.log {
            log.print(output)?;
        }
        self.damage.iter().try_for_each(|damage| print_damage(damage, output))?;
        if self.damage_not_listed > 0 {
            output.line(format_args!("  and {} more", self.damage_not_listed))?;
        }
        self.notes.iter().try_for_each(|note| output.line(format_args!("  note     {note}")))
    }
}

impl StoreDocument {
    fn print(&self, output: &mut Output) -> Result<(), CliError> {
        let unreached = match self.pages_unreached {
            0 => String::new(),
            pages => format!(", {pages} of them out of reach"),
        };
        let cells = if self.cells == self.cells_written {
            format!("{} cells", self.cells)
        } else {
            format!("{} of {} cells", self.cells, self.cells_written)
        };
        output.line(format_args!(
            "  store    checkpoint {}, applied {}: {} keys, {cells}; {} pages, {} in use{unreached}",
            self.checkpoint, self.applied, self.keys, self.pages, self.pages_in_use
        ))
    }
}

impl LogDocument {
    fn print(&self, output: &mut Output) -> Result<(), CliError> {
        let Self { segments, batches, entries, .. } = self;
        let read = format!("{segments} segments, {batches} batches, {entries} entries");
        match &self.recovered {
            Some(RecoveredDocument { first_index, last_index, term, commit, .. })
                if first_index <= last_index =>
            {
                output.line(format_args!(
                    "  log      entries {first_index} to {last_index}, commit {commit}, term {term}; {read}"
                ))
            }
            Some(RecoveredDocument { last_index, term, commit, .. }) => output.line(format_args!(
                "  log      no entries behind {last_index}, commit {commit}, term {term}; {read}"
            )),
            None => output.line(format_args!("  log      {read} can be read")),
        }
    }
}

fn print_damage(damage: &Damage, output: &mut Output) -> Result<(), CliError> {
    let word = output.colours();
    output.line(format_args!("  {}  {}", word.paint(Style::Bad, "damaged"), damage.line()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(namespace: u32, key: &str) -> CellKey {
        CellKey { namespace: Namespace(namespace), key: key.into(), revision: Revision(7) }
    }

    #[test]
    fn keys_are_told_as_they_are_typed() {
        let range = |from, to| words(&AffectedKeys::Range { from, to });
        assert_eq!(range(key(1, "a\0"), Some(key(1, "b"))), r"keys from `a\x00` up to `b`");
        assert_eq!(range(key(1, ""), None), "keys from the first to the last");
        assert_eq!(range(key(1, "a"), Some(key(1, "a"))), "versions of key `a`");
        assert_eq!(
            range(key(0, ""), Some(key(1, "c"))),
            "the replica's own records, and keys from the first up to `c`"
        );
        assert_eq!(words(&AffectedKeys::Version(key(1, "a"))), "key `a` at revision 7");
    }
}
