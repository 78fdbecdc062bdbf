//! `kill -9` of the server at random moments of a sequence: everybody gets every step once and in order.
//!
//! `KILLS=20` kills it 20 times instead of 5, `SEED=n` draws other moments.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt as _;
use serde_json::{Value, json};
use wa_core::domain::access::RequestScope;
use wa_core::id::SequenceId;
use wa_core::seed::Seed;
use wa_core::store::{Change, ChangeSet, OutboxStore as _, SequenceStore as _, Span, Store as _, WriteClass};
use wa_core::time::{Clock as _, SystemClock};
use wa_server_example::loopback::FaultShares;
use wa_store_sqlite::{SqliteOptions, SqliteStore};

use crate::kill_loop::number;
use crate::play::{LOGIN, Play, Setting};
use crate::server_process::ServerProcess;
use crate::support::Client;

const STEPS: usize = 4;
const LEADS: usize = 60;
/// Both at the gateway that can be asked what became of a message.
const DEVICES: usize = 2;
/// How long the leads may take after the last kill.
const END_MAX: Duration = Duration::from_secs(150);
/// What all sends and waits take about, without kills.
const SPAN: Duration = Duration::from_secs(14);

fn text(step: usize) -> String {
    format!("Step {step} of {STEPS}")
}

async fn open(play: &Play) -> SqliteStore {
    let options = SqliteOptions::file(play.data.database());
    SqliteStore::open(options).await.unwrap()
}

/// A play without its campaign: what the gateways get comes from the sequence alone.
async fn play(seed: u64) -> Play {
    let play = Play::set(Setting {
        devices: DEVICES,
        leads: LEADS,
        seed,
        faults: FaultShares::NONE,
    })
    .await;
    let store = open(&play).await;
    let delete = Change::DeleteCampaign {
        user_id: play.user_id,
        campaign_id: play.stage.campaign_id,
    };
    let now = SystemClock::new().wall();
    store
        .commit(ChangeSet::one(delete), WriteClass::Api, now)
        .await
        .unwrap();
    store.close().await;
    play
}

