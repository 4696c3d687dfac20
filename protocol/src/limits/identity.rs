//! Bounds of certificates, and of joining.

/// An agent's certificate (F4).
pub const CERT_LIFE_MS: u64 = 24 * 3_600_000;

/// How long after its end a certificate of a known key may still renew, and nothing else.
pub const CERT_RENEW_GRACE_MS: u64 = 7 * 86_400_000;

/// Between two looks whether a standing connection's certificate has ended: clocks are set, and machines sleep.
pub const CERT_LOOK_MS: u64 = 60_000;

/// How far an agent's clock may stand behind the coordinator's: certificates begin so much earlier.
pub const CERT_SKEW_MS: u64 = 5 * 60_000;

/// A CA's certificate: longer than any fleet keeps its tokens, for the fingerprint in them never changes.
pub const CA_LIFE_MS: u64 = 20 * 365 * 86_400_000;

/// The longest life of a server's certificate that may be asked for: clients refuse longer ones.
pub const SERVER_CERT_LIFE_MAX_MS: u64 = 398 * 86_400_000;

/// The certificate of the coordinator's own servers; it makes a new one at each start and at two thirds of it.
pub const SERVER_CERT_LIFE_MS: u64 = 90 * 86_400_000;

/// A request for a certificate: ours have 200 bytes, and only their key counts.
pub const CSR_MAX_BYTES: usize = 4 << 10;

/// A certificate that is read: two names of 200 bytes, each byte as three, and what stands around them.
pub const CERT_MAX_BYTES: usize = 8 << 10;

/// Certificates of one chain: leaf and CA, and room for two between.
pub const CHAIN_MAX: usize = 4;

/// A document that proves where an agent runs; those of clouds have 2 to 6 KiB (F7).
pub const EVIDENCE_MAX_BYTES: usize = 16 << 10;

/// Agents that a token's page shows, newest first: a token of an image admits any number over the years.
pub const AGENTS_OF_TOKEN_MAX: usize = 10_000;

/// Networks that one join token names: sites and offices, not machines.
pub const CIDRS_PER_TOKEN_MAX: usize = 64;

/// The shortest life of an agent's certificate that may be asked for: renewing takes a moment, and times in certificates
/// are whole seconds.
pub const CERT_LIFE_MIN_MS: u64 = 10_000;

/// The longest pause between two looks at whether a certificate of the coordinator's own servers is due: a machine that
/// slept is on time again after it, and it costs nothing.
pub const SERVER_CERT_CHECK_MS: u64 = 30_000;

/// Between two looks at the operator's certificate files: programs that renew them need not know of us, and wait no
/// longer than for a reload by hand.
pub const TLS_FILES_CHECK_MS: u64 = 10_000;

/// How long a peer that is refused may take to acknowledge why; after it the connection is closed in any case, so that a
/// revoked agent is gone within a second.
pub const REFUSAL_DELIVERY_MS: u64 = 500;

/// The longest pause between two tries to join a fleet (F12).
pub const JOIN_PAUSE_MAX_MS: u64 = 30_000;

/// The first pause between two tries to join; it doubles.
pub const JOIN_PAUSE_MIN_MS: u64 = 250;

/// A join token's default life (F2).
pub const JOIN_TOKEN_MS: u64 = 24 * 3_600_000;
