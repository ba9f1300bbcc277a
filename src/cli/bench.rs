use std::time::Duration;

use clap::{Args, Subcommand, value_parser};
use humantime_serde::re::humantime::parse_duration;
use secrecy::SecretString;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    Failure,
    figures::table,
    nodes::{self, ManyNodes},
    print, print_json,
    progress::show,
};
use crate::bench;
use crate::bench::{Admin, Backend, Emits, Nodes, Place, Plan, Progress, Report, Server, Setup, Target, To, Work};

/// `bugle bench`: one server with a load, or several nodes.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub struct Bench {
    #[command(subcommand)]
    load: Option<Load>,
    #[command(flatten)]
    many: ManyNodes,
}

/// With what load.
#[derive(Subcommand)]
enum Load {
    /// Connect all devices, leave them idle, and let them go: what a connection costs.
    Connect(Connecting),
    /// Emit to the devices' users in turn, a call each (`EmitToUser`).
    User(Emitting),
    /// Emit to the devices' users in turn on streams (`EmitStream`).
    Stream(Emitting),
    /// Emit to a room that all devices are in (`EmitToRoom`).
    Room(Emitting),
    /// Emit to everyone (`Broadcast`).
    Broadcast(Emitting),
    /// The same as `stream`, with each emit on disk before it is sent.
    Stored(Emitting),
}

/// Devices without emits.
#[derive(Args)]
struct Connecting {
    /// How many devices.
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = value_parser!(u32).range(1..=1_000_000))]
    devices: u32,
    /// How long the server's memory is left to settle, with all devices there and with all gone.
    #[arg(long, value_name = "DURATION", default_value = "7s", value_parser = parse_duration)]
    settle: Duration,
    #[command(flatten)]
    common: Common,
}

/// Devices with emits.
#[derive(Args)]
struct Emitting {
    /// How many devices.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = value_parser!(u32).range(1..=1_000_000))]
    devices: u32,
    /// How many emits are measured; a tenth of it goes before, to warm up [default: 20000; stream: 100000; room and broadcast: 200].
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..=1_000_000_000))]
    emits: Option<u64>,
    /// Emits a second, on a fixed schedule: latencies count from when each was due. None: as fast as the callers go.
    #[arg(long, value_name = "R", value_parser = value_parser!(u32).range(1..=10_000_000))]
    rate: Option<u32>,
    /// The size of the JSON payload.
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = value_parser!(u32).range(0..=3_145_728))]
    payload: u32,
    /// How many callers (or streams) there are, on one connection. Emits to many are at most so many ahead of what the devices have got.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = value_parser!(u32).range(1..=4_096))]
    concurrency: u32,
    #[command(flatten)]
    common: Common,
}

/// Which server, and how to tell.
#[derive(Args)]
struct Common {
    /// Print the figures as one JSON object.
    #[arg(long)]
    json: bool,
    /// Where the server listens for gRPC. None: a server is started for the bench alone, in the temporary directory.
    #[arg(long, value_name = "URL", requires = "devices_url")]
    server: Option<String>,
    /// Where devices connect to that server, such as <http://127.0.0.1:3000>.
    #[arg(long, value_name = "URL", requires = "server")]
    devices_url: Option<String>,
    /// Where the metrics of its process are, such as <http://127.0.0.1:9090>. None: no figures of the server.
    #[arg(long, value_name = "URL", requires = "server")]
    admin: Option<String>,
    /// The API key to call that server with. None: that of the variable `BUGLE_API_KEY`, which other users of the machine cannot see.
    #[arg(long, value_name = "KEY", requires = "server")]
    api_key: Option<SecretString>,
    /// That server's secret (HS256), to mint devices' tokens with. None: that of the variable `BUGLE_BENCH_SECRET`, likewise.
    #[arg(long, value_name = "SECRET", requires = "server")]
    secret: Option<SecretString>,
}

impl Bench {
    /// Measures, and prints the figures.
    pub fn execute(self) -> Result<(), Failure> {
        match (self.load, self.many.plan()) {
            (Some(load), _) => load.execute(),
            (None, Some(plan)) => nodes(&plan, self.many.json),
            (None, None) => Err(Failure::NoLoad),
        }
    }
}

