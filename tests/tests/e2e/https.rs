//! HTTPS: beyond loopback there is nothing else; by the coordinator's own CA or by an operator's files, both renewed
//! while it serves.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use windlass_protocol::WallMs;
use windlass_protocol::identity::{Ca, ServerCertificate};
use windlass_tests::kit::net::{Zone, no_zones};
use windlass_tests::kit::pipeline::{pipeline, step};
use windlass_tests::kit::skip::skip;
use windlass_tests::kit::{
    Agent, AgentOptions, Client, Coordinator, CoordinatorOptions, DEADLINE, Exit, Fleet, JoinToken, Ran, World, test,
    until,
};

fn now() -> WallMs {
    windlass_protocol::host::now().wall
}

/// The certificate that a server shows, if it is believed under this CA.
fn shown(address: SocketAddr, ca_pem: &[u8]) -> Result<Vec<u8>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem)?)?;
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::from(address.ip());
    let mut connection = rustls::ClientConnection::new(Arc::new(config), name)?;
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    let chain = connection.peer_certificates().context("a certificate")?;
    Ok(chain.first().context("a leaf")?.to_vec())
}

async fn cli(world: &World, zone: &Zone, arguments: &[&str]) -> Result<Ran> {
    let binary = windlass_tests::kit::world::binary()?;
    zone.run(world, &binary.display().to_string(), arguments).await
}

#[test]
fn beyond_loopback_there_is_https_by_the_own_ca_and_nothing_plain() -> Result<()> {
    if let Some(why) = no_zones()? {
        return skip("https", &why);
    }
    test(async |world| {
        let zone = &Zone::new("h", 21);
        zone.make().await?;
        let options = CoordinatorOptions { listen: format!("{}:0", zone.ours), ..CoordinatorOptions::default() };
        let coordinator = Coordinator::start_with(world, options).await?;
        let (url, ca) = (coordinator.url(), coordinator.ca_file().display().to_string());
        ensure!(url.starts_with("https://198.18.21.1:"), "{url}");
        let plain = url.replace("https", "http");
        ensure!(Client::new(&plain, None)?.get("/healthz").await.is_err(), "plain HTTP is answered");
        let health = format!("{url}/healthz");
        let curl = async |arguments: &[&str]| zone.run(world, "curl", arguments).await;
        curl(&["-sSf", "--cacert", &ca, &health]).await?.code(0)?;
        // curl: 60 is a certificate that is not believed.
        curl(&["-sSf", &health]).await?.code(60)?;
        let token = coordinator.data().join("api-token").display().to_string();
        let list = ["build", "list", "--server", &url, "--token-file", &token];
        cli(world, zone, &[&list[..], &["--ca-file", &ca]].concat()).await?.code(0)?;
        let other = world.path("other-ca.pem");
        std::fs::write(&other, Ca::create_p256(now())?.certificate_pem())?;
        let refused = cli(world, zone, &[&list[..], &["--ca-file", &other.display().to_string()]].concat()).await?;
        ensure!(refused.code(3)?.stderr.contains("certificate"), "another CA is believed");
        // Without a word about the CA it is found where the server left its own for this user, and only there.
        cli(world, zone, &list).await?.code(0)?;
        let elsewhere = format!("XDG_RUNTIME_DIR={}", world.path("nowhere").display());
        let binary = windlass_tests::kit::world::binary()?.display().to_string();
        let refused = zone.run(world, "env", &[&[elsewhere.as_str(), &binary][..], &list].concat()).await?;
        ensure!(refused.code(3)?.stderr.contains("certificate"), "an unknown CA is believed");
        let plain = ["build", "list", "--server", &plain, "--token-file", &token];
        let refused = cli(world, zone, &plain).await?.code(2)?;
        ensure!(refused.stderr.contains("--insecure-http"), "{}", refused.stderr);
        // The agents' link is the same port over UDP, and the same CA.
        let fleet = Fleet::around(world, coordinator, &JoinToken::pool("local", &["default"]), 1).await?;
        fleet.run_to("passed", pipeline([step("works", "true")])).await?;
        Ok(())
    })
}

