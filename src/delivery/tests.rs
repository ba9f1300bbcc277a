//! Delivery on one node, without edges.

use std::time::Duration;

use super::{CollapseConfig, Delivery, Deps};
use crate::clock::Clock;
use crate::config::Config;
use crate::lifecycle::Lifecycle;
use crate::message::{Audience, Emit, EventName, Exceptions, Payload, RoomName, UserId};

/// What delivery works with by default, without a store.
pub(super) fn deps<'a>(config: &'a Config, lifecycle: &Lifecycle) -> Deps<'a> {
    Deps {
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

#[tokio::test]
async fn what_came_later_than_an_emit_without_a_key_does_not_go_before_it() {
    let (config, lifecycle) = (Config::defaults().unwrap(), Lifecycle::new());
    let collapse = CollapseConfig { window: Duration::from_mins(1), ..config.collapse };
    let delivery = Delivery::new(Deps { collapse, ..deps(&config, &lifecycle) });
    let user = UserId::new("42").unwrap();
    let emit = |key: Option<&str>, json: &str| {
        let emit = Emit {
            audience: Audience::User(user.clone()),
            except: Exceptions::default(),
            event: EventName::new("price").unwrap(),
            payload: Payload::json(json.into()).unwrap(),
            volatile: false,
            envelope: false,
            retain: true,
            ack: None,
            collapse_key: key.map(Into::into),
            store: false,
            ttl: None,
            alone: true,
        };
        delivery.emit(emit, None, tokio::time::Instant::now(), None, |_| ())
    };
    let room = RoomName::of_user(&user);
    let retained = || match delivery.retained(&room, "price").map(|value| value.payload) {
        Some(Payload::Json(raw)) => raw.get().to_owned(),
        other => panic!("{other:?}"),
    };
    emit(Some("k"), "1").await.unwrap();
    assert!(emit(Some("k"), "2").await.unwrap().deferred);
    let guard = delivery.hub().lock_room(&room).await;
    let mut plain = Box::pin(emit(None, "3"));
    assert!(futures_util::poll!(&mut plain).is_pending(), "it waits for its turn");
    assert!(emit(Some("k"), "4").await.unwrap().deferred);
    drop(guard);
    plain.await.unwrap();
    assert_eq!(retained(), "3");
    lifecycle.stop();
    tokio::time::timeout(Duration::from_secs(10), async {
        while retained() != "4" {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("what waits is sent");
}
