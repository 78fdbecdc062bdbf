//! Leads: created one by one, in bulk and by webhook, edited, deleted.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};

use super::{BATCH_MAX, COMMIT_TRIES_MAX, Handle, HandleError};
use crate::domain::access::RequestScope;
use crate::domain::lead::Lead;
use crate::event::EventKind;
use crate::id::{DeviceId, LeadId, UserId};
use crate::plan::lead_request::{edited_lead, new_lead};
use crate::plan::{FieldCode, FieldError, LeadBulkEdit, LeadDraft, LeadEdit, Problems, WebhookLead};
use crate::store::{Change, ChangeSet, LeadInsert, OnDuplicate, WriteClass};

/// What became of a lead that was to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeadCreated {
    /// It is new.
    Created(Lead),
    /// One of the same device, number and niches was there and stays.
    Existing {
        /// The one that was there, with the triggers that were added.
        lead: Lead,
        /// Whether triggers were added to it.
        merged: bool,
    },
}

impl LeadCreated {
    /// The lead, new or not.
    #[must_use]
    pub const fn lead(&self) -> &Lead {
        match self {
            Self::Created(lead) | Self::Existing { lead, .. } => lead,
        }
    }
}

/// What became of one row of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeadRow {
    /// It is a new lead.
    Created(LeadId),
    /// It was there, or stands twice in the batch.
    Duplicate {
        /// The one that was there.
        existing: LeadId,
        /// Whether triggers were added to it.
        merged: bool,
    },
    /// It cannot be taken.
    Refused(Vec<FieldError>),
}

/// What became of one lead of a change to many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeadRowChange {
    /// It was changed.
    Done,
    /// There was nothing to change.
    Unchanged,
    /// There is no such lead within the scope.
    NotFound,
    /// It was changed by somebody else at the same time, or would become the same as another.
    Conflict,
    /// It cannot be changed so.
    Refused(Vec<FieldError>),
}

impl Handle {
    /// Creates a lead.
    ///
    /// # Errors
    /// `Invalid` for fields; with [`OnDuplicate::Refuse`], `Conflict` when there is one of the same device, number and niches.
    pub async fn create_lead(
        &self,
        scope: &RequestScope,
        draft: &LeadDraft,
        on_duplicate: OnDuplicate,
    ) -> Result<LeadCreated, HandleError> {
        let now = self.now();
        let region = self.settings(scope.user_id).await?.region;
        let mut problems = Problems::default();
        self.check_lead_device(scope, draft.device_id, &mut problems).await?;
        let id = LeadId::new(&self.core.ids, now);
        match new_lead(draft, id, scope.user_id, region, now) {
            Ok(lead) => self.insert_lead(problems.give(lead)?, on_duplicate).await,
            Err(errors) => {
                problems.extend(errors);
                Err(problems.into_errors().into())
            }
        }
    }

    /// Creates a lead that a webhook sent, without a login: user and device must belong together. A known one is answered with
    /// the lead that is there, and gets the triggers that it lacks; so a repeated call is harmless.
    ///
    /// # Errors
    /// `Invalid` for fields; `NotFound` for every mismatch of user and device.
    pub async fn create_lead_by_webhook(&self, sent: &WebhookLead) -> Result<LeadCreated, HandleError> {
        let (user_id, draft) = sent.read()?;
        let scope = RequestScope::user(user_id);
        if let Some(device) = draft.device_id {
            self.core.store.device(&scope, device).await?;
        }
        let now = self.now();
        let region = self.settings(user_id).await?.region;
        let id = LeadId::new(&self.core.ids, now);
        let lead = new_lead(&draft, id, user_id, region, now)?;
        self.insert_lead(lead, OnDuplicate::MergeTriggers).await
    }

    /// Creates up to [`BATCH_MAX`] leads in one commit, as an import reads them: what is valid goes in, the rest is told row by
    /// row. Known leads get the triggers that they lack, so that the same batch again adds nothing. No event is told per lead.
    ///
    /// # Errors
    /// `Invalid` for a batch that is too large.
    pub async fn create_leads(&self, scope: &RequestScope, drafts: &[LeadDraft]) -> Result<Vec<LeadRow>, HandleError> {
        check_batch("leads", drafts.len())?;
        let now = self.now();
        let region = self.settings(scope.user_id).await?.region;
        let mut known: BTreeMap<Option<DeviceId>, Vec<FieldError>> = BTreeMap::new();
        let mut rows = Vec::with_capacity(drafts.len());
        let mut set = ChangeSet::default();
        for draft in drafts {
            let mut errors = match known.entry(draft.device_id) {
                Entry::Occupied(checked) => checked.get().clone(),
                Entry::Vacant(place) => {
                    let mut problems = Problems::default();
                    self.check_lead_device(scope, draft.device_id, &mut problems).await?;
                    place.insert(problems.into_errors()).clone()
                }
            };
            match new_lead(draft, LeadId::new(&self.core.ids, now), scope.user_id, region, now) {
                Ok(lead) if errors.is_empty() => {
                    rows.push(Err(lead.id));
                    set = set.and(Change::InsertLead {
                        lead: Box::new(lead),
                        on_duplicate: OnDuplicate::MergeTriggers,
                    });
                }
                Ok(_) => rows.push(Ok(LeadRow::Refused(errors))),
                Err(more) => {
                    errors.extend(more);
                    rows.push(Ok(LeadRow::Refused(errors)));
                }
            }
        }
        let inserted = match set.is_empty() {
            true => Vec::new(),
            false => self.commit_repeatable(set, WriteClass::Bulk).await?.leads,
        };
        let mut inserted = inserted.into_iter();
        let rows = rows.into_iter().map(|row| {
            row.unwrap_or_else(|own| match inserted.next() {
                Some(LeadInsert::Inserted(id)) => LeadRow::Created(id),
                // A commit whose first answer was lost finds its own leads.
                Some(LeadInsert::Duplicate { existing, .. }) if existing == own => LeadRow::Created(own),
                Some(LeadInsert::Duplicate { existing, merged }) => LeadRow::Duplicate { existing, merged },
                None => LeadRow::Created(own),
            })
        });
        Ok(rows.collect())
    }

