//! How jobs end: by their families, by cancelling, by time, and whatever happens to their agent.

use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use windlass_agent_runner::control::Report;
use windlass_agent_runner::launch::{Launch, LaunchRecord, ProcessTask, Task};
use windlass_agent_runner::shell::shell;
use windlass_agent_runner::{Event, RunningJob, attempts, boot_now_ms};
use windlass_protocol::cause::{Cause, CauseKind};
use windlass_protocol::job::{Epoch, JobSpec, Phase};

use crate::kit::{DEADLINE, Kit, PROBE, event, finish, job, outcome, processes_with, read_log, until, until_logged};

/// Starts things that try to outlive the job, each with the job's mark in its arguments.
fn escapees(mark: &str) -> String {
    let sleep = format!("sh -c 'trap \"\" TERM HUP INT; echo up; while :; do sleep 1000; done' {mark}");
    format!(
        "{sleep} & setsid {sleep} & (setsid setsid {sleep} &) & \
         sh -c \"setsid sh -c \\\"$(echo nohup sleep 1000) \\\" {mark} & exit 0\"; "
    )
}

fn mark() -> String {
    format!("windlass-escapee-{}", crate::kit::attempt_id())
}

fn canceled() -> Cause {
    Cause::new(CauseKind::Canceled, "canceled by the test")
}

#[tokio::test]
async fn what_a_job_leaves_running_ends_with_it() {
    let (kit, mark) = (Kit::new(), mark());
    let job = job(&format!("{} sleep 0.3; exit 4", escapees(&mark)));
    let (outcome, _) = kit.run(&job).await;
    assert_eq!(outcome.exit_status, Some(4));
    assert_eq!(processes_with(&mark), [0; 0]);
}

#[tokio::test]
async fn without_control_groups_what_a_job_leaves_running_ends_with_it_too() {
    let (kit, mark) = (Kit::new(), mark());
    let spec = job(&format!("{} sleep 0.3; exit 4", escapees(&mark)));
    let mut launch = launch(&kit, &spec, None);
    let Task::Process(task) = &mut launch.task else { unreachable!() };
    task.cgroup = false;
    let mut agent = Agent::start(&kit, &launch).await;
    let mut running = RunningJob::attach(spec.attempt, &launch.dir).await.unwrap();
    let (outcome, _) = finish(&mut running).await;
    assert_eq!(outcome.exit_status, Some(4));
    assert_eq!(processes_with(&mark), [0; 0]);
    agent.kill();
}

#[tokio::test]
async fn a_canceled_job_has_its_grace_to_clean_up() {
    let kit = Kit::new();
    let job = job("trap 'echo cleaning; sleep 0.2; echo done; exit 5' TERM; echo up; while :; do sleep 0.05; done");
    let mut running = kit.start(&job).await;
    until_logged(&mut running, "up").await;
    running.steering().cancel(canceled(), 30_000).await.unwrap();
    let (outcome, log) = finish(&mut running).await;
    assert!(String::from_utf8_lossy(&log).ends_with("cleaning\ndone\n"));
    assert_eq!((outcome.exit_status, outcome.cause), (Some(5), Some(canceled())));
}

#[tokio::test]
async fn a_canceled_job_that_does_not_listen_is_killed_after_its_grace_with_all_it_started() {
    let (kit, mark) = (Kit::new(), mark());
    let job = job(&format!("trap '' TERM; {} echo up; while :; do sleep 0.05; done", escapees(&mark)));
    let mut running = kit.start(&job).await;
    until_logged(&mut running, "up").await;
    let asked = Instant::now();
    running.steering().cancel(canceled(), 400).await.unwrap();
    let outcome = outcome(&mut running).await;
    let took = asked.elapsed();
    assert!((Duration::from_millis(400)..Duration::from_secs(10)).contains(&took), "{took:?}");
    assert_eq!((outcome.exit_status, outcome.signal, outcome.cause), (None, Some(9), Some(canceled())));
    assert_eq!(processes_with(&mark), [0; 0]);
}

#[tokio::test]
async fn a_kill_does_not_wait() {
    let kit = Kit::new();
    let mut running = kit.start(&job("trap '' TERM; echo up; sleep 1000")).await;
    until_logged(&mut running, "up").await;
    running.steering().kill(canceled()).await.unwrap();
    assert_eq!(outcome(&mut running).await.signal, Some(9));
}

