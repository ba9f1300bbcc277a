//! What nodes share, against an engine of each test's own. Two clones of the shards are two nodes.

mod collapse;
mod history;
mod history_positions;
mod idempotency;
mod redis_server;
mod retained;
mod silent_rooms;
mod user_rooms;

use std::{sync::Arc, time::Duration};

use redis_server::RedisServer;

use crate::cluster::Shards;
use crate::message::{EventName, RoomName, UserId};
use crate::state::EmitCall;

const HOUR: Duration = Duration::from_hours(1);
/// A time to live that ends while a test waits.
const SOON: Duration = Duration::from_millis(30);

fn caller() -> Arc<str> {
    "test".into()
}

fn user(id: &str) -> UserId {
    UserId::new(id).unwrap()
}

fn room(name: &str) -> RoomName {
    RoomName::new(name).unwrap()
}

fn event(name: &str) -> EventName {
    EventName::new(name).unwrap()
}

/// An emit of which nothing is kept.
fn call<'a>(room: &'a RoomName, event: &'a EventName) -> EmitCall<'a> {
    EmitCall { room, event, retained: None, kept: None, once: None, channel: "c", start: b"", rest: b"" }
}

/// Waits until something that takes its time at the engine is so.
async fn eventually(mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("in time");
}

/// Everything that an engine has, but what is left of the times of keys.
async fn keys(shards: &Shards) -> Vec<String> {
    let mut keys: Vec<String> = shards.all()[0].query(redis::cmd("KEYS").arg("*")).await.unwrap();
    keys.sort();
    keys
}
