//! HTTP to a coordinator: one request, and one answer or one error that says what to do.

mod certificates;
mod discover;
mod problem;
pub(crate) mod resumable;
mod retry;
pub(crate) mod shape;
mod sse;
mod stream;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Body, Certificate, Method, Response, Url};
use serde_json::Value;
use windlass_protocol::Secret;
use windlass_protocol::limits::{API_ANSWER_MS, API_CONNECT_MS, API_STREAM_SILENT_MS};

pub(crate) use certificates::{Shown, pem_of, shown_by};
pub(crate) use discover::{ServerArguments, Target, certificate_of, check_plain, choose, parse, wanted_data};
pub(crate) use problem::ClientError;
use problem::Problem;
use retry::Backoff;
pub(crate) use stream::{Place, Stream};

/// A coordinator, as a client of its API. Clones share connections.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    authorization: Option<HeaderValue>,
    /// Whether it ever answered: then a lost connection is a coordinator that restarts, and is waited for.
    met: Arc<AtomicBool>,
}

/// One request, as often as it is tried.
#[derive(Debug, Clone)]
struct Ask<'a> {
    method: Method,
    path: &'a str,
    json: Option<&'a Value>,
    header: Option<(&'static str, String)>,
    /// Doing it twice is like doing it once.
    idempotent: bool,
    /// How long its answer may take; streams have no such limit.
    answer: Option<Duration>,
}

impl<'a> Ask<'a> {
    fn new(method: Method, path: &'a str) -> Self {
        let idempotent = method != Method::POST;
        Self { method, path, json: None, header: None, idempotent, answer: Some(Duration::from_millis(API_ANSWER_MS)) }
    }
}

impl Client {
    /// A client of this server. Connects to nothing yet.
    pub(crate) fn new(base: Url, token: Option<&Secret<String>>, ca: Option<Certificate>) -> Result<Self, ClientError> {
        Self::quick(base, token, ca, Duration::from_millis(API_CONNECT_MS))
    }