/// Creates and starts the sequence; the first half of the leads enters by its trigger.
async fn set_off(user: &Client) -> SequenceId {
    let steps: Vec<Value> = (1..=STEPS)
        .map(|step| json!({"message": text(step), "delay_hours": 2.0 / 3_600.0}))
        .collect();
    let mut body = json!({"name": "Kills", "greeting": false, "randomizer": false, "steps": steps});
    body["steps"][0]["trigger"] = json!("kills_start");
    let made = user.post("/api/sequences", body).await.ok();
    let id: SequenceId = made["id"].as_str().unwrap().parse().unwrap();
    let leads = user.get("/api/leads?limit=1000").await.ok();
    let ids: Vec<_> = leads["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|lead| &lead["id"])
        .collect();
    assert_eq!(ids.len(), LEADS);
    let half = json!({"ids": ids[..LEADS / 2], "add_triggers": "kills_start"});
    user.post("/api/leads/bulk-edit", half).await.ok();
    user.post(&format!("/api/sequences/{id}/start"), json!({})).await.ok();
    id
}

/// Lets all leads enter by their numbers; those who are in stay where they are.
async fn all_enter(user: &Client, play: &Play, id: SequenceId) -> Vec<String> {
    let phones: Vec<_> = play
        .stage
        .leads
        .iter()
        .map(|lead| format!("+{}", lead.digits))
        .collect();
    let path = format!("/api/sequences/{id}/contacts");
    let answer = user.post(&path, json!({"phones": phones})).await.ok();
    let items = answer["items"].as_array().unwrap().iter();
    items.map(|one| one["result"].as_str().unwrap().to_owned()).collect()
}

/// The numbers of the sequence, which add up at every look.
async fn numbers(user: &Client, id: SequenceId) -> Value {
    let progress = user.get(&format!("/api/sequences/{id}/progress")).await.ok();
    let numbers = progress["numbers"].clone();
    let total = &numbers["total"];
    let parts = ["done", "failed", "skipped", "unknown", "cancelled", "remaining"];
    let sum: u64 = parts.iter().map(|part| total[part].as_u64().unwrap()).sum();
    assert_eq!(total["should"], sum, "{total}");
    numbers
}

/// What is counted as things happen agrees with the rows.
async fn recounted(store: &SqliteStore, play: &Play, id: SequenceId) {
    let scope = RequestScope::user(play.user_id);
    let counts = store.sequence_counts(&scope, id, &Span::default()).await.unwrap();
    let rows = store.recount_sequence(&scope, id).await.unwrap();
    assert_eq!(counts, rows, "tallies and rows agree");
}

async fn user_of(server: &ServerProcess) -> Client {
    Client::login_at(server.address(), LOGIN).await
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_random_moments_of_a_sequence_lose_no_step_and_double_none() {
    let (kills, seed) = (number("KILLS", 5), number("SEED", 1));
    let play = play(seed).await;
    let mut moments = Seed::from_number(seed).rng(b"sequence", "kill loop");
    let life_mean = SPAN / u32::try_from(kills.max(1)).unwrap();
    let (mut sequence, mut while_sending) = (None, 0);
    for kill in 0..kills {
        let server = play.server().await;
        let user = user_of(&server).await;
        let id = match sequence {
            None => *sequence.insert(set_off(&user).await),
            Some(id) => id,
        };
        // The second and third server are asked for the same: nobody enters twice.
        if matches!(kill, 1 | 2) {
            let results = all_enter(&user, &play, id).await;
            let known = ["enrolled", "already_in", "re_entry_refused"];
            assert!(results.iter().all(|one| known.contains(&one.as_str())), "{results:?}");
        }
        // The moment is what is tested here, not a wait for something.
        tokio::time::sleep(life_mean.mul_f64(moments.random_range(0.0..2.0))).await;
        let at = numbers(&user, id).await;
        server.kill();
        while_sending += u64::from(at["contacts"]["completed"] != LEADS);
        let store = open(&play).await;
        recounted(&store, &play, id).await;
        store.close().await;
        println!(
            "kill {kill}: done {} remaining {} of {}, {} of {} contacts through",
            at["total"]["done"],
            at["total"]["remaining"],
            at["total"]["should"],
            at["contacts"]["completed"],
            at["contacts"]["total"]
        );
    }
    assert!(
        2 * while_sending >= kills,
        "only {while_sending} of {kills} kills came before the end"
    );

    let server = play.server().await;
    let user = user_of(&server).await;
    let id = match sequence {
        None => set_off(&user).await,
        Some(id) => id,
    };
    all_enter(&user, &play, id).await;
    let mut look = tokio::time::interval(Duration::from_millis(300));
    let ended = async {
        loop {
            look.tick().await;
            let numbers = numbers(&user, id).await;
            if numbers["contacts"]["completed"] == LEADS {
                return numbers;
            }
        }
    };
    let Ok(at_end) = tokio::time::timeout(END_MAX, ended).await else {
        let open = user
            .get(&format!("/api/sequences/{id}/contacts?status=open&limit=1"))
            .await;
        panic!("not all came through: {}, {}", numbers(&user, id).await, open.text);
    };
    let results = all_enter(&user, &play, id).await;
    assert!(results.iter().all(|one| one == "re_entry_refused"), "{results:?}");
    let left = user.get("/api/leads?trigger=kills_start").await.ok();
    assert_eq!(left["items"], json!([]), "completion removes the trigger");
    server.kill();
    let store = open(&play).await;
    recounted(&store, &play, id).await;
    let backlog = store.backlog().await.unwrap();
    assert_eq!(
        (backlog.queued, backlog.held, backlog.sending, backlog.in_doubt),
        (0, 0, 0, 0)
    );
    store.close().await;

    let mut messages = play.messages();
    messages.sort_by_key(|message| message.recorded_at);
    let mut got: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for message in &messages {
        got.entry(&message.number).or_default().push(&message.text);
    }
    println!(
        "sequence: {kills} kills, {} messages to {} people, {}",
        messages.len(),
        got.len(),
        at_end["total"]
    );
    assert_eq!(got.len(), LEADS);
    let steps: Vec<_> = (1..=STEPS).map(text).collect();
    for (phone, texts) in got {
        assert_eq!(texts, steps, "{phone} gets every step once and in order");
    }
    assert_eq!(at_end["total"]["done"], LEADS * STEPS);
    assert_eq!(at_end["total"]["should"], LEADS * STEPS);
}
