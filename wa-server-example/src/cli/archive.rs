//! `archive`: moves what is only read any more out of the way, beside a running server or without one.

use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use wa_core::domain::access::RequestScope;
use wa_core::domain::campaign::{Campaign, CampaignStatus};
use wa_core::engine::config::EngineConfig;
use wa_core::store::{CampaignFilter, PAGE_MAX, PageRequest};
use wa_core::time::Timestamp;

use super::{Failure, Offline, say};
use crate::settings::Settings;
use crate::settings::parse::parse_duration;

/// How long messages that a server is writing are left to it.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// What is archived.
#[derive(Debug, Args)]
pub(super) struct ArchiveArgs {
    /// How long ago a campaign must have ended, from 2d on; as ARCHIVE_AFTER says when it is not given.
    ///
    /// This cannot be undone: an archived campaign can be read and copied, and never changed or sent again. So it needs --yes; without it,
    /// it is told how many campaigns it concerns.
    #[arg(long, value_parser = span)]
    older_than: Option<Duration>,
    /// Really archive what --older-than names.
    #[arg(long, requires = "older_than")]
    yes: bool,
}

fn span(text: &str) -> Result<Duration, &'static str> {
    let days = EngineConfig::ARCHIVE_AFTER_MIN..=EngineConfig::SPAN_MAX;
    let span = parse_duration(text).filter(|span| days.contains(span));
    span.ok_or("must be 2d to 3660d")
}

pub(super) async fn run(args: ArchiveArgs, settings: Settings) -> Result<(), Failure> {
    let set = Some(settings.engine.archive_after).filter(|after| !after.is_zero());
    let older_than = args
        .older_than
        .or(set)
        .ok_or("ARCHIVE_AFTER is 0s: name --older-than")?;
    let page = settings.engine.archive_page;
    let offline = Offline::open(settings).await?;
    let ended_before = offline.now() - older_than;
    if args.older_than.is_some() {
        let concerned = concerned(&offline, ended_before).await?;
        say(&format!(
            "Campaigns that ended by then and are not in the archive: {concerned}. Those that go there can never be changed or sent again."
        ));
        if !args.yes {
            return Err("nothing was archived: this cannot be undone, so add --yes to do it".into());
        }
    }
    let bar = ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{pos} messages, {per_sec}")?);
    loop {
        // Each step is a transaction: whoever stops here goes on the next time.
        let archived = offline.store.archive(page, ended_before, offline.now()).await?;
        bar.inc(archived.moved);
        if !archived.more {
            break;
        }
        if archived.moved == 0 {
            // What is left is being written by others.
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }
    bar.finish_and_clear();
    say(&format!("{} messages moved to the archive", bar.position()));
    Ok(())
}

/// How many campaigns of all users ended before an instant and are not in the archive.
async fn concerned(offline: &Offline, ended_before: Timestamp) -> Result<u64, Failure> {
    let ended = CampaignFilter {
        statuses: vec![
            CampaignStatus::Completed,
            CampaignStatus::Failed,
            CampaignStatus::Cancelled,
        ],
        ..CampaignFilter::default()
    };
    let mut concerned = 0;
    let mut users = PageRequest::first(PAGE_MAX);
    loop {
        let page = offline.store.users(&users).await?;
        for user in &page.rows {
            let scope = RequestScope::user(user.id);
            let mut request = PageRequest::first(PAGE_MAX);
            loop {
                let page = offline.store.campaigns(&scope, &ended, &request).await?;
                let is_concerned = |campaign: &&Campaign| {
                    campaign.archived_at.is_none() && campaign.ended_at.is_some_and(|at| at < ended_before)
                };
                concerned += page.rows.iter().filter(is_concerned).count() as u64;
                match page.next {
                    Some(next) => request = PageRequest::after(next, PAGE_MAX),
                    None => break,
                }
            }
        }
        match page.next {
            Some(next) => users = PageRequest::after(next, PAGE_MAX),
            None => return Ok(concerned),
        }
    }
}
