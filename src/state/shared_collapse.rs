use std::{collections::BTreeSet, time::Duration};

use futures_util::future::try_join_all;
use redis::Cmd;

use super::{
    EmitCall, RetainedFull, SharedRetained,
    keys::{SWEEP_STEP, millis, share, sums, sweep},
};
use crate::cluster::{BusError, Engine, Shards};
use crate::message::{EventName, RoomName};

/// The windows of collapse keys, shared by all nodes. A window is at the engine of its room; the node that opened it keeps it, and runs
/// [`SharedCollapse::end_command`] at its end. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct SharedCollapse {
    shards: Shards,
    retained: SharedRetained,
    window: Duration,
    max_keys: usize,
    max_bytes: usize,
}

/// Why the engine did not publish an emit, though it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotPublished {
    /// It waits for the window's end, in place of the one before.
    Deferred,
    /// There are as many windows as there may be, or as many bytes that wait: come again after a window.
    CollapseFull,
    /// The window is over, and nothing waited for its end.
    NothingWaits,
    /// The value that it retains cannot be kept.
    RetainedFull(RetainedFull),
}

impl NotPublished {
    /// What a function says with this number.
    pub fn of(number: i64) -> Self {
        match number {
            -3 => Self::Deferred,
            -4 => Self::CollapseFull,
            -5 => Self::NothingWaits,
            number => Self::RetainedFull(SharedRetained::rejected(number)),
        }
    }
}

/// How much longer than a window its node may take to end it.
const GRACE: Duration = Duration::from_secs(1);
/// Bytes that wait at one engine.
const MAX_WAITING_BYTES: usize = 64 << 20;
/// How long an event that was collapsed is known as one.
const COLLAPSING: Duration = Duration::from_mins(10);

impl SharedCollapse {
    /// Windows of this length, of which one engine has its part. `retained` keeps the values of what waits.
    pub fn new(shards: Shards, retained: SharedRetained, window: Duration, max_keys: usize) -> Self {
        Self::with_max_bytes(shards, retained, window, (max_keys, MAX_WAITING_BYTES))
    }

    pub(super) fn with_max_bytes(
        shards: Shards,
        retained: SharedRetained,
        window: Duration,
        (max_keys, max_bytes): (usize, usize),
    ) -> Self {
        let max_keys = share(max_keys, &shards);
        Self { shards, retained, window, max_keys, max_bytes }
    }

    /// How long a window stays open if its node does not end it.
    pub fn lease(&self) -> Duration {
        self.window + GRACE
    }

    /// A call that publishes an emit and opens a window, or has the emit wait for the window's end. A window whose node has not ended it in time,
    /// and a second more, is over: the emit opens a new one, and what waited is dropped. It returns the number of receivers, or one for
    /// [`NotPublished`]. The caller keeps the window that it opens.
    pub fn offer_command(&self, key: &str, emit: &EmitCall<'_>) -> Cmd {
        let mut call = self.window_function("offer_to_window", emit.room, emit.event);
        call.arg(key).arg(millis(self.lease())).arg(self.max_keys).arg(self.max_bytes);
        self.retained.add_emit(&mut call, emit);
        call
    }

    /// A call that publishes what waits for the end of a window that this node keeps; another window follows. If nothing waits, the window is
    /// closed. `start`: what the frame begins with, in place of what it was offered with.
    pub fn end_command(&self, room: &RoomName, event: &EventName, key: &str, start: &[u8]) -> Cmd {
        let mut call = self.window_function("end_window", room, event);
        call.arg(key).arg(millis(self.lease())).arg(start);
        call
    }

    /// A call that publishes all that waits of the emit's event in its room, for whatever key, in the order in which it came, and then the emit.
    /// The windows stay open.
    pub fn publish_command(&self, emit: &EmitCall<'_>) -> Cmd {
        let function = if emit.keeps() { "keep_after_waiting" } else { "publish_after_waiting" };
        let mut call = self.window_function(function, emit.room, emit.event);
        self.retained.add_emit(&mut call, emit);
        call
    }

    /// Notes that emits of an event are collapsed. True if that was not known: then other nodes are to be told. It is known for ten minutes, so a
    /// node notes it again from time to time while it goes on.
    pub async fn note_event(&self, event: &EventName) -> Result<bool, BusError> {
        let engine = self.engine_of(event);
        let mut call = Engine::function("note_collapsing", &[&engine.name("collapsing", "c")]);
        engine.run(call.arg(event.as_str()).arg(millis(COLLAPSING))).await
    }

    /// The events of which emits are, or lately were, collapsed.
    pub async fn events(&self) -> Result<Vec<EventName>, BusError> {
        let read = async |engine: &Engine| {
            let mut read = redis::cmd("ZRANGE");
            engine.query::<Vec<String>>(read.arg(engine.name("collapsing", "c")).arg(0).arg(-1)).await
        };
        let events: BTreeSet<_> =
            try_join_all(self.shards.all().iter().map(read)).await?.into_iter().flatten().collect();
        Ok(events.iter().filter_map(|event| EventName::new(event).ok()).collect())
    }

    /// Closes some of the windows whose nodes are gone; what waits there is dropped. True if more may be left. Any node may call this at any time.
    pub async fn sweep(&self) -> Result<bool, BusError> {
        sweep(&self.shards, |engine| {
            let mut call = Engine::function("sweep_windows", &[&windows(engine), &sums(engine)]);
            call.arg(SWEEP_STEP);
            call
        })
        .await
    }

    fn window_function(&self, name: &str, room: &RoomName, event: &EventName) -> Cmd {
        let engine = self.shards.of(room);
        let (keys, windows) = (self.retained.keys(room, event), windows(engine));
        let keys: Vec<_> = keys.iter().chain([&windows]).map(String::as_str).collect();
        Engine::function(name, &keys)
    }

    /// The engine that knows whether an event is collapsed. Events are spread as rooms are.
    fn engine_of(&self, event: &EventName) -> &Engine {
        RoomName::new(event.as_str()).map_or(&self.shards.all()[0], |room| self.shards.of(&room))
    }
}

fn windows(engine: &Engine) -> String {
    engine.name("ends", "c")
}
