//! The table of C functions SQLite calls: each asks the disk and passes on to SQLite's own.
//!
//! SQLite's VFS opens the file and keeps its state in the memory SQLite gives for it. Here only the
//! file's table of methods is exchanged, for one that differs in what writes; what is kept beside a
//! file is found by its address. So nothing of SQLite's own state has to be known.

use std::collections::HashMap;
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::ptr;
use std::slice;
use std::sync::{LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};

use rusqlite::ffi;

use crate::disk::Disk;
use crate::fault::Attempt;
use crate::trace::Op;

/// What SQLite calls this VFS.
const NAME: &CStr = c"bad-disk";

/// SQLite's own VFS.
struct Under(*mut ffi::sqlite3_vfs);

// SAFETY: SQLite's VFS objects live as long as the process, are not changed after they were
// registered, and may be used by any thread.
unsafe impl Send for Under {}
// SAFETY: as above.
unsafe impl Sync for Under {}

static UNDER: OnceLock<Under> = OnceLock::new();
static DISKS: Mutex<Vec<Disk>> = Mutex::new(Vec::new());
static FILES: LazyLock<Mutex<HashMap<usize, OpenFile>>> = LazyLock::new(Mutex::default);
static TABLES: LazyLock<Mutex<HashMap<usize, &'static Table>>> = LazyLock::new(Mutex::default);

/// A file of a disk that SQLite has open.
#[derive(Clone)]
struct OpenFile {
    disk: Disk,
    number: u32,
}

/// A table of methods, and behind it the one it was made from.
#[repr(C)]
struct Table {
    methods: ffi::sqlite3_io_methods,
    under: *const ffi::sqlite3_io_methods,
}

// SAFETY: `under` points to one of SQLite's constant tables; neither is ever written.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Adds a disk, and makes this VFS the default one with the first.
pub(crate) fn serve(disk: Disk) -> io::Result<()> {
    locked(&DISKS).push(disk);
    static REGISTERED: OnceLock<c_int> = OnceLock::new();
    match *REGISTERED.get_or_init(register) {
        ffi::SQLITE_OK => Ok(()),
        code => Err(io::Error::other(format!("SQLite takes no VFS (code {code})"))),
    }
}

fn register() -> c_int {
    // SAFETY: asking for the default VFS initialises SQLite and has no other condition.
    let under = unsafe { ffi::sqlite3_vfs_find(ptr::null()) };
    if under.is_null() {
        return ffi::SQLITE_ERROR;
    }
    UNDER.get_or_init(|| Under(under));
    // SAFETY: SQLite's object is whole and lives on; its table of functions is plain data.
    let mut own = unsafe { ptr::read(under) };
    own.zName = NAME.as_ptr();
    own.pNext = ptr::null_mut();
    own.xOpen = Some(open);
    own.xDelete = Some(delete);
    // SQLite keeps the object for good.
    let own = Box::leak(Box::new(own));
    // SAFETY: `own` is a whole VFS that lives as long as the process.
    unsafe { ffi::sqlite3_vfs_register(own, 1) }
}

fn under() -> *mut ffi::sqlite3_vfs {
    UNDER.get().map_or(ptr::null_mut(), |under| under.0)
}

/// The path SQLite means.
///
/// # Safety
///
/// `name` is null or a string of C.
unsafe fn path_of(name: *const c_char) -> Option<PathBuf> {
    if name.is_null() {
        return None;
    }
    // SAFETY: it is not null, so it is a string that ends.
    let name = unsafe { CStr::from_ptr(name) };
    Some(PathBuf::from(OsStr::from_bytes(name.to_bytes())))
}

fn disk_of(path: &Path) -> Option<(Disk, String)> {
    locked(&DISKS).iter().find_map(|disk| Some((disk.clone(), disk.name_of(path)?)))
}

fn file_at(file: *mut ffi::sqlite3_file) -> Option<OpenFile> {
    locked(&FILES).get(&(file as usize)).cloned()
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives null or a path.
    let path = unsafe { path_of(name) };
    let under = under();
    // SAFETY: the object was found in `register` and lives on.
    let Some(real) = (unsafe { (*under).xOpen }) else { return ffi::SQLITE_CANTOPEN };
    // SAFETY: these are the arguments SQLite means for its own VFS, which has the same file size.
    let perform = || unsafe { real(under, name, file, flags, out) };
    let Some((disk, name)) = path.as_deref().and_then(disk_of) else { return perform() };
    let makes = flags & ffi::SQLITE_OPEN_CREATE != 0 && !path.is_some_and(|path| path.exists());
    let code = match makes {
        // Noted below, where its number is known.
        true => disk.attempt(Attempt::Create, || None, perform),
        false => perform(),
    };
    if code == ffi::SQLITE_OK {
        let number = disk.opened(&name, makes);
        locked(&FILES).insert(file as usize, OpenFile { disk, number });
        // SAFETY: the file was opened, so it has a table, which is constant.
        unsafe { (*file).pMethods = &raw const table_over((*file).pMethods).methods };
    }
    code
}

