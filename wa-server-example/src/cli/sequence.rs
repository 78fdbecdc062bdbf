//! `sequence`: how sequences are doing, and what they will do.

use clap::Subcommand;
use wa_core::domain::message::MessageScope;
use wa_core::id::SequenceId;
use wa_core::store::{PageRequest, SequenceFilter, Span};

use super::forecast::{self, ForecastArgs};
use super::{Failure, Offline, row, say};
use crate::settings::Settings;

#[derive(Debug, Subcommand)]
pub(super) enum SequenceCommand {
    /// Show the numbers of one sequence by step, or of the newest sequences.
    Status {
        /// The sequence.
        id: Option<SequenceId>,
        /// The login of the user.
        #[arg(long)]
        user: String,
    },
    /// Tell what one sequence will do: what goes out per day and device, when it ends, who is skipped and why.
    Forecast {
        /// The sequence.
        id: SequenceId,
        /// The login of the user.
        #[arg(long)]
        user: String,
        #[command(flatten)]
        args: ForecastArgs,
    },
}

/// How many sequences are shown.
const SHOWN_MAX: u32 = 20;

pub(super) async fn run(command: SequenceCommand, settings: Settings) -> Result<(), Failure> {
    let offline = Offline::open(settings).await?;
    let (id, user) = match command {
        SequenceCommand::Status { id, user } => (id, user),
        SequenceCommand::Forecast { id, user, args } => {
            return forecast::run(&offline, &user, MessageScope::Sequence(id), &args).await;
        }
    };
    let scope = offline.scope(&user).await?;
    let handle = offline.handle().await?;
    let Some(id) = id else {
        let request = PageRequest::first(SHOWN_MAX);
        let page = handle.sequences(&scope, &SequenceFilter::default(), &request).await?;
        for of in page.rows {
            let sequence = of.sequence;
            let numbers = handle.sequence_numbers(&scope, sequence.id, &Span::default()).await?;
            say(&format!("{} {:?} {}", sequence.id, sequence.status, sequence.name));
            say(&row("", &numbers.total));
        }
        return Ok(());
    };
    let of = handle.sequence(&scope, id).await;
    let sequence = of.map_err(|_| format!("{user} has no sequence {id}"))?.sequence;
    let progress = handle.sequence_progress(&scope, id).await?;
    say(&format!("{} {:?} {}", sequence.id, sequence.status, sequence.name));
    if progress.numbers.expanding {
        say("its leads are still being matched");
    }
    let contacts = &progress.numbers.contacts;
    say(&format!(
        "contacts {}: open {}, completed {}, ended {}",
        contacts.total, contacts.open, contacts.completed, contacts.ended
    ));
    say(&row("all", &progress.numbers.total));
    for step in &progress.numbers.steps {
        let name = match &step.step {
            Some((place, day, trigger)) => format!("{}. day {day} {trigger}", place + 1),
            None => "(removed)".to_owned(),
        };
        say(&row(&name.chars().take(40).collect::<String>(), &step.total));
    }
    if let Some(end) = progress.expected_end_at {
        say(&format!("expected to be through at {end}"));
    }
    Ok(())
}
