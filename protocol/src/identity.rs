//! Who is who: the coordinator's CA, agents' keys and certificates, tokens, and the TLS configurations made of them.
//!
//! | noun | module |
//! | --- | --- |
//! | [`Ca`] | the authority that a coordinator makes at its first start |
//! | [`AgentKey`], [`Csr`] | an agent's own key, and what it asks to have signed |
//! | [`AgentName`] | what a certificate says of an agent, as a SPIFFE id |
//! | [`AgentIdentity`] | a certificate read back, strictly |
//! | [`JoinToken`], [`ApiToken`] | what people hand out |
//! | [`verify`] | who is believed in a handshake |
//! | [`Shown`] | the certificate that a server shows, which is replaced while it serves |
//! | `grant` | what agents may read, signed for their peers |
//! | [`tls`] | rustls configurations for QUIC and HTTPS |
//!
//! Nothing here reads a file or a clock: callers bring bytes and times. Randomness for keys, serial numbers and secrets
//! comes from the system. The cryptographic provider is always passed explicitly, so no process default is needed.

mod ca;
mod certificate;
mod grant;
mod key;
mod name;
mod shown;
pub mod tls;
mod token;
pub mod verify;

pub use ca::{Ca, Chain, ServerCertificate};
pub use certificate::{AgentIdentity, Standing};
pub use grant::{BadGrant, GrantKey};
pub use key::{AgentKey, Csr};
pub use name::{AgentName, BadName};
pub use shown::Shown;
pub use token::{ApiToken, BadToken, JoinToken, TokenSecret, secret_hash, secret_matches};

use crate::digest::Digest;

/// The DNS name in every server certificate of our CA, and the one that agents ask for: which address or host name
/// leads to the coordinator does not matter.
pub const SERVER_NAME: &str = "coordinator.windlass";

/// The fingerprint of a CA: BLAKE3 of its certificate's DER.
#[must_use]
pub fn fingerprint(certificate_der: &[u8]) -> Digest {
    Digest::of(certificate_der)
}

/// Why an identity cannot be made or believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// A certificate is not one of ours, or not well formed.
    #[error("the certificate cannot be used: {rule}")]
    Certificate {
        /// The rule that it breaks.
        rule: String,
    },
    /// A request for a certificate cannot be granted.
    #[error("the certificate request cannot be used: {rule}")]
    Csr {
        /// The rule that it breaks.
        rule: String,
    },
    /// A private key cannot be used.
    #[error("the private key cannot be used: {rule}")]
    Key {
        /// The rule that it breaks; never the key.
        rule: String,
    },
    /// A certificate could not be signed.
    #[error("a certificate could not be made: {detail}")]
    Signing {
        /// What the signer said.
        detail: String,
    },
    /// TLS refuses the configuration.
    #[error("TLS cannot be set up: {detail}")]
    Tls {
        /// What it said.
        detail: String,
    },
    /// The system gave no random bytes.
    #[error("the system gave no random bytes: {detail}")]
    Random {
        /// What it said.
        detail: String,
    },
}

impl IdentityError {
    fn certificate(rule: impl Into<String>) -> Self {
        Self::Certificate { rule: rule.into() }
    }

    fn signing(error: &rcgen::Error) -> Self {
        Self::Signing { detail: error.to_string() }
    }
}

/// Random bytes from the system.
fn random<const N: usize>() -> Result<[u8; N], IdentityError> {
    let mut bytes = [0_u8; N];
    getrandom::fill(&mut bytes).map_err(|error| IdentityError::Random { detail: error.to_string() })?;
    Ok(bytes)
}
