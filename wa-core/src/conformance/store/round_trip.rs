//! Everything reads back as it was written, byte by byte, whatever is in it.

use std::time::Duration;

use super::world::World;
use crate::conformance::fixtures::{AWKWARD, Fixtures};
use crate::domain::access::{RequestScope, UserSettings};
use crate::domain::audience::{Audience, AudienceCursor, TargetFilter};
use crate::domain::campaign::Routing;
use crate::domain::command::{DeviceAnswer, DeviceAsk};
use crate::domain::content::{Content, Media, MediaKind, MediaSource};
use crate::domain::message::{IdempotencyKey, MessageScope};
use crate::domain::phone::Phone;
use crate::domain::schedule::{LatePolicy, TimeZone};
use crate::domain::suppression::{OptOutWords, Suppression, SuppressionReason};
use crate::id::LeadId;
use crate::store::{Begun, Change, PageRequest};
use crate::time::Timestamp;
use crate::transport::TransportMessageId;

pub(super) async fn a_device_reads_back_as_it_was_inserted(world: World) {
    let user = world.user().await;
    for device in [world.rows.rich_device(user), world.rows.device(user)] {
        world.insert_device(&device).await;
        assert_eq!(world.device_of(user, device.id).await, device);
        assert_eq!(world.store.owned(&[device.id]).await.unwrap()[0].device, device);
        if !device.hook_token.is_empty() {
            assert_eq!(world.store.device_by_hook(&device.hook_token).await.unwrap(), device);
        }
    }
}

pub(super) async fn a_lead_reads_back_as_it_was_inserted(world: World) {
    let user = world.user().await;
    let device = world.device(user).await;
    for lead in [world.rows.rich_lead(user, Some(device)), world.rows.lead(user, None)] {
        world.insert_lead(&lead).await;
        let read = world.lead_of(user, lead.id).await;
        assert_eq!(read, lead);
        // Equal words may be spelled differently.
        for (read, written) in [
            (&read.niches, &lead.niches),
            (&read.triggers, &lead.triggers),
            (&read.tags, &lead.tags),
        ] {
            assert!(read.is_spelled_as(written), "{read:?} was written as {written:?}");
        }
        let listed = world.store.leads_by_id(user, &[lead.id]).await.unwrap();
        assert_eq!(listed, std::slice::from_ref(&lead));
    }
}

pub(super) async fn a_campaign_reads_back_as_it_was_inserted(world: World) {
    let user = world.user().await;
    let device = world.device(user).await;
    let rich = world.rows.rich_campaign(user, device);
    let mut entries = world.rows.campaign(user);
    entries.audience = Audience::Entries;
    entries.cursor = AudienceCursor::Entry(u32::MAX);
    entries.routing = Routing::Balanced;
    entries.late_policy = LatePolicy::Run;
    let mut bare = world.rows.campaign(user);
    (bare.date, bare.time, bare.scheduled_at) = (None, None, None);
    bare.audience = Audience::Leads {
        niche: None,
        target: TargetFilter::Prospect,
        device_id: None,
    };
    bare.content = Content::text("").with_media(Media::new(
        MediaKind::Image,
        MediaSource::Url("https://x.test/?a='b'&c=%20".to_owned()),
    ));
    for campaign in [rich, entries, bare] {
        world.commit(Change::InsertCampaign(Box::new(campaign.clone()))).await;
        let read = world.campaign_of(user, campaign.id).await;
        assert_eq!(read, campaign);
        let spelled = format!("{:?}", campaign.audience);
        assert_eq!(format!("{:?}", read.audience), spelled, "the niche keeps its spelling");
        let by_id = world.store.campaigns_by_id(&[campaign.id]).await.unwrap();
        assert_eq!(by_id, std::slice::from_ref(&campaign));
    }
}

pub(super) async fn entries_read_back_as_they_were_inserted(world: World) {
    let user = world.user().await;
    let campaign = world.draft(user).await.id;
    let entries = vec![
        world.rows.rich_entry(campaign, 1),
        world.rows.entry(campaign, 2),
        world.rows.rich_entry(campaign, u32::MAX),
    ];
    world.commit(Change::InsertEntries(entries.clone())).await;
    assert_eq!(world.store.entries_page(campaign, 0, 10).await.unwrap(), entries);
}

