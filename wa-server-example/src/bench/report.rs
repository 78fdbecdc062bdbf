//! What came of a run, for people and for machines, and whether it adds up.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;
use wa_core::domain::message::MessageScope;
use wa_core::domain::summary::Numbers;

use super::fleet::ChurnCounts;
use super::gauges::{Gauges, Summary};
use super::load::CallCounts;
use super::options::{BenchArgs, BurstOf, Pace};
use super::process::ProcessorTime;
use crate::demo::snapshot::{faults, same};
use crate::loopback::GatewayCounts;

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// Everything had ended.
    Done,
    /// Its time was over.
    Time,
    /// Somebody ended it.
    Interrupted,
}

/// The numbers of all campaigns and direct messages, once nothing moves any more.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sums {
    of_campaigns: Numbers,
    direct: Numbers,
    /// Scopes whose tallies and rows do not agree.
    differing: u64,
    /// Campaigns whose audience was not all found.
    pub expanding: u64,
}

impl Sums {
    /// Adds a scope, as its tallies and as counting its rows have it.
    pub fn add(&mut self, of: MessageScope, tallied: Numbers, counted: Numbers) {
        let sum = match of {
            MessageScope::Direct => &mut self.direct,
            _ => &mut self.of_campaigns,
        };
        *sum = [*sum, tallied].into_iter().sum();
        self.differing += u64::from(same(&tallied, &counted).is_none());
    }

    fn all(&self) -> Numbers {
        [self.of_campaigns, self.direct].into_iter().sum()
    }
}

/// What a gateway saw.
#[derive(Debug, Clone)]
pub(super) struct GatewaySide {
    pub counts: GatewayCounts,
    /// Messages beyond the first to one number.
    pub twice: u64,
}

/// What was used of the machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Used {
    pub memory_begin: Option<u64>,
    pub memory_peak: Option<u64>,
    pub processor: Option<ProcessorTime>,
    /// Processor time of the load and of the rest.
    pub spent: Option<(Duration, Duration)>,
}

/// What a report is made from.
pub(super) struct Gathered {
    pub ended: Ended,
    pub took: Duration,
    pub database: &'static str,
    pub sums: Sums,
    pub gateways: [GatewaySide; 2],
    pub looks: CallCounts,
    pub bursts: CallCounts,
    pub churn: ChurnCounts,
    pub used: Used,
}

/// One thing that must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Whether it does.
    pub holds: bool,
    /// What it is, with its figures.
    pub what: String,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Asked {
    /// Devices at the beginning.
    pub devices: u32,
    /// Leads.
    pub leads: u32,
    /// Campaigns.
    pub campaigns: u32,
    /// Changes of devices a minute.
    pub churn: u32,
    /// Calls of one burst.
    pub burst: u32,
    /// How long lies between two bursts, in milliseconds.
    pub burst_every_ms: u64,
    /// What comes in bursts.
    pub burst_of: BurstOf,
    /// The pace.
    pub pace: Pace,
    /// How long gateways take at most, in milliseconds.
    pub latency_ms: u32,
    /// Requests in a thousand that gateways fail on purpose.
    pub faults: u16,
    /// The seed.
    pub seed: u64,
    /// `sqlite` or `postgres`.
    pub database: &'static str,
}

/// How many a second, each over the time from its first to its last.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rates {
    /// Messages put into the outbox.
    pub enqueued: f64,
    /// Of these, those of campaigns: recipients found.
    pub expanded: f64,
    /// Messages settled as sent, also while the last of them wait for devices that are offline.
    pub sent: f64,
    /// The most of them within one second.
    pub sent_best: u64,
}

/// What became of all messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Messages {
    /// Put into the outbox, as the store's answers to commits say; the others are the store's tallies.
    pub enqueued: u64,
    /// Taken by a gateway.
    pub sent: u64,
    /// Not sent, and not to be tried again.
    pub failed: u64,
    /// Not sent for a reason of the recipient or device.
    pub skipped: u64,
    /// May have been sent; nobody can tell.
    pub unknown: u64,
    /// Cancelled.
    pub cancelled: u64,
    /// Waiting, being sent or in doubt.
    pub open: u64,
}

/// What gateways saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct GatewaysSaw {
    /// Requests to send.
    pub requests: u64,
    /// Messages recorded: their recipients get them.
    pub recorded: u64,
    /// Requests that were failed on purpose.
    pub faults: u64,
    /// Messages beyond the first to one number, at Wablas.
    pub twice_at_wablas: u64,
    /// The same at Whacenter.
    pub twice_at_whacenter: u64,
}

