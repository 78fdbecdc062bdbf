//! From what a transport reports by itself to what it changes.

use crate::domain::chat::{CHAT_NAME_CHARS_MAX, CHAT_TEXT_CHARS_MAX, ChatWriter};
use crate::domain::device::{Device, LinkState, NewChats, Restriction};
use crate::domain::phone::{PersonKey, Phone};
use crate::domain::suppression::{OptOutWords, Suppression, SuppressionReason};
use crate::event::{Event, EventKind};
use crate::id::{ChatId, ChatMessageId, DeviceId, EventId, IdSource, LeadId, UserId};
use crate::seed::Seed;
use crate::store::{Change, ChangeSet, ChatAddition, Fence, NewChatMessage};
use crate::time::Timestamp;
use crate::transport::{ChatHistory, InboundMessage, TransportEvent};

/// What events of one device are planned with.
#[derive(Debug)]
pub(crate) struct InboundContext<'a> {
    /// The device's owner.
    pub(crate) user_id: UserId,
    /// The device.
    pub(crate) device_id: DeviceId,
    /// The device as it stands; `None` once it was deleted.
    pub(crate) device: Option<&'a Device>,
    /// The right of who reports to speak for the device; `None` for a gateway's callback.
    pub(crate) fence: Option<Fence>,
    /// The words that opt a person out.
    pub(crate) words: &'a OptOutWords,
    /// The leads of those who wrote, as far as there are any.
    pub(crate) leads: &'a [(Phone, LeadId)],
    /// The seed of the database.
    pub(crate) seed: &'a Seed,
    /// Where new ids come from.
    pub(crate) ids: &'a IdSource,
    /// How far chats reach back.
    pub(crate) chats_since: Timestamp,
    /// Now.
    pub(crate) now: Timestamp,
}

/// The numbers of those whose words opt them out, so that their leads can be looked up.
pub(crate) fn opting_out(events: &[TransportEvent], words: &OptOutWords) -> Vec<Phone> {
    let mut phones: Vec<Phone> = events
        .iter()
        .filter_map(|event| match event {
            TransportEvent::Inbound(message) if opts_out(message, words) => Some(message.peer),
            _ => None,
        })
        .collect();
    phones.sort_unstable();
    phones.dedup();
    phones
}

