//! Every operation on a real file system, and what the kernel says of the descriptors.

use std::fs;
use std::future::Future;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;
use glommio::LocalExecutorBuilder;
use mesh_base::io::{FileId, IoErrorKind, IoOp, IoPort, IoQueue, IoValue, Lane};
use mesh_base::limits::SECTOR_BYTES;
use mesh_base::{ReplicaId, SegmentNo, ShardId};

use super::Disk;
use super::operation::all_or_nothing;
use crate::core::{CoreEvent, DirectoryKey};
use crate::host::bell::step_aside;
use crate::host::inbox::Inbox;
use crate::host::sockets::Sockets;
use crate::host::tests::on_disk;

const DIRECTORY: DirectoryKey = DirectoryKey::Replica { shard: ShardId(3), replica: ReplicaId(9) };
const SEGMENT: FileId = FileId::Segment(SegmentNo(1));

struct Bench {
    disk: Rc<Disk>,
    inbox: Rc<Inbox>,
    data: PathBuf,
    port: IoPort,
}

impl Bench {
    fn submit(&mut self, op: IoOp) {
        let mut queue = IoQueue::new();
        self.port.submit(&mut queue, op);
        queue.drain().for_each(|submission| self.disk.submit(DIRECTORY, submission));
        self.disk.flush();
    }

    /// The results of what was submitted, in the order of submission.
    async fn results(&self, count: usize) -> Vec<Result<IoValue, IoErrorKind>> {
        let mut events = Vec::new();
        while events.len() < count {
            self.disk.look();
            self.inbox.take(&mut events);
            step_aside().await;
        }
        let mut results: Vec<_> = events
            .into_iter()
            .map(|event| match event {
                CoreEvent::Io { directory: DIRECTORY, completion } => completion,
                other => panic!("{other:?}"),
            })
            .collect();
        results.sort_by_key(|completion| completion.token);
        results.into_iter().map(|completion| completion.result.map_err(|error| error.kind)).collect()
    }

    async fn perform(&mut self, op: IoOp) -> Result<IoValue, IoErrorKind> {
        self.submit(op);
        self.results(1).await.remove(0)
    }

    async fn create(&mut self, file: FileId) {
        assert_eq!(self.perform(IoOp::Create { file }).await, Ok(IoValue::Done));
    }

    async fn write(&mut self, file: FileId, offset: u64, data: Vec<u8>) {
        let written = self.perform(IoOp::Write { file, offset, data: data.into() }).await;
        assert_eq!(written, Ok(IoValue::Done));
    }

    async fn read(&mut self, file: FileId, offset: u64, length: usize) -> Bytes {
        match self.perform(IoOp::Read { file, offset, length }).await {
            Ok(IoValue::Read(bytes)) => bytes,
            other => panic!("{other:?}"),
        }
    }

    fn path(&self, file: FileId) -> PathBuf {
        self.data.join(DIRECTORY.to_string()).join(file.name())
    }
}

fn bench<F: Future<Output = ()> + 'static>(test: impl FnOnce(Bench) -> F + 'static) {
    let data = on_disk();
    let path = data.path().to_path_buf();
    LocalExecutorBuilder::default().io_memory(64 * 1024).make().unwrap().run(async move {
        let inbox = Rc::new(Inbox::new());
        let disk = Disk::new(path.clone(), Rc::clone(&inbox), &Sockets::new().unwrap()).unwrap();
        test(Bench { disk, inbox, data: path, port: IoPort::new(Lane::Log) }).await;
    });
}

fn pattern(sectors: usize, seed: usize) -> Vec<u8> {
    (0..sectors * SECTOR_BYTES).map(|at| u8::try_from((at / 7 + seed) % 251).unwrap()).collect()
}

/// The flags of this process's descriptors of a file, as the kernel has them.
fn descriptor_flags(file: &Path) -> Vec<u32> {
    let of_file = |entry: &fs::DirEntry| fs::read_link(entry.path()).is_ok_and(|target| target == file);
    fs::read_dir("/proc/self/fd")
        .unwrap()
        .flatten()
        .filter(of_file)
        .map(|entry| {
            let info = Path::new("/proc/self/fdinfo").join(entry.file_name());
            let text = fs::read_to_string(info).unwrap();
            let flags = text.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
            u32::from_str_radix(flags.trim(), 8).unwrap()
        })
        .collect()
}

#[test]
fn what_is_written_is_read_back_and_the_end_of_the_file_is_told() {
    bench(|mut bench| async move {
        bench.create(SEGMENT).await;
        bench.write(SEGMENT, 0, pattern(3, 0)).await;
        bench.write(SEGMENT, 4096, pattern(1, 5)).await;
        assert_eq!(bench.read(SEGMENT, 4096, 4096).await, pattern(1, 5));
        assert_eq!(bench.read(SEGMENT, 8192, 1 << 20).await, pattern(3, 0)[8192..]);
        assert_eq!(bench.read(SEGMENT, 1 << 30, 4096).await, b""[..]);
        // A file that ends within a sector.
        fs::write(bench.path(FileId::Identity), vec![7; 5000]).unwrap();
        assert_eq!(bench.read(FileId::Identity, 0, 16384).await, vec![7; 5000]);
    });
}

