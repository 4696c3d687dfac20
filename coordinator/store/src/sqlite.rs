//! The default store: one SQLite file in WAL mode, one writer connection, every commit synced before it returns.
//!
//! Why so (measured): one commit is one `fdatasync`; keys rise with time, so that inserts touch the right edge of each
//! tree; checkpoints run on a connection and a thread of their own, because an automatic one inside a commit costs 28 ms
//! at p99 where 0.4 ms is usual.

mod checkpoint;
mod encode;
mod expire;
mod history;
mod load;
mod pin;
mod reuse;
mod schema;
mod write;

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use windlass_coordinator_core::row::{Change, Rows};
use windlass_protocol::limits;

pub(crate) use self::encode::{decode, fault_of};
pub use self::history::SqliteHistory;
pub(crate) use self::pin::{NEVER, OWN_END};
pub(crate) use self::schema::{SCHEMA_OF_PINS, SCHEMA_VERSION, version_of};

use self::checkpoint::Checkpointer;
use self::encode::{int, whole};
use crate::dir::{self, DataDir, Reserve, free_bytes};
use crate::fault::{Fault, OpenError};
use crate::store::{Expired, Retention, Seq, Space, Store, WriterEpoch};

/// Pages of 4 KiB that the writer keeps in memory: the edges of all trees, many times over.
const WRITER_CACHE_PAGES: u32 = 8_192;

/// Prepared statements that a connection keeps: there are fewer than this in all.
pub(crate) const STATEMENTS_MAX: usize = 96;

/// What can be set about the store. The defaults are right; tests change them.
#[derive(Debug, Clone)]
pub struct Options {
    /// Space held back for running builds.
    pub reserve_bytes: u64,
    /// Free space below which new builds are to be refused.
    pub low_bytes: u64,
    /// How free space is read.
    pub free_bytes: fn(&Path) -> io::Result<u64>,
    /// Commits after which the write-ahead log is copied back.
    pub checkpoint_commits: u64,
    /// A write-ahead log past this size is started anew.
    pub wal_restart_bytes: u64,
    /// A registered SQLite VFS by name, instead of the system's.
    pub vfs: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            reserve_bytes: limits::STORE_RESERVE_BYTES,
            low_bytes: limits::STORE_LOW_BYTES,
            free_bytes,
            checkpoint_commits: limits::CHECKPOINT_COMMITS,
            wal_restart_bytes: limits::WAL_RESTART_BYTES,
            vfs: None,
        }
    }
}

/// Where a connection goes.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) path: PathBuf,
    pub(crate) vfs: Option<String>,
}

impl Target {
    /// Opens the file, made if `make`; nothing in it is looked at.
    fn connect(&self, flags: OpenFlags) -> rusqlite::Result<Connection> {
        let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = match &self.vfs {
            None => Connection::open_with_flags(&self.path, flags),
            Some(vfs) => Connection::open_with_flags_and_vfs(&self.path, flags, vfs.as_str()),
        }?;
        conn.busy_timeout(Duration::from_millis(limits::STORE_BUSY_MS))?;
        conn.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        Ok(conn)
    }

    fn connect_to_write(&self) -> rusqlite::Result<Connection> {
        self.connect(OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)
    }

    pub(crate) fn connect_to_read(&self) -> rusqlite::Result<Connection> {
        self.connect(OpenFlags::SQLITE_OPEN_READ_ONLY)
    }
}

/// Opens the store of a data directory, makes it where there is none, migrates an older one after a backup.
///
/// # Errors
/// [`OpenError`]: in use, of a newer schema, damaged, or what the system says.
pub fn open(dir: &Path, options: &Options) -> Result<(SqliteStore, SqliteHistory), OpenError> {
    let data = DataDir::open(dir)?;
    let target = Target { path: dir.join("store.sqlite"), vfs: options.vfs.clone() };
    let reserve = Reserve::new(dir, options.reserve_bytes, options.low_bytes, options.free_bytes);
    if options.vfs.is_none() {
        // What SQLite puts beside it gets its mode.
        dir::make_private(&target.path).map_err(|e| OpenError::io("make", &target.path, e))?;
    }
    schema::prepare(&target, schema::MIGRATIONS)?;
    if options.vfs.is_none() {
        preallocate_log(&target.path, options.wal_restart_bytes.saturating_mul(limits::WAL_BYTES_FACTOR))
            .map_err(|e| OpenError::io("make the log of", dir, e))?;
    }
    dir::sync_dir(dir).map_err(|e| OpenError::io("sync", dir, e))?;
    let conn = writer_connection(&target)?;
    let checkpointer = Checkpointer::start(&target, options)?;
    let history = SqliteHistory::new(target.clone());
    Ok((SqliteStore { conn: Some(conn), target, reserve, checkpointer, _data: data }, history))
}

