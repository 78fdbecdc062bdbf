//! A store and a transport's watcher that tell the gauges what passes through them.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use wa_core::domain::message::{MessageScope, MessageState};
use wa_core::domain::platform::Platform;
use wa_core::store::{AppStore, Change, ChangeSet, Committed, Settle, Settled, Store, StoreError, WriteClass};
use wa_core::time::{Clock, Timestamp};
use wa_core::transport::OutgoingMessage;

use super::gauges::Gauges;
use crate::metered::{SendOutcome, SendWatch};

/// The way to a store; a method of its own comes before the store's of the same name.
struct Way {
    store: Arc<dyn AppStore>,
    clock: Arc<dyn Clock>,
    gauges: Arc<Gauges>,
}

impl Deref for Way {
    type Target = dyn AppStore;

    fn deref(&self) -> &Self::Target {
        &*self.store
    }
}

impl Way {
    async fn settle(&self, settle: &Settle) -> Result<Vec<Settled>, StoreError> {
        let answers = self.store.settle(settle).await?;
        let now = self.clock.monotonic();
        for (outcome, answer) in settle.outcomes.iter().zip(&answers) {
            let sent = matches!(answer, Settled::Yes(MessageState::Sent));
            self.gauges.settled(outcome.attempt_id, sent, now);
        }
        Ok(answers)
    }
}

/// Passes everything on to another store and tells of messages that are enqueued and settled.
pub(super) struct MeasuredStore {
    way: Way,
}

impl MeasuredStore {
    pub fn new(store: Arc<dyn AppStore>, clock: Arc<dyn Clock>, gauges: Arc<Gauges>) -> Self {
        let way = Way { store, clock, gauges };
        Self { way }
    }
}

impl fmt::Debug for MeasuredStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MeasuredStore").field(&self.way.store).finish()
    }
}

wa_core::forward_store!(MeasuredStore => way);
wa_core::forward_app_store!(MeasuredStore => way);

#[async_trait]
impl Store for MeasuredStore {
    async fn commit(&self, set: ChangeSet, class: WriteClass, now: Timestamp) -> Result<Committed, StoreError> {
        let Way { store, clock, gauges } = &self.way;
        let mut of_campaigns = 0;
        for change in &set.changes {
            if let Change::InsertMessages(messages) = change {
                gauges.put(messages.iter().map(|message| (message.id, message.due_at)));
                let is_of_campaign = |scope| matches!(scope, MessageScope::Campaign(_));
                of_campaigns += messages.iter().filter(|message| is_of_campaign(message.scope)).count() as u64;
            }
        }
        let began = clock.monotonic();
        let committed = store.commit(set, class, now).await?;
        let all = committed.messages_inserted;
        gauges.inserted(all, of_campaigns.min(all), began, clock.monotonic());
        Ok(committed)
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.way.store.ready().await
    }

    fn bulk_rows(&self) -> u32 {
        self.way.store.bulk_rows()
    }
}

/// Tells of messages on their way to a gateway.
pub(super) struct MeasuredSends {
    pub clock: Arc<dyn Clock>,
    pub gauges: Arc<Gauges>,
}

impl SendWatch for MeasuredSends {
    fn begins(&self, message: &OutgoingMessage) {
        self.gauges.handed_over(message.message_id, self.clock.wall());
    }

    fn ended(&self, _platform: &Platform, message: &OutgoingMessage, _outcome: SendOutcome, took: Duration) {
        self.gauges.answered(message.attempt_id, took, self.clock.monotonic());
    }
}
