//! The file of a SQLite database, as far as it can be judged without SQLite.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf, absolute},
};

use rustix::fs::{Access, AtFlags, CWD, accessat};

/// What a database begins with.
const MAGIC: &[u8] = b"SQLite format 3\0";
/// As many symbolic links as Linux follows.
const MAX_LINKS: usize = 40;

/// The identity of a file, the same for all its names. The system may give it to another file after this one was deleted and closed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(super) fn of(metadata: &fs::Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// Returns the file that has this name beside another one: SQLite's own, and the lock.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Follows symbolic links, also one whose file does not exist yet, as SQLite does before it names the files beside it.
pub(super) fn resolve(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        resolved => return resolved,
    }
    let mut path = absolute(path)?;
    for _ in 0..MAX_LINKS {
        let Ok(target) = fs::read_link(&path) else { break };
        path = path.parent().unwrap_or(Path::new("/")).join(target);
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(ErrorKind::InvalidFilename.into());
    };
    Ok(fs::canonicalize(parent)?.join(name))
}

/// Shows a path from the root on: where a relative one leads depends on where Bugle is started.
pub(super) fn shown(path: &Path) -> String {
    format!("`{}`", absolute(path).unwrap_or_else(|_| path.to_owned()).display())
}

/// Returns why a file can never be the database. One that cannot be written may be given back, see [`warnings`].
pub(super) fn problem(path: &Path, is_made: bool) -> Option<String> {
    let shown = shown(path);
    match fs::metadata(path) {
        Ok(there) if there.is_dir() => Some(format!("names {shown}, which is a directory: name a file in it")),
        Ok(there) if !there.is_file() => Some(format!("names {shown}, which is not a file")),
        Ok(_) => match is_database(path) {
            Ok(true) => None,
            Ok(false) => {
                Some(format!("names {shown}, which is not a SQLite database: name another file, or move this one away"))
            }
            Err(error) => {
                let remedy = "give it to the user that runs Bugle (chown)";
                Some(format!("names {shown}, which cannot be read: {error}: {remedy}"))
            }
        },
        Err(error) if error.kind() == ErrorKind::NotFound && !is_made => {
            Some(format!("names {shown}, which does not exist: add mode=rwc to its parameters to have it made"))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => parent_problem(path),
        Err(error) => Some(format!("names {shown}, which cannot be reached: {error}: check the directories above it")),
    }
}

/// An empty file is an empty database. SQLite repairs the beginning of a file that has a journal.
fn is_database(path: &Path) -> io::Result<bool> {
    let mut start = Vec::new();
    File::open(path)?.take(MAGIC.len() as u64).read_to_end(&mut start)?;
    let has_journal = || resolve(path).is_ok_and(|path| beside(&path, "-journal").exists());
    Ok(start.is_empty() || start == MAGIC || has_journal())
}

/// What keeps a file from being made.
fn parent_problem(path: &Path) -> Option<String> {
    let path = absolute(path).unwrap_or_else(|_| path.to_owned());
    let parent = path.parent()?;
    let (file, directory) = (shown(&path), shown(parent));
    match fs::metadata(parent) {
        Ok(there) if !there.is_dir() => {
            return Some(format!("names {file}, but {directory} is not a directory"));
        }
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Some(format!("names {file}, but the directory {directory} does not exist: make it (mkdir -p)"));
        }
        Err(error) => return Some(format!("names {file}, but {directory} cannot be reached: {error}")),
    }
    let error = write_error(parent, Access::WRITE_OK | Access::EXEC_OK)?;
    Some(format!(
        "names {file}, which cannot be made in {directory}: {error}: give the directory to the user that runs Bugle (chown)"
    ))
}

/// Returns what keeps a database that exists from being written by the user of this process, or is dangerous.
pub(super) fn warnings(path: &Path) -> Vec<String> {
    let Some(there) = fs::metadata(path).ok().filter(fs::Metadata::is_file) else {
        return Vec::new();
    };
    let path = resolve(path).unwrap_or_else(|_| path.to_owned());
    let files = ["", "-wal", "-shm", ".lock"].map(|suffix| beside(&path, suffix));
    let of_files = files.iter().filter(|file| file.exists()).map(|file| (file.as_path(), Access::WRITE_OK));
    let of_directory = path.parent().map(|parent| (parent, Access::WRITE_OK | Access::EXEC_OK));
    let unwritable = of_files.chain(of_directory).filter_map(|(path, access)| {
        let (shown, error) = (shown(path), write_error(path, access)?);
        Some(format!(
            "{shown} cannot be written by the user that runs this command: {error}: the store is not ready until it can be: give it \
             to the user that runs Bugle (chown)"
        ))
    });
    let links = (there.nlink() > 1).then(|| {
        format!(
            "{} has {} names (hard links): SQLite loses data if it is opened by one name and then by another: remove the others",
            shown(&path),
            there.nlink()
        )
    });
    unwritable.chain(links).collect()
}

fn write_error(path: &Path, access: Access) -> Option<io::Error> {
    accessat(CWD, path, access, AtFlags::EACCESS).err().map(io::Error::from)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_is_followed_whether_its_file_exists_or_not() {
        let directory = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(directory.path()).unwrap();
        fs::create_dir(root.join("d")).unwrap();
        symlink("d/next", root.join("first")).unwrap();
        symlink("../file", root.join("d/next")).unwrap();
        assert_eq!(resolve(&root.join("first")).unwrap(), root.join("file"));
        fs::write(root.join("file"), "").unwrap();
        assert_eq!(resolve(&root.join("first")).unwrap(), root.join("file"));
        symlink("loop", root.join("loop")).unwrap();
        assert!(resolve(&root.join("loop")).is_err());
        assert_eq!(resolve(&root.join("none/file")).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_file_with_several_names_is_warned_of() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        assert!(warnings(&file).is_empty(), "it does not exist");
        fs::write(&file, "").unwrap();
        assert!(warnings(&file).is_empty());
        fs::hard_link(&file, directory.path().join("name")).unwrap();
        let told = warnings(&file);
        assert!(told.len() == 1 && told[0].contains(&format!("{} has 2 names", shown(&file))), "{told:?}");
    }
}
