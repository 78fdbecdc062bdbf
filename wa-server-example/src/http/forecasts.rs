//! What a campaign or a sequence will do, before it does it.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wa_core::domain::lane::Waits;
use wa_core::domain::message::MessageScope;
use wa_core::id::{CampaignId, SequenceId};
use wa_core::simulation::forecast::{
    ContactForecast, DayForecast, DeviceDay, DeviceForecast, Forecast, ForecastControl, ForecastEnd, ForecastOptions,
    LatencyUsed, ReasonCount, StepForecast,
};
use wa_core::time::Timestamp;

use super::envelope::{Envelope, Listed, Reply};
use super::error::{ApiError, ApiResult};
use super::extract::{Caller, Ids, Locked, PageQuery, Query};
use super::view::{NumbersView, at, word};
use crate::settings::Settings;

/// When to ask again where too many forecasts are at work.
const RETRY_AFTER: Duration = Duration::from_secs(5);

pub(super) fn routes() -> OpenApiRouter<Locked> {
    OpenApiRouter::new()
        .routes(routes!(campaign_forecast))
        .routes(routes!(sequence_forecast))
}

/// What a forecast assumes.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ForecastQuery {
    /// How many days ahead it looks, 1 to 400; 60 when it is not given.
    days: Option<u32>,
    /// When a campaign starts that has not started; its own time, or now, when it is not given.
    #[param(value_type = Option<String>)]
    start_at: Option<Timestamp>,
    /// After how many seconds devices that are offline now come back; not at all when it is not given.
    offline_for: Option<u64>,
    /// Messages in a thousand that gateways refuse, 0 to 1,000; 0 when it is not given.
    failed_per_mille: Option<u32>,
}

impl ForecastQuery {
    fn options(&self, settings: &Settings) -> Result<ForecastOptions, ApiError> {
        let mut options = forecast_options(settings);
        if let Some(days) = self.days {
            if !(1..=400).contains(&days) {
                return Err(ApiError::field("days", "out_of_range", "must be 1 to 400"));
            }
            options.horizon = Duration::from_secs(u64::from(days) * 24 * 3_600);
        }
        options.start_at = self.start_at;
        options.offline_for = self.offline_for.map(Duration::from_secs);
        if options
            .offline_for
            .is_some_and(|span| span > ForecastOptions::HORIZON_LIMIT)
        {
            return Err(ApiError::field(
                "offline_for",
                "out_of_range",
                "must be at most 400 days",
            ));
        }
        options.failed_per_mille = self.failed_per_mille.unwrap_or(0);
        Ok(options)
    }
}

/// The limits of every forecast of this server.
pub(crate) fn forecast_options(settings: &Settings) -> ForecastOptions {
    let mut options = ForecastOptions::default();
    options.recipients_max = settings.forecast_recipients_max;
    options.work_max = settings.forecast_timeout;
    options
}

/// What goes out on one local day.
#[derive(Debug, Serialize, ToSchema)]
pub struct ForecastDayView {
    /// The day, in the time zone of the campaign or sequence.
    pub date: String,
    /// Messages sent.
    pub sent: u64,
    /// Messages that fail or stay unknown.
    pub failed: u64,
    /// Messages that are skipped.
    pub skipped: u64,
    /// Devices that send.
    pub devices: u64,
}

impl From<&DayForecast> for ForecastDayView {
    fn from(day: &DayForecast) -> Self {
        Self {
            date: day.date.to_string(),
            sent: day.sent,
            failed: day.failed,
            skipped: day.skipped,
            devices: day.devices,
        }
    }
}

/// What one device or step sends on one local day.
#[derive(Debug, Serialize, ToSchema)]
pub struct SentOnDayView {
    /// The day.
    pub date: String,
    /// Messages sent.
    pub sent: u64,
}

fn days_of(days: &[DeviceDay]) -> Vec<SentOnDayView> {
    let view = |day: &DeviceDay| SentOnDayView {
        date: day.date.to_string(),
        sent: day.sent,
    };
    days.iter().map(view).collect()
}

/// What messages wait for, in milliseconds, added up over devices.
#[derive(Debug, Serialize, ToSchema)]
pub struct WaitsView {
    /// For the pause between two messages.
    pub delay_ms: u64,
    /// For the cap of the hour.
    pub hour_cap_ms: u64,
    /// For the cap of the day.
    pub day_cap_ms: u64,
    /// For the ramp of a new device.
    pub warm_up_ms: u64,
    /// For the end of quiet hours.
    pub quiet_hours_ms: u64,
    /// After a refusal of the gateway.
    pub back_off_ms: u64,
    /// For the end of a restriction of the account.
    pub restricted_ms: u64,
    /// With nothing to send but to people who do not know the device, to whom it may not write yet.
    pub cold_ms: u64,
    /// For a device that cannot send.
    pub offline_ms: u64,
}

