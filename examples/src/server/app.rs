//! What the routes share, and the handler of the server's one message of its own.

use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::value::RawValue;
use tidings_auth_jwt::Jwks;
use tidings_bus_redis::RedisBus;
use tidings_core::json::Object;
use tidings_core::{
    CloseReason, Context, Handler, HandlerError, Hub, Message, Publication, Reply, RoomId,
};
use tidings_transport_sse::SseConfig;
use tidings_transport_ws::WsConfig;

use crate::cli::Cli;
use crate::metrics::Metrics;

/// What the routes share. It holds secrets, so it has no `Debug`.
pub(crate) struct App {
    pub(crate) hub: Hub,
    pub(crate) cli: Cli,
    pub(crate) ws: WsConfig,
    pub(crate) sse: SseConfig,
    pub(crate) publish_key: String,
    /// The secret that demo tokens are signed with; only in demo mode.
    pub(crate) demo_secret: Option<String>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) redis: Option<RedisBus>,
    /// The keys that rotate, when they are read from a URL.
    pub(crate) keys: Option<Jwks>,
    pub(crate) started: tokio::time::Instant,
}

/// Who may connect, over both transports.
pub(crate) fn transports(cli: &Cli) -> (WsConfig, SseConfig) {
    let (mut ws, mut sse) = (WsConfig::default(), SseConfig::default());
    for (origins, cookie) in
        [(&mut ws.allowed_origins, &mut ws.cookie), (&mut sse.allowed_origins, &mut sse.cookie)]
    {
        origins.clone_from(&cli.allow_origin);
        cookie.clone_from(&cli.cookie);
    }
    (ws, sse)
}

/// `room:message {roomId, data}`: publishes it to the room, with the sender's name, when the sender is in it.
#[derive(Debug)]
pub(crate) struct RoomMessages;

#[async_trait]
impl Handler for RoomMessages {
    async fn on_connect(&self, _: &Context) -> Result<(), CloseReason> {
        Ok(())
    }

    async fn on_message(
        &self,
        context: &Context,
        message: &Message,
    ) -> Result<Reply, HandlerError> {
        #[derive(Deserialize)]
        struct Said<'a> {
            #[serde(rename = "roomId")]
            room_id: String,
            #[serde(borrow)]
            data: &'a RawValue,
        }
        if message.kind.as_str() != "room:message" {
            return Ok(Reply::Unknown);
        }
        let payload = message.payload.as_ref().ok_or(HandlerError::Invalid)?;
        let Object(said): Object<Said<'_>> =
            serde_json::from_slice(payload.bytes()).map_err(|_| HandlerError::Invalid)?;
        let room = RoomId::new(&said.room_id).map_err(|_| HandlerError::Invalid)?;
        if !context.is_in(&room).await {
            return Err(HandlerError::Forbidden);
        }
        let text = |text: &str| serde_json::to_string(text).map_err(|_| HandlerError::Internal);
        let (room_id, user_id) = (text(room.as_str())?, text(context.identity().user.as_str())?);
        let json =
            format!(r#"{{"roomId":{room_id},"userId":{user_id},"data":{}}}"#, said.data.get());
        let message = Message::json("room:message", json).map_err(|_| HandlerError::Invalid)?;
        context.publish(Publication::new(context.room(room), message)).await?;
        Ok(Reply::None)
    }

    async fn on_disconnect(&self, _: &Context) {}
}