unsafe extern "C" fn delete(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    sync_directory: c_int,
) -> c_int {
    let under = under();
    // SAFETY: the object was found in `register` and lives on.
    let Some(real) = (unsafe { (*under).xDelete }) else { return ffi::SQLITE_IOERR_DELETE };
    // SAFETY: these are the arguments SQLite means for its own VFS.
    let perform = || unsafe { real(under, name, sync_directory) };
    // SAFETY: SQLite gives a path.
    let path = unsafe { path_of(name) };
    match path.as_deref().and_then(disk_of) {
        None => perform(),
        Some((disk, name)) => {
            let op = || Some(Op::Delete { name, synced: sync_directory != 0 });
            disk.attempt(Attempt::Delete, op, perform)
        }
    }
}

/// Our table over one of SQLite's; made once for each.
///
/// `real` is one of SQLite's constant tables.
fn table_over(real: *const ffi::sqlite3_io_methods) -> &'static Table {
    locked(&TABLES).entry(real as usize).or_insert_with(|| {
        // SAFETY: SQLite's tables are whole, constant and plain data.
        let mut methods = unsafe { ptr::read(real) };
        methods.xClose = Some(close);
        methods.xWrite = Some(write);
        methods.xTruncate = Some(truncate);
        methods.xSync = Some(sync);
        Box::leak(Box::new(Table { methods, under: real }))
    })
}

/// The table of SQLite's that belongs to a file.
///
/// # Safety
///
/// `file` was opened by [`open`], which gave it a [`Table`].
unsafe fn real(file: *mut ffi::sqlite3_file) -> &'static ffi::sqlite3_io_methods {
    // SAFETY: its methods are the first field of a `Table` that is never freed.
    unsafe { &*(*(*file).pMethods.cast::<Table>()).under }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    locked(&FILES).remove(&(file as usize));
    // SAFETY: only files opened by `open` have this method.
    let Some(close) = (unsafe { real(file) }).xClose else { return ffi::SQLITE_OK };
    // SAFETY: the file is SQLite's own, and open.
    unsafe { close(file) }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    data: *const c_void,
    amount: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: only files opened by `open` have this method.
    let methods = unsafe { real(file) };
    let (Some(write), Some(size)) = (methods.xWrite, methods.xFileSize) else {
        return ffi::SQLITE_IOERR_WRITE;
    };
    // SAFETY: these are the arguments SQLite means for its own method.
    let perform = || unsafe { write(file, data, amount, offset) };
    let Some(OpenFile { disk, number }) = file_at(file) else { return perform() };
    let mut now: ffi::sqlite3_int64 = 0;
    // SAFETY: the file is open, and `now` is a number to write to.
    let sized = unsafe { size(file, &raw mut now) };
    let grows = sized == ffi::SQLITE_OK && offset + i64::from(amount) > now;
    let op = || {
        // SAFETY: SQLite gives so many bytes to be written.
        let data = unsafe { slice::from_raw_parts(data.cast::<u8>(), amount as usize) };
        Some(Op::Write { file: number, offset: offset as usize, data: data.to_vec() })
    };
    disk.attempt(Attempt::Write { grows }, op, perform)
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, length: ffi::sqlite3_int64) -> c_int {
    // SAFETY: only files opened by `open` have this method.
    let Some(truncate) = (unsafe { real(file) }).xTruncate else {
        return ffi::SQLITE_IOERR_TRUNCATE;
    };
    // SAFETY: these are the arguments SQLite means for its own method.
    let perform = || unsafe { truncate(file, length) };
    let Some(OpenFile { disk, number }) = file_at(file) else { return perform() };
    let op = || Some(Op::Truncate { file: number, length: length as usize });
    disk.attempt(Attempt::Truncate, op, perform)
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: only files opened by `open` have this method.
    let Some(sync) = (unsafe { real(file) }).xSync else { return ffi::SQLITE_IOERR_FSYNC };
    // SAFETY: these are the arguments SQLite means for its own method.
    let perform = || unsafe { sync(file, flags) };
    let Some(OpenFile { disk, number }) = file_at(file) else { return perform() };
    disk.attempt(Attempt::Sync, || Some(Op::Sync { file: number }), perform)
}
