use jiff::Timestamp;
use tokio::time::Instant;

use super::*;
use crate::cluster::BusError;
use crate::lifecycle::Lifecycle;
use crate::message::{Ack, AckOutcome, Acks, Audience, ConnectionId, MessageId, Receipt};
use crate::state::{FirstElsewhere, Scope, SharedClaim, SharedClaimed, SharedIdempotency};

const HASH: [u8; 32] = [1; 32];
/// A lease that ends while a test waits, unless it is renewed.
const SHORT: Duration = Duration::from_millis(200);

fn scope(key: &str) -> Scope {
    Scope { caller: caller(), audience: Audience::everyone(), key: key.into() }
}

fn id() -> MessageId {
    MessageId::at(Timestamp::UNIX_EPOCH)
}

fn nodes(shards: &Shards) -> [SharedIdempotency; 2] {
    [(); 2].map(|()| SharedIdempotency::new(shards.clone(), 10, Lifecycle::new()))
}

async fn first(idempotency: &SharedIdempotency, key: &str, id: MessageId) -> (SharedClaim, MessageId) {
    let claimed = idempotency.claim(&scope(key), HASH, id).await.unwrap();
    let SharedClaimed::First(claim, id) = claimed else { panic!("{}", name(&claimed)) };
    (claim, id)
}

async fn known(idempotency: &SharedIdempotency, key: &str) -> &'static str {
    name(&idempotency.claim(&scope(key), HASH, id()).await.unwrap())
}

fn name(claimed: &SharedClaimed) -> &'static str {
    match claimed {
        SharedClaimed::First(..) => "first",
        SharedClaimed::Running => "running",
        SharedClaimed::Published(_) => "published",
        SharedClaimed::Done(_) => "done",
        SharedClaimed::Reused => "reused",
    }
}

fn after(time: Duration) -> Instant {
    Instant::now() + time
}

fn elsewhere(key: &str, time: Duration) -> FirstElsewhere {
    FirstElsewhere { scope: scope(key), request_hash: HASH, until: after(time) }
}

fn receipt(id: MessageId, reply: usize) -> Receipt {
    let ack = Ack {
        user: user("42"),
        connection: ConnectionId::random(),
        outcome: AckOutcome::Replied(Some("x".repeat(reply).into())),
        elapsed: Duration::from_millis(3),
    };
    Receipt { matched: 7, acks: Some(Arc::new(Acks { list: vec![ack], replied: 1 })), ..Receipt::new(id) }
}

#[tokio::test]
async fn a_repetition_at_another_node_gets_the_first_receipt() {
    let server = RedisServer::start();
    let [a, b] = nodes(&server.connect().await);
    let id = id();
    let (claim, granted) = first(&a, "k", id).await;
    assert_eq!(granted, id);
    assert_eq!(known(&b, "k").await, "running");
    let early = Receipt::new(id);
    claim.published(&early).await.unwrap();
    let scope = scope("k");
    let Ok(SharedClaimed::Published(seen)) = b.claim(&scope, HASH, self::id()).await else { panic!() };
    assert_eq!(seen, early);
    let awaited = elsewhere("k", HOUR);
    let mut answer = Box::pin(b.answer(&awaited));
    assert!(futures_util::poll!(answer.as_mut()).is_pending());
    let full = receipt(id, 1 << 20);
    claim.done(&full).await.unwrap();
    assert_eq!(answer.await, Some(full.clone()));
    let Ok(SharedClaimed::Done(seen)) = b.claim(&scope, HASH, self::id()).await else { panic!() };
    assert_eq!(seen, full);
}

#[tokio::test]
async fn another_request_under_the_same_key_is_refused_and_another_key_audience_or_caller_is_not() {
    let server = RedisServer::start();
    let [a, b] = nodes(&server.connect().await);
    let (claim, _) = first(&a, "k", id()).await;
    let other = b.claim(&scope("k"), [2; 32], id()).await.unwrap();
    assert_eq!(name(&other), "reused");
    let both = ["k", "l"].map(scope);
    assert_eq!(b.reused(&both, [2; 32]).await, Ok(vec![true, false]));
    assert_eq!(b.reused(&both, HASH).await, Ok(vec![false, false]));
    let others = [
        scope("l"),
        Scope { caller: "other".into(), ..scope("k") },
        Scope { audience: Audience::user(&user("1")), ..scope("k") },
    ];
    for scope in others {
        assert_eq!(name(&b.claim(&scope, [2; 32], id()).await.unwrap()), "first");
    }
    drop(claim);
}

