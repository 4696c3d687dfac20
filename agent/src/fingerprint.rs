//! What this machine is to a step's result: its system, what the operator's commands print, and the agent's hooks
//! (docs/design/030). Read when the agent starts and again and again: packages are upgraded under it.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::sync::watch;
use windlass_protocol::limits::{
    FINGERPRINT_COMMAND_MS, FINGERPRINT_HOOKS_MAX_BYTES, FINGERPRINT_HOOKS_MAX_FILES, FINGERPRINT_OUTPUT_MAX_BYTES,
    FINGERPRINT_SHOWN_MAX_BYTES, TREE_DEPTH_MAX,
};
use windlass_protocol::{Digest, HostFacts};

use crate::environment::PATH;

/// Whose words the name and version of the distribution are.
const OS_RELEASE: &str = "/etc/os-release";

/// What of it counts: the rest changes with every point release's name or not at all.
const RELEASE_FIELDS: [&str; 2] = ["ID", "VERSION_ID"];

/// What there is to be looked at.
#[derive(Debug, Clone)]
pub(crate) struct Fingerprint {
    /// The operator's commands, each one line.
    pub(crate) commands: Vec<String>,
    /// Directories with the agent's hooks.
    pub(crate) hooks: Vec<PathBuf>,
    /// Whether repositories may bring hooks: it decides what runs.
    pub(crate) local_hooks: bool,
    /// Where this is one person's machine, what it is called: it is like no other, and reuses what it has made itself.
    pub(crate) machine: Option<String>,
}

impl Fingerprint {
    /// Looks at the machine. What cannot be told is left out, and nothing is reused by it then.
    pub(crate) async fn read(&self) -> HostFacts {
        HostFacts { platform: platform(), system: self.system().await.unwrap_or_default(), hooks: self.hooks().await }
    }

    /// What the machine is now, and from now on, looked at so often for as long as somebody listens.
    pub(crate) async fn watch(self, every: Duration) -> watch::Receiver<HostFacts> {
        let (tell, told) = watch::channel(self.read().await);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(every) => {}
                    () = tell.closed() => return,
                }
                let facts = self.read().await;
                tell.send_if_modified(|said| std::mem::replace(said, facts.clone()) != facts);
            }
        });
        told
    }

    async fn system(&self) -> Option<String> {
        let mut lines =
            vec![("os", std::env::consts::OS.to_owned()), ("architecture", std::env::consts::ARCH.to_owned())];
        let release = fs::read_to_string(OS_RELEASE).unwrap_or_default();
        lines.push(("distribution", distribution(&release)));
        match self.machine.as_deref() {
            None => {}
            Some("") => return None,
            Some(machine) => lines.push(("machine", machine.to_owned())),
        }
        let printed = futures_util::future::join_all(self.commands.iter().map(|command| printed(command))).await;
        for (command, printed) in self.commands.iter().zip(printed) {
            match printed {
                Ok(text) => lines.push((command, text)),
                Err(error) => {
                    tracing::warn!(command, %error, "fingerprint_command_failed");
                    return None;
                }
            }
        }
        Some(lines.iter().map(|(name, value)| format!("{name}: {value}\n")).collect())
    }

    async fn hooks(&self) -> Option<Digest> {
        let (paths, local) = (self.hooks.clone(), self.local_hooks);
        let read = tokio::task::spawn_blocking(move || hooks_text(&paths, local)).await;
        match read.map_err(io::Error::other).flatten() {
            Ok(text) => Some(Digest::of(text.as_bytes())),
            Err(error) => {
                tracing::warn!(%error, "hooks_not_told");
                None
            }
        }
    }
}

/// As indexes of images have it.
fn platform() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    };
    format!("{}/{architecture}", std::env::consts::OS)
}

/// `debian 13`.
fn distribution(release: &str) -> String {
    let field = |name: &str| {
        let value = release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_default().trim_matches(['"', '\'']).to_owned()
    };
    RELEASE_FIELDS.map(field).join(" ").trim().to_owned()
}

