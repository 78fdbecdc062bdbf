//! A connection as those who send on it see it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio::time::Instant;
use wa_core::domain::phone::Phone;
use wa_core::time::{Clock, Monotonic, Timestamp};
use wa_core::transport::{MaybeSentCause, NotSentKind, OutgoingMedia, OutgoingMessage, SendError, SendReceipt};
use whatsapp_rust::buffa::Message as _;
use whatsapp_rust::download::MediaType;
use whatsapp_rust::media::{ImageOptions, image_message};
use whatsapp_rust::prelude::{MessageBuilderExt, wa};
use whatsapp_rust::upload::UploadOptions;
use whatsapp_rust::{Client, ErrorChainExt as _, SendOptions};

use crate::acks::{Acks, Answer};
use crate::backend::Backend;
use crate::limits::{self, ANSWER_KEPT_FOR, ANSWER_WITHIN, Limits};
use crate::options::WebOptions;
use crate::{error, jid, picture};

/// Most pictures whose uploads one connection remembers.
const UPLOADS_MAX: usize = 64;

/// Most numbers whose checks one connection remembers without asking the store.
const NUMBERS_MAX: usize = 10_000;

/// A picture that was uploaded.
#[derive(Clone)]
struct Uploaded {
    /// A message that shows it, without a caption.
    content: wa::Message,
    at: Timestamp,
}

/// A picture that could not be uploaded.
struct NotUploaded {
    error: SendError,
    again_at: Monotonic,
}

/// How long numbers are asked for one by one after a question for several was not answered for all of them.
const ONE_BY_ONE_FOR: Duration = Duration::from_secs(60);

/// What a connection knows of numbers without asking the store.
#[derive(Default)]
struct Numbers {
    since: Monotonic,
    known: HashSet<Phone>,
    /// Those that were not on WhatsApp, which the store forgets sooner: nothing is asked together with them, and the store is asked for
    /// each.
    absent: HashSet<Phone>,
}

/// One connection.
pub(crate) struct Live {
    pub(crate) client: Arc<Client>,
    pub(crate) acks: Arc<Acks>,
    pub(crate) backend: Backend,
    pub(crate) options: Arc<WebOptions>,
    pub(crate) clock: Arc<dyn Clock>,
    uploads: Mutex<HashMap<[u8; 32], Uploaded>>,
    /// One upload at a time, so that the messages of a campaign share it, also when it fails.
    uploading: tokio::sync::Mutex<HashMap<[u8; 32], NotUploaded>>,
    numbers: Mutex<Numbers>,
    /// When WhatsApp may be asked for numbers again; one question at a time.
    numbers_again_at: tokio::sync::Mutex<Option<Instant>>,
    /// Until when numbers are asked for one by one, because a question for several was not answered.
    one_by_one_until: Mutex<Option<Instant>>,
    /// One question at a time, so that messages that are refused together share the answer.
    limits: tokio::sync::Mutex<LimitsAsked>,
    /// Rings when a message was refused because of a restriction.
    restricted: Arc<Notify>,
    /// Since when WhatsApp keeps the connection open and does not serve it.
    mute_since: Mutex<Option<Instant>>,
}

