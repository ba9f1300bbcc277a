//! A conversation of two users whose devices come and go, and switch nodes.

use std::collections::{BTreeMap, BTreeSet};

use bugle::limits::Rate;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::{Device, Event, TestServer};
use crate::messages::{ask, enable, get};

const MESSAGES: usize = 1_000;
const USERS: [&str; 2] = ["alice", "bob"];
const NONE: Rate = Rate { per_second: Rate::UNLIMITED, burst: 1 };

/// A device of a user, with what it has seen.
struct Phone<'a> {
    server: &'a TestServer,
    user: usize,
    device: Option<Device>,
    /// By room.
    positions: BTreeMap<String, String>,
    /// The messages that came by events.
    received: Vec<Value>,
    /// The ids of those that it has sent itself.
    sent: BTreeSet<String>,
}

impl<'a> Phone<'a> {
    fn new(server: &'a TestServer, user: usize) -> Self {
        let (device, positions, received, sent) = Default::default();
        Self { server, user, device, positions, received, sent }
    }

    async fn connect(&mut self) -> &mut Device {
        if self.device.is_none() {
            let device = self.server.device(USERS[self.user]).resume(json!(self.positions));
            let mut device = device.connect().await.expect("the device connects");
            // A device that has never got a position would begin anew.
            let resumed = loop {
                let event = device.next_event().await;
                if event.name == "bugle:resumed" {
                    break event;
                }
                self.note(&event);
            };
            self.note(&resumed);
            self.device = Some(device);
        }
        self.device.as_mut().expect("it is connected")
    }

    fn note(&mut self, event: &Event) {
        match &*event.name {
            "message:received" => {
                let values = event.values();
                let [message, meta] = values.as_slice() else { panic!("two arguments: {}", event.raw) };
                let text = |value: &Value| value.as_str().expect("a text").to_owned();
                self.positions.insert(text(&meta["room"]), text(&meta["position"]));
                self.received.push(message.clone());
            }
            "bugle:resumed" => {
                for (room, resumed) in event.value()["rooms"].as_object().expect("rooms") {
                    assert_eq!(resumed["recovered"], true, "{room}: {resumed}");
                    if let Some(position) = resumed["position"].as_str() {
                        self.positions.insert(room.clone(), position.to_owned());
                    }
                }
            }
            _ => {}
        }
    }

    async fn flap(&mut self) {
        if let Some(device) = self.device.take() {
            for event in device.abort_with_rest().await {
                self.note(&event);
            }
        }
    }

    /// Sends a message. `is_cut`: the connection breaks before the answer.
    async fn send(&mut self, text: &str, is_cut: bool) -> Value {
        let argument = json!({ "receiverId": USERS[1 - self.user], "message": text, "clientMessageId": text });
        if is_cut {
            self.connect().await.emit("message:send", std::slice::from_ref(&argument));
            self.flap().await;
        }
        let ack = self.connect().await.emit_with_ack("message:send", &[argument]).await.remove(0);
        assert_eq!(ack["ok"], true, "{ack}");
        self.sent.insert(id(&ack["message"]));
        ack["message"].clone()
    }

    /// Waits until it has all messages.
    async fn catch_up(&mut self, all: &[Value]) {
        self.connect().await;
        while !all.iter().all(|message| self.has(&id(message))) {
            let event = self.connect().await.next_event().await;
            self.note(&event);
        }
    }

    fn has(&self, wanted: &str) -> bool {
        self.sent.contains(wanted) || self.received.iter().any(|message| id(message) == wanted)
    }
}

fn id(message: &Value) -> String {
    message["id"].as_str().unwrap_or_else(|| panic!("no id: {message}")).to_owned()
}

/// Numbers that look random, the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % sides).expect("a small number")
    }
}

async fn whole_conversation(server: &TestServer, user: usize) -> Vec<Value> {
    let (mut all, mut before) = (Vec::new(), String::new());
    loop {
        let path = format!("conversation/{}?limit=100{before}", USERS[1 - user]);
        let (status, page) = get(server, &path, USERS[user]).await;
        assert_eq!(status, 200, "{page}");
        let page = page.as_array().expect("a list").clone();
        let Some(last) = page.last() else { break };
        before = format!("&before={}", id(last));
        all.extend(page);
    }
    all.reverse();
    all
}

