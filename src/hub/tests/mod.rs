use std::sync::atomic::AtomicBool;

use futures_util::future::join_all;
use parking_lot::Mutex;

use super::{
    fake::{Behaviour, FakeConnection},
    *,
};
use crate::message::{AckOutcome, CloseCode, EventName, Exceptions, Page, Payload};

mod catching_up;
mod modes;

/// A device whose queue holds so many frames.
type Fake = FakeConnection<Device>;

struct Device {
    room: usize,
    /// What the names of the events begin with that it listens for.
    listens_to: &'static str,
    got: Mutex<Vec<String>>,
    modes: Mutex<Vec<WriteMode>>,
    closed: Mutex<Option<CloseReason>>,
    ended: AtomicBool,
}

fn fake(room: usize) -> Arc<Fake> {
    fake_for(room, "")
}

fn fake_for(room: usize, listens_to: &'static str) -> Arc<Fake> {
    let ended = AtomicBool::new(false);
    let (got, modes, closed) = (Mutex::default(), Mutex::default(), Mutex::default());
    Arc::new(Fake::new(Device { room, listens_to, got, modes, closed, ended }))
}

impl Device {
    fn got(&self) -> Vec<String> {
        self.got.lock().clone()
    }

    /// Rejects every frame from now on, as an edge does whose transport has ended. Returns how many it accepted.
    fn end(&self) -> u64 {
        let got = self.got.lock();
        self.ended.store(true, Ordering::SeqCst);
        got.len() as u64
    }
}

impl Behaviour for Device {
    fn listens_to(&self, event: &EventName) -> bool {
        event.as_str().starts_with(self.listens_to)
    }

    fn has_room(&self) -> bool {
        self.got.lock().len() < self.room
    }

    fn backlog(&self) -> u64 {
        self.got.lock().len() as u64
    }

    fn enqueue(&self, frame: &Frame, mode: WriteMode) -> Result<(), QueueError> {
        let mut got = self.got.lock();
        if self.ended.load(Ordering::SeqCst) {
            return Err(QueueError::Ended);
        }
        if got.len() == self.room {
            return Err(QueueError::Full);
        }
        got.push(frame.event.to_string());
        self.modes.lock().push(mode);
        Ok(())
    }

    fn close(&self, reason: &CloseReason) {
        *self.closed.lock() = Some(reason.clone());
    }
}

fn user(id: &str) -> UserId {
    UserId::new(id).unwrap()
}

fn room(name: &str) -> RoomName {
    RoomName::new(name).unwrap()
}

fn frame(event: &str) -> Frame {
    Frame::new(EventName::own(event), Payload::None)
}

async fn live(hub: &Hub, id: &str, fake: &Arc<Fake>) -> Arc<Member> {
    let member = admit(hub, id, fake.clone(), usize::MAX).await.unwrap();
    assert!(member.go_live(None));
    member
}

async fn send_except(hub: &Hub, name: &str, frame: Frame, except: &Exceptions) -> Counts {
    match hub.lock_occupied_room_for_emit(&room(name)).await {
        Some(guard) => fan_out(&guard, frame, except).await.0,
        None => Counts::default(),
    }
}

async fn fan_out(guard: &RoomGuard<'_>, frame: Frame, except: &Exceptions) -> (Counts, Vec<AckWaiter>) {
    fan_out_with(guard, frame, except, false).await
}

async fn fan_out_with(
    guard: &RoomGuard<'_>,
    frame: Frame,
    except: &Exceptions,
    asks: bool,
) -> (Counts, Vec<AckWaiter>) {
    let mut fan_out = guard.fan_out(frame, except.clone(), asks);
    fan_out.run().await;
    fan_out.finish()
}

async fn join(hub: &Hub, member: &Arc<Member>, name: &str) -> bool {
    hub.lock_room(&room(name)).await.join(member, Reason::Token)
}

async fn admit(hub: &Hub, id: &str, fake: Arc<Fake>, most: usize) -> Option<Arc<Member>> {
    let user = user(id);
    let member = hub.admit(&hub.lock_room(&RoomName::of_user(&user)).await, user, fake, None, most)?;
    join(hub, &member, "everyone").await;
    Some(member)
}

