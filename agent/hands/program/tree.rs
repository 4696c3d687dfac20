//! Trees that are laid out beside where they will stand, and put there in one move; what is not put there goes.

use std::fs::{self, File, FileTimes, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::exchange::exchange;

/// Paths under which something is being laid out.
#[derive(Default)]
pub(crate) struct Stages(Vec<PathBuf>);

impl Stages {
    /// From here on what is at the path goes with the program, as what may have been there goes now.
    pub(crate) fn begin(&mut self, path: PathBuf) -> io::Result<()> {
        remove(&path)?;
        self.0.push(path);
        Ok(())
    }

    /// Puts what was laid out in the place of what is there, if anything is: at every moment the one or the other is there, as
    /// far as the file system can do that. Where it fails, what was there is again.
    pub(crate) fn settle(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        if !self.0.iter().any(|stage| stage == from) {
            return Err(ErrorKind::InvalidInput.into());
        }
        // Whatever is wrong with this, the other way tells it better.
        if exchange(from, to).is_ok() {
            remove(from)?;
            self.0.retain(|stage| stage != from);
            return Ok(());
        }
        let mut aside = from.as_os_str().to_owned();
        aside.push(".old");
        let aside = PathBuf::from(aside);
        remove(&aside)?;
        let was_there = match fs::rename(to, &aside) {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        if let Err(error) = fs::rename(from, to) {
            if was_there {
                fs::rename(&aside, to)?;
            }
            return Err(error);
        }
        self.0.retain(|stage| stage != from);
        if was_there { remove(&aside) } else { Ok(()) }
    }

    /// Takes away what was not put in its place. What cannot be stays, and nobody is there to hear of it.
    pub(crate) fn clear(&mut self) {
        for stage in self.0.drain(..) {
            let _ = remove(&stage);
        }
    }
}

/// Removes whatever is at a path, directories that nobody may write in too.
fn remove(path: &Path) -> io::Result<()> {
    let found = match path.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !found.is_dir() {
        return fs::remove_file(path);
    }
    if found.permissions().mode() & 0o700 != 0o700 {
        fs::set_permissions(path, Permissions::from_mode(0o700))?;
    }
    for entry in path.read_dir()? {
        remove(&entry?.path())?;
    }
    fs::remove_dir(path)
}

/// Gives a file or directory its time of change and its permissions.
pub(crate) fn set_attributes(path: &Path, mode: u32, changed: i64) -> io::Result<()> {
    set_attributes_of(&File::open(path)?, mode, changed)
}

/// [`set_attributes`], of what is open.
pub(crate) fn set_attributes_of(file: &File, mode: u32, changed: i64) -> io::Result<()> {
    let since = Duration::from_nanos(changed.unsigned_abs());
    let time = if changed < 0 { UNIX_EPOCH.checked_sub(since) } else { UNIX_EPOCH.checked_add(since) };
    file.set_times(FileTimes::new().set_modified(time.ok_or(ErrorKind::InvalidInput)?))?;
    file.set_permissions(Permissions::from_mode(mode & 0o777))
}

/// A time in nanoseconds since 1970; what they cannot hold is 1970.
pub(crate) fn nanoseconds(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(0),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(0, |nanoseconds| -nanoseconds),
    }
}
