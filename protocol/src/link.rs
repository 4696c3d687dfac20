//! The QUIC link: endpoints, connections that know their peer, frames, messages and blobs on streams.
//!
//! | module | owns |
//! | --- | --- |
//! | [`endpoint`] | UDP sockets, `connect` and `accept` |
//! | [`transport`] | QUIC's windows, timers and acknowledgements |
//! | [`framed`] | frames and messages on a stream |
//! | [`blob`] | raw bytes of known length on a stream |
//! | [`error`] | what can go wrong, typed |
//!
//! A peer may send whatever it likes: lengths are looked at before anything is allocated, a stream that carries nonsense
//! is stopped with a code, and the connection and its endpoint go on.

pub mod blob;
pub mod endpoint;
pub mod error;
pub mod framed;
pub mod transport;

pub use endpoint::{Accepted, Protocol, accept, bind_client, bind_known_server, bind_server, connect};
pub use error::{Code, LinkError};
pub use framed::{FramedRecv, FramedSend, ask};
