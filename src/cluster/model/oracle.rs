//! What happens.

use std::time::Duration;

use proptest::{prelude::*, strategy::Union};
use proptest_state_machine::ReferenceStateMachine;

use super::memory::MAX_LATENCY;

/// How many nodes there are at most.
pub(crate) const NODES: usize = 3;
/// How many devices there are at most. Some are the same user's.
pub(super) const DEVICES: usize = 6;
pub(super) const USERS: usize = 3;
/// The rooms to which is emitted: the users', two others, and everyone's.
pub(super) const ROOMS: usize = USERS + 3;

#[derive(Clone, Debug)]
pub(super) enum Transition {
    /// A device connects, unless it is. It is put into its rooms so long after they are subscribed.
    Connect {
        device: usize,
        node: usize,
        after: Duration,
    },
    Disconnect(usize),
    Emit {
        node: usize,
        room: usize,
    },
    /// One emit by each node at once, to the same room.
    EmitAtAll(usize),
    Wait(Duration),
    Delay {
        node: usize,
        latency: Duration,
    },
    Cut(usize),
    Restore(usize),
    LoseSubscription(usize),
    /// The next frame or answer to a node is lost on its way.
    Drop(usize),
    CrashEngine {
        keeps_data: bool,
    },
    StartEngine,
    FreezeEngine,
    ThawEngine,
    ForgetFunctions,
    /// The engine refuses a command from now on, or none.
    Refuse(Option<&'static str>),
    Pause(usize),
    Resume(usize),
    Kill(usize),
    Start(usize),
    /// All faults end, and what must hold then is checked.
    Heal,
}

/// What happens depends on nothing: what makes no sense changes nothing.
#[derive(Clone, Debug)]
pub(super) struct Model;

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Transition;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Transition> {
        use Transition as T;

        let milliseconds = |range: std::ops::Range<u64>| range.prop_map(Duration::from_millis);
        let slow = prop_oneof![9 => Just(Duration::ZERO), 1 => milliseconds(1_000..9_000)];
        let latency = milliseconds(0..u64::try_from(MAX_LATENCY.as_millis()).unwrap());
        Union::new_weighted(vec![
            (
                20,
                (0..DEVICES, 0..NODES, slow)
                    .prop_map(|(device, node, after)| T::Connect { device, node, after })
                    .boxed(),
            ),
            (8, (0..DEVICES).prop_map(T::Disconnect).boxed()),
            (40, (0..NODES, 0..ROOMS).prop_map(|(node, room)| T::Emit { node, room }).boxed()),
            (8, (0..ROOMS).prop_map(T::EmitAtAll).boxed()),
            (30, milliseconds(1..300).prop_map(T::Wait).boxed()),
            (8, milliseconds(300..3_000).prop_map(T::Wait).boxed()),
            (2, milliseconds(3_000..8_000).prop_map(T::Wait).boxed()),
            (6, (0..NODES, latency).prop_map(|(node, latency)| T::Delay { node, latency }).boxed()),
            (2, (0..NODES).prop_map(T::Cut).boxed()),
            (5, (0..NODES).prop_map(T::Restore).boxed()),
            (3, (0..NODES).prop_map(T::LoseSubscription).boxed()),
            (3, (0..NODES).prop_map(T::Drop).boxed()),
            (2, any::<bool>().prop_map(|keeps_data| T::CrashEngine { keeps_data }).boxed()),
            (5, Just(T::StartEngine).boxed()),
            (1, Just(T::FreezeEngine).boxed()),
            (4, Just(T::ThawEngine).boxed()),
            (1, Just(T::ForgetFunctions).boxed()),
            (1, prop_oneof![Just("FCALL"), Just("SUBSCRIBE")].prop_map(|command| T::Refuse(Some(command))).boxed()),
            (2, Just(T::Refuse(None)).boxed()),
            (2, (0..NODES).prop_map(T::Pause).boxed()),
            (5, (0..NODES).prop_map(T::Resume).boxed()),
            (1, (0..NODES).prop_map(T::Kill).boxed()),
            (4, (0..NODES).prop_map(T::Start).boxed()),
            (1, Just(T::Heal).boxed()),
        ])
        .boxed()
    }

    fn apply(state: Self, _: &Transition) -> Self {
        state
    }
}
