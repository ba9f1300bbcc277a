//! Stored emits across nodes, and telling nodes of messages whose frames may not have come.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    runtime::Builder,
    time::{Instant, sleep, timeout},
};

use super::{deps, example};
use crate::cluster::Bus;
use crate::cluster::model::Link;
use crate::config::Config;
use crate::delivery::{
    Admission, Delivery, Deps, IdempotencyKey,
    accepted::Accepted,
    broken::{Rule, breaking},
};
use crate::hub::fake::{Behaviour, FakeConnection};
use crate::hub::{Frame, QueueError, Unproven, WriteMode};
use crate::lifecycle::Lifecycle;
use crate::message::{Audience, Emit, EventName, MessageId, Payload, Position, RoomName, UserId};
use crate::store::{NewMessage, Store, model::Memory};

/// What a device was sent, and what it is to prove of it.
#[derive(Default)]
struct Sent {
    payloads: Mutex<Vec<String>>,
    in_flight: Mutex<Vec<Arc<dyn Unproven>>>,
}

impl Sent {
    fn prove(&self) {
        for message in std::mem::take(&mut *self.in_flight.lock()) {
            message.proven();
        }
    }
}

struct Device(Arc<Sent>);

impl Behaviour for Device {
    fn enqueue(&self, frame: &Frame, _mode: WriteMode) -> Result<(), QueueError> {
        let Payload::Json(payload) = &frame.payload else { panic!("{frame:?}") };
        self.0.payloads.lock().push(payload.get().to_owned());
        if let Some(unproven) = &frame.unproven {
            unproven.sent();
            self.0.in_flight.lock().push(unproven.clone());
        }
        Ok(())
    }
}

/// Two nodes over one engine and one store, both in memory.
struct Nodes {
    link: Link,
    memory: Memory,
    stores: [Store; 2],
    deliveries: [Delivery; 2],
    _lifecycles: [Lifecycle; 2],
}

impl Nodes {
    async fn start() -> Self {
        let (config, link, memory) = (Config::defaults().unwrap(), Link::new(), Memory::new(2));
        let lifecycles = [Lifecycle::new(), Lifecycle::new()];
        let stores = [0, 1].map(|node| memory.store(node, &lifecycles[node]));
        let deliveries = [0, 1].map(|node| {
            let (bus, store) = (Bus::Redis(link.cluster(node)), Some(stores[node].clone()));
            Delivery::new(Deps { bus, store, ..deps(&config, &lifecycles[node]) })
        });
        for (node, delivery) in deliveries.iter().enumerate() {
            delivery.join_nodes().await.unwrap();
            link.serves(node, delivery.cluster().unwrap());
        }
        // Until then nodes look into the store by themselves.
        sleep(Duration::from_mins(1)).await;
        Self { link, memory, stores, deliveries, _lifecycles: lifecycles }
    }

    /// Stores a message of which no node is told.
    async fn store_silently(&self, room: &RoomName, json: &str) {
        let message = NewMessage {
            room: room.clone(),
            id: MessageId::at(self.deliveries[0].inner.clock.now()),
            event: EventName::new("e").unwrap(),
            payload: Payload::json(json).unwrap(),
            except_users: Vec::new(),
            ttl: None,
            idempotency: None,
            direct: None,
        };
        self.stores[0].append(vec![message]).await.unwrap();
    }

    async fn connect(&self, node: usize, room: &RoomName) -> (Arc<Admission>, Arc<Sent>) {
        let (admission, sent) = self.let_in(node, room).await;
        assert!(admission.go_live(None));
        (admission, sent)
    }

    /// A device of user 42, which is not live yet.
    async fn let_in(&self, node: usize, room: &RoomName) -> (Arc<Admission>, Arc<Sent>) {
        let sent = Arc::<Sent>::default();
        let (user, device) = (UserId::new("42").unwrap(), Arc::new(FakeConnection::new(Device(sent.clone()))));
        let admitted = self.deliveries[node].admit(user, std::slice::from_ref(room), device, None).await;
        (admitted.unwrap(), sent)
    }
}

