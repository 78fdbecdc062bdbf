//! Outcomes are facts: what each moves, what it does not, and what is left of one that comes too late.

use super::stage::{Stage, doubt_until, failed, not_found, requeue, sent, skipped, unknown};
use super::world::{World, assert_kind};
use crate::domain::campaign::CampaignStatus;
use crate::domain::delivery::Delivery;
use crate::domain::device::Epoch;
use crate::domain::message::{Message, MessageState, Reason};
use crate::id::{AttemptId, MessageId};
use crate::store::{Outcome, Settle, Settled, StoreErrorKind, Verdict};
use crate::transport::{MaybeSentCause, TransportMessageId};

fn verdicts(stage: &Stage) -> [(Verdict, MessageState, Option<Reason>); 6] {
    let now = stage.now();
    [
        (sent(), MessageState::Sent, None),
        (requeue(now), MessageState::Queued, Some(Reason::RateLimited)),
        (failed(), MessageState::Failed, Some(Reason::Rejected)),
        (skipped(), MessageState::Skipped, Some(Reason::NotOnWhatsApp)),
        (doubt_until(now), MessageState::InDoubt, None),
        (unknown(), MessageState::Unknown, Some(Reason::CannotTell)),
    ]
}

pub(super) async fn a_message_that_is_being_sent_moves_as_the_verdict_says(world: World) {
    let stage = world.stage().await;
    for (verdict, state, reason) in verdicts(&stage) {
        let (id, attempt) = stage.sending().await;
        assert_eq!(stage.settle(id, attempt, verdict).await, Settled::Yes(state));
        let row = stage.row(id).await;
        assert_eq!(row.state, state);
        if reason.is_some() {
            assert_eq!(row.reason, reason);
        }
        assert_eq!(row.settled_at.is_some(), !state.is_open());
        assert_eq!(
            row.attempt.map(|attempt| attempt.id),
            Some(attempt),
            "the newest attempt stays"
        );
    }
}

pub(super) async fn a_message_in_doubt_moves_as_the_verdict_says(world: World) {
    let stage = world.stage().await;
    for (verdict, state, _) in verdicts(&stage) {
        if state == MessageState::InDoubt {
            continue;
        }
        let (id, attempt) = stage.in_doubt().await;
        let verdict = match verdict {
            Verdict::Requeue { due_at, .. } => not_found(due_at),
            other => other,
        };
        assert_eq!(stage.settle(id, attempt, verdict).await, Settled::Yes(state));
        let row = stage.row(id).await;
        assert_eq!((row.state, row.doubt), (state, None));
    }
}

pub(super) async fn an_outcome_repeated_is_already_there(world: World) {
    let stage = world.stage().await;
    for (verdict, state, _) in verdicts(&stage) {
        let (id, attempt) = stage.sending().await;
        stage.settle(id, attempt, verdict.clone()).await;
        let before = stage.row(id).await;
        assert_eq!(stage.settle(id, attempt, verdict).await, Settled::Already, "{state:?}");
        assert_eq!(stage.row(id).await, before);
    }
}

pub(super) async fn a_settled_message_keeps_its_state_whatever_else_is_said(world: World) {
    let stage = world.stage().await;
    for (first, state, _) in verdicts(&stage) {
        if state.is_open() || state == MessageState::Unknown {
            continue;
        }
        for (second, other, _) in verdicts(&stage) {
            if other == state {
                continue;
            }
            let (id, attempt) = stage.sending().await;
            stage.settle(id, attempt, first.clone()).await;
            let before = stage.row(id).await;
            let settled = stage.settle(id, attempt, second).await;
            assert!(
                matches!(settled, Settled::NotSending | Settled::Already),
                "{state:?} then {other:?}: {settled:?}"
            );
            assert_eq!(stage.row(id).await, before, "{state:?} then {other:?}");
        }
    }
}

pub(super) async fn an_outcome_of_another_attempt_moves_nothing(world: World) {
    let stage = world.stage().await;
    let queued = stage.queued().await;
    let (doubtful, first) = stage.in_doubt().await;
    let (requeued, old) = stage.sending().await;
    stage.settle(requeued, old, requeue(world.now())).await;
    stage.begin(requeued).await;
    let invented = world.rows.attempt_id();
    for (id, attempt) in [
        (queued, invented),
        (doubtful, invented),
        (requeued, old),
        (requeued, invented),
        (queued, first),
    ] {
        for (verdict, _, _) in verdicts(&stage) {
            let before = stage.row(id).await;
            assert_eq!(stage.settle(id, attempt, verdict).await, Settled::NotSending);
            assert_eq!(stage.row(id).await, before);
        }
    }
}

