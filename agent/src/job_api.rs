//! What jobs ask of their agent: one socket an attempt, and what comes through it (docs/design/016).
//!
//! The command in a job is a pair of hands (`windlass-hands`): it says how it was called and then obeys. Here is the
//! head: what a command means, and every file of the job that it needs, through those hands and never by itself.
//!
//! | module | owns |
//! | --- | --- |
//! | `door` | an attempt's socket: where it lies and who may come |
//! | `account` | what all of an attempt's commands may hold and do at once |
//! | `hands` | one command's program, as a client that is asked |
//! | `hashes` | what a file is known by |
//! | `changes` | the variables and the directory of a job's next phases |
//! | `coordinator` | asking the coordinator on behalf of a job |
//! | `masking` | values that a job has masked |
//! | `lock` | locks between the jobs of this agent |
//! | `artifact` | which files patterns mean |
//! | `flags` | command lines, read as the reference's command reads them |
//! | `command` | every command |
//!
//! In `work/` of the agent's home: `.bin/` has the program by both its names, for all jobs to run and none to change, and
//! `.doors/` has the sockets. Where the job is a container, it is `<attempt>/in/job.sock`, the directory above `in` lets nobody
//! pass, and `in` is mounted: whoever comes through is in that container. Else it is `slot-<number>/job.sock`, for one attempt
//! of that place after another; it is the slot's user's alone, and whoever comes is asked who it is. A restarted agent binds
//! sockets anew in the same directories, which containers keep. The plan of a job that runs in phases is the attempt's own:
//! `<attempt>/in/plan`, on the host `<attempt>/plan`, and goes with the attempt.

mod account;
mod artifact;
mod changes;
mod command;
mod coordinator;
mod door;
mod flags;
mod hands;
mod hashes;
mod known;
mod lock;
mod masking;
#[cfg(test)]
pub(crate) mod tests;

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quinn::Connection;
use tokio::sync::watch;
use windlass_agent_runner::Slot;
use windlass_hands::plan::Plan;
use windlass_hands::{BOOTSTRAP, NAMES, PROGRAM, SOCKET_VARIABLE};
use windlass_protocol::AttemptId;
use windlass_protocol::job::JobSpec;
use windlass_protocol::message::{AskRefused, Asked, Told};

pub(crate) use self::account::Account;
pub(crate) use self::changes::{Changes, is_protected};
use self::coordinator::Coordinator;
pub(crate) use self::door::{Door, Party};
use self::door::{Doors, Places, is_slots, slots_socket};
use self::lock::Locks;
pub(crate) use self::masking::{Answers, Masking};
use crate::bulk::Bulk;
use crate::environment::PATH;
use crate::home::{Home, ensure_dir};
use crate::right::Right;

/// The name of an attempt's plan in its directory.
const PLAN: &str = "plan";

/// What all attempts of an agent share.
#[derive(Debug)]
pub(crate) struct JobApi {
    programs: PathBuf,
    doors: PathBuf,
    shared: Arc<Shared>,
}

/// What commands of different jobs share.
#[derive(Debug)]
struct Shared {
    locks: Locks,
    coordinator: Coordinator,
    doors: Doors,
    bulk: Arc<Bulk>,
}

impl JobApi {
    /// Lays out the program and the place for doors. `link` is the connection that there is, `bulk` the way of blobs.
    pub(crate) fn new(home: &Home, link: watch::Receiver<Option<Connection>>, bulk: Arc<Bulk>) -> io::Result<Self> {
        let (programs, doors) = (home.work().join(".bin"), home.work().join(".doors"));
        ensure_dir(&programs, 0o755)?;
        ensure_dir(&doors, 0o711)?;
        for name in NAMES.into_iter().chain([BOOTSTRAP]) {
            lay(&programs, name)?;
        }
        let shared =
            Shared { locks: Locks::default(), coordinator: Coordinator::new(link), doors: Doors::default(), bulk };
        Ok(Self { programs, doors, shared: Arc::new(shared) })
    }

    /// The directories that a container of this attempt is to see.
    pub(crate) fn shown(&self, attempt: AttemptId) -> Vec<PathBuf> {
        vec![self.programs.clone(), Places::of(&self.doors, attempt).inner]
    }

