//! Jobs in containers of a real engine.

use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use windlass_agent_runner::docker::{ContainerError, ENGINE_SOCKET, Engine};
use windlass_protocol::cause::{Cause, CauseKind};
use windlass_protocol::id::AgentId;
use windlass_protocol::job::{JobSpec, Outcome, Resources};

use crate::kit::{Kit, finish, job, outcome, skipped, start, until_logged};

/// Busybox and nothing else.
pub(crate) const IMAGE: &str = "windlass-runner-test:busybox-3";

/// An agent of this test process alone, so that tests beside each other do not remove each other's containers.
pub(crate) fn agent() -> AgentId {
    AgentId::from_bytes(*crate::kit::attempt_id().as_bytes())
}

/// The engine with the test's image, or `None` and a record of why not.
async fn engine() -> Option<Engine> {
    let engine = Engine::new(ENGINE_SOCKET.as_ref(), agent());
    if let Err(error) = engine.connect().await {
        skipped(&format!("no container engine: {error}"));
        return None;
    }
    if engine.ensure_image(IMAGE).await.is_err() && !import_busybox(Command::new("docker")) {
        skipped("no image could be made: busybox-static is not installed");
        return None;
    }
    Some(engine)
}

pub(crate) fn import_busybox(mut docker: Command) -> bool {
    let root = tempfile::tempdir().unwrap();
    let bin = root.path().join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::create_dir_all(root.path().join("tmp")).unwrap();
    let copied =
        ["/bin/busybox", "/usr/bin/busybox"].iter().any(|from| std::fs::copy(from, bin.join("busybox")).is_ok());
    for name in
        ["sh", "cat", "echo", "ls", "sleep", "touch", "tail", "head", "pwd", "ps", "env", "dd", "test", "id", "stty"]
    {
        std::os::unix::fs::symlink("busybox", bin.join(name)).unwrap();
    }
    let mut tar =
        Command::new("tar").arg("-C").arg(root.path()).args(["-c", "."]).stdout(Stdio::piped()).spawn().unwrap();
    let import = docker.args(["import", "-", IMAGE]).stdin(tar.stdout.take().unwrap()).stdout(Stdio::null()).status();
    copied && tar.wait().unwrap().success() && import.is_ok_and(|status| status.success())
}

fn in_image(command: &str) -> JobSpec {
    JobSpec { image: Some(IMAGE.to_owned()), ..job(command) }
}

async fn run(engine: &Engine, kit: &Kit, job: &JobSpec, env: &[(&str, &str)]) -> (Outcome, Vec<u8>) {
    let workspace = kit.workspace(job);
    let mut running = engine.start(&kit.runner, start(job, kit.slot(), &workspace, env, 0)).await.unwrap();
    finish(&mut running).await
}

#[tokio::test]
async fn a_job_in_a_container_sees_its_workspace_at_the_same_path_and_reports_its_status() {
    let Some(engine) = engine().await else { return };
    let kit = Kit::new();
    let job = in_image("echo hello; echo oops >&2; pwd; cat here; touch made; echo $ODD $DB_PASSWORD; exit 7");
    let workspace = kit.workspace(&job);
    std::fs::write(workspace.join("here"), "a file\n").unwrap();
    let (outcome, log) = run(&engine, &kit, &job, &[("ODD", "odd"), ("DB_PASSWORD", "hunter2hunter2")]).await;
    let expected = format!("hello\noops\n{}\na file\nodd [REDACTED]\n", workspace.display());
    assert_eq!(String::from_utf8(log).unwrap(), expected);
    assert_eq!((outcome.exit_status, outcome.signal, outcome.cause), (Some(7), None, None));
    assert!(workspace.join("made").exists());
    assert_eq!(engine.reap_leftovers(|_| false).await.unwrap(), 0, "container and network are gone");
}

#[tokio::test]
async fn twenty_megabytes_of_noise_come_out_of_a_container_exactly() {
    let Some(engine) = engine().await else { return };
    let kit = Kit::new();
    let job = in_image("cat noise");
    let mut noise = vec![0; 20_000_000];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom").unwrap(), &mut noise).unwrap();
    std::fs::write(kit.workspace(&job).join("noise"), &noise).unwrap();
    let (outcome, log) = run(&engine, &kit, &job, &[]).await;
    assert!(outcome.passed() && log == noise, "{outcome:?}");
}

