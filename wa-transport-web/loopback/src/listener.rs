//! The loopback on sockets: WebSocket for clients, HTTP for media.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, RawQuery, State as FromState};
use axum::http::StatusCode;
use axum::routing::get;
use futures::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_websockets::{Message, ServerBuilder};
use whatsapp_rust::async_channel;
use whatsapp_rust::transport::TransportEvent;

use crate::connection::{Wire, serve};
use crate::media::MediaAnswer;
use crate::server::Shared;
use crate::transport::PIECES_MAX;

/// The loopback on two ports of 127.0.0.1; both close when it is dropped.
pub struct Listener {
    websocket: SocketAddr,
    media: SocketAddr,
    tasks: JoinSet<()>,
}

impl Listener {
    pub(crate) async fn bind(shared: Arc<Shared>, websocket_port: u16, media_port: u16) -> io::Result<Self> {
        let websockets = TcpListener::bind((Ipv4Addr::LOCALHOST, websocket_port)).await?;
        let media_requests = TcpListener::bind((Ipv4Addr::LOCALHOST, media_port)).await?;
        let (websocket, media) = (websockets.local_addr()?, media_requests.local_addr()?);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(websockets, shared.clone()));
        let media_max_bytes = shared.media_max_bytes;
        let router = axum::Router::new()
            .route("/{*path}", get(download).post(upload))
            .layer(DefaultBodyLimit::max(media_max_bytes))
            .with_state(shared);
        tasks.spawn(async move {
            if let Err(error) = axum::serve(media_requests, router).await {
                tracing::warn!(%error, "the media server of the loopback ended");
            }
        });
        Ok(Self {
            websocket,
            media,
            tasks,
        })
    }

    /// Where clients connect to, for instance `ws://127.0.0.1:40001/ws/chat`.
    #[must_use]
    pub fn websocket_url(&self) -> String {
        format!("ws://{}/ws/chat", self.websocket)
    }

    /// The port of 127.0.0.1 for clients.
    #[must_use]
    pub const fn websocket_port(&self) -> u16 {
        self.websocket.port()
    }

    /// The port of 127.0.0.1 for media.
    #[must_use]
    pub const fn media_port(&self) -> u16 {
        self.media.port()
    }

    /// Where media are uploaded to and downloaded from, for instance `http://127.0.0.1:40002`, without a slash at its end.
    #[must_use]
    pub fn media_url(&self) -> String {
        format!("http://{}", self.media)
    }

    /// Serves until the process ends.
    pub async fn serve(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    clients.spawn(client(socket, shared.clone()));
                }
                Err(error) => tracing::warn!(%error, "the loopback could not accept a connection"),
            },
            Some(_) = clients.join_next() => {}
        }
    }
}

async fn client(socket: TcpStream, shared: Arc<Shared>) {
    // Small frames in both directions: without this each answer waits for the other side's acknowledgement.
    let _ = socket.set_nodelay(true);
    let Ok((_request, websocket)) = ServerBuilder::new().accept(socket).await else {
        return;
    };
    let (mut writing, mut reading) = websocket.split();
    let (to_server, from_client) = async_channel::bounded(PIECES_MAX);
    let (to_client, from_server) = async_channel::bounded(PIECES_MAX);
    let reads = async {
        while let Some(Ok(message)) = reading.next().await {
            if message.is_binary() && to_server.send(message.into_payload().into()).await.is_err() {
                break;
            }
        }
        to_server.close();
    };
    let writes = async {
        while let Ok(event) = from_server.recv().await {
            let TransportEvent::DataReceived(bytes) = event else {
                break;
            };
            if writing.send(Message::binary(bytes)).await.is_err() {
                break;
            }
        }
        let _ = writing.close().await;
        from_server.close();
    };
    let serving = async {
        tokio::join!(serve(shared, Wire { from_client, to_client }), writes);
    };
    // A client that goes on sending after the server has ended the connection is not listened to.
    tokio::select! {
        () = serving => {}
        () = async { reads.await; std::future::pending::<()>().await } => {}
    }
}

async fn upload(
    FromState(shared): FromState<Arc<Shared>>,
    Path(path): Path<String>,
    RawQuery(query): RawQuery,
    body: Bytes,
) -> (StatusCode, Vec<u8>) {
    let resume = query.is_some_and(|query| query.split('&').any(|pair| pair == "resume=1"));
    answer(shared.with(|state| state.upload(&path, resume, body.to_vec())))
}

async fn download(FromState(shared): FromState<Arc<Shared>>, Path(path): Path<String>) -> (StatusCode, Vec<u8>) {
    answer(shared.with(|state| state.download(&format!("/{path}"))))
}

/// A broken connection is a server error here: a handler cannot end its connection.
fn answer(answer: MediaAnswer) -> (StatusCode, Vec<u8>) {
    let (status, body) = answer.unwrap_or((500, Vec::new()));
    (
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        body,
    )
}
