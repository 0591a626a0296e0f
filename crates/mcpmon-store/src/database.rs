//! One file, one writing connection behind a mutex, a few reading ones: the sync half of the store.
//!
//! What the writer keeps in memory (numbers of services, the end of the head) mirrors the file and
//! is taken out of its place while a transaction runs: if that fails, for whatever reason, the
//! mirror is gone and the next transaction reads it anew, so it can never say more than the file.
//!
//! A file may be moved or removed while it is open, and SQLite would go on writing what nobody will
//! find again. So before each transaction the path is held against the file that is open; where
//! they differ, transactions fail for a moment, and then take what is at the path by then.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use mcpmon_core::store::Room;
use mcpmon_core::{StoreError, Timestamp};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use tokio::time::Instant;

use crate::aside::{self, SetAside};
use crate::error::{damaged, store_error};
use crate::file::{self, Identity, Standing, WriterLock};
use crate::head::Head;
use crate::holds::{HoldCounter, Purpose, WriterHolds};
use crate::rollup::{self, Progress};
use crate::schema;
use crate::services::{Directory, Words};

/// Statements kept prepared by a connection; more than there are.
const STATEMENTS: usize = 96;
/// The log is cut back to this after a reader held it up, in bytes: four times what it has while
/// nobody does.
const LARGEST_IDLE_LOG: u64 = 16 << 20;

/// What is at the path of a file that was lost is looked at after this long: whoever put it there
/// may not be done, and whoever writes every second has been told.
const LOST_FOR: Duration = Duration::from_secs(2);

/// How a database is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenOptions {
    /// Only ask, and leave commands: for processes beside the monitor. Takes no lock, creates and
    /// migrates nothing.
    pub read_only: bool,
    /// How long to wait for another process that writes.
    pub busy_timeout: Duration,
    /// Questions answered at once; at least one.
    pub readers: usize,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { read_only: false, busy_timeout: Duration::from_secs(5), readers: 4 }
    }
}

/// An open database.
pub(crate) struct Database {
    path: PathBuf,
    options: OpenOptions,
    /// The words of the file that was read last. Another file's numbers mean other words.
    words: Mutex<(Option<Identity>, Arc<Words>)>,
    // Dropped in this order: the last connection to close puts the log into the file, which only
    // the writer may.
    idle: Mutex<Vec<Reader>>,
    writer: Mutex<Writer>,
    upkeep: Mutex<()>,
    holds: HoldCounter,
}

/// A connection that asks, and the file it asks.
struct Reader {
    connection: Connection,
    file: Option<Identity>,
}

#[derive(Default)]
struct Writer {
    /// Opened with the database; for a reader, with its first command. `None` also after the file
    /// was lost, until another is taken.
    connection: Option<Connection>,
    mirror: Option<Mirror>,
    commands: CommandWatch,
    /// The file that is open.
    file: Option<Identity>,
    /// Its log.
    log: Option<Identity>,
    /// When a file was let go.
    lost_at: Option<Instant>,
    /// Given back last: before another monitor may come, the connection is closed.
    _lock: Option<WriterLock>,
}

/// What the writer knows of the file without asking.
pub(crate) struct Mirror {
    pub(crate) directory: Directory,
    pub(crate) head: Head,
    pub(crate) rollups: Progress,
    /// The newest moment there are checks of.
    pub(crate) newest: i64,
}

