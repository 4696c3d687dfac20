//! Bounds of the fleet: agents, pools, tokens, orders, and what an agent may say of itself.

/// Agents that one coordinator serves.
pub const AGENTS_MAX: usize = 20_000;

/// Pools that one coordinator knows.
pub const POOLS_MAX: usize = 1_000;

/// Tokens of both kinds that are not past.
pub const TOKENS_MAX: usize = 10_000;

/// From when a build is ordered until its definition is there; a large repository may have to be fetched for it.
pub const ORDER_MS: u64 = 600_000;

/// Orders that are filled at a time.
pub const ORDERS_AT_ONCE_MAX: usize = 16;

/// Queues that one pool serves.
pub const QUEUES_PER_POOL_MAX: usize = 100;

/// Tags of one agent or one step's query.
pub const TAGS_MAX: usize = 64;

/// Named abilities of one agent.
pub const CAPABILITIES_MAX: usize = 64;

/// Attempts that one agent has: its slots, and results that wait while the coordinator is away.
pub const HELD_MAX: usize = 4_096;

/// Slots of one agent.
pub const SLOTS_MAX: u32 = 512;
