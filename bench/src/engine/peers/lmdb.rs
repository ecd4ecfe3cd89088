//! LMDB: a transaction for each batch, synced when it commits (the default); no writable map. Its cache is the page cache.
//! A batch of reads is one transaction.

#![allow(unsafe_code, reason = "opening a memory map is: nobody else changes the file")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use heed::types::Bytes;
use heed::{Database, Env, EnvOpenOptions};

use super::super::data::{Key, Put};
use super::super::files::space_of;
use super::super::system::{Run, System, failed, look_at, not_found};

const NAME: &str = "LMDB";
/// More than any run fills; address space alone.
const MAP_BYTES: usize = 64 << 30;

pub(super) struct Lmdb {
    directory: PathBuf,
    env: Env,
    data: Database<Bytes, Bytes>,
}

impl Lmdb {
    pub(super) fn new(directory: &Path) -> Run<Self> {
        // SAFETY: the directory was made for this environment, and nothing else opens its files.
        let env = unsafe { EnvOpenOptions::new().map_size(MAP_BYTES).open(directory) };
        let env = env.map_err(failed(NAME))?;
        let mut transaction = env.write_txn().map_err(failed(NAME))?;
        let data = env.create_database(&mut transaction, None).map_err(failed(NAME))?;
        transaction.commit().map_err(failed(NAME))?;
        Ok(Self { directory: directory.to_path_buf(), env, data })
    }
}

impl System for Lmdb {
    fn name(&self) -> &'static str {
        NAME
    }

    fn gets(&mut self, keys: &[Key]) -> Run<()> {
        let transaction = self.env.read_txn().map_err(failed(NAME))?;
        for key in keys {
            let value = self.data.get(&transaction, key).map_err(failed(NAME))?;
            look_at(value.ok_or_else(|| not_found(NAME))?);
        }
        Ok(())
    }

    fn ranges(&mut self, starts: &[Key], count: usize) -> Run<()> {
        let transaction = self.env.read_txn().map_err(failed(NAME))?;
        for start in starts {
            let range = (std::ops::Bound::Included(&start[..]), std::ops::Bound::Unbounded);
            let mut seen = 0;
            for item in self.data.range(&transaction, &range).map_err(failed(NAME))?.take(count) {
                let (_, value) = item.map_err(failed(NAME))?;
                look_at(value);
                seen += 1;
            }
            if seen != count {
                return Err(not_found(NAME));
            }
        }
        Ok(())
    }

    fn put(&mut self, puts: &[Put<'_>]) -> Run<()> {
        let mut transaction = self.env.write_txn().map_err(failed(NAME))?;
        for put in puts {
            self.data.put(&mut transaction, &put.key, put.value).map_err(failed(NAME))?;
        }
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
