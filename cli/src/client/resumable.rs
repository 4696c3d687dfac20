//! Large blobs to a server, in as many requests as it takes: after a broken connection only the rest is sent.

use std::io::{self, Read};

use reqwest::header::CONTENT_TYPE;
use reqwest::{Body, Method};
use serde::Deserialize;
use serde_json::json;
use tokio::task::JoinHandle;
use windlass_protocol::Digest;

use super::retry::Backoff;
use super::{Client, ClientError, segment};

/// Why a blob is not there.
#[derive(Debug)]
pub(crate) enum NotSent<E> {
    /// Its bytes could not be read.
    Read(E),
    /// The server does not take them, or is not reached.
    Client(ClientError),
}

impl<E> From<ClientError> for NotSent<E> {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

/// An upload as the server has it.
#[derive(Debug, Deserialize)]
struct State {
    id: Option<String>,
    offset: u64,
    complete: bool,
}

impl Client {
    /// Sends a blob for what `purpose` says (`project=…` or `build=…`); `body` makes its bytes from an offset on, and is told
    /// first how far the server is. Answers the upload's id, where all bytes came and the server waits for what they are for.
    pub(crate) async fn send_resumably<E>(
        &self,
        purpose: &str,
        (digest, bytes): (Digest, u64),
        mut body: impl FnMut(u64) -> (Body, JoinHandle<Result<(), E>>),
    ) -> Result<Option<String>, NotSent<E>> {
        let announced = json!({ "digest": digest, "bytes": bytes });
        let mut backoff = Backoff::default();
        let mut reached = 0;
        loop {
            let answer = self.post_again(&format!("/uploads?{purpose}"), Some(&announced)).await?;
            let garbled = |source| ClientError::Garbled { url: self.url().to_owned(), source };
            let state: State = serde_json::from_value(answer).map_err(garbled)?;
            let Some(id) = state.id.filter(|_| !state.complete) else { return Ok(None) };
            if state.offset >= bytes && purpose.starts_with("build=") {
                return Ok(Some(id));
            }
            if state.offset > reached {
                // It came further: the next trouble is a new one.
                reached = state.offset;
                backoff.reset();
            }
            let (sent, reading) = {
                let (body, reading) = body(state.offset);
                (self.append(&id, state.offset, body).await, reading)
            };
            if let Ok(Err(error)) = reading.await {
                return Err(NotSent::Read(error));
            }
            match sent {
                Ok(()) => return Ok(Some(id)),
                Err(error) if goes_on(&error) => backoff.wait(error).await?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn append(&self, id: &str, offset: u64, body: Body) -> Result<(), ClientError> {
        let request = self.request(Method::PATCH, &format!("/uploads/{}", segment(id)))?;
        let request = request.header("upload-offset", offset).header(CONTENT_TYPE, "application/partial-upload");
        let response = request.body(body).send().await.map_err(|source| self.unreachable(source))?;
        self.accepted(response).await.map(drop)
    }
}

/// Whether the upload may be gone on with after this.
fn goes_on(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } => true,
        ClientError::Problem(problem) => match problem.status {
            // The body broke on its way, through a proxy.
            400 | 408 | 502 | 504 => true,
            // It is gone, or elsewhere: beginning tells where it is.
            404 | 409 => true,
            503 => problem.is_passing(),
            _ => false,
        },
        ClientError::Ended { .. }
        | ClientError::Setup { .. }
        | ClientError::BadToken
        | ClientError::Garbled { .. }
        | ClientError::TooLong { .. }
        | ClientError::Address { .. } => false,
    }
}

/// Reads past what the server has.
pub(crate) fn pass_over(reader: &mut impl Read, bytes: u64) -> io::Result<()> {
    io::copy(&mut reader.take(bytes), &mut io::sink()).map(drop)
}
