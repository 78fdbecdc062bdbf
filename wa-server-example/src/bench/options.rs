//! What a run of the load generator is asked for.

use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;
use wa_core::domain::pacing::PacingPolicy;

use crate::settings::parse::parse_duration;

/// Shortest span that an option takes.
const SPAN_MIN: Duration = Duration::from_millis(100);
/// Longest span that an option takes.
const SPAN_MAX: Duration = Duration::from_secs(30 * 24 * 3_600);

/// At which pace devices send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    /// As fast as gateways and machine allow, without caps.
    Unpaced,
    /// Ten times human.
    Demo,
    /// As to real recipients: pauses of 5 to 15 s, 80 messages an hour, 800 a day.
    Human,
}

impl Pace {
    pub(super) fn policy(self) -> PacingPolicy {
        match self {
            Self::Unpaced => PacingPolicy::unpaced(),
            Self::Demo => PacingPolicy::demo(),
            Self::Human => PacingPolicy::default(),
        }
    }
}

/// What comes in bursts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BurstOf {
    /// Messages to one person each, which pass campaigns by.
    Direct,
    /// Leads, by the webhook.
    Leads,
}

/// How large a load is, and what belongs to it.
#[derive(Debug, Clone, clap::Args)]
pub struct BenchArgs {
    /// How many devices there are, two thirds at Wablas and the others at Whacenter.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub devices: u32,
    /// How many leads there are, each a person of its own; each gets one message of one campaign.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=900_000))]
    pub leads: u32,
    /// How many campaigns share the leads evenly; they start together.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub campaigns: u32,
    /// How many times a minute a device is added, goes offline for 5 s or is deleted, in turn; 0 for never.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=6_000))]
    pub churn: u32,
    /// How many direct messages or leads come at once over the API while campaigns run; 0 for none.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub burst: u32,
    /// How long lies between the beginnings of two bursts, from 100ms to 30d.
    #[arg(long, value_name = "SPAN", default_value = "5s", value_parser = span)]
    pub burst_every: Duration,
    /// What comes in bursts.
    #[arg(long, value_enum, default_value_t = BurstOf::Direct)]
    pub burst_of: BurstOf,
    /// After how long it ends, such as 2m, from 100ms to 30d; when everything has ended if it is not given.
    #[arg(long = "for", value_name = "SPAN", value_parser = span)]
    pub run_for: Option<Duration>,
    /// At which pace devices send.
    #[arg(long, value_enum, default_value_t = Pace::Unpaced)]
    pub pace: Pace,
    /// How long gateways take at most for a message, in milliseconds; short times are more frequent than long ones.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=20_000))]
    pub latency_ms: u32,
    /// Requests in a thousand that gateways fail on purpose: refusals, errors, connections cut before and after they took a message.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=500))]
    pub faults: u16,
    /// Where people, latencies, failures and the choice of devices are drawn from.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Write the result as JSON to standard output, and progress to standard error.
    #[arg(long)]
    pub json: bool,
}

impl BenchArgs {
    /// What two options that are right by themselves may get wrong together.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.campaigns > self.leads {
            return Err(format!(
                "--campaigns must be at most --leads, which is {}: every campaign needs a lead",
                self.leads
            ));
        }
        Ok(())
    }
}

fn span(text: &str) -> Result<Duration, &'static str> {
    parse_duration(text)
        .filter(|span| (SPAN_MIN..=SPAN_MAX).contains(span))
        .ok_or("must be a number with ms, s, m, h or d, from 100ms to 30d")
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

    fn parse(line: &[&str]) -> Result<BenchArgs, String> {
        let words = std::iter::once("bench").chain(line.iter().copied());
        let args = Line::try_parse_from(words).map_err(|error| error.to_string())?.args;
        args.check().map(|()| args)
    }

    #[test]
    fn what_cannot_be_run_is_refused_with_the_option_and_its_range() {
        assert_eq!(parse(&[]).unwrap().devices, 300);
        assert_eq!(parse(&["--for", "90s"]).unwrap().run_for, Some(Duration::from_secs(90)));
        for (line, said) in [
            (["--devices", "0"], ["--devices", "1..=20000"]),
            (["--leads", "900001"], ["--leads", "1..=900000"]),
            (["--campaigns", "1001"], ["--campaigns", "1..=1000"]),
            (["--campaigns", "many"], ["--campaigns", "many"]),
            (["--for", "1ms"], ["--for", "100ms to 30d"]),
            (["--burst-every", "soon"], ["--burst-every", "100ms to 30d"]),
            (["--pace", "fast"], ["--pace", "unpaced, demo, human"]),
            (["--faults", "501"], ["--faults", "0..=500"]),
        ] {
            let error = parse(&line).expect_err(line[0]);
            assert!(said.iter().all(|part| error.contains(part)), "{error}");
        }
        let error = parse(&["--leads", "10", "--campaigns", "11"]).expect_err("too many");
        assert!(
            error.contains("--campaigns must be at most --leads, which is 10"),
            "{error}"
        );
    }
}
