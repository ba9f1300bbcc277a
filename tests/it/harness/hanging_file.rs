use std::{
    fs::{self, File},
    io,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::Path,
};

/// The signal that tells a process that its lease is to end. It is ignored by default.
const SIGNAL: libc::c_int = libc::SIGURG;
/// `F_SETSIG` of Linux.
const SET_SIGNAL: libc::c_int = 10;

/// A file that cannot be opened for writing, as on a disk that does not answer: `open` does not return. This process has a lease on it, and the system
/// waits for its end, for 45 s at most (`/proc/sys/fs/lease-break-time`). Drop it to let the file be opened.
pub struct HangingFile(File);

impl HangingFile {
    /// The file must exist, and no process have it open for writing.
    pub fn new(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        set(&file, SET_SIGNAL, SIGNAL)?;
        set(&file, libc::F_SETLEASE, libc::F_RDLCK)?;
        Ok(Self(file))
    }

    /// Whether a process tries to open it, or has tried until it was killed.
    pub fn is_hanging(&self) -> bool {
        let inode = self.0.metadata().expect("it is open").ino().to_string();
        let locks = fs::read_to_string("/proc/locks").expect("Linux has it");
        locks.lines().any(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            words[1..3] == ["LEASE", "BREAKING"] && words[5].rsplit(':').next() == Some(&inode)
        })
    }
}

#[expect(unsafe_code, reason = "the standard library and rustix have no leases")]
fn set(file: &File, command: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open, and these commands take an integer.
    let done = unsafe { libc::fcntl(file.as_raw_fd(), command, value) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
