//! What the store tells of many rooms, or many users, at one time.

use std::{collections::BTreeMap, time::Duration};

use bugle::clock::Clock;
use bugle::message::UserId;
use bugle::store::{NewMessage, Which};

use crate::store::{kinds, message, open, position, room};

#[tokio::test]
async fn rooms_with_something_of_the_last_time_are_told_with_where_they_stand() {
    const MINUTE: Duration = Duration::from_mins(1);
    for kind in kinds() {
        let clock = Clock::movable();
        let store = open(&kind, &clock);
        position(&store, message("early", "1")).await;
        position(&store, message("both", "1")).await;
        clock.advance(2 * MINUTE);
        position(&store, message("both", "2")).await;
        position(&store, message("late", "1")).await;
        let within = async |period| {
            let mut recent = store.stored_within(period);
            let mut rooms = recent.next().await.unwrap().unwrap();
            assert!(recent.next().await.unwrap().is_none(), "it is one page");
            rooms.sort();
            rooms
        };
        let late = [(room("both"), 2), (room("late"), 1)];
        assert_eq!(within(MINUTE).await, late, "{}", kind.url);
        assert_eq!(within(3 * MINUTE).await, [late[0].clone(), (room("early"), 1), late[1].clone()]);
        clock.advance(2 * MINUTE);
        assert_eq!(within(MINUTE).await, []);
        assert_eq!(within(Duration::MAX).await.len(), 3);
    }
}

#[tokio::test]
async fn what_was_stored_lately_is_told_in_pages() {
    for kind in kinds() {
        let store = open(&kind, &Clock::system());
        for _ in 0..3 {
            // All of a batch carry the same time.
            store.append((0..850).map(|n| message(&format!("room:{n}"), "1")).collect()).await.unwrap();
        }
        let (mut recent, mut pages) = (store.stored_within(Duration::MAX), Vec::new());
        let mut lasts = BTreeMap::new();
        while let Some(rooms) = recent.next().await.unwrap() {
            assert!(rooms.len() <= 1_000);
            pages.push(rooms.len());
            for (room, last) in rooms {
                let known: &mut u64 = lasts.entry(room).or_default();
                *known = last.max(*known);
            }
        }
        assert!(pages.len() >= 3, "{pages:?}");
        assert_eq!(lasts.len(), 850, "{}", kind.url);
        assert!(lasts.values().all(|last| *last == 3));
    }
}

#[tokio::test]
async fn unread_messages_are_counted_up_to_a_position() {
    for kind in kinds() {
        let store = open(&kind, &Clock::system());
        let team = room("team:1");
        let users: Vec<_> = (0..130).map(|n| UserId::new(&n.to_string()).unwrap()).collect();
        for n in 0..10 {
            let except_users = if n == 3 { vec![users[2].clone()] } else { Vec::new() };
            position(&store, NewMessage { except_users, ..message("team:1", &n.to_string()) }).await;
        }
        let messages = store.messages_at(&team, &[6]).await.unwrap().0;
        store.mark_read(&team, &users[1], Which::UpTo(2)).await.unwrap();
        store.mark_read(&team, &users[1], Which::Message(messages[0].id)).await.unwrap();
        let counted = async |users: &[UserId], up_to| store.count_unread_up_to(&team, users, up_to).await.unwrap();
        for (up_to, expected) in [(0, [0, 0, 0]), (2, [2, 0, 2]), (5, [5, 3, 4]), (6, [6, 3, 5]), (99, [10, 7, 9])] {
            assert_eq!(counted(&users[..3], up_to).await, expected, "up to {up_to} in {}", kind.url);
            assert_eq!(counted(&users[1..2], up_to).await, expected[1..2]);
        }
        let all = counted(&users, 4).await;
        assert_eq!((all.len(), all[0], all[1], all[2], all[129]), (130, 4, 2, 3, 4));
        assert!(counted(&[], 4).await.is_empty());
        for user in &users {
            store.mark_read(&team, user, Which::UpTo(9)).await.unwrap();
        }
        assert_eq!(counted(&users[..128], 10).await, [1; 128], "nobody has read the last one");
    }
}
