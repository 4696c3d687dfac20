//! Two paths that change places in one step.

#![allow(unsafe_code, reason = "the standard library has no such call")]

use std::ffi::{CString, c_char, c_int, c_long, c_uint};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// The number of `renameat2`.
#[cfg(target_arch = "x86_64")]
const RENAMEAT2: Option<c_long> = Some(316);
#[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
const RENAMEAT2: Option<c_long> = Some(276);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
const RENAMEAT2: Option<c_long> = None;

const AT_FDCWD: c_int = -100;
const RENAME_EXCHANGE: c_uint = 2;

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
}

/// Puts each of two paths in the other's place, at once for whoever looks.
///
/// # Errors
/// `NotFound` where one is not there, others where the kernel or the file system knows no such thing. Nothing has changed then.
pub(crate) fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    let number = RENAMEAT2.ok_or(io::ErrorKind::Unsupported)?;
    let (one, other) = (CString::new(one.as_os_str().as_bytes())?, CString::new(other.as_os_str().as_bytes())?);
    let (from, to): (*const c_char, *const c_char) = (one.as_ptr(), other.as_ptr());
    // SAFETY: both are C strings that live until the call returns, and it keeps neither.
    let done = unsafe { syscall(number, AT_FDCWD, from, AT_FDCWD, to, RENAME_EXCHANGE) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