#[tokio::test]
async fn an_image_that_is_not_there_is_a_cause_and_leaves_nothing() {
    let Some(engine) = engine().await else { return };
    let kit = Kit::new();
    let job = JobSpec { image: Some("127.0.0.1:1/windlass/none:1".to_owned()), ..job("true") };
    let workspace = kit.workspace(&job);
    let error = engine.start(&kit.runner, start(&job, kit.slot(), &workspace, &[], 0)).await.unwrap_err();
    // Nothing listens at that registry, so nobody can say that the image does not exist.
    assert!(matches!(error, ContainerError::ImagePull { .. }), "{error}");
    assert_eq!(error.cause().kind, CauseKind::ImagePullFailed);
    assert_eq!(engine.reap_leftovers(|_| false).await.unwrap(), 0);
}

#[tokio::test]
async fn a_canceled_container_has_its_grace_and_is_then_killed_and_removed() {
    let Some(engine) = engine().await else { return };
    let kit = Kit::new();
    let canceled = Cause::new(CauseKind::Canceled, "by the test");
    for (command, grace_ms, status, signal) in [
        ("trap 'echo cleaning; exit 5' TERM; echo up; while :; do sleep 0.05; done", 30_000, Some(5), None),
        ("trap '' TERM; echo up; while :; do sleep 0.05; done", 300, None, Some(9)),
    ] {
        let job = in_image(command);
        let workspace = kit.workspace(&job);
        let mut running = engine.start(&kit.runner, start(&job, kit.slot(), &workspace, &[], 0)).await.unwrap();
        until_logged(&mut running, "up").await;
        running.steering().cancel(canceled.clone(), grace_ms).await.unwrap();
        let outcome = outcome(&mut running).await;
        assert_eq!((outcome.exit_status, outcome.signal, outcome.cause), (status, signal, Some(canceled.clone())));
    }
    assert_eq!(engine.reap_leftovers(|_| false).await.unwrap(), 0);
}

#[tokio::test]
async fn what_a_crash_leaves_is_found_by_its_labels_and_what_is_kept_stays() {
    let Some(engine) = engine().await else { return };
    let kit = Kit::new();
    let (kept, left) = (in_image("echo up; sleep 1000"), in_image("echo up; sleep 1000"));
    let mut jobs = Vec::new();
    for job in [&kept, &left] {
        let workspace = kit.workspace(job);
        let mut running = engine.start(&kit.runner, start(job, kit.slot(), &workspace, &[], 0)).await.unwrap();
        until_logged(&mut running, "up").await;
        jobs.push(running);
    }
    let other = Engine::new(ENGINE_SOCKET.as_ref(), agent());
    assert_eq!(other.reap_leftovers(|_| false).await.unwrap(), 0, "another agent's are not touched");
    let removed = engine.reap_leftovers(|attempt| attempt == kept.attempt).await.unwrap();
    assert!((1..=2).contains(&removed), "its network may be removed by its own supervisor: {removed}");
    assert!(!outcome(&mut jobs[1]).await.passed());
    jobs[0].steering().kill(Cause::new(CauseKind::Canceled, "by the test")).await.unwrap();
    assert_eq!(outcome(&mut jobs[0]).await.signal, Some(9));
    assert_eq!(engine.reap_leftovers(|_| false).await.unwrap(), 0);
}

#[tokio::test]
async fn a_container_that_needs_more_memory_than_its_limit_is_out_of_memory() {
    let Some(engine) = engine().await else { return };
    let kit = Kit::new();
    let mut job = in_image("dd if=/dev/zero of=/dev/null bs=200M count=1");
    job.resources = Resources { cpu_millis: 1_000, memory_bytes: 32 << 20 };
    let (outcome, _) = run(&engine, &kit, &job, &[]).await;
    assert_eq!(outcome.cause.map(|cause| cause.kind), Some(CauseKind::OutOfMemory));
}

