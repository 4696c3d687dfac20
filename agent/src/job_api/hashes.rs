//! What a file is known by: computed as it is read, in its job's turn, beside the reading of what comes next.

use bytes::Bytes;
use ring::digest;
use sha1::{Digest as _, Sha1};
use windlass_protocol::Digest;

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
#[derive(Debug, Clone, Copy)]
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

    /// Takes the next bytes.
    pub(super) fn update(&mut self, pieces: &[Bytes]) {
        for piece in pieces {
            self.whole.update(piece);
            if let Some(of) = &mut self.of_artifact {
                of.sha1.update(piece);
                of.sha256.update(piece);
            }
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
