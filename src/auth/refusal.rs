/// Why a device is not let in. What is displayed is what the device sees, to the letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefused {
    /// There is no token, or an empty one.
    #[error("Authentication token required")]
    Missing,
    /// What should hold the token is not JSON that can be read.
    #[error("Malformed authentication payload")]
    Unreadable,
    /// There is a token, and it is no good. Why is for operators alone.
    #[error("Invalid or expired token")]
    Invalid(#[from] InvalidToken),
}

impl TokenRefused {
    /// The label in logs and metrics, from a closed list.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Unreadable => "unreadable",
            Self::Invalid(invalid) => invalid.reason(),
        }
    }
}

/// What is wrong with a token. It repeats nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// More bytes than Bugle reads.
    #[error("the token has more than 8192 bytes")]
    TooLong,
    /// Not three parts, not base64url, not JSON, not an object, or with a header or time that is not as RFC 7515 and 7519
    /// have it. Extensions that the header calls critical are not understood either.
    #[error("the token is not a JSON web token that can be read")]
    Malformed,
    /// Its header's `kid` is none of the configured ones.
    #[error("the token's `kid` is not among the configured keys")]
    UnknownKey,
    /// Its header's `alg` is not that of a key that might have signed it.
    #[error("the token's `alg` is not the algorithm of the key")]
    Algorithm,
    /// No key that might have signed it did.
    #[error("the token's signature is not by a configured key")]
    Signature,
    /// Its `exp`, and the leeway, are over.
    #[error("the token expired")]
    Expired,
    /// Its `nbf` is still to come, the leeway included.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// Its `iss` is not among `auth.jwt.issuer`.
    #[error("the token's `iss` is not an accepted issuer")]
    Issuer,
    /// Nothing in its `aud` is among `auth.jwt.audience`.
    #[error("the token's `aud` is not an accepted audience")]
    Audience,
    /// It has no `exp`, or one that is no number.
    #[error("the token has no `exp` that is a number")]
    NoExpiry,
    /// The claim named by `auth.jwt.user_claim` is absent, or no user id.
    #[error("the token's user claim is absent, or neither a text of 1 to 256 bytes nor an integer")]
    UserClaim,
    /// The claim named by `auth.jwt.role_claim` holds something else than roles, or too many.
    #[error("the token's role claim is not a role, nor a list of at most 64")]
    RoleClaim,
    /// `auth.rooms` makes too many rooms of its claims.
    #[error("the token's claims make more than 256 rooms")]
    RoomTemplate,
}

impl InvalidToken {
    fn reason(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::UnknownKey => "unknown_key",
            Self::Algorithm => "algorithm",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::NoExpiry => "no_expiry",
            Self::UserClaim => "user_claim",
            Self::RoleClaim => "role_claim",
            Self::RoomTemplate => "room_template",
        }
    }
}
