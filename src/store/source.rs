use std::{
    fmt, fs, io,
    os::unix::fs::MetadataExt,
    path::{self, Path, PathBuf, absolute},
};

use sqlx::{
    AnyConnection, ConnectOptions, Executor,
    any::{AnyConnectOptions, install_default_drivers},
};
use tracing::field::{DisplayValue, display};

use super::{Config, Error, Sharing, file_lock::FileLock, paths::FileId};

/// Where the store is: what `store.url` names.
pub(super) struct Source {
    pub(super) kind: Kind,
    pub(super) sharing: Sharing,
    options: AnyConnectOptions,
    /// The same for a file that must be there.
    existing: AnyConnectOptions,
    /// A file that is not there is made.
    is_made: bool,
    /// The absolute path of a SQLite file. It may have symbolic links.
    path: Option<PathBuf>,
    masked: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    SqliteInMemory,
    Sqlite,
    Postgres,
}

/// A file's size, and when it was changed the last time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Content(Option<(u64, i64, i64)>);

impl Content {
    pub(super) fn is_empty(self) -> bool {
        self.0.is_none_or(|(length, ..)| length == 0)
    }
}

impl Source {
    pub(super) fn new(config: &Config, sharing: Sharing) -> Result<Self, Error> {
        install_default_drivers();
        let url = config.url();
        let kind = match url.split(':').next() {
            Some("sqlite") if url.contains(":memory:") => Kind::SqliteInMemory,
            Some("sqlite") => Kind::Sqlite,
            Some("postgres" | "postgresql") => Kind::Postgres,
            Some(_) | None => return Err(Error::Url),
        };
        if sharing == Sharing::Cluster && kind != Kind::Postgres {
            return Err(Error::NotShared);
        }
        let created =
            if kind == Kind::Sqlite && !url.contains('?') { format!("{url}?mode=rwc") } else { url.to_owned() };
        let is_made = created.contains("mode=rwc");
        let existing = created.replace("mode=rwc", "mode=rw");
        let options = |url: &str| {
            Ok::<_, Error>(url.parse::<AnyConnectOptions>().map_err(|_| Error::Url)?.disable_statement_logging())
        };
        Ok(Self {
            kind,
            sharing,
            options: options(&created)?,
            existing: options(&existing)?,
            is_made,
            path: config.sqlite_path().map(|path| absolute(&path).unwrap_or(path)),
            masked: config.masked_url(),
        })
    }

    /// Connects. `is_known`: the file was there before, and is not made anew.
    pub(super) async fn connect(&self, is_known: bool) -> sqlx::Result<AnyConnection> {
        let options = if is_known { &self.existing } else { &self.options };
        let mut connection = options.connect().await?;
        match self.kind {
            Kind::SqliteInMemory | Kind::Sqlite => {
                connection.execute("PRAGMA journal_mode = WAL").await?;
                connection.execute("PRAGMA synchronous = FULL").await?;
                connection.execute("PRAGMA busy_timeout = 3000").await?;
            }
            // It gives up before we do, and then nothing of it happens later.
            Kind::Postgres => {
                let idle = match self.sharing {
                    Sharing::Single => "8s",
                    // Other nodes wait for what a node that stands still has locked, and each writes nothing else meanwhile.
                    Sharing::Cluster => "1500ms",
                };
                // Notices are of no use: they tell of tables that are there already.
                let sql = format!(
                    "SET statement_timeout = '7s'; SET client_min_messages = 'warning'; \
                     SET idle_in_transaction_session_timeout = '{idle}'"
                );
                connection.execute(sqlx::AssertSqlSafe(sql)).await?;
            }
        }
        Ok(connection)
    }

    pub(super) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Which file stands at the path. `None`: none, or the store is not in a file.
    pub(super) fn file(&self) -> Option<FileId> {
        Some(FileId::of(&fs::metadata(self.path()?).ok()?))
    }

    /// Tells whether the file is still being written.
    pub(super) fn content(&self) -> Content {
        let metadata = self.path().and_then(|path| fs::metadata(path).ok());
        Content(metadata.map(|metadata| (metadata.len(), metadata.mtime(), metadata.mtime_nsec())))
    }

    /// Locks a SQLite file, which is created if `is_made` and `store.url` says so. See [`FileLock::take`].
    pub(super) fn lock(&self, held: &mut Option<FileLock>, is_made: bool) -> io::Result<bool> {
        self.path().map_or(Ok(true), |path| FileLock::take(held, path, is_made && self.is_made))
    }

    /// The path for a line of the log, beside `store.url`.
    pub(super) fn logged_path(&self) -> Option<DisplayValue<path::Display<'_>>> {
        self.path().map(|path| display(path.display()))
    }
}

impl fmt::Display for Source {
    /// `store.url` without its password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked)
    }
}
