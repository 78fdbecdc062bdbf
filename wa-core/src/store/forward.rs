//! Passes every call of the store port on to a store inside, for decorators: metrics, tracing, chaos, an audit.

/// Implements the engine's store port (all but [`Store`](crate::store::Store) itself) for a type by passing each call on.
///
/// `forward_store!(Type => field)` forwards to the store in `self.field`; the type itself implements
/// [`Store`](crate::store::Store), whose `commit` is what a decorator usually cares about.
/// `forward_app_store!(Type => field)` adds what only a server needs. A method that the port gains is
/// forwarded too, so that it breaks no decorator.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// use async_trait::async_trait;
/// use wa_core::store::{ChangeSet, Committed, MemoryStore, Store, StoreError, WriteClass};
/// use wa_core::time::Timestamp;
///
/// #[derive(Debug, Default)]
/// struct Counted {
///     inner: MemoryStore,
///     commits: AtomicU64,
/// }
///
/// wa_core::forward_store!(Counted => inner);
///
/// #[async_trait]
/// impl Store for Counted {
///     async fn commit(&self, set: ChangeSet, class: WriteClass, now: Timestamp) -> Result<Committed, StoreError> {
///         self.commits.fetch_add(1, Ordering::Relaxed);
///         self.inner.commit(set, class, now).await
///     }
///     async fn ready(&self) -> Result<(), StoreError> {
///         self.inner.ready().await
///     }
///     fn bulk_rows(&self) -> u32 {
///         self.inner.bulk_rows()
///     }
/// }
/// ```
#[macro_export]
macro_rules! forward_store {
    ($type:ty => $field:ident) => {
        const _: () = {
            use $crate::domain::access::RequestScope;
            use $crate::domain::audience::{AudienceLead, CampaignEntry};
            use $crate::domain::campaign::Campaign;
            use $crate::domain::command::DeviceCommand;
            use $crate::domain::device::{Epoch, OwnedDevice};
            use $crate::domain::enrolment::{Enrolment, ToAdvance};
            use $crate::domain::lead::{Lead, LeadIdentity};
            use $crate::domain::message::{Attempt, Message, MessageScope};
            use $crate::domain::phone::PersonKey;
            use $crate::domain::saved_text::SavedText;
            use $crate::domain::sequence::{Sequence, SequenceSteps};
            use $crate::domain::summary::{DeviceNumbers, Numbers};
            use $crate::domain::suppression::Suppression;
            use $crate::domain::token::Token;
            use $crate::event::Event;
            use $crate::id::*;
            use $crate::seed::Seed;
            use $crate::store::*;
            use $crate::time::Timestamp;

            $crate::forward_trait!($type => $field, DeviceStore {
                fn device(scope: &RequestScope, id: DeviceId) -> $crate::domain::device::Device;
                fn devices(scope: &RequestScope, page: &PageRequest<DeviceId>) -> Page<$crate::domain::device::Device, DeviceId>;
                fn device_by_hook(token: &str) -> $crate::domain::device::Device;
                fn owned(ids: &[DeviceId]) -> Vec<OwnedDevice>;
                fn users_with_devices(page: &PageRequest<UserId>) -> Page<UserId, UserId>;
            });
            $crate::forward_trait!($type => $field, LeadStore {
                fn lead(scope: &RequestScope, id: LeadId) -> Lead;
                fn leads(scope: &RequestScope, filter: &LeadFilter, page: &PageRequest<LeadId>) -> Page<Lead, LeadId>;
                fn lead_count(scope: &RequestScope, filter: &LeadFilter) -> u64;
                fn leads_by_id(user: UserId, ids: &[LeadId]) -> Vec<Lead>;
                fn lead_by_identity(identity: &LeadIdentity) -> Option<Lead>;
                fn niches(scope: &RequestScope) -> Vec<(Token, u64)>;
            });
            $crate::forward_trait!($type => $field, CampaignStore {
                fn campaign(scope: &RequestScope, id: CampaignId) -> Campaign;
                fn campaigns(scope: &RequestScope, filter: &CampaignFilter, page: &PageRequest<CampaignId>) -> Page<Campaign, CampaignId>;
                fn campaigns_by_id(ids: &[CampaignId]) -> Vec<Campaign>;
                fn campaigns_due(now: Timestamp, limit: u32) -> Vec<Campaign>;
                fn campaigns_expanding(limit: u32) -> Vec<Campaign>;
                fn complete_campaigns(events: &[EventId], now: Timestamp) -> Vec<Campaign>;
                fn next_campaign_at() -> Option<Timestamp>;
                fn audience_page(campaign: &Campaign, after: LeadId, limit: u32) -> Vec<AudienceLead>;
                fn entries_page(campaign: CampaignId, after: u32, limit: u32) -> Vec<CampaignEntry>;
                fn audience_size(campaign: &Campaign) -> u64;
                fn persons_in(campaign: CampaignId, persons: &[PersonKey]) -> Vec<PersonKey>;
                fn planned(campaign: CampaignId, persons: &[PersonKey]) -> Vec<PlannedRow>;
                fn left_over(campaign: CampaignId) -> u64;
                fn taken(campaigns: &[CampaignId]) -> Vec<Taken>;
                fn saved_text(scope: &RequestScope, id: TemplateId) -> SavedText;
                fn saved_texts(scope: &RequestScope, page: &PageRequest<TemplateId>) -> Page<SavedText, TemplateId>;
            });
            $crate::forward_trait!($type => $field, SequenceStore {
                fn sequence(scope: &RequestScope, id: SequenceId) -> Sequence;
                fn sequences(scope: &RequestScope, filter: &SequenceFilter, page: &PageRequest<SequenceId>) -> Page<Sequence, SequenceId>;
                fn sequences_by_id(ids: &[SequenceId]) -> Vec<Sequence>;
                fn steps(versions: &[(SequenceId, i32)]) -> Vec<SequenceSteps>;
                fn sequences_by_entry(user: UserId, tokens: &[Token]) -> Vec<Sequence>;
                fn leads_to_match(limit: u32) -> Vec<Lead>;
                fn sequences_matching(limit: u32) -> Vec<Sequence>;
                fn match_page(sequence: &Sequence, after: LeadId, limit: u32) -> Vec<Lead>;
                fn to_advance(limit: u32) -> Vec<ToAdvance>;
                fn enrolment(scope: &RequestScope, id: EnrolmentId) -> Enrolment;
                fn enrolments(scope: &RequestScope, filter: &EnrolmentFilter, page: &PageRequest<EnrolmentId>) -> Page<Enrolment, EnrolmentId>;
                fn enrolments_by_id(ids: &[EnrolmentId]) -> Vec<Enrolment>;
                fn sequence_counts(scope: &RequestScope, id: SequenceId, span: &Span) -> SequenceCounts;
                fn recount_sequence(scope: &RequestScope, id: SequenceId) -> SequenceCounts;
            });
            $crate::forward_trait!($type => $field, OutboxStore {
                fn due(due: &Due) -> Vec<LaneDue>;
                fn begin(begin: &Begin) -> Vec<Begun>;
                fn settle(settle: &Settle) -> Vec<Settled>;
                fn decline(items: &[Decline], now: Timestamp) -> u64;
                fn sending(incarnation: Incarnation) -> Vec<SendingRow>;
                fn doubts(incarnation: Incarnation, now: Timestamp, limit: u32) -> Vec<Message>;
                fn sweep(limit: u32, now: Timestamp) -> Swept;
                fn expire(limit: u32, now: Timestamp) -> Expired;
                fn archive(limit: u32, ended_before: Timestamp, now: Timestamp) -> Archived;
                fn pool(incarnation: Incarnation, now: Timestamp, limit: u32) -> Vec<PoolMessage>;
                fn assign(items: &[Assignment], now: Timestamp) -> u64;
                fn leave_over(items: &[LeftOver], now: Timestamp) -> u64;
                fn unassign(user: UserId, device: DeviceId) -> u64;
                fn loads(user: UserId, now: Timestamp) -> Vec<DeviceLoad>;
                fn history(devices: &[DeviceId], since: Timestamp) -> Vec<LaneHistory>;
                fn recent(scope: RecentOf, since: Timestamp, limit: u32) -> RecentOutcomes;
                fn message(scope: &RequestScope, id: MessageId) -> Message;
                fn messages(scope: &RequestScope, filter: &MessageFilter, page: &PageRequest<MessageId>) -> Page<Message, MessageId>;
                fn newest_of_leads(scope: &RequestScope, leads: &[LeadId]) -> Vec<Message>;
                fn attempts(scope: &RequestScope, id: MessageId) -> Vec<Attempt>;
                fn numbers(scope: &RequestScope, of: MessageScope) -> Vec<DeviceNumbers>;
                fn device_numbers(scope: &RequestScope, device: DeviceId) -> Numbers;
                fn count(scope: &RequestScope, of: MessageScope) -> Vec<DeviceNumbers>;
                fn count_within(scope: &RequestScope, of: MessageScope, within: &std::ops::Range<Timestamp>) -> Vec<DeviceNumbers>;
                fn backlog() -> Backlog;
            });
            $crate::forward_trait!($type => $field, SuppressionStore {
                fn suppressed(user: UserId, persons: &[PersonKey]) -> Vec<Suppression>;
                fn suppressions(scope: &RequestScope, page: &PageRequest<PersonKey>) -> Page<Suppression, PersonKey>;
            });
            $crate::forward_trait!($type => $field, WarmthStore {
                fn warmth(messages: &[MessageId]) -> Vec<$crate::domain::warmth::Warmth>;
                fn strangers(asked: &Strangers) -> Vec<Stranger>;
                fn put_off(user: UserId, device: DeviceId, now: Timestamp, limit: u32) -> Vec<MessageId>;
                fn cold_attempts(devices: &[DeviceId], since: Timestamp) -> Vec<Vec<Timestamp>>;
                fn acquainted(device: DeviceId, people: &[($crate::domain::phone::Phone, PersonKey)]) -> Vec<PersonKey>;
            });
            $crate::forward_trait!($type => $field, ChatStore {
                fn chat(scope: &RequestScope, id: ChatId) -> $crate::domain::chat::Chat;
                fn chats(scope: &RequestScope, device: DeviceId, page: &PageRequest<$crate::domain::chat::ChatPlace>) -> Page<$crate::domain::chat::Chat, $crate::domain::chat::ChatPlace>;
                fn chat_messages(scope: &RequestScope, id: ChatId, page: &ChatPage) -> Page<$crate::domain::chat::ChatMessage, $crate::domain::chat::ChatMessagePlace>;
                fn sweep_chats(before: Timestamp, limit: u32) -> u64;
            });
            $crate::forward_trait!($type => $field, LeaseStore {
                fn seed(candidate: &Seed) -> Seed;
                fn join(incarnation: Incarnation, name: &str, now: Timestamp) -> ();
                fn beat(incarnation: Incarnation, now: Timestamp) -> ();
                fn nodes() -> Vec<NodeRecord>;
                fn fence(by: Incarnation, target: Incarnation, seen_beat: i64, now: Timestamp) -> Vec<TakenOver>;
                fn fence_the_dead(by: Incarnation, now: Timestamp) -> Vec<TakenOver>;
                fn unowned() -> u64;
                fn claim(incarnation: Incarnation, limit: u32, now: Timestamp) -> Vec<OwnedDevice>;
                fn release(incarnation: Incarnation, devices: &[(DeviceId, Epoch)], now: Timestamp) -> Vec<DeviceId>;
                fn devices_of(incarnation: Incarnation) -> Vec<OwnedDevice>;
                fn plan_lease(incarnation: Incarnation, now: Timestamp) -> bool;
                fn forget_nodes(before: Timestamp, limit: u32) -> u64;
                fn leave(incarnation: Incarnation, now: Timestamp) -> ();
            });
            $crate::forward_trait!($type => $field, CommandStore {
                fn command(scope: &RequestScope, id: CommandId) -> DeviceCommand;
                fn commands(incarnation: Incarnation, now: Timestamp, limit: u32) -> Vec<DeviceCommand>;
                fn prune_commands(before: Timestamp) -> u64;
            });
            $crate::forward_trait!($type => $field, EventStore {
                fn events(scope: &RequestScope, after: EventId, limit: u32) -> Vec<Event>;
                fn newest_event(scope: &RequestScope) -> Option<EventId>;
                fn prune_events(before: Timestamp) -> u64;
                fn prune_replies(before: Timestamp) -> u64;
            });
        };
    };
}

