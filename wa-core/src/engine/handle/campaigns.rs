//! Campaigns: written, scheduled, started, stopped, counted.

use std::collections::BTreeSet;
use std::ops::Range;

use serde::Serialize;

use super::ahead::{Pace, Room};
use super::leads::check_batch;
use super::{Handle, HandleError};
use crate::domain::access::RequestScope;
use crate::domain::audience::Audience;
use crate::domain::campaign::{Campaign, CampaignReason, CampaignStatus};
use crate::domain::message::MessageScope;
use crate::domain::pacing::{DelaySettings, Priority};
use crate::domain::platform::Platform;
use crate::domain::schedule::Quiet;
use crate::domain::summary::{DeviceNumbers, Numbers};
use crate::event::EventKind;
use crate::id::{CampaignId, DeviceId, LeadId, MessageId};
use crate::plan::campaign_request::{edited_campaign, entry, new_campaign, scheduled, started_now, text_warnings};
use crate::plan::preview::{PreviewContext, preview};
use crate::plan::{
    CampaignDraft, CampaignEdit, EntryDraft, FieldCode, FieldError, Preview, Problems, SaveAs, Warning, WarningCode,
    expected_end,
};
use crate::store::{Change, ChangeSet, StoreErrorKind, WriteClass};
use crate::time::Timestamp;

/// A campaign as it was saved, with what a person should know of it.
#[derive(Debug, Clone)]
pub struct SavedCampaign {
    /// The campaign.
    pub campaign: Campaign,
    /// What does not keep it from being saved.
    pub warnings: Vec<Warning>,
}

/// What became of a batch of uploaded recipients.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Uploaded {
    /// How many were taken.
    pub taken: u64,
    /// Positions of the batch that were there already, in order.
    pub known: Vec<u32>,
    /// Positions that were refused, with what is wrong.
    pub refused: Vec<(u32, Vec<FieldError>)>,
}

/// The numbers of a campaign.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CampaignNumbers {
    /// Where it stands.
    pub status: CampaignStatus,
    /// Why.
    pub reason: Option<CampaignReason>,
    /// Whether its audience is still being expanded, so that `should` still grows.
    pub expanding: bool,
    /// What it should send in all: the sum of the others.
    pub should: u64,
    /// Its numbers.
    pub total: Numbers,
    /// Of the skipped ones, how many were left over because every device had reached its limit: triggering it again takes them up.
    pub left_over: u64,
    /// By device; `None` is the pool.
    pub devices: Vec<DeviceNumbers>,
}

/// How far a campaign is, and when it will be over.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CampaignProgress {
    /// Its numbers.
    pub numbers: CampaignNumbers,
    /// When the devices that can send will be done, if things go on as they are; `None` while it is not running, still being
    /// expanded, or has nothing left that could be sent now.
    pub expected_end_at: Option<Timestamp>,
    /// Devices with messages of it that cannot send now: offline or on hold.
    pub waiting_devices: Vec<DeviceId>,
    /// Whether messages wait in the pool and no device is there to take them.
    pub pool_waits: bool,
}

/// Most recipients of one upload.
pub const ENTRIES_MAX: u32 = 1_000_000;

const COPY_PAGE: u32 = 500;

impl Handle {
    /// Creates a campaign, as a draft or to start at its local date and time.
    ///
    /// # Errors
    /// `Invalid` for fields, also devices that are not the user's and media that a device of the campaign cannot carry.
    pub async fn create_campaign(
        &self,
        scope: &RequestScope,
        draft: &CampaignDraft,
        save_as: SaveAs,
    ) -> Result<SavedCampaign, HandleError> {
        let user_id = Self::owner(scope, "campaign")?;
        let settings = self.settings(user_id).await?;
        let now = self.now();
        let id = CampaignId::new(&self.core.ids, now);
        let (mut campaign, mut problems) = new_campaign(draft, id, user_id, &settings, now);
        if save_as == SaveAs::Scheduled {
            if campaign.audience == Audience::Entries {
                let expected = "must be uploaded before the campaign is scheduled";
                problems.add("audience", FieldCode::NotAllowed, expected);
            }
            match scheduled(&campaign, now, self.core.config.late_grace) {
                Ok(waiting) => campaign = waiting,
                // What could not be read was told already.
                Err(errors) if problems.is_empty() => problems.extend(errors),
                Err(_) => {}
            }
        }
        let warnings = self.check_sending(scope, &campaign, None, &mut problems).await?;
        let campaign = problems.give(campaign)?;
        let mut set = ChangeSet::one(Change::InsertCampaign(Box::new(campaign.clone())));
        if save_as == SaveAs::Scheduled {
            set = set.tell(self.core.event(user_id, status_event(&campaign)));
        }
        self.commit(set, WriteClass::Api).await?;
        self.core.wake.plan();
        Ok(SavedCampaign { campaign, warnings })
    }

