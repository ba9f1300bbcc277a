//! What is told of configurations that make no sense.

use super::*;
use crate::config::reading::read_text;

fn faults(text: &str, dev: bool) -> Vec<String> {
    let config = read_text(text, []).unwrap().complete().unwrap();
    config.faults(dev).iter().map(ToString::to_string).collect()
}

/// Keys of which none makes sense.
const NONSENSE: &str = r#"
[clients]
cors_origins = ["https://app.example.com", "*"]
queue_bytes_total = 1_048_575
incoming_bytes_total = 1_048_575
[console]
path = "/metrics"
clients_url = "ws://example.com"
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
[[websocket]]
path = "/socket.io"
events = []
auth_timeout = "99ms"
[[envelopes]]
events = []
[limits]
connections = 0
connections_per_address = 0
connections_per_user = 0
connects_per_address = { per_second = 0 }
connects_per_user = { burst = 0 }
client_events_per_connection = { per_second = 0, burst = 0 }
client_events_per_user = { burst = 100_000_001 }
emits_per_api_key = { per_second = 10_000_001 }
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
"#;

/// How what is said of each of them begins.
const FAULTS: &[&str] = &[
    "clients.queue_bytes_total: is 1048575, but must be 1048576 to",
    "clients.incoming_bytes_total: is 1048575, but must be 1048576 to",
    "clients.cors_origins[1]: \"*\" would let every site",
    "console.path: \"/metrics\" is the operators' own path",
    "console.clients_url: \"ws://example.com\" must begin with http:// or https://",
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
    "websocket[0].events: is empty",
    "websocket[0].auth_timeout: is 99ms, but must be 100ms to 1h",
    "envelopes[0].events: is empty",
    "limits.connections: is 0, but must be 1 to",
    "limits.connections_per_address: is 0",
    "limits.connections_per_user: is 0",
    "limits.connects_per_address.per_second: is 0, but must be 1 to 10000000",
    "limits.connects_per_user.burst: is 0, but must be 1 to 100000000",
    "limits.client_events_per_connection.per_second: is 0",
    "limits.client_events_per_connection.burst: is 0",
    "limits.client_events_per_user.burst: is 100000001",
    "limits.emits_per_api_key.per_second: is 10000001, but must be 1 to 10000000",
    "limits.max_payload: is 3145729, but must be 1 to 3145728",
    "limits.grpc_calls: is 0",
    "limits.idempotency_keys: is 0",
    "limits.memberships: is 0",
    "drain.pace: is 0",
    "drain.deadline: is 999ms, but must be 1s to 1h",
    "log.level: \"verbose\" is no level",
    "log.keep_days: is 0, but must be 1 to 3650",
];

