//! Where the reference corpus is, and the pipelines in its folders.

use std::fs;
use std::path::{Path, PathBuf};

/// The corpus, or a visible note that it is absent.
pub(crate) fn corpus() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus");
    let root = std::env::var_os("WINDLASS_CORPUS").map_or(default, PathBuf::from).join("buildkite");
    if root.is_dir() {
        return Some(root);
    }
    println!("skipped: the reference corpus is absent (set WINDLASS_CORPUS)");
    None
}

pub(crate) fn pipelines(folder: &Path) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yml"))
        .map(|path| (path.display().to_string(), fs::read_to_string(&path).unwrap()))
        .collect();
    found.sort();
    assert!(!found.is_empty(), "{}", folder.display());
    found
}
