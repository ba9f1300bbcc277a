//! What an engine must be able to do, and what it should: managed ones forbid some commands.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicBool, atomic::Ordering},
};

use redis::{Pipeline, RedisError, Value, aio::MultiplexedConnection};

use super::{
    engine::{ConnectError, NO_MEMORY},
    functions,
};

/// What was found.
pub(super) struct Probed {
    pub(super) replication_id: Arc<str>,
    pub(super) run_id: Arc<str>,
    pub(super) may_kill: bool,
}

/// What a subscriber's output buffer should hold: less is a gap at the first burst.
const MIN_PUBSUB_BUFFER: u64 = 64 << 20;
const OLDEST_MAJOR: u32 = 7;
/// The commands without which nothing works, in the order in which they are tried.
const NEEDED: [&str; 8] = ["FUNCTION LOAD", "PUBSUB", "TIME", "PUBLISH", "GET", "XADD", "XRANGE", "XDEL"];

/// Looks at an engine, and loads our functions. `own`: a name under our prefix, for a channel and a key. Warnings are logged once per process.
pub(super) async fn probe(
    connection: &mut MultiplexedConnection,
    engine: &str,
    own: &str,
) -> Result<Probed, ConnectError> {
    let mut answers = ask_all(connection, own).await?.into_iter();
    let mut next = || answers.next().unwrap_or(Value::Nil).extract_error();
    let info: String = redis::from_redis_value(next()?).map_err(RedisError::from)?;
    let field = |name: &str| {
        info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(|value| value.trim().to_owned())
    };
    let version = field("redis_version").unwrap_or_default();
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok()).unwrap_or_default();
    if major < OLDEST_MAJOR {
        return Err(ConnectError::Unfit(format!("it is version {version:?}, and 7 or later is needed")));
    }
    if field("cluster_enabled").as_deref() == Some("1") || field("redis_mode").as_deref() == Some("cluster") {
        return Err(ConnectError::Unfit(
            "it is a Redis Cluster, whose PUBLISH counts the subscribers of one node only: give single engines"
                .to_owned(),
        ));
    }
    if field("role").as_deref() != Some("master") {
        return Err(ConnectError::Unreachable(None));
    }
    for command in NEEDED {
        // An engine without memory allows what it refuses for that.
        if let Err(error) = next()
            && !functions::is_loaded(&error)
            && error.code() != Some(NO_MEMORY)
        {
            return Err(forbidden(command, error));
        }
    }
    let may_kill = !next().is_err_and(|error| is_forbidden(&error));
    let limits = next().and_then(|limits| Ok(redis::from_redis_value::<HashMap<String, String>>(limits)?));
    connection.subscribe(own).await.map_err(|error| forbidden("SUBSCRIBE", error))?;
    connection.unsubscribe(own).await?;
    warn_once(!may_kill, &NO_KILL, || {
        tracing::warn!(
            cluster.redis = engine,
            "the engine forbids CLIENT KILL: receipts are partial for as long as a node is paused, instead of for 6 s"
        );
    });
    let buffer = limits.ok().and_then(|limits| pubsub_buffer(limits.get("client-output-buffer-limit")?));
    warn_once(buffer.is_some_and(|bytes| bytes < MIN_PUBSUB_BUFFER), &SMALL_BUFFER, || {
        tracing::warn!(
            cluster.redis = engine,
            "the engine closes subscribers that are behind by less than 64 MiB: set client-output-buffer-limit to \
             \"pubsub 256mb 64mb 60\""
        );
    });
    let [replication_id, run_id] = ["master_replid", "run_id"].map(|name| field(name).unwrap_or_default().into());
    Ok(Probed { replication_id, run_id, may_kill })
}

static NO_KILL: AtomicBool = AtomicBool::new(false);
static SMALL_BUFFER: AtomicBool = AtomicBool::new(false);

fn warn_once(condition: bool, told: &AtomicBool, warn: impl FnOnce()) {
    if condition && !told.swap(true, Ordering::Relaxed) {
        warn();
    }
}

/// The soft limit of a subscriber's output buffer, in bytes; none: there is none.
fn pubsub_buffer(limits: &str) -> Option<u64> {
    let mut words = limits.split_whitespace().skip_while(|word| *word != "pubsub").skip(1);
    let hard: u64 = words.next()?.parse().ok()?;
    (hard > 0).then_some(hard)
}

/// Asks everything in one round trip: an engine may be far away.
async fn ask_all(connection: &mut MultiplexedConnection, own: &str) -> Result<Vec<Value>, RedisError> {
    let mut ask = Pipeline::new();
    ask.ignore_errors();
    ask.cmd("INFO").arg(&["server", "replication"]).add_command(functions::load_call());
    ask.cmd("PUBSUB").arg("NUMSUB").cmd("TIME").cmd("PUBLISH").arg(own).arg("").cmd("GET").arg(own);
    // There is no such stream, and none is made.
    ask.cmd("XADD").arg(own).arg("NOMKSTREAM").arg("*").arg("m").arg("").cmd("XRANGE").arg(own).arg("-").arg("+");
    ask.cmd("XDEL").arg(own).arg("0-1");
    // There is no such client.
    ask.cmd("CLIENT").arg(&["KILL", "ID"]).arg(i64::MAX);
    ask.cmd("CONFIG").arg(&["GET", "client-output-buffer-limit"]);
    ask.query_async(connection).await
}

fn is_forbidden(error: &RedisError) -> bool {
    error.code() == Some("NOPERM") || error.to_string().contains("unknown command")
}

fn forbidden(command: &str, error: RedisError) -> ConnectError {
    if is_forbidden(&error) {
        ConnectError::Unfit(format!("it forbids {command}, which is needed: {error}"))
    } else {
        ConnectError::Unreachable(Some(error))
    }
}
