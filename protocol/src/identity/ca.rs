//! The authority that a coordinator makes at its first start, and keeps.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData, SanType, SerialNumber,
    SignatureAlgorithm,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::key::bad_key;
use super::{AgentName, Csr, IdentityError, SERVER_NAME, fingerprint, random};
use crate::digest::Digest;
use crate::limits::{CA_LIFE_MS, CERT_SKEW_MS};
use crate::secret::Secret;
use crate::time::WallMs;

/// A leaf certificate, then its issuer's; X.509, DER: as messages carry it.
pub type Chain = Vec<Vec<u8>>;

/// The last second that a certificate can name: the end of the year 9999 (RFC 5280, section 4.1.2.5.2).
const LAST_SECOND: u64 = 253_402_300_799;

/// Signs the certificates of agents and of the coordinator's own servers.
///
/// Its key is ECDSA P-256 where people's browsers have to believe it (they verify no Ed25519), else Ed25519, whose
/// signatures always have the same length.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    key_pem: Secret<String>,
    certificate_pem: String,
    der: CertificateDer<'static>,
    fingerprint: Digest,
}

/// A server's certificate with its key.
pub struct ServerCertificate {
    /// The leaf, then the CA's: agents look for the fingerprint there.
    pub chain: Chain,
    chain_pem: String,
    key: KeyPair,
}

impl Ca {
    /// A new authority of Ed25519, valid from `now` (less some skew between clocks) for [`CA_LIFE_MS`].
    ///
    /// # Errors
    /// Where the system gives no randomness, or the time is past what certificates can say.
    pub fn create(now: WallMs) -> Result<Self, IdentityError> {
        Self::create_of(&PKCS_ED25519, now)
    }

