//! A test's world: a directory of its own in which everything happens, and the end of every process that knows of it.

use std::cell::{Cell, RefCell};
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::Command;

use super::process::{Exit, Process};
use super::wait::within;

/// No test takes longer; nextest's own limit is behind this one, and would tell less.
const TEST_LIMIT: Duration = Duration::from_secs(220);

/// Lines of each process's log that are shown when a test fails.
const SHOWN_LINES: usize = 60;

/// A test's directory, and what runs in it.
#[derive(Debug)]
pub struct World {
    dir: Option<TempDir>,
    root: PathBuf,
    numbered: Cell<u32>,
    mounts: RefCell<Vec<PathBuf>>,
    failed: Cell<bool>,
}

/// What a command of the CLI came to.
#[derive(Debug, Clone)]
pub struct Ran {
    /// How it ended.
    pub exit: Exit,
    /// Its data.
    pub stdout: String,
    /// Its talk.
    pub stderr: String,
}

impl Ran {
    /// Whether it ended with this code; what it said is the error.
    ///
    /// # Errors
    /// It ended otherwise.
    pub fn code(self, wanted: i32) -> Result<Self> {
        ensure!(
            self.exit == Exit::Code(wanted),
            "it ended with {:?}, not {wanted}\nstdout: {}\nstderr: {}",
            self.exit,
            self.stdout,
            self.stderr
        );
        Ok(self)
    }
}

/// Runs a test in a world of its own; shows what its processes said if it fails.
///
/// # Errors
/// The test's own, and where a world cannot be made.
pub fn test(body: impl AsyncFnOnce(&World) -> Result<()>) -> Result<()> {
    // Whichever test of this process comes first installs it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let world = World::new()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(async { within("the test's end", TEST_LIMIT, body(&world)).await });
    let result = result.and_then(|result| result);
    world.failed.set(result.is_err());
    drop(runtime);
    drop(world);
    result
}

