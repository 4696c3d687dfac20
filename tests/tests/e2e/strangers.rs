//! Peers that send nonsense to the QUIC port: refused, counted, and everything else goes on.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use quinn::Connection;
use serde_json::json;
use windlass_protocol::frame;
use windlass_protocol::id::AgentId;
use windlass_protocol::identity::{AgentIdentity, AgentKey, AgentName, Ca, Chain, JoinToken, tls};
use windlass_protocol::limits::{CERT_LIFE_MS, FRAME_MAX_BYTES};
use windlass_protocol::link::{FramedRecv, FramedSend, Protocol, ask, bind_client, connect, transport};
use windlass_protocol::message::{
    AgentMessage, CoordinatorMessage, Enrol, EnrolAnswer, Evidence, Hello, RefuseCode, encode,
};
use windlass_protocol::{AttemptId, Trust, WallMs};
use windlass_tests::kit::chaos::Dice;
use windlass_tests::kit::pipeline::{pipeline, step};
use windlass_tests::kit::{Agent, Client, DEADLINE, Fleet, test, until, within};

/// What a coordinator counts of all this.
const REFUSED: &str = "windlass_link_refused_total";

/// An identity as an agent keeps it, or as a stranger makes it.
pub(crate) struct Papers {
    pub(crate) key: AgentKey,
    pub(crate) chain: Chain,
}

impl Papers {
    /// Those of an agent that has joined: what somebody would have who broke into its machine.
    pub(crate) fn stolen(agent: &Agent<'_>) -> Result<Self> {
        let dir = agent.data().join("identity");
        let key = AgentKey::from_pem(&std::fs::read_to_string(dir.join("key.pem"))?)?;
        let bytes = std::fs::read(dir.join("chain.der"))?;
        let mut rest = bytes.as_slice();
        let mut chain = Chain::new();
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let (certificate, after) =
                after.split_at_checked(u32::from_le_bytes(*length) as usize).context("a certificate")?;
            chain.push(certificate.to_vec());
            rest = after;
        }
        Ok(Self { key, chain })
    }

    /// Those that a CA of one's own signs for the name of somebody else's agent.
    fn forged(name: &AgentName) -> Result<Self> {
        let ca = Ca::create(now())?;
        let key = AgentKey::generate()?;
        let chain = ca.issue_agent(&key.csr()?, name, WallMs(now().0 - 60_000), CERT_LIFE_MS)?;
        Ok(Self { key, chain })
    }

    /// Connects, believing in the CA that is really there.
    pub(crate) async fn connect(&self, ca: &[u8], address: SocketAddr, protocol: Protocol) -> Result<Connection> {
        let config = tls::agent_client_config(&ca.to_vec().into(), &self.chain, &self.key, protocol.alpn())?;
        let endpoint = bind_client()?;
        Ok(connect(&endpoint, address, protocol, transport::client_config(config)?).await?)
    }
}

fn now() -> WallMs {
    windlass_protocol::host::now().wall
}

/// Whether the connection is ended by the other side.
async fn is_ended(connection: &Connection) -> Result<()> {
    within("the connection's end", DEADLINE, connection.closed()).await?;
    Ok(())
}

/// Waits until more was counted than before; gives the new count.
async fn counted(client: &Client, what: &str, before: f64) -> Result<f64> {
    until(&format!("{what} counted in {REFUSED}"), Duration::from_secs(15), async || {
        let now = client.metric(REFUSED).await?;
        Ok((now > before).then_some(now))
    })
    .await
}

/// The fleet still works, and the agent whose papers were used is as it was.
async fn goes_on(fleet: &Fleet<'_>) -> Result<()> {
    fleet.run_to("passed", pipeline([step("still", "echo here")])).await?;
    Ok(())
}

fn frame_of(payload: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    frame::encode(payload, &mut bytes)?;
    Ok(bytes)
}

pub(crate) fn hello() -> AgentMessage {
    AgentMessage::Hello(Hello {
        name: "stranger".to_owned(),
        version: "0".to_owned(),
        machine_id: "m".to_owned(),
        boot_id: String::new(),
        slots: 1,
        capacity: windlass_protocol::job::Resources { cpu_millis: 1_000, memory_bytes: 1 << 30 },
        tags: Vec::new(),
        runs_images: false,
        capabilities: Vec::new(),
        host: windlass_protocol::HostFacts::default(),
        held: Vec::new(),
    })
}

