//! A Sentinel of the tests' own.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::time::interval;

use crate::harness::{TestRedis, deadline};

/// The pause between two questions.
const PAUSE: Duration = Duration::from_millis(20);
/// Longer than a fail-over.
const LONG: Duration = Duration::from_secs(30);

/// A Sentinel that watches a primary. It is killed with its value.
pub struct Sentinel {
    port: u16,
    process: Child,
    _directory: tempfile::TempDir,
}

impl Sentinel {
    pub fn start(primary: &TestRedis) -> Self {
        let port =
            std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("sentinel.conf");
        let watched = primary.address().port();
        let lines = [
            format!("port {port}"),
            "bind 127.0.0.1".to_owned(),
            format!("sentinel monitor primary 127.0.0.1 {watched} 1"),
            "sentinel down-after-milliseconds primary 500".to_owned(),
            "sentinel failover-timeout primary 3000".to_owned(),
        ];
        std::fs::write(&file, lines.join("\n")).expect("the file is written");
        let mut command = Command::new("redis-server");
        let process = command.arg(&file).arg("--sentinel").stdout(Stdio::null()).spawn().expect("redis-server runs");
        Self { port, process, _directory: directory }
    }

    /// What `cluster.redis` wants.
    pub fn url(&self) -> String {
        format!("redis+sentinel://127.0.0.1:{}/primary", self.port)
    }

    /// Waits until it knows the replica of its primary.
    pub async fn knows_the_replica(&self) {
        let known = async {
            let mut pauses = interval(PAUSE);
            while !self.ask(&["SENTINEL", "replicas", "primary"]).contains("slave-priority") {
                pauses.tick().await;
            }
        };
        deadline("the Sentinel to know the replica", known).await;
    }

    /// Waits until it names this one as the primary.
    pub async fn names(&self, primary: &TestRedis) {
        let port = primary.address().port().to_string();
        let named = async {
            let mut pauses = interval(PAUSE);
            while !self.ask(&["SENTINEL", "get-master-addr-by-name", "primary"]).contains(&port) {
                pauses.tick().await;
            }
        };
        tokio::time::timeout(LONG, named).await.expect("the Sentinel decides for the replica");
    }

    /// What it answers, if it does.
    fn ask(&self, command: &[&str]) -> String {
        let output = Command::new("redis-cli").args(["-p", &self.port.to_string()]).args(command).output();
        String::from_utf8(output.expect("redis-cli runs").stdout).expect("an answer is text")
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
