//! Gaps that cannot be filled.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{task::yield_now, time::Instant};

use super::{deps, example};
use crate::config::Config;
use crate::delivery::{Delivery, Deps, Resume, RoomConfig, RoomHistory};
use crate::hub::fake::{Behaviour, FakeConnection};
use crate::hub::{Frame, QueueError, WriteMode};
use crate::lifecycle::Lifecycle;
use crate::message::{Audience, Emit, Payload, Position, RoomName, RoomPattern, UserId};

/// A device that reads only when it is let, and remembers what it was sent.
#[derive(Default)]
struct Reading {
    is_let: AtomicBool,
    sent: Mutex<Vec<String>>,
}

struct Device(Arc<Reading>);

impl Behaviour for Device {
    fn resumes(&self) -> bool {
        true
    }

    fn has_room(&self) -> bool {
        self.0.is_let.load(Ordering::SeqCst)
    }

    fn enqueue(&self, frame: &Frame, _mode: WriteMode) -> Result<(), QueueError> {
        let payload = match &frame.payload {
            Payload::Json(raw) if frame.event.as_str() != "bugle:resumed" => raw.get(),
            Payload::Json(_) | Payload::Binary(_) | Payload::None => frame.event.as_str(),
        };
        self.0.sent.lock().push(payload.to_owned());
        Ok(())
    }
}

#[tokio::test]
async fn nothing_live_of_a_room_with_a_gap_is_sent_before_the_device_is_told() {
    let (config, lifecycle) = (Config::defaults().unwrap(), Lifecycle::new());
    let history = RoomHistory { size: 10, age: Duration::from_mins(1) };
    let rooms = [RoomConfig { matches: RoomPattern::new("h:*").unwrap(), history }];
    let delivery = Delivery::new(Deps { rooms: &rooms, ..deps(&config, &lifecycle) });
    let [gap, whole] = ["h:gap", "h:whole"].map(|name| RoomName::new(name).unwrap());
    let caller = Arc::from("test");
    let publish = async |room: &RoomName, json: &str| {
        let emit = Emit { audience: Audience::of_room(room.clone()), envelope: false, ..example(json) };
        delivery.publish(&caller, emit, None, Instant::now()).done().await.unwrap();
    };
    publish(&whole, "1").await;
    let seen = delivery.inner.history.position(&whole).unwrap();
    publish(&whole, "2").await;
    publish(&gap, "3").await;
    let lost = Position::new("another".into(), 7);
    let said = [(gap.to_string(), Some(lost)), (whole.to_string(), Some(seen))];
    let reading = Arc::<Reading>::default();
    let device = Arc::new(FakeConnection::new(Device(reading.clone())));
    let resume = Resume::new(said);
    let token_rooms = [gap.clone(), whole.clone()];
    let user = UserId::new("42").unwrap();
    let admission = delivery.admit(user, &token_rooms, device, Some((&resume, &[]))).await.unwrap();
    assert!(admission.go_live(None));
    // The gap is found meanwhile, and the other room's replay waits for the device.
    for _ in 0..1_000 {
        yield_now().await;
    }
    publish(&gap, "4").await;
    assert!(reading.sent.lock().is_empty());
    reading.is_let.store(true, Ordering::SeqCst);
    let all = async {
        while reading.sent.lock().len() < 3 {
            yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), all).await.expect("all is sent");
    publish(&gap, "5").await;
    assert_eq!(*reading.sent.lock(), ["2", "bugle:resumed", "4", "5"]);
}