/// Adds to [`forward_store!`](crate::forward_store) what only a server needs: people, logins, imports and sessions.
#[macro_export]
macro_rules! forward_app_store {
    ($type:ty => $field:ident) => {
        const _: () = {
            use $crate::domain::access::{LoginSession, RequestScope, User};
            use $crate::id::{DeviceId, ImportId, UserId};
            use $crate::store::*;
            use $crate::time::Timestamp;

            $crate::forward_trait!($type => $field, AccessStore {
                fn insert_user(user: &User) -> ();
                fn update_user(user: &User) -> ();
                fn user(id: UserId) -> User;
                fn user_by_login(login: &str) -> Option<User>;
                fn users(page: &PageRequest<UserId>) -> Page<User, UserId>;
                fn insert_session(session: &LoginSession) -> ();
                fn session(token_hash: &[u8; 32], now: Timestamp) -> Option<LoginSession>;
                fn extend_session(token_hash: &[u8; 32], expires_at: Timestamp) -> ();
                fn delete_session(token_hash: &[u8; 32]) -> ();
                fn delete_sessions_of(user: UserId) -> u64;
                fn prune_sessions(before: Timestamp) -> u64;
            });
            $crate::forward_trait!($type => $field, ImportStore {
                fn put_import(record: &ImportRecord, refusals: &[ImportRefusal]) -> ();
                fn import(scope: &RequestScope, id: ImportId) -> ImportRecord;
                fn imports(scope: &RequestScope, page: &PageRequest<ImportId>) -> Page<ImportRecord, ImportId>;
                fn import_refusals(scope: &RequestScope, id: ImportId, after_line: u64, limit: u32) -> Vec<ImportRefusal>;
                fn fail_running_imports(message: &str, before: Timestamp, now: Timestamp) -> u64;
            });
            $crate::forward_trait!($type => $field, SessionStore {
                fn session_values(device: DeviceId, keys: &[SessionKey]) -> Vec<Option<Vec<u8>>>;
                fn scan_session(device: DeviceId, prefix: &[u8], page: &PageRequest<SessionKey>) -> Page<SessionRow, SessionKey>;
                fn write_session(owner: &SessionOwner, writes: &[SessionWrite]) -> ();
                fn wipe_session(owner: &SessionOwner) -> u64;
                fn sweep_sessions(before: Timestamp, limit: u32) -> u64;
            });
        };
    };
}

/// Forwards the methods of one trait; used by [`forward_store!`](crate::forward_store).
#[doc(hidden)]
#[macro_export]
macro_rules! forward_trait {
    ($type:ty => $field:ident, $store:ident { $(fn $name:ident($($arg:ident: $kind:ty),*) -> $answer:ty;)+ }) => {
        #[$crate::store::async_trait]
        impl $store for $type {
            $(async fn $name(&self, $($arg: $kind),*) -> Result<$answer, StoreError> {
                self.$field.$name($($arg),*).await
            })+
        }
    };
}
