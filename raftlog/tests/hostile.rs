//! The fuzz targets with drawn bytes, so that every run of the tests tries some.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

#[allow(unreachable_pub, reason = "public for the harness")]
#[path = "../fuzz/src/lib.rs"]
mod targets;

use mesh_base::prng::Prng;

/// Runs of one target.
fn runs() -> u64 {
    std::env::var("MESH_FUZZ_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(150)
}

/// Edits of a few parts: small numbers and extremes, which lengths and offsets react to, and any bytes.
fn drawn(prng: &mut Prng) -> Vec<u8> {
    let mut data = Vec::new();
    for _ in 0..1 + prng.index(3) {
        let mut head = [0; 4];
        prng.fill(&mut head);
        // The beginnings of parts hold most of their structure.
        if prng.chance_per_mille(600) {
            head[2] = 0;
        }
        let count = *prng.choose(&[1, 2, 4, 8, 24]).unwrap();
        head[3] = count - 1;
        let mut bytes = vec![0; usize::from(count)];
        match prng.index(4) {
            0 => bytes[0] = u8::try_from(prng.index(256)).unwrap(),
            1 => bytes.fill(0xff),
            2 => prng.fill(&mut bytes),
            _ => {}
        }
        data.extend_from_slice(&head);
        data.extend_from_slice(&bytes);
    }
    data
}

fn run(target: fn(&[u8]), salt: u64) {
    let from = std::env::var("FROM").ok().and_then(|from| from.parse().ok()).unwrap_or(0);
    for seed in from..from + runs() {
        let data = drawn(&mut Prng::new(seed ^ salt << 40));
        let outcome = std::panic::catch_unwind(|| target(&data));
        assert!(outcome.is_ok(), "seed {seed}: {data:?}");
    }
}

#[test]
fn segments_with_right_checksums_are_recovered_or_refused() {
    run(targets::segments, 1);
}

/// Whole records of every kind, with fields that are drawn.
#[test]
fn records_with_right_checksums_are_recovered_or_refused() {
    for seed in 0..runs() {
        let mut prng = Prng::new(seed);
        let mut payload = Vec::new();
        for _ in 0..prng.index(4) {
            let kind = prng.range(0..7);
            let body = if kind == 1 { 24 + prng.index(20) } else { 8 * prng.index(5) };
            let length = if prng.chance_per_mille(900) { body } else { prng.index(1000) };
            payload.extend_from_slice(&[
                u8::try_from(kind).unwrap(),
                u8::from(prng.chance_per_mille(100)),
                0,
                0,
            ]);
            payload.extend_from_slice(&u32::try_from(length).unwrap().to_le_bytes());
            let mut fields = vec![0; body];
            for field in fields.chunks_mut(8) {
                let value = *prng.choose(&[0, 1, 2, 8, 9, 10, 11, 1 << 62, u64::MAX]).unwrap();
                field.copy_from_slice(&value.to_le_bytes()[..field.len()]);
            }
            if kind == 1 {
                // A type that there is, and a context that fits.
                fields[16..24].fill(0);
            }
            payload.extend_from_slice(&fields);
        }
        let outcome = std::panic::catch_unwind(|| targets::records(&payload));
        assert!(outcome.is_ok(), "seed {seed}: {payload:?}");
    }
}
