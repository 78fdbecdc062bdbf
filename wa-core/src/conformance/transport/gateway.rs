//! A fake vendor that speaks HTTP/1.1 on loopback and does what a [`Behaviour`] says.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::Behaviour;

/// Largest request that the fake vendor reads, in bytes.
const REQUEST_BYTES_MAX: usize = 8 * 1024 * 1024;

/// How long a slow acceptance takes, and the pause between the bytes of an answer that trickles.
const PAUSE: Duration = Duration::from_millis(50);

/// A request that reached the fake vendor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GatewayRequest {
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl GatewayRequest {
    /// The value of a header, by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(own, _)| own == name)
            .map(|(_, value)| value.as_str())
    }

    /// The path without the query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// A field of the query or, if it is not there, of a form in the body.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<String> {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        [query.as_bytes(), self.body.as_slice()]
            .into_iter()
            .flat_map(url::form_urlencoded::parse)
            .find(|(own, _)| own == name)
            .map(|(_, value)| value.into_owned())
    }
}

/// An answer of the fake vendor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayAnswer {
    /// The HTTP status.
    pub status: u16,
    /// Headers besides `Content-Type` and `Content-Length`.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: String,
}

impl GatewayAnswer {
    /// An answer of JSON.
    pub fn json(status: u16, body: impl Into<String>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
        }
    }
}

type Answers = dyn Fn(Behaviour, &GatewayRequest) -> GatewayAnswer + Send + Sync;

struct Shared {
    behaviour: Mutex<Behaviour>,
    answers: Box<Answers>,
    requests: Mutex<Vec<GatewayRequest>>,
    arrived: watch::Sender<usize>,
    given_up: watch::Sender<usize>,
}

/// A fake vendor on loopback. Everything ends when it is dropped.
pub struct ScriptedGateway {
    shared: Arc<Shared>,
    address: SocketAddr,
    /// Bound and never listening: connections to it are refused, and nobody else can take its port meanwhile.
    deaf: TcpSocket,
    server: JoinHandle<()>,
}

impl std::fmt::Debug for ScriptedGateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScriptedGateway")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ScriptedGateway {
    /// Starts a vendor that accepts. `answers` gives the vendor's own words for the behaviours `Accept…`, `Refuse…`,
    /// `CutAnswering` and `Report…`; an answer `…UnderErrorStatus` goes out with HTTP 500 whatever it says.
    ///
    /// # Panics
    /// When loopback gives no port.
    pub async fn start(answers: impl Fn(Behaviour, &GatewayRequest) -> GatewayAnswer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("loopback gives a port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let deaf = TcpSocket::new_v4().expect("the operating system gives a socket");
        deaf.bind((Ipv4Addr::LOCALHOST, 0).into())
            .expect("loopback gives a port");
        let shared = Arc::new(Shared {
            behaviour: Mutex::new(Behaviour::Accept),
            answers: Box::new(answers),
            requests: Mutex::default(),
            arrived: watch::Sender::new(0),
            given_up: watch::Sender::new(0),
        });
        let server = tokio::spawn(serve(listener, Arc::clone(&shared)));
        Self {
            shared,
            address,
            deaf,
            server,
        }
    }

    /// Makes it behave so from now on.
    pub fn script(&self, behaviour: Behaviour) {
        *lock(&self.shared.behaviour) = behaviour;
    }

    /// Its base URL, without a slash at the end.
    ///
    /// # Panics
    /// Never: a bound socket has an address.
    #[must_use]
    pub fn base_url(&self) -> String {
        let address = match *lock(&self.shared.behaviour) {
            Behaviour::Unreachable => self.deaf.local_addr().expect("a bound socket has an address"),
            _ => self.address,
        };
        format!("http://{address}")
    }

    /// The entries of `GATEWAY_HOSTS` that allow it.
    ///
    /// # Panics
    /// Never: a bound socket has an address.
    #[must_use]
    pub fn hosts(&self) -> String {
        let deaf = self.deaf.local_addr().expect("a bound socket has an address");
        format!("{},{deaf}", self.address)
    }

    /// The requests that arrived; a connection that was cut unread is an empty one.
    #[must_use]
    pub fn requests(&self) -> Vec<GatewayRequest> {
        lock(&self.shared.requests).clone()
    }

    /// Returns as soon as `count` requests arrived.
    pub async fn arrived(&self, count: usize) {
        // The sender lives as long as `self`, so the wait cannot fail.
        let _ = self
            .shared
            .arrived
            .subscribe()
            .wait_for(|arrived| *arrived >= count)
            .await;
    }

    /// Returns as soon as a client has closed a connection that was left hanging.
    pub async fn given_up(&self) {
        let _ = self
            .shared
            .given_up
            .subscribe()
            .wait_for(|given_up| *given_up > 0)
            .await;
    }
}