/// What events change, as sets to be committed one after the other.
///
/// Each reply, and each message of the own phone, is a set of its own that begins with [`Change::Replied`] or
/// [`Change::TakenOver`]: one that was seen before makes the whole set a no-op, so that an opt-out delivered again does not undo
/// an opt-in made since. What an owner says of the device itself is a set that begins with [`Change::Owned`].
pub(crate) fn inbound(events: Vec<TransportEvent>, context: &InboundContext<'_>) -> Vec<ChangeSet> {
    let mut replies = Vec::new();
    let mut reports = ChangeSet::default();
    let mut states = ChangeSet::default();
    let mut past = Past::default();
    let mut link = context.device.map(|device| device.link_state);
    let mut restriction = context.device.and_then(|device| device.restriction);
    let mut new_chats = context.device.and_then(|device| device.new_chats);
    for reported in events {
        match reported {
            TransportEvent::Receipt {
                message, delivery, at, ..
            } => reports.changes.push(Change::Receipt {
                user_id: context.user_id,
                device_id: context.device_id,
                message,
                delivery,
                at: at.unwrap_or(context.now).min(context.now),
            }),
            TransportEvent::Inbound(message) if message.from_me => replies.extend(taken_over(message, context)),
            TransportEvent::Inbound(message) => replies.push(reply(message, context)),
            TransportEvent::History(history) => past.add(history, context),
            TransportEvent::Link {
                state,
                reason,
                phone,
                jid,
            } => {
                let Some(device) = context.device else { continue };
                let same_phone = phone.is_none() || phone == device.phone;
                let same_jid = jid.is_none() || jid == device.jid;
                if link == Some(state) && device.link_reason == reason && same_phone && same_jid {
                    continue;
                }
                if link != Some(state) {
                    states.events.push(link_event(state, context));
                }
                link = Some(state);
                states.changes.push(Change::SetDeviceLink {
                    user_id: context.user_id,
                    device_id: context.device_id,
                    fence: context.fence,
                    state,
                    reason: reason.map(|reason| reason.chars().take(REASON_MAX).collect()),
                    phone,
                    jid: jid.map(|jid| jid.chars().take(JID_MAX).collect()),
                });
            }
            TransportEvent::Restriction { scope, until, cause } => {
                let told = match until {
                    Some(until_at) => Restriction { until_at, scope, cause }.over(restriction, context.now),
                    None => Restriction::lifted(restriction, scope, context.now),
                };
                let Some(told) = told.filter(|_| context.device.is_some()) else {
                    continue;
                };
                restriction = Some(told);
                states.changes.push(Change::SetDeviceRestriction {
                    user_id: context.user_id,
                    device_id: context.device_id,
                    restriction,
                });
                states
                    .events
                    .push(event(EventKind::restriction(context.device_id, &told), context));
            }
            TransportEvent::NewChats(told) => {
                if context.device.is_none() || told == new_chats {
                    continue;
                }
                let seen = |chats: Option<NewChats>| chats.map(|chats| (chats.warning, chats.total, chats.ends_at));
                if seen(told) != seen(new_chats) {
                    let kind = EventKind::DeviceNewChats {
                        device_id: context.device_id,
                        warning: told.map(|chats| chats.warning),
                    };
                    states.events.push(event(kind, context));
                }
                new_chats = told;
                states.changes.push(Change::SetDeviceNewChats {
                    user_id: context.user_id,
                    device_id: context.device_id,
                    new_chats,
                });
            }
        }
    }
    if !reports.is_empty() {
        replies.push(reports);
    }
    if !states.is_empty() {
        let owned = context.fence.map(|fence| Change::Owned {
            user_id: context.user_id,
            device_id: context.device_id,
            fence,
        });
        states.changes.splice(..0, owned);
        replies.push(states);
    }
    replies.extend(past.into_sets());
    replies
}

/// How much of the past is committed together, at least; a message counts 1, and a chat [`PAST_CHAT`] more. Others of the user
/// wait as long.
const PAST_PAGE: usize = 200;

/// What a chat costs besides its messages, in messages.
const PAST_CHAT: usize = 5;

/// What chats held before, in pages.
#[derive(Default)]
struct Past {
    full: Vec<ChangeSet>,
    page: ChangeSet,
    size: usize,
}

impl Past {
    fn add(&mut self, history: ChatHistory, context: &InboundContext<'_>) {
        let mut messages = history.messages;
        messages.retain(|message| message.at.is_some());
        messages.sort_by_key(|message| message.at);
        let theirs = messages.iter().filter(|message| !message.from_me).count();
        let mut read = theirs.saturating_sub(history.unread as usize);
        let written = messages.into_iter().map(|message| {
            let unread = !message.from_me && read == 0;
            if !message.from_me {
                read = read.saturating_sub(1);
            }
            written(message, unread, context)
        });
        let written: Vec<NewChatMessage> = written.filter(|message| message.at >= context.chats_since).collect();
        if written.is_empty() {
            return;
        }
        self.size += PAST_CHAT + written.len();
        let change = to_chat(history.peer, history.peer_name, written, context);
        self.page = std::mem::take(&mut self.page).and(change);
        if self.size >= PAST_PAGE {
            self.full.push(std::mem::take(&mut self.page));
            self.size = 0;
        }
    }

    fn into_sets(mut self) -> Vec<ChangeSet> {
        if !self.page.is_empty() {
            self.full.push(self.page);
        }
        self.full
    }
}

/// A text of somebody as stores keep it; databases do not take the character of number 0.
fn cut(text: &str, chars_max: usize) -> String {
    text.chars().filter(|letter| *letter != '\0').take(chars_max).collect()
}

