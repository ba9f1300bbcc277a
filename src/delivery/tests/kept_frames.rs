//! Frames with messages of a history that come to a node of several. The engine is away: what they leave out cannot be read.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{deps, example};
use crate::cluster::{Bus, Cluster, Kept};
use crate::config::Config;
use crate::delivery::{Delivery, Deps, RoomConfig, RoomHistory, accepted::Accepted, stored_frames::Executed};
use crate::hub::fake::{Behaviour, FakeConnection};
use crate::hub::{Frame, Member, PlainFrames, QueueError, SentLive, WriteMode};
use crate::lifecycle::Lifecycle;
use crate::message::{Audience, Emit, EventName, MessageId, Payload, RoomName, RoomPattern, UserId};

/// A device that resumes, and what it was sent: payloads, and its own events' names.
#[derive(Default)]
struct Device(Mutex<Vec<String>>);

impl Behaviour for Arc<Device> {
    fn resumes(&self) -> bool {
        true
    }

    fn enqueue(&self, frame: &Frame, _mode: WriteMode) -> Result<(), QueueError> {
        let sent = match &frame.payload {
            Payload::Json(raw) if frame.event.as_str() != "bugle:resumed" => raw.get(),
            Payload::Json(_) | Payload::Binary(_) | Payload::None => frame.event.as_str(),
        };
        self.0.lock().push(sent.to_owned());
        Ok(())
    }
}

/// A node whose engine is away, and a device in a room with a history that was sent up to 5.
struct Node {
    delivery: Delivery,
    device: Arc<Device>,
    member: Arc<Member>,
}

const SENT: Kept = Kept { sequence: 1, number: 5 };

fn room() -> RoomName {
    RoomName::new("h:1").unwrap()
}

impl Node {
    async fn new() -> Self {
        let (mut config, lifecycle) = (Config::defaults().unwrap(), Lifecycle::new());
        config.cluster.redis = vec!["redis://127.0.0.1:1".into()];
        let bus = Bus::Redis(Cluster::new(&config.cluster).unwrap());
        let history = RoomHistory { size: 10, age: Duration::from_mins(1) };
        let rooms = [RoomConfig { matches: RoomPattern::new("h:*").unwrap(), history }];
        let delivery = Delivery::new(Deps { bus, rooms: &rooms, ..deps(&config, &lifecycle) });
        let device = Arc::<Device>::default();
        let connection = Arc::new(FakeConnection::new(device.clone()));
        let guard = delivery.hub().lock_room(&room()).await;
        let member = delivery.hub().admit(&guard, UserId::new("42").unwrap(), connection, None, 9).unwrap();
        drop(guard);
        assert!(member.go_live(None));
        delivery.inner.history_heads.advance(&room(), SENT, true);
        Self { delivery, device, member }
    }

    /// Executes a frame as it comes. Returns how many connections matched, or `None`: it is late.
    async fn execute(&self, sequence: u64, number: u64) -> Option<u64> {
        let kept = Kept { sequence, number };
        let emit = Emit { audience: Audience::of_room(room()), envelope: false, ..example(&number.to_string()) };
        let id = MessageId::at(jiff::Timestamp::UNIX_EPOCH);
        let accepted = Accepted { kept: Some(kept), ..Accepted::by_peer(id, emit, false, 0) };
        let executed = match self.delivery.execute_kept_now(accepted, kept) {
            Ok(executed) => executed,
            Err(accepted) => self.delivery.execute_kept(*accepted, kept).await,
        };
        match executed {
            Executed::Published(published) => Some(published.unwrap().0.matched),
            Executed::Late => None,
        }
    }

    fn head(&self) -> Option<Kept> {
        self.delivery.inner.history_heads.get(&room())
    }

