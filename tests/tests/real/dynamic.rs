//! Steps that a job makes while its build runs.

use std::fs;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use windlass_tests::kit::{Attempt, Build, until};

use crate::line::{BUILD, Line, with_engine};

const STEPS: usize = 400;

const PIPELINE: &str = "
steps:
  - key: generate
    command: ./ci/generate 400 >made.yml && buildkite-agent pipeline upload made.yml
  - wait
  - key: count
    command: wc -l <$$PLACE
";

/// The upload puts the place in.
const GENERATE: &str = r#"#!/bin/sh
echo "checkout: {skip: true}"
echo "steps:"
for i in $(seq "$1"); do echo "  - {key: part-$i, command: 'echo $i >>\$PLACE'}"; done
"#;

/// When the only attempt of a step began and ended.
fn times(build: &Build, key: &str) -> Result<(String, String)> {
    let Attempt(attempt) = build.attempt(key)?;
    let at = |name: &str| attempt[name].as_str().map(str::to_owned).with_context(|| format!("{key}: no {name}"));
    Ok((at("started_at")?, at("finished_at")?))
}

#[test]
fn four_hundred_steps_that_a_job_uploads_all_run_after_it_and_before_what_follows() -> Result<()> {
    with_engine(async |world| {
        let place = world.shared_file("place")?;
        let files = [(".buildkite/pipeline.yml", PIPELINE), ("ci/generate", GENERATE)];
        let line = Line::start(world, &files, 4, json!({ "PLACE": place.display().to_string() })).await?;
        let begun = Instant::now();
        let build = line.build(json!({})).await?;
        // The build is large: it is not asked for again and again.
        until("all steps", BUILD, async || Ok((fs::read_to_string(&place)?.lines().count() == STEPS).then_some(())))
            .await?;
        let build = line.fleet.client.ends(build.id(), "passed", BUILD).await?;
        println!("{STEPS} uploaded steps have run in {:?}", begun.elapsed());
        let keys: Vec<String> = build.jobs().iter().map(|job| job.key().to_owned()).collect();
        // In the order in which they were made.
        let mut wanted = ["generate", "", "count"].map(str::to_owned).to_vec();
        wanted.extend((1..=STEPS).map(|n| format!("part-{n}")));
        ensure!(keys == wanted, "{keys:?}");
        let mut ran: Vec<usize> =
            fs::read_to_string(&place)?.lines().map(str::parse).collect::<std::result::Result<_, _>>()?;
        ran.sort_unstable();
        ensure!(ran == (1..=STEPS).collect::<Vec<_>>(), "{ran:?}");
        let (uploaded, counted) = (times(&build, "generate")?.1, times(&build, "count")?.0);
        for n in 1..=STEPS {
            let (began, ended) = times(&build, &format!("part-{n}"))?;
            ensure!(uploaded <= began && ended <= counted, "part-{n} ran from {began} to {ended}");
        }
        ensure!(line.fleet.log_of(&build, "count").await?.ends_with("400\n"), "{}", build.brief());
        Ok(())
    })
}