impl From<&Waits> for WaitsView {
    fn from(waits: &Waits) -> Self {
        Self {
            delay_ms: waits.delay_ms,
            hour_cap_ms: waits.hour_cap_ms,
            day_cap_ms: waits.day_cap_ms,
            warm_up_ms: waits.warm_up_ms,
            quiet_hours_ms: waits.quiet_hours_ms,
            back_off_ms: waits.back_off_ms,
            restricted_ms: waits.restricted_ms,
            cold_ms: waits.cold_ms,
            offline_ms: waits.offline_ms,
        }
    }
}

/// What one device does.
#[derive(Debug, Serialize, ToSchema)]
pub struct ForecastDeviceView {
    /// The device; `null` for what waits in the pool.
    pub device_id: Option<String>,
    /// Its name.
    pub name: String,
    /// `online`, `offline`, `on_hold`, `no_transport` or `gone`; `null` for the pool.
    pub status: Option<String>,
    /// How its messages end.
    pub numbers: NumbersView,
    /// When its first message goes out.
    pub first_sent_at: Option<String>,
    /// When its last does.
    pub last_sent_at: Option<String>,
    /// Its days, in order; those without a message are left out.
    pub days: Vec<SentOnDayView>,
    /// What its messages wait for.
    pub waited: WaitsView,
}

impl From<&DeviceForecast> for ForecastDeviceView {
    fn from(device: &DeviceForecast) -> Self {
        Self {
            device_id: device.device_id.map(|id| id.to_string()),
            name: device.name.clone(),
            status: device.stand.as_ref().map(word),
            numbers: (&device.numbers).into(),
            first_sent_at: at(device.first_sent_at),
            last_sent_at: at(device.last_sent_at),
            days: days_of(&device.days),
            waited: (&device.waited).into(),
        }
    }
}

/// How many messages are not sent for one reason.
#[derive(Debug, Serialize, ToSchema)]
pub struct NotSentView {
    /// How they end.
    pub status: String,
    /// Why.
    pub reason: Option<String>,
    /// How many.
    pub count: u64,
}

impl From<&ReasonCount> for NotSentView {
    fn from(row: &ReasonCount) -> Self {
        Self {
            status: word(&row.state),
            reason: row.reason.as_ref().map(word),
            count: row.count,
        }
    }
}

/// What happens at one step of a sequence.
#[derive(Debug, Serialize, ToSchema)]
pub struct ForecastStepView {
    /// The step.
    pub step_id: String,
    /// Its place from 1; `null` of a step that an edit removed.
    pub place: Option<usize>,
    /// The day that it is shown on.
    pub day: Option<u16>,
    /// Its trigger.
    pub trigger: Option<String>,
    /// How it ends from now on; the unit is one lead and one step.
    pub numbers: NumbersView,
    /// When its first message from now on goes out.
    pub first_sent_at: Option<String>,
    /// When its last does.
    pub last_sent_at: Option<String>,
    /// Its days, in order; those without a message are left out.
    pub days: Vec<SentOnDayView>,
}

impl From<&StepForecast> for ForecastStepView {
    fn from(step: &StepForecast) -> Self {
        let shown = step.step.as_ref();
        Self {
            step_id: step.step_id.to_string(),
            place: shown.map(|(place, ..)| place + 1),
            day: shown.map(|(_, day, _)| *day),
            trigger: shown.map(|(.., trigger)| trigger.to_string()),
            numbers: (&step.numbers).into(),
            first_sent_at: at(step.first_sent_at),
            last_sent_at: at(step.last_sent_at),
            days: days_of(&step.days),
        }
    }
}

/// Who is in a sequence, who enters, and how their runs end.
#[derive(Debug, Serialize, ToSchema)]
pub struct ForecastContactsView {
    /// Runs that are open now.
    pub open: u64,
    /// Leads that match now and are not in it.
    pub matching: u64,
    /// Of these, who must not be written to.
    pub suppressed: u64,
    /// Of these, who were in it before and are not taken again.
    pub refused: u64,
    /// Of these, who enter.
    pub entered: u64,
    /// Runs that begin because another sequence leads here.
    pub chained: u64,
    /// Runs that are completed.
    pub completed: u64,
    /// Runs that end before their last step, by reason.
    pub ended: std::collections::BTreeMap<String, u64>,
    /// Runs that are still open where the forecast ends.
    pub left_open: u64,
}

