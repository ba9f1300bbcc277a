//! A clock of one process that can be set, by libfaketime (the Debian package `faketime`).

use std::{fs, path::PathBuf};

use tempfile::TempDir;

/// The clock of a node. The monotonic clock stays as it is, as when the clock of a machine is set.
pub struct WrongClock {
    directory: TempDir,
    library: PathBuf,
}

impl WrongClock {
    /// A clock that is right at first, or why there is none.
    pub fn new() -> Result<Self, String> {
        let libraries = fs::read_dir("/usr/lib").map_err(|error| format!("/usr/lib: {error}"))?;
        let library = libraries
            .filter_map(|place| Some(place.ok()?.path().join("faketime/libfaketimeMT.so.1")))
            .find(|library| library.exists())
            .ok_or("needs libfaketime: apt-get install faketime")?;
        let clock = Self { directory: tempfile::tempdir().expect("a directory"), library };
        clock.set(0);
        Ok(clock)
    }

    /// What gives a process this clock.
    pub fn variables(&self) -> impl Iterator<Item = (&'static str, String)> {
        let path = |path: PathBuf| path.to_str().expect("a path is text").to_owned();
        [
            ("LD_PRELOAD", path(self.library.clone())),
            ("FAKETIME_TIMESTAMP_FILE", path(self.file())),
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
        .into_iter()
    }

    /// Has it so many seconds ahead, or behind, within a second.
    pub fn set(&self, seconds: i32) {
        let new = self.directory.path().join("new");
        fs::write(&new, format!("{seconds:+}\n")).expect("a file is written");
        // In one step: the process may be reading it.
        fs::rename(new, self.file()).expect("a file is renamed");
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("clock")
    }
}
