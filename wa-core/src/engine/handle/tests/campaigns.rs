use std::time::Duration;

use super::world::{START, World, campaign_draft, conflict, lead_draft, missing, refused};
use crate::domain::campaign::{CampaignReason, CampaignStatus};
use crate::domain::content::MediaKind;
use crate::domain::message::MessageState;
use crate::engine::handle::Person;
use crate::event::EventKind;
use crate::id::DeviceId;
use crate::plan::{CampaignDraft, Edit, EntryDraft, FieldCode, MediaDraft, SaveAs, SavedTextDraft, WarningCode};
use crate::store::{CampaignFilter, PageRequest};
use crate::time::Timestamp;
use crate::transport::{Capabilities, MediaLimit, StubTransport};

#[tokio::test]
async fn a_scheduled_campaign_starts_at_its_time_and_adds_up() {
    let world = World::new().await;
    let device = world.device("a").await;
    for number in 0..3 {
        world.lead(&device, &format!("012345678{number}")).await;
    }
    let saved = world
        .handle
        .create_campaign(&world.user, &campaign_draft(), SaveAs::Scheduled)
        .await
        .unwrap();
    assert_eq!(
        (saved.campaign.status, saved.warnings.len()),
        (CampaignStatus::Scheduled, 0)
    );
    assert_eq!(
        world
            .handle
            .audience_size(&world.user, saved.campaign.id)
            .await
            .unwrap(),
        3
    );
    let id = saved.campaign.id;
    world.run().await;
    assert_eq!(world.status(id).await, CampaignStatus::Scheduled, "never early");
    world.clock.advance(Duration::from_secs(3_600));
    world.run().await;
    assert_eq!(world.status(id).await, CampaignStatus::Completed);
    let numbers = world.handle.campaign_numbers(&world.user, id).await.unwrap();
    assert_eq!((numbers.should, numbers.total.done, numbers.expanding), (3, 3, false));
    let report = world.handle.device_report(&world.user, id).await.unwrap();
    assert_eq!(
        (report.len(), report[0].name.as_deref(), report[0].numbers.done),
        (1, Some("a"), 3)
    );
    assert_eq!(
        world.handle.device_numbers(&world.user, device.id).await.unwrap().done,
        3
    );
    assert_eq!(
        missing(world.handle.campaign_numbers(&world.other, id).await),
        "campaign"
    );
}

#[tokio::test]
async fn devices_of_others_are_refused_by_field_beside_everything_else() {
    let world = World::new().await;
    let draft = CampaignDraft {
        title: None,
        device_id: Some(DeviceId::MIN),
        audience_device_id: Some(world.device("a").await.id),
        ..campaign_draft()
    };
    let fields = refused(world.handle.create_campaign(&world.other, &draft, SaveAs::Draft).await);
    assert_eq!(
        fields,
        [
            ("title".to_owned(), FieldCode::Required),
            ("device_id".to_owned(), FieldCode::NotFound),
            ("audience_device_id".to_owned(), FieldCode::NotFound)
        ]
    );
}

#[tokio::test]
async fn a_campaign_in_the_past_is_kept_as_a_draft_and_not_scheduled() {
    let world = World::new().await;
    let past = CampaignDraft {
        time: Some("08:00".to_owned()),
        ..campaign_draft()
    };
    let fields = refused(
        world
            .handle
            .create_campaign(&world.user, &past, SaveAs::Scheduled)
            .await,
    );
    assert_eq!(fields, [("date".to_owned(), FieldCode::Past)]);
    let draft = world.draft(&past).await;
    let fields = refused(world.handle.schedule_campaign(&world.user, draft.id).await);
    assert_eq!(fields, [("date".to_owned(), FieldCode::Past)]);
    // Ten minutes late is on time.
    let just = CampaignDraft {
        time: Some("08:50".to_owned()),
        ..campaign_draft()
    };
    let draft = world.draft(&just).await;
    assert!(world.handle.schedule_campaign(&world.user, draft.id).await.is_ok());
}

