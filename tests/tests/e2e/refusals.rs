//! Why an agent is not let in: each reason with its own code and a sentence, for good or until it passes (F8).

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use windlass_protocol::identity::{AgentKey, Ca, JoinToken as Text, tls};
use windlass_protocol::limits::CERT_LIFE_MS;
use windlass_protocol::link::{Protocol, ask, bind_client, bind_server, connect, transport};
use windlass_protocol::message::{Enrol, EnrolAnswer, Evidence, RefuseCode};
use windlass_protocol::{IdSource, WallMs};
use windlass_tests::kit::{Agent, AgentOptions, DEADLINE, Exit, Fleet, JoinToken, World, test, until, within};

fn now() -> WallMs {
    windlass_protocol::host::now().wall
}

fn pool() -> JoinToken {
    JoinToken::pool("local", &["default"])
}

/// An agent that has to end with exit 4 and say all of these words.
async fn is_turned_away(world: &World, options: AgentOptions, words: &[&str]) -> Result<()> {
    let name = options.name.clone();
    let mut agent = Agent::start(world, options)?;
    let exit = agent.ended().await.with_context(|| format!("agent {name}"))?;
    let said = agent.process().stderr()?;
    ensure!(exit == Exit::Code(4), "{name}: {exit:?}\n{said}");
    for word in words {
        ensure!(said.contains(word), "{name} says nothing of `{word}`: {said}");
    }
    Ok(())
}

#[test]
fn an_agent_that_its_token_or_pool_does_not_admit_leaves_for_good_and_says_what_to_do() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::of(world, &pool(), 0).await?;
        let address = fleet.coordinator.address();
        let far = fleet.client.join_token(&pool().with("allowed_cidrs", json!(["203.0.113.0/24"]))).await?;
        is_turned_away(world, AgentOptions::new("far", address, &far), &["127.0.0.1", "join from"]).await?;
        let named = fleet.client.join_token(&pool().with("name_pattern", json!("ci-*"))).await?;
        let options = AgentOptions::new("prod-1", address, &named);
        is_turned_away(world, options, &["`ci-*`", "`prod-1`", "--name"]).await?;
        let strict = JoinToken::pool("strict", &["strict"]).with("tag_policy", json!("allowed"));
        let strict = fleet.client.join_token(&strict.with("tags", json!({ "gpu": "*" }))).await?;
        let mut options = AgentOptions::new("tagged", address, &strict);
        options.more = ["--tag", "gpu=a100", "--tag", "ram=512"].map(str::to_owned).to_vec();
        is_turned_away(world, options, &["`ram=512`", "leave it out"]).await?;
        ensure!(fleet.client.agents().await?.is_empty(), "somebody was let in");
        // The same tokens admit who is as they say.
        let near = fleet.client.join_token(&pool().with("allowed_cidrs", json!(["127.0.0.0/8"]))).await?;
        let mut options = AgentOptions::new("gpu", address, &strict);
        options.more = ["--tag", "gpu=a100"].map(str::to_owned).to_vec();
        for options in [AgentOptions::new("near", address, &near), AgentOptions::new("ci-1", address, &named), options]
        {
            Agent::start(world, options)?.in_state(&fleet.client, "online").await?;
        }
        Ok(())
    })
}

#[test]
fn an_agent_whose_name_is_taken_waits_until_it_is_free() -> Result<()> {
    test(async |world| {
        let mut fleet = Fleet::start(world).await?;
        let first = fleet.client.agents().await?.first().context("an agent")?["id"].clone();
        let mut options = AgentOptions::new("second", fleet.coordinator.address(), &fleet.join_token);
        options.called = Some("agent-1".to_owned());
        let mut second = Agent::start(world, options)?;
        until("the refusal", DEADLINE, async || {
            let said = second.process().stderr()?;
            Ok((said.contains("NameTaken") && said.contains("another --name")).then_some(()))
        })
        .await?;
        ensure!(second.process().runs()?, "it left: {}", second.process().stderr()?);
        ensure!(fleet.client.agents().await?.len() == 1, "two agents of one name");
        let agent = fleet.agents.first_mut().context("the first agent")?;
        agent.term()?;
        ensure!(agent.ended().await? == Exit::Code(0), "{}", agent.process().stderr()?);
        until("the second agent in the first one's place", DEADLINE, async || {
            let agents = fleet.client.agents().await?;
            Ok(agents.iter().any(|agent| agent["state"] == "online" && agent["id"] != first).then_some(()))
        })
        .await
    })
}