async fn send(hub: &Hub, name: &str, frame: Frame) -> Counts {
    send_except(hub, name, frame, &Exceptions::default()).await
}

#[tokio::test]
async fn a_room_gets_what_is_sent_to_it_and_vanishes_with_its_last_member() {
    let hub = Hub::new(1000);
    let (phone, tablet) = (fake(9), fake(9));
    let members = [live(&hub, "42", &phone).await, live(&hub, "42", &tablet).await];
    assert!(join(&hub, &members[0], "a").await);
    assert!(!join(&hub, &members[0], "a").await, "joined before");
    assert_eq!(send(&hub, "user:42", frame("u")).await, Counts { matched: 2, enqueued: 2, dropped: 0, replaying: 0 });
    assert_eq!(send(&hub, "a", frame("a")).await, Counts { matched: 1, enqueued: 1, dropped: 0, replaying: 0 });
    assert_eq!(phone.got(), ["u", "a"]);
    assert_eq!(tablet.got(), ["u"]);
    assert_eq!((hub.connections(), hub.users(), hub.rooms()), (2, 1, 3));

    for member in &members {
        assert!(hub.ended(member, "test"));
        assert!(!hub.ended(member, "test"), "gone is final");
        assert!(!join(&hub, member, "a").await, "gone is final");
    }
    assert_eq!((hub.connections(), hub.users(), hub.rooms()), (0, 0, 0));
    assert_eq!(send(&hub, "user:42", frame("u")).await, Counts::default());
}

#[tokio::test]
async fn who_does_not_listen_for_an_event_is_not_matched_live_or_not() {
    let hub = Hub::new(1000);
    let narrow = fake_for(9, "balance");
    let member = admit(&hub, "42", narrow.clone(), usize::MAX).await.unwrap();
    assert_eq!(send(&hub, "user:42", frame("other")).await, Counts::default());
    assert!(!member.send(frame("bugle:own")));
    assert!(member.go_live(None));
    assert_eq!(send(&hub, "user:42", frame("other")).await, Counts::default());
    assert_eq!(
        send(&hub, "user:42", frame("balance")).await,
        Counts { matched: 1, enqueued: 1, dropped: 0, replaying: 0 }
    );
    assert_eq!(narrow.got(), ["balance"]);
}

#[tokio::test]
async fn exceptions_are_not_matched() {
    let hub = Hub::new(1000);
    let fakes = [fake(9), fake(9), fake(9), fake(9)];
    let members: Vec<_> =
        join_all(["1", "1", "2", "3"].into_iter().zip(&fakes).map(|(id, fake)| live(&hub, id, fake))).await;
    join(&hub, &members[3], "quiet").await;
    let except = Exceptions {
        connections: vec![members[0].id()],
        users: vec![user("2")],
        rooms: vec![room("quiet"), room("none")],
    };
    let counts = send_except(&hub, "everyone", frame("e"), &except).await;
    assert_eq!(counts, Counts { matched: 1, enqueued: 1, dropped: 0, replaying: 0 });
    assert_eq!(fakes[1].got(), ["e"]);
}

#[tokio::test]
async fn what_arrives_while_catching_up_waits_behind_the_greeting() {
    let hub = Hub::new(10_000);
    let fake = fake(9);
    let member = admit(&hub, "42", fake.clone(), usize::MAX).await.unwrap();
    assert_eq!(send(&hub, "user:42", frame("first")).await.enqueued, 1);
    assert_eq!(fake.got(), [""; 0]);
    assert!(member.go_live(Some(&frame("hello"))));
    assert_eq!(send(&hub, "user:42", frame("second")).await.enqueued, 1);
    assert_eq!(fake.got(), ["hello", "first", "second"]);
}