pub(super) async fn an_outcome_about_another_users_message_moves_nothing(world: World) {
    let stage = world.stage().await;
    let (id, attempt) = stage.sending().await;
    let other = world.user().await;
    let outcome = Outcome {
        user_id: other,
        ..stage.outcome(id, attempt, sent())
    };
    let settled = stage.settle_as(stage.node, outcome).await;
    assert!(
        !matches!(settled, Ok(Settled::Yes(_) | Settled::Lost(true))),
        "{settled:?}"
    );
    assert_eq!(stage.state(id).await, MessageState::Sending);
}

pub(super) async fn outcomes_are_answered_one_by_one_in_order(world: World) {
    let stage = world.stage().await;
    let (doubtful, first) = stage.in_doubt().await;
    let queued = stage.queued().await;
    let (sending, second) = stage.sending().await;
    let settle = Settle {
        incarnation: stage.node,
        outcomes: vec![
            stage.outcome(queued, second, sent()),
            stage.outcome(sending, second, failed()),
            stage.outcome(doubtful, first, sent()),
        ],
        now: world.now(),
    };
    let settled = world.store.settle(&settle).await.unwrap();
    let expected = [
        Settled::NotSending,
        Settled::Yes(MessageState::Failed),
        Settled::Yes(MessageState::Sent),
    ];
    assert_eq!(settled, expected);
}

pub(super) async fn a_success_keeps_the_vendors_id_the_delivery_and_the_words(world: World) {
    let stage = world.stage().await;
    let (id, attempt) = stage.sending().await;
    let provider_id = TransportMessageId::new("vendor/Ω");
    let outcome = Outcome {
        detail: Some("accepted — 'ok'".to_owned()),
        ..stage.outcome(
            id,
            attempt,
            Verdict::Sent {
                provider_id: provider_id.clone(),
                delivery: Some(Delivery::Delivered),
            },
        )
    };
    stage.settle_as(stage.node, outcome).await.unwrap();
    let row = stage.row(id).await;
    assert_eq!(row.attempt.unwrap().provider_id, provider_id);
    assert_eq!(
        (row.delivery, row.delivery_at),
        (Some(Delivery::Delivered), Some(world.now()))
    );
    assert_eq!(row.detail.as_deref(), Some("accepted — 'ok'"));
    assert_eq!(row.settled_at, Some(world.now()));
}

pub(super) async fn a_refused_message_waits_until_it_is_due_again(world: World) {
    let stage = world.stage().await;
    let (id, attempt) = stage.sending().await;
    stage.settle(id, attempt, requeue(world.now())).await;
    let row = stage.row(id).await;
    assert_eq!((row.state, row.due_at), (MessageState::Queued, world.at(60)));
    assert_eq!(row.refusal_count, 0, "it was not its own fault");
    assert!(stage.due_at(world.at(59)).await.is_empty());
    assert_eq!(stage.due_at(world.at(60)).await.len(), 1);
}

pub(super) async fn a_refused_message_goes_where_its_scope_and_person_ask(world: World) {
    let stage = world.stage().await;
    let (paused, attempt) = stage.sending().await;
    stage.pause().await;
    let settled = stage.settle(paused, attempt, requeue(world.now())).await;
    assert_eq!(settled, Settled::Yes(MessageState::Held));
    assert_eq!(stage.row(paused).await.held_at, Some(world.now()));

    let stage = world.stage().await;
    let (cancelled, attempt) = stage.sending().await;
    stage.cancel().await;
    let settled = stage.settle(cancelled, attempt, requeue(world.now())).await;
    assert_eq!(settled, Settled::Yes(MessageState::Cancelled));
    assert_eq!(stage.row(cancelled).await.reason, Some(Reason::ScopeEnded));

    let stage = world.stage().await;
    let (suppressed, attempt) = stage.sending().await;
    stage.opt_out(suppressed).await;
    let settled = stage.settle(suppressed, attempt, requeue(world.now())).await;
    assert_eq!(settled, Settled::Yes(MessageState::Skipped));
    assert_eq!(stage.row(suppressed).await.reason, Some(Reason::Suppressed));

    let stage = world.stage().await;
    let (gone, attempt) = stage.sending().await;
    stage.delete_device().await;
    let settled = stage.settle(gone, attempt, requeue(world.now())).await;
    assert_eq!(settled, Settled::Yes(MessageState::Skipped));
    assert_eq!(stage.row(gone).await.reason, Some(Reason::DeviceGone));
}

