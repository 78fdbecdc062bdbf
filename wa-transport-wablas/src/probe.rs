//! How the vendor says a device is.

use async_trait::async_trait;
use reqwest::header::AUTHORIZATION;
use secrecy::ExposeSecret;
use serde_json::Value;
use wa_core::transport::{Probe, ProbeReport, SendContext, SendError, vendor_text};

use crate::error;
use crate::http::Answer;
use crate::transport::Wablas;
use crate::webhook::vendor_phone;
use crate::wire::{Flag, text};

#[async_trait]
impl Probe for Wablas {
    async fn probe(&self, context: &SendContext) -> Result<ProbeReport, SendError> {
        let result = self.probe_once(context).await;
        let device = context.device.id;
        match &result {
            Ok(report) => tracing::debug!(%device, report.connected, "wablas told how the device is"),
            Err(reason) => tracing::warn!(%device, %reason, "wablas probe failed"),
        }
        result
    }
}

impl Wablas {
    async fn probe_once(&self, context: &SendContext) -> Result<ProbeReport, SendError> {
        let endpoint = self.ready(&context.device)?;
        let mut url = endpoint.url(&["api", "device", "info"]);
        // The one call whose documentation names no header.
        url.query_pairs_mut()
            .append_pair("token", endpoint.credential.expose_secret());
        let request = self
            .http
            .get(&endpoint.host, url)
            .header(AUTHORIZATION, endpoint.authorization());
        let answer = self.ask(request, context).await?;
        let secrets = error::secrets(&context.device, None);
        report(&answer, &secrets).ok_or_else(|| error::unusable(&answer, &secrets))
    }
}

fn report(answer: &Answer, secrets: &[String]) -> Option<ProbeReport> {
    let body: Value = serde_json::from_slice(&answer.body).ok()?;
    if !answer.is_success() || Flag::of_answer(body.get("status")) != Flag::Yes {
        return None;
    }
    let data = body.get("data")?.as_object()?;
    let field = |name: &str| data.get(name).and_then(text);
    let status = field("status")?;
    let mut detail = vec![status.clone()];
    if let Some(name) = field("name") {
        detail.push(format!("name {name}"));
    }
    if let Some(date) = field("expired_date") {
        detail.push(format!("paid until {date}"));
    }
    if data.get("active") == Some(&Value::Bool(false)) {
        detail.push("not active".to_owned());
    }
    Some(ProbeReport {
        connected: status.eq_ignore_ascii_case("connected"),
        phone: field("sender").and_then(|sender| vendor_phone(&sender)),
        quota: field("quota"),
        detail: vendor_text(&detail.join(", "), secrets.iter().map(String::as_str)),
    })
}
