use secrecy::SecretString;
use uuid::Uuid;

use super::Config;
use crate::auth::{ApiKeyConfig, KeyConfig};

/// What `serve --dev` made at start, and allows.
#[derive(Clone, Debug)]
pub struct DevMode {
    /// Pages of any loopback origin may connect.
    pub any_loopback_origin: bool,
    /// The API key that was made; none: the configuration has some.
    pub api_key: Option<SecretString>,
    /// A token for a first device; none: the configuration's keys cannot sign.
    pub token: Option<SecretString>,
}

impl Config {
    /// Completes the configuration for `serve --dev`: makes what no key in it is there for. The token is still to be minted.
    pub fn complete_for_dev(&mut self) -> DevMode {
        if self.auth.jwt.keys.is_empty() {
            self.auth.jwt.keys.push(KeyConfig {
                kid: None,
                algorithm: String::from("HS256"),
                secret: Some(random_secret()),
                public_key_file: None,
            });
        }
        self.console.enabled = true;
        if !self.cluster.is_enabled() {
            self.store.url = SecretString::from("sqlite::memory:");
        }
        let api_key = self.grpc.api_keys.is_empty().then(random_secret);
        if let Some(key) = &api_key {
            self.grpc.api_keys.push(ApiKeyConfig {
                name: String::from("dev"),
                key: Some(key.clone()),
                key_sha256: None,
                scopes: ["emit", "presence", "rooms", "disconnect", "mailbox", "messages"].map(String::from).to_vec(),
            });
        }
        DevMode { any_loopback_origin: true, api_key, token: None }
    }
}

/// 244 random bits as 64 hexadecimal digits.
fn random_secret() -> SecretString {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple()).into()
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn keys_that_are_missing_are_made_anew_each_time() {
        let made = || {
            let mut config = Config::defaults().unwrap();
            let dev = config.complete_for_dev();
            assert!(dev.any_loopback_origin && config.console.enabled);
            let secret = config.auth.jwt.keys[0].secret.clone().unwrap();
            let api_key = dev.api_key.unwrap();
            assert_eq!(config.grpc.api_keys[0].key.as_ref().unwrap().expose_secret(), api_key.expose_secret());
            assert_eq!(config.grpc.api_keys[0].name, "dev");
            assert_eq!(
                config.grpc.api_keys[0].scopes,
                ["emit", "presence", "rooms", "disconnect", "mailbox", "messages"]
            );
            [secret.expose_secret().to_owned(), api_key.expose_secret().to_owned()]
        };
        let [first, second] = [made(), made()];
        assert!(first.iter().chain(&second).all(|secret| secret.len() == 64));
        let different: std::collections::HashSet<_> = first.iter().chain(&second).collect();
        assert_eq!(different.len(), 4);
    }

    #[test]
    fn the_store_is_in_memory_unless_there_are_several_nodes() {
        let url = |redis: &[&str]| {
            let mut config = Config::defaults().unwrap();
            config.store.url = "".into();
            config.cluster.redis = redis.iter().map(|url| (*url).into()).collect();
            config.complete_for_dev();
            config.store.url.expose_secret().to_owned()
        };
        assert_eq!((url(&[]).as_str(), url(&["redis://a"]).as_str()), ("sqlite::memory:", ""));
    }

    #[test]
    fn keys_of_the_configuration_stay() {
        let mut config = Config::defaults().unwrap();
        config.complete_for_dev();
        let before = config.to_toml().unwrap();
        assert!(config.complete_for_dev().api_key.is_none());
        assert_eq!(config.to_toml().unwrap(), before);
    }
}
