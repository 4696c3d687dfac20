//! Tokens that say who a job is (OpenID Connect), for services that trust this coordinator: clouds, vaults, registries.
//!
//! | module | owns |
//! | --- | --- |
//! | `key` | the keys that sign, their turns, and their file |
//! | `claim` | what a token says of a job |
//!
//! Keys are of ECDSA P-256 (ES256), made here and used for nothing else: neither the CA's key nor an agent's signs a token.
//! Whoever verifies one reads the public keys from `/.well-known/jwks` under the issuer's name, the coordinator's own URL.

pub(crate) mod claim;
mod key;

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::rand::SystemRandom;
use serde::Serialize;
use tokio::sync::watch;
use windlass_protocol::WallMs;
use windlass_protocol::host::now;
use windlass_protocol::limits::OIDC_TURN_CHECK_MS;

use self::key::{Keys, KeysFile};

pub use self::key::{Jwk, OidcError};

/// Signs tokens in the name of a coordinator.
#[derive(Debug)]
pub struct Issuer {
    url: String,
    file: KeysFile,
    keys: RwLock<Arc<Keys>>,
    random: SystemRandom,
}

/// The public keys, as whoever verifies reads them (RFC 7517).
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Jwks {
    /// Those that sign, will sign, or have signed a token that may still be good.
    keys: Vec<Jwk>,
}

/// What whoever verifies is told of an issuer (OpenID Connect Discovery 1.0, 3).
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Configuration {
    issuer: String,
    jwks_uri: String,
    response_types_supported: [&'static str; 1],
    subject_types_supported: [&'static str; 1],
    id_token_signing_alg_values_supported: [&'static str; 1],
    scopes_supported: [&'static str; 1],
    claims_supported: Vec<&'static str>,
}

impl Issuer {
    /// The issuer of a data directory, whose clients reach it by this URL; its first key is made if there is none.
    ///
    /// # Errors
    /// [`OidcError`].
    pub fn open(data: &Path, url: String) -> Result<Self, OidcError> {
        let (random, file) = (SystemRandom::new(), KeysFile::new(data));
        let mut keys = file.read()?.unwrap_or_default();
        if keys.turn(now().wall, &random)? {
            file.write(&keys)?;
        }
        Ok(Self { url, file, keys: RwLock::new(Arc::new(keys)), random })
    }

    /// Whose tokens these are.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Makes the next key in time, and drops those that nobody needs any more. Blocks on the disk.
    ///
    /// # Errors
    /// [`OidcError`]; then everything is as it was.
    pub fn turn(&self, at: WallMs) -> Result<(), OidcError> {
        let mut keys = Keys::clone(&self.read());
        if keys.turn(at, &self.random)? {
            // Nothing is published that a restart would forget.
            self.file.write(&keys)?;
            *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
            tracing::info!("oidc_keys_turned");
        }
        Ok(())
    }

    /// The public keys.
    #[must_use]
    pub fn jwks(&self) -> Jwks {
        Jwks { keys: self.read().public() }
    }

    /// What is told of the issuer.
    #[must_use]
    pub fn configuration(&self) -> Configuration {
        Configuration {
            issuer: self.url.clone(),
            jwks_uri: format!("{}/.well-known/jwks", self.url),
            response_types_supported: ["id_token"],
            subject_types_supported: ["public"],
            id_token_signing_alg_values_supported: [key::ALGORITHM],
            scopes_supported: ["openid"],
            claims_supported: claim::ALWAYS.iter().chain(claim::ASKED).copied().collect(),
        }
    }

    /// Signs claims as a token (RFC 7515, compact).
    ///
    /// # Errors
    /// [`OidcError::Random`] where the system gives no randomness.
    pub fn sign(&self, at: WallMs, claims: &serde_json::Value) -> Result<String, OidcError> {
        let keys = self.read();
        let key = keys.signing(at)?;
        let header = serde_json::json!({ "alg": key::ALGORITHM, "kid": key.id(), "typ": "JWT" });
        let signed = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        let signature = key.sign(signed.as_bytes(), &self.random)?;
        Ok(format!("{signed}.{}", BASE64.encode(signature)))
    }

    fn read(&self) -> Arc<Keys> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Looks after the keys until `stop` turns true.
pub(crate) async fn run(issuer: Arc<Issuer>, mut stop: watch::Receiver<bool>) {
    let every = Duration::from_millis(OIDC_TURN_CHECK_MS);
    loop {
        let stopped = stop.wait_for(|stop| *stop);
        if tokio::time::timeout(every, stopped).await.is_ok() {
            return;
        }
        let turning = Arc::clone(&issuer);
        match tokio::task::spawn_blocking(move || turning.turn(now().wall)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "oidc_keys_not_turned"),
            Err(error) => tracing::error!(%error, "oidc_keys_not_turned"),
        }
    }
}
