//! Campaigns: status, versions, cursor, audience, completion; and saved texts.

use super::world::{World, insert_lead, set_status};
use crate::domain::access::RequestScope;
use crate::domain::audience::{Audience, AudienceCursor, AudienceLead, TargetFilter};
use crate::domain::campaign::{Campaign, CampaignReason, CampaignStatus};
use crate::domain::content::Content;
use crate::domain::lead::TargetStatus;
use crate::domain::message::{IdempotencyKey, MessageState, Reason};
use crate::domain::token::{Token, TokenSet};
use crate::event::{Event, EventKind};
use crate::id::{CampaignId, EventId, LeadId, UserId};
use crate::store::{CampaignFilter, Change, ChangeSet, PageRequest, StoreErrorKind};
use crate::time::Timestamp;

use CampaignStatus::{Cancelled, Completed, Draft, Failed, Paused, Scheduled, Triggered};

const ANY: &[CampaignStatus] = &CampaignStatus::ALL;

fn update(campaign: &Campaign) -> Change {
    Change::UpdateCampaign(Box::new(campaign.clone()))
}

fn delete(user_id: UserId, campaign_id: CampaignId) -> Change {
    Change::DeleteCampaign { user_id, campaign_id }
}

fn advance(campaign_id: CampaignId, from: AudienceCursor, to: AudienceCursor) -> Change {
    Change::AdvanceCursor { campaign_id, from, to }
}

/// A campaign that came to a status on a way that people take.
async fn in_status(world: &World, user: UserId, status: CampaignStatus) -> CampaignId {
    let way: &[CampaignStatus] = match status {
        Draft => &[],
        Scheduled => &[Scheduled],
        Triggered => &[Scheduled, Triggered],
        Paused => &[Scheduled, Triggered, Paused],
        Completed => &[Scheduled, Triggered, Completed],
        Failed => &[Scheduled, Failed],
        Cancelled => &[Cancelled],
    };
    let id = world.draft(user).await.id;
    for to in way {
        world.commit(set_status(user, id, ANY, *to)).await;
    }
    assert_eq!(world.campaign_of(user, id).await.status, status);
    id
}

pub(super) async fn an_update_writes_what_is_given_and_the_next_version(world: World) {
    let user = world.user().await;
    let device = world.device(user).await;
    let draft = world.draft(user).await;
    let mut rich = Campaign {
        id: draft.id,
        created_at: draft.created_at,
        version: draft.version,
        ..world.rows.rich_campaign(user, device)
    };
    rich.status = Scheduled;
    world.commit_at(update(&rich), rich.updated_at).await;
    let read = world.campaign_of(user, rich.id).await;
    rich.version += 1;
    assert_eq!(read, rich, "status and cursor too, so that scheduling is one change");
}

pub(super) async fn an_update_of_an_older_version_is_refused(world: World) {
    let user = world.user().await;
    let mut draft = world.draft(user).await;
    world.commit(update(&draft)).await;
    draft.title = "Late".to_owned();
    world.refused(update(&draft), StoreErrorKind::Conflict).await;
    assert_ne!(world.campaign_of(user, draft.id).await.title, "Late");
}

pub(super) async fn a_change_of_status_makes_an_edit_begun_before_it_late(world: World) {
    let user = world.user().await;
    let id = world.campaign(user).await;
    let read = world.campaign_of(user, id).await;
    world.commit(set_status(user, id, &[Triggered], Paused)).await;
    world.refused(update(&read), StoreErrorKind::Conflict).await;
    assert_eq!(world.campaign_of(user, id).await.status, Paused);
}

pub(super) async fn a_campaign_moves_only_as_the_table_of_statuses_allows(world: World) {
    let user = world.user().await;
    for from in CampaignStatus::ALL {
        for to in CampaignStatus::ALL {
            let id = in_status(&world, user, from).await;
            let before = world.campaign_of(user, id).await;
            let change = set_status(user, id, ANY, to);
            if from == to || from.can_become(to) {
                world.commit(change).await;
                assert_eq!(world.campaign_of(user, id).await.status, to, "{from:?} -> {to:?}");
            } else {
                world.refused(change, StoreErrorKind::Conflict).await;
                assert_eq!(world.campaign_of(user, id).await, before, "{from:?} -> {to:?}");
            }
        }
    }
}

