//! What more devices, and more rooms, cost those that there are.

use std::sync::Arc;

use bugle::{
    bench::{Backend, Fleet, Tally, stream_item, user},
    proto::v1::{EmitStreamRequest, emit::Target},
};
use futures_util::{Stream, stream};

use crate::{
    figures::{median, micros},
    load::{ACCEPTED, Cost, cost, cost_by_part, fill},
    payload::ordinary,
    report::Report,
    server::{Server, expect},
};

const ROUNDS: usize = 5;
/// All others are measured next to so many devices: together they would take more descriptors than one process may have.
const FEW: usize = 1_000;
const MANY: usize = 15_000;
const SIZES: [usize; 3] = [100, 5_000, MANY];
/// The kernel counts processor time in hundredths of a second.
const DELIVERIES: usize = 600_000;
const MOST_GROWTH: f64 = 1.25;

const ROOMS: [usize; 3] = [10, 1_000, 100_000];
/// Who have all rooms among them, up to a hundred each.
const MEMBERS: usize = 1_000;
const EMITS: usize = 50_000;
/// How far the emits may be ahead of the devices: so few that none gets two with one write, however few rooms there are.
const AHEAD: usize = ROOMS[0];

struct Hall {
    server: Server,
    backend: Backend,
    fleet: Fleet,
}

pub async fn devices(report: &mut Report) {
    let mut few = Hall::of_devices(FEW).await;
    let mut costs_of_few = Vec::new();
    let mut growth = f64::NAN;
    for devices in SIZES {
        let mut hall = Hall::of_devices(devices).await;
        let (mut costs, mut next_to) = (Vec::new(), Vec::new());
        for round in 0..=ROUNDS {
            let (with_few, here) = (few.delivery(FEW).await, hall.delivery(devices).await);
            // The first round only warms up.
            if round > 0 {
                next_to.push(with_few);
                costs.push(here);
            }
        }
        growth = multiple(&costs, &next_to, |cost| cost.user);
        let in_kernel = multiple(&costs, &next_to, |cost| cost.kernel);
        report.figure(
            format!("server CPU per delivery to a room of {devices}, and as a multiple of that with {FEW}"),
            format!("{}; user {growth:.2} ×, kernel {in_kernel:.2} ×", parts(&costs)),
        );
        costs_of_few.append(&mut next_to);
    }
    report.figure(format!("server CPU per delivery to a room of {FEW}"), parts(&costs_of_few));
    // The kernel's part grows with what the devices' sockets take up in its caches: on loopback that is their half as well.
    let what = format!("user CPU per delivery with {MANY} devices as a multiple of that with {FEW}");
    report.at_most(what, growth, MOST_GROWTH, "×");
}

/// How many times more it costs than what was measured beside it, by this part of the costs.
fn multiple(costs: &[Cost], next_to: &[Cost], part: impl Fn(&Cost) -> f64) -> f64 {
    median(costs.iter().zip(next_to).map(|(cost, next_to)| part(cost) / part(next_to)).collect())
}

fn parts(costs: &[Cost]) -> String {
    let part = |part: fn(&Cost) -> f64| micros(median(costs.iter().map(part).collect()));
    format!("{} (user {}, kernel {})", part(|cost| cost.total()), part(|cost| cost.user), part(|cost| cost.kernel))
}

pub async fn rooms(report: &mut Report) {
    let mut halls = Vec::new();
    for rooms in ROOMS {
        halls.push((Hall::of_rooms(rooms).await, rooms, Vec::new()));
    }
    for round in 0..=ROUNDS {
        for (hall, rooms, costs) in &mut halls {
            let cost = hall.emit(*rooms).await;
            if round > 0 {
                costs.push(cost);
            }
        }
    }
    for (_, rooms, costs) in halls {
        let what =
            format!("server CPU per emit on one EmitStream to rooms of one device each, where there are {rooms}");
        report.figure(what, micros(median(costs)));
    }
}

impl Hall {
    /// With so many devices in one room.
    async fn of_devices(devices: usize) -> Self {
        let server = Server::start().await;
        let tokens = server.tokens(devices, &["room"]);
        Self::with(server, tokens).await
    }

    /// With so many rooms of one device each.
    async fn of_rooms(rooms: usize) -> Self {
        let server = Server::start().await;
        let of = |member| (member..rooms).step_by(MEMBERS).map(|room| room.to_string()).collect::<Vec<_>>();
        let tokens = (0..MEMBERS).map(|member| server.token(&user(member), &of(member))).collect();
        Self::with(server, tokens).await
    }

    async fn with(server: Server, tokens: Vec<String>) -> Self {
        let backend = server.backend().await;
        let fleet = server.counting(tokens).await;
        Self { server, backend, fleet }
    }

    async fn delivery(&mut self, devices: usize) -> Cost {
        let process = self.server.process();
        cost_by_part(process, DELIVERIES, fill(&mut self.backend, &self.fleet, devices, DELIVERIES, 1)).await
    }

    async fn emit(&mut self, rooms: usize) -> f64 {
        let process = self.server.process();
        let begun = self.fleet.tally().arrived();
        let emits = emits(rooms, begun, self.fleet.tally());
        let emit_all = async {
            let mut enqueued = 0;
            self.backend.emit_stream(emits, |_, receipt| enqueued += receipt.enqueued).await.expect(ACCEPTED);
            assert_eq!(enqueued, EMITS as u64);
            expect(&self.fleet, begun + EMITS as u64).await;
        };
        cost(process, EMITS, emit_all).await
    }
}

/// To all rooms in turn.
fn emits(rooms: usize, begun: u64, tally: Arc<Tally>) -> impl Stream<Item = EmitStreamRequest> + Send + 'static {
    stream::unfold((0, tally), move |(number, tally)| async move {
        if number == EMITS {
            return None;
        }
        tally.reach(begun + number.saturating_sub(AHEAD) as u64).await;
        let room = Target::Room(format!("shared:{}", number % rooms));
        let item = stream_item(String::new(), room, ordinary(number), false);
        Some((item, (number + 1, tally)))
    })
}
