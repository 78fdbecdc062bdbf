//! `forecast`: what a campaign or a sequence will do, as a table or as JSON.

use std::time::Duration;

use clap::Args;
use wa_core::domain::message::MessageScope;
use wa_core::simulation::forecast::{DeviceForecast, Forecast, ForecastControl, ForecastEnd, LatencySource};
use wa_core::time::Timestamp;

use super::{Failure, Offline, row, say};
use crate::http::forecasts::{ForecastView, forecast_options};
use crate::http::view::word;
use crate::settings::parse::parse_duration;

/// What a forecast assumes, and how it is shown.
#[derive(Debug, Args)]
pub(super) struct ForecastArgs {
    /// Write JSON, in the form of the API, with all devices.
    #[arg(long)]
    json: bool,
    /// How many days ahead it looks.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=400))]
    days: u32,
    /// After how long devices that are offline come back, such as 2h; not at all when it is not given.
    #[arg(long, value_parser = span)]
    offline_for: Option<Duration>,
    /// Messages in a thousand that gateways refuse.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    failed_per_mille: u32,
}

fn span(text: &str) -> Result<Duration, &'static str> {
    parse_duration(text).ok_or("must be a number with s, m, h or d, such as 2h")
}

/// How many devices the table shows.
const DEVICES_SHOWN: usize = 50;

pub(super) async fn run(offline: &Offline, user: &str, of: MessageScope, args: &ForecastArgs) -> Result<(), Failure> {
    let scope = offline.scope(user).await?;
    let handle = offline.handle_with_transports().await?;
    let mut options = forecast_options(&offline.settings);
    options.horizon = Duration::from_secs(u64::from(args.days) * 24 * 3_600);
    options.offline_for = args.offline_for;
    options.failed_per_mille = args.failed_per_mille;
    let control = ForecastControl::new();
    let forecast = match of {
        MessageScope::Sequence(id) => {
            let found = offline.store.sequence(&scope, id).await;
            found.map_err(|_| format!("{user} has no sequence {id}"))?;
            handle.forecast_sequence(&scope, id, &options, &control).await?
        }
        MessageScope::Campaign(id) => {
            let found = offline.store.campaign(&scope, id).await;
            found.map_err(|_| format!("{user} has no campaign {id}"))?;
            handle.forecast_campaign(&scope, id, &options, &control).await?
        }
        _ => unreachable!("a command is for campaigns or for sequences"),
    };
    if args.json {
        let view = ForecastView::of(&forecast, &forecast.devices, None);
        say(&serde_json::to_string_pretty(&view)?);
    } else {
        show(&forecast);
    }
    Ok(())
}

/// An instant as clocks of the forecast's zone show it.
fn local(forecast: &Forecast, at: Option<Timestamp>) -> String {
    let zone = forecast.time_zone;
    at.map_or_else(
        || "-".to_owned(),
        |at| format!("{} {}", zone.local_date(at), zone.local_time(at)),
    )
}

fn show(forecast: &Forecast) {
    say(&format!(
        "first message {}, last message {} ({})",
        local(forecast, forecast.first_sent_at),
        local(forecast, forecast.last_sent_at),
        forecast.time_zone
    ));
    let remaining = forecast.numbers.remaining;
    match forecast.end {
        ForecastEnd::Completed => say(&format!(
            "everything is settled by {}",
            local(forecast, forecast.ends_at)
        )),
        ForecastEnd::Stopped { reason } => {
            let why = reason.as_ref().map(word).unwrap_or_default();
            say(&format!("it would stop before its end: {why}; {remaining} are left"));
        }
        ForecastEnd::Horizon => say(&format!("{remaining} are left at the end of the days looked at")),
        _ => say(&format!("{remaining} are left where the time of the forecast was over")),
    }
    say(&row("in the end", &forecast.numbers));
    if forecast.before.should() > 0 {
        say(&row("of which before", &forecast.before));
    }
    for day in &forecast.days {
        say(&format!(
            "{:<40} sent {:>7}  failed {:>6}  skipped {:>6}  by {} devices",
            day.date.to_string(),
            day.sent,
            day.failed,
            day.skipped,
            day.devices
        ));
    }
    if let Some(sequence) = &forecast.sequence {
        let contacts = &sequence.contacts;
        say(&format!(
            "contacts: {} in it, {} enter of {} that match, {} come by a chain; {} completed, {} still in it",
            contacts.open,
            contacts.entered,
            contacts.matching,
            contacts.chained,
            contacts.completed,
            contacts.left_open
        ));
        for step in &sequence.steps {
            let name = match &step.step {
                Some((place, day, trigger)) => format!("{}. day {day} {trigger}", place + 1),
                None => "(removed)".to_owned(),
            };
            say(&row(&name.chars().take(40).collect::<String>(), &step.numbers));
        }
    }
    for device in forecast.devices.iter().take(DEVICES_SHOWN) {
        say(&device_row(forecast, device));
    }
    if forecast.devices.len() > DEVICES_SHOWN {
        let more = forecast.devices.len() - DEVICES_SHOWN;
        say(&format!("... and {more} devices more: --json shows all"));
    }
    for one in &forecast.not_sent {
        let reason = one.reason.as_ref().map(word).unwrap_or_default();
        say(&format!("{} {} {reason}", one.count, word(&one.state)));
    }
    let hours = |millis: u64| millis / 3_600_000;
    let waited = &forecast.waited;
    say(&format!(
        "hours waited, all devices together: pauses {}, caps {}, quiet hours {}, devices that cannot send {}, other {}",
        hours(waited.delay_ms),
        hours(waited.hour_cap_ms + waited.day_cap_ms + waited.warm_up_ms),
        hours(waited.quiet_hours_ms),
        hours(waited.offline_ms),
        hours(waited.back_off_ms + waited.restricted_ms + waited.cold_ms)
    ));
    for used in &forecast.latencies {
        let known = match used.source {
            LatencySource::Given => "given".to_owned(),
            LatencySource::Measured => format!("measured on {} sends", used.measured),
            LatencySource::Assumed => "assumed".to_owned(),
        };
        let platform = used.platform.as_str();
        say(&format!(
            "a send over {platform} takes {} to {} ms: {known}",
            used.least_ms, used.most_ms
        ));
    }
    for warning in &forecast.warnings {
        say(&format!("warning: {}", warning.message));
    }
}

fn device_row(forecast: &Forecast, device: &DeviceForecast) -> String {
    let name = match (&device.device_id, device.name.as_str()) {
        (None, _) => "(waiting for a device)".to_owned(),
        (Some(id), "") => id.to_string(),
        (Some(_), name) => name.chars().take(40).collect(),
    };
    let stand = device.stand.as_ref().map(word).unwrap_or_default();
    let last = local(forecast, device.last_sent_at);
    format!("{}  {stand} until {last}", row(&name, &device.numbers))
}
