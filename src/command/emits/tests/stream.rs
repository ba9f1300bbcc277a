//! A stream of emits of every kind to several rooms against a list: each device gets what was published to each of its rooms, once and in
//! the order in which it was sent, and each emit has one answer.
//!
//! Each of these mutations fails here: `sequencer.rs` with a `may_begin` that is always true; `stream.rs` that calls `next` once
//! after `finished`; `log_lane.rs` that publishes what is appended in reverse; `publish.rs` without `publish_earlier`; `idempotency.rs` that
//! never answers `Published`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt;
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::time::Instant;

use crate::auth::{ApiKeyConfig, ApiKeys, Caller, KeyConfig, Tokens};
use crate::clock::Clock;
use crate::command::{Commands, Deps, EmitRequest, Error, Rules};
use crate::config::Config;
use crate::delivery::{self, Admission, CollapseConfig, Delivery};
use crate::hub::{
    Frame, QueueError, WriteMode,
    fake::{Behaviour, FakeConnection},
};
use crate::lifecycle::Lifecycle;
use crate::message::{
    AckMode, AckRequest, Audience, Emit, EventName, Exceptions, MessageId, Payload, Receipt, RoomName, UserId,
};
use crate::store::{NewMessage, Sharing, Store};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Plain,
    Stored,
    /// Stored, under the idempotency key of the room: the first one is published, the others are duplicates.
    Keyed,
    Refused,
    Retained,
    Acknowledged,
    /// With a collapse key: the first one opens a window that outlasts the test.
    Collapsed,
    /// A plain emit of the event that is collapsed.
    AfterCollapsed,
}

const KINDS: [Kind; 8] = [
    Kind::Plain,
    Kind::Stored,
    Kind::Keyed,
    Kind::Refused,
    Kind::Retained,
    Kind::Acknowledged,
    Kind::Collapsed,
    Kind::AfterCollapsed,
];
const ROOMS: [&str; 3] = ["user:0", "user:1", "r"];

type Device = FakeConnection<Received>;

/// The events that a device got, and their payloads.
#[derive(Default)]
struct Received(Mutex<Vec<(String, String)>>);

impl Received {
    /// What it got of a room.
    fn of_room(&self, room: usize) -> Vec<(String, String)> {
        let is_of_room = |payload: &str| {
            payload == format!("\"{room}\"") || payload.parse::<usize>().is_ok_and(|number| number / 1_000 == room)
        };
        self.0.lock().iter().filter(|(_, payload)| is_of_room(payload)).cloned().collect()
    }
}

impl Behaviour for Received {
    fn enqueue(&self, frame: &Frame, _: WriteMode) -> Result<(), QueueError> {
        if let Payload::Json(raw) = &frame.payload {
            self.0.lock().push((frame.event.to_string(), raw.get().to_owned()));
        }
        Ok(())
    }
}

struct World {
    commands: Commands,
    delivery: Delivery,
    store: Store,
    caller: Arc<Caller>,
    devices: Vec<(Arc<Admission>, Arc<Device>)>,
    lifecycle: Lifecycle,
}

impl World {
    async fn new() -> Self {
        let (mut config, lifecycle) = (Config::defaults().unwrap(), Lifecycle::new());
        config.store.url = "sqlite::memory:".into();
        let secret = Some("a secret for the tests of 36 bytes..".into());
        config.auth.jwt.keys = vec![KeyConfig { kid: None, algorithm: "HS256".into(), secret, public_key_file: None }];
        config.collapse = CollapseConfig { window: Duration::from_hours(1), ..config.collapse };
        let store = Store::open(&config.store, Sharing::Single, Clock::system(), &lifecycle).unwrap();
        let deps = delivery::tests::deps(&config, &lifecycle);
        let delivery = Delivery::new(delivery::Deps { store: Some(store.clone()), ..deps });
        let commands = Commands::new(Deps {
            delivery: delivery.clone(),
            store: Some(store.clone()),
            messages: None,
            tokens: Arc::new(Tokens::new(&config.auth, Vec::new(), Clock::system()).unwrap()),
            rules: Rules::new(&[], &[]).unwrap(),
            limits: &config.limits,
            envelopes: &[],
            lifecycle: lifecycle.clone(),
        });
        let key = Some("a-key-for-the-tests-of-36-bytes-----".into());
        let key = ApiKeyConfig { name: "test".into(), key, key_sha256: None, scopes: vec!["emit".into()] };
        let keys = ApiKeys::new(&[key]).unwrap();
        let caller = keys.authenticate(Some(b"Bearer a-key-for-the-tests-of-36-bytes-----")).unwrap();
        let mut world = Self { commands, delivery, store, caller, devices: Vec::new(), lifecycle };
        for user in ["0", "1"] {
            world.connect(user).await;
        }
        world
    }

