//! The server as a process of its own, whose memory and descriptors are its own.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{API_KEY, Backend, SECRET, deadline};

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

/// `bugle serve`. It is killed with its value.
pub struct ServerProcess {
    child: Child,
    pub clients: SocketAddr,
    pub grpc: SocketAddr,
    pub admin: SocketAddr,
    /// What it logged before it listened.
    pub logged: String,
    /// Where it runs.
    pub directory: TempDir,
}

impl ServerProcess {
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
        let (mut child, directory) = spawn(commands, config, variables);
        let mut lines = BufReader::new(child.stderr.take().expect("its log is ours")).lines();
        let mut logged = String::new();
        let listening = loop {
            let Some(Ok(line)) = lines.next() else { panic!("the server ended before it listened:\n{logged}") };
            logged += &line;
            logged.push('\n');
            let Ok(entry) = serde_json::from_str::<Value>(&line) else { continue };
            if entry["message"] == "listening" {
                break entry;
            }
        };
        std::thread::spawn(move || lines.for_each(drop));
        let address = |name: &str| listening[name].as_str().expect("an address").parse().expect("an address");
        let (clients, grpc, admin) = (address("clients.listen"), address("grpc.listen"), address("admin.listen"));
        Self { child, clients, grpc, admin, logged, directory }
    }

    /// What it says that keeps it from starting.
    pub fn refusal(config: &str, variables: &[(&str, &str)]) -> String {
        let (child, _directory) = spawn("", config, variables);
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).expect("its log is text")
    }

    pub async fn backend(&self) -> Backend {
        Backend::connect(self.grpc, API_KEY).await
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

    /// Stops it as a service manager does; how long that took, and whether it ended well.
    #[track_caller]
    pub fn stop(mut self) -> impl Future<Output = (Duration, bool)> {
        self.signal("-TERM");
        let begun = Instant::now();
        deadline("the end of the process", async move {
            loop {
                if let Some(status) = self.child.try_wait().expect("it is ours") {
                    return (begun.elapsed(), status.success());
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
    }
}

/// Runs the binary in a directory of its own.
fn spawn(commands: &str, config: &str, variables: &[(&str, &str)]) -> (Child, TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("bugle.toml");
    let keys = format!(
        "[[grpc.api_keys]]\nname = \"test\"\nkey = \"{API_KEY}\"\nscopes = [\"emit\", \"presence\"]\n\
         [[auth.jwt.keys]]\nalgorithm = \"HS256\"\nsecret = \"{SECRET}\"\n"
    );
    fs::write(&path, format!("{CONFIG}{keys}{config}")).expect("a file is written");
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{commands}exec \"$0\" serve --config \"$1\"")]);
    command.arg(env!("CARGO_BIN_EXE_bugle")).arg(&path).env_clear().envs(variables.iter().copied());
    command.current_dir(directory.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().expect("a shell runs");
    (child, directory)
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
