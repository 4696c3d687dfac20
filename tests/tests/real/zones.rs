//! Two zones that are networks of their own, whose agents reach the coordinator and nobody else.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use tokio::process::Command;
use windlass_tests::kit::net::{Zone, ip, no_zones};
use windlass_tests::kit::pipeline::{pipeline, step, until_exists, with};
use windlass_tests::kit::skip::skip;
use windlass_tests::kit::world::run;
use windlass_tests::kit::{
    Agent, AgentOptions, Coordinator, CoordinatorOptions, DEADLINE, JoinToken, Submit, test, until,
};

/// Tries a TCP connection from within a zone, with nothing but the shell.
async fn reaches(from: &Zone, address: Ipv4Addr, port: u16) -> Result<bool> {
    let mut bash = Command::new("ip");
    bash.args(["netns", "exec", &from.name, "timeout", "3", "bash", "-c"])
        .arg(format!(": < /dev/tcp/{address}/{port}"));
    Ok(run("a connection", bash, DEADLINE).await?.exit == windlass_tests::kit::Exit::Code(0))
}

/// Steps that say where they are, and one that listens.
fn steps(prod: &str) -> Vec<serde_json::Value> {
    let address = "ip -4 -o addr show dev eth0 | sed 's/.*inet \\([0-9.]*\\).*/\\1/'";
    let on = |step, queue: &str| with(step, "agents", json!({ "queue": queue }));
    vec![
        on(step("non-prod", address), "non-prod-corp:default"),
        on(step("prod", address), "prod-corp:default"),
        on(step("listen", prod), "prod-corp:default"),
    ]
}

#[test]
fn steps_run_in_the_zone_of_their_queue_and_nothing_reaches_into_it() -> Result<()> {
    if let Some(why) = no_zones()? {
        return skip("zones", &why);
    }
    test(async |world| {
        let (non_prod, prod) = (&Zone::new("n", 11), &Zone::new("p", 12));
        non_prod.make().await?;
        prod.make().await?;
        let options = CoordinatorOptions {
            listen: "0.0.0.0:0".to_owned(),
            more: vec!["--insecure-http".to_owned()],
            ..CoordinatorOptions::default()
        };
        let coordinator = Coordinator::start_with(world, options).await?;
        let client = coordinator.client()?;
        let mut agents = Vec::new();
        for (zone, name) in [(non_prod, "non-prod-corp"), (prod, "prod-corp")] {
            let queue = format!("{name}:default");
            let token = client.join_token(&JoinToken::pool(name, &[&queue]).zone(name)).await?;
            let mut options = AgentOptions::new(name, (zone.ours, coordinator.address().port()).into(), &token);
            options.netns = Some(zone.name.clone());
            agents.push(Agent::start(world, options)?);
        }
        for agent in &agents {
            agent.in_state(&client, "online").await?;
        }
        let done = world.path("done");
        let listen = format!(
            "python3 -c 'import socket,threading,time; s=socket.socket(); s.bind((\"0.0.0.0\",4444)); s.listen(); \
             print(\"listening\",flush=True); threading.Thread(target=lambda:[s.accept() for _ in range(9)],daemon=True).start(); \
             time.sleep(60)' & {}; kill %1",
            until_exists(&done)
        );
        let build = client.submit(&Submit::text(pipeline(steps(&listen)))).await?;
        let listening = |build: &windlass_tests::kit::Build| build.job_is("listen", "running");
        let seen = client.wait(build.id(), "the listener", DEADLINE, listening).await?;
        client.log_holds(seen.attempt("listen")?.id(), "listening", DEADLINE).await?;
        // The listener answers where it is, so that "not reached" below means something.
        ensure!(reaches(prod, prod.theirs, 4444).await?, "the listener does not listen");
        ensure!(!reaches(non_prod, prod.theirs, 4444).await?, "the other zone reaches into this one");
        ensure!(!reaches(prod, non_prod.theirs, coordinator.address().port()).await?, "zones reach each other");
        std::fs::write(&done, "")?;
        let build = client.ends(build.id(), "passed", Duration::from_secs(60)).await?;
        for (key, zone, name) in [("non-prod", non_prod, "non-prod-corp"), ("prod", prod, "prod-corp")] {
            let job = build.job(key)?;
            let said = String::from_utf8(client.log(build.attempt(key)?.id()).await?)?;
            ensure!(said.trim() == zone.theirs.to_string(), "step {key} ran at {said}");
            ensure!(job.0["zone"] == json!(name), "{}", job.0);
        }
        // An agent's port is not open to anybody: only its own connection answers.
        until("no listener of the agents", DEADLINE, async || {
            let listeners = ip(&["netns", "exec", &prod.name, "cat", "/proc/net/tcp", "/proc/net/tcp6"]).await?;
            Ok((!listeners.stdout.lines().any(|line| line.split_whitespace().nth(3) == Some("0A"))).then_some(()))
        })
        .await?;
        Ok(())
    })
}

#[test]
fn a_step_of_a_queue_that_no_zone_serves_starts_nowhere() -> Result<()> {
    test(async |world| {
        let fleet = windlass_tests::kit::Fleet::start(world).await?;
        let lost = with(step("lost", "true"), "agents", json!({ "queue": "prod-corp:default" }));
        let build = fleet.client.submit(&Submit::text(pipeline([lost, step("here", "true")]))).await?;
        let build = fleet.client.wait(build.id(), "the step here", DEADLINE, |b| b.job_is("here", "passed")).await?;
        ensure!(build.job("lost")?.attempts().is_empty(), "{}", build.0);
        Ok(())
    })
}
