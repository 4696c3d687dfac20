//! What every git of ours is set to, whoever runs it: nobody is asked, nothing waits for ever, and only what the operator
//! allows is fetched by. And who it is to a server.

use std::ffi::OsString;

use tokio::process::Command;

use crate::credentials::Credentials;
use crate::key::SshKey;
use crate::repository::Protocols;

/// Variables of every git. By variables and not by options, so that what a git starts has them too.
///
/// A server that sends less than the limit of bytes a second, for so many seconds, has failed.
pub const ALWAYS: [(&str, &str); 6] = [
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_ASKPASS", ""),
    ("SSH_ASKPASS", ""),
    ("SSH_ASKPASS_REQUIRE", "never"),
    ("GIT_HTTP_LOW_SPEED_LIMIT", "1000"),
    ("GIT_HTTP_LOW_SPEED_TIME", "30"),
];

/// The variable that holds git to protocols.
pub const ALLOWED: &str = "GIT_ALLOW_PROTOCOL";

/// The variable with the command for ssh.
pub const SSH_COMMAND: &str = "GIT_SSH_COMMAND";

/// Ssh, which asks nobody; a host that is not known is refused.
pub const SSH: &str = "ssh -oBatchMode=yes";

/// Ssh that has no key.
const SSH_OF_NOBODY: &str = "ssh -F none -oBatchMode=yes -oStrictHostKeyChecking=yes -oIdentityAgent=none \
                             -oIdentitiesOnly=yes -oIdentityFile=none";

/// Where there is no file of anybody's.
const NOWHERE: &str = "/nonexistent";

/// Who a git is to a server.
#[derive(Debug, Clone, Copy)]
pub enum Identity<'a> {
    /// Whoever the operator says: his credential file, and beside it what its own user has (helpers, `~/.netrc`, keys).
    Operator(&'a Credentials),
    /// Whoever has this key, and nothing else of its user's.
    Key(&'a SshKey),
    /// Nobody: with nothing of its user's nor of the machine's configuration, where credentials may stand.
    Nobody,
}

/// Sets a git up. `command` may have variables already; those of [`ALWAYS`] and what identifies it take their place.
pub fn settle(command: &mut Command, protocols: &Protocols, identity: Identity<'_>) {
    command.envs(ALWAYS).env(ALLOWED, protocols.variable());
    match identity {
        Identity::Operator(credentials) => {
            if let Some(ssh) = operators_ssh() {
                command.env(SSH_COMMAND, ssh);
            }
            credentials.give(command);
        }
        Identity::Key(key) => {
            alone(command);
            command.env(SSH_COMMAND, key.command());
        }
        Identity::Nobody => {
            alone(command);
            command.env(SSH_COMMAND, SSH_OF_NOBODY);
        }
    }
}

/// Without anything by which its user is known to servers.
fn alone(command: &mut Command) {
    for name in ["GIT_SSH", "SSH_AUTH_SOCK", "GIT_CONFIG_PARAMETERS", "GIT_CONFIG_COUNT"] {
        command.env_remove(name);
    }
    command
        .env("HOME", NOWHERE)
        .env("XDG_CONFIG_HOME", NOWHERE)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null");
}

/// The operator's command for ssh, else ours; none where he names a program, which is left to him.
fn operators_ssh() -> Option<OsString> {
    match (std::env::var_os(SSH_COMMAND), std::env::var_os("GIT_SSH")) {
        (Some(command), _) => Some(command),
        (None, Some(_)) => None,
        (None, None) => Some(SSH.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn variables(identity: Identity<'_>) -> BTreeMap<String, Option<String>> {
        let mut command = Command::new("git");
        settle(&mut command, &Protocols::default(), identity);
        let text = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
        command.as_std().get_envs().map(|(name, value)| (text(name), value.map(text))).collect()
    }

    #[test]
    fn nobody_is_asked_and_only_allowed_protocols_are_spoken_whoever_it_is() {
        let key = SshKey::new("-----BEGIN OPENSSH PRIVATE KEY-----\nx\n-----END OPENSSH PRIVATE KEY-----").unwrap();
        let credentials = Credentials::default();
        for identity in [Identity::Operator(&credentials), Identity::Key(&key), Identity::Nobody] {
            let set = variables(identity);
            let value = |name: &str| set.get(name).cloned().flatten().unwrap_or_else(|| "unset".to_owned());
            assert_eq!((value(ALLOWED).as_str(), value("GIT_TERMINAL_PROMPT").as_str()), ("https:ssh", "0"));
            assert_eq!((value("GIT_ASKPASS").as_str(), value("GIT_HTTP_LOW_SPEED_TIME").as_str()), ("", "30"));
            assert!(value(SSH_COMMAND).contains("BatchMode=yes"), "{identity:?}");
        }
    }

    #[test]
    fn nobody_and_a_key_have_nothing_of_their_user() {
        let key = SshKey::new("-----BEGIN OPENSSH PRIVATE KEY-----\nx\n-----END OPENSSH PRIVATE KEY-----").unwrap();
        for identity in [Identity::Key(&key), Identity::Nobody] {
            let set = variables(identity);
            assert_eq!(set["HOME"].as_deref(), Some(NOWHERE), "{identity:?}");
            assert_eq!(set["GIT_CONFIG_GLOBAL"].as_deref(), Some("/dev/null"), "{identity:?}");
            assert_eq!(set["SSH_AUTH_SOCK"], None, "{identity:?}");
            let ssh = set[SSH_COMMAND].as_deref().unwrap();
            assert!(ssh.contains("-F none") && ssh.contains("StrictHostKeyChecking=yes"), "{ssh}");
            assert!(ssh.contains("IdentityAgent=none") && ssh.contains("IdentitiesOnly=yes"), "{ssh}");
        }
    }
}
