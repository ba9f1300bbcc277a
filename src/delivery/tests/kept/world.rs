//! What happens, done to nodes, to the engine between them, and to their store.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use proptest_state_machine::StateMachineTest;
use tokio::{
    runtime::{Builder, Runtime},
    task::yield_now,
    time::{Instant, sleep},
};

use super::{
    checks::{Log, room, seq, seq_of, user},
    device::{Came, Device, Losses, Online, Recorder, State, rising},
    oracle::{COMMON, DEVICES, HISTORY, Model, ROOMS, Transition, is_in, resumes, user_of},
};
use crate::cluster::Bus;
use crate::cluster::model::{Link, NODES};
use crate::config::Config;
use crate::delivery::{
    Delivery, Deps, IdempotencyKey, Resume, RoomConfig, RoomHistory,
    tests::{deps, example},
};
use crate::hub::fake::FakeConnection;
use crate::lifecycle::Lifecycle;
use crate::message::{Audience, Emit, EventName, Payload, RoomPattern};
use crate::store::{Store, model::Memory};

pub(super) struct World {
    runtime: Runtime,
    inner: Inner,
}

pub(super) struct Inner {
    pub(super) link: Link,
    pub(super) memory: Memory,
    pub(super) nodes: Vec<Node>,
    pub(super) devices: [Arc<Mutex<Device>>; DEVICES],
    pub(super) log: Arc<Mutex<Log>>,
    pub(super) losses: Losses,
    /// The last emit with a key, and its room.
    keyed: Option<(u64, usize)>,
    _lifecycles: Vec<Lifecycle>,
}

pub(super) struct Node {
    delivery: Delivery,
    store: Store,
    began: Instant,
}

impl StateMachineTest for World {
    type SystemUnderTest = Self;
    type Reference = Model;

    fn init_test(_: &Model) -> Self {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let inner = runtime.block_on(Inner::start());
        Self { runtime, inner }
    }

    fn apply(mut world: Self, _: &Model, transition: Transition) -> Self {
        let World { runtime, inner } = &mut world;
        runtime.block_on(inner.apply(transition));
        inner.log.lock().assert_none();
        world
    }

    fn teardown(mut world: Self, _: Model) {
        let World { runtime, inner } = &mut world;
        runtime.block_on(inner.heal());
        inner.log.lock().assert_none();
        super::note(&inner.log.lock());
    }
}

impl Inner {
    async fn start() -> Self {
        let (link, memory) = (Link::new(), Memory::new(NODES));
        let config = Config::defaults().unwrap();
        let history = RoomHistory { size: usize::MAX, age: Duration::from_hours(24) };
        let rooms = [RoomConfig { matches: RoomPattern::new(room(HISTORY).as_str()).unwrap(), history }];
        let (mut nodes, mut lifecycles) = (Vec::new(), Vec::new());
        for number in 0..NODES {
            let lifecycle = Lifecycle::new();
            let (cluster, store) = (link.cluster(number), memory.store(number, &lifecycle));
            let (bus, of_node) = (Bus::Redis(cluster), Some(store.clone()));
            let delivery = Delivery::new(Deps { bus, store: of_node, rooms: &rooms, ..deps(&config, &lifecycle) });
            nodes.push(Node { delivery, store, began: Instant::now() });
            lifecycles.push(lifecycle);
        }
        let joining = nodes.iter().map(|node| node.delivery.join_nodes());
        for joined in futures_util::future::join_all(joining).await {
            joined.unwrap();
        }
        for (number, node) in nodes.iter().enumerate() {
            link.serves(number, node.delivery.cluster().unwrap());
        }
        let inner = Self {
            link,
            memory,
            nodes,
            devices: Default::default(),
            log: Arc::default(),
            losses: Losses::default(),
            keyed: None,
            _lifecycles: lifecycles,
        };
        sleep(Duration::from_secs(2)).await;
        inner
    }

    async fn apply(&mut self, transition: Transition) {
        use Transition as T;

        let nodes = |node: Option<usize>| node.map_or(0..NODES, |node| node..node + 1);
        match transition {
            T::Connect { device, node } => self.connect(device, node),
            T::Disconnect { device, unseen } => self.disconnect(device, unseen),
            T::Prove(device) => self.prove(device),
            T::Reinstall(device) => self.reinstall(device),
            T::Emit { node, room, is_stored, is_keyed } => self.emit(node, room, is_stored, is_keyed),
            T::EmitAtAll(room) => self.emit_at_all(room),
            T::Repeat(node) => {
                if let Some((seq, room)) = self.keyed {
                    self.publish(node, (seq, room), true, true);
                }
            }
            T::Wait(duration) => sleep(duration).await,
            T::Delay { node, latency } => self.link.delay(node, latency),
            T::DelayOnly { node, of_frames, latency } => self.link.delay_only(node, of_frames, latency),
            T::Cut(node) => self.link.cut(node, true),
            T::Restore(node) => self.link.cut(node, false),
            T::LoseSubscription(node) => self.link.lose_subscription(node),
            T::CrashEngine { keeps_data } => self.link.crash(keeps_data),
            T::StartEngine => self.link.start(),
            T::FailOverEngine { keeps_data } => {
                self.link.crash(keeps_data);
                self.link.start();
            }
            T::FreezeEngine => self.link.freeze(true),
            T::ThawEngine => self.link.freeze(false),
            T::SlowStore { node, latency } => self.memory.delay(node, latency),
            T::HangStore(node) => nodes(node).for_each(|node| self.memory.hang(node, true)),
            T::ThawStore => nodes(None).for_each(|node| self.memory.hang(node, false)),
            T::LoseStore(node) => nodes(node).for_each(|node| self.memory.away(node, true)),
            T::FindStore => nodes(None).for_each(|node| self.memory.away(node, false)),
            T::RestartStore => self.memory.restart(),
            T::LagStore => self.memory.lag(),
            T::FailOverStore => self.fail_over(),
            T::Heal => self.heal().await,
        }
        yield_now().await;
        self.look();
    }

