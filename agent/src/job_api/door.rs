//! An attempt's socket: where it lies, who may come, and how many at once.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{AtFlags, Gid, Mode, Uid, chmodat, chownat};
use rustix::process::geteuid;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use windlass_agent_runner::launch::User;
use windlass_protocol::AttemptId;
use windlass_protocol::job::JobSpec;
use windlass_protocol::limits::JOB_CONNECTIONS_MAX;

use super::command::answer;
use super::{Account, Changes, Masking, Shared};
use crate::home::ensure_dir;
use crate::right::Right;

/// The socket's name in its directory.
const SOCKET: &str = "job.sock";

/// After a connection that could not be taken, for want of descriptors: others will give some back.
const PAUSE: Duration = Duration::from_millis(100);

/// The attempt whose door it is, as its commands see it.
#[derive(Debug)]
pub(crate) struct Party {
    /// The job.
    pub(crate) spec: Arc<JobSpec>,
    /// By which right it is held.
    pub(crate) right: Arc<Right>,
    /// Who its processes run as; `None` is who the agent is.
    pub(crate) user: Option<User>,
    /// What its commands have changed for its next phases.
    pub(crate) changes: Arc<Changes>,
    /// Its mask.
    pub(crate) masking: Masking,
    /// What its commands may hold and do at once.
    pub(crate) account: Account,
}

/// Where the parts of a door are.
#[derive(Debug, Clone)]
pub(super) struct Places {
    /// Lets pass who may come.
    outer: PathBuf,
    /// What a container sees.
    pub(super) inner: PathBuf,
}

impl Places {
    pub(super) fn of(doors: &Path, attempt: AttemptId) -> Self {
        let outer = doors.join(attempt.to_string());
        Self { inner: outer.join("in"), outer }
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.inner.join(SOCKET)
    }
}

/// An open door. Dropped, nobody is served any more; what lies on disk stays for the agent's next run.
#[derive(Debug)]
pub(crate) struct Door {
    places: Places,
    serving: AbortHandle,
}

impl Door {
    pub(super) fn open(doors: &Path, party: Party, shared: Arc<Shared>) -> io::Result<Self> {
        let places = Places::of(doors, party.spec.attempt);
        let in_image = party.spec.image.is_some();
        ensure_dir(&places.outer, if in_image { 0o700 } else { 0o711 })?;
        ensure_dir(&places.inner, 0o755)?;
        let listener = bind(&places.inner, party.user.filter(|_| !in_image), in_image)?;
        let serving = tokio::spawn(serve(listener, Arc::new(party), shared)).abort_handle();
        Ok(Self { places, serving })
    }

    /// The attempt is over: nobody comes any more.
    pub(crate) fn close(self) {
        self.serving.abort();
        if let Err(error) = fs::remove_dir_all(&self.places.outer)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.places.outer.display(), %error, "door_not_removed");
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Binds the socket in a directory that only the agent can change, so that its name means what was bound.
fn bind(dir: &Path, user: Option<User>, in_image: bool) -> io::Result<UnixListener> {
    let dir = File::open(dir)?;
    // Through a descriptor: a socket's path is short, a data directory's may be long.
    let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()));
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = StdListener::bind(&path)?;
    if let Some(user) = user {
        let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
        chownat(&dir, SOCKET, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    // An image may run as any user, and who is not in its container cannot come so far.
    let mode = if in_image { 0o666 } else { 0o600 };
    chmodat(&dir, SOCKET, Mode::from_raw_mode(mode), AtFlags::empty())?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Serves who comes, each in a task of its own; all of them end with this one.
async fn serve(listener: UnixListener, party: Arc<Party>, shared: Arc<Shared>) {
    let room = Arc::new(Semaphore::new(JOB_CONNECTIONS_MAX));
    let mut calls = JoinSet::new();
    loop {
        // Nobody closes it.
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        while calls.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(attempt = %party.spec.attempt, %error, "job_connection_not_taken");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        if !is_own(&stream, &party) {
            continue;
        }
        let (party, shared) = (Arc::clone(&party), Arc::clone(&shared));
        calls.spawn(async move {
            answer(stream, &party, &shared).await;
            drop(permit);
        });
    }
}

/// Whether a process of the attempt's own job is at the other end: the slot's user, or root, who may do all of this anyway.
/// In a container it may be any user; there the door itself keeps others out.
fn is_own(stream: &UnixStream, party: &Party) -> bool {
    let own = party.user.map_or_else(|| geteuid().as_raw(), |user| user.uid);
    match stream.peer_cred() {
        Ok(peer) if party.spec.image.is_some() || peer.uid() == own || peer.uid() == 0 => true,
        Ok(peer) => {
            tracing::warn!(attempt = %party.spec.attempt, uid = peer.uid(), "job_connection_of_a_stranger");
            false
        }
        Err(error) => {
            tracing::warn!(attempt = %party.spec.attempt, %error, "job_connection_unknown");
            false
        }
    }
}
