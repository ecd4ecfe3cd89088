//! What the fuzz targets do with their bytes, apart from the harness: a test of the crate runs them with drawn bytes too.
//!
//! Input is a list of edits of something genuine, since no mutation finds a checksum: which part, where in it, what with.
//! Then the checksums are made right, from the part edited up to the superblock. Only FORMAT.md is relied on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a target fails so"
)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::missing_panics_doc,
    reason = "sizes are small, and so is the text"
)]

use std::sync::OnceLock;

use mesh_base::checksum::xxh3;
use mesh_base::io::{FileId, IoQueue};
use mesh_base::memory::MemoryDirectory;
use mesh_base::{
    CheckpointNo, ClusterId, LogIndex, Namespace, ReplicaId, ReplicaIdentity, Revision, SessionId, ShardId,
    Term,
};
use mesh_engine::effect::{Effect, EntryBuilder, EntryHead, EntryView, SessionIds};
use mesh_engine::{
    Attributes, CellWrite, Change, CheckpointMeta, IngestProgress, KeyRange, Lookup, Opening, ScanDirection,
    ScanEnd, ScanRequest, ScanRest, SnapshotSource, Store, StoreError, StoreEvent, StoreOptions, Want,
};

const IDENTITY: ReplicaIdentity =
    ReplicaIdentity { cluster: ClusterId([5; 16]), shard: ShardId(1), replica: ReplicaId(42) };
const PAGE: usize = 4096;
/// Where the copies of the superblock are.
const COPIES: [usize; 4] = [0, 16_384, 32_768, 49_152];
/// Turns after which something is taken to hang.
const TURNS_MAX: usize = 100_000;

fn options() -> StoreOptions {
    StoreOptions {
        page_bytes: PAGE,
        key_bytes_max: 600,
        frame_bytes_max: 64 * PAGE,
        grow_bytes: 16 * PAGE,
        ..StoreOptions::default()
    }
}

fn key(number: u64) -> Vec<u8> {
    format!("key-{:03}", number * 29 % 60).into_bytes()
}

/// A store and the directory it is in.
struct Rig {
    directory: MemoryDirectory,
    io: IoQueue,
    store: Store,
}

impl Rig {
    fn finish(
        mut opening: Opening,
        mut directory: MemoryDirectory,
        mut io: IoQueue,
    ) -> Result<Self, StoreError> {
        for _ in 0..TURNS_MAX {
            let submissions: Vec<_> = io.drain().collect();
            for submission in submissions {
                if let Some(opened) = opening.complete(directory.perform(submission), &mut io)? {
                    return Ok(Self { directory, io, store: opened.store });
                }
            }
        }
        panic!("opening hangs");
    }

    fn create(file: FileId) -> Self {
        let mut io = IoQueue::new();
        let opening = Opening::create(file, IDENTITY, options(), &mut io);
        Self::finish(opening, MemoryDirectory::new(64 << 20), io).expect("a new store")
    }

    fn open(image: Vec<u8>) -> Result<Self, StoreError> {
        let (mut directory, mut io) = (MemoryDirectory::new(64 << 20), IoQueue::new());
        directory.put(FileId::Store, image);
        let opening = Opening::open(FileId::Store, IDENTITY, options(), CheckpointNo(0), &mut io);
        Self::finish(opening, directory, io)
    }

    /// Does what is to be done until an event comes, or nothing is left.
    fn event(&mut self) -> Result<Option<StoreEvent>, StoreError> {
        for _ in 0..TURNS_MAX {
            self.store.pump(&mut self.io)?;
            if let Some(event) = self.store.next_event() {
                return Ok(Some(event));
            }
            let submissions: Vec<_> = self.io.drain().collect();
            if submissions.is_empty() {
                return Ok(None);
            }
            for submission in submissions {
                self.store.complete(self.directory.perform(submission), &mut self.io)?;
            }
        }
        panic!("the store hangs");
    }

    /// Repeats an operation, fetching what it misses, until it is done.
    fn until_ready<T>(
        &mut self,
        mut operation: impl FnMut(&mut Store) -> Result<Lookup<T>, StoreError>,
    ) -> Result<T, StoreError> {
        let mut fetches = Vec::new();
        for _ in 0..TURNS_MAX {
            match operation(&mut self.store)? {
                Lookup::Ready(done) => {
                    fetches.into_iter().for_each(|fetch| self.store.release(fetch));
                    return Ok(done);
                }
                Lookup::Miss(misses) => {
                    fetches.push(self.store.fetch(&misses, &mut self.io));
                    self.event()?;
                }
            }
        }
        panic!("an operation does not get to its end");
    }

