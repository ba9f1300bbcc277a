//! What a POST may carry, and how packets stand together in one body.

use bugle::proto::v1::{Ack, AckOptions, EmitOptions, Receipt, ack::Outcome, ack_options::Mode};

use super::{Poller, REVISIONS, Revision};
use crate::harness::{Answer, Backend, TestServer, Wire, answer, ask_with, to_user};

const MAX: usize = 2_000;

async fn server() -> TestServer {
    TestServer::start_with(|config| config.socketio.max_message = MAX).await
}

/// An event as long as it is to be, which asks for an acknowledgement.
fn event(length: usize) -> String {
    let empty = r#"421["unknown",""]"#.len();
    format!(r#"421["unknown","{}"]"#, "x".repeat(length - empty))
}

#[tokio::test]
async fn a_post_may_be_as_long_as_the_handshake_says_and_no_longer() {
    let server = server().await;
    let poller = Poller::connected(&server, Revision::Four, "42").await;
    assert_eq!(poller.post(&[&event(MAX)]).await.status, 200);
    poller.poll_for("431").await;
    assert_eq!(poller.post(&[&event(MAX + 1)]).await.status, 413);
}

#[tokio::test]
async fn too_long_a_post_is_refused_before_it_is_read() {
    let server = server().await;
    for headers in [&[("content-length", "1000000000")][..], &[("content-length", "2001"), ("expect", "100-continue")]]
    {
        let poller = Poller::connected(&server, Revision::Four, "42").await;
        let mut wire = Wire::open(server.clients()).await;
        wire.send(head(&poller.target, headers)).await;
        assert_eq!(wire.answer().await.status, 413, "{headers:?}");
    }
}

/// The head of a POST with these headers alone.
fn head(target: &str, headers: &[(&str, &str)]) -> String {
    let headers: String = headers.iter().flat_map(|(name, value)| [name, ": ", value, "\r\n"]).collect();
    format!("POST {target} HTTP/1.1\r\nhost: 127.0.0.1\r\n{headers}\r\n")
}

#[tokio::test]
async fn a_post_that_does_not_say_how_long_it_is_ends_where_it_is_too_long() {
    let server = server().await;
    let poller = Poller::connected(&server, Revision::Four, "42").await;
    let mut wire = Wire::open(server.clients()).await;
    wire.send(head(&poller.target, &[("transfer-encoding", "chunked")])).await;
    for _ in 0..3 {
        wire.send(format!("3e8\r\n{}\r\n", "4".repeat(1_000))).await;
    }
    assert_eq!(wire.answer().await.status, 413);
}

#[tokio::test]
async fn several_packets_of_one_post_are_heard_in_their_order() {
    let server = TestServer::start().await;
    for revision in REVISIONS {
        let poller = Poller::connected(&server, revision, "42").await;
        // Lengths of revision 3 count UTF-16 units, so a wrong count would lose the second.
        let sent = ["421[\"unknown\",\"é😀\u{2028}\"]", r#"422["unknown"]"#, r#"423["unknown"]"#];
        assert_eq!(poller.post(&sent).await.status, 200, "{revision:?}");
        let mut heard = Vec::new();
        while heard.len() < sent.len() {
            heard.extend(poller.packets().await.into_iter().map(|packet| packet[..3].to_owned()));
        }
        heard.sort();
        assert_eq!(heard, ["431", "432", "433"], "{revision:?}");
    }
}

#[tokio::test]
async fn several_packets_come_with_one_poll_in_their_order() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    for revision in REVISIONS {
        let user = format!("of {revision:?}");
        let poller = Poller::connected(&server, revision, &user).await;
        for number in 0..5 {
            backend.emit_to_user(&user, "n", &format!(r#"[{number},"é😀"]"#)).await;
        }
        let expected: Vec<_> = (0..5).map(|number| format!("42[\"n\",[{number},\"é😀\"]]")).collect();
        assert_eq!(poller.packets().await, expected);
    }
}

/// Asks a user's device by an emit that waits for an acknowledgement.
async fn ask_device(backend: &Backend, user: &str) -> Receipt {
    let ack = AckOptions { mode: Mode::All.into(), timeout: None };
    let options = Some(EmitOptions { ack: Some(ack), ..EmitOptions::default() });
    let mut request = to_user(user, "question", "1");
    request.options = options;
    answer(backend.notify().emit_to_user(request)).await.expect("it is accepted").receipt.expect("it has a receipt")
}

/// The id of the acknowledgement that a question asks for.
fn id_of(question: &str) -> &str {
    question.strip_prefix("42").and_then(|rest| rest.split('[').next()).expect("a question")
}

fn outcome(receipt: &Receipt) -> Outcome {
    let [Ack { outcome, .. }] = receipt.acks.as_slice() else { panic!("one device was asked: {receipt:?}") };
    Outcome::try_from(*outcome).expect("a known outcome")
}

/// A packet of revision 3 as a part of a binary payload.
fn binary_part(is_text: bool, packet: &[u8]) -> Vec<u8> {
    let digits = packet.len().to_string().into_bytes().into_iter().map(|digit| digit - b'0');
    [u8::from(!is_text)].into_iter().chain(digits).chain([255]).chain(packet.iter().copied()).collect()
}

#[tokio::test]
async fn bytes_that_a_device_posts_are_taken_for_an_attachment() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    for (user, revision, is_text) in
        [("four", Revision::Four, true), ("three", Revision::Three, true), ("old browser", Revision::Three, false)]
    {
        let poller = Poller::connected(&server, revision, user).await;
        let asking = ask_device(&backend, user);
        let answering = async {
            let question = poller.poll_for("42").await.pop().expect("a question");
            let header = format!(r#"461-{}[{{"_placeholder":true,"num":0}}]"#, id_of(&question));
            let answer = match (revision, is_text) {
                (Revision::Four, _) => poller.post(&[&header, "bAAECAw=="]).await,
                (Revision::Three, true) => poller.post(&[&header, "b4AAECAw=="]).await,
                (Revision::Three, false) => {
                    let parts = [binary_part(true, header.as_bytes()), binary_part(false, &[4, 0, 1, 2, 3])];
                    post_bytes(&server, &poller, parts.concat()).await
                }
            };
            assert_eq!((answer.status, answer.text().as_str()), (200, "ok"), "{user}");
        };
        let (receipt, ()) = tokio::join!(asking, answering);
        assert_eq!(outcome(&receipt), Outcome::Unsupported, "{user}: it was understood to be bytes");
    }
}

async fn post_bytes(server: &TestServer, poller: &Poller, body: Vec<u8>) -> Answer {
    let headers = [("content-type", "application/octet-stream")];
    ask_with(server.clients(), "POST", &poller.target, &headers, body).await
}

#[tokio::test]
async fn a_device_acknowledges_by_a_post() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    for revision in REVISIONS {
        let user = format!("of {revision:?}");
        let poller = Poller::connected(&server, revision, &user).await;
        let answering = async {
            let question = poller.poll_for("42").await.pop().expect("a question");
            poller.post(&[&format!(r#"43{}["yes",{{"é":1}}]"#, id_of(&question))]).await
        };
        let (receipt, _) = tokio::join!(ask_device(&backend, &user), answering);
        assert_eq!((outcome(&receipt), receipt.acks[0].json.as_str()), (Outcome::Replied, r#"["yes",{"é":1}]"#));
    }
}
