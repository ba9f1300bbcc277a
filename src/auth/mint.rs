use jsonwebtoken::{AlgorithmFamily, EncodingKey, Header, encode};
use serde_json::{Map, Value};

use super::{
    KeyConfig,
    key::{Method, secret},
};
use crate::message::Invalid;

/// Why a token cannot be minted with a key.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// The key is not for an HS algorithm.
    #[error(
        "the key is for `{0}`, and tokens are minted for HS256, HS384 and HS512 alone: for the others Bugle has the \
         public key, which verifies and does not sign"
    )]
    NoSecretAlgorithm(String),
    /// The key's secret is missing or too short.
    #[error("the key's secret {0}")]
    Secret(Invalid),
    /// The signature could not be made.
    #[error("the token could not be signed")]
    Sign(#[from] jsonwebtoken::errors::Error),
}

/// Signs these claims, as they are, with a key for an HS algorithm. Adds nothing to them: Bugle itself verifies such a token if
/// there is an `exp` among them, and the claim that names the user.
pub fn mint(key: &KeyConfig, claims: &Map<String, Value>) -> Result<String, MintError> {
    let method = Method::named(&key.algorithm)
        .filter(|method| method.algorithm.family() == AlgorithmFamily::Hmac)
        .ok_or_else(|| MintError::NoSecretAlgorithm(key.algorithm.clone()))?;
    let secret = secret(method, key).map_err(MintError::Secret)?;
    let mut header = Header::new(method.algorithm);
    header.kid.clone_from(&key.kid);
    Ok(encode(&header, claims, &EncodingKey::from_secret(secret))?)
}