/// Several nodes.
fn nodes(plan: &Nodes, json: bool) -> Result<(), Failure> {
    // As many again, for the node that is alone.
    bench::allow_devices(plan.devices.saturating_mul(2))?;
    let program = std::env::current_exe().map_err(Failure::Program)?;
    let report = run(async |progress| Ok(bench::measure_nodes(&program, plan, progress).await?))?;
    if json { print_json(&report) } else { print(&nodes::table(&report)) }?;
    nodes::faults(&report).map_or(Ok(()), |faults| Err(Failure::Lost(faults)))
}

/// Runs a bench until it has its report, or someone stops it.
fn run<R>(measure: impl AsyncFnOnce(&Progress) -> Result<R, Failure>) -> Result<R, Failure> {
    // Half of the machine, so that a server on it has the other half; and threads that nobody needs cost their waking.
    let threads = (std::thread::available_parallelism().map_or(1, usize::from) / 2).max(1);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(threads).enable_all().build().map_err(Failure::Runtime)?;
    runtime.block_on(async {
        let progress = Progress::default();
        tokio::select! {
            report = measure(&progress) => report,
            stopped = stop_signal() => Err(stopped),
            () = show(&progress) => Err(Failure::Interrupted),
        }
    })
}

impl Load {
    fn execute(self) -> Result<(), Failure> {
        let (plan, common) = self.plan();
        bench::allow_devices(plan.devices)?;
        let report = run(async |progress| common.measure(&plan, progress).await)?;
        if common.json { print_json(&report) } else { print(&table(&report)) }?;
        faults(&report).map_or(Ok(()), |faults| Err(Failure::Lost(faults)))
    }

    fn plan(self) -> (Plan, Common) {
        match self {
            Self::Connect(Connecting { devices, settle, common }) => {
                (Plan { devices: size(devices), work: Work::Connect { settle } }, common)
            }
            Self::User(emitting) => emitting.plan(To::User),
            Self::Stream(emitting) => emitting.plan(To::Stream),
            Self::Room(emitting) => emitting.plan(To::Room),
            Self::Broadcast(emitting) => emitting.plan(To::Broadcast),
            Self::Stored(emitting) => emitting.plan(To::Stored),
        }
    }
}

impl Emitting {
    fn plan(self, to: To) -> (Plan, Common) {
        let count = self.emits.unwrap_or(match to {
            To::User | To::Stored => 20_000,
            To::Stream => 100_000,
            To::Room | To::Broadcast => 200,
        });
        let (payload_bytes, concurrency) = (size(self.payload), size(self.concurrency));
        let emits = Emits { to, count, rate: self.rate, payload_bytes, concurrency };
        (Plan { devices: size(self.devices), work: Work::Emit(emits) }, self.common)
    }
}

fn size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

impl Common {
    async fn measure(&self, plan: &Plan, progress: &Progress) -> Result<Report, Failure> {
        if let Some(target) = self.given().await? {
            return Ok(bench::run(plan, &target, progress).await?);
        }
        let program = std::env::current_exe().map_err(Failure::Program)?;
        let server = Server::start(&program, &Setup::default()).await?;
        let target = Target {
            backend: Backend::connect(&format!("http://{}", server.grpc()), server.api_key()).await?,
            devices: Place::from(server.devices()),
            admin: Some(server.admin()),
            secret: server.secret().clone(),
        };
        Ok(bench::run(plan, &target, progress).await?)
    }

    /// The server that is there already.
    async fn given(&self) -> Result<Option<Target>, Failure> {
        let (Some(server), Some(devices)) = (&self.server, &self.devices_url) else {
            return Ok(None);
        };
        let api_key = &given_or_variable(self.api_key.as_ref(), "--api-key", "BUGLE_API_KEY")?;
        let secret = &given_or_variable(self.secret.as_ref(), "--secret", "BUGLE_BENCH_SECRET")?;
        let devices = bench::place(devices, "devices").await?;
        let admin = match &self.admin {
            Some(admin) => Some(Admin::new(bench::place(admin, "metrics").await?)),
            None => None,
        };
        // Fails now, and not when there is a connection.
        bench::tokens(1, secret)?;
        let backend = Backend::connect(server, api_key).await?;
        Ok(Some(Target { backend, devices, admin, secret: secret.clone() }))
    }
}

/// An option's value, or the variable's.
#[expect(
    clippy::disallowed_methods,
    reason = "clap takes an exported variable for the option itself, and would refuse it where no server is given"
)]
fn given_or_variable(
    given: Option<&SecretString>,
    option: &'static str,
    variable: &'static str,
) -> Result<SecretString, Failure> {
    let of_variable = || std::env::var(variable).ok().filter(|value| !value.is_empty()).map(SecretString::from);
    given.cloned().or_else(of_variable).ok_or(Failure::Missing { option, variable })
}

