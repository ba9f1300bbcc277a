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

    /// The file of a SQLite database, unless that is in memory.
    pub(super) fn sqlite_path(&self) -> Option<PathBuf> {
        let rest = self.url().strip_prefix("sqlite:").filter(|rest| !rest.contains(":memory:"))?;
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        Some(rest.split('?').next().unwrap_or_default().into())
    }

    /// `url` without its password.
    pub(super) fn masked_url(&self) -> String {
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
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    // A password may stand among the parameters, too.
    let host = host.split_once('?').map_or(host, |(host, _)| host);
    format!("{scheme}://***@{host}")
}
