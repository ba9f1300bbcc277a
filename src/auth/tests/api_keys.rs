use std::sync::Arc;

use super::super::{ApiKeyConfig, ApiKeys, Caller, KeyRefused, Right};
use crate::message::{Audience, Fault, RoomName, UserId};

const KEY: &str = "an-api-key-of-the-tests-with-40-bytes...";
const OTHER_KEY: &str = "another-api-key-of-the-tests-40-bytes...";
/// `printf %s "$OTHER_KEY" | sha256sum`
const OTHER_KEY_SHA256: &str = "3e03cee41e9c5ed80b643858d2fa8362512eb94fb67be688af6eb7d66e90c362";

fn with_key(name: &str, key: &str, scopes: &[&str]) -> ApiKeyConfig {
    let scopes = scopes.iter().map(|&scope| scope.to_owned()).collect();
    ApiKeyConfig { name: name.to_owned(), key: Some(key.into()), key_sha256: None, scopes }
}

fn with_hash(name: &str, hash: &str) -> ApiKeyConfig {
    ApiKeyConfig { key: None, key_sha256: Some(hash.to_owned()), ..with_key(name, "", &["emit"]) }
}

fn caller(scopes: &[&str]) -> Arc<Caller> {
    let keys = ApiKeys::new(&[with_key("orders", KEY, scopes)]).unwrap();
    keys.authenticate(Some(format!("Bearer {KEY}").as_bytes())).unwrap()
}

fn user() -> Audience {
    Audience::user_id("42").unwrap()
}

fn room(name: &str) -> Audience {
    Audience::of_room(RoomName::new(name).unwrap())
}

fn faults_of(keys: &[ApiKeyConfig]) -> Vec<String> {
    ApiKeys::new(keys).unwrap_err().iter().map(Fault::to_string).collect()
}

#[test]
fn a_caller_is_known_by_the_key_or_its_hash() {
    let keys = [with_key("orders", KEY, &["emit"]), with_hash("chat", OTHER_KEY_SHA256)];
    let keys = ApiKeys::new(&keys).unwrap();
    let name =
        |authorization: String| keys.authenticate(Some(authorization.as_bytes())).map(|found| found.name.to_string());
    for scheme in ["Bearer ", "bearer ", "BEARER  ", " Bearer\t"] {
        assert_eq!(name(format!("{scheme}{KEY}")).as_deref(), Ok("orders"), "{scheme:?}");
    }
    assert_eq!(name(format!("Bearer {OTHER_KEY}")).as_deref(), Ok("chat"));
    assert_eq!(name(format!("Bearer {OTHER_KEY_SHA256}")), Err(KeyRefused::Unknown), "the hash is no key");
    let upper_case = ApiKeys::new(&[with_hash("chat", &OTHER_KEY_SHA256.to_uppercase())]).unwrap();
    assert!(upper_case.authenticate(Some(format!("Bearer {OTHER_KEY}").as_bytes())).is_ok());
}

#[test]
fn nobody_gets_in_without_a_key() {
    let keys = ApiKeys::new(&[with_key("orders", KEY, &["emit"])]).unwrap();
    let refusal = |authorization: &[u8]| keys.authenticate(Some(authorization)).unwrap_err();
    assert_eq!(keys.authenticate(None).unwrap_err(), KeyRefused::Missing);
    let basic = format!("Basic {KEY}");
    let glued = format!("Bearer{KEY}");
    for malformed in
        [b"".as_slice(), b"Bearer", b"Bearer  ", b"\xff\xfe", KEY.as_bytes(), basic.as_bytes(), glued.as_bytes()]
    {
        assert_eq!(refusal(malformed), KeyRefused::Malformed, "{}", String::from_utf8_lossy(malformed));
    }
    for unknown in [format!("Bearer {}", &KEY[1..]), format!("Bearer {KEY}x"), format!("Bearer {KEY},{KEY}")] {
        assert_eq!(refusal(unknown.as_bytes()), KeyRefused::Unknown, "{unknown}");
    }
    assert_eq!(refusal(b"Bearer \xff\xfe"), KeyRefused::Unknown);
    assert_eq!(KeyRefused::Missing.to_string(), "an API key is required: send `authorization: Bearer <key>`");
}

#[test]
fn emit_is_the_right_to_emit_to_anybody() {
    let caller = caller(&["emit"]);
    for audience in [user(), room("lobby"), room("user:42"), Audience::everyone()] {
        assert_eq!(caller.may_emit_to(&audience), Ok(()), "{audience:?}");
    }
}

#[test]
fn each_scope_of_emit_covers_its_audience_alone() {
    let audiences = [user(), room("listing:1"), Audience::everyone()];
    for (index, scope) in ["emit:user", "emit:room:listing:*", "emit:broadcast"].into_iter().enumerate() {
        let caller = caller(&[scope]);
        for (other, audience) in audiences.iter().enumerate() {
            assert_eq!(caller.may_emit_to(audience).is_ok(), index == other, "{scope} {audience:?}");
        }
    }
    assert!(caller(&["emit:user", "emit:broadcast"]).may_emit_to(&Audience::everyone()).is_ok());
    assert!(caller(&["emit:room:listing:*"]).may_emit_to(&room("lobby")).is_err());
}

#[test]
fn no_pattern_reaches_a_users_room_or_everyone() {
    let caller = caller(&["emit:room:*", "emit:room:*:42", "emit:room:use*", "emit:room:every*"]);
    for reserved in [user(), room("user:42"), room("everyone"), Audience::everyone()] {
        assert!(caller.may_emit_to(&reserved).is_err(), "{reserved:?}");
    }
    for covered in [room("lobby"), room("role:admin"), room("users")] {
        assert!(caller.may_emit_to(&covered).is_ok(), "{covered:?}");
    }
}

