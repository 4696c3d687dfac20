//! The content-addressed store: blobs, trees, snapshots and their layout.
//!
//! | module | owns |
//! | --- | --- |
//! | [`vfs`] | the seam to the disk, and a recording double that builds every crash image |
//!
//! Everything here is synchronous; callers with an executor use their blocking threads.

pub mod vfs;

pub use vfs::{RealFs, Vfs, VfsFile};
