//! The planner's side of an engine: campaigns, sweeps, pools, doubts, device commands, follow-ups.
//! Sequences have a file of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, future};

use super::config::EngineConfig;
use super::dispatch::{Finished, GRACE, still_in_doubt};
use super::flow::Flows;
use super::lane::{AGAIN_MAX, Again, LanePhase};
use super::node::{Engine, FollowUp, RestrictionOrd, State, cause_of, quiet_of};
use crate::domain::access::RequestScope;
use crate::domain::audience::{Audience, AudienceCursor};
use crate::domain::campaign::{Campaign, CampaignReason, CampaignStatus};
use crate::domain::command::{DeviceAnswer, DeviceAsk, DeviceCommand};
use crate::domain::device::{Hold, HoldReason, OnDoubt, Restriction, RestrictionCause};
use crate::domain::lane::LaneReason;
use crate::domain::message::{Message, MessageScope, Reason};
use crate::domain::phone::PersonKey;
use crate::domain::restriction::UNKNOWN_RESTRICTION_FOR;
use crate::event::{Event, EventKind};
use crate::id::{CampaignId, EventId, LeadId, UserId};
use crate::plan::{
    AudiencePage, DoubtLimits, DoubtStep, ExpansionContext, LaneEffect, RoutingContext, doubt_step, expand, left_over,
    reconciled, route, start, take_turns,
};
use crate::store::{
    Change, ChangeSet, DueFlow, Fence, Outcome, PageRequest, REPLIES_KEPT_FOR, RecentOf, SendingRow, Settle,
    StoreError, Verdict, WriteClass,
};
use crate::time::Timestamp;
use crate::transport::{DoubtPolicy, NotSentKind, ReconcileQuery, RestrictionScope, SendContext, SendError, Transport};

/// How many campaigns are started or expanded in one round of planning.
const CAMPAIGNS_PER_ROUND: u32 = 32;
/// How many pages of one kind are committed in one round, before lanes and leases get their turn again.
const PAGES_PER_ROUND: u32 = 4;
/// How many recipients of audiences are committed in one round, shared out among the campaigns, of which each has two pages at least: while
/// one is committed the next one is planned.
const AUDIENCE_ROWS_PER_ROUND: usize = 16_000;
/// Most pages of one campaign in a round, however few recipients they hold.
const AUDIENCE_PAGES_MAX: usize = 16;
const AUDIENCE_PAGES_MIN: usize = 2;
/// Most pages of old messages of chats that are removed at a time, each in a transaction of its own.
const CHAT_PAGES_PER_ROUND: u32 = 200;
/// How many steps of archiving follow each other, before what is kept for a while only is looked at again.
const ARCHIVE_PAGES_PER_ROUND: u32 = 100;
/// How many pool messages of each campaign and sequence are looked at in one round.
const POOL_PER_SCOPE: u32 = 300;
/// How many messages in doubt are looked at in one round.
const DOUBTS_PER_ROUND: u32 = 200;
/// For how long a message in doubt that its lane cannot send again at once is put off at least; later for as long as it has been in
/// doubt, up to the pause between two questions.
const PUT_OFF_LEAST: Duration = Duration::from_secs(5);
/// How many device commands are taken up in one round.
const COMMANDS_PER_ROUND: u32 = 50;

/// How long nodes are remembered that another fenced.
const NODES_KEPT_FOR: Duration = Duration::from_secs(3_600);
/// How many fenced nodes are forgotten in one round.
const NODES_PER_ROUND: u32 = 1_000;

/// What a round of planning leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PlanReport {
    /// Whether there is more to do at once.
    pub more: bool,
    /// When the next campaign starts or the next message expires, on the wall clock, as far as known.
    pub next_at: Option<Timestamp>,
}

/// A page of an audience that is planned and not committed yet.
#[derive(Debug)]
struct PlannedPage {
    /// The version and the cursor of the campaign for which it is right.
    of: (i64, AudienceCursor),
    /// Whom it is for.
    persons: BTreeSet<PersonKey>,
    /// Where the cursor stands afterwards.
    to: AudienceCursor,
    set: ChangeSet,
}

/// A message in doubt that its gateway is to be asked about.
#[derive(Debug)]
#[must_use]
pub struct Question {
    engine: Arc<Engine>,
    transport: Arc<dyn Transport>,
    context: SendContext,
    message: Message,
    epoch: crate::domain::device::Epoch,
    host: Arc<str>,
}

impl Question {
    /// Which calls share a limit with it: platform and gateway host.
    #[must_use]
    pub fn host(&self) -> Arc<str> {
        Arc::clone(&self.host)
    }

    /// Asks, and tells what the answer means.
    pub async fn ask(self) -> Finished {
        let core = &self.engine.core;
        let limits = self.engine.doubt_limits();
        let doubt = self.message.doubt.expect("only messages in doubt are asked about");
        let attempt = self
            .message
            .attempt
            .as_ref()
            .expect("a message in doubt has an attempt");
        let query = ReconcileQuery {
            attempt_id: attempt.id,
            transport_message_id: attempt.transport_message_id.clone(),
            to: self.message.phone.expect("an erased message is not in doubt"),
            attempted_at: attempt.attempted_at,
            asked_at: core.now(),
        };
        let face = self
            .transport
            .as_reconcilable()
            .expect("only transports that can be asked are asked");
        let find = std::panic::AssertUnwindSafe(face.find(&self.context, &query)).catch_unwind();
        let failed = |why| Err(SendError::not_sent(NotSentKind::Unavailable, why));
        let answer = match core.within(self.context.timeout + GRACE, find).await {
            Some(Ok(answer)) => answer,
            Some(Err(_)) => failed("the transport panicked"),
            None => failed("no answer in time"),
        };
        let (verdict, detail) = reconciled(answer, &doubt, &limits, core.now());
        if let Verdict::InDoubt { .. } = verdict {
            let again_at = core.lane_now().at() + limits.reconcile_every;
            self.engine.state().askable.set(attempt.id, again_at);
        }
        about(&self.message, self.epoch, verdict, detail)
    }
}