#[tokio::test]
async fn a_job_that_runs_longer_than_its_timeout_is_ended_and_says_so() {
    let kit = Kit::new();
    let mut job = job("echo up; sleep 1000");
    job.timeout_ms = Some(300);
    let (outcome, log) = kit.run(&job).await;
    assert_eq!(log, b"up\n");
    assert_eq!(outcome.cause.unwrap().kind, CauseKind::Timeout);
    assert_eq!(outcome.signal, Some(15));
}

fn launch(kit: &Kit, job: &JobSpec, lease: Option<u64>) -> Launch {
    let workspace = kit.workspace(job);
    let record = LaunchRecord {
        attempt: job.attempt,
        epoch: Epoch(9),
        exclusive: lease.is_some(),
        workspace: workspace.clone(),
    };
    let env =
        [("PATH".to_owned(), "/usr/bin:/bin".to_owned()), ("WINDLASS_ATTEMPT_ID".into(), job.attempt.to_string())];
    Launch {
        attempt: job.attempt,
        epoch: Epoch(9),
        dir: attempts::prepare(kit.runner.jobs(), &record, &[]).unwrap(),
        task: Task::Process(ProcessTask {
            argv: shell(&job.command),
            env: env.to_vec(),
            workspace,
            user: kit.slot().user,
            tty: false,
            memory_bytes: 0,
            cpu_millis: 0,
            cgroup: true,
        }),
        secrets: Vec::new(),
        preamble: String::new(),
        timeout_ms: None,
        grace_ms: 1_000,
        lease_deadline_boot_ms: lease,
        log_limit_bytes: 1 << 30,
    }
}

/// A process that starts a job and then does nothing.
struct Agent(Child);

impl Agent {
    async fn start(kit: &Kit, launch: &Launch) -> Self {
        let file = kit.dir.path().join(format!("launch-{}.json", launch.attempt));
        std::fs::write(&file, serde_json::to_vec(launch).unwrap()).unwrap();
        let child = Command::new(PROBE).arg("agent").arg(file).stdin(Stdio::null()).spawn().unwrap();
        let started = launch.dir.join("started");
        until("the job started", || started.exists()).await;
        Self(child)
    }

    fn signal(&self, signal: &str) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Also the end of its spawner.
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test]
async fn a_job_whose_agent_is_killed_goes_on_and_is_found_again_with_all_its_output() {
    let kit = Kit::new();
    let spec = job("echo up; while ! [ -e go ]; do sleep 0.02; done; for i in 1 2 3; do echo line $i; done; exit 6");
    let launch = launch(&kit, &spec, None);
    let mut agent = Agent::start(&kit, &launch).await;
    agent.kill();
    let found = attempts::scan(kit.runner.jobs()).unwrap().found;
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].attempt, found[0].epoch, found[0].phase), (spec.attempt, Epoch(9), Phase::Running));
    assert!(found[0].supervised && found[0].started_at.is_some());
    std::fs::write(kit.workspace(&spec).join("go"), "").unwrap();
    let mut running = RunningJob::attach(spec.attempt, &found[0].dir).await.unwrap();
    let (outcome, log) = finish(&mut running).await;
    assert_eq!((outcome.exit_status, log.as_slice()), (Some(6), &b"up\nline 1\nline 2\nline 3\n"[..]));
    let found = attempts::scan(kit.runner.jobs()).unwrap().found;
    assert_eq!(
        (found[0].phase, found[0].supervised, found[0].outcome.clone()),
        (Phase::Finished, false, Some(outcome.clone()))
    );
    let mut late = RunningJob::attach(spec.attempt, &found[0].dir).await.unwrap();
    assert_eq!(event(&mut late).await, Event::Finished(outcome));
    attempts::remove(&found[0].dir).unwrap();
    assert_eq!(attempts::scan(kit.runner.jobs()).unwrap().found, []);
}

