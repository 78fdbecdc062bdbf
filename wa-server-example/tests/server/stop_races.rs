//! Opt-out, pause and cancel at random moments: once the call has returned, only what was begun before it still reaches the
//! gateway: at most one message per device, and none later than two seconds.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt as _;
use wa_core::seed::Seed;
use wa_core::time::{Clock, SystemClock, Timestamp};
use wa_server_example::loopback::FaultShares;

use crate::api::Api;
use crate::play::{LOGIN, Play, Setting, per_number};
use crate::server_process::ServerProcess;

/// How long after a call a message that was begun before it may reach the gateway.
const BEGIN_TO_SEND_MAX: Duration = Duration::from_secs(2);
/// How long is looked for messages that must not come.
const LOOK: Duration = Duration::from_millis(3_500);
/// How long a campaign may take to its end.
const END_MAX: Duration = Duration::from_secs(120);

const DEVICES: usize = 12;
const LEADS: u64 = 1_200;

/// A campaign that is being sent.
struct Race {
    play: Play,
    api: Api,
    clock: SystemClock,
    _server: ServerProcess,
}

impl Race {
    async fn start(seed: u64) -> Self {
        let play = Play::set(Setting {
            devices: DEVICES,
            leads: usize::try_from(LEADS).unwrap(),
            seed,
            faults: FaultShares::NONE,
        })
        .await;
        let server = play.server().await;
        Self {
            api: Api::login(server.address(), LOGIN).await,
            play,
            clock: SystemClock::new(),
            _server: server,
        }
    }

    async fn act(&self, action: &str) {
        self.api.campaign(self.play.stage.campaign_id, action).await;
    }

    /// Waits until the gateways have recorded so many messages more.
    async fn sent(&self, more: u64) {
        let count = self.play.recorded() + more;
        let mut look = tokio::time::interval(Duration::from_millis(1));
        let enough = async {
            while self.play.recorded() < count {
                look.tick().await;
            }
        };
        let sent = tokio::time::timeout(END_MAX, enough).await;
        sent.expect("the campaign is sent");
    }

    /// Checks that after now no device sends more than one message, and none later than allowed.
    async fn check_stopped(&self) {
        let returned_at = self.clock.wall();
        assert!(self.play.recorded() < LEADS, "the campaign was still being sent");
        self.clock.sleep_until(self.clock.monotonic() + LOOK).await;
        let mut per_device = BTreeMap::<_, u32>::new();
        for message in self.play.messages() {
            if message.received_at > returned_at {
                check_in_time(message.received_at, returned_at);
                *per_device.entry(message.serial).or_default() += 1;
            }
        }
        println!(
            "{} devices sent one more message, begun before the call returned",
            per_device.len()
        );
        assert!(per_device.values().all(|count| *count == 1), "{per_device:?}");
    }
}

#[track_caller]
fn check_in_time(received_at: Timestamp, returned_at: Timestamp) {
    let late = received_at.since(returned_at);
    assert!(
        late <= BEGIN_TO_SEND_MAX,
        "a message came {late:?} after the call had returned"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_pause_only_what_was_begun_before_reaches_the_gateway_and_resuming_sends_the_rest_once() {
    let race = Race::start(1).await;
    let mut moments = Seed::from_number(1).rng(b"pause", "stop races");
    for _ in 0..3 {
        race.sent(moments.random_range(1..150)).await;
        race.act("pause").await;
        race.check_stopped().await;
        race.act("resume").await;
    }
    let end = race.api.until_ended(race.play.stage.campaign_id, LEADS, END_MAX).await;
    assert_eq!(
        (&end["status"], &end["total"]["done"]),
        (&"completed".into(), &LEADS.into())
    );
    let messages = race.play.messages();
    let got = per_number(&messages);
    assert_eq!(got.len() as u64, LEADS);
    assert!(got.values().all(|count| *count == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_cancel_only_what_was_begun_before_reaches_the_gateway() {
    let race = Race::start(2).await;
    let mut moments = Seed::from_number(2).rng(b"cancel", "stop races");
    race.sent(moments.random_range(1..300)).await;
    race.act("cancel").await;
    race.check_stopped().await;
    let end = race.api.until_ended(race.play.stage.campaign_id, LEADS, END_MAX).await;
    assert_eq!(end["status"], "cancelled");
    assert_eq!(end["total"]["done"], race.play.recorded(), "{end}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_opt_out_only_what_was_begun_before_reaches_the_person() {
    let race = Race::start(3).await;
    let mut moments = Seed::from_number(3).rng(b"opt-out", "stop races");
    let stage = &race.play.stage;
    let mut returned = BTreeMap::new();
    race.sent(20).await;
    for _ in 0..100 {
        race.sent(moments.random_range(0..6)).await;
        // Whoever is next on some lane, or soon: there the race is.
        let device = &stage.devices[moments.random_range(0..DEVICES)];
        let messages = race.play.messages();
        let sent = messages
            .iter()
            .filter(|message| message.serial == device.serial())
            .count();
        let mut lane = stage.leads.iter().filter(|lead| lead.device_id == device.id);
        let Some(lead) = lane.nth(sent + moments.random_range(0..3)) else {
            continue;
        };
        if !returned.contains_key(&lead.digits) {
            race.api.opt_out(&lead.digits).await;
            returned.insert(lead.digits.clone(), race.clock.wall());
        }
    }
    let end = race.api.until_ended(stage.campaign_id, LEADS, END_MAX).await;
    assert_eq!(end["status"], "completed");
    let messages = race.play.messages();
    let got: Vec<_> = messages
        .iter()
        .filter_map(|message| Some((message.received_at, *returned.get(&message.number)?)))
        .collect();
    let late = got
        .iter()
        .filter(|(received_at, returned_at)| received_at > returned_at);
    println!(
        "{} opted out, {} of them got their message, {} after the call",
        returned.len(),
        got.len(),
        late.clone().count()
    );
    late.for_each(|(received_at, returned_at)| check_in_time(*received_at, *returned_at));
    assert_eq!(end["total"]["skipped"], returned.len() - got.len(), "{end}");
    assert!(got.len() < returned.len(), "some opted out before their message");
    assert!(per_number(&messages).values().all(|count| *count == 1));
}