#[tokio::test]
async fn warnings_tell_what_will_be_skipped_and_that_nobody_is_there() {
    let world = World::with(StubTransport::new().with_capabilities(Capabilities::text(1_024))).await;
    let long = CampaignDraft {
        message: Some("x".repeat(5_000)),
        ..campaign_draft()
    };
    let saved = world
        .handle
        .create_campaign(&world.user, &long, SaveAs::Scheduled)
        .await
        .unwrap();
    let codes: Vec<_> = saved.warnings.iter().map(|warning| warning.code).collect();
    assert_eq!(codes, [WarningCode::NoDevice, WarningCode::NobodyMatches]);
    let device = world.device("a").await;
    world.lead(&device, "0123456789").await;
    let saved = world
        .handle
        .create_campaign(&world.user, &long, SaveAs::Scheduled)
        .await
        .unwrap();
    let codes: Vec<_> = saved.warnings.iter().map(|warning| warning.code).collect();
    assert_eq!(codes, [WarningCode::TooLong]);
    world
        .handle
        .start_campaign_now(&world.user, saved.campaign.id)
        .await
        .unwrap();
    world.run().await;
    assert_eq!(
        world.states(saved.campaign.id).await,
        [MessageState::Skipped],
        "as it was warned"
    );
}

#[tokio::test]
async fn media_must_be_carried_by_every_device_that_could_send_it() {
    let image = MediaLimit {
        kind: MediaKind::Image,
        mimes: Vec::new(),
        size_max_bytes: 1_000,
        caption_max: 100,
        by_url: true,
        by_bytes: false,
    };
    let picture = CampaignDraft {
        media: Some(MediaDraft::url("https://pictures.test/a.jpg")),
        ..campaign_draft()
    };
    let text_only = World::with(StubTransport::new().with_capabilities(Capabilities::text(100))).await;
    text_only.device("a").await;
    let fields = refused(
        text_only
            .handle
            .create_campaign(&text_only.user, &picture, SaveAs::Draft)
            .await,
    );
    assert_eq!(fields, [("media".to_owned(), FieldCode::Unsupported)]);
    let capabilities = Capabilities {
        media: vec![image],
        ..Capabilities::text(100)
    };
    let world = World::with(StubTransport::new().with_capabilities(capabilities)).await;
    world.device("a").await;
    assert!(
        world
            .handle
            .create_campaign(&world.user, &picture, SaveAs::Draft)
            .await
            .is_ok()
    );
    let stored = CampaignDraft {
        media: Some(MediaDraft::stored(crate::id::MediaId::MIN)),
        ..campaign_draft()
    };
    let fields = refused(world.handle.create_campaign(&world.user, &stored, SaveAs::Draft).await);
    assert_eq!(
        fields,
        [("media".to_owned(), FieldCode::Invalid)],
        "no media store is configured"
    );
}

