//! Leads and their exact words.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use async_trait::async_trait;
use sqlx::postgres::PgConnection;
use sqlx::{Postgres, QueryBuilder};
use uuid::Uuid;
use wa_core::domain::access::RequestScope;
use wa_core::domain::audience::{AudienceLead, TargetFilter};
use wa_core::domain::lead::{Consent, Lead, LeadIdentity, TargetStatus};
use wa_core::domain::phone::Phone;
use wa_core::domain::token::{Token, TokenSet};
use wa_core::id::{DeviceId, LeadId, UserId};
use wa_core::store::{
    LeadFilter, LeadInsert, LeadStore, OnDuplicate, PAGE_MAX, Page, PageRequest, StoreError, StoreErrorKind,
};
use wa_core::time::Timestamp;

use crate::PostgresStore;
use crate::connections::Line;
use crate::devices::{folded, live_device};
use crate::error::{Done, Fail};
use crate::insert::{Binds, Bound, Gathered, gather, insert, query, run_over};
use crate::row::{Columns, custom_json, device_list, int, keys, read_all, uuid};

macro_rules! lead {
    ($from:literal) => {
        concat!(
            "SELECT l.id, l.user_id, l.device_id, l.name, l.phone, coalesce(l.niches_spelled, l.niches), l.triggers, l.target_status, l.journey,
                l.pipeline_status, l.custom, l.tags, l.consent_source, l.consent_at, l.last_interaction_at,
                l.created_at, l.updated_at, l.version ",
            $from
        )
    };
}

/// `lead`, by the unique index of ids.
pub(crate) const VISIBLE: &str = lead!(
    "FROM leads l WHERE l.id = $1 AND l.user_id = $2
    AND ($3::uuid[] IS NULL OR l.device_id = ANY ($3))"
);
/// `leads_by_id`, by the unique index of ids, in the order asked.
pub(crate) const BY_ID: &str = lead!(
    "FROM unnest($1::uuid[]) WITH ORDINALITY AS j (value, key) JOIN leads l ON l.id = j.value WHERE l.user_id = $2 ORDER BY j.key"
);
/// `lead_by_identity`, `commit`: by `leads_identity`, with the place in the list.
pub(crate) const BY_IDENTITY: &str = lead!(
    ", j.key FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::text[])
        WITH ORDINALITY AS j (user_id, phone, device_id, niches, key)
    JOIN leads l ON l.user_id = j.user_id AND l.phone = j.phone
        AND coalesce(l.device_id, '00000000-0000-0000-0000-000000000000'::uuid) = j.device_id
        AND md5(l.niches) = md5(j.niches) AND l.niches = j.niches"
);
/// `niches` of a user, by the primary key of words, which is in the order of leads, each in the spelling of the oldest.
pub(crate) const NICHES: &str = "
    SELECT coalesce((array_agg(spelling ORDER BY lead_id))[1], token), count(*) FROM lead_tokens
    WHERE user_id = $1 AND kind = 1 GROUP BY token ORDER BY token LIMIT $2";
/// `niches` of some devices, by the primary key of words and the ids of leads.
pub(crate) const NICHES_OF_DEVICES: &str = "
    SELECT coalesce((array_agg(t.spelling ORDER BY t.lead_id))[1], t.token), count(*) FROM lead_tokens t JOIN leads l ON l.id = t.lead_id
    WHERE t.user_id = $1 AND t.kind = 1 AND l.user_id = $1 AND l.device_id = ANY ($2::uuid[])
    GROUP BY t.token ORDER BY t.token LIMIT $3";

/// `commit`: one lead, by the unique index of ids.
pub(crate) const ONE: &str = lead!("FROM leads l WHERE l.id = $1 AND l.user_id = $2");
/// `commit`: leads with a number, by `leads_identity`.
pub(crate) const WITH_PHONE: &str = lead!("FROM leads l WHERE l.user_id = $1 AND l.phone = $2 ORDER BY l.id");
/// `commit`: replaces a lead, by the unique index of ids.
pub(crate) const UPDATE: &str = "
    UPDATE leads SET device_id = $1, name = $2, name_key = $3, phone = $4, niches = $5, niches_spelled = $6, triggers = $7, tags = $8,
        target_status = $9, journey = $10, pipeline_status = $11, custom = $12, consent_source = $13, consent_at = $14,
        last_interaction_at = $15, created_at = $16, updated_at = $17, version = $18
    WHERE id = $19 AND user_id = $20";
