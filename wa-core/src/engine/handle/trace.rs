//! Why somebody was, was not, or is not yet written to.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{CONTACTS_MAX, Contact, Handle, HandleError, SequenceWithSteps};
use crate::domain::access::RequestScope;
use crate::domain::audience::{Audience, AudienceCursor};
use crate::domain::campaign::{Campaign, CampaignStatus, Routing};
use crate::domain::device::{Device, DeviceStatus, HoldReason, Restriction};
use crate::domain::enrolment::{Enrolment, EnrolmentState};
use crate::domain::lane::LaneReason;
use crate::domain::lead::{Lead, TargetStatus};
use crate::domain::message::{Message, MessageScope, MessageState, Reason};
use crate::domain::phone::PersonKey;
use crate::domain::schedule::{Quiet, TimeZone};
use crate::domain::sequence::{MatchCursor, ReEntry, SequenceStatus, SequenceSteps};
use crate::domain::suppression::Suppression;
use crate::domain::token::Token;
use crate::engine::LaneStatus;
use crate::id::{CampaignId, DeviceId, LeadId, MessageId, SequenceId};
use crate::plan::ScopeGate;
use crate::store::{EnrolmentFilter, MessageFilter, PAGE_MAX, PageRequest};
use crate::time::Timestamp;
use crate::transport::RestrictionScope;

/// Of what a trace is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", content = "id", rename_all = "snake_case")]
pub enum TraceOf {
    /// A campaign.
    Campaign(CampaignId),
    /// A sequence.
    Sequence(SequenceId),
}

/// What decides whether somebody is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Rule {
    /// The campaign or sequence runs, or ran.
    Status,
    /// The lead has its niche.
    Niche,
    /// The lead has a trigger of an entry point.
    Trigger,
    /// The lead has its target status.
    TargetStatus,
    /// The lead belongs to its device.
    Device,
    /// There is a device that writes to the lead.
    Sender,
    /// The lead was there when it started.
    CreatedBefore,
    /// The audience are uploaded numbers, not leads.
    Uploaded,
    /// The person may be written to.
    Suppression,
    /// The number is not in it already.
    AlreadyIn,
    /// The person may enter again.
    ReEntry,
    /// Its search for leads came to this one.
    Reached,
}

/// What came of one rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ruling {
    /// It lets the lead through.
    Passes,
    /// It is what keeps the lead out.
    Stops,
    /// It has not come to it yet.
    Waits,
}

/// One rule as it holds for the lead, as things stand now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The rule.
    pub rule: Rule,
    /// What comes of it.
    pub ruling: Ruling,
    /// In words.
    pub why: String,
}

/// What a message that is open waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "for", rename_all = "snake_case")]
#[non_exhaustive]
pub enum WaitsFor {
    /// Its time.
    Due {
        /// When it may go at the earliest.
        until: Timestamp,
    },
    /// Its campaign or sequence to go on.
    Resume,
    /// An earlier step that is sent again.
    EarlierStep {
        /// The message of that step.
        message_id: MessageId,
    },
    /// Any device of the pool that can send.
    AnyDevice,
    /// Its turn among what waits in the pool.
    PoolTurn,
    /// Devices that have taken as many messages as its campaign allows: one of them may give a place back.
    DeviceLimit,
    /// Its device to come online.
    DeviceOnline {
        /// Since when it is offline.
        since: Timestamp,
    },
    /// The hold of its device to end.
    DeviceHold {
        /// Why it is on hold.
        reason: HoldReason,
        /// Since when.
        since: Timestamp,
    },
    /// The restriction of its device to end.
    Restriction {
        /// When it ends.
        until: Timestamp,
    },
    /// The pace of its device, as the node that runs it says.
    Lane {
        /// What the lane waits for.
        reason: LaneReason,
        /// Until when.
        until: Timestamp,
    },
    /// Quiet hours to end.
    QuietHours {
        /// When they end.
        until: Timestamp,
    },
    /// Messages that come before it on its device.
    Turn,
    /// The answer of the gateway: it is being sent.
    Answer,
    /// The next look at a message that may have been sent.
    Doubt {
        /// When it is looked at again.
        until: Timestamp,
    },
}

