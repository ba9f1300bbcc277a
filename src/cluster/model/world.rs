//! What happens, done to nodes and to their engine.

use std::{sync::atomic::Ordering, time::Duration};

use jiff::Timestamp;
use proptest_state_machine::StateMachineTest;
use tokio::{
    runtime::{Builder, Runtime},
    time::{Instant, sleep},
};

use super::{
    checks::Log,
    memory::Memory,
    node::{DEADLINE, LEASE, LINGER, Process},
    oracle::{DEVICES, Model, NODES, ROOMS, Transition, USERS},
    wire::{Faults, Shared},
};
use crate::cluster::{EmitFrame, Frame, PublishError};
use crate::message::{Audience, Emit, EventName, MessageId, Payload, RoomName, UserId};

pub(super) struct World {
    runtime: Runtime,
    inner: Inner,
}

struct Inner {
    memory: Memory,
    log: Shared<Log>,
    nodes: [Option<Process>; NODES],
    processes: u64,
    devices: [Shared<Device>; DEVICES],
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Device {
    #[default]
    Offline,
    /// At a process.
    Joining(u64),
    /// At a node, as a stay.
    Online(usize, u64, usize),
}

fn room(number: usize) -> RoomName {
    match number {
        0..USERS => RoomName::of_user(&UserId::new(&number.to_string()).unwrap()),
        number if number == ROOMS - 1 => RoomName::everyone(),
        number => RoomName::new(&format!("r{number}")).unwrap(),
    }
}

fn emit(id: MessageId, room: &RoomName) -> Frame {
    let emit = Emit::plain(Audience::of_room(room.clone()), EventName::own("event"), Payload::None);
    Frame::Emit(Box::new(EmitFrame { id, emit, once: false, stored: None }))
}

impl StateMachineTest for World {
    type SystemUnderTest = Self;
    type Reference = Model;

    fn init_test(_: &Model) -> Self {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let inner = runtime.block_on(async {
            let mut inner = Inner {
                memory: Memory::new(),
                log: Shared::default(),
                nodes: [const { None }; NODES],
                processes: 0,
                devices: Default::default(),
            };
            (0..NODES).for_each(|node| inner.start(node));
            sleep(DEADLINE * 6).await;
            inner
        });
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
        inner.log.lock().check_order();
        super::note(&inner.log.lock());
    }
}

impl Inner {
    async fn apply(&mut self, transition: Transition) {
        use Transition as T;

        match transition {
            T::Connect { device, node, after } => self.connect(device, node, after),
            T::Disconnect(device) => self.disconnect(device),
            T::Emit { node, room } => self.emit(node, room),
            T::EmitAtAll(room) => (0..NODES).for_each(|node| self.emit(node, room)),
            T::Wait(duration) => sleep(duration).await,
            T::Delay { node, latency } => self.change(|faults| faults.latency[node] = latency),
            T::Cut(node) => self.change(|faults| faults.is_cut[node] = true),
            T::Restore(node) => self.change(|faults| faults.is_cut[node] = false),
            T::LoseSubscription(node) => self.memory.state.lock().lose_subscriptions(node),
            T::Drop(node) => self.memory.state.lock().drops[node] += 1,
            T::CrashEngine { keeps_data } => {
                self.memory.freeze(false);
                self.memory.state.lock().crash(keeps_data);
            }
            T::StartEngine => self.memory.state.lock().start(),
            T::FreezeEngine => self.memory.freeze(true),
            T::ThawEngine => self.memory.freeze(false),
            T::ForgetFunctions => self.memory.state.lock().forget_functions(),
            T::Refuse(command) => self.memory.state.lock().refuses = command,
            T::Pause(node) => self.nodes[node].iter().for_each(Process::pause),
            T::Resume(node) => self.nodes[node].iter().for_each(Process::resume),
            T::Kill(node) => self.kill(node),
            T::Start(node) => self.start(node),
            T::Heal => self.heal().await,
        }
        tokio::task::yield_now().await;
    }

    fn change(&self, change: impl FnOnce(&mut Faults)) {
        self.memory.faults.send_modify(change);
    }

    fn start(&mut self, node: usize) {
        if self.nodes[node].is_none() {
            self.processes += 1;
            self.memory.state.lock().forget_contact(node);
            self.nodes[node] = Some(Process::start(&self.memory, node, self.processes, &self.log));
        }
    }

