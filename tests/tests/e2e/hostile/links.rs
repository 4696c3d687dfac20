//! By the papers of an agent that strangers' jobs broke out on: blobs by name, chunks of others' manifests, and neighbours.

use std::fs;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use quinn::Connection;
use windlass_protocol::identity::{AgentIdentity, GrantKey, tls};
use windlass_protocol::job::Epoch;
use windlass_protocol::limits::GRANT_LIFE_MS;
use windlass_protocol::link::{FramedRecv, FramedSend, LinkError, Protocol, bind_client, connect, transport};
use windlass_protocol::message::{
    AskGrant, BlobHeader, BulkAsk, Claim, FetchBlobs, Grant, SignedGrant, StoreAnswer, StoreBlobs, Wanted, WantedBlob,
};
use windlass_protocol::{AttemptId, BuildId, Digest, Namespace, Secret, Shelf, Trust};
use windlass_tests::kit::chaos::Dice;
use windlass_tests::kit::pipeline::{step, until_exists};
use windlass_tests::kit::{Build, DEADLINE, test, within};

use super::ground::{Ground, LARGE, TRUSTED, WILD, put};
use super::parts::{again, by_manifest};
use crate::strangers::Papers;

/// What is answered to a request on a stream of its own.
async fn say(connection: &Connection, request: &BulkAsk) -> Result<(FramedSend, FramedRecv), LinkError> {
    let (send, recv) = connection.open_bi().await?;
    let (mut send, recv) = (FramedSend::new(send), FramedRecv::new(recv));
    send.send_message(request).await?;
    Ok((send, recv))
}

/// The headers that answer a fetch, each with whatever bytes follow it.
async fn fetch(connection: &Connection, by: &Claim, wanted: Wanted) -> Result<Vec<(BlobHeader, Vec<u8>)>, LinkError> {
    let (mut send, mut recv) = say(connection, &BulkAsk::Fetch(FetchBlobs { by: by.clone(), wanted })).await?;
    send.finish()?;
    let mut answers = Vec::new();
    while let Some(header) = recv.recv_message::<BlobHeader>().await? {
        let (BlobHeader::Found { bytes: mut left } | BlobHeader::Manifest { bytes: mut left }) = header else {
            answers.push((header, Vec::new()));
            continue;
        };
        let mut bytes = Vec::new();
        while left > 0 {
            let piece = recv.recv_raw(left).await?;
            left -= piece.len() as u64;
            bytes.extend_from_slice(&piece);
        }
        answers.push((header, bytes));
    }
    Ok(answers)
}

async fn grant(connection: &Connection, ask: AskGrant) -> Result<Option<SignedGrant>, LinkError> {
    let (mut send, mut recv) = say(connection, &BulkAsk::Grant(ask)).await?;
    send.finish()?;
    recv.recv_message().await
}

/// The right to a step's job, as its agent has it.
fn right(build: &Build, key: &str) -> Result<(BuildId, AttemptId, Epoch)> {
    let attempt = build.attempt(key)?;
    Ok((build.id().parse()?, attempt.id().parse()?, Epoch(attempt.rights()?.1)))
}

/// Whether nothing was given: refused, or cut off.
fn is_refused<T: std::fmt::Debug>(what: &str, answered: Result<T, LinkError>) -> Result<()> {
    match answered {
        Err(LinkError::Reset { .. } | LinkError::Stopped { .. } | LinkError::Closed { .. }) => Ok(()),
        other => anyhow::bail!("{what}: {other:?}"),
    }
}

/// Grants that the agent was not given.
fn forged(own: &SignedGrant, agent: &AgentIdentity) -> Result<Vec<(&'static str, SignedGrant)>> {
    let changed = |change: &dyn Fn(&mut Grant)| {
        let mut signed = own.clone();
        change(&mut signed.grant);
        signed
    };
    let (agent, zone, trust) = (agent.agent, agent.zone.clone(), agent.trust);
    let expires_at = windlass_protocol::host::now().wall.plus_ms(GRANT_LIFE_MS);
    let grant = Grant { agent, zone, trust, namespace: Namespace::trusted("vault"), expires_at };
    let signed = GrantKey::derive(&Secret::new("a stranger's".to_owned()), &Digest::of(b""))?.sign(grant)?;
    Ok(vec![
        ("another project", changed(&|grant| grant.namespace = Namespace::trusted("vault"))),
        ("what is trusted", changed(&|grant| grant.namespace.overlay = None)),
        ("another overlay", changed(&|grant| grant.namespace = Namespace::overlay("web", "pr:7"))),
        ("another trust", changed(&|grant| grant.trust = Trust::Trusted)),
        ("another zone", changed(&|grant| grant.zone = "elsewhere".to_owned())),
        ("a longer time", changed(&|grant| grant.expires_at = grant.expires_at.plus_ms(1))),
        ("a key of its own", signed),
    ])
}

