//! All faults end, and what must hold then.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::time::sleep;

use super::{
    device::State,
    oracle::{COMMON, DEVICES, HISTORY, ROOMS, is_plain, resumes, user_of},
    world::Inner,
};
use crate::cluster::model::NODES;

/// When all is well again, each device has all by then: frames that waited are given up, and reads that failed are repeated.
const SETTLED: u32 = 45;
const LOOK: Duration = Duration::from_secs(1);
/// So long after the last fault receipts are complete again.
const WHOLE: Duration = Duration::from_secs(27);

impl Inner {
    pub(super) async fn heal(&mut self) {
        self.link.heal();
        self.memory.heal();
        sleep(Duration::from_millis(200)).await;
        self.settle("when all is well again", false).await;
        let first = usize::try_from(self.log.lock().seq).unwrap();
        for device in 0..DEVICES {
            if !resumes(device) {
                self.disconnect(device, 0);
            }
            self.connect(device, (device + first) % NODES);
        }
        self.settle("after the devices have come back", true).await;
        let stored = self.stored();
        let wrong = self.log.lock().check_stored(&stored);
        for wrong in wrong {
            self.log.lock().violation(wrong);
        }
        sleep(WHOLE).await;
        let complete = self.log.lock().complete;
        self.emit_at_all(COMMON);
        self.emit_at_all(HISTORY);
        sleep(LOOK * 2).await;
        let count = self.log.lock().complete - complete;
        if count != 2 * NODES as u64 {
            self.log.lock().violation(format!("{count} of {} receipts are complete again", 2 * NODES));
        }
        self.settle("after some emits", true).await;
    }

    /// What a user whose devices do not resume was never given.
    fn never_given(&self, number: usize, stored: &[Vec<(u64, u64)>; ROOMS]) -> Vec<String> {
        let (own, (view, _)) = (user_of(number), self.devices[number].lock().view());
        let missed = stored[own].iter().filter(|(_, seq)| is_plain(own) && !view.received.contains(seq));
        missed.map(|(position, seq)| format!("device {number} was never given {position} ({seq}) of its own")).collect()
    }

    /// Waits until nothing is missing. `have_come`: since all devices have come once more.
    async fn settle(&mut self, when: &str, have_come: bool) {
        for look in 0..=SETTLED {
            self.look();
            self.log.lock().assert_none();
            let stored = self.stored();
            let mut wrong: Vec<_> = (0..DEVICES).flat_map(|device| self.missing(device, &stored)).collect();
            if have_come {
                wrong.extend((0..DEVICES).flat_map(|device| self.never_given(device, &stored)));
            }
            let joining = (0..DEVICES).filter(|device| matches!(self.devices[*device].lock().state, State::Joining));
            wrong.extend(joining.map(|device| format!("device {device} joins")));
            if self.losses.load(Ordering::Relaxed) % 2 == 1 {
                wrong.push("a node has not noticed that the store is another one".to_owned());
            }
            if wrong.is_empty() {
                return;
            }
            if look == SETTLED {
                for wrong in wrong {
                    self.log.lock().violation(format!("{when}: {wrong}"));
                }
                return;
            }
            sleep(LOOK).await;
        }
    }
}
