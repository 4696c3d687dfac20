//! Space on the store's disk: an account of what was promised to uploads, so that bytes are taken only where they fit.
//!
//! The account is in memory. What is free is asked of the file system each time; a floor of it, and what other uploads
//! were promised and have not written yet, is nobody's. What is small and gives space back (records that let go, grants)
//! asks for nothing: it may use the floor.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use windlass_protocol::limits::{CACHE_FLOOR_PART, SPACE_RECORD_BYTES, SPACE_STEP_BYTES};

use crate::error::{Fault, OrFault as _};
use crate::store::Shared;
use crate::vfs::Vfs;

/// What so many small blobs of so many bytes take at most, with their records.
pub(crate) const fn of_blobs(blobs: usize, bytes: usize) -> u64 {
    bytes as u64 + blobs as u64 * SPACE_RECORD_BYTES
}

/// What blobs of so many bytes take, with manifests and listings: 84 bytes for a chunk of 32 KiB or more.
pub(crate) const fn with_records(bytes: u64) -> u64 {
    bytes.saturating_add(bytes / 256).saturating_add(SPACE_RECORD_BYTES)
}

/// What all reservations of a store come to.
#[derive(Debug, Default)]
pub(crate) struct Account {
    reserved_bytes: Mutex<u64>,
}

impl Account {
    /// Takes `bytes` where they fit beside the floor and what was taken before; else says how many are free for the asker.
    fn take(&self, vfs: &dyn Vfs, dir: &Path, floor_bytes: u64, bytes: u64) -> io::Result<Result<(), u64>> {
        let mut reserved = self.reserved_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let space = vfs.space(dir)?;
        let floor = floor_bytes.min(space.total_bytes / CACHE_FLOOR_PART);
        let left = space.free_bytes.saturating_sub(floor).saturating_sub(*reserved);
        if bytes > left {
            return Ok(Err(left));
        }
        *reserved += bytes;
        Ok(Ok(()))
    }

    fn give_back(&self, bytes: u64) {
        let mut reserved = self.reserved_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        *reserved = reserved.saturating_sub(bytes);
    }

    pub(crate) fn reserved_bytes(&self) -> u64 {
        *self.reserved_bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes of disk that are kept for whoever has this; what is left of them is free again when it is dropped.
#[derive(Debug)]
#[must_use = "the space is kept only while it lives"]
pub struct Reservation {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Reservation {
    /// How many bytes are left of it.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A part of it; of what there is, where that is less.
    pub fn split(&mut self, bytes: u64) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { shared: Arc::clone(&self.shared), bytes }
    }

    /// Sees to it that at least `bytes` are left of it, by steps of `step_bytes`.
    ///
    /// # Errors
    /// [`Fault::NoSpace`].
    pub(crate) fn ensure(&mut self, bytes: u64, step_bytes: u64) -> Result<(), Fault> {
        let Some(lacking) = bytes.checked_sub(self.bytes).filter(|lacking| *lacking > 0) else { return Ok(()) };
        let floor_bytes = self.shared.options.floor_bytes;
        let step_bytes = step_bytes.max(lacking);
        // Nearly full: what is needed, and not a step.
        let step = match self.shared.fits_cap(lacking)? {
            Ok(()) => self.shared.take(step_bytes, floor_bytes)?,
            Err(left_bytes) => Err(left_bytes),
        };
        let mut more = match step {
            Ok(()) => Self { shared: Arc::clone(&self.shared), bytes: step_bytes },
            Err(_) => self.shared.reserve(lacking)?,
        };
        self.bytes += std::mem::take(&mut more.bytes);
        Ok(())
    }

    /// So many were dealt with: they are on the disk, or were there already.
    pub(crate) fn spend(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.shared.account.give_back(bytes);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shared.account.give_back(self.bytes);
    }
}

impl Shared {
    /// Keeps room for so many bytes. A lazy store evicts where there is none.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Reservation, Fault> {
        self.reserve_above(bytes, self.options.floor_bytes)
    }

    /// As [`Self::reserve`], with another floor.
    pub(crate) fn reserve_above(self: &Arc<Self>, bytes: u64, floor_bytes: u64) -> Result<Reservation, Fault> {
        if let Err(left_bytes) = self.fits_cap(bytes)? {
            return Err(Fault::NoSpace { path: self.dir.clone(), wanted_bytes: bytes, left_bytes });
        }
        let mut taken = self.take(bytes, floor_bytes)?;
        if let Err(left) = taken
            && self.evict_for((bytes - left).max(SPACE_STEP_BYTES))?
        {
            taken = self.take(bytes, floor_bytes)?;
        }
        match taken {
            Ok(()) => Ok(Reservation { shared: Arc::clone(self), bytes }),
            Err(left) => Err(Fault::NoSpace { path: self.dir.clone(), wanted_bytes: bytes, left_bytes: left }),
        }
    }

    fn take(&self, bytes: u64, floor_bytes: u64) -> Result<Result<(), u64>, Fault> {
        let taken = self.account.take(&*self.vfs, &self.dir, floor_bytes, bytes);
        taken.or_fault("measuring the space of", &self.dir)
    }

    /// None yet; whoever gets it takes as he goes.
    pub(crate) fn no_reservation(self: &Arc<Self>) -> Reservation {
        Reservation { shared: Arc::clone(self), bytes: 0 }
    }
}