pub(super) async fn a_success_counts_whatever_became_of_scope_person_and_device(world: World) {
    let stage = world.stage().await;
    let (id, attempt) = stage.sending().await;
    stage.cancel().await;
    stage.opt_out(id).await;
    stage.delete_device().await;
    assert_eq!(
        stage.settle(id, attempt, sent()).await,
        Settled::Yes(MessageState::Sent)
    );
}

pub(super) async fn a_message_refused_too_often_by_its_own_fault_fails(world: World) {
    let stage = world.stage().await;
    let id = stage.queued().await;
    let refused = |due_at| Verdict::Requeue {
        reason: Reason::NeverHandedOver,
        due_at,
        counts: true,
    };
    for count in 1..=Message::REFUSALS_MAX {
        let attempt = stage.begin(id).await;
        let settled = stage.settle(id, attempt, refused(world.now())).await;
        assert_eq!(settled, Settled::Yes(MessageState::Queued));
        assert_eq!(stage.row(id).await.refusal_count, count);
    }
    let attempt = stage.begin(id).await;
    let settled = stage.settle(id, attempt, refused(world.now())).await;
    assert_eq!(settled, Settled::Yes(MessageState::Failed));
    assert_eq!(stage.row(id).await.reason, Some(Reason::RefusedTooOften));
}

pub(super) async fn what_may_have_been_sent_when_its_scope_ended_becomes_unknown(world: World) {
    for opted_out in [false, true] {
        let stage = world.stage().await;
        let (id, attempt) = stage.sending().await;
        if opted_out {
            stage.opt_out(id).await;
        } else {
            stage.cancel().await;
        }
        let settled = stage.settle(id, attempt, doubt_until(world.at(90))).await;
        assert_eq!(settled, Settled::Yes(MessageState::Unknown));
        assert_eq!(stage.row(id).await.reason, Some(Reason::EndedInDoubt));
    }
}

pub(super) async fn what_may_have_been_sent_when_its_scope_was_paused_waits_in_doubt(world: World) {
    let stage = world.stage().await;
    let (id, attempt) = stage.sending().await;
    stage.pause().await;
    let settled = stage.settle(id, attempt, doubt_until(world.at(90))).await;
    assert_eq!(settled, Settled::Yes(MessageState::InDoubt));
}

pub(super) async fn a_fenced_node_settles_nothing(world: World) {
    let stage = world.stage().await;
    let (id, attempt) = stage.sending().await;
    let by = stage.take_over().await;
    let outcome = stage.outcome(id, attempt, sent());
    assert_kind(
        stage.settle_as(stage.node, outcome.clone()).await,
        StoreErrorKind::Fenced,
    );
    assert_eq!(stage.state(id).await, MessageState::InDoubt);
    // What it knows is evidence all the same, brought by a node that is not fenced.
    assert_eq!(stage.settle_as(by, outcome).await.unwrap(), Settled::Lost(true));
    assert_eq!(stage.state(id).await, MessageState::Sent);
}

/// A message and its attempt under an epoch that is lost now, and the states it is in.
async fn lost(world: &World, state: MessageState) -> (Stage, MessageId, AttemptId) {
    let stage = world.stage().await;
    let (id, attempt) = match state {
        MessageState::InDoubt => stage.in_doubt().await,
        MessageState::Unknown => stage.unknown().await,
        MessageState::Sent => stage.sent().await,
        MessageState::Queued | MessageState::Held | MessageState::Cancelled | MessageState::Skipped => {
            let (id, attempt) = stage.sending().await;
            match state {
                MessageState::Held => stage.pause().await,
                MessageState::Cancelled => stage.cancel().await,
                MessageState::Skipped => stage.opt_out(id).await,
                _ => {}
            }
            stage.settle(id, attempt, requeue(world.now())).await;
            (id, attempt)
        }
        MessageState::Failed => {
            let (id, attempt) = stage.sending().await;
            stage.settle(id, attempt, failed()).await;
            (id, attempt)
        }
        MessageState::Sending => stage.sending().await,
    };
    assert_eq!(stage.state(id).await, state);
    (stage, id, attempt)
}

pub(super) async fn late_evidence_settles_what_is_open_or_unknown(world: World) {
    use MessageState::{Held, InDoubt, Queued, Unknown};
    for state in [Queued, Held, InDoubt, Unknown] {
        for (verdict, becomes) in [(sent(), MessageState::Sent), (failed(), MessageState::Failed)] {
            let (stage, id, attempt) = lost(&world, state).await;
            let _next = stage.hand_over().await;
            let settled = stage.settle(id, attempt, verdict).await;
            assert_eq!(settled, Settled::Lost(true), "{state:?} -> {becomes:?}");
            let row = stage.row(id).await;
            assert_eq!((row.state, row.doubt, row.held_at), (becomes, None, None));
        }
    }
}

