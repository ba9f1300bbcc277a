use tonic::{Request, Response, Status};

use super::{
    decode::{self, Fields},
    encode,
    guard::caller,
};
use crate::command::{Commands, Error, JoinRoom};
use crate::message::{OfNodes, RoomName, UserId};
use crate::proto::v1::{
    AllowRoomRequest, AllowRoomResponse, ForbidRoomRequest, ForbidRoomResponse, GetRoomRequest, GetRoomResponse,
    JoinRoomRequest, JoinRoomResponse, LeaveRoomRequest, LeaveRoomResponse, ListRoomsRequest, ListRoomsResponse,
    RoomSummary, get_room_response::Member, rooms_server::Rooms,
};

pub(super) struct Service(Commands);

impl Service {
    pub(super) fn new(commands: Commands) -> Self {
        Self(commands)
    }
}

#[tonic::async_trait]
impl Rooms for Service {
    async fn join_room(&self, request: Request<JoinRoomRequest>) -> Result<Response<JoinRoomResponse>, Status> {
        let caller = caller(&request)?;
        let JoinRoomRequest { room, user_id, ttl } = request.get_ref();
        let command = decode_join_room(user_id, room, ttl.as_ref())?;
        let OfNodes { answer, partial, .. } = self.0.join_room(&caller, &command).await?;
        Ok(Response::new(JoinRoomResponse { joined: answer as u64, partial }))
    }

    async fn leave_room(&self, request: Request<LeaveRoomRequest>) -> Result<Response<LeaveRoomResponse>, Status> {
        let caller = caller(&request)?;
        let LeaveRoomRequest { room, user_id } = request.get_ref();
        let mut fields = Fields::default();
        let user_and_room = decode::user_and_room(&mut fields, user_id, room);
        let (user, room) = fields.finish(user_and_room)?;
        let OfNodes { answer, partial, .. } = self.0.leave_room(&caller, &user, &room).await?;
        Ok(Response::new(LeaveRoomResponse { left: answer as u64, partial }))
    }

    async fn allow_room(&self, request: Request<AllowRoomRequest>) -> Result<Response<AllowRoomResponse>, Status> {
        let caller = caller(&request)?;
        let AllowRoomRequest { room, user_id, ttl } = request.get_ref();
        self.0.allow_room(&caller, &decode_join_room(user_id, room, ttl.as_ref())?).await?;
        Ok(Response::new(AllowRoomResponse {}))
    }

    async fn forbid_room(&self, request: Request<ForbidRoomRequest>) -> Result<Response<ForbidRoomResponse>, Status> {
        let caller = caller(&request)?;
        let ForbidRoomRequest { room, user_id } = request.get_ref();
        let mut fields = Fields::default();
        let user_and_room = decode::user_and_room(&mut fields, user_id, room);
        let (user, room) = fields.finish(user_and_room)?;
        let OfNodes { answer, partial, .. } = self.0.forbid_room(&caller, &user, &room).await?;
        Ok(Response::new(ForbidRoomResponse { left: answer as u64, partial }))
    }

    async fn list_rooms(&self, request: Request<ListRoomsRequest>) -> Result<Response<ListRoomsResponse>, Status> {
        let caller = caller(&request)?;
        let ListRoomsRequest { prefix, page_size, page_token } = request.get_ref();
        let mut fields = Fields::default();
        let page = decode::page(&mut fields, *page_size, page_token);
        let (size, after) = fields.finish(page)?;
        let OfNodes { answer: page, partial, .. } = self.0.list_rooms(&caller, prefix, after, size).await?;
        let next_page_token = encode::next_page_token(&page);
        let summary = |(room, connections): (_, usize)| RoomSummary {
            room: ToString::to_string(&room as &RoomName),
            connection_count: connections as u64,
        };
        let rooms = page.items.into_iter().map(summary).collect();
        Ok(Response::new(ListRoomsResponse { rooms, next_page_token, partial }))
    }

    async fn get_room(&self, request: Request<GetRoomRequest>) -> Result<Response<GetRoomResponse>, Status> {
        let caller = caller(&request)?;
        let GetRoomRequest { room, page_size, page_token } = request.get_ref();
        let mut fields = Fields::default();
        let room = fields.take("room", RoomName::new(room));
        let page = decode::page(&mut fields, *page_size, page_token);
        let (room, (size, after)) = fields.finish(room.zip(page))?;
        let OfNodes { answer: found, partial, .. } = self.0.get_room(&caller, &room, after, size).await?;
        let next_page_token = encode::next_page_token(&found.page);
        let member = |(user, connections): (UserId, usize)| Member {
            user_id: user.to_string(),
            connection_count: encode::count32(connections),
        };
        Ok(Response::new(GetRoomResponse {
            users: found.page.items.into_iter().map(member).collect(),
            next_page_token,
            user_count: found.users as u64,
            connection_count: found.connections as u64,
            partial,
        }))
    }
}

fn decode_join_room(user_id: &str, room: &str, ttl: Option<&prost_types::Duration>) -> Result<JoinRoom, Error> {
    let mut fields = Fields::default();
    let user_and_room = decode::user_and_room(&mut fields, user_id, room);
    let ttl = decode::right_ttl(&mut fields, ttl);
    fields.finish(user_and_room.zip(ttl).map(|((user, room), ttl)| JoinRoom { user, room, ttl }))
}
