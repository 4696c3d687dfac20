//! One request over one connection to an address that was looked at, and as much of the answer as is read.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use axum::http::{Method, Request, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use windlass_protocol::WallMs;
use windlass_protocol::limits::{
    API_CONNECT_MS, DELIVERY_ANSWER_MAX_BYTES, DELIVERY_BODY_MS, DELIVERY_MS, REGISTRY_REQUEST_MS,
};

use super::address::Guard;

const AGENT: HeaderValue = HeaderValue::from_static(concat!("windlass/", env!("CARGO_PKG_VERSION")));

/// What is sent.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) url: String,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Vec<u8>,
}

/// What came back.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// What was read of it.
    pub(crate) body: Vec<u8>,
}

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PostError {
    /// It would never be sent.
    #[error("{0}")]
    Refused(&'static str),
    #[error("the host's name was not found")]
    Name,
    #[error("no connection: {0}")]
    Connect(std::io::Error),
    #[error("no connection within {} s", API_CONNECT_MS / 1_000)]
    ConnectTime,
    #[error("it took too long")]
    Slow,
    #[error("no TLS: {0}")]
    Tls(std::io::Error),
    #[error("the system's certificates cannot be used: {0}")]
    Roots(String),
    #[error("the connection broke: {0}")]
    Broken(hyper::Error),
    #[error("the answer broke off: {0}")]
    Body(axum::Error),
    #[error("it answered with more than {0} bytes")]
    TooMuch(usize),
}

/// Where a URL leads.
#[derive(Debug)]
struct Place {
    uri: Uri,
    host: String,
    port: u16,
    tls: bool,
}

impl Place {
    fn of(url: &str) -> Result<Self, PostError> {
        let uri: Uri = url.parse().map_err(|_| PostError::Refused("it is no URL"))?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(PostError::Refused("it is no http or https URL")),
        };
        let authority = uri.authority().ok_or(PostError::Refused("the URL has no host"))?;
        if authority.as_str().contains('@') {
            return Err(PostError::Refused("a URL with a user or password in it is not called"));
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        if host.is_empty() {
            return Err(PostError::Refused("the URL has no host"));
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self { host, port, tls, uri })
    }
}

/// Opens connections; the system's certificates are read when the first one needs them.
#[derive(Debug, Default)]
pub(crate) struct Connector {
    tls: OnceCell<Arc<ClientConfig>>,
}

impl Connector {
    /// Sends once. With a guard only addresses that it allows are reached. Redirects are not followed.
    pub(super) async fn post(&self, post: Post, guard: Option<&Guard>) -> Result<Answer, PostError> {
        let until = Instant::now() + Duration::from_millis(DELIVERY_MS);
        let place = Place::of(&post.url)?;
        let Post { url: _, headers, body } = post;
        let length = (CONTENT_LENGTH, HeaderValue::from(body.len()));
        let headers = std::iter::once(length).chain(headers).collect();
        let request = request(&place, Method::POST, headers, Body::from(body))?;
        self.send(&place, request, (guard, until), Reading::Refusals).await
    }

    /// Asks once for what is told whole, or not at all.
    pub(crate) async fn get(
        &self,
        url: &str,
        headers: Vec<(HeaderName, HeaderValue)>,
        body_max_bytes: usize,
        guard: Option<&Guard>,
    ) -> Result<Answer, PostError> {
        let until = Instant::now() + Duration::from_millis(REGISTRY_REQUEST_MS);
        let place = Place::of(url)?;
        let request = request(&place, Method::GET, headers, Body::empty())?;
        self.send(&place, request, (guard, until), Reading::Whole { max_bytes: body_max_bytes, until }).await
    }

    async fn send(
        &self,
        place: &Place,
        request: Request<Body>,
        (guard, until): (Option<&Guard>, Instant),
        reading: Reading,
    ) -> Result<Answer, PostError> {
        let stream = in_time(until, connect(place, guard)).await?;
        if !place.tls {
            return exchange(stream, request, until, reading).await;
        }
        let name = ServerName::try_from(place.host.clone());
        let name = name.map_err(|_| PostError::Refused("the URL's host is none that a certificate can name"))?;
        let connector = TlsConnector::from(self.tls().await?);
        let connecting = async { connector.connect(name, stream).await.map_err(PostError::Tls) };
        let stream = in_time(until, connecting).await?;
        exchange(stream, request, until, reading).await
    }

    async fn tls(&self) -> Result<Arc<ClientConfig>, PostError> {
        let make = || async {
            let made = tokio::task::spawn_blocking(config).await;
            made.unwrap_or_else(|error| Err(PostError::Roots(error.to_string()))).map(Arc::new)
        };
        self.tls.get_or_try_init(make).await.cloned()
    }
}

/// The system's certificates; `SSL_CERT_FILE` and `SSL_CERT_DIR` name others. Blocks on the disk.
fn config() -> Result<ClientConfig, PostError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (good, _) = roots.add_parsable_certificates(found.certs);
    if good == 0 {
        let errors = found.errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        return Err(PostError::Roots(if errors.is_empty() { "there are none".to_owned() } else { errors }));
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| PostError::Roots(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Resolves once, and connects to what was looked at.
async fn connect(place: &Place, guard: Option<&Guard>) -> Result<TcpStream, PostError> {
    let found: Vec<SocketAddr> =
        tokio::net::lookup_host((place.host.as_str(), place.port)).await.map_err(|_| PostError::Name)?.collect();
    let allowed = guard.map_or_else(|| found.clone(), |guard| guard.among(&place.host, found.iter().copied()));
    if found.is_empty() {
        return Err(PostError::Name);
    }
    if allowed.is_empty() {
        return Err(PostError::Refused("its host has no public address, and is not one that the operator allows"));
    }
    let mut last = PostError::Name;
    for address in allowed {
        let connecting = TcpStream::connect(address);
        last = match tokio::time::timeout(Duration::from_millis(API_CONNECT_MS), connecting).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => PostError::Connect(error),
            Err(_) => PostError::ConnectTime,
        };
    }
    Err(last)
}

async fn in_time<T>(until: Instant, going: impl Future<Output = Result<T, PostError>>) -> Result<T, PostError> {
    tokio::time::timeout_at(until, going).await.unwrap_or(Err(PostError::Slow))
}

/// What is read of an answer's body.
#[derive(Debug, Clone, Copy)]
enum Reading {
    /// The beginning of what a refusal says, if it comes soon: the status is what counts.
    Refusals,
    /// All of it, of so many bytes at most.
    Whole { max_bytes: usize, until: Instant },
}

async fn exchange<S>(stream: S, request: Request<Body>, until: Instant, reading: Reading) -> Result<Answer, PostError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut send, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(PostError::Broken)?;
    let mut answer = std::pin::pin!(async {
        let headers = async { send.send_request(request).await.map_err(PostError::Broken) };
        read(in_time(until, headers).await?, reading).await
    });
    // Ends with the exchange: nothing of a receiver outlives its delivery.
    tokio::select! {
        answer = &mut answer => answer,
        // What came before its end is still to be read.
        _ended = connection => answer.await,
    }
}

fn request(
    place: &Place,
    method: Method,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Body,
) -> Result<Request<Body>, PostError> {
    let path = place.uri.path_and_query().map_or("/", |path| path.as_str());
    let host = place.uri.authority().map_or("", |authority| authority.as_str());
    let mut request = Request::builder().method(method).uri(path).header(HOST, host).header(USER_AGENT, AGENT);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request.body(body).map_err(|_| PostError::Refused("it is no URL"))
}

/// What comes of an answer's body in its time. The status is what counts: nothing else is waited for, nor what of it is
/// not whole.
async fn read(response: axum::http::Response<Incoming>, reading: Reading) -> Result<Answer, PostError> {
    let (parts, body) = response.into_parts();
    let mut read = Vec::new();
    match reading {
        Reading::Refusals if parts.status.is_success() => {}
        Reading::Refusals => {
            let time = Duration::from_millis(DELIVERY_BODY_MS);
            let _slow = tokio::time::timeout(time, read_body(body, DELIVERY_ANSWER_MAX_BYTES, &mut read)).await;
        }
        Reading::Whole { max_bytes, until } => {
            // One byte more shows that there are too many.
            in_time(until, async { read_body(body, max_bytes + 1, &mut read).await.map_err(PostError::Body) }).await?;
            if read.len() > max_bytes {
                return Err(PostError::TooMuch(max_bytes));
            }
        }
    }
    Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body: read })
}