#[tokio::test]
async fn a_job_with_a_terminal_has_one_on_all_its_streams_and_its_output_is_exact() {
    let Some(engine) = engine().await else { return };
    let kit = Kit::new();
    let command = "test -t 0 && test -t 1 && test -t 2 && echo three; : >/dev/tty && echo own; stty -a >modes; stty size; \
                   cat noise; exit 3";
    let job = JobSpec { tty: true, ..in_image(command) };
    // Every byte, line feeds among them: a terminal as the kernel makes it would add a carriage return to each.
    let noise: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    std::fs::write(kit.workspace(&job).join("noise"), &noise).unwrap();
    let (outcome, log) = run(&engine, &kit, &job, &[]).await;
    assert_eq!((outcome.exit_status, outcome.cause), (Some(3), None));
    assert_eq!(log, [b"three\nown\n40 160\n".as_slice(), &noise].concat());
    let modes = std::fs::read_to_string(kit.workspace(&job).join("modes")).unwrap();
    assert!(modes.contains("-opost"), "whatever the engine left on: {modes}");
    let (_, log) = run(&engine, &kit, &in_image("test -t 1 || echo none"), &[]).await;
    assert_eq!(log, b"none\n", "nobody asked for it");
}

#[tokio::test]
async fn a_command_does_not_start_once_its_lease_is_over() {
    let Some(engine) = engine().await else { return };
    let kit = Kit::new();
    let job = JobSpec { exclusive: true, ..in_image("touch made") };
    let workspace = kit.workspace(&job);
    let over = windlass_agent_runner::boot_now_ms() - 1;
    let mut running = engine.start(&kit.runner, start(&job, kit.slot(), &workspace, &[], over)).await.unwrap();
    let (outcome, log) = finish(&mut running).await;
    assert_eq!(outcome.cause.map(|cause| cause.kind), Some(CauseKind::LeaseLost));
    assert!(!workspace.join("made").exists() && log.is_empty());
    assert_eq!(engine.reap_leftovers(|_| false).await.unwrap(), 0);
}

#[tokio::test]
async fn orphans_of_a_job_are_reaped_although_it_never_waits_for_them() {
    let Some(engine) = engine().await else { return };
    let kit = Kit::new();
    // Only words of the shell itself behind the fork, so that the shell has no child to wait for. A zombie would be there,
    // unless a shell that is the first process reaped it: so who that is counts, too.
    let command = "read -r first </proc/1/comm; echo $first; sh -c '(sleep 0.1 & echo $! >pid)'; read -r orphan <pid; while kill -0 $orphan 2>/dev/null; do :; done; \
                   echo reaped";
    let (outcome, log) = run(&engine, &kit, &JobSpec { timeout_ms: Some(10_000), ..in_image(command) }, &[]).await;
    assert_eq!((outcome.exit_status, String::from_utf8(log).unwrap().as_str()), (Some(0), "docker-init\nreaped\n"));
}

/// The test's image with another user.
fn image_of(user: &str) -> String {
    let name = format!("windlass-runner-test:user-{}", user.replace(':', "-"));
    let script = format!(
        "set -e; c=$(docker create {IMAGE} true); d=$(mktemp -d); mkdir $d/etc; \
         printf 'root:x:0:0::/:/bin/sh\\nbuilder:x:4321:4322::/:/bin/sh\\n' >$d/etc/passwd; \
         docker cp $d/etc $c:/ >/dev/null 2>&1; \
         docker commit -c 'USER {user}' $c {name} >/dev/null; docker rm $c >/dev/null; rm -r $d"
    );
    assert!(Command::new("bash").args(["-c", &script]).status().unwrap().success());
    name
}

#[tokio::test]
async fn a_job_runs_as_its_images_user_and_the_workspace_is_that_users() {
    let Some(engine) = engine().await else { return };
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can give a workspace away");
    }
    let kit = Kit::new();
    for (user, ids) in [("builder", (4_321, 4_322)), ("2345", (2_345, 0)), ("2345:99", (2_345, 99)), ("root", (0, 0))] {
        let image = image_of(user);
        let job = JobSpec { image: Some(image), ..in_image("id -u; id -g; echo more >>old/file; touch made") };
        let workspace = kit.workspace(&job);
        std::fs::create_dir(workspace.join("old")).unwrap();
        std::fs::write(workspace.join("old/file"), "one\n").unwrap();
        let (outcome, log) = run(&engine, &kit, &job, &[]).await;
        assert_eq!(String::from_utf8(log).unwrap(), format!("{}\n{}\n", ids.0, ids.1), "{user}: {outcome:?}");
        assert!(outcome.passed(), "{user}: {outcome:?}");
        for name in ["", "old", "old/file", "made"] {
            let found = std::fs::metadata(workspace.join(name)).unwrap();
            assert_eq!((found.uid(), found.gid()), ids, "{user}: {name}");
        }
    }
}

