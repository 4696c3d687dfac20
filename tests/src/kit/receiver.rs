//! An HTTP server of the test's own: it keeps every request whole, and answers as the test says.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::wait::until;

/// More than any request that is sent to it.
const REQUEST_MAX_BYTES: usize = 1 << 20;

/// A request as it came, and what it was answered.
#[derive(Debug, Clone)]
pub struct Received {
    /// Method and path.
    pub line: String,
    /// Names in small letters.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// What it was answered.
    pub status: u16,
}

impl Received {
    /// A header; empty where there is none.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// It is none.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).context("a body that is no JSON")
    }
}

/// The server.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    serving: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn lock(received: &Mutex<Vec<Received>>) -> MutexGuard<'_, Vec<Received>> {
    received.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Receiver {
    /// Answers the nth request (from 0) with this status.
    ///
    /// # Errors
    /// No port is free.
    pub async fn answering(status: impl Fn(usize) -> u16 + Send + Sync + 'static) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, received) = (listener.local_addr()?, Arc::new(Mutex::new(Vec::new())));
        let (kept, status) = (Arc::clone(&received), Arc::new(status));
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (kept, status) = (Arc::clone(&kept), Arc::clone(&status));
                // A client that goes away early has sent nothing that counts.
                tokio::spawn(async move { serve(stream, &kept, &*status).await.ok() });
            }
        });
        Ok(Self { address, received, serving })
    }

    /// Takes every connection and answers nothing.
    ///
    /// # Errors
    /// No port is free.
    pub async fn silent() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let serving = tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                held.push(stream);
            }
        });
        Ok(Self { address, received: Arc::default(), serving })
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everything so far.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        lock(&self.received).clone()
    }

    /// Waits for so many requests.
    ///
    /// # Errors
    /// They do not come before the deadline.
    pub async fn until(&self, count: usize, deadline: Duration) -> Result<Vec<Received>> {
        let what = format!("{count} requests at {}", self.url());
        until(&what, deadline, async || Ok(Some(self.received()).filter(|all| all.len() >= count))).await
    }
}

async fn serve(
    mut stream: TcpStream,
    kept: &Mutex<Vec<Received>>,
    status: &(dyn Fn(usize) -> u16 + Sync),
) -> Result<()> {
    let mut read = Vec::new();
    let received = loop {
        if let Some(received) = parse(&read)? {
            break received;
        }
        ensure!(read.len() < REQUEST_MAX_BYTES, "a request without end");
        let mut piece = [0; 8_192];
        let count = stream.read(&mut piece).await?;
        ensure!(count > 0, "the request ended early");
        read.extend_from_slice(&piece[..count]);
    };
    let status = {
        let mut all = lock(kept);
        let status = status(all.len());
        all.push(Received { status, ..received });
        status
    };
    let answer = format!("HTTP/1.1 {status} Said\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(answer.as_bytes()).await?;
    Ok(())
}

/// A request, once it is whole.
fn parse(read: &[u8]) -> Result<Option<Received>> {
    let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&read[..end])?;
    let mut lines = head.lines();
    let line = lines.next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
    let split = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    let headers: Vec<_> = lines.filter_map(split).collect();
    let length = headers.iter().find(|(name, _)| name == "content-length").map_or("0", |(_, value)| value);
    let body = read[end + 4..].to_vec();
    Ok((body.len() >= length.parse()?).then_some(Received { line, headers, body, status: 0 }))
}
