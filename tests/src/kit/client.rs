//! The HTTP API, as a client without the project's own code sees it.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use super::build::Build;
use super::sse::Events;
use super::wait::until;

/// A client of one server.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    token: Option<String>,
}

/// An answer, whatever its status.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    /// It is none.
    pub fn json(&self) -> Result<Value> {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_str(&text).with_context(|| format!("status {}: {text}", self.status))
    }

    /// The answer, if its status is this one.
    ///
    /// # Errors
    /// It is another.
    pub fn status(self, wanted: u16) -> Result<Self> {
        let text = String::from_utf8_lossy(&self.body);
        ensure!(self.status == wanted, "status {}, not {wanted}: {text}", self.status);
        Ok(self)
    }

    /// The problem's type of an error, which every error must have.
    ///
    /// # Errors
    /// It is no problem+json.
    pub fn problem(&self) -> Result<String> {
        let kind = self.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
        ensure!(kind.starts_with("application/problem+json"), "status {} with {kind}", self.status);
        let body = self.json()?;
        let name = body["type"].as_str().context("a problem without a type")?;
        ensure!(name.starts_with("/problems/"), "the problem's type is {name}");
        ensure!(body["status"] == json!(self.status), "the problem says another status: {body}");
        Ok(name.to_owned())
    }
}

/// A build to be submitted.
#[derive(Debug, Clone)]
pub struct Submit {
    body: Value,
    key: Option<String>,
}

impl Submit {
    /// A pipeline by its text, without files.
    #[must_use]
    pub fn text(definition: impl Into<String>) -> Self {
        Self { body: json!({ "pipeline": "test", "definition": definition.into(), "branch": "main" }), key: None }
    }

    /// A registered pipeline, as the head of its repository's `main` has it.
    #[must_use]
    pub fn registered(pipeline: &str) -> Self {
        Self { body: json!({ "pipeline": pipeline, "branch": "main" }), key: None }
    }

    /// With files from here.
    #[must_use]
    pub fn origin(mut self, origin: Value) -> Self {
        self.body["origin"] = origin;
        self
    }

    /// With another field of the body.
    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.body[name] = value;
        self
    }

    /// With an idempotency key.
    #[must_use]
    pub fn key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }
}

/// What a join token is made for.
#[derive(Debug, Clone)]
pub struct JoinToken {
    body: Value,
}

impl JoinToken {
    /// For a pool of its own name's zone, serving these queues, for many agents.
    #[must_use]
    pub fn pool(pool: &str, queues: &[&str]) -> Self {
        Self {
            body: json!({ "kind": "join", "pool": pool, "zone": pool, "queues": queues, "trust": "trusted", "uses": 100 }),
        }
    }

    /// In this zone.
    #[must_use]
    pub fn zone(self, zone: &str) -> Self {
        self.with("zone", json!(zone))
    }

    /// With leases of this length and beats at a quarter of it.
    #[must_use]
    pub fn lease_ms(self, lease_ms: u64) -> Self {
        self.with("lease_ms", json!(lease_ms)).with("beat_ms", json!(lease_ms / 4))
    }

    /// With another field.
    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.body[name] = value;
        self
    }
}

impl Client {
    /// A client of the server at `url`.
    ///
    /// # Errors
    /// Where the HTTP client cannot be made.
    pub fn new(url: &str, token: Option<String>) -> Result<Self> {
        let http = reqwest::Client::builder().no_proxy().connect_timeout(Duration::from_secs(5)).build()?;
        Ok(Self { http, url: url.trim_end_matches('/').to_owned(), token })
    }

    /// The same, over HTTPS, believing in this CA alone.
    ///
    /// # Errors
    /// Where the CA is none, or the HTTP client cannot be made.
    pub fn with_ca(url: &str, token: Option<String>, ca_pem: &[u8]) -> Result<Self> {
        let ca = reqwest::Certificate::from_pem(ca_pem)?;
        let builder = reqwest::Client::builder().no_proxy().connect_timeout(Duration::from_secs(5));
        let http = builder.tls_certs_only([ca]).build()?;
        Ok(Self { http, url: url.trim_end_matches('/').to_owned(), token })
    }

    /// The same server with another token.
    #[must_use]
    pub fn token(&self, token: Option<&str>) -> Self {
        Self { token: token.map(str::to_owned), ..self.clone() }
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let prefix = if path.starts_with("/healthz")
            || path.starts_with("/readyz")
            || path.starts_with("/metrics")
            || path.starts_with("/openapi")
            || path.starts_with("/.well-known/")
        {
            ""
        } else {
            "/api/v1"
        };
        let request = self.http.request(method, format!("{}{prefix}{path}", self.url));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn send(request: reqwest::RequestBuilder) -> Result<Answer> {
        let response = request.timeout(Duration::from_secs(30)).send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await?.to_vec();
        Ok(Answer { status, headers, body })
    }

    /// GET of a path below the API's prefix (but for those that stand outside of it).
    ///
    /// # Errors
    /// No answer came.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        Self::send(self.request(Method::GET, path)).await
    }

    /// GET with a `Range`.
    ///
    /// # Errors
    /// No answer came.
    pub async fn get_range(&self, path: &str, range: &str) -> Result<Answer> {
        Self::send(self.request(Method::GET, path).header("range", range)).await
    }

