//! The store of several nodes, which write to one PostgreSQL at the same time.

use std::{sync::Arc, time::Duration};

use bugle::clock::Clock;
use bugle::lifecycle::Lifecycle;
use bugle::message::{Position, UserId};
use bugle::store::{Appended, IdempotencyKey, NewMessage, Sharing, Status, Store, Which, begin_new_epoch};
use futures_util::future::{join, join_all};
use tokio::sync::watch;

use crate::acks::in_background;
use crate::harness::{OpenTransaction, SlowProxy, count, deadline, execute, new_database, waits_for_lock};
use crate::store::{Kind, append, message, open, position, room, texts, wait_for};

/// A store as a node of a cluster opens it.
pub(crate) struct Node {
    pub(crate) store: Store,
    /// How often it was told to forget.
    pub(crate) forgotten: watch::Receiver<usize>,
}

impl Node {
    pub(crate) async fn open(kind: &Kind) -> Self {
        let store = Store::open(&kind.config(), Sharing::Cluster, Clock::system(), &Lifecycle::new());
        let (store, (count, forgotten)) = (store.expect("it opens"), watch::channel(0));
        store.on_new_epoch(move || count.send_modify(|count| *count += 1));
        wait_for(&store, Status::Serving).await;
        Self { store, forgotten }
    }

    pub(crate) async fn open_several<const N: usize>(kind: &Kind) -> [Self; N] {
        let nodes = join_all((0..N).map(|_| Self::open(kind))).await;
        nodes.try_into().unwrap_or_else(|_| panic!("there are as many"))
    }

    pub(crate) fn epoch(&self) -> Arc<str> {
        self.store.epoch().expect("it is open")
    }

    /// Waits until it has begun, or adopted, so many epochs since it was opened: it forgets before and after.
    pub(crate) async fn has_changed_epochs(&mut self, times: usize) {
        deadline("an epoch", self.forgotten.wait_for(|count| *count >= times * 2)).await.expect("it is open");
        wait_for(&self.store, Status::Serving).await;
    }
}

pub(crate) fn keyed(room_name: &str, key: &str) -> NewMessage {
    let key = IdempotencyKey { caller: "orders".into(), key: key.into(), request_hash: [1; 32] };
    NewMessage { idempotency: Some(key), ..message(room_name, "1") }
}

