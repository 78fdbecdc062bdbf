//! Sequences and the versions of their steps.

use super::drip::{Drip, insert_sequence, set_sequence_status, token, update_sequence};
use super::stage::sent;
use super::world::{World, assert_kind};
use crate::domain::access::RequestScope;
use crate::domain::audience::TargetFilter;
use crate::domain::message::MessageScope;
use crate::domain::sequence::{MatchCursor, ReEntry, Sequence, SequenceReason, SequenceStatus};
use crate::id::SequenceId;
use crate::store::{Change, PageRequest, SequenceFilter, Span, StoreErrorKind};

pub(super) async fn a_sequence_reads_back_as_it_was_inserted_with_its_steps(world: World) {
    let user = world.user().await;
    let device = world.device(user).await;
    let (mut sequence, mut steps) = world.rows.sequence(user, &["COLD", "WARM"]);
    sequence.description = "notes 'q' \"Q\"".to_owned();
    sequence.niche = Some(token("EXAMA"));
    sequence.target = TargetFilter::Customer;
    sequence.device_id = Some(device);
    sequence.send_time = Some("09:30".parse().unwrap());
    sequence.exit_on_reply = true;
    sequence.re_entry = ReEntry::AfterCompletion;
    steps.steps[1].next_trigger = Some(token("NEXT"));
    steps.steps[1].send_time = Some("21:00".parse().unwrap());
    world.insert_sequence(&sequence, Some(&steps)).await;
    let scope = RequestScope::user(user);
    assert_eq!(world.store.sequence(&scope, sequence.id).await.unwrap(), sequence);
    assert_eq!(world.store.steps(&[(sequence.id, 1)]).await.unwrap(), [steps.clone()]);
    world
        .refused(insert_sequence(&sequence, Some(&steps)), StoreErrorKind::Conflict)
        .await;
}

pub(super) async fn a_sequence_without_steps_never_becomes_active(world: World) {
    let user = world.user().await;
    let (mut sequence, mut steps) = world.rows.sequence(user, &["COLD"]);
    world
        .refused(insert_sequence(&sequence, None), StoreErrorKind::Conflict)
        .await;
    sequence.steps_version = 0;
    world.insert_sequence(&sequence, None).await;
    let activate = || set_sequence_status(user, sequence.id, SequenceStatus::Active);
    world.refused(activate(), StoreErrorKind::Conflict).await;
    steps.version = 2;
    world
        .refused(update_sequence(&sequence, Some(&steps)), StoreErrorKind::Conflict)
        .await;
    steps.version = 1;
    world.commit(update_sequence(&sequence, Some(&steps))).await;
    world.commit(activate()).await;
    assert_eq!(world.sequence_of(sequence.id).await.steps_version, 1);
}

pub(super) async fn an_edit_keeps_status_cursor_and_instants_and_takes_the_next_version(world: World) {
    let drip = Drip::new(&world).await;
    let before = world.sequence_of(drip.id).await;
    let edited = Sequence {
        name: "Another".to_owned(),
        exit_on_reply: true,
        status: SequenceStatus::Draft,
        reason: Some(SequenceReason::ErrorRate),
        steps_version: 9,
        cursor: MatchCursor::Done,
        started_at: None,
        resumed_at: None,
        created_at: world.at(7),
        updated_at: world.at(8),
        deleted_at: Some(world.at(9)),
        ..before.clone()
    };
    drip.world().commit(update_sequence(&edited, None)).await;
    let expected = Sequence {
        name: "Another".to_owned(),
        exit_on_reply: true,
        updated_at: world.at(8),
        version: before.version + 1,
        ..before
    };
    assert_eq!(world.sequence_of(drip.id).await, expected);
}

pub(super) async fn an_edit_of_an_older_version_is_refused(world: World) {
    let drip = Drip::new(&world).await;
    let mut sequence = world.sequence_of(drip.id).await;
    let steps = world.newest_steps(&sequence).await;
    sequence.version -= 1;
    drip.refused(update_sequence(&sequence, None), StoreErrorKind::Conflict)
        .await;
    sequence.version += 1;
    drip.refused(update_sequence(&sequence, Some(&steps)), StoreErrorKind::Conflict)
        .await;
}

pub(super) async fn new_steps_are_the_next_version_and_older_ones_stay(world: World) {
    let drip = Drip::new(&world).await;
    let first = drip.steps().await;
    drip.edit_steps(|steps| drop(steps.steps.remove(1))).await;
    assert_eq!(world.sequence_of(drip.id).await.steps_version, 2);
    let both = world
        .store
        .steps(&[(drip.id, 1), (drip.id, 2), (drip.id, 3)])
        .await
        .unwrap();
    assert_eq!(both.len(), 2, "what does not exist is left out");
    assert_eq!(both[0], first);
    assert_eq!(both[1].steps, [first.steps[0].clone(), first.steps[2].clone()]);
}