impl World {
    /// An empty world.
    ///
    /// # Errors
    /// No directory can be made.
    pub fn new() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("wl-").tempdir()?;
        let root = dir.path().canonicalize()?;
        // Jobs run as other users, whose workspaces are in here.
        fs::set_permissions(&root, Permissions::from_mode(0o711))?;
        for name in ["home", "run", "logs"] {
            DirBuilder::new().mode(0o700).create(root.join(name))?;
        }
        // Where root's jobs could not pass its home, its data would lie in the system's place, outside of this world.
        fs::set_permissions(root.join("home"), Permissions::from_mode(0o711))?;
        Ok(Self { dir: Some(dir), root, numbered: Cell::new(0), mounts: RefCell::default(), failed: Cell::new(false) })
    }

    /// The directory of all.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where processes' output is kept.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// A place in the world, not yet made.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// A directory that every user may write to, as `/tmp` is.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn shared_dir(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::create_dir(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o1777))?;
        Ok(path)
    }

    /// A file that every user may append to.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn shared_file(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, "")?;
        fs::set_permissions(&path, Permissions::from_mode(0o666))?;
        Ok(path)
    }

    /// A directory that nobody can write to, root neither.
    ///
    /// # Errors
    /// It cannot be mounted.
    pub async fn read_only(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::create_dir(&path)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "ro,mode=0711", "tmpfs"]).arg(&path);
        run("mount", mount, Duration::from_secs(10)).await?.code(0)?;
        self.mounts.borrow_mut().push(path.clone());
        Ok(path)
    }

    /// A real ext4 of its own in a file, taken away at the end; `None` where there are no loop devices. Needs root.
    ///
    /// # Errors
    /// It cannot be made.
    pub async fn ext4_disk(&self, name: &str, mebibytes: u64) -> Result<Option<PathBuf>> {
        let (image, path) = (self.path(&format!("{name}.img")), self.path(name));
        fs::File::create_new(&image)?.set_len(mebibytes << 20)?;
        fs::create_dir(&path)?;
        let mut make = Command::new("/sbin/mkfs.ext4");
        // Nothing is held back for root, who the agents of most tests are.
        make.args(["-q", "-m", "0"]).arg(&image);
        run("mkfs.ext4", make, Duration::from_secs(30)).await?.code(0)?;
        let mut free = Command::new("/sbin/losetup");
        free.arg("--find");
        if run("losetup", free, Duration::from_secs(10)).await?.exit != Exit::Code(0) {
            return Ok(None);
        }
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop"]).args([&image, &path]);
        run("mount", mount, Duration::from_secs(10)).await?.code(0)?;
        self.mounts.borrow_mut().push(path.clone());
        fs::set_permissions(&path, Permissions::from_mode(0o711))?;
        Ok(Some(path))
    }

    /// The program under test where every user can reach it, wherever the repository lies.
    ///
    /// # Errors
    /// It was not built, or cannot be copied.
    pub fn binary_for_all(&self) -> Result<PathBuf> {
        let (built, path) = (binary()?, self.path("windlass"));
        if !path.exists() && fs::hard_link(&built, &path).is_err() {
            fs::copy(&built, &path)?;
        }
        fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        Ok(path)
    }

    /// Numbers agents, so that their slots' users differ, and commands.
    pub(crate) fn next_number(&self) -> u32 {
        let next = self.numbered.get();
        self.numbered.set(next + 1);
        next
    }

    /// The program under test with this world's environment and nothing else of the caller's.
    ///
    /// # Errors
    /// It was not built.
    pub fn windlass<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Result<Command> {
        let mut command = Command::new(binary()?);
        command.args(arguments);
        self.dress(&mut command);
        Ok(command)
    }

    /// Gives a command this world's environment and nothing else of the caller's.
    pub fn dress(&self, command: &mut Command) {
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
        command
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.root.join("home"))
            .env("XDG_RUNTIME_DIR", self.root.join("run"))
            .env("LANG", "C.UTF-8")
            .env("NO_COLOR", "1")
            .env("WINDLASS_LOG", "info,windlass_agent=debug,windlass_coordinator=debug")
            .current_dir(&self.root);
    }

    /// Runs a command of the CLI to its end.
    ///
    /// # Errors
    /// It cannot be started, or runs beyond the deadline.
    pub async fn run<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
        deadline: Duration,
    ) -> Result<Ran> {
        // By way of files, so that what it said is shown if it does not end.
        let name = format!("cli-{}", self.next_number());
        let mut process = Process::start(self.windlass(arguments)?, &self.logs(), &name)?;
        let exit = process.ended(deadline).await?;
        Ok(Ran { exit, stdout: process.stdout()?, stderr: process.stderr()? })
    }

    /// The processes that know of this world, by their environment, their directory or their arguments.
    #[must_use]
    pub fn processes(&self) -> Vec<Pid> {
        let root = self.root.as_os_str().as_encoded_bytes();
        let own = rustix::process::getpid();
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        let pids = entries.filter_map(|entry| Pid::from_raw(entry.ok()?.file_name().to_str()?.parse().ok()?));
        pids.filter(|pid| *pid != own && knows(*pid, root)).collect()
    }

    fn end_everything(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let left = self.processes();
            if left.is_empty() {
                break;
            }
            ensure!(Instant::now() < deadline, "processes that do not end: {left:?}");
            for pid in left {
                // It may have ended meanwhile.
                let _ = kill_process(pid, Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.remove_workspaces_elsewhere()?;
        for mount in self.mounts.borrow_mut().drain(..) {
            let status = std::process::Command::new("umount").arg(&mount).status()?;
            ensure!(status.success(), "{} cannot be unmounted", mount.display());
        }
        Ok(())
    }

    /// An embedded agent of root's, whose data lies below a home that lets nobody through, has its workspaces elsewhere.
    fn remove_workspaces_elsewhere(&self) -> Result<()> {
        let Ok(work) = fs::read_link(self.root.join("home/.local/share/windlass/up/agent/work")) else { return Ok(()) };
        let ours = work.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"windlass-"));
        ensure!(ours && work.parent() == Some(Path::new("/var/tmp")), "workspaces at {}", work.display());
        match fs::remove_dir_all(&work) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn show_logs(&self) -> Result<()> {
        let mut err = std::io::stderr().lock();
        let mut paths: Vec<_> = fs::read_dir(self.logs())?.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        for path in paths {
            let text = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
            let lines: Vec<_> = text.lines().collect();
            let from = lines.len().saturating_sub(SHOWN_LINES);
            writeln!(err, "--- {} ({from} lines before)", path.display())?;
            for line in lines.get(from..).unwrap_or_default() {
                writeln!(err, "{line}")?;
            }
        }
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let failed = self.failed.get() || std::thread::panicking();
        if failed && self.show_logs().is_err() {
            // The test's own error is shown in any case.
        }
        let ended = self.end_everything();
        let keep = std::env::var_os("WINDLASS_KEEP_WORLD").is_some();
        if let Some(dir) = self.dir.take()
            && (keep || ended.is_err())
        {
            let path = dir.keep();
            let _ = writeln!(std::io::stderr(), "kept {}", path.display());
        }
        if let Err(error) = ended
            && !std::thread::panicking()
        {
            panic_of(&error);
        }
    }
}

/// A test that leaves something behind has failed.
#[allow(clippy::panic, reason = "a destructor has no other way to fail its test")]
fn panic_of(error: &anyhow::Error) -> ! {
    panic!("{error:#}")
}

fn knows(pid: Pid, root: &[u8]) -> bool {
    let proc = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    let within = |bytes: &[u8]| bytes.windows(root.len()).any(|window| window == root);
    // A zombie has ended; only its parent can bury it.
    let zombie = fs::read_to_string(proc.join("stat"))
        .ok()
        .and_then(|stat| Some(stat.rsplit_once(')')?.1.trim_start().starts_with('Z')))
        .unwrap_or(true);
    !zombie
        && (fs::read_link(proc.join("cwd")).is_ok_and(|cwd| within(cwd.as_os_str().as_encoded_bytes()))
            || fs::read(proc.join("environ")).is_ok_and(|environ| within(&environ))
            || fs::read(proc.join("cmdline")).is_ok_and(|arguments| within(&arguments)))
}

/// The program under test: beside this test's own executable.
///
/// # Errors
/// It was not built.
pub fn binary() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let beside = own.parent().and_then(Path::parent).context("this test is nowhere")?.join("windlass");
    ensure!(beside.exists(), "{} is missing: run `cargo build -p windlass` first", beside.display());
    Ok(beside)
}

/// The repository that this test was built from.
#[must_use]
pub fn repository() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// Runs a command to its end, with its output captured.
///
/// # Errors
/// It cannot be started, or runs beyond the deadline.
pub async fn run(what: &str, mut command: Command, deadline: Duration) -> Result<Ran> {
    command.stdin(std::process::Stdio::null()).kill_on_drop(true);
    let output = within(what, deadline, command.output()).await?.with_context(|| format!("{what} cannot be run"))?;
    Ok(Ran {
        exit: Exit::of(output.status),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
