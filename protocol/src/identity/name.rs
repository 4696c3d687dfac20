//! What a certificate says of an agent, as a SPIFFE id.
//!
//! `spiffe://windlass-<ca>/pool/<pool>/zone/<zone>/trust/<trust>/agent/<uuid>`, where `<ca>` is the first 16 bytes of
//! the CA's fingerprint in hex. SPIFFE allows letters, digits, `.`, `-` and `_` in a path and forbids percent-encoding
//! (SPIFFE-ID, section 2.2), so every other byte of a name, `_` itself and a leading `.` is written `_` and two hex
//! digits. Each name has exactly one spelling, and another one is refused.

use std::fmt::Write as _;

use crate::digest::Digest;
use crate::id::AgentId;
use crate::limits::NAME_MAX_BYTES;
use crate::namespace::Trust;

/// Who an agent is and where it belongs: given by the coordinator, carried by the certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentName {
    /// Its id.
    pub agent: AgentId,
    /// Its pool.
    pub pool: String,
    /// The network it is in.
    pub zone: String,
    /// The one trust class that it serves.
    pub trust: Trust,
}

/// A text that names no agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an agent's SPIFFE id: {rule}")]
pub struct BadName {
    /// The rule that it breaks.
    pub rule: &'static str,
}

const SCHEME: &str = "spiffe://";
const DOMAIN_PREFIX: &str = "windlass-";

impl AgentName {
    /// The SPIFFE id, under the CA with this fingerprint.
    ///
    /// # Errors
    /// [`BadName`] where pool or zone are empty or too long.
    pub fn to_spiffe(&self, ca: &Digest) -> Result<String, BadName> {
        let (pool, zone) = (escape(&self.pool)?, escape(&self.zone)?);
        Ok(format!("{SCHEME}{}/pool/{pool}/zone/{zone}/trust/{}/agent/{}", trust_domain(ca), self.trust, self.agent))
    }

    /// Reads a SPIFFE id: the trust domain, and the name.
    ///
    /// # Errors
    /// [`BadName`] for anything but the exact spelling.
    pub fn from_spiffe(text: &str) -> Result<(&str, Self), BadName> {
        let refuse = |rule| BadName { rule };
        let rest = text.strip_prefix(SCHEME).ok_or(refuse("it begins with spiffe://"))?;
        let (domain, path) = rest.split_once('/').ok_or(refuse("it has a path"))?;
        let hex = domain.strip_prefix(DOMAIN_PREFIX).ok_or(refuse("its trust domain begins with windlass-"))?;
        if hex.len() != 32 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(refuse("its trust domain ends with 32 hex digits"));
        }
        let parts: Vec<&str> = path.splitn(9, '/').collect();
        let &["pool", pool, "zone", zone, "trust", trust, "agent", agent] = parts.as_slice() else {
            return Err(refuse("its path is pool, zone, trust and agent"));
        };
        let trust = match trust {
            "trusted" => Trust::Trusted,
            "untrusted" => Trust::Untrusted,
            _ => return Err(refuse("trust is trusted or untrusted")),
        };
        let id: AgentId = agent.parse().map_err(|_| refuse("the agent is an id"))?;
        if id.to_string() != agent {
            return Err(refuse("the agent's id is in lower case"));
        }
        Ok((domain, Self { agent: id, pool: unescape(pool)?, zone: unescape(zone)?, trust }))
    }
}

/// The trust domain of the CA with this fingerprint.
#[must_use]
pub(crate) fn trust_domain(ca: &Digest) -> String {
    let hex = ca.to_hex();
    format!("{DOMAIN_PREFIX}{}", hex.get(..32).unwrap_or_default())
}

fn plain(byte: u8, first: bool) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || (byte == b'.' && !first)
}

fn escape(name: &str) -> Result<String, BadName> {
    if name.is_empty() || name.len() > NAME_MAX_BYTES {
        return Err(BadName { rule: "a name has 1 to 200 bytes" });
    }
    let mut out = String::with_capacity(name.len() + 8);
    for (at, byte) in name.bytes().enumerate() {
        if plain(byte, at == 0) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "_{byte:02x}");
        }
    }
    Ok(out)
}

fn unescape(text: &str) -> Result<String, BadName> {
    if text.len() > NAME_MAX_BYTES * 3 {
        return Err(BadName { rule: "a name has 1 to 200 bytes" });
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'_' {
            let digit = |d: Option<u8>| d.and_then(|d| char::from(d).to_digit(16)).and_then(|d| u8::try_from(d).ok());
            let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) else {
                return Err(BadName { rule: "an escape is _ and two hex digits" });
            };
            bytes.push(high << 4 | low);
        } else {
            bytes.push(byte);
        }
    }
    let name = String::from_utf8(bytes).map_err(|_| BadName { rule: "a name is UTF-8" })?;
    if escape(&name)? != text {
        return Err(BadName { rule: "a name has one spelling" });
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(pool: &str, zone: &str) -> AgentName {
        AgentName {
            agent: AgentId::from_bytes([0x5A; 16]),
            pool: pool.to_owned(),
            zone: zone.to_owned(),
            trust: Trust::Trusted,
        }
    }

    proptest! {
        #[test]
        fn every_name_comes_back_as_it_went_in(pool in "\\PC{1,40}", zone in "[a-z./_%-]{1,40}", trusted in any::<bool>()) {
            let mut name = name(&pool, &zone);
            name.trust = if trusted { Trust::Trusted } else { Trust::Untrusted };
            let ca = Digest::of(b"ca");
            let uri = name.to_spiffe(&ca).unwrap();
            prop_assert!(uri.bytes().all(|b| b.is_ascii_alphanumeric() || b":/.-_".contains(&b)), "{}", uri);
            let (domain, back) = AgentName::from_spiffe(&uri).unwrap();
            prop_assert_eq!(domain, trust_domain(&ca));
            prop_assert_eq!(back, name);
        }
    }

    #[test]
    fn a_pool_cannot_spell_its_way_into_another_part_of_the_path() {
        let uri = name("a/zone/prod/trust/trusted", "..").to_spiffe(&Digest::of(b"ca")).unwrap();
        let (_, back) = AgentName::from_spiffe(&uri).unwrap();
        assert_eq!((back.pool.as_str(), back.zone.as_str()), ("a/zone/prod/trust/trusted", ".."));
        assert_eq!(uri.matches('/').count(), 10, "{uri}");
        assert!(!uri.contains(".."), "{uri}");
    }

    #[test]
    fn a_second_spelling_of_a_name_is_refused() {
        let good = name("pool_1", "eu").to_spiffe(&Digest::of(b"ca")).unwrap();
        assert!(AgentName::from_spiffe(&good).is_ok());
        for (from, to) in [
            ("pool_5f1", "pool_5F1"),
            ("pool_5f1", "_70ool_5f1"),
            ("pool_5f1", "pool_1"),
            ("/pool/pool_5f1", "/pool/"),
            ("/trust/trusted", "/trust/Trusted"),
            ("/agent/5a", "/agent/5A"),
            ("spiffe://windlass-", "spiffe://Windlass-"),
            ("/zone/eu", "/zone/eu/zone/us"),
            ("/zone/eu", "/zone/%65u"),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good);
            assert!(AgentName::from_spiffe(&bad).is_err(), "{bad}");
        }
        assert!(AgentName::from_spiffe(&format!("{good}/")).is_err());
        assert!(AgentName::from_spiffe(&format!("{good}?x")).is_err());
    }
}
