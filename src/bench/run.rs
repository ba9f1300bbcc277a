//! A bench from its first device to its report.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hdrhistogram::Histogram;
use tokio::{task::JoinSet, time::sleep};

use super::{
    Emits, Error, Fleet, Plan, Report, Speech, Tally, Target, Work,
    caller::{Caller, Gate},
    latency::{Latencies, Percentiles},
    payload::due,
    process::{self, Usage},
    progress::{Counts, Progress},
    report::{self, Connect, Generator, cpu_between, micros_each, per_second, round},
    schedule::{Origin, Schedule},
    tokens::tokens,
};

/// How long nothing comes before what is missing is given up.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The warm-up is this part of what is measured.
const WARM_UP: u64 = 10;

/// Measures the server.
pub async fn run(plan: &Plan, target: &Target, progress: &Progress) -> Result<Report, Error> {
    match &plan.work {
        Work::Connect { settle } => connections(plan, *settle, target, progress).await,
        Work::Emit(emits) => Bench::begin(plan, emits, target, progress).await?.run().await,
    }
}

/// What is under way.
struct Bench<'a> {
    plan: &'a Plan,
    emits: &'a Emits,
    target: &'a Target,
    progress: &'a Progress,
    origin: Origin,
    fleet: Fleet,
    tally: Arc<Tally>,
    delivered: Arc<Latencies>,
    answered: Arc<Latencies>,
    answers: Arc<AtomicU64>,
    connect: Connect,
    before: Option<Usage>,
}

impl<'a> Bench<'a> {
    async fn begin(
        plan: &'a Plan,
        emits: &'a Emits,
        target: &'a Target,
        progress: &'a Progress,
    ) -> Result<Self, Error> {
        let origin = Origin::now();
        let (delivered, answered) = (Arc::new(Latencies::new()?), Arc::new(Latencies::new()?));
        let latencies = delivered.clone();
        let note = move |device: usize, event: &[u8]| {
            if let Some(due) = due(event) {
                latencies.record(device, due, origin.nanos());
            }
        };
        let arrival = arrive(plan.devices, target, progress, note).await?;
        let Arrival { fleet, connect, before, .. } = arrival;
        let tally = fleet.tally();
        let answers = Arc::default();
        Ok(Self { plan, emits, target, progress, origin, fleet, tally, delivered, answered, answers, connect, before })
    }

    async fn run(self) -> Result<Report, Error> {
        let warm_up = (self.emits.count / WARM_UP).max(1);
        let missing = self.send("warming up", warm_up).await?;
        if missing > 0 {
            let expected = self.deliveries_of(warm_up);
            return Err(Error::WarmUp { expected, missing, cut_off: self.tally.first_cut() });
        }
        let (idle, generator) = (usage(self.target).await?, process::own_cpu_time());
        let begun = self.origin.nanos();
        self.delivered.begin(begun);
        self.answered.begin(begun);
        let missing = self.send(self.plan.work.name(), self.emits.count).await?;
        let spent = process::own_cpu_time();
        let ended = self.delivered.last().max(self.answered.last());
        let seconds = Duration::from_nanos(ended.saturating_sub(begun)).as_secs_f64();
        let after = usage(self.target).await?;
        let mut report = self.report(seconds, missing)?;
        let cpu_seconds = cpu_between(idle, after);
        report.server = report::Server {
            cpu_seconds,
            cpu_us_per_emit: cpu_seconds.and_then(|cpu| micros_each(cpu, self.emits.count)),
            cpu_us_per_delivery: cpu_seconds.and_then(|cpu| micros_each(cpu, report.deliveries.unwrap_or_default())),
            resident_bytes_before: self.before.map(|usage| usage.resident_bytes),
            resident_bytes: after.map(|usage| usage.resident_bytes),
            resident_bytes_after: None,
        };
        report.generator = spent_between(generator, spent);
        self.fleet.leave().await;
        Ok(report)
    }

    /// Sends so many emits and waits until the devices have got them. Gives how many deliveries are missing when nothing comes any more.
    async fn send(&self, what: &'static str, count: u64) -> Result<u64, Error> {
        let before = self.tally.arrived();
        let expected = self.deliveries_of(count);
        self.progress.begin(what, &self.tally, Counts::Arrived, expected);
        let schedule = Arc::new(Schedule::new(self.origin, count, self.emits.rate).map_err(Error::Rate)?);
        let mut callers = JoinSet::new();
        for number in 0..self.emits.concurrency {
            callers.spawn(self.caller(number, schedule.clone(), before).run());
        }
        let all = async {
            while let Some(ended) = callers.join_next().await {
                ended??;
            }
            self.tally.reach(before + expected).await;
            Ok::<_, Error>(())
        };
        tokio::select! {
            done = all => done?,
            () = silence(&self.tally, &self.answers) => {}
        }
        Ok((before + expected).saturating_sub(self.tally.arrived()))
    }

