//! What an inspection tells, as values; the page stores' and logs' own surveys put into words.

use bytes::Bytes;
use mesh_base::io::page_offset;
use mesh_base::{PageNo, Revision};
use mesh_engine::inspect::{
    CellHolds, CellSurvey, CopySurvey, FoundCopy, PageSurvey, PlaceSurvey, StoreImage,
};
use mesh_engine::{Attributes, StorePart, VerifyReport};
use mesh_raftlog::EntryPosition;
use mesh_raftlog::inspect::{HeaderSurvey, Tail};
use serde::Serialize;

use super::super::json::{self, Encoding, Text, text};
use super::super::offline::ReplicaDirectory;
use super::super::offline::log::SegmentFile;

#[derive(Serialize)]
pub(super) struct ReplicaDocument {
    pub(super) shard: u16,
    pub(super) replica: u64,
    pub(super) directory: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) store: Option<StoreDocument>,
    pub(super) log: Vec<SegmentDocument>,
    /// What could not be read at all.
    pub(super) errors: Vec<String>,
}

#[derive(Serialize)]
pub(super) struct StoreDocument {
    pub(super) file: String,
    pub(super) bytes: u64,
    pub(super) copies: Vec<CopyDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) newest: Option<ImageDocument>,
}

#[derive(Serialize)]
pub(super) struct CopyDocument {
    pub(super) offset: u64,
    pub(super) state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) checkpoint: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) applied: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) term: Option<u64>,
}

/// The newest checkpoint. Counts are of what can be reached.
#[derive(Serialize)]
pub(super) struct ImageDocument {
    pub(super) cluster: String,
    pub(super) shard: u16,
    pub(super) replica: u64,
    pub(super) checkpoint: u64,
    pub(super) applied: u64,
    pub(super) term: u64,
    #[serde(serialize_with = "json::revision")]
    pub(super) revision: Revision,
    #[serde(serialize_with = "json::revision")]
    pub(super) horizon: Revision,
    pub(super) page_bytes: usize,
    pub(super) key_bytes_max: u32,
    pub(super) root: PlaceDocument,
    /// Pages above the leaves on each way.
    pub(super) height: u8,
    pub(super) leaves: u64,
    pub(super) interior_pages: u64,
    pub(super) extents: u64,
    pub(super) allocator_pages: u64,
    pub(super) pages: u64,
    pub(super) pages_in_use: u64,
    /// Bytes of cells in each hundred bytes of leaves.
    pub(super) leaf_fill_percent: u64,
    pub(super) keys: u64,
    pub(super) cells: u64,
}

#[derive(Serialize)]
pub(super) struct SegmentDocument {
    pub(super) file: String,
    pub(super) bytes: u64,
    /// Where its intact batches end.
    pub(super) end: u64,
    pub(super) tail: &'static str,
    pub(super) batches: u64,
    pub(super) markers: u64,
    pub(super) entries: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) first: Option<PositionDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last: Option<PositionDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) least_revision: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) greatest_revision: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) begins: Option<BaseDocument>,
    pub(super) damaged_at: Vec<u64>,
}

/// The log as it was when a segment began.
#[derive(Serialize)]
pub(super) struct BaseDocument {
    pub(super) after_batch: u64,
    pub(super) truncated: PositionDocument,
    pub(super) last: PositionDocument,
    pub(super) term: u64,
    pub(super) vote: u64,
    pub(super) commit: u64,
    pub(super) checkpoint: u64,
    pub(super) checkpoint_applied: u64,
    pub(super) install_pending: bool,
}

#[derive(Serialize, Clone, Copy)]
pub(super) struct PositionDocument {
    pub(super) index: u64,
    pub(super) term: u64,
}

#[derive(Serialize, Clone)]
pub(super) struct PlaceDocument {
    pub(super) page: u64,
    pub(super) checksum: String,
    pub(super) checkpoint: u64,
}

