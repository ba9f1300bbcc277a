use tonic::{Request, Response, Status};

use super::{caller, decode::Fields};
use crate::command::Commands;
use crate::message::{EventName, Payload, RoomName};
use crate::proto::v1::{
    GetRetainedRequest, GetRetainedResponse, get_retained_response::Payload as Retained, mailbox_server::Mailbox,
};

pub(super) struct Service(Commands);

impl Service {
    pub(super) fn new(commands: Commands) -> Self {
        Self(commands)
    }
}

#[tonic::async_trait]
impl Mailbox for Service {
    async fn get_retained(
        &self,
        request: Request<GetRetainedRequest>,
    ) -> Result<Response<GetRetainedResponse>, Status> {
        let caller = caller(&request)?;
        let mut fields = Fields::default();
        let room = fields.take("room", RoomName::new(&request.get_ref().room));
        let event = fields.take("event", EventName::new(&request.get_ref().event));
        let (room, event) = fields.finish(room.zip(event))?;
        let payload = match self.0.get_retained(&caller, &room, &event)? {
            Payload::None => None,
            Payload::Json(raw) => Some(Retained::Json(raw.get().to_owned())),
            Payload::Binary(bytes) => Some(Retained::Binary(bytes)),
        };
        Ok(Response::new(GetRetainedResponse { payload }))
    }
}
