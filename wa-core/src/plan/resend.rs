//! Sending again what failed, because a person says so.

use std::time::Duration;

use crate::domain::message::{IdempotencyKey, Message, MessageState};
use crate::id::MessageId;
use crate::time::Timestamp;

/// The message that takes the place of one that failed: the next round, to the same person, with the same text.
///
/// `None` when it cannot be: it neither failed nor is unknown, was replaced already, or its number was erased.
pub(crate) fn resend(of: &Message, id: MessageId, expires_after: Duration, now: Timestamp) -> Option<Message> {
    let possible = matches!(of.state, MessageState::Failed | MessageState::Unknown);
    if !possible || of.superseded || of.phone.is_none() {
        return None;
    }
    let round = of.round.checked_add(1)?;
    Some(Message {
        id,
        user_id: of.user_id,
        scope: of.scope,
        key: IdempotencyKey::resend(of.id, round),
        round,
        supersedes: Some(of.id),
        superseded: false,
        lead_id: of.lead_id,
        phone: of.phone,
        person: of.person,
        name: of.name.clone(),
        custom: of.custom.clone(),
        device_id: of.device_id.filter(|_| !of.from_pool),
        flow: of.flow,
        from_pool: of.from_pool,
        content: of.content.clone(),
        override_suppression: of.override_suppression,
        due_at: now,
        delay: of.delay,
        expires_at: now + expires_after,
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
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::device::Device;
    use crate::domain::phone::{PersonKey, Phone};
    use crate::domain::platform::Platform;
    use crate::id::{DeviceId, UserId};
    use crate::plan::direct::{DirectRequest, OnSuppressed, direct_message};

    fn failed() -> Message {
        let device = Device::new(DeviceId::MIN, UserId::MIN, "a", Platform::STUB, Timestamp::EPOCH);
        let request = DirectRequest {
            phone: Phone::from_e164("+60123456789").unwrap(),
            content: crate::domain::content::Content::text("Hi"),
            key: None,
        };
        let person = PersonKey::from_slice(&[0; 16]).unwrap();
        let message = direct_message(
            request,
            MessageId::MIN,
            &device,
            None,
            person,
            OnSuppressed::Refuse,
            Timestamp::EPOCH,
        );
        Message {
            state: MessageState::Failed,
            refusal_count: 5,
            ..message
        }
    }

    fn again(of: &Message) -> Option<Message> {
        let id = MessageId::from_uuid(uuid::Uuid::from_u128(7));
        resend(of, id, Duration::from_secs(60), Timestamp::from_millis(1_000))
    }

    #[test]
    fn only_what_failed_or_is_unknown_is_sent_again_and_only_once() {
        for state in MessageState::ALL {
            let of = Message { state, ..failed() };
            let expected = matches!(state, MessageState::Failed | MessageState::Unknown);
            assert_eq!(again(&of).is_some(), expected, "{state:?}");
        }
        assert!(
            again(&Message {
                superseded: true,
                ..failed()
            })
            .is_none()
        );
        assert!(
            again(&Message {
                phone: None,
                ..failed()
            })
            .is_none()
        );
    }

    #[test]
    fn the_next_round_starts_afresh_and_replaces_the_one_before() {
        let of = failed();
        let next = again(&of).unwrap();
        assert_eq!(
            (next.round, next.supersedes, next.state),
            (1, Some(of.id), MessageState::Queued)
        );
        assert_eq!(
            (next.refusal_count, next.expires_at),
            (0, Timestamp::from_millis(61_000))
        );
        assert_eq!(again(&of).unwrap().key, next.key, "asking twice makes one message");
        let from_pool = Message {
            from_pool: true,
            ..failed()
        };
        assert_eq!(again(&from_pool).unwrap().device_id, None);
    }
}
