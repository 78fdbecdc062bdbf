//! One linked device: its connection from the first code to the last word.
//!
//! Each device has one task. It alone opens and ends the connection, so that two attempts to link never meet; who sends takes
//! the connection from [`Slot`] and does not wait for it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use wa_core::domain::device::{LinkState, RestrictionCause};
use wa_core::domain::phone::Phone;
use wa_core::id::DeviceId;
use wa_core::store::StoreErrorKind;
use wa_core::time::Timestamp;
use wa_core::transport::{
    LinkStep, MessageRef, NotSentKind, RestrictionScope, SendError, TransportDevice, TransportEvent, TransportMessageId,
};
use whatsapp_rust::bot::{Bot, BotHandle};
use whatsapp_rust::pair_code::{PairCodeOptions, PairError};
use whatsapp_rust::traits::DeviceStore;
use whatsapp_rust::waproto::whatsapp::device_props::PlatformType;
use whatsapp_rust::{CacheConfig, Client, TokioRuntime};

use crate::acks::Acks;
use crate::backend::Backend;
use crate::error;
use crate::history;
use crate::inbound::{Inbox, Missed};
use crate::limits::{ANSWER_KEPT_FOR, ASK_AGAIN, Limits};
use crate::live::Live;
use crate::news::{Ear, End, News, PAST_MAX, RECEIPTS_MAX, States};
use crate::receipts::Receipts;
use crate::transport::Shared;

/// Most events that wait to be stored while the store does not answer; older receipts are dropped beyond.
const UNSTORED_MAX: usize = 10_000;

/// Most events that are stored together.
const BATCH_MAX: usize = 256;

/// Most messages of the past that are stored together, unless one chat has more.
const PAST_BATCH_MAX: usize = 1_000;

/// No part of the past is read while more of its messages than this wait to be stored.
const PAST_WAITING_MAX: usize = 20_000;

/// Most people who wait for the same step of a device.
const WAITING_MAX: usize = 64;

/// How long a client that has no connection is left alone when a person asks for one: so long it tries every few seconds by itself.
const CLIENT_NEW_FOR: Duration = Duration::from_secs(5);

/// How often at most it is looked whether the connection stands as it was told.
const WATCH_EVERY_MIN: Duration = Duration::from_millis(100);

/// How long a store that did not take events is left alone.
const STORE_AGAIN: Duration = Duration::from_secs(2);

/// How long the sink is left alone after it did not take a message again, at most.
const MISSED_AGAIN_MAX: Duration = Duration::from_secs(60);

/// How long after a failed start it is tried again, where nobody is to blame.
const START_AGAIN: Duration = Duration::from_secs(30);

/// How long a graceful end may take.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// How long an orderly link, refresh or logout may take before the person is told that it takes longer.
const ORDER_WITHIN: Duration = Duration::from_secs(25);

/// Shortest wait after a ban, whose end WhatsApp may leave out.
const BAN_MIN: Duration = Duration::from_secs(60);

/// Longest wait after a ban whose end WhatsApp puts far away.
const BAN_MAX: Duration = Duration::from_secs(60 * 24 * 60 * 60);

/// How many chats keep a task that waits for their next message, per device. The client's default is 5,000, and each holds some 30 KB
/// for as long as the connection lasts; those that are at work are not counted.
const CHATS_WAITING_MAX: u64 = 1;

/// Where the connection of a device is found by those who send.
#[derive(Default)]
pub(crate) struct Slot(Mutex<Option<Arc<Live>>>);

impl Slot {
    pub(crate) fn live(&self) -> Option<Arc<Live>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, live: Option<Arc<Live>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = live;
    }
}

type Step = Result<LinkStep, SendError>;

/// What a person reads of a device that was disconnected here.
const RESTS: &str = "Disconnected here. Connect it again to go on.";

/// What is kept of a device.
enum Stored {
    /// No session.
    Nothing,
    /// A session that a person has disconnected.
    Resting,
    /// A session to connect with.
    Linked,
}

/// What a device is told to do.
pub(crate) enum Order {
    /// Link it, by pair code where a number is given.
    Link(Option<Phone>, oneshot::Sender<Step>),
    /// Connect again.
    Refresh(oneshot::Sender<Step>),
    /// Close the connection, keep the session, and leave it at that.
    Disconnect(oneshot::Sender<Result<(), SendError>>),
    /// Remove the link and wipe the session.
    Logout(oneshot::Sender<Result<(), SendError>>),
    /// Close the connection and keep the session; the task ends.
    Close(oneshot::Sender<()>),
}

/// A connection while it lasts.
struct Run {
    handle: BotHandle,
    client: Arc<Client>,
    live: Arc<Live>,
    states: Arc<States>,
    /// Receipts.
    news: mpsc::Receiver<News>,
    /// Parts of the past.
    past: mpsc::Receiver<News>,
    acks: Arc<Acks>,
    dropped: Arc<AtomicU64>,
    receipts: Arc<Receipts>,
    /// How many receipts were taken from the news.
    receipts_learned: u64,
    linking: bool,
    qr: Option<(String, Timestamp)>,
    code: Option<(Phone, String, Timestamp)>,
    /// Who waits for the first code.
    want_qr: Vec<oneshot::Sender<Step>>,
    /// Who waits for the connection.
    want_online: Vec<oneshot::Sender<Step>>,
    /// Since when the connection is away.
    away_since: Option<Instant>,
    opened_at: Instant,
    /// When it is looked whether the connection stands as it was told.
    watch_at: Instant,
}