#[tokio::test]
async fn what_waits_asks_when_it_goes_out_and_not_at_all_if_the_connection_ends_before() {
    let hub = Hub::new(10_000);
    let members = [
        admit(&hub, "1", fake(9), usize::MAX).await.unwrap(),
        admit(&hub, "2", fake(9), usize::MAX).await.unwrap(),
        admit(&hub, "3", fake(0), usize::MAX).await.unwrap(),
    ];
    let mut outcomes = Vec::new();
    for (user, member) in ["1", "2", "3"].into_iter().zip(&members) {
        let guard = hub.lock_room_for_emit(&RoomName::of_user(&self::user(user))).await;
        let volatile = Frame { volatile: true, ..frame("e") };
        let (counts, waiter) = fan_out_with(&guard, volatile, &Exceptions::default(), true).await;
        assert_eq!(counts, Counts { matched: 1, enqueued: 1, dropped: 0, replaying: 0 });
        let [mut waiter] = <[AckWaiter; 1]>::try_from(waiter).ok().unwrap();
        assert!(futures_util::poll!(&mut waiter).is_pending());
        if user == "2" {
            hub.ended(member, "test");
        } else {
            assert!(member.go_live(None));
        }
        let (target, outcome) = waiter.await;
        assert_eq!(target, (self::user(user), member.id()));
        outcomes.push(outcome);
    }
    assert_eq!(outcomes, [AckOutcome::Unsupported, AckOutcome::Gone, AckOutcome::Dropped]);
}

#[tokio::test]
async fn what_waits_is_bounded() {
    let hub = Hub::new(1_000);
    let fake = fake(9);
    let member = admit(&hub, "42", fake.clone(), usize::MAX).await.unwrap();
    let mut taken = 0;
    while send(&hub, "user:42", frame("more")).await.enqueued == 1 {
        taken += 1;
    }
    assert!((2..50).contains(&taken), "{taken} frames waited");
    assert!(member.is_gone());
    assert_eq!(fake.closed.lock().as_ref().unwrap().code, CloseCode::Slow);
}

#[tokio::test]
async fn a_full_queue_loses_the_connection_and_only_that() {
    let hub = Hub::new(1000);
    let (slow, fast) = (fake(1), fake(9));
    let _members = [live(&hub, "1", &slow).await, live(&hub, "2", &fast).await];
    assert_eq!(send(&hub, "everyone", frame("a")).await, Counts { matched: 2, enqueued: 2, dropped: 0, replaying: 0 });
    assert_eq!(send(&hub, "everyone", frame("b")).await, Counts { matched: 2, enqueued: 1, dropped: 1, replaying: 0 });
    assert_eq!(send(&hub, "everyone", frame("c")).await, Counts { matched: 1, enqueued: 1, dropped: 0, replaying: 0 });
    assert_eq!(slow.closed.lock().as_ref().unwrap().code, CloseCode::Slow);
    assert_eq!(fast.got(), ["a", "b", "c"]);
}

#[tokio::test]
async fn a_full_queue_loses_a_volatile_frame_and_nothing_else() {
    let hub = Hub::new(1000);
    let slow = fake(1);
    let _member = live(&hub, "1", &slow).await;
    let volatile = || Frame { volatile: true, ..frame("v") };
    assert_eq!(send(&hub, "user:1", volatile()).await.enqueued, 1);
    assert_eq!(send(&hub, "user:1", volatile()).await, Counts { matched: 1, enqueued: 0, dropped: 1, replaying: 0 });
    assert_eq!(hub.connections(), 1);
}

#[tokio::test]
async fn going_live_fails_once_gone() {
    let hub = Hub::new(1000);
    let member = admit(&hub, "42", fake(9), usize::MAX).await.unwrap();
    hub.ended(&member, "test");
    assert!(!member.go_live(None), "nothing that runs late revives it");
    assert_eq!(hub.rooms(), 0);
}

#[tokio::test]
async fn a_user_has_no_more_connections_than_allowed() {
    let hub = Hub::new(1000);
    let first = admit(&hub, "42", fake(9), 1).await.unwrap();
    assert!(admit(&hub, "42", fake(9), 1).await.is_none());
    assert!(admit(&hub, "43", fake(9), 1).await.is_some());
    assert_eq!(hub.connections(), 2);
    hub.ended(&first, "test");
    assert!(admit(&hub, "42", fake(9), 1).await.is_some());
}

