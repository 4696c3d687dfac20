//! The content-addressed store: blobs, trees, snapshots and their layout.
//!
//! | module | owns |
//! | --- | --- |
//! | [`vfs`] | the seam to the disk, and a recording double that builds every crash image |
//! | [`store`] | the blob store: what is kept, and who may see it |
//! | [`blob`], [`upload`] | a blob that was found, one that is being written |
//! | `segment`, `appender`, `index` | records on disk, group commit, what is where in memory |
//! | `evict`, [`verify`] | the cap of a lazy store, the check of every byte |
//! | [`error`] | what can go wrong, in two families |
//!
//! Everything here is synchronous; callers with an executor use their blocking threads.

mod appender;
pub mod blob;
pub mod error;
mod evict;
mod index;
mod segment;
pub mod store;
pub mod upload;
pub mod verify;
pub mod vfs;

pub use blob::{Blob, BlobReader};
pub use error::{BadPack, BadTree, Error, Fault, Rejected};
pub use store::{Durability, Pins, Stats, Store, StoreOptions};
pub use upload::Upload;
pub use verify::{Report, verify_segments};
pub use vfs::{RealFs, Vfs, VfsFile};
