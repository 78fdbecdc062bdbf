//! The archive: messages of campaigns that ended long ago, out of the tables and indexes that sending uses.

use sqlx::sqlite::SqliteConnection;
use wa_core::domain::message::MessageScope;
use wa_core::id::{CampaignId, MessageId};
use wa_core::store::{Archived, MessageFilter};
use wa_core::time::Timestamp;

use crate::error::Done;
use crate::message_row::message;
use crate::row::{Columns, blob, count, hex_list, read_all};

/// The columns of a message that are written.
macro_rules! message_columns {
    () => {
        "id, user_id, scope_kind, scope_id, enrolment_id, step_id, steps_version, priority, key, round, supersedes, superseded, lead_id,
        phone, person, name, custom, device_id, from_pool, content, override_suppression, due_at, delay, expires_at, held_at, state,
        reason, detail, refusal_count, attempt_id, epoch, doubt_since_at, doubt_cause, next_check_at, not_found_count, resend_count,
        delivery, delivery_at, settled_at, created_at"
    };
}

/// The columns of an attempt.
macro_rules! attempt_columns {
    () => {
        "id, message_id, device_id, epoch, transport_message_id, provider_id, text, greeting, attempted_at"
    };
}

/// `archive`: the campaign whose turn it is, by `campaigns_to_archive` and the primary key of tallies.
pub(crate) const NEXT: &str = "
    SELECT c.id FROM campaigns c INDEXED BY campaigns_to_archive
    WHERE c.status IN (5, 6, 7) AND c.started_at IS NOT NULL AND c.archived = 0 AND c.ended_at < ?1 AND NOT EXISTS (
        SELECT 1 FROM tallies t
        WHERE t.user_id = c.user_id AND t.scope_kind = 1 AND t.scope_id = c.id AND t.remaining > 0
    )
    ORDER BY c.ended_at, c.id LIMIT 1";
/// `archive`: from now on it never changes. By the unique index of ids.
pub(crate) const MARK: &str = "UPDATE campaigns SET archived_at = ?2 WHERE id = ?1 AND archived_at IS NULL";
/// `archive`: the next messages of a campaign, by `messages_scope`.
pub(crate) const PAGE: &str = "
    SELECT m.id FROM messages m INDEXED BY messages_scope WHERE m.scope_kind = 1 AND m.scope_id = ?1 AND m.state > 4
    ORDER BY m.id LIMIT ?2";
/// `archive`: those to whom they were sent are known to the device, by the unique indexes of ids and the primary key.
pub(crate) const ACQUAINT: &str = "
    INSERT INTO acquaintances (device_id, person, since_at)
    SELECT m.device_id, m.person, min(coalesce(a.attempted_at, m.created_at))
    FROM json_each(?1) j CROSS JOIN messages m ON m.id = unhex(j.value) LEFT JOIN attempts a ON a.id = m.attempt_id
    WHERE m.state = 5 AND m.device_id IS NOT NULL AND m.phone IS NOT NULL GROUP BY 1, 2
    ON CONFLICT (device_id, person) DO UPDATE SET since_at = excluded.since_at WHERE excluded.since_at < since_at";
/// `archive`: when devices started the attempts, by the unique index of ids and `attempts_message`.
pub(crate) const NOTE_STARTS: &str = "
    INSERT INTO lane_pasts (device_id, first_attempt_at, last_attempt_at)
    SELECT a.device_id, min(CASE WHEN m.state IN (5, 7) AND m.attempt_id = a.id THEN a.attempted_at END), max(a.attempted_at)
    FROM json_each(?1) j CROSS JOIN messages m ON m.id = unhex(j.value)
    CROSS JOIN attempts a INDEXED BY attempts_message ON a.message_id = m.id
    WHERE true GROUP BY 1
    ON CONFLICT (device_id) DO UPDATE SET
        first_attempt_at = coalesce(
            min(first_attempt_at, excluded.first_attempt_at), first_attempt_at, excluded.first_attempt_at
        ),
        last_attempt_at = max(last_attempt_at, excluded.last_attempt_at)";
/// `archive`: the attempts, by `attempts_message`, in their order.
pub(crate) const COPY_ATTEMPTS: &str = concat!(
    "INSERT INTO archived_attempts (",
    attempt_columns!(),
    ") SELECT ",
    attempt_columns!(),
    " FROM (
        SELECT a.* FROM json_each(?1) j CROSS JOIN attempts a INDEXED BY attempts_message ON a.message_id = unhex(j.value)
        ORDER BY a.seq
    )"
);
pub(crate) const DELETE_ATTEMPTS: &str = "
    DELETE FROM attempts WHERE seq IN (
        SELECT a.seq FROM json_each(?1) j CROSS JOIN attempts a INDEXED BY attempts_message ON a.message_id = unhex(j.value)
    )";
