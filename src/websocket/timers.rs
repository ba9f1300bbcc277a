use std::sync::Arc;

use dashmap::DashMap;
use tokio::time::Instant;
use transport::{Entry, Wheel};

use crate::clock::Jumps;
use crate::message::ConnectionId;

/// A connection that has something to do at certain times.
pub(super) trait Timed: Send + Sync {
    /// Its entry in the wheel.
    fn entry(&self) -> &Entry;

    /// Does what is due. Returns when it has something to do next; `None`: never.
    fn fire(&self, now: Instant) -> Option<Instant>;

    /// Has the connection fired soon, since what it waits for may be due by the time of day.
    fn look_at_token(&self);
}

/// Connections that are looked at in a row.
const AT_ONCE: usize = 256;

/// The timers of the edge's connections: heartbeats, and the expiry of tokens.
#[derive(Default)]
pub(super) struct Timers {
    wheel: Wheel<ConnectionId>,
    connections: DashMap<ConnectionId, Arc<dyn Timed>>,
}

impl Timers {
    /// Adds a connection, which is fired at once.
    pub(super) fn add(&self, id: ConnectionId, connection: &Arc<impl Timed + 'static>) {
        self.connections.insert(id, connection.clone());
        self.fire(id, &**connection, Instant::now());
    }

    /// Removes a connection.
    pub(super) fn remove(&self, id: ConnectionId) {
        self.connections.remove(&id);
    }

    /// Has a connection fired then.
    pub(super) fn arm(&self, id: ConnectionId, entry: &Entry, at: Instant) {
        self.wheel.arm(id, entry, at);
    }

    /// Drives the timers. It does not end.
    pub(super) async fn run(&self) {
        loop {
            let (tick, due) = self.wheel.due().await;
            for id in due {
                let connection = self.connections.get(&id).map(|connection| connection.clone());
                if let Some(connection) = connection.filter(|connection| connection.entry().take(tick)) {
                    self.fire(id, &*connection, Instant::now());
                }
            }
        }
    }

    /// Has all connections look at their tokens whenever the time of day has jumped. It does not end.
    pub(super) async fn follow_clock(&self, mut jumps: Jumps) {
        loop {
            jumps.next().await;
            let connections: Vec<_> = self.connections.iter().map(|connection| connection.clone()).collect();
            for some in connections.chunks(AT_ONCE) {
                for connection in some {
                    connection.look_at_token();
                }
                tokio::task::yield_now().await;
            }
        }
    }

    fn fire(&self, id: ConnectionId, connection: &dyn Timed, now: Instant) {
        if let Some(next) = connection.fire(now) {
            self.arm(id, connection.entry(), next);
        }
    }
}
