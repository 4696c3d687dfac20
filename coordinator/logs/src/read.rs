//! Reading a log's durable bytes, wherever they lie: live segments or a sealed file.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use windlass_protocol::AttemptId;

use crate::error::Fault;
use crate::log::{Log, Phase, Piece, Run};
use crate::record::{self, Kind, Parsed};
use crate::sealed::SealedFile;
use crate::shared::{Counters, Shared};

/// Where a log's bytes are read from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Live(Arc<Log>),
    Sealed(Arc<SealedFile>),
}

impl Source {
    /// The log, if there is one. Reads files.
    pub(crate) fn open(shared: &Shared, attempt: AttemptId) -> Result<Self, Fault> {
        match shared.live(attempt) {
            Some(log) => Ok(Self::Live(log)),
            None => shared.open_sealed(attempt).map(|file| Self::Sealed(Arc::new(file))),
        }
    }

    /// Some pieces from `offset` on, at least one where `offset` is below `end`, which is durable; within `end`.
    /// Holds one run or one frame in memory. Moves to the sealed file if the log was sealed meanwhile.
    pub(crate) fn fetch(&mut self, shared: &Shared, offset: u64, end: u64) -> Result<Vec<Piece>, Fault> {
        Counters::add(&shared.counters.file_reads, 1);
        if let Self::Live(log) = self {
            let attempt = log.attempt;
            let (phase, run) = {
                let state = log.lock();
                (state.phase, state.run_at(offset))
            };
            match (phase, run) {
                (Phase::Sealed, _) => *self = Self::Sealed(Arc::new(shared.open_sealed(attempt)?)),
                (Phase::Open | Phase::Ended { .. }, Some(run)) => return read_run(&run, attempt, offset, end),
                (Phase::Open | Phase::Ended { .. } | Phase::Deleted, _) => return Err(Fault::Unknown { attempt }),
            }
        }
        match self {
            Self::Sealed(file) => Ok(clip_all(&file.frame_at(offset)?, offset, end)),
            Self::Live(log) => Err(Fault::Unknown { attempt: log.attempt }),
        }
    }
}

fn clip_all(pieces: &[Piece], from: u64, to: u64) -> Vec<Piece> {
    pieces.iter().filter_map(|piece| piece.clip(from, to)).collect()
}

/// The records of one log within a run, checked again.
fn read_run(run: &Run, attempt: AttemptId, offset: u64, end: u64) -> Result<Vec<Piece>, Fault> {
    let segment = &run.segment;
    let mut buffer = vec![0; usize::try_from(run.span).unwrap_or(usize::MAX)];
    segment.read(run.position, &mut buffer)?;
    let buffer = Bytes::from(buffer);
    let (mut index, mut next) = (0, run.offset);
    let mut pieces = Vec::new();
    while next < run.end().min(end) {
        let position = run.position + index as u64;
        let damaged = |what| Fault::Damaged { path: segment.path.clone(), position, what };
        match record::parse(buffer.get(index..).unwrap_or_default(), segment.seq, position) {
            Parsed::Record(header, payload, total) => {
                index += total;
                if header.kind == Kind::Data && header.attempt == attempt && header.offset == next {
                    next += u64::from(header.len);
                    let bytes = buffer.slice(index - payload.len()..index);
                    pieces.extend(Piece { offset: header.offset, at: header.at, bytes }.clip(offset, end));
                }
            }
            // Another log's record, or an unacknowledged one of this; if it was needed, the next step finds the gap.
            Parsed::BadPayload(total) => index += total,
            Parsed::Bad | Parsed::Short(_) => return Err(damaged("a record is not what was written")),
        }
    }
    if pieces.is_empty() {
        let what = "it lacks bytes of a log";
        return Err(Fault::Damaged { path: segment.path.clone(), position: run.position, what });
    }
    Ok(pieces)
}

/// Reads a range of a log, piece by piece; holds about 1 MiB.
#[derive(Debug)]
pub struct PieceReader {
    pub(crate) shared: Arc<Shared>,
    pub(crate) source: Source,
    pub(crate) offset: u64,
    pub(crate) end: u64,
    pub(crate) pieces: VecDeque<Piece>,
}

impl PieceReader {
    /// The range that it reads, as far as the log reached when it was opened.
    #[must_use]
    pub const fn remaining(&self) -> std::ops::Range<u64> {
        self.offset..self.end
    }

    /// The next piece; `None` at the end of the range. Cancel-safe.
    ///
    /// # Errors
    /// [`Fault`] where the disk fails or holds something else than what was written, or the log was deleted.
    pub async fn next(&mut self) -> Result<Option<Piece>, Fault> {
        if self.pieces.is_empty() && self.offset < self.end {
            let (offset, end) = (self.offset, self.end);
            (self.source, self.pieces) = fetch(&self.shared, &self.source, offset, end).await?;
        }
        let piece = self.pieces.pop_front();
        if let Some(piece) = &piece {
            self.offset = piece.end();
        }
        Ok(piece)
    }

    /// All that is left, in one buffer: for small logs and tests.
    ///
    /// # Errors
    /// As [`PieceReader::next`].
    pub async fn read_to_end(&mut self) -> Result<Vec<u8>, Fault> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.next().await? {
            bytes.extend_from_slice(&piece.bytes);
        }
        Ok(bytes)
    }
}

/// [`Source::fetch`] outside of the executor's threads.
pub(crate) async fn fetch(
    shared: &Arc<Shared>,
    source: &Source,
    offset: u64,
    end: u64,
) -> Result<(Source, VecDeque<Piece>), Fault> {
    let mut source = source.clone();
    shared
        .blocking(move |shared| {
            let pieces = source.fetch(shared, offset, end)?;
            Ok((source, pieces.into()))
        })
        .await
}
