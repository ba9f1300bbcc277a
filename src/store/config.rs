use std::{path::PathBuf, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};

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
    pub fn url_problem(&self) -> Option<&'static str> {
        let names_something = |rest: &str| !rest.is_empty();
        let is_known = ["sqlite:", "postgres://", "postgresql://"]
            .iter()
            .any(|scheme| self.url().strip_prefix(scheme).is_some_and(names_something));
        (self.is_enabled() && !is_known)
            .then_some("is neither sqlite:FILE, sqlite::memory: nor postgres://USER@HOST/NAME")
    }
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
