//! `campaign`: how campaigns are doing, and what they will do.

use clap::Subcommand;
use wa_core::domain::message::MessageScope;
use wa_core::id::CampaignId;
use wa_core::store::{CampaignFilter, PageRequest};

use super::forecast::{self, ForecastArgs};
use super::{Failure, Offline, row, say};
use crate::settings::Settings;

#[derive(Debug, Subcommand)]
pub(super) enum CampaignCommand {
    /// Show the numbers of one campaign by device, or of the newest campaigns.
    Status {
        /// The campaign.
        id: Option<CampaignId>,
        /// The login of the user.
        #[arg(long)]
        user: String,
    },
    /// Tell what one campaign will do: what goes out per day and device, when it ends, who is skipped and why.
    Forecast {
        /// The campaign.
        id: CampaignId,
        /// The login of the user.
        #[arg(long)]
        user: String,
        #[command(flatten)]
        args: ForecastArgs,
    },
}

/// How many campaigns are shown.
const SHOWN_MAX: u32 = 20;

pub(super) async fn run(command: CampaignCommand, settings: Settings) -> Result<(), Failure> {
    let offline = Offline::open(settings).await?;
    let (id, user) = match command {
        CampaignCommand::Status { id, user } => (id, user),
        CampaignCommand::Forecast { id, user, args } => {
            return forecast::run(&offline, &user, MessageScope::Campaign(id), &args).await;
        }
    };
    let scope = offline.scope(&user).await?;
    let handle = offline.handle().await?;
    let Some(id) = id else {
        let request = PageRequest::first(SHOWN_MAX);
        let page = offline
            .store
            .campaigns(&scope, &CampaignFilter::default(), &request)
            .await?;
        for campaign in page.rows {
            let numbers = handle.campaign_numbers(&scope, campaign.id).await?;
            say(&format!("{} {:?} {}", campaign.id, campaign.status, campaign.title));
            say(&row("", &numbers.total));
        }
        return Ok(());
    };
    let campaign = offline.store.campaign(&scope, id).await;
    let campaign = campaign.map_err(|_| format!("{user} has no campaign {id}"))?;
    let progress = handle.campaign_progress(&scope, id).await?;
    say(&format!("{} {:?} {}", campaign.id, campaign.status, campaign.title));
    if progress.numbers.expanding {
        say("its audience is still being expanded");
    }
    say(&row("all", &progress.numbers.total));
    for device in handle.device_report(&scope, id).await? {
        let name = match (device.name, device.device_id) {
            (Some(name), _) => name.chars().take(40).collect(),
            (None, Some(id)) => id.to_string(),
            (None, None) => "(waiting for a device)".to_owned(),
        };
        say(&row(&name, &device.numbers));
    }
    if let Some(end) = progress.expected_end_at {
        say(&format!("expected to end at {end}"));
    }
    Ok(())
}