#[test]
fn an_agent_whose_token_has_not_come_into_force_waits_for_it() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::of(world, &pool(), 0).await?;
        let begin = now().plus_ms(4_000);
        let at = WallMs(begin.0 / 1_000 * 1_000);
        let text = format!("@{}", at.0 / 1_000);
        let mut date = tokio::process::Command::new("date");
        date.args(["-u", "-d", &text, "+%Y-%m-%dT%H:%M:%SZ"]);
        let text = windlass_tests::kit::world::run("date", date, DEADLINE).await?.code(0)?.stdout.trim().to_owned();
        let early = fleet.client.join_token(&pool().with("not_before", json!(text))).await?;
        let mut agent = Agent::start(world, AgentOptions::new("early", fleet.coordinator.address(), &early))?;
        until("the refusal", DEADLINE, async || {
            Ok(agent.process().stderr()?.contains("TokenNotYetValid").then_some(()))
        })
        .await?;
        agent.in_state(&fleet.client, "online").await?;
        ensure!(now() >= at, "it joined before its time");
        Ok(())
    })
}

#[test]
fn of_many_that_race_for_one_use_exactly_one_is_admitted() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::of(world, &pool(), 0).await?;
        let token = fleet.client.join_token(&pool().with("uses", json!(1))).await?;
        let token: Text = token.parse().map_err(|error| anyhow::anyhow!("{error}"))?;
        let (endpoint, address) = (bind_client()?, fleet.coordinator.address());
        // Connected first, so that the requests come together.
        let mut racers = Vec::new();
        for number in 0..16 {
            let config = transport::client_config(tls::enrol_client_config(token.ca)?)?;
            let connection = connect(&endpoint, address, Protocol::Enrol, config).await?;
            let enrol = Enrol {
                token: token.id,
                secret: *token.secret.expose(),
                csr: AgentKey::generate()?.csr()?,
                name: format!("racer-{number}"),
                machine_id: format!("machine-{number}"),
                tags: Vec::new(),
                version: "1".to_owned(),
                evidence: Evidence::None,
            };
            racers.push((connection, enrol));
        }
        let (start, _) = tokio::sync::broadcast::channel::<()>(1);
        let running: Vec<_> = racers
            .into_iter()
            .map(|(connection, enrol)| {
                let mut go = start.subscribe();
                tokio::spawn(async move {
                    go.recv().await?;
                    let answer =
                        within("an answer", DEADLINE, ask::<Enrol, EnrolAnswer>(&connection, &enrol)).await??;
                    anyhow::Ok(answer)
                })
            })
            .collect();
        start.send(())?;
        let (mut admitted, mut refused) = (0, 0);
        for answer in running {
            match answer.await?? {
                EnrolAnswer::Enrolled { .. } => admitted += 1,
                EnrolAnswer::Refused { code: RefuseCode::TokenUsedUp, .. } => refused += 1,
                EnrolAnswer::Refused { code, detail } => anyhow::bail!("{code:?}: {detail}"),
            }
        }
        ensure!((admitted, refused) == (1, 15), "{admitted} were admitted, {refused} refused");
        let page = fleet.client.get(&format!("/tokens/{}", token.id)).await?.status(200)?.json()?;
        ensure!((&page["uses"], &page["uses_left"]) == (&json!(1), &json!(0)), "{page}");
        ensure!(page["agents"].as_array().is_some_and(|agents| agents.len() == 1), "{page}");
        Ok(())
    })
}

/// Something that has the token's CA and is no coordinator of today: it speaks `alpn`, with a certificate from `begin`.
async fn other_server(ca: &Ca, alpn: &[u8], begin: WallMs) -> Result<quinn::Endpoint> {
    let certificate = ca.issue_server(&[], &[], begin, CERT_LIFE_MS)?;
    let mut config = tls::quic_server_config(&certificate, ca.certificate_der())?;
    config.alpn_protocols = vec![alpn.to_vec()];
    let endpoint = bind_server("127.0.0.1:0".parse()?, transport::server_config(config)?)?;
    let accepting = endpoint.clone();
    tokio::spawn(async move {
        while let Some(incoming) = accepting.accept().await {
            // Whatever comes of it is the agent's to say.
            tokio::spawn(async move { incoming.await.map(drop) });
        }
    });
    Ok(endpoint)
}

#[test]
fn versions_and_clocks_that_do_not_meet_are_told_apart_from_a_server_that_is_away() -> Result<()> {
    test(async |world| {
        let ca = Arc::new(Ca::create_p256(now())?);
        let token = Text::generate(IdSource::from_seed([3; 32]).token(now()), ca.fingerprint())?.expose();
        let newer = other_server(&ca, b"windlass-enrol/9", WallMs(now().0 - 60_000)).await?;
        let options = AgentOptions::new("old", newer.local_addr()?, &token);
        is_turned_away(world, options, &["no protocol version in common", "install the coordinator's version"]).await?;
        let begin = now().plus_ms(3_600_000);
        let ahead = other_server(&ca, windlass_protocol::version::ALPN_ENROL, begin).await?;
        let mut agent = Agent::start(world, AgentOptions::new("behind", ahead.local_addr()?, &token))?;
        until("the word about clocks", Duration::from_secs(15), async || {
            let said = agent.process().stderr()?;
            Ok((said.contains("ClockSkew") && said.contains("NTP")).then_some(()))
        })
        .await?;
        ensure!(agent.process().runs()?, "clocks can be set: it should wait");
        Ok(())
    })
}