/// First messages that are none.
fn nonsense() -> Result<Vec<(&'static str, Vec<u8>)>> {
    let mut dice = Dice::new(3);
    let good = encode(&hello())?.to_vec();
    let mut flipped = frame_of(&good)?;
    let middle = flipped.len() / 2;
    if let Some(byte) = flipped.get_mut(middle) {
        *byte ^= 0x10;
    }
    let mut huge = (FRAME_MAX_BYTES + 1).to_le_bytes().to_vec();
    huge.extend_from_slice(&[0; 64]);
    let mut cut = frame_of(&good)?;
    cut.truncate(cut.len() - 3);
    let beat = AgentMessage::Beat { seq: 1, health: windlass_protocol::message::Health::default(), held: Vec::new() };
    Ok(vec![
        ("noise", dice.bytes(4_096)),
        ("noise in a good frame", frame_of(&dice.bytes(300))?),
        ("a flipped bit", flipped),
        ("a frame past the limit", huge),
        ("a frame that is cut", cut),
        ("an empty frame", frame_of(&[])?),
        ("a beat before the hello", frame_of(&encode(&beat)?)?),
    ])
}

#[test]
fn noise_on_the_port_disturbs_nobody() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        let mut dice = Dice::new(1);
        for _ in 0..2_000 {
            let length = 1 + usize::try_from(dice.next() % 1_400)?;
            let mut bytes = dice.bytes(length);
            // Half of them look like the beginning of a QUIC handshake.
            if let Some(first) = bytes.first_mut().filter(|first| **first & 1 == 1) {
                *first = 0xc0 | (*first & 0x0f);
            }
            socket.send_to(&bytes, fleet.coordinator.address())?;
        }
        // TCP: neither HTTP nor anything else.
        for _ in 0..20 {
            let mut stream = std::net::TcpStream::connect(fleet.coordinator.address())?;
            std::io::Write::write_all(&mut stream, &dice.bytes(2_000))?;
        }
        goes_on(&fleet).await
    })
}

#[test]
fn a_first_message_that_is_none_ends_its_connection_alone_and_is_counted() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let papers = Papers::stolen(fleet.agents.first().context("an agent")?)?;
        let ca = papers.chain.get(1).context("the CA")?.clone();
        let mut before = fleet.client.metric(REFUSED).await?;
        for (what, bytes) in nonsense()? {
            let connection = papers.connect(&ca, fleet.coordinator.address(), Protocol::Agent).await?;
            let (mut send, _recv) = connection.open_bi().await?;
            send.write_all(&bytes).await?;
            // It may be stopped before it is finished.
            let _ = send.finish();
            is_ended(&connection).await.with_context(|| what.to_owned())?;
            before = counted(&fleet.client, what, before).await?;
        }
        goes_on(&fleet).await
    })
}

#[test]
fn a_certificate_of_another_ca_opens_nothing() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let ca = Papers::stolen(fleet.agents.first().context("an agent")?)?.chain.get(1).context("the CA")?.clone();
        let agents = fleet.client.agents().await?;
        let id: AgentId = agents.first().and_then(|agent| agent["id"].as_str()).context("an agent")?.parse()?;
        let name = AgentName { agent: id, pool: "local".to_owned(), zone: "local".to_owned(), trust: Trust::Trusted };
        let papers = Papers::forged(&name)?;
        let mut before = fleet.client.metric(REFUSED).await?;
        for protocol in [Protocol::Agent, Protocol::Bulk] {
            // TLS 1.3 lets a client think for a moment that it is in.
            if let Ok(connection) = papers.connect(&ca, fleet.coordinator.address(), protocol).await {
                is_ended(&connection).await?;
            }
            before = counted(&fleet.client, "a forged certificate", before).await?;
        }
        goes_on(&fleet).await
    })
}