/// `commit`: leaves the mark for `leads_to_match`. By the unique index of ids.
pub(crate) const MARK: &str = "UPDATE leads SET to_match = true WHERE id = $1";
/// `Matched`: takes it away. By the unique index of ids.
pub(crate) const MATCHED: &str = "
    UPDATE leads SET to_match = false FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS v (id, user_id, version)
    WHERE leads.id = v.id AND leads.user_id = v.user_id AND leads.version = v.version AND leads.to_match";
/// `leads_to_match`, by the partial index of that name.
pub(crate) const TO_MATCH: &str = lead!("FROM leads l WHERE l.to_match ORDER BY l.id LIMIT $1");
/// `commit`: the words a lead gets, by the primary key.
pub(crate) const ADD_TOKENS: &str = "
    INSERT INTO lead_tokens (user_id, lead_id, kind, token, spelling)
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::text[], $5::text[])
    ON CONFLICT (user_id, kind, token, lead_id) DO UPDATE SET spelling = excluded.spelling";
/// `commit`: the words a lead loses, by the primary key.
pub(crate) const REMOVE_TOKENS: &str = "
    DELETE FROM lead_tokens t USING unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::text[]) AS v (user_id, lead_id, kind, token)
    WHERE t.user_id = v.user_id AND t.kind = v.kind AND t.token = v.token AND t.lead_id = v.lead_id";
/// `commit`: by the unique index of ids.
pub(crate) const DELETE: &str = "DELETE FROM leads WHERE id = $1";
/// `Replied`: by `leads_identity`.
pub(crate) const TOUCH: &str = "
    UPDATE leads SET last_interaction_at = greatest(last_interaction_at, $1)
    WHERE user_id = $2 AND phone = $3";

pub(crate) static INSERT: LazyLock<String> = LazyLock::new(|| {
    insert(
        "INSERT INTO leads (device_id, name, name_key, phone, niches, niches_spelled, triggers, tags, target_status, journey,
            pipeline_status, custom, consent_source, consent_at, last_interaction_at, created_at, updated_at, version,
            id, user_id, to_match)",
        "utttttttittttiiiiiuub",
        "",
    )
});

/// The kinds of words; the numbers of the table.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Kind {
    Niche = 1,
    Trigger = 2,
    Tag = 3,
}

/// Reads the columns of a lead.
pub(crate) fn read_lead(c: &mut Columns<'_>) -> Done<Lead> {
    let read_set = |c: &mut Columns<'_>, column| -> Done<TokenSet> { c.parse(column) };
    let mut lead = Lead {
        id: c.key("id")?,
        user_id: c.key("user_id")?,
        device_id: c.opt_key("device_id")?,
        name: c.text()?,
        phone: Phone::from_e164(c.str()?).map_err(|_| Fail::Unreadable("phone"))?,
        niches: read_set(c, "niches")?,
        triggers: read_set(c, "triggers")?,
        target_status: c.kind("target_status", TargetStatus::from_u8)?,
        journey: c.text()?,
        pipeline_status: c.text()?,
        custom: c.opt_json("custom")?.unwrap_or_default(),
        tags: read_set(c, "tags")?,
        consent: None,
        last_interaction_at: None,
        created_at: Timestamp::EPOCH,
        updated_at: Timestamp::EPOCH,
        version: 0,
    };
    let (source, given_at) = (c.opt_text()?, c.opt_at()?);
    if let (Some(source), Some(given_at)) = (source, given_at) {
        lead.consent = Some(Consent { source, given_at });
    }
    lead.last_interaction_at = c.opt_at()?;
    lead.created_at = c.at()?;
    lead.updated_at = c.at()?;
    lead.version = c.int()?;
    Ok(lead)
}