#[tokio::test]
async fn of_several_concurrent_claims_one_is_the_first_and_the_others_wait_for_it() {
    let server = RedisServer::start();
    let (first, second) = (server.connect().await, server.connect().await);
    let nodes = [first, second].map(|shards| SharedIdempotency::new(shards, 100, Lifecycle::new()));
    for round in 0..50 {
        let key = round.to_string();
        let run = async |node: &SharedIdempotency| match node
            .claim_or_wait(&scope(&key), HASH, id(), after(HOUR))
            .await
            .unwrap()
        {
            SharedClaimed::First(claim, id) => {
                tokio::task::yield_now().await;
                claim.done(&Receipt::new(id)).await.unwrap();
                (true, id)
            }
            SharedClaimed::Done(receipt) => (false, receipt.message_id),
            SharedClaimed::Running | SharedClaimed::Published(_) | SharedClaimed::Reused => panic!("it is neither"),
        };
        let all = futures_util::future::join_all(nodes.iter().cycle().take(6).map(run)).await;
        assert_eq!(all.iter().filter(|(is_first, _)| *is_first).count(), 1);
        assert!(all.iter().all(|(_, id)| *id == all[0].1));
    }
}

#[tokio::test]
async fn a_claim_that_is_given_up_goes_to_the_next_under_the_same_message_id() {
    let server = RedisServer::start();
    let [a, b] = nodes(&server.connect().await);
    let (claim, granted) = first(&a, "k", id()).await;
    drop(claim);
    let Ok(SharedClaimed::First(claim, again)) = b.claim_or_wait(&scope("k"), HASH, id(), after(HOUR)).await else {
        panic!()
    };
    assert_eq!(again, granted);
    claim.published(&Receipt::new(again)).await.unwrap();
    drop(claim);
    assert_eq!(a.answer(&elsewhere("k", HOUR)).await, Some(Receipt::new(again)), "nobody waits for acknowledgements");
}

#[tokio::test]
async fn a_claim_of_a_dead_node_is_taken_over_under_the_same_message_id() {
    let server = RedisServer::start();
    let shards = server.connect().await;
    let dead = Lifecycle::new();
    let a = SharedIdempotency::with_lease(shards.clone(), 10, dead.clone(), SHORT);
    let [b, _] = nodes(&shards);
    let (claim, granted) = first(&a, "k", id()).await;
    let (published, published_id) = first(&a, "published", id()).await;
    published.published(&Receipt::new(published_id)).await.unwrap();
    // Its leases are not renewed any more.
    dead.stop_hard();
    dead.ended().await;
    let Ok(SharedClaimed::First(taken_over, again)) = b.claim_or_wait(&scope("k"), HASH, id(), after(HOUR)).await
    else {
        panic!()
    };
    assert_eq!(again, granted);
    assert_eq!(known(&b, "k").await, "running");
    taken_over.done(&Receipt::new(again)).await.unwrap();
    let Ok(SharedClaimed::Done(seen)) = b.claim(&scope("k"), HASH, id()).await else { panic!() };
    assert_eq!(seen, Receipt::new(again));
    assert_eq!(b.answer(&elsewhere("published", HOUR)).await, Some(Receipt::new(published_id)));
    drop((claim, published));
}

