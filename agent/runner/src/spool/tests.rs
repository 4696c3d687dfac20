//! The spool: what is written is read, over files, cuts and crashes.

use super::*;

fn read_all(reader: &mut SpoolReader, mut from: u64, max: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(chunk) = reader.next(from, max).unwrap() {
        assert_eq!(chunk.offset, from);
        assert!(!chunk.bytes.is_empty() && chunk.bytes.len() <= max);
        from += chunk.bytes.len() as u64;
        all.extend_from_slice(&chunk.bytes);
    }
    all
}

fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

#[test]
fn what_is_appended_is_read_from_any_offset_in_pieces_of_any_size() {
    let dir = tempfile::tempdir().unwrap();
    let spool = dir.path().join("spool");
    let mut writer = SpoolWriter::new(&spool);
    let bytes = noise(1_000);
    for (index, piece) in bytes.chunks(7).enumerate() {
        assert_eq!(writer.append(WallMs(index as u64), piece).unwrap(), piece.len());
    }
    assert_eq!(writer.digest(), windlass_protocol::digest::Digest::of(&bytes));
    for from in [0, 1, 6, 7, 500, 999, 1_000] {
        let mut reader = SpoolReader::open(&spool);
        assert_eq!(read_all(&mut reader, from, 3), bytes[usize::try_from(from).unwrap()..]);
    }
    let mut reader = SpoolReader::open(&spool);
    assert_eq!(reader.next(993, 100).unwrap().unwrap().at, WallMs(993 / 7));
    assert_eq!(reader.next(7, 100).unwrap().unwrap().at, WallMs(1), "going back is possible too");
}

#[test]
fn a_record_that_is_still_being_written_is_not_visible_and_then_is() {
    let dir = tempfile::tempdir().unwrap();
    let spool = dir.path().join("spool");
    let mut writer = SpoolWriter::new(&spool);
    let mut reader = SpoolReader::open(&spool);
    assert_eq!(reader.next(0, 100).unwrap(), None);
    writer.append(WallMs(1), b"whole").unwrap();
    writer.append(WallMs(2), b"torn record").unwrap();
    let path = segment_path(&spool, 0);
    let complete = fs::read(&path).unwrap();
    for cut in HEADER_BYTES + 5..complete.len() {
        fs::write(&path, &complete[..cut]).unwrap();
        assert_eq!(read_all(&mut SpoolReader::open(&spool), 0, 100), b"whole", "cut at {cut}");
    }
    fs::write(&path, &complete[..complete.len() - 4]).unwrap();
    assert_eq!(read_all(&mut reader, 0, 100), b"whole");
    fs::write(&path, &complete).unwrap();
    assert_eq!(read_all(&mut reader, 5, 100), b"torn record", "the same reader sees it once it is whole");
}

#[test]
fn a_damaged_record_is_not_read_as_log() {
    let dir = tempfile::tempdir().unwrap();
    let spool = dir.path().join("spool");
    let mut writer = SpoolWriter::new(&spool);
    writer.append(WallMs(1), b"whole").unwrap();
    let path = segment_path(&spool, 0);
    let complete = fs::read(&path).unwrap();
    for byte in 0..complete.len() {
        let mut damaged = complete.clone();
        damaged[byte] ^= 0x10;
        fs::write(&path, &damaged).unwrap();
        assert_eq!(SpoolReader::open(&spool).next(0, 100).unwrap(), None, "byte {byte}");
    }
}

#[test]
fn acknowledged_segments_go_and_the_rest_stays_readable() {
    let dir = tempfile::tempdir().unwrap();
    let spool = dir.path().join("spool");
    let mut writer = SpoolWriter::new(&spool);
    let mut reader = SpoolReader::open(&spool);
    let piece = noise(200_000);
    for _ in 0..100 {
        writer.append(WallMs(1), &piece).unwrap();
    }
    let before = segments(&spool).unwrap();
    assert_eq!(before.len(), 3);
    assert_eq!(read_all(&mut reader, 0, 1 << 20).len(), 20_000_000, "one reader crosses the segments");
    writer.acked(before[2] - 1).unwrap();
    assert_eq!(segments(&spool).unwrap(), before[1..], "one byte of the second is not acknowledged");
    writer.acked(u64::MAX).unwrap();
    assert_eq!(segments(&spool).unwrap(), before[2..], "the one that is written stays");
    let error = SpoolReader::open(&spool).next(0, 100).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert_eq!(read_all(&mut SpoolReader::open(&spool), 19_999_999, 100), piece[199_999..]);
}

#[test]
fn a_spool_without_acknowledgements_fills_up_and_has_room_again_after_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = SpoolWriter::new(&dir.path().join("spool"));
    let piece = vec![0; 256 << 10];
    let mut pieces = 0_u64;
    while writer.has_room() {
        writer.append(WallMs(1), &piece).unwrap();
        pieces += 1;
    }
    assert_eq!(pieces * (256 << 10), windlass_protocol::limits::SPOOL_MAX_BYTES);
    writer.acked(1).unwrap();
    assert!(writer.has_room());
}
