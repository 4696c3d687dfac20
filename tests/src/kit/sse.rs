//! Server-Sent Events, read as the HTML standard says.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::wait::within;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its name; `message` where it has none.
    pub name: String,
    /// Its own id, if it has one.
    pub id: Option<String>,
    /// Its data.
    pub data: String,
}

impl Event {
    /// The data as JSON.
    ///
    /// # Errors
    /// It is none.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.data).with_context(|| format!("event {self:?}"))
    }
}

/// A stream of events.
#[derive(Debug)]
pub struct Events {
    response: reqwest::Response,
    buffer: Vec<u8>,
}

impl Events {
    pub(super) const fn new(response: reqwest::Response) -> Self {
        Self { response, buffer: Vec::new() }
    }

    /// The next event; `None` where the server ended the stream.
    ///
    /// # Errors
    /// The connection broke, or nothing came before the deadline.
    pub async fn next(&mut self, deadline: Duration) -> Result<Option<Event>> {
        within("an event", deadline, async {
            loop {
                if let Some(block) = self.take_block() {
                    if let Some(event) = parse(&block) {
                        return Ok(Some(event));
                    }
                    continue;
                }
                match self.response.chunk().await? {
                    Some(bytes) => self.buffer.extend_from_slice(&bytes),
                    None => return Ok(None),
                }
            }
        })
        .await?
    }

    /// All events up to one that `last` is true for, that one with them.
    ///
    /// # Errors
    /// The stream ended before it, or an event did not come before the deadline.
    pub async fn up_to(&mut self, deadline: Duration, last: impl Fn(&Event) -> bool) -> Result<Vec<Event>> {
        let mut seen = Vec::new();
        loop {
            let Some(event) = self.next(deadline).await? else { bail!("the stream ended after {seen:?}") };
            let found = last(&event);
            seen.push(event);
            if found {
                return Ok(seen);
            }
        }
    }

    fn take_block(&mut self) -> Option<String> {
        let end = self.buffer.windows(2).position(|two| two == b"\n\n")?;
        let rest = self.buffer.split_off(end + 2);
        let block = std::mem::replace(&mut self.buffer, rest);
        Some(String::from_utf8_lossy(&block).into_owned())
    }
}

/// A block without data is a comment that keeps the connection alive.
fn parse(block: &str) -> Option<Event> {
    let mut event = Event { name: "message".to_owned(), id: None, data: String::new() };
    let mut data = Vec::new();
    for line in block.lines() {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
        match name {
            "event" => event.name = value,
            "id" => event.id = Some(value),
            "data" => data.push(value),
            _ => {}
        }
    }
    event.data = data.join("\n");
    (!data.is_empty()).then_some(event)
}
