//! No row of one user reaches another, and a request limited to some devices sees no more.

use super::stage::Stage;
use super::world::{World, assert_kind, insert_lead, set_status};
use crate::domain::access::RequestScope;
use crate::domain::audience::Audience;
use crate::domain::campaign::CampaignStatus;
use crate::domain::delivery::Delivery;
use crate::domain::device::LinkState;
use crate::domain::message::MessageScope;
use crate::id::EventId;
use crate::store::{
    CampaignFilter, Change, ChangeSet, ImportRecord, ImportState, LeadFilter, MessageFilter, PageRequest,
    StoreErrorKind,
};
use crate::transport::{MessageRef, TransportMessageId};

/// A user with one row of everything, and another user.
struct Two {
    stage: Stage,
    lead: crate::domain::lead::Lead,
    message: crate::id::MessageId,
    saved: crate::domain::saved_text::SavedText,
    command: crate::domain::command::DeviceCommand,
    import: ImportRecord,
    other: crate::id::UserId,
}

async fn two(world: &World) -> Two {
    let stage = world.stage().await;
    let lead = world.lead(stage.user, Some(stage.device)).await;
    let message = stage.queued_to(lead.phone).await;
    let (saved, command) = (
        world.rows.saved_text(stage.user),
        world.rows.command(stage.user, stage.device),
    );
    let set = ChangeSet::one(Change::InsertSavedText(Box::new(saved.clone())))
        .and(Change::InsertCommand(Box::new(command.clone())))
        .tell(world.rows.event(stage.user, world.now()));
    world.commit(set).await;
    let import = ImportRecord {
        id: crate::id::ImportId::new(world.rows.ids(), world.now()),
        user_id: stage.user,
        name: "leads.csv".to_owned(),
        state: ImportState::Done,
        bytes_read: 1,
        bytes_total: None,
        rows: 1,
        inserted: 1,
        duplicates: 0,
        refused: 0,
        message: None,
        created_at: world.now(),
        updated_at: world.now(),
    };
    world.store.put_import(&import, &[]).await.unwrap();
    let other = world.user().await;
    Two {
        stage,
        lead,
        message,
        saved,
        command,
        import,
        other,
    }
}

pub(super) async fn another_users_rows_are_not_found(world: World) {
    let two = two(&world).await;
    let (store, stage) = (&world.store, &two.stage);
    let scope = RequestScope::user(two.other);
    let kind = StoreErrorKind::NotFound;
    assert_kind(store.device(&scope, stage.device).await, kind);
    assert_kind(store.lead(&scope, two.lead.id).await, kind);
    assert_kind(store.campaign(&scope, stage.campaign).await, kind);
    assert_kind(store.saved_text(&scope, two.saved.id).await, kind);
    assert_kind(store.message(&scope, two.message).await, kind);
    assert_kind(store.attempts(&scope, two.message).await, kind);
    assert_kind(store.device_numbers(&scope, stage.device).await, kind);
    assert_kind(store.command(&scope, two.command.id).await, kind);
    assert_kind(store.import(&scope, two.import.id).await, kind);
    let of = MessageScope::Campaign(stage.campaign);
    assert_kind(store.numbers(&scope, of).await, kind);
    assert_kind(store.count(&scope, of).await, kind);
    let refusals = store.import_refusals(&scope, two.import.id, 0, 10).await;
    assert!(refusals.is_err() || refusals.is_ok_and(|rows| rows.is_empty()));
}

