use std::{
    fs::{self, File, OpenOptions},
    io::{self, IsTerminal},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tracing::Subscriber;
use tracing_appender::rolling::InitError;
use tracing_subscriber::{
    EnvFilter, Layer,
    fmt::MakeWriter,
    layer::SubscriberExt,
    util::{SubscriberInitExt, TryInitError},
};

use super::{
    daily::Daily,
    lines::{LineWriter, Writing},
    routes::{Line, Routes},
};

/// `[log]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What is logged: `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,bugle::grpc=debug`.
    pub level: String,
    /// How it looks.
    pub format: LogFormat,
    /// Where the daily files are; empty: nowhere.
    pub directory: PathBuf,
    /// Days that they are kept, the present one included.
    pub keep_days: usize,
    /// The file of the audit log; empty: none.
    pub audit: PathBuf,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Why there are no logs.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `log.level` is no level and no list of directives.
    #[error("log.level is not understood")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// The files cannot be written there.
    #[error("cannot write logs into {} (log.directory)", directory.display())]
    Directory {
        /// `log.directory`.
        directory: PathBuf,
        /// What the system said.
        #[source]
        source: InitError,
    },
    /// The audit log cannot be written there.
    #[error("cannot write the audit log to {} (log.audit)", file.display())]
    Audit {
        /// `log.audit`.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file's writer did not start.
    #[error("cannot start a thread that writes logs")]
    Thread(#[source] io::Error),
    /// Logs go somewhere already.
    #[error("logging was started twice")]
    Twice(#[from] TryInitError),
}

/// The files that logs are written to. Once it is dropped, all that was logged before is in them.
#[derive(Debug, Default)]
pub struct LogFiles(Vec<Writing>);

/// Sends logs to standard error, and to the files that are configured.
pub fn start_logs(config: &Config) -> Result<LogFiles, LogError> {
    let (logs, files) = logs(config)?;
    logs.try_init()?;
    Ok(files)
}

/// The same for a subscriber that is yet to be put to use.
pub fn logs(config: &Config) -> Result<(impl Subscriber + Send + Sync + use<>, LogFiles), LogError> {
    let mut files = LogFiles::default();
    let level = EnvFilter::builder().parse(&config.level)?;
    let mut routes = Routes::new(level, lines(config, io::stderr, io::stderr().is_terminal()));
    if !config.directory.as_os_str().is_empty() {
        let mut file = |name| {
            let writer = LineWriter::start(name, daily(config, name)?, super::log_line_lost);
            let (writer, writing) = writer.map_err(LogError::Thread)?;
            files.0.push(writing);
            Ok::<_, LogError>(lines(config, writer, false))
        };
        routes.all.push(file("combined")?);
        routes.errors = Some(file("error")?);
    }
    if !config.audit.as_os_str().is_empty() {
        let file = open_audit(&config.audit);
        let file = file.map_err(|source| LogError::Audit { file: config.audit.clone(), source })?;
        let (writer, writing) =
            LineWriter::start("audit", file, super::audit_line_dropped).map_err(LogError::Thread)?;
        files.0.push(writing);
        routes.audit = Some(audit_lines(writer));
    }
    Ok((tracing_subscriber::registry().with(routes), files))
}

fn daily(config: &Config, name: &'static str) -> Result<Daily, LogError> {
    let file = Daily::open(&config.directory, name, config.keep_days);
    file.map_err(|source| LogError::Directory { directory: config.directory.clone(), source })
}

fn open_audit(path: &Path) -> io::Result<File> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent)?;
    }
    OpenOptions::new().append(true).create(true).open(path)
}

fn audit_lines(writer: LineWriter) -> Line {
    tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_level(false)
        .with_target(false)
        .without_time()
        .with_writer(writer)
        .boxed()
}