pub(super) async fn an_edit_moves_a_status_only_as_the_table_allows(world: World) {
    let user = world.user().await;
    for from in CampaignStatus::ALL {
        for to in CampaignStatus::ALL {
            let id = in_status(&world, user, from).await;
            let before = world.campaign_of(user, id).await;
            let mut edited = before.clone();
            edited.status = to;
            if from == to || from.can_become(to) {
                world.commit(update(&edited)).await;
                assert_eq!(world.campaign_of(user, id).await.status, to, "{from:?} -> {to:?}");
            } else {
                world.refused(update(&edited), StoreErrorKind::Conflict).await;
                assert_eq!(world.campaign_of(user, id).await, before, "{from:?} -> {to:?}");
            }
        }
    }
}

pub(super) async fn a_status_changes_only_from_those_that_are_named(world: World) {
    let user = world.user().await;
    let id = world.campaign(user).await;
    world
        .refused(
            set_status(user, id, &[Draft, Scheduled, Paused], Cancelled),
            StoreErrorKind::Conflict,
        )
        .await;
    world
        .refused(set_status(user, id, &[], Cancelled), StoreErrorKind::Conflict)
        .await;
    assert_eq!(world.campaign_of(user, id).await.status, Triggered);
}

pub(super) async fn naming_the_present_status_changes_its_reason_alone(world: World) {
    let user = world.user().await;
    let id = in_status(&world, user, Scheduled).await;
    let before = world.campaign_of(user, id).await;
    let change = Change::SetCampaignStatus {
        user_id: user,
        campaign_id: id,
        from: &[Scheduled],
        to: Scheduled,
        reason: Some(CampaignReason::LateAsk),
    };
    world.commit_at(change, world.at(9)).await;
    let after = world.campaign_of(user, id).await;
    let expected = Campaign {
        reason: Some(CampaignReason::LateAsk),
        status_at: world.at(9),
        version: before.version + 1,
        ..before
    };
    assert_eq!(after, expected);
    assert_eq!(
        world.store.next_campaign_at().await.unwrap(),
        None,
        "a person decides now"
    );
}

pub(super) async fn a_change_of_status_records_reason_and_instants(world: World) {
    let user = world.user().await;
    let id = world.draft(user).await.id;
    let change = |seconds, to| {
        let change = set_status(user, id, ANY, to);
        let world = world.clone();
        async move {
            world.commit_at(change, world.at(seconds)).await;
            world.campaign_of(user, id).await
        }
    };
    let scheduled = change(1, Scheduled).await;
    assert_eq!((scheduled.status_at, scheduled.started_at), (world.at(1), None));
    assert_eq!(scheduled.reason, Some(CampaignReason::ByPerson));
    let started = change(2, Triggered).await;
    assert_eq!(
        (started.status_at, started.started_at),
        (world.at(2), Some(world.at(2)))
    );
    assert_eq!((started.paused_at, started.ended_at), (None, None));
    let paused = change(3, Paused).await;
    assert_eq!(
        (paused.paused_at, paused.started_at),
        (Some(world.at(3)), Some(world.at(2)))
    );
    let resumed = change(4, Triggered).await;
    assert_eq!(
        (resumed.resumed_at, resumed.started_at),
        (Some(world.at(4)), Some(world.at(2)))
    );
    let ended = change(5, Cancelled).await;
    assert_eq!((ended.ended_at, ended.status_at), (Some(world.at(5)), world.at(5)));
}

pub(super) async fn only_a_campaign_that_never_started_can_be_deleted(world: World) {
    let user = world.user().await;
    for status in CampaignStatus::ALL {
        let id = in_status(&world, user, status).await;
        let never_started = matches!(status, Draft | Scheduled | Cancelled);
        if never_started {
            world.commit(delete(user, id)).await;
            let read = world.store.campaign(&RequestScope::user(user), id).await;
            super::world::assert_kind(read, StoreErrorKind::NotFound);
        } else if status != Failed {
            world.refused(delete(user, id), StoreErrorKind::Conflict).await;
            world.campaign_of(user, id).await;
        }
    }
    let id = in_status(&world, user, Triggered).await;
    world.commit(set_status(user, id, ANY, Cancelled)).await;
    world.refused(delete(user, id), StoreErrorKind::Conflict).await;
}