#[tokio::test]
async fn an_exclusive_job_ends_with_its_lease_while_its_agent_is_stopped() {
    let (kit, mark) = (Kit::new(), mark());
    let spec = job(&format!("trap '' TERM; {} echo up; while :; do sleep 0.05; done", escapees(&mark)));
    let deadline = boot_now_ms() + 700;
    let launch = launch(&kit, &spec, Some(deadline));
    let mut agent = Agent::start(&kit, &launch).await;
    agent.signal("-STOP");
    until("the outcome", || launch.dir.join("outcome.json").exists()).await;
    assert!(boot_now_ms() >= deadline);
    assert_eq!(processes_with(&mark), [0; 0]);
    let outcome = attempts::outcome(&launch.dir).unwrap().unwrap();
    assert_eq!((outcome.cause.unwrap().kind, outcome.signal), (CauseKind::LeaseLost, Some(9)));
    agent.kill();
}

#[tokio::test]
async fn an_exclusive_job_goes_on_while_its_lease_is_renewed() {
    let kit = Kit::new();
    let mut job = job("echo up; while ! [ -e go ]; do sleep 0.02; done");
    job.exclusive = true;
    let first = boot_now_ms() + 1_000;
    let mut running = kit.start_with(&job, &[], first).await;
    until_logged(&mut running, "up").await;
    running.steering().renew(first + 600_000).await.unwrap();
    running.steering().renew(first).await.unwrap();
    until("the first lease is over", || boot_now_ms() > first + 200).await;
    std::fs::write(kit.workspace(&job).join("go"), "").unwrap();
    assert!(outcome(&mut running).await.passed());
}

#[tokio::test]
async fn a_job_whose_supervisor_is_killed_dies_and_is_buried_with_what_it_started() {
    let (kit, mark) = (Kit::new(), mark());
    let spec = job(&format!("{} echo up; sh -c 'sleep 1000; :' {mark}", escapees(&mark)));
    let mut running = kit.start(&spec).await;
    until_logged(&mut running, "up").await;
    let found = attempts::scan(kit.runner.jobs()).unwrap().found.remove(0);
    assert!(found.supervised);
    let supervisor = supervisor_of(&running);
    assert!(Command::new("kill").args(["-9", &supervisor]).status().unwrap().success());
    let started = Instant::now();
    while event(&mut running).await != Event::SupervisorLost {
        assert!(started.elapsed() < DEADLINE);
    }
    let found = attempts::scan(kit.runner.jobs()).unwrap().found.remove(0);
    assert!(!found.supervised && found.outcome.is_none());
    let log = read_log(&running);
    let outcome = attempts::bury(&found, "the job's supervisor was killed").unwrap();
    assert_eq!(processes_with(&mark), [0; 0]);
    assert_eq!(outcome.cause, Some(Cause::new(CauseKind::Internal, "the job's supervisor was killed")));
    assert_eq!((outcome.log_bytes, outcome.started_at), (log.len() as u64, found.started_at));
    assert_eq!(attempts::outcome(&found.dir).unwrap(), Some(outcome));
}

#[tokio::test]
async fn a_job_whose_record_cannot_be_read_any_more_is_found_by_its_right_and_ended_with_all_that_it_started() {
    let (kit, mark) = (Kit::new(), mark());
    let spec = job(&format!("trap '' TERM; {} echo up; while :; do sleep 0.05; done; : {mark}", escapees(&mark)));
    let launch = launch(&kit, &spec, None);
    let mut agent = Agent::start(&kit, &launch).await;
    until("the job has started its children", || !processes_with(&mark).is_empty()).await;
    agent.kill();
    std::fs::write(launch.dir.join("started"), "of another version").unwrap();
    let scan = attempts::scan(kit.runner.jobs()).unwrap();
    assert!(scan.found.is_empty());
    let found = scan.unreadable[0].clone();
    assert_eq!((found.attempt, found.epoch), (spec.attempt, Some(Epoch(9))));
    assert!(!processes_with(&mark).is_empty());
    tokio::task::spawn_blocking(move || found.end(std::path::Path::new("/nonexistent/engine.sock")))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(processes_with(&mark), [0; 0]);
}

/// As it says itself when one connects.
pub(crate) fn supervisor_of(running: &RunningJob) -> String {
    let dir = std::fs::File::open(running.dir()).unwrap();
    let path = format!("/proc/self/fd/{}/control.sock", dir.as_raw_fd());
    let stream = std::os::unix::net::UnixStream::connect(path).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    match serde_json::from_str(&line).unwrap() {
        Report::Hello { supervisor, .. } => supervisor.to_string(),
        other => panic!("{other:?} is no greeting"),
    }
}