    /// POST of JSON.
    ///
    /// # Errors
    /// No answer came.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        Self::send(self.request(Method::POST, path).json(body)).await
    }

    /// POST of anything.
    ///
    /// # Errors
    /// No answer came.
    pub async fn post_bytes(&self, path: &str, kind: &str, body: Vec<u8>) -> Result<Answer> {
        Self::send(self.request(Method::POST, path).header("content-type", kind).body(body)).await
    }

    /// Any request, with bytes of any kind.
    ///
    /// # Errors
    /// No answer came, or there is no such method.
    pub async fn call(&self, method: &str, path: &str, body: Vec<u8>) -> Result<Answer> {
        let request = self.request(method.parse()?, path).header("content-type", "application/json");
        Self::send(request.body(body)).await
    }

    /// PUT of anything.
    ///
    /// # Errors
    /// No answer came.
    pub async fn put_bytes(&self, path: &str, kind: &str, body: Vec<u8>) -> Result<Answer> {
        Self::send(self.request(Method::PUT, path).header("content-type", kind).body(body)).await
    }

    /// Submits, whatever the answer is.
    ///
    /// # Errors
    /// No answer came.
    pub async fn try_submit(&self, submit: &Submit) -> Result<Answer> {
        let mut request = self.request(Method::POST, "/builds").json(&submit.body);
        if let Some(key) = &submit.key {
            request = request.header("idempotency-key", key);
        }
        Self::send(request).await
    }

    /// Submits a build that is taken.
    ///
    /// # Errors
    /// It was not taken.
    pub async fn submit(&self, submit: &Submit) -> Result<Build> {
        Ok(Build(self.try_submit(submit).await?.status(201)?.json()?))
    }

    /// A build.
    ///
    /// # Errors
    /// It cannot be had.
    pub async fn build(&self, id: &str) -> Result<Build> {
        Ok(Build(self.get(&format!("/builds/{id}")).await?.status(200)?.json()?))
    }

    /// Waits until a build is as it should be. A server that is away meanwhile is no error.
    ///
    /// # Errors
    /// It does not become so before the deadline; the error shows the build.
    pub async fn wait(&self, id: &str, what: &str, deadline: Duration, good: impl Fn(&Build) -> bool) -> Result<Build> {
        let mut last = None;
        let found = until(what, deadline, async || {
            // While it is being killed and started, there is nobody to ask.
            last = self.build(id).await.ok().or(last.take());
            Ok(last.clone().filter(|build| good(build)))
        })
        .await;
        found.with_context(|| match &last {
            Some(build) => format!("the build is {}", build.brief()),
            None => "the build was never seen".to_owned(),
        })
    }

    /// Waits until a build has ended.
    ///
    /// # Errors
    /// It does not end before the deadline.
    pub async fn finished(&self, id: &str, deadline: Duration) -> Result<Build> {
        self.wait(id, "the build's end", deadline, Build::is_final).await
    }

    /// Waits until a build has ended, in this state.
    ///
    /// # Errors
    /// It ends otherwise, or not before the deadline.
    pub async fn ends(&self, id: &str, state: &str, deadline: Duration) -> Result<Build> {
        let build = self.finished(id, deadline).await?;
        ensure!(build.state() == state, "the build ended otherwise: {}", build.brief());
        Ok(build)
    }

    /// A whole log.
    ///
    /// # Errors
    /// It cannot be had.
    pub async fn log(&self, attempt: &str) -> Result<Vec<u8>> {
        Ok(self.get(&format!("/attempts/{attempt}/log")).await?.status(200)?.body)
    }

    /// Waits until a log holds a text.
    ///
    /// # Errors
    /// It does not before the deadline.
    pub async fn log_holds(&self, attempt: &str, text: &str, deadline: Duration) -> Result<Vec<u8>> {
        until(&format!("`{text}` in the log"), deadline, async || {
            let log = self.log(attempt).await.unwrap_or_default();
            Ok(String::from_utf8_lossy(&log).contains(text).then_some(log))
        })
        .await
    }

    /// All agents.
    ///
    /// # Errors
    /// They cannot be had.
    pub async fn agents(&self) -> Result<Vec<Value>> {
        let body = self.get("/agents?limit=500").await?.status(200)?.json()?;
        Ok(body["items"].as_array().context("a list of agents")?.clone())
    }

    /// Makes a join token.
    ///
    /// # Errors
    /// It is refused.
    pub async fn join_token(&self, token: &JoinToken) -> Result<String> {
        let answer = self.post("/tokens", &token.body).await?.status(201)?.json()?;
        Ok(answer["token"].as_str().context("a token")?.to_owned())
    }

    /// Makes an API token with these scopes.
    ///
    /// # Errors
    /// It is refused.
    pub async fn api_token(&self, scopes: &[&str], more: &Value) -> Result<Value> {
        let mut body = json!({ "kind": "api", "scopes": scopes });
        for (name, value) in more.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        self.post("/tokens", &body).await?.status(201)?.json()
    }

    /// Opens a stream of Server-Sent Events.
    ///
    /// # Errors
    /// It is not served.
    pub async fn events(&self, path: &str, last_event_id: Option<&str>) -> Result<Events> {
        let mut request = self.request(Method::GET, path).header("accept", "text/event-stream");
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let response = request.send().await?;
        if !response.status().is_success() {
            bail!("status {}: {}", response.status(), response.text().await?);
        }
        Ok(Events::new(response))
    }

    /// The sum of a metric over all its labels; 0 where it is not shown.
    ///
    /// # Errors
    /// The metrics cannot be had.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        let text = self.get("/metrics").await?.status(200)?.body;
        let text = String::from_utf8_lossy(&text).into_owned();
        let of = |line: &str| {
            let rest = line.strip_prefix(name)?;
            let value = match rest.strip_prefix('{') {
                Some(labels) => labels.rsplit_once('}')?.1,
                None => rest.strip_prefix(' ')?,
            };
            value.split_whitespace().next()?.parse::<f64>().ok()
        };
        Ok(text.lines().filter_map(of).sum())
    }
}
