use super::world::{World, conflict, lead_draft, missing, refused};
use crate::domain::access::RequestScope;
use crate::engine::handle::{BATCH_MAX, LeadCreated, LeadRow, LeadRowChange};
use crate::event::EventKind;
use crate::id::{DeviceId, LeadId};
use crate::plan::{Edit, FieldCode, LeadBulkEdit, LeadDraft, WebhookLead};
use crate::store::{LeadFilter, OnDuplicate};

#[tokio::test]
async fn a_lead_is_created_once_whatever_form_its_number_has() {
    let world = World::new().await;
    let device = world.device("a").await;
    world.heard.take();
    let lead = world.lead(&device, "0123456789").await;
    assert!(matches!(world.heard.take()[..], [ref event] if event.kind == EventKind::LeadCreated { lead_id: lead.id }));
    for form in ["123456789", "+60123456789", "60123456789@c.us"] {
        let draft = lead_draft(&device, form);
        let refused = world.handle.create_lead(&world.user, &draft, OnDuplicate::Refuse).await;
        assert!(conflict(refused).contains(&lead.id.to_string()));
        let merged = world
            .handle
            .create_lead(&world.user, &draft, OnDuplicate::MergeTriggers)
            .await;
        assert_eq!(
            merged.unwrap(),
            LeadCreated::Existing {
                lead: lead.clone(),
                merged: false
            }
        );
    }
    assert!(world.heard.take().is_empty(), "a duplicate is no news");
}

#[tokio::test]
async fn triggers_of_a_duplicate_are_added_to_the_lead_that_is_there() {
    let world = World::new().await;
    let device = world.device("a").await;
    let with = |trigger: &str| LeadDraft {
        trigger: Some(trigger.to_owned()),
        ..lead_draft(&device, "0123456789")
    };
    world
        .handle
        .create_lead(&world.user, &with("a"), OnDuplicate::Refuse)
        .await
        .unwrap();
    let again = world
        .handle
        .create_lead(&world.user, &with("B, a"), OnDuplicate::MergeTriggers)
        .await;
    let LeadCreated::Existing { lead, merged: true } = again.unwrap() else {
        panic!("it was there and gets a trigger");
    };
    assert_eq!(lead.triggers.to_string(), "a,B");
}

#[tokio::test]
async fn a_lead_of_a_foreign_device_names_the_field_beside_all_others() {
    let world = World::new().await;
    let device = world.device("a").await;
    let mut draft = lead_draft(&device, "x");
    draft.target_status = Some("y".to_owned());
    let result = world
        .handle
        .create_lead(&world.other, &draft, OnDuplicate::Refuse)
        .await;
    assert_eq!(
        refused(result),
        [
            ("device_id".to_owned(), FieldCode::NotFound),
            ("phone".to_owned(), FieldCode::Invalid),
            ("target_status".to_owned(), FieldCode::Unknown)
        ]
    );
    let limited = RequestScope {
        devices: Some(vec![device.id]),
        ..world.user.clone()
    };
    let mut pool = lead_draft(&device, "0123456789");
    assert!(
        world
            .handle
            .create_lead(&limited, &pool, OnDuplicate::Refuse)
            .await
            .is_ok()
    );
    pool.device_id = None;
    let result = world.handle.create_lead(&limited, &pool, OnDuplicate::Refuse).await;
    assert_eq!(refused(result), [("device_id".to_owned(), FieldCode::Required)]);
}

#[tokio::test]
async fn a_webhook_lead_needs_user_and_device_that_belong_together_and_may_be_repeated() {
    let world = World::new().await;
    let device = world.device("a").await;
    let sent = WebhookLead {
        user_id: Some(world.user.user_id.to_string()),
        device_id: Some(device.id.to_string()),
        name: Some("Ali".to_owned()),
        phone: Some("0123456789".to_owned()),
        niche: Some("Vitac".to_owned()),
        trigger: Some("start".to_owned()),
        target_status: None,
    };
    let LeadCreated::Created(lead) = world.handle.create_lead_by_webhook(&sent).await.unwrap() else {
        panic!("it is new");
    };
    assert_eq!(
        (lead.niches.to_string().as_str(), lead.device_id),
        ("Vitac", Some(device.id))
    );
    assert_eq!(lead.consent.map(|consent| consent.source), Some("webhook".to_owned()));
    let again = world.handle.create_lead_by_webhook(&sent).await.unwrap();
    assert!(matches!(again, LeadCreated::Existing { lead: ref existing, merged: false } if existing.id == lead.id));
    for mismatch in [
        WebhookLead {
            user_id: Some(world.other.user_id.to_string()),
            ..sent.clone()
        },
        WebhookLead {
            device_id: Some(DeviceId::MIN.to_string()),
            ..sent.clone()
        },
    ] {
        assert_eq!(missing(world.handle.create_lead_by_webhook(&mismatch).await), "device");
    }
    let bad = WebhookLead {
        phone: Some("12".to_owned()),
        ..sent
    };
    let fields = refused(world.handle.create_lead_by_webhook(&bad).await);
    assert_eq!(fields, [("phone".to_owned(), FieldCode::Invalid)]);
}

