use std::time::Duration;

use super::world::{World, campaign_draft, conflict, missing, refused};
use crate::domain::campaign::CampaignStatus;
use crate::domain::message::{Message, MessageState, Reason};
use crate::engine::handle::{MarkAs, RecipientFilter, Resend, Resent};
use crate::id::{CampaignId, MessageId};
use crate::plan::FieldCode;
use crate::store::PageRequest;
use crate::transport::{MaybeSentCause, NotSentKind, SendError};

impl World {
    fn refuse_next(&self) {
        self.transport
            .answer_next(Err(SendError::not_sent(NotSentKind::Rejected, "no")));
    }

    async fn all(&self, id: CampaignId) -> Vec<Message> {
        let filter = RecipientFilter {
            with_superseded: true,
            ..RecipientFilter::default()
        };
        let page = self
            .handle
            .recipients(&self.user, id, &filter, &PageRequest::first(100))
            .await;
        page.unwrap().rows
    }
}

#[tokio::test]
async fn what_failed_is_sent_again_and_a_completed_campaign_runs_again() {
    let world = World::new().await;
    world.refuse_next();
    let (device, campaign) = world.campaign_of(3).await;
    assert_eq!(campaign.status, CampaignStatus::Completed);
    let before = world.handle.campaign_numbers(&world.user, campaign.id).await.unwrap();
    assert_eq!((before.should, before.total.done, before.total.failed), (3, 2, 1));
    let elsewhere = Resend {
        device_id: Some(crate::id::DeviceId::MIN),
        ..Resend::default()
    };
    let none = world
        .handle
        .resend_failed(&world.user, campaign.id, &elsewhere)
        .await
        .unwrap();
    assert_eq!(none, Resent::default());
    let own = Resend {
        device_id: Some(device.id),
        ..Resend::default()
    };
    let resent = world
        .handle
        .resend_failed(&world.user, campaign.id, &own)
        .await
        .unwrap();
    assert_eq!((resent.resent, resent.more), (1, false));
    let numbers = world.handle.campaign_numbers(&world.user, campaign.id).await.unwrap();
    assert_eq!(
        (numbers.status, numbers.should, numbers.total.remaining),
        (CampaignStatus::Triggered, 3, 1)
    );
    let again = world
        .handle
        .resend_failed(&world.user, campaign.id, &own)
        .await
        .unwrap();
    assert_eq!(again.resent, 0, "asking twice sends nothing twice");
    world.run().await;
    let numbers = world.handle.campaign_numbers(&world.user, campaign.id).await.unwrap();
    assert_eq!(
        (numbers.status, numbers.should, numbers.total.done),
        (CampaignStatus::Completed, 3, 3)
    );
    let rows = world.all(campaign.id).await;
    let next = rows.iter().find(|message| message.round == 1).unwrap();
    assert_eq!((rows.len(), next.state), (4, MessageState::Sent));
    assert!(
        rows.iter()
            .any(|message| Some(message.id) == next.supersedes && message.superseded)
    );
}

#[tokio::test]
async fn an_unknown_message_is_sent_again_only_when_it_is_named() {
    let world = World::new().await;
    world
        .transport
        .answer_next(Err(SendError::maybe_sent(MaybeSentCause::Timeout, "")));
    let (_, campaign) = world.campaign_of(1).await;
    let message = world.all(campaign.id).await.remove(0);
    assert_eq!(message.state, MessageState::Unknown);
    let all = world
        .handle
        .resend_failed(&world.user, campaign.id, &Resend::default())
        .await
        .unwrap();
    assert_eq!(all.resent, 0);
    let named = Resend {
        message_ids: Some(vec![message.id]),
        ..Resend::default()
    };
    let resent = world
        .handle
        .resend_failed(&world.user, campaign.id, &named)
        .await
        .unwrap();
    assert_eq!(resent.resent, 1);
    world.run().await;
    assert_eq!(world.states(campaign.id).await, [MessageState::Sent]);
    let unheard = Resend {
        message_ids: Some(vec![MessageId::MIN]),
        ..Resend::default()
    };
    assert_eq!(
        missing(world.handle.resend_failed(&world.user, campaign.id, &unheard).await),
        "message"
    );
    let many = Resend {
        message_ids: Some(vec![MessageId::MIN; 1_001]),
        ..Resend::default()
    };
    assert_eq!(
        refused(world.handle.resend_failed(&world.user, campaign.id, &many).await),
        [("message_ids".to_owned(), FieldCode::TooMany)]
    );
}