#[tokio::test]
async fn the_answer_of_a_node_that_lost_its_claim_is_not_taken() {
    let server = RedisServer::start();
    let shards = server.connect().await;
    let [a, b] = nodes(&shards);
    let (claim, granted) = first(&a, "k", id()).await;
    let key: String = keys(&shards).await.into_iter().find(|key| key.starts_with("p:i:")).unwrap();
    let mut taken_over = None;
    eventually(async || {
        // As if the node had been paused.
        shards.all()[0].query::<()>(redis::cmd("SETRANGE").arg(&key).arg(65).arg("0000000000000")).await.unwrap();
        if let SharedClaimed::First(claim, id) = b.claim(&scope("k"), HASH, id()).await.unwrap() {
            taken_over = Some((claim, id));
        }
        taken_over.is_some()
    })
    .await;
    let (taken_over, again) = taken_over.unwrap();
    assert_eq!(again, granted);
    claim.published(&receipt(granted, 1)).await.unwrap();
    claim.done(&receipt(granted, 1)).await.unwrap();
    assert_eq!(known(&b, "k").await, "running");
    taken_over.done(&Receipt::new(again)).await.unwrap();
    let Ok(SharedClaimed::Done(seen)) = a.claim(&scope("k"), HASH, id()).await else { panic!() };
    assert_eq!(seen, Receipt::new(again));
}

#[tokio::test]
async fn the_lease_of_a_claim_that_lives_is_renewed() {
    let server = RedisServer::start();
    let shards = server.connect().await;
    let a = SharedIdempotency::with_lease(shards.clone(), 10, Lifecycle::new(), Duration::from_secs(1));
    let [b, _] = nodes(&shards);
    let (claim, id) = first(&a, "k", id()).await;
    let key: String = keys(&shards).await.into_iter().find(|key| key.starts_with("p:i:")).unwrap();
    let lease =
        async || -> u64 { shards.all()[0].query(redis::cmd("GETRANGE").arg(&key).arg(65).arg(77)).await.unwrap() };
    let begin = lease().await;
    eventually(async || lease().await > begin + 2_000).await;
    assert_eq!(known(&b, "k").await, "running");
    claim.done(&Receipt::new(id)).await.unwrap();
    assert_eq!(known(&b, "k").await, "done");
}

#[tokio::test]
async fn a_caller_that_gives_up_while_it_claims_leaves_no_claim() {
    let server = RedisServer::start();
    let [a, b] = nodes(&server.connect().await);
    for round in 0..50 {
        let key = round.to_string();
        let (at, scope) = (id(), scope(&key));
        let mut claiming = Box::pin(a.claim(&scope, HASH, at));
        for _ in 0..round % 5 {
            assert!(futures_util::poll!(claiming.as_mut()).is_pending());
        }
        drop(claiming);
        let Ok(SharedClaimed::First(..)) = b.claim_or_wait(&scope, HASH, id(), after(HOUR)).await else { panic!() };
    }
}

#[tokio::test]
async fn the_oldest_keys_go_first_when_there_are_too_many_and_a_known_one_makes_none_go() {
    let server = RedisServer::start();
    let idempotency = SharedIdempotency::new(server.connect().await, 2, Lifecycle::new());
    for key in ["a", "b"] {
        let (claim, id) = first(&idempotency, key, id()).await;
        claim.done(&Receipt::new(id)).await.unwrap();
    }
    assert_eq!((known(&idempotency, "a").await, known(&idempotency, "b").await), ("done", "done"));
    let (claim, id) = first(&idempotency, "c", id()).await;
    claim.done(&Receipt::new(id)).await.unwrap();
    assert_eq!((known(&idempotency, "b").await, known(&idempotency, "c").await), ("done", "done"));
    assert_eq!(known(&idempotency, "a").await, "first");
}

#[tokio::test]
async fn the_bytes_of_receipts_are_bounded_and_given_back() {
    let server = RedisServer::start();
    let shards = server.connect().await;
    let idempotency = SharedIdempotency::new(shards.clone(), 100, Lifecycle::new());
    for key in ["a", "b", "c", "d"] {
        let (claim, id) = first(&idempotency, key, id()).await;
        claim.done(&receipt(id, (16 << 20) + 1)).await.unwrap();
    }
    assert_eq!((known(&idempotency, "d").await, known(&idempotency, "b").await), ("done", "done"));
    let sum: usize = shards.all()[0].query(redis::cmd("HGET").arg("p:sizes:i").arg("")).await.unwrap();
    assert!((48 << 20..64 << 20).contains(&sum), "{sum}");
    assert_eq!(known(&idempotency, "a").await, "first");
}

