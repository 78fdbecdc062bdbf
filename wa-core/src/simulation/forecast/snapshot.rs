//! Reads what a forecast needs of the store, page by page, into a memory store of its own.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::options::{ForecastControl, ForecastOptions, ForecastPhase};
use super::report::{DeviceStand, ForecastWarning, ForecastWarningCode};
use super::sequence_snapshot::SequenceTarget;
use crate::domain::access::RequestScope;
use crate::domain::audience::{Audience, AudienceCursor, AudienceLead, CampaignEntry};
use crate::domain::campaign::{Campaign, CampaignStatus};
use crate::domain::device::Device;
use crate::domain::lead::Lead;
use crate::domain::message::{Message, MessageScope, MessageState};
use crate::domain::pacing::Priority;
use crate::domain::phone::{PersonKey, Phone};
use crate::domain::platform::Platform;
use crate::domain::schedule::{LatePolicy, TimeZone};
use crate::domain::summary::Numbers;
use crate::domain::token::TokenSet;
use crate::engine::core::Core;
use crate::engine::handle::HandleError;
use crate::id::{CampaignId, DeviceId, IdSource, LeadId, MessageId, UserId};
use crate::plan::{FieldCode, FieldError};
use crate::seed::Seed;
use crate::store::{CampaignFilter, LeaseStore, MemoryStore, MessageFilter, PAGE_MAX, PageRequest};
use crate::time::Timestamp;
use crate::transport::RestrictionScope;

/// How far back lanes remember what they sent: a day and one bucket of it.
const HISTORY: Duration = Duration::from_secs(24 * 3_600 + 15 * 60);
/// Most pages of the suppression list that are read as a whole; a longer one is asked for the audience alone.
const SUPPRESSION_PAGES: usize = 20;
/// Most other campaigns and sequences of the user whose messages share the lanes.
pub(super) const OTHERS_MAX: usize = 200;

/// What is forecast, as it starts in the simulation.
#[derive(Debug)]
pub(super) enum Target {
    Campaign(Box<Campaign>),
    Sequence(Box<SequenceTarget>),
}

impl Target {
    pub(super) fn scope(&self) -> MessageScope {
        match self {
            Self::Campaign(campaign) => MessageScope::Campaign(campaign.id),
            Self::Sequence(of) => MessageScope::Sequence(of.sequence.id),
        }
    }

    pub(super) fn user(&self) -> UserId {
        match self {
            Self::Campaign(campaign) => campaign.user_id,
            Self::Sequence(of) => of.sequence.user_id,
        }
    }

    pub(super) fn time_zone(&self) -> TimeZone {
        match self {
            Self::Campaign(campaign) => campaign.time_zone,
            Self::Sequence(of) => of.sequence.time_zone,
        }
    }
}

/// What a forecast runs on.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// A store of its own.
    pub(super) store: Arc<MemoryStore>,
    pub(super) target: Target,
    pub(super) made_at: Timestamp,
    pub(super) starts_at: Timestamp,
    /// How the target stands now, without what the simulation takes over.
    pub(super) before: Numbers,
    pub(super) devices: BTreeMap<DeviceId, (String, DeviceStand)>,
    /// Those of the user's devices.
    pub(super) platforms: BTreeSet<Platform>,
    /// Whether a campaign or sequence in it chooses devices by load.
    pub(super) has_pool: bool,
    /// Whether it holds more than one campaign or sequence, and one with quiet hours.
    pub(super) has_mixed_quiet: bool,
    pub(super) ids: IdSource,
    pub(super) warnings: Vec<ForecastWarning>,
}

/// Lets others have their turn on the thread.
pub(super) async fn pass_the_turn() {
    let mut passed = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut passed, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

pub(super) fn cancelled() -> HandleError {
    HandleError::Conflict {
        entity: "forecast",
        why: "it was cancelled".to_owned(),
    }
}

/// How a campaign or sequence that was read takes its places on the lanes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shares {
    pub(super) has_quiet_hours: bool,
    pub(super) is_pool: bool,
    /// Whether others than the recipients' own devices send it.
    pub(super) by_others: bool,
}

