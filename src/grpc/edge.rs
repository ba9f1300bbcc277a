use std::{io, net::SocketAddr, time::Duration};

use futures_util::{Stream, TryStreamExt};
use serde::{Deserialize, Serialize};
use tonic::{codec::CompressionEncoding, server::NamedService, service::Routes, transport::Server};
use tonic_health::{ServingStatus, server::HealthReporter};
use transport::GrpcStream;

use super::{guard, incoming::Incoming, mailbox, messages, notify, presence, rooms, services::Services};
use crate::auth::{ApiKeyConfig, ApiKeys};
use crate::command::Commands;
use crate::lifecycle::Lifecycle;
use crate::proto::{
    DESCRIPTORS,
    v1::{
        mailbox_server::MailboxServer, messages_server::MessagesServer, notify_server::NotifyServer,
        presence_server::PresenceServer, rooms_server::RoomsServer,
    },
};

/// `[grpc]`: where backends call.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The address to listen at.
    pub listen: SocketAddr,
    /// Listening beyond loopback without TLS is meant.
    pub plaintext_public: bool,
    /// Who may call, and what they may do.
    pub api_keys: Vec<ApiKeyConfig>,
}

/// What the edge works with.
pub struct Deps {
    /// Who may call.
    pub api_keys: ApiKeys,
    /// `limits.grpc_calls`.
    pub max_calls: usize,
    /// Runs what backends ask for.
    pub commands: Commands,
    /// Says when to stop.
    pub lifecycle: Lifecycle,
}

/// Why the edge did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The descriptors of the API are broken.
    #[error("cannot offer reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The transport failed.
    #[error("the gRPC server failed")]
    Transport(#[from] tonic::transport::Error),
}

/// The largest request, in bytes.
const MAX_MESSAGE: usize = 4 << 20;
const MAX_HEADERS: u32 = 16 << 10;
/// Maximum number of open calls on a connection, and of calls that the caller cancelled before this process accepted them. If there are more of the
/// latter, h2 closes the connection with all its calls. Its default of 20 is too low for a process that was paused for a moment.
const MAX_STREAMS: u32 = 1_024;
/// What a caller may send on one call before it is read, in bytes: the HTTP/2 flow control window of a stream.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same of a connection: as large as the protocol allows, so that the calls' windows alone hold callers back. h2 ends a connection whose
/// unread DATA frames below 256 bytes cost more than half of this window, 256 bytes less their payload each. An `EmitStream` that is not
/// read for a while costs at most 16 times its window, with emits of 15 bytes, so hundreds of such streams stay below.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// What our services are called. Without direct messages there is no service for them.
fn names(has_messages: bool) -> Vec<&'static str> {
    let mut names = vec![
        NotifyServer::<notify::Service>::NAME,
        PresenceServer::<presence::Service>::NAME,
        RoomsServer::<rooms::Service>::NAME,
        MailboxServer::<mailbox::Service>::NAME,
    ];
    names.extend(has_messages.then_some(MessagesServer::<messages::Service>::NAME));
    names
}

/// Lists these services, health and the reflection of one version.
fn reflection(names: &[&'static str], version: &str) -> tonic_reflection::server::Builder<'static> {
    let builder = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name("grpc.health.v1.Health")
        .with_service_name(format!("grpc.reflection.{version}.ServerReflection"));
    names.iter().fold(builder, |builder, name| builder.with_service_name(*name))
}

/// The services, ready to be served.
pub struct Edge {
    services: Services,
    guard: guard::GuardLayer,
    /// What our services are called.
    names: Vec<&'static str>,
    health: HealthReporter,
    lifecycle: Lifecycle,
}

impl Edge {
    /// Puts the services together.
    pub async fn new(deps: Deps) -> Result<Self, Error> {
        let Deps { api_keys, max_calls, commands, lifecycle } = deps;
        let has_messages = commands.messages().is_ok();
        let names = names(has_messages);
        let (health, health_service) = tonic_health::server::health_reporter();
        for name in &names {
            health.set_service_status(name, ServingStatus::Serving).await;
        }
        macro_rules! served {
            ($server:ident, $service:expr) => {
                $server::new($service)
                    .max_decoding_message_size(MAX_MESSAGE)
                    .accept_compressed(CompressionEncoding::Gzip)
                    .accept_compressed(CompressionEncoding::Zstd)
                    .send_compressed(CompressionEncoding::Gzip)
                    .send_compressed(CompressionEncoding::Zstd)
            };
        }
        let notify = notify::Service::new(commands.clone(), lifecycle.clone());
        let mut others = Routes::new(served!(PresenceServer, presence::Service::new(commands.clone())))
            .add_service(served!(MailboxServer, mailbox::Service::new(commands.clone())))
            .add_service(served!(RoomsServer, rooms::Service::new(commands.clone())));
        if has_messages {
            others = others.add_service(served!(MessagesServer, messages::Service::new(commands)));
        }
        let others = others
            .add_service(health_service)
            .add_service(reflection(&names, "v1").build_v1()?)
            .add_service(reflection(&names, "v1alpha").build_v1alpha()?)
            .prepare();
        let services = Services { notify: served!(NotifyServer, notify), others };
        let guard = guard::GuardLayer::new(api_keys, max_calls);
        Ok(Self { services, guard, names, health, lifecycle })
    }

    /// Serves until a stop is asked for; then nothing new is taken, health says `NOT_SERVING`, and what runs is finished.
    pub async fn serve(self, incoming: impl Stream<Item = io::Result<GrpcStream>>) -> Result<(), Error> {
        let Self { services, guard, names, mut health, lifecycle } = self;
        let stopping = async move {
            lifecycle.stopping().await;
            for service in names.into_iter().chain([""]) {
                health.set_service_status(service, ServingStatus::NotServing).await;
                // Whoever watches has that as the last word: a watch without end would hold the stop up.
                health.clear_service_status(service).await;
            }
        };
        Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .http2_max_header_list_size(MAX_HEADERS)
            .max_concurrent_streams(MAX_STREAMS)
            .http2_max_pending_accept_reset_streams(Some(MAX_STREAMS as usize))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .layer(guard)
            .serve_with_incoming_shutdown(services, incoming.map_ok(Incoming), stopping)
            .await?;
        Ok(())
    }
}
