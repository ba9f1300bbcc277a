use tonic::{Request, Response, Status};

use super::{
    decode::{self, Fields},
    encode,
    guard::caller,
};
use crate::command::Commands;
use crate::message::{self, OfNodes, Stats};
use crate::proto::v1::{
    GetStatsRequest, GetStatsResponse, GetUserRequest, GetUserResponse, GetUsersRequest, GetUsersResponse,
    ListUsersRequest, ListUsersResponse, NodeStats, presence_server::Presence,
};

pub(super) struct Service(Commands);

impl Service {
    pub(super) fn new(commands: Commands) -> Self {
        Self(commands)
    }
}

#[tonic::async_trait]
impl Presence for Service {
    async fn get_user(&self, request: Request<GetUserRequest>) -> Result<Response<GetUserResponse>, Status> {
        let caller = caller(&request)?;
        let user = decode::user(&request.get_ref().user_id)?;
        let OfNodes { answer, partial, .. } = self.0.get_user(&caller, &user).await?;
        let connections: Vec<_> = answer.into_iter().map(encode::connection).collect();
        Ok(Response::new(GetUserResponse { online: !connections.is_empty(), connections, partial }))
    }

    async fn get_users(&self, request: Request<GetUsersRequest>) -> Result<Response<GetUsersResponse>, Status> {
        let caller = caller(&request)?;
        let mut fields = Fields::default();
        let users = decode::users(&mut fields, &request.get_ref().user_ids);
        let users = fields.finish(Some(users))?;
        let OfNodes { answer, partial, .. } = self.0.get_users(&caller, users).await?;
        let users = answer.into_iter().map(encode::user_summary).collect();
        Ok(Response::new(GetUsersResponse { users, partial }))
    }

    async fn list_users(&self, request: Request<ListUsersRequest>) -> Result<Response<ListUsersResponse>, Status> {
        let caller = caller(&request)?;
        let ListUsersRequest { page_size, page_token } = request.get_ref();
        let mut fields = Fields::default();
        let page = decode::page(&mut fields, *page_size, page_token);
        let (size, after) = fields.finish(page)?;
        let OfNodes { answer: page, partial, .. } = self.0.list_users(&caller, after, size).await?;
        let next_page_token = encode::next_page_token(&page);
        let users = page.items.into_iter().map(encode::user_summary).collect();
        Ok(Response::new(ListUsersResponse { users, next_page_token, partial }))
    }

    async fn get_stats(&self, request: Request<GetStatsRequest>) -> Result<Response<GetStatsResponse>, Status> {
        let OfNodes { answer, partial, .. } = self.0.get_stats(&*caller(&request)?).await?;
        let Stats { users, connections, rooms, nodes } = answer;
        let node = |stats: message::NodeStats| NodeStats {
            node: stats.node.to_string(),
            users: stats.users,
            connections: stats.connections,
            rooms: stats.rooms,
        };
        let nodes = nodes.into_iter().map(node).collect();
        Ok(Response::new(GetStatsResponse { users, connections, rooms, nodes, partial }))
    }
}
