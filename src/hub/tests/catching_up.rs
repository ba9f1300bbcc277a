//! What becomes of frames while a room is being replayed.

use std::time::Duration;

use super::*;
use crate::{
    hub::catching_up::{CatchingUp, Fate},
    message::{MessageId, Position},
};

const MAX_BYTES: usize = 4_000;

fn plain() -> Arc<Frame> {
    Arc::new(frame("plain"))
}

fn kept(number: u64) -> Arc<Frame> {
    let position = Position::new("epoch".into(), number);
    let entry = EntryMeta::new(MessageId::at(jiff::Timestamp::UNIX_EPOCH), &room("r"), &position);
    Arc::new(Frame { entry: Some(entry), ..frame("kept") })
}

fn replaying(plain_frames: PlainFrames) -> CatchingUp {
    let mut catching_up = CatchingUp::default();
    catching_up.open();
    catching_up.begin_replay(&room("r"), plain_frames);
    catching_up
}

fn take(catching_up: &mut CatchingUp, frame: &Arc<Frame>) -> Fate {
    catching_up.take(frame, Some(&room("r")), None, MAX_BYTES)
}

#[test]
fn plain_frames_wait_once_for_what_was_missed() {
    let mut catching_up = replaying(PlainFrames::PassOlder);
    assert!(matches!(take(&mut catching_up, &plain()), Fate::Send(_)));
    catching_up.let_plain_wait(&room("r"));
    assert!(matches!(take(&mut catching_up, &plain()), Fate::Waits));
    assert_eq!(catching_up.let_plain_pass(&room("r")).len(), 1);
    catching_up.let_plain_wait(&room("r"));
    assert!(matches!(take(&mut catching_up, &plain()), Fate::Send(_)), "they have waited");
    assert!(matches!(take(&mut catching_up, &kept(1)), Fate::Replayed));
    assert!(matches!(take(&mut catching_up, &plain()), Fate::Waits), "a message was kept before this one");
}

#[test]
fn plain_frames_do_not_wait_again_when_the_log_can_be_read_again() {
    let mut catching_up = replaying(PlainFrames::Wait);
    assert!(catching_up.let_plain_pass(&room("r")).is_empty());
    assert!(catching_up.log_unreadable(&room("r")).is_empty());
    catching_up.let_plain_wait(&room("r"));
    assert!(matches!(take(&mut catching_up, &plain()), Fate::Send(_)));
}

#[test]
fn while_reading_stalls_plain_frames_wait_in_no_room_and_kept_ones_stay() {
    let mut catching_up = replaying(PlainFrames::Wait);
    catching_up.begin_replay(&room("later"), PlainFrames::Wait);
    let mut take_later = |frame| catching_up.take(&frame, Some(&room("later")), None, MAX_BYTES);
    assert!(matches!(
        (take_later(plain()), take_later(kept(1)), take_later(plain())),
        (Fate::Waits, Fate::Replayed, Fate::Waits)
    ));
    catching_up.begin_buffering(&room("r"));
    take(&mut catching_up, &kept(1));
    take(&mut catching_up, &plain());
    assert_eq!(catching_up.reading_stalls().len(), 3);
    assert!(matches!(take(&mut catching_up, &plain()), Fate::Send(_)));
    catching_up.reading_goes_on();
    assert!(matches!(take(&mut catching_up, &plain()), Fate::Waits), "the log is read again");
    assert_eq!(catching_up.caught_up(&room("r")).len(), 2, "a kept frame and a plain one");
}

#[test]
fn plain_frames_do_not_wait_any_more_once_reads_took_too_long_in_all() {
    let mut catching_up = replaying(PlainFrames::Wait);
    let almost = Duration::from_millis(1_999);
    assert!(catching_up.note_read(almost).is_empty());
    assert!(matches!(take(&mut catching_up, &plain()), Fate::Waits));
    assert_eq!(catching_up.note_read(Duration::from_millis(1)).len(), 1);
    catching_up.reading_goes_on();
    catching_up.let_plain_wait(&room("r"));
    assert!(matches!(take(&mut catching_up, &plain()), Fate::Send(_)));
    assert!(matches!(take(&mut catching_up, &kept(1)), Fate::Replayed));
}

#[test]
fn kept_frames_wait_in_their_order_once_they_are_buffered() {
    let mut catching_up = replaying(PlainFrames::Wait);
    assert!(matches!(take(&mut catching_up, &kept(1)), Fate::Replayed));
    catching_up.begin_buffering(&room("r"));
    for number in [2, 3] {
        assert!(matches!(take(&mut catching_up, &kept(number)), Fate::Replayed));
    }
    assert!(catching_up.is_buffering(&room("r")));
    let waiting = catching_up.caught_up(&room("r"));
    let numbers: Vec<_> = waiting.iter().map(|waiting| waiting.frame.entry.as_ref().unwrap().position.number).collect();
    assert_eq!(numbers, [2, 3], "the first one is left to replaying");
}

#[test]
fn kept_frames_that_are_too_much_are_left_to_replaying_and_plain_ones_stay() {
    let mut catching_up = replaying(PlainFrames::Wait);
    catching_up.begin_buffering(&room("r"));
    assert!(matches!(take(&mut catching_up, &plain()), Fate::Waits));
    let mut number = 0;
    while catching_up.is_buffering(&room("r")) {
        number += 1;
        assert!(number < 100, "there is no bound");
        assert!(matches!(take(&mut catching_up, &kept(number)), Fate::Replayed));
    }
    assert!(matches!(take(&mut catching_up, &plain()), Fate::Waits), "there is room again");
    let waiting = catching_up.caught_up(&room("r"));
    assert_eq!(waiting.len(), 2);
    assert!(waiting.iter().all(|waiting| waiting.frame.entry.is_none()));
}

#[test]
fn kept_frames_that_are_not_all_that_came_are_left_to_replaying() {
    let mut catching_up = replaying(PlainFrames::Wait);
    catching_up.begin_buffering(&room("r"));
    assert!(matches!(take(&mut catching_up, &kept(1)), Fate::Replayed));
    assert!(matches!(take(&mut catching_up, &plain()), Fate::Waits));
    catching_up.stop_buffering(&room("r"));
    assert!(matches!(take(&mut catching_up, &kept(3)), Fate::Replayed));
    assert!(!catching_up.is_buffering(&room("r")));
    assert!(catching_up.caught_up(&room("r")).iter().all(|waiting| waiting.frame.entry.is_none()));
}

#[test]
fn plain_frames_that_are_too_much_are_refused() {
    let mut catching_up = replaying(PlainFrames::Wait);
    let taken = (0..100).take_while(|_| matches!(take(&mut catching_up, &plain()), Fate::Waits)).count();
    assert!(taken > 1 && taken < 100);
    assert!(matches!(take(&mut catching_up, &plain()), Fate::Full));
    catching_up.leave(&room("r"));
    catching_up.begin_replay(&room("r"), PlainFrames::Wait);
    assert!(matches!(take(&mut catching_up, &plain()), Fate::Waits), "leaving drops the frames that wait");
}
