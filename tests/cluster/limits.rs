//! Limits of all nodes together.

use crate::NODES;
use crate::harness::{ConnectError, TestServer, deadline};

#[tokio::test]
async fn a_user_has_so_many_connections_at_all_nodes_together_and_a_place_is_given_back() {
    let server = TestServer::start_with(|config| config.limits.connections_per_user = 2).await;
    let first = server.connect("42").await;
    let _second = server.connect("42").await;
    for _ in 0..2 * NODES {
        let refused = server.device("42").connect().await;
        assert!(matches!(refused, Err(ConnectError::Closed)), "{refused:?}");
    }
    server.connect("43").await;
    first.close().await;
    let again = async { while server.device("42").connect().await.is_err() {} };
    deadline("a place that was given back", Box::pin(again)).await;
}
