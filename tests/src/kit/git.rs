//! A git server over HTTP that asks for a name and a password: git's own `http-backend` behind a few lines of HTTP.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::task::JoinHandle;

/// Headers of one request, and bytes of a body; git's are small.
const REQUEST_MAX: u64 = 4 << 20;

/// A server of the bare repositories in a directory. It ends with the value.
#[derive(Debug)]
pub struct GitServer {
    address: SocketAddr,
    refused: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl GitServer {
    /// Serves them to who gives `authorization` (the header's value).
    ///
    /// # Errors
    /// No port can be had.
    pub async fn start(root: &Path, authorization: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let refused = Arc::new(AtomicUsize::new(0));
        let served =
            Arc::new(Served { root: root.to_owned(), wanted: authorization.to_owned(), refused: Arc::clone(&refused) });
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let served = Arc::clone(&served);
                // A client that goes away is no failure of the server.
                tokio::spawn(async move { served.answer(stream).await });
            }
        });
        Ok(Self { address, refused, serving })
    }

    /// A repository's URL.
    #[must_use]
    pub fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address)
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests that were refused.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

struct Served {
    root: PathBuf,
    wanted: String,
    refused: Arc<AtomicUsize>,
}

/// One request, as far as git needs it.
struct Request {
    method: String,
    path: String,
    query: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    async fn read(stream: &mut TcpStream) -> Result<Self> {
        let mut reader = BufReader::new(stream.take(REQUEST_MAX));
        let mut line = String::new();
        reader.read_line(&mut line).await?;
        let mut words = line.split_whitespace();
        let (method, target) = words.next().zip(words.next()).context("a request line")?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (method, path, query) = (method.to_owned(), path.to_owned(), query.to_owned());
        let mut headers = Vec::new();
        loop {
            line.clear();
            ensure!(reader.read_line(&mut line).await? > 0, "the headers end");
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut request = Self { method, path, query, headers, body: Vec::new() };
        let length = request.header("content-length").parse().unwrap_or(0);
        request.body.resize(length, 0);
        reader.read_exact(&mut request.body).await?;
        Ok(request)
    }

    fn header(&self, wanted: &str) -> &str {
        self.headers.iter().find(|(name, _)| name == wanted).map_or("", |(_, value)| value.as_str())
    }
}

impl Served {
    async fn answer(&self, mut stream: TcpStream) -> Result<()> {
        let request = Request::read(&mut stream).await?;
        let answer = if request.header("authorization") == self.wanted {
            self.backend(&request).await?
        } else {
            self.refused.fetch_add(1, Ordering::Relaxed);
            b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"t\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec()
        };
        stream.write_all(&answer).await?;
        stream.shutdown().await?;
        Ok(())
    }

    async fn backend(&self, request: &Request) -> Result<Vec<u8>> {
        let mut command = Command::new("git");
        command
            .arg("http-backend")
            .env("GIT_PROJECT_ROOT", &self.root)
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("REQUEST_METHOD", &request.method)
            .env("PATH_INFO", &request.path)
            .env("QUERY_STRING", &request.query)
            .env("CONTENT_TYPE", request.header("content-type"))
            .env("CONTENT_LENGTH", request.body.len().to_string())
            .env("HTTP_CONTENT_ENCODING", request.header("content-encoding"))
            .env("GIT_PROTOCOL", request.header("git-protocol"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let mut child = command.spawn().context("git http-backend")?;
        let mut stdin = child.stdin.take().context("its input")?;
        stdin.write_all(&request.body).await?;
        drop(stdin);
        let said = child.wait_with_output().await?.stdout;
        let end = said.windows(4).position(|four| four == b"\r\n\r\n").context("the backend's headers")?;
        let (head, body) = said.split_at(end + 4);
        let head = String::from_utf8_lossy(head).into_owned();
        let status = head.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK");
        let more = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{head}", body.len());
        Ok([more.as_bytes(), body].concat())
    }
}