/// What is asked of others' blobs, and must be answered as if nobody had them.
async fn by_name(connection: &Connection, by: &Claim, (small, large): (Digest, Digest)) -> Result<()> {
    let nobodys = Digest::of(b"nobody has it");
    for wanted in [Wanted::Whole, Wanted::Parts] {
        let answers = fetch(connection, by, wanted(vec![nobodys, small, large])).await?;
        ensure!(answers.iter().all(|answer| *answer == (BlobHeader::Absent, vec![])), "{answers:?}");
        ensure!(answers.len() == 3, "{answers:?}");
    }
    for blob in [nobodys, small, large] {
        let answers = fetch(connection, by, Wanted::Chunks { blob, places: vec![0, 1, u32::MAX] }).await?;
        ensure!(answers == vec![(BlobHeader::Absent, vec![]); 3], "{blob}: {answers:?}");
    }
    Ok(())
}

/// Whoever offers what others have is asked for all of its bytes, as of what nobody has.
async fn by_offer(
    connection: &Connection,
    (build, attempt, epoch): (BuildId, AttemptId, Epoch),
    large: Digest,
) -> Result<()> {
    for shelf in Shelf::ALL {
        let blobs = vec![(Digest::of(b"nobody has it"), LARGE as u64), (large, LARGE as u64)];
        let offer = StoreBlobs { build, attempt, epoch, shelf, blobs };
        let (mut send, mut recv) = say(connection, &BulkAsk::Store(offer)).await?;
        let wanted = recv.recv_message::<StoreAnswer>().await?.context("an answer")?;
        let all = [0, 1].map(|place| WantedBlob { place, offset: 0 }).to_vec();
        ensure!(wanted == StoreAnswer::Wanted(all), "{wanted:?}");
        send.reset(windlass_protocol::link::Code::Canceled);
    }
    Ok(())
}

/// Connects to where an agent serves others, as whoever has these papers.
async fn as_peer(papers: &Papers, at: SocketAddr) -> Result<Result<Connection, LinkError>> {
    let ca = papers.chain.get(1).context("the CA")?.clone().into();
    let config = transport::client_config(tls::peer_client_config(&ca, &papers.chain, &papers.key)?)?;
    within("a connection", DEADLINE, connect(&bind_client()?, at, Protocol::Peer, config)).await
}

/// What is answered to a peer's request; an error where nothing is.
async fn peer_fetch(
    papers: &Papers,
    at: SocketAddr,
    by: &SignedGrant,
    wanted: Wanted,
) -> Result<Result<BlobHeader, LinkError>> {
    let connection = match as_peer(papers, at).await? {
        Ok(connection) => connection,
        Err(error) => return Ok(Err(error)),
    };
    let asking = async {
        let (send, recv) = connection.open_bi().await?;
        let (mut send, mut recv) = (FramedSend::new(send), FramedRecv::new(recv));
        send.send_message(&FetchBlobs { by: Claim::Grant(Box::new(by.clone())), wanted }).await?;
        send.finish()?;
        recv.recv_message::<BlobHeader>().await?.ok_or(LinkError::Short { missing: 1 })
    };
    within("an answer", DEADLINE, asking).await
}

/// Agents that serve each other, to one that shows what it has.
async fn neighbours(
    ground: &Ground<'_>,
    (papers, trusted): (&Papers, &Papers),
    own: &SignedGrant,
    (shared, vault): (Digest, (Digest, Digest)),
) -> Result<()> {
    // Neighbours of another trust serve nobody, whatever he shows, and get nothing either.
    let wanted = || Wanted::Parts(vec![shared]);
    for (what, papers, name) in [("a stranger's agent", papers, TRUSTED), ("a trusted agent", trusted, WILD)] {
        let at = *ground.peers.get(name).context("an address")?;
        is_refused(what, peer_fetch(papers, at, own, wanted()).await?)?;
        let chunks = Wanted::Chunks { blob: vault.1, places: vec![0] };
        is_refused(what, peer_fetch(papers, at, own, chunks).await?)?;
    }
    // Its own kind would serve it.
    let served = peer_fetch(papers, *ground.peers.get(WILD).context("an address")?, own, wanted()).await?;
    ensure!(matches!(served, Ok(BlobHeader::Found { .. } | BlobHeader::Waiting)), "{served:?}");
    let none =
        peer_fetch(papers, *ground.peers.get(WILD).context("an address")?, own, Wanted::Parts(vec![vault.0])).await?;
    ensure!(matches!(none, Ok(BlobHeader::Elsewhere | BlobHeader::Waiting)), "{none:?}");
    Ok(())
}

