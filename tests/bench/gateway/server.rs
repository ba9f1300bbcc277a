//! The release binary as a child process, and what it takes up.

use std::{
    ffi::OsString,
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, SystemTime},
};

use bugle::auth::{KeyConfig, mint};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The API key that may do everything.
pub const API_KEY: &str = "an-api-key-of-thirty-two-bytes-or-more";
const SECRET: &str = "a-secret-of-thirty-two-bytes-or-more";
/// What the kernel counts processor time in (`USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;

/// A running server. It is killed when this is dropped.
pub struct Server {
    child: Child,
    directory: PathBuf,
    clients: SocketAddr,
    grpc: SocketAddr,
    admin: SocketAddr,
}

impl Server {
    /// On loopback.
    pub async fn start() -> Self {
        Self::start_at("127.0.0.1").await
    }

    /// With what is stored in this database; none: a file of its own.
    pub async fn start_storing(url: Option<&str>) -> Self {
        Self::start_with("127.0.0.1", url).await
    }

    /// With devices connecting to this address.
    pub async fn start_at(clients: &str) -> Self {
        Self::start_with(clients, None).await
    }

    async fn start_with(clients: &str, store: Option<&str>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("bugle-bench-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).expect("a directory for the server can be made");
        let (config, log) = (directory.join("bugle.toml"), directory.join("log"));
        let file = format!("sqlite:{}/bugle.db", directory.display());
        fs::write(&config, configuration(clients, store.unwrap_or(&file))).expect("the configuration can be written");
        let mut child = Command::new(program())
            .args(["serve".as_ref(), "--config".as_ref(), config.as_os_str()])
            .env_clear()
            .stderr(fs::File::create(&log).expect("the log can be written"))
            .stdout(Stdio::null())
            .spawn()
            .expect("the server can be run");
        let line = loop {
            let text = fs::read_to_string(&log).expect("the log can be read");
            if let Some(line) = text.lines().find(|line| line.contains(r#""clients.listen""#) && line.ends_with('}')) {
                break line.to_owned();
            }
            assert!(child.try_wait().is_ok_and(|ended| ended.is_none()), "the server did not start:\n{text}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let address = |key| address_in(&line, key);
        Self { child, directory, clients: address("clients"), grpc: address("grpc"), admin: address("admin") }
    }

    pub fn clients(&self) -> SocketAddr {
        self.clients
    }

    pub fn grpc(&self) -> SocketAddr {
        self.grpc
    }

    /// Processor time so far, in microseconds: its own and the kernel's for it.
    pub fn cpu_micros(&self) -> u64 {
        let stat = self.proc("stat");
        let fields: Vec<_> = stat.rsplit(") ").next().expect("a name in brackets").split(' ').collect();
        let ticks = |place: usize| fields[place].parse::<u64>().expect("a number of ticks");
        // utime and stime are the 14th and the 15th field; the first two ended with the bracket.
        (ticks(11) + ticks(12)) * 1_000_000 / TICKS_PER_SECOND
    }

    /// Resident memory, in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a resident size");
        line.trim().trim_end_matches(" kB").parse().expect("a number of KiB")
    }

    /// Open file descriptors.
    pub fn descriptors(&self) -> usize {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.child.id()));
        entries.expect("the server runs").count()
    }

    fn proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).expect("the server runs")
    }

    /// How many connections were closed for this reason.
    pub async fn closes(&self, reason: &str) -> u64 {
        let name = format!(r#"bugle_closes_total{{reason="{reason}"}} "#);
        let metrics = self.metrics().await;
        let count = metrics.lines().find_map(|line| line.strip_prefix(&name));
        count.map_or(0, |count| count.parse().expect("a number of closes"))
    }

    async fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(self.admin).await.expect("the admin port is open");
        let request = "GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.expect("the admin port reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("the admin port answers");
        answer
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// The binary of this build, or another one, to compare the two.
fn program() -> OsString {
    std::env::var_os("BUGLE_BENCH_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_bugle").into())
}

fn configuration(clients: &str, store: &str) -> String {
    format!(
        r#"
        [clients]
        listen = "{clients}:0"
        plaintext_public = true
        [grpc]
        listen = "127.0.0.1:0"
        [[grpc.api_keys]]
        name = "bench"
        key = "{API_KEY}"
        scopes = ["emit", "presence", "rooms", "disconnect"]
        [admin]
        listen = "127.0.0.1:0"
        [[websocket]]
        path = "/plain"
        events = ["*"]
        [auth]
        rooms = ["shared:{{claim.shared}}"]
        [[auth.jwt.keys]]
        algorithm = "HS256"
        secret = "{SECRET}"
        [store]
        url = "{store}"
        [log]
        format = "json"
        "#
    )
}

fn address_in(line: &str, section: &str) -> SocketAddr {
    let key = format!(r#""{section}.listen":""#);
    let (_, rest) = line.split_once(&key).expect("the log names each address");
    rest.split('"').next().and_then(|address| address.parse().ok()).expect("an address")
}

/// A token for this user that is good for an hour and joins these rooms, each as `shared:ROOM`.
pub fn token(user: &str, shared: &[String]) -> String {
    #[expect(clippy::disallowed_methods, reason = "tokens end by the time of day")]
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is past 1970").as_secs();
    let Value::Object(claims) = json!({ "sub": user, "exp": now + 3_600, "shared": shared }) else {
        unreachable!("it is written as an object");
    };
    let secret = Some(SecretString::from(SECRET));
    let key = KeyConfig { kid: None, algorithm: "HS256".to_owned(), secret, public_key_file: None };
    mint(&key, &claims).expect("the token is minted")
}

/// Tokens for so many users, each of whom is in these rooms.
pub fn tokens(users: usize, shared: &[&str]) -> Vec<String> {
    let shared: Vec<_> = shared.iter().map(ToString::to_string).collect();
    (0..users).map(|number| token(&user(number), &shared)).collect()
}

/// The name of a device's user.
pub fn user(number: usize) -> String {
    format!("user-{number:06}")
}
