//! `archive`: moves what is only read any more out of the way, beside a running server or without one.

use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use wa_core::engine::config::EngineConfig;

use super::{Failure, Offline, say};
use crate::settings::Settings;
use crate::settings::parse::parse_duration;

/// How long messages that a server is writing are left to it.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// What is archived.
#[derive(Debug, Args)]
pub(super) struct ArchiveArgs {
    /// How long ago a campaign must have ended, from 2d on; as ARCHIVE_AFTER says when it is not given.
    #[arg(long, value_parser = span)]
    older_than: Option<Duration>,
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
