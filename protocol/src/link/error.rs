//! What can go wrong on a link, typed.

use std::io;

use quinn::{ConnectError, ConnectionError, ReadError, VarInt, WriteError};

use crate::frame::BadFrame;
use crate::identity::IdentityError;
use crate::message::{BadMessage, Invalid};

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $text:literal;)*) => {
        /// Why one side stops a stream or closes a connection, as it travels.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code {
            $($(#[$doc])* $variant,)*
            /// A code of a newer version.
            Other(u64),
        }

        impl Code {
            /// The code with this number.
            #[must_use]
            pub const fn from_number(number: u64) -> Self {
                match number { $($number => Self::$variant,)* _ => Self::Other(number) }
            }

            /// The number as it travels.
            #[must_use]
            pub fn number(self) -> VarInt {
                match self {
                    $(Self::$variant => VarInt::from_u32($number),)*
                    Self::Other(number) => VarInt::from_u64(number).unwrap_or(VarInt::MAX),
                }
            }

            /// One half-sentence for people.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* Self::Other(_) => "of a newer version" }
            }
        }
    };
}

codes! {
    /// All is said.
    Done = 0, "all is said";
    /// The bytes are no frames.
    BadFrame = 1, "the bytes are no frames";
    /// A frame holds no message of the expected type.
    BadMessage = 2, "a frame holds no message of the expected type";
    /// The connection needs a certificate.
    NoCertificate = 3, "a certificate is needed";
    /// The certificate's key was revoked.
    Revoked = 4, "the key was revoked";
    /// Whoever wanted the bytes wants them no more.
    Canceled = 5, "nobody wants it any more";
    /// The process ends, or another takes its place.
    ShuttingDown = 6, "the process ends";
    /// The request is well formed and not to be served.
    Refused = 7, "refused";
    /// A newer connection of the same peer takes its place.
    Replaced = 8, "a newer connection takes its place";
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "code {}, {}", self.number(), self.text())
    }
}

/// TLS: no protocol in common (RFC 8446, section 6).
const ALERT_NO_APPLICATION_PROTOCOL: u8 = 120;

/// TLS: the certificate's CA is not one that is believed.
pub const ALERT_UNKNOWN_CA: u8 = 48;

/// TLS: the certificate's time is over, or has not come.
pub const ALERT_CERTIFICATE_EXPIRED: u8 = 45;

const fn believer(by_peer: bool) -> &'static str {
    if by_peer { "the peer refused the handshake" } else { "the peer is not believed" }
}

const fn alert_text(alert: u8) -> &'static str {
    match alert {
        42 | 43 | 46 => "the certificate is bad",
        44 => "the certificate was revoked",
        ALERT_CERTIFICATE_EXPIRED => "the certificate's time is over or has not come; compare the clocks",
        ALERT_UNKNOWN_CA => "the certificate is of another CA: another server, or a token of another server",
        49 => "the certificate is no agent's",
        116 => "a certificate is needed",
        _ => "TLS failed",
    }
}

