//! The fleets that a user is logged in to, with their tokens: one private file, written by `windlass login` alone.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use windlass_protocol::Secret;
use windlass_protocol::host::{read_private, write_private};
use windlass_protocol::limits::FLEETS_MAX;

use crate::error::{Code, Failure};
use crate::place;

/// A fleet with a token for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Login {
    /// The server, as clients call it, without a slash at the end.
    pub(crate) url: String,
    #[serde(with = "token")]
    pub(crate) token: Secret<String>,
    /// When the token's time is over, as the server said at the login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expires_at: Option<String>,
    /// The CA of its HTTPS in PEM, where the system does not know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<String>,
    /// Its token may travel over plain HTTP beyond this machine.
    #[serde(default)]
    pub(crate) insecure_http: bool,
    /// `windlass run` uses its results.
    #[serde(default = "yes")]
    pub(crate) reuse: bool,
}

const fn yes() -> bool {
    true
}

/// All of them, the one that was logged in to last at the end: commands that name none mean that one.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fleets {
    #[serde(default, rename = "fleet")]
    pub(crate) all: Vec<Login>,
}

/// A token stands in the file as it is, and nowhere else.
mod token {
    use serde::{Deserialize as _, Deserializer, Serializer};
    use windlass_protocol::Secret;

    pub(super) fn serialize<S: Serializer>(token: &Secret<String>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(token.expose())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret<String>, D::Error> {
        String::deserialize(deserializer).map(Secret::new)
    }
}

impl Fleets {
    /// The file as it is; empty where there is none.
    pub(crate) fn load() -> Result<Self, Failure> {
        read(&path())
    }

    /// The one at a URL.
    pub(crate) fn find(&self, url: &str) -> Option<&Login> {
        self.all.iter().find(|login| login.url == url.trim_end_matches('/'))
    }

    /// The one that is meant where none is named.
    pub(crate) fn usual(&self) -> Option<&Login> {
        self.all.last()
    }

    /// Adds one, or takes the place of an earlier login at the same URL.
    fn add(&mut self, login: Login) -> Result<(), Failure> {
        self.remove(&login.url);
        if self.all.len() >= FLEETS_MAX {
            return Err(Failure::new(Code::Refused, format!("you are logged in to {FLEETS_MAX} fleets already"))
                .hint("log out of one with `windlass logout URL`"));
        }
        self.all.push(login);
        Ok(())
    }

    fn remove(&mut self, url: &str) -> Option<Login> {
        let at = self.all.iter().position(|login| login.url == url)?;
        Some(self.all.remove(at))
    }
}

/// Writes a login down.
pub(crate) fn log_in(login: Login) -> Result<(), Failure> {
    change(&path(), |fleets| fleets.add(login))
}

/// Forgets a login; whether there was one.
pub(crate) fn log_out(url: &str) -> Result<bool, Failure> {
    change(&path(), |fleets| Ok(fleets.remove(url).is_some()))
}

/// Where they are written down.
pub(crate) fn path() -> PathBuf {
    place::config_dir().join("fleets.toml")
}

fn failed(doing: &str, path: &Path, error: &dyn std::error::Error) -> Failure {
    Failure::system(format!("the logins in {} cannot be {doing}", path.display()), error)
}

fn read(path: &Path) -> Result<Fleets, Failure> {
    let bytes = read_private(path).map_err(|error| failed("read", path, &error))?;
    let Some(bytes) = bytes else { return Ok(Fleets::default()) };
    let text = String::from_utf8_lossy(&bytes);
    // What is wrong is told without the text: there are tokens in it.
    toml::from_str(&text).map_err(|error| {
        let line =
            error.span().map_or(0, |span| text.as_bytes().iter().take(span.start).filter(|b| **b == b'\n').count());
        Failure::usage(format!("{}:{}: this is no login that `windlass login` has written", path.display(), line + 1))
            .hint("mend the file, or remove it and log in again")
    })
}

/// Reads, changes and writes the file while nobody else does.
fn change<T>(path: &Path, change: impl FnOnce(&mut Fleets) -> Result<T, Failure>) -> Result<T, Failure> {
    let unwritable = |error: io::Error| failed("written", path, &error);
    let dir = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(unwritable)?;
    let _alone = lock(&path.with_extension("lock")).map_err(unwritable)?;
    let mut fleets = read(path)?;
    let result = change(&mut fleets)?;
    let text = toml::to_string(&fleets).map_err(|error| failed("written", path, &error))?;
    if fleets.all.is_empty() {
        return match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unwritable(error)),
            _ => Ok(result),
        };
    }
    let text = format!("# Written by `windlass login`: tokens stand here. Nobody else should read it.\n{text}");
    write_private(path, text.as_bytes()).map_err(unwritable)?;
    Ok(result)
}

