//! Whether numbers are on WhatsApp.

use std::collections::HashMap;

use async_trait::async_trait;
use reqwest::header::AUTHORIZATION;
use serde_json::Value;
use wa_core::domain::phone::Phone;
use wa_core::transport::{NotSentKind, NumberCheck, NumberChecker, SendContext, SendError};

use crate::error;
use crate::transport::{Wablas, below};
use crate::wire::{Flag, text};

/// Most numbers in one request.
pub const NUMBERS_MAX: usize = 100;

#[async_trait]
impl NumberChecker for Wablas {
    async fn check(&self, context: &SendContext, phones: &[Phone]) -> Result<Vec<NumberCheck>, SendError> {
        let result = self.check_once(context, phones).await;
        let (device, count) = (context.device.id, phones.len());
        match &result {
            Ok(_) => tracing::debug!(%device, count, "wablas checked numbers"),
            Err(reason) => tracing::warn!(%device, count, %reason, "wablas number check failed"),
        }
        result
    }
}

impl Wablas {
    async fn check_once(&self, context: &SendContext, phones: &[Phone]) -> Result<Vec<NumberCheck>, SendError> {
        if phones.is_empty() {
            return Ok(Vec::new());
        }
        if phones.len() > NUMBERS_MAX {
            let detail = format!("{} numbers at once, at most {NUMBERS_MAX} are taken", phones.len());
            return Err(SendError::not_sent(NotSentKind::Rejected, detail));
        }
        let endpoint = self.ready(&context.device)?;
        let (base, host) = &self.number_check;
        let mut url = below(base, &["check-phone-number"]);
        let digits: Vec<&str> = phones.iter().map(Phone::digits).collect();
        url.query_pairs_mut().append_pair("phones", &digits.join(","));
        let request = self
            .http
            .get(host, url)
            .header(AUTHORIZATION, endpoint.authorization())
            // The service is shared by all servers and asks the account's own.
            .header("url", endpoint.base.as_str().trim_end_matches('/'));
        let answer = self.ask(request, context).await?;
        let unusable = || error::unusable(&answer, &error::secrets(&context.device, None));
        let body: Value = serde_json::from_slice(&answer.body).map_err(|_| unusable())?;
        if !answer.is_success() || Flag::of_answer(body.get("status")) != Flag::Yes {
            return Err(unusable());
        }
        let known = statuses(&body);
        phones
            .iter()
            .map(|phone| {
                let on_whatsapp = *known.get(phone.digits())?;
                Some(NumberCheck {
                    phone: *phone,
                    on_whatsapp,
                })
            })
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| SendError::not_sent(NotSentKind::Unavailable, "the gateway did not answer for every number"))
    }
}

/// The digits of each number with a known status, and whether it is on WhatsApp.
fn statuses(body: &Value) -> HashMap<String, bool> {
    let rows = body
        .get("data")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    rows.iter()
        .filter_map(|row| {
            let phone = text(row.get("phone")?)?;
            let on_whatsapp = match text(row.get("status")?)?.to_ascii_lowercase().as_str() {
                "online" => true,
                "offline" => false,
                _ => return None,
            };
            Some((phone.trim_start_matches('+').to_owned(), on_whatsapp))
        })
        .collect()
}
