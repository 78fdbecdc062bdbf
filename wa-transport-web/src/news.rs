//! What a connection tells, made small and put in order.

use std::collections::VecDeque;
use std::mem::discriminant;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use wa_core::domain::delivery::Delivery;
use wa_core::time::Timestamp;
use whatsapp_rust::Jid;
use whatsapp_rust::types::events::{
    ConnectFailureReason, Event, EventHandler, EventInterest, EventKind, LazyHistorySync,
};
use whatsapp_rust::types::presence::ReceiptType;

use crate::acks::{Acks, Answer};
use crate::receipts::Receipts;

/// Most receipts of one connection that wait to be worked off; those beyond are dropped and counted.
pub(crate) const RECEIPTS_MAX: usize = 4_096;

/// Most parts of the past that wait to be read; those beyond are dropped and counted. A phone tells some dozens.
pub(crate) const PAST_MAX: usize = 64;

/// Why a link ended or does not come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Removed on the phone or here.
    LoggedOut,
    /// WhatsApp has locked the account.
    Locked,
    /// Another connection uses the session.
    Replaced,
    /// WhatsApp asks for a newer client.
    Outdated,
    /// WhatsApp asks for a passkey.
    Passkey,
    /// The phone did not accept the link.
    PairRefused,
    /// No code was used in time.
    CodesUsedUp,
    /// WhatsApp refuses the connection, with this code.
    Refused(i32),
}

/// One piece of news.
#[derive(Debug)]
pub(crate) enum News {
    /// A code to be scanned, for so long.
    Qr(String, Duration),
    /// A code to be typed, for so long.
    PairCode(String, Duration),
    /// Linked, logged in, and what was missed is read.
    Connected,
    /// The connection ended; the client opens another.
    Disconnected,
    /// The client does not open another, because many others are opened before it.
    Crowded,
    /// The account is banned for so long.
    Banned(Duration, String),
    /// The client has stopped for good.
    Ended(End),
    /// Something became known of messages that were sent.
    Receipt {
        from: Jid,
        ids: Vec<String>,
        delivery: Delivery,
        at: Timestamp,
    },
    /// A part of what chats held before the device was linked.
    History(Box<LazyHistorySync>),
    /// WhatsApp pushed the state of a restriction.
    RestrictionChanged,
}

/// How a connection stands, as far as nobody has learned it: the newest of each kind, in their order, so that none is dropped however
/// many there are.
#[derive(Debug, Default)]
pub(crate) struct States {
    news: Mutex<VecDeque<News>>,
    bell: Notify,
}

impl States {
    fn news(&self) -> std::sync::MutexGuard<'_, VecDeque<News>> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds news in place of older ones of their kind. The first end counts: what follows from it is no news.
    pub(crate) fn tell(&self, news: News) {
        {
            let mut waiting = self.news();
            let same = |other: &News| discriminant(other) == discriminant(&news);
            if !(matches!(news, News::Ended(_)) && waiting.iter().any(same)) {
                waiting.retain(|other| !same(other));
                waiting.push_back(news);
            }
        }
        self.bell.notify_one();
    }

    /// The oldest, if there are any.
    pub(crate) fn take(&self) -> Option<News> {
        self.news().pop_front()
    }

    /// The oldest, as soon as there is one.
    pub(crate) async fn next(&self) -> News {
        loop {
            if let Some(news) = self.take() {
                return news;
            }
            self.bell.notified().await;
        }
    }
}

/// Listens to one connection. Its work is done in line with that of the connection, so it only passes on.
pub(crate) struct Ear {
    pub(crate) states: Arc<States>,
    pub(crate) news: mpsc::Sender<News>,
    pub(crate) past: mpsc::Sender<News>,
    pub(crate) acks: Arc<Acks>,
    pub(crate) dropped: Arc<AtomicU64>,
    pub(crate) receipts: Arc<Receipts>,
}

/// Push that says that a restriction of the account changed.
const RESTRICTION_PUSHES: [&str; 2] = [
    "NotificationUserReachoutTimelockUpdate",
    "MessageCappingInfoNotification",
];

/// What a receipt says of delivery; `None` for those between devices.
pub(crate) fn delivery_of(receipt: &ReceiptType) -> Option<Delivery> {
    match receipt {
        ReceiptType::Delivered | ReceiptType::Inactive => Some(Delivery::Delivered),
        ReceiptType::Read | ReceiptType::Played => Some(Delivery::Read),
        ReceiptType::Sent => Some(Delivery::Undelivered),
        _ => None,
    }
}