    fn checkpoint(&mut self) -> Result<(), StoreError> {
        self.store.begin_checkpoint(&CheckpointMeta::default());
        while self.store.running_checkpoint().is_some() {
            self.event()?;
        }
        Ok(())
    }

    fn is_sound(&mut self) -> Result<bool, StoreError> {
        self.store.begin_verify()?;
        for _ in 0..TURNS_MAX {
            if let Some(StoreEvent::Verified(report)) = self.event()? {
                return Ok(report.is_sound());
            }
        }
        panic!("a verification hangs");
    }

    fn scan(&mut self, direction: ScanDirection) -> Result<usize, StoreError> {
        let request = ScanRequest {
            namespace: Namespace::USER,
            start: &[],
            end: None,
            direction,
            at: Revision::MAX,
            want: Want::Value,
            items_max: usize::MAX,
            bytes_max: usize::MAX,
        };
        let (mut rest, mut items) = (ScanRest { start: Vec::new(), end: None }, 0);
        for _ in 0..TURNS_MAX {
            let outcome = self.store.scan(&rest.request(&request), |_, _| items += 1)?;
            match outcome.end {
                ScanEnd::Complete => return Ok(items),
                ScanEnd::Limit { rest: next } => rest = next,
                ScanEnd::Miss { rest: next, misses } => {
                    rest = next;
                    self.store.fetch(&misses, &mut self.io);
                    self.event()?;
                }
            }
        }
        panic!("a scan hangs");
    }

    fn chunks(&mut self, bytes_max: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        let pin = self.store.pin();
        let mut chunks = Vec::new();
        let mut from = None;
        for _ in 0..TURNS_MAX {
            let chunk = self.until_ready(|store| {
                store.scan_cells(pin, KeyRange::starting_at(from.as_ref()), bytes_max)
            })?;
            chunks.push(chunk.bytes.to_vec());
            from = chunk.next;
            if from.is_none() {
                return Ok(chunks);
            }
        }
        panic!("a snapshot hangs");
    }
}

/// A part of a genuine file whose checksum stands elsewhere in it.
struct Part {
    start: usize,
    bytes: usize,
    checksum: [u8; 8],
    /// Parts of a lower rank are pointed at by those of a higher one.
    rank: u8,
}

struct Genuine {
    image: Vec<u8>,
    parts: Vec<Part>,
    /// Where the newest superblock copy is.
    newest: usize,
}

fn genuine() -> &'static Genuine {
    static GENUINE: OnceLock<Genuine> = OnceLock::new();
    GENUINE.get_or_init(|| {
        let mut rig = Rig::create(FileId::Store);
        for round in 1..=2 {
            for number in 0..50_u64 {
                let (name, revision) = (key(number), Revision(round * 100 + number));
                let value = vec![number as u8; if number % 20 == 7 { 5000 } else { 200 }];
                let attributes =
                    Attributes { lease: number % 3, expiry_ms: number % 5, ..Attributes::created(revision) };
                let change =
                    if number % 9 == 4 { Change::Delete } else { Change::Put { attributes, value: &value } };
                let write = CellWrite { namespace: Namespace::USER, key: &name, revision, change };
                rig.until_ready(|store| store.write(&[write])).unwrap();
            }
            rig.checkpoint().unwrap();
        }
        assert!(rig.is_sound().unwrap());
        let image = rig.directory.bytes(FileId::Store).unwrap().to_vec();
        let newest = COPIES[rig.store.checkpoint().checkpoint.get() as usize % 4];
        let parts = parts_of(&image, newest);
        Genuine { image, parts, newest }
    })
}