#[tokio::test]
async fn lists_are_ordered_and_paged() {
    let hub = Hub::new(1000);
    let ids = ["d", "b", "a", "c", "b"];
    let fakes = ids.map(|_| fake(9));
    let members = join_all(ids.iter().zip(&fakes).map(|(id, fake)| live(&hub, id, fake))).await;
    let page = hub.list_users("", 2);
    assert_eq!(page, Page { items: vec![(user("a"), 1), (user("b"), 2)], more: true });
    assert_eq!(hub.list_users("b", 2), Page { items: vec![(user("c"), 1), (user("d"), 1)], more: false });

    for member in &members {
        join(&hub, member, "x").await;
    }
    let in_room = hub.list_room(&room("x"), "a", 1).unwrap();
    assert_eq!((in_room.users, in_room.connections), (4, 5));
    assert_eq!(in_room.page, Page { items: vec![(user("b"), 2)], more: true });
    assert_eq!(hub.list_room(&room("y"), "", 1), None);
    let rooms = hub.list_rooms("user:", "user:b", 9);
    assert_eq!(rooms.items, [(room("user:c"), 1), (room("user:d"), 1)]);
}

/// Connects, joins, leaves and disconnects at random, from several threads, while frames are fanned out.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn counts_are_exact_and_nothing_is_left_after_a_storm() {
    let hub = Arc::new(Hub::new(100_000));
    let mut tasks = tokio::task::JoinSet::new();
    for seed in 0..4_u64 {
        let hub = hub.clone();
        tasks.spawn(async move { storm(&hub, seed).await });
    }
    let (mut enqueued, mut got) = (0, 0);
    for (sent, received) in tasks.join_all().await {
        enqueued += sent;
        got += received;
    }
    assert_eq!(enqueued, got);
    assert_eq!((hub.connections(), hub.users(), hub.rooms()), (0, 0, 0));
}

async fn storm(hub: &Hub, seed: u64) -> (u64, u64) {
    let mut state = seed.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(3_037_000_493);
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let (mut live_ones, mut fakes, mut enqueued) = (Vec::new(), Vec::new(), 0);
    for _ in 0..2_500 {
        match random(5) {
            0 => {
                let fake = fake(usize::MAX);
                live_ones.push(live(hub, &random(20).to_string(), &fake).await);
                fakes.push(fake);
            }
            1 if !live_ones.is_empty() => {
                hub.ended(&live_ones.swap_remove(random(live_ones.len())), "test");
            }
            2 if !live_ones.is_empty() => {
                join(hub, &live_ones[random(live_ones.len())], &format!("r{}", random(5))).await;
            }
            3 if !live_ones.is_empty() => {
                hub.leave(&live_ones[random(live_ones.len())], &room(&format!("r{}", random(5))), Reason::Token);
            }
            _ => {
                let counts = send(hub, &format!("r{}", random(5)), frame("e")).await;
                assert_eq!(counts.matched, counts.enqueued + counts.dropped);
                enqueued += counts.enqueued;
            }
        }
        tokio::task::yield_now().await;
    }
    // Others may still send to these: they end only when all are done.
    for member in live_ones {
        hub.ended(&member, "test");
    }
    // An emit that has found a connection live may reach it after its end.
    let got = fakes.iter().map(|fake| fake.end()).sum();
    (enqueued, got)
}

#[tokio::test]
async fn a_connection_has_left_a_room_when_its_last_reason_is_taken_away() {
    let (hub, device) = (Hub::new(1000), fake(9));
    let member = live(&hub, "42", &device).await;
    assert!(join(&hub, &member, "r").await);
    assert!(!hub.lock_room(&room("r")).await.join(&member, Reason::Backend), "it was there");
    assert!(!hub.leave(&member, &room("r"), Reason::Token), "it has another reason");
    assert!(!hub.leave(&member, &room("r"), Reason::Token), "that was taken away already");
    assert!(hub.leave(&member, &room("r"), Reason::Backend));
    assert!(!member.is_in(&room("r")));
}
