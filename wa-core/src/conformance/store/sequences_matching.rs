//! Who is looked for: marks of leads, cursors of sequences, tokens.

use super::drip::{Drip, token, tokens};
use super::world::{World, insert_lead};
use crate::domain::audience::TargetFilter;
use crate::domain::lead::{Lead, TargetStatus};
use crate::domain::sequence::{MatchCursor, SequenceStatus};
use crate::id::{LeadId, UserId};
use crate::store::{Change, OnDuplicate, StoreErrorKind};

/// What a person changes of a lead.
type Edit = fn(&mut Lead);

async fn to_match(world: &World) -> Vec<LeadId> {
    let leads = world.store.leads_to_match(1_000).await.unwrap();
    leads.iter().map(|lead| lead.id).collect()
}

async fn matched(world: &World, user: UserId, id: LeadId) {
    let version = world.lead_of(user, id).await.version;
    let change = Change::Matched {
        user_id: user,
        lead_id: id,
        version,
    };
    world.commit(change).await;
}

pub(super) async fn a_lead_that_gained_a_token_or_another_target_status_is_to_be_matched(world: World) {
    let user = world.user().await;
    let plain = world.lead(user, None).await;
    let cold = world.rows.lead_with(user, None, "COLD");
    world.insert_lead(&cold).await;
    assert_eq!(to_match(&world).await, [cold.id], "one without tokens matches nothing");
    let edits: [(bool, Edit); 6] = [
        (true, |lead| lead.triggers = tokens("COLD")),
        (false, |lead| lead.name = "Another".to_owned()),
        (true, |lead| lead.niches = tokens("EXAMA")),
        (true, |lead| lead.target_status = TargetStatus::Customer),
        (false, |lead| lead.triggers = tokens("")),
        (false, |lead| lead.tags = tokens("vip")),
    ];
    matched(&world, user, cold.id).await;
    for (marks, edit) in edits {
        let mut lead = world.lead_of(user, plain.id).await;
        edit(&mut lead);
        world.commit(Change::UpdateLead(Box::new(lead))).await;
        assert_eq!(to_match(&world).await == [plain.id], marks);
        matched(&world, user, plain.id).await;
        assert!(to_match(&world).await.is_empty());
    }
    let mut twin = world.rows.lead_with(user, None, "COLD, WARM");
    twin.phone = cold.phone;
    let merge = Change::InsertLead {
        lead: Box::new(twin),
        on_duplicate: OnDuplicate::MergeTriggers,
    };
    world.commit(merge.clone()).await;
    assert_eq!(to_match(&world).await, [cold.id], "a merge adds a trigger");
    matched(&world, user, cold.id).await;
    world.commit(merge).await;
    assert!(to_match(&world).await.is_empty(), "the second adds none");
    let replaced = Change::ReplaceTrigger {
        user_id: user,
        lead_id: cold.id,
        remove: Some(token("COLD")),
        add: None,
        matched: false,
    };
    world.commit(replaced).await;
    assert!(to_match(&world).await.is_empty(), "losing a trigger is no match");
}

pub(super) async fn a_lead_that_changed_meanwhile_is_matched_again(world: World) {
    let user = world.user().await;
    let lead = world.rows.lead_with(user, None, "COLD");
    world.insert_lead(&lead).await;
    let mut edited = lead.clone();
    edited.name = "Another".to_owned();
    world.commit(Change::UpdateLead(Box::new(edited))).await;
    let stale = Change::Matched {
        user_id: user,
        lead_id: lead.id,
        version: lead.version,
    };
    world.commit(stale).await;
    assert_eq!(to_match(&world).await, [lead.id]);
    let other = world.user().await;
    let foreign = Change::Matched {
        user_id: other,
        lead_id: lead.id,
        version: lead.version + 1,
    };
    world.commit(foreign).await;
    assert_eq!(to_match(&world).await, [lead.id], "another user matches nobody here");
    world
        .commit(Change::DeleteLead {
            user_id: user,
            lead_id: lead.id,
        })
        .await;
    assert!(to_match(&world).await.is_empty());
}

