//! Agents' certificates over real time: short ones, renewed while jobs run; slept through; and identities in memory.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use windlass_protocol::WallMs;
use windlass_protocol::identity::{AgentIdentity, Standing};
use windlass_protocol::link::{FramedRecv, FramedSend, Protocol};
use windlass_protocol::message::{AgentMessage, CoordinatorMessage, RefuseCode};
use windlass_tests::kit::pipeline::{pipeline, step};
use windlass_tests::kit::skip::{is_root, skip};
use windlass_tests::kit::{
    Agent, AgentOptions, Coordinator, CoordinatorOptions, DEADLINE, Exit, Fleet, JoinToken, World, test, until, within,
};

use crate::strangers::{Papers, hello};

/// Certificates of ten seconds are renewed about seven seconds after they were made.
const SHORT: &str = "agent_certificate_seconds = 10\n";

async fn fleet(world: &World) -> Result<Fleet<'_>> {
    let config = world.path("coordinator.toml");
    std::fs::write(&config, SHORT)?;
    let more = vec!["--config".to_owned(), config.display().to_string()];
    let coordinator =
        Coordinator::start_with(world, CoordinatorOptions { more, ..CoordinatorOptions::default() }).await?;
    Fleet::around(world, coordinator, &JoinToken::pool("local", &["default"]), 1).await
}

/// What the agent holds now.
fn certificate(agent: &Agent<'_>) -> Result<AgentIdentity> {
    let papers = Papers::stolen(agent)?;
    Ok(AgentIdentity::from_certificate(papers.chain.first().context("a certificate")?)?)
}

fn now() -> WallMs {
    windlass_protocol::host::now().wall
}

#[test]
fn an_agent_renews_its_certificate_again_and_again_while_it_works() -> Result<()> {
    test(async |world| {
        let mut fleet = fleet(world).await?;
        let first = certificate(fleet.agents.first().context("an agent")?)?;
        // Longer than two whole lives.
        let script = "for i in $(seq 24); do echo line $i; sleep 1; done";
        let build = fleet.running(pipeline([step("long", script)]), "long").await?;
        let mut serials = vec![first.serial.clone()];
        let agent = fleet.agents.first().context("an agent")?;
        let done = until("the build's end", Duration::from_secs(90), async || {
            let held = certificate(agent)?;
            if serials.last() != Some(&held.serial) {
                serials.push(held.serial.clone());
            }
            ensure!(held.standing(now()) == Standing::Valid, "it let its certificate expire");
            ensure!(held.agent == first.agent && held.public_key_digest == first.public_key_digest, "another agent");
            let build = fleet.client.build(build.id()).await?;
            Ok(build.is_final().then_some(build))
        })
        .await?;
        ensure!(done.state() == "passed", "{}", done.brief());
        ensure!(done.job("long")?.attempts().len() == 1, "{}", done.0);
        ensure!(fleet.log_of(&done, "long").await?.lines().count() == 24, "the log has gaps");
        ensure!(serials.len() >= 4, "certificates in 24 s: {serials:?}");
        let said = fleet.agents.first_mut().context("an agent")?.process().stderr()?;
        ensure!(!said.contains("connection_lost"), "renewing cost the connection: {said}");
        Ok(())
    })
}

