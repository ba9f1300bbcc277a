//! A bench of several nodes behind an engine of its own, beside one node that is alone.

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

use tokio::{sync::Semaphore, task::JoinSet, time::sleep};
use uuid::Uuid;

use super::{
    Backend, CallFigures, Counts, Emits, Error, Fleet, NodesReport, Place, Progress, Server, Setup, Speech, To,
    caller::Caller,
    engine::Engine,
    latency::{Latencies, Percentiles},
    nodes_report::Round,
    payload::due,
    process::{self, CpuTime},
    report::micros_each,
    run::silence,
    schedule::{Origin, Schedule},
    tokens::tokens,
};

/// What is measured with several nodes.
#[derive(Clone, Debug)]
pub struct Nodes {
    /// How many nodes, two or more.
    pub nodes: usize,
    /// How many devices, each of a user of its own; all are on the second node.
    pub devices: usize,
    /// How many emits a round, of each call; a tenth of it goes before, to warm up.
    pub emits: u64,
    /// Of the JSON payload.
    pub payload_bytes: usize,
    /// How many emits are without an answer in the loads with many.
    pub in_flight: usize,
}

const ROUNDS: usize = 5;
/// The warm-up is this part of what is measured.
const WARM_UP: u64 = 10;
const JOIN_TIMEOUT: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(50);
const READY_PEERS: &str = "bugle_ready_peers";
const FRAMES: &str = "bugle_bus_frames_total";
const RECEIVED: &str = r#"direction="received""#;
const PARTIAL: &str = "bugle_receipts_partial_total";

/// Starts nodes and an engine, and measures the nodes and one that is alone in turn.
pub async fn measure(program: &Path, plan: &Nodes, progress: &Progress) -> Result<NodesReport, Error> {
    let origin = Origin::now();
    let engine = Engine::start().await?;
    let alone = Server::start(program, &Setup { store: Some(String::new()), ..Setup::default() }).await?;
    let nodes = start(program, &engine, plan.nodes).await?;
    let [sender, receiver, ..] = nodes.as_slice() else {
        return Err(Error::Peers { ready: nodes.len() as u64, nodes: 2 });
    };
    let solo = Side::new(plan, origin, &alone, &alone, vec![alone.process()]).await?;
    let processes = std::iter::once(engine.process()).chain(nodes.iter().map(Server::process));
    let several = Side::new(plan, origin, sender, receiver, processes.collect()).await?;
    let before = frames(&nodes).await?;
    let calls = calls(plan, &solo, &several, progress).await?;
    let after = frames(&nodes).await?;
    let metrics = sender.admin().metrics().await?;
    let frames_received = after.iter().zip(before).map(|(after, before)| after.saturating_sub(before)).collect();
    solo.fleet.leave().await;
    several.fleet.leave().await;
    Ok(NodesReport {
        nodes: plan.nodes,
        devices: plan.devices,
        emits: plan.emits,
        payload_bytes: plan.payload_bytes,
        rounds: ROUNDS,
        calls,
        frames_received,
        partial_receipts: counted(process::value(&metrics, PARTIAL).unwrap_or_default()),
    })
}

/// Nodes that know one another.
async fn start(program: &Path, engine: &Engine, count: usize) -> Result<Vec<Server>, Error> {
    let prefix = format!("bench-{}", Uuid::new_v4().simple());
    let mut nodes = Vec::new();
    for number in 1..=count {
        let url = engine.url();
        let more = format!("[cluster]\nredis = [{url:?}]\nprefix = {prefix:?}\nnode = \"bench-{number}\"\n");
        let setup = Setup { store: Some(String::new()), more, ..Setup::default() };
        nodes.push(Server::start(program, &setup).await?);
    }
    let begun = Instant::now();
    for node in &nodes {
        loop {
            let ready = counted(process::value(&node.admin().metrics().await?, READY_PEERS).unwrap_or_default());
            if ready == count as u64 {
                break;
            }
            if begun.elapsed() > JOIN_TIMEOUT {
                return Err(Error::Peers { ready, nodes: count });
            }
            sleep(LOOK_EVERY).await;
        }
    }
    Ok(nodes)
}

