//! The command connection to one shard's engine: every command has a deadline, and while there is no connection every command is refused at
//! once.

use std::{sync::Arc, time::Duration};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use parking_lot::Mutex;
use redis::{AsyncConnectionConfig, Cmd, FromRedisValue, Pipeline, RedisError, Value, aio::MultiplexedConnection};
use tokio::{
    sync::watch,
    time::{Instant, interval, sleep, timeout},
};

use super::{
    BusError,
    address::Address,
    functions,
    probe::{self, Probed},
};

/// Commands that wait to be written. A caller waits while there are more, up to its deadline.
const WRITE_QUEUE: usize = 1_024;
/// The code of an engine that has reached its `maxmemory`.
pub(super) const NO_MEMORY: &str = "OOM";
/// A connection is opened in so many deadlines: it takes several round trips.
const CONNECT_DEADLINES: u32 = 4;

/// The engine of one shard. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    address: Address,
    masked: String,
    prefix: String,
    deadline: Duration,
    current: watch::Sender<Option<Connected>>,
    /// When the log last told of a refused command.
    warned: Mutex<Option<Instant>>,
}

/// A working connection.
#[derive(Clone)]
pub(super) struct Connected {
    connection: MultiplexedConnection,
    /// Later connections have larger ones.
    pub(super) generation: u64,
    /// Changes when the engine restarts or fails over, and so may have lost data.
    pub(super) replication_id: Arc<str>,
    /// That of the engine's process, which gives connections their ids.
    pub(super) run_id: Arc<str>,
    /// Whether this engine lets nodes close each other's connections.
    pub(super) may_kill: bool,
}

/// Why an engine cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// It cannot be reached now.
    #[error("it cannot be reached")]
    Unreachable(#[source] Option<RedisError>),
    /// It can be reached, and will not do until somebody changes something.
    #[error("{0}")]
    Unfit(String),
}

impl From<RedisError> for ConnectError {
    fn from(error: RedisError) -> Self {
        use redis::ErrorKind::{AuthenticationFailed, InvalidClientConfig, RESP3NotSupported};

        let kind = error.kind();
        if error.code() == Some("NOPERM") {
            return Self::Unfit(format!("it forbids a command that is needed: {error}"));
        }
        if [AuthenticationFailed, InvalidClientConfig].contains(&kind)
            || matches!(error.code(), Some("WRONGPASS" | "NOAUTH"))
        {
            return Self::Unfit(format!("it refuses the login: {error}"));
        }
        let text = error.to_string();
        if text.contains("invalid peer certificate") {
            return Self::Unfit(format!(
                "its certificate is refused: {text}: name the authority that signed it in SSL_CERT_FILE, and the host that it is for in the address"
            ));
        }
        if kind == RESP3NotSupported {
            return Self::Unfit("it does not speak RESP3: Redis or Valkey 7 or later is needed".to_owned());
        }
        Self::Unreachable(Some(error))
    }
}

impl Engine {
    pub(super) fn new(address: Address, masked: String, prefix: &str, deadline: Duration) -> Self {
        let (current, _) = watch::channel(None);
        Self(Arc::new(Inner {
            address,
            masked,
            prefix: prefix.to_owned(),
            deadline,
            current,
            warned: Mutex::default(),
        }))
    }

    /// The address without its password.
    pub(super) fn masked(&self) -> &str {
        &self.0.masked
    }

    /// The deadline of a command.
    pub fn deadline(&self) -> Duration {
        self.0.deadline
    }

    /// The name of a key or channel of this kind: `PREFIX:KIND:REST`.
    pub fn name(&self, kind: &str, rest: &str) -> String {
        [&*self.0.prefix, ":", kind, ":", rest].concat()
    }

    /// The name of a key that is there once: `PREFIX:KIND`.
    pub(super) fn single(&self, kind: &str) -> String {
        [&*self.0.prefix, ":", kind].concat()
    }

    pub(super) fn is_connected(&self) -> bool {
        self.0.current.borrow().is_some()
    }

    /// The connection, if there is one.
    pub(super) fn connected(&self) -> Result<Connected, BusError> {
        self.0.current.borrow().clone().ok_or(BusError::Away)
    }

    /// Tells when there is another connection, or none any more.
    pub(super) fn watch(&self) -> watch::Receiver<Option<Connected>> {
        self.0.current.subscribe()
    }

