//! Devices that come back to any node when their connection ends. Some end it by themselves all the time.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use bugle::message::Position;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, interval},
};
use tokio_util::sync::CancellationToken;

use super::{
    Finale, KEEPERS, PAUSE, Place, Places, Room, SHARED, chance,
    load::{EVENT, LAST},
};
use crate::{
    NODES,
    harness::{Arg, Device, Event, Transport, token_with},
};

/// Longer than a fault lasts.
const LONG: Duration = Duration::from_mins(5);
/// A device that is restless leaves a connection on which nothing comes for so long.
const SILENCE: Duration = Duration::from_secs(1);
/// How long it may take to connect: a node without its engine takes a while.
const PATIENCE: Duration = Duration::from_secs(3);

/// A user with one device.
#[derive(Clone, Debug)]
pub struct Who {
    pub user: String,
    /// It says what it has seen, and is in all rooms. Otherwise it is in its user's alone.
    pub resumes: bool,
    /// It ends its connections by itself.
    is_restless: bool,
    /// Where it connects at first.
    node: usize,
}

impl Who {
    pub fn all() -> Vec<Self> {
        let who = |name: &str, resumes, is_restless| {
            let name = name.to_owned();
            move |node| Self { user: format!("{name}-{node}"), resumes, is_restless, node }
        };
        let staying = (0..NODES).map(who("staying", true, false));
        let restless = (0..2).map(who("restless", true, true));
        let forgetful = (0..2).map(who("forgetful", false, true));
        staying.chain(restless).chain(forgetful).chain([who("unaware", false, false)(2)]).collect()
    }

    fn own_room(&self) -> String {
        Room::Mailbox(self.user.clone()).name()
    }

    pub fn is_in(&self, room: &str) -> bool {
        room == self.own_room() || self.resumes && SHARED.iter().any(|shared| shared.name() == room)
    }

    fn rooms(&self) -> BTreeSet<String> {
        let shared = SHARED.iter().filter(|_| self.resumes).map(Room::name);
        shared.chain([self.own_room()]).collect()
    }

    fn token(&self) -> String {
        let mut claims = json!({ "sub": self.user, "group": KEEPERS.strip_prefix("group:") });
        if self.resumes {
            let names = SHARED.iter().map(Room::name);
            let names: Vec<_> = names.filter_map(|name| name.strip_prefix("kept:").map(str::to_owned)).collect();
            claims["kept"] = json!(names);
        }
        token_with(&claims)
    }

    /// A polling device that upgrades is among those that resume.
    fn transport(&self) -> Transport {
        if self.user == "restless-1" { Transport::Upgrade } else { Transport::WebSocket }
    }
}

/// A device, and what it was sent.
#[derive(Debug)]
pub struct Listener {
    pub who: Who,
    pub connections: Vec<Connection>,
    /// It has all that it should have.
    pub is_done: bool,
    /// What it says that it has seen.
    seen: BTreeMap<String, String>,
    /// Rooms of which it has the last message.
    ended: HashSet<String>,
    numbers: HashSet<usize>,
    rate: u32,
}

#[derive(Debug)]
pub struct Connection {
    pub node: usize,
    /// Before it was made.
    pub opened: Instant,
    /// When it was in its rooms and had all that it had missed, by the room.
    pub ready: BTreeMap<String, Instant>,
    /// `None`: the device had everything.
    pub ended: Option<Instant>,
    pub news: Vec<News>,
}

/// What came on a connection.
#[derive(Debug)]
pub enum News {
    Message {
        room: String,
        number: usize,
        position: Option<Position>,
    },
    Resumed {
        room: String,
        recovered: bool,
        position: Option<Position>,
        at: Instant,
    },
    /// What should not have come to it.
    Strange(String),
}

#[derive(Deserialize)]
struct Resumed {
    recovered: bool,
    position: Option<String>,
}

#[derive(Deserialize)]
struct AllResumed {
    rooms: BTreeMap<String, Resumed>,
}

impl Listener {
    /// One that is to come to so many messages a second.
    pub fn new(who: Who, rate: u32) -> Self {
        Self {
            who,
            connections: Vec::new(),
            is_done: false,
            seen: BTreeMap::new(),
            ended: HashSet::new(),
            numbers: HashSet::new(),
            rate,
        }
    }

    /// Connects again and again until it has everything, or is given up. It is ready when it knows where all its rooms stand.
    pub async fn listen(
        mut self,
        places: Arc<Places>,
        ready: mpsc::Sender<()>,
        mut finale: watch::Receiver<Finale>,
        give_up: CancellationToken,
    ) -> Self {
        let mut ready = Some(ready);
        let listening = async {
            let mut place = places.by_turns(self.who.node);
            let mut pauses = interval(PAUSE);
            while !self.has_everything(&finale) {
                pauses.tick().await;
                let opened = Instant::now();
                if let Some(device) = self.connect(&place).await {
                    let mut connection =
                        Connection { node: place.node, opened, ready: BTreeMap::new(), ended: None, news: Vec::new() };
                    if !self.who.resumes {
                        connection.ready.insert(self.who.own_room(), Instant::now());
                        ready.take();
                    }
                    self.connections.push(connection);
                    self.hear(device, &mut finale, &mut ready).await;
                }
                place = places.any();
            }
            self.is_done = true;
        };
        give_up.run_until_cancelled(listening).await;
        self
    }