#[tokio::test]
async fn a_campaign_moves_only_as_its_status_allows_and_says_what_it_is() {
    let world = World::new().await;
    let device = world.device("a").await;
    world.lead(&device, "0123456789").await;
    let id = world.draft(&campaign_draft()).await.id;
    let (handle, user) = (&world.handle, &world.user);
    let why = conflict(handle.pause_campaign(user, id).await);
    assert_eq!(
        why,
        "campaign: it is draft; only campaigns that are triggered can be paused"
    );
    assert!(conflict(handle.resume_campaign(user, id).await).contains("only campaigns that are paused"));
    assert!(conflict(handle.unschedule_campaign(user, id).await).contains("only campaigns that are scheduled"));
    handle.schedule_campaign(user, id).await.unwrap();
    let campaign = handle.unschedule_campaign(user, id).await.unwrap();
    assert_eq!(campaign.status, CampaignStatus::Draft);
    handle.hold_device(user, device.id).await.unwrap();
    handle.start_campaign_now(user, id).await.unwrap();
    world.run().await;
    assert_eq!(world.status(id).await, CampaignStatus::Triggered);
    let again = conflict(handle.start_campaign_now(user, id).await);
    assert!(again.contains("draft or scheduled can be started"), "{again}");
    assert!(conflict(handle.delete_campaign(user, id).await).contains("it is triggered"));
    assert!(conflict(handle.schedule_campaign(user, id).await).contains("triggered"));
    world.heard.take();
    let paused = handle.pause_campaign(user, id).await.unwrap();
    assert_eq!(
        (paused.status, paused.reason),
        (CampaignStatus::Paused, Some(CampaignReason::ByPerson))
    );
    world.run().await;
    assert_eq!(world.states(id).await, [MessageState::Held]);
    handle.resume_campaign(user, id).await.unwrap();
    world.run().await;
    assert_eq!(world.states(id).await, [MessageState::Queued]);
    handle.cancel_campaign(user, id).await.unwrap();
    world.run().await;
    assert_eq!(world.states(id).await, [MessageState::Cancelled]);
    assert!(conflict(handle.cancel_campaign(user, id).await).contains("it is cancelled"));
    assert!(world.transport.sent().is_empty());
    let told: Vec<_> = world
        .heard
        .take()
        .into_iter()
        .filter_map(|event| match event.kind {
            EventKind::CampaignStatus { status, .. } => Some(status),
            _ => None,
        })
        .collect();
    assert_eq!(
        told,
        [
            CampaignStatus::Paused,
            CampaignStatus::Triggered,
            CampaignStatus::Cancelled
        ]
    );
}

#[tokio::test]
async fn a_campaign_is_edited_only_while_it_stands_still() {
    let world = World::new().await;
    let device = world.device("a").await;
    world.lead(&device, "0123456789").await;
    let campaign = world.draft(&campaign_draft()).await;
    let (handle, user) = (&world.handle, &world.user);
    handle.hold_device(user, device.id).await.unwrap();
    handle.start_campaign_now(user, campaign.id).await.unwrap();
    world.run().await;
    let running = world.campaign(campaign.id).await;
    let changed = |version| {
        Edit::new(
            version,
            CampaignDraft {
                message: Some("Bye {{name}}".to_owned()),
                ..CampaignDraft::from(&running)
            },
        )
    };
    let why = conflict(handle.edit_campaign(user, campaign.id, &changed(running.version)).await);
    assert!(why.contains("draft or scheduled or paused can be edited"), "{why}");
    let paused = handle.pause_campaign(user, campaign.id).await.unwrap();
    let stale = conflict(handle.edit_campaign(user, campaign.id, &changed(running.version)).await);
    assert!(stale.contains("version"), "{stale}");
    let saved = handle
        .edit_campaign(user, campaign.id, &changed(paused.version))
        .await
        .unwrap();
    assert_eq!(saved.campaign.content_version, paused.content_version + 1);
    handle.resume_campaign(user, campaign.id).await.unwrap();
    handle.resume_device(user, device.id).await.unwrap();
    world.run().await;
    let sent = world.transport.sent();
    assert!(
        sent.len() == 1 && sent[0].text.contains("Bye"),
        "what has not begun gets the new text"
    );
}

