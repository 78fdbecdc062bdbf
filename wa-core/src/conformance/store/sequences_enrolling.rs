//! Who enters a sequence, and who does not.

use super::drip::{Drip, end_enrolment, token};
use super::stage::sent;
use super::world::World;
use crate::domain::access::RequestScope;
use crate::domain::enrolment::{EnrolmentReason, EnrolmentState};
use crate::domain::message::{MessageState, Reason};
use crate::domain::sequence::ReEntry;
use crate::id::EnrolmentId;
use crate::store::{Change, ChangeSet, DueMessage, EnrolResult, EnrolmentFilter, PageRequest, StoreErrorKind};

pub(super) async fn an_enrolment_comes_with_the_message_of_its_first_step(world: World) {
    let drip = Drip::new(&world).await;
    let lead = drip.lead("COLD").await;
    let new = world.enrolling(&lead, drip.id).await;
    let done = world.commit(Change::Enrol(vec![new.clone()])).await;
    assert_eq!(done.enrolments, [EnrolResult::Enrolled(new.enrolment.id)]);
    assert_eq!((done.messages_inserted, done.wake), (1, vec![drip.stage.device]));
    let scope = RequestScope::user(drip.user());
    assert_eq!(
        world.store.enrolment(&scope, new.enrolment.id).await.unwrap(),
        new.enrolment
    );
    let rows = drip.messages(new.enrolment.id).await;
    assert_eq!(rows, std::slice::from_ref(&new.first));
    assert!(world.marked().await.is_empty());
    let due = drip.stage.due_at(world.now()).await;
    assert_eq!(due[0], DueMessage::of(&new.first, Some(&lead), None));
}

pub(super) async fn a_person_is_in_a_sequence_once_at_a_time(world: World) {
    let drip = Drip::new(&world).await;
    drip.edit(|sequence| sequence.re_entry = ReEntry::Always).await;
    let lead = drip.lead("COLD").await;
    let mut twin = drip.lead("COLD, TWIN").await;
    twin.phone = lead.phone;
    twin.niches = super::drip::tokens("OTHER");
    world.commit(Change::UpdateLead(Box::new(twin.clone()))).await;
    let both = vec![
        world.enrolling(&lead, drip.id).await,
        world.enrolling(&twin, drip.id).await,
    ];
    let first = both[0].enrolment.id;
    let done = world.commit(Change::Enrol(both)).await;
    assert_eq!(
        done.enrolments,
        [EnrolResult::Enrolled(first), EnrolResult::AlreadyIn(first)]
    );
    assert_eq!(done.messages_inserted, 1, "what is refused has no message");
    assert_eq!(world.enrol(&lead, drip.id).await, EnrolResult::AlreadyIn(first));
    let second = world.sequence(drip.user(), &["COLD"]).await;
    world.enrolled(&lead, second).await;
}

pub(super) async fn an_enrolment_committed_twice_is_there_once(world: World) {
    let drip = Drip::new(&world).await;
    let lead = drip.lead("COLD").await;
    let new = world.enrolling(&lead, drip.id).await;
    let id = new.enrolment.id;
    world.commit(Change::Enrol(vec![new.clone()])).await;
    drip.step(id).await;
    let before = drip.enrolment(id).await;
    let done = world.commit(Change::Enrol(vec![new.clone()])).await;
    assert_eq!(
        (done.enrolments, done.messages_inserted),
        (vec![EnrolResult::AlreadyIn(id)], 0)
    );
    assert_eq!(drip.enrolment(id).await, before, "whatever became of it");
    drip.delete().await;
    let done = world.commit(Change::Enrol(vec![new])).await;
    assert_eq!(done.enrolments, [EnrolResult::AlreadyIn(id)]);
}

pub(super) async fn a_person_enters_again_as_the_sequence_allows(world: World) {
    use EnrolmentState::{Completed, Ended};
    use ReEntry::{AfterCompletion, Always, Never};
    let drip = Drip::new(&world).await;
    for (re_entry, before, enters) in [
        (Never, &[Completed][..], false),
        (Never, &[Ended], false),
        (AfterCompletion, &[Completed], true),
        (AfterCompletion, &[Ended], false),
        (AfterCompletion, &[Completed, Ended], false),
        (Always, &[Completed, Ended], true),
    ] {
        let lead = drip.lead("COLD").await;
        for state in before {
            drip.edit(|sequence| sequence.re_entry = Always).await;
            let id = world.enrolled(&lead, drip.id).await;
            let reason = (*state == Ended).then_some(EnrolmentReason::ByPerson);
            let end = end_enrolment(&drip.enrolment(id).await, *state, reason);
            world.commit(end).await;
        }
        drip.edit(|sequence| sequence.re_entry = re_entry).await;
        let answer = world.enrol(&lead, drip.id).await;
        let entered = matches!(answer, EnrolResult::Enrolled(_));
        assert_eq!(entered, enters, "{re_entry:?} after {before:?}");
        assert!(enters || answer == EnrolResult::ReEntryRefused);
    }
}

