use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `[[client_events]]`: what an event that a device sends does. At most one of `join`, `leave` and `relay`; a `reply` besides, or alone.
///
/// Templates take `{user}`, `{role}`, `{claim.NAME}`, `{arg}` (the event's first argument) and `{arg.NAME}` (a field of it). Arguments are texts
/// or integers of at most 256 bytes, without control characters.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClientEventConfig {
    /// The event's name.
    pub event: String,
    /// Only tokens with one of these roles may use the rule. Empty: all.
    #[serde(default)]
    pub roles: Vec<String>,
    /// Which of the rooms that the template can make are allowed. By default `granted` for `join`, `joined` for `relay`.
    pub rooms: Option<AllowedRooms>,
    /// The room that the connection joins.
    pub join: Option<String>,
    /// The room in which membership by client events ends. The connection stays if it has another reason.
    pub leave: Option<String>,
    /// Whom something is sent to.
    pub relay: Option<RelayConfig>,
    /// What the connection itself is sent.
    pub reply: Option<ReplyConfig>,
}

/// Which of a template's rooms are allowed.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AllowedRooms {
    /// Those that the token's `auth.jwt.rooms_claim`, or a backend's `AllowRoom`, covers.
    Granted,
    /// Those that the connection is in.
    Joined,
    /// All.
    Any,
}

/// `relay` of `[[client_events]]`: to a user or to a room, never to the sending connection itself.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RelayConfig {
    /// The user.
    pub user: Option<String>,
    /// Or the room.
    pub room: Option<String>,
    /// The name of the event that is sent; by default that of the event that came.
    pub event: Option<String>,
    /// Its payload: texts in it are templates. None: no argument.
    pub payload: Option<Value>,
}

/// `reply` of `[[client_events]]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ReplyConfig {
    /// The name of the event that is sent.
    pub event: String,
    /// Its payload: texts in it are templates. None: no argument.
    pub payload: Option<Value>,
}
