//! From a request to write to one person to the message.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::field::{FieldCode, FieldError, Problems, given};
use super::preview::values_of;
use super::shared_drafts::{Carrier, MediaDraft, TextAs, content_as};
use crate::domain::content::{Content, MergeValues};
use crate::domain::device::Device;
use crate::domain::lead::Lead;
use crate::domain::message::{IdempotencyKey, Message, MessageScope, MessageState};
use crate::domain::phone::{PersonKey, Phone, Region};
use crate::id::{DeviceId, LeadId, MessageId};
use crate::time::Timestamp;

/// A message to one person, by number or to a lead.
#[derive(Clone, Default)]
pub struct DirectDraft {
    /// The device that sends; the lead's own when absent. Field `device_id`.
    pub device_id: Option<DeviceId>,
    /// The number; instead of a lead. Field `phone`.
    pub phone: Option<String>,
    /// The lead; instead of a number. Field `lead_id`.
    pub lead_id: Option<LeadId>,
    /// The text, or the caption. Field `message`.
    pub message: Option<String>,
    /// Whether it is sent as it stands, the default, or has merge fields and choices.
    pub text_as: TextAs,
    /// What is attached. Field `media`.
    pub media: Option<MediaDraft>,
    /// Names this message: the same key again sends nothing. 1 to 200 characters. Field `idempotency_key`.
    pub idempotency_key: Option<String>,
    /// Whether a suppressed person is written to all the same; recorded with the message.
    pub on_suppressed: OnSuppressed,
}

/// What happens when the recipient must not be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnSuppressed {
    /// It is refused.
    #[default]
    Refuse,
    /// It is sent all the same, because a person says so.
    SendAnyway,
}

impl fmt::Debug for DirectDraft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectDraft")
            .field("device_id", &self.device_id)
            .field("lead_id", &self.lead_id)
            .field("on_suppressed", &self.on_suppressed)
            .finish_non_exhaustive()
    }
}

/// How long a direct message may wait for its device: 7 days.
pub const DIRECT_EXPIRES_AFTER: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Longest idempotency key, in characters.
const KEY_MAX: usize = 200;

/// Whom a direct message goes to, and what it says.
#[derive(Debug, Clone)]
pub(crate) struct DirectRequest {
    pub(crate) phone: Phone,
    pub(crate) content: Content,
    pub(crate) key: Option<String>,
}

/// Reads a draft; `lead` is the lead that it names, if there is one.
pub(crate) fn direct_request(
    draft: &DirectDraft,
    lead: Option<&Lead>,
    region: Region,
    carrier: Option<Carrier<'_>>,
) -> Result<DirectRequest, Vec<FieldError>> {
    let mut problems = Problems::default();
    let phone = match (given(draft.phone.as_deref()), lead) {
        (Some(_), Some(_)) => {
            problems.add("phone", FieldCode::NotAllowed, "must be empty beside lead_id");
            None
        }
        (Some(text), None) => problems.parsed("phone", Phone::parse(text, &region)),
        (None, Some(lead)) => Some(lead.phone),
        (None, None) if draft.lead_id.is_none() => {
            problems.add("phone", FieldCode::Required, "is required, unless lead_id is given");
            None
        }
        (None, None) => None,
    };
    let (text, media) = (draft.message.as_deref(), draft.media.as_ref());
    let content = content_as("message", text, media, draft.text_as, &mut problems);
    if content.text.trim().is_empty() && draft.media.is_none() {
        problems.add(
            "message",
            FieldCode::Required,
            "is required, unless something is attached",
        );
    }
    let values = lead.map_or_else(
        || MergeValues {
            phone: phone.map(|phone| phone.as_e164().to_owned()).unwrap_or_default(),
            ..MergeValues::default()
        },
        values_of,
    );
    if let (Some(carrier), Ok(template)) = (carrier, content.template()) {
        let (chars, most) = (template.longest(&values), carrier.text_max(&content));
        if chars > most {
            let expected = format!(
                "must be at most {most} characters long for {} devices",
                carrier.platform
            );
            problems.add("message", FieldCode::TooLong, expected);
        }
    }
    let key = given(draft.idempotency_key.as_deref()).map(|key| problems.line("idempotency_key", key, KEY_MAX));
    match phone {
        Some(phone) => problems.give(DirectRequest { phone, content, key }),
        None => Err(problems.into_errors()),
    }
}

