//! An attempt's socket: where it lies, who may come, and how many at once.
//!
//! The processes of one place come through one door, which stays from attempt to attempt: what makes it the attempt's own is
//! who serves it. A door is given on only when nobody serves it for the attempt before, and whoever came until then is sent
//! away unheard, for no process of the next attempt has begun. A container's door is its own.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{AtFlags, Gid, Mode, Uid, chmodat, chownat};
use rustix::process::geteuid;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedMutexGuard, Semaphore};
use tokio::task::{AbortHandle, JoinSet};
use windlass_agent_runner::Slot;
use windlass_agent_runner::launch::User;
use windlass_protocol::AttemptId;
use windlass_protocol::job::JobSpec;
use windlass_protocol::limits::{JOB_BACKLOG_MAX, JOB_CONNECTIONS_MAX};

use super::command::answer;
use super::{Account, Changes, Masking, Shared};
use crate::home::ensure_dir;
use crate::right::Right;
use crate::secrets::Secrets;

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
    /// Where its processes run, and as whom; no user is who the agent is.
    pub(crate) slot: Slot,
    /// What its commands have changed for its next phases.
    pub(crate) changes: Arc<Changes>,
    /// Its mask.
    pub(crate) masking: Masking,
    /// What it must not show.
    pub(crate) secrets: Secrets,
    /// What its commands may hold and do at once.
    pub(crate) account: Account,
}

/// Where the parts of a container's door are, and what else is one attempt's alone.
#[derive(Debug, Clone)]
pub(super) struct Places {
    /// Lets nobody pass; on the host, where there is no door in it, whoever knows a name in it.
    pub(super) outer: PathBuf,
    /// What the container sees.
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

/// Before the number of a place, in the name of its door's directory.
const SLOT: &str = "slot-";

/// Whether this is the name of a place's directory.
pub(super) fn is_slots(name: &str) -> bool {
    name.strip_prefix(SLOT).is_some_and(|number| number.parse::<u32>().is_ok())
}

/// The directory of a place's door.
fn slots_dir(doors: &Path, index: u32) -> PathBuf {
    doors.join(format!("{SLOT}{index}"))
}

/// The socket of a place's door.
pub(super) fn slots_socket(doors: &Path, index: u32) -> PathBuf {
    slots_dir(doors, index).join(SOCKET)
}

/// The listener of a place, once there is one. Whoever serves it holds the lock, until the moment from which it does not.
type Kept = Arc<tokio::sync::Mutex<Option<UnixListener>>>;

/// The doors of all places.
#[derive(Debug, Default)]
pub(super) struct Doors(Mutex<BTreeMap<u32, Kept>>);

impl Doors {
    fn of(&self, index: u32) -> Kept {
        Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(index).or_default())
    }
}

/// What a door's server listens to.
#[derive(Debug)]
enum Listening {
    /// The place's, which the next one is given.
    Slot(OwnedMutexGuard<Option<UnixListener>>),
    /// The attempt's own.
    Own(UnixListener),
}

impl Listening {
    fn listener(&self) -> Option<&UnixListener> {
        match self {
            Self::Slot(kept) => kept.as_ref(),
            Self::Own(listener) => Some(listener),
        }
    }
}

/// An open door. Dropped, nobody is served any more; what lies on disk stays for the agent's next run.
#[derive(Debug)]
pub(crate) struct Door {
    /// The attempt's own directory, if there is one.
    own: PathBuf,
    serving: AbortHandle,
}

impl Door {
    /// Opens an attempt's door before any of its processes begins, or again for those that an earlier run of this agent
    /// started. Waits until the attempt that had it before is served no more.
    pub(super) async fn open(doors: &Path, party: Party, shared: Arc<Shared>) -> io::Result<Self> {
        let places = Places::of(doors, party.spec.attempt);
        let listening = if party.spec.image.is_some() {
            ensure_dir(&places.outer, 0o700)?;
            ensure_dir(&places.inner, 0o755)?;
            // An image may run as any user, and who is not in its container cannot come so far.
            Listening::Own(bind(&places.inner, None, 0o666)?)
        } else {
            let mut kept = shared.doors.of(party.slot.index).lock_owned().await;
            match kept.as_ref() {
                Some(listener) => send_away(listener)?,
                None => {
                    let dir = slots_dir(doors, party.slot.index);
                    ensure_dir(&dir, 0o711)?;
                    *kept = Some(bind(&dir, party.slot.user, 0o600)?);
                }
            }
            Listening::Slot(kept)
        };
        let serving = tokio::spawn(serve(listening, Arc::new(party), shared)).abort_handle();
        Ok(Self { own: places.outer, serving })
    }

    /// The attempt is over: nobody comes any more.
    pub(crate) fn close(self) {
        self.serving.abort();
        if let Err(error) = fs::remove_dir_all(&self.own)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.own.display(), %error, "door_not_removed");
        }
    }
}

/// Ends the connections of those who came for an attempt that is over, unheard: what one of its processes said with its last
/// breath must not count as said by the next attempt.
fn send_away(listener: &UnixListener) -> io::Result<()> {
    for _ in 0..JOB_BACKLOG_MAX {
        match rustix::net::accept(listener) {
            Ok(late) => drop(late),
            Err(rustix::io::Errno::AGAIN) => return Ok(()),
            // One that is gone already.
            Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "processes of the place's user do not cease to connect"))
}

impl Drop for Door {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Binds the socket in a directory that only the agent can change, so that its name means what was bound.
fn bind(dir: &Path, user: Option<User>, mode: u32) -> io::Result<UnixListener> {
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
    chmodat(&dir, SOCKET, Mode::from_raw_mode(mode), AtFlags::empty())?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Serves who comes, each in a task of its own; all of them end with this one.
async fn serve(listening: Listening, party: Arc<Party>, shared: Arc<Shared>) {
    let Some(listener) = listening.listener() else { return };
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
    let own = party.slot.user.map_or_else(|| geteuid().as_raw(), |user| user.uid);
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
