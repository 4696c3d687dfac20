//! Tokens that people hand out: a public id that may be logged, a secret that is stored only as a hash (F1).
//!
//! | kind | text |
//! | --- | --- |
//! | join token | `wlj_`, id (32 hex digits), `_`, base32 of secret (32 bytes), the CA's fingerprint (32), CRC-32 (4) |
//! | API token | `wla_`, id (32 hex digits), `_`, base32 of secret (32 bytes), CRC-32 (4) |
//!
//! base32 is RFC 4648's alphabet in lower case without padding; unused bits are 0, so that a token has one text. The
//! checksum is over everything before it, and tells a slip of the pen from a wrong token.

use std::fmt;
use std::str::FromStr;

use super::{IdentityError, random};
use crate::digest::Digest;
use crate::id::TokenId;
use crate::secret::Secret;

/// 32 random bytes.
pub type TokenSecret = Secret<[u8; 32]>;

const JOIN_PREFIX: &str = "wlj_";
const API_PREFIX: &str = "wla_";
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// A text that is no token. It never repeats the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    /// Neither kind.
    #[error("not a token: a token begins with `{expected}`")]
    Prefix {
        /// How the expected kind begins.
        expected: &'static str,
    },
    /// The other kind.
    #[error("this is {found}, but {expected} is needed here")]
    OtherKind {
        /// What it is.
        found: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// Characters are missing or too many.
    #[error("the token has {found} characters, not {expected}: was it cut when it was copied?")]
    Length {
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// A character that no token has.
    #[error("the token has a character that no token has, at position {at}")]
    Character {
        /// Its place, from 1.
        at: usize,
    },
    /// It was mistyped.
    #[error("the token's checksum does not match: a character is wrong")]
    Checksum,
}

/// Lets an agent enrol. Its text is shown only by [`JoinToken::expose`].
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// The public part.
    pub id: TokenId,
    /// The secret part; sent only to a server of the CA below (F3).
    pub secret: TokenSecret,
    /// The CA that the agent must find behind the server.
    pub ca: Digest,
}

/// Lets a client use the API. Its text is shown only by [`ApiToken::expose`].
#[derive(Clone, PartialEq, Eq)]
pub struct ApiToken {
    /// The public part.
    pub id: TokenId,
    /// The secret part.
    pub secret: TokenSecret,
}

impl JoinToken {
    /// A token with a new secret.
    ///
    /// # Errors
    /// [`IdentityError::Random`] where the system gives no randomness.
    pub fn generate(id: TokenId, ca: Digest) -> Result<Self, IdentityError> {
        Ok(Self { id, secret: Secret::new(random()?), ca })
    }

    /// The whole text, secret and all.
    #[must_use]
    pub fn expose(&self) -> String {
        text(JOIN_PREFIX, self.id, &[self.secret.expose(), self.ca.as_bytes()])
    }
}

impl ApiToken {
    /// A token with a new secret.
    ///
    /// # Errors
    /// [`IdentityError::Random`] where the system gives no randomness.
    pub fn generate(id: TokenId) -> Result<Self, IdentityError> {
        Ok(Self { id, secret: Secret::new(random()?) })
    }

    /// The whole text, secret and all.
    #[must_use]
    pub fn expose(&self) -> String {
        text(API_PREFIX, self.id, &[self.secret.expose()])
    }
}

impl FromStr for JoinToken {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        if text.starts_with(API_PREFIX) {
            return Err(BadToken::OtherKind { found: "an API token", expected: "a join token" });
        }
        let (id, [secret, ca]) = parse::<2>(JOIN_PREFIX, text)?;
        Ok(Self { id, secret: Secret::new(secret), ca: Digest::from_bytes(ca) })
    }
}

impl FromStr for ApiToken {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        if text.starts_with(JOIN_PREFIX) {
            return Err(BadToken::OtherKind { found: "a join token", expected: "an API token" });
        }
        let (id, [secret]) = parse::<1>(API_PREFIX, text)?;
        Ok(Self { id, secret: Secret::new(secret) })
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({}, secret ***)", self.id)
    }
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiToken({}, secret ***)", self.id)
    }
}

/// What is stored of a secret. It has 256 random bits, so a slow hash would add nothing.
#[must_use]
pub fn secret_hash(secret: &TokenSecret) -> Digest {
    Digest::from_bytes(blake3::derive_key("windlass 2026-11-21 stored token secret v1", secret.expose()))
}

/// Whether a secret is the one that `stored` was made of; takes the same time wherever they differ.
#[must_use]
pub fn secret_matches(secret: &TokenSecret, stored: &Digest) -> bool {
    // blake3's Hash compares in constant time; Digest does not.
    blake3::Hash::from_bytes(*secret_hash(secret).as_bytes()) == blake3::Hash::from_bytes(*stored.as_bytes())
}

fn checksum(prefix: &str, id: TokenId, body: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(prefix.as_bytes());
    hasher.update(id.as_bytes());
    hasher.update(body);
    hasher.finalize().to_le_bytes()
}

fn text(prefix: &str, id: TokenId, parts: &[&[u8; 32]]) -> String {
    let mut body: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
    body.extend_from_slice(&checksum(prefix, id, &body));
    let mut out = format!("{prefix}{}_", id.to_string().replace('-', ""));
    let (mut bits, mut held) = (0_u32, 0_u32);
    for byte in body {
        (bits, held) = (bits << 8 | u32::from(byte), held + 8);
        while held >= 5 {
            held -= 5;
            out.push(char::from(ALPHABET[(bits >> held & 31) as usize]));
        }
    }
    if held > 0 {
        out.push(char::from(ALPHABET[(bits << (5 - held) & 31) as usize]));
    }
    out
}

