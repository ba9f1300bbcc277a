//! Memory that is of no use any more goes back to the system.
//!
//! The C library's allocator keeps what thousands of connections have left: it gives back the end of the heap alone, and something is always
//! at its end. Of the allocators measured it has the least overhead for what lives, so it stays, and is told when to look.

use std::time::Duration;

use tokio::time::MissedTickBehavior;

const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// From so many bytes on that are used no more, a look at the whole heap pays off; and from this part of what was used.
const WORTH_A_LOOK: usize = 4 * 1024 * 1024;
const PART_WORTH_A_LOOK: usize = 8;
/// The next look is not for so long: meanwhile what comes and goes all the time has no part in it.
const LOOK_AGAIN_AFTER: u32 = 10;
/// So often it waits for no more of them to become free.
const MAX_PUT_OFF: u32 = 10;

/// Watches how much memory is used, and when it is worth a look.
#[derive(Debug, Default)]
struct Watch {
    /// The most since the last look.
    most: usize,
    last: usize,
    /// How often it was put off since it became worth it.
    put_off: u32,
    /// How often it does not look any more after the last look.
    rests: u32,
}

impl Watch {
    /// Whether now is the time: much is free, and no more becomes free at the moment, or it has waited long for that.
    fn is_time(&mut self, used: usize) -> bool {
        self.most = self.most.max(used);
        let has_settled = used >= self.last;
        self.last = used;
        if self.rests > 0 {
            self.rests -= 1;
            return false;
        }
        if self.most - used < WORTH_A_LOOK.max(self.most / PART_WORTH_A_LOOK) {
            self.put_off = 0;
            return false;
        }
        if !has_settled && self.put_off < MAX_PUT_OFF {
            self.put_off += 1;
            return false;
        }
        *self = Self { most: used, last: used, put_off: 0, rests: LOOK_AGAIN_AFTER };
        true
    }
}

/// Gives memory back after much of it has become free, until a stop is asked for. `used`: about how many bytes what comes and goes takes.
pub async fn give_back(used: impl Fn() -> usize, stopping: impl Future<Output = ()>) {
    let mut tick = tokio::time::interval(LOOK_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watch = Watch::default();
    tokio::pin!(stopping);
    loop {
        tokio::select! {
            () = &mut stopping => return,
            _ = tick.tick() => {}
        }
        if watch.is_time(used()) {
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

    const MIB: usize = 1024 * 1024;

    /// At which of these it looks, in MiB.
    fn looks(used: impl IntoIterator<Item = usize>) -> Vec<usize> {
        let mut watch = Watch::default();
        let times = used.into_iter().enumerate().filter(|(_, used)| watch.is_time(used * MIB));
        times.map(|(at, _)| at).collect()
    }

    #[test]
    fn the_time_is_when_much_has_become_free_and_no_more_does() {
        assert_eq!(looks([0, 50, 50, 30, 10, 10, 10]), [5]);
        assert_eq!(looks([0, 50, 47, 47, 47]), [0; 0], "little");
        assert_eq!(looks([0, 500, 450, 450, 450]), [0; 0], "little of it");
    }

    #[test]
    fn what_comes_and_goes_all_the_time_is_looked_at_now_and_then() {
        assert_eq!(looks([100, 50, 50].into_iter().cycle().take(30)), [2, 14, 26]);
    }

    #[test]
    fn while_more_goes_on_becoming_free_it_is_time_all_the_same_now_and_then() {
        let looks = looks((0..100).map(|tick| 400 - 3 * tick));
        assert_eq!(looks.len(), 4, "{looks:?}");
    }
}
