//! Who must not be written to, and what is kept of a person.

use std::fmt;

use serde::Serialize;

use super::leads::check_batch;
use super::{Handle, HandleError};
use crate::domain::access::RequestScope;
use crate::domain::lead::Lead;
use crate::domain::message::Message;
use crate::domain::phone::{PersonKey, Phone};
use crate::domain::suppression::{Suppression, SuppressionReason};
use crate::event::EventKind;
use crate::id::{LeadId, UserId};
use crate::plan::{FieldError, Problems};
use crate::store::{Change, ChangeSet, LeadFilter, MessageFilter, PageRequest, WriteClass};
use crate::time::Timestamp;

/// How a person is named.
#[derive(Clone, PartialEq, Eq)]
pub enum Person {
    /// By number, in any usual form. Field `phone`.
    Phone(String),
    /// By a lead of theirs.
    Lead(LeadId),
}

impl fmt::Debug for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Phone(_) => f.write_str("Phone(…)"),
            Self::Lead(id) => f.debug_tuple("Lead").field(id).finish(),
        }
    }
}

/// Everything that is kept of one person.
#[derive(Debug, Clone, Serialize)]
pub struct PersonExport {
    /// The number.
    pub phone: Phone,
    /// Their leads.
    pub leads: Vec<Lead>,
    /// Messages to them with the texts really sent, oldest first.
    pub messages: Vec<Message>,
    /// Whether they must not be written to, and why.
    pub suppression: Option<Suppression>,
    /// Whether it is all there is; the limit is 10,000 leads and as many messages.
    pub complete: bool,
    /// When it was made.
    pub exported_at: Timestamp,
}

/// What became of a list of numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OptOutImport {
    /// How many are on the list now.
    pub taken: u64,
    /// Rows that are no numbers, counted from 0, with what is wrong.
    pub refused: Vec<(usize, FieldError)>,
}

/// Most pages of leads, and of messages, of one export.
const EXPORT_PAGES_MAX: usize = 10;

/// Longest note, in characters.
const NOTE_MAX: usize = 200;

struct Found {
    user_id: UserId,
    lead_id: Option<LeadId>,
    phone: Phone,
    person: PersonKey,
}

impl Handle {
    /// Puts a person on the list of those who must not be written to: from the return of this call no send to them begins.
    ///
    /// # Errors
    /// `Invalid` for a number that is none or a note that is too long; `NotFound` for a lead that does not exist.
    pub async fn opt_out(&self, scope: &RequestScope, person: &Person, note: &str) -> Result<Suppression, HandleError> {
        let found = self.find(scope, person).await?;
        let mut problems = Problems::default();
        let note = problems.line("note", note, NOTE_MAX);
        problems.give(())?;
        let suppression = Suppression {
            user_id: found.user_id,
            person: found.person,
            phone: Some(found.phone),
            reason: SuppressionReason::ByPerson,
            note,
            since_at: self.now(),
        };
        let event = EventKind::OptedOut {
            lead_id: found.lead_id,
            reason: SuppressionReason::ByPerson,
        };
        let set = ChangeSet::one(Change::Suppress(suppression.clone())).tell(self.core.event(found.user_id, event));
        self.commit_repeatable(set, WriteClass::Api).await?;
        Ok(suppression)
    }

    /// Takes a person off the list. What was skipped meanwhile stays skipped.
    ///
    /// # Errors
    /// As [`opt_out`](Self::opt_out).
    pub async fn opt_in(&self, scope: &RequestScope, person: &Person) -> Result<(), HandleError> {
        let found = self.find(scope, person).await?;
        let change = Change::Unsuppress {
            user_id: found.user_id,
            person: found.person,
        };
        self.commit_repeatable(ChangeSet::one(change), WriteClass::Api).await?;
        Ok(())
    }

    /// Puts up to [`BATCH_MAX`](super::BATCH_MAX) numbers on the list, as an import reads them.
    ///
    /// # Errors
    /// `Invalid` for a batch that is too large or a note that is too long.
    pub async fn import_opt_outs(
        &self,
        scope: &RequestScope,
        phones: &[String],
        note: &str,
    ) -> Result<OptOutImport, HandleError> {
        let user_id = Self::owner(scope, "suppression list")?;
        check_batch("phones", phones.len())?;
        let mut problems = Problems::default();
        let note = problems.line("note", note, NOTE_MAX);
        problems.give(())?;
        let region = self.settings(user_id).await?.region;
        let now = self.now();
        let mut import = OptOutImport::default();
        let mut set = ChangeSet::default();
        for (row, text) in phones.iter().enumerate() {
            let mut problems = Problems::default();
            let Some(phone) = problems.parsed("phone", Phone::parse(text, &region)) else {
                import
                    .refused
                    .extend(problems.into_errors().into_iter().map(|error| (row, error)));
                continue;
            };
            import.taken += 1;
            set = set.and(Change::Suppress(Suppression {
                user_id,
                person: self.person(user_id, &phone),
                phone: Some(phone),
                reason: SuppressionReason::Imported,
                note: note.clone(),
                since_at: now,
            }));
        }
        if !set.is_empty() {
            self.commit_repeatable(set, WriteClass::Bulk).await?;
        }
        Ok(import)
    }

