//! The store's contract about what users' devices have proven, over each database.

use std::time::Duration;

use bugle::clock::Clock;
use bugle::lifecycle::Lifecycle;
use bugle::message::UserId;
use bugle::store::{Store, Undelivered, WatermarkReports};

use super::store::{Kind, kinds, message, open_with, position};
use crate::harness::deadline;

fn user() -> UserId {
    UserId::new("42").expect("a name")
}

fn reports(store: &Store) -> WatermarkReports {
    store.watermark_reports(&user(), store.incarnation())
}

fn undelivered(after: u64, skipped: &[u64]) -> Undelivered {
    Undelivered { after, skipped: skipped.to_vec() }
}

/// A store with so many messages for user 42.
async fn filled(kind: &Kind, count: u64) -> (Store, Lifecycle) {
    let lifecycle = Lifecycle::new();
    let store = open_with(kind, &Clock::system(), 1_000, &lifecycle);
    for number in 1..=count {
        assert_eq!(position(&store, message("user:42", &number.to_string())).await, number);
    }
    (store, lifecycle)
}

/// Ends a store as a stop does, and opens it again; what is in memory alone stays where it is.
async fn restarted(kind: &Kind, (store, lifecycle): (Store, Lifecycle)) -> (Store, Lifecycle) {
    if kind.url.contains("memory") {
        // Its tasks write within a second.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        return (store, lifecycle);
    }
    store.close();
    deadline("the store's tasks to end", lifecycle.ended()).await;
    drop(store);
    filled(kind, 0).await
}

#[tokio::test]
async fn the_watermark_moves_at_the_proof_and_not_before() {
    for kind in kinds() {
        let (store, lifecycle) = filled(&kind, 3).await;
        reports(&store).note_in_flight(1, false);
        reports(&store).note_in_flight(2, false);
        assert_eq!(store.undelivered(&user()).await.unwrap(), undelivered(0, &[]), "{}", kind.url);
        reports(&store).note_proven(1);
        assert_eq!(store.undelivered(&user()).await.unwrap(), undelivered(1, &[]));
        let (store, _) = restarted(&kind, (store, lifecycle)).await;
        assert_eq!(store.undelivered(&user()).await.unwrap(), undelivered(1, &[]), "2 was never proven");
    }
}

#[tokio::test]
async fn an_unproven_message_below_a_proven_one_is_skipped_until_it_is_proven() {
    for kind in kinds() {
        let (store, lifecycle) = filled(&kind, 4).await;
        for number in 1..=4 {
            reports(&store).note_in_flight(number, false);
        }
        reports(&store).note_proven(1);
        reports(&store).note_proven(4);
        assert_eq!(store.undelivered(&user()).await.unwrap(), undelivered(4, &[2, 3]), "{}", kind.url);
        reports(&store).note_proven(2);
        assert_eq!(store.undelivered(&user()).await.unwrap(), undelivered(4, &[3]));
        let (store, lifecycle) = restarted(&kind, (store, lifecycle)).await;
        assert_eq!(store.undelivered(&user()).await.unwrap(), undelivered(4, &[3]), "{}", kind.url);
        // The next device is given it.
        reports(&store).note_in_flight(3, true);
        assert_eq!(store.undelivered(&user()).await.unwrap(), undelivered(4, &[3]));
        reports(&store).note_proven(3);
        assert_eq!(store.undelivered(&user()).await.unwrap(), undelivered(4, &[]));
        let (store, _) = restarted(&kind, (store, lifecycle)).await;
        assert_eq!(store.undelivered(&user()).await.unwrap(), undelivered(4, &[]), "{}", kind.url);
    }
}

#[tokio::test]
async fn a_proof_clears_a_skip_that_was_written_while_the_message_was_in_flight() {
    for kind in kinds() {
        let (store, lifecycle) = filled(&kind, 2).await;
        reports(&store).note_in_flight(1, false);
        reports(&store).note_in_flight(2, false);
        reports(&store).note_proven(2);
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        assert_eq!(store.undelivered(&user()).await.unwrap(), undelivered(2, &[1]), "{}", kind.url);
        reports(&store).note_proven(1);
        assert_eq!(store.undelivered(&user()).await.unwrap(), undelivered(2, &[]));
        let (store, _) = restarted(&kind, (store, lifecycle)).await;
        assert_eq!(store.undelivered(&user()).await.unwrap(), undelivered(2, &[]), "{}", kind.url);
    }
}

