//! How the machine does, and what it has: sysinfo, in a place of its own so that a slow read holds up nobody's beat.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::statvfs;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};
use windlass_protocol::job::Resources;
use windlass_protocol::limits::{DISK_REFUSE_BYTES, DISK_REFUSE_FILES};
use windlass_protocol::message::Health;

use crate::peer::Peers;

/// Reads the machine's state, for one data directory.
#[derive(Debug)]
pub(crate) struct Host {
    system: System,
    data: PathBuf,
    disk_full: bool,
    runs_images: Arc<AtomicBool>,
    peers: Arc<Peers>,
}

impl Host {
    /// A reader for the file system that `data` is on, of what is known of the machine's container engine, and of how blobs are
    /// come by.
    ///
    /// # Errors
    /// Where the machine does not tell its memory.
    pub(crate) fn new(data: PathBuf, runs_images: Arc<AtomicBool>, peers: Arc<Peers>) -> io::Result<Self> {
        let memory = RefreshKind::nothing().with_memory(MemoryRefreshKind::everything());
        let system = System::new_with_specifics(memory).map_err(io::Error::other)?;
        Ok(Self { system, data, disk_full: false, runs_images, peers })
    }

    /// Processors and memory, in all.
    #[must_use]
    pub(crate) fn capacity(&self) -> Resources {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Resources { cpu_millis: cpus as u64 * 1_000, memory_bytes: self.system.total_memory() }
    }

    /// How it does now. Blocks for as long as the file system takes to answer.
    pub(crate) fn sample(&mut self) -> Health {
        self.system.refresh_memory();
        let (free, total, files_full) = match statvfs(&self.data) {
            Ok(fs) => {
                let bytes = |blocks: u64| blocks.saturating_mul(fs.f_frsize);
                (bytes(fs.f_bavail), bytes(fs.f_blocks), files_full(self.disk_full, fs.f_favail, fs.f_files))
            }
            Err(error) => {
                tracing::warn!(%error, "disk_unreadable");
                (0, 0, false)
            }
        };
        let was = self.disk_full;
        self.disk_full = disk_full(was, free, total) || files_full;
        if self.disk_full != was {
            tracing::warn!(free, total, files_full, full = self.disk_full, "disk_full_changed");
        }
        Health {
            disk_free_bytes: free,
            disk_total_bytes: total,
            memory_available_bytes: self.system.available_memory(),
            load_millis: load_millis(System::load_average().map_or(0.0, |load| load.one)),
            disk_full: self.disk_full,
            cannot_kill: false,
            runs_images: self.runs_images.load(Ordering::Relaxed),
            cache: self.peers.tally.counts(),
        }
    }
}

/// F49: refuse below 5 % or 2 GiB, whichever is less on small disks; take work again 3 points above.
fn disk_full(was: bool, free: u64, total: u64) -> bool {
    if total == 0 {
        return true;
    }
    let (percent, bytes) = if was { (8, DISK_REFUSE_BYTES + DISK_REFUSE_BYTES / 2) } else { (5, DISK_REFUSE_BYTES) };
    free < (total / 100 * percent).min(bytes)
}

/// The same for files, of which a disk may run out before its bytes: below 5 % of them or [`DISK_REFUSE_FILES`]. File
/// systems that make them as they go say 0 in all.
fn files_full(was: bool, free: u64, total: u64) -> bool {
    let percent = if was { 8 } else { 5 };
    let floor = (total / 100 * percent).min(DISK_REFUSE_FILES);
    total > 0 && free < if was { floor + floor / 2 } else { floor }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a load is small and not negative")]
fn load_millis(load: f64) -> u64 {
    (load.max(0.0) * 1_000.0) as u64
}

/// What the operating system calls this machine (F9); empty where it does not say.
#[must_use]
pub(crate) fn machine_id() -> String {
    std::fs::read_to_string("/etc/machine-id").map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// The kernel's word for one run of a machine, as text.
pub(crate) type BootId = [u8; 36];

/// Which run of the machine this is.
pub(crate) fn boot_id() -> io::Result<BootId> {
    let text = std::fs::read("/proc/sys/kernel/random/boot_id")?;
    text.first_chunk().copied().ok_or_else(|| io::Error::other("the kernel tells no boot id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_full_disk_refuses_and_takes_work_again_only_well_above_the_line() {
        let total = 100 * GIB;
        assert!(!disk_full(false, 3 * GIB, total));
        assert!(disk_full(false, GIB, total));
        assert!(disk_full(true, 2 * GIB + GIB / 2, total), "hysteresis");
        assert!(!disk_full(true, 4 * GIB, total));
        assert!(disk_full(false, 0, 0), "a disk that cannot be read takes nothing");
        assert!(disk_full(false, 2 << 20, 56 << 20) && !disk_full(false, 3 << 20, 56 << 20), "5 % of a small one");
    }

    #[test]
    fn a_disk_that_runs_out_of_files_is_full_and_one_that_does_not_count_them_is_not() {
        assert!(!files_full(false, 60_000, 1_000_000));
        assert!(files_full(false, 49_999, 1_000_000));
        assert!(files_full(true, 70_000, 1_000_000), "hysteresis");
        assert!(!files_full(true, 80_000, 1_000_000));
        assert!(files_full(false, 0, 14_000) && !files_full(false, 701, 14_000));
        assert!(!files_full(false, 0, 0));
    }
}