/// The pages and extents that the newest superblock copy leads to, found by their checksums.
fn parts_of(image: &[u8], newest: usize) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut sources = vec![image[newest..newest + PAGE].to_vec()];
    while let Some(source) = sources.pop() {
        for start in (COPIES.len() * COPIES[1]..image.len()).step_by(PAGE) {
            if parts.iter().any(|part| part.start == start) || image[start..start + 2] == [0, 0] {
                continue;
            }
            let longest = if image[start] == 5 { 4 } else { 1 };
            for bytes in (1..=longest).map(|pages| pages * PAGE) {
                let Some(part) = image.get(start..start + bytes) else { break };
                let checksum = xxh3(part).max(1).to_le_bytes();
                if source.windows(8).any(|window| window == checksum) {
                    let rank = match image[start] {
                        5 => 0,
                        1 | 2 => 1 + image[start + 1],
                        3 => 100,
                        _ => 101,
                    };
                    parts.push(Part { start, bytes, checksum, rank });
                    sources.push(part.to_vec());
                    break;
                }
            }
        }
    }
    parts.sort_by_key(|part| (part.rank, part.start));
    parts
}

/// Applies edits (part, offset in two bytes, count, bytes) to the places given.
fn edit(image: &mut [u8], places: &[(usize, usize)], mut data: &[u8]) {
    while let Some(([part, low, high, count], rest)) = data.split_first_chunk() {
        let (start, bytes) = places[usize::from(*part) % places.len()];
        let offset = start + usize::from(u16::from_le_bytes([*low, *high])) % bytes;
        let count = (usize::from(*count) % 32 + 1).min(rest.len()).min(start + bytes - offset);
        image[offset..offset + count].copy_from_slice(&rest[..count]);
        data = &rest[count..];
    }
}

/// Makes every checksum above what was edited right.
fn reseal(image: &mut [u8], genuine: &Genuine) {
    for part in &genuine.parts {
        let range = part.start..part.start + part.bytes;
        if image[range.clone()] == genuine.image[range.clone()] {
            continue;
        }
        let checksum = xxh3(&image[range]).max(1).to_le_bytes();
        let above = genuine.parts.iter().filter(|other| other.rank > part.rank);
        let above = above.map(|other| (other.start, other.bytes)).chain([(genuine.newest, PAGE)]);
        for (start, bytes) in above.collect::<Vec<_>>() {
            let found = image[start..start + bytes].windows(8).position(|window| window == part.checksum);
            if let Some(at) = found {
                image[start + at..start + at + 8].copy_from_slice(&checksum);
            }
        }
    }
    for copy in COPIES {
        let checksum = xxh3(&image[copy..copy + PAGE - 8]).to_le_bytes();
        image[copy + PAGE - 8..copy + PAGE].copy_from_slice(&checksum);
    }
}

/// Opens a file and reads all of it in every way: each gives what is there, or an error.
fn read(image: &[u8]) {
    let Ok(mut rig) = reopened(image) else { return };
    let is_sound = rig.is_sound() == Ok(true);
    let mut look = |read: &mut dyn FnMut(&mut Rig) -> Result<(), StoreError>| {
        if let Err(error) = read(&mut rig)
            && !matches!(error, StoreError::Compacted { .. })
        {
            assert!(!is_sound, "sound, and not to be read: {error}");
            // It is poisoned.
            rig = reopened(image).expect("it opened before");
        }
    };
    look(&mut |rig| rig.chunks(3000).map(drop));
    look(&mut |rig| rig.scan(ScanDirection::Forward).map(drop));
    look(&mut |rig| rig.scan(ScanDirection::Reverse).map(drop));
    for name in (0..60).step_by(7).map(key) {
        for (at, want) in [(Revision::MAX, Want::Value), (Revision(120), Want::Head)] {
            look(&mut |rig| {
                rig.until_ready(|store| {
                    let read = store.get(Namespace::USER, &name, at, want)?;
                    Ok(read.map(|found| drop(format!("{found:?}"))))
                })
            });
        }
    }
    look(&mut |rig| {
        let bytes = |offset: u64, length: usize| {
            let start = usize::try_from(offset).ok()?;
            image.get(start..start.checked_add(length)?).map(|bytes| bytes.to_vec().into())
        };
        rig.store.walk(&bytes, &mut |cell| drop(format!("{cell:?}")))
    });
}

fn reopened(image: &[u8]) -> Result<Rig, StoreError> {
    Rig::open(image.to_vec())
}

/// A store whose tree pages and extents have bytes changed, every checksum above them made right.
pub fn pages(data: &[u8]) {
    let genuine = genuine();
    let places: Vec<_> =
        genuine.parts.iter().filter(|part| part.rank < 100).map(|part| (part.start, part.bytes)).collect();
    let mut image = genuine.image.clone();
    edit(&mut image, &places, data);
    reseal(&mut image, genuine);
    read(&image);
}