#[test]
fn a_write_of_many_megabytes_is_whole() {
    bench(|mut bench| async move {
        bench.create(FileId::Store).await;
        let data = pattern(9 * 256 + 3, 1);
        bench.write(FileId::Store, 8192, data.clone()).await;
        assert_eq!(bench.perform(IoOp::Sync { file: FileId::Store }).await, Ok(IoValue::Done));
        assert_eq!(bench.read(FileId::Store, 8192, data.len()).await, data);
        assert_eq!(bench.read(FileId::Store, 0, 8192).await, vec![0; 8192]);
    });
}

#[test]
fn a_file_is_made_once_and_must_be_there_to_be_used() {
    bench(|mut bench| async move {
        let missing = bench.perform(IoOp::Read { file: SEGMENT, offset: 0, length: 4096 }).await;
        assert_eq!(missing, Err(IoErrorKind::NotFound));
        assert_eq!(bench.perform(IoOp::Sync { file: SEGMENT }).await, Err(IoErrorKind::NotFound));
        bench.create(SEGMENT).await;
        assert_eq!(bench.perform(IoOp::Create { file: SEGMENT }).await, Err(IoErrorKind::Exists));
        // It can be used all the same, and once more after it was removed and made anew.
        bench.write(SEGMENT, 0, pattern(1, 1)).await;
        assert_eq!(bench.perform(IoOp::Remove { file: SEGMENT }).await, Ok(IoValue::Done));
        assert_eq!(bench.perform(IoOp::Remove { file: SEGMENT }).await, Ok(IoValue::Done));
        bench.create(SEGMENT).await;
        assert_eq!(bench.read(SEGMENT, 0, 4096).await, b""[..]);
    });
}

#[test]
fn a_log_is_durable_on_completion_and_nothing_goes_through_the_page_cache() {
    use rustix::fs::OFlags;
    bench(|mut bench| async move {
        for (file, durable) in [
            (SEGMENT, true),
            (FileId::SpareSegment(4), true),
            (FileId::Identity, true),
            (FileId::Store, false),
            (FileId::StagedStore, false),
        ] {
            bench.create(file).await;
            let flags = descriptor_flags(&bench.path(file).canonicalize().unwrap());
            assert!(!flags.is_empty(), "{file} is open");
            for flags in flags.into_iter().map(OFlags::from_bits_retain) {
                assert!(flags.contains(OFlags::DIRECT), "{file}");
                assert_eq!(flags.contains(OFlags::DSYNC), durable, "{file}");
            }
        }
    });
}

#[test]
fn space_is_really_taken_and_reads_as_zeros() {
    bench(|mut bench| async move {
        bench.create(SEGMENT).await;
        bench.write(SEGMENT, 0, pattern(1, 1)).await;
        let allocate = |offset, length| IoOp::Allocate { file: SEGMENT, offset, length };
        assert_eq!(bench.perform(allocate(8192, 1 << 20)).await, Ok(IoValue::Done));
        let found = fs::metadata(bench.path(SEGMENT)).unwrap();
        assert_eq!(found.len(), 8192 + (1 << 20));
        assert!(found.blocks() * 512 >= 1 << 20, "{} blocks", found.blocks());
        assert_eq!(bench.perform(allocate(0, 4096)).await, Ok(IoValue::Done));
        assert_eq!(bench.read(SEGMENT, 0, 4096).await, pattern(1, 1));
        assert_eq!(bench.read(SEGMENT, 8192, 1 << 20).await, vec![0; 1 << 20]);
    });
}

#[test]
fn an_allocation_without_space_leaves_the_file_as_long_as_it_was() {
    let data = on_disk();
    let file = fs::File::create(data.path().join("file")).unwrap();
    file.set_len(8192).unwrap();
    let length = || file.metadata().unwrap().len();
    let descriptor = OwnedFd::from(file.try_clone().unwrap());
    let lengthen = |end: u64, error: Option<ErrorKind>| {
        all_or_nothing(&descriptor, |_| {
            file.set_len(end)?;
            error.map_or(Ok(()), |kind| Err(kind.into()))
        })
    };
    for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
        assert_eq!(lengthen(1 << 20, Some(kind)).unwrap_err().kind(), kind);
        assert_eq!(length(), 8192);
    }
    assert!(lengthen(1 << 20, None).is_ok());
    assert_eq!(length(), 1 << 20);
}

