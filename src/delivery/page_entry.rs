//! Messages that are replayed, and the frames made of them.

use std::sync::{Arc, OnceLock};

use crate::hub::Frame;
use crate::message::LogEntry;
use crate::store::Incarnation;

/// A message that is replayed, and the frame that was made of it first.
pub(super) struct PageEntry {
    pub(super) message: LogEntry,
    frame: OnceLock<(FrameKey, Arc<Frame>)>,
}

/// What a frame of a message depends on, besides the message: the epoch of its position, and the incarnation in which a user's own devices
/// report that they have received it.
#[derive(Clone, PartialEq)]
pub(super) struct FrameKey {
    pub(super) epoch: Arc<str>,
    pub(super) incarnation: Option<Incarnation>,
}

impl From<LogEntry> for PageEntry {
    fn from(message: LogEntry) -> Self {
        Self { message, frame: OnceLock::new() }
    }
}

impl PageEntry {
    /// The message's frame. The one that is made first is shared by all devices that need the same.
    pub(super) fn frame(&self, key: &FrameKey, make: impl Fn() -> Frame) -> Arc<Frame> {
        let (shared_key, shared) = self.frame.get_or_init(|| (key.clone(), Arc::new(make())));
        if shared_key == key { shared.clone() } else { Arc::new(make()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::lifecycle::Lifecycle;
    use crate::message::{EventName, MessageId, Payload};
    use crate::store::{Config, Sharing, Store};

    #[tokio::test]
    async fn a_frame_is_shared_by_devices_that_need_the_same_one() {
        let event = EventName::new("e").unwrap();
        let message = LogEntry {
            number: 1,
            id: MessageId::from_bytes(&[0; 16]).unwrap(),
            event: event.clone(),
            payload: Payload::None,
            except_users: Vec::new(),
            stored_at_ms: 0,
        };
        let entry = PageEntry::from(message);
        let frame = |epoch: &str, incarnation| {
            let key = FrameKey { epoch: epoch.into(), incarnation };
            entry.frame(&key, || Frame::new(event.clone(), Payload::None))
        };
        let first = frame("a", None);
        assert!(Arc::ptr_eq(&first, &frame("a", None)));
        assert!(!Arc::ptr_eq(&first, &frame("b", None)), "its position would be of another epoch");
        let config =
            Config { url: "sqlite::memory:".into(), max_age: std::time::Duration::from_hours(1), max_messages: 100 };
        let store = Store::open(&config, Sharing::Single, Clock::system(), &Lifecycle::new()).unwrap();
        assert!(
            !Arc::ptr_eq(&first, &frame("a", Some(store.incarnation()))),
            "its acknowledgement would be reported to no incarnation"
        );
    }
}
