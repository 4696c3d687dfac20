//! What it takes to read a large pipeline, beside what it may take.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::table::Table;

/// Steps of a pipeline; as many as a build may have jobs.
const STEPS: usize = 10_000;

/// What reading them may take.
const ALLOWED: Duration = Duration::from_millis(100);

/// Of so many rounds the median counts: other programs run beside this one.
const ROUNDS: usize = 9;

fn text() -> String {
    let step = |n: usize| {
        format!(
            "  - command: make test\n    label: \":hammer: test\"\n    key: step-{n}\n    env: {{A: b, C: 1}}\n    \
             agents: {{queue: default}}\n"
        )
    };
    format!("env: {{X: y}}\nsteps:\n{}", (0..STEPS).map(step).collect::<String>())
}

/// The median of some rounds.
fn median(mut round: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Duration> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        round()?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    Ok(times[ROUNDS / 2])
}

/// Reads it into trees, and compiles it to a graph.
pub(crate) fn reading(table: &mut Table) -> anyhow::Result<()> {
    let text = text();
    let read = median(|| {
        let parsed = windlass_pipeline::yaml::parse(&text);
        ensure!(parsed.error.is_none(), "it is not read: {:?}", parsed.error);
        Ok(())
    })?;
    let compiled = median(|| {
        let compiled = windlass_pipeline::compile(&text, "pipeline.yml", &[]);
        let nodes = compiled.graph.map_or(0, |graph| graph.nodes.len());
        ensure!(nodes == STEPS, "{nodes} steps");
        Ok(())
    })?;
    let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
    println!("10,000 steps, {} bytes, from text to graph: {}", text.len(), ms(compiled));
    let ratio = read.as_secs_f64() / ALLOWED.as_secs_f64();
    table.at_most("10,000 steps of a pipeline read", ms(read), ms(ALLOWED), ratio, 1.0);
    Ok(())
}
