//! An agent's certificate read back, strictly: what we do not issue is refused.

use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{AgentName, IdentityError};
use crate::digest::Digest;
use crate::id::AgentId;
use crate::limits::{CERT_MAX_BYTES, CERT_RENEW_GRACE_MS};
use crate::message::CacheZone;
use crate::namespace::Trust;
use crate::time::WallMs;

/// Ed25519 (RFC 8410, section 3).
const ED25519_OID: &str = "1.3.101.112";

/// Who a certificate speaks for. Whether it is to be believed is decided by [`super::verify`], before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentIdentity {
    /// The agent.
    pub agent: AgentId,
    /// Its pool.
    pub pool: String,
    /// The network it is in.
    pub zone: String,
    /// The one trust class that it serves.
    pub trust: Trust,
    /// The trust domain: names the CA, as `windlass-` and 32 hex digits of its fingerprint.
    pub trust_domain: String,
    /// The certificate's serial number, as hex.
    pub serial: String,
    /// As [`super::AgentKey::public_key_digest`].
    pub public_key_digest: Digest,
    /// Valid from here,
    pub not_before: WallMs,
    /// to here.
    pub not_after: WallMs,
}

/// What a certificate is good for at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its time has not come: the clocks differ.
    Early,
    /// For everything.
    Valid,
    /// Expired within [`CERT_RENEW_GRACE_MS`]: its agent may renew it and do nothing else.
    RenewOnly,
    /// For nothing.
    Past,
}

impl AgentIdentity {
    /// With whom the agent shares what it fetches.
    #[must_use]
    pub fn cache_zone(&self) -> CacheZone {
        CacheZone { zone: self.zone.clone(), trust: self.trust }
    }

    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// [`IdentityError::Certificate`] with the rule that it breaks.
    pub fn from_certificate(der: &[u8]) -> Result<Self, IdentityError> {
        let rule = |text: &str| IdentityError::certificate(text);
        if der.len() > CERT_MAX_BYTES {
            return Err(rule("it is at most 8192 bytes long"));
        }
        let (rest, x509) = X509Certificate::from_der(der).map_err(|_| rule("it is X.509 in DER"))?;
        if !rest.is_empty() {
            return Err(rule("nothing follows it"));
        }
        for extension in x509.extensions() {
            if extension.critical && extension.parsed_extension().unsupported() {
                return Err(rule("it has no critical extension that we do not know"));
            }
        }
        check_usage(&x509)?;
        let (domain, name) = AgentName::from_spiffe(only_uri(&x509)?).map_err(|error| rule(&error.to_string()))?;
        let spki = x509.public_key();
        if spki.algorithm.algorithm.to_id_string() != ED25519_OID {
            return Err(rule("its key is Ed25519"));
        }
        Ok(Self {
            agent: name.agent,
            pool: name.pool,
            zone: name.zone,
            trust: name.trust,
            trust_domain: domain.to_owned(),
            serial: crate::hex::to(x509.raw_serial()),
            public_key_digest: Digest::of(spki.raw),
            not_before: wall(x509.validity().not_before.timestamp())?,
            not_after: wall(x509.validity().not_after.timestamp())?,
        })
    }

    /// What the certificate is good for at `now`.
    #[must_use]
    pub const fn standing(&self, now: WallMs) -> Standing {
        if now.0 < self.not_before.0 {
            Standing::Early
        } else if now.0 <= self.not_after.0 {
            Standing::Valid
        } else if now.0 <= self.not_after.plus_ms(CERT_RENEW_GRACE_MS).0 {
            Standing::RenewOnly
        } else {
            Standing::Past
        }
    }
}

fn check_usage(x509: &X509Certificate<'_>) -> Result<(), IdentityError> {
    let rule = |text: &str| IdentityError::certificate(text);
    if x509.is_ca() {
        return Err(rule("it is not a CA's"));
    }
    let usage = x509.extended_key_usage().map_err(|_| rule("its extensions are well formed"))?;
    let usage = usage.ok_or_else(|| rule("it is for client authentication"))?.value;
    let other = usage.any || usage.server_auth || usage.code_signing || usage.email_protection;
    if !usage.client_auth || other || usage.time_stamping || usage.ocsp_signing || !usage.other.is_empty() {
        return Err(rule("it is for client authentication, and nothing else"));
    }
    Ok(())
}

