//! Keys that sign jobs' tokens, in turns. The public part of each is published for a while before the key signs, and for a
//! while after it has signed last, so that a verifier that asks for the keys now and then knows every token's.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD as BASE64};
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use windlass_protocol::host::{read_private, write_private};
use windlass_protocol::limits::{OIDC_KEY_KNOWN_MS, OIDC_KEY_LIFE_MS, OIDC_LIFETIME_MAX_S};
use windlass_protocol::{Secret, WallMs};

/// How all of them sign (RFC 7518, 3.4).
pub(super) const ALGORITHM: &str = "ES256";

/// Why tokens cannot be signed.
#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    /// The keys' file.
    #[error("{doing} {}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What is in it.
    #[error("{} is not a file of keys: put it back from a backup, or remove it to begin with a new one ({rule})", path.display())]
    Garbled {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        rule: String,
    },
    /// No randomness.
    #[error("the system gives no random bytes")]
    Random,
    /// There is no key.
    #[error("there is no key to sign with")]
    NoKey,
}

/// One key.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Key {
    /// RFC 7638: SHA-256 of its public part.
    kid: String,
    /// PKCS #8 in base64.
    #[serde(serialize_with = "shown", deserialize_with = "hidden")]
    pkcs8: Secret<String>,
    /// When it begins to sign, in milliseconds since 1970.
    signs_from: u64,
}

/// A secret as its file has it.
fn shown<S: Serializer>(secret: &Secret<String>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(secret.expose())
}

fn hidden<'de, D: Deserializer<'de>>(from: D) -> Result<Secret<String>, D::Error> {
    String::deserialize(from).map(Secret::new)
}

/// A key's public part (RFC 7517, RFC 7518, 6.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Jwk {
    kty: &'static str,
    #[serde(rename = "use")]
    purpose: &'static str,
    alg: &'static str,
    crv: &'static str,
    kid: String,
    x: String,
    y: String,
}

/// All keys that somebody may still need, the oldest first.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Keys {
    keys: Vec<Key>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}, from {}, private part ***)", self.kid, self.signs_from)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.keys).finish()
    }
}

impl Key {
    fn generate(signs_from: WallMs, random: &SystemRandom) -> Result<Self, OidcError> {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, random);
        let pkcs8 = Secret::new(STANDARD.encode(pkcs8.map_err(|_| OidcError::Random)?));
        let mut key = Self { kid: String::new(), pkcs8, signs_from: signs_from.0 };
        key.kid = key.public(random).map_err(|_| OidcError::Random)?.thumbprint();
        Ok(key)
    }

    pub(super) fn id(&self) -> &str {
        &self.kid
    }

    fn pair(&self, random: &SystemRandom) -> Result<EcdsaKeyPair, String> {
        let pkcs8 = STANDARD.decode(self.pkcs8.expose()).map_err(|error| error.to_string())?;
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8, random).map_err(|error| error.to_string())
    }

    fn public(&self, random: &SystemRandom) -> Result<Jwk, String> {
        let pair = self.pair(random)?;
        // An uncompressed point: a byte that says so, then both coordinates (SEC 1, 2.3.3).
        let point = pair.public_key().as_ref();
        let (x, y) = point.get(1..33).zip(point.get(33..65)).ok_or("its point is compressed")?;
        Ok(Jwk {
            kty: "EC",
            purpose: "sig",
            alg: ALGORITHM,
            crv: "P-256",
            kid: self.kid.clone(),
            x: BASE64.encode(x),
            y: BASE64.encode(y),
        })
    }

    /// Both halves of a signature, each of 32 bytes (RFC 7518, 3.4).
    pub(super) fn sign(&self, message: &[u8], random: &SystemRandom) -> Result<Vec<u8>, OidcError> {
        let pair = self.pair(random).map_err(|_| OidcError::NoKey)?;
        pair.sign(random, message).map(|signature| signature.as_ref().to_vec()).map_err(|_| OidcError::Random)
    }
}

