//! Bounds between an agent and the commands that run in its jobs.

use super::TREE_DEPTH_MAX;

/// One frame between an agent and the command in a job: its hello carries arguments and environment, to which the kernel
/// gives 2 MiB of an ordinary stack.
pub const HANDS_FRAME_MAX_BYTES: usize = (2 << 20) + (64 << 10);

/// Arguments, and variables, of one call: a glob that a shell expanded over a large tree.
pub const HANDS_ARGUMENTS_MAX: usize = 64 << 10;

/// Bytes that are read or written by one operation of the command in a job, of which several stand at once ([`HANDS_AHEAD`]).
pub const HANDS_CHUNK_BYTES: usize = 256 << 10;

/// Pieces of one file that are asked for, or on their way to the disk, at once: while one is dealt with here, the program has
/// another one in hand, and the rest lies in the socket.
pub const HANDS_AHEAD: usize = 4;

/// A path in an operation of the command in a job: the kernel's own limit.
pub const HANDS_PATH_MAX_BYTES: usize = 4_096;

/// Directory entries in one answer of the command in a job: with the longest names, a quarter of a frame.
pub const HANDS_ENTRIES_MAX: usize = 1_024;

/// Files and directories that the command in a job holds open: one for each level of a walk, and a few files.
pub const HANDS_HANDLES_MAX: usize = TREE_DEPTH_MAX + 64;

/// How long a command in a job waits for an agent that is away, being upgraded.
pub const HANDS_PATIENCE_MS: u64 = 60_000;

/// Between two tries of a command in a job to reach its agent.
pub const HANDS_RETRY_MS: u64 = 200;

/// Commands of one job that its agent serves at once, those that wait for a lock included; others wait at its door.
pub const JOB_CONNECTIONS_MAX: usize = 64;

/// Connections that wait at a place's door when it is given to its next attempt: more than the kernel keeps waiting.
pub const JOB_BACKLOG_MAX: usize = 65_536;

/// What all commands of one job may hold of their agent's memory at once: what they were called with, what they have read, and
/// lists of files. The largest call takes a third, and an ordinary one a five-hundredth.
pub const JOB_CALLS_MAX_BYTES: usize = 64 << 20;

/// What of it stays for other commands when one takes room to read a file ahead: those that find less read piece by piece.
pub const JOB_CALLS_SPARE_BYTES: usize = JOB_CALLS_MAX_BYTES / 2;

/// How long a command waits for the job's others to give memory back; less than it has to say how it was called.
pub const JOB_ROOM_MS: u64 = 5_000;

/// One answer of the command in a job: [`HANDS_CHUNK_BYTES`], or [`HANDS_ENTRIES_MAX`] with the longest names.
pub const HANDS_ANSWER_MAX_BYTES: usize = 512 << 10;

/// From a connection of a job to how it was called; the program says it at once.
pub const JOB_HELLO_MS: u64 = 10_000;

/// What one command in a job reads whole: an input of variables or of values to mask, as JSON.
pub const JOB_INPUT_MAX_BYTES: usize = 4 << 20;

/// Locks that jobs of one agent hold at once, or have marked as done.
pub const LOCKS_MAX: usize = 10_000;

/// Those of them that are one job's: as many as it could name, and no more than others can do without.
pub const LOCKS_PER_JOB_MAX: usize = 1_000;

/// A lock's key.
pub const LOCK_KEY_MAX_BYTES: usize = 1_024;

const _: () = assert!(HANDS_ENTRIES_MAX * 264 < HANDS_FRAME_MAX_BYTES, "an answer with the longest names fits a frame");
const _: () =
    assert!(HANDS_ENTRIES_MAX * 264 < HANDS_ANSWER_MAX_BYTES && HANDS_CHUNK_BYTES * 2 <= HANDS_ANSWER_MAX_BYTES);
const _: () = assert!(JOB_ROOM_MS < JOB_HELLO_MS, "a command that finds no room is told so");
