//! An engine between nodes of one's own: a `redis-server` as a child process.

use std::{
    fs::{self, File},
    io::{self, Write},
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use secrecy::{ExposeSecret, SecretString};

use super::{
    Error,
    server::{Directory, last_lines, random},
};

/// A running engine that keeps nothing on disk. It is killed when this is dropped.
pub struct Engine {
    child: Child,
    directory: Directory,
    port: u16,
    password: SecretString,
}

const PROGRAM: &str = "redis-server";
const READY: &str = "Ready to accept connections";
const START_TIMEOUT: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Another process may take a port that was free when it was looked for.
const ATTEMPTS: usize = 5;

impl Engine {
    /// Runs the `redis-server` that is in PATH on a free port of loopback, and waits until it listens.
    pub async fn start() -> Result<Self, Error> {
        let mut log = String::new();
        for _ in 0..ATTEMPTS {
            let mut engine = Self::launch().map_err(Error::Engine)?;
            match engine.ready().await.map_err(Error::Engine)? {
                None => return Ok(engine),
                Some(text) => log = text,
            }
        }
        Err(Error::EngineStart(last_lines(&log)))
    }

    fn launch() -> io::Result<Self> {
        let directory = Directory::new().map_err(io::Error::other)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let password = random();
        let child = Command::new(PROGRAM)
            .arg("-")
            .current_dir(directory.path())
            .stdin(Stdio::piped())
            .stdout(File::create(directory.path().join("log"))?)
            .stderr(Stdio::null())
            .spawn()?;
        let mut engine = Self { child, directory, port, password };
        let configuration = engine.configuration();
        // The password is in no argument, which other users of the machine can see.
        match engine.child.stdin.take() {
            Some(mut input) => input.write_all(configuration.as_bytes())?,
            None => return Err(io::ErrorKind::BrokenPipe.into()),
        }
        Ok(engine)
    }

    fn configuration(&self) -> String {
        let (port, password) = (self.port, self.password.expose_secret());
        format!("bind 127.0.0.1\nport {port}\nsave \"\"\nappendonly no\ndaemonize no\nrequirepass {password}\n")
    }

    /// Its log, if it did not start.
    async fn ready(&mut self) -> io::Result<Option<String>> {
        let begun = Instant::now();
        loop {
            let text = fs::read_to_string(self.directory.path().join("log"))?;
            if text.contains(READY) {
                return Ok(None);
            }
            if self.child.try_wait()?.is_some() || begun.elapsed() > START_TIMEOUT {
                return Ok(Some(text));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// What `cluster.redis` has for it.
    pub fn url(&self) -> String {
        format!("redis://:{}@127.0.0.1:{}", self.password.expose_secret(), self.port)
    }

    /// The process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