/// A message as its chat keeps it. No message is written later than now.
fn written(message: InboundMessage, unread: bool, context: &InboundContext<'_>) -> NewChatMessage {
    NewChatMessage {
        id: ChatMessageId::new(context.ids, context.now),
        provider_id: message.provider_id,
        by: if message.from_me {
            ChatWriter::OwnPhone
        } else {
            ChatWriter::Person
        },
        kind: message.kind,
        text: cut(&message.text, CHAT_TEXT_CHARS_MAX),
        at: message.at.unwrap_or(context.now).min(context.now),
        unread,
    }
}

fn to_chat(phone: Phone, name: Option<String>, messages: Vec<NewChatMessage>, context: &InboundContext<'_>) -> Change {
    let person = PersonKey::of(context.seed, context.user_id, &phone);
    Change::AddToChat(Box::new(ChatAddition {
        chat_id: ChatId::of(context.seed, context.device_id, person),
        user_id: context.user_id,
        device_id: context.device_id,
        person,
        phone,
        name: name
            .map(|name| cut(name.trim(), CHAT_NAME_CHARS_MAX))
            .filter(|name| !name.is_empty()),
        messages,
        opened_at: None,
    }))
}

/// Longest reason that is kept, in characters.
const REASON_MAX: usize = 300;

/// Longest WhatsApp identity that is kept, in characters; real ones have about 30.
const JID_MAX: usize = 100;

fn opts_out(message: &InboundMessage, words: &OptOutWords) -> bool {
    !message.from_me && words.matches(&message.text)
}

fn reply(message: InboundMessage, context: &InboundContext<'_>) -> ChangeSet {
    let at = message.at.unwrap_or(context.now).min(context.now);
    let person = PersonKey::of(context.seed, context.user_id, &message.peer);
    let opts_out = opts_out(&message, context.words);
    let mut set = ChangeSet::one(Change::Replied {
        user_id: context.user_id,
        device_id: context.device_id,
        phone: message.peer,
        person,
        provider_id: message.provider_id.clone(),
        at,
    })
    .tell(event(
        EventKind::Reply {
            device_id: context.device_id,
            message_id: None,
            chat_id: Some(ChatId::of(context.seed, context.device_id, person)),
        },
        context,
    ));
    if at >= context.chats_since {
        let (peer, name) = (message.peer, message.peer_name.clone());
        let kept = written(message.clone(), true, context);
        set = set.and(to_chat(peer, name, vec![kept], context));
    }
    if opts_out {
        let lead = context.leads.iter().find(|(phone, _)| *phone == message.peer);
        set = set
            .and(Change::Suppress(Suppression {
                user_id: context.user_id,
                person,
                phone: Some(message.peer),
                reason: SuppressionReason::OptOutWord,
                note: message.text.trim().to_lowercase(),
                since_at: at,
            }))
            .tell(event(
                EventKind::OptedOut {
                    lead_id: lead.map(|(_, id)| *id),
                    reason: SuppressionReason::OptOutWord,
                },
                context,
            ));
    }
    set
}

/// What the device's own phone wrote is no reply of anybody: a human has taken the conversation over. A gateway does not say
/// whether it calls its own messages so.
fn taken_over(message: InboundMessage, context: &InboundContext<'_>) -> Option<ChangeSet> {
    context.device.filter(|device| !device.platform.is_gateway())?;
    let kind = EventKind::TakenOver {
        device_id: context.device_id,
    };
    let at = message.at.unwrap_or(context.now).min(context.now);
    let set = ChangeSet::one(Change::TakenOver {
        user_id: context.user_id,
        device_id: context.device_id,
        phone: message.peer,
        person: PersonKey::of(context.seed, context.user_id, &message.peer),
        provider_id: message.provider_id.clone(),
        at,
    })
    .tell(event(kind, context));
    if at < context.chats_since {
        return Some(set);
    }
    let peer = message.peer;
    let kept = written(message, false, context);
    Some(set.and(to_chat(peer, None, vec![kept], context)))
}

