//! Direct messages in the store, over each database.

use std::{sync::Arc, time::Duration};

use bugle::clock::Clock;
use bugle::lifecycle::Lifecycle;
use bugle::message::{DirectMessage, EventName, MessageId, Payload, RoomName, Topic, UserId};
use bugle::store::{
    Appended, Before, DirectPage, DirectRefusal, DirectRetention, IdempotencyKey, NewDirect, NewMessage, Of, Render,
    Rule, Sharing, Store, Window,
};
use futures_util::future::join_all;

use crate::harness::{count, deadline, new_database, no_connections};
use crate::store::{Kind, kinds, message, position};

const DAY: Duration = Duration::from_hours(24);
pub(crate) const ALL: DirectPage = DirectPage { limit: 1_000, offset: 0, before: Before::Now };

pub(crate) fn open(kind: &Kind, clock: &Clock, sharing: Sharing, max_messages: u32) -> Store {
    let retention = DirectRetention { max_age: 10 * DAY, max_messages };
    Store::open_for(&kind.config(), sharing, Some(retention), clock.clone(), &Lifecycle::new())
        .expect("the store opens")
}

pub(crate) fn user(id: &str) -> UserId {
    UserId::new(id).expect("a good id")
}

/// The two entries of a message.
fn entries(from: &str, to: &str, text: &str, key: Option<&str>) -> Vec<NewMessage> {
    let render = |message: &DirectMessage| Payload::json(&format!("{:?}", message.content)).expect("JSON");
    let new = NewDirect {
        sender: user(from),
        receiver: user(to),
        content: text.into(),
        topic: Topic { transaction: Some("t".into()), listing: None },
        needs_grant: false,
        render: Render(Arc::new(render)),
    };
    entries_of(new, key)
}

fn entries_of(new: NewDirect, key: Option<&str>) -> Vec<NewMessage> {
    let id = MessageId::at(Clock::system().now());
    let rooms = [&new.receiver, &new.sender].map(RoomName::of_user);
    let caller: Arc<str> = format!("{} {}", new.sender, new.receiver).into();
    let mut request_hash = [0; 32];
    request_hash[..new.content.len().min(32)].copy_from_slice(&new.content.as_bytes()[..new.content.len().min(32)]);
    let direct = Some(Arc::new(new));
    let entry = |room| NewMessage {
        room,
        id,
        event: EventName::new("message:received").expect("a good name"),
        payload: Payload::None,
        except_users: Vec::new(),
        ttl: None,
        idempotency: key.map(|key| IdempotencyKey { caller: caller.clone(), key: key.into(), request_hash }),
        direct: direct.clone(),
    };
    rooms.map(entry).into()
}

pub(crate) async fn send(store: &Store, from: &str, to: &str, text: &str) -> Arc<DirectMessage> {
    let appended = deadline("the append", store.append(entries(from, to, text, None))).await.expect("it is kept");
    let Appended::New { direct: Some(message), .. } = &appended[0] else { panic!("{appended:?}") };
    message.clone()
}

async fn texts(store: &Store, one: &str, other: &str) -> Vec<String> {
    let listed = store.direct_messages(&user(one), &Of::Peer(user(other)), ALL).await.expect("they can be read");
    listed.expect("there is no message to be before").iter().rev().map(|message| message.content.to_string()).collect()
}

pub(crate) async fn mailbox(store: &Store, id: &str) -> Vec<String> {
    let (listed, _) = store
        .list(&RoomName::of_user(&user(id)), Window { after: 0, max: 10_000 }, None)
        .await
        .expect("it can be read");
    let text = |payload: &Payload| match payload {
        Payload::Json(raw) => serde_json::from_str::<String>(raw.get()).expect("a text"),
        Payload::None | Payload::Binary(_) => panic!("{payload:?}"),
    };
    listed.iter().map(|listed| text(&listed.message.payload)).collect()
}

pub(crate) async fn unread(store: &Store, id: &str) -> (u64, u64) {
    let mailbox = store.count_unread(&RoomName::of_user(&user(id)), &user(id)).await.expect("it can be counted");
    (store.count_unread_direct(&user(id)).await.expect("it can be counted"), mailbox)
}

