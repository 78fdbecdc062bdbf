//! What one simulation consists of, drawn from its number.

use std::time::Duration;

use rand::{Rng, RngExt as _};

use super::faulty_store::StoreFaults;
use super::gateway::{GatewayFaults, GatewayKind};
use crate::domain::campaign::Routing;
use crate::domain::pacing::Caps;
use crate::domain::sequence::{FailurePolicy, ReEntry};
use crate::seed::{ChaCha8Rng, Seed};

/// What somebody does, or what happens to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Pauses a campaign.
    Pause(usize),
    /// Resumes a campaign.
    Resume(usize),
    /// Cancels a campaign.
    Cancel(usize),
    /// Pauses a campaign, changes its text, and resumes it.
    Edit(usize),
    /// Sends again what failed or stayed unknown in a campaign.
    Resend(usize),
    /// Says of an unknown message whether it was sent.
    Mark(usize),
    /// A lead opts out.
    OptOut(usize),
    /// A lead may be written to again.
    OptIn(usize),
    /// A lead is deleted.
    DeleteLead(usize),
    /// A device is deleted.
    DeleteDevice(usize),
    /// A device is put on hold.
    Hold(usize),
    /// The hold of a device ends.
    Release(usize),
    /// A node crashes after so many more polls, and starts again.
    Crash(usize, u32),
    /// A node is not polled for a while.
    Stall(usize, Duration),
    /// A node is asked to stop, and started again later.
    Stop(usize),
    /// The wall clock of a node jumps, in milliseconds.
    WallJump(usize, i64),
    /// The store answers nobody for a while.
    Outage(Duration),
    /// What somebody does with a sequence, by place.
    Sequence(usize, SequenceDeed),
    /// A lead gets the trigger of a sequence.
    Trigger(usize, usize),
    /// A lead writes back.
    Reply(usize),
    /// Triggers a completed campaign over the pool once more.
    Again(usize),
}

/// What somebody does with a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SequenceDeed {
    /// Makes it active, for the first time or again.
    Activate,
    /// Pauses it.
    Pause,
    /// Takes it out of use.
    Retire,
    /// Changes its steps: their text, one less, one more, or two that change places.
    Edit,
    /// Sends again what failed or stayed unknown.
    Resend,
    /// Ends the first run that is open.
    EndRun,
    /// Deletes it.
    Delete,
}

/// A sequence of a scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequencePlan {
    /// Its user, by place.
    pub user: usize,
    /// How long each step waits before the next.
    pub waits: Vec<Duration>,
    /// A second entry point, by place of its step.
    pub second_entry: Option<usize>,
    /// The sequence that its last step leads to, by place; may lead back.
    pub next: Option<usize>,
    /// Which device writes to whom.
    pub routing: Routing,
    /// Whether one device sends all of it.
    pub one_device: bool,
    /// Own delay between messages, in milliseconds.
    pub delay_ms: Option<(u64, u64)>,
    /// How long after it is due a step may be sent.
    pub expires_after: Duration,
    /// What a failed step does.
    pub on_failure: FailurePolicy,
    /// Whether a reply ends a run.
    pub exit_on_reply: bool,
    /// Whether a person may enter again.
    pub re_entry: ReEntry,
    /// Whether what nobody was there to send is skipped.
    pub skips_late: bool,
    /// Local minutes of the day from and until which it must not send.
    pub quiet: Option<(u16, u16)>,
    /// The local minute of the day at which its first step is sent.
    pub send_time: Option<u16>,
    /// The lead whose niche enters too, by place among the leads of all users.
    pub niche_of: Option<usize>,
}

