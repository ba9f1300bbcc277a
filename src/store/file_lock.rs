//! The lock on a SQLite database: one process uses it, by whatever path.
//!
//! Two files are locked: the one beside the database whose name ends in `.lock`, as in earlier versions, and a byte of the database itself. That may
//! have several names, by hard links or mounts of the file, and each has another `.lock` beside it. The row with the lease is of no use there: SQLite
//! keeps a write-ahead log beside each name, so that a process does not see what another one writes by another name.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{MetadataExt, OpenOptionsExt, fchown},
    path::{Path, PathBuf},
};

use super::paths::{beside, resolve};

/// Which file it is, whatever its name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(super) fn of(metadata: &fs::Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// A locked database. The system ends the lock with the process, however that ends.
///
/// If it is dropped, this process also loses the locks that SQLite has on the file: drop it after all connections to that file.
pub(super) struct FileLock {
    /// The database, without symbolic links.
    path: PathBuf,
    _beside: File,
    /// `None`: the database cannot be written, and is not locked.
    database: Option<(FileId, File)>,
}

impl FileLock {
    /// Locks a database, which is made, empty, if `is_made` and it does not exist. `None`: another process has locked it. The error names the file.
    pub(super) fn take(path: &Path, is_made: bool) -> io::Result<Option<Self>> {
        let path = resolve(path).map_err(|error| of_file(path, &error))?;
        let beside = beside(&path, ".lock");
        let Some(beside) = lock_beside(&beside, &path).map_err(|error| of_file(&beside, &error))? else {
            return Ok(None);
        };
        let database = match lock_database(&path, is_made).map_err(|error| of_file(&path, &error))? {
            Database::Locked(id, file) => Some((id, file)),
            Database::Unwritable => None,
            Database::LockedByAnother => return Ok(None),
        };
        Ok(Some(Self { path, _beside: beside, database }))
    }

    /// Whether it is this file that is locked.
    pub(super) fn is_of(&self, file: Option<FileId>) -> bool {
        self.database.as_ref().map(|(id, _)| *id) == file
    }

    /// Whether the write-ahead log is there. What is committed is in it first.
    pub(super) fn has_log(&self) -> bool {
        beside(&self.path, "-wal").exists()
    }
}

enum Database {
    Locked(FileId, File),
    LockedByAnother,
    Unwritable,
}

fn lock_beside(beside: &Path, path: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(beside)?;
    // Made by root for `bugle store new-epoch`, it is the server's all the same.
    if let Ok(database) = fs::metadata(path) {
        let _ = fchown(&file, Some(database.uid()), Some(database.gid()));
    }
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

fn lock_database(path: &Path, is_made: bool) -> io::Result<Database> {
    let opened = OpenOptions::new().read(true).write(true).create(is_made).truncate(false).mode(0o600).open(path);
    match opened {
        Ok(file) if lock_byte(&file)? => Ok(Database::Locked(FileId::of(&file.metadata()?), file)),
        Ok(_) => Ok(Database::LockedByAnother),
        Err(error) if is_unwritable(&error) => Ok(Database::Unwritable),
        Err(error) => Err(error),
    }
}

/// SQLite tells what is wrong with such a file.
fn is_unwritable(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::NotFound)
}

/// Locks a byte that no database reaches: SQLite's own locks are on others. The whole file (`flock`) would be locked against SQLite, too, where that
/// and `fcntl` are one, as on NFS. False: another process has locked it. A file system without such locks leaves the database to the `.lock` file.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "rustix and the standard library lock whole files only")]
fn lock_byte(file: &File) -> io::Result<bool> {
    use std::os::fd::AsRawFd;

    /// A database has at most 2^48 bytes.
    const BYTE: libc::off_t = 1 << 52;
    let short = |value: libc::c_int| libc::c_short::try_from(value).map_err(io::Error::other);
    let lock = libc::flock {
        l_type: short(libc::F_WRLCK)?,
        l_whence: short(libc::SEEK_SET)?,
        l_start: BYTE,
        l_len: 1,
        // As this kind of lock wants it: it is the file description's, not the process's.
        l_pid: 0,
    };
    // SAFETY: the descriptor is open, and the system only reads the lock, during the call.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) } == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP | libc::ENOLCK) => Ok(true),
        _ => Err(error),
    }
}

#[cfg(not(target_os = "linux"))]
fn lock_byte(_: &File) -> io::Result<bool> {
    Ok(true)
}

fn of_file(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("the file `{}` cannot be locked: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_database_is_locked_by_all_its_names() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        symlink(at("file"), at("link-to-nothing")).unwrap();
        let lock = FileLock::take(&at("link-to-nothing"), true).unwrap().unwrap();
        assert!(at("file").exists() && at("file.lock").exists());
        assert!(lock.is_of(Some(FileId::of(&fs::metadata(at("link-to-nothing")).unwrap()))));
        fs::create_dir(at("d")).unwrap();
        symlink("../file", at("d/link")).unwrap();
        fs::hard_link(at("file"), at("d/name")).unwrap();
        for name in ["file", "link-to-nothing", "d/link", "d/name"] {
            assert!(FileLock::take(&at(name), true).unwrap().is_none(), "{name}");
        }
        assert!(!lock.has_log());
        fs::write(at("file-wal"), "").unwrap();
        assert!(lock.has_log(), "it is beside the file, not beside the link");
        drop(lock);
        assert!(FileLock::take(&at("d/name"), true).unwrap().is_some());
    }

    #[test]
    fn a_file_that_cannot_be_locked_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("file.lock")).unwrap();
        let told = FileLock::take(&at("file"), true).err().unwrap().to_string();
        assert!(told.starts_with(&format!("the file `{}` cannot be locked: ", at("file.lock").display())), "{told}");
    }
}