/// What went wrong on a link. After the first three groups the connection, or its stream, cannot be used any further.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The peer closed the connection and said why.
    #[error("the peer closed the connection: {code}{detail}")]
    Closed {
        /// Why.
        code: Code,
        /// In the peer's words, after `: `; or nothing.
        detail: String,
    },
    /// This side closed the connection.
    #[error("the connection was closed here")]
    ClosedHere,
    /// Nothing was heard for too long.
    #[error("nothing was heard from the peer for too long")]
    TimedOut,
    /// The peer knows nothing of the connection: it has restarted, or QUIC failed.
    #[error("the connection was lost: {detail}")]
    Lost {
        /// What QUIC says.
        detail: String,
    },
    /// The handshake failed: a certificate was not believed, by the peer or here.
    #[error("{}: {} (TLS alert {alert}: {detail})", believer(*by_peer), alert_text(*alert))]
    Handshake {
        /// The peer does not believe this side; else this side does not believe the peer.
        by_peer: bool,
        /// TLS's number.
        alert: u8,
        /// What TLS says.
        detail: String,
    },
    /// The peer speaks none of our protocol versions.
    #[error("the peer speaks no protocol version in common with this one")]
    NoCommonVersion,
    /// A connection that needs a certificate came without one.
    #[error("the peer showed no certificate")]
    NoCertificate,
    /// A connection could not even be tried.
    #[error("the address cannot be connected to: {detail}")]
    Unreachable {
        /// What the system says.
        detail: String,
    },
    /// The peer gave up sending on this stream.
    #[error("the peer gave up sending: {code}")]
    Reset {
        /// Why.
        code: Code,
    },
    /// The peer wants no more of this stream.
    #[error("the peer wants no more: {code}")]
    Stopped {
        /// Why.
        code: Code,
    },
    /// The stream is already finished or reset on this side.
    #[error("the stream has already ended on this side")]
    Ended,
    /// The stream ended where a message or more of a blob was expected.
    #[error("the stream ended {missing} bytes early")]
    Short {
        /// How many at least.
        missing: u64,
    },
    /// A send was abandoned in the middle, so that nothing more can follow on this stream.
    #[error("an earlier send on this stream was abandoned halfway")]
    Interrupted,
    /// The bytes are no frames.
    #[error(transparent)]
    BadFrame(#[from] BadFrame),
    /// A frame holds no message of the expected type.
    #[error(transparent)]
    BadMessage(#[from] BadMessage),
    /// A message decodes and makes no sense.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A certificate or a TLS configuration is not usable.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The other end of a blob (a file, say) failed, or a socket could not be opened.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

impl LinkError {
    /// Whether the whole connection is gone, not only one stream.
    #[must_use]
    pub const fn ends_connection(&self) -> bool {
        match self {
            Self::Closed { .. }
            | Self::ClosedHere
            | Self::TimedOut
            | Self::Lost { .. }
            | Self::Handshake { .. }
            | Self::NoCommonVersion
            | Self::NoCertificate
            | Self::Unreachable { .. }
            | Self::Identity(_) => true,
            Self::Reset { .. }
            | Self::Stopped { .. }
            | Self::Ended
            | Self::Short { .. }
            | Self::Interrupted
            | Self::BadFrame(_)
            | Self::BadMessage(_)
            | Self::Invalid(_)
            | Self::Io { .. } => false,
        }
    }

    fn of_transport(code: u64, by_peer: bool, detail: String) -> Self {
        match u8::try_from(code.wrapping_sub(0x100)) {
            Ok(ALERT_NO_APPLICATION_PROTOCOL) => Self::NoCommonVersion,
            Ok(alert) => Self::Handshake { by_peer, alert, detail },
            Err(_) => Self::Lost { detail },
        }
    }
}

impl From<ConnectionError> for LinkError {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => {
                let words = String::from_utf8_lossy(&close.reason);
                let detail = if words.is_empty() { String::new() } else { format!(": {words}") };
                Self::Closed { code: Code::from_number(close.error_code.into_inner()), detail }
            }
            ConnectionError::ConnectionClosed(close) => {
                Self::of_transport(close.error_code.into(), true, String::from_utf8_lossy(&close.reason).into_owned())
            }
            ConnectionError::TransportError(error) => Self::of_transport(error.code.into(), false, error.reason),
            ConnectionError::TimedOut => Self::TimedOut,
            ConnectionError::LocallyClosed => Self::ClosedHere,
            error @ (ConnectionError::VersionMismatch | ConnectionError::Reset | ConnectionError::CidsExhausted) => {
                Self::Lost { detail: error.to_string() }
            }
        }
    }
}

impl From<ReadError> for LinkError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Reset(code) => Self::Reset { code: Code::from_number(code.into_inner()) },
            ReadError::ConnectionLost(error) => error.into(),
            ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => Self::Ended,
        }
    }
}

impl From<WriteError> for LinkError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stopped(code) => Self::Stopped { code: Code::from_number(code.into_inner()) },
            WriteError::ConnectionLost(error) => error.into(),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => Self::Ended,
        }
    }
}

impl From<ConnectError> for LinkError {
    fn from(error: ConnectError) -> Self {
        Self::Unreachable { detail: error.to_string() }
    }
}
