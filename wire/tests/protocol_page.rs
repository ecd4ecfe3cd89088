//! PROTOCOL.md says what the code does.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod sample;

use std::fmt::Write as _;

use bytes::Bytes;
use mesh_base::limits;
use mesh_base::{
    ClusterId, CoreId, NodeId, Revision, SessionId, SessionSeq, ShardId, SlotEpoch, SlotNo, Term,
};
use mesh_wire::{
    Envelope, FrameWriter, Get, GetAnswer, Hello, HelloAnswer, Item, Kind, NodeEntry, NodeState, OpenSession,
    Put, Request, RequestId, Response, Role, SessionOpened, ShardPlace, SlotRange, Topology, WriteContext,
    Written,
};
use sample::Sample;

const PAGE: &str = include_str!("../PROTOCOL.md");
const SCHEMA: [&str; 2] = [include_str!("../schema/client.fbs"), include_str!("../schema/peer.fbs")];

/// The rows of the table that comes first after a heading, as cells.
fn rows(heading: &str) -> Vec<Vec<&'static str>> {
    let start = PAGE.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no heading {heading}"));
    let section = &PAGE[start + 1 + heading.len()..];
    let section = &section[..section.find("\n#").unwrap_or(section.len())];
    let lines = section.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    lines
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect())
        .collect()
}

#[test]
fn the_page_lists_every_kind() {
    let listed: Vec<(u8, &str)> =
        rows("### Kinds").iter().map(|row| (row[0].parse().unwrap(), row[1])).collect();
    let kinds: Vec<(u8, &str)> = Kind::ALL.iter().map(|kind| (kind.to_byte(), kind.name())).collect();
    assert_eq!(listed, kinds);
}

#[test]
fn the_page_lists_every_error_and_says_what_it_means_for_a_write() {
    let listed: Vec<(u8, &str, bool, bool)> = rows("## Errors")
        .iter()
        .map(|row| (row[0].parse().unwrap(), row[1], row[3] == "no", row[4] == "yes"))
        .collect();
    let errors = Sample::new(1).errors();
    let errors: Vec<_> = errors
        .iter()
        .map(|error| (error.code(), error.name(), error.certainly_not_applied(), error.is_retryable()))
        .collect();
    assert_eq!(listed, errors);
}

/// Tables of the schema: their names, and of each field its name and type.
fn schema_tables() -> Vec<(&'static str, Vec<(&'static str, String)>)> {
    let mut tables = Vec::new();
    for table in SCHEMA.iter().flat_map(|schema| schema.split("\ntable ").skip(1)) {
        let (name, rest) = table.split_once(" {").unwrap();
        let fields = rest.split_once('}').unwrap().0.lines().filter_map(|line| {
            let (field, kind) = line.trim().strip_suffix(';')?.split_once(": ")?;
            let kind = kind.trim_end_matches(" = null").replace(" (required)", ", required");
            Some((field, kind))
        });
        tables.push((name, fields.collect()));
    }
    tables
}

#[test]
fn the_page_describes_every_field_of_every_table() {
    let tables = schema_tables();
    assert!(tables.len() > 40, "the schema was read");
    for (name, fields) in tables {
        let described: Vec<(&str, String)> =
            rows(&format!("#### {name}")).iter().map(|row| (row[0], row[1].to_owned())).collect();
        assert_eq!(described, fields, "{name}");
    }
}

#[test]
fn the_page_has_the_limits_as_they_are() {
    macro_rules! limits {
        ($($limit:ident)*) => { vec![$((stringify!($limit), limits::$limit.to_string())),*] };
    }
    let limits = limits! {
        KEY_BYTES_MAX VALUE_BYTES_MAX BATCH_OPS_MAX BATCH_BYTES_MAX TRANSACTION_RANGES_MAX RANGE_ITEMS_MAX RANGE_PAGE_BYTES
        FRAME_PAYLOAD_BYTES_MAX HELLO_PAYLOAD_BYTES_MAX FRAME_TABLES_MAX FRAME_DEPTH_MAX
        CONNECTION_REQUESTS_IN_FLIGHT_MAX CONNECTION_BYTES_IN_FLIGHT_MAX SESSION_WINDOW_MAX SESSIONS_PER_SHARD_MAX
        SHARDS_MAX NODES_MAX NODE_NAME_BYTES_MAX NODE_ADDRESS_BYTES_MAX PRINCIPAL_BYTES_MAX AUTH_MECHANISM_BYTES_MAX
        AUTH_BYTES_MAX TEXT_BYTES_MAX ENTRY_BYTES_MAX DIRECTORY_BYTES_MAX
    };
    let listed: Vec<(&str, String)> =
        rows("## Limits").iter().map(|row| (row[0], row[1].to_owned())).collect();
    assert_eq!(listed, limits);
}

