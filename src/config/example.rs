use std::{path::PathBuf, time::Duration};

use serde_json::Value;

use super::{Config, ConfigError};
use crate::auth::{ApiKeyConfig, KeyConfig};
use crate::command::{AllowedRooms, ClientEventConfig, EnvelopeConfig, RelayConfig, ReplyConfig};
use crate::delivery::{RoomConfig, RoomHistory};
use crate::message::{EventPattern, RoomPattern};
use crate::websocket::EndpointConfig;

/// A valid configuration with one entry in every list, every optional key set: so it shows the type of every key, and has something
/// to stand in for a value that is of the wrong one.
pub(super) fn example() -> Result<Value, ConfigError> {
    let mut config = Config::defaults()?;
    let text = || vec![String::from("example")];
    config.clients.cors_origins = vec![String::from("https://example.com")];
    config.clients.trusted_proxies = vec![std::net::IpAddr::from([127, 0, 0, 1]).into()];
    config.grpc.api_keys = vec![ApiKeyConfig {
        name: String::from("example"),
        key: Some("example".into()),
        key_sha256: Some(String::new()),
        scopes: text(),
    }];
    config.envelopes = vec![EnvelopeConfig { events: EventPattern::new("example").into_iter().collect() }];
    config.auth.rooms = text();
    config.auth.jwt.issuer = text();
    config.auth.jwt.audience = text();
    config.auth.jwt.keys = vec![KeyConfig {
        kid: Some(String::new()),
        algorithm: String::from("HS256"),
        secret: Some("example".into()),
        public_key_file: Some(PathBuf::new()),
    }];
    config.cluster.redis = vec!["redis://example".into()];
    config.rooms = RoomPattern::new("example")
        .map(|matches| RoomConfig { matches, history: RoomHistory { size: 1, age: Duration::from_mins(1) } })
        .into_iter()
        .collect();
    config.websocket = vec![EndpointConfig {
        path: String::from("/example"),
        events: EventPattern::new("example").into_iter().collect(),
        auth_timeout: Duration::from_secs(5),
    }];
    let payload = || Some(Value::from("example"));
    config.client_events = vec![ClientEventConfig {
        event: String::from("example"),
        roles: text(),
        rooms: Some(AllowedRooms::Any),
        join: Some(String::from("example")),
        leave: Some(String::from("example")),
        relay: Some(RelayConfig {
            user: Some(String::from("example")),
            room: Some(String::from("example")),
            event: Some(String::from("example")),
            payload: payload(),
        }),
        reply: Some(ReplyConfig { event: String::from("example"), payload: payload() }),
    }];
    serde_json::to_value(config).map_err(|error| ::config::ConfigError::Foreign(error.into()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_list_of_the_example_is_empty() {
        fn look(value: &Value, path: &str) {
            match value {
                Value::Array(entries) => {
                    assert!(!entries.is_empty(), "{path}");
                    for entry in entries {
                        look(entry, path);
                    }
                }
                Value::Object(keys) => {
                    for (key, value) in keys {
                        look(value, &format!("{path}.{key}"));
                    }
                }
                Value::Null => panic!("{path} is not set"),
                Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        look(&example().unwrap(), "");
    }
}
