//! Frames that come to a node of several. The engine is away: what is read again cannot be read.

use super::*;
use crate::cluster::{Cluster, Counts};
use crate::delivery::accepted::Accepted;
use crate::message::{AckMode, AckOutcome, AckRequest, ConnectionId, MessageId};
use crate::state::{RetainedValue, SharedValue};

fn delivery(config: &mut Config, lifecycle: &Lifecycle) -> Delivery {
    config.cluster.redis = vec!["redis://127.0.0.1:1".into()];
    let bus = Bus::Redis(Cluster::new(&config.cluster).unwrap());
    Delivery::new(Deps { bus, ..deps(config, lifecycle) })
}

/// A frame with a change, as it comes from another node.
fn change(number: u64) -> Accepted {
    Accepted::by_peer(id(), Emit { envelope: false, ..example("2") }, false, number)
}

fn id() -> MessageId {
    MessageId::at(jiff::Timestamp::UNIX_EPOCH)
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

#[tokio::test]
async fn an_emit_under_a_key_is_executed_once_and_again_only_if_its_value_is_retained_anew() {
    let (mut config, lifecycle) = (Config::defaults().unwrap(), Lifecycle::new());
    let delivery = delivery(&mut config, &lifecycle);
    let (id, other) = (id(), id());
    let is_repeated = async |id, once, change| {
        let accepted = Accepted::by_peer(id, Emit { envelope: false, ..example("2") }, once, change);
        let published = match delivery.publish_now(accepted) {
            Ok(published) => published,
            Err(accepted) => delivery.publish_in_order(*accepted).await,
        };
        let receipt = published.unwrap().0;
        assert_eq!(receipt.message_id, id);
        receipt.duplicate
    };
    assert!(!is_repeated(id, true, 5).await);
    assert!(is_repeated(id, true, 5).await);
    assert!(is_repeated(id, true, 0).await);
    assert!(!is_repeated(id, true, 6).await);
    assert!(is_repeated(id, true, 6).await);
    assert!(!is_given(&delivery, 5).await, "the change was noted");
    for _ in 0..2 {
        assert!(!is_repeated(other, false, 0).await, "it has no key");
    }
}

#[tokio::test]
async fn connections_that_a_repeated_emit_asked_the_first_time_are_pending_at_once() {
    let (mut config, lifecycle) = (Config::defaults().unwrap(), Lifecycle::new());
    let delivery = delivery(&mut config, &lifecycle);
    let (id, asked) = (id(), (UserId::new("42").unwrap(), ConnectionId::random()));
    let counts = Counts { matched: 1, enqueued: 1, asked: vec![asked.clone()], ..Counts::default() };
    delivery.shared().unwrap().executed.note(id, 0, counts);
    let ack = Some(AckRequest::new(AckMode::All, Duration::from_hours(1)).into());
    let emit = Emit { envelope: false, ack, ..example("2") };
    let (receipt, acks) = delivery.publish_in_order(Accepted::by_peer(id, emit, true, 0)).await.unwrap();
    assert_eq!((receipt.matched, receipt.enqueued, receipt.duplicate), (1, 1, true));
    let acks = acks.unwrap();
    assert_eq!(acks.targets(), std::slice::from_ref(&asked));
    let list = acks.gather().await.list;
    assert_eq!(list.len(), 1);
    assert_eq!((&list[0].user, list[0].connection, &list[0].outcome), (&asked.0, asked.1, &AckOutcome::Pending));
}
