//! Deletions that the writer does together, over each database.

use bugle::clock::Clock;
use futures_util::future::{BoxFuture, join_all};

use crate::harness::deadline;
use crate::store::{kinds, message, open_for, position, room, texts};

#[tokio::test]
async fn deletions_of_one_room_and_of_others_that_wait_together_are_all_made() {
    for kind in kinds() {
        let store = open_for(&kind, &Clock::system(), 10_000);
        let all: Vec<_> = (0..2_500).map(|n| message("many", &n.to_string())).collect();
        let (many, few, empty) = (room("many"), room("few"), room("empty"));
        let ids = [all[2_480].id, all[2_490].id];
        deadline("the appends", store.append(all)).await.expect("they are kept");
        position(&store, message("few", "1")).await;
        let deletions = join_all([
            Box::pin(store.delete_to(&many, 100)) as BoxFuture<_>,
            Box::pin(store.delete(&many, &ids)),
            Box::pin(store.delete(&many, &ids[1..])),
            Box::pin(store.delete_to(&few, 10)),
            Box::pin(store.delete_to(&many, 2_400)),
            Box::pin(store.delete_to(&empty, 10)),
        ]);
        let deleted: Vec<_> = deadline("the deletions", deletions)
            .await
            .into_iter()
            .map(|deleted| deleted.expect("it is made"))
            .collect();
        assert_eq!(deleted, [100, 2, 0, 1, 2_300, 0], "{}", kind.url);
        assert_eq!(texts(&store, "many", 0).await.len(), 98);
    }
}
