//! The database as a file: where it is, whose it is, who else writes it.
//!
//! Everything here happens before SQLite sees the file, because SQLite adopts an empty file,
//! repairs a foreign one and follows a link without asking. A new database is built beside its
//! place and renamed into it, so an empty or half-made file is never one of ours.

use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mcpmon_core::StoreError;
use mcpmon_core::store::Room;
use rustix::fs::{CWD, FlockOperation, OFlags, RenameFlags, flock, renameat_with, statvfs};
use rustix::io::Errno;

use crate::error::damaged;
use crate::schema;

/// "SQLite format 3" and a zero: how every SQLite file begins.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
const HEADER_LEN: usize = 100;
/// A process that only asks whether the file is in use holds the lock for an instant.
const LOCK_ATTEMPTS: u32 = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

fn io_error(path: &Path, message: String) -> StoreError {
    StoreError::Io { path: path.to_path_buf(), message }
}

/// `path` with its directory resolved, so that only its last part could still be a link.
///
/// # Errors
///
/// A path that names no file, or whose directory is missing and may not be made.
pub(crate) fn locate(path: &Path, create_directory: bool) -> Result<PathBuf, StoreError> {
    let Some(name) = path.file_name() else {
        return Err(io_error(path, "it names no file; give the path of a database file".into()));
    };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if create_directory {
        // Only what is made here gets this mode; a directory that is there keeps its own.
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|error| {
            io_error(
                path,
                format!(
                    "its directory `{}` cannot be created ({error}); create it, or give another path",
                    directory.display()
                ),
            )
        })?;
    }
    let directory = directory.canonicalize().map_err(|error| {
        io_error(path, format!("its directory `{}`: {error}", directory.display()))
    })?;
    Ok(directory.join(name))
}

/// What stands at a path, before it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing: a new database may be made.
    Missing,
    /// A database of ours that this build can read.
    Ours,
}

/// Looks at the file without SQLite and without writing.
///
/// # Errors
///
/// A link or no plain file, another program's or a development version's database, a newer schema,
/// or no database at all.
pub(crate) fn examine(path: &Path) -> Result<Standing, StoreError> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Standing::Missing),
        Err(error) => return Err(io_error(path, error.to_string())),
    };
    if metadata.is_symlink() {
        let message = "it is a symbolic link, and links are not followed; give the real path";
        return Err(io_error(path, message.into()));
    }
    if !metadata.is_file() {
        return Err(io_error(path, "it is not a plain file; give another path".into()));
    }
    let mut header = Vec::with_capacity(HEADER_LEN);
    open_plain(path)
        .and_then(|file| file.take(HEADER_LEN as u64).read_to_end(&mut header))
        .map_err(|error| {
            io_error(path, format!("it cannot be read ({error}); check its owner and mode"))
        })?;
    judge(path, &header)
}

/// What the first bytes of a file say.
fn judge(path: &Path, header: &[u8]) -> Result<Standing, StoreError> {
    if header.is_empty() {
        return Err(damaged(path, "the file is empty"));
    }
    let Some(body) = header.strip_prefix(MAGIC).filter(|_| header.len() == HEADER_LEN) else {
        return Err(damaged(path, "the file is no SQLite database"));
    };
    let word = |at: usize| {
        let at = at - MAGIC.len();
        body[at..at + 4].iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte))
    };
    // Offsets 60 and 68 of the database header: user version and application id.
    let (found, application) = (word(60), word(68));
    schema::verify_owner(path, i64::from(application))?;
    if found > schema::NEWEST {
        let known = schema::NEWEST;
        return Err(StoreError::NewerSchema { path: path.to_path_buf(), found, known });
    }
    Ok(Standing::Ours)
}

fn open_plain(path: &Path) -> std::io::Result<File> {
    File::options().read(true).custom_flags(OFlags::NOFOLLOW.bits() as i32).open(path)
}

/// Which file this is, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

/// The file at `path`; `None` where there is none. As long as a file is open, no other gets its
/// identity.
pub(crate) fn identity(path: &Path) -> Option<Identity> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some(Identity { device: metadata.dev(), inode: metadata.ino() })
}

