//! Tests of retention over a database in memory, with a clock that is moved.

use std::time::{Duration, Instant};

use sqlx::Row;

use super::{Config, Sharing, Status, Store, retention::INTERVAL, rows::statement, steady_clock::SteadyClock};
use crate::clock::Clock;
use crate::lifecycle::Lifecycle;

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
const MAX_AGE: Duration = Duration::from_hours(30 * 24);

/// What is stored, and when it expires.
#[derive(Clone, Copy, PartialEq)]
enum What {
    /// Messages with a `ttl`.
    Messages,
    /// Messages that expire by their age alone.
    Old,
    Keys,
}

struct Test {
    store: Store,
    clock: Clock,
}

impl Test {
    async fn open() -> Self {
        let clock = Clock::movable();
        let config = Config { url: "sqlite::memory:".into(), max_age: MAX_AGE, max_messages: 1_000_000 };
        let store = Store::open(&config, Sharing::Single, clock.clone(), &Lifecycle::new()).expect("it opens");
        store.watch_status().wait_for(|status| *status == Status::Serving).await.expect("it is open");
        Self { store, clock }
    }

    /// Opens the store, and sweeps it for the first time.
    async fn begin() -> Self {
        let test = Self::open().await;
        test.execute("INSERT INTO mailboxes (room, last) VALUES ('a', 1000000), ('b', 1000000)".into()).await;
        test.sweep().await;
        test
    }

    async fn sweep(&self) {
        self.store.sweep_steadily().await.expect("it is swept");
    }

    /// Stores so many, of which one expires after the other, all within this time.
    async fn insert(&self, what: What, count: u64, within: Duration) {
        let step_ms = within.as_millis() / u128::from(count.max(1));
        let (now, max_age) = (self.store.now_ms(), MAX_AGE.as_millis());
        let into = match what {
            What::Messages => format!(
                "messages (room, position, message_id, event, kind, except_users, stored_at, expires_at, payload) \
                 SELECT 'a', i, i, 'e', 'none', '[]', {now}, {now} + i * {step_ms}, X''"
            ),
            What::Old => format!(
                "messages (room, position, message_id, event, kind, except_users, stored_at, expires_at, payload) \
                 SELECT 'b', i, i, 'e', 'none', '[]', {now} - {max_age} + i * {step_ms} - 1, {}, X''",
                i64::MAX
            ),
            What::Keys => format!(
                "emits (caller, room, key, asked, message_id, position, expires_at) \
                 SELECT 'a', 'a', CAST(i AS BLOB), X'', i, i, {now} + i * {step_ms}"
            ),
        };
        self.execute(format!(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) INSERT INTO {into} FROM n"
        ))
        .await;
    }

    async fn execute(&self, sql: String) {
        let write = self
            .store
            .inner
            .database
            .write(move |connection| Box::pin(async move { statement(sql).execute(connection).await.map(drop) }));
        write.await.expect("it is executed");
    }

    async fn number(&self, sql: &'static str) -> i64 {
        let read =
            self.store.inner.database.read(move |connection| {
                Box::pin(async move { sqlx::query(sql).fetch_one(connection).await?.try_get(0) })
            });
        read.await.expect("it is read")
    }

    async fn messages(&self) -> i64 {
        self.number("SELECT COUNT(*) FROM messages").await
    }

    /// The floors of both mailboxes.
    async fn trimmed(&self) -> i64 {
        self.number("SELECT CAST(SUM(trimmed) AS BIGINT) FROM mailboxes").await
    }

    async fn keys(&self) -> i64 {
        self.number("SELECT COUNT(*) FROM emits").await
    }

    /// How far retention is behind the time of day.
    async fn behind(&self) -> Duration {
        let ms = self.number("SELECT behind_ms FROM store WHERE id = 1").await;
        Duration::from_millis(ms.try_into().expect("it is never ahead"))
    }

    /// Whether it is so far behind, but for the time that the test itself takes.
    async fn is_behind_by(&self, time: Duration) -> bool {
        self.behind().await.abs_diff(time) < HOUR / 60
    }

    /// Stops the process for so long. `changes`: of the row that it has written before.
    async fn stop_for(&self, time: Duration, changes: &str) {
        let mut sweeps = self.store.inner.sweeps.lock().await;
        self.execute(format!("UPDATE store SET {changes} WHERE id = 1")).await;
        self.clock.pass(time);
        *sweeps = SteadyClock::default();
    }
}

