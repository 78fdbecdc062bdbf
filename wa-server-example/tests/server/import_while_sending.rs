//! A large import beside a campaign that is being sent.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use wa_core::time::{Clock, SystemClock};
use wa_server_example::loopback::FaultShares;

use crate::api::Api;
use crate::play::{LOGIN, Play, Setting, per_number};
use crate::support::Client;

const ROWS: u64 = 100_000;
/// Every how many rows one is bad.
const BAD_EVERY: u64 = 100;
/// Every how many rows one is there twice.
const TWICE_EVERY: u64 = 1_000;
/// How long no message may be sent while rows are read.
const STALL_MAX: Duration = Duration::from_secs(2);
/// Most memory of the whole server, importer, caches of the store and campaign together: 150 MB.
const MEMORY_MAX_KIB: u64 = 150_000_000 / 1_024;
const IMPORT_MAX: Duration = Duration::from_secs(300);

/// The file, and the lines in it that are bad with the field that is wrong.
fn file() -> (String, Vec<(u64, &'static str)>) {
    let (mut text, mut bad) = ("name,phone,niche,target_status,trigger\n".to_owned(), Vec::new());
    for row in 0..ROWS {
        let line = row + 2;
        // 60 11 1xxx xxxx: numbers of eight digits, which no lead of the campaign has.
        let person = if row % TWICE_EVERY == TWICE_EVERY - 1 {
            row - 1
        } else {
            row
        };
        let phone = 601_110_000_000 + person;
        let written = if row % BAD_EVERY != 0 {
            writeln!(text, "Lead {person},{phone},kursus,prospect,EXAMA")
        } else if row % (2 * BAD_EVERY) == 0 {
            bad.push((line, "phone"));
            writeln!(text, "Lead {person},not a phone,kursus,prospect,EXAMA")
        } else {
            bad.push((line, "target_status"));
            writeln!(text, "Lead {person},{phone},kursus,maybe,EXAMA")
        };
        written.unwrap();
    }
    (text, bad)
}

async fn import(api: &Api, file: &str) -> Value {
    let request = api.0.request(Method::POST, "/api/leads/import");
    let request = request.header("content-type", "text/csv").body(file.to_owned());
    let begun = Client::send(request).await.ok();
    let path = format!("/api/imports/{}", begun["id"].as_str().unwrap());
    let mut look = tokio::time::interval(Duration::from_millis(100));
    let mut seen = BTreeSet::new();
    let done = async {
        loop {
            look.tick().await;
            let import = api.0.get(&path).await.ok();
            seen.insert(import["rows"].as_u64().unwrap());
            if import["state"] != "running" {
                return import;
            }
        }
    };
    let import = tokio::time::timeout(IMPORT_MAX, done).await.expect("the import ends");
    assert_eq!(
        (&import["state"], &import["rows"]),
        (&"done".into(), &ROWS.into()),
        "{import}"
    );
    println!("progress was seen at {} points", seen.len());
    assert!(seen.len() > 5, "progress is shown: {seen:?}");
    import
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_import_reports_every_bad_row_and_neither_stalls_a_campaign_nor_fills_the_memory() {
    let play = Play::set(Setting {
        devices: 18,
        leads: 6_000,
        seed: 1,
        faults: FaultShares::NONE,
    })
    .await;
    let server = play.server().await;
    let api = Api::login(server.address(), LOGIN).await;
    let (file, bad) = file();
    let mut look = tokio::time::interval(Duration::from_millis(10));
    while play.recorded() < 50 {
        look.tick().await;
    }

    let clock = SystemClock::new();
    let began_at = clock.wall();
    let import = import(&api, &file).await;
    let ended_at = clock.wall();
    let memory = server.memory_peak_kib();
    let sent = play.recorded();

    let twice = ROWS / TWICE_EVERY;
    let refused = bad.len() as u64;
    assert_eq!(import["refused"], refused, "{import}");
    assert_eq!(import["duplicates"], twice, "{import}");
    assert_eq!(import["inserted"], ROWS - refused - twice, "{import}");
    let path = format!("/api/imports/{}/refusals/export", import["id"].as_str().unwrap());
    let report = api.0.get(&path).await.text;
    let mut lines = report.lines();
    assert_eq!(
        lines.next().map(|line| line.trim_start_matches('\u{feff}')),
        Some("line,field,reason")
    );
    let reported: Vec<_> = lines
        .map(|line| {
            let mut cells = line.splitn(3, ',');
            let number = cells.next().unwrap().parse::<u64>().unwrap();
            let field = cells.next().unwrap().to_owned();
            assert!(!cells.next().unwrap().is_empty(), "{line}");
            (number, field)
        })
        .collect();
    let expected: Vec<_> = bad.into_iter().map(|(line, field)| (line, field.to_owned())).collect();
    assert_eq!(reported, expected);

    // The longest time in which the gateways recorded nothing while rows were read and there was something to send.
    let mut instants: Vec<_> = play.messages().iter().map(|message| message.recorded_at).collect();
    instants.retain(|at| (began_at..=ended_at).contains(at));
    instants.sort_unstable();
    let stall = instants.windows(2).map(|pair| pair[1].since(pair[0])).max().unwrap();
    let span = ended_at.since(began_at);
    println!(
        "{ROWS} rows in {span:?} while {} messages were recorded, longest pause {stall:?}, peak memory {} MiB",
        instants.len(),
        memory / 1_024
    );
    assert!(stall <= STALL_MAX, "sending stalled for {stall:?}");
    assert!(memory <= MEMORY_MAX_KIB, "{memory} KiB");
    if sent < 6_000 {
        let pause = ended_at.since(*instants.last().unwrap());
        assert!(pause <= STALL_MAX, "sending stalled for {pause:?}");
    }

    let again = self::import(&api, &file).await;
    assert_eq!(
        (&again["inserted"], &again["duplicates"]),
        (&0.into(), &(ROWS - refused).into()),
        "{again}"
    );
    let numbers = api
        .until_ended(play.stage.campaign_id, 6_000, Duration::from_secs(180))
        .await;
    assert_eq!(numbers["total"]["done"], 6_000, "{numbers}");
    let messages = play.messages();
    assert!(per_number(&messages).values().all(|count| *count == 1));
}