fn lines<W>(config: &Config, writer: W, ansi: bool) -> Line
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(ansi);
    match config.format {
        LogFormat::Human => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tracing::{
        Level, Metadata,
        callsite::Callsite,
        subscriber::{Interest, with_default},
    };
    use tracing_subscriber::filter::LevelFilter;

    use super::{super::audit, *};

    fn config(directory: &Path, format: LogFormat) -> Config {
        Config { level: "info".into(), format, directory: directory.into(), keep_days: 2, audit: PathBuf::new() }
    }

    fn files(directory: &Path) -> BTreeMap<String, String> {
        let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
        entries
            .map(|entry| {
                (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap_or_default())
            })
            .collect()
    }

    #[test]
    fn all_that_is_logged_is_in_the_one_file_and_errors_alone_in_the_other() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("var/log");
        let (logs, writing) = logs(&config(&directory, LogFormat::Human)).unwrap();
        with_default(logs, || {
            tracing::debug!("too fine");
            tracing::info!(user.id = "42", "connected");
            tracing::error!("broken");
            tracing::info!(target: "hyper", "headers: secret");
            tracing::error!(target: "hyper", "grave");
        });
        drop(writing);
        let files = files(&directory);
        let names: Vec<_> = files.keys().map(|name| name.split_once('.').unwrap()).collect();
        let (date, suffix) = names[0].1.split_once('.').unwrap();
        assert!(date.parse::<jiff::civil::Date>().is_ok() && suffix == "log", "{names:?}");
        assert_eq!((names[0].0, names[1].0, names[1].1), ("combined", "error", names[0].1));
        let [combined, error] = files.values().collect::<Vec<_>>()[..] else { panic!("{files:?}") };
        assert!(combined.contains("connected user.id=\"42\"") && combined.contains("broken"), "{combined}");
        assert_eq!((combined.lines().count(), error.lines().count()), (3, 2), "{files:?}");
        assert!(error.contains("broken") && error.contains("grave") && !combined.contains("secret"), "{files:?}");
        assert!(!combined.contains('\u{1b}'), "files have no colours");
    }

    /// What a library asks for without a line.
    struct Question;

    static OF_SQLX: Metadata<'static> = tracing::metadata! {
        name: "question",
        target: "sqlx::postgres::notice",
        level: Level::INFO,
        fields: &[],
        callsite: &Question,
        kind: tracing::metadata::Kind::EVENT
    };

    impl Callsite for Question {
        fn set_interest(&self, _: Interest) {}

        fn metadata(&self) -> &Metadata<'_> {
            &OF_SQLX
        }
    }

    #[test]
    fn a_library_that_asks_what_is_logged_keeps_no_line_of_ours_from_any_file() {
        let parent = tempfile::tempdir().unwrap();
        let (logs, writing) = logs(&config(parent.path(), LogFormat::Human)).unwrap();
        let asked = with_default(logs, || {
            // One callsite: its first line is looked at in any case.
            let log = || tracing::error!("the store begins a new epoch");
            log();
            // As `log::log_enabled!` does, whatever is known of the callsite.
            let told = tracing::dispatcher::get_default(|dispatch| dispatch.enabled(&OF_SQLX));
            log();
            let of_macro = tracing::enabled!(target: "sqlx::postgres::notice", Level::INFO);
            log();
            let warns = tracing::enabled!(target: "sqlx::postgres::notice", Level::WARN);
            log();
            [told, of_macro, warns]
        });
        drop(writing);
        assert_eq!(asked, [false, false, true]);
        for (name, text) in files(parent.path()) {
            assert_eq!(text.lines().count(), 4, "{name}: {text}");
        }
    }

    #[test]
    fn files_are_appended_to_and_have_the_form_of_the_configuration() {
        let directory = tempfile::tempdir().unwrap();
        for number in 0..2 {
            let (logs, writing) = logs(&config(directory.path(), LogFormat::Json)).unwrap();
            with_default(logs, || tracing::info!(number, "started"));
            drop(writing);
        }
        let files = files(directory.path());
        let lines: Vec<serde_json::Value> =
            files.values().next().unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.iter().map(|line| line["number"].as_u64()).collect::<Vec<_>>(), [Some(0), Some(1)]);
    }

    #[test]
    fn old_files_of_both_kinds_are_deleted_at_the_start() {
        let directory = tempfile::tempdir().unwrap();
        let old = ["combined.2020-01-01.log", "error.2020-01-01.log"];
        for name in old {
            fs::write(directory.path().join(name), "").unwrap();
        }
        drop(logs(&config(directory.path(), LogFormat::Human)).unwrap());
        let names: Vec<_> = files(directory.path()).into_keys().collect();
        assert!(names.len() == 2 && !old.iter().any(|old| names.iter().any(|name| name == old)), "{names:?}");
    }

    #[test]
    fn lines_below_the_level_are_known_to_be_off_before_anything_looks_at_them() {
        let directory = tempfile::tempdir().unwrap();
        for (level, least) in
            [("off", LevelFilter::INFO), ("info", LevelFilter::INFO), ("warn,bugle::hub=debug", LevelFilter::DEBUG)]
        {
            let config = Config {
                level: level.into(),
                audit: directory.path().join("audit"),
                ..config(directory.path(), LogFormat::Human)
            };
            assert_eq!(logs(&config).unwrap().0.max_level_hint(), Some(least), "{level}");
        }
    }

    #[test]
    fn a_directive_for_a_module_lets_through_its_lines_and_no_others() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config { level: "warn,bugle::store=debug".into(), ..config(directory.path(), LogFormat::Human) };
        let (logs, writing) = logs(&config).unwrap();
        with_default(logs, || {
            tracing::debug!(target: "bugle::store", "line 1");
            tracing::debug!(target: "bugle::store::writer", "line 2");
            tracing::warn!(target: "bugle::hub", "line 3");
            tracing::warn!(target: "sqlx::query", "line 4");
            tracing::trace!(target: "bugle::store", "too fine");
            tracing::info!(target: "bugle::hub", "of another module");
            tracing::info!(target: "sqlx::query", "of a library");
        });
        drop(writing);
        let files = files(directory.path());
        let combined = files.iter().find(|(name, _)| name.starts_with("combined")).unwrap().1;
        let ends: Vec<_> = combined.lines().filter_map(|line| line.get(line.len() - 6..)).collect();
        assert_eq!(ends, ["line 1", "line 2", "line 3", "line 4"], "{combined}");
    }

    #[test]
    fn the_audit_log_has_its_lines_alone_whatever_the_level_and_no_other_log_has_them() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a/audit.jsonl");
        let audit = Config {
            level: "off".into(),
            audit: file.clone(),
            ..config(&directory.path().join("logs"), LogFormat::Human)
        };
        let refused = audit::RefusedCall {
            api_key: Some("orders"),
            code: "INVALID_ARGUMENT",
            reason: "bad",
            ..Default::default()
        };
        for _ in 0..2 {
            let (logs, writing) = logs(&audit).unwrap();
            with_default(logs, || {
                tracing::error!("broken");
                audit::refused(&refused);
            });
            drop(writing);
        }
        let text = fs::read_to_string(&file).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let time = lines[0]["time"].as_str().unwrap();
        assert!(time.len() == "2026-01-31T09:30:00.000Z".len() && time.parse::<jiff::Timestamp>().is_ok(), "{time}");
        let expected = serde_json::json!({
            "time": time, "kind": "refusal", "api_key": "orders", "code": "INVALID_ARGUMENT", "reason": "bad",
        });
        assert_eq!((lines.len(), &lines[0]), (2, &expected), "appended to, without what is not known");
        assert!(files(&directory.path().join("logs")).values().all(String::is_empty));
    }

    #[test]
    fn an_audit_log_that_cannot_be_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let audit = Config { audit: directory.path().into(), ..config(Path::new(""), LogFormat::Human) };
        let error = logs(&audit).err().unwrap().to_string();
        assert_eq!(error, format!("cannot write the audit log to {} (log.audit)", directory.path().display()));
    }

    #[test]
    fn a_directory_that_cannot_be_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = logs(&config(file.path(), LogFormat::Human)).err().unwrap();
        let expected = format!("cannot write logs into {} (log.directory)", file.path().display());
        assert_eq!(error.to_string(), expected);
    }
}
