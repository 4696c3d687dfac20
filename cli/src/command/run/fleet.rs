//! The fleet whose results a run uses: which one, whether it is reached, and the way there for the embedded coordinator.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use serde_json::Value;
use windlass_coordinator::upstream::{NotAnswered, Pieces, Transport, Upstream};
use windlass_protocol::limits::FLEET_WAIT_MS;

use crate::client::{Client, ClientError, certificate_of, check_plain, parse};
use crate::command::login::ends_soon;
use crate::error::Failure;
use crate::fleets::{Fleets, Login};
use crate::ui::Ui;
use crate::ui::text::shown;

/// Which fleet's results a run uses, if any's: the one that is named, else the one that was logged in to last.
pub(super) fn wanted(named: Option<&str>) -> Result<Option<Login>, Failure> {
    let fleets = Fleets::load()?;
    match named {
        Some(url) => match fleets.find(url) {
            Some(login) => Ok(Some(login.clone())),
            None => Err(Failure::usage(format!("you are not logged in to {}", shown(url)))
                .hint(format!("log in with `windlass login {}`", shown(url)))),
        },
        None => Ok(fleets.usual().filter(|login| login.reuse).cloned()),
    }
}

/// A login's fleet as an upstream, asked once. One that is not there is told, and what is here already is used all the same.
pub(super) async fn upstream(
    login: &Login,
    data: &std::path::Path,
    pipeline: &str,
    repository: Option<&str>,
    ui: &Ui,
) -> Result<Upstream, Failure> {
    let upstream = at(login, data)?;
    if let Some(warning) = ends_soon(login.expires_at.as_deref()) {
        ui.warn(&format!("{}: {warning}", login.url));
    }
    if let Err(why) = upstream.begin(pipeline, repository).await {
        let url = &login.url;
        let why = shown(&why.to_string());
        ui.warn(&format!("the fleet {url} is not asked for results, {why}; those that are here already are used"));
    }
    Ok(upstream)
}

/// A login's fleet, of which nothing was asked yet.
pub(super) fn at(login: &Login, data: &std::path::Path) -> Result<Upstream, Failure> {
    let url = parse(&login.url)?;
    check_plain(&url, login.insecure_http)?;
    let ca = login.ca.as_ref().map(|pem| certificate_of(pem.as_bytes(), "the login")).transpose()?;
    let connect = Duration::from_millis(FLEET_WAIT_MS);
    let client = Client::quick(url, Some(&login.token), ca, connect)?;
    Ok(Upstream::new(Box::new(Way { url: login.url.clone(), client }), data))
}

/// The way to a fleet over its API.
#[derive(Debug)]
struct Way {
    url: String,
    client: Client,
}

impl Transport for Way {
    fn url(&self) -> &str {
        &self.url
    }

    fn ask(
        &self,
        path: String,
        body: Option<Value>,
        max_bytes: usize,
    ) -> BoxFuture<'static, Result<Vec<u8>, NotAnswered>> {
        let client = self.client.clone();
        Box::pin(async move {
            let mut response = client.ask_once(&path, body.as_ref()).await.map_err(not_answered)?;
            let mut answer = Vec::new();
            loop {
                match response.chunk().await {
                    Ok(None) => return Ok(answer),
                    Ok(Some(bytes)) if answer.len() + bytes.len() <= max_bytes => answer.extend_from_slice(&bytes),
                    Ok(Some(_)) => {
                        return Err(NotAnswered::Senseless(format!("it has more than {max_bytes} bytes")));
                    }
                    Err(error) => return Err(not_answered(client.broken(error))),
                }
            }
        })
    }

    fn open(&self, path: String) -> BoxFuture<'static, Result<Pieces, NotAnswered>> {
        let client = self.client.clone();
        Box::pin(async move {
            let response = client.ask_once(&path, None).await.map_err(not_answered)?;
            let pieces = response.bytes_stream().map(|piece| piece.map_err(|error| error.without_url().to_string()));
            Ok(pieces.boxed())
        })
    }
}

/// Whether nobody was there, or somebody said no.
fn not_answered(error: ClientError) -> NotAnswered {
    match error {
        ClientError::Problem(problem) if problem.status < 500 => {
            let said = if problem.detail.is_empty() { &problem.title } else { &problem.detail };
            NotAnswered::Refused(said.clone())
        }
        other => {
            let failure = Failure::from(other);
            NotAnswered::NotReached(failure.causes.last().cloned().unwrap_or(failure.what))
        }
    }
}
