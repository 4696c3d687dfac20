//! rustls configurations for QUIC and HTTPS.
//!
//! QUIC is TLS 1.3 only, without early data and without resumption: a resumed handshake would skip the verification of
//! certificates that may have been revoked or have expired since, and saves little (600 full handshakes a second on two
//! cores, 820 resumed).

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateDer;
use rustls::server::NoServerSessionStorage;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ServerConfig};

use super::ca::certificates;
use super::verify::{AgentVerifier, FingerprintVerifier, PeerVerifier, roots};
use super::{AgentKey, IdentityError, ServerCertificate, Shown};
use crate::digest::Digest;
use crate::version::{ALPN_ENROL, ALPN_PEER, ALPN_SERVER};

/// ring, with AES-128 first: it is the fastest where the processor has AES, and strong enough everywhere.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| match suite.suite() {
        rustls::CipherSuite::TLS13_AES_128_GCM_SHA256 => 0,
        rustls::CipherSuite::TLS13_AES_256_GCM_SHA384 => 1,
        _ => 2,
    });
    Arc::new(provider)
}

/// The coordinator's side of QUIC: all its ALPN names, client certificates of `ca` asked for (see [`AgentVerifier`]).
///
/// # Errors
/// [`IdentityError::Tls`] where certificate and key do not fit.
pub fn quic_server_config(server: &ServerCertificate, ca: &CertificateDer<'_>) -> Result<ServerConfig, IdentityError> {
    quic_server_config_of(Shown::new(server)?, ca)
}

/// The same with a certificate that is replaced while it serves.
///
/// # Errors
/// As [`quic_server_config`].
pub fn quic_server_config_of(shown: Arc<Shown>, ca: &CertificateDer<'_>) -> Result<ServerConfig, IdentityError> {
    let provider = provider();
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(tls)?
        .with_client_cert_verifier(Arc::new(AgentVerifier::new(ca, provider)?))
        .with_cert_resolver(shown);
    config.alpn_protocols = ALPN_SERVER.iter().map(|name| name.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// An enrolled agent's side of QUIC, under one ALPN name.
///
/// # Errors
/// [`IdentityError::Tls`] where chain and key do not fit.
pub fn agent_client_config(
    ca: &CertificateDer<'_>,
    chain: &[Vec<u8>],
    key: &AgentKey,
    alpn: &[u8],
) -> Result<ClientConfig, IdentityError> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(tls)?
        .with_root_certificates(roots(ca)?)
        .with_client_auth_cert(certificates(chain), key.to_der())
        .map_err(tls)?;
    Ok(quic_client(config, alpn))
}

/// A joining agent's side of QUIC: it knows its server by the CA's fingerprint in the token (F3).
///
/// # Errors
/// [`IdentityError::Tls`] where TLS refuses the configuration.
pub fn enrol_client_config(ca_fingerprint: Digest) -> Result<ClientConfig, IdentityError> {
    let provider = provider();
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(tls)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(FingerprintVerifier::new(ca_fingerprint, provider)))
        .with_no_client_auth();
    Ok(quic_client(config, ALPN_ENROL))
}

/// An agent's side of QUIC towards another agent that it dials: it believes any agent of its fleet; which one is there has to be
/// asked afterwards.
///
/// # Errors
/// [`IdentityError::Tls`] where chain and key do not fit.
pub fn peer_client_config(
    ca: &CertificateDer<'_>,
    chain: &[Vec<u8>],
    key: &AgentKey,
) -> Result<ClientConfig, IdentityError> {
    let provider = provider();
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(tls)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PeerVerifier::new(ca, provider)?))
        .with_client_auth_cert(certificates(chain), key.to_der())
        .map_err(tls)?;
    Ok(quic_client(config, ALPN_PEER))
}

/// An agent's side of QUIC towards others that dial it.
///
/// # Errors
/// [`IdentityError::Tls`] where chain and key do not fit.
pub fn peer_server_config(
    ca: &CertificateDer<'_>,
    chain: &[Vec<u8>],
    key: &AgentKey,
) -> Result<ServerConfig, IdentityError> {
    let provider = provider();
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(tls)?
        .with_client_cert_verifier(Arc::new(AgentVerifier::new(ca, provider)?))
        .with_single_cert(certificates(chain), key.to_der())
        .map_err(tls)?;
    config.alpn_protocols = vec![ALPN_PEER.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn quic_client(mut config: ClientConfig, alpn: &[u8]) -> ClientConfig {
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config
}

/// HTTPS, with a certificate that is replaced while it serves.
///
/// # Errors
/// [`IdentityError::Tls`] where TLS refuses the configuration.
pub fn https_config(shown: Arc<Shown>) -> Result<ServerConfig, IdentityError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(tls)?
        .with_no_client_auth()
        .with_cert_resolver(shown);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn tls(error: rustls::Error) -> IdentityError {
    IdentityError::Tls { detail: error.to_string() }
}
