use std::{fs, path::Path};

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey,
    crypto::{rust_crypto::DEFAULT_PROVIDER, verify},
    errors,
};
use secrecy::ExposeSecret;

use super::KeyConfig;
use crate::message::{Fault, Invalid};

/// The shortest secret that is accepted, in bytes.
const MIN_SECRET: usize = 32;

/// RFC 7518, section 3.3, forbids shorter ones.
const MIN_RSA_BITS: usize = 2048;

/// A signature algorithm that a key may be configured for.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// Its name in RFC 7518 or 8037, which is also its name in the configuration.
    pub name: &'static str,
    /// The library's word for it.
    pub algorithm: Algorithm,
    /// What kind of key it takes, for people.
    takes: &'static str,
}

const SECRET: &str = "a secret of 32 bytes or more";
const RSA: &str = "an RSA key of 2048 to 4096 bits";

#[rustfmt::skip]
static METHODS: [Method; 10] = [
    Method { name: "HS256", algorithm: Algorithm::HS256, takes: SECRET },
    Method { name: "HS384", algorithm: Algorithm::HS384, takes: SECRET },
    Method { name: "HS512", algorithm: Algorithm::HS512, takes: SECRET },
    Method { name: "RS256", algorithm: Algorithm::RS256, takes: RSA },
    Method { name: "RS384", algorithm: Algorithm::RS384, takes: RSA },
    Method { name: "RS512", algorithm: Algorithm::RS512, takes: RSA },
    Method { name: "PS256", algorithm: Algorithm::PS256, takes: RSA },
    Method { name: "ES256", algorithm: Algorithm::ES256, takes: "an EC key on the curve P-256" },
    Method { name: "ES384", algorithm: Algorithm::ES384, takes: "an EC key on the curve P-384" },
    Method { name: "EdDSA", algorithm: Algorithm::EdDSA, takes: "an Ed25519 key" },
];

impl Method {
    /// The method of exactly this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        METHODS.iter().find(|method| method.name == name)
    }
}

/// One of `auth.jwt.keys`: it verifies signatures of one algorithm, whatever a token says.
#[derive(Debug)]
pub struct Key {
    kid: Option<String>,
    method: &'static Method,
    material: DecodingKey,
}

impl Key {
    /// All keys, or all that is wrong with them.
    pub fn all(configs: &[KeyConfig]) -> Result<Vec<Self>, Vec<Fault>> {
        let mut faults = Vec::new();
        if configs.is_empty() {
            faults.push(Fault::new("auth.jwt.keys", "is empty: give the key that signs your users' tokens"));
        }
        let mut keys = Vec::with_capacity(configs.len());
        for (index, config) in configs.iter().enumerate() {
            let at = format!("auth.jwt.keys[{index}]");
            if config.kid.is_some() && configs[..index].iter().any(|other| same_name(other, config)) {
                faults.push(Fault::new(format!("{at}.kid"), "is that of an earlier key with the same algorithm"));
            }
            match Self::new(config, &at) {
                Ok(key) => keys.push(key),
                Err(found) => faults.extend(found),
            }
        }
        if faults.is_empty() { Ok(keys) } else { Err(faults) }
    }

    fn new(config: &KeyConfig, at: &str) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        if config.kid.as_deref() == Some("") {
            faults.push(Fault::new(format!("{at}.kid"), "is empty: leave it out, and the key verifies any token"));
        }
        let Some(method) = Method::named(&config.algorithm) else {
            let names = METHODS.map(|method| method.name).join(", ");
            faults.push(Fault::new(format!("{at}.algorithm"), format!("is none of {names}")));
            return Err(faults);
        };
        let material = match method.algorithm.family() {
            AlgorithmFamily::Hmac => secret_key(method, config, at, &mut faults),
            AlgorithmFamily::Rsa => public_key(method, config, at, &mut faults, rsa_key),
            AlgorithmFamily::Ec => public_key(method, config, at, &mut faults, DecodingKey::from_ec_pem),
            AlgorithmFamily::Ed => public_key(method, config, at, &mut faults, ed25519_key),
        };
        match material {
            Some(material) if faults.is_empty() => Ok(Self { kid: config.kid.clone(), method, material }),
            Some(_) | None => Err(faults),
        }
    }

    /// Whether a token with this `kid`, or none, may have been signed with the key.
    pub fn may_have_signed(&self, kid: Option<&str>) -> bool {
        match (&self.kid, kid) {
            (Some(own), Some(kid)) => own == kid,
            (None, _) | (_, None) => true,
        }
    }

    /// Whether the key is for this algorithm.
    pub fn is_for(&self, method: &Method) -> bool {
        self.method.algorithm == method.algorithm
    }

    /// Whether the signature, in base64url, is the key's.
    pub fn signed(&self, message: &str, signature: &str) -> bool {
        matches!(verify(signature, message.as_bytes(), &self.material, self.method.algorithm), Ok(true))
    }
}

