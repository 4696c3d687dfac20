//! Bounds of spawners, supervisors and the processes of jobs.

/// A launch of a job on its way to the spawner: an environment and a command at their limits, as JSON.
pub const LAUNCH_MAX_BYTES: usize = 4 << 20;

/// Supervisors that a spawner gives a next job when they are done with one; more leave after their job.
pub const SUPERVISORS_KEPT_MAX: usize = 64;

/// Without a launch for so long, supervisors that wait for a job are let go: a pause between builds costs a few forks.
pub const SUPERVISOR_IDLE_MS: u64 = 30_000;

/// Jobs of one supervisor before it leaves: what any of them may have left in its memory does not add up.
pub const SUPERVISOR_JOBS_MAX: u32 = 1_000;

/// How long a spawner waits for a supervisor to take a launch, before it forks another one.
pub const RELAY_SEND_MS: u64 = 2_000;

/// One line between an agent and a job's supervisor; the longest carries a secret to mask.
pub const SUPERVISOR_LINE_MAX_BYTES: usize = 256 << 10;

/// How long an agent that starts waits for a supervisor's first line where an attempt's own record cannot be read: it is said
/// at once by one that lives.
pub const SUPERVISOR_HELLO_MS: u64 = 1_000;

/// Directories of attempts that could not be read, which an agent keeps for a person to look at: enough to see what they
/// have in common. Each may hold a whole log.
pub const UNREADABLE_KEPT_MAX: usize = 8;

/// Connections to one supervisor: the agent, one that it lost, and somebody who looks; the oldest gives way.
pub const SUPERVISOR_CLIENTS_MAX: usize = 4;

/// Processes and threads of one job: more than any build tool starts, fewer than the machine's ids.
pub const JOB_PROCESSES_MAX: u64 = 16_384;

/// Open files of each of a job's processes: what language runtimes and databases in tests ask for.
pub const JOB_OPEN_FILES_MAX: u64 = 65_536;

/// How long killed processes may take to be gone before the attempt is reported as one that cannot be killed (F26).
pub const UNKILLABLE_MS: u64 = 60_000;

/// Within this long of the first, a second signal cancels and a third ends at once (F19).
pub const SIGNAL_LADDER_MS: u64 = 600_000;

/// How long an agent that ends at once still sends results and logs (F19).
pub const QUIT_FLUSH_MS: u64 = 5_000;

/// From a kill to its verification; later, the agent says that it cannot kill and takes nothing more (F26).
pub const KILL_VERIFY_MS: u64 = 10_000;

/// Ended attempts whose epochs an agent remembers, so that a late repetition of an offer starts nothing.
pub const ENDED_REMEMBERED_MAX: usize = 1_024;