pub(super) async fn a_chain_does_not_lead_back_where_it_came_through(world: World) {
    let drip = Drip::new(&world).await;
    for (re_entry, enters) in [(ReEntry::AfterCompletion, false), (ReEntry::Always, true)] {
        drip.edit(|sequence| sequence.re_entry = re_entry).await;
        let lead = drip.lead("COLD").await;
        let first = world.enrolled(&lead, drip.id).await;
        let enrolment = drip.enrolment(first).await;
        world
            .commit(end_enrolment(&enrolment, EnrolmentState::Completed, None))
            .await;
        let mut back = world.enrolling(&lead, drip.id).await;
        back.enrolment.root_id = enrolment.root_id;
        let done = world.commit(Change::Enrol(vec![back])).await;
        assert_eq!(
            matches!(done.enrolments[0], EnrolResult::Enrolled(_)),
            enters,
            "{re_entry:?}"
        );
    }
}

pub(super) async fn a_suppressed_person_does_not_enter(world: World) {
    let drip = Drip::new(&world).await;
    let lead = drip.lead("COLD").await;
    world.suppress(drip.user(), lead.phone).await;
    assert_eq!(world.enrol(&lead, drip.id).await, EnrolResult::Suppressed);
    let other = drip.lead("COLD").await;
    world.suppress(world.user().await, other.phone).await;
    world.enrolled(&other, drip.id).await;
}

pub(super) async fn the_same_number_and_trigger_at_another_user_are_another_matter(world: World) {
    let drip = Drip::new(&world).await;
    let lead = drip.lead("COLD").await;
    let other = world.user().await;
    let device = world.device(other).await;
    let theirs = world.sequence(other, &["COLD"]).await;
    let mut twin = world.rows.lead_with(other, Some(device), "COLD");
    twin.phone = lead.phone;
    world.insert_lead(&twin).await;
    let (id, _) = drip.enrol(&lead).await;
    let twin_id = world.enrolled(&twin, theirs).await;
    let twins = (world.enrolment(twin_id).await, world.messages_of(other, twin_id).await);
    world.suppress(drip.user(), lead.phone).await;
    drip.assert_ended(id, EnrolmentReason::Suppressed).await;
    drip.edit(|sequence| sequence.exit_on_reply = true).await;
    assert_eq!(
        (world.enrolment(twin_id).await, world.messages_of(other, twin_id).await),
        twins
    );
    let scope = RequestScope::user(other);
    let filter = EnrolmentFilter::default();
    let listed = world
        .store
        .enrolments(&scope, &filter, &PageRequest::first(10))
        .await
        .unwrap();
    assert_eq!(listed.rows.iter().map(|one| one.id).collect::<Vec<_>>(), [twin_id]);
    assert!(world.store.enrolment(&scope, id).await.is_err());
    assert!(world.messages_of(other, id).await.is_empty());
}

pub(super) async fn an_enrolment_points_at_nothing_that_is_not_its_users(world: World) {
    let drip = Drip::new(&world).await;
    let lead = drip.lead("COLD").await;
    let other = world.user().await;
    let (device, stranger) = (world.device(other).await, world.lead(other, None).await);
    let theirs = world.sequence(other, &["COLD"]).await;
    let new = world.enrolling(&lead, drip.id).await;
    let refused = async |edit: &(dyn Fn(&mut crate::store::NewEnrolment) + Sync), kind| {
        let mut new = new.clone();
        edit(&mut new);
        drip.refused(Change::Enrol(vec![new]), kind).await;
    };
    refused(&|new| new.enrolment.lead_id = stranger.id, StoreErrorKind::NotFound).await;
    refused(&|new| new.enrolment.device_id = Some(device), StoreErrorKind::NotFound).await;
    refused(&|new| new.enrolment.sequence_id = theirs, StoreErrorKind::NotFound).await;
    refused(&|new| new.enrolment.user_id = other, StoreErrorKind::NotFound).await;
    refused(&|new| new.first.device_id = Some(device), StoreErrorKind::NotFound).await;
    drip.edit_steps(|steps| steps.steps[1].wait *= 2).await;
    refused(&|_| (), StoreErrorKind::Conflict).await;
    drip.delete().await;
    refused(&|_| (), StoreErrorKind::NotFound).await;
    assert_eq!(world.store.enrolments_by_id(&[new.enrolment.id]).await.unwrap(), []);
}

