//! Connects, closes, joins, leaves, disconnects and stored messages in no order: presence is right, and each device gets each message once.

use std::collections::{BTreeMap, BTreeSet};

use bugle::proto::v1::{GetStatsResponse, ListRoomsRequest, ListUsersRequest};
use serde_json::json;
use tokio::task::JoinSet;

use crate::harness::{Backend, Device, DeviceBuilder, Event, TestServer, answer, deadline, new_database, token};
use crate::resume::kept;
use crate::stored::emit_stored;

const TASKS: u64 = 4;
const OPERATIONS: usize = 500;
const USERS: usize = 5;
const ROOMS: usize = 6;

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).expect("it is below a usize")
    }
}

/// Users that one task alone moves about, in rooms that all share.
struct Crowd {
    clients: std::net::SocketAddr,
    backend: Backend,
    random: Random,
    users: BTreeMap<String, User>,
}

#[derive(Default)]
struct User {
    phones: Vec<Phone>,
    /// What phones that have left had seen.
    left: Vec<Seen>,
    /// How many messages are stored for the user, with the numbers from 1 on.
    stored: u64,
    rooms: BTreeSet<String>,
    /// A device left by itself, which the server may not have noticed.
    is_settling: bool,
}

/// A device that resumes where it was.
struct Phone {
    device: Device,
    /// Its user's own room.
    room: String,
    seen: Seen,
}

/// The number of the last message, and its position. `None`: the server says where it begins.
type Seen = Option<(u64, String)>;

impl Phone {
    /// Takes what comes until it has the message with this number, or knows that there is none.
    async fn catch_up(&mut self, last: u64) {
        while self.seen.as_ref().is_none_or(|(number, _)| *number != last) {
            let event = deadline("what was stored", self.device.next_event()).await;
            self.take(&event);
        }
    }

    fn take(&mut self, event: &Event) {
        let seen = self.seen.as_ref().map(|(number, _)| *number);
        match &*event.name {
            "e" => {
                let (number, position) = kept(event);
                assert!(seen.is_none_or(|seen| number == seen + 1), "{number} came after {seen:?}");
                self.seen = Some((number, position));
            }
            "bugle:resumed" => {
                let value = event.value();
                // Rooms that it joins later are told of, too.
                let Some(resumed) = value["rooms"].get(&self.room) else { return };
                let position = resumed["position"].as_str().expect("the room has a position");
                let number = position.rsplit_once('.').expect("a position").1.parse().expect("a number");
                assert!(resumed["recovered"] == true && seen.is_none_or(|seen| seen == number), "{seen:?}: {value}");
                self.seen = Some((number, position.to_owned()));
            }
            other => panic!("{other} came"),
        }
    }
}

impl Crowd {
    fn new(server: &TestServer, backend: &Backend, seed: u64) -> Self {
        let users = (0..USERS).map(|number| (format!("{seed}-{number}"), User::default())).collect();
        Self { clients: server.clients(), backend: backend.clone(), random: Random(seed), users }
    }

    async fn storm(mut self) -> Self {
        for _ in 0..OPERATIONS {
            self.operate().await;
        }
        for user in self.users.keys().cloned().collect::<Vec<_>>() {
            self.check(&user).await;
        }
        self
    }

    async fn operate(&mut self) {
        let user = self.users.keys().nth(self.random.below(USERS)).expect("there are so many").clone();
        match self.random.below(15) {
            0..4 => self.connect(&user).await,
            4 => {
                let device = self.device(&user).without_welcome().connect().await.expect("the device connects");
                device.abort().await;
                self.user(&user).is_settling = true;
            }
            5 => self.part(&user, Device::abort).await,
            6 => self.part(&user, Device::close).await,
            7 | 8 => self.join(&user).await,
            9 => self.leave(&user).await,
            10 => self.disconnect(&user).await,
            11..14 => self.store(&user).await,
            _ => self.check(&user).await,
        }
    }

    async fn connect(&mut self, name: &str) {
        let (room, seen) = (format!("user:{name}"), self.user(name).left.pop().flatten());
        let resume = seen.as_ref().map_or(json!({}), |(_, position)| json!({ room.clone(): position }));
        let device = self.device(name).resume(resume).connect().await.expect("the device connects");
        self.user(name).phones.push(Phone { device, room, seen });
    }

    async fn store(&mut self, name: &str) {
        let number = self.user(name).stored + 1;
        let receipt = emit_stored(&self.backend, name, &number.to_string()).await;
        assert!(receipt.position.ends_with(&format!(".{number}")), "positions are dense: {}", receipt.position);
        self.user(name).stored = number;
    }

    fn device(&self, user: &str) -> DeviceBuilder {
        Device::builder(self.clients).token(token(user))
    }

    fn user(&mut self, user: &str) -> &mut User {
        self.users.get_mut(user).expect("it is one of the crowd's")
    }

    fn room(&mut self) -> String {
        format!("room-{}", self.random.below(ROOMS))
    }

    async fn part<F: Future<Output = ()>>(&mut self, user: &str, leave: impl FnOnce(Device) -> F) {
        let user = self.user(user);
        if let Some(phone) = user.phones.pop() {
            user.is_settling = true;
            user.left.push(phone.seen);
            leave(phone.device).await;
        }
    }

    async fn join(&mut self, name: &str) {
        let room = self.room();
        let joined = self.backend.join_room(&room, name).await;
        let user = self.user(name);
        let is_new = user.rooms.insert(room);
        if !user.is_settling {
            assert_eq!(joined, if is_new { user.phones.len() as u64 } else { 0 });
        }
    }

