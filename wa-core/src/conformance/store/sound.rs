//! What must hold of every store at every moment: looked at after each case.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::access::RequestScope;
use crate::domain::campaign::Campaign;
use crate::domain::chat::{Chat, ChatMessage};
use crate::domain::device::Device;
use crate::domain::enrolment::{Enrolment, EnrolmentState};
use crate::domain::lead::Lead;
use crate::domain::message::{Message, MessageScope, MessageState};
use crate::domain::sequence::{Sequence, SequenceSteps};
use crate::domain::summary::{DeviceNumbers, Numbers};
use crate::id::{DeviceId, SequenceId, UserId};
use crate::store::{
    AppStore, CampaignFilter, ChatPage, EnrolmentFilter, LeadFilter, MessageFilter, PAGE_MAX, PageRequest,
    SequenceFilter, Span,
};

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
    sequences: Vec<Sequence>,
    steps: Vec<SequenceSteps>,
    enrolments: Vec<Enrolment>,
    messages: Vec<Message>,
    chats: Vec<(Chat, Vec<ChatMessage>)>,
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
        let sequences = sequences(store, &scope).await;
        let devices = devices.unwrap().rows;
        let newest: Vec<_> = sequences.iter().map(|one| (one.id, one.steps_version)).collect();
        all.push(Rows {
            steps: store.steps(&newest).await.unwrap(),
            sequences,
            enrolments: enrolments(store, &scope).await,
            chats: chats(store, &scope, &devices).await,
            devices,
            leads: leads.unwrap().rows,
            campaigns: campaigns.unwrap().rows,
            messages: messages(store, &scope).await,
        });
    }
    all
}

async fn chats(store: &dyn AppStore, scope: &RequestScope, devices: &[Device]) -> Vec<(Chat, Vec<ChatMessage>)> {
    let mut all = Vec::new();
    for device in devices {
        let chats = store.chats(scope, device.id, &PageRequest::first(PAGE_MAX)).await;
        for chat in chats.unwrap().rows {
            let messages = store.chat_messages(scope, chat.id, &ChatPage::newest(PAGE_MAX)).await;
            let messages = messages.unwrap().rows;
            assert_eq!(chat.last.as_ref(), messages.first(), "the newest message of {chat:?}");
            all.push((chat, messages));
        }
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
    scopes.extend(messages.iter().filter_map(|message| match message.scope {
        MessageScope::Sequence(_) => Some(message.scope),
        _ => None,
    }));
    scopes.extend(
        sequences(store, &scope)
            .await
            .iter()
            .map(|one| MessageScope::Sequence(one.id)),
    );
    scopes.sort_unstable();
    scopes.dedup();
    enrolments_are_sound(store, &scope, &messages).await;
    let mut per_device: BTreeMap<DeviceId, Numbers> = BTreeMap::new();
    for of in scopes {
        let tallies = by_device(store.numbers(&scope, of).await.unwrap());
        let counted = by_device(store.count(&scope, of).await.unwrap());
        let expected = rows_of(&messages, of);
        assert_eq!(counted, expected, "count() of {of:?} is not what its rows say");
        assert_eq!(tallies, expected, "the tallies of {of:?} are not what its rows say");
        if let MessageScope::Sequence(id) = of {
            steps_are_sound(store, &scope, id, &expected).await;
        }
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

async fn sequences(store: &dyn AppStore, scope: &RequestScope) -> Vec<Sequence> {
    let mut sequences = Vec::new();
    let mut page = PageRequest::first(100);
    loop {
        let got = store.sequences(scope, &SequenceFilter::default(), &page).await.unwrap();
        sequences.extend(got.rows);
        let Some(next) = got.next else { return sequences };
        page.after = Some(next);
    }
}

async fn enrolments(store: &dyn AppStore, scope: &RequestScope) -> Vec<Enrolment> {
    let mut enrolments = Vec::new();
    let mut page = PageRequest::first(500);
    loop {
        let got = store
            .enrolments(scope, &EnrolmentFilter::default(), &page)
            .await
            .unwrap();
        enrolments.extend(got.rows);
        let Some(next) = got.next else { return enrolments };
        page.after = Some(next);
    }
}

/// Enrolments stand where their messages do: one that is open has a message of its step, which is open or else marks it.
async fn enrolments_are_sound(store: &dyn AppStore, scope: &RequestScope, messages: &[Message]) {
    let marked: BTreeSet<_> = store
        .to_advance(PAGE_MAX)
        .await
        .unwrap()
        .iter()
        .map(|one| one.enrolment.id)
        .collect();
    let active: BTreeMap<_, _> = messages
        .iter()
        .filter(|message| message.round == 0)
        .filter_map(|message| Some(((message.flow?.enrolment_id, message.flow?.step_id), message)))
        .collect();
    let mut open = BTreeSet::new();
    for one in enrolments(store, scope).await {
        let is_open = one.state == EnrolmentState::Open;
        assert_eq!(
            is_open,
            one.ended_at.is_none(),
            "an enrolment has ended_at exactly when it is not open: {one:?}"
        );
        let message = active.get(&(one.id, one.step_id));
        let settled = message.is_some_and(|message| !message.state.is_open());
        assert!(message.is_some(), "an enrolment has a message of its step: {one:?}");
        assert_eq!(
            marked.contains(&one.id),
            is_open && settled,
            "an enrolment is marked exactly when it is open and its step is settled: {one:?}"
        );
        let alone = !is_open || open.insert((one.sequence_id, one.person));
        assert!(alone, "a person is in a sequence once at a time: {one:?}");
        let waits = messages.iter().find(|message| {
            message.flow.is_some_and(|flow| flow.enrolment_id == one.id)
                && matches!(message.state, MessageState::Queued | MessageState::Held)
        });
        assert!(
            is_open || waits.is_none(),
            "nothing waits of an enrolment that ended: {waits:?}"
        );
        if let Some(next) = one.next_id {
            let found = store.enrolments_by_id(&[next]).await.unwrap();
            assert_eq!(found.len(), 1, "what follows an enrolment exists: {one:?}");
        }
    }
}

/// The counts of a sequence are what its rows say, and the numbers of its steps add up to its own.
async fn steps_are_sound(
    store: &dyn AppStore,
    scope: &RequestScope,
    id: SequenceId,
    expected: &BTreeMap<Option<DeviceId>, Numbers>,
) {
    let counts = store.sequence_counts(scope, id, &Span::default()).await.unwrap();
    let counted = store.recount_sequence(scope, id).await.unwrap();
    assert_eq!(counts, counted, "the counts of {id:?} are not what its rows say");
    let mut sums: BTreeMap<Option<DeviceId>, Numbers> = BTreeMap::new();
    for step in counts.steps {
        *sums.entry(step.device_id).or_default() += step.numbers;
    }
    assert_eq!(&sums, expected, "the steps of {id:?} do not add up to it");
    let of_sequence = enrolments(store, scope)
        .await
        .into_iter()
        .filter(|one| one.sequence_id == id);
    let counted: u64 = counts.enrolments.iter().map(|row| row.count).sum();
    assert_eq!(
        counted,
        of_sequence.count() as u64,
        "every enrolment of {id:?} is counted once"
    );
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