/// One message of the campaign or sequence to the lead, and why it stands where it does.
#[derive(Debug, Clone, Serialize)]
pub struct MessageTrace {
    /// The message.
    pub message: Message,
    /// What it waits for; `None` when it is settled.
    pub waits_for: Option<WaitsFor>,
    /// In words.
    pub why: String,
}

/// Why somebody was, was not, or is not yet written to.
#[derive(Debug, Clone, Serialize)]
pub struct Trace {
    /// The lead.
    pub lead_id: LeadId,
    /// The campaign or sequence.
    pub of: TraceOf,
    /// Whether the lead is or was in it.
    pub is_in: bool,
    /// The rules, as they hold now; for one that is in it they show what would hold today.
    pub checks: Vec<Check>,
    /// The messages, oldest first, those that were sent again too.
    pub messages: Vec<MessageTrace>,
    /// Of a sequence: the runs with all their flows, the newest 100.
    pub runs: Vec<Contact>,
    /// When it was made.
    pub at: Timestamp,
}

impl Trace {
    /// The rules that keep the lead out.
    pub fn stops(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| check.ruling == Ruling::Stops)
    }
}

impl Handle {
    /// Why a lead was, was not, or is not yet written to by a campaign or sequence. `lanes` are the lanes of the engine that runs
    /// in this process, if there is one ([`Engine::lanes`](crate::engine::Engine::lanes)): they know best what a device waits for;
    /// of devices that run elsewhere the rows of the store tell.
    ///
    /// # Errors
    /// `NotFound` when there is no such lead, campaign or sequence.
    pub async fn trace(
        &self,
        scope: &RequestScope,
        lead: LeadId,
        of: TraceOf,
        lanes: &[LaneStatus],
    ) -> Result<Trace, HandleError> {
        let lead = self.core.store.lead(scope, lead).await?;
        let person = self.person(lead.user_id, &lead.phone);
        let suppressed = self.core.store.suppressed(lead.user_id, &[person]).await?;
        let zone = self.settings(lead.user_id).await?.time_zone;
        let known = Known {
            lead: &lead,
            suppression: suppressed.first(),
            now: self.now(),
            zone,
        };
        let Gathered {
            messages,
            checks,
            runs,
            gate,
            quiet,
            full,
        } = match of {
            TraceOf::Campaign(id) => self.gather_campaign(scope, id, person, &known).await?,
            TraceOf::Sequence(id) => self.gather_sequence(scope, id, person, &known).await?,
        };
        let devices = self.devices_of(scope).await?;
        let looks = Looks {
            gate,
            quiet,
            devices: &devices,
            full,
            lanes,
            now: known.now,
        };
        let waits: Vec<_> = messages
            .iter()
            .map(|message| looks.waits_for(message, &messages))
            .collect();
        let is_in = !messages.is_empty() || !runs.is_empty();
        let messages = messages
            .into_iter()
            .zip(waits)
            .map(|(message, waits_for)| MessageTrace {
                why: in_words(&message, waits_for, zone, known.now),
                waits_for,
                message,
            });
        Ok(Trace {
            lead_id: lead.id,
            of,
            is_in,
            checks,
            messages: messages.collect(),
            runs,
            at: known.now,
        })
    }

    async fn gather_campaign(
        &self,
        scope: &RequestScope,
        id: CampaignId,
        person: PersonKey,
        known: &Known<'_>,
    ) -> Result<Gathered, HandleError> {
        let campaign = self.core.store.campaign(scope, id).await?;
        let messages = self.messages_traced(scope, MessageScope::Campaign(id), person).await?;
        let full = match campaign.device_limit {
            Some(limit) => {
                let taken = self.core.store.taken(&[id]).await?;
                let full = taken.iter().filter(|one| one.taken >= limit);
                full.map(|one| one.device_id).collect()
            }
            None => BTreeSet::new(),
        };
        Ok(Gathered {
            full,
            checks: known.campaign(&campaign, &messages),
            messages,
            runs: Vec::new(),
            gate: campaign.status.into(),
            quiet: campaign.quiet_hours.map(|hours| Quiet {
                hours,
                zone: campaign.time_zone,
            }),
        })
    }

