//! Those who send emits: one call after the other, or on a stream.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use futures_util::stream;
use tokio::sync::Semaphore;

use super::{
    Backend, Emits, Error, Tally, To,
    backend::stream_item,
    latency::Latencies,
    payload::payload,
    schedule::{Origin, Schedule, Ticket},
    tokens::{ROOM, user},
};
use crate::proto::v1::{EmitStreamRequest, emit::Target};

/// One of those who send emits.
#[derive(Clone)]
pub struct Caller {
    /// Which of them it is.
    pub number: usize,
    /// The connection that all of them share.
    pub backend: Backend,
    /// What is to be sent.
    pub emits: Emits,
    /// How many users the emits go to in turn.
    pub devices: usize,
    /// When it is to be sent.
    pub schedule: Arc<Schedule>,
    /// The clock of all latencies.
    pub origin: Origin,
    /// From the time that an emit was due to its receipt.
    pub latencies: Arc<Latencies>,
    /// How many receipts there are.
    pub answers: Arc<AtomicU64>,
    /// Holds back emits to all devices.
    pub gate: Option<Gate>,
    /// How many emits of a stream may be without an answer; none: as many as the server takes.
    pub window: Option<Arc<Semaphore>>,
}

/// Lets emits to all devices be only so far ahead of what these have got.
#[derive(Clone)]
pub struct Gate {
    /// Counts what the devices get.
    pub tally: Arc<Tally>,
    /// What they had got before the first emit.
    pub before: u64,
    /// How many devices there are.
    pub devices: u64,
    /// How many emits may be ahead.
    pub ahead: u64,
}

impl Gate {
    async fn pass(&self, ticket: Ticket) {
        let complete = (ticket.number + 1).saturating_sub(self.ahead);
        if complete > 0 {
            self.tally.reach(self.before + complete * self.devices).await;
        }
    }
}

impl Caller {
    /// Sends until there is nothing left to send, and every answer is there.
    pub async fn run(self) -> Result<(), Error> {
        match self.emits.to {
            To::User | To::Room | To::Broadcast => self.call().await,
            To::Stream | To::Stored => self.stream().await,
        }
    }

    async fn call(mut self) -> Result<(), Error> {
        while let Some(ticket) = self.schedule.next().await {
            if let Some(gate) = &self.gate {
                gate.pass(ticket).await;
            }
            let due = self.schedule.due(ticket);
            let json = payload(due, ticket.number, self.emits.payload_bytes);
            match self.emits.to {
                To::Room => self.backend.emit_to_room(ROOM, json).await?,
                To::Broadcast => self.backend.broadcast(json).await?,
                To::User | To::Stream | To::Stored => {
                    self.backend.emit_to_user(&user_of(ticket, self.devices), json).await?
                }
            };
            self.answered(due);
        }
        Ok(())
    }

    async fn stream(mut self) -> Result<(), Error> {
        let (schedule, devices, emits) = (self.schedule.clone(), self.devices, self.emits.clone());
        let window = self.window.clone();
        let requests = stream::unfold(schedule, move |schedule| {
            let (emits, window) = (emits.clone(), window.clone());
            async move {
                if let Some(window) = window {
                    window.acquire().await.ok()?.forget();
                }
                let ticket = schedule.next().await?;
                let due = schedule.due(ticket);
                Some((request(&emits, ticket, due, devices), schedule))
            }
        });
        let mut backend = self.backend.clone();
        let answered = |due: &str, _: &_| {
            if let Ok(due) = due.parse() {
                self.answered(due);
            }
            if let Some(window) = &self.window {
                window.add_permits(1);
            }
        };
        Ok(backend.emit_stream(requests, answered).await?)
    }

    fn answered(&mut self, due: u64) {
        self.latencies.record(self.number, due, self.origin.nanos());
        self.answers.fetch_add(1, Ordering::Relaxed);
    }
}

fn user_of(ticket: Ticket, devices: usize) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "the remainder is below a number of devices")]
    user((ticket.number % devices.max(1) as u64) as usize)
}

/// The correlation id is the time that the emit was due.
fn request(emits: &Emits, ticket: Ticket, due: u64, devices: usize) -> EmitStreamRequest {
    let json = payload(due, ticket.number, emits.payload_bytes);
    stream_item(due.to_string(), Target::UserId(user_of(ticket, devices)), json, emits.to == To::Stored)
}