#[test]
fn the_servers_own_certificates_are_renewed_while_they_serve() -> Result<()> {
    if let Some(why) = no_zones()? {
        return skip("https", &why);
    }
    test(async |world| {
        let zone = &Zone::new("r", 22);
        zone.make().await?;
        let config = world.path("coordinator.toml");
        std::fs::write(&config, "server_certificate_seconds = 10\n")?;
        let options = CoordinatorOptions {
            listen: format!("{}:0", zone.ours),
            more: vec!["--config".to_owned(), config.display().to_string()],
            ..CoordinatorOptions::default()
        };
        let coordinator = Coordinator::start_with(world, options).await?;
        let (address, ca) = (coordinator.address(), std::fs::read(coordinator.ca_file())?);
        let first = shown(address, &ca)?;
        let mut fleet = Fleet::around(world, coordinator, &JoinToken::pool("local", &["default"]), 1).await?;
        let end = now().plus_ms(11_000);
        let mut certificates = vec![first];
        until("the first certificate's end and others after it", DEADLINE, async || {
            // Every handshake on the way must be believed.
            let leaf = shown(address, &ca)?;
            if certificates.last() != Some(&leaf) {
                certificates.push(leaf);
            }
            Ok((now() > end && certificates.len() >= 3).then_some(()))
        })
        .await?;
        // The link too: an agent that comes only now believes what it is shown.
        let late = Agent::start(world, AgentOptions::new("late", address, &fleet.join_token))?;
        late.in_state(&fleet.client, "online").await?;
        let first = fleet.agents.first_mut().context("the first agent")?;
        ensure!(!first.process().stderr()?.contains("connection_lost"), "{}", first.process().stderr()?);
        fleet.run_to("passed", pipeline([step("works", "true")])).await?;
        Ok(())
    })
}

/// Puts a certificate and its key where the coordinator reads them, each whole or not at all.
fn put(dir: &Path, certificate: &ServerCertificate) -> Result<()> {
    for (name, text) in [("tls.crt", certificate.chain_pem()), ("tls.key", certificate.key_pem().expose())] {
        std::fs::write(dir.join("new"), text)?;
        std::fs::rename(dir.join("new"), dir.join(name))?;
    }
    Ok(())
}

#[test]
fn an_operators_certificate_is_served_and_read_again_when_it_changes() -> Result<()> {
    test(async |world| {
        let ca = Ca::create_p256(now())?;
        let issue = || ca.issue_web_server(&[], &["127.0.0.1".parse()?], now(), 3_600_000).map_err(anyhow::Error::from);
        let certificates = [issue()?, issue()?, issue()?];
        let (first, second, third) = (&certificates[0], &certificates[1], &certificates[2]);
        let leaf = |certificate: &ServerCertificate| certificate.chain.first().cloned().unwrap_or_default();
        let dir = world.path("tls");
        std::fs::create_dir(&dir)?;
        put(&dir, first)?;
        let path = |name: &str| dir.join(name).display().to_string();
        let flags = ["--tls-cert", &path("tls.crt"), "--tls-key", &path("tls.key")];
        let options = CoordinatorOptions { more: flags.map(str::to_owned).to_vec(), ..CoordinatorOptions::default() };
        let mut coordinator = Coordinator::start_with(world, options).await?;
        let (address, roots) = (coordinator.address(), ca.certificate_pem().as_bytes().to_vec());
        ensure!(shown(address, &roots)? == leaf(first), "another certificate is shown");
        let (ca_file, token) = (world.path("ca.pem"), coordinator.data().join("api-token").display().to_string());
        std::fs::write(&ca_file, &roots)?;
        let ca_file = ca_file.display().to_string();
        let url = coordinator.url();
        let list = ["build", "list", "--server", &url, "--token-file", &token, "--ca-file"];
        world.run([&list[..], &[&ca_file]].concat(), DEADLINE).await?.code(0)?;
        let own = coordinator.ca_file().display().to_string();
        world.run([&list[..], &[&own]].concat(), DEADLINE).await?.code(3)?;
        // At once, by a signal.
        put(&dir, second)?;
        coordinator.process().signal(Signal::HUP)?;
        let shows = async |wanted: &ServerCertificate, deadline: u64| {
            let what = "the new certificate";
            let wanted = leaf(wanted);
            until(what, Duration::from_secs(deadline), async || Ok((shown(address, &roots)? == wanted).then_some(())))
                .await
        };
        shows(second, 5).await?;
        // Half a pair changes nothing.
        std::fs::write(dir.join("tls.key"), third.key_pem().expose())?;
        coordinator.process().signal(Signal::HUP)?;
        until("the word about it", DEADLINE, async || {
            Ok(coordinator.process().stderr()?.contains("certificate_not_reloaded").then_some(()))
        })
        .await?;
        ensure!(shown(address, &roots)? == leaf(second), "half a pair is shown");
        // By itself, after a while.
        put(&dir, third)?;
        shows(third, 25).await?;
        ensure!(coordinator.term().await? == Exit::Code(0), "{}", coordinator.process().stderr()?);
        Ok(())
    })
}
