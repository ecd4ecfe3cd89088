//! fjall: a batch is one write to the journal, synced before it returns. A batch of reads is one look at the keyspace each.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fjall::config::CompressionPolicy;
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::super::data::{Key, Put};
use super::super::files::space_of;
use super::super::system::{Run, System, failed, look_at, not_found};

const NAME: &str = "fjall";

pub(super) struct Fjall {
    directory: PathBuf,
    database: Database,
    data: Keyspace,
}

impl Fjall {
    pub(super) fn new(directory: &Path, cache_bytes: usize) -> Run<Self> {
        let database =
            Database::builder(directory).cache_size(cache_bytes as u64).open().map_err(failed(NAME))?;
        let options = || {
            KeyspaceCreateOptions::default()
                .data_block_compression_policy(CompressionPolicy::all(CompressionType::None))
                .expect_point_read_hits(true)
        };
        let data = database.keyspace("data", options).map_err(failed(NAME))?;
        Ok(Self { directory: directory.to_path_buf(), database, data })
    }
}

impl System for Fjall {
    fn name(&self) -> &'static str {
        NAME
    }

    fn gets(&mut self, keys: &[Key]) -> Run<()> {
        for key in keys {
            let value = self.data.get(key).map_err(failed(NAME))?;
            look_at(&value.ok_or_else(|| not_found(NAME))?);
        }
        Ok(())
    }

    fn ranges(&mut self, starts: &[Key], count: usize) -> Run<()> {
        for start in starts {
            let mut seen = 0;
            for item in self.data.range(&start[..]..).take(count) {
                look_at(&item.value().map_err(failed(NAME))?);
                seen += 1;
            }
            if seen != count {
                return Err(not_found(NAME));
            }
        }
        Ok(())
    }

    fn put(&mut self, puts: &[Put<'_>]) -> Run<()> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for put in puts {
            batch.insert(&self.data, &put.key[..], put.value);
        }
        batch.commit().map_err(failed(NAME))
    }

    fn tidy(&mut self) -> Run<()> {
        self.data.rotate_memtable_and_wait().map_err(failed(NAME))?;
        self.data.major_compact().map_err(failed(NAME))
    }

    fn quiet(&mut self, time: Duration) -> Run<()> {
        std::thread::sleep(time);
        Ok(())
    }

    fn is_busy(&self) -> Run<bool> {
        Ok(self.database.outstanding_flushes() > 0 || self.database.active_compactions() > 0)
    }

    fn disk_bytes(&self) -> Run<u64> {
        space_of(&self.directory).map_err(failed(NAME))
    }
}
