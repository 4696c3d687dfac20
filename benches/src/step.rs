//! Steps: how many a second, and how long one takes on an idle system.

use std::time::{Duration, Instant};

use crate::limit::{fork_exec_p50, percentile, xargs_rate};
use crate::server::{Server, secrets};
use crate::table::Table;

/// Steps of one measured build.
const STEPS: usize = 400;

pub(crate) async fn throughput(server: &Server, table: &mut Table) -> anyhow::Result<()> {
    let xargs = xargs_rate(2_000)?;
    let steps: String = (0..STEPS).map(|_| "  - command: /bin/true\n").collect();
    let definition = format!("env:\n{}steps:\n{steps}", secrets());
    let began = Instant::now();
    let build = server.submit(&definition).await?;
    server.passed(&build).await?;
    let rate = STEPS as f64 / began.elapsed().as_secs_f64();
    let what = "/bin/true steps a second, durable, 2 slots";
    table.at_least(what, format!("{rate:.0}/s"), format!("xargs -P2 {xargs:.0}/s"), rate / xargs, 0.25);
    Ok(())
}

pub(crate) async fn latency(server: &Server, fdatasync: Duration, table: &mut Table) -> anyhow::Result<()> {
    let definition = format!("env:\n{}steps:\n  - command: /bin/true\n", secrets());
    let mut times = Vec::new();
    for _ in 0..30 {
        let began = Instant::now();
        let build = server.submit(&definition).await?;
        server.passed(&build).await?;
        times.push(began.elapsed());
    }
    let p50 = percentile(times, 50);
    let least = (fork_exec_p50()? + 2 * fdatasync).max(Duration::from_micros(7_500));
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let what = "submit to final state of one step, p50";
    let limit = format!("fork+exec and 2 fdatasync, at least 7.5 ms: {:.1} ms", ms(least));
    table.at_most(what, format!("{:.1} ms", ms(p50)), limit, ms(p50) / ms(least), 2.0);
    Ok(())
}
