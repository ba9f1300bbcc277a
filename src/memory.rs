//! Memory that is of no use any more goes back to the system.
//!
//! The C library's allocator keeps what thousands of connections have left: it gives back the end of the heap alone, and something is always
//! at its end. Of the allocators measured it has the least overhead for what lives, so it stays, and is told when to look.

use std::time::Duration;

use tokio::time::MissedTickBehavior;

const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// From so many connections on that have ended, a look at the whole heap pays off.
const WORTH_A_LOOK: usize = 500;
/// So often it waits for no more of them to end.
const MOST_PUT_OFF: u32 = 30;

/// Watches how many connections there are, and when it is worth a look.
#[derive(Debug, Default)]
struct Watch {
    /// The most since the last look. Devices and their TCP connections count, so that strangers do, too.
    most: usize,
    last: usize,
    /// How often it was put off since it became worth it.
    put_off: u32,
}

impl Watch {
    /// Whether now is the time: many have ended, and no more of them at the moment, or it has waited long for that.
    fn is_time(&mut self, connections: usize) -> bool {
        self.most = self.most.max(connections);
        let has_settled = connections >= self.last;
        self.last = connections;
        if self.most - connections < WORTH_A_LOOK {
            self.put_off = 0;
            return false;
        }
        if !has_settled && self.put_off < MOST_PUT_OFF {
            self.put_off += 1;
            return false;
        }
        (self.most, self.put_off) = (connections, 0);
        true
    }
}

/// Gives memory back after many connections have ended, until a stop is asked for.
pub async fn give_back(connections: impl Fn() -> usize, stopping: impl Future<Output = ()>) {
    let mut tick = tokio::time::interval(LOOK_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watch = Watch::default();
    tokio::pin!(stopping);
    loop {
        tokio::select! {
            () = &mut stopping => return,
            _ = tick.tick() => {}
        }
        if watch.is_time(connections()) {
            // It takes milliseconds, in which nobody else's work should wait for this thread.
            let _ = tokio::task::spawn_blocking(trim).await;
        }
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(
    unsafe_code,
    reason = "a call of the C library without an argument that could be wrong, for which no crate has a safe one"
)]
fn trim() {
    // SAFETY: it takes a number and touches nothing but what is free.
    let _ = unsafe { libc::malloc_trim(0) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_when_many_have_left_and_no_more_are_leaving() {
        let mut watch = Watch::default();
        let times =
            [0, 5_000, 5_000, 3_000, 1_000, 1_000, 1_000, 900, 900, 600, 400, 400].map(|count| watch.is_time(count));
        let expected = [false, false, false, false, false, true, false, false, false, false, false, true];
        assert_eq!(times, expected);
    }

    #[test]
    fn while_they_go_on_leaving_it_is_time_all_the_same_now_and_then() {
        let mut watch = Watch::default();
        let times: Vec<_> = (0..100).map(|tick| watch.is_time(20_000 - tick * 100)).collect();
        let looks: Vec<_> = times.iter().enumerate().filter(|(_, is_time)| **is_time).map(|(tick, _)| tick).collect();
        assert_eq!(looks, [35, 70]);
    }
}
