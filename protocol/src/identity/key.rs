//! An agent's own key, and what it asks to have signed.

use std::fmt;

use rcgen::{CertificateParams, CertificateSigningRequestParams, KeyPair, PKCS_ED25519, PublicKeyData};
use rustls::pki_types::{CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::prelude::{FromDer, X509CertificationRequest};

use super::IdentityError;
use crate::digest::Digest;
use crate::limits::CSR_MAX_BYTES;
use crate::secret::Secret;

/// A private Ed25519 key, an agent's identity for as long as it keeps it. It never leaves the agent.
pub struct AgentKey(KeyPair);

impl AgentKey {
    /// A new key from the system's randomness.
    ///
    /// # Errors
    /// [`IdentityError::Key`] where the system gives no randomness.
    pub fn generate() -> Result<Self, IdentityError> {
        KeyPair::generate_for(&PKCS_ED25519).map(Self).map_err(|error| bad_key(&error))
    }

    /// Reads what [`Self::to_pem`] gave.
    ///
    /// # Errors
    /// [`IdentityError::Key`] where the text is no Ed25519 key in PKCS #8.
    pub fn from_pem(pem: &str) -> Result<Self, IdentityError> {
        let key = KeyPair::from_pem(pem).map_err(|error| bad_key(&error))?;
        if !key.is_compatible(&PKCS_ED25519) {
            return Err(IdentityError::Key { rule: "it is an Ed25519 key".to_owned() });
        }
        Ok(Self(key))
    }

    /// PKCS #8 in PEM, for a file of mode 0600.
    #[must_use]
    pub fn to_pem(&self) -> Secret<String> {
        Secret::new(self.0.serialize_pem())
    }

    /// PKCS #8 in DER, for TLS.
    #[must_use]
    pub fn to_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.0.serialize_der()))
    }

    /// BLAKE3 of the public key's SubjectPublicKeyInfo: by this the coordinator knows the agent again.
    #[must_use]
    pub fn public_key_digest(&self) -> Digest {
        Digest::of(&self.0.subject_public_key_info())
    }

    /// A request to have this key certified, PKCS #10 in DER. It claims no name: names come from the token.
    ///
    /// # Errors
    /// [`IdentityError::Signing`] where the request cannot be signed.
    pub fn csr(&self) -> Result<Vec<u8>, IdentityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let request = params.serialize_request(&self.0).map_err(|error| IdentityError::signing(&error))?;
        Ok(request.der().to_vec())
    }
}

impl fmt::Debug for AgentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AgentKey({}, private part ***)", self.public_key_digest())
    }
}

pub(super) fn bad_key(error: &rcgen::Error) -> IdentityError {
    IdentityError::Key { rule: error.to_string() }
}

/// A request whose signature proves that its sender holds the key. Nothing else in it is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Csr {
    key: rcgen::PublicKey,
}

impl Csr {
    /// Reads and verifies a PKCS #10 request in DER.
    ///
    /// # Errors
    /// [`IdentityError::Csr`] where it is malformed, longer than [`CSR_MAX_BYTES`], not Ed25519, or not signed by the key
    /// that it names.
    pub fn from_der(der: &[u8]) -> Result<Self, IdentityError> {
        let refuse = |rule: &str| IdentityError::Csr { rule: rule.to_owned() };
        if der.len() > CSR_MAX_BYTES {
            return Err(refuse("it is at most 4096 bytes long"));
        }
        let (rest, _) = X509CertificationRequest::from_der(der).map_err(|_| refuse("it is PKCS #10 in DER"))?;
        if !rest.is_empty() {
            return Err(refuse("nothing follows it"));
        }
        let csr = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der))
            .map_err(|error| IdentityError::Csr { rule: error.to_string() })?;
        if *csr.public_key.algorithm() != PKCS_ED25519 || csr.public_key.der_bytes().len() != 32 {
            return Err(refuse("its key is Ed25519"));
        }
        Ok(Self { key: csr.public_key })
    }

    /// As [`AgentKey::public_key_digest`]: enrolment is idempotent by it.
    #[must_use]
    pub fn public_key_digest(&self) -> Digest {
        Digest::of(&self.key.subject_public_key_info())
    }

    pub(super) const fn public_key(&self) -> &rcgen::PublicKey {
        &self.key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_file_and_its_debug_tells_nothing() {
        let key = AgentKey::generate().unwrap();
        let pem = key.to_pem();
        let back = AgentKey::from_pem(pem.expose()).unwrap();
        assert_eq!(back.public_key_digest(), key.public_key_digest());
        let body = pem.expose().lines().nth(1).unwrap().to_owned();
        assert!(!format!("{key:?}{pem:?}").contains(&body[..20]));
        assert!(AgentKey::from_pem("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").is_err());
        let p256 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem();
        assert!(AgentKey::from_pem(&p256).is_err(), "another algorithm");
    }

    #[test]
    fn a_request_is_believed_only_with_its_own_keys_signature() {
        let key = AgentKey::generate().unwrap();
        let der = key.csr().unwrap();
        assert_eq!(Csr::from_der(&der).unwrap().public_key_digest(), key.public_key_digest());
        for at in 0..der.len() {
            for bit in 0..8 {
                let mut forged = der.clone();
                forged[at] ^= 1 << bit;
                if let Ok(csr) = Csr::from_der(&forged) {
                    assert_eq!(csr.public_key_digest(), key.public_key_digest(), "byte {at} bit {bit} changed the key");
                }
            }
            assert!(Csr::from_der(&der[..at]).is_err(), "cut at {at}");
        }
        let mut longer = der.clone();
        longer.push(0);
        assert!(Csr::from_der(&longer).is_err());
        let p256 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let foreign = CertificateParams::default().serialize_request(&p256).unwrap();
        assert!(Csr::from_der(foreign.der()).is_err(), "another algorithm");
    }
}
