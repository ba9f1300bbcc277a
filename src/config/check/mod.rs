use std::{fmt, net::SocketAddr, time::Duration};

use humantime_serde::re::humantime::format_duration;
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use super::{Config, origin, paths};
use crate::cluster;
use crate::command::Rules;
use crate::delivery::RoomConfig;
use crate::http;
use crate::limits::Rate;
use crate::message::{EventName, Fault};
use crate::socketio::TransportName;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const HOUR: Duration = Duration::from_hours(1);

/// Everything that is wrong with the configuration as a whole.
pub(super) fn faults(config: &Config, dev: bool) -> Vec<Fault> {
    let mut found = Found::default();
    found.listeners(config, dev);
    found.clients(config);
    found.console(config);
    found.auth(config);
    found.socketio(config);
    found.websocket(config);
    found.0.extend(Rules::new(&config.client_events, &config.auth.rooms).err().into_iter().flatten());
    found.envelopes(config);
    found.limits(config);
    found.cluster(config);
    found.kept(config);
    found.messages(config);
    found.drain(config);
    found.log(config);
    found.0
}

#[derive(Default)]
struct Found(Vec<Fault>);

impl Found {
    fn add(&mut self, key: impl Into<String>, problem: impl Into<String>) {
        self.0.push(Fault::new(key, problem));
    }

    fn listeners(&mut self, config: &Config, dev: bool) {
        let listeners = [
            (
                "clients.listen",
                config.clients.listen,
                Some(("clients.plaintext_public", config.clients.plaintext_public)),
            ),
            ("grpc.listen", config.grpc.listen, Some(("grpc.plaintext_public", config.grpc.plaintext_public))),
            // Listening beyond loopback is the operators' own choice here: nothing that is served is secret, but for the console.
            (
                "admin.listen",
                config.admin.listen,
                config.console.enabled.then_some(("console.plaintext_public", config.console.plaintext_public)),
            ),
        ];
        for (key, address, word) in listeners {
            if address.ip().to_canonical().is_loopback() {
                continue;
            }
            match word {
                _ if dev => self.add(key, format!("{address} is beyond loopback: --dev is for this machine alone")),
                Some((word, false)) => self.add(
                    key,
                    format!("{address} is beyond loopback, and Bugle has no TLS: set {word} = true if a proxy ends it"),
                ),
                Some((_, true)) | None => {}
            }
        }
        for (position, (key, address, _)) in listeners.iter().enumerate() {
            if let Some((other, ..)) = listeners[..position].iter().find(|(_, other, _)| collide(*address, *other)) {
                self.add(*key, format!("{address} is taken by {other}"));
            }
        }
    }

    fn clients(&mut self, config: &Config) {
        self.number("clients.queue_bytes_total", config.clients.queue_bytes_total, MIB as u64, u64::MAX);
        let incoming = config.clients.incoming_bytes_total;
        self.number("clients.answer_bytes_total", config.clients.answer_bytes_total, MIB, usize::MAX);
        self.number("clients.incoming_bytes_total", incoming, MIB, usize::MAX);
        let message = config.socketio.max_message;
        if (MIB..message.saturating_mul(2)).contains(&incoming) {
            self.add(
                "clients.incoming_bytes_total",
                format!("is {incoming}, but must be at least twice socketio.max_message, which is {message}"),
            );
        }
        for (index, origin) in config.clients.cors_origins.iter().enumerate() {
            if let Some(problem) = origin::problem(origin) {
                self.add(format!("clients.cors_origins[{index}]"), format!("{origin:?} {problem}"));
            }
        }
    }

    fn console(&mut self, config: &Config) {
        let http::console::Config { path, clients_url, .. } = &config.console;
        if let Some(problem) = paths::problem(path).or_else(|| console_path_problem(path)) {
            self.add("console.path", format!("{path:?} {problem}"));
        }
        let is_web = ["http://", "https://"].iter().any(|scheme| clients_url.starts_with(scheme));
        let problem = match clients_url.as_str() {
            "" => None,
            _ if !is_web => Some("must begin with http:// or https://"),
            url => origin::problem(url),
        };
        if let Some(problem) = problem {
            self.add("console.clients_url", format!("{clients_url:?} {problem}"));
        }
    }

    fn auth(&mut self, config: &Config) {
        let auth = &config.auth;
        self.duration("auth.jwt.leeway", auth.jwt.leeway, Duration::ZERO, Duration::from_mins(10));
        self.duration("auth.expiring_notice", auth.expiring_notice, Duration::ZERO, Duration::from_hours(24));
    }

    fn socketio(&mut self, config: &Config) {
        let socketio = &config.socketio;
        self.0.extend(paths::faults(config));
        if let Some(problem) = transports_problem(&socketio.transports) {
            self.add("socketio.transports", problem);
        }
        let shortest = Duration::from_millis(100);
        self.duration("socketio.ping_interval", socketio.ping_interval, shortest, HOUR);
        self.duration("socketio.ping_timeout", socketio.ping_timeout, shortest, HOUR);
        self.duration("socketio.connect_timeout", socketio.connect_timeout, shortest, HOUR);
        self.number("socketio.max_message", socketio.max_message, 1_024, 64 * MIB);
        self.number("socketio.queue_bytes", socketio.queue_bytes, 16 * KIB, 1024 * MIB);
        if !socketio.welcome.is_empty()
            && let Err(problem) = EventName::new(&socketio.welcome)
        {
            self.add("socketio.welcome", problem.to_string());
        }
    }

