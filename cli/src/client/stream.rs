//! A stream of events that survives lost connections and restarts of the server.

use std::collections::VecDeque;

use reqwest::Response;

use super::retry::Backoff;
use super::sse::{Event, Parser};
use super::{Client, ClientError};

/// What is followed, and where to begin.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// A path; a lost connection goes on behind the last event that had an id.
    Events(String),
    /// A log from an offset on; events' ids are offsets.
    Log {
        /// The path before `offset=`.
        path: String,
        /// Where to begin.
        offset: u64,
    },
}

/// The events of one path, one after the other.
#[derive(Debug)]
pub(crate) struct Stream {
    client: Client,
    place: Place,
    last_id: Option<String>,
    response: Option<Response>,
    parser: Parser,
    ready: VecDeque<Event>,
    backoff: Backoff,
}

impl Stream {
    pub(super) fn new(client: Client, place: Place) -> Self {
        let (parser, ready, backoff) = (Parser::default(), VecDeque::new(), Backoff::default());
        Self { client, place, last_id: None, response: None, parser, ready, backoff }
    }

    /// The next event; a connection that ends or breaks is made anew. Whoever has seen the last event stops asking.
    pub(crate) async fn next(&mut self) -> Result<Event, ClientError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.backoff.reset();
                if event.id.is_some() {
                    self.last_id.clone_from(&event.id);
                }
                return Ok(event);
            }
            self.fill().await?;
        }
    }

    /// Continues a log elsewhere: the server took back what it had sent beyond this offset.
    pub(crate) fn rewind(&mut self, to: u64) {
        self.last_id = Some(to.to_string());
    }

    async fn fill(&mut self) -> Result<(), ClientError> {
        let Some(response) = &mut self.response else {
            self.response = Some(self.connect().await?);
            self.parser = Parser::default();
            return Ok(());
        };
        match response.chunk().await {
            Ok(Some(bytes)) => {
                let ready = &mut self.ready;
                self.parser.push(&bytes, &mut |event| ready.push_back(event))
            }
            Ok(None) => {
                self.response = None;
                let error = ClientError::Ended { url: self.client.url().to_owned() };
                self.backoff.wait(error).await
            }
            Err(source) => {
                self.response = None;
                let error = self.client.unreachable(source);
                self.backoff.wait(error).await
            }
        }
    }

    async fn connect(&self) -> Result<Response, ClientError> {
        match &self.place {
            Place::Events(path) => {
                let header = self.last_id.clone().map(|id| ("last-event-id", id));
                self.client.open(path, header).await
            }
            Place::Log { path, offset } => {
                let offset = self.last_id.clone().unwrap_or_else(|| offset.to_string());
                let joint = if path.contains('?') { '&' } else { '?' };
                self.client.open(&format!("{path}{joint}offset={offset}"), None).await
            }
        }
    }
}