    /// Edits a campaign that is a draft, scheduled or paused. A new text or dressing holds for what has not begun; a paused
    /// campaign keeps its audience, devices and start.
    ///
    /// # Errors
    /// `Invalid` for fields; `Conflict` when it was changed in the meantime or is in another status.
    pub async fn edit_campaign(
        &self,
        scope: &RequestScope,
        id: CampaignId,
        edit: &CampaignEdit,
    ) -> Result<SavedCampaign, HandleError> {
        use CampaignStatus::{Draft, Paused, Scheduled};
        let before = self.owned_campaign(scope, id).await?;
        if before.version != edit.version {
            return Err(HandleError::stale("campaign", edit.version, before.version));
        }
        if !matches!(before.status, Draft | Scheduled | Paused) {
            return Err(wrong_status(&before, "edited", &[Draft, Scheduled, Paused]));
        }
        let settings = self.settings(before.user_id).await?;
        let grace = self.core.config.late_grace;
        let (campaign, mut problems) = edited_campaign(&edit.draft, &before, &settings, self.now(), grace);
        let warnings = self
            .check_sending(scope, &campaign, Some(&before), &mut problems)
            .await?;
        let campaign = problems.give(campaign)?;
        let campaign = self.replace_campaign(scope, campaign, &before).await?;
        Ok(SavedCampaign { campaign, warnings })
    }

    /// Makes a draft with the content and audience of a campaign, without its start. Uploaded recipients are copied too.
    ///
    /// # Errors
    /// `NotFound` when there is no such campaign.
    pub async fn clone_campaign(&self, scope: &RequestScope, id: CampaignId) -> Result<Campaign, HandleError> {
        let of = self.owned_campaign(scope, id).await?;
        let now = self.now();
        let title: String = of.title.chars().take(Campaign::TITLE_MAX - COPY_MARK.len()).collect();
        let blank = Campaign::draft(
            CampaignId::new(&self.core.ids, now),
            of.user_id,
            title + COPY_MARK,
            of.content.clone(),
            now,
        );
        let copy = Campaign {
            audience: of.audience,
            device_id: of.device_id,
            routing: of.routing,
            device_limit: of.device_limit,
            time_zone: of.time_zone,
            late_policy: of.late_policy,
            delay: of.delay,
            quiet_hours: of.quiet_hours,
            dressing: of.dressing,
            expires_after: of.expires_after,
            ..blank
        };
        let insert = ChangeSet::one(Change::InsertCampaign(Box::new(copy.clone())));
        self.commit(insert, WriteClass::Api).await?;
        if copy.audience == Audience::Entries {
            self.copy_entries(id, copy.id).await?;
        }
        Ok(self.core.store.campaign(scope, copy.id).await?)
    }

