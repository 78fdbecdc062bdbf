//! Devices: what a person does with them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use super::{Handle, HandleError};
use crate::domain::access::RequestScope;
use crate::domain::command::{DeviceAnswer, DeviceAsk, DeviceCommand};
use crate::domain::device::{Credential, Device, DeviceStatus, Hold, HoldReason, LinkState};
use crate::domain::message::MessageScope;
use crate::domain::phone::Phone;
use crate::domain::platform::Platform;
use crate::domain::summary::Numbers;
use crate::event::EventKind;
use crate::id::{CampaignId, CommandId, DeviceId};
use crate::plan::device_request::{DeviceContext, edited_device, new_device};
use crate::plan::{DeviceDraft, DeviceEdit, Edit, FieldCode, Problems};
use crate::store::{Change, ChangeSet, WriteClass};
use crate::transport::Transport;

/// How long a person waits for the answer of a device: 2 min.
pub const ANSWER_WAIT: Duration = Duration::from_secs(120);

/// Most numbers of one check.
const CHECK_MAX: usize = 100;

/// The platform of a device with what it needs there.
#[derive(Debug, Clone, Default)]
pub struct PlatformDraft {
    /// The platform. Field `platform`.
    pub platform: Option<String>,
    /// The gateway's credential; `None` keeps the one there is, if the platform stays. Field `credential`.
    pub credential: Option<Credential>,
    /// The gateway's base URL, if the device has one of its own. Field `base_url`.
    pub base_url: Option<String>,
}

/// What a person asks of a device.
#[derive(Debug, Clone)]
pub enum DeviceRequest {
    /// Link by QR, or by pair code when a number is given. Field `phone`.
    Link {
        /// The number of the phone, for a pair code.
        phone: Option<String>,
    },
    /// Connect again with the stored session.
    Refresh,
    /// Close the connection and keep the session, until it is linked or refreshed.
    Disconnect,
    /// Remove the link.
    Logout,
    /// Tell whether numbers are on WhatsApp. Field `phones`.
    CheckNumbers {
        /// 1 to 100 numbers.
        phones: Vec<String>,
    },
    /// Ask the vendor how the device is.
    Probe,
}

/// The numbers of one device within a campaign.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeviceReport {
    /// The device; `None` for messages that wait in the pool.
    pub device_id: Option<DeviceId>,
    /// Its name; `None` for the pool and for a device that was deleted.
    pub name: Option<String>,
    /// Whether it is online; `None` for the pool and for a device that was deleted.
    pub status: Option<DeviceStatus>,
    /// Its numbers.
    pub numbers: Numbers,
}

impl Handle {
    /// Creates a device with a fresh callback token. Gateway devices are ready at once, others wait to be linked.
    ///
    /// # Errors
    /// `Invalid` for fields, also what the transport cannot work with; `Conflict` when the name is taken.
    pub async fn create_device(&self, scope: &RequestScope, draft: &DeviceDraft) -> Result<Device, HandleError> {
        let user_id = Self::owner(scope, "device")?;
        let context = self.device_context(scope).await?;
        let id = DeviceId::new(&self.core.ids, context.now);
        let (device, mut problems) = new_device(draft, id, user_id, hook_token(), &context);
        self.check_transport(&device, &mut problems);
        let device = problems.give(device)?;
        let insert = ChangeSet::one(Change::InsertDevice(Box::new(device.clone())));
        match self.commit(insert, WriteClass::Api).await {
            Ok(_) => {}
            Err(error) if error.is_conflict() => return Err(name_taken(&device.name)),
            Err(error) => return Err(error.into()),
        }
        self.core.wake.plan();
        Ok(device)
    }

    /// Edits a device. Another platform starts it anew: gateway devices are ready, others wait to be linked.
    ///
    /// # Errors
    /// `Invalid` for fields; `Conflict` when it was changed in the meantime or the name is taken.
    pub async fn edit_device(
        &self,
        scope: &RequestScope,
        id: DeviceId,
        edit: &DeviceEdit,
    ) -> Result<Device, HandleError> {
        let before = self.core.store.device(scope, id).await?;
        if before.version != edit.version {
            return Err(HandleError::stale("device", edit.version, before.version));
        }
        let context = self.device_context(scope).await?;
        let (device, mut problems) = edited_device(&edit.draft, &before, &context);
        self.check_transport(&device, &mut problems);
        let device = problems.give(device)?;
        self.replace_device(scope, &before, device).await
    }

