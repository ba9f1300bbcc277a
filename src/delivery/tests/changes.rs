//! Changes of what a room retains that come to a node while a connection joins. The engine is away: what is read again cannot be read.

use super::*;
use crate::cluster::Cluster;
use crate::delivery::accepted::Accepted;
use crate::message::MessageId;
use crate::state::{RetainedValue, SharedValue};

fn delivery(config: &mut Config, lifecycle: &Lifecycle) -> Delivery {
    config.cluster.redis = vec!["redis://127.0.0.1:1".into()];
    let bus = Bus::Redis(Cluster::new(&config.cluster).unwrap());
    Delivery::new(Deps { bus, ..deps(config, lifecycle) })
}

/// A frame with a change, as it comes from another node.
fn change(number: u64) -> Accepted {
    let emit = Emit { envelope: false, ..example("2") };
    Accepted::by_peer(MessageId::at(jiff::Timestamp::UNIX_EPOCH), emit, number)
}

/// Whether a connection that has read the room up to this change, and locks it now, is given what it read.
async fn is_given(delivery: &Delivery, number: u64) -> bool {
    let payload = Payload::json("1").unwrap();
    let value = RetainedValue { payload, except_users: Vec::new(), expires_at: None };
    let value = SharedValue { event: EventName::new("e").unwrap(), value, change: number };
    let read = Some(Some((number, vec![value])));
    let (_guard, read) = delivery.lock_with_retained(&RoomName::everyone(), read).await;
    read.is_some()
}

#[tokio::test]
async fn values_that_were_read_before_a_change_came_to_the_room_are_read_again_also_if_it_was_empty() {
    let (mut config, lifecycle) = (Config::defaults().unwrap(), Lifecycle::new());
    let delivery = delivery(&mut config, &lifecycle);
    assert!(is_given(&delivery, 5).await);
    assert!(delivery.publish_now(change(6)).is_ok(), "it is executed at once");
    assert!(!is_given(&delivery, 5).await);
    assert!(is_given(&delivery, 6).await);
    delivery.publish_in_order(change(7)).await.unwrap();
    assert!(!is_given(&delivery, 6).await);
    assert!(is_given(&delivery, 7).await);
}

#[tokio::test]
async fn values_that_were_read_before_a_change_that_was_not_executed_are_read_again() {
    let (mut config, lifecycle) = (Config::defaults().unwrap(), Lifecycle::new());
    let delivery = delivery(&mut config, &lifecycle);
    delivery.note_missed_change(&RoomName::everyone(), 8);
    assert!(!is_given(&delivery, 7).await);
    assert!(is_given(&delivery, 8).await);
}
