//! What the demonstration plays with: devices, leads, people who opted out, and a campaign.

use std::sync::Arc;
use std::time::Duration;

use wa_core::domain::campaign::{Campaign, CampaignStatus};
use wa_core::domain::content::Content;
use wa_core::domain::device::{Credential, Device};
use wa_core::domain::lead::{Consent, Lead};
use wa_core::domain::phone::PersonKey;
use wa_core::domain::platform::Platform;
use wa_core::domain::suppression::{Suppression, SuppressionReason};
use wa_core::domain::token::TokenSet;
use wa_core::id::{CampaignId, DeviceId, IdSource, LeadId, UserId};
use wa_core::seed::Seed;
use wa_core::store::{AppStore, Change, ChangeSet, OnDuplicate, StoreError, WriteClass};
use wa_core::time::Timestamp;

use super::people::{NICHES, people};
use crate::loopback::{GatewayDevice, Vendor};

/// Most rows of one commit.
pub(crate) const PAGE: usize = 500;
/// Every how many leads one is another row of the person before, in another niche.
const DUPLICATE_EVERY: usize = 100;
/// Every how many leads one has opted out before.
const OPTED_OUT_EVERY: usize = 133;

/// The text of the campaign.
const TEXT: &str = "{Ada berita baik untuk anda.|Kami ada sesuatu yang istimewa.|Ini khas untuk anda.}\n\
Promosi *{{niche}}* kami di {{custom.city|bandar anda}} {bermula hari ini|sudah dibuka|masih ada kekosongan}, dari RM199. \
{{name|Anda}} {antara yang pertama tahu|dapat harga awal}.\n\
Balas YA untuk butiran, STOP jika tidak mahu dihubungi.";

/// How much is put on the stage.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    devices: usize,
    linked: usize,
    leads: usize,
    seed: u64,
    distinct: bool,
}

impl Scale {
    /// So many devices and leads, drawn from a seed; one lead in a hundred is a person who is there twice, and about as many
    /// have opted out.
    #[must_use]
    pub const fn of(devices: usize, leads: usize, seed: u64) -> Self {
        Self {
            devices,
            linked: 0,
            leads,
            seed,
            distinct: false,
        }
    }

    /// So many more devices are of WhatsApp Web.
    #[must_use]
    pub const fn with_linked(self, linked: usize) -> Self {
        Self { linked, ..self }
    }

    /// Every lead is a person of its own, and nobody has opted out.
    #[must_use]
    pub const fn with_distinct_people(self) -> Self {
        Self { distinct: true, ..self }
    }
}

/// A device with what its gateway has to know of it.
#[derive(Debug, Clone)]
pub struct StagedDevice {
    /// Its id.
    pub id: DeviceId,
    /// Whose it is.
    pub vendor: Vendor,
    /// The secret segment of its callback path.
    pub hook_token: String,
    gateway: GatewayDevice,
}

impl StagedDevice {
    /// How its gateway names it.
    #[must_use]
    pub fn serial(&self) -> &str {
        &self.gateway.serial
    }

    /// What its gateway has to know, with the address of its callbacks if it makes any.
    #[must_use]
    pub fn at_gateway(&self, hook: Option<String>) -> GatewayDevice {
        GatewayDevice {
            hook,
            ..self.gateway.clone()
        }
    }
}

/// A device of WhatsApp Web.
#[derive(Debug, Clone)]
pub struct StagedLink {
    /// Its id.
    pub id: DeviceId,
    /// The number of its account, digits only.
    pub digits: String,
}

/// A lead as the demonstration speaks of it.
#[derive(Debug, Clone)]
pub struct StagedLead {
    /// The device that writes to it.
    pub device_id: DeviceId,
    /// Its number, digits only.
    pub digits: String,
}

/// What is on the stage.
#[derive(Debug)]
pub struct Stage {
    /// The devices at gateways.
    pub devices: Vec<StagedDevice>,
    /// The devices of WhatsApp Web, which have no session yet.
    pub linked: Vec<StagedLink>,
    /// The leads, in the order in which they are written to.
    pub leads: Vec<StagedLead>,
    /// The campaign.
    pub campaign_id: CampaignId,
}

/// Where the gateways are.
#[derive(Debug, Clone)]
pub struct Gateways {
    /// Base URL of the Wablas one.
    pub wablas: String,
    /// Base URL of the Whacenter one.
    pub whacenter: String,
}

