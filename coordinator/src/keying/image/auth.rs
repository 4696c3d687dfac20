//! Who the coordinator is to a registry: nobody, or whom its operator's file names; and the tokens that services give.

use std::collections::BTreeMap;
use std::path::Path;

use axum::http::header::HeaderValue;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use windlass_protocol::Secret;

/// Bytes of the operator's file.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// The key under which engines keep what is for the registry of names without one.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// Names and passwords by registry: the `auths` of an engine's `config.json`.
#[derive(Debug, Clone, Default)]
pub struct RegistryCredentials {
    /// `NAME:PASSWORD`, by `HOST` or `HOST:PORT`.
    by_registry: BTreeMap<String, Secret<String>>,
}

/// Why a file is none of credentials. Nothing of what it says is in it.
#[derive(Debug, thiserror::Error)]
pub enum BadCredentials {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    /// Others may read it.
    #[error("its mode is {0:04o}; let only its owner read it: 0600")]
    Mode(u32),
    /// It is no such file.
    #[error("it is no `config.json` with `auths` of names and passwords")]
    Shape,
}

#[derive(Deserialize)]
struct File {
    auths: BTreeMap<String, Auth>,
}

#[derive(Deserialize)]
struct Auth {
    auth: Option<String>,
}

impl RegistryCredentials {
    /// Reads an operator's file.
    ///
    /// # Errors
    /// [`BadCredentials`].
    pub fn read(path: &Path) -> Result<Self, BadCredentials> {
        use std::io::Read as _;
        use std::os::unix::fs::PermissionsExt as _;
        let file = std::fs::File::open(path)?;
        let mode = file.metadata()?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(BadCredentials::Mode(mode));
        }
        let mut text = Vec::new();
        file.take(FILE_MAX_BYTES).read_to_end(&mut text)?;
        Self::parse(&text)
    }

    fn parse(text: &[u8]) -> Result<Self, BadCredentials> {
        let file: File = serde_json::from_slice(text).map_err(|_| BadCredentials::Shape)?;
        let mut by_registry = BTreeMap::new();
        for (registry, auth) in file.auths {
            let plain = auth.auth.and_then(|auth| String::from_utf8(STANDARD.decode(auth).ok()?).ok());
            let plain = plain.filter(|plain| plain.contains(':')).ok_or(BadCredentials::Shape)?;
            let registry = if registry == DOCKER_HUB_KEY { "docker.io".to_owned() } else { registry };
            by_registry.insert(registry, Secret::new(plain));
        }
        Ok(Self { by_registry })
    }

    pub(super) fn of(&self, registry: &str) -> Option<&Secret<String>> {
        self.by_registry.get(registry)
    }
}

/// A name and a password.
pub(super) fn basic(secret: &Secret<String>) -> Result<HeaderValue, String> {
    secret_header(&format!("Basic {}", STANDARD.encode(secret.expose())))
}

/// The token out of a service's answer.
pub(super) fn bearer(body: &[u8]) -> Result<HeaderValue, String> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
    }
    let answer: Answer = serde_json::from_slice(body).map_err(|_| "its registry's token service gave no token")?;
    let token = answer.token.or(answer.access_token).ok_or("its registry's token service gave no token")?;
    secret_header(&format!("Bearer {token}"))
}

fn secret_header(text: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_str(text).map_err(|_| "what its registry wants is no header".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

/// Where a token for reading a repository is asked for.
pub(super) fn token_url(realm: &str, service: Option<&str>, repository: &str) -> String {
    let separator = if realm.contains('?') { '&' } else { '?' };
    let mut url = format!("{realm}{separator}scope=repository%3A{}%3Apull", escaped(repository));
    if let Some(service) = service {
        url.push_str(&format!("&service={}", escaped(service)));
    }
    url
}

fn escaped(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    let one = |byte: u8| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(one).collect()
}

/// What a registry asks of who is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

impl Challenge {
    /// Of a `WWW-Authenticate` header with one challenge.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let mut parameters = parameters(rest);
        let realm = parameters.remove("realm").filter(|realm| realm.starts_with("http"))?;
        Some(Self::Bearer { realm, service: parameters.remove("service") })
    }
}

/// `name="value", name=value`.
fn parameters(mut text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    while let Some((name, rest)) = text.split_once('=') {
        let name = name.trim_matches([',', ' ']).to_ascii_lowercase();
        let (value, rest) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => rest.split_once(',').unwrap_or((rest, "")),
        };
        found.insert(name, value.trim().to_owned());
        text = rest;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Challenge::Bearer { realm: realm.to_owned(), service: service.map(str::to_owned) })
        };
        for (text, wanted) in [
            (
                r#"Bearer realm="https://auth.example/token",service="r.example",scope="a:b,c:pull""#,
                bearer("https://auth.example/token", Some("r.example")),
            ),
            ("bearer realm=https://a.example/t", bearer("https://a.example/t", None)),
            (r#"Basic realm="x""#, Some(Challenge::Basic)),
            (r#"Bearer service="x""#, None),
            (r#"Bearer realm="file:///etc""#, None),
            ("Negotiate", None),
            ("", None),
        ] {
            assert_eq!(Challenge::parse(text), wanted, "{text}");
        }
    }

    #[test]
    fn a_token_is_asked_for_by_repository_and_service() {
        assert_eq!(
            token_url("https://a.example/t", Some("r x&y"), "team/app"),
            "https://a.example/t?scope=repository%3Ateam%2Fapp%3Apull&service=r%20x%26y"
        );
        assert_eq!(token_url("https://a/t?x=1", None, "a"), "https://a/t?x=1&scope=repository%3Aa%3Apull");
    }

    #[test]
    fn an_engine_s_file_is_read_and_prints_no_password() {
        let auth = STANDARD.encode("user:hunter22");
        let text = format!(
            r#"{{"auths": {{"{DOCKER_HUB_KEY}": {{"auth": "{auth}"}}, "r.example:5000": {{"auth": "{auth}"}}}}}}"#
        );
        let credentials = RegistryCredentials::parse(text.as_bytes()).unwrap();
        assert_eq!(credentials.of("docker.io").map(|it| it.expose().as_str()), Some("user:hunter22"));
        assert!(credentials.of("r.example:5000").is_some() && credentials.of("r.example").is_none());
        let basic = basic(credentials.of("docker.io").unwrap()).unwrap();
        assert!(!format!("{credentials:?} {basic:?}").contains(&auth), "{basic:?}");
        for bad in ["", "{}", r#"{"auths": {"r": {}}}"#, r#"{"auths": {"r": {"auth": "!"}}}"#] {
            assert!(matches!(RegistryCredentials::parse(bad.as_bytes()), Err(BadCredentials::Shape)), "{bad}");
        }
    }
}
