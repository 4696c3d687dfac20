//! What an operator says of the bucket behind the cache.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use windlass_bucket::{Bucket, Keys, Settings};
use windlass_protocol::limits::{ORIGIN_CREDENTIALS_MAX_BYTES, ORIGIN_DISK_BYTES};

/// The table `bucket` of the TOML file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BucketFile {
    /// The bucket's name; there is none without it.
    pub name: Option<String>,
    /// The folder in it that all objects lie in.
    pub prefix: Option<String>,
    /// `us-east-1` and the like.
    pub region: Option<String>,
    /// The server's URL where it is not AWS.
    pub endpoint: Option<String>,
    /// Whether the bucket's name is in the path and not in the host.
    pub path_style: Option<bool>,
    /// Whether an endpoint without TLS is asked.
    pub insecure_http: Option<bool>,
    /// Certificates that are trusted beside those of the system, in PEM.
    pub ca_file: Option<PathBuf>,
    /// Who asks, as AWS's tools write it, mode 0600. The environment comes first.
    pub credentials_file: Option<PathBuf>,
    /// What of the cache stays on the disk, such as `20GiB`.
    pub disk: Option<String>,
    /// The store in the bucket that a new data directory goes on with.
    pub rebuild: Option<String>,
}

/// A bucket behind the cache.
#[derive(Debug, Clone)]
pub struct BucketConfig {
    /// How it is asked.
    pub settings: Settings,
    /// What of the cache stays on the disk.
    pub disk_bytes: u64,
    /// The store in the bucket that a data directory without a cache goes on with.
    pub rebuild: Option<String>,
}

/// A setting that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bucket.{key}: {why}")]
pub struct BadBucketSetting {
    key: &'static str,
    why: String,
}

fn bad(key: &'static str, why: impl Into<String>) -> BadBucketSetting {
    BadBucketSetting { key, why: why.into() }
}

impl BucketConfig {
    /// What the file says, and what is wrong with it. `keys` are those of the environment, which come before a file's;
    /// `disk_bytes` is what `disk` says.
    #[must_use]
    pub fn of(file: BucketFile, keys: bool, disk_bytes: Option<u64>) -> (Option<Self>, Vec<BadBucketSetting>) {
        if file == BucketFile::default() {
            return (None, Vec::new());
        }
        let mut wrong = Vec::new();
        let name = file.name.unwrap_or_default();
        let right = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.' | '_');
        if !(3..=63).contains(&name.len()) || !name.chars().all(right) {
            wrong.push(bad("name", format!("`{name}` is no bucket's: 3 to 63 of a-z, 0-9, `-` and `.`")));
        }
        let insecure_http = file.insecure_http.unwrap_or(false);
        if let Some(endpoint) = &file.endpoint {
            match endpoint.split_once("://") {
                Some(("https", host)) if !host.is_empty() => {}
                Some(("http", host)) if !host.is_empty() && insecure_http => {}
                Some(("http", _)) => {
                    wrong.push(bad("endpoint", "it is without TLS; `bucket.insecure_http = true` allows that"));
                }
                _ => wrong.push(bad("endpoint", format!("`{endpoint}` is no https URL"))),
            }
        }
        let keys = match file.credentials_file.as_deref().filter(|_| !keys).map(read_keys) {
            None => None,
            Some(Ok(keys)) => Some(keys),
            Some(Err(why)) => {
                wrong.push(bad("credentials_file", why));
                None
            }
        };
        let ca_pem = match file.ca_file.as_deref().map(|path| read_bounded(path).map_err(|e| told(path, &e))) {
            None => None,
            Some(Ok(pem)) => Some(pem),
            Some(Err(why)) => {
                wrong.push(bad("ca_file", why));
                None
            }
        };
        let store = |name: &&String| name.len() != 32 || !name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if let Some(name) = file.rebuild.as_ref().filter(store) {
            wrong.push(bad(
                "rebuild",
                format!("`{name}` is no store's name: 32 hexadecimal digits, a folder of the bucket"),
            ));
        }
        let settings = Settings {
            name,
            prefix: file.prefix.unwrap_or_default(),
            region: file.region,
            endpoint: file.endpoint,
            path_style: file.path_style.unwrap_or(false),
            insecure_http,
            keys,
            ca_pem,
        };
        if wrong.is_empty()
            && let Err(error) = Bucket::new(&settings)
        {
            wrong.push(bad("name", error.to_string()));
        }
        (Some(Self { settings, disk_bytes: disk_bytes.unwrap_or(ORIGIN_DISK_BYTES), rebuild: file.rebuild }), wrong)
    }
}

fn told(path: &Path, error: &std::io::Error) -> String {
    format!("{} cannot be read: {error}", path.display())
}

fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(ORIGIN_CREDENTIALS_MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn read_keys(path: &Path) -> Result<Keys, String> {
    let mode = std::fs::metadata(path).map_err(|e| told(path, &e))?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(format!("{} has mode {mode:04o}; others may read it: `chmod 600` it", path.display()));
    }
    let text = read_bounded(path).map_err(|e| told(path, &e))?;
    let text = str::from_utf8(&text).map_err(|_| format!("{} is not text", path.display()))?;
    Keys::from_file(text).map_err(|why| format!("{}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn wrong(file: BucketFile) -> Vec<String> {
        BucketConfig::of(file, false, None).1.iter().map(ToString::to_string).collect()
    }

    fn named() -> BucketFile {
        BucketFile {
            name: Some("windlass-cache".to_owned()),
            region: Some("eu-west-1".to_owned()),
            ..BucketFile::default()
        }
    }

    #[test]
    fn a_bucket_is_described_and_what_is_wrong_is_told_with_its_key() {
        assert!(BucketConfig::of(BucketFile::default(), false, None).0.is_none(), "none is described");
        let (config, told) = BucketConfig::of(named(), true, Some(7));
        assert_eq!((config.unwrap().disk_bytes, told), (7, vec![]));
        let file = |change: fn(&mut BucketFile)| {
            let mut file = named();
            change(&mut file);
            wrong(file).join("\n")
        };
        assert!(file(|file| file.name = None).starts_with("bucket.name: `` is no bucket's"));
        assert!(file(|file| file.endpoint = Some("http://s3.corp".to_owned())).contains("insecure_http"));
        assert!(file(|file| file.endpoint = Some("s3.corp".to_owned())).contains("no https URL"));
        assert!(
            file(|file| file.ca_file = Some("/nowhere".into())).contains("bucket.ca_file: /nowhere cannot be read")
        );
        assert!(file(|file| file.rebuild = Some("../x".to_owned())).contains("bucket.rebuild"));
        assert_eq!(
            file(|file| (file.endpoint, file.insecure_http) = (Some("http://s3.corp".to_owned()), Some(true))),
            ""
        );
    }

    #[test]
    fn keys_that_others_may_read_are_refused_and_none_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        fs::write(&path, "[default]\naws_access_key_id = AKIA\naws_secret_access_key = hush\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let file = BucketFile { credentials_file: Some(path.clone()), ..named() };
        assert!(wrong(file.clone())[0].contains("chmod 600"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let (config, told) = BucketConfig::of(file, false, None);
        assert_eq!(told, vec![]);
        let config = config.unwrap();
        assert_eq!(config.settings.keys.as_ref().unwrap().secret.expose(), "hush");
        assert!(!format!("{config:?}").contains("hush"));
    }
}