#[test]
fn a_made_up_join_token_is_refused_by_name_and_counted() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let real: JoinToken = fleet.join_token.parse().map_err(|error| anyhow::anyhow!("{error}"))?;
        let mut ids = windlass_protocol::IdSource::from_seed([7; 32]);
        let unknown = JoinToken::generate(ids.token(now()), real.ca)?;
        let guessed = JoinToken::generate(real.id, real.ca)?;
        let mut before = fleet.client.metric(REFUSED).await?;
        for token in [unknown, guessed] {
            let config = transport::client_config(tls::enrol_client_config(token.ca)?)?;
            let connection = connect(&bind_client()?, fleet.coordinator.address(), Protocol::Enrol, config).await?;
            let enrol = Enrol {
                token: token.id,
                secret: *token.secret.expose(),
                csr: AgentKey::generate()?.csr()?,
                name: "stranger".to_owned(),
                machine_id: "m".to_owned(),
                tags: Vec::new(),
                version: "0".to_owned(),
                evidence: Evidence::None,
            };
            let answer: EnrolAnswer = within("an answer", DEADLINE, ask(&connection, &enrol)).await??;
            let EnrolAnswer::Refused { code, .. } = answer else { anyhow::bail!("a stranger was let in: {answer:?}") };
            ensure!(code == RefuseCode::TokenUnknown, "{code:?}");
            before = counted(&fleet.client, "a made-up token", before).await?;
        }
        ensure!(fleet.client.agents().await?.len() == 1, "a stranger is an agent");
        goes_on(&fleet).await
    })
}

#[test]
fn revoking_an_agent_closes_what_it_has_open_within_a_second() -> Result<()> {
    test(async |world| {
        let mut fleet = Fleet::start(world).await?;
        let agents = fleet.client.agents().await?;
        let id = agents.first().and_then(|agent| agent["id"].as_str()).context("an agent")?.to_owned();
        // Whoever has its papers need not be polite: it goes on sending, and leaves nothing by itself.
        let agent = fleet.agents.first_mut().context("an agent")?;
        let papers = Papers::stolen(agent)?;
        let ca = papers.chain.get(1).context("the CA")?.clone();
        agent.kill9().await?;
        let address = fleet.coordinator.address();
        let control = papers.connect(&ca, address, Protocol::Agent).await?;
        let (send, recv) = control.open_bi().await?;
        let (mut send, mut recv) = (FramedSend::new(send), FramedRecv::new(recv));
        send.send_message(&hello()).await?;
        let welcome = within("a welcome", DEADLINE, recv.recv_message::<CoordinatorMessage>()).await??;
        ensure!(matches!(welcome, Some(CoordinatorMessage::Welcome { .. })), "{welcome:?}");
        let bulk = papers.connect(&ca, address, Protocol::Bulk).await?;
        fleet.client.post(&format!("/agents/{id}/revoke"), &json!({})).await?.status(200)?;
        let both = async { tokio::join!(control.closed(), bulk.closed()) };
        within("the end of both connections", Duration::from_secs(1), both).await?;
        // And it gets no new one.
        for protocol in [Protocol::Agent, Protocol::Bulk] {
            let again = papers.connect(&ca, address, protocol).await?;
            if protocol == Protocol::Agent {
                let (send, recv) = again.open_bi().await?;
                let (mut send, mut recv) = (FramedSend::new(send), FramedRecv::new(recv));
                send.send_message(&hello()).await?;
                let refused = within("a refusal", DEADLINE, recv.recv_message::<CoordinatorMessage>()).await??;
                let revoked =
                    matches!(refused, Some(CoordinatorMessage::Refuse { code: RefuseCode::AgentRevoked, .. }));
                ensure!(revoked, "{refused:?}");
            }
            is_ended(&again).await?;
        }
        Ok(())
    })
}

