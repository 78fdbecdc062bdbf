//! Connections within the process.

use std::sync::Arc;

use async_trait::async_trait;
use whatsapp_rust::anyhow;
use whatsapp_rust::async_channel;
use whatsapp_rust::bytes::Bytes;
use whatsapp_rust::transport::{Transport, TransportEvent, TransportFactory};

use crate::connection::{Wire, serve};
use crate::server::Shared;

/// How many pieces may lie between a client and the server in either direction.
pub(crate) const PIECES_MAX: usize = 256;

/// Connects clients of this process to the loopback, without sockets; cheap to clone.
#[derive(Clone)]
pub struct InProcess {
    pub(crate) shared: Arc<Shared>,
}

struct Pipe {
    to_server: async_channel::Sender<Bytes>,
    from_server: async_channel::Receiver<TransportEvent>,
}

#[async_trait]
impl Transport for Pipe {
    async fn send(&self, data: Bytes) -> Result<(), anyhow::Error> {
        self.to_server
            .send(data)
            .await
            .map_err(|_| anyhow::anyhow!("the connection has ended"))
    }

    async fn disconnect(&self) {
        self.to_server.close();
        self.from_server.close();
    }
}

#[async_trait]
impl TransportFactory for InProcess {
    async fn create_transport(
        &self,
    ) -> Result<(Arc<dyn Transport>, async_channel::Receiver<TransportEvent>), anyhow::Error> {
        let (to_server, from_client) = async_channel::bounded(PIECES_MAX);
        let (to_client, from_server) = async_channel::bounded(PIECES_MAX);
        to_client.try_send(TransportEvent::Connected)?;
        tokio::spawn(serve(self.shared.clone(), Wire { from_client, to_client }));
        Ok((
            Arc::new(Pipe {
                to_server,
                from_server: from_server.clone(),
            }),
            from_server,
        ))
    }
}
