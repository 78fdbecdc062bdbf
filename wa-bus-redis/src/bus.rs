//! The bus: one task that publishes, one that listens; both open their connections again for as long as the bus lives.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::future::{Either, select};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisResult};
use secrecy::ExposeSecret as _;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use uuid::Uuid;
use wa_core::event::{Event, EventBus, Listener, LocalBus};
use wa_core::id::IdSource;
use wa_core::time::Clock;

use crate::RedisOptions;
use crate::wire;

/// Most messages that wait while Redis is slow or away; what comes then is lost to other nodes.
const WAITING_MAX: usize = 1_024;
/// Most events in one message.
const EVENTS_MAX: usize = 200;
/// How long a connection may take to be made, and Redis to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long nothing is heard before Redis is asked whether it still lives.
const QUIET_MAX: Duration = Duration::from_secs(10);
/// The first wait after a connection failed; each further one is twice as long, up to the last.
const BACK_OFF: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];

/// A bus could not be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// The address is none of Redis.
    #[error("the address of redis cannot be read")]
    Address,
}

/// Carries events to the listeners of all nodes; a handle that is cheap to clone. The last one that is dropped ends it.
#[derive(Clone)]
pub struct RedisBus(Arc<Inner>);

struct Inner {
    local: LocalBus,
    queue: mpsc::Sender<String>,
    hears: watch::Receiver<bool>,
    from: Uuid,
    tasks: [AbortHandle; 2],
}

impl fmt::Debug for RedisBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBus")
            .field("from", &self.0.from)
            .field("is_connected", &self.is_connected())
            .finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// What both tasks work with.
#[derive(Clone)]
struct Redis {
    client: Client,
    clock: Arc<dyn Clock>,
    channel: String,
}

impl RedisBus {
    /// Starts a bus, whether Redis answers or not. It needs a tokio runtime, and for `rediss://` a process-wide provider of
    /// rustls.
    ///
    /// # Errors
    /// The address cannot be read; what it holds is not told.
    pub fn start(options: RedisOptions, clock: Arc<dyn Clock>) -> Result<Self, BusError> {
        let client = Client::open(options.url.expose_secret()).map_err(|_| BusError::Address)?;
        let from = IdSource::from_entropy().uuid(clock.wall());
        let (queue, waiting) = mpsc::channel(WAITING_MAX);
        let (heard, hears) = watch::channel(false);
        let local = LocalBus::new();
        let redis = Redis {
            client,
            clock,
            channel: options.channel,
        };
        let publishing = tokio::spawn(publish(redis.clone(), waiting));
        let listening = tokio::spawn(listen(redis, local.clone(), heard, from));
        Ok(Self(Arc::new(Inner {
            local,
            queue,
            hears,
            from,
            tasks: [publishing.abort_handle(), listening.abort_handle()],
        })))
    }

    /// Whether it hears other nodes just now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        *self.0.hears.borrow()
    }

    /// Waits until it hears other nodes.
    pub async fn connected(&self) {
        // The sender lives as long as the task that listens, and that as long as this bus.
        let _ = self.0.hears.clone().wait_for(|hears| *hears).await;
    }
}

#[async_trait]
impl EventBus for RedisBus {
    async fn publish(&self, events: &[Event]) {
        self.0.local.tell(events);
        for events in events.chunks(EVENTS_MAX) {
            if self.0.queue.try_send(wire::write(self.0.from, events)).is_err() {
                tracing::debug!("redis is slow or away: other nodes are not told of some events");
                return;
            }
        }
    }

    fn listen(&self) -> Listener {
        self.0.local.listen()
    }
}

/// Waits longer after each failure.
struct BackOff {
    wait: Duration,
}

impl BackOff {
    const fn new() -> Self {
        Self { wait: BACK_OFF[0] }
    }

    async fn pass(&mut self, clock: &dyn Clock) {
        clock.sleep_until(clock.monotonic() + self.wait).await;
        self.wait = (self.wait * 2).min(BACK_OFF[1]);
    }
}

impl Redis {
    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(ANSWER_WITHIN))
            .set_response_timeout(Some(ANSWER_WITHIN));
        self.client.get_multiplexed_async_connection_with_config(&config).await
    }

    /// What comes of a call within [`ANSWER_WITHIN`].
    async fn answer<T>(&self, call: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
        let late = self.clock.sleep_until(self.clock.monotonic() + ANSWER_WITHIN);
        match select(Box::pin(call), late).await {
            Either::Left((answer, _)) => answer,
            Either::Right(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        }
    }
}

/// An error by its kind: its text may show the address.
fn note(what: &'static str, error: &redis::RedisError) {
    tracing::warn!(kind = ?error.kind(), "{what}; it is tried again");
}

async fn publish(redis: Redis, mut waiting: mpsc::Receiver<String>) {
    let mut back_off = BackOff::new();
    let mut next: Option<String> = None;
    loop {
        let mut connection = match redis.connect().await {
            Ok(connection) => connection,
            Err(error) => {
                note("redis cannot be told of events", &error);
                back_off.pass(&*redis.clock).await;
                continue;
            }
        };
        loop {
            let message = match next.take() {
                Some(message) => message,
                None => match waiting.recv().await {
                    Some(message) => message,
                    None => return,
                },
            };
            let told: RedisResult<i64> = redis::cmd("PUBLISH")
                .arg(&redis.channel)
                .arg(&message)
                .query_async(&mut connection)
                .await;
            match told {
                Ok(_) => back_off = BackOff::new(),
                Err(error) => {
                    note("redis was not told of events", &error);
                    next = Some(message);
                    back_off.pass(&*redis.clock).await;
                    break;
                }
            }
        }
    }
}

async fn listen(redis: Redis, local: LocalBus, heard: watch::Sender<bool>, own: Uuid) {
    let mut back_off = BackOff::new();
    let mut deaf = false;
    loop {
        let error = hear(&redis, &local, &heard, own, deaf).await.err();
        // Whoever was connected begins anew; who was not waits longer.
        if heard.send_replace(false) {
            back_off = BackOff::new();
        }
        deaf = true;
        match error {
            Some(error) => note("other nodes are not heard", &error),
            None => tracing::warn!("redis closed the connection: other nodes are not heard; it is tried again"),
        }
        back_off.pass(&*redis.clock).await;
    }
}

/// Hears until the connection breaks. Who was deaf before, if only because Redis was away at the start, may have missed some.
async fn hear(redis: &Redis, local: &LocalBus, heard: &watch::Sender<bool>, own: Uuid, deaf: bool) -> RedisResult<()> {
    let (mut sink, mut stream) = redis.answer(redis.client.get_async_pubsub()).await?.split();
    redis.answer(sink.subscribe(&redis.channel)).await?;
    heard.send_replace(true);
    if deaf {
        local.tell_missed();
    }
    loop {
        let quiet = redis.clock.sleep_until(redis.clock.monotonic() + QUIET_MAX);
        match select(stream.next(), quiet).await {
            Either::Left((Some(message), _)) => local.tell(&wire::read(own, message.get_payload_bytes())),
            Either::Left((None, _)) => return Ok(()),
            Either::Right(_) => redis.answer(sink.ping::<redis::Value>()).await.map(|_| ())?,
        }
    }
}