/// Whether there may be commands, so that looking is cheap while there are none.
#[derive(Debug, Default)]
pub(crate) struct CommandWatch {
    /// `PRAGMA data_version` when the queue was last found empty.
    pub(crate) seen: Option<i64>,
    /// A command came through this very connection, which the version does not tell.
    pub(crate) submitted: bool,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("path", &self.path)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic inside a transaction rolled it back and left no mirror behind: nothing is half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Database {
    pub(crate) fn open(path: &Path, options: OpenOptions) -> Result<Self, StoreError> {
        schema::assert_sqlite()?;
        if options.read_only {
            Self::open_reader(path, options)
        } else {
            Self::open_writer(path, options)
        }
    }

    fn open_writer(path: &Path, options: OpenOptions) -> Result<Self, StoreError> {
        let path = file::locate(path, true)?;
        let writer = Writer::open(&path, options)?;
        Ok(Self::new(path, options, writer))
    }

    /// As [`Database::open`]; a file that cannot be used, for a reason that [`aside::cause`] knows,
    /// is put aside, and a new database begun. The lock is held from the attempt to open the file
    /// until the new one is open, so what is put aside is the file that was found unusable, and not
    /// a database that another monitor began there meanwhile.
    ///
    /// # Errors
    ///
    /// As [`Database::open`], for every other reason; and when the file cannot be put aside.
    pub(crate) fn open_or_begin(
        path: &Path,
        options: OpenOptions,
        now: Timestamp,
    ) -> Result<(Self, Option<SetAside>), StoreError> {
        if options.read_only {
            return Ok((Self::open(path, options)?, None));
        }
        schema::assert_sqlite()?;
        let path = file::locate(path, true)?;
        // A file that is refused gets no lock beside it.
        if let Err(error) = file::examine(&path)
            && aside::cause(&error).is_none()
        {
            return Err(error);
        }
        let lock = file::lock(&path)?;
        let error = match Writer::open_locked(&path, options, &lock) {
            Ok(writer) => return Ok((Self::new(path, options, writer.with_lock(lock)), None)),
            Err(error) => error,
        };
        let Some(cause) = aside::cause(&error) else { return Err(error) };
        let set_aside = aside::put_aside(&path, "set-aside", now, &lock)?;
        let set_aside = SetAside::new(set_aside, cause, &error);
        tracing::error!(path = %set_aside.path.display(), %error, "Database set aside; a new one begins");
        let writer = Writer::open_locked(&path, options, &lock)?;
        Ok((Self::new(path, options, writer.with_lock(lock)), Some(set_aside)))
    }

    fn open_reader(path: &Path, options: OpenOptions) -> Result<Self, StoreError> {
        let path = file::locate(path, false)?;
        if file::examine(&path)? == Standing::Missing {
            let message = "there is no database yet; start the monitor first, or give its path";
            return Err(StoreError::Io { path, message: message.into() });
        }
        let connection = connect(&path, options, false)?;
        let found = schema::verify(&path, &connection)?;
        if found < schema::NEWEST {
            let message = format!(
                "it has schema {found}, older than this build's {}; start this build's monitor \
                 once to bring it up to date",
                schema::NEWEST
            );
            return Err(StoreError::Io { path, message });
        }
        let file = file::identity(&path);
        let database = Self::new(path, options, Writer::default());
        locked(&database.idle).push(Reader { connection, file });
        Ok(database)
    }

    fn new(path: PathBuf, options: OpenOptions, writer: Writer) -> Self {
        let options = OpenOptions { readers: options.readers.max(1), ..options };
        Self {
            path,
            options,
            words: Mutex::default(),
            idle: Mutex::default(),
            writer: Mutex::new(writer),
            upkeep: Mutex::default(),
            holds: HoldCounter::default(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn options(&self) -> &OpenOptions {
        &self.options
    }

    /// Held over one step of sealing or retention, which reads before it writes.
    pub(crate) fn upkeep(&self) -> MutexGuard<'_, ()> {
        locked(&self.upkeep)
    }

    /// How long the writer was held since the database was opened.
    pub(crate) fn holds(&self) -> WriterHolds {
        self.holds.so_far()
    }

    /// Runs `work` in one transaction; what it did is durable when this returns.
    pub(crate) fn write<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>, &mut Mirror) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        self.write_for(Purpose::Record, work)
    }

    /// As [`Database::write`], for one step of upkeep.
    pub(crate) fn write_step<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>, &mut Mirror) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        self.write_for(Purpose::Upkeep, work)
    }

    fn write_for<T>(
        &self,
        purpose: Purpose,
        work: impl FnOnce(&Transaction<'_>, &mut Mirror) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        if self.options.read_only {
            let message = "it was opened for reading; only the monitor writes it";
            return Err(StoreError::Io { path: self.path.clone(), message: message.into() });
        }
        let mut writer = locked(&self.writer);
        let begun = Instant::now();
        self.see_file(&mut writer)?;
        let Writer { connection: Some(connection), mirror, .. } = &mut *writer else {
            return Err(StoreError::Closed);
        };
        let attempt = || {
            let mut held = match mirror.take() {
                Some(held) => held,
                None => Mirror::load(connection)?,
            };
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = work(&transaction, &mut held)?;
            transaction.commit()?;
            *mirror = Some(held);
            Ok(result)
        };
        let attempted = attempt();
        self.holds.count(purpose, begun.elapsed());
        attempted.map_err(|error| store_error(&self.path, error))
    }

    /// Runs `work` on the writing connection and outside of a transaction; a reader gets one of
    /// its own, for commands.
    pub(crate) fn write_commands<T>(
        &self,
        work: impl FnOnce(&mut Connection, &mut CommandWatch) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let mut writer = locked(&self.writer);
        if !self.options.read_only {
            self.see_file(&mut writer)?;
        }
        let Writer { connection, commands, .. } = &mut *writer;
        let connection = match connection {
            Some(connection) => connection,
            None if self.options.read_only => {
                connection.insert(connect(&self.path, self.options, true)?)
            }
            None => return Err(StoreError::Closed),
        };
        work(connection, commands).map_err(|error| store_error(&self.path, error))
    }

    /// Holds what is at the path against the file that is open.
    ///
    /// # Errors
    ///
    /// When they differ, and for a moment after: nothing more is written to the file that was lost.
    /// From then on, why what is at the path cannot be used.
    fn see_file(&self, writer: &mut Writer) -> Result<(), StoreError> {
        let found = file::identity(&self.path);
        if writer.connection.is_some() && found == writer.file {
            return Ok(());
        }
        if writer.connection.is_some() {
            tracing::error!(path = %self.path.display(), "Database was moved or removed while open");
            self.let_go(writer);
            return Err(self.lost());
        }
        if writer.lost_at.is_some_and(|at| at.elapsed() < LOST_FOR) {
            return Err(self.lost());
        }
        // A step of upkeep that has read the old file must not write into the new one.
        let Ok(_step) = self.upkeep.try_lock().or_else(|error| match error {
            TryLockError::Poisoned(held) => Ok(held.into_inner()),
            TryLockError::WouldBlock => Err(()),
        }) else {
            return Err(self.lost());
        };
        // Its directory is not made anew: it may be a file system that is mounted again soon.
        file::locate(&self.path, false)?;
        *writer = Writer::open(&self.path, self.options)?;
        tracing::warn!(path = %self.path.display(), "Database is open again");
        Ok(())
    }

    /// Closes a file that is no longer at its path. SQLite leaves the log of such a one where it
    /// is, and would take it for the log of whatever comes there.
    fn let_go(&self, writer: &mut Writer) {
        locked(&self.idle).clear();
        *locked(&self.words) = Default::default();
        if let Some(connection) = &writer.connection {
            // Wherever the file is now, it is whole then, as far as nobody reads from its log.
            let emptied = connection
                .busy_timeout(Duration::ZERO)
                .and_then(|()| checkpoint(connection, "TRUNCATE"));
            if let Err(error) = emptied {
                tracing::warn!(%error, "Log of a database that was moved stays beside it");
            }
        }
        let log = file::identity(&file::with_suffix(&self.path, "-wal"));
        let is_stale = log.is_some() && log == writer.log;
        *writer = Writer { lost_at: Some(Instant::now()), ..Writer::default() };
        if is_stale && let Err(error) = aside::put_logs_aside(&self.path) {
            tracing::error!(%error, "Log of a database that was moved may be taken for another's");
        }
    }

    fn lost(&self) -> StoreError {
        let message = "it was moved or removed while it was open; put it back, or a new one begins \
                       in its place";
        StoreError::Io { path: self.path.clone(), message: message.to_owned() }
    }

    /// How much room there is. Cuts a log back that a reader held up, if nobody does any more.
    pub(crate) fn room(&self) -> Result<Room, StoreError> {
        let log = file::with_suffix(&self.path, "-wal");
        let mut room = file::room(&self.path, &log)?;
        if room.log_bytes > LARGEST_IDLE_LOG && !self.options.read_only {
            self.cut_log()?;
            room = file::room(&self.path, &log)?;
        }
        Ok(room)
    }

    fn cut_log(&self) -> Result<(), StoreError> {
        let mut writer = locked(&self.writer);
        self.see_file(&mut writer)?;
        let Some(connection) = &writer.connection else { return Err(StoreError::Closed) };
        let cut = || {
            let (_, logged, written) = checkpoint(connection, "PASSIVE")?;
            if logged == written {
                // Whoever still reads from the log is not waited for.
                connection.busy_timeout(Duration::ZERO)?;
                let cut = checkpoint(connection, "TRUNCATE");
                connection.busy_timeout(self.options.busy_timeout)?;
                cut?;
            }
            Ok(())
        };
        cut().map_err(|error| store_error(&self.path, error))
    }

    /// Runs `work` on one consistent view of the file.
    pub(crate) fn read<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>, &Words) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let file = file::identity(&self.path);
        let idle = {
            let mut idle = locked(&self.idle);
            idle.retain(|reader| reader.file == file);
            idle.pop()
        };
        let (mut connection, file) = match idle {
            Some(reader) => (reader.connection, file),
            None => {
                let connection = connect(&self.path, self.options, false)?;
                // Replaced in between, nobody knows which of the two it reads.
                (connection, file.filter(|file| file::identity(&self.path) == Some(*file)))
            }
        };
        let known = match &*locked(&self.words) {
            (of, words) if file.is_some() && *of == file => Arc::clone(words),
            _ => Arc::default(),
        };
        let attempt = || {
            let transaction = connection.transaction()?;
            let words = known.refreshed(&transaction)?;
            let result = work(&transaction, &words)?;
            transaction.commit()?;
            Ok((words, result))
        };
        // A connection that failed is not used again: what is wrong may be its own.
        let (words, result) = attempt().map_err(|error| store_error(&self.path, error))?;
        if file.is_some() {
            *locked(&self.words) = (file, words);
            let mut idle = locked(&self.idle);
            if idle.len() < self.options.readers {
                idle.push(Reader { connection, file });
            }
        }
        Ok(result)
    }

    /// Runs `work` on a reading connection of its own and outside of a transaction.
    pub(crate) fn read_outside<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let connection = connect(&self.path, self.options, false)?;
        work(&connection).map_err(|error| store_error(&self.path, error))
    }

    /// Runs a pragma of a test on the writing connection.
    #[cfg(test)]
    pub(crate) fn pragma(&self, name: &str, value: i64) -> i64 {
        let writer = locked(&self.writer);
        let connection = writer.connection.as_ref().unwrap();
        connection.pragma_update_and_check(None, name, value, |row| row.get(0)).unwrap()
    }
}