pub(super) async fn a_message_reads_back_as_it_was_inserted(world: World) {
    let stage = world.stage().await;
    let lead = world.lead(stage.user, Some(stage.device)).await;
    let rich = world.rows.rich_message(stage.user, stage.device, lead.id);
    let plain = stage.message_to(world.rows.fresh_phone());
    let mut chat = world
        .rows
        .direct_message(stage.user, Some(stage.device), world.rows.fresh_phone());
    chat.scope = MessageScope::Chat;
    let mut bot = world
        .rows
        .direct_message(stage.user, Some(stage.device), world.rows.fresh_phone());
    bot.scope = MessageScope::Bot;
    let pool = world
        .rows
        .campaign_message(stage.user, stage.campaign, None, world.rows.fresh_phone());
    for message in [rich, plain, chat, bot, pool] {
        let id = world.insert(message.clone()).await;
        assert_eq!(stage.row(id).await, message);
    }
}

pub(super) async fn an_attempt_reads_back_as_it_was_begun(world: World) {
    let stage = world.stage().await;
    let message = stage.queued().await;
    let mut item = stage.item(message);
    item.text = format!("{AWKWARD}{}", Fixtures::long_text(65_536));
    item.greeting = Some("صباح الخير, 'dear'".to_owned());
    item.transport_message_id = TransportMessageId::new("x".repeat(TransportMessageId::LEN_MAX)).unwrap();
    item.attempted_at = world.at(12) + Duration::from_millis(345);
    assert_eq!(stage.try_begin(&item).await, Begun::Yes);
    let attempt = stage.row(message).await.attempt.unwrap();
    assert_eq!(attempt.id, item.attempt_id);
    assert_eq!(attempt.transport_message_id, item.transport_message_id);
    assert_eq!(attempt.provider_id, None);
    assert_eq!((attempt.device_id, attempt.epoch), (stage.device, stage.epoch));
    assert_eq!(attempt.text, item.text);
    assert_eq!(attempt.greeting, item.greeting);
    assert_eq!(attempt.attempted_at, item.attempted_at);
    let log = world
        .store
        .attempts(&RequestScope::user(stage.user), message)
        .await
        .unwrap();
    assert_eq!(log, [attempt]);
}

pub(super) async fn a_suppression_reads_back_as_it_was_inserted(world: World) {
    let user = world.user().await;
    let suppressions = [
        Suppression {
            note: AWKWARD.to_owned(),
            reason: SuppressionReason::Imported,
            ..world.rows.suppression(user, world.rows.phone(1))
        },
        Suppression {
            phone: None,
            note: String::new(),
            reason: SuppressionReason::Erased,
            ..world.rows.suppression(user, world.rows.phone(2))
        },
    ];
    for suppression in suppressions {
        world.commit(Change::Suppress(suppression.clone())).await;
        let read = world.store.suppressed(user, &[suppression.person]).await.unwrap();
        assert_eq!(read, [suppression]);
    }
}

pub(super) async fn a_saved_text_reads_back_as_it_was_inserted(world: World) {
    let user = world.user().await;
    let mut saved = world.rows.saved_text(user);
    saved.name = "Teks '1' 漢".to_owned();
    saved.content = world.rows.rich_content();
    world.commit(Change::InsertSavedText(Box::new(saved.clone()))).await;
    let read = world
        .store
        .saved_text(&RequestScope::user(user), saved.id)
        .await
        .unwrap();
    assert_eq!(read, saved);
}

pub(super) async fn a_request_to_a_device_reads_back_with_its_answer(world: World) {
    let stage = world.stage().await;
    let phones: Vec<Phone> = (0..100).map(|n| world.rows.phone(n)).collect();
    for ask in [
        DeviceAsk::Link { phone: None },
        DeviceAsk::Link { phone: Some(phones[3]) },
        DeviceAsk::Refresh,
        DeviceAsk::Disconnect,
        DeviceAsk::Logout,
        DeviceAsk::CheckNumbers { phones },
        DeviceAsk::Probe,
    ] {
        let mut command = world.rows.command(stage.user, stage.device);
        command.ask = ask;
        world.commit(Change::InsertCommand(Box::new(command.clone()))).await;
        let scope = RequestScope::user(stage.user);
        assert_eq!(world.store.command(&scope, command.id).await.unwrap(), command);
        command.answer = DeviceAnswer::Done {
            result: serde_json::json!({"text": AWKWARD, "list": [1, null, true], "big": u64::MAX}),
        };
        let answer = Change::AnswerCommand {
            command_id: command.id,
            fence: crate::store::Fence {
                incarnation: stage.node,
                epoch: stage.epoch,
            },
            answer: command.answer.clone(),
        };
        world.commit(answer).await;
        assert_eq!(world.store.command(&scope, command.id).await.unwrap(), command);
    }
}