/// Puts devices, leads and the campaign of a user into a store; the campaign starts 2 s after `now`.
///
/// Two thirds of the devices at gateways are at Wablas, the others at Whacenter; leads are dealt out evenly to all devices.
///
/// # Errors
/// As the store's.
pub async fn set(
    store: &Arc<dyn AppStore>,
    ids: &IdSource,
    user_id: UserId,
    scale: Scale,
    gateways: &Gateways,
    now: Timestamp,
) -> Result<Stage, StoreError> {
    let seed = store.seed(&Seed::from_entropy()).await?;
    let devices: Vec<_> = (0..scale.devices.max(1))
        .map(|place| device(ids, &seed, user_id, place, gateways, now))
        .collect();
    let linked: Vec<_> = (0..scale.linked).map(|place| link(ids, user_id, place, now)).collect();
    let mut changes = ChangeSet::default();
    let rows = devices.iter().map(|(device, _)| device);
    for device in rows.chain(linked.iter().map(|(device, _)| device)) {
        changes = changes.and(Change::InsertDevice(Box::new(device.clone())));
    }
    store.commit(changes, WriteClass::Bulk, now).await?;
    let devices: Vec<_> = devices.into_iter().map(|(_, staged)| staged).collect();
    let linked: Vec<_> = linked.into_iter().map(|(_, staged)| staged).collect();

    let all = devices.iter().map(|device| device.id);
    let all: Vec<_> = all.chain(linked.iter().map(|device| device.id)).collect();
    let leads = leads(ids, user_id, scale, &all, now);
    for page in leads.chunks(PAGE) {
        let mut changes = ChangeSet::default();
        for lead in page {
            changes = changes.and(Change::InsertLead {
                lead: Box::new(lead.clone()),
                on_duplicate: OnDuplicate::Refuse,
            });
        }
        store.commit(changes, WriteClass::Bulk, now).await?;
    }
    let opted_out = leads.iter().skip(OPTED_OUT_EVERY / 2).step_by(OPTED_OUT_EVERY);
    for lead in opted_out.filter(|_| !scale.distinct) {
        let suppression = Suppression {
            user_id,
            person: PersonKey::of(&seed, user_id, &lead.phone),
            phone: Some(lead.phone),
            reason: SuppressionReason::ByPerson,
            note: "asked by phone".to_owned(),
            since_at: now,
        };
        let set = ChangeSet::one(Change::Suppress(suppression));
        store.commit(set, WriteClass::Bulk, now).await?;
    }

    let campaign = campaign(ids, user_id, now);
    let campaign_id = campaign.id;
    let set = ChangeSet::one(Change::InsertCampaign(Box::new(campaign)));
    store.commit(set, WriteClass::Bulk, now).await?;
    let leads = leads
        .into_iter()
        .filter_map(|lead| {
            Some(StagedLead {
                device_id: lead.device_id?,
                digits: lead.phone.digits().to_owned(),
            })
        })
        .collect();
    Ok(Stage {
        devices,
        linked,
        leads,
        campaign_id,
    })
}

