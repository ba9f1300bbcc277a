//! File systems that one server alone sees: its mount namespace ends with its process, and they with it. Without root, the server is root of a user
//! namespace.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// How to start a server with its own mounts, as the runner of a [`super::Launch`].
pub struct OwnMounts(Vec<String>);

impl OwnMounts {
    /// A file system of 16 MB on this directory, or why this process may not mount.
    pub fn small_disk(directory: &Path) -> Result<Self, String> {
        Self::after("mount -t tmpfs -o size=16m tmpfs \"$0\"", directory)
    }

    /// This directory, read-only, or why this process may not mount.
    pub fn read_only(directory: &Path) -> Result<Self, String> {
        Self::after("mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\"", directory)
    }

    fn after(command: &str, directory: &Path) -> Result<Self, String> {
        let directory = directory.to_str().expect("a path is text");
        let script = format!("{command} && exec \"$@\"");
        let mut told = String::new();
        // Some systems have no user namespaces for root.
        for options in [&["--mount"][..], &["--map-root-user", "--mount"]] {
            let words = [&["unshare"], options, &["sh", "-c", &script, directory]].concat();
            let tried = Command::new(words[0]).args(&words[1..]).arg("true").stdin(Stdio::null()).output();
            let tried = tried.map_err(|error| format!("needs util-linux's unshare, to mount: {error}"))?;
            if tried.status.success() {
                return Ok(Self(words.into_iter().map(str::to_owned).collect()));
            }
            told = String::from_utf8_lossy(&tried.stderr).into_owned();
        }
        Err(format!("needs root or user namespaces, to mount: {}", told.trim()))
    }

    /// What runs a program with these mounts, and becomes its process.
    pub fn runner(&self) -> Vec<&str> {
        self.0.iter().map(String::as_str).collect()
    }
}

/// Takes all the room that is left on the small disk of this process.
pub fn fill(process: u32, directory: &Path) {
    let mut file = File::create(ballast(process, directory)).expect("a file is made");
    let full = io::copy(&mut io::repeat(1), &mut file).expect_err("the disk is small");
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
}

/// Makes room again after [`fill`].
pub fn make_room(process: u32, directory: &Path) {
    fs::remove_file(ballast(process, directory)).expect("a file is removed");
}

/// Makes a directory writable again that is read-only for this process.
pub fn make_writable(process: u32, directory: &Path) {
    let mut nsenter = Command::new("nsenter");
    nsenter.args(["-t", &process.to_string(), "--mount"]);
    let user_namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/user")).expect("it runs");
    if user_namespace("self") != user_namespace(&process.to_string()) {
        nsenter.args(["--user", "--preserve-credentials"]);
    }
    nsenter.args(["mount", "-o", "remount,bind,rw"]).arg(directory);
    assert!(nsenter.status().expect("nsenter runs").success());
}

fn ballast(process: u32, directory: &Path) -> PathBuf {
    seen_by(process, directory).join("ballast")
}

/// The directory as the process sees it.
pub fn seen_by(process: u32, directory: &Path) -> PathBuf {
    let directory = directory.strip_prefix("/").expect("an absolute path");
    Path::new("/proc").join(process.to_string()).join("root").join(directory)
}