impl Run {
    /// What has come and was not learned, how the connection stands first.
    fn came(&mut self) -> Option<News> {
        let state = self.states.take();
        let told = state.or_else(|| self.news.try_recv().ok());
        told.or_else(|| self.past.try_recv().ok())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.client.signal_shutdown_sync();
        self.handle.abort();
        self.acks.connection_lost();
        self.receipts.give_up();
    }
}

/// The task of one device.
pub(crate) struct Session {
    shared: Arc<Shared>,
    device: Arc<TransportDevice>,
    backend: Backend,
    slot: Arc<Slot>,
    orders: mpsc::Receiver<Order>,
    run: Option<Run>,
    /// When the connection is tried again.
    try_at: Option<Instant>,
    /// When it is its turn to connect.
    turn_at: Option<Instant>,
    /// Who waits for the connection that waits for its turn.
    want_turn: Vec<oneshot::Sender<Step>>,
    /// Its client was told that its turn is far away.
    crowded: bool,
    unstored: VecDeque<TransportEvent>,
    /// How many messages of the past there are among them.
    past_waiting: usize,
    store_at: Option<Instant>,
    told: Option<(LinkState, Option<String>)>,
    /// What WhatsApp holds against the account, as it was told last.
    limits: Option<Limits>,
    /// The answer to the question for it, while it is on its way.
    asked: Option<oneshot::Receiver<Result<Limits, Duration>>>,
    /// Whether the answer that is on its way may be older than what it is asked for.
    ask_anew: bool,
    /// When it is asked for again.
    ask_at: Option<Instant>,
    /// Rings when a message was refused because of a restriction.
    restricted: Arc<Notify>,
    /// Messages of people that the sink did not take.
    missed: Arc<Missed>,
    /// When it is asked again to take them, and how long after that.
    missed_at: Option<Instant>,
    missed_wait: Duration,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.slot.set(None);
    }
}

/// What a person reads of how a link ended.
fn words(end: End) -> (LinkState, String) {
    match end {
        End::LoggedOut => (
            LinkState::LoggedOut,
            "The link was removed on the phone. Link the device again.".to_owned(),
        ),
        End::Locked => (
            LinkState::LoggedOut,
            "WhatsApp has locked the account. Open WhatsApp on the phone to see why, then link the device again.".to_owned(),
        ),
        End::Replaced => (
            LinkState::Error,
            "The session is in use somewhere else. If that is not wanted, log the device out and link it again.".to_owned(),
        ),
        End::Outdated => (
            LinkState::Error,
            "WhatsApp asks for a newer version of its web client. The current one is asked for at the next try; if one is set, set a newer one.".to_owned(),
        ),
        End::Passkey => (
            LinkState::Error,
            "WhatsApp asks for a passkey to link this account, which cannot be given here. Link it from the phone without one, or turn the passkey off there.".to_owned(),
        ),
        End::PairRefused => (
            LinkState::Error,
            "The phone and this device did not come to terms. Link the device again.".to_owned(),
        ),
        End::CodesUsedUp => (
            LinkState::Initializing,
            "No code was used in time. Ask for a new one.".to_owned(),
        ),
        End::Refused(code) => (
            LinkState::Error,
            format!("WhatsApp refuses the connection (code {code}). It is tried again from time to time."),
        ),
    }
}

impl Session {
    pub(crate) fn new(
        shared: Arc<Shared>,
        device: Arc<TransportDevice>,
        backend: Backend,
        slot: Arc<Slot>,
        orders: mpsc::Receiver<Order>,
    ) -> Self {
        Self {
            shared,
            device,
            backend,
            slot,
            orders,
            run: None,
            try_at: None,
            turn_at: None,
            want_turn: Vec::new(),
            crowded: false,
            unstored: VecDeque::new(),
            past_waiting: 0,
            store_at: None,
            told: None,
            limits: None,
            asked: None,
            ask_anew: false,
            ask_at: None,
            restricted: Arc::new(Notify::new()),
            missed: Arc::default(),
            missed_at: None,
            missed_wait: STORE_AGAIN,
        }
    }

    fn id(&self) -> DeviceId {
        self.device.id
    }

    /// Works until it is told to close, or until the device belongs to somebody else.
    pub(crate) async fn work(mut self, deleted: bool) {
        if deleted {
            self.wind_up().await;
            return;
        }
        self.begin().await;
        let (backend, restricted) = (self.backend.clone(), Arc::clone(&self.restricted));
        let missed = Arc::clone(&self.missed);
        loop {
            let wake_at = self.wake_at();
            tokio::select! {
                () = backend.lost() => {
                    tracing::warn!(device = %self.id(), "the device belongs to another node: its connection is cut");
                    return;
                }
                order = self.orders.recv() => {
                    let Some(order) = order else { return };
                    if let Order::Close(done) = order {
                        self.close().await;
                        self.store().await;
                        let _ = done.send(());
                        return;
                    }
                    self.obey(order).await;
                }
                news = hear(&mut self.run, self.past_waiting <= PAST_WAITING_MAX) => match news {
                    Some(news) => {
                        self.learn(news).await;
                        self.learn_more().await;
                        if std::mem::take(&mut self.crowded) {
                            self.wait_for_turn().await;
                        }
                    }
                    None => self.ran_out(),
                },
                answer = answered(&mut self.asked) => self.weigh(answer),
                () = restricted.notified() => self.ask_limits(ANSWER_KEPT_FOR),
                () = missed.rang() => drop(self.missed_at.get_or_insert(Instant::now() + self.missed_wait)),
                () = sleep_until(wake_at) => self.look().await,
            }
            if self.store_at.is_none_or(|at| at <= Instant::now()) {
                self.store().await;
            }
        }
    }