/// A registry that knows of no image, or is ill; says where it listens.
fn registry(status: &'static str, code: &'static str) -> std::net::SocketAddr {
    use std::io::{BufRead, BufReader, Write};
    let door = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = door.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in door.incoming().flatten() {
            let request: Vec<_> = BufReader::new(stream.try_clone().unwrap())
                .lines()
                .map_while(Result::ok)
                .take_while(|l| !l.is_empty())
                .collect();
            let known = request.first().is_some_and(|line| line.contains(" /v2/ "));
            let body = format!("{{\"errors\":[{{\"code\":\"{code}\",\"message\":\"of the test\"}}]}}");
            let (status, body) = if known { ("200 OK", "{}") } else { (status, body.as_str()) };
            let length = body.len();
            let head = "Content-Type: application/json\r\nConnection: close";
            // A client that went away has heard enough.
            let _ = write!(stream, "HTTP/1.1 {status}\r\n{head}\r\nContent-Length: {length}\r\n\r\n{body}");
        }
    });
    address
}

#[tokio::test]
async fn an_image_that_its_registry_does_not_have_is_missing_and_one_that_it_cannot_give_is_not() {
    let Some(engine) = engine().await else { return };
    for (status, code, kind) in [
        ("404 Not Found", "MANIFEST_UNKNOWN", CauseKind::ImageMissing),
        ("404 Not Found", "NAME_UNKNOWN", CauseKind::ImageMissing),
        // A registry says this of what it hides as well as of what it does not have; the detail keeps the words.
        ("403 Forbidden", "DENIED", CauseKind::ImageMissing),
        ("503 Service Unavailable", "UNAVAILABLE", CauseKind::ImagePullFailed),
    ] {
        let image = format!("{}/team/tool:1", registry(status, code));
        let error = engine.ensure_image(&image).await.unwrap_err();
        assert_eq!(error.cause().kind, kind, "{code}: {}", error.cause());
        assert!(code != "DENIED" || error.cause().detail.contains("may require 'docker login'"), "{}", error.cause());
    }
}

#[tokio::test]
async fn without_an_engine_the_cause_says_where_it_was_looked_for_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::new(&dir.path().join("no-docker.sock"), agent());
    let kit = Kit::new();
    let job = in_image("touch made");
    let workspace = kit.workspace(&job);
    let error = engine.start(&kit.runner, start(&job, kit.slot(), &workspace, &[], 0)).await.unwrap_err();
    let cause = error.cause();
    assert_eq!(cause.kind, CauseKind::Internal);
    assert!(cause.detail.contains("no-docker.sock") && cause.detail.contains("start it there"), "{cause}");
    assert!(!engine.is_connected() && !workspace.join("made").exists());
}

#[tokio::test]
async fn each_job_has_a_network_of_its_own_while_it_runs() {
    let Some(engine) = engine().await else { return };
    let kit = Kit::new();
    let mut seen = Vec::new();
    let mut jobs = Vec::new();
    for _ in 0..2 {
        let job = in_image("echo up; sleep 1000");
        let workspace = kit.workspace(&job);
        let mut running = engine.start(&kit.runner, start(&job, kit.slot(), &workspace, &[], 0)).await.unwrap();
        until_logged(&mut running, "up").await;
        let name = format!("windlass-{}", job.attempt);
        let format = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}";
        let output = Command::new("docker").args(["inspect", "--format", format, &name]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), name, "in its own network and no other");
        seen.push(name);
        jobs.push(running);
    }
    for running in &mut jobs {
        running.steering().kill(Cause::new(CauseKind::Canceled, "by the test")).await.unwrap();
        assert_eq!(outcome(running).await.signal, Some(9));
    }
    for name in seen {
        let gone = !Command::new("docker").args(["network", "inspect", &name]).output().unwrap().status.success();
        assert!(gone, "{name} is left");
    }
}
