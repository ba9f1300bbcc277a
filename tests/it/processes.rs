//! The binary as an operator runs it.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use sqlx::{Connection, Executor, SqliteConnection};

use crate::harness::{ServerProcess, deadline};

/// `bugle serve --dev` on free ports, ready to be asked to stop.
struct Process(Child);

impl Process {
    fn start(variables: &[(&str, &Path)]) -> Self {
        let mut child = bugle(variables).spawn().expect("the binary is there");
        let output = child.stdout.take().expect("its output is ours");
        let banner = BufReader::new(output).lines().next();
        assert!(banner.is_some(), "the server ended before it listened");
        Self(child)
    }

    async fn stop(mut self) -> bool {
        let asked = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        assert!(asked.expect("kill is there").success());
        let ended = tokio::task::spawn_blocking(move || self.0.wait().expect("it ends"));
        deadline("the end of the process", ended).await.expect("waiting does not panic").success()
    }
}

fn bugle(variables: &[(&str, &Path)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bugle"));
    command.args(["serve", "--dev"]).env_clear().stdout(Stdio::piped()).stderr(Stdio::piped());
    for listener in ["CLIENTS", "GRPC", "ADMIN"] {
        command.env(format!("BUGLE_{listener}__LISTEN"), "127.0.0.1:0");
    }
    command.envs(variables.iter().copied());
    command
}

fn only_file(directory: &Path, prefix: &str) -> String {
    let entries = fs::read_dir(directory).expect("the directory is there").map(|entry| entry.expect("an entry").path());
    let mut files =
        entries.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)));
    let file = files.next().expect("there is such a file");
    assert_eq!(files.next(), None);
    fs::read_to_string(file).expect("it is text")
}

#[tokio::test]
async fn what_was_logged_is_in_the_files_when_the_process_has_ended() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = Process::start(&[("BUGLE_LOG__DIRECTORY", &directory.path().join("logs"))]);
    assert!(server.stop().await);
    let combined = only_file(&directory.path().join("logs"), "combined.");
    assert!(combined.contains("listening") && combined.trim_end().ends_with("stopped"), "{combined}");
    assert_eq!(only_file(&directory.path().join("logs"), "error."), "");
}

#[tokio::test]
async fn a_log_directory_that_cannot_be_is_told_at_the_start() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let output = bugle(&[("BUGLE_LOG__DIRECTORY", file.path())]).output().expect("the binary is there");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("(log.directory)"), "{told}");
    assert_eq!(output.status.code(), Some(64));
}

/// What `bugle store new-epoch` says of a store on which it fails.
fn refused_new_epoch(directory: &Path, url: &str) -> String {
    let config = format!(
        "[store]\nurl = \"{url}\"\n[[auth.jwt.keys]]\nalgorithm = \"HS256\"\n\
         secret = \"a-secret-of-thirty-two-bytes-or-more\"\n[[grpc.api_keys]]\nname = \"test\"\nkey = \"a-key-of-thirty-two-bytes-or-more-here\"\n\
         scopes = [\"emit\"]\n"
    );
    fs::write(directory.join("bugle.toml"), config).expect("a file is written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_bugle"));
    command.args(["store", "new-epoch", "--config", "bugle.toml"]).env_clear().current_dir(directory);
    let output = command.output().expect("the binary is there");
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_new_epoch_that_cannot_be_begun_names_the_store_without_its_password_and_what_to_do() {
    let directory = tempfile::tempdir().expect("a directory");
    // Nothing listens there.
    let told = refused_new_epoch(directory.path(), "postgres://bugle:hidden@127.0.0.1:1/bugle");
    assert!(
        told.contains("store.url = postgres://***@127.0.0.1:1/bugle: ")
            && told.contains("no new epoch was begun")
            && told.contains("then repeat the command"),
        "{told}"
    );
    assert!(!told.contains("hidden"), "{told}");
}

#[tokio::test]
async fn a_new_epoch_of_tables_of_a_newer_version_is_refused_with_the_remedy() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("bugle.db"), "").expect("a file is written");
    let url = format!("sqlite:{}", directory.path().join("bugle.db").display());
    let mut database = SqliteConnection::connect(&url).await.expect("the file opens");
    let tables = "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL, installed_on TIMESTAMP NOT NULL \
                  DEFAULT CURRENT_TIMESTAMP, success BOOLEAN NOT NULL, checksum BLOB NOT NULL, execution_time BIGINT NOT NULL); \
                  INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, 'later', TRUE, x'00', 1)";
    database.execute(tables).await.expect("they are made");
    database.close().await.expect("it is closed");
    let told = refused_new_epoch(directory.path(), "sqlite:bugle.db");
    assert!(
        told.contains("no new epoch was begun") && told.contains("of a newer version of Bugle: run that version"),
        "{told}"
    );
    assert!(!told.contains("repeat"), "{told}");
}

#[tokio::test]
async fn a_new_epoch_of_a_file_that_cannot_be_locked_is_not_begun_and_the_file_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("bugle.db"), "").expect("a file is written");
    fs::create_dir(directory.path().join("bugle.db.lock")).expect("a directory");
    let told = refused_new_epoch(directory.path(), "sqlite:bugle.db");
    assert!(told.contains("no new epoch was begun") && told.contains("bugle.db.lock` cannot be locked"), "{told}");
    assert!(!told.contains("not known"), "{told}");
}

#[tokio::test]
async fn a_server_that_is_stopped_as_soon_as_it_listens_ends_in_order() {
    for _ in 0..5 {
        let ended = ServerProcess::start("").stop().await;
        assert!(ended.is_good && ended.last_message() == "stopped", "{ended:?}");
    }
}