    /// Notes what nodes have done by themselves.
    pub(super) fn look(&mut self) {
        let epoch = self.memory.epoch();
        if epoch.is_some() && self.nodes.iter().all(|node| node.store.epoch() == epoch) {
            let losses = self.losses.load(Ordering::Relaxed);
            self.losses.store(losses + losses % 2, Ordering::Relaxed);
        }
        for device in &self.devices {
            let State::Online(online) = &mut device.lock().state else { continue };
            let delivery = &self.nodes[online.node].delivery;
            for (number, first) in online.first.iter_mut().enumerate() {
                *first = first.or_else(|| knows_head(delivery, number).then(|| self.log.lock().seq + 1));
            }
        }
        for device in 0..DEVICES {
            let has_ended = self.devices[device].lock().online().is_some_and(|online| online.connection.has_ended());
            if has_ended {
                self.disconnect(device, 0);
            }
        }
    }

    fn fail_over(&self) {
        if let Some(lost) = self.memory.fail_over() {
            self.log.lock().lost(&lost);
            let losses = self.losses.load(Ordering::Relaxed);
            self.losses.store(losses + 1 + losses % 2, Ordering::Relaxed);
        }
    }

    pub(super) fn connect(&self, number: usize, node: usize) {
        let device = self.devices[number].clone();
        let seen = {
            let mut device = device.lock();
            if !matches!(device.state, State::Offline) {
                return;
            }
            device.state = State::Joining;
            device.seen()
        };
        let delivery = self.nodes[node].delivery.clone();
        let (log, losses, link) = (self.log.clone(), self.losses.clone(), self.link.clone());
        #[expect(clippy::disallowed_methods, reason = "a device")]
        tokio::spawn(async move {
            let said = seen.into_iter().map(|(number, position)| (room(number).to_string(), Some(position)));
            let resume = resumes(number).then(|| Resume::new(said));
            let resume = resume.as_ref().map(|resume| (resume, &[][..]));
            let connection = Arc::new(FakeConnection::new(Recorder::new(number, &losses, &link)));
            let (losses, sequences) = (losses.load(Ordering::Relaxed), link.sequences());
            let stay = log.lock().joins(number, node);
            let user = user(user_of(number));
            let token_rooms = [room(COMMON), room(HISTORY)];
            let mut admitting = pin!(delivery.admit(user.clone(), &token_rooms, connection.clone(), resume));
            let mut is_blind = [false; ROOMS];
            let admitted = poll_fn(|cx| {
                let polled = admitting.as_mut().poll(cx);
                for member in delivery.hub().of_user(&user) {
                    if std::ptr::addr_eq(member.connection(), &raw const *connection) {
                        for (number, is_blind) in is_blind.iter_mut().enumerate() {
                            *is_blind |= member.is_in(&room(number)) && !knows_head(&delivery, number);
                        }
                    }
                }
                polled
            });
            let Ok(admission) = admitted.await else {
                log.lock().violation(format!("device {number} is not let in"));
                return;
            };
            log.lock().admitted(stay);
            admission.go_live(None);
            let since = log.lock().seq + 1;
            let first = std::array::from_fn(|number| knows_head(&delivery, number).then_some(since));
            let came = Came { losses, sequences, is_blind };
            let online = Online { node, stay, admission, connection, arrived: 0, first, since, came };
            device.lock().state = State::Online(online);
        });
    }

    pub(super) fn disconnect(&self, number: usize, unseen: usize) {
        let mut device = self.devices[number].lock();
        let Some((online, arrived)) = device.cut(unseen) else { return };
        self.log.lock().ended(online.stay);
        online.admission.ended("transport_close");
        let taken = device.take(&arrived, online.came);
        let wrong = if resumes(number) { taken } else { rising(&online.connection.sent()) };
        self.blame(number, online.node, wrong);
    }

    fn blame(&self, device: usize, node: usize, wrong: Vec<String>) {
        let mut log = self.log.lock();
        for wrong in wrong {
            log.violation(format!("device {device} at node {node} {wrong}"));
        }
    }

    fn prove(&self, device: usize) {
        if let State::Online(online) = &mut self.devices[device].lock().state {
            online.connection.prove();
            online.arrived = online.connection.sent().len();
        }
    }

