//! The configuration: every module's `Config`, read from `defaults.toml`, a file and the environment. The one place that
//! reads the environment.

mod environment;
mod example;
mod place;
mod reading;
mod sources;

mod check;
mod origin;
mod paths;
mod readable;

mod dev;
pub use dev::DevMode;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::auth;
use crate::cluster;
use crate::command;
use crate::delivery;
use crate::grpc;
use crate::http;
use crate::lifecycle;
use crate::limits;
use crate::message::Fault;
use crate::messages;
use crate::socketio;
use crate::store;
use crate::telemetry;
use crate::websocket;

/// The whole configuration, a section for each module.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where devices connect.
    pub clients: transport::Config,
    /// Where backends call.
    pub grpc: grpc::Config,
    /// Where operators ask.
    pub admin: http::Config,
    /// The page for trying things out.
    pub console: http::console::Config,
    /// Who devices are.
    pub auth: auth::Config,
    /// How Socket.IO is spoken.
    pub socketio: socketio::Config,
    /// Where plain WebSocket is spoken.
    pub websocket: Vec<websocket::EndpointConfig>,
    /// What devices may do by sending events.
    pub client_events: Vec<command::ClientEventConfig>,
    /// How many of what.
    pub limits: limits::Config,
    /// The engine that connects several nodes.
    pub cluster: cluster::Config,
    /// What outlives the process.
    pub store: store::Config,
    /// What is kept of rooms for devices that come back.
    pub rooms: Vec<delivery::RoomConfig>,
    /// How much of that is kept.
    pub history: delivery::HistoryConfig,
    /// What is kept for those who join later.
    pub retain: delivery::RetainConfig,
    /// How emits that follow each other quickly are thinned out.
    pub collapse: delivery::CollapseConfig,
    /// What users write to each other.
    pub messages: messages::Config,
    /// What devices may ask for over HTTP.
    pub rest: http::RestConfig,
    /// Which events are wrapped.
    pub envelopes: Vec<command::EnvelopeConfig>,
    /// How devices are sent away when the server stops.
    pub drain: lifecycle::Config,
    /// What is logged, and how.
    pub log: telemetry::Config,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML. The line itself is not shown: it may hold a secret.
    #[error("{} is not TOML: {problem}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong, and in which line and column.
        problem: String,
    },
    /// Keys or their values are wrong.
    #[error("the configuration is not usable:{}", list(.0))]
    Faults(Vec<Fault>),
    /// `defaults.toml` is broken, or the sources cannot be put together: a mistake in Bugle.
    #[error("the configuration cannot be put together")]
    Sources(#[from] ::config::ConfigError),
    /// A configuration that cannot be shown: a mistake in Bugle.
    #[error("the configuration cannot be written as TOML")]
    Unwritable(#[from] toml::ser::Error),
}

fn list(faults: &[Fault]) -> String {
    faults.iter().map(|fault| format!("\n  {fault}")).collect::<Vec<_>>().concat()
}

/// A configuration, and whatever is wrong with it. Where a value was of the wrong type, the default stands in its place, so that
/// the rest can be looked at.
pub struct Reading {
    /// What was read. Only good for use when there are no faults.
    pub config: Config,
    /// What is wrong with it, so far.
    pub faults: Vec<Fault>,
    /// The file, if it has a secret in it.
    secret_file: Option<PathBuf>,
}

impl Reading {
    /// What is not wrong and still to be told: files with secrets that other users can read, and a database that cannot be written.
    pub fn warnings(&self) -> Vec<Fault> {
        let of_store = self.config.store.path_warnings().into_iter().map(|warning| Fault::new("store.url", warning));
        readable::warnings(&self.config, self.secret_file.as_deref()).into_iter().chain(of_store).collect()
    }

    /// Adds what a closer look found, but for keys that already have a fault: what it saw there is not what was written.
    pub fn add(&mut self, more: Vec<Fault>) {
        let known = std::mem::take(&mut self.faults);
        let news = more.into_iter().filter(|fault| !known.iter().any(|known| overlap(&known.key, &fault.key)));
        self.faults = news.collect();
        self.faults.splice(0..0, known);
    }

    /// The configuration, if nothing is wrong with it.
    pub fn complete(self) -> Result<Config, ConfigError> {
        if self.faults.is_empty() { Ok(self.config) } else { Err(ConfigError::Faults(self.faults)) }
    }
}

/// Whether the two keys are the same, or one is inside the other.
fn overlap(one: &str, other: &str) -> bool {
    let inside = |outer: &str, inner: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with(['.', '[']));
    one == other || inside(one, other) || inside(other, one)
}

