//! What a token does not see is answered for as fast, and as slowly, as what nobody has (I12).
//!
//! Times are compared by rank: how often the one answer took longer than the other, of all pairs. Nothing but noise is one half;
//! one slow moment of the machine is one sample, and samples of both kinds take turns. With 300 of each, noise alone leaves
//! [`MOST`] once in a thousand million runs.

use std::time::{Duration, Instant};

use serde_json::json;
use windlass_coordinator_core::row::Scope;
use windlass_protocol::Digest;
use windlass_protocol::limits::{BLOB_SMALL_MAX_BYTES, MISSING_MAX_DIGESTS};

use super::Bench;

/// Samples of each kind.
const SAMPLES: usize = 300;

/// How far from one half the share may be: six standard deviations, which are 1 / sqrt(6 * SAMPLES).
const MOST: f64 = 0.15;

/// How often a sample of the first kind is larger than one of the second, of all pairs (Mann and Whitney).
fn share_above(first: &[Duration], second: &[Duration]) -> f64 {
    let mut all: Vec<(Duration, bool)> = first.iter().map(|time| (*time, true)).collect();
    all.extend(second.iter().map(|time| (*time, false)));
    all.sort_unstable();
    let (mut below, mut pairs) = (0.0, 0.0);
    for (_, is_first) in all {
        if is_first {
            pairs += below;
        } else {
            below += 1.0;
        }
    }
    pairs / (first.len() as f64 * second.len() as f64)
}

/// How long each of two requests takes, again and again, taking turns.
async fn times(bench: &Bench, token: &str, asks: [(&str, String, String); 2]) -> [Vec<Duration>; 2] {
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..SAMPLES + 20 {
        // Who comes first takes turns too.
        for nth in [round % 2, (round + 1) % 2] {
            let (method, path, body) = &asks[nth];
            let begun = Instant::now();
            bench.call(token, method, path, body.clone()).await;
            // The first rounds warm everything up.
            if round >= 20 {
                times[nth].push(begun.elapsed());
            }
        }
    }
    times
}

/// All that can be asked of a digest by its name; the last one many times in one request.
fn asks(digest: &Digest) -> [(&'static str, String, String); 4] {
    let path = format!("/api/v1/blobs/b3/{}?project=web", digest.to_hex());
    let missing = |digests: Vec<Digest>| {
        ("POST", "/api/v1/blobs/missing?project=web".to_owned(), json!({ "digests": digests }).to_string())
    };
    let many = missing(vec![*digest; MISSING_MAX_DIGESTS / 10]);
    [("GET", path.clone(), String::new()), ("HEAD", path, String::new()), missing(vec![*digest]), many]
}

#[tokio::test]
async fn what_others_have_takes_as_long_to_be_absent_as_what_nobody_has() {
    let bench = Bench::new().await;
    let stranger = bench.token(&[Scope::CacheRead, Scope::CacheWrite], None, None).await;
    let large = vec![7; BLOB_SMALL_MAX_BYTES * 8];
    let put = async |project: &str, bytes: Vec<u8>| {
        let digest = Digest::of(&bytes);
        let path = format!("/api/v1/blobs/b3/{}?project={project}", digest.to_hex());
        bench.call(&bench.admin, "PUT", &path, bytes).await.is(201);
        digest
    };
    let theirs = [put("vault", b"small".to_vec()).await, put("vault", large.clone()).await];
    let nobodys = Digest::of(b"nobody has it");
    for digest in &theirs {
        for (there, nowhere) in asks(digest).into_iter().zip(asks(&nobodys)) {
            let (method, bytes) = (there.0, there.2.len());
            let [there, nowhere] = times(&bench, &stranger, [there, nowhere]).await;
            let share = share_above(&there, &nowhere);
            assert!((share - 0.5).abs() < MOST, "{method} ({bytes} bytes): slower in {share} of all pairs");
        }
    }
    // The same look at what is seen tells it apart.
    let seen = put("web", large).await;
    let [there, nowhere] = [&seen, &nobodys].map(|digest| asks(digest)[0].clone());
    let [there, nowhere] = times(&bench, &stranger, [there, nowhere]).await;
    let share = share_above(&there, &nowhere);
    assert!(share > 0.5 + MOST, "the test sees nothing: slower in {share} of all pairs");
}

#[test]
fn the_share_of_pairs_is_counted_right() {
    let ms = |all: &[u64]| all.iter().map(|ms| Duration::from_millis(*ms)).collect::<Vec<_>>();
    assert!((share_above(&ms(&[4, 5, 6]), &ms(&[1, 2, 3])) - 1.0).abs() < 1e-9);
    assert!(share_above(&ms(&[1, 2, 3]), &ms(&[4, 5, 6])).abs() < 1e-9);
    assert!((share_above(&ms(&[1, 4]), &ms(&[2, 3])) - 0.5).abs() < 1e-9);
}
