use std::{path::PathBuf, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};

use super::address::Address;

/// `[store]`: what outlives the process.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `sqlite:FILE`, `sqlite::memory:` or `postgres://…`, which may hold a password. Empty: nothing is kept, and what would have to be
    /// is refused.
    #[serde(serialize_with = "without_password")]
    pub url: SecretString,
    /// Messages are kept so long at most, whatever their `ttl`.
    #[serde(with = "humantime_serde")]
    pub max_age: Duration,
    /// Messages of one mailbox; past it the oldest go first.
    pub max_messages: u32,
}

impl Config {
    pub(super) fn url(&self) -> &str {
        self.url.expose_secret()
    }

    /// Whether anything is kept at all.
    pub fn is_enabled(&self) -> bool {
        !self.url().is_empty()
    }

    /// Whether several nodes can write to it at once.
    pub fn can_be_shared(&self) -> bool {
        matches!(self.address(), Some(Ok(Address::Postgres { .. })))
    }

    /// The file of a SQLite database, unless that is in memory.
    pub(super) fn sqlite_path(&self) -> Option<PathBuf> {
        match self.address()?.ok()? {
            Address::File { path, .. } => Some(path),
            Address::Memory | Address::Postgres { .. } => None,
        }
    }

    /// `url` without its password.
    pub fn masked_url(&self) -> String {
        masked(self.url())
    }

    /// What is wrong with the address.
    pub fn url_problem(&self) -> Option<String> {
        self.address().and_then(Result::err)
    }

    /// What is wrong with the files that the address names: the database of SQLite, certificates for PostgreSQL. A database that exists and
    /// cannot be written is no problem here: the store becomes ready when it can.
    pub fn path_problem(&self) -> Option<String> {
        self.address()?.ok()?.path_problem()
    }

    /// What is no fault of these files, but keeps the store from being ready, or is dangerous.
    pub fn path_warnings(&self) -> Vec<String> {
        self.address().and_then(Result::ok).map(|address| address.path_warnings()).unwrap_or_default()
    }

    /// The files of the store, whether they exist or not, that none but Bugle should read.
    pub fn private_files(&self) -> Vec<PathBuf> {
        self.address().and_then(Result::ok).map(|address| address.private_files()).unwrap_or_default()
    }

    fn address(&self) -> Option<Result<Address, String>> {
        self.is_enabled().then(|| Address::parse(self.url()))
    }
}

/// Whether a `store.url` has a password or a key in it.
pub fn is_secret_url(url: &str) -> bool {
    Address::parse(url).is_ok_and(|address| address.is_secret())
}

fn without_password<S: Serializer>(url: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    masked(url.expose_secret()).serialize(serializer)
}

fn masked(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    // A password may stand among the parameters, too, and an `@` in either.
    let (authority, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let host = match authority.rsplit_once('@') {
        Some((_, host)) => host,
        None if parameters.contains('@') => "***",
        None => authority,
    };
    format!("{scheme}://***@{host}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_passwords() {
        for (url, shown) in [
            ("sqlite:bugle.db", "sqlite:bugle.db"),
            ("postgres://bugle:hidden@db:5432/bugle", "postgres://***@db:5432/bugle"),
            ("postgres://bugle:hid@den@db/bugle?sslmode=require", "postgres://***@db/bugle"),
            ("postgres://db/bugle?user=bugle&password=hidden", "postgres://***@db/bugle"),
            ("postgres://bugle@db/bugle?password=a@hidden", "postgres://***@db/bugle"),
            ("postgres://bugle:hid?den@db/bugle", "postgres://***@***"),
        ] {
            assert_eq!(masked(url), shown);
        }
    }

    #[test]
    fn the_file_is_the_one_that_the_driver_opens() {
        let path = |url: &str| {
            let config = Config { url: url.into(), max_age: Duration::ZERO, max_messages: 1 };
            config.sqlite_path().map(|path| path.display().to_string())
        };
        assert_eq!(path("sqlite:a%3fb.db?mode=rwc").as_deref(), Some("a?b.db"));
        assert_eq!(path("sqlite:///var/lib/bugle.db").as_deref(), Some("/var/lib/bugle.db"));
        assert_eq!(path("sqlite::memory:"), None);
        assert_eq!(path("postgres://db/bugle"), None);
    }
}