/// How many frames each node has received.
async fn frames(nodes: &[Server]) -> Result<Vec<u64>, Error> {
    let mut frames = Vec::new();
    for node in nodes {
        frames.push(counted(process::sum(&node.admin().metrics().await?, FRAMES, RECEIVED)));
    }
    Ok(frames)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
fn counted(figure: f64) -> u64 {
    figure as u64
}

/// Each call at 1 and at many in flight, round by round, the two sides in turn.
async fn calls(plan: &Nodes, solo: &Side, several: &Side, progress: &Progress) -> Result<Vec<CallFigures>, Error> {
    let loads = [(To::User, 1), (To::User, plan.in_flight), (To::Stream, 1), (To::Stream, plan.in_flight)];
    let mut rounds = loads.map(|_| (Vec::new(), Vec::new()));
    for round in 0..ROUNDS {
        for (&(to, in_flight), (of_solo, of_several)) in loads.iter().zip(&mut rounds) {
            let emits =
                Emits { to, count: plan.emits, rate: None, payload_bytes: plan.payload_bytes, concurrency: in_flight };
            // What the machine does meanwhile is to favour neither.
            if round % 2 == 0 {
                of_solo.push(solo.measure(&emits, "one node", progress).await?);
                of_several.push(several.measure(&emits, "several nodes", progress).await?);
            } else {
                of_several.push(several.measure(&emits, "several nodes", progress).await?);
                of_solo.push(solo.measure(&emits, "one node", progress).await?);
            }
        }
    }
    let figures = loads.iter().zip(&rounds).map(|(&(to, in_flight), (solo, several))| {
        CallFigures::of(if to == To::User { "user" } else { "stream" }, in_flight, solo, several)
    });
    Ok(figures.collect())
}

/// One node alone, or several: the node that is called, and devices.
struct Side {
    backend: Backend,
    fleet: Fleet,
    devices: usize,
    origin: Origin,
    delivered: Arc<Latencies>,
    processes: Vec<u32>,
}

impl Side {
    async fn new(
        plan: &Nodes,
        origin: Origin,
        called: &Server,
        with_devices: &Server,
        processes: Vec<u32>,
    ) -> Result<Self, Error> {
        let backend = Backend::connect(&format!("http://{}", called.grpc()), called.api_key()).await?;
        let (delivered, mut fleet) = (Arc::new(Latencies::new()?), Fleet::default());
        let latencies = delivered.clone();
        let note = move |device: usize, event: &[u8]| {
            if let Some(due) = due(event) {
                latencies.record(device, due, origin.nanos());
            }
        };
        let tokens = tokens(plan.devices, with_devices.secret())?;
        fleet.connect(&Place::from(with_devices.devices()), Speech::SocketIo, tokens, note).await?;
        Ok(Self { backend, fleet, devices: plan.devices, origin, delivered, processes })
    }

    /// Warms up, sends, and tells what that took.
    async fn measure(&self, emits: &Emits, what: &'static str, progress: &Progress) -> Result<Round, Error> {
        let answered = Arc::new(Latencies::new()?);
        self.send(emits, (emits.count / WARM_UP).max(1), &answered).await?;
        progress.begin(what, &self.fleet.tally(), Counts::Arrived, emits.count);
        let now = self.origin.nanos();
        self.delivered.begin(now);
        answered.begin(now);
        let before = self.cpu_times()?;
        self.send(emits, emits.count, &answered).await?;
        let spent = self.cpu_times()?.into_iter().zip(before).map(|(after, before)| after.saturating_sub(before));
        let each = spent.map(|spent| micros_each(spent.as_secs_f64(), emits.count).unwrap_or_default());
        Ok(Round {
            cpu_us: each.collect(),
            answered: Percentiles::of(&answered.histogram()?, None).into(),
            delivered: Percentiles::of(&self.delivered.histogram()?, None).into(),
        })
    }

    fn cpu_times(&self) -> Result<Vec<Duration>, Error> {
        let time = |&process: &u32| {
            let CpuTime { user, kernel } = process::cpu_time(process).ok_or(Error::NoTime(process))?;
            Ok(user + kernel)
        };
        self.processes.iter().map(time).collect()
    }

    /// So many emits, from the first to the last delivery and receipt.
    async fn send(&self, emits: &Emits, count: u64, latencies: &Arc<Latencies>) -> Result<(), Error> {
        let (tally, answers) = (self.fleet.tally(), Arc::new(AtomicU64::new(0)));
        let all = tally.arrived() + count;
        let schedule = Arc::new(Schedule::new(self.origin, count, None).map_err(Error::Rate)?);
        // On a stream one caller has all that are in flight.
        let (callers, window) = match emits.to {
            To::Stream => (1, Some(Arc::new(Semaphore::new(emits.concurrency)))),
            To::User | To::Room | To::Broadcast | To::Stored => (emits.concurrency, None),
        };
        let mut running = JoinSet::new();
        for number in 0..callers {
            let caller = Caller {
                number,
                backend: self.backend.clone(),
                emits: emits.clone(),
                devices: self.devices,
                schedule: schedule.clone(),
                origin: self.origin,
                latencies: latencies.clone(),
                answers: answers.clone(),
                gate: None,
                window: window.clone(),
            };
            running.spawn(caller.run());
        }
        let complete = async {
            while let Some(ended) = running.join_next().await {
                ended??;
            }
            tally.reach(all).await;
            Ok::<_, Error>(())
        };
        tokio::select! {
            done = complete => done,
            () = silence(&tally, &answers) => {
                let missing = all.saturating_sub(tally.arrived());
                Err(Error::Missing { expected: count, missing, cut_off: tally.first_cut() })
            }
        }
    }
}
