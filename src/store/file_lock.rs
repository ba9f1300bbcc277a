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

use rustix::fs::OFlags;

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
    /// Locks the database at a path. If it does not exist, it is created, empty, if `is_made`; otherwise nothing is created beside it either. False:
    /// another process has locked it. The error names the file. A `held` lock of another database is released first. If `held` lacks only the
    /// database itself, its `.lock` file stays locked: another process could lock it in between.
    pub(super) fn take(held: &mut Option<Self>, path: &Path, is_made: bool) -> io::Result<bool> {
        let path = resolve(path).map_err(|error| naming(path, &error))?;
        if !held.as_ref().is_some_and(|lock| lock.path == path && lock.database.is_none()) {
            // The new lock may need the same `.lock` file.
            *held = None;
            if !is_made {
                fs::metadata(&path).map_err(|error| naming(&path, &error))?;
            }
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
    let file = open_lock_file(lock_path, database)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

/// Opens the `.lock` file, or creates it with the owner of the database: if root creates it for `bugle store new-epoch`, the server must be able to
/// open it. A file that exists keeps its owner, and a symbolic link is not followed: the user of the server may have put another user's file there.
fn open_lock_file(lock_path: &Path, database: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // A FIFO without a reader is refused, and not waited for.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    options.write(true).mode(0o600).custom_flags(flags.bits().try_into().map_err(io::Error::other)?);
    let file = match options.clone().create_new(true).open(lock_path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => options.open(lock_path),
        Ok(file) => {
            if let Ok(database) = fs::metadata(database) {
                let _ = fchown(&file, Some(database.uid()), Some(database.gid()));
            }
            Ok(file)
        }
        Err(error) => Err(error),
    };
    let opened = file.as_ref().ok().map_or_else(|| fs::symlink_metadata(lock_path), File::metadata);
    if opened.is_ok_and(|opened| !opened.is_file()) {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is not a regular file: remove it"));
    }
    file
}

/// SQLite reports the cause.
fn is_unwritable(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}

fn naming(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("the file `{}` cannot be locked: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::{chown, symlink},
        process::Command,
    };

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
        fs::write(at("file"), "").unwrap();
        fs::hard_link(at("file"), at("name")).unwrap();
        let (other, mut lock) = (take(&at("name")).unwrap(), None);
        assert!(!FileLock::take(&mut lock, &at("file"), false).unwrap(), "it is locked by its other name");
        assert!(!lock.as_ref().unwrap().covers(Some(FileId::of(&fs::metadata(at("file")).unwrap()))));
        // A second attempt to lock it would create it again.
        fs::remove_file(at("file.lock")).unwrap();
        assert!(!FileLock::take(&mut lock, &at("file"), false).unwrap());
        drop(other);
        assert!(FileLock::take(&mut lock, &at("file"), false).unwrap());
        assert!(lock.unwrap().covers(Some(FileId::of(&fs::metadata(at("file")).unwrap()))));
        assert!(!at("file.lock").exists());
    }

    /// What is said of a file that cannot be locked.
    fn told(path: &Path, is_made: bool, named: &Path) -> String {
        let told = FileLock::take(&mut None, path, is_made).err().unwrap().to_string();
        let start = format!("the file `{}` cannot be locked: ", named.display());
        told.strip_prefix(&start).unwrap_or_else(|| panic!("{told}")).to_owned()
    }

    #[test]
    fn nothing_is_created_beside_a_database_that_does_not_exist() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let told = told(&path, false, &path);
        assert!(told.starts_with("No such file"), "{told}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_lock_file_that_is_not_a_regular_file_is_refused_and_named() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("target"), "content").unwrap();
        fs::create_dir(at("directory.lock")).unwrap();
        symlink("target", at("link.lock")).unwrap();
        symlink("none", at("link-to-nothing.lock")).unwrap();
        assert!(Command::new("mkfifo").arg(at("fifo.lock")).status().unwrap().success());
        for name in ["directory", "link", "link-to-nothing", "fifo"] {
            let told = told(&at(name), true, &at(&format!("{name}.lock")));
            assert_eq!(told, "it is not a regular file: remove it", "{name}");
        }
        let reader = OpenOptions::new().read(true).write(true).open(at("fifo.lock")).unwrap();
        assert_eq!(told(&at("fifo"), true, &at("fifo.lock")), "it is not a regular file: remove it");
        drop(reader);
        assert_eq!(fs::read_to_string(at("target")).unwrap(), "content");
        assert!(!at("none").exists());
    }

    /// Files of another user are made by root only.
    #[test]
    fn only_a_lock_file_that_is_created_is_given_to_the_owner_of_the_database() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let owner = |name: &str| fs::metadata(at(name)).map(|file| (file.uid(), file.gid())).unwrap();
        for name in ["new", "there", "link", "target"] {
            fs::write(at(name), "").unwrap();
            if name != "target" && chown(at(name), Some(12_345), Some(12_346)).is_err() {
                return;
            }
        }
        fs::write(at("there.lock"), "").unwrap();
        symlink("target", at("link.lock")).unwrap();
        let before = owner("target");
        assert!(take(&at("new")).is_some() && take(&at("there")).is_some());
        assert!(FileLock::take(&mut None, &at("link"), true).is_err());
        assert_eq!([owner("new.lock"), owner("there.lock"), owner("target")], [(12_345, 12_346), before, before]);
    }
}
