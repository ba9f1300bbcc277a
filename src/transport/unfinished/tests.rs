use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// Parts that note their names when they are ended.
struct Lab {
    unfinished: Unfinished,
    ended: Arc<Mutex<Vec<usize>>>,
    parts: [Option<Part>; 4],
}

impl Lab {
    fn new(bound: usize) -> Self {
        Self { unfinished: Unfinished::new("key", bound), ended: Arc::default(), parts: [const { None }; 4] }
    }

    fn hold(&mut self, name: usize, bytes: usize) {
        let ended = self.ended.clone();
        // The last two are of another address.
        let address = Some([1, 1, 1, u8::from(name >= 2)].into());
        self.unfinished.hold(&mut self.parts[name], bytes, address, || move || ended.lock().push(name));
    }

    fn ended(&self) -> Vec<usize> {
        std::mem::take(&mut self.ended.lock())
    }
}

#[test]
fn the_part_that_has_been_incomplete_for_longest_is_ended() {
    let mut lab = Lab::new(10_000);
    lab.hold(0, 4_000);
    lab.hold(1, 4_000);
    lab.hold(0, 0);
    lab.hold(0, 6_000);
    assert!(lab.ended().is_empty());
    lab.hold(0, 6_001);
    assert_eq!(lab.ended(), [1], "the other has begun anew");
    assert_eq!(lab.unfinished.total(), 6_001);
}

#[test]
fn an_address_that_holds_the_most_loses_its_own() {
    let mut lab = Lab::new(10_000);
    lab.hold(0, 4_000);
    lab.hold(2, 3_000);
    lab.hold(3, 3_001);
    assert_eq!(lab.ended(), [2]);
    lab.hold(1, 4_000);
    assert_eq!(lab.ended(), [0]);
}

#[test]
fn an_ended_part_counts_no_more_whatever_arrives() {
    let mut lab = Lab::new(10_000);
    lab.hold(0, 9_000);
    lab.hold(1, 1_024);
    assert_eq!((lab.ended(), lab.unfinished.total()), (vec![0], 1_024));
    lab.hold(0, 20_000);
    assert_eq!((lab.ended(), lab.unfinished.total()), (vec![], 1_024));
}

#[test]
fn a_part_that_is_alone_may_be_larger_than_the_bound() {
    let mut lab = Lab::new(10_000);
    lab.hold(0, 20_000);
    assert!(lab.ended().is_empty());
    lab.hold(2, 1_024);
    assert_eq!((lab.ended(), lab.unfinished.total()), (vec![0], 1_024));
}

#[test]
fn small_parts_do_not_count() {
    let mut lab = Lab::new(0);
    lab.hold(0, COUNTED_FROM - 1);
    lab.hold(1, COUNTED_FROM - 1);
    assert!(lab.parts[0].is_none());
    assert!(lab.ended().is_empty());
}

#[test]
fn an_end_may_drop_its_part() {
    let unfinished = Unfinished::new("key", 2_000);
    let own: Arc<Mutex<Option<Part>>> = Arc::default();
    let ended = own.clone();
    unfinished.hold(&mut own.lock(), 2_000, None, || move || drop(ended.lock().take()));
    let mut other = None;
    unfinished.hold(&mut other, 2_000, None, || || {});
    assert!(own.lock().is_none());
    assert_eq!(unfinished.total(), 2_000);
}

#[tokio::test]
async fn who_makes_more_waits_until_what_was_ended_is_gone() {
    let mut lab = Lab::new(8_000);
    lab.hold(0, 4_000);
    lab.hold(1, 4_001);
    assert_eq!(lab.ended(), [0]);
    let unfinished = lab.unfinished.clone();
    let mut waiting = [Box::pin(unfinished.settled()), Box::pin(unfinished.settled())];
    for waiting in &mut waiting {
        assert!(futures_util::poll!(waiting).is_pending());
    }
    lab.parts[0] = None;
    for waiting in waiting {
        tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap();
    }
}

proptest! {
    #[test]
    fn the_bound_is_kept_and_nothing_counts_at_the_end(
        steps in prop::collection::vec((0..4_usize, 0..6_000_usize), 0..100)
    ) {
        let mut lab = Lab::new(10_000);
        for (name, bytes) in steps {
            lab.hold(name, bytes);
            let is_alone = lab.unfinished.0.parts.lock().held.len() == 1;
            prop_assert!(lab.unfinished.total() <= 10_000 || is_alone);
        }
        lab.parts = [const { None }; 4];
        prop_assert_eq!(lab.unfinished.total(), 0);
        let parts = lab.unfinished.0.parts.lock();
        prop_assert!(parts.held.is_empty() && parts.by_address.is_empty());
        prop_assert!(parts.ended.is_empty() && parts.ended_bytes == 0);
    }
}