async fn unlimited() -> TestServer {
    TestServer::start_with(|config| {
        enable(config);
        (config.messages.rate, config.messages.conversation_rate) = (NONE, NONE);
        let limits = &mut config.limits;
        (limits.connects_per_user, limits.connects_per_address) = (NONE, NONE);
        (limits.client_events_per_connection, limits.client_events_per_user) = (NONE, NONE);
    })
    .await
}

/// Each device got each message that it has not sent itself once, in the order of the conversation.
async fn check_devices(phones: &mut [Phone<'_>], all: &[Value]) {
    for (number, phone) in phones.iter_mut().enumerate() {
        phone.catch_up(all).await;
        let received: Vec<_> = phone.received.iter().map(id).collect();
        let order: Vec<_> = all.iter().map(id).filter(|id| received.contains(id)).collect();
        assert_eq!(received, order, "the events of device {number}");
    }
}

#[tokio::test]
async fn all_devices_have_the_same_conversation_in_the_same_order() {
    let server = unlimited().await;
    let mut phones = [0, 0, 1, 1].map(|user| Phone::new(&server, user));
    for phone in &mut phones {
        phone.connect().await;
    }
    let (mut dice, mut unread) = (Dice(7), [0_u64; 2]);
    for n in 0..MESSAGES {
        if dice.roll(10) < 3 {
            phones[dice.roll(4)].flap().await;
        }
        let phone = &mut phones[dice.roll(4)];
        phone.send(&n.to_string(), dice.roll(10) == 0).await;
        unread[1 - phone.user] += 1;
        if dice.roll(20) == 0 {
            let reader = &mut phones[dice.roll(4)];
            let (user, peer) = (reader.user, USERS[1 - reader.user]);
            let ack =
                reader.connect().await.emit_with_ack("message:read", &[json!({ "userId": peer })]).await.remove(0);
            assert_eq!(ack, json!({ "ok": true, "count": unread[user] }));
            unread[user] = 0;
        }
        for (user, count) in unread.iter().enumerate() {
            assert_eq!(get(&server, "unread-count", USERS[user]).await, (200, json!({ "count": count })), "after {n}");
        }
    }
    let all = whole_conversation(&server, 0).await;
    assert_eq!(whole_conversation(&server, 1).await, all);
    let texts: Vec<_> = all.iter().map(|message| message["content"].as_str().expect("a text").to_owned()).collect();
    assert_eq!(texts, (0..MESSAGES).map(|n| n.to_string()).collect::<Vec<_>>(), "each once, in the order of the sends");
    check_devices(&mut phones, &all).await;
    let unread_now: u64 = all.iter().filter(|message| message["isRead"] == false).count() as u64;
    assert_eq!(unread_now, unread.iter().sum::<u64>());
    for user in USERS {
        let path = "/bugle/notifications/unread-count";
        let counted = ask(&server, "GET", path, &crate::harness::token(user), &Value::Null).await.1;
        let expected = unread[USERS.iter().position(|one| *one == user).expect("a user")];
        assert_eq!(counted["count"], expected, "the mailbox of {user}");
    }
}

#[tokio::test]
async fn devices_that_send_at_the_same_time_have_one_order() {
    const OF_EACH: usize = 60;
    let server = unlimited().await;
    let mut phones = [0, 0, 1, 1].map(|user| Phone::new(&server, user));
    // A device that has never got a position would begin anew.
    for phone in &mut phones {
        phone.connect().await;
    }
    let sending = phones.iter_mut().zip(1..).map(|(phone, number)| async move {
        let mut dice = Dice(number);
        for n in 0..OF_EACH {
            if dice.roll(10) < 2 {
                phone.flap().await;
            }
            phone.send(&format!("{number}-{n}"), dice.roll(10) == 0).await;
        }
    });
    join_all(sending).await;
    let all = whole_conversation(&server, 0).await;
    assert_eq!((all.len(), whole_conversation(&server, 1).await), (4 * OF_EACH, all.clone()));
    for number in 1..=4 {
        let of_device =
            all.iter().filter_map(|message| message["content"].as_str()?.strip_prefix(&format!("{number}-")));
        let of_device: Vec<_> = of_device.map(ToOwned::to_owned).collect();
        assert_eq!(of_device, (0..OF_EACH).map(|n| n.to_string()).collect::<Vec<_>>(), "those of device {number}");
    }
    check_devices(&mut phones, &all).await;
}
