//! The key of the coordinator's secrets, and what it seals (docs/design/022).
//!
//! AES-256-GCM with random nonces of 96 bits. What a secret is called and whom it is for is authenticated with its value,
//! so that a row that was changed, or put in another's place, opens no more. The key comes from the operator's file or
//! environment; where he gives none, the first start makes one in the data directory.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use windlass_coordinator_core::row::{Sealed, SecretName, SecretRow};
use windlass_protocol::host::{read_private, write_private};
use windlass_protocol::{Digest, Secret, hex};

/// Where the key is made that nobody gave.
const FILE: &str = "secrets.key";

const KEY_BYTES: usize = 32;

/// So that the same bytes authenticated for another purpose are others.
const PURPOSE: &[u8] = b"windlass secret 1";

/// Why secrets cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// A key's file cannot be read or written.
    #[error("{doing} {}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A key that is none. It is not shown.
    #[error("{from} holds no key: 64 hexadecimal digits, as of `openssl rand -hex 32`")]
    NoKey {
        /// Where it came from.
        from: String,
    },
    /// There are secrets, and the key that sealed them is not here.
    #[error("{count} secrets are sealed under key {key_id}, which was not given")]
    OtherKey {
        /// Their key.
        key_id: String,
        /// How many.
        count: usize,
    },
    /// A row was changed, or stands in another's place.
    #[error("the secret {0} does not open: its row was changed")]
    Damaged(SecretName),
    /// No randomness.
    #[error("the system gives no random bytes")]
    Random,
}

impl VaultError {
    /// What to do about it.
    #[must_use]
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::OtherKey { .. } => Some(
                "give the key that sealed them with --secrets-key-file or WINDLASS_SECRETS_KEY; to change it, give the new \
                 one there and the old one with --secrets-old-key-file",
            ),
            Self::NoKey { .. } => Some("make one with `openssl rand -hex 32`, in a file of mode 0600"),
            Self::File { .. } | Self::Damaged(_) | Self::Random => None,
        }
    }
}

/// Where keys come from.
#[derive(Debug, Clone, Default)]
pub struct KeySources {
    /// The operator's file.
    pub file: Option<PathBuf>,
    /// The key itself, from the environment.
    pub given: Option<Secret<String>>,
    /// Files with keys of before: what they sealed is sealed anew.
    pub old_files: Vec<PathBuf>,
}

struct Key {
    id: String,
    key: LessSafeKey,
}

impl Key {
    fn new(bytes: &[u8; KEY_BYTES]) -> Result<Self, VaultError> {
        // Says which key it is, and nothing of it.
        let id = Digest::of(&[b"windlass secrets key 1", &bytes[..]].concat()).to_hex();
        let key = UnboundKey::new(&AES_256_GCM, bytes).map_err(|_| VaultError::Random)?;
        Ok(Self { id: id.get(..16).unwrap_or_default().to_owned(), key: LessSafeKey::new(key) })
    }

    fn parse(text: &str, from: &str) -> Result<Self, VaultError> {
        let bytes = hex::from(text.trim()).and_then(|bytes| <[u8; KEY_BYTES]>::try_from(bytes).ok());
        Self::new(&bytes.ok_or_else(|| VaultError::NoKey { from: from.to_owned() })?)
    }

    fn read(path: &Path) -> Result<Option<Self>, VaultError> {
        let failed = |source| VaultError::File { doing: "the key cannot be read from", path: path.to_owned(), source };
        let Some(bytes) = read_private(path).map_err(failed)? else { return Ok(None) };
        Self::parse(&String::from_utf8_lossy(&bytes), &path.display().to_string()).map(Some)
    }

    fn of_file(path: &Path) -> Result<Self, VaultError> {
        let doing = "the key cannot be read from";
        let absent = || VaultError::File { doing, path: path.to_owned(), source: io::ErrorKind::NotFound.into() };
        Self::read(path)?.ok_or_else(absent)
    }
}

/// Seals with one key, opens with that one and those of before.
pub struct Vault {
    keys: Vec<Key>,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| &key.id)).finish()
    }
}