pub(super) async fn a_deleted_campaign_takes_its_entries_along(world: World) {
    let user = world.user().await;
    let id = world.draft(user).await.id;
    world.commit(Change::InsertEntries(vec![world.rows.entry(id, 1)])).await;
    world.commit(delete(user, id)).await;
    assert!(world.store.entries_page(id, 0, 10).await.unwrap().is_empty());
}

pub(super) async fn campaigns_are_listed_newest_first_and_filtered(world: World) {
    let user = world.user().await;
    let mut campaigns = Vec::new();
    for (n, title) in ["Raya PROMO", "50% off", "Other"].into_iter().enumerate() {
        let mut campaign = world.rows.campaign(user);
        campaign.title = title.to_owned();
        campaign.scheduled_at = Some(world.at(n as u64 * 100));
        world.commit(Change::InsertCampaign(Box::new(campaign.clone()))).await;
        campaigns.push(campaign.id);
    }
    world.commit(set_status(user, campaigns[1], ANY, Scheduled)).await;
    let by = CampaignFilter::default;
    let rows = [
        (by(), vec![campaigns[2], campaigns[1], campaigns[0]]),
        (
            CampaignFilter {
                statuses: vec![Scheduled, Paused],
                ..by()
            },
            vec![campaigns[1]],
        ),
        (
            CampaignFilter {
                from: Some(world.at(100)),
                ..by()
            },
            vec![campaigns[2], campaigns[1]],
        ),
        (
            CampaignFilter {
                until: Some(world.at(100)),
                ..by()
            },
            vec![campaigns[0]],
        ),
        (
            CampaignFilter {
                search: Some("promo".to_owned()),
                ..by()
            },
            vec![campaigns[0]],
        ),
        (
            CampaignFilter {
                search: Some("%".to_owned()),
                ..by()
            },
            vec![campaigns[1]],
        ),
        (
            CampaignFilter {
                search: Some("_".to_owned()),
                ..by()
            },
            vec![],
        ),
    ];
    for (filter, expected) in rows {
        let page = PageRequest::first(10);
        let listed = world
            .store
            .campaigns(&RequestScope::user(user), &filter, &page)
            .await
            .unwrap();
        let ids: Vec<_> = listed.rows.iter().map(|campaign| campaign.id).collect();
        assert_eq!(ids, expected, "{filter:?}");
    }
}

pub(super) async fn campaigns_are_found_by_id_for_the_engine_whoever_owns_them(world: World) {
    let (user, other) = (world.user().await, world.user().await);
    let (mine, theirs) = (world.draft(user).await, world.draft(other).await);
    let missing = CampaignId::new(world.rows.ids(), world.now());
    let mut found = world
        .store
        .campaigns_by_id(&[theirs.id, missing, mine.id])
        .await
        .unwrap();
    found.sort_by_key(|campaign| campaign.id);
    assert_eq!(found, [mine, theirs]);
}

async fn scheduled_for(world: &World, user: UserId, at: Timestamp, reason: Option<CampaignReason>) -> CampaignId {
    let mut campaign = world.rows.campaign(user);
    campaign.scheduled_at = Some(at);
    campaign.reason = reason;
    world.commit(Change::InsertCampaign(Box::new(campaign.clone()))).await;
    campaign.status = Scheduled;
    world.commit(update(&campaign)).await;
    campaign.id
}

pub(super) async fn scheduled_campaigns_are_due_oldest_first_when_their_time_has_come(world: World) {
    let (user, other) = (world.user().await, world.user().await);
    let third = scheduled_for(&world, user, world.at(30), None).await;
    let first = scheduled_for(&world, other, world.at(10), None).await;
    let second = scheduled_for(&world, user, world.at(20), None).await;
    scheduled_for(&world, user, world.at(5), Some(CampaignReason::LateAsk)).await;
    world.draft(user).await;
    let due = |seconds, limit| {
        let world = world.clone();
        async move {
            let due = world.store.campaigns_due(world.at(seconds), limit).await.unwrap();
            due.iter().map(|campaign| campaign.id).collect::<Vec<_>>()
        }
    };
    assert!(due(9, 10).await.is_empty());
    assert_eq!(due(10, 10).await, [first]);
    assert_eq!(due(29, 10).await, [first, second]);
    assert_eq!(due(30, 10).await, [first, second, third]);
    assert_eq!(due(30, 2).await, [first, second]);
}