pub(super) async fn another_users_rows_are_in_no_list(world: World) {
    let two = two(&world).await;
    let store = &world.store;
    let person = world.rows.person(two.stage.user, &world.rows.phone(1));
    world.suppress(two.stage.user, world.rows.phone(1)).await;
    let scope = RequestScope::user(two.other);
    let leads = LeadFilter {
        phone: Some(two.lead.phone),
        ..LeadFilter::default()
    };
    for filter in [LeadFilter::default(), leads] {
        assert!(
            store
                .leads(&scope, &filter, &PageRequest::first(9))
                .await
                .unwrap()
                .rows
                .is_empty()
        );
        assert_eq!(store.lead_count(&scope, &filter).await.unwrap(), 0);
    }
    let by_device = MessageFilter {
        device_id: Some(two.stage.device),
        ..MessageFilter::default()
    };
    let by_scope = MessageFilter {
        scope: Some(MessageScope::Campaign(two.stage.campaign)),
        ..MessageFilter::default()
    };
    let by_lead = MessageFilter {
        lead_id: Some(two.lead.id),
        ..MessageFilter::default()
    };
    for filter in [MessageFilter::default(), by_device, by_scope, by_lead] {
        let page = store.messages(&scope, &filter, &PageRequest::first(9)).await.unwrap();
        assert!(page.rows.is_empty(), "{filter:?}");
    }
    assert!(
        store
            .devices(&scope, &PageRequest::first(9))
            .await
            .unwrap()
            .rows
            .is_empty()
    );
    let filter = CampaignFilter::default();
    assert!(
        store
            .campaigns(&scope, &filter, &PageRequest::first(9))
            .await
            .unwrap()
            .rows
            .is_empty()
    );
    assert!(
        store
            .saved_texts(&scope, &PageRequest::first(9))
            .await
            .unwrap()
            .rows
            .is_empty()
    );
    assert!(
        store
            .suppressions(&scope, &PageRequest::first(9))
            .await
            .unwrap()
            .rows
            .is_empty()
    );
    assert!(store.suppressed(two.other, &[person]).await.unwrap().is_empty());
    assert!(
        store
            .imports(&scope, &PageRequest::first(9))
            .await
            .unwrap()
            .rows
            .is_empty()
    );
    assert!(store.events(&scope, EventId::MIN, 9).await.unwrap().is_empty());
    assert!(store.niches(&scope).await.unwrap().is_empty());
    assert!(store.loads(two.other, world.now()).await.unwrap().is_empty());
    assert!(store.leads_by_id(two.other, &[two.lead.id]).await.unwrap().is_empty());
}

pub(super) async fn no_change_reaches_another_users_rows(world: World) {
    let two = two(&world).await;
    let (stage, other) = (&two.stage, two.other);
    let device = world.device_of(stage.user, stage.device).await;
    let campaign = world.campaign_of(stage.user, stage.campaign).await;
    let draft = world.draft(stage.user).await;
    let (unknown, _) = stage.unknown().await;
    let (device_id, campaign_id) = (stage.device, stage.campaign);
    let stolen = |mut device: crate::domain::device::Device| {
        device.user_id = other;
        Box::new(device)
    };
    let mut lead = two.lead.clone();
    lead.user_id = other;
    lead.device_id = None;
    let mut edited = campaign.clone();
    edited.user_id = other;
    let mut saved = two.saved.clone();
    saved.user_id = other;
    let changes = [
        Change::UpdateDevice(stolen(device.clone())),
        Change::DeleteDevice {
            user_id: other,
            device_id,
        },
        Change::SetDeviceLink {
            user_id: other,
            device_id,
            fence: None,
            state: LinkState::Error,
            reason: None,
            phone: None,
            jid: None,
        },
        Change::SetDeviceHold {
            user_id: other,
            device_id,
            hold: None,
        },
        Change::SetDeviceRestriction {
            user_id: other,
            device_id,
            restriction: None,
        },
        Change::SetDeviceNewChats {
            user_id: other,
            device_id,
            new_chats: None,
        },
        Change::UpdateLead(Box::new(lead)),
        Change::DeleteLead {
            user_id: other,
            lead_id: two.lead.id,
        },
        Change::UpdateCampaign(Box::new(edited)),
        Change::DeleteCampaign {
            user_id: other,
            campaign_id: draft.id,
        },
        set_status(other, campaign_id, &CampaignStatus::ALL, CampaignStatus::Paused),
        Change::MarkMessage {
            user_id: other,
            message_id: unknown,
            sent: true,
        },
        Change::CancelMessage {
            user_id: other,
            message_id: two.message,
        },
        Change::Receipt {
            user_id: other,
            device_id,
            message: MessageRef::NewestTo(two.lead.phone),
            delivery: Delivery::Read,
            at: world.now(),
        },
        Change::Replied {
            user_id: other,
            device_id,
            phone: two.lead.phone,
            person: world.rows.person(other, &two.lead.phone),
            provider_id: TransportMessageId::new("in").unwrap(),
            at: world.now(),
        },
        Change::TakenOver {
            user_id: other,
            device_id,
            phone: two.lead.phone,
            person: world.rows.person(other, &two.lead.phone),
            provider_id: TransportMessageId::new("own").unwrap(),
            at: world.now(),
        },
        Change::UpdateSavedText(Box::new(saved)),
        Change::DeleteSavedText {
            user_id: other,
            template_id: two.saved.id,
        },
        Change::InsertCommand(Box::new(world.rows.command(other, device_id))),
    ];
    let (message, unknown_row) = (stage.row(two.message).await, stage.row(unknown).await);
    for change in changes {
        world.refused(change, StoreErrorKind::NotFound).await;
    }
    assert_eq!(world.device_of(stage.user, device_id).await, device);
    assert_eq!(world.campaign_of(stage.user, campaign_id).await, campaign);
    assert_eq!(world.campaign_of(stage.user, draft.id).await, draft);
    assert_eq!(world.lead_of(stage.user, two.lead.id).await, two.lead);
    assert_eq!(stage.row(two.message).await, message);
    assert_eq!(stage.row(unknown).await, unknown_row);
    let scope = RequestScope::user(stage.user);
    assert_eq!(world.store.saved_text(&scope, two.saved.id).await.unwrap(), two.saved);
}