    fn reinstall(&self, device: usize) {
        self.disconnect(device, 0);
        let mut device = self.devices[device].lock();
        if matches!(device.state, State::Offline) {
            device.known = Default::default();
        }
    }

    pub(super) fn emit_at_all(&mut self, room: usize) {
        (0..NODES).for_each(|node| self.emit(node, room, true, false));
    }

    fn emit(&mut self, node: usize, room: usize, is_stored: bool, is_keyed: bool) {
        let seq = {
            let mut log = self.log.lock();
            log.seq += 1;
            log.seq
        };
        let is_stored = is_stored && room != HISTORY;
        let is_keyed = is_keyed && is_stored;
        if is_keyed {
            self.keyed = Some((seq, room));
        }
        self.publish(node, (seq, room), is_stored, is_keyed);
    }

    fn publish(&self, node: usize, (seq, number): (u64, usize), is_stored: bool, is_keyed: bool) {
        let Node { delivery, began, .. } = &self.nodes[node];
        let emit = Emit {
            audience: Audience::of_room(room(number)),
            event: EventName::new("e").unwrap(),
            payload: Payload::json(&seq.to_string()).unwrap(),
            envelope: false,
            store: is_stored,
            ..example("0")
        };
        let caller = Arc::from("test");
        let key = is_keyed.then(|| IdempotencyKey::new(Arc::clone(&caller), seq.to_string().into(), &emit));
        let emitted = self.log.lock().emits(seq, number);
        let publishing = delivery.publish(&caller, emit, key, Instant::now());
        let (log, link, began) = (self.log.clone(), self.link.clone(), *began);
        #[expect(clippy::disallowed_methods, reason = "a backend")]
        tokio::spawn(async move {
            let published = publishing.done().await;
            log.lock().settled(&link, began, emitted, published.map(|(receipt, _)| receipt));
        });
    }

    /// What is in the store, or the history, by room: positions and emits.
    pub(super) fn stored(&self) -> [Vec<(u64, u64)>; ROOMS] {
        std::array::from_fn(|number| {
            if number == HISTORY {
                let kept = self.link.history(&room(HISTORY));
                return (1..).zip(kept.iter().map(|(_, _, payload, _)| seq_of(payload))).collect();
            }
            let messages = self.memory.messages(&room(number));
            messages.iter().map(|message| (message.number, seq(message))).collect()
        })
    }

    /// What a connected device has not got that it is to have.
    pub(super) fn missing(&self, number: usize, stored: &[Vec<(u64, u64)>; ROOMS]) -> Vec<String> {
        let device = self.devices[number].lock();
        let Some(online) = device.online() else { return Vec::new() };
        let (view, mut wrong) = device.view();
        if !resumes(number) {
            wrong = rising(&online.connection.sent());
            let Came { losses, sequences, .. } = online.came;
            let is_undisturbed = |room| match room {
                HISTORY => sequences == self.link.sequences(),
                _ => losses == self.losses.load(Ordering::Relaxed),
            };
            for (room, stored) in
                stored.iter().enumerate().filter(|(room, _)| is_in(number, *room) && is_undisturbed(*room))
            {
                // Of the user's own mailbox it is given all that came since it was let in.
                let first = if room == user_of(number) { Some(online.since) } else { online.first[room] };
                let is_owed = |seq: u64| first.is_some_and(|first| seq >= first);
                let owed = stored.iter().filter(|(_, seq)| is_owed(*seq) && !view.received.contains(seq));
                wrong.extend(owed.map(|(position, seq)| format!("has not got {position} ({seq}) of {room}")));
            }
        } else if wrong.is_empty() {
            for (room, stored) in stored.iter().enumerate().filter(|(room, _)| is_in(number, *room)) {
                let known = &view.known[room];
                let Some(base) = known.base else {
                    wrong.push(format!("was not told where {room} stands"));
                    continue;
                };
                if room == HISTORY && known.seen.as_ref().is_none_or(|(_, seen_in)| *seen_in != self.link.sequences()) {
                    wrong.push("was not told that a history has begun anew".to_owned());
                }
                let owed: Vec<_> = stored.iter().filter(|(number, _)| *number > base).copied().collect();
                if owed != known.got {
                    wrong.push(format!("has {:?} of {room} after {base}, where {owed:?} is", known.got));
                }
                // Unless it was told, it has all that was emitted since it was let in.
                let is_missing = |(number, seq): &&(u64, u64)| {
                    *number > known.gap && *seq >= online.since && !view.received.contains(seq)
                };
                let missing: Vec<_> = stored.iter().filter(is_missing).collect();
                if !missing.is_empty() {
                    wrong.push(format!("was not told that it misses {missing:?} of {room}"));
                }
            }
        }
        wrong.into_iter().map(|wrong| format!("device {number} at node {} {wrong}", online.node)).collect()
    }
}

/// Whether a node knows where a room stands.
fn knows_head(delivery: &Delivery, number: usize) -> bool {
    let room = room(number);
    if number == HISTORY {
        delivery.history_position(&room).is_some()
    } else {
        delivery.hub().log_head(&room).is_some()
    }
}