#[tokio::test]
async fn messages_of_a_batch_have_later_times_each_and_are_in_both_mailboxes() {
    for kind in kinds() {
        let store = open(&kind, &Clock::system(), Sharing::Single, 1_000);
        let batch = (0..40).flat_map(|n| match n % 4 {
            0 | 1 => entries("a", "b", &n.to_string(), None),
            2 => entries("b", "a", &n.to_string(), None),
            _ => entries("a", "c", &n.to_string(), None),
        });
        deadline("the append", store.append(batch.collect())).await.expect("they are kept");
        send(&store, "b", "a", "40").await;
        let expected: Vec<_> = (0..=40).filter(|n| n % 4 != 3).map(|n| n.to_string()).collect();
        assert_eq!(
            (texts(&store, "a", "b").await, texts(&store, "b", "a").await),
            (expected.clone(), expected.clone())
        );
        let listed = store.direct_messages(&user("a"), &Of::Peer(user("b")), ALL).await.unwrap().unwrap();
        assert!(listed.is_sorted_by(|newer, older| newer.created_at_ms > older.created_at_ms), "{listed:?}");
        assert_eq!(mailbox(&store, "b").await, expected);
        assert_eq!(mailbox(&store, "a").await, (0..=40).map(|n| n.to_string()).collect::<Vec<_>>());
        assert_eq!([unread(&store, "a").await, unread(&store, "b").await], [(11, 11), (20, 20)]);
        let conversations = store.conversations(&user("a"), 10, Before::Now).await.unwrap().unwrap();
        let peers: Vec<_> =
            conversations.iter().map(|one| (one.peer.as_str(), &*one.last.content, one.unread)).collect();
        assert_eq!(peers, [("b", "40", 11), ("c", "39", 0)]);
    }
}

#[tokio::test]
async fn a_store_without_direct_messages_has_no_table_of_them_until_they_are_enabled() {
    const TABLES: &str = "SELECT COUNT(*) FROM information_schema.tables \
        WHERE table_name IN ('direct_messages', 'conversations', 'conversation_rules')";
    let url = new_database();
    let kind = Kind::of(url.clone());
    let before = crate::store::open(&kind, &Clock::system());
    position(&before, message("user:42", "1")).await;
    assert_eq!(count(&url, TABLES), 0);
    before.close();
    no_connections(&url).await;
    let store = open(&kind, &Clock::system(), Sharing::Single, 1_000);
    send(&store, "a", "b", "1").await;
    assert_eq!(count(&url, TABLES), 3);
}

#[tokio::test]
async fn a_repeated_message_is_neither_stored_nor_counted_again() {
    for kind in kinds() {
        let clock = Clock::movable();
        let store = open(&kind, &clock, Sharing::Single, 1_000);
        let both = [entries("a", "b", "1", Some("k")), entries("a", "b", "1", Some("k"))].concat();
        let appended = store.append(both).await.unwrap();
        assert!(matches!(&appended[..2], [Appended::New { .. }, Appended::New { .. }]), "{appended:?}");
        assert!(matches!(&appended[2..], [Appended::Known { .. }, Appended::Known { .. }]), "{appended:?}");
        clock.advance(Duration::from_hours(23));
        let reused = store.append(entries("a", "b", "2", Some("k"))).await.unwrap();
        assert!(reused.iter().all(|appended| *appended == Appended::KeyReused), "{reused:?}");
        send(&store, "a", "b", "3").await;
        assert_eq!(
            (texts(&store, "b", "a").await, mailbox(&store, "b").await.len()),
            (vec!["1".into(), "3".into()], 2)
        );
        assert_eq!(unread(&store, "b").await, (2, 2));
    }
}

