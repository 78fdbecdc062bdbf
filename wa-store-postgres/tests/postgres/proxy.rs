//! A way to the shared server that can fall silent, as a machine does that loses its power, or a firewall that forgets its connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::watch;

use crate::PostgresOptions;
use crate::server::{Schema, Server};

#[derive(Debug)]
struct State {
    /// How often it fell silent: connections of before never hear anything again, and are not closed.
    silences: watch::Sender<usize>,
    /// Whether it falls silent when it has passed a COMMIT on.
    at_commit: AtomicBool,
    /// Connections that were opened.
    opened: AtomicUsize,
}

impl State {
    fn silence(&self) {
        self.silences.send_modify(|silences| *silences += 1);
    }
}

/// The way to the server.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    state: Arc<State>,
}

impl Proxy {
    pub async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            silences: watch::Sender::new(0),
            at_commit: AtomicBool::new(false),
            opened: AtomicUsize::new(0),
        });
        let accepting = state.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = Server::shared().socket().join(".s.PGSQL.5432");
                let server = UnixStream::connect(server).await.unwrap();
                accepting.opened.fetch_add(1, Ordering::SeqCst);
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(pass(accepting.clone(), from_client, to_server, true));
                tokio::spawn(pass(accepting.clone(), from_server, to_client, false));
            }
        });
        Self { port, state }
    }

    pub fn options(&self, schema: &Schema) -> PostgresOptions {
        let url = format!("postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable", self.port);
        PostgresOptions::url(url).schema(schema.name())
    }

    /// Passes nothing on any more in the connections of now.
    pub fn silence(&self) {
        self.state.silence();
    }

    /// Falls silent when it has passed the next COMMIT on, whose answer is never heard.
    pub fn silence_at_commit(&self) {
        self.state.at_commit.store(true, Ordering::SeqCst);
    }

    pub fn opened(&self) -> usize {
        self.state.opened.load(Ordering::SeqCst)
    }
}

/// Passes on what one side says until it closes the connection, or all fall silent: then it keeps both open.
async fn pass(
    state: Arc<State>,
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    from_client: bool,
) {
    let mut silences = state.silences.subscribe();
    let mut bytes = vec![0; 65_536];
    loop {
        let read = tokio::select! {
            biased;
            _ = silences.changed() => break,
            read = from.read(&mut bytes) => read.unwrap_or(0),
        };
        if read == 0 {
            let _ = to.shutdown().await;
            return;
        }
        let said = &bytes[..read];
        let commits = from_client && said.windows(6).any(|word| word == b"COMMIT");
        let last = commits && state.at_commit.swap(false, Ordering::SeqCst);
        if last {
            // The answer cannot be quicker: the server has not heard it yet.
            state.silence();
        }
        if to.write_all(said).await.is_err() || last {
            break;
        }
    }
    std::future::pending::<()>().await;
}
