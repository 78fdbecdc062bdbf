//! Messages to one person: direct ones, and tests of a device.

use std::collections::BTreeSet;

use super::{Handle, HandleError};
use crate::domain::access::RequestScope;
use crate::domain::device::Device;
use crate::domain::lead::Lead;
use crate::domain::message::Message;
use crate::domain::phone::Phone;
use crate::id::MessageId;
use crate::plan::direct::{direct_message, direct_request};
use crate::plan::{DirectDraft, FieldCode, FieldError, OnSuppressed, Problems};
use crate::store::{Change, ChangeSet, WriteClass};

/// What became of a direct message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectSent {
    /// The message in the outbox.
    pub message_id: MessageId,
    /// Whether a message with the same idempotency key was there already; nothing was added then.
    pub duplicate: bool,
}

/// What keeps a message from ever going from a device to a number, whatever it says.
fn cannot_go(device: &Device, to: Option<&Phone>) -> Vec<FieldError> {
    let mut problems = Vec::new();
    if !device.is_linked() {
        let expected = "must be linked to WhatsApp first, by QR code or pair code";
        problems.push(FieldError::new("device_id", FieldCode::NotAllowed, expected));
    }
    if !device.platform.is_gateway() && to.is_some() && device.phone.as_ref() == to {
        let expected = "must not be the device's own number";
        problems.push(FieldError::new("phone", FieldCode::NotAllowed, expected));
    }
    problems
}

/// Most direct messages of one call.
const DIRECT_MANY_MAX: usize = 100;

impl Handle {
    /// Checks a message to one person and gives the row to enqueue, for a program that commits it together with something of
    /// its own; [`wake`](Self::wake) the device afterwards. [`send_direct`](Self::send_direct) does both.
    ///
    /// # Errors
    /// `Invalid` for fields, also a text or an attachment that the device cannot carry, a device that is not linked, or its own
    /// number; `Conflict` when the person must not be
    /// written to and the draft does not say to do it all the same.
    pub async fn plan_direct(&self, scope: &RequestScope, draft: &DirectDraft) -> Result<Message, HandleError> {
        let mut problems = Problems::default();
        let lead = self.lead_of_draft(scope, draft, &mut problems).await?;
        let device = match draft.device_id.or(lead.as_ref().and_then(|lead| lead.device_id)) {
            Some(id) => match self.device_of_field(scope, "device_id", id).await? {
                Ok(device) => Some(device),
                Err(error) => {
                    problems.push(error);
                    None
                }
            },
            // A lead that does not exist has been told already.
            None if draft.lead_id.is_some() && lead.is_none() => None,
            None => {
                problems.add(
                    "device_id",
                    FieldCode::Required,
                    "is required, unless the lead has a device",
                );
                None
            }
        };
        let region = self.settings(scope.user_id).await?.region;
        let platforms: BTreeSet<_> = device.iter().map(|device| device.platform.clone()).collect();
        let carriers = self.carriers(&platforms);
        let request = match direct_request(draft, lead.as_ref(), region, carriers.first().copied()) {
            Ok(request) => {
                if let Some(media) = &request.content.media {
                    problems.extend(self.media_problems(scope.user_id, media, &carriers).await);
                }
                Some(request)
            }
            Err(errors) => {
                problems.extend(errors);
                None
            }
        };
        if let Some(device) = &device {
            problems.extend(cannot_go(device, request.as_ref().map(|request| &request.phone)));
        }
        problems.give(())?;
        let (Some(device), Some(request)) = (device, request) else {
            return Err(HandleError::not_found("device"));
        };
        let person = self.person(device.user_id, &request.phone);
        if draft.on_suppressed == OnSuppressed::Refuse
            && !self.core.store.suppressed(device.user_id, &[person]).await?.is_empty()
        {
            let why = "this person must not be written to; only an explicit override does it all the same";
            return Err(HandleError::conflict("person", why));
        }
        let now = self.now();
        let message_id = MessageId::new(&self.core.ids, now);
        let lead_id = lead.map(|lead| lead.id);
        Ok(direct_message(
            request,
            message_id,
            &device,
            lead_id,
            person,
            draft.on_suppressed,
            now,
        ))
    }

    /// Enqueues a message to one person; it goes before campaigns. A test of a device is one to a number of one's own.
    ///
    /// # Errors
    /// As [`plan_direct`](Self::plan_direct).
    pub async fn send_direct(&self, scope: &RequestScope, draft: &DirectDraft) -> Result<DirectSent, HandleError> {
        let message = self.plan_direct(scope, draft).await?;
        let (message_id, key, device_id) = (message.id, message.key, message.device_id);
        let opened = self.opened_chat(&message);
        let mut set = ChangeSet::one(Change::InsertMessages(vec![message]));
        set.changes
            .extend(opened.clone().map(|chat| Change::AddToChat(Box::new(chat))));
        let committed = self.commit_repeatable(set, WriteClass::Api).await?;
        self.core.wake.devices(device_id);
        if let Some(chat) = opened {
            self.tell_chat(chat.user_id, chat.device_id, Some(chat.chat_id)).await;
        }
        let known = committed.duplicates.iter().find(|(known, _)| *known == key);
        let holder = known.map_or(message_id, |(_, id)| *id);
        Ok(DirectSent {
            message_id: holder,
            // A commit whose first answer was lost finds its own message.
            duplicate: holder != message_id,
        })
    }

    /// Enqueues up to 100 direct messages, each on its own; one answer per draft, in order.
    ///
    /// # Errors
    /// `Invalid` when there are too many.
    pub async fn send_direct_many(
        &self,
        scope: &RequestScope,
        drafts: &[DirectDraft],
    ) -> Result<Vec<Result<DirectSent, HandleError>>, HandleError> {
        if drafts.len() > DIRECT_MANY_MAX {
            let expected = format!("must be at most {DIRECT_MANY_MAX} at a time");
            return Err(FieldError::new("messages", FieldCode::TooMany, expected).into());
        }
        let mut sent = Vec::with_capacity(drafts.len());
        for draft in drafts {
            sent.push(self.send_direct(scope, draft).await);
        }
        Ok(sent)
    }

    async fn lead_of_draft(
        &self,
        scope: &RequestScope,
        draft: &DirectDraft,
        problems: &mut Problems,
    ) -> Result<Option<Lead>, HandleError> {
        let Some(id) = draft.lead_id else { return Ok(None) };
        match self.core.store.lead(scope, id).await {
            Ok(lead) => Ok(Some(lead)),
            Err(error) if error.is_not_found() => {
                problems.add("lead_id", FieldCode::NotFound, "must be a lead of the user");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}