#[test]
fn a_missing_scope_is_named() {
    let caller = caller(&["presence"]);
    let lacks = |audience| caller.may_emit_to(&audience).unwrap_err().to_string();
    assert_eq!(lacks(user()), "the API key `orders` lacks the scope `emit:user`");
    assert_eq!(lacks(room("user:42")), "the API key `orders` lacks the scope `emit:user`");
    assert_eq!(lacks(room("everyone")), "the API key `orders` lacks the scope `emit:broadcast`");
    assert_eq!(
        lacks(room("lobby")),
        "the API key `orders` lacks the scope `emit:room:lobby`, or one with a pattern that matches"
    );
    assert_eq!(caller.may(Right::Mailbox).unwrap_err().to_string(), "the API key `orders` lacks the scope `mailbox`");
}

#[test]
fn each_right_is_a_scope_of_its_own() {
    let rights = [Right::Presence, Right::Rooms, Right::Disconnect, Right::Mailbox];
    for own in rights {
        let caller = caller(&[own.as_str()]);
        for right in rights {
            assert_eq!(caller.may(right).is_ok(), own == right, "{own:?} {right:?}");
        }
        assert!(caller.may_emit_to(&user()).is_err());
    }
    let emitter = caller(&["emit"]);
    assert!(rights.into_iter().all(|right| emitter.may(right).is_err()));
    assert!(caller(&[]).may_emit_to(&user()).is_err());
}

#[test]
fn a_key_acts_for_all_users_or_for_those_whom_its_pattern_matches() {
    let user = |id: &str| UserId::new(id).unwrap();
    let acts_for = |scopes: &[&str], id: &str| caller(scopes).may_act_for(&user(id)).is_ok();
    for id in ["42", "shop-1", "user:42", "*"] {
        assert!(acts_for(&["messages"], id) && acts_for(&["messages:*"], id), "{id}");
        assert!(!acts_for(&["emit", "presence", "rooms", "disconnect", "mailbox"], id), "{id}");
    }
    let shops = ["emit", "messages:shop-*", "messages:admin"];
    assert!(["shop-", "shop-1", "admin"].into_iter().all(|id| acts_for(&shops, id)));
    assert!(["shop", "my-shop-1", "admin-2", "42"].into_iter().all(|id| !acts_for(&shops, id)));
    let messenger = caller(&["messages"]);
    assert!(messenger.may_emit_to(&self::user()).is_err() && messenger.may(Right::Mailbox).is_err());
    let lacks = caller(&shops).may_act_for(&user("42")).unwrap_err().to_string();
    let expected =
        "the API key `orders` lacks the scope `messages`, or one `messages:PATTERN` whose pattern matches the user";
    assert_eq!(lacks, expected);
}

#[test]
fn every_fault_is_told_at_once_with_its_key() {
    let both = ApiKeyConfig { key_sha256: Some(OTHER_KEY_SHA256.to_owned()), ..with_key("both", KEY, &[]) };
    let neither = ApiKeyConfig { key: None, ..with_key("neither", "", &[]) };
    let keys = [
        with_key("orders", KEY, &["emit", "admin", "emit:room:user:*"]),
        with_key("orders", KEY, &[]),
        with_key("", &KEY[..31], &[]),
        with_key("a\nb", &format!("{KEY} {KEY}"), &[]),
        with_hash("chat", OTHER_KEY_SHA256),
        with_key("games", OTHER_KEY, &[]),
        with_hash("short", &OTHER_KEY_SHA256[2..]),
        with_hash("signed", &format!("+{}", &OTHER_KEY_SHA256[1..])),
        both,
        neither,
    ];
    let expected = [
        "grpc.api_keys[0].scopes[1]: is none of emit, emit:user, emit:room:PATTERN, emit:broadcast, messages, messages:PATTERN, presence, rooms, disconnect, mailbox",
        "grpc.api_keys[0].scopes[2]: matches no room: emitting to a user's room needs emit:user",
        "grpc.api_keys[1].name: is that of an earlier entry",
        "grpc.api_keys[1].key: is the key of an earlier entry: give each backend its own",
        "grpc.api_keys[2].name: is empty: it tells the backends apart in logs and metrics",
        "grpc.api_keys[2].key: has 31 bytes: at least 32 are needed",
        "grpc.api_keys[3].name: has a control character",
        "grpc.api_keys[3].key: has a blank, or a character that is not ASCII, and such a header cannot be sent",
        "grpc.api_keys[5].key: is the key of an earlier entry: give each backend its own",
        "grpc.api_keys[6].key_sha256: is not a SHA-256: those are 64 hexadecimal digits",
        "grpc.api_keys[7].key_sha256: is not a SHA-256: those are 64 hexadecimal digits",
        "grpc.api_keys[8].key_sha256: stands beside key: give one of the two",
        "grpc.api_keys[9].key: is missing: give key or key_sha256",
    ];
    assert_eq!(faults_of(&keys), expected);
    assert_eq!(faults_of(&[]), ["grpc.api_keys: is empty: give a key to each backend that calls"]);
}

#[test]
fn no_key_is_shown() {
    let config = with_key("orders", KEY, &["emit"]);
    let keys = ApiKeys::new(std::slice::from_ref(&config)).unwrap();
    let caller = caller(&["emit"]);
    let shown = format!("{keys:?} {caller:?} {config:?} {}", serde_json::to_string(&config).unwrap());
    assert!(shown.contains("orders") && !shown.contains(KEY), "{shown}");
}