impl Writer {
    /// Takes the database at a path for this monitor; makes it where there is none.
    fn open(path: &Path, options: OpenOptions) -> Result<Self, StoreError> {
        // A file that is refused gets no lock beside it.
        file::examine(path)?;
        let lock = file::lock(path)?;
        Ok(Self::open_locked(path, options, &lock)?.with_lock(lock))
    }

    /// Opens the database at a path of which the caller holds the lock. The file is examined here,
    /// whatever was at the path before: the process that had the lock may have changed it.
    fn open_locked(
        path: &Path,
        options: OpenOptions,
        _held: &WriterLock,
    ) -> Result<Self, StoreError> {
        if file::examine(path)? == Standing::Missing {
            aside::put_logs_aside(path)?;
            file::create(path, build)?;
        }
        file::make_private(path);
        let mut connection = connect(path, options, true)?;
        if schema::verify(path, &connection)? < schema::NEWEST {
            schema::migrate(path, &mut connection)?;
        }
        assert_whole(path, &connection).map_err(|error| match error {
            Cut::Short(what) => damaged(path, &what),
            Cut::Unknown(error) => store_error(path, error),
        })?;
        let mirror = Mirror::load(&connection).map_err(|error| store_error(path, error))?;
        Ok(Self {
            connection: Some(connection),
            mirror: Some(mirror),
            commands: CommandWatch::default(),
            file: file::identity(path),
            log: file::identity(&file::with_suffix(path, "-wal")),
            lost_at: None,
            _lock: None,
        })
    }

