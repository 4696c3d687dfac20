//! The sealed file's bytes: golden, and strictly decoded whatever is in the file.

use std::path::Path;

use proptest::prelude::*;
use windlass_cache::vfs::recorded::RecordingFs;
use windlass_coordinator_logs::sealed::decode;
use windlass_protocol::WallMs;
use windlass_protocol::job::Epoch;

use crate::kit::{DIR, attempt, open, within};

/// A sealed file: one frame that compresses, one that does not, several times, and a reason.
async fn sealed() -> Vec<u8> {
    let fs = RecordingFs::new();
    let store = open(&fs).unwrap();
    let mut offset = 0;
    for (at, bytes) in [(1_000, "a line\n".repeat(60)), (1_001, "x".to_owned()), (900, "0123456789abcdef".to_owned())] {
        let len = bytes.len() as u64;
        store.append(attempt(1), Epoch(0), offset, WallMs(at), bytes.into()).await.unwrap();
        offset += len;
    }
    store.incomplete(attempt(1), "cut").await.unwrap();
    store.seal(attempt(1)).await.unwrap();
    within(store.quiet()).await;
    fs.live_image().files[&Path::new(DIR).join("sealed").join(format!("{}.wlog", attempt(1)))].clone()
}

#[tokio::test]
async fn a_sealed_log_has_the_documented_bytes() {
    let hex: String = sealed().await.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, include_str!("../golden/sealed.hex").trim());
}

#[tokio::test]
async fn a_sealed_log_of_this_version_stays_readable() {
    let hex = include_str!("../golden/sealed.hex").trim();
    let bytes: Vec<u8> = (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect();
    let pieces = decode(&bytes).unwrap();
    let text: Vec<u8> = pieces.iter().flat_map(|piece| piece.bytes.to_vec()).collect();
    assert_eq!(text, format!("{}x0123456789abcdef", "a line\n".repeat(60)).into_bytes());
    let times: Vec<(u64, u64)> = pieces.iter().map(|piece| (piece.offset, piece.at.0)).collect();
    assert_eq!(times, [(0, 1_000), (420, 1_001), (421, 900)]);
}

#[tokio::test]
async fn every_flipped_bit_and_every_cut_of_a_sealed_log_is_noticed() {
    let bytes = sealed().await;
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&bad).is_err(), "bit {bit}");
    }
    for len in 0..bytes.len() {
        assert!(decode(&bytes[..len]).is_err(), "cut at {len}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(decode(&longer).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bytes_with_right_checksums_and_wrong_meaning_are_refused_without_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let good = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(sealed());
        let mut bytes = good.clone();
        for (index, byte) in edits {
            *index.get_mut(&mut bytes) = byte;
        }
        // With the checksum of index and footer mended, only meaning is left to refuse.
        let footer = bytes.len() - 84;
        let index_at = usize::try_from(u64::from_le_bytes(bytes[footer..footer + 8].try_into().unwrap())).unwrap();
        if index_at < footer {
            let crc = crc32fast::hash(&bytes[index_at..footer + 72]);
            bytes[footer + 72..footer + 76].copy_from_slice(&crc.to_le_bytes());
        }
        if let Ok(pieces) = decode(&bytes) {
            let end = pieces.last().map_or(0, |piece| piece.end());
            prop_assert_eq!(end, pieces.iter().map(|piece| piece.bytes.len() as u64).sum::<u64>());
        }
    }
}
