use serde_json::Map;

use super::{
    super::{MintError, mint},
    *,
};

#[test]
fn a_minted_token_is_verified_by_its_key() {
    for algorithm in ["HS256", "HS384", "HS512"] {
        let gate = Gate::new(&config(vec![
            secret_key(algorithm, Some("a"), SECRET),
            secret_key(algorithm, Some("b"), OTHER_SECRET),
        ]));
        let claims = gate.claims(&json!({ "role": "admin" }));
        let token = mint(&secret_key(algorithm, Some("b"), OTHER_SECRET), claims.as_object().unwrap()).unwrap();
        assert_eq!(*gate.verify_text(&token).unwrap().roles[0], *"admin");
        let token = mint(&secret_key(algorithm, Some("a"), OTHER_SECRET), claims.as_object().unwrap()).unwrap();
        assert_eq!(gate.verify_text(&token), Err("signature"), "the header has the key's id");
    }
}

#[test]
fn a_key_that_cannot_sign_mints_nothing() {
    let refusal = |key: &KeyConfig| mint(key, &Map::new()).unwrap_err();
    let public = refusal(&public_key("RS256", "rsa.pub.pem"));
    assert!(matches!(&public, MintError::NoSecretAlgorithm(algorithm) if algorithm == "RS256"), "{public}");
    assert_eq!(
        refusal(&secret_key("HS256", None, "short")).to_string(),
        "the key's secret has 5 bytes: HS256 takes a secret of 32 bytes or more"
    );
    let missing = KeyConfig { secret: None, ..secret_key("HS512", None, SECRET) };
    assert_eq!(refusal(&missing).to_string(), "the key's secret is missing: HS512 takes a secret of 32 bytes or more");
}
