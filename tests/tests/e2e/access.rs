//! Who is let in: join tokens and API tokens that are past, taken back, spent or made up.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use windlass_tests::kit::pipeline::{pipeline, step};
use windlass_tests::kit::{Agent, AgentOptions, Exit, Fleet, JoinToken, Submit, test, until};

/// A token with one character of its secret changed and its checksum with it is still a stranger's; with the checksum
/// alone wrong it is a slip. Both are tried by changing one character.
fn forged(token: &str) -> String {
    let at = token.len() / 2;
    let other = if token.as_bytes().get(at) == Some(&b'a') { "b" } else { "a" };
    format!("{}{other}{}", token.get(..at).unwrap_or_default(), token.get(at + 1..).unwrap_or_default())
}

#[test]
fn an_agent_with_a_bad_join_token_is_refused_for_good_and_says_why() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let pool = || JoinToken::pool("local", &["default"]);
        let expired = fleet.client.join_token(&pool().with("expires_in_s", json!(0))).await?;
        let revoked = fleet.client.join_token(&pool()).await?;
        let tokens = fleet.client.get("/tokens").await?.status(200)?.json()?;
        let newest = tokens["items"][0]["id"].as_str().context("a token's id")?.to_owned();
        fleet.client.post(&format!("/tokens/{newest}/revoke"), &json!({})).await?.status(200)?;
        let spent = fleet.client.join_token(&pool().with("uses", json!(1))).await?;
        let mut first = Agent::start(world, AgentOptions::new("first", fleet.coordinator.address(), &spent))?;
        first.in_state(&fleet.client, "online").await?;
        for (name, token, word) in [
            ("expired", expired.clone(), "time is over"),
            ("revoked", revoked, "revoked"),
            ("spent", spent, "all uses"),
            ("slip", forged(&expired), "token"),
            ("empty", String::new(), "token"),
        ] {
            let options = AgentOptions::new(name, fleet.coordinator.address(), &token);
            let mut agent = Agent::start(world, options)?;
            let exit = agent.ended().await.with_context(|| format!("agent {name}"))?;
            let said = agent.process().stderr()?;
            ensure!(matches!(exit, Exit::Code(2 | 4)), "{name}: {exit:?}\n{said}");
            ensure!(said.contains(word), "{name} says nothing of `{word}`: {said}");
            ensure!(!said.contains("panicked"), "{said}");
        }
        ensure!(first.process().runs()?, "the first agent is gone");
        let online = fleet.client.agents().await?;
        ensure!(online.len() == 2, "strangers have joined: {online:?}");
        Ok(())
    })
}

#[test]
fn a_token_that_contradicts_its_pool_is_refused() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let other =
            json!({ "kind": "join", "pool": "local", "zone": "elsewhere", "queues": ["default"], "trust": "trusted" });
        let refused = fleet.client.post("/tokens", &other).await?;
        ensure!(refused.status == 409, "status {}: {:?}", refused.status, refused.json());
        refused.problem()?;
        Ok(())
    })
}

#[test]
fn a_request_without_the_right_token_is_refused_and_does_nothing() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let client = &fleet.client;
        let submit = Submit::text(pipeline([step("never", "true")]));
        let admin = fleet.coordinator.token()?;
        let join = fleet.join_token.clone();
        for (what, token) in [
            ("none", None),
            ("forged", Some(forged(&admin))),
            ("a join token", Some(join)),
            ("noise", Some("x".repeat(4_000))),
        ] {
            let stranger = client.token(token.as_deref());
            for answer in
                [stranger.get("/builds").await?, stranger.try_submit(&submit).await?, stranger.get("/tokens").await?]
            {
                ensure!(answer.status == 401, "{what}: status {}", answer.status);
                answer.problem()?;
            }
        }
        let reader = client.api_token(&["builds:read"], &json!({})).await?;
        let reader_token = reader["token"].as_str().context("a token")?.to_owned();
        let reading = client.token(Some(&reader_token));
        reading.get("/builds").await?.status(200)?;
        for answer in [reading.try_submit(&submit).await?, reading.get("/tokens").await?] {
            ensure!(answer.status == 403, "status {}", answer.status);
            answer.problem()?;
        }
        let id = reader["id"].as_str().context("an id")?;
        client.post(&format!("/tokens/{id}/revoke"), &json!({})).await?.status(200)?;
        ensure!(reading.get("/builds").await?.status == 401, "a revoked token still reads");
        let brief = client.api_token(&["builds:read"], &json!({ "expires_in_s": 1 })).await?;
        let brief = client.token(brief["token"].as_str());
        until("the token's end", Duration::from_secs(5), async || {
            Ok((brief.get("/builds").await?.status == 401).then_some(()))
        })
        .await?;
        let list = client.get("/builds").await?.status(200)?.json()?;
        ensure!(list["items"] == json!([]), "a stranger submitted: {list}");
        Ok(())
    })
}