impl Jwk {
    fn thumbprint(&self) -> String {
        let text = format!(r#"{{"crv":"{}","kty":"{}","x":"{}","y":"{}"}}"#, self.crv, self.kty, self.x, self.y);
        BASE64.encode(digest(&SHA256, text.as_bytes()))
    }
}

impl Keys {
    /// The last that has begun to sign; where the clock was set back, the first.
    pub(super) fn signing(&self, at: WallMs) -> Result<&Key, OidcError> {
        let begun = self.keys.iter().rfind(|key| key.signs_from <= at.0);
        begun.or(self.keys.first()).ok_or(OidcError::NoKey)
    }

    /// What is published; a key that cannot be read is not, which opening its file has refused before.
    pub(super) fn public(&self) -> Vec<Jwk> {
        let random = SystemRandom::new();
        self.keys.iter().filter_map(|key| key.public(&random).ok()).collect()
    }

    /// Makes the next key in time, and drops those whose tokens are all over; whether anything changed.
    pub(super) fn turn(&mut self, at: WallMs, random: &SystemRandom) -> Result<bool, OidcError> {
        let before = self.keys.len();
        let next = match self.keys.last() {
            None => Some(at),
            Some(last) => {
                let over = WallMs(last.signs_from.saturating_add(OIDC_KEY_LIFE_MS));
                let due = over.0.saturating_sub(OIDC_KEY_KNOWN_MS) <= at.0;
                // Nobody may know the new one yet, however late it is.
                due.then(|| over.max(at.plus_ms(OIDC_KEY_KNOWN_MS)))
            }
        };
        if let Some(signs_from) = next {
            self.keys.push(Key::generate(signs_from, random)?);
        }
        let made = self.keys.len() > before;
        let gone_ms = u64::from(OIDC_LIFETIME_MAX_S) * 1_000 + OIDC_KEY_KNOWN_MS;
        let successors: Vec<u64> = self.keys.iter().skip(1).map(|key| key.signs_from).collect();
        let mut successors = successors.into_iter();
        self.keys.retain(|_| successors.next().is_none_or(|from| from.saturating_add(gone_ms) > at.0));
        Ok(made || self.keys.len() < before)
    }
}

/// `DATA/identity/oidc-keys.json`, mode 0600.
#[derive(Debug)]
pub(super) struct KeysFile(PathBuf);

impl KeysFile {
    pub(super) fn new(data: &Path) -> Self {
        Self(data.join("identity").join("oidc-keys.json"))
    }

    fn failed(&self, doing: &'static str) -> impl FnOnce(io::Error) -> OidcError + use<> {
        let path = self.0.clone();
        move |source| OidcError::File { doing, path, source }
    }

    /// The keys, if there are any.
    pub(super) fn read(&self) -> Result<Option<Keys>, OidcError> {
        let Some(bytes) = read_private(&self.0).map_err(self.failed("cannot read"))? else { return Ok(None) };
        let garbled = |rule: String| OidcError::Garbled { path: self.0.clone(), rule };
        // What serde says of it could show what is in it.
        let keys: Keys = serde_json::from_slice(&bytes).map_err(|_| garbled("it cannot be read".to_owned()))?;
        let random = SystemRandom::new();
        for key in &keys.keys {
            let public = key.public(&random).map_err(garbled)?;
            if public.thumbprint() != key.kid {
                return Err(garbled(format!("key {} is another one", key.kid)));
            }
        }
        Ok(Some(keys))
    }

