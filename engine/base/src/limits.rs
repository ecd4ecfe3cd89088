//! Every bound of Mesh, with its unit in its name, and the relations that must hold between bounds.

use std::time::Duration;

/// The unit of direct I/O: offsets, lengths and buffers of file operations are multiples of it.
pub const SECTOR_BYTES: usize = 4096;

/// Bytes of entries for which versions that were overwritten are kept, beside what ranges under way hold.
pub const HISTORY_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Steps in which the horizon passes so many bytes.
pub const HORIZON_MARKS: u64 = 8;
/// Revisions of a shard that ranges under way hold; a range more may find its revision compacted.
pub const HELD_REVISIONS_MAX: usize = 1024;

/// Longest key of a client.
pub const KEY_BYTES_MAX: usize = 2 * 1024;
/// Longest value of a client.
pub const VALUE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most operations in one batched get, put or delete.
pub const BATCH_OPS_MAX: usize = 4096;

/// Longest payload of a frame: the largest value, its key, and room for the rest of the message.
pub const FRAME_PAYLOAD_BYTES_MAX: usize = VALUE_BYTES_MAX + 256 * 1024;
/// Longest payload of a frame that is accepted before the connection's hello was.
pub const HELLO_PAYLOAD_BYTES_MAX: usize = AUTH_BYTES_MAX + 8 * 1024;
/// Tables in the payload of one frame, each occurrence counted.
pub const FRAME_TABLES_MAX: usize = 128 * 1024;
/// Tables inside tables in the payload of one frame.
pub const FRAME_DEPTH_MAX: usize = 8;
/// Bytes of the keys and values of one batched put.
pub const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Ranges in the read set of one transaction.
pub const TRANSACTION_RANGES_MAX: usize = 256;
/// Longest principal that a request carries.
pub const PRINCIPAL_BYTES_MAX: usize = 1024;
/// Longest name of an authentication mechanism.
pub const AUTH_MECHANISM_BYTES_MAX: usize = 64;
/// Longest message of one step of authentication.
pub const AUTH_BYTES_MAX: usize = 64 * 1024;
/// Longest text for people in an error or a status; longer ones are cut when sent.
pub const TEXT_BYTES_MAX: usize = 1024;
/// Longest copy of the membership that nodes pass among themselves.
pub const DIRECTORY_BYTES_MAX: usize = 1024 * 1024;
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

/// Sessions of a shard; the longest idle are evicted above it. At half as many again no more are opened.
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