pub(super) async fn a_user_reads_back_as_inserted(world: World) {
    let mut user = world.rows.user();
    user.login = "süß+tag'@例え.test".to_owned();
    user.name = AWKWARD.to_owned();
    user.active = false;
    user.settings = UserSettings {
        time_zone: TimeZone::KUALA_LUMPUR,
        region: "SG".parse().unwrap(),
        opt_out_words: OptOutWords::new(["tidak", "نہیں", "o'no"]),
        randomizer: true,
        webhook_token_hash: Some("ab".repeat(32)),
    };
    user.updated_at = world.at(1);
    world.store.insert_user(&user).await.unwrap();
    super::access::assert_same_user(&world.store.user(user.id).await.unwrap(), &user);
    let by_login = world.store.user_by_login(&user.login).await.unwrap().unwrap();
    super::access::assert_same_user(&by_login, &user);
}

pub(super) async fn an_event_of_every_kind_reads_back(world: World) {
    use crate::domain::campaign::{CampaignReason, CampaignStatus};
    use crate::domain::device::{HoldReason, LinkState, NewChatsWarning, RestrictionCause};
    use crate::domain::message::{MessageState, Reason};
    use crate::event::EventKind;
    use crate::id::{CampaignId, ChatId, CommandId, DeviceId, EventId, MessageId};
    let user = world.user().await;
    let (ids, now) = (world.rows.ids(), world.now());
    let device_id = DeviceId::new(ids, now);
    let kinds = [
        EventKind::CampaignStatus {
            campaign_id: CampaignId::new(ids, now),
            status: CampaignStatus::Paused,
            reason: Some(CampaignReason::ErrorRate),
        },
        EventKind::MessageState {
            message_id: MessageId::new(ids, now),
            device_id: None,
            state: MessageState::Skipped,
            reason: Some(Reason::TooLong),
        },
        EventKind::LeadCreated {
            lead_id: LeadId::new(ids, now),
        },
        EventKind::OptedOut {
            lead_id: None,
            reason: SuppressionReason::OptOutWord,
        },
        EventKind::Reply {
            device_id,
            message_id: Some(MessageId::new(ids, now)),
            chat_id: Some(ChatId::new(ids, now)),
        },
        EventKind::DeviceLink {
            device_id,
            state: LinkState::QrReady,
        },
        EventKind::DeviceHold {
            device_id,
            reason: Some(HoldReason::Unauthenticated),
        },
        EventKind::TakenOver { device_id },
        EventKind::DeviceRestriction {
            device_id,
            scope: crate::transport::RestrictionScope::Cold,
            cause: RestrictionCause::Timelock,
            until_at: world.at(60),
        },
        EventKind::DeviceNewChats {
            device_id,
            warning: Some(NewChatsWarning::Second),
        },
        EventKind::DeviceAnswered {
            command_id: CommandId::new(ids, now),
            device_id,
        },
    ];
    let mut set = crate::store::ChangeSet::default();
    for kind in kinds {
        set = set.tell(crate::event::Event {
            id: EventId::new(ids, now),
            user_id: user,
            kind,
            at: now,
        });
    }
    let told = set.events.clone();
    world.commit(set).await;
    let read = world
        .store
        .events(&RequestScope::user(user), EventId::MIN, 100)
        .await
        .unwrap();
    assert_eq!(read, told);
}

pub(super) async fn instants_keep_their_milliseconds_from_the_first_to_the_last(world: World) {
    let stage = world.stage().await;
    for (n, at) in [
        Timestamp::EPOCH,
        Timestamp::from_millis(1),
        Timestamp::from_millis(4_102_444_800_999),
        Timestamp::FAR_FUTURE,
    ]
    .into_iter()
    .enumerate()
    {
        let mut message = stage.message_to(world.rows.phone(n as u32));
        (message.due_at, message.expires_at) = (at, at);
        message.key = IdempotencyKey::unique(message.id);
        let id = world.insert(message.clone()).await;
        assert_eq!(stage.row(id).await, message);
    }
}

pub(super) async fn the_longest_lists_of_a_commit_are_taken_whole(world: World) {
    let stage = world.stage().await;
    let messages: Vec<_> = (0..1_000).map(|n| stage.message_to(world.rows.phone(n))).collect();
    let ids: Vec<_> = messages.iter().map(|message| message.id).collect();
    let done = world.commit(Change::InsertMessages(messages)).await;
    assert_eq!(done.messages_inserted, 1_000);
    let scope = RequestScope::user(stage.user);
    let page = PageRequest::first(1_000);
    let listed = world.store.messages(&scope, &Default::default(), &page).await.unwrap();
    assert_eq!(listed.rows.iter().map(|message| message.id).collect::<Vec<_>>(), ids);
    assert_eq!(listed.next, None);
}
