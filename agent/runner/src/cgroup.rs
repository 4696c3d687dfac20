//! Control groups of jobs: v2, v1, or both beside each other as on hybrid machines. Where nothing is writable there
//! are none, and the supervisor follows the job's processes by their parents.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use rustix::process::Pid;
use windlass_protocol::id::AttemptId;
use windlass_protocol::limits::JOB_PROCESSES_MAX;

/// Memory that may still be charged to a group that a next job gets, which then begins with it: what the kernel frees a moment
/// later, and what it counts in advance for each processor.
const KEPT_MEMORY_MAX_BYTES: u64 = 1 << 20;

/// The directory of ours within a hierarchy.
const OURS: &str = "windlass";

/// What of the machine's control groups can be used for jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cgroups {
    /// Our directory in the unified hierarchy: kills whole jobs, and limits them where it has the controllers.
    unified: Option<PathBuf>,
    /// The unified hierarchy's controllers that our directory's children have.
    controllers: Vec<String>,
    /// Our directories in v1 hierarchies, by controller.
    v1: Vec<(Controller, PathBuf)>,
}

/// What we limit or count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Controller {
    Memory,
    Pids,
    Cpu,
}

impl Controller {
    const ALL: [Self; 3] = [Self::Memory, Self::Pids, Self::Cpu];

    const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu => "cpu",
        }
    }
}

/// What one job may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Bytes, 0 for no limit.
    pub memory_bytes: u64,
    /// Thousandths of a processor as a weight among jobs, 0 for the default weight.
    pub cpu_millis: u64,
}

impl fmt::Display for Cgroups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v1: Vec<&str> = self.v1.iter().map(|(controller, _)| controller.name()).collect();
        match (&self.unified, v1.is_empty()) {
            (None, true) => f.write_str("none (no control group is writable: limits are not enforced)"),
            (Some(_), true) => write!(f, "v2 ({})", self.controllers.join(" ")),
            (None, false) => write!(f, "v1 ({})", v1.join(" ")),
            (Some(_), false) => write!(f, "hybrid (v1: {}; v2 kills)", v1.join(" ")),
        }
    }
}

