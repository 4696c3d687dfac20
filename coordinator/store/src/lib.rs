//! Makes the core's decisions durable: the `Store` trait and SQLite behind it.
//!
//! | module | owns |
//! | --- | --- |
//! | [`store`] | the two traits: [`Store`] writes and loads, [`History`] reads what left memory |
//! | [`fault`] | why the world failed us, and why a data directory cannot be opened |
//! | [`dir`] | the data directory: its lock, its format, its reserve of space |
//! | [`sqlite`] | the default store |
//! | [`memory`] | the double for tests, with the same fence |
//! | [`check`] | `windlass coordinator --check` |
//! | [`url`] | what `--store` may say |
//!
//! One writer, fenced by [`WriterEpoch`]; a commit is all or nothing and durable when it returns.

pub mod check;
pub mod dir;
pub mod fault;
pub mod memory;
pub mod sqlite;
pub mod store;
pub mod url;

pub use check::{Report, check};
pub use fault::{Fault, OpenError};
pub use memory::{MemoryHistory, MemoryStore};
pub use sqlite::{Options, SqliteHistory, SqliteStore, open};
pub use store::{
    ArtifactFilter, BuildFilter, Cursor, EventSeq, Expired, History, Page, PinGround, Pinned, Retention, Seq, Space,
    Store, StoredEvent, WriterEpoch,
};
pub use url::{StoreUrl, StoreUrlError};