const ID_DIGITS: usize = 32;

fn parse<const PARTS: usize>(prefix: &'static str, text: &str) -> Result<(TokenId, [[u8; 32]; PARTS]), BadToken> {
    let rest = text.strip_prefix(prefix).ok_or(BadToken::Prefix { expected: prefix })?;
    let body_bytes = PARTS * 32 + 4;
    let expected = prefix.len() + ID_DIGITS + 1 + (body_bytes * 8).div_ceil(5);
    if text.len() != expected {
        return Err(BadToken::Length { found: text.chars().count(), expected });
    }
    let wrong = |at: usize| BadToken::Character { at: prefix.len() + at + 1 };
    let bytes = rest.as_bytes();
    let mut id = [0_u8; 16];
    for (at, &byte) in bytes.iter().take(ID_DIGITS).enumerate() {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return Err(wrong(at)),
        };
        id[at / 2] = id[at / 2] << 4 | digit;
    }
    if bytes.get(ID_DIGITS) != Some(&b'_') {
        return Err(wrong(ID_DIGITS));
    }
    let mut body = Vec::with_capacity(body_bytes);
    let (mut bits, mut held) = (0_u32, 0_u32);
    for (at, &byte) in bytes.iter().enumerate().skip(ID_DIGITS + 1) {
        let digit = match byte {
            b'a'..=b'z' => byte - b'a',
            b'2'..=b'7' => byte - b'2' + 26,
            _ => return Err(wrong(at)),
        };
        (bits, held) = ((bits << 5 | u32::from(digit)) & 0xFFFF, held + 5);
        if held >= 8 {
            held -= 8;
            body.push((bits >> held).to_le_bytes()[0]);
        }
    }
    let spare = bits & ((1 << held) - 1);
    let id = TokenId::from_bytes(id);
    let (parts, sum) = body.split_at(PARTS * 32);
    if spare != 0 || sum != checksum(prefix, id, parts) {
        return Err(BadToken::Checksum);
    }
    let mut out = [[0_u8; 32]; PARTS];
    for (part, bytes) in out.iter_mut().zip(parts.chunks_exact(32)) {
        part.copy_from_slice(bytes);
    }
    Ok((id, out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join() -> JoinToken {
        JoinToken::generate(TokenId::from_bytes([0xA7; 16]), Digest::of(b"ca")).unwrap()
    }

    #[test]
    fn tokens_read_their_own_text_back() {
        let token = join();
        assert_eq!(token.expose().parse(), Ok(token.clone()));
        assert_eq!(token.expose().len(), 146);
        let api = ApiToken::generate(TokenId::from_bytes([3; 16])).unwrap();
        assert_eq!(api.expose().parse(), Ok(api.clone()));
        assert_eq!(api.expose().len(), 95);
        assert_ne!(join().secret.expose(), token.secret.expose());
    }

    #[test]
    fn every_changed_character_is_noticed() {
        let good = join().expose();
        for at in 0..good.len() {
            for replacement in ['a', 'b', '2', '7', 'f', '_', 'A', '!'] {
                let mut forged: Vec<char> = good.chars().collect();
                forged[at] = replacement;
                let forged: String = forged.into_iter().collect();
                assert_eq!(forged.parse::<JoinToken>().is_ok(), forged == good, "{at} {replacement}");
            }
            assert!(good[..at].parse::<JoinToken>().is_err(), "cut at {at}");
        }
        assert!(matches!(format!("{good}a").parse::<JoinToken>(), Err(BadToken::Length { found: 147, expected: 146 })));
        assert!(matches!(good[..100].parse::<JoinToken>(), Err(BadToken::Length { .. })));
        assert!(matches!(good.replacen("wlj_a", "wlj_!", 1).parse::<JoinToken>(), Err(BadToken::Character { at: 5 })));
        assert_eq!(good.to_uppercase().parse::<JoinToken>(), Err(BadToken::Prefix { expected: "wlj_" }));
    }

    #[test]
    fn the_two_kinds_are_told_apart() {
        let api = ApiToken::generate(TokenId::from_bytes([3; 16])).unwrap().expose();
        assert!(matches!(api.parse::<JoinToken>(), Err(BadToken::OtherKind { .. })));
        assert!(matches!(join().expose().parse::<ApiToken>(), Err(BadToken::OtherKind { .. })));
    }

    #[test]
    fn debug_and_errors_never_hold_the_secret() {
        let token = join();
        let text = token.expose();
        let secret = &text[37..89];
        assert!(!format!("{token:?}").contains(secret));
        let mut typo = text.clone();
        typo.replace_range(60..61, "!");
        let error = typo.parse::<JoinToken>().unwrap_err();
        assert!(!format!("{error} {error:?}").contains(&secret[..8]));
    }

    #[test]
    fn a_stored_hash_knows_its_secret_only() {
        let (one, other) = (join(), join());
        let stored = secret_hash(&one.secret);
        assert!(secret_matches(&one.secret, &stored));
        assert!(!secret_matches(&other.secret, &stored));
        assert_ne!(stored, Digest::of(one.secret.expose()), "not the plain hash");
    }
}
