//! The composition root: it wires the modules together, listens, and stops in order.

mod listeners;

mod footprint;

mod domain;
mod routes;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use transport::{
    Acceptor, Flushers, Origins, Pages, Proxies, QueuedBytes, Serving, Share, Spawn, Strangers, Unfinished,
};

use self::{
    domain::commands,
    footprint::Footprint,
    listeners::Bound,
    routes::{device_routes, operator_routes},
};
use crate::auth::{ApiKeys, Tokens};
use crate::clock::Clock;
use crate::cluster::{Bus, Cluster};
use crate::command::Rules;
use crate::config::Config;
use crate::delivery::{self, Delivery};
use crate::grpc;
use crate::lifecycle::{self, Lifecycle};
use crate::memory;
use crate::message::Fault;
use crate::store::{self, NewEpochError, Sharing, Store};
use crate::telemetry;

/// Why the server did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration has faults that only show when keys are read.
    #[error("the configuration has faults: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Faults(Vec<Fault>),
    /// Metrics did not start.
    #[error("telemetry did not start")]
    Telemetry(#[from] telemetry::Error),
    /// An address cannot be listened at.
    #[error("cannot listen at {address} ({key}.listen)")]
    Listen {
        /// The section of the configuration.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The gRPC edge did not start.
    #[error("the gRPC edge did not start")]
    Grpc(#[from] grpc::Error),
    /// The store cannot be opened.
    #[error("store.url")]
    Store(#[from] store::Error),
    /// The other nodes cannot be joined.
    #[error("the other nodes cannot be joined")]
    Cluster(#[from] delivery::StartError),
    /// The store is used, or there is none.
    #[error("store.url: {0}")]
    StoreNotFree(&'static str),
    /// The store's file cannot be locked to begin a new epoch.
    #[error("store.url: no new epoch was begun")]
    StoreNotLocked(#[source] io::Error),
    /// The command to begin a new epoch failed. It may have begun one.
    #[error("store.url = {url}: {advice}")]
    NewEpoch {
        /// Without a password.
        url: String,
        /// Whether it was begun, and what to do.
        advice: &'static str,
        /// Why not.
        #[source]
        source: NewEpochError,
    },
    /// Signals cannot be watched.
    #[error("cannot watch signals")]
    Signals(#[source] io::Error),
    /// A task without which the server is of no use died.
    #[error("the task `{0}` died")]
    TaskDied(&'static str),
}

/// The server, wired and idle.
pub struct App {
    config: Config,
    clock: Clock,
    any_loopback_origin: bool,
    api_keys: ApiKeys,
    tokens: Arc<Tokens>,
    rules: Rules,
    metrics: PrometheusHandle,
    lifecycle: Lifecycle,
}

/// Where the server listens.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// Devices.
    pub clients: SocketAddr,
    /// Backends.
    pub grpc: SocketAddr,
    /// Operators.
    pub admin: SocketAddr,
}

/// Longer than devices are given to take leave.
const FAREWELL: Duration = Duration::from_millis(600);

/// The server, listening.
pub struct Listening {
    addresses: Addresses,
    delivery: Delivery,
    store: Option<Store>,
    lifecycle: Lifecycle,
    drain: lifecycle::Config,
    /// Devices' requests are served until then.
    devices_done: CancellationToken,
    /// Operators' requests are served until then.
    admin_done: CancellationToken,
    /// Running gRPC calls have ended.
    calls_ended: CancellationToken,
}

impl App {
    /// Wires the server. `any_loopback_origin`: pages of this machine may connect, whatever the configuration lists.
    pub fn new(config: Config, clock: Clock, any_loopback_origin: bool) -> Result<Self, Error> {
        let rules = Rules::new(&config.client_events, &config.auth.rooms);
        let rules = rules.map(|rules| rules.with_messages(&config.messages));
        let claims = rules.as_ref().map(Rules::claims).unwrap_or_default();
        let tokens = Tokens::new(&config.auth, claims, clock.clone());
        let (tokens, api_keys, rules) = match (tokens, ApiKeys::new(&config.grpc.api_keys), rules) {
            (Ok(tokens), Ok(api_keys), Ok(rules)) => (Arc::new(tokens), api_keys, rules),
            (tokens, api_keys, rules) => {
                let faults = [tokens.err(), api_keys.err(), rules.err()];
                return Err(Error::Faults(faults.into_iter().flatten().flatten().collect()));
            }
        };
        let metrics = telemetry::start_metrics()?;
        let lifecycle = Lifecycle::new();
        Ok(Self { config, clock, any_loopback_origin, api_keys, tokens, rules, metrics, lifecycle })
    }

    /// Asks the server to stop, and tells how it goes.
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    /// Turns SIGTERM and SIGINT into stops.
    pub fn watch_signals(&self) -> Result<(), Error> {
        self.lifecycle.watch_signals().map_err(Error::Signals)
    }

    /// Listens at the configured addresses, and serves from here on. Port 0 takes a free one. If a stop is asked for while the other nodes are
    /// joined, the wait for them ends, and neither calls nor devices are served: [`Listening::run`] stops what runs by then.
    pub async fn listen(self) -> Result<Listening, Error> {
        let Self { mut config, clock, any_loopback_origin, api_keys, tokens, rules, metrics, lifecycle } = self;
        let proxies = Proxies::new(config.clients.trusted_proxies.clone());
        let Bound { clients, grpc: calls, admin, addresses, grpc_share, devices_share } =
            Bound::bind(&config, &proxies).await?;
        let store = Some(&config.store).filter(|store| store.is_enabled());
        let sharing = if config.cluster.is_enabled() { Sharing::Cluster } else { Sharing::Single };
        let direct = config.messages.retention();
        let store =
            store.map(|store| Store::open_for(store, sharing, direct, clock.clone(), &lifecycle)).transpose()?;
        let queued = QueuedBytes::new(config.clients.queue_bytes_total);
        let bus = Cluster::new(&config.cluster).map_or(Bus::Solo, Bus::Redis);
        let delivery = Delivery::new(delivery::Deps {
            bus,
            rooms: &config.rooms,
            history: config.history,
            store: store.clone(),
            limits: &config.limits,
            retain: config.retain,
            collapse: config.collapse,
            max_waiting_bytes: config.socketio.queue_bytes,
            queued: queued.clone(),
            clock: clock.clone(),
            lifecycle: lifecycle.clone(),
        });
        let commands = commands(&config, delivery.clone(), store.clone(), (tokens, rules), lifecycle.clone())?;
        let listening = Listening {
            addresses,
            delivery,
            store,
            lifecycle: lifecycle.clone(),
            drain: config.drain.clone(),
            devices_done: CancellationToken::new(),
            admin_done: CancellationToken::new(),
            calls_ended: CancellationToken::new(),
        };
        let edge = grpc::Deps {
            api_keys: api_keys.clone(),
            max_calls: config.limits.grpc_calls,
            commands: commands.clone(),
            lifecycle: lifecycle.clone(),
        };
        listening.lifecycle.spawn_vital("metrics", telemetry::keep_up(metrics.clone(), listening.stopping()));
        let operators = operator_routes(&mut config, addresses, api_keys, &commands, &lifecycle, metrics);
        let (for_operators, under_way) = (under_way(&config), under_way(&config));
        // Operators and probes send no token. The listener's share of the descriptors bounds their connections.
        let serving = |done, strangers, counts| listening.serving(done, &queued, strangers, counts, &proxies);
        let for_operators = serving(&listening.admin_done, Strangers::unlimited(), &for_operators);
        listening.serve_http("admin", operators, admin, for_operators);
        // Probes are answered while other nodes are waited for.
        if !listening.join_nodes().await? {
            return Ok(listening);
        }
        listening.serve_calls(grpc::Edge::new(edge).await?, calls, grpc_share.clone());
        let origins = Origins::new(&config.clients.cors_origins, any_loopback_origin);
        let pages = Pages::new(origins, proxies.clone());
        let strangers = Strangers::new(config.limits.unauthenticated.clone());
        let for_devices = serving(&listening.devices_done, strangers, &under_way);
        let (devices, connections) = device_routes(config, clock, pages, commands, &lifecycle, &for_devices);
        listening.serve_http("clients", devices, clients, for_devices);
        let delivery = listening.delivery.clone();
        let (devices, backends) = (devices_share, grpc_share);
        let footprint = Footprint { devices, backends, connections, delivery, queued, under_way };
        lifecycle.spawn_vital("memory", memory::give_back(move || footprint.bytes(), listening.stopping()));
        listening.set_ready();
        Ok(listening)
    }
}

/// Has the store begin a new epoch, as `bugle store new-epoch` does.
pub async fn begin_new_epoch(config: &Config) -> Result<(), Error> {
    if !config.store.is_enabled() {
        return Err(Error::StoreNotFree("is empty, so there is no store"));
    }
    let begun = store::begin_new_epoch(&config.store, &Clock::system()).await.map_err(|source| {
        let advice = match source {
            NewEpochError::NotLocked(error) => return Error::StoreNotLocked(error),
            NewEpochError::NewerSchema => "no new epoch was begun",
            NewEpochError::NotBegun(_) => {
                "no new epoch was begun. Check that the database runs and can be reached from here, then repeat the command"
            }
            NewEpochError::Uncertain(_) => {
                "it is not known whether the new epoch was begun. Check that the database runs and can be reached from here, then repeat \
                 the command; repeating it is safe"
            }
        };
        Error::NewEpoch { url: config.store.masked_url(), advice, source }
    });
    if begun? {
        return Ok(());
    }
    Err(Error::StoreNotFree("a process uses the store: stop it first (if it was killed, its lease ends within 4 s)"))
}

/// Counts what has not arrived whole, and answers that have not left whole.
fn under_way(config: &Config) -> [Unfinished; 2] {
    let incoming = Unfinished::new("clients.incoming_bytes_total", config.clients.incoming_bytes_total);
    [incoming, Unfinished::new("clients.answer_bytes_total", config.clients.answer_bytes_total)]
}

/// Runs tasks without which the server is of no use.
fn vital(lifecycle: &Lifecycle, name: &'static str) -> Spawn {
    let lifecycle = lifecycle.clone();
    Arc::new(move |task| lifecycle.spawn_vital(name, task))
}

impl Listening {
    /// Where.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Joins the other nodes. False: a stop was asked for meanwhile, and no calls are to be served. The tasks that run already end with an error.
    async fn join_nodes(&self) -> Result<bool, Error> {
        tokio::select! {
            joined = self.delivery.join_nodes() => joined.inspect_err(|_| self.abandon())?,
            () = self.lifecycle.stopping() => {}
        }
        let is_stopping = self.lifecycle.is_stopping();
        if is_stopping {
            self.calls_ended.cancel();
        }
        Ok(!is_stopping)
    }

    fn set_ready(&self) {
        let Addresses { clients, grpc, admin } = self.addresses;
        self.lifecycle.set_ready();
        tracing::info!(clients.listen = %clients, grpc.listen = %grpc, admin.listen = %admin, "listening");
    }

    /// Ends what runs already: the server does not start.
    fn abandon(&self) {
        self.lifecycle.stop();
        self.admin_done.cancel();
    }

    fn stopping(&self) -> impl Future<Output = ()> + Send + use<> {
        let lifecycle = self.lifecycle.clone();
        async move { lifecycle.stopping().await }
    }

    fn serve_calls(&self, edge: grpc::Edge, acceptor: Acceptor, share: Share) {
        let stopping = self.lifecycle.clone();
        self.lifecycle.spawn(async move {
            stopping.stopping().await;
            // The server waits for its connections, and one that has shown no key may never answer.
            share.displace_all();
        });
        let ended = self.calls_ended.clone();
        self.lifecycle.spawn_vital("grpc", async move {
            if let Err(error) = edge.serve(acceptor.into_stream()).await {
                tracing::error!(error = &error as &dyn std::error::Error, "the gRPC edge failed");
            }
            ended.cancel();
        });
    }

    /// What serving HTTP needs, until `done`.
    fn serving(
        &self,
        done: &CancellationToken,
        queued: &Arc<QueuedBytes>,
        strangers: Strangers,
        [incoming, answers]: &[Unfinished; 2],
        proxies: &Proxies,
    ) -> Serving {
        let lifecycle = self.lifecycle.clone();
        let spawn: Spawn = Arc::new(move |task| lifecycle.spawn(task));
        let flushers = Flushers::start(&vital(&self.lifecycle, "flusher"), done, queued.clone());
        Serving {
            spawn,
            flushers,
            strangers,
            incoming: incoming.clone(),
            answers: answers.clone(),
            proxies: proxies.clone(),
            done: done.clone(),
        }
    }

    fn serve_http(&self, name: &'static str, routes: Router, acceptor: Acceptor, serving: Serving) {
        self.lifecycle.spawn_vital(name, transport::serve(acceptor, routes, serving));
    }

    /// Serves until a stop is asked for, and stops in order: calls first, so that what was accepted is sent; then the
    /// devices; then the rest.
    pub async fn run(self) -> Result<(), Error> {
        self.lifecycle.stopping().await;
        let deadline = Instant::now() + self.drain.deadline;
        tokio::select! {
            () = self.lifecycle.stopping_hard() => {}
            () = self.stop_in_order(deadline) => {}
        }
        self.lifecycle.stop_hard();
        self.lifecycle.ended().await;
        match self.lifecycle.death() {
            Some(task) => Err(Error::TaskDied(task)),
            None => Ok(()),
        }
    }

    async fn stop_in_order(&self, deadline: Instant) {
        // Half of the time at most: a stream that its caller keeps open must not cost the devices their farewell.
        let calls_deadline = Instant::now() + self.drain.deadline / 2;
        if timeout_at(calls_deadline, self.calls_ended.cancelled()).await.is_err() {
            tracing::warn!("gRPC calls are still running: sending the devices away all the same");
        }
        let sent_away = self.delivery.drain(self.drain.pace, deadline).await;
        if sent_away > 0 {
            tracing::info!(connections.closed = sent_away, "sent the devices away");
            // Their farewells are on the way, and a device that polls has yet to fetch its own.
            let _ = timeout_at(deadline, tokio::time::sleep(FAREWELL)).await;
        }
        self.delivery.leave_nodes().await;
        self.devices_done.cancel();
        self.admin_done.cancel();
        let stats = self.delivery.own_stats();
        if let Some(store) = &self.store {
            store.close();
        }
        if timeout_at(deadline, self.lifecycle.ended()).await.is_err() {
            tracing::warn!(connections.left = stats.connections, "drain.deadline has come: dropping the rest");
        } else {
            tracing::info!("stopped");
        }
    }
}