fn lock(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn login(url: &str, token: &str) -> Login {
        Login {
            url: url.to_owned(),
            token: Secret::new(token.to_owned()),
            expires_at: None,
            ca: Some("-----BEGIN CERTIFICATE-----\nx\n".to_owned()),
            insecure_http: false,
            reuse: true,
        }
    }

    #[test]
    fn logins_are_kept_in_a_file_that_nobody_else_reads_and_the_last_one_is_meant() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/fleets.toml");
        let add = |url: &str, token: &str| change(&path, |fleets| fleets.add(login(url, token)));
        add("https://a", "1").unwrap();
        add("https://b", "2").unwrap();
        add("https://a", "3").unwrap();
        let fleets = read(&path).unwrap();
        let told: Vec<_> = fleets.all.iter().map(|login| (login.url.as_str(), login.token.expose().as_str())).collect();
        assert_eq!(told, [("https://b", "2"), ("https://a", "3")]);
        assert_eq!(fleets.usual().map(|login| login.url.as_str()), Some("https://a"));
        assert!(fleets.find("https://b/").is_some() && fleets.find("https://c").is_none());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(!format!("{fleets:?}").contains("\"3\""), "a token is never shown");
        assert!(change(&path, |fleets| Ok(fleets.remove("https://a").is_some())).unwrap());
        assert!(!change(&path, |fleets| Ok(fleets.remove("https://a").is_some())).unwrap());
        assert!(change(&path, |fleets| Ok(fleets.remove("https://b").is_some())).unwrap());
        assert!(!path.exists(), "nothing is left of the last one");
    }

    #[test]
    fn a_file_that_others_read_or_that_is_none_is_not_used_and_its_text_is_not_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fleets.toml");
        change(&path, |fleets| fleets.add(login("https://a", "wla_secret"))).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let refused = read(&path).unwrap_err();
        assert!(refused.causes.iter().any(|cause| cause.contains("make it 0600")), "{refused:?}");
        write_private(&path, b"[[fleet]]\nurl = 'https://a'\ntoken = wla_secret\n").unwrap();
        let bad = read(&path).unwrap_err();
        assert_eq!(bad.code, Code::Usage);
        assert!(bad.what.contains("fleets.toml:3:") && !format!("{bad:?}").contains("wla_secret"), "{bad:?}");
    }

    #[test]
    fn of_many_who_log_in_at_once_none_loses_his_login() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fleets.toml");
        std::thread::scope(|scope| {
            for n in 0..8 {
                let path = &path;
                scope.spawn(move || change(path, |fleets| fleets.add(login(&format!("https://{n}"), "1"))).unwrap());
            }
        });
        assert_eq!(read(&path).unwrap().all.len(), 8);
    }

    #[test]
    fn there_are_no_more_than_a_bounded_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fleets.toml");
        let mut fleets = Fleets::default();
        for number in 0..FLEETS_MAX {
            fleets.add(login(&format!("https://{number}"), "1")).unwrap();
        }
        write_private(&path, toml::to_string(&fleets).unwrap().as_bytes()).unwrap();
        assert_eq!(change(&path, |fleets| fleets.add(login("https://x", "1"))).unwrap_err().code, Code::Refused);
        change(&path, |fleets| fleets.add(login("https://0", "2"))).unwrap();
    }
}