/// `archive`: the messages themselves, by the unique index of ids.
pub(crate) const COPY: &str = concat!(
    "INSERT INTO archived_messages (",
    message_columns!(),
    ") SELECT ",
    message_columns!(),
    " FROM messages WHERE id IN (SELECT unhex(value) FROM json_each(?1))"
);
pub(crate) const DELETE: &str = "DELETE FROM messages WHERE id IN (SELECT unhex(value) FROM json_each(?1))";
/// `archive`: nothing of it is left, by the unique index of ids and `messages_scope`.
pub(crate) const FINISH: &str = "
    UPDATE campaigns SET archived = 1 WHERE id = ?1
        AND NOT EXISTS (SELECT 1 FROM messages m INDEXED BY messages_scope WHERE m.scope_kind = 1 AND m.scope_id = ?1)";

/// `message`, by the unique index of ids and `archived_attempts_message`.
pub(crate) const VISIBLE: &str = message!(
    "FROM archived_messages m LEFT JOIN archived_attempts a ON a.message_id = m.id AND a.id = m.attempt_id
    WHERE m.id = ?1 AND m.user_id = ?2 AND (?3 IS NULL OR m.device_id IN (SELECT unhex(value) FROM json_each(?3)))"
);
/// `attempts`, by `archived_attempts_message`, oldest first.
pub(crate) const ATTEMPTS: &str = "
    SELECT a.id, a.transport_message_id, a.provider_id, a.device_id, a.epoch, a.text, a.greeting, a.attempted_at
    FROM archived_attempts a INDEXED BY archived_attempts_message WHERE a.message_id = ? ORDER BY a.seq";
/// `newest_of_leads`, by `archived_messages_lead`.
pub(crate) const NEWEST_OF_LEADS: &str = message!(
    "FROM (SELECT DISTINCT unhex(value) AS id FROM json_each(?1)) i
    CROSS JOIN archived_messages m ON m.id = (
        SELECT n.id FROM archived_messages n INDEXED BY archived_messages_lead
        WHERE n.lead_id = i.id AND n.superseded = 0 AND n.user_id = ?2
            AND (?3 IS NULL OR n.device_id IN (SELECT unhex(value) FROM json_each(?3)))
        ORDER BY n.id DESC LIMIT 1
    )
    LEFT JOIN archived_attempts a ON a.message_id = m.id AND a.id = m.attempt_id"
);
/// `history`: of each device, by the primary key.
pub(crate) const PASTS: &str = "
    SELECT j.key, p.first_attempt_at, p.last_attempt_at
    FROM json_each(?1) j CROSS JOIN lane_pasts p ON p.device_id = unhex(j.value)";
/// `commit`: whether a message of a user is here, by the unique index of ids.
pub(crate) const HAS: &str = "SELECT 1 FROM archived_messages WHERE id = ?1 AND user_id = ?2";
/// `ErasePerson`: by `archived_messages_person`.
pub(crate) const ERASE: &str = "
    UPDATE archived_messages SET phone = NULL, name = '', custom = NULL, content = NULL, detail = NULL
    WHERE seq IN (SELECT m.seq FROM archived_messages m INDEXED BY archived_messages_person WHERE m.person = ?1 AND m.user_id = ?2)";
/// `ErasePerson`: by `archived_messages_person` and `archived_attempts_message`.
pub(crate) const ERASE_ATTEMPTS: &str = "
    UPDATE archived_attempts SET text = '' WHERE seq IN (
        SELECT a.seq FROM archived_messages m INDEXED BY archived_messages_person
        CROSS JOIN archived_attempts a INDEXED BY archived_attempts_message ON a.message_id = m.id
        WHERE m.person = ?1 AND m.user_id = ?2)";

/// Where messages are read from.
#[derive(Clone, Copy)]
pub(crate) enum Source {
    Live,
    Archive,
}

impl Source {
    /// Where what a list shows may be; only messages of campaigns are ever archived. In the order in which a message goes from one to
    /// the other, so that whoever reads them one after the other misses none.
    pub(crate) fn of(filter: &MessageFilter) -> &'static [Self] {
        let campaigns = filter.enrolment_id.is_none() && matches!(filter.scope, None | Some(MessageScope::Campaign(_)));
        if campaigns {
            &[Self::Live, Self::Archive]
        } else {
            &[Self::Live]
        }
    }
}

/// Moves a page of messages of one campaign.
pub(crate) async fn archive(
    connection: &mut SqliteConnection,
    limit: u32,
    ended_before: Timestamp,
    now: Timestamp,
) -> Done<Archived> {
    let next = sqlx::query(NEXT).bind(ended_before.as_millis());
    let Some(row) = next.fetch_optional(&mut *connection).await? else {
        return Ok(Archived::default());
    };
    let campaign: CampaignId = Columns::of(&row).key("id")?;
    let campaign = blob(&campaign).to_vec();
    let mark = sqlx::query(MARK).bind(campaign.clone()).bind(now.as_millis());
    mark.execute(&mut *connection).await?;
    let page = sqlx::query(PAGE).bind(campaign.clone()).bind(limit);
    let page: Vec<MessageId> = read_all(&page.fetch_all(&mut *connection).await?, |c| c.key("id"))?;
    if !page.is_empty() {
        let list = hex_list(&page);
        for sql in [ACQUAINT, NOTE_STARTS, COPY_ATTEMPTS, DELETE_ATTEMPTS, COPY, DELETE] {
            sqlx::query(sql).bind(list.clone()).execute(&mut *connection).await?;
        }
    }
    sqlx::query(FINISH).bind(campaign).execute(connection).await?;
    Ok(Archived {
        moved: count(page.len()),
        more: true,
    })
}

