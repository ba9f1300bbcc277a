//! A disk on which `fsync` takes 5 ms.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

/// How PostgreSQL waits 5 ms before it flushes what was committed, whoever else commits.
pub const POSTGRES: [&str; 6] = ["-c", "ssl=off", "-c", "commit_delay=5000", "-c", "commit_siblings=0"];

/// A library that is loaded into a process before the C library, whose `fsync` and `fdatasync` it wraps.
const LIBRARY: &str = r#"
use std::{ffi::{c_int, c_long}, thread, time::Duration};

#[cfg(target_arch = "x86_64")]
const NUMBERS: [c_long; 2] = [74, 75];
#[cfg(target_arch = "aarch64")]
const NUMBERS: [c_long; 2] = [82, 83];

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
}

fn slowly(number: c_long, file: c_int) -> c_int {
    thread::sleep(Duration::from_millis(5));
    // Safety: both calls take one file descriptor, which the caller has given.
    unsafe { syscall(number, file) as c_int }
}

#[unsafe(no_mangle)]
pub extern "C" fn fsync(file: c_int) -> c_int {
    slowly(NUMBERS[0], file)
}

#[unsafe(no_mangle)]
pub extern "C" fn fdatasync(file: c_int) -> c_int {
    slowly(NUMBERS[1], file)
}
"#;

/// A program whose files are on such a disk. It goes when this is dropped.
pub struct OnSlowDisk {
    _directory: TempDir,
    /// Takes the arguments of the program and becomes its process.
    pub program: PathBuf,
}

impl OnSlowDisk {
    pub fn new(program: &Path) -> Self {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let library = directory.path().join("slow_disk.so");
        let mut rustc = Command::new("rustc")
            .args(["--edition", "2024", "--crate-type", "cdylib", "--crate-name", "slow_disk", "-o"])
            .arg(&library)
            .arg("-")
            .stdin(Stdio::piped())
            .spawn()
            .expect("rustc runs");
        rustc.stdin.take().expect("it is piped").write_all(LIBRARY.as_bytes()).expect("rustc reads");
        assert!(rustc.wait().expect("it was started").success(), "rustc compiles the library");
        let wrapper = directory.path().join("bugle");
        let script = format!("#!/bin/sh\nLD_PRELOAD='{}' exec '{}' \"$@\"\n", library.display(), program.display());
        fs::write(&wrapper, script).expect("a file can be written");
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o700)).expect("its mode can be set");
        Self { _directory: directory, program: wrapper }
    }
}