#[test]
fn tokens_are_shown_once_and_never_again() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let list = fleet.client.get("/tokens").await?.status(200)?;
        let text = String::from_utf8_lossy(&list.body).into_owned();
        let secret_of = |token: &str| token.rsplit('_').next().unwrap_or_default().to_owned();
        for token in [fleet.coordinator.token()?, fleet.join_token.clone()] {
            ensure!(!text.contains(&secret_of(&token)), "a listed token shows its secret");
        }
        for entry in std::fs::read_dir(fleet.coordinator.data())? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_file() && path.file_name() != Some("api-token".as_ref()) {
                let bytes = std::fs::read(&path)?;
                let found = String::from_utf8_lossy(&bytes).contains(&secret_of(&fleet.join_token));
                ensure!(!found, "{} holds a token's secret", path.display());
            }
        }
        Ok(())
    })
}

#[test]
fn private_files_are_their_owners_alone() -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let agent = fleet.agents.first().context("an agent")?;
        for path in [fleet.coordinator.data().join("api-token"), agent.data().join("identity/key.pem")] {
            let mode = std::fs::metadata(&path)?.permissions().mode() & 0o777;
            ensure!(mode == 0o600, "{} has mode {mode:o}", path.display());
        }
        Ok(())
    })
}

#[test]
fn a_revoked_agent_is_cut_off_at_once_and_stays_out() -> Result<()> {
    test(async |world| {
        let mut fleet = Fleet::start(world).await?;
        let agents = fleet.client.agents().await?;
        let id = agents.first().and_then(|agent| agent["id"].as_str()).context("an agent")?.to_owned();
        fleet.client.post(&format!("/agents/{id}/revoke"), &json!({})).await?.status(200)?;
        let agent = fleet.agents.first_mut().context("an agent")?;
        ensure!(agent.ended().await? == Exit::Code(4), "{}", agent.process().stderr()?);
        // Its key and certificate are still there; they are worth nothing.
        agent.restart().await?;
        ensure!(agent.ended().await? == Exit::Code(4), "{}", agent.process().stderr()?);
        Ok(())
    })
}

#[test]
fn when_a_token_was_last_used_is_known_after_a_restart() -> Result<()> {
    test(async |world| {
        let mut fleet = Fleet::of(world, &JoinToken::pool("local", &["default"]), 0).await?;
        let created = fleet.client.api_token(&["builds:read"], &json!({})).await?;
        let id = created["id"].as_str().context("an id")?.to_owned();
        let user = fleet.client.token(created["token"].as_str());
        user.get("/builds").await?.status(200)?;
        let used = async |client: &windlass_tests::kit::Client| -> Result<String> {
            let tokens = client.get("/tokens?limit=500").await?.status(200)?.json()?;
            let token = tokens["items"].as_array().into_iter().flatten().find(|token| token["id"] == *id);
            Ok(token.context("the token")?["last_used_at"].as_str().context("a last use")?.to_owned())
        };
        let before = used(&fleet.client).await?;
        ensure!(fleet.coordinator.term().await? == Exit::Code(0));
        fleet.coordinator.restart().await?;
        ensure!(used(&fleet.client).await? == before, "another time than {before}");
        Ok(())
    })
}
