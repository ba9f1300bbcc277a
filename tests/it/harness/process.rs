//! The server as a process of its own, whose memory and descriptors are its own.

use std::{
    fs,
    io::{BufRead, BufReader, Lines},
    net::SocketAddr,
    path::Path,
    process::{Child, ChildStderr, Command, Stdio},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bugle::app::Addresses;
use parking_lot::Mutex;
use serde_json::Value;
use tempfile::TempDir;

use super::{API_KEY, Backend, PATIENCE, SECRET, ask, deadline, eventually_within};

/// What a server needs besides what a test asks for.
const CONFIG: &str = r#"
[clients]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[store]
url = "sqlite::memory:"
[log]
format = "json"
[grpc]
listen = "127.0.0.1:0"
"#;

/// How a server is started.
#[derive(Clone, Copy, Default)]
pub struct Launch<'a> {
    /// What the shell does before.
    pub commands: &'a str,
    /// What runs the program, with its arguments: `ip netns exec NAME`.
    pub runner: &'a [&'a str],
    /// Another program than this build's.
    pub program: Option<&'a Path>,
    /// Further lines of the configuration, each a table of its own.
    pub config: &'a str,
    /// The whole environment.
    pub variables: &'a [(&'a str, &'a str)],
}

impl Launch<'_> {
    /// Returns when the server listens. The error is what it logged before it ended without that.
    pub fn start(self) -> Result<ServerProcess, String> {
        let Spawned { mut child, mut lines, directory } = self.spawn();
        let mut logged = String::new();
        let listening = loop {
            let Some(Ok(line)) = lines.next() else {
                child.wait().expect("it is ours");
                return Err(logged);
            };
            logged += &line;
            logged.push('\n');
            let Ok(entry) = serde_json::from_str::<Value>(&line) else { continue };
            if entry["message"] == "listening" {
                break entry;
            }
        };
        let address = |name: &str| listening[name].as_str().expect("an address").parse().expect("an address");
        let (clients, grpc, admin) = (address("clients.listen"), address("grpc.listen"), address("admin.listen"));
        let addresses = Addresses { clients, grpc, admin };
        Ok(ServerProcess::new(Spawned { child, lines, directory }, addresses, logged))
    }

    /// Stops the server as soon as `moment` has come, though it may not listen by then.
    pub async fn stop_at(self, moment: impl Future<Output = ()>) -> Ended {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let addresses = Addresses { clients: nowhere, grpc: nowhere, admin: nowhere };
        let server = ServerProcess::new(self.spawn(), addresses, String::new());
        moment.await;
        server.stop().await
    }

    fn spawn(self) -> Spawned {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("bugle.toml");
        let keys = format!(
            "[[grpc.api_keys]]\nname = \"test\"\nkey = \"{API_KEY}\"\nscopes = [\"emit\", \"presence\", \"mailbox\"]\n\
             [[auth.jwt.keys]]\nalgorithm = \"HS256\"\nsecret = \"{SECRET}\"\n"
        );
        fs::write(&path, format!("{CONFIG}{keys}{}", self.config)).expect("a file is written");
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{}exec \"$@\"", self.commands), "sh"]).args(self.runner);
        command.arg(self.program.unwrap_or(Path::new(env!("CARGO_BIN_EXE_bugle"))));
        command.args(["serve", "--config"]).arg(&path).env_clear().envs(self.variables.iter().copied());
        command.current_dir(directory.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("a shell runs");
        let lines = BufReader::new(child.stderr.take().expect("its log is ours")).lines();
        Spawned { child, lines, directory }
    }
}

/// A process that may not listen yet.
struct Spawned {
    child: Child,
    /// What it logs.
    lines: Lines<BufReader<ChildStderr>>,
    directory: TempDir,
}

/// `bugle serve`. It is killed with its value.
pub struct ServerProcess {
    child: Child,
    pub clients: SocketAddr,
    pub grpc: SocketAddr,
    pub admin: SocketAddr,
    /// What it logged before it listened.
    pub logged: String,
    /// What it has logged since then.
    log: Arc<Mutex<String>>,
    /// Ends with the process.
    reader: Option<JoinHandle<()>>,
    /// Where it runs.
    pub directory: TempDir,
}

