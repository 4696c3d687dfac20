//! One supervisor for one job after another: what the next must not be able to tell (docs/design/017).

use std::path::PathBuf;
use std::process::Command;

use windlass_agent_runner::cgroup::Cgroups;
use windlass_agent_runner::launch::StartedRecord;
use windlass_agent_runner::{Event, RunningJob, attempts};
use windlass_protocol::cause::CauseKind;
use windlass_protocol::job::{JobSpec, Outcome, Resources};

use crate::kit::{DEADLINE, Kit, attempt_id, event, finish, job, processes_with, skipped, until, until_logged};
use crate::lifetime::supervisor_of;

/// What a job that waits for a word of the test left and how it ended.
struct Ran {
    supervisor: String,
    groups: Vec<PathBuf>,
    outcome: Outcome,
    log: String,
}

fn groups_of(running: &RunningJob) -> Vec<PathBuf> {
    let record = std::fs::read(running.dir().join("started")).unwrap();
    serde_json::from_slice::<StartedRecord>(&record).unwrap().cgroups
}

/// Runs a job, which ends only when it was looked at.
async fn run(kit: &Kit, mut spec: JobSpec, env: &[(&str, &str)]) -> Ran {
    spec.command = format!("{}\nwhile ! [ -e go ]; do sleep 0.02; done", spec.command);
    let mut running = kit.start_with(&spec, env, u64::MAX / 2).await;
    while !matches!(event(&mut running).await, Event::Started { .. }) {}
    let (supervisor, groups) = (supervisor_of(&running), groups_of(&running));
    std::fs::write(kit.workspace(&spec).join("go"), "").unwrap();
    let (outcome, log) = finish(&mut running).await;
    attempts::remove(running.dir()).unwrap();
    // It says that it waits a moment after it has said that the job is over.
    tokio::time::timeout(DEADLINE, until_waiting(&supervisor)).await.unwrap();
    Ran { supervisor, groups, outcome, log: String::from_utf8(log).unwrap() }
}

/// Until a supervisor waits for its spawner, or is gone.
async fn until_waiting(supervisor: &str) {
    let call = format!("/proc/{supervisor}/wchan");
    until("the supervisor waits", || {
        std::fs::read_to_string(&call).is_ok_and(|at| at.contains("unix_stream")) || !lives(supervisor)
    })
    .await;
}