    /// A device that was deleted: its link is removed, as far as WhatsApp can be reached, and its session wiped.
    async fn wind_up(&mut self) {
        if matches!(self.has_session().await, Ok(true)) && self.start(false).await.is_ok() {
            if let Some(run) = &self.run {
                let _ = run.client.wait_for_connected(ORDER_WITHIN).await;
                run.client.logout().await;
            }
            self.stop();
        }
        if let Err(error) = self.backend.wipe().await {
            tracing::warn!(device = %self.id(), %error, "the session of a deleted device could not be wiped");
        }
    }

    async fn has_session(&self) -> Result<bool, String> {
        match self.backend.load().await {
            Ok(device) => Ok(device.is_some_and(|device| device.pn.is_some())),
            Err(error) => {
                let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
                Err(format!("The session cannot be read: {cause}."))
            }
        }
    }

    async fn stored(&self) -> Result<Stored, String> {
        if !self.has_session().await? {
            return Ok(Stored::Nothing);
        }
        match self.backend.rests().await {
            Ok(true) => Ok(Stored::Resting),
            Ok(false) => Ok(Stored::Linked),
            Err(error) => Err(format!("The session cannot be read: {error}.")),
        }
    }

    /// Connects a device that has a session, unless a person has disconnected it.
    async fn begin(&mut self) {
        match self.stored().await {
            Ok(Stored::Nothing) => {}
            Ok(Stored::Resting) => self.tell(LinkState::Disconnected, Some(RESTS.to_owned()), None),
            Ok(Stored::Linked) => {
                self.tell(LinkState::Disconnected, Some("Connecting.".to_owned()), None);
                self.connect();
            }
            Err(why) => {
                self.tell(LinkState::Error, Some(why), None);
                self.try_at = Some(Instant::now() + START_AGAIN);
            }
        }
    }

    /// Starts a connection with the session that there is as soon as it is its turn.
    fn connect(&mut self) {
        self.try_at = None;
        self.turn_at = Some(self.shared.gate.place());
    }

    /// Opens a connection now; tried again where that fails.
    async fn open_or_try_later(&mut self) {
        let waiting = std::mem::take(&mut self.want_turn);
        if let Err(error) = self.open(false).await {
            for waiting in waiting {
                let _ = waiting.send(Err(error::offline("the connection could not be opened")));
            }
            self.tell(LinkState::Disconnected, Some(error.to_string()), None);
            self.try_at = Some(Instant::now() + START_AGAIN);
        } else if let Some(run) = &mut self.run {
            run.want_online = waiting;
        }
    }

    /// Opens a connection as soon as it is its turn.
    async fn start(&mut self, linking: bool) -> Result<(), SendError> {
        self.stop();
        self.shared.gate.turn().await;
        self.open(linking).await
    }

    async fn open(&mut self, linking: bool) -> Result<(), SendError> {
        self.stop();
        let unavailable = |why: &str| SendError::not_sent(NotSentKind::Unavailable, why);
        let version = self.shared.versions.current().await.map_err(unavailable)?;
        let (tell, news) = mpsc::channel(RECEIPTS_MAX);
        let (tell_past, past) = mpsc::channel(PAST_MAX);
        let states = Arc::new(States::default());
        let (acks, dropped) = (Arc::new(Acks::default()), Arc::new(AtomicU64::new(0)));
        let receipts = Arc::new(Receipts::default());
        let options = &self.shared.options;
        let inbox = Inbox {
            user_id: self.device.user_id,
            device_id: self.device.id,
            sink: Arc::clone(&self.shared.sink),
            clock: Arc::clone(&self.shared.clock),
            missed: Arc::clone(&self.missed),
        };
        let props = whatsapp_rust::wacore::store::DevicePropsOverride::new()
            .with_os(options.system.clone())
            .with_platform_type(PlatformType::CHROME);
        let caches = CacheConfig {
            chat_lanes_capacity: CHATS_WAITING_MAX,
            ..CacheConfig::default()
        };
        let bot = Bot::builder()
            .with_backend_arc(Arc::new(self.backend.clone()))
            .with_transport_factory(self.shared.factory(Arc::clone(&receipts), Arc::clone(&states)))
            .with_http_client(crate::http::SharedHttp(Arc::clone(&self.shared.http)))
            .with_runtime(TokioRuntime)
            .with_version(version)
            .with_device_props(props)
            .with_wanted_pre_key_count(options.prekeys)
            .with_cache_config(caches)
            .with_inbound_durability_hook(inbox)
            .with_event_handler(Ear {
                states: Arc::clone(&states),
                news: tell,
                past: tell_past,
                acks: Arc::clone(&acks),
                dropped: Arc::clone(&dropped),
                receipts: Arc::clone(&receipts),
            })
            .build()
            .await
            .map_err(|_| unavailable("the session could not be opened"))?;
        let client = bot.client();
        let live = Arc::new(Live::new(
            Arc::clone(&client),
            Arc::clone(&acks),
            self.backend.clone(),
            Arc::clone(options),
            Arc::clone(&self.shared.clock),
            Arc::clone(&self.restricted),
        ));
        self.slot.set(Some(Arc::clone(&live)));
        self.run = Some(Run {
            handle: bot.spawn(),
            client,
            live,
            states,
            news,
            past,
            acks,
            dropped,
            receipts,
            receipts_learned: 0,
            linking,
            qr: None,
            code: None,
            want_qr: Vec::new(),
            want_online: Vec::new(),
            away_since: None,
            opened_at: Instant::now(),
            watch_at: Instant::now() + self.watch_every(),
        });
        Ok(())
    }