#[derive(Serialize)]
pub(super) struct PageDocument {
    pub(super) shard: u16,
    pub(super) replica: u64,
    pub(super) page: u64,
    pub(super) offset: u64,
    pub(super) kind: String,
    pub(super) level: u8,
    /// The number and the checkpoint that the page itself has, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) own_page: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) own_checkpoint: Option<u64>,
    pub(super) checksum: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<&'static str>,
    pub(super) cells: Vec<CellDocument>,
}

#[derive(Serialize)]
pub(super) struct CellDocument {
    pub(super) namespace: u32,
    /// The key's bytes, for people.
    #[serde(skip)]
    pub(super) key_bytes: Vec<u8>,
    pub(super) key: Text,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key_encoding: Option<Encoding>,
    #[serde(serialize_with = "json::revision")]
    pub(super) revision: Revision,
    #[serde(flatten)]
    pub(super) holds: HoldsDocument,
}

#[derive(Serialize)]
#[serde(tag = "holds", rename_all = "snake_case")]
pub(super) enum HoldsDocument {
    Child {
        child: PlaceDocument,
    },
    Deletion,
    Value {
        /// The value's bytes, for people.
        #[serde(skip)]
        value_bytes: Bytes,
        value: Text,
        #[serde(skip_serializing_if = "Option::is_none")]
        value_encoding: Option<Encoding>,
        #[serde(flatten)]
        attributes: AttributesDocument,
    },
    Large {
        bytes: usize,
        extents: Vec<PlaceDocument>,
        #[serde(flatten)]
        attributes: AttributesDocument,
    },
}

#[derive(Serialize)]
pub(super) struct AttributesDocument {
    #[serde(serialize_with = "json::revision")]
    pub(super) create_revision: Revision,
    pub(super) version: u64,
    pub(super) lease: u64,
    pub(super) type_tag: u8,
    pub(super) expiry_ms: u64,
}

#[derive(Serialize)]
pub(super) struct VersionsDocument {
    pub(super) shard: u16,
    pub(super) replica: u64,
    pub(super) checkpoint: u64,
    pub(super) versions: Vec<CellDocument>,
}

impl CopyDocument {
    pub(super) fn of(copy: &CopySurvey) -> Self {
        let (state, image) = match &copy.found {
            FoundCopy::Empty => ("empty".to_owned(), None),
            FoundCopy::Damaged(what) => ((*what).to_owned(), None),
            FoundCopy::Newer { version } => (format!("of a newer format ({version})"), None),
            FoundCopy::Whole(image) => ("whole".to_owned(), Some(image.checkpoint())),
        };
        Self {
            offset: copy.offset,
            state,
            checkpoint: image.map(|image| image.checkpoint.get()),
            applied: image.map(|image| image.applied.get()),
            term: image.map(|image| image.term.get()),
        }
    }
}

impl ImageDocument {
    pub(super) fn of(image: &StoreImage, report: &VerifyReport) -> Self {
        let (identity, info) = (image.identity(), image.checkpoint());
        let leaf_bytes = report.leaves * image.page_bytes() as u64;
        Self {
            cluster: identity.cluster.to_string(),
            shard: identity.shard.get(),
            replica: identity.replica.get(),
            checkpoint: info.checkpoint.get(),
            applied: info.applied.get(),
            term: info.term.get(),
            revision: info.revision,
            horizon: info.horizon,
            page_bytes: image.page_bytes(),
            key_bytes_max: image.key_bytes_max(),
            root: image.root().into(),
            height: image.height(),
            leaves: report.leaves,
            interior_pages: report.interiors,
            extents: report.extents,
            allocator_pages: report.allocator_pages,
            pages: report.file_pages,
            pages_in_use: report.used_pages,
            leaf_fill_percent: report.leaf_bytes_used * 100 / leaf_bytes.max(1),
            keys: report.keys,
            cells: report.cells,
        }
    }
}

