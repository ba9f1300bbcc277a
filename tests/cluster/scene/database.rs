//! The database of the nodes, and how its faults strike.

use std::{sync::OnceLock, time::Duration};

use tokio::task::block_in_place;

use super::{ALL, Scene};
use crate::harness::Postgres;

/// Calls that are not stored until a fault may end.
const NOT_STORED: usize = 5;

/// One for all scenes, of which there is one at a time.
fn server() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(|| Postgres::start(&["-c", "ssl=off", "-c", "max_connections=200"], |_| ()))
}

/// The URL of a new database.
pub fn new() -> String {
    server().url(&server().new_database())
}

pub async fn kill(scene: &mut Scene) {
    scene.begins();
    block_in_place(|| server().kill_9());
    scene.churn(&ALL, &ALL);
    is_missed(scene, Duration::from_secs(3)).await;
    block_in_place(|| server().launch());
    is_back(scene).await;
}

pub async fn restart(scene: &mut Scene) {
    scene.begins();
    scene.churn(&ALL, &ALL);
    block_in_place(|| {
        server().stop();
        server().launch();
    });
    is_back(scene).await;
}

pub async fn hang(scene: &mut Scene) {
    scene.begins();
    scene.nodes.store_proxy.as_ref().expect("the plan has one").hang();
    scene.churn(&ALL, &ALL);
    is_missed(scene, Duration::from_secs(10)).await;
    scene.nodes.store_proxy.as_ref().expect("the plan has one").go_on();
    is_back(scene).await;
}

/// Nothing is stored. What is not to be stored is sent as before.
async fn is_missed(scene: &mut Scene, time: Duration) {
    scene.kept.not_stored(NOT_STORED).await;
    scene.kept.accepted_in_histories(NOT_STORED).await;
    scene.lasts(time, &ALL).await;
}

async fn is_back(scene: &mut Scene) {
    scene.kept.accepted(NOT_STORED).await;
    scene.ends().await;
}
