//! What an inspection tells, as lines for people.

use mesh_base::Revision;

use super::super::error::CliError;
use super::super::key::readable;
use super::super::output::Output;
use super::super::quantity::MemorySize;
use super::super::table::{Table, plain};
use super::document::{
    CellDocument, HoldsDocument, ImageDocument, PageDocument, PositionDocument, ReplicaDocument,
    StoreDocument, VersionsDocument,
};

/// Characters of a value that are shown of it.
const VALUE_SHOWN: usize = 60;

pub(super) fn replica(document: &ReplicaDocument, output: &mut Output) -> Result<(), CliError> {
    let ReplicaDocument { shard, replica, directory, .. } = document;
    output.line(format_args!("shard {shard}, replica {replica} ({directory})"))?;
    document.errors.iter().try_for_each(|error| output.line(format_args!("  {error}")))?;
    if let Some(store) = &document.store {
        self::store(store, output)?;
    }
    segments(document, output)
}

fn store(store: &StoreDocument, output: &mut Output) -> Result<(), CliError> {
    output.line("")?;
    output.line(format_args!("  {}: {}", store.file, MemorySize(store.bytes)))?;
    let mut table = Table::new(&["  COPY AT", "CHECKPOINT", "APPLIED", "TERM", "STATE"]);
    let number =
        |number: Option<u64>| plain(number.map_or_else(|| "-".to_owned(), |number| number.to_string()));
    for copy in &store.copies {
        table.row([
            plain(format_args!("  {}", copy.offset)),
            number(copy.checkpoint),
            number(copy.applied),
            number(copy.term),
            plain(&copy.state),
        ]);
    }
    print(&table, output)?;
    store.newest.as_ref().map_or(Ok(()), |image| self::image(image, output))
}

fn image(image: &ImageDocument, output: &mut Output) -> Result<(), CliError> {
    let ImageDocument { leaves, interior_pages, extents, allocator_pages, pages, pages_in_use, .. } = image;
    let size = |pages: u64| MemorySize(pages * image.page_bytes as u64);
    for (name, value) in [
        ("cluster", image.cluster.clone()),
        ("checkpoint", format!("{}, applied {} of term {}", image.checkpoint, image.applied, image.term)),
        ("tree", format!("root at page {}, height {}", image.root.page, image.height)),
        (
            "pages",
            format!(
                "{leaves} leaves ({} % full), {interior_pages} above, {extents} extents, {allocator_pages} of the allocator",
                image.leaf_fill_percent
            ),
        ),
        (
            "space",
            format!(
                "{pages} pages of {} bytes ({}), {pages_in_use} in use ({}), {} free",
                image.page_bytes,
                size(*pages),
                size(*pages_in_use),
                pages.saturating_sub(*pages_in_use)
            ),
        ),
        ("keys", format!("{} keys, {} cells", image.keys, image.cells)),
        ("revisions", format!("newest {}, horizon {}", image.revision, image.horizon)),
    ] {
        output.line(format_args!("  {name:<11} {value}"))?;
    }
    Ok(())
}

