//! One connection to the database hangs in the middle of a transaction, and new ones do not.

use std::time::Duration;

use tonic::Code;

use super::{
    FarStore, STORE_PATIENCE,
    hangs::{begin_stored, expect_refusal},
    of_store,
};
use crate::harness::{count, eventually_within};

/// The first one is committed after the repetition has looked for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repetition_is_stored_once_though_the_commit_of_the_first_is_under_way() {
    let far = FarStore::start(Duration::ZERO).await;
    let mut device = far.server.connect("42").await;
    far.store("user:42", "1").await;
    let hangs = far.proxy.hang_connection_at(&["\"twice\"", "COMMIT"]);
    let first = begin_stored(&far.backend, "\"twice\"");
    of_store("the transaction", hangs).await;
    expect_refusal(first).await;

    far.is_back().await;
    let second = begin_stored(&far.backend, "\"twice\"");
    let is_waiting = async || waits_for_lock(&far.database) || second.is_finished();
    eventually_within(STORE_PATIENCE, "the repetition to wait for the first", is_waiting).await;
    far.proxy.go_on();
    let receipt = of_store("the repetition", second).await.expect("the call ends").expect("the store is back");
    let number = receipt.position.rsplit_once('.').expect("a position").1;
    assert_eq!(number, "2", "the first one is the second message, or the repetition is if that was rolled back");
    far.store("user:42", "3").await;
    for json in ["1", "\"twice\"", "3"] {
        assert_eq!(device.expect_event("stored").await.json(), json);
    }
}

/// The database knows nothing of the loss: its transaction holds the mailbox's row.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_lost_in_a_transaction_does_not_block_a_mailbox_for_good() {
    let far = FarStore::start(Duration::ZERO).await;
    far.store("user:42", "1").await;
    // First as the idempotency key that is looked for, then in the message, when the mailbox's row is locked.
    let hangs = far.proxy.hang_connection_at(&["\"lost\"", "\"lost\""]);
    let lost = begin_stored(&far.backend, "\"lost\"");
    of_store("the transaction", hangs).await;
    expect_refusal(lost).await;
    let again = async {
        loop {
            let stored = begin_stored(&far.backend, "\"lost\"").await.expect("the call ends");
            match stored {
                Ok(receipt) => return receipt,
                Err(status) => assert_eq!(status.code(), Code::Unavailable, "{}", status.message()),
            }
        }
    };
    assert!(!of_store("a stored emit to the mailbox", again).await.duplicate, "the first one was not committed");
}

/// Whether a transaction in the database with this URL waits for another one.
fn waits_for_lock(database: &str) -> bool {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    count(database, sql) > 0
}