fn frame(
    shard: Option<ShardId>,
    request: u64,
    write: impl Fn(&mut FrameWriter, &Envelope) -> Bytes,
) -> Bytes {
    let epoch = if request == 1 { SlotEpoch(0) } else { SlotEpoch(1) };
    write(&mut FrameWriter::new(), &Envelope { request: RequestId(request), shard, epoch })
}

fn asked(shard: Option<ShardId>, request: u64, message: &Request<'_>) -> Bytes {
    frame(shard, request, |writer, envelope| writer.frame(envelope, message).unwrap())
}

fn answered(shard: Option<ShardId>, request: u64, message: &Response<'_>) -> Bytes {
    frame(shard, request, |writer, envelope| writer.frame(envelope, message).unwrap())
}

fn hello_answer() -> Bytes {
    let topology = Topology {
        epoch: SlotEpoch(1),
        shard_count: 1,
        slots: (&[SlotRange { first: SlotNo(0), last: SlotNo(16383), shard: ShardId(0) }]).into(),
        shards: (&[ShardPlace {
            shard: ShardId(0),
            leader: Some(NodeId(1)),
            term: Term(2),
            core: CoreId(0),
        }])
            .into(),
        nodes: (&[NodeEntry {
            id: NodeId(1),
            name: "a",
            address: "127.0.0.1:7700",
            state: NodeState::Voter,
        }])
            .into(),
    };
    let answer = HelloAnswer {
        version: 1,
        cluster: Some(ClusterId(*b"sixteen bytes id")),
        node: NodeId(1),
        node_name: "a",
        auth: None,
        topology: Some(topology),
    };
    answered(None, 1, &Response::Hello(answer))
}

/// The frames of the exchange, each with its title.
fn exchange() -> Vec<(&'static str, Bytes)> {
    let shard = Some(ShardId(0));
    let session = SessionId(Revision(0x0000_5af3_107a_4000));
    let revision = Revision(0x0000_5af3_107a_4400);
    let hello = Hello {
        role: Role::Client,
        version_min: 1,
        version_max: 1,
        cluster: None,
        auth: None,
        wanted_shard: None,
        name: "example",
    };
    let ctx = WriteContext {
        session,
        seq: SessionSeq(1),
        acknowledged_below: SessionSeq(1),
        deadline_ms: 1000,
        ..WriteContext::default()
    };
    let put = Put { ctx, key: b"greeting", value: b"hello, world", ..Put::default() };
    let item =
        Item { value: b"hello, world", revision, create_revision: revision, version: 1, ..Item::default() };
    let get = Get { key: b"greeting", ..Get::default() };
    vec![
        ("client: Hello", asked(None, 1, &Request::Hello(hello))),
        ("node: HelloAnswer", hello_answer()),
        ("client: OpenSession", asked(shard, 2, &Request::OpenSession(OpenSession { nonce: 0x1234_5678 }))),
        ("node: SessionOpened", answered(shard, 2, &Response::SessionOpened(SessionOpened { session }))),
        ("client: Put", asked(shard, 3, &Request::Put(put))),
        ("node: Written", answered(shard, 3, &Response::Written(Written { revision }))),
        ("client: Get", asked(shard, 4, &Request::Get(get))),
        ("node: GetAnswer", answered(shard, 4, &Response::Get(GetAnswer { item: Some(item), revision }))),
    ]
}

/// A frame as the page has it: the header on two lines, then the payload.
fn hex_dump(title: &str, frame: &[u8]) -> String {
    let mut text = format!("```text\n{title}\n");
    for (line, bytes) in frame.chunks(16).enumerate() {
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let ascii: String =
            bytes.iter().map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '.' }).collect();
        writeln!(text, "{:04x}  {:<47}  {ascii}", line * 16, hex.join(" ")).unwrap();
    }
    text + "```\n"
}

#[test]
fn the_exchange_on_the_page_is_what_is_sent() {
    let dumps: Vec<String> = exchange().iter().map(|(title, frame)| hex_dump(title, frame)).collect();
    let expected = dumps.join("\n");
    let start = PAGE.find("## An exchange, byte by byte").unwrap();
    let found = PAGE[start..].find("```text").map(|fence| &PAGE[start + fence..]).unwrap_or_default();
    assert!(found == expected, "the end of PROTOCOL.md should be:\n\n{expected}");
}