impl Shares {
    fn of(campaign: &Campaign) -> Self {
        Self {
            has_quiet_hours: campaign.quiet_hours.is_some(),
            is_pool: campaign.routing.is_pool(),
            by_others: campaign.device_id.is_some() || campaign.routing.is_pool(),
        }
    }
}

pub(super) struct Reader<'a> {
    pub(super) core: &'a Core,
    pub(super) options: &'a ForecastOptions,
    control: &'a ForecastControl,
    pub(super) scope: RequestScope,
    pub(super) store: Arc<MemoryStore>,
    pub(super) made_at: Timestamp,
    pub(super) read: u64,
    leads: HashSet<LeadId>,
    /// Whether sequences look at the triggers of leads.
    pub(super) keeps_triggers: bool,
    pub(super) devices: BTreeMap<DeviceId, (String, DeviceStand)>,
    pub(super) platforms: BTreeSet<Platform>,
    /// Devices that have rules for people who do not know them.
    minding: Vec<DeviceId>,
    /// Those who may be written to, where there are such devices, by the device that they belong to.
    met: BTreeMap<Option<DeviceId>, BTreeSet<(Phone, PersonKey)>>,
    /// Whether all suppressions were read, so that none has to be asked for.
    knows_suppressions: bool,
    pub(super) warnings: Vec<ForecastWarning>,
}

impl Snapshot {
    /// Whether a message in it is only there because its settlement is to be followed.
    pub(super) fn was_settled_before(&self, id: MessageId) -> bool {
        match &self.target {
            Target::Sequence(of) => of.settled_before.contains(&id),
            Target::Campaign(_) => false,
        }
    }

    /// Reads what concerns a campaign that is not over.
    pub(crate) async fn of_campaign(
        core: &Core,
        campaign: &Campaign,
        options: &ForecastOptions,
        control: &ForecastControl,
    ) -> Result<Self, HandleError> {
        let seed = Seed::from_number(options.seed);
        let ids = IdSource::seeded(seed.digest(campaign.id.as_bytes(), "forecast ids"));
        let mut reader = Reader::open(core, campaign.user_id, options, control).await?;
        let (target, starts_at) = reader.target(campaign);
        reader.store.load_campaign(target.clone());
        let mut before = reader.read_numbers(campaign).await?;
        let is_paused = campaign.status == CampaignStatus::Paused;
        let mut taken = 0;
        if campaign.started_at.is_some() {
            taken = reader.read_open(campaign.id, is_paused).await?;
            reader.read_taken(campaign).await?;
        }
        let new = reader.read_audience(&target).await?;
        if campaign.audience.is_pool() && campaign.is_expanding() {
            // What was left over is planned once more: then it counts as that alone.
            let left_over = core.store.left_over(campaign.id).await?;
            before.skipped = before.skipped.saturating_sub(left_over.min(new));
        }
        if taken + new == 0 {
            return Err(nobody(campaign, before.should()));
        }
        if is_paused {
            let message = "it is paused; the forecast lets it go on now";
            reader.warn(ForecastWarningCode::Paused, message.to_owned());
        }
        let left = before.remaining.saturating_sub(taken);
        if left > 0 {
            let message = format!("{left} messages are being sent or in doubt now; they are left as they are");
            reader.warn(ForecastWarningCode::UnderWay, message);
        }
        let mut shares = vec![Shares::of(&target)];
        let until = starts_at + options.horizon;
        reader.read_other_campaigns(Some(target.id), until, &mut shares).await?;
        reader.read_other_sequences(None, &mut shares).await?;
        reader.read_marked_leads().await?;
        let before = Numbers {
            remaining: left,
            ..before
        };
        reader.read_acquaintances(&shares).await?;
        Ok(reader.finish(Target::Campaign(Box::new(target)), starts_at, before, &shares, ids))
    }
}

fn nobody(campaign: &Campaign, has: u64) -> HandleError {
    if campaign.started_at.is_some() && has > 0 {
        return HandleError::Conflict {
            entity: "campaign",
            why: "nothing of it is left to be sent".to_owned(),
        };
    }
    HandleError::Invalid(vec![FieldError::new(
        "audience",
        FieldCode::Required,
        "must not be empty: nobody belongs to it now, so there is nothing to forecast",
    )])
}

