use super::{super::Identity, *};

fn rooms(identity: &Identity) -> Vec<&str> {
    identity.rooms.iter().map(crate::message::RoomName::as_str).collect()
}

fn gate_with_rooms(templates: &[&str]) -> Gate {
    let rooms = templates.iter().map(|&template| template.to_owned()).collect();
    Gate::new(&Config { rooms, ..hs256() })
}

#[test]
fn a_user_is_a_text_or_an_integer() {
    let gate = Gate::new(&hs256());
    let longest = "é".repeat(128);
    let users = [
        (json!("a|b:c*d é"), "a|b:c*d é"),
        (json!(7), "7"),
        (json!(-7), "-7"),
        (json!(u64::MAX), "18446744073709551615"),
        (json!(longest), longest.as_str()),
    ];
    for (claim, user) in users {
        let identity = gate.verify(&json!({ "sub": claim })).unwrap();
        assert_eq!(identity.user.as_str(), user);
        assert_eq!(rooms(&identity), [&format!("user:{user}"), "everyone"]);
    }
}

#[test]
fn a_user_claim_that_names_nobody_is_refused() {
    let gate = Gate::new(&hs256());
    let too_long = json!("a".repeat(257));
    let nobody = [
        json!(null),
        json!(""),
        json!("a\nb"),
        too_long,
        json!(1.5),
        json!(1.0),
        json!(1e20),
        json!(true),
        json!(["a"]),
    ];
    for claim in nobody {
        assert_eq!(gate.verify(&json!({ "sub": claim })), Err("user_claim"), "{claim}");
    }
}

#[test]
fn claims_are_found_by_the_configured_names() {
    let jwt = JwtConfig {
        user_claim: "user.id".to_owned(),
        role_claim: "https://app.example/roles".to_owned(),
        ..hs256().jwt
    };
    let gate = Gate::new(&Config { jwt, ..hs256() });
    let claims = json!({ "user": { "id": 7 }, "https://app.example/roles": ["a"], "role": "b" });
    assert_eq!(rooms(&gate.verify(&claims).unwrap()), ["user:7", "role:a", "everyone"]);
    assert_eq!(gate.verify(&json!({ "user": 7 })), Err("user_claim"));
}

#[test]
fn roles_are_one_or_a_list_each_once() {
    let gate = Gate::new(&hs256());
    let roles = [
        (json!(null), vec![]),
        (json!([]), vec![]),
        (json!("admin"), vec!["admin"]),
        (json!(3), vec!["3"]),
        (json!(["b", "a", "b", 3, "3"]), vec!["b", "a", "3"]),
        (json!("a,b c"), vec!["a,b c"]),
    ];
    for (claim, expected) in roles {
        let identity = gate.verify(&json!({ "role": claim })).unwrap();
        assert_eq!(identity.roles.iter().map(|role| &**role).collect::<Vec<_>>(), expected);
        let mut expected_rooms = vec!["user:42".to_owned()];
        expected_rooms.extend(expected.iter().map(|role| format!("role:{role}")));
        expected_rooms.push("everyone".to_owned());
        assert_eq!(rooms(&identity), expected_rooms);
    }
}

#[test]
fn a_role_claim_with_something_else_is_refused() {
    let gate = Gate::new(&hs256());
    let many = |count: usize| json!((0..count).collect::<Vec<_>>());
    assert_eq!(gate.verify(&json!({ "role": many(64) })).unwrap().roles.len(), 64);
    let too_long = json!("a".repeat(257));
    let others = [
        many(65),
        json!(""),
        json!(["a", ""]),
        json!("a\tb"),
        too_long,
        json!(1.5),
        json!(true),
        json!({}),
        json!([["a"]]),
        json!([null]),
    ];
    for claim in others {
        assert_eq!(gate.verify(&json!({ "role": claim })), Err("role_claim"), "{claim}");
    }
}

#[test]
fn a_connection_joins_the_rooms_of_its_claims() {
    let gate = gate_with_rooms(&["lobby", "org:{claim.org.id}", "team:{claim.teams}", "r:{role}:{user}", "lobby"]);
    let claims = json!({ "org": { "id": 7 }, "teams": ["a", "b", "a", 3], "role": ["x", "y"] });
    let expected =
        ["user:42", "role:x", "role:y", "everyone", "lobby", "org:7", "team:3", "team:a", "team:b", "r:x:42", "r:y:42"];
    assert_eq!(rooms(&gate.verify(&claims).unwrap()), expected);
}

#[test]
fn a_connection_does_not_join_where_a_claim_is_absent_or_unfit() {
    let gate = gate_with_rooms(&["org:{claim.org}", "r:{role}"]);
    for org in [json!(null), json!(1.5), json!(true), json!({}), json!([]), json!("a:b"), json!("*"), json!([["a"]])] {
        assert_eq!(rooms(&gate.verify(&json!({ "org": org })).unwrap()), ["user:42", "everyone"], "{org}");
    }
    let some = json!({ "org": ["a:b", null, "c"] });
    assert_eq!(rooms(&gate.verify(&some).unwrap()), ["user:42", "everyone", "org:c"]);
}

#[test]
fn no_claim_leads_into_another_users_room() {
    let gate = gate_with_rooms(&["us{claim.a}:{claim.b}", "every{claim.c}", "ro{claim.d}:{claim.b}"]);
    let claims = json!({ "a": "er", "b": "1", "c": "one", "d": "le" });
    assert_eq!(rooms(&gate.verify(&claims).unwrap()), ["user:42", "everyone"]);
}

#[test]
fn a_token_makes_at_most_256_rooms() {
    let gate = gate_with_rooms(&["a:{claim.a}", "b:{claim.b}"]);
    let list = |count: usize| (0..count).collect::<Vec<_>>();
    let most = gate.verify(&json!({ "a": list(200), "b": list(56) })).unwrap();
    assert_eq!(most.rooms.len(), 2 + 256);
    assert_eq!(gate.verify(&json!({ "a": list(200), "b": list(57) })), Err("room_template"));
    let repeated = vec!["same"; 500];
    assert_eq!(gate.verify(&json!({ "a": repeated })).unwrap().rooms.len(), 3);
}