fn news_of(event: &Event) -> Option<News> {
    Some(match event {
        Event::PairingQrCode(qr) => News::Qr(qr.code.clone(), qr.timeout),
        Event::PairingCode(code) => News::PairCode(code.code.clone(), code.timeout),
        Event::PairingQrCodesExhausted(end) if end.disconnected => News::Ended(End::CodesUsedUp),
        Event::PairError(_) => News::Ended(End::PairRefused),
        Event::PairPasskeyRequest(_) | Event::PairPasskeyConfirmation(_) | Event::PairPasskeyError(_) => {
            News::Ended(End::Passkey)
        }
        Event::Connected(_) => News::Connected,
        Event::Disconnected(_) => News::Disconnected,
        Event::LoggedOut(out) => News::Ended(match out.reason {
            ConnectFailureReason::AccountLocked => End::Locked,
            _ => End::LoggedOut,
        }),
        Event::StreamReplaced(_) => News::Ended(End::Replaced),
        Event::ClientOutdated(_) => News::Ended(End::Outdated),
        Event::TemporaryBan(ban) => News::Banned(ban.expire.to_std().unwrap_or_default(), ban.code.to_string()),
        Event::ConnectFailure(failure) => match failure.reason {
            ConnectFailureReason::InternalServerError | ConnectFailureReason::ServiceUnavailable => News::Disconnected,
            _ => News::Ended(End::Refused(failure.reason.code())),
        },
        Event::Receipt(receipt) if !receipt.source.is_group => News::Receipt {
            from: receipt.source.sender.clone(),
            ids: receipt.message_ids.iter().map(|id| id.to_string()).collect(),
            delivery: delivery_of(&receipt.r#type)?,
            at: Timestamp::from_chrono(receipt.timestamp),
        },
        // Still packed: it is read where nobody waits.
        Event::HistorySync(history) => News::History(history.clone()),
        Event::MexNotification(push) if RESTRICTION_PUSHES.contains(&push.op_name.as_str()) => News::RestrictionChanged,
        _ => return None,
    })
}

impl EventHandler for Ear {
    fn handle_event(&self, event: Arc<Event>) {
        if let Event::ServerAck(ack) = &*event {
            if ack.class.as_deref() == Some("message") {
                let at = ack.timestamp.map(Timestamp::from_chrono);
                let answer = ack.error.clone().map_or(Answer::Taken(at), Answer::Refused);
                self.acks.tell(&ack.id, answer);
            }
            return;
        }
        let Some(news) = news_of(&event) else { return };
        if matches!(news, News::Disconnected | News::Ended(_) | News::Banned(..)) {
            self.acks.connection_lost();
        }
        let taken = match news {
            News::Receipt { .. } => self.receipts.tell(&self.news, news),
            News::History(_) => self.past.try_send(news).is_ok(),
            _ => {
                self.states.tell(news);
                true
            }
        };
        if !taken {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn interest(&self) -> EventInterest {
        EventInterest::of(&[
            EventKind::PairingQrCode,
            EventKind::PairingCode,
            EventKind::PairingQrCodesExhausted,
            EventKind::PairError,
            EventKind::PairPasskeyRequest,
            EventKind::PairPasskeyConfirmation,
            EventKind::PairPasskeyError,
            EventKind::Connected,
            EventKind::Disconnected,
            EventKind::LoggedOut,
            EventKind::StreamReplaced,
            EventKind::ClientOutdated,
            EventKind::TemporaryBan,
            EventKind::ConnectFailure,
            EventKind::Receipt,
            EventKind::ServerAck,
            EventKind::MexNotification,
            EventKind::HistorySync,
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_connection_stands_is_learned_however_many_receipts_wait() {
        use whatsapp_rust::types::events::{Connected, Disconnected, StreamReplaced};
        let (news, mut receipts) = mpsc::channel(1);
        let (past, _parts) = mpsc::channel(1);
        let ear = Ear {
            states: Arc::default(),
            news,
            past,
            acks: Arc::default(),
            dropped: Arc::default(),
            receipts: Arc::default(),
        };
        let receipt = || News::Receipt {
            from: Jid::pn("60120000001"),
            ids: vec!["3EB0".to_owned()],
            delivery: Delivery::Read,
            at: Timestamp::from_millis(0),
        };
        assert!(ear.receipts.tell(&ear.news, receipt()) && !ear.receipts.tell(&ear.news, receipt()));
        for _ in 0..10_000 {
            let lost = whatsapp_rust::wacore::net::DisconnectReason::StreamEnded;
            ear.handle_event(Arc::new(Event::Disconnected(
                Disconnected::builder().reason(lost).build(),
            )));
            ear.handle_event(Arc::new(Event::Connected(Connected::builder().build())));
        }
        ear.handle_event(Arc::new(Event::StreamReplaced(StreamReplaced::builder().build())));
        let told: Vec<News> = std::iter::from_fn(|| ear.states.take()).collect();
        assert!(
            matches!(
                told[..],
                [News::Disconnected, News::Connected, News::Ended(End::Replaced)]
            ),
            "{told:?}"
        );
        receipts.try_recv().unwrap();
        assert_eq!(ear.dropped.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn receipts_between_devices_say_nothing_of_delivery() {
        assert_eq!(delivery_of(&ReceiptType::Inactive), Some(Delivery::Delivered));
        assert_eq!(delivery_of(&ReceiptType::Played), Some(Delivery::Read));
        for between in [
            ReceiptType::Retry,
            ReceiptType::Sender,
            ReceiptType::PeerMsg,
            ReceiptType::ReadSelf,
        ] {
            assert_eq!(delivery_of(&between), None, "{between:?}");
        }
    }
}
