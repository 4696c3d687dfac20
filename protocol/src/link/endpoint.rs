//! UDP sockets, and connections that know their peer.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::HandshakeData;
use quinn::crypto::{CryptoError, HmacKey};
use quinn::{ClientConfig, Connection, Endpoint, EndpointConfig, Incoming, ServerConfig, TokioRuntime};
use quinn_proto::HashedConnectionIdGenerator;
use rustix::net::sockopt;
use rustls::pki_types::CertificateDer;

use super::error::{Code, LinkError};
use super::transport::widen;
use crate::Secret;
use crate::identity::{AgentIdentity, SERVER_NAME};
use crate::limits::{LINK_HANDSHAKE_MS, LINK_MTU_MAX_BYTES, LINK_SOCKET_BUFFER_BYTES};
use crate::version::{ALPN_AGENT, ALPN_BULK, ALPN_ENROL, ALPN_PEER};

/// What a connection is for; its ALPN name says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Control and logs of an enrolled agent.
    Agent,
    /// Blobs of an enrolled agent.
    Bulk,
    /// Joining with a token.
    Enrol,
    /// Blobs between two agents of a zone.
    Peer,
}

impl Protocol {
    /// The name that TLS carries.
    #[must_use]
    pub const fn alpn(self) -> &'static [u8] {
        match self {
            Self::Agent => ALPN_AGENT,
            Self::Bulk => ALPN_BULK,
            Self::Enrol => ALPN_ENROL,
            Self::Peer => ALPN_PEER,
        }
    }

    /// The protocol that a name stands for.
    #[must_use]
    pub fn from_alpn(name: &[u8]) -> Option<Self> {
        [Self::Agent, Self::Bulk, Self::Enrol, Self::Peer].into_iter().find(|protocol| protocol.alpn() == name)
    }

    /// Whether a client must show a certificate.
    #[must_use]
    pub const fn needs_certificate(self) -> bool {
        match self {
            Self::Agent | Self::Bulk | Self::Peer => true,
            Self::Enrol => false,
        }
    }
}

/// A connection that a server has taken.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// The connection.
    pub connection: Connection,
    /// What it is for.
    pub protocol: Protocol,
    /// Who is there; always `Some` where [`Protocol::needs_certificate`]. The certificate may have expired, and its key
    /// may be revoked: ask [`AgentIdentity::standing`] and the list of agents.
    pub peer: Option<AgentIdentity>,
}

/// Opens a server's endpoint. The port of `address` may be 0; ask `local_addr`.
///
/// # Errors
/// Where the address cannot be bound.
pub fn bind_server(address: SocketAddr, config: ServerConfig) -> io::Result<Endpoint> {
    Endpoint::new(sized(EndpointConfig::default())?, Some(config), socket(address)?, Arc::new(TokioRuntime))
}

/// As [`bind_server`], known again after a restart by the same secret: peers whose connections ended with an earlier
/// process are told so when they send, and need not wait until nothing was heard for [`LINK_IDLE_MS`].
///
/// [`LINK_IDLE_MS`]: crate::limits::LINK_IDLE_MS
///
/// # Errors
/// Where the address cannot be bound.
pub fn bind_known_server(address: SocketAddr, config: ServerConfig, secret: &Secret<String>) -> io::Result<Endpoint> {
    let reset_key = ResetKey(blake3::derive_key("windlass 2026-11-21 link reset key v1", secret.expose().as_bytes()));
    let [a, b, c, d, e, f, g, h, ..] =
        blake3::derive_key("windlass 2026-11-21 link id key v1", secret.expose().as_bytes());
    let id_key = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    let mut endpoint = EndpointConfig::new(Arc::new(reset_key));
    endpoint.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(id_key)));
    Endpoint::new(sized(endpoint)?, Some(config), socket(address)?, Arc::new(TokioRuntime))
}

/// Makes the tokens by which a peer believes a stateless reset (RFC 9000, section 10.3): keyed BLAKE3.
struct ResetKey([u8; 32]);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], out: &mut [u8]) {
        let signature = blake3::keyed_hash(&self.0, data);
        for (to, from) in out.iter_mut().zip(signature.as_bytes()) {
            *to = *from;
        }
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let wanted = blake3::keyed_hash(&self.0, data);
        let given = <[u8; blake3::OUT_LEN]>::try_from(signature).map_err(|_| CryptoError)?;
        // In constant time.
        if wanted == given { Ok(()) } else { Err(CryptoError) }
    }
}

