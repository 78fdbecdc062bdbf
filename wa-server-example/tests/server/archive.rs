//! Campaigns that ended long ago: out of the way, and read as before.

use std::time::Duration;

use reqwest::StatusCode;
use secrecy::SecretString;
use serde_json::json;
use wa_core::conformance::fixtures::Fixtures;
use wa_core::domain::access::User;
use wa_core::domain::campaign::CampaignStatus;
use wa_core::domain::message::{Message, MessageState, Reason};
use wa_core::store::{AccessStore, Change, ChangeSet, Store, WriteClass};
use wa_core::time::{Clock, SystemClock};
use wa_core::transport::{NotSentKind, SendError};
use wa_server_example::password::Passwords;
use wa_store_sqlite::{SqliteOptions, SqliteStore};

use crate::server_process::DataDir;
use crate::support::{PASSWORD, Running};
use crate::work::{device, id};

const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test]
async fn an_old_campaign_goes_to_the_archive_by_itself_and_reads_as_before() {
    let running = Running::start().await;
    let ann = running.basic("ann");
    let device = device(&ann, "A").await;
    for number in 0..3 {
        let lead = json!({"name": "Ali", "phone": format!("012345678{number}"), "device_id": device});
        ann.post("/api/leads", lead).await.ok();
    }
    let refusal = SendError::not_sent(NotSentKind::Rejected, "no");
    running.transport.answer_next(Err(refusal));
    let draft = json!({"title": "Sale", "message": "Hi {{name}}"});
    let path = format!("/api/campaigns/{}", id(&ann.post("/api/campaigns", draft).await.ok()));
    ann.post(&format!("{path}/start"), json!({})).await.ok();
    running.completed(&ann, &path).await;

    let reads = ["/recipients", "/recipients/export", "/device-report", "/numbers"].map(|page| format!("{path}{page}"));
    let read = async || {
        let mut texts = Vec::new();
        for page in &reads {
            let answer = ann.get(page).await;
            assert_eq!(answer.status, StatusCode::OK, "{page}: {}", answer.text);
            texts.push(answer.text);
        }
        texts
    };
    let before = read().await;
    running.clock.advance(91 * DAY);
    while ann.get(&path).await.ok()["archived_at"].is_null() {
        tokio::task::yield_now().await;
    }
    assert_eq!(read().await, before);
    for page in ["/resend-failed", "/resume"] {
        let refused = ann.post(&format!("{path}{page}"), json!({})).await;
        assert_eq!(refused.status, StatusCode::CONFLICT, "{page}: {}", refused.text);
        assert!(refused.message().contains("archived since"), "{}", refused.text);
    }
}

#[tokio::test]
async fn the_command_line_archives_what_is_old_enough() {
    let data = DataDir::new();
    let store = SqliteStore::open(SqliteOptions::file(data.database())).await.unwrap();
    let rows = Fixtures::starting_at(1, SystemClock::new().wall() - 30 * DAY);
    let now = rows.start();
    let user = User {
        login: "ann".to_owned(),
        password_hash: Passwords::new().hash(SecretString::from(PASSWORD)).await,
        ..rows.user()
    };
    store.insert_user(&user).await.unwrap();
    let device = rows.device(user.id);
    let campaign = rows.campaign(user.id);
    let message = |_| Message {
        state: MessageState::Failed,
        reason: Some(Reason::Rejected),
        settled_at: Some(now),
        ..rows.campaign_message(user.id, campaign.id, Some(device.id), rows.fresh_phone())
    };
    let status = |from, to| Change::SetCampaignStatus {
        user_id: user.id,
        campaign_id: campaign.id,
        from,
        to,
        reason: None,
    };
    for change in [
        Change::InsertDevice(Box::new(device.clone())),
        Change::InsertCampaign(Box::new(campaign.clone())),
        status(&[CampaignStatus::Draft], CampaignStatus::Scheduled),
        status(&[CampaignStatus::Scheduled], CampaignStatus::Triggered),
        Change::InsertMessages((0..450).map(message).collect()),
        status(&[CampaignStatus::Triggered], CampaignStatus::Completed),
    ] {
        store
            .commit(ChangeSet::one(change), WriteClass::Api, now)
            .await
            .unwrap();
    }
    store.close().await;

    let says = |settings: &[(&str, &str)], words: &[&str]| {
        let output = data.command(settings, words);
        let (out, err) = [output.stdout, output.stderr]
            .map(|text| String::from_utf8(text).unwrap())
            .into();
        (output.status.success(), format!("{out}{err}"))
    };
    let campaign = campaign.id.to_string();
    let status = || says(&[], &["campaign", "status", &campaign, "--user", "ann"]);
    let before = status();
    assert!(before.1.contains("failed    450"), "{}", before.1);
    for (settings, words, good, part) in [
        (None, vec!["archive"], true, "0 messages moved"),
        (None, vec!["archive", "--older-than", "1d"], false, "2d to 3660d"),
        (Some("0s"), vec!["archive"], false, "name --older-than"),
        (Some("1d"), vec!["archive"], false, "ARCHIVE_AFTER must be"),
        (
            Some("0s"),
            vec!["archive", "--older-than", "29d"],
            false,
            "not in the archive: 1.",
        ),
        (Some("0s"), vec!["archive", "--older-than", "29d"], false, "add --yes"),
        (Some("29d"), vec!["archive", "--yes"], false, "--older-than"),
        (
            Some("0s"),
            vec!["archive", "--older-than", "29d", "--yes"],
            true,
            "450 messages moved",
        ),
        (Some("29d"), vec!["archive"], true, "0 messages moved"),
    ] {
        let settings: Vec<_> = settings.map(|after| ("ARCHIVE_AFTER", after)).into_iter().collect();
        let (success, text) = says(&settings, &words);
        assert_eq!(success, good, "{words:?} {settings:?}: {text}");
        assert!(text.contains(part), "{words:?} {settings:?}: {text}");
    }
    assert_eq!(status(), before);
}