    fn kill(&mut self, node: usize) {
        let Some(process) = self.nodes[node].take() else { return };
        let number = process.local.process;
        self.log.lock().killed(number);
        for device in &self.devices {
            let mut device = device.lock();
            if matches!(*device, Device::Joining(process) | Device::Online(_, process, _) if process == number) {
                *device = Device::Offline;
            }
        }
    }

    /// The node, if it takes calls.
    fn serving(&self, node: usize) -> Option<&Process> {
        self.nodes[node].as_ref().filter(|process| process.is_serving() && !process.is_paused())
    }

    fn connect(&self, number: usize, node: usize, after: Duration) {
        let Some(process) = self.serving(node) else { return };
        let (device, id) = (self.devices[number].clone(), process.local.process);
        if *device.lock() != Device::Offline {
            return;
        }
        *device.lock() = Device::Joining(id);
        let rooms = vec![room(number % USERS), room(USERS + number % 2), RoomName::everyone()];
        let (cluster, local, log) = (process.cluster.clone(), process.local.clone(), self.log.clone());
        let memory = self.memory.clone();
        process.run(async move {
            let began = Instant::now();
            let subscribed = cluster.subscribe(rooms.clone()).await;
            log.lock().joined((&memory, &local), node, began);
            sleep(after).await;
            if *device.lock() == Device::Joining(id) {
                let stay = log.lock().admitted(node, id, rooms.clone());
                let mut occupied = local.rooms.lock();
                for room in rooms {
                    occupied.entry(room).or_default().insert(stay);
                }
                *device.lock() = Device::Online(node, id, stay);
            }
            drop(subscribed);
        });
    }

    fn disconnect(&self, device: usize) {
        let mut device = self.devices[device].lock();
        let Device::Online(node, _, stay) = *device else { return };
        let Some(process) = self.serving(node) else { return };
        *device = Device::Offline;
        self.log.lock().has_left(stay);
        process.local.rooms.lock().retain(|_, stays| {
            stays.remove(&stay);
            !stays.is_empty()
        });
    }

    fn emit(&self, node: usize, number: usize) {
        let Some(process) = self.serving(node) else { return };
        let room = room(number);
        let (cluster, local) = (process.cluster.clone(), process.local.clone());
        let (log, memory) = (self.log.clone(), self.memory.clone());
        process.run(async move {
            let id = MessageId::at(Timestamp::UNIX_EPOCH);
            let began = log.lock().emits(id);
            let outcome = match cluster.publish(&emit(id, &room)) {
                Ok(mut ticket) => ticket.gathered(ticket.began() + cluster.deadline()).await,
                Err(error) => Err(PublishError::Bus(error)),
            };
            log.lock().settled((&memory, &local), (id, &room, began), &outcome);
        });
    }

    /// Ends all faults, and checks what holds some time after that.
    async fn heal(&mut self) {
        self.memory.state.lock().start();
        self.memory.freeze(false);
        self.memory.state.lock().refuses = None;
        self.memory.state.lock().drops = [0; NODES];
        self.change(|faults| *faults = Faults::default());
        for node in 0..NODES {
            self.nodes[node].iter().for_each(Process::resume);
            self.start(node);
        }
        // Those that have just started wait for their name, and for the others.
        sleep(LEASE * 3 + LINGER + DEADLINE * 16).await;
        let processes: Vec<_> = self.nodes.iter().flatten().collect();
        assert!(processes.iter().all(|process| process.is_serving()), "every node serves");
        for process in &processes {
            let shard = &process.cluster.shards()[0];
            let number = process.local.process;
            assert!(shard.is_ready(), "process {number} is ready");
            assert_eq!(shard.live.load(Ordering::Relaxed), NODES, "process {number} knows its peers");
            assert_eq!(shard.pending.len(), 0, "process {number} waits for no answers");
        }
        let complete = self.log.lock().complete;
        (0..NODES).for_each(|node| self.emit(node, ROOMS - 1));
        sleep(DEADLINE * 2).await;
        let log = self.log.lock();
        assert_eq!(log.complete - complete, NODES as u64, "receipts are complete again");
        let is_joining = self.devices.iter().any(|device| matches!(*device.lock(), Device::Joining(_)));
        assert!(!is_joining, "no join waits");
        for process in processes {
            let (shard, number) = (&process.cluster.shards()[0], process.local.process);
            assert_eq!(shard.rooms.pins(), 0, "process {number} keeps no pins");
            assert_eq!(shard.rooms.len(), log.rooms_of(number).len(), "process {number} has the rooms it needs");
        }
    }
}
