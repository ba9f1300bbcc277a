//! Delivery on one node, without edges.

mod frames;
mod gaps;
mod given_up;
mod histories_across;
mod kept;
mod kept_frames;
mod model;
mod stored_across;

use std::time::Duration;

use super::{CollapseConfig, Delivery, Deps};
use crate::clock::Clock;
use crate::cluster::Bus;
use crate::config::Config;
use crate::lifecycle::Lifecycle;
use crate::message::{Audience, Emit, EventName, Payload, RoomName, UserId};

/// What delivery works with by default, without a store.
pub(crate) fn deps<'a>(config: &'a Config, lifecycle: &Lifecycle) -> Deps<'a> {
    Deps {
        bus: Bus::Solo,
        limits: &config.limits,
        retain: config.retain,
        collapse: config.collapse,
        rooms: &config.rooms,
        history: config.history,
        store: None,
        max_waiting_bytes: config.socketio.queue_bytes,
        queued: transport::QueuedBytes::new(config.clients.queue_bytes_total),
        clock: Clock::system(),
        lifecycle: lifecycle.clone(),
    }
}

/// Holds a room's lock while something is done.
pub(crate) async fn while_locked<T>(delivery: &Delivery, room: &RoomName, doing: impl Future<Output = T>) -> T {
    let _guard = delivery.hub().lock_room(room).await;
    doing.await
}

/// Reads where a room's mailbox stands.
pub(crate) async fn read_head(delivery: &Delivery, room: &RoomName) {
    delivery.log_head(room).await.expect("the store can be read");
}

/// An emit to everyone, with this payload.
pub(super) fn example(json: &str) -> Emit {
    let payload = Payload::json(json).unwrap();
    let plain = Emit::plain(Audience::everyone(), EventName::new("earnings:new").unwrap(), payload);
    Emit { envelope: true, ..plain }
}

#[tokio::test]
async fn what_came_later_than_an_emit_without_a_key_does_not_go_before_it() {
    let (config, lifecycle) = (Config::defaults().unwrap(), Lifecycle::new());
    let collapse = CollapseConfig { window: Duration::from_mins(1), ..config.collapse };
    let delivery = Delivery::new(Deps { collapse, ..deps(&config, &lifecycle) });
    let user = UserId::new("42").unwrap();
    let caller = std::sync::Arc::from("test");
    let emit = |key: Option<&str>, json: &str| {
        let emit = Emit {
            audience: Audience::user(&user),
            event: EventName::new("price").unwrap(),
            envelope: false,
            retain: true,
            collapse_key: key.map(Into::into),
            ..example(json)
        };
        delivery.publish(&caller, emit, None, tokio::time::Instant::now()).done()
    };
    let room = RoomName::of_user(&user);
    let retained = async || {
        let value = delivery.retained(&room, "price").await.unwrap();
        match value.map(|value| value.payload) {
            Some(Payload::Json(raw)) => raw.get().to_owned(),
            other => panic!("{other:?}"),
        }
    };
    emit(Some("k"), "1").await.unwrap();
    assert!(emit(Some("k"), "2").await.unwrap().0.deferred);
    let guard = delivery.hub().lock_room(&room).await;
    let mut plain = Box::pin(emit(None, "3"));
    assert!(futures_util::poll!(&mut plain).is_pending(), "it waits for the room lock");
    assert!(emit(Some("k"), "4").await.unwrap().0.deferred);
    drop(guard);
    plain.await.unwrap();
    assert_eq!(retained().await, "3");
    lifecycle.stop();
    tokio::time::timeout(Duration::from_secs(10), async {
        while retained().await != "4" {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("what waits is sent");
}

#[tokio::test]
async fn a_lane_whose_work_panics_refuses_what_waits_in_it_and_goes_on() {
    let (config, lifecycle) = (Config::defaults().unwrap(), Lifecycle::new());
    let delivery = Delivery::new(deps(&config, &lifecycle));
    let room = RoomName::new("r").unwrap();
    let mut panicking = Box::pin(delivery.in_lane(&room, async { panic!("as tests do") }));
    let mut waiting = Box::pin(delivery.in_lane(&room, async {}));
    assert!(futures_util::poll!(panicking.as_mut()).is_pending());
    assert!(futures_util::poll!(waiting.as_mut()).is_pending());
    assert_eq!((panicking.await, waiting.await), (None, None));
    assert_eq!(delivery.in_lane(&room, async { 1 }).await, Some(1));
}