/// The message of a request, due now.
pub(crate) fn direct_message(
    request: DirectRequest,
    id: MessageId,
    device: &Device,
    lead_id: Option<LeadId>,
    person: PersonKey,
    on_suppressed: OnSuppressed,
    now: Timestamp,
) -> Message {
    let key = match &request.key {
        Some(key) => IdempotencyKey::caller(device.user_id, key),
        None => IdempotencyKey::unique(id),
    };
    Message {
        id,
        user_id: device.user_id,
        scope: MessageScope::Direct,
        key,
        round: 0,
        supersedes: None,
        superseded: false,
        lead_id,
        phone: Some(request.phone),
        person,
        name: String::new(),
        custom: BTreeMap::new(),
        device_id: Some(device.id),
        flow: None,
        from_pool: false,
        content: Some(request.content),
        override_suppression: on_suppressed == OnSuppressed::SendAnyway,
        due_at: now,
        delay: None,
        expires_at: now + DIRECT_EXPIRES_AFTER,
        held_at: None,
        state: MessageState::Queued,
        reason: None,
        detail: None,
        refusal_count: 0,
        attempt: None,
        doubt: None,
        delivery: None,
        delivery_at: None,
        settled_at: None,
        created_at: now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::pacing::Priority;
    use crate::domain::platform::Platform;
    use crate::id::UserId;
    use crate::transport::Capabilities;

    fn to(phone: &str, message: &str) -> DirectDraft {
        DirectDraft {
            phone: Some(phone.to_owned()),
            message: Some(message.to_owned()),
            ..DirectDraft::default()
        }
    }

    fn read(draft: &DirectDraft, lead: Option<&Lead>) -> Result<DirectRequest, Vec<(String, FieldCode)>> {
        let capabilities = Capabilities::text(10);
        let carrier = Carrier {
            platform: "wablas",
            capabilities: &capabilities,
        };
        direct_request(draft, lead, Region::MY, Some(carrier)).map_err(|errors| {
            let pairs = errors.into_iter().map(|error| (error.field.into_owned(), error.code));
            pairs.collect()
        })
    }

    #[test]
    fn a_direct_message_needs_one_recipient_and_something_to_say() {
        let none = read(&DirectDraft::default(), None).unwrap_err();
        assert_eq!(
            none,
            [
                ("phone".to_owned(), FieldCode::Required),
                ("message".to_owned(), FieldCode::Required)
            ]
        );
        assert!(read(&to("0123456789", "Hi"), None).is_ok());
        let phone = Phone::from_e164("+60123456789").unwrap();
        let lead = Lead::new(LeadId::MIN, UserId::MIN, None, phone, Timestamp::EPOCH);
        let both = read(&to("0123456789", "Hi"), Some(&lead)).unwrap_err();
        assert_eq!(both, [("phone".to_owned(), FieldCode::NotAllowed)]);
        assert_eq!(read(&to("", "Hi"), Some(&lead)).unwrap().phone, phone);
    }

    #[test]
    fn a_direct_message_is_refused_when_its_device_cannot_carry_it() {
        let long = read(&to("0123456789", &"x".repeat(11)), None).unwrap_err();
        assert_eq!(long, [("message".to_owned(), FieldCode::TooLong)]);
        let mut template = to("0123456789", "{{nmae}}");
        assert!(read(&template, None).unwrap().content.literal, "text is only text");
        template.text_as = TextAs::Template;
        let unknown = read(&template, None).unwrap_err();
        assert_eq!(unknown, [("message".to_owned(), FieldCode::Unknown)]);
        let mut keyed = to("0123456789", "Hi");
        keyed.idempotency_key = Some("k".repeat(201));
        assert_eq!(
            read(&keyed, None).unwrap_err(),
            [("idempotency_key".to_owned(), FieldCode::TooLong)]
        );
    }

    #[test]
    fn a_direct_message_is_interactive_and_unique_by_its_callers_key() {
        let device = Device::new(DeviceId::MIN, UserId::MIN, "a", Platform::STUB, Timestamp::EPOCH);
        let message = |key: Option<&str>, id: u128| {
            let mut draft = to("0123456789", "Hi");
            draft.idempotency_key = key.map(str::to_owned);
            let request = read(&draft, None).unwrap();
            let id = MessageId::from_uuid(uuid::Uuid::from_u128(id));
            let person = PersonKey::from_slice(&[0; 16]).unwrap();
            direct_message(
                request,
                id,
                &device,
                None,
                person,
                OnSuppressed::Refuse,
                Timestamp::EPOCH,
            )
        };
        assert_eq!(message(None, 1).scope.priority(), Priority::Interactive);
        assert_eq!(message(Some("a"), 1).key, message(Some("a"), 2).key);
        assert_ne!(message(Some("a"), 1).key, message(Some("b"), 1).key);
        assert_ne!(message(None, 1).key, message(None, 2).key);
        assert!(!message(None, 1).override_suppression);
    }
}