pub(super) async fn no_row_points_into_another_users_data(world: World) {
    let two = two(&world).await;
    let (stage, other) = (&two.stage, two.other);
    let their_device = world.device(other).await;
    let their_campaign = world.campaign(other).await;
    let kind = StoreErrorKind::NotFound;
    world
        .refused(insert_lead(&world.rows.lead(other, Some(stage.device))), kind)
        .await;
    let mut moved = world.lead(other, None).await;
    moved.device_id = Some(stage.device);
    world.refused(Change::UpdateLead(Box::new(moved)), kind).await;
    let mut sender = world.rows.campaign(other);
    sender.device_id = Some(stage.device);
    world.refused(Change::InsertCampaign(Box::new(sender)), kind).await;
    let mut audience = world.rows.campaign(other);
    audience.audience = Audience::Leads {
        niche: None,
        target: Default::default(),
        device_id: Some(stage.device),
    };
    world.refused(Change::InsertCampaign(Box::new(audience)), kind).await;

    let phone = world.rows.phone(1);
    let theirs = |campaign, device| world.rows.campaign_message(other, campaign, Some(device), phone);
    let foreign_device = theirs(their_campaign, stage.device);
    let foreign_campaign = theirs(stage.campaign, their_device);
    let mut foreign_lead = theirs(their_campaign, their_device);
    foreign_lead.lead_id = Some(two.lead.id);
    let mut foreign_past = theirs(their_campaign, their_device);
    foreign_past.supersedes = Some(two.message);
    for message in [foreign_device, foreign_campaign, foreign_lead, foreign_past] {
        let id = message.id;
        world.refused(Change::InsertMessages(vec![message]), kind).await;
        let read = world.store.message(&RequestScope::user(other), id).await;
        assert_kind(read, kind);
    }
    assert!(!stage.row(two.message).await.superseded);
}

pub(super) async fn forgetting_or_suppressing_a_person_stays_with_its_user(world: World) {
    let two = two(&world).await;
    let (stage, other) = (&two.stage, two.other);
    let erase = Change::ErasePerson {
        user_id: other,
        person: world.rows.person(other, &two.lead.phone),
        phone: two.lead.phone,
    };
    world.commit(erase).await;
    world.suppress(other, two.lead.phone).await;
    let lifted = Change::Unsuppress {
        user_id: other,
        person: world.rows.person(stage.user, &world.rows.phone(7)),
    };
    world.suppress(stage.user, world.rows.phone(7)).await;
    world.commit(lifted).await;
    assert_eq!(world.lead_of(stage.user, two.lead.id).await, two.lead);
    assert_eq!(stage.row(two.message).await.phone, Some(two.lead.phone));
    let person = world.rows.person(stage.user, &world.rows.phone(7));
    assert_eq!(world.store.suppressed(stage.user, &[person]).await.unwrap().len(), 1);
}

