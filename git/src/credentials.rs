//! Credentials for private repositories: a file of the operator's, read by a helper that only answers.

use std::io;
use std::path::PathBuf;

use tokio::process::Command;
use windlass_protocol::host::read_private;

/// Answers git's questions from the file, and does nothing else: git's own `store` would take an entry out of the file
/// when a server refuses it, be it for a moment.
const HELPER: &str = r#"!f() { test "$1" = get && git credential-store --file "$WINDLASS_GIT_CREDENTIALS" get; }; f"#;

/// A file in the form of git's credential-store, or none: then git has what its user has.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    path: Option<PathBuf>,
}

impl Credentials {
    /// Those of a file.
    ///
    /// # Errors
    /// There is no such file, or others may read it.
    pub fn new(path: Option<PathBuf>) -> io::Result<Self> {
        let credentials = Self { path };
        credentials.secrets()?;
        Ok(credentials)
    }

    /// The secrets of the file, as they stand there and as they are meant; it may have changed since the last time.
    ///
    /// # Errors
    /// As [`Credentials::new`].
    pub fn secrets(&self) -> io::Result<Vec<String>> {
        let Some(path) = &self.path else { return Ok(Vec::new()) };
        let bytes = read_private(path)?.ok_or(io::ErrorKind::NotFound)?;
        Ok(String::from_utf8_lossy(&bytes).lines().flat_map(secrets_of).collect())
    }

    /// Has a git ask the file.
    pub fn give(&self, command: &mut Command) {
        if let Some(path) = &self.path {
            // The empty one takes back the helpers of the user's own configuration.
            command.args(["-c", "credential.helper=", "-c", &format!("credential.helper={HELPER}")]);
            command.env("WINDLASS_GIT_CREDENTIALS", path);
        }
    }
}

/// The password of a line of the file, as it stands there and percent-decoded.
fn secrets_of(line: &str) -> Vec<String> {
    let userinfo =
        line.trim().split_once("://").and_then(|(_, rest)| rest.split_once('@')).map(|(userinfo, _)| userinfo);
    let Some((_, password)) = userinfo.and_then(|userinfo| userinfo.split_once(':')) else { return Vec::new() };
    let mut both = vec![password.to_owned(), percent_decoded(password)];
    both.dedup();
    both.retain(|secret| !secret.is_empty());
    both
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let digits = after.split_first_chunk::<2>().and_then(|(digits, after)| {
            let value = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
            Some((value, after))
        });
        match digits {
            Some((value, after)) if *byte == b'%' => {
                bytes.push(value);
                rest = after;
            }
            Some(_) | None => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What git says without the secrets that it was given, and without what stands before the host in any URL.
#[must_use]
pub fn without_secrets(said: &str, secrets: &[String]) -> String {
    let mut text = said.to_owned();
    for secret in secrets {
        text = text.replace(secret.as_str(), "***");
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once("://") {
        out.push_str(before);
        out.push_str("://");
        let end = after.find(|c: char| c == '/' || c == '\'' || c == '"' || c.is_whitespace()).unwrap_or(after.len());
        let (authority, tail) = after.split_at(end);
        match authority.rsplit_once('@') {
            Some((_, host)) => {
                out.push_str("***@");
                out.push_str(host);
            }
            None => out.push_str(authority),
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_said_holds_no_secret() {
        let secrets: Vec<_> = secrets_of("https://ci:p%40ss%2Fword@git.example.org\n");
        assert_eq!(secrets, ["p%40ss%2Fword", "p@ss/word"]);
        let said =
            "fatal: p@ss/word: 'https://ci:p%40ss%2Fword@git.example.org/a.git' and http://x:y@h z@w ssh://g@h:1/p";
        let wanted = "fatal: ***: 'https://***@git.example.org/a.git' and http://***@h z@w ssh://***@h:1/p";
        assert_eq!(without_secrets(said, &secrets), wanted);
        for plain in ["", "# comment", "https://host", "https://user@host", "https://user:@host"] {
            assert_eq!(secrets_of(plain), Vec::<String>::new(), "{plain}");
        }
    }

    #[test]
    fn credentials_that_others_may_read_are_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials");
        assert!(Credentials::new(Some(path.clone())).is_err(), "there is none");
        fs::write(&path, "https://a:b@c\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Credentials::new(Some(path.clone())).is_err());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(Credentials::new(Some(path)).unwrap().secrets().unwrap(), ["b"]);
    }
}