    /// Gives a device a platform.
    ///
    /// # Errors
    /// As [`edit_device`](Self::edit_device).
    pub async fn set_platform(
        &self,
        scope: &RequestScope,
        id: DeviceId,
        edit: &Edit<PlatformDraft>,
    ) -> Result<Device, HandleError> {
        let before = self.core.store.device(scope, id).await?;
        let draft = DeviceDraft {
            platform: edit.draft.platform.clone(),
            credential: edit.draft.credential.clone(),
            base_url: edit.draft.base_url.clone(),
            ..DeviceDraft::from(&before)
        };
        self.edit_device(scope, id, &Edit::new(edit.version, draft)).await
    }

    /// Takes the platform of a device back: it is a WhatsApp Web device that waits to be linked, without a credential.
    ///
    /// # Errors
    /// `Conflict` when it was changed in the meantime.
    pub async fn take_back_platform(
        &self,
        scope: &RequestScope,
        id: DeviceId,
        version: i64,
    ) -> Result<Device, HandleError> {
        let nothing = PlatformDraft {
            credential: Some(Credential::default()),
            ..PlatformDraft::default()
        };
        self.set_platform(scope, id, &Edit::new(version, nothing)).await
    }

    /// Deletes a device; its history stays. Its open messages become `skipped: device gone`, pool messages go back.
    ///
    /// # Errors
    /// `NotFound` when there is no such device.
    pub async fn delete_device(&self, scope: &RequestScope, id: DeviceId) -> Result<(), HandleError> {
        let device = self.core.store.device(scope, id).await?;
        let delete = Change::DeleteDevice {
            user_id: device.user_id,
            device_id: id,
        };
        self.commit(ChangeSet::one(delete), WriteClass::Api).await?;
        self.core.wake.changed(id);
        self.core.wake.plan();
        Ok(())
    }

    /// Pauses a device: from the return of this call no further send of it begins.
    ///
    /// # Errors
    /// `NotFound` when there is no such device.
    pub async fn hold_device(&self, scope: &RequestScope, id: DeviceId) -> Result<Device, HandleError> {
        let hold = Hold {
            reason: HoldReason::ByPerson,
            since_at: self.now(),
            detail: None,
        };
        self.set_hold(scope, id, Some(hold)).await
    }

    /// Ends the pause of a device, whatever its reason was.
    ///
    /// # Errors
    /// `NotFound` when there is no such device.
    pub async fn resume_device(&self, scope: &RequestScope, id: DeviceId) -> Result<Device, HandleError> {
        self.set_hold(scope, id, None).await
    }

    /// Asks something of a device; its owner does it, and the answer is read with
    /// [`device_answer`](Self::device_answer) within two minutes.
    ///
    /// # Errors
    /// `Conflict` for what devices of its platform do not do; `Invalid` for numbers that are none.
    pub async fn ask_device(
        &self,
        scope: &RequestScope,
        id: DeviceId,
        request: &DeviceRequest,
    ) -> Result<DeviceCommand, HandleError> {
        let device = self.core.store.device(scope, id).await?;
        self.can_do(&device.platform, request)?;
        let ask = self.ask_of(scope, request).await?;
        let now = self.now();
        let command = DeviceCommand {
            id: CommandId::new(&self.core.ids, now),
            user_id: device.user_id,
            device_id: id,
            ask,
            answer: DeviceAnswer::Waiting,
            created_at: now,
            expires_at: now + ANSWER_WAIT,
        };
        let insert = ChangeSet::one(Change::InsertCommand(Box::new(command.clone())));
        self.commit(insert, WriteClass::Api).await?;
        self.core.wake.plan();
        Ok(command)
    }