#[tokio::test]
async fn keys_are_kept_for_five_minutes_and_swept() {
    let server = RedisServer::start();
    let shards = server.connect().await;
    let [a, _] = nodes(&shards);
    let (claim, id) = first(&a, "k", id()).await;
    claim.done(&receipt(id, 5_000)).await.unwrap();
    let engine = &shards.all()[0];
    let key: String = keys(&shards).await.into_iter().find(|key| key.starts_with("p:i:")).unwrap();
    let left: i64 = engine.query(redis::cmd("PTTL").arg(&key)).await.unwrap();
    assert!((200_000..=300_000).contains(&left), "{left}");
    assert!(!a.sweep().await.unwrap());
    assert_eq!(keys(&shards).await.len(), 3);
    // As if five minutes had passed.
    engine.query::<()>(redis::cmd("ZADD").arg("p:ages:i").arg(1).arg(&key)).await.unwrap();
    assert!(!a.sweep().await.unwrap());
    assert_eq!(keys(&shards).await, ["p:sizes:i"]);
    let sum: usize = engine.query(redis::cmd("HGET").arg("p:sizes:i").arg("")).await.unwrap();
    assert_eq!(sum, 0);
}

#[tokio::test]
async fn the_answer_of_another_call_is_awaited_until_its_time_or_a_stop() {
    let server = RedisServer::start();
    let (shards, lifecycle) = (server.connect().await, Lifecycle::new());
    let node = SharedIdempotency::new(shards, 10, lifecycle.clone());
    let (claim, id) = first(&node, "k", id()).await;
    claim.published(&Receipt::new(id)).await.unwrap();
    let waits = async |time| {
        let awaited = elsewhere("k", time);
        tokio::time::timeout(HOUR / 60, node.answer(&awaited)).await
    };
    assert_eq!(waits(SHORT).await.expect("in time"), None);
    let stopping = async {
        tokio::task::yield_now().await;
        lifecycle.stop();
    };
    let (answer, ()) = tokio::join!(waits(HOUR), stopping);
    assert_eq!(answer.expect("in time"), None);
    claim.done(&Receipt::new(id)).await.unwrap();
}

#[tokio::test]
async fn a_call_that_may_take_no_longer_waits_for_no_engine() {
    let server = RedisServer::start();
    let shards = server.connect().await;
    let node = SharedIdempotency::new(shards.clone(), 10, Lifecycle::new());
    server.pause();
    let command = redis::cmd("PING");
    let waiting = shards.all()[0].query::<String>(&command);
    let scope = scope("k");
    let claim = node.claim_or_wait(&scope, HASH, id(), after(SHORT));
    tokio::select! {
        biased;
        answer = waiting => panic!("the deadline of a command was longer: {answer:?}"),
        claimed = claim => assert!(matches!(claimed, Err(BusError::Unanswered))),
    }
    server.resume();
}

#[tokio::test]
async fn the_keys_of_many_users_are_looked_at_in_few_round_trips() {
    let server = RedisServer::start_shards(2);
    let shards = server.connect().await;
    let node = SharedIdempotency::new(shards.clone(), 10_000, Lifecycle::new());
    let to_user = |number: usize| Scope { audience: Audience::user(&user(&number.to_string())), ..scope("k") };
    let scopes: Vec<_> = (0..2_000).map(to_user).collect();
    let mut expected = vec![false; scopes.len()];
    for index in [0, 7, 700, 1_999] {
        let SharedClaimed::First(claim, id) = node.claim(&scopes[index], [2; 32], id()).await.unwrap() else {
            panic!()
        };
        claim.done(&Receipt::new(id)).await.unwrap();
        expected[index] = true;
    }
    let reads = async || {
        let mut info = redis::cmd("INFO");
        let info: String = shards.all()[0].query(info.arg("stats")).await.unwrap();
        let reads = info.lines().find_map(|line| line.strip_prefix("total_reads_processed:"));
        reads.unwrap().parse::<usize>().unwrap()
    };
    let before = reads().await;
    assert_eq!(node.reused(&scopes, HASH).await, Ok(expected));
    let made = reads().await - before;
    assert!(made < 200, "{made} reads");
}