impl Cgroups {
    /// Looks at the machine and makes our directories in every hierarchy that lets us, below this process's own
    /// group, so that what limits the agent as a whole limits its jobs too.
    #[must_use]
    pub fn detect() -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self::of(&mounts, &own)
    }

    /// The same for a machine with these mounts (as `/proc/self/mounts` has them) and for a process of these groups (as
    /// `/proc/self/cgroup` has them).
    fn of(mounts: &str, own: &str) -> Self {
        let mut found = Self::default();
        for line in mounts.lines() {
            let mut fields = line.split(' ').skip(1);
            let (Some(mount), Some(kind), Some(options)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            match kind {
                "cgroup2" => found.use_unified(Path::new(mount), own),
                "cgroup" => found.use_v1(Path::new(mount), options, own),
                _ => {}
            }
        }
        found
    }

    fn use_unified(&mut self, mount: &Path, own: &str) {
        let path = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
        // After a restart the agent may find itself in the leaf that its predecessor made for it.
        let path = path.strip_suffix("/windlass-agent").unwrap_or(path);
        let parent = join(mount, path);
        let base = parent.join(OURS);
        if self.unified.is_some() || make_dir(&base).is_err() {
            return;
        }
        let wanted: Vec<String> = words(&parent.join("cgroup.controllers"))
            .into_iter()
            .filter(|have| Controller::ALL.iter().any(|controller| controller.name() == have))
            .collect();
        for name in &wanted {
            if enable(&parent, name).is_err() && step_aside(&parent).is_ok() {
                // A second refusal shows in what the children have, read below.
                drop(enable(&parent, name));
            }
            drop(enable(&base, name));
        }
        let enabled = words(&base.join("cgroup.subtree_control"));
        self.controllers = wanted.into_iter().filter(|name| enabled.contains(name)).collect();
        self.unified = Some(base);
    }

    fn use_v1(&mut self, mount: &Path, options: &str, own: &str) {
        for controller in Controller::ALL {
            let has = |list: &str| list.split(',').any(|name| name == controller.name());
            if !has(options) || self.v1.iter().any(|(known, _)| *known == controller) {
                continue;
            }
            let own_path = own.lines().find_map(|line| {
                let (_, rest) = line.split_once(':')?;
                let (names, path) = rest.split_once(':')?;
                has(names).then_some(path)
            });
            let base = join(mount, own_path.unwrap_or("/")).join(OURS);
            if make_dir(&base).is_ok() {
                self.v1.push((controller, base));
            }
        }
    }

    /// Whether jobs' memory can be limited and its peak read.
    #[must_use]
    pub fn limits_memory(&self) -> bool {
        self.has_v2(Controller::Memory) || self.v1.iter().any(|(controller, _)| *controller == Controller::Memory)
    }

    fn has_v2(&self, controller: Controller) -> bool {
        self.controllers.iter().any(|name| name == controller.name())
    }

    /// The groups of one attempt, with its limits.
    ///
    /// # Errors
    /// Those of the file system; then nothing is left behind.
    pub(crate) fn create(&self, attempt: AttemptId, limits: &Limits) -> io::Result<JobCgroup> {
        let mut job = JobCgroup { limits: *limits, ..JobCgroup::default() };
        let made = self.make(attempt, limits, &mut job);
        if made.is_err() {
            job.remove_now();
        }
        made.map(|()| job)
    }

    /// The groups that are there under an attempt's name, whoever made them; none where there are none.
    pub(crate) fn left_by(&self, attempt: AttemptId) -> JobCgroup {
        let name = attempt.to_string();
        let there = |base: &PathBuf| Some(base.join(&name)).filter(|dir| dir.is_dir());
        JobCgroup {
            unified: self.unified.as_ref().and_then(there),
            v1: self.v1.iter().filter_map(|(_, base)| there(base)).collect(),
            ..JobCgroup::default()
        }
    }

    fn make(&self, attempt: AttemptId, limits: &Limits, job: &mut JobCgroup) -> io::Result<()> {
        let name = attempt.to_string();
        if let Some(base) = &self.unified {
            let dir = base.join(&name);
            fs::create_dir(&dir)?;
            job.unified = Some(dir.clone());
            if self.has_v2(Controller::Memory) {
                job.memory = Some(Memory::V2(dir.clone()));
                limit_memory_v2(&dir, limits.memory_bytes)?;
            }
            if self.has_v2(Controller::Pids) {
                job.counts_processes = true;
                fs::write(dir.join("pids.max"), JOB_PROCESSES_MAX.to_string())?;
            }
            if self.has_v2(Controller::Cpu) && limits.cpu_millis > 0 {
                fs::write(dir.join("cpu.weight"), (limits.cpu_millis / 10).clamp(1, 10_000).to_string())?;
            }
        }
        for (controller, base) in &self.v1 {
            if self.has_v2(*controller) || (*controller == Controller::Cpu && limits.cpu_millis == 0) {
                continue;
            }
            let dir = base.join(&name);
            fs::create_dir(&dir)?;
            job.v1.push(dir.clone());
            match controller {
                Controller::Memory => {
                    job.memory = Some(Memory::V1(dir.clone()));
                    limit_memory_v1(&dir, limits.memory_bytes)?;
                }
                Controller::Pids => {
                    job.counts_processes = true;
                    fs::write(dir.join("pids.max"), JOB_PROCESSES_MAX.to_string())?;
                }
                Controller::Cpu => {
                    let shares = limits.cpu_millis.saturating_mul(1_024) / 1_000;
                    fs::write(dir.join("cpu.shares"), shares.clamp(2, 262_144).to_string())?;
                }
            }
        }
        Ok(())
    }
}

fn limit_memory_v1(dir: &Path, bytes: u64) -> io::Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    fs::write(dir.join("memory.limit_in_bytes"), bytes.to_string())?;
    let with_swap = dir.join("memory.memsw.limit_in_bytes");
    if with_swap.exists() { fs::write(with_swap, bytes.to_string()) } else { Ok(()) }
}

fn limit_memory_v2(dir: &Path, bytes: u64) -> io::Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    fs::write(dir.join("memory.max"), bytes.to_string())?;
    let swap = dir.join("memory.swap.max");
    if swap.exists() { fs::write(swap, "0") } else { Ok(()) }
}

/// Where a job's memory is counted.
#[derive(Debug, Clone)]
enum Memory {
    V1(PathBuf),
    V2(PathBuf),
}

/// The control groups of one job.
#[derive(Debug, Clone, Default)]
pub(crate) struct JobCgroup {
    unified: Option<PathBuf>,
    v1: Vec<PathBuf>,
    memory: Option<Memory>,
    pub(crate) counts_processes: bool,
    limits: Limits,
}

impl JobCgroup {
    /// Groups that a supervisor left behind, as its `started` file names them.
    pub(crate) fn from_dirs(dirs: &[PathBuf]) -> Self {
        let (unified, v1) = dirs.iter().cloned().partition(|dir: &PathBuf| dir.join("cgroup.events").exists());
        Self { unified: Vec::into_iter(unified).next(), v1, ..Self::default() }
    }

    pub(crate) fn dirs(&self) -> Vec<PathBuf> {
        self.unified.iter().chain(&self.v1).cloned().collect()
    }