impl SegmentDocument {
    pub(super) fn of(segment: &SegmentFile) -> Self {
        let survey = &segment.survey;
        Self {
            file: segment.file.to_string(),
            bytes: segment.bytes,
            end: survey.end,
            tail: match survey.tail {
                Tail::Continued => "continued",
                Tail::Clean => "clean",
                Tail::Torn => "torn",
            },
            batches: survey.batches,
            markers: survey.markers,
            entries: survey.entries,
            first: survey.range.map(|(first, _)| first.into()),
            last: survey.range.map(|(_, last)| last.into()),
            least_revision: survey.revisions.map(|range| range.least.to_string()),
            greatest_revision: survey.revisions.map(|range| range.greatest.to_string()),
            begins: survey.header.as_ref().map(BaseDocument::of),
            damaged_at: survey.damage.iter().map(|damage| damage.offset).collect(),
        }
    }
}

impl BaseDocument {
    fn of(header: &HeaderSurvey) -> Self {
        Self {
            after_batch: header.cut.get(),
            truncated: header.truncated.into(),
            last: header.last.into(),
            term: header.hard_state.term,
            vote: header.hard_state.vote,
            commit: header.hard_state.commit,
            checkpoint: header.checkpoint.no.get(),
            checkpoint_applied: header.checkpoint.applied.get(),
            install_pending: header.install.is_some(),
        }
    }
}

impl From<EntryPosition> for PositionDocument {
    fn from(at: EntryPosition) -> Self {
        Self { index: at.index.get(), term: at.term.get() }
    }
}

impl From<PlaceSurvey> for PlaceDocument {
    fn from(place: PlaceSurvey) -> Self {
        let checksum = format!("{:016x}", place.checksum);
        Self { page: place.page.get(), checksum, checkpoint: place.checkpoint.get() }
    }
}

impl PageDocument {
    pub(super) fn of(
        replica: &ReplicaDirectory,
        image: &StoreImage,
        page: PageNo,
        survey: PageSurvey,
    ) -> Self {
        let is_page = survey.part != StorePart::Page;
        Self {
            shard: replica.shard.get(),
            replica: replica.replica.get(),
            page: page.get(),
            offset: page_offset(page, image.page_bytes()),
            kind: survey.part.to_string(),
            level: if is_page { survey.level } else { 0 },
            own_page: is_page.then_some(survey.page.get()),
            own_checkpoint: is_page.then_some(survey.checkpoint.get()),
            checksum: format!("{:016x}", survey.checksum),
            problem: survey.problem,
            cells: survey.cells.into_iter().map(CellDocument::of).collect(),
        }
    }
}

impl CellDocument {
    pub(super) fn of(cell: CellSurvey) -> Self {
        let (key, key_encoding) = text(&cell.key.key);
        let holds = match cell.holds {
            CellHolds::Child(place) => HoldsDocument::Child { child: place.into() },
            CellHolds::Deletion => HoldsDocument::Deletion,
            CellHolds::Value { value, attributes } => {
                let (text, value_encoding) = text(&value);
                let attributes = attributes.into();
                HoldsDocument::Value { value_bytes: value, value: text, value_encoding, attributes }
            }
            CellHolds::Large { bytes, extents, attributes } => {
                let extents = extents.into_iter().map(Into::into).collect();
                HoldsDocument::Large { bytes, extents, attributes: attributes.into() }
            }
        };
        let (namespace, revision) = (cell.key.namespace.get(), cell.key.revision);
        Self { namespace, key_bytes: cell.key.key, key, key_encoding, revision, holds }
    }
}

impl From<Attributes> for AttributesDocument {
    fn from(attributes: Attributes) -> Self {
        let Attributes { create_revision, version, lease, type_tag, expiry_ms, .. } = attributes;
        Self { create_revision, version, lease, type_tag, expiry_ms }
    }
}