/// Whether so many are left, but for a few that expire while the test runs.
fn is_left(messages: i64, expected: i64) -> bool {
    (expected - expected / 20..=expected).contains(&messages)
}

#[tokio::test]
async fn after_a_jump_ahead_so_many_messages_are_deleted_each_hour_and_all_keys() {
    for what in [What::Messages, What::Old] {
        let test = Test::begin().await;
        test.insert(what, 12_000, 12 * HOUR).await;
        test.insert(What::Keys, 12_000, 12 * HOUR).await;
        test.clock.advance(DAY);
        for _ in 0..2 {
            test.sweep().await;
            assert!(is_left(test.messages().await, 2_000) && test.keys().await == 0);
        }
        test.clock.pass(HOUR);
        test.sweep().await;
        assert!(test.messages().await == 0 && test.is_behind_by(DAY).await);
    }
}

#[tokio::test]
async fn what_expires_after_a_jump_by_a_time_of_day_in_doubt_goes_slowly_too() {
    // When the time jumps nothing has expired, or few messages have, long before the rest.
    for few in [0, 10] {
        let test = Test::begin().await;
        test.insert(What::Old, few, HOUR).await;
        test.clock.advance(DAY + HOUR / 12);
        test.insert(What::Messages, 30_000, HOUR).await;
        test.sweep().await;
        let left = test.messages().await;
        test.clock.pass(2 * HOUR);
        test.sweep().await;
        assert!(is_left(left, 30_000) && is_left(test.messages().await, 20_000));
    }
}

#[tokio::test]
async fn a_time_of_day_that_is_not_set_back_for_a_day_is_taken_as_right_once_all_that_has_expired_by_it_is_deleted() {
    let test = Test::begin().await;
    test.insert(What::Messages, 60_000, 2 * DAY).await;
    test.clock.advance(3 * DAY);
    test.sweep().await;
    test.clock.pass(DAY);
    test.sweep().await;
    // Half of them have expired in any case, and 20,000 go in this hour.
    assert!(is_left(test.messages().await, 10_000) && test.is_behind_by(3 * DAY).await);
    test.clock.pass(HOUR);
    test.sweep().await;
    assert_eq!((test.messages().await, test.behind().await), (0, Duration::ZERO));
}

#[tokio::test]
async fn devices_are_told_of_the_gap_that_deletions_by_age_or_because_of_a_jump_leave() {
    let test = Test::begin().await;
    test.insert(What::Messages, 100, HOUR).await;
    test.clock.pass(HOUR);
    test.sweep().await;
    assert_eq!((test.messages().await, test.trimmed().await), (0, 0), "they have expired as they should");
    test.insert(What::Messages, 100, HOUR).await;
    test.insert(What::Old, 100, HOUR).await;
    test.clock.advance(DAY);
    test.sweep().await;
    assert_eq!((test.messages().await, test.trimmed().await), (0, 200));
}

#[tokio::test]
async fn a_message_that_was_stored_by_a_clock_in_the_past_takes_no_others_with_it() {
    let test = Test::begin().await;
    test.insert(What::Messages, 500, DAY).await;
    test.clock.set_back(60 * DAY);
    test.execute(format!("UPDATE messages SET stored_at = {} WHERE position = 500", test.store.now_ms())).await;
    test.clock.advance(60 * DAY);
    test.sweep().await;
    assert_eq!((test.messages().await, test.trimmed().await), (499, 500));
}

#[tokio::test]
async fn a_restart_gives_no_second_allowance_in_the_same_hour() {
    let test = Test::begin().await;
    test.insert(What::Messages, 12_000, 12 * HOUR).await;
    test.clock.advance(DAY);
    test.sweep().await;
    for _ in 0..3 {
        test.stop_for(Duration::ZERO, "id = 1").await;
        test.sweep().await;
        assert!(is_left(test.messages().await, 2_000));
    }
}

