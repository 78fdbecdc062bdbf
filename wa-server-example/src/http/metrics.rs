//! Numbers for Prometheus.

use std::time::Duration;

use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use metrics::{Recorder, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use secrecy::ExposeSecret;
use subtle::ConstantTimeEq;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wa_core::domain::platform::Platform;
use wa_core::event::EventKind;
use wa_core::transport::OutgoingMessage;

use super::error::ApiError;
use super::extract::{Locked, Open, header_text};
use super::health::BUILD;
use crate::metered::{SendOutcome, SendWatch};

/// The meters of one server; not global, so that several may run in one process.
pub struct Meters {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

impl std::fmt::Debug for Meters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meters")
    }
}

impl Meters {
    /// Bounds of the buckets of durations, in seconds.
    const DURATIONS_S: [f64; 9] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0];
    /// Bounds of the buckets of sends, in seconds; a send may last as long as SEND_TIMEOUT.
    const SENDS_S: [f64; 9] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

    pub(crate) fn new() -> Self {
        let recorder = PrometheusBuilder::new()
            .set_buckets(&Self::DURATIONS_S)
            .and_then(|builder| {
                let sends = Matcher::Full("wa_send_duration_seconds".to_owned());
                builder.set_buckets_for_metric(sends, &Self::SENDS_S)
            })
            .expect("there are buckets")
            .build_recorder();
        let handle = recorder.handle();
        let meters = Self { recorder, handle };
        meters.with(Self::describe);
        meters.with(|| gauge!("wa_build_info", "version" => env!("CARGO_PKG_VERSION"), "build" => BUILD).set(1.0));
        meters
    }

    /// What the numbers are, for whoever reads them.
    fn describe() {
        let seconds = metrics::Unit::Seconds;
        describe_counter!("wa_http_requests_total", "Requests, by method, route and status.");
        describe_histogram!(
            "wa_http_request_seconds",
            seconds,
            "How long requests took, by method and route."
        );
        describe_counter!(
            "wa_sends_total",
            "Sends handed to a gateway, by platform and outcome: sent, failed (certainly not sent; may be tried again) or unknown."
        );
        describe_histogram!(
            "wa_send_duration_seconds",
            seconds,
            "How long gateways took for a send, by platform."
        );
        describe_counter!("wa_events_total", "Events of the engine and of people, by kind.");
        describe_gauge!("wa_outbox_messages", "Open messages, by state.");
        describe_gauge!("wa_tasks", "Tasks of the process that have not ended.");
        describe_gauge!(
            "wa_outbox_oldest_due_seconds",
            seconds,
            "How long the oldest queued message has been due."
        );
    }

    fn with(&self, record: impl FnOnce()) {
        metrics::with_local_recorder(&self.recorder as &dyn Recorder, record);
    }

    /// Counts one request. The route is its pattern, never the path, which may hold ids and tokens.
    pub(crate) fn request(&self, method: &'static str, route: String, status: u16, took: Duration) {
        self.with(|| {
            counter!("wa_http_requests_total", "method" => method, "route" => route.clone(), "status" => status.to_string())
                .increment(1);
            histogram!("wa_http_request_seconds", "method" => method, "route" => route).record(took.as_secs_f64());
        });
    }

    /// Counts one send and how long the gateway took. Nothing of the user, device or person: labels must stay few.
    pub(crate) fn send(&self, platform: &str, outcome: SendOutcome, took: Duration) {
        let platform = platform.to_owned();
        self.with(|| {
            counter!("wa_sends_total", "platform" => platform.clone(), "outcome" => outcome.as_str()).increment(1);
            histogram!("wa_send_duration_seconds", "platform" => platform).record(took.as_secs_f64());
        });
    }

    /// Counts what the engine and people did.
    pub(crate) fn event(&self, kind: &EventKind) {
        let event = match kind {
            EventKind::CampaignStatus { .. } => "campaign_status",
            EventKind::CampaignProgress { .. } => "campaign_progress",
            EventKind::SequenceStatus { .. } => "sequence_status",
            EventKind::SequenceProgress { .. } => "sequence_progress",
            EventKind::EnrolmentStarted { .. } => "enrolment_started",
            EventKind::EnrolmentEnded { .. } => "enrolment_ended",
            EventKind::MessageState { .. } => "message_state",
            EventKind::LeadCreated { .. } => "lead_created",
            EventKind::OptedOut { .. } => "opted_out",
            EventKind::Reply { .. } => "reply",
            EventKind::TakenOver { .. } => "taken_over",
            EventKind::ChatUpdate { .. } => "chat_update",
            EventKind::DeviceLink { .. } => "device_link",
            EventKind::DeviceHold { .. } => "device_hold",
            EventKind::DeviceRestriction { .. } => "device_restriction",
            EventKind::DeviceNewChats { .. } => "device_new_chats",
            EventKind::DeviceAnswered { .. } => "device_answered",
            _ => "other",
        };
        self.with(|| counter!("wa_events_total", "event" => event).increment(1));
    }
}

impl SendWatch for Meters {
    fn ended(&self, platform: &Platform, _message: &OutgoingMessage, outcome: SendOutcome, took: Duration) {
        self.send(platform.as_str(), outcome, took);
    }
}

pub(super) fn routes() -> OpenApiRouter<Locked> {
    OpenApiRouter::new().routes(routes!(metrics_text))
}

/// Numbers in the text form of Prometheus; for loopback, or for bearers of METRICS_TOKEN.
#[utoipa::path(get, path = "/metrics", tag = "running",
    responses((status = 200, description = "The numbers", body = String, content_type = "text/plain")))]
async fn metrics_text(open: Open, headers: HeaderMap) -> Result<Response, ApiError> {
    let allowed = match &open.settings.metrics_token {
        None => open.address.is_loopback(),
        Some(token) => header_text(&headers, &header::AUTHORIZATION)
            .and_then(|value| value.strip_prefix("Bearer "))
            .is_some_and(|given| given.as_bytes().ct_eq(token.expose_secret().as_bytes()).into()),
    };
    if !allowed {
        return Err(ApiError::forbidden(
            "metrics are for loopback, or for bearers of METRICS_TOKEN when it is set",
        ));
    }
    let backlog = open.store.backlog().await?;
    let now = open.clock.wall();
    open.meters.with(|| {
        let states = [
            ("queued", backlog.queued),
            ("held", backlog.held),
            ("sending", backlog.sending),
            ("in_doubt", backlog.in_doubt),
        ];
        for (state, count) in states {
            gauge!("wa_outbox_messages", "state" => state).set(count as f64);
        }
        let oldest = backlog.oldest_due_at.map_or(Duration::ZERO, |at| now.since(at));
        gauge!("wa_outbox_oldest_due_seconds").set(oldest.as_secs_f64());
        gauge!("wa_uptime_seconds").set(now.since(open.started_at).as_secs_f64());
        if let Some(engine) = open.engine.get() {
            let status = engine.status();
            gauge!("wa_lanes").set(status.lanes as f64);
            gauge!("wa_lanes_open").set(status.lanes_open as f64);
            gauge!("wa_in_flight").set(status.in_flight as f64);
            gauge!("wa_planner").set(f64::from(u8::from(status.planner)));
        }
        let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        gauge!("wa_tasks").set(tasks as f64);
        if let Some(bytes) = super::workers::memory_bytes() {
            gauge!("wa_memory_bytes").set(bytes as f64);
        }
    });
    let text = open.meters.handle.render();
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}