impl Drop for ScriptedGateway {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(converse(stream, Arc::clone(&shared)));
        while connections.try_join_next().is_some() {}
    }
}

fn record(shared: &Shared, request: GatewayRequest) {
    lock(&shared.requests).push(request);
    shared.arrived.send_modify(|count| *count += 1);
}

/// Serves one connection until one side closes it; an I/O error means that the client did.
async fn converse(mut stream: TcpStream, shared: Arc<Shared>) {
    let behaviour = *lock(&shared.behaviour);
    if behaviour == Behaviour::CutBeforeReading {
        record(&shared, GatewayRequest::default());
        return;
    }
    while let Some(request) = read_request(&mut stream).await {
        let behaviour = *lock(&shared.behaviour);
        record(&shared, request.clone());
        if !answer(&mut stream, &shared, behaviour, &request).await {
            return;
        }
    }
}

/// Answers one request; `false` ends the connection.
async fn answer(stream: &mut TcpStream, shared: &Shared, behaviour: Behaviour, request: &GatewayRequest) -> bool {
    let own = || (shared.answers)(behaviour, request);
    let html = "<html><body>Service Unavailable</body></html>";
    match behaviour {
        Behaviour::CutBeforeReading | Behaviour::CutAfterReading | Behaviour::Unreachable => false,
        Behaviour::Hang => {
            let _ = stream.read(&mut [0; 1]).await;
            shared.given_up.send_modify(|count| *count += 1);
            false
        }
        Behaviour::Trickle => {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n";
            let mut written = stream.write_all(head.as_bytes()).await;
            while written.is_ok() {
                tokio::time::sleep(PAUSE).await;
                written = stream.write_all(b" ").await;
            }
            false
        }
        Behaviour::Flood => {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n";
            let mut written = stream.write_all(head.as_bytes()).await;
            while written.is_ok() {
                written = stream.write_all(&[b' '; 16 * 1024]).await;
            }
            false
        }
        Behaviour::CutAnswering => {
            let whole = render(&own());
            let half = whole.len() - whole.len().min(5);
            let _ = stream.write_all(&whole.as_bytes()[..half]).await;
            false
        }
        Behaviour::Garbage => write(stream, &GatewayAnswer::json(200, "<html>it works</html>")).await,
        Behaviour::ServerError => write(stream, &GatewayAnswer::json(503, html)).await,
        Behaviour::Redirect => {
            let mut answer = GatewayAnswer::json(307, "");
            answer.headers.push(("Location", request.target.clone()));
            write(stream, &answer).await
        }
        Behaviour::AcceptSlowly => {
            tokio::time::sleep(PAUSE).await;
            write(stream, &own()).await
        }
        Behaviour::AcceptThenClose => {
            write(stream, &own()).await;
            let mut next = [0; 1024];
            if stream.read(&mut next).await.is_ok_and(|count| count > 0) {
                record(shared, GatewayRequest::default());
            }
            false
        }
        Behaviour::AcceptUnderErrorStatus | Behaviour::ReportEmptyUnderErrorStatus => {
            let answer = GatewayAnswer { status: 500, ..own() };
            write(stream, &answer).await
        }
        Behaviour::Accept
        | Behaviour::Refuse(_)
        | Behaviour::RefuseEchoing
        | Behaviour::ReportFound
        | Behaviour::ReportDead
        | Behaviour::ReportEmpty
        | Behaviour::ReportForeign => write(stream, &own()).await,
    }
}

fn render(answer: &GatewayAnswer) -> String {
    let mut text = format!(
        "HTTP/1.1 {} Status\r\nContent-Type: application/json\r\n",
        answer.status
    );
    for (name, value) in &answer.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("Content-Length: {}\r\n\r\n{}", answer.body.len(), answer.body));
    text
}

async fn write(stream: &mut TcpStream, answer: &GatewayAnswer) -> bool {
    stream.write_all(render(answer).as_bytes()).await.is_ok()
}

/// Reads one request; `None` when the client closed the connection or sent something else.
async fn read_request(stream: &mut TcpStream) -> Option<GatewayRequest> {
    let mut buffer = Vec::new();
    let head_end = loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        read_some(stream, &mut buffer).await?;
    };
    let head = String::from_utf8(buffer[..head_end].to_vec()).ok()?;
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers
        .iter()
        .find(|(name, _)| name == "content-length")
        .map_or(Some(0), |(_, value)| value.parse::<usize>().ok())?;
    let body_start = head_end + 4;
    while buffer.len() < body_start + length {
        read_some(stream, &mut buffer).await?;
    }
    Some(GatewayRequest {
        method,
        target,
        headers,
        body: buffer[body_start..body_start + length].to_vec(),
    })
}

async fn read_some(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    let count = stream.read_buf(buffer).await.ok()?;
    (count > 0 && buffer.len() <= REQUEST_BYTES_MAX).then_some(())
}
