//! Counts what happened in a simulation.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::report::{DayForecast, DeviceDay, DeviceForecast, DeviceStand, ReasonCount};
use crate::domain::lane::Waits;
use crate::domain::message::{Message, MessageScope, MessageState, Reason};
use crate::domain::schedule::{LocalDate, TimeZone};
use crate::domain::summary::Numbers;
use crate::engine::watch::{LaneBegun, LaneWatch};
use crate::id::{DeviceId, StepId};
use crate::time::Timestamp;

/// Adds up what the messages of one scope waited for, by device.
#[derive(Debug)]
pub(super) struct WaitWatch {
    scope: MessageScope,
    waited: Mutex<BTreeMap<DeviceId, Waits>>,
}

impl WaitWatch {
    pub(super) fn new(scope: MessageScope) -> Self {
        Self {
            scope,
            waited: Mutex::default(),
        }
    }

    pub(super) fn take(&self) -> BTreeMap<DeviceId, Waits> {
        std::mem::take(&mut *self.waited.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl LaneWatch for WaitWatch {
    fn begun(&self, begun: &LaneBegun) {
        if begun.scope == self.scope {
            let mut waited = self.waited.lock().unwrap_or_else(PoisonError::into_inner);
            *waited.entry(begun.device_id).or_default() += begun.waited;
        }
    }
}

/// How wide the spans are within which the local date is asked for once: all zones change theirs at a quarter of an hour.
const DATE_SPAN_MS: i64 = 15 * 60 * 1_000;

#[derive(Default)]
struct OfDevice {
    numbers: Numbers,
    first_sent_at: Option<Timestamp>,
    last_sent_at: Option<Timestamp>,
    days: BTreeMap<LocalDate, u64>,
    /// Until when messages waited that were never tried.
    untried_until: Option<Timestamp>,
}

/// When the messages of one step go out.
#[derive(Default)]
pub(super) struct OfStep {
    pub(super) first_sent_at: Option<Timestamp>,
    pub(super) last_sent_at: Option<Timestamp>,
    days: BTreeMap<LocalDate, u64>,
}

impl OfStep {
    pub(super) fn days(&self) -> Vec<DeviceDay> {
        days_of(&self.days)
    }
}

fn days_of(days: &BTreeMap<LocalDate, u64>) -> Vec<DeviceDay> {
    days.iter()
        .map(|(date, sent)| DeviceDay {
            date: *date,
            sent: *sent,
        })
        .collect()
}

#[derive(Default)]
struct OfDay {
    sent: u64,
    failed: u64,
    skipped: u64,
}

/// What became of the messages of a simulation.
pub(super) struct Tally {
    zone: TimeZone,
    end: Timestamp,
    dates: BTreeMap<i64, LocalDate>,
    devices: BTreeMap<Option<DeviceId>, OfDevice>,
    steps: BTreeMap<StepId, OfStep>,
    days: BTreeMap<LocalDate, OfDay>,
    reasons: BTreeMap<(MessageState, Option<Reason>), u64>,
    pub(super) numbers: Numbers,
    pub(super) last_settled_at: Option<Timestamp>,
}

impl Tally {
    /// Nothing yet; the simulation stood still at `end`.
    pub(super) fn new(zone: TimeZone, end: Timestamp) -> Self {
        Self {
            zone,
            end,
            dates: BTreeMap::new(),
            devices: BTreeMap::new(),
            steps: BTreeMap::new(),
            days: BTreeMap::new(),
            reasons: BTreeMap::new(),
            numbers: Numbers::default(),
            last_settled_at: None,
        }
    }

    fn date(&mut self, at: Timestamp) -> LocalDate {
        let zone = self.zone;
        let span = at.as_millis().div_euclid(DATE_SPAN_MS);
        *self.dates.entry(span).or_insert_with(|| zone.local_date(at))
    }

    pub(super) fn add(&mut self, message: &Message) {
        self.numbers.count(message.state, None);
        self.last_settled_at = self.last_settled_at.max(message.settled_at);
        let attempted_at = message.attempt.as_ref().map(|attempt| attempt.attempted_at);
        let at = attempted_at.or(message.settled_at);
        let date = at.filter(|_| !message.state.is_open()).map(|at| self.date(at));
        let device = self.devices.entry(message.device_id).or_default();
        device.numbers.count(message.state, None);
        if attempted_at.is_none() {
            let until = message.settled_at.unwrap_or(self.end);
            // What is settled as it is planned has waited for nothing.
            let waited = until > message.created_at;
            device.untried_until = device.untried_until.max(Some(until).filter(|_| waited));
        }
        if message.state == MessageState::Sent {
            if let (Some(at), Some(date)) = (attempted_at, date) {
                device.first_sent_at = Some(device.first_sent_at.map_or(at, |first| first.min(at)));
                device.last_sent_at = device.last_sent_at.max(Some(at));
                *device.days.entry(date).or_default() += 1;
                if let Some(flow) = message.flow {
                    let step = self.steps.entry(flow.step_id).or_default();
                    step.first_sent_at = Some(step.first_sent_at.map_or(at, |first| first.min(at)));
                    step.last_sent_at = step.last_sent_at.max(Some(at));
                    *step.days.entry(date).or_default() += 1;
                }
            }
        } else {
            *self.reasons.entry((message.state, message.reason)).or_default() += 1;
        }
        if let Some(date) = date {
            let day = self.days.entry(date).or_default();
            match message.state {
                MessageState::Sent => day.sent += 1,
                MessageState::Failed | MessageState::Unknown => day.failed += 1,
                _ => day.skipped += 1,
            }
        }
    }

    /// Counts by flows in place of messages: those that nobody got to are cancelled or remain.
    pub(super) fn count_flows(&mut self, total: Numbers, devices: impl Iterator<Item = (Option<DeviceId>, Numbers)>) {
        let never_came = total.cancelled.saturating_sub(self.numbers.cancelled);
        let to_come = total.remaining.saturating_sub(self.numbers.remaining);
        for (key, count) in [
            ((MessageState::Cancelled, Some(Reason::ScopeEnded)), never_came),
            ((MessageState::Queued, None), to_come),
        ] {
            if count > 0 {
                *self.reasons.entry(key).or_default() += count;
            }
        }
        self.numbers = total;
        for (id, numbers) in devices {
            self.devices.entry(id).or_default().numbers = numbers;
        }
        self.devices.retain(|_, device| device.numbers.should() > 0);
    }

    pub(super) fn take_steps(&mut self) -> BTreeMap<StepId, OfStep> {
        std::mem::take(&mut self.steps)
    }

    pub(super) fn days(&self) -> Vec<DayForecast> {
        let mut devices: BTreeMap<LocalDate, u64> = BTreeMap::new();
        for date in self.devices.values().flat_map(|device| device.days.keys()) {
            *devices.entry(*date).or_default() += 1;
        }
        let days = self.days.iter().map(|(date, day)| DayForecast {
            date: *date,
            sent: day.sent,
            failed: day.failed,
            skipped: day.skipped,
            devices: devices.get(date).copied().unwrap_or(0),
        });
        days.collect()
    }

    pub(super) fn not_sent(&self) -> Vec<ReasonCount> {
        let counts = self.reasons.iter().map(|((state, reason), count)| ReasonCount {
            state: *state,
            reason: *reason,
            count: *count,
        });
        counts.collect()
    }

    /// The devices, with what they waited for since `from`; those that cannot send waited until their messages expired or
    /// they came back.
    pub(super) fn devices(
        self,
        known: &BTreeMap<DeviceId, (String, DeviceStand)>,
        mut waited: BTreeMap<DeviceId, Waits>,
        from: Timestamp,
        back_at: Option<Timestamp>,
    ) -> Vec<DeviceForecast> {
        let devices = self.devices.into_iter().map(|(device_id, device)| {
            let known = device_id.and_then(|id| known.get(&id));
            let (name, stand) = known.cloned().unwrap_or((String::new(), DeviceStand::Gone));
            let stand = device_id.map(|_| stand);
            let mut waited = device_id.and_then(|id| waited.remove(&id)).unwrap_or_default();
            let comes_back = stand == Some(DeviceStand::Offline);
            let until = match stand {
                None | Some(DeviceStand::Online | DeviceStand::Gone) => None,
                _ if comes_back && device.first_sent_at.is_some() => back_at,
                _ => device.untried_until,
            };
            if let Some(until) = until {
                waited.add(crate::domain::lane::LaneReason::Paused, until.since(from));
            }
            DeviceForecast {
                device_id,
                name,
                stand,
                numbers: device.numbers,
                first_sent_at: device.first_sent_at,
                last_sent_at: device.last_sent_at,
                days: days_of(&device.days),
                waited,
            }
        });
        devices.collect()
    }
}