#[test]
fn a_certificate_from_the_future_is_refused_for_the_clocks() -> Result<()> {
    test(async |world| {
        let mut fleet = Fleet::start(world).await?;
        let agent = fleet.agents.first_mut().context("an agent")?;
        let mut papers = Papers::stolen(agent)?;
        agent.kill9().await?;
        // As the coordinator's own CA would have made it with its clock an hour ahead.
        let dir = fleet.coordinator.data().join("identity");
        let read = |name: &str| std::fs::read_to_string(dir.join(name));
        let ca = Ca::from_pem(&read("ca.pem")?, &windlass_protocol::Secret::new(read("ca-key.pem")?))?;
        let held = AgentIdentity::from_certificate(papers.chain.first().context("a certificate")?)?;
        let name = AgentName { agent: held.agent, pool: held.pool, zone: held.zone, trust: held.trust };
        papers.chain = ca.issue_agent(&papers.key.csr()?, &name, now().plus_ms(3_600_000), CERT_LIFE_MS)?;
        let connection = papers.connect(ca.certificate_der(), fleet.coordinator.address(), Protocol::Agent).await?;
        let (send, recv) = connection.open_bi().await?;
        let (mut send, mut recv) = (FramedSend::new(send), FramedRecv::new(recv));
        send.send_message(&hello()).await?;
        let refused = within("a refusal", DEADLINE, recv.recv_message::<CoordinatorMessage>()).await??;
        let skewed = matches!(refused, Some(CoordinatorMessage::Refuse { code: RefuseCode::ClockSkew, .. }));
        ensure!(skewed, "{refused:?}");
        Ok(())
    })
}

#[test]
fn an_agent_that_claims_anothers_job_changes_nothing_of_it() -> Result<()> {
    test(async |world| {
        let pool = windlass_tests::kit::JoinToken::pool("local", &["default"]);
        let fleet = Fleet::of(world, &pool, 1).await?;
        // A second machine of the pool, which somebody has broken into. Its agent is gone, its papers are in use.
        let options =
            windlass_tests::kit::AgentOptions::new("broken-into", fleet.coordinator.address(), &fleet.join_token);
        let go = world.path("go");
        let mut other = Agent::start(world, options)?;
        other.in_state(&fleet.client, "online").await?;
        let papers = Papers::stolen(&other)?;
        let ca = papers.chain.get(1).context("the CA")?.clone();
        other.kill9().await?;
        let script = format!("{}; echo mine", windlass_tests::kit::pipeline::until_exists(&go));
        let build = fleet.running(pipeline([step("held", &script)]), "held").await?;
        let attempt = build.attempt("held")?;
        ensure!(attempt.agent() == "agent-1", "{}", attempt.0);
        let id: AttemptId = attempt.id().parse()?;
        let epoch = windlass_protocol::job::Epoch(1);
        let outcome = windlass_protocol::job::Outcome {
            exit_status: Some(1),
            signal: None,
            cause: None,
            started_at: None,
            finished_at: now(),
            log_bytes: 0,
            log_digest: windlass_protocol::Digest::of(b""),
            log_truncated: false,
            peak_memory_bytes: None,
        };
        let connection = papers.connect(&ca, fleet.coordinator.address(), Protocol::Agent).await?;
        let (send, recv) = connection.open_bi().await?;
        let (mut send, mut recv) = (FramedSend::new(send), FramedRecv::new(recv));
        send.send_message(&hello()).await?;
        let welcome = within("a welcome", DEADLINE, recv.recv_message::<CoordinatorMessage>()).await??;
        ensure!(welcome.is_some(), "no welcome");
        let before = fleet.client.metric(REFUSED).await?;
        for message in [
            AgentMessage::Accepted { attempt: id, epoch },
            AgentMessage::Started { attempt: id, epoch, at: now() },
            AgentMessage::Finished { attempt: id, epoch, outcome },
            AgentMessage::Stopped { attempt: id, epoch },
        ] {
            send.send_message(&message).await?;
        }
        // And a log that it has no right to write.
        let mut log = FramedSend::new(connection.open_uni().await?);
        let header = windlass_protocol::message::LogHeader { attempt: id, epoch, offset: 0 };
        if log.send_message(&header).await.is_ok() {
            // Refusing it early is as good.
            let _ = log.send_log_chunk(0, now(), bytes::Bytes::from_static(b"not mine\n")).await;
        }
        counted(&fleet.client, "another's job", before).await?;
        std::fs::write(&go, "")?;
        let build = fleet.client.ends(build.id(), "passed", DEADLINE).await?;
        ensure!(fleet.log_of(&build, "held").await? == "mine\n", "the log is another");
        ensure!(build.job("held")?.attempts().len() == 1, "{}", build.0);
        Ok(())
    })
}
