//! What an agent is told when it starts, and never again.

use windlass_protocol::HostFacts;
use windlass_protocol::job::Resources;

/// An agent's configuration, as far as its core needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentConfig {
    /// Its name, for people.
    pub name: String,
    /// The version of its program.
    pub version: String,
    /// What the operating system calls the machine.
    pub machine_id: String,
    /// Which run of the machine this is.
    pub boot_id: String,
    /// Jobs at once; at least 1.
    pub slots: u32,
    /// What it has to give to jobs, in all.
    pub capacity: Resources,
    /// Tags it claims.
    pub tags: Vec<(String, String)>,
    /// Whether it can run images, until the first look at the machine's health says otherwise.
    pub runs_images: bool,
    /// Named abilities beside the version (F59).
    pub capabilities: Vec<String>,
    /// Its machine, as far as it decides the results of steps.
    pub host: HostFacts,
    /// One job, then leave.
    pub once: bool,
    /// Of the generator that spreads beats and pauses.
    pub seed: u64,
    /// Deliberate faults; none but in the tests that show that the oracle sees them.
    pub bugs: Bugs,
}

/// Deliberate faults, each of which breaks one invariant. Tests switch them on to see the oracle catch them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bugs {
    /// Starts a command although its right has ended, and lets exclusive ones run on (breaks I3).
    pub outlives_right: bool,
    /// Sends a log from its own idea of the offset, not from the coordinator's (breaks I4).
    pub sends_log_from_own_offset: bool,
    /// Drops a finished attempt as soon as it has said so (breaks I3: the result is lost with the connection, and the
    /// command runs again).
    pub forgets_before_commit: bool,
    /// Goes on with an attempt that it was told to stop or cancel (breaks I8).
    pub ignores_stop: bool,
    /// Does not hold what it found and cannot read (breaks I3: it runs, and is offered again).
    pub forgets_unreadable: bool,
}
