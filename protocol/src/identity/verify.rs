//! Who is believed in a handshake.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

use super::name::trust_domain;
use super::{AgentIdentity, IdentityError, Standing, fingerprint};
use crate::digest::Digest;
use crate::time::WallMs;

/// Believes the agents of one CA. An expired certificate passes within [`crate::limits::CERT_RENEW_GRACE_MS`], so that
/// its agent can renew, and one whose time has not come passes too, so that its agent hears that the clocks differ;
/// [`AgentIdentity::standing`] tells, and whoever serves it must ask. A client without a
/// certificate passes too, since it may want to enrol: the link refuses it under every other ALPN name.
#[derive(Debug)]
pub struct AgentVerifier {
    inner: Arc<dyn ClientCertVerifier>,
    trust_domain: String,
}

impl AgentVerifier {
    /// For the CA with this certificate.
    ///
    /// # Errors
    /// [`IdentityError::Tls`] where it is no trust anchor.
    pub fn new(ca: &CertificateDer<'_>, provider: Arc<CryptoProvider>) -> Result<Self, IdentityError> {
        let inner = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), provider)
            .allow_unauthenticated()
            .build()
            .map_err(|error| IdentityError::Tls { detail: error.to_string() })?;
        Ok(Self { inner, trust_domain: trust_domain(&fingerprint(ca)) })
    }
}

impl ClientCertVerifier for AgentVerifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let identity = AgentIdentity::from_certificate(end_entity)
            .map_err(|_| CertificateError::ApplicationVerificationFailure)?;
        if identity.trust_domain != self.trust_domain {
            return Err(CertificateError::UnknownIssuer.into());
        }
        let at = match identity.standing(WallMs(now.as_secs().saturating_mul(1_000))) {
            Standing::RenewOnly => UnixTime::since_unix_epoch(std::time::Duration::from_millis(identity.not_after.0)),
            Standing::Early => UnixTime::since_unix_epoch(std::time::Duration::from_millis(identity.not_before.0)),
            Standing::Valid | Standing::Past => now,
        };
        self.inner.verify_client_cert(end_entity, intermediates, at)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Believes a server whose chain holds the CA with one fingerprint and whose leaf that CA signed for the name asked for.
/// The handshake fails otherwise, before a byte of the request is sent (F3).
#[derive(Debug)]
pub struct FingerprintVerifier {
    expected: Digest,
    provider: Arc<CryptoProvider>,
}

impl FingerprintVerifier {
    /// For the CA with this fingerprint.
    #[must_use]
    pub const fn new(expected: Digest, provider: Arc<CryptoProvider>) -> Self {
        Self { expected, provider }
    }
}

