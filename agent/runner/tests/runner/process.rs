//! What a job is given, and what is reported of it.

use std::os::unix::fs::MetadataExt;

use windlass_protocol::cause::CauseKind;
use windlass_protocol::job::Resources;

use crate::kit::{Kit, finish, job, until_logged};

#[tokio::test]
async fn a_job_that_ends_by_itself_reports_its_status_and_its_log() {
    let kit = Kit::new();
    let (outcome, log) = kit.run(&job("echo hello; echo oops >&2; exit 7")).await;
    assert_eq!(log, b"hello\noops\n");
    assert_eq!((outcome.exit_status, outcome.signal, outcome.cause.clone()), (Some(7), None, None));
    assert!(outcome.started_at.unwrap() <= outcome.finished_at);
    let (outcome, log) = kit.run(&job("true")).await;
    assert!(outcome.passed() && log.is_empty());
}

#[tokio::test]
async fn the_first_failing_line_ends_the_command() {
    let (outcome, log) = Kit::new().run(&job("echo one\nfalse\necho two")).await;
    assert_eq!((outcome.exit_status, log.as_slice()), (Some(1), &b"one\n"[..]));
}

#[tokio::test]
async fn a_job_that_a_signal_ends_reports_the_signal() {
    let (outcome, _) = Kit::new().run(&job("kill -SEGV $$")).await;
    assert_eq!((outcome.exit_status, outcome.signal, outcome.cause), (None, Some(11), None));
}

#[tokio::test]
async fn a_job_sees_only_the_environment_it_is_given_and_no_foreign_files_are_open() {
    let kit = Kit::new();
    let job =
        job("env | sort; ls /proc/self/fd; ulimit -c; umask; pwd; cat /proc/self/status | grep -E 'SigIgn|SigBlk'");
    let mut running = kit.start_with(&job, &[("ODD", "a\nb=c ")], 0).await;
    let (_, log) = finish(&mut running).await;
    let text = String::from_utf8(log).unwrap();
    let workspace = kit.workspace(&job);
    let workspace = workspace.to_str().unwrap();
    // What a shell adds by itself is its own.
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("SHLVL=") && !line.starts_with("_=")).collect();
    let attempt = format!("WINDLASS_ATTEMPT_ID={}", job.attempt);
    let pwd = format!("PWD={workspace}");
    let mut env = vec!["ODD=a", "PATH=/usr/local/bin:/usr/bin:/bin", &pwd, &attempt, "b=c "];
    env.sort_unstable();
    assert_eq!(lines[..5], env, "{text}");
    assert_eq!(lines[5..9], ["0", "1", "2", "3"], "3 is ls reading the directory: {text}");
    let rest = ["0", "0022", workspace, "SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000"];
    assert_eq!(lines[9..], rest, "{text}");
}

#[tokio::test]
async fn a_job_of_a_root_agent_has_a_user_of_its_own_that_cannot_look_into_the_attempt() {
    let kit = Kit::new();
    let Some(user) = kit.slot().user else {
        return crate::kit::skipped("the agent is not root, so its jobs have no user of their own");
    };
    let dir = kit.runner.jobs().to_owned();
    let job =
        job("id -u; id -G; ls $DIR/$WINDLASS_ATTEMPT_ID; cat $DIR/$WINDLASS_ATTEMPT_ID/launch.json; touch mine; true");
    let mut running = kit.start_with(&job, &[("DIR", dir.to_str().unwrap())], 0).await;
    let (outcome, log) = finish(&mut running).await;
    let text = String::from_utf8(log).unwrap();
    assert!(outcome.passed() || text.contains("denied"), "{text}");
    assert!(text.starts_with(&format!("{}\n{}\n", user.uid, user.gid)), "no other groups: {text}");
    assert!(text.contains("Permission denied") && !text.contains("control.sock"), "{text}");
}

#[tokio::test]
async fn a_job_that_cannot_be_started_ends_with_a_cause_and_without_a_start() {
    let kit = Kit::new();
    let job = job("true");
    let gone = kit.dir.path().join("no-such-workspace");
    let start = crate::kit::start(&job, kit.slot(), &gone, &[], 0);
    let mut running = kit.runner.start(start).await.unwrap();
    let (outcome, _) = finish(&mut running).await;
    let cause = outcome.cause.unwrap();
    assert_eq!((cause.kind, outcome.started_at, outcome.exit_status), (CauseKind::Internal, None, None));
    assert!(cause.detail.starts_with("could not enter the workspace: No such file"), "{}", cause.detail);
}

#[tokio::test]
async fn a_job_that_needs_more_memory_than_its_limit_is_out_of_memory() {
    if !windlass_agent_runner::cgroup::Cgroups::detect().limits_memory() {
        return crate::kit::skipped("no control group limits memory here");
    }
    let kit = Kit::new();
    let mut job = job("head -c 200000000 /dev/zero | tail -c 190000000 | wc -c; exit 3");
    job.resources = Resources { cpu_millis: 500, memory_bytes: 64 << 20 };
    job.command = format!("set -o pipefail; {}", job.command.trim_end_matches("; exit 3"));
    let (outcome, _) = kit.run(&job).await;
    let cause = outcome.cause.expect("a cause");
    assert_eq!(cause.kind, CauseKind::OutOfMemory, "{cause}");
    assert!(cause.detail.contains("limit 67108864 bytes"), "{cause}");
    let peak = outcome.peak_memory_bytes.unwrap();
    assert!((32 << 20..=64 << 20).contains(&peak), "{peak}");
}

#[tokio::test]
async fn control_groups_go_with_their_supervisor_at_the_latest() {
    let kit = Kit::new();
    let job = job("cat /proc/self/cgroup; echo up; read line < fifo");
    let workspace = kit.workspace(&job);
    std::process::Command::new("mkfifo").arg(workspace.join("fifo")).status().unwrap();
    std::os::unix::fs::chown(workspace.join("fifo"), kit.slot().user.map(|user| user.uid), None).unwrap();
    let mut running = kit.start(&job).await;
    until_logged(&mut running, "up").await;
    let record = std::fs::read_to_string(running.dir().join("started")).unwrap();
    let record: windlass_agent_runner::launch::StartedRecord = serde_json::from_str(&record).unwrap();
    if record.cgroups.is_empty() {
        return crate::kit::skipped("no control group is writable here");
    }
    assert!(
        record.cgroups.iter().all(|dir| std::fs::metadata(dir).is_ok_and(|found| found.uid() == 0 || found.is_dir()))
    );
    let (_, log) = {
        std::fs::write(workspace.join("fifo"), "go\n").unwrap();
        finish(&mut running).await
    };
    assert!(String::from_utf8_lossy(&log).contains(&format!("windlass/{}", job.attempt)));
    // It may keep them for a next job, and leaves with the spawner.
    drop(kit);
    let gone = || record.cgroups.iter().all(|dir| !dir.exists());
    crate::kit::until("the groups' removal", gone).await;
}