    async fn connect(&self, place: &Place) -> Option<Device> {
        let mut builder = place.devices.with_token(self.who.token()).transport(self.who.transport());
        if self.who.resumes {
            builder = builder.resume(json!(self.seen));
        }
        builder.patience(PATIENCE).connect().await.ok()
    }

    fn has_everything(&self, finale: &watch::Receiver<Finale>) -> bool {
        if self.who.resumes {
            return self.ended.len() == self.who.rooms().len();
        }
        let finale = finale.borrow();
        finale.as_ref().is_some_and(|accepted| accepted[&self.who.own_room()].is_subset(&self.numbers))
    }

    /// Notes what comes on a connection until that ends, or it has everything, or it ends the connection by itself.
    async fn hear(
        &mut self,
        mut device: Device,
        finale: &mut watch::Receiver<Finale>,
        ready: &mut Option<mpsc::Sender<()>>,
    ) {
        // About as many as come in half of a second.
        let some = self.rate as usize / if self.who.resumes { 2 } else { 64 };
        let mut left = self.who.is_restless.then(|| 2 + chance(some.max(1)));
        while !self.has_everything(finale) {
            let misses_something = !self.who.resumes && finale.borrow().is_some();
            let is_patient = !(self.who.is_restless || misses_something) || ready.is_some();
            let event = tokio::select! {
                event = device.try_next(if is_patient { LONG } else { SILENCE }) => event,
                Ok(()) = finale.changed() => continue,
            };
            let Some(event) = event else { break };
            self.note(&event);
            let Some(connection) = self.connections.last() else { break };
            if self.who.rooms().iter().all(|room| connection.ready.contains_key(room)) {
                ready.take();
            }
            if ready.is_none()
                && let Some(left) = &mut left
            {
                *left -= 1;
                if *left == 0 {
                    break;
                }
            }
        }
        if !self.has_everything(finale)
            && let Some(connection) = self.connections.last_mut()
        {
            connection.ended = Some(Instant::now());
        }
        // A device that says what it has seen may lose what it has not looked at. One that does not has proven it.
        if self.who.resumes && chance(2) == 0 {
            return;
        }
        for event in device.abort_with_rest().await {
            if !self.who.resumes {
                self.note(&event);
            }
        }
    }

    fn note(&mut self, event: &Event) {
        let news = self.take(event);
        if let Some(connection) = self.connections.last_mut() {
            connection.note(news);
        }
    }

    fn take(&mut self, event: &Event) -> Vec<News> {
        match event.name.as_str() {
            EVENT | LAST => vec![self.take_message(event)],
            "bugle:resumed" => {
                let all: AllResumed = serde_json::from_str(event.json()).expect("it is as the contract has it");
                all.rooms.into_iter().map(|(room, resumed)| self.take_resumed(room, resumed)).collect()
            }
            name if name.starts_with("bugle:") => Vec::new(),
            _ => vec![News::Strange(event.raw.clone())],
        }
    }

    fn take_message(&mut self, event: &Event) -> News {
        let Some(Arg::Json(payload)) = event.args.first() else { return News::Strange(event.raw.clone()) };
        let number = payload.parse().expect("a number");
        let (room, position) = if self.who.resumes {
            let Some(meta) = event.values().into_iter().nth(1) else { return News::Strange(event.raw.clone()) };
            let text = |name: &str| meta.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            let (room, position) = (text("room"), text("position"));
            let Ok(parsed) = position.parse() else { return News::Strange(event.raw.clone()) };
            self.seen.insert(room.clone(), position);
            (room, Some(parsed))
        } else {
            (self.who.own_room(), None)
        };
        self.numbers.insert(number);
        if event.name == LAST {
            self.ended.insert(room.clone());
        }
        News::Message { room, number, position }
    }

    fn take_resumed(&mut self, room: String, resumed: Resumed) -> News {
        let Resumed { recovered, position } = resumed;
        if let Some(position) = &position {
            self.seen.insert(room.clone(), position.clone());
        }
        let position = position.map(|position| position.parse().expect("a position"));
        News::Resumed { room, recovered, position, at: Instant::now() }
    }
}

impl Connection {
    fn note(&mut self, news: Vec<News>) {
        for news in news {
            if let News::Resumed { room, at, .. } = &news {
                self.ready.entry(room.clone()).or_insert(*at);
            }
            self.news.push(news);
        }
    }
}
