//! What a lane may send next.

use std::collections::BTreeMap;
use std::time::Duration;

use super::stage::Stage;
use super::world::World;
use crate::domain::content::Content;
use crate::domain::message::MessageScope;
use crate::domain::pacing::DelayRange;
use crate::domain::token::TokenSet;
use crate::id::MessageId;
use crate::store::{Change, Due, DueMessage, LaneLook};

fn ids(heads: &[DueMessage]) -> Vec<MessageId> {
    heads.iter().map(|head| head.id).collect()
}

async fn queued_for(stage: &Stage, seconds: u64) -> MessageId {
    let mut message = stage.message_to(stage.world.rows.fresh_phone());
    message.due_at = stage.world.at(seconds);
    stage.world.insert(message).await
}

pub(super) async fn a_message_is_due_when_its_time_has_come(world: World) {
    let stage = world.stage().await;
    let id = queued_for(&stage, 10).await;
    assert!(stage.due_at(world.at(9)).await.is_empty());
    assert_eq!(ids(&stage.due_at(world.at(10)).await), [id]);
    let row = stage.row(id).await;
    assert_eq!(stage.due_at(world.at(10)).await, [DueMessage::of(&row, None, None)]);
}

pub(super) async fn a_due_message_tells_what_rendering_needs_of_its_lead_as_it_is_now(world: World) {
    let stage = world.stage().await;
    let mut lead = world.lead(stage.user, Some(stage.device)).await;
    let mut message = stage.message_to(lead.phone);
    message.lead_id = Some(lead.id);
    message.name = "another name".to_owned();
    message.custom = BTreeMap::from([("size".to_owned(), "own".to_owned())]);
    message.content = Some(Content::text("Hi {{name}}"));
    message.delay = DelayRange::new(Duration::from_secs(7)..=Duration::from_secs(9)).ok();
    let id = world.insert(message).await;
    let row = stage.row(id).await;
    lead.name = "Siti \"\\\u{1F642}\u{1}".to_owned();
    lead.custom = BTreeMap::from([("size".to_owned(), "XL".to_owned())]);
    lead.niches = TokenSet::parse("Hijab, eXa").unwrap();
    world.commit(Change::UpdateLead(Box::new(lead.clone()))).await;
    let told = DueMessage::of(&row, Some(&lead), None);
    assert_eq!(told.values.as_ref().unwrap().name, lead.name);
    assert_eq!(stage.due_at(world.now()).await, [told]);
    let (user_id, lead_id) = (stage.user, lead.id);
    world.commit(Change::DeleteLead { user_id, lead_id }).await;
    let due = stage.due_at(world.now()).await;
    assert_eq!(due, [DueMessage::of(&row, None, None)]);
    assert_eq!(due[0].values, None, "its lead is gone");
}

pub(super) async fn the_head_is_the_earliest_due_and_among_equals_the_smallest_id(world: World) {
    let stage = world.stage().await;
    let (late, first, second) = (
        queued_for(&stage, 20).await,
        queued_for(&stage, 10).await,
        queued_for(&stage, 10).await,
    );
    for expected in [first, second, late] {
        assert_eq!(ids(&stage.due_at(world.at(60)).await), [expected]);
        let attempt = stage.begin(expected).await;
        stage.settle(expected, attempt, super::stage::sent()).await;
    }
}

pub(super) async fn each_priority_has_its_head_the_most_urgent_first(world: World) {
    let stage = world.stage().await;
    let campaign = stage.queued().await;
    let mut chat = world
        .rows
        .direct_message(stage.user, Some(stage.device), world.rows.fresh_phone());
    chat.scope = MessageScope::Chat;
    chat.due_at = world.at(5);
    let chat = world.insert(chat).await;
    assert_eq!(ids(&stage.due_at(world.at(4)).await), [campaign]);
    assert_eq!(ids(&stage.due_at(world.at(5)).await), [chat, campaign]);
    let direct = stage.direct().await;
    assert_eq!(
        ids(&stage.due_at(world.at(5)).await),
        [direct, campaign],
        "one head per priority"
    );
}

pub(super) async fn campaigns_of_a_lane_take_turns(world: World) {
    let stage = world.stage().await;
    let mut campaigns = [
        stage.campaign,
        world.campaign(stage.user).await,
        world.campaign(stage.user).await,
    ];
    campaigns.sort_unstable();
    let mut heads = Vec::new();
    for (n, campaign) in campaigns.iter().enumerate() {
        // The first campaign has the most and the oldest: without turns the others would wait for all of it.
        for m in 0..3 - n as u64 {
            let phone = world.rows.fresh_phone();
            let mut message = world
                .rows
                .campaign_message(stage.user, *campaign, Some(stage.device), phone);
            message.due_at = world.at(n as u64 + m);
            let id = world.insert(message).await;
            if m == 0 {
                heads.push(id);
            }
        }
    }
    for (served, expected) in [
        (None, heads[0]),
        (Some(campaigns[0]), heads[1]),
        (Some(campaigns[1]), heads[2]),
        (Some(campaigns[2]), heads[0]),
    ] {
        let due = Due {
            lanes: vec![LaneLook { served, ..stage.look() }],
            now: world.at(60),
        };
        let lanes = world.store.due(&due).await.unwrap();
        assert_eq!(ids(&lanes[0].heads), [expected], "after {served:?}");
    }
}

