//! What WhatsApp holds against an account: read, recorded, and obeyed.

use std::time::Duration;

use wa_core::domain::device::{NewChatsWarning, RestrictionCause};
use wa_core::domain::message::{MessageScope, MessageState, Reason};
use wa_core::event::EventKind;
use wa_core::id::EventId;
use wa_core::simulation::forecast::{ForecastControl, ForecastOptions, ForecastWarningCode};
use wa_core::store::EventStore;
use wa_core::time::Timestamp;
use wa_core::transport::{NotSentKind, RestrictionScope, SendError, TransportEvent};
use wa_loopback::{Answer, CapStatus, LoginFault, MessageFault, NewChatCap, QueryFault, Rule, Timelock};

use crate::rig::{LIMIT, OWN, Rig, options};
use crate::town::{Town, seconds_from_now, until};

const HOUR: Duration = Duration::from_secs(3_600);
const STRANGERS: [&str; 3] = ["60120000001", "60120000002", "60120000003"];
const FRIENDS: [&str; 2] = ["60120000004", "60120000005"];

fn seconds(at: Timestamp) -> i64 {
    at.as_millis() / 1_000
}

/// Waits for a report of a restriction and gives its end.
async fn told(rig: &Rig, from: usize, of: RestrictionScope) -> Option<Timestamp> {
    rig.heard
        .wait_from(from, "a report of a restriction", |_, event| match event {
            TransportEvent::Restriction { scope, until, .. } if *scope == of => Some(*until),
            _ => None,
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timelock_is_told_with_its_end_when_it_is_set_lifted_or_there_at_the_start() {
    let mut rig = Rig::linked().await;
    assert_eq!(
        told(&rig, 0, RestrictionScope::Cold).await,
        None,
        "asked when connected"
    );
    let heard = rig.heard.len();
    let until_s = seconds_from_now(HOUR);
    rig.server.set_timelock(OWN, Some(Timelock::until(until_s)));
    assert_eq!(
        told(&rig, heard, RestrictionScope::Cold).await.map(seconds),
        Some(until_s)
    );
    let heard = rig.heard.len();
    rig.restart(options());
    assert_eq!(
        told(&rig, heard, RestrictionScope::Cold).await.map(seconds),
        Some(until_s)
    );
    let heard = rig.heard.len();
    rig.server.set_timelock(OWN, None);
    assert_eq!(told(&rig, heard, RestrictionScope::Cold).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_new_chats_is_told_with_what_is_used_of_it() {
    let rig = Rig::linked().await;
    let heard = rig.heard.len();
    let ends_s = seconds_from_now(HOUR * 24);
    let cap = NewChatCap::new(50, 20, ends_s - 1_000, ends_s).status(CapStatus::FirstWarning);
    rig.server.set_new_chat_cap(OWN, Some(cap));
    let chats = rig
        .heard
        .wait_from(heard, "the limit", |_, event| match event {
            TransportEvent::NewChats(Some(chats)) => Some(*chats),
            _ => None,
        })
        .await;
    assert_eq!((chats.total, chats.used, seconds(chats.ends_at)), (50, 20, ends_s));
    assert_eq!((chats.warning, chats.budget()), (NewChatsWarning::First, 12));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_message_says_when_the_timelock_ends() {
    let rig = Rig::linked().await;
    rig.server.add_account(STRANGERS[0], "Aminah");
    let until_s = seconds_from_now(HOUR);
    rig.server.set_timelock(OWN, Some(Timelock::until(until_s)));
    let refused = rig.send(&rig.message(1, STRANGERS[0], "hello")).await.unwrap_err();
    let SendError::NotSent(refusal) = refused else {
        panic!("{refused:?}")
    };
    let NotSentKind::Restricted { until, scope } = refusal.kind else {
        panic!("{refusal:?}")
    };
    assert_eq!((until.map(seconds), scope), (Some(until_s), RestrictionScope::Cold));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ban_is_told_for_the_whole_account_with_its_end() {
    let mut rig = Rig::new().await;
    rig.seed(OWN).await;
    rig.server.fault(Rule::login(LoginFault::banned(101, 3_600)));
    rig.restart(options());
    let until = told(&rig, 0, RestrictionScope::All).await.unwrap();
    assert!((seconds(until) - seconds_from_now(HOUR)).abs() < 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_that_are_not_told_are_asked_for_again_after_a_rest_and_hold_nothing_up() {
    let mut rig = Rig::with(options()).await;
    rig.seed(OWN).await;
    let rule = rig
        .server
        .fault(Rule::query("w:mex", QueryFault::rate_limited(None)).always());
    rig.restart(options());
    rig.server.add_account(STRANGERS[0], "Aminah");
    let device = rig.owner.device_id;
    rig.heard.state(device, wa_core::domain::device::LinkState::Ready).await;
    until("the question", async || (rig.server.fired(rule) > 0).then_some(())).await;
    rig.send(&rig.message(1, STRANGERS[0], "hello")).await.unwrap();
    rig.server
        .set_timelock(OWN, Some(Timelock::until(seconds_from_now(HOUR))));
    rig.server.add_account(STRANGERS[1], "Ali");
    let refused = rig.send(&rig.message(2, STRANGERS[1], "hello")).await.unwrap_err();
    let unknown = NotSentKind::Restricted {
        until: None,
        scope: RestrictionScope::Cold,
    };
    assert!(matches!(refused, SendError::NotSent(refusal) if refusal.kind == unknown));
    assert_eq!(rig.server.fired(rule), 1, "asked once, and then left alone for a while");
}

/// Friends have written to the device; strangers have not.
async fn acquainted() -> (Town, Vec<wa_loopback::Person>, Vec<wa_loopback::Person>) {
    let town = Town::new().await;
    let (mut strangers, mut friends) = (Vec::new(), Vec::new());
    for phone in STRANGERS {
        strangers.push(town.person(phone, "Stranger").await.0);
    }
    for phone in FRIENDS {
        let (friend, _) = town.person(phone, "Friend").await;
        friend.send_text(OWN, "ada stok?").await.unwrap();
        friends.push(friend);
    }
    until("both to be heard", async || {
        let user = &town.user;
        let events = town.store.events(user, EventId::MIN, 100).await.unwrap();
        let replies = events
            .iter()
            .filter(|event| matches!(event.kind, EventKind::Reply { .. }));
        (replies.count() == FRIENDS.len()).then_some(())
    })
    .await;
    (town, strangers, friends)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timelock_stops_messages_to_strangers_within_one_and_nothing_else_and_they_go_on_afterwards() {
    let (town, strangers, friends) = acquainted().await;
    let until_s = seconds_from_now(Duration::from_secs(20));
    town.server.set_timelock(OWN, Some(Timelock::until(until_s)));
    let campaign = town.campaign("Offer", "Hi {{name}}").await;
    let scope = MessageScope::Campaign(campaign);
    for friend in &friends {
        friend.next_message(LIMIT).await.unwrap();
    }
    for phone in FRIENDS {
        town.wait_message(scope, phone, MessageState::Sent).await;
    }
    let waiting = until("the strangers to wait", async || {
        let mut waiting = Vec::new();
        for phone in STRANGERS {
            let message = town.message_to(scope, phone).await?;
            let waits = message.state == MessageState::Queued && message.reason == Some(Reason::Restricted);
            waiting.extend(Some(message).filter(|message| waits && seconds(message.due_at) + 1 >= until_s));
        }
        (waiting.len() == STRANGERS.len()).then_some(waiting)
    })
    .await;
    assert!(waiting.iter().all(|message| message.refusal_count == 0));
    let refused = |town: &Town| {
        let sent = town.server.sent();
        let nacked = sent.iter().filter(|sent| matches!(sent.answer, Answer::Nacked(_)));
        nacked.count()
    };
    assert!(refused(&town) <= 1, "one message at most meets the lock");
    let restriction = town.device().await.restriction.unwrap();
    assert_eq!(
        (restriction.scope, restriction.cause, seconds(restriction.until_at)),
        (RestrictionScope::Cold, RestrictionCause::Timelock, until_s)
    );
    let options = ForecastOptions::default();
    let forecast = town
        .handle
        .forecast_campaign(&town.user, campaign, &options, &ForecastControl::default())
        .await
        .unwrap();
    assert!(
        forecast.ends_at.is_some_and(|at| seconds(at) >= until_s),
        "{forecast:?}"
    );
    let warned = forecast
        .warnings
        .iter()
        .any(|warning| warning.code == ForecastWarningCode::Restricted);
    assert!(warned, "{:?}", forecast.warnings);

    for stranger in &strangers {
        stranger.next_message(LIMIT).await.unwrap();
    }
    assert!(seconds_from_now(Duration::ZERO) >= until_s);
    for phone in STRANGERS.iter().chain(&FRIENDS) {
        town.wait_message(scope, phone, MessageState::Sent).await;
    }
    assert!(refused(&town) <= 1);
    let events = town.store.events(&town.user, EventId::MIN, 100).await.unwrap();
    let restrictions = events
        .iter()
        .filter(|event| matches!(event.kind, EventKind::DeviceRestriction { .. }));
    assert_eq!(restrictions.count(), 1);
    town.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_lifted_early_lets_those_go_who_waited_for_it() {
    let (town, strangers, _) = acquainted().await;
    town.server
        .set_timelock(OWN, Some(Timelock::until(seconds_from_now(HOUR))));
    until("the restriction", async || town.device().await.restriction).await;
    let scope = MessageScope::Campaign(town.campaign("Offer", "Hi {{name}}").await);
    until("a stranger to wait", async || {
        let message = town.message_to(scope, STRANGERS[2]).await?;
        (message.reason == Some(Reason::Restricted)).then_some(())
    })
    .await;
    town.server.set_timelock(OWN, None);
    for stranger in &strangers {
        stranger.next_message(LIMIT).await.unwrap();
    }
    town.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_who_writes_is_answered_although_strangers_wait() {
    let (town, strangers, _) = acquainted().await;
    town.server
        .set_timelock(OWN, Some(Timelock::until(seconds_from_now(HOUR))));
    until("the restriction", async || town.device().await.restriction).await;
    let scope = MessageScope::Campaign(town.campaign("Offer", "Hi {{name}}").await);
    until("a stranger to wait", async || {
        let message = town.message_to(scope, STRANGERS[0]).await?;
        (message.reason == Some(Reason::Restricted)).then_some(())
    })
    .await;
    strangers[0].send_text(OWN, "hello?").await.unwrap();
    strangers[0].next_message(LIMIT).await.unwrap();
    town.wait_message(scope, STRANGERS[0], MessageState::Sent).await;
    let other = town.message_to(scope, STRANGERS[1]).await.unwrap();
    assert_eq!(other.state, MessageState::Queued);
    town.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_without_a_lock_rests_strangers_for_an_hour_and_fails_nothing() {
    let (town, _, friends) = acquainted().await;
    town.server
        .fault(Rule::message(MessageFault::Nack(463)).to(STRANGERS[0]));
    let scope = MessageScope::Campaign(town.campaign("Offer", "Hi {{name}}").await);
    let waits = until("it to wait", async || {
        let message = town.message_to(scope, STRANGERS[0]).await?;
        let due = message.due_at >= town.handle.now() + Duration::from_secs(3_000);
        (message.state == MessageState::Queued && due).then_some(message)
    })
    .await;
    assert_eq!((waits.reason, waits.refusal_count), (Some(Reason::Restricted), 0));
    for friend in &friends {
        friend.next_message(LIMIT).await.unwrap();
    }
    let restriction = until("the restriction", async || town.device().await.restriction).await;
    assert_eq!(restriction.cause, RestrictionCause::Refused);
    town.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_whatsapp_leaves_of_new_chats_is_not_overdrawn() {
    let (town, strangers, friends) = acquainted().await;
    let ends_s = seconds_from_now(HOUR * 100);
    town.server
        .set_new_chat_cap(OWN, Some(NewChatCap::new(10, 8, ends_s - 1_000, ends_s)));
    until("the limit", async || town.device().await.new_chats).await;
    let scope = MessageScope::Campaign(town.campaign("Offer", "Hi {{name}}").await);
    for friend in &friends {
        friend.next_message(LIMIT).await.unwrap();
    }
    // Ten percent are kept back: one of the two that are left may be begun, the others wait for the next cycle.
    let waiting = until("two to wait", async || {
        let mut waiting = Vec::new();
        for phone in STRANGERS {
            let message = town.message_to(scope, phone).await?;
            let waits = message.state == MessageState::Queued && message.due_at > town.handle.now() + HOUR / 2;
            waiting.extend(waits.then_some((message.reason, seconds(message.due_at))));
        }
        (waiting.len() == 2).then_some(waiting)
    })
    .await;
    for (reason, due_s) in waiting {
        assert_eq!(reason, Some(Reason::ColdPace));
        assert!(
            due_s + 1 >= ends_s,
            "{} seconds before the end of the cycle",
            ends_s - due_s
        );
    }
    let reached = strangers.iter().filter(|stranger| !stranger.inbox().is_empty());
    assert!(reached.count() <= 1);
    town.close().await;
}