/// A campaign of a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CampaignPlan {
    /// Its user, by place.
    pub user: usize,
    /// Which device writes to whom.
    pub routing: Routing,
    /// Whether it writes to uploaded entries instead of leads.
    pub entries: bool,
    /// Whether one device sends all of it.
    pub one_device: bool,
    /// Of one over the pool of leads without a device: how many messages a device takes.
    pub device_limit: Option<u32>,
    /// When it starts.
    pub start_after: Duration,
    /// Own delay between messages, in milliseconds.
    pub delay_ms: Option<(u64, u64)>,
    /// Local minutes of the day from and until which it must not send.
    pub quiet: Option<(u16, u16)>,
    /// How long after it is due a message may be sent.
    pub expires_after: Duration,
}

/// One simulation, as its number says.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// The number that it is drawn from.
    pub seed: u64,
    /// How many nodes there are.
    pub nodes: usize,
    /// The kinds of the devices of each user.
    pub devices: Vec<Vec<GatewayKind>>,
    /// The number and device of each lead of each user; a number may come twice, a device may be missing.
    pub leads: Vec<Vec<(u32, Option<usize>)>>,
    /// The campaigns.
    pub campaigns: Vec<CampaignPlan>,
    /// The sequences.
    pub sequences: Vec<SequencePlan>,
    /// The sequences whose triggers each lead has from the start, over the leads of all users.
    pub triggers: Vec<Vec<usize>>,
    /// Delay between messages where a campaign has none, in milliseconds.
    pub delay_ms: (u64, u64),
    /// Cap of an hour of all devices.
    pub hour_max: u32,
    /// Most sends at once per gateway host.
    pub in_flight_max: usize,
    /// How the store fails.
    pub store_faults: StoreFaults,
    /// How the gateways fail.
    pub gateway_faults: GatewayFaults,
    /// How wrong the wall clock of each node is, in milliseconds.
    pub wall_shifts: Vec<i64>,
    /// How long faults happen.
    pub faults_for: Duration,
    /// What happens in that time, in order.
    pub deeds: Vec<(Duration, Deed)>,
    /// A device that never comes online, by place: what waits for it has to end by itself.
    pub offline: Option<usize>,
    /// Whether nobody resumes afterwards what is paused or on hold.
    pub left_alone: bool,
    /// Whether all nodes crash when the faults end, and a single fresh one has to finish.
    pub fresh_node: bool,
}

fn span(rng: &mut ChaCha8Rng, from_ms: u64, until_ms: u64) -> Duration {
    Duration::from_micros(rng.random_range(from_ms * 1_000..until_ms * 1_000))
}

impl Scenario {
    /// [`bound`](Self::bound) where nothing waits for an hour of the day.
    pub const BOUND: Duration = Duration::from_secs(12 * 3_600);