    async fn gather_sequence(
        &self,
        scope: &RequestScope,
        id: SequenceId,
        person: PersonKey,
        known: &Known<'_>,
    ) -> Result<Gathered, HandleError> {
        let of = self.sequence(scope, id).await?;
        let sequence = &of.sequence;
        let messages = self.messages_traced(scope, MessageScope::Sequence(id), person).await?;
        let filter = EnrolmentFilter {
            sequence_id: Some(id),
            person: Some(person),
            ..EnrolmentFilter::default()
        };
        let page = PageRequest::first(PAGE_MAX);
        let enrolments = self.core.store.enrolments(scope, &filter, &page).await?.rows;
        let checks = known.sequence(&of, &enrolments);
        let newest = enrolments.len().saturating_sub(CONTACTS_MAX as usize);
        let runs = self.with_flows(scope, sequence, enrolments[newest..].to_vec()).await?;
        Ok(Gathered {
            full: BTreeSet::new(),
            messages,
            checks,
            runs,
            gate: if sequence.status.runs() {
                ScopeGate::Open
            } else {
                ScopeGate::Paused
            },
            quiet: sequence.quiet_hours.map(|hours| Quiet {
                hours,
                zone: sequence.time_zone,
            }),
        })
    }

    async fn messages_traced(
        &self,
        scope: &RequestScope,
        of: MessageScope,
        person: PersonKey,
    ) -> Result<Vec<Message>, HandleError> {
        let filter = MessageFilter {
            scope: Some(of),
            person: Some(person),
            with_superseded: true,
            ..MessageFilter::default()
        };
        let page = PageRequest::first(PAGE_MAX);
        Ok(self.core.store.messages(scope, &filter, &page).await?.rows)
    }
}

/// What a trace is made of.
struct Gathered {
    messages: Vec<Message>,
    checks: Vec<Check>,
    runs: Vec<Contact>,
    gate: ScopeGate,
    quiet: Option<Quiet>,
    full: BTreeSet<DeviceId>,
}

/// The lead, and what is known beside it.
struct Known<'a> {
    lead: &'a Lead,
    suppression: Option<&'a Suppression>,
    now: Timestamp,
    zone: TimeZone,
}

fn check(rule: Rule, ruling: Ruling, why: impl Into<String>) -> Check {
    let why = why.into();
    Check { rule, ruling, why }
}

/// A rule that passes or stops, with the words for both.
fn passes_if(rule: Rule, passes: bool, yes: impl Into<String>, no: impl Into<String>) -> Check {
    match passes {
        true => check(rule, Ruling::Passes, yes),
        false => check(rule, Ruling::Stops, no),
    }
}

