//! The least that a gRPC call takes: tonic as it comes, with an answer that is there already.

use bugle::proto::v1::{
    BroadcastRequest, BroadcastResponse, DisconnectUserRequest, DisconnectUserResponse, EmitBatchRequest,
    EmitBatchResponse, EmitStreamRequest, EmitStreamResponse, EmitToRoomRequest, EmitToRoomResponse, EmitToUserRequest,
    EmitToUserResponse, EmitToUsersRequest, EmitToUsersResponse, Receipt,
    notify_server::{Notify, NotifyServer},
};
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status, Streaming, async_trait,
    transport::{Server, server::TcpIncoming},
};
use uuid::Uuid;

use crate::child::announce;

/// The argument that makes this program the server.
pub const NAME: &str = "no-op";

struct NoOp {
    /// As one of Bugle's, so that as much is sent.
    message_id: String,
}

/// Serves until it is killed.
pub async fn serve() -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    announce(listener.local_addr()?)?;
    let service = NotifyServer::new(NoOp { message_id: Uuid::now_v7().to_string() });
    // As tonic does it when it is the one that binds.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Ok(Server::builder().add_service(service).serve_with_incoming(incoming).await?)
}

fn unused<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("nobody calls this"))
}

#[async_trait]
impl Notify for NoOp {
    type EmitStreamStream = tokio_stream::Empty<Result<EmitStreamResponse, Status>>;

    async fn emit_to_user(&self, _: Request<EmitToUserRequest>) -> Result<Response<EmitToUserResponse>, Status> {
        let message_id = self.message_id.clone();
        let receipt = Receipt { message_id, matched: 1, enqueued: 1, nodes: 1, ..Receipt::default() };
        Ok(Response::new(EmitToUserResponse { receipt: Some(receipt) }))
    }

    async fn emit_to_users(&self, _: Request<EmitToUsersRequest>) -> Result<Response<EmitToUsersResponse>, Status> {
        unused()
    }

    async fn emit_to_room(&self, _: Request<EmitToRoomRequest>) -> Result<Response<EmitToRoomResponse>, Status> {
        unused()
    }

    async fn broadcast(&self, _: Request<BroadcastRequest>) -> Result<Response<BroadcastResponse>, Status> {
        unused()
    }

    async fn emit_batch(&self, _: Request<EmitBatchRequest>) -> Result<Response<EmitBatchResponse>, Status> {
        unused()
    }

    async fn emit_stream(
        &self,
        _: Request<Streaming<EmitStreamRequest>>,
    ) -> Result<Response<Self::EmitStreamStream>, Status> {
        unused()
    }

    async fn disconnect_user(
        &self,
        _: Request<DisconnectUserRequest>,
    ) -> Result<Response<DisconnectUserResponse>, Status> {
        unused()
    }
}
