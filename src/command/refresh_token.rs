use super::{Admission, Commands};
use crate::auth::{Identity, TokenRefused};

/// Why a live connection keeps its old token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefreshRefused {
    /// The new token is no good.
    #[error("{0}")]
    Token(TokenRefused),
    /// The new token is another user's.
    #[error("the token names another user")]
    OtherUser,
}

impl Commands {
    /// Replaces a live connection's token: the rooms that only the old one gave are left, those of the new one joined.
    pub async fn refresh_token(
        &self,
        admission: &Admission,
        old: &Identity,
        token: Option<&str>,
    ) -> Result<Identity, RefreshRefused> {
        let new = self.tokens.verify(token).map_err(RefreshRefused::Token)?;
        if new.user != old.user {
            return Err(RefreshRefused::OtherUser);
        }
        self.delivery.replace_rooms(admission.member(), &old.rooms, &new.rooms).await;
        Ok(new)
    }
}
