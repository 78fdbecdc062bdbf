//! What became of a message whose send gave no clear answer.

use async_trait::async_trait;
use reqwest::header::AUTHORIZATION;
use serde_json::Value;
use wa_core::domain::delivery::Delivery;
use wa_core::time::Timestamp;
use wa_core::transport::{
    NotSentKind, Reconcilable, ReconcileQuery, Reconciled, SendContext, SendError, TransportMessageId,
};

use crate::error;
use crate::http::Answer;
use crate::transport::Wablas;
use crate::wire::{Flag, is_dead, text};

#[async_trait]
impl Reconcilable for Wablas {
    async fn find(&self, context: &SendContext, query: &ReconcileQuery) -> Result<Reconciled, SendError> {
        let result = self.find_once(context, query).await;
        let (device, attempt) = (context.device.id, query.attempt_id);
        match &result {
            Ok(_) => tracing::debug!(%device, %attempt, "wablas answered a look-up"),
            Err(reason) => tracing::warn!(%device, %attempt, %reason, "wablas look-up failed"),
        }
        result
    }
}

impl Wablas {
    async fn find_once(&self, context: &SendContext, query: &ReconcileQuery) -> Result<Reconciled, SendError> {
        let endpoint = self.ready(&context.device)?;
        let mut url = endpoint.url(&["api", "report", "message"]);
        url.query_pairs_mut()
            .append_pair("ref_id", query.transport_message_id.as_str());
        let request = self
            .http
            .get(&endpoint.host, url)
            .header(AUTHORIZATION, endpoint.authorization());
        let answer = self.ask(request, context).await?;
        let found = reconciled(&answer, &query.transport_message_id)
            .unwrap_or_else(|| Err(error::unusable(&answer, &error::secrets(&context.device, None))))?;
        if found == Reconciled::NotFound && report_day(query.attempted_at) != report_day(query.asked_at) {
            let detail = "an empty report may not cover the day of the attempt";
            return Err(SendError::not_sent(NotSentKind::Unavailable, detail));
        }
        Ok(found)
    }
}

/// The vendor's day of an instant, in its zone Asia/Jakarta (UTC+7, no summer time).
///
/// Whether a report without a date goes back beyond the present day is not documented, so that its silence about an attempt
/// of an earlier day proves nothing.
const fn report_day(at: Timestamp) -> i64 {
    (at.as_millis() + 7 * 3_600_000).div_euclid(86_400_000)
}

/// Reads a report; `None` when it is no successful one.
fn reconciled(answer: &Answer, ours: &TransportMessageId) -> Option<Result<Reconciled, SendError>> {
    let report: Value = serde_json::from_slice(&answer.body).ok()?;
    if !answer.is_success() || Flag::of(report.get("status")) != Flag::Yes || report.get("error").is_some() {
        return None;
    }
    let rows = report.get("message")?.as_array()?;
    // The vendor may ignore a filter that it does not know: only a row with our id is about our message.
    let found: Vec<&Value> = rows
        .iter()
        .filter(|row| row.get("ref_id").and_then(Value::as_str) == Some(ours.as_str()))
        .collect();
    if found.is_empty() {
        let total = report.get("totalData").and_then(text).unwrap_or_else(|| "0".to_owned());
        return Some(if rows.is_empty() && total == "0" {
            Ok(Reconciled::NotFound)
        } else {
            let detail = "the report speaks of other messages than the one asked for";
            Err(SendError::not_sent(NotSentKind::Unavailable, detail))
        });
    }
    Some(Ok(summed_up(&found)))
}

/// One answer from all rows of a message: it is dead only if all of them are.
fn summed_up(rows: &[&Value]) -> Reconciled {
    let status = |row: &Value| row.get("status").and_then(text).unwrap_or_default();
    let alive: Vec<&&Value> = rows.iter().filter(|row| !is_dead(&status(row))).collect();
    if alive.is_empty() {
        return Reconciled::FoundDead {
            detail: format!("the report says {:?}", status(rows[0])),
        };
    }
    Reconciled::Found {
        provider_id: alive
            .iter()
            .find_map(|row| row.get("id").and_then(text))
            .and_then(TransportMessageId::new),
        delivery: alive.iter().filter_map(|row| delivery(&status(row))).max(),
    }
}

/// How far a status of the vendor says that a message came; `None` while it is on its way.
pub(crate) fn delivery(status: &str) -> Option<Delivery> {
    match status.trim().to_ascii_lowercase().as_str() {
        "delivered" | "received" => Some(Delivery::Delivered),
        "read" => Some(Delivery::Read),
        status if is_dead(status) => Some(Delivery::Undelivered),
        _ => None,
    }
}