/// How a process ended that was asked to.
#[derive(Debug)]
pub struct Ended {
    /// How long it took.
    pub took: Duration,
    /// Whether its exit code is 0.
    pub is_good: bool,
    /// What it logged since it listened.
    pub log: String,
}

impl Ended {
    /// The last line of the log, without its time.
    pub fn last_message(&self) -> String {
        let last = self.log.lines().last().unwrap_or_default();
        let entry = serde_json::from_str::<Value>(last).unwrap_or_default();
        entry["message"].as_str().unwrap_or(last).to_owned()
    }
}

impl ServerProcess {
    /// `logged`: what was read of its log.
    fn new(spawned: Spawned, Addresses { clients, grpc, admin }: Addresses, logged: String) -> Self {
        let Spawned { child, lines, directory } = spawned;
        let log = Arc::new(Mutex::new(String::new()));
        let further = log.clone();
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                *further.lock() += &(line + "\n");
            }
        });
        Self { child, clients, grpc, admin, logged, log, reader: Some(reader), directory }
    }

    /// With these further lines of the configuration, each a table of its own.
    pub fn start(config: &str) -> Self {
        Self::start_after("", config, &[])
    }

    /// The same with so many file descriptors.
    pub fn start_with_files(config: &str, files: u32) -> Self {
        Self::start_after(&format!("ulimit -n {files}; "), config, &[])
    }

    /// The same after the shell has done this, with these variables.
    pub fn start_after(commands: &str, config: &str, variables: &[(&str, &str)]) -> Self {
        let launch = Launch { commands, config, variables, ..Launch::default() };
        launch.start().unwrap_or_else(|logged| panic!("the server ended before it listened:\n{logged}"))
    }

    /// What it says that keeps it from starting.
    pub fn refusal(config: &str, variables: &[(&str, &str)]) -> String {
        Launch { config, variables, ..Launch::default() }.start().err().expect("it does not start")
    }

    pub async fn backend(&self) -> Backend {
        Backend::connect(self.grpc, API_KEY).await
    }

    /// Waits until it is ready, or until it is not. A store that hangs is noticed after its own deadlines, which are 8 and 16 s.
    #[track_caller]
    pub fn is_ready(&self, is_ready: bool) -> impl Future<Output = ()> {
        let what = if is_ready { "the server to be ready" } else { "the server not to be ready" };
        eventually_within(4 * PATIENCE, what, async move || self.readiness().await == if is_ready { 200 } else { 503 })
    }

    /// What `/readyz` answers.
    pub async fn readiness(&self) -> u16 {
        ask(self.admin, "GET", "/readyz", "").await.status
    }

    /// Resident memory in MiB.
    pub fn memory(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the process is there");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory is told");
        let kibibytes: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kibibytes / 1024
    }

    /// How many file descriptors it holds.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("the process is there").count()
    }

    /// The id of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged since it listened.
    pub fn log(&self) -> String {
        self.log.lock().clone()
    }

    /// Ends it at once, as a crash does.
    pub fn kill_9(&mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it is ours");
    }

    /// Stops it from running: its connections stay.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// Lets it run on after [`ServerProcess::pause`].
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(sent.expect("kill is there").success());
    }

    /// Stops it as a service manager does.
    #[track_caller]
    pub fn stop(mut self) -> impl Future<Output = Ended> {
        self.signal("-TERM");
        let begun = Instant::now();
        deadline("the end of the process", async move {
            let is_good = self.end().await;
            let took = begun.elapsed();
            let reader = self.reader.take().expect("it is stopped once");
            reader.join().expect("reading does not panic");
            Ended { took, is_good, log: self.log() }
        })
    }

    /// Waits until it ends by itself; whether it ended well.
    pub async fn ended(&mut self) -> bool {
        tokio::time::timeout(2 * PATIENCE, self.end()).await.expect("the process ends")
    }

    async fn end(&mut self) -> bool {
        loop {
            if let Some(status) = self.child.try_wait().expect("it is ours") {
                return status.success();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for ServerProcess {
    #[expect(clippy::print_stderr, reason = "it is shown if the test fails")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the server has logged:\n{}{}", self.logged, self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