    fn websocket(&mut self, config: &Config) {
        for (index, endpoint) in config.websocket.iter().enumerate() {
            if endpoint.events.is_empty() {
                self.add(
                    format!("websocket[{index}].events"),
                    "is empty, so that nothing would arrive: list events, or beginnings such as balance*",
                );
            }
            let key = format!("websocket[{index}].auth_timeout");
            self.duration(&key, endpoint.auth_timeout, Duration::from_millis(100), HOUR);
        }
    }

    fn envelopes(&mut self, config: &Config) {
        for (index, envelope) in config.envelopes.iter().enumerate() {
            if envelope.events.is_empty() {
                self.add(format!("envelopes[{index}].events"), "is empty, so that nothing would be wrapped");
            }
        }
    }

    fn limits(&mut self, config: &Config) {
        let limits = &config.limits;
        self.number("limits.connections", limits.connections, 1, u32::MAX);
        self.number("limits.connections_per_address", limits.connections_per_address, 1, u32::MAX);
        self.number("limits.connections_per_user", limits.connections_per_user, 1, u32::MAX);
        self.rate("limits.connects_per_address", limits.connects_per_address);
        self.rate("limits.connects_per_user", limits.connects_per_user);
        self.rate("limits.client_events_per_connection", limits.client_events_per_connection);
        self.rate("limits.client_events_per_user", limits.client_events_per_user);
        self.rate("limits.emits_per_api_key", limits.emits_per_api_key);
        // The rest of a gRPC message, which ends at 4 MiB, is for names and options.
        self.number("limits.max_payload", limits.max_payload, 1, 3 * MIB);
        self.number("limits.grpc_calls", limits.grpc_calls, 1, usize::MAX);
        self.number("limits.idempotency_keys", limits.idempotency_keys, 1, usize::MAX);
        self.number("limits.memberships", limits.memberships, 1, usize::MAX);
        self.number("limits.grants", limits.grants, 1, usize::MAX);
        self.number("limits.rooms_per_connection", limits.rooms_per_connection, 1, 10_000);
        let unauthenticated = &limits.unauthenticated;
        for (key, value) in [
            ("limits.unauthenticated.connections", unauthenticated.connections),
            ("limits.unauthenticated.connections_per_address", unauthenticated.connections_per_address),
            ("limits.unauthenticated.body_bytes", unauthenticated.body_bytes),
            ("limits.unauthenticated.body_bytes_per_address", unauthenticated.body_bytes_per_address),
        ] {
            self.number(key, value, 1, usize::MAX);
        }
    }

    fn cluster(&mut self, config: &Config) {
        let cluster = &config.cluster;
        for (index, problem) in cluster.address_problems() {
            self.add(format!("cluster.redis[{index}]"), problem);
        }
        if cluster.prefix.is_empty() {
            self.add("cluster.prefix", "is empty, but the names of all channels and keys begin with it");
        }
        // A node that is alone needs no name, and its host may have one that is not good.
        let node = if cluster.is_enabled() { cluster.node_name() } else { cluster.node.clone() };
        for (key, name) in [("cluster.prefix", &cluster.prefix), ("cluster.node", &node)] {
            if let Some(problem) = cluster::Config::name_problem(name) {
                self.add(key, format!("{name:?} {problem}"));
            }
        }
        if cluster.is_enabled() && node.is_empty() {
            self.add("cluster.node", "is empty, and so is the host's name: name this node");
        }
        let second = Duration::from_secs(1);
        self.duration("cluster.deadline", cluster.deadline, Duration::from_millis(50), 10 * second);
        self.duration("cluster.heartbeat", cluster.heartbeat, Duration::from_millis(100), 10 * second);
        self.duration("cluster.lease", cluster.lease, cluster.heartbeat.saturating_mul(3), 60 * second);
        self.duration("cluster.linger", cluster.linger, Duration::ZERO, Duration::from_mins(10));
        self.number("cluster.waiting", cluster.waiting, MIB, usize::MAX);
        // An address that is none is told of by itself.
        let store = &config.store;
        if cluster.is_enabled() && store.url_problem().is_none() && store.is_enabled() && !store.can_be_shared() {
            let problem = "is a SQLite database, which only one process can use: with cluster.redis all nodes share one PostgreSQL \
                           (postgres://…), or store nothing (\"\")";
            self.add("store.url", problem);
        }
    }

