//! A client that costs little beside the servers that it measures: requests made before, answers read as far as their length.

use std::fmt;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wa_core::time::{Clock, SystemClock};

/// A request as it goes over the wire.
#[derive(Clone)]
pub struct Request(String);

impl Request {
    pub fn get(path: &str) -> Self {
        Self(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n"))
    }

    pub fn post(path: &str, json: &str) -> Self {
        let length = json.len();
        Self(format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{json}"
        ))
    }
}

/// What one run came to.
pub struct Run {
    rate: f64,
    p99_ms: f64,
}

/// What some runs came to.
#[derive(Default)]
pub struct Load(Vec<Run>);

impl Load {
    pub fn add(&mut self, run: Run) {
        self.0.push(run);
    }

    fn median(&self, of: impl Fn(&Run) -> f64) -> f64 {
        let mut values: Vec<f64> = self.0.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    }

    /// Requests per second.
    pub fn rate(&self) -> f64 {
        self.median(|run| run.rate)
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0}/s, p99 {:.1} ms", self.rate(), self.median(|run| run.p99_ms))
    }
}

/// Sends requests over some connections, each with one under way, and waits for all answers.
pub async fn run(clock: &SystemClock, address: SocketAddr, connections: usize, requests: Vec<Request>) -> Run {
    let count = requests.len();
    let mut shares: Vec<Vec<Request>> = vec![Vec::new(); connections];
    for (at, request) in requests.into_iter().enumerate() {
        shares[at % connections].push(request);
    }
    let mut streams = Vec::with_capacity(connections);
    for _ in 0..connections {
        let stream = TcpStream::connect(address).await.expect("the server answers");
        stream.set_nodelay(true).expect("the option is there");
        streams.push(stream);
    }
    let clock = std::sync::Arc::new(clock.clone());
    let started = clock.monotonic();
    let tasks: Vec<_> = streams
        .into_iter()
        .zip(shares)
        .map(|(stream, share)| tokio::spawn(one_after_the_other(clock.clone(), stream, share)))
        .collect();
    let mut took_ms = Vec::with_capacity(count);
    for task in tasks {
        took_ms.extend(task.await.expect("a connection does not fail"));
    }
    let seconds = clock.monotonic().since(started).as_secs_f64();
    took_ms.sort_by(f64::total_cmp);
    Run {
        rate: f64::from(u32::try_from(count).expect("a small number")) / seconds,
        p99_ms: took_ms[count * 99 / 100],
    }
}

async fn one_after_the_other(
    clock: std::sync::Arc<SystemClock>,
    mut stream: TcpStream,
    requests: Vec<Request>,
) -> Vec<f64> {
    let mut took_ms = Vec::with_capacity(requests.len());
    let mut answer = vec![0; 16 * 1_024];
    for Request(request) in requests {
        let started = clock.monotonic();
        stream
            .write_all(request.as_bytes())
            .await
            .expect("the request goes out");
        let mut length = 0;
        while !is_whole(&answer[..length]) {
            let more = stream.read(&mut answer[length..]).await.expect("the answer comes");
            assert_ne!(more, 0, "the server keeps the connection");
            length += more;
        }
        let line = &answer[..length.min(15)];
        assert!(
            line.starts_with(b"HTTP/1.1 200"),
            "{}",
            String::from_utf8_lossy(&answer[..length])
        );
        took_ms.push(clock.monotonic().since(started).as_secs_f64() * 1_000.0);
    }
    took_ms
}

/// Whether an answer has arrived up to the length that it names.
fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        return false;
    };
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let length = head
        .split("content-length:")
        .nth(1)
        .and_then(|rest| rest.lines().next());
    let length: usize = length
        .and_then(|text| text.trim().parse().ok())
        .expect("an answer names its length");
    answer.len() >= end + 4 + length
}