#[tokio::test(start_paused = true)]
async fn a_payload_that_the_engine_does_not_retain_is_not_retained_in_a_nodes_memory() {
    let nodes = Nodes::start().await;
    let (delivery, room) = (&nodes.deliveries[0], RoomName::new("r").unwrap());
    let (_admission, sent) = nodes.connect(0, &room).await;
    super::read_head(delivery, &room).await;
    nodes.memory.delay(0, Duration::from_millis(200));
    let emit = Emit { audience: Audience::of_room(room.clone()), store: true, retain: true, ..example("1") };
    let now = delivery.inner.clock.now();
    // The engine has said that it has room for the value.
    let publishing = delivery.append_keyed(Accepted::by_peer(MessageId::at(now), emit, false, 0), None).done();
    let cutting = async {
        // The message is being stored.
        sleep(Duration::from_millis(100)).await;
        nodes.link.cut(0, true);
    };
    let (published, ()) = tokio::join!(publishing, cutting);
    let (receipt, _) = published.unwrap();
    assert!(receipt.stored && receipt.partial && receipt.matched == 1, "{receipt:?}");
    assert_eq!(sent.payloads.lock().len(), 1);
    assert!(delivery.inner.retained.of_room(&room, now).is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_emit_that_is_repeated_a_hundred_times_has_uncertain_rooms_looked_up_at_most_twice() {
    const UNCERTAIN: u64 = 10;
    let nodes = Nodes::start().await;
    for number in 0..UNCERTAIN {
        nodes.deliveries[0].inner.wakes.note_uncertain(&RoomName::new(&format!("r:{number}")).unwrap());
    }
    // They are looked up once for the first time.
    sleep(Duration::from_secs(2)).await;
    let emit = || {
        let emit = Emit { audience: Audience::of_room(RoomName::new("r").unwrap()), store: true, ..example("1") };
        let key = IdempotencyKey::new("test".into(), "k".into(), &emit);
        nodes.deliveries[0].publish(&Arc::from("test"), emit, Some(key), Instant::now()).done()
    };
    emit().await.unwrap();
    let (before, began) = (nodes.memory.mailbox_lookups(), Instant::now());
    let repeated = futures_util::future::join_all((0..100).map(|_| emit())).await;
    assert!(repeated.iter().all(|repeated| repeated.as_ref().is_ok_and(|(receipt, _)| receipt.duplicate)));
    sleep(Duration::from_millis(100)).await;
    assert!(began.elapsed() < Duration::from_secs(1), "a pass of its own is made each second");
    let count = nodes.memory.mailbox_lookups() - before;
    assert!(count <= 3 * UNCERTAIN, "{count} lookups");
}

#[tokio::test(start_paused = true)]
async fn rooms_that_cannot_be_read_do_not_keep_nodes_from_being_told_of_others() {
    let nodes = Nodes::start().await;
    let room = RoomName::new("r").unwrap();
    nodes.store_silently(&room, "1").await;
    let (_admission, sent) = nodes.connect(1, &room).await;
    super::read_head(&nodes.deliveries[1], &room).await;
    for number in 0..60 {
        let damaged = RoomName::new(&format!("r:{number}")).unwrap();
        nodes.memory.damage(&damaged);
        nodes.deliveries[0].inner.wakes.note_uncertain(&damaged);
    }
    nodes.deliveries[0].inner.wakes.note_uncertain(&room);
    // Later than the first pass.
    sleep(Duration::from_secs(3)).await;
    nodes.store_silently(&room, "2").await;
    let is_sent = async {
        while sent.payloads.lock().is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(20), is_sent).await.expect("the other node is told");
    assert_eq!(*sent.payloads.lock(), ["2"]);
}

#[tokio::test(start_paused = true)]
async fn a_read_of_what_did_not_come_in_frames_ends_with_the_store_though_that_is_out_of_reach() {
    let (nodes, room) = (Nodes::start().await, RoomName::new("r").unwrap());
    let (_admission, _sent) = nodes.connect(0, &room).await;
    nodes.memory.away(0, true);
    let mut status = nodes.stores[0].watch_status();
    timeout(Duration::from_mins(1), status.wait_for(|status| !status.can_read()))
        .await
        .expect("it is noticed")
        .unwrap();
    let position = nodes.stores[1].position(1).await.unwrap();
    let filled = nodes.deliveries[0].filled_up_to(&room, position);
    let close = async {
        sleep(Duration::from_secs(10)).await;
        nodes.stores[0].close();
    };
    let (filled, ()) = tokio::join!(timeout(Duration::from_secs(11), filled), close);
    filled.expect("nothing waits for a store that is closed");
}

/// Waits until no task fills a room.
async fn is_filled(delivery: &Delivery, room: &RoomName) {
    let ended = async {
        while !delivery.inner.fills.want_head(room) {
            sleep(Duration::from_secs(1)).await;
        }
    };
    timeout(Duration::from_mins(1), ended).await.expect("the task ends");
}

#[tokio::test(start_paused = true)]
async fn a_room_whose_task_ended_while_it_was_read_where_the_room_stands_is_filled_by_another_task() {
    let nodes = Nodes::start().await;
    let (delivery, room) = (&nodes.deliveries[0], RoomName::new("r").unwrap());
    nodes.store_silently(&room, "1").await;
    assert!(delivery.inner.fills.note_stood(&room, Position::new("of before".into(), 1)));
    nodes.memory.delay(0, Duration::from_millis(200));
    let mut reading = Box::pin(delivery.head_across(&room, &nodes.stores[0], 1));
    assert!(futures_util::poll!(&mut reading).is_pending());
    // The last device has left the room.
    delivery.inner.fills.abandon(&room);
    reading.await.unwrap();
    is_filled(delivery, &room).await;
}

#[tokio::test(start_paused = true)]
async fn a_damaged_room_is_not_read_again_and_again_because_of_a_position_of_an_epoch_that_is_over() {
    let nodes = Nodes::start().await;
    let (delivery, room) = (&nodes.deliveries[0], RoomName::new("r").unwrap());
    nodes.store_silently(&room, "1").await;
    let over = Position { number: 2, ..nodes.stores[0].position(1).await.unwrap() };
    nodes.memory.restart();
    let begun = async {
        while nodes.stores[0].epoch().as_ref() == Some(&over.epoch) {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_mins(1), begun).await.expect("a new epoch begins");
    let (_admission, _sent) = nodes.connect(0, &room).await;
    super::read_head(delivery, &room).await;
    is_filled(delivery, &room).await;
    delivery.inner.fills.abandon(&room);
    nodes.memory.damage(&room);
    nodes.memory.delay(0, Duration::from_millis(10));
    delivery.fill_up_to(&room, over);
    is_filled(delivery, &room).await;
}

/// What a device is given that is live only after another one, at the other node, has proven what both were to be given.
fn given_after_another_has_proven() -> Vec<String> {
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let nodes = Nodes::start().await;
        let user = UserId::new("42").unwrap();
        let own = RoomName::of_user(&user);
        let emit = async |json: &str| {
            let emit = Emit { audience: Audience::user(&user), store: true, envelope: false, ..example(json) };
            nodes.deliveries[1].publish(&Arc::from("test"), emit, None, Instant::now()).done().await.unwrap();
        };
        emit("1").await;
        let (_first, first) = nodes.connect(1, &own).await;
        let (admission, sent) = nodes.let_in(0, &own).await;
        emit("2").await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(*first.payloads.lock(), ["1", "2"]);
        first.prove();
        sleep(Duration::from_secs(1)).await;
        assert!(admission.go_live(None));
        sleep(Duration::from_secs(1)).await;
        sent.payloads.lock().clone()
    })
}

#[test]
fn a_message_that_came_since_a_device_was_let_in_is_given_to_it_though_another_one_has_proven_it() {
    assert_eq!(given_after_another_has_proven(), ["2"]);
    assert!(breaking(Rule::SinceJoinIsGiven, given_after_another_has_proven).is_empty());
}