    fn caller(&self, number: usize, schedule: Arc<Schedule>, before: u64) -> Caller {
        let devices = self.plan.devices;
        let (ahead, all) = (self.emits.concurrency as u64, devices as u64);
        let gate = Gate { tally: self.tally.clone(), before, devices: all, ahead };
        Caller {
            number,
            backend: self.target.backend.clone(),
            emits: self.emits.clone(),
            devices,
            schedule,
            origin: self.origin,
            latencies: self.answered.clone(),
            answers: self.answers.clone(),
            gate: self.emits.to.is_all().then_some(gate),
            window: None,
        }
    }

    fn deliveries_of(&self, emits: u64) -> u64 {
        if self.emits.to.is_all() { emits * self.plan.devices as u64 } else { emits }
    }

    fn report(&self, seconds: f64, missing: u64) -> Result<Report, Error> {
        let deliveries = self.deliveries_of(self.emits.count) - missing;
        let (delivered, answered) = (self.delivered.histogram()?, self.answered.histogram()?);
        let interval = self.emits.rate.is_none().then(|| self.interval(seconds, &answered));
        Ok(Report {
            seconds: round(seconds, 1e6),
            emits_per_second: Some(per_second(self.emits.count, seconds)),
            deliveries: Some(deliveries),
            missing: Some(missing),
            deliveries_per_second: Some(per_second(deliveries, seconds)),
            delivery_us: Percentiles::of(&delivered, interval),
            answer_us: Percentiles::of(&answered, interval),
            cut_off: self.tally.cut_off(),
            first_cut: self.tally.first_cut(),
            ..Report::of(self.plan, self.connect)
        })
    }

    /// How often a caller without a rate comes, in nanoseconds. On a stream, where many emits are under way, each of these is as a
    /// caller that waits for its answer.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an hour at most"
    )]
    fn interval(&self, seconds: f64, answered: &Histogram<u64>) -> u64 {
        let of_a_caller = seconds * 1e9 * self.emits.concurrency as f64 / self.emits.count as f64;
        of_a_caller.max(answered.mean()) as u64
    }
}

/// Waits until nothing has come for a while.
pub(super) async fn silence(tally: &Tally, answers: &AtomicU64) {
    let seen = || (tally.arrived(), answers.load(Ordering::Relaxed));
    let (mut last, mut silent) = (seen(), Duration::ZERO);
    while silent < PATIENCE {
        sleep(LOOK_EVERY).await;
        let now = seen();
        silent = if now == last { silent + LOOK_EVERY } else { Duration::ZERO };
        last = now;
    }
}

/// Devices that have come in, and what that took.
struct Arrival {
    fleet: Fleet,
    connect: Connect,
    before: Option<Usage>,
    after: Option<Usage>,
    generator: Generator,
}

async fn arrive(
    devices: usize,
    target: &Target,
    progress: &Progress,
    on_event: impl Fn(usize, &[u8]) + Send + Sync + 'static,
) -> Result<Arrival, Error> {
    let tokens = tokens(devices, &target.secret)?;
    let mut fleet = Fleet::default();
    let before = usage(target).await?;
    progress.begin("connecting", &fleet.tally(), Counts::Connected, devices as u64);
    let (generator, begun) = (process::own_cpu_time(), Origin::now());
    fleet.connect(&target.devices, Speech::SocketIo, tokens, on_event).await?;
    let seconds = Duration::from_nanos(begun.nanos()).as_secs_f64();
    let generator = spent_between(generator, process::own_cpu_time());
    let after = usage(target).await?;
    let cpu_seconds = cpu_between(before, after);
    let connect = Connect {
        seconds: round(seconds, 1e6),
        devices_per_second: per_second(devices as u64, seconds),
        server_cpu_us_per_connect: cpu_seconds.and_then(|cpu| micros_each(cpu, devices as u64)),
    };
    Ok(Arrival { fleet, connect, before, after, generator })
}

/// Connects all devices, and lets them go again.
async fn connections(plan: &Plan, settle: Duration, target: &Target, progress: &Progress) -> Result<Report, Error> {
    let Arrival { fleet, connect, before, after, generator } =
        arrive(plan.devices, target, progress, |_, _| ()).await?;
    let tally = fleet.tally();
    sleep(settle).await;
    let idle = usage(target).await?;
    let (cut_off, first_cut) = (tally.cut_off(), tally.first_cut());
    fleet.leave().await;
    sleep(settle).await;
    let left = usage(target).await?;
    let resident = |usage: Option<Usage>| usage.map(|usage| usage.resident_bytes);
    let server = report::Server {
        cpu_seconds: cpu_between(before, after),
        resident_bytes_before: resident(before),
        resident_bytes: resident(idle),
        resident_bytes_after: resident(left),
        ..report::Server::default()
    };
    Ok(Report { cut_off, server, generator, first_cut, ..Report::of(plan, connect) })
}

async fn usage(target: &Target) -> Result<Option<Usage>, Error> {
    match &target.admin {
        Some(admin) => admin.usage().await.map(Some),
        None => Ok(None),
    }
}

fn spent_between(before: Option<Duration>, after: Option<Duration>) -> Generator {
    let spent = before.zip(after).map(|(before, after)| after.saturating_sub(before).as_secs_f64());
    Generator { cpu_seconds: spent.map(|seconds| round(seconds, 1e6)) }
}