/// Bytes of a log segment file at least, of a replica with little memory.
pub const LOG_SEGMENT_BYTES_MIN: u64 = 16 * 1024 * 1024;
/// Bytes of a log segment file, unless memory is scarce.
pub const SEGMENT_BYTES: usize = 64 * 1024 * 1024;
/// Bytes zeroed ahead of the append position.
pub const SEGMENT_ZERO_AHEAD_BYTES: usize = 4 * 1024 * 1024;
/// Log writes in flight at a time.
pub const LOG_WRITES_IN_FLIGHT_MAX: usize = 4;
/// Bytes of one log batch, its first entry aside.
pub const LOG_BATCH_BYTES_SOFT_MAX: usize = 1024 * 1024;
/// Bytes of a batch's buffer that is kept for the next.
pub const LOG_BUFFER_BYTES_KEPT_MAX: usize = 256 * 1024;
/// Bytes of log kept behind the checkpoint for followers that lag.
pub const LOG_RETAINED_BYTES: u64 = 4 * SEGMENT_BYTES as u64;
/// Bytes at the end of a segment, an eighth of it at most, that only batches without entries may use: votes still
/// become durable when the disk is full.
pub const LOG_RESERVE_BYTES: usize = 1024 * 1024;
/// Bytes of one write of zeros ahead of the append position.
pub const LOG_ZERO_WRITE_BYTES: usize = 256 * 1024;
/// Segments kept for reuse; more are removed.
pub const LOG_SPARE_SEGMENTS_MAX: usize = 4;
/// Bytes of one read when a log is recovered.
pub const LOG_READ_BYTES: usize = 1024 * 1024;
/// Reads in flight when a log is recovered.
pub const LOG_READS_IN_FLIGHT_MAX: usize = 3;
/// Reads of segment headers in flight when a log is recovered.
pub const LOG_HEADER_READS_IN_FLIGHT_MAX: usize = 32;
/// Places of a segment at which its successor's header says which entry is there: one for each MiB of a large one.
pub const LOG_FOOTER_POINTS_MAX: usize = 64;
/// Runs of entries of one term that a segment's header lists. Where a log has more, more of it is read when it is opened.
pub const LOG_HEADER_TERM_RUNS_MAX: usize = 128;
/// Bytes of one read of entries that left the memory, its first batch aside.
pub const LOG_FETCH_BYTES_MAX: usize = APPEND_MESSAGE_BYTES_MAX;
/// Reads of entries that left the memory, in flight at a time.
pub const LOG_FETCHES_IN_FLIGHT_MAX: usize = 4;
/// Reads of entries that left the memory, waiting; above it a request is dropped and made again by raft.
pub const LOG_FETCHES_WAITING_MAX: usize = 64;
/// Bytes of entries that were read back and not used yet, the newest read aside.
pub const LOG_FETCHED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of log to replay at start: a checkpoint is taken before the log since the last one grows past it.
pub const LOG_REPLAY_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Bytes of one extent of a large value.
pub const EXTENT_BYTES_MAX: usize = 1024 * 1024;
/// Bytes that one operation cuts off the end of a file.
pub const TRUNCATE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Bytes of pages that the upkeep of a page store makes dirty in a second: while no writes come.
pub const UPKEEP_BYTES_PER_SECOND_MAX: u64 = 32 * 1024 * 1024;
/// The same, while many writes come.
pub const UPKEEP_BYTES_PER_SECOND_MIN: u64 = 1024 * 1024;
/// Pages that the upkeep of a page store looks at in a tick, while no writes come.
pub const UPKEEP_PAGES_PER_TICK_MAX: usize = 64;
/// The same, while writes come.
pub const UPKEEP_PAGES_PER_TICK_MIN: usize = 8;
/// Pages that a sweep for garbage looks at in a tick, where it finds much.
pub const UPKEEP_SWEEP_PAGES_PER_TICK_MAX: usize = 256;
/// Ticks after which a page store is swept again, however little garbage there is.
pub const UPKEEP_SWEEP_PERIOD_TICKS: u32 = 500;
/// Pages of a file that were free for two times so many ticks are to spare.
pub const UPKEEP_WINDOW_TICKS: u32 = 200;
/// Bytes of checkpoint writes in flight.
pub const CHECKPOINT_BYTES_IN_FLIGHT_MAX: usize = 2 * 1024 * 1024;
/// Bytes per second at which a checkpoint is written at least, when nothing presses.
pub const CHECKPOINT_BYTES_PER_SECOND_MIN: u64 = 32 * 1024 * 1024;
/// Bytes of one chunk of a snapshot, its first cell aside.
pub const SNAPSHOT_CHUNK_BYTES: usize = 512 * 1024;
/// Chunks of a snapshot sent and not yet acknowledged.
pub const SNAPSHOT_CHUNKS_IN_FLIGHT_MAX: usize = 4;
/// Bytes of snapshots that a core sends in a second, over all its replicas, unless its operator says otherwise: a few
/// per cent of a core's time and of a device's random reads, and 10 GB in five minutes.
pub const SNAPSHOT_BYTES_PER_SECOND: u64 = 32 * 1024 * 1024;
/// How long after the last word from the other side a snapshot that broke off can be gone on with. So long its sender
/// keeps the pages of its checkpoint and the log since, and its receiver what has arrived.
pub const SNAPSHOT_RESUME_WITHIN: Duration = Duration::from_secs(120);
/// Bytes of a place in a snapshot: the longest key, a byte to make it the next, and its fields.
pub const SNAPSHOT_POSITION_BYTES_MAX: usize = KEY_BYTES_MAX + 16;
/// How long to wait before looking for disk space again, where there was none.
pub const SPACE_PATIENCE: Duration = Duration::from_secs(1);

/// The period of the shard's clock.
pub const TICK: Duration = Duration::from_millis(10);
/// The periods of the shard's clock in a second.
pub const TICKS_PER_SECOND: u64 = 100;
/// Ticks between heartbeats.
pub const HEARTBEAT_TICKS: usize = 2;
/// Ticks without a leader after which a follower may campaign, at least.
pub const ELECTION_TICKS_MIN: usize = 10;
/// Ticks without a leader after which a follower campaigns, at most.
pub const ELECTION_TICKS_MAX: usize = 20;
/// How long a voter that acknowledged a round of its leader votes for nobody: no longer than it would wait for a leader in any case.
pub const LEASE_PROMISE: Duration = Duration::from_millis(100);
/// How long, from when the round was sent, the leader relies on that: less, by what two clocks may drift apart meanwhile, of
/// which each is off by less than a hundredth.
pub const LEASE: Duration = Duration::from_millis(98);
/// A client's revision further ahead of the clock than this is refused.
pub const REVISION_AHEAD_MAX: Duration = Duration::from_secs(5);