/// What was asked of the limits of an account.
#[derive(Default)]
struct LimitsAsked {
    told: Option<(Instant, Limits)>,
    rest_until: Option<Instant>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Live {
    pub(crate) fn new(
        client: Arc<Client>,
        acks: Arc<Acks>,
        backend: Backend,
        options: Arc<WebOptions>,
        clock: Arc<dyn Clock>,
        restricted: Arc<Notify>,
    ) -> Self {
        Self {
            restricted,
            limits: tokio::sync::Mutex::default(),
            client,
            acks,
            backend,
            options,
            clock,
            uploads: Mutex::default(),
            uploading: tokio::sync::Mutex::default(),
            numbers: Mutex::default(),
            numbers_again_at: tokio::sync::Mutex::default(),
            one_by_one_until: Mutex::default(),
            mute_since: Mutex::default(),
        }
    }

    /// Whether messages can go.
    pub(crate) fn is_ready(&self) -> bool {
        self.client.is_connected() && self.client.is_logged_in()
    }

    /// The device's own number.
    pub(crate) fn phone(&self) -> Option<Phone> {
        jid::phone(&self.client.pn()?.to_non_ad())
    }

    /// The device's own address: its number and which of its linked devices it is.
    pub(crate) fn jid(&self) -> Option<String> {
        self.client.pn().map(|own| own.to_string())
    }

    /// Whether an address is one of the device's own account.
    pub(crate) fn is_own(&self, other: &whatsapp_rust::Jid) -> bool {
        let own = [self.client.pn(), self.client.lid()];
        own.into_iter()
            .flatten()
            .any(|own| own.user == other.user && own.is_pn() == other.is_pn())
    }

    /// Opens a connection anew that WhatsApp has logged out for its speed (429) and then left open, after a while.
    fn reopen_if_mute(&self) {
        let mut since = lock(&self.mute_since);
        let now = Instant::now();
        if !self.client.is_connected() {
            *since = None;
        } else if now.duration_since(*since.get_or_insert(now)) >= self.options.offline_after {
            *since = None;
            let client = Arc::clone(&self.client);
            tokio::spawn(async move { client.reconnect().await });
        }
    }

    /// Whether it is ready; one that is mute is opened anew once it has been asked for that long enough.
    pub(crate) fn is_ready_or_reopens(&self) -> bool {
        let is_ready = self.is_ready();
        if is_ready {
            lock(&self.mute_since).take();
        } else {
            self.reopen_if_mute();
        }
        is_ready
    }

    fn check(&self, to: &Phone) -> Result<(), SendError> {
        if !self.is_ready_or_reopens() {
            return Err(error::offline("the device is not connected to WhatsApp"));
        }
        if self.phone().as_ref() == Some(to) {
            let own = "a device cannot write to its own number";
            return Err(SendError::not_sent(NotSentKind::InvalidRecipient, own));
        }
        Ok(())
    }

    /// What is slow and harmless: the check of the number, the upload of the picture.
    pub(crate) async fn prepare(&self, message: &OutgoingMessage) -> Result<(), SendError> {
        self.check(&message.to)?;
        if self.options.check_numbers && !self.numbers_of(std::slice::from_ref(&message.to)).await?[0] {
            let absent = "the number has no WhatsApp account";
            return Err(SendError::not_sent(NotSentKind::NotOnWhatsApp, absent));
        }
        if let Some(media) = &message.media {
            self.uploaded(media).await?;
        }
        Ok(())
    }

    /// How many numbers are worth a question together with this one.
    pub(crate) fn check_ahead(&self, phone: &Phone) -> u32 {
        let one_by_one = lock(&self.one_by_one_until).is_some_and(|until| Instant::now() < until);
        if !self.options.check_numbers || one_by_one || !self.is_ready() {
            return 0;
        }
        let numbers = lock(&self.numbers);
        let is_known = numbers.known.contains(phone) || numbers.absent.contains(phone);
        if is_known { 0 } else { self.options.numbers_at_once }
    }

    /// Whether numbers are on WhatsApp: what is known, and for the others one question.
    pub(crate) async fn numbers_of(&self, phones: &[Phone]) -> Result<Vec<bool>, SendError> {
        let unstored = |_| SendError::not_sent(NotSentKind::Unavailable, "the session cannot be read");
        let now = self.clock.monotonic();
        let mut known: HashMap<Phone, bool> = {
            let mut numbers = lock(&self.numbers);
            // The store knows how long each of them holds.
            if now.since(numbers.since) >= self.options.numbers_kept_for / 7 {
                numbers.known.clear();
                numbers.absent.clear();
                numbers.since = now;
            }
            let there = phones.iter().filter(|phone| numbers.known.contains(phone));
            there.map(|phone| (*phone, true)).collect()
        };
        let missing: Vec<Phone> = phones
            .iter()
            .filter(|phone| !known.contains_key(phone))
            .copied()
            .collect();
        for (phone, stored) in missing
            .iter()
            .zip(self.backend.numbers(&missing).await.map_err(unstored)?)
        {
            if let Some(there) = stored {
                known.insert(*phone, there);
            }
        }
        let mut missing: Vec<Phone> = missing.into_iter().filter(|phone| !known.contains_key(phone)).collect();
        missing.sort_unstable();
        missing.dedup();
        if !missing.is_empty() {
            let learned = match self.ask_for(&missing).await {
                Ok(learned) => learned,
                Err(error) => {
                    if missing.len() > 1 {
                        self.ask_one_by_one();
                    }
                    return Err(error);
                }
            };
            self.backend
                .remember_numbers(&learned, self.options.numbers_kept_for)
                .await
                .map_err(unstored)?;
            known.extend(learned);
        }
        self.note_numbers(&known);
        let told: Option<Vec<bool>> = phones.iter().map(|phone| known.get(phone).copied()).collect();
        told.ok_or_else(|| {
            self.ask_one_by_one();
            SendError::not_sent(NotSentKind::Unavailable, "WhatsApp did not answer for every number")
        })
    }

    /// Asks WhatsApp for numbers when it is this question's turn, and gives those that were told.
    async fn ask_for(&self, phones: &[Phone]) -> Result<Vec<(Phone, bool)>, SendError> {
        let unasked = |why| SendError::not_sent(NotSentKind::Unavailable, why);
        let mut again_at = self.numbers_again_at.lock().await;
        if let Some(at) = *again_at {
            tokio::time::sleep_until(at).await;
        }
        // Whoever asked before may have asked for the same.
        let (there, missing): (Vec<Phone>, Vec<Phone>) = {
            let numbers = lock(&self.numbers);
            phones.iter().partition(|phone| numbers.known.contains(phone))
        };
        let mut learned: Vec<(Phone, bool)> = there.into_iter().map(|phone| (phone, true)).collect();
        if missing.is_empty() {
            return Ok(learned);
        }
        *again_at = Some(Instant::now() + self.options.numbers_every);
        let jids: Vec<whatsapp_rust::Jid> = missing.iter().map(jid::of).collect();
        let contacts = self.client.contacts();
        let told = tokio::time::timeout(self.options.ack_within, contacts.is_on_whatsapp(&jids)).await;
        drop(again_at);
        let told = told.map_err(|_| unasked("WhatsApp did not answer a question in time"))?;
        let told = told.map_err(|error| match &error {
            whatsapp_rust::ContactError::Iq(error) => error::unanswered(error),
            _ => unasked("WhatsApp could not be asked for a number"),
        })?;
        for phone in missing {
            let of = |jid: &whatsapp_rust::Jid| jid.is_pn() && jid.user == phone.digits();
            let answer = told
                .iter()
                .find(|one| of(&one.jid) || one.pn_jid.as_ref().is_some_and(of));
            learned.extend(answer.map(|answer| (phone, answer.is_registered)));
        }
        Ok(learned)
    }

    fn ask_one_by_one(&self) {
        *lock(&self.one_by_one_until) = Some(Instant::now() + ONE_BY_ONE_FOR);
    }

    fn note_numbers(&self, known: &HashMap<Phone, bool>) {
        let mut numbers = lock(&self.numbers);
        if numbers.known.len() + numbers.absent.len() + known.len() > NUMBERS_MAX {
            numbers.known.clear();
            numbers.absent.clear();
        }
        for (phone, there) in known {
            let of = if *there {
                &mut numbers.known
            } else {
                &mut numbers.absent
            };
            of.insert(*phone);
        }
    }

    /// A picture as WhatsApp keeps it: uploaded once, used again as long as the link lives.
    async fn uploaded(&self, media: &OutgoingMedia) -> Result<Uploaded, SendError> {
        let Some(bytes) = &media.bytes else {
            let missing = "the picture is not there as bytes";
            return Err(SendError::not_sent(NotSentKind::Unsupported, missing));
        };
        let digest: [u8; 32] = Sha256::digest(bytes).into();
        let mut failed = self.uploading.lock().await;
        let now = self.clock.wall();
        let kept_for = self.options.uploads_kept_for;
        lock(&self.uploads).retain(|_, upload| now.since(upload.at) < kept_for);
        if let Some(known) = lock(&self.uploads).get(&digest) {
            return Ok(known.clone());
        }
        let unstored = |_| SendError::not_sent(NotSentKind::Unavailable, "the session cannot be read or written");
        let stored = self.backend.upload(&digest).await.map_err(unstored)?;
        let stored = stored.and_then(|(content, at)| {
            let content = wa::Message::decode_from_slice(&content).ok()?;
            Some(Uploaded { content, at })
        });
        if let Some(known) = stored.filter(|known| now.since(known.at) < kept_for) {
            self.note_upload(digest, &known);
            return Ok(known);
        }
        failed.retain(|_, known| self.clock.monotonic() < known.again_at);
        if let Some(known) = failed.get(&digest) {
            return Err(known.error.clone());
        }
        let source = Arc::clone(bytes);
        let picture = tokio::task::spawn_blocking(move || picture::prepare(&source)).await;
        let picture = picture
            .map_err(|_| SendError::not_sent(NotSentKind::Rejected, "the picture cannot be read"))?
            .map_err(|why| SendError::not_sent(NotSentKind::Rejected, why))?;
        let upload = self
            .client
            .upload(picture.jpeg, MediaType::Image, UploadOptions::new())
            .await;
        let upload = match upload {
            Ok(upload) => upload,
            Err(error) => {
                let why = error
                    .http_status()
                    .map_or_else(|| "no answer".to_owned(), |status| format!("HTTP status {status}"));
                let detail = format!("the picture could not be uploaded to WhatsApp: {why}");
                let error = SendError::not_sent(NotSentKind::Unavailable, detail);
                let again_at = self.clock.monotonic() + self.options.upload_again_after;
                // Every message that shows it would be told the same.
                failed.insert(
                    digest,
                    NotUploaded {
                        error: error.clone(),
                        again_at,
                    },
                );
                return Err(error);
            }
        };
        let options = ImageOptions {
            jpeg_thumbnail: Some(picture.preview),
            ..ImageOptions::default()
        };
        let mut content = image_message(upload, options);
        if let Some(image) = content.image_message.as_option_mut() {
            (image.width, image.height) = (Some(picture.width), Some(picture.height));
        }
        // So that a connection after this one does not upload it again.
        let noted = content.encode_to_vec();
        let kept = self.backend.remember_upload(&digest, &noted, now, kept_for);
        kept.await.map_err(unstored)?;
        let uploaded = Uploaded { content, at: now };
        self.note_upload(digest, &uploaded);
        Ok(uploaded)
    }

    fn note_upload(&self, digest: [u8; 32], uploaded: &Uploaded) {
        let mut uploads = lock(&self.uploads);
        if uploads.len() >= UPLOADS_MAX
            && let Some(oldest) = uploads
                .iter()
                .min_by_key(|(_, upload)| upload.at)
                .map(|(digest, _)| *digest)
        {
            uploads.remove(&oldest);
        }
        uploads.insert(digest, uploaded.clone());
    }

    async fn content(&self, message: &OutgoingMessage) -> Result<wa::Message, SendError> {
        let Some(media) = &message.media else {
            return Ok(wa::Message::text(message.text.clone()));
        };
        let mut content = self.uploaded(media).await?.content;
        if let Some(image) = content.image_message.as_option_mut() {
            image.caption = (!message.text.is_empty()).then(|| message.text.clone());
        }
        Ok(content)
    }

    /// What WhatsApp holds against the account; asked unless it was told within `kept_for`.
    ///
    /// # Errors
    /// It is not told now; ask again after so long.
    pub(crate) async fn limits(&self, kept_for: Duration) -> Result<Limits, Duration> {
        let mut asked = self.limits.lock().await;
        let now = Instant::now();
        if let Some((at, told)) = asked.told
            && at + kept_for > now
        {
            return Ok(told);
        }
        if let Some(rest_until) = asked.rest_until.filter(|until| *until > now) {
            return Err(rest_until - now);
        }
        match limits::ask(&self.client, self.clock.wall()).await {
            Ok(told) => {
                *asked = LimitsAsked {
                    told: Some((Instant::now(), told)),
                    rest_until: None,
                };
                Ok(told)
            }
            Err(error) => {
                let rest = limits::rest_after(&error);
                tracing::warn!(%error, ?rest, "WhatsApp does not tell the limits of an account; it is asked again later");
                asked.rest_until = Some(Instant::now() + rest);
                Err(rest)
            }
        }
    }

    /// What a refusal means, with the end of the restriction where WhatsApp tells it before `until`.
    async fn refused(&self, code: &str, until: Instant) -> SendError {
        let refused = error::refused(code);
        if !error::is_restricted(&refused) {
            return refused;
        }
        self.restricted.notify_one();
        let until = until.min(Instant::now() + ANSWER_WITHIN);
        let told = tokio::time::timeout_at(until, self.limits(ANSWER_KEPT_FOR)).await;
        match told {
            Ok(Ok(limits)) => error::restricted_until(refused, limits.cold_until()),
            _ => refused,
        }
    }

    /// Sends a message once and waits for the server's answer.
    pub(crate) async fn send(&self, message: &OutgoingMessage, timeout: Duration) -> Result<SendReceipt, SendError> {
        let until = Instant::now() + timeout;
        self.check(&message.to)?;
        let content = match tokio::time::timeout_at(until, self.content(message)).await {
            Ok(content) => content?,
            Err(_) => {
                return Err(SendError::not_sent(
                    NotSentKind::Unavailable,
                    "the picture was not uploaded in time",
                ));
            }
        };
        let to = jid::of(&message.to);
        if let Some(typing_for) = self.options.typing_for {
            // A courtesy: what becomes of it makes no difference to the message.
            let typing = async {
                let _ = self.client.chatstate().send_composing(&to).await;
                tokio::time::sleep(typing_for).await;
            };
            let _ = tokio::time::timeout(timeout / 4, typing).await;
            self.check(&message.to)?;
        }
        let id = message.transport_message_id.as_str();
        // Before the message: the answer may be there before the call returns.
        let mut waiting = self.acks.wait_for(id);
        let options = SendOptions::default().with_message_id(id);
        let answer = async {
            let sent = self.client.send_message_with_options(to, content, options).await;
            match sent {
                Ok(_) => Ok(waiting.answer().await),
                Err(error) => waiting.came().map(Some).ok_or_else(|| error::not_written(&error)),
            }
        };
        match tokio::time::timeout_at(until, answer).await {
            Ok(Ok(Some(Answer::Taken(accepted_at)))) => Ok(SendReceipt {
                provider_id: None,
                accepted_at,
            }),
            Ok(Ok(Some(Answer::Refused(code)))) => Err(self.refused(&code, until).await),
            Ok(Ok(None)) => {
                let lost = "the connection to WhatsApp was lost before it answered";
                Err(SendError::maybe_sent(MaybeSentCause::ConnectionLost, lost))
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(SendError::maybe_sent(
                MaybeSentCause::Timeout,
                "WhatsApp did not answer in time",
            )),
        }
    }
}
