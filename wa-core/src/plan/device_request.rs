//! From what a person says of a device to the device.

use super::field::{FieldCode, Problems, given};
use super::shared_drafts::{CapsDraft, DelayDraft, Edit};
use crate::domain::device::{Credential, Device, OnDoubt};
use crate::domain::pacing::Caps;
use crate::domain::phone::{Phone, Region};
use crate::domain::platform::Platform;
use crate::id::{DeviceId, UserId};
use crate::time::Timestamp;

/// What a person says of a device.
#[derive(Debug, Clone, Default)]
pub struct DeviceDraft {
    /// Its name, 1 to 100 characters, unique within the user. Field `name`.
    pub name: Option<String>,
    /// A note, at most 500 characters. Field `description`.
    pub description: Option<String>,
    /// Which transport carries it; WhatsApp Web when absent. Field `platform`.
    pub platform: Option<String>,
    /// Its own number. Field `phone`.
    pub phone: Option<String>,
    /// The gateway's credential, at most 1,000 characters. In an edit, `None` keeps the one there is. Field `credential`.
    pub credential: Option<Credential>,
    /// The gateway's base URL, if it has one of its own. Field `base_url`.
    pub base_url: Option<String>,
    /// Own delay between messages.
    pub delay: Option<DelayDraft>,
    /// Own caps.
    pub caps: Option<CapsDraft>,
    /// What to do with messages in doubt: `resolve`, the default, or `unknown`. Field `on_doubt`.
    pub on_doubt: Option<String>,
}

/// What a device is to become.
pub type DeviceEdit = Edit<DeviceDraft>;

impl From<&Device> for DeviceDraft {
    fn from(device: &Device) -> Self {
        Self {
            name: Some(device.name.clone()),
            description: Some(device.description.clone()),
            platform: Some(device.platform.to_string()),
            phone: device.phone.map(|phone| phone.as_e164().to_owned()),
            credential: None,
            base_url: device.base_url.clone(),
            delay: device.delay.map(Into::into),
            caps: device.caps.map(Into::into),
            on_doubt: Some(
                match device.on_doubt {
                    OnDoubt::Resolve => "resolve",
                    OnDoubt::Unknown => "unknown",
                }
                .to_owned(),
            ),
        }
    }
}

/// What a draft of a device is read with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DeviceContext {
    /// The region of numbers without a country code.
    pub(crate) region: Region,
    /// The caps of devices without own ones.
    pub(crate) caps: Caps,
    /// Now.
    pub(crate) now: Timestamp,
}

/// A new device, and what is wrong with it as far as can be said without its transport.
pub(crate) fn new_device(
    draft: &DeviceDraft,
    id: DeviceId,
    user_id: UserId,
    hook_token: String,
    context: &DeviceContext,
) -> (Device, Problems) {
    let mut blank = Device::new(id, user_id, "", Platform::WHATSAPP_WEB, context.now);
    blank.hook_token = hook_token;
    let (mut device, problems) = edited_device(draft, &blank, context);
    let fresh = Device::new(id, user_id, "", device.platform.clone(), context.now);
    device.link_state = fresh.link_state;
    (device, problems)
}