/// The secret of a key for an HS algorithm.
pub fn secret<'a>(method: &Method, config: &'a KeyConfig) -> Result<&'a [u8], Invalid> {
    let name = method.name;
    let Some(secret) = &config.secret else {
        return Err(Invalid::new(format!("is missing: {name} takes {SECRET}")));
    };
    let secret = secret.expose_secret().as_bytes();
    if secret.len() < MIN_SECRET {
        return Err(Invalid::new(format!("has {} bytes: {name} takes {SECRET}", secret.len())));
    }
    Ok(secret)
}

fn same_name(a: &KeyConfig, b: &KeyConfig) -> bool {
    a.kid == b.kid && a.algorithm == b.algorithm
}

fn secret_key(method: &Method, config: &KeyConfig, at: &str, faults: &mut Vec<Fault>) -> Option<DecodingKey> {
    if config.public_key_file.is_some() {
        let problem = format!("is not for {}, which takes {SECRET}", method.name);
        faults.push(Fault::new(format!("{at}.public_key_file"), problem));
    }
    match secret(method, config) {
        Ok(secret) => Some(DecodingKey::from_secret(secret)),
        Err(invalid) => {
            faults.push(Fault::new(format!("{at}.secret"), invalid.to_string()));
            None
        }
    }
}

type Reader = fn(&[u8]) -> errors::Result<DecodingKey>;

fn public_key(
    method: &Method,
    config: &KeyConfig,
    at: &str,
    faults: &mut Vec<Fault>,
    read: Reader,
) -> Option<DecodingKey> {
    if config.secret.is_some() {
        let problem = format!("is not for {}, which takes a public_key_file", method.name);
        faults.push(Fault::new(format!("{at}.secret"), problem));
    }
    let key = match &config.public_key_file {
        Some(path) => public_key_in(path, method, read),
        None => Err(format!("is missing: {} takes a PEM file with {}", method.name, method.takes)),
    };
    key.map_err(|problem| faults.push(Fault::new(format!("{at}.public_key_file"), problem))).ok()
}

fn public_key_in(path: &Path, method: &Method, read: Reader) -> Result<DecodingKey, String> {
    let shown = path.display();
    let pem = fs::read(path).map_err(|error| format!("`{shown}` cannot be read: {error}"))?;
    if String::from_utf8_lossy(&pem).contains("PRIVATE KEY-----") {
        return Err(format!("`{shown}` holds a private key, which Bugle should not have: give the public one"));
    }
    read(&pem)
        // Making a verifier sees what reading does not: the curve, and that the point is on it.
        .and_then(|key| (DEFAULT_PROVIDER.verifier_factory)(&method.algorithm, &key).map(|_| key))
        .map_err(|_| format!("`{shown}` is not the PEM file of a public key for {}: {}", method.name, method.takes))
}

fn rsa_key(pem: &[u8]) -> errors::Result<DecodingKey> {
    let key = DecodingKey::from_rsa_pem(pem)?;
    // The library reads the numbers only when it verifies, and then refuses every token if they are bad.
    let (modulus, _) = (DEFAULT_PROVIDER.key_utils.rsa_pub_components_from_public_key)(key.try_get_as_bytes()?)?;
    if modulus.len() * 8 < MIN_RSA_BITS {
        return Err(errors::ErrorKind::InvalidKeyFormat.into());
    }
    Ok(key)
}

fn ed25519_key(pem: &[u8]) -> errors::Result<DecodingKey> {
    let key = DecodingKey::from_ed_pem(pem)?;
    // The library's verifier panics on a shorter key.
    if key.try_get_as_bytes()?.len() != 32 {
        return Err(errors::ErrorKind::InvalidEddsaKey.into());
    }
    Ok(key)
}