    async fn connect(&mut self, user: &str) {
        let device = Arc::new(Device::new(Received::default()));
        let (user, room) = (UserId::new(user).unwrap(), RoomName::new("r").unwrap());
        let admission = self.delivery.admit(user, &[room], device.clone(), None).await.unwrap();
        assert!(admission.go_live(None));
        self.devices.push((admission, device));
    }

    /// Locks rooms for a while, again and again, so that the stream meets locked ones.
    async fn disturb(&self) {
        loop {
            for name in ROOMS {
                let others_run = async {
                    for _ in 0..3 {
                        tokio::task::yield_now().await;
                    }
                };
                delivery::tests::while_locked(&self.delivery, &RoomName::new(name).unwrap(), others_run).await;
                tokio::task::yield_now().await;
            }
        }
    }
}

fn request(index: usize, room: usize, kind: Kind) -> EmitRequest {
    let event = if matches!(kind, Kind::Collapsed | Kind::AfterCollapsed) { "collapsed" } else { "event" };
    let name = RoomName::new(ROOMS[room]).unwrap();
    let rooms = if kind == Kind::Refused { vec![name.clone()] } else { Vec::new() };
    let is_keyed = kind == Kind::Keyed;
    let payload = if is_keyed { format!("\"{room}\"") } else { format!("{}", index + room * 1_000) };
    let emit = Emit {
        audience: Audience::of_room(name),
        except: Exceptions { rooms, ..Exceptions::default() },
        event: EventName::new(event).unwrap(),
        payload: Payload::json(&payload).unwrap(),
        volatile: false,
        envelope: false,
        retain: kind == Kind::Retained,
        store: matches!(kind, Kind::Stored | Kind::Keyed | Kind::Refused),
        ttl: None,
        collapse_key: (kind == Kind::Collapsed).then(|| "k".into()),
        ack: (kind == Kind::Acknowledged).then(|| AckRequest::new(AckMode::All, Duration::from_secs(30)).into()),
        alone: false,
    };
    EmitRequest { emit, idempotency_key: is_keyed.then(|| "k".into()), received: Instant::now() }
}

/// What is published to a room, in order, and its last retained value.
#[derive(Default)]
struct Room {
    published: Vec<(String, String)>,
    retained: Option<String>,
    is_key_used: bool,
    is_window_open: bool,
    deferred: Option<(String, String)>,
}

impl Room {
    /// Notes an emit. Returns what its receipt says: whether it is a duplicate, and whether it is deferred.
    fn note(&mut self, request: &EmitRequest, kind: Kind) -> Option<(bool, bool)> {
        let Payload::Json(raw) = &request.emit.payload else { panic!("it is JSON") };
        let frame = (request.emit.event.to_string(), raw.get().to_owned());
        match kind {
            Kind::Refused => return None,
            Kind::Keyed if std::mem::replace(&mut self.is_key_used, true) => return Some((true, false)),
            Kind::Collapsed if std::mem::replace(&mut self.is_window_open, true) => {
                self.deferred = Some(frame);
                return Some((false, true));
            }
            Kind::AfterCollapsed => self.published.extend(self.deferred.take()),
            Kind::Retained => self.retained = Some(frame.1.clone()),
            Kind::Plain | Kind::Stored | Kind::Keyed | Kind::Acknowledged | Kind::Collapsed => {}
        }
        self.published.push(frame);
        Some((false, false))
    }
}

fn check(number: usize, result: &Result<Receipt, Error>, expected: Option<(bool, bool)>, kind: Kind) {
    match (result, expected) {
        (Ok(receipt), Some(expected)) => {
            assert_eq!((receipt.duplicate, receipt.deferred), expected, "emit {number}");
            assert_eq!(receipt.stored, matches!(kind, Kind::Stored | Kind::Keyed), "emit {number}");
            assert_eq!(receipt.acks.is_some(), kind == Kind::Acknowledged, "emit {number}");
        }
        (Err(Error::InvalidArgument(_)), None) => {}
        (result, expected) => panic!("emit {number}: {result:?} instead of {expected:?}"),
    }
}