#[test]
fn a_file_is_made_shorter_and_never_longer_and_its_space_is_given_back() {
    bench(|mut bench| async move {
        bench.create(FileId::Store).await;
        let allocate = IoOp::Allocate { file: FileId::Store, offset: 0, length: 4 << 20 };
        assert_eq!(bench.perform(allocate).await, Ok(IoValue::Done));
        bench.write(FileId::Store, 0, pattern(1, 1)).await;
        for length in [8192, 1 << 20] {
            let truncate = IoOp::Truncate { file: FileId::Store, length };
            assert_eq!(bench.perform(truncate).await, Ok(IoValue::Done));
            let found = fs::metadata(bench.path(FileId::Store)).unwrap();
            assert_eq!(found.len(), 8192);
            assert!(found.blocks() * 512 < 1 << 20, "{} blocks", found.blocks());
        }
        assert_eq!(bench.read(FileId::Store, 0, 4096).await, pattern(1, 1));
        assert!(bench.read(FileId::Store, 1 << 20, 4096).await.is_empty());
    });
}

#[test]
fn a_listing_has_the_known_files_in_order_with_their_lengths() {
    bench(|mut bench| async move {
        assert_eq!(bench.perform(IoOp::List).await, Ok(IoValue::Listing(Vec::new())));
        let (second, spare) = (FileId::Segment(SegmentNo(2)), FileId::SpareSegment(1));
        for file in [FileId::Store, second, spare, SEGMENT] {
            bench.create(file).await;
        }
        bench.write(second, 4096, pattern(1, 1)).await;
        fs::write(bench.data.join(DIRECTORY.to_string()).join("notes.txt"), "x").unwrap();
        let expected = vec![(SEGMENT, 0), (second, 8192), (spare, 0), (FileId::Store, 0)];
        assert_eq!(bench.perform(IoOp::List).await, Ok(IoValue::Listing(expected)));
        assert_eq!(bench.perform(IoOp::SyncDirectory).await, Ok(IoValue::Done));
    });
}

#[test]
fn a_renamed_file_is_found_under_its_new_name_only() {
    bench(|mut bench| async move {
        let spare = FileId::SpareSegment(1);
        bench.create(spare).await;
        bench.write(spare, 0, pattern(1, 8)).await;
        bench.create(SEGMENT).await;
        bench.write(SEGMENT, 0, pattern(2, 9)).await;
        let rename = IoOp::Rename { from: spare, to: SEGMENT };
        assert_eq!(bench.perform(rename.clone()).await, Ok(IoValue::Done));
        assert_eq!(bench.read(SEGMENT, 0, 8192).await, pattern(1, 8));
        let gone = bench.perform(IoOp::Read { file: spare, offset: 0, length: 4096 }).await;
        assert_eq!(gone, Err(IoErrorKind::NotFound));
        assert_eq!(bench.perform(rename).await, Err(IoErrorKind::NotFound));
        assert_eq!(bench.read(SEGMENT, 0, 8192).await, pattern(1, 8));
    });
}

#[test]
fn many_operations_at_once_all_complete_and_open_a_file_once() {
    bench(|mut bench| async move {
        bench.create(SEGMENT).await;
        bench.perform(IoOp::Allocate { file: SEGMENT, offset: 0, length: 4096 * 400 }).await.unwrap();
        // Forgets the descriptor, so that all of them ask for it at the same time.
        bench.disk.files.forget(DIRECTORY, SEGMENT);
        for number in 0..400 {
            let data = Bytes::from(vec![u8::try_from(number % 250).unwrap(); 4096]);
            bench.submit(IoOp::Write { file: SEGMENT, offset: number * 4096, data });
        }
        assert!(!bench.disk.is_idle());
        let results = bench.results(400).await;
        assert!(results.iter().all(Result::is_ok));
        assert!(bench.disk.is_idle());
        assert_eq!(descriptor_flags(&bench.path(SEGMENT).canonicalize().unwrap()).len(), 1);
        let all = bench.read(SEGMENT, 0, 4096 * 400).await;
        assert!(
            all.chunks(4096)
                .enumerate()
                .all(|(number, sector)| { sector.iter().all(|&byte| usize::from(byte) == number % 250) })
        );
    });
}

#[test]
fn a_replica_that_is_gone_for_good_leaves_nothing_behind() {
    bench(|mut bench| async move {
        bench.create(SEGMENT).await;
        bench.write(SEGMENT, 0, pattern(1, 1)).await;
        let directory = bench.data.join(DIRECTORY.to_string());
        assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
        for number in 0..20 {
            let data = Bytes::from(vec![1; 4096]);
            bench.submit(IoOp::Write { file: SEGMENT, offset: number * 4096, data });
        }
        bench.disk.files.forget(DIRECTORY, SEGMENT);
        bench.disk.remove_directory(DIRECTORY);
        assert!(bench.results(20).await.iter().all(Result::is_ok), "what was under way is not disturbed");
        while !bench.disk.is_idle() {
            step_aside().await;
        }
        assert!(!directory.exists());
        // It is made again when it is needed again.
        assert_eq!(bench.perform(IoOp::List).await, Ok(IoValue::Listing(Vec::new())));
        assert!(directory.exists());
    });
}