pub(super) async fn a_request_limited_to_some_devices_sees_no_more(world: World) {
    let stage = world.stage().await;
    let hidden = world.device(stage.user).await;
    let owned = world.claim(stage.node).await;
    assert_eq!(owned.len(), 1);
    let scope = RequestScope {
        user_id: stage.user,
        devices: Some(vec![stage.device]),
    };
    let seen_lead = world.lead(stage.user, Some(stage.device)).await;
    let (hidden_lead, pool_lead) = (
        world.lead(stage.user, Some(hidden)).await,
        world.lead(stage.user, None).await,
    );
    let seen = stage.queued().await;
    let rows = &world.rows;
    let elsewhere = world
        .insert(rows.campaign_message(stage.user, stage.campaign, Some(hidden), rows.fresh_phone()))
        .await;
    let pooled = world
        .insert(rows.campaign_message(stage.user, stage.campaign, None, rows.fresh_phone()))
        .await;
    let store = &world.store;
    store.device(&scope, stage.device).await.unwrap();
    let kind = StoreErrorKind::NotFound;
    assert_kind(store.device(&scope, hidden).await, kind);
    assert_kind(store.device_numbers(&scope, hidden).await, kind);
    let devices = store.devices(&scope, &PageRequest::first(9)).await.unwrap();
    assert_eq!(
        devices.rows.iter().map(|device| device.id).collect::<Vec<_>>(),
        [stage.device]
    );
    let leads = store
        .leads(&scope, &LeadFilter::default(), &PageRequest::first(9))
        .await
        .unwrap();
    assert_eq!(leads.rows, std::slice::from_ref(&seen_lead));
    assert_eq!(store.lead_count(&scope, &LeadFilter::default()).await.unwrap(), 1);
    store.lead(&scope, seen_lead.id).await.unwrap();
    for lead in [hidden_lead.id, pool_lead.id] {
        assert_kind(store.lead(&scope, lead).await, kind);
    }
    let messages = store
        .messages(&scope, &MessageFilter::default(), &PageRequest::first(9))
        .await
        .unwrap();
    assert_eq!(
        messages.rows.iter().map(|message| message.id).collect::<Vec<_>>(),
        [seen]
    );
    for message in [elsewhere, pooled] {
        assert_kind(store.message(&scope, message).await, kind);
        assert_kind(store.attempts(&scope, message).await, kind);
    }
    let of = MessageScope::Campaign(stage.campaign);
    for numbers in [
        store.numbers(&scope, of).await.unwrap(),
        store.count(&scope, of).await.unwrap(),
    ] {
        assert_eq!(numbers.len(), 1);
        assert_eq!(
            (numbers[0].device_id, numbers[0].numbers.should()),
            (Some(stage.device), 1)
        );
    }
    let command = rows.command(stage.user, hidden);
    world.commit(Change::InsertCommand(Box::new(command.clone()))).await;
    assert_kind(store.command(&scope, command.id).await, kind);
}

pub(super) async fn a_request_limited_to_no_device_sees_none(world: World) {
    let stage = world.stage().await;
    stage.queued().await;
    world.lead(stage.user, Some(stage.device)).await;
    let scope = RequestScope {
        user_id: stage.user,
        devices: Some(Vec::new()),
    };
    let store = &world.store;
    assert!(
        store
            .devices(&scope, &PageRequest::first(9))
            .await
            .unwrap()
            .rows
            .is_empty()
    );
    let (leads, messages) = (LeadFilter::default(), MessageFilter::default());
    assert!(
        store
            .leads(&scope, &leads, &PageRequest::first(9))
            .await
            .unwrap()
            .rows
            .is_empty()
    );
    assert!(
        store
            .messages(&scope, &messages, &PageRequest::first(9))
            .await
            .unwrap()
            .rows
            .is_empty()
    );
}

pub(super) async fn what_belongs_to_no_device_is_not_seen_by_a_request_limited_to_some(world: World) {
    let two = two(&world).await;
    let (store, stage) = (&world.store, &two.stage);
    let limited = RequestScope {
        user_id: stage.user,
        devices: Some(vec![stage.device]),
    };
    let mut own = world.rows.campaign(stage.user);
    own.device_id = Some(stage.device);
    world.commit(Change::InsertCampaign(Box::new(own.clone()))).await;
    world.suppress(stage.user, world.rows.phone(1)).await;
    let kind = StoreErrorKind::NotFound;
    store.campaign(&limited, own.id).await.unwrap();
    assert_kind(store.campaign(&limited, stage.campaign).await, kind);
    let filter = CampaignFilter::default();
    let campaigns = store
        .campaigns(&limited, &filter, &PageRequest::first(9))
        .await
        .unwrap();
    assert_eq!(
        campaigns.rows.iter().map(|campaign| campaign.id).collect::<Vec<_>>(),
        [own.id]
    );
    assert_kind(store.saved_text(&limited, two.saved.id).await, kind);
    assert_kind(store.import(&limited, two.import.id).await, kind);
    assert!(
        store
            .saved_texts(&limited, &PageRequest::first(9))
            .await
            .unwrap()
            .rows
            .is_empty()
    );
    assert!(
        store
            .imports(&limited, &PageRequest::first(9))
            .await
            .unwrap()
            .rows
            .is_empty()
    );
    assert!(
        store
            .suppressions(&limited, &PageRequest::first(9))
            .await
            .unwrap()
            .rows
            .is_empty()
    );
    let mut pool = world.rows.lead(stage.user, None);
    pool.niches = crate::domain::token::TokenSet::parse("exa").unwrap();
    world.insert_lead(&pool).await;
    assert!(store.niches(&limited).await.unwrap().is_empty());
}
