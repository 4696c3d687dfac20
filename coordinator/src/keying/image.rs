//! Which image a name stands for now: its digest, of the platform where it is to run, by OCI distribution v2.
//!
//! A registry is asked with no more than the name. Only public addresses are reached, and what the operator names: an image's
//! name comes out of a pipeline. The operator's credentials are for steps of trusted builds.

mod auth;
mod reference;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::header::{ACCEPT, AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use ring::digest::{SHA256, digest};
use serde::Deserialize;
use windlass_protocol::limits::{
    REGISTRY_IMAGES_KEPT_MAX, REGISTRY_MANIFEST_MAX_BYTES, REGISTRY_REQUESTS_MAX, REGISTRY_REQUESTS_UNTRUSTED_MAX,
    REGISTRY_TAG_KEPT_MS, REGISTRY_TOKEN_MAX_BYTES,
};
use windlass_protocol::{Trust, hex};

use self::auth::Challenge;
pub use self::auth::{BadCredentials, RegistryCredentials};
use self::reference::{Reference, Version, is_digest};
use super::remembered::Remembered;
use crate::config::Allowed;
use crate::courier::{Answer, Connector, Guard};
use crate::room::Room;

/// What a manifest may be.
const ACCEPTED: HeaderValue = HeaderValue::from_static(
    "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json",
);

/// How registries are reached.
#[derive(Debug, Clone, Default)]
pub struct RegistryConfig {
    /// What may be reached beside public addresses.
    pub allow: Vec<Allowed>,
    /// `HOST` or `HOST:PORT` of those that are spoken to without TLS.
    pub insecure: Vec<String>,
    /// For private ones.
    pub credentials: RegistryCredentials,
}

/// An image, by digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Image {
    /// As an engine takes it: `NAME@sha256:…`, of one platform's manifest where there are several.
    pub(super) pinned: String,
    /// The digest of what is run; `None` where only the name is known, because its registry does not answer.
    pub(super) config: Option<String>,
}

/// An image's name with the digest that somebody else found for it: of the repository that is named, and of no other one.
pub(super) fn pinned(name: &str, digest: &str, config: &str) -> Result<String, String> {
    if !is_digest(digest) || !is_digest(config) {
        return Err(format!("what the image `{name}` was said to be is none"));
    }
    Ok(Reference::parse(name)?.at(digest))
}

/// Finds out what images are.
#[derive(Debug, Clone)]
pub(super) struct Images(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    connector: Connector,
    guard: Guard,
    insecure: Vec<String>,
    credentials: RegistryCredentials,
    turns: Room,
    known: Mutex<Remembered<Asked, (Instant, Image)>>,
}

/// Who asks for what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Asked {
    reference: Reference,
    platform: String,
    trusted: bool,
}

/// A manifest, or an index of manifests, as far as it matters.
#[derive(Debug, Deserialize)]
struct Manifest {
    config: Option<Descriptor>,
    manifests: Option<Vec<Descriptor>>,
}

#[derive(Debug, Deserialize)]
struct Descriptor {
    digest: String,
    platform: Option<Platform>,
}

#[derive(Debug, Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

impl Images {
    pub(super) fn new(config: RegistryConfig) -> Self {
        let RegistryConfig { allow, insecure, credentials } = config;
        Self(Arc::new(Shared {
            connector: Connector::default(),
            guard: Guard::new(allow),
            insecure,
            credentials,
            turns: Room::new(REGISTRY_REQUESTS_MAX, REGISTRY_REQUESTS_UNTRUSTED_MAX),
            known: Mutex::default(),
        }))
    }

    /// The image that a name stands for where this platform's images run. One that is named by its digest is known without
    /// its registry, but for what it is on this platform.
    ///
    /// # Errors
    /// Why it is not known, for people.
    pub(super) async fn find(&self, name: &str, platform: &str, trust: Trust) -> Result<Image, String> {
        let reference = Reference::parse(name)?;
        let trusted = trust == Trust::Trusted;
        let asked = Asked { reference, platform: platform.to_owned(), trusted };
        if let Some(image) = self.0.known(&asked) {
            return Ok(image);
        }
        let reference = &asked.reference;
        let image = match (self.0.look(&asked).await, &reference.version) {
            (Ok(image), _) => image,
            // It names itself, and nothing of this is kept: the registry may answer next time.
            (Err(why), Version::Digest(digest)) => {
                tracing::info!(image = name, why, "image_not_looked_at");
                return Ok(Image { pinned: reference.at(digest), config: None });
            }
            (Err(why), Version::Tag(_)) => return Err(format!("the image `{name}` is not known: {why}")),
        };
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.put(asked, (Instant::now(), image.clone()), REGISTRY_IMAGES_KEPT_MAX);
        Ok(image)
    }
}

