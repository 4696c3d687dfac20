//! A runner in a directory of its own, and jobs for it.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use windlass_agent_runner::control::{Request, to_line};
use windlass_agent_runner::{Event, Runner, RunningJob, Slot, Spawner, Start};
use windlass_protocol::cause::{Cause, CauseKind};
use windlass_protocol::digest::Digest;
use windlass_protocol::id::{AttemptId, BuildId, JobId};
use windlass_protocol::job::{Epoch, JobSpec, Outcome, Resources, Source};
use windlass_protocol::limits::LOG_DEFAULT_LIMIT_BYTES;
use windlass_protocol::namespace::Namespace;

/// No test waits longer than this for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) const PROBE: &str = env!("CARGO_BIN_EXE_windlass-runner-probe");

pub(crate) struct Kit {
    pub(crate) dir: TempDir,
    pub(crate) runner: Runner,
}

pub(crate) fn attempt_id() -> AttemptId {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut bytes = [7; 16];
    let count = NEXT.fetch_add(1, Ordering::Relaxed);
    bytes[..4].copy_from_slice(&std::process::id().to_le_bytes());
    bytes[8..].copy_from_slice(&count.to_le_bytes());
    AttemptId::from_bytes(bytes)
}

pub(crate) fn job(command: &str) -> JobSpec {
    JobSpec {
        attempt: attempt_id(),
        attempt_number: 1,
        job: JobId::from_bytes([2; 16]),
        build: BuildId::from_bytes([3; 16]),
        build_number: 1,
        pipeline: "test".into(),
        step_key: None,
        label: "test".into(),
        command: command.into(),
        env: Vec::new(),
        image: None,
        source: Source::Empty,
        namespace: Namespace::trusted("test"),
        queue: "default".into(),
        timeout_ms: None,
        grace_ms: 5_000,
        resources: Resources::default(),
        exclusive: false,
        interruptible: false,
        tty: false,
        keep_workspace: false,
        log_limit_bytes: LOG_DEFAULT_LIMIT_BYTES,
    }
}

impl Kit {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let jobs = dir.path().join("jobs");
        fs::create_dir(&jobs).unwrap();
        let spawner = Spawner::start(Path::new(PROBE), &["spawner"]).unwrap();
        Self { runner: Runner::new(spawner, jobs), dir }
    }

    pub(crate) fn slot(&self) -> Slot {
        Slot::new(0, windlass_agent_runner::runner::SLOT_USER_BASE)
    }

    pub(crate) fn workspace(&self, job: &JobSpec) -> PathBuf {
        let path = self.dir.path().join(format!("work-{}", job.attempt));
        if !path.exists() {
            fs::create_dir(&path).unwrap();
            if let Some(user) = self.slot().user {
                chown(&path, Some(user.uid), Some(user.gid)).unwrap();
            }
        }
        path
    }

    pub(crate) async fn start(&self, job: &JobSpec) -> RunningJob {
        self.start_with(job, &[], u64::MAX / 2).await
    }

    pub(crate) async fn start_with(&self, job: &JobSpec, env: &[(&str, &str)], lease: u64) -> RunningJob {
        let workspace = self.workspace(job);
        self.runner.start(start(job, self.slot(), &workspace, env, lease)).await.unwrap()
    }

    pub(crate) async fn run(&self, job: &JobSpec) -> (Outcome, Vec<u8>) {
        let mut running = self.start(job).await;
        finish(&mut running).await
    }

    /// A file that the job wrote into its workspace.
    pub(crate) fn file(&self, job: &JobSpec, name: &str) -> Option<String> {
        fs::read_to_string(self.workspace(job).join(name)).ok()
    }
}

impl Drop for Kit {
    /// Jobs outlive their agents on purpose; those of a test that failed must not.
    fn drop(&mut self) {
        use std::io::Write;
        let kill = Request::Kill { cause: Cause::new(CauseKind::Canceled, "the test is over") };
        for entry in fs::read_dir(self.runner.jobs()).unwrap().flatten() {
            let dir = fs::File::open(entry.path()).unwrap();
            let path = format!("/proc/self/fd/{}/control.sock", dir.as_raw_fd());
            if let Ok(mut stream) = std::os::unix::net::UnixStream::connect(path) {
                let _ = stream.write_all(&to_line(&kill).unwrap());
                // Until it leaves.
                let _ = std::io::copy(&mut stream, &mut std::io::sink());
            }
        }
    }
}

pub(crate) fn start<'a>(
    job: &'a JobSpec,
    slot: Slot,
    workspace: &'a Path,
    env: &[(&str, &str)],
    lease: u64,
) -> Start<'a> {
    let mut env: Vec<(String, String)> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    env.push(("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into()));
    env.push(("WINDLASS_ATTEMPT_ID".into(), job.attempt.to_string()));
    Start {
        program: None,
        job,
        epoch: Epoch(1),
        slot,
        workspace,
        env,
        secrets: Vec::new(),
        shown: Vec::new(),
        preamble: String::new(),
        lease_deadline_boot_ms: lease,
    }
}

/// The outcome and the whole log, which agree.
pub(crate) async fn finish(running: &mut RunningJob) -> (Outcome, Vec<u8>) {
    let outcome = outcome(running).await;
    let log = read_log(running);
    assert_eq!((outcome.log_bytes, outcome.log_digest), (log.len() as u64, Digest::of(&log)));
    (outcome, log)
}

pub(crate) async fn outcome(running: &mut RunningJob) -> Outcome {
    loop {
        match event(running).await {
            Event::Finished(outcome) => return outcome,
            Event::SupervisorLost => panic!("the supervisor is gone without an outcome"),
            Event::Started { .. } | Event::Output { .. } | Event::Masked { .. } | Event::Stuck { .. } => {}
        }
    }
}

pub(crate) async fn event(running: &mut RunningJob) -> Event {
    tokio::time::timeout(DEADLINE, running.next_event()).await.expect("an event in time").unwrap()
}

pub(crate) fn read_log(running: &RunningJob) -> Vec<u8> {
    let (mut reader, mut log) = (running.log(), Vec::new());
    while let Some(chunk) = reader.next(log.len() as u64, usize::MAX).unwrap() {
        assert_eq!(chunk.offset, log.len() as u64);
        log.extend_from_slice(&chunk.bytes);
    }
    log
}

/// Waits until the log holds `text`.
pub(crate) async fn until_logged(running: &mut RunningJob, text: &str) {
    loop {
        let log = read_log(running);
        if String::from_utf8_lossy(&log).contains(text) {
            return;
        }
        match event(running).await {
            Event::Finished(outcome) => panic!("ended without saying {text:?}: {outcome:?}"),
            Event::SupervisorLost => panic!("lost without saying {text:?}"),
            Event::Started { .. } | Event::Output { .. } | Event::Masked { .. } | Event::Stuck { .. } => {}
        }
    }
}

/// Waits for something that nothing announces.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < DEADLINE, "{what} in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Processes that carry `mark` in their arguments.
pub(crate) fn processes_with(mark: &str) -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(mark)
    })
    .collect()
}

/// Leaves a record of a test that could not run, where the record is collected.
pub(crate) fn skipped(why: &str) {
    use std::io::Write;
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("windlass-agent-runner {name} skipped: {why}");
    println!("{line}");
    if let Some(path) = std::env::var_os("WINDLASS_SKIPS") {
        let mut file = fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        writeln!(file, "{line}").unwrap();
    }
}