impl Known<'_> {
    fn campaign(&self, campaign: &Campaign, messages: &[Message]) -> Vec<Check> {
        use CampaignStatus::{Cancelled, Completed, Draft, Failed, Paused, Scheduled, Triggered};
        let lead = self.lead;
        let status = super::campaigns::word(campaign.status);
        let ruling = match campaign.status {
            Triggered | Completed => Ruling::Passes,
            Scheduled | Paused => Ruling::Waits,
            Draft | Failed | Cancelled => Ruling::Stops,
        };
        let mut checks = vec![check(Rule::Status, ruling, format!("the campaign is {status}"))];
        match &campaign.audience {
            Audience::Entries => {
                let found = !messages.is_empty();
                let no = "the campaign writes to uploaded numbers; this one is not among those planned so far";
                checks.push(passes_if(Rule::Uploaded, found, "the number was uploaded", no));
            }
            Audience::Leads { target, device_id, .. } => {
                checks.extend(self.niche(&campaign.audience));
                checks.push(self.target(target.matches(lead.target_status)));
                if let Some(device) = device_id {
                    let own = lead.device_id == Some(*device);
                    let no = "the lead belongs to another device, and the campaign is for one alone";
                    checks.push(passes_if(
                        Rule::Device,
                        own,
                        "the lead belongs to the campaign's device",
                        no,
                    ));
                }
                checks.extend(self.created_before(campaign));
            }
            Audience::Pool { target, .. } => {
                checks.extend(self.niche(&campaign.audience));
                checks.push(self.target(target.matches(lead.target_status)));
                let no = "the lead belongs to a device, and the campaign is for the pool of leads without one";
                let yes = "the lead is in the pool: it has no device";
                checks.push(passes_if(Rule::Device, lead.device_id.is_none(), yes, no));
                checks.extend(self.created_before(campaign));
            }
        }
        checks.push(self.sender(campaign.device_id, campaign.routing));
        checks.push(self.suppression());
        let duplicate = messages.iter().any(|message| message.reason == Some(Reason::Duplicate));
        if duplicate {
            let why = "another lead with the same number is in the campaign; the number gets one message";
            checks.push(check(Rule::AlreadyIn, Ruling::Stops, why));
        }
        if campaign.status == Triggered || campaign.status == Paused {
            let reached = match campaign.cursor {
                AudienceCursor::Start => false,
                AudienceCursor::Lead(last) => lead.id <= last,
                AudienceCursor::Entry(_) => !messages.is_empty(),
                AudienceCursor::Done => true,
            };
            checks.push(match reached {
                true => check(Rule::Reached, Ruling::Passes, "the audience is planned up to this lead"),
                false => check(Rule::Reached, Ruling::Waits, "the audience is still being planned"),
            });
        }
        checks
    }

    fn sequence(&self, of: &SequenceWithSteps, enrolments: &[Enrolment]) -> Vec<Check> {
        let (lead, sequence) = (self.lead, &of.sequence);
        let status = super::sequences::word(sequence.status);
        let ruling = match sequence.status {
            SequenceStatus::Active => Ruling::Passes,
            SequenceStatus::Paused | SequenceStatus::Inactive => Ruling::Waits,
            SequenceStatus::Draft => Ruling::Stops,
        };
        let mut checks = vec![check(Rule::Status, ruling, format!("the sequence is {status}"))];
        let entry_points = of.steps.iter().flat_map(SequenceSteps::entry_points);
        let triggers: Vec<&Token> = entry_points.map(|(token, _)| token).collect();
        let by_trigger = triggers.iter().find(|token| lead.triggers.contains(token));
        let by_niche = sequence.niche.as_ref().filter(|niche| lead.niches.contains(niche));
        checks.push(match (by_trigger, by_niche) {
            (Some(token), _) => check(
                Rule::Trigger,
                Ruling::Passes,
                format!("the lead has the trigger {token}"),
            ),
            (None, Some(niche)) => check(Rule::Niche, Ruling::Passes, format!("the lead has the niche {niche}")),
            (None, None) => {
                let names: Vec<String> = triggers.iter().map(ToString::to_string).collect();
                let or_niche = sequence.niche.as_ref().map(|niche| format!(", nor the niche {niche}"));
                let why = format!(
                    "the lead has no trigger of an entry point ({}){}; it enters by hand only",
                    names.join(", "),
                    or_niche.unwrap_or_default()
                );
                check(Rule::Trigger, Ruling::Stops, why)
            }
        });
        checks.push(self.target(sequence.target.matches(lead.target_status)));
        checks.push(self.sender(sequence.device_id, sequence.routing));
        checks.push(self.suppression());
        let open = enrolments.iter().any(|one| one.state == EnrolmentState::Open);
        if open {
            checks.push(check(
                Rule::AlreadyIn,
                Ruling::Stops,
                "the number is in the sequence now",
            ));
        } else if let Some(newest) = enrolments.last() {
            let again = match sequence.re_entry {
                ReEntry::Always => true,
                ReEntry::AfterCompletion => newest.state == EnrolmentState::Completed,
                ReEntry::Never => false,
            };
            let no = match sequence.re_entry {
                ReEntry::AfterCompletion => "the number was in the sequence, and did not complete it",
                _ => "the number was in the sequence, which takes nobody twice",
            };
            checks.push(passes_if(Rule::ReEntry, again, "the number may enter again", no));
        }
        if sequence.status == SequenceStatus::Active && enrolments.is_empty() {
            let reached = match sequence.cursor {
                MatchCursor::Start => false,
                MatchCursor::Lead(last) => lead.id <= last,
                MatchCursor::Done => true,
            };
            let why = "leads that were there before it became active are still being matched";
            checks.push(match reached {
                true => check(Rule::Reached, Ruling::Passes, "its search for leads came past this one"),
                false => check(Rule::Reached, Ruling::Waits, why),
            });
        }
        checks
    }

    fn niche(&self, audience: &Audience) -> Option<Check> {
        let niche = audience.niche()?;
        let has = self.lead.niches.contains(niche);
        let yes = format!("the lead has the niche {niche}");
        let no = format!("the lead does not have the niche {niche}");
        Some(passes_if(Rule::Niche, has, yes, no))
    }

    fn created_before(&self, campaign: &Campaign) -> Option<Check> {
        let before = self.lead.created_at <= campaign.started_at?;
        let yes = "the lead was there when it started";
        let no = "the lead was created after the campaign started";
        Some(passes_if(Rule::CreatedBefore, before, yes, no))
    }

    fn target(&self, matches: bool) -> Check {
        let status = match self.lead.target_status {
            TargetStatus::Prospect => "prospect",
            TargetStatus::Customer => "customer",
        };
        let yes = format!("the lead is a {status}");
        passes_if(
            Rule::TargetStatus,
            matches,
            yes.clone(),
            format!("{yes}, which is not its target status"),
        )
    }

    fn sender(&self, only: Option<DeviceId>, routing: Routing) -> Check {
        let (ruling, why) = match (only, routing, self.lead.device_id) {
            (Some(_), ..) => (Ruling::Passes, "one device sends to all"),
            (None, Routing::OwnDevice, Some(_)) => (Ruling::Passes, "the lead's own device sends"),
            (None, Routing::OwnDevice, None) => (Ruling::Stops, "the lead has no device, and only that would send"),
            (None, ..) => (Ruling::Passes, "a device of the pool sends"),
        };
        check(Rule::Sender, ruling, why)
    }

    fn suppression(&self) -> Check {
        match self.suppression {
            None => check(Rule::Suppression, Ruling::Passes, "the person may be written to"),
            Some(one) => {
                let since = clock_time(one.since_at, self.zone, self.now);
                let why = format!("the person must not be written to since {since}");
                check(Rule::Suppression, Ruling::Stops, why)
            }
        }
    }
}

