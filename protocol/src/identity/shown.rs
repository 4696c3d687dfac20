//! The certificate that a server shows, which is replaced while it serves.
//!
//! Handshakes that have begun go on with what they were shown; connections that stand are not touched.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::tls::provider;
use super::{IdentityError, ServerCertificate};
use crate::secret::Secret;

/// What every new handshake of a server shows.
#[derive(Debug)]
pub struct Shown(RwLock<Arc<CertifiedKey>>);

impl Shown {
    /// Begins with a certificate of the coordinator's own CA.
    ///
    /// # Errors
    /// [`IdentityError::Tls`] where certificate and key do not fit.
    pub fn new(server: &ServerCertificate) -> Result<Arc<Self>, IdentityError> {
        Ok(Arc::new(Self(RwLock::new(own(server)?))))
    }

    /// Begins with what an operator's files hold: a chain, leaf first, and its key.
    ///
    /// # Errors
    /// [`IdentityError`] where either is malformed, or they do not fit.
    pub fn from_pem(chain_pem: &str, key_pem: &Secret<String>) -> Result<Arc<Self>, IdentityError> {
        Ok(Arc::new(Self(RwLock::new(operators(chain_pem, key_pem)?))))
    }

    /// Shows another certificate from now on.
    ///
    /// # Errors
    /// As [`Self::new`]; then the earlier one is shown further.
    pub fn replace(&self, server: &ServerCertificate) -> Result<(), IdentityError> {
        self.set(own(server)?);
        Ok(())
    }

    /// Shows what an operator's files hold from now on.
    ///
    /// # Errors
    /// As [`Self::from_pem`]; then the earlier one is shown further.
    pub fn replace_pem(&self, chain_pem: &str, key_pem: &Secret<String>) -> Result<(), IdentityError> {
        self.set(operators(chain_pem, key_pem)?);
        Ok(())
    }

    /// The leaf that is shown now, in DER.
    #[must_use]
    pub fn leaf(&self) -> Option<CertificateDer<'static>> {
        self.get().cert.first().cloned()
    }

    /// The signature schemes that its key can offer.
    #[cfg(test)]
    pub(super) fn schemes(&self) -> Vec<rustls::SignatureScheme> {
        let all = provider().signature_verification_algorithms.supported_schemes();
        let key = &self.get().key;
        all.into_iter().filter(|scheme| key.choose_scheme(&[*scheme]).is_some()).collect()
    }

    fn get(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, certified: Arc<CertifiedKey>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = certified;
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.get())
    }
}

fn own(server: &ServerCertificate) -> Result<Arc<CertifiedKey>, IdentityError> {
    certified(server.certificates(), server.private_key())
}

fn operators(chain_pem: &str, key_pem: &Secret<String>) -> Result<Arc<CertifiedKey>, IdentityError> {
    let chain = CertificateDer::pem_slice_iter(chain_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| IdentityError::certificate(error.to_string()))?;
    if chain.is_empty() {
        return Err(IdentityError::certificate("the file holds a certificate"));
    }
    let key = PrivateKeyDer::from_pem_slice(key_pem.expose().as_bytes())
        .map_err(|_| IdentityError::Key { rule: "it is PEM".to_owned() })?;
    certified(chain, key)
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<CertifiedKey>, IdentityError> {
    let certified = CertifiedKey::from_der(chain, key, &provider());
    certified.map(Arc::new).map_err(|error| IdentityError::Tls { detail: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Ca;
    use crate::time::WallMs;

    const NOW: WallMs = WallMs(1_790_000_000_000);

    #[test]
    fn a_replaced_certificate_is_shown_and_one_that_does_not_fit_changes_nothing() {
        let ca = Ca::create_p256(NOW).unwrap();
        let issue = || ca.issue_web_server(&["ci.example".to_owned()], &[], NOW, 60_000).unwrap();
        let (first, second) = (issue(), issue());
        let shown = Shown::new(&first).unwrap();
        assert_eq!(shown.leaf().unwrap().as_ref(), first.chain[0]);
        shown.replace(&second).unwrap();
        assert_eq!(shown.leaf().unwrap().as_ref(), second.chain[0]);
        let pem = |server: &ServerCertificate| (server.chain_pem().to_owned(), server.key_pem());
        let ((chain, key), (_, other_key)) = (pem(&first), pem(&second));
        assert!(shown.replace_pem(&chain, &other_key).is_err(), "a key of another certificate");
        assert!(
            shown.replace_pem("", &key).is_err() && shown.replace_pem(&chain, &Secret::new(String::new())).is_err()
        );
        assert_eq!(shown.leaf().unwrap().as_ref(), second.chain[0]);
        shown.replace_pem(&chain, &key).unwrap();
        assert_eq!(shown.leaf().unwrap().as_ref(), first.chain[0]);
    }
}