/// A request to a device that its transport is to answer.
#[derive(Debug)]
#[must_use]
pub struct Errand {
    engine: Arc<Engine>,
    transport: Arc<dyn Transport>,
    context: SendContext,
    command: DeviceCommand,
    fence: Fence,
}

impl Errand {
    /// Asks the transport and commits the answer.
    ///
    /// # Errors
    /// The answer could not be committed; it is asked again until the request expires.
    pub async fn run(self) -> Result<(), StoreError> {
        let core = &self.engine.core;
        let refused = |why: &str| DeviceAnswer::Refused {
            message: why.to_owned(),
        };
        let answer = std::panic::AssertUnwindSafe(self.answer()).catch_unwind();
        let answer = match core.within(self.context.timeout + GRACE, answer).await {
            Some(Ok(answer)) => answer,
            Some(Err(_)) => refused("the transport panicked"),
            None => refused("no answer in time"),
        };
        let event = core.event(
            self.command.user_id,
            EventKind::DeviceAnswered {
                command_id: self.command.id,
                device_id: self.command.device_id,
            },
        );
        let change = Change::AnswerCommand {
            command_id: self.command.id,
            fence: self.fence,
            answer,
        };
        let set = ChangeSet::one(change).tell(event.clone());
        let done = core.store.commit(set, WriteClass::Api, core.now()).await;
        self.engine.state().commands_live.remove(&self.command.id);
        done.map_err(|error| self.engine.note(error))?;
        core.bus.publish(&[event]).await;
        Ok(())
    }

    async fn answer(&self) -> DeviceAnswer {
        let refused = |message: &str| DeviceAnswer::Refused {
            message: message.to_owned(),
        };
        let told = |result: Result<serde_json::Value, SendError>| match result {
            Ok(result) => DeviceAnswer::Done { result },
            Err(error) => DeviceAnswer::Refused {
                message: error.to_string(),
            },
        };
        match &self.command.ask {
            DeviceAsk::CheckNumbers { phones } => match self.transport.as_number_checker() {
                None => refused("this platform cannot tell whether a number is on WhatsApp"),
                Some(face) => told(face.check(&self.context, phones).await.map(|checks| {
                    checks
                        .iter()
                        .map(|check| serde_json::json!({"phone": check.phone, "on_whatsapp": check.on_whatsapp}))
                        .collect()
                })),
            },
            DeviceAsk::Probe => match self.transport.as_probe() {
                None => refused("this platform cannot be asked how a device is"),
                Some(face) => told(face.probe(&self.context).await.map(|report| {
                    serde_json::json!({
                        "connected": report.connected,
                        "phone": report.phone,
                        "quota": report.quota,
                        "detail": report.detail,
                    })
                })),
            },
            DeviceAsk::Link { phone } => match self.transport.as_linkable() {
                None => refused("devices of this platform are not linked here"),
                Some(face) => told(
                    face.link(&self.context, phone.as_ref())
                        .await
                        .map(|step| step_json(&step)),
                ),
            },
            DeviceAsk::Refresh => match self.transport.as_linkable() {
                None => refused("devices of this platform are not refreshed here"),
                Some(face) => told(face.refresh(&self.context).await.map(|step| step_json(&step))),
            },
            DeviceAsk::Disconnect => match self.transport.as_linkable() {
                None => refused("devices of this platform are not disconnected here"),
                Some(face) => told(face.disconnect(&self.context).await.map(|()| serde_json::json!({}))),
            },
            DeviceAsk::Logout => match self.transport.as_linkable() {
                None => refused("devices of this platform are not logged out here"),
                Some(face) => told(face.logout(&self.context).await.map(|()| serde_json::json!({}))),
            },
        }
    }
}

fn step_json(step: &crate::transport::LinkStep) -> serde_json::Value {
    use crate::transport::LinkStep;
    match step {
        LinkStep::Qr { payload, expires_at } => serde_json::json!({"qr": payload, "expires_at": expires_at}),
        LinkStep::PairCode { code, expires_at } => serde_json::json!({"pair_code": code, "expires_at": expires_at}),
        LinkStep::State(state) => serde_json::json!({"link_state": state}),
    }
}

fn about(message: &Message, epoch: crate::domain::device::Epoch, verdict: Verdict, detail: Option<String>) -> Finished {
    let attempt = message.attempt.as_ref().expect("a message in doubt has an attempt");
    let outcome = Outcome {
        user_id: message.user_id,
        device_id: attempt.device_id,
        epoch,
        message_id: message.id,
        attempt_id: attempt.id,
        verdict,
        detail,
        advance: None,
    };
    Finished {
        outcome,
        effect: LaneEffect::Used,
        scope: message.scope,
        begun_at: None,
        version: 0,
    }
}

impl Engine {
    pub(crate) fn doubt_limits(&self) -> DoubtLimits {
        let config = &self.core.config;
        DoubtLimits {
            reconcile_after: config.reconcile_after,
            reconcile_every: config.reconcile_every,
            not_found_needed: config.not_found_needed,
            doubt_max: config.doubt_max,
            resend_max: config.resend_max,
        }
    }

