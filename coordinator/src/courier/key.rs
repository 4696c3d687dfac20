//! What webhooks are signed with: the operator's key, or one that the first start makes; and the key of before, while
//! receivers change.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use windlass_protocol::host::{read_private, write_private};
use windlass_protocol::{NotificationId, Secret, hex};

use crate::config::NotifyConfig;

/// Where the key is made that nobody gave.
const FILE: &str = "notify.key";

/// How Standard Webhooks writes a key: the rest is base64.
const PREFIX: &str = "whsec_";

const KEY_BYTES: usize = 32;

/// Characters of a key: below this it could be guessed, and no receiver takes more than a line.
const KEY_CHARS: std::ops::RangeInclusive<usize> = 24..=512;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
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
    #[error(
        "{from} holds no key for webhooks: 24 to 512 printable characters on one line; after `whsec_` they are base64"
    )]
    NoKey {
        /// Where it came from.
        from: String,
    },
    /// No randomness.
    #[error("the system gives no random bytes")]
    Random,
}

/// One key, in both forms that receivers use.
struct Key {
    /// By its text, as Buildkite's receivers do.
    text: hmac::Key,
    /// By its bytes, as Standard Webhooks says.
    bytes: hmac::Key,
}

impl Key {
    fn parse(text: &str, from: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        let none = || KeyError::NoKey { from: from.to_owned() };
        if !KEY_CHARS.contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(none());
        }
        let bytes = match text.strip_prefix(PREFIX) {
            Some(rest) => STANDARD.decode(rest).map_err(|_| none())?,
            None => text.as_bytes().to_vec(),
        };
        let key = |bytes: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, bytes);
        Ok(Self { text: key(text.as_bytes()), bytes: key(&bytes) })
    }

    fn read(path: &Path) -> Result<Option<Self>, KeyError> {
        let failed = |source| KeyError::File { doing: "the key cannot be read from", path: path.to_owned(), source };
        let Some(bytes) = read_private(path).map_err(failed)? else { return Ok(None) };
        Self::parse(&String::from_utf8_lossy(&bytes), &path.display().to_string()).map(Some)
    }

    fn of_file(path: &Path) -> Result<Self, KeyError> {
        let doing = "the key cannot be read from";
        let absent = || KeyError::File { doing, path: path.to_owned(), source: io::ErrorKind::NotFound.into() };
        Self::read(path)?.ok_or_else(absent)
    }

    fn make(path: &Path) -> Result<Self, KeyError> {
        let mut bytes = [0; KEY_BYTES];
        getrandom::fill(&mut bytes).map_err(|_| KeyError::Random)?;
        let text = Secret::new(format!("{PREFIX}{}", STANDARD.encode(bytes)));
        let failed = |source| KeyError::File { doing: "the key cannot be written to", path: path.to_owned(), source };
        write_private(path, format!("{}\n", text.expose()).as_bytes()).map_err(failed)?;
        tracing::info!(path = %path.display(), "notify_key_made");
        Self::parse(text.expose(), FILE)
    }
}

/// The present key, and the one of before.
pub(super) struct Keys {
    present: Key,
    before: Option<Key>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("before", &self.before.is_some()).finish_non_exhaustive()
    }
}

impl Keys {
    pub(super) fn open(data: &Path, config: &NotifyConfig) -> Result<Self, KeyError> {
        let present = match (&config.key_file, &config.key) {
            (Some(path), _) => Key::of_file(path)?,
            (None, Some(text)) => Key::parse(text.expose(), "WINDLASS_NOTIFY_KEY")?,
            (None, None) => match Key::read(&data.join(FILE))? {
                Some(key) => key,
                None => Key::make(&data.join(FILE))?,
            },
        };
        let before = config.old_key_file.as_deref().map(Key::of_file).transpose()?;
        Ok(Self { present, before })
    }

    /// `webhook-signature`: one signature for each key, over `id.seconds.body`.
    pub(super) fn standard(&self, id: NotificationId, seconds: u64, body: &[u8]) -> String {
        let signed = [format!("{id}.{seconds}.").as_bytes(), body].concat();
        let of = |key: &Key| format!("v1,{}", STANDARD.encode(hmac::sign(&key.bytes, &signed)));
        std::iter::once(&self.present).chain(&self.before).map(of).collect::<Vec<_>>().join(" ")
    }

    /// `X-Buildkite-Signature`: by the present key, over `seconds.body`.
    pub(super) fn buildkite(&self, seconds: u64, body: &[u8]) -> String {
        let signed = [format!("{seconds}.").as_bytes(), body].concat();
        format!("timestamp={seconds},signature={}", hex::to(hmac::sign(&self.present.text, &signed).as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification (Standard Webhooks 1.0, its libraries' own test).
    #[test]
    fn signatures_are_those_of_standard_webhooks() {
        let key = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned());
        let config = NotifyConfig { key: Some(key), ..NotifyConfig::default() };
        let keys = Keys::open(Path::new("/nowhere"), &config).unwrap();
        // Its id is no UUID: what is signed is put together here as there.
        let signed = br#"msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{"test": 2432232314}"#;
        let tag = STANDARD.encode(hmac::sign(&keys.present.bytes, signed));
        assert_eq!(tag, "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn while_a_key_is_changed_both_sign() {
        let dir = tempfile::tempdir().unwrap();
        let old = dir.path().join("old");
        write_private(&old, b"an-old-key-of-24-characters\n").unwrap();
        let given = |key: &str| Some(Secret::new(key.to_owned()));
        let key = given("a-new-key-of-24-characters!");
        let both = NotifyConfig { key: key.clone(), old_key_file: Some(old.clone()), ..NotifyConfig::default() };
        let both = Keys::open(dir.path(), &both).unwrap();
        let before = NotifyConfig { key_file: Some(old), ..NotifyConfig::default() };
        let before = Keys::open(dir.path(), &before).unwrap();
        let id = NotificationId::from_bytes([1; 16]);
        let (two, one) = (both.standard(id, 7, b"{}"), before.standard(id, 7, b"{}"));
        assert_eq!(two.split(' ').count(), 2);
        assert!(two.ends_with(&format!(" {one}")), "{two} has not {one}");
        assert_ne!(both.buildkite(7, b"{}"), before.buildkite(7, b"{}"), "the present key alone");
        for bad in ["short", "white space is in this one, is it not", "whsec_???????????????????????"] {
            let config = NotifyConfig { key: given(bad), ..NotifyConfig::default() };
            let error = Keys::open(dir.path(), &config).unwrap_err();
            assert!(matches!(&error, KeyError::NoKey { .. }) && !error.to_string().contains(bad), "{error}");
        }
    }

    #[test]
    fn the_first_start_makes_a_key_and_the_next_one_has_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let config = NotifyConfig::default();
        let first = Keys::open(dir.path(), &config).unwrap().buildkite(1, b"x");
        assert_eq!(Keys::open(dir.path(), &config).unwrap().buildkite(1, b"x"), first);
    }
}
