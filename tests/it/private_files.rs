//! Files of the binary that other users cannot read, and what is told of those that they can.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Output},
};

use bugle::proto::v1::EmitToUserRequest;

use crate::{
    harness::{API_KEY, SECRET, ServerProcess, deadline, to_user},
    stored::store,
};

/// Everything that a server can keep in files.
const FILES: [(&str, &str); 3] = [
    ("BUGLE_STORE__URL", "sqlite:bugle.db"),
    ("BUGLE_LOG__DIRECTORY", "logs/of-bugle"),
    ("BUGLE_LOG__AUDIT", "audits/audit.log"),
];

/// The files and directories below one, with their modes.
fn modes(directory: &Path) -> Vec<(PathBuf, u32)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let there = fs::metadata(&path).expect("it is there");
        found.push((path.clone(), there.permissions().mode() & 0o777));
        if there.is_dir() {
            found.extend(modes(&path));
        }
    }
    found
}

/// Runs `check-config` with an environment like that of a server.
fn check(directory: &Path, variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bugle"));
    command.args(["check-config", "--config", "bugle.toml"]).current_dir(directory);
    command.env_clear().envs(variables.iter().copied()).output().expect("the binary runs")
}

/// What a configuration needs at least.
fn config() -> String {
    format!(
        "[[grpc.api_keys]]\nname = 'test'\nkey = '{API_KEY}'\nscopes = ['emit']\n\
         [[auth.jwt.keys]]\nalgorithm = 'HS256'\nsecret = '{SECRET}'\n"
    )
}

#[tokio::test]
async fn what_the_server_makes_is_its_users_alone() {
    let server = ServerProcess::start_after("umask 000; ", "", &FILES);
    let request = EmitToUserRequest { options: Some(store()), ..to_user("42", "news", "1") };
    deadline("a stored emit", server.backend().await.notify().emit_to_user(request)).await.expect("it is accepted");
    let directory = server.directory.path();
    let made = modes(directory);
    let own: Vec<_> = made.iter().filter(|(path, _)| !path.ends_with("bugle.toml")).collect();
    for (path, mode) in &own {
        let wanted = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(*mode, wanted, "{} has {mode:o}", path.display());
    }
    for name in ["bugle.db", "bugle.db-wal", "bugle.db-shm", "logs/of-bugle", "audits/audit.log"] {
        assert!(own.iter().any(|(path, _)| *path == directory.join(name)), "{name} is not there: {own:?}");
    }
    assert_eq!(own.iter().filter(|(path, _)| path.starts_with(directory.join("logs/of-bugle"))).count(), 3);
}

#[tokio::test]
async fn a_configuration_that_others_can_read_is_warned_of_by_serve_and_check_config_and_is_no_fault() {
    let server = ServerProcess::start_after("umask 022; ", "", &FILES);
    let directory = server.directory.path();
    let remedy = "run chmod 600 'bugle.toml'";
    let path = directory.join("bugle.toml");
    let warned = server.logged.lines().find(|line| line.contains(&format!("run chmod 600 '{}'", path.display())));
    let warned = warned.unwrap_or_else(|| panic!("there is no warning:\n{}", server.logged));
    assert!(warned.contains("WARN") && warned.contains("the configuration file"), "{warned}");
    let checked = check(directory, &FILES);
    let told = String::from_utf8(checked.stderr).expect("text");
    assert!(checked.status.success() && told.contains(remedy), "{told}");
    assert_eq!(told.lines().count(), 1, "the store's files are private: {told}");
    for secret in [API_KEY, SECRET] {
        assert!(!told.contains(secret) && !server.logged.contains(secret), "{told}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("the mode is changed");
    fs::set_permissions(directory.join("bugle.db"), fs::Permissions::from_mode(0o644)).expect("the mode is changed");
    let checked = check(directory, &FILES);
    let told = String::from_utf8(checked.stderr).expect("text");
    let database = fs::canonicalize(directory.join("bugle.db")).expect("it is there");
    assert!(checked.status.success() && told.contains(&format!("run chmod 600 '{}'", database.display())), "{told}");
    assert!(!told.contains("bugle.toml"), "{told}");
}

#[test]
fn a_store_that_cannot_be_opened_is_a_fault_of_serve_and_check_config() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("bugle.toml"), config()).expect("a file is written");
    for command in ["serve", "check-config"] {
        // A server that starts all the same would not end.
        let mut bugle = Command::new("timeout");
        bugle.args(["20", env!("CARGO_BIN_EXE_bugle"), command, "--config", "bugle.toml"]);
        bugle.current_dir(directory.path()).env_clear();
        let mut told = |url: &str| {
            let done = bugle.env("BUGLE_STORE__URL", url).output().expect("the binary runs");
            let told = String::from_utf8(done.stderr).expect("text");
            assert_eq!(done.status.code(), Some(64), "{told}");
            told
        };
        let missing = told("sqlite:data/bugle.db");
        let parent = directory.path().join("data");
        assert!(missing.contains("store.url: names `") && missing.contains(&parent.display().to_string()), "{missing}");
        assert!(missing.contains("make it (mkdir -p)"), "{missing}");
        let text = told("sqlite:bugle.toml");
        let path = directory.path().join("bugle.toml");
        let wanted = format!("store.url: names `{}`, which is not a SQLite database", path.display());
        assert!(text.contains(&wanted), "{text}");
    }
}

#[test]
fn a_store_that_cannot_be_written_is_warned_of_by_check_config_and_no_fault() {
    let parent = tempfile::tempdir().expect("a directory");
    let directory = parent.path().join("data");
    fs::create_dir(&directory).expect("a directory");
    fs::write(directory.join("bugle.toml"), config()).expect("a file is written");
    fs::write(directory.join("bugle.db"), "").expect("a file is written");
    let set_mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
    set_mode(parent.path(), 0o755);
    set_mode(&directory.join("bugle.toml"), 0o644);
    set_mode(&directory.join("bugle.db"), 0o444);
    set_mode(&directory, 0o555);
    let mut command = Command::new(env!("CARGO_BIN_EXE_bugle"));
    command.args(["check-config", "--config", "bugle.toml"]).current_dir(&directory).env_clear();
    // Root may write everywhere.
    if fs::metadata(parent.path()).expect("it is there").uid() == 0 {
        command.uid(65_534).gid(65_534);
    }
    let done = command.env("BUGLE_STORE__URL", "sqlite:bugle.db").output().expect("the binary runs");
    set_mode(&directory, 0o755);
    let told = String::from_utf8(done.stderr).expect("text");
    assert!(done.status.success(), "{told}");
    for path in [directory.join("bugle.db"), directory] {
        let wanted = format!("warning: store.url: `{}` cannot be written by the user that runs this", path.display());
        assert!(told.contains(&wanted), "{told}");
    }
}