#[test]
fn an_agent_of_strangers_gets_nothing_from_trusted_ones_nor_by_a_grant_that_it_made() -> Result<()> {
    test(async |world| {
        let ground = Ground::start(world).await?;
        let before = ground.trusted().await?;
        let mut dice = Dice::new(9);
        let (small, large) = (dice.bytes(900), dice.bytes(LARGE));
        let vault = (ground.put("vault", &small).await?, ground.put("vault", &large).await?);
        let shared = ground.put("web", b"trusted of the same project").await?;
        let readable = dice.bytes(2 * LARGE);
        ground.put("web", &readable).await?;
        let go = world.path("go");
        let held = [step("held", &until_exists(&go))];
        let (theirs, ours) = (ground.hostile(held.clone()).await?, ground.own(held).await?);
        let running = |build: &Build| build.job_is("held", "running");
        let client = &ground.fleet.client;
        let theirs = client.wait(theirs.id(), "a stranger's job", DEADLINE, running).await?;
        let ours = client.wait(ours.id(), "a trusted job", DEADLINE, running).await?;
        ground.ran_on(&theirs, WILD)?;
        ground.ran_on(&ours, TRUSTED)?;
        let (papers, trusted) = (Papers::stolen(ground.agent(WILD)?)?, Papers::stolen(ground.agent(TRUSTED)?)?);
        let ca = papers.chain.get(1).context("the CA")?.clone();
        let bulk = papers.connect(&ca, ground.fleet.coordinator.address(), Protocol::Bulk).await?;
        let (build, attempt, epoch) = right(&theirs, "held")?;
        let lease = Claim::Lease { build, attempt, epoch };
        let found = fetch(&bulk, &lease, Wanted::Whole(vec![shared])).await?;
        ensure!(found.first().is_some_and(|(_, bytes)| bytes == b"trusted of the same project"), "{found:?}");
        by_name(&bulk, &lease, vault).await?;
        by_offer(&bulk, (build, attempt, epoch), vault.1).await?;
        let nobodys = dice.bytes(LARGE);
        by_manifest(&bulk, (build, attempt, epoch), (&readable, &large, &nobodys)).await?;
        again(&bulk, (build, attempt, epoch), &[nobodys.as_slice(), &readable].concat()).await?;
        // The right to somebody else's job is none, nor one that is older or newer than its own.
        let (other_build, other, other_epoch) = right(&ours, "held")?;
        for (build, attempt, epoch) in [
            (other_build, other, other_epoch),
            (other_build, attempt, epoch),
            (build, other, epoch),
            (build, attempt, Epoch(epoch.0 + 1)),
        ] {
            let by = Claim::Lease { build, attempt, epoch };
            is_refused("another's right", fetch(&bulk, &by, Wanted::Whole(vec![vault.0])).await)?;
            is_refused("another's grant", grant(&bulk, AskGrant { build, attempt, epoch }).await)?;
        }
        let own = grant(&bulk, AskGrant { build, attempt, epoch }).await?.context("a grant")?;
        by_name(&bulk, &Claim::Grant(Box::new(own.clone())), vault).await?;
        let named = AgentIdentity::from_certificate(papers.chain.first().context("a certificate")?)?;
        for (what, forged) in forged(&own, &named)? {
            let by = Claim::Grant(Box::new(forged.clone()));
            is_refused(what, fetch(&bulk, &by, Wanted::Whole(vec![vault.0])).await)?;
            for name in [TRUSTED, WILD] {
                let at = *ground.peers.get(name).context("an address")?;
                is_refused(what, peer_fetch(&papers, at, &forged, Wanted::Parts(vec![vault.0])).await?)?;
            }
        }
        neighbours(&ground, (&papers, &trusted), &own, (shared, vault)).await?;
        put(&ground.stranger, "web", b"what it puts is its own").await?;
        fs::write(&go, "")?;
        client.ends(ours.id(), "passed", DEADLINE).await?;
        ensure!(ground.trusted().await? == before, "main is built of something else");
        Ok(())
    })
}