    /// As [`Self::new`], with another patience for connections.
    pub(crate) fn quick(
        base: Url,
        token: Option<&Secret<String>>,
        ca: Option<Certificate>,
        connect: Duration,
    ) -> Result<Self, ClientError> {
        let setup = |source| ClientError::Setup { source };
        let mut builder = reqwest::Client::builder()
            .connect_timeout(connect)
            .read_timeout(Duration::from_millis(API_STREAM_SILENT_MS))
            .user_agent(concat!("windlass/", env!("CARGO_PKG_VERSION")));
        if discover::is_loopback(&base) {
            builder = builder.no_proxy();
        }
        if let Some(ca) = ca {
            builder = builder.tls_certs_only([ca]);
        }
        let authorization = match token {
            None => None,
            Some(token) => {
                let mut value =
                    HeaderValue::try_from(format!("Bearer {}", token.expose())).map_err(|_| ClientError::BadToken)?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        Ok(Self { http: builder.build().map_err(setup)?, base, authorization, met: Arc::default() })
    }

    /// Where the server is.
    pub(crate) fn url(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// `GET`, an answer in JSON.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.json(&Ask::new(Method::GET, path)).await
    }

    /// `POST` of something that may be done twice, such as a cancel.
    pub(crate) async fn post_again(&self, path: &str, body: Option<&Value>) -> Result<Value, ClientError> {
        self.json(&Ask { json: body, idempotent: true, ..Ask::new(Method::POST, path) }).await
    }

    /// `POST` of something that must not be done twice: tried again only where nothing can have been received.
    pub(crate) async fn post(&self, path: &str, body: Option<&Value>) -> Result<Value, ClientError> {
        self.json(&Ask { json: body, ..Ask::new(Method::POST, path) }).await
    }

    /// `DELETE`.
    pub(crate) async fn delete(&self, path: &str) -> Result<Value, ClientError> {
        self.json(&Ask::new(Method::DELETE, path)).await
    }

    /// `PATCH`: done twice is like done once.
    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.json(&Ask { json: Some(body), ..Ask::new(Method::PATCH, path) }).await
    }

    /// `PUT`: done twice is like done once.
    pub(crate) async fn put(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.json(&Ask { json: Some(body), idempotent: true, ..Ask::new(Method::PUT, path) }).await
    }

    /// `POST` that the server does once, however often it comes with this key.
    pub(crate) async fn post_keyed(&self, path: &str, body: &Value, key: &str) -> Result<Value, ClientError> {
        let header = Some(("idempotency-key", key.to_owned()));
        self.json(&Ask { json: Some(body), header, idempotent: true, ..Ask::new(Method::POST, path) }).await
    }

    /// Asks once and tries nothing again: `POST` where there is a body. The answer is read by the caller.
    pub(crate) async fn ask_once(&self, path: &str, body: Option<&Value>) -> Result<Response, ClientError> {
        let method = if body.is_some() { Method::POST } else { Method::GET };
        self.once(&Ask { json: body, answer: None, ..Ask::new(method, path) }).await
    }

    /// `GET` of bytes that come as they are.
    pub(crate) async fn open(
        &self,
        path: &str,
        header: Option<(&'static str, String)>,
    ) -> Result<Response, ClientError> {
        self.ask(&Ask { header, answer: None, ..Ask::new(Method::GET, path) }).await
    }

    /// Sends bytes, once: the caller makes them anew to send them again.
    pub(crate) async fn send_bytes(&self, method: Method, path: &str, body: Body) -> Result<(), ClientError> {
        let request = self.request(method, path)?.header(CONTENT_TYPE, "application/octet-stream").body(body);
        let response = request.send().await.map_err(|source| self.unreachable(source))?;
        self.met.store(true, Ordering::Relaxed);
        self.accepted(response).await.map(drop)
    }

    /// Follows a stream of events, over restarts of the server.
    pub(crate) fn stream(&self, place: Place) -> Stream {
        Stream::new(self.clone(), place)
    }

    async fn json(&self, ask: &Ask<'_>) -> Result<Value, ClientError> {
        let mut backoff = Backoff::default();
        loop {
            let response = self.ask(ask).await?;
            let bytes = match response.bytes().await {
                Ok(bytes) => bytes,
                // The connection broke within the answer.
                Err(source) if ask.idempotent => {
                    let error = self.unreachable(source);
                    backoff.wait(error).await?;
                    continue;
                }
                Err(source) => return Err(self.unreachable(source)),
            };
            if bytes.is_empty() {
                return Ok(Value::Null);
            }
            return serde_json::from_slice(&bytes)
                .map_err(|source| ClientError::Garbled { url: self.url().to_owned(), source });
        }
    }

    async fn ask(&self, ask: &Ask<'_>) -> Result<Response, ClientError> {
        let mut backoff = Backoff::default();
        loop {
            let error = match self.once(ask).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            if !self.may_try_again(ask, &error) {
                return Err(error);
            }
            backoff.wait(error).await?;
        }
    }

    fn may_try_again(&self, ask: &Ask<'_>, error: &ClientError) -> bool {
        match error {
            ClientError::Unreachable { source, .. } => {
                self.met.load(Ordering::Relaxed) && (ask.idempotent || source.is_connect())
            }
            // It took nothing: it is starting, stopping or has more than it can do.
            ClientError::Problem(problem) => problem.status == 503 && problem.is_passing(),
            ClientError::Ended { .. }
            | ClientError::Setup { .. }
            | ClientError::BadToken
            | ClientError::Garbled { .. }
            | ClientError::TooLong { .. }
            | ClientError::Address { .. } => false,
        }
    }

    async fn once(&self, ask: &Ask<'_>) -> Result<Response, ClientError> {
        let mut request = self.request(ask.method.clone(), ask.path)?;
        if let Some((name, value)) = &ask.header {
            request = request.header(*name, value);
        }
        if let Some(json) = ask.json {
            request = request.json(json);
        }
        if let Some(answer) = ask.answer {
            request = request.timeout(answer);
        }
        let response = request.send().await.map_err(|source| self.unreachable(source))?;
        self.met.store(true, Ordering::Relaxed);
        self.accepted(response).await
    }

    fn request(&self, method: Method, path: &str) -> Result<reqwest::RequestBuilder, ClientError> {
        let url = format!("{}/api/v1{path}", self.url());
        let url = Url::parse(&url).map_err(|_| ClientError::Address { text: url })?;
        let mut request = self.http.request(method, url);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        Ok(request)
    }

    async fn accepted(&self, response: Response) -> Result<Response, ClientError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.bytes().await.unwrap_or_default();
        Err(ClientError::Problem(Box::new(Problem::read(status.as_u16(), &body))))
    }

    /// A body broke off.
    pub(crate) fn broken(&self, source: reqwest::Error) -> ClientError {
        self.unreachable(source)
    }

    fn unreachable(&self, source: reqwest::Error) -> ClientError {
        // The URL stands in our own sentence.
        ClientError::Unreachable { url: self.url().to_owned(), source: source.without_url() }
    }
}

/// A name or id as a part of a path.
pub(crate) fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_any_bytes_are_one_segment_of_a_path() {
        assert_eq!(segment("a/b c?d=ü"), "a%2Fb%20c%3Fd%3D%C3%BC");
        assert_eq!(segment("plain-1.0_x~"), "plain-1.0_x~");
    }
}
