//! What a campaign or a sequence will do, before it does it.

use super::campaigns::wrong_status;
use super::{Handle, HandleError};
use crate::domain::access::RequestScope;
use crate::domain::campaign::CampaignStatus;
use crate::id::{CampaignId, SequenceId};
use crate::plan::campaign_request::started_now;
use crate::plan::sequence_request::unready;
use crate::simulation::forecast::{Forecast, ForecastControl, ForecastOptions, Snapshot, run};
use crate::store::Span;

impl Handle {
    /// Tells what a campaign will do: what goes out on which day by which device, when it ends, who is skipped and why, and
    /// what caps and windows cost. Changes nothing.
    ///
    /// It works for seconds where there are a hundred thousand recipients, in turns of about a millisecond, so it may run on
    /// a server's own threads; dropping it ends it. `control` shows how far it is, and stops it.
    ///
    /// # Errors
    /// `Invalid` for options outside their limits, for a campaign that lacks its text, and for an audience that is empty or
    /// larger than the options allow; `Conflict` when the campaign is over, nothing of it is left, or it was cancelled.
    pub async fn forecast_campaign(
        &self,
        scope: &RequestScope,
        id: CampaignId,
        options: &ForecastOptions,
        control: &ForecastControl,
    ) -> Result<Forecast, HandleError> {
        use CampaignStatus::{Draft, Paused, Scheduled, Triggered};
        let problems = options.problems();
        if !problems.is_empty() {
            return Err(HandleError::Invalid(problems));
        }
        let campaign = self.owned_campaign(scope, id).await?;
        match campaign.status {
            Draft => drop(started_now(&campaign, self.now())?),
            Scheduled | Triggered | Paused => {}
            _ => {
                return Err(wrong_status(
                    &campaign,
                    "forecast",
                    &[Draft, Scheduled, Triggered, Paused],
                ));
            }
        }
        let snapshot = Snapshot::of_campaign(&self.core, &campaign, options, control).await?;
        run(&self.core, snapshot, options, control).await
    }

    /// Tells what a sequence will do with those who are in it and those who match now: what goes out on which day by which
    /// device and at which step, when the last step ends, who is skipped and why. One that is not active is forecast as if it
    /// became so now. Changes nothing; it works as a forecast of a campaign does.
    ///
    /// # Errors
    /// `Invalid` for options outside their limits, for a sequence that lacks steps or their texts, when nobody is in it and no
    /// lead matches, and for more people than the options allow; `Conflict` when it was cancelled.
    pub async fn forecast_sequence(
        &self,
        scope: &RequestScope,
        id: SequenceId,
        options: &ForecastOptions,
        control: &ForecastControl,
    ) -> Result<Forecast, HandleError> {
        let problems = options.problems();
        if !problems.is_empty() {
            return Err(HandleError::Invalid(problems));
        }
        let of = self.owned_sequence(scope, id).await?;
        let problems = unready(of.steps.as_ref());
        let Some(steps) = of.steps.as_ref().filter(|_| problems.is_empty()) else {
            return Err(HandleError::Invalid(problems));
        };
        let before = self.sequence_numbers(scope, id, &Span::default()).await?.total;
        let snapshot = Snapshot::of_sequence(&self.core, (&of.sequence, steps), before, options, control).await?;
        run(&self.core, snapshot, options, control).await
    }
}