    /// What a job's variables need so that it finds the command, and the command its agent.
    pub(crate) fn variables(&self, spec: &JobSpec, slot: Slot, env: &mut Vec<(String, String)>) {
        let programs = self.programs.to_string_lossy().into_owned();
        let socket = match spec.image {
            Some(_) => Places::of(&self.doors, spec.attempt).socket(),
            None => slots_socket(&self.doors, slot.index),
        };
        if spec.image.is_none() {
            let path = env.iter().find(|(name, _)| name == "PATH").map_or(PATH, |(_, value)| value);
            let path = format!("{programs}:{path}");
            set(env, "PATH", path);
        }
        set(env, "BUILDKITE_BIN_PATH", programs);
        set(env, SOCKET_VARIABLE, socket.to_string_lossy().into_owned());
    }

    /// Asks the coordinator by the right to an attempt, for the job itself and not for one of its commands.
    pub(crate) async fn ask_for(&self, attempt: AttemptId, right: &Right, what: Asked) -> Told {
        let mut call = [0; 16];
        if let Err(error) = getrandom::fill(&mut call) {
            return Told::Refused { code: AskRefused::Unavailable, detail: error.to_string() };
        }
        self.shared.coordinator.ask(attempt, right, call, what, &[]).await
    }

    /// Lays out the plan of an attempt whose door is open; what starts its job. In a container the door's directory is for
    /// who is in it. On the host the plan is for the slot's user alone, in a directory of the attempt's: a later attempt of
    /// the place finds no plan but its own. It goes with the door.
    pub(crate) fn plan(&self, spec: &JobSpec, slot: Slot, plan: &Plan) -> io::Result<Vec<String>> {
        let places = Places::of(&self.doors, spec.attempt);
        let path = match spec.image {
            Some(_) => places.inner.join(PLAN),
            None => {
                ensure_dir(&places.outer, 0o711)?;
                places.outer.join(PLAN)
            }
        };
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(&path)?;
        file.write_all(&plan.encode().map_err(io::Error::other)?)?;
        let mode = match (&spec.image, slot.user) {
            (Some(_), _) => 0o444,
            (None, Some(user)) => {
                std::os::unix::fs::fchown(&file, None, Some(user.gid))?;
                0o440
            }
            // Who the agent is.
            (None, None) => 0o400,
        };
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        let text =
            |path: PathBuf| path.into_os_string().into_string().map_err(|_| io::Error::other("a path is no text"));
        Ok(vec![text(self.programs.join(BOOTSTRAP))?, text(path)?])
    }

    /// Opens an attempt's door; it stays open until it is closed or dropped.
    pub(crate) async fn open(&self, party: Party) -> io::Result<Door> {
        Door::open(&self.doors, party, Arc::clone(&self.shared)).await
    }

    /// Removes doors of attempts that are not in `kept`. Those of places stay: there are as many as there are slots.
    pub(crate) fn tidy(&self, kept: impl Fn(&str) -> bool) -> io::Result<()> {
        for entry in fs::read_dir(&self.doors)? {
            let entry = entry?;
            if !entry.file_name().to_str().is_some_and(|name| is_slots(name) || kept(name))
                && let Err(error) = fs::remove_dir_all(entry.path())
            {
                // Nobody listens there any more.
                tracing::warn!(path = %entry.path().display(), %error, "door_not_removed");
            }
        }
        Ok(())
    }
}

fn set(env: &mut Vec<(String, String)>, name: &str, value: String) {
    env.retain(|(other, _)| other != name);
    env.push((name.to_owned(), value));
}

/// Lays the program out, unless it is there already: what runs is replaced by a rename, never written over.
fn lay(dir: &Path, name: &str) -> io::Result<()> {
    let path = dir.join(name);
    if fs::read(&path).is_ok_and(|there| there == PROGRAM) {
        return fs::set_permissions(&path, fs::Permissions::from_mode(0o755));
    }
    let fresh = dir.join(format!("{name}.new"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o755).open(&fresh)?;
    file.write_all(PROGRAM)?;
    // Whatever the umask.
    file.set_permissions(fs::Permissions::from_mode(0o755))?;
    drop(file);
    fs::rename(&fresh, &path)
}
