use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The shortest time between two log lines of the same kind.
const INTERVAL: Duration = Duration::from_secs(10);

/// Limits a kind of log line to one per 10 s. A flood of connections would otherwise become a flood of lines.
#[derive(Debug, Default)]
pub struct Throttle(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    suppressed: u64,
}

impl Throttle {
    /// Returns how many lines were suppressed since the last one if a line may be written now, or `None` if it may not.
    pub fn permit(&self) -> Option<u64> {
        let mut state = self.0.lock();
        if state.last.is_some_and(|last| last.elapsed() < INTERVAL) {
            state.suppressed += 1;
            return None;
        }
        state.last = Some(Instant::now());
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_in_ten_seconds_is_permitted() {
        let throttle = Throttle::default();
        assert_eq!(throttle.permit(), Some(0));
        assert_eq!((throttle.permit(), throttle.permit()), (None, None));
        tokio::time::advance(INTERVAL).await;
        assert_eq!(throttle.permit(), Some(2));
    }
}