async fn run(emits: Vec<(usize, usize, bool)>, is_disturbed: bool) {
    let world = World::new().await;
    let (mut rooms, mut answers) = (BTreeMap::<usize, Room>::new(), BTreeMap::new());
    let mut requests = Vec::new();
    for (index, &(room, kind, pauses)) in emits.iter().enumerate() {
        let (kind, request) = (KINDS[kind], request(index, room, KINDS[kind]));
        answers.insert(index, (rooms.entry(room).or_default().note(&request, kind), kind));
        requests.push((index, request, pauses));
    }
    let read = futures_util::stream::iter(requests).then(async |(index, request, pauses)| {
        if pauses {
            tokio::task::yield_now().await;
        }
        Ok::<_, Error>((index, Ok(request)))
    });
    let stream = world.commands.emit_stream(world.caller.clone(), Box::pin(read), world.lifecycle.clone());
    let mut answered = BTreeSet::new();
    let answering = async {
        let mut stream = std::pin::pin!(stream);
        while let Some(answer) = stream.next().await {
            let (index, result) = answer.unwrap();
            let (expected, kind) = answers[&index];
            check(index, &result, expected, kind);
            assert!(answered.insert(index), "emit {index} is answered once");
        }
    };
    tokio::select! {
        biased;
        () = async { tokio::time::timeout(Duration::from_mins(1), answering).await.expect("all is answered") } => {}
        () = world.disturb(), if is_disturbed => {}
    }
    assert_eq!(answered.len(), emits.len());
    for (index, room) in rooms {
        let members = if index == 2 { &world.devices[..] } else { &world.devices[index..=index] };
        for (_, device) in members {
            // What was published while the device caught up is replayed to it.
            let complete = async {
                while device.of_room(index).len() < room.published.len() {
                    tokio::task::yield_now().await;
                }
            };
            let _ = tokio::time::timeout(Duration::from_secs(10), complete).await;
            assert_eq!(device.of_room(index), room.published, "room {}", ROOMS[index]);
        }
        let retained = world.delivery.retained(&RoomName::new(ROOMS[index]).unwrap(), "event").await.unwrap();
        let retained = retained.map(|value| format!("{:?}", value.payload));
        let expected = room.retained.map(|text| format!("{:?}", Payload::json(&text).unwrap()));
        assert_eq!(retained, expected, "room {}", ROOMS[index]);
    }
    world.lifecycle.stop_hard();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_stream_of_all_kinds_keeps_the_order_of_each_room(
        emits in prop::collection::vec((0..ROOMS.len(), 0..KINDS.len(), any::<bool>()), 1..40),
        is_disturbed in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(emits, is_disturbed));
    }
}

#[tokio::test]
async fn a_stream_reads_no_further_while_too_many_bytes_are_unanswered() {
    let world = World::new().await;
    let payload = Payload::json(&format!("\"{}\"", "x".repeat(60_000))).unwrap();
    let large = || {
        let EmitRequest { emit, received, .. } = request(0, 0, Kind::Plain);
        EmitRequest { emit: Emit { payload: payload.clone(), ..emit }, idempotency_key: None, received }
    };
    let read = AtomicUsize::new(0);
    let emits = futures_util::stream::iter(0..200).map(|index| {
        read.fetch_add(1, Ordering::SeqCst);
        Ok::<_, Error>((index, Ok(large())))
    });
    let mut stream = world.commands.emit_stream(world.caller.clone(), emits, world.lifecycle.clone());
    let reading = async { assert!(futures_util::poll!(stream.next()).is_pending(), "the room is locked") };
    delivery::tests::while_locked(&world.delivery, &RoomName::new(ROOMS[0]).unwrap(), reading).await;
    assert_eq!(read.load(Ordering::SeqCst), (4_usize << 20).div_ceil(large().emit.bytes()));
    world.lifecycle.stop_hard();
}

/// As if its emit had been refused by a process that was killed then: positions have no gaps.
#[tokio::test]
async fn a_stored_message_that_nobody_published_comes_before_the_next_one() {
    let world = World::new().await;
    let room = RoomName::new("user:0").unwrap();
    let stored = |json: &str| {
        let EmitRequest { emit, received, .. } = request(0, 0, Kind::Stored);
        let emit = Emit { audience: Audience::of_room(room.clone()), payload: Payload::json(json).unwrap(), ..emit };
        EmitRequest { emit, idempotency_key: None, received }
    };
    delivery::tests::read_head(&world.delivery, &room).await;
    world.commands.emit(&world.caller, stored("1")).await.unwrap();
    let message = NewMessage {
        room: room.clone(),
        id: MessageId::at(jiff::Timestamp::UNIX_EPOCH),
        event: EventName::new("event").unwrap(),
        payload: Payload::json("2").unwrap(),
        except_users: Vec::new(),
        ttl: None,
        idempotency: None,
        direct: None,
    };
    world.store.append(vec![message]).await.unwrap();
    world.commands.emit(&world.caller, stored("3")).await.unwrap();
    let got: Vec<_> = world.devices[0].1.0.lock().iter().map(|(_, payload)| payload.clone()).collect();
    assert_eq!(got, ["1", "2", "3"]);
    world.lifecycle.stop_hard();
}