pub(super) async fn entries_match_whole_tokens_within_their_user(world: World) {
    let (user, other) = (world.user().await, world.user().await);
    let cold = world.sequence(user, &["COLD", "WARM"]).await;
    let theirs = world.sequence(other, &["COLD"]).await;
    let found = async |user, token_text: &str| {
        let found = world
            .store
            .sequences_by_entry(user, &[token(token_text)])
            .await
            .unwrap();
        found.iter().map(|sequence| sequence.id).collect::<Vec<_>>()
    };
    assert_eq!(found(user, "cold ").await, [cold], "folded and trimmed");
    assert_eq!(found(other, "COLD").await, [theirs]);
    for part in ["COLDVITAC", "COL", "WARM"] {
        assert!(found(user, part).await.is_empty(), "{part} is no entry point");
    }
    let lead = world.rows.lead_with(user, None, "COLDVITAC");
    world.insert_lead(&lead).await;
    let sequence = world.sequence_of(cold).await;
    let page = world.store.match_page(&sequence, LeadId::MIN, 10).await.unwrap();
    assert!(page.is_empty(), "COLDVITAC does not enter COLD");
}

pub(super) async fn a_sequence_is_found_by_its_niche_in_any_status(world: World) {
    let user = world.user().await;
    let (mut sequence, steps) = world.rows.sequence(user, &["COLD"]);
    sequence.niche = Some(token("EXAMA"));
    world.insert_sequence(&sequence, Some(&steps)).await;
    let asked = [token("EXAMA"), token("COLD"), token("OTHER")];
    for status in [None, Some(SequenceStatus::Active), Some(SequenceStatus::Inactive)] {
        if let Some(status) = status {
            let set = super::drip::set_sequence_status(user, sequence.id, status);
            world.commit(set).await;
        }
        let found = world.store.sequences_by_entry(user, &asked).await.unwrap();
        assert_eq!(
            found,
            [world.sequence_of(sequence.id).await],
            "once, whatever it is found by"
        );
    }
}

pub(super) async fn match_pages_hold_everybody_who_matches_once(world: World) {
    let user = world.user().await;
    let (mut sequence, mut steps) = world.rows.sequence(user, &["COLD", "WARM", "HOT"]);
    sequence.niche = Some(token("EXAMA"));
    sequence.target = TargetFilter::Prospect;
    steps.steps[2].entry_point = true;
    world.insert_sequence(&sequence, Some(&steps)).await;
    let mut expected = Vec::new();
    for (triggers, niches, status, enters) in [
        ("COLD", "", TargetStatus::Prospect, true),
        ("COLD, HOT", "EXAMA", TargetStatus::Prospect, true),
        ("WARM", "", TargetStatus::Prospect, false),
        ("", "EXAMA", TargetStatus::Prospect, true),
        ("COLD", "EXAMA", TargetStatus::Customer, false),
        ("", "", TargetStatus::Prospect, false),
        ("HOT, OTHER", "", TargetStatus::Prospect, true),
    ] {
        let mut lead = world.rows.lead_with(user, None, triggers);
        lead.niches = tokens(niches);
        lead.target_status = status;
        world.insert_lead(&lead).await;
        expected.extend(enters.then_some(lead.id));
    }
    let stranger = world.user().await;
    let theirs = world.rows.lead_with(stranger, None, "COLD");
    world.commit(insert_lead(&theirs)).await;
    for limit in [1, 3, 10] {
        let (mut found, mut after) = (Vec::new(), LeadId::MIN);
        loop {
            let page = world.store.match_page(&sequence, after, limit).await.unwrap();
            assert!(page.len() <= limit as usize);
            let Some(last) = page.last() else { break };
            after = last.id;
            found.extend(page.iter().map(|lead| lead.id));
        }
        assert_eq!(found, expected, "in pages of {limit}");
    }
}

