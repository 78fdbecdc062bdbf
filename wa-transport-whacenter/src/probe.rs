//! How the vendor says a device is.

use async_trait::async_trait;
use secrecy::ExposeSecret;
use serde_json::Value;
use wa_core::transport::{Probe, ProbeReport, SendContext, SendError, vendor_text};

use crate::error;
use crate::http::Answer;
use crate::transport::Whacenter;
use crate::webhook::vendor_phone;
use crate::wire::{Flag, text};

#[async_trait]
impl Probe for Whacenter {
    async fn probe(&self, context: &SendContext) -> Result<ProbeReport, SendError> {
        let result = self.probe_once(context).await;
        let device = context.device.id;
        match &result {
            Ok(report) => tracing::debug!(%device, report.connected, "whacenter told how the device is"),
            Err(reason) => tracing::warn!(%device, %reason, "whacenter probe failed"),
        }
        result
    }
}

impl Whacenter {
    async fn probe_once(&self, context: &SendContext) -> Result<ProbeReport, SendError> {
        let endpoint = self.ready(&context.device)?;
        let mut url = endpoint.url(&["api", "statusDevice"]);
        url.query_pairs_mut()
            .append_pair("device_id", endpoint.credential.expose_secret());
        let answer = self.ask(self.http.get(&endpoint.host, url), context).await?;
        let secrets = error::secrets(&context.device, None);
        report(&answer, &secrets).ok_or_else(|| error::unusable(&answer, &secrets))
    }
}

fn report(answer: &Answer, secrets: &[String]) -> Option<ProbeReport> {
    let body: Value = serde_json::from_slice(&answer.body).ok()?;
    if !answer.is_success() || Flag::of(body.get("status")) != Flag::Yes {
        return None;
    }
    let data = body.get("data")?.as_object()?;
    let field = |name: &str| data.get(name).and_then(text);
    let status = field("status")?;
    let connected = status.eq_ignore_ascii_case("connected");
    let mut detail = vec![status.to_lowercase()];
    if let Some(name) = field("nama") {
        detail.push(format!("name {name}"));
    }
    // The code itself lets its reader take over the account, so only its state is told.
    match field("qr").as_deref() {
        Some("done") | None => {}
        Some("timeout") => detail.push("its QR code has expired".to_owned()),
        Some(_) => detail.push("a QR code waits to be scanned".to_owned()),
    }
    Some(ProbeReport {
        connected,
        phone: field("nomor").and_then(|number| vendor_phone(&number)),
        quota: None,
        detail: vendor_text(&detail.join(", "), secrets.iter().map(String::as_str)),
    })
}
