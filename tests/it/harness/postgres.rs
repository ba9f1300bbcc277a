//! A PostgreSQL of the tests' own.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Mutex, OnceLock},
    time::{Duration, Instant},
};

/// What its supervisor does: a command a line, each answered by a line. At the end of its input the server is stopped, so it does not outlive this
/// process, however that ends.
const SUPERVISOR: &str = r#"
program=$1 directory=$2 port=$3
shift 3
while read -r command; do
  case $command in
    start) "$program" -D "$directory/data" -p "$port" -k "$directory" -c listen_addresses=127.0.0.1 "$@" >>"$directory/log" 2>&1 & pid=$! ;;
    kill) kill -KILL $pid; wait $pid 2>/dev/null ;;
    stop) kill -INT $pid; wait $pid ;;
  esac
  echo $pid
done
kill -INT $pid 2>/dev/null
wait
rm -rf "$directory"
"#;

/// How long it may take to start.
const START: Duration = Duration::from_secs(30);

/// A server that ends with this process, even if it is killed.
pub struct Postgres {
    pub port: u16,
    /// What its files are in.
    pub directory: PathBuf,
    supervisor: Mutex<Supervisor>,
}

struct Supervisor {
    _shell: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// The address of a new, empty database. The server is started once, on a free port, in a directory of its own.
pub fn new_database() -> String {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    let server = SERVER.get_or_init(|| Postgres::start(&["-c", "ssl=off", "-c", "max_connections=200"], |_| ()));
    server.url(&server.new_database())
}

pub fn psql(port: u16) -> Command {
    let mut psql = Command::new("psql");
    psql.args(["-h", "127.0.0.1", "-U", "postgres", "-p", &port.to_string()]);
    psql
}

impl Postgres {
    /// With these further arguments, and the files that are made in its directory before it starts.
    pub fn start(arguments: &[&str], make_files: impl FnOnce(&Path)) -> Self {
        Self::start_over(arguments, |directory| {
            make_files(directory);
            let mut initialise = Command::new(program("initdb"));
            initialise.args(["--auth=trust", "--username=postgres", "--no-sync", "--encoding=UTF8", "--locale=C"]);
            initialise
        })
    }

    /// A standby, to which this one streams what is committed.
    pub fn start_standby(&self) -> Self {
        let port = self.port.to_string();
        Self::start_over(&["-c", "ssl=off"], |_| {
            let mut copy = Command::new(program("pg_basebackup"));
            copy.args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-X", "stream", "-R", "-c", "fast", "-N"]);
            copy
        })
    }

    /// `prepare` returns the command that makes the data, in a directory that follows its arguments.
    fn start_over(arguments: &[&str], prepare: impl FnOnce(&Path) -> Command) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port is free").port();
        let directory = std::env::temp_dir().join(format!("bugle-postgres-{}-{port}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory can be made");
        let mut initialise = prepare(&directory);
        initialise.arg("-D").arg(directory.join("data")).stdout(Stdio::null());
        // The server refuses to run as root.
        if let Some((user, group)) = other_user() {
            let files = fs::read_dir(&directory).expect("it can be read").map(|entry| entry.expect("a file").path());
            for path in files.chain([directory.clone()]) {
                chown(path, Some(user), Some(group)).expect("files can be given away");
            }
            initialise.uid(user).gid(group);
        }
        assert!(initialise.current_dir("/tmp").status().expect("it runs").success());
        let mut shell = Command::new("sh");
        shell.args(["-c", SUPERVISOR, "sh"]).arg(program("postgres")).arg(&directory);
        shell.arg(port.to_string()).args(arguments);
        if let Some((user, group)) = other_user() {
            shell.uid(user).gid(group);
        }
        let shell = shell.current_dir("/tmp").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut shell = shell.expect("a shell runs");
        let commands = shell.stdin.take().expect("its input is ours");
        let answers = BufReader::new(shell.stdout.take().expect("its output is ours"));
        let server = Self { port, directory, supervisor: Mutex::new(Supervisor { _shell: shell, commands, answers }) };
        server.launch();
        server
    }

    /// Ends the server's first process at once. The others see that, and end by themselves.
    pub fn kill_9(&self) {
        self.order("kill");
    }

    /// Stops it as an administrator does who does not wait for its clients.
    pub fn stop(&self) {
        self.order("stop");
    }

    /// Starts it over its data after [`Postgres::kill_9`] or [`Postgres::stop`], and waits until it answers.
    pub fn launch(&self) {
        let begun = Instant::now();
        let mut pid = self.order("start");
        while self.ask("SELECT 1").is_err() {
            assert!(begun.elapsed() < START, "PostgreSQL did not start: see {}", self.directory.display());
            std::thread::sleep(Duration::from_millis(20));
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            if stat.is_empty() || stat.contains(") Z ") {
                // Processes of the one that was killed have its memory for a moment.
                pid = self.order("start");
            }
        }
    }

    fn order(&self, command: &str) -> String {
        let mut supervisor = self.supervisor.lock().expect("no order panics");
        writeln!(supervisor.commands, "{command}").expect("the supervisor reads");
        let mut answer = String::new();
        supervisor.answers.read_line(&mut answer).expect("the supervisor answers");
        answer.trim_end().to_owned()
    }

    /// The address of one of its databases.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The name of a database that is made for it.
    pub fn new_database(&self) -> String {
        let name = format!("test_{}", uuid());
        self.ask(&format!("CREATE DATABASE {name}")).expect("the database is made");
        name
    }

    /// Restarts it with the same arguments, and waits until it answers.
    pub fn restart(&self) {
        self.stop();
        self.launch();
    }

    fn ask(&self, sql: &str) -> Result<(), ()> {
        let done = psql(self.port).args(["-qc", sql]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if done.is_ok_and(|done| done.success()) { Ok(()) } else { Err(()) }
    }
}

fn uuid() -> String {
    bugle::message::ConnectionId::random().to_string().replace('-', "")
}

/// Debian keeps them out of the path.
fn program(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<_> =
        versions.map(|version| version.path().join("bin").join(name)).filter(|path| path.exists()).collect();
    found.sort();
    found.pop().unwrap_or_else(|| name.into())
}

/// The user and the group that Debian's package makes, for root.
fn other_user() -> Option<(u32, u32)> {
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    let users = fs::read_to_string("/etc/passwd").ok().filter(|_| is_root)?;
    let fields: Vec<_> = users.lines().find(|line| line.starts_with("postgres:"))?.split(':').collect();
    Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
}
