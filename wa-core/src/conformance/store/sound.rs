//! What must hold of every store at every moment: looked at after each case.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::access::RequestScope;
use crate::domain::campaign::Campaign;
use crate::domain::device::Device;
use crate::domain::lead::Lead;
use crate::domain::message::{Message, MessageScope, MessageState};
use crate::domain::summary::{DeviceNumbers, Numbers};
use crate::id::{DeviceId, UserId};
use crate::store::{AppStore, CampaignFilter, LeadFilter, MessageFilter, PAGE_MAX, PageRequest};

/// Counts all tallies and looks at every message of every user.
///
/// # Panics
/// When something does not hold.
pub(super) async fn assert_sound(store: &dyn AppStore) {
    for user in users(store).await {
        user_is_sound(store, user).await;
    }
}

/// The rows of a user that people see.
#[derive(PartialEq)]
pub(super) struct Rows {
    devices: Vec<Device>,
    leads: Vec<Lead>,
    campaigns: Vec<Campaign>,
    messages: Vec<Message>,
}

/// Reads the rows that people see, of all users, to compare them after a restart.
pub(super) async fn everything(store: &dyn AppStore) -> Vec<Rows> {
    let mut all = Vec::new();
    for user in users(store).await {
        let scope = RequestScope::user(user);
        let (leads, campaigns) = (LeadFilter::default(), CampaignFilter::default());
        let leads = store.leads(&scope, &leads, &PageRequest::first(PAGE_MAX)).await;
        let campaigns = store.campaigns(&scope, &campaigns, &PageRequest::first(PAGE_MAX)).await;
        let devices = store.devices(&scope, &PageRequest::first(PAGE_MAX)).await;
        all.push(Rows {
            devices: devices.unwrap().rows,
            leads: leads.unwrap().rows,
            campaigns: campaigns.unwrap().rows,
            messages: messages(store, &scope).await,
        });
    }
    all
}

async fn users(store: &dyn AppStore) -> Vec<UserId> {
    let mut users = Vec::new();
    let mut page = PageRequest::first(100);
    loop {
        let got = store.users(&page).await.unwrap();
        users.extend(got.rows.iter().map(|user| user.id));
        let Some(next) = got.next else { return users };
        page.after = Some(next);
    }
}

async fn user_is_sound(store: &dyn AppStore, user: UserId) {
    let scope = RequestScope::user(user);
    let messages = messages(store, &scope).await;
    let mut sending = BTreeSet::new();
    let mut keys = BTreeSet::new();
    for message in &messages {
        assert_eq!(message.user_id, user, "a message of another user is listed");
        assert!(keys.insert(message.key), "the key of {message:?} is there twice");
        row_is_sound(message);
        if message.state == MessageState::Sending {
            assert!(
                sending.insert(message.device_id),
                "two messages are sent at once on one device: {message:?}"
            );
        }
    }

    let mut scopes = vec![MessageScope::Direct, MessageScope::Chat, MessageScope::Bot];
    let mut page = PageRequest::first(100);
    loop {
        let got = store
            .campaigns(&scope, &CampaignFilter::default(), &page)
            .await
            .unwrap();
        scopes.extend(got.rows.iter().map(|campaign| MessageScope::Campaign(campaign.id)));
        let Some(next) = got.next else { break };
        page.after = Some(next);
    }
    let mut per_device: BTreeMap<DeviceId, Numbers> = BTreeMap::new();
    for of in scopes {
        let tallies = by_device(store.numbers(&scope, of).await.unwrap());
        let counted = by_device(store.count(&scope, of).await.unwrap());
        let expected = rows_of(&messages, of);
        assert_eq!(counted, expected, "count() of {of:?} is not what its rows say");
        assert_eq!(tallies, expected, "the tallies of {of:?} are not what its rows say");
        for (device, numbers) in expected {
            if let Some(device) = device {
                *per_device.entry(device).or_default() += numbers;
            }
        }
    }
    let mut page = PageRequest::first(100);
    loop {
        let got = store.devices(&scope, &page).await.unwrap();
        for device in &got.rows {
            let tallies = store.device_numbers(&scope, device.id).await.unwrap();
            let expected = per_device.get(&device.id).copied().unwrap_or_default();
            assert_eq!(
                tallies, expected,
                "the numbers of {device:?} are not what its messages say"
            );
        }
        let Some(next) = got.next else { break };
        page.after = Some(next);
    }
}

async fn messages(store: &dyn AppStore, scope: &RequestScope) -> Vec<Message> {
    let filter = MessageFilter {
        with_superseded: true,
        ..MessageFilter::default()
    };
    let mut messages = Vec::new();
    let mut page = PageRequest::first(500);
    loop {
        let got = store.messages(scope, &filter, &page).await.unwrap();
        messages.extend(got.rows);
        let Some(next) = got.next else { return messages };
        page.after = Some(next);
    }
}

/// Numbers by device, without those of devices that have none.
pub(super) fn by_device(numbers: Vec<DeviceNumbers>) -> BTreeMap<Option<DeviceId>, Numbers> {
    let mut sorted = BTreeMap::new();
    for row in numbers {
        let before = sorted.insert(row.device_id, row.numbers);
        assert_eq!(before, None, "{:?} is listed twice", row.device_id);
    }
    sorted.retain(|_, numbers| *numbers != Numbers::default());
    sorted
}

fn rows_of(messages: &[Message], of: MessageScope) -> BTreeMap<Option<DeviceId>, Numbers> {
    let mut sorted: BTreeMap<Option<DeviceId>, Numbers> = BTreeMap::new();
    for message in messages {
        if message.scope == of && !message.superseded {
            let numbers = sorted.entry(message.device_id).or_default();
            numbers.count(message.state, message.delivery);
        }
    }
    sorted
}

fn row_is_sound(message: &Message) {
    let state = message.state;
    assert_eq!(
        state.is_open(),
        message.settled_at.is_none(),
        "a message has settled_at exactly when it is not open: {message:?}"
    );
    assert_eq!(
        state == MessageState::Held,
        message.held_at.is_some(),
        "a message has held_at exactly while it is held: {message:?}"
    );
    if state == MessageState::InDoubt {
        assert!(
            message.doubt.is_some(),
            "a message in doubt has its record: {message:?}"
        );
    }
    if matches!(state, MessageState::Sending | MessageState::InDoubt) {
        let attempt = message.attempt.as_ref();
        assert!(attempt.is_some(), "what may have been sent has an attempt: {message:?}");
        assert_eq!(
            attempt.map(|attempt| attempt.device_id),
            message.device_id,
            "what may have been sent stays on the device of its attempt: {message:?}"
        );
    }
    if matches!(
        state,
        MessageState::Failed | MessageState::Skipped | MessageState::Unknown
    ) {
        assert!(message.reason.is_some(), "what was not sent has a reason: {message:?}");
    }
}