impl Vault {
    /// The operator's key, or that of the data directory. It is made there at the first start, and never where there are
    /// secrets already.
    ///
    /// # Errors
    /// [`VaultError`]; [`VaultError::OtherKey`] where some of these secrets have another key.
    pub fn open<'a>(
        data: &Path,
        sources: &KeySources,
        secrets: impl Iterator<Item = &'a SecretRow> + Clone,
    ) -> Result<Self, VaultError> {
        let given = match (&sources.file, &sources.given) {
            (Some(path), _) => Some(Key::of_file(path)?),
            (None, Some(text)) => Some(Key::parse(text.expose(), "WINDLASS_SECRETS_KEY")?),
            (None, None) => Key::read(&data.join(FILE))?,
        };
        let current = match (given, secrets.clone().next()) {
            (Some(key), _) => key,
            (None, None) => make(&data.join(FILE))?,
            (None, Some(row)) => return Err(other_key(&row.sealed.key_id, secrets)),
        };
        let mut keys = vec![current];
        for path in &sources.old_files {
            keys.push(Key::of_file(path)?);
        }
        let vault = Self { keys };
        match secrets.clone().find(|row| vault.key(&row.sealed.key_id).is_none()) {
            Some(row) => Err(other_key(&row.sealed.key_id, secrets)),
            None => Ok(vault),
        }
    }

    fn key(&self, id: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.id == id)
    }

    /// Seals a value under its name.
    ///
    /// # Errors
    /// [`VaultError::Random`].
    pub fn seal(&self, name: &SecretName, value: &Secret<String>) -> Result<Sealed, VaultError> {
        let key = self.keys.first().ok_or(VaultError::Random)?;
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(|_| VaultError::Random)?;
        let mut bytes = value.expose().clone().into_bytes();
        let aad = Aad::from(context(name, &key.id));
        let sealed = key.key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut bytes);
        sealed.map_err(|_| VaultError::Random)?;
        Ok(Sealed { key_id: key.id.clone(), nonce: hex::to(&nonce), bytes: hex::to(&bytes) })
    }

    /// Opens what was sealed under this name.
    ///
    /// # Errors
    /// [`VaultError::OtherKey`], [`VaultError::Damaged`].
    pub fn unseal(&self, name: &SecretName, sealed: &Sealed) -> Result<Secret<String>, VaultError> {
        let damaged = || VaultError::Damaged(name.clone());
        let key = self.key(&sealed.key_id);
        let key = key.ok_or_else(|| VaultError::OtherKey { key_id: sealed.key_id.clone(), count: 1 })?;
        let nonce = hex::from(&sealed.nonce).and_then(|bytes| <[u8; NONCE_LEN]>::try_from(bytes).ok());
        let nonce = Nonce::assume_unique_for_key(nonce.ok_or_else(damaged)?);
        let mut bytes = hex::from(&sealed.bytes).ok_or_else(damaged)?;
        let aad = Aad::from(context(name, &key.id));
        let opened = key.key.open_in_place(nonce, aad, &mut bytes).map_err(|_| damaged())?;
        Ok(Secret::new(String::from_utf8(opened.to_vec()).map_err(|_| damaged())?))
    }

    /// What is sealed under a key of before, sealed under the present one.
    ///
    /// # Errors
    /// As [`Vault::seal`] and [`Vault::unseal`].
    pub fn reseal<'a>(
        &self,
        secrets: impl Iterator<Item = &'a SecretRow>,
    ) -> Result<Vec<(SecretName, Sealed, Sealed)>, VaultError> {
        let is_old = |row: &&SecretRow| self.keys.first().is_some_and(|key| key.id != row.sealed.key_id);
        let again = |row: &SecretRow| {
            let value = self.unseal(&row.name, &row.sealed)?;
            Ok((row.name.clone(), row.sealed.clone(), self.seal(&row.name, &value)?))
        };
        secrets.filter(is_old).map(again).collect()
    }
}

fn other_key<'a>(key_id: &str, secrets: impl Iterator<Item = &'a SecretRow>) -> VaultError {
    let count = secrets.filter(|row| row.sealed.key_id == key_id).count();
    VaultError::OtherKey { key_id: key_id.to_owned(), count }
}

fn make(path: &Path) -> Result<Key, VaultError> {
    let mut bytes = [0; KEY_BYTES];
    getrandom::fill(&mut bytes).map_err(|_| VaultError::Random)?;
    let failed = |source| VaultError::File { doing: "the key cannot be written to", path: path.to_owned(), source };
    write_private(path, format!("{}\n", hex::to(&bytes)).as_bytes()).map_err(failed)?;
    tracing::info!(path = %path.display(), "secrets_key_made");
    Key::new(&bytes)
}

/// What is authenticated with a value: each part with its length, so that no two names come to the same bytes.
fn context(name: &SecretName, key_id: &str) -> Vec<u8> {
    let mut bytes = PURPOSE.to_vec();
    for part in [Some(key_id), Some(&name.key), name.pipeline.as_deref(), name.branch.as_deref(), name.zone.as_deref()]
    {
        match part {
            None => bytes.push(0),
            Some(text) => {
                bytes.push(1);
                bytes.extend((text.len() as u64).to_le_bytes());
                bytes.extend(text.as_bytes());
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests;