/// What a command prints on both its outputs, and how it ends: one that is not there says so too. An error is one that does
/// not end in its time, or cannot be run at all.
async fn printed(command: &str) -> io::Result<String> {
    let mut child = Command::new("sh")
        .args(["-c", &format!("exec 2>&1\n{command}")])
        .current_dir("/")
        .env_clear()
        .envs([("PATH", PATH), ("LC_ALL", "C"), ("HOME", "/")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let group = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    let output = child.stdout.take();
    let ended = tokio::time::timeout(Duration::from_millis(FINGERPRINT_COMMAND_MS), async {
        let mut text = Vec::new();
        if let Some(mut output) = output {
            (&mut output).take(FINGERPRINT_OUTPUT_MAX_BYTES).read_to_end(&mut text).await?;
            tokio::io::copy(&mut output, &mut tokio::io::sink()).await?;
        }
        Ok::<_, io::Error>((text, child.wait().await?))
    });
    match ended.await {
        Ok(Ok((text, status))) => Ok(shown(&text, status.code())),
        Ok(Err(error)) => Err(error),
        Err(_) => {
            if let Some(group) = group {
                // One that ended meanwhile is what was wanted.
                let _ = rustix::process::kill_process_group(group, Signal::KILL);
            }
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("it did not end in {} s", FINGERPRINT_COMMAND_MS / 1_000),
            ))
        }
    }
}

/// On one line; what is not told has its digest there.
fn shown(text: &[u8], status: Option<i32>) -> String {
    let lossy = String::from_utf8_lossy(text);
    let line = lossy.trim().lines().map(str::trim).collect::<Vec<_>>().join("; ");
    let mut line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.len() > FINGERPRINT_SHOWN_MAX_BYTES {
        let hex = Digest::of(text).to_hex();
        line.truncate(line.floor_char_boundary(FINGERPRINT_SHOWN_MAX_BYTES));
        line.push_str(&format!("… ({})", hex.get(..16).unwrap_or_default()));
    }
    match status {
        Some(0) => line,
        Some(status) => format!("{line} (exit {status})"),
        None => format!("{line} (ended by a signal)"),
    }
}

/// A line for each file of the hooks' directories: hooks read what lies beside them. Empty without any.
fn hooks_text(paths: &[PathBuf], local_hooks: bool) -> io::Result<String> {
    let mut lines = Vec::new();
    let mut left = Left { files: FINGERPRINT_HOOKS_MAX_FILES, bytes: FINGERPRINT_HOOKS_MAX_BYTES };
    for (at, path) in paths.iter().enumerate() {
        files(path, &format!("{at}"), 0, &mut lines, &mut left)?;
    }
    if !local_hooks {
        lines.push("repositories bring none\n".to_owned());
    }
    Ok(lines.concat())
}

struct Left {
    files: usize,
    bytes: u64,
}

fn files(path: &Path, name: &str, depth: usize, lines: &mut Vec<String>, left: &mut Left) -> io::Result<()> {
    if depth > TREE_DEPTH_MAX {
        return Err(io::Error::other("the hooks' directories are too deep"));
    }
    let mut entries: Vec<_> = fs::read_dir(path)?.collect::<io::Result<_>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = format!("{name}/{}", entry.file_name().to_string_lossy().escape_debug());
        let path = entry.path();
        let found = fs::metadata(&path)?;
        if found.is_dir() {
            files(&path, &name, depth + 1, lines, left)?;
        } else if found.is_file() {
            let room = left.files.checked_sub(1).zip(left.bytes.checked_sub(found.len()));
            let (files, bytes) = room.ok_or_else(|| io::Error::other("the hooks' directories have too many files"))?;
            *left = Left { files, bytes };
            let mut text = Vec::new();
            fs::File::open(&path)?.take(found.len()).read_to_end(&mut text)?;
            lines.push(format!("{name} {:o} {}\n", mode(&found), Digest::of(&text)));
        }
    }
    Ok(())
}

