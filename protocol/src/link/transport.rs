//! QUIC's windows, timers and acknowledgements.

use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    AckFrequencyConfig, ClientConfig, Connection, IdleTimeout, MtuDiscoveryConfig, ServerConfig, TransportConfig,
    VarInt,
};

use super::endpoint::Protocol;
use crate::identity::IdentityError;
use crate::limits::{
    LINK_ACK_EVERY, LINK_ENROL_WINDOW_BYTES, LINK_FIRST_WINDOW_BYTES, LINK_IDLE_MS, LINK_INCOMING_MAX,
    LINK_KEEP_ALIVE_MS, LINK_MTU_MAX_BYTES, LINK_STREAM_WINDOW_BYTES, LINK_STREAMS_MAX, LINK_WINDOW_BYTES,
    PEER_STREAMS_MAX,
};

/// What both sides tell QUIC. Windows and streams are those of a peer that is not known yet; [`widen`] opens them.
#[must_use]
pub fn transport_config() -> TransportConfig {
    let mut config = TransportConfig::default();
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(LINK_ACK_EVERY));
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(LINK_MTU_MAX_BYTES);
    let mut congestion = CubicConfig::default();
    congestion.initial_window(LINK_FIRST_WINDOW_BYTES);
    config
        .congestion_controller_factory(Arc::new(congestion))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(LINK_IDLE_MS))))
        .keep_alive_interval(Some(Duration::from_millis(LINK_KEEP_ALIVE_MS)))
        .ack_frequency_config(Some(acks))
        .mtu_discovery_config(Some(mtu))
        .stream_receive_window(VarInt::from_u32(LINK_STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(LINK_ENROL_WINDOW_BYTES))
        .send_window(u64::from(LINK_WINDOW_BYTES))
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None);
    config
}

/// Opens windows and streams for a peer that is known.
pub fn widen(connection: &Connection, protocol: Protocol) {
    match protocol {
        Protocol::Enrol => {}
        Protocol::Agent | Protocol::Bulk => {
            connection.set_receive_window(VarInt::from_u32(LINK_WINDOW_BYTES));
            connection.set_max_concurrent_bi_streams(VarInt::from_u32(LINK_STREAMS_MAX));
            connection.set_max_concurrent_uni_streams(VarInt::from_u32(LINK_STREAMS_MAX));
        }
        Protocol::Peer => {
            connection.set_receive_window(VarInt::from_u32(LINK_WINDOW_BYTES));
            connection.set_max_concurrent_bi_streams(VarInt::from_u32(PEER_STREAMS_MAX));
        }
    }
}

/// A server's configuration around its TLS, for [`super::bind_server`] or an endpoint over another socket.
///
/// # Errors
/// [`IdentityError::Tls`] where the TLS configuration has no cipher that QUIC needs.
pub fn server_config(tls: rustls::ServerConfig) -> Result<ServerConfig, IdentityError> {
    let tls = QuicServerConfig::try_from(tls).map_err(|error| IdentityError::Tls { detail: error.to_string() })?;
    let mut config = ServerConfig::with_crypto(Arc::new(tls));
    config.transport_config(Arc::new(transport_config())).max_incoming(LINK_INCOMING_MAX);
    Ok(config)
}

/// A client's configuration around its TLS, for [`super::connect`].
///
/// # Errors
/// [`IdentityError::Tls`] where the TLS configuration has no cipher that QUIC needs.
pub fn client_config(tls: rustls::ClientConfig) -> Result<ClientConfig, IdentityError> {
    let tls = QuicClientConfig::try_from(tls).map_err(|error| IdentityError::Tls { detail: error.to_string() })?;
    let mut config = ClientConfig::new(Arc::new(tls));
    config.transport_config(Arc::new(transport_config()));
    Ok(config)
}
