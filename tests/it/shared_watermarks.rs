//! What users' devices have proven, if several nodes share a PostgreSQL and each knows its own connections only.

use std::collections::{BTreeSet, HashMap};

use bugle::clock::Clock;
use bugle::lifecycle::Lifecycle;
use bugle::message::UserId;
use bugle::store::{Sharing, Status, Store, Undelivered, WatermarkReports};
use futures_util::future::join_all;

use crate::harness::{deadline, eventually, execute, new_database, set_read_only};
use crate::store::{Kind, message, position, wait_for};

/// A user's reports of one node.
fn reports(store: &Store) -> WatermarkReports {
    reports_of(store, &user())
}

fn reports_of(store: &Store, user: &UserId) -> WatermarkReports {
    store.watermark_reports(user, store.incarnation())
}

fn user() -> UserId {
    UserId::new("42").expect("a name")
}

fn undelivered(after: u64, skipped: &[u64]) -> Undelivered {
    Undelivered { after, skipped: skipped.to_vec() }
}

async fn open(kind: &Kind) -> Store {
    let store = Store::open(&kind.config(), Sharing::Cluster, Clock::system(), &Lifecycle::new()).expect("it opens");
    wait_for(&store, Status::Serving).await;
    store
}

/// Two nodes that share a store with so many messages for user 42.
async fn nodes(count: u64) -> (Store, Store, Kind) {
    let kind = Kind::of(new_database());
    let (a, b) = (open(&kind).await, open(&kind).await);
    for number in 1..=count {
        assert_eq!(position(&a, message("user:42", &number.to_string())).await, number);
    }
    (a, b, kind)
}

async fn write(store: &Store) {
    deadline("the watermarks to be written", store.write_watermarks()).await.expect("they are written");
}

async fn undelivered_at(store: &Store) -> Undelivered {
    deadline("what is undelivered", store.undelivered(&user())).await.expect("it is read")
}

/// What the database holds, which a node answers that knows nothing else.
async fn written(kind: &Kind) -> Undelivered {
    undelivered_at(&open(kind).await).await
}

async fn first_resume(store: &Store) -> Undelivered {
    deadline("the first resume", reports(store).begin_first_resume(None)).await.expect("it begins")
}

#[tokio::test]
async fn a_node_reads_what_another_one_has_written() {
    let (a, b, _kind) = nodes(3).await;
    reports(&a).note_in_flight(1, false);
    reports(&a).note_proven(1);
    write(&a).await;
    assert_eq!(undelivered_at(&b).await, undelivered(1, &[]));
    reports(&b).note_skipped(2);
    reports(&b).note_in_flight(3, false);
    reports(&b).note_proven(3);
    write(&b).await;
    assert_eq!(undelivered_at(&a).await, undelivered(3, &[2]));
}

#[tokio::test]
async fn what_is_proven_is_written_by_itself() {
    let (a, b, _kind) = nodes(1).await;
    reports(&a).note_in_flight(1, false);
    reports(&a).note_proven(1);
    eventually("another node to know it", async || undelivered_at(&b).await.after >= 1).await;
}

#[tokio::test]
async fn a_message_that_a_device_of_another_node_has_proven_is_not_skipped_by_the_node_that_lost_it() {
    let (a, b, kind) = nodes(3).await;
    reports(&a).note_in_flight(1, false);
    for number in [1, 2] {
        reports(&b).note_in_flight(number, false);
        reports(&b).note_proven(number);
    }
    write(&b).await;
    // One device of this node is not sent the next one, and the other one has lost the first.
    reports(&a).note_in_flight(3, false);
    reports(&a).note_proven(3);
    reports(&a).note_lost(1);
    assert_eq!(undelivered_at(&a).await, undelivered(3, &[]));
    write(&a).await;
    assert_eq!(written(&kind).await, undelivered(3, &[]));
}

#[tokio::test]
async fn a_proof_takes_out_what_another_node_has_skipped_and_nothing_else() {
    for is_proven_first in [false, true] {
        let (a, b, kind) = nodes(3).await;
        reports(&a).note_in_flight(1, false);
        reports(&a).note_in_flight(2, false);
        if is_proven_first {
            reports(&a).note_proven(2);
        }
        reports(&b).note_skipped(1);
        reports(&b).note_skipped(2);
        reports(&b).note_in_flight(3, false);
        reports(&b).note_proven(3);
        write(&b).await;
        if !is_proven_first {
            reports(&a).note_proven(2);
        }
        assert_eq!(undelivered_at(&a).await, undelivered(3, &[1]));
        write(&a).await;
        assert_eq!(written(&kind).await, undelivered(3, &[1]));
    }
}

#[tokio::test]
async fn a_skip_that_is_written_after_the_proof_of_another_node_is_dropped() {
    let (a, b, kind) = nodes(3).await;
    reports(&a).note_skipped(1);
    reports(&a).note_skipped(2);
    reports(&a).note_in_flight(3, false);
    reports(&a).note_proven(3);
    reports(&b).note_in_flight(1, false);
    reports(&b).note_proven(1);
    write(&b).await;
    write(&a).await;
    assert_eq!(written(&kind).await, undelivered(3, &[2]));
}

#[tokio::test]
async fn a_gap_skips_what_no_node_has_proven() {
    let (a, b, kind) = nodes(4).await;
    for number in [1, 2, 3] {
        reports(&b).note_in_flight(number, false);
    }
    reports(&b).note_proven(1);
    write(&b).await;
    reports(&b).note_proven(3);
    reports(&a).skip_to(4).await.unwrap();
    write(&b).await;
    write(&a).await;
    assert_eq!(written(&kind).await, undelivered(4, &[2, 4]));
}

