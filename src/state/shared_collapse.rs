use std::{collections::BTreeSet, time::Duration};

use futures_util::future::try_join_all;

use super::keys::{SWEEP_STEP, digest, millis, share, sweep};
use crate::cluster::{BusError, Engine, Shards};
use crate::message::{EventName, RoomName};

/// The windows of collapse keys, shared by all nodes. A window is at the engine of its room; the node that opened it keeps it, and calls
/// [`SharedCollapse::window_ended`] at its end. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct SharedCollapse {
    shards: Shards,
    window: Duration,
    max_keys: usize,
    max_bytes: usize,
}

/// What became of an emit with a collapse key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// It opens a window, and goes at once. The caller keeps the window.
    Opens,
    /// It waits for the window's end, in place of the one before.
    Deferred,
    /// There are as many windows as there may be, or as many bytes that wait: come again after a window.
    Full,
}

/// What waits for the end of a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeferredFrame {
    /// When it was deferred: later emits have larger ones, and so have later changes of what the room retains.
    pub order: u64,
    /// The collapse key.
    pub key: String,
    /// As it was offered.
    pub frame: Vec<u8>,
}

/// How much longer than a window its node may take to end it.
const GRACE: Duration = Duration::from_secs(1);
/// Bytes that wait at one engine.
const MAX_WAITING_BYTES: usize = 64 << 20;
/// How long an event that was collapsed is known as one.
const COLLAPSING: Duration = Duration::from_mins(10);

impl SharedCollapse {
    /// Windows of this length, of which one engine has its part.
    pub fn new(shards: Shards, window: Duration, max_keys: usize) -> Self {
        Self::with_max_bytes(shards, window, max_keys, MAX_WAITING_BYTES)
    }

    pub(super) fn with_max_bytes(shards: Shards, window: Duration, max_keys: usize, max_bytes: usize) -> Self {
        let max_keys = share(max_keys, &shards);
        Self { shards, window, max_keys, max_bytes }
    }

    /// Opens a window, or has the frame wait for its end. A window whose node has not ended it in time, and a second more, is over: the frame opens
    /// a new one, and what waited is dropped.
    pub async fn offer(
        &self,
        room: &RoomName,
        event: &EventName,
        key: &str,
        frame: Vec<u8>,
    ) -> Result<Offered, BusError> {
        let engine = self.shards.of(room);
        let mut call = Self::window_function("offer_to_window", engine, room, event);
        call.arg(key).arg(frame).arg(self.lease()).arg(self.max_keys).arg(self.max_bytes);
        match engine.run(&call).await? {
            1 => Ok(Offered::Opens),
            0 => Ok(Offered::Deferred),
            -1 => Ok(Offered::Full),
            _ => Err(BusError::Refused),
        }
    }

    /// Takes what waits for the end of a window that this node keeps; another window follows. `None`: nothing waits, and the window is closed.
    pub async fn window_ended(
        &self,
        room: &RoomName,
        event: &EventName,
        key: &str,
    ) -> Result<Option<DeferredFrame>, BusError> {
        let engine = self.shards.of(room);
        let mut call = Self::window_function("end_window", engine, room, event);
        let waiting: Option<(u64, Vec<u8>)> = engine.run(call.arg(key).arg(self.lease())).await?;
        Ok(waiting.map(|(order, frame)| DeferredFrame { order, key: key.to_owned(), frame }))
    }

    /// Takes all that waits of an event in a room, for whatever key, in the order in which it came. The windows stay open.
    pub async fn take_earlier(&self, room: &RoomName, event: &EventName) -> Result<Vec<DeferredFrame>, BusError> {
        let engine = self.shards.of(room);
        let call = Engine::function("take_topic", &[&topic(engine, room, event), &sums(engine)]);
        let waiting: Vec<(u64, String, Vec<u8>)> = engine.run(&call).await?;
        let frame = |(order, key, frame)| DeferredFrame { order, key, frame };
        let mut waiting: Vec<_> = waiting.into_iter().map(frame).collect();
        waiting.sort_by_key(|waiting| waiting.order);
        Ok(waiting)
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

    /// After how many milliseconds a window is over if its node is gone.
    fn lease(&self) -> u64 {
        millis(self.window + GRACE)
    }

    fn window_function(name: &str, engine: &Engine, room: &RoomName, event: &EventName) -> redis::Cmd {
        Engine::function(name, &[&topic(engine, room, event), &windows(engine), &sums(engine)])
    }

    /// The engine that knows whether an event is collapsed. Events are spread as rooms are.
    fn engine_of(&self, event: &EventName) -> &Engine {
        RoomName::new(event.as_str()).map_or(&self.shards.all()[0], |room| self.shards.of(&room))
    }
}

fn topic(engine: &Engine, room: &RoomName, event: &EventName) -> String {
    engine.name("c", &digest(&[room.as_str(), event.as_str()]))
}

fn windows(engine: &Engine) -> String {
    engine.name("ends", "c")
}

fn sums(engine: &Engine) -> String {
    engine.name("sums", "c")
}
