use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::message::EventName;

/// An event is noted again at the engine after so long.
const NOTED_AGAIN: Duration = Duration::from_mins(4);
/// An event of which no emit was collapsed for so long is forgotten here.
const FORGOTTEN: Duration = Duration::from_mins(15);

/// The events of which emits are collapsed, by when this node last heard of it. An emit of another event need not ask the engine whether
/// something waits that came before it.
#[derive(Default)]
pub(super) struct Collapsing(Mutex<HashMap<EventName, Noted>>);

struct Noted {
    heard: Instant,
    /// When this node noted it at the engine.
    noted: Option<Instant>,
}

impl Collapsing {
    /// Whether an emit of this event may have to follow one that has a collapse key.
    pub(super) fn knows(&self, event: &EventName) -> bool {
        self.0.lock().contains_key(event)
    }

    pub(super) fn is_due(&self, event: &EventName) -> bool {
        let events = self.0.lock();
        let noted = events.get(event).and_then(|noted| noted.noted);
        noted.is_none_or(|noted| noted.elapsed() >= NOTED_AGAIN)
    }

    pub(super) fn heard(&self, event: &EventName) {
        let now = Instant::now();
        self.0.lock().entry(event.clone()).or_insert(Noted { heard: now, noted: None }).heard = now;
    }

    pub(super) fn noted(&self, event: &EventName) {
        self.heard(event);
        if let Some(noted) = self.0.lock().get_mut(event) {
            noted.noted = Some(Instant::now());
        }
    }

    /// Forgets events that are no longer collapsed.
    pub(super) fn sweep(&self) {
        self.0.lock().retain(|_, noted| noted.heard.elapsed() < FORGOTTEN);
    }
}