fn only_uri<'a>(x509: &'a X509Certificate<'_>) -> Result<&'a str, IdentityError> {
    let rule = |text: &str| IdentityError::certificate(text);
    let names = x509.subject_alternative_name().map_err(|_| rule("its extensions are well formed"))?;
    match names.map(|names| names.value.general_names.as_slice()) {
        Some([GeneralName::URI(uri)]) => Ok(uri),
        _ => Err(rule("it has one name, a URI")),
    }
}

fn wall(seconds: i64) -> Result<WallMs, IdentityError> {
    let seconds = u64::try_from(seconds).map_err(|_| IdentityError::certificate("it is not from before 1970"))?;
    Ok(WallMs(seconds.saturating_mul(1_000)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{AgentKey, Ca};
    use crate::limits::CERT_LIFE_MS;

    const NOW: WallMs = WallMs(1_790_000_000_000);

    #[test]
    fn a_certificate_says_what_it_was_issued_for() {
        let ca = Ca::create(NOW).unwrap();
        let key = AgentKey::generate().unwrap();
        let name = AgentName {
            agent: AgentId::from_bytes([9; 16]),
            pool: "linux_x64/été".to_owned(),
            zone: "prod-corp".to_owned(),
            trust: Trust::Untrusted,
        };
        let chain = ca.issue_agent(&key.csr().unwrap(), &name, NOW, CERT_LIFE_MS).unwrap();
        let read = AgentIdentity::from_certificate(&chain[0]).unwrap();
        assert_eq!((read.agent, &read.pool, &read.zone, read.trust), (name.agent, &name.pool, &name.zone, name.trust));
        assert_eq!(read.public_key_digest, key.public_key_digest());
        assert_eq!((read.not_before, read.not_after), (NOW, NOW.plus_ms(CERT_LIFE_MS)));
        assert_eq!(read.serial.len(), 32);
        assert!(chain[0].len() < CERT_MAX_BYTES);
        assert_eq!(chain[1], ca.certificate_der().as_ref());
        let again = ca.issue_agent(&key.csr().unwrap(), &name, NOW, CERT_LIFE_MS).unwrap();
        assert_ne!(AgentIdentity::from_certificate(&again[0]).unwrap().serial, read.serial);
    }

    #[test]
    fn standing_follows_the_time() {
        let ca = Ca::create(NOW).unwrap();
        let name = AgentName {
            agent: AgentId::from_bytes([9; 16]),
            pool: "p".to_owned(),
            zone: "z".to_owned(),
            trust: Trust::Trusted,
        };
        let csr = AgentKey::generate().unwrap().csr().unwrap();
        let chain = ca.issue_agent(&csr, &name, NOW, 10_000).unwrap();
        let read = AgentIdentity::from_certificate(&chain[0]).unwrap();
        let at = |ms: u64| read.standing(WallMs(ms));
        assert_eq!(at(NOW.0 - 1), Standing::Early);
        assert_eq!((at(NOW.0), at(NOW.0 + 10_000)), (Standing::Valid, Standing::Valid));
        let end = NOW.0 + 10_000 + CERT_RENEW_GRACE_MS;
        assert_eq!(
            (at(NOW.0 + 10_001), at(end), at(end + 1)),
            (Standing::RenewOnly, Standing::RenewOnly, Standing::Past)
        );
    }

    #[test]
    fn certificates_that_are_no_agents_are_refused() {
        let ca = Ca::create(NOW).unwrap();
        let server = ca.issue_server(&["ci.example".to_owned()], &[], NOW, 10_000).unwrap();
        assert!(AgentIdentity::from_certificate(&server.chain[0]).is_err(), "a server's");
        assert!(AgentIdentity::from_certificate(ca.certificate_der()).is_err(), "the CA's own");
        assert!(AgentIdentity::from_certificate(&[]).is_err());
        assert!(AgentIdentity::from_certificate(&vec![0x30; CERT_MAX_BYTES + 1]).is_err());
    }
}