/// What is known of the devices that send.
struct Looks<'a> {
    gate: ScopeGate,
    quiet: Option<Quiet>,
    devices: &'a [Device],
    /// Devices that have taken as many messages of the campaign as it allows.
    full: BTreeSet<DeviceId>,
    lanes: &'a [LaneStatus],
    now: Timestamp,
}

impl Looks<'_> {
    fn waits_for(&self, message: &Message, all: &[Message]) -> Option<WaitsFor> {
        match message.state {
            MessageState::Sending => Some(WaitsFor::Answer),
            MessageState::InDoubt => {
                let until = message.doubt.map_or(self.now, |doubt| doubt.next_check_at);
                Some(WaitsFor::Doubt { until })
            }
            MessageState::Held => Some(self.held(message, all)),
            MessageState::Queued => Some(self.queued(message)),
            _ => None,
        }
    }

    fn held(&self, message: &Message, all: &[Message]) -> WaitsFor {
        if self.gate != ScopeGate::Open {
            return WaitsFor::Resume;
        }
        let of = message.flow.map(|flow| flow.enrolment_id);
        let earlier = all.iter().find(|other| {
            let same = of.is_some() && other.flow.map(|flow| flow.enrolment_id) == of;
            same && other.id != message.id && other.round > 0 && other.state.is_open()
        });
        earlier.map_or(WaitsFor::Resume, |other| WaitsFor::EarlierStep { message_id: other.id })
    }

    fn queued(&self, message: &Message) -> WaitsFor {
        let now = self.now;
        if self.gate != ScopeGate::Open {
            return WaitsFor::Resume;
        }
        if message.due_at > now {
            let until = message.due_at;
            return match message.reason {
                Some(Reason::Restricted) => WaitsFor::Lane {
                    reason: LaneReason::ColdRestricted,
                    until,
                },
                Some(Reason::ColdPace) => WaitsFor::Lane {
                    reason: LaneReason::ColdPace,
                    until,
                },
                _ => WaitsFor::Due { until },
            };
        }
        let Some(id) = message.device_id else {
            let able = self.devices.iter().filter(|device| device.may_send());
            return match able.clone().next().is_some() {
                true if able.clone().all(|device| self.full.contains(&device.id)) => WaitsFor::DeviceLimit,
                true => WaitsFor::PoolTurn,
                false => WaitsFor::AnyDevice,
            };
        };
        let device = self.devices.iter().find(|device| device.id == id);
        if let Some(hold) = device.and_then(|device| device.hold.as_ref()) {
            return WaitsFor::DeviceHold {
                reason: hold.reason,
                since: hold.since_at,
            };
        }
        if let Some(offline) = device.filter(|device| device.status() == DeviceStatus::Offline) {
            return WaitsFor::DeviceOnline { since: offline.link_at };
        }
        let restriction = device.and_then(|device| device.restriction);
        let all = |one: &Restriction| one.scope == RestrictionScope::All && one.holds(now);
        if let Some(restriction) = restriction.filter(all) {
            return WaitsFor::Restriction {
                until: restriction.until_at,
            };
        }
        let lane = self.lanes.iter().find(|lane| lane.device_id == id);
        if let Some((reason, until)) = lane.and_then(|lane| lane.waits_for.zip(lane.waits_until)) {
            return WaitsFor::Lane { reason, until };
        }
        match self.quiet.map(|quiet| quiet.open_at(now)).filter(|until| *until > now) {
            Some(until) => WaitsFor::QuietHours { until },
            None => WaitsFor::Turn,
        }
    }
}

