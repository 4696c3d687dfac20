//! What an operator says of notifications: the key that signs, where webhooks may go, and tokens for commit statuses.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use axum::http::Uri;
use ipnet::IpNet;
use serde::Deserialize;
use windlass_protocol::Secret;

/// The table `notify` of the TOML file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotifyFile {
    /// A file with the key that signs webhooks, at least 24 characters, mode 0600.
    pub key_file: Option<PathBuf>,
    /// A file with the key of before: signatures by it are sent beside the present one's.
    pub old_key_file: Option<PathBuf>,
    /// Hosts (`hooks.corp`, `*.corp`) and networks (`10.1.0.0/16`) that webhooks may reach although they are not public.
    #[serde(default)]
    pub allow: Vec<String>,
    /// Repositories whose commits get statuses.
    #[serde(default)]
    pub github: Vec<GithubFile>,
}

/// One of `notify.github`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GithubFile {
    /// `OWNER/NAME` or `OWNER/*` of github.com, or `HOST/OWNER/NAME`.
    pub repository: String,
    /// A file with the token, mode 0600; read for each status, so that it can be changed at any time.
    pub token_file: PathBuf,
    /// The API; `https://api.github.com` for github.com and `https://HOST/api/v3` for others.
    pub api: Option<String>,
}

/// What notifications are sent with.
#[derive(Debug, Clone, Default)]
pub struct NotifyConfig {
    /// The operator's file with the key.
    pub key_file: Option<PathBuf>,
    /// The key itself, from the environment.
    pub key: Option<Secret<String>>,
    /// The file with the key of before.
    pub old_key_file: Option<PathBuf>,
    /// What webhooks may reach beside public addresses.
    pub allow: Vec<Allowed>,
    /// Repositories whose commits get statuses.
    pub github: Vec<GithubConfig>,
}

/// Something that is not public and that webhooks may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    /// A host of this name, whatever its addresses are.
    Host(String),
    /// Hosts below this name, which begins with a dot.
    Below(String),
    /// Addresses.
    Net(IpNet),
}

/// Where the statuses of a repository's commits are set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GithubConfig {
    /// The host of its clone URLs, in small letters.
    pub host: String,
    /// In small letters.
    pub owner: String,
    /// In small letters; `None` is all of the owner's.
    pub name: Option<String>,
    /// Without a slash at its end.
    pub api: String,
    /// Where the token is.
    pub token_file: PathBuf,
}

/// A setting that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("notify.{key}: {why}")]
pub struct BadSetting {
    key: &'static str,
    why: String,
}

fn bad<T>(key: &'static str, why: impl Into<String>) -> Result<T, BadSetting> {
    Err(BadSetting { key, why: why.into() })
}

impl FromStr for Allowed {
    type Err = BadSetting;

    fn from_str(text: &str) -> Result<Self, BadSetting> {
        if let Ok(net) = text.parse::<IpNet>() {
            return Ok(Self::Net(net.trunc()));
        }
        if let Ok(address) = text.parse::<std::net::IpAddr>() {
            return Ok(Self::Net(address.into()));
        }
        let name = text.to_ascii_lowercase();
        let rest = name.strip_prefix("*.").unwrap_or(&name);
        let is_name =
            |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        if !rest.split('.').all(is_name) {
            return bad("allow", format!("`{text}` is neither a host, `*.` and a domain, an address nor a network"));
        }
        Ok(if rest.len() == name.len() { Self::Host(name) } else { Self::Below(format!(".{rest}")) })
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(name) => f.write_str(name),
            Self::Below(domain) => write!(f, "*{domain}"),
            Self::Net(net) => fmt::Display::fmt(net, f),
        }
    }
}

impl TryFrom<GithubFile> for GithubConfig {
    type Error = BadSetting;

