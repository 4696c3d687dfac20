//! How many `/bin/true` jobs a second come through spawner and supervisor, two at once, with control group, user and
//! mask on, beside `xargs -P2` doing the same fork and exec. Usage: `jobs_per_second PROBE [JOBS]`, where PROBE is this
//! crate's `windlass-runner-probe`.

#![allow(clippy::print_stdout, reason = "it is a program for people at a terminal")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use windlass_agent_runner::launch::{Launch, LaunchRecord, ProcessTask, Task};
use windlass_agent_runner::runner::SLOT_USER_BASE;
use windlass_agent_runner::{Event, RunningJob, Slot, Spawner, attempts};
use windlass_protocol::id::{AttemptId, IdSource};
use windlass_protocol::job::Epoch;
use windlass_protocol::time::WallMs;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn launch(jobs: &Path, attempt: AttemptId, slot: Slot) -> Result<Launch, Failure> {
    let record = LaunchRecord { attempt, epoch: Epoch(1), exclusive: false, workspace: "/".into() };
    let mut env = vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
    env.extend((0..20).map(|index| (format!("S{index}_TOKEN"), format!("secret-value-number-{index}"))));
    env.extend((0..60).map(|index| (format!("VARIABLE_{index}"), "a value of the usual length".to_owned())));
    Ok(Launch {
        attempt,
        epoch: Epoch(1),
        dir: attempts::prepare(jobs, &record, &[])?,
        task: Task::Process(ProcessTask {
            argv: vec!["/bin/true".into()],
            env,
            workspace: "/".into(),
            user: slot.user,
            tty: false,
            memory_bytes: 1 << 30,
            cpu_millis: 1_000,
            cgroup: true,
        }),
        secrets: Vec::new(),
        preamble: String::new(),
        timeout_ms: Some(60_000),
        grace_ms: 1_000,
        lease_deadline_boot_ms: None,
        log_limit_bytes: 1 << 30,
    })
}

async fn run(spawner: &Spawner, jobs: &Path, attempt: AttemptId, slot: Slot) -> Result<(), Failure> {
    let launch = launch(jobs, attempt, slot)?;
    spawner.launch(&launch).await?;
    let mut running = RunningJob::attach(attempt, &launch.dir).await?;
    loop {
        match running.next_event().await? {
            Event::Finished(outcome) if outcome.passed() => break,
            Event::Finished(outcome) => return Err(format!("{outcome:?}").into()),
            Event::SupervisorLost => return Err("lost".into()),
            Event::Started { .. } | Event::Output { .. } | Event::Stuck { .. } => {}
        }
    }
    attempts::remove(&launch.dir)?;
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let probe = args.next().ok_or("usage: jobs_per_second PROBE [JOBS]")?;
    let count: u32 = args.next().map_or(Ok(1_000), |count| count.parse())?;
    let dir = tempfile::tempdir()?;
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755))?;
    let spawner = Arc::new(Spawner::start(Path::new(&probe), &["spawner"])?);
    let mut ids = IdSource::from_seed(std::array::from_fn(|at| std::process::id().to_le_bytes()[at % 4]));
    for _ in 0..20 {
        run(&spawner, dir.path(), ids.attempt(WallMs(1)), Slot::new(0, SLOT_USER_BASE)).await?;
    }
    let start = Instant::now();
    let mut slots = Vec::new();
    for index in 0..2 {
        let attempts: Vec<AttemptId> = (0..count / 2).map(|_| ids.attempt(WallMs(1))).collect();
        let (spawner, jobs) = (Arc::clone(&spawner), dir.path().to_owned());
        slots.push(tokio::spawn(async move {
            let mut times = Vec::new();
            for attempt in attempts {
                let start = Instant::now();
                run(&spawner, &jobs, attempt, Slot::new(index, SLOT_USER_BASE)).await?;
                times.push(start.elapsed());
            }
            Ok::<_, Failure>(times)
        }));
    }
    let mut times = Vec::new();
    for slot in slots {
        times.extend(slot.await??);
    }
    times.sort_unstable();
    let rate = f64::from(count) / start.elapsed().as_secs_f64();
    println!(
        "windlass runner: {rate:.0} jobs/s, p50 {:?}, p99 {:?}",
        times[times.len() / 2],
        times[times.len() * 99 / 100]
    );
    let start = Instant::now();
    let script = format!("seq {count} | xargs -P2 -n1 /bin/true");
    Command::new("sh").args(["-c", &script]).stdout(Stdio::null()).status()?;
    let limit = f64::from(count) / start.elapsed().as_secs_f64();
    println!("xargs -P2: {limit:.0}/s; ratio {:.2}", rate / limit);
    for _ in 0..10 {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        let start = Instant::now();
        run(&spawner, dir.path(), ids.attempt(WallMs(1)), Slot::new(0, SLOT_USER_BASE)).await?;
        println!("one alone on an idle machine: {:?}", start.elapsed());
    }
    Ok(())
}