#[test]
fn an_agent_that_slept_past_its_certificate_may_renew_and_nothing_else() -> Result<()> {
    test(async |world| {
        let mut fleet = fleet(world).await?;
        let agent = fleet.agents.first_mut().context("an agent")?;
        agent.stop()?;
        let papers = Papers::stolen(agent)?;
        let held = certificate(agent)?;
        until("the certificate's end", DEADLINE, async || {
            Ok((held.standing(now()) == Standing::RenewOnly).then_some(()))
        })
        .await?;
        // What the agent will find: work is refused for the certificate's age, a renewal is not.
        let ca = papers.chain.get(1).context("the CA")?.clone();
        let address = fleet.coordinator.address();
        let ask = async |message: AgentMessage| {
            let connection = papers.connect(&ca, address, Protocol::Agent).await?;
            let (send, recv) = connection.open_bi().await?;
            let (mut send, mut recv) = (FramedSend::new(send), FramedRecv::new(recv));
            send.send_message(&message).await?;
            within("an answer", DEADLINE, recv.recv_message::<CoordinatorMessage>()).await??.context("an answer")
        };
        let refused = ask(hello()).await?;
        let expired = matches!(refused, CoordinatorMessage::Refuse { code: RefuseCode::CertificateExpired, .. });
        ensure!(expired, "{refused:?}");
        let renewed = ask(AgentMessage::Renew { csr: papers.key.csr()? }).await?;
        ensure!(matches!(renewed, CoordinatorMessage::Certificate { .. }), "{renewed:?}");
        let other = windlass_protocol::identity::AgentKey::generate()?;
        let foreign = ask(AgentMessage::Renew { csr: other.csr()? }).await?;
        ensure!(matches!(foreign, CoordinatorMessage::Refuse { .. }), "a certificate for another key: {foreign:?}");
        let bulk = papers.connect(&ca, address, Protocol::Bulk).await?;
        within("the end of the bulk connection", DEADLINE, bulk.closed()).await?;
        let agent = fleet.agents.first().context("an agent")?;
        agent.cont()?;
        until("another certificate", DEADLINE, async || {
            let new = certificate(agent)?;
            Ok((new.serial != held.serial && new.standing(now()) == Standing::Valid).then_some(()))
        })
        .await?;
        agent.in_state(&fleet.client, "online").await?;
        fleet.run_to("passed", pipeline([step("after", "true")])).await?;
        ensure!(certificate(fleet.agents.first().context("an agent")?)?.agent == held.agent, "another agent");
        Ok(())
    })
}

/// What a token's page says of the agents that it admitted.
async fn admitted(fleet: &Fleet<'_>) -> Result<Vec<Value>> {
    let id: windlass_protocol::identity::JoinToken =
        fleet.join_token.parse().map_err(|error| anyhow::anyhow!("{error}"))?;
    let page = fleet.client.get(&format!("/tokens/{}", id.id)).await?.status(200)?.json()?;
    Ok(page["agents"].as_array().context("agents")?.clone())
}

#[test]
fn an_identity_in_memory_works_without_a_disk_and_a_restart_is_another_agent() -> Result<()> {
    if !is_root() {
        return skip("ephemeral", "only root can mount a read-only directory");
    }
    test(async |world| {
        let fleet = Fleet::of(world, &JoinToken::pool("local", &["default"]).with("uses", Value::Null), 0).await?;
        let data = world.read_only("memory").await?;
        let temporary = world.path("tmp");
        std::fs::create_dir(&temporary)?;
        let mut options = AgentOptions::new("memory", fleet.coordinator.address(), &fleet.join_token);
        options.more = vec!["--ephemeral-identity".to_owned()];
        options.env = vec![("TMPDIR".to_owned(), temporary.display().to_string())];
        let mut agent = Agent::start(world, options)?;
        agent.in_state(&fleet.client, "online").await?;
        fleet.run_to("passed", pipeline([step("first", "echo here >file; cat file")])).await?;
        ensure!(std::fs::read_dir(&data)?.next().is_none(), "something was written");
        let keys = async || {
            let mut find = tokio::process::Command::new("find");
            find.arg(&temporary).args(["-path", "*/identity/*"]);
            windlass_tests::kit::world::run("find", find, DEADLINE).await
        };
        ensure!(keys().await?.stdout.is_empty(), "{}", keys().await?.stdout);
        let before = admitted(&fleet).await?;
        ensure!(before.len() == 1, "{before:?}");
        // Killed: the coordinator holds its name until it hears that nobody is there any more.
        agent.restart().await?;
        let after = until("the new agent in the old one's place", Duration::from_secs(60), async || {
            let agents = admitted(&fleet).await?;
            let state = |at: usize, name: &str| agents.get(at).map(|agent| agent[name].clone());
            let there = state(0, "state") == Some(json!("online")) && state(1, "gone") == Some(json!("replaced"));
            Ok(there.then_some(agents))
        })
        .await?;
        ensure!(after.len() == 2 && after[1]["id"] == before[0]["id"], "{after:?}");
        ensure!(fleet.client.agents().await?.len() == 1, "the old one is still listed");
        fleet.run_to("passed", pipeline([step("second", "true")])).await?;
        agent.term()?;
        ensure!(agent.ended().await? == Exit::Code(0), "{}", agent.process().stderr()?);
        Ok(())
    })
}