impl Config {
    /// The defaults alone.
    pub fn defaults() -> Result<Self, ConfigError> {
        Ok(sources::defaults()?.try_deserialize()?)
    }

    /// Reads the defaults, the file (or the one that `BUGLE_CONFIG` names) and the environment. Every key is known and every value
    /// is of its key's type; whether they make sense together is [`Config::faults`]' business.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        Self::read(file)?.complete()
    }

    /// The same, but with the faults beside what could be read.
    pub fn read(file: Option<&Path>) -> Result<Reading, ConfigError> {
        Self::read_from(file, std::env::vars_os())
    }

    /// The same, from an environment of one's own.
    pub fn read_from(
        file: Option<&Path>,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Reading, ConfigError> {
        reading::read(file, variables)
    }

    /// What is wrong with it, all of it, but for what only [`auth`] can tell about keys, scopes and rooms. `dev`: it is for
    /// `serve --dev`, which stays on this machine.
    pub fn faults(&self, dev: bool) -> Vec<Fault> {
        check::faults(self, dev)
    }

    /// The configuration as TOML, with secrets masked.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        Ok(toml::to_string(self)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_complete_and_without_fault() {
        let defaults = Config::defaults().unwrap();
        assert_eq!(defaults.faults(false), []);
        assert_eq!(defaults.faults(true), []);
    }

    #[test]
    fn a_closer_look_does_not_repeat_what_is_known() {
        let fault = |key: &str| Fault::new(key, "is wrong");
        let config = Config::defaults().unwrap();
        let faults = vec![fault("grpc.api_keys[1]"), fault("auth.jwt.leeway")];
        let mut reading = Reading { config, faults, secret_file: None };
        reading.add(vec![fault("grpc.api_keys[1].name"), fault("auth.jwt.leeway"), fault("grpc.api_keys[10]")]);
        let keys: Vec<_> = reading.faults.iter().map(|fault| fault.key.as_str()).collect();
        assert_eq!(keys, ["grpc.api_keys[1]", "auth.jwt.leeway", "grpc.api_keys[10]"]);
    }

    #[test]
    fn what_is_printed_masks_secrets_and_reads_back() {
        let file = r#"
            [[auth.jwt.keys]]
            algorithm = "HS256"
            secret = "s3cret-s3cret-s3cret-s3cret-s3cret"
            [[auth.jwt.keys]]
            algorithm = "ES256"
            public_key_file = "key.pem"
            [[grpc.api_keys]]
            name = "orders"
            key = "k3y-k3y-k3y-k3y-k3y-k3y-k3y-k3y-k3y"
            scopes = ["emit"]
            [[envelopes]]
            events = ["earnings:*"]
            [cluster]
            redis = ["redis://bugle:s3cret@a", "redis+sentinel://:s3cret@b,c/main"]
        "#;
        let config = reading::read_text(file, []).unwrap().complete().unwrap();
        let printed = config.to_toml().unwrap();
        assert!(!printed.contains("s3cret") && !printed.contains("k3y"), "{printed}");
        assert_eq!(printed.matches("secret = \"***\"").count(), 1, "{printed}");
        assert_eq!(printed.matches("\nkey = \"***\"").count(), 1, "{printed}");
        assert!(printed.contains("ping_interval = \"25s\""), "{printed}");
        assert!(printed.contains(r#"redis = ["redis://bugle:***@a", "redis+sentinel://:***@b,c/main"]"#), "{printed}");
        let again = reading::read_text(&printed, []).unwrap();
        assert_eq!(again.faults, []);
        assert!(!format!("{config:?}").contains("s3cret"));
    }
}
