//! PostgreSQL over TLS, as `sslmode` and `sslrootcert` in `store.url` say.

use bugle::proto::v1::EmitToUserRequest;

use crate::{
    harness::{TestServer, TlsDatabase, deadline, eventually, to_user},
    logs::Log,
    stored::{readiness, store},
};

async fn server(url: String) -> TestServer {
    TestServer::start_with(|config| config.store.url = url.into()).await
}

/// Stores a message over this address, and leaves the store to the next server.
async fn is_stored(url: String) {
    let mut server = server(url).await;
    let request = EmitToUserRequest { options: Some(store()), ..to_user("42", "news", "1") };
    let backend = server.backend().await;
    let response = deadline("a stored emit", backend.notify().emit_to_user(request)).await.expect("it is accepted");
    assert!(response.into_inner().receipt.expect("there is a receipt").stored);
    server.stop();
    server.stopped().await.expect("it stops in order");
}

/// Waits until a server with this address is not ready, and sees that it says why.
async fn is_refused(url: String, why: &str) {
    let log = Log::start();
    let server = server(url).await;
    eventually("readiness to go down", async || readiness(&server).await == 503).await;
    eventually("the reason in the log", async || log.text().contains(why)).await;
    log.has_line(&["WARN", why]);
}

#[tokio::test]
async fn with_the_right_authority_and_host_name_a_message_is_stored_over_tls() {
    let database = TlsDatabase::new();
    for mode in ["verify-full", "verify-ca"] {
        let parameters = format!("sslmode={mode}&sslrootcert={}", database.authority.display());
        is_stored(database.url("localhost", &parameters)).await;
    }
    assert_eq!(database.ask("SELECT count(*) FROM messages"), "2");
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_and_logged() {
    let database = TlsDatabase::new();
    let others = database.other_authority.display();
    for mode in ["verify-full", "verify-ca"] {
        let url = database.url("localhost", &format!("sslmode={mode}&sslrootcert={others}"));
        is_refused(url, "invalid peer certificate").await;
    }
    is_refused(database.url("localhost", "sslmode=verify-full"), "invalid peer certificate").await;
}

#[tokio::test]
async fn a_certificate_that_has_expired_is_refused_where_it_is_verified() {
    let database = TlsDatabase::expired();
    let with =
        |mode: &str| database.url("localhost", &format!("sslmode={mode}&sslrootcert={}", database.authority.display()));
    is_refused(with("verify-full"), "certificate expired").await;
    is_refused(with("verify-ca"), "certificate expired").await;
    is_stored(database.url("localhost", "sslmode=require")).await;
}

#[tokio::test]
async fn a_certificate_for_another_host_is_refused_by_verify_full_alone() {
    let database = TlsDatabase::new();
    let with =
        |mode: &str| database.url("127.0.0.1", &format!("sslmode={mode}&sslrootcert={}", database.authority.display()));
    is_refused(with("verify-full"), "certificate not valid for name").await;
    is_stored(with("verify-ca")).await;
}

#[tokio::test]
async fn each_mode_encrypts_or_does_not_as_it_says() {
    for (mode, is_encrypted) in [("require", true), ("prefer", true), ("disable", false)] {
        let database = TlsDatabase::new();
        let server = server(database.url("127.0.0.1", &format!("sslmode={mode}&application_name=bugle"))).await;
        let request = EmitToUserRequest { options: Some(store()), ..to_user("42", "news", "1") };
        server.backend().await.notify().emit_to_user(request).await.expect("it is accepted");
        let ssl = database.ask(
            "SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
             WHERE datname = current_database() AND application_name = 'bugle'",
        );
        assert_eq!(ssl, if is_encrypted { "t" } else { "f" }, "{mode}");
    }
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_it_is_required() {
    is_refused(format!("{}?sslmode=require", crate::harness::new_database()), "server does not support TLS").await;
}
