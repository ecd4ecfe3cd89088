//! RocksDB: a batch is one write with its log synced, into recycled log files, as its documentation advises for synced writes; a
//! Bloom filter of ten bits for each key; as many background threads as processors. Many reads at a time are threads, each with
//! one: a multi-get reads file by file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rocksdb::{BlockBasedOptions, Cache, DB, DBCompressionType, Options, WriteBatch, WriteOptions};

use super::super::data::{Key, Put};
use super::super::files::space_of;
use super::super::system::{InFlight, Run, System, failed, look_at, not_found};

/// How the files are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reading {
    /// Through the system's page cache, where that is the store's way.
    Cached,
    /// With `O_DIRECT`, so that its own cache is all there is.
    Direct,
}

const NAME: &str = "RocksDB";
const FILTER_BITS: f64 = 10.0;
const RECYCLED_LOGS: usize = 4;
/// What says that its threads work, or are about to.
const BACKGROUND: [&str; 4] = [
    "rocksdb.mem-table-flush-pending",
    "rocksdb.num-running-flushes",
    "rocksdb.compaction-pending",
    "rocksdb.num-running-compactions",
];

pub(super) struct RocksDb {
    directory: PathBuf,
    database: DB,
    synced: WriteOptions,
}

impl RocksDb {
    pub(super) fn new(directory: &Path, cache_bytes: usize, reading: Reading) -> Run<Self> {
        let cache = Cache::new_lru_cache(cache_bytes).map_err(failed(NAME))?;
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&cache);
        blocks.set_bloom_filter(FILTER_BITS, false);
        blocks.set_format_version(5);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_compression_type(DBCompressionType::None);
        let processors = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        options.increase_parallelism(i32::try_from(processors).unwrap_or(i32::MAX));
        options.set_recycle_log_file_num(RECYCLED_LOGS);
        if reading == Reading::Direct {
            options.set_use_direct_reads(true);
            options.set_use_direct_io_for_flush_and_compaction(true);
            // What its indexes and filters take counts as cache, as Mesh's upper pages do.
            blocks.set_cache_index_and_filter_blocks(true);
            blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
        }
        options.set_block_based_table_factory(&blocks);
        let database = DB::open(&options, directory).map_err(failed(NAME))?;
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        Ok(Self { directory: directory.to_path_buf(), database, synced })
    }

    fn get_all(&self, keys: &[Key]) -> Run<()> {
        for key in keys {
            let value = self.database.get_pinned(key).map_err(failed(NAME))?;
            look_at(&value.ok_or_else(|| not_found(NAME))?);
        }
        Ok(())
    }
}

impl System for RocksDb {
    fn name(&self) -> &'static str {
        NAME
    }

    fn gets(&mut self, keys: &[Key]) -> Run<()> {
        self.get_all(keys)
    }

    fn ranges(&mut self, starts: &[Key], count: usize) -> Run<()> {
        let mut iterator = self.database.raw_iterator();
        for start in starts {
            iterator.seek(start);
            for _ in 0..count {
                look_at(iterator.value().ok_or_else(|| not_found(NAME))?);
                iterator.next();
            }
            iterator.status().map_err(failed(NAME))?;
        }
        Ok(())
    }

    fn put(&mut self, puts: &[Put<'_>]) -> Run<()> {
        let mut batch = WriteBatch::default();
        for put in puts {
            batch.put(put.key, put.value);
        }
        self.database.write_opt(batch, &self.synced).map_err(failed(NAME))
    }

    fn tidy(&mut self) -> Run<()> {
        self.database.flush().map_err(failed(NAME))?;
        self.database.compact_range(None::<&[u8]>, None::<&[u8]>);
        Ok(())
    }

    fn quiet(&mut self, time: Duration) -> Run<()> {
        std::thread::sleep(time);
        Ok(())
    }

    fn is_busy(&self) -> Run<bool> {
        for property in BACKGROUND {
            let count = self.database.property_int_value(property).map_err(failed(NAME))?;
            if count.is_some_and(|count| count > 0) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn disk_bytes(&self) -> Run<u64> {
        space_of(&self.directory).map_err(failed(NAME))
    }
}

impl InFlight for RocksDb {
    fn gets_in_flight(&mut self, keys: &[Key], in_flight: usize) -> Run<()> {
        let share = keys.len().div_ceil(in_flight).max(1);
        let this = &*self;
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                keys.chunks(share).map(|keys| scope.spawn(move || this.get_all(keys))).collect();
            threads.into_iter().try_for_each(|thread| {
                thread.join().unwrap_or_else(|_| Err(failed(NAME)("a thread panicked")))
            })
        })
    }
}
