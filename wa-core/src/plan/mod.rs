//! Pure planners: a snapshot, the time and the seed in, a [`ChangeSet`](crate::store::ChangeSet) or a verdict out.

pub(crate) mod campaign_request;
pub(crate) mod device_request;
pub(crate) mod direct;
mod doubt;
mod estimate;
mod expansion;
mod field;
pub(crate) mod inbound;
pub(crate) mod lead_request;
pub(crate) mod preview;
mod requeue;
pub(crate) mod resend;
mod routing;
pub(crate) mod saved_text_request;
mod settlement;
mod shared_drafts;
mod start;

pub use self::campaign_request::{CampaignDraft, CampaignEdit, EntryDraft, QuietDraft, RandomizerDraft, SaveAs};
pub use self::device_request::{DeviceDraft, DeviceEdit};
pub use self::direct::{DIRECT_EXPIRES_AFTER, DirectDraft, OnSuppressed};
pub use self::doubt::{DoubtLimits, DoubtStep, doubt_step, reconciled};
pub use self::estimate::{LaneWork, expected_end};
pub use self::expansion::{AudiencePage, ExpansionContext, expand};
pub(crate) use self::field::Problems;
pub use self::field::{FieldCode, FieldError, Warning, WarningCode};
pub use self::lead_request::{ConsentDraft, LeadBulkEdit, LeadDraft, LeadEdit, WebhookLead};
pub use self::preview::Preview;
pub use self::requeue::{DeviceGate, Requeued, ScopeGate, Suppressed, requeue};
pub use self::routing::{RoutingContext, route, take_turns};
pub use self::saved_text_request::{SavedTextDraft, SavedTextEdit};
pub use self::settlement::{LaneEffect, Settlement, SettlementContext, doubtful, settlement};
pub(crate) use self::shared_drafts::carried;
pub use self::shared_drafts::{CapsDraft, Carrier, DelayDraft, Edit, MediaDraft, TextAs};
pub use self::start::start;