/// How long things took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Took {
    /// From when a message was due until it was handed over, the first time.
    pub due_to_handed_over: Summary,
    /// A send, as its gateway answered.
    pub gateway: Summary,
    /// From a gateway's answer until the outcome was durable.
    pub settle_wait: Summary,
    /// Answers of the API to what people look at.
    pub api: Summary,
    /// Answers of the API to bursts.
    pub burst: Summary,
}

/// What was used of the machine, where the system tells.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MachineUsed {
    /// Memory of the process when the campaigns were made, gateways and load included.
    pub memory_begin_bytes: Option<u64>,
    /// The most that was seen, four times a second.
    pub memory_peak_bytes: Option<u64>,
    /// Processor time of the server: engine, API, store as far as it runs in this process.
    pub server_cpu_s: Option<f64>,
    /// The same for each message that was sent, in milliseconds.
    pub server_cpu_ms_per_message: Option<f64>,
    /// Processor time of gateways and load.
    pub load_cpu_s: Option<f64>,
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// What was asked for.
    pub asked: Asked,
    /// Why it ended.
    pub ended: Ended,
    /// How long it took, from when the campaigns were made.
    pub took_s: f64,
    /// How many a second.
    pub per_second: Rates,
    /// What became of all messages.
    pub messages: Messages,
    /// What gateways saw.
    pub gateways: GatewaysSaw,
    /// How long things took.
    pub times: Took,
    /// What people looked at.
    pub looks: CallCounts,
    /// What came in bursts.
    pub bursts: CallCounts,
    /// How often devices changed.
    pub churn: ChurnCounts,
    /// What was used of the machine.
    pub machine: MachineUsed,
    /// What must hold.
    pub checks: Vec<Check>,
    /// Whether all of it does.
    pub adds_up: bool,
}

impl Report {
    pub(super) fn new(args: &BenchArgs, gauges: &Gauges, gathered: Gathered) -> Self {
        let [wablas, whacenter] = &gathered.gateways;
        let all = gathered.sums.all();
        let messages = Messages {
            enqueued: gauges.enqueued().count,
            sent: all.done,
            failed: all.failed,
            skipped: all.skipped,
            unknown: all.unknown,
            cancelled: all.cancelled,
            open: all.remaining,
        };
        let gateways = GatewaysSaw {
            requests: wablas.counts.requests + whacenter.counts.requests,
            recorded: wablas.counts.recorded + whacenter.counts.recorded,
            faults: faults(&wablas.counts) + faults(&whacenter.counts),
            twice_at_wablas: wablas.twice,
            twice_at_whacenter: whacenter.twice,
        };
        let checks = checks(args, &messages, &gateways, &gathered);
        let Gathered { used, .. } = &gathered;
        let seconds = |span: Duration| span.as_secs_f64();
        let per_message = |span: Duration| (messages.sent > 0).then(|| seconds(span) * 1_000.0 / messages.sent as f64);
        Self {
            asked: Asked {
                devices: args.devices,
                leads: args.leads,
                campaigns: args.campaigns,
                churn: args.churn,
                burst: args.burst,
                burst_every_ms: u64::try_from(args.burst_every.as_millis()).unwrap_or(u64::MAX),
                burst_of: args.burst_of,
                pace: args.pace,
                latency_ms: args.latency_ms,
                faults: args.faults,
                seed: args.seed,
                database: gathered.database,
            },
            ended: gathered.ended,
            took_s: seconds(gathered.took),
            per_second: Rates {
                enqueued: gauges.enqueued().per_second(),
                expanded: gauges.expanded().per_second(),
                sent: gauges.sent().per_second(),
                sent_best: gauges.sent_best(),
            },
            messages,
            gateways,
            times: Took {
                due_to_handed_over: gauges.late.summary(),
                gateway: gauges.gateway.summary(),
                settle_wait: gauges.settle_wait.summary(),
                api: gauges.api.summary(),
                burst: gauges.burst.summary(),
            },
            looks: gathered.looks,
            bursts: gathered.bursts,
            churn: gathered.churn,
            machine: MachineUsed {
                memory_begin_bytes: used.memory_begin,
                memory_peak_bytes: used.memory_peak,
                server_cpu_s: used.spent.map(|(_, server)| seconds(server)),
                server_cpu_ms_per_message: used.spent.and_then(|(_, server)| per_message(server)),
                load_cpu_s: used.spent.map(|(load, _)| seconds(load)),
            },
            adds_up: checks.iter().all(|check| check.holds),
            checks,
        }
    }

