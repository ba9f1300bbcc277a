use tonic::{Request, Response, Status};

use super::{caller, decode, encode};
use crate::command::{Commands, Error, JoinRoom};
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
        let JoinRoomRequest { room, user_id, ttl } = request.into_inner();
        let (user, room) = decode::user_and_room(&user_id, &room)?;
        let ttl = decode::duration("ttl", ttl)?.unwrap_or(JoinRoom::DEFAULT_TTL);
        let joined = self.0.join_room(&caller, &JoinRoom { user, room, ttl }).await?;
        Ok(Response::new(JoinRoomResponse { joined: joined as u64 }))
    }

    async fn leave_room(&self, request: Request<LeaveRoomRequest>) -> Result<Response<LeaveRoomResponse>, Status> {
        let caller = caller(&request)?;
        let LeaveRoomRequest { room, user_id } = request.get_ref();
        let (user, room) = decode::user_and_room(user_id, room)?;
        let left = self.0.leave_room(&caller, &user, &room)?;
        Ok(Response::new(LeaveRoomResponse { left: left as u64 }))
    }

    async fn allow_room(&self, _: Request<AllowRoomRequest>) -> Result<Response<AllowRoomResponse>, Status> {
        Err(Error::not_built("Rooms.AllowRoom").into())
    }

    async fn forbid_room(&self, _: Request<ForbidRoomRequest>) -> Result<Response<ForbidRoomResponse>, Status> {
        Err(Error::not_built("Rooms.ForbidRoom").into())
    }

    async fn list_rooms(&self, request: Request<ListRoomsRequest>) -> Result<Response<ListRoomsResponse>, Status> {
        let caller = caller(&request)?;
        let ListRoomsRequest { prefix, page_size, page_token } = request.get_ref();
        let (size, after) = decode::page(*page_size, page_token)?;
        let page = self.0.list_rooms(&caller, prefix, after, size)?;
        let next_page_token = encode::next_page_token(&page);
        let summary = |(room, connections): (_, usize)| RoomSummary {
            room: ToString::to_string(&room as &crate::message::RoomName),
            connection_count: connections as u64,
        };
        let rooms = page.items.into_iter().map(summary).collect();
        Ok(Response::new(ListRoomsResponse { rooms, next_page_token }))
    }

    async fn get_room(&self, request: Request<GetRoomRequest>) -> Result<Response<GetRoomResponse>, Status> {
        let caller = caller(&request)?;
        let GetRoomRequest { room, page_size, page_token } = request.get_ref();
        let room = decode::room(room)?;
        let (size, after) = decode::page(*page_size, page_token)?;
        let found = self.0.get_room(&caller, &room, after, size)?;
        let next_page_token = encode::next_page_token(&found.page);
        let member = |(user, connections): (crate::message::UserId, usize)| Member {
            user_id: user.to_string(),
            connection_count: encode::count32(connections),
        };
        Ok(Response::new(GetRoomResponse {
            users: found.page.items.into_iter().map(member).collect(),
            next_page_token,
            user_count: found.users as u64,
            connection_count: found.connections as u64,
        }))
    }
}
