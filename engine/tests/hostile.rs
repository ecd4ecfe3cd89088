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
fn pages_with_right_checksums_are_read_or_refused() {
    run(targets::pages, 1);
}

#[test]
fn superblocks_with_right_checksums_are_read_or_refused() {
    run(targets::superblocks, 2);
}

#[test]
fn entries_are_read_or_refused() {
    run(targets::entries, 3);
}

#[test]
fn chunks_with_right_checksums_are_taken_in_or_refused() {
    run(targets::chunks, 4);
}