    pub(super) fn write(&self, keys: &Keys) -> Result<(), OidcError> {
        let json = serde_json::to_vec(&keys)
            .map_err(|error| OidcError::Garbled { path: self.0.clone(), rule: error.to_string() })?;
        write_private(&self.0, &json).map_err(self.failed("cannot write"))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const DAY: u64 = 86_400_000;

    fn kids(keys: &Keys) -> Vec<String> {
        keys.public().into_iter().map(|key| key.kid).collect()
    }

    #[test]
    fn a_key_is_known_before_it_signs_and_for_as_long_as_its_tokens_are_good() {
        let (random, mut keys, start) = (SystemRandom::new(), Keys::default(), WallMs(1_800_000_000_000));
        assert!(keys.signing(start).is_err());
        let mut signed: Option<(String, u64)> = None;
        let mut made = 0;
        for hour in 0..365 * 24_u64 {
            let at = start.plus_ms(hour * 3_600_000);
            let known = kids(&keys);
            made += usize::from(keys.turn(at, &random).unwrap() && kids(&keys).len() > known.len());
            let signing = keys.signing(at).unwrap().kid.clone();
            if let Some((before, since)) = signed.take_if(|(before, _)| *before != signing) {
                assert!(at.0 - since >= OIDC_KEY_LIFE_MS, "{before} signed for {} days", (at.0 - since) / DAY);
            }
            let (_, since) = signed.get_or_insert((signing.clone(), at.0));
            assert!(*since == start.0 || known.contains(&signing), "{signing} signs and nobody knows it");
            assert!(kids(&keys).contains(&signing) && keys.keys.len() <= 2, "{:?}", keys.keys);
        }
        assert_eq!(made, 1 + 365 / usize::try_from(OIDC_KEY_LIFE_MS / DAY).unwrap());
    }

    #[test]
    fn a_key_that_has_signed_last_is_known_until_its_tokens_are_over() {
        let (random, mut keys, start) = (SystemRandom::new(), Keys::default(), WallMs(1_800_000_000_000));
        keys.turn(start, &random).unwrap();
        let first = kids(&keys)[0].clone();
        // Nobody looked after the keys for a year.
        let late = start.plus_ms(365 * DAY);
        assert!(keys.turn(late, &random).unwrap());
        assert_eq!(keys.signing(late).unwrap().kid, first, "the new one is not known yet");
        let begins = late.plus_ms(OIDC_KEY_KNOWN_MS);
        assert_ne!(keys.signing(begins).unwrap().kid, first);
        let over = begins.plus_ms(u64::from(OIDC_LIFETIME_MAX_S) * 1_000 + OIDC_KEY_KNOWN_MS);
        assert!(!keys.turn(WallMs(over.0 - 1), &random).unwrap() && kids(&keys).contains(&first));
        assert!(keys.turn(over, &random).unwrap() && !kids(&keys).contains(&first));
        assert_eq!(keys.signing(WallMs(0)).unwrap().kid, kids(&keys)[0], "a clock that was set back stops nothing");
    }

    #[test]
    fn keys_are_kept_by_their_file_alone_and_another_s_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("identity")).unwrap();
        let (random, mut keys, file) = (SystemRandom::new(), Keys::default(), KeysFile::new(dir.path()));
        assert!(file.read().unwrap().is_none());
        keys.turn(WallMs(1), &random).unwrap();
        file.write(&keys).unwrap();
        assert_eq!(fs::metadata(&file.0).unwrap().permissions().mode() & 0o777, 0o600);
        let read = file.read().unwrap().unwrap();
        assert_eq!(read.public(), keys.public());
        let secret = keys.keys[0].pkcs8.expose().clone();
        assert!(!format!("{keys:?}").contains(&secret));
        let good = fs::read_to_string(&file.0).unwrap();
        let other = Key::generate(WallMs(1), &random).unwrap();
        for bad in [good.replace(&secret, other.pkcs8.expose()), good.replace(&secret, "AAAA"), "{}x".to_owned()] {
            write_private(&file.0, bad.as_bytes()).unwrap();
            let error = file.read().unwrap_err().to_string();
            assert!(error.contains("is not a file of keys") && !error.contains(&secret), "{error}");
        }
        fs::set_permissions(&file.0, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(file.read(), Err(OidcError::File { .. })), "what others could read is no secret");
    }
}