#[tokio::test]
async fn a_lost_message_stays_skipped_below_the_watermark_and_undelivered_above_it() {
    for kind in kinds() {
        let (store, lifecycle) = filled(&kind, 3).await;
        for number in 1..=3 {
            reports(&store).note_in_flight(number, false);
        }
        reports(&store).note_in_flight(1, true);
        reports(&store).note_proven(2);
        reports(&store).note_lost(1);
        reports(&store).note_lost(3);
        assert_eq!(store.undelivered(&user()).await.unwrap(), undelivered(2, &[1]), "{}", kind.url);
        reports(&store).note_lost(1);
        let (store, _) = restarted(&kind, (store, lifecycle)).await;
        assert_eq!(store.undelivered(&user()).await.unwrap(), undelivered(2, &[1]), "{}", kind.url);
    }
}

#[tokio::test]
async fn a_message_that_a_live_connection_was_not_sent_is_skipped_once_the_others_have_lost_it() {
    for kind in kinds() {
        let (store, lifecycle) = filled(&kind, 2).await;
        // The publisher, and one connection.
        reports(&store).note_in_flight(1, false);
        reports(&store).note_in_flight(1, false);
        reports(&store).note_published(1, true);
        reports(&store).note_lost(1);
        // The other connection gets the next one.
        reports(&store).note_in_flight(2, false);
        reports(&store).note_proven(2);
        let (store, _) = restarted(&kind, (store, lifecycle)).await;
        assert_eq!(store.undelivered(&user()).await.unwrap(), undelivered(2, &[1]), "{}", kind.url);
    }
}

#[tokio::test]
async fn a_message_that_needs_no_proof_moves_the_watermark_past_nothing_in_flight() {
    for kind in kinds() {
        let (store, lifecycle) = filled(&kind, 3).await;
        reports(&store).note_in_flight(1, false);
        reports(&store).note_settled(1, 2);
        assert_eq!(store.undelivered(&user()).await.unwrap(), undelivered(0, &[]), "{}", kind.url);
        reports(&store).note_proven(1);
        assert_eq!(store.undelivered(&user()).await.unwrap(), undelivered(2, &[]), "it moves with the next proof");
        reports(&store).note_settled(0, 3);
        let (store, _) = restarted(&kind, (store, lifecycle)).await;
        assert_eq!(store.undelivered(&user()).await.unwrap(), undelivered(3, &[]), "{}", kind.url);
    }
}

#[tokio::test]
async fn what_was_proven_before_is_not_skipped_when_a_device_that_gets_it_again_loses_it() {
    for kind in kinds() {
        let (store, lifecycle) = filled(&kind, 3).await;
        reports(&store).note_settled(0, 2);
        let (store, lifecycle) = restarted(&kind, (store, lifecycle)).await;
        reports(&store).note_in_flight(1, true);
        reports(&store).note_in_flight(3, false);
        reports(&store).note_proven(3);
        reports(&store).note_lost(1);
        assert_eq!(store.undelivered(&user()).await.unwrap(), undelivered(3, &[]), "{}", kind.url);
        let (store, _) = restarted(&kind, (store, lifecycle)).await;
        assert_eq!(store.undelivered(&user()).await.unwrap(), undelivered(3, &[]), "{}", kind.url);
    }
}

#[tokio::test]
async fn all_that_a_gap_passes_is_skipped_and_a_frozen_watermark_is_not_written() {
    for kind in kinds() {
        let (store, lifecycle) = filled(&kind, 4).await;
        reports(&store).note_in_flight(1, false);
        reports(&store).note_proven(1);
        reports(&store).note_in_flight(2, false);
        reports(&store).skip_to(3).await.unwrap();
        assert_eq!(store.undelivered(&user()).await.unwrap(), undelivered(3, &[2, 3]), "{}", kind.url);
        reports(&store).note_proven(2);
        let (store, lifecycle) = restarted(&kind, (store, lifecycle)).await;
        assert_eq!(store.undelivered(&user()).await.unwrap(), undelivered(3, &[3]), "{}", kind.url);
        assert_eq!(reports(&store).begin_first_resume(None).await.unwrap(), undelivered(3, &[3]));
        reports(&store).note_in_flight(4, false);
        reports(&store).note_proven(4);
        assert_eq!(store.undelivered(&user()).await.unwrap(), undelivered(4, &[3]));
        if !kind.url.contains("memory") {
            let (store, _) = restarted(&kind, (store, lifecycle)).await;
            assert_eq!(store.undelivered(&user()).await.unwrap(), undelivered(3, &[3]), "{}", kind.url);
        }
    }
}
