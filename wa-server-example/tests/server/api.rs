//! What a user does over HTTP.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use wa_core::id::CampaignId;

use crate::support::Client;

/// A user who is logged in.
pub struct Api(pub Client);

impl Api {
    /// Logs in.
    pub async fn login(address: SocketAddr, login: &str) -> Self {
        Self(Client::login_at(address, login).await)
    }

    /// Does something to a campaign that needs no body: `pause`, `resume`, `cancel`.
    pub async fn campaign(&self, id: CampaignId, action: &str) -> Value {
        self.0
            .post(&format!("/api/campaigns/{id}/{action}"), json!({}))
            .await
            .ok()
    }

    /// Opts a person out.
    pub async fn opt_out(&self, digits: &str) {
        self.0
            .post("/api/suppressions", json!({"phone": format!("+{digits}")}))
            .await
            .ok();
    }

    /// The numbers of a campaign, which add up.
    pub async fn numbers(&self, id: CampaignId) -> Value {
        let numbers = self.0.get(&format!("/api/campaigns/{id}/numbers")).await.ok();
        let total = &numbers["total"];
        let parts = ["done", "failed", "skipped", "unknown", "cancelled", "remaining"];
        let sum: u64 = parts.iter().map(|part| total[part].as_u64().unwrap()).sum();
        assert_eq!(total["should"], sum, "{total}");
        let by_device = numbers["devices"].as_array().unwrap();
        for part in parts {
            let sum: u64 = by_device.iter().map(|row| row["numbers"][part].as_u64().unwrap()).sum();
            assert_eq!(total[part], sum, "{part} by device: {numbers}");
        }
        numbers
    }

    /// Polls the numbers, which add up each time, until the campaign has ended and nothing remains.
    pub async fn until_ended(&self, id: CampaignId, should: u64, most: Duration) -> Value {
        let mut look = tokio::time::interval(Duration::from_millis(100));
        let ended = async {
            loop {
                look.tick().await;
                let numbers = self.numbers(id).await;
                let status = numbers["status"].as_str().unwrap();
                let started = !matches!(status, "draft" | "scheduled");
                if started && numbers["expanding"] == false {
                    assert_eq!(numbers["total"]["should"], should, "{numbers}");
                }
                let over = matches!(status, "completed" | "cancelled" | "failed");
                if over && numbers["total"]["remaining"] == 0 {
                    return numbers;
                }
            }
        };
        match tokio::time::timeout(most, ended).await {
            Ok(numbers) => numbers,
            Err(_) => panic!("the campaign did not end: {}", self.numbers(id).await),
        }
    }
}