    /// Ends the connection at once, or the waiting for it.
    fn stop(&mut self) {
        (self.turn_at, self.crowded) = (None, false);
        self.slot.set(None);
        (self.asked, self.ask_at, self.ask_anew) = (None, None, false);
        let gone = || Err(error::offline("the connection was closed"));
        for waiting in self.want_turn.drain(..) {
            let _ = waiting.send(gone());
        }
        if let Some(mut run) = self.run.take() {
            for waiting in run.want_qr.drain(..).chain(std::mem::take(&mut run.want_online)) {
                let _ = waiting.send(gone());
            }
        }
    }

    /// Ends the connection so that nothing is left half written, nor told and not stored.
    async fn close(&mut self) {
        self.store_told().await;
        if let Some(run) = &self.run {
            if !self.unstored.is_empty() {
                // Not acknowledged, they are told to the next owner.
                run.receipts.give_up();
            }
            let client = Arc::clone(&run.client);
            if tokio::time::timeout(CLOSE_WITHIN, client.disconnect()).await.is_err() {
                tracing::warn!(device = %self.id(), "a connection did not end in time");
            }
            if let Err(error) = self.backend.flush().await {
                tracing::debug!(device = %self.id(), %error, "secrets of messages were not written");
            }
        }
        self.store_told().await;
        self.stop();
    }

    /// Learns and stores all that has come by now.
    async fn store_told(&mut self) {
        while let Some(news) = self.run.as_mut().and_then(Run::came) {
            self.learn(news).await;
        }
        self.store().await;
    }

    fn tell(&mut self, state: LinkState, reason: Option<String>, phone: Option<Phone>) {
        if self.told.as_ref() == Some(&(state, reason.clone())) && phone.is_none() {
            return;
        }
        self.told = Some((state, reason.clone()));
        // Who learns the number learns which of its devices this is.
        let jid = phone.and(self.run.as_ref()).and_then(|run| run.live.jid());
        self.unstored.push_back(TransportEvent::Link {
            state,
            reason,
            phone,
            jid,
        });
        self.store_at = None;
    }

    /// Asks WhatsApp what it holds against the account, unless it was told within `kept_for`.
    fn ask_limits(&mut self, kept_for: Duration) {
        let Some(run) = &self.run else { return };
        if self.asked.is_some() {
            self.ask_anew |= kept_for.is_zero();
            return;
        }
        self.ask_at = None;
        let (tell, answer) = oneshot::channel();
        let live = Arc::clone(&run.live);
        // Beside the connection, which must not wait for it; it ends with its answer, or when nobody waits for that any more.
        tokio::spawn(async move {
            let mut tell = tell;
            tokio::select! {
                told = live.limits(kept_for) => drop(tell.send(told)),
                () = tell.closed() => {}
            }
        });
        self.asked = Some(answer);
    }

    /// Tells what WhatsApp holds against the account.
    fn weigh(&mut self, answer: Result<Limits, Duration>) {
        self.asked = None;
        match answer {
            Ok(limits) => {
                self.ask_at = limits
                    .is_limited()
                    .then(|| Instant::now() + self.shared.options.limits_every);
                if self.limits != Some(limits) {
                    self.limits = Some(limits);
                    self.unstored.push_back(TransportEvent::Restriction {
                        scope: RestrictionScope::Cold,
                        until: limits.timelock,
                        cause: RestrictionCause::Timelock,
                    });
                    self.unstored.extend(limits.new_chats.map(TransportEvent::NewChats));
                    self.store_at = None;
                }
            }
            Err(rest) => self.ask_at = Some(Instant::now() + rest),
        }
        if std::mem::take(&mut self.ask_anew) {
            self.ask_limits(Duration::ZERO);
        }
    }

    fn tell_ban(&mut self, until: Option<Timestamp>) {
        self.unstored.push_back(TransportEvent::Restriction {
            scope: RestrictionScope::All,
            until,
            cause: RestrictionCause::Banned,
        });
        self.store_at = None;
    }

    /// Stores what waits.
    async fn store(&mut self) {
        while !self.unstored.is_empty() {
            let Some(sink) = self.shared.sink.get() else {
                self.store_at = Some(Instant::now() + STORE_AGAIN);
                return;
            };
            let mut past = 0;
            let fits = |event: &&TransportEvent| {
                let fits = past == 0 || past + past_of(event) <= PAST_BATCH_MAX;
                past += past_of(event);
                fits
            };
            let batch: Vec<TransportEvent> = self.unstored.iter().take(BATCH_MAX).take_while(fits).cloned().collect();
            let count = batch.len();
            match sink.accept_owned(self.backend.owner(), batch).await {
                Ok(()) => {
                    let stored = self.unstored.drain(..count);
                    self.past_waiting -= stored.map(|event| past_of(&event)).sum::<usize>();
                }
                Err(error) if error.is_fenced() => {
                    self.backend.lose();
                    return;
                }
                Err(error) => {
                    tracing::warn!(device = %self.id(), %error, "events could not be stored; they are tried again");
                    self.store_at = Some(Instant::now() + STORE_AGAIN);
                    return;
                }
            }
        }
        self.store_at = None;
        if let Some(run) = &self.run {
            run.receipts.stored(run.receipts_learned);
        }
    }