    /// The scenario of a number.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let rng = &mut Seed::from_number(seed).rng(b"", "scenario");
        let calm = rng.random_bool(0.08);
        let wall_faults = !calm && rng.random_bool(0.15);
        let few_slots = rng.random_bool(0.1);
        let nodes = [1, 2, 2, 3][rng.random_range(0..4)];
        let users = rng.random_range(1..=2);
        let all_kinds = rng.random_bool(0.5);
        let kind = GatewayKind::ALL[rng.random_range(0..3)];
        let devices: Vec<Vec<GatewayKind>> = (0..users)
            .map(|_| {
                let count = rng.random_range(1..=3);
                (0..count)
                    .map(|_| {
                        if all_kinds {
                            GatewayKind::ALL[rng.random_range(0..3)]
                        } else {
                            kind
                        }
                    })
                    .collect()
            })
            .collect();
        let leads: Vec<Vec<(u32, Option<usize>)>> = devices
            .iter()
            .map(|devices| {
                let count = rng.random_range(3..=14);
                let numbers = rng.random_range(count.max(4) - 2..=count + 2);
                (0..count)
                    .map(|_| {
                        let device = rng.random_range(0..=devices.len() * 5);
                        (
                            rng.random_range(0..numbers),
                            (device > 0).then(|| device % devices.len()),
                        )
                    })
                    .collect()
            })
            .collect();
        let campaigns: Vec<CampaignPlan> = (0..rng.random_range(1..=4)).map(|_| campaign(rng, users)).collect();
        let faults_for = span(rng, 60_000, 300_000);
        let (store_faults, gateway_faults) = if calm {
            (StoreFaults::default(), GatewayFaults::NONE)
        } else {
            (store_faults(rng), gateway_faults(rng))
        };
        let mut scenario = Self {
            seed,
            nodes,
            leads,
            campaigns,
            sequences: Vec::new(),
            triggers: Vec::new(),
            delay_ms: if rng.random_bool(0.7) {
                (1_000, 3_000)
            } else {
                (2_000, 12_000)
            },
            hour_max: if few_slots { rng.random_range(4..12) } else { 80 },
            in_flight_max: if rng.random_bool(0.2) { 1 } else { 64 },
            store_faults,
            gateway_faults,
            wall_shifts: (0..nodes)
                .map(|_| {
                    if wall_faults {
                        rng.random_range(-600_000..600_000)
                    } else {
                        0
                    }
                })
                .collect(),
            faults_for,
            deeds: Vec::new(),
            offline: None,
            left_alone: rng.random_bool(0.1),
            fresh_node: rng.random_bool(0.3),
            devices,
        };
        if !calm {
            scenario.draw_deeds(rng, wall_faults);
        }
        scenario.draw_offline();
        scenario.draw_pool();
        let rng = &mut Seed::from_number(seed).rng(b"", "poison");
        if !calm && rng.random_bool(0.1) {
            scenario.store_faults.poison = rng.random_range(20..300);
        }
        scenario
    }

    /// The scenario of a number with sequences in it, beside at most one campaign.
    #[must_use]
    pub fn draw_with_sequences(seed: u64) -> Self {
        let mut scenario = Self::draw(seed);
        let rng = &mut Seed::from_number(seed).rng(b"", "sequences");
        scenario.campaigns.truncate(usize::from(rng.random_bool(0.3)));
        let campaigns = scenario.campaigns.len();
        scenario.deeds.retain(|(_, deed)| match deed {
            Deed::Pause(at)
            | Deed::Resume(at)
            | Deed::Cancel(at)
            | Deed::Edit(at)
            | Deed::Resend(at)
            | Deed::Mark(at)
            | Deed::Again(at) => *at < campaigns,
            _ => true,
        });
        // Long sequences go to few leads, so that a scenario stays a matter of some hundred messages.
        let is_long = rng.random_bool(0.1);
        let count = if is_long { 1 } else { rng.random_range(1..=4) };
        for leads in &mut scenario.leads {
            leads.truncate(if is_long { 3 } else { 8 });
        }
        let users = scenario.devices.len();
        scenario.sequences = (0..count).map(|_| sequence(rng, users, count, is_long)).collect();
        if scenario.offline.is_some() {
            for plan in &mut scenario.sequences {
                plan.expires_after = span(rng, 60_000, 200_000);
            }
        }
        let leads: usize = scenario.leads.iter().map(Vec::len).sum();
        scenario.triggers = (0..leads)
            .map(|_| (0..count).filter(|_| rng.random_bool(0.5)).collect())
            .collect();
        // What a month of steps needs is no matter of an hour's cap.
        scenario.hour_max = Caps::HOUR_MAX_LIMIT;
        for place in 0..count {
            let deed = Deed::Sequence(place, SequenceDeed::Activate);
            scenario.deeds.push((span(rng, 0, 40_000), deed));
        }
        let end = u64::try_from(scenario.faults_for.as_millis()).unwrap_or(60_000);
        for _ in 0..[0, 5, 12, 25][rng.random_range(0..4)] {
            scenario
                .deeds
                .push((span(rng, 500, end), sequence_deed(rng, count, leads)));
        }
        scenario.deeds.retain(|(_, deed)| match deed {
            Deed::OptOut(lead) | Deed::OptIn(lead) | Deed::DeleteLead(lead) => *lead < leads,
            _ => true,
        });
        scenario.draw_hours();
        scenario.deeds.sort_by_key(|(at, _)| *at);
        scenario
    }

    /// How long after the end of the faults everything must have ended, in true time.
    #[must_use]
    pub fn bound(&self) -> Duration {
        // Who comes after the send time of a day waits for the next one.
        match self.has_send_times() {
            true => Self::BOUND + Duration::from_secs(48 * 3_600),
            false => Self::BOUND,
        }
    }

    /// Whether a step of a sequence waits for an hour of the day.
    #[must_use]
    pub fn has_send_times(&self) -> bool {
        self.sequences.iter().any(|plan| plan.send_time.is_some())
    }

    /// Whether all wall clocks show true time.
    #[must_use]
    pub fn wall_is_true(&self) -> bool {
        self.wall_shifts.iter().all(|shift| *shift == 0)
            && !self.deeds.iter().any(|(_, deed)| matches!(deed, Deed::WallJump(..)))
    }

    /// From a stream of its own, so that a number names the same scenario as before in all other respects.
    fn draw_offline(&mut self) {
        let rng = &mut Seed::from_number(self.seed).rng(b"", "offline");
        if rng.random_bool(0.15) {
            let devices: usize = self.devices.iter().map(Vec::len).sum();
            self.offline = Some(rng.random_range(0..devices));
            for campaign in &mut self.campaigns {
                campaign.expires_after = span(rng, 60_000, 900_000);
            }
        }
    }

    /// From a stream of its own too: lets a campaign write to the pool, and gives that some leads.
    fn draw_pool(&mut self) {
        let rng = &mut Seed::from_number(self.seed).rng(b"", "pool");
        if !rng.random_bool(0.3) {
            return;
        }
        for campaign in self.campaigns.iter_mut().filter(|campaign| !campaign.entries) {
            if rng.random_bool(0.6) {
                campaign.device_limit = Some(rng.random_range(1..=4));
                campaign.one_device = false;
                if campaign.routing == Routing::OwnDevice {
                    campaign.routing = Routing::Balanced;
                }
            }
        }
        for (_, device) in self.leads.iter_mut().flatten() {
            device.take_if(|_| rng.random_bool(0.6));
        }
        let end = u64::try_from(self.faults_for.as_millis()).unwrap_or(60_000);
        for (place, campaign) in self.campaigns.iter().enumerate() {
            if campaign.device_limit.is_some() {
                for _ in 0..rng.random_range(0..4) {
                    self.deeds.push((span(rng, 20_000, end), Deed::Again(place)));
                }
            }
        }
        self.deeds.sort_by_key(|(at, _)| *at);
    }

    /// From a stream of its own: hours of the day and niches of sequences. A scenario begins at eight o'clock.
    fn draw_hours(&mut self) {
        let rng = &mut Seed::from_number(self.seed).rng(b"", "hours");
        let leads: usize = self.leads.iter().map(Vec::len).sum();
        // A chain that comes back to an hour of the day lasts for days.
        let chained = self.sequences.iter().any(|plan| plan.next.is_some());
        for plan in &mut self.sequences {
            let quiet = (8 * 60 + 1, 8 * 60 + rng.random_range(2..9));
            plan.quiet = rng.random_bool(0.15).then_some(quiet);
            let at = 8 * 60 + rng.random_range(1..15);
            plan.send_time = (rng.random_bool(0.2) && !chained).then_some(at);
            let lead = rng.random_range(0..leads);
            plan.niche_of = rng.random_bool(0.3).then_some(lead);
        }
    }

    fn draw_deeds(&mut self, rng: &mut ChaCha8Rng, wall_faults: bool) {
        // Most of it while messages are under way, some of it when little is left to do.
        let end = u64::try_from(self.faults_for.as_millis()).unwrap_or(60_000);
        let busy_until = if rng.random_bool(0.7) { end.min(90_000) } else { end };
        let leads: usize = self.leads.iter().map(Vec::len).sum();
        let devices: usize = self.devices.iter().map(Vec::len).sum();
        let busy = [0, 6, 14, 30][rng.random_range(0..4)];
        for _ in 0..busy {
            let at = span(rng, 500, busy_until);
            let deed = person(rng, self.campaigns.len(), leads, devices);
            self.deeds.push((at, deed));
            if let (Deed::Pause(campaign), true) = (deed, rng.random_bool(0.7)) {
                self.deeds.push((at + span(rng, 1, 40_000), Deed::Resume(campaign)));
            }
        }
        for _ in 0..rng.random_range(0..8) {
            let node = rng.random_range(0..self.nodes);
            let deed = match rng.random_range(0..10) {
                0..5 => Deed::Crash(node, rng.random_range(0..200)),
                5..7 => Deed::Stall(node, span(rng, 1_000, 80_000)),
                7 => Deed::Outage(span(rng, 1_000, 70_000)),
                8 if wall_faults => Deed::WallJump(node, rng.random_range(-3_600_000..3_600_000)),
                _ => Deed::Stop(node),
            };
            self.deeds.push((span(rng, 500, busy_until), deed));
        }
        self.deeds.sort_by_key(|(at, _)| *at);
    }
}

