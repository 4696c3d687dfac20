//! Pins a build: its blobs are promised first, so that a sweep which is under way spares them. Its rows are looked at before it is
//! said and after: what went between the two went before it was pinned, and is told (docs/design/051).

use windlass_coordinator_core::Rejected;
use windlass_coordinator_core::effect::Reply;
use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{Actor, Anew, AttemptRow, BuildRows, NewPin, PinGone, PinRequest, PinRow};
use windlass_coordinator_store::{PinGround, Pinned};
use windlass_protocol::limits::{PIN_LOOKS_MAX, PINNED_DISK_DIVISOR};
use windlass_protocol::{BuildId, WallMs};

use crate::desk::DeskError;
use crate::fleet;
use crate::sweeper::Sweeper;
use crate::views::ReadError;

/// Why a build was not pinned.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PinError {
    /// It is no more.
    #[error("there is no build {0}")]
    NoBuild(BuildId),
    /// Nothing was known of it for long enough to be said.
    #[error("the build changes just now; try again")]
    Changing,
    /// Its blobs cannot be looked at.
    #[error("{0}")]
    Disk(String),
    /// Its rows cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The core refuses it, or is not there.
    #[error(transparent)]
    Desk(#[from] DeskError),
}

/// What is said of a pin.
#[derive(Debug, Clone, Default)]
pub(crate) struct Said {
    pub(crate) name: Anew<String>,
    pub(crate) until: Anew<WallMs>,
}

/// What a build has, as of one commit.
#[derive(Debug)]
pub(crate) struct Look {
    rows: BuildRows,
    /// What of its artifacts and blobs is gone.
    gone: PinGone,
    /// Its artifacts that are there, and their bytes.
    there: (u64, u64),
    pin: Option<Pinned>,
}

impl Look {
    fn of(found: PinGround, blobs: u64) -> Self {
        let (files, bytes) = AttemptRow::artifacts_of(found.rows.attempts.iter());
        let (files, bytes) = (files.saturating_sub(found.files), bytes.saturating_sub(found.bytes));
        let gone = PinGone { files, bytes, blobs, results: 0 };
        Self { rows: found.rows, gone, there: (found.files, found.bytes), pin: found.pin }
    }

    /// Whether its pin says what is there and what is gone.
    pub(crate) fn agrees(&self) -> bool {
        self.pin.as_ref().is_some_and(|Pinned { row, .. }| {
            (PinGone { results: 0, ..row.gone }) == self.gone && (row.files, row.bytes) == self.there
        })
    }
}

/// A build that is being pinned.
#[derive(Debug)]
pub(crate) struct Pinning<'a> {
    fleet: &'a fleet::Ground,
    sweeper: &'a Sweeper,
    actor: Actor,
    build: BuildId,
    /// What all pins may hold together.
    room_bytes: u64,
    /// Blobs that it names and that are gone, since the others were promised.
    absent: Option<u64>,
}

impl<'a> Pinning<'a> {
    pub(crate) async fn begin(
        (fleet, sweeper): (&'a fleet::Ground, &'a Sweeper),
        actor: Actor,
        build: BuildId,
    ) -> Result<Self, PinError> {
        let room_bytes = room_bytes(fleet).await?;
        Ok(Self { fleet, sweeper, actor, build, room_bytes, absent: None })
    }

    /// Looks at what the build has; the first time its blobs are promised. `None` where it is no more.
    pub(crate) async fn look(&mut self) -> Result<Option<Look>, PinError> {
        let Some(found) = self.fleet.reader.pin_ground(self.build).await? else { return Ok(None) };
        let absent = match self.absent {
            Some(absent) => absent,
            None => self.sweeper.spare(&found.rows).await.map_err(PinError::Disk)?,
        };
        self.absent = Some(absent);
        Ok(Some(Look::of(found, absent)))
    }

    /// Says that it is pinned, and what was seen of it: what its pin was before. `None` where it has just ended, or is just run
    /// again, and has to be looked at anew. With nothing said it was pinned a moment ago: where that pin is over, it stays so.
    pub(crate) async fn say(&self, look: Look, said: Option<Said>) -> Result<Option<Option<PinRow>>, PinError> {
        let again = said.is_none();
        let Said { name, until } = said.unwrap_or_default();
        let (build, room_bytes, rows) = (self.build, self.room_bytes, Some(Box::new(look.rows)));
        let new = NewPin { build, name, until, gone: look.gone, room_bytes, again, rows };
        match self.ask(PinRequest::Pin(Box::new(new))).await {
            Ok(Reply::Pinned { before, .. }) => Ok(Some(before.map(|row| *row))),
            Err(DeskError::Rejected(Rejected::NotInMemory(_))) => Ok(None),
            Ok(_) => Err(DeskError::Unavailable.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Says it until what was said last is what is there: the pin, and what it was before.
    pub(crate) async fn settle(&mut self, first: Look, said: Said) -> Result<(Pinned, Option<PinRow>), PinError> {
        let (mut look, mut told) = (first, None);
        for _ in 0..PIN_LOOKS_MAX {
            // What is said once need not be said again: the second time only what is gone is told.
            let words = told.is_none().then(|| said.clone());
            if let Some(before) = self.say(look, words).await? {
                told.get_or_insert(before);
            }
            look = match self.look().await? {
                Some(look) => look,
                None => {
                    self.ask(PinRequest::Unpin { build: self.build }).await?;
                    return Err(PinError::NoBuild(self.build));
                }
            };
            if told.is_some() && look.agrees() {
                break;
            }
        }
        told.zip(look.pin).map(|(before, pin)| (pin, before)).ok_or(PinError::Changing)
    }

    /// Looks at a build and pins it.
    pub(crate) async fn hold(&mut self, said: Said) -> Result<(Pinned, Option<PinRow>), PinError> {
        let first = self.look().await?.ok_or(PinError::NoBuild(self.build))?;
        self.settle(first, said).await
    }

    async fn ask(&self, request: PinRequest) -> Result<Reply, DeskError> {
        self.fleet.desk.request(self.actor.clone(), Request::Pin(request)).await
    }
}

/// What all pins may hold together, in bytes: a part of the disk, so that builds go on; with a bucket behind it whatever fits there.
async fn room_bytes(fleet: &fleet::Ground) -> Result<u64, PinError> {
    let store = fleet.store.clone();
    let room = move || match store.origin_name() {
        Some(_) => Ok(u64::MAX),
        None => store.disk_size().map(|bytes| bytes / PINNED_DISK_DIVISOR),
    };
    let room = tokio::task::spawn_blocking(room).await.map_err(|error| PinError::Disk(error.to_string()))?;
    room.map_err(|error| PinError::Disk(error.to_string()))
}