#[tokio::test]
async fn what_is_left_when_the_clock_is_set_right_stays_until_it_expires() {
    let test = Test::begin().await;
    test.insert(What::Messages, 12_000, 12 * HOUR).await;
    test.clock.advance(DAY);
    test.sweep().await;
    test.clock.set_back(DAY);
    test.sweep().await;
    assert!(is_left(test.messages().await, 2_000) && test.behind().await == Duration::ZERO);
    test.clock.pass(9 * HOUR);
    test.sweep().await;
    assert!(is_left(test.messages().await, 2_000));
    test.clock.pass(4 * HOUR);
    test.sweep().await;
    assert_eq!(test.messages().await, 0);
}

#[tokio::test]
async fn after_a_stop_of_two_hours_all_that_has_expired_is_deleted() {
    let test = Test::begin().await;
    test.insert(What::Messages, 30_000, 2 * HOUR).await;
    test.insert(What::Keys, 30_000, 2 * HOUR).await;
    test.stop_for(2 * HOUR, "id = 1").await;
    test.sweep().await;
    assert_eq!((test.messages().await, test.keys().await, test.behind().await), (0, 0, Duration::ZERO));
}

#[tokio::test]
async fn after_a_stop_that_may_have_been_a_jump_retention_catches_up_though_more_expires_each_hour_than_it_may_delete()
{
    let test = Test::begin().await;
    test.insert(What::Messages, 120_000, 8 * HOUR).await;
    test.insert(What::Keys, 30_000, 2 * HOUR).await;
    test.stop_for(2 * HOUR, "swept_boot = 'another'").await;
    test.sweep().await;
    assert!(is_left(test.messages().await, 110_000) && test.keys().await == 0);
    assert!(test.is_behind_by(2 * HOUR).await);
    test.clock.pass(8 * HOUR);
    test.sweep().await;
    // What has expired in any case counts for no hour.
    assert_eq!(test.messages().await, 0);
    test.clock.pass(16 * HOUR);
    test.sweep().await;
    assert_eq!(test.behind().await, Duration::ZERO);
}

#[tokio::test]
async fn what_an_earlier_version_has_left_behind_ends() {
    let test = Test::begin().await;
    test.stop_for(Duration::ZERO, "behind_ms = 7210165, swept_boot = ''").await;
    test.sweep().await;
    test.clock.pass(DAY);
    test.sweep().await;
    assert_eq!(test.behind().await, Duration::ZERO);
}

#[tokio::test]
async fn a_store_that_was_never_swept_begins_at_its_last_message() {
    let test = Test::begin().await;
    test.insert(What::Messages, 12_000, 12 * HOUR).await;
    test.stop_for(DAY, "swept_at = 0, swept_boot = ''").await;
    test.sweep().await;
    assert!(is_left(test.messages().await, 2_000) && test.is_behind_by(DAY).await);
}

#[tokio::test]
async fn a_store_sweeps_itself_as_soon_as_it_is_open() {
    let store = Test::open().await.store;
    let begun = Instant::now();
    // As long as it takes, and not for the time between two sweeps.
    while !store.inner.sweeps.lock().await.has_begun() {
        assert!(begun.elapsed() < INTERVAL / 2, "it was not swept");
        tokio::task::yield_now().await;
    }
}

/// The time of tokio stands still but for one step, however long the database takes.
#[tokio::test]
async fn the_store_sweeps_itself_by_the_steady_clock() {
    let test = Test::begin().await;
    test.insert(What::Messages, 12_000, 12 * HOUR).await;
    let (end, ended) = std::sync::mpsc::channel::<()>();
    // As long as this runs, the time does not pass by itself.
    let standing = tokio::task::spawn_blocking(move || ended.recv());
    tokio::time::pause();
    test.clock.advance(DAY);
    tokio::time::advance(INTERVAL).await;
    let begun = Instant::now();
    while test.messages().await == 12_000 {
        assert!(begun.elapsed() < HOUR / 60, "nothing was deleted");
    }
    // It has ended then.
    drop(test.store.inner.sweeps.lock().await);
    assert!(is_left(test.messages().await, 2_000));
    drop(end);
    let _ = standing.await;
}