pub(super) async fn a_campaign_that_is_not_due_is_passed_over_in_its_turn(world: World) {
    let stage = world.stage().await;
    let other = world.campaign(stage.user).await;
    let now = stage.queued().await;
    let mut later = world
        .rows
        .campaign_message(stage.user, other, Some(stage.device), world.rows.fresh_phone());
    later.due_at = world.at(60);
    world.insert(later).await;
    let due = Due {
        lanes: vec![LaneLook {
            served_sequence: None,
            served: Some(stage.campaign),
            ..stage.look()
        }],
        now: world.now(),
    };
    let lanes = world.store.due(&due).await.unwrap();
    assert_eq!(ids(&lanes[0].heads), [now]);
}

pub(super) async fn a_lane_with_nothing_due_says_when_to_look_again(world: World) {
    let stage = world.stage().await;
    queued_for(&stage, 90).await;
    queued_for(&stage, 30).await;
    let due = Due {
        lanes: vec![stage.look()],
        now: world.now(),
    };
    let lanes = world.store.due(&due).await.unwrap();
    assert!(lanes[0].heads.is_empty());
    assert_eq!(lanes[0].next_due_at, Some(world.at(30)));
}

pub(super) async fn lanes_are_answered_one_by_one_in_the_order_asked(world: World) {
    let stage = world.stage().await;
    let id = stage.queued().await;
    let (empty, other) = (world.device(stage.user).await, world.user().await);
    let look = |user_id, device_id| LaneLook {
        served_sequence: None,
        user_id,
        device_id,
        served: None,
    };
    let lanes = vec![
        look(stage.user, empty),
        look(stage.user, stage.device),
        look(other, stage.device),
    ];
    let due = Due {
        lanes,
        now: world.now(),
    };
    let lanes = world.store.due(&due).await.unwrap();
    let devices: Vec<_> = lanes.iter().map(|lane| lane.device_id).collect();
    assert_eq!(devices, [empty, stage.device, stage.device]);
    assert!(lanes[0].heads.is_empty() && lanes[0].next_due_at.is_none());
    assert_eq!(ids(&lanes[1].heads), [id]);
    assert!(lanes[2].heads.is_empty(), "another user's name opens no lane");
}

pub(super) async fn only_queued_messages_of_the_device_are_due(world: World) {
    use crate::domain::message::MessageState;
    for state in MessageState::ALL {
        let stage = world.stage().await;
        let id = super::outbox_insert::in_state(&stage, state).await;
        let due = ids(&stage.due_at(world.at(600)).await);
        let expected: &[MessageId] = if state == MessageState::Queued { &[id] } else { &[] };
        assert_eq!(due, expected, "{state:?}");
    }
    let stage = world.stage().await;
    let elsewhere = world.device(stage.user).await;
    for device in [None, Some(elsewhere)] {
        let phone = world.rows.fresh_phone();
        let message = world.rows.campaign_message(stage.user, stage.campaign, device, phone);
        world.insert(message).await;
    }
    assert!(stage.due_at(world.at(600)).await.is_empty());
}

pub(super) async fn looking_changes_nothing(world: World) {
    let stage = world.stage().await;
    let id = stage.queued().await;
    let before = stage.row(id).await;
    for _ in 0..3 {
        assert_eq!(ids(&stage.due_at(world.now()).await), [id]);
    }
    assert_eq!(stage.row(id).await, before);
}

pub(super) async fn a_due_message_tells_the_last_greeting_to_its_person(world: World) {
    let stage = world.stage().await;
    let other = world.campaign(stage.user).await;
    let phone = world.rows.phone(1);
    for (n, greeting) in [Some("Hai"), Some("Selamat pagi"), Some("Apa khabar")]
        .into_iter()
        .enumerate()
    {
        let mut message = world.rows.direct_message(stage.user, Some(stage.device), phone);
        message.key = crate::domain::message::IdempotencyKey::unique(message.id);
        let id = world.insert(message).await;
        let mut item = stage.item(id);
        item.greeting = greeting.map(str::to_owned);
        // The second was begun last.
        item.attempted_at = world.at([1, 9, 5][n]);
        assert_eq!(stage.try_begin(&item).await, crate::store::Begun::Yes);
        stage.settle(id, item.attempt_id, super::stage::sent()).await;
    }
    let next = world
        .rows
        .campaign_message(stage.user, other, Some(stage.device), phone);
    world.insert(next).await;
    let due = stage.due_at(world.now()).await;
    assert_eq!(due[0].previous_greeting.as_deref(), Some("Selamat pagi"));
    let stranger = world.stage().await;
    stranger.queued_to(phone).await;
    let due = stranger.due_at(world.now()).await;
    assert_eq!(due[0].previous_greeting, None, "another user's greetings are their own");
}