fn person(rng: &mut ChaCha8Rng, campaigns: usize, leads: usize, devices: usize) -> Deed {
    let campaign = rng.random_range(0..campaigns);
    let (lead, device) = (rng.random_range(0..leads), rng.random_range(0..devices));
    match rng.random_range(0..20) {
        0..4 => Deed::Pause(campaign),
        4..6 => Deed::Resume(campaign),
        6 => Deed::Cancel(campaign),
        7..9 => Deed::Edit(campaign),
        9..11 => Deed::Resend(campaign),
        11 => Deed::Mark(campaign),
        12..15 => Deed::OptOut(lead),
        15 => Deed::OptIn(lead),
        16 => Deed::DeleteLead(lead),
        17 => Deed::DeleteDevice(device),
        18 => Deed::Hold(device),
        _ => Deed::Release(device),
    }
}

fn campaign(rng: &mut ChaCha8Rng, users: usize) -> CampaignPlan {
    let routing = match rng.random_range(0..6) {
        0..3 => Routing::OwnDevice,
        3 => Routing::Balanced,
        4 => Routing::RoundRobin,
        _ => Routing::Random,
    };
    let entries = rng.random_bool(0.25);
    CampaignPlan {
        user: rng.random_range(0..users),
        // Entries have no device of their own.
        routing: if entries && routing == Routing::OwnDevice {
            Routing::Balanced
        } else {
            routing
        },
        entries,
        one_device: rng.random_bool(0.2),
        device_limit: None,
        start_after: span(rng, 0, 30_000),
        delay_ms: rng.random_bool(0.3).then_some((1_000, 5_000)),
        quiet: rng
            .random_bool(0.12)
            .then(|| (8 * 60 + 1, 8 * 60 + rng.random_range(2..9))),
        expires_after: if rng.random_bool(0.1) {
            Duration::from_secs(120)
        } else {
            crate::domain::campaign::Campaign::EXPIRES_AFTER
        },
    }
}