    /// One round of planning: hands back what never reached a transport, starts and expands campaigns, enrols and
    /// moves enrolments on, sweeps, takes off what has expired, fills the lanes of pools, completes. Every step is committed on its own; stopping anywhere loses nothing.
    ///
    /// # Errors
    /// The store did not answer; the rest is done in the next round.
    pub async fn plan(&self) -> Result<PlanReport, StoreError> {
        if self.is_fenced() {
            return Ok(PlanReport::default());
        }
        self.unless_refused("hand back", self.hand_back().await)?;
        self.follow_up().await?;
        let now = self.core.now();
        let planner = self
            .core
            .store
            .plan_lease(self.incarnation(), now)
            .await
            .map_err(|error| self.note(error))?;
        self.state().planner = planner;
        let mut report = PlanReport::default();
        if planner {
            report.more |= self.unless_refused("start campaigns", self.start_campaigns().await)?;
            report.more |= self.unless_refused("expand campaigns", self.expand_campaigns().await)?;
            report.more |= self.unless_refused("plan sequences", self.plan_sequences().await)?;
        }
        report.more |= self.unless_refused("sweep", self.sweep().await)?;
        let mut next_expiry_at = None;
        if planner {
            let (more, next_at) = self.unless_refused("expire", self.expire().await)?;
            report.more |= more;
            next_expiry_at = next_at;
        }
        report.more |= self.unless_refused("fill pools", self.fill_pools().await)?;
        if planner {
            report.more |= self.unless_refused("complete campaigns", self.complete_campaigns().await)?;
            let next_start_at = self.core.store.next_campaign_at().await?;
            report.next_at = next_start_at.into_iter().chain(next_expiry_at).min();
        }
        Ok(report)
    }

    /// The answer of a part of a plan. What the store cannot do whenever it is asked, as with a row that it cannot read, must not keep the
    /// other parts from being done: it is noted, and tried again in the next round.
    fn unless_refused<T: Default>(&self, part: &'static str, done: Result<T, StoreError>) -> Result<T, StoreError> {
        match done {
            Err(error) if !error.may_pass() && !error.is_fenced() => {
                tracing::error!(part, ?error, "a part of the plan was not done; it is tried again");
                Ok(T::default())
            }
            done => done.map_err(|error| self.note(error)),
        }
    }

