//! The server as it is started, without limits per address, because all calls come from one.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use wa_core::time::SystemClock;
use wa_core::transport::StubTransport;
use wa_server_example::assemble::{Ports, Server, open_for_server};
use wa_server_example::settings::{Settings, Source};

/// A running server.
pub struct Full(Server);

impl Full {
    pub async fn start(file: &Path) -> Self {
        let folder = file.parent().and_then(Path::to_str).expect("the file is in a folder");
        let database = format!("sqlite:{}", file.display());
        let source = Source::default()
            .with("PORT", "0")
            .with("DATA_DIR", folder)
            .with("DATABASE_URL", database)
            .with("DASHBOARD_USERNAME", "boss")
            .with("DASHBOARD_PASSWORD", "correct horse")
            .with("LEAD_WEBHOOK_PER_MINUTE", "0")
            .with("API_PER_MINUTE", "0")
            .with("NODE_NAME", "bench");
        let settings = Settings::read(&source).expect("the settings are right");
        let ports = Ports {
            store: open_for_server(&settings).await.expect("the database opens").0,
            shared: None,
            clock: Arc::new(SystemClock::new()),
            transports: vec![Arc::new(StubTransport::new())],
        };
        Self(Server::start(settings, ports).await.expect("the server starts"))
    }

    pub fn address(&self) -> SocketAddr {
        self.0.address()
    }

    pub async fn stop(self) {
        self.0.stop().await;
    }
}