/// A time as clocks of the user show it, with the date on another day.
fn clock_time(at: Timestamp, zone: TimeZone, now: Timestamp) -> String {
    let (date, time) = (zone.local_date(at), zone.local_time(at));
    if date == zone.local_date(now) {
        time.to_string()
    } else {
        format!("{date} {time}")
    }
}

fn in_words(message: &Message, waits_for: Option<WaitsFor>, zone: TimeZone, now: Timestamp) -> String {
    let clock = |at: Timestamp| clock_time(at, zone, now);
    let Some(waits_for) = waits_for else {
        return settled_in_words(message, &clock);
    };
    match waits_for {
        WaitsFor::Due { until } => format!("waits for its time at {}", clock(until)),
        WaitsFor::Resume => "waits because its campaign or sequence is paused".to_owned(),
        WaitsFor::EarlierStep { .. } => "waits for an earlier step that is sent again".to_owned(),
        WaitsFor::AnyDevice => "waits for a device: none of the user can send".to_owned(),
        WaitsFor::PoolTurn => "waits for a device of the pool to have room".to_owned(),
        WaitsFor::DeviceLimit => {
            "waits until the devices are done, each of which has taken as many as the campaign allows".to_owned()
        }
        WaitsFor::DeviceOnline { since } => format!("waits for its device, which is offline since {}", clock(since)),
        WaitsFor::DeviceHold { reason, since } => {
            let why = match reason {
                HoldReason::ByPerson => "was paused by a person",
                HoldReason::Unauthenticated => "has a credential that is not accepted",
                HoldReason::ErrorRate => "paused itself because too much failed",
            };
            format!("waits for its device, which {why}, since {}", clock(since))
        }
        WaitsFor::Restriction { until } => format!("waits until {}: the account is restricted", clock(until)),
        WaitsFor::Lane { reason, until } => {
            let what = match reason {
                LaneReason::Ready => "its turn",
                LaneReason::Delay => "the pause between two messages",
                LaneReason::HourCap => "the cap of the hour",
                LaneReason::DayCap => "the cap of the day",
                LaneReason::WarmUp => "the cap of its warm-up",
                LaneReason::QuietHours => "the end of quiet hours",
                LaneReason::BackOff => "the next try after a refusal",
                LaneReason::Restricted => "the end of a restriction",
                LaneReason::ColdRestricted => "WhatsApp to let its device write to new people",
                LaneReason::ColdPace => "the next new person that its device may write to",
                LaneReason::Paused => return "waits for its device, which is paused".to_owned(),
            };
            format!("waits for {what} until {}", clock(until))
        }
        WaitsFor::QuietHours { until } => format!("waits for the end of quiet hours until {}", clock(until)),
        WaitsFor::Turn => "waits for its turn on its device".to_owned(),
        WaitsFor::Answer => "is being sent".to_owned(),
        WaitsFor::Doubt { until } => format!("may have been sent; is looked at again at {}", clock(until)),
    }
}