/// Gives a store without a write-ahead log one of zeros, which SQLite takes for an empty one and writes over. Where there is
/// no room for it there is none.
fn preallocate_log(store: &Path, bytes: u64) -> io::Result<()> {
    let mut path = store.as_os_str().to_owned();
    path.push("-wal");
    let path = PathBuf::from(path);
    let mut file = match File::options().write(true).create_new(true).mode(0o600).open(&path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        other => other?,
    };
    let written = io::copy(&mut io::repeat(0).take(bytes), &mut file).and_then(|_| file.sync_all());
    match written {
        Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
            fs::remove_file(&path)
        }
        other => other,
    }
}

/// A connection that syncs every commit; refused where SQLite does not confirm that it will.
fn writer_connection(target: &Target) -> Result<Connection, Fault> {
    let doing = "open the store for writing";
    let fault = |error| fault_of(doing, error);
    let conn = target.connect_to_write().map_err(fault)?;
    let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(fault)?;
    conn.execute_batch("PRAGMA synchronous = FULL").map_err(fault)?;
    conn.pragma_update(None, "cache_size", WRITER_CACHE_PAGES).map_err(fault)?;
    conn.query_row("PRAGMA wal_autocheckpoint = 0", [], |_| Ok(())).map_err(fault)?;
    let synchronous: i64 = conn.query_row("PRAGMA synchronous", [], |row| row.get(0)).map_err(fault)?;
    if mode != "wal" || synchronous != 2 {
        return Err(Fault::Io { doing, detail: format!("journal mode is {mode}, synchronous is {synchronous}") });
    }
    Ok(conn)
}

/// The default store. Holds the data directory until it is dropped.
#[derive(Debug)]
pub struct SqliteStore {
    /// `None` after a fault: opened anew before the next use.
    conn: Option<Connection>,
    target: Target,
    reserve: Reserve,
    checkpointer: Checkpointer,
    _data: DataDir,
}

impl SqliteStore {
    /// Runs `work` on the connection. After a fault that may have left it in doubt, the connection is closed.
    fn with<T>(&mut self, work: impl FnOnce(&mut Connection) -> Result<T, Fault>) -> Result<T, Fault> {
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => writer_connection(&self.target)?,
        };
        match work(&mut conn) {
            Err(Fault::Io { detail, .. }) if self.reserve.disk_is_full() => {
                tracing::warn!(detail, "store_write_failed_on_a_full_disk");
                Err(Fault::DiskFull)
            }
            Err(fault @ (Fault::Io { .. } | Fault::Corrupt { .. })) => Err(fault),
            done @ (Ok(_) | Err(Fault::DiskFull | Fault::Fenced { .. } | Fault::TooLarge { .. })) => {
                self.conn = Some(conn);
                done
            }
        }
    }

    /// Writes in one transaction; on a full disk gives the reserve away and tries once more.
    fn write<T>(&mut self, work: impl Fn(&Connection) -> Result<T, Fault>) -> Result<T, Fault> {
        let once = |conn: &mut Connection| {
            let begun = conn.transaction_with_behavior(TransactionBehavior::Immediate);
            let transaction = begun.map_err(|e| fault_of("begin a commit", e))?;
            let value = work(&transaction)?;
            transaction.commit().map_err(|e| fault_of("commit", e))?;
            Ok(value)
        };
        let written = match self.with(once) {
            Err(Fault::DiskFull) if self.reserve.release() => self.with(once),
            other => other,
        };
        if written.is_ok() {
            self.checkpointer.committed();
        }
        written
    }
}

impl Store for SqliteStore {
    fn claim(&mut self) -> Result<WriterEpoch, Fault> {
        self.write(|conn| {
            let fence = write::position(conn)?.fence;
            let next = WriterEpoch(fence.0 + 1);
            let updated = conn.execute("UPDATE meta SET fence = ?1 WHERE id = 1", [int(next.0)]);
            updated.map_err(|e| fault_of("claim the store", e))?;
            Ok(next)
        })
    }

    fn load(&mut self) -> Result<Rows, Fault> {
        self.with(load::load)
    }

    fn seq(&mut self) -> Result<Seq, Fault> {
        self.with(|conn| Ok(write::position(conn)?.seq))
    }

    fn commit(&mut self, epoch: WriterEpoch, changes: &[Change]) -> Result<Seq, Fault> {
        if changes.is_empty() {
            return self.with(|conn| write::fenced_position(conn, epoch));
        }
        self.write(|conn| write::commit(conn, epoch, changes))
    }

    fn expire(&mut self, epoch: WriterEpoch, retention: Retention) -> Result<Expired, Fault> {
        self.write(|conn| expire::expire(conn, epoch, retention))
    }

    fn space(&mut self) -> Space {
        if self.reserve.is_low() { Space::Low } else { Space::Enough }
    }
}

/// Reads the numbers that every commit checks.
fn seq_of(conn: &Connection) -> Result<Seq, Fault> {
    let read = conn.prepare_cached("SELECT seq FROM meta WHERE id = 1").and_then(|mut s| s.query_row([], |r| r.get(0)));
    read.map(|seq: i64| Seq(whole(seq))).map_err(|e| fault_of("read the store's position", e))
}