    /// Moves pages of what follows a change of many messages; says whether there is more.
    async fn sweep(&self) -> Result<bool, StoreError> {
        for _ in 0..PAGES_PER_ROUND {
            let (page, now) = (self.core.config.sweep_page, self.core.now());
            let swept = self.core.store.sweep(page, now).await?;
            self.wake(&swept.wake.into_iter().collect());
            if !swept.more {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes off what has expired where no lane looks; says whether there is more, else when the next message expires.
    async fn expire(&self) -> Result<(bool, Option<Timestamp>), StoreError> {
        for _ in 0..PAGES_PER_ROUND {
            let page = self.core.config.sweep_page;
            let expired = self.core.store.expire(page, self.core.now()).await?;
            if !expired.more {
                return Ok((false, expired.next_at));
            }
        }
        Ok((true, None))
    }

    /// Removes what is kept for a while only: expired device commands, old events, which replies
    /// were heard, old messages of chats, nodes that were fenced long ago.
    ///
    /// # Errors
    /// The store did not answer; the next call does it.
    pub async fn prune(&self) -> Result<u64, StoreError> {
        let now = self.core.now();
        let before = now - self.core.config.events_kept_for;
        let store = &self.core.store;
        // One that fails does not keep the others from being done.
        let parts = [
            store.prune_events(before).await,
            store.prune_commands(before).await,
            store.prune_replies(now - REPLIES_KEPT_FOR).await,
            self.sweep_chats(now).await,
            store.forget_nodes(now - NODES_KEPT_FOR, NODES_PER_ROUND).await,
        ];
        parts.into_iter().sum()
    }

    async fn sweep_chats(&self, now: Timestamp) -> Result<u64, StoreError> {
        let (before, page) = (now - self.core.config.chats_kept_for, self.core.config.sweep_page);
        let mut all = 0;
        for _ in 0..CHAT_PAGES_PER_ROUND {
            let swept = self.core.store.sweep_chats(before, page).await?;
            all += swept;
            if swept < u64::from(page) {
                break;
            }
        }
        Ok(all)
    }

    /// Moves messages of campaigns that ended long ago (`archive_after`) to the archive, in short steps; the node with the planner
    /// lease does it, at most 100 steps at a time.
    ///
    /// # Errors
    /// The store did not answer; the next call goes on.
    pub async fn archive(&self) -> Result<u64, StoreError> {
        let config = &self.core.config;
        let mut moved = 0;
        if config.archive_after.is_zero() || !self.state().planner {
            return Ok(moved);
        }
        for _ in 0..ARCHIVE_PAGES_PER_ROUND {
            let now = self.core.now();
            let page = config.archive_page;
            let archived = self.core.store.archive(page, now - config.archive_after, now).await?;
            moved += archived.moved;
            if !archived.more {
                break;
            }
        }
        Ok(moved)
    }

    /// A message that is `sending` here without a live dispatch never reached a transport: its begin's answer was lost.
    async fn hand_back(&self) -> Result<(), StoreError> {
        // Snapshot first: what is begun between the two is live and was not yet read.
        let rows = self.core.store.sending(self.incarnation()).await?;
        let now = self.core.now();
        let lost: Vec<_> = {
            let state = self.state();
            let never_ran = |row: &SendingRow| !state.live.contains(&row.attempt_id);
            rows.into_iter().filter(never_ran).collect()
        };
        let mut outcomes = Vec::with_capacity(lost.len());
        for row in lost {
            let verdict = Verdict::Requeue {
                reason: Reason::NeverHandedOver,
                due_at: now,
                counts: false,
            };
            // One that was to be sent again with the same id is as much in doubt as before.
            let scope = RequestScope::user(row.user_id);
            let verdict = match self.core.store.message(&scope, row.message_id).await {
                Ok(message) => match message.doubt {
                    Some(_) => still_in_doubt(verdict, cause_of(&message)),
                    None => verdict,
                },
                Err(error) if error.may_pass() => return Err(error),
                // One that cannot be read must keep neither the others nor its device.
                Err(error) => {
                    tracing::error!(message = %row.message_id, ?error, "what never ran cannot be read");
                    still_in_doubt(verdict, crate::transport::MaybeSentCause::Interrupted)
                }
            };
            outcomes.push(Outcome {
                user_id: row.user_id,
                device_id: row.device_id,
                epoch: row.epoch,
                message_id: row.message_id,
                attempt_id: row.attempt_id,
                verdict,
                detail: None,
                advance: None,
            });
        }
        for chunk in outcomes.chunks(self.core.config.batch_max.max(1)) {
            match self.settle_outcomes(chunk, now).await {
                Err(error) if error.may_pass() => return Err(error),
                // One that the store refuses must neither keep the others nor the rest of the plan.
                Err(_) => {
                    for outcome in chunk {
                        let Err(error) = self.settle_outcomes(std::slice::from_ref(outcome), now).await else {
                            continue;
                        };
                        if error.may_pass() {
                            return Err(error);
                        }
                        let message = outcome.message_id;
                        tracing::error!(%message, ?error, "the store refuses the outcome of an attempt");
                    }
                }
                Ok(()) => {}
            }
            self.wake(&chunk.iter().map(|outcome| outcome.device_id).collect());
        }
        Ok(())
    }

    async fn settle_outcomes(&self, outcomes: &[Outcome], now: Timestamp) -> Result<(), StoreError> {
        let settle = Settle {
            incarnation: self.incarnation(),
            outcomes: outcomes.to_vec(),
            now,
        };
        let done = self.core.store.settle(&settle).await;
        done.map(|_| ()).map_err(|error| self.note(error))
    }

    async fn start_campaigns(&self) -> Result<bool, StoreError> {
        let now = self.core.now();
        let due = self.core.store.campaigns_due(now, CAMPAIGNS_PER_ROUND).await?;
        let more = due.len() >= CAMPAIGNS_PER_ROUND as usize;
        for campaign in due {
            let Some(set) = start(&campaign, now, self.core.config.late_grace) else {
                continue;
            };
            self.commit_status(&campaign, set).await?;
        }
        Ok(more)
    }

    /// Commits a change of a campaign's status with the event that tells of it; somebody else's change first is fine.
    async fn commit_status(&self, campaign: &Campaign, mut set: ChangeSet) -> Result<bool, StoreError> {
        let events: Vec<_> = set
            .changes
            .iter()
            .filter_map(|change| match change {
                Change::SetCampaignStatus { to, reason, .. } => Some(self.core.event(
                    campaign.user_id,
                    EventKind::CampaignStatus {
                        campaign_id: campaign.id,
                        status: *to,
                        reason: *reason,
                    },
                )),
                _ => None,
            })
            .collect();
        set.events.extend(events.iter().cloned());
        match self.core.store.commit(set, WriteClass::Api, self.core.now()).await {
            Ok(_) => {
                self.core.bus.publish(&events).await;
                Ok(true)
            }
            Err(error) if error.is_conflict() || error.is_not_found() => Ok(false),
            Err(error) => Err(self.note(error)),
        }
    }

    async fn expand_campaigns(&self) -> Result<bool, StoreError> {
        let mut more = false;
        let campaigns = self.core.store.campaigns_expanding(CAMPAIGNS_PER_ROUND).await?;
        let rows = campaigns.len().max(1) * self.page_rows() as usize;
        let most = (AUDIENCE_PAGES_MAX / campaigns.len().max(1)).max(AUDIENCE_PAGES_MIN);
        let pages = (AUDIENCE_ROWS_PER_ROUND / rows).clamp(AUDIENCE_PAGES_MIN, most);
        for campaign in campaigns {
            let id = campaign.id;
            let mut current = Some(campaign);
            let mut ahead = None;
            for turn in 1..=pages {
                let Some(campaign) = current.take() else { break };
                let go_on = turn < pages;
                match self.expand_page(&campaign, &mut ahead, go_on).await {
                    Ok(true) => {
                        current = self
                            .core
                            .store
                            .campaigns_by_id(&[id])
                            .await?
                            .pop()
                            .filter(Campaign::is_expanding);
                    }
                    Ok(false) => break,
                    // A pause, another planner's page, a lead that was just deleted: read again in the next round.
                    Err(error) if error.is_conflict() || error.is_not_found() => break,
                    Err(error) if error.may_pass() || error.is_fenced() => return Err(self.note(error)),
                    // Those of others go on.
                    Err(error) => {
                        tracing::error!(campaign = %id, ?error, "the audience of a campaign is not expanded; it is tried again");
                        break;
                    }
                }
            }
            more |= current.is_some();
        }
        Ok(more)
    }

    /// How many recipients a page of an audience holds.
    fn page_rows(&self) -> u32 {
        let best = || self.core.store.bulk_rows().clamp(1, EngineConfig::EXPAND_PAGE_MAX);
        self.core.config.expand_page.unwrap_or_else(best)
    }

    /// Plans and commits one page, which may be planned already; `false` when nothing is left. Plans the one after it meanwhile, if it is
    /// to go on.
    async fn expand_page(
        &self,
        campaign: &Campaign,
        ahead: &mut Option<PlannedPage>,
        go_on: bool,
    ) -> Result<bool, StoreError> {
        let ready = ahead
            .take()
            .filter(|page| page.of == (campaign.version, campaign.cursor));
        let page = match ready {
            Some(page) => page,
            None => match self.plan_page(campaign, &BTreeSet::new()).await? {
                Some(page) => page,
                None => return Ok(false),
            },
        };
        let PlannedPage { persons, to, set, .. } = page;
        let next = async {
            if !go_on {
                return None;
            }
            let after = Campaign {
                cursor: to,
                version: campaign.version + 1,
                ..campaign.clone()
            };
            self.plan_page(&after, &persons).await.ok().flatten()
        };
        let commit = self.core.store.commit(set, WriteClass::Bulk, self.core.now());
        let (done, next) = future::join(commit, next).await;
        self.wake(&done?.wake.into_iter().collect());
        *ahead = next;
        Ok(true)
    }

    /// Plans the page at which the cursor of a campaign stands; `None` when there is none, or when it is for somebody of the page that is
    /// being committed, of which the store does not tell yet.
    async fn plan_page(
        &self,
        campaign: &Campaign,
        being_committed: &BTreeSet<PersonKey>,
    ) -> Result<Option<PlannedPage>, StoreError> {
        let store = &self.core.store;
        let limit = self.page_rows();
        let page = match (&campaign.audience, campaign.cursor) {
            (_, AudienceCursor::Done) => return Ok(None),
            (Audience::Entries, cursor) => {
                let after = if let AudienceCursor::Entry(position) = cursor {
                    position
                } else {
                    0
                };
                AudiencePage::Entries(store.entries_page(campaign.id, after, limit).await?)
            }
            (Audience::Leads { .. } | Audience::Pool { .. }, cursor) => {
                let after = if let AudienceCursor::Lead(id) = cursor {
                    id
                } else {
                    LeadId::MIN
                };
                AudiencePage::Leads(store.audience_page(campaign, after, limit).await?)
            }
        };
        let persons = page.persons(campaign, &self.core.seed);
        let last = persons.len() < limit as usize;
        if persons.iter().any(|person| being_committed.contains(person)) {
            return Ok(None);
        }
        let known = store.persons_in(campaign.id, &persons).await?.into_iter().collect();
        let mut planned: BTreeMap<_, Vec<_>> = BTreeMap::new();
        if campaign.audience.is_pool() {
            for row in store.planned(campaign.id, &persons).await? {
                planned.entry(row.person).or_default().push(row);
            }
        }
        let context = ExpansionContext {
            campaign,
            last,
            known,
            planned,
            ids: &self.core.ids,
            seed: &self.core.seed,
            now: self.core.now(),
        };
        let set = expand(&page, &context);
        let to = set.changes.iter().find_map(|change| match change {
            Change::AdvanceCursor { to, .. } => Some(*to),
            _ => None,
        });
        Ok(Some(PlannedPage {
            of: (campaign.version, campaign.cursor),
            persons: persons.into_iter().collect(),
            to: to.unwrap_or(AudienceCursor::Done),
            set,
        }))
    }

    /// Gives devices to what waits in pools, and leaves over what no device may take; says whether there is more to look at, which
    /// the messages that were left over kept from being seen.
    async fn fill_pools(&self) -> Result<bool, StoreError> {
        let now = self.core.now();
        let pool = self.core.store.pool(self.incarnation(), now, POOL_PER_SCOPE).await?;
        if pool.is_empty() {
            return Ok(false);
        }
        let mut more = false;
        let ids: BTreeSet<_> = pool
            .iter()
            .filter_map(|message| match message.scope {
                MessageScope::Campaign(id) => Some(id),
                _ => None,
            })
            .collect();
        let ids: Vec<CampaignId> = ids.into_iter().collect();
        let campaigns = self.core.store.campaigns_by_id(&ids).await?;
        let mut routing: BTreeMap<_, _> = campaigns
            .iter()
            .map(|campaign| (MessageScope::Campaign(campaign.id), campaign.routing))
            .collect();
        let limits: BTreeMap<_, _> = campaigns
            .iter()
            .filter_map(|campaign| Some((MessageScope::Campaign(campaign.id), campaign.device_limit?)))
            .collect();
        let limited: Vec<CampaignId> = campaigns
            .iter()
            .filter(|campaign| campaign.device_limit.is_some())
            .map(|campaign| campaign.id)
            .collect();
        let sequences = pool.iter().filter_map(|message| match message.scope {
            MessageScope::Sequence(id) => Some(id),
            _ => None,
        });
        let sequences: Vec<_> = sequences.collect::<BTreeSet<_>>().into_iter().collect();
        if !sequences.is_empty() {
            let read = self.core.store.sequences_by_id(&sequences).await?;
            routing.extend(
                read.iter()
                    .map(|sequence| (MessageScope::Sequence(sequence.id), sequence.routing)),
            );
        }
        let mut by_user: BTreeMap<UserId, Vec<_>> = BTreeMap::new();
        for message in pool {
            by_user.entry(message.user_id).or_default().push(message);
        }
        let turn = {
            let mut state = self.state();
            state.pool_turn = state.pool_turn.wrapping_add(1);
            state.pool_turn
        };
        for (user, messages) in by_user {
            let (mut open, mut closed_to_strangers) = (BTreeSet::new(), BTreeSet::new());
            let scope = RequestScope::user(user);
            let mut page = PageRequest::first(1_000);
            loop {
                let devices = self.core.store.devices(&scope, &page).await?;
                let able = devices.rows.iter().filter(|device| device.may_send());
                for device in able.filter(|device| self.core.transports.get(&device.platform).is_some()) {
                    match device.restriction.filter(|one| one.holds(now)).map(|one| one.scope) {
                        Some(RestrictionScope::All) => continue,
                        Some(RestrictionScope::Cold) => drop(closed_to_strangers.insert(device.id)),
                        None => {}
                    }
                    open.insert(device.id);
                }
                match devices.next {
                    Some(next) => page = PageRequest::after(next, 1_000),
                    None => break,
                }
            }
            let mut devices = self.core.store.loads(user, self.core.now()).await?;
            devices.retain(|load| open.contains(&load.device_id));
            let own: BTreeSet<_> = messages.iter().map(|message| message.scope).collect();
            let own = limited.iter().filter(|id| own.contains(&MessageScope::Campaign(**id)));
            let own: Vec<CampaignId> = own.copied().collect();
            let taken = match own.is_empty() {
                true => Vec::new(),
                false => self.core.store.taken(&own).await?,
            };
            let taken = taken
                .into_iter()
                .map(|one| ((MessageScope::Campaign(one.campaign_id), one.device_id), one));
            let context = RoutingContext {
                devices,
                routing: &routing,
                limits: limits.clone(),
                taken: taken.collect(),
                depth: self.core.config.pool_depth,
                prefer_own_below: self.core.config.prefer_own_below,
                closed_to_strangers,
                seed: &self.core.seed,
            };
            let over = left_over(&messages, &context);
            if !over.is_empty() {
                more |= self.core.store.leave_over(&over, self.core.now()).await? > 0;
            }
            let given = route(&take_turns(messages, turn), context);
            if !given.is_empty() {
                self.core.store.assign(&given, self.core.now()).await?;
                self.wake(&given.iter().map(|one| one.device_id).collect());
            }
        }
        Ok(more)
    }

    async fn complete_campaigns(&self) -> Result<bool, StoreError> {
        let now = self.core.now();
        let ids: Vec<_> = (0..CAMPAIGNS_PER_ROUND)
            .map(|_| EventId::new(&self.core.ids, now))
            .collect();
        let done = self.core.store.complete_campaigns(&ids, now).await?;
        let told = done.iter().zip(&ids);
        let events: Vec<_> = told
            .map(|(campaign, id)| Event::campaign_status(*id, campaign, now))
            .collect();
        if !events.is_empty() {
            self.core.bus.publish(&events).await;
        }
        Ok(done.len() == ids.len())
    }

    /// Messages in doubt: those whose gateway can be asked now, as questions; those to be sent again are given to their lanes;
    /// for the rest, what they become.
    ///
    /// # Errors
    /// The store did not answer; call it again.
    pub async fn doubts(self: &Arc<Self>) -> Result<(Vec<Question>, Vec<Finished>), StoreError> {
        let now = self.core.now();
        let rows = self
            .core
            .store
            .doubts(self.incarnation(), now, DOUBTS_PER_ROUND)
            .await?;
        let limits = self.doubt_limits();
        let ids: BTreeSet<_> = rows
            .iter()
            .filter_map(|row| match row.scope {
                MessageScope::Campaign(id) => Some(id),
                _ => None,
            })
            .collect();
        let mut campaigns = BTreeMap::new();
        if !ids.is_empty() {
            let ids: Vec<_> = ids.into_iter().collect();
            let read = self.core.store.campaigns_by_id(&ids).await?;
            campaigns.extend(read.into_iter().map(|campaign| (campaign.id, campaign)));
        }
        let flows = self
            .flows_of(rows.iter().filter_map(|row| Some((row.scope, row.flow?))))
            .await?;
        let mut questions = Vec::new();
        let mut finished = Vec::new();
        let clock_now = self.core.lane_now();
        let lane_now = clock_now.at();
        let mut state = self.state();
        let State {
            lanes,
            timers,
            live,
            askable,
            in_doubt_live,
            ..
        } = &mut *state;
        for message in rows {
            let (Some(doubt), Some(attempt)) = (message.doubt, message.attempt.as_ref()) else {
                continue;
            };
            let busy = in_doubt_live.contains(&message.id) || live.contains(&attempt.id);
            if busy {
                continue;
            }
            let Some(lane) = lanes.get_mut(&attempt.device_id) else {
                continue;
            };
            let transport = self.core.transports.get(&lane.device.platform);
            let policy = transport.map_or(DoubtPolicy::Unknown, |transport| transport.capabilities().doubt());
            let on_doubt: OnDoubt = lane.on_doubt;
            let mut step = if message.phone.is_some() {
                doubt_step(&doubt, attempt.attempted_at, policy, on_doubt, &limits, now)
            } else {
                // The person was erased while it was being sent.
                DoubtStep::GiveUp(Reason::EndedInDoubt)
            };
            if step == DoubtStep::Ask {
                let at = askable.at(attempt.id, limits.reconcile_after, lane_now);
                if at > lane_now {
                    step = DoubtStep::Wait(now + at.since(lane_now));
                }
            }
            match step {
                DoubtStep::Wait(next_check_at) => {
                    let verdict = Verdict::InDoubt {
                        cause: doubt.cause.unwrap_or(crate::transport::MaybeSentCause::Interrupted),
                        next_check_at,
                        not_found_count: doubt.not_found_count,
                    };
                    in_doubt_live.insert(message.id);
                    finished.push(about(&message, lane.epoch, verdict, None));
                }
                DoubtStep::GiveUp(reason) => {
                    in_doubt_live.insert(message.id);
                    finished.push(about(&message, lane.epoch, Verdict::Unknown { reason }, None));
                }
                DoubtStep::SendAgain => {
                    if lane.repeats(message.id) {
                        continue;
                    }
                    let device_id = attempt.device_id;
                    let next = again(message, &campaigns, &flows);
                    let request = self.again_request(lane, device_id, &next);
                    let told = lane.pacing.ready_at(&request, &self.core.config.pacing, clock_now);
                    let known = lane.again.iter().position(|one| one.message.id == next.message.id);
                    // Those that must not go for hours leave the places to others.
                    let is_quiet = told.reason == LaneReason::QuietHours;
                    if let Some(place) = known.filter(|_| is_quiet) {
                        lane.again.remove(place);
                    }
                    let has_place = known.is_some() || lane.again.len() < AGAIN_MAX;
                    let goes_now = lane.may_send && told.is_ready() && has_place;
                    if !goes_now {
                        // So that those of other lanes do not wait behind it. Where the lane has it, it goes as soon as the lane
                        // may, whatever stands there.
                        let age = now.since(doubt.since_at);
                        let wait = age.max(PUT_OFF_LEAST).min(limits.reconcile_every);
                        let verdict = Verdict::InDoubt {
                            cause: cause_of(&next.message),
                            next_check_at: now + wait,
                            not_found_count: doubt.not_found_count,
                        };
                        in_doubt_live.insert(next.message.id);
                        finished.push(about(&next.message, lane.epoch, verdict, None));
                    }
                    if known.is_none() && has_place && !is_quiet {
                        lane.again.push_back(Box::new(next));
                    }
                    if lane.may_send && lane.phase == LanePhase::Idle {
                        timers.set(device_id, lane_now);
                    }
                }
                DoubtStep::Ask => {
                    let Some(transport) = transport else { continue };
                    in_doubt_live.insert(message.id);
                    questions.push(Question {
                        engine: Arc::clone(self),
                        transport: Arc::clone(transport),
                        context: SendContext {
                            device: Arc::clone(&lane.device),
                            timeout: self.core.config.send_timeout,
                        },
                        epoch: lane.epoch,
                        host: Arc::clone(&lane.host),
                        message,
                    });
                }
            }
        }
        Ok((questions, finished))
    }

    /// Requests to devices of this node that nobody works on yet.
    ///
    /// # Errors
    /// The store did not answer; call it again.
    pub async fn errands(self: &Arc<Self>) -> Result<Vec<Errand>, StoreError> {
        let commands = self
            .core
            .store
            .commands(self.incarnation(), self.core.now(), COMMANDS_PER_ROUND)
            .await?;
        let mut state = self.state();
        let State {
            lanes, commands_live, ..
        } = &mut *state;
        let mut errands = Vec::new();
        for command in commands {
            let Some(lane) = lanes.get(&command.device_id) else {
                continue;
            };
            let Some(transport) = self.core.transports.get(&lane.device.platform) else {
                continue;
            };
            if !commands_live.insert(command.id) {
                continue;
            }
            errands.push(Errand {
                engine: Arc::clone(self),
                transport: Arc::clone(transport),
                context: SendContext {
                    device: Arc::clone(&lane.device),
                    timeout: self.core.config.send_timeout,
                },
                fence: Fence {
                    incarnation: self.incarnation(),
                    epoch: lane.epoch,
                },
                command,
            });
        }
        Ok(errands)
    }

    /// Does what settlements asked for: error rates, holds, restrictions.
    async fn follow_up(&self) -> Result<(), StoreError> {
        let asked = self.state().follow_ups.all();
        for (next, times) in asked {
            match self.follow(&next).await {
                Ok(()) => self.state().follow_ups.done(&next, times),
                Err(error) if error.may_pass() => return Err(error),
                // One that the store does not take must not keep campaigns from being planned.
                Err(error) => tracing::warn!(%error, "what a settlement asks for was not done; it is tried again"),
            }
        }
        Ok(())
    }

    async fn follow(&self, next: &FollowUp) -> Result<(), StoreError> {
        let limit = self.core.config.error_rate;
        let now = self.core.now();
        match next {
            FollowUp::CampaignErrors(_, id) => {
                let Some(campaign) = self.core.store.campaigns_by_id(&[*id]).await?.pop() else {
                    return Ok(());
                };
                if campaign.status != CampaignStatus::Triggered || limit.percent == 0 {
                    return Ok(());
                }
                let since = campaign.resumed_at.or(campaign.started_at).unwrap_or(Timestamp::EPOCH);
                let recent = self
                    .core
                    .store
                    .recent(RecentOf::Campaign(*id), since, limit.window)
                    .await?;
                if too_many(recent.bad, limit) {
                    let set = ChangeSet::one(Change::SetCampaignStatus {
                        user_id: campaign.user_id,
                        campaign_id: campaign.id,
                        from: &[CampaignStatus::Triggered],
                        to: CampaignStatus::Paused,
                        reason: Some(CampaignReason::ErrorRate),
                    });
                    self.commit_status(&campaign, set).await?;
                }
                Ok(())
            }
            FollowUp::SequenceErrors(_, id) => {
                let Some(sequence) = self.core.store.sequences_by_id(&[*id]).await?.pop() else {
                    return Ok(());
                };
                if !sequence.status.runs() || limit.percent == 0 {
                    return Ok(());
                }
                let since = sequence.resumed_at.or(sequence.started_at).unwrap_or(Timestamp::EPOCH);
                let recent = self
                    .core
                    .store
                    .recent(RecentOf::Sequence(*id), since, limit.window)
                    .await?;
                if too_many(recent.bad, limit) {
                    self.pause_for_errors(&sequence).await?;
                }
                Ok(())
            }
            FollowUp::DeviceErrors(user, id) => {
                let since = self.state().lanes.get(id).map(|lane| lane.errors_since);
                let Some(since) = since.filter(|_| limit.percent > 0) else {
                    return Ok(());
                };
                let recent = self
                    .core
                    .store
                    .recent(RecentOf::Device(*id), since, limit.window)
                    .await?;
                if too_many(recent.bad, limit) {
                    let hold = Hold {
                        reason: HoldReason::ErrorRate,
                        since_at: now,
                        detail: None,
                    };
                    self.hold(*user, *id, hold, None).await?;
                }
                Ok(())
            }
            FollowUp::Hold(user, id, version, detail) => {
                let detail = Some(detail.clone()).filter(|detail| !detail.is_empty());
                let hold = Hold {
                    reason: HoldReason::Unauthenticated,
                    since_at: now,
                    detail,
                };
                self.hold(*user, *id, hold, Some(*version)).await
            }
            FollowUp::Restrict(user, id, until, scope) => {
                let scope = match scope {
                    RestrictionOrd::Cold => RestrictionScope::Cold,
                    RestrictionOrd::All => RestrictionScope::All,
                };
                self.restrict(*user, *id, refused_until(*until, scope, now), now).await
            }
        }
    }

    /// Records a restriction, unless more is known already.
    async fn restrict(
        &self,
        user_id: UserId,
        device_id: crate::id::DeviceId,
        told: Restriction,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let known = self.core.store.owned(&[device_id]).await?.pop();
        let Some(restriction) = known.and_then(|known| told.over(known.device.restriction, now)) else {
            return Ok(());
        };
        let event = self
            .core
            .event(user_id, EventKind::restriction(device_id, &restriction));
        let change = Change::SetDeviceRestriction {
            user_id,
            device_id,
            restriction: Some(restriction),
        };
        if self.quietly(ChangeSet::one(change).tell(event.clone())).await? {
            self.core.bus.publish(&[event]).await;
        }
        self.core.wake.changed(device_id);
        Ok(())
    }

    async fn hold(
        &self,
        user_id: UserId,
        device_id: crate::id::DeviceId,
        hold: Hold,
        version: Option<i64>,
    ) -> Result<(), StoreError> {
        let kind = EventKind::DeviceHold {
            device_id,
            reason: Some(hold.reason),
        };
        let event = self.core.event(user_id, kind);
        let change = Change::HoldDevice {
            user_id,
            device_id,
            hold,
            version,
        };
        if self.quietly(ChangeSet::one(change).tell(event.clone())).await? {
            self.core.bus.publish(&[event]).await;
        }
        self.core.wake.changed(device_id);
        Ok(())
    }

    /// Commits and says whether it was; a device or campaign that is gone or changed in the meantime is fine.
    async fn quietly(&self, set: ChangeSet) -> Result<bool, StoreError> {
        match self.core.store.commit(set, WriteClass::Api, self.core.now()).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_conflict() || error.is_not_found() => Ok(false),
            Err(error) => Err(self.note(error)),
        }
    }
}

/// A message in doubt with what its campaign or step says of sending it again.
fn again(message: Message, campaigns: &BTreeMap<CampaignId, Campaign>, flows: &Flows) -> Again {
    let campaign = match message.scope {
        MessageScope::Campaign(id) => campaigns.get(&id),
        _ => None,
    };
    let flow = flows.source(message.scope, message.round, DueFlow::of(&message).as_ref());
    let of_scope = match &flow {
        Some(flow) => Some(flow.content().content),
        None => campaign.map(|campaign| &campaign.content),
    };
    let media = message.content.as_ref().or(of_scope);
    Again {
        quiet: match &flow {
            Some(flow) => flow.quiet(),
            None => campaign.and_then(quiet_of),
        },
        media: media.and_then(|content| content.media.clone()),
        flow,
        message,
    }
}

/// The restriction that a refused message tells of: what is known of its end, else a guess.
pub(crate) fn refused_until(until: Option<Timestamp>, scope: RestrictionScope, now: Timestamp) -> Restriction {
    Restriction {
        until_at: until.unwrap_or(now + UNKNOWN_RESTRICTION_FOR),
        scope,
        cause: match (until, scope) {
            (Some(_), RestrictionScope::Cold) => RestrictionCause::Timelock,
            _ => RestrictionCause::Refused,
        },
    }
}

fn too_many(bad: u32, limit: super::config::ErrorRateLimit) -> bool {
    // Measured against the whole window: a handful of messages is no rate.
    u64::from(bad) * 100 >= u64::from(limit.percent) * u64::from(limit.window)
}

/// The campaigns and sequences whose numbers changed, as hints for screens.
pub(crate) fn progress_of(finished: &[Finished]) -> BTreeSet<(UserId, MessageScope)> {
    let counted = finished.iter().filter(|one| one.scope.is_bulk());
    counted.map(|one| (one.outcome.user_id, one.scope)).collect()
}
