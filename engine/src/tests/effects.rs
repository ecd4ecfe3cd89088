//! The encoding of entries.

use mesh_base::{Namespace, Revision, SessionId, SessionSeq};
use quickcheck::{Arbitrary, Gen, quickcheck};

use crate::effect::{Effect, EntryBuilder, EntryHead, EntryView, Outcome, ReservedEffect, SessionIds};
use crate::*;

const HEAD: EntryHead = EntryHead { revision_high: Revision(99), wall_ms: 1_790_000_000_000 };

/// Bytes for the effects of a random entry to borrow.
#[derive(Clone, Debug)]
struct Random {
    kinds: Vec<(u8, Vec<u8>, Vec<u8>, u64)>,
    sessions: Vec<u64>,
}

impl Arbitrary for Random {
    fn arbitrary(g: &mut Gen) -> Self {
        Self { kinds: Vec::arbitrary(g), sessions: Vec::arbitrary(g) }
    }
}

fn effects<'a>(random: &'a Random, sessions: &'a [SessionId]) -> Vec<Effect<'a>> {
    let effect = |(kind, key, value, number): &'a (u8, Vec<u8>, Vec<u8>, u64)| {
        let (number, revision) = (*number, Revision(*number));
        match kind % 12 {
            0 | 1 => {
                let attributes =
                    Attributes { version: number, lease: number / 3, ..Attributes::created(revision) };
                Effect::Put { namespace: Namespace(7), key, revision, attributes, value }
            }
            2 => Effect::Delete { namespace: Namespace::USER, key, revision },
            3 => Effect::SessionOpen { session: SessionId(revision), nonce: revision.0 ^ 7 },
            4 => Effect::SessionEvict {
                sessions: SessionIds::new(sessions),
                evicted_up_to: SessionId(revision),
            },
            5 => Effect::Horizon { revision },
            6 => Effect::Floor { revision },
            7 => Effect::System { key, value: Some(value) },
            8 => Effect::System { key, value: None },
            9 => Effect::ClusterVersion { version: 3 },
            10 => Effect::Reserved { kind: ReservedEffect::Prepare, body: value },
            _ => Effect::Reserved { kind: ReservedEffect::Digest, body: value },
        }
    };
    random.kinds.iter().map(effect).collect()
}

fn outcome(number: u64) -> Outcome {
    Outcome {
        session: SessionId(Revision(number)),
        seq: SessionSeq(number + 1),
        acknowledged_below: SessionSeq(number),
        code: 7,
        revision: Revision(number * 2),
        count: 3,
    }
}

quickcheck! {
    fn an_entry_is_what_was_pushed_and_its_size_was_known(random: Random) -> bool {
        let sessions: Vec<SessionId> = random.sessions.iter().map(|id| SessionId(Revision(*id))).collect();
        let pushed = effects(&random, &sessions);
        let mut builder = EntryBuilder::new();
        pushed.iter().for_each(|effect| builder.push(effect));
        let outcomes: Vec<Outcome> = (0..random.sessions.len() as u64).map(outcome).collect();
        outcomes.iter().for_each(|outcome| builder.push_outcome(outcome));
        let size = builder.byte_size();
        let bytes = builder.finish(HEAD);
        let entry = EntryView::read(&bytes).unwrap();
        builder.is_empty() && bytes.len() == size && entry.head() == HEAD
            && entry.effects().eq(pushed) && entry.outcomes().eq(outcomes)
    }

    fn bytes_that_are_no_entry_are_refused_without_a_panic(bytes: Vec<u8>) -> bool {
        EntryView::read(&bytes).map_or(true, |entry| entry.effects().count() <= bytes.len())
    }

    fn a_damaged_entry_is_refused_or_read_without_a_panic(random: Random, at: usize, byte: u8) -> bool {
        let mut builder = EntryBuilder::new();
        effects(&random, &[SessionId(Revision(5))]).iter().for_each(|effect| builder.push(effect));
        builder.push_outcome(&outcome(1));
        let mut bytes = builder.finish(HEAD).to_vec();
        let index = at % bytes.len();
        bytes[index] = byte;
        if let Ok(entry) = EntryView::read(&bytes) {
            let keys: usize = entry.cell_writes().map(|write| write.key.len()).sum();
            return keys <= bytes.len() && entry.outcomes().count() <= bytes.len();
        }
        true
    }
}

