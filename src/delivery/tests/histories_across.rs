//! Histories that nodes share.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::time::timeout;

use super::deps;
use crate::cluster::Bus;
use crate::cluster::model::Link;
use crate::config::Config;
use crate::delivery::{Delivery, Deps, RoomConfig, RoomHistory};
use crate::hub::fake::{Behaviour, FakeConnection};
use crate::lifecycle::Lifecycle;
use crate::message::{RoomName, RoomPattern, UserId};

struct Device;

impl Behaviour for Device {}

#[tokio::test(start_paused = true)]
async fn catching_up_with_histories_ends_when_the_server_stops_while_the_engine_is_away() {
    let (config, link, lifecycle) = (Config::defaults().unwrap(), Link::new(), Lifecycle::new());
    let history = RoomHistory { size: 10, age: Duration::from_hours(1) };
    let rooms = [RoomConfig { matches: RoomPattern::new("r").unwrap(), history }];
    let bus = Bus::Redis(link.cluster(0));
    let delivery = Delivery::new(Deps { bus, rooms: &rooms, ..deps(&config, &lifecycle) });
    delivery.join_nodes().await.unwrap();
    let (user, room) = (UserId::new("42").unwrap(), RoomName::new("r").unwrap());
    let device = Arc::new(FakeConnection::new(Device));
    let _admission = delivery.admit(user, std::slice::from_ref(&room), device, None).await.unwrap();
    assert!(delivery.inner.history_heads.get(&room).is_some());
    link.crash(true);
    let mut catching_up = pin!(delivery.catch_up_with_histories(0));
    let waits = timeout(Duration::from_secs(10), catching_up.as_mut()).await;
    assert!(waits.is_err(), "the engine is away");
    lifecycle.stop();
    // The node does not connect again.
    delivery.leave_nodes().await;
    timeout(Duration::from_secs(10), catching_up).await.expect("nothing waits for an engine that a stopped node left");
}