pub(super) async fn the_next_start_is_that_of_the_earliest_scheduled_campaign(world: World) {
    let user = world.user().await;
    assert_eq!(world.store.next_campaign_at().await.unwrap(), None);
    world.draft(user).await;
    scheduled_for(&world, user, world.at(5), Some(CampaignReason::LateAsk)).await;
    assert_eq!(
        world.store.next_campaign_at().await.unwrap(),
        None,
        "one that waits for a person is not waited for by the engine"
    );
    scheduled_for(&world, user, world.at(30), None).await;
    scheduled_for(&world, user, world.at(20), None).await;
    assert_eq!(world.store.next_campaign_at().await.unwrap(), Some(world.at(20)));
}

pub(super) async fn running_campaigns_are_expanded_until_their_cursor_is_at_the_end(world: World) {
    let (user, other) = (world.user().await, world.user().await);
    let (first, second) = (world.expanding(user).await, world.expanding(other).await);
    let (paused, done) = (world.expanding(user).await, world.campaign(user).await);
    world.draft(user).await;
    world.commit(set_status(user, paused, &[Triggered], Paused)).await;
    let expanding = |limit| {
        let world = world.clone();
        async move {
            let found = world.store.campaigns_expanding(limit).await.unwrap();
            found.iter().map(|campaign| campaign.id).collect::<Vec<_>>()
        }
    };
    assert_eq!(expanding(10).await, [first, second]);
    assert_eq!(expanding(1).await, [first]);
    assert!(!expanding(10).await.contains(&done));
}

pub(super) async fn a_cursor_moves_only_from_where_it_stands(world: World) {
    let user = world.user().await;
    let id = world.expanding(user).await;
    let lead = LeadId::new(world.rows.ids(), world.now());
    let steps = [
        AudienceCursor::Start,
        AudienceCursor::Lead(lead),
        AudienceCursor::Entry(7),
        AudienceCursor::Done,
    ];
    for pair in steps.windows(2) {
        for wrong in steps.iter().filter(|step| **step != pair[0]) {
            world
                .refused(advance(id, *wrong, pair[1]), StoreErrorKind::Conflict)
                .await;
        }
        world.commit(advance(id, pair[0], pair[1])).await;
        assert_eq!(world.campaign_of(user, id).await.cursor, pair[1]);
    }
}

pub(super) async fn a_page_of_an_audience_cannot_pass_a_pause(world: World) {
    let user = world.user().await;
    for status in [Draft, Scheduled, Paused, Completed, Failed, Cancelled] {
        let id = in_status(&world, user, status).await;
        let page =
            ChangeSet::one(advance(id, AudienceCursor::Start, AudienceCursor::Done)).and(Change::InsertMessages(vec![
                world.rows.campaign_message(user, id, None, world.rows.phone(1)),
            ]));
        world.refused(page, StoreErrorKind::Conflict).await;
        assert_eq!(
            world.campaign_of(user, id).await.cursor,
            AudienceCursor::Start,
            "{status:?}"
        );
    }
}

pub(super) async fn a_cursor_is_no_edit_of_a_person(world: World) {
    let user = world.user().await;
    let id = world.expanding(user).await;
    let before = world.campaign_of(user, id).await;
    world.expanded(id).await;
    let after = world.campaign_of(user, id).await;
    assert_eq!(after.status_at, before.status_at);
    assert_eq!(after.updated_at, before.updated_at, "no person changed it");
}

pub(super) async fn a_campaign_without_open_messages_completes(world: World) {
    let stage = world.stage().await;
    stage.sent().await;
    let completed = world.complete(10, world.at(9)).await;
    assert_eq!(completed.len(), 1);
    let campaign = world.campaign_of(stage.user, stage.campaign).await;
    assert_eq!(completed[0], campaign);
    assert_eq!((campaign.status, campaign.ended_at), (Completed, Some(world.at(9))));
    assert_ne!(campaign.reason, Some(CampaignReason::NobodyMatched));
    assert!(world.complete(10, world.at(9)).await.is_empty());
}

pub(super) async fn a_campaign_that_nobody_matched_completes_and_says_so(world: World) {
    let user = world.user().await;
    let id = world.campaign(user).await;
    let completed = world.complete(10, world.now()).await;
    assert_eq!(completed[0].id, id);
    assert_eq!(completed[0].reason, Some(CampaignReason::NobodyMatched));
}

