//! By what one machine keeps between jobs: an engine's tags, checkouts, tools' caches. No machine has jobs of both trusts (I7).

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use windlass_tests::kit::pipeline::{step, with};
use windlass_tests::kit::{DEADLINE, Exit, test, until};

use super::ground::{Ground, TRUSTED, WILD};

/// A step for whoever has the tag, which both agents say that they have.
fn tagged(key: &str) -> Value {
    with(step(key, "echo here"), "agents", json!({ "queue": "default", "secure": "yes" }))
}

/// An agent ends, and the coordinator knows.
async fn leaves(ground: &mut Ground<'_>, name: &str) -> Result<()> {
    let client = ground.fleet.client.clone();
    let agent = ground.agent_mut(name)?;
    agent.term()?;
    ensure!(agent.ended().await? == Exit::Code(0), "{}", agent.process().stderr()?);
    until("its end", DEADLINE, async || {
        let online = client.agents().await?.iter().any(|agent| agent["name"] == *name && agent["state"] == "online");
        Ok((!online).then_some(()))
    })
    .await
}

#[test]
fn no_agent_runs_jobs_of_both_trusts_whatever_it_says_of_itself() -> Result<()> {
    test(async |world| {
        let mut ground = Ground::start(world).await?;
        let before = ground.trusted().await?;
        for (gone, left) in [(TRUSTED, WILD), (WILD, TRUSTED)] {
            leaves(&mut ground, gone).await?;
            let client = ground.fleet.client.clone();
            let (waits, other) = if gone == TRUSTED {
                (ground.own([tagged("waits")]).await?, ground.hostile([tagged("other")]).await?)
            } else {
                (ground.hostile([tagged("waits")]).await?, ground.own([tagged("other")]).await?)
            };
            // The agent that is left is asked for its trust only, and takes what came later.
            let other = client.ends(other.id(), "passed", DEADLINE).await?;
            ground.ran_on(&other, left)?;
            let seen = client.build(waits.id()).await?;
            ensure!(seen.job_is("waits", "scheduled") && seen.job("waits")?.attempts().is_empty(), "{}", seen.0);
            let why = client.get(&format!("/jobs/{}/why", seen.job("waits")?.id())).await?.status(200)?.json()?;
            ensure!(!why.to_string().contains(&format!("\"{left}\"")), "{left} is said to be one that may: {why}");
            ground.agent_mut(gone)?.restart().await?;
            let waits = client.ends(waits.id(), "passed", DEADLINE).await?;
            ground.ran_on(&waits, gone)?;
        }
        // Nor does a pool of strangers become another one by a token for it.
        let token =
            json!({ "kind": "join", "pool": "wild", "zone": "local", "queues": ["default"], "trust": "trusted" });
        ensure!(ground.fleet.client.post("/tokens", &token).await?.status == 409, "the pool became trusted");
        ensure!(ground.trusted().await? == before, "main is built of something else");
        Ok(())
    })
}
