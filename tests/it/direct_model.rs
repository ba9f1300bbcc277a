//! What conversations say after all that can be done to them, beside a model.

use bugle::clock::Clock;
use bugle::message::MessageId;
use bugle::store::{Before, Sharing, Store};
use proptest::prelude::*;

use crate::direct_store::{open, send, unread, user};
use crate::store::kinds;

/// What may be done to conversations of three users, and what then is expected.
#[derive(Clone, Debug)]
enum Step {
    Send(usize, usize),
    ReadOne(usize),
    ReadAll(usize, usize),
    Delete(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..3_usize, 1..3_usize).prop_map(|(from, by)| Step::Send(from, (from + by) % 3)),
        2 => (0..40_usize).prop_map(Step::ReadOne),
        1 => (0..3_usize, 1..3_usize).prop_map(|(user, by)| Step::ReadAll(user, (user + by) % 3)),
        1 => (0..40_usize).prop_map(Step::Delete),
    ];
    proptest::collection::vec(step, 1..40)
}

#[derive(Clone, Debug)]
struct Known {
    id: MessageId,
    from: usize,
    to: usize,
    is_read: bool,
}

const USERS: [&str; 3] = ["a", "b", "c"];

async fn follow(store: &Store, steps: Vec<Step>) {
    let mut known = Vec::<Known>::new();
    let all: Vec<_> = USERS.map(user).into();
    for step in steps {
        match step {
            Step::Send(from, to) => {
                let message = send(store, USERS[from], USERS[to], "x").await;
                known.push(Known { id: message.id, from, to, is_read: false });
            }
            Step::ReadOne(n) if n < known.len() => {
                let message = &mut known[n];
                let read = store.read_direct(&all[message.to], &[message.id]).await.expect("it answers");
                assert_eq!(read.len(), usize::from(!message.is_read));
                message.is_read = true;
            }
            Step::ReadAll(reader, peer) => {
                let read = store.read_conversation(&all[reader], &all[peer]).await.expect("it answers");
                let of_them = |message: &&mut Known| message.to == reader && message.from == peer && !message.is_read;
                let count = known.iter_mut().filter(of_them).map(|message| message.is_read = true).count();
                assert_eq!(read.map_or(0, |read| read.ids.len()), count);
            }
            Step::Delete(n) if n < known.len() => {
                let message = known.remove(n);
                assert!(store.delete_direct(message.id).await.expect("it answers").is_some());
            }
            Step::ReadOne(_) | Step::Delete(_) => {}
        }
        for (number, id) in all.iter().enumerate() {
            let of_user = known.iter().filter(|message| message.to == number && !message.is_read).count() as u64;
            assert_eq!(unread(store, id.as_str()).await, (of_user, of_user), "{id}");
            let mut peers: Vec<_> = (0..3)
                .filter_map(|peer| {
                    let is_one = |message: &&Known| {
                        [message.from, message.to] == [number, peer] || [message.to, message.from] == [number, peer]
                    };
                    let place = known.iter().rposition(|message| is_one(&message))?;
                    let unread = known.iter().filter(|m| m.from == peer && m.to == number && !m.is_read).count() as u64;
                    Some((place, known[place].id, unread))
                })
                .collect();
            peers.sort_unstable_by_key(|(place, ..)| std::cmp::Reverse(*place));
            let listed =
                store.conversations(id, 10, Before::Now).await.expect("it answers").expect("no place is asked for");
            let mut listed: Vec<_> = listed.iter().map(|one| (one.last.id, one.unread)).collect();
            let mut expected: Vec<_> = peers.into_iter().map(|(_, id, unread)| (id, unread)).collect();
            // Conversations whose last messages are of one millisecond have no order of their own.
            listed.sort_unstable_by_key(|(id, _)| id.to_string());
            expected.sort_unstable_by_key(|(id, _)| id.to_string());
            assert_eq!(listed, expected, "{id}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn counts_and_last_messages_follow_all_that_is_done(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let [memory, ..] = kinds();
            follow(&open(&memory, &Clock::system(), Sharing::Single, 1_000), steps).await;
        });
    }
}