#[cfg(test)]
mod tests {
    use sqlx::AssertSqlSafe;
    use wa_core::conformance::fixtures::Fixtures;
    use wa_core::domain::access::RequestScope;
    use wa_core::domain::campaign::CampaignStatus;
    use wa_core::domain::device::Epoch;
    use wa_core::domain::message::{Attempt, Message, MessageState};
    use wa_core::store::{Change, ChangeSet, MessageFilter, OutboxStore, PageRequest, Store, WriteClass};
    use wa_core::transport::TransportMessageId;

    use crate::{MIGRATIONS, SqliteOptions, SqliteStore};

    #[tokio::test]
    async fn a_step_back_to_the_schema_before_brings_messages_back() {
        let store = SqliteStore::open(SqliteOptions::memory()).await.unwrap();
        let rows = Fixtures::new(1);
        let (now, user) = (rows.start(), rows.user().id);
        let (device, campaign) = (rows.device(user), rows.campaign(user));
        let message = |_| {
            let id = rows.attempt_id();
            Message {
                state: MessageState::Sent,
                settled_at: Some(now),
                attempt: Some(Attempt {
                    id,
                    transport_message_id: TransportMessageId::from_attempt(id),
                    provider_id: TransportMessageId::new("vendor-1"),
                    device_id: device.id,
                    epoch: Epoch(0),
                    text: "Hello".to_owned(),
                    greeting: None,
                    attempted_at: now,
                }),
                ..rows.campaign_message(user, campaign.id, Some(device.id), rows.fresh_phone())
            }
        };
        let status = |from, to| Change::SetCampaignStatus {
            user_id: user,
            campaign_id: campaign.id,
            from,
            to,
            reason: None,
        };
        let set = ChangeSet::one(Change::InsertDevice(Box::new(device.clone())))
            .and(Change::InsertCampaign(Box::new(campaign.clone())))
            .and(status(&[CampaignStatus::Draft], CampaignStatus::Scheduled))
            .and(status(&[CampaignStatus::Scheduled], CampaignStatus::Triggered))
            .and(Change::InsertMessages((0..5).map(message).collect()))
            .and(status(&[CampaignStatus::Triggered], CampaignStatus::Completed));
        store.commit(set, WriteClass::Api, now).await.unwrap();
        let (scope, filter) = (RequestScope::user(user), MessageFilter::default());
        let listed = async || {
            let page = store.messages(&scope, &filter, &PageRequest::first(10)).await;
            page.unwrap().rows
        };
        let before = listed().await;
        for _ in 0..2 {
            while store.archive(2, rows.at(1), rows.at(2)).await.unwrap().more {}
            assert_eq!(listed().await, before);
            let mut turn = store.writer.turn(WriteClass::Api).await.unwrap();
            let left: i64 = sqlx::query_scalar("SELECT count(*) FROM messages")
                .fetch_one(&mut *turn)
                .await
                .unwrap();
            assert_eq!(left, 0);
            let archive = MIGRATIONS
                .iter()
                .find(|one| one.description == "archive")
                .unwrap()
                .version;
            let earlier = MIGRATIONS
                .iter()
                .map(|one| one.version)
                .filter(|version| *version < archive)
                .max();
            MIGRATIONS.undo(&mut *turn, earlier.unwrap()).await.unwrap();
            let left: i64 = sqlx::query_scalar("SELECT count(*) FROM messages")
                .fetch_one(&mut *turn)
                .await
                .unwrap();
            assert_eq!(left, 5);
            MIGRATIONS.run(&mut *turn).await.unwrap();
            drop(turn);
            assert_eq!(listed().await, before);
        }
    }

    #[tokio::test]
    async fn the_archive_keeps_every_column() {
        let store = SqliteStore::open(SqliteOptions::memory()).await.unwrap();
        let mut reader = store.reader().await.unwrap();
        for (table, columns) in [("messages", message_columns!()), ("attempts", attempt_columns!())] {
            // Not those that follow from others, and not the row id, which is another there.
            let mut wanted: Vec<&str> = columns.split(',').map(str::trim).collect();
            wanted.sort_unstable();
            for prefix in ["", "archived_"] {
                let sql =
                    format!("SELECT name FROM pragma_table_info('{prefix}{table}') WHERE name <> 'seq' ORDER BY name");
                let names: Vec<String> = sqlx::query_scalar(AssertSqlSafe(sql))
                    .fetch_all(&mut *reader)
                    .await
                    .unwrap();
                assert_eq!(names, wanted, "{prefix}{table}");
            }
        }
    }
}