/// Events that one turn of a core handles at most.
pub const TURN_EVENTS_MAX: usize = 512;
/// Bytes of answers that a shard gives in one turn, the last aside; further reads are served in the next.
pub const TURN_ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of answers that wait in a core to be sent; above it large answers are replaced by `Overloaded`.
pub const CORE_ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// An answer of more bytes is large.
pub const LARGE_ANSWER_BYTES: usize = 64 * 1024;
/// A client that takes nothing of what it is sent for this long is let go.
pub const CONNECTION_STALL_MAX: Duration = Duration::from_secs(10);
/// Bytes of large frames that are being received by a core; further ones wait to be read.
pub const CORE_PARTIAL_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long a frame may take to arrive once it has begun.
pub const FRAME_TIMEOUT: Duration = Duration::from_secs(20);
/// Events that wait for a core's turn; above it its connections are not read.
pub const CORE_EVENTS_WAITING_MAX: usize = 8 * 1024;
/// Bytes of frames that wait for a core's turn; above it its connections are not read.
pub const CORE_EVENT_BYTES_WAITING_MAX: usize = 64 * 1024 * 1024;
/// Messages that wait in a core for another of the node; above it connections are not read.
pub const MESH_MESSAGES_WAITING_MAX: usize = 8 * 1024;
/// Bytes that one read takes off a socket.
pub const SOCKET_READ_BYTES: usize = 64 * 1024;
/// How long a new connection may take to say hello.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// File operations of one core's log and identity that are under way at a time.
pub const LOG_OPS_IN_FLIGHT_MAX: usize = 64;
/// File operations of one core's page stores that are under way at a time.
pub const STORE_OPS_IN_FLIGHT_MAX: usize = 64;
/// Buffers of writes that a core keeps for the next.
pub const DISK_BUFFERS_KEPT_MAX: usize = 8;
/// Frames that wait for a connection to another core of another node, control and bulk alike, in bytes.
pub const LINK_QUEUE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How long a connection to another node may take to be made, and again to be greeted.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause after the first failed dial; it doubles with each.
pub const DIAL_PAUSE_MIN: Duration = Duration::from_millis(50);
/// The pause between failed dials, at most.
pub const DIAL_PAUSE_MAX: Duration = Duration::from_secs(1);
/// A connection whose other end has not acknowledged what was sent for this long is given up.
pub const CONNECTION_DEAD_AFTER: Duration = Duration::from_secs(20);
/// How long a node may take to stop before it is left as it is.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Memory of one core that is registered with the kernel for I/O, in bytes; it counts three times against the limit of
/// locked memory (`ulimit -l`, often 8 MiB).
pub const CORE_IO_MEMORY_BYTES: usize = 128 * 1024;
/// Entries of a core's submission rings.
pub const CORE_RING_ENTRIES: usize = 128;

/// How long a client goes on trying to have a request done, unless its user says otherwise.
pub const CLIENT_DEADLINE: Duration = Duration::from_secs(5);
/// A client whose request is unanswered for this long asks whether the connection lives and who leads the shard.
pub const CLIENT_PATIENCE: Duration = Duration::from_millis(250);
/// A client's connection that does not answer such a question for this long is given up.
pub const CLIENT_PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause before a client sends a request again for the first time; it doubles with each.
pub const CLIENT_RETRY_PAUSE_MIN: Duration = Duration::from_millis(10);
/// The pause before a client sends a request again, at most.
pub const CLIENT_RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);
/// The pause before a client asks for the topology again while it looks for a leader.
pub const CLIENT_TOPOLOGY_PAUSE: Duration = Duration::from_millis(20);
/// Requests in flight on one connection of a client, unless its user says otherwise.
pub const CLIENT_REQUESTS_IN_FLIGHT: usize = 1024;
/// A client's request counts as one more in flight for each of these many bytes.
pub const CLIENT_REQUEST_UNIT_BYTES: usize = 16 * 1024;
/// Writes of one session that a client has in flight: half of the window, so that a slow one does not hold up the others.
pub const CLIENT_SESSION_WRITES_MAX: usize = SESSION_WINDOW_MAX / 2;
/// Bytes of pages that a client's range holds, over all shards, one page of each aside.
pub const CLIENT_RANGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Items of a page of a client's range, unless its user says otherwise.
pub const CLIENT_RANGE_PAGE_ITEMS: usize = 1000;
/// Longest cursor of a range, in bytes before they are written as text.
pub const CLIENT_CURSOR_BYTES_MAX: usize = 16 * 1024;

