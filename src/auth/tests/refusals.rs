use jiff::ToSpan;

use super::{
    super::{InvalidToken, TokenRefused},
    *,
};

#[test]
fn devices_see_one_of_two_texts() {
    let gate = Gate::new(&hs256());
    let text = |token: Option<&str>| gate.tokens.verify(token).unwrap_err().to_string();
    for missing in [None, Some(""), Some(" \t"), Some("Bearer"), Some(" bearer  ")] {
        assert_eq!(text(missing), "Authentication token required");
        assert_eq!(gate.tokens.verify(missing), Err(TokenRefused::Missing));
    }
    assert_eq!(TokenRefused::Missing.reason(), "missing");
    assert_eq!(text(Some("x")), "Invalid or expired token");
    assert_eq!(text(Some(&signed("HS256", &gate.claims(&json!({ "exp": 0 }))))), "Invalid or expired token");
}

#[test]
fn a_token_may_stand_after_bearer() {
    let gate = Gate::new(&hs256());
    let token = signed("HS256", &gate.claims(&json!({})));
    for before in ["", "Bearer ", "bearer ", "BEARER  ", "  Bearer\t"] {
        assert!(gate.verify_text(&format!("{before}{token} \n")).is_ok(), "{before:?}");
    }
    for before in ["Bearer", "Bearer Bearer ", "Basic ", "Bearer:", "Bearér "] {
        assert_eq!(gate.verify_text(&format!("{before}{token}")), Err("malformed"), "{before:?}");
    }
}

#[test]
fn a_long_token_is_refused_unread() {
    let gate = Gate::new(&hs256());
    let token = |padding: usize| signed("HS256", &gate.claims(&json!({ "padding": "a".repeat(padding) })));
    let around_bound = (6000..6200).map(token).filter(|token| (8190..=8194).contains(&token.len()));
    let mut lengths = 0;
    for token in around_bound {
        let expected = if token.len() <= 8192 { Ok(()) } else { Err("too_long") };
        assert_eq!(gate.verify_text(&format!("Bearer {token}")).map(|_| ()), expected, "{}", token.len());
        lengths += 1;
    }
    assert!(lengths >= 3, "lengths on both sides of the bound");
    assert_eq!(gate.verify_text(&"x".repeat(1 << 20)), Err("too_long"));
}

