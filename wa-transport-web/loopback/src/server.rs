//! The loopback server as tests and demonstrations hold it.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use whatsapp_rust::traits::Backend;
use whatsapp_rust::wacore::libsignal::protocol::KeyPair;
use whatsapp_rust::wacore::pair_code::PairCodeUtils;
use whatsapp_rust::wacore::store::device::Device;
use whatsapp_rust::wacore::store::error::StoreError;
use whatsapp_rust::{Jid, NodeBuilder, Server};

use crate::account::{DeviceRecord, QueryLimit};
use crate::error::{PairingError, PersonError, TooLate};
use crate::fault::{Rule, RuleId, StreamFault};
use crate::http::LoopbackHttp;
use crate::journal::{Answer, DeliveredMessage, Record, Seen, SentMessage};
use crate::listener::Listener;
use crate::options::Options;
use crate::person::Person;
use crate::restriction::{NewChatCap, Timelock, cap_json, timelock_json};
use crate::stanza::pairing::QrCode;
use crate::state::{State, now_s};
use crate::transport::InProcess;

/// How long a client may take to accept that it is linked.
const LINKING_FOR: Duration = Duration::from_secs(60);

/// The server's memory, and a bell that rings when something has happened that somebody may wait for.
pub(crate) struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    pub(crate) handshake_for: Duration,
    pub(crate) outbound_max: usize,
    pub(crate) media_max_bytes: usize,
}

impl Shared {
    /// Does something with the memory, and rings the bell if something has happened.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self
            .state
            .lock()
            .expect("nobody panics while holding the server's memory");
        let before = state.changes;
        let result = act(&mut state);
        let after = state.changes;
        drop(state);
        if after != before {
            self.changed.send_replace(after);
        }
        result
    }
}

/// A WhatsApp server for tests and demonstrations; cheap to clone, every clone is the same server.
///
/// See the [crate's documentation](crate) for what it speaks.
#[derive(Clone)]
pub struct Loopback {
    pub(crate) shared: Arc<Shared>,
}

impl Loopback {
    /// Starts a server within this process. It has no accounts yet.
    #[must_use]
    pub fn start(options: Options) -> Self {
        let (changed, _) = watch::channel(0);
        Self {
            shared: Arc::new(Shared {
                handshake_for: options.handshake_for,
                outbound_max: options.outbound_max.max(1),
                media_max_bytes: options.media_max_bytes,
                state: Mutex::new(State::new(options)),
                changed,
            }),
        }
    }

    /// Connects clients of this process, without sockets.
    #[must_use]
    pub fn transport(&self) -> InProcess {
        InProcess {
            shared: self.shared.clone(),
        }
    }

    /// The media server for clients of this process, without sockets.
    #[must_use]
    pub fn http(&self) -> LoopbackHttp {
        LoopbackHttp {
            shared: self.shared.clone(),
        }
    }