/// A device of the demonstration, by its place in the row of them: every third is at Whacenter.
pub(crate) fn device(
    ids: &IdSource,
    seed: &Seed,
    user_id: UserId,
    place: usize,
    gateways: &Gateways,
    now: Timestamp,
) -> (Device, StagedDevice) {
    let id = DeviceId::new(ids, now);
    let secret = |purpose| {
        let digest = seed.digest(id.as_bytes(), purpose);
        digest[..16]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let number = place + 1;
    let (vendor, platform, name, base_url, credential) = if place % 3 == 2 {
        let credential = secret("demo credential");
        let base_url = &gateways.whacenter;
        (
            Vendor::Whacenter,
            Platform::WHACENTER,
            "Whacenter",
            base_url,
            credential,
        )
    } else {
        let credential = format!("{}.{}", secret("demo credential"), secret("demo credential secret"));
        (Vendor::Wablas, Platform::WABLAS, "Wablas", &gateways.wablas, credential)
    };
    let mut device = Device::new(id, user_id, format!("{name} {number:02}"), platform, now);
    device.credential = Credential::new(credential.clone());
    device.base_url = Some(base_url.clone());
    device.hook_token = secret("demo hook");
    let gateway = GatewayDevice::new(credential, format!("DEMO{number:02}"), format!("60190000{number:03}"));
    let staged = StagedDevice {
        id,
        vendor,
        hook_token: device.hook_token.clone(),
        gateway,
    };
    (device, staged)
}

fn link(ids: &IdSource, user_id: UserId, place: usize, now: Timestamp) -> (Device, StagedLink) {
    let id = DeviceId::new(ids, now);
    let number = place + 1;
    let device = Device::new(
        id,
        user_id,
        format!("WhatsApp {number:02}"),
        Platform::WHATSAPP_WEB,
        now,
    );
    let digits = format!("60191000{number:03}");
    (device, StagedLink { id, digits })
}

fn leads(ids: &IdSource, user_id: UserId, scale: Scale, devices: &[DeviceId], now: Timestamp) -> Vec<Lead> {
    let mut people = people(scale.seed, scale.leads);
    let duplicates = (DUPLICATE_EVERY..people.len()).step_by(DUPLICATE_EVERY);
    for place in duplicates.filter(|_| !scale.distinct) {
        let before = people[place - 1].clone();
        let niche = NICHES.into_iter().find(|niche| *niche != before.niche);
        people[place] = before;
        people[place].niche = niche.unwrap_or(NICHES[0]);
    }
    people
        .into_iter()
        .zip(devices.iter().cycle())
        .map(|(person, device)| {
            let mut lead = Lead::new(LeadId::new(ids, now), user_id, Some(*device), person.phone, now);
            lead.name = person.name;
            lead.niches = TokenSet::parse(person.niche).unwrap_or_default();
            lead.custom.insert("city".to_owned(), person.city.to_owned());
            lead.consent = Some(Consent {
                source: "demo".to_owned(),
                given_at: now,
            });
            lead
        })
        .collect()
}

fn campaign(ids: &IdSource, user_id: UserId, now: Timestamp) -> Campaign {
    let id = CampaignId::new(ids, now);
    let mut campaign = Campaign::draft(id, user_id, "Promosi hujung tahun", Content::text(TEXT), now);
    let starts_at = now + Duration::from_secs(2);
    let zone = campaign.time_zone;
    campaign.date = Some(zone.local_date(starts_at));
    campaign.time = Some(zone.local_time(starts_at));
    campaign.scheduled_at = Some(starts_at);
    campaign.status = CampaignStatus::Scheduled;
    campaign
}

#[cfg(test)]
mod tests {
    use super::*;
    use wa_core::domain::access::RequestScope;
    use wa_core::store::{CampaignStore as _, DeviceStore as _, LeadFilter, LeadStore as _, PageRequest};

    #[tokio::test]
    async fn the_stage_holds_what_was_asked_for_dealt_out_evenly() {
        let memory = Arc::new(wa_core::store::MemoryStore::new());
        let store: Arc<dyn AppStore> = memory.clone();
        let ids = IdSource::seeded([1; 32]);
        let now = Timestamp::from_millis(1_795_000_000_000);
        let user_id = UserId::new(&ids, now);
        let gateways = Gateways {
            wablas: "http://127.0.0.1:1".to_owned(),
            whacenter: "http://127.0.0.1:2".to_owned(),
        };
        let scale = Scale::of(30, 2_000, 1).with_linked(10);
        let stage = set(&store, &ids, user_id, scale, &gateways, now).await.unwrap();
        let scope = RequestScope::user(user_id);
        let devices = memory.devices(&scope, &PageRequest::first(100)).await.unwrap().rows;
        assert_eq!(devices.len(), 40);
        assert_eq!(
            devices
                .iter()
                .filter(|device| device.platform == Platform::WABLAS)
                .count(),
            20
        );
        assert_eq!(memory.lead_count(&scope, &LeadFilter::default()).await.unwrap(), 2_000);
        let per_device = |id| stage.leads.iter().filter(|lead| lead.device_id == id).count();
        assert!(stage.devices.iter().all(|device| per_device(device.id) == 50));
        assert_eq!(stage.linked.len(), 10);
        assert!(stage.linked.iter().all(|device| per_device(device.id) == 50));
        let due = memory.campaigns_due(now + Duration::from_secs(2), 10).await.unwrap();
        assert_eq!(due.len(), 1);
        due[0].content.template().unwrap();
    }
}
