//! A container whose engine is gone, by a clock of the tests'.

use std::process::{Child, Command};

use super::*;

/// A container whose first process is another's, and whose engine broke off and is not there any more.
fn orphaned(process: &Child) -> Container {
    let dir = tempfile::tempdir().unwrap();
    let engine = dir.path().join("no-engine");
    let task = ContainerTask {
        container: "c".repeat(64),
        network: None,
        engine: engine.clone(),
        secrets: Vec::new(),
        memory_bytes: 0,
        tty: false,
    };
    Container {
        task,
        engine: Engine::new(&engine),
        init: Some(Init::find(i64::from(process.id()), "").unwrap()),
        go: rustix::pipe::pipe().unwrap().1,
        word: None,
        hearing: Hearing::Pausing { until: 0 },
        pause_ms: RETRY_MS,
        order: None,
        dead_at: None,
        status: None,
        broke: true,
        killed: false,
        output: None,
    }
}

fn sleeper() -> Child {
    Command::new("sleep").arg("1000").spawn().unwrap()
}

#[test]
fn a_container_whose_engine_is_gone_is_held_while_it_lives_with_pauses_that_are_bounded() {
    let mut process = sleeper();
    let mut container = orphaned(&process);
    let (mut now, mut looks) = (1_000_000, 0);
    while now < 1_000_000 + 10 * ENGINE_GONE_MS {
        container.collect_at(now);
        assert!(!container.main_ended() && !container.gone());
        let next = container.wake_at().unwrap();
        assert!((now + 1..=now + ENGINE_RETRY_MAX_MS).contains(&next), "asked again in time: {next} after {now}");
        (now, looks) = (next, looks + 1);
    }
    assert!(looks < 150, "{looks} looks");
    process.kill().unwrap();
    process.wait().unwrap();
}

#[test]
fn what_ended_without_its_engine_waits_for_its_status_and_then_says_that_nobody_knows_it() {
    let mut process = sleeper();
    let mut container = orphaned(&process);
    process.kill().unwrap();
    process.wait().unwrap();
    container.collect_at(1_000_000);
    assert!(container.main_ended() && !container.gone(), "it is dead, and with what status may still be told");
    container.collect_at(1_000_000 + ENGINE_GONE_MS - 1);
    assert!(!container.gone());
    assert!(container.wake_at().unwrap() <= 1_000_000 + ENGINE_GONE_MS);
    container.collect_at(1_000_000 + ENGINE_GONE_MS);
    assert!(container.gone());
    let end = container.end();
    assert_eq!((end.exit_status, end.signal), (None, None));
    let cause = end.cause.unwrap();
    assert!(cause.kind == CauseKind::Internal && cause.detail.contains("engine went away"), "{cause}");
}

#[test]
fn what_we_killed_ourselves_needs_no_engine_to_have_ended() {
    let mut process = sleeper();
    let mut container = orphaned(&process);
    container.collect_at(1_000_000);
    container.kill();
    process.wait().unwrap();
    container.collect_at(1_000_001);
    assert!(container.gone());
    assert_eq!((container.end().signal, container.end().exit_status), (Some(9), None));
}

#[test]
fn a_status_that_an_engine_gives_to_those_it_stops_is_the_jobs_own_only_where_the_engine_did_not_break_off() {
    let mut process = sleeper();
    let mut container = orphaned(&process);
    let cause = |container: &Container, status: i64| {
        container.end_of(&serde_json::json!({ "ExitCode": status })).cause.map(|cause| cause.kind)
    };
    for (status, by_engine) in [(0, false), (7, false), (137, true), (139, false), (143, true), (255, true)] {
        container.broke = true;
        assert_eq!(cause(&container, status), by_engine.then_some(CauseKind::Internal), "{status}");
        container.broke = false;
        assert_eq!(cause(&container, status), None, "{status}");
    }
    process.kill().unwrap();
    process.wait().unwrap();
}