    async fn leave(&mut self, name: &str) {
        let room = self.room();
        let left = self.backend.leave_room(&room, name).await;
        let user = self.user(name);
        let was_in = user.rooms.remove(&room);
        if !user.is_settling {
            assert_eq!(left, if was_in { user.phones.len() as u64 } else { 0 });
        }
    }

    /// Whatever the server had not noticed before is gone with the rest.
    async fn disconnect(&mut self, name: &str) {
        let disconnected = self.backend.disconnect_user(name, "").await.disconnected;
        let user = self.user(name);
        assert!(disconnected >= user.phones.len() as u64);
        if !user.is_settling {
            assert_eq!(disconnected, user.phones.len() as u64);
        }
        let seen = user.phones.drain(..).map(|phone| phone.seen);
        user.left.extend(seen);
        self.check(name).await;
    }

    /// Presence is right at once, or as soon as the server has noticed who left by themselves. Each phone has all messages.
    async fn check(&mut self, name: &str) {
        let backend = self.backend.clone();
        let user = self.user(name);
        for phone in &mut user.phones {
            phone.catch_up(user.stored).await;
        }
        let mut expected: Vec<_> =
            user.phones.iter().map(|phone| phone.device.welcome().connection_id.clone()).collect();
        expected.sort();
        let is_settling = std::mem::take(&mut user.is_settling);
        let connections = deadline("presence to be right", async {
            loop {
                let connections = backend.get_user(name).await.connections;
                let ids: Vec<_> = connections.iter().map(|connection| connection.id.clone()).collect();
                if ids == expected {
                    return connections;
                }
                assert!(is_settling, "{name} has {ids:?} instead of {expected:?}");
            }
        });
        let mut rooms = user.rooms.clone();
        rooms.extend(["everyone".to_owned(), format!("user:{name}")]);
        for connection in connections.await {
            assert!(connection.rooms.iter().eq(&rooms), "{name} is in {:?} instead of {rooms:?}", connection.rooms);
        }
    }
}

async fn listed_users(backend: &Backend) -> BTreeMap<String, usize> {
    let (mut users, mut page_token) = (BTreeMap::new(), String::new());
    loop {
        let request = ListUsersRequest { page_size: 3, page_token };
        let page = answer(backend.presence().list_users(request)).await.expect("the call is accepted");
        users.extend(page.users.into_iter().map(|user| (user.user_id, user.connection_count as usize)));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return users;
        }
    }
}

async fn listed_rooms(backend: &Backend) -> BTreeMap<String, usize> {
    let request = ListRoomsRequest { prefix: String::new(), page_size: 1_000, page_token: String::new() };
    let rooms = answer(backend.rooms().list_rooms(request)).await.expect("the call is accepted").rooms;
    rooms
        .into_iter()
        .map(|room| (room.room, usize::try_from(room.connection_count).expect("it is a count of devices")))
        .collect()
}

fn totals(stats: &GetStatsResponse) -> (u64, u64, u64) {
    (stats.users, stats.connections, stats.rooms)
}

/// Everybody's connections, and those in each room, as they should be.
fn expected(crowds: &[Crowd]) -> (BTreeMap<String, usize>, BTreeMap<String, usize>) {
    let (mut users, mut rooms) = (BTreeMap::new(), BTreeMap::<String, usize>::new());
    let all = crowds.iter().flat_map(|crowd| &crowd.users).filter(|(_, user)| !user.phones.is_empty());
    for (name, user) in all {
        let connections = user.phones.len();
        users.insert(name.clone(), connections);
        for room in user.rooms.iter().cloned().chain(["everyone".to_owned(), format!("user:{name}")]) {
            *rooms.entry(room).or_default() += connections;
        }
    }
    (users, rooms)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presence_is_right_after_a_storm_and_empty_when_all_have_left_over_sqlite() {
    let directory = tempfile::tempdir().expect("a directory");
    Box::pin(storm_over(format!("sqlite:{}/bugle.db", directory.path().display()))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presence_is_right_after_a_storm_and_empty_when_all_have_left_over_postgres() {
    Box::pin(storm_over(new_database())).await;
}

async fn storm_over(url: String) {
    let server = TestServer::start_with(|config| config.store.url = url.into()).await;
    let backend = server.backend().await;
    let mut storms: JoinSet<_> = (1..=TASKS).map(|seed| Crowd::new(&server, &backend, seed).storm()).collect();
    let mut crowds = Vec::new();
    while let Some(crowd) = storms.join_next().await {
        crowds.push(crowd.expect("the storm went well"));
    }

    let (users, rooms) = expected(&crowds);
    let stats = backend.get_stats().await;
    assert_eq!(totals(&stats), (users.len() as u64, users.values().sum::<usize>() as u64, rooms.len() as u64));
    assert_eq!(listed_users(&backend).await, users);
    assert_eq!(listed_rooms(&backend).await, rooms);
    for (room, connections) in &rooms {
        let listed = backend.get_room(room).await.expect("somebody is in it");
        assert_eq!(listed.connection_count, *connections as u64, "{room}");
    }

    for crowd in &mut crowds {
        for (number, (name, user)) in crowd.users.iter_mut().enumerate() {
            match number % 3 {
                0 => assert_eq!(backend.disconnect_user(name, "").await.disconnected, user.phones.len() as u64),
                1 => futures_util::future::join_all(user.phones.drain(..).map(|phone| phone.device.close()))
                    .await
                    .clear(),
                _ => user.phones.clear(),
            }
        }
    }
    deadline("everybody to have left", async { while backend.get_stats().await.connections > 0 {} }).await;
    assert_eq!(totals(&backend.get_stats().await), (0, 0, 0));
    assert_eq!((listed_users(&backend).await, listed_rooms(&backend).await), Default::default());
}