pub(super) async fn late_evidence_moves_nothing_else(world: World) {
    use MessageState::{Cancelled, Failed, Held, InDoubt, Queued, Sent, Skipped, Unknown};
    for state in [Queued, Held, InDoubt, Unknown, Sent, Failed, Skipped, Cancelled] {
        let (stage, id, attempt) = lost(&world, state).await;
        let _next = stage.hand_over().await;
        let before = stage.row(id).await;
        for (verdict, becomes, _) in verdicts(&stage) {
            let proves = matches!(becomes, Sent | Failed);
            if proves && matches!(state, Queued | Held | InDoubt | Unknown) {
                continue;
            }
            let settled = stage.settle(id, attempt, verdict).await;
            assert!(
                matches!(settled, Settled::Lost(false) | Settled::Already),
                "{state:?} -> {becomes:?}: {settled:?}"
            );
            assert_eq!(stage.row(id).await, before, "{state:?} -> {becomes:?}");
        }
    }
}

pub(super) async fn late_evidence_does_not_touch_an_attempt_that_was_begun_since(world: World) {
    let (stage, id, old) = lost(&world, MessageState::Queued).await;
    let next = stage.hand_over().await;
    let newer = next.begin(id).await;
    for verdict in [sent(), failed()] {
        assert_eq!(stage.settle(id, old, verdict).await, Settled::Lost(false));
        assert_eq!(stage.state(id).await, MessageState::Sending);
    }
    assert_eq!(next.settle(id, newer, sent()).await, Settled::Yes(MessageState::Sent));
}

pub(super) async fn an_old_epoch_has_no_say_about_what_its_successor_sends_again(world: World) {
    let (stage, id, attempt) = lost(&world, MessageState::InDoubt).await;
    let next = stage.hand_over().await;
    let mut item = next.item(id);
    item.attempt_id = attempt;
    item.again = true;
    assert_eq!(next.try_begin(&item).await, crate::store::Begun::Yes);
    let settled = stage.settle(id, attempt, requeue(world.now())).await;
    assert_eq!(settled, Settled::Lost(false));
    assert_eq!(stage.state(id).await, MessageState::Sending, "it is in the air again");
    let invented = Outcome {
        epoch: Epoch(next.epoch.0 + 1),
        ..next.outcome(id, attempt, requeue(world.now()))
    };
    assert_eq!(next.settle_as(next.node, invented).await.unwrap(), Settled::Lost(false));
    assert_eq!(stage.state(id).await, MessageState::Sending);
}

pub(super) async fn a_declined_message_leaves_its_lane_with_its_reason(world: World) {
    let stage = world.stage().await;
    for state in [MessageState::Skipped, MessageState::Failed] {
        let id = stage.queued().await;
        let mut item = stage.declined(id, state);
        item.detail = Some("4,100 characters".to_owned());
        assert_eq!(world.store.decline(&[item], world.at(2)).await.unwrap(), 1);
        let row = stage.row(id).await;
        assert_eq!((row.state, row.reason), (state, Some(Reason::TooLong)));
        assert_eq!(
            (row.detail.as_deref(), row.settled_at),
            (Some("4,100 characters"), Some(world.at(2)))
        );
        assert_eq!(row.attempt, None);
    }
}

pub(super) async fn a_message_put_off_stays_queued_and_is_due_later(world: World) {
    let stage = world.stage().await;
    let id = stage.queued().await;
    let mut item = stage.declined(id, MessageState::Queued);
    item.reason = Reason::GatewayUnavailable;
    item.due_at = Some(world.at(300));
    assert_eq!(world.store.decline(&[item], world.now()).await.unwrap(), 1);
    let row = stage.row(id).await;
    assert_eq!((row.state, row.due_at), (MessageState::Queued, world.at(300)));
    assert_eq!(row.reason, Some(Reason::GatewayUnavailable));
}

pub(super) async fn declining_leaves_alone_what_is_not_queued_on_the_device(world: World) {
    for state in MessageState::ALL {
        if state == MessageState::Queued {
            continue;
        }
        let stage = world.stage().await;
        let id = super::outbox_insert::in_state(&stage, state).await;
        let before = stage.row(id).await;
        let item = stage.declined(id, MessageState::Skipped);
        assert_eq!(world.store.decline(&[item], world.now()).await.unwrap(), 0, "{state:?}");
        assert_eq!(stage.row(id).await, before);
    }
    let stage = world.stage().await;
    let id = stage.queued().await;
    let elsewhere = world.device(stage.user).await;
    let owned = world.claim(stage.node).await;
    let mut item = stage.declined(id, MessageState::Skipped);
    item.device_id = elsewhere;
    item.epoch = owned[0].epoch;
    assert_eq!(world.store.decline(&[item], world.now()).await.unwrap(), 0);
    assert_eq!(stage.state(id).await, MessageState::Queued);
}