fn lives(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn limited(command: &str, memory_bytes: u64, cpu_millis: u64) -> JobSpec {
    JobSpec { resources: Resources { cpu_millis, memory_bytes }, ..job(command) }
}

#[tokio::test]
async fn the_next_job_has_the_supervisor_and_nothing_else_of_the_one_before() {
    let kit = Kit::new();
    let secret = ("FIRST_TOKEN", "the-first-ones-secret");
    let first = run(&kit, job("echo the-first-ones-secret $FIRST_TOKEN; ulimit -n 100; umask 0"), &[secret]).await;
    assert_eq!(first.log, "[REDACTED] [REDACTED]\n");
    let script = "echo the-first-ones-secret [$FIRST_TOKEN] $(umask) $(ulimit -n) $PWD; ls /proc/self/fd | wc -l";
    let second = run(&kit, job(script), &[]).await;
    assert_eq!(second.supervisor, first.supervisor);
    let mut words = second.log.split_whitespace();
    assert_eq!((words.next(), words.next(), words.next()), (Some("the-first-ones-secret"), Some("[]"), Some("0022")));
    let other = Kit::new();
    let fresh = run(&other, job(script), &[]).await;
    assert_ne!(fresh.supervisor, first.supervisor);
    let rest = |ran: &Ran| {
        ran.log.split_whitespace().skip(3).filter(|word| !word.contains("work-")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(rest(&second), rest(&fresh), "limits and descriptors are those of a first job");
}

#[tokio::test]
async fn groups_are_kept_for_equal_limits_only_and_without_what_they_counted() {
    if !Cgroups::detect().limits_memory() {
        return skipped("no control group limits memory here");
    }
    let kit = Kit::new();
    let limits = |command: &str| limited(command, 256 << 20, 500);
    let large = run(&kit, limits("head -c 100000000 /dev/zero | tail -c 90000000 | wc -c"), &[]).await;
    assert!(large.outcome.peak_memory_bytes.unwrap() > 80 << 20, "{:?}", large.outcome);
    let small = run(&kit, limits("true"), &[]).await;
    assert_eq!(small.supervisor, large.supervisor);
    assert!(small.outcome.peak_memory_bytes.unwrap() < 16 << 20, "{:?}", small.outcome);
    let again = run(&kit, limits("true"), &[]).await;
    if !pure_v2(&small) {
        assert_eq!(again.groups, small.groups, "kept");
    }
    let other = run(&kit, limited("cat /proc/self/cgroup", 128 << 20, 500), &[]).await;
    assert_eq!(other.supervisor, again.supervisor);
    assert!(other.groups.iter().all(|group| !again.groups.contains(group)), "{:?}", other.groups);
    assert!(again.groups.iter().all(|group| !group.exists()), "what is of no use is removed");
    let group = other.groups.iter().find_map(|group| {
        let v1 = std::fs::read_to_string(group.join("memory.limit_in_bytes"));
        v1.or_else(|_| std::fs::read_to_string(group.join("memory.max"))).ok()
    });
    // Kept by the supervisor that waits.
    if !pure_v2(&other) {
        assert_eq!(group.as_deref().map(str::trim), Some((128 << 20).to_string().as_str()));
    }
}

/// Whether memory is counted by v2, whose groups are never kept.
fn pure_v2(ran: &Ran) -> bool {
    !ran.groups.iter().any(|group| group.to_string_lossy().contains("/memory/"))
}

#[tokio::test]
async fn a_kill_for_want_of_memory_is_not_told_of_the_next_job() {
    if !Cgroups::detect().limits_memory() {
        return skipped("no control group limits memory here");
    }
    let kit = Kit::new();
    let limits = |command: &str| limited(command, 64 << 20, 500);
    // It passes although the kernel has ended one of its processes, so nobody asks for a cause.
    let hog = "(head -c 200000000 /dev/zero | tail -c 190000000 | wc -c) || true; true";
    let first = run(&kit, limits(hog), &[]).await;
    assert!(first.outcome.passed(), "{:?}", first.outcome);
    let second = run(&kit, limits("trap 'exit 7' EXIT"), &[]).await;
    assert_eq!(second.supervisor, first.supervisor);
    assert_eq!((second.outcome.exit_status, second.outcome.cause), (Some(7), None));
    assert!(second.groups.iter().all(|group| !first.groups.contains(group)));
}

#[tokio::test]
async fn a_supervisor_that_had_a_terminal_leaves_after_its_job() {
    let kit = Kit::new();
    let mut spec = job("tty > /dev/null");
    spec.tty = true;
    let first = run(&kit, spec, &[]).await;
    until("its end", || !lives(&first.supervisor)).await;
    let second = run(&kit, job("! tty; true"), &[]).await;
    assert_ne!(second.supervisor, first.supervisor);
    assert!(second.log.contains("not a tty"), "{}", second.log);
}

#[tokio::test]
async fn a_supervisor_that_had_to_end_something_leaves_too() {
    let kit = Kit::new();
    let spec = job("sleep 1000 & echo up");
    let first = run(&kit, spec, &[]).await;
    assert!(first.outcome.passed());
    until("its end", || !lives(&first.supervisor)).await;
    assert!(first.groups.iter().all(|group| !group.exists()), "{:?}", first.groups);
}

#[tokio::test]
async fn a_supervisor_that_is_killed_while_it_waits_costs_no_job_and_leaves_no_group() {
    let kit = Kit::new();
    let first = run(&kit, job("true"), &[]).await;
    assert!(lives(&first.supervisor));
    assert!(Command::new("kill").args(["-9", &first.supervisor]).status().unwrap().success());
    until("its end", || !lives(&first.supervisor)).await;
    let second = run(&kit, job("true"), &[]).await;
    assert!(second.outcome.passed() && second.supervisor != first.supervisor);
    assert!(first.groups.iter().all(|group| !group.exists()), "{:?}", first.groups);
}

#[tokio::test]
async fn a_later_job_whose_supervisor_is_killed_is_buried_with_all_that_it_started() {
    let kit = Kit::new();
    let first = run(&kit, job("true"), &[]).await;
    let mark = format!("windlass-late-{}", attempt_id());
    // Its environment does not name the attempt: only its groups tell whose it is.
    let away = format!("env -i setsid sh -c 'trap \"\" TERM HUP INT; echo up; while :; do sleep 1000; done' {mark}");
    let spec = job(&format!("{away} & sleep 1000"));
    let mut running = kit.start(&spec).await;
    until_logged(&mut running, "up").await;
    let supervisor = supervisor_of(&running);
    assert_eq!(supervisor, first.supervisor);
    let groups = groups_of(&running);
    if groups.is_empty() {
        return skipped("no control group is writable here");
    }
    assert!(Command::new("kill").args(["-9", &supervisor]).status().unwrap().success());
    while event(&mut running).await != Event::SupervisorLost {}
    let found = attempts::scan(kit.runner.jobs()).unwrap().remove(0);
    let outcome = attempts::bury(&found, "killed by the test").unwrap();
    assert_eq!(outcome.cause.unwrap().kind, CauseKind::Internal);
    assert_eq!(processes_with(&mark), [0; 0]);
    assert!(groups.iter().all(|group| !group.exists()));
}

#[tokio::test]
async fn supervisors_that_wait_leave_with_their_spawner_and_take_their_groups_along() {
    let kit = Kit::new();
    let ran = run(&kit, job("true"), &[]).await;
    assert!(lives(&ran.supervisor));
    drop(kit);
    until("its end", || !lives(&ran.supervisor)).await;
    assert!(ran.groups.iter().all(|group| !group.exists()), "{:?}", ran.groups);
}

#[tokio::test]
async fn jobs_at_once_have_a_supervisor_each() {
    let kit = Kit::new();
    run(&kit, job("true"), &[]).await;
    let specs: Vec<JobSpec> = (0..3).map(|_| job("echo up; while ! [ -e go ]; do sleep 0.02; done")).collect();
    let mut running = Vec::new();
    for spec in &specs {
        let mut one = kit.start(spec).await;
        until_logged(&mut one, "up").await;
        running.push(one);
    }
    let mut supervisors: Vec<String> = running.iter().map(supervisor_of).collect();
    let mut groups: Vec<PathBuf> = running.iter().flat_map(groups_of).collect();
    let count = groups.len();
    supervisors.sort();
    supervisors.dedup();
    groups.sort();
    groups.dedup();
    assert_eq!((supervisors.len(), groups.len()), (3, count));
    for (spec, one) in specs.iter().zip(&mut running) {
        std::fs::write(kit.workspace(spec).join("go"), "").unwrap();
        assert!(finish(one).await.0.passed());
    }
}
