//! What happens.

use std::time::Duration;

use proptest::{prelude::*, strategy::Union};
use proptest_state_machine::ReferenceStateMachine;

use crate::cluster::model::NODES;

/// The devices. The first ones resume.
pub(super) const DEVICES: usize = 6;
const RESUMING: usize = 3;
/// Whose each device is. Some users have a device that resumes and one that does not.
const USERS_OF_DEVICES: [usize; DEVICES] = [0, 1, 0, 2, 3, 1];
pub(super) const USERS: usize = 4;
/// The users' own rooms, and two that all are in: one whose messages are stored, and one with a history.
pub(super) const ROOMS: usize = USERS + 2;
pub(super) const COMMON: usize = USERS;
pub(super) const HISTORY: usize = USERS + 1;

pub(super) fn resumes(device: usize) -> bool {
    device < RESUMING
}

pub(super) fn user_of(device: usize) -> usize {
    USERS_OF_DEVICES[device]
}

/// Whether a user's devices do not resume.
pub(super) fn is_plain(user: usize) -> bool {
    (0..DEVICES).all(|device| user_of(device) != user || !resumes(device))
}

pub(super) fn is_in(device: usize, room: usize) -> bool {
    room >= COMMON || room == user_of(device)
}

#[derive(Clone, Debug)]
pub(super) enum Transition {
    /// Unless the device is connected.
    Connect {
        device: usize,
        node: usize,
    },
    /// The last frames that are not proven have not arrived.
    Disconnect {
        device: usize,
        unseen: usize,
    },
    /// The device proves all that it was sent.
    Prove(usize),
    /// The device forgets where it was.
    Reinstall(usize),
    Emit {
        node: usize,
        room: usize,
        is_stored: bool,
        is_keyed: bool,
    },
    /// Emits by all nodes at once, which are stored if the room has no history.
    EmitAtAll(usize),
    /// The last emit with a key is repeated.
    Repeat(usize),
    Wait(Duration),
    Delay {
        node: usize,
        latency: Duration,
    },
    /// Frames to a node take so much longer, or answers to its commands.
    DelayOnly {
        node: usize,
        of_frames: bool,
        latency: Duration,
    },
    Cut(usize),
    Restore(usize),
    LoseSubscription(usize),
    CrashEngine {
        keeps_data: bool,
    },
    StartEngine,
    /// Another engine takes over at once.
    FailOverEngine {
        keeps_data: bool,
    },
    FreezeEngine,
    ThawEngine,
    SlowStore {
        node: usize,
        latency: Duration,
    },
    /// Of a node, or of all.
    HangStore(Option<usize>),
    ThawStore,
    LoseStore(Option<usize>),
    FindStore,
    RestartStore,
    /// The store's standby gets nothing from now on.
    LagStore,
    /// The standby takes over.
    FailOverStore,
    /// All faults end, and what must hold then is checked.
    Heal,
}

/// What happens depends on nothing: what makes no sense changes nothing.
#[derive(Clone, Debug)]
pub(super) struct Model;

fn milliseconds(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_millis)
}

fn room() -> BoxedStrategy<usize> {
    prop_oneof![Just(COMMON), Just(HISTORY), 0..ROOMS].boxed()
}

fn of_devices() -> Vec<(u32, BoxedStrategy<Transition>)> {
    use Transition as T;

    let emit = (0..NODES, room(), prop::bool::weighted(0.8), any::<bool>());
    let emit = emit.prop_map(|(node, room, is_stored, is_keyed)| T::Emit { node, room, is_stored, is_keyed });
    vec![
        (24, (0..DEVICES, 0..NODES).prop_map(|(device, node)| T::Connect { device, node }).boxed()),
        (9, (0..DEVICES, 0..4_usize).prop_map(|(device, unseen)| T::Disconnect { device, unseen }).boxed()),
        (8, (0..DEVICES).prop_map(T::Prove).boxed()),
        (1, (0..DEVICES).prop_map(T::Reinstall).boxed()),
        (40, emit.boxed()),
        (10, room().prop_map(T::EmitAtAll).boxed()),
        (6, (0..NODES).prop_map(T::Repeat).boxed()),
        (30, milliseconds(1..30).prop_map(T::Wait).boxed()),
        (12, milliseconds(30..700).prop_map(T::Wait).boxed()),
        (4, milliseconds(700..4_000).prop_map(T::Wait).boxed()),
        (1, milliseconds(4_000..20_000).prop_map(T::Wait).boxed()),
    ]
}

fn of_engine() -> Vec<(u32, BoxedStrategy<Transition>)> {
    use Transition as T;

    let delay_only = (0..NODES, any::<bool>(), milliseconds(0..120));
    let delay_only = delay_only.prop_map(|(node, of_frames, latency)| T::DelayOnly { node, of_frames, latency });
    vec![
        (8, (0..NODES, milliseconds(0..120)).prop_map(|(node, latency)| T::Delay { node, latency }).boxed()),
        (8, delay_only.boxed()),
        (2, (0..NODES).prop_map(T::Cut).boxed()),
        (5, (0..NODES).prop_map(T::Restore).boxed()),
        (4, (0..NODES).prop_map(T::LoseSubscription).boxed()),
        (2, any::<bool>().prop_map(|keeps_data| T::CrashEngine { keeps_data }).boxed()),
        (5, Just(T::StartEngine).boxed()),
        (1, any::<bool>().prop_map(|keeps_data| T::FailOverEngine { keeps_data }).boxed()),
        (1, Just(T::FreezeEngine).boxed()),
        (4, Just(T::ThawEngine).boxed()),
    ]
}

fn of_store() -> Vec<(u32, BoxedStrategy<Transition>)> {
    use Transition as T;

    let whose = || prop::option::weighted(0.8, 0..NODES);
    vec![
        (6, (0..NODES, milliseconds(0..200)).prop_map(|(node, latency)| T::SlowStore { node, latency }).boxed()),
        (2, whose().prop_map(T::HangStore).boxed()),
        (5, Just(T::ThawStore).boxed()),
        (2, whose().prop_map(T::LoseStore).boxed()),
        (5, Just(T::FindStore).boxed()),
        (1, Just(T::RestartStore).boxed()),
        (1, Just(T::LagStore).boxed()),
        (1, Just(T::FailOverStore).boxed()),
        (1, Just(T::Heal).boxed()),
    ]
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Transition;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Transition> {
        Union::new_weighted([of_devices(), of_engine(), of_store()].concat()).boxed()
    }

    fn apply(state: Self, _: &Transition) -> Self {
        state
    }
}
