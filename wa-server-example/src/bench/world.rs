//! What a load works on: devices at both gateways, people and campaigns, the same for the same seed but for their ids.

use std::sync::Arc;
use std::time::Duration;

use wa_core::domain::audience::{Audience, TargetFilter};
use wa_core::domain::campaign::{Campaign, CampaignStatus};
use wa_core::domain::content::Content;
use wa_core::domain::lead::Lead;
use wa_core::domain::token::{Token, TokenSet};
use wa_core::id::{CampaignId, IdSource, LeadId, UserId};
use wa_core::seed::Seed;
use wa_core::store::{AppStore, Change, ChangeSet, OnDuplicate, StoreError, WriteClass};
use wa_core::time::{Clock, Timestamp};

use super::options::BenchArgs;
use crate::demo::people::people;
use crate::demo::stage::{Gateways, PAGE, StagedDevice, device};

/// What every campaign writes.
const TEXT: &str = "{Ada berita baik untuk anda.|Kami ada sesuatu yang istimewa.} Promosi kami bermula {hari ini|minggu ini}, \
{{name|anda}}: dari RM199 sahaja, dengan penghantaran percuma ke seluruh negara.\nBalas YA untuk butiran, STOP jika tidak mahu \
dihubungi.";
/// How long after they were made campaigns start.
const STARTS_AFTER: Duration = Duration::from_secs(1);

/// Who fills what, for whom.
pub(super) struct World<'a> {
    pub store: &'a Arc<dyn AppStore>,
    pub clock: &'a dyn Clock,
    pub ids: &'a IdSource,
    pub user_id: UserId,
    pub args: &'a BenchArgs,
}

impl World<'_> {
    /// Makes the devices.
    pub async fn devices(&self, gateways: &Gateways) -> Result<Vec<StagedDevice>, StoreError> {
        let seed = self.store.seed(&Seed::from_entropy()).await?;
        let mut all = Vec::new();
        let places: Vec<usize> = (0..self.args.devices as usize).collect();
        for page in places.chunks(PAGE) {
            let now = self.clock.wall();
            let mut changes = ChangeSet::default();
            for place in page {
                let (row, staged) = device(self.ids, &seed, self.user_id, *place, gateways, now);
                changes = changes.and(Change::InsertDevice(Box::new(row)));
                all.push(staged);
            }
            self.store.commit(changes, WriteClass::Bulk, now).await?;
        }
        Ok(all)
    }

    /// Makes the leads, dealt out evenly to devices and campaigns; `told` hears how many there are.
    pub async fn leads(&self, devices: &[StagedDevice], told: impl Fn(u64)) -> Result<(), StoreError> {
        let people = people(self.args.seed, self.args.leads as usize);
        for (page, people) in people.chunks(PAGE).enumerate() {
            let now = self.clock.wall();
            let mut changes = ChangeSet::default();
            for (place, person) in people.iter().enumerate() {
                let place = page * PAGE + place;
                let device = &devices[place % devices.len()];
                let mut lead = Lead::new(
                    LeadId::new(self.ids, now),
                    self.user_id,
                    Some(device.id),
                    person.phone,
                    now,
                );
                lead.name.clone_from(&person.name);
                // The next lead of a device is of the next campaign, also where their numbers have a common divisor.
                let campaign = (place + place / devices.len()) % self.args.campaigns as usize;
                lead.niches = TokenSet::parse(&niche(campaign)).expect("the niche is short");
                changes = changes.and(Change::InsertLead {
                    lead: Box::new(lead),
                    on_duplicate: OnDuplicate::Refuse,
                });
            }
            self.store.commit(changes, WriteClass::Bulk, now).await?;
            told((page * PAGE + people.len()) as u64);
        }
        Ok(())
    }

    /// Makes the campaigns, which start in a second.
    pub async fn campaigns(&self) -> Result<Vec<CampaignId>, StoreError> {
        let now = self.clock.wall();
        let mut changes = ChangeSet::default();
        let mut ids = Vec::new();
        for place in 0..self.args.campaigns as usize {
            let id = CampaignId::new(self.ids, now);
            changes = changes.and(Change::InsertCampaign(Box::new(campaign(id, self.user_id, place, now))));
            ids.push(id);
        }
        self.store.commit(changes, WriteClass::Api, now).await?;
        Ok(ids)
    }
}

/// By what the leads of a campaign are found.
pub(super) fn niche(campaign: usize) -> String {
    format!("load {}", campaign + 1)
}

/// A campaign to those of its place.
pub(super) fn campaign(id: CampaignId, user_id: UserId, place: usize, now: Timestamp) -> Campaign {
    let name = niche(place);
    let mut campaign = Campaign::draft(id, user_id, &name, Content::text(TEXT), now);
    campaign.audience = Audience::Leads {
        niche: Some(Token::parse(&name).expect("the niche is short")),
        target: TargetFilter::All,
        device_id: None,
    };
    let starts_at = now + STARTS_AFTER;
    campaign.date = Some(campaign.time_zone.local_date(starts_at));
    campaign.time = Some(campaign.time_zone.local_time(starts_at));
    campaign.scheduled_at = Some(starts_at);
    campaign.status = CampaignStatus::Scheduled;
    campaign
}