fn bind<B: Binds>(to: B, lead: &Lead) -> B {
    to.bind(lead.device_id.as_ref())
        .bind(lead.name.clone())
        .bind(folded(&lead.name))
        .bind(lead.phone.as_e164().to_owned())
        .bind(lead.niches.key())
        .bind(spelled(&lead.niches.to_string(), &lead.niches.key()))
        .bind(lead.triggers.to_string())
        .bind(lead.tags.to_string())
        .bind(lead.target_status as u8)
        .bind(lead.journey.clone())
        .bind(lead.pipeline_status.clone())
        .bind(custom_json(&lead.custom))
        .bind(lead.consent.as_ref().map(|consent| consent.source.clone()))
        .bind(lead.consent.as_ref().map(|consent| consent.given_at.as_millis()))
        .bind(lead.last_interaction_at.map(Timestamp::as_millis))
        .bind(lead.created_at.as_millis())
        .bind(lead.updated_at.as_millis())
        .bind(lead.version)
        .bind(&lead.id)
        .bind(&lead.user_id)
}

fn bind_token(row: Gathered, (lead, (kind, token, spelling)): (&Lead, &(u8, &str, Option<String>))) -> Gathered {
    row.bind(&lead.user_id)
        .bind(&lead.id)
        .bind(*kind)
        .bind((*token).to_owned())
        .bind(spelling.clone())
}

/// How words are spelled, if not as they are folded.
fn spelled(spelling: &str, folded: &str) -> Option<String> {
    (spelling != folded).then(|| spelling.to_owned())
}

/// The words of a lead: kind, folded form and spelling.
fn tokens(lead: &Lead) -> HashSet<(u8, &str, Option<String>)> {
    let sets = [
        (Kind::Niche, &lead.niches),
        (Kind::Trigger, &lead.triggers),
        (Kind::Tag, &lead.tags),
    ];
    sets.into_iter()
        .flat_map(|(kind, set)| {
            set.iter().map(move |token| {
                let word = token.as_str();
                (kind as u8, word, spelled(token.spelling(), word))
            })
        })
        .collect()
}

/// The leads with these identities, by their place in the list.
async fn by_identity(connection: &mut impl Line, identities: &[LeadIdentity]) -> Done<Vec<(usize, Lead)>> {
    if identities.is_empty() {
        return Ok(Vec::new());
    }
    let list = gather(identities, |row, identity| {
        row.bind(&identity.user_id)
            .bind(identity.phone.as_e164().to_owned())
            .bind(identity.device_id.as_ref().map_or(Uuid::nil(), uuid))
            .bind(identity.niches.clone())
    });
    let rows = list.into_statement(BY_IDENTITY).fetch_all(connection).await?;
    read_all(&rows, |c| {
        let lead = read_lead(c)?;
        Ok((c.place()?, lead))
    })
}

/// Whether a lead that gains something is marked to be matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Marking {
    /// It is.
    Gained,
    /// Who changes it matches it too.
    Never,
}

/// Writes a lead in the place of another.
async fn put_lead(connection: &mut PgConnection, old: &Lead, new: &Lead, marking: Marking) -> Done<()> {
    bind(query(UPDATE), new).execute(connection).await?;
    let (had, has) = (tokens(old), tokens(new));
    let kept: HashSet<(u8, &str)> = has.iter().map(|(kind, word, _)| (*kind, *word)).collect();
    let lost = had.iter().filter(|(kind, word, _)| !kept.contains(&(*kind, *word)));
    // Another spelling is no other word.
    let gained = has.iter().any(|(kind, word, _)| {
        *kind != Kind::Tag as u8 && !had.iter().any(|(other, known, _)| (other, known) == (kind, word))
    });
    let anew = gained || old.target_status != new.target_status;
    if anew && marking == Marking::Gained {
        query(MARK).bind(&new.id).execute(connection).await?;
    }
    run_over(connection, REMOVE_TOKENS, lost, |row, (kind, word, _)| {
        row.bind(&new.user_id)
            .bind(&new.id)
            .bind(*kind)
            .bind((*word).to_owned())
    })
    .await?;
    let added = has.difference(&had).map(|word| (new, word));
    run_over(connection, ADD_TOKENS, added, bind_token).await?;
    Ok(())
}

