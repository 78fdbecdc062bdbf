//! Numbers of sequences and their steps, and what lists show of flows.

use super::drip::{Drip, end_enrolment};
use super::stage::{failed, sent, unknown};
use super::world::World;
use crate::domain::access::RequestScope;
use crate::domain::enrolment::{EnrolmentCount, EnrolmentReason, EnrolmentState};
use crate::domain::message::MessageState;
use crate::domain::summary::Numbers;
use crate::store::{Change, EnrolmentFilter, MessageFilter, PageRequest, RecentOf, Span};

pub(super) async fn counts_follow_every_move_of_messages_and_enrolments(world: World) {
    let drip = Drip::new(&world).await;
    let steps = drip.steps().await;
    let (_going, _) = drip.enrolled().await;
    let (second, _) = drip.enrolled().await;
    drip.step(second).await;
    let (ended, message) = drip.enrolled().await;
    drip.tried(message, failed()).await;
    world.end(&drip.enrolment(ended).await).await;
    let (done, _) = drip.enrolled().await;
    for _ in 0..2 {
        drip.step(done).await;
    }
    drip.tried(drip.active(done).await.id, unknown()).await;
    world
        .commit(end_enrolment(
            &drip.enrolment(done).await,
            EnrolmentState::Completed,
            None,
        ))
        .await;
    let counts = world.counts(drip.user(), drip.id).await;
    let device_id = Some(drip.stage.device);
    let numbers: Vec<_> = counts
        .steps
        .iter()
        .map(|step| (step.step_id, step.device_id, step.numbers))
        .collect();
    let expected = [
        Numbers {
            done: 2,
            failed: 1,
            remaining: 1,
            ..Numbers::default()
        },
        Numbers {
            done: 1,
            remaining: 1,
            ..Numbers::default()
        },
        Numbers {
            unknown: 1,
            ..Numbers::default()
        },
    ];
    let expected: Vec<_> = steps
        .steps
        .iter()
        .zip(expected)
        .map(|(step, numbers)| (step.id, device_id, numbers))
        .collect();
    assert_eq!(numbers, expected);
    let row = |step: usize, state, reason| EnrolmentCount {
        steps_version: 1,
        step_id: steps.steps[step].id,
        device_id,
        state,
        reason,
        count: 1,
    };
    assert_eq!(
        counts.enrolments,
        [
            row(0, EnrolmentState::Open, None),
            row(0, EnrolmentState::Ended, Some(EnrolmentReason::ByPerson)),
            row(1, EnrolmentState::Open, None),
            row(2, EnrolmentState::Completed, None),
        ]
    );
    let scope = RequestScope::user(drip.user());
    let recount = world.store.recount_sequence(&scope, drip.id).await.unwrap();
    assert_eq!(recount, counts);
    let of_sequence = world.store.numbers(&scope, drip.scope()).await.unwrap();
    assert_eq!(of_sequence[0].numbers.should(), 7);
}

pub(super) async fn counts_of_a_span_hold_what_was_settled_in_it_and_what_is_open(world: World) {
    let drip = Drip::new(&world).await;
    let scope = RequestScope::user(drip.user());
    let (open, _) = drip.enrolled().await;
    let (ended, message) = drip.enrolled().await;
    drip.tried(message, sent()).await;
    let end = end_enrolment(&drip.enrolment(ended).await, EnrolmentState::Completed, None);
    world.commit_at(end, world.at(100)).await;
    let sums = async |from: Option<u64>, until: Option<u64>| {
        let span = Span {
            from: from.map(|at| world.at(at)),
            until: until.map(|at| world.at(at)),
        };
        let counts = world.store.sequence_counts(&scope, drip.id, &span).await.unwrap();
        let numbers: Numbers = counts.steps.iter().map(|step| step.numbers).sum();
        let enrolments: u64 = counts.enrolments.iter().map(|row| row.count).sum();
        (numbers.done, numbers.remaining, enrolments)
    };
    assert_eq!(sums(None, None).await, (1, 1, 2));
    assert_eq!(sums(Some(0), Some(1)).await, (1, 1, 1), "from included");
    assert_eq!(sums(Some(1), None).await, (0, 1, 2));
    assert_eq!(sums(None, Some(100)).await, (1, 1, 1), "until excluded");
    assert_eq!(sums(Some(1), Some(100)).await, (0, 1, 1));
    assert_eq!(drip.enrolment(open).await.state, EnrolmentState::Open);
}

