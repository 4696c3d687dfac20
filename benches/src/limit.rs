//! What the machine can do: measured beside each figure.

use std::fs::File;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use windlass_protocol::host::now;
use windlass_protocol::identity::tls::{agent_client_config, quic_server_config};
use windlass_protocol::identity::{AgentKey, AgentName, Ca};
use windlass_protocol::link::transport::{client_config, server_config};
use windlass_protocol::link::{FramedRecv, FramedSend, Protocol, accept, bind_client, bind_server, connect};
use windlass_protocol::{AgentId, Trust, WallMs};

/// Bytes of one measurement of a rate.
const RATE_BYTES: usize = 256 << 20;

/// The middle of many durations.
pub(crate) fn percentile(mut times: Vec<Duration>, percent: usize) -> Duration {
    times.sort_unstable();
    times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// fdatasync after an append of 512 bytes.
pub(crate) fn fdatasync_p50() -> anyhow::Result<Duration> {
    let dir = tempfile::tempdir_in(".")?;
    let mut file = File::create(dir.path().join("sync"))?;
    let mut times = Vec::new();
    for _ in 0..200 {
        file.write_all(&[7; 512])?;
        let began = Instant::now();
        file.sync_data()?;
        times.push(began.elapsed());
    }
    Ok(percentile(times, 50))
}

/// One fork and exec of a shell that runs `/bin/true`.
pub(crate) fn fork_exec_p50() -> anyhow::Result<Duration> {
    let mut times = Vec::new();
    for _ in 0..100 {
        let began = Instant::now();
        ensure!(Command::new("/bin/true").status()?.success());
        times.push(began.elapsed());
    }
    Ok(percentile(times, 50))
}

/// `/bin/true` a second, by `xargs -P2`.
pub(crate) fn xargs_rate(count: usize) -> anyhow::Result<f64> {
    let mut xargs = Command::new("xargs").args(["-P2", "-n1", "/bin/true"]).stdin(Stdio::piped()).spawn()?;
    let began = Instant::now();
    let mut input = xargs.stdin.take().context("xargs has no input")?;
    for number in 0..count {
        writeln!(input, "{number}")?;
    }
    drop(input);
    ensure!(xargs.wait()?.success());
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

/// Sequential writes with one fdatasync a 4 MiB, in bytes a second.
pub(crate) fn disk_rate() -> anyhow::Result<f64> {
    let dir = tempfile::tempdir_in(".")?;
    let mut file = File::create(dir.path().join("rate"))?;
    let piece = vec![42; 4 << 20];
    let began = Instant::now();
    for _ in 0..RATE_BYTES / piece.len() {
        file.write_all(&piece)?;
        file.sync_data()?;
    }
    Ok(RATE_BYTES as f64 / began.elapsed().as_secs_f64())
}

/// One TCP connection over loopback, in bytes a second.
pub(crate) async fn tcp_rate() -> anyhow::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let sender = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        let piece = vec![42_u8; 256 << 10];
        for _ in 0..RATE_BYTES / piece.len() {
            stream.write_all(&piece).await?;
        }
        anyhow::Ok(())
    });
    let began = Instant::now();
    let mut stream = TcpStream::connect(address).await?;
    let (mut buffer, mut got) = (vec![0; 256 << 10], 0);
    while got < RATE_BYTES {
        got += stream.read(&mut buffer).await?;
    }
    sender.await??;
    Ok(got as f64 / began.elapsed().as_secs_f64())
}

/// Frames of 256 KiB over one stream of our own link, in bytes a second.
pub(crate) async fn quic_rate() -> anyhow::Result<f64> {
    let at = now().wall;
    let ca = Ca::create(at)?;
    let server = ca.issue_server(&[], &[], WallMs(at.0 - 60_000), 3_600_000)?;
    let key = AgentKey::generate()?;
    let name = AgentName {
        agent: AgentId::from_bytes([1; 16]),
        pool: "bench".to_owned(),
        zone: "bench".to_owned(),
        trust: Trust::Trusted,
    };
    let chain = ca.issue_agent(&key.csr()?, &name, WallMs(at.0 - 60_000), 3_600_000)?;
    let listening =
        bind_server("127.0.0.1:0".parse()?, server_config(quic_server_config(&server, ca.certificate_der())?)?)?;
    let address = listening.local_addr()?;
    let receiver = tokio::spawn(async move {
        let accepted = accept(listening.accept().await.context("nobody came")?).await?;
        let mut recv = FramedRecv::new(accepted.connection.accept_uni().await?);
        let mut got = 0;
        while got < RATE_BYTES {
            got += recv.recv().await?.context("the stream ended")?.len();
        }
        anyhow::Ok(())
    });
    let endpoint = bind_client()?;
    let tls = agent_client_config(ca.certificate_der(), &chain, &key, Protocol::Agent.alpn())?;
    let connection = connect(&endpoint, address, Protocol::Agent, client_config(tls)?).await?;
    let mut send = FramedSend::new(connection.open_uni().await?);
    let piece = Bytes::from(vec![42_u8; 256 << 10]);
    let began = Instant::now();
    for _ in 0..RATE_BYTES / piece.len() {
        send.send(piece.clone()).await?;
    }
    receiver.await??;
    Ok(RATE_BYTES as f64 / began.elapsed().as_secs_f64())
}
