//! What clients and nodes say to each other, as bytes.

use bytes::Bytes;
use mesh_base::bytesio::{Reader, Writer};

use super::{Record, Version};

/// Every message names the round of its client's operation, so that late answers are told apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Message {
    Query { round: u64, key: u64 },
    Newest { round: u64, record: Record },
    Store { round: u64, key: u64, record: Record },
    Stored { round: u64 },
}

impl Message {
    pub(super) fn encode(&self) -> Bytes {
        let (kind, round, key, record) = match *self {
            Self::Query { round, key } => (1, round, key, Record::default()),
            Self::Newest { round, record } => (2, round, 0, record),
            Self::Store { round, key, record } => (3, round, key, record),
            Self::Stored { round } => (4, round, 0, Record::default()),
        };
        let mut bytes = Vec::with_capacity(41);
        bytes.put_u8(kind);
        bytes.put_u64(round);
        bytes.put_u64(key);
        record.write(&mut bytes);
        Bytes::from(bytes)
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let (kind, round, key) = (reader.u8()?, reader.u64()?, reader.u64()?);
        let record = Record::read(&mut reader)?;
        match kind {
            1 => Some(Self::Query { round, key }),
            2 => Some(Self::Newest { round, record }),
            3 => Some(Self::Store { round, key, record }),
            4 => Some(Self::Stored { round }),
            _ => None,
        }
    }
}

impl Record {
    pub(super) fn write(&self, bytes: &mut Vec<u8>) {
        bytes.put_u64(self.version.counter);
        bytes.put_u64(self.version.writer);
        bytes.put_u64(self.stamp);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let version = Version { counter: reader.u64()?, writer: reader.u64()? };
        Some(Self { version, stamp: reader.u64()? })
    }
}