    /// Waits until there is a connection.
    pub async fn reached(&self) {
        // The sender is ours.
        let _ = self.watch().wait_for(Option::is_some).await;
    }

    /// Runs one command.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, BusError> {
        let Connected { mut connection, generation, .. } = self.connected()?;
        let answer = timeout(self.0.deadline, command.query_async(&mut connection)).await;
        self.settle(generation, answer.ok())
    }

    /// Runs several commands in one round trip.
    pub async fn query_all<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T, BusError> {
        self.query_all_over(self.connected()?, commands).await
    }

    /// The same over a connection that is known to the caller.
    pub(super) async fn query_all_over<T: FromRedisValue>(
        &self,
        Connected { mut connection, generation, .. }: Connected,
        commands: &Pipeline,
    ) -> Result<T, BusError> {
        let answer = timeout(self.0.deadline, commands.query_async(&mut connection)).await;
        self.settle(generation, answer.ok())
    }

    /// A call of one of our functions, for [`Engine::run`] or in a pipeline.
    pub fn function(name: &str, keys: &[&str]) -> Cmd {
        let mut call = redis::cmd("FCALL");
        call.arg(functions::full_name(name)).arg(keys.len()).arg(keys);
        call
    }

    /// Runs a call of one of our functions. One that the engine has forgotten is loaded again.
    pub async fn run<T: FromRedisValue>(&self, call: &Cmd) -> Result<T, BusError> {
        self.run_over(self.connected()?, call).await
    }

    /// The same over a connection that is known to the caller.
    pub(super) async fn run_over<T: FromRedisValue>(
        &self,
        Connected { mut connection, generation, .. }: Connected,
        call: &Cmd,
    ) -> Result<T, BusError> {
        let running = async {
            match call.query_async::<T>(&mut connection).await {
                Err(error) if functions::is_missing(&error) => {
                    functions::load(&mut connection).await?;
                    call.query_async(&mut connection).await
                }
                answer => answer,
            }
        };
        let answer = timeout(self.0.deadline, running).await;
        self.settle(generation, answer.ok())
    }

    /// Runs several calls of our functions in one round trip. Returns what became of each.
    pub async fn run_all<T: FromRedisValue>(&self, calls: &[Cmd]) -> Result<Vec<Result<T, BusError>>, BusError> {
        let mut commands = Pipeline::with_capacity(calls.len());
        commands.ignore_errors();
        for call in calls {
            commands.add_command(call.clone());
        }
        let mut answers: Vec<Value> = self.query_all(&commands).await?;
        if answers.iter().any(functions::is_missing_in) {
            self.load_functions().await?;
            answers = self.query_all(&commands).await?;
        }
        let read = |answer: Value| {
            if matches!(answer, Value::ServerError(_)) {
                return Err(self.refusal(&answer));
            }
            redis::from_redis_value(answer).map_err(|_| BusError::Refused)
        };
        if answers.len() == calls.len() { Ok(answers.into_iter().map(read).collect()) } else { Err(BusError::Refused) }
    }

    /// Loads our functions again, after the engine has forgotten them.
    pub(super) async fn load_functions(&self) -> Result<(), BusError> {
        let Connected { mut connection, generation, .. } = self.connected()?;
        let answer = timeout(self.0.deadline, functions::load(&mut connection)).await;
        self.settle(generation, answer.ok())
    }

    /// `None`: there was no answer in time.
    fn settle<T>(&self, generation: u64, answer: Option<Result<T, RedisError>>) -> Result<T, BusError> {
        let Some(answer) = answer else {
            self.give_up(generation, "no answer in time");
            return Err(BusError::Unanswered);
        };
        answer.map_err(|error| {
            if error.is_unrecoverable_error() || error.is_io_error() || is_of_replica(&error) {
                self.give_up(generation, "the connection failed");
                return BusError::Unanswered;
            }
            self.warn_of_refusal(&error.to_string());
            let errors = error.into_server_errors();
            let is_full = errors.is_some_and(|errors| errors.iter().all(|(_, error)| error.code() == NO_MEMORY));
            if is_full { BusError::Full } else { BusError::Refused }
        })
    }

    /// The same of one command among several.
    pub(super) fn refusal(&self, answer: &Value) -> BusError {
        let Value::ServerError(error) = answer else { return BusError::Refused };
        self.warn_of_refusal(&error.to_string());
        if error.code() == NO_MEMORY { BusError::Full } else { BusError::Refused }
    }

    /// At most once a second.
    pub(super) fn warn_of_refusal(&self, error: &str) {
        let now = Instant::now();
        let before = self.0.warned.lock().replace(now);
        if before.is_none_or(|before| now - before >= Duration::from_secs(1)) {
            tracing::warn!(error, cluster.redis = self.masked(), "the engine refused a command");
        } else {
            *self.0.warned.lock() = before;
        }
    }

    /// Drops a connection that is of no use any more: everything is refused until there is another one.
    pub(super) fn give_up(&self, generation: u64, reason: &'static str) {
        let dropped = self.0.current.send_if_modified(|current| {
            let is_current = current.as_ref().is_some_and(|current| current.generation == generation);
            if is_current {
                *current = None;
            }
            is_current
        });
        if dropped {
            tracing::warn!(cluster.redis = self.masked(), reason, "the connection to the engine is lost");
        }
    }

    /// Opens the connection, and notes it.
    pub(super) async fn connect(&self, generation: u64) -> Result<(), ConnectError> {
        let opened = timeout(self.0.deadline * CONNECT_DEADLINES, self.open_first(generation)).await;
        let connected = opened.map_err(|_| ConnectError::Unreachable(None))??;
        self.0.current.send_replace(Some(connected));
        Ok(())
    }

    /// Begins another attempt after each half of a deadline, and returns what the first one comes to that ends: if a packet that opens a
    /// connection is lost, the kernel sends it again after a second only, and then later and later.
    async fn open_first(&self, generation: u64) -> Result<Connected, ConnectError> {
        let (mut attempts, mut ticks) = (FuturesUnordered::new(), interval(self.0.deadline / 2));
        loop {
            tokio::select! {
                _ = ticks.tick() => attempts.push(self.open_probed(generation)),
                Some(opened) = attempts.next() => return opened,
            }
        }
    }

    /// Opens a connection for commands, if the engine will do.
    async fn open_probed(&self, generation: u64) -> Result<Connected, ConnectError> {
        let (mut connection, _) = self.open(AsyncConnectionConfig::new()).await?;
        let Probed { replication_id, run_id, may_kill } =
            probe::probe(&mut connection, self.masked(), &self.single("probe")).await?;
        Ok(Connected { connection, generation, replication_id, run_id, may_kill })
    }

    /// Opens one more connection, and returns it with its id at the engine.
    pub(super) async fn open(
        &self,
        config: AsyncConnectionConfig,
    ) -> Result<(MultiplexedConnection, i64), ConnectError> {
        let opening = async {
            // Deadlines are ours.
            let config = config
                .set_connection_timeout(None)
                .set_response_timeout(None)
                .set_pipeline_buffer_size(WRITE_QUEUE)
                .set_write_backpressure_boundary(64 * 1024);
            let mut connection = self.0.address.connect(config).await?;
            let id = redis::cmd("CLIENT").arg("ID").query_async(&mut connection).await?;
            Ok((connection, id))
        };
        let opened = timeout(self.0.deadline * CONNECT_DEADLINES, opening).await;
        opened.map_err(|_| ConnectError::Unreachable(None))?
    }

    /// Keeps a connection open, after the attempt of the start.
    pub(super) async fn keep_connected(self) {
        let mut current = self.watch();
        let mut generation = 1;
        loop {
            // The sender is ours.
            let _ = current.wait_for(Option::is_none).await;
            sleep(backoff()).await;
            generation += 1;
            match self.connect(generation).await {
                Ok(()) => tracing::info!(cluster.redis = self.masked(), "connected to the engine"),
                Err(ConnectError::Unfit(problem)) => self.warn_of_refusal(&problem),
                Err(error @ ConnectError::Unreachable(_)) => tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    cluster.redis = self.masked(),
                    "the engine is away"
                ),
            }
        }
    }
}

/// The pause before a connection is opened again: nodes that lost the same engine do not come back at one moment.
pub(super) fn backoff() -> Duration {
    let jitter = uuid::Uuid::new_v4().as_bytes()[0];
    Duration::from_millis(50 + u64::from(jitter) * 50 / 255)
}

/// The engine was a primary and is a replica now, or lost the replicas that it needs to write.
fn is_of_replica(error: &RedisError) -> bool {
    matches!(error.code(), Some("READONLY" | "MASTERDOWN" | "LOADING" | "NOREPLICAS"))
}