impl From<&ContactForecast> for ForecastContactsView {
    fn from(contacts: &ContactForecast) -> Self {
        let ended = contacts.ended.iter().map(|row| {
            let reason = row.reason.as_ref().map_or_else(|| "other".to_owned(), word);
            (reason, row.count)
        });
        Self {
            open: contacts.open,
            matching: contacts.matching,
            suppressed: contacts.suppressed,
            refused: contacts.refused,
            entered: contacts.entered,
            chained: contacts.chained,
            completed: contacts.completed,
            ended: ended.collect(),
            left_open: contacts.left_open,
        }
    }
}

/// How long sends over one platform take in the forecast.
#[derive(Debug, Serialize, ToSchema)]
pub struct LatencyView {
    /// The platform.
    pub platform: String,
    /// `measured` by this server's engine, or `assumed` where it has sent too little since it started.
    pub source: String,
    /// How many sends were measured.
    pub measured: u64,
    /// The shortest, in milliseconds.
    pub least_ms: u64,
    /// The mean, in milliseconds.
    pub mean_ms: u64,
    /// The longest, in milliseconds.
    pub most_ms: u64,
}

impl From<&LatencyUsed> for LatencyView {
    fn from(used: &LatencyUsed) -> Self {
        Self {
            platform: used.platform.as_str().to_owned(),
            source: word(&used.source),
            measured: used.measured,
            least_ms: used.least_ms,
            mean_ms: used.mean_ms,
            most_ms: used.most_ms,
        }
    }
}

/// A thing to know about a forecast.
#[derive(Debug, Serialize, ToSchema)]
pub struct ForecastWarningView {
    /// What kind it is, stable, for programs.
    pub code: String,
    /// What it is, for people.
    pub message: String,
}

/// What will happen, as far as it can be known.
#[derive(Debug, Serialize, ToSchema)]
pub struct ForecastView {
    /// When it was made.
    pub made_at: String,
    /// When the campaign starts or the sequence started.
    pub starts_at: String,
    /// `completed`, `stopped`, `horizon` where there is more to do than it shows, or `out_of_time`.
    pub end: String,
    /// Why it would stop before its end.
    pub end_reason: Option<String>,
    /// When the first message from now on goes out.
    pub first_sent_at: Option<String>,
    /// When the last message goes out.
    pub last_sent_at: Option<String>,
    /// When every message is settled; `null` unless it completes.
    pub ends_at: Option<String>,
    /// The zone of its days.
    pub time_zone: String,
    /// How it stands before.
    pub before: NumbersView,
    /// How it ends, with what was before.
    pub numbers: NumbersView,
    /// Its days, in order; those on which nothing happens are left out.
    pub days: Vec<ForecastDayView>,
    /// A page of its devices, the pool first; `next` is the `cursor` of the next page of the same forecast.
    pub devices: Listed<ForecastDeviceView>,
    /// How many devices there are in all.
    pub device_count: usize,
    /// Messages that are not sent, by how they end and why.
    pub not_sent: Vec<NotSentView>,
    /// What all messages wait for, added up over devices.
    pub waited: WaitsView,
    /// Of a sequence: its steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<Vec<ForecastStepView>>,
    /// Of a sequence: who is in it and who enters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contacts: Option<ForecastContactsView>,
    /// How long gateways take in it.
    pub latencies: Vec<LatencyView>,
    /// Things to know.
    pub warnings: Vec<ForecastWarningView>,
}

impl ForecastView {
    /// A forecast with a page of its devices.
    pub(crate) fn of(forecast: &Forecast, devices: &[DeviceForecast], next: Option<String>) -> Self {
        let (end, end_reason) = match forecast.end {
            ForecastEnd::Completed => ("completed", None),
            ForecastEnd::Stopped { reason } => ("stopped", reason),
            ForecastEnd::Horizon => ("horizon", None),
            _ => ("out_of_time", None),
        };
        let warnings = forecast.warnings.iter().map(|warning| ForecastWarningView {
            code: word(&warning.code),
            message: warning.message.clone(),
        });
        let sequence = forecast.sequence.as_ref();
        Self {
            made_at: forecast.made_at.to_string(),
            starts_at: forecast.starts_at.to_string(),
            end: end.to_owned(),
            end_reason: end_reason.as_ref().map(word),
            first_sent_at: at(forecast.first_sent_at),
            last_sent_at: at(forecast.last_sent_at),
            ends_at: at(forecast.ends_at),
            time_zone: forecast.time_zone.to_string(),
            before: (&forecast.before).into(),
            numbers: (&forecast.numbers).into(),
            days: forecast.days.iter().map(Into::into).collect(),
            devices: Listed {
                items: devices.iter().map(Into::into).collect(),
                next,
            },
            device_count: forecast.devices.len(),
            not_sent: forecast.not_sent.iter().map(Into::into).collect(),
            waited: (&forecast.waited).into(),
            steps: sequence.map(|of| of.steps.iter().map(Into::into).collect()),
            contacts: sequence.map(|of| (&of.contacts).into()),
            latencies: forecast.latencies.iter().map(Into::into).collect(),
            warnings: warnings.collect(),
        }
    }
}

