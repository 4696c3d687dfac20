//! A key for ssh that lies in memory alone: ssh reads it by the number of a descriptor of ours, so that there is no file to
//! find, to forget or to leave behind.

use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;

use rustix::fs::{MemfdFlags, memfd_create};
use windlass_protocol::Secret;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum BadKey {
    /// It is something else.
    #[error("it is no private key: one begins with a line such as -----BEGIN OPENSSH PRIVATE KEY-----")]
    NotPrivate,
    /// The system has no memory for it.
    #[error("it cannot be held: {0}")]
    NotHeld(#[from] io::Error),
}

/// A private key, as long as this is there.
#[derive(Debug)]
pub struct SshKey {
    held: File,
    text: Secret<String>,
}

impl SshKey {
    /// Takes a key as it stands in its file.
    ///
    /// # Errors
    /// [`BadKey`]. Nothing of the text is in it (I6).
    pub fn new(text: &str) -> Result<Self, BadKey> {
        // Ssh wants lines that end as lines do here, the last one too.
        let text = format!("{}\n", text.trim().replace("\r\n", "\n"));
        let first = text.lines().next().unwrap_or_default();
        if !first.starts_with("-----BEGIN ") || !first.ends_with("PRIVATE KEY-----") {
            return Err(BadKey::NotPrivate);
        }
        let mut held = File::from(memfd_create("windlass-key", MemfdFlags::CLOEXEC).map_err(io::Error::from)?);
        held.set_permissions(Permissions::from_mode(0o600))?;
        held.write_all(text.as_bytes())?;
        Ok(Self { held, text: Secret::new(text) })
    }

    /// Ssh that is known by this key and by nothing else. A host is believed only where the agent's user or the machine
    /// knows its key (`~/.ssh/known_hosts`, `/etc/ssh/ssh_known_hosts`): none is taken at its first word.
    #[must_use]
    pub fn command(&self) -> String {
        format!(
            "ssh -F none -oBatchMode=yes -oStrictHostKeyChecking=yes -oIdentityAgent=none -oIdentitiesOnly=yes -i {}",
            self.path()
        )
    }

    /// Where this process's own user, and nobody else, reads it.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.held.as_raw_fd())
    }

    /// The lines of it that say something, to be taken out of what is told on.
    #[must_use]
    pub fn secrets(&self) -> Vec<String> {
        let lines =
            self.text.expose().lines().map(str::trim).filter(|line| !line.starts_with("-----") && line.len() >= 6);
        lines.map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tokio::process::Command;

    use super::*;
    use crate::{Bounds, Identity, Protocols, run, settings};

    const KEY: &str = "-----BEGIN OPENSSH PRIVATE KEY-----\r\nc2VjcmV0\r\n-----END OPENSSH PRIVATE KEY-----";

    #[test]
    fn what_is_no_private_key_is_refused_and_not_told() {
        for bad in ["", "hunter2hunter2", "ssh-ed25519 AAAA", "-----BEGIN CERTIFICATE-----\nx"] {
            let told = SshKey::new(bad).unwrap_err().to_string();
            assert!(told.contains("no private key") && !told.contains("hunter2"), "{told}");
        }
        assert!(!format!("{:?}", SshKey::new(KEY).unwrap()).contains("c2Vj"));
    }

    #[tokio::test]
    async fn ssh_reads_it_for_as_long_as_it_is_held() {
        let dir = tempfile::tempdir().unwrap();
        let ssh = dir.path().join("ssh");
        let seen = dir.path().join("seen");
        let script = format!(
            "#!/bin/sh\nwhile [ \"$1\" != -i ]; do shift; done\nstat -Lc %a \"$2\" >{0}.mode\ncat \"$2\" >{0}\n",
            seen.display()
        );
        fs::write(&ssh, script).unwrap();
        fs::set_permissions(&ssh, Permissions::from_mode(0o755)).unwrap();
        let key = SshKey::new(KEY).unwrap();
        let mut command = Command::new("git");
        let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
        command.env("PATH", path).current_dir(dir.path());
        settings::settle(&mut command, &Protocols::default(), Identity::Key(&key));
        let refused = run(command, &["ls-remote", "ssh://host.invalid/a"], Bounds::SILENT).await;
        assert!(refused.is_err(), "the host does not answer");
        assert_eq!(fs::read_to_string(&seen).unwrap(), format!("{}\n", KEY.replace('\r', "")));
        assert_eq!(fs::read_to_string(dir.path().join("seen.mode")).unwrap().trim(), "600");
        assert_eq!(key.secrets(), ["c2VjcmV0"]);
        let path = key.path();
        assert!(fs::metadata(&path).is_ok());
        let inode = |path: &str| fs::read_link(path).map(|link| link.to_string_lossy().contains("windlass-key"));
        drop(key);
        assert!(!matches!(inode(&path), Ok(true)), "it is there no more");
    }
}