    /// Asks the sink again to take messages that it did not take.
    async fn store_missed(&mut self) {
        let Some(sink) = self.shared.sink.get() else {
            self.missed_at = Some(Instant::now() + self.missed_wait);
            return;
        };
        for message in self.missed.messages() {
            let accepted = sink.accept(self.device.user_id, self.device.id, vec![message.clone()]);
            match accepted.await {
                Ok(()) => self.missed.taken(&message),
                Err(error) if error.kind == StoreErrorKind::Unavailable => break,
                // It may be about this one alone.
                Err(_) => {}
            }
        }
        if !self.missed.is_empty() {
            self.missed_wait = (self.missed_wait * 2).min(MISSED_AGAIN_MAX);
            self.missed_at = Some(Instant::now() + self.missed_wait);
            return;
        }
        if !self.missed.take_others() {
            self.missed_wait = STORE_AGAIN;
        } else if let Some(run) = &self.run {
            // What was not acknowledged is delivered again to the next connection.
            self.missed_wait = (self.missed_wait * 2).min(MISSED_AGAIN_MAX);
            run.acks.connection_lost();
            run.client.reconnect_immediately().await;
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        let offline_after = self.shared.options.offline_after;
        let away = self
            .run
            .as_ref()
            .and_then(|run| run.away_since)
            .map(|since| since + offline_after);
        let store_at = (!self.unstored.is_empty()).then_some(self.store_at).flatten();
        let watch_at = self.run.as_ref().map(|run| run.watch_at);
        let wakes = [
            watch_at,
            self.try_at,
            self.turn_at,
            away,
            store_at,
            self.ask_at,
            self.missed_at,
        ];
        wakes.into_iter().flatten().min()
    }

    /// Does what time has come for.
    async fn look(&mut self) {
        let now = Instant::now();
        if self.turn_at.is_some_and(|at| at <= now) {
            self.open_or_try_later().await;
        }
        if self.try_at.is_some_and(|at| at <= now) {
            self.try_at = None;
            if self.run.is_none() {
                match self.stored().await {
                    Ok(Stored::Linked) => self.connect(),
                    Ok(Stored::Nothing | Stored::Resting) => {}
                    Err(why) => {
                        self.tell(LinkState::Error, Some(why), None);
                        self.try_at = Some(now + self.shared.options.retry_every);
                    }
                }
            }
        }
        if self.missed_at.is_some_and(|at| at <= now) {
            self.missed_at = None;
            self.store_missed().await;
        }
        if self.ask_at.is_some_and(|at| at <= now) {
            self.ask_at = None;
            self.ask_limits(Duration::ZERO);
        }
        if self.run.as_ref().is_some_and(|run| run.watch_at <= now) {
            self.watch().await;
        }
        let offline_after = self.shared.options.offline_after;
        let away = self.run.as_mut().is_some_and(|run| {
            let away = run.away_since.is_some_and(|since| since + offline_after <= now);
            if away {
                run.away_since = None;
            }
            away && !run.live.is_ready()
        });
        if away {
            self.tell(
                LinkState::Disconnected,
                Some("The connection to WhatsApp is lost. It is opened again as soon as that works.".to_owned()),
                None,
            );
        }
    }

    fn watch_every(&self) -> Duration {
        self.shared.options.offline_after.max(WATCH_EVERY_MIN)
    }

    /// Looks whether the connection stands as it was told: a client that loses it by silence, or opens another that fails, does not
    /// say so.
    async fn watch(&mut self) {
        let again_at = Instant::now() + self.watch_every();
        let told = self.told.as_ref().map(|(state, _)| *state);
        let Some(run) = &mut self.run else { return };
        run.watch_at = again_at;
        if run.linking {
            return;
        }
        if run.client.persistence_manager().is_saver_halted() {
            self.open_anew().await;
            return;
        }
        let is_ready = run.live.is_ready_or_reopens();
        match told {
            Some(LinkState::Ready) if !is_ready => {
                run.away_since.get_or_insert(Instant::now());
            }
            Some(LinkState::Disconnected) if run.client.wait_for_connected(Duration::ZERO).await.is_ok() => {
                run.away_since = None;
                let phone = run.live.phone();
                self.tell(LinkState::Ready, None, phone);
            }
            _ => {}
        }
    }

    /// Replaces a client that keeps what changes of its device to itself, because the store failed too often in a row; once the store
    /// takes it, so that nothing of it is lost.
    async fn open_anew(&mut self) {
        let Some(run) = &mut self.run else { return };
        if let Err(error) = run.client.persistence_manager().flush().await {
            tracing::warn!(device = %self.device.id, %error, "the store does not take what changes of a device; the connection is opened anew when it does");
            return;
        }
        let waiting = std::mem::take(&mut run.want_online);
        tracing::warn!(device = %self.device.id, "the connection is opened anew: its client had given up to save its device");
        self.close().await;
        // Unless what was still told ended the link.
        if self.try_at.is_none() && matches!(self.stored().await, Ok(Stored::Linked) | Err(_)) {
            self.want_turn = waiting;
            self.connect();
        }
    }

    /// Replaces a client that has no connection and may wait for long before it opens another; who waits for it goes on waiting.
    async fn renew(&mut self) -> Result<(), SendError> {
        // What is still told may end it.
        self.store_told().await;
        let waits = |run: &&mut Run| !run.client.is_connected() && run.opened_at.elapsed() >= CLIENT_NEW_FOR;
        let Some(run) = self.run.as_mut().filter(waits) else {
            return Ok(());
        };
        let linking = run.linking;
        let (want_qr, want_online) = (std::mem::take(&mut run.want_qr), std::mem::take(&mut run.want_online));
        if !linking {
            self.stop();
            self.want_turn = want_online;
            self.connect();
            return Ok(());
        }
        let started = self.start(true).await;
        match &mut self.run {
            Some(run) if started.is_ok() => (run.want_qr, run.want_online) = (want_qr, want_online),
            _ => {
                for waiting in want_qr.into_iter().chain(want_online) {
                    let _ = waiting.send(Err(error::offline("the connection could not be opened")));
                }
            }
        }
        started
    }

    /// The client has stopped without saying why.
    fn ran_out(&mut self) {
        if self.run.is_none() {
            return;
        }
        self.stop();
        self.tell(
            LinkState::Disconnected,
            Some("The connection to WhatsApp has ended. It is tried again from time to time.".to_owned()),
            None,
        );
        self.try_at
            .get_or_insert(Instant::now() + self.shared.options.retry_every);
    }

    /// Takes what else there is, so that it is stored together.
    async fn learn_more(&mut self) {
        for _ in 0..BATCH_MAX {
            let told = self.run.as_mut().and_then(|run| {
                let state = run.states.take();
                state.or_else(|| run.news.try_recv().ok())
            });
            let Some(news) = told else { return };
            self.learn(news).await;
        }
    }

    /// Many other connections are opened before that of this device. Its client would try again later and later, and not be
    /// there when its turn comes: a new one is started then.
    async fn wait_for_turn(&mut self) {
        self.store_told().await;
        let Some(run) = self.run.as_mut().filter(|run| !run.linking && !run.live.is_ready()) else {
            return;
        };
        let waiting = std::mem::take(&mut run.want_online);
        self.stop();
        self.want_turn = waiting;
        let waits = "The connection to WhatsApp is lost. It is opened again after those of other devices.";
        self.tell(LinkState::Disconnected, Some(waits.to_owned()), None);
        self.connect();
    }

    async fn learn(&mut self, news: News) {
        let now = self.shared.clock.wall();
        let Some(run) = &mut self.run else { return };
        let dropped = run.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            tracing::warn!(device = %self.device.id, dropped, "receipts came faster than they could be stored");
        }
        match news {
            News::Qr(payload, valid_for) => {
                let expires_at = now + valid_for;
                run.qr = Some((payload.clone(), expires_at));
                for waiting in run.want_qr.drain(..) {
                    let payload = payload.clone();
                    let _ = waiting.send(Ok(LinkStep::Qr { payload, expires_at }));
                }
                self.tell(LinkState::QrReady, None, None);
            }
            News::PairCode(code, valid_for) => {
                if let Some(known) = &mut run.code {
                    (known.1, known.2) = (code, now + valid_for);
                }
                self.tell(LinkState::QrReady, None, None);
            }
            News::Connected => {
                run.linking = false;
                (run.qr, run.code, run.away_since) = (None, None, None);
                for waiting in run.want_online.drain(..).chain(run.want_qr.drain(..)) {
                    let _ = waiting.send(Ok(LinkStep::State(LinkState::Ready)));
                }
                let phone = run.live.phone();
                self.try_at = None;
                self.told = None;
                self.tell(LinkState::Ready, None, phone);
                self.tell_ban(None);
                self.ask_limits(Duration::ZERO);
            }
            News::Crowded => self.crowded = true,
            News::Disconnected => {
                run.away_since.get_or_insert(Instant::now());
            }
            News::Banned(span, why) => {
                self.stop();
                let span = span.clamp(BAN_MIN, BAN_MAX);
                let until = now + span;
                let reason = format!("WhatsApp has banned the account until {until}: {why}.");
                self.tell(LinkState::Restricted, Some(reason), None);
                self.tell_ban(Some(until));
                self.try_at = Some(Instant::now() + span);
            }
            News::Ended(end) => self.ended(end).await,
            News::Receipt {
                from,
                ids,
                delivery,
                at,
            } => {
                run.receipts_learned += 1;
                // Our own phone gets a copy of everything.
                if run.live.is_own(&from) {
                    return;
                }
                for id in ids {
                    let Some(id) = TransportMessageId::new(id) else {
                        continue;
                    };
                    if self.unstored.len() >= UNSTORED_MAX {
                        let is_receipt = |event: &TransportEvent| matches!(event, TransportEvent::Receipt { .. });
                        if let Some(oldest) = self.unstored.iter().position(is_receipt) {
                            self.unstored.remove(oldest);
                        }
                    }
                    self.unstored.push_back(TransportEvent::Receipt {
                        message: MessageRef::Ours(id),
                        delivery,
                        at: Some(at),
                        note: None,
                    });
                }
            }
            News::History(past) => {
                let client = Arc::clone(&run.client);
                let read = tokio::task::spawn_blocking(move || history::read(&past)).await;
                for chat in read.unwrap_or_default() {
                    let known = history::by_number(&client, chat).await;
                    self.past_waiting += known.as_ref().map_or(0, |chat| chat.messages.len());
                    self.unstored.extend(known.map(TransportEvent::History));
                }
            }
            News::RestrictionChanged => {
                tracing::info!(device = %self.device.id, "WhatsApp says that a restriction of the account has changed");
                self.ask_limits(Duration::ZERO);
            }
        }
    }

