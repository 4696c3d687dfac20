//! Blobs by their SHA-256, the name that other tools know them by.
//!
//! A fact about bytes, whoever sees them: it is written beside the blob, computed in the pass that computes its name, and says
//! nothing of who may ask. Kept by 128 bits of a keyed hash, so that nobody can make two names meet.

use windlass_protocol::{Digest, Namespace};

use crate::copy::cursor::{Cursor, Fixed};
use crate::flat;
use crate::store::Store;

/// The SHA-256 of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256Digest(pub [u8; 32]);

impl Sha256Digest {
    /// Of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Sha256::default();
        hasher.update(bytes);
        hasher.finish()
    }
}

/// Computes one as the bytes come.
#[derive(Clone)]
pub(crate) struct Sha256(ring::digest::Context);

impl std::fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sha256")
    }
}

impl Default for Sha256 {
    fn default() -> Self {
        Self(ring::digest::Context::new(&ring::digest::SHA256))
    }
}

impl Sha256 {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> Sha256Digest {
        let mut out = [0; 32];
        for (out, byte) in out.iter_mut().zip(self.0.finish().as_ref()) {
            *out = *byte;
        }
        Sha256Digest(out)
    }
}

/// Which blob is whose.
#[derive(Debug, Default)]
pub(crate) struct Aliases {
    /// Drawn when it is first needed.
    key: Option<[u8; 32]>,
    digests: flat::Table<Alias>,
}

/// One of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Alias {
    tag: u128,
    digest: Digest,
}

impl flat::Row for Alias {
    type Key = u128;

    fn key(&self) -> u128 {
        self.tag
    }
}

impl Fixed for Alias {
    const BYTES: usize = 48;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.tag.to_le_bytes());
        out.extend_from_slice(self.digest.as_bytes());
    }

    fn decode(from: &mut Cursor<'_>) -> Option<Self> {
        Some(Self { tag: from.array().map(u128::from_le_bytes)?, digest: from.digest()? })
    }
}

impl Aliases {
    fn tag(&self, alias: &Sha256Digest) -> Option<u128> {
        let hash = blake3::keyed_hash(self.key.as_ref()?, &alias.0);
        hash.as_bytes().first_chunk().map(|tag| u128::from_le_bytes(*tag))
    }

    pub(crate) fn get(&self, alias: &Sha256Digest) -> Option<Digest> {
        self.digests.get(&self.tag(alias)?).map(|alias| alias.digest)
    }

    pub(crate) fn insert(&mut self, alias: &Sha256Digest, digest: Digest) {
        if self.key.is_none() {
            let mut key = [0; 32];
            match getrandom::fill(&mut key) {
                Ok(()) => self.key = Some(key),
                // Blobs are found by their names alone until there is one.
                Err(error) => tracing::warn!(%error, "aliases_without_key"),
            }
        }
        if let Some(tag) = self.tag(alias) {
            match self.digests.get_mut(&tag) {
                Some(alias) => alias.digest = digest,
                None => self.digests.insert(Alias { tag, digest }),
            }
        }
    }

    /// It is written nowhere any more that this is its blob.
    pub(crate) fn remove(&mut self, alias: &Sha256Digest, digest: &Digest) {
        let is_its = |tag: &u128| self.digests.get(tag).is_some_and(|alias| alias.digest == *digest);
        if let Some(tag) = self.tag(alias).filter(is_its) {
            self.digests.remove(&tag);
        }
    }
}

/// What is copied of them, and read back.
impl Aliases {
    pub(crate) const fn table_key(&self) -> Option<[u8; 32]> {
        self.key
    }

    pub(crate) const fn table(&self) -> &flat::Table<Alias> {
        &self.digests
    }

    pub(crate) const fn table_mut(&mut self) -> &mut flat::Table<Alias> {
        &mut self.digests
    }

    pub(crate) const fn load(key: Option<[u8; 32]>, digests: flat::Table<Alias>) -> Self {
        Self { key, digests }
    }
}

impl Store {
    /// The name of the blob with this SHA-256, where the namespace sees it (I12) and it was stored while the store computed
    /// aliases ([`crate::StoreOptions::sha256`]). That of no bytes is known to everybody.
    #[must_use]
    pub fn by_sha256(&self, namespace: &Namespace, alias: &Sha256Digest) -> Option<Digest> {
        let empty = Digest::of(b"");
        if *alias == Sha256Digest::of(b"") {
            return Some(empty);
        }
        let index = self.shared.index();
        let digest = index.aliases().get(alias)?;
        index.visible(namespace, &digest).map(|entry| entry.digest())
    }
}
