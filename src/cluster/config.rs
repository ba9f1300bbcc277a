use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer, ser::SerializeSeq};

use super::address::Address;

/// `[cluster]`: the engine that connects several nodes.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The shards: `redis://…`, `rediss://…` or `redis+sentinel://…`, which may hold a password. Empty: this node is alone.
    #[serde(serialize_with = "without_passwords")]
    pub redis: Vec<SecretString>,
    /// What the names of all channels and keys begin with.
    pub prefix: String,
    /// This node's name. Empty: the host's.
    pub node: String,
    /// How long a command, or the answers of the other nodes, may take.
    #[serde(with = "humantime_serde")]
    pub deadline: Duration,
    /// How often a node renews its lease.
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
    /// How long a node that does not renew its lease counts as live.
    #[serde(with = "humantime_serde")]
    pub lease: Duration,
    /// How long a room stays subscribed after its last connection has left.
    #[serde(with = "humantime_serde")]
    pub linger: Duration,
    /// Bytes of frames that were received from one shard and are not executed yet.
    pub waiting: usize,
}

/// The longest prefix and node name, in bytes.
const MAX_NAME: usize = 64;

impl Config {
    /// Whether this node is one of several.
    pub fn is_enabled(&self) -> bool {
        !self.redis.is_empty()
    }

    /// How long a join may wait for an engine that is away, as long as peers may still count this node as ready; zero for a node that is alone.
    pub fn longest_join(&self) -> Duration {
        if self.is_enabled() { self.fenced_after() + self.deadline } else { Duration::ZERO }
    }

    /// When peers no longer wait for a node that has not asked for its lease since. The engine may have stood still for half a lease, and then
    /// renewed this node's.
    pub(super) fn fenced_after(&self) -> Duration {
        self.lease + self.lease / 2 + 2 * self.heartbeat
    }

    /// The name of this node.
    pub fn node_name(&self) -> String {
        if !self.node.is_empty() {
            return self.node.clone();
        }
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    }

    /// What is wrong with the shards' addresses, each with its index.
    pub fn address_problems(&self) -> Vec<(usize, String)> {
        let problem = |(index, url): (usize, &SecretString)| Some((index, Address::parse(url.expose_secret()).err()?));
        self.redis.iter().enumerate().filter_map(problem).collect()
    }

    /// What is wrong with a name that channels, keys or peers have.
    pub fn name_problem(name: &str) -> Option<String> {
        let is_good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.len() > MAX_NAME || !name.chars().all(is_good) {
            return Some(format!("must have at most {MAX_NAME} letters, digits, `.`, `_` or `-`"));
        }
        None
    }

    /// Whether an address holds a password.
    pub fn holds_secret(url: &str) -> bool {
        url.contains('@')
    }
}

fn without_passwords<S: Serializer>(urls: &[SecretString], serializer: S) -> Result<S::Ok, S::Error> {
    let mut list = serializer.serialize_seq(Some(urls.len()))?;
    for url in urls {
        list.serialize_element(&Address::masked(url.expose_secret()))?;
    }
    list.end()
}
