//! Engines that die, come back or hang while a job's container runs.

use rustix::process::{Pid, Signal, kill_process};
use windlass_agent_runner::docker::Engine;
use windlass_agent_runner::{Event, RunningJob, attempts, boot_now_ms};
use windlass_protocol::cause::{Cause, CauseKind};
use windlass_protocol::job::JobSpec;

use crate::docker::{IMAGE, agent, import_busybox};
use crate::kit::{Kit, event, finish, job, outcome, processes_with, read_log, skipped, start, until, until_logged};
use crate::lifetime::supervisor_of;
use crate::own_engine::OwnEngine;

const FOR_EVER: u64 = 1 << 40;

/// A running job, whose processes carry a mark.
struct Scene {
    own: OwnEngine,
    engine: Engine,
    kit: Kit,
    job: JobSpec,
    running: RunningJob,
    mark: String,
}

/// Says `up`, waits for a file, says `end` and leaves with status 7.
const COMMAND: &str = "echo up; while ! test -e go; do sleep 0.05; done; echo end; exit 7; : MARK";

impl Scene {
    async fn start(live_restore: bool, shape: impl FnOnce(JobSpec) -> JobSpec, lease_ms: u64) -> Option<Self> {
        let Some(own) = OwnEngine::start(live_restore) else {
            skipped("no Docker engine of its own: not root, or no dockerd");
            return None;
        };
        assert!(import_busybox(own.docker()), "busybox-static is not installed");
        let (kit, engine) = (Kit::new(), Engine::new(&own.socket(), agent()));
        let mut job = shape(JobSpec { image: Some(IMAGE.to_owned()), ..job("") });
        let mark = format!("mark-{}", job.attempt);
        job.command = COMMAND.replace("MARK", &mark);
        let workspace = kit.workspace(&job);
        let lease = boot_now_ms() + lease_ms;
        let mut begin = start(&job, kit.slot(), &workspace, &[], lease);
        // By it processes are found for whose end the engine and their first process are to answer here.
        begin.env.retain(|(name, _)| name != "WINDLASS_ATTEMPT_ID");
        let mut running = engine.start(&kit.runner, begin).await.unwrap();
        until_logged(&mut running, "up").await;
        Some(Self { own, engine, kit, job, running, mark })
    }

    fn go(&self) {
        std::fs::write(self.kit.workspace(&self.job).join("go"), "").unwrap();
    }

    fn runs(&self) -> bool {
        !processes_with(&self.mark).is_empty()
    }

    async fn until_gone(&self) {
        until("the container's end", || !self.runs()).await;
    }

    fn outcome_is_written(&self) -> bool {
        attempts::outcome(self.running.dir()).unwrap().is_some()
    }
}

#[tokio::test]
async fn a_job_that_ends_while_its_engine_hangs_has_ended_once_the_engine_tells_how() {
    let Some(mut scene) = Scene::start(false, |job| job, FOR_EVER).await else { return };
    scene.own.hang();
    scene.go();
    scene.until_gone().await;
    assert!(!scene.outcome_is_written(), "nobody can know the status yet");
    scene.own.go_on();
    let (outcome, log) = finish(&mut scene.running).await;
    assert_eq!((outcome.exit_status, outcome.signal, outcome.cause), (Some(7), None, None));
    assert_eq!(log, b"up\nend\n");
    assert_eq!(scene.engine.reap_leftovers(|_| false).await.unwrap(), 0);
}

#[tokio::test]
async fn an_exclusive_job_ends_with_its_lease_although_its_engine_hangs() {
    let exclusive = |job| JobSpec { exclusive: true, ..job };
    let Some(mut scene) = Scene::start(false, exclusive, 4_000).await else { return };
    scene.own.hang();
    scene.until_gone().await;
    scene.own.go_on();
    let outcome = outcome(&mut scene.running).await;
    assert_eq!((outcome.signal, outcome.cause.map(|cause| cause.kind)), (Some(9), Some(CauseKind::LeaseLost)));
}