#[tokio::test]
async fn a_batch_takes_what_is_valid_and_tells_the_rest_row_by_row() {
    let world = World::new().await;
    let device = world.device("a").await;
    let there = world.lead(&device, "0123456780").await;
    let mut foreign = lead_draft(&device, "0123456785");
    foreign.device_id = Some(DeviceId::MIN);
    let drafts = [
        lead_draft(&device, "0123456781"),
        lead_draft(&device, "x"),
        lead_draft(&device, "0123456780"),
        lead_draft(&device, "+60123456781"),
        foreign,
        lead_draft(&device, "0123456782"),
    ];
    let rows = world.handle.create_leads(&world.user, &drafts).await.unwrap();
    let [
        LeadRow::Created(first),
        LeadRow::Refused(bad),
        LeadRow::Duplicate {
            existing,
            merged: false,
        },
        LeadRow::Duplicate { existing: twice, .. },
        LeadRow::Refused(stray),
        LeadRow::Created(_),
    ] = &rows[..]
    else {
        panic!("{rows:?}");
    };
    assert_eq!((existing, twice), (&there.id, first));
    assert_eq!((bad[0].field.as_ref(), stray[0].field.as_ref()), ("phone", "device_id"));
    let again = world.handle.create_leads(&world.user, &drafts).await.unwrap();
    assert!(!again.iter().any(|row| matches!(row, LeadRow::Created(_))), "{again:?}");
    let count = world
        .handle
        .store()
        .lead_count(&world.user, &LeadFilter::default())
        .await;
    assert_eq!(count.unwrap(), 3);
    let many = vec![LeadDraft::default(); BATCH_MAX + 1];
    assert_eq!(
        refused(world.handle.create_leads(&world.user, &many).await)[0].1,
        FieldCode::TooMany
    );
}

#[tokio::test]
async fn a_lead_is_edited_at_the_version_that_was_read() {
    let world = World::new().await;
    let device = world.device("a").await;
    let lead = world.lead(&device, "0123456789").await;
    let other = world.lead(&device, "0123456788").await;
    let named = |name: &str| LeadDraft {
        name: Some(name.to_owned()),
        ..LeadDraft::from(&lead)
    };
    let edited = world
        .handle
        .edit_lead(&world.user, lead.id, &Edit::new(lead.version, named("Siti")))
        .await;
    assert_eq!(edited.unwrap().name, "Siti");
    let stale = world
        .handle
        .edit_lead(&world.user, lead.id, &Edit::new(lead.version, named("Ali")))
        .await;
    assert!(conflict(stale).contains("version 1 was given, it is at version 2"));
    let same = Edit::new(other.version, LeadDraft::from(&lead));
    assert!(conflict(world.handle.edit_lead(&world.user, other.id, &same).await).contains("another lead"));
    let foreign = world.handle.edit_lead(&world.other, lead.id, &same).await;
    assert_eq!(missing(foreign), "lead");
    world.handle.delete_lead(&world.user, lead.id).await.unwrap();
    assert_eq!(missing(world.handle.delete_lead(&world.user, lead.id).await), "lead");
}

#[tokio::test]
async fn a_change_to_many_spoils_none_for_the_sake_of_one() {
    let world = World::new().await;
    let device = world.device("a").await;
    let first = world.lead(&device, "0123456781").await;
    // Without its niche it would be the same as the first.
    let mut niche = lead_draft(&device, "0123456781");
    niche.niche = Some("x".to_owned());
    let twin = world
        .handle
        .create_lead(&world.user, &niche, OnDuplicate::Refuse)
        .await
        .unwrap();
    let third = world.lead(&device, "0123456783").await;
    let ids = [first.id, twin.lead().id, LeadId::MIN, third.id];
    let edit = LeadBulkEdit {
        niche: Some(String::new()),
        add_tags: Some("vip".to_owned()),
        ..LeadBulkEdit::default()
    };
    let changed = world.handle.edit_leads(&world.user, &ids, &edit).await.unwrap();
    use LeadRowChange::{Conflict, Done, NotFound, Unchanged};
    let outcomes: Vec<_> = changed.into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(outcomes, [Done, Conflict, NotFound, Done]);
    let again = world.handle.edit_leads(&world.user, &[first.id], &edit).await.unwrap();
    assert_eq!(again, [(first.id, Unchanged)]);
    assert_eq!(
        world.handle.edit_leads(&world.other, &[first.id], &edit).await.unwrap(),
        [(first.id, NotFound)]
    );
    let gone = world.handle.delete_leads(&world.user, &ids).await.unwrap();
    let outcomes: Vec<_> = gone.into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(outcomes, [Done, Done, NotFound, Done]);
    let foreign = LeadBulkEdit {
        device_id: Some(Some(DeviceId::MIN)),
        ..LeadBulkEdit::default()
    };
    assert_eq!(
        refused(world.handle.edit_leads(&world.user, &ids, &foreign).await)[0].0,
        "device_id"
    );
}

#[tokio::test]
async fn a_lead_whose_commit_lost_its_answer_is_created_and_no_duplicate_of_itself() {
    let world = World::new().await;
    let device = world.device("a").await;
    let lead = world.lead(&device, "0123456789").await;
    let again = world
        .handle
        .insert_lead(lead.clone(), OnDuplicate::Refuse)
        .await
        .unwrap();
    assert_eq!(again, LeadCreated::Created(lead));
}
