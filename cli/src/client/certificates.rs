//! The certificates that a server shows, looked at without trusting or telling it anything.

use std::io;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use windlass_protocol::Digest;
use windlass_protocol::limits::TLS_LOOK_MS;

/// A certificate that a server shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    /// BLAKE3 of its DER, as join tokens carry that of the fleet's CA.
    pub(crate) fingerprint: Digest,
    /// In PEM.
    pub(crate) pem: String,
}

/// What a server at an HTTPS URL shows: its own certificate first, those that vouch for it behind. Nothing is sent but a
/// greeting: the handshake ends as soon as they are seen.
pub(crate) async fn shown_by(url: &Url) -> io::Result<Vec<Shown>> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = url.port_or_known_default().unwrap_or(443);
    let looked = tokio::task::spawn_blocking(move || look(&host, port)).await;
    let chain = looked.map_err(io::Error::other)??;
    Ok(chain.into_iter().map(|der| Shown { fingerprint: Digest::of(&der), pem: pem(&der) }).collect())
}

fn look(host: &str, port: u16) -> io::Result<Vec<Vec<u8>>> {
    let until = Instant::now() + Duration::from_millis(TLS_LOOK_MS);
    let left = || until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let seen = Arc::new(Seen::default());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(io::Error::other)?.dangerous();
    let verifier = Arc::clone(&seen) as Arc<dyn ServerCertVerifier>;
    let config = config.with_custom_certificate_verifier(verifier).with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let mut tls = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in (host, port).to_socket_addrs()? {
        let mut stream = match TcpStream::connect_timeout(&address, left()) {
            Ok(stream) => stream,
            Err(error) => {
                last = error;
                continue;
            }
        };
        stream.set_read_timeout(Some(left()))?;
        stream.set_write_timeout(Some(left()))?;
        while tls.is_handshaking() && Instant::now() < until {
            // It ends with the refusal to go on once they are seen.
            if let Err(error) = tls.complete_io(&mut stream) {
                last = error;
                break;
            }
        }
        let chain = std::mem::take(&mut *seen.0.lock().unwrap_or_else(PoisonError::into_inner));
        return if chain.is_empty() { Err(last) } else { Ok(chain) };
    }
    Err(last)
}

/// A certificate in PEM.
fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

/// The first certificate of a text in PEM, as a server shows it.
pub(crate) fn pem_of(text: &str) -> Option<Shown> {
    let (_, rest) = text.split_once("-----BEGIN CERTIFICATE-----")?;
    let (body, _) = rest.split_once("-----END CERTIFICATE-----")?;
    let body: String = body.chars().filter(|c| !c.is_whitespace()).collect();
    let der = STANDARD.decode(body).ok()?;
    Some(Shown { fingerprint: Digest::of(&der), pem: pem(&der) })
}

/// Notes what is shown, and trusts none of it.
#[derive(Debug, Default)]
struct Seen(Mutex<Vec<Vec<u8>>>);

const ENOUGH: &str = "enough was seen";

impl ServerCertVerifier for Seen {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let all = std::iter::once(end_entity).chain(intermediates).map(|der| der.to_vec()).collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = all;
        Err(rustls::Error::General(ENOUGH.to_owned()))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General(ENOUGH.to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General(ENOUGH.to_owned()))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_s_text_and_its_fingerprint_stay_the_same_over_pem() {
        let der: Vec<u8> = (0..200).collect();
        let text = pem(&der);
        let shown = pem_of(&format!("junk\r\n{}", text.replace('\n', "\r\n"))).unwrap();
        assert_eq!(shown, Shown { fingerprint: Digest::of(&der), pem: text });
        assert!(pem_of("-----BEGIN CERTIFICATE-----\n%%\n-----END CERTIFICATE-----").is_none());
        assert!(pem_of("").is_none());
    }
}
