use std::time::Duration;

use super::world::{START, World, conflict, missing, refused};
use crate::domain::enrolment::{EnrolmentReason, EnrolmentState};
use crate::domain::lead::Lead;
use crate::domain::message::{Message, MessageScope, MessageState, Reason};
use crate::domain::sequence::{SequenceStatus, SequenceSteps};
use crate::engine::handle::{EnrolBy, Enrolled, OpenEnd, SavedSequence, SequenceWithSteps};
use crate::event::EventKind;
use crate::id::{DeviceId, EnrolmentId, SequenceId};
use crate::plan::{Edit, FieldCode, SequenceDraft, StepDraft, WarningCode};
use crate::store::{Decline, MessageFilter, PageRequest, SequenceFilter, Span};
use crate::time::Timestamp;

pub(super) fn step(message: &str) -> StepDraft {
    StepDraft {
        message: Some(message.to_owned()),
        ..StepDraft::default()
    }
}

/// A sequence of that many steps that is entered by `trigger`.
pub(super) fn sequence_draft(trigger: &str, steps: usize) -> SequenceDraft {
    let mut list: Vec<StepDraft> = (0..steps).map(|at| step(&format!("Hi {{{{name}}}}, {at}"))).collect();
    list[0].trigger = Some(trigger.to_owned());
    SequenceDraft {
        name: Some(trigger.to_owned()),
        steps: Some(list),
        greeting: Some(false),
        ..SequenceDraft::default()
    }
}

impl World {
    /// An active sequence of that many steps.
    pub(super) async fn sequence(&self, trigger: &str, steps: usize) -> SequenceWithSteps {
        let draft = sequence_draft(trigger, steps);
        let created = self.handle.create_sequence(&self.user, &draft).await.unwrap();
        self.activated(created.saved.sequence.id).await.saved
    }

    pub(super) async fn activated(&self, id: SequenceId) -> SavedSequence {
        let activated = self.handle.activate_sequence(&self.user, id, OpenEnd::Allow).await;
        activated.unwrap()
    }

    pub(super) async fn enrolled(&self, id: SequenceId, leads: &[&Lead]) -> Vec<EnrolmentId> {
        let ids: Vec<_> = leads.iter().map(|lead| lead.id).collect();
        let answers = self.handle.enrol_leads(&self.user, id, &ids, &EnrolBy::default()).await;
        let entered = answers.unwrap().into_iter().map(|answer| match answer {
            Enrolled::Enrolled { enrolment_id, .. } => enrolment_id,
            other => panic!("they should be in: {other:?}"),
        });
        entered.collect()
    }

    /// The messages of a run that were not sent again, oldest first.
    pub(super) async fn flow_messages(&self, id: EnrolmentId) -> Vec<Message> {
        let filter = MessageFilter {
            enrolment_id: Some(id),
            ..MessageFilter::default()
        };
        let page = self
            .handle
            .store()
            .messages(&self.user, &filter, &PageRequest::first(100))
            .await;
        page.unwrap().rows
    }

    /// Lets the queued message of a run fail or be skipped, as its device's owner would, and the run go on.
    pub(super) async fn settle_step(&self, id: EnrolmentId, state: MessageState) {
        self.engine.beat().await.unwrap();
        self.engine.balance().await.unwrap();
        let messages = self.flow_messages(id).await;
        let message = messages.iter().find(|one| one.state == MessageState::Queued).unwrap();
        let device_id = message.device_id.unwrap();
        let store = self.handle.store();
        let decline = Decline {
            incarnation: self.engine.incarnation(),
            user_id: message.user_id,
            device_id,
            epoch: store.owned(&[device_id]).await.unwrap()[0].epoch,
            message_id: message.id,
            state,
            reason: Reason::Rejected,
            due_at: None,
            detail: None,
        };
        assert_eq!(store.decline(&[decline], self.handle.now()).await.unwrap(), 1);
        self.engine.plan().await.unwrap();
    }
}

fn triggers(steps: &Option<SequenceSteps>) -> Vec<String> {
    let steps = steps.iter().flat_map(|version| &version.steps);
    steps.map(|step| step.trigger.to_string()).collect()
}