    async fn ended(&mut self, end: End) {
        let (state, reason) = words(end);
        let waiting = self.run.as_mut().map(|run| {
            let mut waiting = std::mem::take(&mut run.want_qr);
            waiting.append(&mut run.want_online);
            waiting
        });
        for waiting in waiting.into_iter().flatten() {
            let _ = waiting.send(Err(error::offline(&reason)));
        }
        self.stop();
        match end {
            // What is left of the session opens nothing any more.
            End::LoggedOut | End::Locked | End::CodesUsedUp | End::PairRefused | End::Passkey => {
                if let Err(error) = self.backend.wipe().await {
                    tracing::warn!(device = %self.id(), %error, "the session of a device that is logged out could not be wiped");
                }
            }
            End::Outdated => {
                self.shared.versions.forget().await;
                self.try_at = Some(Instant::now() + self.shared.options.retry_every);
            }
            End::Replaced | End::Refused(_) => {
                self.try_at = Some(Instant::now() + self.shared.options.retry_every);
            }
        }
        self.tell(state, Some(reason), None);
    }

    async fn obey(&mut self, order: Order) {
        match order {
            Order::Link(phone, answer) => self.link(phone, answer).await,
            Order::Refresh(answer) => self.refresh(answer).await,
            Order::Disconnect(answer) => {
                let _ = answer.send(self.disconnect().await);
            }
            Order::Logout(answer) => {
                let _ = answer.send(self.logout().await);
            }
            Order::Close(_) => {}
        }
    }

