//! Agents of one zone that share what they fetch: whom this one asks, and as whom.
//!
//! | module | owns |
//! | --- | --- |
//! | `zone` | who there is, and which of them fetches what |
//! | `serve` | what this agent gives to others |
//! | `tally` | how blobs that were wanted were come by |

pub(crate) mod serve;
pub(crate) mod tally;
pub(crate) mod zone;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quinn::{Connection, Endpoint};
use windlass_protocol::AgentId;
use windlass_protocol::identity::{AgentIdentity, Standing};
use windlass_protocol::limits::PEER_CONNECT_MS;
use windlass_protocol::link::endpoint::peer_identity;
use windlass_protocol::link::{Code, FramedRecv, FramedSend, LinkError, Protocol, connect};
use windlass_protocol::message::FetchBlobs;

use self::tally::Tally;
use self::zone::{Member, Zone};
use crate::bulk::Bulk;

/// As whom this agent speaks to others: replaced with its certificate.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub(crate) named: AgentIdentity,
    pub(crate) client: quinn::ClientConfig,
    pub(crate) server: quinn::ServerConfig,
}

/// The zone, and the connections to who is in it.
#[derive(Debug)]
pub(crate) struct Peers {
    pub(crate) zone: Zone,
    pub(crate) tally: Tally,
    shown: Mutex<Shown>,
    /// `None` where this agent neither asks nor serves.
    endpoint: Option<Endpoint>,
    links: Mutex<HashMap<AgentId, Link>>,
}

/// A connection to one peer, made by one of those who want it.
type Link = Arc<tokio::sync::Mutex<Option<Connection>>>;

impl Peers {
    pub(crate) fn new(shown: Shown, endpoint: Option<Endpoint>) -> Arc<Self> {
        let zone = Zone::new(shown.named.agent);
        let (tally, links) = (Tally::default(), Mutex::default());
        Arc::new(Self { zone, tally, shown: Mutex::new(shown), endpoint, links })
    }

    /// Serves others, where this agent does, for as long as its endpoint is open.
    pub(crate) fn serve(&self, bulk: &Arc<Bulk>) {
        if let Some(endpoint) = &self.endpoint {
            tokio::spawn(serve::serve(endpoint.clone(), Arc::clone(bulk)));
        }
    }

    /// Shows another certificate from the next connection on.
    pub(crate) fn show(&self, shown: Shown) {
        if let Some(endpoint) = &self.endpoint {
            endpoint.set_server_config(Some(shown.server.clone()));
        }
        *self.shown() = shown;
        // The other ends close what an older one opened when its time is over; new ones are made in time.
        self.links().clear();
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn links(&self) -> MutexGuard<'_, HashMap<AgentId, Link>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this agent's certificate says.
    pub(crate) fn named(&self) -> AgentIdentity {
        self.shown().named.clone()
    }

    /// The port that others reach it at, if it serves any.
    pub(crate) fn port(&self) -> Option<u16> {
        self.endpoint.as_ref()?.local_addr().ok().map(|address| address.port())
    }

    /// Takes what the coordinator tells of the zone; connections to those that left end.
    pub(crate) fn told(&self, key: [u8; 32], peers: &[windlass_protocol::message::Peer]) {
        self.zone.replace(key, peers);
        self.links().retain(|agent, _| peers.iter().any(|peer| peer.agent == *agent));
    }

    /// Opens a stream to a peer with a request.
    pub(crate) async fn ask(
        &self,
        member: &Member,
        request: &FetchBlobs,
    ) -> Result<(FramedSend, FramedRecv), LinkError> {
        let connection = self.connected(member).await?;
        let (send, recv) = connection.open_bi().await?;
        let (mut send, recv) = (FramedSend::new(send), FramedRecv::new(recv));
        send.send_message(request).await?;
        send.finish()?;
        Ok((send, recv))
    }

    async fn connected(&self, member: &Member) -> Result<Connection, LinkError> {
        let link = Arc::clone(self.links().entry(member.agent).or_default());
        let mut open = link.lock().await;
        if let Some(open) = open.as_ref().filter(|open| open.close_reason().is_none()) {
            return Ok(open.clone());
        }
        let Some(endpoint) = &self.endpoint else { return Err(LinkError::TimedOut) };
        let (config, named) = {
            let shown = self.shown();
            (shown.client.clone(), shown.named.clone())
        };
        let connecting = connect(endpoint, member.address, Protocol::Peer, config);
        let within = tokio::time::timeout(Duration::from_millis(PEER_CONNECT_MS), connecting).await;
        let connection = within.map_err(|_| LinkError::TimedOut)??;
        let there = peer_identity(&connection)?;
        if !there.is_some_and(|there| there.agent == member.agent && same_place(&there, &named)) {
            connection.close(Code::Refused.number(), b"another agent was expected");
            return Err(LinkError::NoCertificate);
        }
        *open = Some(connection.clone());
        Ok(connection)
    }

    /// Ends all connections.
    pub(crate) fn close(&self) {
        if let Some(endpoint) = &self.endpoint {
            endpoint.close(Code::Done.number(), b"the agent leaves");
        }
    }
}

/// Whether two agents share what they fetch.
pub(crate) fn same_place(one: &AgentIdentity, other: &AgentIdentity) -> bool {
    one.cache_zone() == other.cache_zone() && one.trust_domain == other.trust_domain
}

/// Whether an agent may ask this one for anything: it is of the same zone, trust and fleet, and its certificate is good now.
pub(crate) fn admitted(asker: &AgentIdentity, own: &AgentIdentity) -> bool {
    same_place(asker, own) && asker.standing(windlass_protocol::host::now().wall) == Standing::Valid
}

/// Where others reach an agent that reaches its coordinator there; `None` on loopback, where nobody else is.
pub(crate) fn advertised(listen: Option<SocketAddr>, coordinator: SocketAddr, port: u16) -> Option<String> {
    let chosen = listen.map(|listen| listen.ip()).filter(|ip| !ip.is_unspecified());
    let ip = match chosen {
        Some(ip) => ip,
        None => local_address(coordinator).ok().filter(|ip| !ip.is_loopback() && !ip.is_unspecified())?,
    };
    Some(SocketAddr::new(ip, port).to_string())
}

/// This machine's address on the way there, as its routes say; nothing is sent.
fn local_address(there: SocketAddr) -> std::io::Result<IpAddr> {
    let there = SocketAddr::new(there.ip().to_canonical(), there.port());
    let any: IpAddr = if there.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(there)?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests;
