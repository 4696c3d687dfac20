//! The log of a job that nobody ran: a line that says whose result it is, and then the bytes of that one's log, for those who
//! may read it. Nothing is copied: offsets are moved by the length of the line.

use bytes::Bytes;
use windlass_coordinator_core::row::{AttemptRow, ReusedFrom, Scope};
use windlass_coordinator_logs::Piece;
use windlass_protocol::{AttemptId, WallMs};

use super::Ground;
use super::auth::Caller;
use super::problem::Problem;

/// Which bytes make a log.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    /// The attempt whose bytes they are, if there are any to be shown.
    pub(super) attempt: Option<AttemptId>,
    /// What is said before them; empty where the log is the attempt's own.
    pub(super) head: Bytes,
    /// When that is said.
    pub(super) at: WallMs,
}

impl Shown {
    /// Of an attempt that the caller may see.
    pub(super) async fn of(ground: &Ground, caller: &Caller, row: &AttemptRow) -> Result<Self, Problem> {
        let Some(from) = &row.reused else {
            return Ok(Self { attempt: Some(row.id), head: Bytes::new(), at: row.assigned_at });
        };
        let age = age(row.assigned_at.0.saturating_sub(from.at.0));
        let fleet = from.fleet.as_deref().map(|url| format!(" ({})", plain(url))).unwrap_or_default();
        let mut head =
            format!("~~~ reused from build #{}, step {}, {age} ago{fleet}\n", from.number, plain(&from.step));
        let may = caller.has(Scope::BuildsRead) && caller.sees_place(&from.pipeline, &from.branch);
        let there = may && is_there(ground, from).await?;
        if !may {
            head.push_str("its log is not shown: this token may not read that build\n");
        }
        if may && !there && from.fleet.is_some() {
            head.push_str("its log is not here: it has none, or the fleet did not give it\n");
        }
        let attempt = there.then_some(from.attempt);
        Ok(Self { attempt, head: head.into(), at: row.assigned_at })
    }

    /// How many bytes stand before those of the attempt.
    pub(super) fn before(&self) -> u64 {
        self.head.len() as u64
    }

    /// The first line as a piece, from an offset on; `None` past its end.
    pub(super) fn head_from(&self, offset: u64) -> Option<Piece> {
        let start = usize::try_from(offset).ok().filter(|start| *start < self.head.len())?;
        Some(Piece { offset, at: self.at, bytes: self.head.slice(start..) })
    }

    /// A piece of the attempt's, where it stands in this log.
    pub(super) fn moved(&self, piece: Piece) -> Piece {
        Piece { offset: piece.offset + self.before(), ..piece }
    }
}

/// Whether the log has bytes; one that ended without any is not remembered.
async fn is_there(ground: &Ground, from: &ReusedFrom) -> Result<bool, Problem> {
    Ok(ground.fleet.logs.len(from.attempt).await?.is_some())
}

/// A step's name within one line.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// For people: the largest unit alone.
fn age(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_s_age_is_told_in_one_unit() {
        for (ms, told) in [(0, "0 s"), (59_999, "59 s"), (60_000, "1 min"), (7_200_000, "2 h"), (259_200_000, "3 d")] {
            assert_eq!(age(ms), told);
        }
    }

    #[test]
    fn the_first_line_comes_before_the_bytes_of_the_other_log() {
        let shown = Shown { attempt: None, head: Bytes::from_static(b"~~~ x\n"), at: WallMs(1) };
        assert_eq!(shown.head_from(4).map(|piece| (piece.offset, piece.bytes)), Some((4, Bytes::from_static(b"x\n"))));
        assert!(shown.head_from(6).is_none());
        let piece = Piece { offset: 3, at: WallMs(2), bytes: Bytes::from_static(b"y") };
        assert_eq!(shown.moved(piece).offset, 9);
    }
}