#[tokio::test]
async fn a_sequence_is_written_read_cloned_and_listed() {
    let world = World::new().await;
    world.device("a").await;
    let (handle, user) = (&world.handle, &world.user);
    let created = handle
        .create_sequence(user, &sequence_draft("fitness_start", 3))
        .await
        .unwrap();
    assert_eq!(created.warnings, []);
    let id = created.saved.sequence.id;
    assert_eq!(created.saved.sequence.status, SequenceStatus::Draft);
    assert_eq!(
        triggers(&created.saved.steps),
        ["fitness_start", "fitness_day2", "fitness_day3"]
    );
    let read = handle.sequence(user, id).await.unwrap();
    assert_eq!(read.trigger().unwrap().as_str(), "fitness_start");
    let next: Vec<_> = (0..3)
        .map(|at| read.next_trigger(at).map(ToString::to_string))
        .collect();
    assert_eq!(
        next,
        [Some("fitness_day2".to_owned()), Some("fitness_day3".to_owned()), None]
    );
    let copy = handle.clone_sequence(user, id).await.unwrap();
    assert_eq!(copy.sequence.name, "fitness_start (copy)");
    assert_eq!(triggers(&copy.steps), triggers(&read.steps));
    assert_ne!(copy.list()[0].id, read.list()[0].id, "a step belongs to one sequence");
    let page = handle
        .sequences(user, &SequenceFilter::default(), &PageRequest::first(10))
        .await
        .unwrap();
    let ids: Vec<_> = page
        .rows
        .iter()
        .map(|row| (row.sequence.id, row.list().len()))
        .collect();
    assert_eq!(ids, [(copy.sequence.id, 3), (id, 3)]);
    assert_eq!(missing(handle.sequence(&world.other, id).await), "sequence");
    assert_eq!(missing(handle.clone_sequence(&world.other, id).await), "sequence");
}

#[tokio::test]
async fn a_device_of_another_user_is_refused_by_field() {
    let world = World::new().await;
    let draft = SequenceDraft {
        device_id: Some(DeviceId::MIN),
        ..sequence_draft("a", 1)
    };
    let fields = refused(world.handle.create_sequence(&world.user, &draft).await);
    assert_eq!(fields, [("device_id".to_owned(), FieldCode::NotFound)]);
}

#[tokio::test]
async fn a_sequence_moves_only_as_its_status_allows_and_says_what_it_is() {
    let world = World::new().await;
    world.device("a").await;
    let (handle, user) = (&world.handle, &world.user);
    let empty = SequenceDraft {
        name: Some("later".to_owned()),
        ..SequenceDraft::default()
    };
    let id = handle.create_sequence(user, &empty).await.unwrap().saved.sequence.id;
    let fields = refused(handle.activate_sequence(user, id, OpenEnd::Refuse).await);
    assert_eq!(fields, [("steps".to_owned(), FieldCode::Required)]);
    let why = conflict(handle.pause_sequence(user, id).await);
    assert_eq!(
        why,
        "sequence: it is draft; only sequences that are active can be paused"
    );

    let draft = SequenceDraft {
        steps: sequence_draft("a_start", 2).steps,
        ..empty
    };
    handle.edit_sequence(user, id, &Edit::new(1, draft)).await.unwrap();
    world.heard.take();
    assert_eq!(world.activated(id).await.saved.sequence.status, SequenceStatus::Active);
    let told: Vec<_> = world.heard.take().into_iter().map(|event| event.kind).collect();
    let expected = EventKind::SequenceStatus {
        sequence_id: id,
        status: SequenceStatus::Active,
        reason: None,
    };
    assert!(told.contains(&expected), "{told:?}");
    let why = conflict(handle.activate_sequence(user, id, OpenEnd::Allow).await);
    assert!(why.starts_with("sequence: it is active"), "{why}");
    assert_eq!(
        handle.pause_sequence(user, id).await.unwrap().status,
        SequenceStatus::Paused
    );
    assert_eq!(
        handle.resume_sequence(user, id).await.unwrap().status,
        SequenceStatus::Active
    );
    let inactive = handle.deactivate_sequence(user, id).await.unwrap();
    assert_eq!(inactive.status, SequenceStatus::Inactive);
    let why = conflict(handle.resume_sequence(user, id).await);
    assert!(why.starts_with("sequence: it is inactive"), "{why}");
    assert_eq!(world.activated(id).await.saved.sequence.status, SequenceStatus::Active);
    assert_eq!(missing(handle.pause_sequence(&world.other, id).await), "sequence");
}

