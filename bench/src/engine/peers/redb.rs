//! redb: a transaction for each batch, durable when it commits (the default). A batch of reads is one transaction.

use std::path::{Path, PathBuf};
use std::time::Duration;

use redb::{Database, ReadableDatabase, TableDefinition};

use super::super::data::{Key, Put};
use super::super::files::space_of;
use super::super::system::{Run, System, failed, look_at, not_found};

const NAME: &str = "redb";
const DATA: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("data");

pub(super) struct Redb {
    directory: PathBuf,
    database: Database,
}

impl Redb {
    pub(super) fn new(directory: &Path, cache_bytes: usize) -> Run<Self> {
        let mut options = Database::builder();
        options.set_cache_size(cache_bytes);
        let database = options.create(directory.join("data.redb")).map_err(failed(NAME))?;
        let transaction = database.begin_write().map_err(failed(NAME))?;
        drop(transaction.open_table(DATA).map_err(failed(NAME))?);
        transaction.commit().map_err(failed(NAME))?;
        Ok(Self { directory: directory.to_path_buf(), database })
    }
}

impl System for Redb {
    fn name(&self) -> &'static str {
        NAME
    }

    fn gets(&mut self, keys: &[Key]) -> Run<()> {
        let transaction = self.database.begin_read().map_err(failed(NAME))?;
        let table = transaction.open_table(DATA).map_err(failed(NAME))?;
        for key in keys {
            let value = table.get(&key[..]).map_err(failed(NAME))?;
            look_at(value.ok_or_else(|| not_found(NAME))?.value());
        }
        Ok(())
    }

    fn ranges(&mut self, starts: &[Key], count: usize) -> Run<()> {
        let transaction = self.database.begin_read().map_err(failed(NAME))?;
        let table = transaction.open_table(DATA).map_err(failed(NAME))?;
        for start in starts {
            let mut seen = 0;
            for item in table.range(&start[..]..).map_err(failed(NAME))?.take(count) {
                let (_, value) = item.map_err(failed(NAME))?;
                look_at(value.value());
                seen += 1;
            }
            if seen != count {
                return Err(not_found(NAME));
            }
        }
        Ok(())
    }

    fn put(&mut self, puts: &[Put<'_>]) -> Run<()> {
        let transaction = self.database.begin_write().map_err(failed(NAME))?;
        let mut table = transaction.open_table(DATA).map_err(failed(NAME))?;
        for put in puts {
            table.insert(&put.key[..], put.value).map_err(failed(NAME))?;
        }
        drop(table);
        transaction.commit().map_err(failed(NAME))
    }

    fn tidy(&mut self) -> Run<()> {
        Ok(())
    }

    fn quiet(&mut self, time: Duration) -> Run<()> {
        std::thread::sleep(time);
        Ok(())
    }

    fn disk_bytes(&self) -> Run<u64> {
        space_of(&self.directory).map_err(failed(NAME))
    }
}
