use super::{Admission, Commands};
use crate::auth::{Identity, TokenRefused};
use crate::message::RoomName;

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
    /// Replaces a live connection's token: the rooms that only the old one gave are left, those of the new one joined. Rooms
    /// that the device joined by an event are left unless it still might.
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
        let may_stay = |room: &RoomName| self.may_stay(&new, room);
        self.delivery.replace_rooms(admission.member(), &old.rooms, &new.rooms, may_stay).await;
        Ok(new)
    }
}
