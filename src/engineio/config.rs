//! The configuration that socketioxide passes on.

use std::{borrow::Cow, time::Duration};

use engineioxide_core::TransportType;

/// How the engine treats its connections.
#[derive(Clone, Debug)]
pub struct EngineIoConfig {
    /// The path of requests.
    pub req_path: Cow<'static, str>,
    /// The time from a pong to the next ping.
    pub ping_interval: Duration,
    /// The time that a pong may take.
    pub ping_timeout: Duration,
    /// The time that an upgrade may take; then the attempt ends, and the session goes on by polling.
    pub upgrade_timeout: Duration,
    /// Packets that may wait for one device.
    pub max_buffer_size: usize,
    /// The largest body of a POST, and about the largest answer to a poll, in bytes.
    pub max_payload: u64,
    /// Not used: reading needs no buffer per connection.
    pub ws_read_buffer_size: usize,
    /// The largest WebSocket message that is accepted, in bytes.
    pub ws_max_message_size: usize,
    /// Not used: a frame is bounded by its message.
    pub ws_max_frame_size: usize,
    /// The enabled transports, as bits.
    pub transports: u8,
}

impl Default for EngineIoConfig {
    fn default() -> Self {
        Self {
            req_path: "/engine.io".into(),
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(20),
            upgrade_timeout: Duration::from_secs(10),
            max_buffer_size: 128,
            max_payload: 100_000,
            ws_read_buffer_size: 4_096,
            ws_max_message_size: 64 << 20,
            ws_max_frame_size: 16 << 20,
            transports: TransportType::Polling as u8 | TransportType::Websocket as u8,
        }
    }
}

impl EngineIoConfig {
    /// A builder that begins with the defaults.
    pub fn builder() -> EngineIoConfigBuilder {
        EngineIoConfigBuilder::new()
    }

    /// Whether a transport is enabled.
    pub fn allowed_transport(&self, transport: TransportType) -> bool {
        self.transports & transport as u8 != 0
    }
}

/// Builds an [`EngineIoConfig`].
#[derive(Clone, Debug, Default)]
pub struct EngineIoConfigBuilder {
    config: EngineIoConfig,
}

macro_rules! setters {
    ($($name:ident: $type:ty),* $(,)?) => {
        $(
            #[doc = concat!("Sets [`EngineIoConfig::", stringify!($name), "`].")]
            pub fn $name(mut self, $name: $type) -> Self {
                self.config.$name = $name;
                self
            }
        )*
    };
}

impl EngineIoConfigBuilder {
    /// Begins with the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`EngineIoConfig::req_path`].
    pub fn req_path(mut self, path: impl Into<Cow<'static, str>>) -> Self {
        self.config.req_path = path.into();
        self
    }

    setters! {
        ping_interval: Duration,
        ping_timeout: Duration,
        upgrade_timeout: Duration,
        max_buffer_size: usize,
        max_payload: u64,
        ws_read_buffer_size: usize,
        ws_max_message_size: usize,
        ws_max_frame_size: usize,
    }

    /// Sets the enabled transports.
    pub fn transports<const N: usize>(mut self, transports: [TransportType; N]) -> Self {
        self.config.transports = transports.iter().fold(0, |bits, transport| bits | *transport as u8);
        self
    }

    /// The configuration.
    pub fn build(self) -> EngineIoConfig {
        self.config
    }
}