    /// Erases a person: name, number, texts and own fields go, rows stay for the numbers, and they are never written to again.
    ///
    /// # Errors
    /// As [`opt_out`](Self::opt_out).
    pub async fn erase_person(&self, scope: &RequestScope, person: &Person) -> Result<(), HandleError> {
        let found = self.find(scope, person).await?;
        let set = ChangeSet::one(Change::ErasePerson {
            user_id: found.user_id,
            person: found.person,
            phone: found.phone,
        })
        .and(Change::Suppress(Suppression {
            user_id: found.user_id,
            person: found.person,
            phone: None,
            reason: SuppressionReason::Erased,
            note: String::new(),
            since_at: self.now(),
        }))
        .tell(self.core.event(
            found.user_id,
            EventKind::OptedOut {
                lead_id: None,
                reason: SuppressionReason::Erased,
            },
        ));
        self.commit_repeatable(set, WriteClass::Api).await?;
        Ok(())
    }

    /// Everything that is kept of one person.
    ///
    /// # Errors
    /// As [`opt_out`](Self::opt_out).
    pub async fn export_person(&self, scope: &RequestScope, person: &Person) -> Result<PersonExport, HandleError> {
        let found = self.find(scope, person).await?;
        let store = &self.core.store;
        let mut export = PersonExport {
            phone: found.phone,
            leads: Vec::new(),
            messages: Vec::new(),
            suppression: store
                .suppressed(found.user_id, &[found.person])
                .await?
                .into_iter()
                .next(),
            complete: true,
            exported_at: self.now(),
        };
        let filter = LeadFilter {
            phone: Some(found.phone),
            ..LeadFilter::default()
        };
        let mut request = Some(PageRequest::first(crate::store::PAGE_MAX));
        for _ in 0..EXPORT_PAGES_MAX {
            let Some(asked) = request.take() else { break };
            let page = store.leads(scope, &filter, &asked).await?;
            export.leads.extend(page.rows);
            request = page.next.map(|next| PageRequest::after(next, crate::store::PAGE_MAX));
        }
        export.complete &= request.is_none();
        let filter = MessageFilter {
            person: Some(found.person),
            with_superseded: true,
            ..MessageFilter::default()
        };
        let mut request = Some(PageRequest::first(crate::store::PAGE_MAX));
        for _ in 0..EXPORT_PAGES_MAX {
            let Some(asked) = request.take() else { break };
            let page = store.messages(scope, &filter, &asked).await?;
            export.messages.extend(page.rows);
            request = page.next.map(|next| PageRequest::after(next, crate::store::PAGE_MAX));
        }
        export.complete &= request.is_none();
        Ok(export)
    }

    async fn find(&self, scope: &RequestScope, person: &Person) -> Result<Found, HandleError> {
        let user_id = Self::owner(scope, "person")?;
        let (lead_id, phone) = match person {
            Person::Lead(id) => {
                let lead = self.core.store.lead(scope, *id).await?;
                (Some(lead.id), lead.phone)
            }
            Person::Phone(text) => {
                let region = self.settings(user_id).await?.region;
                let mut problems = Problems::default();
                match problems.parsed("phone", Phone::parse(text, &region)) {
                    Some(phone) => (self.lead_of(scope, phone).await?, phone),
                    None => return Err(problems.into_errors().into()),
                }
            }
        };
        Ok(Found {
            user_id,
            lead_id,
            phone,
            person: self.person(user_id, &phone),
        })
    }

    /// One lead of a number, if there is any.
    pub(super) async fn lead_of(&self, scope: &RequestScope, phone: Phone) -> Result<Option<LeadId>, HandleError> {
        let filter = LeadFilter {
            phone: Some(phone),
            ..LeadFilter::default()
        };
        let page = self.core.store.leads(scope, &filter, &PageRequest::first(1)).await?;
        Ok(page.rows.first().map(|lead| lead.id))
    }
}