/// What a campaign will do: per day and device what goes out, when it ends, who is skipped and why, what caps and quiet hours
/// cost. Nothing is changed. One at a time per user; further pages of devices are of the same forecast, for ten minutes.
#[utoipa::path(get, path = "/api/campaigns/{id}/forecast", tag = "campaigns", params(ForecastQuery, PageQuery),
    responses((status = 200, description = "The forecast", body = Envelope<ForecastView>)))]
async fn campaign_forecast(
    caller: Caller,
    Ids(id): Ids<CampaignId>,
    Query(query): Query<ForecastQuery>,
    Query(page): Query<PageQuery>,
) -> ApiResult<ForecastView> {
    caller.store.campaign(&caller.scope, id).await?;
    shown(&caller, MessageScope::Campaign(id), &query, &page).await
}

/// What a sequence will do with those who are in it and those who match now, as if it became active now where it is not: per
/// day, device and step what goes out, when the last step ends, who is not taken and why. Nothing is changed. One at a time per
/// user; further pages of devices are of the same forecast, for ten minutes.
#[utoipa::path(get, path = "/api/sequences/{id}/forecast", tag = "sequences", params(ForecastQuery, PageQuery),
    responses((status = 200, description = "The forecast", body = Envelope<ForecastView>)))]
async fn sequence_forecast(
    caller: Caller,
    Ids(id): Ids<SequenceId>,
    Query(query): Query<ForecastQuery>,
    Query(page): Query<PageQuery>,
) -> ApiResult<ForecastView> {
    caller.store.sequence(&caller.scope, id).await?;
    shown(&caller, MessageScope::Sequence(id), &query, &page).await
}

async fn shown(caller: &Caller, of: MessageScope, query: &ForecastQuery, page: &PageQuery) -> ApiResult<ForecastView> {
    let limit = page.limit()? as usize;
    let now = caller.clock.monotonic();
    let (token, from, forecast) = match page.cursor.as_deref() {
        Some(cursor) => {
            let invalid = || ApiError::field("cursor", "invalid", "must be the `next` of an earlier page");
            let (token, from) = cursor.split_once('.').ok_or_else(invalid)?;
            let from: usize = from.parse().map_err(|_| invalid())?;
            let kept = caller.forecasts.kept(caller.user.id, token, of, now);
            let gone = || ApiError::field("cursor", "invalid", "is of a forecast that is gone: ask without it");
            (token.to_owned(), from, kept.ok_or_else(gone)?)
        }
        None => {
            let forecast = Arc::new(made(caller, of, query.options(&caller.settings)?).await?);
            let now = caller.clock.monotonic();
            (caller.forecasts.keep(caller.user.id, &forecast, now), 0, forecast)
        }
    };
    let rest = forecast.devices.get(from..).unwrap_or_default();
    let devices = &rest[..rest.len().min(limit)];
    let next = (devices.len() < rest.len()).then(|| format!("{token}.{}", from + devices.len()));
    Ok(Reply::ok("forecast", ForecastView::of(&forecast, devices, next)))
}

/// Stops a forecast that nobody waits for any more.
struct StoppedWithRequest(Arc<ForecastControl>);

impl Drop for StoppedWithRequest {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Makes a forecast on a thread of its own: it computes for seconds, which must hold up no other request.
async fn made(caller: &Caller, of: MessageScope, options: ForecastOptions) -> Result<Forecast, ApiError> {
    let turn = caller.forecasts.turn(caller.user.id);
    let turn = turn.ok_or_else(|| {
        ApiError::too_many(RETRY_AFTER).saying("as many forecasts are at work as may be: try again in a moment")
    })?;
    let control = Arc::new(ForecastControl::new());
    let _stopped = StoppedWithRequest(Arc::clone(&control));
    let (handle, scope) = (caller.handle.clone(), caller.scope.clone());
    let runtime = tokio::runtime::Handle::current();
    let work = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        runtime.block_on(async {
            match of {
                MessageScope::Sequence(id) => handle.forecast_sequence(&scope, id, &options, &control).await,
                MessageScope::Campaign(id) => handle.forecast_campaign(&scope, id, &options, &control).await,
                _ => unreachable!("a route is for campaigns or for sequences"),
            }
        })
    });
    let forecast = work.await.map_err(|error| ApiError::internal(&error))?;
    Ok(forecast?)
}