    /// The same of ECDSA P-256, whose certificates browsers can verify.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn create_p256(now: WallMs) -> Result<Self, IdentityError> {
        Self::create_of(&PKCS_ECDSA_P256_SHA256, now)
    }

    fn create_of(algorithm: &'static SignatureAlgorithm, now: WallMs) -> Result<Self, IdentityError> {
        let key = generate(algorithm)?;
        let key_pem = Secret::new(key.serialize_pem());
        let mut params = CertificateParams::default();
        set_life(&mut params, WallMs(now.0.saturating_sub(CERT_SKEW_MS)), CA_LIFE_MS + CERT_SKEW_MS)?;
        params.serial_number = Some(serial()?);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "Windlass CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(|error| IdentityError::signing(&error))?;
        Self::new(certificate.der().clone(), certificate.pem(), key, key_pem)
    }

    /// Reads what [`Self::certificate_pem`] and [`Self::key_pem`] gave.
    ///
    /// # Errors
    /// Where either is malformed, the certificate is no CA's, or the two do not belong together.
    pub fn from_pem(certificate_pem: &str, key_pem: &Secret<String>) -> Result<Self, IdentityError> {
        let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|error| IdentityError::certificate(error.to_string()))?;
        let key = KeyPair::from_pem(key_pem.expose()).map_err(|error| bad_key(&error))?;
        Self::new(der, certificate_pem.to_owned(), key, key_pem.clone())
    }

    fn new(
        der: CertificateDer<'static>,
        certificate_pem: String,
        key: KeyPair,
        key_pem: Secret<String>,
    ) -> Result<Self, IdentityError> {
        let (rest, x509) = X509Certificate::from_der(&der).map_err(|_| IdentityError::certificate("it is X.509"))?;
        if !rest.is_empty() || !x509.is_ca() {
            return Err(IdentityError::certificate("it is a CA's"));
        }
        if x509.public_key().raw != key.subject_public_key_info() {
            return Err(IdentityError::Key { rule: "it belongs to the CA's certificate".to_owned() });
        }
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|error| IdentityError::signing(&error))?;
        let fingerprint = fingerprint(&der);
        Ok(Self { issuer, key_pem, certificate_pem, der, fingerprint })
    }

    /// BLAKE3 of the certificate's DER; join tokens carry it.
    #[must_use]
    pub const fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    /// The certificate, X.509 in DER.
    #[must_use]
    pub const fn certificate_der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// The certificate in PEM, for a file that anyone may read.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The key in PEM, for a file of mode 0600.
    #[must_use]
    pub fn key_pem(&self) -> Secret<String> {
        self.key_pem.clone()
    }

    /// A certificate for an agent's key, for client authentication only. Of the request only the (proven) key counts.
    ///
    /// # Errors
    /// Where the request is not to be believed, or the name or the times cannot stand in a certificate.
    pub fn issue_agent(
        &self,
        csr_der: &[u8],
        name: &AgentName,
        not_before: WallMs,
        life_ms: u64,
    ) -> Result<Chain, IdentityError> {
        let csr = Csr::from_der(csr_der)?;
        let uri = name
            .to_spiffe(&self.fingerprint)
            .map_err(|error| IdentityError::Csr { rule: format!("the agent's name: {error}") })?;
        let mut params = leaf(not_before, life_ms)?;
        params.subject_alt_names = vec![SanType::URI(ia5(&uri)?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        Ok(self.chain(&self.sign(&params, csr.public_key())?))
    }

    /// A certificate with a new Ed25519 key for the coordinator's link. [`SERVER_NAME`] stands in it by itself, beside
    /// the names and addresses given.
    ///
    /// # Errors
    /// Where a name cannot stand in a certificate, or the system gives no randomness.
    pub fn issue_server(
        &self,
        names: &[String],
        addresses: &[IpAddr],
        not_before: WallMs,
        life_ms: u64,
    ) -> Result<ServerCertificate, IdentityError> {
        self.server(&PKCS_ED25519, names, addresses, not_before, life_ms)
    }

    /// The same of ECDSA P-256, for people's clients and their browsers.
    ///
    /// # Errors
    /// As [`Self::issue_server`].
    pub fn issue_web_server(
        &self,
        names: &[String],
        addresses: &[IpAddr],
        not_before: WallMs,
        life_ms: u64,
    ) -> Result<ServerCertificate, IdentityError> {
        self.server(&PKCS_ECDSA_P256_SHA256, names, addresses, not_before, life_ms)
    }

    fn server(
        &self,
        algorithm: &'static SignatureAlgorithm,
        names: &[String],
        addresses: &[IpAddr],
        not_before: WallMs,
        life_ms: u64,
    ) -> Result<ServerCertificate, IdentityError> {
        let key = generate(algorithm)?;
        let mut params = leaf(not_before, life_ms)?;
        // Some clients refuse a certificate without a subject unless its names are critical (RFC 5280, 4.1.2.6).
        params.distinguished_name.push(DnType::CommonName, "Windlass coordinator");
        params.subject_alt_names.push(SanType::DnsName(ia5(SERVER_NAME)?));
        for name in names.iter().filter(|name| *name != SERVER_NAME) {
            params.subject_alt_names.push(SanType::DnsName(ia5(name)?));
        }
        params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = self.sign(&params, &key)?;
        let chain_pem = format!("{}{}", leaf.pem(), self.certificate_pem);
        Ok(ServerCertificate { chain: self.chain(&leaf), chain_pem, key })
    }

    fn sign(&self, params: &CertificateParams, key: &impl PublicKeyData) -> Result<Certificate, IdentityError> {
        params.signed_by(key, &self.issuer).map_err(|error| IdentityError::signing(&error))
    }

    fn chain(&self, leaf: &Certificate) -> Chain {
        vec![leaf.der().to_vec(), self.der.to_vec()]
    }
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ca({}, key ***)", self.fingerprint)
    }
}

impl ServerCertificate {
    /// The chain as rustls wants it.
    #[must_use]
    pub fn certificates(&self) -> Vec<CertificateDer<'static>> {
        certificates(&self.chain)
    }

    /// The key as rustls wants it.
    #[must_use]
    pub fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()))
    }

    /// The chain in PEM, leaf first.
    #[must_use]
    pub fn chain_pem(&self) -> &str {
        &self.chain_pem
    }

    /// The key in PEM.
    #[must_use]
    pub fn key_pem(&self) -> Secret<String> {
        Secret::new(self.key.serialize_pem())
    }
}