#[tokio::test]
async fn a_clone_is_a_draft_of_the_same_with_its_uploaded_recipients() {
    let world = World::new().await;
    let device = world.device("a").await;
    let draft = CampaignDraft {
        audience: Some("entries".to_owned()),
        device_id: Some(device.id),
        niche: None,
        ..campaign_draft()
    };
    let scheduled = world
        .handle
        .create_campaign(&world.user, &draft, SaveAs::Scheduled)
        .await;
    assert_eq!(refused(scheduled), [("audience".to_owned(), FieldCode::NotAllowed)]);
    let campaign = world.draft(&draft).await;
    let entry = |phone: &str, message: Option<&str>| EntryDraft {
        phone: phone.to_owned(),
        name: Some("Ali".to_owned()),
        message: message.map(str::to_owned),
        ..EntryDraft::default()
    };
    let batch = [
        entry("0123456781", Some("Own text")),
        entry("x", None),
        entry("0123456782", None),
    ];
    let uploaded = world
        .handle
        .upload_entries(&world.user, campaign.id, 1, &batch)
        .await
        .unwrap();
    assert_eq!((uploaded.taken, uploaded.refused[0].0), (2, 2));
    world
        .handle
        .upload_entries(&world.user, campaign.id, 1, &batch)
        .await
        .unwrap();
    let copy = world.handle.clone_campaign(&world.user, campaign.id).await.unwrap();
    assert_eq!(
        (copy.title.as_str(), copy.status, copy.date),
        ("Sale (copy)", CampaignStatus::Draft, None)
    );
    for id in [campaign.id, copy.id] {
        assert_eq!(
            world.handle.audience_size(&world.user, id).await.unwrap(),
            2,
            "the same batch adds nothing"
        );
        world.handle.start_campaign_now(&world.user, id).await.unwrap();
    }
    world.run().await;
    assert_eq!(world.states(copy.id).await, [MessageState::Sent, MessageState::Sent]);
    let own = world
        .transport
        .sent()
        .iter()
        .filter(|sent| sent.text.contains("Own text"))
        .count();
    assert_eq!(own, 2);
    let late = world.handle.upload_entries(&world.user, campaign.id, 4, &batch).await;
    assert!(conflict(late).contains("only campaigns that are draft can be given recipients"));
    let leads = world.draft(&campaign_draft()).await;
    assert!(conflict(world.handle.upload_entries(&world.user, leads.id, 1, &batch).await).contains("leads"));
    let zero = world.draft(&draft).await;
    assert_eq!(
        refused(world.handle.upload_entries(&world.user, zero.id, 0, &batch).await)[0].0,
        "position"
    );
}

#[tokio::test]
async fn only_a_campaign_that_never_started_is_deleted() {
    let world = World::new().await;
    let campaign = world.draft(&campaign_draft()).await;
    assert_eq!(
        missing(world.handle.delete_campaign(&world.other, campaign.id).await),
        "campaign"
    );
    world.handle.delete_campaign(&world.user, campaign.id).await.unwrap();
    let filter = CampaignFilter::default();
    let left = world
        .handle
        .store()
        .campaigns(&world.user, &filter, &PageRequest::first(10))
        .await;
    assert!(left.unwrap().rows.is_empty());
}

#[tokio::test]
async fn a_preview_shows_what_the_lead_would_get_and_why_not() {
    let world = World::with(StubTransport::new().with_capabilities(Capabilities::text(30))).await;
    let device = world.device("a").await;
    let lead = world.lead(&device, "0123456789").await;
    let short = CampaignDraft {
        greeting: Some(false),
        ..campaign_draft()
    };
    let campaign = world.draft(&short).await;
    let preview = world
        .handle
        .preview_campaign(&world.user, campaign.id, lead.id)
        .await
        .unwrap();
    assert_eq!((preview.text.as_str(), preview.warnings.len()), ("Hi Aminah", 0));
    let long = world
        .draft(&CampaignDraft {
            message: Some("x".repeat(31)),
            ..short.clone()
        })
        .await;
    world
        .handle
        .opt_out(&world.user, &Person::Lead(lead.id), "asked")
        .await
        .unwrap();
    let preview = world
        .handle
        .preview_campaign(&world.user, long.id, lead.id)
        .await
        .unwrap();
    let codes: Vec<_> = preview.warnings.iter().map(|warning| warning.code).collect();
    assert_eq!(codes, [WarningCode::TooLong, WarningCode::Suppressed]);
    let mut pool = lead_draft(&device, "0123456788");
    pool.device_id = None;
    let pool = world
        .handle
        .create_lead(&world.user, &pool, crate::store::OnDuplicate::Refuse)
        .await
        .unwrap();
    let preview = world
        .handle
        .preview_campaign(&world.user, campaign.id, pool.lead().id)
        .await
        .unwrap();
    assert_eq!(preview.warnings[0].code, WarningCode::NoDevice);
}

