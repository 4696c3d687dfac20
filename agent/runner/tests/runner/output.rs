//! A job's output: exact, masked, cut, and read by whoever comes.

use std::io::Read;

use windlass_agent_runner::control::Request;
use windlass_agent_runner::{Event, attempts};

use crate::kit::{Kit, event, finish, job, outcome, until_logged};

/// Bytes that no terminal would leave alone: all values, in no order.
fn noise_file(kit: &Kit, bytes: u64) -> std::path::PathBuf {
    let path = kit.dir.path().join("noise");
    let mut random = std::fs::File::open("/dev/urandom").unwrap().take(bytes);
    std::io::copy(&mut random, &mut std::fs::File::create(&path).unwrap()).unwrap();
    path
}

async fn comes_through_exactly(tty: bool) {
    let kit = Kit::new();
    let noise = noise_file(&kit, 50_000_000);
    let mut job = job(&format!("cat {}; tail -c 70000 {}", noise.display(), noise.display()));
    job.tty = tty;
    let (outcome, log) = kit.run(&job).await;
    assert!(outcome.passed(), "{outcome:?}");
    let noise = std::fs::read(noise).unwrap();
    assert_eq!(log.len(), noise.len() + 70_000);
    assert!(log[..noise.len()] == noise && log[noise.len()..] == noise[noise.len() - 70_000..]);
}

#[tokio::test]
async fn fifty_megabytes_of_noise_come_through_a_pipe_exactly() {
    comes_through_exactly(false).await;
}

#[tokio::test]
async fn fifty_megabytes_of_noise_come_through_a_terminal_exactly() {
    comes_through_exactly(true).await;
}

#[tokio::test]
async fn a_job_with_a_terminal_has_one_that_leaves_newlines_alone() {
    let kit = Kit::new();
    let mut job =
        job("[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo yes > /dev/tty; (setsid sh -c 'echo away' &); sleep 0.1");
    job.tty = true;
    let (outcome, log) = kit.run(&job).await;
    assert_eq!((outcome.exit_status, String::from_utf8(log).unwrap()), (Some(0), "yes\naway\n".into()));
}

#[tokio::test]
async fn a_secret_is_masked_however_it_is_written() {
    let kit = Kit::new();
    let job = job(
        "printf 'a %s b' $DB_PASSWORD; printf hun; sleep 0.1; printf ter2; sleep 0.1; echo hunter2; echo $PIN_TOKEN",
    );
    let env = [("DB_PASSWORD", "hunter2hunter2"), ("PIN_TOKEN", "1234")];
    let mut running = kit.start_with(&job, &env, 0).await;
    let (_, log) = finish(&mut running).await;
    assert_eq!(String::from_utf8(log).unwrap(), "a [REDACTED] b[REDACTED]\n1234\n");
}

#[tokio::test]
async fn a_value_that_the_agent_adds_is_masked_from_then_on_and_its_notes_are_part_of_the_log() {
    let kit = Kit::new();
    let job = job("echo up new-secret; while ! [ -e go ]; do sleep 0.02; done; echo new-secret");
    let mut running = kit.start(&job).await;
    until_logged(&mut running, "up").await;
    running.steering().redact("new-secret").await.unwrap();
    running.steering().note("~~~ a note with new-secret\n").await.unwrap();
    until_logged(&mut running, "note").await;
    std::fs::write(kit.workspace(&job).join("go"), "").unwrap();
    let (_, log) = finish(&mut running).await;
    let text = String::from_utf8(log).unwrap();
    assert_eq!(text, "up new-secret\n~~~ a note with [REDACTED]\n[REDACTED]\n");
}

#[tokio::test]
async fn a_value_is_masked_as_soon_as_the_supervisor_has_said_so() {
    let kit = Kit::new();
    let job = job("echo up; for i in 1 2 3 4 5; do while ! [ -e go$i ]; do sleep 0.01; done; echo new-secret-$i; done");
    let mut running = kit.start(&job).await;
    until_logged(&mut running, "up").await;
    for ticket in 1..=5 {
        let value = format!("new-secret-{ticket}");
        running.steering().send(&Request::Mask { ticket, value }).await.unwrap();
        loop {
            match event(&mut running).await {
                Event::Masked { ticket: told, refused } => break assert_eq!((told, refused), (ticket, None)),
                Event::Finished(outcome) => panic!("it ended: {outcome:?}"),
                Event::SupervisorLost => panic!("its supervisor is gone"),
                Event::Started { .. } | Event::Output { .. } | Event::Stuck { .. } => {}
            }
        }
        std::fs::write(kit.workspace(&job).join(format!("go{ticket}")), "").unwrap();
    }
    let (outcome, log) = finish(&mut running).await;
    let expected = format!("up\n{}", "[REDACTED]\n".repeat(5));
    assert_eq!((outcome.exit_status, String::from_utf8(log).unwrap()), (Some(0), expected));
}

