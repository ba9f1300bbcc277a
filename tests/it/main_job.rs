use crate::harness::{Device, TestServer, Transport, token};

const EXACT: &str =
    "{\"b\":1.10,\"a\":12345678901234567890,\"_placeholder\":true,\"s\":\"🎺\u{2028}\",\"n\":{\"z\":1,\"y\":[]}}";

#[tokio::test]
async fn an_emit_to_a_user_reaches_every_device_of_theirs_and_nobody_elses_byte_for_byte() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut phone = server.connect("42").await;
    let bearer = format!("Bearer {}", token("42"));
    let polling = Device::builder(server.clients()).query_token(bearer).transport(Transport::Polling);
    let mut browser = polling.connect().await.expect("the browser connects");
    let mut stranger = server.connect("43").await;

    let receipt = backend.emit_to_user("42", "WALLET_UPDATE", EXACT).await;
    assert_eq!((receipt.matched, receipt.enqueued, receipt.dropped), (2, 2, 0));
    for device in [&mut phone, &mut browser] {
        assert_eq!(device.expect_event("WALLET_UPDATE").await.json(), EXACT);
    }

    backend.emit_to_user("43", "next", "1").await;
    assert_eq!(stranger.next_event().await.name, "next", "the stranger got nothing before");
}