    /// The report for people.
    pub(super) fn table(&self) -> String {
        let mut out = String::new();
        // Writing into a text does not fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let m = &self.messages;
        let ended = match self.ended {
            Ended::Done => "everything has ended",
            Ended::Time => "its time is over",
            Ended::Interrupted => "it was interrupted",
        };
        writeln!(out, "\n{:.1} s on {}; {ended}", self.took_s, self.asked.database)?;
        writeln!(
            out,
            "\n{:<34}{:>10.0}/s\n{:<34}{:>10.0}/s\n{:<34}{:>10.0}/s, {} in the best second",
            "enqueued",
            self.per_second.enqueued,
            "of these, recipients of campaigns",
            self.per_second.expanded,
            "sent",
            self.per_second.sent,
            self.per_second.sent_best
        )?;
        writeln!(
            out,
            "\n{:<34}{:>10}{:>10}{:>10}{:>10}{:>10}",
            "in milliseconds", "count", "p50", "p95", "p99", "max"
        )?;
        for (name, times) in [
            ("due until handed over", &self.times.due_to_handed_over),
            ("gateway", &self.times.gateway),
            ("answer until settled", &self.times.settle_wait),
            ("API, what people look at", &self.times.api),
            ("API, bursts", &self.times.burst),
        ] {
            writeln!(
                out,
                "{name:<34}{:>10}{:>10.1}{:>10.1}{:>10.1}{:>10.1}",
                times.count, times.p50_ms, times.p95_ms, times.p99_ms, times.max_ms
            )?;
        }
        let used = &self.machine;
        let mib = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{} MiB", bytes >> 20));
        let number = |number: Option<f64>| number.map_or_else(|| "-".to_owned(), |number| format!("{number:.2}"));
        writeln!(
            out,
            "\nmemory {} at the beginning, {} at the peak, gateways included",
            mib(used.memory_begin_bytes),
            mib(used.memory_peak_bytes)
        )?;
        writeln!(
            out,
            "processor time {} s for the server, {} ms a message; {} s for gateways and load",
            number(used.server_cpu_s),
            number(used.server_cpu_ms_per_message),
            number(used.load_cpu_s)
        )?;
        if self.asked.churn > 0 {
            let churn = &self.churn;
            writeln!(
                out,
                "devices: {} added, {} offline for a while, {} deleted",
                churn.added, churn.offline, churn.deleted
            )?;
        }
        writeln!(
            out,
            "failed {}, skipped {}, unknown {}, cancelled {}, open {}\n",
            m.failed, m.skipped, m.unknown, m.cancelled, m.open
        )?;
        for check in &self.checks {
            writeln!(out, "{} {}", if check.holds { "✓" } else { "✗" }, check.what)?;
        }
        Ok(())
    }
}