/// A lead that gets triggers of another; a full set takes no more. Says whether it got any.
fn merge(lead: &mut Lead, from: &Lead, now: Timestamp) -> bool {
    let before = lead.triggers.len();
    for trigger in &from.triggers {
        if lead.triggers.insert(trigger.clone()).is_err() {
            break;
        }
    }
    let added = lead.triggers.len() > before;
    if added {
        lead.version += 1;
        lead.updated_at = now;
    }
    added
}

/// Adds leads in order, a page in few statements.
pub(crate) async fn insert_leads(
    connection: &mut PgConnection,
    leads: Vec<(Lead, OnDuplicate)>,
    now: Timestamp,
) -> Done<Vec<LeadInsert>> {
    let devices: HashSet<(UserId, DeviceId)> = leads
        .iter()
        .filter_map(|(lead, _)| Some((lead.user_id, lead.device_id?)))
        .collect();
    for (user, device) in devices {
        live_device(connection, user, device).await?;
    }
    let identities: Vec<LeadIdentity> = leads.iter().map(|(lead, _)| lead.identity()).collect();
    // A lead that was there or is added by this page, and what it was before the page if it was there.
    let mut known: HashMap<LeadIdentity, (Lead, Option<Lead>)> = HashMap::new();
    for (at, lead) in by_identity(connection, &identities).await? {
        known.insert(identities[at].clone(), (lead.clone(), Some(lead)));
    }
    let mut answers = Vec::with_capacity(leads.len());
    let mut added = Vec::new();
    for ((lead, on_duplicate), identity) in leads.into_iter().zip(identities) {
        match known.get_mut(&identity) {
            None => {
                answers.push(LeadInsert::Inserted(lead.id));
                added.push(identity.clone());
                known.insert(identity, (lead, None));
            }
            Some(_) if on_duplicate == OnDuplicate::Refuse => return Err(Fail::conflict("lead")),
            Some((existing, _)) => answers.push(LeadInsert::Duplicate {
                existing: existing.id,
                merged: merge(existing, &lead, now),
            }),
        }
    }
    let new: Vec<Lead> = added
        .iter()
        .filter_map(|identity| known.remove(identity))
        .map(|(lead, _)| lead)
        .collect();
    run_over(connection, INSERT.as_str(), &new, |row, lead| {
        bind(row, lead).bind(!(lead.niches.is_empty() && lead.triggers.is_empty()))
    })
    .await?;
    let words: Vec<_> = new
        .iter()
        .flat_map(|lead| tokens(lead).into_iter().map(move |word| (lead, word)))
        .collect();
    run_over(
        connection,
        ADD_TOKENS,
        words.iter().map(|(lead, word)| (*lead, word)),
        bind_token,
    )
    .await?;
    for (lead, before) in known.into_values() {
        if let Some(before) = before.filter(|before| before.version != lead.version) {
            put_lead(connection, &before, &lead, Marking::Gained).await?;
        }
    }
    Ok(answers)
}

async fn lead_of(connection: &mut PgConnection, user: UserId, id: LeadId) -> Done<Lead> {
    let row = query(ONE)
        .bind(&id)
        .bind(&user)
        .fetch_optional(connection)
        .await?
        .ok_or(Fail::not_found("lead"))?;
    read_lead(&mut Columns::of(&row))
}

/// Replaces a lead; a taken identity is refused by the unique index. Says whether its device changed.
pub(crate) async fn update_lead(connection: &mut PgConnection, lead: Lead) -> Done<bool> {
    let old = lead_of(connection, lead.user_id, lead.id).await?;
    if old.version != lead.version {
        return Err(Fail::conflict("lead"));
    }
    let new = Lead {
        created_at: old.created_at,
        last_interaction_at: old.last_interaction_at.max(lead.last_interaction_at),
        version: old.version + 1,
        ..lead
    };
    if let Some(device) = new.device_id.filter(|_| new.device_id != old.device_id) {
        live_device(connection, new.user_id, device).await?;
    }
    put_lead(connection, &old, &new, Marking::Gained).await?;
    Ok(new.device_id != old.device_id)
}