fn mode(found: &fs::Metadata) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    found.permissions().mode() & 0o111
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(commands: &[&str], hooks: &[&Path]) -> Fingerprint {
        Fingerprint {
            commands: commands.iter().map(|command| (*command).to_owned()).collect(),
            hooks: hooks.iter().map(|path| (*path).to_owned()).collect(),
            local_hooks: true,
            machine: None,
        }
    }

    #[tokio::test]
    async fn commands_are_told_with_what_they_print_and_how_they_end() {
        let facts =
            of(&["echo 1.2; echo of >&2", "no-such-program --version", "printf 'a\\tb'; exit 3"], &[]).read().await;
        let lines: Vec<&str> = facts.system.lines().collect();
        assert_eq!(lines[0], "os: linux");
        assert_eq!(lines[1], format!("architecture: {}", std::env::consts::ARCH));
        assert!(lines[2].starts_with("distribution: "), "{lines:?}");
        assert_eq!(lines[3], "echo 1.2; echo of >&2: 1.2; of");
        assert!(lines[4].contains("not found (exit 127)"), "{lines:?}");
        assert_eq!(lines[5], "printf 'a\\tb'; exit 3: a b (exit 3)");
        assert_eq!((facts.platform.starts_with("linux/"), facts.hooks), (true, Some(Digest::of(b""))));
    }

    #[tokio::test]
    async fn a_long_text_is_cut_and_its_rest_counts_all_the_same() {
        let of = |last: &str| of(&[&format!("head -c 600 /dev/zero | tr '\\0' x; echo {last}")], &[]);
        let (one, two) = (of("1").read().await.system, of("2").read().await.system);
        let told = |text: &str| text.lines().last().unwrap().rsplit_once(": ").unwrap().1.len();
        assert!(told(&one) < FINGERPRINT_SHOWN_MAX_BYTES + 30, "{one}");
        assert_ne!(one.rsplit_once('(').unwrap().1, two.rsplit_once('(').unwrap().1);
    }

    #[tokio::test]
    async fn a_machine_of_one_s_own_is_like_no_other() {
        let digest = async |machine: Option<&str>| {
            let machine = machine.map(str::to_owned);
            Fingerprint { machine, ..of(&["echo 1"], &[]) }.read().await.system_digest()
        };
        let (fleet, own, other) = (digest(None).await, digest(Some("a")).await, digest(Some("b")).await);
        assert!(fleet.is_some() && own.is_some() && own != fleet && own != other);
        assert_eq!(digest(Some("a")).await, own, "it is like itself");
        assert_eq!(digest(Some("")).await, None, "it has no name");
    }

    #[tokio::test]
    async fn every_file_beside_a_hook_counts_and_whether_repositories_bring_some() {
        let dir = tempfile::tempdir().unwrap();
        let digest = async || of(&[], &[dir.path()]).read().await.hooks.unwrap();
        let mut seen = vec![Digest::of(b"not"), digest().await];
        assert_eq!(seen[1], Digest::of(b""), "as without any");
        fs::write(dir.path().join("pre-command"), "true").unwrap();
        seen.push(digest().await);
        fs::create_dir(dir.path().join("lib")).unwrap();
        fs::write(dir.path().join("lib/a.sh"), "1").unwrap();
        seen.push(digest().await);
        fs::write(dir.path().join("lib/a.sh"), "2").unwrap();
        seen.push(digest().await);
        seen.push(Fingerprint { local_hooks: false, ..of(&[], &[dir.path()]) }.read().await.hooks.unwrap());
        let different: std::collections::BTreeSet<_> = seen.iter().collect();
        assert_eq!(different.len(), seen.len());
        assert_eq!(of(&[], &[Path::new("/no/such")]).read().await.hooks, None);
    }

    #[tokio::test]
    async fn a_machine_that_changes_is_told_of_and_one_that_does_not_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let version = dir.path().join("version");
        fs::write(&version, "1").unwrap();
        let command = format!("cat {}", version.display());
        let mut told = of(&[&command], &[]).watch(Duration::from_millis(20)).await;
        assert!(told.borrow_and_update().system.ends_with(": 1\n"));
        fs::write(dir.path().join("new"), "2").unwrap();
        fs::rename(dir.path().join("new"), &version).unwrap();
        tokio::time::timeout(Duration::from_secs(30), told.changed()).await.unwrap().unwrap();
        assert!(told.borrow_and_update().system.ends_with(": 2\n"));
        let quiet = tokio::time::timeout(Duration::from_millis(200), told.changed()).await;
        assert!(quiet.is_err(), "nothing has changed since");
    }

    #[test]
    fn the_distribution_is_named_by_its_id_and_version() {
        assert_eq!(distribution("PRETTY_NAME=\"Debian 13\"\nVERSION_ID=\"13\"\nID=debian\n"), "debian 13");
        assert_eq!(distribution(""), "");
    }
}