    fn sent(&self) -> Vec<String> {
        self.device.0.lock().clone()
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_after_a_hole_that_cannot_be_read_is_sent_or_told_and_plain_frames_pass() {
    let node = Node::new().await;
    let began = Instant::now();
    assert_eq!(node.execute(1, 7).await, None);
    assert!(began.elapsed() >= Config::defaults().unwrap().cluster.deadline, "the hole may be read in time");
    let waited = Instant::now();
    assert_eq!(node.execute(1, 9).await, None);
    assert_eq!(waited.elapsed(), Duration::ZERO, "one has waited for too long, and the others do not");
    let emit = Emit { audience: Audience::of_room(room()), envelope: false, ..example("\"plain\"") };
    let plain = Accepted::by_peer(MessageId::at(jiff::Timestamp::UNIX_EPOCH), emit, false, 0);
    assert_eq!(node.delivery.publish_in_order(plain).await.unwrap().0.matched, 1);
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!((node.head(), node.sent()), (Some(SENT), vec!["\"plain\"".to_owned()]));
    assert_eq!(node.execute(1, 6).await, Some(1), "what is next is sent");
    assert_eq!(node.sent(), ["\"plain\"", "6"]);
}

#[tokio::test(start_paused = true)]
async fn a_message_of_another_sequence_is_not_sent_before_the_engine_says_which_one_is_over() {
    let node = Node::new().await;
    assert_eq!(node.execute(2, 1).await, None);
    assert_eq!(node.execute(2, 9).await, None);
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!((node.head(), node.sent()), (Some(SENT), vec![]));
}

#[tokio::test]
async fn a_message_that_was_sent_is_late_unless_it_is_known_what_became_of_it() {
    let node = Node::new().await;
    assert_eq!(node.execute(1, 6).await, Some(1));
    assert_eq!(node.execute(1, 6).await, None);
    let counts = crate::hub::Counts { matched: 3, ..crate::hub::Counts::default() };
    node.delivery.inner.fills.note_filled(&room(), 6, counts);
    assert_eq!(node.execute(1, 6).await, None, "that was of the mailbox");
    node.delivery.inner.history_fills.note_filled(&room(), 6, counts);
    assert_eq!(node.execute(1, 6).await, Some(3));
}

#[tokio::test]
async fn in_an_empty_room_nothing_is_read_and_who_joins_reads_where_it_stands_if_that_may_be_another_sequence() {
    let node = Node::new().await;
    node.delivery.hub().ended(&node.member, "as tests do");
    assert_eq!(node.execute(1, 9).await, Some(0));
    assert_eq!(node.head(), Some(Kept { number: 9, ..SENT }));
    assert_eq!(node.execute(2, 9).await, Some(0));
    assert_eq!(node.head(), None);
}

#[tokio::test]
async fn what_waits_for_a_device_that_catches_up_does_not_hide_a_gap_in_between() {
    let node = Node::new().await;
    let (delivery, device) = (&node.delivery, Arc::<Device>::default());
    let guard = delivery.hub().lock_room(&room()).await;
    let (user, connection) = (UserId::new("43").unwrap(), Arc::new(FakeConnection::new(device)));
    let member = delivery.hub().admit(&guard, user, connection, Some(PlainFrames::Wait), 9).unwrap();
    guard.begin_buffering(&member);
    drop(guard);
    assert_eq!(node.execute(1, 6).await, Some(2));
    let guard = delivery.hub().lock_room(&room()).await;
    assert!(guard.is_buffering(&member));
    delivery.tell_of_gap_in(&guard, &Kept { number: 9, ..SENT }.position());
    assert!(!guard.is_buffering(&member), "it reads what there is");
    assert_eq!(node.sent(), ["6", "bugle:resumed"]);
}

#[tokio::test]
async fn a_device_that_was_told_of_a_gap_before_how_catching_up_went_stands_after_the_gap() {
    let node = Node::new().await;
    let (delivery, device) = (&node.delivery, Arc::<Device>::default());
    let guard = delivery.hub().lock_room(&room()).await;
    let (user, connection) = (UserId::new("43").unwrap(), Arc::new(FakeConnection::new(device.clone())));
    let member = delivery.hub().admit(&guard, user, connection, None, 9).unwrap();
    member.expect_resumed();
    assert!(member.go_live(None));
    drop(guard);
    let anew = Kept { sequence: 2, number: 0 };
    assert_eq!(node.execute(1, 6).await, Some(2));
    assert!(delivery.skip_and_tell(&room(), Kept { number: 6, ..SENT }, anew).await);
    let mut sent_live = None;
    let tell = |sent: &std::collections::HashMap<RoomName, SentLive>| {
        sent_live = sent.get(&room()).cloned();
        Frame::new(EventName::own("bugle:resumed"), Payload::None)
    };
    delivery.hub().send_resumed(&member, tell);
    let SentLive { last, gap } = sent_live.unwrap();
    assert_eq!((last, gap), (None, Some(anew.position())), "6 was of the sequence before");
    assert_eq!(*device.0.lock(), ["6", "bugle:resumed", "bugle:resumed"]);
}