/// Removes one trigger of a lead and adds another; nothing happens to a lead that is gone.
pub(crate) async fn replace_trigger(
    connection: &mut PgConnection,
    (user, id): (UserId, LeadId),
    (remove, add): (Option<Token>, Option<Token>),
    marking: Marking,
    now: Timestamp,
) -> Done<()> {
    let old = match lead_of(connection, user, id).await {
        Err(Fail::Refused(StoreErrorKind::NotFound, _)) => return Ok(()),
        found => found?,
    };
    let mut new = old.clone();
    if let Some(token) = remove {
        new.triggers.remove(&token);
    }
    if let Some(token) = add {
        // A full set takes no more.
        let _ = new.triggers.insert(token);
    }
    if new.triggers == old.triggers {
        return Ok(());
    }
    new.version += 1;
    new.updated_at = now;
    put_lead(connection, &old, &new, marking).await
}

/// Clears the marks of leads that were matched in these versions.
pub(crate) async fn matched(connection: &mut PgConnection, leads: &[(UserId, LeadId, i64)]) -> Done<()> {
    run_over(connection, MATCHED, leads, |row, (user, lead, version)| {
        row.bind(lead).bind(user).bind(*version)
    })
    .await?;
    Ok(())
}

async fn remove(connection: &mut PgConnection, lead: &Lead) -> Done<()> {
    run_over(connection, REMOVE_TOKENS, tokens(lead), |row, (kind, word, _)| {
        row.bind(&lead.user_id).bind(&lead.id).bind(kind).bind(word.to_owned())
    })
    .await?;
    query(DELETE).bind(&lead.id).execute(connection).await?;
    Ok(())
}

/// Deletes a lead.
pub(crate) async fn delete_lead(connection: &mut PgConnection, user: UserId, id: LeadId) -> Done<()> {
    let lead = lead_of(connection, user, id).await?;
    remove(connection, &lead).await
}

/// Deletes the leads of a user with a number.
pub(crate) async fn erase_leads(connection: &mut PgConnection, user: UserId, phone: Phone) -> Done<()> {
    let rows = query(WITH_PHONE)
        .bind(&user)
        .bind(phone.as_e164().to_owned())
        .fetch_all(connection)
        .await?;
    for lead in read_all(&rows, read_lead)? {
        remove(connection, &lead).await?;
    }
    Ok(())
}

/// Records that the leads of a user with a number wrote.
pub(crate) async fn touch_leads(connection: &mut PgConnection, user: UserId, phone: Phone, at: Timestamp) -> Done<()> {
    query(TOUCH)
        .bind(at.as_millis())
        .bind(&user)
        .bind(phone.as_e164().to_owned())
        .execute(connection)
        .await?;
    Ok(())
}

/// Which leads are wanted, of one user, by id.
pub(crate) struct Wanted<'a> {
    pub(crate) user_id: UserId,
    pub(crate) filter: &'a LeadFilter,
    /// The devices to which a request is limited.
    pub(crate) devices: Option<Vec<Uuid>>,
    /// Created at this instant at the latest.
    pub(crate) created_until: Option<Timestamp>,
    pub(crate) after: Option<LeadId>,
}

