use serde_json::{Value, json};

use super::*;

/// Each algorithm, with the file of its public key; none for those with a secret.
const ALGORITHMS: [(&str, Option<&str>); 10] = [
    ("HS256", None),
    ("HS384", None),
    ("HS512", None),
    ("RS256", Some("rsa.pub.pem")),
    ("RS384", Some("rsa.pub.pem")),
    ("RS512", Some("rsa.pub.pem")),
    ("PS256", Some("rsa.pub.pem")),
    ("ES256", Some("p256.pub.pem")),
    ("ES384", Some("p384.pub.pem")),
    ("EdDSA", Some("ed25519.pub.pem")),
];

fn gate_for(algorithm: &str, file: Option<&str>) -> Gate {
    let key = file.map_or_else(|| secret_key(algorithm, None, SECRET), |file| public_key(algorithm, file));
    Gate::new(&config(vec![key]))
}

#[test]
fn every_algorithm_verifies_its_own_signatures() {
    for (algorithm, file) in ALGORITHMS {
        let gate = gate_for(algorithm, file);
        let token = signed(algorithm, &gate.claims(&json!({})));
        assert_eq!(gate.verify_text(&token).unwrap().user.as_str(), "42", "{algorithm}");
    }
}

#[test]
fn every_algorithm_refuses_what_was_changed_after_signing() {
    for (algorithm, file) in ALGORITHMS {
        let gate = gate_for(algorithm, file);
        let token = signed(algorithm, &gate.claims(&json!({})));
        let other = signed(algorithm, &gate.claims(&json!({ "sub": "43" })));
        let (_, signature) = token.rsplit_once('.').unwrap();
        let (message, _) = other.rsplit_once('.').unwrap();
        for signature in [signature, &signature[4..], "", "AAAA", "?", &signature.repeat(3)] {
            let forged = format!("{message}.{signature}");
            assert_eq!(gate.verify_text(&forged), Err("signature"), "{algorithm} {signature}");
        }
    }
}

#[test]
fn a_key_is_good_for_one_algorithm_alone() {
    for (own, file) in ALGORITHMS {
        let gate = gate_for(own, file);
        for (other, _) in ALGORITHMS.into_iter().filter(|(other, _)| *other != own) {
            let token = signed(other, &gate.claims(&json!({})));
            assert_eq!(gate.verify_text(&token), Err("algorithm"), "{own} key, {other} token");
            let (_, claims_and_signature) = token.split_once('.').unwrap();
            let header = URL_SAFE_NO_PAD.encode(json!({ "alg": own }).to_string());
            let relabelled = format!("{header}.{claims_and_signature}");
            assert_eq!(gate.verify_text(&relabelled), Err("signature"), "{own} key, {other} signature");
        }
    }
}

#[test]
fn a_public_key_is_no_secret() {
    let rsa_alone = Gate::new(&config(vec![public_key("RS256", "rsa.pub.pem")]));
    let both = Gate::new(&config(vec![public_key("RS256", "rsa.pub.pem"), secret_key("HS256", None, SECRET)]));
    let claims = both.claims(&json!({})).to_string();
    for secret in [RSA_PUBLIC, RSA_PUBLIC.trim_end()] {
        let token = signed_parts("HS256", secret, r#"{"alg":"HS256"}"#, claims.as_bytes());
        assert_eq!(rsa_alone.verify_text(&token), Err("algorithm"));
        assert_eq!(both.verify_text(&token), Err("signature"));
        let token = signed_parts("HS256", secret, r#"{"alg":"RS256"}"#, claims.as_bytes());
        assert_eq!(rsa_alone.verify_text(&token), Err("signature"));
    }
}

#[test]
fn an_algorithm_that_is_not_named_exactly_is_refused() {
    let gate = Gate::new(&hs256());
    let claims = gate.claims(&json!({})).to_string();
    for algorithm in
        ["none", "None", "NONE", "nOnE", "hs256", "HS256 ", "", "PS384", "PS512", "ES512", "ES256K", "RSA-OAEP"]
    {
        let token = signed_parts("HS256", SECRET, &json!({ "alg": algorithm }).to_string(), claims.as_bytes());
        assert_eq!(gate.verify_text(&token), Err("algorithm"), "{algorithm}");
        let (message, _) = token.rsplit_once('.').unwrap();
        assert_eq!(gate.verify_text(&format!("{message}.")), Err("algorithm"), "{algorithm}, unsigned");
    }
}

fn with_kid(gate: &Gate, kid: &Value, algorithm: &str, secret: &str) -> Result<String, &'static str> {
    let header = json!({ "alg": algorithm, "kid": kid }).to_string();
    let claims = gate.claims(&json!({})).to_string();
    let token = signed_parts(algorithm, secret, &header, claims.as_bytes());
    gate.verify_text(&token).map(|identity| identity.user.to_string())
}

#[test]
fn keys_rotate_by_their_ids() {
    let gate = Gate::new(&config(vec![
        secret_key("HS256", Some("old"), SECRET),
        secret_key("HS256", Some("new"), OTHER_SECRET),
        secret_key("HS512", Some("new"), SECRET),
    ]));
    let user = Ok("42".to_owned());
    assert_eq!(with_kid(&gate, &json!("old"), "HS256", SECRET), user);
    assert_eq!(with_kid(&gate, &json!("new"), "HS256", OTHER_SECRET), user);
    assert_eq!(with_kid(&gate, &json!("new"), "HS512", SECRET), user);
    assert_eq!(with_kid(&gate, &json!("new"), "HS256", SECRET), Err("signature"), "the old key's");
    assert_eq!(with_kid(&gate, &json!("old"), "HS512", SECRET), Err("algorithm"));
    assert_eq!(with_kid(&gate, &json!("other"), "HS256", SECRET), Err("unknown_key"));
    assert_eq!(with_kid(&gate, &json!(1), "HS256", SECRET), Err("malformed"));
    for secret in [SECRET, OTHER_SECRET] {
        assert_eq!(with_kid(&gate, &Value::Null, "HS256", secret), user, "no id: all keys");
    }
    assert_eq!(with_kid(&gate, &Value::Null, "HS384", SECRET), Err("algorithm"));
}

#[test]
fn a_key_without_id_verifies_tokens_with_any() {
    let gate = Gate::new(&config(vec![
        secret_key("HS256", None, SECRET),
        secret_key("HS256", None, OTHER_SECRET),
        secret_key("HS512", Some("a"), SECRET),
    ]));
    let user = Ok("42".to_owned());
    for secret in [SECRET, OTHER_SECRET] {
        assert_eq!(with_kid(&gate, &json!("a"), "HS256", secret), user);
        assert_eq!(with_kid(&gate, &json!("b"), "HS256", secret), user);
        assert_eq!(with_kid(&gate, &Value::Null, "HS256", secret), user);
    }
    assert_eq!(with_kid(&gate, &json!("b"), "HS256", "none of the two"), Err("signature"));
    assert_eq!(with_kid(&gate, &json!("b"), "HS512", SECRET), Err("algorithm"));
}