    /// Opens the server on two free ports of 127.0.0.1, until the answer is dropped.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn listen(&self) -> io::Result<Listener> {
        Listener::bind(self.shared.clone(), 0, 0).await
    }

    /// The same on ports of one's own choice; 0 is any free one.
    ///
    /// # Errors
    /// When a port is taken.
    pub async fn listen_on(&self, websocket_port: u16, media_port: u16) -> io::Result<Listener> {
        Listener::bind(self.shared.clone(), websocket_port, media_port).await
    }

    /// Makes an account whose phone never connects: it can be written to and acknowledges nothing. Giving the same
    /// number again is harmless.
    pub fn add_account(&self, phone: &str, name: &str) {
        self.shared.with(|state| state.ensure_phone(phone, name, true));
    }

    /// Makes an account whose phone is a real client; it is offline until [`Person::connect`].
    ///
    /// # Errors
    /// When the phone's store cannot be filled.
    pub async fn person(&self, phone: &str, name: &str) -> Result<Person, PersonError> {
        let device = self.shared.with(|state| {
            state.ensure_phone(phone, name, false);
            let mut device = with_name(state.keys.device(phone, 0), name.to_owned());
            device.lid_migrated = state.accounts[phone].lid_migrated;
            device
        });
        Person::new(self.clone(), phone, &device).await
    }

    /// Puts into `backend` what a client would have kept that was linked to `phone` and had logged in before, and tells
    /// the server of that device; gives its address. The client logs in with IK and needs no QR code, nor that its
    /// check of certificates is switched off. Keys follow from the seed, the account and the device's number.
    ///
    /// # Errors
    /// When the backend cannot be written.
    pub async fn seed_device(&self, phone: &str, backend: &dyn Backend) -> Result<Jid, StoreError> {
        let (device, number) = self.shared.with(|state| {
            state.ensure_phone(phone, "", true);
            let account = state.ensure_account(phone, "");
            let (number, name, lid_migrated) = (account.next_device, account.name.clone(), account.lid_migrated);
            let mut device = with_name(state.keys.device(phone, number), name);
            device.lid_migrated = lid_migrated;
            state.add_device(phone, number, DeviceRecord::of(&device, false));
            state.tell_of_device(phone, number, "add");
            (device, number)
        });
        backend.create().await?;
        backend.save(&device).await?;
        Ok(Jid::pn_device(phone, number))
    }

    /// Takes a linked device off its account, as a person does on the phone: its session ends, and whoever knew it is
    /// told.
    pub fn remove_device(&self, device: &Jid) {
        self.shared.with(|state| {
            let link = state
                .device(device.user.as_str(), device.device)
                .and_then(|device| device.link);
            if let Some(link) = link {
                state.end_stream(link, StreamFault::DeviceRemoved);
            }
            state.remove(device.user.as_str(), device.device);
        });
    }

    /// Addresses the account's chats by LID from now on, or by phone number; clients learn of it when they are linked.
    pub fn set_lid_migrated(&self, phone: &str, addressing: Addressing) {
        self.shared
            .with(|state| state.ensure_account(phone, "").lid_migrated = addressing == Addressing::Lid);
    }

    /// The LID of an account.
    #[must_use]
    pub fn lid(&self, phone: &str) -> Jid {
        Jid::lid(self.shared.with(|state| state.keys.lid(phone)))
    }

    /// Installs a fault.
    pub fn fault(&self, rule: Rule) -> RuleId {
        self.shared.with(|state| state.script.add(rule))
    }

    /// Removes a fault; one that is not there is no matter.
    pub fn clear_fault(&self, rule: RuleId) {
        self.shared.with(|state| state.script.remove(rule));
    }

    /// How often a fault has happened.
    #[must_use]
    pub fn fired(&self, rule: RuleId) -> u64 {
        self.shared.with(|state| state.script.fired(rule))
    }

    /// Ends the stream of a device in one of several ways; false if it is not connected.
    pub fn end_stream(&self, device: &Jid, fault: StreamFault) -> bool {
        self.shared.with(|state| {
            let link = state
                .device(device.user.as_str(), device.device)
                .and_then(|device| device.link);
            if let Some(link) = link {
                state.end_stream(link, fault);
            }
            link.is_some()
        })
    }

    /// Lets an account make at most `max` queries of a namespace in any stretch of `every`; more are refused with 429.
    pub fn limit_queries(&self, phone: &str, xmlns: &str, max: usize, every: Duration) {
        let every_ms = i64::try_from(every.as_millis()).unwrap_or(i64::MAX);
        self.shared.with(|state| {
            let limit = QueryLimit {
                max,
                every_ms,
                at_ms: std::collections::VecDeque::new(),
            };
            state
                .ensure_account(phone, "")
                .query_limits
                .insert(xmlns.to_owned(), limit);
        });
    }

    /// Locks an account against writing to people who never wrote to it, or unlocks it, and tells its devices. Messages
    /// against a lock are refused with 463.
    pub fn set_timelock(&self, phone: &str, timelock: Option<Timelock>) {
        self.shared.with(|state| {
            let json = serde_json::json!({
                "data": { "xwa2_notify_account_reachout_timelock": timelock_json(timelock.as_ref(), now_s()) }
            });
            state.ensure_account(phone, "").timelock = timelock;
            tell_mex(state, phone, "NotificationUserReachoutTimelockUpdate", &json);
        });
    }

    /// Sets an account's limit of new chats, or lifts it, and tells its devices. Messages to new people beyond it are
    /// refused with 463.
    pub fn set_new_chat_cap(&self, phone: &str, cap: Option<NewChatCap>) {
        self.shared.with(|state| {
            let json = serde_json::json!({
                "data": { "xwa2_notify_new_chat_messages_capping_info_update": cap_json(cap.as_ref(), now_s()) }
            });
            state.ensure_account(phone, "").cap = cap;
            tell_mex(state, phone, "MessageCappingInfoNotification", &json);
        });
    }

    /// The account's limit of new chats, with what is used of it by now.
    #[must_use]
    pub fn new_chat_cap(&self, phone: &str) -> Option<NewChatCap> {
        self.shared
            .with(|state| state.accounts.get(phone).and_then(|account| account.cap.clone()))
    }

    /// Notes that a person has written to an account, without a message: what the account writes back is not cold.
    pub fn acquaint(&self, phone: &str, person: &str) {
        self.shared.with(|state| {
            state.ensure_account(phone, "").heard_from.insert(person.to_owned());
        });
    }

    /// Forgets all uploaded files, as WhatsApp does after some weeks: downloads of them answer 404.
    pub fn expire_media(&self) {
        self.shared.with(|state| state.media.clear());
    }

    /// The phone of `phone` scans a client's QR code; waits until the client has accepted, and gives its new address.
    /// The account is made, with a phone that never connects, if it is not there.
    ///
    /// # Errors
    /// When the code is none, is not valid any more, or the client does not accept.
    pub async fn scan(&self, phone: &str, qr: &str) -> Result<Jid, PairingError> {
        let qr = QrCode::read(qr)?;
        let from = self.journal_end();
        let number = self.shared.with(|state| state.scan(phone, &qr))?;
        self.linked(from, phone, Some(number)).await
    }

    /// Asks the client behind a QR code for a passkey of the account in place of linking it.
    ///
    /// # Errors
    /// When the code is none, or is not valid any more.
    pub fn demand_passkey(&self, qr: &str) -> Result<(), PairingError> {
        let qr = QrCode::read(qr)?;
        self.shared.with(|state| state.demand_passkey(&qr))
    }

    /// The phone of `phone` types a pairing code; waits until the client has accepted, and gives its new address.
    ///
    /// # Errors
    /// When no client has asked for a code for this number, or it was another one, or the client does not accept.
    ///
    /// # Panics
    /// When the work on the code panics.
    pub async fn enter_code(&self, phone: &str, code: &str) -> Result<Jid, PairingError> {
        let from = self.journal_end();
        let wrapped = self.shared.with(|state| state.code_challenge(phone))?;
        let ours = self.shared.with(|state| {
            let number = state.next();
            KeyPair::generate(&mut state.keys.rng("code ephemeral", &number.to_string()))
        });
        let (code, public) = (code.replace('-', ""), crate::keys::public_bytes(&ours));
        // 131,072 rounds of a hash, twice: not on a thread that serves others.
        let (theirs, answer) = tokio::task::spawn_blocking(move || {
            let theirs = PairCodeUtils::decrypt_primary_ephemeral_pub(&wrapped, &code);
            (theirs, PairCodeUtils::encrypt_ephemeral_pub(&public, &code))
        })
        .await
        .expect("the work on a pairing code does not panic");
        let theirs = theirs.map_err(|_| PairingError::Unreadable)?;
        self.shared
            .with(|state| state.answer_code(phone, ours, theirs, answer))?;
        self.linked(from, phone, None).await
    }

    async fn linked(&self, from: u64, phone: &str, number: Option<u16>) -> Result<Jid, PairingError> {
        self.wait_from(
            from,
            LINKING_FOR,
            "a client to accept that it is linked",
            |record| match &record.seen {
                Seen::Linked { device } => {
                    let ours = device.user == phone && number.is_none_or(|number| number == device.device);
                    ours.then(|| Ok(device.clone()))
                }
                Seen::PairingFailed { phone: failed } => (failed == phone).then_some(Err(PairingError::Refused)),
                _ => None,
            },
        )
        .await?
    }

    /// All that is in the journal.
    #[must_use]
    pub fn journal(&self) -> Vec<Record> {
        self.journal_from(0)
    }

    /// What is in the journal from a place on.
    #[must_use]
    pub fn journal_from(&self, index: u64) -> Vec<Record> {
        self.shared.with(|state| state.journal.since(index).cloned().collect())
    }

    /// The place in the journal of what happens next.
    #[must_use]
    pub fn journal_end(&self) -> u64 {
        self.shared.with(|state| state.journal.next())
    }

    /// Waits until `find` finds something in the journal, from its beginning on.
    ///
    /// # Errors
    /// When it has found nothing after `limit`.
    pub async fn wait<T>(
        &self,
        limit: Duration,
        what: &str,
        find: impl FnMut(&Record) -> Option<T>,
    ) -> Result<T, TooLate> {
        self.wait_from(0, limit, what, find).await
    }

    /// Waits until `find` finds something in the journal, from the place `index` on.
    ///
    /// # Errors
    /// When it has found nothing after `limit`.
    pub async fn wait_from<T>(
        &self,
        index: u64,
        limit: Duration,
        what: &str,
        mut find: impl FnMut(&Record) -> Option<T>,
    ) -> Result<T, TooLate> {
        let mut next = index;
        self.until(limit, what, |state| {
            let found = state.journal.since(next).find_map(&mut find);
            next = next.max(state.journal.next());
            found
        })
        .await
    }

    /// Waits until a device has acknowledged everything that was sent to it.
    ///
    /// # Errors
    /// When something is not acknowledged after `limit`.
    pub async fn wait_acknowledged(&self, limit: Duration, device: &Jid) -> Result<(), TooLate> {
        self.until(limit, "a device to acknowledge what it got", |state| {
            let device = state.device(device.user.as_str(), device.device)?;
            device.waiting.is_empty().then_some(())
        })
        .await
    }

    async fn until<T>(
        &self,
        limit: Duration,
        what: &str,
        mut find: impl FnMut(&mut State) -> Option<T>,
    ) -> Result<T, TooLate> {
        let mut changed = self.shared.changed.subscribe();
        let search = async {
            loop {
                changed.borrow_and_update();
                if let Some(found) = self.shared.with(&mut find) {
                    return found;
                }
                changed.changed().await.expect("the server lives as long as its handle");
            }
        };
        tokio::time::timeout(limit, search).await.map_err(|_| TooLate {
            what: what.to_owned(),
            waited: limit,
        })
    }

    /// The messages that clients have sent, in order.
    #[must_use]
    pub fn sent(&self) -> Vec<SentMessage> {
        self.pick(|seen| match seen {
            Seen::Sent(message) => Some(message.clone()),
            _ => None,
        })
    }

    /// What went to the devices of an account, in order; one that was sent again appears again.
    #[must_use]
    pub fn delivered_to(&self, phone: &str) -> Vec<DeliveredMessage> {
        self.pick(|seen| match seen {
            Seen::Delivered(message) if message.to.user == phone => Some(message.clone()),
            _ => None,
        })
    }

    /// How the message with this id was answered, each time it came.
    #[must_use]
    pub fn answers(&self, id: &str) -> Vec<Answer> {
        self.pick(|seen| match seen {
            Seen::Sent(message) if message.id == id => Some(message.answer),
            _ => None,
        })
    }

    /// When the devices of an account connected, in milliseconds since 1970, in order.
    #[must_use]
    pub fn connects(&self, phone: &str) -> Vec<i64> {
        self.journal()
            .iter()
            .filter(|record| matches!(&record.seen, Seen::Connected { device, .. } if device.user == phone))
            .map(|record| record.at_ms)
            .collect()
    }

    fn pick<T>(&self, find: impl FnMut(&Seen) -> Option<T>) -> Vec<T> {
        let mut find = find;
        self.shared
            .with(|state| state.journal.since(0).filter_map(|record| find(&record.seen)).collect())
    }

    /// Whether a device is connected and ready.
    #[must_use]
    pub fn is_active(&self, device: &Jid) -> bool {
        self.shared.with(|state| {
            state
                .device(device.user.as_str(), device.device)
                .is_some_and(|device| device.active)
        })
    }

    /// How many stanzas wait for a device, or for its acknowledgement.
    #[must_use]
    pub fn waiting_for(&self, device: &Jid) -> usize {
        self.shared.with(|state| {
            state
                .device(device.user.as_str(), device.device)
                .map_or(0, |device| device.waiting.len())
        })
    }
}

/// By what an account addresses its chats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addressing {
    /// By the number that says nothing about the phone number.
    Lid,
    /// By phone number.
    PhoneNumber,
}

/// A device that has its person's name; without one a client takes itself for freshly linked.
fn with_name(mut device: Device, name: String) -> Device {
    device.push_name = if name.is_empty() { "loopback".to_owned() } else { name };
    device
}

fn tell_mex(state: &mut State, phone: &str, operation: &'static str, json: &serde_json::Value) {
    let update = NodeBuilder::new("update")
        .attr("op_name", operation)
        .bytes(json.to_string().into_bytes())
        .build();
    state.notify_all(phone, None, "mex", &Jid::new("", Server::Pn), &update);
}