pub(super) async fn an_edit_of_what_leads_enter_by_looks_for_leads_anew(world: World) {
    let drip = Drip::new(&world).await;
    let done = async || {
        let from = world.sequence_of(drip.id).await;
        let change = Change::MoveMatchCursor {
            sequence_id: drip.id,
            steps_version: from.steps_version,
            from: from.cursor,
            to: MatchCursor::Done,
        };
        world.commit(change).await;
    };
    let cursor = async || world.sequence_of(drip.id).await.cursor;
    done().await;
    drip.edit(|sequence| sequence.name = "Another".to_owned()).await;
    drip.edit_steps(|steps| steps.steps[1].wait *= 2).await;
    assert_eq!(cursor().await, MatchCursor::Done, "nobody else would match");
    drip.edit_steps(|steps| steps.steps[1].entry_point = true).await;
    assert_eq!(cursor().await, MatchCursor::Start, "an entry point more");
    done().await;
    drip.edit(|sequence| sequence.niche = Some(token("EXAMA"))).await;
    assert_eq!(cursor().await, MatchCursor::Start, "another niche");
    done().await;
    drip.edit(|sequence| sequence.target = TargetFilter::Customer).await;
    assert_eq!(cursor().await, MatchCursor::Start, "another target");
    drip.pause().await;
    drip.edit(|sequence| sequence.target = TargetFilter::All).await;
    assert_eq!(
        cursor().await,
        MatchCursor::Done,
        "one that does not run looks for nobody"
    );
}

pub(super) async fn a_sequence_moves_only_as_the_table_of_statuses_allows(world: World) {
    use SequenceStatus::{Active, Draft, Inactive, Paused};
    let user = world.user().await;
    for (way, from) in [
        (&[][..], Draft),
        (&[Active], Active),
        (&[Active, Paused], Paused),
        (&[Active, Inactive], Inactive),
    ] {
        for to in SequenceStatus::ALL {
            let (sequence, steps) = world.rows.sequence(user, &["COLD"]);
            world.insert_sequence(&sequence, Some(&steps)).await;
            for status in way {
                world.commit(set_sequence_status(user, sequence.id, *status)).await;
            }
            let change = set_sequence_status(user, sequence.id, to);
            if from == to || from.can_become(to) {
                world.commit(change).await;
                assert_eq!(world.sequence_of(sequence.id).await.status, to);
            } else {
                world.refused(change, StoreErrorKind::Conflict).await;
            }
        }
    }
    let (sequence, steps) = world.rows.sequence(user, &["COLD"]);
    world.insert_sequence(&sequence, Some(&steps)).await;
    let not_from = Change::SetSequenceStatus {
        user_id: user,
        sequence_id: sequence.id,
        from: &[Paused],
        to: Active,
        reason: None,
    };
    world.refused(not_from, StoreErrorKind::Conflict).await;
}

pub(super) async fn a_status_records_reason_instants_and_where_matching_stands(world: World) {
    let user = world.user().await;
    let (sequence, steps) = world.rows.sequence(user, &["COLD"]);
    world.insert_sequence(&sequence, Some(&steps)).await;
    let set = async |to, reason, seconds| {
        let change = Change::SetSequenceStatus {
            user_id: user,
            sequence_id: sequence.id,
            from: &SequenceStatus::ALL,
            to,
            reason,
        };
        world.commit_at(change, world.at(seconds)).await;
        world.sequence_of(sequence.id).await
    };
    let active = set(SequenceStatus::Active, None, 10).await;
    let expected = Sequence {
        status: SequenceStatus::Active,
        status_at: world.at(10),
        started_at: Some(world.at(10)),
        resumed_at: Some(world.at(10)),
        cursor: MatchCursor::Start,
        version: 2,
        ..sequence.clone()
    };
    assert_eq!(active, expected);
    let paused = set(SequenceStatus::Paused, Some(SequenceReason::ErrorRate), 20).await;
    let expected = Sequence {
        status: SequenceStatus::Paused,
        reason: Some(SequenceReason::ErrorRate),
        status_at: world.at(20),
        paused_at: Some(world.at(20)),
        cursor: MatchCursor::Done,
        version: 3,
        ..expected
    };
    assert_eq!(paused, expected);
    let again = set(SequenceStatus::Paused, Some(SequenceReason::ByPerson), 30).await;
    let expected = Sequence {
        reason: Some(SequenceReason::ByPerson),
        status_at: world.at(30),
        version: 4,
        ..expected
    };
    assert_eq!(again, expected, "naming the present status changes its reason alone");
    let resumed = set(SequenceStatus::Active, None, 40).await;
    let expected = Sequence {
        status: SequenceStatus::Active,
        reason: None,
        status_at: world.at(40),
        resumed_at: Some(world.at(40)),
        cursor: MatchCursor::Start,
        version: 5,
        ..expected
    };
    assert_eq!(resumed, expected);
}