#[test]
fn what_is_no_token_is_malformed() {
    let gate = Gate::new(&hs256());
    let good = signed("HS256", &gate.claims(&json!({})));
    let parts: Vec<&str> = good.split('.').collect();
    let (header, payload, signature) = (parts[0], parts[1], parts[2]);
    let hostile = [
        "x".to_owned(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        format!("{header}.{payload}"),
        format!("{good}.{signature}"),
        format!(".{payload}.{signature}"),
        format!("{header}=.{payload}.{signature}"),
        format!("!{header}.{payload}.{signature}"),
        format!("{header}.{payload}.{signature}").replacen('.', "\u{ff0e}", 1),
    ];
    for token in hostile {
        assert_eq!(gate.verify_text(&token), Err("malformed"), "{token}");
    }
}

#[test]
fn a_header_that_cannot_be_heeded_is_malformed() {
    let gate = Gate::new(&hs256());
    let claims = gate.claims(&json!({})).to_string();
    let headers = [
        "",
        "{",
        "{}",
        "null",
        "1",
        r#""HS256""#,
        r#"{"alg":1}"#,
        r#"{"alg":null}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"alg":"HS256","alg":"none"}"#,
        r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
        r#"{"alg":"HS256","crit":[]}"#,
        r#"{"alg":"HS256"} x"#,
    ];
    for header in headers {
        let token = signed_parts("HS256", SECRET, header, claims.as_bytes());
        assert_eq!(gate.verify_text(&token), Err("malformed"), "{header}");
    }
}

#[test]
fn a_header_may_have_more_than_is_heeded() {
    let gate = Gate::new(&hs256());
    let nested = format!("{}1{}", "[".repeat(2000), "]".repeat(2000));
    for more in [
        r#""typ":5"#,
        r#""kid":null"#,
        r#""jwk":{"kty":"oct","k":"AA"}"#,
        r#""jku":"https://evil.example""#,
        &format!(r#""x":{nested}"#),
    ] {
        let header = format!(r#"{{"alg":"HS256",{more}}}"#);
        let token = signed_parts("HS256", SECRET, &header, gate.claims(&json!({})).to_string().as_bytes());
        assert!(gate.verify_text(&token).is_ok(), "{header}");
    }
}

#[test]
fn signed_claims_that_are_no_object_are_malformed() {
    let gate = Gate::new(&hs256());
    let nested = format!(r#"{{"sub":"42","x":{}1{}}}"#, "[".repeat(2000), "]".repeat(2000));
    let payloads: [&[u8]; 11] = [
        b"",
        b"null",
        b"[]",
        b"42",
        br#""sub""#,
        b"{",
        br#"{"sub":"42","exp":1e400}"#,
        br#"{"sub":"\ud800","exp":1}"#,
        b"{\"sub\":\"\xff\"}",
        br#"{"sub":"42"}{}"#,
        nested.as_bytes(),
    ];
    for payload in payloads {
        let token = signed_parts("HS256", SECRET, r#"{"alg":"HS256"}"#, payload);
        assert_eq!(gate.verify_text(&token), Err("malformed"), "{}", String::from_utf8_lossy(payload));
    }
}

#[test]
fn a_token_expires_when_its_leeway_is_over() {
    let gate = Gate::new(&hs256());
    let now = gate.clock.now();
    let token = signed("HS256", &gate.claims(&json!({ "exp": now.as_second() + 10 })));
    let identity = gate.verify_text(&token).unwrap();
    assert_eq!(identity.expires_at.as_second(), now.as_second() + 15);
    gate.clock.advance(Duration::from_secs(12));
    assert!(gate.verify_text(&token).is_ok(), "within the leeway");
    gate.clock.advance(Duration::from_secs(3));
    assert_eq!(gate.verify_text(&token), Err("expired"));
    assert_eq!(gate.verify(&json!({ "exp": -1e300 })), Err("expired"));
    assert_eq!(gate.verify(&json!({ "exp": i64::MIN })), Err("expired"));
}

#[test]
fn a_token_need_not_expire_within_the_calendar() {
    let gate = Gate::new(&Config { jwt: JwtConfig { leeway: Duration::MAX, ..hs256().jwt }, ..hs256() });
    for exp in [json!(1e300), json!(u64::MAX), json!(i64::MAX)] {
        assert_eq!(gate.verify(&json!({ "exp": exp })).unwrap().expires_at, jiff::Timestamp::MAX);
    }
}

#[test]
fn an_expiry_is_required_and_may_have_a_fraction() {
    let gate = Gate::new(&hs256());
    let exp = gate.now() + 100;
    for absent in [json!(null), json!(exp.to_string()), json!(true), json!([exp]), json!({})] {
        assert_eq!(gate.verify(&json!({ "exp": absent })), Err("no_expiry"), "{absent}");
    }
    let token: Value = serde_json::from_str(&format!(r#"{{"exp":{exp}.5}}"#)).unwrap();
    let expires_at = gate.verify(&token).unwrap().expires_at;
    assert_eq!(expires_at, jiff::Timestamp::from_second(exp).unwrap() + 5500.milliseconds());
}

#[test]
fn a_token_is_not_valid_before_its_time() {
    let gate = Gate::new(&hs256());
    let nbf = gate.now() + 20;
    let token = signed("HS256", &gate.claims(&json!({ "nbf": nbf })));
    assert_eq!(gate.verify_text(&token), Err("not_yet_valid"));
    gate.clock.advance(Duration::from_secs(17));
    assert!(gate.verify_text(&token).is_ok(), "within the leeway");
    assert_eq!(gate.verify(&json!({ "nbf": 1e300 })), Err("not_yet_valid"));
    assert_eq!(gate.verify(&json!({ "nbf": "soon" })), Err("malformed"));
}

#[test]
fn the_issuer_must_be_an_accepted_one() {
    let accepted = ["https://a.example".to_owned(), "b".to_owned()];
    let gate = Gate::new(&Config { jwt: JwtConfig { issuer: accepted.to_vec(), ..hs256().jwt }, ..hs256() });
    for issuer in accepted {
        assert!(gate.verify(&json!({ "iss": issuer })).is_ok());
    }
    for issuer in [json!(null), json!(""), json!("https://a.example/"), json!("B"), json!(["b"]), json!(1)] {
        assert_eq!(gate.verify(&json!({ "iss": issuer })), Err("issuer"), "{issuer}");
    }
    assert!(Gate::new(&hs256()).verify(&json!({ "iss": 1 })).is_ok(), "none is asked for");
}

#[test]
fn the_audience_must_have_an_accepted_one() {
    let accepted = ["web".to_owned(), "app".to_owned()];
    let gate = Gate::new(&Config { jwt: JwtConfig { audience: accepted.to_vec(), ..hs256().jwt }, ..hs256() });
    for audience in [json!("web"), json!(["app"]), json!(["x", "web"]), json!([1, "web"])] {
        assert!(gate.verify(&json!({ "aud": audience })).is_ok(), "{audience}");
    }
    for audience in [json!(null), json!("x"), json!([]), json!(["x"]), json!([["web"]]), json!({ "web": "web" })] {
        assert_eq!(gate.verify(&json!({ "aud": audience })), Err("audience"), "{audience}");
    }
    assert!(Gate::new(&hs256()).verify(&json!({ "aud": ["x"] })).is_ok(), "none is asked for");
}

#[test]
fn operators_see_what_is_wrong_with_a_token() {
    let refused = TokenRefused::from(InvalidToken::Expired);
    assert_eq!(refused.reason(), "expired");
    let source = std::error::Error::source(&refused).unwrap();
    assert_eq!(source.to_string(), "the token expired");
}