#[tokio::test]
async fn a_job_whose_engine_died_for_good_runs_on_and_can_be_killed() {
    let Some(mut scene) = Scene::start(false, |job| job, FOR_EVER).await else { return };
    scene.own.kill();
    assert!(scene.runs() && !scene.outcome_is_written());
    let cause = Cause::new(CauseKind::Canceled, "by the test");
    scene.running.steering().kill(cause.clone()).await.unwrap();
    let outcome = outcome(&mut scene.running).await;
    assert!(!scene.runs(), "it was called ended while it ran");
    assert_eq!((outcome.exit_status, outcome.signal, outcome.cause), (None, Some(9), Some(cause)));
    scene.own.start_again();
    assert!(scene.engine.reap_leftovers(|_| false).await.unwrap() >= 1, "what is left is found by its labels");
}

#[tokio::test]
async fn a_job_goes_on_under_an_engine_that_keeps_containers_when_it_comes_back() {
    let Some(mut scene) = Scene::start(true, |job| job, FOR_EVER).await else { return };
    scene.own.kill();
    scene.own.start_again();
    assert!(scene.runs() && !scene.outcome_is_written());
    scene.go();
    let (outcome, log) = finish(&mut scene.running).await;
    assert_eq!((outcome.exit_status, outcome.signal, outcome.cause), (Some(7), None, None));
    assert_eq!(log, b"up\nend\n", "its output does not pass through the engine");
    assert_eq!(scene.engine.reap_leftovers(|_| false).await.unwrap(), 0);
}

#[tokio::test]
async fn a_terminals_output_goes_on_with_its_engine_and_the_log_says_where_it_broke() {
    let terminal = |job| JobSpec { tty: true, ..job };
    let Some(mut scene) = Scene::start(true, terminal, FOR_EVER).await else { return };
    scene.own.stop();
    scene.own.start_again();
    until_logged(&mut scene.running, "broke off").await;
    scene.go();
    let (outcome, log) = finish(&mut scene.running).await;
    assert_eq!((outcome.exit_status, outcome.cause), (Some(7), None));
    let log = String::from_utf8(log).unwrap();
    assert!(log.starts_with("up\n\n[windlass: ") && log.ends_with("]\nend\n"), "{log}");
}

#[tokio::test]
async fn a_job_that_its_engine_stopped_did_not_fail_by_itself() {
    for gently in [true, false] {
        let Some(mut scene) = Scene::start(false, |job| job, FOR_EVER).await else { return };
        if gently {
            scene.own.stop();
        } else {
            scene.own.kill();
        }
        scene.own.start_again();
        let outcome = outcome(&mut scene.running).await;
        assert!(!scene.runs(), "it was called ended while it ran");
        let cause = outcome.cause.clone().unwrap_or_else(|| panic!("no cause: {outcome:?}"));
        assert!(cause.kind == CauseKind::Internal && cause.detail.contains("engine"), "{cause}");
        assert!(!read_log(&scene.running).ends_with(b"end\n"));
    }
}

#[tokio::test]
async fn a_container_whose_supervisor_died_is_ended_before_its_attempt_is_buried_with_or_without_an_engine() {
    for engine_lives in [true, false] {
        let Some(mut scene) = Scene::start(false, |job| job, FOR_EVER).await else { return };
        if !engine_lives {
            scene.own.kill();
        }
        let supervisor = Pid::from_raw(supervisor_of(&scene.running).parse().unwrap()).unwrap();
        kill_process(supervisor, Signal::KILL).unwrap();
        while event(&mut scene.running).await != Event::SupervisorLost {}
        assert!(scene.runs(), "a container does not end with its supervisor");
        let found = attempts::scan(scene.kit.runner.jobs()).unwrap().found.remove(0);
        let buried = tokio::task::spawn_blocking(move || attempts::bury(&found, "the test killed it")).await.unwrap();
        assert!(!scene.runs(), "buried while it ran");
        assert_eq!(buried.unwrap().cause.map(|cause| cause.detail), Some("the test killed it".to_owned()));
    }
}