/// A store whose superblock copies, bitmaps and index pages have bytes changed, every checksum made right.
pub fn superblocks(data: &[u8]) {
    let genuine = genuine();
    let pages = genuine.parts.iter().filter(|part| part.rank >= 100).map(|part| (part.start, part.bytes));
    // The fields, more often than the zeros behind them.
    let copies = COPIES.iter().map(|copy| (*copy, 256));
    let places: Vec<_> = pages.chain(copies).chain([(genuine.newest, 256), (genuine.newest, PAGE)]).collect();
    let mut image = genuine.image.clone();
    edit(&mut image, &places, data);
    reseal(&mut image, genuine);
    read(&image);
}

/// The payload of a log entry: as it comes, and as edits of a genuine one.
pub fn entries(data: &[u8]) {
    read_entry(data);
    static GENUINE: OnceLock<Vec<u8>> = OnceLock::new();
    let mut entry = GENUINE.get_or_init(genuine_entry).clone();
    let whole = entry.len();
    let root = whole.min(200);
    edit(&mut entry, &[(0, whole), (whole - root, root)], data);
    read_entry(&entry);
}

fn genuine_entry() -> Vec<u8> {
    let (namespace, revision) = (Namespace::USER, Revision(77));
    let sessions = [SessionId(Revision(3)), SessionId(Revision(9))];
    let mut builder = EntryBuilder::new();
    for effect in [
        Effect::Put {
            namespace,
            key: b"a key",
            revision,
            attributes: Attributes::created(revision),
            value: b"a value",
        },
        Effect::Delete { namespace, key: b"another key", revision },
        Effect::SessionOpen { session: sessions[0], nonce: 5 },
        Effect::SessionEvict { sessions: SessionIds::new(&sessions), evicted_up_to: sessions[1] },
        Effect::Horizon { revision },
        Effect::System { key: b"record", value: Some(b"its value") },
    ] {
        builder.push(&effect);
    }
    builder.finish(EntryHead { revision_high: revision, wall_ms: 1_700_000_000_000 }).to_vec()
}

fn read_entry(bytes: &[u8]) {
    let _ = mesh_engine::effect::newest_revision(bytes);
    let Ok(entry) = EntryView::read(bytes) else { return };
    let _ = format!("{:?}", entry.head());
    for effect in entry.effects() {
        let _ = format!("{effect:?} {:?}", effect.cell_write());
    }
    entry.outcomes().for_each(|outcome| drop(format!("{outcome:?}")));
    // What an entry says to write can be written or is refused.
    let mut rig = Rig::create(FileId::Store);
    let writes: Vec<_> = entry.cell_writes().collect();
    if rig.until_ready(|store| store.write(&writes)).is_ok() {
        rig.checkpoint().expect("what was written can be sealed");
        assert!(rig.is_sound().unwrap(), "{writes:?}");
    }
}

/// A snapshot's chunks with bytes changed and their checksums made right: refused, or taken in to a store that verifies.
pub fn chunks(data: &[u8]) {
    static GENUINE: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    let genuine = GENUINE.get_or_init(|| Rig::open(genuine().image.clone()).unwrap().chunks(12_000).unwrap());
    let Some((&which, data)) = data.split_first() else { return };
    let mut chunks = genuine.clone();
    let count = chunks.len();
    let chunk = &mut chunks[usize::from(which) % count];
    let body = chunk.len() - 8;
    edit(chunk, &[(0, body), (0, 80.min(body))], data);
    let checksum = xxh3(&chunk[..body]).to_le_bytes();
    chunk[body..].copy_from_slice(&checksum);

    let mut rig = Rig::create(FileId::StagedStore);
    rig.store.begin_ingest(SnapshotSource {
        replica: ReplicaId(1),
        checkpoint: CheckpointNo(2),
        applied: LogIndex(3),
        term: Term(1),
    });
    for chunk in &chunks {
        match rig.until_ready(|store| store.ingest(chunk)) {
            Ok(IngestProgress::More) => {}
            Ok(IngestProgress::Complete) | Err(_) => break,
        }
    }
    rig.checkpoint().expect("what was taken in can be sealed");
    assert!(rig.is_sound().unwrap());
    let again = rig.chunks(12_000).expect("what was taken in can be read");
    assert!(!again.is_empty());
}
