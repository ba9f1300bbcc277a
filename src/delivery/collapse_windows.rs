use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;

use super::{
    accepted::{Accepted, EmitError},
    config::CollapseConfig,
};
use crate::message::{Emit, EventName, RoomName};

/// The open windows.
pub(super) struct Collapse {
    pub(super) config: CollapseConfig,
    topics: Mutex<Topics>,
    /// Windows that are open, so that all others need not look here.
    open: AtomicUsize,
    /// Bytes of the emits that wait. Changed with `topics` locked.
    waiting_bytes: AtomicUsize,
}

/// Bound of `waiting_bytes`.
const MAX_WAITING_BYTES: usize = 64 << 20;

type Topics = HashMap<Topic, Windows>;

/// Where windows are: emits of one event to one room.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Topic {
    pub(super) room: RoomName,
    pub(super) event: EventName,
}

#[derive(Default)]
struct Windows {
    /// By collapse key: what waits for the window's end.
    waiting: HashMap<Arc<str>, Option<Accepted>>,
    /// The number of the last emit that was retained.
    retained: u64,
}

impl Topic {
    pub(super) fn of(emit: &Emit) -> Self {
        Self { room: emit.audience.room().clone(), event: emit.event.clone() }
    }
}

impl Collapse {
    pub(super) fn new(config: CollapseConfig) -> Self {
        Self { config, topics: Mutex::default(), open: AtomicUsize::new(0), waiting_bytes: AtomicUsize::new(0) }
    }

    /// Whether as many windows more can be opened.
    pub(super) fn has_room_for(&self, windows: usize) -> Result<(), EmitError> {
        if self.open.load(Ordering::Relaxed).saturating_add(windows) > self.config.max_keys {
            return Err(self.full());
        }
        Ok(())
    }

    fn full(&self) -> EmitError {
        EmitError::CollapseFull { retry_after: self.config.window }
    }

    /// Gives the emit back if it opens a window, and so goes at once; else it waits for the window's end.
    pub(super) fn offer(
        &self,
        topic: &Topic,
        key: &Arc<str>,
        accepted: Accepted,
    ) -> Result<Option<Accepted>, EmitError> {
        let mut topics = self.topics.lock();
        if let Some(waiting) = topics.get_mut(topic).and_then(|windows| windows.waiting.get_mut(key)) {
            let before = waiting.as_ref().map_or(0, |before| before.emit.bytes());
            let bytes = self.waiting_bytes.load(Ordering::Relaxed) - before + accepted.emit.bytes();
            if bytes > MAX_WAITING_BYTES {
                return Err(self.full());
            }
            self.waiting_bytes.store(bytes, Ordering::Relaxed);
            *waiting = Some(accepted);
            return Ok(None);
        }
        self.has_room_for(1)?;
        topics.entry(topic.clone()).or_default().waiting.insert(key.clone(), None);
        self.open.fetch_add(1, Ordering::Relaxed);
        Ok(Some(accepted))
    }

    /// Whether something waits for the end of the window; then another window follows. If nothing does, the window closes.
    pub(super) fn goes_on(&self, topic: &Topic, key: &Arc<str>) -> bool {
        let mut topics = self.topics.lock();
        let waiting = topics.get(topic).and_then(|windows| windows.waiting.get(key));
        if waiting.is_some_and(Option::is_some) {
            return true;
        }
        self.close_locked(&mut topics, topic, key);
        false
    }

    /// Closes a window; what waits for its end is lost.
    pub(super) fn close(&self, topic: &Topic, key: &Arc<str>) {
        self.close_locked(&mut self.topics.lock(), topic, key);
    }

    fn close_locked(&self, topics: &mut Topics, topic: &Topic, key: &Arc<str>) {
        if let Some(windows) = topics.get_mut(topic)
            && let Some(mut waiting) = windows.waiting.remove(key)
        {
            self.taken(waiting.take());
            self.open.fetch_sub(1, Ordering::Relaxed);
            if windows.waiting.is_empty() {
                topics.remove(topic);
            }
        }
    }

    pub(super) fn take(&self, topic: &Topic, key: &Arc<str>) -> Option<Accepted> {
        let mut topics = self.topics.lock();
        self.taken(topics.get_mut(topic)?.waiting.get_mut(key)?.take())
    }

    /// Subtracts an emit that was taken out of its window from `waiting_bytes`.
    fn taken(&self, accepted: Option<Accepted>) -> Option<Accepted> {
        let bytes = accepted.as_ref().map_or(0, |accepted| accepted.emit.bytes());
        self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        accepted
    }

    /// Whether anything waits, for whatever key.
    pub(super) fn has_waiting(&self, topic: impl FnOnce() -> Topic) -> bool {
        if self.open.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let topics = self.topics.lock();
        topics.get(&topic()).is_some_and(|windows| windows.waiting.values().any(Option::is_some))
    }

    /// All that waits, for whatever key, and came before the emit with this number, in the order in which it came.
    pub(super) fn take_earlier(&self, topic: &Topic, number: u64) -> Vec<Accepted> {
        let mut topics = self.topics.lock();
        let windows = topics.get_mut(topic).into_iter().flat_map(|windows| windows.waiting.values_mut());
        let earlier = |waiting: &mut Option<Accepted>| self.taken(waiting.take_if(|accepted| accepted.number < number));
        let mut waiting: Vec<_> = windows.filter_map(earlier).collect();
        waiting.sort_by_key(|accepted| accepted.number);
        waiting
    }

    /// Whether a later emit than this one was retained.
    pub(super) fn is_outdated(&self, topic: impl FnOnce() -> Topic, number: u64) -> bool {
        self.open.load(Ordering::Relaxed) > 0
            && self.topics.lock().get(&topic()).is_some_and(|windows| windows.retained > number)
    }

    /// Takes note of what was retained, for what waits and came before.
    pub(super) fn note_retained(&self, topic: impl FnOnce() -> Topic, number: u64) {
        if self.open.load(Ordering::Relaxed) > 0
            && let Some(windows) = self.topics.lock().get_mut(&topic())
        {
            windows.retained = number;
        }
    }
}