    /// What was asked of a device, with the answer as far as there is one.
    ///
    /// # Errors
    /// `NotFound` when nothing of that id was asked, or too long ago.
    pub async fn device_answer(&self, scope: &RequestScope, id: CommandId) -> Result<DeviceCommand, HandleError> {
        Ok(self.core.store.command(scope, id).await?)
    }

    /// The numbers of a device over everything that it sent.
    ///
    /// # Errors
    /// `NotFound` when there is no such device.
    pub async fn device_numbers(&self, scope: &RequestScope, id: DeviceId) -> Result<Numbers, HandleError> {
        self.core.store.device(scope, id).await?;
        Ok(self.core.store.device_numbers(scope, id).await?)
    }

    /// The numbers of a campaign by device, with their names; what waits in the pool comes last.
    ///
    /// # Errors
    /// `NotFound` when there is no such campaign.
    pub async fn device_report(
        &self,
        scope: &RequestScope,
        campaign: CampaignId,
    ) -> Result<Vec<DeviceReport>, HandleError> {
        self.core.store.campaign(scope, campaign).await?;
        let numbers = self.core.store.numbers(scope, MessageScope::Campaign(campaign)).await?;
        let devices = self.devices_of(scope).await?;
        let devices: BTreeMap<_, _> = devices.iter().map(|device| (device.id, device)).collect();
        let mut report: Vec<_> = numbers
            .into_iter()
            .map(|row| {
                let device = row.device_id.and_then(|id| devices.get(&id));
                DeviceReport {
                    device_id: row.device_id,
                    name: device.map(|device| device.name.clone()),
                    status: device.map(|device| device.status()),
                    numbers: row.numbers,
                }
            })
            .collect();
        report.sort_by_key(|row| (row.device_id.is_none(), row.name.clone(), row.device_id));
        Ok(report)
    }

    async fn device_context(&self, scope: &RequestScope) -> Result<DeviceContext, HandleError> {
        Ok(DeviceContext {
            region: self.settings(scope.user_id).await?.region,
            caps: self.core.config.pacing.default_caps(),
            now: self.now(),
        })
    }

    fn check_transport(&self, device: &Device, problems: &mut Problems) {
        match self.core.transports.get(&device.platform) {
            Some(transport) => {
                if let Err(error) = transport.check_device(&device.for_transport()) {
                    problems.add(error.field, FieldCode::Invalid, error.expected);
                }
            }
            // A device that only waits to be linked needs no transport yet.
            None if device.platform == Platform::WHATSAPP_WEB => {}
            None => {
                let known: Vec<_> = self.platforms().map(Platform::as_str).collect();
                let expected = format!("must be one of {}", known.join(", "));
                problems.add("platform", FieldCode::Unknown, expected);
            }
        }
    }

    async fn replace_device(
        &self,
        scope: &RequestScope,
        before: &Device,
        device: Device,
    ) -> Result<Device, HandleError> {
        let mut set = ChangeSet::one(Change::UpdateDevice(Box::new(device.clone())));
        if device.platform != before.platform {
            let state = if device.platform.is_gateway() {
                LinkState::Ready
            } else {
                LinkState::Initializing
            };
            set = set.and(Change::SetDeviceLink {
                user_id: device.user_id,
                device_id: device.id,
                fence: None,
                state,
                reason: None,
                phone: None,
                jid: None,
            });
            if state != before.link_state {
                let device_id = device.id;
                set = set.tell(
                    self.core
                        .event(device.user_id, EventKind::DeviceLink { device_id, state }),
                );
            }
        }
        match self.commit(set, WriteClass::Api).await {
            Ok(_) => {}
            Err(error) if error.is_conflict() => {
                let current = self.core.store.device(scope, device.id).await?;
                return Err(if current.version == device.version {
                    name_taken(&device.name)
                } else {
                    HandleError::stale("device", device.version, current.version)
                });
            }
            Err(error) => return Err(error.into()),
        }
        self.core.wake.changed(device.id);
        Ok(self.core.store.device(scope, device.id).await?)
    }

