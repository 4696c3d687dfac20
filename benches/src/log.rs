//! Logs: how fast they flow, and how long a line is on its way.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use futures_util::StreamExt as _;
use serde_json::Value;

use crate::limit::{disk_rate, percentile, quic_rate, tcp_rate};
use crate::server::{Server, secrets};
use crate::table::Table;

/// Bytes of the measured log.
const LOG_BYTES: u64 = 512 << 20;

/// A build of one step that runs this program as `emit …`.
fn emitting(arguments: &str) -> anyhow::Result<String> {
    let program = std::env::current_exe()?;
    Ok(format!("env:\n{}steps:\n  - command: {} emit {arguments}\n", secrets(), program.display()))
}

pub(crate) async fn throughput(server: &Server, table: &mut Table) -> anyhow::Result<()> {
    let (disk, quic, tcp) = (disk_rate()?, quic_rate().await?, tcp_rate().await?);
    let began = Instant::now();
    let build = server.submit(&emitting(&format!("bytes 4096 {LOG_BYTES}"))?).await?;
    let attempt = server.attempt(&build).await?;
    let mut got = 0;
    let mut stream = Events::new(server.follow(&attempt).await?);
    while let Some(event) = stream.next().await? {
        got += event["length"].as_u64().unwrap_or(0);
        if got >= LOG_BYTES {
            break;
        }
    }
    let watched = got as f64 / began.elapsed().as_secs_f64();
    server.passed(&build).await?;
    let rate = LOG_BYTES as f64 / began.elapsed().as_secs_f64();
    let least = quic.min(disk / 2.0);
    let mb = |rate: f64| rate / 1e6;
    let limit = format!("min(link {:.0}, half disk {:.0}) MB/s; raw TCP {:.0}", mb(quic), mb(disk / 2.0), mb(tcp));
    let figure = format!("{:.0} MB/s (watcher {:.0})", mb(rate), mb(watched));
    table.at_least("log of 4 KiB writes, job to durable and one watcher", figure, limit, rate / least, 0.5);
    Ok(())
}

/// How late a thread wakes up that sleeps a millisecond again and again, beside what is measured: what the machine adds to
/// every figure of time, of this run.
struct Sleeper(std::sync::Arc<std::sync::atomic::AtomicBool>, std::thread::JoinHandle<Vec<Duration>>);

impl Sleeper {
    fn start() -> Self {
        let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let told = std::sync::Arc::clone(&over);
        let sleep = Duration::from_millis(1);
        let thread = std::thread::spawn(move || {
            let mut late = Vec::new();
            while !told.load(std::sync::atomic::Ordering::Relaxed) {
                let began = Instant::now();
                std::thread::sleep(sleep);
                late.push(began.elapsed().saturating_sub(sleep));
            }
            late
        });
        Self(over, thread)
    }

    fn stop(self) -> anyhow::Result<Vec<Duration>> {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
        self.1.join().map_err(|_| anyhow::anyhow!("the sleeper panicked"))
    }
}

pub(crate) async fn latency(server: &Server, table: &mut Table) -> anyhow::Result<()> {
    let sleeper = Sleeper::start();
    let build = server.submit(&emitting("lines 1000 5000")?).await?;
    let attempt = server.attempt(&build).await?;
    let mut stream = Events::new(server.follow(&attempt).await?);
    let (mut times, mut rest) = (Vec::new(), String::new());
    while let Some(event) = stream.next().await? {
        let arrived = SystemTime::now().duration_since(UNIX_EPOCH).context("a clock before 1970")?;
        rest.push_str(event["text"].as_str().unwrap_or(""));
        while let Some((line, left)) = rest.split_once('\n') {
            let sent = line.split(' ').next().and_then(|micros| micros.parse().ok()).map(Duration::from_micros);
            times.extend(sent.map(|sent| arrived.saturating_sub(sent)));
            rest = left.to_owned();
        }
    }
    let late = sleeper.stop()?;
    let (p50, p99, most) = (percentile(times.clone(), 50), percentile(times.clone(), 99), percentile(times, 100));
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let figure = format!("{:.1} ms (p50 {:.1}, longest {:.1})", ms(p99), ms(p50), ms(most));
    let limit = format!(
        "10 ms; a sleeper woke up late by {:.1}, {:.1}",
        ms(percentile(late.clone(), 99)),
        ms(percentile(late, 100))
    );
    table.at_most("a line from write to watcher, 1,000 a second, p99", figure, limit, ms(p99) / 10.0, 1.0);
    server.passed(&build).await
}

/// The data of server-sent events, one JSON value each.
struct Events {
    stream: std::pin::Pin<Box<dyn futures_util::Stream<Item = reqwest::Result<bytes::Bytes>> + Send>>,
    buffer: Vec<u8>,
    read: usize,
}

impl Events {
    fn new(answer: reqwest::Response) -> Self {
        Self { stream: Box::pin(answer.bytes_stream()), buffer: Vec::new(), read: 0 }
    }

    /// The next event that is a piece of a log; `None` at the end.
    async fn next(&mut self) -> anyhow::Result<Option<Value>> {
        loop {
            if let Some(end) = self.buffer[self.read..].iter().position(|byte| *byte == b'\n') {
                let line = &self.buffer[self.read..self.read + end];
                self.read += end + 1;
                if let Some(data) = line.strip_prefix(b"data:") {
                    return Ok(Some(serde_json::from_slice(data)?));
                }
                if line == b"event: end" || line == b"event:end" {
                    return Ok(None);
                }
                continue;
            }
            self.buffer.drain(..self.read);
            self.read = 0;
            match self.stream.next().await {
                Some(piece) => self.buffer.extend_from_slice(&piece?),
                None => return Ok(None),
            }
        }
    }
}