fn link_event(state: LinkState, context: &InboundContext<'_>) -> Event {
    let kind = EventKind::DeviceLink {
        device_id: context.device_id,
        state,
    };
    event(kind, context)
}

fn event(kind: EventKind, context: &InboundContext<'_>) -> Event {
    Event {
        id: EventId::new(context.ids, context.now),
        user_id: context.user_id,
        kind,
        at: context.now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::chat::ChatKind;
    use crate::domain::delivery::Delivery;
    use crate::domain::device::{NewChatsWarning, RestrictionCause};
    use crate::domain::platform::Platform;
    use crate::transport::{MessageRef, RestrictionScope, TransportMessageId};

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn planned(events: Vec<TransportEvent>, device: Option<&Device>) -> Vec<ChangeSet> {
        let context = InboundContext {
            user_id: UserId::MIN,
            device_id: DeviceId::MIN,
            device,
            fence: None,
            words: &OptOutWords::default(),
            leads: &[(phone(), LeadId::MIN)],
            seed: &Seed::from_number(1),
            ids: &IdSource::seeded([1; 32]),
            chats_since: Timestamp::from_millis(1_000),
            now: NOW,
        };
        inbound(events, &context)
    }

    fn phone() -> Phone {
        Phone::from_e164("+60123456789").unwrap()
    }

    fn wrote(text: &str, from_me: bool) -> TransportEvent {
        TransportEvent::Inbound(message(text, from_me, None))
    }

    fn message(text: &str, from_me: bool, at: Option<i64>) -> InboundMessage {
        InboundMessage {
            provider_id: TransportMessageId::new(format!("m{}", at.unwrap_or(0))).unwrap(),
            peer: phone(),
            peer_name: None,
            kind: ChatKind::Text,
            text: text.to_owned(),
            media_url: None,
            from_me,
            at: at.map(Timestamp::from_millis),
        }
    }

    fn added(change: &Change) -> &ChatAddition {
        match change {
            Change::AddToChat(addition) => addition,
            other => panic!("{other:?}"),
        }
    }

    fn device() -> Device {
        Device::new(DeviceId::MIN, UserId::MIN, "a", Platform::WHATSAPP_WEB, NOW)
    }

    #[test]
    fn a_reply_is_recorded_and_an_opt_out_word_suppresses_in_the_same_commit() {
        let sets = planned(vec![wrote("Thanks!", false)], None);
        let [Change::Replied { at: NOW, .. }, chat] = &sets[0].changes[..] else {
            panic!("{sets:?}");
        };
        let chat = added(chat);
        assert_eq!(
            (chat.messages[0].text.as_str(), chat.messages[0].unread),
            ("Thanks!", true)
        );
        assert_eq!(
            sets[0].events[0].kind,
            EventKind::Reply {
                device_id: DeviceId::MIN,
                message_id: None,
                chat_id: Some(chat.chat_id),
            }
        );
        let sets = planned(vec![wrote(" BERHENTI ", false)], None);
        let [
            Change::Replied { .. },
            Change::AddToChat(_),
            Change::Suppress(suppression),
        ] = &sets[0].changes[..]
        else {
            panic!("{sets:?}");
        };
        assert_eq!(
            (suppression.reason, suppression.note.as_str(), suppression.phone),
            (SuppressionReason::OptOutWord, "berhenti", Some(phone()))
        );
        let opted_out = EventKind::OptedOut {
            lead_id: Some(LeadId::MIN),
            reason: SuppressionReason::OptOutWord,
        };
        assert_eq!(sets[0].events[1].kind, opted_out);
    }

    #[test]
    fn what_the_devices_own_phone_wrote_is_taken_over_and_kept_in_its_chat_and_opts_nobody_out() {
        let mut linked = device();
        linked.platform = Platform::WHATSAPP_WEB;
        let sets = planned(vec![wrote("stop", true)], Some(&linked));
        let [Change::TakenOver { at: NOW, .. }, chat] = &sets[0].changes[..] else {
            panic!("{sets:?}");
        };
        let kept = &added(chat).messages[0];
        assert_eq!((kept.by, kept.unread), (ChatWriter::OwnPhone, false));
        assert!(matches!(sets[0].events[0].kind, EventKind::TakenOver { .. }));
        let long_ago = TransportEvent::Inbound(message("old", true, Some(999)));
        let sets = planned(vec![long_ago], Some(&linked));
        assert!(matches!(sets[0].changes[..], [Change::TakenOver { .. }]), "{sets:?}");
        linked.platform = Platform::WABLAS;
        assert!(planned(vec![wrote("stop", true)], Some(&linked)).is_empty());
        assert!(opting_out(&[wrote("stop", true)], &OptOutWords::default()).is_empty());
        let twice = [wrote("stop", false), wrote("stop", false), wrote("hi", false)];
        assert_eq!(opting_out(&twice, &OptOutWords::default()), [phone()]);
    }

    #[test]
    fn the_past_of_chats_comes_in_order_without_what_is_too_old_and_in_pages() {
        let history = |messages: Vec<InboundMessage>, unread| {
            TransportEvent::History(ChatHistory {
                peer: phone(),
                peer_name: Some(" Aminah ".to_owned()),
                messages,
                unread,
            })
        };
        let messages = vec![
            message("last", false, Some(5_000)),
            message("answer", true, Some(3_000)),
            message("first", false, Some(2_000)),
            message("too old", false, Some(999)),
            message("of no time", false, None),
        ];
        let sets = planned(vec![history(messages, 1)], None);
        assert_eq!(
            (sets.len(), sets[0].events.len()),
            (1, 0),
            "the past opts nobody out and is no reply"
        );
        let addition = added(&sets[0].changes[0]);
        assert_eq!(addition.name.as_deref(), Some("Aminah"));
        let kept: Vec<_> = addition
            .messages
            .iter()
            .map(|one| (one.text.as_str(), one.unread))
            .collect();
        assert_eq!(kept, [("first", false), ("answer", false), ("last", true)]);
        assert!(planned(vec![history(Vec::new(), 3)], None).is_empty());

        let chat = |n: i64| {
            history(
                (0..60)
                    .map(|at| message("x", false, Some(2_000 + n * 60 + at)))
                    .collect(),
                0,
            )
        };
        let sets = planned((0..5).map(chat).collect(), None);
        let sizes: Vec<_> = sets.iter().map(|set| set.changes.len()).collect();
        assert_eq!(sizes, [4, 1]);
    }

    #[test]
    fn what_no_database_takes_is_left_out_of_texts_and_names() {
        let mut written = message("a\0b", false, None);
        written.peer_name = Some("\0".to_owned());
        let sets = planned(vec![TransportEvent::Inbound(written)], None);
        let addition = added(&sets[0].changes[1]);
        assert_eq!((addition.messages[0].text.as_str(), &addition.name), ("ab", &None));
        assert_eq!(TransportMessageId::new("a\0"), None);
    }

    #[test]
    fn what_is_kept_of_a_message_has_limits() {
        let mut long = message(&"ä".repeat(CHAT_TEXT_CHARS_MAX + 1), false, None);
        long.peer_name = Some("b".repeat(CHAT_NAME_CHARS_MAX + 1));
        let sets = planned(vec![TransportEvent::Inbound(long)], None);
        let addition = added(&sets[0].changes[1]);
        assert_eq!(addition.messages[0].text.chars().count(), CHAT_TEXT_CHARS_MAX);
        assert_eq!(addition.name.as_ref().unwrap().len(), CHAT_NAME_CHARS_MAX);
        let old = TransportEvent::Inbound(message("old", false, Some(999)));
        let sets = planned(vec![old], None);
        assert!(matches!(sets[0].changes[..], [Change::Replied { .. }]), "{sets:?}");
    }

    #[test]
    fn a_receipt_from_the_future_counts_as_now() {
        let receipt = |at: Option<i64>| TransportEvent::Receipt {
            message: MessageRef::NewestTo(phone()),
            delivery: Delivery::Read,
            at: at.map(Timestamp::from_millis),
            note: None,
        };
        let sets = planned(vec![receipt(None), receipt(Some(5)), receipt(Some(i64::MAX))], None);
        let times: Vec<_> = sets[0]
            .changes
            .iter()
            .map(|change| match change {
                Change::Receipt { at, .. } => *at,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(times, [NOW, Timestamp::from_millis(5), NOW]);
    }

    #[test]
    fn a_link_that_stands_as_reported_changes_nothing() {
        let link = |state, reason: Option<&str>| TransportEvent::Link {
            state,
            reason: reason.map(str::to_owned),
            phone: None,
            jid: None,
        };
        let device = device();
        assert!(planned(vec![link(LinkState::Initializing, None)], Some(&device)).is_empty());
        let sets = planned(
            vec![
                link(LinkState::Ready, None),
                link(LinkState::Disconnected, Some("gone")),
            ],
            Some(&device),
        );
        assert_eq!((sets[0].changes.len(), sets[0].events.len()), (2, 2));
        let sets = planned(vec![link(LinkState::Initializing, Some("starting"))], Some(&device));
        assert_eq!((sets[0].changes.len(), sets[0].events.len()), (1, 0));
        assert!(planned(vec![link(LinkState::Ready, None)], None).is_empty());
    }

    #[test]
    fn a_restriction_is_recorded_and_told_once_and_its_end_too() {
        let told = |until: Option<i64>| TransportEvent::Restriction {
            scope: RestrictionScope::Cold,
            until: until.map(Timestamp::from_millis),
            cause: RestrictionCause::Timelock,
        };
        let mut device = device();
        assert!(planned(vec![told(None)], Some(&device)).is_empty());
        let sets = planned(vec![told(Some(2_000_000)), told(Some(2_000_000))], Some(&device));
        let [Change::SetDeviceRestriction { restriction, .. }] = sets[0].changes[..] else {
            panic!("{sets:?}");
        };
        device.restriction = restriction;
        assert_eq!(restriction.unwrap().until_at, Timestamp::from_millis(2_000_000));
        assert!(matches!(
            sets[0].events[..],
            [Event {
                kind: EventKind::DeviceRestriction { .. },
                ..
            }]
        ));
        assert!(planned(vec![told(Some(2_000_000))], Some(&device)).is_empty());
        let sets = planned(vec![told(None)], Some(&device));
        let [Change::SetDeviceRestriction { restriction, .. }] = sets[0].changes[..] else {
            panic!("{sets:?}");
        };
        assert_eq!(restriction.unwrap().until_at, NOW);
    }

    #[test]
    fn a_limit_of_new_chats_is_recorded_with_what_is_used_and_told_when_it_changes() {
        let chats = |used, warning| NewChats {
            total: 50,
            used,
            warning,
            ends_at: Timestamp::from_millis(9_000_000),
            told_at: NOW,
        };
        let mut device = device();
        let counts = |told, device: &Device| {
            let sets = planned(vec![TransportEvent::NewChats(told)], Some(device));
            sets.first().map(|set| (set.changes.len(), set.events.len()))
        };
        assert_eq!(counts(None, &device), None);
        let first = chats(1, NewChatsWarning::None);
        assert_eq!(counts(Some(first), &device), Some((1, 1)));
        device.new_chats = Some(first);
        assert_eq!(counts(Some(first), &device), None);
        assert_eq!(counts(Some(chats(2, NewChatsWarning::None)), &device), Some((1, 0)));
        assert_eq!(counts(Some(chats(2, NewChatsWarning::First)), &device), Some((1, 1)));
        assert_eq!(counts(None, &device), Some((1, 1)));
    }
}