    async fn link(&mut self, phone: Option<Phone>, answer: oneshot::Sender<Step>) {
        if self.run.as_ref().is_some_and(|run| !run.linking && run.live.is_ready()) {
            let _ = answer.send(Ok(LinkStep::State(LinkState::Ready)));
            return;
        }
        let linking = self.run.as_ref().is_some_and(|run| run.linking);
        if linking {
            if let Err(error) = self.renew().await {
                let _ = answer.send(Err(error));
                return;
            }
        } else {
            match self.has_session().await {
                Ok(false) => {}
                // What is linked is connected; only a logout takes its session away.
                Ok(true) => {
                    self.refresh(answer).await;
                    return;
                }
                Err(why) => {
                    let why = format!("{why} Log the device out to link it anew.");
                    let _ = answer.send(Err(SendError::not_sent(NotSentKind::Unavailable, why)));
                    return;
                }
            }
            self.stop();
            self.try_at = None;
            // What an attempt before left behind must not be mixed with the new one.
            if let Err(error) = self.backend.wipe().await {
                let why = format!("the old session could not be wiped: {error}");
                let _ = answer.send(Err(SendError::not_sent(NotSentKind::Unavailable, why)));
                return;
            }
            if let Err(error) = self.start(true).await {
                let _ = answer.send(Err(error));
                return;
            }
        }
        // Who was told of the connection meanwhile was told without this one.
        if let Some(run) = self.run.as_ref().filter(|run| !run.linking) {
            let state = if run.live.is_ready() {
                LinkState::Ready
            } else {
                LinkState::Disconnected
            };
            let _ = answer.send(Ok(LinkStep::State(state)));
            return;
        }
        let Some(run) = &mut self.run else { return };
        match phone {
            None => match &run.qr {
                Some((payload, expires_at)) if *expires_at > self.shared.clock.wall() => {
                    let payload = payload.clone();
                    let expires_at = *expires_at;
                    let _ = answer.send(Ok(LinkStep::Qr { payload, expires_at }));
                }
                _ => wait_among(&mut run.want_qr, answer),
            },
            Some(phone) => {
                let code = self.pair_code(phone).await;
                let _ = answer.send(code);
            }
        }
    }

    async fn pair_code(&mut self, phone: Phone) -> Step {
        let now = self.shared.clock.wall();
        let Some(run) = &mut self.run else {
            return Err(error::offline("the connection was closed"));
        };
        if let Some((of, code, expires_at)) = &run.code {
            if *of == phone && *expires_at > now {
                let (code, expires_at) = (code.clone(), *expires_at);
                return Ok(LinkStep::PairCode { code, expires_at });
            }
            run.client.cancel_pair_code().await;
        }
        let client = Arc::clone(&run.client);
        let asked = async {
            client
                .wait_for_socket(ORDER_WITHIN)
                .await
                .map_err(|_| error::offline("WhatsApp could not be reached"))?;
            let options = PairCodeOptions {
                phone_number: phone.digits().to_owned(),
                ..PairCodeOptions::default()
            };
            client
                .pair_with_code(options)
                .await
                .map_err(|error| code_refused(&error))
        };
        let code = match tokio::time::timeout(ORDER_WITHIN, asked).await {
            Ok(code) => code?,
            Err(_) => return Err(error::offline("WhatsApp did not give a code in time")),
        };
        let expires_at = self.shared.clock.wall() + PAIR_CODE_VALID_FOR;
        if let Some(run) = &mut self.run {
            run.code = Some((phone, code.clone(), expires_at));
        }
        self.tell(LinkState::QrReady, None, None);
        Ok(LinkStep::PairCode { code, expires_at })
    }

    async fn refresh(&mut self, answer: oneshot::Sender<Step>) {
        if let Some(run) = &mut self.run {
            if run.linking {
                let renewed = self.renew().await;
                let _ = answer.send(renewed.map(|()| LinkStep::State(LinkState::QrReady)));
            } else if run.live.is_ready() {
                let _ = answer.send(Ok(LinkStep::State(LinkState::Ready)));
                // Somebody asks because what is shown may be wrong.
                let phone = run.live.phone();
                self.told = None;
                self.tell(LinkState::Ready, None, phone);
            } else {
                wait_among(&mut run.want_online, answer);
                if run.client.is_connected() {
                    let client = Arc::clone(&run.client);
                    client.reconnect_immediately().await;
                } else {
                    // It may wait a quarter of an hour before it tries again.
                    let _ = self.renew().await;
                }
            }
            return;
        }
        if self.turn_at.is_some() {
            wait_among(&mut self.want_turn, answer);
            return;
        }
        let unstored = |_| SendError::not_sent(NotSentKind::Unavailable, "the session cannot be written");
        let started = match self.has_session().await {
            Ok(true) => match self.backend.set_rests(false).await.map_err(unstored) {
                Ok(()) => self.start(false).await.inspect_err(|_| {
                    self.try_at.get_or_insert(Instant::now() + START_AGAIN);
                }),
                Err(error) => Err(error),
            },
            Ok(false) => Err(error::offline("the device is not linked; link it by a code")),
            Err(why) => Err(SendError::not_sent(NotSentKind::Unavailable, why)),
        };
        match (started, &mut self.run) {
            (Ok(()), Some(run)) => wait_among(&mut run.want_online, answer),
            (Err(error), _) => drop(answer.send(Err(error))),
            (Ok(()), None) => drop(answer.send(Err(error::offline("the connection was closed")))),
        }
    }

