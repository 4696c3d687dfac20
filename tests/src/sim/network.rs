//! The model network: one link for each agent, connections over it, and what goes wrong with them.
//!
//! Within a connection's stream messages keep their order, as QUIC's do; logs and control overtake each other. A
//! connection that breaks loses what it carried, or delivers it late, or twice: to a side that has given it up.

use std::collections::BTreeMap;

use windlass_protocol::AttemptId;
use windlass_protocol::job::Epoch;
use windlass_protocol::message::{AgentMessage, CoordinatorMessage};

/// A message or a piece of a log.
#[derive(Debug, Clone)]
pub enum Payload {
    /// From the agent.
    Up(Box<AgentMessage>),
    /// To the agent.
    Down(CoordinatorMessage),
    /// From the agent, on a stream of its own.
    Chunk {
        /// Whose log.
        attempt: AttemptId,
        /// The stream's right.
        epoch: Epoch,
        /// The first byte's.
        offset: u64,
        /// At least one.
        bytes: Vec<u8>,
    },
}

/// On its way.
#[derive(Debug, Clone)]
pub struct Parcel {
    /// Over which connection.
    pub conn: u64,
    /// What.
    pub payload: Payload,
    /// A late copy: only delivered where the connection is over.
    pub ghost: bool,
}

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// From the agent to the coordinator.
    Up,
    /// From the coordinator to the agent.
    Down,
}

impl Payload {
    /// Which way it goes.
    #[must_use]
    pub const fn way(&self) -> Way {
        match self {
            Self::Up(_) | Self::Chunk { .. } => Way::Up,
            Self::Down(_) => Way::Down,
        }
    }
}

/// A connection, as both ends see it.
#[derive(Debug, Clone)]
pub struct Conn {
    /// The agent's host.
    pub host: usize,
    /// The agent's process.
    pub boot: u64,
    /// The coordinator's process.
    pub generation: u64,
    /// The agent has not given it up.
    pub agent_open: bool,
    /// The coordinator has not given it up.
    pub coordinator_open: bool,
    /// It carries nothing any more, whatever its ends believe.
    pub broken: bool,
    /// No earlier than this does the next message of each stream arrive (`None` is control, going up or down).
    pub order: BTreeMap<(Way, Option<AttemptId>), u64>,
    /// What waits for a partition to end.
    pub stuck: Vec<Parcel>,
    /// The agent's log streams: right, next byte to send.
    pub streams: BTreeMap<AttemptId, (Epoch, u64)>,
}

/// An agent's way to the coordinator.
#[derive(Debug, Clone, Default)]
pub struct Link {
    /// Nothing goes up until then.
    pub up_blocked_until: u64,
    /// Nothing comes down until then.
    pub down_blocked_until: u64,
    /// One way, at least; grows with trouble.
    pub latency_ms: u64,
}

impl Link {
    /// Whether this way is blocked now.
    #[must_use]
    pub const fn blocked(&self, way: Way, now: u64) -> bool {
        match way {
            Way::Up => self.up_blocked_until > now,
            Way::Down => self.down_blocked_until > now,
        }
    }
}

/// All links and connections.
#[derive(Debug, Default)]
pub struct Network {
    /// By host.
    pub links: Vec<Link>,
    /// By number; those that both sides have given up are dropped in time.
    pub conns: BTreeMap<u64, Conn>,
    /// The last number given.
    pub last: u64,
}

impl Network {
    /// A new connection.
    pub fn open(&mut self, host: usize, boot: u64, generation: u64) -> u64 {
        self.last += 1;
        let conn = Conn {
            host,
            boot,
            generation,
            agent_open: true,
            coordinator_open: true,
            broken: false,
            order: BTreeMap::new(),
            stuck: Vec::new(),
            streams: BTreeMap::new(),
        };
        self.conns.insert(self.last, conn);
        self.last
    }
}