fn segments(document: &ReplicaDocument, output: &mut Output) -> Result<(), CliError> {
    if document.log.is_empty() {
        return Ok(());
    }
    output.line("")?;
    let headings = ["  SEGMENT", "SIZE", "WRITTEN", "BATCHES", "ENTRIES", "FROM", "TO", "REVISIONS", "END"];
    let mut table = Table::new(&headings);
    let position = |at: Option<PositionDocument>| {
        plain(at.map_or_else(|| "-".to_owned(), |at| format!("{} (term {})", at.index, at.term)))
    };
    for segment in &document.log {
        let damaged = match &segment.damaged_at[..] {
            [] => String::new(),
            places => {
                let places: Vec<_> = places.iter().map(ToString::to_string).collect();
                format!(", damaged at byte {}", places.join(", "))
            }
        };
        let revisions = segment.least_revision.as_ref().zip(segment.greatest_revision.as_ref());
        table.row([
            plain(format_args!("  {}", segment.file)),
            plain(MemorySize(segment.bytes)),
            plain(MemorySize(segment.end)),
            plain(segment.batches),
            plain(segment.entries),
            position(segment.first),
            position(segment.last),
            plain(
                revisions.map_or_else(|| "-".to_owned(), |(least, greatest)| format!("{least}-{greatest}")),
            ),
            plain(format_args!("{}{damaged}", segment.tail)),
        ]);
    }
    print(&table, output)?;
    if let Some(begins) = document.log.last().and_then(|newest| newest.begins.as_ref()) {
        output.line(format_args!(
            "  the newest begins after batch {} and entry {}: term {}, vote {}, commit {}; the log starts after entry {}; \
             checkpoint {} (applied {}) must exist",
            begins.after_batch,
            begins.last.index,
            begins.term,
            begins.vote,
            begins.commit,
            begins.truncated.index,
            begins.checkpoint,
            begins.checkpoint_applied
        ))?;
        if begins.install_pending {
            output.line("  a received snapshot is to take the store's place")?;
        }
    }
    Ok(())
}

pub(super) fn page(page: &PageDocument, output: &mut Output) -> Result<(), CliError> {
    let PageDocument { shard, replica, page: number, offset, kind, level, .. } = page;
    let level = if *level > 0 { format!(", level {level}") } else { String::new() };
    output.line(format_args!(
        "shard {shard}, replica {replica}, page {number} at byte {offset}: {kind}{level}"
    ))?;
    let own = page.own_page.zip(page.own_checkpoint);
    let own = own.map(|(page, checkpoint)| format!("says it is page {page} of checkpoint {checkpoint}; "));
    output.line(format_args!("  {}checksum {}", own.unwrap_or_default(), page.checksum))?;
    if let Some(problem) = page.problem {
        output.line(format_args!("  {problem}"))?;
    }
    page.cells.iter().try_for_each(|cell| output.line(cell_line(cell)))
}

pub(super) fn versions(document: &VersionsDocument, output: &mut Output) -> Result<(), CliError> {
    let VersionsDocument { shard, replica, checkpoint, versions } = document;
    output.line(format_args!("shard {shard}, replica {replica}, checkpoint {checkpoint}"))?;
    versions.iter().try_for_each(|cell| output.line(cell_line(cell)))
}

fn cell_line(cell: &CellDocument) -> String {
    let key = if cell.key_bytes.is_empty() { "(first)".to_owned() } else { readable(&cell.key_bytes) };
    let own = if cell.namespace == 0 { "own record " } else { "" };
    let holds = match &cell.holds {
        HoldsDocument::Child { child } => {
            format!("page {} of checkpoint {}, checksum {}", child.page, child.checkpoint, child.checksum)
        }
        HoldsDocument::Deletion => "deleted".to_owned(),
        HoldsDocument::Value { value_bytes, attributes, .. } => {
            let shown: String = readable(value_bytes).chars().take(VALUE_SHOWN).collect();
            let rest = if shown.len() < readable(value_bytes).len() { "..." } else { "" };
            format!("version {}, {} bytes: {shown}{rest}", attributes.version, value_bytes.len())
        }
        HoldsDocument::Large { bytes, extents, attributes } => {
            let pages: Vec<_> = extents.iter().map(|extent| extent.page.to_string()).collect();
            format!("version {}, {bytes} bytes in extents at pages {}", attributes.version, pages.join(", "))
        }
    };
    // The newest that there can be bounds pages, and is no version.
    let revision = Some(cell.revision).filter(|revision| *revision != Revision(u64::MAX));
    let revision = revision.map(|revision| format!(" @{revision}")).unwrap_or_default();
    format!("  {own}{key}{revision}  {holds}")
}

fn print(table: &Table, output: &mut Output) -> Result<(), CliError> {
    let lines = table.lines(output.colours());
    lines.iter().try_for_each(|line| output.line(line))
}