    /// Deletes a campaign that never started.
    ///
    /// # Errors
    /// `Conflict` when it has started: its messages are history.
    pub async fn delete_campaign(&self, scope: &RequestScope, id: CampaignId) -> Result<(), HandleError> {
        let campaign = self.owned_campaign(scope, id).await?;
        let delete = Change::DeleteCampaign {
            user_id: campaign.user_id,
            campaign_id: id,
        };
        match self.commit(ChangeSet::one(delete), WriteClass::Api).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_conflict() => {
                let current = self.core.store.campaign(scope, id).await?;
                let why = format!(
                    "it is {}; only campaigns that never started can be deleted",
                    word(current.status)
                );
                Err(HandleError::conflict("campaign", why))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Lets a draft wait for its local date and time; answers the question of one that was missed, when its date lies ahead.
    ///
    /// # Errors
    /// `Invalid` when it lacks something or its time has passed; `Conflict` when it has started.
    pub async fn schedule_campaign(&self, scope: &RequestScope, id: CampaignId) -> Result<SavedCampaign, HandleError> {
        let grace = self.core.config.late_grace;
        self.put_to_wait(scope, id, "scheduled", |before, now| scheduled(before, now, grace))
            .await
    }

    /// Starts a draft or scheduled campaign at once, whatever date and time it has.
    ///
    /// # Errors
    /// `Invalid` when it lacks something; `Conflict` when it has started.
    pub async fn start_campaign_now(&self, scope: &RequestScope, id: CampaignId) -> Result<SavedCampaign, HandleError> {
        self.put_to_wait(scope, id, "started", started_now).await
    }

    /// Triggers a campaign whose audience is the pool: a draft or scheduled one starts at once; of a completed one, whom it left over
    /// and who came to the pool since are taken up, and each device may take as many as its limit says once more.
    ///
    /// # Errors
    /// `Invalid` when it lacks something; `Conflict` when its audience is not the pool, it is under way, or it ended for good.
    pub async fn trigger_campaign(&self, scope: &RequestScope, id: CampaignId) -> Result<SavedCampaign, HandleError> {
        use CampaignStatus::{Completed, Draft, Scheduled};
        let before = self.owned_campaign(scope, id).await?;
        if !before.audience.is_pool() {
            let why = "its audience is not the pool of leads without a device; start it as any other campaign";
            return Err(HandleError::conflict("campaign", why));
        }
        match before.status {
            Draft | Scheduled => self.start_campaign_now(scope, id).await,
            Completed if before.archived_at.is_none() => {
                let mut problems = Problems::default();
                let warnings = self.check_sending(scope, &before, Some(&before), &mut problems).await?;
                problems.give(())?;
                let campaign = self.trigger_again(scope, &before).await?;
                Ok(SavedCampaign { campaign, warnings })
            }
            _ => Err(wrong_status(&before, "triggered", &[Draft, Scheduled, Completed])),
        }
    }

    async fn trigger_again(&self, scope: &RequestScope, before: &Campaign) -> Result<Campaign, HandleError> {
        let id = before.id;
        let kind = EventKind::CampaignStatus {
            campaign_id: id,
            status: CampaignStatus::Triggered,
            reason: None,
        };
        let set = ChangeSet::one(Change::TriggerAgain {
            user_id: before.user_id,
            campaign_id: id,
        })
        .tell(self.core.event(before.user_id, kind));
        let mut tries = 1;
        loop {
            match self.commit(set.clone(), WriteClass::Api).await {
                Ok(_) => break,
                Err(error) if error.kind == StoreErrorKind::Unavailable && tries < super::COMMIT_TRIES_MAX => {
                    tries += 1;
                }
                Err(error) if error.is_conflict() => {
                    let current = self.core.store.campaign(scope, id).await?;
                    // A first try whose answer was lost did it.
                    if tries > 1 && current.started_at > before.started_at {
                        break;
                    }
                    return Err(wrong_status(&current, "triggered", &[CampaignStatus::Completed]));
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.core.wake.plan();
        Ok(self.core.store.campaign(scope, id).await?)
    }

    /// Makes a scheduled campaign a draft again.
    ///
    /// # Errors
    /// `Conflict` when it is not scheduled.
    pub async fn unschedule_campaign(&self, scope: &RequestScope, id: CampaignId) -> Result<Campaign, HandleError> {
        const FROM: &[CampaignStatus] = &[CampaignStatus::Scheduled];
        self.set_status(scope, id, "unscheduled", FROM, CampaignStatus::Draft, None)
            .await
    }

    /// Pauses a running campaign: from the return of this call no further send of it begins.
    ///
    /// # Errors
    /// `Conflict` when it is not running.
    pub async fn pause_campaign(&self, scope: &RequestScope, id: CampaignId) -> Result<Campaign, HandleError> {
        const FROM: &[CampaignStatus] = &[CampaignStatus::Triggered];
        let reason = Some(CampaignReason::ByPerson);
        self.set_status(scope, id, "paused", FROM, CampaignStatus::Paused, reason)
            .await
    }

    /// Lets a paused campaign go on, whoever paused it; its error rate counts anew.
    ///
    /// # Errors
    /// `Conflict` when it is not paused.
    pub async fn resume_campaign(&self, scope: &RequestScope, id: CampaignId) -> Result<Campaign, HandleError> {
        const FROM: &[CampaignStatus] = &[CampaignStatus::Paused];
        self.set_status(scope, id, "resumed", FROM, CampaignStatus::Triggered, None)
            .await
    }

    /// Ends a campaign for good: from the return of this call no further send of it begins.
    ///
    /// # Errors
    /// `Conflict` when it has ended.
    pub async fn cancel_campaign(&self, scope: &RequestScope, id: CampaignId) -> Result<Campaign, HandleError> {
        use CampaignStatus::{Cancelled, Draft, Paused, Scheduled, Triggered};
        const FROM: &[CampaignStatus] = &[Draft, Scheduled, Triggered, Paused];
        let reason = Some(CampaignReason::ByPerson);
        self.set_status(scope, id, "cancelled", FROM, Cancelled, reason).await
    }

    /// What a lead would receive, through the device that would send it.
    ///
    /// # Errors
    /// `NotFound` for campaign or lead; `Invalid` for a text that cannot be sent as it is written.
    pub async fn preview_campaign(
        &self,
        scope: &RequestScope,
        id: CampaignId,
        lead: LeadId,
    ) -> Result<Preview, HandleError> {
        let campaign = self.core.store.campaign(scope, id).await?;
        let lead = self.core.store.lead(scope, lead).await?;
        let own = lead.device_id.filter(|_| !campaign.routing.is_pool());
        let device = match campaign.device_id.or(own) {
            Some(id) => self.device_of_field(scope, "device_id", id).await?.ok(),
            None => None,
        };
        let now = self.now();
        let context = PreviewContext {
            seed: &self.core.seed,
            message: MessageId::new(&self.core.ids, now),
            at: campaign.scheduled_at.map_or(now, |at| at.max(now)),
        };
        let carrier = device.as_ref().and_then(|device| self.carrier(&device.platform));
        let mut preview = preview((&campaign).into(), &lead, carrier, &context).map_err(|error| {
            let expected = format!("cannot be sent as it is written: {error}");
            FieldError::new("message", FieldCode::Invalid, expected)
        })?;
        let person = self.person(lead.user_id, &lead.phone);
        if !self.core.store.suppressed(lead.user_id, &[person]).await?.is_empty() {
            let message = "this person must not be written to and will be skipped";
            preview
                .warnings
                .push(Warning::new("lead_id", WarningCode::Suppressed, message));
        }
        let pool = campaign.device_id.is_some() || campaign.routing.is_pool();
        if !pool && lead.device_id.is_none() {
            let message = "this lead has no device of its own and will be skipped";
            preview
                .warnings
                .push(Warning::new("lead_id", WarningCode::NoDevice, message));
        }
        Ok(preview)
    }

    /// Takes up to [`BATCH_MAX`](super::BATCH_MAX) recipients of an upload; what is valid goes in, the rest is told by position.
    /// A position that is there already is left alone, so that the same batch again adds nothing.
    ///
    /// # Errors
    /// `Invalid` for a batch that is too large; `Conflict` when the campaign is no draft, or not for uploaded recipients.
    pub async fn upload_entries(
        &self,
        scope: &RequestScope,
        id: CampaignId,
        first_position: u32,
        drafts: &[EntryDraft],
    ) -> Result<Uploaded, HandleError> {
        check_batch("entries", drafts.len())?;
        let campaign = self.owned_campaign(scope, id).await?;
        if campaign.status != CampaignStatus::Draft {
            return Err(wrong_status(&campaign, "given recipients", &[CampaignStatus::Draft]));
        }
        if campaign.audience != Audience::Entries {
            return Err(HandleError::conflict(
                "campaign",
                "its audience are leads, not uploaded entries",
            ));
        }
        let last = u64::from(first_position) + drafts.len() as u64;
        if first_position == 0 || last > u64::from(ENTRIES_MAX) + 1 {
            let expected = format!("must be 1 to {ENTRIES_MAX}");
            return Err(FieldError::new("position", FieldCode::OutOfRange, expected).into());
        }
        let region = self.settings(campaign.user_id).await?.region;
        let mut uploaded = Uploaded::default();
        let mut entries = Vec::with_capacity(drafts.len());
        for (position, draft) in (first_position..).zip(drafts) {
            match entry(draft, id, position, region) {
                Ok(entry) => entries.push(entry),
                Err(errors) => uploaded.refused.push((position, errors)),
            }
        }
        uploaded.taken = entries.len() as u64;
        if !entries.is_empty() {
            let known = self
                .core
                .store
                .entries_page(id, first_position - 1, drafts.len() as u32);
            let known = known.await?.into_iter().map(|entry| entry.position);
            uploaded.known = known.take_while(|position| u64::from(*position) < last).collect();
            let set = ChangeSet::one(Change::InsertEntries(entries));
            self.commit_repeatable(set, WriteClass::Bulk).await?;
        }
        Ok(uploaded)
    }

    /// How many leads or entries belong to the audience now.
    ///
    /// # Errors
    /// `NotFound` when there is no such campaign.
    pub async fn audience_size(&self, scope: &RequestScope, id: CampaignId) -> Result<u64, HandleError> {
        let campaign = self.core.store.campaign(scope, id).await?;
        Ok(self.core.store.audience_size(&campaign).await?)
    }

    /// The numbers of a campaign, in all and by device.
    ///
    /// # Errors
    /// `NotFound` when there is no such campaign.
    pub async fn campaign_numbers(&self, scope: &RequestScope, id: CampaignId) -> Result<CampaignNumbers, HandleError> {
        let campaign = self.core.store.campaign(scope, id).await?;
        self.numbers_of(scope, &campaign).await
    }

    /// The numbers of a campaign within a span of time, in all: what was completed in it, and as remaining what was open at its
    /// end.
    ///
    /// # Errors
    /// `NotFound` when there is no such campaign.
    pub async fn campaign_numbers_within(
        &self,
        scope: &RequestScope,
        id: CampaignId,
        within: &Range<Timestamp>,
    ) -> Result<Numbers, HandleError> {
        self.core.store.campaign(scope, id).await?;
        let of = MessageScope::Campaign(id);
        let devices = self.core.store.count_within(scope, of, within).await?;
        Ok(devices.into_iter().map(|row| row.numbers).sum())
    }

    /// How far a campaign is, and when it will be over if things go on as they are.
    ///
    /// # Errors
    /// `NotFound` when there is no such campaign.
    pub async fn campaign_progress(
        &self,
        scope: &RequestScope,
        id: CampaignId,
    ) -> Result<CampaignProgress, HandleError> {
        let campaign = self.core.store.campaign(scope, id).await?;
        let numbers = self.numbers_of(scope, &campaign).await?;
        let mut progress = CampaignProgress {
            numbers,
            expected_end_at: None,
            waiting_devices: Vec::new(),
            pool_waits: false,
        };
        if campaign.status != CampaignStatus::Triggered || progress.numbers.total.remaining == 0 {
            return Ok(progress);
        }
        let pace = Pace {
            delay: DelaySettings {
                message: campaign.delay,
                ..DelaySettings::default()
            },
            quiet: campaign.quiet_hours.map(|hours| Quiet {
                hours,
                zone: campaign.time_zone,
            }),
            priority: Priority::Campaign,
        };
        let taken = match campaign.device_limit {
            Some(_) => self.core.store.taken(&[id]).await?,
            None => Vec::new(),
        };
        let room = campaign.device_limit.map(|limit| Room { limit, taken: &taken });
        let ahead = self.ahead(scope, &progress.numbers.devices, &pace, room).await?;
        progress.waiting_devices = ahead.waiting_devices;
        progress.pool_waits = ahead.pool_waits;
        let lanes = ahead.lanes;
        if !lanes.is_empty() && !progress.numbers.expanding {
            progress.expected_end_at = Some(expected_end(&lanes, self.now()));
        }
        Ok(progress)
    }

    /// A campaign that a scope may change as a whole.
    pub(super) async fn owned_campaign(&self, scope: &RequestScope, id: CampaignId) -> Result<Campaign, HandleError> {
        Self::owner(scope, "campaign")?;
        Ok(self.core.store.campaign(scope, id).await?)
    }

    async fn numbers_of(&self, scope: &RequestScope, campaign: &Campaign) -> Result<CampaignNumbers, HandleError> {
        let of = MessageScope::Campaign(campaign.id);
        let devices = self.core.store.numbers(scope, of).await?;
        let total: Numbers = devices.iter().map(|row| row.numbers).sum();
        let left_over = match campaign.audience.is_pool() {
            true => self.core.store.left_over(campaign.id).await?,
            false => 0,
        };
        Ok(CampaignNumbers {
            status: campaign.status,
            reason: campaign.reason,
            expanding: campaign.is_expanding(),
            should: total.should(),
            total,
            left_over,
            devices,
        })
    }

    /// Looks at devices and media that a campaign names, and gathers what to warn of.
    async fn check_sending(
        &self,
        scope: &RequestScope,
        campaign: &Campaign,
        before: Option<&Campaign>,
        problems: &mut Problems,
    ) -> Result<Vec<Warning>, HandleError> {
        let named = match &campaign.audience {
            Audience::Leads { device_id, .. } => *device_id,
            Audience::Entries | Audience::Pool { .. } => None,
        };
        let mut devices = Vec::new();
        if let Some(id) = campaign.device_id {
            match self.device_of_field(scope, "device_id", id).await? {
                Ok(device) => devices.push(device),
                Err(error) => problems.push(error),
            }
        }
        if let Some(id) = named.filter(|id| campaign.device_id != Some(*id)) {
            match self.device_of_field(scope, "audience_device_id", id).await? {
                Ok(device) if campaign.device_id.is_none() && !campaign.routing.is_pool() => devices.push(device),
                Ok(_) => {}
                Err(error) => problems.push(error),
            }
        }
        if devices.is_empty() && problems.is_empty() {
            devices = self.devices_of(scope).await?;
        }
        let platforms: BTreeSet<Platform> = devices.into_iter().map(|device| device.platform).collect();
        let carriers = self.carriers(&platforms);
        let same_media = before.is_some_and(|before| {
            before.content.media == campaign.content.media && before.device_id == campaign.device_id
        });
        if let Some(media) = campaign.content.media.as_ref().filter(|_| !same_media) {
            problems.extend(self.media_problems(campaign.user_id, media, &carriers).await);
        }
        let mut warnings = text_warnings(campaign.into(), &carriers);
        if platforms.is_empty() {
            let message = "the user has no device that could send it";
            warnings.push(Warning::new("device_id", WarningCode::NoDevice, message));
        }
        if campaign.status == CampaignStatus::Scheduled
            && problems.is_empty()
            && self.core.store.audience_size(campaign).await? == 0
        {
            let message = "nobody belongs to the audience now";
            warnings.push(Warning::new("audience", WarningCode::NobodyMatches, message));
        }
        Ok(warnings)
    }

    async fn put_to_wait(
        &self,
        scope: &RequestScope,
        id: CampaignId,
        done: &'static str,
        plan: impl Fn(&Campaign, Timestamp) -> Result<Campaign, Vec<FieldError>>,
    ) -> Result<SavedCampaign, HandleError> {
        use CampaignStatus::{Draft, Scheduled};
        let before = self.owned_campaign(scope, id).await?;
        if !matches!(before.status, Draft | Scheduled) {
            return Err(wrong_status(&before, done, &[Draft, Scheduled]));
        }
        let campaign = plan(&before, self.now())?;
        let mut problems = Problems::default();
        let warnings = self.check_sending(scope, &campaign, None, &mut problems).await?;
        let campaign = problems.give(campaign)?;
        let campaign = self.replace_campaign(scope, campaign, &before).await?;
        Ok(SavedCampaign { campaign, warnings })
    }

    async fn replace_campaign(
        &self,
        scope: &RequestScope,
        campaign: Campaign,
        before: &Campaign,
    ) -> Result<Campaign, HandleError> {
        let (id, version) = (campaign.id, campaign.version);
        let moved = campaign.status != before.status || campaign.reason != before.reason;
        let event = status_event(&campaign);
        let mut set = ChangeSet::one(Change::UpdateCampaign(Box::new(campaign)));
        if moved {
            set = set.tell(self.core.event(before.user_id, event));
        }
        match self.commit(set, WriteClass::Api).await {
            Ok(_) => {}
            Err(error) if error.is_conflict() => {
                let current = self.core.store.campaign(scope, id).await?;
                return Err(HandleError::stale("campaign", version, current.version));
            }
            Err(error) => return Err(error.into()),
        }
        self.core.wake.plan();
        Ok(self.core.store.campaign(scope, id).await?)
    }

    async fn set_status(
        &self,
        scope: &RequestScope,
        id: CampaignId,
        done: &'static str,
        from: &'static [CampaignStatus],
        to: CampaignStatus,
        reason: Option<CampaignReason>,
    ) -> Result<Campaign, HandleError> {
        let campaign = self.owned_campaign(scope, id).await?;
        let kind = EventKind::CampaignStatus {
            campaign_id: id,
            status: to,
            reason,
        };
        let set = ChangeSet::one(Change::SetCampaignStatus {
            user_id: campaign.user_id,
            campaign_id: id,
            from,
            to,
            reason,
        })
        .tell(self.core.event(campaign.user_id, kind));
        let mut tries = 1;
        loop {
            match self.commit(set.clone(), WriteClass::Api).await {
                Ok(_) => break,
                Err(error) if error.kind == StoreErrorKind::Unavailable && tries < super::COMMIT_TRIES_MAX => {
                    tries += 1
                }
                Err(error) if error.is_conflict() => {
                    let current = self.core.store.campaign(scope, id).await?;
                    // A first try whose answer was lost did it.
                    if tries > 1 && current.status == to {
                        break;
                    }
                    return Err(wrong_status(&current, done, from));
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.core.wake.plan();
        Ok(self.core.store.campaign(scope, id).await?)
    }

    async fn copy_entries(&self, from: CampaignId, to: CampaignId) -> Result<(), HandleError> {
        let mut after = 0;
        loop {
            let page = self.core.store.entries_page(from, after, COPY_PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.position;
            let copies = page.into_iter().map(|mut entry| {
                entry.campaign_id = to;
                entry
            });
            let set = ChangeSet::one(Change::InsertEntries(copies.collect()));
            self.commit_repeatable(set, WriteClass::Bulk).await?;
        }
    }
}

const COPY_MARK: &str = " (copy)";

fn status_event(campaign: &Campaign) -> EventKind {
    EventKind::CampaignStatus {
        campaign_id: campaign.id,
        status: campaign.status,
        reason: campaign.reason,
    }
}

/// The word of a status, as the API writes it.
pub(super) const fn word(status: CampaignStatus) -> &'static str {
    match status {
        CampaignStatus::Draft => "draft",
        CampaignStatus::Scheduled => "scheduled",
        CampaignStatus::Triggered => "triggered",
        CampaignStatus::Paused => "paused",
        CampaignStatus::Completed => "completed",
        CampaignStatus::Failed => "failed",
        CampaignStatus::Cancelled => "cancelled",
    }
}

pub(super) fn wrong_status(campaign: &Campaign, done: &str, allowed: &[CampaignStatus]) -> HandleError {
    if let Some(at) = campaign.archived_at {
        let why = format!("it is archived since {at} and cannot be {done} any more; copy it to send it anew");
        return HandleError::conflict("campaign", why);
    }
    let allowed: Vec<_> = allowed.iter().map(|status| word(*status)).collect();
    let why = format!(
        "it is {}; only campaigns that are {} can be {done}",
        word(campaign.status),
        allowed.join(" or ")
    );
    HandleError::conflict("campaign", why)
}