const _: () = {
    assert!(TICK.as_nanos() * TICKS_PER_SECOND as u128 == 1_000_000_000);
    assert!(KEY_BYTES_MAX + VALUE_BYTES_MAX < ENTRY_BYTES_MAX);
    assert!(ENTRY_BYTES_MAX < FRAME_PAYLOAD_BYTES_MAX);
    assert!(APPEND_MESSAGE_BYTES_MAX < FRAME_PAYLOAD_BYTES_MAX);
    assert!(BATCH_BYTES_MAX + BATCH_OPS_MAX * 256 < ENTRY_BYTES_MAX);
    assert!(BATCH_OPS_MAX < FRAME_TABLES_MAX && RANGE_ITEMS_MAX < FRAME_TABLES_MAX);
    assert!(SHARDS_MAX + NODES_MAX < FRAME_TABLES_MAX);
    assert!(ENTRY_BYTES_MAX + LOG_BATCH_BYTES_SOFT_MAX < SEGMENT_BYTES / 2);
    assert!(((ENTRY_BYTES_MAX + 4 * LOG_RESERVE_BYTES) as u64) < LOG_SEGMENT_BYTES_MIN);
    assert!(
        SEGMENT_BYTES.is_multiple_of(SECTOR_BYTES) && SEGMENT_ZERO_AHEAD_BYTES.is_multiple_of(SECTOR_BYTES)
    );
    assert!(LOG_READ_BYTES.is_multiple_of(SECTOR_BYTES) && LOG_ZERO_WRITE_BYTES.is_multiple_of(SECTOR_BYTES));
    assert!(LOG_RESERVE_BYTES.is_multiple_of(SECTOR_BYTES) && LOG_RESERVE_BYTES <= SEGMENT_BYTES / 8);
    assert!(EXTENT_BYTES_MAX.is_multiple_of(SECTOR_BYTES));
    assert!(UNCOMMITTED_BYTES_MAX > 2 * ENTRY_BYTES_MAX);
    assert!(LINK_QUEUE_BYTES_MAX > 2 * FRAME_PAYLOAD_BYTES_MAX);
    assert!(CORE_EVENT_BYTES_WAITING_MAX > CONNECTION_BYTES_IN_FLIGHT_MAX);
    assert!(CORE_PARTIAL_BYTES_MAX > 2 * FRAME_PAYLOAD_BYTES_MAX);
    assert!(CORE_ANSWER_BYTES_MAX > 2 * TURN_ANSWER_BYTES_MAX);
    assert!(CORE_EVENTS_WAITING_MAX > TURN_EVENTS_MAX);
    assert!(SHARDS_MAX == 1 << crate::Revision::SHARD_BITS);
    assert!(CLIENT_REQUESTS_IN_FLIGHT <= CONNECTION_REQUESTS_IN_FLIGHT_MAX);
    assert!(CLIENT_REQUESTS_IN_FLIGHT * CLIENT_REQUEST_UNIT_BYTES <= CONNECTION_BYTES_IN_FLIGHT_MAX);
    assert!(CLIENT_RANGE_PAGE_ITEMS <= RANGE_ITEMS_MAX);
    assert!(CLIENT_CURSOR_BYTES_MAX > 3 * KEY_BYTES_MAX + SHARDS_MAX * 8);
    assert!(LEASE_PROMISE.as_nanos() <= TICK.as_nanos() * ELECTION_TICKS_MIN as u128);
    assert!(LEASE.as_nanos() * 101 <= LEASE_PROMISE.as_nanos() * 99);
    assert!(ELECTION_TICKS_MIN > 2 * HEARTBEAT_TICKS && ELECTION_TICKS_MAX > ELECTION_TICKS_MIN);
};
