//! The content-addressed store: blobs, trees, snapshots and their layout.
//!
//! | module | owns |
//! | --- | --- |
//! | [`vfs`] | the seam to the disk, and a recording double that builds every crash image |
//! | [`store`] | the blob store: what is kept, and who may see it |
//! | [`blob`], [`upload`] | a blob that was found, one that is being written |
//! | `segment`, `appender`, `index` | records on disk, group commit, what is where in memory |
//! | `flat`, `copy` | the tables in memory, and their copy on disk |
//! | [`alias`] | blobs by their SHA-256 |
//! | `account`, `compact` | what of each segment still counts, and how the rest comes back |
//! | [`chunk`] | what large blobs are cut into, stored once, and which of it a blob is made of |
//! | `evict`, [`floor`], [`verify`] | the cap of a lazy store, the room that it leaves to others, the check of every byte |
//! | [`tree`] | Merkle directories and their encoding |
//! | [`manifest`] | the paths that a cache keeps, and their encoding |
//! | [`snapshot`] | a directory on disk becomes a tree |
//! | [`layout`](mod@layout), [`wipe`](mod@wipe) | a tree becomes a directory on disk, and goes away again |
//! | [`pack`], [`intake`] | many blobs in one body, many blobs as they come |
//! | [`census`] | who has what and asks for what |
//! | [`release`] | letting go of what nobody names any more |
//! | [`remote`] | a bucket behind the store, for what its disk has no room for |
//! | [`sweep`], `tombstone` | letting go by age and size of what is not needed, and remembering it |
//! | [`space`] | room on the disk that uploads are promised before their bytes are taken |
//! | [`error`] | what can go wrong, in two families |
//! | [`fuzz`] | entries for every decoder |
//!
//! Everything here is synchronous; callers with an executor use their blocking threads.

mod account;
pub mod alias;
mod appender;
pub mod blob;
pub mod census;
pub mod chunk;
mod compact;
mod copy;
pub mod error;
mod evict;
mod flat;
pub mod floor;
pub mod fuzz;
mod index;
pub mod intake;
pub mod layout;
pub mod manifest;
mod memory;
pub mod pack;
pub mod release;
pub mod remote;
mod segment;
pub mod snapshot;
pub mod space;
pub mod store;
pub mod sweep;
mod tombstone;
pub mod tree;
pub mod upload;
pub mod verify;
pub mod vfs;
pub mod wipe;

pub use alias::Sha256Digest;
pub use blob::{Blob, BlobReader};
pub use census::{Asked, Census, Kind};
pub use chunk::cut::Cutter;
pub use chunk::manifest::ChunkManifest;
pub use chunk::serve::PackedChunk;
pub use chunk::tar::{Lane, Part, Splitter};
pub use compact::Compacted;
pub use copy::{Opened, TableCopy};
pub use error::{BadChunkManifest, BadPack, BadTree, Error, Fault, Rejected};
pub use index::Usage;
pub use intake::Intake;
pub use layout::{Laid, LayoutOptions, layout};
pub use memory::MemoryUse;
pub use pack::{PackWriter, Unpack};
pub use release::HeldBlob;
pub use remote::{Origin, OriginStats, Remote, RemoteError, RemoteObject, Tended};
pub use snapshot::{Snapshot, SnapshotSource, snapshot};
pub use space::Reservation;
pub use store::{Durability, Pins, Stats, Store, StoreOptions};
pub use sweep::{Policy, Roots, RootsError, Spared, Sweep, SweepCounts, Swept};
pub use tombstone::WhyGone;
pub use tree::{Directory, Entry, Node};
pub use upload::journal::About;
pub use upload::partial::{Partial, PartialError, PartialState, Partials};
pub use upload::{Assembly, ChunkPacker, Outline, Upload};
pub use verify::{Progress, Report, Watch};
pub use vfs::frozen::Frozen;
pub use vfs::{RealFs, Space, Vfs, VfsFile};
pub use wipe::wipe;
