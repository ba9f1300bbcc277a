//! A sequencer against lists: per room, what begins is the next of what came, stored emits begin beside stored ones in the lane only, and
//! nothing else begins beside anything.
//!
//! Each of these mutations of `sequencer.rs` fails here: `may_begin` without `unplaced == 0`, or without `is_stored`; `lets_begin` without
//! `waiting.is_empty()`; `finished` without the decrement; `next` with `pop_back`; `next` that removes a room whose emits run.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

use crate::command::emits::sequencer::{Sequenced, Sequencer};
use crate::delivery::Place;
use crate::message::RoomName;

/// What becomes of an emit when it begins.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Done,
    Lane,
    Unplaced,
}

#[derive(Clone, Debug)]
struct TestEmit {
    number: usize,
    room: RoomName,
    fate: Fate,
    is_stored: bool,
}

impl TestEmit {
    fn place(&self) -> Place {
        if self.fate == Fate::Lane { Place::Lane } else { Place::Unplaced }
    }
}

impl Sequenced for TestEmit {
    fn room(&self) -> &RoomName {
        &self.room
    }

    fn is_stored(&self) -> bool {
        self.is_stored
    }
}

#[derive(Clone, Debug, Default)]
struct Room {
    waiting: VecDeque<TestEmit>,
    running: Vec<TestEmit>,
}

/// What has begun, in order, and what has not.
#[derive(Clone, Debug, Default)]
struct Model {
    rooms: BTreeMap<RoomName, Room>,
    offered: usize,
    begun: Vec<usize>,
}

#[derive(Clone, Debug)]
enum Transition {
    Offer(TestEmit),
    /// One of those that run there in a room is finished.
    Finish(RoomName, Place),
}

impl Model {
    /// Begins all that may begin in a room.
    fn begin(&mut self, name: &RoomName) {
        let room = self.rooms.entry(name.clone()).or_default();
        while let Some(emit) = room.waiting.front() {
            let beside_stored = emit.is_stored && room.running.iter().all(|running| running.fate == Fate::Lane);
            if !room.running.is_empty() && !beside_stored {
                return;
            }
            let Some(emit) = room.waiting.pop_front() else { return };
            self.begun.push(emit.number);
            if emit.fate != Fate::Done {
                room.running.push(emit);
            }
        }
    }
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Transition;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self::default()).boxed()
    }

    fn transitions(state: &Self) -> BoxedStrategy<Transition> {
        let number = state.offered;
        let offer = (0..3_usize, 0..5_u8).prop_map(move |(room, kind)| {
            let (fate, is_stored) = match kind {
                0 => (Fate::Done, false),
                // A stored one that is refused, or a duplicate.
                1 => (Fate::Done, true),
                2 => (Fate::Lane, true),
                // A stored one that waits for its idempotency key.
                3 => (Fate::Unplaced, true),
                _ => (Fate::Unplaced, false),
            };
            let room = RoomName::new(&format!("r{room}")).unwrap();
            Transition::Offer(TestEmit { number, room, fate, is_stored })
        });
        let running = state.rooms.values().flat_map(|room| &room.running);
        let running: Vec<_> = running.map(|emit| (emit.room.clone(), emit.place())).collect();
        if running.is_empty() {
            return offer.boxed();
        }
        let finish = prop::sample::select(running).prop_map(|(name, place)| Transition::Finish(name, place));
        prop_oneof![offer, finish].boxed()
    }

    fn apply(mut state: Self, transition: &Transition) -> Self {
        let name = match transition {
            Transition::Offer(emit) => {
                state.offered += 1;
                state.rooms.entry(emit.room.clone()).or_default().waiting.push_back(emit.clone());
                emit.room.clone()
            }
            Transition::Finish(name, place) => {
                if let Some(room) = state.rooms.get_mut(name)
                    && let Some(index) = room.running.iter().position(|emit| emit.place() == *place)
                {
                    room.running.remove(index);
                }
                name.clone()
            }
        };
        state.begin(&name);
        state
    }

    fn preconditions(state: &Self, transition: &Transition) -> bool {
        match transition {
            Transition::Offer(emit) => emit.number == state.offered,
            Transition::Finish(name, place) => {
                state.rooms.get(name).is_some_and(|room| room.running.iter().any(|emit| emit.place() == *place))
            }
        }
    }
}

struct Tested {
    sequencer: Sequencer<TestEmit>,
    begun: Vec<usize>,
}

impl Tested {
    fn begin(&mut self, emit: &TestEmit) {
        self.begun.push(emit.number);
        if emit.fate != Fate::Done {
            self.sequencer.began(emit.room.clone(), emit.place());
        }
    }
}

impl StateMachineTest for Tested {
    type SystemUnderTest = Self;
    type Reference = Model;

    fn init_test(_: &Model) -> Self {
        Self { sequencer: Sequencer::new(), begun: Vec::new() }
    }

    fn apply(mut tested: Self, model: &Model, transition: Transition) -> Self {
        match transition {
            Transition::Offer(emit) => {
                if let Some(emit) = tested.sequencer.offer(emit) {
                    tested.begin(&emit);
                }
            }
            Transition::Finish(name, place) => {
                tested.sequencer.finished(&name, place);
                while let Some(emit) = tested.sequencer.next(&name) {
                    tested.begin(&emit);
                }
            }
        }
        assert_eq!(tested.begun, model.begun);
        tested
    }

    fn check_invariants(tested: &Self, model: &Model) {
        let is_idle = model.rooms.values().all(|room| room.running.is_empty());
        assert_eq!(tested.sequencer.is_idle(), is_idle, "an idle room leaves nothing behind");
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn emits_to_one_room_begin_in_the_order_in_which_they_came(sequential 1..60 => Tested);
}
