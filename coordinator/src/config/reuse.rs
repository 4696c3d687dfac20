//! What an operator says of step reuse: the epoch of all keys, and how registries of images and repositories of plugins are asked.

use std::path::PathBuf;

use serde::Deserialize;

use super::Allowed;
use crate::keying::ReuseConfig;
use crate::keying::image::{RegistryConfig, RegistryCredentials};
use crate::keying::plugins::PluginRepositories;

/// The table `reuse` of the TOML file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReuseFile {
    /// Hosts (`registry.corp`, `*.corp`) and networks (`10.1.0.0/16`) whose registries are asked although they are not public.
    #[serde(default)]
    pub registries: Vec<String>,
    /// `HOST` or `HOST:PORT` of registries that are asked without TLS, wherever they are.
    #[serde(default)]
    pub insecure_registries: Vec<String>,
    /// Beginnings of URLs whose repositories are asked which commit a plugin's tag or branch is; `https://github.com/` where
    /// nobody says otherwise.
    pub plugins: Option<Vec<String>>,
    /// Names and passwords for private registries: an engine's `config.json` with `auths`, mode 0600. Read at the start.
    pub registry_credentials: Option<PathBuf>,
}

/// A setting that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("reuse.{key}: {why}")]
pub struct BadReuse {
    key: &'static str,
    why: String,
}

impl ReuseConfig {
    /// What the file says, with this epoch; and what is wrong with it.
    #[must_use]
    pub fn of(file: ReuseFile, epoch: u64) -> (Self, Vec<BadReuse>) {
        let mut wrong = Vec::new();
        let mut allow: Vec<Allowed> = Vec::new();
        for text in &file.registries {
            match text.parse() {
                Ok(allowed) => allow.push(allowed),
                Err(_) => wrong.push(BadReuse {
                    key: "registries",
                    why: format!("`{text}` is neither a host, `*.` and a domain, an address nor a network"),
                }),
            }
        }
        for text in file.insecure_registries.iter().filter(|text| text.contains('/') || text.trim().is_empty()) {
            wrong.push(BadReuse { key: "insecure_registries", why: format!("`{text}` is not HOST or HOST:PORT") });
        }
        let credentials = match file.registry_credentials.as_deref().map(RegistryCredentials::read) {
            None => RegistryCredentials::default(),
            Some(Ok(credentials)) => credentials,
            Some(Err(error)) => {
                wrong.push(BadReuse { key: "registry_credentials", why: error.to_string() });
                RegistryCredentials::default()
            }
        };
        let registries = RegistryConfig { allow, insecure: file.insecure_registries, credentials };
        let plugins = match file.plugins.map(PluginRepositories::new) {
            None => PluginRepositories::default(),
            Some(Ok(plugins)) => plugins,
            Some(Err(error)) => {
                wrong.push(BadReuse { key: "plugins", why: error.to_string() });
                PluginRepositories::default()
            }
        };
        (Self { epoch, registries, plugins, ..Self::default() }, wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_wrong_is_told_with_its_key() {
        let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let good = ReuseFile {
            registries: list(&["r.corp", "*.corp", "10.0.0.0/8"]),
            insecure_registries: list(&["127.0.0.1:5000"]),
            plugins: Some(list(&["https://git.corp/ci/"])),
            registry_credentials: None,
        };
        let (config, wrong) = ReuseConfig::of(good, 3);
        assert_eq!((config.epoch, config.registries.allow.len(), wrong), (3, 3, vec![]));
        let bad = ReuseFile {
            registries: list(&["a b"]),
            insecure_registries: list(&["http://r", ""]),
            plugins: Some(list(&["git.corp"])),
            registry_credentials: Some("/no/such/file".into()),
        };
        let wrong: Vec<String> = ReuseConfig::of(bad, 0).1.iter().map(ToString::to_string).collect();
        assert_eq!(wrong.len(), 5, "{wrong:?}");
        assert!(wrong[4].starts_with("reuse.plugins: `git.corp` is not"), "{wrong:?}");
        assert!(wrong[3].starts_with("reuse.registry_credentials: it cannot be read"), "{wrong:?}");
    }
}