#[tokio::test]
async fn rules_hold_within_the_transaction() {
    for kind in kinds() {
        let clock = Clock::movable();
        let store = open(&kind, &clock, Sharing::Single, 1_000);
        let refusal = async |from: &str, to: &str, needs_grant: bool| {
            let mut both = entries(from, to, "x", None);
            let new = NewDirect { needs_grant, ..NewDirect::clone(both[0].direct.as_deref().unwrap()) };
            both = entries_of(new, None);
            match store.append(both).await.unwrap()[..] {
                [Appended::Refused(one), Appended::Refused(other)] if one == other => Some(one),
                [Appended::New { .. }, Appended::New { .. }] => None,
                ref other => panic!("{other:?}"),
            }
        };
        assert_eq!(refusal("a", "b", false).await, None);
        assert!(store.set_rule(&user("b"), &user("a"), Rule::Blocked(true)).await.unwrap());
        assert_eq!(refusal("a", "b", false).await, Some(DirectRefusal::Blocked));
        assert_eq!(refusal("b", "a", false).await, Some(DirectRefusal::HasBlocked));
        assert_eq!(store.blocked_by(&user("b")).await.unwrap(), [user("a")]);
        assert!(store.set_rule(&user("b"), &user("a"), Rule::Blocked(false)).await.unwrap());
        assert_eq!(refusal("a", "b", true).await, Some(DirectRefusal::NotGranted));
        assert!(store.set_rule(&user("b"), &user("a"), Rule::Granted(Some(DAY))).await.unwrap());
        assert_eq!((refusal("a", "b", true).await, refusal("b", "a", true).await), (None, None));
        clock.advance(2 * DAY);
        assert_eq!(refusal("a", "b", true).await, Some(DirectRefusal::NotGranted));
        assert_eq!(texts(&store, "a", "b").await.len(), 3, "what was refused is not kept");
        assert_eq!(mailbox(&store, "a").await.len(), 3);
    }
}

#[tokio::test]
async fn old_messages_go_and_those_past_the_number_of_a_conversation() {
    for kind in kinds() {
        let clock = Clock::movable();
        let store = open(&kind, &clock, Sharing::Single, 3);
        for n in 1..=5 {
            send(&store, "a", "b", &n.to_string()).await;
        }
        deadline("the sweep", store.sweep()).await.unwrap();
        assert_eq!(
            (texts(&store, "b", "a").await, unread(&store, "b").await),
            (vec!["3".into(), "4".into(), "5".into()], (3, 3))
        );
        clock.advance(6 * DAY);
        send(&store, "b", "a", "6").await;
        clock.advance(6 * DAY);
        deadline("the sweep", store.sweep()).await.unwrap();
        assert_eq!((texts(&store, "a", "b").await, unread(&store, "b").await), (vec!["6".into()], (0, 0)));
        clock.advance(6 * DAY);
        deadline("the sweep", store.sweep()).await.unwrap();
        assert_eq!(store.conversations(&user("a"), 10, Before::Now).await.unwrap().unwrap(), []);
        assert_eq!((mailbox(&store, "a").await.len(), unread(&store, "a").await), (0, (0, 0)));
    }
}

#[tokio::test]
async fn an_erased_user_leaves_nothing_behind() {
    for kind in kinds() {
        let store = open(&kind, &Clock::system(), Sharing::Single, 1_000);
        for n in 0..250 {
            let batch = [entries("a", "b", &n.to_string(), None), entries("c", "a", &n.to_string(), None)];
            store.append(batch.concat()).await.unwrap();
        }
        send(&store, "b", "c", "stays").await;
        store.set_rule(&user("b"), &user("a"), Rule::Blocked(true)).await.unwrap();
        store.set_rule(&user("a"), &user("c"), Rule::Granted(Some(DAY))).await.unwrap();
        assert_eq!(deadline("the erasure", store.erase_conversations(&user("a"))).await.unwrap().0, 500);
        for id in ["a", "b", "c"] {
            let expected = usize::from(id != "a");
            assert_eq!(store.conversations(&user(id), 10, Before::Now).await.unwrap().unwrap().len(), expected, "{id}");
            assert_eq!(mailbox(&store, id).await.len(), expected, "{id}");
        }
        assert_eq!(
            [unread(&store, "a").await, unread(&store, "b").await, unread(&store, "c").await],
            [(0, 0), (0, 0), (1, 1)]
        );
        assert_eq!(store.blocked_by(&user("b")).await.unwrap(), []);
    }
}

#[tokio::test]
async fn nodes_that_store_at_one_time_keep_one_order_in_both_mailboxes_and_lists() {
    let kind = Kind::of(new_database());
    let stores = [(); 3].map(|()| open(&kind, &Clock::system(), Sharing::Cluster, 1_000));
    let writers = stores.iter().enumerate().map(|(node, store)| async move {
        for n in 0..40 {
            let (from, to) = if (node + n) % 2 == 0 { ("a", "b") } else { ("b", "a") };
            send(store, from, to, &format!("{node}-{n}")).await;
        }
    });
    join_all(writers).await;
    let listed = texts(&stores[0], "a", "b").await;
    assert_eq!(listed.len(), 120);
    assert_eq!((mailbox(&stores[1], "a").await, mailbox(&stores[2], "b").await), (listed.clone(), listed));
}