#[tokio::test]
async fn progress_tells_the_expected_end_and_who_waits() {
    let world = World::new().await;
    let (ready, waiting) = (world.device("a").await, world.device("b").await);
    world.lead(&ready, "0123456781").await;
    world.lead(&waiting, "0123456782").await;
    let campaign = world.draft(&campaign_draft()).await;
    let (handle, user) = (&world.handle, &world.user);
    let progress = handle.campaign_progress(user, campaign.id).await.unwrap();
    assert_eq!(progress.expected_end_at, None);
    for device in [&ready, &waiting] {
        handle.hold_device(user, device.id).await.unwrap();
    }
    handle.start_campaign_now(user, campaign.id).await.unwrap();
    world.run().await;
    handle.resume_device(user, ready.id).await.unwrap();
    let progress = handle.campaign_progress(user, campaign.id).await.unwrap();
    assert_eq!(progress.waiting_devices, [waiting.id]);
    let end = progress.expected_end_at.unwrap();
    assert!(end >= handle.now() && end > Timestamp::from_millis(START), "{end}");
    assert_eq!(progress.numbers.total.remaining, 2);
    handle.pause_campaign(user, campaign.id).await.unwrap();
    let progress = handle.campaign_progress(user, campaign.id).await.unwrap();
    assert_eq!(progress.expected_end_at, None);
}

#[tokio::test]
async fn a_pool_without_a_device_that_can_send_is_said_to_wait() {
    let world = World::new().await;
    let device = world.device("a").await;
    world.lead(&device, "0123456781").await;
    let pool = CampaignDraft {
        routing: Some("balanced".to_owned()),
        ..campaign_draft()
    };
    let campaign = world.draft(&pool).await;
    world.handle.hold_device(&world.user, device.id).await.unwrap();
    world.handle.start_campaign_now(&world.user, campaign.id).await.unwrap();
    world.run().await;
    let progress = world.handle.campaign_progress(&world.user, campaign.id).await.unwrap();
    assert!(
        progress.pool_waits && progress.expected_end_at.is_none(),
        "{progress:?}"
    );
    world.handle.resume_device(&world.user, device.id).await.unwrap();
    world.run().await;
    assert_eq!(world.status(campaign.id).await, CampaignStatus::Completed);
}

#[tokio::test]
async fn saved_texts_have_names_of_their_own_and_versions() {
    let world = World::new().await;
    let draft = |name: &str| SavedTextDraft {
        name: Some(name.to_owned()),
        message: Some("Hi {{name}}".to_owned()),
        media: None,
    };
    let (handle, user) = (&world.handle, &world.user);
    let first = handle.create_saved_text(user, &draft("Hello")).await.unwrap();
    let second = handle.create_saved_text(user, &draft("Other")).await.unwrap();
    assert!(conflict(handle.create_saved_text(user, &draft("hello")).await).contains("another saved text"));
    let taken = Edit::new(second.version, draft("Hello"));
    assert!(conflict(handle.edit_saved_text(user, second.id, &taken).await).contains("another saved text"));
    let edited = handle
        .edit_saved_text(user, first.id, &Edit::new(first.version, draft("Hey")))
        .await
        .unwrap();
    assert_eq!((edited.name.as_str(), edited.version), ("Hey", first.version + 1));
    let stale = Edit::new(first.version, draft("Hey"));
    assert!(conflict(handle.edit_saved_text(user, first.id, &stale).await).contains("version"));
    assert_eq!(
        missing(handle.delete_saved_text(&world.other, first.id).await),
        "saved text"
    );
    handle.delete_saved_text(user, first.id).await.unwrap();
}
