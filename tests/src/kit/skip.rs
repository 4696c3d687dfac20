//! The record of tests that could not run: `./test` fails on one that is not on the checked-in list.

use std::fs::OpenOptions;
use std::io::Write as _;

use anyhow::{Context as _, Result};

/// Notes that something could not run here, and why. The test returns after this.
///
/// # Errors
/// The record cannot be written: then nobody would know.
pub fn skip(name: &str, why: &str) -> Result<()> {
    let line = format!("{name}: {why}\n");
    std::io::stderr().write_all(format!("skipped: {line}").as_bytes())?;
    let Some(path) = std::env::var_os("WINDLASS_SKIPS") else { return Ok(()) };
    let mut file = OpenOptions::new().append(true).create(true).open(path).context("the record of skips")?;
    file.write_all(line.as_bytes()).context("the record of skips")
}

/// Whether this process is root, which mounts, network namespaces and users for slots need.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
