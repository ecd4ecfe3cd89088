//! Every bound of Mesh, with its unit in its name, and the relations that must hold between bounds.

use std::time::Duration;

/// The unit of direct I/O: offsets, lengths and buffers of file operations are multiples of it.
pub const SECTOR_BYTES: usize = 4096;

/// Longest key of a client.
pub const KEY_BYTES_MAX: usize = 2 * 1024;
/// Longest value of a client.
pub const VALUE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most operations in one batched get, put or delete.
pub const BATCH_OPS_MAX: usize = 4096;

/// Longest payload of a frame: the largest value, its key, and room for the rest of the message.
pub const FRAME_PAYLOAD_BYTES_MAX: usize = VALUE_BYTES_MAX + 256 * 1024;
/// Bytes of a connection's requests that are read and not yet answered; above it the socket is not read.
pub const CONNECTION_BYTES_IN_FLIGHT_MAX: usize = 2 * FRAME_PAYLOAD_BYTES_MAX;
/// Requests of a connection that are read and not yet answered; above it the socket is not read.
pub const CONNECTION_REQUESTS_IN_FLIGHT_MAX: usize = 4096;
/// Connections that one core holds.
pub const CONNECTIONS_PER_CORE_MAX: usize = 16 * 1024;

/// Most items in one page of a range.
pub const RANGE_ITEMS_MAX: usize = 10_000;
/// A page of a range ends when its keys and values reach this, after at least one item.
pub const RANGE_PAGE_BYTES: usize = 512 * 1024;

/// Nodes of a cluster.
pub const NODES_MAX: usize = 64;
/// Shards of a cluster: the shard's bits of a revision.
pub const SHARDS_MAX: usize = 1024;
/// Cores of a node.
pub const CORES_MAX: usize = 1024;
/// Longest name of a node.
pub const NODE_NAME_BYTES_MAX: usize = 64;
/// Longest address of a node, as text.
pub const NODE_ADDRESS_BYTES_MAX: usize = 256;

/// Sessions of a shard; the longest idle are evicted above it.
pub const SESSIONS_PER_SHARD_MAX: usize = 16 * 1024;
/// Writes of one session that may be unacknowledged at a time.
pub const SESSION_WINDOW_MAX: usize = 1024;

/// Bytes of effects in one entry, the first effect aside: where a turn's batch is cut.
pub const ENTRY_BYTES_SOFT_MAX: usize = 256 * 1024;
/// Bytes of one entry's payload: the largest value, its key and the entry's own fields.
pub const ENTRY_BYTES_MAX: usize = VALUE_BYTES_MAX + 128 * 1024;
/// Bytes of entries in one append message, the first entry aside.
pub const APPEND_MESSAGE_BYTES_MAX: usize = 512 * 1024;
/// Append messages to one follower that are not answered yet.
pub const APPEND_MESSAGES_IN_FLIGHT_MAX: usize = 64;
/// Bytes of entries that are proposed and not yet committed; above it writes are answered `Overloaded`.
pub const UNCOMMITTED_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bytes of committed entries handed to apply at a time.
pub const COMMITTED_BYTES_PER_READY_MAX: usize = 1024 * 1024;
/// Requests that wait in one shard (for a page, a quorum, a leader).
pub const SHARD_REQUESTS_WAITING_MAX: usize = 16 * 1024;

/// Bytes of a log segment file.
pub const SEGMENT_BYTES: usize = 64 * 1024 * 1024;
/// Bytes zeroed ahead of the append position.
pub const SEGMENT_ZERO_AHEAD_BYTES: usize = 4 * 1024 * 1024;
/// Log writes in flight at a time.
pub const LOG_WRITES_IN_FLIGHT_MAX: usize = 4;
/// Bytes of one log batch, its first entry aside.
pub const LOG_BATCH_BYTES_SOFT_MAX: usize = 1024 * 1024;
/// Bytes of log kept behind the checkpoint for followers that lag.
pub const LOG_RETAINED_BYTES: u64 = 4 * SEGMENT_BYTES as u64;
/// Bytes of log to replay at start: a checkpoint is taken before the log since the last one grows past it.
pub const LOG_REPLAY_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Bytes of one extent of a large value.
pub const EXTENT_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of checkpoint writes in flight.
pub const CHECKPOINT_BYTES_IN_FLIGHT_MAX: usize = 2 * 1024 * 1024;
/// Bytes of one chunk of a snapshot, its first cell aside.
pub const SNAPSHOT_CHUNK_BYTES: usize = 512 * 1024;
/// Chunks of a snapshot sent and not yet acknowledged.
pub const SNAPSHOT_CHUNKS_IN_FLIGHT_MAX: usize = 4;

/// The period of the shard's clock.
pub const TICK: Duration = Duration::from_millis(10);
/// Ticks between heartbeats.
pub const HEARTBEAT_TICKS: usize = 2;
/// Ticks without a leader after which a follower may campaign, at least.
pub const ELECTION_TICKS_MIN: usize = 10;
/// Ticks without a leader after which a follower campaigns, at most.
pub const ELECTION_TICKS_MAX: usize = 20;
/// A client's revision further ahead of the clock than this is refused.
pub const REVISION_AHEAD_MAX: Duration = Duration::from_secs(5);

const _: () = {
    assert!(KEY_BYTES_MAX + VALUE_BYTES_MAX < ENTRY_BYTES_MAX);
    assert!(ENTRY_BYTES_MAX < FRAME_PAYLOAD_BYTES_MAX);
    assert!(APPEND_MESSAGE_BYTES_MAX < FRAME_PAYLOAD_BYTES_MAX);
    assert!(ENTRY_BYTES_MAX + LOG_BATCH_BYTES_SOFT_MAX < SEGMENT_BYTES / 2);
    assert!(
        SEGMENT_BYTES.is_multiple_of(SECTOR_BYTES) && SEGMENT_ZERO_AHEAD_BYTES.is_multiple_of(SECTOR_BYTES)
    );
    assert!(EXTENT_BYTES_MAX.is_multiple_of(SECTOR_BYTES));
    assert!(UNCOMMITTED_BYTES_MAX > 2 * ENTRY_BYTES_MAX);
    assert!(SHARDS_MAX == 1 << crate::Revision::SHARD_BITS);
    assert!(ELECTION_TICKS_MIN > 2 * HEARTBEAT_TICKS && ELECTION_TICKS_MAX > ELECTION_TICKS_MIN);
};