/// What the file and its log take, and what the file system has left for those who are not root.
pub(crate) fn room(path: &Path, log: &Path) -> Result<Room, StoreError> {
    let size = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
    let held = fs::metadata(path).map_err(|error| io_error(path, error.to_string()))?.len();
    let system = path.parent().and_then(|directory| statvfs(directory).ok());
    let bytes = |blocks: u64, size: u64| blocks.saturating_mul(size);
    Ok(Room {
        file_bytes: held,
        log_bytes: size(log),
        free_bytes: system.as_ref().map(|system| bytes(system.f_bavail, system.f_frsize)),
        disk_bytes: system.as_ref().map(|system| bytes(system.f_blocks, system.f_frsize)),
    })
}

/// Makes a new database at `path` by `build`, which gets the path it is built at.
///
/// # Errors
///
/// When the directory cannot be written, `build` fails, or a file came to `path` meanwhile: that file
/// is left as it is.
pub(crate) fn create(
    path: &Path,
    build: impl FnOnce(&Path) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let draft = with_suffix(path, ".new");
    let unwritable = |error: std::io::Error| match error.kind() {
        ErrorKind::StorageFull => StoreError::Full { path: path.to_path_buf() },
        ErrorKind::AlreadyExists => {
            io_error(path, "another file was put there while it was created; try again".into())
        }
        _ => io_error(path, format!("it cannot be created ({error}); give a path you can write")),
    };
    discard(&draft);
    new_file(&draft).map_err(unwritable)?;
    let built = build(&draft).and_then(|()| publish(&draft, path).map_err(unwritable));
    if built.is_err() {
        discard(&draft);
    }
    built
}

/// Gives a finished draft its name, durably. A file that has the name already is not replaced.
///
/// # Errors
///
/// [`ErrorKind::AlreadyExists`] where `path` exists; else when the directory cannot be written.
pub(crate) fn publish(draft: &Path, path: &Path) -> std::io::Result<()> {
    File::open(draft)?.sync_all()?;
    rename_to_free(draft, path)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

type Rename = fn(&Path, &Path) -> std::io::Result<()>;

/// Ways to rename a file to a free name. NFS and some FUSE file systems refuse the first, FAT and
/// others refuse the second; the last can replace a file that comes between look and rename.
const RENAMES: [Rename; 3] = [rename_exclusively, link_and_unlink, look_and_rename];

/// Renames a file, unless `to` exists.
fn rename_to_free(from: &Path, to: &Path) -> std::io::Result<()> {
    let [best, others @ ..] = RENAMES;
    others.into_iter().fold(best(from, to), |done, next| match done {
        Err(error) if is_unsupported(&error) => next(from, to),
        done => done,
    })
}

fn rename_exclusively(from: &Path, to: &Path) -> std::io::Result<()> {
    Ok(renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
}

fn link_and_unlink(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::hard_link(from, to)?;
    if let Err(error) = fs::remove_file(from) {
        tracing::warn!(path = %from.display(), %error, "Leftover name of a file stays");
    }
    Ok(())
}

fn look_and_rename(from: &Path, to: &Path) -> std::io::Result<()> {
    match fs::symlink_metadata(to) {
        Ok(_) => Err(ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == ErrorKind::NotFound => fs::rename(from, to),
        Err(error) => Err(error),
    }
}

/// Whether the file system, the kernel or a sandbox does not know this kind of call.
fn is_unsupported(error: &std::io::Error) -> bool {
    let codes = [Errno::INVAL, Errno::NOSYS, Errno::NOTSUP, Errno::OPNOTSUPP, Errno::PERM];
    error.raw_os_error().is_some_and(|code| codes.iter().any(|known| known.raw_os_error() == code))
}

/// Takes away what an interrupted creation left.
fn discard(draft: &Path) {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let leftover = with_suffix(draft, suffix);
        if let Err(error) = fs::remove_file(&leftover)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(path = %leftover.display(), %error, "Leftover file stays");
        }
    }
}

fn new_file(path: &Path) -> std::io::Result<File> {
    File::options().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// Lets nobody but the owner at a file that is there already.
pub(crate) fn make_private(path: &Path) {
    let private = open_plain(path).and_then(|file| {
        let mode = file.metadata()?.permissions().mode() & 0o7777;
        if mode & 0o077 == 0 {
            Ok(())
        } else {
            file.set_permissions(PermissionsExt::from_mode(0o600))
        }
    });
    if let Err(error) = private {
        tracing::warn!(path = %path.display(), %error, "Database may be read by other users");
    }
}

/// `path` with `suffix` behind its name.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn lock_path(path: &Path) -> PathBuf {
    with_suffix(path, ".lock")
}

/// Holds a database for one monitor; given back when dropped, or when the process ends in any way.
#[derive(Debug)]
pub(crate) struct WriterLock(#[expect(dead_code, reason = "held, never read")] File);

/// Takes the database for this monitor. Readers take no lock.
///
/// # Errors
///
/// [`StoreError::InUse`] where another monitor has it.
pub(crate) fn lock(path: &Path) -> Result<WriterLock, StoreError> {
    let lock_path = lock_path(path);
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits() as i32)
        .open(&lock_path)
        .map_err(|error| {
            let lock = lock_path.display();
            io_error(
                path,
                format!("`{lock}` cannot be opened ({error}); give a path you can write"),
            )
        })?;
    for attempt in 1.. {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(Errno::WOULDBLOCK) if attempt < LOCK_ATTEMPTS => std::thread::sleep(LOCK_PAUSE),
            Err(Errno::WOULDBLOCK) => return Err(StoreError::InUse { path: path.to_path_buf() }),
            Err(error) => return Err(io_error(path, format!("it cannot be locked: {error}"))),
        }
    }
    Ok(WriterLock(file))
}