#[tokio::test]
async fn first_resumes_of_one_grace_begin_at_one_position_on_each_node() {
    let (a, b, kind) = nodes(4).await;
    reports(&a).note_skipped(1);
    reports(&a).note_in_flight(2, false);
    reports(&a).note_proven(2);
    assert_eq!(first_resume(&a).await, undelivered(2, &[1]), "what is known here is written before");
    for number in [3, 4] {
        reports(&a).note_in_flight(number, true);
        reports(&a).note_proven(number);
    }
    write(&a).await;
    assert_eq!(first_resume(&b).await, undelivered(2, &[1]), "it comes back to another node");
    assert_eq!(undelivered_at(&b).await, undelivered(4, &[1]), "others begin at the watermark");
    execute(&kind.url, "UPDATE first_resumes SET expires_at = 0");
    assert_eq!(first_resume(&a).await, undelivered(4, &[1]), "the grace is over");
    b.sweep().await.unwrap();
    assert_eq!(first_resume(&b).await, undelivered(4, &[1]));
}

#[tokio::test]
async fn a_device_that_resumes_for_the_first_time_begins_at_the_watermark_while_the_database_is_read_only() {
    let (a, b, kind) = nodes(3).await;
    reports(&a).note_skipped(1);
    reports(&a).note_in_flight(2, false);
    reports(&a).note_proven(2);
    write(&a).await;
    set_read_only(&kind.url, true);
    wait_for(&b, Status::Unwritable).await;
    // Its connections have ended each time.
    let in_the_end = async || loop {
        if let Ok(begun) = reports(&b).begin_first_resume(None).await {
            return begun;
        }
    };
    assert_eq!(deadline("the first resume", in_the_end()).await, undelivered(2, &[1]));
    set_read_only(&kind.url, false);
    wait_for(&b, Status::Serving).await;
    assert_eq!(deadline("the first resume", in_the_end()).await, undelivered(2, &[1]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_devices_resume_for_the_first_time_on_two_nodes() {
    let (a, b, _kind) = nodes(1).await;
    let resuming = (0..1_000).map(|number| {
        // Each user on both nodes.
        let id = UserId::new(&format!("{}", number % 500)).expect("a name");
        let reports = reports_of(if number < 500 { &a } else { &b }, &id);
        async move { reports.begin_first_resume(None).await.expect("it begins") }
    });
    let all = deadline("all to begin", join_all(resuming)).await;
    assert!(all.iter().all(|one| *one == Undelivered::default()));
}

/// Numbers that look random and are the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// What a node's connection of a user does with the messages up to `last`: it is not sent some, proves some, and loses the rest. Returns what it proves.
async fn use_connection(store: &Store, user: &UserId, last: u64, numbers: &mut Numbers) -> BTreeSet<u64> {
    let (reports, mut proven) = (reports_of(store, user), BTreeSet::new());
    let mut unproven = Vec::new();
    for number in 1..=last {
        reports.note_in_flight(number, false);
        let is_dropped = numbers.below(4) == 0;
        if !is_dropped {
            reports.note_in_flight(number, false);
            unproven.push(number);
        }
        reports.note_published(number, is_dropped);
        if numbers.below(5) == 0 {
            for number in unproven.drain(..) {
                reports.note_proven(number);
                proven.insert(number);
            }
        }
        if numbers.below(20) == 0 {
            write(store).await;
        }
    }
    for number in unproven {
        reports.note_lost(number);
    }
    proven
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_three_nodes_report_of_many_users_at_the_same_time_is_merged_without_a_loss() {
    const USERS: u64 = 150;
    const LAST: u64 = 20;
    let kind = Kind::of(new_database());
    let stores = join_all((0..3).map(|_| open(&kind))).await;
    let users: Vec<_> = (0..USERS).map(|number| UserId::new(&format!("{number}")).expect("a name")).collect();
    // Messages that are not there would be swept from what is skipped.
    for user in &users {
        let batch = (0..LAST).map(|_| message(&format!("user:{user}"), "1")).collect();
        deadline("the append", stores[0].append(batch)).await.expect("they are kept");
    }
    let working = (0_u64..).zip(&stores).map(|(seed, store)| {
        let (store, mut users) = (store.clone(), users.clone());
        // Each node comes to the users in another order.
        users.rotate_left(usize::try_from(seed * USERS / 3).expect("it is small"));
        async move {
            let (mut numbers, mut all) = (Numbers(seed + 1), Vec::new());
            for user in users {
                let proven = use_connection(&store, &user, LAST, &mut numbers).await;
                all.push((user, proven));
            }
            write(&store).await;
            all
        }
    });
    let mut proven = HashMap::<UserId, BTreeSet<u64>>::new();
    // Each write has a deadline of its own.
    for (user, numbers) in join_all(working).await.into_iter().flatten() {
        proven.entry(user).or_default().extend(numbers);
    }
    let fresh = open(&kind).await;
    for (user, proven) in proven {
        let Undelivered { after, skipped } = fresh.undelivered(&user).await.unwrap();
        let is_given = |number: &u64| *number > after || skipped.contains(number);
        let expected: Vec<_> = (1..=LAST).filter(|number| !proven.contains(number)).collect();
        let given: Vec<_> = (1..=LAST).filter(is_given).collect();
        assert_eq!(given, expected, "user {user}: after {after}, skipped {skipped:?}");
    }
}