    fn with_lock(self, lock: WriterLock) -> Self {
        Self { _lock: Some(lock), ..self }
    }
}

impl Mirror {
    fn load(connection: &Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            directory: Directory::load(connection)?,
            head: Head::load(connection)?,
            rollups: Progress::load(connection)?,
            newest: rollup::newest(connection)?.unwrap_or(i64::MIN),
        })
    }
}

/// Makes a new database at `draft`. What a file has for life (how it gives pages back, its log
/// mode) is set here.
fn build(draft: &Path) -> Result<(), StoreError> {
    let make = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_NOFOLLOW
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(draft, flags)?;
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        Ok(connection)
    };
    let mut connection = make().map_err(|error| store_error(draft, error))?;
    schema::migrate(draft, &mut connection)?;
    connection.close().map_err(|(_, error)| store_error(draft, error))
}

/// A connection, told to trust nothing the file brings along.
fn connect(path: &Path, options: OpenOptions, writes: bool) -> Result<Connection, StoreError> {
    let access =
        if writes { OpenFlags::SQLITE_OPEN_READ_WRITE } else { OpenFlags::SQLITE_OPEN_READ_ONLY };
    let flags = access | OpenFlags::SQLITE_OPEN_NOFOLLOW | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(options.busy_timeout)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
        // Numbers of services come from this very file; looking each up again per check would
        // only cost. `db check` checks them.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false)?;
        connection.pragma_update(None, "cell_size_check", true)?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        if writes {
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.pragma_update_and_check(
                None,
                "journal_size_limit",
                LARGEST_IDLE_LOG as i64,
                |_| Ok(()),
            )?;
        }
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        Ok(connection)
    };
    open().map_err(|error| store_error(path, error))
}