pub(super) async fn a_completion_and_the_event_that_tells_of_it_are_one_commit(world: World) {
    let user = world.user().await;
    for _ in 0..3 {
        world.campaign(user).await;
    }
    let ids: Vec<EventId> = (0..2).map(|_| EventId::new(world.rows.ids(), world.now())).collect();
    let completed = world.store.complete_campaigns(&ids, world.at(5)).await.unwrap();
    assert_eq!(completed.len(), 2, "as many as there are ids");
    let told: Vec<Event> = completed
        .iter()
        .zip(&ids)
        .map(|(campaign, id)| Event::campaign_status(*id, campaign, world.at(5)))
        .collect();
    let scope = RequestScope::user(user);
    assert_eq!(world.store.events(&scope, EventId::MIN, 10).await.unwrap(), told);
    assert!(matches!(
        told[0].kind,
        EventKind::CampaignStatus {
            status: Completed,
            reason: Some(CampaignReason::NobodyMatched),
            ..
        }
    ));
}

pub(super) async fn a_campaign_with_an_open_message_does_not_complete(world: World) {
    for state in [MessageState::Queued, MessageState::Sending, MessageState::InDoubt] {
        let stage = world.stage().await;
        stage.sent().await;
        match state {
            MessageState::Queued => drop(stage.queued().await),
            MessageState::Sending => drop(stage.sending().await),
            _ => drop(stage.in_doubt().await),
        }
        assert!(world.complete(10, world.now()).await.is_empty(), "{state:?}");
    }
    let stage = world.stage().await;
    stage.queued().await;
    stage.pause().await;
    world.sweep_at(world.now()).await;
    stage.resume().await;
    let held_until_swept = world.complete(10, world.now()).await;
    assert!(held_until_swept.is_empty(), "a held message is open");
}

pub(super) async fn a_campaign_is_not_called_completed_while_messages_of_it_are_open(world: World) {
    for state in [MessageState::Queued, MessageState::Sending, MessageState::InDoubt] {
        let stage = world.stage().await;
        match state {
            MessageState::Queued => drop(stage.queued().await),
            MessageState::Sending => drop(stage.sending().await),
            _ => drop(stage.in_doubt().await),
        }
        let completed = set_status(stage.user, stage.campaign, &[Triggered], Completed);
        world.refused(completed, StoreErrorKind::Conflict).await;
        let edited = Campaign {
            status: Completed,
            ..world.campaign_of(stage.user, stage.campaign).await
        };
        world
            .refused(Change::UpdateCampaign(Box::new(edited)), StoreErrorKind::Conflict)
            .await;
        let campaign = world.campaign_of(stage.user, stage.campaign).await;
        assert_eq!((campaign.status, campaign.ended_at), (Triggered, None), "{state:?}");
    }
    let stage = world.stage().await;
    stage.sent().await;
    stage.status(&[Triggered], Completed).await;
}

pub(super) async fn a_campaign_with_a_message_in_the_pool_does_not_complete(world: World) {
    let stage = world.stage().await;
    stage.sent().await;
    let phone = world.rows.fresh_phone();
    let pooled = world.rows.campaign_message(stage.user, stage.campaign, None, phone);
    world.insert(pooled).await;
    assert!(world.complete(10, world.now()).await.is_empty());
}

pub(super) async fn a_campaign_that_is_paused_or_still_expanded_does_not_complete(world: World) {
    let user = world.user().await;
    let paused = world.campaign(user).await;
    world.commit(set_status(user, paused, &[Triggered], Paused)).await;
    world.expanding(user).await;
    world.draft(user).await;
    assert!(world.complete(10, world.now()).await.is_empty());
}

pub(super) async fn as_many_campaigns_complete_as_are_asked_for(world: World) {
    let user = world.user().await;
    for _ in 0..5 {
        world.campaign(user).await;
    }
    for expected in [2, 2, 1, 0] {
        assert_eq!(world.complete(2, world.now()).await.len(), expected);
    }
}