#[tokio::test]
async fn a_log_is_cut_at_its_limit_and_the_job_goes_on() {
    let kit = Kit::new();
    let mut job = job("head -c 3000000 /dev/zero; exit 8");
    job.log_limit_bytes = 1_000;
    let (outcome, log) = kit.run(&job).await;
    let mut expected = vec![0; 1_000];
    expected.extend_from_slice(b"\n[windlass: log cut at 1000 bytes: limit reached]\n");
    assert_eq!((log, outcome.log_truncated, outcome.exit_status), (expected, true, Some(8)));
}

#[tokio::test]
async fn readers_that_come_and_go_and_acknowledge_see_every_byte_once() {
    let kit = Kit::new();
    let noise = noise_file(&kit, 40_000_000);
    let mut running = kit.start(&job(&format!("cat {}", noise.display()))).await;
    let dir = running.dir().to_owned();
    let mut log = Vec::new();
    let mut ended = None;
    while ended.is_none() {
        if let Event::Finished(outcome) = event(&mut running).await {
            ended = Some(outcome);
        }
        // A new reader each time, as after a crash, from what was acknowledged; and a new connection.
        let mut reader = attempts::spool(&dir);
        for _ in 0..30 {
            let Some(chunk) = reader.next(log.len() as u64, 100_000).unwrap() else { break };
            log.extend_from_slice(&chunk.bytes);
        }
        // A supervisor that has left needs no acknowledgement.
        let _ = running.steering().acked(log.len() as u64).await;
        if ended.is_none() {
            running = windlass_agent_runner::RunningJob::attach(running.attempt(), &dir).await.unwrap();
        }
    }
    let mut reader = attempts::spool(&dir);
    while let Some(chunk) = reader.next(log.len() as u64, usize::MAX).unwrap() {
        log.extend_from_slice(&chunk.bytes);
    }
    assert!(log == std::fs::read(noise).unwrap(), "{} bytes", log.len());
    assert_eq!(ended.unwrap().log_bytes, 40_000_000);
}

#[tokio::test]
async fn a_job_whose_log_nobody_takes_waits_and_ends_complete_once_it_is_taken() {
    let kit = Kit::new();
    // More than the spool's bound, and the mark after it shows that the job itself went on only then.
    let job = job("head -c 300000000 /dev/zero; echo end; touch wrote");
    let mut running = kit.start(&job).await;
    let mut bytes = 0;
    while bytes < windlass_protocol::limits::SPOOL_MAX_BYTES {
        match event(&mut running).await {
            Event::Started { log_bytes, .. } | Event::Output { log_bytes } => bytes = log_bytes,
            other => panic!("{other:?}"),
        }
    }
    // Each greeting is a turn of the supervisor, in which it would read on if it did not wait.
    for _ in 0..500 {
        let mut again = windlass_agent_runner::RunningJob::attach(job.attempt, running.dir()).await.unwrap();
        let Event::Started { log_bytes, .. } = event(&mut again).await else { panic!() };
        let most = windlass_protocol::limits::SPOOL_MAX_BYTES + windlass_protocol::limits::LOG_CHUNK_MAX_BYTES as u64;
        assert!(log_bytes < most, "{log_bytes}");
    }
    assert_eq!(kit.file(&job, "wrote"), None, "it waits in its write");
    let mut reader = running.log();
    let mut taken = 0;
    let steering = running.steering();
    let taking = async {
        while taken < 300_000_004 {
            match reader.next(taken, usize::MAX).unwrap() {
                Some(chunk) => taken += chunk.bytes.len() as u64,
                None => tokio::time::sleep(std::time::Duration::from_millis(2)).await,
            }
            // The last one may come after the supervisor left.
            let _ = steering.acked(taken).await;
        }
    };
    let (outcome, ()) = tokio::join!(outcome(&mut running), taking);
    assert_eq!((outcome.log_bytes, outcome.log_truncated, taken), (300_000_004, false, 300_000_004));
    assert!(kit.file(&job, "wrote").is_some());
}
