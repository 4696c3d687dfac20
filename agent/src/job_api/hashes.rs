//! What a file is known by: computed as it is read, in its job's turn, beside the reading of what comes next.

use std::thread;

use bytes::Bytes;
use ring::digest;
use sha1::{Digest as _, Sha1};
use windlass_protocol::Digest;

/// Bytes for which a second thread is worth its start: half a millisecond's hashing, where that takes 30 µs.
const BESIDE_BYTES: usize = 512 << 10;

/// The hashes of a file that is being read.
#[derive(Debug)]
pub(super) struct Hashes {
    whole: Box<blake3::Hasher>,
    of_artifact: Option<Box<OfArtifact>>,
}

/// By what other tools know an artifact.
struct OfArtifact {
    // By the processor's own instructions, which ring uses for SHA-256 and not for this one.
    sha1: Sha1,
    sha256: digest::Context,
}

impl std::fmt::Debug for OfArtifact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OfArtifact")
    }
}

/// What the whole hashes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hashed {
    pub(super) digest: Digest,
    /// SHA-1 and SHA-256, of an artifact.
    pub(super) of_artifact: Option<([u8; 20], [u8; 32])>,
}

impl Hashes {
    /// Those of something that is kept by its digest alone.
    pub(super) fn plain() -> Self {
        Self { whole: Box::default(), of_artifact: None }
    }

    /// Those of an artifact.
    pub(super) fn of_artifact() -> Self {
        let of = OfArtifact { sha1: Sha1::new(), sha256: digest::Context::new(&digest::SHA256) };
        Self { whole: Box::default(), of_artifact: Some(Box::new(of)) }
    }

    /// Takes the next bytes. The two that other tools ask for cost nine tenths of it: of many bytes they are computed one beside
    /// the other.
    pub(super) fn update(&mut self, pieces: &[Bytes]) {
        let whole = &mut self.whole;
        let Some(OfArtifact { sha1, sha256 }) = self.of_artifact.as_deref_mut() else {
            for piece in pieces {
                whole.update(piece);
            }
            return;
        };
        let mut by_sha1 = || pieces.iter().for_each(|piece| sha1.update(piece));
        let mut by_others = || {
            for piece in pieces {
                whole.update(piece);
                sha256.update(piece);
            }
        };
        if pieces.iter().map(Bytes::len).sum::<usize>() < BESIDE_BYTES {
            by_others();
            return by_sha1();
        }
        let beside = thread::scope(|scope| {
            let thread = thread::Builder::new().name("artifact-sha1".to_owned());
            let spawned = thread.spawn_scoped(scope, &mut by_sha1);
            by_others();
            spawned.is_ok()
        });
        // There is no thread to be had.
        if !beside {
            by_sha1();
        }
    }

    pub(super) fn finish(self) -> Hashed {
        let of_artifact = self.of_artifact.map(|of| {
            let mut sha256 = [0; 32];
            sha256.copy_from_slice(of.sha256.finish().as_ref());
            (of.sha1.finalize().into(), sha256)
        });
        Hashed { digest: Digest::from_hasher(&self.whole), of_artifact }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_artifact_hashes_to_the_same_whether_its_bytes_come_a_few_at_a_time_or_many_at_once() {
        let bytes = Bytes::from(b"all work and no play ".repeat(BESIDE_BYTES / 10));
        let hashed = |pieces: &[usize]| {
            let (mut hashes, mut rest) = (Hashes::of_artifact(), bytes.clone());
            for count in pieces {
                let pieces: Vec<Bytes> = (0..*count).map(|_| rest.split_to(rest.len().min(100_000))).collect();
                hashes.update(&pieces);
            }
            hashes.update(&[rest]);
            hashes.finish()
        };
        let wanted = Hashed {
            digest: Digest::of(&bytes),
            of_artifact: Some((
                Sha1::digest(&bytes).into(),
                digest::digest(&digest::SHA256, &bytes).as_ref().try_into().unwrap(),
            )),
        };
        for pieces in [&[][..], &[1, 1, 3], &[7, 1], &[1, 6, 2]] {
            assert_eq!(hashed(pieces), wanted, "{pieces:?}");
        }
    }
}