pub(super) async fn counts_are_of_one_moment_while_people_enter(world: World) {
    let drip = Drip::new(&world).await;
    let scope = RequestScope::user(drip.user());
    let mut entering = Vec::new();
    for _ in 0..40 {
        let lead = drip.lead("COLD").await;
        entering.push(world.enrolling(&lead, drip.id).await);
    }
    let all = entering.len() as u64;
    let enrolling = async {
        for new in entering {
            world.commit(Change::Enrol(vec![new])).await;
            // A store that answers at once would let nobody count.
            tokio::task::yield_now().await;
        }
    };
    let counting = async {
        loop {
            let counts = [
                world.store.sequence_counts(&scope, drip.id, &Span::default()).await,
                world.store.recount_sequence(&scope, drip.id).await,
            ];
            let mut entered = 0;
            for counts in counts {
                let counts = counts.unwrap();
                let messages: Numbers = counts.steps.iter().map(|step| step.numbers).sum();
                entered = counts.enrolments.iter().map(|row| row.count).sum();
                assert_eq!(messages.should(), entered, "everybody enters with one message");
            }
            if entered == all {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    futures::join!(enrolling, counting);
}

pub(super) async fn a_step_sent_again_counts_once(world: World) {
    let drip = Drip::new(&world).await;
    let (_, message) = drip.enrolled().await;
    drip.tried(message, failed()).await;
    let again = world.rows.resend(&drip.stage.row(message).await);
    world.insert(again).await;
    let counts = world.counts(drip.user(), drip.id).await;
    let numbers: Numbers = counts.steps.iter().map(|step| step.numbers).sum();
    assert_eq!((numbers.failed, numbers.remaining), (0, 1));
}

pub(super) async fn messages_are_filtered_by_enrolment_and_step(world: World) {
    let drip = Drip::new(&world).await;
    let (id, first) = drip.enrolled().await;
    let (other, others_first) = drip.enrolled().await;
    let second = drip.step(id).await;
    let scope = RequestScope::user(drip.user());
    let list = async |filter: MessageFilter| {
        let page = world
            .store
            .messages(&scope, &filter, &PageRequest::first(10))
            .await
            .unwrap();
        page.rows.iter().map(|row| row.id).collect::<Vec<_>>()
    };
    let of = |id| MessageFilter {
        enrolment_id: Some(id),
        ..MessageFilter::default()
    };
    assert_eq!(list(of(id)).await, [first, second]);
    assert_eq!(list(of(other)).await, [others_first]);
    let of_step = MessageFilter {
        scope: Some(drip.scope()),
        step_id: Some(drip.steps().await.steps[0].id),
        ..MessageFilter::default()
    };
    assert_eq!(list(of_step).await, [first, others_first]);
    let sent_only = MessageFilter {
        states: vec![MessageState::Sent],
        ..of(id)
    };
    assert_eq!(list(sent_only).await, [first]);
}

pub(super) async fn enrolments_are_listed_filtered_and_in_pages(world: World) {
    let drip = Drip::new(&world).await;
    let other = world.sequence(drip.user(), &["COLD"]).await;
    let lead = drip.lead("COLD").await;
    let (one, _) = drip.enrol(&lead).await;
    let two = world.enrolled(&lead, other).await;
    let (three, _) = drip.enrolled().await;
    let (four, _) = drip.enrolled().await;
    world.end(&drip.enrolment(three).await).await;
    let scope = RequestScope::user(drip.user());
    let list = async |filter: EnrolmentFilter, limit| {
        let (mut found, mut page) = (Vec::new(), PageRequest::first(limit));
        loop {
            let got = world.store.enrolments(&scope, &filter, &page).await.unwrap();
            found.extend(got.rows.iter().map(|one| one.id));
            let Some(next) = got.next else { return found };
            page.after = Some(next);
        }
    };
    let any = EnrolmentFilter::default;
    assert_eq!(list(any(), 1).await, [one, two, three, four]);
    let of_sequence = EnrolmentFilter {
        sequence_id: Some(drip.id),
        ..any()
    };
    assert_eq!(list(of_sequence.clone(), 2).await, [one, three, four]);
    let of_lead = EnrolmentFilter {
        lead_id: Some(lead.id),
        ..any()
    };
    assert_eq!(list(of_lead, 10).await, [one, two]);
    let of_person = EnrolmentFilter {
        person: Some(world.rows.person(drip.user(), &lead.phone)),
        ..any()
    };
    assert_eq!(list(of_person, 10).await, [one, two]);
    let ended = EnrolmentFilter {
        states: vec![EnrolmentState::Ended],
        ..of_sequence
    };
    assert_eq!(list(ended, 10).await, [three]);
}

pub(super) async fn a_request_limited_to_a_device_sees_its_enrolments_and_counts_alone(world: World) {
    let drip = Drip::new(&world).await;
    let device = world.device(drip.user()).await;
    let lead = world.rows.lead_with(drip.user(), Some(device), "COLD");
    world.insert_lead(&lead).await;
    let theirs = world.enrolled(&lead, drip.id).await;
    let (own, _) = drip.enrolled().await;
    let scope = RequestScope {
        user_id: drip.user(),
        devices: Some(vec![device]),
    };
    let filter = EnrolmentFilter::default();
    let listed = world
        .store
        .enrolments(&scope, &filter, &PageRequest::first(10))
        .await
        .unwrap();
    assert_eq!(listed.rows.iter().map(|one| one.id).collect::<Vec<_>>(), [theirs]);
    assert!(world.store.enrolment(&scope, own).await.is_err());
    assert!(
        world.store.sequence(&scope, drip.id).await.is_err(),
        "it belongs to no device"
    );
    for counts in [
        world
            .store
            .sequence_counts(&scope, drip.id, &Span::default())
            .await
            .unwrap(),
        world.store.recount_sequence(&scope, drip.id).await.unwrap(),
    ] {
        assert!(counts.steps.iter().all(|row| row.device_id == Some(device)));
        assert_eq!(counts.enrolments.len(), 1);
    }
}

pub(super) async fn recent_outcomes_of_a_sequence_are_its_own(world: World) {
    let drip = Drip::new(&world).await;
    for verdict in [sent(), failed(), unknown(), super::stage::skipped()] {
        let (_, message) = drip.enrolled().await;
        drip.tried(message, verdict).await;
    }
    drip.stage.sent().await;
    let of = RecentOf::Sequence(drip.id);
    let recent = world.store.recent(of, world.now(), 50).await.unwrap();
    assert_eq!((recent.settled, recent.bad), (3, 2));
    assert_eq!(world.store.recent(of, world.now(), 1).await.unwrap().settled, 1);
    assert_eq!(world.store.recent(of, world.at(1), 50).await.unwrap().settled, 0);
    let delete = Change::DeleteSequence {
        user_id: drip.user(),
        sequence_id: drip.id,
    };
    world.commit(delete).await;
}