fn generate(algorithm: &'static SignatureAlgorithm) -> Result<KeyPair, IdentityError> {
    KeyPair::generate_for(algorithm).map_err(|error| bad_key(&error))
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerCertificate({}, key ***)", fingerprint(self.chain.first().map_or(&[], Vec::as_slice)))
    }
}

/// A chain from a message, as rustls wants it.
pub(super) fn certificates(chain: &[Vec<u8>]) -> Vec<CertificateDer<'static>> {
    chain.iter().cloned().map(CertificateDer::from).collect()
}

fn leaf(not_before: WallMs, life_ms: u64) -> Result<CertificateParams, IdentityError> {
    let mut params = CertificateParams::default();
    set_life(&mut params, not_before, life_ms)?;
    params.serial_number = Some(serial()?);
    params.distinguished_name = DistinguishedName::new();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn set_life(params: &mut CertificateParams, not_before: WallMs, life_ms: u64) -> Result<(), IdentityError> {
    let (from, to) = (not_before.0 / 1_000, not_before.plus_ms(life_ms).0 / 1_000);
    if to > LAST_SECOND || from >= to {
        return Err(IdentityError::Signing {
            detail: "a certificate lasts a second at least, 9999 at most".to_owned(),
        });
    }
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(from);
    params.not_after = epoch + Duration::from_secs(to);
    Ok(())
}

/// 16 random bytes whose first is 0x40 to 0x7F: positive, and always of the same length.
fn serial() -> Result<SerialNumber, IdentityError> {
    let mut bytes = random::<16>()?;
    bytes[0] = bytes[0] & 0x3F | 0x40;
    Ok(SerialNumber::from(bytes.to_vec()))
}

fn ia5(text: &str) -> Result<Ia5String, IdentityError> {
    Ia5String::try_from(text.to_owned())
        .map_err(|_| IdentityError::Signing { detail: format!("`{text}` cannot stand in a certificate") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_survives_its_files_and_keeps_its_fingerprint() {
        for create in [Ca::create, Ca::create_p256] {
            let ca = create(WallMs(1_790_000_000_000)).unwrap();
            let back = Ca::from_pem(ca.certificate_pem(), &ca.key_pem()).unwrap();
            assert_eq!(back.fingerprint(), ca.fingerprint());
            assert_eq!(back.certificate_der(), ca.certificate_der());
            assert_eq!(back.certificate_pem(), ca.certificate_pem());
            assert!(!format!("{ca:?}").contains("PRIVATE"));
            let other = create(WallMs(1_790_000_000_000)).unwrap();
            assert_ne!(other.fingerprint(), ca.fingerprint());
            assert!(Ca::from_pem(ca.certificate_pem(), &other.key_pem()).is_err(), "keys of another CA");
        }
    }

    #[test]
    fn a_leaf_is_not_taken_for_a_ca() {
        let now = WallMs(1_790_000_000_000);
        let ca = Ca::create(now).unwrap();
        let server = ca.issue_server(&[], &[], now, 1_000_000).unwrap();
        let leaf = CertificateDer::from(server.chain[0].clone());
        let key_pem = server.key_pem();
        assert!(Ca::new(leaf, String::new(), server.key, key_pem).is_err());
    }

    #[test]
    fn times_that_no_certificate_can_say_are_refused() {
        let ca = Ca::create(WallMs(1_790_000_000_000)).unwrap();
        assert!(ca.issue_server(&[], &[], WallMs(u64::MAX), 1_000).is_err());
        assert!(ca.issue_server(&[], &[], WallMs(5_000), 0).is_err());
        assert!(ca.issue_server(&["ümlaut".to_owned()], &[], WallMs(5_000), 10_000).is_err());
    }
}