impl Wanted<'_> {
    fn token_kinds(&self) -> Vec<(Kind, &Token)> {
        let kinds = [
            (Kind::Niche, &self.filter.niche),
            (Kind::Trigger, &self.filter.trigger),
            (Kind::Tag, &self.filter.tag),
        ];
        kinds
            .into_iter()
            .filter_map(|(kind, token)| Some((kind, token.as_ref()?)))
            .collect()
    }

    /// Everything from FROM on, but order and limit: a number or a word leads the way where one is asked for, so that no list
    /// reads more than the rows of its user, its number or its word.
    fn push(&self, sql: &mut QueryBuilder<Postgres>) {
        let user = uuid(&self.user_id);
        let mut words = self.token_kinds().into_iter();
        let by_word = if self.filter.phone.is_none() {
            words.next()
        } else {
            None
        };
        let key = if by_word.is_some() { "t.lead_id" } else { "l.id" };
        if let Some((kind, token)) = by_word {
            sql.push("FROM lead_tokens t JOIN leads l ON l.id = t.lead_id WHERE t.user_id = ");
            sql.push_bind(user)
                .push(" AND t.kind = ")
                .push_bind(i64::from(kind as u8));
            sql.push(" AND t.token = ").push_bind(token.as_str().to_owned());
            sql.push(" AND l.user_id = ").push_bind(user);
        } else {
            sql.push("FROM leads l WHERE l.user_id = ").push_bind(user);
        }
        if let Some(after) = &self.after {
            sql.push(" AND ").push(key).push(" > ").push_bind(uuid(after));
        }
        if let Some(phone) = self.filter.phone {
            sql.push(" AND l.phone = ").push_bind(phone.as_e164().to_owned());
        }
        if let Some(device) = &self.filter.device_id {
            sql.push(" AND l.device_id = ").push_bind(uuid(device));
        }
        if self.filter.without_device {
            sql.push(" AND l.device_id IS NULL");
        }
        for (kind, token) in words {
            sql.push(" AND EXISTS (SELECT 1 FROM lead_tokens x WHERE x.user_id = ");
            sql.push_bind(user)
                .push(" AND x.kind = ")
                .push_bind(i64::from(kind as u8));
            sql.push(" AND x.token = ").push_bind(token.as_str().to_owned());
            sql.push(" AND x.lead_id = l.id)");
        }
        if self.filter.target != TargetFilter::All {
            sql.push(" AND l.target_status = ")
                .push_bind(i64::from(self.filter.target as u8));
        }
        if let Some(text) = self.filter.search.as_deref().map(folded) {
            sql.push(" AND (strpos(l.name_key, ").push_bind(text.clone());
            sql.push(") > 0 OR strpos(l.phone, ").push_bind(text).push(") > 0)");
        }
        if let Some(devices) = &self.devices {
            sql.push(" AND l.device_id = ANY (");
            sql.push_bind(devices.clone()).push(")");
        }
        if let Some(until) = self.created_until {
            sql.push(" AND l.created_at <= ").push_bind(until.as_millis());
        }
    }

    fn order(&self) -> &'static str {
        if self.filter.phone.is_none() && !self.token_kinds().is_empty() {
            " ORDER BY t.lead_id LIMIT "
        } else {
            " ORDER BY l.id LIMIT "
        }
    }

    /// The statement of a page.
    pub(crate) fn rows(&self, limit: u64) -> QueryBuilder<Postgres> {
        let mut sql = QueryBuilder::new(lead!(""));
        self.push(&mut sql);
        sql.push(self.order()).push_bind(int(limit));
        sql
    }

    /// The statement of a page of members of an audience, gathered in a list.
    pub(crate) fn members(&self, limit: u64) -> QueryBuilder<Postgres> {
        let mut sql = QueryBuilder::new("SELECT l.id, l.device_id, l.phone, l.name ");
        self.push(&mut sql);
        sql.push(self.order()).push_bind(int(limit));
        sql
    }

    /// The statement that counts.
    pub(crate) fn count(&self) -> QueryBuilder<Postgres> {
        let mut sql = QueryBuilder::new("SELECT count(*) ");
        self.push(&mut sql);
        sql
    }

    pub(crate) async fn read(&self, connection: &mut impl Line, limit: u64) -> Done<Vec<Lead>> {
        let rows = Bound::of(self.rows(limit).build()).fetch_all(connection).await?;
        read_all(&rows, read_lead)
    }

    pub(crate) async fn read_members(&self, connection: &mut impl Line, limit: u64) -> Done<Vec<AudienceLead>> {
        let rows = Bound::of(self.members(limit).build()).fetch_all(connection).await?;
        read_all(&rows, |c| {
            Ok(AudienceLead {
                id: c.key("id")?,
                device_id: c.opt_key("device_id")?,
                phone: Phone::from_e164(c.str()?).map_err(|_| Fail::Unreadable("phone"))?,
                name: c.text()?,
            })
        })
    }

    pub(crate) async fn read_count(&self, connection: &mut impl Line) -> Done<u64> {
        let count = Bound::of(self.count().build()).number(connection).await?;
        Ok(u64::try_from(count.unwrap_or(0)).unwrap_or(0))
    }
}