/// Appends, however often the store is away meanwhile.
pub(crate) async fn append_in_the_end(store: &Store, message: &NewMessage) -> Position {
    loop {
        match append(store, message.clone()).await {
            Ok(Appended::New { position, .. }) => return position,
            Ok(other) => panic!("{other:?}"),
            Err(_) => wait_for(store, Status::Serving).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn positions_are_dense_while_three_nodes_append_and_each_node_keeps_its_order() {
    let kind = Kind::of(new_database());
    let nodes: [Node; 3] = Node::open_several(&kind).await;
    assert!(nodes.iter().all(|node| node.epoch() == nodes[0].epoch()), "they hold one generation");
    let writers = (0..12_usize).map(|writer| {
        let store = nodes[writer % 3].store.clone();
        async move {
            let mut own = Vec::new();
            for n in 0..40 {
                // Batches of several rooms, in different orders.
                let rooms = if writer % 2 == 0 { ["a", "b", "c"] } else { ["c", "a", "b"] };
                let batch = rooms
                    .map(|name| if n % 4 == 0 { keyed(name, &format!("{writer}-{n}")) } else { message(name, "1") });
                let appended = deadline("the appends", store.append(batch.into())).await.expect("they are kept");
                let number = |appended: &Appended| match appended {
                    Appended::New { position, .. } => position.number,
                    other @ (Appended::Known { .. } | Appended::KeyReused | Appended::Refused(_)) => {
                        panic!("{other:?}")
                    }
                };
                own.push((number(&appended[0]), number(&appended[1]), number(&appended[2]), writer % 2));
            }
            assert!(own.is_sorted());
            own
        }
    });
    let written: Vec<_> = join_all(writers).await.into_iter().flatten().collect();
    let expected: Vec<u64> = (1..=480).collect();
    for place in 0..3 {
        let mut all: Vec<_> = written
            .iter()
            .map(|(x, y, z, order)| if *order == 0 { [*x, *y, *z][place] } else { [*y, *z, *x][place] })
            .collect();
        all.sort_unstable();
        assert_eq!(all, expected);
    }
    for name in ["a", "b", "c"] {
        assert_eq!(nodes[1].store.mailbox(&room(name)).await.unwrap().unwrap().last, 480);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_key_at_two_nodes_at_once_is_stored_once() {
    let kind = Kind::of(new_database());
    let nodes: [Node; 2] = Node::open_several(&kind).await;
    let pair = async |n: usize| {
        let (name, key) = (format!("user:u{}", n % 50), format!("k{n}"));
        let (first, second) = (keyed(&name, &key), keyed(&name, &key));
        let both = join(append(&nodes[n % 2].store, first.clone()), append(&nodes[(n + 1) % 2].store, second.clone()));
        let (known, at, id) = match deadline("the appends", both).await {
            (Ok(Appended::New { position, .. }), Ok(known)) => (known, position, first.id),
            (Ok(known), Ok(Appended::New { position, .. })) => (known, position, second.id),
            other => panic!("{other:?}"),
        };
        assert_eq!(known, Appended::Known { position: at, id });
    };
    // Thirty pairs at a time, so that batches of both nodes overlap in different orders.
    for round in 0..10 {
        join_all((0..30).map(|n| pair(round * 30 + n))).await;
    }
    for n in 0..50 {
        let there: Vec<_> = texts(&nodes[0].store, &format!("user:u{n}"), 0).await;
        let numbers: Vec<_> = there.into_iter().map(|(number, _)| number).collect();
        assert_eq!(numbers, (1..=6).collect::<Vec<_>>(), "no position is left out");
    }
}

#[tokio::test]
async fn what_meets_the_transactions_of_others_each_time_fails_alone() {
    let kind = Kind::of(new_database());
    let [node]: [Node; 1] = Node::open_several(&kind).await;
    position(&node.store, message("a", "1")).await;
    let team = room("a");
    let user = UserId::new("42").unwrap();
    let mut statuses = node.store.watch_status();
    statuses.mark_unchanged();
    // As if other nodes had written to the room b, and marked messages as read, at the same time.
    let conflict = "CREATE SEQUENCE tries; CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS \
                    $$ BEGIN PERFORM nextval('tries'); RAISE EXCEPTION 'met' USING ERRCODE = '40001'; END $$";
    execute(&kind.url, conflict);
    let trigger = "CREATE TRIGGER meets BEFORE INSERT OR UPDATE ON";
    execute(&kind.url, &format!("{trigger} messages FOR EACH ROW WHEN (NEW.room = 'b') EXECUTE FUNCTION conflict()"));
    execute(&kind.url, &format!("{trigger} delivered_marks FOR EACH ROW EXECUTE FUNCTION conflict()"));
    assert!(append(&node.store, message("b", "1")).await.is_err());
    execute(&kind.url, "DO $$ BEGIN ASSERT (SELECT last_value FROM tries) = 5, 'it is tried five times'; END $$");
    assert_eq!(position(&node.store, message("a", "2")).await, 2);
    let reports = node.store.watermark_reports(&user, node.store.incarnation());
    reports.note_in_flight(1, false);
    reports.note_proven(1);
    assert!(deadline("the watermarks", node.store.write_watermarks()).await.is_err());
    assert_eq!(node.store.mailbox(&team).await.unwrap().unwrap().last, 2, "it is read");
    assert!(!statuses.has_changed().unwrap(), "the store serves all the time");
    execute(&kind.url, "DROP FUNCTION conflict CASCADE");
    assert_eq!(position(&node.store, message("b", "1")).await, 1);
    deadline("the watermarks", node.store.write_watermarks()).await.expect("they are written");
}

#[tokio::test]
async fn a_batch_with_repetitions_of_another_nodes_emits_leaves_no_hole() {
    let kind = Kind::of(new_database());
    let [one, other]: [Node; 2] = Node::open_several(&kind).await;
    position(&one.store, keyed("a", "k1")).await;
    position(&one.store, keyed("b", "k2")).await;
    let batch = vec![message("a", "2"), keyed("a", "k1"), keyed("b", "k2"), keyed("a", "k3"), message("c", "1")];
    let numbers = other.store.append(batch).await.unwrap().into_iter().map(|appended| match appended {
        Appended::New { position, .. } => (position.number, true),
        Appended::Known { position, .. } => (position.number, false),
        Appended::KeyReused | Appended::Refused(_) => panic!("nothing else was asked for"),
    });
    assert_eq!(numbers.collect::<Vec<_>>(), [(2, true), (1, false), (1, false), (3, true), (1, true)]);
    assert_eq!(position(&one.store, message("a", "4")).await, 4);
    assert_eq!(position(&one.store, message("b", "2")).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn marks_and_deletions_of_two_nodes_at_once_are_all_made() {
    let kind = Kind::of(new_database());
    let nodes: [Node; 2] = Node::open_several(&kind).await;
    let mut ids = Vec::new();
    for n in 0..40 {
        let message = NewMessage { except_users: Vec::new(), ..message("team:1", &n.to_string()) };
        ids.push(message.id);
        position(&nodes[n % 2].store, message).await;
    }
    let emptied = room("team:2");
    let (team, users) = (room("team:1"), ["1", "2", "3"].map(|user| UserId::new(user).unwrap()));
    // Both nodes mark the same messages of the same users, in opposite orders.
    let at = |node: usize, n: usize| (&nodes[node].store, if node == 0 { n } else { 39 - n });
    let places = (0..40).flat_map(|n| [at(0, n), at(1, n)]);
    let marks = places.flat_map(|place| users.iter().map(move |user| (place, user))).map(|((store, n), user)| {
        let which = if n % 10 == 5 { Which::UpTo(n as u64 / 2) } else { Which::Message(ids[n]) };
        store.mark_read(&team, user, which)
    });
    let deletions = (0..20).map(|n| nodes[n % 2].store.delete(&emptied, &ids[n..]));
    let emits = (0..50).map(|n| position(&nodes[n % 2].store, message("team:3", "1")));
    let (marked, deleted, _) =
        deadline("all", async { tokio::join!(join_all(marks), join_all(deletions), join_all(emits)) }).await;
    assert!(marked.into_iter().all(|marked| marked.is_ok_and(|marked| marked.is_some())));
    assert!(deleted.into_iter().all(|deleted| deleted.is_ok()));
    // Of those that were not marked by themselves, 6 and 16 are below the mark of 17.
    for node in &nodes {
        assert_eq!(node.store.count_unread_of(&team, &users).await.unwrap(), [2; 3]);
    }
    for (store, which) in [(&nodes[0].store, Which::UpTo(30)), (&nodes[1].store, Which::UpTo(20))] {
        store.mark_read(&team, &users[0], which).await.unwrap();
    }
    let unread = nodes[1].store.count_unread_up_to(&team, &users[..1], 30).await.unwrap();
    assert_eq!(unread, [0], "a mark never goes back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_nodes_that_sweep_at_once_take_away_what_is_too_old_and_refuse_nothing() {
    let (kind, clock) = (Kind::of(new_database()), Clock::movable());
    let stores = [(); 2]
        .map(|()| Store::open(&kind.config(), Sharing::Cluster, clock.clone(), &Lifecycle::new()).expect("it opens"));
    let old = (0..800).map(|n| match n % 2 {
        0 => NewMessage { ttl: Some(Duration::from_mins(1)), ..message(&format!("team:{}", n % 7), "1") },
        _ => keyed(&format!("team:{}", n % 7), &n.to_string()),
    });
    deadline("the appends", stores[0].append(old.collect())).await.expect("they are kept");
    clock.advance(Duration::from_hours(31 * 24));
    let emits = (0..50).map(|n| position(&stores[n % 2], message("team:1", "1")));
    let sweeps = join_all((0..6).map(|n| stores[n % 2].sweep()));
    let (swept, _) = deadline("the sweeps", join(sweeps, join_all(emits))).await;
    assert!(swept.iter().all(Result::is_ok), "{swept:?}");
    for n in 0..7 {
        let left = texts(&stores[1], &format!("team:{n}"), 0).await;
        assert_eq!(left.len(), if n == 1 { 50 } else { 0 });
    }
    assert_eq!(count(&kind.url, "SELECT COUNT(*) FROM messages"), 50);
    assert_eq!(count(&kind.url, "SELECT COUNT(*) FROM emits"), 0);
}

#[tokio::test]
async fn one_of_two_nodes_sweeps_by_itself() {
    let (kind, clock) = (Kind::of(new_database()), Clock::movable());
    let stores = [(); 2]
        .map(|()| Store::open(&kind.config(), Sharing::Cluster, clock.clone(), &Lifecycle::new()).expect("it opens"));
    position(&stores[0], NewMessage { ttl: Some(Duration::from_mins(1)), ..message("a", "1") }).await;
    clock.advance(Duration::from_mins(2));
    let is_swept = {
        let url = kind.url.clone();
        move || while count(&url, "SELECT COUNT(*) FROM messages WHERE PG_SLEEP(0.1) IS NOT NULL") > 0 {}
    };
    // It happens every ten seconds.
    let swept = tokio::time::timeout(Duration::from_mins(1), tokio::task::spawn_blocking(is_swept));
    swept.await.expect("a sweep comes").unwrap();
}

#[tokio::test]
async fn a_process_that_is_alone_waits_for_nodes_and_nodes_wait_for_it() {
    let kind = Kind::of(new_database());
    let node = Node::open(&kind).await;
    let before = append_in_the_end(&node.store, &message("a", "1")).await;
    let alone = open(&kind, &Clock::system());
    wait_for(&alone, Status::HeldByAnother).await;
    assert!(!begin_new_epoch(&kind.config(), &Clock::system()).await.unwrap(), "it is refused as well");
    assert!(append(&alone, message("a", "2")).await.is_err());
    node.store.close();
    wait_for(&alone, Status::Serving).await;
    assert_eq!(position(&alone, message("a", "2")).await, 2);
    assert_ne!(alone.epoch(), Some(before.epoch.clone()));
    assert!(alone.stands(&room("a"), &before).await.unwrap());
    let sharing = Store::open(&kind.config(), Sharing::Cluster, Clock::system(), &Lifecycle::new()).unwrap();
    wait_for(&sharing, Status::HeldByAnother).await;
    alone.close();
    wait_for(&sharing, Status::Serving).await;
    assert_eq!(position(&sharing, message("a", "3")).await, 3);
    assert!(sharing.stands(&room("a"), &before).await.unwrap());
}

#[tokio::test]
async fn what_a_killed_node_has_locked_is_free_and_others_write_without_waiting_for_its_lease() {
    let kind = Kind::of(new_database());
    let node = Node::open(&kind).await;
    let epoch = node.epoch();
    position(&node.store, message("a", "1")).await;
    // As a node in the middle of a transaction.
    let killed = OpenTransaction::begin(
        &kind.url,
        "LOCK TABLE store IN ROW EXCLUSIVE MODE; UPDATE mailboxes SET last = last + 1",
    );
    assert_eq!(position(&node.store, message("b", "1")).await, 1, "other rooms are not locked");
    let waiting = position(&node.store, message("a", "2"));
    let kill = async {
        waits_for_lock(&kind.url).await;
        drop(killed);
    };
    assert_eq!(join(waiting, kill).await.0, 2);
    assert_eq!(node.epoch(), epoch);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_node_that_stands_still_has_locked_is_free_soon_and_its_own_emit_is_stored_when_it_goes_on() {
    let direct = Kind::of(new_database());
    let proxy = SlowProxy::start(&direct.url, Duration::ZERO).await;
    let [standing, other] = [Node::open(&Kind::of(proxy.url().into())).await, Node::open(&direct).await];
    let epoch = standing.epoch();
    for (round, at) in ["COMMIT", "INSERT INTO emits"].into_iter().enumerate() {
        let first = 2 * round as u64 + 1;
        // As if the node stood still between two statements of a transaction.
        let hangs = proxy.hang_connection_at(&["\"held\"", at]);
        let held = NewMessage { idempotency: keyed("a", at).idempotency, ..message("a", "\"held\"") };
        let store = standing.store.clone();
        let held = in_background(async move { append(&store, held).await });
        deadline("the statement", hangs).await;
        // Sooner than the statement that waits for the lock would end by itself.
        assert_eq!(position(&other.store, message("a", "1")).await, first);
        proxy.go_on();
        let held = deadline("the answer", held).await.expect("it does not panic");
        assert!(matches!(&held, Ok(Appended::New { position, .. }) if position.number == first + 1), "{held:?}");
    }
    assert_eq!((standing.epoch(), other.epoch()), (epoch.clone(), epoch));
    let there = texts(&other.store, "a", 0).await;
    assert_eq!(there.iter().map(|(_, json)| &**json).collect::<Vec<_>>(), ["1", "\"held\"", "1", "\"held\""]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_cut_before_it_was_committed_is_written_on_a_new_connection() {
    const ROUNDS: u64 = 30;
    let kind = Kind::of(new_database());
    let node = Node::open(&kind).await;
    let (reader, room) = (UserId::new("8").expect("a name"), room("a"));
    for round in 1..=ROUNDS {
        execute(&kind.url, TERMINATE);
        assert_eq!(position(&node.store, message("a", "1")).await, round);
        if round % 10 == 0 {
            execute(&kind.url, TERMINATE);
            let read = deadline("the mark", node.store.mark_read(&room, &reader, Which::UpTo(round))).await;
            assert_eq!(read.expect("it is noted"), Some(true));
            execute(&kind.url, TERMINATE);
            let deleted = deadline("the deletion", node.store.delete_to(&room, round)).await;
            assert_eq!(deleted.expect("they are deleted"), 10);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_emit_whose_commit_was_not_answered_is_not_stored_again() {
    let direct = Kind::of(new_database());
    let proxy = SlowProxy::start(&direct.url, Duration::ZERO).await;
    let [node, other] = [Node::open(&Kind::of(proxy.url().into())).await, Node::open(&direct).await];
    let cut = proxy.cut_after(&["\"once\"", "COMMIT"]);
    let (answer, ()) = deadline("the answer", join(append(&node.store, message("a", "\"once\"")), cut)).await;
    assert!(matches!(answer, Err(bugle::store::Error::Unavailable(_))), "it may be stored: {answer:?}");
    let last = deadline("the next one", append_in_the_end(&node.store, &message("a", "2"))).await;
    let there = texts(&other.store, "a", 0).await;
    assert_eq!((last.number, there.iter().map(|(_, json)| &**json).collect::<Vec<_>>()), (2, vec!["\"once\"", "2"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_emit_whose_connection_ends_as_the_lease_is_renewed_is_stored() {
    let kind = Kind::of(new_database());
    let node = Node::open(&kind).await;
    execute(&kind.url, CUT_FIRST_RENEWAL);
    let appends = async {
        // They keep coming, so that the next renewal, which is due once a second, precedes one of them.
        while count(&kind.url, "SELECT COUNT(*) FROM cuts WHERE is_called") == 0 {
            position(&node.store, message("a", "1")).await;
        }
    };
    deadline("the renewal", appends).await;
}

/// Ends the connection that renews the lease. A sequence counts although the transaction is rolled back.
const CUT_FIRST_RENEWAL: &str = "CREATE SEQUENCE cuts; \
    CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
    IF nextval('cuts') = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF; RETURN NEW; END $$; \
    CREATE TRIGGER cut BEFORE UPDATE ON store FOR EACH ROW EXECUTE FUNCTION cut()";
/// Ends all connections to a database.
const TERMINATE: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = CURRENT_DATABASE() \
                         AND pid <> pg_backend_pid()";
