//! The locks of one process on a SQLite database.
//!
//! Two files are locked: the one beside the database whose name ends in `.lock`, as in earlier versions, and a byte of the database itself. A database
//! can have several names (hard links, mounts of the file), each with a `.lock` of its own. The lease in the database does not exclude a process that
//! uses another name: SQLite keeps a write-ahead log beside each name, so that a process does not see what another one has written by another name.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{MetadataExt, OpenOptionsExt, fchown},
    path::{Path, PathBuf},
};

use super::{
    byte_lock::ByteLock,
    paths::{FileId, beside, resolve},
};

/// A database that this process has locked. The system releases the locks when the process ends.
pub(super) struct FileLock {
    /// The database, without symbolic links.
    path: PathBuf,
    _lock_file: File,
    /// `None`: the database cannot be written, or another process has locked it by another name.
    database: Option<ByteLock>,
}

impl FileLock {
    /// Locks the database at a path, which is created, empty, if `is_made` and it does not exist. False: another process has locked it. The error
    /// names the file. A `held` lock of another database is released first. If `held` lacks only the database itself, its `.lock` file stays locked:
    /// another process could lock it in between.
    pub(super) fn take(held: &mut Option<Self>, path: &Path, is_made: bool) -> io::Result<bool> {
        let path = resolve(path).map_err(|error| naming(path, &error))?;
        if !held.as_ref().is_some_and(|lock| lock.path == path && lock.database.is_none()) {
            // The new lock may need the same `.lock` file.
            *held = None;
            let lock_path = beside(&path, ".lock");
            let lock_file = take_lock_file(&lock_path, &path).map_err(|error| naming(&lock_path, &error))?;
            *held = lock_file.map(|file| Self { path, _lock_file: file, database: None });
        }
        let Some(lock) = held else {
            return Ok(false);
        };
        match ByteLock::take(&lock.path, is_made) {
            Ok(database) => {
                lock.database = database;
                Ok(lock.database.is_some())
            }
            // SQLite reports the cause.
            Err(error) if is_unwritable(&error) => Ok(true),
            Err(error) => Err(naming(&lock.path, &error)),
        }
    }

    /// Whether this file is locked itself.
    pub(super) fn covers(&self, file: Option<FileId>) -> bool {
        self.database.as_ref().is_some_and(|database| Some(database.id()) == file)
    }

    /// Whether the write-ahead log exists. SQLite commits to it first.
    pub(super) fn has_log(&self) -> bool {
        beside(&self.path, "-wal").exists()
    }
}

/// `None`: another process has locked it.
fn take_lock_file(lock_path: &Path, database: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(lock_path)?;
    // If root creates it for `bugle store new-epoch`, the server must be able to open it.
    if let Ok(database) = fs::metadata(database) {
        let _ = fchown(&file, Some(database.uid()), Some(database.gid()));
    }
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

fn is_unwritable(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::NotFound)
}

fn naming(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("the file `{}` cannot be locked: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn take(path: &Path) -> Option<FileLock> {
        let mut lock = None;
        FileLock::take(&mut lock, path, true).unwrap().then_some(lock?)
    }

    #[test]
    fn a_database_is_locked_by_all_its_names() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        symlink(at("file"), at("link-to-nothing")).unwrap();
        let lock = take(&at("link-to-nothing")).unwrap();
        assert!(at("file").exists() && at("file.lock").exists());
        assert!(lock.covers(Some(FileId::of(&fs::metadata(at("link-to-nothing")).unwrap()))));
        fs::create_dir(at("d")).unwrap();
        symlink("../file", at("d/link")).unwrap();
        fs::hard_link(at("file"), at("d/name")).unwrap();
        for name in ["file", "link-to-nothing", "d/link", "d/name"] {
            assert!(take(&at(name)).is_none(), "{name}");
        }
        assert!(!lock.has_log());
        fs::write(at("file-wal"), "").unwrap();
        assert!(lock.has_log(), "it is beside the file, not beside the link");
        drop(lock);
        assert!(take(&at("d/name")).is_some());
    }

    #[test]
    fn the_lock_file_stays_locked_until_the_database_can_be_locked() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let mut lock = None;
        assert!(FileLock::take(&mut lock, &at("file"), false).unwrap(), "as one that cannot be written");
        assert!(!lock.as_ref().unwrap().covers(None));
        // A second attempt to lock it would create it again.
        fs::remove_file(at("file.lock")).unwrap();
        fs::write(at("file"), "").unwrap();
        fs::hard_link(at("file"), at("name")).unwrap();
        let other = take(&at("name")).unwrap();
        assert!(!FileLock::take(&mut lock, &at("file"), false).unwrap(), "by its other name");
        drop(other);
        assert!(FileLock::take(&mut lock, &at("file"), false).unwrap());
        assert!(lock.unwrap().covers(Some(FileId::of(&fs::metadata(at("file")).unwrap()))));
        assert!(!at("file.lock").exists());
    }

    #[test]
    fn a_file_that_cannot_be_locked_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("file.lock")).unwrap();
        let told = FileLock::take(&mut None, &at("file"), true).err().unwrap().to_string();
        assert!(told.starts_with(&format!("the file `{}` cannot be locked: ", at("file.lock").display())), "{told}");
    }
}
