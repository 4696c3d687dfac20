//! The right by which an attempt is held: it may rise at any time, and is written down beside the loop.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use windlass_protocol::job::Epoch;

/// The newest right to an attempt, and the one that its record names.
#[derive(Debug)]
pub(crate) struct Right {
    latest: AtomicU64,
    /// `None` until there is a record.
    written: Mutex<Option<Epoch>>,
}

impl Right {
    pub(crate) const fn new(epoch: Epoch, written: bool) -> Self {
        Self { latest: AtomicU64::new(epoch.0), written: Mutex::new(if written { Some(epoch) } else { None }) }
    }

    /// The newest right.
    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.latest.load(Ordering::Acquire))
    }

    /// A newer right was given.
    pub(crate) fn raise(&self, epoch: Epoch) {
        self.latest.fetch_max(epoch.0, Ordering::AcqRel);
    }

    /// Makes the record, which names the newest right. Blocks.
    pub(crate) fn record(&self, make: impl FnOnce(Epoch) -> io::Result<()>) -> io::Result<()> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let epoch = self.epoch();
        make(epoch)?;
        *written = Some(epoch);
        Ok(())
    }

    /// Brings the record up to the newest right, whatever order the calls run in; without a record there is nothing to
    /// do, for it will name the newest one. Blocks.
    pub(crate) fn write(&self, note: impl FnOnce(Epoch) -> io::Result<()>) -> io::Result<()> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let epoch = self.epoch();
        if written.is_some_and(|written| written < epoch) {
            note(epoch)?;
            *written = Some(epoch);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_never_falls_back_to_an_older_right() {
        let right = Right::new(Epoch(3), false);
        right.raise(Epoch(5));
        let mut noted = Vec::new();
        right
            .write(|epoch| {
                noted.push(epoch);
                Ok(())
            })
            .unwrap();
        assert_eq!(noted, [], "there is no record yet");
        right
            .record(|epoch| {
                noted.push(epoch);
                Ok(())
            })
            .unwrap();
        right.raise(Epoch(4));
        right
            .write(|epoch| {
                noted.push(epoch);
                Ok(())
            })
            .unwrap();
        right.raise(Epoch(7));
        right.write(|_| Err(io::ErrorKind::StorageFull.into())).unwrap_err();
        right
            .write(|epoch| {
                noted.push(epoch);
                Ok(())
            })
            .unwrap();
        assert_eq!(noted, [Epoch(5), Epoch(7)]);
    }
}
