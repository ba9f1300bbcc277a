//! A Redis of the tests' own.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Mutex, OnceLock},
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// What its supervisor does: a command a line, each answered by a line. At the end of its input the server is killed, so it does not outlive this
/// process, however that ends.
const SUPERVISOR: &str = r#"
while read -r command; do
  answer=done
  case $command in
    start) "$@" >>log 2>&1 & pid=$!; answer=$pid ;;
    kill) kill -KILL $pid; wait $pid 2>/dev/null; pid= ;;
    pause) kill -STOP $pid ;;
    resume) kill -CONT $pid ;;
  esac
  echo $answer
done
[ -z "$pid" ] || kill -KILL $pid
wait
"#;

/// How long a server may take to start.
const START: Duration = Duration::from_secs(30);

/// A server on a free port, with its data in a directory of its own. It is killed with its value.
pub struct TestRedis {
    port: u16,
    supervisor: Mutex<Supervisor>,
    _directory: TempDir,
}

struct Supervisor {
    shell: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl TestRedis {
    /// The one that servers of this process share. Each uses a prefix of its own.
    pub fn shared() -> &'static Self {
        static SERVER: OnceLock<TestRedis> = OnceLock::new();
        SERVER.get_or_init(|| Self::start(false))
    }

    /// With or without an append-only file, from which a restart has the data again.
    pub fn start(append_only: bool) -> Self {
        Self::start_at(append_only, &[])
    }

    /// The same, which listens at these addresses besides loopback.
    pub fn start_at(append_only: bool, addresses: &[IpAddr]) -> Self {
        let begun = Instant::now();
        loop {
            if let Some(server) = Self::try_start(append_only, addresses, &[]) {
                return server;
            }
            assert!(begun.elapsed() < START, "no Redis starts on any port");
        }
    }

    /// With these options, and one that names a free port more, which is returned.
    pub fn start_with_port(option: &str, options: &[&str]) -> (Self, u16) {
        let begun = Instant::now();
        loop {
            let port = free_port();
            if let Some(server) = Self::try_start(false, &[], &[&[option, &port.to_string()], options].concat()) {
                return (server, port);
            }
            assert!(begun.elapsed() < START, "no Redis starts with {options:?}");
        }
    }

    /// `None` if another process took the port first.
    fn try_start(append_only: bool, addresses: &[IpAddr], options: &[&str]) -> Option<Self> {
        let port = free_port();
        let directory = tempfile::tempdir().expect("a directory");
        let mut shell = Command::new("sh");
        shell.args(["-c", SUPERVISOR, "sh", "redis-server", "--save", "", "--port", &port.to_string()]);
        shell.args(["--appendonly", if append_only { "yes" } else { "no" }, "--protected-mode", "no"]);
        shell.args(["--bind", "127.0.0.1"]).args(addresses.iter().map(ToString::to_string)).args(options);
        shell.current_dir(directory.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = shell.spawn().expect("a shell runs");
        let commands = shell.stdin.take();
        let answers = BufReader::new(shell.stdout.take().expect("its output is ours"));
        let supervisor = Mutex::new(Supervisor { shell, commands, answers });
        let server = Self { port, supervisor, _directory: directory };
        server.launch().then_some(server)
    }

    /// What `cluster.redis` wants.
    pub fn url(&self) -> String {
        self.url_at([127, 0, 0, 1].into())
    }

    /// The same at another address.
    pub fn url_at(&self, address: IpAddr) -> String {
        format!("redis://{}", SocketAddr::from((address, self.port)))
    }

    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// Ends it at once, as a crash does.
    pub fn kill_9(&self) {
        self.order("kill");
    }

    /// Starts it again after [`TestRedis::kill_9`], on the same port and over the same files, and waits until it has loaded them.
    pub fn restart(&self) {
        assert!(self.launch(), "another process has the port of Redis");
    }

    /// Stops it from running: its connections stay, and nothing is answered.
    pub fn pause(&self) {
        self.order("pause");
    }

    /// Lets it run on after [`TestRedis::pause`].
    pub fn resume(&self) {
        self.order("resume");
    }

    /// What `redis-cli` answers to a command, which must be accepted.
    pub fn cli(&self, command: &[&str]) -> String {
        let mut cli = Command::new("redis-cli");
        cli.args(["-e", "-p", &self.port.to_string()]).args(command).stdin(Stdio::null());
        let output = cli.output().expect("redis-cli runs");
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("an answer is text").trim_end().to_owned()
    }

    /// Starts the server and waits until it has loaded its data. `false`: it has ended.
    fn launch(&self) -> bool {
        let pid = self.order("start");
        let begun = Instant::now();
        loop {
            let info = self.ask("INFO");
            if info.contains(&format!("\r\nprocess_id:{pid}\r\n")) && info.contains("\r\nloading:0\r\n") {
                return true;
            }
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            if stat.is_empty() || stat.contains(") Z ") {
                return false;
            }
            assert!(begun.elapsed() < START, "Redis does not start: {info}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The answer to a command, or as much of it as came. Empty if nobody listens.
    fn ask(&self, command: &str) -> String {
        let mut answer = Vec::new();
        if let Ok(mut socket) = TcpStream::connect(self.address()) {
            let _ = socket.set_read_timeout(Some(START));
            let _ = write!(socket, "{command}\r\nQUIT\r\n");
            let _ = socket.read_to_end(&mut answer);
        }
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn order(&self, command: &str) -> String {
        let mut supervisor = self.supervisor.lock().expect("no order panics");
        let commands = supervisor.commands.as_mut().expect("they are taken at the end alone");
        writeln!(commands, "{command}").expect("the supervisor reads");
        let mut answer = String::new();
        supervisor.answers.read_line(&mut answer).expect("the supervisor answers");
        answer.trim_end().to_owned()
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port is free").port()
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        drop(self.commands.take());
        let _ = self.shell.wait();
    }
}

#[tokio::test]
async fn a_private_redis_loses_its_data_unless_it_has_an_append_only_file() {
    for append_only in [false, true] {
        let redis = TestRedis::start(append_only);
        assert_eq!(redis.cli(&["SET", "a", "1"]), "OK");
        // So much that it takes a while to load, in which commands are refused.
        redis.cli(&["EVAL", "for n = 1, 300000 do redis.call('SET', n, n) end", "0"]);
        redis.kill_9();
        assert!(TcpStream::connect(redis.address()).is_err());
        redis.restart();
        assert_eq!(redis.cli(&["GET", "a"]), if append_only { "1" } else { "" });
    }
}
