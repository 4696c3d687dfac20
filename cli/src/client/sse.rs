//! Server-Sent Events, read without I/O: bytes in, events out.

use windlass_protocol::limits::API_EVENT_MAX_BYTES;

use super::ClientError;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Event {
    /// Its name; `message` where none is given.
    pub(crate) name: String,
    /// Its id, if it has one of its own.
    pub(crate) id: Option<String>,
    /// Its data, lines joined.
    pub(crate) data: String,
}

/// Cuts a stream into events (HTML standard, 9.2.6).
#[derive(Debug, Default)]
pub(super) struct Parser {
    line: Vec<u8>,
    after_cr: bool,
    name: String,
    id: Option<String>,
    data: Option<String>,
}

impl Parser {
    /// Takes the next bytes; hands out each event that is whole.
    pub(super) fn push(&mut self, bytes: &[u8], on: &mut dyn FnMut(Event)) -> Result<(), ClientError> {
        for &byte in bytes {
            let follows_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                b'\n' if follows_cr => {}
                b'\n' | b'\r' => self.end_line(on),
                byte => self.line.push(byte),
            }
            if self.line.len() + self.data.as_ref().map_or(0, String::len) > API_EVENT_MAX_BYTES {
                return Err(ClientError::TooLong { limit: API_EVENT_MAX_BYTES });
            }
        }
        Ok(())
    }

    fn end_line(&mut self, on: &mut dyn FnMut(Event)) {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            let (name, id, data) = (std::mem::take(&mut self.name), self.id.take(), self.data.take());
            if let Some(data) = data {
                let name = if name.is_empty() { "message".to_owned() } else { name };
                on(Event { name, id, data });
            }
            return;
        }
        let line = String::from_utf8_lossy(&line);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            // Comments keep the connection alive; other fields are not ours.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pieces: &[&[u8]]) -> Vec<Event> {
        let (mut parser, mut events) = (Parser::default(), Vec::new());
        for piece in pieces {
            parser.push(piece, &mut |event| events.push(event)).unwrap();
        }
        events
    }

    const TEXT: &str =
        ": hello\n\nevent: job\r\nid: 7\ndata: {\"a\":\r\ndata:\u{e9}}\n\ndata: x\r\rid: 8\n\nevent: cut\ndata: no end";

    fn expected() -> Vec<Event> {
        vec![
            Event { name: "job".to_owned(), id: Some("7".to_owned()), data: "{\"a\":\n\u{e9}}".to_owned() },
            Event { name: "message".to_owned(), id: None, data: "x".to_owned() },
        ]
    }

    #[test]
    fn events_come_out_whole_wherever_the_stream_is_cut() {
        assert_eq!(parse(&[TEXT.as_bytes()]), expected());
        for at in 0..TEXT.len() {
            let (first, rest) = TEXT.as_bytes().split_at(at);
            assert_eq!(parse(&[first, rest]), expected(), "cut at {at}");
        }
    }

    #[test]
    fn an_endless_event_is_an_error_and_not_an_endless_buffer() {
        let mut parser = Parser::default();
        let piece = vec![b'x'; 1 << 20];
        let pushed = (0..=API_EVENT_MAX_BYTES >> 20).try_for_each(|_| parser.push(&piece, &mut |_| {}));
        assert!(matches!(pushed, Err(ClientError::TooLong { .. })));
    }
}