impl PostgresStore {
    async fn find_lead(&self, scope: &RequestScope, id: LeadId) -> Done<Lead> {
        let mut reader = self.reader().await?;
        let row = query(VISIBLE)
            .bind(&id)
            .bind(&scope.user_id)
            .bind(device_list(scope))
            .fetch_optional(&mut reader)
            .await?
            .ok_or(Fail::not_found("lead"))?;
        read_lead(&mut Columns::of(&row))
    }

    async fn count_niches(&self, scope: &RequestScope) -> Done<Vec<(Token, u64)>> {
        let mut reader = self.reader().await?;
        let user = uuid(&scope.user_id);
        let statement = match device_list(scope) {
            None => query(NICHES).bind(user),
            Some(devices) => query(NICHES_OF_DEVICES).bind(user).bind(devices),
        };
        let rows = statement.bind(PAGE_MAX).fetch_all(&mut reader).await?;
        let mut niches = read_all(&rows, |c| Ok((c.parse::<Token>("token")?, c.count()?)))?;
        niches.sort_unstable();
        Ok(niches)
    }
}

#[async_trait]
impl LeadStore for PostgresStore {
    async fn lead(&self, scope: &RequestScope, id: LeadId) -> Result<Lead, StoreError> {
        let found = self.find_lead(scope, id).await;
        found.map_err(|fail| fail.of("lead", "lead"))
    }

    async fn leads(
        &self,
        scope: &RequestScope,
        filter: &LeadFilter,
        page: &PageRequest<LeadId>,
    ) -> Result<Page<Lead, LeadId>, StoreError> {
        let limit = page.clamped();
        let read = async {
            let mut reader = self.reader().await?;
            let wanted = Wanted {
                user_id: scope.user_id,
                filter,
                devices: device_list(scope),
                created_until: None,
                after: page.after,
            };
            wanted.read(&mut reader, limit as u64 + 1).await
        };
        let rows = read.await.map_err(|fail: Fail| fail.of("leads", "lead"))?;
        Ok(Page::cut(rows, limit, |lead: &Lead| lead.id))
    }

    async fn lead_count(&self, scope: &RequestScope, filter: &LeadFilter) -> Result<u64, StoreError> {
        let read = async {
            let mut reader = self.reader().await?;
            let wanted = Wanted {
                user_id: scope.user_id,
                filter,
                devices: device_list(scope),
                created_until: None,
                after: None,
            };
            wanted.read_count(&mut reader).await
        };
        read.await.map_err(|fail: Fail| fail.of("lead_count", "lead"))
    }

    async fn leads_by_id(&self, user: UserId, ids: &[LeadId]) -> Result<Vec<Lead>, StoreError> {
        let read = async {
            let mut reader = self.reader().await?;
            let statement = query(BY_ID).bind(keys(ids)).bind(&user);
            read_all(&statement.fetch_all(&mut reader).await?, read_lead)
        };
        read.await.map_err(|fail: Fail| fail.of("leads_by_id", "lead"))
    }

    async fn lead_by_identity(&self, identity: &LeadIdentity) -> Result<Option<Lead>, StoreError> {
        let read = async {
            let mut reader = self.reader().await?;
            let found = by_identity(&mut reader, std::slice::from_ref(identity)).await?;
            Ok(found.into_iter().next().map(|(_, lead)| lead))
        };
        read.await.map_err(|fail: Fail| fail.of("lead_by_identity", "lead"))
    }

    async fn niches(&self, scope: &RequestScope) -> Result<Vec<(Token, u64)>, StoreError> {
        let found = self.count_niches(scope).await;
        found.map_err(|fail| fail.of("niches", "lead"))
    }
}
