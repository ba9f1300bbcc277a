//! The release binary as a child process, and what it takes up.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use bugle::bench::{Admin, Backend, Fleet, Place, Setup, Speech, token, user};
use serde_json::{Value, json};

/// A running server. It is killed when this is dropped.
pub struct Server {
    running: bugle::bench::Server,
    admin: Admin,
}

impl Server {
    /// On loopback.
    pub async fn start() -> Self {
        Self::start_with(Setup::default()).await
    }

    /// With what is stored in this database; none: a file of its own.
    pub async fn start_storing(url: Option<&str>) -> Self {
        Self::start_with(Setup { store: url.map(str::to_owned), ..Setup::default() }).await
    }

    /// With devices connecting to this address.
    pub async fn start_at(devices: IpAddr) -> Self {
        Self::start_with(Setup { devices, ..Setup::default() }).await
    }

    /// With these keys of `[store]` (TOML) and the benches' own configuration, as a process of this program.
    pub async fn start_program(program: &Path, setup: &Setup) -> Self {
        let (devices, store) = (setup.devices, setup.store.clone());
        let setup = Setup { devices, store, more: format!("{}{CONFIGURATION}", setup.more) };
        let running = bugle::bench::Server::start(program, &setup).await.expect("the server starts");
        let admin = running.admin();
        Self { running, admin }
    }

    async fn start_with(setup: Setup) -> Self {
        Self::start_program(&program(), &setup).await
    }

    /// Where devices connect.
    pub fn devices(&self) -> Place {
        self.running.devices().into()
    }

    /// A backend with a connection of its own.
    pub async fn backend(&self) -> Backend {
        let url = format!("http://{}", self.running.grpc());
        Backend::connect(&url, self.running.api_key()).await.expect("the gRPC port is open")
    }

    /// Devices that only count.
    pub async fn counting(&self, tokens: Vec<String>) -> Fleet {
        self.silent(Speech::SocketIo, tokens).await
    }

    /// Devices that speak this and only count.
    pub async fn silent(&self, speech: Speech, tokens: Vec<String>) -> Fleet {
        Fleet::counting(&self.devices(), speech, tokens).await.expect("the devices connect")
    }

    /// Devices that tell of each event.
    pub async fn noting(&self, tokens: Vec<String>, on_event: impl Fn(usize, &[u8]) + Send + Sync + 'static) -> Fleet {
        let mut fleet = Fleet::default();
        fleet.connect(&self.devices(), Speech::SocketIo, tokens, on_event).await.expect("the devices connect");
        fleet
    }

    /// The process.
    pub fn process(&self) -> u32 {
        self.running.process()
    }

    /// Resident memory, in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.running.process())).expect("the server runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a resident size");
        line.trim().trim_end_matches(" kB").parse().expect("a number of KiB")
    }

    /// Open sockets. The store opens and closes files meanwhile, which say nothing of devices.
    pub fn sockets(&self) -> usize {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.running.process()));
        let is_socket = |entry: io::Result<fs::DirEntry>| {
            // It may be closed by now.
            let target = entry.and_then(|entry| fs::read_link(entry.path())).unwrap_or_default();
            target.as_os_str().as_encoded_bytes().starts_with(b"socket:")
        };
        entries.expect("the server runs").map(is_socket).filter(|is_socket| *is_socket).count()
    }

    /// How many connections were closed for this reason.
    pub async fn closes(&self, reason: &str) -> u64 {
        let name = format!(r#"bugle_closes_total{{reason="{reason}"}} "#);
        let metrics = self.admin.metrics().await.expect("the admin port answers");
        let count = metrics.lines().find_map(|line| line.strip_prefix(&name));
        count.map_or(0, |count| count.parse().expect("a number of closes"))
    }

    /// A token for this user that joins these rooms, each as `shared:ROOM`.
    pub fn token(&self, user: &str, shared: &[String]) -> String {
        let Value::Object(claims) = json!({ "sub": user, "shared": shared }) else {
            unreachable!("it is written as an object");
        };
        token(claims, self.running.secret()).expect("the token is minted")
    }

    /// Tokens for so many users, each of whom is in these rooms.
    pub fn tokens(&self, users: usize, shared: &[&str]) -> Vec<String> {
        let shared: Vec<_> = shared.iter().map(ToString::to_string).collect();
        (0..users).map(|number| self.token(&user(number), &shared)).collect()
    }
}

/// The binary of this build, or another one, to compare the two.
pub fn program() -> PathBuf {
    std::env::var_os("BUGLE_BENCH_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_bugle").into()).into()
}

const CONFIGURATION: &str = r#"
    [[websocket]]
    path = "/plain"
    events = ["*"]
    [auth]
    rooms = ["shared:{claim.shared}"]
"#;

/// Waits until so many events have come to the fleet.
pub async fn expect(fleet: &Fleet, arrived: u64) {
    let tally = fleet.tally();
    let came = tokio::time::timeout(Duration::from_secs(30), tally.reach(arrived)).await;
    assert!(came.is_ok(), "{} of {arrived} events came", tally.arrived());
}