    /// Edits a lead.
    ///
    /// # Errors
    /// `Invalid` for fields; `Conflict` when it was changed in the meantime or would become the same as another.
    pub async fn edit_lead(&self, scope: &RequestScope, id: LeadId, edit: &LeadEdit) -> Result<Lead, HandleError> {
        let before = self.core.store.lead(scope, id).await?;
        if before.version != edit.version {
            return Err(HandleError::stale("lead", edit.version, before.version));
        }
        let region = self.settings(scope.user_id).await?.region;
        let mut problems = Problems::default();
        if edit.draft.device_id != before.device_id {
            self.check_lead_device(scope, edit.draft.device_id, &mut problems)
                .await?;
        }
        let lead = match edited_lead(&edit.draft, &before, region, self.now()) {
            Ok(lead) => problems.give(lead)?,
            Err(errors) => {
                problems.extend(errors);
                return Err(problems.into_errors().into());
            }
        };
        let update = ChangeSet::one(Change::UpdateLead(Box::new(lead.clone())));
        match self.commit(update, WriteClass::Api).await {
            Ok(_) => Ok(self.core.store.lead(scope, id).await?),
            Err(error) if error.is_conflict() => {
                let current = self.core.store.lead(scope, id).await?;
                Err(if current.version == lead.version {
                    HandleError::conflict("lead", "the user has another lead of this device, number and niche")
                } else {
                    HandleError::stale("lead", lead.version, current.version)
                })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes a lead. Its open messages are skipped when they are looked at.
    ///
    /// # Errors
    /// `NotFound` when there is no such lead.
    pub async fn delete_lead(&self, scope: &RequestScope, id: LeadId) -> Result<(), HandleError> {
        let lead = self.core.store.lead(scope, id).await?;
        let delete = Change::DeleteLead {
            user_id: lead.user_id,
            lead_id: id,
        };
        self.commit(ChangeSet::one(delete), WriteClass::Api).await?;
        Ok(())
    }

    /// Changes up to [`BATCH_MAX`] leads alike; one answer per id, in the order given.
    ///
    /// # Errors
    /// `Invalid` for fields or a batch that is too large.
    pub async fn edit_leads(
        &self,
        scope: &RequestScope,
        ids: &[LeadId],
        edit: &LeadBulkEdit,
    ) -> Result<Vec<(LeadId, LeadRowChange)>, HandleError> {
        check_batch("ids", ids.len())?;
        let patch = edit.check()?;
        let mut problems = Problems::default();
        if edit.device_id.is_some() {
            self.check_lead_device(scope, patch.device(), &mut problems).await?;
        }
        problems.give(())?;
        let found = self.leads_within(scope, ids).await?;
        let now = self.now();
        let mut outcome = BTreeMap::new();
        let mut changed = Vec::new();
        for id in ids.iter().copied().collect::<BTreeSet<_>>() {
            let result = match found.get(&id).map(|lead| patch.apply(lead, now)) {
                None => LeadRowChange::NotFound,
                Some(Ok(None)) => LeadRowChange::Unchanged,
                Some(Ok(Some(lead))) => {
                    changed.push(Change::UpdateLead(Box::new(lead)));
                    LeadRowChange::Done
                }
                Some(Err(errors)) => LeadRowChange::Refused(errors),
            };
            outcome.insert(id, result);
        }
        self.commit_each(changed, &mut outcome).await?;
        Ok(ids
            .iter()
            .filter_map(|id| Some((*id, outcome.get(id)?.clone())))
            .collect())
    }

    /// Deletes up to [`BATCH_MAX`] leads; one answer per id, in the order given.
    ///
    /// # Errors
    /// `Invalid` for a batch that is too large.
    pub async fn delete_leads(
        &self,
        scope: &RequestScope,
        ids: &[LeadId],
    ) -> Result<Vec<(LeadId, LeadRowChange)>, HandleError> {
        check_batch("ids", ids.len())?;
        let found = self.leads_within(scope, ids).await?;
        let mut outcome = BTreeMap::new();
        let mut changes = Vec::new();
        for id in ids.iter().copied().collect::<BTreeSet<_>>() {
            if let Some(lead) = found.get(&id) {
                changes.push(Change::DeleteLead {
                    user_id: lead.user_id,
                    lead_id: id,
                });
                outcome.insert(id, LeadRowChange::Done);
            } else {
                outcome.insert(id, LeadRowChange::NotFound);
            }
        }
        self.commit_each(changes, &mut outcome).await?;
        Ok(ids
            .iter()
            .filter_map(|id| Some((*id, outcome.get(id)?.clone())))
            .collect())
    }

    /// Commits changes of single leads together; if one of them fails, each alone, so that it spoils no other.
    async fn commit_each(
        &self,
        changes: Vec<Change>,
        outcome: &mut BTreeMap<LeadId, LeadRowChange>,
    ) -> Result<(), HandleError> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut together = ChangeSet::default();
        together.changes.clone_from(&changes);
        match self.commit(together, WriteClass::Bulk).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_conflict() || error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
        for change in changes {
            let id = match &change {
                Change::UpdateLead(lead) => lead.id,
                Change::DeleteLead { lead_id, .. } => *lead_id,
                _ => continue,
            };
            match self.commit(ChangeSet::one(change), WriteClass::Bulk).await {
                Ok(_) => {}
                Err(error) if error.is_conflict() => drop(outcome.insert(id, LeadRowChange::Conflict)),
                Err(error) if error.is_not_found() => drop(outcome.insert(id, LeadRowChange::NotFound)),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn leads_within(&self, scope: &RequestScope, ids: &[LeadId]) -> Result<BTreeMap<LeadId, Lead>, HandleError> {
        let leads = self.core.store.leads_by_id(scope.user_id, ids).await?;
        let visible = |lead: &Lead| match lead.device_id {
            Some(device) => scope.sees(device),
            None => scope.devices.is_none(),
        };
        let visible = leads.into_iter().filter(visible);
        Ok(visible.map(|lead| (lead.id, lead)).collect())
    }

    async fn check_lead_device(
        &self,
        scope: &RequestScope,
        device: Option<DeviceId>,
        problems: &mut Problems,
    ) -> Result<(), HandleError> {
        match device {
            Some(device) => {
                if let Err(error) = self.device_of_field(scope, "device_id", device).await? {
                    problems.push(error);
                }
            }
            None if scope.devices.is_some() => {
                problems.add(
                    "device_id",
                    FieldCode::Required,
                    "is required: the pool is not within reach",
                );
            }
            None => {}
        }
        Ok(())
    }

    /// Inserts a lead and tells of it only if it is new.
    pub(super) async fn insert_lead(&self, lead: Lead, on_duplicate: OnDuplicate) -> Result<LeadCreated, HandleError> {
        let identity = lead.identity();
        for _ in 0..COMMIT_TRIES_MAX {
            if let Some(existing) = self.core.store.lead_by_identity(&identity).await? {
                // A commit whose answer was lost finds its own lead.
                if existing.id == lead.id {
                    return Ok(LeadCreated::Created(lead));
                }
                return match on_duplicate {
                    OnDuplicate::Refuse => Err(HandleError::conflict(
                        "lead",
                        format!(
                            "the user has this number with this device and niche already: {}",
                            existing.id
                        ),
                    )),
                    OnDuplicate::MergeTriggers => self.merge_lead(lead, existing).await,
                };
            }
            let event = self
                .core
                .event(lead.user_id, EventKind::LeadCreated { lead_id: lead.id });
            let set = ChangeSet::one(Change::InsertLead {
                lead: Box::new(lead.clone()),
                on_duplicate: OnDuplicate::Refuse,
            })
            .tell(event);
            match self.commit_repeatable(set, WriteClass::Api).await {
                Ok(_) => return Ok(LeadCreated::Created(lead)),
                // Another call was quicker.
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(HandleError::conflict(
            "lead",
            "it is being created and deleted at the same time",
        ))
    }

    async fn merge_lead(&self, lead: Lead, existing: Lead) -> Result<LeadCreated, HandleError> {
        let user: UserId = lead.user_id;
        if lead.triggers.iter().all(|token| existing.triggers.contains(token)) {
            return Ok(LeadCreated::Existing {
                lead: existing,
                merged: false,
            });
        }
        let set = ChangeSet::one(Change::InsertLead {
            lead: Box::new(lead),
            on_duplicate: OnDuplicate::MergeTriggers,
        });
        self.commit_repeatable(set, WriteClass::Api).await?;
        let lead = self.core.store.lead(&RequestScope::user(user), existing.id).await?;
        let merged = lead.triggers != existing.triggers;
        Ok(LeadCreated::Existing { lead, merged })
    }
}

pub(super) fn check_batch(field: &'static str, len: usize) -> Result<(), HandleError> {
    if len > BATCH_MAX {
        let expected = format!("must be at most {BATCH_MAX} at a time");
        return Err(FieldError::new(field, FieldCode::TooMany, expected).into());
    }
    Ok(())
}
