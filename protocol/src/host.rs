//! What both ends need of the machine they run on: its clocks, and files that are nobody else's.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::time::{ClockId, clock_gettime};

use crate::time::{Instant64, Now, WallMs};

/// Reads both clocks: `CLOCK_BOOTTIME`, which counts suspend, and the wall's.
#[must_use]
pub fn now() -> Now {
    Now { mono: Instant64(read_ms(ClockId::Boottime)), wall: WallMs(read_ms(ClockId::Realtime)) }
}

fn read_ms(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds * 1_000 + nanos / 1_000_000
}

/// Puts `bytes` into a file of mode 0600 at `path`, whole and durable or not at all; what stood there is replaced.
///
/// # Errors
/// Those of the file system.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a file has a directory"))?;
    let temporary = path.with_extension("new");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(dir)?.sync_all()
}

/// Reads a private file; `None` where there is none.
///
/// # Errors
/// Those of the file system, and [`io::ErrorKind::PermissionDenied`] where group or others may read it: what was secret
/// may not be any more.
pub fn read_private(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mode = file.metadata()?.mode();
    if mode & 0o077 != 0 {
        let text = format!("{} can be read by others (mode {:o}): make it 0600", path.display(), mode & 0o777);
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}
