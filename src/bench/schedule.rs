//! When each emit is to be sent.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;

/// Nanoseconds since the load generator began: the one clock of a bench.
#[derive(Clone, Copy, Debug)]
pub struct Origin(Instant);

impl Origin {
    /// It begins now.
    pub fn now() -> Self {
        Self(Instant::now())
    }

    /// The time since then.
    pub fn nanos(self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Hands out a number of emits to those who send them: as they come for them, or at a rate.
pub struct Schedule {
    origin: Origin,
    emits: u64,
    next: AtomicU64,
    pace: Option<Pace>,
}

/// An emit that is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Which it is, from 0.
    pub number: u64,
    /// When it was due, if there is a rate.
    due: Option<u64>,
}

struct Pace {
    rate: u32,
    begun: u64,
    /// One permit for each emit that is due.
    due: Arc<Semaphore>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The runtime's own timers are exact to a millisecond, which would show in each latency; a thread sleeps more exactly. It wakes no
/// more often than this, so that it costs next to nothing.
const SHORTEST_SLEEP: Duration = Duration::from_micros(200);
/// So that an end is seen.
const LONGEST_SLEEP: Duration = Duration::from_millis(50);

impl Schedule {
    /// So many emits; with a rate, the first is due now and the others follow at so many a second.
    pub fn new(origin: Origin, emits: u64, rate: Option<u32>) -> io::Result<Self> {
        let pace = rate.map(|rate| Pace::start(origin, emits, rate)).transpose()?;
        Ok(Self { origin, emits, next: AtomicU64::new(0), pace })
    }

    /// The next emit, as soon as it is due; none if all are taken.
    pub async fn next(&self) -> Option<Ticket> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if number >= self.emits {
            return None;
        }
        let Some(pace) = &self.pace else {
            return Some(Ticket { number, due: None });
        };
        pace.due.acquire().await.ok()?.forget();
        Some(Ticket { number, due: Some(pace.begun + due_after(number, pace.rate)) })
    }

    /// When the emit was due: without a rate that is when it is sent, now.
    pub fn due(&self, ticket: Ticket) -> u64 {
        ticket.due.unwrap_or_else(|| self.origin.nanos())
    }
}

/// Nanoseconds from the first emit to this one.
fn due_after(number: u64, rate: u32) -> u64 {
    const SECOND: u128 = 1_000_000_000;
    u64::try_from(u128::from(number) * SECOND / u128::from(rate.max(1))).unwrap_or(u64::MAX)
}

impl Pace {
    fn start(origin: Origin, emits: u64, rate: u32) -> io::Result<Self> {
        let (due, over, begun) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicBool::new(false)), origin.nanos());
        let (permits, is_over) = (due.clone(), over.clone());
        let release = move || {
            let mut released = 0;
            while released < emits && !is_over.load(Ordering::Relaxed) {
                let now = origin.nanos() - begun;
                let mut fresh = 0;
                while released < emits && due_after(released, rate) <= now {
                    (released, fresh) = (released + 1, fresh + 1);
                }
                permits.add_permits(fresh);
                let until_next = Duration::from_nanos(due_after(released, rate).saturating_sub(now));
                std::thread::sleep(until_next.clamp(SHORTEST_SLEEP, LONGEST_SLEEP));
            }
        };
        let thread = std::thread::Builder::new().name("bench-rate".to_owned()).spawn(release)?;
        Ok(Self { rate, begun, due, over, thread: Some(thread) })
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_emit_is_handed_out_once() {
        let schedule = Schedule::new(Origin::now(), 3, None).unwrap();
        for number in 0..3 {
            assert_eq!(schedule.next().await, Some(Ticket { number, due: None }));
        }
        assert_eq!(schedule.next().await, None);
    }

    #[tokio::test]
    async fn at_a_rate_emits_are_due_at_even_distances_whenever_they_are_sent() {
        let origin = Origin::now();
        let schedule = Schedule::new(origin, 4, Some(1_000)).unwrap();
        let mut dues = Vec::new();
        while let Some(ticket) = schedule.next().await {
            dues.push(schedule.due(ticket));
            assert!(origin.nanos() >= dues[dues.len() - 1], "nothing is sent before it is due");
        }
        let distances: Vec<_> = dues.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(distances, [1_000_000; 3]);
    }
}