pub(super) async fn who_enters_a_sequence_that_does_not_run_waits(world: World) {
    let drip = Drip::new(&world).await;
    drip.pause().await;
    let (id, message) = drip.enrolled().await;
    assert_eq!(drip.stage.state(message).await, MessageState::Held);
    assert_eq!(drip.enrolment(id).await.state, EnrolmentState::Open);
}

pub(super) async fn a_first_step_that_is_skipped_from_the_start_marks_its_enrolment(world: World) {
    let drip = Drip::new(&world).await;
    let lead = world.rows.lead_with(drip.user(), None, "COLD");
    world.insert_lead(&lead).await;
    let id = world.enrolled(&lead, drip.id).await;
    let message = drip.active(id).await;
    assert_eq!(
        (message.state, message.reason),
        (MessageState::Skipped, Some(Reason::NoDevice))
    );
    assert_eq!(world.marked_ids().await, [id]);
}

/// A completed enrolment with the one that follows in the same commit.
async fn chained(drip: &Drip, id: EnrolmentId, next: crate::store::NewEnrolment) -> EnrolResult {
    let world = drip.world();
    let set = ChangeSet::one(Change::EndEnrolment {
        user_id: drip.user(),
        enrolment_id: id,
        step: None,
        state: EnrolmentState::Completed,
        reason: None,
        next_id: Some(next.enrolment.id),
    });
    world.commit(set.and(Change::Enrol(vec![next]))).await.enrolments[0]
}

pub(super) async fn a_chain_that_is_refused_says_so_where_it_came_from(world: World) {
    let drip = Drip::new(&world).await;
    let other = world.sequence(drip.user(), &["NEXT"]).await;
    let lead = drip.lead("COLD").await;
    let (id, _) = drip.enrol(&lead).await;
    let next = world.enrolling(&lead, other).await;
    let next_id = next.enrolment.id;
    assert_eq!(chained(&drip, id, next).await, EnrolResult::Enrolled(next_id));
    let first = drip.enrolment(id).await;
    assert_eq!((first.reason, first.next_id), (None, Some(next_id)));

    let lead = drip.lead("COLD, NEXT").await;
    world.enrolled(&lead, other).await;
    let (id, _) = drip.enrol(&lead).await;
    let next = world.enrolling(&lead, other).await;
    assert!(matches!(chained(&drip, id, next).await, EnrolResult::AlreadyIn(_)));
    let refused = drip.enrolment(id).await;
    assert_eq!(refused.state, EnrolmentState::Completed);
    assert_eq!(
        (refused.reason, refused.next_id),
        (Some(EnrolmentReason::ReEntryRefused), None)
    );
}

pub(super) async fn a_completion_takes_one_trigger_of_three_and_chains_on_in_one_commit(world: World) {
    let drip = Drip::new(&world).await;
    let other = world.sequence(drip.user(), &["NEXT"]).await;
    drip.edit_steps(|steps| {
        steps.steps.truncate(1);
        steps.steps[0].next_trigger = Some(token("NEXT"));
    })
    .await;
    let lead = drip.lead("COLD, VIP, OTHER").await;
    let (id, message) = drip.enrol(&lead).await;
    drip.tried(message, sent()).await;
    let marked = world.marked().await;
    assert_eq!((marked.len(), marked[0].message.id), (1, message));
    let mut next = world.enrolling(&lead, other).await;
    next.enrolment.root_id = id;
    let end = Change::EndEnrolment {
        user_id: drip.user(),
        enrolment_id: id,
        step: Some(marked[0].enrolment.step_id),
        state: EnrolmentState::Completed,
        reason: None,
        next_id: Some(next.enrolment.id),
    };
    let exchange = Change::ReplaceTrigger {
        user_id: drip.user(),
        lead_id: lead.id,
        remove: marked[0].enrolment.token.clone(),
        add: Some(token("NEXT")),
        matched: true,
    };
    let set = ChangeSet::one(end).and(exchange).and(Change::Enrol(vec![next]));
    let done = world.commit(set).await;
    let EnrolResult::Enrolled(next) = done.enrolments[0] else {
        panic!("{:?}", done.enrolments)
    };
    let first = drip.enrolment(id).await;
    assert_eq!(
        (first.state, first.reason, first.next_id),
        (EnrolmentState::Completed, None, Some(next))
    );
    assert_eq!(world.enrolment(next).await.root_id, id);
    let lead = world.lead_of(drip.user(), lead.id).await;
    assert_eq!(lead.triggers, super::drip::tokens("NEXT, VIP, OTHER"));
    assert!(world.marked().await.is_empty());
}