    /// What a fork enters at birth.
    pub(crate) fn birth(&self) -> Option<OwnedFd> {
        self.unified.as_ref().and_then(|dir| File::open(dir).ok()).map(OwnedFd::from)
    }

    /// What a child writes itself into.
    pub(crate) fn tasks(&self) -> io::Result<Vec<OwnedFd>> {
        let open = |dir: &PathBuf| fs::OpenOptions::new().write(true).open(dir.join("tasks")).map(OwnedFd::from);
        self.v1.iter().map(open).collect()
    }

    /// Kills all that is within. Processes that are being forked meanwhile are caught by `cgroup.kill`, or next time.
    pub(crate) fn kill(&self) {
        if let Some(dir) = &self.unified
            && fs::write(dir.join("cgroup.kill"), "1").is_ok()
        {
            return;
        }
        for pid in self.processes() {
            // One that ended meanwhile is what was wanted.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }

    /// The processes within, by any of the hierarchies.
    pub(crate) fn processes(&self) -> Vec<Pid> {
        let mut found = Vec::new();
        for dir in self.unified.iter().chain(&self.v1) {
            found.extend(words(&dir.join("cgroup.procs")).iter().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)));
        }
        found.sort_unstable_by_key(|pid| pid.as_raw_nonzero());
        found.dedup();
        found
    }

    pub(crate) fn peak_memory_bytes(&self) -> Option<u64> {
        let path = match self.memory.as_ref()? {
            Memory::V1(dir) => dir.join("memory.max_usage_in_bytes"),
            Memory::V2(dir) => dir.join("memory.peak"),
        };
        number(&path)
    }

    /// How many of the job's processes the kernel ended for want of memory.
    pub(crate) fn oom_kills(&self) -> u64 {
        let path = match &self.memory {
            Some(Memory::V1(dir)) => dir.join("memory.oom_control"),
            Some(Memory::V2(dir)) => dir.join("memory.events"),
            None => return 0,
        };
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok()).unwrap_or(0)
    }

    /// Whether a next job could not tell these from new ones, once [`Self::begin_again`] has been called: nothing is in
    /// them, and nothing that they count lasts. What v2 counts does: its peak and its kills cannot be set back everywhere.
    pub(crate) fn is_as_new(&self) -> bool {
        let counts_nothing = match &self.memory {
            None => true,
            Some(Memory::V1(dir)) => {
                number(&dir.join("memory.usage_in_bytes")).is_some_and(|bytes| bytes <= KEPT_MEMORY_MAX_BYTES)
                    && self.oom_kills() == 0
            }
            Some(Memory::V2(_)) => false,
        };
        // A process is in the groups of all hierarchies or of none.
        let one = self.unified.iter().chain(&self.v1).next();
        counts_nothing
            && one.is_some_and(|dir| fs::read(dir.join("cgroup.procs")).is_ok_and(|processes| processes.is_empty()))
    }

    /// Makes kept groups a next job's; says whether that can be: only for the same limits, where nothing took them away.
    pub(crate) fn begin_again(&mut self, limits: &Limits) -> bool {
        let peak_is_back = match &self.memory {
            Some(Memory::V1(dir)) => fs::write(dir.join("memory.max_usage_in_bytes"), "0").is_ok(),
            None => true,
            Some(Memory::V2(_)) => false,
        };
        peak_is_back && self.limits == *limits && self.unified.iter().chain(&self.v1).all(|dir| dir.is_dir())
    }

    /// Removes the groups; says whether all are gone, which they are once every process within is.
    pub(crate) fn remove_now(&mut self) -> bool {
        let gone = |dir: &PathBuf| match fs::remove_dir(dir) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        self.v1.retain(|dir| !gone(dir));
        if self.unified.as_ref().is_some_and(gone) {
            self.unified = None;
        }
        self.v1.is_empty() && self.unified.is_none()
    }
}

fn join(mount: &Path, within: &str) -> PathBuf {
    // A path that leads out of this namespace's root is not reachable; the mount's root then is what we have.
    if within.contains("..") { mount.to_owned() } else { mount.join(within.trim_start_matches('/')) }
}

fn make_dir(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => other?,
    }
    // Being there is not enough: a read-only mount shows it too.
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK).map_err(io::Error::from)
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn words(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

fn enable(dir: &Path, controller: &str) -> io::Result<()> {
    if words(&dir.join("cgroup.subtree_control")).iter().any(|have| have == controller) {
        return Ok(());
    }
    fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"))
}

/// Moves the processes of `parent` into a leaf: v2 gives no controllers to a group whose parent holds processes.
fn step_aside(parent: &Path) -> io::Result<()> {
    let leaf = parent.join("windlass-agent");
    make_dir(&leaf)?;
    for pid in words(&parent.join("cgroup.procs")) {
        fs::write(leaf.join("cgroup.procs"), pid)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