pub(super) async fn only_the_owner_declines(world: World) {
    let stage = world.stage().await;
    let id = stage.queued().await;
    let mut stale = stage.declined(id, MessageState::Skipped);
    stale.epoch = Epoch(stage.epoch.0 - 1);
    assert_eq!(world.store.decline(&[stale], world.now()).await.unwrap(), 0);
    let mut stranger = stage.declined(id, MessageState::Skipped);
    stranger.incarnation = world.node().await;
    assert_eq!(world.store.decline(&[stranger], world.now()).await.unwrap(), 0);
    stage.take_over().await;
    let fenced = stage.declined(id, MessageState::Skipped);
    assert_kind(
        world.store.decline(&[fenced], world.now()).await,
        StoreErrorKind::Fenced,
    );
    assert_eq!(stage.state(id).await, MessageState::Queued);
}

pub(super) async fn every_cause_of_doubt_is_kept(world: World) {
    let stage = world.stage().await;
    for cause in [
        MaybeSentCause::Timeout,
        MaybeSentCause::ConnectionLost,
        MaybeSentCause::ServerError,
        MaybeSentCause::Unreadable,
        MaybeSentCause::Interrupted,
    ] {
        let (id, attempt) = stage.sending().await;
        let verdict = Verdict::InDoubt {
            cause,
            next_check_at: world.at(90),
            not_found_count: 0,
        };
        stage.settle(id, attempt, verdict).await;
        let doubt = stage.row(id).await.doubt.unwrap();
        assert_eq!((doubt.cause, doubt.next_check_at), (Some(cause), world.at(90)));
        assert_eq!((doubt.since_at, doubt.resend_count), (world.now(), 0));
    }
}

pub(super) async fn every_reason_is_kept(world: World) {
    let stage = world.stage().await;
    for reason in Reason::ALL {
        let (id, attempt) = stage.sending().await;
        stage.settle(id, attempt, Verdict::Failed { reason }).await;
        assert_eq!(stage.row(id).await.reason, Some(reason));
    }
    assert_eq!(
        world.campaign_of(stage.user, stage.campaign).await.status,
        CampaignStatus::Triggered
    );
}

pub(super) async fn a_success_told_again_adds_what_it_knows_more(world: World) {
    let stage = world.stage().await;
    let (id, attempt) = stage.sending().await;
    let sent = |provider_id, delivery| Verdict::Sent { provider_id, delivery };
    stage.settle(id, attempt, sent(None, None)).await;
    let provider_id = TransportMessageId::new("vendor-9");
    let more = sent(provider_id.clone(), Some(Delivery::Read));
    assert_eq!(stage.settle(id, attempt, more).await, Settled::Already);
    let row = stage.row(id).await;
    assert_eq!(row.delivery, Some(Delivery::Read));
    assert_eq!(row.attempt.unwrap().provider_id, provider_id);
    let less = sent(TransportMessageId::new("another"), Some(Delivery::Delivered));
    stage.settle(id, attempt, less).await;
    let row = stage.row(id).await;
    assert_eq!(row.delivery, Some(Delivery::Read));
    assert_eq!(row.attempt.unwrap().provider_id, provider_id);
}

pub(super) async fn the_owners_own_late_outcome_is_evidence_too(world: World) {
    for state in [MessageState::Queued, MessageState::Held, MessageState::Unknown] {
        let (stage, id, attempt) = lost(&world, state).await;
        assert_eq!(
            stage.settle(id, attempt, sent()).await,
            Settled::Yes(MessageState::Sent),
            "{state:?}"
        );
    }
}

pub(super) async fn declining_to_any_other_state_is_refused_as_a_whole(world: World) {
    let stage = world.stage().await;
    let (first, second) = (stage.queued().await, stage.queued().await);
    for state in MessageState::ALL {
        if matches!(
            state,
            MessageState::Skipped | MessageState::Failed | MessageState::Queued
        ) {
            continue;
        }
        let items = [
            stage.declined(first, MessageState::Skipped),
            stage.declined(second, state),
        ];
        assert_kind(world.store.decline(&items, world.now()).await, StoreErrorKind::Conflict);
        assert_eq!(stage.state(first).await, MessageState::Queued, "{state:?}");
    }
}