#[test]
fn an_empty_entry_is_an_entry() {
    let bytes = EntryBuilder::new().finish(HEAD);
    let entry = EntryView::read(&bytes).unwrap();
    assert_eq!((entry.effects().count(), entry.outcomes().len()), (0, 0));
}

#[test]
fn a_put_costs_its_key_its_value_and_a_hundred_bytes() {
    let mut builder = EntryBuilder::new();
    let attributes = Attributes::created(Revision(1));
    let (namespace, revision) = (Namespace::USER, Revision(1));
    builder.push(&Effect::Put { namespace, key: &[1; 16], revision, attributes, value: &[2; 256] });
    let one = builder.byte_size();
    builder.push(&Effect::Put { namespace, key: &[1; 16], revision, attributes, value: &[2; 256] });
    assert!(builder.byte_size() - one <= 16 + 256 + 100);
}

#[test]
fn an_entry_of_a_newer_format_says_so() {
    let mut bytes = EntryBuilder::new().finish(HEAD).to_vec();
    bytes[2] = 9;
    let refused = EntryView::read(&bytes).err();
    assert!(matches!(refused, Some(StoreError::NewerEncoding { what: "entry", min_reader: 9, .. })));
}

#[test]
fn the_largest_value_fits_an_entry() {
    let value = vec![7; mesh_base::limits::VALUE_BYTES_MAX];
    let mut builder = EntryBuilder::new();
    builder.push(&Effect::System { key: b"k", value: Some(&value) });
    let bytes = builder.finish(HEAD);
    assert!(bytes.len() < mesh_base::limits::ENTRY_BYTES_MAX);
    let entry = EntryView::read(&bytes).unwrap();
    assert_eq!(entry.effects().next(), Some(Effect::System { key: b"k", value: Some(&value) }));
}

#[test]
fn effects_on_cells_are_writes_and_the_others_are_not() {
    let mut builder = EntryBuilder::new();
    let (namespace, revision) = (Namespace::USER, Revision(5));
    builder.push(&Effect::Floor { revision });
    builder.push(&Effect::Delete { namespace, key: b"gone", revision });
    builder.push(&Effect::System { key: b"record", value: None });
    let bytes = builder.finish(HEAD);
    let entry = EntryView::read(&bytes).unwrap();
    let writes: Vec<CellWrite<'_>> = entry.cell_writes().collect();
    let remove = CellWrite {
        namespace: Namespace::SYSTEM,
        key: b"record",
        revision: Revision::ZERO,
        change: Change::Remove,
    };
    assert_eq!(writes, [CellWrite { namespace, key: b"gone", revision, change: Change::Delete }, remove]);
}

#[test]
fn the_tags_of_effects_are_those_of_the_format() {
    let (namespace, revision, session) = (Namespace::USER, Revision(1), SessionId(Revision(1)));
    let reserved = |kind| Effect::Reserved { kind, body: b"" };
    let effects = [
        Effect::Put { namespace, key: b"", revision, attributes: Attributes::SYSTEM, value: b"" },
        Effect::Delete { namespace, key: b"", revision },
        Effect::SessionOpen { session, nonce: 1 },
        Effect::SessionEvict { sessions: SessionIds::new(&[]), evicted_up_to: session },
        Effect::Horizon { revision },
        Effect::Floor { revision },
        Effect::System { key: b"", value: Some(b"") },
        Effect::System { key: b"", value: None },
        Effect::ClusterVersion { version: 1 },
        reserved(ReservedEffect::Lock),
        reserved(ReservedEffect::Prepare),
        reserved(ReservedEffect::Commit),
        reserved(ReservedEffect::Digest),
    ];
    for (tag, effect) in effects.iter().enumerate() {
        let mut builder = EntryBuilder::new();
        builder.push(effect);
        // Nothing is stored but the prefix, so the effect is the first thing behind it.
        assert_eq!(usize::from(builder.finish(HEAD)[16]), tag, "{effect:?}");
    }
}