async fn read_body(body: Incoming, max_bytes: usize, read: &mut Vec<u8>) -> Result<(), axum::Error> {
    use futures_util::StreamExt as _;
    let mut stream = Body::new(body).into_data_stream();
    while let Some(chunk) = stream.next().await {
        let (chunk, room) = (chunk?, max_bytes.saturating_sub(read.len()));
        read.extend_from_slice(chunk.get(..room.min(chunk.len())).unwrap_or_default());
        if read.len() >= max_bytes {
            break;
        }
    }
    Ok(())
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// A refusal that means "later" at GitHub: its limits answer 403.
    pub(super) fn is_rate_limit(&self) -> bool {
        self.headers.contains_key(RETRY_AFTER) || self.header("x-ratelimit-remaining") == Some("0")
    }

    /// How long the server asks not to be called.
    pub(super) fn after_ms(&self, at: WallMs) -> Option<u64> {
        let asked = self.header(RETRY_AFTER.as_str()).map(str::trim);
        let until = |seconds: u64| seconds.saturating_mul(1_000).saturating_sub(at.0);
        if let Some(seconds) = asked.and_then(|asked| asked.parse::<u64>().ok()) {
            return Some(seconds.saturating_mul(1_000));
        }
        if let Some(date) = asked.and_then(|asked| httpdate::parse_http_date(asked).ok()) {
            return date.duration_since(std::time::UNIX_EPOCH).ok().map(|since| until(since.as_secs()));
        }
        let spent = self.header("x-ratelimit-remaining") == Some("0");
        let reset = self.header("x-ratelimit-reset").filter(|_| spent)?;
        reset.parse::<u64>().ok().map(until)
    }

    /// For people.
    pub(super) fn told(&self) -> String {
        format!("it answered {}", self.status)
    }

    /// The same with the reason that GitHub gives.
    pub(super) fn told_with_reason(&self) -> String {
        let body = serde_json::from_slice::<serde_json::Value>(&self.body).unwrap_or_default();
        match body.get("message").and_then(serde_json::Value::as_str) {
            Some(reason) => format!("{}: {reason}", self.told()),
            None => self.told(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &'static str)]) -> Answer {
        let headers =
            headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        Answer { status, headers: headers.collect(), body: Vec::new() }
    }

    #[test]
    fn a_server_says_in_seconds_by_date_or_by_its_limits_when_to_come_again() {
        let at = WallMs(784_111_777_000);
        let waits = |headers: &[(&'static str, &'static str)]| answer(429, headers).after_ms(at);
        assert_eq!(waits(&[("retry-after", "7")]), Some(7_000));
        assert_eq!(waits(&[("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT")]), Some(10_000));
        assert_eq!(waits(&[("retry-after", "Sun, 06 Nov 1994 08:49:27 GMT")]), Some(0));
        assert_eq!(waits(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "784111780")]), Some(3_000));
        assert_eq!(waits(&[("x-ratelimit-remaining", "9"), ("x-ratelimit-reset", "784111780")]), None);
        assert_eq!(waits(&[("retry-after", "soon")]), None);
        assert!(answer(403, &[("x-ratelimit-remaining", "0")]).is_rate_limit());
        assert!(!answer(403, &[]).is_rate_limit());
    }

    #[test]
    fn a_url_leads_to_a_host_and_carries_no_password() {
        let place = Place::of("https://h.example/a?b").unwrap();
        assert_eq!((&*place.host, place.port, place.tls), ("h.example", 443, true));
        let place = Place::of("http://[::1]:8080/").unwrap();
        assert_eq!((&*place.host, place.port, place.tls), ("::1", 8080, false));
        for bad in ["ftp://h/", "https://u:p@h/", "https://u@h/", "https:///a", "a b", "/x"] {
            assert!(matches!(Place::of(bad), Err(PostError::Refused(_))), "{bad}");
        }
    }
}
