//! `kill -9` of the server at random moments of a campaign through linked devices: WhatsApp stays, the server comes back with the
//! sessions that its database kept.
//!
//! `KILLS=50` kills it 50 times instead of 5, `SEED=n` draws other moments.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::RngExt as _;
use serde_json::json;
use wa_core::seed::Seed;
use wa_loopback::{Answer, MessageFault, Rule};

use crate::api::Api;
use crate::kill_loop::number;
use crate::linked::{Linked, until};

/// By how much WhatsApp's answers are late: as long a message is delivered and the server does not know it.
const ANSWER_LATE: Duration = Duration::from_millis(100);
/// What one message of a lane takes beside that.
const WORK: Duration = Duration::from_millis(30);
/// What devices need to be connected again.
const CONNECT: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread")]
async fn kills_lose_nobody_and_nobody_gets_two_ids() {
    let kills = number("KILLS", 5);
    let (devices, people) = (4, if kills > 10 { 1_600 } else { 240 });
    let (linked, server) = Linked::set(devices, people).await;
    // Every second person is offline while the server dies: nothing but a message that is sent again tells what became of the first.
    let online = || linked.people.iter().step_by(2);
    let offline = || linked.people.iter().skip(1).step_by(2);
    Linked::connect(online()).await;
    linked
        .whatsapp
        .fault(Rule::message(MessageFault::SlowAck(ANSWER_LATE)).always());
    let api = Api::login(server.address(), "ann").await;
    let campaign = linked
        .start(&api, json!({"message": "Hi {{name}}, {satu|dua|tiga}"}))
        .await;

    let mut moments = Seed::from_number(number("SEED", 1)).rng(b"linked kills", "kill loop");
    let work = (ANSWER_LATE + WORK) * u32::try_from(people / devices).unwrap();
    // Kills take less than half of the campaign's work, so that it outlasts them.
    let life_mean = CONNECT + work * 4 / (10 * u32::try_from(kills.max(1)).unwrap());
    let mut server = Some(server);
    let (mut doubtful, mut within) = (0, 0);
    for kill in 0..kills {
        // The moment is what is tested here, not a wait for something.
        tokio::time::sleep(life_mean.mul_f64(moments.random_range(0.0..2.0))).await;
        server.take().expect("it runs").kill();
        let open = linked.open(campaign).await;
        doubtful += open;
        let sent = linked.whatsapp.sent().into_iter().filter(|message| !message.peer);
        let written: BTreeSet<_> = sent.map(|message| message.to.user.to_string()).collect();
        let came = written.len();
        within += u64::from(came < people);
        println!("kill {kill}: {open} sending or in doubt, messages to {came} people came to WhatsApp");
        server = Some(linked.server().await);
    }
    let server = server.expect("it runs");
    let api = Api::login(server.address(), "ann").await;
    let left = api.numbers(campaign).await["total"]["remaining"].as_u64().unwrap();
    let numbers = api.until_ended(campaign, people as u64, Duration::from_secs(180)).await;
    assert_eq!(numbers["total"]["done"], people, "{numbers}");
    Linked::connect(offline()).await;
    Linked::until_received(linked.people.iter()).await;
    // A receipt that came while the server died came again.
    until("all receipts to be told", async || {
        (api.numbers(campaign).await["total"]["delivered"] == people).then_some(())
    })
    .await;
    server.kill();

    linked.check(&linked.sent(campaign).await);
    let mut ids: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut repeated = 0;
    for message in linked.whatsapp.sent().into_iter().filter(|message| !message.peer) {
        let known = ids.entry(message.to.user.to_string()).or_default();
        if !known.contains(&message.id) {
            known.push(message.id);
        }
        repeated += usize::from(message.answer == Answer::Repeated);
    }
    let doubled = ids.iter().find(|(_, ids)| ids.len() != 1);
    assert_eq!(doubled, None, "one id for each person");
    assert_eq!(ids.len(), people);
    println!(
        "{kills} kills, {within} of them within the campaign: {doubtful} messages were open, {repeated} came again with their id, {left} remained after the last kill"
    );
    assert!(within * 2 > kills, "most kills met a campaign that was going on");
    assert!(doubtful > 0, "a kill met a message under way");
    assert!(
        repeated > 0,
        "one that was sent came again with the id that WhatsApp knew"
    );
}
