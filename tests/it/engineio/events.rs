//! Events as they are on the wire, in each revision and on each transport.

use bugle::proto::v1::{EmitToUserRequest, emit_to_user_request::Payload};
use bytes::Bytes;

use super::{Poller, REVISIONS, Revision, next_packet, text};
use crate::harness::{Backend, RawMessage, RawSocket, TestServer, ask, token};

const JSON: &str = r#"{"b":1.10,"a":[2,null],"é":"😀"}"#;
const BYTES: [u8; 5] = [0, 4, 255, 128, 10];

/// Bytes as a message on a WebSocket: in revision 3 the type of the packet is before them.
pub fn attachment(revision: Revision, bytes: &[u8]) -> RawMessage {
    RawMessage::Binary(match revision {
        Revision::Three => Bytes::from([&[4], bytes].concat()),
        Revision::Four => Bytes::copy_from_slice(bytes),
    })
}

async fn emit_bytes(backend: &Backend, user: &str) {
    let payload = Some(Payload::Binary(BYTES.to_vec().into()));
    let request = EmitToUserRequest { user_id: user.into(), event: "b".into(), payload, options: None };
    let receipt = backend.notify().emit_to_user(request).await.expect("it is accepted").into_inner().receipt;
    assert_eq!(receipt.expect("it has a receipt").enqueued, 1);
}

async fn on_websocket(server: &TestServer, revision: Revision, user: &str) -> RawSocket {
    if revision == Revision::Four {
        return crate::devices::raw_device(server, user).await;
    }
    let target = revision.target("websocket", Some(&token(user)));
    let mut socket = RawSocket::connect(server.clients(), &target).await.expect("the WebSocket opens");
    next_packet(&mut socket, r#"42["connected","#).await;
    socket
}

#[tokio::test]
async fn an_event_is_the_same_text_on_each_transport() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let expected = format!(r#"42["e",{JSON}]"#);
    for revision in REVISIONS {
        let user = format!("of {revision:?}");
        let mut socket = on_websocket(&server, revision, &user).await;
        let poller = Poller::connected(&server, revision, &user).await;
        let upgrading = Poller::connected(&server, revision, &user).await;
        let mut upgraded = upgrading.upgraded().await;
        backend.emit_to_user(&user, "e", JSON).await;
        assert_eq!(socket.receive().await, text(&expected));
        assert_eq!(poller.packets().await, [expected.as_str()]);
        assert_eq!(upgraded.receive().await, text(&expected));
    }
}

#[tokio::test]
async fn bytes_follow_their_event_on_a_websocket() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    for revision in REVISIONS {
        let user = format!("of {revision:?}");
        let mut socket = on_websocket(&server, revision, &user).await;
        emit_bytes(&backend, &user).await;
        assert_eq!(socket.receive().await, text(r#"451-["b",{"_placeholder":true,"num":0}]"#));
        assert_eq!(socket.receive().await, attachment(revision, &BYTES));
    }
}

#[tokio::test]
async fn bytes_are_base64_where_a_poll_is_text() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let four = Poller::connected(&server, Revision::Four, "new").await;
    emit_bytes(&backend, "new").await;
    let answer = four.poll().await;
    assert_eq!(answer.text(), "451-[\"b\",{\"_placeholder\":true,\"num\":0}]\u{1e}bAAT/gAo=");

    let opening = format!("{}&b64=1", Revision::Three.target("polling", Some(&token("old"))));
    let session = session_of(&server, &opening).await;
    emit_bytes(&backend, "old").await;
    let answer = ask(server.clients(), "GET", &session, "").await;
    assert_eq!(answer.text(), "39:451-[\"b\",{\"_placeholder\":true,\"num\":0}]10:b4AAT/gAo=");
    assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")));
}

/// Opens a session of revision 3, fetches what greets it, and has the target of its polls.
async fn session_of(server: &TestServer, opening: &str) -> String {
    let mut heard = ask(server.clients(), "GET", opening, "").await.text();
    let session = format!("{opening}&sid={}", crate::devices::session_id(&heard));
    while !heard.contains(r#"42["connected","#) {
        heard = ask(server.clients(), "GET", &session, "").await.text();
    }
    session
}

#[tokio::test]
async fn an_old_browser_that_takes_bytes_gets_them_in_a_binary_payload() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let session = session_of(&server, &Revision::Three.target("polling", Some(&token("old")))).await;
    emit_bytes(&backend, "old").await;
    let answer = ask(server.clients(), "GET", &session, "").await;
    let header = br#"451-["b",{"_placeholder":true,"num":0}]"#;
    // 0: a text of 39 bytes; 1: six bytes, the first of which is the packet's type.
    let expected = [&[0, 3, 9, 255][..], header, &[1, 6, 255, 4], &BYTES].concat();
    assert_eq!(answer.body, expected, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    backend.emit_to_user("old", "e", "1").await;
    assert_eq!(ask(server.clients(), "GET", &session, "").await.text(), r#"9:42["e",1]"#);
}

#[tokio::test]
async fn an_event_that_asks_is_answered_by_its_number() {
    let server = TestServer::start().await;
    for revision in REVISIONS {
        let user = format!("of {revision:?}");
        let mut socket = on_websocket(&server, revision, &user).await;
        let poller = Poller::connected(&server, revision, &user).await;
        for number in [0, 7, 1_000_000] {
            let question = format!(r#"42{number}["unknown",{{"a":1}}]"#);
            socket.send_text(question.as_str()).await;
            next_packet(&mut socket, &format!("43{number}[")).await;
            assert_eq!(poller.post(&[&question]).await.status, 200);
            poller.poll_for(&format!("43{number}[")).await;
        }
    }
}