fn settled_in_words(message: &Message, clock: &impl Fn(Timestamp) -> String) -> String {
    let what = match message.state {
        MessageState::Sent => "was sent",
        MessageState::Failed => "failed",
        MessageState::Unknown => "may have been sent, and nobody can tell",
        MessageState::Skipped => "was skipped",
        _ => "was cancelled",
    };
    let at = message
        .settled_at
        .map(|at| format!(" at {}", clock(at)))
        .unwrap_or_default();
    let why = message
        .reason
        .map(reason_in_words)
        .map(|why| format!(": {why}"))
        .unwrap_or_default();
    let again = match (message.superseded, message.reason) {
        (true, Some(Reason::DeviceLimit)) => "; it was taken up again since",
        (true, _) => "; it was sent again since",
        (false, Some(Reason::DeviceLimit)) => "; it stays in the pool until that is triggered again",
        (false, _) => "",
    };
    format!("{what}{at}{why}{again}")
}

const fn reason_in_words(reason: Reason) -> &'static str {
    match reason {
        Reason::Suppressed => "the person must not be written to",
        Reason::Duplicate => "the number is in it already",
        Reason::NotOnWhatsApp => "the number has no WhatsApp account",
        Reason::Expired => "it waited too long",
        Reason::TooLong => "the text is longer than the device takes",
        Reason::DeviceGone => "its device was deleted",
        Reason::LeadGone => "the lead was deleted",
        Reason::Rejected => "the gateway refused it for good",
        Reason::InvalidRecipient => "the number cannot be a recipient",
        Reason::Unsupported => "the device cannot carry what is attached",
        Reason::RefusedTooOften => "it was refused too often while others passed",
        Reason::Empty => "nothing is left of its text",
        Reason::MediaGone => "what is attached cannot be loaded",
        Reason::ScopeEnded => "its campaign or run ended first",
        Reason::ByPerson => "a person said so",
        Reason::CannotTell => "the transport cannot tell",
        Reason::NoAnswer => "the gateway gave no answer in time",
        Reason::EndedInDoubt => "it was in doubt when its campaign or run ended",
        Reason::ResentTooOften => "it was sent again as often as is allowed",
        Reason::NoDevice => "the lead has no device",
        Reason::StepRemoved => "its step was removed before it was reached",
        Reason::Late => "nobody was there to send it in time",
        Reason::DeviceLimit => "every device reached the limit of the campaign",
        Reason::GatewayGaveUp => "the gateway gave it up",
        Reason::Erased => "the person's data was erased",
        Reason::RateLimited => "the gateway asks to slow down",
        Reason::DeviceOffline => "the device has no connection",
        Reason::GatewayUnavailable => "the gateway cannot be reached",
        Reason::Unauthenticated => "the credential is not accepted",
        Reason::Restricted => "the account is restricted",
        Reason::ColdPace => "new people are written to slowly",
        Reason::NeverHandedOver => "it was never handed over",
        Reason::NotFoundAtGateway => "the gateway never had it",
    }
}