/// Puts the log into the file; gives whether somebody was in the way, and how many pages the log
/// has and how many of them are in the file.
fn checkpoint(connection: &Connection, how: &str) -> rusqlite::Result<(i64, i64, i64)> {
    connection.query_row(&format!("PRAGMA wal_checkpoint({how})"), [], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    })
}

enum Cut {
    Short(String),
    Unknown(rusqlite::Error),
}

impl From<rusqlite::Error> for Cut {
    fn from(error: rusqlite::Error) -> Self {
        Self::Unknown(error)
    }
}

/// Says so if the file was cut short. Only once its log is all in it, since until then a file may
/// rightly be shorter than its header says.
fn assert_whole(path: &Path, connection: &Connection) -> Result<(), Cut> {
    let (busy, logged, written) = checkpoint(connection, "PASSIVE")?;
    if busy != 0 || logged != written {
        return Ok(());
    }
    let read = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, u64>(0));
    let whole = read("page_count")?.saturating_mul(read("page_size")?);
    match std::fs::metadata(path) {
        Ok(file) if file.len() < whole => {
            Err(Cut::Short(format!("the file is cut short: {} of {whole} bytes", file.len())))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use mcpmon_core::store::{Batch, RecordQuery, SampleStore};
    use mcpmon_testkit::START;
    use mcpmon_testkit::samples::check;

    use super::*;
    use crate::SqliteStore;

    #[tokio::test]
    async fn a_full_disk_refuses_the_whole_batch_and_is_got_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mcpmon.db");
        let store = SqliteStore::open(&path, OpenOptions::default()).unwrap();
        let batch = |service: &str, checks: usize| Batch {
            checks: (0..checks).map(|_| check(service, START)).collect(),
            ..Batch::default()
        };
        store.append(&batch("files", 10)).await.unwrap();
        let limit = store.database().pragma("max_page_count", 1) + 3;
        store.database().pragma("max_page_count", limit);
        let refused = store.append(&batch("new", 5_000)).await.unwrap_err();
        assert!(matches!(&refused, StoreError::Full { path: full } if full.ends_with("mcpmon.db")));
        let services = store.services().await.unwrap();
        assert_eq!(services.len(), 1, "not even the new service's row");
        let again = store.append(&batch("new", 5_000)).await.unwrap_err();
        assert!(matches!(again, StoreError::Full { .. }), "{again:?}");

        store.database().pragma("max_page_count", 1_000_000);
        store.append(&batch("new", 5_000)).await.unwrap();
        let query = RecordQuery::of("new".into());
        assert_eq!(store.checks(&query).await.unwrap().items.len(), 5_000);
        assert!(store.check().await.unwrap().ok);
    }

    #[tokio::test]
    async fn a_writer_that_waits_too_long_says_busy_and_goes_on_later() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mcpmon.db");
        let options =
            OpenOptions { busy_timeout: Duration::from_millis(50), ..OpenOptions::default() };
        let store = SqliteStore::open(&path, options).unwrap();
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let batch = Batch { checks: vec![check("files", START)], ..Batch::default() };
        let refused = store.append(&batch).await.unwrap_err();
        assert!(matches!(refused, StoreError::Busy { .. }), "{refused:?}");
        other.execute_batch("ROLLBACK").unwrap();
        store.append(&batch).await.unwrap();
        assert_eq!(store.checks(&RecordQuery::all()).await.unwrap().items.len(), 1);
    }

    /// What `open` gives for a path that another process holds; that process changes the file by
    /// `change` and lets it go while `open` waits for the lock.
    #[track_caller]
    fn open_while_held<T: Send>(
        path: &Path,
        open: impl Fn() -> Result<T, StoreError> + Send,
        change: impl FnOnce(),
    ) -> Result<T, StoreError> {
        let lock = file::lock(path).unwrap();
        std::thread::scope(|scope| {
            let opening = scope.spawn(move || {
                loop {
                    match open() {
                        // The machine was too busy for the change to come in time.
                        Err(StoreError::InUse { .. }) => {}
                        opened => return opened,
                    }
                }
            });
            std::thread::sleep(Duration::from_millis(40));
            change();
            drop(lock);
            opening.join().unwrap()
        })
    }

    #[test]
    fn a_file_that_changed_while_its_lock_was_waited_for_is_looked_at_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap().join("mcpmon.db");
        let (open, moved) =
            (|| Database::open(&path, OpenOptions::default()), directory.path().join("moved.db"));
        drop(open().unwrap());
        drop(open_while_held(&path, open, || std::fs::rename(&path, &moved).unwrap()).unwrap());
        assert!(path.exists(), "a new one is made");

        let foreign = {
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[68..72].copy_from_slice(&[0, 0, 0, 7]);
            bytes
        };
        let change = || {
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, &foreign).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        };
        let refused = open_while_held(&path, open, change).unwrap_err();
        assert!(matches!(refused, StoreError::Foreign { .. }), "{refused:?}");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644, "another program's file is left as it is");
    }

    #[tokio::test]
    async fn a_database_that_another_monitor_began_meanwhile_is_not_put_aside() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().canonicalize().unwrap();
        let (path, other) = (directory.join("mcpmon.db"), directory.join("other.db"));
        let store = SqliteStore::open(&other, OpenOptions::default()).unwrap();
        let batch = Batch { checks: vec![check("files", START)], ..Batch::default() };
        store.append(&batch).await.unwrap();
        drop(store);
        std::fs::write(&path, "no database").unwrap();
        let open = || SqliteStore::open_or_begin(&path, OpenOptions::default(), START);
        let begin = || std::fs::rename(&other, &path).unwrap();
        let (store, set_aside) = open_while_held(&path, open, begin).unwrap();
        assert_eq!(set_aside, None);
        assert_eq!(store.checks(&RecordQuery::all()).await.unwrap().items, batch.checks);
        let names = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(names.into_iter().all(|name| !name.to_string_lossy().contains("set-aside")));
    }

    #[test]
    fn a_panic_inside_a_transaction_leaves_nothing_and_stops_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mcpmon.db");
        let database = Database::open(&path, OpenOptions::default()).unwrap();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            database.write::<()>(|transaction, _| {
                transaction.execute("INSERT INTO service (name) VALUES ('half')", [])?;
                panic!("on cue");
            })
        }));
        assert!(panicked.is_err());
        let services = |transaction: &Transaction<'_>| {
            transaction.query_row("SELECT count(*) FROM service", [], |row| row.get::<_, i64>(0))
        };
        assert_eq!(database.write(|transaction, _| services(transaction)).unwrap(), 0);
    }
}
