//! Where things are on this machine: data directories, and the small file by which a server of the same user is found.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, geteuid, test_kill_process};
use serde::{Deserialize, Serialize};
use windlass_agent::config::DOCKER_SOCKET;
use windlass_protocol::host::write_private;

/// A server of this user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Server {
    /// Where it is reached.
    pub(crate) url: String,
    /// Its process.
    pub(crate) pid: i32,
    /// Its data directory, which has `api-token`.
    pub(crate) data: PathBuf,
}

/// The default data directory of a role (`up`, `coordinator`, `agent`), by the XDG rules. Jobs of an agent that is root
/// run as users of their own: where those cannot pass root's home, the system's place is taken.
pub(crate) fn data_dir(role: &str) -> PathBuf {
    let base = env_path("XDG_DATA_HOME").unwrap_or_else(|| home().join(".local/share"));
    let system = geteuid().is_root() && closed_directory(&base).is_some();
    let base = if system { PathBuf::from("/var/lib") } else { base };
    base.join("windlass").join(role)
}

/// The first directory on the way to a path, itself included, that other users cannot pass.
pub(crate) fn closed_directory(path: &Path) -> Option<PathBuf> {
    let closed = |dir: &&Path| fs::metadata(dir).is_ok_and(|found| found.is_dir() && found.mode() & 0o001 == 0);
    path.ancestors().collect::<Vec<_>>().into_iter().rev().find(closed).map(Path::to_owned)
}

/// The socket of the machine's container engine: `DOCKER_HOST` where it names one, as Docker's own tools do, then the
/// configuration. An engine on another machine is of no use to an agent, which shares files with its containers.
pub(crate) fn engine_socket(configured: Option<PathBuf>) -> PathBuf {
    let named = std::env::var("DOCKER_HOST").ok();
    let named = named.as_deref().and_then(|host| host.strip_prefix("unix://")).map(PathBuf::from);
    named.or(configured).unwrap_or_else(|| DOCKER_SOCKET.into())
}

/// The cache directory of this program.
pub(crate) fn cache_dir() -> PathBuf {
    env_path("XDG_CACHE_HOME").unwrap_or_else(|| home().join(".cache")).join("windlass")
}

/// The configuration directory of this program.
pub(crate) fn config_dir() -> PathBuf {
    env_path("XDG_CONFIG_HOME").unwrap_or_else(|| home().join(".config")).join("windlass")
}

fn home() -> PathBuf {
    env_path("HOME").unwrap_or_else(|| PathBuf::from("/"))
}

fn env_path(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The user's own runtime directory; one of ours in the temporary directory where the system has none.
fn runtime_dir() -> io::Result<PathBuf> {
    let dir = match env_path("XDG_RUNTIME_DIR") {
        Some(dir) => dir.join("windlass"),
        None => std::env::temp_dir().join(format!("windlass-{}", geteuid().as_raw())),
    };
    match DirBuilder::new().recursive(true).mode(0o700).create(&dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(&dir)?;
    // Another user could have made it first in a shared directory, to be believed.
    if found.uid() != geteuid().as_raw() || !found.is_dir() || found.mode() & 0o077 != 0 {
        let text = format!("{} is not this user's own directory", dir.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(dir)
}

/// The file that tells of a server, removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Announcement(PathBuf);

impl Announcement {
    /// Tells of a server on this port.
    pub(crate) fn new(port: u16, server: &Server) -> io::Result<Self> {
        let path = runtime_dir()?.join(format!("{port}.json"));
        write_private(&path, &serde_json::to_vec(server)?)?;
        Ok(Self(path))
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        // A file that stays names a process that is gone, and is removed by who finds it.
        let _ = fs::remove_file(&self.0);
    }
}

/// The servers of this user that live; what dead ones left is removed.
pub(crate) fn servers() -> Vec<Server> {
    let Ok(entries) = runtime_dir().and_then(fs::read_dir) else { return Vec::new() };
    let mut found: Vec<Server> = entries.filter_map(|entry| read(&entry.ok()?.path())).collect();
    found.sort_by(|a, b| a.url.cmp(&b.url));
    found
}

/// The file that is locked by whoever uses a server: shared by clients, for itself by a server that is to end.
pub(crate) fn use_lock(data: &Path) -> io::Result<File> {
    let path = data.join("in-use.lock");
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Says that a server is in use, for as long as the answer lives; `None` where it is about to end.
pub(crate) fn use_server(data: &Path) -> Option<File> {
    let lock = use_lock(data).ok()?;
    flock(&lock, FlockOperation::NonBlockingLockShared).is_ok().then_some(lock)
}

fn read(path: &Path) -> Option<Server> {
    if path.extension().is_none_or(|extension| extension != "json") {
        return None;
    }
    let server: Server = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let alive = Pid::from_raw(server.pid).is_some_and(|pid| test_kill_process(pid).is_ok());
    if !alive {
        // Best effort: another reader may have removed it.
        let _ = fs::remove_file(path);
        return None;
    }
    Some(server)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_directory_that_other_users_cannot_pass_is_found_on_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let set = |mode| fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
        set(0o700);
        assert_eq!(closed_directory(&dir.path().join("a/b")), Some(dir.path().to_owned()));
        set(0o711);
        assert_eq!(closed_directory(&dir.path().join("a/b")), None);
    }
}