pub(super) async fn a_match_cursor_moves_only_from_where_it_stands(world: World) {
    let drip = Drip::new(&world).await;
    let lead = drip.lead("COLD").await;
    let matching = async || {
        let found = world.store.sequences_matching(10).await.unwrap();
        found.iter().map(|sequence| sequence.cursor).collect::<Vec<_>>()
    };
    let moved = |steps_version, from, to| Change::MoveMatchCursor {
        sequence_id: drip.id,
        steps_version,
        from,
        to,
    };
    assert_eq!(matching().await, [MatchCursor::Start]);
    let before = world.sequence_of(drip.id).await;
    let at = MatchCursor::Lead(lead.id);
    world.commit(moved(1, MatchCursor::Start, at)).await;
    assert_eq!(matching().await, [at]);
    assert_eq!(
        world.sequence_of(drip.id).await.version,
        before.version,
        "no edit of a person"
    );
    drip.refused(moved(1, MatchCursor::Start, at), StoreErrorKind::Conflict)
        .await;
    drip.refused(moved(2, at, MatchCursor::Done), StoreErrorKind::Conflict)
        .await;
    drip.edit_steps(|steps| steps.steps[1].wait *= 2).await;
    drip.refused(moved(1, at, MatchCursor::Done), StoreErrorKind::Conflict)
        .await;
    world.commit(moved(2, at, MatchCursor::Done)).await;
    assert!(matching().await.is_empty());
    drip.pause().await;
    drip.refused(moved(2, MatchCursor::Done, MatchCursor::Done), StoreErrorKind::Conflict)
        .await;
    drip.status(SequenceStatus::Active).await;
    assert_eq!(
        matching().await,
        [MatchCursor::Start],
        "one that becomes active starts anew"
    );
    drip.delete().await;
    drip.refused(
        moved(2, MatchCursor::Start, MatchCursor::Done),
        StoreErrorKind::Conflict,
    )
    .await;
}

pub(super) async fn one_trigger_is_replaced_and_the_others_stay(world: World) {
    let user = world.user().await;
    let lead = world.rows.lead_with(user, None, "COLD, VIP, OTHER");
    world.insert_lead(&lead).await;
    matched(&world, user, lead.id).await;
    let replace = |user_id, remove, add| Change::ReplaceTrigger {
        user_id,
        lead_id: lead.id,
        remove,
        add,
        matched: false,
    };
    let now = world.at(5);
    world
        .commit_at(replace(user, Some(token("COLD")), Some(token("NEXT"))), now)
        .await;
    let after = world.lead_of(user, lead.id).await;
    assert_eq!(after.triggers, tokens("NEXT, VIP, OTHER"));
    assert_eq!((after.version, after.updated_at), (lead.version + 1, now));
    assert_eq!(to_match(&world).await, [lead.id], "it gained one");
    world
        .commit(replace(user, Some(token("COLD")), Some(token("VIP"))))
        .await;
    world.commit(replace(user, None, None)).await;
    assert_eq!(
        world.lead_of(user, lead.id).await,
        after,
        "nothing to take, nothing new"
    );
    let by_chain = |word| Change::ReplaceTrigger {
        user_id: user,
        lead_id: lead.id,
        remove: None,
        add: Some(token(word)),
        matched: true,
    };
    world.commit(by_chain("ONE")).await;
    assert_eq!(to_match(&world).await, [lead.id], "a mark that is there stays");
    matched(&world, user, lead.id).await;
    world.commit(by_chain("TWO")).await;
    assert!(to_match(&world).await.is_empty(), "whoever gave it has matched it");
    let after = world.lead_of(user, lead.id).await;
    let other = world.user().await;
    world.commit(replace(other, Some(token("VIP")), None)).await;
    assert_eq!(
        world.lead_of(user, lead.id).await,
        after,
        "another user's words change nothing"
    );
    world
        .commit(Change::DeleteLead {
            user_id: user,
            lead_id: lead.id,
        })
        .await;
    world.commit(replace(user, Some(token("VIP")), None)).await;
}
