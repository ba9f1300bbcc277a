use std::time::Duration;

use tokio::time::Instant;

/// When a device is asked whether it is still there, and when it counts as gone.
pub(super) struct Heartbeat {
    interval: Duration,
    timeout: Duration,
    due: Instant,
    is_asked: bool,
}

/// What a heartbeat is due for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beat {
    /// Nothing yet.
    Early,
    /// The device is to be asked.
    Ask,
    /// The device was asked, and has said nothing since.
    Gone,
}

impl Heartbeat {
    pub(super) fn new(interval: Duration, timeout: Duration, now: Instant) -> Self {
        Self { interval, timeout, due: now + interval, is_asked: false }
    }

    /// When to look again.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// The device has said something, whatever it is.
    pub(super) fn heard(&mut self, now: Instant) {
        if std::mem::take(&mut self.is_asked) {
            self.due = now + self.interval;
        }
    }

    /// The device may be slow and is not gone: it has the whole time once more.
    pub(super) fn extend(&mut self, now: Instant) {
        self.due = now + self.timeout;
    }

    pub(super) fn beat(&mut self, now: Instant) -> Beat {
        if now < self.due {
            return Beat::Early;
        }
        if self.is_asked {
            return Beat::Gone;
        }
        self.is_asked = true;
        self.due = now + self.timeout;
        Beat::Ask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(25);
    const TIMEOUT: Duration = Duration::from_secs(20);

    #[tokio::test(start_paused = true)]
    async fn a_device_that_answers_is_asked_again_after_the_interval() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(INTERVAL, TIMEOUT, start);
        heartbeat.heard(start + Duration::from_secs(10));
        assert_eq!(heartbeat.beat(start + Duration::from_secs(24)), Beat::Early);
        assert_eq!(heartbeat.beat(start + INTERVAL), Beat::Ask);
        let answered = start + INTERVAL + Duration::from_secs(1);
        heartbeat.heard(answered);
        assert_eq!(heartbeat.due(), answered + INTERVAL);
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_that_says_nothing_is_gone_after_the_timeout() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(INTERVAL, TIMEOUT, start);
        assert_eq!(heartbeat.beat(start + INTERVAL), Beat::Ask);
        assert_eq!(heartbeat.beat(start + INTERVAL + Duration::from_secs(19)), Beat::Early);
        assert_eq!(heartbeat.beat(start + INTERVAL + TIMEOUT), Beat::Gone);
    }
}
