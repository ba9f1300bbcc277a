use std::{fmt, net::SocketAddr, time::Duration};

use humantime_serde::re::humantime::format_duration;
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use super::{Config, origin};
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
    found.auth(config);
    found.socketio(config);
    found.envelopes(config);
    found.limits(config);
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
            // Listening beyond loopback is the operators' own choice here: nothing that is served is secret.
            ("admin.listen", config.admin.listen, None),
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
        for (index, origin) in config.clients.cors_origins.iter().enumerate() {
            if let Some(problem) = origin::problem(origin) {
                self.add(format!("clients.cors_origins[{index}]"), format!("{origin:?} {problem}"));
            }
        }
    }

    fn auth(&mut self, config: &Config) {
        let auth = &config.auth;
        self.duration("auth.jwt.leeway", auth.jwt.leeway, Duration::ZERO, Duration::from_mins(10));
        self.duration("auth.expiring_notice", auth.expiring_notice, Duration::ZERO, Duration::from_hours(24));
    }

    fn socketio(&mut self, config: &Config) {
        let socketio = &config.socketio;
        if let Some(problem) = path_problem(&socketio.path) {
            self.add("socketio.path", format!("{:?} {problem}", socketio.path));
        }
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
        self.number(&format!("{key}.per_second"), rate.per_second, 0, 10_000_000);
        self.number(&format!("{key}.burst"), rate.burst, 1, 100_000_000);
    }

    fn number<N: Copy + PartialOrd + fmt::Display>(&mut self, key: &str, value: N, min: N, max: N) {
        if !(min..=max).contains(&value) {
            self.add(key, format!("is {value}, but must be {min} to {max}"));
        }
    }
}

/// Whether the second of the two would find its address in use. Port 0 is whichever is free.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let same_ip = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && same_ip
}

fn path_problem(path: &str) -> Option<&'static str> {
    if !path.starts_with('/') {
        return Some("must begin with a slash");
    }
    if path.bytes().all(|byte| byte == b'/') {
        return Some("would take every request of the listener: give it a name, such as /socket.io");
    }
    if path.contains(|c: char| c.is_whitespace() || c.is_control() || "?#".contains(c)) {
        return Some("must be a path alone, without blanks, ? and #");
    }
    None
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
mod tests {
    use super::*;
    use crate::config::reading::read_text;

    fn faults(text: &str, dev: bool) -> Vec<String> {
        let config = read_text(text, []).unwrap().complete().unwrap();
        config.faults(dev).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_key_that_makes_no_sense_is_named_at_once() {
        let found = faults(
            r#"
            [clients]
            cors_origins = ["https://app.example.com", "*"]
            [auth]
            expiring_notice = "2days"
            jwt.leeway = "11m"
            [socketio]
            path = "chat"
            transports = ["polling", "polling"]
            ping_interval = "99ms"
            ping_timeout = "2h"
            connect_timeout = "0s"
            max_message = 1023
            queue_bytes = 1
            welcome = "connect"
            [[envelopes]]
            events = []
            [limits]
            connections = 0
            connections_per_address = 0
            connections_per_user = 0
            connects_per_user = { burst = 0 }
            emits_per_api_key = { per_second = 10_000_001, burst = 1 }
            max_payload = 3_145_729
            grpc_calls = 0
            idempotency_keys = 0
            memberships = 0
            [drain]
            pace = 0
            deadline = "999ms"
            [log]
            level = "verbose"
            keep_days = 0
            "#,
            false,
        );
        let expected = [
            "clients.cors_origins[1]: \"*\" would let every site",
            "auth.jwt.leeway: is 11m, but must be 0s to 10m",
            "auth.expiring_notice: is 2days, but must be 0s to 1day",
            "socketio.path: \"chat\" must begin with a slash",
            "socketio.transports: names a transport twice",
            "socketio.ping_interval: is 99ms, but must be 100ms to 1h",
            "socketio.ping_timeout: is 2h, but",
            "socketio.connect_timeout: is 0s, but",
            "socketio.max_message: is 1023, but must be 1024 to 67108864",
            "socketio.queue_bytes: is 1, but must be 16384 to 1073741824",
            "socketio.welcome: is one of Socket.IO's own events",
            "envelopes[0].events: is empty",
            "limits.connections: is 0, but must be 1 to",
            "limits.connections_per_address: is 0",
            "limits.connections_per_user: is 0",
            "limits.connects_per_user.burst: is 0, but must be 1 to 100000000",
            "limits.emits_per_api_key.per_second: is 10000001, but must be 0 to 10000000",
            "limits.max_payload: is 3145729, but must be 1 to 3145728",
            "limits.grpc_calls: is 0",
            "limits.idempotency_keys: is 0",
            "limits.memberships: is 0",
            "drain.pace: is 0",
            "drain.deadline: is 999ms, but must be 1s to 1h",
            "log.level: \"verbose\" is no level",
            "log.keep_days: is 0, but must be 1 to 3650",
        ];
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}");
        }
    }

    #[test]
    fn listening_beyond_loopback_wants_the_word_but_for_operators() {
        let public = "clients.listen = '0.0.0.0:3000'\ngrpc.listen = '[::]:50051'\nadmin.listen = '0.0.0.0:9090'\n";
        let found = faults(public, false);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("clients.listen: 0.0.0.0:3000 is beyond loopback"), "{found:?}");
        assert!(found[1].ends_with("set grpc.plaintext_public = true if a proxy ends it"), "{found:?}");
        let meant = format!("{public}clients.plaintext_public = true\ngrpc.plaintext_public = true");
        assert!(faults(&meant, false).is_empty());
        assert_eq!(faults(&meant, true).len(), 3, "with --dev no word helps");
        assert!(faults("clients.listen = '[::1]:3000'\ngrpc.listen = '[::ffff:127.0.0.1]:1'", true).is_empty());
    }

    #[test]
    fn two_listeners_cannot_have_one_port() {
        let both = |clients: &str, admin: &str| {
            faults(
                &format!("clients.listen = '{clients}'\nclients.plaintext_public = true\nadmin.listen = '{admin}'"),
                false,
            )
        };
        assert_eq!(
            both("127.0.0.1:3000", "127.0.0.1:3000"),
            ["admin.listen: 127.0.0.1:3000 is taken by clients.listen"]
        );
        assert_eq!(both("0.0.0.0:3000", "127.0.0.1:3000").len(), 1);
        assert!(both("127.0.0.1:0", "127.0.0.1:0").is_empty(), "whichever is free");
        assert!(both("127.0.0.1:3000", "127.0.0.2:3000").is_empty());
    }

    #[test]
    fn paths_that_cannot_be_asked_for_are_refused() {
        for path in ["", "/", "//", "/a b", "/a?b", "/a#b", "/a\n", "socket.io"] {
            assert!(path_problem(path).is_some(), "{path:?}");
        }
        assert_eq!(path_problem("/realtime/socket.io"), None);
    }

    #[test]
    fn log_levels_are_levels_or_directives() {
        for level in ["info", "OFF", "info,bugle::grpc=debug", "info,[{user}]=debug"] {
            assert_eq!(level_problem(level), None, "{level}");
        }
        for level in ["", "loud", "info,bugle", "warn, bugle=trace", "bugle=loud"] {
            assert!(level_problem(level).is_some(), "{level}");
        }
    }

    #[test]
    fn no_transport_at_all_is_refused() {
        assert!(transports_problem(&[]).is_some());
    }

    #[test]
    fn an_empty_welcome_is_none() {
        assert!(faults("socketio.welcome = ''", false).is_empty());
    }
}