#[tokio::test]
async fn a_next_trigger_that_nobody_has_is_warned_about_and_refused_unless_it_is_meant() {
    let world = World::new().await;
    world.device("a").await;
    let (handle, user) = (&world.handle, &world.user);
    let mut chained = sequence_draft("a_start", 2);
    chained.steps.as_mut().unwrap()[1].next_trigger = Some("b_start".to_owned());
    let created = handle.create_sequence(user, &chained).await.unwrap();
    let codes = |saved: &SavedSequence| -> Vec<_> { saved.warnings.iter().map(|warning| warning.code).collect() };
    assert_eq!(codes(&created), [WarningCode::NobodyHasTrigger]);
    assert_eq!(created.warnings[0].field, "steps[1].next_trigger");
    let id = created.saved.sequence.id;
    let fields = refused(handle.activate_sequence(user, id, OpenEnd::Refuse).await);
    assert_eq!(fields, [("steps[1].next_trigger".to_owned(), FieldCode::NotFound)]);
    // One that is written, but not active yet, is enough to activate both in any order.
    let other = handle
        .create_sequence(user, &sequence_draft("b_start", 1))
        .await
        .unwrap();
    let activated = handle.activate_sequence(user, id, OpenEnd::Refuse).await.unwrap();
    assert_eq!(codes(&activated), [WarningCode::NobodyHasTrigger]);
    world.activated(other.saved.sequence.id).await;
    let version = activated.saved.sequence.version;
    let edited = handle
        .edit_sequence(user, id, &Edit::new(version, activated.saved.draft()))
        .await
        .unwrap();
    assert_eq!(codes(&edited), []);
    let twin = handle
        .create_sequence(user, &sequence_draft("B_start", 1))
        .await
        .unwrap();
    assert_eq!(codes(&twin), [WarningCode::SharedTrigger]);
}

#[tokio::test]
async fn an_edit_says_before_what_it_changes_for_whom_and_keeps_the_steps_that_stay() {
    let world = World::new().await;
    let device = world.device("a").await;
    let (first, second) = (
        world.lead(&device, "0123456780").await,
        world.lead(&device, "0123456781").await,
    );
    let (handle, user) = (&world.handle, &world.user);
    let of = world.sequence("a_start", 3).await;
    let id = of.sequence.id;
    let runs = world.enrolled(id, &[&first, &second]).await;
    world.settle_step(runs[1], MessageState::Failed).await;
    let ids: Vec<_> = of.list().iter().map(|step| step.id).collect();

    let mut draft = of.draft();
    let list = draft.steps.as_mut().unwrap();
    list.remove(1);
    list[1].message = Some("another".to_owned());
    list.push(step("new"));
    let edit = Edit::new(of.sequence.version, draft);
    let preview = handle.preview_sequence_edit(user, id, &edit).await.unwrap();
    let new = preview.steps.as_ref().unwrap().steps[2].id;
    assert_eq!(
        (&preview.removed[..], &preview.added[..], &preview.changed[..]),
        (&[ids[1]][..], &[new][..], &[ids[2]][..])
    );
    let effects: Vec<_> = preview
        .effects
        .iter()
        .map(|effect| {
            (
                effect.step_id,
                effect.enrolments,
                effect.moves.removed.clone(),
                effect.moves.remaining.len(),
            )
        })
        .collect();
    let expected = [(ids[0], 1, vec![ids[1]], 2), (ids[1], 1, vec![], 2)];
    assert!(expected.iter().all(|one| effects.contains(one)), "{effects:?}");
    let before = handle.sequence(user, id).await.unwrap();
    assert_eq!(before.sequence.steps_version, 1, "a preview changes nothing");

    let saved = handle.edit_sequence(user, id, &edit).await.unwrap().saved;
    assert_eq!((saved.sequence.steps_version, saved.list().len()), (2, 3));
    assert_eq!((saved.list()[0].id, saved.list()[1].id), (ids[0], ids[2]));
    let why = conflict(handle.edit_sequence(user, id, &edit).await);
    assert!(why.contains("was changed in the meantime"), "{why}");
    world.settle_step(runs[0], MessageState::Failed).await;
    let counted = async || {
        let numbers = handle.sequence_numbers(user, id, &Span::default()).await.unwrap();
        let sum: u64 = numbers.steps.iter().map(|step| step.should).sum();
        assert_eq!(numbers.should, sum);
        (numbers.should, numbers.total.failed, numbers.total.cancelled)
    };
    assert_eq!(
        counted().await,
        (7, 2, 1),
        "the second is still on its way by the first version"
    );
    world.settle_step(runs[1], MessageState::Failed).await;
    assert_eq!(counted().await, (8, 3, 1), "and now gets what is new");
}