/// Whether a monitor writes this database now.
pub(crate) fn is_locked(path: &Path) -> bool {
    open_plain(&lock_path(path)).is_ok_and(|file| {
        flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(application: u32, version: u32) -> Vec<u8> {
        let mut header = vec![0; HEADER_LEN];
        header[..16].copy_from_slice(MAGIC);
        header[60..64].copy_from_slice(&version.to_be_bytes());
        header[68..72].copy_from_slice(&application.to_be_bytes());
        header
    }

    #[test]
    fn the_first_bytes_decide_what_a_file_is() {
        let path = Path::new("x.db");
        let judge = |header: &[u8]| judge(path, header);
        let ours = schema::APPLICATION_ID;
        assert_eq!(judge(&header(ours, schema::NEWEST)).unwrap(), Standing::Ours);
        assert!(matches!(
            judge(&header(ours, schema::NEWEST + 1)),
            Err(StoreError::NewerSchema { found, .. }) if found == schema::NEWEST + 1
        ));
        assert!(matches!(judge(&header(0, 0)), Err(StoreError::Foreign { .. })));
        assert!(matches!(judge(&header(7, 1)), Err(StoreError::Foreign { .. })));
        for version in [0, 1, 3, 4_711] {
            let development = judge(&header(schema::DEVELOPMENT_ID, version));
            assert!(matches!(development, Err(StoreError::Development { .. })), "{version}");
        }
        assert!(matches!(judge(b""), Err(StoreError::Damaged { .. })));
        assert!(matches!(judge(&header(ours, 1)[..99]), Err(StoreError::Damaged { .. })));
        assert!(matches!(judge(&[7; 4_096]), Err(StoreError::Damaged { .. })));
    }

    #[test]
    fn a_file_that_came_while_a_database_was_made_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("m.db");
        let refused = create(&path, |draft| {
            fs::write(draft, "ours").unwrap();
            fs::write(&path, "theirs").unwrap();
            Ok(())
        })
        .unwrap_err();
        assert!(refused.to_string().contains("another file was put there"), "{refused}");
        assert_eq!(fs::read(&path).unwrap(), b"theirs");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn each_way_to_rename_takes_a_free_name_only() {
        for rename in RENAMES {
            let directory = tempfile::tempdir().unwrap();
            let [from, to, link] = ["from", "to", "link"].map(|name| directory.path().join(name));
            std::os::unix::fs::symlink(directory.path().join("nowhere"), &link).unwrap();
            fs::write(&from, "ours").unwrap();
            rename(&from, &to).unwrap();
            assert_eq!((from.exists(), fs::read(&to).unwrap()), (false, b"ours".to_vec()));
            fs::write(&from, "new").unwrap();
            for taken in [&to, &link] {
                let refused = rename(&from, taken).unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
                assert!(!is_unsupported(&refused), "it is not tried in another way");
            }
            assert_eq!(fs::read(&to).unwrap(), b"ours");
            assert!(link.is_symlink() && from.exists());
        }
    }

    #[test]
    fn an_interrupted_creation_leaves_nothing_in_the_way() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("m.db");
        let failed = create(&path, |draft| {
            fs::write(draft, "half").unwrap();
            Err(damaged(draft, "on cue"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        // As after a crash: the draft is still there.
        fs::write(with_suffix(&path, ".new"), "half").unwrap();
        create(&path, |draft| {
            assert_eq!(fs::metadata(draft).unwrap().len(), 0);
            fs::write(draft, "whole").unwrap();
            Ok(())
        })
        .unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
    }
}