impl<'a> Reader<'a> {
    /// Reads what every forecast needs: devices and who must not be written to.
    pub(super) async fn open(
        core: &'a Core,
        user: UserId,
        options: &'a ForecastOptions,
        control: &'a ForecastControl,
    ) -> Result<Self, HandleError> {
        let store = Arc::new(MemoryStore::lean());
        store.seed(&core.seed).await?;
        let mut reader = Self {
            core,
            options,
            control,
            scope: RequestScope::user(user),
            store,
            made_at: core.now(),
            read: 0,
            leads: HashSet::new(),
            keeps_triggers: false,
            devices: BTreeMap::new(),
            platforms: BTreeSet::new(),
            minding: Vec::new(),
            met: BTreeMap::new(),
            knows_suppressions: false,
            warnings: Vec::new(),
        };
        control.tell(|progress| progress.phase = ForecastPhase::Reading);
        reader.read_devices().await?;
        reader.read_suppressions().await?;
        Ok(reader)
    }

    pub(super) fn finish(
        self,
        target: Target,
        starts_at: Timestamp,
        before: Numbers,
        shares: &[Shares],
        ids: IdSource,
    ) -> Snapshot {
        let quiet = shares.iter().any(|one| one.has_quiet_hours);
        Snapshot {
            store: self.store,
            target,
            made_at: self.made_at,
            starts_at,
            before,
            devices: self.devices,
            platforms: self.platforms,
            has_pool: shares.iter().any(|one| one.is_pool),
            has_mixed_quiet: quiet && shares.len() > 1,
            ids,
            warnings: self.warnings,
        }
    }
}

