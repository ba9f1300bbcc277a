//! What the server logs about its store.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value as Json;

use crate::harness::{ServerProcess, eventually, execute, new_database};

/// The lines of a server with a log directory, in the file whose name begins so.
fn lines(directory: &Path, file: &str) -> Vec<Json> {
    let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    let is_it = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(file));
    let text = fs::read_to_string(entries.into_iter().find(is_it).expect("there is such a file")).expect("text");
    // The last line may be incomplete yet.
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The first line that says so, once it is there.
async fn line(server: &ServerProcess, file: &str, text: &str) -> Json {
    line_of(&server.directory.path().join("logs"), file, text).await
}

async fn line_of(directory: &Path, file: &str, text: &str) -> Json {
    let mut found = None;
    let is_there = async || {
        found = lines(directory, file).into_iter().find(|line| line.to_string().contains(text));
        found.is_some()
    };
    eventually("a line in the log", is_there).await;
    found.expect("it is there")
}

fn start(url: &str) -> ServerProcess {
    ServerProcess::start_after("", "", &[("BUGLE_STORE__URL", url), ("BUGLE_LOG__DIRECTORY", "logs")])
}

#[tokio::test]
async fn a_new_epoch_over_postgres_is_logged_as_an_error_and_the_password_never() {
    let database = new_database();
    let server = start(&database.replace("postgres@", "postgres:s3cret@"));
    let masked = database.replace("postgres@", "***@");
    let opened = line(&server, "combined.", "the store is open").await;
    assert_eq!((&opened["store.url"], &opened["store.path"]), (&Json::from(masked.as_str()), &Json::Null));
    // As a standby that lagged.
    execute(&database, "UPDATE store SET writes = 0 WHERE id = 1");
    for file in ["combined.", "error."] {
        let line = line(&server, file, "the store begins a new epoch").await;
        assert_eq!((&line["level"], &line["store.url"]), (&Json::from("ERROR"), &Json::from(masked.as_str())));
    }
    line(&server, "combined.", "the store can be written again").await;
    execute(&database, "ALTER TABLE store RENAME TO not_the_store");
    let refused = line(&server, "combined.", "does not exist").await;
    assert_eq!(refused["store.url"], Json::from(masked.as_str()));
    assert!(refused["message"].as_str().is_some_and(|text| text.contains("the store cannot be reached")), "{refused}");
    let all = lines(&server.directory.path().join("logs"), "combined.");
    assert!(!all.iter().any(|line| line.to_string().contains("s3cret")), "{all:?}");
}

#[tokio::test]
async fn lines_about_a_sqlite_store_name_its_path_from_the_root_on() {
    let mut server = start("sqlite:bugle.db");
    let path = server.directory.path().join("bugle.db");
    let names_it = |line: &Json| {
        assert_eq!(
            (&line["store.url"], &line["store.path"]),
            (&Json::from("sqlite:bugle.db"), &Json::from(path.display().to_string())),
            "{line}"
        );
    };
    names_it(&line(&server, "combined.", "the store is open").await);
    fs::rename(&path, path.with_extension("away")).expect("it can be moved");
    let gone = line(&server, "combined.", "the file of the store was deleted or replaced").await;
    names_it(&gone);
    assert_eq!(gone["error"], "the file was deleted or replaced");
    fs::rename(path.with_extension("away"), &path).expect("it can be moved back");
    names_it(&line(&server, "combined.", "the store can be written again").await);
    names_it(&line(&server, "error.", "the store begins a new epoch").await);
    server.kill_9();
    // What follows a process that was killed need not wait.
    let (url, logs) = (format!("sqlite:{}", path.display()), server.directory.path().join("next"));
    let variables = [("BUGLE_STORE__URL", url.as_str()), ("BUGLE_LOG__DIRECTORY", logs.to_str().expect("text"))];
    let _next = ServerProcess::start_after("", "", &variables);
    let opened = line_of(&logs, "combined.", "the store is open").await;
    assert_eq!(opened["store.path"], Json::from(path.display().to_string()));
    let all = lines(&logs, "combined.");
    assert!(!all.iter().any(|line| line.to_string().contains("another process")), "{all:?}");
}