fn sequence(rng: &mut ChaCha8Rng, users: usize, count: usize, is_long: bool) -> SequencePlan {
    let steps = if is_long {
        rng.random_range(15..=40)
    } else {
        rng.random_range(1..=6)
    };
    let next = rng.random_bool(0.6).then(|| rng.random_range(0..count));
    let routing = [
        Routing::OwnDevice,
        Routing::OwnDevice,
        Routing::Balanced,
        Routing::RoundRobin,
    ];
    let re_entry = match rng.random_range(0..3) {
        0 => ReEntry::Never,
        // One that leads on and takes everybody again may run for ever, as it is asked to.
        1 if next.is_none() => ReEntry::Always,
        _ => ReEntry::AfterCompletion,
    };
    SequencePlan {
        user: rng.random_range(0..users),
        waits: (0..steps).map(|_| span(rng, 1_000, 60_000)).collect(),
        second_entry: rng.random_bool(0.3).then(|| rng.random_range(0..steps)),
        next,
        routing: routing[rng.random_range(0..routing.len())],
        one_device: rng.random_bool(0.2),
        delay_ms: rng.random_bool(0.3).then_some((1_000, 5_000)),
        expires_after: if rng.random_bool(0.2) {
            Duration::from_secs(90)
        } else {
            crate::domain::sequence::Sequence::EXPIRES_AFTER
        },
        on_failure: if rng.random_bool(0.5) {
            FailurePolicy::Continue
        } else {
            FailurePolicy::Stop
        },
        exit_on_reply: rng.random_bool(0.3),
        re_entry,
        skips_late: rng.random_bool(0.2),
        quiet: None,
        send_time: None,
        niche_of: None,
    }
}

