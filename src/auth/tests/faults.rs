use super::*;

#[test]
fn every_fault_is_told_at_once_with_its_key() {
    let with_file = KeyConfig { public_key_file: Some("x.pem".into()), ..secret_key("HS256", Some("a"), SECRET) };
    let with_secret = KeyConfig { secret: Some(SECRET.into()), ..public_key("ES256", "p256.pub.pem") };
    let mut faulty = config(vec![
        with_file,
        secret_key("HS256", Some("a"), "short"),
        secret_key("HS257", Some(""), SECRET),
        with_secret,
        KeyConfig { public_key_file: None, ..public_key("EdDSA", "") },
        KeyConfig { secret: None, ..secret_key("HS512", None, "") },
    ]);
    faulty.jwt.issuer = vec!["a".to_owned(), String::new()];
    faulty.jwt.audience = vec![" ".to_owned()];
    faulty.jwt.user_claim = String::new();
    faulty.jwt.role_claim = String::new();
    faulty.jwt.rooms_claim = String::new();
    faulty.rooms = vec!["lobby".to_owned(), "org:{claim}".to_owned(), String::new()];
    let expected = [
        "auth.jwt.keys[0].public_key_file: is not for HS256, which takes a secret of 32 bytes or more",
        "auth.jwt.keys[1].kid: is that of an earlier key with the same algorithm",
        "auth.jwt.keys[1].secret: has 5 bytes: HS256 takes a secret of 32 bytes or more",
        "auth.jwt.keys[2].kid: is empty: leave it out, and the key verifies any token",
        "auth.jwt.keys[2].algorithm: is none of HS256, HS384, HS512, RS256, RS384, RS512, PS256, ES256, ES384, EdDSA",
        "auth.jwt.keys[3].secret: is not for ES256, which takes a public_key_file",
        "auth.jwt.keys[4].public_key_file: is missing: EdDSA takes a PEM file with an Ed25519 key",
        "auth.jwt.keys[5].secret: is missing: HS512 takes a secret of 32 bytes or more",
        "auth.jwt.issuer[1]: is empty",
        "auth.jwt.audience[0]: is empty",
        "auth.jwt.user_claim: is empty",
        "auth.jwt.role_claim: is empty",
        "auth.jwt.rooms_claim: is empty",
        "auth.rooms[1]: has an unknown placeholder at byte 4: use `{user}`, `{role}` or `{claim.NAME}`",
        "auth.rooms[2]: is empty: give 1 to 256 bytes",
    ];
    assert_eq!(faults_of(&faulty), expected);
}

#[test]
fn without_keys_there_is_nothing_to_verify_by() {
    assert_eq!(faults_of(&config(Vec::new())), ["auth.jwt.keys: is empty: give the key that signs your users' tokens"]);
}

#[test]
fn more_templates_than_rooms_are_refused() {
    let mut many = hs256();
    many.rooms = vec!["lobby".to_owned(); 257];
    assert_eq!(faults_of(&many), ["auth.rooms: has 257 entries: at most 256 are allowed"]);
}

#[test]
fn a_file_that_is_no_public_key_of_the_algorithm_is_refused() {
    let wrong = [
        ("RS256", "p256.pub.pem"),
        ("RS256", "ed25519.pub.pem"),
        ("RS256", "rsa1024.pub.pem"),
        ("PS256", "rsa1024.pub.pem"),
        ("RS256", "README"),
        ("ES256", "p384.pub.pem"),
        ("ES256", "rsa.pub.pem"),
        ("ES384", "p256.pub.pem"),
        ("ES384", "ed25519.pub.pem"),
        ("EdDSA", "p256.pub.pem"),
        ("EdDSA", "rsa.pub.pem"),
        ("EdDSA", "ed25519-short.pub.pem"),
    ];
    for (algorithm, file) in wrong {
        let faults = faults_of(&config(vec![public_key(algorithm, file)]));
        let problem = format!("/{file}` is not the PEM file of a public key for {algorithm}: an ");
        assert!(faults.len() == 1 && faults[0].contains(&problem), "{faults:?}");
        assert!(faults[0].starts_with("auth.jwt.keys[0].public_key_file: `/"), "{faults:?}");
    }
}

#[test]
fn a_private_key_is_refused_where_the_public_one_belongs() {
    for (algorithm, file) in
        [("RS256", "rsa.key.pem"), ("ES256", "p256.key.pem"), ("ES384", "p384.key.pem"), ("EdDSA", "ed25519.key.pem")]
    {
        let faults = faults_of(&config(vec![public_key(algorithm, file)]));
        assert!(
            faults[0].ends_with("holds a private key, which Bugle should not have: give the public one"),
            "{faults:?}"
        );
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let faults = faults_of(&config(vec![public_key("RS256", "absent.pem")]));
    assert!(faults[0].contains("testdata/absent.pem` cannot be read: No such file"), "{faults:?}");
}

#[test]
fn no_secret_is_shown() {
    let config = hs256();
    let tokens = Tokens::new(&config, Vec::new(), Clock::system()).unwrap();
    let shown = format!("{tokens:?} {config:?} {}", serde_json::to_string(&config).unwrap());
    assert!(!shown.contains(SECRET), "{shown}");
    let bytes = format!("{:?}", SECRET.as_bytes());
    assert!(!shown.contains(bytes.trim_matches(['[', ']'])), "{shown}");

    let faults =
        faults_of(&self::config(vec![secret_key("RS256", None, SECRET), secret_key("HS256", None, &SECRET[..31])]));
    assert!(!faults.concat().contains(&SECRET[..31]), "{faults:?}");
}