    fn try_from(file: GithubFile) -> Result<Self, BadSetting> {
        let whole = file.repository.to_ascii_lowercase();
        let (host, owner, name) = match whole.split('/').collect::<Vec<_>>()[..] {
            [owner, name] => ("github.com", owner, name),
            [host, owner, name] => (host, owner, name),
            _ => {
                return bad("github.repository", format!("`{}` is not OWNER/NAME or HOST/OWNER/NAME", file.repository));
            }
        };
        if host.is_empty() || owner.is_empty() || name.is_empty() || owner.contains('*') {
            return bad("github.repository", format!("`{}` is not OWNER/NAME or HOST/OWNER/NAME", file.repository));
        }
        let api = file.api.unwrap_or_else(|| match host {
            "github.com" => "https://api.github.com".to_owned(),
            host => format!("https://{host}/api/v3"),
        });
        check_api(&api)?;
        Ok(Self {
            host: host.to_owned(),
            owner: owner.to_owned(),
            name: (name != "*").then(|| name.to_owned()),
            api: api.trim_end_matches('/').to_owned(),
            token_file: file.token_file,
        })
    }
}

/// A token goes there: in the clear only within this machine.
fn check_api(api: &str) -> Result<(), BadSetting> {
    let uri = api.parse::<Uri>().ok();
    let host = uri.as_ref().and_then(|uri| uri.host()).unwrap_or_default().trim_matches(['[', ']']);
    let here = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    let scheme = uri.as_ref().and_then(Uri::scheme_str).unwrap_or_default();
    match (host.is_empty(), scheme) {
        (false, "https") => Ok(()),
        (false, "http") if here => Ok(()),
        _ => bad("github.api", format!("`{api}` is no https URL (http only on this machine itself)")),
    }
}

impl NotifyConfig {
    /// What a file says, and all that is wrong with it.
    #[must_use]
    pub fn of(file: NotifyFile, key: Option<Secret<String>>) -> (Self, Vec<BadSetting>) {
        let mut wrong = Vec::new();
        let mut config = Self { key_file: file.key_file, key, old_key_file: file.old_key_file, ..Self::default() };
        for text in file.allow {
            match text.parse() {
                Ok(allowed) => config.allow.push(allowed),
                Err(error) => wrong.push(error),
            }
        }
        for one in file.github {
            match GithubConfig::try_from(one) {
                Ok(github) => config.github.push(github),
                Err(error) => wrong.push(error),
            }
        }
        (config, wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn github(repository: &str, api: Option<&str>) -> Result<GithubConfig, BadSetting> {
        let (repository, api) = (repository.to_owned(), api.map(str::to_owned));
        GithubFile { repository, token_file: "t".into(), api }.try_into()
    }

    #[test]
    fn repositories_have_a_host_and_an_api_and_tokens_go_nowhere_in_the_clear() {
        let one = github("Acme/Web", None).unwrap();
        assert_eq!((&*one.host, &*one.owner, one.name.as_deref()), ("github.com", "acme", Some("web")));
        assert_eq!(one.api, "https://api.github.com");
        let all = github("git.corp/acme/*", None).unwrap();
        assert_eq!((&*all.api, all.name), ("https://git.corp/api/v3", None));
        assert!(github("acme/web", Some("http://127.0.0.1:1/")).is_ok());
        for (repository, api) in
            [("acme", None), ("a/b/c/d", None), ("*/web", None), ("a/b", Some("http://git.corp")), ("a/b", Some("x"))]
        {
            assert!(github(repository, api).is_err(), "{repository} {api:?}");
        }
    }

    #[test]
    fn what_is_allowed_is_a_host_a_domain_or_a_network() {
        for (text, shown) in
            [("Hooks.Corp", "hooks.corp"), ("*.corp", "*.corp"), ("10.1.2.3/16", "10.1.0.0/16"), ("::1", "::1/128")]
        {
            assert_eq!(text.parse::<Allowed>().unwrap().to_string(), shown);
        }
        for text in ["", "*", "a..b", "http://a", "a/b", "*.*.a"] {
            assert!(text.parse::<Allowed>().is_err(), "{text}");
        }
    }
}
