//! A Docker engine of one test's own, which may be stopped, killed and started again without harm to anybody else's. It
//! has a network namespace of its own: engines make, and remove, bridges under names that they share.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long an engine may take to start or to end on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) struct OwnEngine {
    dir: TempDir,
    live_restore: bool,
    process: Child,
}

impl OwnEngine {
    /// Starts it; `None` where this cannot be done.
    pub(crate) fn start(live_restore: bool) -> Option<Self> {
        let there = Command::new("dockerd").arg("--version").stdout(Stdio::null()).status();
        if !rustix::process::geteuid().is_root() || !there.is_ok_and(|status| status.success()) {
            return None;
        }
        let dir = tempfile::Builder::new().prefix("wl-dockerd-").tempdir().unwrap();
        let named = Command::new("ip").args(["netns", "add", &netns(dir.path())]).status();
        if !named.is_ok_and(|status| status.success()) {
            return None;
        }
        let process = launch(dir.path(), live_restore);
        let engine = Self { dir, live_restore, process };
        engine.until_answers();
        Some(engine)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("sock")
    }

    pub(crate) fn docker(&self) -> Command {
        let mut docker = Command::new("docker");
        docker.arg("-H").arg(format!("unix://{}", self.socket().display()));
        docker
    }

    /// Whether it answers in time.
    fn answers(&self) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < LIMIT {
            if self.docker().arg("version").output().is_ok_and(|output| output.status.success()) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    }

    fn until_answers(&self) {
        let log = || fs::read_to_string(self.dir.path().join("log")).unwrap();
        assert!(self.answers(), "the test's engine does not start: {}", log());
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// It is there, and does nothing.
    pub(crate) fn hang(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGKILL; its containers run on.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.process.wait().unwrap();
        self.until_alone();
    }

    /// Waits until the engine's own containerd is gone, which dies with it a moment later: an engine that starts before
    /// would take it for one that serves.
    fn until_alone(&self) {
        let Ok(pid) = fs::read_to_string(self.dir.path().join("exec/containerd/containerd.pid")) else { return };
        let (begun, process) = (Instant::now(), Path::new("/proc").join(pid.trim()));
        while process.exists() {
            assert!(begun.elapsed() < LIMIT, "containerd {pid} lives on");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGTERM, and waits for its end.
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::TERM);
        self.process.wait().unwrap();
        self.until_alone();
    }

    /// Starts it again where it was.
    pub(crate) fn start_again(&mut self) {
        self.process = launch(self.dir.path(), self.live_restore);
        self.until_answers();
    }
}

impl Drop for OwnEngine {
    /// Everything of it goes: containers, processes, mounts, networks.
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.process), Signal::CONT);
        if !matches!(self.process.try_wait(), Ok(None)) {
            self.process = launch(self.dir.path(), self.live_restore);
        }
        // Where it does not, the rest goes all the same.
        let _ = self.answers();
        let ids = self.docker().args(["ps", "-aq"]).output().map(|out| out.stdout).unwrap_or_default();
        for id in String::from_utf8_lossy(&ids).lines() {
            let _ = self.docker().args(["rm", "-f", id]).stdout(Stdio::null()).status();
        }
        let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
        let _ = self.process.wait();
        let root = self.dir.path().display().to_string();
        for pid in crate::kit::processes_with(&root) {
            let _ = kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL);
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        for mount in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)).filter(|at| at.starts_with(&root)) {
            let _ = Command::new("umount").args(["-l", mount]).status();
        }
        // With its bridges.
        let _ = Command::new("ip").args(["netns", "del", &netns(self.dir.path())]).status();
    }
}

/// The name of its network namespace.
fn netns(dir: &Path) -> String {
    dir.file_name().unwrap().to_string_lossy().into_owned()
}

fn launch(dir: &Path, live_restore: bool) -> Child {
    let log = File::options().create(true).append(true).open(dir.join("log")).unwrap();
    let at = |name: &str| dir.join(name).display().to_string();
    // Of all namespaces only this one: `ip netns exec` would hide the engine's mounts from the next one.
    let mut dockerd = Command::new("nsenter");
    dockerd.arg(format!("--net=/run/netns/{}", netns(dir))).arg("dockerd");
    dockerd.args(["--data-root", &at("data"), "--exec-root", &at("exec"), "--pidfile", &at("pid")]);
    dockerd.args(["-H", &format!("unix://{}", at("sock")), "--iptables=false", "--ip-forward=false"]);
    // Where a containerd of the machine serves both engines, each has names of its own.
    let namespace = netns(dir);
    dockerd.args(["--containerd-namespace", &namespace, "--containerd-plugins-namespace", &format!("{namespace}-p")]);
    dockerd.arg(format!("--live-restore={live_restore}"));
    dockerd.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}