/// Waits for SIGINT or SIGTERM: what was started is to be stopped then, too.
async fn stop_signal() -> Failure {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Failure::Interrupted
}

/// What is wrong with a run that has figures.
fn faults(report: &Report) -> Option<String> {
    let missing = report.missing.filter(|&missing| missing > 0).map(|missing| {
        let all = missing + report.deliveries.unwrap_or_default();
        format!("{missing} of {all} deliveries are missing, and nothing has come for 30 s")
    });
    let cut_off = report.first_cut.as_ref().map(|first| {
        let devices = if report.cut_off == 1 { "device was" } else { "devices were" };
        format!("{} {devices} cut off: {first}", report.cut_off)
    });
    let faults: Vec<_> = missing.into_iter().chain(cut_off).collect();
    (!faults.is_empty()).then(|| faults.join("\n  "))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        bench: Command,
    }

    #[derive(Subcommand)]
    enum Command {
        Bench(Bench),
    }

    fn one(line: &str) -> Option<Bench> {
        let line = Line::try_parse_from(["bugle"].into_iter().chain(line.split(' ')));
        line.ok().map(|Line { bench: Command::Bench(bench) }| bench)
    }

    #[test]
    fn several_nodes_are_a_bench_without_a_load() {
        let plan = one("bench --nodes 3 --emits 7 --concurrency 5").unwrap().many.plan().unwrap();
        assert_eq!((plan.nodes, plan.emits, plan.in_flight, plan.devices), (3, 7, 5, 64));
        for line in ["bench", "bench --nodes 1", "bench --emits 7", "bench --nodes 2 user", "bench user --nodes 2"] {
            assert!(one(line).is_none(), "{line}");
        }
    }

    fn parsed(line: &str) -> Option<(Plan, Common)> {
        Some(one(line)?.load?.plan())
    }

    fn emits(line: &str) -> Emits {
        match parsed(line).unwrap().0.work {
            Work::Emit(emits) => emits,
            Work::Connect { .. } => panic!("{line} emits nothing"),
        }
    }

    #[test]
    fn each_load_has_a_number_of_emits_of_its_own() {
        for (load, count) in
            [("user", 20_000), ("stream", 100_000), ("stored", 20_000), ("room", 200), ("broadcast", 200)]
        {
            assert_eq!(emits(&format!("bench {load}")).count, count);
        }
        assert_eq!(parsed("bench connect").unwrap().0.devices, 5_000);
        assert_eq!(parsed("bench user").unwrap().0.devices, 1_000);
    }

    #[test]
    fn options_become_the_plan() {
        let emits = emits("bench room --devices 5 --emits 7 --rate 9 --payload 11 --concurrency 13");
        assert_eq!((emits.to, emits.count, emits.rate), (To::Room, 7, Some(9)));
        assert_eq!((emits.payload_bytes, emits.concurrency), (11, 13));
    }

    #[test]
    fn what_makes_no_bench_is_refused() {
        for line in [
            "bench",
            "bench users",
            "bench user --devices 0",
            "bench user --emits 0",
            "bench user --rate 0",
            "bench user --concurrency 0",
            "bench user --settle 1s",
            "bench connect --emits 1",
            "bench user --devices-url http://127.0.0.1:1",
            "bench user --admin http://127.0.0.1:1",
            "bench user --server http://127.0.0.1:1",
            "bench user --api-key k3y",
            "bench user --secret a-secret-of-thirty-two-bytes-or-more",
        ] {
            assert!(parsed(line).is_none(), "{line}");
        }
    }

    #[tokio::test]
    async fn a_server_that_cannot_be_is_wrong_usage_and_its_secrets_are_not_repeated() {
        const LONG: &str = "a-secret-of-thirty-two-bytes-or-more";
        for (server, devices, secret) in [
            ("ftp://a", "http://127.0.0.1:1", LONG),
            ("http://127.0.0.1:1", "https://127.0.0.1:1", LONG),
            ("http://127.0.0.1:1", "http://127.0.0.1:1", "5ecret"),
        ] {
            let line = format!("bench user --server {server} --devices-url {devices} --api-key k3y --secret {secret}");
            let failure = parsed(&line).unwrap().1.given().await.err().unwrap();
            assert_eq!(failure.exit_code(), 64, "{line}");
            assert!(!failure.report().contains("k3y") && !failure.report().contains(secret), "{}", failure.report());
        }
    }
}