#[tokio::test]
async fn nothing_is_sent_again_to_a_lead_that_is_gone_or_in_a_campaign_that_was_ended() {
    let world = World::new().await;
    world.refuse_next();
    let (_, campaign) = world.campaign_of(1).await;
    let lead = world.all(campaign.id).await[0].lead_id.unwrap();
    world.handle.delete_lead(&world.user, lead).await.unwrap();
    let resent = world
        .handle
        .resend_failed(&world.user, campaign.id, &Resend::default())
        .await
        .unwrap();
    assert_eq!(resent.resent, 0);
    assert_eq!(world.status(campaign.id).await, CampaignStatus::Completed);
    let draft = world.draft(&campaign_draft()).await;
    let why = conflict(
        world
            .handle
            .resend_failed(&world.user, draft.id, &Resend::default())
            .await,
    );
    assert!(why.contains("it is draft"), "{why}");
    world.handle.cancel_campaign(&world.user, draft.id).await.unwrap();
    let why = conflict(
        world
            .handle
            .resend_failed(&world.user, draft.id, &Resend::default())
            .await,
    );
    assert!(why.contains("it is cancelled"), "{why}");
}

#[tokio::test]
async fn what_is_sent_again_while_the_campaign_is_paused_waits_with_it() {
    let world = World::new().await;
    world.refuse_next();
    let (device, campaign) = world.campaign_of(2).await;
    world.handle.hold_device(&world.user, device.id).await.unwrap();
    world
        .handle
        .resend_failed(&world.user, campaign.id, &Resend::default())
        .await
        .unwrap();
    world.handle.pause_campaign(&world.user, campaign.id).await.unwrap();
    world.run().await;
    let open = world
        .all(campaign.id)
        .await
        .into_iter()
        .find(|message| message.state.is_open())
        .unwrap();
    assert_eq!((open.state, open.round), (MessageState::Held, 1));
    let cancelled = world.handle.cancel_message(&world.user, open.id).await.unwrap();
    assert_eq!(
        (cancelled.state, cancelled.reason),
        (MessageState::Cancelled, Some(Reason::ByPerson))
    );
    let why = conflict(world.handle.cancel_message(&world.user, open.id).await);
    assert!(
        why.contains("it is cancelled; only a message that is queued or held"),
        "{why}"
    );
    assert_eq!(
        missing(world.handle.cancel_message(&world.other, open.id).await),
        "message"
    );
}

#[tokio::test]
async fn an_unknown_message_is_marked_by_a_person_once() {
    let world = World::new().await;
    for _ in 0..2 {
        world
            .transport
            .answer_next(Err(SendError::maybe_sent(MaybeSentCause::Timeout, "")));
    }
    let (_, campaign) = world.campaign_of(2).await;
    let rows = world.all(campaign.id).await;
    let (handle, user) = (&world.handle, &world.user);
    let sent = handle.mark_message(user, rows[0].id, MarkAs::Sent).await.unwrap();
    assert_eq!((sent.state, sent.reason), (MessageState::Sent, Some(Reason::ByPerson)));
    let failed = handle.mark_message(user, rows[1].id, MarkAs::Failed).await.unwrap();
    assert_eq!(failed.state, MessageState::Failed);
    let why = conflict(handle.mark_message(user, rows[1].id, MarkAs::Sent).await);
    assert!(
        why.contains("it is failed; only an unknown message can be marked"),
        "{why}"
    );
    let numbers = handle.campaign_numbers(user, campaign.id).await.unwrap();
    assert_eq!((numbers.total.done, numbers.total.failed, numbers.should), (1, 1, 2));
}

#[tokio::test]
async fn an_old_campaign_is_archived_and_whoever_would_change_it_is_told_so() {
    let world = World::new().await;
    world.refuse_next();
    let (_, campaign) = world.campaign_of(3).await;
    let id = campaign.id;
    let numbers = world.handle.campaign_numbers(&world.user, id).await.unwrap();
    let rows = world.all(id).await;
    let after = world.engine.core.config.archive_after;
    world.clock.advance(after - Duration::from_secs(60));
    assert_eq!(world.engine.archive().await.unwrap(), 0, "not before its time");
    world.clock.advance(Duration::from_secs(120));
    world.run().await;
    assert_eq!(world.engine.archive().await.unwrap(), 3);
    assert_eq!(world.engine.archive().await.unwrap(), 0);
    assert_eq!(world.handle.campaign_numbers(&world.user, id).await.unwrap(), numbers);
    assert_eq!(world.all(id).await, rows);

    let failed = rows
        .iter()
        .find(|message| message.state == MessageState::Failed)
        .unwrap();
    let resent = world.handle.resend_failed(&world.user, id, &Resend::default()).await;
    let marked = world.handle.mark_message(&world.user, failed.id, MarkAs::Sent).await;
    let paused = world.handle.pause_campaign(&world.user, id).await;
    for why in [conflict(resent), conflict(marked), conflict(paused)] {
        assert!(why.contains("archived since"), "{why}");
    }
    let copy = world.handle.clone_campaign(&world.user, id).await.unwrap();
    assert_eq!((copy.status, copy.archived_at), (CampaignStatus::Draft, None));
}
