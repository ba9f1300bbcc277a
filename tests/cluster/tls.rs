//! An engine behind TLS. `SSL_CERT_FILE` names the authority of its certificate.

use std::path::Path;

use crate::harness::{Device, ServerProcess, TlsRedis, deadline, token};

/// The variables of a node.
fn variables<'a>(name: &'a str, url: &'a str, authority: &'a Path) -> [(&'a str, &'a str); 4] {
    let authority = authority.to_str().expect("a path is text");
    [
        ("SSL_CERT_FILE", authority),
        ("BUGLE_CLUSTER__REDIS", url),
        ("BUGLE_CLUSTER__NODE", name),
        ("BUGLE_STORE__URL", ""),
    ]
}

#[tokio::test]
async fn nodes_reach_an_engine_with_a_certificate_of_the_authority_that_is_named() {
    let redis = TlsRedis::start();
    let url = redis.url("localhost");
    let nodes = ["a", "b"].map(|name| ServerProcess::start_after("", "", &variables(name, &url, &redis.authority)));
    let backend = nodes[0].backend().await;
    let both = async { while backend.get_stats().await.nodes.len() < nodes.len() {} };
    deadline("both nodes to know each other", Box::pin(both)).await;
    let device = Device::builder(nodes[1].clients).token(token("42"));
    let mut device = device.connect().await.expect("the device connects");
    let receipt = backend.emit_to_user("42", "hello", "1").await;
    assert_eq!((receipt.matched, receipt.partial), (1, false));
    assert_eq!(device.expect_event("hello").await.json(), "1");
    for node in &nodes {
        assert!(!node.logged.contains(TlsRedis::PASSWORD), "{}", node.logged);
    }
}

#[tokio::test]
async fn a_node_does_not_start_if_the_certificate_is_of_another_authority_or_for_another_host() {
    let redis = TlsRedis::start();
    for (host, authority, problem) in
        [("localhost", &redis.other_authority, "UnknownIssuer"), ("127.0.0.1", &redis.authority, "not valid for name")]
    {
        let url = redis.url(host);
        let log = ServerProcess::refusal("", &variables("a", &url, authority));
        assert!(log.contains("cluster.redis") && log.contains(host) && log.contains(problem), "{log}");
        assert!(log.contains("SSL_CERT_FILE") && !log.contains(TlsRedis::PASSWORD), "{log}");
    }
}