    async fn disconnect(&mut self) -> Result<(), SendError> {
        let unavailable = |why: String| SendError::not_sent(NotSentKind::Unavailable, why);
        if !self.has_session().await.map_err(unavailable)? {
            if self.run.is_some() {
                self.stop();
                let stopped = "Linking was stopped. Ask for a new code.";
                self.tell(LinkState::Initializing, Some(stopped.to_owned()), None);
            }
            return Ok(());
        }
        // First what is to stay: a process that ends now must not connect it again.
        let kept = self.backend.set_rests(true).await;
        kept.map_err(|error| unavailable(format!("the session cannot be written: {error}")))?;
        self.close().await;
        self.try_at = None;
        // What was still told may have ended the link.
        if !matches!(self.told, Some((LinkState::LoggedOut, _))) {
            self.tell(LinkState::Disconnected, Some(RESTS.to_owned()), None);
        }
        Ok(())
    }

    async fn logout(&mut self) -> Result<(), SendError> {
        self.try_at = None;
        let linked = self.has_session().await.unwrap_or(true);
        let told = match &self.run {
            Some(run) if run.live.is_ready() => {
                let client = Arc::clone(&run.client);
                tokio::time::timeout(CLOSE_WITHIN, client.logout()).await.is_ok()
            }
            _ => !linked,
        };
        self.stop();
        let wiped = self.backend.wipe().await;
        self.tell(
            LinkState::LoggedOut,
            Some("Logged out here. Link the device again.".to_owned()),
            None,
        );
        wiped.map_err(|error| {
            SendError::not_sent(
                NotSentKind::Unavailable,
                format!("the session could not be wiped: {error}"),
            )
        })?;
        if told {
            return Ok(());
        }
        Err(error::offline(
            "the session is wiped here, but WhatsApp could not be told: remove the linked device on the phone",
        ))
    }
}

/// How long a pair code is valid.
const PAIR_CODE_VALID_FOR: Duration = Duration::from_secs(180);

/// Why WhatsApp gives no code.
fn code_refused(error: &PairError) -> SendError {
    use whatsapp_rust::wacore::pair_code::PairCodeRejection;
    let (kind, why) = match error.rejection() {
        Some(PairCodeRejection::BadRequest | PairCodeRejection::RateOverlimit) => (
            NotSentKind::RateLimited {
                retry_after: error.backoff(),
            },
            "WhatsApp gives no code for this number now: it was asked too often, or the number is not right",
        ),
        Some(PairCodeRejection::FeatureNotAvailable) => (
            NotSentKind::Unsupported,
            "this account cannot be linked by a code; link it by QR",
        ),
        _ => (NotSentKind::Unavailable, "WhatsApp gave no code"),
    };
    SendError::not_sent(kind, why)
}

/// Lets somebody wait for a step, unless too many do.
fn wait_among(waiting: &mut Vec<oneshot::Sender<Step>>, answer: oneshot::Sender<Step>) {
    // Those who gave up take no room.
    waiting.retain(|one| !one.is_closed());
    if waiting.len() < WAITING_MAX {
        waiting.push(answer);
    } else {
        let _ = answer.send(Err(error::offline("too many wait for this device already; ask again")));
    }
}

/// How many messages of the past an event has.
fn past_of(event: &TransportEvent) -> usize {
    match event {
        TransportEvent::History(chat) => chat.messages.len(),
        _ => 0,
    }
}

/// The next news of a connection, of the past where there is room for it; `None` when the connection has ended.
async fn hear(run: &mut Option<Run>, past_too: bool) -> Option<News> {
    let Some(run) = run else {
        return std::future::pending().await;
    };
    tokio::select! {
        biased;
        state = run.states.next() => Some(state),
        news = run.news.recv() => news,
        past = run.past.recv(), if past_too => past,
        () = &mut run.handle => run.came(),
    }
}

/// What WhatsApp holds against the account, once it has answered.
async fn answered(asked: &mut Option<oneshot::Receiver<Result<Limits, Duration>>>) -> Result<Limits, Duration> {
    match asked {
        Some(asked) => asked.await.unwrap_or(Err(ASK_AGAIN)),
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_is_a_state_with_a_sentence_that_says_what_to_do() {
        let ends = [
            (End::LoggedOut, LinkState::LoggedOut),
            (End::Locked, LinkState::LoggedOut),
            (End::Replaced, LinkState::Error),
            (End::Outdated, LinkState::Error),
            (End::Passkey, LinkState::Error),
            (End::PairRefused, LinkState::Error),
            (End::CodesUsedUp, LinkState::Initializing),
            (End::Refused(409), LinkState::Error),
        ];
        for (end, state) in ends {
            let (told, reason) = words(end);
            assert_eq!(told, state, "{end:?}");
            assert!(
                reason.ends_with('.') && reason.len() > 20 && reason.chars().count() <= 300,
                "{reason}"
            );
        }
    }
}