#[test]
fn every_key_that_makes_no_sense_is_named_at_once() {
    let found = faults(NONSENSE, false);
    assert_eq!(found.len(), FAULTS.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(FAULTS) {
        assert!(found.starts_with(expected), "{found}");
    }
}

#[test]
fn the_largest_message_fits_into_what_may_arrive() {
    let found = faults("clients.incoming_bytes_total = 4_000_000\nsocketio.max_message = 2_000_001", true);
    assert_eq!(
        found,
        ["clients.incoming_bytes_total: is 4000000, but must be at least twice socketio.max_message, which is 2000001"]
    );
}

#[test]
fn rules_for_devices_events_are_looked_at_with_the_rest() {
    let found = faults(
        "limits = { grants = 0, rooms_per_connection = 0 }\n[[client_events]]\nevent = 'e'\njoin = '{arg}'\n",
        false,
    );
    let expected = [
        "client_events[0].join: begins with a placeholder: begin with a literal such as `org:`",
        "limits.grants: is 0, but must be 1 to 18446744073709551615",
        "limits.rooms_per_connection: is 0, but must be 1 to 10000",
    ];
    assert_eq!(found, expected);
}

#[test]
fn listening_beyond_loopback_wants_the_word_but_for_operators_without_a_console() {
    let public = "clients.listen = '0.0.0.0:3000'\ngrpc.listen = '[::]:50051'\nadmin.listen = '0.0.0.0:9090'\n";
    let found = faults(public, false);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("clients.listen: 0.0.0.0:3000 is beyond loopback"), "{found:?}");
    assert!(found[1].ends_with("set grpc.plaintext_public = true if a proxy ends it"), "{found:?}");
    let meant = format!("{public}clients.plaintext_public = true\ngrpc.plaintext_public = true");
    assert!(faults(&meant, false).is_empty());
    let console = format!("{meant}\nconsole.enabled = true");
    assert!(faults(&console, false)[0].ends_with("set console.plaintext_public = true if a proxy ends it"));
    assert!(faults(&format!("{console}\nconsole.plaintext_public = true"), false).is_empty());
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
    assert_eq!(both("127.0.0.1:3000", "127.0.0.1:3000"), ["admin.listen: 127.0.0.1:3000 is taken by clients.listen"]);
    assert_eq!(both("0.0.0.0:3000", "127.0.0.1:3000").len(), 1);
    assert!(both("127.0.0.1:0", "127.0.0.1:0").is_empty(), "whichever is free");
    assert!(both("127.0.0.1:3000", "127.0.0.2:3000").is_empty());
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

#[test]
fn settings_of_a_cluster_that_make_no_sense_are_named() {
    let found = faults(
        r#"
        [cluster]
        prefix = ""
        node = "a node"
        deadline = "49ms"
        heartbeat = "11s"
        lease = "32s"
        linger = "11m"
        waiting = 1_048_575
        "#,
        false,
    );
    let expected = [
        "cluster.prefix: is empty, but the names of all channels and keys begin with it",
        "cluster.node: \"a node\" must have at most 64 letters, digits, `.`, `_` or `-`",
        "cluster.deadline: is 49ms, but must be 50ms to 10s",
        "cluster.heartbeat: is 11s, but must be 100ms to 10s",
        "cluster.lease: is 32s, but must be 33s to 1m",
        "cluster.linger: is 11m, but must be 0s to 10m",
        "cluster.waiting: is 1048575, but must be 1048576 to 18446744073709551615",
    ];
    assert_eq!(found, expected);
    assert_eq!(faults("cluster.lease = '61s'", false), ["cluster.lease: is 1m 1s, but must be 3s to 1m"]);
    assert_eq!(faults("cluster.prefix = 'a:b'", false).len(), 1);
}

#[test]
fn a_wrong_address_of_an_engine_is_named_by_its_place_and_not_repeated() {
    let found = faults("store.url = ''\ncluster = { redis = ['redis://a', 'http://s3cret'], node = 'a' }", false);
    assert_eq!(found, ["cluster.redis[1]: must begin with redis://, rediss:// or redis+sentinel://"]);
}

#[test]
fn several_nodes_share_a_postgres_or_store_nothing() {
    let cluster = "cluster = { redis = ['redis://a'], node = 'a' }\n";
    let sqlite = "store.url: is a SQLite database, which only one process can use: with cluster.redis all nodes share one PostgreSQL \
                  (postgres://…), or store nothing (\"\")";
    assert_eq!(faults(cluster, false), [sqlite], "the default");
    for (url, expected) in [("sqlite::memory:", vec![sqlite]), ("postgres://db/bugle", vec![]), ("", vec![])] {
        assert_eq!(faults(&format!("{cluster}store.url = '{url}'"), false), expected, "{url}");
        assert!(faults(&format!("store.url = '{url}'"), false).is_empty(), "a node that is alone uses any");
    }
    let history = "rooms = [{ match = 'a', history = { size = 1, age = '1s' } }]\n";
    assert!(faults(&format!("{history}{cluster}store.url = ''"), false).is_empty());
}
