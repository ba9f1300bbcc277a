//! Our functions in the engine: one library, named after the hash of its content, so that two versions of Bugle run beside each other.

use std::sync::LazyLock;

use redis::{Cmd, RedisError, Value, aio::MultiplexedConnection};
use sha2::{Digest, Sha256};

/// The functions; `@` in a function's registered name stands for the hash.
const SOURCE: &str = concat!(
    include_str!("functions/time.lua"),
    include_str!("functions/peers.lua"),
    include_str!("functions/user_rooms.lua"),
    include_str!("functions/idempotency.lua"),
    include_str!("functions/history.lua"),
    include_str!("functions/retained.lua"),
    include_str!("functions/collapse.lua"),
);

static HASH: LazyLock<String> = LazyLock::new(|| {
    let hash = Sha256::digest(SOURCE);
    let first = hash[..8].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    format!("{first:016x}")
});

static LIBRARY: LazyLock<String> =
    LazyLock::new(|| format!("#!lua name=bugle_{}\n{}", *HASH, SOURCE.replace('@', &HASH)));

/// The name under which the engine knows a function. Names are global there.
pub(super) fn full_name(name: &str) -> String {
    [name, "_", &HASH].concat()
}

/// Whether the engine has forgotten our functions.
pub(super) fn is_missing(error: &RedisError) -> bool {
    error.detail().is_some_and(|detail| detail.contains("Function not found"))
        || error.to_string().contains("Function not found")
}

/// The same of one command's answer among several.
pub(super) fn is_missing_in(answer: &Value) -> bool {
    matches!(answer, Value::ServerError(error) if error.details().is_some_and(|details| details.contains("Function not found")))
}

/// Loads the functions, unless they are there.
pub(super) async fn load(connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
    match load_call().query_async::<()>(connection).await {
        Err(error) if is_loaded(&error) => Ok(()),
        loaded => loaded,
    }
}

/// The command that loads them.
pub(super) fn load_call() -> Cmd {
    let mut load = redis::cmd("FUNCTION");
    load.arg("LOAD").arg(LIBRARY.as_str());
    load
}

/// Whether they could not be loaded since they are there.
pub(super) fn is_loaded(error: &RedisError) -> bool {
    error.to_string().contains("already exists")
}
