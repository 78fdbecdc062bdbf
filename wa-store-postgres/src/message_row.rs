//! Whole messages and attempts, as rows.

use wa_core::domain::delivery::Delivery;
use wa_core::domain::device::Epoch;
use wa_core::domain::enrolment::FlowRef;
use wa_core::domain::message::{Attempt, IdempotencyKey, Message, MessageState, Reason};
use wa_core::domain::phone::Phone;
use wa_core::id::AttemptId;
use wa_core::transport::TransportMessageId;

use crate::error::{Done, Fail};
use crate::live::{read_doubt, read_scope};
use crate::row::Columns;

/// The columns of a message `m` and its newest attempt `a`, to be followed by their joins.
macro_rules! message {
    ($from:literal) => {
        concat!(
            "SELECT m.id, m.user_id, m.scope_kind, m.scope_id, m.key, m.round, m.supersedes, m.superseded, m.lead_id,
                m.phone, m.person, m.name, m.custom, m.device_id, m.from_pool, m.content, m.override_suppression,
                m.due_at, m.delay, m.expires_at, m.held_at, m.state, m.reason, m.detail, m.refusal_count,
                a.id, a.transport_message_id, m.provider_id, a.device_id, a.epoch, a.text, a.greeting, a.attempted_at,
                m.doubt_since_at, m.doubt_cause, m.next_check_at, m.not_found_count, m.resend_count,
                m.delivery, m.delivery_at, m.settled_at, m.created_at, m.enrolment_id, m.step_id, m.steps_version ",
            $from
        )
    };
}
pub(crate) use message;

/// Reads the columns of [`message!`].
pub(crate) fn read_message(c: &mut Columns<'_>) -> Done<Message> {
    let mut message = Message {
        id: c.key("id")?,
        user_id: c.key("user_id")?,
        scope: read_scope(c)?,
        key: c.key::<IdempotencyKey>("key")?,
        round: c.small("round")?,
        supersedes: c.opt_key("supersedes")?,
        superseded: c.flag()?,
        lead_id: c.opt_key("lead_id")?,
        phone: read_opt_phone(c)?,
        person: c.key("person")?,
        name: c.text()?,
        custom: c.opt_json("custom")?.unwrap_or_default(),
        device_id: c.opt_key("device_id")?,
        from_pool: c.flag()?,
        content: c.opt_json("content")?,
        override_suppression: c.flag()?,
        due_at: c.at()?,
        delay: c.opt_json("delay")?,
        expires_at: c.at()?,
        held_at: c.opt_at()?,
        state: c.kind("state", MessageState::from_u8)?,
        reason: c.opt_kind("reason", Reason::from_u8)?,
        detail: c.opt_text()?,
        refusal_count: c.small("refusal_count")?,
        attempt: read_opt_attempt(c)?,
        doubt: read_doubt(c)?,
        delivery: c.opt_kind("delivery", Delivery::from_u8)?,
        delivery_at: c.opt_at()?,
        settled_at: c.opt_at()?,
        created_at: c.at()?,
        flow: None,
    };
    message.flow = read_flow(c)?;
    Ok(message)
}

/// Reads the three columns of a flow.
pub(crate) fn read_flow(c: &mut Columns<'_>) -> Done<Option<FlowRef>> {
    let (enrolment_id, step_id, steps_version) = (c.opt_key("enrolment_id")?, c.opt_key("step_id")?, c.opt_int()?);
    let (Some(enrolment_id), Some(step_id), Some(version)) = (enrolment_id, step_id, steps_version) else {
        return Ok(None);
    };
    Ok(Some(FlowRef {
        enrolment_id,
        step_id,
        steps_version: i32::try_from(version).map_err(|_| Fail::Unreadable("steps_version"))?,
    }))
}

/// Reads a number that may be erased.
pub(crate) fn read_opt_phone(c: &mut Columns<'_>) -> Done<Option<Phone>> {
    let phone = c.opt_str()?.map(Phone::from_e164).transpose();
    phone.map_err(|_| Fail::Unreadable("phone"))
}

/// Reads the eight columns of an attempt that is there.
pub(crate) fn read_attempt(c: &mut Columns<'_>) -> Done<Attempt> {
    read_opt_attempt(c)?.ok_or(Fail::Unreadable("attempt"))
}

fn read_opt_attempt(c: &mut Columns<'_>) -> Done<Option<Attempt>> {
    let id: Option<AttemptId> = c.opt_key("attempt_id")?;
    let ours = c.opt_text()?;
    let provider_id = c.opt_text()?;
    let device_id = c.opt_key("attempt.device_id")?;
    let epoch = c.opt_int()?;
    let text = c.opt_text()?;
    let greeting = c.opt_text()?;
    let attempted_at = c.opt_at()?;
    let (Some(id), Some(device_id), Some(epoch), Some(text), Some(attempted_at)) =
        (id, device_id, epoch, text, attempted_at)
    else {
        return Ok(None);
    };
    Ok(Some(Attempt {
        id,
        transport_message_id: ours_of(id, ours)?,
        provider_id: provider_id
            .map(|id| TransportMessageId::new(id).ok_or(Fail::Unreadable("provider_id")))
            .transpose()?,
        device_id,
        epoch: Epoch(epoch),
        text,
        greeting,
        attempted_at,
    }))
}

/// The id that we chose is kept only where it is not the text of the attempt's own id.
pub(crate) fn kept_ours(attempt: AttemptId, ours: &TransportMessageId) -> Option<String> {
    (*ours != TransportMessageId::from_attempt(attempt)).then(|| ours.as_str().to_owned())
}

fn ours_of(attempt: AttemptId, kept: Option<String>) -> Done<TransportMessageId> {
    match kept {
        None => Ok(TransportMessageId::from_attempt(attempt)),
        Some(kept) => TransportMessageId::new(kept).ok_or(Fail::Unreadable("transport_message_id")),
    }
}
