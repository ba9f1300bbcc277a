use std::{panic::Location, pin::Pin};

use super::{Device, Event};
use crate::harness::PATIENCE;

/// Waits for an event by its name; any other one fails the test, unless it is ignored.
#[must_use = "it waits only when awaited"]
pub struct ExpectEvent<'a> {
    device: &'a mut Device,
    name: &'a str,
    ignored: &'a [&'a str],
    caller: &'static Location<'static>,
}

impl<'a> ExpectEvent<'a> {
    #[track_caller]
    pub(super) fn new(device: &'a mut Device, name: &'a str) -> Self {
        Self { device, name, ignored: &[], caller: Location::caller() }
    }

    /// Events that may come before, and are skipped.
    pub fn ignoring(self, names: &'a [&'a str]) -> Self {
        Self { ignored: names, ..self }
    }

    async fn event(self) -> Event {
        let Self { device, name, ignored, caller } = self;
        loop {
            let next = tokio::time::timeout(PATIENCE, device.event_or_end()).await;
            let next = next.unwrap_or_else(|_| panic!("{caller}: `{name}` did not come within {PATIENCE:?}"));
            let event =
                next.unwrap_or_else(|closed| panic!("{caller}: `{name}` did not come before the end: {closed:?}"));
            if event.name == name {
                return event;
            }
            assert!(ignored.contains(&event.name.as_str()), "{caller}: `{name}` was to come, not {}", event.raw);
        }
    }
}

impl<'a> IntoFuture for ExpectEvent<'a> {
    type Output = Event;
    type IntoFuture = Pin<Box<dyn Future<Output = Event> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.event())
    }
}