    async fn set_hold(
        &self,
        scope: &RequestScope,
        device_id: DeviceId,
        hold: Option<Hold>,
    ) -> Result<Device, HandleError> {
        let device = self.core.store.device(scope, device_id).await?;
        let reason = hold.as_ref().map(|hold| hold.reason);
        if reason == device.hold.as_ref().map(|hold| hold.reason) {
            return Ok(device);
        }
        let user_id = device.user_id;
        let set = ChangeSet::one(Change::SetDeviceHold {
            user_id,
            device_id,
            hold,
        })
        .tell(self.core.event(user_id, EventKind::DeviceHold { device_id, reason }));
        self.commit_repeatable(set, WriteClass::Api).await?;
        self.core.wake.changed(device_id);
        self.core.wake.devices([device_id]);
        Ok(self.core.store.device(scope, device_id).await?)
    }

    /// Whether devices of a platform do what is asked.
    fn can_do(&self, platform: &Platform, request: &DeviceRequest) -> Result<(), HandleError> {
        let verb = match request {
            DeviceRequest::Link { .. } => "linked",
            DeviceRequest::Refresh => "refreshed",
            DeviceRequest::Disconnect => "disconnected",
            DeviceRequest::Logout => "logged out",
            DeviceRequest::CheckNumbers { .. } => "asked to check numbers",
            DeviceRequest::Probe => "asked how it is",
        };
        let linking = matches!(
            request,
            DeviceRequest::Link { .. } | DeviceRequest::Refresh | DeviceRequest::Disconnect | DeviceRequest::Logout
        );
        if linking && platform.is_gateway() {
            let why = format!("it is run by {platform}, which keeps its session, so it cannot be {verb} here");
            return Err(HandleError::conflict("device", why));
        }
        let transport = self.core.transports.get(platform);
        let able = |transport: &dyn Transport| match request {
            DeviceRequest::CheckNumbers { .. } => transport.as_number_checker().is_some(),
            DeviceRequest::Probe => transport.as_probe().is_some(),
            _ => transport.as_linkable().is_some(),
        };
        if transport.is_some_and(|transport| able(transport.as_ref())) {
            Ok(())
        } else {
            let why = format!("a device of {platform} cannot be {verb}");
            Err(HandleError::conflict("device", why))
        }
    }

    async fn ask_of(&self, scope: &RequestScope, request: &DeviceRequest) -> Result<DeviceAsk, HandleError> {
        let region = self.settings(scope.user_id).await?.region;
        let mut problems = Problems::default();
        let ask = match request {
            DeviceRequest::Link { phone } => {
                let phone = phone.as_deref().map(str::trim).filter(|phone| !phone.is_empty());
                DeviceAsk::Link {
                    phone: phone.and_then(|text| problems.parsed("phone", Phone::parse(text, &region))),
                }
            }
            DeviceRequest::Refresh => DeviceAsk::Refresh,
            DeviceRequest::Disconnect => DeviceAsk::Disconnect,
            DeviceRequest::Logout => DeviceAsk::Logout,
            DeviceRequest::CheckNumbers { phones } => {
                if phones.is_empty() {
                    problems.add("phones", FieldCode::Required, "is required");
                }
                if phones.len() > CHECK_MAX {
                    let expected = format!("must be at most {CHECK_MAX} numbers");
                    problems.add("phones", FieldCode::TooMany, expected);
                }
                let numbered = phones.iter().take(CHECK_MAX).enumerate();
                let phones = numbered
                    .filter_map(|(at, text)| problems.parsed(format!("phones[{at}]"), Phone::parse(text, &region)))
                    .collect();
                DeviceAsk::CheckNumbers { phones }
            }
            DeviceRequest::Probe => DeviceAsk::Probe,
        };
        Ok(problems.give(ask)?)
    }
}

fn name_taken(name: &str) -> HandleError {
    HandleError::conflict("device", format!("the user has another device named {name:?}"))
}

/// The secret segment of a callback path: 32 random bytes in hexadecimal.
fn hook_token() -> String {
    let mut bytes = [0; 32];
    rand::TryRng::try_fill_bytes(&mut rand::rngs::SysRng, &mut bytes).expect("the operating system gives random bytes");
    bytes.iter().fold(String::with_capacity(64), |mut token, byte| {
        let _ = write!(token, "{byte:02x}");
        token
    })
}
