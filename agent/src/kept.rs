//! What a kept workspace says of the job that left it: enough to enter its image again.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use windlass_protocol::host::write_private;

/// Beside the checkout, where no job reaches it.
const FILE: &str = "kept.json";

/// A container job, as `windlass shell` needs it. Holds what secret variables its pipeline gave it, in a file that is the
/// agent's alone; secrets of the coordinator are not in it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The image that it ran in.
    pub image: String,
    /// Its whole environment.
    pub env: Vec<(String, String)>,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("image", &self.image).finish_non_exhaustive()
    }
}

impl Kept {
    /// Writes it into a kept workspace's directory.
    pub(crate) fn write(&self, root: &Path) -> io::Result<()> {
        write_private(&root.join(FILE), &serde_json::to_vec(self)?)
    }

    /// What is said in a kept workspace's directory; `None` for a job that ran in no image.
    ///
    /// # Errors
    /// Those of the file system, and a file that is none of ours.
    pub fn read(root: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(root.join(FILE)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_back_and_shown_to_nobody_else() {
        use std::os::unix::fs::PermissionsExt as _;
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Kept::read(root.path()).unwrap(), None);
        let kept = Kept { image: "tool:1".to_owned(), env: vec![("TOKEN".to_owned(), "two\nlines".to_owned())] };
        kept.write(root.path()).unwrap();
        assert_eq!(Kept::read(root.path()).unwrap(), Some(kept.clone()));
        let mode = std::fs::metadata(root.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!format!("{kept:?}").contains("lines"));
    }
}
