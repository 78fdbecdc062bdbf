//! Connections of clients: taken, limited in number, and closed when no request comes.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, Sleep};

/// How long nothing is accepted after the system refused to: it has no more descriptors or no memory, and needs time, not
/// questions.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// How long a client may take nothing of an answer that waits to be sent.
pub(crate) const STALLED_MAX: Duration = Duration::from_secs(60);
/// How often it is said at most that no more connections are taken.
const FULL_SAID_EVERY: Duration = Duration::from_secs(60);

/// What connections are allowed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Connections {
    /// Most connections at a time, WebSockets among them; more wait in the system's queue until one ends.
    pub(crate) most: usize,
    /// How long a connection may be without the whole header of its next request.
    pub(crate) header_timeout: Duration,
    /// How long a client may take nothing of an answer that waits to be sent.
    pub(crate) stalled_max: Duration,
}

impl Connections {
    /// Serves the connections that `accept` gives until `stopped`, and then until the requests under way have been answered.
    pub(crate) async fn serve(
        self,
        mut accept: impl FnMut(&mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>>,
        router: Router,
        stopped: impl Future<Output = ()> + Clone + Send + 'static,
    ) {
        let turns = Arc::new(Semaphore::new(self.most));
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(self.header_timeout);
        let service = TowerToHyperService::new(router);
        let (open, mut closed) = mpsc::channel::<Infallible>(1);
        let mut stop = pin!(stopped.clone());
        let mut full_said_at: Option<Instant> = None;
        loop {
            let is_news = full_said_at.is_none_or(|at| at.elapsed() >= FULL_SAID_EVERY);
            if turns.available_permits() == 0 && is_news {
                tracing::warn!(
                    most = self.most,
                    "as many connections are open as may be (CONNECTIONS_MAX): more wait"
                );
                full_said_at = Some(Instant::now());
            }
            let turn = tokio::select! {
                turn = Arc::clone(&turns).acquire_owned() => turn.expect("it is never closed"),
                () = &mut stop => break,
            };
            let accepted = tokio::select! {
                accepted = poll_fn(&mut accept) => accepted,
                () = &mut stop => break,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                // It was over before it was taken.
                Err(error) if is_of_one_connection(&error) => continue,
                Err(error) => {
                    tracing::error!(%error, "no connection can be accepted; it is tried again");
                    tokio::select! {
                        () = tokio::time::sleep(ACCEPT_AGAIN_AFTER) => continue,
                        () = &mut stop => break,
                    }
                }
            };
            let service = service.clone();
            let service = service_fn(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(ConnectInfo(peer));
                service.call(request)
            });
            let stream = Counted {
                stream,
                stalled_max: self.stalled_max,
                stalled: None,
                _turn: turn,
            };
            let connection = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
            let (open, stopped) = (open.clone(), stopped.clone());
            tokio::spawn(async move {
                let (mut connection, stopped) = (pin!(connection), pin!(stopped));
                let ended = tokio::select! {
                    ended = connection.as_mut() => ended,
                    () = stopped => {
                        connection.as_mut().graceful_shutdown();
                        connection.await
                    }
                };
                if let Err(error) = ended {
                    tracing::trace!(%error, "a connection ended");
                }
                drop(open);
            });
        }
        // Whoever comes now is refused, and does not wait for nothing.
        drop(accept);
        drop(open);
        // Nobody sends: it ends when all connections have.
        let _ = closed.recv().await;
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}

/// A connection that takes a turn for as long as its descriptor is open, also when it has become a WebSocket.
struct Counted {
    stream: TcpStream,
    stalled_max: Duration,
    /// Runs while the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    _turn: OwnedSemaphorePermit,
}

impl Counted {
    /// Ends a connection whose client takes nothing for too long: it would keep its turn as long as it likes.
    fn unless_stalled(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let most = self.stalled_max;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(most)));
        let ended = stalled.as_mut().poll(cx);
        ended.map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
    }
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.unless_stalled(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.unless_stalled(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use futures::FutureExt as _;
    use futures::future::Shared;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;

    use super::*;

    struct Site {
        address: SocketAddr,
        stop: oneshot::Sender<()>,
        serving: JoinHandle<()>,
    }

    /// A site whose listener fails so often before each connection that it takes.
    async fn site(connections: Connections, failures: u32) -> Site {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped: Shared<_> = stopped.map(drop).shared();
        let who = async |ConnectInfo(peer): ConnectInfo<SocketAddr>| peer.to_string();
        let big = async || vec![0_u8; BIG_BYTES];
        let router = Router::new().route("/", get(who)).route("/big", get(big));
        let serving = tokio::spawn(async move {
            let mut left = failures;
            let accept = |cx: &mut Context<'_>| match left {
                0 => {
                    let accepted = listener.poll_accept(cx);
                    left = if accepted.is_ready() { failures } else { 0 };
                    accepted
                }
                _ => {
                    left -= 1;
                    // EMFILE
                    Poll::Ready(Err(io::Error::from_raw_os_error(24)))
                }
            };
            connections.serve(accept, router, stopped).await;
        });
        Site { address, stop, serving }
    }

    const CONNECTIONS: Connections = Connections {
        most: 100,
        header_timeout: Duration::from_secs(60),
        stalled_max: Duration::from_secs(60),
    };

    /// More than any socket keeps.
    const BIG_BYTES: usize = 64 << 20;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

    /// Sends a request and reads its answer; the connection stays open.
    async fn ask(client: &mut TcpStream) -> String {
        client.write_all(REQUEST).await.unwrap();
        let peer = client.local_addr().unwrap().to_string();
        let mut answer = Vec::new();
        while !answer.ends_with(peer.as_bytes()) {
            assert_ne!(client.read_buf(&mut answer).await.unwrap(), 0, "closed");
        }
        String::from_utf8(answer).unwrap()
    }

    /// Reads until the connection is closed.
    async fn closed(client: &mut TcpStream) {
        let mut rest = Vec::new();
        let until = tokio::time::timeout(Duration::from_secs(20), client.read_to_end(&mut rest));
        let _ = until.await.expect("it is closed before long");
    }

    #[tokio::test]
    async fn a_connection_that_sends_no_whole_header_is_closed_and_others_are_served_meanwhile() {
        let Site { address, stop, serving } = site(
            Connections {
                header_timeout: Duration::from_millis(300),
                ..CONNECTIONS
            },
            0,
        )
        .await;
        let mut half = TcpStream::connect(address).await.unwrap();
        half.write_all(b"GET / HTTP/1.1\r\nHos").await.unwrap();
        let mut silent = TcpStream::connect(address).await.unwrap();
        let mut idle = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut idle).await.starts_with("HTTP/1.1 200"));
        for waiting in [&mut half, &mut silent, &mut idle] {
            closed(waiting).await;
        }
        stop.send(()).unwrap();
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn beyond_the_limit_a_connection_waits_until_another_ends() {
        let Site { address, stop, serving } = site(Connections { most: 2, ..CONNECTIONS }, 0).await;
        let (mut first, mut second) = (
            TcpStream::connect(address).await.unwrap(),
            TcpStream::connect(address).await.unwrap(),
        );
        ask(&mut first).await;
        ask(&mut second).await;
        let mut third = TcpStream::connect(address).await.unwrap();
        third.write_all(REQUEST).await.unwrap();
        ask(&mut first).await;
        let mut byte = [0];
        assert!(third.read(&mut byte).now_or_never().is_none(), "it waits");
        drop(second);
        assert_eq!(third.read(&mut byte).await.unwrap(), 1, "it is served");
        drop((first, third));
        stop.send(()).unwrap();
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_of_its_answer_gives_its_turn_back() {
        let Site { address, stop, serving } = site(
            Connections {
                most: 1,
                stalled_max: Duration::from_millis(300),
                ..CONNECTIONS
            },
            0,
        )
        .await;
        let mut greedy = TcpStream::connect(address).await.unwrap();
        greedy.write_all(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        greedy.readable().await.unwrap();
        let mut next = TcpStream::connect(address).await.unwrap();
        let served = tokio::time::timeout(Duration::from_secs(20), ask(&mut next)).await;
        assert!(served.expect("its turn comes").starts_with("HTTP/1.1 200"));
        drop((greedy, next));
        stop.send(()).unwrap();
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn a_system_without_descriptors_is_asked_again_after_a_while() {
        let began = tokio::time::Instant::now();
        let Site { address, stop, serving } = site(CONNECTIONS, 2).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        ask(&mut client).await;
        assert!(began.elapsed() >= 2 * ACCEPT_AGAIN_AFTER, "it does not spin");
        drop(client);
        stop.send(()).unwrap();
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn a_stop_closes_what_is_idle() {
        let Site { address, stop, serving } = site(CONNECTIONS, 0).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        ask(&mut client).await;
        stop.send(()).unwrap();
        serving.await.unwrap();
        closed(&mut client).await;
        TcpStream::connect(address).await.expect_err("nobody listens any more");
    }
}