/// A device as a draft changes it, and what is wrong with it.
pub(crate) fn edited_device(draft: &DeviceDraft, before: &Device, context: &DeviceContext) -> (Device, Problems) {
    let mut problems = Problems::default();
    let mut device = before.clone();
    device.name = problems.required_line("name", draft.name.as_deref(), Device::NAME_MAX);
    let description = draft.description.as_deref().unwrap_or_default();
    device.description = problems.block("description", description, Device::DESCRIPTION_MAX);
    let platform = match given(draft.platform.as_deref()) {
        None => Some(Platform::WHATSAPP_WEB),
        Some(word) => problems.parsed("platform", word.parse::<Platform>()),
    };
    if let Some(platform) = platform {
        if platform != before.platform {
            // A credential belongs to the vendor that it was made by.
            device.credential = Credential::default();
        }
        device.platform = platform;
    }
    device.phone =
        given(draft.phone.as_deref()).and_then(|text| problems.parsed("phone", Phone::parse(text, &context.region)));
    if let Some(credential) = &draft.credential {
        let secret = credential.expose().unwrap_or_default().trim();
        if secret.len() > CREDENTIAL_BYTES_MAX {
            let expected = format!("must be at most {CREDENTIAL_BYTES_MAX} bytes long");
            problems.add("credential", FieldCode::TooLong, expected);
        } else if secret.chars().any(char::is_control) {
            problems.add("credential", FieldCode::Invalid, "must not hold control characters");
        }
        device.credential = match secret {
            "" => Credential::default(),
            secret => Credential::new(secret),
        };
    }
    device.base_url = given(draft.base_url.as_deref()).map(|url| problems.line("base_url", url, BASE_URL_MAX));
    device.delay = draft.delay.and_then(|delay| delay.check(&mut problems));
    device.caps = draft.caps.and_then(|caps| caps.check(context.caps, &mut problems));
    device.on_doubt = given(draft.on_doubt.as_deref())
        .and_then(|word| {
            let words = [("resolve", OnDoubt::Resolve), ("unknown", OnDoubt::Unknown)];
            problems.word("on_doubt", word, &words)
        })
        .unwrap_or_default();
    device.updated_at = context.now;
    (device, problems)
}

/// Longest credential, in bytes.
const CREDENTIAL_BYTES_MAX: usize = 1_000;

/// Longest base URL, in characters.
const BASE_URL_MAX: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::device::LinkState;

    fn context() -> DeviceContext {
        DeviceContext {
            region: Region::MY,
            caps: Caps::default(),
            now: Timestamp::from_millis(1_000),
        }
    }

    fn new(draft: &DeviceDraft) -> (Device, Vec<String>) {
        let (device, problems) = new_device(draft, DeviceId::MIN, UserId::MIN, "hook".to_owned(), &context());
        let fields = problems.into_errors().into_iter().map(|error| error.field.into_owned());
        (device, fields.collect())
    }

    #[test]
    fn all_problems_of_a_device_are_told_at_once() {
        let draft = DeviceDraft {
            name: Some("  ".to_owned()),
            description: Some("x".repeat(501)),
            platform: Some("No Platform".to_owned()),
            phone: Some("abc".to_owned()),
            credential: Some(Credential::new("a\nb")),
            delay: Some(DelayDraft::default()),
            caps: Some(CapsDraft {
                hour_max: Some(0),
                day_max: None,
            }),
            on_doubt: Some("resend".to_owned()),
            ..DeviceDraft::default()
        };
        let (_, fields) = new(&draft);
        assert_eq!(
            fields,
            [
                "name",
                "description",
                "platform",
                "phone",
                "credential",
                "hour_max",
                "on_doubt"
            ]
        );
    }

    #[test]
    fn a_gateway_device_is_ready_when_it_is_made_and_a_web_device_is_not() {
        let named = |platform: Option<&str>| DeviceDraft {
            name: Some(" Sales 1 ".to_owned()),
            platform: platform.map(str::to_owned),
            phone: Some("0123456789".to_owned()),
            ..DeviceDraft::default()
        };
        let (device, fields) = new(&named(Some("wablas")));
        assert!(fields.is_empty());
        assert_eq!((device.link_state, device.name.as_str()), (LinkState::Ready, "Sales 1"));
        assert_eq!(
            device.phone.map(|phone| phone.as_e164().to_owned()),
            Some("+60123456789".to_owned())
        );
        assert_eq!(new(&named(None)).0.link_state, LinkState::Initializing);
    }

    #[test]
    fn a_credential_stays_until_another_one_or_another_platform_is_given() {
        let draft = DeviceDraft {
            name: Some("a".to_owned()),
            platform: Some("wablas".to_owned()),
            credential: Some(Credential::new("tok")),
            ..DeviceDraft::default()
        };
        let (device, _) = new(&draft);
        let same = DeviceDraft::from(&device);
        let (edited, problems) = edited_device(&same, &device, &context());
        assert!(problems.is_empty());
        assert_eq!(
            edited,
            Device {
                updated_at: edited.updated_at,
                ..device.clone()
            }
        );
        let elsewhere = DeviceDraft {
            platform: Some("whacenter".to_owned()),
            ..same
        };
        assert!(!edited_device(&elsewhere, &device, &context()).0.credential.is_set());
    }
}
