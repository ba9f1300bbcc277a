//! The lock on a byte of a SQLite database. It excludes a process that opens the same file by another name: a hard link, or a mount of the file.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use parking_lot::Mutex;

use super::paths::FileId;

/// The databases that this process has opened to lock them.
///
/// Their descriptors stay open until the process ends. If a process closes one descriptor of a file, the system releases all POSIX locks that the
/// process has on the file, and SQLite has such locks as long as it has a connection. An open descriptor also keeps the [`FileId`] from being given to
/// another file.
static OPENED: Mutex<BTreeMap<FileId, Opened>> = Mutex::new(BTreeMap::new());

struct Opened {
    file: &'static File,
    is_locked: bool,
}

/// A locked byte of a database. Dropping it unlocks the byte and leaves SQLite's own locks as they are.
pub(super) struct ByteLock {
    id: FileId,
}

/// The result of a system call.
enum Outcome {
    Done,
    LockedByAnother,
    Unsupported,
}

impl ByteLock {
    /// Locks a database, which is created, empty, if `is_made` and it does not exist. `None`: another process, or another store of this one, has
    /// locked it. Without support for such locks the database counts as locked, and a warning is logged.
    pub(super) fn take(path: &Path, is_made: bool) -> io::Result<Option<Self>> {
        let mut opened = OPENED.lock();
        let id = open(&mut opened, path, is_made)?;
        let Some(database) = opened.get_mut(&id).filter(|database| !database.is_locked) else {
            return Ok(None);
        };
        match set_lock(database.file, true)? {
            Outcome::Done => {}
            Outcome::LockedByAnother => return Ok(None),
            Outcome::Unsupported => tracing::warn!(
                store.path = %path.display(),
                "this system or file system cannot lock the database itself, only the `.lock` file beside it: Bugle does not notice a process \
                 that opens the database by another name (a hard link, or a mount of the file): always open it by the same path"
            ),
        }
        database.is_locked = true;
        Ok(Some(Self { id }))
    }

    pub(super) fn id(&self) -> FileId {
        self.id
    }
}

impl Drop for ByteLock {
    fn drop(&mut self) {
        if let Some(database) = OPENED.lock().get_mut(&self.id) {
            // After an error other processes are excluded until this one ends.
            let _ = set_lock(database.file, false);
            database.is_locked = false;
        }
    }
}

/// Opens a database, unless it is open already.
fn open(opened: &mut BTreeMap<FileId, Opened>, path: &Path, is_made: bool) -> io::Result<FileId> {
    let known = fs::metadata(path).map(|there| FileId::of(&there)).ok().filter(|id| opened.contains_key(id));
    if let Some(id) = known {
        return Ok(id);
    }
    let file = OpenOptions::new().read(true).write(true).create(is_made).truncate(false).mode(0o600).open(path)?;
    // Not closed even if a known file was moved to the path just now.
    let file: &'static File = Box::leak(Box::new(file));
    let id = FileId::of(&file.metadata()?);
    opened.entry(id).or_insert(Opened { file, is_locked: false });
    Ok(id)
}

/// Locks or unlocks a byte past the end of any database: SQLite locks other bytes. A lock on the whole file (`flock`) would exclude SQLite on file
/// systems that implement it by `fcntl` locks, such as NFS.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
#[expect(unsafe_code, reason = "rustix and the standard library lock whole files only")]
fn set_lock(file: &File, is_locked: bool) -> io::Result<Outcome> {
    use std::os::fd::AsRawFd;

    /// A database has at most 2^48 bytes.
    const LOCKED_OFFSET: libc::off_t = 1 << 52;
    let short = |value: libc::c_int| libc::c_short::try_from(value).map_err(io::Error::other);
    let lock = libc::flock {
        l_type: short(if is_locked { libc::F_WRLCK } else { libc::F_UNLCK })?,
        l_whence: short(libc::SEEK_SET)?,
        l_start: LOCKED_OFFSET,
        l_len: 1,
        // Must be 0: an "open file description lock" belongs to the descriptor, not to the process.
        l_pid: 0,
    };
    // SAFETY: the descriptor is open, and the system only reads the lock, during the call.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) } == 0 {
        return Ok(Outcome::Done);
    }
    refused(io::Error::last_os_error())
}

/// Returns what an error of the system call says. Others may go away, such as `ENOLCK`: the table of locks is full, or the server of NFS locks does not
/// answer.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
fn refused(error: io::Error) -> io::Result<Outcome> {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(Outcome::LockedByAnother),
        Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP) => Ok(Outcome::Unsupported),
        _ => Err(error),
    }
}

/// Other systems have no such locks, or another type of offset.
#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
#[expect(clippy::unnecessary_wraps, reason = "it can fail on Linux")]
fn set_lock(_: &File, _: bool) -> io::Result<Outcome> {
    Ok(Outcome::Unsupported)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use sqlx::{Connection, Executor, SqliteConnection};

    use super::*;

    /// The locks that SQLite has on a file in this process.
    fn posix_locks(path: &Path) -> usize {
        let metadata = fs::metadata(path).expect("the file exists");
        let (process, inode) = (std::process::id().to_string(), metadata.ino().to_string());
        let locks = fs::read_to_string("/proc/locks").expect("Linux has it");
        let is_one = |line: &&str| {
            let words: Vec<_> = line.split_whitespace().collect();
            words[1] == "POSIX" && words[4] == process && words[5].rsplit(':').next() == Some(&inode)
        };
        locks.lines().filter(is_one).count()
    }

    #[cfg(target_pointer_width = "64")]
    #[test]
    fn a_lock_that_the_system_lacks_room_for_is_an_error_and_not_unsupported() {
        let refused = |code| refused(io::Error::from_raw_os_error(code));
        assert_eq!(refused(libc::ENOLCK).err().and_then(|error| error.raw_os_error()), Some(libc::ENOLCK));
        for code in [libc::EINVAL, libc::ENOSYS, libc::EOPNOTSUPP] {
            assert!(matches!(refused(code), Ok(Outcome::Unsupported)), "{code}");
        }
        for code in [libc::EAGAIN, libc::EACCES] {
            assert!(matches!(refused(code), Ok(Outcome::LockedByAnother)), "{code}");
        }
    }

    #[tokio::test]
    async fn sqlite_keeps_its_locks_when_the_byte_is_refused_and_when_it_is_unlocked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let lock = ByteLock::take(&path, true).unwrap().unwrap();
        let mut connection = SqliteConnection::connect(&format!("sqlite:{}", path.display())).await.unwrap();
        connection.execute("PRAGMA journal_mode = WAL; CREATE TABLE t (c INTEGER)").await.unwrap();
        assert_eq!(posix_locks(&path), 1);
        assert!(ByteLock::take(&path, true).unwrap().is_none());
        assert_eq!(posix_locks(&path), 1, "it was refused");
        drop(lock);
        assert_eq!(posix_locks(&path), 1, "it was unlocked");
        assert!(ByteLock::take(&path, true).unwrap().is_some(), "it is free");
        assert_eq!(posix_locks(&path), 1, "it was locked again");
        connection.close().await.unwrap();
        assert_eq!(posix_locks(&path), 0);
    }
}
