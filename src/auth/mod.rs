//! Who is calling, and what they may do. Knows no transport.
//!
//! A device shows a token, and [`Tokens`] makes an [`Identity`] of it: the user, the roles, the rooms to join. A backend
//! shows an API key, and [`ApiKeys`] finds its [`Caller`], who has scopes.

mod config;
pub use config::{ApiKeyConfig, Config, JwtConfig, KeyConfig, OnExpiry};

mod tokens;
pub use tokens::{MAX_TOKEN, Tokens};

mod refusal;
pub use refusal::{InvalidToken, TokenRefused};

mod payload;
pub use payload::AuthPayload;

mod identity;
pub use identity::Identity;

mod expiry;
pub use expiry::{Expiry, ExpiryDue};

mod claims;
pub use claims::text_of;

mod placeholder;
pub use placeholder::{Part, Place, Placeholder};

mod template;
pub use template::{Template, TooManyRooms, is_usable};

mod key;

mod mint;
pub use mint::{MintError, mint};

mod api_key;
pub use api_key::{ApiKeys, Caller, KeyRefused};

mod scope;
pub use scope::{MissingScope, Right};

#[cfg(test)]
mod tests;