/// What must hold: the store's answers, its tallies, its rows, and what gateways recorded are independent counts.
fn checks(args: &BenchArgs, m: &Messages, gateways: &GatewaysSaw, gathered: &Gathered) -> Vec<Check> {
    let [wablas, whacenter] = &gathered.gateways;
    let sums = &gathered.sums;
    let mut checks = Vec::new();
    let mut check = |holds, what| checks.push(Check { holds, what });
    let ends = m.sent + m.failed + m.skipped + m.unknown + m.cancelled;
    check(
        m.enqueued == ends + m.open,
        format!(
            "enqueued {} = sent {} + failed {} + skipped {} + unknown {} + cancelled {} + open {}",
            m.enqueued, m.sent, m.failed, m.skipped, m.unknown, m.cancelled, m.open
        ),
    );
    check(
        sums.differing == 0,
        format!(
            "tallies and rows differ in {} of {} scopes",
            sums.differing,
            args.campaigns + 1
        ),
    );
    let (leads, should) = (u64::from(args.leads), sums.of_campaigns.should());
    check(
        should == leads || (sums.expanding > 0 && should < leads),
        format!("{should} messages of campaigns for {leads} leads"),
    );
    let direct = sums.direct.should();
    let (least, most) = match args.burst_of {
        BurstOf::Direct => (
            gathered.bursts.taken,
            gathered.bursts.taken + gathered.bursts.unanswered,
        ),
        BurstOf::Leads => (0, 0),
    };
    check(
        (least..=most).contains(&direct),
        format!(
            "{direct} direct messages; of what came in bursts {} were taken, {} refused, {} not answered",
            gathered.bursts.taken, gathered.bursts.refused, gathered.bursts.unanswered
        ),
    );
    check(
        (m.sent..=m.sent + m.unknown + m.open).contains(&gateways.recorded),
        format!(
            "gateways recorded {} messages: {} sent, {} unknown, {} open",
            gateways.recorded, m.sent, m.unknown, m.open
        ),
    );
    check(
        gateways.twice_at_wablas == 0 && gateways.twice_at_whacenter == 0,
        format!(
            "nobody got a message twice: {} did at Wablas, {} at Whacenter",
            gateways.twice_at_wablas, gateways.twice_at_whacenter
        ),
    );
    let malformed = wablas.counts.malformed + whacenter.counts.malformed;
    let unauthorized = wablas.counts.unauthorized + whacenter.counts.unauthorized;
    check(
        malformed == 0 && unauthorized == 0,
        format!(
            "of {} requests {malformed} were malformed and {unauthorized} of no known device",
            gateways.requests
        ),
    );
    if gathered.ended == Ended::Done {
        check(m.open == 0, format!("nothing is open at the end: {}", m.open));
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: BenchArgs,
    }

    fn right() -> (BenchArgs, Messages, GatewaysSaw, Gathered) {
        let args = Line::parse_from(["bench", "--leads", "10", "--burst", "2"]).args;
        let messages = Messages {
            enqueued: 12,
            sent: 10,
            failed: 1,
            skipped: 0,
            unknown: 1,
            cancelled: 0,
            open: 0,
        };
        let gateways = GatewaysSaw {
            requests: 12,
            recorded: 11,
            faults: 1,
            twice_at_wablas: 0,
            twice_at_whacenter: 0,
        };
        let mut sums = Sums::default();
        let numbers = |done, failed, unknown| Numbers {
            done,
            failed,
            unknown,
            ..Numbers::default()
        };
        let campaign = numbers(8, 1, 1);
        let id = wa_core::id::CampaignId::MIN;
        sums.add(MessageScope::Campaign(id), campaign, campaign);
        sums.add(MessageScope::Direct, numbers(2, 0, 0), numbers(2, 0, 0));
        let side = GatewaySide {
            counts: GatewayCounts::default(),
            twice: 0,
        };
        let calls = |taken| CallCounts {
            taken,
            refused: 0,
            unanswered: 0,
        };
        let gathered = Gathered {
            ended: Ended::Done,
            took: Duration::from_secs(1),
            database: "sqlite",
            sums,
            gateways: [side.clone(), side],
            looks: calls(5),
            bursts: calls(2),
            churn: ChurnCounts::default(),
            used: Used {
                memory_begin: None,
                memory_peak: None,
                processor: None,
                spent: None,
            },
        };
        (args, messages, gateways, gathered)
    }

    #[test]
    fn numbers_that_add_up_pass_and_each_way_not_to_add_up_is_found() {
        type Edit = fn(&mut Messages, &mut GatewaysSaw, &mut Gathered);
        let failing = |edit: Edit| {
            let (args, mut messages, mut gateways, mut gathered) = right();
            edit(&mut messages, &mut gateways, &mut gathered);
            let checks = checks(&args, &messages, &gateways, &gathered);
            checks.iter().filter(|check| !check.holds).count()
        };
        assert_eq!(failing(|_, _, _| {}), 0);
        let wrong: [Edit; 11] = [
            |m, _, _| m.enqueued += 1,
            |m, _, _| (m.sent, m.enqueued) = (12, 14),
            |_, g, _| g.recorded = 9,
            |_, g, _| g.recorded = 12,
            |_, g, _| g.twice_at_wablas = 1,
            |_, g, _| g.twice_at_whacenter = 1,
            |_, _, all| all.gateways[0].counts.malformed = 1,
            |_, _, all| all.gateways[1].counts.unauthorized = 1,
            |_, _, all| all.bursts.taken = 3,
            |_, _, all| {
                let id = wa_core::id::CampaignId::MIN;
                let lost = Numbers::default();
                let more = Numbers { done: 1, ..lost };
                all.sums.add(MessageScope::Campaign(id), lost, more);
            },
            |m, _, _| (m.open, m.unknown) = (1, 0),
        ];
        for (place, edit) in wrong.into_iter().enumerate() {
            assert!(failing(edit) > 0, "the {place}th is not found");
        }
    }
}