impl ServerCertVerifier for FingerprintVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let ca = intermediates
            .iter()
            .find(|certificate| fingerprint(certificate) == self.expected)
            .ok_or(CertificateError::UnknownIssuer)?;
        let roots = roots(ca).map_err(|_| CertificateError::BadEncoding)?;
        let leaf = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&leaf, &roots, &[], now, algorithms)?;
        verify_server_name(&leaf, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Believes, as a server, any agent of one CA whose certificate is good now: agents have certificates for clients alone, and no
/// names of machines.
#[derive(Debug)]
pub struct PeerVerifier(AgentVerifier);

impl PeerVerifier {
    /// For the CA with this certificate.
    ///
    /// # Errors
    /// [`IdentityError::Tls`] where it is no trust anchor.
    pub fn new(ca: &CertificateDer<'_>, provider: Arc<CryptoProvider>) -> Result<Self, IdentityError> {
        AgentVerifier::new(ca, provider).map(Self)
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.0.verify_client_cert(end_entity, intermediates, now)?;
        let identity = AgentIdentity::from_certificate(end_entity)
            .map_err(|_| CertificateError::ApplicationVerificationFailure)?;
        match identity.standing(WallMs(now.as_secs().saturating_mul(1_000))) {
            Standing::Valid => Ok(ServerCertVerified::assertion()),
            Standing::Early => Err(CertificateError::NotValidYet.into()),
            Standing::RenewOnly | Standing::Past => Err(CertificateError::Expired.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// A store with one root.
pub(super) fn roots(ca: &CertificateDer<'_>) -> Result<RootCertStore, IdentityError> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone().into_owned()).map_err(|error| IdentityError::Tls { detail: error.to_string() })?;
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::pki_types::alg_id::ED25519;

    use super::*;
    use crate::id::AgentId;
    use crate::identity::tls::provider;
    use crate::identity::{AgentKey, AgentName, Ca, Chain, SERVER_NAME};
    use crate::limits::{CERT_LIFE_MS, CERT_RENEW_GRACE_MS};
    use crate::namespace::Trust;

    const NOW: WallMs = WallMs(1_790_000_000_000);

    fn at(ms: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_millis(ms))
    }

    fn agent_chain(ca: &Ca) -> Vec<CertificateDer<'static>> {
        let name = AgentName {
            agent: AgentId::from_bytes([1; 16]),
            pool: "linux".to_owned(),
            zone: "eu".to_owned(),
            trust: Trust::Trusted,
        };
        let csr = AgentKey::generate().unwrap().csr().unwrap();
        der(ca.issue_agent(&csr, &name, NOW, CERT_LIFE_MS).unwrap())
    }

    fn der(chain: Chain) -> Vec<CertificateDer<'static>> {
        chain.into_iter().map(CertificateDer::from).collect()
    }

    #[test]
    fn an_expired_certificate_passes_within_the_grace_and_is_flagged() {
        let ca = Ca::create(NOW).unwrap();
        let chain = agent_chain(&ca);
        let lenient = AgentVerifier::new(ca.certificate_der(), provider()).unwrap();
        let strict =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca.certificate_der()).unwrap()), provider())
                .build()
                .unwrap();
        let end = NOW.0 + CERT_LIFE_MS;
        let passes =
            |verifier: &dyn ClientCertVerifier, ms: u64| verifier.verify_client_cert(&chain[0], &[], at(ms)).is_ok();
        assert!(passes(&lenient, NOW.0) && passes(&*strict, NOW.0));
        assert!(passes(&lenient, end + 1_000) && !passes(&*strict, end + 1_000));
        assert!(passes(&lenient, end + CERT_RENEW_GRACE_MS));
        assert!(!passes(&lenient, end + CERT_RENEW_GRACE_MS + 1_000), "past the grace");
        assert!(passes(&lenient, NOW.0 - 1_000) && !passes(&*strict, NOW.0 - 1_000), "before its time");
        let identity = AgentIdentity::from_certificate(&chain[0]).unwrap();
        assert_eq!(identity.standing(WallMs(end + 1_000)), Standing::RenewOnly);
        assert_eq!(identity.standing(WallMs(NOW.0 - 1_000)), Standing::Early);
    }

    /// What browsers verify, of what we could sign with: no Ed25519.
    fn browsers() -> Arc<CryptoProvider> {
        use rustls::crypto::WebPkiSupportedAlgorithms;
        use rustls::crypto::ring::default_provider;
        let ours = default_provider().signature_verification_algorithms;
        let all: Vec<_> = ours.all.iter().copied().filter(|it| it.signature_alg_id() != ED25519).collect();
        let mapping: Vec<_> = ours.mapping.iter().copied().filter(|(it, _)| *it != SignatureScheme::ED25519).collect();
        assert!(all.len() < ours.all.len() && mapping.len() < ours.mapping.len());
        let algorithms = WebPkiSupportedAlgorithms { all: all.leak(), mapping: mapping.leak() };
        Arc::new(CryptoProvider { signature_verification_algorithms: algorithms, ..default_provider() })
    }

    #[test]
    fn browsers_can_verify_the_web_server_s_certificate_and_no_ed25519() {
        let verdict = |ca: &Ca, chain: &Chain| {
            let chain = der(chain.clone());
            let verifier = FingerprintVerifier::new(ca.fingerprint(), browsers());
            let name = ServerName::try_from("ci.example").unwrap();
            verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], at(NOW.0)).map(drop)
        };
        let names = ["ci.example".to_owned()];
        let ca = Ca::create_p256(NOW).unwrap();
        let web = ca.issue_web_server(&names, &[], NOW, CERT_LIFE_MS).unwrap();
        assert_eq!(verdict(&ca, &web.chain), Ok(()));
        let older = Ca::create(NOW).unwrap();
        let signed = older.issue_web_server(&names, &[], NOW, CERT_LIFE_MS).unwrap();
        assert!(verdict(&older, &signed.chain).is_err(), "an Ed25519 CA's signature");
        let suits = |scheme| browsers().signature_verification_algorithms.supported_schemes().contains(&scheme);
        let shown = crate::identity::Shown::new(&web).unwrap();
        let schemes = shown.schemes();
        assert!(schemes.iter().any(|scheme| suits(*scheme)), "{schemes:?}");
        let link = crate::identity::Shown::new(&ca.issue_server(&names, &[], NOW, CERT_LIFE_MS).unwrap()).unwrap();
        assert!(!link.schemes().iter().any(|scheme| suits(*scheme)), "the link's own key is Ed25519");
    }

    #[test]
    fn a_certificate_of_another_ca_is_refused_even_if_it_is_expired() {
        let (ca, other) = (Ca::create(NOW).unwrap(), Ca::create(NOW).unwrap());
        let verifier = AgentVerifier::new(ca.certificate_der(), provider()).unwrap();
        let foreign = agent_chain(&other);
        for ms in [NOW.0, NOW.0 + CERT_LIFE_MS + 1_000] {
            assert!(verifier.verify_client_cert(&foreign[0], &foreign[1..], at(ms)).is_err());
        }
    }

    #[test]
    fn a_bit_flipped_certificate_is_refused() {
        let ca = Ca::create(NOW).unwrap();
        let verifier = AgentVerifier::new(ca.certificate_der(), provider()).unwrap();
        let chain = agent_chain(&ca);
        for at_byte in 0..chain[0].len() {
            let mut forged = chain[0].to_vec();
            forged[at_byte] ^= 0x10;
            let forged = CertificateDer::from(forged);
            assert!(verifier.verify_client_cert(&forged, &[], at(NOW.0)).is_err(), "byte {at_byte}");
        }
    }

    #[test]
    fn a_servers_certificate_does_not_pass_for_an_agents() {
        let ca = Ca::create(NOW).unwrap();
        let verifier = AgentVerifier::new(ca.certificate_der(), provider()).unwrap();
        let server = ca.issue_server(&[], &[], NOW, CERT_LIFE_MS).unwrap();
        assert!(verifier.verify_client_cert(&server.certificates()[0], &[], at(NOW.0)).is_err());
    }

    #[test]
    fn a_joining_agent_believes_only_the_ca_in_its_token() {
        let (ca, other) = (Ca::create(NOW).unwrap(), Ca::create(NOW).unwrap());
        let server = der(ca.issue_server(&[], &[], NOW, CERT_LIFE_MS).unwrap().chain);
        let foreign = der(other.issue_server(&[], &[], NOW, CERT_LIFE_MS).unwrap().chain);
        let verifier = FingerprintVerifier::new(ca.fingerprint(), provider());
        let name = ServerName::try_from(SERVER_NAME).unwrap();
        let check = |leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>], name: &ServerName<'_>, ms: u64| {
            verifier.verify_server_cert(leaf, rest, name, &[], at(ms)).is_ok()
        };
        assert!(check(&server[0], &server[1..], &name, NOW.0));
        assert!(!check(&server[0], &[], &name, NOW.0), "no CA in the chain");
        assert!(!check(&foreign[0], &foreign[1..], &name, NOW.0), "another CA");
        assert!(!check(&foreign[0], &server[1..], &name, NOW.0), "another CA's leaf beside the right CA");
        assert!(!check(&server[1], &server[1..], &name, NOW.0), "the CA itself as leaf");
        assert!(!check(&server[0], &server[1..], &ServerName::try_from("ci.example").unwrap(), NOW.0), "another name");
        assert!(!check(&server[0], &server[1..], &name, NOW.0 + CERT_LIFE_MS + 1_000), "expired");
        let agent = agent_chain(&ca);
        assert!(!check(&agent[0], &agent[1..], &name, NOW.0), "an agent that poses as the server");
    }
}