fn sequence_deed(rng: &mut ChaCha8Rng, count: usize, leads: usize) -> Deed {
    let (place, lead) = (rng.random_range(0..count), rng.random_range(0..leads));
    let deed = match rng.random_range(0..20) {
        0..3 => SequenceDeed::Pause,
        3..6 => SequenceDeed::Activate,
        6 => SequenceDeed::Retire,
        7..10 => SequenceDeed::Edit,
        10..12 => SequenceDeed::Resend,
        12 => SequenceDeed::EndRun,
        13 if rng.random_bool(0.3) => SequenceDeed::Delete,
        13..16 => return Deed::Reply(lead),
        16..18 => return Deed::Trigger(lead, place),
        18 => return Deed::OptOut(lead),
        _ => return Deed::DeleteLead(lead),
    };
    Deed::Sequence(place, deed)
}

fn store_faults(rng: &mut ChaCha8Rng) -> StoreFaults {
    let mut rate = |choices: &[u32]| choices[(rng.next_u32() as usize) % choices.len()];
    StoreFaults {
        fail_before: rate(&[0, 2, 10, 50]),
        fail_after: rate(&[0, 2, 10, 50]),
        wait_max: Duration::from_millis(rate(&[2, 50, 400, 900]).into()),
        slow: rate(&[0, 5, 30]),
        slow_max: Duration::from_millis(rate(&[50, 1_000, 4_000]).into()),
        poison: 0,
    }
}

fn gateway_faults(rng: &mut ChaCha8Rng) -> GatewayFaults {
    let mut rate = |choices: &[u32]| choices[(rng.next_u32() as usize) % choices.len()];
    let doubt = rate(&[0, 50, 200, 400]);
    GatewayFaults {
        refuse: rate(&[0, 50, 200]),
        doubt,
        deaf: rate(&[0, 100, 500]),
        dead: rate(&[0, 50, 200]),
        latency_max: Duration::from_millis(rate(&[50, 500, 2_500]).into()),
        // Together less than the 20 s after which the engine of a simulation asks, whatever its wall clock does.
        late_max: Duration::from_millis(rate(&[0, 2_000, 9_000]).into()),
        report_lag_max: Duration::from_millis(rate(&[0, 1_000, 6_000]).into()),
        receipts: rate(&[0, 500, 1_000]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_names_one_scenario() {
        assert_eq!(Scenario::draw(7), Scenario::draw(7));
        assert_ne!(Scenario::draw(7), Scenario::draw(8));
    }

    #[test]
    fn what_a_gateway_accepts_is_told_before_the_engine_asks() {
        for seed in 0..500 {
            let faults = Scenario::draw(seed).gateway_faults;
            assert!(faults.latency_max + faults.late_max + faults.report_lag_max < Duration::from_secs(19));
        }
    }
}
