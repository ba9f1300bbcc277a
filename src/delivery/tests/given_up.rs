//! What a replay of a user's own mailbox gives up, and the user's next device is given.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::{deps, example};
use crate::config::Config;
use crate::delivery::{Admission, Delivery, Deps, Resume};
use crate::hub::fake::{Behaviour, FakeConnection};
use crate::hub::{Frame, QueueError, Unproven, WriteMode};
use crate::lifecycle::Lifecycle;
use crate::message::{Audience, Emit, Position, RoomName, UserId};
use crate::store::{Status, Store, Undelivered, model::Memory};

/// What a device was sent: events, and what it is to prove.
#[derive(Default)]
struct Received {
    events: Mutex<Vec<String>>,
    in_flight: Mutex<Vec<Arc<dyn Unproven>>>,
}

struct Device(Arc<Received>);

impl Behaviour for Device {
    fn resumes(&self) -> bool {
        true
    }

    fn enqueue(&self, frame: &Frame, _mode: WriteMode) -> Result<(), QueueError> {
        if let Some(unproven) = &frame.unproven {
            unproven.sent();
            self.0.in_flight.lock().push(unproven.clone());
        }
        self.0.events.lock().push(frame.event.as_str().to_owned());
        Ok(())
    }
}

/// A node over a store in memory, and user 42.
struct Node {
    memory: Memory,
    store: Store,
    delivery: Delivery,
    user: UserId,
    _lifecycle: Lifecycle,
}

impl Node {
    /// With three messages in the user's mailbox.
    async fn start() -> Self {
        let (config, memory, lifecycle) = (Config::defaults().unwrap(), Memory::new(1), Lifecycle::new());
        let store = memory.store(0, &lifecycle);
        let delivery = Delivery::new(Deps { store: Some(store.clone()), ..deps(&config, &lifecycle) });
        let user = UserId::new("42").unwrap();
        let node = Self { memory, store, delivery, user, _lifecycle: lifecycle };
        for _ in 0..3 {
            node.emit().await;
        }
        node
    }

    async fn emit(&self) {
        let emit = Emit { audience: Audience::user(&self.user), store: true, ..example("1") };
        self.delivery.publish(&Arc::from("test"), emit, None, Instant::now()).done().await.unwrap();
    }

    /// A device that resumes from a position that the store has never given.
    async fn connect(&self) -> (Arc<Admission>, Arc<Received>) {
        let received = Arc::<Received>::default();
        let device = Arc::new(FakeConnection::new(Device(received.clone())));
        let lost = Position::new("another".into(), 7);
        let resume = Resume::new([(RoomName::of_user(&self.user).to_string(), Some(lost))]);
        let admitted = self.delivery.admit(self.user.clone(), &[], device, Some((&resume, &[]))).await;
        let admission = admitted.unwrap();
        assert!(admission.go_live(None));
        (admission, received)
    }

    async fn wait_for(&self, status: Status) {
        let mut watch = self.store.watch_status();
        timeout(Duration::from_mins(1), watch.wait_for(|now| *now == status)).await.expect("the status").unwrap();
    }

    /// The device proves a message that comes now. Returns what the user's next device is given then.
    async fn undelivered_after_a_proof(&self, received: &Received) -> Undelivered {
        self.emit().await;
        for unproven in std::mem::take(&mut *received.in_flight.lock()) {
            unproven.proven();
        }
        self.store.write_watermarks().await.unwrap();
        self.store.undelivered(&self.user).await.unwrap()
    }
}

async fn is_told(received: &Received) {
    let told = async {
        while received.events.lock().is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_mins(1), told).await.expect("the device is told");
    assert_eq!(*received.events.lock(), ["bugle:resumed"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_given_up_after_the_store_has_begun_a_new_epoch_goes_to_the_users_next_device() {
    let node = Node::start().await;
    node.memory.away(0, true);
    let (_admission, received) = node.connect().await;
    node.wait_for(Status::Unreachable).await;
    let epoch = node.store.epoch();
    node.memory.restart();
    node.memory.away(0, false);
    is_told(&received).await;
    assert_ne!(node.store.epoch(), epoch);
    assert_eq!(node.undelivered_after_a_proof(&received).await, Undelivered { after: 4, skipped: vec![1, 2, 3] });
}

#[tokio::test(start_paused = true)]
async fn a_device_with_a_gap_is_told_while_the_store_can_only_be_read_and_what_it_is_not_given_goes_to_the_next_one() {
    let node = Node::start().await;
    node.memory.make_unwritable(0, true);
    node.wait_for(Status::Unwritable).await;
    let (_admission, received) = node.connect().await;
    is_told(&received).await;
    node.memory.make_unwritable(0, false);
    node.wait_for(Status::Serving).await;
    assert_eq!(node.undelivered_after_a_proof(&received).await, Undelivered { after: 4, skipped: vec![1, 2, 3] });
}