pub(super) async fn an_audience_is_what_matches_exactly_by_id_and_up_to_a_limit(world: World) {
    let (user, other) = (world.user().await, world.user().await);
    let (one, two) = (world.device(user).await, world.device(user).await);
    let lead = |owner, device, niches: &str, status| {
        let mut lead = world.rows.lead(owner, device);
        lead.niches = TokenSet::parse(niches).unwrap();
        lead.target_status = status;
        lead
    };
    let all = [
        lead(user, Some(one), "exa", TargetStatus::Prospect),
        lead(user, Some(one), "exama", TargetStatus::Prospect),
        lead(user, Some(two), "emas,exa", TargetStatus::Prospect),
        lead(user, Some(one), "exa", TargetStatus::Customer),
        lead(user, None, "", TargetStatus::Customer),
        lead(other, None, "exa", TargetStatus::Prospect),
    ];
    for lead in &all {
        world.commit(insert_lead(lead)).await;
    }
    let exa = Token::parse("Exa").ok();
    let audiences = [
        (None, TargetFilter::All, None, vec![0, 1, 2, 3, 4]),
        (exa.clone(), TargetFilter::All, None, vec![0, 2, 3]),
        (exa.clone(), TargetFilter::Prospect, None, vec![0, 2]),
        (exa, TargetFilter::Customer, Some(one), vec![3]),
        (None, TargetFilter::All, Some(two), vec![2]),
    ];
    for (niche, target, device_id, expected) in audiences {
        let mut campaign = world.rows.campaign(user);
        campaign.audience = Audience::Leads {
            niche,
            target,
            device_id,
        };
        world.commit(Change::InsertCampaign(Box::new(campaign.clone()))).await;
        world.start(&campaign).await;
        let campaign = world.campaign_of(user, campaign.id).await;
        let expected: Vec<LeadId> = expected.into_iter().map(|n| all[n].id).collect();
        let mut seen = Vec::new();
        loop {
            let after = seen.last().copied().unwrap_or(LeadId::MIN);
            let page = world.store.audience_page(&campaign, after, 2).await.unwrap();
            assert!(page.len() <= 2);
            if page.is_empty() {
                break;
            }
            seen.extend(page.iter().map(|lead| lead.id));
        }
        assert_eq!(seen, expected, "{:?}", campaign.audience);
        let size = world.store.audience_size(&campaign).await.unwrap();
        assert_eq!(size, expected.len() as u64);
    }
}

pub(super) async fn leads_made_after_the_start_are_not_in_the_audience(world: World) {
    let user = world.user().await;
    let before = world.lead(user, None).await;
    let draft = world.draft(user).await;
    world.commit(set_status(user, draft.id, ANY, Scheduled)).await;
    world
        .commit_at(set_status(user, draft.id, ANY, Triggered), world.at(10))
        .await;
    let mut late = world.rows.lead(user, None);
    late.created_at = world.at(11);
    world.insert_lead(&late).await;
    let campaign = world.campaign_of(user, draft.id).await;
    let page = world.store.audience_page(&campaign, LeadId::MIN, 10).await.unwrap();
    assert_eq!(page, [AudienceLead::from(&before)]);
}

pub(super) async fn entries_are_paged_by_position_and_never_replaced(world: World) {
    let user = world.user().await;
    let mut campaign = world.rows.campaign(user);
    campaign.audience = Audience::Entries;
    world.commit(Change::InsertCampaign(Box::new(campaign.clone()))).await;
    let entries: Vec<_> = (1..=5).map(|n| world.rows.entry(campaign.id, n)).collect();
    world.commit(Change::InsertEntries(entries.clone())).await;
    let mut other = world.rows.entry(campaign.id, 3);
    other.name = "Another".to_owned();
    world
        .commit(Change::InsertEntries(vec![other, world.rows.entry(campaign.id, 6)]))
        .await;
    let page = |after, limit| world.store.entries_page(campaign.id, after, limit);
    assert_eq!(page(0, 2).await.unwrap(), entries[..2]);
    assert_eq!(page(2, 3).await.unwrap(), entries[2..], "what was there stays");
    assert_eq!(page(5, 3).await.unwrap().len(), 1);
    assert!(page(6, 3).await.unwrap().is_empty());
    assert_eq!(world.store.audience_size(&campaign).await.unwrap(), 6);
}

