use clap::Args;

use super::{
    Failure,
    backend::{AuthorizedChannel, Backend},
    print_json,
    printed::{Connection, Stats, User, UserSummary},
};
use crate::proto::v1;
use crate::proto::v1::presence_client::PresenceClient;

const PAGE_SIZE: i32 = 1_000;

/// `bugle presence`.
#[derive(Args)]
pub struct Presence {
    /// None: the counts. One: whether they are online, with each of their connections. Several: whether they are online.
    #[arg(value_name = "USER")]
    users: Vec<String>,
    /// Everyone who is online.
    #[arg(long, conflicts_with = "users")]
    list: bool,
    #[command(flatten)]
    backend: Backend,
}

type Client = PresenceClient<AuthorizedChannel>;

impl Presence {
    /// Asks and prints.
    pub async fn execute(mut self) -> Result<(), Failure> {
        let client = Client::new(self.backend.connect().await?);
        match self.users.len() {
            0 if self.list => list(client).await,
            0 => stats(client).await,
            1 => user(client, self.users.swap_remove(0)).await,
            _ => users(client, self.users).await,
        }
    }
}

async fn stats(mut client: Client) -> Result<(), Failure> {
    let stats = client.get_stats(v1::GetStatsRequest {}).await?.into_inner();
    print_json(&Stats::from(&stats))
}

async fn user(mut client: Client, user_id: String) -> Result<(), Failure> {
    let request = v1::GetUserRequest { user_id: user_id.clone() };
    let user = client.get_user(request).await?.into_inner();
    let connections = user.connections.iter().map(Connection::from).collect();
    print_json(&User { user_id: &user_id, online: user.online, connections })
}

async fn users(mut client: Client, user_ids: Vec<String>) -> Result<(), Failure> {
    let users = client.get_users(v1::GetUsersRequest { user_ids }).await?.into_inner().users;
    users.iter().try_for_each(|user| print_json(&UserSummary::from(user)))
}

async fn list(mut client: Client) -> Result<(), Failure> {
    let mut page_token = String::new();
    loop {
        let request = v1::ListUsersRequest { page_size: PAGE_SIZE, page_token };
        let page = client.list_users(request).await?.into_inner();
        page.users.iter().try_for_each(|user| print_json(&UserSummary::from(user)))?;
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(());
        }
    }
}