impl Shared {
    fn known(&self, asked: &Asked) -> Option<Image> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, image) = known.get(asked)?;
        let fresh = match asked.reference.version {
            Version::Tag(_) => at.elapsed() < Duration::from_millis(REGISTRY_TAG_KEPT_MS),
            Version::Digest(_) => true,
        };
        fresh.then(|| image.clone())
    }

    async fn look(&self, asked: &Asked) -> Result<Image, String> {
        let Asked { reference, platform, trusted } = asked;
        // It is never closed.
        let trust = if *trusted { Trust::Trusted } else { Trust::Untrusted };
        let _turn = self.turns.enter(trust).await.ok_or("the coordinator is stopping")?;
        let mut session = Session { shared: self, reference, trusted: *trusted, authorization: None };
        let version = match &reference.version {
            Version::Tag(version) | Version::Digest(version) => version,
        };
        let (digest, manifest) = session.manifest(version).await?;
        let (digest, manifest) = match manifest.manifests {
            None => (digest, manifest),
            Some(manifests) => {
                let one = of_platform(&manifests, platform).ok_or_else(|| format!("it has none for {platform}"))?;
                session.manifest(&one.digest.clone()).await?
            }
        };
        let config = manifest.config.map(|config| config.digest).filter(|digest| is_digest(digest));
        let config = config.ok_or("its manifest names no config")?;
        Ok(Image { pinned: reference.at(&digest), config: Some(config) })
    }

    fn scheme(&self, host: &str) -> &'static str {
        if self.insecure.iter().any(|insecure| insecure == host) { "http" } else { "https" }
    }
}

/// The first one of an index that is for a platform: engines take that.
fn of_platform<'a>(manifests: &'a [Descriptor], platform: &str) -> Option<&'a Descriptor> {
    let mut words = platform.split('/');
    let (os, architecture) = (words.next()?, words.next()?);
    manifests.iter().find(|one| {
        let fits = |it: &Platform| it.os == os && it.architecture == architecture;
        is_digest(&one.digest) && one.platform.as_ref().is_some_and(fits)
    })
}

/// One look at one repository, as whoever it turns out that its registry wants.
struct Session<'a> {
    shared: &'a Shared,
    reference: &'a Reference,
    trusted: bool,
    authorization: Option<HeaderValue>,
}

impl Session<'_> {
    /// A manifest with its digest, which is that of its bytes whatever the registry says.
    async fn manifest(&mut self, version: &str) -> Result<(String, Manifest), String> {
        let host = self.reference.host();
        let scheme = self.shared.scheme(host);
        let url = format!("{scheme}://{host}/v2/{}/manifests/{version}", self.reference.repository);
        let mut answer = self.get(&url).await?;
        if answer.status == 401 && self.authorization.is_none() {
            self.authorize(&answer).await?;
            answer = self.get(&url).await?;
        }
        let told = |status: u16| match status {
            401 | 403 => "its registry does not let the coordinator read it".to_owned(),
            404 => "its registry has none of this name; one that only an engine has is pinned by its digest".to_owned(),
            status => format!("its registry answered {status}"),
        };
        if answer.status != 200 {
            return Err(told(answer.status));
        }
        let found = format!("sha256:{}", hex::to(digest(&SHA256, &answer.body).as_ref()));
        if is_digest(version) && found != version {
            return Err("its registry gave another manifest than the one that was asked for".to_owned());
        }
        let manifest =
            serde_json::from_slice(&answer.body).map_err(|error| format!("its manifest is none: {error}"))?;
        Ok((found, manifest))
    }

    async fn get(&self, url: &str) -> Result<Answer, String> {
        let mut headers = vec![(ACCEPT, ACCEPTED)];
        headers.extend(self.authorization.clone().map(|value| (AUTHORIZATION, value)));
        self.call(url, headers, REGISTRY_MANIFEST_MAX_BYTES).await
    }

    async fn call(
        &self,
        url: &str,
        headers: Vec<(axum::http::header::HeaderName, HeaderValue)>,
        body_max_bytes: usize,
    ) -> Result<Answer, String> {
        let host = url.split("://").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default();
        // What the operator has named is allowed whatever its address is.
        let guard = Some(&self.shared.guard).filter(|_| !self.shared.insecure.iter().any(|insecure| insecure == host));
        let answer = self.shared.connector.get(url, headers, body_max_bytes, guard).await;
        answer.map_err(|error| format!("{host} cannot be asked: {error}"))
    }

    /// Answers a registry's challenge: with a token of its service, or by name and password.
    async fn authorize(&mut self, answer: &Answer) -> Result<(), String> {
        let credentials = self.shared.credentials.of(&self.reference.registry).filter(|_| self.trusted);
        let basic = credentials.map(auth::basic).transpose()?;
        let said = answer.headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let challenge =
            said.filter_map(Challenge::parse).next().ok_or("its registry asks for what is not understood")?;
        let (realm, service) = match challenge {
            Challenge::Basic => {
                self.authorization = Some(basic.ok_or("its registry wants a name and a password")?);
                return Ok(());
            }
            Challenge::Bearer { realm, service } => (realm, service),
        };
        // A registry without TLS may have its service beside it; any other one has it with.
        let insecure = self.shared.scheme(self.reference.host()) == "http";
        if !(realm.starts_with("https://") || insecure && realm.starts_with("http://")) {
            return Err("its registry's token service has no TLS".to_owned());
        }
        let url = auth::token_url(&realm, service.as_deref(), &self.reference.repository);
        let headers = basic.map(|value| (AUTHORIZATION, value)).into_iter().collect();
        let answer = self.call(&url, headers, REGISTRY_TOKEN_MAX_BYTES).await?;
        if answer.status != 200 {
            return Err(format!("its registry's token service answered {}", answer.status));
        }
        self.authorization = Some(auth::bearer(&answer.body)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
