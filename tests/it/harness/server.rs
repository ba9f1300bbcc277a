use std::{net::SocketAddr, time::Duration};

use bugle::app::{Addresses, App, Error};
use bugle::auth::{ApiKeyConfig, KeyConfig, mint};
use bugle::clock::Clock;
use bugle::config::Config;
use bugle::lifecycle::Lifecycle;
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{Backend, Device, DeviceBuilder, deadline};

/// The API key that may do everything.
pub const API_KEY: &str = "an-api-key-of-thirty-two-bytes-or-more";
/// What tokens are signed with.
pub const SECRET: &str = "a-secret-of-thirty-two-bytes-or-more";

/// A server of its own, on free ports, that stops with its value.
pub struct TestServer {
    addresses: Addresses,
    lifecycle: Lifecycle,
    /// Moves the time of day that tokens are compared with; timers do not follow.
    pub clock: Clock,
    running: Option<JoinHandle<Result<(), Error>>>,
}

impl TestServer {
    /// With the defaults, one key for tokens and one API key.
    pub async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    /// With these changes to that.
    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config();
        change(&mut config);
        assert_eq!(config.faults(false), [], "the configuration is good");
        Self::serve(config).await.expect("the server starts")
    }

    async fn serve(config: Config) -> Result<Self, Error> {
        let clock = Clock::movable();
        let app = App::new(config, clock.clone(), false)?;
        let lifecycle = app.lifecycle().clone();
        let listening = app.listen().await?;
        let addresses = listening.addresses();
        #[expect(clippy::disallowed_methods, reason = "what stops the server is not stopped by it")]
        let running = Some(tokio::spawn(listening.run()));
        Ok(Self { addresses, lifecycle, clock, running })
    }

    /// Where devices connect.
    pub fn clients(&self) -> SocketAddr {
        self.addresses.clients
    }

    /// Where backends call.
    pub fn grpc(&self) -> SocketAddr {
        self.addresses.grpc
    }

    /// Where operators ask.
    pub fn admin(&self) -> SocketAddr {
        self.addresses.admin
    }

    /// A backend that may do everything.
    pub async fn backend(&self) -> Backend {
        Backend::connect(self.grpc(), API_KEY).await
    }

    /// A device of this user, over WebSocket, yet to be connected.
    pub fn device(&self, user: &str) -> DeviceBuilder {
        Device::builder(self.clients()).token(token(user))
    }

    /// A connected device of this user.
    pub async fn connect(&self, user: &str) -> Device {
        self.device(user).connect().await.expect("the device connects")
    }

    /// Asks for a soft stop.
    pub fn stop(&self) {
        self.lifecycle.stop();
    }

    /// Waits until the server has stopped.
    pub async fn stopped(&mut self) -> Result<(), Error> {
        let running = self.running.take().expect("it is waited for once");
        deadline("the server to stop", running).await.expect("the server does not panic")
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.lifecycle.stop_hard();
    }
}

/// The defaults, on free ports, with one key for tokens and one API key.
fn config() -> Config {
    let free: SocketAddr = ([127, 0, 0, 1], 0).into();
    let mut config = Config::defaults().expect("the defaults are good");
    (config.clients.listen, config.grpc.listen, config.admin.listen) = (free, free, free);
    config.auth.jwt.keys.push(token_key());
    config.grpc.api_keys.push(api_key("test", API_KEY, &["emit", "presence", "rooms", "disconnect", "mailbox"]));
    config.drain.deadline = Duration::from_secs(4);
    config.store.url = SecretString::from("sqlite::memory:");
    config
}

/// An entry of `grpc.api_keys`.
pub fn api_key(name: &str, key: &str, scopes: &[&str]) -> ApiKeyConfig {
    ApiKeyConfig {
        name: name.to_owned(),
        key: Some(SecretString::from(key)),
        key_sha256: None,
        scopes: scopes.iter().map(ToString::to_string).collect(),
    }
}

fn token_key() -> KeyConfig {
    KeyConfig {
        kid: None,
        algorithm: "HS256".to_owned(),
        secret: Some(SecretString::from(SECRET)),
        public_key_file: None,
    }
}

/// A token for this user that is good for an hour.
pub fn token(user: &str) -> String {
    token_with(&json!({ "sub": user }))
}

/// A token with these claims, and an `exp` in an hour unless they have one.
pub fn token_with(claims: &Value) -> String {
    let mut all = json!({ "exp": Clock::system().now().as_second() + 3600 });
    let all = all.as_object_mut().expect("claims are an object");
    all.extend(claims.as_object().expect("claims are an object").clone());
    mint(&token_key(), all).expect("the token is minted")
}