#[tokio::test]
async fn numbers_add_up_by_step_by_device_and_over_all_sequences() {
    let world = World::new().await;
    let (a, b) = (world.device("a").await, world.device("b").await);
    let leads = [world.lead(&a, "0123456780").await, world.lead(&b, "0123456781").await];
    let (handle, user) = (&world.handle, &world.user);
    let of = world.sequence("a_start", 3).await;
    let id = of.sequence.id;
    let runs = world.enrolled(id, &[&leads[0], &leads[1]]).await;
    let all = Span::default();
    let numbers = handle.sequence_numbers(user, id, &all).await.unwrap();
    assert_eq!(
        (numbers.should, numbers.total.remaining, numbers.steps.len()),
        (6, 6, 3)
    );
    assert_eq!(numbers.devices.len(), 2);
    assert_eq!(numbers.success_rate, None);

    for _ in 0..3 {
        world.settle_step(runs[0], MessageState::Failed).await;
        world.clock.advance(Duration::from_secs(24 * 3_600));
    }
    let ended = handle.end_enrolment(user, runs[1]).await.unwrap();
    assert_eq!(ended.reason, Some(EnrolmentReason::ByPerson));
    let why = conflict(handle.end_enrolment(user, runs[1]).await);
    assert_eq!(why, "enrolment: it is ended; only one that is open can be ended");
    let numbers = handle.sequence_numbers(user, id, &all).await.unwrap();
    assert_eq!(
        (
            numbers.should,
            numbers.total.failed,
            numbers.total.cancelled,
            numbers.total.remaining
        ),
        (6, 3, 3, 0)
    );
    for step in &numbers.steps {
        let devices: u64 = step.devices.iter().map(|row| row.numbers.should()).sum();
        assert_eq!((step.should, devices), (2, 2));
    }
    assert_eq!((numbers.contacts.completed, numbers.contacts.ended), (1, 1));
    assert_eq!(numbers.contacts.ended_by, [(EnrolmentReason::ByPerson, 1)]);
    assert_eq!(numbers.success_rate, Some(0.0));

    handle.create_sequence(user, &sequence_draft("b", 1)).await.unwrap();
    let summary = handle.sequences_summary(user, &all, 1).await.unwrap();
    assert_eq!(
        (
            summary.sequences.total,
            summary.sequences.active,
            summary.sequences.draft
        ),
        (2, 1, 1)
    );
    assert_eq!(
        (summary.should, summary.total, summary.complete),
        (6, numbers.total, true)
    );
    assert_eq!(summary.recent.len(), 1);
    assert_eq!(summary.recent[0].name, "b", "the newest first");
    let other = handle.sequences_summary(&world.other, &all, 10).await.unwrap();
    assert_eq!(other.sequences.total, 0);
    assert_eq!(
        missing(handle.sequence_numbers(&world.other, id, &all).await),
        "sequence"
    );

    let early = Span {
        from: None,
        until: Some(Timestamp::from_millis(START)),
    };
    let before = handle.sequence_numbers(user, id, &early).await.unwrap();
    assert_eq!(before.total.failed, 0, "nothing was completed before it began");
}

#[tokio::test]
async fn an_active_sequence_says_when_those_in_it_will_be_through_and_which_devices_wait() {
    let world = World::new().await;
    let device = world.device("a").await;
    let lead = world.lead(&device, "0123456780").await;
    let of = world.sequence("a_start", 3).await;
    let (handle, user, id) = (&world.handle, &world.user, of.sequence.id);
    let progress = handle.sequence_progress(user, id).await.unwrap();
    assert_eq!(progress.expected_end_at, None, "nobody is in it");
    world.enrolled(id, &[&lead]).await;
    let progress = handle.sequence_progress(user, id).await.unwrap();
    assert_eq!(
        progress.expected_end_at,
        Some(handle.now() + Duration::from_secs(48 * 3_600))
    );
    handle.hold_device(user, device.id).await.unwrap();
    let progress = handle.sequence_progress(user, id).await.unwrap();
    assert_eq!(
        (progress.expected_end_at, progress.waiting_devices),
        (None, vec![device.id])
    );
}

#[tokio::test]
async fn a_deleted_sequence_ends_those_in_it_and_says_how_many() {
    let world = World::new().await;
    let device = world.device("a").await;
    let lead = world.lead(&device, "0123456780").await;
    let (handle, user) = (&world.handle, &world.user);
    let of = world.sequence("a_start", 3).await;
    let id = of.sequence.id;
    let runs = world.enrolled(id, &[&lead]).await;
    assert_eq!(missing(handle.delete_sequence(&world.other, id).await), "sequence");
    assert_eq!(handle.delete_sequence(user, id).await.unwrap().enrolments_ended, 1);
    assert_eq!(missing(handle.sequence(user, id).await), "sequence");
    handle.store().sweep(100, handle.now()).await.unwrap();
    let run = handle.contact(user, runs[0]).await.unwrap();
    assert_eq!(
        (run.enrolment.state, run.enrolment.reason),
        (EnrolmentState::Ended, Some(EnrolmentReason::SequenceDeleted))
    );
    let scope = MessageScope::Sequence(id);
    let numbers = handle.store().numbers(user, scope).await.unwrap();
    assert_eq!(numbers[0].numbers.cancelled, 1, "its numbers stay");
}
