use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    Delivery,
    publish::{Accepted, EmitError, Publishing, settled},
};
use crate::hub::RoomGuard;
use crate::message::{Emit, EventName, Receipt, RoomName};
use crate::state::Claim;

/// `[collapse]`: of emits that follow each other quickly under one key, the first goes at once and then the last of each window.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CollapseConfig {
    /// How long a window is.
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// Keys with an open window at one time.
    pub max_keys: usize,
}

/// The open windows.
pub(super) struct Collapse {
    config: CollapseConfig,
    topics: Mutex<Topics>,
    /// Windows that are open, so that all others need not look here.
    open: AtomicUsize,
}

type Topics = HashMap<Topic, Windows>;

/// Where windows are: emits of one event to one room.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Topic {
    room: RoomName,
    event: EventName,
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
        Self { config, topics: Mutex::default(), open: AtomicUsize::new(0) }
    }

    /// Whether as many windows more can be opened.
    pub(super) fn has_room_for(&self, windows: usize) -> Result<(), EmitError> {
        if self.open.load(Ordering::Relaxed).saturating_add(windows) > self.config.max_keys {
            return Err(EmitError::CollapseFull { retry_after: self.config.window });
        }
        Ok(())
    }

    /// Gives the emit back if it opens a window, and so goes at once; else it waits for the window's end.
    fn offer(&self, topic: &Topic, key: &Arc<str>, accepted: Accepted) -> Result<Option<Accepted>, EmitError> {
        let mut topics = self.topics.lock();
        if let Some(waiting) = topics.get_mut(topic).and_then(|windows| windows.waiting.get_mut(key)) {
            *waiting = Some(accepted);
            return Ok(None);
        }
        self.has_room_for(1)?;
        topics.entry(topic.clone()).or_default().waiting.insert(key.clone(), None);
        self.open.fetch_add(1, Ordering::Relaxed);
        Ok(Some(accepted))
    }

    /// Whether something waits for the end of the window; then another window follows. If nothing does, the window closes.
    fn goes_on(&self, topic: &Topic, key: &Arc<str>) -> bool {
        let mut topics = self.topics.lock();
        let waiting = topics.get(topic).and_then(|windows| windows.waiting.get(key));
        if waiting.is_some_and(Option::is_some) {
            return true;
        }
        self.close_locked(&mut topics, topic, key);
        false
    }

    /// Closes a window; what waits for its end is lost.
    fn close(&self, topic: &Topic, key: &Arc<str>) {
        self.close_locked(&mut self.topics.lock(), topic, key);
    }

    fn close_locked(&self, topics: &mut Topics, topic: &Topic, key: &Arc<str>) {
        if let Some(windows) = topics.get_mut(topic)
            && windows.waiting.remove(key).is_some()
        {
            self.open.fetch_sub(1, Ordering::Relaxed);
            if windows.waiting.is_empty() {
                topics.remove(topic);
            }
        }
    }

    fn take(&self, topic: &Topic, key: &Arc<str>) -> Option<Accepted> {
        self.topics.lock().get_mut(topic)?.waiting.get_mut(key)?.take()
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
        let earlier = |waiting: &mut Option<Accepted>| waiting.take_if(|accepted| accepted.number < number);
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

/// An open window of a collapse key. It is closed if its task panics.
struct OpenWindow<'a> {
    collapse: &'a Collapse,
    topic: Topic,
    key: Arc<str>,
}

impl Drop for OpenWindow<'_> {
    fn drop(&mut self) {
        self.collapse.close(&self.topic, &self.key);
    }
}

impl Delivery {
    /// Publishes an emit with a collapse key if it opens a window; else it waits for the window's end.
    pub(super) fn collapse(&self, accepted: Accepted, key: Arc<str>, claim: Option<Claim>) -> Publishing {
        let topic = Topic::of(&accepted.emit);
        let message_id = accepted.message_id;
        let can_retain = if accepted.emit.retain { self.can_retain([&topic.room], &accepted.emit) } else { Ok(()) };
        match can_retain.and_then(|()| self.inner.collapse.offer(&topic, &key, accepted)) {
            Err(refused) => Publishing::Done(Err(refused)),
            Ok(None) => {
                let receipt = Receipt { deferred: true, ..Receipt::new(message_id) };
                Publishing::Done(settled(Ok((receipt, None)), claim))
            }
            Ok(Some(accepted)) => {
                let delivery = self.clone();
                self.inner.lifecycle.spawn(async move { delivery.keep_window(topic, key).await });
                self.publish_accepted(accepted, claim)
            }
        }
    }

    async fn keep_window(&self, topic: Topic, key: Arc<str>) {
        let window = OpenWindow { collapse: &self.inner.collapse, topic, key };
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.inner.collapse.config.window) => {}
                // Nothing that waits is lost to a stop.
                () = self.inner.lifecycle.stopping() => {}
            }
            if !self.inner.collapse.goes_on(&window.topic, &window.key) {
                // It is closed, and another may be open already.
                std::mem::forget(window);
                return;
            }
            let guard = self.hub().lock_room_for_emit(&window.topic.room).await;
            // An emit without a key may have taken it along meanwhile.
            if let Some(accepted) = self.inner.collapse.take(&window.topic, &window.key) {
                self.publish_deferred(accepted, &guard).await;
            }
        }
    }

    /// Publishes what was told that it would wait.
    pub(super) async fn publish_deferred(&self, mut accepted: Accepted, guard: &RoomGuard<'_>) {
        let event = accepted.emit.event.clone();
        // That it waited is no slowness.
        accepted.received = Instant::now();
        if let Err(refused) = self.publish_locked(guard, accepted, None).await {
            tracing::warn!(error = %refused, event.name = %event, "a deferred emit could not be published");
        }
    }
}