/// Opens a client's endpoint on a free port, for IPv6 and IPv4 where the machine has both.
///
/// # Errors
/// Where no socket can be had.
pub fn bind_client() -> io::Result<Endpoint> {
    let socket = socket((Ipv6Addr::UNSPECIFIED, 0).into()).or_else(|_| socket((Ipv4Addr::UNSPECIFIED, 0).into()))?;
    Endpoint::new(sized(EndpointConfig::default())?, None, socket, Arc::new(TokioRuntime))
}

/// Takes packets as large as the other end may try.
fn sized(mut endpoint: EndpointConfig) -> io::Result<EndpointConfig> {
    endpoint.max_udp_payload_size(LINK_MTU_MAX_BYTES).map_err(io::Error::other)?;
    Ok(endpoint)
}

/// Connects to the coordinator at `address`, whatever its host is called: [`SERVER_NAME`] is what its certificate says.
///
/// # Errors
/// [`LinkError`] where the peer is not reached, not believed, or does not speak `protocol`.
pub async fn connect(
    endpoint: &Endpoint,
    address: SocketAddr,
    protocol: Protocol,
    config: ClientConfig,
) -> Result<Connection, LinkError> {
    let connecting = endpoint.connect_with(config, address, SERVER_NAME)?;
    let connection = within_handshake(connecting).await?;
    if negotiated(&connection) != Some(protocol) {
        connection.close(Code::Refused.number(), b"another protocol was expected");
        return Err(LinkError::NoCommonVersion);
    }
    widen(&connection, protocol);
    Ok(connection)
}

/// Takes a connection through its handshake. Refuses one that needs a certificate and has none.
///
/// # Errors
/// [`LinkError`] where the handshake fails; the connection is closed then, with a code that the peer sees.
pub async fn accept(incoming: Incoming) -> Result<Accepted, LinkError> {
    let connection = within_handshake(incoming.accept()?).await?;
    let Some(protocol) = negotiated(&connection) else {
        connection.close(Code::Refused.number(), b"no protocol was named");
        return Err(LinkError::NoCommonVersion);
    };
    let peer = match peer_identity(&connection) {
        Ok(peer) => peer,
        Err(error) => {
            connection.close(Code::NoCertificate.number(), b"the certificate is no agent's");
            return Err(error);
        }
    };
    if protocol.needs_certificate() && peer.is_none() {
        connection.close(Code::NoCertificate.number(), b"show a certificate, or enrol first");
        return Err(LinkError::NoCertificate);
    }
    widen(&connection, protocol);
    Ok(Accepted { connection, protocol, peer })
}

/// Which protocol a connection's handshake settled on.
#[must_use]
pub fn negotiated(connection: &Connection) -> Option<Protocol> {
    let data = connection.handshake_data()?.downcast::<HandshakeData>().ok()?;
    Protocol::from_alpn(data.protocol.as_deref()?)
}

/// Which agent is at the other end, by its verified certificate; `None` if it showed none.
///
/// # Errors
/// [`LinkError::Identity`] where the certificate is no agent's.
pub fn peer_identity(connection: &Connection) -> Result<Option<AgentIdentity>, LinkError> {
    let Some(chain) = connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok())
    else {
        return Ok(None);
    };
    match chain.first() {
        Some(leaf) => Ok(Some(AgentIdentity::from_certificate(leaf)?)),
        None => Ok(None),
    }
}

/// The certificates that a server showed, leaf first: a joining agent keeps its CA's.
#[must_use]
pub fn peer_chain(connection: &Connection) -> Vec<CertificateDer<'static>> {
    let chain = connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    chain.map(|chain| *chain).unwrap_or_default()
}

async fn within_handshake(connecting: quinn::Connecting) -> Result<Connection, LinkError> {
    match tokio::time::timeout(Duration::from_millis(LINK_HANDSHAKE_MS), connecting).await {
        Ok(connection) => Ok(connection?),
        Err(_) => Err(LinkError::TimedOut),
    }
}

fn socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    enlarge(&socket);
    Ok(socket)
}

/// Larger kernel buffers lose fewer packets in a burst. As root past the system's limit, else up to it; a kernel that
/// grants less serves more slowly, and that is all.
fn enlarge(socket: &UdpSocket) {
    let bytes = LINK_SOCKET_BUFFER_BYTES;
    if sockopt::set_socket_recv_buffer_size_force(socket, bytes).is_err() {
        let _ = sockopt::set_socket_recv_buffer_size(socket, bytes);
    }
    if sockopt::set_socket_send_buffer_size_force(socket, bytes).is_err() {
        let _ = sockopt::set_socket_send_buffer_size(socket, bytes);
    }
}