pub(super) async fn a_deleted_sequence_is_not_found_but_known_to_the_engine_with_its_numbers(world: World) {
    let drip = Drip::new(&world).await;
    let (_, message) = drip.enrolled().await;
    drip.tried(message, sent()).await;
    let edit = world.sequence_of(drip.id).await;
    let scope = RequestScope::user(drip.user());
    let numbers = world.store.numbers(&scope, drip.scope()).await.unwrap();
    let counts = world.counts(drip.user(), drip.id).await;
    drip.delete().await;
    assert_kind(world.store.sequence(&scope, drip.id).await, StoreErrorKind::NotFound);
    let listed = world
        .store
        .sequences(&scope, &SequenceFilter::default(), &PageRequest::first(10))
        .await;
    assert!(listed.unwrap().rows.is_empty());
    assert_eq!(world.sequence_of(drip.id).await.deleted_at, Some(world.now()));
    assert_eq!(world.store.numbers(&scope, drip.scope()).await.unwrap(), numbers);
    assert_eq!(world.counts(drip.user(), drip.id).await, counts);
    assert!(world.store.sequences_matching(10).await.unwrap().is_empty());
    let by_entry = world.store.sequences_by_entry(drip.user(), &[token("COLD")]).await;
    assert!(by_entry.unwrap().is_empty());
    drip.refused(update_sequence(&edit, None), StoreErrorKind::NotFound)
        .await;
    let set = set_sequence_status(drip.user(), drip.id, SequenceStatus::Paused);
    drip.refused(set, StoreErrorKind::NotFound).await;
    let delete = Change::DeleteSequence {
        user_id: drip.user(),
        sequence_id: drip.id,
    };
    drip.refused(delete, StoreErrorKind::NotFound).await;
}

pub(super) async fn sequences_are_listed_newest_first_filtered_and_in_pages(world: World) {
    let user = world.user().await;
    let mut ids: Vec<SequenceId> = Vec::new();
    for n in 0..5 {
        let (mut sequence, steps) = world.rows.sequence(user, &["COLD"]);
        sequence.name = format!("Drip {}", ["Red", "Blue"][n % 2]);
        world.insert_sequence(&sequence, Some(&steps)).await;
        ids.push(sequence.id);
    }
    world.activate(user, ids[1]).await;
    ids.reverse();
    let scope = RequestScope::user(user);
    let list = async |filter: &SequenceFilter, limit| {
        let (mut found, mut page) = (Vec::new(), PageRequest::first(limit));
        loop {
            let got = world.store.sequences(&scope, filter, &page).await.unwrap();
            found.extend(got.rows.iter().map(|sequence| sequence.id));
            let Some(next) = got.next else { return found };
            page.after = Some(next);
        }
    };
    assert_eq!(list(&SequenceFilter::default(), 2).await, ids);
    let blue = SequenceFilter {
        search: Some("BLUE".to_owned()),
        ..SequenceFilter::default()
    };
    assert_eq!(list(&blue, 10).await, [ids[1], ids[3]]);
    let active = SequenceFilter {
        statuses: vec![SequenceStatus::Active],
        ..blue
    };
    assert_eq!(list(&active, 10).await, [ids[3]]);
}

pub(super) async fn a_sequence_of_another_user_is_neither_read_nor_changed(world: World) {
    let drip = Drip::new(&world).await;
    let other = world.user().await;
    let foreign = world.device(other).await;
    let scope = RequestScope::user(other);
    assert_kind(world.store.sequence(&scope, drip.id).await, StoreErrorKind::NotFound);
    let numbers = world.store.numbers(&scope, MessageScope::Sequence(drip.id)).await;
    assert_kind(numbers, StoreErrorKind::NotFound);
    let count = world.store.count(&scope, MessageScope::Sequence(drip.id)).await;
    assert_kind(count, StoreErrorKind::NotFound);
    let counts = world.store.sequence_counts(&scope, drip.id, &Span::default()).await;
    assert_kind(counts, StoreErrorKind::NotFound);
    let recount = world.store.recount_sequence(&scope, drip.id).await;
    assert_kind(recount, StoreErrorKind::NotFound);
    let before = world.sequence_of(drip.id).await;
    let mut theirs = before.clone();
    theirs.user_id = other;
    for change in [
        update_sequence(&theirs, None),
        set_sequence_status(other, drip.id, SequenceStatus::Paused),
        Change::DeleteSequence {
            user_id: other,
            sequence_id: drip.id,
        },
    ] {
        world.refused(change, StoreErrorKind::NotFound).await;
    }
    assert_eq!(world.sequence_of(drip.id).await, before);
    let mut with_foreign = before.clone();
    with_foreign.device_id = Some(foreign);
    world
        .refused(update_sequence(&with_foreign, None), StoreErrorKind::NotFound)
        .await;
    let (mut new, steps) = world.rows.sequence(drip.user(), &["COLD"]);
    new.device_id = Some(foreign);
    world
        .refused(insert_sequence(&new, Some(&steps)), StoreErrorKind::NotFound)
        .await;
}