impl Reader<'_> {
    pub(super) fn warn(&mut self, code: ForecastWarningCode, message: String) {
        self.warnings.push(ForecastWarning { code, message });
    }

    /// Counts recipients, lets others work, and stops when it is to stop; `false` when there are too many.
    pub(super) async fn took(&mut self, count: usize) -> Result<bool, HandleError> {
        self.read += count as u64;
        let read = self.read;
        self.control.tell(|progress| progress.read = read);
        if self.control.is_cancelled() {
            return Err(cancelled());
        }
        pass_the_turn().await;
        Ok(read <= self.options.recipients_max)
    }

    pub(super) fn too_many(&self) -> HandleError {
        let most = self.options.recipients_max;
        HandleError::Invalid(vec![FieldError::new(
            "audience",
            FieldCode::TooMany,
            format!("must have at most {most} recipients to be forecast"),
        )])
    }

    fn stand(&self, device: &Device) -> DeviceStand {
        if device.deleted_at.is_some() {
            DeviceStand::Gone
        } else if self.core.transports.get(&device.platform).is_none() {
            DeviceStand::NoTransport
        } else if device.hold.is_some() {
            DeviceStand::OnHold
        } else if device.may_send() {
            DeviceStand::Online
        } else {
            DeviceStand::Offline
        }
    }

    async fn take_devices(&mut self, devices: Vec<Device>) -> Result<(), HandleError> {
        let ids: Vec<_> = devices.iter().map(|device| device.id).collect();
        let histories = self.core.store.history(&ids, self.made_at - HISTORY).await?;
        self.store.load_histories(histories);
        for device in &devices {
            let stand = self.stand(device);
            self.devices.insert(device.id, (device.name.clone(), stand));
            if stand != DeviceStand::Gone {
                self.platforms.insert(device.platform.clone());
            }
        }
        self.read_limits(&devices).await?;
        self.store.load_devices(devices);
        pass_the_turn().await;
        Ok(())
    }

    /// What WhatsApp and the policy hold against writing to people who do not know these devices.
    async fn read_limits(&mut self, devices: &[Device]) -> Result<(), HandleError> {
        let has_cap = self.core.config.pacing.cold_day_cap(Priority::Campaign).is_some();
        let now = self.made_at;
        for device in devices {
            let restriction = device.restriction.filter(|restriction| restriction.holds(now));
            if let Some(restriction) = restriction {
                let what = match restriction.scope {
                    RestrictionScope::Cold => "may not write to people who do not know it",
                    RestrictionScope::All => "may not write at all",
                };
                let (name, until) = (&device.name, restriction.until_at);
                let message = format!("\"{name}\" {what} until {until}: WhatsApp restricts its account");
                self.warn(ForecastWarningCode::Restricted, message);
            }
            if let Some(chats) = device.new_chats.filter(|chats| chats.ends_at > now) {
                let (name, count, until) = (&device.name, chats.budget(), chats.ends_at);
                let message =
                    format!("\"{name}\" may begin about {count} new chats until {until}: so many WhatsApp leaves it");
                self.warn(ForecastWarningCode::Restricted, message);
            }
        }
        let minding = devices.iter().filter(|device| {
            let limited = device.restriction.is_some() || device.new_chats.is_some();
            device.deleted_at.is_none() && (has_cap || limited)
        });
        let minding: Vec<DeviceId> = minding.map(|device| device.id).collect();
        if minding.is_empty() {
            return Ok(());
        }
        let attempts = self.core.store.cold_attempts(&minding, now - HISTORY).await?;
        for (device, attempts) in minding.iter().zip(attempts) {
            // From here on the store remembers to whom is sent.
            self.store.load_acquaintances(*device, &[]);
            self.store.load_cold_attempts(*device, attempts);
        }
        self.minding.extend(minding);
        Ok(())
    }

    fn meet(&mut self, people: impl Iterator<Item = (Option<DeviceId>, Phone)>) {
        if self.minding.is_empty() {
            return;
        }
        let (seed, user) = (&self.core.seed, self.scope.user_id);
        for (device, phone) in people {
            let person = PersonKey::of(seed, user, &phone);
            self.met.entry(device).or_default().insert((phone, person));
        }
    }

    /// Whom of those who may be written to the devices know: of each its own people and those who are nobody's, or all, where
    /// messages go by other devices too.
    pub(super) async fn read_acquaintances(&mut self, shares: &[Shares]) -> Result<(), HandleError> {
        let by_any = shares.iter().any(|one| one.by_others);
        let mut met: BTreeMap<Option<DeviceId>, BTreeSet<(Phone, PersonKey)>> = BTreeMap::new();
        for (device, people) in std::mem::take(&mut self.met) {
            met.entry(device.filter(|_| !by_any)).or_default().extend(people);
        }
        for device in &self.minding {
            let theirs = [None, Some(*device)].into_iter().filter_map(|of| met.get(&of));
            let people: Vec<_> = theirs.flatten().copied().collect();
            for page in people.chunks(PAGE_MAX as usize) {
                let known = self.core.store.acquainted(*device, page).await?;
                self.store.load_acquaintances(*device, &known);
                pass_the_turn().await;
            }
        }
        Ok(())
    }

    async fn read_devices(&mut self) -> Result<(), HandleError> {
        let mut request = PageRequest::first(PAGE_MAX);
        loop {
            let page = self.core.store.devices(&self.scope, &request).await?;
            self.take_devices(page.rows).await?;
            if self.devices.len() as u64 > self.options.devices_max {
                let most = self.options.devices_max;
                let expected = format!("must be at most {most} for a forecast");
                return Err(HandleError::Invalid(vec![FieldError::new(
                    "devices",
                    FieldCode::TooMany,
                    expected,
                )]));
            }
            match page.next {
                Some(next) => request = PageRequest::after(next, PAGE_MAX),
                None => return Ok(()),
            }
        }
    }

    /// Devices that were deleted and are still named by leads or messages: their messages are skipped, as in earnest.
    pub(super) async fn read_deleted(&mut self, named: impl Iterator<Item = DeviceId>) -> Result<(), HandleError> {
        let missing: BTreeSet<_> = named.filter(|id| !self.devices.contains_key(id)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = missing.into_iter().collect();
        let owned = self.core.store.owned(&ids).await?;
        let devices = owned.into_iter().map(|owned| owned.device);
        self.take_devices(devices.filter(|device| device.user_id == self.scope.user_id).collect())
            .await
    }

    async fn read_suppressions(&mut self) -> Result<(), HandleError> {
        let mut request = PageRequest::first(PAGE_MAX);
        for _ in 0..SUPPRESSION_PAGES {
            let page = self.core.store.suppressions(&self.scope, &request).await?;
            self.store.load_suppressions(page.rows);
            pass_the_turn().await;
            match page.next {
                Some(next) => request = PageRequest::after(next, PAGE_MAX),
                None => {
                    self.knows_suppressions = true;
                    break;
                }
            }
        }
        Ok(())
    }

    pub(super) fn persons<'b>(&self, phones: impl Iterator<Item = &'b Phone>) -> Vec<PersonKey> {
        let user = self.scope.user_id;
        phones
            .map(|phone| PersonKey::of(&self.core.seed, user, phone))
            .collect()
    }

    pub(super) async fn read_suppressed(&self, persons: &[PersonKey]) -> Result<(), HandleError> {
        if !self.knows_suppressions {
            let found = self.core.store.suppressed(self.scope.user_id, persons).await?;
            self.store.load_suppressions(found);
        }
        Ok(())
    }

    /// The campaign as the simulation begins with it, and when it starts.
    fn target(&self, campaign: &Campaign) -> (Campaign, Timestamp) {
        let mut target = campaign.clone();
        target.reason = None;
        if let Some(started_at) = campaign.started_at {
            target.status = CampaignStatus::Triggered;
            return (target, started_at);
        }
        let planned = self.options.start_at.or(campaign.scheduled_at);
        let starts_at = planned.map_or(self.made_at, |at| at.max(self.made_at));
        target.status = CampaignStatus::Scheduled;
        target.scheduled_at = Some(starts_at);
        target.late_policy = LatePolicy::Run;
        (target, starts_at)
    }

    async fn read_numbers(&self, campaign: &Campaign) -> Result<Numbers, HandleError> {
        let of = MessageScope::Campaign(campaign.id);
        let rows = self.core.store.numbers(&self.scope, of).await?;
        Ok(rows.iter().map(|row| row.numbers).sum())
    }

    /// The queued messages of a campaign, and those that are held where it is to go on now.
    async fn read_open(&mut self, id: CampaignId, resumed: bool) -> Result<u64, HandleError> {
        let mut states = vec![MessageState::Queued];
        if resumed {
            states.push(MessageState::Held);
        }
        let filter = MessageFilter {
            scope: Some(MessageScope::Campaign(id)),
            states,
            ..MessageFilter::default()
        };
        let now = self.made_at;
        let taken = self.read_messages(&filter, |mut message| {
            if let Some(held_at) = message.held_at.take() {
                message.expires_at = message.expires_at + now.since(held_at);
            }
            message.state = MessageState::Queued;
            message
        });
        taken.await?.ok_or_else(|| self.too_many())
    }

    /// Open messages, with their leads and devices; `None` when there are too many.
    async fn read_messages(
        &mut self,
        filter: &MessageFilter,
        change: impl Fn(Message) -> Message + Send,
    ) -> Result<Option<u64>, HandleError> {
        self.read_messages_if(filter, move |message| Some(change(message)))
            .await
    }

    /// The same, of those that a function takes.
    pub(super) async fn read_messages_if(
        &mut self,
        filter: &MessageFilter,
        mut change: impl FnMut(Message) -> Option<Message> + Send,
    ) -> Result<Option<u64>, HandleError> {
        let mut taken = 0;
        let mut request = PageRequest::first(PAGE_MAX);
        loop {
            let page = self.core.store.messages(&self.scope, filter, &request).await?;
            self.read_deleted(page.rows.iter().filter_map(|message| message.device_id))
                .await?;
            self.read_leads_by_id(page.rows.iter().filter_map(|message| message.lead_id))
                .await?;
            let count = page.rows.len();
            taken += count as u64;
            self.meet(page.rows.iter().filter_map(|one| Some((one.device_id, one.phone?))));
            let rows = page.rows.into_iter().filter_map(|mut message| {
                if matches!(message.state, MessageState::Queued | MessageState::Held) {
                    // What earlier attempts were is of no concern: lanes remember them apart.
                    message.attempt = None;
                    message.doubt = None;
                }
                change(message)
            });
            self.store.load_messages(rows.collect());
            if !self.took(count).await? {
                return Ok(None);
            }
            match page.next {
                Some(next) => request = PageRequest::after(next, PAGE_MAX),
                None => return Ok(Some(taken)),
            }
        }
    }

    /// Leads by id that were not read before.
    pub(super) async fn read_leads_by_id(&mut self, ids: impl Iterator<Item = LeadId>) -> Result<(), HandleError> {
        let ids: BTreeSet<LeadId> = ids.filter(|id| !self.leads.contains(id)).collect();
        let ids: Vec<_> = ids.into_iter().collect();
        for chunk in ids.chunks(PAGE_MAX as usize) {
            let found = self.core.store.leads_by_id(self.scope.user_id, chunk).await?;
            self.read_deleted(found.iter().filter_map(|lead| lead.device_id))
                .await?;
            self.take_leads(found);
        }
        Ok(())
    }

    pub(super) fn take_leads(&mut self, leads: Vec<Lead>) {
        self.meet(leads.iter().map(|lead| (lead.device_id, lead.phone)));
        let known = &mut self.leads;
        let keeps_triggers = self.keeps_triggers;
        let needed = leads.into_iter().filter(|lead| known.insert(lead.id)).map(|mut lead| {
            // What texts are not made of.
            if !keeps_triggers {
                lead.triggers = TokenSet::default();
            }
            lead.tags = TokenSet::default();
            lead.journey = String::new();
            lead.pipeline_status = String::new();
            lead.consent = None;
            lead
        });
        self.store.load_leads(needed.collect());
    }

    /// The recipients of a campaign that have no message yet.
    async fn read_audience(&mut self, campaign: &Campaign) -> Result<u64, HandleError> {
        let taken = match campaign.audience {
            Audience::Entries => self.read_entries(campaign).await?,
            Audience::Leads { .. } | Audience::Pool { .. } => self.read_leads(campaign).await?,
        };
        taken.ok_or_else(|| self.too_many())
    }

    async fn read_leads(&mut self, campaign: &Campaign) -> Result<Option<u64>, HandleError> {
        let mut after = match campaign.cursor {
            AudienceCursor::Done => return Ok(Some(0)),
            AudienceCursor::Lead(id) => id,
            _ => LeadId::MIN,
        };
        let mut taken = 0;
        loop {
            let leads = self.core.store.audience_page(campaign, after, PAGE_MAX).await?;
            let Some(last) = leads.last() else {
                return Ok(Some(taken));
            };
            after = last.id;
            let count = leads.len();
            self.read_deleted(leads.iter().filter_map(|lead| lead.device_id))
                .await?;
            self.read_people(campaign, leads.iter().map(|lead| &lead.phone)).await?;
            let leads = self.unaccounted(campaign, leads).await?;
            // Their texts are made of more than the audience tells of them.
            let ids: Vec<_> = leads.iter().map(|lead| lead.id).collect();
            taken += ids.len() as u64;
            let leads = self.core.store.leads_by_id(self.scope.user_id, &ids).await?;
            self.take_leads(leads);
            if !self.took(count).await? {
                return Ok(None);
            }
            if count < PAGE_MAX as usize {
                return Ok(Some(taken));
            }
        }
    }

    async fn read_entries(&mut self, campaign: &Campaign) -> Result<Option<u64>, HandleError> {
        let mut after = match campaign.cursor {
            AudienceCursor::Done => return Ok(Some(0)),
            AudienceCursor::Entry(position) => position,
            _ => 0,
        };
        let mut taken = 0;
        loop {
            let entries: Vec<CampaignEntry> = self.core.store.entries_page(campaign.id, after, PAGE_MAX).await?;
            let Some(last) = entries.last() else {
                return Ok(Some(taken));
            };
            after = last.position;
            let count = entries.len();
            taken += count as u64;
            self.read_people(campaign, entries.iter().map(|entry| &entry.phone))
                .await?;
            self.meet(entries.iter().map(|entry| (None, entry.phone)));
            self.store.load_entries(entries);
            if !self.took(count).await? {
                return Ok(None);
            }
        }
    }

    /// Who of these people is suppressed, and who has a message of the campaign already.
    async fn read_people<'b>(
        &self,
        campaign: &Campaign,
        phones: impl Iterator<Item = &'b Phone> + Send,
    ) -> Result<(), HandleError> {
        let again = campaign.audience.is_pool() && campaign.started_at.is_some();
        let has_messages = campaign.cursor != AudienceCursor::Start || again;
        if self.knows_suppressions && !has_messages {
            return Ok(());
        }
        let persons = self.persons(phones);
        self.read_suppressed(&persons).await?;
        if has_messages {
            let mut known = self.core.store.persons_in(campaign.id, &persons).await?;
            if campaign.audience.is_pool() {
                let planned = self.core.store.planned(campaign.id, &persons).await?;
                let left_over: BTreeSet<_> = planned
                    .iter()
                    .filter(|row| row.is_left_over())
                    .map(|row| row.person)
                    .collect();
                known.retain(|person| !left_over.contains(person));
            }
            self.store.load_persons(campaign.id, &known);
        }
        Ok(())
    }

    /// The leads of a page that planning the pool once more does not find accounted for already.
    async fn unaccounted(
        &self,
        campaign: &Campaign,
        leads: Vec<AudienceLead>,
    ) -> Result<Vec<AudienceLead>, HandleError> {
        if !campaign.audience.is_pool() || campaign.started_at.is_none() {
            return Ok(leads);
        }
        let persons = self.persons(leads.iter().map(|lead| &lead.phone));
        let planned = self.core.store.planned(campaign.id, &persons).await?;
        let done: BTreeSet<LeadId> = planned
            .iter()
            .filter(|row| !row.is_left_over())
            .filter_map(|row| row.lead_id)
            .collect();
        Ok(leads.into_iter().filter(|lead| !done.contains(&lead.id)).collect())
    }

    /// What devices have taken of a campaign with a limit, once its messages are read.
    async fn read_taken(&self, campaign: &Campaign) -> Result<(), HandleError> {
        if campaign.device_limit.is_some() && campaign.started_at.is_some() {
            self.store.load_taken(&self.core.store.taken(&[campaign.id]).await?);
        }
        Ok(())
    }

    /// What other campaigns and direct messages go over the lanes of the user until the end of the forecast.
    pub(super) async fn read_other_campaigns(
        &mut self,
        target: Option<CampaignId>,
        until: Timestamp,
        shares: &mut Vec<Shares>,
    ) -> Result<(), HandleError> {
        let filter = CampaignFilter {
            statuses: vec![CampaignStatus::Triggered, CampaignStatus::Scheduled],
            ..CampaignFilter::default()
        };
        let mut request: PageRequest<CampaignId> = PageRequest::first(PAGE_MAX);
        let mut left_out = 0_u64;
        loop {
            let page = self.core.store.campaigns(&self.scope, &filter, &request).await?;
            for campaign in page.rows {
                let begins = campaign.started_at.or(campaign.scheduled_at);
                if Some(campaign.id) == target || begins.is_none_or(|at| at > until) {
                    continue;
                }
                if shares.len() >= OTHERS_MAX || !self.read_other(&campaign).await? {
                    left_out += 1;
                    continue;
                }
                shares.push(Shares::of(&campaign));
            }
            match page.next {
                Some(next) => request = PageRequest::after(next, PAGE_MAX),
                None => break,
            }
        }
        let direct = MessageFilter {
            scope: Some(MessageScope::Direct),
            states: vec![MessageState::Queued],
            ..MessageFilter::default()
        };
        if self.read <= self.options.recipients_max && self.read_messages(&direct, |message| message).await?.is_none() {
            left_out += 1;
        }
        if left_out > 0 {
            let message =
                format!("{left_out} other campaigns of the same devices were left out: there is too much in them");
            self.warn(ForecastWarningCode::LeftOut, message);
        }
        Ok(())
    }

    /// Another campaign with what it still has to send; `false` when that is too much.
    async fn read_other(&mut self, campaign: &Campaign) -> Result<bool, HandleError> {
        if self.read > self.options.recipients_max {
            return Ok(false);
        }
        self.store.load_campaign(campaign.clone());
        if campaign.status == CampaignStatus::Triggered {
            let queued = MessageFilter {
                scope: Some(MessageScope::Campaign(campaign.id)),
                states: vec![MessageState::Queued],
                ..MessageFilter::default()
            };
            if self.read_messages(&queued, |message| message).await?.is_none() {
                return Ok(false);
            }
            self.read_taken(campaign).await?;
        }
        let taken = match campaign.audience {
            Audience::Entries => self.read_entries(campaign).await?,
            Audience::Leads { .. } | Audience::Pool { .. } => self.read_leads(campaign).await?,
        };
        Ok(taken.is_some())
    }
}
