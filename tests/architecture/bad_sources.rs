//! Small bad sources, each with what the checks say of it: they can fail.

use super::{failures, sources::Sources};

/// The failures of one file, with what else a crate needs to be in order around it.
fn failures_of(path: &str, text: &str) -> Vec<String> {
    let domains = ["message", "hub", "auth", "grpc", "socketio", "clock", "config", "cluster", "http"];
    let lib = domains.map(|domain| format!("pub mod {domain};")).join("\n");
    let house = [("src/lib.rs", lib.as_str()), ("src/hub/mod.rs", "mod inner;"), (path, text)];
    failures_among(&house)
}

fn failures_among(house: &[(&str, &str)]) -> Vec<String> {
    let sources = Sources::parse(house.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())));
    failures(&sources).iter().map(ToString::to_string).collect()
}

#[track_caller]
fn assert_one(failures: &[String], place: &str, word: &str) {
    match failures {
        [failure] => {
            assert!(failure.starts_with(place) && failure.contains(word), "not `{place}` and `{word}`: {failure}");
        }
        _ => panic!("{} failures: {failures:#?}", failures.len()),
    }
}

#[track_caller]
fn assert_none(failures: &[String]) {
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn allowed_imports_pass() {
    assert_none(&failures_of("src/grpc/mod.rs", "pub use crate::auth::Key;\nuse crate::grpc::Service;"));
    assert_none(&failures_of(
        "src/hub/mod.rs",
        "use crate::message::{UserId, RoomName as Room};\nuse crate::clock::Clock;",
    ));
    assert_none(&failures_of(
        "src/hub/inner.rs",
        "use super::Hub;\nmod deep { use super::super::Hub; }\npub(crate) struct X;",
    ));
    assert_none(&failures_of("src/config/mod.rs", "use crate::message::Fault;\nuse crate::grpc;"));
}

#[test]
fn an_import_against_the_table_fails_wherever_it_stands() {
    let places = [
        "\nuse crate::grpc::Service;",
        "\npub use crate::grpc::Service;",
        "\nfn serve() -> crate::grpc::Service { todo!() }",
        "\nconst X: u8 = macro_of_sorts!(a, { crate::grpc::LIMIT });",
        "\nmod nested { mod deeper { use crate::grpc::Service; } }",
        "\n#[derive(Clone)] struct X { grpc: ::std::vec::Vec<crate::grpc::Service> }",
        "\n#[cfg(not(test))] use crate::grpc::Service;",
        "\nmacro_rules! service { () => { $crate::grpc::Service } }",
        "\npub(in crate::grpc) struct X;",
    ];
    for place in places {
        assert_one(&failures_of("src/hub/mod.rs", place), "src/hub/mod.rs:2: ", "`hub` imports `grpc`");
    }
}

#[test]
fn code_for_tests_may_import_anything() {
    assert_none(&failures_of(
        "src/hub/mod.rs",
        "#[cfg(test)]\nmod tests { use crate::grpc::Service; use axum::Router; }",
    ));
    assert_none(&failures_of(
        "src/hub/mod.rs",
        "#[cfg(test)]\nuse crate::grpc::{Service, X};\n#[cfg(all(test, unix))] fn x() { crate::grpc::x() }",
    ));
    let house = [
        ("src/lib.rs", "mod hub;"),
        ("src/hub/mod.rs", "#[cfg(test)] mod tests;"),
        ("src/hub/tests/mod.rs", "mod inner; use crate::grpc::Service;"),
        ("src/hub/tests/inner.rs", "use crate::grpc::Service;"),
    ];
    assert_none(&failures_among(&house));
}

#[test]
fn what_follows_code_for_tests_is_checked() {
    let text = "#[cfg(test)]\n#[allow(dead_code)]\npub(crate) fn x() { crate::grpc::x() }\nuse crate::grpc::Service;";
    assert_one(&failures_of("src/hub/mod.rs", text), "src/hub/mod.rs:4: ", "`grpc`");
}

#[test]
fn message_may_not_even_use_a_leaf() {
    assert_one(
        &failures_of("src/message/mod.rs", "use crate::clock::Clock;"),
        "src/message/mod.rs:1: ",
        "nothing of ours",
    );
}

#[test]
fn grouped_and_renamed_roots_fail() {
    assert_one(&failures_of("src/hub/mod.rs", "use crate::{message, clock::Clock};"), "src/hub/mod.rs:1: ", "grouped");
    assert_one(&failures_of("src/hub/mod.rs", "use crate as root;"), "src/hub/mod.rs:1: ", "renamed");
    assert_one(&failures_of("src/hub/mod.rs", "use crate::*;"), "src/hub/mod.rs:1: ", "`crate::*` is no module");
    assert_one(&failures_of("src/hub/mod.rs", "use crate::Hub;"), "src/hub/mod.rs:1: ", "`crate::Hub` is no module");
}

#[test]
fn climbing_to_the_root_fails() {
    assert_one(&failures_of("src/hub/mod.rs", "use super::grpc::Service;"), "src/hub/mod.rs:1: ", "climbs");
    assert_one(
        &failures_of("src/hub/inner.rs", "fn x() { super::super::grpc::x() }"),
        "src/hub/inner.rs:1: ",
        "climbs",
    );
    assert_one(&failures_of("src/hub/inner.rs", "use super::{super::grpc::x, Hub};"), "src/hub/inner.rs:1: ", "climbs");
    assert_one(
        &failures_of("src/hub/inner.rs", "mod a { use super::super::super::grpc; }"),
        "src/hub/inner.rs:1: ",
        "climbs",
    );
}

#[test]
fn the_roots_hold_nothing_of_their_own() {
    let lib = [("src/lib.rs", "//! Doc.\npub mod hub;\npub use hub::Hub;"), ("src/hub/mod.rs", "")];
    assert_one(&failures_among(&lib), "src/lib.rs:3: ", "re-exports");
    let main = |text| failures_among(&[("src/main.rs", text)]);
    assert_none(&main("use bugle::cli;\nfn main() { bugle::cli::run() }"));
    assert_one(&main("\nfn main() { bugle::app::run() }"), "src/main.rs:2: ", "`bugle::app`");
    assert_one(&main("use bugle::{cli};"), "src/main.rs:1: ", "`bugle::cli`");
    assert_one(&main("mod hub {}\nfn main() {}"), "src/main.rs:1: ", "declares a module");
    assert_one(&main("fn main() { crate::run() }"), "src/main.rs:1: ", "`crate::`");
}

#[test]
fn a_fenced_crate_fails_outside_its_fence() {
    let uses = [
        ("use tonic::Status;", "tonic"),
        ("use tonic_health::server;", "tonic_health"),
        ("use tonic as t;", "tonic"),
        ("#[derive(prost::Message)] struct X;", "prost"),
        ("fn x() { ::redis::cmd() }", "redis"),
        ("use ::sqlx::Pool;", "sqlx"),
        ("use std::{fmt, env};", "std::env"),
        ("fn x() { std::env::var(\"X\"); }", "std::env"),
        ("use engineioxide::Sid;", "engineioxide"),
        ("use {hyper_util::rt, bytes::Bytes};", "hyper_util"),
    ];
    for (text, named) in uses {
        assert_one(&failures_of("src/hub/mod.rs", text), "src/hub/mod.rs:1: ", &format!("`hub` uses `{named}"));
    }
}

#[test]
fn a_fence_keeps_only_what_it_names() {
    assert_none(&failures_of("src/grpc/mod.rs", "use tonic::Status;\nuse prost_types::Any;"));
    assert_none(&failures_of("src/http/mod.rs", "use axum::Router;\nuse http::Request;"));
    assert_none(&failures_of("src/config/mod.rs", "use std::env;"));
    let text = "fn x(redis: u8) -> &'static str { let tonic: ::std::num::Wrapping<u8>; self::redis::x(); env!(\"X\") }";
    assert_none(&failures_of("src/hub/mod.rs", text));
}

#[test]
fn long_files_and_functions_fail() {
    let lines = |count: usize| "\n".repeat(count);
    assert_none(&failures_of("src/hub/mod.rs", &lines(400)));
    assert_one(&failures_of("src/hub/mod.rs", &lines(401)), "src/hub/mod.rs:401: ", "401 lines");
    let function = |count: usize| format!("#[inline]\npub async fn x(\n) {{{}}}", lines(count - 2));
    assert_none(&failures_of("src/hub/mod.rs", &function(70)));
    assert_one(&failures_of("src/hub/mod.rs", &function(71)), "src/hub/mod.rs:2: ", "`fn x` has 71 lines");
    let method = format!("mod a {{ impl X {{ {} }} }}", function(71));
    assert_one(&failures_of("src/hub/mod.rs", &method), "src/hub/mod.rs:2: ", "`fn x`");
    let house = [("tests/it/main.rs", "mod x;"), ("tests/it/x.rs", &function(71))];
    assert_one(&failures_among(&house), "tests/it/x.rs:2: ", "`fn x`");
}

#[test]
fn an_unknown_module_fails() {
    let file = [("src/lib.rs", "mod helpers;"), ("src/helpers.rs", "")];
    assert_one(&failures_among(&file), "src/helpers.rs:1: ", "`helpers` is no module of the design");
    let directory = [("src/lib.rs", "mod helpers;"), ("src/helpers/mod.rs", "")];
    assert_one(&failures_among(&directory), "src/helpers/mod.rs:1: ", "`helpers`");
    assert_one(&failures_of("src/hub/mod.rs", "use crate::helpers::x;"), "src/hub/mod.rs:1: ", "`crate::helpers`");
}

/// The failures of one file of the crates below `src/`, each of which has a module `inner`.
fn failures_in_crates(path: &str, text: &str) -> Vec<String> {
    let house = [
        ("src/transport/lib.rs", "mod inner;"),
        ("src/transport/inner.rs", ""),
        ("src/engineio/lib.rs", "mod inner; pub use inner::X;"),
        ("src/engineio/inner.rs", ""),
        (path, text),
    ];
    failures_among(&house)
}

#[test]
fn a_crate_imports_itself_and_what_its_fences_allow() {
    let own = "use crate::{inner::X, payload};\nuse super::Stream;\nuse hyper::body::Incoming;\nuse hyper_util::rt;";
    assert_none(&failures_in_crates("src/transport/inner.rs", own));
    let below = "use transport::{Stream, websocket};\nuse engineioxide_core::Sid;\nuse hyper::Request;\nuse crate::X;";
    assert_none(&failures_in_crates("src/engineio/inner.rs", below));
}

#[test]
fn a_crate_that_names_bugle_or_a_crate_above_it_fails() {
    for path in ["src/transport/inner.rs", "src/engineio/inner.rs"] {
        for text in [
            "use bugle::hub::Hub;",
            "use {bugle::hub, bytes::Bytes};",
            "fn x() { ::bugle::hub::x() }",
            "use bugle as b;",
        ] {
            assert_one(&failures_in_crates(path, text), &format!("{path}:1: "), "names `bugle`");
        }
        for (text, named) in [("use axum::Router;", "axum"), ("use socketioxide::SocketIo;", "socketioxide")] {
            assert_one(&failures_in_crates(path, text), &format!("{path}:1: "), &format!("uses `{named}"));
        }
    }
    assert_one(
        &failures_in_crates("src/transport/inner.rs", "use engineioxide::Socket;"),
        "src/transport/inner.rs:1: ",
        "`transport` uses `engineioxide",
    );
}

#[test]
fn a_crate_is_named_by_the_edges_alone_and_not_as_a_module() {
    assert_none(&failures_of("src/http/mod.rs", "use transport::Stream;"));
    assert_none(&failures_of("src/socketio/mod.rs", "use transport::Stream;\nuse engineioxide::Sid;"));
    for text in ["use transport::Stream;", "fn x(_: transport::Stream) {}"] {
        assert_one(
            &failures_of("src/auth/mod.rs", &format!("mod inner;\n{text}")),
            "src/auth/mod.rs:2: ",
            "`auth` uses `transport",
        );
    }
    assert_one(&failures_of("src/http/mod.rs", "use engineioxide::Sid;"), "src/http/mod.rs:1: ", "`engineioxide");
    assert_one(&failures_of("src/http/mod.rs", "use crate::transport::Stream;"), "src/http/mod.rs:1: ", "is a crate");
}

#[test]
fn a_module_may_have_the_name_of_a_fenced_crate() {
    let of_another = "use tonic::{Status, transport::{self, Channel}};\nfn x(_: transport::Error) {}";
    assert_none(&failures_of("src/grpc/mod.rs", of_another));
    assert_none(&failures_of("src/cluster/mod.rs", of_another));
    assert_one(
        &failures_of("src/hub/mod.rs", "mod inner; use hyper::{self};"),
        "src/hub/mod.rs:1: ",
        "`hub` uses `hyper",
    );
    let house = [
        ("src/lib.rs", "mod message;"),
        ("src/message/mod.rs", "mod transport;\npub use transport::Transport;"),
        ("src/message/transport.rs", ""),
    ];
    assert_none(&failures_among(&house));
}

#[test]
fn the_files_of_a_crate_keep_the_limits_and_are_reached() {
    let long = "\n".repeat(401);
    assert_one(&failures_in_crates("src/engineio/inner.rs", &long), "src/engineio/inner.rs:401: ", "401 lines");
    assert_one(&failures_in_crates("src/engineio/lost.rs", ""), "src/engineio/lost.rs:1: ", "src/engineio/lib.rs");
    assert_one(
        &failures_in_crates("src/transport/lost/mod.rs", ""),
        "src/transport/lost/mod.rs:1: ",
        "src/transport/lib.rs",
    );
    assert_none(&failures_in_crates("tests/fuzz/targets/x.rs", "fn main() {}"));
    assert_one(&failures_in_crates("tests/fuzz/x.rs", ""), "tests/fuzz/x.rs:1: ", "no `mod`");
}

#[test]
fn a_file_that_no_mod_line_names_fails() {
    let house = [("src/lib.rs", "mod hub;"), ("src/hub/mod.rs", "mod other {}"), ("src/hub/lost.rs", "")];
    assert_one(&failures_among(&house), "src/hub/lost.rs:1: ", "src/hub/mod.rs");
    assert_one(&failures_among(&[("src/lib.rs", ""), ("src/hub/mod.rs", "")]), "src/hub/mod.rs:1: ", "src/lib.rs");
    assert_one(
        &failures_among(&[("tests/it/main.rs", ""), ("tests/it/lost.rs", "")]),
        "tests/it/lost.rs:1: ",
        "no `mod`",
    );
    assert_none(&failures_among(&[("tests/x.rs", "#[path = \"x/y.rs\"] mod y;"), ("tests/x/y.rs", "")]));
}

#[test]
fn what_is_no_rust_fails() {
    assert_one(&failures_of("src/hub/mod.rs", "\nfn {"), "src/hub/mod.rs:2: ", "cannot be parsed");
}

#[test]
fn all_failures_are_told_at_once() {
    let failures = failures_of(
        "src/hub/mod.rs",
        "use crate::grpc::X;\nuse crate::grpc::Y;\nuse axum::Router;\nuse crate::{auth};",
    );
    assert_eq!(failures.len(), 4, "{failures:#?}");
}

#[test]
fn files_that_import_each_other_in_a_circle_fail() {
    let house = |a: &str, b: &str| {
        failures_among(&[
            ("src/lib.rs", "pub mod socketio;"),
            ("src/socketio/mod.rs", "mod a;\npub use a::A;\nmod b;\npub use b::B;\nfn x(_: b::B) {}"),
            ("src/socketio/a.rs", a),
            ("src/socketio/b.rs", b),
        ])
    };
    assert_none(&house("use super::B;\npub struct A(B);", "pub struct B;"));
    assert_one(
        &house("use super::B;\npub struct A(B);", "pub struct B(super::A);"),
        "src/socketio/mod.rs:1: ",
        "a → b → a",
    );
    assert_one(&house("pub struct A;", "pub fn b() { super::x() }"), "src/socketio/mod.rs:1: ", "b → mod.rs → b");
}