    fn kept(&mut self, config: &Config) {
        const SHORTEST_WINDOW: Duration = Duration::from_millis(1);
        const LONGEST_WINDOW: Duration = Duration::from_mins(1);
        const DAY: Duration = Duration::from_hours(24);
        if let Some(problem) = config.store.url_problem().or_else(|| config.store.path_problem()) {
            self.add("store.url", problem);
        }
        self.duration("store.max_age", config.store.max_age, Duration::from_secs(1), 3_650 * DAY);
        self.number("store.max_messages", config.store.max_messages, 1, 10_000_000);
        self.number("history.max_bytes", config.history.max_bytes, 1_024, usize::MAX);
        for (index, room) in config.rooms.iter().enumerate() {
            self.number(&format!("rooms[{index}].history.size"), room.history.size, 1, 10_000);
            self.duration(&format!("rooms[{index}].history.age"), room.history.age, Duration::from_secs(1), DAY);
        }
        self.number("retain.max_entries", config.retain.max_entries, 1, usize::MAX);
        self.number("retain.max_room_bytes", config.retain.max_room_bytes, 1_024, 64 * MIB);
        self.number("collapse.max_keys", config.collapse.max_keys, 1, usize::MAX);
        self.duration("collapse.window", config.collapse.window, SHORTEST_WINDOW, LONGEST_WINDOW);
    }

    fn messages(&mut self, config: &Config) {
        const DAY: Duration = Duration::from_hours(24);
        let messages = &config.messages;
        self.rate("messages.rate", messages.rate);
        self.rate("messages.conversation_rate", messages.conversation_rate);
        self.duration("messages.max_age", messages.max_age, Duration::from_secs(1), 3_650 * DAY);
        self.number("messages.max_messages", messages.max_messages, 1, 10_000_000);
        self.0.extend(messages.faults(config.store.is_enabled()));
        let of_users = config.rooms.iter().position(has_users).filter(|_| messages.enabled);
        if let Some(index) = of_users {
            let problem = "matches users' rooms, whose devices then read the history instead of the mailbox: direct messages are in that";
            self.add(format!("rooms[{index}].matches"), problem);
        }
        let own = messages.events.of_devices();
        let rules = config.client_events.iter().enumerate().filter(|_| messages.enabled);
        for (index, _) in rules.filter(|(_, rule)| own.contains(&rule.event.as_str())) {
            self.add(
                format!("client_events[{index}].event"),
                "is one of messages.events: direct messages have their own rule",
            );
        }
    }

    fn drain(&mut self, config: &Config) {
        self.number("drain.pace", config.drain.pace, 1, u32::MAX);
        self.duration("drain.deadline", config.drain.deadline, Duration::from_secs(1), HOUR);
    }

    fn log(&mut self, config: &Config) {
        if let Some(problem) = level_problem(&config.log.level) {
            self.add("log.level", problem);
        }
        self.number("log.keep_days", config.log.keep_days, 1, 3_650);
    }

    fn duration(&mut self, key: &str, value: Duration, min: Duration, max: Duration) {
        if !(min..=max).contains(&value) {
            let [value, min, max] = [value, min, max].map(format_duration);
            self.add(key, format!("is {value}, but must be {min} to {max}"));
        }
    }

    fn rate(&mut self, key: &str, rate: Rate) {
        self.number(&format!("{key}.per_second"), rate.per_second, 1, Rate::UNLIMITED);
        self.number(&format!("{key}.burst"), rate.burst, 1, 100_000_000);
    }

    fn number<N: Copy + PartialOrd + fmt::Display>(&mut self, key: &str, value: N, min: N, max: N) {
        if !(min..=max).contains(&value) {
            self.add(key, format!("is {value}, but must be {min} to {max}"));
        }
    }
}

/// Whether an entry of `[[rooms]]` is for rooms of users.
fn has_users(room: &RoomConfig) -> bool {
    room.matches.matches("user:") || room.matches.matches("user:example")
}

/// Whether the second of the two would find its address in use. Port 0 is whichever is free.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let same_ip = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && same_ip
}

fn console_path_problem(path: &str) -> Option<&'static str> {
    if http::OPERATORS.contains(&path) {
        return Some("is the operators' own path");
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    (!path.bytes().all(is_plain)).then_some("may have letters, digits, slashes and -._~ alone")
}

fn transports_problem(transports: &[TransportName]) -> Option<&'static str> {
    if transports.is_empty() {
        return Some("is empty, so that no device could connect: polling, websocket or both");
    }
    let twice = transports.iter().enumerate().any(|(position, transport)| transports[..position].contains(transport));
    twice.then_some("names a transport twice")
}

fn level_problem(level: &str) -> Option<String> {
    let example = "such as info, or info,bugle::grpc=debug";
    if level.trim().is_empty() {
        return Some(format!("is empty: error, warn, info, debug, trace or off, or directives {example}"));
    }
    // To the library a misspelt level is a target, whose every event is then logged, and nothing else.
    let is_word = |directive: &&str| !directive.contains(['=', '[']) && directive.parse::<LevelFilter>().is_err();
    if let Some(word) = level.split(',').find(is_word) {
        return Some(format!("{word:?} is no level: error, warn, info, debug, trace or off, or directives {example}"));
    }
    EnvFilter::try_new(level).err().map(|error| format!("{error}: give directives {example}"))
}

#[cfg(test)]
mod tests;
