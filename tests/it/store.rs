//! The store's contract, over each database.

use std::{sync::Arc, time::Duration};

use bugle::clock::Clock;
use bugle::lifecycle::Lifecycle;
use bugle::message::{EventName, MessageId, Payload, Position, RoomName, UserId};
use bugle::store::{self, Appended, Config, IdempotencyKey, NewMessage, Reader, Sharing, Status, Store, Which, Window};

use crate::harness::{deadline, new_database, no_connections};

const DAY: Duration = Duration::from_hours(24);

pub(crate) struct Kind {
    pub(crate) url: String,
    _directory: Option<Directory>,
}

impl Kind {
    pub(crate) fn of(url: String) -> Self {
        Self { url, _directory: None }
    }

    pub(crate) fn config(&self) -> Config {
        Config { url: self.url.clone().into(), max_age: 30 * DAY, max_messages: 1_000 }
    }
}

struct Directory(std::path::PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn kinds() -> [Kind; 3] {
    let directory = std::env::temp_dir().join(format!("bugle-store-{}", MessageId::at(Clock::system().now())));
    std::fs::create_dir_all(&directory).expect("a directory can be made");
    [
        Kind { url: "sqlite::memory:".into(), _directory: None },
        Kind { url: format!("sqlite:{}/bugle.db", directory.display()), _directory: Some(Directory(directory)) },
        Kind { url: new_database(), _directory: None },
    ]
}

pub(crate) fn open(kind: &Kind, clock: &Clock) -> Store {
    open_for(kind, clock, 1_000)
}

pub(crate) fn open_for(kind: &Kind, clock: &Clock, max_messages: u32) -> Store {
    open_with(kind, clock, max_messages, &Lifecycle::new())
}

pub(crate) fn open_with(kind: &Kind, clock: &Clock, max_messages: u32, lifecycle: &Lifecycle) -> Store {
    let config = Config { max_messages, ..kind.config() };
    Store::open(&config, Sharing::Single, clock.clone(), lifecycle).expect("the store opens")
}

pub(crate) async fn wait_for(store: &Store, status: Status) {
    let mut statuses = store.watch_status();
    deadline("the store's status", statuses.wait_for(|now| *now == status)).await.expect("it is open");
}

/// The store as another process opens it once this one has stopped.
pub(crate) async fn reopen(store: Store, kind: &Kind, clock: &Clock) -> Store {
    store.close();
    let store = open(kind, clock);
    wait_for(&store, Status::Serving).await;
    store
}

pub(crate) fn room(name: &str) -> RoomName {
    RoomName::new(name).expect("a name")
}

pub(crate) fn message(room_name: &str, json: &str) -> NewMessage {
    NewMessage {
        room: room(room_name),
        id: MessageId::at(Clock::system().now()),
        event: EventName::new("e").expect("a name"),
        payload: Payload::json(json).expect("JSON"),
        except_users: vec![UserId::new("7").expect("a name")],
        ttl: None,
        idempotency: None,
        direct: None,
    }
}

pub(crate) async fn append(store: &Store, message: NewMessage) -> Result<Appended, bugle::store::Error> {
    Ok(store.append(vec![message]).await?.remove(0))
}

pub(crate) async fn position(store: &Store, message: NewMessage) -> u64 {
    match deadline("the append", append(store, message)).await.expect("it is kept") {
        Appended::New { position, .. } => position.number,
        known @ (Appended::Known { .. } | Appended::KeyReused | Appended::Refused(_)) => panic!("{known:?}"),
    }
}

pub(crate) async fn texts(store: &Store, name: &str, after: u64) -> Vec<(u64, String)> {
    let (listed, more) = store.list(&room(name), Window { after, max: 10_000 }, None).await.expect("they can be read");
    assert!(!more);
    let kept: Vec<_> = listed.into_iter().map(|listed| listed.message).collect();
    let text = |payload: &Payload| match payload {
        Payload::Json(raw) => raw.get().to_owned(),
        other @ (Payload::None | Payload::Binary(_)) => format!("{other:?}"),
    };
    kept.iter().map(|kept| (kept.number, text(&kept.payload))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn positions_are_dense_under_many_writers_and_in_their_order() {
    for kind in kinds() {
        let store = open(&kind, &Clock::system());
        let writers = (0..20_u64).map(|writer| {
            let store = store.clone();
            async move {
                let mut own = Vec::new();
                for n in 0..50 {
                    own.push((position(&store, message("shared", &format!("[{writer},{n}]"))).await, writer * 100 + n));
                }
                own
            }
        });
        let written = futures_util::future::join_all(writers).await;
        for own in &written {
            assert!(own.is_sorted(), "{}", kind.url);
        }
        let mut all: Vec<_> = written.into_iter().flatten().map(|(position, _)| position).collect();
        all.sort_unstable();
        assert_eq!(all, (1..=1_000).collect::<Vec<_>>(), "{}", kind.url);
        let mailbox = store.mailbox(&room("shared")).await.unwrap().expect("there is one");
        assert_eq!((mailbox.last, mailbox.trimmed), (1_000, 0));
        assert_eq!(store.mailbox(&room("other")).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_closed_store_refuses_reads_and_has_no_connection() {
    for kind in kinds() {
        let lifecycle = Lifecycle::new();
        let store = open_with(&kind, &Clock::system(), 1_000, &lifecycle);
        position(&store, message("a", "1")).await;
        assert_eq!(texts(&store, "a", 0).await.len(), 1);
        lifecycle.stop();
        store.close();
        deadline("the store to end", lifecycle.ended()).await;
        let read = store.list(&room("a"), Window { after: 0, max: 1 }, None).await;
        assert!(matches!(read, Err(store::Error::Closed)), "{}", kind.url);
        if kind.url.starts_with("postgres:") {
            no_connections(&kind.url).await;
        }
    }
}

#[tokio::test]
async fn what_was_kept_is_there_after_a_restart_to_the_letter_and_the_sequence_goes_on() {
    for kind in kinds().into_iter().skip(1) {
        let store = open(&kind, &Clock::system());
        let first = message("user:42", r#"{"b":1.10,"a":"é\u0000"}"#);
        assert_eq!(position(&store, first.clone()).await, 1);
        position(&store, NewMessage { payload: Payload::Binary(vec![0, 255].into()), ..message("user:42", "1") }).await;
        position(&store, NewMessage { payload: Payload::None, ..message("user:42", "1") }).await;
        let seen = store.position(3).await.unwrap();
        let store = reopen(store, &kind, &Clock::system()).await;
        let kept = store.list(&room("user:42"), Window { after: 0, max: 10 }, None).await.unwrap().0;
        let kept: Vec<_> = kept.into_iter().map(|listed| listed.message).collect();
        assert_eq!(kept[0].payload, first.payload);
        assert_eq!((kept[0].id, &kept[0].except_users), (first.id, &first.except_users));
        assert_eq!(kept[1].payload, Payload::Binary(vec![0, 255].into()));
        assert_eq!(kept[2].payload, Payload::None);
        assert_eq!(position(&store, message("user:42", "4")).await, 4);
        assert!(store.stands(&room("user:42"), &seen).await.unwrap(), "{}", kind.url);
    }
}

#[tokio::test]
async fn a_repetition_is_known_for_five_minutes_in_one_batch_and_after_a_restart() {
    for kind in kinds() {
        let clock = Clock::movable();
        let store = open(&kind, &clock);
        let once = |asked: u8| {
            Some(IdempotencyKey { caller: "orders".into(), key: "k\u{0}".into(), request_hash: [asked; 32] })
        };
        let keep = |asked: u8| NewMessage { idempotency: once(asked), ..message("user:42", "1") };
        let first = keep(1);
        let both = futures_util::future::join(append(&store, first.clone()), append(&store, keep(1))).await;
        let (Appended::New { position: at, .. }, known) = (both.0.unwrap(), both.1.unwrap()) else { panic!() };
        assert_eq!(known, Appended::Known { position: at.clone(), id: first.id }, "{}", kind.url);
        let store = if kind.url.contains("memory") { store } else { reopen(store, &kind, &clock).await };
        let at = Position { epoch: store.position(0).await.unwrap().epoch, ..at };
        assert_eq!(append(&store, keep(1)).await.unwrap(), Appended::Known { position: at, id: first.id });
        assert_eq!(append(&store, keep(2)).await.unwrap(), Appended::KeyReused);
        let elsewhere = NewMessage { room: room("user:43"), ..keep(2) };
        assert_eq!(position(&store, elsewhere).await, 1);
        clock.advance(Duration::from_secs(301));
        assert_eq!(position(&store, keep(2)).await, 2);
    }
}

#[tokio::test]
async fn what_has_expired_is_neither_given_nor_counted_and_leaves_no_gap_in_the_floor() {
    for kind in kinds() {
        let clock = Clock::movable();
        let store = open(&kind, &clock);
        let user = UserId::new("42").unwrap();
        let short = |json: &str| NewMessage { ttl: Some(DAY), ..message("user:42", json) };
        position(&store, short("1")).await;
        position(&store, message("user:42", "2")).await;
        position(&store, short("3")).await;
        assert_eq!(store.count_unread(&room("user:42"), &user).await.unwrap(), 3);
        clock.advance(7 * DAY);
        assert_eq!(texts(&store, "user:42", 0).await, [(2, "2".to_owned())], "{}", kind.url);
        assert_eq!(store.count_unread(&room("user:42"), &user).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn read_marks_are_each_users_own_and_never_go_back() {
    for kind in kinds() {
        let store = open(&kind, &Clock::system());
        let (one, other) = (UserId::new("1").unwrap(), UserId::new("2").unwrap());
        let admins = room("role:admin");
        let mut ids = Vec::new();
        for n in 0..5 {
            let message = message("role:admin", &n.to_string());
            ids.push(message.id);
            position(&store, message).await;
        }
        let unread = async |user: &UserId| store.count_unread(&admins, user).await.unwrap();
        let read = async |which: Which| store.mark_read(&admins, &one, which).await.unwrap();
        assert_eq!(read(Which::Message(ids[3])).await, Some(true));
        assert_eq!(read(Which::Message(ids[3])).await, Some(false), "again");
        assert_eq!((unread(&one).await, unread(&other).await), (4, 5), "{}", kind.url);
        assert_eq!(read(Which::UpTo(2)).await, Some(true));
        assert_eq!(read(Which::UpTo(1)).await, Some(false), "marks never go back");
        assert_eq!(unread(&one).await, 2);
        let reader = Reader { user: one.clone(), unread_only: true };
        let (left, _) = store.list(&admins, Window { after: 0, max: 9 }, Some(&reader)).await.unwrap();
        assert_eq!(left.iter().map(|listed| listed.message.number).collect::<Vec<_>>(), [3, 5]);
        assert_eq!(read(Which::ALL).await, Some(true));
        position(&store, message("role:admin", "6")).await;
        assert_eq!(unread(&one).await, 1, "what comes later is unread");
        assert_eq!(read(Which::Message(MessageId::at(Clock::system().now()))).await, None);
        assert_eq!(store.delete_to(&admins, 3).await.unwrap(), 3);
        assert_eq!(store.delete(&admins, &[ids[4], ids[0]]).await.unwrap(), 1, "the other one is gone already");
        assert_eq!(unread(&other).await, 2);
    }
}

#[tokio::test]
async fn users_are_counted_together_as_one_by_one() {
    for kind in kinds() {
        let clock = Clock::movable();
        let store = open(&kind, &clock);
        let room = room("role:admin");
        let users: Vec<_> =
            ["1", "2", "3", "7", r#"a","7"#, r"\"].iter().map(|user| UserId::new(user).unwrap()).collect();
        let mut ids = Vec::new();
        for n in 0..20_usize {
            let except_users = users.iter().skip(n % 7).take(2).cloned().collect();
            let ttl = (n % 5 == 0).then_some(DAY);
            let message = NewMessage { except_users, ttl, ..message("role:admin", &n.to_string()) };
            ids.push(message.id);
            position(&store, message).await;
        }
        store.mark_read(&room, &users[0], Which::UpTo(7)).await.unwrap();
        for (index, user) in [(3, 0), (11, 0), (12, 1), (5, 3), (14, 3)] {
            store.mark_read(&room, &users[user], Which::Message(ids[index])).await.unwrap();
        }
        store.delete(&room, &[ids[9], ids[12]]).await.unwrap();
        for after in [Duration::ZERO, 2 * DAY] {
            clock.advance(after);
            let together = store.count_unread_of(&room, &users).await.unwrap();
            for (user, count) in users.iter().zip(together) {
                assert_eq!(store.count_unread(&room, user).await.unwrap(), count, "{user} in {}", kind.url);
                let reader = Reader { user: user.clone(), unread_only: true };
                let (listed, more) = store.list(&room, Window { after: 0, max: 100 }, Some(&reader)).await.unwrap();
                assert_eq!((listed.len() as u64, more), (count, false), "{user} in {}", kind.url);
                assert!(listed.iter().all(|listed| !listed.message.except_users.contains(user)));
                let reader = Reader { unread_only: false, ..reader };
                let (all, _) = store.list(&room, Window { after: 0, max: 100 }, Some(&reader)).await.unwrap();
                let unread = all.iter().filter(|listed| listed.is_read == Some(false)).count();
                assert_eq!(unread as u64, count, "{user} in {}", kind.url);
            }
        }
    }
}

#[tokio::test]
async fn a_list_says_whether_more_follows_and_deleting_up_to_a_position_takes_any_number() {
    for kind in kinds() {
        let store = open_for(&kind, &Clock::system(), 10_000);
        let all = (0..2_500).map(|n| message("many", &n.to_string())).collect();
        deadline("the appends", store.append(all)).await.expect("they are kept");
        let many = room("many");
        let page = async |after, max| store.list(&many, Window { after, max }, None).await.unwrap();
        let (listed, more) = page(2_497, 2).await;
        assert_eq!((listed.len(), more, listed[0].is_read), (2, true, None), "{}", kind.url);
        let (listed, more) = page(2_498, 2).await;
        assert_eq!((listed.len(), more), (2, false));
        assert_eq!(deadline("the deletion", store.delete_to(&many, 2_400)).await.unwrap(), 2_400);
        let (listed, more) = page(0, 1_000).await;
        assert_eq!((listed.len(), listed[0].message.number, more), (100, 2_401, false));
        assert_eq!(store.mailbox(&many).await.unwrap().unwrap().trimmed, 0, "the hole counts as whole");
    }
}

#[tokio::test]
async fn what_is_too_old_or_too_much_is_trimmed_and_the_floor_says_so() {
    for kind in kinds() {
        let clock = Clock::movable();
        let store = open(&kind, &clock);
        for n in 1..=3 {
            position(&store, message("user:42", &n.to_string())).await;
        }
        clock.advance(31 * DAY);
        let messages = (4..=1_010).map(|n| message("user:42", &n.to_string())).collect();
        store.append(messages).await.unwrap();
        let trimmed = async || store.mailbox(&room("user:42")).await.unwrap().expect("there is one").trimmed;
        store.sweep().await.unwrap();
        assert_eq!(trimmed().await, 10, "{}", kind.url);
        let (first, more) = store.list(&room("user:42"), Window { after: 0, max: 1 }, None).await.unwrap();
        assert_eq!((first[0].message.number, more), (11, true));
        let all = texts(&store, "user:42", 0).await;
        assert_eq!((all.len(), &all[999]), (1_000, &(1_010, "1010".to_owned())));
        clock.advance(31 * DAY);
        store.sweep().await.unwrap();
        assert_eq!((trimmed().await, texts(&store, "user:42", 0).await.len()), (1_010, 0));
        assert_eq!(position(&store, message("user:42", "1011")).await, 1_011, "the sequence goes on");
    }
}

#[tokio::test]
async fn a_database_that_is_not_there_refuses_until_it_is() {
    let nobody = Kind { url: "sqlite:/nonexistent/bugle.db".into(), _directory: None };
    let store = open(&nobody, &Clock::system());
    assert!(append(&store, message("a", "1")).await.is_err());
    let directory: Arc<str> =
        format!("{}/bugle-late-{}", std::env::temp_dir().display(), MessageId::at(Clock::system().now())).into();
    let late = Kind { url: format!("sqlite:{directory}/bugle.db"), _directory: Some(Directory((&*directory).into())) };
    let store = open(&late, &Clock::system());
    assert!(append(&store, message("a", "1")).await.is_err());
    std::fs::create_dir_all(&*directory).unwrap();
    wait_for(&store, Status::Serving).await;
    assert_eq!(position(&store, message("a", "1")).await, 1);
}

#[tokio::test]
async fn messages_at_positions_come_in_pages_that_are_bounded_in_number_and_in_bytes() {
    const MIB: usize = 1 << 20;
    for kind in kinds() {
        let store = open(&kind, &Clock::system());
        let mut all = Vec::new();
        for number in 1..=300_u64 {
            let size = if (101..=105).contains(&number) { MIB } else { 1 };
            all.push(message("user:42", &format!("\"{}\"", "x".repeat(size))));
        }
        store.append(all).await.expect("they are kept");
        append(&store, message("user:43", "1")).await.expect("it is kept");
        // Every third one is asked for, and some that were never there.
        let wanted: Vec<_> = (1..=330).filter(|number| number % 3 != 0).collect();
        let (mut rest, mut got, mut pages, mut largest) = (wanted.as_slice(), Vec::new(), 0, 0);
        while !rest.is_empty() {
            let (messages, looked_at) = store.messages_at(&room("user:42"), rest).await.expect("they can be read");
            assert!(looked_at > 0, "{}", kind.url);
            largest = largest.max(messages.iter().map(|message| message.payload.len()).sum());
            got.extend(messages.into_iter().map(|message| message.number));
            rest = &rest[looked_at..];
            pages += 1;
        }
        assert_eq!(got, wanted.into_iter().filter(|number| *number <= 300).collect::<Vec<_>>(), "{}", kind.url);
        assert!(pages < 12 && largest < 3 * MIB, "{pages} pages of up to {largest} bytes");
        assert_eq!(store.messages_at(&room("user:42"), &[]).await.expect("it is nothing"), (Vec::new(), 0));
    }
}