pub(super) async fn a_page_of_an_audience_is_as_long_as_it_is_asked_to_be(world: World) {
    const MANY: u32 = 1_100;
    let user = world.user().await;
    let device = world.device(user).await;
    let leads = (0..MANY).map(|_| world.rows.lead(user, Some(device)));
    let leads: Vec<_> = leads.map(|lead| insert_lead(&lead)).collect();
    world
        .commit(leads.into_iter().fold(ChangeSet::default(), ChangeSet::and))
        .await;
    let everybody = world.campaign_of(user, world.expanding(user).await).await;
    let page = world.store.audience_page(&everybody, LeadId::MIN, MANY + 1).await;
    assert_eq!(
        page.unwrap().len(),
        MANY as usize,
        "fewer than asked for would be all there are"
    );

    let mut listed = world.rows.campaign(user);
    listed.audience = Audience::Entries;
    let entries = (1..=MANY).map(|n| world.rows.entry(listed.id, n)).collect();
    let set = ChangeSet::one(Change::InsertCampaign(Box::new(listed.clone()))).and(Change::InsertEntries(entries));
    world.commit(set).await;
    let page = world.store.entries_page(listed.id, 0, MANY + 1).await;
    assert_eq!(page.unwrap().len(), MANY as usize);
}

pub(super) async fn entries_are_added_to_drafts_only(world: World) {
    let user = world.user().await;
    for status in CampaignStatus::ALL {
        let id = in_status(&world, user, status).await;
        let change = Change::InsertEntries(vec![world.rows.entry(id, 1)]);
        if status == Draft {
            world.commit(change).await;
        } else {
            world.refused(change, StoreErrorKind::Conflict).await;
            assert!(
                world.store.entries_page(id, 0, 1).await.unwrap().is_empty(),
                "{status:?}"
            );
        }
    }
}

pub(super) async fn persons_of_a_campaign_are_those_with_a_message_that_is_no_duplicate(world: World) {
    let stage = world.stage().await;
    let other_campaign = world.campaign(stage.user).await;
    let phones: Vec<_> = (0..4).map(|n| world.rows.phone(n)).collect();
    let persons: Vec<_> = phones
        .iter()
        .map(|phone| world.rows.person(stage.user, phone))
        .collect();
    stage.queued_to(phones[0]).await;
    let mut duplicate = stage.message_to(phones[1]);
    duplicate.key = IdempotencyKey::campaign_duplicate(stage.campaign, b"lead");
    duplicate.state = MessageState::Skipped;
    duplicate.reason = Some(Reason::Duplicate);
    duplicate.settled_at = Some(world.now());
    world.insert(duplicate).await;
    let mut no_device = stage.message_to(phones[2]);
    no_device.state = MessageState::Skipped;
    no_device.reason = Some(Reason::NoDevice);
    no_device.settled_at = Some(world.now());
    world.insert(no_device).await;
    let device = Some(stage.device);
    world
        .insert(
            world
                .rows
                .campaign_message(stage.user, other_campaign, device, phones[3]),
        )
        .await;
    let mut found = world.store.persons_in(stage.campaign, &persons).await.unwrap();
    found.sort_unstable();
    let mut expected = vec![persons[0], persons[2]];
    expected.sort_unstable();
    assert_eq!(found, expected);
    let asked = world.store.persons_in(stage.campaign, &persons[1..2]).await.unwrap();
    assert!(asked.is_empty());
}

pub(super) async fn a_saved_text_is_changed_by_version_and_named_once_per_user(world: World) {
    let (user, other) = (world.user().await, world.user().await);
    let mut saved = world.rows.saved_text(user);
    let insert = |saved: &_| Change::InsertSavedText(Box::new(Clone::clone(saved)));
    world.commit(insert(&saved)).await;
    let mut twin = world.rows.saved_text(user);
    let free_name = std::mem::replace(&mut twin.name, saved.name.clone());
    world.refused(insert(&twin), StoreErrorKind::Conflict).await;
    let mut foreign = world.rows.saved_text(other);
    foreign.name.clone_from(&saved.name);
    world.commit(insert(&foreign)).await;
    twin.name = free_name;
    world.commit(insert(&twin)).await;
    twin.name.clone_from(&saved.name);
    world
        .refused(Change::UpdateSavedText(Box::new(twin)), StoreErrorKind::Conflict)
        .await;

    saved.content = Content::text("Another");
    saved.updated_at = world.at(1);
    let update = Change::UpdateSavedText(Box::new(saved.clone()));
    world.commit(update.clone()).await;
    world.refused(update, StoreErrorKind::Conflict).await;
    let scope = RequestScope::user(user);
    saved.version += 1;
    assert_eq!(world.store.saved_text(&scope, saved.id).await.unwrap(), saved);
    world
        .commit(Change::DeleteSavedText {
            user_id: user,
            template_id: saved.id,
        })
        .await;
    super::world::assert_kind(world.store.saved_text(&scope, saved.id).await, StoreErrorKind::NotFound);
}
